//! What waits to be stored: events that came, in their order, until whoever drives the agent has written them down.

use crate::queue::Delivery;
use alloc::collections::VecDeque;

/// An event that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Counts up over all that is to be stored.
    pub place: u64,
    /// What to store.
    pub delivery: Delivery,
}

#[derive(Debug, Default)]
pub(super) struct Journal {
    waiting: VecDeque<Delivery>,
    bytes: usize,
    /// The place of the last event that was to be stored.
    last: u64,
    failed: bool,
}

impl Journal {
    /// Whether an event can be stored, as far as is known.
    pub(super) fn has_room(&self, weight: usize, max_bytes: usize) -> bool {
        !self.failed && (self.waiting.is_empty() || self.bytes + weight <= max_bytes)
    }

    pub(super) fn push(&mut self, delivery: Delivery) {
        self.last += 1;
        self.bytes += delivery.event.weight();
        self.waiting.push_back(delivery);
    }

    /// The place of the last event that was to be stored.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn poll(&mut self) -> Option<Record> {
        let delivery = self.waiting.pop_front()?;
        self.bytes -= delivery.event.weight();
        Some(Record { place: self.last - self.waiting.len() as u64, delivery })
    }

    pub(super) const fn set_failed(&mut self, failed: bool) {
        self.failed = failed;
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.bytes, self.waiting.iter().map(|one| one.event.weight()).sum::<usize>());
    }
}
