use super::*;
use crate::access::Rules;
use crate::agent::{Agent, Config, Host, Process};
use crate::arbitrary;
use crate::event::{Kind, Payload};
use crate::name::{ClientName, EventName, HostName, JobId};
use crate::reason::Reason;
use crate::server::{ConnectionId, Flow, Server};
use crate::timestamp::Timestamp;
use alloc::string::ToString;
use alloc::vec;
use core::time::Duration;
use proptest::prelude::*;
use steadfast_wire::{Fingerprint, Incarnation, Instant};

const NOW: Instant = Instant(1_000_000_000);

/// A session and its agent, with what is under way between them.
struct Pair {
    session: Session,
    server: Server,
    connection: Option<ConnectionId>,
    asked: BytesMut,
    heard: BytesMut,
}

fn server(incarnation: u64) -> Server {
    let host = Host {
        origin: Fingerprint([1; 32]),
        incarnation: Incarnation(incarnation),
        name: HostName::new("node7").unwrap(),
        address: None,
    };
    Server::new(Agent::new(Config::default(), Rules::default(), host))
}

fn session(name: &str) -> Session {
    let client = Client { name: ClientName::new(name).unwrap(), job: JobId::NONE, extension: 0 };
    Session::new(EventSpace::new("a.b.c").ok(), client)
}

fn declaration(name: &str) -> Declaration {
    Declaration::new(name, "info").unwrap()
}

fn publication(name: &str) -> Publication {
    Publication { name: EventName::new(name).unwrap(), kind: Kind::Plain, payload: Payload::EMPTY }
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            session: session("one"),
            server: server(1),
            connection: None,
            asked: BytesMut::new(),
            heard: BytesMut::new(),
        };
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        let process = Process { user: 1, pid: 7, start: Timestamp(5), own: false };
        self.connection = Some(self.server.handle_connected(NOW, process));
        self.session.handle_connected();
    }

    /// The agent takes in what was said.
    fn ask(&mut self) {
        let mut out = Vec::new();
        self.session.poll_transmit(&mut out);
        self.asked.extend_from_slice(&out);
        if let Some(connection) = self.connection {
            while self.server.handle_data(NOW, connection, &mut self.asked) == Flow::Again {}
        }
        self.server.check_invariants();
    }

    /// The agent says at most so much.
    fn answer(&mut self, bytes: usize) {
        let mut out = Vec::new();
        if let Some(connection) = self.connection {
            while out.len() < bytes && self.server.poll_transmit(connection, &mut out, bytes) {}
        }
        self.heard.extend_from_slice(&out);
    }

    fn hear(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        while let Some(heard) = self.session.poll(&mut self.heard).unwrap() {
            self.session.check_invariants();
            all.push(heard);
        }
        all
    }

    fn turn(&mut self) -> Vec<Heard> {
        self.ask();
        self.answer(1 << 20);
        self.hear()
    }

    /// The connection ends; what was not heard is gone.
    fn cut(&mut self) -> Vec<Heard> {
        if let Some(connection) = self.connection.take() {
            self.server.handle_closed(connection);
        }
        self.heard.clear();
        self.asked.clear();
        self.session.handle_closed();
        self.session.check_invariants();
        self.hear()
    }

    fn restart(&mut self, incarnation: u64) {
        self.server = server(incarnation);
        self.connection = None;
    }

    /// Somebody else publishes.
    fn elsewhere(&mut self, names: &[&str]) {
        let client = Client { name: ClientName::NONE, job: JobId::NONE, extension: 0 };
        let process = Process { user: 2, pid: 8, start: Timestamp(5), own: false };
        let agent = self.server.agent_mut();
        let other = agent.attach(NOW, process, EventSpace::new("a.b.c").ok(), client).unwrap();
        for name in names {
            let _known = agent.declare(other, &[declaration(name)], None);
            agent.publish(NOW, other, publication(name), true).unwrap();
        }
        agent.detach(other);
    }

    fn subscribe(&mut self, id: u32, replay: Replay, text: &str) -> Vec<Heard> {
        self.session.subscribe(SubscriptionId(id), Matching::Every, replay, text).unwrap();
        self.turn()
    }
}

fn names(heard: &[Heard]) -> Vec<String> {
    let name = |heard: &Heard| match heard {
        Heard::Event(delivery) => Some(delivery.event.name.to_string()),
        _ => None,
    };
    heard.iter().filter_map(name).collect()
}

