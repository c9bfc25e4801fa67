//! Sends that wait for a network: what the application wants to send once a path may carry it. Nothing of them was
//! accepted, so the peer knows nothing of them.

use crate::event::SendError;
use crate::rules::Rules;
use crate::seldom::Blank;
use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;
use steadfast_wire::{Instant, Labels, Rule};

/// The most sends of a session that wait for a network.
const MAX_DEFERRALS: usize = 8192;

/// A send that waits for a network. They count up, so their order is that in which they began to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeferralId(pub(crate) u64);

/// How a send that waits for a network is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deferral {
    /// No network that is up may carry it.
    Waiting,
    /// One may, at this moment.
    Ready,
    /// None did in time.
    TimedOut,
    /// It was cancelled, or never began to wait.
    Gone,
}

#[derive(Debug)]
struct Waiting {
    labels: Labels,
    /// Until then; `None` for ever.
    until: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct Deferrals {
    next: u64,
    waiting: BTreeMap<DeferralId, Waiting>,
    deadlines: BTreeSet<(Instant, DeferralId)>,
    /// The rules of all that wait, with how many do under each.
    rules: BTreeMap<Rule, usize>,
    /// The rules of what was refused for want of a network since the paths last changed.
    wished: Rules,
}

impl Blank for Deferrals {
    fn blank() -> &'static Self {
        static BLANK: Deferrals = Deferrals {
            next: 0,
            waiting: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            rules: BTreeMap::new(),
            wished: Rules::new(),
        };
        &BLANK
    }
}

impl Deferrals {
    pub(crate) fn add(
        &mut self,
        now: Instant,
        labels: Labels,
        limit: Option<Duration>,
    ) -> Result<DeferralId, SendError> {
        if self.waiting.len() >= MAX_DEFERRALS {
            return Err(SendError::TooManyDeferred);
        }
        let id = DeferralId(self.next);
        self.next += 1;
        let until = limit.map(|limit| now + limit);
        self.deadlines.extend(until.map(|at| (at, id)));
        *self.rules.entry(labels.rule.clone()).or_default() += 1;
        self.waiting.insert(id, Waiting { labels, until });
        Ok(id)
    }

    /// A send under this rule was refused, and may be tried again.
    pub(crate) fn wish(&mut self, rule: &Rule) {
        self.wished.insert(rule);
    }

    pub(crate) fn paths_changed(&mut self) {
        self.wished.clear();
    }

    /// Whether something may want a network that has no path.
    pub(crate) fn wants(&self) -> bool {
        !self.waiting.is_empty() || !self.wished.is_empty()
    }

    /// The rules of what was refused.
    pub(crate) const fn wished(&self) -> &Rules {
        &self.wished
    }

    /// The rules of all that wait.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.keys()
    }

    /// What one waits for, and whether its time is over.
    pub(crate) fn find(&self, now: Instant, id: DeferralId) -> Option<(&Labels, bool)> {
        let waiting = self.waiting.get(&id)?;
        Some((&waiting.labels, waiting.until.is_some_and(|until| until <= now)))
    }

    pub(crate) fn remove(&mut self, id: DeferralId) -> bool {
        let Some(gone) = self.waiting.remove(&id) else { return false };
        if let Some(until) = gone.until {
            self.deadlines.remove(&(until, id));
        }
        self.forget(&gone.labels.rule, 1);
        true
    }

    /// Cancels those with exactly these labels that wait without a limit; the others belong to sends that return by
    /// themselves.
    pub(crate) fn cancel(&mut self, labels: &Labels) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|_, waiting| waiting.until.is_some() || waiting.labels != *labels);
        let cancelled = before - self.waiting.len();
        self.forget(&labels.rule, cancelled);
        cancelled
    }

    /// So many that waited under a rule do no longer.
    fn forget(&mut self, rule: &Rule, count: usize) {
        let Some(left) = self.rules.get_mut(rule) else { return };
        *left -= count;
        if *left == 0 {
            self.rules.remove(rule);
        }
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Whether the time of one is over: whoever waits is to look.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        let mut over = false;
        while self.deadlines.first().is_some_and(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            over = true;
        }
        over
    }

    pub(crate) fn check_invariants(&self) {
        for (at, id) in &self.deadlines {
            let until = self.waiting.get(id).and_then(|waiting| waiting.until);
            assert_eq!(until, Some(*at), "{id:?} has a deadline of its own");
        }
        assert_eq!(self.rules.values().sum::<usize>(), self.waiting.len(), "deferrals by their rules");
    }
}
