//! New labels for a message that was sent under others.

use super::{Outbound, Phase};
use crate::event::SendError;
use steadfast_wire::{Labels, MessageId, Urgency};

impl Outbound {
    /// Changes the labels of a message that has no outcome yet; the order it was sent in stays.
    pub(crate) fn relabel(&mut self, id: MessageId, labels: Labels) -> Result<bool, SendError> {
        if !labels.rule.fits() {
            return Err(SendError::BadRule);
        }
        let Some(message) = self.messages.get_mut(&id.0).filter(|m| m.phase == Phase::Live) else {
            return Ok(false);
        };
        let urgent = labels.urgency == Urgency::Foreground;
        message.labels = labels;
        // Nothing is said of a message that a restart might take back.
        if !message.held {
            self.relabels.insert(id.0);
        }
        self.dequeue(id.0);
        if urgent {
            self.raise_predecessors(id.0);
        }
        self.enqueue(id.0);
        Ok(true)
    }

    /// The message's labels as the peer is to be told.
    pub(crate) fn labels(&self, id: u64) -> Option<&Labels> {
        self.messages.get(&id).map(|m| &m.labels)
    }
}
