//! The receiving half of a session: pieces become messages, messages are delivered in order, credit is given back.
//!
//! A message is *resolved* when it was delivered or is surely not delivered. Order only ever waits for resolved
//! messages. What was resolved is remembered as ranges: one range in the long run, bounded by what the sender may
//! have open.

use crate::assembly::Assembly;
use crate::config::Config;
use crate::context::Context;
use crate::cost::{MAX_AWAITED, MESSAGE_COST, cost};
use crate::event::{Event, Read, Received, Recv, Violation};
use crate::journal::{Effect, Record, Summary};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;
use steadfast_wire::frame::{
    Ack, Data, Head, MAX_ID_RANGES, MAX_OUTSTANDING, MAX_PARTIAL_RANGES, Resume, ShutKind,
};
use steadfast_wire::{Instant, Labels, MessageId, Order, RangeSet, SessionId, Urgency};

#[derive(Debug, Default)]
struct Message {
    head: Option<Head>,
    relabel: Option<Labels>,
    length: Option<u64>,
    units: RangeSet,
    bytes: Assembly,
    /// What the windows paid for it and did not get back yet, by class.
    paid: [u64; 2],
    /// The application reads it.
    taken: bool,
    /// The application has all of it, and will say what became of it.
    given: bool,
    /// It is to be dropped then, unless the application has taken it.
    expires: Option<Instant>,
    /// It is resolved; only its accounting is left until the sender says what it will ever cost.
    ghost: bool,
    /// What it adds to [`Inbound::weight`].
    noted: u64,
}

/// What a message, a piece of its bytes, a range and a pair of an awaited and a waiting message take, in bytes.
const MESSAGE_WEIGHT: usize = 512;
const PIECE_WEIGHT: usize = 128;
const RANGE_WEIGHT: usize = 32;
const AWAITED_WEIGHT: usize = 64;

impl Message {
    fn complete(&self) -> bool {
        self.length.is_some_and(|length| self.units.contains_range(0..length + 1))
    }

    /// Memory beside the bytes that the window paid for.
    fn weight(&self) -> u64 {
        let head = self.head.as_ref();
        let dependencies = head.map_or(0, |head| size_of_val(head.order.dependencies()));
        let labels = head.map(|head| &head.labels).into_iter().chain(&self.relabel);
        let rules: usize = labels.map(|labels| labels.rule.memory()).sum();
        let parts = self.bytes.pieces() * PIECE_WEIGHT + self.units.ranges() * RANGE_WEIGHT;
        (MESSAGE_WEIGHT + parts + dependencies + rules) as u64
    }

    fn labels(&self) -> Labels {
        let first = || self.head.as_ref().map(|head| head.labels.clone()).unwrap_or_default();
        self.relabel.clone().unwrap_or_else(first)
    }
}

#[derive(Debug)]
pub(crate) struct Inbound {
    session: SessionId,
    /// Boxed, because the map keeps room for eleven even when it is empty.
    messages: BTreeMap<u64, Box<Message>>,
    /// Complete and not resolved.
    received: RangeSet,
    resolved: RangeSet,
    /// With the application, which has not acknowledged them.
    given: RangeSet,
    /// Resolved, not delivered, and the sender may not know yet.
    dropped: RangeSet,
    /// Places of resolved messages, by urgency.
    places: [RangeSet; 2],
    /// Messages that wait for a place, by urgency.
    by_place: [BTreeMap<u64, u64>; 2],
    /// Pairs of an awaited message and one that waits for it.
    awaited: BTreeSet<(u64, u64)>,
    /// Messages to be looked at because what they waited for is resolved.
    freed: Vec<u64>,
    /// What may be taken, foreground first.
    ready: BTreeSet<(Urgency, u64)>,
    /// When what was not taken expires.
    deadlines: BTreeSet<(Instant, u64)>,
    highest: u64,
    charged: [u64; 2],
    limits: [u64; 2],
    told: [u64; 2],
    /// What may still come from before the last resume, and is paid for only when it is sent again.
    late: [u64; 2],
    windows: [u64; 2],
    /// What the windows began with, and may become.
    bounds: [[u64; 2]; 2],
    /// What was given back since the windows last grew.
    consumed: [u64; 2],
    /// Memory of all messages beside what the windows paid for.
    weight: u64,
    /// Which CREDIT frames are due.
    pub(crate) credit_due: [bool; 2],
    /// What the next ACK frame says.
    pub(crate) ack: Ack,
    /// Acknowledgements that wait for the journal.
    ack_held: BTreeSet<u64>,
    pub(crate) shut: Option<(MessageId, ShutKind)>,
    /// The application takes no more.
    closed: bool,
    /// Room was taken since it was last given back.
    roomy: bool,
}

