//! Which events of other hosts were here already.

use crate::event::EventId;
use crate::limit::{Bucket, Rate};
use alloc::collections::BTreeMap;
use steadfast_wire::{Fingerprint, Incarnation, Instant, RangeSet, varint};

/// The most ranges that are remembered of a run. Beyond, the lowest hole counts as seen: an event that late is lost, and none
/// comes twice.
const MAX_RANGES: usize = 64;

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    New,
    Again,
    TooFast,
}

#[derive(Debug, Default)]
struct Run {
    sequences: RangeSet,
    bucket: Bucket,
    used: u64,
}

/// Runs of agents elsewhere. The one that was silent longest is forgotten for a new one.
#[derive(Debug, Default)]
pub(super) struct Origins {
    runs: BTreeMap<(Fingerprint, Incarnation), Run>,
    clock: u64,
}

impl Origins {
    pub(super) fn handle(&mut self, now: Instant, id: EventId, rate: Rate, max_runs: usize) -> Seen {
        debug_assert!(id.sequence <= varint::MAX);
        self.clock += 1;
        let key = (id.origin, id.incarnation);
        if !self.runs.contains_key(&key) && self.runs.len() >= max_runs.max(1) {
            let oldest = self.runs.iter().min_by_key(|(_, run)| run.used).map(|(key, _)| *key);
            oldest.map(|key| self.runs.remove(&key));
        }
        let run = self.runs.entry(key).or_default();
        run.used = self.clock;
        if run.sequences.contains(id.sequence) {
            return Seen::Again;
        }
        if run.bucket.check(now, rate).is_err() {
            return Seen::TooFast;
        }
        run.bucket.take(now, rate);
        run.sequences.insert_one(id.sequence);
        if run.sequences.ranges() > MAX_RANGES {
            let mut lowest = run.sequences.iter();
            if let (Some(first), Some(second)) = (lowest.next(), lowest.next()) {
                drop(lowest);
                run.sequences.insert(first.end..second.start);
            }
        }
        Seen::New
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(origin: u8, incarnation: u64, sequence: u64) -> EventId {
        EventId { origin: Fingerprint([origin; 32]), incarnation: Incarnation(incarnation), sequence }
    }

    #[test]
    fn each_once_in_any_order() {
        let mut origins = Origins::default();
        let mut take = |id| origins.handle(Instant(1), id, Rate::UNLIMITED, 8);
        for sequence in [5, 3, 4, 1] {
            assert_eq!(take(id(1, 1, sequence)), Seen::New);
            assert_eq!(take(id(1, 1, sequence)), Seen::Again);
        }
        assert_eq!(take(id(1, 2, 5)), Seen::New, "another run");
        assert_eq!(take(id(2, 1, 5)), Seen::New, "another host");
        // Holes without end: bounded, and nothing comes twice.
        for sequence in 0..1000 {
            assert_eq!(take(id(3, 1, 2 * sequence + 1)), Seen::New);
        }
        assert!((0..1000).all(|sequence| take(id(3, 1, 2 * sequence + 1)) == Seen::Again));
        assert_eq!((take(id(3, 1, 10)), take(id(3, 1, 1990))), (Seen::Again, Seen::New));
        assert!(origins.runs.values().all(|run| run.sequences.ranges() <= MAX_RANGES));
    }

    #[test]
    fn the_silent_one_is_forgotten() {
        let mut origins = Origins::default();
        for origin in [1, 2, 3, 1, 4] {
            origins.handle(Instant(1), id(origin, 1, u64::from(origin)), Rate::UNLIMITED, 3);
        }
        assert_eq!(origins.len(), 3);
        assert_eq!(origins.handle(Instant(1), id(1, 1, 1), Rate::UNLIMITED, 3), Seen::Again);
        assert_eq!(origins.handle(Instant(1), id(2, 1, 2), Rate::UNLIMITED, 3), Seen::New);
    }

    #[test]
    fn a_flood_is_held_back_and_may_come_again() {
        let rate = Rate { per_second: 1, burst: 2 };
        let mut origins = Origins::default();
        let mut take = |now, sequence| origins.handle(Instant(now), id(1, 1, sequence), rate, 8);
        assert_eq!(
            [take(1, 1), take(1, 2), take(1, 3), take(1, 2)],
            [Seen::New, Seen::New, Seen::TooFast, Seen::Again]
        );
        assert_eq!(take(1_000_000_002, 3), Seen::New);
    }
}
