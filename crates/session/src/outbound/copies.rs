//! Messages that go out once more, on a second path.

use super::{Message, Outbound, Phase, SMALL, is_small};
use core::ops::Range;
use steadfast_wire::frame::Data;
use steadfast_wire::{Instant, MessageId, Urgency};

impl Message {
    pub(super) fn counts_as_small(&self) -> bool {
        is_small(&self.labels, self.head.length.unwrap_or(u64::MAX))
    }
}

impl Outbound {
    pub(crate) fn has_copies(&self) -> bool {
        !self.special.copies.is_empty()
    }

    /// Whether a small, whole message was just given to its paths to the last unit, for the first time: later it is not
    /// new any more. What is foreground only because foreground waits for it is not among them.
    pub(crate) fn has_just_left(&mut self, id: u64) -> bool {
        let Some(message) = self.messages.get_mut(&id).filter(|m| !m.left && m.counts_as_small()) else {
            return false;
        };
        message.left = message.whole().is_some_and(|whole| message.charged.contains_range(whole));
        let urgent = message.labels.urgency == Urgency::Foreground;
        // Whatever its labels say: the copy is one frame, and everything else on its path waits for it.
        message.left && urgent && !message.head.streamed && message.length <= Some(SMALL)
    }

    /// A whole message once more; the window has paid for it. `None` if that is of no use any more.
    pub(crate) fn copy_data(&self, now: Instant, id: u64) -> Option<(Range<u64>, Data)> {
        let message = self.messages.get(&id)?;
        let whole = message.whole()?;
        let length = whole.end - 1;
        let needed = message.phase == Phase::Live && !message.arrived.contains_range(whole.clone());
        if !needed || message.limits.is_expired(now) {
            return None;
        }
        let payload = message.payload.slice(0, length as usize);
        if payload.len() as u64 != length {
            return None;
        }
        let data = Data {
            session: self.session,
            id: MessageId(id),
            offset: 0,
            class: message.class?,
            fin: true,
            head: Some(message.head_at(now)),
            payload,
        };
        Some((whole, data))
    }
}