impl Inbound {
    pub(crate) fn new(session: SessionId, config: &Config) -> Self {
        let windows = config.first_windows;
        Self {
            session,
            messages: BTreeMap::new(),
            received: RangeSet::new(),
            resolved: RangeSet::new(),
            given: RangeSet::new(),
            dropped: RangeSet::new(),
            places: Default::default(),
            by_place: Default::default(),
            awaited: BTreeSet::new(),
            freed: Vec::new(),
            ready: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            highest: 0,
            charged: [0; 2],
            limits: windows,
            told: windows,
            late: [0; 2],
            windows,
            bounds: [windows, config.windows],
            consumed: [0; 2],
            weight: 0,
            credit_due: [false; 2],
            ack: Ack::default(),
            ack_held: BTreeSet::new(),
            shut: None,
            closed: false,
            roomy: false,
        }
    }

    /// Gives back the room of what is empty: a map keeps that of its first eleven entries.
    pub(crate) fn release_room(&mut self) {
        if self.messages.is_empty() && core::mem::take(&mut self.roomy) {
            self.messages = BTreeMap::new();
            self.received = RangeSet::new();
            self.given = RangeSet::new();
            self.by_place = Default::default();
            self.awaited = BTreeSet::new();
            self.freed = Vec::new();
            self.ready = BTreeSet::new();
            self.deadlines = BTreeSet::new();
            self.resolved.shrink();
            self.places.iter_mut().for_each(RangeSet::shrink);
        }
    }

    /// The last id that is resolved with all before it.
    pub(crate) fn common(&self) -> MessageId {
        MessageId(self.resolved.first_missing(1) - 1)
    }

    pub(crate) const fn highest(&self) -> u64 {
        self.highest
    }

    pub(crate) const fn limit(&self, class: Urgency) -> u64 {
        self.limits[class.index()]
    }

    pub(crate) fn has_ack(&self) -> bool {
        !(self.ack.received.is_empty() && self.ack.delivered.is_empty() && self.ack.dropped.is_empty())
    }

    /// Whether the other side has finished and everything it sent is resolved.
    pub(crate) fn is_finished(&self) -> bool {
        self.shut.is_some_and(|(last, _)| self.common() >= last)
    }

