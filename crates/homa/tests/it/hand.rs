//! One transport whose peers are played by hand, packet by packet.

use core::time::Duration;
use steadfast_homa::packet::{Ack, Acks, Body, Data, Dialect, Packet};
use steadfast_homa::{
    Call, Config, Event, Instant, LinkConfig, LinkId, PeerConfig, PeerId, Placement, RpcId, Transmit,
    Transport,
};

/// The default settings with some changed.
macro_rules! config {
    ($($name:ident: $value:expr),* $(,)?) => {{
        let mut config = steadfast_homa::Config::default();
        $(config.$name = $value;)*
        config
    }};
}
pub(crate) use config;

/// The port of the transport's server.
pub(crate) const SERVER: u16 = 99;
/// The port that the peers call from.
pub(crate) const CLIENT: u16 = 0x8001;
/// Payload bytes of a packet.
pub(crate) const SEGMENT: u32 = 1000;

pub(crate) struct Hand {
    pub(crate) core: Transport,
    pub(crate) now: Instant,
    pub(crate) link: LinkId,
    pub(crate) peer: PeerId,
    /// The port that the transport calls from.
    pub(crate) from: u16,
}

pub(crate) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(crate) const fn us(count: u64) -> Duration {
    Duration::from_micros(count)
}

impl Hand {
    pub(crate) fn new(config: Config) -> Self {
        Self::speaking(Dialect::Linux, config)
    }

    pub(crate) fn speaking(dialect: Dialect, config: Config) -> Self {
        let now = Instant(1_000_000_000);
        let mut core = Transport::new(config, [5; 32]);
        let link = core.add_link(LinkConfig { rate: 0 });
        let peer = PeerConfig { link, dialect, segment: SEGMENT, overhead: 62 };
        let peer = core.add_peer(now, peer).expect("room for a peer");
        core.bind(SERVER).expect("a free port");
        let from = core.open_port().expect("a free port");
        Self { core, now, link, peer, from }
    }

    pub(crate) fn another_peer(&mut self) -> PeerId {
        let peer = PeerConfig { link: self.link, dialect: Dialect::Linux, segment: SEGMENT, overhead: 62 };
        self.core.add_peer(self.now, peer).expect("room for a peer")
    }

    pub(crate) fn call(&mut self, length: usize) -> RpcId {
        let call = Call {
            peer: self.peer,
            port: 7,
            from: self.from,
            body: vec![1; length].into(),
            cookie: 42,
            deadline: None,
            max_response: u32::MAX,
        };
        self.core.request(self.now, call).expect("room for a request")
    }

    /// A packet of the peer that is about one of its requests.
    pub(crate) fn asks(&mut self, id: u64, body: Body) -> Option<Placement> {
        self.arrives(Packet { source: CLIENT, destination: SERVER, sender_id: id, body }, 0)
    }

    /// A packet of the peer that is about one of our requests; `id` is ours.
    pub(crate) fn answers(&mut self, id: u64, body: Body) -> Option<Placement> {
        let destination = self.from;
        self.arrives(Packet { source: 7, destination, sender_id: id | 1, body }, 0)
    }

    pub(crate) fn arrives(&mut self, packet: Packet, payload: u32) -> Option<Placement> {
        self.arrives_from(self.peer, packet, payload)
    }

    pub(crate) fn arrives_from(&mut self, peer: PeerId, packet: Packet, payload: u32) -> Option<Placement> {
        // Through the codec, as on a wire.
        let mut bytes = Vec::new();
        packet.encode(&mut bytes);
        bytes.resize(bytes.len() + payload as usize, 0);
        let placement = self.core.handle_packet(self.now, peer, &bytes);
        self.core.check_invariants();
        placement
    }

    /// Bytes of the peer's request `id`, all unscheduled.
    pub(crate) fn request(&mut self, id: u64, length: u32, offset: u32, payload: u32) -> Option<Placement> {
        self.request_of(self.peer, id, length, length, offset, payload)
    }

