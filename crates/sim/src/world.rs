//! Virtual time, hosts, networks.

use crate::carrier::{Carrier, Crossing, End, Pipe, jittered};
use crate::rng::Rng;
use bytes::BytesMut;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use steadfast_session::{Action, Config, Digest, Endpoint, Event, Examination, JournalEntry, Loss, Record};
use steadfast_wire::{
    Address, Fingerprint, Frame, Gather, Instant, MessageId, Network, NetworkClass, NetworkId, PathNumber,
    SessionId,
};

/// The port on which every host listens.
const PORT: u16 = 7463;
/// How much a carrier is filled with at once, in bytes.
const RECORD: usize = 8 * 1024;

/// How one host is attached to one network, and what goes wrong there.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The interface is there.
    pub up: bool,
    /// Bytes a second, each way.
    pub rate: u64,
    /// One way, to the middle of the network.
    pub delay: Duration,
    /// At most this much more delay.
    pub jitter: Duration,
    /// Packets lost, in a thousand.
    pub loss: u64,
    /// What leaves vanishes.
    pub hole_out: bool,
    /// What comes vanishes.
    pub hole_in: bool,
    /// Changes with the address.
    pub generation: u8,
    /// Costs by volume.
    pub metered: bool,
    /// What kind of network it is.
    pub class: NetworkClass,
    busy: [Instant; 2],
}

impl Attachment {
    /// An attachment that works, with this rate in bytes a second and this one-way delay.
    #[must_use]
    pub fn new(rate: u64, delay: Duration) -> Self {
        Self {
            up: true,
            rate,
            delay,
            jitter: Duration::ZERO,
            loss: 0,
            hole_out: false,
            hole_in: false,
            generation: 0,
            metered: false,
            class: NetworkClass::Ethernet,
            busy: [Instant(0); 2],
        }
    }
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Runs,
    /// It is stopped: its kernel goes on.
    Stopped,
    /// There is none: its kernel refuses connections.
    Dead,
    /// It has closed everything and stands still: its kernel refuses connections.
    Frozen,
}

/// A process on a host.
#[derive(Debug)]
pub struct Node {
    /// The core.
    pub core: Endpoint,
    /// Counts the processes of this host.
    pub run: u32,
    /// What the store has been given.
    pub journal: Vec<JournalEntry>,
    /// How many of these records the store has confirmed.
    pub confirmed: usize,
    /// Records that were there when the process began.
    base: usize,
    /// How long the store takes.
    pub store_delay: Duration,
    /// The networks the host is attached to; none if it is another's ([`World::add_process`]).
    pub attachments: Vec<Attachment>,
    /// The process on whose host this one runs: itself, unless it was added beside another.
    pub host: usize,
    /// The host's clock runs this much faster, in parts per million.
    pub drift: i64,
    inputs: BTreeMap<PathNumber, BytesMut>,
    carriers: BTreeMap<PathNumber, usize>,
    wake: Option<Instant>,
    /// Whether it runs.
    pub life: Life,
    /// What its kernel has to tell a process that is stopped: carriers that ended, or were made.
    lost: Vec<(PathNumber, Loss)>,
    waiting: Vec<usize>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Wake(usize),
    Connected(usize),
    Reached(usize, u32, PathNumber),
    Refused(usize, u32, PathNumber),
    Flow(usize, usize),
    Break(usize, usize),
    Confirm(usize, u32, u64),
    Script(u64),
}

/// Everything.
#[derive(Debug)]
pub struct World {
    /// Virtual time.
    pub now: Instant,
    /// The world's own randomness.
    pub rng: Rng,
    /// The hosts.
    pub nodes: Vec<Node>,
    /// Any network reaches any other.
    pub routed: bool,
    carriers: Vec<Carrier>,
    queue: BinaryHeap<Reverse<(Instant, u64, What)>>,
    order: u64,
    /// Events of the cores that nobody has taken.
    pub events: Vec<(usize, Event)>,
    /// Steps so far.
    pub steps: u64,
    /// Steps without time passing, to notice a core that runs in circles.
    still: u64,
    /// Check the cores' invariants after every so many steps.
    pub check_every: u64,
    /// The other end hears of a reset when that has crossed the network, and not at once.
    pub resets_travel: bool,
    /// Bytes of messages that were given to carriers, if anybody wants to know.
    pub said: Option<Vec<Said>>,
}

