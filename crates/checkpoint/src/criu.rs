//! CRIU: where it is, one of its workers, and the conversation with that.
//!
//! One worker (`criu swrk`) serves one request. It is a child of this process, which is how restored processes become
//! children of it, too. Whoever drops a [`Worker`] ends it; in the middle of a dump CRIU then lets the processes go on.

use std::env;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use prost::Message as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::parent::Masked;
use crate::rpc::{Kind, Notify, Request, Response};

/// The environment's word for the program.
pub const CRIU: &str = "STEADFAST_CRIU";

/// Where the worker has its socket.
const SOCKET: i32 = 3;
/// More than any of CRIU's messages has.
const MAX_MESSAGE: usize = 64 * 1024;
/// How often progress is looked at.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How long CRIU may take to say which version it is.
const GREETING: Duration = Duration::from_secs(20);
/// How long past its limit CRIU is waited for, so that it can let the processes go on.
const GRACE: Duration = Duration::from_secs(20);

/// A version of CRIU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third.
    pub sublevel: u32,
}

impl Version {
    /// The oldest that does what is asked of it here.
    pub const OLDEST: Self = Self { major: 3, minor: 16, sublevel: 0 };
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.sublevel > 0 { write!(f, ".{}", self.sublevel) } else { Ok(()) }
    }
}

/// The program CRIU of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Criu {
    program: PathBuf,
}

