//! The reference model: what was sent, what was delivered, and what must hold between the two.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use steadfast_session::{DropReason, JournalEntry, Outcome, Record};
use steadfast_wire::{Instant, Labels, MessageId, Network, Rule, Selector, Selectors, SessionId, Urgency};

/// What a message waits for, in the model's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits {
    /// All earlier messages.
    Total,
    /// All earlier messages of its urgency.
    PerUrgency,
    /// Nothing.
    Nothing,
    /// Exactly these, and it is dropped with them.
    For(Vec<MessageId>),
}

#[derive(Debug)]
struct Sent {
    /// All that it ever was, the last one now: what the sender's store has, where there is one.
    urgencies: Vec<Urgency>,
    waits: Waits,
    length: u64,
    finished: bool,
    outcome: Option<Outcome>,
    cancelled: bool,
    /// What its sender's store has, where there is one.
    rule: Rule,
    /// What its application wants since then, and the store has not confirmed.
    wishes: VecDeque<(Urgency, Rule)>,
    limits: Limits,
}

impl Sent {
    fn relabelled(&mut self, (urgency, rule): (Urgency, Rule)) {
        self.urgencies.push(urgency);
        self.rule = rule;
    }

    /// Its labels as its application last wanted them.
    fn wish(&self) -> (Urgency, &Rule) {
        let stored = (self.urgencies[self.urgencies.len() - 1], &self.rule);
        self.wishes.back().map_or(stored, |(urgency, rule)| (*urgency, rule))
    }
}

/// When a message may be given up, by its sender's clock; `None` for never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Not before then because it expired.
    pub expires: Option<Instant>,
    /// Not before then because no network fitted.
    pub stranded: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Delivery {
    started: u64,
    ended: Option<u64>,
    bytes: u64,
}

/// One direction of a session.
#[derive(Debug, Default)]
struct Direction {
    sent: BTreeMap<u64, Sent>,
    delivered: BTreeMap<u64, Delivery>,
}

/// Everything that was said and heard.
#[derive(Debug, Default)]
pub struct Model {
    directions: BTreeMap<(SessionId, usize), Direction>,
    /// Sessions that a restart without a store, or an old state, ended: nothing more must arrive, but what arrives
    /// must still be right.
    pub broken: BTreeSet<SessionId>,
    tick: u64,
}

/// The bytes of a message, from its name alone.
#[must_use]
pub fn content(session: SessionId, sender: usize, id: MessageId, from: u64, length: u64) -> Bytes {
    let salt = session.0 ^ (sender as u64) << 56 ^ id.0.wrapping_mul(0x9e37_79b9);
    (from..from + length).map(|at| ((salt ^ at.wrapping_mul(0x0100_0193)) >> 5) as u8 ^ at as u8).collect()
}

impl Model {
    fn direction(&mut self, session: SessionId, sender: usize) -> &mut Direction {
        self.directions.entry((session, sender)).or_default()
    }

    /// A message was accepted by the sender's core.
    #[expect(clippy::too_many_arguments, reason = "a message is all of these")]
    pub fn sent(
        &mut self,
        session: SessionId,
        sender: usize,
        id: MessageId,
        urgency: Urgency,
        waits: Waits,
        whole: Option<u64>,
        (rule, limits): (Rule, Limits),
    ) {
        let message = Sent {
            urgencies: vec![urgency],
            waits,
            length: whole.unwrap_or(0),
            finished: whole.is_some(),
            outcome: None,
            cancelled: false,
            rule,
            wishes: VecDeque::new(),
            limits,
        };
        let before = self.direction(session, sender).sent.insert(id.0, message);
        assert!(before.is_none(), "{session} {id} was sent twice");
    }

    /// The id that the sender's next message gets.
    #[must_use]
    pub fn next_id(&self, session: SessionId, sender: usize) -> u64 {
        let sent = self.directions.get(&(session, sender)).and_then(|d| d.sent.keys().next_back());
        sent.map_or(1, |last| last + 1)
    }

    /// How much of a streamed message was written.
    #[must_use]
    pub fn written(&mut self, session: SessionId, sender: usize, id: MessageId) -> u64 {
        self.direction(session, sender).sent.get(&id.0).map_or(0, |sent| sent.length)
    }

