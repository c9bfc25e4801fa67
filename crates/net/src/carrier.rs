//! Reliable, ordered, authenticated byte streams over TCP and TLS.

mod acceptor;
mod connect;
mod handshake;
mod listener;
mod tcp_info;

pub use acceptor::{Acceptor, AcceptorConfig, AcceptorCounters, AcceptorGauge, Gate, Incoming};
pub use connect::{ConnectError, ConnectOptions, congestion, connect};
pub use handshake::{DEFAULT_HANDSHAKE_LIMIT, HandshakeError, Side, handshake};
pub use listener::{BindError, Listener};
pub use tcp_info::{TcpInfo, TcpName};

use crate::tls::{self, Outgoing, Records, TlsError};
use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::mem;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use steadfast_wire::{Fingerprint, Gather};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The least and the most plaintext bytes that are asked for at once.
pub const RECORD_SIZES: std::ops::RangeInclusive<usize> = 1400..=256 * 1024;
/// The record size of a new carrier, in bytes.
pub const DEFAULT_RECORD_SIZE: usize = 16 * 1024;
/// The unsent limit of a new connection, in bytes.
pub const DEFAULT_UNSENT_LIMIT: u32 = 128 * 1024;
/// What is read from the socket at once; TLS records of 16 KiB one by one would cost a system call each.
const INPUT: usize = 128 * 1024;
/// What is encrypted before the kernel gets it: what stays in a processor's nearer caches.
const SLICE: usize = 64 * 1024;
thread_local! {
    /// What one call needs and the next need not know, so that all carriers of a thread share it.
    static SHARED: RefCell<Shared> = RefCell::default();
}
/// Plaintext written in one call before the caller gets its turn, whatever the peer can take.
const WRITE_TURN: usize = 1024 * 1024;

#[derive(Default)]
struct Shared {
    /// What the kernel gave; decrypted in place.
    input: Vec<u8>,
    /// What there is to say.
    plain: Gather,
    /// The same, encrypted.
    records: Outgoing,
}

/// A byte stream to one peer whose key is proved, over one TCP connection.
///
/// Nothing runs inside: whoever owns it calls [`try_write`](Self::try_write) and [`try_read`](Self::try_read), which
/// never block, and awaits [`socket`](Self::socket)`.writable()` or `.readable()` between them, without a lock.
///
/// Holds what the socket did not take of a record of output (see [`set_record_size`](Self::set_record_size)) and of TLS
/// what has arrived of a message, at most 32 KiB; while it is idle, only the state of TLS. The threads that read and write
/// carriers keep at most some 520 KiB of buffers each, whatever the number of carriers.
/// Dropping it ends the connection without a farewell: the peer sees [`ReadState::Truncated`] or
/// [`ReadState::Reset`].
pub struct Carrier {
    socket: Arc<TcpStream>,
    /// Boxed, since it is a kilobyte and carriers travel through channels and futures.
    tls: Box<Records>,
    own: Fingerprint,
    peer: Fingerprint,
    local: SocketAddr,
    remote: SocketAddr,
    record_size: usize,
    unsent_limit: usize,
    /// What was written since the kernel last said that it wants more.
    unasked: usize,
    /// What came with the end of the handshake and was not read yet.
    plain: BytesMut,
    input_ended: bool,
    /// Encrypted bytes that the socket did not take, and how many of them it took since.
    unwritten: Vec<u8>,
    written: usize,
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Open,
    ExpectFlush,
    Closed,
}

/// Where writing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteState {
    /// The socket takes no more for now: await `writable()`, then call again.
    Blocked,
    /// Everything that `fill` gave is with the kernel; call again when there is more.
    Idle,
    /// A turn's worth was written: let others run, then call again. There may be no wake-up.
    More,
}

/// Where reading stands. Bytes may have been appended in each of these states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadState {
    /// Everything that had arrived was given: await `readable()`, then call again.
    Blocked,
    /// `max` bytes or more were given or a turn's work was done: call again. There may be no wake-up.
    More,
    /// The peer said that it sends no more (`close_notify`): nothing is missing.
    Closed,
    /// The connection ended without that word: the peer crashed, or somebody cut it.
    Truncated,
    /// The connection was reset: the peer, or its kernel, threw it away.
    Reset,
}

