//! What a host runs: it is given messages and frames, and asked for the next frame whenever its link is idle.

use crate::topology::Topology;
use bytes::Bytes;
use std::collections::VecDeque;
use steadfast_homa::packet::{Acks, Body, DATA_HEADER, Data, Dialect, Packet};
use steadfast_homa::{
    Call, Config, Event, Instant, LinkConfig, LinkId, Metrics, PeerConfig, PeerId, RpcId, Transmit, Transport,
};

/// The longest message of all workloads.
const LONGEST: usize = 30_000_000;
/// What all messages consist of.
static BODY: [u8; LONGEST] = [0; LONGEST];
/// Requests are taken here.
const PORT: u16 = 1;
/// Bytes of a response.
const RESPONSE: usize = 100;
/// No message: a frame without payload of a request.
const NONE: u32 = u32::MAX;

/// A frame in the network.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) level: u8,
    /// On the wire.
    pub(crate) bytes: u32,
    pub(crate) payload: u32,
    /// The message whose payload it carries.
    message: u32,
    what: What,
}

impl Frame {
    /// Whether its payload is that of a message, and not of a response.
    pub(crate) const fn is_of_message(&self) -> bool {
        self.message != NONE
    }
}

/// What a frame says.
#[derive(Debug, Clone)]
enum What {
    Homa(Packet),
    /// Some of a message of this length.
    Plain(u32),
}

/// What a frame, or time, did to messages of the host that sent them or is to have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is whole at its destination.
    Completed(u32),
    /// Its sender gave up.
    Failed(u32),
}

#[derive(Debug)]
pub(crate) enum Station {
    Homa(Box<Homa>),
    Queue(Queue),
}

impl Station {
    pub(crate) fn submit(&mut self, now: u64, message: u32, to: u16, length: u32) {
        match self {
            Self::Homa(homa) => homa.submit(now, message, to, length),
            Self::Queue(queue) => queue.waiting.push_back(Sending { message, to, length, left: length }),
        }
    }

    pub(crate) fn receive(&mut self, now: u64, frame: &Frame) -> Vec<Outcome> {
        match self {
            Self::Homa(homa) => homa.receive(now, frame),
            Self::Queue(queue) => queue.receive(frame).into_iter().collect(),
        }
    }

    /// Whether it knows of a message to it whose turn to be granted has not come.
    pub(crate) fn withholds(&self) -> bool {
        match self {
            Self::Homa(homa) => homa.core.withheld(homa.link) > 0,
            Self::Queue(_) => false,
        }
    }

    /// What its core counted.
    pub(crate) fn metrics(&self) -> Option<&Metrics> {
        match self {
            Self::Homa(homa) => Some(homa.core.metrics()),
            Self::Queue(_) => None,
        }
    }

    /// When it is to be asked for its next frame, after it had none.
    pub(crate) fn wakes_at(&self) -> Option<u64> {
        match self {
            Self::Homa(homa) => homa.core.poll_link(homa.link).map(|at| at.0.saturating_mul(1000)),
            Self::Queue(_) => None,
        }
    }

    pub(crate) fn next(&mut self, now: u64, topology: &Topology) -> Option<Frame> {
        match self {
            Self::Homa(homa) => homa.next(now, topology),
            Self::Queue(queue) => queue.next(topology),
        }
    }

    /// The receiver has a message of this sender whole.
    pub(crate) fn acknowledged(&mut self, message: u32) {
        if let Self::Homa(homa) = self
            && !homa.answers
            && let Some(rpc) = homa.open.remove(&message)
        {
            homa.core.cancel(rpc);
            while homa.core.poll_event().is_some() {}
        }
    }

    pub(crate) fn tick(&mut self, now: u64) -> Vec<Outcome> {
        match self {
            Self::Homa(homa) => {
                homa.core.handle_timeout(moment(now));
                homa.events(now, NONE)
            }
            Self::Queue(_) => Vec::new(),
        }
    }
}

fn moment(now: u64) -> Instant {
    Instant(now / 1000)
}

/// A host with the core that ships.
#[derive(Debug)]
pub(crate) struct Homa {
    me: u16,
    core: Transport,
    link: LinkId,
    peers: Vec<PeerId>,
    from: u16,
    /// Requests are answered, and all is said over the network.
    answers: bool,
    /// Messages by the index of their RPC.
    messages: Vec<u32>,
    open: std::collections::BTreeMap<u32, RpcId>,
}

impl Homa {
    pub(crate) fn new(
        me: u16,
        topology: &Topology,
        config: &Config,
        seed: [u8; 32],
        answers: bool,
    ) -> Result<Self, String> {
        let mut core = Transport::new(config.clone(), seed);
        // Where nothing is to be paced, the link asks when it is idle.
        let link = core.add_link(LinkConfig { rate: if answers { topology.host_rate } else { 0 } });
        let overhead = topology.data_overhead.saturating_sub(DATA_HEADER as u32);
        let peer = PeerConfig { link, dialect: Dialect::Steadfast, segment: topology.segment, overhead };
        let add = |_| core.add_peer(Instant(0), peer).map_err(|error| error.to_string());
        let peers = (0..topology.hosts()).map(add).collect::<Result<_, _>>()?;
        core.bind(PORT).map_err(|error| error.to_string())?;
        let from = core.open_port().map_err(|error| error.to_string())?;
        let (messages, open) = (Vec::new(), std::collections::BTreeMap::new());
        Ok(Self { me, core, link, peers, from, answers, messages, open })
    }

