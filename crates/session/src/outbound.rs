//! The sending half of a session: messages until they have their outcome, and the credit they are sent on.
//!
//! A message of `n` bytes has `n + 1` *units*: its bytes and its end. Sets of units say what arrived, what is to be
//! sent (for the first time or again) and what the window has paid for. The head of a message costs
//! [`MESSAGE_COST`] bytes of the window, its end nothing.

mod copies;
mod lifetime;
mod relabel;
mod resume;
mod special;
mod unroutable;

use crate::config::Ordering;
use crate::context::Context;
use crate::cost::{MAX_AWAITED, MESSAGE_COST, cost};
use crate::event::{DropReason, Event, Outcome, SendError, Violation};
use crate::journal::{Effect, Record};
use crate::options::{OrderRequest, SendOptions};
use crate::payload::Payload;
use crate::seldom::Seldom;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::Range;
use core::time::Duration;
use lifetime::{Limits, micros};
use special::Special;
use steadfast_wire::frame::{Ack, Data, Head, MAX_OUTSTANDING, MAX_PAYLOAD, ShutKind};
use steadfast_wire::label::MAX_DEPENDENCIES;
use steadfast_wire::{Frame, Instant, Labels, MessageId, Order, RangeSet, SessionId, SizeClass, Urgency};
use unroutable::Unroutable;

/// Messages of at most this many bytes count as small unless labelled.
const SMALL: u64 = 16 * 1024;
/// Ranges of past dropped ids that are remembered to refuse messages that wait for them.
const MAX_DROPPED_RANGES: usize = 4096;

/// Notes that a message was dropped; the oldest are forgotten, and nothing below `floor` is known.
pub(crate) fn remember_dropped(dropped: &mut RangeSet, floor: &mut u64, id: u64) {
    dropped.insert_one(id);
    let oldest = dropped.iter().next();
    if let Some(oldest) = oldest.filter(|_| dropped.ranges() > MAX_DROPPED_RANGES) {
        *floor = oldest.end;
        dropped.remove(oldest);
    }
}

/// Whether a message of so many bytes counts as small.
pub(crate) fn is_small(labels: &Labels, bytes: u64) -> bool {
    match labels.size {
        SizeClass::Small => true,
        SizeClass::Large => false,
        SizeClass::Auto => bytes <= SMALL,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Live,
    /// To be dropped; the receiver has the last word.
    Dropping(DropReason),
    /// Dropped, and the receiver may forget it.
    Known,
}

#[derive(Debug)]
struct Message {
    head: Head,
    labels: Labels,
    class: Option<Urgency>,
    payload: Payload,
    /// Known once the message is finished.
    length: Option<u64>,
    arrived: RangeSet,
    pending: RangeSet,
    charged: RangeSet,
    acked: bool,
    raised: bool,
    reported: bool,
    /// Journal records that have to be confirmed before anything (more) of it goes out.
    held: u32,
    /// It has or had other labels than those of its head.
    relabelled: bool,
    /// Journal records of new labels that are not confirmed.
    unstored_labels: u32,
    /// Something of it may be with the peer: it was sent once, here or by an earlier process.
    exposed: bool,
    /// All of it was given to paths once.
    left: bool,
    limits: Limits,
    phase: Phase,
}

impl Message {
    fn place(&self) -> (Urgency, u64) {
        (self.head.labels.urgency, self.head.order.sequence())
    }

    /// Whether surely nothing of it was ever sent.
    fn is_untouched(&self) -> bool {
        !self.exposed
    }

    /// The head as it is said now.
    fn head_at(&self, now: Instant) -> Head {
        Head { expires_in: self.limits.left(now), ..self.head.clone() }
    }

    fn whole(&self) -> Option<Range<u64>> {
        self.length.map(|length| 0..length + 1)
    }
}

/// What a scheduler needs to know of the next message to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) id: u64,
    pub(crate) small: bool,
    /// Bytes still to send of the message.
    pub(crate) remaining: u64,
}

