//! Everything between this process and one process of a peer: paths, sessions, suspicion, recovery.
//!
//! | part | file |
//! |---|---|
//! | which paths to open, and when again | `dial.rs` |
//! | which paths stay when more are wanted than there may be | `room.rs` |
//! | which frame goes out next on a path | `transmit.rs` |
//! | what an arrived frame does | `receive.rs` |
//! | suspicion, loss, and the clock | `recover.rs` |
//! | whether the process lives; announced silence | `verdict.rs`; `suspension.rs` |
//! | what a change of networks means for what waits, and for what is under way | `routes.rs` |
//! | what the two processes offer each other beside sessions | `offers.rs` |

use crate::association::dial::Dials;
use crate::association::offers::Offers;
use crate::context::Context;
use crate::event::{Action, DownReason, Event, PathInfo};
use crate::journal::Record;
use crate::learned::Pair;
use crate::ledger::{Dues, Ledger};
use crate::liveness::{Liveness, Loss};
use crate::path::{Cargo, Path, State};
use crate::session::{Ending, Join, Session};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;
use steadfast_wire::frame::{EndReason, Hello};
use steadfast_wire::{
    Fingerprint, Frame, Incarnation, Instant, MessageId, Network, NetworkId, PathNumber, SessionId,
};

mod dial;
mod forecast;
mod offers;
mod receive;
mod recover;
mod room;
mod routes;
mod suspension;
mod transmit;
mod verdict;

/// How many closed paths are remembered, to answer CHECK.
const CLOSED_PATHS: usize = 32;
/// The most CHECK and HAVE frames, and the most END frames, that wait to be said.
const MAX_NOTICES: usize = 64;
const MAX_ENDS: usize = 1024;

/// How often a peer's networks may change in [`ALLOWED_IN`]: each change is looked at for every session, and dialled.
const ANNOUNCEMENTS: u32 = 64;
/// How often its offer may: each is told to the application, and a transport may be opened and closed again in a loop.
const OFFERS: u32 = 1024;
const ALLOWED_IN: Duration = Duration::from_secs(10);

/// The most places that are remembered where paths came from.
const CAME_FROM: usize = 16;

/// How long a farewell waits for what was said before it.
const FAREWELL: Duration = Duration::from_secs(1);

/// An association, as this endpoint numbers it: one process of a peer. A number is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssociationId(pub(crate) u64);

#[derive(Debug)]
pub(crate) struct Association {
    pub(crate) peer: Fingerprint,
    /// Known from the first HELLO.
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) hello: Option<Hello>,
    remote_networks: Vec<Network>,
    remote_epoch: u64,
    pub(crate) dials: Dials,
    pub(crate) paths: BTreeMap<PathNumber, Path>,
    /// Ours, the peer's number, and what arrived.
    closed_paths: VecDeque<(PathNumber, PathNumber, u64)>,
    /// Boxed, because the map keeps a third of its room free.
    pub(crate) sessions: BTreeMap<SessionId, Box<Session>>,
    /// Sessions that have something to send.
    work: BTreeSet<SessionId>,
    /// Room for going through them in turns; empty between two calls.
    round: Vec<SessionId>,
    /// The session that had nothing more to send last.
    warm: SessionId,
    /// Sessions in which something may wait for a network that has no path.
    wanting: BTreeSet<SessionId>,
    /// The session that was served last, by urgency: the others come next.
    turn: [SessionId; 2],
    notices: VecDeque<Frame>,
    ends: VecDeque<Ending>,
    networks_due: bool,
    timers: BTreeSet<(Instant, SessionId)>,
    timer_of: BTreeMap<SessionId, Instant>,
    /// Paths that closed since the endpoint last looked.
    pub(crate) gone: Vec<PathNumber>,
    /// Sessions that ended here since the endpoint last looked.
    pub(crate) ended: Vec<Ending>,
    /// The farewell that is due, and when it is said at the latest: it must not overtake what went another way.
    bye: Option<(String, Instant)>,
    /// When [`Association::dial`] is next due, as last computed.
    dial_at: Option<Instant>,
    dial_dirty: bool,
    /// Without a session since then.
    idle_since: Option<Instant>,
    /// What its sessions take, now and as far as the endpoint knows.
    dues: Dues,
    settled: Dues,
    /// Sessions whose windows want to grow.
    growing: BTreeSet<SessionId>,
    /// What may still go out twice.
    redundancy: transmit::Budget,
    /// When the peer's networks were last counted anew, and how often it told them since.
    announcements: Allowance,
    pub(crate) offers: Offers,
    pub(crate) liveness: Liveness,
    /// Where paths came from, with the port that was said to be listened on.
    came_from: VecDeque<SocketAddr>,
}

