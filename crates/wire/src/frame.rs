//! Every frame of the session protocol.
//!
//! A frame is a type (varint), the length of its body (varint, at most [`MAX_BODY`]) and the body. Odd types must be
//! understood: an unknown one closes the path. Unknown even types are skipped.
//!
//! Frames marked *counted* are those whose arrival is reported by [`Progress`]: a sender keeps what it needs to say
//! them again until then.

use crate::id::{Incarnation, MessageId, NetworkId, PathNumber, SessionId, Token};
use crate::label::{Labels, Order, Urgency};
use crate::network::{MAX_NETWORKS, Network};
use crate::range_set::RangeSet;
use crate::varint::{self, Reader};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::{Buf, BufMut, Bytes, BytesMut};

mod codec;
#[cfg(test)]
mod tests;

/// The version that this crate speaks.
pub const VERSION: u64 = 1;
/// The most bytes in a frame's body.
pub const MAX_BODY: usize = 128 * 1024;
/// The most payload bytes in one DATA frame.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// The most bytes that a DATA frame takes beyond its payload when it does not carry the message's head.
pub const DATA_OVERHEAD: usize = 8 * 4 + 2;
/// The most messages of one direction of a session whose outcome is open; a bound for every set of ids.
pub const MAX_OUTSTANDING: usize = 8192;
/// The most ranges in a set of ids: one more than there are holes.
pub const MAX_ID_RANGES: usize = MAX_OUTSTANDING + 1;
/// The most ranges in one ACK frame.
pub const MAX_ACK_RANGES: usize = 256;
/// The most byte ranges of partly received messages in a RESUME frame.
pub const MAX_PARTIAL_RANGES: usize = 1024;
/// The most tokens that may be offered and not yet confirmed.
pub const MAX_PENDING_TOKENS: usize = 64;
/// The most bytes of the text of a BYE.
pub const MAX_REASON: usize = 256;
/// The most bytes of an OFFER.
pub const MAX_OFFER: usize = 128;
/// The feature of HELLO without which a peer is told no OFFER.
pub const FEATURE_OFFERS: u64 = 1;
/// The feature of HELLO without which a peer is told no SUSPEND.
pub const FEATURE_SUSPENSION: u64 = 2;

/// Why a frame could not be read. Private to the two ends: a peer is told only that the path was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A body ends before its fields do.
    #[error("a frame is shorter than its fields")]
    Truncated,
    /// A number or length is beyond its bound.
    #[error("a number in a frame is beyond its bound")]
    TooLarge,
    /// A body goes on after its last field.
    #[error("a frame is longer than its fields")]
    Trailing,
    /// An unknown frame that must be understood.
    #[error("unknown frame type {0} that must be understood")]
    Unknown(u64),
    /// A rule of the format is broken.
    #[error("{0}")]
    Malformed(&'static str),
}

/// The first frame in each direction of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The highest protocol version that the sender speaks.
    pub version: u64,
    /// This run of the sender's process.
    pub incarnation: Incarnation,
    /// The sender's number for this path: others are to use it in PROGRESS, CHECK and HAVE.
    pub path: PathNumber,
    /// Which of the sender's networks the path uses.
    pub network: NetworkId,
    /// Where the sender listens on that network, 0 if it does not: a peer that moved is found at its new address.
    pub port: u16,
    /// Optional features, one bit each ([`FEATURE_OFFERS`], [`FEATURE_SUSPENSION`]). Unknown bits are ignored.
    pub features: u64,
    /// Whether the sender keeps its sessions in a store that survives it.
    pub durable: bool,
    /// The largest whole message that the sender accepts, in bytes.
    pub max_message: u64,
    /// Credit that every new session starts with, in bytes, by urgency.
    pub windows: [u64; 2],
    /// Facts that mean something only on the same host.
    pub process: Process,
}

/// Which process of a host this is: compared, never trusted, by a peer on the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Process {
    /// Process id; 0 where it is not known.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub start: u64,
    /// Inode of the pid namespace.
    pub namespace: u64,
}

