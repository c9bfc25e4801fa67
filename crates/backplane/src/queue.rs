//! What waits for a client: bounded, the oldest gives way, and how many did is told.

use crate::event::Event;
use alloc::collections::VecDeque;
use alloc::sync::Arc;

/// A number that a client gave to one of its subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u32);

/// How sure it is where an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Provenance {
    /// Published on this host; its agent knows the user and the process from the kernel.
    Local = 0,
    /// Published on another host, whose trusted identity vouches for it.
    Signed = 1,
    /// Whoever could write it says that it was published on another host.
    Unsigned = 2,
}

impl Provenance {
    /// The word that goes with an event to programs: `local`, `signed`, `unsigned`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Signed => "signed",
            Self::Unsigned => "unsigned",
        }
    }
}

/// An event on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The event.
    pub event: Arc<Event>,
    /// Where it comes from.
    pub provenance: Provenance,
    /// For a replay, the subscription that asked for it; the others have nothing to do with it.
    pub replay: Option<SubscriptionId>,
}

/// What a client is told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// So many events that it wanted gave way to newer ones.
    Dropped(u64),
    /// An event.
    Event(Delivery),
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Delivery>,
    bytes: usize,
    dropped: u64,
}

impl Queue {
    /// Adds one, which always fits: the oldest give way. Returns how many did.
    pub(crate) fn push(&mut self, delivery: Delivery, max_events: usize, max_bytes: usize) -> u64 {
        let weight = delivery.event.weight();
        let dropped = self.trim(max_events.saturating_sub(1), max_bytes.saturating_sub(weight));
        self.bytes += weight;
        self.waiting.push_back(delivery);
        dropped
    }

    /// Lets the oldest give way until the rest is within the bounds. Returns how many did.
    pub(crate) fn trim(&mut self, max_events: usize, max_bytes: usize) -> u64 {
        let mut dropped = 0;
        while (self.waiting.len() > max_events || self.bytes > max_bytes)
            && let Some(old) = self.waiting.pop_front()
        {
            self.bytes -= old.event.weight();
            dropped += 1;
        }
        self.dropped += dropped;
        dropped
    }

    pub(crate) fn pop(&mut self) -> Option<Next> {
        if self.dropped > 0 {
            return Some(Next::Dropped(core::mem::take(&mut self.dropped)));
        }
        let delivery = self.waiting.pop_front()?;
        self.bytes -= delivery.event.weight();
        Some(Next::Event(delivery))
    }

    /// Takes the first that fits, wherever it stands.
    pub(crate) fn pop_if(&mut self, fits: impl Fn(&Delivery) -> bool) -> Option<Delivery> {
        let at = self.waiting.iter().position(fits)?;
        let delivery = self.waiting.remove(at)?;
        self.bytes -= delivery.event.weight();
        Some(delivery)
    }

    pub(crate) fn take_dropped(&mut self) -> u64 {
        core::mem::take(&mut self.dropped)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.dropped == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.bytes, self.waiting.iter().map(|one| one.event.weight()).sum::<usize>());
    }
}
