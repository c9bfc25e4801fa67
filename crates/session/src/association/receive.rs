//! What an arrived frame does. A fault of the peer becomes a [`Violation`]: the path is closed and counted.

use super::{ANNOUNCEMENTS, Association, CAME_FROM, MAX_NOTICES};
use crate::context::Context;
use crate::event::{DownReason, Event, Violation};
use crate::journal::{Effect, Record};
use crate::liveness::{Evidence, Verdict};
use crate::path::{Cargo, Path, State};
use crate::session::{Join, Session};
use alloc::vec::Vec;
use core::time::Duration;
use steadfast_wire::frame::{EndReason, Hello, Progress};
use steadfast_wire::{Frame, Instant, Network, PathNumber, Token, Urgency};

impl Association {
    /// The peer's HELLO on a path of this association: the path is up, unless it has a twin that stays.
    pub(crate) fn handle_hello(
        &mut self,
        cx: &mut Context,
        now: Instant,
        number: PathNumber,
        hello: Hello,
    ) -> Result<(), Violation> {
        let Some(path) = self.paths.get_mut(&number) else { return Ok(()) };
        if path.state != State::ExpectHello {
            return Err(Violation::Hello);
        }
        path.remote = Some(hello.network);
        // Either network may have become another one since the carrier came in.
        if self.enforce_never(cx, now, number) {
            return Ok(());
        }
        let Some(path) = self.paths.get_mut(&number) else { return Ok(()) };
        path.remote_number = hello.path;
        // The opener knows only by our HELLO that it has reached a process that it has another path to.
        if !path.opener && matches!(self.twin_of(cx, now, number), Some((_, false))) {
            if let Some(path) = self.paths.get_mut(&number) {
                path.state = State::Leaving;
            }
            return Ok(());
        }
        let Some(path) = self.paths.get_mut(&number) else { return Ok(()) };
        path.state = State::Up;
        path.last_heard = now;
        path.up_since = now;
        path.last_progress = now;
        path.ping_due = true;
        let (opener, address) = (path.opener, path.address);
        let was_up = self.paths.values().filter(|p| p.is_up()).count() > 1;
        if opener {
            self.dials.remember(address);
        } else if hello.port != 0 {
            // The peer came from an address that it may not have announced yet.
            self.dials.remember(core::net::SocketAddr::new(address.ip(), hello.port));
        }
        for session in self.sessions.values_mut() {
            session.out.peer_says(hello.windows, hello.max_message, hello.durable);
        }
        if !opener && hello.port != 0 {
            self.came_from.push_back(core::net::SocketAddr::new(address.ip(), hello.port));
            if self.came_from.len() > CAME_FROM {
                self.came_from.pop_front();
            }
        }
        self.hello = Some(hello);
        self.path_joined(cx, now, number);
        self.expect(cx, now, number);
        let path = &self.paths[&number];
        cx.event(Event::PathUp(self.info(cx, path)));
        if !self.resolve_twin(cx, now, number) {
            return Ok(());
        }
        if !self.make_room(cx, now, number) {
            return Ok(());
        }
        if !was_up {
            self.claim_parked(cx);
        }
        self.offers.path_up();
        self.rescue_all(cx, now);
        self.routes_changed();
        self.review_all(cx, now);
        Ok(())
    }

    /// What was learned of a path's networks before, once their names are known.
    fn expect(&mut self, cx: &Context, now: Instant, number: PathNumber) {
        let pair = self.paths.get(&number).and_then(|path| self.pair_of(cx, path));
        if let (Some(pair), Some(path)) = (pair, self.paths.get_mut(&number)) {
            cx.learned.teach(now, &pair, &mut path.estimate);
        }
    }

    /// Whether the path `number` stays; if so, its twin does not.
    fn resolve_twin(&mut self, cx: &mut Context, now: Instant, number: PathNumber) -> bool {
        let Some((older, newer_stays)) = self.twin_of(cx, now, number) else { return true };
        let loser = if newer_stays { older } else { number };
        self.path_down(cx, now, loser, DownReason::Replaced);
        newer_stays
    }

    /// The older path that joins the same networks, and whether the newer one is to take its place. Of two paths for one pair
    /// the newer stays if the older is in doubt; else that of the lower fingerprint, or the one that its side opened first
    /// (DESIGN, Semantics 7).
    fn twin_of(&self, cx: &Context, now: Instant, number: PathNumber) -> Option<(PathNumber, bool)> {
        let path = self.paths.get(&number)?;
        let twin = self.twin(path)?;
        let fresh = now.since(twin.last_heard)
            < twin.estimate.patience(cx.config.suspicion_margin) + Duration::from_millis(50);
        // Both sides have to choose alike: where one side opened both, by its number of the path.
        let number_of = |path: &Path| if path.opener { path.number } else { path.remote_number };
        let preferred = match (path.opener, twin.opener) {
            (true, false) => cx.identity < self.peer,
            (false, true) => cx.identity > self.peer,
            _ => number_of(path) < number_of(twin),
        };
        Some((twin.number, twin.suspect.is_some() || !fresh || preferred))
    }

