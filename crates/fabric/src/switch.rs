//! A link's end: what waits to be sent over it, by level.

use std::collections::VecDeque;

/// Levels of a queue.
pub(crate) const LEVELS: usize = 8;

/// A port with its queues. What is being sent is not interrupted.
#[derive(Debug)]
pub(crate) struct Port {
    /// Picoseconds a byte.
    pub(crate) pace: u64,
    /// When the frame that is sent, or was sent last, ends.
    pub(crate) free_at: u64,
    /// It is asked for its next frame then.
    pub(crate) expected: bool,
    queues: [VecDeque<u32>; LEVELS],
    /// At each level.
    waiting: [u64; LEVELS],
    bytes: u64,
    /// What may wait at a level.
    buffer: u64,
    pub(crate) load: Load,
}

/// How full a queue was, weighted by time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) most: u64,
    integral: u128,
    since: u64,
    started: u64,
}

impl Load {
    /// Counts from now on.
    pub(crate) fn start(&mut self, now: u64) {
        *self = Self { since: now, started: now, ..Self::default() };
    }

    fn note(&mut self, now: u64, bytes: u64) {
        self.integral += u128::from(bytes) * u128::from(now - self.since);
        self.since = now;
    }

    /// Bytes in the mean.
    pub(crate) fn mean(&self) -> f64 {
        let time = self.since.saturating_sub(self.started);
        if time == 0 { 0.0 } else { self.integral as f64 / time as f64 }
    }
}

impl Port {
    /// `rate` in bits a second, `buffer` in bytes at each level.
    pub(crate) fn new(rate: u64, buffer: u64) -> Self {
        Self {
            pace: 8_000_000_000_000 / rate,
            free_at: 0,
            expected: false,
            queues: Default::default(),
            waiting: [0; LEVELS],
            bytes: 0,
            buffer,
            load: Load::default(),
        }
    }

    /// False if there is no room for it.
    pub(crate) fn push(&mut self, now: u64, level: u8, frame: u32, bytes: u32) -> bool {
        let level = usize::from(level);
        if self.waiting[level] + u64::from(bytes) > self.buffer {
            return false;
        }
        self.load.note(now, self.bytes);
        self.queues[level].push_back(frame);
        self.waiting[level] += u64::from(bytes);
        self.bytes += u64::from(bytes);
        self.load.most = self.load.most.max(self.bytes);
        true
    }

    /// Whether a frame waits.
    pub(crate) const fn has_more(&self) -> bool {
        self.bytes > 0
    }

    /// What it held in the mean since it was started, and at most.
    pub(crate) fn stop(&mut self, now: u64) -> (f64, u64) {
        self.load.note(now, self.bytes);
        (self.load.mean(), self.load.most)
    }

    /// The frame of the highest level that waits longest; `bytes` says how long a frame is.
    pub(crate) fn pop(&mut self, now: u64, bytes: impl Fn(u32) -> u32) -> Option<u32> {
        let (level, frame) =
            (0..LEVELS).rev().find_map(|level| Some((level, self.queues[level].pop_front()?)))?;
        self.load.note(now, self.bytes);
        let bytes = u64::from(bytes(frame));
        self.bytes -= bytes;
        self.waiting[level] -= bytes;
        Some(frame)
    }
}
