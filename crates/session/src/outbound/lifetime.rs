//! How long a message may wait: its expiry, and how long it may be without a network.

use super::{Message, Outbound, Phase};
use crate::context::Context;
use crate::event::{DropReason, Event};
use core::time::Duration;
use steadfast_wire::{Instant, MessageId, Rule};

/// What limits a message's wait.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    /// It is worth nothing from then on.
    pub(super) expires: Option<Instant>,
    /// How long it may be without a network; `None` for ever.
    pub(super) patience: Option<Duration>,
    /// It is without a network, and has been long enough then.
    pub(super) stranded: Option<Instant>,
    /// It came back from a journal, so that the receiver may have counted its lifetime from an earlier moment.
    pub(super) restored: bool,
}

impl Limits {
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// Whether the receiver may have found it expired. It is told how much time is left and adds to that, so it finds out
    /// after this side's clock says so, if not before this side's timer runs.
    pub(super) fn may_be_over(&self, now: Instant) -> bool {
        self.is_expired(now) || (self.restored && self.expires.is_some())
    }

    /// What is left of its lifetime, in microseconds.
    pub(super) fn left(&self, now: Instant) -> Option<u64> {
        self.expires.map(|at| micros(at.since(now)))
    }
}

/// As the wire says it.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(steadfast_wire::varint::MAX)
}

impl Message {
    /// Whether it still needs a network: the peer's library has not all of it.
    fn needs_network(&self) -> bool {
        let arrived = self.whole().is_some_and(|whole| self.arrived.contains_range(whole));
        self.phase == Phase::Live && !self.acked && !arrived
    }
}

impl Outbound {
    /// Whether a message waits for a path that it may use.
    pub(crate) fn waits(&self) -> bool {
        !self.unroutable.is_empty()
    }

    /// The rules of all messages that wait for a path that they may use, each once.
    pub(crate) fn waiting_rules(&self) -> impl Iterator<Item = &Rule> {
        self.unroutable.rules()
    }

    /// The rules of all that the peer's library has not whole, as often as they occur; without those that say nothing.
    pub(crate) fn rules_in_use(&self) -> impl Iterator<Item = &Rule> {
        let ruled = self.messages.values().filter(|m| !m.labels.rule.is_empty());
        ruled.filter(|m| m.needs_network()).map(|m| &m.labels.rule)
    }

    /// Whoever waits for room is to look again: what it waits to say may have no network now, or no message any more.
    pub(crate) fn try_again(&mut self, cx: &mut Context) {
        if core::mem::take(&mut self.refused).contains(&true) {
            cx.event(Event::Writable { session: self.session });
        }
    }

    /// A message has been dropped: if it was still being written, its writer waits for nothing.
    pub(super) fn release_writer(&mut self, cx: &mut Context, id: u64) {
        if self.messages.get(&id).is_some_and(|m| m.length.is_none()) {
            self.try_again(cx);
        }
    }

