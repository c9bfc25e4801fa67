//! A journal in fewer records: what is settled leaves nothing but its place in sets of ranges.
//!
//! Restoring the records of a digest is the same as restoring all records that it took. Payloads are shared with the
//! core, which keeps them as long.

use super::{JournalEntry, Record, Summary};
use crate::event::DropReason;
use crate::outbound::remember_dropped;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use steadfast_wire::frame::{Head, ShutKind};
use steadfast_wire::{Labels, MessageId, SessionId, Token};

/// What an open message, an open session and a range take in a store beside payloads, in bytes, about.
const MESSAGE: u64 = 64;
const SESSION: u64 = 256;
const RANGE: u64 = 8;

/// All that a journal says of sessions that have not ended.
#[derive(Debug, Default, Clone)]
pub struct Digest {
    sessions: BTreeMap<SessionId, Known>,
    /// Bytes of payloads.
    payloads: u64,
    messages: u64,
}

#[derive(Debug, Clone)]
struct Known {
    opened: Record,
    confirmed: Option<Token>,
    offered: Vec<Token>,
    held: Option<Token>,
    /// Messages of ours without an outcome, or dropped and not forgotten. Boxed, because a map moves its entries about.
    open: BTreeMap<u64, Box<Open>>,
    shut: Option<(MessageId, ShutKind)>,
    summary: Summary,
}

#[derive(Debug, Clone)]
struct Open {
    head: Head,
    payload: Option<Bytes>,
    labels: Option<Labels>,
    cancelled: Option<DropReason>,
    /// It was dropped, and the peer is to know.
    dropped: bool,
}

impl Digest {
    /// Takes the next record.
    pub fn take(&mut self, session: SessionId, record: &Record) {
        match record {
            Record::Opened { .. } => {
                let summary = Summary { floor: 1, ..Summary::default() };
                let known = Known {
                    opened: record.clone(),
                    confirmed: None,
                    offered: Vec::new(),
                    held: None,
                    open: BTreeMap::new(),
                    shut: None,
                    summary,
                };
                self.remove(session);
                self.sessions.insert(session, known);
            }
            Record::Ended => self.remove(session),
            record => {
                let Some(known) = self.sessions.get_mut(&session) else { return };
                let message = record.message();
                let weight = |known: &Known| message.map_or((0, 0), |id| known.weight_of(id));
                let old = weight(known);
                known.take(record);
                let new = weight(known);
                self.payloads = self.payloads + new.0 - old.0;
                self.messages = self.messages + new.1 - old.1;
            }
        }
    }

    fn remove(&mut self, session: SessionId) {
        if let Some(gone) = self.sessions.remove(&session) {
            let (payloads, messages) = gone.size();
            self.payloads -= payloads;
            self.messages -= messages;
        }
    }

    /// About how many bytes its records take in a store.
    #[must_use]
    pub fn size(&self) -> u64 {
        let ranges: usize = self.sessions.values().map(|known| known.summary.ranges()).sum();
        self.payloads + self.messages * MESSAGE + self.sessions.len() as u64 * SESSION + ranges as u64 * RANGE
    }

    /// The sessions that have not ended.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions.keys().copied()
    }

    /// Its records, in an order that restores the sessions.
    pub fn records(&self) -> impl Iterator<Item = (SessionId, Record)> + '_ {
        self.sessions.iter().flat_map(|(session, known)| known.records().map(|record| (*session, record)))
    }

    /// The same, as [`Endpoint::restore`](crate::Endpoint::restore) takes them.
    pub fn entries(&self) -> impl Iterator<Item = JournalEntry> + '_ {
        self.records().zip(1..).map(|((session, record), number)| JournalEntry { number, session, record })
    }
}

impl Record {
    /// Which message of ours it is about.
    fn message(&self) -> Option<MessageId> {
        match self {
            Self::Sent { id, .. }
            | Self::Relabelled { id, .. }
            | Self::Cancelled(id, _)
            | Self::Settled { id, .. }
            | Self::Forgotten(id) => Some(*id),
            _ => None,
        }
    }
}