#[derive(Debug)]
pub(crate) struct Outbound {
    session: SessionId,
    ordering: Ordering,
    next: u64,
    /// Boxed, because the map keeps room for eleven even when it is empty.
    messages: BTreeMap<u64, Box<Message>>,
    sequences: [u64; 2],
    queues: [BTreeSet<u64>; 2],
    /// What of the foreground queue is small: it passes large messages, however many they are.
    quick: BTreeSet<u64>,
    /// Messages whose rule allows no path that is up.
    unroutable: Unroutable,
    /// The unordered stream that was served last, by urgency: the others come next.
    turn: [u64; 2],
    pub(crate) special: Seldom<Special>,
    /// Background messages below this id are awaited by foreground.
    raised_below: u64,
    pub(crate) used: [u64; 2],
    pub(crate) limit: [u64; 2],
    /// All that the peer's library ever had whole.
    acked: RangeSet,
    max_message: u64,
    peer_durable: bool,
    dropped: RangeSet,
    memory_floor: u64,
    buffered: [u64; 2],
    /// A send was refused for want of room, by urgency.
    refused: [bool; 2],
    /// Declared dependencies of all open messages.
    waits: usize,
    pub(crate) shut: Option<ShutKind>,
    pub(crate) shut_held: bool,
    pub(crate) peer_closing: bool,
    /// Room was taken since it was last given back.
    roomy: bool,
}

impl Outbound {
    pub(crate) fn new(session: SessionId, ordering: Ordering, max_message: u64) -> Self {
        Self {
            session,
            ordering,
            next: 1,
            messages: BTreeMap::new(),
            sequences: [0; 2],
            queues: Default::default(),
            quick: BTreeSet::new(),
            unroutable: Unroutable::default(),
            turn: [0; 2],
            special: Seldom::default(),
            raised_below: 0,
            used: [0; 2],
            limit: [0; 2],
            acked: RangeSet::new(),
            max_message,
            peer_durable: false,
            dropped: RangeSet::new(),
            memory_floor: 1,
            buffered: [0; 2],
            refused: [false; 2],
            waits: 0,
            shut: None,
            shut_held: false,
            peer_closing: false,
            roomy: false,
        }
    }

    /// What the peer's HELLO allows: the first credit of a new session, and the size of a whole message.
    pub(crate) fn peer_says(&mut self, windows: [u64; 2], max_message: u64, durable: bool) {
        for (limit, window) in self.limit.iter_mut().zip(windows) {
            *limit = (*limit).max(window);
        }
        self.max_message = max_message;
        self.peer_durable = durable;
    }

    /// Bytes of this class that the peer's library has not acknowledged.
    pub(crate) const fn buffered(&self, class: Urgency) -> u64 {
        self.buffered[class.index()]
    }

    /// Gives back the room of what is empty: a map keeps that of its first eleven entries.
    pub(crate) fn release_room(&mut self) {
        if self.messages.is_empty() && core::mem::take(&mut self.roomy) {
            self.messages = BTreeMap::new();
            self.queues = Default::default();
            self.quick = BTreeSet::new();
            self.unroutable = Unroutable::default();
            self.special = Seldom::default();
            self.acked.shrink();
        }
    }

    pub(crate) const fn next(&self) -> MessageId {
        MessageId(self.next)
    }

    pub(crate) const fn last(&self) -> MessageId {
        MessageId(self.next - 1)
    }

    /// Whether every message has its outcome and the receiver knows all it has to.
    pub(crate) fn is_settled(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) fn has_queued(&self, urgency: Urgency) -> bool {
        !self.queues[urgency.index()].is_empty()
    }

    pub(crate) fn has_control(&self) -> bool {
        !self.special.resets.is_empty() || !self.special.relabels.is_empty()
    }

    /// Whether anything with these labels may be sent at all.
    pub(crate) fn check_open(&self, labels: &Labels) -> Result<(), SendError> {
        if self.peer_closing {
            Err(SendError::PeerShut)
        } else if self.shut.is_some() {
            Err(SendError::Shut)
        } else if !labels.rule.fits() {
            Err(SendError::BadRule)
        } else {
            Ok(())
        }
    }

