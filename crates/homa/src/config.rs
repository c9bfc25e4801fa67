//! What a transport may be told, with the default of each setting.

use crate::packet::{Dialect, PRIORITIES};
use core::time::Duration;

/// A cut-off that no message exceeds. The module reads cut-offs as signed.
pub const ANY_LENGTH: u32 = i32::MAX as u32;

/// Settings of a [`Transport`](crate::Transport). Sizes are bytes. Where the module has the setting, its name is
/// given.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The longest message, sent or received; 1,000,000 at most with peers of [`Dialect::Linux`]. 16 MiB.
    pub max_message: u32,
    /// How much of a message is sent without being asked: what the network holds in a round trip. 40,000
    /// (`unsched_bytes`).
    pub unscheduled: u32,
    /// The same of a message that begins while none of its kind (request, response) to its peer is under way, if that is more: who
    /// is alone need not wait for grants. For carriers in which such a burst meets no queue. 0 (none).
    pub unscheduled_alone: u32,
    /// How many bytes may be on their way to one of our links, at most, by what was granted. 400,000 (`max_incoming`).
    pub max_incoming: u32,
    /// How far ahead of what arrived one message is granted; 0 for a share of
    /// [`max_incoming`](Self::max_incoming) that leaves room for one more message. 0 (`window`).
    pub window: u32,
    /// How many messages are granted at a time, 1 to 64. 8 (`max_overcommit`).
    pub overcommit: usize,
    /// Thousandths of a link that are granted to the oldest message, whatever its length, at the highest level of granted bytes; 0
    /// to 500. 50 (`grant_fifo_fraction`).
    pub grant_fifo_share: u32,
    /// How much the oldest message is granted at once. 50,000 (`fifo_grant_increment`).
    pub grant_fifo_increment: u32,
    /// Of how many thousand picks of what to send next the oldest message gets some, 0 to 500. 50
    /// (`pacer_fifo_fraction`).
    pub pacer_fifo_share: u32,
    /// Messages with less left than this do not wait for the pacer. 1,000 (`defer_min_bytes`).
    pub defer_min: u32,
    /// For how long a link may have bytes queued before it gets more; no run is longer than that at its rate, so that a message with
    /// fewer bytes left does not wait for all of a long one. 5 µs (`max_nic_est_backlog_usecs`); drivers that look at the clock
    /// less often want more.
    pub max_backlog: Duration,
    /// Hundredths of a link's rate that are used. 99 (`max_link_usage`).
    pub link_usage: u32,
    /// Levels that the network tells apart, 1 to 8; the highest are used by the shortest messages. 8
    /// (`num_priorities`).
    pub priorities: u8,
    /// For each level the longest message whose unscheduled bytes may use it, until the traffic was observed; 0 for
    /// levels of granted bytes alone, which are below all others. 200 for level 7, 2,800 for 6, 15,000 for 5, all for 4
    /// (`unsched_cutoffs`).
    pub cutoffs: [u32; PRIORITIES],
    /// Whether cut-offs follow the traffic that arrives. Yes.
    pub adapt_cutoffs: bool,
    /// How often they are computed anew. 1 s.
    pub cutoff_interval: Duration,
    /// From how many messages at least. 10,000.
    pub cutoff_messages: u64,
    /// Silence after which missing bytes are asked for. 5 ms (`resend_ticks`), or longer on a slow link: as long as it takes for
    /// [`max_incoming`](Self::max_incoming), but a quarter of [`timeout`](Self::timeout) at most. Here and below, an eighth of the time counts in which the link is busy
    /// with bytes that arrive and come before those that are missing.
    pub resend_after: Duration,
    /// After which time they are asked for again, at first; the time doubles, up to a quarter of
    /// [`timeout`](Self::timeout), while nothing new comes. 5 ms (`resend_interval`), or longer on a slow link, as above.
    pub resend_interval: Duration,
    /// Silence after which an RPC ends. 100 ms (`timeout_ticks`).
    pub timeout: Duration,
    /// How long a server waits for an acknowledgement before it asks. 2 ms (`request_ack_ticks`); from then on
    /// it asks at doubling intervals.
    pub request_ack_after: Duration,
    /// How long a server keeps a response that its client neither fetches nor acknowledges; at least twice
    /// [`timeout`](Self::timeout). 300 ms.
    pub retain: Duration,
    /// How long a message may take for a sixty-fourth of itself while it is its receiver's turn, or its sender's, and how
    /// long a response is kept once it was sent whole, whatever its client says. A peer of
    /// [`Dialect::Linux`], which does not say that it is busy with others, may leave a response without grants for as long.
    /// At least [`retain`](Self::retain). 10 s.
    pub patience: Duration,
    /// How long after its last packet an idle peer that made or got requests may be forgotten for a new one: longer than a packet may live in the
    /// network. Which requests of a peer of [`Dialect::Linux`] were taken is remembered for
    /// once to twice as long. 30 s.
    pub packet_lifetime: Duration,
    /// How many questions in a row a peer leaves unanswered before all RPCs with it end at once. 5.
    pub peer_questions: u32,
    /// The most peers. 10,000 (`peer_net_max`).
    pub max_peers: usize,
    /// The most ports. 1,024.
    pub max_ports: usize,
    /// The most requests of this side that are under way. 65,536.
    pub max_client_rpcs: usize,
    /// The most of them to one peer. 32,768.
    pub max_peer_calls: usize,
    /// The most requests of all peers that are here. 65,536.
    pub max_server_rpcs: usize,
    /// The most requests of one peer that are here. 16,384.
    pub max_peer_rpcs: usize,
    /// Bytes of messages that arrive, counted whole from their first packet; a request until it is answered. What goes
    /// over it is dropped and sent again when there is room. A quarter, if that leaves room for a message, is for responses
    /// to our own requests. At least one message. 512 MiB.
    pub max_held: u64,
    /// The same of one peer's requests, and of its responses. 128 MiB.
    pub max_peer_held: u64,
    /// Bytes of messages that are sent, until they are acknowledged; a quarter is for our own requests. 256 MiB
    /// (`wmem_max`).
    pub max_kept: u64,
    /// The same of responses to one peer, and of requests to it, so that one that acknowledges nothing leaves room to
    /// others. 64 MiB.
    pub max_peer_kept: u64,
    /// Ranges of a message that may have arrived out of order; a packet that would begin one more is dropped. 256.
    pub max_gaps: usize,
    /// Ranges of ids, of all peers, whose requests are remembered as taken: 16 bytes each. At least 64 of each peer
    /// are. 1,048,576.
    pub max_remembered: usize,
    /// Packets other than DATA that wait for one link; more are dropped, which their peers repair. A quarter of them, 16 at
    /// least, may be for one peer. 4,096.
    pub max_control: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_message: 16 << 20,
            unscheduled: 40_000,
            unscheduled_alone: 0,
            max_incoming: 400_000,
            window: 0,
            overcommit: 8,
            grant_fifo_share: 50,
            grant_fifo_increment: 50_000,
            pacer_fifo_share: 50,
            defer_min: 1000,
            max_backlog: Duration::from_micros(5),
            link_usage: 99,
            priorities: 8,
            cutoffs: [ANY_LENGTH, 0, 0, 0, ANY_LENGTH, 15_000, 2800, 200],
            adapt_cutoffs: true,
            cutoff_interval: Duration::from_secs(1),
            cutoff_messages: 10_000,
            resend_after: Duration::from_millis(5),
            resend_interval: Duration::from_millis(5),
            timeout: Duration::from_millis(100),
            request_ack_after: Duration::from_millis(2),
            retain: Duration::from_millis(300),
            patience: Duration::from_secs(10),
            packet_lifetime: Duration::from_secs(30),
            peer_questions: 5,
            max_peers: 10_000,
            max_ports: 1024,
            max_client_rpcs: 65_536,
            max_peer_calls: 32_768,
            max_server_rpcs: 65_536,
            max_peer_rpcs: 16_384,
            max_held: 512 << 20,
            max_peer_held: 128 << 20,
            max_kept: 256 << 20,
            max_peer_kept: 64 << 20,
            max_gaps: 256,
            max_remembered: 1 << 20,
            max_control: 4096,
        }
    }
}

