//! Who takes a checkpoint: finds the control socket of a process, asks, and says how it went.

use crate::participant::Outcome;
use crate::place::pid_of;
use crate::protocol::{self, Answer, Empty, GoOn, Prepare, Question, Refused, Told, VERSION};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How much longer than a process may take its answer is waited for.
const SLACK: Duration = Duration::from_secs(2);
/// How long to wait before a socket that has too many waiting connections is tried again.
const CROWDED: Duration = Duration::from_millis(5);
/// The flag of `/proc/net/unix` for a socket that listens.
const ACCEPTS: u32 = 0x1_0000;

/// The control socket of a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Its process, or the one whose fork it is, as it is numbered here.
    pub pid: u32,
    /// Where the socket lies, as the process sees it.
    pub path: PathBuf,
}

/// What a process is asked to prepare for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// How long it may take to be ready.
    pub ready: Duration,
    /// How long it may be silent after that: if nobody says anything until then, it goes on by itself.
    pub silence: Duration,
    /// The directory of the images.
    pub images: Option<PathBuf>,
    /// Whether the process is to go on afterwards, beside its image.
    pub goes_on: bool,
}

/// A process that is ready to be frozen. It can be kept with the images, for whoever restores them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Its socket.
    pub place: Place,
    token: String,
}

/// How a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// How many of its parts are asked before a checkpoint.
    pub participants: usize,
    /// Whether it is ready to be frozen.
    pub prepared: bool,
}

/// A process was not asked or told what it was to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// It refuses.
    #[error("process {pid} refuses the checkpoint: {reason}{}", again(*temporary))]
    Refused {
        /// The process.
        pid: u32,
        /// Whether it is worth trying again later.
        temporary: bool,
        /// Its words.
        reason: String,
    },
    /// It does not answer in time: it is stopped, or busy.
    #[error(
        "process {pid} did not answer within {} s at {}; it is stopped or busy",
        limit.as_secs_f64(),
        path.display()
    )]
    Late {
        /// The process.
        pid: u32,
        /// Its socket.
        path: PathBuf,
        /// What it had.
        limit: Duration,
    },
    /// It cannot be spoken to.
    #[error("cannot speak to process {pid} at {}: {source}", path.display())]
    Unreachable {
        /// The process.
        pid: u32,
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it answers makes no sense.
    #[error("process {pid} answers something else than what was asked; is its library of another version?")]
    Protocol {
        /// The process.
        pid: u32,
    },
}

fn again(temporary: bool) -> &'static str {
    if temporary { "; try again later" } else { "" }
}

/// The control socket that a process listens on; `None` if it has none. A process that was forked has its parent's, as long as that
/// lives, unless it opened its own.
///
/// Fails if there is no such process, or it is another user's.
pub fn find(pid: u32) -> io::Result<Option<Place>> {
    let own = sockets(pid)?;
    let listening = listening(&fs::read_to_string(format!("/proc/{pid}/net/unix"))?);
    let found: Vec<_> = own.iter().filter_map(|inode| Some((inode, listening.get(inode)?))).collect();
    // What it calls itself, in its own pid namespace.
    let itself = own_number(&fs::read_to_string(format!("/proc/{pid}/status"))?).unwrap_or(pid);
    if let Some((_, (_, path))) = found.iter().find(|(_, (of, _))| *of == itself) {
        return Ok(Some(Place { pid, path: path.clone() }));
    }
    // Its parent's, if somebody serves that.
    let lives = |of: u32, inode: &u64| sockets(of).is_ok_and(|sockets| sockets.contains(inode));
    let inherited = found.iter().find(|(inode, (of, _))| lives(*of, inode));
    Ok(inherited.map(|(_, (of, path))| Place { pid: *of, path: path.clone() }))
}

/// The sockets that a process has, by their inodes.
fn sockets(pid: u32) -> io::Result<Vec<u64>> {
    let mut own = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // What was closed meanwhile is no socket of it.
        let Ok(link) = fs::read_link(entry?.path()) else { continue };
        own.extend(link.to_str().and_then(inode_of));
    }
    Ok(own)
}

