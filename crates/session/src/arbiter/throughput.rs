//! What several processes moved together: each tells of a time of its own, and their sum means something only for a time
//! that all of them have told of.

use crate::estimate::bytes_in;
use core::time::Duration;
use steadfast_wire::Instant;
use steadfast_wire::time::nanos;

/// What is counted together, and how much of it is looked back on: longer than a process may be silent.
const SLOT: Duration = Duration::from_millis(50);
const SLOTS: usize = 16;
/// How long the most is believed at least, and twice as long at most.
const MEMORY: Duration = Duration::from_secs(1);

/// What is not worth dividing, in bytes a second: a network that carries nothing may carry more the next moment.
const NOTHING: u64 = 16 * 1024;

#[derive(Debug)]
pub(super) struct Throughput {
    /// From then on it is known.
    known_from: u64,
    /// Bytes of each slot of time, at its number modulo [`SLOTS`].
    slots: [u64; SLOTS],
    /// The slots up to this one, without it, are empty or in `slots`; those before `settled` are in the peaks.
    next: u64,
    settled: u64,
    /// The most in the last two times of [`MEMORY`], in bytes a second.
    peaks: [u64; 2],
    peaks_since: Instant,
}

fn slot_of(at: Instant) -> u64 {
    at.0 / nanos(SLOT)
}

impl Throughput {
    pub(super) fn new(now: Instant) -> Self {
        let next = slot_of(now);
        Self { known_from: next + 4, slots: [0; SLOTS], next, settled: next, peaks: [0; 2], peaks_since: now }
    }

    /// Somebody moved so many bytes a second from `from` until `now`.
    pub(super) fn add(&mut self, from: Instant, now: Instant, rate: u64) {
        let last = slot_of(now);
        let oldest = (last + 1).saturating_sub(SLOTS as u64);
        for slot in self.next.max(oldest)..=last {
            self.slots[slot as usize % SLOTS] = 0;
        }
        self.next = self.next.max(last + 1);
        self.settled = self.settled.max(oldest);
        for slot in slot_of(from).max(oldest)..=last {
            let begin = Instant(slot * nanos(SLOT));
            let part = now.min(begin + SLOT).since(begin.max(from));
            let bytes = &mut self.slots[slot as usize % SLOTS];
            *bytes = bytes.saturating_add(bytes_in(rate, part));
        }
    }

    /// Everybody has told what was until `known`.
    pub(super) fn settle(&mut self, now: Instant, known: Instant) {
        if now.since(self.peaks_since) >= MEMORY {
            self.peaks = [0, self.peaks[0]];
            self.peaks_since = now;
        }
        while self.settled < slot_of(known).min(self.next) {
            let at = self.settled as usize;
            // Two at a time: what is reported once in that time comes in steps.
            let bytes = self.slots[at % SLOTS].saturating_add(self.slots[(at + SLOTS - 1) % SLOTS]);
            let rate = u128::from(bytes) * 1_000_000_000 / (2 * u128::from(nanos(SLOT)));
            self.peaks[0] = self.peaks[0].max(u64::try_from(rate).unwrap_or(u64::MAX));
            self.settled += 1;
        }
    }

    /// The most that they moved in a tenth of a second of late, in bytes a second, if that tells what they can.
    pub(super) fn most(&self) -> Option<u64> {
        let most = self.peaks[0].max(self.peaks[1]);
        (self.settled >= self.known_from && most >= NOTHING).then_some(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_takes_over_from_another_is_not_counted_twice() {
        let ms = |ms: u64| Instant(ms * 1_000_000);
        let mut carried = Throughput::new(ms(0));
        // One moves 1,000,000 bytes a second until it stops at 1,000 ms, another one from then on. They tell of it at
        // different times.
        for tenth in 0..20 {
            let (one, other) = (ms(100 * tenth + 100), ms(100 * tenth + 160));
            carried.add(ms(100 * tenth), one, if tenth < 10 { 1_000_000 } else { 0 });
            // It reports of 60 to 160 ms: 40 of them before it began.
            let began = match tenth {
                0..9 => 0,
                9 => 600_000,
                _ => 1_000_000,
            };
            carried.add(ms((100 * tenth + 60) * u64::from(tenth > 0)), other, began);
            carried.settle(other, one);
        }
        let most = carried.most().unwrap();
        assert!((950_000..=1_300_000).contains(&most), "{most}");
    }

    #[test]
    fn a_peak_is_forgotten_and_a_gap_is_nothing() {
        let second = Duration::from_secs(1);
        let mut carried = Throughput::new(Instant(0));
        assert_eq!(carried.most(), None);
        carried.add(Instant(0), Instant(0) + second, 50_000);
        carried.settle(Instant(0) + second, Instant(0) + second);
        assert_eq!(carried.most(), Some(50_000));
        for at in 10..13 {
            let now = Instant(0) + second * at;
            carried.add(now - Duration::from_millis(100), now, 10);
            carried.settle(now, now);
        }
        assert_eq!(carried.most(), None);
        // A clock that leaps takes no time to follow.
        carried.add(Instant(0), Instant::FAR_FUTURE - second, u64::MAX);
        carried.settle(Instant::FAR_FUTURE - second, Instant::FAR_FUTURE - second);
        assert!(carried.most().is_some());
    }
}