    /// Whether everything is resolved and no acknowledgement waits to be said.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_finished() && !self.has_ack() && self.ack_held.is_empty()
    }

    /// A piece of a message. Duplicates are counted and dropped.
    pub(crate) fn handle_data(
        &mut self,
        cx: &mut Context,
        now: Instant,
        data: Data,
    ) -> Result<(), Violation> {
        let id = data.id.0;
        if self.shut.is_some_and(|(last, _)| id > last.0) {
            return Err(Violation::Contradiction);
        }
        let ghost = self.messages.get(&id).is_some_and(|m| m.ghost);
        if self.resolved.contains(id) && !ghost {
            cx.stats.bytes_duplicate += data.payload.len() as u64;
            cx.stats.frames_late += 1;
            return Ok(());
        }
        self.make_room(id)?;
        let max_message = cx.config.max_message;
        let message = self.messages.entry(id).or_default();
        let end = data.offset + data.payload.len() as u64;
        check_lengths(message, &data, end, max_message)?;
        if data.fin {
            message.length = Some(end);
        }
        let fresh_head = message.head.is_none() && data.head.is_some();
        if let Some(head) = data.head {
            let left = head.expires_in.filter(|_| fresh_head && !message.ghost);
            message.head.get_or_insert(head);
            if let Some(left) = left {
                // Never before the sender's own clock says so, and clocks differ by less than a thousandth.
                let at = now + Duration::from_micros(left + left / 1000 + 1);
                message.expires = Some(at);
                self.deadlines.insert((at, id));
            }
        }
        let units = data.offset..end + u64::from(data.fin);
        let before = cost(&message.units, message.length);
        let fresh: Vec<Range<u64>> = message.units.missing(units.clone()).collect();
        for range in &fresh {
            if !message.ghost {
                message.bytes.insert(data.offset, &data.payload, range.clone());
            }
            message.units.insert(range.clone());
        }
        if message.units.ranges() > MAX_PARTIAL_RANGES {
            return Err(Violation::Limit);
        }
        let price = cost(&message.units, message.length) - before;
        message.paid[data.class.index()] += price;
        self.reweigh(id);
        let new: u64 = fresh.iter().map(|range| range.end - range.start).sum();
        cx.stats.bytes_received += new;
        cx.stats.bytes_duplicate += (data.payload.len() as u64).saturating_sub(new);
        self.charge(cx, data.class, price)?;
        if ghost || self.closed {
            self.refund(id);
        }
        if fresh.is_empty() {
            return Ok(());
        }
        if self.closed && !ghost {
            // Nobody will take it: the sender is to know that at once.
            if self.messages.get(&id).is_some_and(|m| m.head.is_some()) {
                self.resolve_dropped(cx, id);
            }
            return Ok(());
        }
        if !ghost {
            self.advanced(cx, id, fresh_head);
        }
        Ok(())
    }

    /// An honest sender has a bounded number of messages open, and so leaves a bounded number of holes.
    fn make_room(&mut self, id: u64) -> Result<(), Violation> {
        let new = !self.messages.contains_key(&id);
        // Every message between is open at an honest sender.
        if id > self.highest + MAX_OUTSTANDING as u64 {
            return Err(Violation::Limit);
        }
        let sets = [&self.resolved, &self.dropped, &self.places[0], &self.places[1]];
        let holes = sets.iter().any(|set| set.ranges() >= MAX_ID_RANGES);
        let full = self.messages.len() >= MAX_OUTSTANDING || holes || self.awaited.len() >= MAX_AWAITED;
        if new && full {
            return Err(Violation::Limit);
        }
        self.highest = self.highest.max(id);
        self.roomy = true;
        Ok(())
    }

    fn charge(&mut self, cx: &Context, class: Urgency, price: u64) -> Result<(), Violation> {
        let class = class.index();
        // The sender may go over the limit by one message, so that the oldest can finish.
        let most = self.limits[class] + cx.config.max_message + MESSAGE_COST + self.late[class];
        let charged = self.charged[class].checked_add(price).filter(|charged| *charged <= most);
        self.charged[class] = charged.ok_or(Violation::FlowControl)?;
        self.tell_spent(class);
        Ok(())
    }

    /// Takes back part of what the windows paid for a message, as if it had not come.
    fn uncharge(&mut self, id: u64, mut excess: u64) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        for (paid, charged) in message.paid.iter_mut().zip(&mut self.charged) {
            let part = excess.min(*paid);
            *paid -= part;
            *charged -= part;
            excess -= part;
        }
    }

    /// Gives back what the windows paid for a message.
    fn refund(&mut self, id: u64) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        let paid = core::mem::take(&mut message.paid);
        self.give_credit(paid);
    }

    fn give_credit(&mut self, amounts: [u64; 2]) {
        for (class, amount) in amounts.into_iter().enumerate() {
            self.limits[class] += amount;
            self.consumed[class] += amount;
            // Told in steps of an eighth, or the frames would outnumber the data.
            if self.limits[class] - self.told[class] >= self.windows[class] / 8 {
                self.credit_due[class] = true;
            }
            self.tell_spent(class);
        }
    }

    /// The sender has nothing left to spend: tell it even small amounts, for what it needs next may be the message
    /// that all others wait for.
    fn tell_spent(&mut self, class: usize) {
        self.credit_due[class] |=
            self.limits[class] > self.told[class] && self.charged[class] >= self.told[class];
    }

    /// The sender was told what it may spend.
    pub(crate) fn credit_told(&mut self, class: Urgency) {
        self.told[class.index()] = self.limits[class.index()];
        self.credit_due[class.index()] = false;
    }

    /// Memory that what arrived takes until it is taken: the bytes that the windows paid for, and what is kept of them.
    pub(crate) fn memory(&self) -> u64 {
        let sets = [&self.received, &self.resolved, &self.dropped, &self.places[0], &self.places[1]];
        let ranges: usize = sets.iter().map(|set| set.ranges()).sum();
        let kept = ranges * RANGE_WEIGHT + self.awaited.len() * AWAITED_WEIGHT;
        let held = |class: usize| self.windows[class] + self.charged[class] - self.limits[class];
        held(0) + held(1) + self.weight + kept as u64
    }

    /// How much larger the windows are than at the beginning.
    pub(crate) fn grown(&self) -> u64 {
        self.windows.iter().sum::<u64>() - self.bounds[0].iter().sum::<u64>()
    }

    /// Whether a window may grow: the application has taken as much as it holds since it last grew.
    pub(crate) fn may_grow(&self) -> bool {
        (0..2).any(|class| self.growth(class) > 0)
    }

    fn growth(&self, class: usize) -> u64 {
        let window = self.windows[class];
        if self.consumed[class] < window { 0 } else { window.min(self.bounds[1][class] - window) }
    }

    /// Lets the windows double, by at most `room` bytes in all; returns what is left of that.
    pub(crate) fn grow(&mut self, mut room: u64) -> u64 {
        for class in 0..2 {
            let more = self.growth(class).min(room);
            if more > 0 {
                room -= more;
                self.windows[class] += more;
                self.limits[class] += more;
                self.consumed[class] = 0;
                self.credit_due[class] = true;
            }
        }
        room
    }

    /// Brings the weight up to date after a message changed.
    fn reweigh(&mut self, id: u64) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        let weight = message.weight();
        self.weight = self.weight - message.noted + weight;
        message.noted = weight;
    }

    fn remove(&mut self, id: u64) -> Option<Message> {
        self.stop_clock(id);
        let message = self.messages.remove(&id)?;
        self.weight -= message.noted;
        Some(*message)
    }

    /// When a message expires that the application has not taken.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Drops what has expired untaken. Its sender asks for that, too, but may be cut off.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context, now: Instant) {
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.resolve_dropped(cx, id);
            cx.stats.expired_here += 1;
            debug_assert!(self.messages.get(&id).is_none_or(|m| m.expires.is_none()), "{id} expires on");
        }
    }

    fn stop_clock(&mut self, id: u64) {
        if let Some(at) = self.messages.get_mut(&id).and_then(|message| message.expires.take()) {
            self.deadlines.remove(&(at, id));
        }
    }

    fn advanced(&mut self, cx: &mut Context, id: u64, fresh_head: bool) {
        let Some(message) = self.messages.get(&id) else { return };
        let complete = message.complete();
        if complete && !self.received.contains(id) {
            self.received.insert_one(id);
            self.ack.received.insert_one(id);
        }
        let deliverable = complete || message.head.as_ref().is_some_and(|head| head.streamed);
        if message.taken {
            cx.event(Event::Readable { session: self.session });
        } else if deliverable && (fresh_head || complete) {
            self.try_ready(cx, id);
        }
    }

    /// Puts a message that can be taken in line, if nothing it waits for is open.
    fn try_ready(&mut self, cx: &mut Context, id: u64) {
        let Some(message) = self.messages.get(&id).filter(|m| !m.taken && !m.given && !m.ghost) else {
            return;
        };
        let Some(head) = &message.head else { return };
        if !(head.streamed || message.complete()) {
            return;
        }
        let urgency = message.labels().urgency;
        let class = head.labels.urgency.index();
        let free = match &head.order {
            Order::Total => self.first_open() >= id,
            Order::PerUrgency { sequence } => {
                let sequence = *sequence;
                let free = self.places[class].first_missing(0) >= sequence;
                if !free {
                    self.by_place[class].insert(sequence, id);
                }
                free
            }
            Order::After { dependencies, .. } => {
                let open: Vec<u64> =
                    dependencies.iter().map(|d| d.0).filter(|d| !self.resolved.contains(*d)).collect();
                if dependencies.iter().any(|d| self.dropped.contains(d.0)) {
                    self.resolve_dropped(cx, id);
                    return;
                }
                let free = open.is_empty();
                self.awaited.extend(open.into_iter().map(|dependency| (dependency, id)));
                free
            }
            _ => true,
        };
        if free {
            self.ready.insert((urgency, id));
            cx.event(Event::Readable { session: self.session });
        }
    }

    /// Whether [`recv`](Self::recv) would say that nothing can be taken yet.
    pub(crate) fn has_nothing(&self) -> bool {
        self.ready.is_empty() && !self.is_finished()
    }

    /// The first message that the application does not have, nor ever will.
    fn first_open(&self) -> u64 {
        let mut first = self.resolved.first_missing(1);
        while self.given.contains(first) {
            first = self.resolved.first_missing(self.given.first_missing(first));
        }
        first
    }

    /// Takes the next message. A whole one that is `held` keeps its place in the windows, and is delivered only when the
    /// application acknowledges it.
    pub(crate) fn recv(&mut self, cx: &mut Context, held: bool) -> Recv {
        let Some((_, id)) = self.ready.pop_first() else {
            return if self.is_finished() { Recv::Finished } else { Recv::Pending };
        };
        let Some(message) = self.messages.get_mut(&id) else {
            debug_assert!(false, "{id} is ready and gone");
            return Recv::Pending;
        };
        let labels = message.labels();
        let head = message.head.as_ref();
        let length = head.and_then(|head| head.length);
        let streamed = head.is_some_and(|head| head.streamed);
        let payload = if streamed {
            message.taken = true;
            self.stop_clock(id);
            None
        } else if held {
            // Its bytes stay, for it may be given back.
            let whole = message.bytes.share();
            self.give(cx, id);
            Some(whole)
        } else {
            let whole = message.bytes.take();
            self.refund(id);
            self.resolve(cx, id, true);
            Some(whole)
        };
        Recv::Message(Received { id: MessageId(id), labels, payload, length })
    }

    /// The application has a message, and has not said what became of it. The order goes on; who declared to wait waits.
    fn give(&mut self, cx: &mut Context, id: u64) {
        self.stop_clock(id);
        let Some(message) = self.messages.get_mut(&id) else { return };
        message.given = true;
        let place = message.head.as_ref().map(|head| (head.labels.urgency.index(), head.order.sequence()));
        self.reweigh(id);
        self.given.insert_one(id);
        if let Some((class, place)) = place {
            self.places[class].insert_one(place);
            self.release_order(cx, class);
        }
    }

    /// The application has done with a message that it held. Whether it did hold it.
    pub(crate) fn acknowledge_held(&mut self, cx: &mut Context, id: MessageId) -> bool {
        let held = self.messages.get(&id.0).is_some_and(|message| message.given);
        if held {
            self.refund(id.0);
            self.resolve(cx, id.0, true);
        }
        held
    }

    /// The application gives a message back: it is there to be taken again. Whether it held it.
    pub(crate) fn give_back(&mut self, cx: &mut Context, id: MessageId) -> bool {
        let Some(message) = self.messages.get_mut(&id.0).filter(|message| message.given) else {
            return false;
        };
        message.given = false;
        let urgency = message.labels().urgency;
        self.given.remove(id.0..id.0 + 1);
        self.ready.insert((urgency, id.0));
        cx.event(Event::Readable { session: self.session });
        true
    }

    /// Reads on in a streamed message that was taken.
    pub(crate) fn read(&mut self, cx: &mut Context, id: MessageId) -> Read {
        let Some(message) = self.messages.get_mut(&id.0).filter(|m| m.taken && !m.ghost) else {
            return Read::Dropped;
        };
        if let Some(bytes) = message.bytes.read() {
            let mut back = [0; 2];
            let mut left = bytes.len() as u64;
            for (paid, back) in message.paid.iter_mut().zip(&mut back) {
                *back = left.min(*paid);
                *paid -= *back;
                left -= *back;
            }
            self.give_credit(back);
            self.reweigh(id.0);
            return Read::Chunk(bytes);
        }
        if message.complete() && message.length == Some(message.bytes.position()) {
            self.refund(id.0);
            self.resolve(cx, id.0, true);
            return Read::End;
        }
        Read::Pending
    }

    /// The application does not want the rest of a message.
    pub(crate) fn refuse(&mut self, cx: &mut Context, id: MessageId) {
        if self.messages.get(&id.0).is_some_and(|m| !m.ghost) {
            self.resolve_dropped(cx, id.0);
        }
    }

    /// The application takes nothing any more.
    pub(crate) fn close(&mut self, cx: &mut Context) {
        self.closed = true;
        let open: Vec<u64> =
            self.messages.iter().filter(|(_, m)| !m.ghost && m.head.is_some()).map(|(id, _)| *id).collect();
        for id in open {
            self.resolve_dropped(cx, id);
        }
    }

    /// Takes a message out of everything that it waits in.
    fn unwait(&mut self, id: u64, message: &Message) {
        for urgency in Urgency::ALL {
            self.ready.remove(&(urgency, id));
        }
        let Some(head) = &message.head else { return };
        let places = &mut self.by_place[head.labels.urgency.index()];
        if places.get(&head.order.sequence()) == Some(&id) {
            places.remove(&head.order.sequence());
        }
        for dependency in head.order.dependencies() {
            self.awaited.remove(&(dependency.0, id));
        }
    }

    fn resolve_dropped(&mut self, cx: &mut Context, id: u64) {
        self.refund(id);
        self.resolve(cx, id, false);
    }

    /// A message has its outcome: acknowledge it, and let go what waited for it.
    fn resolve(&mut self, cx: &mut Context, id: u64, delivered: bool) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        let Some(head) = &message.head else { return };
        let place = (head.labels.urgency.index(), head.order.sequence());
        if delivered || message.complete() {
            // Nothing more of it will be sent for the first time.
            self.remove(id);
        } else {
            message.ghost = true;
            message.bytes.clear();
            self.stop_clock(id);
            self.reweigh(id);
        }
        self.settle(cx, id, delivered, place);
    }

    fn settle(&mut self, cx: &mut Context, id: u64, delivered: bool, place: (usize, u64)) {
        if !self.resolved.insert_one(id) {
            return;
        }
        self.received.remove(id..id + 1);
        self.given.remove(id..id + 1);
        for urgency in Urgency::ALL {
            self.ready.remove(&(urgency, id));
        }
        if !delivered {
            self.dropped.insert_one(id);
        }
        self.places[place.0].insert_one(place.1);
        let record = Record::Resolved { id: MessageId(id), delivered, place };
        match cx.record(self.session, record, Effect::Ack(MessageId(id), delivered)) {
            Some(_) => self.acknowledge(MessageId(id), delivered),
            None => drop(self.ack_held.insert(id)),
        }
        self.release(cx, id, place.0);
    }

    /// Lets go what waited for the place of a message.
    fn release_order(&mut self, cx: &mut Context, class: usize) {
        let outermost = self.free_next(class);
        self.work_off(cx, outermost);
    }

    /// Adds what is next in order to what is to be looked at. Whether nobody works that off already.
    fn free_next(&mut self, class: usize) -> bool {
        let outermost = self.freed.is_empty();
        // Marks that someone works the list off.
        self.freed.push(self.first_open());
        let next_place = self.places[class].first_missing(0);
        self.freed.extend(self.by_place[class].remove(&next_place));
        outermost
    }

    /// Lets go what waited for a resolved message. A chain of dependents is worked off here, not on the stack.
    fn release(&mut self, cx: &mut Context, id: u64, class: usize) {
        let outermost = self.free_next(class);
        let freed: Vec<(u64, u64)> = self.awaited.range((id, 0)..=(id, u64::MAX)).copied().collect();
        for pair in freed {
            self.awaited.remove(&pair);
            self.freed.push(pair.1);
        }
        self.work_off(cx, outermost);
    }

    fn work_off(&mut self, cx: &mut Context, outermost: bool) {
        if !outermost {
            return;
        }
        while let Some(waiting) = self.freed.last().copied() {
            // It stays on the list while it is looked at, so that what it frees in turn is only added.
            let before = self.freed.len();
            self.try_ready(cx, waiting);
            self.freed.remove(before - 1);
        }
        if self.is_finished() {
            cx.event(Event::Readable { session: self.session });
        }
    }

    /// The journal has the outcome.
    pub(crate) fn ack_confirmed(&mut self, id: MessageId, delivered: bool) {
        self.ack_held.remove(&id.0);
        self.acknowledge(id, delivered);
    }

    fn acknowledge(&mut self, id: MessageId, delivered: bool) {
        let set = if delivered { &mut self.ack.delivered } else { &mut self.ack.dropped };
        set.insert_one(id.0);
    }

    /// The sender wants a message dropped.
    pub(crate) fn handle_reset(
        &mut self,
        cx: &mut Context,
        id: MessageId,
        place: (Urgency, u64),
        class: Urgency,
        charged: u64,
        known: bool,
    ) -> Result<(), Violation> {
        let id = id.0;
        if self.given.contains(id) {
            // The application has it: what that says of it is the answer.
            return Ok(());
        }
        self.make_room(id)?;
        let has = self.messages.get(&id).map(|m| cost(&m.units, m.length));
        if has.is_some() || !self.resolved.contains(id) {
            // What was sent and has not arrived is paid and given back at once. What arrived late, after the sender had
            // counted anew, it did not pay for.
            let has = has.unwrap_or(0);
            let missing = charged.saturating_sub(has);
            self.charge(cx, class, missing)?;
            let mut back = [0; 2];
            back[class.index()] = missing;
            self.give_credit(back);
            self.uncharge(id, has.saturating_sub(charged));
            self.refund(id);
            if let Some(message) = self.remove(id) {
                self.unwait(id, &message);
            }
            self.settle(cx, id, false, (place.0.index(), place.1));
            cx.event(Event::Readable { session: self.session });
        } else if !known && !self.ack_held.contains(&id) {
            // The sender asks again because our answer was lost.
            self.acknowledge(MessageId(id), !self.dropped.contains(id));
        }
        if known {
            if self.dropped.contains(id) {
                cx.remember(self.session, Record::Excused(MessageId(id)));
            }
            self.dropped.remove(id..id + 1);
            self.ack.dropped.remove(id..id + 1);
        }
        Ok(())
    }

    pub(crate) fn handle_relabel(&mut self, id: MessageId, labels: Labels) -> Result<(), Violation> {
        if self.resolved.contains(id.0) {
            return Ok(());
        }
        self.make_room(id.0)?;
        let message = self.messages.entry(id.0).or_default();
        let old = message.labels().urgency;
        let new = labels.urgency;
        message.relabel = Some(labels);
        self.reweigh(id.0);
        if self.ready.remove(&(old, id.0)) {
            self.ready.insert((new, id.0));
        }
        Ok(())
    }

    pub(crate) fn handle_shut(
        &mut self,
        cx: &mut Context,
        last: MessageId,
        kind: ShutKind,
    ) -> Result<(), Violation> {
        match self.shut {
            Some((known, _)) if known != last => return Err(Violation::Contradiction),
            Some((_, ShutKind::Close)) => return Ok(()),
            _ => {}
        }
        if last.0 < self.highest {
            return Err(Violation::Contradiction);
        }
        let first = self.shut.is_none();
        self.shut = Some((last, kind));
        if first || kind == ShutKind::Close {
            cx.event(Event::PeerShut { session: self.session, closing: kind == ShutKind::Close });
            cx.event(Event::Readable { session: self.session });
        }
        Ok(())
    }

    /// Our half of a RESUME. What it cannot list is given up, so that both sides count alike.
    pub(crate) fn describe(&mut self, max_message: u64, view: &mut Resume) {
        let mut ranges = 0;
        let mut given_up = Vec::new();
        let mut order: Vec<(bool, u64)> = self.messages.iter().map(|(id, m)| (!m.taken, *id)).collect();
        // A message that is being read cannot be given up: those first.
        order.sort_unstable();
        for (_, id) in order {
            let Some(message) = self.messages.get(&id) else { continue };
            // A complete message is in `received`; only a stream's sender may not know how long it was.
            let streamed = message.head.as_ref().is_some_and(|head| head.streamed);
            if message.units.is_empty() || (self.received.contains(id) && !streamed) {
                continue;
            }
            if ranges + message.units.ranges() > MAX_PARTIAL_RANGES {
                if !self.received.contains(id) {
                    given_up.push(id);
                }
                continue;
            }
            ranges += message.units.ranges();
            view.partial.push((MessageId(id), message.units.clone()));
        }
        for id in given_up {
            if let Some(message) = self.remove(id) {
                self.unwait(id, &message);
                for (charged, paid) in self.charged.iter_mut().zip(message.paid) {
                    *charged -= paid;
                }
            }
        }
        view.received = self.received.clone();
        view.dropped = self.dropped.clone();
        view.delivered = self.resolved.clone();
        for range in self.dropped.iter() {
            view.delivered.remove(range);
        }
        view.charged = self.charged;
        view.limits = self.limits;
        for class in 0..2 {
            // At most what the sender was allowed before.
            let allowed = self.told[class] + max_message + MESSAGE_COST;
            self.late[class] = allowed.saturating_sub(self.charged[class]);
        }
        self.told = self.limits;
        self.credit_due = [false; 2];
    }

    /// The acknowledgements that are in a RESUME need not be said again.
    pub(crate) fn ack_lost(&mut self, lost: &Ack) {
        self.ack.received.extend(&lost.received);
        self.ack.delivered.extend(&lost.delivered);
        self.ack.dropped.extend(&lost.dropped);
    }

    pub(crate) fn restore_resolved(&mut self, id: MessageId, delivered: bool, place: (usize, u64)) {
        self.highest = self.highest.max(id.0);
        self.resolved.insert_one(id.0);
        self.places[place.0].insert_one(place.1);
        if !delivered {
            self.dropped.insert_one(id.0);
        }
    }

    pub(crate) fn restore_summary(&mut self, summary: &Summary) {
        self.highest = summary.resolved.max().unwrap_or(0);
        self.resolved = summary.resolved.clone();
        self.dropped = summary.refused.clone();
        self.places.clone_from(&summary.places);
    }

    pub(crate) fn restore_excused(&mut self, id: MessageId) {
        self.dropped.remove(id.0..id.0 + 1);
    }

    pub(crate) fn check_invariants(&self, config_max: u64) {
        let mut paid = [0; 2];
        for (id, message) in &self.messages {
            assert_eq!(self.resolved.contains(*id), message.ghost, "{id}: resolved and ghost differ");
            paid[0] += message.paid[0];
            paid[1] += message.paid[1];
            assert_eq!(message.weight(), message.noted, "{id} is weighed wrong");
        }
        assert_eq!(self.weight, self.messages.values().map(|m| m.noted).sum::<u64>(), "the weight");
        for (class, paid) in paid.into_iter().enumerate() {
            // What was paid and not given back is what the messages hold: no credit leaks.
            assert_eq!(self.limits[class] + paid, self.windows[class] + self.charged[class], "credit leaks");
            assert!(
                paid <= self.windows[class] + config_max + MESSAGE_COST + self.late[class],
                "holds more than the window"
            );
        }
        for (_, id) in &self.ready {
            assert!(self.messages.contains_key(id), "{id} is ready and gone");
            assert!(!self.given.contains(*id), "{id} is ready and given");
        }
        for id in self.given.iter().flatten() {
            assert!(self.messages.get(&id).is_some_and(|message| message.given), "{id} is given and gone");
        }
        assert!(self.resolved.ranges() <= MAX_ID_RANGES, "too many holes");
    }
}