/// Part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The conversation.
    pub session: SessionId,
    /// The message.
    pub id: MessageId,
    /// Where `payload` starts in the message, in bytes.
    pub offset: u64,
    /// Which window pays for the message; fixed at its first byte.
    pub class: Urgency,
    /// Whether the message ends after `payload`.
    pub fin: bool,
    /// Present exactly in frames with offset 0.
    pub head: Option<Head>,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: Bytes,
}

/// What the first frame of a message says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The sender's labels.
    pub labels: Labels,
    /// What it waits for.
    pub order: Order,
    /// Whether it is read as it arrives.
    pub streamed: bool,
    /// The whole length in bytes, where it is known. A message that is not streamed always says it.
    pub length: Option<u64>,
    /// How long the message is still worth delivering when this is said, in microseconds; `None` for ever. A span and
    /// not a time, because the two clocks have nothing in common.
    pub expires_in: Option<u64>,
}

/// What happened to messages. *Counted.*
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ack {
    /// The library has all of it.
    pub received: RangeSet,
    /// The application has taken it.
    pub delivered: RangeSet,
    /// It will surely not be delivered.
    pub dropped: RangeSet,
}

/// What has arrived on a path: all counted frames up to a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The path, by the number of the frame's recipient.
    pub path: PathNumber,
    /// How many counted frames have arrived on it.
    pub count: u64,
    /// How long the last of them has waited for this report, in microseconds.
    pub delay: u64,
    /// When the last of them arrived, in microseconds on the reporter's clock.
    pub clock: u64,
}

/// How much of the conversation's end a SHUT announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutKind {
    /// The sender sends no more; it still receives (half-close).
    Finish,
    /// The sender wants the conversation to end: the other side's sends fail at once.
    Close,
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// Both sides shut it and everything was acknowledged.
    Closed,
    /// One side gave it up.
    Aborted,
    /// One side came back with an older state than the other knew.
    RolledBack,
    /// The peer does not know the conversation: it restarted without a store, or forgot it.
    Unknown,
    /// It was parked longer than its limit, or too many were parked.
    Forgotten,
    /// The peer does not accept more conversations.
    Refused,
    /// The peer broke the protocol.
    Violation,
    /// The peer left (BYE).
    Left,
}

/// One side's whole view of a session, said when it continues on a first path. *Counted.*
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The conversation.
    pub session: SessionId,
    /// The sender opened it and does not know whether the recipient ever heard of it: then this opens it.
    pub fresh: bool,
    /// Whether a new session orders by urgency.
    pub per_urgency: bool,
    /// The sender goes on only after a RESUME of the recipient.
    pub expects: bool,
    /// The sender's token that the recipient is known to hold; `None` where none was confirmed yet.
    pub confirmed: Option<Token>,
    /// Tokens that were offered and never confirmed, oldest first; the last one is the token from now on.
    pub offered: Vec<Token>,
    /// The recipient's token that the sender holds.
    pub holds: Option<Token>,
    /// The sender's next message id.
    pub next: MessageId,
    /// The sender has shut its direction: the last id, and how.
    pub shut: Option<(MessageId, ShutKind)>,
    /// The recipient's messages that the sender's library has whole and its application has not taken.
    pub received: RangeSet,
    /// The recipient's messages that the sender's application took.
    pub delivered: RangeSet,
    /// The recipient's messages that are surely not delivered.
    pub dropped: RangeSet,
    /// The recipient's messages of which the sender has some units (bytes, and the end as one more).
    pub partial: Vec<(MessageId, RangeSet)>,
    /// Bytes received by class since the session began.
    pub charged: [u64; 2],
    /// Bytes allowed by class since the session began.
    pub limits: [u64; 2],
}

