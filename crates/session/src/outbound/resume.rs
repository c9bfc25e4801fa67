//! What was sent before: messages from a journal, and the peer's view of ours when a conversation goes on.

use super::{Limits, Outbound, Phase, remember_dropped};
use crate::context::Context;
use crate::event::DropReason;
use crate::journal::{Record, Summary};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::Range;
use core::time::Duration;
use steadfast_wire::frame::{Head, Resume, ShutKind};
use steadfast_wire::{Instant, MessageId, RangeSet};

impl Outbound {
    /// Puts a journalled message back.
    pub(crate) fn restore(&mut self, now: Instant, id: MessageId, head: &Head, payload: Option<Bytes>) {
        let class = head.labels.urgency.index();
        self.next = self.next.max(id.0 + 1);
        self.sequences[class] += 1;
        // Nobody knows how long the process was gone: its lifetime counts anew.
        let expires = head.expires_in.map(|left| now + Duration::from_micros(left));
        let limits = Limits { expires, restored: true, ..Limits::default() };
        self.insert(id.0, head.clone(), payload, limits, false);
        // It may have been sent before the restart: its outcome is the receiver's to say.
        if let Some(message) = self.messages.get_mut(&id.0) {
            message.class = Some(head.labels.urgency);
            message.exposed = true;
            if !head.streamed {
                // Of one that is to be dropped a store keeps no payload.
                message.length = head.length;
            }
        }
    }

    pub(crate) fn restore_cancelled(&mut self, id: MessageId, reason: DropReason) {
        if let Some(message) = self.messages.get_mut(&id.0) {
            message.phase = Phase::Dropping(reason);
            message.pending.clear();
        }
        self.unwatch(id.0);
        self.release_payload(id.0);
        self.dequeue(id.0);
        self.special.make().resets.insert(id.0);
    }

    pub(crate) fn restore_settled(&mut self, id: MessageId, delivered: bool) {
        self.unwatch(id.0);
        self.release_payload(id.0);
        self.dequeue(id.0);
        if let Some(special) = self.special.existing() {
            special.told(id.0);
        }
        if delivered {
            self.forget(id.0);
        } else if let Some(message) = self.messages.get_mut(&id.0) {
            message.phase = Phase::Known;
            message.pending.clear();
            message.reported = true;
            remember_dropped(&mut self.dropped, &mut self.memory_floor, id.0);
            self.special.make().resets.insert(id.0);
        }
    }

    pub(crate) fn restore_forgotten(&mut self, id: MessageId) {
        if self.messages.get(&id.0).is_some_and(|m| m.phase == Phase::Known) {
            if let Some(special) = self.special.existing() {
                special.told(id.0);
            }
            self.forget(id.0);
        }
    }

    pub(crate) fn restore_summary(&mut self, summary: &Summary) {
        self.next = summary.sent + 1;
        self.sequences = summary.sequences;
        self.dropped = summary.dropped.clone();
        self.memory_floor = summary.floor;
    }

    /// Messages of which the application was not told what became of them, in this process.
    pub(crate) fn unsettled(&self) -> Vec<MessageId> {
        self.messages.iter().filter(|(_, m)| !m.reported).map(|(id, _)| MessageId(*id)).collect()
    }

    /// After a restart nobody can go on writing what was being streamed.
    pub(crate) fn restored(&mut self, cx: &mut Context) {
        let streams: Vec<u64> = self
            .messages
            .iter()
            .filter(|(_, m)| m.head.streamed && m.phase == Phase::Live)
            .map(|(id, _)| *id)
            .collect();
        for id in streams {
            if let Some(message) = self.messages.get_mut(&id) {
                // It may have been sent in part, so only the receiver knows.
                message.phase = Phase::Dropping(DropReason::Restarted);
            }
            self.unwatch(id);
            cx.remember(self.session, Record::Cancelled(MessageId(id), DropReason::Restarted));
            self.special.make().resets.insert(id);
        }
    }

