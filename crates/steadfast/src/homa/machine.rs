//! The transport behind its lock, and what is kept beside it: where peers are, calls that wait, messages that arrive, who
//! serves which port.
//!
//! Bounds: a call has a place here for each request that the transport allows; what arrives is counted by the transport
//! before its first packet is placed; peers and ports are as many as the transport takes.

use super::alarm::Alarm;
use super::assembly::Assembly;
use super::error::SendError;
use super::peers::{Opened, Peers};
use super::port::{Mailbox, PortEvent, Verdict};
use super::serve::{Job, Served};
use bytes::Bytes;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use steadfast_homa::packet::{DATA_HEADER, Dialect, Kind, split};
use steadfast_homa::{
    Call, CallError, Event, Instant, LinkConfig, LinkId, Outcome, PeerId, Placement, RespondError, RpcId,
    Transport,
};
use steadfast_net::datagram::{Arrival, Batch, tos_of_level};
use steadfast_session::AssociationId;
use steadfast_wire::{Fingerprint, NetworkId};
use tokio::task::AbortHandle;

/// How often paths are told that their peers were heard beside them.
const HEARD_PAUSE: Duration = Duration::from_millis(500);
/// How much is taken from the transport before it is given to the kernel, in bytes of packets: one long packet of the loopback, or
/// a run that the kernel splits. The receiver begins with it while the next is written.
const FILL: usize = 60 * 1024;
/// How much of one message is taken at once, in bytes: as much as the kernel takes in one call.
const RUN: u32 = 64 * 1024;

/// The most links that are told apart.
const MAX_LINKS: usize = 64;

/// What is to be done once the lock is free.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) wakes: Vec<Waker>,
    pub(super) jobs: Vec<Job>,
    pub(super) aborts: Vec<AbortHandle>,
    /// Requests that have their outcome.
    pub(super) finished: usize,
    /// There is room for what was refused.
    pub(super) room: bool,
    /// Processes with which new keys are to be agreed on, and in which round.
    pub(super) worn: Vec<(AssociationId, Fingerprint, u32)>,
}

/// One of our requests that nobody has taken the outcome of.
struct Open {
    rpc: Option<RpcId>,
    body: Assembly,
    waker: Option<Waker>,
    outcome: Option<Outcome>,
    owner: Owner,
}

enum Owner {
    /// A future that polls it.
    Caller,
    /// A port, which gets the outcome with this cookie.
    Port(u16, u64),
    /// Nobody wants the outcome.
    Nobody,
}

/// A request of a peer.
enum Request {
    Arriving {
        body: Assembly,
        /// Of which port's pool its buffer is.
        pool: Option<u16>,
    },
    /// With the handler, or with who reads the port.
    Served {
        rpc: RpcId,
        port: u16,
        /// That of its event in the port's mailbox.
        number: u64,
        task: Option<AbortHandle>,
    },
}

/// How one of our requests ended, with the response if there is one.
pub(super) struct Finished {
    pub(super) outcome: Outcome,
    pub(super) body: Vec<u8>,
}

/// What a port of ours is for.
pub(super) enum PortUse {
    Served(Arc<Served>),
    Mailbox(Mailbox),
    /// Requests are made from it.
    Client,
}

impl PortUse {
    /// Who waits for what comes to a port that was closed.
    pub(super) fn into_reader(self) -> Option<Waker> {
        match self {
            Self::Mailbox(mailbox) => mailbox.into_reader(),
            Self::Served(_) | Self::Client => None,
        }
    }
}

/// A request to be made.
pub(super) struct Asked {
    pub(super) peer: PeerId,
    pub(super) port: u16,
    /// The port that it is made from, with the cookie for its outcome; a caller's if none.
    pub(super) from: Option<(u16, u64)>,
    pub(super) body: Bytes,
    pub(super) deadline: Option<Instant>,
    pub(super) max_response: u32,
    /// Where the response goes, if it fits.
    pub(super) buffer: Vec<u8>,
}

/// A call in [`Machine::calls`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u64);

