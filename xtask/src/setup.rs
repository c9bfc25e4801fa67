//! The programs that tests call, installed where that is possible.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process;

/// One program that a test starts and that a small Debian may lack.
struct Need {
    program: &'static str,
    package: &'static str,
    reason: &'static str,
    /// Installing it starts a service that others can reach: nothing that a test may do to a machine.
    serves: bool,
}

/// What cargo itself needs (a C compiler as linker and for `ring`) is not here: without it this program would not run.
const NEEDS: [Need; 7] = [
    Need {
        program: "unshare",
        package: "util-linux",
        reason: "the testbed's tests enter a user namespace with it when not run as root, and those of checkpoints set a clock back",
        serves: false,
    },
    Need {
        program: "ip",
        package: "iproute2",
        reason: "the scout's tests change addresses and links under it, as an administrator would",
        serves: false,
    },
    Need {
        program: "pkg-config",
        package: "pkgconf",
        reason: "a C program is compiled with it against the installed library",
        serves: false,
    },
    Need {
        program: "curl",
        package: "curl",
        reason: "it downloads through a tunnel whose network dies",
        serves: false,
    },
    Need {
        program: "ssh",
        package: "openssh-client",
        reason: "its session goes through a tunnel whose network dies",
        serves: false,
    },
    Need {
        program: "sshd",
        package: "openssh-server",
        reason: "that session ends at one of the tests' own",
        serves: true,
    },
    Need {
        program: "nats-server",
        package: "nats-server",
        reason: "hosts exchange events over one of the tests' own",
        serves: true,
    },
];

/// Where services run, which a package would start.
const SERVICES: &str = "/run/systemd/system";

/// Installs what is missing, or says what to install. Never fails: tests that miss a program say so themselves.
pub(crate) fn run() {
    programs();
    crate::criu::run(is_root());
}

fn programs() {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !is_there(need.program)).collect();
    if missing.is_empty() {
        return;
    }
    println!("Some tests call programs that are missing here:");
    for need in &missing {
        println!("  {} ({}): {}", need.program, need.package, need.reason);
    }
    let left_out = |need: &&&Need| need.serves && Path::new(SERVICES).exists();
    for need in missing.iter().filter(left_out) {
        println!("{} is left to you, because its package would start a service here", need.program);
    }
    let packages: Vec<&str> =
        missing.iter().filter(|need| !left_out(need)).map(|need| need.package).collect();
    if packages.is_empty() {
        return;
    }
    let by_hand = format!("apt-get install {}", packages.join(" "));
    if !is_root() || process::find("apt-get").is_none() {
        println!("Going on without them. On Debian, install them as root: {by_hand}");
        return;
    }
    println!("Installing: {by_hand}");
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&packages);
    if !(apt(&["update"]) && apt(&install)) {
        println!(
            "Going on without them: apt-get failed, see above. Is there a network, and a mirror that answers?"
        );
    }
}

/// On the path, or where only administrators look.
fn is_there(program: &str) -> bool {
    process::find(program).is_some() || Path::new("/usr/sbin").join(program).exists()
}

fn apt(arguments: &[&str]) -> bool {
    let mut command = Command::new("apt-get");
    command.args(["--quiet"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    process::succeeds(&mut command).unwrap_or(false)
}

fn is_root() -> bool {
    // /proc/self belongs to the effective user, which saves a dependency for one system call.
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