    /// When the wait of a message is over.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.special.deadlines.first().map(|(at, _)| *at)
    }

    /// Begins to watch a new message's limits.
    pub(super) fn watch(&mut self, id: u64) {
        let Some(limits) = self.messages.get(&id).map(|m| m.limits) else { return };
        if let Some(at) = limits.expires {
            self.special.make().deadlines.insert((at, id));
        }
        if limits.patience.is_some() {
            self.special.make().impatient.insert(id);
        }
    }

    /// The message is on its way out, one way or the other.
    pub(super) fn unwatch(&mut self, id: u64) {
        let (Some(message), Some(special)) = (self.messages.get(&id), self.special.existing()) else {
            return;
        };
        for at in [message.limits.expires, message.limits.stranded].into_iter().flatten() {
            special.deadlines.remove(&(at, id));
        }
        special.release(id);
    }

    /// Drops what has waited too long.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context, now: Instant) {
        while let Some(id) = self.over(now) {
            let Some(limits) = self.messages.get(&id).filter(|m| m.phase == Phase::Live).map(|m| m.limits)
            else {
                continue;
            };
            let reason = if limits.is_expired(now) {
                DropReason::Expired
            } else if limits.stranded.is_some_and(|at| at <= now) {
                DropReason::NoNetwork
            } else {
                continue;
            };
            self.drop_message(cx, id, reason);
            if self.is_open(MessageId(id)) {
                cx.event(Event::GivenUp { session: self.session, id: MessageId(id), reason });
            }
        }
    }

    /// Takes out the message that has waited longest for something, if that is over.
    fn over(&mut self, now: Instant) -> Option<u64> {
        let deadlines = &mut self.special.existing()?.deadlines;
        deadlines.first().filter(|(at, _)| *at <= now)?;
        deadlines.pop_first().map(|(_, id)| id)
    }

    /// Messages that may be without a network for so long only, with their rules.
    pub(crate) fn impatient(&self) -> impl Iterator<Item = (u64, &Rule)> {
        self.special.impatient.iter().filter_map(|id| self.messages.get(id).map(|m| (*id, &m.labels.rule)))
    }

    pub(crate) fn has_impatient(&self) -> bool {
        !self.special.impatient.is_empty()
    }

    /// Whether a network that is up may carry the message.
    pub(crate) fn set_routable(&mut self, now: Instant, id: u64, routable: bool) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        let stranded = !routable && message.needs_network();
        let Limits { expires, patience, stranded: before, .. } = message.limits;
        if stranded == before.is_some() {
            return;
        }
        message.limits.stranded = patience.map(|patience| now + patience).filter(|_| stranded);
        let after = message.limits.stranded;
        // It may expire at that very moment.
        if before.is_none() && after.is_none() {
            return;
        }
        let deadlines = &mut self.special.make().deadlines;
        if let Some(at) = before.filter(|_| before != expires) {
            deadlines.remove(&(at, id));
        }
        deadlines.extend(after.map(|at| (at, id)));
    }

    pub(super) fn check_limits(&self) {
        for (at, id) in &self.special.deadlines {
            let limits = self.messages.get(id).map(|m| m.limits).unwrap_or_default();
            assert!([limits.expires, limits.stranded].contains(&Some(*at)), "{id} has a deadline of its own");
        }
        for (id, message) in self.messages.iter().filter(|(_, m)| m.phase == Phase::Live) {
            let entered =
                |at: Option<Instant>| at.is_none_or(|at| self.special.deadlines.contains(&(at, *id)));
            assert!(entered(message.limits.expires), "{id} would never expire");
            assert!(entered(message.limits.stranded), "{id} would wait for ever");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Ordering};
    use crate::event::Outcome;
    use crate::options::SendOptions;
    use alloc::vec::Vec;
    use bytes::Bytes;
    use steadfast_wire::frame::{Ack, Resume, ShutKind};
    use steadfast_wire::{Fingerprint, Labels, RangeSet, SessionId};

    const SESSION: SessionId = SessionId(1);
    const SECOND: Duration = Duration::from_secs(1);
    const START: Instant = Instant(5_000_000_000);

    fn view(dropped: RangeSet, shut: Option<(MessageId, ShutKind)>) -> Resume {
        Resume {
            session: SESSION,
            fresh: false,
            per_urgency: false,
            expects: true,
            confirmed: None,
            offered: Vec::new(),
            holds: None,
            next: MessageId(1),
            shut,
            received: RangeSet::new(),
            delivered: RangeSet::new(),
            dropped,
            partial: Vec::new(),
            charged: [0; 2],
            limits: [1 << 20; 2],
        }
    }

    /// What is reported of a message that is worth two seconds and was sent, after the peer spoke.
    fn outcome(streamed: bool, says: impl FnOnce(&mut Outbound, &mut Context, RangeSet)) -> Option<Outcome> {
        let mut cx = Context::new(Config::default(), Fingerprint([1; 32]), [1; 32]);
        let mut out = Outbound::new(SESSION, Ordering::Total, 1 << 20);
        out.peer_says([1 << 20; 2], 1 << 20, false);
        let payload = (!streamed).then(|| Bytes::from_static(b"short"));
        let options = SendOptions::new().expires_in(2 * SECOND);
        let id = out.send(&mut cx, START, Labels::foreground(), options, None, payload, None).unwrap();
        if streamed {
            out.write(&cx, id, Bytes::from_static(b"short")).unwrap();
        }
        out.next_data(&mut cx, START, id.0, 1000).unwrap();
        let mut dropped = RangeSet::new();
        dropped.insert_one(id.0);
        says(&mut out, &mut cx, dropped);
        cx.events.into_iter().find_map(|event| match event {
            Event::Outcome { outcome, .. } => Some(outcome),
            _ => None,
        })
    }

    #[test]
    fn what_the_receiver_found_expired_is_not_called_refused() {
        let refused = Some(Outcome::Dropped(DropReason::Refused));
        let expired = Some(Outcome::Dropped(DropReason::Expired));
        // The timer of this side has not run yet, or its time is not over.
        for (after, reason) in [(3 * SECOND, expired), (2 * SECOND, expired), (SECOND, refused)] {
            for streamed in [false, true] {
                let told = outcome(streamed, |out, cx, dropped| {
                    let ack = Ack { dropped, ..Ack::default() };
                    out.handle_ack(cx, START + after, &ack).unwrap();
                });
                assert_eq!(told, reason, "after {after:?}, streamed {streamed}");
            }
        }
        // This side's clock may have stood still while it was away.
        let close = (MessageId(0), ShutKind::Close);
        let finish = (MessageId(0), ShutKind::Finish);
        for (streamed, shut, reason) in [
            (false, None, expired),
            (false, Some(finish), expired),
            (false, Some(close), refused),
            (true, None, refused),
        ] {
            let told = outcome(streamed, |out, cx, dropped| {
                out.resume(cx, START + SECOND, &view(dropped, shut));
            });
            assert_eq!(told, reason, "streamed {streamed}, {shut:?}");
        }
    }
}
