//! What goes wrong, by who must act.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use steadfast_backplane::protocol::Refused;
use steadfast_backplane::{Code, InboxError, Reason, SessionError, SubscriptionError, Violation};

/// Why a call did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens at the agent's socket.
    #[error(
        "cannot reach the agent of this host at {}: {error}; is `steadfast daemon` running, and is STEADFAST_AGENT right?",
        path.display()
    )]
    NoAgent {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The agent did not answer in time. What was asked may still happen; for a publication that is unknown.
    #[error("the agent at {} did not answer within {limit:?}; is `steadfast daemon` stopped or overloaded?", path.display())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// The time that it had.
        limit: Duration,
    },
    /// The connection ended before the answer: the event was published, or it was not.
    #[error(
        "the agent was gone before it answered: whether the event was published is unknown; publish again if twice does no harm"
    )]
    Unknown,
    /// The agent, or the subscription language, refuses it.
    #[error("{}", .0.words)]
    Refused(Refused),
    /// The agent ended the connection, again and again.
    #[error("the agent at {} ends each connection; does what listens there belong to Steadfast?", path.display())]
    Ended {
        /// The socket.
        path: PathBuf,
    },
    /// What listens there is no agent, or one of another version.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// It cannot be said.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Not with this client, or not any more.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// The text is no subscription.
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
}

impl Error {
    /// FTB's code for it.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::NoAgent { .. } => Code::NetworkNoRoute,
            Self::TimedOut { .. } | Self::Unknown | Self::Ended { .. } | Self::Violation(_) => {
                Code::NetworkGeneral
            }
            Self::Refused(refused) => refused.code,
            Self::Session(error) => error.code(),
            Self::Inbox(error) => error.code(),
            Self::Subscription(error) => error.code(),
        }
    }

    /// Why the agent refuses it; [`Reason::Other`] for all else, and from an agent that is older.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Refused(refused) => refused.reason,
            _ => Reason::Other,
        }
    }

    /// Whether the agent could not be spoken with, which may be better later.
    #[must_use]
    pub const fn is_connection(&self) -> bool {
        matches!(
            self,
            Self::NoAgent { .. }
                | Self::TimedOut { .. }
                | Self::Unknown
                | Self::Ended { .. }
                | Self::Violation(_)
        )
    }
}