impl Carrier {
    fn new(
        socket: TcpStream,
        tls: Box<Records>,
        plain: BytesMut,
        own: Fingerprint,
        peer: Fingerprint,
    ) -> io::Result<Self> {
        Ok(Self {
            local: socket.local_addr()?,
            remote: socket.peer_addr()?,
            socket: Arc::new(socket),
            tls,
            own,
            peer,
            record_size: DEFAULT_RECORD_SIZE,
            unsent_limit: DEFAULT_UNSENT_LIMIT as usize,
            // Unknown at first.
            unasked: usize::MAX,
            plain,
            input_ended: false,
            unwritten: Vec::new(),
            written: 0,
            output: Output::Open,
        })
    }

    /// The key that the peer proved.
    pub fn peer(&self) -> Fingerprint {
        self.peer
    }

    /// This end's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The peer's address.
    pub fn remote_addr(&self) -> SocketAddr {
        self.remote
    }

    /// The connection, to await `readable()` and `writable()` on without holding the carrier.
    ///
    /// It must not be read from or written to. The descriptor stays open until the last of these is dropped.
    pub fn socket(&self) -> Arc<TcpStream> {
        Arc::clone(&self.socket)
    }

    /// How many plaintext bytes are asked for at once; brought into [`RECORD_SIZES`].
    ///
    /// What was asked for cannot be taken back, so this and the unsent limit bound how long something more urgent
    /// waits here.
    pub fn set_record_size(&mut self, bytes: usize) {
        self.record_size = bytes.clamp(*RECORD_SIZES.start(), *RECORD_SIZES.end());
    }

    /// The present record size in bytes.
    pub fn record_size(&self) -> usize {
        self.record_size
    }

    /// How many bytes the kernel may hold that it has not sent yet (`TCP_NOTSENT_LOWAT`).
    ///
    /// The kernel calls the socket writable once less than half of this is unsent, and more is asked for while that was
    /// so an eighth of it ago.
    pub fn set_unsent_limit(&mut self, bytes: u32) -> io::Result<()> {
        connect::set_unsent_limit(&self.socket, bytes)?;
        self.unsent_limit = bytes as usize;
        Ok(())
    }

    /// The present unsent limit in bytes.
    pub fn unsent_limit(&self) -> usize {
        self.unsent_limit
    }

    /// Writes what the kernel can send now.
    ///
    /// Encrypted bytes that are left from before go first. Then, while the socket is writable, `fill` is asked to
    /// append about the given number of plaintext bytes to the (empty) buffer, and to return whether there may be more.
    /// None means that there is nothing to send. About 1 MiB a call.
    ///
    /// Errors are final: the connection was reset or timed out. After [`try_close`](Self::try_close) nothing is
    /// asked for.
    pub fn try_write(&mut self, fill: &mut dyn FnMut(&mut Gather, usize) -> bool) -> io::Result<WriteState> {
        // Taken out, so that a `fill` that writes to another carrier would not meet it.
        // There is none in a thread that ends.
        let mut shared = SHARED.try_with(RefCell::take).unwrap_or_default();
        let state = self.write_through(&mut shared, fill);
        // Payloads are not held on to: their messages may be done with them before anything is written here again.
        shared.plain.clear();
        let _kept = SHARED.try_with(|kept| kept.replace(shared));
        state
    }

    fn write_through(
        &mut self,
        Shared { plain, records, .. }: &mut Shared,
        fill: &mut dyn FnMut(&mut Gather, usize) -> bool,
    ) -> io::Result<WriteState> {
        let mut written = 0;
        loop {
            if !self.flush()? {
                return Ok(WriteState::Blocked);
            }
            if self.output != Output::Open {
                return Ok(WriteState::Idle);
            }
            if written >= WRITE_TURN {
                return Ok(WriteState::More);
            }
            if !self.kernel_wants_more()? {
                return Ok(WriteState::Blocked);
            }
            plain.clear();
            let more = fill(plain, self.record_size);
            if plain.is_empty() {
                return Ok(WriteState::Idle);
            }
            written += plain.len();
            self.unasked = self.unasked.saturating_add(plain.len());
            records.clear();
            for slice in plain.slices().flat_map(|slice| slice.chunks(SLICE)) {
                if records.bytes().len() >= SLICE {
                    self.send(records, SendFlags::MORE)?;
                    records.clear();
                }
                self.tls.encrypt(slice, records).map_err(|error| self.explain(error))?;
            }
            self.send(records, SendFlags::empty())?;
            if !more {
                return Ok(if self.flush()? { WriteState::Idle } else { WriteState::Blocked });
            }
        }
    }

