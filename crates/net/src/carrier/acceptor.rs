//! Handshakes of those who connect, so bounded that strangers cannot keep out friends.

use super::{Carrier, DEFAULT_HANDSHAKE_LIMIT, HandshakeError, Listener, Side, handshake};
use crate::tls::{Tls, TlsError};
use socket2::SockRef;
use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinHandle, JoinSet};

/// What came of a connection: a carrier, or why not.
pub type Incoming = Result<Carrier, HandshakeError>;

/// Decides by its local and its remote address whether a connection may be, before anything is read from it or said on
/// it. What takes its time holds a place among the handshakes, and needs a limit of its own.
pub type Gate =
    Arc<dyn Fn(SocketAddr, SocketAddr) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// Bounds of an [`Acceptor`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceptorConfig {
    /// Handshakes at once, some 40 KiB each (256).
    pub half_open: usize,
    /// How long one may take (5 s).
    pub limit: Duration,
    /// Results that wait to be taken before accepting pauses (64).
    pub queue: usize,
}

impl Default for AcceptorConfig {
    fn default() -> Self {
        Self { half_open: 256, limit: DEFAULT_HANDSHAKE_LIMIT, queue: 64 }
    }
}

/// What an [`Acceptor`] has seen since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AcceptorCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Handshakes that gave a carrier.
    pub completed: u64,
    /// Connections that the gate refused: the kernel reset them.
    pub gated: u64,
    /// Peers refused because their key is not trusted.
    pub strangers: u64,
    /// Handshakes that took too long.
    pub timed_out: u64,
    /// Handshakes that failed otherwise.
    pub failed: u64,
    /// Handshakes dropped to make room for a newer one.
    pub displaced: u64,
    /// Errors of the kernel while accepting.
    pub accept_errors: u64,
}

/// Reads the counters of an [`Acceptor`].
#[derive(Debug, Clone)]
pub struct AcceptorGauge(Arc<Counters>);

impl AcceptorGauge {
    /// What was seen so far.
    pub fn read(&self) -> AcceptorCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AcceptorCounters {
            accepted: read(&self.0.accepted),
            completed: read(&self.0.completed),
            gated: read(&self.0.gated),
            strangers: read(&self.0.strangers),
            timed_out: read(&self.0.timed_out),
            failed: read(&self.0.failed),
            displaced: read(&self.0.displaced),
            accept_errors: read(&self.0.accept_errors),
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    completed: AtomicU64,
    gated: AtomicU64,
    strangers: AtomicU64,
    timed_out: AtomicU64,
    failed: AtomicU64,
    displaced: AtomicU64,
    accept_errors: AtomicU64,
}

/// Turns the connections of a [`Listener`] into carriers.
///
/// Every handshake runs on its own, so one that stalls delays nobody. When `half_open` of them run, a new connection
/// displaces the oldest from its own source, or, if its source has none, the oldest of the source that has most
/// (a source is an IPv4 address or an IPv6 /64).
///
/// Dropping it ends all of that soon; [`close`](Self::close) waits until the sockets are closed.
#[derive(Debug)]
pub struct Acceptor {
    /// Boxed, because a channel has room for dozens from the start.
    results: mpsc::Receiver<Box<Incoming>>,
    counters: Arc<Counters>,
    addresses: Vec<SocketAddr>,
    task: JoinHandle<()>,
}

impl Acceptor {
    /// Starts accepting from everybody. Must be called within a tokio runtime.
    pub fn start(listener: Listener, tls: Tls, config: AcceptorConfig) -> Self {
        Self::start_gated(listener, tls, Arc::new(|_, _| Box::pin(async { true })), config)
    }

    /// Starts accepting what passes the gate. Must be called within a tokio runtime.
    pub fn start_gated(listener: Listener, tls: Tls, gate: Gate, config: AcceptorConfig) -> Self {
        let (sender, results) = mpsc::channel(config.queue.max(1));
        let counters = Arc::new(Counters::default());
        let addresses = listener.local_addrs();
        let reception = Reception {
            tls,
            gate,
            config,
            counters: Arc::clone(&counters),
            handshakes: JoinSet::new(),
            half_open: VecDeque::new(),
        };
        let task = tokio::spawn(reception.run(listener, sender));
        Self { results, counters, addresses, task }
    }

    /// The addresses that are listened on.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The next carrier, or the next failure, which names a stranger's key. Cancel safe: nothing is lost.
    ///
    /// `None` only if the runtime is shutting down. Failures are dropped, not queued, when nobody takes them.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.results.recv().await.map(|incoming| *incoming)
    }

