//! Being the parent of a program: its signals come through this process, and its end is this process's.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::libc;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
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

    /// Does something with the signals as they were: a program that is started inherits what is held back.
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

    /// Runs a program with the signals as they were and no input, and waits for its end. Those that come meanwhile, also while it is being
    /// started, stay held back here. Of the command counts what it runs and with which environment.
    pub fn run(&self, command: &Command) -> io::Result<ExitStatus> {
        let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::from);
        let program = text(command.get_program())?;
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words = words.map(text).collect::<io::Result<Vec<_>>>()?;
        let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => variables.insert(name.to_owned(), value.to_owned()),
                None => variables.remove(name),
            };
        }
        let variables = variables.iter().map(|(name, value)| {
            let mut whole = name.clone();
            whole.push("=");
            whole.push(value);
            text(&whole)
        });
        let variables = variables.collect::<io::Result<Vec<_>>>()?;
        let nothing = File::open("/dev/null")?;
        let mut files = PosixSpawnFileActions::init()?;
        files.add_dup2(nothing.as_raw_fd(), 0)?;
        let mut how = PosixSpawnAttr::init()?;
        how.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
        how.set_sigmask(&self.before)?;
        // Programs in Rust ignore it, and others do not expect that.
        how.set_sigdefault(&SigSet::from(Signal::SIGPIPE))?;
        let child = posix_spawn(program.as_c_str(), &files, &how, &words, &variables)?;
        loop {
            match waitpid(rustix::process::Pid::from_raw(child.as_raw()), WaitOptions::empty()) {
                Ok(Some((_, status))) => return Ok(ExitStatus::from_raw(status.as_raw())),
                Ok(None) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_run_has_the_signals_as_they_were_and_its_variables() {
        let seen = SigSet::thread_get_mask().unwrap();
        let masked = Masked::new().unwrap();
        // The shell says which signals it holds back, and what it was given.
        let script = "[ \"$(sed -n 's/^SigBlk:[[:space:]]*0*//p' /proc/self/status)\" = \"$HELD\" ] || exit 1; kill -$ENDS $$";
        let held: u64 = seen.iter().map(|signal| 1 << (signal as i32 - 1)).sum();
        let held = if held == 0 { String::new() } else { format!("{held:x}") };
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).env("HELD", held).env("ENDS", "PIPE");
        let status = masked.run(&shell).unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGPIPE as i32), "{status}");
        assert!(masked.run(Command::new("/bin/sh").args(["-c", "exit 7"])).unwrap().code() == Some(7));
        assert!(masked.run(&Command::new("/no/such/program")).is_err());
    }
}
