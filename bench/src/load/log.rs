//! What a side notes while it runs, and what the conductor reads out of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Report;
use crate::child::tell;
use crate::spread::Spread;
use crate::usage::{Nanos, now};

/// How often the newest answer is reported.
const PROGRESS: Nanos = 20_000_000;
/// Bulk is noted together that arrives within so much time.
const GRAIN: Nanos = 5_000_000;

/// One small message.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Exchange {
    pub(crate) sent: Nanos,
    /// When the first answer came.
    pub(crate) answered: Option<Nanos>,
    /// How many came.
    pub(crate) answers: u32,
}

impl Exchange {
    /// From the message to its answer, in milliseconds.
    pub(crate) fn millis(&self) -> Option<f64> {
        self.answered.map(|answered| (answered - self.sent) as f64 / 1e6)
    }
}

/// What a side found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) exchanges: Vec<Exchange>,
    /// Bulk that arrived: until when, and how many bytes by then.
    arrived: Vec<(Nanos, u64)>,
    /// Bulk messages that the other side acknowledged.
    pub(crate) bulk_done: u64,
    /// When a path was suspected, and over which network it led; of Steadfast.
    pub(crate) suspicions: Vec<(Nanos, String)>,
    /// Payload that was sent for the first time, and again; of Steadfast.
    pub(crate) payload: [u64; 2],
    /// Since the networks were in use.
    pub(crate) cpu_seconds: f64,
}

impl Found {
    /// The times from message to answer of what was sent in this span, in milliseconds; one without an answer counts
    /// as `unanswered`.
    pub(crate) fn millis(&self, from: Nanos, until: Nanos, unanswered: Duration) -> Option<Spread> {
        let sent = self.exchanges.iter().filter(|exchange| (from..until).contains(&exchange.sent));
        Spread::of(sent.map(|exchange| exchange.millis().unwrap_or(unanswered.as_secs_f64() * 1e3)))
    }

    /// Messages without an answer.
    pub(crate) fn lost(&self) -> usize {
        self.exchanges.iter().filter(|exchange| exchange.answers == 0).count()
    }

    /// Answers beyond the first.
    pub(crate) fn duplicated(&self) -> u64 {
        self.exchanges.iter().map(|exchange| u64::from(exchange.answers.saturating_sub(1))).sum()
    }

    /// The longest time between two first answers.
    pub(crate) fn longest_gap(&self) -> Nanos {
        let mut answered: Vec<_> = self.exchanges.iter().filter_map(|exchange| exchange.answered).collect();
        answered.sort_unstable();
        answered.windows(2).map(|two| two[1] - two[0]).max().unwrap_or(0)
    }

    /// The longest time from a message to its answer.
    pub(crate) fn longest_wait(&self) -> Nanos {
        let waits = self.exchanges.iter().filter_map(|exchange| Some(exchange.answered? - exchange.sent));
        waits.max().unwrap_or(0)
    }

    /// Bulk that arrived in this span, in megabits a second.
    pub(crate) fn mbit(&self, from: Nanos, until: Nanos) -> f64 {
        let by = |time: Nanos| {
            let after = self.arrived.partition_point(|(until, _)| *until <= time);
            after.checked_sub(1).map_or(0, |last| self.arrived[last].1)
        };
        (by(until) - by(from)) as f64 * 8e3 / (until - from).max(1) as f64
    }
}

/// What is noted; clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<Mutex<(Found, Nanos)>>);

impl Log {
    fn open(&self) -> MutexGuard<'_, (Found, Nanos)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message goes out: its number.
    pub(super) fn sent(&self) -> u64 {
        let exchanges = &mut self.open().0.exchanges;
        exchanges.push(Exchange { sent: now(), answered: None, answers: 0 });
        exchanges.len() as u64 - 1
    }

    /// An answer came; others than to what was sent are passed over.
    pub(super) fn answered(&self, number: u64) {
        let time = now();
        let (found, told) = &mut *self.open();
        let exchange = usize::try_from(number).ok().and_then(|number| found.exchanges.get_mut(number));
        let Some(exchange) = exchange else { return };
        exchange.answers += 1;
        exchange.answered.get_or_insert(time);
        if time - *told > PROGRESS {
            *told = time;
            tell(&Report::Answered(exchange.sent));
        }
    }

    /// Bulk came.
    pub(super) fn arrived(&self, bytes: usize) {
        let time = now();
        let arrived = &mut self.open().0.arrived;
        let before = arrived.last().map_or(0, |(_, bytes)| *bytes);
        let begin = arrived.len().checked_sub(2).map_or(0, |last| arrived[last].0);
        match arrived.last_mut() {
            Some(last) if time - begin < GRAIN => *last = (time, before + bytes as u64),
            _ => arrived.push((time, before + bytes as u64)),
        }
    }

    pub(super) fn bulk_done(&self) {
        self.open().0.bulk_done += 1;
    }

    pub(super) fn suspected(&self, network: String) {
        self.open().0.suspicions.push((now(), network));
    }

    /// Whether every message has an answer.
    pub(super) fn all_answered(&self) -> bool {
        self.open().0.exchanges.iter().all(|exchange| exchange.answers > 0)
    }

    /// All of it so far.
    pub(super) fn found(&self) -> Found {
        self.open().0.clone()
    }
}
