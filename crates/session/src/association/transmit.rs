//! Which frame goes out next on a path: first what the path itself needs, then control, then foreground, then background.

use super::Association;
use crate::context::Context;
use crate::estimate::time_of;
use crate::outbound::Candidate;
use crate::path::{Cargo, Freight, Path};
use crate::session::{Item, Join, Session};
use core::time::Duration;
use steadfast_wire::frame::{
    DATA_OVERHEAD, FEATURE_OFFERS, FEATURE_SUSPENSION, Hello, MAX_BODY, Progress, VERSION,
};
use steadfast_wire::time::nanos;
use steadfast_wire::{Frame, Gather, Instant, PathNumber, Rule, SessionId, Urgency};

mod redundancy;
pub(super) use redundancy::Budget;

/// How many messages of a session are looked at for one path before others get their turn.
const LOOK: usize = 16;
/// What a large message is taken for at least, in bytes: its bandwidth counts, not its round trip.
const LARGE: u64 = 64 * 1024;
/// After so many bytes of foreground a packet of waiting background goes first, so that it never starves.
const FOREGROUND_RUN: u64 = 16 * PACKET;
/// The least time a message of either size is judged by: what fits one packet counts as that.
const PACKET: u64 = 1500;

/// Output on its way into the caller's buffer.
struct Sheet<'a> {
    out: &'a mut Gather,
    start: usize,
    max: usize,
}

impl Sheet<'_> {
    fn used(&self) -> usize {
        self.out.len() - self.start
    }

    fn room(&self) -> usize {
        self.max.saturating_sub(self.used())
    }

    /// How many payload bytes a DATA frame may take, so that the sheet is full and not over it: the rest would be a
    /// record, and perhaps a packet, of its own. An empty sheet always takes something.
    fn data_room(&self) -> usize {
        match self.room() {
            0 => 0,
            room if room > DATA_OVERHEAD => room - DATA_OVERHEAD,
            _ => usize::from(self.used() == 0),
        }
    }

    /// Appends a frame; returns its size.
    fn put(&mut self, frame: &Frame) -> usize {
        self.out.put(frame)
    }
}

impl Association {
    /// Fills at most about `max` bytes for a path (a single control frame may go over it); returns how many.
    pub(crate) fn fill(
        &mut self,
        cx: &mut Context,
        now: Instant,
        number: PathNumber,
        max: usize,
        out: &mut Gather,
    ) -> usize {
        let mut sheet = Sheet { start: out.len(), out, max };
        if let Some(last) = self.paths.get(&number).and_then(|path| Self::last_word(cx, path)) {
            return sheet.put(&last);
        }
        self.fill_path(cx, now, number, &mut sheet);
        let up = self.paths.get(&number).is_some_and(|path| path.is_up() && !path.is_full());
        if up {
            self.fill_networks(cx, now, number, &mut sheet);
        }
        if up && self.control_path() == Some(number) {
            self.fill_control(cx, now, number, &mut sheet);
        }
        let control = sheet.used();
        if up {
            // Copies are small, and bounded by their budget: they wait for no large message.
            self.fill_copies(cx, now, number, &mut sheet);
            self.fill_share(cx, now, number, &mut sheet);
            self.fill_data(cx, now, number, Urgency::Foreground, &mut sheet);
            self.fill_data(cx, now, number, Urgency::Background, &mut sheet);
        }
        let data = (sheet.used() - control) as u64;
        if let Some(path) = self.paths.get_mut(&number)
            && path.is_up()
        {
            if sheet.used() > 0 && path.unreported > 0 && path.may_report(now) {
                sheet.put(&report(path, now));
            }
            if sheet.used() > 0 {
                path.last_sent = now;
            }
            let queue = cx.config.background_queue;
            let may_send = path.paced.is_none() && path.bulk_room(now, queue, true) > 0;
            if sheet.data_room() > 0 && may_send {
                path.estimate.starved();
            }
        }
        let used = sheet.used();
        if let Some(path) = self.paths.get_mut(&number) {
            path.bytes[0] += used as u64;
            path.data_bytes += data;
            cx.stats.bytes_control += used as u64 - data;
        }
        used
    }

