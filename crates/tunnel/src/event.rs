//! What is told to whoever watches a tunnel.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use steadfast::Fingerprint;

/// Something that happened. Texts of the other side are as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// There is a conversation.
    Connected {
        /// With whom.
        peer: Fingerprint,
    },
    /// The conversation ended, and with it all connections; a client opens the next one.
    Lost {
        /// With whom.
        peer: Fingerprint,
        /// Why.
        words: String,
    },
    /// No network leads to the other side now: the connections of a conversation wait.
    Parked {
        /// With whom.
        peer: Fingerprint,
    },
    /// A network leads there again.
    Resumed {
        /// With whom.
        peer: Fingerprint,
    },
    /// A client could not open a conversation again, and goes on trying.
    Waiting {
        /// Why.
        words: String,
    },
    /// A program's connection was taken.
    Opened {
        /// Its number on this side.
        connection: u64,
        /// Who is at the other end of the conversation.
        peer: Fingerprint,
        /// Where it goes; `None` if the other side asked for something else.
        target: Option<String>,
        /// The program's address, on the side that it connected to.
        from: Option<SocketAddr>,
    },
    /// A connection is over.
    Closed {
        /// Its number on this side.
        connection: u64,
        /// Where it went; `None` if that was never understood.
        target: Option<String>,
        /// Bytes that went to the target.
        to_target: u64,
        /// Bytes that came from the target.
        from_target: u64,
        /// Why it broke, or never came about; `None` if both ends closed it.
        reason: Option<String>,
    },
}

/// Why a connection is over that was simply dropped.
const GIVEN_UP: &str = "the tunnel was stopped on this side, or its conversation ended";

/// What several connections come to.
#[derive(Debug, Default)]
pub struct Counters {
    open: AtomicU64,
    all: AtomicU64,
    to_target: AtomicU64,
    from_target: AtomicU64,
}

impl Counters {
    /// Connections that are open.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections so far.
    pub fn all(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    /// Bytes that went to targets.
    pub fn to_target(&self) -> u64 {
        self.to_target.load(Ordering::Relaxed)
    }

    /// Bytes that came from targets.
    pub fn from_target(&self) -> u64 {
        self.from_target.load(Ordering::Relaxed)
    }
}

/// Where events go. Clones are the same.
#[derive(Clone)]
pub struct Monitor {
    tell: Arc<dyn Fn(Event) + Send + Sync>,
    next: Arc<AtomicU64>,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Monitor")
    }
}

impl Monitor {
    /// Tells events to `tell`, which must not block.
    pub fn new(tell: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { tell: Arc::new(tell), next: Arc::default() }
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.tell)(event);
    }

    /// A connection begins; its end is told when what is returned is dropped.
    pub(crate) fn connection(&self, counters: &Arc<Counters>) -> Connection {
        counters.open.fetch_add(1, Ordering::Relaxed);
        counters.all.fetch_add(1, Ordering::Relaxed);
        Connection {
            number: self.next.fetch_add(1, Ordering::Relaxed) + 1,
            monitor: self.clone(),
            counters: Arc::clone(counters),
            to_target: AtomicU64::new(0),
            from_target: AtomicU64::new(0),
            target: None,
            // Whoever drops it in the middle says nothing more.
            reason: Some(GIVEN_UP.into()),
        }
    }
}

/// Whether a conversation waits for a network.
pub(crate) struct Parking {
    peer: Fingerprint,
    parked: bool,
}

impl Parking {
    pub(crate) const fn new(peer: Fingerprint) -> Self {
        Self { peer, parked: false }
    }

    /// Tells what an event of the conversation means.
    pub(crate) fn hear(&mut self, event: &steadfast::Event, monitor: &Monitor) {
        let peer = self.peer;
        match event {
            steadfast::Event::Parked { .. } => {
                self.parked = true;
                monitor.tell(Event::Parked { peer });
            }
            // The first path of all is no news.
            steadfast::Event::Resumed { .. } if std::mem::take(&mut self.parked) => {
                monitor.tell(Event::Resumed { peer });
            }
            _ => {}
        }
    }
}

/// One connection as it is counted.
pub(crate) struct Connection {
    pub(crate) number: u64,
    monitor: Monitor,
    counters: Arc<Counters>,
    to_target: AtomicU64,
    from_target: AtomicU64,
    pub(crate) target: Option<String>,
    /// Cleared by an end in order alone.
    pub(crate) reason: Option<String>,
}

impl Connection {
    /// Bytes went one way.
    pub(crate) fn count(&self, to_target: bool, bytes: u64) {
        let (one, all) = if to_target {
            (&self.to_target, &self.counters.to_target)
        } else {
            (&self.from_target, &self.counters.from_target)
        };
        one.fetch_add(bytes, Ordering::Relaxed);
        all.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
        self.monitor.tell(Event::Closed {
            connection: self.number,
            target: self.target.take(),
            to_target: self.to_target.load(Ordering::Relaxed),
            from_target: self.from_target.load(Ordering::Relaxed),
            reason: self.reason.take(),
        });
    }
}
