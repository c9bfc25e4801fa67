//! Journal records: what a durable endpoint must remember so that its sessions survive the process.
//!
//! The core emits records in order; the store confirms them in order. What a record promises to the peer (an ACK, a
//! token, the first byte of a message) waits for the confirmation. Without a store every record counts as confirmed
//! at once and none is made. After a restart any confirmed prefix restores the sessions.
//!
//! `digest.rs` says the same in fewer records, `codec.rs` in bytes.

use crate::event::DropReason;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;
use steadfast_wire::frame::{Head, ShutKind};
use steadfast_wire::{Fingerprint, Incarnation, Labels, MessageId, RangeSet, SessionId, Token};

mod codec;
mod digest;

pub use codec::MAX_RECORD;
pub use digest::Digest;

/// One fact about a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// The session exists.
    Opened {
        /// The peer.
        peer: Fingerprint,
        /// The peer's process, where it was known.
        incarnation: Option<Incarnation>,
        /// Whether we opened it.
        opener: bool,
        /// Whether its default order is by urgency.
        per_urgency: bool,
        /// Where the peer was reached.
        addresses: Vec<SocketAddr>,
    },
    /// We offer this token from now on.
    Offered(Token),
    /// The peer holds this token of ours.
    Confirmed(Token),
    /// We hold this token of the peer.
    Held(Token),
    /// The application sent a message. Streamed messages have no payload here: they do not survive their sender.
    Sent {
        /// Its id.
        id: MessageId,
        /// Its labels and order.
        head: Head,
        /// A whole message's bytes.
        payload: Option<Bytes>,
    },
    /// A message has other labels than before. Its order stays.
    Relabelled {
        /// Its id.
        id: MessageId,
        /// Its labels from now on.
        labels: Labels,
    },
    /// A message is to be dropped, and why.
    Cancelled(MessageId, DropReason),
    /// A sent message has its outcome; `delivered` or dropped.
    Settled {
        /// Its id.
        id: MessageId,
        /// Whether it was delivered.
        delivered: bool,
    },
    /// A received message was taken by the application (or dropped), at this place of its order.
    Resolved {
        /// Its id.
        id: MessageId,
        /// Whether it was delivered.
        delivered: bool,
        /// The urgency (0 or 1) whose order it is counted in, and its place there.
        place: (usize, u64),
    },
    /// The receiver may forget that this message of ours was dropped, and so may we.
    Forgotten(MessageId),
    /// The sender knows that this message of its own was dropped: it is not said again.
    Excused(MessageId),
    /// We shut our direction.
    Shut(MessageId, ShutKind),
    /// What records before said of messages that have their outcome. Only a [`Digest`] makes it.
    Summary(Summary),
    /// The session is over and can be forgotten.
    Ended,
}

/// What is remembered of messages after their outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many messages we sent.
    pub sent: u64,
    /// Of these, by urgency.
    pub sequences: [u64; 2],
    /// Which of ours were dropped, as far as that is remembered: from `floor` on.
    pub dropped: RangeSet,
    /// Nothing is known of what was dropped below this id.
    pub floor: u64,
    /// Messages of the peer that have their outcome.
    pub resolved: RangeSet,
    /// Which of these were dropped, and the sender may not know it.
    pub refused: RangeSet,
    /// The places of these in their order, by urgency.
    pub places: [RangeSet; 2],
}

/// A record with its session and its number; numbers count up by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// Counts up from 1 for each endpoint.
    pub number: u64,
    /// The session.
    pub session: SessionId,
    /// What happened.
    pub record: Record,
}

/// What waits for a record's confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it is only remembered.
    None,
    /// RESUME may be said with this token.
    Claim(Token),
    /// The peer may be told that we hold this token of it.
    Hold(Token),
    /// ACCEPT may be said.
    Accept,
    /// The message may be sent.
    Send(MessageId),
    /// The peer may be told the message's new labels.
    Relabel {
        /// The message.
        id: MessageId,
        /// Whether they have another rule, so that nothing of it was to be sent before.
        holds: bool,
    },
    /// The message may be reset.
    Reset(MessageId),
    /// The outcome is known for good.
    Known(MessageId),
    /// The message may be acknowledged as delivered or dropped.
    Ack(MessageId, bool),
    /// SHUT may be said.
    Shut,
}
