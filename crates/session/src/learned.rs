//! What was learned of a pair of networks, for the next path between them.

use crate::estimate::Estimate;
use alloc::collections::BTreeMap;
use alloc::string::String;
use core::time::Duration;
use steadfast_wire::{Fingerprint, Instant};

/// How many pairs are remembered; the one heard of longest ago goes first.
const MAX_PAIRS: usize = 256;
/// How long: a network that has the same name tomorrow is perhaps another one.
const KEPT: Duration = Duration::from_secs(600);

/// Two networks by their names, and whose the second one is.
pub(crate) type Pair = (String, Fingerprint, String);

#[derive(Debug, Default)]
pub(crate) struct Learned(BTreeMap<Pair, Lesson>);

#[derive(Debug, Clone, Copy)]
struct Lesson {
    rtt: Duration,
    rate: Option<u64>,
    at: Instant,
}

impl Learned {
    /// A path between these networks is over.
    pub(crate) fn note(&mut self, now: Instant, pair: Pair, estimate: &Estimate) {
        let Some(rtt) = estimate.rtt() else { return };
        let before = self.0.get(&pair).and_then(|lesson| lesson.rate);
        let lesson = Lesson { rtt: rtt.min(estimate.least_rtt()), rate: estimate.rate().or(before), at: now };
        self.0.insert(pair, lesson);
        while self.0.len() > MAX_PAIRS
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, lesson)| lesson.at).map(|(pair, _)| pair.clone())
        {
            self.0.remove(&oldest);
        }
    }

    /// A path between these networks begins: it is expected to be like the last one.
    pub(crate) fn teach(&self, now: Instant, pair: &Pair, estimate: &mut Estimate) {
        if let Some(lesson) = self.0.get(pair).filter(|lesson| now.since(lesson.at) < KEPT) {
            estimate.expect(lesson.rtt, lesson.rate);
        }
    }
}
