//! How one direction of a link behaves.

use std::time::Duration;

use crate::Loss;

/// Longest delay and jitter; longer ones are cut to it, so that no sum of times can overflow.
const LONGEST: Duration = Duration::from_secs(3600);

/// How much may wait for the wire of one direction before further frames are dropped (drop tail).
///
/// The frame that is being serialised does not count, so at least one frame always gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// At most so many bytes.
    Bytes(usize),
    /// At most what the present rate carries in so much time.
    Time(Duration),
}

/// The behaviour of one direction of a link.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Bits per second, counting each frame with its 14-byte Ethernet header; `None` (the default) for no limit. Zero is
    /// taken as one bit per second: to stop traffic, use a blackhole.
    pub rate: Option<u64>,
    /// Time from a frame's departure, when its last bit is on the wire, to its arrival, one way. Default zero, at most an
    /// hour.
    pub delay: Duration,
    /// Extra delay, uniform between zero and this. Default zero, at most an hour. Without `reorder`, a frame also waits
    /// for those before it.
    pub jitter: Duration,
    /// Whether jitter and a shortened delay may let a frame overtake another. Default false.
    pub reorder: bool,
    /// Which of the frames that departed are lost. Default none.
    pub loss: Loss,
    /// Probability between 0 and 1 that a frame that departed arrives twice, the second time with jitter of its own.
    /// Default 0.
    pub duplication: f64,
    /// What may wait for the wire when a rate is set. Default 100 ms.
    pub queue: Queue,
    /// Whether frames wait for the wire in eight queues, each with the bound of `queue`, in strict priority: the class
    /// is that of DSCP's upper three bits (CS7 first, CS0 last), in IPv4's type of service and IPv6's traffic class.
    /// What is not IP, such as ARP, is of the highest. A frame on the wire is not interrupted. Default false; frames that
    /// wait when it is changed count as CS0 if they came without priorities, and keep their class if they had one.
    pub priorities: bool,
    /// Whether every frame vanishes, those under way included, and nobody is told. Default false.
    pub blackhole: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rate: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: false,
            loss: Loss::NONE,
            duplication: 0.0,
            queue: Queue::Time(Duration::from_millis(100)),
            priorities: false,
            blackhole: false,
        }
    }
}

impl Settings {
    /// Brings every field into its documented range.
    pub(crate) fn normalise(&mut self) {
        self.rate = self.rate.map(|rate| rate.max(1));
        self.delay = self.delay.min(LONGEST);
        self.jitter = self.jitter.min(LONGEST);
        self.loss = self.loss.normalised();
        self.duplication = if self.duplication.is_nan() { 0.0 } else { self.duplication.clamp(0.0, 1.0) };
    }

    /// How long a frame occupies the wire.
    pub(crate) fn serialisation(&self, bytes: usize) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| {
            let nanos = u128::from(bytes as u64) * 8 * 1_000_000_000 / u128::from(rate.max(1));
            Duration::from_nanos(nanos as u64)
        })
    }

    /// Bytes that may wait for the wire.
    pub(crate) fn queue_bytes(&self) -> usize {
        match (self.queue, self.rate) {
            (Queue::Bytes(bytes), _) => bytes,
            (Queue::Time(time), Some(rate)) => {
                let bytes = u128::from(rate) * time.as_nanos() / 8_000_000_000;
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }
            (Queue::Time(_), None) => usize::MAX,
        }
    }
}
