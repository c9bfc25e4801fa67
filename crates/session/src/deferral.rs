//! Sends that wait for a network: what the application wants to send once a path may carry it. Nothing of them was
//! accepted, so the peer knows nothing of them.

use crate::event::SendError;
use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;
use steadfast_wire::{Instant, Labels};

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
    /// A send was refused for want of a network since the paths last changed: those that are opened on demand are.
    wished: bool,
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
        self.waiting.insert(id, Waiting { labels, until });
        Ok(id)
    }

    pub(crate) const fn wish(&mut self) {
        self.wished = true;
    }

    pub(crate) const fn paths_changed(&mut self) {
        self.wished = false;
    }

    /// Whether networks that are used on demand only are wanted.
    pub(crate) fn wants_network(&self) -> bool {
        self.wished || !self.waiting.is_empty()
    }

    /// The labels of all that wait.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &Labels> {
        self.waiting.values().map(|waiting| &waiting.labels)
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
        true
    }

    /// Cancels those with exactly these labels that wait without a limit; the others belong to sends that return by
    /// themselves.
    pub(crate) fn cancel(&mut self, labels: &Labels) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|_, waiting| waiting.until.is_some() || waiting.labels != *labels);
        before - self.waiting.len()
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
    }
}