    /// There is a path again: all parked sessions go on.
    pub(crate) fn claim_parked(&mut self, cx: &mut Context) {
        let parked = self.sessions.values().filter(|s| s.join == Join::Parked).map(|s| s.id);
        for id in parked.collect::<Vec<_>>() {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.claim(cx);
            }
            self.touch(id);
        }
    }

    /// Notes that a frame of `size` bytes came in on a path that is up.
    pub(crate) fn note_arrival(
        &mut self,
        now: Instant,
        number: PathNumber,
        frame: &Frame,
        size: u64,
    ) -> Result<(), Violation> {
        let Some(path) = self.paths.get_mut(&number).filter(|path| path.is_up()) else {
            return Err(Violation::Hello);
        };
        path.last_heard = now;
        path.bytes[1] += size;
        if frame.is_counted() {
            let urgent = matches!(frame, Frame::Data(data) if data.class == Urgency::Foreground);
            path.counted(now, size, urgent);
        }
        Ok(())
    }

    /// Any frame but HELLO on a path that is up. Frames that may create or move sessions are the endpoint's: it
    /// handles them itself.
    pub(crate) fn handle_frame(
        &mut self,
        cx: &mut Context,
        now: Instant,
        number: PathNumber,
        frame: Frame,
    ) -> Result<(), Violation> {
        match frame {
            Frame::Hello(_) => return Err(Violation::Hello),
            Frame::Progress(progress) => return self.handle_progress(cx, now, number, progress),
            Frame::Check { path } => self.handle_check(cx, now, path),
            Frame::Have { path, count, closed } => return self.handle_have(cx, now, path, count, closed),
            Frame::Ping { nonce } => {
                if let Some(path) = self.paths.get_mut(&number) {
                    path.pong_due = Some(nonce);
                }
            }
            Frame::Pong { nonce } => self.handle_pong(cx, now, number, nonce),
            Frame::Networks { epoch, networks } => return self.handle_networks(cx, now, epoch, networks),
            Frame::Offer { from, to, epoch, offer } => {
                return self.handle_offer(now, (from, to), epoch, &offer);
            }
            Frame::Suspend { epoch, limit } => self.handle_suspend(cx, now, number, epoch, limit),
            Frame::Bye { reason } => {
                self.decide(cx, now, Verdict::Left, Evidence::Farewell(reason.clone()));
                cx.event(Event::PeerLeft { peer: self.peer, reason });
                for id in self.sessions.keys().copied().collect::<Vec<_>>() {
                    self.end(cx, id, EndReason::Left, false, None);
                }
                self.end_reaches();
                self.offers.unhear();
                self.dials.stop();
                for number in self.paths.keys().copied().collect::<Vec<_>>() {
                    self.path_down(cx, now, number, DownReason::Ended);
                }
            }
            of_a_session => return self.handle_session_frame(cx, now, of_a_session),
        }
        Ok(())
    }

    fn handle_session_frame(
        &mut self,
        cx: &mut Context,
        now: Instant,
        frame: Frame,
    ) -> Result<(), Violation> {
        let Some(id) = frame.session().filter(|_| !matches!(frame, Frame::Open { .. } | Frame::Resume(_)))
        else {
            return Ok(());
        };
        let Some(session) = self.sessions.get_mut(&id) else {
            cx.stats.frames_late += 1;
            return Ok(());
        };
        let result = apply(cx, now, session, frame);
        if result.is_err() {
            // Half of what it said may have been taken in: the conversation cannot go on.
            self.end(cx, id, EndReason::Violation, true, None);
        }
        if let Ok(Some((reason, common))) = result {
            self.end(cx, id, reason, false, common);
        }
        self.finish_over(cx, id);
        self.touch(id);
        result.map(|_| ())
    }

    /// A claim of a session that is here. `fresh` openings of unknown sessions are the endpoint's.
    pub(crate) fn handle_resume(
        &mut self,
        cx: &mut Context,
        now: Instant,
        view: &steadfast_wire::frame::Resume,
    ) {
        let Some(session) = self.sessions.get_mut(&view.session) else { return };
        if let Err(reason) = session.handle_resume(cx, now, view) {
            let common = view_common(view);
            self.end(cx, view.session, reason, true, Some(common));
        } else if core::mem::take(&mut session.succeeds) {
            self.succeeded(cx, view.session);
        }
        self.finish_over(cx, view.session);
        self.touch(view.session);
    }

    /// A session that the peer opened.
    pub(crate) fn handle_open(
        &mut self,
        cx: &mut Context,
        now: Instant,
        mut session: Session,
        held: Option<Token>,
    ) {
        session.joined_at = now;
        let peer = self.peer;
        if let Some(token) = held {
            session.epoch.hold(token);
        }
        let id = session.id;
        if let Some(hello) = &self.hello {
            session.out.peer_says(hello.windows, hello.max_message, hello.durable);
        }
        let opened = Record::Opened {
            peer,
            incarnation: self.incarnation,
            opener: false,
            per_urgency: session.per_urgency(),
            addresses: self.addresses(),
        };
        cx.remember(id, opened);
        if let Some(token) = held
            && let Some(effect) = cx.record(id, Record::Held(token), Effect::Hold(token))
        {
            session.apply(effect);
        }
        session.join = Join::Active;
        let token = session.epoch.offer(cx);
        if let Some(effect) = cx.record(id, Record::Offered(token), Effect::Accept) {
            session.apply(effect);
        }
        self.sessions.insert(id, alloc::boxed::Box::new(session));
        cx.event(Event::Incoming { session: id, peer });
        self.touch(id);
    }

    fn handle_progress(
        &mut self,
        cx: &mut Context,
        now: Instant,
        on: PathNumber,
        progress: Progress,
    ) -> Result<(), Violation> {
        // A report may travel on another path than the one it is about, and outlive it.
        let Some(path) = self.paths.get_mut(&progress.path) else { return Ok(()) };
        if progress.count > path.sent {
            return Err(Violation::Progress);
        }
        let (mut bytes, mut newest) = (0, None);
        let mut landed = Vec::new();
        while let Some(flight) = path.land(progress.count) {
            bytes += u64::from(flight.bytes);
            newest = Some(flight.at);
            landed.push((flight.cargo, flight.at));
        }
        let Some(newest) = newest else { return Ok(()) };
        path.last_progress = now;
        if on == progress.path {
            path.reported(now, &progress, bytes, newest, cx.config.background_queue);
            self.recovered(cx, now, progress.path);
        }
        self.landed(cx, landed);
        Ok(())
    }

    /// What flew since these times has arrived.
    fn landed(&mut self, cx: &mut Context, landed: Vec<(Cargo, Instant)>) {
        let mut concerned = None;
        for (cargo, at) in landed {
            let (id, late, item) = match cargo {
                Cargo::Session(id, item) => (id, false, item),
                Cargo::Moved(id, item) => (id, true, item),
                _ => continue,
            };
            // Most often all of it is of one session.
            if let Some(before) = concerned.replace(id).filter(|before| *before != id) {
                self.finish_over(cx, before);
                self.touch(before);
            }
            let Some(session) = self.sessions.get_mut(&id).filter(|s| s.joined_at <= at) else { continue };
            if late {
                session.arrived_late(cx, item);
            } else {
                session.arrived(cx, item);
            }
        }
        if let Some(id) = concerned {
            self.finish_over(cx, id);
            self.touch(id);
        }
    }

    /// The peer doubts a path: so do we, and we say what arrived on it.
    fn handle_check(&mut self, cx: &mut Context, now: Instant, asked: PathNumber) {
        if self.notices.len() >= MAX_NOTICES {
            return;
        }
        if self.paths.get(&asked).is_some_and(Path::is_up) {
            self.suspect(cx, now, asked, false);
            let path = &self.paths[&asked];
            let (path, count) = (path.remote_number, path.received);
            self.notices.push_back(Frame::Have { path, count: Some(count), closed: false });
        } else if let Some((_, theirs, count)) = self.closed_paths.iter().find(|(ours, ..)| *ours == asked) {
            self.notices.push_back(Frame::Have { path: *theirs, count: Some(*count), closed: true });
        }
    }

    fn handle_have(
        &mut self,
        cx: &mut Context,
        now: Instant,
        number: PathNumber,
        count: Option<u64>,
        closed: bool,
    ) -> Result<(), Violation> {
        self.land(cx, now, number, count.unwrap_or(0))?;
        if closed {
            self.path_down(cx, now, number, DownReason::Closed);
        } else if self.paths.get(&number).is_some_and(|path| path.suspect.is_some()) {
            self.move_flights(number, |_| true);
        }
        Ok(())
    }

    /// Everything up to `count` arrived on a path, as the peer says elsewhere: no measure of the path itself.
    fn land(
        &mut self,
        cx: &mut Context,
        now: Instant,
        number: PathNumber,
        count: u64,
    ) -> Result<(), Violation> {
        let Some(path) = self.paths.get_mut(&number) else { return Ok(()) };
        if count > path.sent {
            return Err(Violation::Progress);
        }
        let mut landed = Vec::new();
        while let Some(flight) = path.land(count) {
            landed.push((flight.cargo, flight.at));
        }
        if !landed.is_empty() {
            path.last_progress = now;
        }
        self.landed(cx, landed);
        Ok(())
    }

    fn handle_pong(&mut self, cx: &mut Context, now: Instant, number: PathNumber, nonce: u64) {
        let Some(path) = self.paths.get_mut(&number) else { return };
        if let Some((_, at)) = path.ping.take_if(|(asked, _)| *asked == nonce) {
            let rtt = now.since(at).max(Duration::from_micros(1));
            path.estimate.round_trip(now, rtt);
            if core::mem::take(&mut path.probed) {
                cx.event(Event::Probed { path: number, rtt });
            }
            self.answered(cx, now, number, at);
            self.recovered(cx, now, number);
            // After a stall the round trip is believed to be long; one sample a second would take long to mend that.
            if let Some(path) = self.paths.get_mut(&number) {
                path.ping_due |= path.estimate.is_above(rtt);
            }
        }
    }

    fn handle_networks(
        &mut self,
        cx: &mut Context,
        now: Instant,
        epoch: u64,
        networks: Vec<Network>,
    ) -> Result<(), Violation> {
        if epoch < self.remote_epoch {
            return Ok(());
        }
        self.remote_epoch = epoch;
        // The same list is said on every path.
        let changed = networks != self.remote_networks;
        if changed && !self.announcements.take(now, ANNOUNCEMENTS) {
            return Err(Violation::Limit);
        }
        let appeared = networks.iter().any(|new| !self.remote_networks.contains(new));
        self.remote_networks = networks;
        let gone: Vec<PathNumber> = self
            .paths
            .values()
            .filter(|path| path.is_up() && self.remote_network(path.remote).is_none())
            .map(|path| path.number)
            .collect();
        for number in gone {
            self.path_down(cx, now, number, DownReason::RemoteNetwork);
        }
        if appeared {
            self.dials.networks_changed(now);
        }
        if changed {
            self.enforce_rules(cx, now);
            for number in self.paths.keys().copied().collect::<Vec<_>>() {
                self.expect(cx, now, number);
            }
            self.routes_changed();
            self.review_all(cx, now);
        }
        Ok(())
    }
}

