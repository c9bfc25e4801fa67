//! What can go wrong with a call, and what each failure says about the request.

use crate::error::{ReadError, SessionError};
use crate::homa::{SendError as SendOverHoma, Silence};
use std::time::Duration;
use steadfast_session::{DropReason, Outcome, SendError};

/// Why a call has no response. [`outcome`](Self::outcome) says what became of its request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The request was not sent.
    #[error("the request was not sent: {0}")]
    NotSent(SendError),
    /// The request was surely not delivered.
    #[error("the request was not delivered ({0}); it may be made again")]
    NotDelivered(DropReason),
    /// For as long as the failure timeout of its labels says, no network that was up could carry the request. One that
    /// found none from the beginning is [`NotSent`](Self::NotSent).
    #[error("the request was given up ({}): {}", describe(*request), DropReason::NoNetwork)]
    NoNetwork {
        /// What was known of the request then.
        request: Outcome,
    },
    /// The other side did not begin the call.
    #[error("the peer refused the call: {0}")]
    Refused(String),
    /// The handler says that it failed, at most 1,024 bytes.
    #[error("the peer's handler failed: {0}")]
    Failed(String),
    /// The handler panicked.
    #[error("the peer's handler panicked: what it did until then was not undone")]
    Panicked,
    /// The server shut down and did not wait for the handler any longer.
    #[error("the peer shut down while its handler ran: what it did until then was not undone")]
    Stopped,
    /// The deadline passed, on either side.
    #[error("no response within {limit:?} ({}): allow more time, or look at the networks", describe(*request))]
    Deadline {
        /// How long the call was to last at most.
        limit: Duration,
        /// What was known of the request then.
        request: Outcome,
    },
    /// This side cancelled the call.
    #[error("the call was cancelled ({})", describe(*request))]
    Cancelled {
        /// What became of the request.
        request: Outcome,
    },
    /// The body of the request could not be made to its end, so the call was cancelled.
    #[error("the body of the request broke off ({}): {source}", describe(*request))]
    Body {
        /// What failed.
        source: BodyError,
        /// What was known of the request then.
        request: Outcome,
    },
    /// Over Homa the request was not sent.
    #[error("{0}")]
    NotSentOverHoma(SendOverHoma),
    /// Over Homa no response came.
    #[error("no response from port {port} of {peer} ({}): {reason}", describe(*request))]
    Unanswered {
        /// Who was asked.
        peer: String,
        /// At which port.
        port: u16,
        /// Why there is none.
        reason: Silence,
        /// What became of the request.
        request: Outcome,
    },
    /// The conversation ended first.
    #[error("no response ({}): {source}", describe(*request))]
    Ended {
        /// How.
        source: SessionError,
        /// What became of the request.
        request: Outcome,
    },
}

const fn describe(request: Outcome) -> &'static str {
    match request {
        Outcome::Delivered => "the request was delivered",
        Outcome::Dropped(_) => "the request was surely not executed",
        _ => "whether the request was executed is not known",
    }
}

impl CallError {
    /// What became of the request.
    ///
    /// [`Delivered`](Outcome::Delivered): the other side has it, and its handler ran, in part or to its end.
    /// [`Dropped`](Outcome::Dropped): it was surely not executed and will not be, so it may be made again.
    /// [`Unknown`](Outcome::Unknown): it may have been executed, in part or to its end, or may yet be until the other side
    /// hears that nobody waits.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NotSent(SendError::NoNetwork { .. })
            | Self::NotSentOverHoma(SendOverHoma::NoNetwork { .. }) => {
                Outcome::Dropped(DropReason::NoNetwork)
            }
            Self::NotSent(_) | Self::NotSentOverHoma(_) => Outcome::Dropped(DropReason::Cancelled),
            Self::NotDelivered(reason) => Outcome::Dropped(*reason),
            Self::Refused(_) => Outcome::Dropped(DropReason::Refused),
            Self::Failed(_) | Self::Panicked | Self::Stopped => Outcome::Delivered,
            Self::NoNetwork { request }
            | Self::Deadline { request, .. }
            | Self::Cancelled { request }
            | Self::Body { request, .. }
            | Self::Unanswered { request, .. }
            | Self::Ended { request, .. } => *request,
        }
    }
}

/// Why a body cannot be read or written to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The other side gave it up: what was read is not the whole.
    #[error("the other side gave the body up: what was read is not the whole")]
    Dropped,
    /// The conversation ended.
    #[error(transparent)]
    Ended(SessionError),
    /// Longer than the caller was ready to hold.
    #[error(
        "the body is longer than {limit} bytes: read it with `read_chunk`, or allow more with `into_bytes_within`"
    )]
    TooLong {
        /// Bytes that were allowed.
        limit: usize,
    },
    /// What was to make it failed.
    #[error("the body could not be made: {0}")]
    Failed(String),
    /// Nobody reads it any more.
    #[error("nobody wants the rest of the body")]
    Unwanted,
}

impl From<ReadError> for BodyError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Dropped => Self::Dropped,
            ReadError::Session(ended) => Self::Ended(ended),
            ReadError::TooLong { limit } => Self::TooLong { limit },
        }
    }
}

/// Why serving ended otherwise than in order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The conversation ended.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The peer says what is no call, or more than it may. The conversation was given up.
    #[error(
        "the peer broke the rules of calls ({0}): check that both sides use this conversation for calls alone"
    )]
    Violation(String),
    /// Not everything was said within the limit.
    #[error("the answers were not all taken within {0:?}: a longer limit lets a network come back")]
    Limit(Duration),
}
