//! The fault backplane: everything that a program, a file or another host may hand to it.

use crate::rng::Rng;
use bytes::{Bytes, BytesMut};
use core::time::Duration;
use steadfast_backplane::exchange::{MAX_EVENTS, Message};
use steadfast_backplane::protocol::{Frame, Hello, Refused, Request, Welcome};
use steadfast_backplane::{
    Agent, Arrival, Arrived, Client, ClientName, Code, Config, Declaration, Event, EventHandle, EventId,
    EventName, EventSpace, FTB_HANDLE, Fingerprint, Flow, Heard, Host, HostName, Inbox, Incarnation, Instant,
    JobId, Keep, Kind, Location, Matching, Payload, Process, Provenance, Publication, Rate, Reason, Receive,
    Replay, Replayed, Rules, Schema, Server, Session, Severity, Style, Subscription, SubscriptionId,
    Timestamp,
};

/// The other host of an exchange.
const PEER: Fingerprint = Fingerprint([2; 32]);

const SPACES: [&str; 3] = ["a.b.c", "FTB.network.steadfast", "ftb.os.bgl-cnk"];
const NAMES: [&str; 3] = ["A", "b", "CHKPT_BEGIN"];
const WANTED: [&str; 6] = [
    "",
    "severity=info",
    " event_name = a ",
    "event_space=a.all.c,jobid=1",
    "colour=red",
    "severity=all,event_name=b",
];

/// Reads any bytes as each of the texts that are taken, and as a handle: they are read or refused, and what was read is
/// written and read back alike.
pub fn texts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(subscription) = Subscription::new(&text) {
        assert_eq!(Subscription::new(&subscription.to_string()), Ok(subscription), "a subscription");
    }
    let Ok(space) = EventSpace::new("a.b.c") else { unreachable!() };
    if let Ok(mut schema) = Schema::new(&text, &space) {
        schema.duplicates = false;
        assert_eq!(Schema::new(&schema.to_text(&space), &space), Ok(schema), "a schema file");
    }
    if let Ok(event) = Event::from_cloud_event(&text) {
        let back = Event::from_cloud_event(&event.to_cloud_event());
        assert_eq!(back.as_ref(), Ok(&event), "a CloudEvent");
    }
    let _any = (text.parse::<Timestamp>(), JobId::from_c(data), HostName::new(&text));
    let mut field = [0; FTB_HANDLE];
    field.iter_mut().zip(data).for_each(|(field, byte)| *field = *byte);
    if let Ok(handle) = EventHandle::from_ftb(&field) {
        assert_eq!(EventHandle::from_ftb(&handle.to_ftb()), Ok(handle), "a handle");
    }
}

/// Decodes any bytes as a stream of the agent's protocol; what was read must be written and read back alike.
pub fn frames(data: &[u8]) {
    let mut input = BytesMut::from(data);
    while let Ok(Some(frame)) = Frame::decode(&mut input) {
        let mut again = Vec::new();
        frame.encode(&mut again);
        let back = Frame::decode(&mut BytesMut::from(&again[..]));
        assert_eq!(back, Ok(Some(frame)), "written and read back");
    }
}

/// An agent with small bounds, an honest client, and one that says any bytes in any pieces; what the bytes hold of events
/// comes from other hosts as well. Nothing may panic, what is held is bounded, and the honest client is served.
pub fn hostile(data: &[u8]) {
    let mut now = Instant(1_000_000_000);
    let mut server = server();
    let sink = server.agent_mut().add_sink(if data.len().is_multiple_of(2) {
        Keep::WhileRoom
    } else {
        Keep::UntilConfirmed
    });
    let honest = server.handle_connected(now, process(1));
    let mut said = Vec::new();
    for frame in
        [hello(0, 0), subscribe(1, 0), Frame::Unsubscribe { request: Request(2), id: SubscriptionId(1) }]
    {
        frame.encode(&mut said);
    }
    server.handle_data(now, honest, &mut BytesMut::from(&said[..]));
    let mut hostile = server.handle_connected(now, process(2));
    let mut input = BytesMut::new();
    if data.first().is_some_and(|first| first % 4 != 0) {
        let mut hello_bytes = Vec::new();
        hello(0, 1).encode(&mut hello_bytes);
        input.extend_from_slice(&hello_bytes);
    }
    for piece in data.chunks(48) {
        input.extend_from_slice(piece);
        let flow = server.handle_data(now, hostile, &mut input);
        assert!(input.len() <= steadfast_backplane::protocol::MAX_BODY + 64, "holds more than a frame");
        server.check_invariants();
        while server.poll_ready().is_some() {}
        let mut out = Vec::new();
        // It does not always read.
        if flow == Flow::Write || piece.len() % 3 == 0 {
            while out.len() < 1 << 20 && server.poll_transmit(hostile, &mut out, 1 << 20) {}
        }
        if flow == Flow::Ended {
            server.handle_closed(hostile);
            hostile = server.handle_connected(now, process(2));
            input.clear();
        }
        now += Duration::from_millis(200);
        server.handle_timeout(now);
        server.check_invariants();
    }
    remote(now, &mut server, data);
    if let Some(sink) = sink {
        while server.agent_mut().poll_sink(sink).is_some() {}
        server.agent_mut().handle_confirmed(sink, u64::from(data.len() as u32));
    }
    server.handle_closed(hostile);
    let mut out = Vec::new();
    while server.poll_transmit(honest, &mut out, 1 << 20) {}
    let mut answers = BytesMut::from(&out[..]);
    assert!(
        matches!(Frame::decode(&mut answers), Ok(Some(Frame::Welcome(_)))),
        "the honest client is served"
    );
    server.check_invariants();
    assert_eq!(server.connections(), 1, "nothing is left");
}

