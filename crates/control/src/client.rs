//! Who takes a checkpoint: finds the control socket of a process, asks, and says how it went.

use crate::participant::Outcome;
use crate::place::pid_of;
use crate::protocol::{self, Answer, Empty, GoOn, Prepare, Question, Refused, Told, VERSION};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much longer than a process may take its answer is waited for.
const SLACK: Duration = Duration::from_secs(2);
/// The flag of `/proc/net/unix` for a socket that listens.
const ACCEPTS: u32 = 0x1_0000;

/// The control socket of a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Its process, or the one whose fork it is.
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

/// The control socket that a process listens on; `None` if it has none. Processes that were forked share their parent's.
///
/// Fails if there is no such process, or it is another user's.
pub fn find(pid: u32) -> io::Result<Option<Place>> {
    let mut own = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // What was closed meanwhile is no socket of it.
        let Ok(link) = fs::read_link(entry?.path()) else { continue };
        own.extend(link.to_str().and_then(inode_of));
    }
    let listening = listening(&fs::read_to_string(format!("/proc/{pid}/net/unix"))?);
    Ok(own
        .iter()
        .find_map(|inode| listening.get(inode))
        .map(|(of, path)| Place { pid: *of, path: path.clone() }))
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
        let late = || ControlError::Late { pid: self.pid, path: self.path.clone(), limit };
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                ControlError::Protocol { pid: self.pid }
            }
            _ => self.unreachable(error),
        };
        let stream = self.connect().map_err(|error| self.unreachable(error))?;
        stream.set_read_timeout(Some(limit + SLACK)).map_err(failed)?;
        stream.set_write_timeout(Some(SLACK)).map_err(failed)?;
        protocol::say(&stream, &question).map_err(failed)?;
        let answer = protocol::hear(&stream).map_err(failed)?;
        // Its end is the process's end of the connection: an image must not have one.
        match io::Read::read(&mut &stream, &mut [0]) {
            Ok(0) => Ok(answer),
            Ok(_) => Err(ControlError::Protocol { pid: self.pid }),
            Err(error) => Err(failed(error)),
        }
    }

    /// Where the process sees it, and else where we do.
    fn connect(&self) -> io::Result<UnixStream> {
        let inside = self.path.strip_prefix("/").unwrap_or(&self.path);
        let through = Path::new("/proc").join(self.pid.to_string()).join("root").join(inside);
        UnixStream::connect(through).or_else(|_| UnixStream::connect(&self.path))
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
    /// Says how it went, and waits up to `limit` until the process goes on. What it could not take up again.
    pub fn go_on(&self, outcome: &Outcome, limit: Duration) -> Result<Vec<String>, ControlError> {
        let told = match outcome.clone() {
            Outcome::Continued => Told::Continued,
            Outcome::Restored { images } => Told::Restored { images },
            Outcome::Abandoned(reason) => Told::Abandoned { reason },
        };
        let words = GoOn { token: self.token.clone(), outcome: Some(told) };
        let answer = self.place.ask(Question { go_on: Some(words), ..Question::default() }, limit)?;
        match answer.going {
            Some(going) => Ok(going.faults),
            None => Err(self.place.refused(answer)),
        }
    }
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
    }
}
