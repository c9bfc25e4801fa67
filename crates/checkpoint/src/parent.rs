//! Being the parent of a program: its signals come through this process, and its end is this process's.

use std::io;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, waitpid};

/// Signals of this thread that are held back, to be passed on. They are let through again when this is dropped.
#[derive(Debug)]
pub struct Masked {
    before: SigSet,
    signals: SignalFd,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// What woke the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The program has ended.
    Ended(Ended),
    /// The time has come.
    Time,
}

impl Masked {
    /// Holds back all signals that can be. To be called before there is another thread.
    pub fn new() -> io::Result<Self> {
        let mut all = SigSet::all();
        // What a fault of this process raises is not for its child.
        for fault in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE] {
            all.remove(fault);
        }
        let before = all.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        match SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK) {
            Ok(signals) => Ok(Self { before, signals }),
            Err(error) => {
                let _as_before = before.thread_set_mask();
                Err(error.into())
            }
        }
    }

    /// Runs with the signals as they were: a program that is started inherits what is held back.
    pub fn lifted<T>(&self, start: impl FnOnce() -> T) -> T {
        let held = self.before.thread_swap_mask(SigmaskHow::SIG_SETMASK);
        let started = start();
        if let Ok(held) = held {
            let _again = held.thread_set_mask();
        }
        started
    }

    /// The same for CRIU, which needs a few of them, and must not be ended by the others: nor is this process meanwhile.
    pub(crate) fn for_criu<T>(start: impl FnOnce() -> T) -> T {
        let mut mask = SigSet::all();
        let needed = [
            Signal::SIGCHLD,
            Signal::SIGALRM,
            Signal::SIGPIPE,
            Signal::SIGTRAP,
            Signal::SIGABRT,
            Signal::SIGSYS,
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGFPE,
        ];
        for signal in needed {
            mask.remove(signal);
        }
        let held = mask.thread_swap_mask(SigmaskHow::SIG_SETMASK);
        let started = start();
        if let Ok(held) = held {
            let _again = held.thread_set_mask();
        }
        started
    }

    /// Whether somebody wants this process to stop: a signal that ends programs has come.
    pub fn interrupted(&self) -> bool {
        let ends = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT].map(libc::c_int::cast_unsigned);
        while let Ok(Some(info)) = self.signals.read_signal() {
            if ends.contains(&info.ssi_signo) {
                return true;
            }
        }
        false
    }

    /// Waits until that time. True at once if somebody wants this process to stop.
    pub fn pause(&self, until: Instant) -> io::Result<bool> {
        loop {
            if self.interrupted() {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.sleep(Some(left))?;
        }
    }

    /// Until a signal comes, or so long.
    fn sleep(&self, limit: Option<Duration>) -> io::Result<()> {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Passes signals on to a child of this process until it ends or the time has come.
    pub fn wait(&self, pid: u32, until: Option<Instant>) -> io::Result<Woken> {
        let child = Pid::from_raw(pid.cast_signed());
        loop {
            if let Some(ended) = reap(child)? {
                return Ok(Woken::Ended(ended));
            }
            while let Some(info) = self.signals.read_signal()? {
                pass_on(child, &info);
            }
            if let Some(ended) = reap(child)? {
                return Ok(Woken::Ended(ended));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Woken::Time);
            }
            self.sleep(left)?;
        }
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        let _as_before = self.before.thread_set_mask();
    }
}

/// Whether the child has ended. A terminal's stop of it stops this process, too, so that the shell sees it.
fn reap(child: Pid) -> io::Result<Option<Ended>> {
    // As numbers: a program may also end by a real-time signal, which has no name.
    let options = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
    let child = rustix::process::Pid::from_raw(child.as_raw());
    loop {
        let status = match waitpid(child, options) {
            Ok(Some((_, status))) => status,
            Ok(None) => return Ok(None),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if let Some(code) = status.exit_status() {
            return Ok(Some(Ended::Code(code)));
        }
        if let Some(signal) = status.terminating_signal() {
            return Ok(Some(Ended::Signal(signal)));
        }
        if matches!(status.stopping_signal(), Some(libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)) {
            nix::sys::signal::raise(Signal::SIGSTOP)?;
        }
    }
}

fn pass_on(child: Pid, info: &siginfo) {
    let number = info.ssi_signo.cast_signed();
    if number == libc::SIGCHLD {
        return;
    }
    // What the terminal sends goes to the whole group, so the child has it already.
    let from_kernel = info.ssi_code == libc::SI_KERNEL;
    if from_kernel && nix::unistd::getpgid(Some(child)) == nix::unistd::getpgid(None) {
        return;
    }
    if let Ok(signal) = Signal::try_from(number) {
        let _gone = nix::sys::signal::kill(child, signal);
    } else if let Some(signal) = rustix::process::Signal::from_named_raw(number)
        && let Some(child) = rustix::process::Pid::from_raw(child.as_raw())
    {
        let _gone = rustix::process::kill_process(child, signal);
    }
}
