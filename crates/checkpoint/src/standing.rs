//! Processes that were saved and stand still, until it is decided where they go on.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::Error;
use crate::migration::Moving;
use crate::process;
use crate::scope::{Scope, Tree};

/// How long the system may take to end processes.
const END: Duration = Duration::from_secs(30);
/// How long it may take to stop them that were told to, and how often that is looked at.
const STOP: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);

/// Stopped processes. Held by descriptors, so that nobody else is hit who gets a number of them.
#[derive(Debug)]
pub struct Standing {
    /// The first of them.
    root: u32,
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
    /// A tree that is to stand still, or does.
    pub fn of(moving: &Moving) -> Result<Self, Error> {
        let mut standing = Self { root: moving.ask.root, processes: Vec::new() };
        standing.hold(&Tree::find(Scope::Tree, moving.ask.root)?, |pid| moving.stopped.contains(&pid))?;
        Ok(standing)
    }

    /// Those that were not held yet.
    fn hold(&mut self, tree: &Tree, was_stopped: impl Fn(u32) -> bool) -> Result<(), Error> {
        let known: BTreeSet<_> = self.processes.iter().map(|still| still.pid).collect();
        for pid in tree.pids().into_iter().filter(|pid| !known.contains(pid) && process::lives(*pid)) {
            let failed = |error: Errno| Error::io("watch the processes", "/proc".as_ref(), error.into());
            let number = Pid::from_raw(pid.cast_signed()).ok_or_else(|| failed(Errno::SRCH))?;
            let handle = match pidfd_open(number, PidfdFlags::empty()) {
                Ok(handle) => handle,
                Err(Errno::SRCH) => continue,
                Err(error) => return Err(failed(error)),
            };
            self.processes.push(Still { pid, handle, was_stopped: was_stopped(pid) });
        }
        Ok(())
    }

    /// Waits until all of them stand still, also those that were forked since they were held. Whoever was let go on does not.
    pub fn check(&mut self) -> Result<(), Error> {
        let until = Instant::now() + STOP;
        loop {
            let tree = Tree::find(Scope::Tree, self.root)?;
            self.hold(&tree, |_| false)?;
            let runs = tree.pids().into_iter().find(|pid| process::lives(*pid) && !process::is_stopped(*pid));
            match runs {
                None => return Ok(()),
                Some(pid) if Instant::now() > until => return Err(Error::Woken { pid }),
                Some(_) => thread::sleep(LOOK),
            }
        }
    }

    /// They go on here, but for those that did not run before either.
    pub fn go_on(&self) {
        for still in self.processes.iter().filter(|still| !still.was_stopped) {
            let _gone = pidfd_send_signal(&still.handle, Signal::CONT);
        }
    }

    /// They end, and are waited for.
    pub fn end(&mut self) -> Result<(), Error> {
        // Somebody may have let them go on, and they may have forked.
        if let Ok(tree) = Tree::find(Scope::Tree, self.root) {
            self.hold(&tree, |_| false)?;
        }
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
