//! Records as an endpoint makes them.

use bytes::Bytes;
use steadfast_session::{Digest, Record};
use steadfast_wire::frame::Head;
use steadfast_wire::{Fingerprint, Labels, MessageId, Order, SessionId};

pub(crate) const ME: Fingerprint = Fingerprint([7; 32]);

pub(crate) type Entry = (SessionId, Record);

pub(crate) fn opened(session: u64) -> Entry {
    let peer = Fingerprint([1; 32]);
    let record =
        Record::Opened { peer, incarnation: None, opener: true, per_urgency: true, addresses: Vec::new() };
    (SessionId(session), record)
}

pub(crate) fn sent(session: u64, id: u64, bytes: usize) -> Entry {
    let payload: Vec<u8> = (0..bytes).map(|at| (at as u64 * 7 + id) as u8).collect();
    let order = Order::PerUrgency { sequence: id - 1 };
    let (labels, length) = (Labels::foreground(), Some(bytes as u64));
    let head = Head { labels, order, streamed: false, length, expires_in: None };
    (SessionId(session), Record::Sent { id: MessageId(id), head, payload: Some(Bytes::from(payload)) })
}

pub(crate) fn settled(session: u64, id: u64) -> Entry {
    (SessionId(session), Record::Settled { id: MessageId(id), delivered: true })
}

pub(crate) fn ended(session: u64) -> Entry {
    (SessionId(session), Record::Ended)
}

/// What records come to.
pub(crate) fn digest(entries: &[Entry]) -> Vec<Entry> {
    let mut digest = Digest::default();
    for (session, record) in entries {
        digest.take(*session, record);
    }
    digest.records().collect()
}

pub(crate) fn refs(entries: &[Entry]) -> impl Iterator<Item = (SessionId, &Record)> + Clone {
    entries.iter().map(|(session, record)| (*session, record))
}
