//! The core behind its lock, and what every call into it is followed by.
//!
//! Lock order: a carrier, then the core, then a conversation's state or a queue of events. No lock is held across an
//! await, and none but a carrier's while the kernel is called.

use crate::carriers::{Carriers, Link};
use crate::clock::Clock;
use crate::events::{Hub, Wanted};
use crate::homa::{Engine, Handle as HomaHandle};
use crate::lock;
use crate::receipt::{Cell, wait_until};
use crate::state::{SessionState, Wake};
use crate::store::Journal;
use crate::strangers::Strangers;
use crate::trusted::Trusted;
use crate::watch::Watches;
use bytes::Bytes;
use std::cell::Cell as Slot;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::time::Duration;
use steadfast_net::carrier::AcceptorGauge;
use steadfast_net::scout::Knowledge;
use steadfast_net::{Scout, Tls};
use steadfast_session::{
    Action, AssociationId, Config, Digest, Endpoint as Core, Event, Report, SessionConfig, Share,
};
use steadfast_wire::{Fingerprint, Instant, PathNumber, SessionId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::{AbortHandle, JoinSet};

/// Everything that the handles and the tasks of an endpoint share.
#[derive(Debug)]
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    pub(crate) clock: Clock,
    pub(crate) identity: Fingerprint,
    pub(crate) tls: Tls,
    pub(crate) trusted: Arc<Trusted>,
    pub(crate) carriers: Carriers,
    pub(crate) hub: Hub,
    pub(crate) scout: Mutex<Option<Scout>>,
    /// What the daemon of the host said of its networks.
    known: Mutex<Knowledge>,
    pub(crate) reception: Mutex<Option<AcceptorGauge>>,
    /// The driver has to look at the clock again.
    pub(crate) timers: Notify,
    pub(crate) strangers: Strangers,
    /// Processes of this host whose end is waited for.
    pub(crate) watches: Watches,
    /// The core knows other networks than before.
    pub(crate) networks_told: Notify,
    /// A peer opened a conversation, or the endpoint was closed.
    pub(crate) incoming: Notify,
    pub(crate) session_config: SessionConfig,
    pub(crate) closed: AtomicBool,
    /// What a durable endpoint has to remember.
    pub(crate) journal: Option<Arc<Journal>>,
    /// Conversations that the store brought back, until the application takes them.
    pub(crate) restored: Mutex<Vec<Arc<SessionState>>>,
    /// It stopped: conversations do not end here, and go on from the store.
    pub(crate) stopped: AtomicBool,
    /// The Homa transport of this endpoint, if there is one.
    pub(crate) homa: Mutex<Weak<HomaHandle>>,
    /// Who tells other transports what concerns them: one at a time, so that they hear it in order.
    telling: Mutex<()>,
    /// Taken by who has a connection to tell the daemon something, or wants that there is none.
    pub(crate) telling_daemon: Arc<Semaphore>,
    runtime: Handle,
    tasks: Mutex<JoinSet<()>>,
}

/// What is behind the core's lock.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) core: Core,
    pub(crate) sessions: BTreeMap<SessionId, Arc<SessionState>>,
    /// Who waits for the round trip of a path.
    pub(crate) probes: BTreeMap<PathNumber, Vec<oneshot::Sender<Duration>>>,
    /// When the driver's timer fires.
    armed: Instant,
    /// What concerns other transports and was not told yet.
    beside: VecDeque<Event>,
    /// The transport that offers something to processes: the one that was opened last.
    offerer: u64,
}

impl Inner {
    /// Another transport offers to processes from now on. What those before it offered is void, and none of them says
    /// anything any more, whenever it ends.
    pub(crate) fn begin_offers(&mut self, now: Instant) -> u64 {
        self.offerer += 1;
        self.core.withdraw(now);
        self.offerer
    }

    /// Offers something for a transport.
    pub(crate) fn offer(&mut self, now: Instant, by: u64, association: AssociationId, offer: Bytes) {
        if by == self.offerer {
            self.core.offer(now, association, offer);
        }
    }

    /// A transport ends, and with it what it offers.
    pub(crate) fn end_offers(&mut self, now: Instant, by: u64) {
        if by == self.offerer {
            self.core.withdraw(now);
        }
    }
}

/// The most effects that room is kept for.
const MAX_SPARE: usize = 64;
thread_local! {
    /// Room for effects, which nearly every call has, between two calls.
    static SPARE: Slot<Effects> = Slot::default();
}

