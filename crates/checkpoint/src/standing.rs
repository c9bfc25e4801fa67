//! Processes that were saved and stand still, until it is decided where they go on.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::error::Error;
use crate::migration::Moving;
use crate::process;
use crate::scope::{Scope, Tree};

/// How long the system may take to end processes.
const END: Duration = Duration::from_secs(30);

/// Stopped processes. Held by descriptors, so that nobody else is hit who gets a number of them.
#[derive(Debug)]
pub struct Standing {
    processes: Vec<Still>,
}

#[derive(Debug)]
struct Still {
    pid: u32,
    handle: OwnedFd,
    /// Somebody else had stopped it before.
    was_stopped: bool,
}

impl Standing {
    /// A tree that stands still, so that none of it comes or goes. If that fails they go on.
    pub fn of(moving: &Moving) -> Result<Self, Error> {
        let tree = Tree::find(Scope::Tree, moving.ask.root)?;
        Self::hold(moving, &tree).inspect_err(|_| {
            // Nobody else lets them go on then.
            for pid in tree.pids().into_iter().filter(|pid| !moving.stopped.contains(pid)) {
                let number = Pid::from_raw(pid.cast_signed());
                let _gone = number.map(|number| kill_process(number, Signal::CONT));
            }
        })
    }

    fn hold(moving: &Moving, tree: &Tree) -> Result<Self, Error> {
        let mut processes = Vec::new();
        for pid in tree.pids().into_iter().filter(|pid| process::lives(*pid)) {
            let failed = |error: Errno| Error::io("watch the processes", "/proc".as_ref(), error.into());
            let number = Pid::from_raw(pid.cast_signed()).ok_or_else(|| failed(Errno::SRCH))?;
            let handle = match pidfd_open(number, PidfdFlags::empty()) {
                Ok(handle) => handle,
                Err(Errno::SRCH) => continue,
                Err(error) => return Err(failed(error)),
            };
            processes.push(Still { pid, handle, was_stopped: moving.stopped.contains(&pid) });
        }
        Ok(Self { processes })
    }

    /// They go on here, but for those that did not run before either.
    pub fn go_on(&self) {
        for still in self.processes.iter().filter(|still| !still.was_stopped) {
            let _gone = pidfd_send_signal(&still.handle, Signal::CONT);
        }
    }

    /// They end, and are waited for.
    pub fn end(&self) -> Result<(), Error> {
        let cannot = |pid: u32, error: Errno| Error::Signal { pid, source: error.into() };
        for still in &self.processes {
            match pidfd_send_signal(&still.handle, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(cannot(still.pid, error)),
            }
        }
        let until = Instant::now() + END;
        for still in &self.processes {
            loop {
                let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
                match poll(&mut [PollFd::new(&still.handle, PollFlags::IN)], left.as_ref()) {
                    Ok(0) => return Err(cannot(still.pid, Errno::TIMEDOUT)),
                    Ok(_) => break,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(cannot(still.pid, error)),
                }
            }
        }
        Ok(())
    }
}
