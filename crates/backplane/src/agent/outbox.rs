//! What leaves the host: one log of the events that were published here, and a place in it for each way out.

use crate::event::Event;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;

/// A way out of the host: a broker, or a session to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkId(pub(super) u64);

/// What a way out is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Keep {
    /// Every acknowledged event: while it has not confirmed what fills the log, acknowledged publishing is refused.
    UntilConfirmed,
    /// What is there when it asks: what it did not take in time is counted as lost to it.
    WhileRoom,
}

/// What goes out next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// So many events gave way before they could go out here.
    Lost(u64),
    /// An event. It is not signed yet.
    Event {
        /// Its place among all that leave the host.
        place: u64,
        /// The event.
        event: Arc<Event>,
    },
}

#[derive(Debug)]
struct Sink {
    keep: Keep,
    /// What it gets next, what it has confirmed: places in the log.
    next: u64,
    confirmed: u64,
    lost: u64,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    log: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The place of the front.
    first: u64,
    sinks: BTreeMap<SinkId, Sink>,
    last_id: u64,
}

impl Outbox {
    pub(super) fn add(&mut self, keep: Keep) -> SinkId {
        self.last_id += 1;
        let id = SinkId(self.last_id);
        let end = self.end();
        self.sinks.insert(id, Sink { keep, next: end, confirmed: end, lost: 0 });
        id
    }

    pub(super) fn remove(&mut self, sink: SinkId) {
        self.sinks.remove(&sink);
        self.trim();
    }

    pub(super) fn sinks(&self) -> usize {
        self.sinks.len()
    }

    fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// Makes room for an event as far as it may; whether there is.
    pub(super) fn make_room(&mut self, event_weight: usize, max_events: usize, max_bytes: usize) -> bool {
        let kept = self.sinks.values().filter(|sink| sink.keep == Keep::UntilConfirmed);
        let kept_from = kept.map(|sink| sink.confirmed).min().unwrap_or(u64::MAX);
        while !self.log.is_empty() && (self.log.len() >= max_events || self.bytes + event_weight > max_bytes)
        {
            if self.first >= kept_from {
                return false;
            }
            self.pop();
        }
        true
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        if !self.sinks.is_empty() {
            self.bytes += event.weight();
            self.log.push_back(event);
        }
    }

    /// For what found no room.
    pub(super) fn lose(&mut self) {
        self.sinks.values_mut().for_each(|sink| sink.lost += 1);
    }

    fn pop(&mut self) {
        if let Some(event) = self.log.pop_front() {
            self.bytes -= event.weight();
            self.first += 1;
            for sink in self.sinks.values_mut() {
                if sink.next < self.first {
                    sink.next = self.first;
                    sink.lost += 1;
                }
                sink.confirmed = sink.confirmed.max(self.first);
            }
        }
    }

    fn trim(&mut self) {
        let needed = self.sinks.values().map(|sink| sink.confirmed).min().unwrap_or(u64::MAX);
        while self.first < needed && !self.log.is_empty() {
            self.pop();
        }
    }

    pub(super) fn poll(&mut self, sink: SinkId) -> Option<Outgoing> {
        let first = self.first;
        let sink = self.sinks.get_mut(&sink)?;
        if sink.lost > 0 {
            return Some(Outgoing::Lost(core::mem::take(&mut sink.lost)));
        }
        let event = self.log.get((sink.next - first) as usize)?;
        sink.next += 1;
        Some(Outgoing::Event { place: sink.next, event: Arc::clone(event) })
    }

    /// All up to a place is where it should be, as far as it was given out.
    pub(super) fn confirm(&mut self, sink: SinkId, place: u64) {
        if let Some(sink) = self.sinks.get_mut(&sink) {
            sink.confirmed = sink.confirmed.max(place.min(sink.next));
        }
        self.trim();
    }

    pub(super) fn rewind(&mut self, sink: SinkId) {
        if let Some(sink) = self.sinks.get_mut(&sink) {
            sink.next = sink.confirmed;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.log.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.bytes, self.log.iter().map(|event| event.weight()).sum::<usize>());
        assert!(!self.sinks.is_empty() || self.log.is_empty(), "kept for nobody");
        for sink in self.sinks.values() {
            assert!(self.first <= sink.confirmed && sink.confirmed <= sink.next && sink.next <= self.end());
        }
    }
}
