//! What can go wrong with a call, and what each failure says about the request.

use crate::error::{ReadError, SessionError};
use crate::homa::{SendError as SendOverHoma, Silence};
use crate::verdict::Standing;
use std::fmt;
use std::time::Duration;
use steadfast_session::{DropReason, Outcome, SendError, Verdict};

/// The other side of a call that failed.
///
/// As text it says who, and what was known of it then: `KEY (crashed: its host answers, and nothing listens at ..)`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Callee {
    /// Its key; its address where nothing is proven.
    pub peer: String,
    /// What was known of its process when the call failed; `None` of an address.
    pub standing: Option<Standing>,
}

impl fmt::Display for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.standing {
            Some(standing) => write!(f, "{} ({standing})", self.peer),
            None => f.write_str(&self.peer),
        }
    }
}

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
    #[error("the request to {callee} was given up ({}): {}", describe(*request), DropReason::NoNetwork)]
    NoNetwork {
        /// Who was asked.
        callee: Box<Callee>,
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
    #[error("no response from {callee} within {limit:?} ({}): {}", describe(*request), advice(callee))]
    Deadline {
        /// Who was asked.
        callee: Box<Callee>,
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
    /// Over Homa the request was not sent, because the peer was not in reach.
    #[error("the request was not sent, {callee} is not in reach: {}", advice(callee))]
    OutOfReach {
        /// Who was to be asked.
        callee: Box<Callee>,
    },
    /// Over Homa no response came.
    #[error("no response from port {port} of {callee} ({}): {reason}", describe(*request))]
    Unanswered {
        /// Who was asked.
        callee: Box<Callee>,
        /// At which port.
        port: u16,
        /// Why there is none.
        reason: Silence,
        /// What became of the request.
        request: Outcome,
    },
    /// The conversation ended first.
    #[error("no response from {callee} ({}): {source}", describe(*request))]
    Ended {
        /// Who was asked.
        callee: Box<Callee>,
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

/// What would help.
fn advice(callee: &Callee) -> &'static str {
    match callee.standing.as_ref().map(|standing| standing.verdict) {
        Some(Verdict::Alive) => "allow more time, or see what it does so long",
        Some(Verdict::Left | Verdict::Crashed) => "start it again, and connect anew",
        Some(Verdict::Restarted) => "connect anew: another process is there",
        Some(Verdict::Hung) => "see what stops it, or stop it yourself",
        Some(Verdict::NoLocalNetwork) => "bring a network of this host up",
        Some(Verdict::Suspended) => "wait until it goes on",
        _ => "allow more time, or look at the networks",
    }
}

impl CallError {
    /// Who was asked and did not answer, with what was known of it then; `None` where it is not to blame, or answered.
    pub fn callee(&self) -> Option<&Callee> {
        match self {
            Self::NoNetwork { callee, .. }
            | Self::Deadline { callee, .. }
            | Self::OutOfReach { callee }
            | Self::Unanswered { callee, .. }
            | Self::Ended { callee, .. } => Some(callee),
            _ => None,
        }
    }

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
            Self::NotSent(_) | Self::NotSentOverHoma(_) | Self::OutOfReach { .. } => {
                Outcome::Dropped(DropReason::Cancelled)
            }
            Self::NotDelivered(reason) => Outcome::Dropped(*reason),
            Self::Refused(_) => Outcome::Dropped(DropReason::Refused),
            Self::Failed(_) | Self::Panicked | Self::Stopped => Outcome::Delivered,
            Self::NoNetwork { request, .. }
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
