//! What goes in and comes out besides packets: calls, outcomes, events, errors.

use crate::id::{PeerId, RpcId};
use crate::packet::Refusal;
use bytes::Bytes;
use steadfast_wire::Instant;
use thiserror::Error;

/// A request to make.
#[derive(Debug, Clone)]
pub struct Call {
    /// Whom to ask.
    pub peer: PeerId,
    /// The server's port there.
    pub port: u16,
    /// One of our ports, for example one of [`open_port`](crate::Transport::open_port).
    pub from: u16,
    /// The request, 1 byte at least.
    pub body: Bytes,
    /// Comes back with the outcome; nothing else is done with it.
    pub cookie: u64,
    /// When to give up, whatever the server says; none for as long as it says that it works.
    pub deadline: Option<Instant>,
    /// Bytes of the longest response that is taken.
    pub max_response: u32,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was executed once and its response is here.
    Delivered,
    /// It surely was not executed, and will not be.
    Dropped(Reason),
    /// It was executed once or not at all.
    Unknown(Reason),
}

/// Why an RPC ended without being delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The peer was silent for [`Config::timeout`](crate::Config::timeout).
    Timeout,
    /// The deadline of the call has passed.
    Deadline,
    /// This side's application cancelled it.
    Cancelled,
    /// The server said so.
    Refused(Refusal),
    /// The server had it and does not know it any more: it gave up, or is another process now.
    Forgotten,
    /// The response is longer than the call takes, or than any message may be.
    TooLong,
    /// The carrier says that the peer is another process now.
    Restarted,
    /// The network or the peer's kernel says that it cannot be reached.
    Unreachable,
    /// The peer or the port was removed on this side.
    Closed,
}

/// Something to tell the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A request is here whole. Answer it with [`respond`](crate::Transport::respond).
    Request {
        /// The request.
        rpc: RpcId,
        /// Who asks.
        peer: PeerId,
        /// At which of our ports.
        port: u16,
        /// Bytes of it.
        length: u32,
    },
    /// A request that was announced is wanted no more: work on it may stop, and an answer would go nowhere. An
    /// [`Outcome`] is not known at this side.
    Cancelled {
        /// The request.
        rpc: RpcId,
    },
    /// A response that was given has come to its end.
    Answered {
        /// The request.
        rpc: RpcId,
        /// Whether the client acknowledged it.
        acknowledged: bool,
    },
    /// One of our requests has its outcome. If that is [`Outcome::Delivered`], its response is here whole; otherwise what
    /// was kept of a response may go.
    Done {
        /// The request.
        rpc: RpcId,
        /// That of its call.
        cookie: u64,
        /// What became of it.
        outcome: Outcome,
        /// Bytes of the response.
        length: u32,
    },
    /// A request that had begun to arrive will not: what was kept of it may go.
    Discarded {
        /// The request.
        rpc: RpcId,
    },
    /// There is room again for what was refused as [`CallError::Full`] or [`RespondError::Full`].
    Room,
    /// An idle peer was forgotten to make room for another.
    PeerForgotten {
        /// Who.
        peer: PeerId,
    },
    /// A peer has not answered several questions in a row, and all requests to it have ended.
    PeerSilent {
        /// Who.
        peer: PeerId,
    },
}

/// Where the payload of a packet belongs. It must be copied before the next event is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The request, or the response to ours.
    pub rpc: RpcId,
    /// Who sent it.
    pub peer: PeerId,
    /// Our port: where the request goes, or from where ours was made.
    pub port: u16,
    /// That of the call to which it is the response; 0 for a request.
    pub cookie: u64,
    /// Whether it is a response to a request of ours.
    pub response: bool,
    /// Whether it is the first packet of its message here: whoever keeps messages makes room now, or calls
    /// [`postpone`](crate::Transport::postpone).
    pub first: bool,
    /// Bytes of the whole message.
    pub length: u32,
    /// The first byte's place in the message. The payload's length was checked: it does not reach beyond the message.
    pub offset: u32,
}

/// Why a request cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CallError {
    /// The peer was forgotten or removed.
    #[error("cannot call a peer that is not known any more; add it again")]
    NoPeer,
    /// `from` is no port of ours.
    #[error("cannot call from port {0}, which is not open here; open one first")]
    NoPort(u16),
    /// Its body is empty or too long.
    #[error("cannot send a request of {length} bytes to this peer; it takes 1 to {limit}")]
    Length {
        /// Bytes of it.
        length: usize,
        /// The most there may be.
        limit: u32,
    },
    /// Too many are under way.
    #[error("cannot have more than {0} requests under way; wait for the outcome of some")]
    TooMany(usize),
    /// Too much is waiting to be sent.
    #[error("cannot keep more than {0} bytes of unacknowledged messages; wait for `Room`")]
    Full(u64),
}

/// Why a response cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RespondError {
    /// The request has ended: its client went away or cancelled it. There is nothing left to do.
    #[error("nobody waits for this response any more")]
    Ended,
    /// The request is not whole, or was answered.
    #[error("cannot answer a request that was not announced or was already answered")]
    NotAsked,
    /// Its body is empty or too long.
    #[error("cannot send a response of {length} bytes to this peer; it takes 1 to {limit}")]
    Length {
        /// Bytes of it.
        length: usize,
        /// The most there may be.
        limit: u32,
    },
    /// Too much is waiting to be sent.
    #[error("cannot keep more than {0} bytes of unacknowledged messages; wait for `Room`")]
    Full(u64),
}

/// Why a port cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PortError {
    /// Not a server's.
    #[error("cannot bind port {0}; ports of servers are 1 to 32767")]
    NotServers(u16),
    /// Taken.
    #[error("cannot bind port {0}, which is already bound; close it first or take another")]
    InUse(u16),
    /// Too many.
    #[error("cannot open more than {0} ports; close some first")]
    TooMany(usize),
}

/// Why a peer cannot be added or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PeerError {
    /// All are in use, or were a moment ago.
    #[error("cannot know more than {0} peers, and none has been idle long enough to be forgotten")]
    TooMany(usize),
    /// There is no such link.
    #[error("cannot reach a peer over a link that was not added; add the link first")]
    NoLink,
    /// The peer was forgotten or removed.
    #[error("cannot change a peer that is not known any more; add it again")]
    NoPeer,
}
