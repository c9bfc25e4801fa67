//! Hosts over a network in memory that loses, delays, repeats and reorders packets, and a model that knows what every
//! request became.

use core::time::Duration;
use std::collections::BTreeMap;
use steadfast_homa::packet::Dialect;
use steadfast_homa::{
    Call, Config, Event, Instant, LinkConfig, LinkId, Outcome, PeerConfig, PeerId, RpcId, Transport,
};

/// The generator `SplitMix64` (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `low..high`.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.range(0, 100) < percent
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        for chunk in seed.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.next().to_be_bytes());
        }
        seed
    }
}

/// What the network does to packets, in hundredths.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// Repeated much later: up to seconds.
    pub(crate) late: u64,
    /// At most so much later than others, in microseconds.
    pub(crate) jitter: u64,
}

struct Flight {
    from: usize,
    to: usize,
    /// Which processes sent it and are to get it.
    incarnations: (u32, u32),
    bytes: Vec<u8>,
}

struct Host {
    core: Transport,
    link: LinkId,
    peers: Vec<PeerId>,
    incarnation: u32,
    from: u16,
    /// Bodies that arrive.
    bodies: BTreeMap<RpcId, Vec<u8>>,
    /// Requests in service, until when and with which call.
    work: BTreeMap<(Instant, RpcId), usize>,
    /// Our requests.
    calls: BTreeMap<usize, RpcId>,
}

/// A request, and what became of it.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) client: usize,
    pub(crate) server: usize,
    response: usize,
    pub(crate) outcome: Option<Outcome>,
    /// Which processes of the server executed it.
    pub(crate) executions: Vec<u32>,
    /// Its client is another process now.
    pub(crate) orphaned: bool,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) dialect: Dialect,
    config: Config,
    rate: u64,
    segment: u32,
    hosts: Vec<Host>,
    wire: BTreeMap<(Instant, u64), Flight>,
    flights: u64,
    pub(crate) calls: Vec<Record>,
}

const PORT: u16 = 80;

/// The byte of a body at a place: every call and each direction have their own.
fn pattern(call: usize, response: bool, at: usize) -> u8 {
    (call.wrapping_mul(31) ^ at ^ (at >> 8) ^ (usize::from(response) * 85)) as u8
}

fn body(call: usize, response: bool, length: usize) -> Vec<u8> {
    let mut body: Vec<u8> = (0..length).map(|at| pattern(call, response, at)).collect();
    body[..8].copy_from_slice(&(call as u64).to_be_bytes());
    body
}

/// The call that a body belongs to, which must be whole and unchanged.
fn call_of(bytes: &[u8], response: bool) -> usize {
    let call = u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    assert!(bytes == body(call, response, bytes.len()), "a body of call {call} arrived changed");
    call
}

impl World {
    pub(crate) fn new(seed: u64, hosts: usize, dialect: Dialect, config: Config) -> Self {
        let rate = [0, 1_000_000_000, 10_000_000_000][Rng(seed).range(0, 3) as usize];
        Self::at(rate, seed, hosts, dialect, config)
    }

    /// With links of so many bits a second.
    pub(crate) fn at(rate: u64, seed: u64, hosts: usize, dialect: Dialect, config: Config) -> Self {
        let mut rng = Rng(seed ^ 0xa7);
        let segment = rng.range(200, 1500) as u32;
        let mut world = Self {
            now: Instant(1_000_000_000),
            rng,
            faults: Faults::default(),
            dialect,
            config,
            rate,
            segment,
            hosts: Vec::new(),
            wire: BTreeMap::new(),
            flights: 0,
            calls: Vec::new(),
        };
        world.hosts = (0..hosts).map(|_| world.host(hosts, 1)).collect();
        world
    }

    fn host(&mut self, hosts: usize, incarnation: u32) -> Host {
        let mut core = Transport::new(self.config.clone(), self.rng.seed());
        let link = core.add_link(LinkConfig { rate: self.rate });
        let peer = PeerConfig { link, dialect: self.dialect, segment: self.segment, overhead: 62 };
        let peers = (0..hosts).map(|_| core.add_peer(self.now, peer).expect("room for a peer")).collect();
        core.bind(PORT).expect("a free port");
        let from = core.open_port().expect("a free port");
        let (bodies, work, calls) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Host { core, link, peers, incarnation, from, bodies, work, calls }
    }

