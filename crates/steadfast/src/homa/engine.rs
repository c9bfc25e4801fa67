//! What the handles and the tasks of a transport share, and how packets come in and go out.
//!
//! Whoever has something to say sends it: a caller its request, the task that reads a socket the answers of handlers that
//! were done at once. Whoever finds another one sending leaves its own to that one.
//!
//! Lock order: the endpoint's locks, an intake, the output, then the machine. The machine's is never held during a system call.

use super::config::HomaConfig;
use super::error::{HomaError, SendError};
use super::machine::{Asked, Effects, Key, Machine, PortUse};
use super::peer::{Reached, Target};
use super::peers::{Form, Path, Peers, USUAL_MTU, family};
use super::serve;
use crate::clock::Clock;
use crate::lock;
use crate::shared::{Inner, Shared};
use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::Duration;
use steadfast_homa::packet::{Dialect, LINUX_MAX_MESSAGE};
use steadfast_homa::{Instant, PeerId, RespondError, RpcId, Transport};
use steadfast_net::datagram::{Batch, ReceiveState, Received, SendState, Socket};
use steadfast_session::{AssociationId, ReachId};
use steadfast_wire::{NetworkClass, Rule};
use tokio::runtime;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Calls of the kernel to receive before other tasks get their turn.
const TURNS: usize = 8;
/// From how many callers that were woken together what they say goes out together.
const BURST: usize = 4;
/// How many requests or responses go out together at most: the other side works on them while more are made.
pub(super) const GROUP: usize = 16;
/// How long the keeper goes on looking although nothing waits: the next call need not wake it.
const LULL: Duration = Duration::from_millis(5);
/// What a path within this host takes.
const LOCAL_MTU: u32 = 65_536;

pub(crate) struct Engine {
    pub(super) machine: Mutex<Machine>,
    output: Mutex<Output>,
    /// The machine may have something to say.
    pending: AtomicBool,
    /// None while quiesced.
    sockets: Mutex<Vec<Arc<Socket>>>,
    intakes: [Mutex<Received>; 2],
    pub(super) clock: Clock,
    /// A burst woke several callers: what they say goes out together, when they had their turn.
    holding: AtomicBool,
    /// How many have said something since.
    held: AtomicUsize,
    keeper: Notify,
    /// Something has its outcome, while somebody waits for room.
    pub(super) room: Notify,
    pub(super) waiting: AtomicUsize,
    /// Who is in reach has changed, or the transport was closed.
    pub(super) changed: Notify,
    pub(super) reaches: Mutex<HashMap<ReachId, Weak<Reached>>>,
    /// Two that look for routes at the same time could set the older one.
    routing: Mutex<()>,
    pub(super) shared: Option<Arc<Shared>>,
    /// Among those that the endpoint had: only the last one offers anything.
    pub(super) turn: u64,
    pub(super) runtime: runtime::Handle,
    tasks: Mutex<Tasks>,
    pub(super) connect_limit: Duration,
    longest: u32,
}

#[derive(Default)]
struct Output {
    sockets: Vec<Arc<Socket>>,
    batches: Vec<Batch>,
    /// Sockets that take nothing: the keeper waits until they do. Their batches hold what was last written to them.
    blocked: [bool; 2],
}

/// What runs, and what ended lately.
#[derive(Default)]
struct Tasks {
    handles: Vec<AbortHandle>,
    /// How many there are when those that ended are let go of.
    full: usize,
    /// The transport is closed: what begins now ends at once.
    closed: bool,
}

impl Tasks {
    fn add(&mut self, handle: AbortHandle) {
        if self.closed {
            handle.abort();
            return;
        }
        if self.handles.len() >= self.full {
            self.handles.retain(|handle| !handle.is_finished());
            self.full = 2 * self.handles.len() + 32;
        }
        self.handles.push(handle);
    }

    fn abort_all(&mut self) {
        for handle in self.handles.drain(..) {
            handle.abort();
        }
    }
}

/// What keeps a transport open.
pub(crate) struct Handle {
    pub(crate) engine: Arc<Engine>,
    /// Its keys come over this endpoint's paths.
    pub(super) endpoint: Option<crate::Endpoint>,
    /// Of its first socket, when it was opened.
    pub(super) address: SocketAddr,
    pub(crate) config: HomaConfig,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.engine.close();
    }
}