/// Every event that stands in the bytes comes from elsewhere.
fn remote(now: Instant, server: &mut Server, data: &[u8]) {
    let mut input = BytesMut::from(data);
    while let Ok(Some(frame)) = Frame::decode(&mut input) {
        if let Frame::Event(delivery) = frame {
            let arrival = Arrival {
                peer: (delivery.replay.is_some()).then_some(delivery.event.id.origin),
                verified: delivery.provenance == Provenance::Signed,
            };
            server.agent_mut().handle_remote(now, delivery.event.as_ref().clone(), arrival);
            server.check_invariants();
        }
    }
}

fn process(user: u32) -> Process {
    Process { user, pid: 7, start: Timestamp(5), own: false }
}

fn host() -> HostName {
    HostName::new("node").unwrap_or_else(|_| unreachable!())
}

fn server() -> Server {
    let mut config = Config::default();
    config.max_clients = 3;
    config.max_subscriptions = 2;
    config.queue_events = 4;
    config.queue_bytes = 4096;
    config.history_events = 4;
    config.outbox_events = 4;
    config.max_origins = 2;
    config.client_rate = Rate { per_second: 50, burst: 20 };
    let host =
        Host { origin: Fingerprint([1; 32]), incarnation: Incarnation(9), name: host(), address: None };
    Server::new(Agent::new(config, Rules::default(), host))
}

fn client() -> Client {
    Client { name: ClientName::NONE, job: JobId::NONE, extension: 0 }
}

fn hello(space: usize, lowest: u64) -> Frame {
    Frame::Hello(Hello { lowest, highest: 1, space: EventSpace::new(SPACES[space]).ok(), client: client() })
}

fn subscribe(number: u64, text: usize) -> Frame {
    Frame::Subscribe {
        request: Request(number),
        id: SubscriptionId(number as u32),
        matching: Matching::Every,
        replay: Replay::Nothing,
        text: WANTED[text].into(),
    }
}

