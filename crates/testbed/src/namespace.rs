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
/// up, and a strict reverse-path filter may refuse packets of a host with several links.
const SYSCTLS: [(&str, &str); 6] = [
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
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| access::namespace_forbidden(errno))?;
            for (key, value) in SYSCTLS {
                let _ = fs::write(format!("/proc/sys/net/{key}"), value);
            }
            let file = fs::File::open("/proc/thread-self/ns/net")
                .map_err(|error| LabError::refused("open the new namespace in /proc", error))?;
            let netlink = Netlink::open().map_err(|error| LabError::refused("open a netlink socket", error))?;
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
