//! The public face of the core: one process with its networks, associations and sessions.

use crate::association::{Association, AssociationId};
use crate::config::{Config, Ordering, SessionConfig};
use crate::context::Context;
use crate::event::{Action, DownReason, Event, PathInfo, ReachId, Violation};
use crate::journal::JournalEntry;
use crate::ledger::Ledger;
use crate::liveness::Loss;
use crate::path::{Path, State};
use crate::session::Session;
use crate::stats::Stats;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use bytes::BytesMut;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use steadfast_wire::frame::{EndReason, Hello, Resume};
use steadfast_wire::{
    Fingerprint, Frame, Gather, Incarnation, Instant, MessageId, Network, NetworkId, PathNumber, SessionId,
};
use tombstones::Tombstones;

mod arbitration;
mod bounds;
mod liveness;
mod reach;
mod restore;
mod tombstones;
mod verbs;
mod waiting;

/// How many frames are taken before other paths get their turn: small ones may mean more work than their bytes show.
const FRAMES_A_TURN: usize = 256;
/// What a driver should ask for at once: this much of the path's rate, within these bounds (DESIGN, Semantics 8).
const RECORD_TIME: Duration = Duration::from_millis(5);
const RECORD: [u64; 2] = [1400, 256 * 1024];
/// The same of what a socket may hold unsent. Below the least the kernel would ask for every packet; the most is what a
/// fast path sends while the sender wakes up.
const UNSENT: [u64; 2] = [8 * 1024, 1024 * 1024];

/// A path that was accepted and has not said HELLO.
#[derive(Debug)]
struct Greeting {
    path: Path,
    peer: Fingerprint,
}

/// The core of one process.
///
/// # How to drive it
///
/// After any call that may change something, drain in this order until all are empty:
/// 1. [`poll_action`](Self::poll_action): carriers to open and close;
/// 2. [`poll_ready`](Self::poll_ready): paths that have something to say. For each, call
///    [`poll_transmit`](Self::poll_transmit) as long as the socket takes bytes at once and it returns more than 0;
///    if the socket does not, call [`handle_blocked`](Self::handle_blocked), later
///    [`handle_writable`](Self::handle_writable);
/// 3. [`poll_journal`](Self::poll_journal), if the endpoint is durable;
/// 4. [`poll_event`](Self::poll_event).
///
/// Then wait for input, or until [`poll_timeout`](Self::poll_timeout), and call
/// [`handle_timeout`](Self::handle_timeout).
#[derive(Debug)]
pub struct Endpoint {
    cx: Context,
    associations: BTreeMap<AssociationId, Association>,
    next_association: u64,
    /// How many associations have met their process.
    meetings: u64,
    homes: BTreeMap<PathNumber, AssociationId>,
    greetings: BTreeMap<PathNumber, Greeting>,
    sessions: BTreeMap<SessionId, AssociationId>,
    incoming: VecDeque<SessionId>,
    /// What the application wants to be in reach, and where that is.
    reaches: BTreeMap<ReachId, AssociationId>,
    next_reach: u64,
    tombstones: Tombstones,
    timers: BTreeSet<(Instant, AssociationId)>,
    timer_of: BTreeMap<AssociationId, Instant>,
    ready: BTreeSet<PathNumber>,
    /// The association whose frames are being handled.
    spoken_in: Option<AssociationId>,
    ledger: Ledger,
    arbitration: arbitration::Arbitration,
}

impl Endpoint {
    /// An endpoint of `identity`. `seed` makes everything random in it and must be different in every process.
    #[must_use]
    pub fn new(config: Config, identity: Fingerprint, seed: [u8; 32]) -> Self {
        Self {
            cx: Context::new(config, identity, seed),
            associations: BTreeMap::new(),
            next_association: 1,
            meetings: 0,
            homes: BTreeMap::new(),
            greetings: BTreeMap::new(),
            sessions: BTreeMap::new(),
            incoming: VecDeque::new(),
            reaches: BTreeMap::new(),
            next_reach: 1,
            tombstones: Tombstones::default(),
            timers: BTreeSet::new(),
            timer_of: BTreeMap::new(),
            ready: BTreeSet::new(),
            spoken_in: None,
            ledger: Ledger::default(),
            arbitration: arbitration::Arbitration::default(),
        }
    }