impl Config {
    /// The same with what does not fit together put right.
    pub(crate) fn consistent(mut self) -> Self {
        let tick = Duration::from_micros(1);
        self.max_message = self.max_message.clamp(1, 1 << 30);
        self.unscheduled = self.unscheduled.max(1);
        self.overcommit = self.overcommit.clamp(1, 64);
        self.grant_fifo_share = self.grant_fifo_share.min(500);
        self.grant_fifo_increment = self.grant_fifo_increment.max(1);
        self.pacer_fifo_share = self.pacer_fifo_share.min(500);
        self.link_usage = self.link_usage.clamp(1, 100);
        self.priorities = self.priorities.clamp(1, PRIORITIES as u8);
        self.resend_after = self.resend_after.max(tick);
        self.resend_interval = self.resend_interval.max(tick);
        self.request_ack_after = self.request_ack_after.max(tick);
        self.timeout = self.timeout.max(self.resend_after);
        // A server forgets a client only when that has given up.
        self.retain = self.retain.max(self.timeout * 2);
        self.patience = self.patience.max(self.retain);
        self.max_held = self.max_held.max(u64::from(self.max_message));
        self.max_peer_held = self.max_peer_held.max(u64::from(self.max_message));
        self.max_gaps = self.max_gaps.max(2);
        self.max_control = self.max_control.max(16);
        self
    }
}

/// A link of this host.
#[derive(Debug, Clone, Copy)]
pub struct LinkConfig {
    /// Bits a second that it can send, and receive; 0 if unknown, then nothing is paced.
    pub rate: u64,
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy)]
pub struct PeerConfig {
    /// Over which link.
    pub link: crate::LinkId,
    /// What it understands.
    pub dialect: Dialect,
    /// Payload bytes of one packet, at most: the path's packet size without all headers. At least 1.
    pub segment: u32,
    /// Bytes that a packet takes on the link besides what this crate writes: for the pacer.
    pub overhead: u32,
}