    /// Reads and decrypts what has arrived, appending about `max` bytes to `out`, at most 128 KiB more.
    ///
    /// After the states [`ReadState::Closed`], [`ReadState::Truncated`] and [`ReadState::Reset`] nothing more comes.
    /// An error is one of the network (`TimedOut`, `HostUnreachable`, ..) or a [`TlsError`] inside an `io::Error`:
    /// of kind `PermissionDenied` if the peer does not trust our key, which it can say only after our side of the
    /// handshake is done, else `InvalidData`.
    pub fn try_read(&mut self, out: &mut BytesMut, max: usize) -> io::Result<ReadState> {
        with_shared(|shared| self.read_through(shared, out, max))
    }

    fn read_through(&mut self, shared: &mut Shared, out: &mut BytesMut, max: usize) -> io::Result<ReadState> {
        let end = out.len().saturating_add(max);
        if !self.plain.is_empty() {
            out.unsplit(mem::take(&mut self.plain));
        }
        // Bounds the work for a peer that sends nothing but empty records.
        let mut reads = 4 + max / (INPUT / 2);
        let mut drained = false;
        let state = loop {
            if self.tls.is_closed() {
                break ReadState::Closed;
            }
            if self.input_ended {
                break ReadState::Truncated;
            }
            if drained {
                break ReadState::Blocked;
            }
            if out.len() >= end || reads == 0 {
                break ReadState::More;
            }
            reads -= 1;
            let held = self.tls.hold(&mut shared.input);
            match self.receive(&mut shared.input[held..]) {
                Ok((length, last)) => {
                    drained = last;
                    self.decrypt(shared, held + length, out)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break ReadState::Blocked,
                Err(error) if is_reset(&error) => break ReadState::Reset,
                Err(error) => return Err(error),
            }
        };
        Ok(state)
    }

    /// Whether encrypted bytes wait for the socket.
    pub fn wants_write(&self) -> bool {
        !self.unwritten.is_empty() || self.output == Output::ExpectFlush
    }

    /// Says `close_notify` and ends the sending direction; receiving goes on.
    ///
    /// On [`WriteState::Blocked`] await `writable()` and call again; [`WriteState::Idle`] means done. Drop the carrier
    /// only after the peer's end was read, or what is unread makes the kernel reset the connection and the peer may
    /// lose the last bytes.
    pub fn try_close(&mut self) -> io::Result<WriteState> {
        if self.output == Output::Open {
            let mut farewell = Outgoing::default();
            self.tls.close(&mut farewell).map_err(|error| self.explain(error))?;
            self.output = Output::ExpectFlush;
            self.send(&farewell, SendFlags::empty())?;
        }
        if !self.flush()? {
            return Ok(WriteState::Blocked);
        }
        if self.output == Output::ExpectFlush {
            self.output = Output::Closed;
            socket2::SockRef::from(&*self.socket).shutdown(Shutdown::Write)?;
        }
        Ok(WriteState::Idle)
    }

    /// Says `close_notify`, waits for the peer's end and drops the connection; gives up after `limit`.
    ///
    /// What still arrives is thrown away. Cancel safe: cancelling drops the connection.
    pub async fn close(mut self, limit: Duration) -> io::Result<()> {
        let closing = async {
            while self.try_close()? == WriteState::Blocked {
                self.socket.writable().await?;
            }
            let mut rest = BytesMut::new();
            loop {
                rest.clear();
                match self.try_read(&mut rest, INPUT)? {
                    ReadState::Blocked => self.socket.readable().await?,
                    ReadState::More => tokio::task::yield_now().await,
                    ReadState::Closed | ReadState::Truncated | ReadState::Reset => return Ok(()),
                }
            }
        };
        tokio::time::timeout(limit, closing).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Throws the connection away at once: what the kernel has not sent is discarded, and the peer sees a reset.
    ///
    /// Works also while others hold the [`socket`](Self::socket); whoever awaits it is woken.
    pub fn reset(&mut self) {
        self.output = Output::Closed;
        // Both, since only disconnecting works while the descriptor is shared, and only lingering where the
        // connection is already half closed.
        let _ = self.socket.set_zero_linger();
        let _ = rustix::net::connect_unspec(&*self.socket);
    }

    /// What the kernel knows of the connection, as [`TcpName::info`] tells it.
    pub fn tcp_info(&self) -> io::Result<TcpInfo> {
        TcpName::of(&self.socket)?.info()
    }

    /// Gives records to the socket, after what waits for it; keeps what it does not take. With [`SendFlags::MORE`] the
    /// kernel keeps a packet that is not full for what follows: without it every call would end with a short one.
    fn send(&mut self, records: &Outgoing, flags: SendFlags) -> io::Result<()> {
        let bytes = records.bytes();
        let written = if self.unwritten.is_empty() { push(&self.socket, bytes, flags)? } else { 0 };
        self.unwritten.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Gives what waits to the socket; `false` if the socket is full.
    fn flush(&mut self) -> io::Result<bool> {
        if self.unwritten.is_empty() {
            return Ok(true);
        }
        self.written += push(&self.socket, &self.unwritten[self.written..], SendFlags::empty())?;
        if self.written < self.unwritten.len() {
            return Ok(false);
        }
        self.written = 0;
        self.unwritten = Vec::new();
        Ok(true)
    }

    /// Whether the kernel has less unsent than half of the limit.
    ///
    /// The runtime's readiness does not say so: it stays set until a write fails, and by then the kernel holds a
    /// whole limit. A poll answers by the low-water mark, and arms the wake-up if the answer is no.
    fn kernel_wants_more(&mut self) -> io::Result<bool> {
        // A small message is not worth a system call of its own.
        if self.unasked < self.unsent_limit / 8 {
            return Ok(true);
        }
        let polled = self.socket.try_io(Interest::WRITABLE, || {
            let mut sockets = [PollFd::new(&*self.socket, PollFlags::OUT)];
            poll(&mut sockets, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
            // An error counts as writable, so that the write reports it.
            let ready = PollFlags::OUT | PollFlags::ERR | PollFlags::HUP;
            if sockets[0].revents().intersects(ready) {
                Ok(())
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        });
        match polled {
            Ok(()) => {
                self.unasked = 0;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.unasked = usize::MAX;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives `length` bytes of input to TLS, and what comes of it to `out`.
    fn decrypt(&mut self, shared: &mut Shared, length: usize, out: &mut BytesMut) -> io::Result<()> {
        let Shared { input, records, .. } = shared;
        records.clear();
        let result = self.tls.decrypt(&mut input[..length], out, records);
        if !records.is_empty() && self.output == Output::Open {
            // An alert tells the peer why; if it cannot be sent, the end of the connection tells enough.
            let _ = self.send(records, SendFlags::empty());
        }
        result.map_err(|error| self.explain(error))
    }

    fn explain(&self, error: rustls::Error) -> io::Error {
        let error = tls::explain(self.own, error);
        let kind = match error {
            TlsError::RefusedByPeer(_) => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }

    /// Reads once; returns also whether that was all there was.
    fn receive(&mut self, input: &mut [u8]) -> io::Result<(usize, bool)> {
        let mut drained = None;
        let read = self.socket.try_io(Interest::READABLE, || {
            let (length, _) = rustix::net::recv(&*self.socket, &mut *input, RecvFlags::empty())?;
            if length > 0 && length < input.len() {
                // To ask once more would be a system call for this very answer.
                drained = Some(length);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(length)
        });
        if let Some(length) = drained {
            return Ok((length, true));
        }
        let length = read?;
        self.input_ended |= length == 0;
        Ok((length, false))
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carrier({} to {} at {})", self.local, self.peer, self.remote)
    }
}

fn with_shared<T>(run: impl FnOnce(&mut Shared) -> T) -> T {
    SHARED.with_borrow_mut(|shared| {
        shared.input.resize(INPUT, 0);
        run(shared)
    })
}

/// Gives bytes to the socket until it is full: how many it took.
fn push(socket: &TcpStream, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        let rest = &bytes[written..];
        match socket
            .try_io(Interest::WRITABLE, || Ok(rustix::net::send(socket, rest, flags | SendFlags::NOSIGNAL)?))
        {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