    pub(crate) fn request_of(
        &mut self,
        peer: PeerId,
        id: u64,
        length: u32,
        incoming: u32,
        offset: u32,
        payload: u32,
    ) -> Option<Placement> {
        let data = Data { length, incoming, offset, ..data() };
        let packet = Packet { source: CLIENT, destination: SERVER, sender_id: id, body: Body::Data(data) };
        self.arrives_from(peer, packet, payload)
    }

    /// Bytes of the peer's response to our request `id`.
    pub(crate) fn response(
        &mut self,
        id: u64,
        length: u32,
        incoming: u32,
        offset: u32,
        payload: u32,
    ) -> Option<Placement> {
        let data = Data { length, incoming, offset, ..data() };
        let destination = self.from;
        let packet = Packet { source: 7, destination, sender_id: id | 1, body: Body::Data(data) };
        self.arrives(packet, payload)
    }

    /// All packets that leave now, with how many bytes of payload and at which level.
    pub(crate) fn leaving(&mut self) -> Vec<(Packet, usize, u8)> {
        let mut all = Vec::new();
        while let Some(transmit) = self.core.poll_transmit(self.now, self.link, 65_536) {
            let priority = transmit.priority();
            match transmit {
                Transmit::Data(run) => {
                    for index in 0..run.packets() {
                        all.push((run.header(index), run.payload(index).len(), priority));
                    }
                }
                Transmit::Control { packet, .. } => all.push((packet, 0, priority)),
            }
        }
        self.core.check_invariants();
        all
    }

    /// All packets that leave now, but CUTOFFS.
    pub(crate) fn says(&mut self) -> Vec<Body> {
        let all = self.leaving().into_iter().map(|(packet, ..)| packet.body);
        all.filter(|body| !matches!(body, Body::Cutoffs { .. })).collect()
    }

    /// The same, but DATA.
    pub(crate) fn replies(&mut self) -> Vec<Body> {
        self.says().into_iter().filter(|body| !matches!(body, Body::Data(_))).collect()
    }

    /// Offsets of DATA that leaves now.
    pub(crate) fn offsets(&mut self) -> Vec<u32> {
        let offset = |body| match body {
            Body::Data(data) => Some(data.offset),
            _ => None,
        };
        self.says().into_iter().filter_map(offset).collect()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.core.poll_event()).collect()
    }

    /// The request that was announced last.
    pub(crate) fn announced(&mut self) -> RpcId {
        let mut requests = self.events().into_iter().filter_map(|event| match event {
            Event::Request { rpc, .. } => Some(rpc),
            _ => None,
        });
        requests.next_back().expect("a request was announced")
    }

    pub(crate) fn respond(&mut self, rpc: RpcId, length: usize) {
        self.core.respond(self.now, rpc, vec![2; length].into()).expect("a request in service");
    }

    /// Lets time pass, timers included; returns what was said meanwhile, but DATA and CUTOFFS.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<Body> {
        let end = self.now + time;
        let mut said = self.replies();
        while let Some(at) = self.core.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.core.handle_timeout(self.now);
            said.extend(self.replies());
        }
        self.now = end;
        self.core.handle_timeout(end);
        said.extend(self.replies());
        said
    }

    /// The id of our only request, as its packets carry it.
    pub(crate) fn id_of_call(&mut self) -> u64 {
        let all = self.leaving();
        all.iter().find(|(packet, ..)| matches!(packet.body, Body::Data(_))).expect("DATA leaves").0.sender_id
    }
}

/// DATA that says nothing in particular.
pub(crate) const fn data() -> Data {
    Data { length: 0, incoming: 0, ack: None, cutoff_version: 0, retransmit: false, offset: 0 }
}

/// An ACK of the header's RPC alone.
pub(crate) fn ack() -> Body {
    Body::Ack(Acks::new())
}

pub(crate) const fn ack_of(client_id: u64) -> Ack {
    Ack { client_id, server_port: SERVER }
}