/// Whether a piece fits what was said of its message before.
fn check_lengths(message: &Message, data: &Data, end: u64, max_message: u64) -> Result<(), Violation> {
    if let Some(head) = &data.head {
        let too_large = !head.streamed && head.length.is_none_or(|length| length > max_message);
        let known_end = message.units.max().map_or(0, |last| last + u64::from(message.length.is_none()));
        let other = |length: u64| {
            length < end || length < known_end || message.length.is_some_and(|known| known != length)
        };
        let cut = head.length.is_some_and(|length| data.fin && end != length);
        if too_large || cut || head.length.is_some_and(other) {
            return Err(Violation::FlowControl);
        }
        if message
            .head
            .as_ref()
            .is_some_and(|known| known.order != head.order || known.streamed != head.streamed)
        {
            return Err(Violation::Contradiction);
        }
    }
    let declared = message.head.as_ref().and_then(|head| head.length);
    if declared.is_some_and(|length| end > length || (data.fin && end != length)) {
        return Err(Violation::FlowControl);
    }
    match message.length {
        Some(length) if end > length || (data.fin && end != length) => Err(Violation::Contradiction),
        None if data.fin && message.units.max().is_some_and(|last| last >= end) => {
            Err(Violation::Contradiction)
        }
        _ => Ok(()),
    }
}