    /// More of a streamed message was written, or its end.
    pub fn wrote(&mut self, session: SessionId, sender: usize, id: MessageId, bytes: u64, end: bool) {
        if let Some(sent) = self.direction(session, sender).sent.get_mut(&id.0) {
            sent.length += bytes;
            sent.finished |= end;
        }
    }

    /// The sender asked for the message to be dropped.
    pub fn cancelled(&mut self, session: SessionId, sender: usize, id: MessageId) {
        if let Some(sent) = self.direction(session, sender).sent.get_mut(&id.0) {
            sent.cancelled = true;
        }
    }

    /// The sender's core took new labels for a message. With a store they are a wish until it [has](Self::stored) them:
    /// what was before them holds as well, because a restart may bring it back.
    pub fn relabelled(
        &mut self,
        session: SessionId,
        sender: usize,
        id: MessageId,
        labels: &Labels,
        durable: bool,
    ) {
        let Some(sent) = self.direction(session, sender).sent.get_mut(&id.0) else { return };
        let wish = (labels.urgency, labels.rule.clone());
        if !durable {
            sent.relabelled(wish);
        } else if sent.wish() != (wish.0, &wish.1) {
            sent.wishes.push_back(wish);
        }
    }

    /// The sender's store confirmed a record.
    pub fn stored(&mut self, sender: usize, entry: &JournalEntry) {
        let Record::Relabelled { id, labels } = &entry.record else { return };
        // Where messages are forgotten, so are wishes.
        let Some(sent) = self.direction(entry.session, sender).sent.get_mut(&id.0) else { return };
        let wish = sent.wishes.pop_front();
        assert_eq!(
            wish,
            Some((labels.urgency, labels.rule.clone())),
            "{} {id}: stored labels",
            entry.session
        );
        sent.relabelled((labels.urgency, labels.rule.clone()));
    }

    /// A message whose last labels the sender's store does not have, if there is one.
    #[must_use]
    pub fn unstored(&self) -> Option<(SessionId, usize, u64)> {
        let unbroken = self.directions.iter().filter(|((session, _), _)| !self.broken.contains(session));
        unbroken
            .flat_map(|((session, sender), d)| {
                d.sent.iter().filter(|(_, s)| !s.wishes.is_empty()).map(|(id, _)| (*session, *sender, *id))
            })
            .next()
    }

    /// Bytes of a message were given to a carrier between these networks. What the sender may not have heard of the far
    /// one yet, its class and whether it is metered, is not held against it.
    pub fn said(
        &mut self,
        session: SessionId,
        sender: usize,
        id: MessageId,
        (near, far): (&Network, &Network),
    ) {
        let Some(sent) = self.direction(session, sender).sent.get(&id.0) else { return };
        let by_name = |list: &[Selector]| list.iter().all(|selector| matches!(selector, Selector::Name(_)));
        let hit = |list: &[Selector], network: &Network| list.iter().any(|s| s.matches(network));
        for rule in sent.wishes.iter().map(|(_, rule)| rule).chain([&sent.rule]) {
            let Selectors { require, prohibit, .. } = rule.selectors();
            let far_fits = (!by_name(require) || require.is_empty() || hit(require, far))
                && !prohibit.iter().any(|s| matches!(s, Selector::Name(_)) && s.matches(far));
            assert!(
                rule.allows(near, near) && far_fits,
                "{session} {id}: went from {} to {} under the rule {rule}",
                near.name,
                far.name
            );
        }
    }

    /// The sender's core told the outcome.
    pub fn outcome(
        &mut self,
        now: Instant,
        session: SessionId,
        sender: usize,
        id: MessageId,
        outcome: Outcome,
    ) {
        let again = self.broken.contains(&session);
        let Some(sent) = self.direction(session, sender).sent.get_mut(&id.0) else { return };
        if again && sent.outcome.is_some() {
            return;
        }
        assert!(
            sent.outcome.is_none(),
            "{session} {id}: a second outcome {outcome:?} after {:?}",
            sent.outcome
        );
        let after = |limit: Option<Instant>| limit.is_some_and(|limit| limit <= now);
        let in_time = match outcome {
            Outcome::Dropped(DropReason::Expired) => after(sent.limits.expires),
            Outcome::Dropped(DropReason::NoNetwork) => after(sent.limits.stranded),
            Outcome::Dropped(DropReason::Cancelled) => sent.cancelled,
            Outcome::Dropped(DropReason::Dependency) => matches!(sent.waits, Waits::For(_)),
            _ => true,
        };
        assert!(in_time || again, "{session} {id}: {outcome:?} at {now:?} without cause: {sent:?}");
        sent.outcome = Some(outcome);
    }