/// The number of a process in the innermost namespace that it is in.
fn own_number(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

/// `socket:[4711]`
fn inode_of(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Control sockets by their inodes: fields are number, references, protocol, flags, type, state, inode, path.
fn listening(table: &str) -> HashMap<u64, (u32, PathBuf)> {
    let of_line = |line: &str| {
        let mut fields = line.split_whitespace();
        let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        let inode = fields.nth(2)?.parse().ok()?;
        let path = Path::new(line.get(line.find('/')?..)?);
        let pid = pid_of(path.file_name()?.to_str()?)?;
        (flags & ACCEPTS != 0).then(|| (inode, (pid, path.to_path_buf())))
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

impl Place {
    /// Asks the process to prepare. When this returns, it may be frozen until [`Wish::silence`] has passed, and holds no
    /// connection to this side.
    pub fn prepare(&self, wish: &Wish) -> Result<Prepared, ControlError> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut random = [0; 16];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| self.unreachable(error.into()))?;
        let token = u128::from_le_bytes(random);
        let prepared = Prepared { place: self.clone(), token: format!("{token:032x}") };
        let prepare = Prepare {
            token: prepared.token.clone(),
            ready_ms: ms(wish.ready),
            silence_ms: ms(wish.silence),
            images: wish.images.clone(),
            goes_on: wish.goes_on,
        };
        let question = Question { prepare: Some(prepare), ..Question::default() };
        let answer = self.ask(question, wish.ready)?;
        if answer.ready.is_some() { Ok(prepared) } else { Err(self.refused(answer)) }
    }

    /// Asks how it stands.
    pub fn status(&self, limit: Duration) -> Result<Status, ControlError> {
        let answer = self.ask(Question { status: Some(Empty {}), ..Question::default() }, limit)?;
        match answer.status {
            Some(now) => Ok(Status { participants: now.participants, prepared: now.prepared }),
            None => Err(self.refused(answer)),
        }
    }

    /// One question and its answer; the connection has ended on both sides when this returns.
    fn ask(&self, mut question: Question, limit: Duration) -> Result<Answer, ControlError> {
        question.version = VERSION;
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ControlError::Late { pid: self.pid, path: self.path.clone(), limit }
            }
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                ControlError::Protocol { pid: self.pid }
            }
            _ => self.unreachable(error),
        };
        let deadline = Instant::now() + limit + SLACK;
        let stream = self.connect(deadline).map_err(failed)?;
        if question.prepare.is_some() {
            self.check(&stream).map_err(failed)?;
        }
        protocol::say(&stream, &question).map_err(failed)?;
        let answer = protocol::hear(&stream, deadline).map_err(failed)?;
        // Its end is the process's end of the connection: an image must not have one.
        match protocol::read(&stream, &mut [0], deadline).map_err(failed)? {
            0 => Ok(answer),
            _ => Err(ControlError::Protocol { pid: self.pid }),
        }
    }

    /// Where the process sees it, and else where we do.
    fn connect(&self, deadline: Instant) -> io::Result<UnixStream> {
        let inside = self.path.strip_prefix("/").unwrap_or(&self.path);
        let through = Path::new("/proc").join(self.pid.to_string()).join("root").join(inside);
        match connect(&through, deadline) {
            Err(error) if error.kind() != io::ErrorKind::TimedOut => connect(&self.path, deadline),
            connected => connected,
        }
    }

    /// Whether the one at the other end is the process that is meant, and not another of its number.
    fn check(&self, stream: &UnixStream) -> io::Result<()> {
        let who = rustix::net::sockopt::socket_peercred(stream)?.pid.as_raw_pid().unsigned_abs();
        if who == self.pid {
            return Ok(());
        }
        Err(io::Error::other(format!("process {who} listens there")))
    }

    fn unreachable(&self, source: io::Error) -> ControlError {
        ControlError::Unreachable { pid: self.pid, path: self.path.clone(), source }
    }

    fn refused(&self, answer: Answer) -> ControlError {
        match answer.refused {
            Some(Refused { temporary, reason }) => ControlError::Refused { pid: self.pid, temporary, reason },
            None => ControlError::Protocol { pid: self.pid },
        }
    }
}

impl Prepared {
    /// Says how it went to a process that stands still: it hears of it as soon as it runs.
    pub fn leave_word(&self, outcome: &Outcome) -> Result<(), ControlError> {
        let deadline = Instant::now() + SLACK;
        let failed = |error| self.place.unreachable(error);
        let stream = self.place.connect(deadline).map_err(failed)?;
        protocol::say(&stream, &self.words(outcome)).map_err(failed)
    }

    fn words(&self, outcome: &Outcome) -> Question {
        let told = match outcome.clone() {
            Outcome::Continued => Told::Continued,
            Outcome::Restored { images } => Told::Restored { images },
            Outcome::Abandoned(reason) => Told::Abandoned { reason },
        };
        let words = GoOn { token: self.token.clone(), outcome: Some(told) };
        Question { version: VERSION, go_on: Some(words), ..Question::default() }
    }

    /// Says how it went, and waits up to `limit` until the process goes on. What it could not take up again.
    pub fn go_on(&self, outcome: &Outcome, limit: Duration) -> Result<Vec<String>, ControlError> {
        let answer = self.place.ask(self.words(outcome), limit)?;
        match answer.going {
            Some(going) => Ok(going.faults),
            None => Err(self.place.refused(answer)),
        }
    }
}

/// Connects, and waits no longer than `deadline` for a place among those who wait to be accepted.
fn connect(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(CROWDED),
            Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(SLACK))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 4711 /run/user/7/steadfast/71.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 4712 /run/user/7/steadfast/71.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 4713 /run/steadfast/agent.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 4714\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 4715 /a b/72-1.sock\n";
        let found = listening(table);
        assert_eq!(found.len(), 2);
        assert_eq!(found[&4711], (71, "/run/user/7/steadfast/71.sock".into()));
        assert_eq!(found[&4715], (72, "/a b/72-1.sock".into()));
        assert_eq!(inode_of("socket:[4711]"), Some(4711));
        assert_eq!(inode_of("pipe:[4711]"), None);
        assert_eq!(own_number("Name:\tx\nNSpid:\t4711\t7\n"), Some(7));
    }
}