/// A frame of the session protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// First on a path, in each direction.
    Hello(Hello),
    /// The sender's networks, all of them. *Counted.*
    Networks {
        /// Counts up; an older list is ignored.
        epoch: u64,
        /// At most [`MAX_NETWORKS`].
        networks: Vec<Network>,
    },
    /// Opens a conversation; said on each path until an ACCEPT arrives. *Counted.*
    Open {
        /// The conversation.
        session: SessionId,
        /// Whether the default order is by urgency rather than total.
        per_urgency: bool,
        /// The opener's first token.
        token: Token,
    },
    /// The answer to OPEN. *Counted.*
    Accept {
        /// The conversation.
        session: SessionId,
        /// The accepting side's first token.
        token: Token,
        /// The opener's token that is now held.
        holds: Token,
    },
    /// "I hold this token of yours." *Counted.*
    Confirm {
        /// The conversation.
        session: SessionId,
        /// The recipient's token that is now held.
        holds: Token,
    },
    /// Continues a conversation. *Counted.*
    Resume(Resume),
    /// Part of a message. *Counted.*
    Data(Data),
    /// What happened to messages. *Counted.*
    Ack(SessionId, Ack),
    /// The sum of bytes that may be sent for the first time in a class. *Counted.*
    Credit {
        /// The conversation.
        session: SessionId,
        /// Which window.
        class: Urgency,
        /// Bytes since the session began.
        limit: u64,
    },
    /// Asks for a message to be dropped, and says its place in the order. *Counted.*
    Reset {
        /// The conversation.
        session: SessionId,
        /// The message.
        id: MessageId,
        /// The urgency whose order it is counted in.
        order: Urgency,
        /// Its place in that order.
        sequence: u64,
        /// Which window pays for it.
        class: Urgency,
        /// All that the window will ever pay for it, in bytes: nothing more of it is sent for the first time.
        charged: u64,
        /// The sender knows the outcome, so that the recipient may forget it.
        known: bool,
    },
    /// New labels for a message that is already known. *Counted.*
    Relabel {
        /// The conversation.
        session: SessionId,
        /// The message.
        id: MessageId,
        /// The labels from now on.
        labels: Labels,
    },
    /// No more messages after `last`. *Counted.*
    Shut {
        /// The conversation.
        session: SessionId,
        /// The last message's id; 0 if there was none.
        last: MessageId,
        /// How much ends.
        kind: ShutKind,
    },
    /// The conversation is over. *Counted.*
    End {
        /// The conversation.
        session: SessionId,
        /// Why.
        reason: EndReason,
        /// The last message of the frame's recipient that its sender is sure to have, all earlier ones included.
        common: MessageId,
    },
    /// What the sender's process offers to the recipient's beside this protocol, such as keys for another one. Said only to
    /// who has [`FEATURE_OFFERS`]. *Counted.*
    Offer {
        /// The sender's number of the association, at least 1. A process that forgot one numbers the next one higher.
        from: u64,
        /// The recipient's number of it, as far as the sender knows; 0 if it does not. What is offered is for that one alone.
        to: u64,
        /// Counts up within an association; an older offer is ignored.
        epoch: u64,
        /// At most [`MAX_OFFER`] bytes, whose meaning is not known here; empty to take it back.
        offer: Bytes,
    },
    /// What has arrived on a path.
    Progress(Progress),
    /// "This path is suspect; what did you get on it?" The path is named by the recipient's number.
    Check {
        /// The path.
        path: PathNumber,
    },
    /// The answer to CHECK. The path is named by the recipient's number.
    Have {
        /// The path.
        path: PathNumber,
        /// How many counted frames arrived on it; `None` where that is no longer known.
        count: Option<u64>,
        /// Whether the path is closed, so that no more will arrive on it.
        closed: bool,
    },
    /// Asks for a PONG on the same path.
    Ping {
        /// Comes back in the PONG.
        nonce: u64,
    },
    /// The answer to PING.
    Pong {
        /// From the PING.
        nonce: u64,
    },
    /// The sender leaves and says why; for people, at most [`MAX_REASON`] bytes.
    Bye {
        /// Why.
        reason: String,
    },
    /// The sender's process is about to be frozen, perhaps for a checkpoint: the silence that follows is no death. The last
    /// frame on a path, said on each, to who has [`FEATURE_SUSPENSION`]. The next HELLO ends it.
    Suspend {
        /// Counts the suspensions of the sender's process; one that is not newer than one that has ended is ignored.
        epoch: u64,
        /// How long it takes at most, in milliseconds. After that silence means what it always does.
        limit: u64,
    },
}