    /// The receiver takes a message. `whole` is its payload, or `None` for one that is read piece by piece.
    pub fn taken(
        &mut self,
        session: SessionId,
        sender: usize,
        id: MessageId,
        urgency: Urgency,
        whole: Option<&Bytes>,
    ) {
        self.tick += 1;
        let tick = self.tick;
        let forgetful = self.broken.contains(&session);
        let direction = self.direction(session, sender);
        let sent = direction.sent.get(&id.0);
        let sent = sent.unwrap_or_else(|| panic!("{session} {id} arrived and was never sent"));
        assert!(sent.urgencies.contains(&urgency), "{session} {id} arrived with foreign labels");
        let ended = whole.map(|bytes| {
            assert_eq!(bytes.len() as u64, sent.length, "{session} {id}: wrong length");
            assert!(*bytes == content(session, sender, id, 0, sent.length), "{session} {id}: wrong bytes");
            tick
        });
        let delivery = Delivery { started: tick, ended, bytes: whole.map_or(0, |bytes| bytes.len() as u64) };
        let before = direction.delivered.insert(id.0, delivery);
        // A store that forgot what it had confirmed makes its own application see a message again.
        assert!(before.is_none() || forgetful, "{session} {id} was delivered twice");
    }

    /// The receiver read a piece of a streamed message.
    pub fn read(&mut self, session: SessionId, sender: usize, id: MessageId, bytes: &Bytes) {
        let Some(delivery) = self.direction(session, sender).delivered.get_mut(&id.0) else { return };
        let expected = content(session, sender, id, delivery.bytes, bytes.len() as u64);
        assert!(*bytes == expected, "{session} {id}: wrong bytes at {}", delivery.bytes);
        delivery.bytes += bytes.len() as u64;
    }

    /// The receiver read a streamed message to its end (or learned that it was dropped).
    pub fn read_end(&mut self, session: SessionId, sender: usize, id: MessageId, complete: bool) {
        self.tick += 1;
        let tick = self.tick;
        let direction = self.direction(session, sender);
        if !complete {
            direction.delivered.remove(&id.0);
            return;
        }
        let (Some(sent), Some(delivery)) = (direction.sent.get(&id.0), direction.delivered.get_mut(&id.0))
        else {
            return;
        };
        assert!(sent.finished && delivery.bytes == sent.length, "{session} {id}: ended early");
        delivery.ended = Some(tick);
    }

    /// A process came back from the journal of its sessions: what the journal does not have did not happen.
    pub fn restarted(&mut self, host: usize, sessions: &BTreeSet<SessionId>, journal: &[JournalEntry]) {
        let (mut sent, mut settled, mut resolved) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for entry in journal {
            match &entry.record {
                Record::Sent { id, head, .. } => {
                    sent.insert((entry.session, id.0), vec![&head.labels]);
                }
                Record::Relabelled { id, labels } => {
                    sent.entry((entry.session, id.0)).or_default().push(labels);
                }
                Record::Settled { id, .. } => drop(settled.insert((entry.session, id.0))),
                Record::Resolved { id, delivered: true, .. } => drop(resolved.insert((entry.session, id.0))),
                _ => {}
            }
        }
        let broken = &self.broken;
        for ((session, sender), direction) in
            self.directions.iter_mut().filter(|((s, _), _)| sessions.contains(s))
        {
            // Its application's last wishes are gone with what the store did not have, or has lost.
            for (id, message) in direction.sent.iter_mut().filter(|_| *sender == host) {
                message.wishes.clear();
                let labels = sent.get(&(*session, *id)).and_then(|all| all.last());
                message.rule = labels.map_or_else(|| message.rule.clone(), |labels| labels.rule.clone());
            }
            if broken.contains(session) {
                continue;
            }
            if *sender == host {
                direction.sent.retain(|id, message| {
                    // Without its Settled record the outcome is told again.
                    if !settled.contains(&(*session, *id)) {
                        message.outcome = None;
                    }
                    // The peer was told nothing that the store does not have.
                    let labels = sent.get(&(*session, *id));
                    message.urgencies = labels.into_iter().flatten().map(|labels| labels.urgency).collect();
                    labels.is_some()
                });
            } else {
                direction.delivered.retain(|id, _| resolved.contains(&(*session, *id)));
            }
        }
    }