/// Counts what a session takes now instead of what it took before.
fn note_dues(all: &mut Dues, session: &mut Session) {
    let dues = session.dues();
    all.replace(core::mem::replace(&mut session.noted, dues), dues);
}

/// What a peer may do so many times in [`ALLOWED_IN`].
#[derive(Debug, Default)]
struct Allowance {
    since: Instant,
    count: u32,
}

impl Allowance {
    /// Whether it may do it once more.
    fn take(&mut self, now: Instant, most: u32) -> bool {
        if now.since(self.since) > ALLOWED_IN {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= most
    }
}

impl Association {
    pub(crate) fn new(
        peer: Fingerprint,
        incarnation: Option<Incarnation>,
        addresses: Vec<SocketAddr>,
    ) -> Self {
        Self {
            peer,
            incarnation,
            hello: None,
            remote_networks: Vec::new(),
            remote_epoch: 0,
            dials: Dials::new(addresses),
            paths: BTreeMap::new(),
            closed_paths: VecDeque::new(),
            sessions: BTreeMap::new(),
            work: BTreeSet::new(),
            round: Vec::new(),
            warm: SessionId(0),
            wanting: BTreeSet::new(),
            turn: [SessionId(0); 2],
            notices: VecDeque::new(),
            ends: VecDeque::new(),
            networks_due: false,
            timers: BTreeSet::new(),
            timer_of: BTreeMap::new(),
            gone: Vec::new(),
            ended: Vec::new(),
            bye: None,
            dial_at: None,
            dial_dirty: true,
            idle_since: None,
            dues: Dues::default(),
            settled: Dues::default(),
            growing: BTreeSet::new(),
            redundancy: transmit::Budget::default(),
            announcements: Allowance::default(),
            offers: Offers::default(),
            liveness: Liveness::default(),
            came_from: VecDeque::new(),
        }
    }

    /// Whether it is with this peer, and was reached at one of these addresses, or no address is needed.
    pub(crate) fn is_at(&self, peer: Fingerprint, addresses: &[SocketAddr]) -> bool {
        self.peer == peer
            && !self.is_leaving()
            && (addresses.is_empty() || addresses.iter().any(|address| self.addresses().contains(address)))
    }

    pub(crate) fn is_up(&self) -> bool {
        self.paths.values().any(Path::is_up)
    }

    fn remote_network(&self, id: Option<NetworkId>) -> Option<&Network> {
        self.remote_networks.iter().find(|network| Some(network.id) == id)
    }

    /// Where the peer can be reached, as far as it is known: for the journal.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.dials.addresses().to_vec()
    }

    pub(crate) fn info(&self, cx: &Context, path: &Path) -> PathInfo {
        PathInfo {
            path: path.number,
            peer: self.peer,
            local: path.local,
            local_name: cx.network_name(path.local),
            remote_name: self.remote_network(path.remote).map(|n| n.name.clone()).unwrap_or_default(),
            remote: path.address,
            rtt: path.estimate.rtt(),
            rate: path.estimate.rate(),
            arrival_rate: path.arrival_rate(),
            suspect: path.suspect.is_some(),
            sent: path.bytes[0],
            data_sent: path.data_bytes,
            received: path.bytes[1],
        }
    }

