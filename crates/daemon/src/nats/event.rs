//! An event as a message of NATS, out and in.

use steadfast_backplane::{Event, EventName, EventSpace, MAX_CLOUD_EVENT};

use crate::seal::{Judgement, Seal};

/// Where an event is published: its space and its name behind the prefix, in lower case, as all of these compare.
pub(super) fn subject(prefix: &str, space: &EventSpace, name: &EventName) -> String {
    let mut words = format!("{space}.{name}");
    words.make_ascii_lowercase();
    format!("{prefix}.{words}")
}

/// What tells a message apart for `JetStream`. Besides the event's id it has part of its signature: else somebody who may publish
/// could use up the ids of events to come.
pub(super) fn message_id(event: &Event) -> String {
    let signature = event.signature.map_or([0; 64], |signature| signature.0);
    format!("{}-{}", event.id, data_encoding::HEXLOWER.encode(&signature[..8]))
}

/// What a message brought.
#[derive(Debug)]
pub(super) enum Brought {
    /// An event of a host that is trusted.
    Verified(Event),
    /// One that nobody vouches for, or our own.
    Unsigned(Event),
    /// Nothing to be taken, and why.
    Nothing(&'static str),
}

/// Reads a message. Its event has to be where its subject says, so that what the servers permit on subjects counts.
pub(super) fn read(seal: &Seal, prefix: &str, at: &str, payload: &[u8]) -> Brought {
    if payload.len() > MAX_CLOUD_EVENT {
        return Brought::Nothing("longer than any event");
    }
    let event = std::str::from_utf8(payload).ok().and_then(|text| Event::from_cloud_event(text).ok());
    let Some(event) = event else { return Brought::Nothing("no event") };
    if subject(prefix, &event.space, &event.name) != at {
        return Brought::Nothing("an event of another subject");
    }
    match seal.judge(&event) {
        Judgement::Verified => Brought::Verified(event),
        Judgement::Unsigned | Judgement::Own => Brought::Unsigned(event),
        Judgement::Forged => Brought::Nothing("a signature that its origin did not make"),
    }
}