impl Summary {
    fn ranges(&self) -> usize {
        let [foreground, background] = &self.places;
        [&self.dropped, &self.resolved, &self.refused, foreground, background]
            .iter()
            .map(|set| set.ranges())
            .sum()
    }
}

impl Known {
    fn take(&mut self, record: &Record) {
        match record {
            Record::Offered(token) if !self.offered.contains(token) => self.offered.push(*token),
            Record::Confirmed(token) => {
                if let Some(index) = self.offered.iter().position(|offered| offered == token) {
                    self.offered.drain(..=index);
                    self.confirmed = Some(*token);
                }
            }
            Record::Held(token) => self.held = Some(*token),
            Record::Sent { id, head, payload } => {
                self.summary.sent = self.summary.sent.max(id.0);
                self.summary.sequences[head.labels.urgency.index()] += 1;
                let (head, payload) = (head.clone(), payload.clone());
                let open = Open { head, payload, labels: None, cancelled: None, dropped: false };
                self.open.insert(id.0, Box::new(open));
            }
            Record::Relabelled { id, labels } => {
                if let Some(open) = self.open.get_mut(&id.0) {
                    open.labels = Some(labels.clone());
                }
            }
            Record::Cancelled(id, reason) => {
                if let Some(open) = self.open.get_mut(&id.0) {
                    open.cancelled = Some(*reason);
                    open.payload = None;
                }
            }
            Record::Settled { id, delivered: true } => drop(self.open.remove(&id.0)),
            Record::Settled { id, delivered: false } => {
                if let Some(open) = self.open.get_mut(&id.0) {
                    open.dropped = true;
                    open.payload = None;
                    remember_dropped(&mut self.summary.dropped, &mut self.summary.floor, id.0);
                }
            }
            Record::Forgotten(id) => {
                if self.open.get(&id.0).is_some_and(|open| open.dropped) {
                    self.open.remove(&id.0);
                }
            }
            Record::Resolved { id, delivered, place } => {
                self.summary.resolved.insert_one(id.0);
                self.summary.places[place.0].insert_one(place.1);
                if !delivered {
                    self.summary.refused.insert_one(id.0);
                }
            }
            Record::Excused(id) => self.summary.refused.remove(id.0..id.0 + 1),
            Record::Shut(last, kind) => self.shut = Some((*last, *kind)),
            Record::Summary(summary) => self.summary = summary.clone(),
            Record::Offered(_) | Record::Opened { .. } | Record::Ended => {}
        }
    }

    /// Bytes of a message's payload, and one if it is open.
    fn weight_of(&self, id: MessageId) -> (u64, u64) {
        self.open.get(&id.0).map_or((0, 0), |open| (open.bytes(), 1))
    }

    fn size(&self) -> (u64, u64) {
        (self.open.values().map(|open| open.bytes()).sum(), self.open.len() as u64)
    }

    fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let confirmed = self.confirmed.into_iter();
        let confirmed = confirmed.flat_map(|token| [Record::Offered(token), Record::Confirmed(token)]);
        let offered = self.offered.iter().map(|token| Record::Offered(*token));
        let held = self.held.map(Record::Held);
        let open = self.open.iter().flat_map(|(id, open)| open.records(MessageId(*id)));
        let shut = self.shut.map(|(last, kind)| Record::Shut(last, kind));
        // After the messages, which count themselves.
        let last = [Record::Summary(self.summary.clone())].into_iter().chain(shut);
        core::iter::once(self.opened.clone())
            .chain(confirmed)
            .chain(offered)
            .chain(held)
            .chain(open)
            .chain(last)
    }
}

impl Open {
    fn bytes(&self) -> u64 {
        self.payload.as_ref().map_or(0, |payload| payload.len() as u64)
    }

    fn records(&self, id: MessageId) -> impl Iterator<Item = Record> + '_ {
        let sent = Record::Sent { id, head: self.head.clone(), payload: self.payload.clone() };
        let labels = self.labels.clone().map(|labels| Record::Relabelled { id, labels });
        let cancelled = self.cancelled.map(|reason| Record::Cancelled(id, reason));
        let settled = self.dropped.then_some(Record::Settled { id, delivered: false });
        core::iter::once(sent).chain(labels).chain(cancelled).chain(settled)
    }
}

#[cfg(test)]
mod tests;