    /// What was seen so far.
    pub fn counters(&self) -> AcceptorCounters {
        self.gauge().read()
    }

    /// The same for somebody who does not hold the acceptor, also after its end.
    pub fn gauge(&self) -> AcceptorGauge {
        AcceptorGauge(Arc::clone(&self.counters))
    }

    /// Stops, and returns when the listening sockets and all unfinished handshakes are closed.
    ///
    /// Cancelling leaves the same to the background.
    pub async fn close(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Reception {
    tls: Tls,
    gate: Gate,
    config: AcceptorConfig,
    counters: Arc<Counters>,
    handshakes: JoinSet<Incoming>,
    /// Oldest first.
    half_open: VecDeque<HalfOpen>,
}

struct HalfOpen {
    source: IpAddr,
    handle: AbortHandle,
}

impl Reception {
    async fn run(mut self, mut listener: Listener, sender: mpsc::Sender<Box<Incoming>>) {
        loop {
            tokio::select! {
                Some(finished) = self.handshakes.join_next_with_id() => {
                    let Some(result) = self.finished(finished) else { continue };
                    let open = match result {
                        Ok(carrier) => sender.send(Box::new(Ok(carrier))).await.is_ok(),
                        // Strangers make as many failures as they like; carriers come from trusted peers.
                        Err(error) => !matches!(sender.try_send(Box::new(Err(error))), Err(mpsc::error::TrySendError::Closed(_))),
                    };
                    if !open {
                        return;
                    }
                }
                (stream, peer, local) = listener.accept() => {
                    self.counters.accept_errors.store(listener.accept_errors(), Ordering::Relaxed);
                    self.begin(stream, peer, local);
                }
            }
        }
    }

    fn begin(&mut self, stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let source = source_of(peer.ip());
        if self.half_open.len() >= self.config.half_open.max(1) {
            let index = victim(self.half_open.iter().map(|open| open.source), source);
            if let Some(open) = index.and_then(|index| self.half_open.remove(index)) {
                open.handle.abort();
                self.counters.displaced.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (tls, limit, decision) = (self.tls.clone(), self.config.limit, (self.gate)(local, peer));
        let handle = self.handshakes.spawn(async move {
            if decision.await {
                return handshake(stream, &tls, Side::Accepting, limit).await;
            }
            // A reset is one packet and the last one: an orderly end would wait for an answer, and be said again.
            let _ends_anyway = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            Err(HandshakeError::Gated { remote: peer, local })
        });
        self.half_open.push_back(HalfOpen { source, handle });
    }

    fn finished(&mut self, finished: Result<(Id, Incoming), JoinError>) -> Option<Incoming> {
        let id = match &finished {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        self.half_open.retain(|open| open.handle.id() != id);
        // An error is a displaced handshake, which was counted when it was displaced.
        let (_, result) = finished.ok()?;
        let counter = match &result {
            Ok(_) => &self.counters.completed,
            Err(HandshakeError::Tls { source: TlsError::Stranger(_), .. }) => &self.counters.strangers,
            Err(HandshakeError::Gated { .. }) => &self.counters.gated,
            Err(HandshakeError::TimedOut { .. }) => &self.counters.timed_out,
            Err(_) => &self.counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Some(result)
    }
}

/// Whoever has one IPv6 address has at least the 2^64 of its subnet.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Which of the sources, oldest first, makes room for a newcomer.
fn victim(sources: impl Iterator<Item = IpAddr>, newcomer: IpAddr) -> Option<usize> {
    // First place and number of each source.
    let mut seen: HashMap<IpAddr, (usize, usize)> = HashMap::new();
    for (index, source) in sources.enumerate() {
        seen.entry(source).or_insert((index, 0)).1 += 1;
    }
    let busiest = || seen.values().min_by_key(|(first, count)| (Reverse(*count), *first));
    seen.get(&newcomer).or_else(busiest).map(|(first, _)| *first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_makes_room() {
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let victim = |sources: &[u8], newcomer| victim(sources.iter().map(|last| ip(*last)), ip(newcomer));
        assert_eq!(victim(&[1, 2, 2, 3], 3), Some(3), "its own source first");
        assert_eq!(victim(&[1, 2, 2, 3], 2), Some(1), "the oldest of its own source");
        assert_eq!(victim(&[1, 2, 2, 3], 9), Some(1), "the oldest of the busiest source");
        assert_eq!(victim(&[1, 2, 3], 9), Some(0), "the oldest of all");
        assert_eq!(victim(&[], 9), None);
    }

    #[test]
    fn a_subnet_is_one_source() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:2"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8::1"));
    }
}