/// Texts that nearly are what they should be.
#[must_use]
pub fn plausible_text(rng: &mut Rng) -> Vec<u8> {
    let pick = |rng: &mut Rng, from: &[&'static str]| from[rng.range(0, from.len() as u64) as usize];
    match rng.range(0, 4) {
        0 => {
            let pairs = (0..rng.range(0, 8)).map(|_| {
                let name = pick(
                    rng,
                    &["severity", "event_space", "jobid", "host_name", "EVENT_NAME", " client_name ", "x"],
                );
                format!(
                    "{name}={}",
                    pick(rng, &["all", "info", "a.b.c", "all.b.all", " x ", "", "10.0.0.1", "b c"])
                )
            });
            pairs.collect::<Vec<_>>().join(",").into_bytes()
        }
        1 => {
            let words =
                ["start", "end", "a.b.c", "A", "B", "info", "FATAL", "# version: 1\n", "#", "\n", "x.y.z"];
            let some: Vec<_> = (0..rng.range(0, 30)).map(|_| pick(rng, &words)).collect();
            format!("start\na.b.c\n{}\nend", some.join(" ")).into_bytes()
        }
        2 => event(rng).to_cloud_event().into_bytes(),
        _ => event(rng).handle().to_ftb().to_vec(),
    }
}

fn event(rng: &mut Rng) -> Event {
    let id = EventId {
        origin: Fingerprint([rng.range(1, 5) as u8; 32]),
        incarnation: Incarnation(rng.range(8, 10)),
        sequence: if rng.chance(90) { rng.range(0, 6) } else { rng.next() },
    };
    let mut event = Event {
        id,
        space: EventSpace::new(SPACES[rng.range(0, 3) as usize]).unwrap_or_else(|_| unreachable!()),
        name: name(rng),
        severity: if rng.chance(50) { Severity::INFO } else { Severity::FATAL },
        kind: Kind::Plain,
        payload: payload(rng),
        client: client(),
        number: rng.next(),
        location: Location { host: host(), address: None, pid: 1, start: Timestamp(rng.next()) },
        user: 5,
        time: Timestamp(rng.next()),
        schema: None,
        signature: None,
    };
    if rng.chance(30) {
        event.kind = Kind::Answer(Box::new(event.handle()));
    }
    event
}

fn name(rng: &mut Rng) -> EventName {
    EventName::new(NAMES[rng.range(0, 3) as usize]).unwrap_or_else(|_| unreachable!())
}

fn payload(rng: &mut Rng) -> Payload {
    let length = if rng.chance(90) { rng.range(0, 40) } else { rng.range(0, 5000) };
    Payload::new(Bytes::from(vec![rng.next() as u8; length as usize])).unwrap_or_else(|_| unreachable!())
}

/// Frames that are well formed and make no sense, to reach further than random bytes do.
#[must_use]
pub fn plausible(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..rng.range(1, 40) {
        let request = Request(rng.range(0, 6));
        let id = SubscriptionId(rng.range(0, 4) as u32);
        let frame = match rng.range(0, 14) {
            0 => hello(rng.range(0, 3) as usize, rng.range(0, 3)),
            1 | 2 => Frame::Declare {
                request,
                info: None,
                events: (0..rng.range(0, 5))
                    .map(|_| Declaration { name: name(rng), severity: Severity::ERROR })
                    .collect(),
            },
            3..=7 => {
                let kind =
                    if rng.chance(80) { Kind::Plain } else { Kind::Answer(Box::new(event(rng).handle())) };
                Frame::Publish {
                    request,
                    publication: Publication { name: name(rng), kind, payload: payload(rng) },
                }
            }
            8..=10 => {
                let replay = match rng.range(0, 3) {
                    0 => Replay::Nothing,
                    1 => Replay::Recent {
                        events: rng.range(0, 9) as u32,
                        within: Duration::from_millis(rng.range(0, 999)),
                    },
                    _ => Replay::After(event(rng).id),
                };
                let matching = if rng.chance(50) { Matching::Every } else { Matching::Ftb };
                Frame::Subscribe {
                    request,
                    id,
                    matching,
                    replay,
                    text: WANTED[rng.range(0, 6) as usize].into(),
                }
            }
            11 => Frame::Unsubscribe { request, id },
            12 => Frame::Event(steadfast_backplane::Delivery {
                event: event(rng).into(),
                provenance: if rng.chance(50) { Provenance::Signed } else { Provenance::Unsigned },
                replay: rng.chance(50).then_some(id),
            }),
            _ => Frame::Bye,
        };
        frame.encode(&mut out);
    }
    out
}

/// What the daemon of another host says: messages one behind the other, each with its length. Whatever is read is
/// written and read back alike, goes into an agent with small bounds, and only what its host itself published is handed
/// on.
pub fn exchange(data: &[u8]) {
    let mut now = Instant(1_000_000_000);
    let mut server = server();
    let honest = server.handle_connected(now, process(1));
    let mut said = Vec::new();
    hello(0, 0).encode(&mut said);
    subscribe(1, 0).encode(&mut said);
    server.handle_data(now, honest, &mut BytesMut::from(&said[..]));
    let mut rest = data;
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (bytes, after) = after.split_at(length);
        rest = after;
        let Ok(message) = Message::decode(Bytes::copy_from_slice(bytes)) else { continue };
        assert_eq!(Message::decode(message.encode()).as_ref(), Ok(&message), "written and read back");
        let Message::Events { events, .. } = message else { continue };
        assert!(events.len() <= MAX_EVENTS);
        for event in events {
            let origin = event.id.origin;
            let arrival = Arrival { peer: Some(PEER), verified: false };
            let arrived = server.agent_mut().handle_remote(now, event, arrival);
            assert!(
                origin == PEER || !matches!(arrived, Arrived::Delivered(_)),
                "of another host: {arrived:?}"
            );
            now += Duration::from_millis(1);
        }
        while server.poll_ready().is_some() {}
        server.check_invariants();
    }
    let mut out = Vec::new();
    while server.poll_transmit(honest, &mut out, 1 << 20) {}
    let mut heard = BytesMut::from(&out[..]);
    while let Ok(Some(frame)) = Frame::decode(&mut heard) {
        let Frame::Event(delivery) = frame else { continue };
        assert_eq!((delivery.event.id.origin, delivery.provenance), (PEER, Provenance::Signed));
    }
}