    pub(crate) fn call(&mut self, client: usize, server: usize, request: usize, response: usize) -> usize {
        let number = self.calls.len();
        let deadline =
            self.rng.chance(3).then(|| self.now + Duration::from_micros(self.rng.range(1, 50_000)));
        let host = &mut self.hosts[client];
        let call = Call {
            peer: host.peers[server],
            port: PORT,
            from: host.from,
            body: body(number, false, request).into(),
            cookie: number as u64,
            deadline,
            max_response: 1 << 24,
        };
        let mut record =
            Record { client, server, response, outcome: None, executions: Vec::new(), orphaned: false };
        match host.core.request(self.now, call) {
            Ok(rpc) => _ = host.calls.insert(number, rpc),
            // Refused at once: it surely was not executed.
            Err(_) => record.orphaned = true,
        }
        self.calls.push(record);
        self.drain(client);
        number
    }

    pub(crate) fn cancel(&mut self, call: usize) {
        let client = self.calls[call].client;
        if let Some(rpc) = self.hosts[client].calls.get(&call) {
            let rpc = *rpc;
            self.hosts[client].core.cancel(rpc);
            self.drain(client);
        }
    }

    /// The host's process dies and another takes its place.
    pub(crate) fn restart(&mut self, index: usize) {
        let incarnation = self.hosts[index].incarnation + 1;
        for call in self.hosts[index].calls.keys() {
            self.calls[*call].orphaned = true;
        }
        self.hosts[index] = self.host(self.hosts.len(), incarnation);
        // The module's protocol does not tell; an encrypted carrier does.
        if self.dialect == Dialect::Steadfast {
            for other in (0..self.hosts.len()).filter(|other| *other != index) {
                let host = &mut self.hosts[other];
                host.core.handle_restart(host.peers[index]);
                self.drain(other);
            }
        }
    }

    /// Lets time pass until `end`.
    pub(crate) fn run(&mut self, end: Instant) {
        loop {
            let flight = self.wire.first_key_value().map(|((at, _), _)| *at);
            let hosts = self.hosts.iter().map(|host| {
                let work = host.work.first_key_value().map(|((at, _), _)| *at);
                work.into_iter().chain(host.core.poll_timeout()).min()
            });
            let soonest = hosts.clone().flatten().chain(flight).min();
            let Some(at) = soonest.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            let due: Vec<usize> = hosts
                .enumerate()
                .filter(|(_, at)| at.is_some_and(|at| at <= self.now))
                .map(|(index, _)| index)
                .collect();
            if flight.is_some_and(|at| at <= self.now) {
                self.arrive();
            }
            for index in due {
                self.serve(index);
                self.hosts[index].core.handle_timeout(self.now);
                self.drain(index);
            }
        }
        self.now = end;
    }

    fn arrive(&mut self) {
        let Some((_, flight)) = self.wire.pop_first() else { return };
        let Flight { from, to, incarnations, bytes } = flight;
        let host = &mut self.hosts[to];
        let known = self.dialect == Dialect::Linux;
        if !known && (incarnations.1 != host.incarnation || incarnations.0 != self.hosts[from].incarnation) {
            // Encrypted for, or by, a process that is gone.
            return;
        }
        let host = &mut self.hosts[to];
        if let Some(placement) = host.core.handle_packet(self.now, host.peers[from], &bytes) {
            let body = host.bodies.entry(placement.rpc).or_default();
            assert_eq!(placement.first, body.is_empty(), "a message begins once");
            body.resize(placement.length as usize, 0);
            let payload = &bytes[56..];
            body[placement.offset as usize..][..payload.len()].copy_from_slice(payload);
        }
        self.drain(to);
    }

    /// Answers what was worked on long enough.
    fn serve(&mut self, index: usize) {
        while let Some(((at, rpc), call)) = self.hosts[index].work.pop_first() {
            if at > self.now {
                self.hosts[index].work.insert((at, rpc), call);
                return;
            }
            let host = &mut self.hosts[index];
            if self.rng.chance(2) {
                host.core.abandon(rpc);
            } else {
                let body = body(call, true, self.calls[call].response);
                // It may be cancelled by now, or nothing may be kept any more.
                if host.core.respond(self.now, rpc, body.into()).is_err() {
                    host.core.abandon(rpc);
                }
            }
        }
    }