    /// Sends a whole message, or begins a streamed one if there is no payload. `patience` is how long it may be without
    /// a network.
    #[expect(clippy::too_many_arguments, reason = "a message is made of all of these")]
    pub(crate) fn send(
        &mut self,
        cx: &mut Context,
        now: Instant,
        labels: Labels,
        options: SendOptions,
        patience: Option<Duration>,
        payload: Option<Bytes>,
        length: Option<u64>,
    ) -> Result<MessageId, SendError> {
        let SendOptions { order, lifetime, .. } = options;
        self.check_open(&labels)?;
        let size = payload.as_ref().map(|bytes| bytes.len() as u64);
        if let Some(size) = size.filter(|size| *size > self.max_message) {
            return Err(SendError::TooLarge { size, limit: self.max_message });
        }
        let class = labels.urgency.index();
        let full = self.buffered[class] > 0
            && self.buffered[class] + size.unwrap_or(0) > cx.config.send_buffers[class];
        let waits = if let OrderRequest::After(list) = &order { list.len() } else { 0 };
        if full || self.messages.len() >= MAX_OUTSTANDING || self.waits + waits > MAX_AWAITED / 2 {
            self.refused[class] = true;
            return Err(SendError::Full(labels.urgency));
        }
        let order = self.order(order, labels.urgency)?;
        self.sequences[class] += 1;
        let id = self.next;
        self.next += 1;
        let streamed = payload.is_none();
        let expires_in = lifetime.map(micros);
        let head = Head { labels: labels.clone(), order, streamed, length: size.or(length), expires_in };
        let record = Record::Sent { id: MessageId(id), head: head.clone(), payload: payload.clone() };
        let effect = cx.record(self.session, record, Effect::Send(MessageId(id)));
        let expires = lifetime.map(|lifetime| now + lifetime);
        let limits = Limits { expires, patience, ..Limits::default() };
        self.insert(id, head, payload, limits, effect.is_none());
        Ok(MessageId(id))
    }

    fn insert(&mut self, id: u64, head: Head, payload: Option<Bytes>, limits: Limits, held: bool) {
        let labels = head.labels.clone();
        let class = labels.urgency.index();
        let mut message = Message {
            head,
            labels,
            class: None,
            payload: Payload::default(),
            length: None,
            arrived: RangeSet::new(),
            pending: RangeSet::new(),
            charged: RangeSet::new(),
            acked: false,
            raised: false,
            reported: false,
            held: u32::from(held),
            relabelled: false,
            unstored_labels: 0,
            exposed: false,
            left: false,
            limits,
            phase: Phase::Live,
        };
        if let Some(bytes) = payload {
            let length = bytes.len() as u64;
            self.buffered[class] += length;
            message.payload.push(bytes);
            message.length = Some(length);
            message.pending.insert(0..length + 1);
        }
        let urgent = message.labels.urgency == Urgency::Foreground;
        self.waits += message.head.order.dependencies().len();
        self.messages.insert(id, Box::new(message));
        self.roomy = true;
        self.watch(id);
        if urgent {
            self.raise_predecessors(id);
        }
        self.enqueue(id);
    }

    fn order(&self, request: OrderRequest, urgency: Urgency) -> Result<Order, SendError> {
        let sequence = self.sequences[urgency.index()];
        Ok(match (request, self.ordering) {
            (OrderRequest::Default, Ordering::Total) => Order::Total,
            (OrderRequest::Default, Ordering::PerUrgency) => Order::PerUrgency { sequence },
            (OrderRequest::Unordered, _) => Order::Unordered { sequence },
            (OrderRequest::After(mut dependencies), _) => {
                if dependencies.len() > MAX_DEPENDENCIES {
                    return Err(SendError::BadDependency);
                }
                for dependency in &dependencies {
                    if dependency.0 < self.memory_floor || dependency.0 >= self.next {
                        return Err(SendError::BadDependency);
                    }
                    let gone = self.messages.get(&dependency.0).is_some_and(|m| m.reported);
                    if gone || self.dropped.contains(dependency.0) {
                        return Err(SendError::Undeliverable(*dependency));
                    }
                }
                // What is delivered need not be waited for.
                dependencies.retain(|dependency| self.messages.contains_key(&dependency.0));
                Order::After { sequence, dependencies }
            }
        })
    }

    /// Appends to a streamed message.
    pub(crate) fn write(&mut self, cx: &Context, id: MessageId, bytes: Bytes) -> Result<(), SendError> {
        self.open_stream(id)?;
        let Some(message) = self.messages.get(&id.0) else { return Err(SendError::NotOpen(id)) };
        let urgency = message.head.labels.urgency;
        let class = urgency.index();
        // What fills the buffer may wait for the oldest message: that one counts by itself.
        let oldest = self.oldest() == Some(id.0);
        let held = if oldest { message.payload.held() } else { self.buffered[class] };
        if held > 0 && held + bytes.len() as u64 > cx.config.send_buffers[class] {
            self.refused[class] = true;
            return Err(SendError::Full(urgency));
        }
        let end = message.payload.end();
        if let Some(limit) = message.head.length.filter(|limit| end + bytes.len() as u64 > *limit) {
            return Err(SendError::TooLarge { size: end + bytes.len() as u64, limit });
        }
        if let Some(message) = self.messages.get_mut(&id.0).filter(|_| !bytes.is_empty()) {
            self.buffered[class] += bytes.len() as u64;
            message.pending.insert(end..end + bytes.len() as u64);
            message.payload.push(bytes);
            self.enqueue(id.0);
        }
        Ok(())
    }

