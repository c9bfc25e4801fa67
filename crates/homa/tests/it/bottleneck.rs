//! Hosts on a switch with eight queues of strict priority, whose lowest loses most of what it gets for seconds: whatever it
//! does, a peer that lives is not given up while packets of the highest level get through.

use crate::hand::{config, ms};
use crate::network::Rng;
use core::time::Duration;
use std::collections::VecDeque;
use steadfast_homa::packet::{Dialect, Packet};
use steadfast_homa::{
    Call, Config, Event, Instant, LinkConfig, LinkId, Outcome, PeerConfig, PeerId, Transmit, Transport,
};

const HOSTS: usize = 4;
const PORT: u16 = 80;
const SEGMENT: u32 = 1378;
/// Headers below this crate's.
const OVERHEAD: u32 = 62;
/// What may wait at each level in front of a host, in bytes.
const QUEUE: u64 = 200_000;

struct Frame {
    from: usize,
    packet: Packet,
    payload: u32,
    bytes: u64,
}

/// What waits in front of a host.
#[derive(Default)]
struct Wire {
    queues: [VecDeque<Frame>; 8],
    waiting: [u64; 8],
    /// What is on the wire, and until when.
    first: Option<(Instant, Frame)>,
}

struct Host {
    core: Transport,
    link: LinkId,
    peers: Vec<PeerId>,
    from: u16,
    wire: Wire,
}

struct Rack {
    now: Instant,
    rng: Rng,
    rate: u64,
    /// In hundredths, of the lowest level.
    lost: u64,
    hosts: Vec<Host>,
    /// Lengths of the response, and the outcome.
    calls: Vec<(usize, Option<Outcome>)>,
}

impl Rack {
    fn new(seed: u64, rate: u64, dialect: Dialect, config: &Config) -> Self {
        let (now, mut rng) = (Instant(1_000_000_000), Rng(seed));
        let hosts = (0..HOSTS).map(|_| {
            let mut core = Transport::new(config.clone(), [rng.next() as u8; 32]);
            let link = core.add_link(LinkConfig { rate });
            let peer = PeerConfig { link, dialect, segment: SEGMENT, overhead: OVERHEAD };
            let peers = (0..HOSTS).map(|_| core.add_peer(now, peer).expect("room for a peer")).collect();
            core.bind(PORT).expect("a free port");
            let from = core.open_port().expect("a free port");
            Host { core, link, peers, from, wire: Wire::default() }
        });
        let hosts = hosts.collect();
        Self { now, rng, rate, lost: 0, hosts, calls: Vec::new() }
    }

    fn call(&mut self, client: usize, server: usize, request: usize, response: usize) {
        let host = &mut self.hosts[client];
        let call = Call {
            peer: host.peers[server],
            port: PORT,
            from: host.from,
            body: vec![0; request].into(),
            cookie: self.calls.len() as u64,
            deadline: None,
            max_response: u32::MAX,
        };
        host.core.request(self.now, call).expect("room for a request");
        self.calls.push((response, None));
        self.drain(client);
    }

    /// Lets time pass until `end`, or until every request has its outcome.
    fn run(&mut self, end: Instant) {
        while self.calls.iter().any(|(_, outcome)| outcome.is_none()) {
            let wires = self.hosts.iter().map(|host| host.wire.first.as_ref().map(|(at, _)| *at));
            let clocks = self.hosts.iter().map(|host| host.core.poll_timeout());
            let Some(at) = wires.chain(clocks).flatten().min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            for index in 0..HOSTS {
                let host = &mut self.hosts[index];
                let arrived = host.wire.first.take_if(|(at, _)| *at <= self.now);
                let arrives = arrived.is_some();
                if let Some((_, frame)) = arrived {
                    let peer = host.peers[frame.from];
                    let _placement = host.core.handle(self.now, peer, &frame.packet, frame.payload);
                    self.send_next(index);
                }
                let host = &mut self.hosts[index];
                if arrives || host.core.poll_timeout().is_some_and(|at| at <= self.now) {
                    host.core.handle_timeout(self.now);
                    self.drain(index);
                }
            }
        }
        self.now = end;
    }