/// What is to be done after a call into the core, once its lock is free.
#[derive(Debug, Default)]
struct Effects {
    actions: Vec<Action>,
    ready: Vec<PathNumber>,
    wakes: Vec<Wake>,
    receipts: Vec<Arc<Cell>>,
    subscribers: Vec<Wanted>,
    incoming: bool,
    rearm: bool,
    /// Something concerns other transports.
    beside: bool,
}

impl Shared {
    pub(crate) fn new(
        core: Core,
        identity: Fingerprint,
        tls: Tls,
        trusted: Arc<Trusted>,
        session_config: SessionConfig,
        journal: Option<Arc<Journal>>,
    ) -> Self {
        Self {
            inner: Mutex::new(Inner {
                core,
                sessions: BTreeMap::new(),
                probes: BTreeMap::new(),
                armed: Instant::FAR_FUTURE,
                beside: VecDeque::new(),
                offerer: 0,
            }),
            clock: Clock::new(),
            identity,
            tls,
            trusted,
            carriers: Carriers::default(),
            hub: Hub::default(),
            scout: Mutex::new(None),
            known: Mutex::default(),
            reception: Mutex::new(None),
            timers: Notify::new(),
            strangers: Strangers::default(),
            watches: Watches::default(),
            networks_told: Notify::new(),
            incoming: Notify::new(),
            session_config,
            closed: AtomicBool::new(false),
            journal,
            restored: Mutex::default(),
            stopped: AtomicBool::new(false),
            homa: Mutex::default(),
            telling: Mutex::default(),
            telling_daemon: Arc::new(Semaphore::new(1)),
            runtime: Handle::current(),
            tasks: Mutex::new(JoinSet::new()),
        }
    }

    /// Calls into the core, then does whatever follows from it: carriers opened and closed, bytes given to sockets
    /// that take them at once, waiting futures woken.
    pub(crate) fn call<R>(self: &Arc<Self>, f: impl FnOnce(&mut Inner, Instant) -> R) -> R {
        let (result, effects) = self.call_and_collect(f);
        self.carry_out(effects);
        result
    }

    /// Calls into the core as [`Shared::call`] does, to send a message after others: it may go out with those after it.
    pub(crate) fn call_in_a_row<R>(self: &Arc<Self>, f: impl FnOnce(&mut Inner, Instant) -> R) -> R {
        let (result, mut effects) = self.call_and_collect(f);
        effects.ready.retain(|path| !self.joins_a_flurry(*path));
        self.carry_out(effects);
        result
    }

    fn call_and_collect<R>(&self, f: impl FnOnce(&mut Inner, Instant) -> R) -> (R, Effects) {
        let mut effects = Effects::spare();
        let mut inner = lock(&self.inner);
        let result = f(&mut inner, self.clock.now());
        self.collect(&mut inner, &mut effects);
        (result, effects)
    }

    /// Calls into the core as [`Shared::call`] does, but writes nothing yet: returns also the paths that have something
    /// to say, for [`Shared::flush_paths`] after those who were woken had a turn to add theirs. `from` is the carrier that
    /// gave the cause.
    pub(crate) fn call_and_hold<R>(
        self: &Arc<Self>,
        from: Option<&Arc<Link>>,
        f: impl FnOnce(&mut Inner, Instant) -> R,
    ) -> (R, Vec<PathNumber>) {
        let (result, mut effects) = self.call_and_collect(f);
        // A program may end as soon as it hears that its conversation did: our last word has to be out by then.
        let urgent = effects.wakes.iter().any(|wake| matches!(wake, Wake::All(_)));
        let ready = if urgent { Vec::new() } else { std::mem::take(&mut effects.ready) };
        for wake in &effects.wakes {
            if let (Wake::Readable(state), Some(link)) = (wake, from) {
                state.set_usual(link);
            }
        }
        self.carry_out(effects);
        (result, ready)
    }

    /// Calls into the core as [`Shared::call`] does, but leaves the writing to the carriers' tasks: whoever takes a
    /// message often answers at once, and the acknowledgement goes with the answer.
    pub(crate) fn call_and_leave<R>(self: &Arc<Self>, f: impl FnOnce(&mut Inner, Instant) -> R) -> R {
        let (result, ready) = self.call_and_hold(None, f);
        for path in ready {
            self.flush_path_soon(path);
        }
        result
    }

