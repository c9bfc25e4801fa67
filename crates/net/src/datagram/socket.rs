//! A socket for packets: how it is opened, when it is ready, how it sends and receives.

use super::batch::{Batch, Run};
use super::kernel::{self, Got, Origin, Shape};
use super::received::Received;
use super::trouble::{Fault, Trouble};
use super::{RAW_PROTOCOL, Route};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, Type};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Troubles that wait for the caller; the oldest give way.
const MAX_TROUBLES: usize = 256;
/// Entries of the error queue that are read at once.
const TROUBLES_AT_ONCE: usize = 64;
/// Packets to several peers in one call.
const MAX_ALIKE: usize = 64;
/// Bytes after which what was received is handed over before there is more: they are still in the processor's cache then,
/// and their sender hears of them sooner.
const ENOUGH: usize = 256 * 1024;
/// How often a packet is tried again because what the kernel said may have been about another one.
const TRIES: usize = 4;

/// What a socket is asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SocketConfig {
    /// Bytes of arrived packets that the kernel may hold, its own overhead for each included. 8 MiB; without
    /// `CAP_NET_ADMIN` the kernel gives no more than `net.core.rmem_max`. [`Socket::receive_buffer`] tells.
    pub receive_buffer: usize,
    /// Bytes of packets that wait for the network card, counted alike. 2 MiB.
    pub send_buffer: usize,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self { receive_buffer: 8 << 20, send_buffer: 2 << 20 }
    }
}

/// A socket that could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Unencrypted packets were to leave the host.
    #[error(
        "cannot open {address} for unencrypted packets: only loopback addresses may carry them; use sealed packets, or \
         127.0.0.1 or ::1"
    )]
    NotLoopback {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The system refused.
    #[error("cannot open a socket for {kind} on {address}: {source}{}", advice(*raw, source))]
    System {
        /// What it was to be.
        kind: &'static str,
        /// Whether it was to be a raw one.
        raw: bool,
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

fn advice(raw: bool, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied if raw => {
            "; raw sockets need CAP_NET_RAW: run as root, give the program that capability, or use UDP"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges, choose a higher one",
        io::ErrorKind::AddrInUse => "; another program has that port, choose another or stop it",
        io::ErrorKind::AddrNotAvailable => "; no interface has that address",
        _ => "",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Sealed,
    Raw,
}

/// Where sending stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendState {
    /// Everything is with the kernel, or was refused by it.
    Idle,
    /// The kernel takes no more for now: await [`Socket::poll_send_ready`], then call again.
    Blocked,
}

/// Where receiving stands. Packets may have arrived in both states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveState {
    /// There may be more: call again. There may be no wake-up.
    More,
    /// Everything that had arrived was given: await [`Socket::poll_recv_ready`], then call again.
    Blocked,
}

/// What went wrong so far, in packets but for the last one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketCounters {
    /// Given to the kernel and refused by it; or not fit for this socket.
    pub refused: u64,
    /// Arrived and could not be read.
    pub malformed: u64,
    /// Troubles that gave way because nobody took them.
    pub troubles_dropped: u64,
}

/// What reading the error queue gave.
struct Errors {
    /// The packet that was just sent is too long.
    own: bool,
    /// There may be more entries.
    more: bool,
}

#[derive(Debug, Default)]
struct Counters {
    refused: AtomicU64,
    malformed: AtomicU64,
    troubles_dropped: AtomicU64,
}

/// A socket that sends and receives packets to and from many peers. Nothing runs inside; no call blocks.
///
/// All packets leave whole or not at all: the kernel does not fragment them. One that is too long for its path is
/// [`Fault::TooBig`].
#[derive(Debug)]
pub struct Socket {
    /// Waits for packets and for errors. Not for room: every packet that leaves makes some, and would wake the runtime.
    fd: AsyncFd<socket2::Socket>,
    kind: Kind,
    local: SocketAddr,
    /// The address that arrivals have; none if it is in each of them.
    bound: Option<IpAddr>,
    /// Whether the kernel splits what is sent.
    splits: AtomicBool,
    /// Whether the kernel joins what arrives.
    joins: bool,
    waiting: Mutex<Option<AsyncFd<OwnedFd>>>,
    troubles: Mutex<VecDeque<Trouble>>,
    counters: Counters,
}

