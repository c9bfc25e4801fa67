//! Processes that were saved and stand still, until it is decided where they go on.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::Error;
use crate::grip::Grip;
use crate::migration::Moving;
use crate::process;
use crate::scope::{Scope, Tree};

/// How long the system may take to end processes.
const END: Duration = Duration::from_secs(30);
/// How long it may take to stop them that were told to, and how often that is looked at.
const STOP: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);

/// Stopped processes, the first one of the tree first. Held by descriptors, so that nobody else is hit who gets a number of
/// them.
#[derive(Debug)]
pub struct Standing {
    root: u32,
    processes: Vec<Still>,
    /// What keeps them from going on, whoever says so.
    grip: Option<Grip>,
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
        let mut standing = Self { root: moving.ask.root, processes: Vec::new(), grip: None };
        standing.hold(&Tree::find(Scope::Tree, moving.ask.root)?, |pid| moving.stopped.contains(&pid))?;
        Ok(standing)
    }

    /// The tree as it is now; an error once its first process has ended, whose number may be anybody's.
    fn tree(&self) -> Result<Tree, Error> {
        let tree = Tree::find(Scope::Tree, self.root)?;
        // Looked at after the tree: it had the number all the while.
        let held = self.processes.iter().find(|still| still.pid == self.root);
        match held
            .map(|still| poll(&mut [PollFd::new(&still.handle, PollFlags::IN)], Some(&Timespec::default())))
        {
            Some(Ok(0)) => Ok(tree),
            _ => Err(Error::NoProcess { what: "process", id: self.root }),
        }
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
            let tree = self.tree()?;
            self.hold(&tree, |_| false)?;
            let stands = if self.grip.is_some() { process::is_gripped } else { process::is_stopped };
            let runs = tree.pids().into_iter().find(|pid| process::lives(*pid) && !stands(*pid));
            match runs {
                None => return Ok(()),
                Some(pid) if Instant::now() > until => return Err(Error::Woken { pid }),
                Some(_) => thread::sleep(LOOK),
            }
        }
    }

    /// From here on nobody lets them go on but this process, as long as it lives; why not, where that cannot be. An error if they
    /// do not stand still.
    pub fn seize(&mut self) -> Result<Option<io::Error>, Error> {
        self.check()?;
        match Grip::take(self.processes.iter().map(|still| still.pid).collect()) {
            Ok(grip) => self.grip = Some(grip),
            Err(error) => return Ok(Some(error)),
        }
        // Somebody may have let them go on just before.
        self.check()?;
        Ok(None)
    }

    /// They go on here, but for those that did not run before either.
    pub fn go_on(&mut self) {
        self.grip = None;
        for still in self.processes.iter().filter(|still| !still.was_stopped) {
            let _gone = pidfd_send_signal(&still.handle, Signal::CONT);
        }
    }

    /// They end, and are waited for.
    pub fn end(&mut self) -> Result<(), Error> {
        // Somebody may have let them go on, and they may have forked. Those that are known end in any case.
        if let Ok(tree) = self.tree() {
            let _unheld = self.hold(&tree, |_| false);
        }
        let cannot = |pid: u32, error: Errno| Error::Signal { pid, source: error.into() };
        for still in &self.processes {
            match pidfd_send_signal(&still.handle, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(cannot(still.pid, error)),
            }
        }
        // A thread that has ended while it was held is there until it is let go.
        self.grip = None;
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

impl Drop for Standing {
    /// What was neither ended nor let go on stays stopped, also where somebody has tried that meanwhile.
    fn drop(&mut self) {
        if self.grip.is_some() {
            for still in &self.processes {
                let _gone = pidfd_send_signal(&still.handle, Signal::STOP);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn of(child: &Child) -> Standing {
        let mut standing = Standing { root: child.id(), processes: Vec::new(), grip: None };
        standing.hold(&Tree::find(Scope::Tree, child.id()).unwrap(), |_| false).unwrap();
        standing
    }

    #[test]
    fn what_runs_does_not_stand_still() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut standing = of(&child);
        assert!(matches!(standing.check(), Err(Error::Woken { pid }) if pid == child.id()));
        pidfd_send_signal(&standing.processes[0].handle, Signal::STOP).unwrap();
        standing.check().unwrap();
        standing.end().unwrap();
        let _status = child.wait().unwrap();
    }

    fn state(child: &Child) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    }

    fn becomes(child: &Child, states: &[char]) {
        while !states.contains(&state(child)) {
            thread::yield_now();
        }
    }

    #[test]
    fn nobody_else_lets_it_go_on() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let signal = |standing: &Standing, signal| {
            pidfd_send_signal(&standing.processes[0].handle, signal).unwrap();
        };
        let mut standing = of(&child);
        assert!(matches!(standing.seize(), Err(Error::Woken { .. })), "it runs");
        signal(&standing, Signal::STOP);
        assert!(standing.seize().unwrap().is_none());
        signal(&standing, Signal::CONT);
        assert_eq!(state(&child), 't');
        standing.check().unwrap();
        // Nobody decided: it stays stopped, and whoever comes next decides.
        drop(standing);
        becomes(&child, &['T']);
        let mut standing = of(&child);
        assert!(standing.seize().unwrap().is_none());
        // Nobody else can hold what is held.
        let error = of(&child).seize().unwrap().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        standing.go_on();
        becomes(&child, &['S']);
        signal(&standing, Signal::STOP);
        assert!(standing.seize().unwrap().is_none());
        standing.end().unwrap();
        assert!(!child.wait().unwrap().success());
    }

    /// Its number may be anybody's.
    #[test]
    fn one_that_has_ended_is_not_looked_for() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut standing = of(&child);
        child.kill().unwrap();
        let _status = child.wait().unwrap();
        // As if somebody had got it.
        standing.root = std::process::id();
        standing.processes[0].pid = standing.root;
        assert!(matches!(standing.check(), Err(Error::NoProcess { .. })));
        standing.end().unwrap();
        assert_eq!(standing.processes.len(), 1, "nobody else was held");
    }
}
