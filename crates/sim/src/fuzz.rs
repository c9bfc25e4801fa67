//! Fuzz targets: plain functions that panic on a bug. A test drives them from a committed corpus and a seed, on
//! stable; libFuzzer drives them by hand.

use crate::rng::Rng;
use crate::world::identity;
use bytes::{BufMut, Bytes, BytesMut};
use core::time::Duration;
use steadfast_session::{Config, Endpoint, OrderRequest, SessionConfig};
use steadfast_wire::frame::{Frame, Hello, Process};
use steadfast_wire::{
    Address, Gather, Incarnation, Instant, Labels, Network, NetworkClass, NetworkId, PathNumber, SessionId,
    Token,
};

pub mod backplane;
pub mod homa;

/// Decodes any bytes as a stream of frames; what was read must be written and read back alike.
pub fn frames(data: &[u8]) {
    let mut input = BytesMut::from(data);
    while let Ok(Some(frame)) = Frame::decode(&mut input) {
        let mut again = Vec::new();
        frame.encode(&mut again);
        let back = Frame::decode(&mut BytesMut::from(&again[..]));
        assert_eq!(back, Ok(Some(frame)), "written and read back");
    }
}

/// Decodes any bytes as the head of a call's message, arriving byte by byte: it is read or refused as soon as there is
/// enough of it, and what was read must be written and read back alike.
pub fn calls(data: &[u8]) {
    use steadfast_wire::call::{Head, MAX_HEAD};
    for end in 0..=data.len().min(MAX_HEAD) {
        let mut input = Bytes::copy_from_slice(&data[..end]);
        match Head::decode(&mut input) {
            Ok(None) => {
                assert_eq!(input.len(), end, "nothing is taken of a part");
                assert!(end < MAX_HEAD, "wants more than a head has");
            }
            Ok(Some(Head::Foreign { .. })) | Err(_) => return,
            Ok(Some(head)) => {
                assert!(input.is_empty(), "a head is read as soon as it is there");
                let mut again = Vec::new();
                head.encode(&mut again);
                assert_eq!(Head::decode(&mut Bytes::from(again)), Ok(Some(head)), "written and read back");
                return;
            }
        }
    }
}

/// A peer that says any bytes, in any pieces, after an honest HELLO: nothing may panic, and what it may make us hold
/// is bounded.
pub fn hostile(data: &[u8]) {
    let mut now = Instant(1_000_000_000);
    let mut core = Endpoint::new(Config::default(), identity(0), [7; 32]);
    let ip = "10.0.0.1".parse().unwrap_or_else(|_| unreachable!());
    let network = Network {
        id: NetworkId(1),
        name: "net0".into(),
        class: NetworkClass::Ethernet,
        metered: false,
        cost: 0,
        port: 1,
        addresses: vec![Address { ip, prefix: 24 }],
    };
    core.handle_networks(now, vec![network]);
    let remote = "10.0.0.2:1".parse().unwrap_or_else(|_| unreachable!());
    let Some(path) = core.handle_accepted(now, NetworkId(1), ip, remote, identity(1)) else { return };
    let mut input = BytesMut::new();
    let mut honest = Vec::new();
    Frame::Hello(Hello {
        version: 1,
        incarnation: Incarnation(9),
        path: PathNumber(1),
        network: NetworkId(1),
        port: 1,
        features: 0,
        durable: data.len().is_multiple_of(2),
        max_message: 1 << 20,
        windows: [1 << 20, 1 << 20],
        process: Process::default(),
    })
    .encode(&mut honest);
    Frame::Open { session: SessionId(5), per_urgency: data.len().is_multiple_of(3), token: Token([1; 16]) }
        .encode(&mut honest);
    input.put_slice(&honest);
    while core.handle_data(now, path, &mut input) {}
    let _here = core.send(now, SessionId(5), Labels::foreground(), OrderRequest::Default, "hello".into());
    let mut out = Gather::default();
    for piece in data.chunks(64) {
        input.put_slice(piece);
        while core.handle_data(now, path, &mut input) {}
        assert!(input.len() <= steadfast_wire::frame::MAX_BODY + 16, "holds more than a frame");
        now += Duration::from_millis(3);
        core.handle_timeout(now);
        exercise(&mut core, now, path, &mut out);
        core.check_invariants();
    }
}