impl Socket {
    /// UDP for packets as they are. They can be read and forged by whoever sees them, so only loopback addresses are
    /// taken, of our side and of peers. Must be called within a tokio runtime.
    pub fn plain(address: SocketAddr, config: &SocketConfig) -> Result<Self, SocketError> {
        if !address.ip().to_canonical().is_loopback() {
            return Err(SocketError::NotLoopback { address });
        }
        Self::open(Kind::Plain, address, config)
    }

    /// UDP for sealed packets, on any address; it sends nothing else. IPv6 addresses take no IPv4. Must be called within a
    /// tokio runtime.
    pub fn sealed(address: SocketAddr, config: &SocketConfig) -> Result<Self, SocketError> {
        Self::open(Kind::Sealed, address, config)
    }

    /// IP protocol 146 as the Homa module speaks it: in the clear, for networks whose hosts all are trusted. Needs
    /// `CAP_NET_RAW`. An unspecified address stands for all of this host. Must be called within a tokio runtime.
    pub fn raw(address: IpAddr, config: &SocketConfig) -> Result<Self, SocketError> {
        Self::open(Kind::Raw, SocketAddr::new(address, 0), config)
    }

    fn open(kind: Kind, address: SocketAddr, config: &SocketConfig) -> Result<Self, SocketError> {
        Self::try_open(kind, address, config).map_err(|source| SocketError::System {
            kind: if kind == Kind::Raw { "IP protocol 146" } else { "UDP" },
            raw: kind == Kind::Raw,
            address,
            source,
        })
    }