    /// Writes what these paths have to say.
    pub(crate) fn flush_paths(self: &Arc<Self>, ready: Vec<PathNumber>) {
        if !ready.is_empty() {
            self.carry_out(Effects { ready, ..Effects::spare() });
        }
    }

    /// Calls into the core and leaves what follows to the next [`Shared::call`]: for those who hold a carrier.
    pub(crate) fn peek<R>(&self, f: impl FnOnce(&mut Inner, Instant) -> R) -> R {
        let mut inner = lock(&self.inner);
        f(&mut inner, self.clock.now())
    }

    /// What this process does on its networks, for the daemon of its host: since it was last asked, by one alone.
    pub(crate) fn network_use(&self) -> Report {
        self.peek(|inner, now| inner.core.network_use(now))
    }

    /// The daemon of the host says what part of a network this process may have; it counts for [`Share::valid`].
    pub(crate) fn set_share(self: &Arc<Self>, share: Share) {
        self.call(|inner, now| inner.core.set_share(now, share));
    }

    /// The daemon of the host says what it knows of its networks.
    pub(crate) fn learn(&self, knowledge: Knowledge) {
        let mut known = lock(&self.known);
        if *known != knowledge {
            known.clone_from(&knowledge);
            if let Some(scout) = lock(&self.scout).as_ref() {
                scout.learn(knowledge);
            }
        }
    }

    /// The daemon is gone. What it said stays, or rules would suddenly mean other networks.
    pub(crate) fn learn_alone(&self) {
        let known = self.known();
        self.learn(Knowledge { is_kept: false, ..known });
    }

    /// Forgets that: this process may go on elsewhere.
    pub(crate) fn unlearn(&self) {
        *lock(&self.known) = Knowledge::default();
    }

    pub(crate) fn known(&self) -> Knowledge {
        lock(&self.known).clone()
    }

    /// When the core next has to be told the time; the driver sleeps until then.
    pub(crate) fn arm(&self) -> Option<Instant> {
        let mut inner = lock(&self.inner);
        let at = inner.core.poll_timeout();
        inner.armed = at.unwrap_or(Instant::FAR_FUTURE);
        at
    }

    fn collect(&self, inner: &mut Inner, effects: &mut Effects) {
        while let Some(action) = inner.core.poll_action() {
            effects.actions.push(action);
        }
        while let Some(path) = inner.core.poll_ready() {
            effects.ready.push(path);
        }
        if let Some(journal) = &self.journal {
            journal.push(std::iter::from_fn(|| inner.core.poll_journal()));
        }
        while let Some(event) = inner.core.poll_event() {
            note(inner, &event, effects);
            if is_beside(&event) {
                inner.beside.push_back(event);
                effects.beside = true;
                continue;
            }
            if matches!(&event, Event::Verdict { reaches, .. } if !reaches.is_empty()) {
                inner.beside.push_back(event.clone());
                effects.beside = true;
            }
            if is_public(&event) {
                tracing::debug!(?event, "steadfast");
                effects.subscribers.append(&mut self.hub.publish(&event));
            }
        }
        if inner.core.poll_timeout().is_some_and(|at| at < inner.armed) {
            effects.rearm = true;
        }
    }

    /// Does what the core asked for until it asks for nothing more.
    fn carry_out(self: &Arc<Self>, mut effects: Effects) {
        // Many calls change nothing that anybody has to be told.
        while !effects.is_empty() {
            let acts = !(effects.actions.is_empty() && effects.ready.is_empty());
            for action in effects.actions.drain(..) {
                self.act(&action);
            }
            for path in effects.ready.drain(..) {
                self.flush_path(path);
            }
            for wake in effects.wakes.drain(..) {
                wake.wake();
                if let Some(state) = wake.deferring() {
                    self.run_thunks(state);
                }
            }
            for cell in effects.receipts.drain(..) {
                cell.wake();
            }
            for subscriber in effects.subscribers.drain(..) {
                subscriber.wake();
            }
            if std::mem::take(&mut effects.incoming) {
                self.incoming.notify_waiters();
            }
            if std::mem::take(&mut effects.rearm) {
                self.timers.notify_one();
            }
            if std::mem::take(&mut effects.beside) {
                self.tell_beside();
            }
            if !acts {
                break;
            }
            // Sending may have changed something: a farewell that is said closes its carrier.
            self.collect(&mut lock(&self.inner), &mut effects);
        }
        if std::mem::take(&mut effects.rearm) {
            self.timers.notify_one();
        }
        effects.keep();
    }