    /// This process, as peers see it.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.cx.incarnation
    }

    /// What was done and refused so far.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.cx.stats
    }

    /// All paths that are up.
    #[must_use]
    pub fn paths(&self) -> Vec<PathInfo> {
        let of = |association: &Association| -> Vec<PathInfo> {
            association.paths.values().filter(|p| p.is_up()).map(|p| association.info(&self.cx, p)).collect()
        };
        self.associations.values().flat_map(of).collect()
    }

    /// The local networks, as last told.
    #[must_use]
    pub fn networks(&self) -> &[Network] {
        &self.cx.networks
    }

    /// Whether nothing at all may go over a network ([`Config::never_connect`]).
    #[must_use]
    pub fn forbids(&self, network: &Network) -> bool {
        self.cx.config.forbids(network)
    }

    /// Whether there is anything that [`forbids`](Self::forbids) may say of a network.
    #[must_use]
    pub const fn forbids_any(&self) -> bool {
        !self.cx.config.never_connect.is_empty()
    }

    fn create(&mut self, mut association: Association) -> AssociationId {
        let id = AssociationId(self.next_association);
        self.next_association += 1;
        if association.incarnation.is_some() {
            association.offers.set_number(self.next_meeting());
        }
        self.associations.insert(id, association);
        id
    }

    /// The number of an association with a process that is known from now on. A later one is higher, also if it was created
    /// before and had to find its process first.
    fn next_meeting(&mut self) -> u64 {
        self.meetings += 1;
        self.meetings
    }

    fn by_process(&self, peer: Fingerprint, incarnation: Incarnation) -> Option<AssociationId> {
        let mut found = self
            .associations
            .iter()
            .filter(|(_, a)| a.peer == peer && a.incarnation == Some(incarnation) && !a.is_leaving());
        found.next().map(|(id, _)| *id)
    }

    /// The association for a process of `peer` at some of these addresses: rather one that is up than that of a process which
    /// was there before.
    fn by_place(&self, peer: Fingerprint, addresses: &[SocketAddr]) -> Option<AssociationId> {
        let fits = || self.associations.iter().filter(|(_, association)| association.is_at(peer, addresses));
        fits().find(|(_, association)| association.is_up()).or_else(|| fits().next()).map(|(id, _)| *id)
    }

    /// Runs `f` on the association of a path.
    fn on_path<R>(
        &mut self,
        now: Instant,
        path: PathNumber,
        f: impl FnOnce(&mut Association, &mut Context) -> R,
    ) -> Option<R> {
        let id = *self.homes.get(&path)?;
        let result = f(self.associations.get_mut(&id)?, &mut self.cx);
        self.after(now, id);
        Some(result)
    }

    /// Brings everything that is kept beside an association up to date after it changed.
    fn after(&mut self, now: Instant, id: AssociationId) {
        self.after_frame(now, id);
        self.catch_up(now, id);
    }

    /// The part of [`after`](Self::after) that the next frame on the same path relies on; the rest may follow the last.
    fn after_frame(&mut self, now: Instant, id: AssociationId) {
        self.settle(now, id);
        let Some(association) = self.associations.get_mut(&id) else { return };
        for ending in core::mem::take(&mut association.ended) {
            let peer = association.peer;
            self.sessions.remove(&ending.0);
            self.incoming.retain(|session| *session != ending.0);
            self.tombstones.bury(peer, ending);
        }
        for reach in association.offers.unreached.drain(..) {
            self.reaches.remove(&reach);
            self.cx.event(Event::Unreached { reach });
        }
        for path in association.gone.drain(..) {
            self.homes.remove(&path);
            self.ready.remove(&path);
        }
    }

    /// When an association is next to be called, and which of its paths have something to say.
    fn catch_up(&mut self, now: Instant, id: AssociationId) {
        let Some(association) = self.associations.get_mut(&id) else { return };
        association.tell_offers(&mut self.cx, id);
        association.refresh(&self.cx, now);
        for (number, path) in &association.paths {
            self.homes.insert(*number, id);
            if path.blocked.is_none() && association.has_output(now, path) {
                self.ready.insert(*number);
            }
        }
        let empty = association.is_empty();
        let timeout = association.timeout(&self.cx).filter(|_| !empty);
        if empty && let Some(mut association) = self.associations.remove(&id) {
            association.unwatch(&mut self.cx);
            association.tell_dissociated(&mut self.cx, id);
        }
        self.arm(now, id, timeout);
    }

    /// Sets the timer of an association.
    fn arm(&mut self, now: Instant, id: AssociationId, timeout: Option<Instant>) {
        let armed = self.timer_of.get(&id).copied();
        // Nearly every frame puts the next deadline off: to fire too early now and then, and to look, is less work.
        let fires_before = |at| armed.is_some_and(|armed| now < armed && armed <= at);
        if timeout == armed || timeout.is_some_and(fires_before) {
            return;
        }
        if let Some(old) = self.timer_of.remove(&id) {
            self.timers.remove(&(old, id));
        }
        if let Some(at) = timeout {
            self.timer_of.insert(id, at);
            self.timers.insert((at, id));
        }
    }

    // ----- what comes in -------------------------------------------------------------------------------------------

    /// The local networks are these now.
    pub fn handle_networks(&mut self, now: Instant, networks: Vec<Network>) {
        if networks == self.cx.networks {
            return;
        }
        self.cx.former_networks = core::mem::replace(&mut self.cx.networks, networks);
        self.cx.networks_epoch += 1;
        for id in self.associations.keys().copied().collect::<Vec<_>>() {
            if let Some(association) = self.associations.get_mut(&id) {
                association.networks_changed(&mut self.cx, now);
            }
            self.after(now, id);
        }
    }

    /// The carrier that [`Action::Connect`] asked for is there, from this local address.
    pub fn handle_connected(&mut self, now: Instant, path: PathNumber, local: IpAddr) {
        self.on_path(now, path, |association, cx| {
            if let Some(path) =
                association.paths.get_mut(&path).filter(|path| path.state == State::Connecting)
            {
                path.state = State::ExpectHello;
                path.local_ip = Some(local);
                path.deadline = now + cx.config.connect_timeout;
            }
        });
    }

    /// A carrier came in on one of our networks, authenticated as `peer`. `None` if it is refused: close it.
    pub fn handle_accepted(
        &mut self,
        now: Instant,
        network: NetworkId,
        local: IpAddr,
        remote: SocketAddr,
        peer: Fingerprint,
    ) -> Option<PathNumber> {
        if self.cx.network(network).is_some_and(|network| self.cx.config.forbids(network)) {
            self.cx.stats.refused_networks += 1;
            return None;
        }
        if self.cx.suspended.is_some() {
            return None;
        }
        if !self.has_room_for_path(peer) {
            self.cx.stats.refused_processes += 1;
            return None;
        }
        if self.greetings.len() >= self.cx.config.max_greeting {
            self.displace_greeting();
        }
        let number = self.cx.next_path();
        let mut path = Path::new(number, false, network, remote, now, now + self.cx.config.connect_timeout);
        path.local_ip = Some(local);
        path.same_host = self.cx.is_ours(remote.ip());
        self.greetings.insert(number, Greeting { path, peer });
        Some(number)
    }

    /// The carrier of a path failed, ended, or could not be opened.
    pub fn handle_carrier_lost(&mut self, now: Instant, path: PathNumber, loss: Loss) {
        self.greetings.remove(&path);
        self.on_path(now, path, |a, cx| a.path_gone(cx, now, path, DownReason::Carrier, loss));
        self.homes.remove(&path);
        self.ready.remove(&path);
    }

    /// The socket of a path takes no more bytes.
    pub fn handle_blocked(&mut self, now: Instant, path: PathNumber) {
        self.on_path(now, path, |association, _| {
            if let Some(path) = association.paths.get_mut(&path) {
                path.blocked.get_or_insert(now);
            }
        });
    }

    /// The socket of a path takes bytes again.
    pub fn handle_writable(&mut self, now: Instant, path: PathNumber) {
        self.on_path(now, path, |association, _| {
            if let Some(path) = association.paths.get_mut(&path) {
                path.blocked = None;
            }
        });
    }

    /// Bytes from a carrier. Whole frames are taken off the front of `input`; what is left belongs before the bytes
    /// that come next (at most 128 KiB and a header). Whether it stopped before all of them were taken, because others
    /// are to have their turn: then call it again.
    #[must_use]
    pub fn handle_data(&mut self, now: Instant, path: PathNumber, input: &mut BytesMut) -> bool {
        let more = self.handle_frames(now, path, input);
        if let Some(id) = self.spoken_in.take() {
            self.catch_up(now, id);
        }
        more
    }

    fn handle_frames(&mut self, now: Instant, path: PathNumber, input: &mut BytesMut) -> bool {
        for _ in 0..FRAMES_A_TURN {
            let before = input.len();
            let result = match Frame::decode(input) {
                Ok(None) => return false,
                Ok(Some(frame)) => {
                    self.cx.stats.frames_received += 1;
                    self.handle_frame(now, path, frame, (before - input.len()) as u64)
                }
                Err(_) => Err(Violation::Decode),
            };
            if let Err(violation) = result {
                input.clear();
                self.violated(now, path, violation);
                return false;
            }
        }
        true
    }

    fn violated(&mut self, now: Instant, path: PathNumber, violation: Violation) {
        let stats = &mut self.cx.stats;
        *match violation {
            Violation::Decode => &mut stats.violations_decode,
            Violation::Hello => &mut stats.violations_hello,
            Violation::FlowControl => &mut stats.violations_flow_control,
            Violation::Contradiction => &mut stats.violations_contradiction,
            Violation::Progress => &mut stats.violations_progress,
            Violation::Limit => &mut stats.violations_limit,
        } += 1;
        if self.greetings.remove(&path).is_some() {
            self.cx.actions.push_back(Action::Reset { path });
        }
        self.on_path(now, path, |association, cx| {
            association.path_down(cx, now, path, DownReason::Violation);
        });
    }

    fn handle_frame(
        &mut self,
        now: Instant,
        path: PathNumber,
        frame: Frame,
        size: u64,
    ) -> Result<(), Violation> {
        if let Frame::Hello(hello) = frame {
            return self.handle_hello(now, path, hello);
        }
        if self.greetings.contains_key(&path) {
            return Err(Violation::Hello);
        }
        // A path that went down a moment ago may still have bytes in its buffer.
        let Some(id) = self.homes.get(&path).copied() else { return Ok(()) };
        let Some(association) = self.associations.get_mut(&id) else { return Ok(()) };
        let Some(up_since) = association.paths.get(&path).map(|path| path.up_since) else { return Ok(()) };
        association.note_arrival(now, path, &frame, size)?;
        if !matches!(frame, Frame::Suspend { .. }) {
            association.heard(&mut self.cx, now, path);
        }
        if let Some(unknown) = frame.session().filter(|session| !self.sessions.contains_key(session))
            && frame.speaks_in_session()
        {
            self.tell_over(id, unknown);
            self.after(now, id);
            return Ok(());
        }
        let Some(association) = self.associations.get_mut(&id) else { return Ok(()) };
        let result = match frame {
            Frame::Open { session, per_urgency, token } => {
                if let Some(new) = self.admit(id, session, per_urgency)
                    && let Some(association) = self.associations.get_mut(&id)
                {
                    association.handle_open(&mut self.cx, now, new, Some(token));
                }
                Ok(())
            }
            Frame::Resume(view) => {
                let late = |session: &Session| session.is_late(&view, up_since);
                let peer = association.peer;
                let home = self.sessions.get(&view.session).and_then(|home| self.associations.get(home));
                // Of a conversation with somebody else it hears what anybody would.
                let home = home.filter(|home| home.peer == peer);
                if home.and_then(|home| home.sessions.get(&view.session)).is_some_and(|session| late(session))
                {
                    self.cx.stats.frames_late += 1;
                } else {
                    self.handle_resume(now, id, &view);
                }
                Ok(())
            }
            frame => {
                let announces = matches!(frame, Frame::Networks { .. });
                let result = association.handle_frame(&mut self.cx, now, path, frame);
                if announces {
                    self.share_addresses(now, id);
                }
                result
            }
        };
        self.after_frame(now, id);
        if let Some(other) = self.spoken_in.replace(id).filter(|other| *other != id) {
            self.catch_up(now, other);
        }
        result
    }

    /// Whether a session that a peer opens may be: a new one, or `None` after saying why not.
    fn admit(&mut self, id: AssociationId, session: SessionId, per_urgency: bool) -> Option<Session> {
        let association = self.associations.get_mut(&id)?;
        if self.sessions.contains_key(&session) || association.is_leaving() {
            return None;
        }
        if let Some(ending) = self.tombstones.find(association.peer, session) {
            association.tell_end(ending);
            return None;
        }
        let full = association.sessions.len() >= self.cx.config.max_sessions;
        let max_incoming = self.cx.config.max_incoming;
        let dues = self.ledger.of(association.peer);
        let full = full || dues.opened as usize >= self.cx.config.max_sessions;
        let waiting = dues.waiting as usize;
        if full || self.incoming.len() >= max_incoming || waiting >= max_incoming.div_ceil(4) {
            self.cx.stats.refused_sessions += 1;
            association.tell_end((session, EndReason::Refused, MessageId(0)));
            return None;
        }
        let ordering = if per_urgency { Ordering::PerUrgency } else { Ordering::Total };
        let config = SessionConfig { ordering, ..SessionConfig::default() };
        self.sessions.insert(session, id);
        self.incoming.push_back(session);
        Some(Session::new(&self.cx, session, false, config))
    }

    fn handle_resume(&mut self, now: Instant, id: AssociationId, view: &Resume) {
        let Some(association) = self.associations.get_mut(&id) else { return };
        let peer = association.peer;
        match self.sessions.get(&view.session).copied() {
            Some(home) if home == id => association.handle_resume(&mut self.cx, now, view),
            Some(home) => {
                // A conversation goes on only under the identity that opened it.
                if self.associations.get(&home).is_none_or(|other| other.peer != peer) {
                    self.tell_unknown(id, view.session);
                    return;
                }
                self.move_session(now, view.session, home, id);
                if let Some(association) = self.associations.get_mut(&id) {
                    association.handle_resume(&mut self.cx, now, view);
                }
                self.after(now, home);
            }
            None if view.fresh => {
                if let Some(new) = self.admit(id, view.session, view.per_urgency)
                    && let Some(association) = self.associations.get_mut(&id)
                {
                    association.handle_open(&mut self.cx, now, new, None);
                    association.handle_resume(&mut self.cx, now, view);
                }
            }
            None => self.tell_over(id, view.session),
        }
    }

    /// An association that has not reached its peer yet tries where the same peer, on the same port, says that it is.
    fn share_addresses(&mut self, now: Instant, id: AssociationId) {
        let Some(source) = self.associations.get(&id) else { return };
        let (peer, announced) = (source.peer, source.announced());
        let seeking: Vec<AssociationId> = self
            .associations
            .iter()
            .filter(|(_, a)| a.peer == peer && a.incarnation.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in seeking {
            if let Some(association) = self.associations.get_mut(&id) {
                association.also_at(&announced);
            }
            self.after(now, id);
        }
    }

    /// A peer speaks in a conversation that is not here: it learns how that ended, or that it is not known.
    fn tell_over(&mut self, id: AssociationId, session: SessionId) {
        let Some(association) = self.associations.get_mut(&id) else { return };
        let known = self.tombstones.find(association.peer, session);
        association.tell_end(known.unwrap_or((session, EndReason::Unknown, MessageId(0))));
    }

    fn tell_unknown(&mut self, id: AssociationId, session: SessionId) {
        if let Some(association) = self.associations.get_mut(&id) {
            association.tell_end((session, EndReason::Unknown, MessageId(0)));
        }
    }

    fn move_session(&mut self, now: Instant, session: SessionId, from: AssociationId, to: AssociationId) {
        let Some(mut moved) = self.associations.get_mut(&from).and_then(|a| a.remove(session)) else {
            return;
        };
        moved.park(&mut self.cx, now);
        if let Some(association) = self.associations.get_mut(&to) {
            association.insert(&mut self.cx, now, moved);
            // Before the other side's loss is counted, or there would be room twice.
            association.settle(&mut self.ledger, 0);
            self.sessions.insert(session, to);
        }
    }

    /// HELLO says which process is at the other end: that decides the association.
    fn handle_hello(&mut self, now: Instant, number: PathNumber, hello: Hello) -> Result<(), Violation> {
        if hello.version == 0 || hello.max_message == 0 || hello.incarnation == self.cx.incarnation {
            return Err(Violation::Hello);
        }
        let incarnation = hello.incarnation;
        let id = if let Some(greeting) = self.greetings.remove(&number) {
            let Some(id) = self.adopt(now, greeting, incarnation) else {
                self.cx.stats.refused_processes += 1;
                self.cx.actions.push_back(Action::Reset { path: number });
                return Ok(());
            };
            id
        } else {
            let Some(old) = self.homes.get(&number).copied() else { return Ok(()) };
            let path = self.associations.get(&old).and_then(|association| association.paths.get(&number));
            // A second HELLO would turn one peer into another in the middle of a path.
            if path.is_some_and(|path| path.state != State::ExpectHello) {
                return Err(Violation::Hello);
            }
            let Some(id) = self.place(now, number, old, incarnation) else {
                self.cx.stats.refused_processes += 1;
                self.on_path(now, number, |a, cx| a.path_down(cx, now, number, DownReason::Ended));
                return Ok(());
            };
            id
        };
        let Some(association) = self.associations.get_mut(&id) else { return Ok(()) };
        let result = association.handle_hello(&mut self.cx, now, number, hello);
        self.after(now, id);
        result
    }

    /// A path that came in joins the association of the process it came from; `None` if there are too many.
    fn adopt(&mut self, now: Instant, greeting: Greeting, incarnation: Incarnation) -> Option<AssociationId> {
        let Greeting { path, peer } = greeting;
        let id = match self.by_process(peer, incarnation) {
            Some(id) => id,
            None if !self.make_room(now, peer) => return None,
            None => {
                let mut association = Association::new(peer, Some(incarnation), Vec::new());
                // The side that opened the first path opens the others; we help if it does not.
                association.dials.wait_until(now + self.cx.config.accept_grace);
                self.create(association)
            }
        };
        // There is room in the association, however many paths it is opening itself: what is too much goes at HELLO.
        if !self.has_room_for_path(peer) {
            return None;
        }
        let association = self.associations.get_mut(&id)?;
        self.homes.insert(path.number, id);
        association.paths.insert(path.number, path);
        Some(id)
    }

    /// A path that we opened reached a process: it may be another one than the association was with. `None` if there
    /// may be no more of them, or this side is leaving.
    fn place(
        &mut self,
        now: Instant,
        number: PathNumber,
        old: AssociationId,
        incarnation: Incarnation,
    ) -> Option<AssociationId> {
        let association = self.associations.get(&old)?;
        let peer = association.peer;
        if association.incarnation == Some(incarnation) {
            return Some(old);
        }
        if association.is_leaving() {
            return None;
        }
        let known = self.by_process(peer, incarnation);
        if association.incarnation.is_none() && known.is_none() {
            let number = self.next_meeting();
            let association = self.associations.get_mut(&old)?;
            association.incarnation = Some(incarnation);
            association.offers.set_number(number);
            return Some(old);
        }
        let new = match known {
            Some(known) => known,
            None if self.make_room(now, peer) => {
                self.create(Association::new(peer, Some(incarnation), Vec::new()))
            }
            None => return None,
        };
        let mut from = self.associations.remove(&old)?;
        let path = from.paths.remove(&number);
        let replaced = from.incarnation.is_some() && !from.is_up();
        if replaced {
            from.replaced_by(&mut self.cx, now, incarnation);
        }
        let (sessions, reaches): (Vec<SessionId>, Vec<ReachId>) = if from.is_up() {
            (Vec::new(), Vec::new())
        } else {
            (from.sessions.keys().copied().collect(), from.offers.take_reaches())
        };
        if let Some(to) = self.associations.get_mut(&new) {
            to.adopt_addresses(&from);
            to.offers.want(reaches.iter().copied());
            if let Some(path) = path {
                self.homes.insert(number, new);
                to.paths.insert(number, path);
            }
        }
        for reach in &reaches {
            self.reaches.insert(*reach, new);
        }
        self.associations.insert(old, from);
        for session in sessions.iter().copied() {
            self.move_session(now, session, old, new);
            let moved = self.associations.get_mut(&new).and_then(|to| to.sessions.get_mut(&session));
            if let Some(session) = moved {
                session.succeeds |= replaced;
            }
        }
        if let Some(to) = self.associations.get(&new).filter(|_| !replaced) {
            to.joined_by(&mut self.cx, sessions, reaches);
        }
        self.after(now, old);
        Some(new)
    }

    /// What is due by the clock.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            if let Some(association) = self.associations.get_mut(&id) {
                association.handle_timeout(&mut self.cx, now);
            }
            self.after(now, id);
            // Whatever is due again at once waits for the next call: time is allowed to stand still here.
            if self.timer_of.get(&id).is_some_and(|at| *at <= now) {
                break;
            }
        }
        let late: Vec<PathNumber> = self
            .greetings
            .iter()
            .filter(|(_, g)| g.path.deadline <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            self.greetings.remove(&number);
            self.cx.stats.refused_greetings += 1;
            self.cx.actions.push_back(Action::Reset { path: number });
        }
    }

    /// The store has all records up to `number`.
    pub fn handle_confirmed(&mut self, now: Instant, number: u64) {
        let (mut sessions, mut associations) = (BTreeSet::new(), BTreeSet::new());
        while let Some((session, effect)) = self.cx.confirmed(number) {
            let id = self.sessions.get(&session);
            if let Some(found) =
                id.and_then(|id| self.associations.get_mut(id)).and_then(|a| a.sessions.get_mut(&session))
            {
                found.apply(effect);
                sessions.insert(session);
            }
        }
        // What follows from them follows once: many messages are confirmed together.
        for session in sessions {
            let Some(id) = self.sessions.get(&session).copied() else { continue };
            if let Some(association) = self.associations.get_mut(&id) {
                association.finish_over(&mut self.cx, session);
                association.touch(session);
            }
            associations.insert(id);
        }
        for id in associations {
            self.after(now, id);
        }
    }

    // ----- what goes out -------------------------------------------------------------------------------------------

    /// The next thing for the driver to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.cx.actions.pop_front()
    }

    /// The next event for the application.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.cx.events.pop_front()
    }

    /// The next record for the store; none unless the endpoint is durable.
    pub fn poll_journal(&mut self) -> Option<JournalEntry> {
        self.cx.journal.pop_front()
    }

    /// A path that may have something to say.
    pub fn poll_ready(&mut self) -> Option<PathNumber> {
        self.ready.pop_first()
    }

    /// Appends what a path says next to `out`, about `max` bytes at most (one control frame may go over it);
    /// returns how many bytes that are. Call it only when the socket takes bytes at once.
    pub fn poll_transmit(&mut self, now: Instant, path: PathNumber, max: usize, out: &mut Gather) -> usize {
        let Some(id) = self.homes.get(&path).copied() else { return 0 };
        let Some(association) = self.associations.get_mut(&id) else { return 0 };
        let bytes = association.fill(&mut self.cx, now, path, max, out);
        association.close_after_bye(&mut self.cx, now, path);
        association.close_after_hello(&mut self.cx, now, path);
        association.close_suspended(&mut self.cx, now, path);
        if bytes > 0 {
            let more = association.has_work();
            self.after(now, id);
            if !more {
                self.ready.remove(&path);
            }
        } else {
            // It may have found just now that it has to wait for its pace, or that something waits for another network,
            // and nothing else may ever call. A session may have given room back.
            self.settle(now, id);
            let Some(association) = self.associations.get_mut(&id) else { return 0 };
            association.refresh(&self.cx, now);
            let timeout = association.timeout(&self.cx).filter(|_| !association.is_empty());
            self.arm(now, id, timeout);
        }
        bytes
    }

    /// Whether a path may have something to say: if not, [`poll_transmit`](Self::poll_transmit) returns 0.
    #[must_use]
    pub fn has_output(&self, now: Instant, path: PathNumber) -> bool {
        let home = self.homes.get(&path).and_then(|id| self.associations.get(id));
        home.is_some_and(|home| home.paths.get(&path).is_some_and(|path| home.has_output(now, path)))
    }

    /// How many bytes a driver should ask for at once on a path: about 5 ms of its rate, 1,400 bytes to 256 KiB.
    #[must_use]
    pub fn record_size(&self, path: PathNumber) -> usize {
        self.recent(path).clamp(RECORD[0], RECORD[1]) as usize
    }

    /// How many bytes a driver should let a path's socket hold unsent: as much of its rate, 8 KiB to 1 MiB.
    #[must_use]
    pub fn unsent_limit(&self, path: PathNumber) -> usize {
        self.recent(path).clamp(UNSENT[0], UNSENT[1]) as usize
    }

    /// What a path carries in [`RECORD_TIME`].
    fn recent(&self, path: PathNumber) -> u64 {
        let path =
            self.homes.get(&path).and_then(|id| self.associations.get(id)).and_then(|a| a.paths.get(&path));
        let rate = path.map_or(0, |path| path.estimate.rate().unwrap_or(4_000_000));
        crate::estimate::bytes_in(rate, RECORD_TIME)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let greetings = self.greetings.values().map(|greeting| greeting.path.deadline).min();
        self.timers.first().map(|(at, _)| *at).into_iter().chain(greetings).min()
    }

    /// Checks what must always hold; panics with what does not. For tests and the simulator.
    pub fn check_invariants(&self) {
        for (reach, id) in &self.reaches {
            let home = self.associations.get(id);
            assert!(home.is_some_and(|home| home.offers.wants(*reach)), "{reach:?} is nowhere");
        }
        for (id, association) in &self.associations {
            association.check_invariants(&self.cx);
            for session in association.sessions.keys() {
                assert_eq!(self.sessions.get(session), Some(id), "{session} is not where it is looked for");
            }
        }
        for (session, id) in &self.sessions {
            let home = self.associations.get(id);
            assert!(home.is_some_and(|a| a.sessions.contains_key(session)), "{session} is nowhere");
        }
        self.check_bounds();
        self.tombstones.check_invariants();
    }
}