/// Messages that are well formed and make no sense.
#[must_use]
pub fn plausible_exchange(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..rng.range(1, 8) {
        let message = match rng.range(0, 5) {
            0 => Message::Hello { version: rng.range(0, 3) as u8, run: Incarnation(rng.next()) },
            1 => Message::Taken(rng.range(0, 9)),
            _ => {
                let mut one = || {
                    let mut event = event(rng);
                    if rng.chance(80) {
                        event.id.origin = PEER;
                    }
                    event
                };
                let events = (0..3).map(|_| one()).collect();
                Message::Events { number: rng.range(0, 9), events }
            }
        };
        let bytes = message.encode();
        // What is longer than its length says is another message's beginning.
        out.extend_from_slice(&(bytes.len().min(usize::from(u16::MAX)) as u16).to_be_bytes());
        out.extend_from_slice(&bytes);
    }
    out
}

/// An agent that says any bytes, in any pieces, to a client, which asks now and then and is connected anew whenever it
/// gives the agent up. Nothing may panic, and what is held is bounded.
pub fn agent(data: &[u8]) {
    let mut session = Session::new(EventSpace::new(SPACES[0]).ok(), client());
    let mut inbox = Inbox::new(Style::Both, 4);
    let (mut input, mut out) = (BytesMut::new(), Vec::new());
    session.handle_connected();
    for (turn, piece) in data.chunks(40).enumerate() {
        if turn % 3 == 0 {
            ask(&mut session, &mut inbox, turn / 3);
        }
        input.extend_from_slice(piece);
        loop {
            match session.poll(&mut input) {
                Ok(Some(Heard::Event(delivery))) => _ = inbox.handle_delivery(delivery),
                Ok(Some(Heard::Lapsed { id, .. })) => _ = inbox.unsubscribe(id),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    session.handle_closed();
                    input.clear();
                }
            }
        }
        assert!(input.len() <= steadfast_backplane::protocol::MAX_BODY + 64, "holds more than a frame");
        assert!(inbox.len() <= 4);
        session.check_invariants();
        out.clear();
        session.poll_transmit(&mut out);
        let mut said = BytesMut::from(&out[..]);
        while Frame::decode(&mut said).unwrap_or_else(|error| panic!("says {error}")).is_some() {}
        assert!(said.is_empty() && out.len() <= 2 << 20, "whole frames, and not without end");
        if session.is_closed() {
            session.handle_connected();
            session.check_invariants();
        }
    }
}

/// Asks something, a little of everything.
fn ask(session: &mut Session, inbox: &mut Inbox, number: usize) {
    let (Ok(declaration), Ok(name)) = (Declaration::new(NAMES[0], "info"), EventName::new(NAMES[0])) else {
        unreachable!()
    };
    let id = SubscriptionId((number % 4) as u32);
    let _too_much_or_known = match number % 5 {
        0 => session.declare(None, vec![declaration]),
        1 | 2 => {
            let _held = inbox.subscribe(id, Subscription::default(), Matching::Every, Receive::Polling);
            session.subscribe(id, Matching::Every, Replay::Nothing, "")
        }
        3 => {
            session.publish(Publication { name, kind: Kind::Plain, payload: Payload::EMPTY }, number % 2 == 1)
        }
        _ => session.unsubscribe(id),
    };
}

/// What an agent may say, in no order that makes sense; the first answers fit now and then.
#[must_use]
pub fn plausible_agent(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..rng.range(1, 40) {
        let request = Request(rng.range(0, 8));
        let frame = match rng.range(0, 11) {
            0 | 1 => Frame::Welcome(Welcome {
                version: rng.range(0, 4),
                origin: Fingerprint([1; 32]),
                incarnation: Incarnation(rng.range(0, 3)),
                location: Location { host: host(), address: None, pid: 7, start: Timestamp(5) },
                user: 1,
            }),
            2 | 3 => Frame::Done(request),
            4 => Frame::Published { request, handle: Box::new(event(rng).handle()) },
            5 | 6 => Frame::Subscribed {
                request,
                replayed: Replayed { events: rng.range(0, 3), complete: rng.chance(50) },
                newest: event(rng).id,
            },
            7 => Frame::Refused(Refused {
                request,
                code: Code::ALL[rng.range(0, Code::ALL.len() as u64) as usize],
                retry_after: None,
                words: "no".into(),
                reason: Reason::from_number(rng.range(0, 7) as u8),
            }),
            8 => Frame::Dropped(rng.range(0, 9)),
            9 => Frame::Lost { count: rng.range(0, 9), code: Code::General },
            _ => Frame::Event(steadfast_backplane::Delivery {
                event: event(rng).into(),
                provenance: if rng.chance(50) { Provenance::Local } else { Provenance::Signed },
                replay: rng.chance(50).then_some(SubscriptionId(rng.range(0, 4) as u32)),
            }),
        };
        frame.encode(&mut out);
    }
    out
}