#[test]
fn asked_and_answered() {
    let mut pair = Pair::new();
    let declared = pair.session.declare(None, vec![declaration("A")]).unwrap();
    let again = pair.session.declare(None, vec![declaration("a"), declaration("B")]).unwrap();
    let subscribed =
        pair.session.subscribe(SubscriptionId(1), Matching::Every, Replay::Nothing, "event_name=a").unwrap();
    let refused =
        pair.session.subscribe(SubscriptionId(2), Matching::Every, Replay::Nothing, "colour=red").unwrap();
    let published = pair.session.publish(publication("A"), true).unwrap();
    assert_eq!(pair.session.publish(publication("C"), false), Ok(Request::NONE));
    let heard = pair.turn();
    let [Heard::Welcome { restarted: false, .. }, rest @ ..] = &heard[..] else { panic!("{heard:?}") };
    let code = |heard: &Heard| match heard {
        Heard::Refused(refused) => (refused.request, refused.code as i32),
        other => panic!("{other:?}"),
    };
    assert_eq!(rest[0], Heard::Done(declared));
    assert_eq!(code(&rest[1]), (again, -10));
    assert!(matches!(rest[2], Heard::Subscribed { request, .. } if request == subscribed));
    assert_eq!(code(&rest[3]), (refused, -15));
    let Heard::Published { request, handle } = &rest[4] else { panic!("{rest:?}") };
    assert_eq!(*request, published);
    assert_eq!(rest[5], Heard::Lost { count: 1, code: Code::InvalidEventName });
    assert!(matches!(&rest[6], Heard::Event(delivery) if delivery.event.handle() == **handle));
    assert_eq!(rest.len(), 7);
    assert_eq!(
        pair.session.subscribe(SubscriptionId(1), Matching::Every, Replay::Nothing, ""),
        Err(SessionError::Taken)
    );
    let ended = pair.session.unsubscribe(SubscriptionId(1)).unwrap();
    assert_eq!(pair.turn(), [Heard::Done(ended)]);
    assert_eq!(pair.session.unsubscribe(SubscriptionId(1)), Err(SessionError::Unknown));
    pair.session.leave().unwrap();
    assert_eq!(pair.session.publish(publication("A"), true), Err(SessionError::NotConnected));
    assert_eq!(pair.turn(), [Heard::Ended(None)]);
    assert!(pair.session.is_closed() && pair.session.is_idle());
}