    /// Whether the peer's view of our messages contradicts ours: it lacks what we know it had (`Err(true)`), or has
    /// what we never sent (`Err(false)`).
    pub(crate) fn contradicts(&self, view: &Resume) -> Result<(), bool> {
        let beyond = |set: &RangeSet| set.max() >= Some(self.next);
        if beyond(&view.received) || beyond(&view.delivered) || beyond(&view.dropped) {
            return Err(false);
        }
        if view.partial.iter().any(|(id, _)| id.0 >= self.next) {
            return Err(false);
        }
        // Units that a message has not got, or not yet. Of one that is being dropped we may know less than the peer.
        let live = |id: &MessageId| self.messages.get(&id.0).filter(|m| m.phase == Phase::Live);
        let invented = |(id, units): &(MessageId, RangeSet)| {
            let end = live(id).map(|m| m.length.map_or(m.payload.end(), |length| length + 1));
            end.is_some_and(|end| units.max() >= Some(end))
        };
        let unfinished = self
            .messages
            .iter()
            .any(|(id, m)| m.phase == Phase::Live && m.length.is_none() && view.received.contains(*id));
        if view.partial.iter().any(invented) || unfinished {
            return Err(false);
        }
        let mut settled = view.delivered.clone();
        settled.extend(&view.dropped);
        for gap in settled.missing(1..self.next) {
            for id in gap {
                match self.messages.get(&id) {
                    None => return Err(true),
                    // Its bytes are gone here, because the peer had them.
                    Some(m) if m.acked && !self.peer_durable && !view.received.contains(id) => {
                        return Err(true);
                    }
                    Some(m) if m.phase == Phase::Known => return Err(true),
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Takes over the peer's view of our messages: what it has it has, everything else is sent as if for the first time.
    pub(crate) fn resume(&mut self, cx: &mut Context, now: Instant, view: &Resume) {
        self.used = view.charged;
        self.limit = view.limits;
        let partial: BTreeMap<u64, &RangeSet> =
            view.partial.iter().map(|(id, units)| (id.0, units)).collect();
        for id in self.messages.keys().copied().collect::<Vec<_>>() {
            if view.delivered.contains(id) {
                self.acked(cx, id);
                self.settle_delivered(cx, id);
                continue;
            }
            self.resume_message(cx, now, id, view, partial.get(&id).copied());
        }
        // The peer may still remember drops that we have forgotten.
        self.give_room(cx, 0, 0);
    }

    fn resume_message(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: u64,
        view: &Resume,
        partial: Option<&RangeSet>,
    ) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        // This side's clock may have stood still while it was away. A peer that closes refuses, and so may the reader of a
        // streamed message; of others nothing else is known to drop them.
        let closes = view.shut.is_some_and(|(_, kind)| kind == ShutKind::Close);
        let expires = message.limits.expires.is_some() && !message.head.streamed && !closes;
        let expired = expires || message.limits.may_be_over(now);
        let whole = view.received.contains(id);
        let has = match (whole, partial, message.whole()) {
            (true, _, Some(whole)) => RangeSet::from_iter([whole]),
            (true, Some(units), None) => {
                message.length = units.max();
                units.clone()
            }
            (_, Some(units), _) => units.clone(),
            _ => RangeSet::new(),
        };
        message.charged = has.clone();
        message.arrived = has;
        let end = message.length.map_or(message.payload.end(), |length| length + 1);
        let missing: Vec<Range<u64>> = message.arrived.missing(0..end).collect();
        let lost_start = missing.first().map(|range| range.start);
        message.pending.clear();
        if message.phase == Phase::Live {
            for range in missing {
                message.pending.insert(range);
            }
        }
        // A streamed message keeps only what had not arrived. If the peer lost the beginning, it cannot be told again.
        let broken =
            message.phase == Phase::Live && lost_start.is_some_and(|start| start < message.payload.start());
        self.dequeue(id);
        if view.dropped.contains(id) {
            self.settle_dropped(cx, id, expired);
            self.known_confirmed(MessageId(id));
        } else if broken {
            self.drop_message(cx, id, DropReason::Restarted);
        } else if self.messages.get(&id).is_some_and(|m| matches!(m.phase, Phase::Dropping(_))) {
            self.special.make().resets.insert(id);
        } else {
            if whole {
                self.acked(cx, id);
            }
            self.relabel_due(MessageId(id));
            self.enqueue(id);
        }
    }
}
