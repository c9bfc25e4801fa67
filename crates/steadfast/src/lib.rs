//! Placeholder docs.

#![forbid(unsafe_code)]

mod builder;
mod carriers;
mod clock;
mod dial;
mod driver;
mod endpoint;
mod error;
mod events;
mod kernel;
mod message;
mod process;
mod receipt;
mod shared;
mod socket;
mod state;
mod trusted;
mod writer;

pub use builder::Builder;
pub use bytes::Bytes;
pub use endpoint::{Destination, Endpoint};
pub use error::{BindError, CloseError, ConnectError, ReadError, SessionError};
pub use events::Events;
pub use message::Message;
pub use receipt::Receipt;
pub use socket::MultiSocket;
pub use steadfast_net::scout::Override;
pub use steadfast_net::{DEFAULT_PORT, Identity, Places, ScoutConfig, Target, TrustFile};
pub use steadfast_session::{
    Config, DownReason, DropReason, Event, OrderRequest, Ordering, Outcome, PathInfo, SendError, SessionConfig, Stats,
};
pub use steadfast_wire::frame::EndReason;
pub use steadfast_wire::{
    Fingerprint, Labels, MessageId, Network, NetworkClass, NetworkId, PathNumber, Rule, Selector, SessionId, SizeClass,
    Urgency,
};
pub use writer::MessageWriter;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a panic elsewhere while it was held does not spread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