    fn act(self: &Arc<Self>, action: &Action) {
        match *action {
            Action::Connect { path, local, remote, peer } => self.dial(path, local, remote, peer),
            Action::Close { path } => self.close_path(path),
            Action::Reset { path } => self.reset_path(path),
            Action::Examine { path } => self.examine(path),
            Action::Watch { association, process } => self.watch(association, process),
            Action::Unwatch { association } => self.watches.remove(association),
            _ => {}
        }
    }

    /// The Homa transport of this endpoint, if it is open.
    pub(crate) fn homa(&self) -> Option<Arc<HomaHandle>> {
        lock(&self.homa).upgrade()
    }

    /// Tells other transports what concerns them. Whoever does so already, tells this as well.
    fn tell_beside(self: &Arc<Self>) {
        loop {
            let telling = match self.telling.try_lock() {
                Ok(telling) => telling,
                Err(TryLockError::Poisoned(telling)) => telling.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            loop {
                // Not in the loop's head: the lock would last as long as the body.
                let next = lock(&self.inner).beside.pop_front();
                let Some(event) = next else { break };
                if let Some(homa) = self.homa() {
                    homa.engine.hear(event);
                }
            }
            drop(telling);
            if lock(&self.inner).beside.is_empty() {
                return;
            }
        }
    }

    /// Tells a new transport what was said before there was one.
    pub(crate) fn opened_homa(self: &Arc<Self>, engine: &Arc<Engine>) {
        for (association, peer, offer) in self.peek(|inner, _| inner.core.offers()) {
            engine.hear_former(association, peer, &offer);
        }
        // What a former one offered was taken back where nothing could be sent.
        self.call(|_, _| ());
    }

    /// Runs a task that ends with the endpoint.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.runtime)
    }

    /// Runs a task that holds nothing of the system and ends by itself: it outlasts the endpoint's being quiesced.
    pub(crate) fn spawn_freely(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.runtime.spawn(task).abort_handle()
    }

    /// Stops every task that [`Shared::spawn`] started, and waits until they are gone.
    pub(crate) async fn stop_tasks(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.shutdown().await;
    }

    /// What this thread does may use the runtime.
    pub(crate) fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Puts the conversations of a store back. No call before has told the core of any network.
    pub(crate) fn restore(&self, digest: &Digest) {
        let mut inner = lock(&self.inner);
        let inner = &mut *inner;
        inner.core.restore(self.clock.now(), digest.entries());
        for session in inner.core.sessions().collect::<Vec<_>>() {
            let Some(peer) = inner.core.peer(session) else { continue };
            let state = Arc::new(SessionState::restored(session, peer));
            inner.core.unsettled(session).into_iter().for_each(|id| drop(state.sent(id)));
            lock(&self.restored).push(Arc::clone(&state));
            inner.sessions.insert(session, state);
        }
        let mut effects = Effects::spare();
        self.collect(inner, &mut effects);
    }

    /// The application let go of a conversation that is to last: it may take it again.
    pub(crate) fn put_back(&self, state: &Arc<SessionState>) {
        let mut all = lock(&self.restored);
        // A peer may have ended others since.
        all.retain(|one| one.ended().is_none());
        if state.ended().is_none() && !self.is_stopped() {
            all.push(Arc::clone(state));
        }
    }

