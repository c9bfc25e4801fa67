//! Which level an unscheduled message gets, by its length: computed from what arrives, so that each level carries the same
//! number of bytes.

use crate::config::{ANY_LENGTH, Config};
use crate::packet::PRIORITIES;
use alloc::boxed::Box;
use steadfast_wire::Instant;

/// Steps of 64 bytes to here, then of 1 KiB.
const FINE: usize = 4096;
const FINE_STEP: usize = 64;
const COARSE_STEP: usize = 1024;
const FINE_BUCKETS: usize = FINE / FINE_STEP;
/// The last bucket has all that is longer than about a megabyte.
const BUCKETS: usize = FINE_BUCKETS + 1024;

/// How levels are divided, as a receiver decides and tells its senders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Levels {
    pub(crate) cutoffs: [u32; PRIORITIES],
    /// The highest level of granted bytes.
    pub(crate) scheduled: u8,
}

impl Levels {
    /// `priorities` levels are in use.
    pub(crate) fn new(mut cutoffs: [u32; PRIORITIES], priorities: u8) -> Self {
        cutoffs[usize::from(priorities)..].fill(0);
        // Every length has a level.
        cutoffs[0] = ANY_LENGTH;
        let lowest = (1..usize::from(priorities)).find(|level| cutoffs[*level] > 0);
        Self { cutoffs, scheduled: lowest.map_or(0, |level| level as u8 - 1) }
    }

    /// Before a receiver was heard of: all at the second highest level.
    pub(crate) fn unheard(priorities: u8) -> Self {
        let mut cutoffs = [0; PRIORITIES];
        cutoffs[usize::from(priorities.saturating_sub(2))] = ANY_LENGTH;
        Self { cutoffs, scheduled: 0 }
    }

    /// The level of an unscheduled message: the highest whose cut-off it does not exceed.
    pub(crate) fn level_of(cutoffs: &[u32; PRIORITIES], length: u32) -> u8 {
        (0..PRIORITIES as u8).rev().find(|level| cutoffs[usize::from(*level)] >= length).unwrap_or(0)
    }
}

/// The lengths of messages that arrive.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Unscheduled bytes of messages by their length.
    unscheduled: Box<[u64; BUCKETS]>,
    messages: u64,
    all: u64,
    since: Option<Instant>,
    sample: u32,
}

impl Traffic {
    pub(crate) fn new() -> Self {
        Self { unscheduled: Box::new([0; BUCKETS]), messages: 0, all: 0, since: None, sample: 0 }
    }

    fn bucket(length: u32) -> usize {
        let at = (length as usize).saturating_sub(1);
        let index = if at < FINE { at / FINE_STEP } else { FINE_BUCKETS + (at - FINE) / COARSE_STEP };
        index.min(BUCKETS - 1)
    }

    /// The longest message of a bucket.
    fn longest(bucket: usize) -> u32 {
        let longest = match bucket.checked_sub(FINE_BUCKETS) {
            None => (bucket + 1) * FINE_STEP,
            Some(_) if bucket == BUCKETS - 1 => ANY_LENGTH as usize,
            Some(coarse) => FINE + (coarse + 1) * COARSE_STEP,
        };
        longest as u32
    }

    /// Which sample it is: peers are counted anew in each.
    pub(crate) const fn sample(&self) -> u32 {
        self.sample
    }

    /// A message of `length` has arrived, of which `unscheduled` bytes came unasked.
    pub(crate) fn count(&mut self, length: u32, unscheduled: u32) {
        self.unscheduled[Self::bucket(length)] += u64::from(unscheduled.min(length));
        self.all += u64::from(length);
        self.messages += 1;
    }

    /// A message has arrived of a peer that has its part of the sample.
    pub(crate) const fn count_beyond(&mut self) {
        self.messages += 1;
    }

    /// New levels, if it is time for them and enough was seen.
    pub(crate) fn levels(&mut self, now: Instant, config: &Config) -> Option<Levels> {
        let since = *self.since.get_or_insert(now);
        if now < since + config.cutoff_interval || self.messages < config.cutoff_messages {
            return None;
        }
        let levels = self.divide(config.priorities);
        *self = Self { since: Some(now), sample: self.sample.wrapping_add(1), ..Self::new() };
        Some(levels)
    }

