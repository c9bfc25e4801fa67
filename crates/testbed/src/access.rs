//! Whether this process may make namespaces, why not, and the way in without root.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use crate::LabError;
use crate::namespace::Namespace;
use crate::netlink::interface::{self, VethEnd};
use crate::sys;

/// The number of `CAP_SYS_ADMIN` in a capability mask.
const SYS_ADMIN: u32 = 21;

/// How long threads that were joined may take to be gone from the kernel's list; it takes microseconds.
const LEAVING: Duration = Duration::from_secs(1);

/// Tries everything a lab is made of once: a namespace, a veth pair, a packet socket.
pub(crate) fn available() -> Result<(), LabError> {
    let namespace = Namespace::new()?;
    let near = VethEnd { name: "near", hardware_address: [2, 0, 0, 0, 0, 1], mtu: 1500 };
    let far = VethEnd { name: "far", hardware_address: [2, 0, 0, 0, 0, 2], mtu: 1500 };
    let netlink = &namespace.netlink;
    netlink
        .request(interface::create_veth(&near, &far, std::os::fd::AsFd::as_fd(&namespace)))
        .map_err(veth_refused("make a veth pair"))?;
    let near = netlink.request(interface::by_name("near"));
    let near = near.map_err(|error| LabError::refused("find the veth pair just made", error))?;
    let index = interface::found(&near).unwrap_or(0);
    namespace.run("tb-available", || sys::packet_socket(index)).map_err(packet_refused)?;
    Ok(())
}

/// Makes a single-threaded process root in a user and a network namespace of its own, so that an ordinary user may build
/// a [`Lab`](crate::Lab). Call it early in `main`, before any thread or runtime starts; threads that have been joined, as
/// those of [`Lab::available`](crate::Lab::available), do not matter. With others it fails after a second.
///
/// Inside, user and group 0 are the caller's own; outside, nothing is gained. [`LabError::Forbidden`] says which
/// setting of the machine stands in the way; after an error the process may be left without its capabilities and should
/// only report and end.
pub fn enter_user_namespace() -> Result<(), LabError> {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    await_single_thread();
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|errno| user_namespace_forbidden("making a user namespace", errno, &Policy::read()))?;
    // The kernel lets a group be mapped without privilege only once setgroups is given up.
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ];
    for (file, content) in maps {
        fs::write(file, content).map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
            user_namespace_forbidden(&format!("writing {file}"), errno, &Policy::read())
        })?;
    }
    Ok(())
}

/// Waits for threads on their way out: joining one does not wait until the kernel has let it go, and before that no user
/// namespace can be entered.
fn await_single_thread() {
    let guard = Instant::now() + LEAVING;
    let threads = || fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    while threads() > 1 && Instant::now() < guard {
        thread::sleep(Duration::from_micros(100));
    }
}

/// What the machine says about namespaces; `None` where this kernel has no such setting.
#[derive(Default)]
struct Policy {
    unprivileged_userns_clone: Option<u64>,
    max_user_namespaces: Option<u64>,
    apparmor_restrict: Option<u64>,
    capabilities: u64,
    seccomp_filter: bool,
}

impl Policy {
    fn read() -> Self {
        let number = |file: &str| fs::read_to_string(format!("/proc/sys/{file}")).ok()?.trim().parse().ok();
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        Self {
            unprivileged_userns_clone: number("kernel/unprivileged_userns_clone"),
            max_user_namespaces: number("user/max_user_namespaces"),
            apparmor_restrict: number("kernel/apparmor_restrict_unprivileged_userns"),
            capabilities: u64::from_str_radix(field("CapEff:"), 16).unwrap_or(0),
            seccomp_filter: field("Seccomp:") == "2",
        }
    }
}

/// Explains a refused network namespace.
pub(crate) fn namespace_forbidden(errno: Errno) -> LabError {
    namespace_forbidden_by(errno, &Policy::read())
}

fn namespace_forbidden_by(errno: Errno, policy: &Policy) -> LabError {
    let (reason, remedy) = match errno {
        Errno::EPERM if policy.capabilities & (1 << SYS_ADMIN) == 0 => (
            "the process lacks CAP_SYS_ADMIN".into(),
            "Run it as root, or inside a user namespace: unshare --user --map-root-user --net COMMAND",
        ),
        Errno::EPERM => (
            "the process has CAP_SYS_ADMIN, so a seccomp policy or security module refuses".into(),
            "In a container, start it with a seccomp policy that allows unshare and setns",
        ),
        Errno::ENOSPC => (
            "the limit user.max_net_namespaces is reached".into(),
            "Raise it as root: sysctl user.max_net_namespaces=10000",
        ),
        Errno::EINVAL => {
            ("this kernel is built without network namespaces".into(), "Use a kernel with CONFIG_NET_NS")
        }
        other => (other.to_string(), "Run it as root on Linux 5.10 or later"),
    };
    forbidden("making a network namespace", reason, remedy)
}