    fn drain(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        while let Some(event) = host.core.poll_event() {
            match event {
                Event::Request { rpc, length, .. } => {
                    let response = if length % 2 == 0 { 8 } else { length as usize };
                    host.core.respond(self.now, rpc, vec![0; response].into()).expect("in service");
                }
                Event::Done { cookie, outcome, .. } => self.calls[cookie as usize].1 = Some(outcome),
                _ => {}
            }
        }
        let link = host.link;
        while let Some(transmit) = self.hosts[index].core.poll_transmit(self.now, link, SEGMENT) {
            self.enter(index, &transmit);
        }
    }

    fn enter(&mut self, from: usize, transmit: &Transmit) {
        let to = self.hosts[from].peers.iter().position(|peer| *peer == transmit.peer()).expect("a host");
        let level = usize::from(transmit.priority());
        let (packet, payload) = match transmit {
            Transmit::Data(run) => (run.header(0), run.payload.len() as u32),
            Transmit::Control { packet, .. } => (*packet, 0),
        };
        if level == 0 && self.rng.chance(self.lost) {
            return;
        }
        let mut header = Vec::new();
        packet.encode(&mut header);
        let bytes = header.len() as u64 + u64::from(payload + OVERHEAD);
        let wire = &mut self.hosts[to].wire;
        if wire.waiting[level] + bytes <= QUEUE {
            wire.waiting[level] += bytes;
            wire.queues[level].push_back(Frame { from, packet, payload, bytes });
        }
        self.send_next(to);
    }

    /// The highest level first.
    fn send_next(&mut self, to: usize) {
        let wire = &mut self.hosts[to].wire;
        if wire.first.is_some() {
            return;
        }
        let next = (0..8).rev().find_map(|level| Some((level, wire.queues[level].pop_front()?)));
        if let Some((level, frame)) = next {
            wire.waiting[level] -= frame.bytes;
            let takes = Duration::from_nanos(frame.bytes * 8_000_000_000 / self.rate);
            wire.first = Some((self.now + takes, frame));
        }
    }
}

fn settings() -> Config {
    config!(
        unscheduled: 10_000,
        max_incoming: 80_000,
        grant_fifo_increment: 10_000,
        timeout: ms(500),
        max_backlog: ms(2),
        cutoff_messages: 100,
    )
}

/// One seed: one request of the greatest length beside long and many short ones, while the lowest level loses most.
fn play(seed: u64, dialect: Dialect) {
    let mut rng = Rng(seed);
    let rate = [20_000_000, 50_000_000, 100_000_000][rng.range(0, 3) as usize];
    let mut rack = Rack::new(seed, rate, dialect, &settings());
    let most = if dialect == Dialect::Linux { 1_000_000 } else { 16 << 20 };
    rack.call(0, 1, most, 8);
    // So many requests of 30,000 bytes are half of what the wires carry.
    let gap = 30_000 * 8 * 1_000_000 / (rate / 2) / HOSTS as u64;
    let (start, lasts) = (rack.now, Duration::from_secs(4));
    while rack.now.since(start) < lasts {
        let since = rack.now.since(start);
        rack.lost = if since > ms(300) && since < ms(3500) { 50 + seed % 41 } else { 0 };
        let client = rng.range(0, HOSTS as u64) as usize;
        let server = (client + rng.range(1, HOSTS as u64) as usize) % HOSTS;
        let length = match rng.range(0, 100) {
            0..70 => rng.range(1, 2000),
            70..97 => rng.range(2000, 60_000),
            _ => rng.range(60_000, 1_000_000),
        };
        rack.call(client, server, length as usize, 8);
        let next = rack.now + Duration::from_micros(rng.range(0, 2 * gap));
        rack.run(next);
    }
    rack.lost = 0;
    let end = rack.now + Duration::from_secs(300);
    rack.run(end);
    let failed =
        |(_, (_, outcome)): &(usize, &(usize, Option<Outcome>))| *outcome != Some(Outcome::Delivered);
    let failed: Vec<_> = rack.calls.iter().enumerate().filter(failed).collect();
    assert!(failed.is_empty(), "seed {seed}, {dialect:?}, of {}: {failed:?}", rack.calls.len());
    for host in &rack.hosts {
        host.core.check_invariants();
    }
}

#[test]
fn a_lowest_level_that_loses_most_for_seconds_ends_nothing() {
    let seeds = std::env::var("STEADFAST_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    for seed in 0..seeds {
        play(seed * 7, Dialect::Steadfast);
        play(seed * 7, Dialect::Linux);
    }
}
