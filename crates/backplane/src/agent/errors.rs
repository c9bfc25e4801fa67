//! Why the agent refuses something, with FTB's code for it.

use crate::code::Code;
use crate::name::{EventName, EventSpace};
use crate::queue::SubscriptionId;
use crate::reason::Reason;
use crate::schema::MAX_DECLARED;
use core::time::Duration;
use thiserror::Error;

/// Why a client is not attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The agent has as many clients as it takes.
    #[error(
        "cannot connect to the backplane: this host's agent has its {0} clients already; disconnect some"
    )]
    Full(usize),
    /// The user has as many clients as one may have.
    #[error("cannot connect to the backplane: this user has its {0} clients already; disconnect some")]
    UserFull(usize),
}

impl AttachError {
    /// FTB's code for it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Full(_) | Self::UserFull(_) => Code::General,
        }
    }

    /// The same for programs.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Full(_) | Self::UserFull(_) => Reason::TooMany,
        }
    }
}

/// Why events are not declared, or not all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeclareError {
    /// The client is not attached, or not any more.
    #[error("cannot declare events for a client that is not connected; connect first")]
    NotAttached,
    /// The client has no event space.
    #[error("cannot declare events without an event space; connect with one")]
    NoSpace,
    /// It would be more than [`MAX_DECLARED`].
    #[error("cannot declare more than {MAX_DECLARED} events for one client; use several clients")]
    TooMany,
    /// This one was declared before and stays as it was. All others are declared.
    #[error("`{0}` was declared already and stays as it was; the other events are declared")]
    Duplicate(EventName),
}

impl DeclareError {
    /// FTB's code for it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::NotAttached => Code::InvalidHandle,
            Self::NoSpace => Code::EventSpaceFormat,
            Self::TooMany => Code::General,
            Self::Duplicate(_) => Code::DuplicateEvent,
        }
    }

    /// The same for programs.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::TooMany => Reason::TooMany,
            Self::NotAttached | Self::NoSpace | Self::Duplicate(_) => Reason::Other,
        }
    }
}

/// Why an event is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The client is not attached, or not any more.
    #[error("cannot publish for a client that is not connected; connect first")]
    NotAttached,
    /// The client has not declared it.
    #[error("cannot publish `{0}`: this client has not declared it; declare it with its severity first")]
    Undeclared(EventName),
    /// A rule of the host refuses it.
    #[error(
        "user {user} may not publish in `{space}`; whoever runs this host's daemon can allow it in its configuration"
    )]
    Denied {
        /// Where.
        space: EventSpace,
        /// Who.
        user: u32,
    },
    /// More than the client or its user may publish.
    #[error(
        "cannot publish that fast; try again in {retry_after:?}, or raise the rate in the daemon's configuration"
    )]
    TooFast {
        /// When there is room again.
        retry_after: Duration,
    },
    /// What leaves the host is not confirmed, and no more can be kept.
    #[error(
        "cannot acknowledge: what waits to leave this host fills its room; check the broker, or try again later"
    )]
    OutboxFull,
    /// It cannot be stored, and so would not outlast the agent.
    #[error(
        "cannot acknowledge: this host's agent cannot store events now; see `steadfast status`, or publish without acknowledgement"
    )]
    NotStored,
}

impl PublishError {
    /// FTB's code for it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::NotAttached => Code::InvalidHandle,
            Self::Undeclared(_) => Code::InvalidEventName,
            Self::Denied { .. } | Self::TooFast { .. } | Self::OutboxFull | Self::NotStored => Code::General,
        }
    }

    /// The same for programs.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::NotAttached | Self::Undeclared(_) => Reason::Other,
            Self::Denied { .. } => Reason::Denied,
            Self::TooFast { .. } => Reason::TooFast,
            Self::OutboxFull => Reason::OutboxFull,
            Self::NotStored => Reason::NotStored,
        }
    }
}

/// Why a subscription does not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The client is not attached, or not any more.
    #[error("cannot subscribe for a client that is not connected; connect first")]
    NotAttached,
    /// The client uses this number already.
    #[error("the client has a subscription {} already; use another number", .0.0)]
    Taken(SubscriptionId),
    /// As many as one client may have.
    #[error("a client has at most {0} subscriptions; end one first, or use several clients")]
    TooMany(usize),
    /// A rule of the host refuses it.
    #[error(
        "user {user} may not subscribe to `{space}`; whoever runs this host's daemon can allow it in its configuration"
    )]
    Denied {
        /// Where.
        space: EventSpace,
        /// Who.
        user: u32,
    },
}

impl SubscribeError {
    /// FTB's code for it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::NotAttached => Code::InvalidHandle,
            Self::Taken(_) => Code::DuplicateCall,
            Self::TooMany(_) | Self::Denied { .. } => Code::General,
        }
    }

    /// The same for programs.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::NotAttached | Self::Taken(_) => Reason::Other,
            Self::TooMany(_) => Reason::TooMany,
            Self::Denied { .. } => Reason::Denied,
        }
    }
}

/// Why a subscription cannot be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnsubscribeError {
    /// The client is not attached, or not any more.
    #[error("cannot end a subscription of a client that is not connected")]
    NotAttached,
    /// The client has no such subscription.
    #[error("the client has no subscription {}; it may have been ended already", .0.0)]
    Unknown(SubscriptionId),
}

impl UnsubscribeError {
    /// FTB's code for it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::NotAttached | Self::Unknown(_) => Code::InvalidHandle,
        }
    }
}