    /// Ends a streamed message.
    pub(crate) fn finish(&mut self, id: MessageId) -> Result<(), SendError> {
        self.open_stream(id)?;
        let Some(message) = self.messages.get_mut(&id.0) else { return Err(SendError::NotOpen(id)) };
        let end = message.payload.end();
        if let Some(limit) = message.head.length.filter(|length| *length != end) {
            return Err(SendError::TooLarge { size: end, limit });
        }
        message.length = Some(end);
        message.pending.insert(end..end + 1);
        self.enqueue(id.0);
        Ok(())
    }

    fn open_stream(&self, id: MessageId) -> Result<(), SendError> {
        match self.messages.get(&id.0) {
            Some(m) if m.head.streamed && m.length.is_none() && m.phase == Phase::Live => Ok(()),
            _ => Err(SendError::NotOpen(id)),
        }
    }

    /// The peer takes nothing any more. What it has never heard of it cannot refuse: a streamed message without a
    /// byte would keep the conversation open for as long as nobody touches it.
    pub(crate) fn peer_closes(&mut self, cx: &mut Context) {
        // Whoever shut first is named to those who still send.
        self.peer_closing |= self.shut.is_none();
        let idle = |m: &Message| m.length.is_none() && m.is_untouched() && m.pending.is_empty();
        let idle: Vec<u64> = self.messages.iter().filter(|(_, m)| idle(m)).map(|(id, _)| *id).collect();
        for id in idle {
            self.drop_message(cx, id, DropReason::Refused);
        }
    }

    /// Whether a message has no outcome yet.
    pub(crate) fn is_open(&self, id: MessageId) -> bool {
        self.messages.get(&id.0).is_some_and(|m| !m.reported)
    }

    /// Asks for a message to be dropped; the outcome follows (at once if no byte of it was sent).
    pub(crate) fn cancel(&mut self, cx: &mut Context, id: MessageId) -> bool {
        let open = self.messages.get(&id.0).is_some_and(|m| m.phase == Phase::Live);
        if open {
            self.drop_message(cx, id.0, DropReason::Cancelled);
        }
        open
    }

    fn drop_message(&mut self, cx: &mut Context, id: u64, reason: DropReason) {
        if self.drop_alone(cx, id, reason) {
            self.drop_dependents(cx, id);
        }
        self.give_room(cx, 0, 0);
    }

    /// Whether nothing of the message was ever sent, so that it is surely dropped.
    fn drop_alone(&mut self, cx: &mut Context, id: u64, reason: DropReason) -> bool {
        let Some(message) = self.messages.get_mut(&id).filter(|m| m.phase == Phase::Live) else {
            return false;
        };
        message.phase = Phase::Dropping(reason);
        message.pending.clear();
        let untouched = message.is_untouched();
        self.unwatch(id);
        self.release_writer(cx, id);
        self.release_payload(id);
        self.dequeue(id);
        if cx
            .record(self.session, Record::Cancelled(MessageId(id), reason), Effect::Reset(MessageId(id)))
            .is_some()
        {
            self.special.make().resets.insert(id);
        }
        if untouched {
            self.report(cx, id, Outcome::Dropped(reason));
        }
        untouched
    }

    /// The journal has the cancellation.
    pub(crate) fn reset_confirmed(&mut self, id: MessageId) {
        if self.messages.contains_key(&id.0) {
            self.special.make().resets.insert(id.0);
        }
    }

    /// The journal has the message: it may be sent.
    pub(crate) fn send_confirmed(&mut self, id: MessageId) {
        if let Some(message) = self.messages.get_mut(&id.0) {
            message.held -= 1;
            self.enqueue(id.0);
        }
    }

    /// Drops whatever waits for a message that is surely dropped. Dependencies lie in the past, so one pass over the
    /// later messages finds all of them, however long the chain.
    fn drop_dependents(&mut self, cx: &mut Context, id: u64) {
        let mut gone = BTreeSet::from([MessageId(id)]);
        for (dependent, message) in self.messages.range(id + 1..) {
            if message.head.order.dependencies().iter().any(|dependency| gone.contains(dependency)) {
                gone.insert(MessageId(*dependent));
            }
        }
        for dependent in gone.into_iter().skip(1) {
            self.drop_alone(cx, dependent.0, DropReason::Dependency);
        }
    }