/// Bytes of a message that were given to a carrier.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// The sending host and its network.
    pub from: (usize, usize),
    /// The other end.
    pub to: (usize, usize),
    /// Whose conversation.
    pub session: SessionId,
    /// Which message.
    pub id: MessageId,
}

/// A journal as a store leaves it that wrote it anew in the middle, and again at the end.
fn compacted(journal: &[JournalEntry]) -> Vec<JournalEntry> {
    let (before, after) = journal.split_at(journal.len() / 2);
    let mut digest = Digest::default();
    for entry in before {
        digest.take(entry.session, &entry.record);
    }
    let mut stored = Digest::default();
    let after = after.iter().map(|entry| (entry.session, entry.record.clone()));
    for (session, record) in digest.records().chain(after) {
        let mut bytes = Vec::new();
        record.encode(session, &mut bytes);
        let (session, record) = Record::decode(bytes.into()).expect("what was just written");
        stored.take(session, &record);
    }
    stored.entries().collect()
}

/// Who a host is.
#[must_use]
pub fn identity(host: usize) -> Fingerprint {
    Fingerprint([host as u8 + 1; 32])
}

impl World {
    /// A world without hosts.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            now: Instant(1_000_000_000),
            rng: Rng::new(seed),
            nodes: Vec::new(),
            routed: false,
            carriers: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
            events: Vec::new(),
            steps: 0,
            still: 0,
            check_every: 1,
            resets_travel: false,
            said: None,
        }
    }

    /// A new host with one process; returns its number.
    pub fn add_host(&mut self, config: Config, attachments: Vec<Attachment>) -> usize {
        self.add(config, attachments, self.nodes.len())
    }

    /// Another process on the host of one that is there, with its own identity and port: they share its networks, and
    /// what they queue there. Returns its number.
    pub fn add_process(&mut self, config: Config, beside: usize) -> usize {
        self.add(config, Vec::new(), self.nodes[beside].host)
    }

    fn add(&mut self, config: Config, attachments: Vec<Attachment>, on: usize) -> usize {
        let host = self.nodes.len();
        let seed = self.rng.seed();
        self.nodes.push(Node {
            core: Endpoint::new(config, identity(host), seed),
            run: 0,
            journal: Vec::new(),
            confirmed: 0,
            base: 0,
            store_delay: Duration::from_millis(2),
            attachments,
            host: on,
            drift: 0,
            inputs: BTreeMap::new(),
            carriers: BTreeMap::new(),
            wake: None,
            life: Life::Runs,
            lost: Vec::new(),
            waiting: Vec::new(),
        });
        self.tell_networks(host);
        host
    }

    /// The host's own clock.
    #[must_use]
    pub fn clock(&self, host: usize) -> Instant {
        let drift = self.nodes[host].drift;
        Instant((i128::from(self.now.0) * i128::from(1_000_000 + drift) / 1_000_000) as u64)
    }

    fn true_time(&self, host: usize, clock: Instant) -> Instant {
        let drift = i128::from(self.nodes[host].drift);
        Instant((i128::from(clock.0) * 1_000_000 / (1_000_000 + drift) + 1).min(i128::from(u64::MAX)) as u64)
    }

    fn ip(&self, host: usize, network: usize) -> IpAddr {
        let host = self.nodes[host].host;
        let generation = self.nodes[host].attachments[network].generation;
        Ipv4Addr::new(10, network as u8, generation, host as u8 + 1).into()
    }

    /// The port on which a process listens.
    fn port(&self, process: usize) -> u16 {
        PORT + (process - self.nodes[process].host) as u16
    }

    /// What its host is attached to.
    fn attachments(&self, process: usize) -> &[Attachment] {
        &self.nodes[self.nodes[process].host].attachments
    }

    /// Where a host is reached over a network.
    #[must_use]
    pub fn address(&self, host: usize, network: usize) -> SocketAddr {
        SocketAddr::new(self.ip(host, network), self.port(host))
    }

    fn locate(&self, address: SocketAddr) -> Option<(usize, usize)> {
        let all = (0..self.nodes.len()).flat_map(|h| (0..self.attachments(h).len()).map(move |a| (h, a)));
        all.into_iter().find(|(host, network)| self.address(*host, *network) == address)
    }

    /// A host's networks that are up, as its scout sees them.
    #[must_use]
    pub fn networks_of(&self, host: usize) -> Vec<Network> {
        self.attachments(host)
            .iter()
            .enumerate()
            .filter(|(_, attachment)| attachment.up)
            .map(|(network, attachment)| Network {
                id: NetworkId(network as u32 + 1),
                name: format!("net{network}"),
                class: attachment.class,
                metered: attachment.metered,
                cost: 0,
                port: self.port(host),
                addresses: vec![Address { ip: self.ip(host, network), prefix: 16 }],
            })
            .collect()
    }

    /// The host's scout looks again, for all its processes.
    pub fn networks_changed(&mut self, host: usize) {
        for process in 0..self.nodes.len() {
            if self.nodes[process].host == host {
                self.tell_networks(process);
            }
        }
    }

    fn tell_networks(&mut self, host: usize) {
        let networks = self.networks_of(host);
        let clock = self.clock(host);
        // Its own carriers on an interface that went down are gone at once.
        for index in 0..self.carriers.len() {
            for end in self.carriers[index].ends {
                if end.host == host && !self.attachments(host)[end.network].up {
                    self.break_carrier(index, host);
                }
            }
        }
        if self.nodes[host].life == Life::Runs {
            self.nodes[host].core.handle_networks(clock, networks);
        }
        self.pump(host);
    }

    /// The process dies, and stays dead until [`restart`](Self::restart).
    pub fn kill(&mut self, host: usize) {
        self.nodes[host].life = Life::Dead;
        for index in 0..self.carriers.len() {
            let side = self.carriers[index].ends.iter().position(|end| end.host == host);
            if let Some(side) = side.filter(|_| self.carriers[index].open) {
                self.nodes[host].carriers.retain(|_, carrier| *carrier != index);
                self.carriers[index].ends[side].path = None;
                if !self.drain(index, side) {
                    self.break_carrier(index, host);
                }
            }
        }
        let node = &mut self.nodes[host];
        node.lost.clear();
        for index in std::mem::take(&mut node.waiting) {
            // Its kernel took the connection; now it is reset.
            let opener = self.carriers[index].ends[0];
            if self.carriers[index].open && self.passes(host, self.carriers[index].ends[1].network, opener) {
                self.carriers[index].open = false;
                self.lose(opener, Loss::Ended);
            }
        }
    }

    /// The process stops: its kernel takes what comes, it answers nothing.
    pub fn stop(&mut self, host: usize) {
        if self.nodes[host].life == Life::Runs {
            self.nodes[host].life = Life::Stopped;
        }
    }

    /// The process closes what belongs to its kernel and stands still; what it had to say of that was said before.
    pub fn freeze(&mut self, host: usize) {
        if self.nodes[host].life != Life::Runs {
            return;
        }
        let clock = self.clock(host);
        self.nodes[host].core.handle_networks(clock, Vec::new());
        self.pump(host);
        self.break_all(host);
        let node = &mut self.nodes[host];
        node.life = Life::Frozen;
        node.inputs.clear();
        node.carriers.clear();
        node.lost.clear();
    }

    /// A frozen process goes on.
    pub fn thaw(&mut self, host: usize) {
        if self.nodes[host].life != Life::Frozen {
            return;
        }
        let clock = self.clock(host);
        self.nodes[host].life = Life::Runs;
        self.nodes[host].core.wake(clock);
        self.networks_changed(host);
    }

    /// A stopped process goes on.
    pub fn resume(&mut self, host: usize) {
        self.resume_with(host, false);
    }

    /// The same for one that looks at its clock before it reads what has come meanwhile: as one that was not given a
    /// processor, and not asked for it either.
    pub fn resume_late(&mut self, host: usize) {
        self.resume_with(host, true);
    }

    fn resume_with(&mut self, host: usize, clock_first: bool) {
        if self.nodes[host].life != Life::Stopped {
            return;
        }
        let clock = self.clock(host);
        let networks = self.networks_of(host);
        let node = &mut self.nodes[host];
        node.life = Life::Runs;
        node.core.handle_networks(clock, networks);
        if clock_first {
            node.core.handle_timeout(clock);
            self.pump(host);
        }
        let node = &mut self.nodes[host];
        for (path, input) in &mut node.inputs {
            while node.core.handle_data(clock, *path, input) {}
        }
        for path in node.carriers.keys() {
            node.core.handle_writable(clock, *path);
        }
        for (path, loss) in std::mem::take(&mut node.lost) {
            node.carriers.remove(&path);
            node.inputs.remove(&path);
            node.core.handle_carrier_lost(clock, path, loss);
        }
        let waiting = std::mem::take(&mut node.waiting);
        node.core.handle_timeout(clock);
        self.pump(host);
        for index in waiting {
            self.connected(index);
        }
    }

    fn break_all(&mut self, host: usize) {
        for index in 0..self.carriers.len() {
            if self.carriers[index].ends.iter().any(|end| end.host == host) {
                self.break_carrier(index, host);
            }
        }
    }

    fn at(&mut self, time: Instant, what: What) {
        self.order += 1;
        self.queue.push(Reverse((time.max(self.now), self.order, what)));
    }

    /// Calls back [`Step::Script`] with `tag` at `time`.
    pub fn script(&mut self, time: Instant, tag: u64) {
        self.at(time, What::Script(tag));
    }

    /// The process dies, and a new one starts from the first `keep` journal records (all sessions are lost at 0).
    pub fn restart(&mut self, host: usize, config: Config, keep: usize) {
        let seed = self.rng.seed();
        let clock = self.clock(host);
        self.break_all(host);
        let node = &mut self.nodes[host];
        node.run += 1;
        node.life = Life::Runs;
        node.lost.clear();
        node.waiting.clear();
        node.inputs.clear();
        node.carriers.clear();
        node.core = Endpoint::new(config, identity(host), seed);
        node.journal.truncate(keep);
        node.base = keep;
        node.confirmed = keep;
        // A process numbers its records anew; the store keeps them all, or what they come to.
        if node.run.is_multiple_of(2) {
            node.core.restore(clock, node.journal.clone());
        } else {
            node.core.restore(clock, compacted(&node.journal));
        }
        self.tell_networks(host);
    }

    /// One end learns that its carrier is gone; the other hears of it only if a packet gets through.
    fn break_carrier(&mut self, index: usize, host: usize) {
        if !std::mem::replace(&mut self.carriers[index].open, false) {
            return;
        }
        for side in 0..2 {
            let end = self.carriers[index].ends[side];
            let heard =
                end.host == host || self.passes(host, self.carriers[index].ends[1 - side].network, end);
            if heard {
                self.carriers[index].ends[side].path = None;
                self.lose(end, if end.host == host { Loss::Other } else { Loss::Ended });
            } else {
                // Half-open: that end finds out by silence. Its pipe swallows everything.
                self.carriers[index].ends[1 - side].path = None;
            }
        }
    }

    fn lose(&mut self, end: End, loss: Loss) {
        let clock = self.clock(end.host);
        let node = &mut self.nodes[end.host];
        if let Some(path) = end.path.filter(|_| node.run == end.run) {
            if node.life != Life::Runs {
                node.lost.push((path, loss));
                return;
            }
            node.carriers.remove(&path);
            node.inputs.remove(&path);
            node.core.handle_carrier_lost(clock, path, loss);
            self.wake_later(end.host);
        }
    }

    fn wake_later(&mut self, host: usize) {
        let now = self.now;
        self.at(now, What::Wake(host));
    }

    fn passes(&self, from: usize, from_network: usize, to: End) -> bool {
        let (a, b) = (&self.attachments(from)[from_network], &self.attachments(to.host)[to.network]);
        let joined = from_network == to.network || self.routed;
        joined && a.up && b.up && !a.hole_out && !b.hole_in
    }

    /// What becomes of a packet of `size` bytes that leaves now. `None` if it vanishes.
    fn cross(&mut self, from: End, to: End, size: usize) -> Option<Crossing> {
        if !self.passes(from.host, from.network, to) {
            return None;
        }
        let mut at = self.now;
        let mut lost = false;
        for (host, network, direction) in [(from.host, from.network, 0), (to.host, to.network, 1)] {
            let rng = &mut self.rng;
            let owner = self.nodes[host].host;
            let attachment = &mut self.nodes[owner].attachments[network];
            let busy = &mut attachment.busy[direction];
            *busy =
                (*busy).max(at) + Duration::from_nanos(size as u64 * 1_000_000_000 / attachment.rate.max(1));
            at = *busy + jittered(rng, attachment.delay, attachment.jitter);
            lost |= rng.range(0, 1000) < attachment.loss;
        }
        Some(Crossing { arrival: at, lost })
    }

    /// Drains a core: actions, bytes, records, events.
    pub fn pump(&mut self, host: usize) {
        if self.nodes[host].life != Life::Runs {
            return;
        }
        loop {
            let mut idle = true;
            while let Some(action) = self.nodes[host].core.poll_action() {
                idle = false;
                self.act(host, action);
            }
            while let Some(path) = self.nodes[host].core.poll_ready() {
                idle = false;
                self.transmit(host, path);
            }
            while let Some(entry) = self.nodes[host].core.poll_journal() {
                idle = false;
                let number = entry.number;
                let (run, delay) = (self.nodes[host].run, self.nodes[host].store_delay);
                self.nodes[host].journal.push(entry);
                let at = self.now + delay;
                self.at(at, What::Confirm(host, run, number));
            }
            while let Some(event) = self.nodes[host].core.poll_event() {
                self.events.push((host, event));
            }
            if idle {
                break;
            }
        }
        if let Some(timeout) = self.nodes[host].core.poll_timeout() {
            let at = self.true_time(host, timeout).max(self.now);
            if self.nodes[host].wake.is_none_or(|wake| at < wake || wake <= self.now) {
                self.nodes[host].wake = Some(at);
                self.at(at, What::Wake(host));
            }
        }
    }

    fn act(&mut self, host: usize, action: Action) {
        match action {
            Action::Connect { path, local, remote, .. } => {
                let network = local.0 as usize - 1;
                let Some((to, to_network)) = self.locate(remote) else { return };
                let run = self.nodes[host].run;
                let other = self.nodes[to].run;
                let ends = [
                    End { host, network, run, path: Some(path) },
                    End { host: to, network: to_network, run: other, path: None },
                ];
                // Two round trips: one for TCP, one for TLS. A lost packet is a lost attempt: the core tries again.
                let mut at = self.now;
                for (leg, (from, into)) in [(0, 1), (1, 0), (0, 1), (1, 0)].into_iter().enumerate() {
                    match self.cross(ends[from], ends[into], 100) {
                        Some(crossing) if !crossing.lost => at += crossing.arrival.since(self.now),
                        _ => return,
                    }
                    if leg == 1 && matches!(self.nodes[to].life, Life::Dead | Life::Frozen) {
                        return self.at(at, What::Refused(host, run, path));
                    } else if leg == 1 {
                        self.at(at, What::Reached(host, run, path));
                    }
                }
                let index = self.carriers.len();
                self.carriers.push(Carrier {
                    ends,
                    pipes: [Pipe::default(), Pipe::default()],
                    open: true,
                    closing: None,
                });
                self.nodes[host].carriers.insert(path, index);
                self.at(at, What::Connected(index));
            }
            Action::Close { path } | Action::Reset { path } => {
                if let Some(index) = self.nodes[host].carriers.remove(&path) {
                    self.nodes[host].inputs.remove(&path);
                    let side = usize::from(self.carriers[index].ends[0].host != host);
                    self.carriers[index].ends[side].path = None;
                    if !matches!(action, Action::Close { .. }) || !self.drain(index, side) {
                        self.reset(index, side);
                    }
                }
            }
            Action::Examine { path } => {
                let examination = self.examine(host, path);
                let clock = self.clock(host);
                self.nodes[host].core.handle_examined(clock, path, examination);
            }
            _ => {}
        }
    }

    /// What was written before a close still arrives, and then the other end hears of it; whether there is such.
    fn drain(&mut self, index: usize, side: usize) -> bool {
        let left = !self.carriers[index].pipes[side].is_empty();
        if left {
            self.carriers[index].closing = Some(side);
            self.flow(index, side);
        }
        left
    }

    /// One end has let go of its carrier.
    fn reset(&mut self, index: usize, side: usize) {
        let (own, other) = (self.carriers[index].ends[side], self.carriers[index].ends[1 - side]);
        let crossing = if self.resets_travel { self.cross(own, other, 100) } else { None };
        match crossing {
            // What was said before arrives before.
            Some(crossing) => {
                let after = self.carriers[index].pipes[side].last_arrival + Duration::from_nanos(1);
                self.at(crossing.arrival.max(after), What::Break(index, own.host));
            }
            None => self.break_carrier(index, own.host),
        }
    }

    /// What a host's kernel knows of a carrier.
    fn examine(&self, host: usize, path: PathNumber) -> Option<Examination> {
        let carrier = &self.carriers[*self.nodes[host].carriers.get(&path)?];
        let side = usize::from(carrier.ends[0].host != host);
        let (own, other) = (carrier.ends[side], carrier.ends[1 - side]);
        let pipe = &carrier.pipes[side];
        // Nothing was said yet but what opens the connection.
        let begins = carrier.ends[1].path.is_none();
        let back = self.passes(other.host, other.network, own);
        let unheard = (pipe.ack_lost || begins) && !back
            || begins && (!carrier.open || !self.passes(host, own.network, other));
        Some(Examination {
            unacknowledged: !pipe.is_empty() || unheard,
            stuck: false,
            last_ack: self.now.since(pipe.acked_at),
            last_data: self.now.since(carrier.pipes[1 - side].arrived_at),
        })
    }

    fn transmit(&mut self, host: usize, path: PathNumber) {
        let Some(index) = self.nodes[host].carriers.get(&path).copied() else { return };
        let clock = self.clock(host);
        let side = usize::from(self.carriers[index].ends[0].host != host);
        let mut out = Gather::default();
        loop {
            let pipe = &mut self.carriers[index].pipes[side];
            if pipe.room() == 0 {
                pipe.starving = true;
                self.nodes[host].core.handle_blocked(clock, path);
                break;
            }
            out.clear();
            let room = pipe.room().min(RECORD);
            if self.nodes[host].core.poll_transmit(clock, path, room, &mut out) == 0 {
                break;
            }
            let out = out.to_vec();
            self.carriers[index].pipes[side].push(&out);
            self.note_said(index, side, &out);
        }
        self.flow(index, side);
    }

    /// A core says whole frames at once, so that they can be read here.
    fn note_said(&mut self, index: usize, side: usize, out: &[u8]) {
        let Some(said) = &mut self.said else { return };
        let [from, to] = [side, 1 - side].map(|side| self.carriers[index].ends[side]);
        let mut input = BytesMut::from(out);
        while let Ok(Some(frame)) = Frame::decode(&mut input) {
            if let Frame::Data(data) = frame {
                let (from, to) = ((from.host, from.network), (to.host, to.network));
                said.push(Said { from, to, session: data.session, id: data.id });
            }
        }
    }

    /// Moves bytes of one direction on, and plans when to look again.
    fn flow(&mut self, index: usize, side: usize) {
        if !self.carriers[index].open && self.carriers[index].ends[side].path.is_none() {
            return;
        }
        let (from, to) = (self.carriers[index].ends[side], self.carriers[index].ends[1 - side]);
        let mut pipe = std::mem::take(&mut self.carriers[index].pipes[side]);
        let next = pipe.pump(self.now, &mut |size| self.cross(from, to, size));
        self.carriers[index].pipes[side] = pipe;
        let planned = &mut self.carriers[index].pipes[side].planned;
        if let Some(at) = next.filter(|at| planned.is_none_or(|planned| *at < planned)) {
            *planned = Some(at);
            self.at(at, What::Flow(index, side));
        }
    }

    fn deliver(&mut self, index: usize, side: usize) {
        self.carriers[index].pipes[side].planned.take_if(|planned| *planned <= self.now);
        let (from, to) = (self.carriers[index].ends[side], self.carriers[index].ends[1 - side]);
        let open = self.carriers[index].open && self.passes(from.host, from.network, to);
        let mut bytes = BytesMut::new();
        self.carriers[index].pipes[side].arrivals(self.now, open, &mut bytes);
        if !bytes.is_empty() {
            let acked = self.passes(to.host, to.network, from);
            let (now, pipe) = (self.now, &mut self.carriers[index].pipes[side]);
            pipe.arrived_at = now;
            pipe.ack_lost = !acked;
            if acked {
                pipe.acked_at = now;
            }
        }
        self.flow(index, side);
        if let Some(path) = to.path.filter(|_| !bytes.is_empty() && self.nodes[to.host].run == to.run) {
            let clock = self.clock(to.host);
            let node = &mut self.nodes[to.host];
            let input = node.inputs.entry(path).or_default();
            input.extend_from_slice(&bytes);
            while node.life == Life::Runs && node.core.handle_data(clock, path, input) {}
            self.pump(to.host);
        }
        if self.carriers[index].closing == Some(side) && self.carriers[index].pipes[side].is_empty() {
            self.break_carrier(index, from.host);
        }
        let pipe = &mut self.carriers[index].pipes[side];
        if pipe.starving && pipe.room() > 0 {
            pipe.starving = false;
            let runs = self.nodes[from.host].run == from.run && self.nodes[from.host].life == Life::Runs;
            if let Some(path) = from.path.filter(|_| runs) {
                let clock = self.clock(from.host);
                self.nodes[from.host].core.handle_writable(clock, path);
                self.pump(from.host);
            }
        }
    }

    fn runs(&self, host: usize, run: u32) -> bool {
        self.nodes[host].run == run && self.nodes[host].life == Life::Runs
    }

    fn connected(&mut self, index: usize) {
        let [opener, accepter] = self.carriers[index].ends;
        let stale = |end: End| self.nodes[end.host].run != end.run;
        if !self.carriers[index].open || stale(opener) || stale(accepter) {
            return;
        }
        let Some(path) = opener.path else { return };
        if let Some(end) = [opener, accepter].into_iter().find(|end| self.nodes[end.host].life != Life::Runs)
        {
            // Its kernel has done its part; the process says nothing yet.
            if self.nodes[end.host].life == Life::Stopped {
                self.nodes[end.host].waiting.push(index);
            }
            return;
        }
        let remote = self.address(opener.host, opener.network);
        let (clock, local) = (self.clock(accepter.host), self.ip(accepter.host, accepter.network));
        let network = NetworkId(accepter.network as u32 + 1);
        let node = &mut self.nodes[accepter.host];
        let accepted = node.core.handle_accepted(clock, network, local, remote, identity(opener.host));
        self.carriers[index].ends[1].path = accepted;
        if let Some(number) = accepted {
            self.nodes[accepter.host].carriers.insert(number, index);
        }
        let (clock, local) = (self.clock(opener.host), self.ip(opener.host, opener.network));
        self.nodes[opener.host].core.handle_connected(clock, path, local);
        for end in [opener, accepter] {
            let path = self.carriers[index].ends.iter().find(|e| e.host == end.host).and_then(|e| e.path);
            if let Some(path) = path {
                self.transmit(end.host, path);
            }
            self.pump(end.host);
        }
    }

    /// The next thing that happens; `None` when nothing will before `until`. `Some(tag)` for a script.
    pub fn step(&mut self, until: Instant) -> Step {
        let Some(Reverse((at, ..))) = self.queue.peek() else { return Step::Over };
        if *at > until {
            self.now = until;
            return Step::Over;
        }
        let Some(Reverse((at, _, what))) = self.queue.pop() else { return Step::Over };
        self.still = if at > self.now { 0 } else { self.still + 1 };
        assert!(self.still < 200_000, "time stands still: {what:?}");
        self.now = at;
        self.steps += 1;
        match what {
            What::Wake(host) => {
                if self.nodes[host].wake.is_some_and(|wake| wake <= self.now) {
                    self.nodes[host].wake = None;
                }
                if self.nodes[host].life == Life::Runs {
                    let clock = self.clock(host);
                    self.nodes[host].core.handle_timeout(clock);
                    self.pump(host);
                }
            }
            What::Reached(host, run, path) if self.runs(host, run) => {
                let clock = self.clock(host);
                self.nodes[host].core.handle_reached(clock, path);
                self.pump(host);
            }
            What::Refused(host, run, path) if self.runs(host, run) => {
                let clock = self.clock(host);
                self.nodes[host].core.handle_carrier_lost(clock, path, Loss::Refused);
                self.pump(host);
            }
            What::Reached(..) | What::Refused(..) => {}
            What::Connected(index) => self.connected(index),
            What::Flow(index, side) => self.deliver(index, side),
            What::Break(index, host) => self.break_carrier(index, host),
            What::Confirm(host, run, number) => {
                if self.nodes[host].run == run && self.nodes[host].life != Life::Dead {
                    let node = &mut self.nodes[host];
                    node.confirmed = node.base + number as usize;
                    let clock = self.clock(host);
                    self.nodes[host].core.handle_confirmed(clock, number);
                    self.pump(host);
                }
            }
            What::Script(tag) => return Step::Script(tag),
        }
        if self.check_every > 0 && self.steps.is_multiple_of(self.check_every) {
            self.nodes.iter().for_each(|node| node.core.check_invariants());
        }
        Step::Ran
    }
}

/// What [`World::step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something happened.
    Ran,
    /// A script's time has come.
    Script(u64),
    /// Nothing more until the given time.
    Over,
}
