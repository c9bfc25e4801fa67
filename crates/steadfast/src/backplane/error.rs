//! Why something is not done by the backplane.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use steadfast_backplane::{
    Code, InboxError, NameError, PayloadTooLong, Reason, SchemaError, SessionError, SubscriptionError,
};

/// Why something is not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackplaneError {
    /// Nobody is at the socket.
    #[error("cannot reach the agent of this host at {}: {error}; is `steadfast daemon` running, and is STEADFAST_AGENT right?", path.display())]
    NoAgent {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The agent did not answer.
    #[error(
        "cannot {what}: the agent of this host did not answer within {limit:?}; is it running? see `steadfast status`"
    )]
    Late {
        /// What was attempted.
        what: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The agent says no.
    #[error("{words}")]
    Refused {
        /// FTB's code for it.
        code: Code,
        /// Why; an agent that is older says [`Reason::Other`].
        reason: Reason,
        /// After which time it may go better.
        retry_after: Option<Duration>,
        /// The agent's reason.
        words: String,
    },
    /// The connection to the agent ended before the answer: it was published, or it was not.
    #[error(
        "the agent ended before it answered: the event was published, or it was not; look for it, or publish it again if twice does no harm"
    )]
    Unknown,
    /// The client was closed, or the agent refuses it.
    #[error("this client of the backplane has ended{}; connect anew", reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default())]
    Closed {
        /// The agent's reason.
        reason: Option<String>,
    },
    /// It cannot be said now.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A subscription is none.
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    /// A name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A payload is too long.
    #[error(transparent)]
    Payload(#[from] PayloadTooLong),
    /// A schema file is none.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// There are too many subscriptions.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// The client publishes nowhere.
    #[error("cannot declare events without an event space; connect with one")]
    NoSpace,
    /// The agent answers something else.
    #[error("the agent answers what was not asked; update the older of agent and program")]
    Protocol,
}

impl BackplaneError {
    /// FTB's code for it.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NoAgent { .. } => Code::NetworkNoRoute,
            Self::Late { .. } | Self::Closed { .. } | Self::Protocol => Code::NetworkGeneral,
            Self::Refused { code, .. } => *code,
            Self::Unknown => Code::General,
            Self::Session(error) => error.code(),
            Self::Subscription(error) => error.code(),
            Self::Name(error) => error.code(),
            Self::Payload(_) => Code::InvalidValue,
            Self::Schema(error) => error.code(),
            Self::Inbox(error) => error.code(),
            Self::NoSpace => Code::EventSpaceFormat,
        }
    }
}