    /// Lets go of all conversations without ending any: what the store has of them goes on when it is opened again. Peers
    /// are told nothing more.
    pub(crate) fn stop(&self, why: &str) {
        self.stopped.store(true, Ordering::Release);
        self.closed.store(true, Ordering::Release);
        let mut receipts = Vec::new();
        let states = {
            let mut inner = lock(&self.inner);
            // One that knows nobody: whatever is asked of it has ended.
            inner.core = Core::new(Config::default(), self.identity, [0; 32]);
            std::mem::take(&mut inner.sessions)
        };
        lock(&self.restored).clear();
        for state in states.values() {
            state.stop(why, &mut receipts);
            Wake::All(Arc::clone(state)).wake();
        }
        for cell in receipts {
            cell.wake();
        }
        self.abort_connecting();
        self.reset_all();
        self.incoming.notify_waiters();
        self.strangers.changed.notify_waiters();
        self.timers.notify_one();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Waits while so much is to be stored that the application has to wait. What is read meanwhile is answered, or peers
    /// would think that this process hangs; it takes no more than their credit.
    pub(crate) async fn relief(&self) {
        self.relieved(Journal::is_behind).await;
    }

    /// Waits while so much is to be stored that peers have to wait.
    pub(crate) async fn flood(&self) {
        self.relieved(Journal::is_flooded).await;
    }

    async fn relieved(&self, too_much: impl Fn(&Journal) -> bool) {
        if let Some(journal) = self.journal.as_ref().filter(|journal| too_much(journal)) {
            wait_until(&journal.relief, || (!too_much(journal)).then_some(())).await;
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The thread that writes waits for more, and has the store.
        if let Some(journal) = &self.journal {
            journal.end();
        }
    }
}

impl Effects {
    fn spare() -> Self {
        SPARE.try_with(Slot::take).unwrap_or_default()
    }

    /// Keeps the room for the next call, unless a burst made it large or the thread ends.
    fn keep(self) {
        if self.wakes.capacity() + self.receipts.capacity() + self.actions.capacity() <= MAX_SPARE {
            let _kept = SPARE.try_with(|spare| spare.set(self));
        }
    }

    fn is_empty(&self) -> bool {
        self.actions.is_empty()
            && self.ready.is_empty()
            && self.wakes.is_empty()
            && self.receipts.is_empty()
            && self.subscribers.is_empty()
            && !self.beside
            && !self.incoming
    }
}

/// Brings the state of conversations up to date. It has the order of the events, because the core's lock is held.
fn note(inner: &mut Inner, event: &Event, effects: &mut Effects) {
    match event {
        Event::Incoming { session, peer } => {
            let state = Arc::new(SessionState::new(*session, *peer, true));
            if let Some(judgement) = inner.core.verdict(*session) {
                state.judge(judgement);
            }
            inner.sessions.insert(*session, state);
            effects.incoming = true;
        }
        Event::Ended { session, .. } => {
            if let Some(state) = inner.sessions.remove(session) {
                state.note(event, &mut effects.receipts);
                effects.wakes.push(Wake::All(state));
                // It may have been the last one that the driver waited for.
                effects.rearm = true;
            }
        }
        Event::Readable { session } => wake(inner, *session, Wake::Readable, effects),
        Event::Writable { session } => wake(inner, *session, Wake::Writable, effects),
        Event::Suitable { session } => wake(inner, *session, Wake::Suitable, effects),
        Event::Opened { session }
        | Event::Parked { session }
        | Event::Resumed { session }
        | Event::PeerShut { session, .. } => {
            if let Some(state) = inner.sessions.get(session) {
                state.note(event, &mut effects.receipts);
                effects.wakes.push(Wake::All(Arc::clone(state)));
            }
        }
        Event::Acked { session, .. } | Event::GivenUp { session, .. } | Event::Outcome { session, .. } => {
            if let Some(state) = inner.sessions.get(session) {
                state.note(event, &mut effects.receipts);
            }
        }
        Event::PeerLeft { peer, .. } => {
            for state in inner.sessions.values().filter(|state| state.peer == *peer) {
                state.note(event, &mut effects.receipts);
            }
        }
        Event::Verdict { judgement, sessions, .. } => {
            for state in sessions.iter().filter_map(|session| inner.sessions.get(session)) {
                state.judge(judgement.clone());
            }
        }
        Event::Probed { path, rtt } => {
            for waiting in inner.probes.remove(path).into_iter().flatten() {
                let _gave_up = waiting.send(*rtt);
            }
        }
        Event::PathDown(path, _) => {
            inner.probes.remove(&path.path);
        }
        _ => {}
    }
}

fn wake(inner: &Inner, session: SessionId, kind: fn(Arc<SessionState>) -> Wake, effects: &mut Effects) {
    if let Some(state) = inner.sessions.get(&session) {
        effects.wakes.push(kind(Arc::clone(state)));
    }
}

/// What concerns other transports alone. An offer may be a secret, which nobody else hears of and nobody logs.
fn is_beside(event: &Event) -> bool {
    matches!(
        event,
        Event::Offered { .. }
            | Event::Reached { .. }
            | Event::Unreached { .. }
            | Event::Rerouted { .. }
            | Event::Dissociated { .. }
    )
}

/// Events of single messages belong to their receipts and readers.
fn is_public(event: &Event) -> bool {
    !matches!(
        event,
        Event::Readable { .. }
            | Event::Writable { .. }
            | Event::Suitable { .. }
            | Event::Acked { .. }
            | Event::GivenUp { .. }
            | Event::Outcome { .. }
            | Event::Probed { .. }
    )
}

#[cfg(test)]
mod tests;