/// The last of the recipient's own messages that a claim's sender has with all before it.
fn view_common(view: &steadfast_wire::frame::Resume) -> steadfast_wire::MessageId {
    let mut has = view.delivered.clone();
    has.extend(&view.dropped);
    has.extend(&view.received);
    steadfast_wire::MessageId(has.first_missing(1) - 1)
}

type Over = Option<(EndReason, Option<steadfast_wire::MessageId>)>;

/// Applies a frame to its session; `Some` if the peer ended it.
fn apply(cx: &mut Context, now: Instant, session: &mut Session, frame: Frame) -> Result<Over, Violation> {
    match frame {
        Frame::Data(data) => {
            session.inb.handle_data(cx, now, data)?;
        }
        Frame::Ack(_, ack) => session.out.handle_ack(cx, now, &ack)?,
        Frame::Credit { class, limit, .. } => {
            let known = &mut session.out.limit[class.index()];
            *known = limit.max(*known);
        }
        Frame::Reset { id, order, sequence, class, charged, known, .. } => {
            session.inb.handle_reset(cx, id, (order, sequence), class, charged, known)?;
        }
        Frame::Relabel { id, labels, .. } => session.inb.handle_relabel(id, labels)?,
        Frame::Shut { last, kind, .. } => {
            session.inb.handle_shut(cx, last, kind)?;
            session.peer_shut(cx, kind);
        }
        Frame::Accept { token, holds, .. } => {
            if session.epoch.has_peer() {
                session.due.confirm = true;
            } else {
                session.epoch.hold(token);
                if let Some(effect) = cx.record(session.id, Record::Held(token), Effect::Hold(token)) {
                    session.apply(effect);
                }
            }
            session.confirmed(cx, holds);
            if session.join == Join::Opening {
                session.joined(cx);
            }
        }
        Frame::Confirm { holds, .. } => session.confirmed(cx, holds),
        Frame::End { reason, common, .. } => return Ok(Some((reason, Some(common)))),
        _ => {}
    }
    Ok(None)
}