impl Criu {
    /// As `STEADFAST_CRIU` says, else as the configuration says, else on the path and where administrators look.
    pub fn find(configured: Option<&Path>) -> Result<Self, Error> {
        let named = env::var_os(CRIU).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(program) = named.or_else(|| configured.map(Path::to_owned)) {
            if program.is_file() {
                return Ok(Self { program });
            }
            return Err(Error::NoCriu { place: format!("at {}", program.display()) });
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
        env::split_paths(&path)
            .chain(usual)
            .map(|directory| directory.join("criu"))
            .find(|candidate| candidate.is_file())
            .map(|program| Self { program })
            .ok_or_else(|| Error::NoCriu { place: "on the path or in /usr/sbin".to_owned() })
    }

    /// This program, whatever anybody else says.
    #[must_use]
    pub const fn at(program: PathBuf) -> Self {
        Self { program }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Asks it.
    pub fn version(&self) -> Result<Version, Error> {
        Ok(Worker::start(self, Around::default())?.version())
    }

    /// Whether it works on this kernel; why not, in its own words.
    pub fn check(&self) -> Result<(), Error> {
        let mut worker = Worker::start(self, Around::default())?;
        let request = Request { kind: Kind::Check.into(), ..Request::default() };
        let answer = worker.exchange(&request, Instant::now() + GREETING)?;
        if answer.success {
            return Ok(());
        }
        let reason =
            answer.message.unwrap_or_else(|| "it cannot work on this kernel, or not without root".to_owned());
        Err(self.unusable(format!("{}; take a newer one, and run it as root", reason.trim())))
    }

    fn unusable(&self, reason: impl Into<String>) -> Error {
        Error::Unusable { program: self.program.clone(), reason: reason.into() }
    }
}

/// What a worker gets from the process around it.
#[derive(Default)]
pub(crate) struct Around<'a> {
    /// Standard input is this process's: a terminal that a restored program is to have.
    pub(crate) terminal: bool,
    /// Descriptors, and which number each has in the worker.
    pub(crate) descriptors: Vec<(OwnedFd, i32)>,
    /// Signals that are held back here and must not be there.
    pub(crate) masked: Option<&'a Masked>,
    /// Where it writes what it says before it has a log.
    pub(crate) words: Option<OwnedFd>,
    /// In this process's group, as a restored program has to be.
    pub(crate) same_group: bool,
}

/// What came of a request.
pub(crate) enum Served {
    /// CRIU's answer.
    Answer(Response),
    /// The limit passed, or somebody interrupted, and the processes were not touched, or go on.
    Stopped,
    /// The same, and CRIU could not be waited for.
    Killed,
}

/// What to do when CRIU says how far it is.
pub(crate) trait Watch {
    /// CRIU has come to a point; false makes it give up.
    fn point(&mut self, notify: &Notify) -> bool;
    /// Some time has passed; false makes it give up at the next point.
    fn tick(&mut self) -> bool;
}

/// One process of CRIU.
pub(crate) struct Worker {
    program: Criu,
    socket: OwnedFd,
    child: Child,
    version: Version,
}

impl Worker {
    /// Starts one and asks for its version.
    pub(crate) fn start(criu: &Criu, around: Around<'_>) -> Result<Self, Error> {
        let cannot = |source: io::Error| Error::Start { program: criu.program.display().to_string(), source };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|error| cannot(error.into()))?;
        let mut command = Command::new(&criu.program);
        command.arg("swrk").arg(SOCKET.to_string());
        command.stdin(if around.terminal { Stdio::inherit() } else { Stdio::null() });
        let words = around.words.map(|words| Ok::<_, io::Error>((words.try_clone()?, words))).transpose();
        if let Some((out, err)) = words.map_err(cannot)? {
            command.stdout(out).stderr(err);
        } else {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        if !around.same_group {
            // What a terminal sends to this command must not end CRIU while processes are frozen.
            command.process_group(0);
        }
        let mut mappings = vec![FdMapping { parent_fd: theirs, child_fd: SOCKET }];
        let more = around.descriptors.into_iter();
        mappings.extend(more.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }));
        command.fd_mappings(mappings).map_err(|error| cannot(io::Error::other(error.to_string())))?;
        let child = match around.masked {
            Some(_) => Masked::for_criu(|| command.spawn()),
            None => command.spawn(),
        };
        let child = child.map_err(cannot)?;
        // It holds the worker's end, without which the worker's death is noticed.
        drop(command);
        let version = Version { major: 0, minor: 0, sublevel: 0 };
        let mut worker = Self { program: criu.clone(), socket: ours, child, version };
        worker.version = worker.greet()?;
        if worker.version < Version::OLDEST {
            return Err(Error::Old { program: criu.program.clone(), found: worker.version });
        }
        Ok(worker)
    }

    fn greet(&mut self) -> Result<Version, Error> {
        let request = Request { kind: Kind::Version.into(), keep_open: Some(true), ..Request::default() };
        let answer = self.exchange(&request, Instant::now() + GREETING)?;
        let version = answer.version.ok_or_else(|| self.program.unusable("it does not say its version"))?;
        let number = |number: i32| u32::try_from(number).unwrap_or_default();
        Ok(Version {
            major: number(version.major),
            minor: number(version.minor),
            sublevel: number(version.sublevel.unwrap_or_default()),
        })
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// A request that CRIU answers at once.
    fn exchange(&mut self, request: &Request, deadline: Instant) -> Result<Response, Error> {
        self.say(request)?;
        loop {
            if let Some(response) = self.hear()? {
                return Ok(response);
            }
            if Instant::now() >= deadline {
                return Err(self.program.unusable("it does not answer"));
            }
        }
    }

    /// A request that takes its time. Points are told to `watch`. After `deadline` CRIU is made to give up.
    pub(crate) fn serve(
        &mut self,
        request: &Request,
        deadline: Option<Instant>,
        watch: &mut dyn Watch,
    ) -> Result<Served, Error> {
        self.say(request)?;
        let mut touched = false;
        let mut given_up: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let late = deadline.is_some_and(|deadline| now >= deadline);
            if given_up.is_none() && (late || !watch.tick()) {
                if !touched {
                    // CRIU has not begun: nothing is left half done.
                    self.kill();
                    return Ok(Served::Stopped);
                }
                given_up = Some(now);
            }
            if given_up.is_some_and(|since| now.duration_since(since) > GRACE) {
                self.kill();
                return Ok(Served::Killed);
            }
            let Some(response) = self.hear()? else { continue };
            if response.kind() != Kind::Notify {
                return Ok(match given_up {
                    Some(_) if !response.success => Served::Stopped,
                    _ => Served::Answer(response),
                });
            }
            touched = true;
            let go_on =
                given_up.is_none() && response.notify.as_ref().is_none_or(|notify| watch.point(notify));
            let answer =
                Request { kind: Kind::Notify.into(), notify_success: Some(go_on), ..Request::default() };
            self.say(&answer)?;
        }
    }

    fn say(&mut self, request: &Request) -> Result<(), Error> {
        // A worker that is gone must not end this process by a signal.
        match send(&self.socket, &request.encode_to_vec(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::PIPE) => Err(self.ended()),
            Err(error) => Err(self.program.unusable(format!("it does not listen ({error})"))),
        }
    }

    /// It has ended, or closed its socket, and said nothing.
    fn ended(&mut self) -> Error {
        let how = match self.reap() {
            Ok(Some(status)) => status.to_string(),
            Ok(None) => format!("it went on for {} s without one, and was killed", GRACE.as_secs()),
            Err(error) => error.to_string(),
        };
        self.program.unusable(format!("it ended without an answer ({how})"))
    }

    /// The next message, if one comes within a tick.
    fn hear(&mut self) -> Result<Option<Response>, Error> {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut polled, Some(&TICK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(self.program.unusable(error.to_string())),
        }
        let mut buffer = vec![0; MAX_MESSAGE];
        let (length, _) =
            match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => received,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(None),
                // It had not read everything.
                Err(rustix::io::Errno::CONNRESET) => (0, 0),
                Err(error) => return Err(self.program.unusable(error.to_string())),
            };
        if length == 0 {
            return Err(self.ended());
        }
        let response = Response::decode(&buffer[..length]);
        response
            .map(Some)
            .map_err(|error| self.program.unusable(format!("its answer is no answer of CRIU ({error})")))
    }

    fn kill(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// Waits until it has ended, which it does by itself after a request.
    pub(crate) fn end(&mut self) {
        // What ends it if it waits for more.
        let _told = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let _ended = self.reap();
    }

    /// How it ended, if it did by itself in time.
    fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(Some(status));
        }
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty());
        let until = Instant::now() + GRACE;
        let has_ended = pidfd.is_ok_and(|pidfd| {
            loop {
                let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
                match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], left.as_ref()) {
                    Ok(count) => return count > 0,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return false,
                }
            }
        });
        if has_ended {
            return self.child.wait().map(Some);
        }
        self.kill();
        Ok(None)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// A descriptor's number, as CRIU reads it from this process.