fn user_namespace_forbidden(attempted: &str, errno: Errno, policy: &Policy) -> LabError {
    let (reason, remedy) = match errno {
        Errno::EINVAL => (
            "the process already has several threads, or this kernel is built without user namespaces".into(),
            "Call it at the start of main, before any thread; the kernel needs CONFIG_USER_NS",
        ),
        Errno::ENOSPC | Errno::EPERM if policy.max_user_namespaces == Some(0) => (
            "user.max_user_namespaces is 0".into(),
            "Allow some as root: sysctl user.max_user_namespaces=10000",
        ),
        Errno::ENOSPC | Errno::EUSERS => (
            "the limit user.max_user_namespaces, or that of 32 nested ones, is reached".into(),
            "Raise it as root: sysctl user.max_user_namespaces=10000",
        ),
        _ if policy.unprivileged_userns_clone == Some(0) => (
            "kernel.unprivileged_userns_clone is 0".into(),
            "Allow it as root: sysctl kernel.unprivileged_userns_clone=1, or run as root",
        ),
        _ if policy.apparmor_restrict.is_some_and(|value| value != 0) => (
            "kernel.apparmor_restrict_unprivileged_userns is on".into(),
            "Allow it as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0, give the program an AppArmor \
             profile with the userns rule, or run as root",
        ),
        Errno::EPERM if policy.seccomp_filter => (
            "a seccomp policy is in force, as in most containers".into(),
            "Start the container with a policy that allows unshare of user namespaces, or run on the machine itself",
        ),
        Errno::EPERM => (
            "the process is in a chroot, its user is not mapped, or a security module refuses".into(),
            "Run it outside of the chroot, or as root",
        ),
        other => (other.to_string(), "Run it as root"),
    };
    forbidden(attempted, reason, remedy)
}

/// Explains a refused veth pair; `attempted` completes "cannot ...".
pub(crate) fn veth_refused(attempted: impl Into<String>) -> impl FnOnce(std::io::Error) -> LabError {
    move |error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EOPNOTSUPP) => forbidden(
            "making a veth pair",
            "the kernel has no veth driver".into(),
            "Load it as root: modprobe veth",
        ),
        _ => LabError::refused(attempted, error),
    }
}

/// Explains a refused packet socket.
pub(crate) fn packet_refused(error: std::io::Error) -> LabError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAFNOSUPPORT) => forbidden(
            "opening a packet socket",
            "the kernel has no packet sockets".into(),
            "Load them as root: modprobe af_packet",
        ),
        Some(Errno::EPERM) => forbidden(
            "opening a packet socket",
            "the process lacks CAP_NET_RAW, or a seccomp policy refuses".into(),
            "Run it as root, in a container with --cap-add=NET_RAW",
        ),
        _ => LabError::refused("open a packet socket", error),
    }
}

fn forbidden(attempted: &str, reason: String, remedy: &str) -> LabError {
    LabError::Forbidden { attempted: attempted.into(), reason, remedy: remedy.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_prohibition_is_named() {
        let cases = [
            (Errno::EINVAL, Policy::default(), "before any thread"),
            (Errno::ENOSPC, Policy::default(), "sysctl user.max_user_namespaces"),
            (Errno::ENOSPC, Policy { max_user_namespaces: Some(0), ..Policy::default() }, "is 0"),
            (
                Errno::EPERM,
                Policy { unprivileged_userns_clone: Some(0), ..Policy::default() },
                "sysctl kernel.unprivileged_userns_clone=1",
            ),
            (
                Errno::EPERM,
                Policy { apparmor_restrict: Some(1), seccomp_filter: true, ..Policy::default() },
                "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (Errno::EPERM, Policy { seccomp_filter: true, ..Policy::default() }, "seccomp"),
            (Errno::EPERM, Policy::default(), "chroot"),
        ];
        for (errno, policy, expected) in cases {
            let message = user_namespace_forbidden("making a user namespace", errno, &policy).to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_missing_capability_is_told_from_a_policy() {
        let message = |capabilities| {
            namespace_forbidden_by(Errno::EPERM, &Policy { capabilities, ..Policy::default() }).to_string()
        };
        assert!(message(0).contains("lacks CAP_SYS_ADMIN"));
        assert!(message(1 << SYS_ADMIN).contains("seccomp"));
    }
}
