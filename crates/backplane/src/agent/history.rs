//! The recent past: what was published, for those who come late.

use crate::queue::Delivery;
use alloc::collections::VecDeque;
use steadfast_wire::Instant;

/// One event and when it came here.
#[derive(Debug)]
pub(super) struct Entry {
    /// Counts up over all that came, from here and elsewhere.
    pub(super) position: u64,
    pub(super) at: Instant,
    pub(super) delivery: Delivery,
}

/// The newest events, within a number and bytes.
#[derive(Debug, Default)]
pub(super) struct History {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl History {
    pub(super) fn push(&mut self, entry: Entry, max_events: usize, max_bytes: usize) {
        self.bytes += entry.delivery.event.weight();
        self.entries.push_back(entry);
        while (self.entries.len() > max_events || self.bytes > max_bytes)
            && let Some(old) = self.entries.pop_front()
        {
            self.bytes -= old.delivery.event.weight();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.bytes, self.entries.iter().map(|entry| entry.delivery.event.weight()).sum::<usize>());
    }
}

/// All of both, the newest first. They are two, so that a flood from elsewhere does not push out what happened here.
pub(super) fn newest<'a>(one: &'a History, other: &'a History) -> impl Iterator<Item = &'a Entry> {
    let mut one = one.entries.iter().rev().peekable();
    let mut other = other.entries.iter().rev().peekable();
    core::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(first), Some(second)) if first.position < second.position => other.next(),
        (Some(_), _) => one.next(),
        (None, _) => other.next(),
    })
}