    /// As many levels for unscheduled bytes as their share of all bytes, one at least and one left for granted bytes, and
    /// the same number of unscheduled bytes in each.
    fn divide(&self, priorities: u8) -> Levels {
        let unscheduled: u64 = self.unscheduled.iter().sum();
        let priorities = u64::from(priorities);
        let count = (priorities * unscheduled + self.all / 2) / self.all.max(1);
        let count = count.clamp(1, (priorities - 1).max(1));
        let mut cutoffs = [0; PRIORITIES];
        let (mut level, mut seen, mut cut) = (priorities - 1, 0, 1);
        let lowest = priorities - count;
        for (bucket, bytes) in self.unscheduled.iter().enumerate() {
            seen += bytes;
            if level > lowest && seen * count >= unscheduled * cut {
                cutoffs[level as usize] = Self::longest(bucket);
                level -= 1;
                // One bucket may hold more than one share.
                cut = (seen * count / unscheduled.max(1) + 1).max(cut + 1);
            }
        }
        cutoffs[level as usize] = ANY_LENGTH;
        Levels::new(cutoffs, priorities as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    fn divided(messages: &[(u32, u64)]) -> Levels {
        let mut traffic = Traffic::new();
        for (length, count) in messages {
            for _ in 0..*count {
                traffic.count(*length, 40_000);
            }
        }
        traffic.divide(8)
    }

    #[test]
    fn the_modules_cutoffs_leave_four_levels_for_granted_bytes() {
        let config = Config::default();
        let levels = Levels::new(config.cutoffs, config.priorities);
        assert_eq!(levels.scheduled, 3);
        let level = |length| Levels::level_of(&levels.cutoffs, length);
        assert_eq!([1, 200, 201, 2800, 2801, 15_000, 15_001, 1_000_000].map(level), [7, 7, 6, 6, 5, 5, 4, 4]);
    }

    #[test]
    fn before_a_receiver_was_heard_all_goes_at_the_second_level() {
        let levels = Levels::unheard(8);
        assert_eq!([1, 1000, 1_000_000].map(|length| Levels::level_of(&levels.cutoffs, length)), [6, 6, 6]);
    }

    #[test]
    fn short_messages_alone_take_all_levels_but_one() {
        let messages: std::vec::Vec<_> = (1..100).map(|step| (step * 100, 10)).collect();
        let levels = divided(&messages);
        assert_eq!(levels.scheduled, 0, "{levels:?}");
        assert_eq!(Levels::level_of(&levels.cutoffs, 100), 7);
        assert!(Levels::level_of(&levels.cutoffs, 8192) < Levels::level_of(&levels.cutoffs, 1024));
    }

    #[test]
    fn long_messages_leave_one_level_to_unscheduled_bytes() {
        let levels = divided(&[(1_000_000, 1000), (100, 10)]);
        assert_eq!(levels.scheduled, 6);
        assert_eq!(levels.cutoffs[7], ANY_LENGTH);
    }

    #[test]
    fn each_level_gets_the_same_number_of_unscheduled_bytes() {
        // Four in nine bytes are unscheduled, in four equal parts.
        let levels = divided(&[(100, 6000), (1000, 600), (10_000, 60), (40_000, 12), (1_000_000, 3)]);
        let level = |length| Levels::level_of(&levels.cutoffs, length);
        assert_eq!(levels.scheduled, 3, "{levels:?}");
        assert!(level(100) > level(1000) && level(1000) > level(10_000) && level(10_000) > level(40_000));
    }

    #[test]
    fn one_level_is_enough_and_two_are_shared() {
        let mut traffic = Traffic::new();
        traffic.count(100, 40_000);
        assert_eq!(traffic.divide(1).cutoffs[0], ANY_LENGTH);
        let levels = traffic.divide(2);
        assert_eq!((levels.scheduled, levels.cutoffs[1]), (0, ANY_LENGTH));
    }

    #[test]
    fn few_messages_change_nothing() {
        let config = Config { cutoff_messages: 3, ..Config::default() };
        let mut traffic = Traffic::new();
        let start = Instant(0);
        assert_eq!(traffic.levels(start, &config), None);
        let later = start + Duration::from_secs(2);
        for _ in 0..2 {
            traffic.count(100, 100);
            assert_eq!(traffic.levels(later, &config), None);
        }
        traffic.count(100, 100);
        assert_eq!(traffic.levels(start, &config), None, "not yet time");
        assert!(traffic.levels(later, &config).is_some());
        assert_eq!(traffic.levels(later, &config), None, "counted anew");
    }
}
