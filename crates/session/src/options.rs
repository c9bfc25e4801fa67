//! What the application says of one message besides its labels.

use alloc::vec::Vec;
use core::time::Duration;
use steadfast_wire::MessageId;

/// What a message waits for, as the application says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OrderRequest {
    /// As the session's default says.
    #[default]
    Default,
    /// Waits for nothing.
    Unordered,
    /// Waits for exactly these, and is dropped if one of them is.
    After(Vec<MessageId>),
}

/// What becomes of a message while no network that is up may carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Patience {
    /// What the failure timeout of its labels says: it is refused then, and dropped once it was without one for so long.
    #[default]
    Labels,
    /// The same, but it is not refused: its time counts from when it is accepted.
    Accepted,
    /// It waits for ever, whatever its labels say: for what a protocol owes its peer.
    Endless,
}

/// What a message waits for and how long it is worth delivering. The default: the session's order, for ever.
///
/// ```
/// use core::time::Duration;
/// use steadfast_session::SendOptions;
/// let position = SendOptions::new().unordered().expires_in(Duration::from_millis(500));
/// # assert!(position.lifetime.is_some());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SendOptions {
    /// What it waits for.
    pub order: OrderRequest,
    /// How long it is worth delivering, from the moment it was accepted for sending; `None` for ever.
    pub lifetime: Option<Duration>,
    /// What becomes of it without a network.
    pub patience: Patience,
}

impl SendOptions {
    /// The session's order, for ever.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits for nothing.
    #[must_use]
    pub fn unordered(mut self) -> Self {
        self.order = OrderRequest::Unordered;
        self
    }

    /// Waits for exactly these earlier messages, and is dropped if one of them is.
    #[must_use]
    pub fn after(mut self, ids: &[MessageId]) -> Self {
        self.order = OrderRequest::After(ids.to_vec());
        self
    }

    /// Is worth delivering only this long: afterwards it is dropped with
    /// [`DropReason::Expired`](crate::DropReason::Expired), and with it whatever was declared to wait for it.
    ///
    /// The time counts from the moment the message is accepted for sending. What never left is dropped surely. Of what
    /// did leave the receiver has the last word: it is asked to drop the message, and drops it by itself if its
    /// application has not taken it by then, even if nothing gets through any more. It learns how much time is left, not
    /// when it is over, because two hosts' clocks have nothing in common; so it may be late by the time that the bytes
    /// travelled and a thousandth, and is never early. A streamed message that is being read is dropped only by request.
    /// After a restart from a journal the time counts anew.
    #[must_use]
    pub const fn expires_in(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// Does this while no network fits.
    #[must_use]
    pub const fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }
}

impl From<OrderRequest> for SendOptions {
    fn from(order: OrderRequest) -> Self {
        Self { order, ..Self::default() }
    }
}
