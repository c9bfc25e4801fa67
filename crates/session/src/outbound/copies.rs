//! Messages that go out once more, on a second path.

use super::{Message, Outbound, Phase, is_small};
use crate::context::Context;
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
        !self.copies.is_empty()
    }

    /// The length of a whole message.
    pub(crate) fn length(&self, id: u64) -> Option<u64> {
        self.messages.get(&id)?.length
    }

    /// The length of a small, whole message that was just given to its first path as one frame; once for each message. What
    /// is foreground only because foreground waits for it is not among them.
    pub(crate) fn first_copy(&mut self, id: u64) -> Option<u64> {
        let message = self.messages.get_mut(&id)?;
        let wanted = message.labels.urgency == Urgency::Foreground
            && message.counts_as_small()
            && !message.head.streamed
            && message.pending.is_empty();
        let first = wanted && !core::mem::replace(&mut message.copied, true);
        message.length.filter(|_| first)
    }

    /// A whole message once more; the window has paid for it. `None` if that is of no use any more, or does not fit
    /// into `max` bytes of payload.
    pub(crate) fn copy_data(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: u64,
        max: usize,
    ) -> Option<(Range<u64>, Data)> {
        let message = self.messages.get(&id)?;
        let whole = message.whole()?;
        let length = whole.end - 1;
        let needed = message.phase == Phase::Live && !message.arrived.contains_range(whole.clone());
        if !needed || message.limits.is_expired(now) || length > max as u64 {
            return None;
        }
        let payload = message.payload.slice(0, length as usize);
        if payload.len() as u64 != length {
            return None;
        }
        cx.stats.bytes_redundant += length;
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
