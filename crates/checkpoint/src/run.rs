//! Starting a program so that it can be saved well: in a time namespace of its own, its clocks go on after a restore where
//! they were, on another machine and after a reboot, too.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Pid, getsid, setsid};

use crate::error::Error;
use crate::parent::Masked;

/// `CLONE_NEWTIME`, which has no name there yet.
const NEW_TIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// A program that was started.
#[derive(Debug)]
pub struct Started {
    /// The process.
    pub child: Child,
    /// Why it shares the clocks of this machine, if it does.
    pub shared_clock: Option<String>,
}

/// Starts it. This thread has to be the only one of the process; its own clocks, and those of what it starts later, stay as
/// they are.
pub fn run(program: &str, arguments: &[String], masked: &Masked) -> Result<Started, Error> {
    let failed = |source: io::Error| Error::Start { program: program.to_owned(), source };
    own_session();
    let before = apart();
    let mut command = Command::new(program);
    command.args(arguments);
    // The group it has anyway: with this, the child is forked, and enters the namespace on kernels that did not let
    // `exec` do that.
    command.gid(rustix::process::getgid().as_raw());
    let child = masked.lifted(|| command.spawn());
    if let Ok(before) = &before {
        // Children of this process are in its own again: CRIU has to be outside.
        setns(before, NEW_TIME).map_err(|error| failed(error.into()))?;
    }
    Ok(Started { child: child.map_err(failed)?, shared_clock: before.err().map(|error| error.to_string()) })
}

/// CRIU saves no process whose session has its leader outside of its PID namespace. Without a terminal, which would be
/// lost, this process then leads a session of its own. A leader of a process group cannot; saving says what would help.
fn own_session() {
    let led_from_outside = getsid(None) == Ok(Pid::from_raw(0));
    if led_from_outside && File::open("/dev/tty").is_err() {
        let _group_leader = setsid();
    }
}

/// From here children are in a new time namespace. Returns the way back.
fn apart() -> io::Result<File> {
    let before = File::open("/proc/self/ns/time")?;
    unshare(NEW_TIME)?;
    Ok(before)
}