pub(super) struct Machine {
    pub(super) transport: Transport,
    pub(super) peers: Peers,
    /// One for each network and family of addresses, in the order in which they were first used, with that
    /// family. The first is for what has no network, of whichever family.
    links: Vec<(LinkId, Option<usize>)>,
    networks: HashMap<(NetworkId, usize), LinkId>,
    /// The link that comes first next time.
    first: usize,
    rate: u64,
    calls: Calls,
    /// By the index of their RPC.
    requests: Vec<Option<Request>>,
    pub(super) ports: HashMap<u16, PortUse>,
    /// From which callers' requests are made.
    from: u16,
    max_open: usize,
    /// When the keeper looks at the clock.
    pub(super) alarm: Alarm,
    /// How many there had been when the keeper last looked: our calls, and questions for what is missing.
    pub(super) calls_before: u64,
    asked_before: u64,
    /// When it last looked who had been asked.
    missed_before: Option<Instant>,
    heard_told: Instant,
    pub(super) closed: bool,
}

/// Our requests, each with a key that is not used again.
#[derive(Default)]
struct Calls {
    places: Vec<(u32, Option<Open>)>,
    free: Vec<u32>,
    count: usize,
}

impl Calls {
    fn insert(&mut self, open: Open) -> Key {
        self.count += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() as u32 - 1
        });
        let (generation, place) = &mut self.places[index as usize];
        *generation = generation.wrapping_add(1);
        *place = Some(open);
        Key(u64::from(*generation) << 32 | u64::from(index))
    }

    fn find(&mut self, key: Key) -> Option<&mut Open> {
        let (generation, place) = self.places.get_mut(key.0 as u32 as usize)?;
        place.as_mut().filter(|_| u64::from(*generation) == key.0 >> 32)
    }

    fn remove(&mut self, key: Key) -> Option<Open> {
        self.find(key)?;
        let index = key.0 as u32;
        self.count -= 1;
        self.free.push(index);
        self.places[index as usize].1.take()
    }
}

impl Machine {
    pub(super) fn new(mut transport: Transport, peers: Peers, rate: u64, max_open: usize) -> Self {
        let link = transport.add_link(LinkConfig { rate });
        // There is room for one port in every configuration.
        let from = transport.open_port().unwrap_or(steadfast_homa::FIRST_CLIENT_PORT);
        Self {
            transport,
            peers,
            links: vec![(link, None)],
            networks: HashMap::new(),
            first: 0,
            rate,
            calls: Calls::default(),
            requests: Vec::new(),
            ports: HashMap::from([(from, PortUse::Client)]),
            from,
            max_open,
            alarm: Alarm::new(),
            calls_before: 0,
            asked_before: 0,
            missed_before: None,
            heard_told: Instant(0),
            closed: false,
        }
    }

    /// Requests of this side without an outcome, and those of peers that are here.
    pub(super) fn open(&self) -> (usize, usize) {
        self.transport.rpcs()
    }

    /// Makes a request.
    pub(super) fn ask(&mut self, now: Instant, asked: Asked) -> Result<Key, SendError> {
        if self.closed {
            return Err(SendError::Closed);
        }
        if self.transport.rpcs().0 >= self.max_open {
            return Err(SendError::TooMany { limit: self.max_open });
        }
        let (from, owner) = match asked.from {
            Some((port, cookie)) => (port, Owner::Port(port, cookie)),
            None => (self.from, Owner::Caller),
        };
        let body = Assembly::given(asked.buffer);
        let key = self.calls.insert(Open { rpc: None, body, waker: None, outcome: None, owner });
        let call = Call {
            peer: asked.peer,
            port: asked.port,
            from,
            body: asked.body,
            cookie: key.0,
            deadline: asked.deadline,
            max_response: asked.max_response,
        };
        match self.transport.request(now, call) {
            Ok(rpc) => {
                if let Some(open) = self.calls.find(key) {
                    open.rpc = Some(rpc);
                }
                Ok(key)
            }
            Err(error) => {
                self.calls.remove(key);
                Err(match error {
                    CallError::NoPeer => SendError::NoPeer,
                    CallError::NoPort(_) => SendError::Closed,
                    CallError::Length { length, limit } => SendError::Length { length, limit },
                    CallError::TooMany(limit) => SendError::TooMany { limit },
                    CallError::Full(limit) => SendError::Full { limit },
                })
            }
        }
    }

