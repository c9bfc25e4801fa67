//! What both halves of a session count alike: the price of units, and what may wait.

use steadfast_wire::RangeSet;

/// What the head of a message costs of the window, so that empty messages are not free.
pub(crate) const MESSAGE_COST: u64 = 64;

/// The most pairs of a waiting message and what it waits for; a sender keeps to half of it.
pub(crate) const MAX_AWAITED: usize = 65_536;

/// What the window pays for a set of units of a message.
pub(crate) fn cost(units: &RangeSet, length: Option<u64>) -> u64 {
    let end = length.is_some_and(|length| units.contains(length));
    let head = if units.contains(0) { MESSAGE_COST } else { 0 };
    units.count() - u64::from(end) + head
}
