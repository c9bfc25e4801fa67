//! Bulk on a path (background, and large messages of foreground): how much of it may be in flight, so that a small urgent
//! message waits for almost nothing.
//!
//! Bytes given to the kernel cannot be taken back, and networks queue a second of them and more. So bulk in flight
//! is bounded by what the path holds at its delivery rate over its round trip without our own queue, and a short queue
//! more, which keeps the path busy. Rate and queue are measured on the peer's clock and one way, because round trips also
//! tell of the queue in the other direction, which other traffic has made.

use crate::estimate::{Estimate, bytes_in, time_of};
use crate::share::Allotment;
use core::time::Duration;
use steadfast_wire::Instant;
use steadfast_wire::time::nanos;

/// How long the least one-way delay is believed; clocks drift, routes change.
const BASE_WINDOW: Duration = Duration::from_secs(10);
/// Packets that the queue has room for at least, and their size in bytes.
const PACKETS: u64 = 2;
const PACKET: u64 = 1500;
/// In flight before the first measurement, in bytes: what TCP itself begins with.
const FIRST_WINDOW: u64 = 16 * 1024;
/// Where others keep the queue long, bulk keeps this share of the rate that the path had before.
const FOREIGN_SHARE: u64 = 16;
/// Bulk leaves at this many tenths of the rate, or twice as fast while that still grows: bytes that leave in a burst
/// queue in one, and reports that waited behind the other direction's bytes come in bursts.
const PACE: u64 = 11;
/// Bulk that an arbiter limits leaves at this many tenths of its rate at most: its window is what bounds the queue, and
/// together all must be able to find out that the path has become faster.
const LIMITED_PACE: u64 = 12;
/// How much of the pace may be made up for at once, and is sent at once: timers are late.
const BURST: Duration = Duration::from_millis(4);
const QUANTUM: Duration = Duration::from_millis(1);
/// How long that rate is remembered.
const CEILING_WINDOW: Duration = Duration::from_secs(30);
/// Rounds with a long queue though we had next to nothing in it, before it counts as made by others.
const FOREIGN_ROUNDS: u32 = 4;
/// Rounds with too long a queue before the rate is believed to have fallen.
const LATE_ROUNDS: u32 = 2;

#[derive(Debug)]
pub(crate) struct Steering {
    /// Least one-way delays of the last two windows in microseconds. The clocks of two hosts are compared, so that only
    /// differences of these mean anything.
    base: [Option<i64>; 2],
    base_since: Option<Instant>,
    /// The queue is let run empty until then, so that the base is seen again.
    drain_until: Option<Instant>,
    /// Least queue and least round trip beside it, in this round.
    queue: Option<Duration>,
    reach: Option<Duration>,
    /// The round trip without our queue in the last round.
    last_reach: Duration,
    /// Rounds in which next to nothing queued, up to the last one.
    empty_rounds: u32,
    /// Bytes that a report told of on average, in the last round and before: they are there, and we do not know yet.
    report: u64,
    /// Reports of this round, and their bytes.
    reports: (u64, u64),
    late_rounds: u32,
    /// When the pace next allows any.
    due: Instant,
    /// Highest rates of the last two windows, in bytes a second.
    ceiling: [u64; 2],
    ceiling_since: Option<Instant>,
    /// Rounds that were late although the window was at its least.
    foreign_rounds: u32,
}

impl Default for Steering {
    fn default() -> Self {
        Self {
            base: [None; 2],
            base_since: None,
            drain_until: None,
            queue: None,
            reach: None,
            last_reach: Duration::ZERO,
            empty_rounds: 0,
            report: 0,
            reports: (0, 0),
            late_rounds: 0,
            due: Instant(0),
            ceiling: [0; 2],
            ceiling_since: None,
            foreign_rounds: 0,
        }
    }
}

impl Steering {
    /// `bytes` were reported; the last of them were sent at `sent` and arrived at `clock` (the peer's, in microseconds).
    /// The way there and back took `rtt`.
    pub(crate) fn sample(&mut self, now: Instant, sent: Instant, clock: u64, rtt: Duration, bytes: u64) {
        self.reports = (self.reports.0 + 1, self.reports.1 + bytes);
        let delay = clock.cast_signed().wrapping_sub((sent.0 / 1000).cast_signed());
        let since = *self.base_since.get_or_insert(now);
        if now.since(since) > BASE_WINDOW {
            self.base = [None, self.base[0]];
            self.base_since = Some(now);
            self.drain_until = Some(now + rtt);
        }
        self.base[0] = Some(self.base[0].map_or(delay, |least| least.min(delay)));
        let base = self.base.iter().flatten().min().copied().unwrap_or(delay);
        let queue = Duration::from_micros(delay.wrapping_sub(base).cast_unsigned());
        let reach = rtt.saturating_sub(queue);
        self.queue = Some(self.queue.map_or(queue, |least| least.min(queue)));
        self.reach = Some(self.reach.map_or(reach, |least| least.min(reach)));
    }