impl Engine {
    /// Opens a transport over sockets; one for each family of addresses if there are two, IPv4 first.
    pub(super) fn open(
        sockets: Vec<Socket>,
        form: Form,
        config: HomaConfig,
        shared: Option<Arc<Shared>>,
    ) -> Result<Arc<Self>, HomaError> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| HomaError::Random)?;
        let mut headers = [0; 2];
        for socket in &sockets {
            headers[usize::from(socket.local_addr().is_ipv6())] = socket.overhead();
        }
        let local = sockets.iter().all(|socket| socket.local_addr().ip().is_loopback());
        let peers = Peers::new(form, headers, if local { LOCAL_MTU } else { USUAL_MTU });
        let linux = form == Form::Clear(Dialect::Linux);
        let longest = config.transport.max_message.min(if linux { LINUX_MAX_MESSAGE } else { u32::MAX });
        let config =
            config.on(local.then(|| sockets.iter().filter_map(|s| s.receive_buffer().ok()).min()).flatten());
        let transport = Transport::new(config.transport, seed);
        let machine = Machine::new(transport, peers, config.link_rate, config.max_open);
        let turn = shared.as_ref().map_or(0, |shared| shared.peek(Inner::begin_offers));
        let engine = Arc::new(Self {
            machine: Mutex::new(machine),
            output: Mutex::default(),
            pending: AtomicBool::new(false),
            sockets: Mutex::default(),
            intakes: [(); 2].map(|()| Mutex::new(Received::new())),
            clock: Clock::new(),
            holding: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            keeper: Notify::new(),
            room: Notify::new(),
            waiting: AtomicUsize::new(0),
            changed: Notify::new(),
            reaches: Mutex::new(HashMap::new()),
            routing: Mutex::new(()),
            shared,
            turn,
            runtime: runtime::Handle::current(),
            tasks: Mutex::default(),
            connect_limit: config.connect_limit,
            longest,
        });
        engine.begin(sockets);
        Ok(engine)
    }

    /// Sends and receives over these sockets from now on.
    fn begin(self: &Arc<Self>, sockets: Vec<Socket>) {
        let sockets: Vec<_> = sockets.into_iter().map(Arc::new).collect();
        self.sockets_lock().clone_from(&sockets);
        let batches = sockets.iter().map(|_| Batch::new()).collect();
        *lock(&self.output) = Output { sockets: sockets.clone(), batches, blocked: [false; 2] };
        for (index, socket) in sockets.into_iter().enumerate() {
            self.spawn(Arc::clone(self).receive(index, Arc::clone(&socket)));
            self.spawn(Arc::clone(self).listen(socket));
        }
        self.spawn(Arc::clone(self).keep());
    }

    fn sockets_lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Socket>>> {
        lock(&self.sockets)
    }

    /// The addresses of its sockets; none while quiesced.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets_lock().iter().map(|socket| socket.local_addr()).collect()
    }

    /// Closes every socket and ends every task. What is under way ends, because its keys do; peers stay in reach.
    pub(crate) fn quiesce(self: &Arc<Self>) {
        self.with(|machine, _| {
            let Machine { transport, peers, .. } = machine;
            for association in peers.associations() {
                peers.end(transport, association);
            }
        });
        lock(&self.tasks).abort_all();
        self.sockets_lock().clear();
        *lock(&self.output) = Output::default();
        self.clock.freeze();
    }

    /// Opens the sockets again, on other ports, and agrees on new keys with who is in reach.
    pub(crate) fn revive(self: &Arc<Self>, sockets: Vec<Socket>) {
        self.clock.thaw();
        self.begin(sockets);
        if let Some(shared) = &self.shared {
            shared.opened_homa(self);
        }
        for reached in self.seekers() {
            if let Some(association) = reached.association() {
                self.offer_to((association, reached.key), 1);
            }
        }
    }

    /// The longest message, in bytes.
    pub(super) fn longest(&self) -> u32 {
        self.longest
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Runs a task that ends with the transport.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        // Not under the lock: a runtime that ends drops the task at once, and what that drops may come here again.
        let handle = self.runtime.spawn(task).abort_handle();
        lock(&self.tasks).add(handle.clone());
        handle
    }

    /// Ends everything: every request has its outcome, every task is gone.
    pub(crate) fn close(&self) {
        let (mut effects, readers) = {
            let mut machine = lock(&self.machine);
            machine.closed = true;
            for association in machine.peers.associations() {
                let Machine { transport, peers, .. } = &mut *machine;
                peers.end(transport, association);
            }
            let ports: Vec<u16> = machine.ports.keys().copied().collect();
            let closed: Vec<_> = ports.into_iter().filter_map(|port| machine.close_port(port)).collect();
            let mut effects = Effects::default();
            machine.drain(&mut effects);
            (effects, closed.into_iter().filter_map(PortUse::into_reader))
        };
        effects.jobs.clear();
        effects.room = true;
        // What was said last goes out if the kernel takes it.
        self.flush_output();
        if let Some(shared) = &self.shared {
            shared.call(|inner, now| inner.end_offers(now, self.turn));
        }
        for abort in effects.aborts.drain(..) {
            abort.abort();
        }
        for wake in effects.wakes.drain(..).chain(readers) {
            wake.wake();
        }
        self.room.notify_waiters();
        self.changed.notify_waiters();
        let mut tasks = lock(&self.tasks);
        tasks.closed = true;
        tasks.abort_all();
    }

    /// Calls into the machine, then does what follows from it.
    pub(super) fn with<R>(self: &Arc<Self>, f: impl FnOnce(&mut Machine, Instant) -> R) -> R {
        let now = self.now();
        let mut effects = Effects::default();
        let result = {
            let mut machine = lock(&self.machine);
            let result = f(&mut machine, now);
            machine.drain(&mut effects);
            result
        };
        self.carry_out(effects);
        self.flush();
        result
    }

    /// Makes a request and sends what the network takes of it.
    pub(super) fn ask(self: &Arc<Self>, now: Instant, asked: Asked) -> Result<Key, SendError> {
        let key = lock(&self.machine).ask(now, asked)?;
        self.flush();
        Ok(key)
    }

    /// Answers a request.
    pub(super) fn respond(self: &Arc<Self>, rpc: RpcId, body: Bytes) -> Result<(), RespondError> {
        self.with(|machine, now| machine.respond(now, rpc, body))
    }

    /// Tries until there is room for what was refused. Cancel safe.
    pub(super) async fn until_room<R>(&self, mut attempt: impl FnMut() -> Option<R>) -> R {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.waiting);
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if let Some(result) = attempt() {
                return result;
            }
            room.await;
        }
    }

    pub(super) fn carry_out(self: &Arc<Self>, mut effects: Effects) {
        for wake in effects.wakes.drain(..) {
            wake.wake();
        }
        for abort in effects.aborts.drain(..) {
            abort.abort();
        }
        if self.waiting.load(Ordering::Acquire) > 0 && (effects.room || effects.finished > 0) {
            self.room.notify_waiters();
        }
        if !effects.jobs.is_empty() {
            serve::begin(self, effects.jobs);
        }
        for (association, key, round) in effects.worn {
            tracing::debug!(peer = %key, "many packets were forged: new keys");
            self.offer_to((association, key), round);
        }
    }

    // ----- out -----------------------------------------------------------------------------------------------------

    /// Sends what is to be sent, and sees to it that the clock is looked at in time.
    pub(super) fn flush(&self) {
        let holds = self.holding.load(Ordering::Acquire);
        if !holds || (self.held.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(GROUP) {
            self.flush_output();
        }
        if lock(&self.machine).rearm() {
            self.keeper.notify_one();
        }
    }

    fn flush_output(&self) {
        // Whoever has the output looks again after it let go. Both write one place and then read the other's, which only these two
        // fences order: at least one of us sees what the other wrote.
        self.pending.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        loop {
            let Ok(mut output) = self.output.try_lock() else { return };
            while self.pending.swap(false, Ordering::AcqRel) {
                self.send(&mut output);
            }
            drop(output);
            fence(Ordering::SeqCst);
            if !self.pending.load(Ordering::Acquire) {
                return;
            }
        }
    }

    fn send(&self, output: &mut Output) {
        loop {
            let more = lock(&self.machine).fill(self.now(), &mut output.batches, output.blocked);
            let each = output.batches.iter_mut().zip(&output.sockets).zip(&mut output.blocked);
            for ((batch, socket), blocked) in each.filter(|(_, blocked)| !**blocked) {
                if !batch.is_empty() && socket.try_send(batch) == SendState::Blocked {
                    *blocked = true;
                    self.keeper.notify_one();
                }
            }
            if !more {
                return;
            }
        }
    }

    // ----- in ------------------------------------------------------------------------------------------------------

    /// Takes what has arrived at a socket: whether there may be more. If it wakes many, what they say is held if `holds`.
    fn take_in(self: &Arc<Self>, index: usize, socket: &Socket, holds: bool) -> bool {
        // Whoever has it takes what there is.
        let Ok(mut received) = self.intakes[index].try_lock() else { return false };
        let state = match socket.try_recv(&mut received) {
            Ok(state) => state,
            Err(error) => {
                tracing::debug!(%error, "receiving failed");
                ReceiveState::Blocked
            }
        };
        let more = state == ReceiveState::More;
        if received.is_empty() {
            return more;
        }
        let now = self.now();
        let mut effects = Effects::default();
        {
            let mut machine = lock(&self.machine);
            for mut arrival in received.arrivals() {
                machine.take(now, &mut arrival);
            }
            machine.drain(&mut effects);
        }
        // Handlers may take long, and others may read on meanwhile.
        drop(received);
        if holds && effects.wakes.len() >= BURST {
            self.holding.store(true, Ordering::Release);
        }
        self.carry_out(effects);
        self.flush();
        more
    }

    /// Takes what has arrived at all sockets, now.
    pub(super) fn poll_sockets(self: &Arc<Self>) {
        let sockets = self.sockets_lock().clone();
        for (index, socket) in sockets.iter().enumerate() {
            self.take_in(index, socket, false);
        }
    }

    async fn receive(self: Arc<Self>, index: usize, socket: Arc<Socket>) {
        // Whatever ends it, nobody is to wait for it.
        let _release = Release(&self);
        loop {
            if poll_fn(|context| socket.poll_recv_ready(context)).await.is_err() {
                return;
            }
            let mut turns = 0;
            loop {
                let more = self.take_in(index, &socket, true);
                let holds = self.holding.load(Ordering::Acquire);
                turns += 1;
                if holds || turns >= TURNS {
                    turns = 0;
                    // Those who were woken have their turn now. One that a pass of the runtime did not reach has the next.
                    self.held.store(0, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    if holds {
                        self.send_held();
                    }
                }
                if !more && !self.holding.load(Ordering::Acquire) {
                    break;
                }
            }
        }
    }

    /// Sends what those said who were woken together. That goes on while they are many.
    fn send_held(&self) {
        if self.held.load(Ordering::Relaxed) < BURST {
            self.holding.store(false, Ordering::Release);
        }
        self.flush_output();
    }

    /// Holds nothing any more.
    fn release(&self) {
        if self.holding.swap(false, Ordering::AcqRel) {
            self.flush();
        }
    }

    /// Hears what the network says of peers.
    async fn listen(self: Arc<Self>, socket: Arc<Socket>) {
        while let Ok(trouble) = socket.trouble().await {
            tracing::debug!(remote = %trouble.remote, fault = ?trouble.fault, "a packet did not get through");
            self.with(|machine, _| {
                let Machine { transport, peers, .. } = machine;
                for peer in peers.trouble(transport, &trouble) {
                    transport.handle_unreachable(peer, None);
                }
            });
        }
    }

    // ----- time ----------------------------------------------------------------------------------------------------

    /// Waits for the clock, and for sockets that take nothing.
    async fn keep(self: Arc<Self>) {
        loop {
            let blocked = {
                let output = lock(&self.output);
                [0, 1].map(|index| output.sockets.get(index).filter(|_| output.blocked[index]).cloned())
            };
            fence(Ordering::SeqCst);
            if self.pending.load(Ordering::Acquire) {
                // Somebody found it locked just now, and relies on who had it.
                self.flush_output();
            }
            let at = self.sleeps_until();
            let left = at.map(|at| at.since(self.now()));
            let late = async {
                match left {
                    // Whose clock is late does not sleep at all: it could be disturbed again before it is woken.
                    Some(Duration::ZERO) => {}
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            let writable = poll_fn(|context| {
                let ready = |socket: &Option<Arc<Socket>>| {
                    socket.as_ref().is_some_and(|socket| socket.poll_send_ready(context).is_ready())
                };
                blocked.iter().position(ready).map_or(Poll::Pending, Poll::Ready)
            });
            tokio::select! {
                () = self.keeper.notified() => {}
                () = late => {
                    self.tick();
                    if left == Some(Duration::ZERO) {
                        // Others have their turn.
                        tokio::task::yield_now().await;
                    }
                }
                free = writable => {
                    lock(&self.output).blocked[free] = false;
                    self.flush_output();
                }
            }
        }
    }

    fn tick(self: &Arc<Self>) {
        let (silent, heard) = self.with(|machine, now| {
            machine.alarm.look(now);
            machine.transport.handle_timeout(now);
            (machine.silent_peers(now), machine.heard_peers(now))
        });
        let Some(shared) = &self.shared else { return };
        if !heard.is_empty() {
            shared.call(|inner, _| {
                for (association, from, at) in &heard {
                    inner.core.handle_heard(*association, *from, *at);
                }
            });
        }
        // Whether the path or the process is silent shows on the path itself, and then packets take another.
        for association in silent {
            for route in shared.peek(|inner, _| inner.core.routes(association)) {
                shared.call(|inner, now| inner.core.probe(now, route.path));
            }
        }
    }

    /// When the keeper next looks at the clock. Calls that are made until then need not tell it.
    fn sleeps_until(&self) -> Option<Instant> {
        let now = self.now();
        let mut machine = lock(&self.machine);
        let due = machine.transport.poll_timeout();
        let calls = machine.transport.metrics().send_calls;
        let busy = std::mem::replace(&mut machine.calls_before, calls) != calls;
        let lull = busy.then(|| now + LULL);
        machine.alarm.set(due.into_iter().chain(lull).min())
    }

    // ----- peers ---------------------------------------------------------------------------------------------------

    /// The peer of the transport for a target and a rule.
    pub(super) fn find(&self, now: Instant, target: &Target, rule: &Rule) -> Result<PeerId, SendError> {
        let reached = match target {
            Target::Address(address) => {
                if *rule != Rule::default() {
                    return Err(SendError::Labels {
                        what: "network-bound",
                        advice: "this transport has no networks to choose from; use one of an endpoint",
                    });
                }
                let mut machine = lock(&self.machine);
                let link = machine.link();
                let Machine { transport, peers, .. } = &mut *machine;
                return peers.at(transport, now, link, *address);
            }
            Target::Reach(reached) => reached,
        };
        let association = reached.association().ok_or(SendError::NoPeer)?;
        {
            let machine = lock(&self.machine);
            if let Some(peer) = machine.peers.lane(association, rule) {
                return Ok(peer);
            }
            if !machine.peers.is_ready(association) {
                return Err(SendError::NoPeer);
            }
        }
        let _routing = lock(&self.routing);
        let path = self.path(association, rule);
        // Without any path what is sent waits for one, within its own limits: paths come and go.
        if path.is_none() && self.has_path(association) {
            return Err(SendError::NoNetwork { rule: rule.to_string() });
        }
        let mut machine = lock(&self.machine);
        let link = machine.link();
        let Machine { transport, peers, .. } = &mut *machine;
        peers.open_lane(transport, now, (association, rule), (path, link))
    }

    /// The way that a rule's packets take now.
    fn path(&self, association: AssociationId, rule: &Rule) -> Option<Path> {
        let shared = self.shared.as_ref()?;
        let route = shared.peek(|inner, now| inner.core.route(now, association, rule))?;
        Some(self.path_of(&route))
    }

    fn has_path(&self, association: AssociationId) -> bool {
        let routes = |shared: &Arc<Shared>| shared.peek(|inner, _| inner.core.routes(association));
        self.shared.as_ref().is_some_and(|shared| !routes(shared).is_empty())
    }

    fn path_of(&self, route: &steadfast_session::Route) -> Path {
        let networks = self.shared.as_ref().map(|shared| shared.networks()).unwrap_or_default();
        let here = route.remote.is_loopback()
            || networks
                .iter()
                .any(|network| network.addresses.iter().any(|address| address.ip == route.remote));
        let network = networks.iter().find(|network| network.id == route.network);
        let mtu = match network {
            _ if here => LOCAL_MTU,
            Some(network) if network.class != NetworkClass::Loopback => mtu_of(&network.name),
            _ => USUAL_MTU,
        };
        let link = lock(&self.machine).link_of(route.network, family(route.remote));
        Path { local: route.local, remote: route.remote, link, mtu }
    }

    /// The ways to a process may be others.
    pub(super) fn reroute(self: &Arc<Self>, association: AssociationId) {
        let Some(shared) = &self.shared else { return };
        {
            let _routing = lock(&self.routing);
            let rules = lock(&self.machine).peers.rules(association);
            let routes = shared.peek(|inner, _| inner.core.routes(association));
            let paths: Vec<Path> = routes.iter().map(|route| self.path_of(route)).collect();
            let ways: Vec<_> = rules.into_iter().map(|rule| (self.path(association, &rule), rule)).collect();
            let mut machine = lock(&self.machine);
            let Machine { transport, peers, .. } = &mut *machine;
            peers.set_paths(transport, association, &paths);
            for (path, rule) in ways {
                peers.reroute(transport, association, &rule, path);
            }
        }
        self.flush();
    }
}

struct Release<'a>(&'a Engine);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// What the network of an interface takes in one packet, as the system says.
fn mtu_of(interface: &str) -> u32 {
    let read = std::fs::read_to_string(format!("/sys/class/net/{interface}/mtu"));
    read.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL_MTU)
}