    /// The networks of a path, for what is learned of them.
    pub(crate) fn pair_of(&self, cx: &Context, path: &Path) -> Option<Pair> {
        let remote = self.remote_network(path.remote)?;
        Some((cx.network_name(path.local), self.peer, remote.name.clone()))
    }

    /// A session joins: a new one, or one that another association had.
    pub(crate) fn insert(&mut self, cx: &mut Context, now: Instant, mut session: Session) {
        session.joined_at = now;
        if let Some(hello) = &self.hello {
            session.out.peer_says(hello.windows, hello.max_message, hello.durable);
        }
        let id = session.id;
        if session.join == Join::Parked && self.is_up() {
            session.claim(cx);
        }
        self.sessions.insert(id, Box::new(session));
        self.dial_dirty = true;
        self.review(cx, now, id);
        self.touch(id);
    }

    /// Brings the indexes up to date after a session changed.
    pub(crate) fn touch(&mut self, id: SessionId) {
        let (mut has_work, mut wants, mut timeout) = (false, false, None);
        if let Some(session) = self.sessions.get_mut(&id) {
            has_work = session.has_work();
            wants = session.wants_network();
            timeout = session.timeout();
            note_dues(&mut self.dues, session);
            if session.inb.may_grow() {
                self.growing.insert(id);
            }
        }
        if has_work {
            self.work.insert(id);
        } else {
            self.work.remove(&id);
            self.rest(id);
        }
        if wants {
            self.wanting.insert(id);
        } else {
            self.wanting.remove(&id);
        }
        if timeout != self.timer_of.get(&id).copied() {
            if let Some(old) = self.timer_of.remove(&id) {
                self.timers.remove(&(old, id));
            }
            if let Some(at) = timeout {
                self.timer_of.insert(id, at);
                self.timers.insert((at, id));
            }
        }
    }

    /// A session has nothing to send now. The one that said so last keeps its room: it is the most likely to go on.
    fn rest(&mut self, id: SessionId) {
        if self.warm != id {
            let before = core::mem::replace(&mut self.warm, id);
            if let Some(session) = self.sessions.get_mut(&before) {
                session.release_room();
                note_dues(&mut self.dues, session);
            }
        }
    }

