//! One connection: made, read, written and waited for, never beyond a moment.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};

use crate::forks::Noted;

/// Bytes that are read at once.
const CHUNK: usize = 8 * 1024;
/// How long to wait before a socket that has too many waiting connections is tried again.
const CROWDED: Duration = Duration::from_millis(5);

/// A connection to the agent that never blocks. The descriptor is shared so that another thread can wait for it without a lock.
#[derive(Debug)]
pub(crate) struct Socket(Arc<Noted>);

/// What became of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// As much as is read at once: there may be more.
    Full,
    /// All that was there.
    Rest,
    /// Nothing now.
    Nothing,
    /// The other end is gone, and everything that it said was read.
    Ended,
}

impl Socket {
    /// Connects; where too many wait to be accepted, tries until `deadline`.
    pub(crate) fn connect(path: &Path, deadline: Instant) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = || socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let socket = Noted::open(open)?;
        loop {
            match connect(&socket, &address) {
                Ok(()) => return Ok(Self(Arc::new(socket))),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if Instant::now() < deadline => pause(CROWDED, deadline),
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn descriptor(&self) -> Arc<Noted> {
        Arc::clone(&self.0)
    }

    /// Reads what is there, `CHUNK` bytes at most.
    pub(crate) fn read(&self, input: &mut BytesMut) -> Read {
        let mut chunk = [0; CHUNK];
        loop {
            return match recv(&self.0, &mut chunk[..], RecvFlags::empty()) {
                Ok((0, _)) => Read::Ended,
                Ok((count, _)) => {
                    input.extend_from_slice(&chunk[..count]);
                    if count == CHUNK { Read::Full } else { Read::Rest }
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Read::Nothing,
                Err(_) => Read::Ended,
            };
        }
    }

    /// Writes what the socket takes of `out` and removes that. False if the other end is gone.
    pub(crate) fn write(&self, out: &mut Vec<u8>) -> bool {
        while !out.is_empty() {
            match send(&self.0, out, SendFlags::NOSIGNAL) {
                Ok(count) => _ = out.drain(..count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// Waits until there is something to read, or, if so wanted, room to write. False if the moment came first.
    pub(crate) fn wait(&self, write: bool, deadline: Instant) -> bool {
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, write);
        let mut descriptors = [PollFd::new(&self.0, wanted)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match poll(&mut descriptors, Some(&timespec(left))) {
                Ok(0) if left.is_zero() => return false,
                Ok(0) | Err(Errno::INTR) => {}
                // What else can fail is told by the next read.
                Ok(_) | Err(_) => return true,
            }
        }
    }
}

/// Sleeps, at most until `deadline`.
pub(crate) fn pause(duration: Duration, deadline: Instant) {
    std::thread::sleep(duration.min(deadline.saturating_duration_since(Instant::now())));
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