    /// Whether a caller's request has its outcome.
    pub(super) fn poll_call(&mut self, key: Key, context: &Context<'_>) -> Poll<Option<Finished>> {
        let Some(open) = self.calls.find(key) else { return Poll::Ready(None) };
        if open.outcome.is_none() {
            match &mut open.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(self.calls.remove(key).and_then(Open::finish))
    }

    /// A caller's request is wanted no more; its outcome is kept for the caller if `listens`.
    pub(super) fn cancel(&mut self, key: Key, listens: bool) {
        let Some(open) = self.calls.find(key) else { return };
        let rpc = open.rpc;
        if !listens {
            if open.outcome.is_some() {
                self.calls.remove(key);
                return;
            }
            open.owner = Owner::Nobody;
        }
        if let Some(rpc) = rpc {
            self.transport.cancel(rpc);
        }
    }

    /// Takes in what arrived from one peer.
    pub(super) fn take(&mut self, now: Instant, arrival: &mut Arrival<'_>) {
        let route = arrival.route;
        if self.peers.is_sealed() {
            for packet in arrival.packets() {
                let opened = self.peers.open(&mut self.transport, now, route, packet);
                let Some(Opened { peer, packet }) = opened else { continue };
                if let Some(placement) = self.transport.handle_packet(now, peer, packet) {
                    self.place(placement, &packet[DATA_HEADER..]);
                }
            }
            return;
        }
        let link = self.link();
        for packet in arrival.packets() {
            let Some(peer) = self.peers.known(&mut self.transport, now, link, route, packet) else {
                continue;
            };
            match self.peers.dialect() {
                Dialect::Steadfast => {
                    if let Some(placement) = self.transport.handle_packet(now, peer, packet) {
                        self.place(placement, &packet[DATA_HEADER..]);
                    }
                }
                // What a network card of the module's host was to split may come in one piece.
                dialect @ Dialect::Linux => {
                    let segment = self.peers.segment(peer);
                    let Ok(parts) = split(dialect, packet, segment) else { continue };
                    for (header, payload) in parts {
                        let placement = self.transport.handle(now, peer, &header, payload.len() as u32);
                        if let Some(placement) = placement {
                            self.place(placement, payload);
                        }
                    }
                }
            }
        }
    }

    /// Puts a packet's bytes where they belong.
    fn place(&mut self, placement: Placement, payload: &[u8]) {
        let (offset, length) = (placement.offset as usize, placement.length as usize);
        if placement.response {
            let Some(open) = self.calls.find(Key(placement.cookie)) else { return };
            if placement.first {
                open.body.begin(length);
            }
            open.body.put(offset, payload);
            return;
        }
        let index = placement.rpc.index();
        if index >= self.requests.len() {
            self.requests.resize_with(index + 1, || None);
        }
        if placement.first {
            let given = match self.ports.get_mut(&placement.port) {
                Some(PortUse::Mailbox(mailbox)) => mailbox.buffer(length),
                _ => None,
            };
            let pool = given.is_some().then_some(placement.port);
            let body = Assembly::new(given.unwrap_or_default(), length);
            self.requests[index] = Some(Request::Arriving { body, pool });
        }
        if let Some(Request::Arriving { body, .. }) = &mut self.requests[index] {
            body.put(offset, payload);
        }
    }

    /// Does what follows from all that was taken in.
    pub(super) fn drain(&mut self, effects: &mut Effects) {
        self.peers.worn(&mut effects.worn);
        while let Some(event) = self.transport.poll_event() {
            match event {
                Event::Request { rpc, peer, port, .. } => self.announce(rpc, peer, port, effects),
                Event::Cancelled { rpc } => match self.forget(rpc) {
                    Some(Request::Served { rpc, port, number, task }) => {
                        effects.aborts.extend(task);
                        match self.ports.get_mut(&port) {
                            Some(PortUse::Served(served)) => served.cancel(rpc),
                            Some(PortUse::Mailbox(mailbox)) => mailbox.cancel(number, rpc, effects),
                            Some(PortUse::Client) | None => {}
                        }
                    }
                    Some(arriving @ Request::Arriving { .. }) => self.give_back(arriving),
                    None => {}
                },
                Event::Answered { rpc, acknowledged } => {
                    if let Some(Request::Served { rpc, port, .. }) = self.forget(rpc) {
                        self.tell_port(port, PortEvent::Answered { rpc, acknowledged }, effects);
                    }
                }
                Event::Discarded { rpc } => {
                    if let Some(request) = self.forget(rpc) {
                        self.give_back(request);
                    }
                }
                Event::Done { cookie, outcome, .. } => self.finish(Key(cookie), outcome, effects),
                Event::Room => effects.room = true,
                Event::PeerForgotten { peer } => self.peers.forget(peer),
                _ => {}
            }
        }
    }

    /// A request that arrived in part is not wanted any more: its buffer is of use to another.
    fn give_back(&mut self, request: Request) {
        if let Request::Arriving { body, pool: Some(port) } = request
            && let Some(PortUse::Mailbox(mailbox)) = self.ports.get_mut(&port)
        {
            mailbox.give(body.into_vec());
        }
    }

    fn forget(&mut self, rpc: RpcId) -> Option<Request> {
        self.requests.get_mut(rpc.index())?.take()
    }

    fn tell_port(&mut self, port: u16, event: PortEvent, effects: &mut Effects) {
        if let Some(PortUse::Mailbox(mailbox)) = self.ports.get_mut(&port) {
            mailbox.push(event, effects);
        }
    }

    fn finish(&mut self, key: Key, outcome: Outcome, effects: &mut Effects) {
        effects.finished += 1;
        let Some(open) = self.calls.find(key) else { return };
        open.outcome = Some(outcome);
        match open.owner {
            Owner::Caller => effects.wakes.extend(open.waker.take()),
            Owner::Nobody => drop(self.calls.remove(key)),
            Owner::Port(port, cookie) => {
                let finished = self.calls.remove(key).and_then(Open::finish);
                if let Some(Finished { outcome, body }) = finished {
                    self.tell_port(port, PortEvent::Done(Verdict { cookie, outcome, body }), effects);
                }
            }
        }
    }

    fn announce(&mut self, rpc: RpcId, peer: PeerId, port: u16, effects: &mut Effects) {
        let (body, given) = match self.forget(rpc) {
            Some(Request::Arriving { body, pool }) => (body.into_vec(), pool.is_some()),
            _ => (Vec::new(), false),
        };
        let from = self.peers.who(peer);
        let number = match self.ports.get_mut(&port) {
            Some(PortUse::Served(served)) => {
                effects.jobs.push(Job { served: Arc::clone(served), rpc, from, body: body.into() });
                0
            }
            Some(PortUse::Mailbox(mailbox)) => {
                mailbox.push(PortEvent::Request { rpc, from, body, given }, effects)
            }
            Some(PortUse::Client) | None => {
                self.transport.abandon(rpc);
                return;
            }
        };
        if let Some(request) = self.requests.get_mut(rpc.index()) {
            *request = Some(Request::Served { rpc, port, number, task: None });
        }
    }

    /// Whether a request still waits for its answer.
    pub(super) fn is_served(&self, rpc: RpcId) -> bool {
        let request = self.requests.get(rpc.index()).and_then(Option::as_ref);
        matches!(request, Some(Request::Served { rpc: known, .. }) if *known == rpc)
    }

    /// A task works on a request; false if nobody wants that any more.
    pub(super) fn set_task(&mut self, rpc: RpcId, handle: AbortHandle) -> bool {
        match self.requests.get_mut(rpc.index()) {
            Some(Some(Request::Served { rpc: known, task, .. })) if *known == rpc => {
                *task = Some(handle);
                true
            }
            _ => false,
        }
    }

    /// The requests at a port that wait for their answer, with the tasks that work on them.
    pub(super) fn served_at(&mut self, at: u16) -> Vec<(RpcId, Option<AbortHandle>)> {
        let of = |request: &mut Option<Request>| match request {
            Some(Request::Served { rpc, port, task, .. }) if *port == at => Some((*rpc, task.take())),
            _ => None,
        };
        self.requests.iter_mut().filter_map(of).collect()
    }

    /// Whether no request at a port waits for its answer, or for its client to have it.
    pub(super) fn served_at_is_empty(&self, at: u16) -> bool {
        let there = |request: &Request| matches!(request, Request::Served { port, .. } if *port == at);
        !self.requests.iter().flatten().any(there)
    }

    /// Answers a request.
    pub(super) fn respond(&mut self, now: Instant, rpc: RpcId, body: Bytes) -> Result<(), RespondError> {
        let answered = self.transport.respond(now, rpc, body);
        if answered.is_ok()
            && let Some(Some(Request::Served { task, .. })) = self.requests.get_mut(rpc.index())
        {
            *task = None;
        }
        answered
    }

    /// Closes a port; what is under way there ends.
    pub(super) fn close_port(&mut self, port: u16) -> Option<PortUse> {
        self.transport.close_port(port);
        self.ports.remove(&port)
    }

    /// Writes what is to be sent next, to batches whose socket takes something; whether there may be more.
    pub(super) fn fill(&mut self, now: Instant, batches: &mut [Batch], blocked: [bool; 2]) -> bool {
        let mut bytes = 0;
        // Each network has its turn to be the first.
        self.first = (self.first + 1) % self.links.len();
        let (before, from) = self.links.split_at(self.first);
        for (link, batch) in from.iter().chain(before) {
            let batch = batch.map(|family| if batches.len() > 1 { family } else { 0 });
            if batch.map_or(blocked != [false; 2], |batch| blocked[batch]) {
                continue;
            }
            while let Some(transmit) = self.transport.poll_transmit(now, *link, RUN) {
                let tos = tos_of_level(transmit.priority());
                bytes += self.peers.write(&transmit, tos, batches);
                if bytes >= FILL {
                    return true;
                }
            }
        }
        false
    }

    /// Processes that were asked for missing bytes since this was last called, and from which nothing comes that way.
    pub(super) fn silent_peers(&mut self, now: Instant) -> Vec<AssociationId> {
        let before = self.missed_before.replace(now);
        let asked = self.transport.metrics().packets_sent[Kind::Resend.index()];
        // What was asked for just now is sent, and so counted, later.
        if std::mem::replace(&mut self.asked_before, asked) == asked {
            self.missed_before = before;
            return Vec::new();
        }
        self.peers.missed_since(&self.transport, now, before)
    }

    /// From where processes were heard, every now and then.
    pub(super) fn heard_peers(&mut self, now: Instant) -> Vec<(AssociationId, IpAddr, Instant)> {
        if now < self.heard_told + HEARD_PAUSE {
            return Vec::new();
        }
        self.heard_told = now;
        self.peers.heard(&self.transport)
    }

    /// When the clock has something to do here, and whether the keeper has to be told because it sleeps longer.
    pub(super) fn rearm(&mut self) -> bool {
        self.alarm.wakes(self.transport.poll_timeout())
    }

    pub(super) fn link(&self) -> LinkId {
        self.links[0].0
    }

    /// The link of a network for a family of addresses: 0 for IPv4. A host that had more networks than there may be links shares the first.
    pub(super) fn link_of(&mut self, network: NetworkId, family: usize) -> LinkId {
        if let Some(link) = self.networks.get(&(network, family)) {
            return *link;
        }
        if self.links.len() >= MAX_LINKS {
            return self.link();
        }
        let link = self.transport.add_link(LinkConfig { rate: self.rate });
        if let Some(other) = self.networks.get(&(network, 1 - family.min(1))) {
            self.transport.share_wire(link, *other);
        }
        self.links.push((link, Some(family)));
        self.networks.insert((network, family), link);
        link
    }
}

impl Open {
    fn finish(self) -> Option<Finished> {
        let outcome = self.outcome?;
        let body = if outcome == Outcome::Delivered { self.body.into_vec() } else { Vec::new() };
        Some(Finished { outcome, body })
    }
}