    fn try_open(kind: Kind, address: SocketAddr, config: &SocketConfig) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = match kind {
            Kind::Raw => {
                let protocol = Protocol::from(i32::from(RAW_PROTOCOL));
                socket2::Socket::new(domain, Type::RAW, Some(protocol))?
            }
            Kind::Plain | Kind::Sealed => socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?,
        };
        socket.set_nonblocking(true)?;
        if address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            socket.set_recv_tos_v4(true)?;
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            rustix::net::sockopt::set_ip_mtu_discover(&socket, mtu_discovery(kind))?;
        } else {
            if kind != Kind::Raw {
                // A raw one is so by itself, and refuses to be told.
                socket.set_only_v6(true)?;
            }
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
            socket.set_recv_tclass_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            rustix::net::sockopt::set_ipv6_mtu_discover(&socket, mtu_discovery_v6(kind))?;
        }
        size_buffers(&socket, config)?;
        let joins = kind != Kind::Raw && enable_joining(&socket);
        socket.bind(&address.into())?;
        let local = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(Self {
            fd: register(socket, Interest::READABLE | Interest::ERROR)?,
            kind,
            local: SocketAddr::new(local.ip(), if kind == Kind::Raw { 0 } else { local.port() }),
            bound: Some(local.ip()).filter(|ip| !ip.is_unspecified()),
            splits: AtomicBool::new(kind != Kind::Raw),
            joins,
            waiting: Mutex::new(None),
            troubles: Mutex::new(VecDeque::new()),
            counters: Counters::default(),
        })
    }

    /// The address it is bound to; port 0 if it is raw.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Whether it sends sealed packets, and nothing else.
    pub fn is_sealed(&self) -> bool {
        self.kind == Kind::Sealed
    }

    /// Whether it is IP protocol 146.
    pub fn is_raw(&self) -> bool {
        self.kind == Kind::Raw
    }

    /// Bytes of headers in front of each packet: of IP without options, and of UDP.
    pub fn overhead(&self) -> u32 {
        let ip = if self.local.is_ipv4() { 20 } else { 40 };
        ip + if self.kind == Kind::Raw { 0 } else { 8 }
    }

    /// Whether the kernel still splits runs of packets for us, and whether it joins what arrives.
    pub fn offloads(&self) -> (bool, bool) {
        (self.splits.load(Ordering::Relaxed), self.joins)
    }

    /// Bytes that the kernel holds of what arrives, with its overhead (it says twice what it was asked for).
    pub fn receive_buffer(&self) -> io::Result<usize> {
        self.fd.get_ref().recv_buffer_size()
    }

    /// What went wrong so far.
    pub fn counters(&self) -> SocketCounters {
        SocketCounters {
            refused: self.counters.refused.load(Ordering::Relaxed),
            malformed: self.counters.malformed.load(Ordering::Relaxed),
            troubles_dropped: self.counters.troubles_dropped.load(Ordering::Relaxed),
        }
    }

    /// Ready when packets may have arrived. Wakes the last caller only.
    pub fn poll_recv_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_read_ready(context).map_ok(drop)
    }

    /// Completes when packets may have arrived. Cancel safe.
    pub async fn receivable(&self) -> io::Result<()> {
        self.fd.readable().await.map(drop)
    }

    /// Ready when the kernel may take packets again, after [`SendState::Blocked`]. Wakes the last caller only.
    pub fn poll_send_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An error of the network looks like a closed direction to the runtime, for good: on one registration every later
        // wait would end at once. So each wait has a registration of its own.
        let mut waiting = lock(&self.waiting);
        let registration = if let Some(registration) = &*waiting {
            registration
        } else {
            let fd = OwnedFd::from(self.fd.get_ref().try_clone()?);
            waiting.insert(register(fd, Interest::WRITABLE)?)
        };
        let outcome = ready!(registration.poll_write_ready(context)).map(drop);
        *waiting = None;
        Poll::Ready(outcome)
    }

    /// Completes when the kernel may take packets again, after [`SendState::Blocked`]. Cancel safe.
    pub async fn sendable(&self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_send_ready(context)).await
    }

    /// Waits for the next [`Trouble`]. Cancel safe: none is lost.
    pub async fn trouble(&self) -> io::Result<Trouble> {
        loop {
            if let Some(trouble) = self.try_trouble() {
                return Ok(trouble);
            }
            let mut guard = self.fd.ready(Interest::ERROR).await?;
            if !self.read_errors() {
                guard.clear_ready_matching(tokio::io::Ready::ERROR);
            }
        }
    }

    /// The oldest trouble that is known and was not taken. Sending and receiving come to know of it, and
    /// [`trouble`](Self::trouble) does.
    pub fn try_trouble(&self) -> Option<Trouble> {
        lock(&self.troubles).pop_front()
    }

    /// Sends what the kernel takes. What it refuses of a peer (no way to it, too long) is dropped, counted and told as
    /// [`Trouble`]; the next peer's packets go out.
    pub fn try_send(&self, batch: &mut Batch) -> SendState {
        // What a call that sent some did not send of its runs is tried by itself, to learn why.
        let mut alone = false;
        while let Some((run, bytes)) = batch.front() {
            if !std::mem::take(&mut alone)
                && batch.has_alike()
                && let Some((sent, all)) = self.send_alike(batch)
            {
                for _ in 0..sent {
                    batch.advance(1);
                }
                alone = !all;
                continue;
            }
            if !self.may_carry(run) {
                self.refuse(batch);
                continue;
            }
            match self.send_run(run, bytes) {
                Ok(packets) => batch.advance(packets),
                Err(Errno::EAGAIN) => {
                    self.read_errors();
                    return SendState::Blocked;
                }
                Err(errno) => {
                    let Route { remote, .. } = run.route;
                    if let Some(fault) = Fault::from_errno(errno, 0) {
                        self.note_own(remote, fault);
                    }
                    tracing::trace!(%remote, %errno, "packets refused");
                    if errno == Errno::EMSGSIZE {
                        // The last of a run may be shorter.
                        batch.advance(1);
                        self.counters.refused.fetch_add(1, Ordering::Relaxed);
                    } else {
                        self.refuse(batch);
                    }
                }
            }
        }
        SendState::Idle
    }

    /// Sends packets that need the same control messages in one call: how many, and whether all. None if there are no two,
    /// or the first one was refused.
    fn send_alike(&self, batch: &Batch) -> Option<(usize, bool)> {
        let runs = batch.alike(MAX_ALIKE);
        let allowed = runs.iter().take_while(|(run, _)| self.may_carry(run)).count();
        if allowed < 2 {
            return None;
        }
        let sent = kernel::send_alike(self.raw_fd(), &runs[..allowed]).ok()?;
        Some((sent, sent == allowed))
    }

    fn refuse(&self, batch: &mut Batch) {
        self.counters.refused.fetch_add(batch.skip() as u64, Ordering::Relaxed);
    }

    /// Whether packets of this kind may go there.
    fn may_carry(&self, run: &Run) -> bool {
        let allowed = match self.kind {
            Kind::Plain => !run.sealed && run.route.remote.ip().to_canonical().is_loopback(),
            Kind::Sealed => run.sealed,
            Kind::Raw => !run.sealed,
        };
        allowed && run.route.remote.is_ipv4() == self.local.is_ipv4()
    }

    /// Sends the beginning of a run; how many packets.
    fn send_run(&self, run: &Run, bytes: &[u8]) -> Result<usize, Errno> {
        let fd = self.raw_fd();
        let mut tries = 0;
        let mut splits = run.packets() > 1 && self.splits.load(Ordering::Relaxed);
        let mut alone = false;
        loop {
            let outcome = if splits {
                kernel::send_split(fd, run, bytes).map(|()| run.packets())
            } else {
                kernel::send_singles(fd, run, bytes, if alone { 1 } else { usize::MAX })
            };
            match outcome {
                Ok(packets) => {
                    if alone {
                        // The same packet passed by itself: it was the splitting.
                        self.stop_splitting();
                    }
                    return Ok(packets);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(Errno::EAGAIN),
                // No driver splits on this way, or the packets are too long for it, which one alone will tell.
                Err(Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::EOPNOTSUPP) if splits => {
                    splits = false;
                    alone = true;
                }
                // What came back for another peer's packet ends the next call, whichever it is, and only that one.
                Err(errno) => {
                    tries += 1;
                    let own = self.read_errors_of(Some(run.route.remote)).own;
                    if own || tries > TRIES {
                        return Err(errno);
                    }
                }
            }
        }
    }

    fn stop_splitting(&self) {
        if self.splits.swap(false, Ordering::Relaxed) {
            tracing::debug!(local = %self.local, "the kernel refuses to split packets (UDP_SEGMENT): sent one by one");
        }
    }

    /// Takes what has arrived, into `received`, whose former content is gone.
    pub fn try_recv(&self, received: &mut Received) -> io::Result<ReceiveState> {
        received.clear();
        let outcome = self.fd.try_io(Interest::READABLE, |_| self.receive_all(received));
        match outcome {
            Ok(()) => Ok(ReceiveState::More),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(ReceiveState::Blocked),
            Err(error) => Err(error),
        }
    }

    fn receive_all(&self, received: &mut Received) -> io::Result<()> {
        let with_header = self.kind == Kind::Raw && self.local.is_ipv4();
        let shape = Shape { local: self.bound, with_header };
        let fd = self.raw_fd();
        let mut errors = 0;
        loop {
            // Most often there is one, and then nothing; where there are two, there are more.
            let outcome = match received.free() {
                [] => return Ok(()),
                many @ [_, ..] if many.len() <= Received::SLOTS - 2 => kernel::receive_many(fd, many, shape),
                [next, ..] => kernel::receive(fd, next, shape).map(|got| vec![got]),
            };
            match outcome {
                Ok(all) => {
                    for got in all {
                        self.take(got, received);
                    }
                    if received.bytes() >= ENOUGH {
                        return Ok(());
                    }
                }
                Err(Errno::EAGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(errno) => {
                    // What came back for a packet that was sent; reading the queue clears it.
                    self.read_errors();
                    errors += 1;
                    if errors > TROUBLES_AT_ONCE {
                        return Err(errno.into());
                    }
                }
            }
        }
    }

    fn take(&self, got: Got, received: &mut Received) {
        match got {
            Got::Packets(mut head) => {
                if self.kind == Kind::Raw {
                    // There the kernel puts the protocol.
                    head.route.remote.set_port(0);
                }
                received.filled(head);
            }
            Got::Nothing => {
                received.passed();
                self.counters.malformed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Reads the error queue; whether there may be more.
    fn read_errors(&self) -> bool {
        self.read_errors_of(None).more
    }

    /// The same after a packet to `sending` was refused.
    fn read_errors_of(&self, sending: Option<SocketAddr>) -> Errors {
        let mut own = false;
        for _ in 0..TROUBLES_AT_ONCE {
            match kernel::receive_error(self.raw_fd()) {
                Ok(Some((mut trouble, Origin::Network))) => {
                    if self.kind == Kind::Raw {
                        trouble.remote.set_port(0);
                    }
                    self.note(trouble);
                }
                // Without a port. If it is another thread's, that one gets the error all the same, without the size.
                Ok(Some((mut trouble, Origin::Local))) => {
                    if let Some(remote) = sending.filter(|remote| remote.ip() == trouble.remote.ip()) {
                        trouble.remote = remote;
                        own = true;
                        self.note(trouble);
                    }
                }
                Ok(None) | Err(Errno::EINTR) => {}
                Err(_) => return Errors { own, more: false },
            }
        }
        Errors { own, more: true }
    }

    fn note(&self, trouble: Trouble) {
        tracing::trace!(remote = %trouble.remote, fault = ?trouble.fault, "trouble");
        let mut troubles = lock(&self.troubles);
        if let Fault::TooBig { .. } = trouble.fault {
            // The kernel says it each time that it is tried.
            let known =
                |other: &&mut Trouble| other.remote == trouble.remote && other.fault.is_like(trouble.fault);
            if let Some(known) = troubles.iter_mut().find(known) {
                *known = trouble;
                return;
            }
        }
        if troubles.len() >= MAX_TROUBLES {
            troubles.pop_front();
            self.counters.troubles_dropped.fetch_add(1, Ordering::Relaxed);
        }
        troubles.push_back(trouble);
    }

    /// Notes what the kernel said to a call, unless it said so in its queue as well.
    fn note_own(&self, remote: SocketAddr, fault: Fault) {
        let known = |trouble: &Trouble| trouble.remote == remote && trouble.fault.is_like(fault);
        if !lock(&self.troubles).iter().any(known) {
            self.note(Trouble { remote, fault, own: true, quoted: Vec::new() });
        }
    }

    fn raw_fd(&self) -> RawFd {
        self.fd.get_ref().as_raw_fd()
    }
}

#[expect(
    deprecated,
    reason = "what replaced it is unsafe; both types own their descriptor and always give the same"
)]
fn register<T: AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, interest)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No packet is fragmented. What routers say of a path is believed where there is nothing else: with IP protocol 146. Over UDP
/// the caller decides, since only it can tell whether its packet was quoted: the kernel believes everybody, for ten minutes.
const fn mtu_discovery(kind: Kind) -> Ipv4PathMtuDiscovery {
    match kind {
        Kind::Plain | Kind::Sealed => Ipv4PathMtuDiscovery::PROBE,
        Kind::Raw => Ipv4PathMtuDiscovery::DO,
    }
}

/// The same for IPv6.
const fn mtu_discovery_v6(kind: Kind) -> Ipv6PathMtuDiscovery {
    match kind {
        Kind::Plain | Kind::Sealed => Ipv6PathMtuDiscovery::PROBE,
        Kind::Raw => Ipv6PathMtuDiscovery::DO,
    }
}

/// As much as is asked for, or as much as there is without privileges.
fn size_buffers(socket: &socket2::Socket, config: &SocketConfig) -> io::Result<()> {
    let receive = config.receive_buffer.min(i32::MAX as usize / 2);
    if setsockopt(socket, sockopt::RcvBufForce, &receive).is_err() {
        socket.set_recv_buffer_size(receive)?;
    }
    let send = config.send_buffer.min(i32::MAX as usize / 2);
    if setsockopt(socket, sockopt::SndBufForce, &send).is_err() {
        socket.set_send_buffer_size(send)?;
    }
    Ok(())
}

/// Asks the kernel to hand over packets of one peer that arrived together as one.
fn enable_joining(socket: &socket2::Socket) -> bool {
    match setsockopt(socket, sockopt::UdpGroSegment, &true) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, "the kernel does not join packets (UDP_GRO): received one by one");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ReceiveState, Received};
    use super::*;
    use nix::{libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(NoChecksum, SetOnly, libc::SOL_SOCKET, libc::SO_NO_CHECK, bool);

    /// Without checksums the kernel splits nothing, as with some drivers.
    #[tokio::test]
    async fn a_kernel_that_refuses_to_split_is_asked_once() {
        let open = || Socket::plain(SocketAddr::from(([127, 0, 0, 1], 0)), &SocketConfig::default());
        let (one, other) = (open().unwrap(), open().unwrap());
        setsockopt(one.fd.get_ref(), NoChecksum, &true).unwrap();
        let mut batch = Batch::new();
        for number in 0..150usize {
            let bytes = vec![number as u8; if number % 50 == 49 { 10 } else { 1000 }];
            assert!(batch.push(Route::to(other.local_addr()), 0, |out| out.extend_from_slice(&bytes)));
        }
        assert_eq!(one.offloads(), (true, true));
        assert_eq!(one.try_send(&mut batch), SendState::Idle);
        assert_eq!((one.offloads(), one.counters()), ((false, true), SocketCounters::default()));
        let (mut room, mut number) = (Received::new(), 0);
        while number < 150 {
            if other.try_recv(&mut room).unwrap() == ReceiveState::Blocked && room.is_empty() {
                other.receivable().await.unwrap();
            }
            for mut arrival in room.arrivals() {
                for packet in arrival.packets() {
                    assert_eq!(
                        (packet.len(), packet[0]),
                        (if number % 50 == 49 { 10 } else { 1000 }, number as u8)
                    );
                    number += 1;
                }
            }
        }
    }
}