fn exercise(core: &mut Endpoint, now: Instant, path: PathNumber, out: &mut Gather) {
    let _session = core.accept(now, SessionConfig::default());
    for session in core.sessions().take(8).collect::<Vec<_>>() {
        let _message = core.recv(now, session);
    }
    while core.poll_action().is_some() {}
    while core.poll_event().is_some() {}
    while core.poll_ready().is_some() {}
    out.clear();
    while core.poll_transmit(now, path, 4096, out) > 0 && out.len() < 1 << 20 {}
}

/// Frames that are well formed and make no sense, to reach further than random bytes do.
#[must_use]
pub fn plausible(rng: &mut Rng) -> Vec<u8> {
    use steadfast_wire::frame::{Ack, Data, Head, Progress, Resume, ShutKind};
    use steadfast_wire::{MessageId, Order, RangeSet, Urgency};
    let mut out = Vec::new();
    for _ in 0..rng.range(1, 60) {
        let session = SessionId(if rng.chance(80) { 5 } else { rng.range(1, 50) });
        let id = MessageId(if rng.chance(80) { rng.range(1, 8) } else { rng.next() >> 3 }.max(1));
        let class = if rng.chance(50) { Urgency::Foreground } else { Urgency::Background };
        let set = |rng: &mut Rng| -> RangeSet {
            (0..rng.range(0, 4)).map(|_| rng.range(0, 20)).map(|at| at + 1..at + 3).collect()
        };
        let order = match rng.range(0, 4) {
            0 => Order::Total,
            1 => Order::PerUrgency { sequence: rng.range(0, 5) },
            2 => Order::Unordered { sequence: rng.range(0, 5) },
            _ => Order::After {
                sequence: rng.range(0, 5),
                dependencies: if id.0 > 1 { vec![MessageId(id.0 - 1)] } else { vec![] },
            },
        };
        let frame = match rng.range(0, 14) {
            0..=4 => {
                let offset = if rng.chance(50) { 0 } else { rng.range(1, 3000) };
                let length = if rng.chance(70) { rng.range(0, 300) } else { 60_000 };
                let head = Head {
                    labels: Labels::foreground(),
                    order,
                    streamed: rng.chance(50),
                    length: Some(rng.range(0, 4000)),
                    expires_in: rng.chance(20).then(|| rng.range(0, 100_000)),
                };
                let payload = vec![1; length as usize].into();
                Frame::Data(Data {
                    session,
                    id,
                    offset,
                    class,
                    fin: rng.chance(30),
                    head: (offset == 0).then_some(head),
                    payload,
                })
            }
            5 => Frame::Ack(session, Ack { received: set(rng), delivered: set(rng), dropped: set(rng) }),
            6 => Frame::Reset {
                session,
                id,
                order: class,
                sequence: rng.range(0, 9),
                class,
                charged: rng.range(0, 5000),
                known: rng.chance(50),
            },
            7 => Frame::Relabel { session, id, labels: Labels::background() },
            8 => Frame::Shut { session, last: MessageId(rng.range(0, 9)), kind: ShutKind::Close },
            9 => Frame::Progress(Progress {
                path: PathNumber(1),
                count: rng.range(0, 9),
                delay: 1,
                clock: rng.range(0, 99),
            }),
            10 => Frame::Have { path: PathNumber(1), count: Some(rng.range(0, 9)), closed: rng.chance(20) },
            11 => Frame::Check { path: PathNumber(1) },
            12 => Frame::Open { session, per_urgency: rng.chance(50), token: Token([2; 16]) },
            _ => Frame::Resume(Resume {
                session,
                fresh: rng.chance(50),
                per_urgency: true,
                expects: rng.chance(50),
                confirmed: rng.chance(50).then_some(Token([1; 16])),
                offered: vec![Token([rng.next() as u8; 16])],
                holds: None,
                next: id,
                shut: None,
                received: set(rng),
                delivered: set(rng),
                dropped: set(rng),
                partial: vec![(
                    MessageId(rng.range(1, 9)),
                    (0..rng.range(1, 90)).map(|at| at..at + 1).collect(),
                )],
                charged: [rng.range(0, 9999), 0],
                limits: [rng.next() >> 3, 0],
            }),
        };
        frame.encode(&mut out);
    }
    out
}
