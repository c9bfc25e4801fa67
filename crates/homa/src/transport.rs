//! The public face: links, peers, ports; which tables there are and how they stay bounded.

use crate::config::{Config, LinkConfig, PeerConfig};
use crate::cutoffs::{Levels, Traffic};
use crate::event::{Event, PeerError, PortError, Reason};
use crate::grants::Grants;
use crate::id::{FIRST_CLIENT_PORT, LinkId, PeerId};
use crate::metrics::Metrics;
use crate::packet::{Ack, Acks, Body, Dialect, PRIORITIES, Packet};
use crate::peer::Peer;
use crate::rpc::Rpc;
use crate::sender::Sender;
use crate::slab::Slab;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use steadfast_wire::Instant;
use steadfast_wire::rng::Rng;

mod calls;
mod check;
mod receive;
mod timers;
mod transmit;

pub use transmit::{Run, Transmit};

/// How many peers one new peer looks at to find an idle one.
const SWEEP: u32 = 64;

/// One link of this host: what leaves over it and what arrives.
#[derive(Debug)]
struct Link {
    sender: Sender,
    /// Links with the same number are one wire.
    wire: u16,
    grants: Grants,
    /// Bytes that were granted, or come unasked, and are not here.
    incoming: u64,
    /// Nanoseconds for which it was busy with bytes that arrived, by level.
    busy: [u64; PRIORITIES],
    /// When the oldest message gets its share again, while any message waits for grants.
    next_fifo: Option<Instant>,
}

impl Link {
    /// Bytes arrived at a level.
    fn count_busy(&mut self, level: u8, bytes: u64) {
        let nanos = (bytes * 8_000_000_000).checked_div(self.sender.rate).unwrap_or(0);
        let busy = &mut self.busy[usize::from(level).min(PRIORITIES - 1)];
        *busy = busy.saturating_add(nanos);
    }

    /// For how long it was busy with what comes before bytes at this level, or with others at it.
    fn busy(&self, level: u8) -> u64 {
        self.busy[usize::from(level).min(PRIORITIES - 1)..]
            .iter()
            .fold(0, |sum, busy| sum.saturating_add(*busy))
    }
}

/// The Homa transport of one host, or of one process of it.
///
/// After anything was called, drain it: first [`poll_event`](Self::poll_event) until there is none, then
/// [`poll_transmit`](Self::poll_transmit) for each link until there is none, then ask
/// [`poll_timeout`](Self::poll_timeout) and call [`handle_timeout`](Self::handle_timeout) at that time. Several packets that arrived
/// together may be handled before it is drained: then their grants are one.
///
/// ```
/// use steadfast_homa::packet::Dialect;
/// use steadfast_homa::{Call, Config, Event, Instant, LinkConfig, Outcome, PeerConfig, Transport, Transmit};
///
/// let now = Instant(0);
/// // One transport that is its own peer: its packets come back to it.
/// let mut homa = Transport::new(Config::default(), [1; 32]);
/// let link = homa.add_link(LinkConfig { rate: 0 });
/// let peer = PeerConfig { link, dialect: Dialect::Linux, segment: 1424, overhead: 62 };
/// let peer = homa.add_peer(now, peer)?;
/// homa.bind(99)?;
/// let from = homa.open_port()?;
/// let body = "hello".into();
/// homa.request(now, Call { peer, port: 99, from, body, cookie: 7, deadline: None, max_response: 100 })?;
/// let mut outcome = None;
/// while outcome.is_none() {
///     let mut packets = Vec::new();
///     while let Some(transmit) = homa.poll_transmit(now, link, 65_536) {
///         for index in 0..transmit.packets() {
///             let mut packet = Vec::new();
///             transmit.write(index, &mut packet);
///             packets.push(packet);
///         }
///     }
///     for packet in packets {
///         let _placement = homa.handle_packet(now, peer, &packet);
///     }
///     while let Some(event) = homa.poll_event() {
///         match event {
///             Event::Request { rpc, .. } => homa.respond(now, rpc, "world".into())?,
///             Event::Done { cookie: 7, outcome: done, .. } => outcome = Some(done),
///             _ => {}
///         }
///     }
/// }
/// assert_eq!(outcome, Some(Outcome::Delivered));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Transport {
    config: Config,
    rng: Rng,
    metrics: Metrics,
    links: Vec<Link>,
    peers: Slab<Peer>,
    rpcs: Slab<Rpc>,
    /// Ours, and whether requests are taken there.
    ports: BTreeMap<u16, bool>,
    next_port: u16,
    /// How many RPCs are our requests; the others are those of peers.
    clients: usize,
    /// Where the search for an idle peer goes on.
    hand: u32,
    timers: BTreeSet<(Instant, u32)>,
    events: VecDeque<Event>,
    traffic: Traffic,
    levels: Levels,
    cutoff_version: u16,
    /// Bytes of messages that arrive or wait for their answer.
    held: u64,
    /// Those of them that are requests of peers.
    held_requests: u64,
    /// Bytes of messages that are sent.
    kept: u64,
    /// Those of them that are responses.
    kept_responses: u64,
    /// The shortest request, and the shortest response, that was refused because of these.
    refused_call: Option<u64>,
    refused_response: Option<u64>,
}