    /// HELLO, PROGRESS, PING, PONG, BYE.
    fn fill_path(&mut self, cx: &Context, now: Instant, number: PathNumber, sheet: &mut Sheet<'_>) {
        let says_bye = self.says_bye(now);
        let Some(path) = self.paths.get_mut(&number) else { return };
        if path.state == crate::path::State::Connecting {
            return;
        }
        if core::mem::take(&mut path.hello_due) {
            sheet.put(&Frame::Hello(Hello {
                version: VERSION,
                incarnation: cx.incarnation,
                path: path.number,
                network: path.local,
                port: cx.network(path.local).map_or(0, |network| network.port),
                features: FEATURE_OFFERS | FEATURE_SUSPENSION,
                durable: cx.config.durable,
                max_message: cx.config.max_message,
                windows: cx.config.first_windows,
                process: cx.config.process,
            }));
        }
        if !path.is_up() {
            return;
        }
        if path.report_due {
            sheet.put(&report(path, now));
        }
        if let Some(nonce) = path.pong_due.take() {
            sheet.put(&Frame::Pong { nonce });
        }
        if core::mem::take(&mut path.ping_due) {
            let nonce = now.0 & steadfast_wire::varint::MAX;
            path.pinged(now, nonce);
            sheet.put(&Frame::Ping { nonce });
        }
        if says_bye && let Some((reason, _)) = &self.bye {
            sheet.put(&Frame::Bye { reason: reason.clone() });
        }
    }

    fn fill_networks(&mut self, cx: &Context, now: Instant, number: PathNumber, sheet: &mut Sheet<'_>) {
        let changed = self.networks_due && self.control_path() == Some(number);
        let Some(path) = self.paths.get_mut(&number) else { return };
        if core::mem::take(&mut path.networks_due) || changed {
            self.networks_due &= !changed;
            let frame = Frame::Networks { epoch: cx.networks_epoch, networks: cx.announced_networks() };
            self.fly(now, number, &frame, Cargo::Networks, sheet);
        }
    }

    /// The path that carries control frames: the one that answers soonest.
    pub(crate) fn control_path(&self) -> Option<PathNumber> {
        let key = |path: &&Path| {
            let trouble = (path.suspect.is_some(), self.is_doubtful(path), path.blocked.is_some());
            (trouble, path.estimate.rtt_or_guess(), path.number)
        };
        self.paths.values().filter(|path| path.is_up()).min_by_key(key).map(|path| path.number)
    }

