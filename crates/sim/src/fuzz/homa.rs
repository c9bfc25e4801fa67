//! Fuzz targets for the Homa core: its codec, and a transport whose peers say anything in any order.

use crate::rng::Rng;
use core::time::Duration;
use steadfast_homa::packet::{Ack, Acks, Body, Data, Dialect, MAX_ACKS, Packet, RESEND_ALL, Refusal, split};
use steadfast_homa::{
    Call, Config, Event, LinkConfig, LinkId, PeerConfig, PeerId, RpcId, Transmit, Transport,
};
use steadfast_wire::Instant;

/// Reads any bytes as a packet of either dialect; what was read must be written and read back alike.
pub fn packets(data: &[u8]) {
    for dialect in [Dialect::Linux, Dialect::Steadfast] {
        if let Ok(all) = split(dialect, data, 100) {
            let payload: usize = all.map(|(_, payload)| payload.len()).sum();
            assert!(payload <= data.len(), "no byte is read twice");
        }
        if let Ok(packet) = Packet::decode(dialect, data) {
            let mut again = Vec::new();
            packet.encode(&mut again);
            assert_eq!(again.len(), packet.kind().header(), "as long as its type");
            assert_eq!(Packet::decode(dialect, &again), Ok(packet), "written and read back");
        }
    }
}

const SERVER: u16 = 80;
/// Longer than any packet that matters here.
const MAX_PACKET: usize = 120;

/// A transport under small limits, and what its application remembers.
struct Victim {
    now: Instant,
    core: Transport,
    link: LinkId,
    peers: [PeerId; 2],
    from: u16,
    /// Ids of our requests, as seen on the wire.
    ids: Vec<u64>,
    rpcs: Vec<RpcId>,
    requests: Vec<RpcId>,
    /// Requests without an outcome.
    open: usize,
}

/// Two peers that say any bytes at any time, while the application calls, answers and cancels. Nothing may panic, every
/// bound must hold, each request gets one outcome.
///
/// The input is a sequence of steps: a byte that says what happens, for a packet its length and its bytes.
pub fn hostile(data: &[u8]) {
    let mut victim =
        Victim::new(if data.len().is_multiple_of(2) { Dialect::Linux } else { Dialect::Steadfast });
    let mut input = data;
    while let Some((step, rest)) = input.split_first() {
        input = rest;
        match step {
            0..=199 => {
                let length = rest.first().map_or(0, |length| usize::from(*length)).min(MAX_PACKET);
                let bytes = rest.get(1..).unwrap_or_default();
                let (packet, rest) = bytes.split_at(length.min(bytes.len()));
                victim.packet(usize::from(*step) % 2, packet);
                input = rest;
            }
            200..=219 => victim.pass(Duration::from_micros(1 << (step - 200))),
            220..=231 => victim.call(usize::from(*step - 219)),
            232..=243 => victim.respond(usize::from(*step - 231)),
            244..=247 => {
                if let Some(rpc) = victim.rpcs.pop() {
                    victim.core.cancel(rpc);
                }
            }
            248 => victim.core.handle_restart(victim.peers[0]),
            249 => victim.core.handle_unreachable(victim.peers[1], Some(7)),
            250 => {
                if let Some(rpc) = victim.requests.pop() {
                    victim.core.abandon(rpc);
                }
            }
            _ => victim.pass(Duration::from_millis(150)),
        }
        victim.drain();
    }
    // All that is under way ends by silence, whatever was said before; a response that waits for grants last.
    victim.requests.drain(..).for_each(|rpc| victim.core.abandon(rpc));
    for _ in 0..260 {
        victim.pass(Duration::from_millis(50));
        victim.drain();
        victim.requests.drain(..).for_each(|rpc| victim.core.abandon(rpc));
    }
    assert_eq!(victim.open, 0, "every request has its outcome");
    let (clients, servers) = victim.core.rpcs();
    assert_eq!((clients, servers), (0, 0), "nothing is left");
}

impl Victim {
    fn new(dialect: Dialect) -> Self {
        let now = Instant(1_000_000_000);
        let mut config = Config::default();
        config.max_server_rpcs = 5;
        config.max_peer_rpcs = 3;
        config.max_client_rpcs = 8;
        config.max_message = 900_000;
        config.max_held = 1_000_000;
        config.max_peer_held = 950_000;
        config.max_kept = 500_000;
        config.max_peer_kept = 100_000;
        config.max_gaps = 4;
        config.max_control = 16;
        config.max_ports = 4;
        config.cutoff_messages = 3;
        config.cutoff_interval = Duration::from_millis(1);
        config.unscheduled = 2000;
        let mut core = Transport::new(config, [7; 32]);
        let link = core.add_link(LinkConfig { rate: 1_000_000_000 });
        let peer = PeerConfig { link, dialect, segment: 500, overhead: 62 };
        let mut add = || core.add_peer(now, peer).unwrap_or_else(|error| panic!("{error}"));
        let peers = [add(), add()];
        let from = core.open_port().unwrap_or_else(|error| panic!("{error}"));
        core.bind(SERVER).unwrap_or_else(|error| panic!("{error}"));
        let (ids, rpcs, requests) = (Vec::new(), Vec::new(), Vec::new());
        Self { now, core, link, peers, from, ids, rpcs, requests, open: 0 }
    }