#[test]
fn after_a_restart_everything_stands_again_and_nothing_is_missed() {
    let mut pair = Pair::new();
    pair.session.declare(SchemaInfo::new("1", "").ok(), vec![declaration("A")]).unwrap();
    // It has seen nothing yet: only the agent's bookmark tells it from where on.
    pair.elsewhere(&["OLD"]);
    pair.subscribe(1, Replay::Nothing, "");
    pair.cut();
    pair.restart(2);
    pair.elsewhere(&["X", "Y"]);
    pair.connect();
    let heard = pair.turn();
    assert!(matches!(heard[0], Heard::Welcome { restarted: true, .. }));
    assert_eq!(names(&heard), ["X", "Y"]);
    assert_eq!(heard.len(), 3, "answers to what is said again are nobody's: {heard:?}");
    pair.session.publish(publication("A"), true).unwrap();
    let heard = pair.turn();
    let [Heard::Published { .. }, Heard::Event(delivery)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(delivery.event.schema.as_ref().map(|schema| schema.version()), Some("1"));
}

#[test]
fn a_connection_that_ends_while_the_agent_goes_on_loses_nothing_and_repeats_nothing() {
    let mut pair = Pair::new();
    pair.elsewhere(&["OLD"]);
    pair.subscribe(1, Replay::Nothing, "event_name=a");
    pair.subscribe(2, Replay::Recent { events: 9, within: Duration::from_secs(60) }, "");
    pair.cut();
    pair.elsewhere(&["A", "B"]);
    pair.connect();
    assert_eq!(names(&pair.turn()), ["A", "B"]);
    pair.elsewhere(&["B", "A"]);
    assert_eq!(names(&pair.turn()), ["B", "A"]);
    // What came is not even asked for again.
    let replayed = pair.server.agent().metrics().replayed;
    pair.cut();
    pair.connect();
    pair.turn();
    assert_eq!(pair.server.agent().metrics().replayed, replayed);
    // Cut in the middle of what is said, twice.
    pair.elsewhere(&["C", "A", "D", "A", "E"]);
    let mut all = Vec::new();
    for bytes in [1, 1, 1 << 20] {
        pair.ask();
        pair.answer(bytes);
        all.extend(names(&pair.hear()));
        pair.cut();
        pair.connect();
    }
    all.extend(names(&pair.turn()));
    all.sort();
    assert_eq!(all, ["A", "A", "C", "D", "E"]);
}

#[test]
fn a_replay_that_was_cut_goes_on() {
    for cuts in 1..4 {
        let mut pair = Pair::new();
        pair.elsewhere(&["A", "B", "C", "D"]);
        let replay = Replay::Recent { events: 3, within: Duration::from_secs(60) };
        pair.session.subscribe(SubscriptionId(1), Matching::Every, replay, "").unwrap();
        let mut all = Vec::new();
        for _ in 0..cuts {
            pair.ask();
            pair.answer(1);
            // An answer and at most one event.
            pair.answer(1);
            all.extend(names(&pair.hear()));
            pair.cut();
            pair.connect();
        }
        pair.elsewhere(&["E"]);
        all.extend(names(&pair.turn()));
        assert_eq!(all, ["B", "C", "D", "E"], "{cuts} cuts");
    }
}

#[test]
fn publications_are_never_said_again() {
    let mut pair = Pair::new();
    pair.session.declare(None, vec![declaration("A")]).unwrap();
    pair.turn();
    let heard = pair.session.publish(publication("A"), true).unwrap();
    let never = pair.session.publish(publication("A"), true).unwrap();
    pair.ask();
    pair.session.give_up(never);
    assert_eq!(pair.cut(), [Heard::Unknown(heard)]);
    pair.connect();
    pair.turn();
    assert_eq!(pair.server.agent().metrics().published, 2);
}

/// What was asked and not answered is asked again; what was given up is not.
#[test]
fn requests_survive_their_connection() {
    let mut pair = Pair::new();
    let declared = pair.session.declare(None, vec![declaration("A")]).unwrap();
    let subscribe = |pair: &mut Pair, id| {
        pair.session.subscribe(SubscriptionId(id), Matching::Every, Replay::Nothing, "").unwrap()
    };
    let (one, two) = (subscribe(&mut pair, 1), subscribe(&mut pair, 2));
    let ended = pair.session.unsubscribe(SubscriptionId(2)).unwrap();
    let three = subscribe(&mut pair, 3);
    pair.session.give_up(three);
    assert_eq!(pair.cut(), [Heard::Done(ended)]);
    pair.connect();
    let heard = pair.turn();
    assert!(
        matches!(heard[..], [
        Heard::Welcome { restarted: false, .. },
        Heard::Done(done),
        Heard::Subscribed { request, .. },
    ] if done == declared && request == one),
        "{two:?} {heard:?}"
    );
    // Given up while it lives: the answers are swallowed.
    let four = subscribe(&mut pair, 4);
    pair.ask();
    pair.session.give_up(four);
    assert_eq!(pair.turn(), []);
    pair.elsewhere(&["B"]);
    assert_eq!(names(&pair.turn()), ["B"]);
    pair.cut();
    assert_eq!(pair.session.unsubscribe(SubscriptionId(1)).map(|_| pair.hear().len()), Ok(1));
    assert!(pair.session.is_idle());
}

#[test]
fn what_the_agent_refuses_after_a_restart_is_told() {
    let mut pair = Pair::new();
    pair.session.declare(None, vec![declaration("A")]).unwrap();
    pair.subscribe(1, Replay::Nothing, "event_space=a.b.c");
    pair.subscribe(2, Replay::Nothing, "");
    pair.cut();
    let config = Config { max_subscriptions: 1, ..Config::default() };
    pair.server.agent_mut().set_config(config);
    pair.connect();
    let heard = pair.turn();
    assert!(
        matches!(&heard[1..], [Heard::Lapsed { id: SubscriptionId(2), refused }] if refused.code == Code::General),
        "{heard:?}"
    );
    pair.cut();
    let config = Config { max_clients: 0, ..Config::default() };
    pair.server.agent_mut().set_config(config);
    pair.connect();
    let heard = pair.turn();
    assert!(matches!(&heard[..], [Heard::Ended(Some(refused))] if refused.words.contains("its 0 clients")));
    assert!(pair.session.is_closed() && !pair.session.is_open());
}

#[test]
fn events_that_a_broker_kept_are_told_once() {
    let mut pair = Pair::new();
    pair.subscribe(1, Replay::Nothing, "");
    let remote = |sequence| {
        let mut event = arbitrary::event();
        event.id.sequence = sequence;
        event
    };
    let arrival = crate::agent::Arrival { peer: None, verified: true };
    let arrive = |pair: &mut Pair, sequence| {
        pair.server.agent_mut().handle_remote(NOW, remote(sequence), arrival);
    };
    arrive(&mut pair, 1);
    assert_eq!(pair.turn().len(), 1);
    pair.cut();
    pair.restart(2);
    arrive(&mut pair, 1);
    arrive(&mut pair, 2);
    pair.connect();
    let heard = pair.turn();
    assert_eq!(names(&heard).len(), 1, "{heard:?}");
    pair.cut();
    pair.restart(3);
    pair.connect();
    pair.turn();
    (1..=3).for_each(|sequence| arrive(&mut pair, sequence));
    assert_eq!(pair.turn().len(), 1, "also where they come later");
}

#[test]
fn an_agent_that_does_not_answer_costs_a_bounded_memory() {
    let mut pair = Pair::new();
    let payload = Payload::new(vec![0; 60_000].into()).unwrap();
    let large = Publication { payload, ..publication("A") };
    let count = (0..1000).take_while(|_| pair.session.publish(large.clone(), false).is_ok()).count();
    assert!((10..30).contains(&count), "{count}");
    let mut out = Vec::new();
    pair.session.poll_transmit(&mut out);
    let count = (0..5000).take_while(|_| pair.session.publish(publication("A"), true).is_ok()).count();
    assert_eq!(count, MAX_PENDING);
    assert_eq!(pair.session.publish(publication("A"), true), Err(SessionError::Busy));
    let many = vec![declaration("A"); MAX_DECLARED + 1];
    assert_eq!(pair.session.declare(None, many), Err(SessionError::TooLong));
}

#[test]
fn what_is_no_agent_is_found_out() {
    let say = |frame: Frame| {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        BytesMut::from(&bytes[..])
    };
    let mut fresh = session("one");
    fresh.handle_connected();
    assert_eq!(fresh.poll(&mut say(Frame::Dropped(1))), Err(Violation::Order));
    assert!(matches!(fresh.poll(&mut BytesMut::from("HTTP/1.1")), Err(Violation::Order)));
    for frame in [
        Frame::Done(Request(1)),
        Frame::Bye,
        Frame::Publish { request: Request::NONE, publication: publication("A") },
    ] {
        let mut pair = Pair::new();
        pair.turn();
        assert_eq!(pair.session.poll(&mut say(frame)), Err(Violation::Order));
    }
    let mut pair = Pair::new();
    pair.turn();
    let asked = pair.session.publish(publication("A"), true).unwrap();
    assert_eq!(pair.session.poll(&mut say(Frame::Done(asked))), Err(Violation::Order), "not to that");
}

/// What an agent may say, and what only a client does.
fn frames() -> impl Strategy<Value = Frame> {
    let request = (0..6u64).prop_map(Request);
    let refused = (request.clone(), 0..21usize).prop_map(|(request, code)| {
        Frame::Refused(Refused {
            request,
            code: Code::ALL[code],
            retry_after: None,
            words: String::new(),
            reason: Reason::Other,
        })
    });
    let event = (arbitrary::events(), proptest::option::of(0..3u32)).prop_map(|(event, replay)| {
        let (event, replay) = (event.into(), replay.map(SubscriptionId));
        Frame::Event(Delivery { event, provenance: Provenance::Signed, replay })
    });
    let subscribed = (request.clone(), 0..3u64).prop_map(|(request, events)| Frame::Subscribed {
        request,
        replayed: Replayed { events, complete: true },
        newest: arbitrary::event().id,
    });
    let welcome = (0..2u64).prop_map(|run| {
        let event = arbitrary::event();
        let (origin, location) = (event.id.origin, event.location);
        Frame::Welcome(Welcome { version: 1, origin, incarnation: Incarnation(run), location, user: 1 })
    });
    let handle = Box::new(arbitrary::event().handle());
    prop_oneof![
        3 => request.clone().prop_map(Frame::Done),
        2 => request.prop_map(move |request| Frame::Published { request, handle: handle.clone() }),
        2 => refused,
        3 => event,
        3 => subscribed,
        4 => welcome,
        1 => (0..9u64).prop_map(Frame::Dropped),
        1 => Just(Frame::Lost { count: 1, code: Code::General }),
        1 => Just(Frame::Bye),
    ]
}

proptest! {
    /// Whatever an agent says and whenever the connection ends, nothing panics and the books are right.
    #[test]
    fn any_agent_is_survived(steps in proptest::collection::vec((0..9u8, frames()), 1..80)) {
        let mut session = session("one");
        for (step, frame) in steps {
            let mut bytes = Vec::new();
            match step {
                0 if session.is_closed() => session.handle_connected(),
                0 => session.handle_closed(),
                1 => _ = session.declare(None, vec![declaration("A")]),
                2 => _ = session.publish(publication("A"), true),
                3 => _ = session.subscribe(SubscriptionId(1), Matching::Every, Replay::Nothing, "").map(|asked| {
                    session.give_up(Request(asked.0.saturating_sub(1)));
                }),
                4 => _ = session.unsubscribe(SubscriptionId(1)),
                _ => frame.encode(&mut bytes),
            }
            let mut input = BytesMut::from(&bytes[..]);
            loop {
                match session.poll(&mut input) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => session.handle_closed(),
                }
                session.check_invariants();
            }
            session.check_invariants();
            prop_assert!(session.pending.len() <= 100);
        }
    }
}