    fn fill_control(&mut self, cx: &mut Context, now: Instant, number: PathNumber, sheet: &mut Sheet<'_>) {
        // Reports about suspect paths would go into the same hole there.
        let suspects =
            self.paths.values_mut().filter(|p| p.is_up() && p.suspect.is_some() && p.number != number);
        for path in suspects.filter(|p| p.unreported > 0) {
            sheet.put(&report(path, now));
        }
        while let Some(notice) = self.notices.pop_front() {
            sheet.put(&notice);
        }
        if let Some((said, frame)) = self.take_due_offer() {
            self.fly(now, number, &frame, Cargo::Offer(said), sheet);
        }
        while sheet.room() > 0
            && let Some((session, reason, common)) = self.ends.pop_front()
        {
            let frame = Frame::End { session, reason, common };
            self.fly(now, number, &frame, Cargo::End((session, reason, common)), sheet);
        }
        let mut ids = core::mem::take(&mut self.round);
        ids.extend(&self.work);
        for id in ids.drain(..) {
            // Most have only messages to send.
            let silent = |s: &Session| !s.has_control() && s.join != Join::Opening;
            if self.sessions.get(&id).is_some_and(|session| silent(session)) {
                continue;
            }
            while sheet.room() > 0 {
                let Some(session) = self.sessions.get_mut(&id).filter(|s| s.has_control()) else { break };
                let opening = session.join == Join::Opening;
                let Some((frame, item)) = session.next_control(cx) else { break };
                if opening {
                    self.introduce(now, number, id, sheet);
                }
                self.fly(now, number, &frame, Cargo::Session(id, item), sheet);
            }
            self.introduce(now, number, id, sheet);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.due.open = false;
            }
            self.touch(id);
        }
        self.round = ids;
    }

    /// Says OPEN on a path before anything else of a session that the peer may not know.
    fn introduce(&mut self, now: Instant, number: PathNumber, id: SessionId, sheet: &mut Sheet<'_>) {
        let Some(session) = self.sessions.get(&id).filter(|s| s.join == Join::Opening) else { return };
        let Some(token) = session.epoch.current().filter(|_| session.opener) else { return };
        let frame = Frame::Open { session: id, per_urgency: session.per_urgency(), token };
        if self.paths.get_mut(&number).is_some_and(|path| path.introduced.insert(id)) {
            self.fly(now, number, &frame, Cargo::Session(id, Item::Open), sheet);
        }
    }

    fn fly(&mut self, now: Instant, number: PathNumber, frame: &Frame, cargo: Cargo, sheet: &mut Sheet<'_>) {
        let bytes = sheet.put(frame);
        if let Some(path) = self.paths.get_mut(&number) {
            path.fly(now, cargo, bytes, Freight::Small);
        }
    }

    /// A packet of background before foreground that would not let it pass otherwise.
    fn fill_share(&mut self, cx: &mut Context, now: Instant, number: PathNumber, sheet: &mut Sheet<'_>) {
        let Some(path) = self.paths.get_mut(&number) else { return };
        let queue = cx.config.background_queue;
        if path.foreground_run < FOREGROUND_RUN || path.bulk_allowance(now, queue, true) == 0 {
            return;
        }
        path.foreground_run = 0;
        let max = sheet.max;
        sheet.max = max.min(sheet.used() + PACKET as usize);
        self.fill_data(cx, now, number, Urgency::Background, sheet);
        sheet.max = max;
    }

    fn fill_data(
        &mut self,
        cx: &mut Context,
        now: Instant,
        number: PathNumber,
        urgency: Urgency,
        sheet: &mut Sheet<'_>,
    ) {
        // Sessions take turns, so that none has to wait for all large messages of another.
        let after = self.turn[urgency.index()].0 + 1;
        let mut ids = core::mem::take(&mut self.round);
        ids.extend(self.work.range(SessionId(after)..).chain(self.work.range(..SessionId(after))));
        for id in ids.drain(..) {
            if sheet.data_room() == 0 {
                break;
            }
            let sends = |session: &Session| session.may_send() && session.out.has_queued(urgency);
            let Some(session) = self.sessions.get(&id).filter(|session| sends(session)) else { continue };
            for candidate in session.out.candidates(urgency, LOOK) {
                if sheet.data_room() == 0 || !self.send_from(cx, now, number, urgency, id, candidate, sheet) {
                    break;
                }
            }
            self.touch(id);
        }
        self.round = ids;
    }

    /// Sends what the path may take of one message. `false` when this path should take no more of the session.
    #[expect(clippy::too_many_arguments, reason = "one decision, made of all of these")]
    fn send_from(
        &mut self,
        cx: &mut Context,
        now: Instant,
        number: PathNumber,
        urgency: Urgency,
        id: SessionId,
        candidate: Candidate,
        sheet: &mut Sheet<'_>,
    ) -> bool {
        let Some(rule) =
            self.sessions.get(&id).and_then(|s| s.out.labels(candidate.id)).map(|l| l.rule.clone())
        else {
            return true;
        };
        let Some(best) = self.choose(cx, now, &rule, candidate) else {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.out.set_unroutable(urgency, candidate.id);
                self.dial_dirty = true;
            }
            return true;
        };
        let background = urgency == Urgency::Background;
        let bulk = background || !candidate.small;
        let freight = match urgency {
            Urgency::Background => Freight::Background,
            Urgency::Foreground if bulk => Freight::Large,
            Urgency::Foreground => Freight::Small,
        };
        let takes = if bulk { self.shares(cx, now, &rule, number, best, candidate) } else { best == number };
        if !takes {
            return true;
        }
        self.introduce(now, number, id, sheet);
        while sheet.data_room() > 0 {
            let Some(path) = self.paths.get_mut(&number) else { return false };
            let mut room = sheet.data_room();
            if bulk {
                let allowance = path.bulk_allowance(now, cx.config.background_queue, background);
                if allowance == 0 {
                    path.meter.waits(background);
                    // What is small and urgent may pass a large message.
                    return !background;
                }
                room = room.min(allowance.max(PACKET) as usize);
            }
            let Some(session) = self.sessions.get_mut(&id) else { return false };
            let Some((units, data)) = session.out.next_data(cx, now, candidate.id, room) else { return true };
            let left = session.out.has_just_left(candidate.id);
            let cargo = Cargo::Session(id, Item::Data(data.id, units));
            let bytes = sheet.out.put_data(data);
            path.fly(now, cargo, bytes, freight);
            path.carries(&rule);
            self.turn[urgency.index()] = id;
            if !background {
                path.foreground_run += bytes as u64;
                if left {
                    self.consider_copy(cx, now, number, id, candidate.id);
                }
            }
        }
        debug_assert!(sheet.used() <= sheet.max + MAX_BODY);
        true
    }

    /// When the last byte of a message would be at the peer, if it were sent on this path now.
    fn predict(path: &Path, now: Instant, bytes: u64) -> Duration {
        let blocked = path.blocked.map_or(Duration::ZERO, |since| now.since(since));
        blocked
            + path.estimate.rtt_or_guess() / 2
            + time_of(path.in_flight + bytes, path.estimate.rate_or_guess())
    }

    /// The path that would have the message there first: rules before suspicion, suspicion before doubt, doubt before
    /// preference, preference before time, time before cost.
    pub(super) fn choose(
        &self,
        cx: &Context,
        now: Instant,
        rule: &Rule,
        candidate: Candidate,
    ) -> Option<PathNumber> {
        let bytes = match (candidate.small, candidate.remaining) {
            (true, remaining) => remaining.min(PACKET),
            (false, remaining) => remaining.max(LARGE),
        };
        self.paths
            .values()
            .filter(|path| path.is_up())
            .filter_map(|path| {
                let (rank, cost) = self.judge(cx, rule, path)?;
                let time = Self::predict(path, now, bytes);
                let trouble = (path.suspect.is_some(), self.is_doubtful(path));
                Some(((trouble, rank, nanos(time) / 1000, cost, path.number), path.number))
            })
            .min()
            .map(|(_, number)| number)
    }

    /// Whether a path has a network in common with a suspect one and was not heard since: where a network dies, all
    /// its paths do.
    fn is_doubtful(&self, path: &Path) -> bool {
        self.paths.values().any(|other| {
            let common = other.local == path.local || other.remote == path.remote;
            common && other.is_up() && other.suspect.is_some_and(|since| path.last_heard <= since)
        })
    }

    pub(crate) fn has_path_for(&self, cx: &Context, rule: &Rule) -> bool {
        self.paths.values().any(|path| path.is_up() && self.judge(cx, rule, path).is_some())
    }

    /// Whether a rule allows a path.
    pub(super) fn may_carry(&self, cx: &Context, rule: &Rule, path: &Path) -> bool {
        self.judge(cx, rule, path).is_some()
    }

    /// Preference and cost of a path for a rule; `None` if the rule prohibits it.
    pub(super) fn judge(&self, cx: &Context, rule: &Rule, path: &Path) -> Option<(u8, u8)> {
        match (cx.network(path.local), self.remote_network(path.remote)) {
            (Some(local), Some(remote)) => {
                rule.allows(local, remote).then(|| (rule.rank(local, remote), local.cost.max(remote.cost)))
            }
            // Until the peer has told its networks, only what may go anywhere may go.
            _ => rule.is_empty().then_some((1, 0)),
        }
    }

    /// Whether a path takes its share of a message of bulk: all allowed paths do, as long as a piece here is
    /// there no later than the rest would be on the best one.
    fn shares(
        &self,
        cx: &Context,
        now: Instant,
        rule: &Rule,
        number: PathNumber,
        best: PathNumber,
        candidate: Candidate,
    ) -> bool {
        if number == best {
            return true;
        }
        let (Some(path), Some(other)) = (self.paths.get(&number), self.paths.get(&best)) else {
            return false;
        };
        let (Some((rank, _)), Some((best_rank, _))) =
            (self.judge(cx, rule, path), self.judge(cx, rule, other))
        else {
            return false;
        };
        if rank > best_rank || (path.suspect.is_some() && other.suspect.is_none()) {
            return false;
        }
        Self::predict(path, now, PACKET) <= Self::predict(other, now, candidate.remaining)
    }
}

/// Tells what arrived on a path, by the peer's number for it.
fn report(path: &mut Path, now: Instant) -> Frame {
    path.unreported = 0;
    path.report_due = false;
    path.report_at = None;
    path.reported_at = now;
    Frame::Progress(Progress {
        path: path.remote_number,
        count: path.received,
        delay: nanos(now.since(path.last_counted)) / 1000,
        clock: (path.last_counted.0 / 1000) & steadfast_wire::varint::MAX,
    })
}