    fn packet(&mut self, peer: usize, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        // Ours are random; small odd ids mean one of those that were seen.
        if let Some(id) = bytes.get_mut(20..28)
            && let Ok(number) = id.try_into().map(u64::from_be_bytes)
            && number < 16
            && number & 1 == 1
            && let Some(ours) = self.ids.get(number as usize / 2)
        {
            id.copy_from_slice(&(ours | 1).to_be_bytes());
        }
        if let Some(placement) = self.core.handle_packet(self.now, self.peers[peer], &bytes) {
            let end = placement.offset as usize + bytes.len() - 56;
            assert!(end <= placement.length as usize, "within its message");
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.core.handle_timeout(self.now);
    }

    fn call(&mut self, size: usize) {
        let call = Call {
            peer: self.peers[size % 2],
            port: 7,
            from: self.from,
            body: vec![0; size * size * 100].into(),
            cookie: 0,
            deadline: size.is_multiple_of(5).then(|| self.now + Duration::from_millis(20)),
            max_response: 100_000,
        };
        if let Ok(rpc) = self.core.request(self.now, call) {
            self.rpcs.push(rpc);
            self.open += 1;
        }
    }

    fn respond(&mut self, size: usize) {
        if let Some(rpc) = self.requests.first().copied()
            && self.core.respond(self.now, rpc, vec![0; size * size * 100].into()).is_ok()
        {
            self.requests.remove(0);
        }
    }

    fn drain(&mut self) {
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::Request { rpc, .. } => self.requests.push(rpc),
                Event::Cancelled { rpc } => self.requests.retain(|other| *other != rpc),
                Event::Done { rpc, .. } => {
                    self.rpcs.retain(|other| *other != rpc);
                    self.open -= 1;
                }
                _ => {}
            }
        }
        while let Some(transmit) = self.core.poll_transmit(self.now, self.link, 4000) {
            if let Transmit::Data(run) = &transmit {
                let id = run.packet.sender_id;
                if id & 1 == 0 && !self.ids.contains(&id) && self.ids.len() < 8 {
                    self.ids.push(id);
                }
            }
            let mut out = Vec::new();
            (0..transmit.packets()).for_each(|index| transmit.write(index, &mut out));
        }
        self.core.check_invariants();
    }
}

/// Steps that are well formed and make no sense, to reach further than random bytes do.
#[must_use]
pub fn plausible(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..rng.range(1, 80) {
        if rng.chance(30) {
            out.push(rng.range(200, 252) as u8);
            continue;
        }
        let mut bytes = Vec::new();
        let body = body(rng);
        let sender_id = match rng.range(0, 10) {
            0..=4 => rng.range(1, 7),
            5..=8 => rng.range(1, 60),
            _ => rng.next(),
        };
        let destination = if rng.chance(90) { SERVER } else { rng.next() as u16 };
        Packet { source: 7, destination, sender_id, body }.encode(&mut bytes);
        if matches!(body, Body::Data(_)) {
            bytes.resize(bytes.len() + rng.range(0, 60) as usize, 0);
        }
        out.extend([rng.range(0, 200) as u8, bytes.len() as u8]);
        out.extend(bytes);
    }
    out
}

fn body(rng: &mut Rng) -> Body {
    let offset = match rng.range(0, 4) {
        0 => 0,
        1 => rng.range(0, 200) as u32,
        2 => rng.range(0, 20_000) as u32,
        _ => rng.next() as u32,
    };
    let priority = rng.next() as u8;
    let ack = |rng: &mut Rng| Ack { client_id: rng.range(0, 16), server_port: SERVER };
    match rng.range(0, 14) {
        0..=5 => Body::Data(Data {
            length: [40, 60, 200, 20_000, 900_000][rng.range(0, 5) as usize],
            incoming: rng.range(0, 30_000) as u32,
            ack: rng.chance(20).then(|| ack(rng)).filter(|ack| ack.client_id != 0),
            cutoff_version: rng.range(0, 3) as u16,
            retransmit: rng.chance(30),
            offset,
        }),
        6 => Body::Grant { offset, priority },
        7 => {
            let length = if rng.chance(30) { RESEND_ALL } else { rng.range(0, 5000) as u32 };
            Body::Resend { offset, length, priority }
        }
        8 => Body::Unknown,
        9 => Body::Busy,
        10 => Body::NeedAck,
        11 => {
            let mut acks = Acks::new();
            for _ in 0..rng.range(0, MAX_ACKS as u64 + 1) {
                acks.push(ack(rng));
            }
            Body::Ack(acks)
        }
        12 => {
            Body::Cutoffs { cutoffs: core::array::from_fn(|_| rng.next() as u32), version: rng.next() as u16 }
        }
        _ => Body::Refused(if rng.chance(50) { Refusal::NoSuchPort } else { Refusal::Gone }),
    }
}
