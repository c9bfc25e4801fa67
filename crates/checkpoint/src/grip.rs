//! Stopped processes, held so that nobody else lets them go on.
//!
//! A stopped process that is traced stays where it is until who traces it lets go, whatever `kill -CONT` says meanwhile. The kernel
//! lets go by itself when the thread ends that traces, and so does a process that is killed: no process is held by nobody.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use nix::errno::Errno;
use nix::sys::ptrace::{Options, seize};
use nix::unistd::Pid;

use crate::process;

/// Holds processes until it is dropped.
#[derive(Debug)]
pub(crate) struct Grip {
    /// Nothing is ever sent: its end is what is waited for.
    held: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Grip {
    /// Takes all threads of these processes, of which those that end meanwhile need not be held.
    pub(crate) fn take(pids: Vec<u32>) -> io::Result<Self> {
        let (held, until) = channel::<()>();
        let (tell, told) = channel();
        let hold = move || hold(&pids, &tell, &until);
        let thread = Builder::new().name("grip".to_owned()).spawn(hold)?;
        let grip = Self { held: Some(held), thread: Some(thread) };
        told.recv().map_err(io::Error::other)??;
        Ok(grip)
    }
}

/// What is traced is traced by a thread, not by a process.
fn hold(pids: &[u32], tell: &Sender<io::Result<()>>, until: &Receiver<()>) {
    let threads = pids.iter().flat_map(|pid| process::threads(*pid));
    let taken =
        threads.map(|thread| Pid::from_raw(thread.cast_signed())).try_for_each(|thread| {
            match seize(thread, Options::empty()) {
                Ok(()) | Err(Errno::ESRCH) => Ok(()),
                Err(error) => Err(error.into()),
            }
        });
    let is_held = taken.is_ok();
    if tell.send(taken).is_ok() && is_held {
        let _dropped = until.recv();
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        drop(self.held.take());
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}
