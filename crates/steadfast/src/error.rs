//! What can go wrong, one enum for each verb.

use crate::state::Ended;
use std::time::Duration;
use steadfast_net::address::{AddressError, ResolveError};
use steadfast_net::carrier::BindError as ListenError;
use steadfast_net::identity::IdentityError;
use steadfast_net::places::PlacesError;
use steadfast_net::scout::ScoutError;
use steadfast_net::trust::TrustError;
use steadfast_store::StoreError;
use steadfast_wire::frame::EndReason;
use steadfast_wire::{Fingerprint, MessageId};

/// Why an endpoint could not be made, or not be revived.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Nobody knows where the identity lies.
    #[error(transparent)]
    Places(#[from] PlacesError),
    /// The identity cannot be read or made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The trusted peers cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The port cannot be listened on.
    #[error(transparent)]
    Listen(ListenError),
    /// The networks cannot be watched.
    #[error(transparent)]
    Networks(ScoutError),
    /// The system has no random numbers.
    #[error("cannot make an endpoint: the system's random number generator failed")]
    Random,
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No thread can be had to write the store.
    #[error("cannot start the thread that writes the store: {0}; let this user have more threads")]
    Thread(std::io::Error),
    /// It was called outside of a tokio runtime.
    #[error(
        "cannot make an endpoint here: `bind` must be awaited within a tokio runtime with its I/O and time drivers"
    )]
    NoRuntime,
    /// The endpoint was closed for good.
    #[error("the endpoint is closed: make a new one")]
    Closed,
}

/// Why no conversation came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The text names no peer.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No address was found.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Nobody of that name is trusted, so there is no key to expect.
    #[error(
        "cannot tell which key {target} must have: connect to KEY@{target} with the key that `steadfast id` prints there, or \
         name that peer once with `steadfast trust add KEY {name}`"
    )]
    UnknownPeer {
        /// What was to be connected.
        target: String,
        /// The name that was looked for.
        name: String,
    },
    /// That is this endpoint itself.
    #[error("{0} is this endpoint's own key: an endpoint does not converse with itself, make a second one")]
    Itself(Fingerprint),
    /// The peer refuses us.
    #[error("cannot converse with {peer}: {reason}")]
    Refused {
        /// Who.
        peer: Fingerprint,
        /// Its reason, and what would help.
        reason: String,
    },
    /// Nothing was heard in time.
    #[error(
        "no answer from {peer} at {addresses} within {limit:?}: check that it runs, that it listens on that port, and that a \
         network leads there"
    )]
    Unreachable {
        /// Who.
        peer: Fingerprint,
        /// Where.
        addresses: String,
        /// The limit that passed.
        limit: Duration,
    },
    /// It ended before it was open.
    #[error("the conversation with {peer} ended before it began: {ended}")]
    Ended {
        /// Who.
        peer: Fingerprint,
        /// How.
        ended: SessionError,
    },
    /// This endpoint is closed.
    #[error("the endpoint is closed: make a new one")]
    Closed,
}

/// A conversation that does not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// It has ended.
    #[error("the conversation has ended: {}", describe(*reason, words.as_deref(), *common))]
    Ended {
        /// Why.
        reason: EndReason,
        /// The peer's words, where it left.
        words: Option<String>,
        /// The last of our messages that the peer surely has with all before it, where the reason is a rollback.
        common: Option<MessageId>,
    },
    /// This endpoint has stopped, and the conversation goes on when its store is opened again.
    #[error("this endpoint has stopped: {0}")]
    Stopped(String),
    /// No message of this id is open.
    #[error("message {0} is not open: it has its outcome already, or was never sent")]
    NoMessage(MessageId),
}

/// Why reading a streamed message cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The sender gave the message up, or died: what was read of it is not the whole.
    #[error("the sender gave the message up: what was read is not the whole, wait for it to be sent again")]
    Dropped,
    /// The conversation ended.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Longer than the caller was ready to hold.
    #[error(
        "the message is longer than {limit} bytes: read it in pieces with `read_chunk`, or allow more with `into_bytes_within`"
    )]
    TooLong {
        /// Bytes that were allowed.
        limit: usize,
    },
}

/// Why a conversation did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The limit passed first; the conversation was given up.
    #[error(
        "the conversation could not be ended properly within {0:?} and was given up: messages without an outcome may or may \
         not have arrived; a longer limit lets a network come back"
    )]
    Limit(Duration),
    /// It ended otherwise.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<Ended> for SessionError {
    fn from(ended: Ended) -> Self {
        if let Some(why) = ended.stopped {
            return Self::Stopped(why);
        }
        Self::Ended { reason: ended.reason, words: ended.words, common: ended.common }
    }
}

fn describe(reason: EndReason, words: Option<&str>, common: Option<MessageId>) -> String {
    match reason {
        EndReason::Closed => "both sides closed it".into(),
        EndReason::Aborted => "one side gave it up; open a new one".into(),
        EndReason::RolledBack => match common {
            Some(last) => format!(
                "one side came back with an older state than the other knew; the last message that both surely have is {last}"
            ),
            None => "one side came back with an older state than the other knew".into(),
        },
        EndReason::Unknown => "the peer does not know it, it was probably restarted; open a new one".into(),
        EndReason::Forgotten => "no network came back within its limit; open a new one".into(),
        EndReason::Refused => "the peer accepts no more conversations; close some, or try later".into(),
        EndReason::Violation => {
            "the peer broke the protocol; check that both sides have the same version".into()
        }
        EndReason::Left => match words {
            Some(words) if !words.is_empty() => format!("the peer left, saying: {words:?}"),
            _ => "one side left".into(),
        },
        other => format!("{other:?}"),
    }
}