    /// Takes a session out, to move it elsewhere: it may come back, and what is in flight is not its any more.
    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.take(id)?;
        for flight in self.paths.values_mut().flat_map(|path| &mut path.flights) {
            if matches!(&flight.cargo, Cargo::Session(owner, _) | Cargo::Moved(owner, _) if *owner == id) {
                flight.cargo = Cargo::Nothing;
            }
        }
        Some(session)
    }

    fn take(&mut self, id: SessionId) -> Option<Session> {
        let mut session = *self.sessions.remove(&id)?;
        session.detached();
        self.dues.replace(core::mem::take(&mut session.noted), Dues::default());
        self.growing.remove(&id);
        self.dial_dirty = true;
        self.touch(id);
        for path in self.paths.values_mut() {
            path.introduced.remove(&id);
        }
        Some(session)
    }

    /// The session is over on this side.
    pub(crate) fn end(
        &mut self,
        cx: &mut Context,
        id: SessionId,
        reason: EndReason,
        tell: bool,
        common: Option<MessageId>,
    ) {
        let Some(mut session) = self.take(id) else { return };
        session.out.end(cx);
        let here = session.inb.common();
        if reason == EndReason::RolledBack {
            cx.stats.rolled_back += 1;
        }
        cx.remember(id, Record::Ended);
        cx.event(Event::Ended { session: id, reason, common });
        cx.event(Event::Readable { session: id });
        self.ended.push((id, reason, here));
        if tell {
            self.tell_end((id, reason, here));
        }
    }

    /// Tells the peer that a conversation is over (or unknown here).
    pub(crate) fn tell_end(&mut self, ending: Ending) {
        // A peer that asks for many ended sessions gets the rest of its answers when it asks again.
        if self.ends.len() < MAX_ENDS && !self.ends.contains(&ending) {
            self.ends.push_back(ending);
        }
    }

    /// Ends the sessions that both sides have shut and drained.
    pub(crate) fn finish_over(&mut self, cx: &mut Context, id: SessionId) {
        if self.sessions.get(&id).is_some_and(|session| session.is_over()) {
            self.end(cx, id, EndReason::Closed, true, None);
        }
    }

    /// Says BYE on every path and ends all sessions.
    pub(crate) fn leave(&mut self, cx: &mut Context, now: Instant, reason: &str) {
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.end(cx, id, EndReason::Left, false, None);
        }
        self.bye = Some((reason.into(), now + FAREWELL));
        self.end_reaches();
        self.dials.stop();
        self.dial_dirty = true;
    }

    /// Whether it says farewell: nothing new begins here.
    pub(crate) const fn is_leaving(&self) -> bool {
        self.bye.is_some()
    }

    /// Whether the farewell is to be said now: everything else has arrived, or has had its time.
    pub(crate) fn says_bye(&self, now: Instant) -> bool {
        let quiet = || self.ends.is_empty() && self.paths.values().all(|path| path.flights.is_empty());
        self.bye.as_ref().is_some_and(|(_, latest)| *latest <= now || quiet())
    }

    /// The farewell was said on a path (or cannot be, because it is not up): close it.
    pub(crate) fn close_after_bye(&mut self, cx: &mut Context, now: Instant, number: PathNumber) {
        if self.says_bye(now)
            && let Some(path) = self.paths.remove(&number)
        {
            self.gone.push(number);
            cx.actions.push_back(Action::Close { path: number });
            if path.is_up() {
                cx.stats.paths_down += 1;
                cx.event(Event::PathDown(self.info(cx, &path), DownReason::Ended));
            }
        }
        if self.is_leaving() && self.paths.is_empty() {
            for id in self.sessions.keys().copied().collect::<Vec<_>>() {
                self.end(cx, id, EndReason::Left, false, None);
            }
        }
    }

    /// A path that is not to stay has said HELLO: close it.
    pub(crate) fn close_after_hello(&mut self, cx: &mut Context, now: Instant, number: PathNumber) {
        let leaves = |path: &Path| path.state == State::Leaving && !path.hello_due;
        if self.paths.get(&number).is_some_and(leaves) {
            // Not reset: HELLO is to arrive.
            cx.actions.push_back(Action::Close { path: number });
            self.path_gone(cx, now, number, DownReason::Carrier, Loss::Other);
        }
    }

    /// Whether a path has something to say.
    pub(crate) fn has_output(&self, now: Instant, path: &Path) -> bool {
        match path.state {
            State::Connecting => false,
            State::ExpectHello | State::Leaving => path.hello_due || path.suspend_due,
            State::Up => {
                path.hello_due
                    || path.suspend_due
                    || path.networks_due
                    || path.report_due
                    || path.ping_due
                    || path.pong_due.is_some()
                    || self.says_bye(now)
                    || !path.is_full()
                        && (self.networks_due
                            || self.owes_offer()
                            || !self.work.is_empty()
                            || !self.notices.is_empty()
                            || !self.ends.is_empty())
            }
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    /// Brings up to date what depends on the clock: when to dial, and since when nothing is going on.
    pub(crate) fn refresh(&mut self, cx: &Context, now: Instant) {
        if core::mem::take(&mut self.dial_dirty) {
            self.dial_at = self.next_dial(cx);
        }
        if !self.is_up() {
            self.liveness.apart.get_or_insert(now);
        }
        if self.sessions.is_empty() && !self.is_held() {
            self.idle_since.get_or_insert(now);
        } else {
            self.idle_since = None;
        }
    }

    /// Whether nothing is left to do here.
    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.paths.is_empty() && !self.offers.keeps()
    }

    /// Our networks changed: paths without a network go down, the peer is told, new networks are tried at once.
    pub(crate) fn networks_changed(&mut self, cx: &mut Context, now: Instant) {
        self.networks_due = true;
        let gone: Vec<PathNumber> = self
            .paths
            .values()
            .filter(|path| match cx.network(path.local) {
                None => true,
                Some(network) => {
                    path.local_ip.is_some_and(|ip| !network.addresses.iter().any(|a| a.ip == ip))
                }
            })
            .map(|path| path.number)
            .collect();
        for number in gone {
            self.path_down(cx, now, number, DownReason::LocalNetwork);
        }
        for path in self.paths.values_mut() {
            path.same_host = cx.is_ours(path.address.ip());
        }
        self.enforce_rules(cx, now);
        self.weigh_networks(cx, now);
        self.dials.networks_changed(now);
        self.routes_changed();
        self.review_all(cx, now);
    }

    /// The set of paths that may carry something changed.
    fn routes_changed(&mut self) {
        self.dial_dirty = true;
        self.offers.routes_changed = true;
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.out.routes_changed();
                if let Some(special) = session.out.special.existing() {
                    special.copies.retain(|_, path| self.paths.contains_key(path));
                }
            }
            self.touch(id);
        }
    }

    /// A path is gone for a reason of this side's.
    pub(crate) fn path_down(
        &mut self,
        cx: &mut Context,
        now: Instant,
        number: PathNumber,
        reason: DownReason,
    ) {
        self.path_gone(cx, now, number, reason, Loss::Other);
    }

    /// A path is gone: what was on it is said again elsewhere; without any path the sessions are parked.
    pub(crate) fn path_gone(
        &mut self,
        cx: &mut Context,
        now: Instant,
        number: PathNumber,
        reason: DownReason,
        loss: Loss,
    ) {
        let Some(mut path) = self.paths.remove(&number) else { return };
        self.gone.push(number);
        self.dial_dirty = true;
        let was_up = path.is_up();
        if let Some(pair) = self.pair_of(cx, &path).filter(|_| was_up) {
            cx.learned.note(now, pair, &path.estimate);
        }
        let info = self.info(cx, &path);
        self.dials.failed(cx, now, &path, was_up, loss == Loss::Ended);
        let flights = core::mem::take(&mut path.flights);
        self.closed_paths.push_back((number, path.remote_number, path.received));
        if self.closed_paths.len() > CLOSED_PATHS {
            self.closed_paths.pop_front();
        }
        for flight in flights {
            self.cargo_lost(flight.cargo, flight.at);
        }
        match reason {
            DownReason::Carrier => {}
            // What was said before still arrives.
            DownReason::Suspended => cx.actions.push_back(Action::Close { path: number }),
            _ => cx.actions.push_back(Action::Reset { path: number }),
        }
        if was_up {
            cx.stats.paths_down += 1;
            cx.event(Event::PathDown(info, reason));
            self.routes_changed();
            self.review_all(cx, now);
        }
        if was_up && !self.is_up() {
            self.park_all(cx, now);
        }
        self.path_lost(cx, now, &path, reason, loss);
    }

    fn park_all(&mut self, cx: &mut Context, now: Instant) {
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.park(cx, now);
            }
            self.touch(id);
        }
    }

    /// Whether [`settle`](Self::settle) would change nothing.
    pub(crate) fn is_settled(&self) -> bool {
        self.growing.is_empty() && self.dues == self.settled
    }

    /// Lets windows grow by at most `room` bytes in all, and brings the peer's dues up to date.
    pub(crate) fn settle(&mut self, ledger: &mut Ledger, mut room: u64) {
        for id in core::mem::take(&mut self.growing) {
            if let Some(session) = self.sessions.get_mut(&id) {
                room = session.inb.grow(room);
                // Without room it asks again when more was taken.
                self.touch(id);
                self.growing.remove(&id);
            }
        }
        ledger.replace(self.peer, self.settled, self.dues);
        self.settled = self.dues;
    }

    pub(crate) const fn dues(&self) -> Dues {
        self.dues
    }

    /// The session that holds most, and how much that is.
    pub(crate) fn heaviest(&self) -> Option<(u64, SessionId)> {
        self.sessions.values().map(|session| (session.noted.held, session.id)).max()
    }

    /// Whether nothing is here but conversations of ours that wait for a network.
    pub(crate) fn only_waits(&self) -> bool {
        let theirs = self.offers.keeps() && !self.offers.is_wanted();
        self.paths.is_empty() && !theirs && self.sessions.values().all(|session| session.opener)
    }

    /// Its parked sessions that the peer opened, with the time since when they are.
    pub(crate) fn parked(&self) -> impl Iterator<Item = (Option<Instant>, SessionId)> {
        let parked = self.sessions.values().filter(|s| !s.opener && s.join == Join::Parked);
        parked.map(|session| (session.parked_at, session.id))
    }

    /// Since when it has no path, if all its sessions are the peer's: it may be forgotten.
    pub(crate) fn forgettable(&self) -> Option<Instant> {
        let ours = self.sessions.values().any(|session| session.opener) || self.offers.is_wanted();
        let parked = self.sessions.values().filter_map(|session| session.parked_at).max();
        let parked = parked.or(self.idle_since);
        parked.filter(|_| !ours && self.paths.is_empty())
    }

    /// Ends a session that the peer opened and left.
    pub(crate) fn forget(&mut self, cx: &mut Context, id: SessionId) {
        cx.stats.forgotten += 1;
        self.end(cx, id, EndReason::Forgotten, false, None);
    }

    /// What flew at `at` has to be said again.
    fn cargo_lost(&mut self, cargo: Cargo, at: Instant) {
        match cargo {
            Cargo::Session(id, item) => {
                if let Some(session) = self.sessions.get_mut(&id).filter(|s| s.joined_at <= at) {
                    session.lost(&item);
                    self.touch(id);
                }
            }
            Cargo::Networks => self.networks_due = true,
            Cargo::Offer(said) => self.offers.lost(said),
            Cargo::End(ending) => self.tell_end(ending),
            Cargo::Moved(..) | Cargo::Nothing => {}
        }
    }

    pub(crate) fn check_invariants(&self, cx: &Context) {
        for path in self.paths.values() {
            let sum: u64 = path.flights.iter().map(|f| u64::from(f.bytes)).sum();
            assert_eq!(sum, path.in_flight, "{} in flight", path.number);
            assert_eq!(path.sent - path.acked, path.flights.len() as u64, "{} flights", path.number);
        }
        let mut dues = Dues::default();
        for session in self.sessions.values() {
            assert_eq!(session.noted, session.dues(), "{}: dues", session.id);
            dues.replace(Dues::default(), session.noted);
            session.out.check_invariants();
            session.inb.check_invariants(cx.config.max_message);
            session.deferrals.check_invariants();
            assert_eq!(self.work.contains(&session.id), session.has_work(), "{} work index", session.id);
            let wanting = self.wanting.contains(&session.id);
            assert_eq!(wanting, session.wants_network(), "{} wanting index", session.id);
            let parked = matches!(session.join, Join::Parked | Join::Opening);
            assert!(self.is_up() || parked, "{} goes on without a path", session.id);
            assert!(!self.is_up() || session.join != Join::Parked, "{} is parked beside a path", session.id);
        }
        assert_eq!((dues, dues), (self.dues, self.settled), "the dues of {}", self.peer);
        let up = self.paths.values().filter(|path| path.is_up()).count();
        let most = cx.config.max_paths + 1;
        assert!(up <= most && self.paths.len() <= 2 * most, "too many paths");
    }
}
