//! One conversation: its two halves, whether it is joined to the peer, and how it ends.

use crate::config::{Ordering, SessionConfig};
use crate::context::Context;
use crate::deferral::Deferrals;
use crate::epoch::Epoch;
use crate::event::Event;
use crate::inbound::Inbound;
use crate::journal::{Effect, Record};
use crate::ledger::Dues;
use crate::outbound::Outbound;
use crate::policy::Policies;
use crate::seldom::Seldom;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;
use steadfast_wire::frame::{Ack, EndReason, Resume, ShutKind};
use steadfast_wire::{Frame, Instant, MessageId, SessionId, Urgency};

/// Whether the two sides agree that they are in this conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    /// We opened it and the peer has not said that it knows.
    Opening,
    /// Both know.
    Active,
    /// No path.
    Parked,
    /// There is a path again; RESUME is due or said, the peer's is awaited.
    ExpectResume,
}

/// An END to say: the session, the reason, and the last message of the peer that is surely here.
pub(crate) type Ending = (SessionId, EndReason, MessageId);

/// Something of a session that was said on a path and may be lost with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Data(MessageId, Range<u64>),
    Ack(Ack),
    Credit(Urgency),
    Reset(MessageId, bool),
    Relabel(MessageId),
    Shut,
    Open,
    Accept,
    Confirm,
    Resume,
}

/// Frames that are due; each is built when there is room for it.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) open: bool,
    pub(crate) accept: bool,
    pub(crate) confirm: bool,
    pub(crate) resume: bool,
    pub(crate) shut: bool,
}

/// What an empty session takes, here and in a driver, in bytes.
const SESSION_WEIGHT: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) opener: bool,
    pub(crate) config: SessionConfig,
    pub(crate) join: Join,
    pub(crate) epoch: Epoch,
    pub(crate) out: Outbound,
    pub(crate) inb: Inbound,
    pub(crate) policies: Seldom<Policies>,
    pub(crate) deferrals: Seldom<Deferrals>,
    /// What it adds to the dues of its association.
    pub(crate) noted: Dues,
    /// Since when it is in its association: what flew before was another's.
    pub(crate) joined_at: Instant,
    pub(crate) due: Due,
    /// The application has taken it with `accept`, or opened it.
    pub(crate) accepted: bool,
    /// Another process of the peer had it, and this one has not claimed it yet.
    pub(crate) succeeds: bool,
    /// ACK frames on their way.
    acks_flying: u32,
    shut_arrived: bool,
    /// The application knows that the peer knows the session.
    pub(crate) told_opened: bool,
    /// Our claim may not have arrived: anything else could overtake it on another path.
    claiming: bool,
    /// It was said at least once.
    claim_said: bool,
    pub(crate) parked_at: Option<Instant>,
    /// The application knows that it is parked.
    told_parked: bool,
    /// When a claim of the peer was last taken over.
    resumed_at: Option<Instant>,
    pub(crate) notice_at: Option<Instant>,
    pub(crate) limit_at: Option<Instant>,
    pub(crate) close_at: Option<Instant>,
}

impl Session {
    pub(crate) fn new(cx: &Context, id: SessionId, opener: bool, config: SessionConfig) -> Self {
        Self {
            id,
            opener,
            config,
            join: if opener { Join::Opening } else { Join::Active },
            epoch: Epoch::default(),
            out: Outbound::new(id, config.ordering, cx.config.max_message),
            inb: Inbound::new(id, &cx.config),
            policies: Seldom::default(),
            deferrals: Seldom::default(),
            noted: Dues::default(),
            joined_at: Instant(0),
            due: Due { open: opener, ..Due::default() },
            succeeds: false,
            accepted: opener,
            acks_flying: 0,
            shut_arrived: false,
            told_opened: !opener,
            claiming: false,
            claim_said: false,
            told_parked: false,
            parked_at: None,
            resumed_at: None,
            notice_at: None,
            limit_at: None,
            close_at: None,
        }
    }