pub(crate) fn number(descriptor: &OwnedFd) -> i32 {
    descriptor.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// What a terminal sends to a group does not end it while processes are frozen; but who is restored has to be in this one.
    #[test]
    fn it_is_in_a_group_of_its_own_unless_it_restores() {
        let place = env::temp_dir().join(format!("steadfast-criu-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let (script, group) = (place.join("criu"), place.join("group"));
        let text = format!(
            "#!/bin/sh\nread -r stat </proc/$$/stat\nset -- $stat\necho $1 $5 >{}\n",
            group.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        for same_group in [false, true] {
            // It ends without an answer. Somebody forked just now may still have the script open for writing.
            let error = loop {
                let around = Around { same_group, ..Around::default() };
                match Worker::start(&Criu::at(script.clone()), around).map(drop).unwrap_err() {
                    Error::Start { source, .. } if source.kind() == io::ErrorKind::ExecutableFileBusy => {}
                    error => break error,
                }
            };
            assert!(matches!(error, Error::Unusable { .. }), "{error}");
            let told = fs::read_to_string(&group).unwrap();
            let numbers: Vec<i32> = told.split_whitespace().map(|number| number.parse().unwrap()).collect();
            let own = rustix::process::getpgrp().as_raw_pid();
            assert_eq!(numbers[1] == own, same_group, "{told}");
            assert_eq!(numbers[1] == numbers[0], !same_group, "{told}");
        }
        fs::remove_dir_all(&place).unwrap();
    }
}