    /// A round of measurement ended. `queue` is what there may be of it, as time.
    pub(crate) fn end_round(&mut self, now: Instant, estimate: &mut Estimate, queue: Duration) {
        let found = self.queue.take().unwrap_or_default();
        self.last_reach = self.reach.take().unwrap_or_default();
        let (reports, bytes) = core::mem::take(&mut self.reports);
        self.report = self.report.midpoint(bytes / reports.max(1));
        let Some(rate) = estimate.rate() else { return };
        self.note_ceiling(now, rate);
        let target = target(rate, queue);
        // Not by the target: packets of many slow senders are a long queue for all of them.
        self.empty_rounds = if found < queue / 2 { self.empty_rounds.saturating_add(1) } else { 0 };
        if found > target {
            estimate.started();
        }
        if found <= target * 3 / 2 {
            (self.late_rounds, self.foreign_rounds) = (0, 0);
            return;
        }
        self.late_rounds += 1;
        if self.steered(estimate, queue) <= PACKETS * PACKET {
            self.foreign_rounds += 1;
        }
        if self.late_rounds >= LATE_ROUNDS {
            self.late_rounds = 0;
            estimate.slow_down();
        }
    }

    fn note_ceiling(&mut self, now: Instant, rate: u64) {
        let since = *self.ceiling_since.get_or_insert(now);
        if now.since(since) > CEILING_WINDOW {
            self.ceiling = [0, self.ceiling[0]];
            self.ceiling_since = Some(now);
        }
        self.ceiling[0] = self.ceiling[0].max(rate);
    }

    /// Bulk of this many bytes leaves; `limit` is what an arbiter allows it.
    pub(crate) fn sent(&mut self, now: Instant, estimate: &Estimate, bytes: u64, limit: Option<Allotment>) {
        if let Some(pace) = pace(estimate, limit) {
            let earliest = Instant(now.0.saturating_sub(nanos(BURST)));
            self.due = self.due.max(earliest) + time_of(bytes, pace);
        }
    }

    /// When the pace next allows any.
    pub(crate) const fn due(&self) -> Instant {
        self.due
    }

    /// How many bytes of bulk the pace allows now.
    pub(crate) fn allowance(&self, now: Instant, estimate: &Estimate, limit: Option<Allotment>) -> u64 {
        match pace(estimate, limit) {
            None => u64::MAX,
            Some(_) if self.due > now => 0,
            Some(pace) => bytes_in(pace, now.since(self.due).min(BURST) + QUANTUM).max(PACKET),
        }
    }

    /// How many bytes of bulk may be in flight; `queue` is the time that they may wait in the network.
    pub(crate) fn window(&self, now: Instant, estimate: &Estimate, queue: Duration) -> u64 {
        let window = self.drained(now, self.steered(estimate, queue));
        // What others queue we cannot drain: holding back then helps nobody.
        let share = if self.foreign_rounds >= FOREIGN_ROUNDS {
            bytes_in(self.ceiling[0].max(self.ceiling[1]) / FOREIGN_SHARE, estimate.rtt_or_guess())
        } else {
            0
        };
        window.max(share).max(PACKETS * PACKET)
    }

    /// How many bytes of background may be in flight by what an arbiter allows. The rate is a part of the path's, and so
    /// the round trip is that of the path.
    pub(crate) fn allotted(&self, now: Instant, estimate: &Estimate, limit: Allotment) -> u64 {
        let reach = estimate.least_rtt().max(self.last_reach);
        let window = bytes_in(limit.rate, reach).saturating_add(limit.queue).saturating_add(self.report / 2);
        self.drained(now, window)
    }

    /// For how many rounds next to nothing has queued.
    pub(crate) const fn empty_rounds(&self) -> u32 {
        self.empty_rounds
    }

    fn drained(&self, now: Instant, window: u64) -> u64 {
        let draining = self.drain_until.is_some_and(|until| now < until);
        if draining { window / 2 } else { window }
    }

    /// The queue is let run empty for a round trip, so that all who share it see the way without it.
    pub(crate) fn drain(&mut self, now: Instant, rtt: Duration) {
        self.drain_until = Some(now + rtt);
        // They all look at once, so that nobody has to do so alone.
        if self.base_since.is_some_and(|since| now.since(since) > BASE_WINDOW / 2) {
            self.base = [None, self.base[0]];
            self.base_since = Some(now);
        }
    }

    fn steered(&self, estimate: &Estimate, queue: Duration) -> u64 {
        let Some(rate) = estimate.rate() else { return FIRST_WINDOW };
        let reach = estimate.least_rtt().max(self.last_reach);
        let held = if estimate.is_starting() { reach * 2 } else { reach } + target(rate, queue);
        bytes_in(rate, held) + self.report / 2
    }
}

fn pace(estimate: &Estimate, limit: Option<Allotment>) -> Option<u64> {
    let rate = estimate.rate()?;
    let pace = rate * if estimate.is_starting() { 2 * PACE } else { PACE } / 10;
    let most = limit.map_or(u64::MAX, |limit| limit.rate.saturating_mul(LIMITED_PACE) / 10);
    Some(pace.min(most).max(PACKET))
}

/// How long bytes may queue at a rate: `queue`, but at least some packets.
fn target(rate: u64, queue: Duration) -> Duration {
    queue.max(time_of(PACKETS * PACKET, rate))
}