    /// Whatever a foreground message waits for becomes urgent too (DESIGN, Semantics 2).
    fn raise_predecessors(&mut self, id: u64) {
        let mut stack = alloc::vec![id];
        while let Some(at) = stack.pop() {
            let Some(message) = self.messages.get(&at) else { continue };
            match &message.head.order {
                Order::Total => self.raise_below(at),
                Order::PerUrgency { .. } if message.head.labels.urgency == Urgency::Background => {
                    self.raise_below(at);
                }
                Order::After { dependencies, .. } => {
                    for dependency in dependencies.clone() {
                        let Some(awaited) = self.messages.get_mut(&dependency.0) else { continue };
                        if !awaited.raised {
                            awaited.raised = true;
                            self.dequeue(dependency.0);
                            self.enqueue(dependency.0);
                            stack.push(dependency.0);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn raise_below(&mut self, id: u64) {
        if id > self.raised_below {
            self.raised_below = id;
            let kept = self.queues[1].split_off(&id);
            let raised = core::mem::replace(&mut self.queues[1], kept);
            let small = |id: &&u64| self.messages.get(*id).is_some_and(|m| m.counts_as_small());
            self.quick.extend(raised.iter().filter(small));
            self.queues[0].extend(raised);
            self.unroutable.raise_below(id);
        }
    }

    fn urgency(&self, id: u64, message: &Message) -> Urgency {
        if message.raised || id < self.raised_below { Urgency::Foreground } else { message.labels.urgency }
    }

    fn enqueue(&mut self, id: u64) {
        let Some(message) = self.messages.get(&id) else { return };
        if message.phase == Phase::Live && message.held == 0 && !message.pending.is_empty() {
            let urgency = self.urgency(id, message).index();
            self.unroutable.remove(id);
            self.queues[urgency].insert(id);
            if urgency == 0 && message.counts_as_small() {
                self.quick.insert(id);
            }
        }
    }

    fn dequeue(&mut self, id: u64) {
        for queue in &mut self.queues {
            queue.remove(&id);
        }
        self.unroutable.remove(id);
        self.quick.remove(&id);
    }

    /// Some messages of an urgency that have something to send: `look` of them by id, but unordered streams take turns,
    /// because nothing waits for one of them and each may go on for ever. The first of all is always among them, because
    /// it may be the one that has credit when no other has; and `look` small ones of foreground are, because they may
    /// go when large ones wait for their pace.
    pub(crate) fn candidates(&self, urgency: Urgency, look: usize) -> Vec<Candidate> {
        let (queue, turn) = (&self.queues[urgency.index()], self.turn[urgency.index()]);
        let mut ids: Vec<u64> =
            queue.range(turn + 1..).chain(queue.range(..=turn)).copied().take(look).collect();
        if let Some(first) = queue.first().filter(|first| !ids.contains(first)) {
            ids.push(*first);
        }
        if urgency == Urgency::Foreground && queue.len() > ids.len() {
            let passing = self.quick.iter().take(look);
            for id in passing.copied() {
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        let candidate = |id: &u64| {
            let message = self.messages.get(id)?;
            let small = message.counts_as_small();
            Some(Candidate { id: *id, small, remaining: message.pending.count() })
        };
        ids.iter().filter_map(candidate).collect()
    }

    /// No path that is up may carry the message.
    pub(crate) fn set_unroutable(&mut self, urgency: Urgency, id: u64) {
        if self.queues[urgency.index()].remove(&id) {
            self.quick.remove(&id);
            if let Some(message) = self.messages.get(&id) {
                self.unroutable.insert(urgency.index(), id, &message.labels.rule);
            }
        }
    }

    /// The set of paths changed: what no path could carry is looked at again.
    pub(crate) fn routes_changed(&mut self) {
        if self.unroutable.is_empty() {
            return;
        }
        let mut unroutable = self.unroutable.take();
        let small = |id: &&u64| self.messages.get(*id).is_some_and(|m| m.counts_as_small());
        self.quick.extend(unroutable[0].iter().filter(small));
        for (queue, unroutable) in self.queues.iter_mut().zip(&mut unroutable) {
            queue.append(unroutable);
        }
    }

    /// The oldest message without an outcome: all others may wait for it.
    fn oldest(&self) -> Option<u64> {
        self.messages.iter().find(|(_, m)| m.phase == Phase::Live).map(|(id, _)| *id)
    }

    /// Whether the oldest message is streamed in `class` and holds at most `most` bytes by itself.
    fn oldest_has_room(&self, class: usize, most: u64) -> bool {
        let oldest = self.oldest().and_then(|id| self.messages.get(&id)).filter(|m| m.length.is_none());
        oldest.is_some_and(|m| m.head.labels.urgency.index() == class && m.payload.held() <= most)
    }

    /// What the window of `class` still pays for message `id`. The oldest message without an outcome may go over it
    /// by one whole message, so that it can always finish (DESIGN, Semantics 6).
    fn credit(&self, id: u64, class: Urgency) -> u64 {
        let over = if self.oldest() == Some(id) { self.max_message + MESSAGE_COST } else { 0 };
        (self.limit[class.index()] + over).saturating_sub(self.used[class.index()])
    }

    /// Takes the next at most `max` payload bytes of a message; `None` if it has none, or no credit.
    pub(crate) fn next_data(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: u64,
        max: usize,
    ) -> Option<(Range<u64>, Data)> {
        let message = self.messages.get(&id)?;
        // Its timer is about to fire.
        if message.limits.is_expired(now) {
            return None;
        }
        let first = message.pending.iter().next()?;
        let start = first.start;
        let class = message.class.unwrap_or_else(|| self.urgency(id, message));
        let again = message.charged.contains(start);
        let head = if start == 0 { MESSAGE_COST } else { 0 };
        let mut end = message.length.unwrap_or(message.payload.end()).min(first.end);
        if again {
            end = end.min(message.charged.first_missing(start));
        } else {
            let credit = self.credit(id, class);
            let next_charged = message.charged.iter().find(|r| r.start > start).map_or(u64::MAX, |r| r.start);
            // The end of a message is free, so it needs no credit behind its last byte.
            let only_end = message.length == Some(start);
            if credit < head + u64::from(!only_end) {
                return None;
            }
            end = end.min(next_charged).min(start.saturating_add(credit - head));
        }
        end = end.min(start + max.min(MAX_PAYLOAD) as u64);
        let payload = message.payload.slice(start, end.saturating_sub(start) as usize);
        let end = start + payload.len() as u64;
        let fin = message.length == Some(end);
        let units = start..end + u64::from(fin);
        if units.is_empty() {
            return None;
        }
        let data = Data {
            session: self.session,
            id: MessageId(id),
            offset: start,
            class,
            fin,
            head: (start == 0).then(|| message.head_at(now)),
            payload,
        };
        self.sent(cx, id, units.clone(), class);
        Some((units, data))
    }

    fn sent(&mut self, cx: &mut Context, id: u64, units: Range<u64>, class: Urgency) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        let before = cost(&message.charged, message.length);
        message.class = Some(class);
        message.exposed = true;
        message.charged.insert(units.clone());
        message.pending.remove(units.clone());
        let paid = cost(&message.charged, message.length).saturating_sub(before);
        self.used[class.index()] += paid;
        if paid > 0 {
            cx.stats.bytes_sent += units.end - units.start;
        } else {
            cx.stats.bytes_resent += units.end - units.start;
        }
        let takes_turns = message.head.streamed && matches!(message.head.order, Order::Unordered { .. });
        let empty = message.pending.is_empty();
        if takes_turns {
            let urgency = self.messages.get(&id).map_or(class, |message| self.urgency(id, message));
            self.turn[urgency.index()] = id;
        }
        if empty {
            self.dequeue(id);
        }
    }

    /// Units that the peer has for sure.
    pub(crate) fn arrived(&mut self, cx: &mut Context, id: MessageId, units: Range<u64>) {
        let Some(message) = self.messages.get_mut(&id.0) else { return };
        message.arrived.insert(units.clone());
        message.pending.remove(units);
        let empty = message.pending.is_empty();
        if message.head.streamed {
            let freed = message.payload.free_to(message.arrived.first_missing(0));
            let class = message.head.labels.urgency.index();
            self.give_room(cx, class, freed);
        }
        if empty {
            self.dequeue(id.0);
        }
    }

    /// Units that may be lost: they are to be sent again unless they are known to have arrived.
    pub(crate) fn lost(&mut self, id: MessageId, units: &Range<u64>) {
        let Some(message) = self.messages.get_mut(&id.0) else { return };
        if message.phase != Phase::Live || (message.acked && !self.peer_durable) {
            return;
        }
        let missing: Vec<_> = message.arrived.missing(units.clone()).collect();
        for range in missing {
            message.pending.insert(range);
        }
        self.enqueue(id.0);
    }

    /// Whether a message in flight counts as foreground now.
    pub(crate) fn is_urgent(&self, id: MessageId) -> bool {
        self.messages.get(&id.0).is_some_and(|m| self.urgency(id.0, m) == Urgency::Foreground)
    }

    fn give_room(&mut self, cx: &mut Context, class: usize, bytes: u64) {
        self.buffered[class] -= bytes.min(self.buffered[class]);
        // Told when half of it is free again, so that a writer does not wake for each byte.
        for class in 0..2 {
            let half = cx.config.send_buffers[class] / 2;
            let room = self.buffered[class] <= half && self.messages.len() < MAX_OUTSTANDING;
            if self.refused[class] && (room || self.oldest_has_room(class, half)) {
                self.refused[class] = false;
                cx.event(Event::Writable { session: self.session });
            }
        }
    }

    fn release_payload(&mut self, id: u64) -> u64 {
        let Some(message) = self.messages.get_mut(&id) else { return 0 };
        let freed = message.payload.held();
        let class = message.head.labels.urgency.index();
        message.payload.clear();
        self.buffered[class] -= freed.min(self.buffered[class]);
        freed
    }

    /// The peer's receipts.
    pub(crate) fn handle_ack(&mut self, cx: &mut Context, now: Instant, ack: &Ack) -> Result<(), Violation> {
        if [&ack.received, &ack.delivered, &ack.dropped].iter().any(|set| set.max() >= Some(self.next)) {
            return Err(Violation::Contradiction);
        }
        // A peer may say the same range again and again.
        let news: RangeSet = ack.received.iter().flat_map(|range| self.acked.missing(range)).collect();
        for id in self.known(&news) {
            self.acked(cx, id);
        }
        for id in self.known(&ack.delivered) {
            self.acked(cx, id);
            self.settle_delivered(cx, id);
        }
        for id in self.known(&ack.dropped) {
            let expired = self.messages.get(&id).is_some_and(|m| m.limits.may_be_over(now));
            self.settle_dropped(cx, id, expired);
        }
        self.give_room(cx, 0, 0);
        Ok(())
    }

    /// The ids of a set that have no outcome yet; linear in those, not in the set.
    fn known(&self, set: &RangeSet) -> Vec<u64> {
        set.iter().flat_map(|range| self.messages.range(range).map(|(id, _)| *id)).collect()
    }

    fn acked(&mut self, cx: &mut Context, id: u64) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        if message.acked || message.length.is_none() {
            return;
        }
        message.acked = true;
        self.acked.insert_one(id);
        if let Some(whole) = message.whole() {
            message.arrived.insert(whole);
        }
        message.pending.clear();
        self.dequeue(id);
        self.set_routable(Instant(0), id, true);
        if let Some(special) = self.special.existing() {
            special.release(id);
        }
        if !self.peer_durable {
            self.release_payload(id);
        }
        cx.event(Event::Acked { session: self.session, id: MessageId(id) });
    }

    fn report(&mut self, cx: &mut Context, id: u64, outcome: Outcome) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        if !core::mem::replace(&mut message.reported, true) {
            cx.event(Event::Outcome { session: self.session, id: MessageId(id), outcome });
        }
    }

    fn settle_delivered(&mut self, cx: &mut Context, id: u64) {
        self.report(cx, id, Outcome::Delivered);
        self.release_writer(cx, id);
        self.release_payload(id);
        self.dequeue(id);
        if let Some(special) = self.special.existing() {
            special.told(id);
        }
        let gone = self.forget(id);
        cx.remember(self.session, Record::Settled { id: MessageId(id), delivered: true });
        self.release_dependencies(gone.as_deref());
    }

    /// The receiver dropped a message, perhaps because it expired there: unless we asked for it, that is why.
    fn settle_dropped(&mut self, cx: &mut Context, id: u64, expired: bool) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        if message.phase == Phase::Known {
            return;
        }
        let reason = match message.phase {
            Phase::Dropping(reason) => reason,
            _ if expired => DropReason::Expired,
            _ => DropReason::Refused,
        };
        message.phase = Phase::Known;
        message.pending.clear();
        self.unwatch(id);
        self.release_writer(cx, id);
        self.release_payload(id);
        self.dequeue(id);
        if let Some(special) = self.special.existing() {
            special.relabels.remove(&id);
        }
        self.report(cx, id, Outcome::Dropped(reason));
        remember_dropped(&mut self.dropped, &mut self.memory_floor, id);
        self.drop_dependents(cx, id);
        let known = Record::Settled { id: MessageId(id), delivered: false };
        if cx.record(self.session, known, Effect::Known(MessageId(id))).is_some() {
            self.known_confirmed(MessageId(id));
        }
    }

    /// The journal has the outcome of a dropped message: the receiver may forget it, once nothing waits for it.
    pub(crate) fn known_confirmed(&mut self, id: MessageId) {
        let waited_for =
            self.messages.range(id.0 + 1..).any(|(_, m)| m.head.order.dependencies().contains(&id));
        if !waited_for && self.messages.get(&id.0).is_some_and(|m| m.phase == Phase::Known) {
            self.special.make().resets.insert(id.0);
        }
    }

    fn forget(&mut self, id: u64) -> Option<Box<Message>> {
        self.unwatch(id);
        let gone = self.messages.remove(&id)?;
        self.waits -= gone.head.order.dependencies().len();
        Some(gone)
    }

    fn release_dependencies(&mut self, gone: Option<&Message>) {
        for dependency in gone.into_iter().flat_map(|m| m.head.order.dependencies()) {
            self.known_confirmed(*dependency);
        }
    }

    /// The RESET frame that is due for a message.
    pub(crate) fn reset_frame(&self, id: u64) -> Option<Frame> {
        let message = self.messages.get(&id)?;
        let (order, sequence) = message.place();
        Some(Frame::Reset {
            session: self.session,
            id: MessageId(id),
            order,
            sequence,
            class: message.class.unwrap_or(order),
            charged: cost(&message.charged, message.length).min(steadfast_wire::varint::MAX),
            known: message.phase == Phase::Known,
        })
    }

    /// A RESET arrived at the peer.
    pub(crate) fn reset_arrived(&mut self, cx: &mut Context, id: MessageId, known: bool) {
        if known && self.messages.get(&id.0).is_some_and(|m| m.phase == Phase::Known) {
            let gone = self.forget(id.0);
            cx.remember(self.session, Record::Forgotten(id));
            self.release_dependencies(gone.as_deref());
            self.give_room(cx, 0, 0);
        }
    }

    /// The conversation is over: what has no outcome is unknown, except what never left.
    pub(crate) fn end(&mut self, cx: &mut Context) {
        let open: Vec<(u64, bool)> = self.messages.iter().map(|(id, m)| (*id, m.is_untouched())).collect();
        for (id, untouched) in open {
            let outcome = if untouched { Outcome::Dropped(DropReason::Cancelled) } else { Outcome::Unknown };
            self.report(cx, id, outcome);
        }
        self.messages.clear();
        self.special = Seldom::default();
    }

    pub(crate) fn check_invariants(&self) {
        self.check_limits();
        self.unroutable.check_invariants();
        for (id, message) in &self.messages {
            assert!(*id < self.next, "{id} beyond next");
            for queue in &self.queues {
                if queue.contains(id) {
                    assert!(
                        !message.pending.is_empty() && message.phase == Phase::Live,
                        "{id} queued without need"
                    );
                }
            }
            let quick = self.queues[0].contains(id) && message.counts_as_small();
            assert_eq!(self.quick.contains(id), quick, "{id} passes others");
            let queued =
                self.queues.iter().filter(|queue| queue.contains(id)).count() + self.unroutable.count(*id);
            assert!(queued <= 1, "{id} queued twice");
            let says = queued == 1 || self.special.copies.contains_key(id);
            assert!(message.held == 0 || !says, "{id} would go out before its record is confirmed");
            let told = self.special.relabels.contains(id);
            assert!(message.unstored_labels == 0 || !told, "{id} would be told labels that are not stored");
            if message.phase == Phase::Live && message.held == 0 && !message.pending.is_empty() {
                assert_eq!(queued, 1, "{id} has something to send and is not queued");
            }
            for range in message.pending.iter() {
                assert_eq!(message.arrived.count_in(range.clone()), 0, "{id} sends again what arrived");
                let held = range.start >= message.payload.start() || message.length == Some(range.start);
                assert!(held, "{id} wants to send what it no longer holds");
            }
        }
        for class in Urgency::ALL {
            let over = self.used[class.index()].saturating_sub(self.limit[class.index()]);
            assert!(over <= self.max_message + MESSAGE_COST, "overdrawn by {over}");
        }
    }
}