    /// The default order as the wire says it.
    pub(crate) fn per_urgency(&self) -> bool {
        self.config.ordering == Ordering::PerUrgency
    }

    /// What it takes of this side.
    pub(crate) fn dues(&self) -> Dues {
        Dues {
            held: self.inb.memory() + if self.opener { 0 } else { SESSION_WEIGHT },
            grown: self.inb.grown(),
            parked: u64::from(!self.opener && self.join == Join::Parked),
            waiting: u64::from(!self.accepted),
            opened: u64::from(!self.opener),
        }
    }

    /// When something of this session is due by the clock.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        let waits = [self.out.timeout(), self.inb.timeout(), self.deferrals.timeout()];
        [self.notice_at, self.limit_at, self.close_at].into_iter().chain(waits).flatten().min()
    }

    /// Whose wait is over by now is dropped, or told.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context, now: Instant) {
        self.out.handle_timeout(cx, now);
        self.inb.handle_timeout(cx, now);
        if self.deferrals.existing().is_some_and(|deferrals| deferrals.handle_timeout(now)) {
            cx.event(Event::Suitable { session: self.id });
        }
    }

    /// The last path is gone.
    pub(crate) fn park(&mut self, cx: &mut Context, now: Instant) {
        if self.join == Join::Parked {
            return;
        }
        self.join = Join::Parked;
        self.parked_at = Some(now);
        self.limit_at = self.config.park_limit.map(|limit| now + limit);
        match self.config.park_notice {
            Some(Duration::ZERO) => self.tell_parked(cx),
            Some(wait) => self.notice_at = Some(now + wait),
            None => {}
        }
    }

    /// There is a path again: claim the conversation under a new token.
    pub(crate) fn claim(&mut self, cx: &mut Context) {
        self.join = Join::ExpectResume;
        self.claiming = true;
        self.claim_said = false;
        self.due.accept = false;
        self.due.resume = false;
        let token = self.epoch.offer(cx);
        if cx.record(self.id, Record::Offered(token), Effect::Claim(token)).is_some() {
            self.due.resume = true;
        }
    }

    /// Says that no network is left.
    pub(crate) fn tell_parked(&mut self, cx: &mut Context) {
        self.notice_at = None;
        self.told_parked = true;
        cx.event(Event::Parked { session: self.id });
    }

    /// Both sides are in it.
    pub(crate) fn joined(&mut self, cx: &mut Context) {
        // Its first path may have been lost before the peer's answer came.
        if !core::mem::replace(&mut self.told_opened, true) {
            cx.event(Event::Opened { session: self.id });
        }
        self.told_parked = false;
        if self.parked_at.take().is_some()
            && self.notice_at.take().is_none()
            && self.config.park_notice.is_some()
        {
            cx.event(Event::Resumed { session: self.id });
        }
        self.limit_at = None;
        self.join = Join::Active;
    }

    /// The peer holds this token of ours.
    pub(crate) fn confirmed(&mut self, cx: &mut Context, token: steadfast_wire::Token) {
        if self.epoch.confirm(token) {
            cx.remember(self.id, Record::Confirmed(token));
        }
        self.claiming &= self.epoch.is_offering();
    }

    /// It leaves its association: nothing of it is on its way any more.
    pub(crate) const fn detached(&mut self) {
        self.acks_flying = 0;
    }

    /// Whether DATA and its like may be said now.
    pub(crate) const fn may_send(&self) -> bool {
        matches!(self.join, Join::Opening | Join::Active) && !self.claiming
    }

    /// Something said on a path that is now in doubt.
    pub(crate) fn lost(&mut self, item: &Item) {
        match item {
            Item::Data(id, units) => self.out.lost(*id, units),
            Item::Ack(ack) => {
                self.acks_flying -= 1;
                self.inb.ack_lost(ack);
            }
            Item::Credit(class) => self.inb.credit_due[class.index()] = true,
            Item::Reset(id, _) => self.out.reset_confirmed(*id),
            Item::Relabel(id) => self.out.relabel_due(*id),
            Item::Shut => self.due.shut = !self.shut_arrived,
            // A claim made meanwhile says more.
            Item::Accept => self.due.accept = self.join == Join::Active && !self.claiming,
            Item::Confirm => self.due.confirm = true,
            Item::Resume => {
                self.due.resume = self.join == Join::ExpectResume || self.epoch.is_offering();
                self.claiming &= self.due.resume;
            }
            Item::Open => self.due.open = self.join == Join::Opening,
        }
    }

    /// Something said on a path arrived.
    pub(crate) fn arrived(&mut self, cx: &mut Context, item: Item) {
        match item {
            Item::Data(id, units) => self.out.arrived(cx, id, units),
            Item::Ack(_) => self.acks_flying -= 1,
            Item::Reset(id, known) => self.out.reset_arrived(cx, id, known),
            Item::Shut => self.shut_arrived = true,
            Item::Resume => self.claiming = false,
            _ => {}
        }
    }

    /// An item that was given up as lost and then turned out to have arrived.
    pub(crate) fn arrived_late(&mut self, cx: &mut Context, item: Item) {
        if !matches!(item, Item::Ack(_)) {
            self.arrived(cx, item);
        }
    }

    /// Takes over all settings but the order.
    pub(crate) fn configure(&mut self, now: Instant, config: SessionConfig) {
        self.config = SessionConfig { ordering: self.config.ordering, ..config };
        if self.parked_at.is_some() {
            self.limit_at = config.park_limit.map(|limit| now + limit);
            self.notice_at = match (self.notice_at, config.park_notice) {
                (None, Some(wait)) if !self.told_parked => Some(now + wait),
                (at, notice) => at.filter(|_| notice.is_some()),
            };
        }
    }

    /// Stops sending: half-close, or the wish to end the conversation.
    pub(crate) fn shut(&mut self, cx: &mut Context, kind: ShutKind) {
        if self.out.shut == Some(ShutKind::Close) || self.out.shut == Some(kind) {
            return;
        }
        self.out.shut = Some(kind);
        self.shut_arrived = false;
        if cx.record(self.id, Record::Shut(self.out.last(), kind), Effect::Shut).is_some() {
            self.due.shut = true;
        } else {
            self.out.shut_held = true;
        }
    }

    /// What waited for the journal.
    pub(crate) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::None => {}
            // A newer claim has a token of its own to wait for.
            Effect::Claim(token) => self.due.resume |= self.epoch.current() == Some(token),
            Effect::Accept => self.due.accept = self.join == Join::Active && !self.claiming,
            Effect::Hold(token) => {
                self.epoch.tell(token);
                // ACCEPT says the same of the first one.
                self.due.confirm = self.opener || self.epoch.confirmed().is_some() || self.claiming;
                // What we hold was another token when it was said. The confirmation may overtake it, and then it would
                // look like that of an older state.
                self.due.resume |= self.claiming && self.claim_said;
            }
            Effect::Send(id) => self.out.send_confirmed(id),
            Effect::Relabel { id, holds } => self.out.relabel_confirmed(id, holds),
            Effect::Reset(id) => self.out.reset_confirmed(id),
            Effect::Known(id) => self.out.known_confirmed(id),
            Effect::Ack(id, delivered) => self.inb.ack_confirmed(id, delivered),
            Effect::Shut => {
                self.out.shut_held = false;
                self.due.shut = true;
            }
        }
    }

    /// Whether both directions are shut, acknowledged and taken, and the peer knows it.
    pub(crate) fn is_over(&self) -> bool {
        self.out.shut.is_some()
            && self.shut_arrived
            && self.out.is_settled()
            && self.inb.is_drained()
            && self.acks_flying == 0
            && self.join == Join::Active
    }

    /// Whether a control frame is due that may be said now.
    pub(crate) fn has_control(&self) -> bool {
        if self.due.resume
            || self.due.confirm
            || self.due.accept
            || (self.due.open && self.join == Join::Opening)
        {
            return true;
        }
        self.may_send()
            && (self.inb.has_ack()
                || self.inb.credit_due.contains(&true)
                || self.due.shut
                || self.out.has_control())
    }

    /// Lets go of memory that an idle session has no use for.
    pub(crate) fn release_room(&mut self) {
        self.out.release_room();
        self.inb.release_room();
        self.epoch.release_room();
    }

    /// Whether something may wait for a network that has no path.
    pub(crate) fn wants_network(&self) -> bool {
        self.out.waits() || self.deferrals.wants()
    }

    /// Whether anything at all is due.
    pub(crate) fn has_work(&self) -> bool {
        let sends = || self.out.has_copies() || Urgency::ALL.iter().any(|u| self.out.has_queued(*u));
        self.has_control() || (self.may_send() && sends())
    }

    /// The next control frame that is due.
    pub(crate) fn next_control(&mut self, cx: &Context) -> Option<(Frame, Item)> {
        if core::mem::take(&mut self.due.resume) {
            let again = core::mem::replace(&mut self.claim_said, true);
            let view = self.describe(cx);
            if again {
                // Whoever took over the first one passes over this one, and over the credit in it.
                self.inb.credit_due = [true; 2];
            }
            return Some((Frame::Resume(view), Item::Resume));
        }
        if core::mem::take(&mut self.due.accept)
            && let (Some(token), Some(holds)) = (self.epoch.current(), self.epoch.told())
        {
            return Some((Frame::Accept { session: self.id, token, holds }, Item::Accept));
        }
        if core::mem::take(&mut self.due.confirm)
            && let Some(holds) = self.epoch.told()
        {
            return Some((Frame::Confirm { session: self.id, holds }, Item::Confirm));
        }
        if !self.may_send() {
            return None;
        }
        if self.inb.has_ack() {
            let ack = self.take_ack();
            self.acks_flying += 1;
            return Some((Frame::Ack(self.id, ack.clone()), Item::Ack(ack)));
        }
        for class in Urgency::ALL {
            if self.inb.credit_due[class.index()] {
                self.inb.credit_told(class);
                let limit = self.inb.limit(class);
                return Some((Frame::Credit { session: self.id, class, limit }, Item::Credit(class)));
            }
        }
        if let Some(id) = self.out.special.existing().and_then(|special| special.resets.pop_first()) {
            let frame = self.out.reset_frame(id)?;
            let known = matches!(frame, Frame::Reset { known: true, .. });
            return Some((frame, Item::Reset(MessageId(id), known)));
        }
        if let Some(id) = self.out.special.existing().and_then(|special| special.relabels.pop_first()) {
            let labels = self.out.labels(id)?.clone();
            return Some((
                Frame::Relabel { session: self.id, id: MessageId(id), labels },
                Item::Relabel(MessageId(id)),
            ));
        }
        if core::mem::take(&mut self.due.shut)
            && let Some(kind) = self.out.shut
        {
            return Some((Frame::Shut { session: self.id, last: self.out.last(), kind }, Item::Shut));
        }
        None
    }

    /// As much of the acknowledgements as one frame may hold; the highest ranges first.
    fn take_ack(&mut self) -> Ack {
        let mut taken = Ack::default();
        let all = &mut self.inb.ack;
        for (from, to) in [
            (&mut all.received, &mut taken.received),
            (&mut all.delivered, &mut taken.delivered),
            (&mut all.dropped, &mut taken.dropped),
        ] {
            if from.ranges() <= steadfast_wire::frame::MAX_ACK_RANGES {
                *to = core::mem::take(from);
            } else {
                let part: Vec<_> = from.iter().rev().take(steadfast_wire::frame::MAX_ACK_RANGES).collect();
                for range in part {
                    from.remove(range.clone());
                    to.insert(range);
                }
            }
        }
        taken
    }

    fn describe(&mut self, cx: &Context) -> Resume {
        let mut view = Resume {
            session: self.id,
            fresh: self.opener && self.epoch.is_fresh(),
            per_urgency: self.per_urgency(),
            expects: self.join == Join::ExpectResume,
            confirmed: self.epoch.confirmed(),
            offered: self.epoch.offered().to_vec(),
            holds: self.epoch.told(),
            next: self.out.next(),
            shut: self.out.shut.filter(|_| !self.out.shut_held).map(|kind| (self.out.last(), kind)),
            received: steadfast_wire::RangeSet::new(),
            delivered: steadfast_wire::RangeSet::new(),
            dropped: steadfast_wire::RangeSet::new(),
            partial: Vec::new(),
            charged: [0; 2],
            limits: [0; 2],
        };
        self.inb.describe(cx.config.max_message, &mut view);
        view
    }

    /// Takes over what the peer says of the conversation. `Err` is the reason to end it.
    pub(crate) fn handle_resume(
        &mut self,
        cx: &mut Context,
        now: Instant,
        view: &Resume,
    ) -> Result<(), EndReason> {
        if self.join == Join::Active && self.epoch.knows(view) {
            // The same claim, said again because its path was in doubt.
            self.due.confirm = true;
            return Ok(());
        }
        self.epoch.check(view, self.join == Join::ExpectResume).map_err(|()| EndReason::RolledBack)?;
        if view.next.0 <= self.inb.highest() || self.out.contradicts(view).is_err() {
            return Err(EndReason::RolledBack);
        }
        let answers_late = view.holds.is_some() && view.holds == self.epoch.current();
        if let Some(effect) = self.epoch.take_over(cx, self.id, view) {
            self.apply(effect);
        }
        self.claiming &= self.epoch.is_offering();
        // Whatever was shut before is said again; the peer may not have it.
        self.shut_arrived = false;
        self.due.shut = self.out.shut.is_some() && !self.out.shut_held;
        self.out.resume(cx, now, view);
        if let Some((last, kind)) = view.shut {
            self.inb.handle_shut(cx, last, kind).map_err(|_| EndReason::RolledBack)?;
            self.peer_shut(cx, kind);
        }
        // A claim that is made after ours was taken over, or without our having made one, wants an answer.
        if view.expects && (self.join != Join::ExpectResume || answers_late) {
            self.claim(cx);
        }
        self.joined(cx);
        self.resumed_at = Some(now);
        Ok(())
    }

    /// Whether a claim comes late: before one that was taken over, or over a path that is older than the last claim and
    /// with a token that is older or the same. It was overtaken by a newer path, perhaps of a newer process, and says
    /// nothing.
    pub(crate) fn is_late(&self, view: &Resume, path_up: Instant) -> bool {
        if self.epoch.is_superseded(view) {
            return true;
        }
        let overtaken = self.resumed_at.is_some_and(|at| path_up < at);
        overtaken
            && (self.epoch.check(view, self.join == Join::ExpectResume).is_err() || self.epoch.knows(view))
    }

    /// The peer shut its direction; if it closes, ours ends too.
    pub(crate) fn peer_shut(&mut self, cx: &mut Context, kind: ShutKind) {
        if kind == ShutKind::Close {
            self.out.peer_closes(cx);
            self.shut(cx, ShutKind::Close);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use steadfast_wire::Fingerprint;

    /// A peer that took over the first one passes over the second, whose credit may be more.
    #[test]
    fn credit_of_a_claim_that_is_said_twice_is_said_by_itself() {
        let mut cx = Context::new(Config::default(), Fingerprint([1; 32]), [1; 32]);
        let mut session = Session::new(&cx, SessionId(1), true, SessionConfig::default());
        session.claim(&mut cx);
        let says = |session: &mut Session| session.next_control(&cx).map(|(_, item)| item);
        assert!(matches!(says(&mut session), Some(Item::Resume)));
        assert_eq!(session.inb.credit_due, [false; 2], "it is in the claim");
        session.lost(&Item::Resume);
        assert!(matches!(says(&mut session), Some(Item::Resume)));
        // The peer took over the first.
        (session.join, session.claiming) = (Join::Active, false);
        let credit = [says(&mut session), says(&mut session)];
        assert!(credit.iter().all(|item| matches!(item, Some(Item::Credit(_)))), "{credit:?}");
    }
}
