//! What became of calls, and how long they took.

use std::collections::BTreeMap;
use std::time::Duration;

use steadfast::homa::{Outcome, Reason, Silence};
use steadfast_fabric::workload::Rng;

/// Times that are kept; of more, as many by chance.
const KEPT: usize = 4_000_000;

/// A call that was answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Bytes of the request.
    pub(super) length: u32,
    pub(super) microseconds: f32,
}

#[derive(Debug)]
pub(super) struct Tally {
    samples: Vec<Sample>,
    rng: Rng,
    pub(super) delivered: u64,
    pub(super) dropped: u64,
    pub(super) unknown: u64,
    /// Answers that were not what was sent.
    pub(super) changed: u64,
    /// Bytes of requests and responses that were delivered.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Why there was no answer, and how often.
    pub(super) reasons: BTreeMap<String, u64>,
    /// Whether all that failed did so because nobody was there.
    deaf: bool,
    /// Calls without an answer since the last one.
    failed_in_a_row: u64,
    /// The longest that a request was sent after it was due.
    pub(super) lag: Duration,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            samples: Vec::new(),
            rng: Rng::new(1),
            delivered: 0,
            dropped: 0,
            unknown: 0,
            changed: 0,
            sent: 0,
            received: 0,
            reasons: BTreeMap::new(),
            deaf: true,
            failed_in_a_row: 0,
            lag: Duration::ZERO,
        }
    }

    /// A call was answered.
    pub(super) fn answered(&mut self, length: u32, response: usize, time: Duration) {
        self.delivered += 1;
        self.failed_in_a_row = 0;
        self.sent += u64::from(length);
        self.received += response as u64;
        self.keep(Sample { length, microseconds: time.as_secs_f32() * 1e6 });
    }

    fn keep(&mut self, sample: Sample) {
        if self.samples.len() < KEPT {
            return self.samples.push(sample);
        }
        let place = self.rng.below(self.delivered) as usize;
        if let Some(kept) = self.samples.get_mut(place) {
            *kept = sample;
        }
    }

    /// A call was not answered.
    pub(super) fn failed(&mut self, outcome: Outcome) {
        let (count, reason) = match outcome {
            Outcome::Dropped(reason) => (&mut self.dropped, reason),
            Outcome::Unknown(reason) => (&mut self.unknown, reason),
            Outcome::Delivered => return,
        };
        *count += 1;
        self.failed_in_a_row += 1;
        self.deaf &= matches!(reason, Reason::Timeout | Reason::Unreachable | Reason::Deadline);
        *self.reasons.entry(Silence::Transport(reason).to_string()).or_insert(0) += 1;
    }

    /// Calls that have ended.
    pub(super) const fn calls(&self) -> u64 {
        self.delivered + self.dropped + self.unknown
    }

    /// Whether so many calls failed one after the other, and none before.
    pub(super) const fn is_hopeless(&self, calls: u64) -> bool {
        self.delivered == 0 && self.failed_in_a_row >= calls
    }

    /// Whether nobody was there.
    pub(super) const fn is_deaf(&self) -> bool {
        self.delivered == 0 && self.deaf
    }

    /// Whether every call was answered, and rightly.
    pub(super) const fn is_good(&self) -> bool {
        self.delivered > 0 && self.dropped == 0 && self.unknown == 0 && self.changed == 0
    }

    /// The same with what another one saw.
    pub(super) fn merge(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.dropped += other.dropped;
        self.unknown += other.unknown;
        self.changed += other.changed;
        self.sent += other.sent;
        self.received += other.received;
        self.deaf &= other.deaf;
        self.lag = self.lag.max(other.lag);
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_insert(0) += count;
        }
        // Each kept as many of its own as fit; chance already chose among them.
        self.samples.extend(other.samples);
    }

    pub(super) fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Times of all calls.
    pub(super) fn times(&self) -> Option<Times> {
        Times::of(&self.samples)
    }

    /// Times of about as many calls each, by length: to which length, and the times.
    pub(super) fn by_length(&self, bins: usize) -> Vec<(u32, Times)> {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable_by_key(|sample| sample.length);
        let (mut found, mut rest) = (Vec::new(), &sorted[..]);
        let share = sorted.len().div_ceil(bins.max(1));
        while !rest.is_empty() {
            let to = rest[share.min(rest.len()) - 1].length;
            let (bin, longer) = rest.split_at(rest.partition_point(|sample| sample.length <= to));
            found.extend(Times::of(bin).map(|times| (to, times)));
            rest = longer;
        }
        found
    }
}

/// Microseconds that calls took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Times {
    pub(super) count: usize,
    pub(super) p50: f32,
    pub(super) p99: f32,
    pub(super) p999: f32,
    pub(super) most: f32,
}

impl Times {
    /// None without a sample. Percentiles are the least that so many do not exceed (nearest rank).
    fn of(samples: &[Sample]) -> Option<Self> {
        let mut times: Vec<f32> = samples.iter().map(|sample| sample.microseconds).collect();
        times.sort_unstable_by(f32::total_cmp);
        let most = *times.last()?;
        let at = |thousandth: usize| times[(times.len() * thousandth).div_ceil(1000).max(1) - 1];
        Some(Self { count: times.len(), p50: at(500), p99: at(990), p999: at(999), most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(tally: &mut Tally, length: u32, microseconds: u64) {
        tally.answered(length, length as usize, Duration::from_micros(microseconds));
    }

    #[test]
    fn times_by_length() {
        let mut tally = Tally::new();
        for length in 1..=100 {
            took(&mut tally, length, u64::from(length) * 10);
        }
        let all = tally.times().unwrap();
        assert_eq!(
            (all.count, all.p50.round(), all.p99.round(), all.most.round()),
            (100, 500.0, 990.0, 1000.0)
        );
        let bins = tally.by_length(4);
        assert_eq!(
            bins.iter().map(|(to, times)| (*to, times.count)).collect::<Vec<_>>(),
            [(25, 25), (50, 25), (75, 25), (100, 25)]
        );
        // What has one length is in one row.
        let mut alike = Tally::new();
        (0..50).for_each(|_| took(&mut alike, 8, 1));
        assert_eq!(alike.by_length(10).len(), 1);
        assert!(Tally::new().by_length(10).is_empty() && Tally::new().times().is_none());
    }

    #[test]
    fn outcomes_are_told_apart() {
        let mut tally = Tally::new();
        tally.failed(Outcome::Unknown(Reason::Timeout));
        tally.failed(Outcome::Unknown(Reason::Timeout));
        assert!(tally.is_deaf() && tally.is_hopeless(2) && !tally.is_hopeless(3));
        tally.failed(Outcome::Dropped(Reason::TooLong));
        assert!(!tally.is_deaf(), "somebody was there");
        took(&mut tally, 8, 1);
        assert!(!tally.is_hopeless(1) && !tally.is_good());
        assert_eq!((tally.unknown, tally.dropped, tally.delivered, tally.calls()), (2, 1, 1, 4));
        assert_eq!(tally.reasons.values().sum::<u64>(), 3);
        let mut all = Tally::new();
        took(&mut all, 8, 1);
        assert!(all.is_good());
        all.merge(tally);
        assert_eq!((all.calls(), all.samples().len(), all.is_good()), (5, 2, false));
    }
}