    /// Streamed messages that are not finished, to finish them.
    #[must_use]
    pub fn unfinished(&self, sender: usize) -> Vec<(SessionId, MessageId)> {
        let of = |((session, from), direction): (&(SessionId, usize), &Direction)| {
            let open = direction.sent.iter().filter(|(_, sent)| !sent.finished && sent.outcome.is_none());
            open.map(|(id, _)| (*session, MessageId(*id))).filter(|_| *from == sender).collect::<Vec<_>>()
        };
        self.directions.iter().flat_map(of).collect()
    }

    /// A message of a session without outcome, if there is one.
    #[must_use]
    pub fn open(&self) -> Option<(SessionId, usize, u64)> {
        let unbroken = self.directions.iter().filter(|((session, _), _)| !self.broken.contains(session));
        unbroken
            .flat_map(|((session, sender), d)| {
                d.sent.iter().filter(|(_, s)| s.outcome.is_none()).map(|(id, _)| (*session, *sender, *id))
            })
            .next()
    }

    /// What must hold once everything has come to rest.
    pub fn verify(&self) {
        for ((session, sender), direction) in &self.directions {
            // A store that forgot what it had confirmed, and nobody had heard: nothing to hold the two sides to.
            let broken = self.broken.contains(session);
            if broken {
                continue;
            }
            for (id, sent) in &direction.sent {
                let delivery = direction.delivered.get(id).filter(|delivery| delivery.ended.is_some());
                match sent.outcome {
                    Some(Outcome::Delivered) => {
                        assert!(delivery.is_some(), "{session} {sender} #{id}: reported, not delivered");
                    }
                    Some(Outcome::Dropped(_)) => {
                        assert!(
                            delivery.is_none(),
                            "{session} {sender} #{id}: delivered and reported as dropped"
                        );
                    }
                    Some(_) | None => assert!(broken, "{session} {sender} #{id}: no outcome"),
                }
                let excused = sent.cancelled || matches!(sent.waits, Waits::For(_)) || broken;
                let gone = matches!(
                    sent.outcome,
                    Some(Outcome::Dropped(
                        DropReason::Restarted | DropReason::Expired | DropReason::NoNetwork
                    ))
                );
                assert!(delivery.is_some() || excused || gone, "{session} {sender} #{id}: lost, {sent:?}");
                if let Some(delivery) = delivery {
                    direction.check_order(*session, *id, sent, delivery);
                }
            }
        }
    }

    /// How many messages were delivered.
    #[must_use]
    pub fn deliveries(&self) -> usize {
        self.directions.values().map(|direction| direction.delivered.len()).sum()
    }
}

impl Direction {
    fn check_order(&self, session: SessionId, id: u64, sent: &Sent, delivery: &Delivery) {
        let urgency = sent.urgencies[0];
        let before = |earlier: &u64, must: bool| {
            let Some(other) = self.delivered.get(earlier).filter(|other| other.ended.is_some()) else {
                assert!(!must, "{session} #{id} was delivered without #{earlier}");
                return;
            };
            let in_order = other.ended.is_some_and(|ended| ended < delivery.started);
            assert!(in_order, "{session} #{id} was delivered before #{earlier}");
        };
        match &sent.waits {
            Waits::Nothing => {}
            Waits::Total => self.sent.range(..id).for_each(|(earlier, _)| before(earlier, false)),
            Waits::PerUrgency => {
                let same = self.sent.range(..id).filter(|(_, other)| other.urgencies[0] == urgency);
                same.for_each(|(earlier, _)| before(earlier, false));
            }
            Waits::For(list) => list.iter().for_each(|earlier| before(&earlier.0, true)),
        }
    }
}
