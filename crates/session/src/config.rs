//! What an endpoint may be told, with the default of each setting.

use alloc::vec::Vec;
use core::time::Duration;
use steadfast_wire::frame::Process;
use steadfast_wire::{Network, Selector};

/// Bounds of [`Config::verdict_after`]: below, a packet that TCP sends again would be a verdict.
const VERDICT_AFTER: [Duration; 2] = [Duration::from_millis(900), Duration::from_secs(30)];

/// Settings of an [`Endpoint`](crate::Endpoint). Sizes are bytes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The largest whole message that is accepted from a peer; at most half of each window. 1 MiB.
    pub max_message: u64,
    /// What one session may hold unread at the receiver, foreground and background, at most. 4 MiB and 16 MiB.
    pub windows: [u64; 2],
    /// What the windows of a session begin with, at least twice [`max_message`](Self::max_message). They double each time
    /// that the application has taken as much as they hold. 2 MiB each.
    pub first_windows: [u64; 2],
    /// How much the windows of all sessions of one peer may grow in all, at most half of
    /// [`max_held`](Self::max_held). 256 MiB.
    pub max_growth: u64,
    /// What all sessions of one peer may hold unread, with what it takes to keep it. Beyond it the session that holds
    /// most is ended as refused. 512 MiB.
    pub max_held: u64,
    /// What one session may hold unsent at the sender, foreground and background, before a send has to wait.
    /// 4 MiB and 16 MiB; a single message or write may go over it, and the oldest message counts by itself, because
    /// all others may wait for it: so at most twice this.
    pub send_buffers: [u64; 2],
    /// Whether journal records are emitted and waited for. No.
    pub durable: bool,
    /// Suspicion comes at the smoothed round trip plus four times its variance, at least this much over it. 15 ms.
    pub suspicion_margin: Duration,
    /// Silence after which a path is down. 3 s.
    pub down_after: Duration,
    /// How often an idle path is probed. 1 s.
    pub heartbeat: Duration,
    /// The longest silence that may pass, where an answer is owed, without a verdict on the peer: at most 30 s. A process
    /// that its kernel answers for is hung after some 1.75 s of 3 s; without a path a peer is unreachable after one third. 3 s.
    pub verdict_after: Duration,
    /// How long a peer may say that it falls silent, at most: so long a dead one that said so may go unnoticed. 10 min.
    pub max_suspension: Duration,
    /// How long a connection and its handshake may take. 5 s.
    pub connect_timeout: Duration,
    /// First pause before a failed path is tried again; doubles with jitter. 50 ms.
    pub backoff_min: Duration,
    /// Longest pause before a failed path is tried again. 5 s.
    pub backoff_max: Duration,
    /// How long the accepting side leaves the opening of further paths to the other. 500 ms.
    pub accept_grace: Duration,
    /// How long background may queue in a path's bottleneck: an urgent message waits so much longer at most. A path needs
    /// some to be kept busy, and two packets are always allowed. 10 ms.
    pub background_queue: Duration,
    /// The most paths of an association, and one more while it takes the place of another. 8.
    pub max_paths: usize,
    /// The most sessions of an association, and the most that one peer opened. 16,384.
    pub max_sessions: usize,
    /// The most sessions that peers opened and the application has not accepted. A single peer may have a quarter of
    /// them. 4,096.
    pub max_incoming: usize,
    /// The most processes of one peer. Those whose paths are gone longest are forgotten for new ones. 64.
    pub max_processes: usize,
    /// The most paths of one peer over all its processes. 128.
    pub max_peer_paths: usize,
    /// The most paths that have connected to us and not yet said HELLO; one more displaces the oldest of the peer that
    /// has most. 256.
    pub max_greeting: usize,
    /// The most associations. 4,096.
    pub max_associations: usize,
    /// The most sessions that one peer opened and that are parked; the one parked longest is forgotten first. 1,000.
    pub max_parked: usize,
    /// How long an association without sessions keeps its paths. 30 s.
    pub idle_limit: Duration,
    /// Whether metered networks get a path while others work. No.
    pub metered_standby: bool,
    /// Networks over which nothing goes, not even what keeps a path alive: no path has an end there, on either side. None.
    pub never_connect: Vec<Selector>,
    /// What an association may spend on sending small foreground messages twice, in bytes a second, frames included; it
    /// saves up at most one second's worth. 64 KiB.
    pub redundancy_budget: u64,
    /// Which process this is, for peers on the same host.
    pub process: Process,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_message: 1 << 20,
            windows: [4 << 20, 16 << 20],
            first_windows: [2 << 20, 2 << 20],
            max_growth: 256 << 20,
            max_held: 512 << 20,
            send_buffers: [4 << 20, 16 << 20],
            durable: false,
            suspicion_margin: Duration::from_millis(15),
            down_after: Duration::from_secs(3),
            heartbeat: Duration::from_secs(1),
            verdict_after: Duration::from_secs(3),
            max_suspension: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            accept_grace: Duration::from_millis(500),
            background_queue: Duration::from_millis(10),
            max_paths: 8,
            max_sessions: 16_384,
            max_incoming: 4096,
            max_processes: 64,
            max_peer_paths: 128,
            max_greeting: 256,
            max_associations: 4096,
            max_parked: 1000,
            idle_limit: Duration::from_secs(30),
            metered_standby: false,
            never_connect: Vec::new(),
            redundancy_budget: 64 * 1024,
            process: Process::default(),
        }
    }
}

impl Config {
    /// Whether nothing at all may go over a network.
    pub(crate) fn forbids(&self, network: &Network) -> bool {
        self.never_connect.iter().any(|selector| selector.matches(network))
    }

    /// The same with what does not fit together put right: every window has room for two whole messages.
    pub(crate) fn consistent(mut self) -> Self {
        self.max_message = self.max_message.clamp(1, 1 << 30);
        for class in 0..2 {
            self.windows[class] = self.windows[class].max(2 * self.max_message);
            let first = self.first_windows[class].max(2 * self.max_message);
            self.first_windows[class] = first.min(self.windows[class]);
        }
        self.max_growth = self.max_growth.min(self.max_held / 2);
        self.verdict_after = self.verdict_after.clamp(VERDICT_AFTER[0], VERDICT_AFTER[1]);
        self
    }
}

/// How messages of a session are ordered unless they say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ordering {
    /// Each message waits for all earlier ones: a program that ignores ordering sees a stream.
    Total,
    /// Each message waits for all earlier ones of its urgency.
    #[default]
    PerUrgency,
}

/// Settings of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionConfig {
    /// The order of messages that do not say otherwise. By urgency.
    pub ordering: Ordering,
    /// How long the session may be parked before it ends. For ever.
    pub park_limit: Option<Duration>,
    /// How long the session is parked before the application is told; `None` for never. At once.
    pub park_notice: Option<Duration>,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { ordering: Ordering::default(), park_limit: None, park_notice: Some(Duration::ZERO) }
    }
}