impl Transport {
    /// A transport without links, peers and ports. The seed must be new for every process: from it come the first ids.
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let config = config.consistent();
        let mut rng = Rng::new(seed);
        let levels = Levels::new(config.cutoffs, config.priorities);
        // Random, so that senders notice when another process decides.
        let cutoff_version = (rng.bits() as u16).max(1);
        let clients = u64::from(u16::MAX - FIRST_CLIENT_PORT) + 1;
        let next_port = FIRST_CLIENT_PORT + (rng.bits() % clients) as u16;
        Self {
            config,
            rng,
            metrics: Metrics::default(),
            links: Vec::new(),
            peers: Slab::new(),
            rpcs: Slab::new(),
            ports: BTreeMap::new(),
            next_port,
            clients: 0,
            hand: 0,
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            traffic: Traffic::new(),
            levels,
            cutoff_version,
            held: 0,
            held_requests: 0,
            kept: 0,
            kept_responses: 0,
            refused_call: None,
            refused_response: None,
        }
    }

    /// Adds a link. There is no end to them but the 65,536th panics: a host has a few.
    pub fn add_link(&mut self, link: LinkConfig) -> LinkId {
        assert!(self.links.len() < usize::from(u16::MAX), "a host has fewer links");
        self.links.push(Link {
            sender: Sender::new(link.rate),
            wire: self.links.len() as u16,
            grants: Grants::new(self.config.overcommit),
            incoming: 0,
            busy: [0; PRIORITIES],
            next_fifo: None,
        });
        LinkId(self.links.len() as u16 - 1)
    }

    /// What leaves over one of the links takes the other's time as well, and what comes keeps the other busy: they are one wire, such
    /// as the two families of addresses of a network.
    pub fn share_wire(&mut self, link: LinkId, with: LinkId) {
        if let Some(wire) = self.links.get(usize::from(with.0)).map(|link| link.wire)
            && let Some(link) = self.links.get_mut(usize::from(link.0))
        {
            link.wire = wire;
        }
    }

    /// Bytes go out over a link.
    fn charge(&mut self, now: Instant, link: u16, bytes: u64) {
        let Some(wire) = self.links.get(usize::from(link)).map(|link| link.wire) else { return };
        for link in self.links.iter_mut().filter(|link| link.wire == wire) {
            link.sender.charge(now, bytes, &self.config);
        }
    }

    /// Bytes that may be on their way over a link's wire.
    fn incoming_of(&self, link: u16) -> u64 {
        let Some(wire) = self.links.get(usize::from(link)).map(|link| link.wire) else { return 0 };
        self.links.iter().filter(|link| link.wire == wire).map(|link| link.incoming).sum()
    }

    /// The link has another rate now, in bits a second; 0 if unknown.
    pub fn set_rate(&mut self, link: LinkId, rate: u64) {
        if let Some(link) = self.links.get_mut(usize::from(link.0)) {
            link.sender.rate = rate;
        }
    }

    /// Adds a peer. If there are too many, one that has been idle for [`Config::packet_lifetime`] is forgotten, or one with
    /// which no request was ever begun: a driver that adds a peer to make a request makes it at once.
    pub fn add_peer(&mut self, now: Instant, peer: PeerConfig) -> Result<PeerId, PeerError> {
        if usize::from(peer.link.0) >= self.links.len() {
            return Err(PeerError::NoLink);
        }
        if self.peers.len() >= self.config.max_peers && !self.forget_idle_peer(now) {
            self.metrics.peer_kmalloc_errors += 1;
            return Err(PeerError::TooMany(self.config.max_peers));
        }
        self.metrics.peer_allocs += 1;
        let peer = Peer::new(now, &peer, self.rng.bits(), self.config.priorities);
        let (index, generation) = self.peers.insert(peer);
        Ok(PeerId { index, generation })
    }

    fn forget_idle_peer(&mut self, now: Instant) -> bool {
        for _ in 0..SWEEP.min(self.peers.end()) {
            let index = self.hand % self.peers.end();
            self.hand = index + 1;
            let lifetime = self.config.packet_lifetime;
            // What was remembered of it goes with it, so no packet of it may be left in the network.
            let peer = self.peers.get(index);
            if peer.is_some_and(|peer| peer.is_blank() || peer.is_idle() && peer.heard + lifetime <= now) {
                let peer = PeerId { index, generation: self.peers.generation(index) };
                self.peers.remove(index);
                self.events.push_back(Event::PeerForgotten { peer });
                return true;
            }
        }
        false
    }

    /// A peer is reached in another way now; its dialect stays. What is under way with it goes on, which it would not if it
    /// was removed and added again. Takes time with the number of RPCs with it if the link is another.
    pub fn update_peer(&mut self, peer: PeerId, config: PeerConfig) -> Result<(), PeerError> {
        if usize::from(config.link.0) >= self.links.len() {
            return Err(PeerError::NoLink);
        }
        let Some(known) = self.peer_mut(peer) else { return Err(PeerError::NoPeer) };
        known.segment = config.segment.max(1);
        known.overhead = config.overhead;
        if known.link != config.link.0 {
            self.move_peer(peer, config.link.0);
        }
        Ok(())
    }

    fn move_peer(&mut self, peer: PeerId, link: u16) {
        let Some(known) = self.peers.get_mut(peer.index) else { return };
        let before = core::mem::replace(&mut known.link, link);
        let all: Vec<u32> = known.clients.values().chain(known.servers.values()).copied().collect();
        for index in &all {
            self.unmanage(*index);
            self.count_incoming(*index, 0);
            let Some(rpc) = self.rpcs.get_mut(*index) else { continue };
            if let Some(outgoing) = &mut rpc.outgoing {
                self.links[usize::from(before)].sender.place(outgoing.place.take(), None);
            }
            rpc.link = link;
        }
        for index in all {
            self.requeue(index);
            self.recount(index);
            self.manage_anew(index);
        }
        let control = core::mem::take(&mut self.links[usize::from(before)].sender.control);
        for (to, packet) in control {
            let link = if to == peer { link } else { before };
            self.links[usize::from(link)].sender.control.push_back((to, packet));
        }
    }

    /// Payload bytes of one packet to a peer, at most, from now on: its path changed.
    pub fn set_segment(&mut self, peer: PeerId, segment: u32) {
        if let Some(peer) = self.peer_mut(peer) {
            peer.segment = segment.max(1);
        }
    }

    /// When a packet came from a peer, or it was added.
    pub fn heard(&self, peer: PeerId) -> Option<Instant> {
        self.peers
            .index_of(peer.index, peer.generation)
            .and_then(|index| self.peers.get(index))
            .map(|peer| peer.heard)
    }

    /// When a peer of which nothing came at all for [`Config::resend_after`] was last asked for bytes that are missing; `None` if
    /// it never was. From one that says anything the network does carry packets.
    pub fn missed(&self, peer: PeerId) -> Option<Instant> {
        self.peers.index_of(peer.index, peer.generation).and_then(|index| self.peers.get(index)?.missed)
    }

    /// Ends all that is under way with a peer and forgets it.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.end_all(peer, Reason::Closed);
        if self.peers.index_of(peer.index, peer.generation).is_some()
            && let Some(known) = self.peers.remove(peer.index)
        {
            // Nothing is said to it any more, also not to stop.
            self.links[usize::from(known.link)].sender.control.retain(|(to, _)| *to != peer);
        }
    }

    /// The carrier knows that a peer is another process now: whatever was under way has ended, and what the former process
    /// sent does not arrive any more. Without this a peer's restart is noticed by its answers.
    ///
    /// In [`Dialect::Steadfast`] every change of keys has to be told to both sides, and so has a peer that was removed and
    /// added again: one side that forgets what it took while the other goes on could execute a request twice that it has
    /// not confirmed yet.
    pub fn handle_restart(&mut self, peer: PeerId) {
        self.end_all(peer, Reason::Restarted);
        let priorities = self.config.priorities;
        if let Some(peer) = self.peer_mut(peer) {
            // Its ids begin anew at random.
            peer.taken.clear();
            peer.acks = Acks::new();
            peer.cutoffs = Levels::unheard(priorities).cutoffs;
            peer.cutoff_version = 0;
            peer.questions = 0;
        }
    }

    /// The network says that a peer, or a port there, cannot be reached: our requests to it end.
    pub fn handle_unreachable(&mut self, peer: PeerId, port: Option<u16>) {
        for index in self.clients_of(peer) {
            if port.is_none_or(|port| self.rpcs.get(index).is_some_and(|rpc| rpc.remote_port == port)) {
                self.fail(index, Reason::Unreachable);
            }
        }
    }

    /// Takes requests at a port, 1 to 32,767.
    pub fn bind(&mut self, port: u16) -> Result<(), PortError> {
        if port == 0 || port >= FIRST_CLIENT_PORT {
            return Err(PortError::NotServers(port));
        }
        if self.ports.contains_key(&port) {
            return Err(PortError::InUse(port));
        }
        self.add_port(port, true)
    }

    /// A port to make requests from. They begin at a random one and count up, so that none comes again soon.
    pub fn open_port(&mut self) -> Result<u16, PortError> {
        loop {
            let port = self.next_port;
            self.next_port = self.next_port.wrapping_add(1).max(FIRST_CLIENT_PORT);
            // Fewer may be open than there are, so the search ends.
            if !self.ports.contains_key(&port) {
                return self.add_port(port, false).map(|()| port);
            }
        }
    }

    fn add_port(&mut self, port: u16, serves: bool) -> Result<(), PortError> {
        if self.ports.len() >= self.config.max_ports.min(usize::from(FIRST_CLIENT_PORT) - 1) {
            return Err(PortError::TooMany(self.config.max_ports));
        }
        self.ports.insert(port, serves);
        Ok(())
    }

    /// Whether requests are taken at a port of ours, whatever its number.
    pub fn set_serving(&mut self, port: u16, serves: bool) {
        if let Some(entry) = self.ports.get_mut(&port) {
            *entry = serves;
        }
    }

    /// Closes a port and ends all that is under way there. Takes time with the number of RPCs.
    pub fn close_port(&mut self, port: u16) {
        self.ports.remove(&port);
        let there: Vec<u32> =
            self.rpcs.iter().filter(|(_, rpc)| rpc.local_port == port).map(|(index, _)| index).collect();
        for index in there {
            self.end(index, Reason::Closed);
        }
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Cancelled { rpc }
        | Event::Answered { rpc, .. }
        | Event::Done { rpc, .. }
        | Event::Discarded { rpc } = &event
        {
            // Its last: a new one of the same index must not come before the driver has heard of it.
            self.rpcs.release(rpc.index);
        }
        Some(event)
    }

    /// What was done and refused.
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// RPCs that are here: our requests, and those of peers.
    pub fn rpcs(&self) -> (usize, usize) {
        (self.clients, self.rpcs.len() - self.clients)
    }

    /// The cut-offs that senders are told of, for each level the longest unscheduled message that may use it.
    pub const fn cutoffs(&self) -> [u32; PRIORITIES] {
        self.levels.cutoffs
    }

    fn peer_mut(&mut self, peer: PeerId) -> Option<&mut Peer> {
        let index = self.peers.index_of(peer.index, peer.generation)?;
        self.peers.get_mut(index)
    }

    fn clients_of(&self, peer: PeerId) -> Vec<u32> {
        let index = self.peers.index_of(peer.index, peer.generation);
        let peer = index.and_then(|index| self.peers.get(index));
        peer.map(|peer| peer.clients.values().copied().collect()).unwrap_or_default()
    }

    /// Ends all that is under way with a peer.
    fn end_all(&mut self, peer: PeerId, reason: Reason) {
        let index = self.peers.index_of(peer.index, peer.generation);
        let Some(known) = index.and_then(|index| self.peers.get(index)) else { return };
        let all: Vec<u32> = known.clients.values().chain(known.servers.values()).copied().collect();
        for index in all {
            self.end(index, reason);
        }
    }

    /// The level of all packets but DATA, and of what is sent again.
    const fn top(&self) -> u8 {
        self.config.priorities - 1
    }

    /// A packet other than DATA, for a peer that there is.
    fn push_control(&mut self, peer: PeerId, packet: Packet) {
        let share = self.control_share();
        let Some(known) = self.peers.get_mut(peer.index) else { return };
        let link = &mut self.links[usize::from(known.link)];
        if link.sender.control.len() < self.config.max_control && known.control < share {
            link.sender.control.push_back((peer, packet));
            known.control += 1;
        } else {
            self.metrics.refused_control += 1;
        }
    }

    /// How many packets other than DATA may wait for one peer.
    fn control_share(&self) -> usize {
        (self.config.max_control / 4).max(16)
    }

    /// A response is here: its server is told with the next DATA, or when there are too many to tell.
    fn queue_ack(&mut self, peer: PeerId, local_port: u16, ack: Ack) {
        let Some(known) = self.peers.get_mut(peer.index) else { return };
        if known.acks.push(ack) {
            return;
        }
        let acks = core::mem::take(&mut known.acks);
        self.metrics.ack_overflows += 1;
        self.push_ack(peer, local_port, ack, acks);
    }

    /// An ACK whose header acknowledges `ack`.
    fn push_ack(&mut self, peer: PeerId, local_port: u16, ack: Ack, acks: Acks) {
        let packet = Packet {
            source: local_port,
            destination: ack.server_port,
            sender_id: ack.client_id,
            body: Body::Ack(acks),
        };
        self.push_control(peer, packet);
    }

    fn dialect(&self, peer: PeerId) -> Dialect {
        self.peers.get(peer.index).map_or(Dialect::Linux, |peer| peer.dialect)
    }
}