impl Frame {
    /// Whether PROGRESS counts this frame.
    #[must_use]
    pub const fn is_counted(&self) -> bool {
        !matches!(
            self,
            Self::Hello(_)
                | Self::Progress(_)
                | Self::Check { .. }
                | Self::Have { .. }
                | Self::Ping { .. }
                | Self::Pong { .. }
                | Self::Bye { .. }
                | Self::Suspend { .. }
        )
    }

    /// The conversation that it belongs to, if it belongs to one.
    #[must_use]
    pub const fn session(&self) -> Option<SessionId> {
        match self {
            Self::Open { session, .. }
            | Self::Accept { session, .. }
            | Self::Confirm { session, .. }
            | Self::Ack(session, _)
            | Self::Credit { session, .. }
            | Self::Reset { session, .. }
            | Self::Relabel { session, .. }
            | Self::Shut { session, .. }
            | Self::End { session, .. } => Some(*session),
            Self::Resume(resume) => Some(resume.session),
            Self::Data(data) => Some(data.session),
            _ => None,
        }
    }

    /// Whether it only makes sense in a conversation that both sides know: it neither begins, claims nor ends one.
    #[must_use]
    pub const fn speaks_in_session(&self) -> bool {
        self.session().is_some() && !matches!(self, Self::Open { .. } | Self::Resume(_) | Self::End { .. })
    }

    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if let Self::Data(data) = self {
            return data.encode(out);
        }
        let start = out.len();
        let kind = codec::encode_body(self, out);
        let length = out.len() - start;
        debug_assert!(length <= MAX_BODY, "a frame of type {kind} is too long: {length}");
        put_header(out, start, kind, length);
    }

    /// Takes the next whole frame off the front of `input`.
    ///
    /// `Ok(None)` means that more bytes are needed; at most [`MAX_BODY`] plus 16 bytes are ever held waiting.
    /// Unknown frames that need not be understood are skipped. DATA payloads share memory with `input`.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, DecodeError> {
        loop {
            let Some((kind, kind_size)) = varint::peek(input) else { return Ok(None) };
            let Some((length, length_size)) = varint::peek(&input[kind_size..]) else { return Ok(None) };
            if length > MAX_BODY as u64 {
                return Err(DecodeError::TooLarge);
            }
            let header = kind_size + length_size;
            if input.len() < header + length as usize {
                return Ok(None);
            }
            input.advance(header);
            let mut reader = Reader::new(input.split_to(length as usize).freeze());
            if let Some(frame) = codec::decode_body(kind, &mut reader)? {
                return if reader.remaining() == 0 { Ok(Some(frame)) } else { Err(DecodeError::Trailing) };
            }
            if kind & 1 == 1 {
                return Err(DecodeError::Unknown(kind));
            }
        }
    }
}

impl Data {
    /// Appends the frame to `out`, the payload copied once.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_head(out);
        out.put_slice(&self.payload);
    }

    /// Appends the frame without its payload, which is to follow.
    pub(crate) fn encode_head(&self, out: &mut Vec<u8>) {
        let start = out.len();
        codec::encode_data_fields(self, out);
        let length = out.len() - start + self.payload.len();
        put_header(out, start, codec::DATA, length);
    }
}

/// Puts type and length in front of what was written from `start` on: they are known only after it, and it is short.
fn put_header(out: &mut Vec<u8>, start: usize, kind: u64, length: usize) {
    let end = out.len();
    varint::put(out, kind);
    varint::put(out, length as u64);
    let header = out.len() - end;
    out[start..].rotate_right(header);
}

pub(crate) fn decode_networks(reader: &mut Reader) -> Result<Vec<Network>, DecodeError> {
    let count = reader.bounded(MAX_NETWORKS as u64)?;
    (0..count).map(|_| Network::decode(reader)).collect()
}