    /// Learns of another host's cut-offs, as if both had talked for long; false if it was not told.
    pub(crate) fn meet(&mut self, other: &mut Self) -> bool {
        // Half a request, which is given up again.
        let half =
            Data { length: 2, incoming: 2, ack: None, cutoff_version: 0, retransmit: false, offset: 0 };
        let packet = Packet { source: PORT, destination: PORT, sender_id: 2, body: Body::Data(half) };
        let me = other.peers[usize::from(self.me)];
        other.core.handle(Instant(0), me, &packet, 1);
        other.core.handle(Instant(0), me, &Packet { body: Body::Ack(Acks::new()), ..packet }, 0);
        while other.core.poll_event().is_some() {}
        let mut told = false;
        while let Some(Transmit::Control { packet, .. }) = other.core.poll_transmit(Instant(0), other.link, 1)
        {
            if let Body::Cutoffs { .. } = packet.body {
                let peer = self.peers[usize::from(other.me)];
                self.core.handle(Instant(0), peer, &packet, 0);
                told = true;
            }
        }
        told
    }

    fn submit(&mut self, now: u64, message: u32, to: u16, length: u32) {
        let call = Call {
            peer: self.peers[usize::from(to)],
            port: PORT,
            from: self.from,
            body: Bytes::from_static(&BODY).slice(..(length as usize).min(LONGEST)),
            cookie: u64::from(message),
            deadline: None,
            max_response: RESPONSE as u32,
        };
        let rpc = self.core.request(moment(now), call);
        let rpc = rpc.unwrap_or_else(|error| panic!("the simulator's limits are too tight: {error}"));
        if self.messages.len() <= rpc.index() {
            self.messages.resize(rpc.index() + 1, NONE);
        }
        self.messages[rpc.index()] = message;
        self.open.insert(message, rpc);
    }

    fn receive(&mut self, now: u64, frame: &Frame) -> Vec<Outcome> {
        let What::Homa(packet) = &frame.what else { return Vec::new() };
        let from = self.peers[usize::from(frame.from)];
        self.core.handle(moment(now), from, packet, frame.payload);
        self.events(now, frame.message)
    }

    /// What has happened; `message` is that of the frame that made it happen.
    fn events(&mut self, now: u64, message: u32) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::Request { rpc, .. } => {
                    outcomes.push(Outcome::Completed(message));
                    let body = Bytes::from_static(&BODY).slice(..RESPONSE);
                    if !self.answers || self.core.respond(moment(now), rpc, body).is_err() {
                        // Its client hears of it outside of the network, or not at all.
                        self.core.abandon(rpc);
                    }
                }
                Event::Done { cookie, outcome, .. } => {
                    self.open.remove(&(cookie as u32));
                    if outcome != steadfast_homa::Outcome::Delivered {
                        outcomes.push(Outcome::Failed(cookie as u32));
                    }
                }
                _ => {}
            }
        }
        outcomes
    }

    fn next(&mut self, now: u64, topology: &Topology) -> Option<Frame> {
        loop {
            let transmit = self.core.poll_transmit(moment(now), self.link, 1)?;
            let to = transmit.peer().index() as u16;
            let level = transmit.priority();
            let (from, control) = (self.me, topology.control);
            match transmit {
                Transmit::Data(run) => {
                    let payload = run.payload.len() as u32;
                    let request = run.packet.sender_id & 1 == 0;
                    let message = self.messages.get(run.rpc.index()).copied().filter(|_| request);
                    let message = message.unwrap_or(NONE);
                    let what = What::Homa(run.packet);
                    return Some(Frame {
                        from,
                        to,
                        level,
                        bytes: topology.wire(payload),
                        payload,
                        message,
                        what,
                    });
                }
                // These say what both sides know here already.
                Transmit::Control { packet, .. }
                    if !self.answers && matches!(packet.body, Body::Ack(_) | Body::Refused(_)) => {}
                Transmit::Control { packet, .. } => {
                    let what = What::Homa(packet);
                    return Some(Frame { from, to, level, bytes: control, payload: 0, message: NONE, what });
                }
            }
        }
    }
}

/// A message on its way out.
#[derive(Debug)]
struct Sending {
    message: u32,
    to: u16,
    length: u32,
    left: u32,
}

/// A host that sends what comes first, at one level, as fast as its link is: what happens without a transport.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    me: u16,
    waiting: VecDeque<Sending>,
    /// Bytes that are still missing of messages that arrive.
    missing: std::collections::BTreeMap<u32, u32>,
}

impl Queue {
    pub(crate) fn new(me: u16) -> Self {
        Self { me, ..Self::default() }
    }

    fn receive(&mut self, frame: &Frame) -> Option<Outcome> {
        let What::Plain(length) = frame.what else { return None };
        let missing = self.missing.entry(frame.message).or_insert(length);
        *missing -= frame.payload;
        if *missing > 0 {
            return None;
        }
        self.missing.remove(&frame.message);
        Some(Outcome::Completed(frame.message))
    }

    fn next(&mut self, topology: &Topology) -> Option<Frame> {
        let first = self.waiting.front_mut()?;
        let payload = first.left.min(topology.segment);
        first.left -= payload;
        let frame = Frame {
            from: self.me,
            to: first.to,
            level: 0,
            bytes: topology.wire(payload),
            payload,
            message: first.message,
            what: What::Plain(first.length),
        };
        if first.left == 0 {
            self.waiting.pop_front();
        }
        Some(frame)
    }
}
