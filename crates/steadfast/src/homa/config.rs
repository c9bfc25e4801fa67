//! What a Homa transport may be told.

use std::time::Duration;
use steadfast_homa::Config;

/// Settings of a [`Homa`](super::Homa), each with a default that is good for a first try. Sizes are bytes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HomaConfig {
    /// What the transport itself may be told: how long messages may be, when it asks for what is missing, how much memory
    /// peers may take. A silent peer ends a call after 500 ms here, a process that died at once.
    pub transport: Config,
    /// Requests of this side that are unanswered at a time: 16,384. At this cap a `call` waits for its turn, and a
    /// [`Port::send`](super::Port::send) fails with [`SendError::TooMany`](super::SendError::TooMany).
    pub max_open: usize,
    /// What each link of this host can send and receive, in bits a second; 0, the default, if that is not known: then
    /// nothing is paced. Packets of IPv4 and of IPv6 are paced apart.
    pub link_rate: u64,
    /// Bytes of arrived packets that the kernel may hold for us. 8 MiB, or as much as it allows.
    pub receive_buffer: usize,
    /// How long [`Homa::connect`](super::Homa::connect), and a call whose peer is not in reach, wait for it. 10 s.
    pub connect_limit: Duration,
}

impl Default for HomaConfig {
    fn default() -> Self {
        let mut transport = Config::default();
        // A runtime's clock has milliseconds: a link may have as much to do as lies between two looks at it.
        transport.max_backlog = Duration::from_millis(2);
        // Time to find another way when a network dies.
        transport.timeout = Duration::from_millis(500);
        Self {
            transport,
            max_open: 16_384,
            link_rate: 0,
            receive_buffer: 8 << 20,
            connect_limit: Duration::from_secs(10),
        }
    }
}

impl HomaConfig {
    /// The same, if what was not said otherwise is known better: on the loopback there is no network whose queues could overflow,
    /// only the receiver's buffer, of so many bytes with the kernel's overhead.
    pub(super) fn on(mut self, buffer: Option<usize>) -> Self {
        let usual = Config::default();
        if let Some(buffer) = buffer {
            let room = u32::try_from(buffer / 4).unwrap_or(u32::MAX);
            if self.transport.unscheduled == usual.unscheduled {
                self.transport.unscheduled = (room / 8).clamp(usual.unscheduled, 128 * 1024);
            }
            if self.transport.unscheduled_alone == usual.unscheduled_alone {
                self.transport.unscheduled_alone = (room / 4).min(1_000_000);
            }
            if self.transport.max_incoming == usual.max_incoming {
                self.transport.max_incoming = (room / 2).clamp(usual.max_incoming, 1_000_000);
            }
        }
        self
    }

    /// The same with other settings of the transport.
    #[must_use]
    pub fn transport(mut self, transport: Config) -> Self {
        self.transport = transport;
        self
    }

    /// The same with another [`max_open`](Self::max_open).
    #[must_use]
    pub const fn max_open(mut self, requests: usize) -> Self {
        self.max_open = requests;
        self
    }

    /// The same with another [`link_rate`](Self::link_rate).
    #[must_use]
    pub const fn link_rate(mut self, bits: u64) -> Self {
        self.link_rate = bits;
        self
    }

    /// The same with another [`connect_limit`](Self::connect_limit).
    #[must_use]
    pub const fn connect_limit(mut self, limit: Duration) -> Self {
        self.connect_limit = limit;
        self
    }
}
