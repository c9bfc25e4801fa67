//! What can go wrong, one enum for each verb.

use crate::error::ConnectError;
use std::fmt;
use steadfast_homa::packet::Refusal;
use steadfast_homa::{PortError, Reason};
use steadfast_net::datagram::SocketError;

/// Why there is no Homa transport, no peer, or no port of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomaError {
    /// Its socket could not be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The port cannot be had.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The peer cannot be told or found.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The other side has no Homa.
    #[error(
        "cannot call {peer} over Homa: it runs, but offers none; call `Endpoint::homa` there, or use a conversation"
    )]
    NotOffered {
        /// Who.
        peer: String,
    },
    /// It is a transport between keys, or one between addresses.
    #[error("cannot reach {peer} like this: {advice}")]
    Kind {
        /// Who.
        peer: String,
        /// What would help.
        advice: &'static str,
    },
    /// The system has no random numbers.
    #[error("cannot open a Homa transport: the system's random number generator failed")]
    Random,
    /// It was closed.
    #[error("the Homa transport is closed: open a new one")]
    Closed,
}

/// Why a request was not sent. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// As many are unanswered as may be.
    #[error("cannot have more than {limit} unanswered requests: wait for the outcome of some")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },
    /// As much is waiting to be sent as may be.
    #[error("cannot keep more than {limit} bytes of unacknowledged requests: wait for the outcome of some")]
    Full {
        /// Bytes that may be kept.
        limit: u64,
    },
    /// Its body is empty or too long.
    #[error(
        "cannot send a request of {length} bytes over Homa, which takes 1 to {limit}: use a conversation"
    )]
    Length {
        /// Bytes of it.
        length: usize,
        /// The most there may be.
        limit: u32,
    },
    /// The peer is not in reach.
    #[error("cannot send a request to a peer that is not in reach at present: connect again, or wait")]
    NoPeer,
    /// No path that is up may carry it.
    #[error(
        "cannot send a request: no network that is up may carry it (rule: {rule}); allow it more networks"
    )]
    NoNetwork {
        /// The rule.
        rule: String,
    },
    /// Its labels ask for what Homa does not do.
    #[error("cannot send a {what} request over Homa: {advice}")]
    Labels {
        /// What was asked for.
        what: &'static str,
        /// What would help.
        advice: &'static str,
    },
    /// Calls under as many rules are made to this peer as may be.
    #[error("cannot call one process under more than {limit} network rules: use fewer, or a conversation")]
    TooManyRules {
        /// How many there may be.
        limit: usize,
    },
    /// As many peers are known as may be.
    #[error("cannot know more peers: all that are known have requests under way, or had a moment ago")]
    TooManyPeers,
    /// The transport, or the port, was closed.
    #[error("the Homa transport, or this port of it, is closed: open it again")]
    Closed,
}

impl SendError {
    /// Whether it may go as soon as others have ended.
    pub(crate) const fn is_temporary(&self) -> bool {
        matches!(self, Self::TooMany { .. } | Self::Full { .. })
    }
}

/// Why a request has no response, in words for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Silence {
    /// The transport says so.
    Transport(Reason),
    /// What came is no answer to a call.
    NoCall,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Transport(reason) = self else {
            return f.write_str("what came back is no answer to a call; see what serves the port there");
        };
        f.write_str(match reason {
            Reason::Timeout => "the peer was silent; see whether it runs and whether packets reach it",
            Reason::Deadline => "the deadline passed; allow more time",
            Reason::Cancelled => "this side cancelled it",
            Reason::Refused(Refusal::NoSuchPort) => {
                "nobody serves that port there; start the server, or call another port"
            }
            Reason::Refused(Refusal::TooLong) => "it is longer than the peer takes; send less at once",
            Reason::Refused(Refusal::Gone) => "its response is no longer there",
            Reason::Refused(Refusal::Abandoned) => "the server gave up on it",
            Reason::Refused(Refusal::NoRoom) => "the peer has no room for it; send less at once, or later",
            Reason::Forgotten => "the server had it and does not know it any more",
            Reason::TooLong => {
                "the response is longer than the call takes; allow more, or use a conversation"
            }
            Reason::Restarted => "the process that was asked has ended",
            Reason::Unreachable => {
                "the peer cannot be reached: nobody listens there, or there is no way to it"
            }
            Reason::Closed => "the transport or its port was closed on this side",
            _ => "the transport gave it up",
        })
    }
}
