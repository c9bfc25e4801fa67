//! A network namespace: made on a thread of its own, kept alive by a descriptor, entered by threads.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::LabError;
use crate::access;
use crate::netlink::{Netlink, interface};

/// Best effort, since a container may mount these read-only: without them IPv6 sends more noise and takes longer to come
/// up, a strict reverse-path filter may refuse packets of a host with several links, and such a host answers and asks on
/// one link for its addresses on another, so that each of its networks is a way to all of them; and the first IPv4 address
/// of a subnet takes all others of it along when it goes.
const SYSCTLS: [(&str, &str); 9] = [
    ("ipv4/conf/all/promote_secondaries", "1"),
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv4/conf/all/arp_announce", "2"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
];

pub(crate) struct Namespace {
    file: fs::File,
    /// A netlink socket stays in the namespace where it was opened, whichever thread uses it.
    pub(crate) netlink: Netlink,
}

impl Namespace {
    pub(crate) fn new() -> Result<Self, LabError> {
        let maker = thread::Builder::new().name("tb-namespace".into()).spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(access::namespace_forbidden)?;
            for (key, value) in SYSCTLS {
                let _ = fs::write(format!("/proc/sys/net/{key}"), value);
            }
            let file = fs::File::open("/proc/thread-self/ns/net")
                .map_err(|error| LabError::refused("open the new namespace in /proc", error))?;
            let netlink =
                Netlink::open().map_err(|error| LabError::refused("open a netlink socket", error))?;
            netlink
                .request(interface::set_up(interface::LOOPBACK))
                .map_err(|error| LabError::refused("bring up the loopback interface", error))?;
            Ok(Self { file, netlink })
        });
        let maker = maker.map_err(|error| LabError::refused("start a thread", error))?;
        maker.join().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Moves the calling thread, and whatever it starts, into this namespace.
    pub(crate) fn enter(&self) -> io::Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
    }

    /// Runs a closure on a thread inside the namespace and waits for it; its panic goes on here.
    pub(crate) fn run<T: Send>(&self, name: &str, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name(name.into()).spawn_scoped(scope, || {
                self.enter().expect("a process that made a namespace may enter it");
                body()
            });
            let thread = thread.expect("a thread can be started");
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// The inode by which `/proc/*/ns/net` names this namespace.
    pub(crate) fn id(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::netlink::interface::VethEnd;
    use crate::{Lab, isolated};

    /// A veth pair dies with the namespace of either end, so an end kept outside tells when the kernel has let a
    /// namespace go, whoever might have held it.
    #[test]
    fn the_kernel_lets_go_of_a_dropped_lab() {
        isolated("namespace::tests::the_kernel_lets_go_of_a_dropped_lab", || {
            let outside = Namespace::new().unwrap();
            let lab = Lab::new().unwrap();
            let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
            let link = lab.link("wifi", &a, &b).connect().unwrap();
            let watched = [("a", a.namespace()), ("b", b.namespace()), ("middle", lab.middle())];
            for (name, namespace) in watched {
                let near = VethEnd { name, hardware_address: [2, 0, 0, 0, 1, 1], mtu: 1500 };
                let far = VethEnd { name: "watch", hardware_address: [2, 0, 0, 0, 1, 2], mtu: 1500 };
                outside.netlink.request(interface::create_veth(&near, &far, namespace.as_fd())).unwrap();
            }
            let alive = |name| outside.netlink.request(interface::by_name(name)).is_ok();
            drop((link, lab));
            assert!(alive("a") && alive("b"), "hosts live as long as their handles");
            drop((a, b));
            let guard = Instant::now() + Duration::from_secs(20);
            while alive("a") || alive("b") || alive("middle") {
                assert!(Instant::now() < guard, "a namespace outlives its last handle");
                thread::yield_now();
            }
        });
    }
}