    fn drain(&mut self, index: usize) {
        while let Some(event) = self.hosts[index].core.poll_event() {
            self.note(index, event);
        }
        let host = &mut self.hosts[index];
        host.core.check_invariants();
        while let Some(transmit) = host.core.poll_transmit(self.now, host.link, 20_000) {
            let to =
                host.peers.iter().position(|peer| *peer == transmit.peer()).expect("a peer of this host");
            for packet in 0..transmit.packets() {
                let mut bytes = Vec::new();
                transmit.write(packet, &mut bytes);
                if self.rng.chance(self.faults.lost) {
                    continue;
                }
                let copies = 1 + u64::from(self.rng.chance(self.faults.repeated));
                for copy in 0..copies + u64::from(self.rng.chance(self.faults.late)) {
                    let mut delay = Duration::from_micros(5 + self.rng.range(0, self.faults.jitter + 1));
                    if copy == copies {
                        delay += Duration::from_millis(self.rng.range(1, 2000));
                    }
                    self.flights += 1;
                    let incarnations = (host.incarnation, 0);
                    let flight = Flight { from: index, to, incarnations, bytes: bytes.clone() };
                    self.wire.insert((self.now + delay, self.flights), flight);
                }
            }
        }
        // For whom it is: only now, because the sender's host was borrowed.
        let incarnations: Vec<u32> = self.hosts.iter().map(|host| host.incarnation).collect();
        for flight in self.wire.values_mut().filter(|flight| flight.incarnations.1 == 0) {
            flight.incarnations.1 = incarnations[flight.to];
        }
    }

    fn note(&mut self, index: usize, event: Event) {
        let host = &mut self.hosts[index];
        match event {
            Event::Request { rpc, length, .. } => {
                let bytes = host.bodies.remove(&rpc).expect("its body was placed");
                assert_eq!(bytes.len(), length as usize);
                let call = call_of(&bytes, false);
                let record = &mut self.calls[call];
                assert_eq!(record.server, index);
                record.executions.push(host.incarnation);
                let takes = match self.rng.range(0, 10) {
                    0 => self.rng.range(0, 200_000),
                    1..=4 => self.rng.range(0, 5000),
                    _ => 0,
                };
                host.work.insert((self.now + Duration::from_micros(takes), rpc), call);
            }
            Event::Cancelled { rpc } => {
                let before = host.work.len();
                host.work.retain(|(_, other), _| *other != rpc);
                assert_eq!(host.work.len() + 1, before, "what is cancelled was announced");
            }
            Event::Discarded { rpc } => assert!(host.bodies.remove(&rpc).is_some(), "it had begun"),
            Event::Done { rpc, cookie, outcome, length } => {
                let call = cookie as usize;
                assert_eq!(host.calls.remove(&call), Some(rpc), "one outcome of call {call}");
                let record = &mut self.calls[call];
                assert_eq!(record.outcome.replace(outcome), None);
                let bytes = host.bodies.remove(&rpc);
                if outcome == Outcome::Delivered {
                    let bytes = bytes.expect("its body was placed");
                    assert_eq!((bytes.len(), bytes.len()), (length as usize, record.response));
                    assert_eq!(call_of(&bytes, true), call, "the response to this call");
                }
            }
            Event::Answered { .. } | Event::Room | Event::PeerSilent { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// What must be true of every call once nothing is under way.
    pub(crate) fn judge(&self) {
        for (number, call) in self.calls.iter().enumerate() {
            let mut executions = call.executions.clone();
            executions.dedup();
            assert_eq!(
                executions, call.executions,
                "call {number} was executed twice by one process: {call:?}"
            );
            if self.dialect == Dialect::Steadfast {
                assert!(executions.len() <= 1, "call {number} was executed by two processes: {call:?}");
            }
            match call.outcome {
                Some(Outcome::Delivered) => assert!(!executions.is_empty(), "call {number}: {call:?}"),
                Some(Outcome::Dropped(_)) => assert!(executions.is_empty(), "call {number}: {call:?}"),
                Some(Outcome::Unknown(_)) => {}
                None => assert!(call.orphaned, "call {number} has no outcome: {call:?}"),
            }
        }
        for (index, host) in self.hosts.iter().enumerate() {
            assert_eq!(host.core.rpcs(), (0, 0), "host {index} has nothing left");
            assert!(host.bodies.is_empty() && host.work.is_empty(), "host {index} keeps nothing");
        }
    }
}
