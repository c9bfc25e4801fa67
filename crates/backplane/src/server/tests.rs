use super::*;
use crate::access::Rules;
use crate::agent::{Config, Host, Publication};
use crate::event::{Client, Kind, Payload};
use crate::name::{ClientName, EventName, EventSpace, HostName, JobId};
use crate::queue::SubscriptionId;
use crate::schema::Declaration;
use crate::subscription::Matching;
use crate::timestamp::Timestamp;
use alloc::vec;
use steadfast_wire::{Fingerprint, Incarnation};

const NOW: Instant = Instant(1_000_000_000);

fn server() -> Server {
    let host = Host {
        origin: Fingerprint([1; 32]),
        incarnation: Incarnation(9),
        name: HostName::new("node7").unwrap(),
        address: None,
    };
    Server::new(Agent::new(Config::default(), Rules::default(), host))
}

fn connected(server: &mut Server, user: u32) -> ConnectionId {
    server.handle_connected(NOW, Process { user, pid: 7, start: Timestamp(5), own: false })
}

fn hello(space: &str) -> Frame {
    let client = Client { name: ClientName::new("test").unwrap(), job: JobId::NONE, extension: 0 };
    Frame::Hello(Hello { lowest: 1, highest: 3, space: EventSpace::new(space).ok(), client })
}

fn declare(request: u64) -> Frame {
    let events = vec![Declaration::new("A", "info").unwrap()];
    Frame::Declare { request: Request(request), info: None, events }
}

fn publish(request: u64, name: &str) -> Frame {
    let publication =
        Publication { name: EventName::new(name).unwrap(), kind: Kind::Plain, payload: Payload::EMPTY };
    Frame::Publish { request: Request(request), publication }
}

fn subscribe(request: u64, text: &str) -> Frame {
    let (id, matching) = (SubscriptionId(request as u32), Matching::Every);
    Frame::Subscribe { request: Request(request), id, matching, replay: Replay::Nothing, text: text.into() }
}

fn say(server: &mut Server, id: ConnectionId, frames: &[Frame]) -> Flow {
    let mut bytes = Vec::new();
    for frame in frames {
        frame.encode(&mut bytes);
    }
    let flow = server.handle_data(NOW, id, &mut BytesMut::from(&bytes[..]));
    server.check_invariants();
    flow
}

fn heard(server: &mut Server, id: ConnectionId) -> Vec<Frame> {
    let mut out = Vec::new();
    loop {
        let max = out.len() + 100;
        if !server.poll_transmit(id, &mut out, max) {
            break;
        }
        server.check_invariants();
    }
    let mut input = BytesMut::from(&out[..]);
    let frames = core::iter::from_fn(|| Frame::decode(&mut input).unwrap()).collect();
    assert!(input.is_empty());
    frames
}

fn code(frame: &Frame) -> Option<(u64, i32)> {
    match frame {
        Frame::Refused(refused) => Some((refused.request.0, refused.code as i32)),
        _ => None,
    }
}

/// What BLCR does for each of its events: connect, declare, publish, leave, without waiting for anything.
#[test]
fn said_at_once_and_gone() {
    let mut server = server();
    let watcher = connected(&mut server, 1);
    say(&mut server, watcher, &[hello("a.b.c"), subscribe(1, "event_name=a")]);
    assert!(matches!(heard(&mut server, watcher)[..], [Frame::Welcome(_), Frame::Subscribed { .. }]));
    assert_eq!(server.poll_ready(), None, "it was told everything");
    let short = connected(&mut server, 2);
    let frames = [hello("FTB.checkpoint_sw.blcr"), declare(1), publish(2, "A"), Frame::Bye];
    assert_eq!(say(&mut server, short, &frames), Flow::Ended);
    assert!(!server.is_finished(short), "the answers first");
    let answers = heard(&mut server, short);
    let [Frame::Welcome(welcome), Frame::Done(Request(1)), Frame::Published { handle, .. }, Frame::Bye] =
        &answers[..]
    else {
        panic!("{answers:?}")
    };
    assert_eq!((welcome.user, welcome.version, welcome.location), (2, 2, handle.location));
    assert!(server.is_finished(short));
    server.handle_closed(short);
    assert_eq!(server.poll_ready(), Some(watcher));
    let events = heard(&mut server, watcher);
    assert!(matches!(&events[..], [Frame::Event(delivery)] if delivery.event.handle() == **handle));
    assert_eq!((server.connections(), server.agent().metrics().clients_now), (1, 1));
    server.check_invariants();
}

#[test]
fn refusals_have_their_request_and_code() {
    let mut server = server();
    let one = connected(&mut server, 1);
    say(
        &mut server,
        one,
        &[
            hello("a.b.c"),
            declare(1),
            declare(2),
            publish(3, "B"),
            subscribe(4, "colour=red"),
            subscribe(5, ""),
            subscribe(5, ""),
            Frame::Unsubscribe { request: Request(6), id: SubscriptionId(9) },
            publish(0, "B"),
            publish(0, "B"),
            Frame::Unsubscribe { request: Request(7), id: SubscriptionId(5) },
        ],
    );
    let answers = heard(&mut server, one);
    let codes: Vec<_> = answers.iter().filter_map(code).collect();
    assert_eq!(codes, [(2, -10), (3, -12), (4, -15), (5, -5), (6, -9)]);
    assert_eq!(answers[answers.len() - 2], Frame::Done(Request(7)));
    assert_eq!(answers[answers.len() - 1], Frame::Lost { count: 2, code: Code::InvalidEventName });
    assert_eq!(heard(&mut server, one), []);
}

#[test]
fn who_breaks_the_rules_is_told_and_ended() {
    let mut server = server();
    let later = Hello {
        lowest: 3,
        highest: 3,
        ..match hello("a.b.c") {
            Frame::Hello(hello) => hello,
            _ => panic!(),
        }
    };
    for (frames, words) in [
        (&[publish(1, "A")][..], "begins with HELLO"),
        (&[Frame::Hello(later)], "versions 3 to 3"),
        (&[hello("a.b.c"), hello("a.b.c")], "only an agent says"),
        (&[hello("a.b.c"), Frame::Dropped(1), publish(1, "A")], "only an agent says"),
    ] {
        let one = connected(&mut server, 1);
        assert_eq!(say(&mut server, one, frames), Flow::Ended, "{words}");
        let last = heard(&mut server, one).pop();
        assert!(matches!(&last, Some(Frame::Refused(refused)) if refused.words.contains(words)), "{last:?}");
        assert!(server.is_finished(one));
        server.handle_closed(one);
    }
    let one = connected(&mut server, 1);
    let mut noise = BytesMut::from(&b"GET / HTTP/1.1\r\n\r\n"[..]);
    assert_eq!(server.handle_data(NOW, one, &mut noise), Flow::Ended);
    assert!(noise.is_empty());
    assert_eq!((server.violations(), server.agent().metrics().clients_now), (5, 0));
}

#[test]
fn who_says_nothing_is_ended() {
    let mut server = server();
    let silent = connected(&mut server, 1);
    let open = connected(&mut server, 1);
    say(&mut server, open, &[hello("a.b.c")]);
    let due = server.poll_timeout().unwrap();
    server.handle_timeout(NOW);
    assert_eq!(server.poll_timeout(), Some(due), "not yet");
    server.handle_timeout(due);
    assert_eq!(server.poll_timeout(), None);
    assert_eq!(heard(&mut server, silent).iter().filter_map(code).collect::<Vec<_>>(), [(0, -1)]);
    assert!(server.is_finished(silent) && !server.is_finished(open));
    server.handle_closed(silent);
    // More strangers than there is room for: the oldest gives way.
    let first = connected(&mut server, 1);
    (0..MAX_STRANGERS).for_each(|_| _ = connected(&mut server, 1));
    server.check_invariants();
    assert_eq!(say(&mut server, first, &[hello("a.b.c")]), Flow::Ended);
    assert!(!server.is_finished(open));
}

#[test]
fn who_floods_ends_his_own() {
    let mut server = server();
    let early = connected(&mut server, 1);
    let hog: Vec<_> = (1..MAX_STRANGERS).map(|_| connected(&mut server, 2)).collect();
    let late = connected(&mut server, 3);
    (0..2 * MAX_STRANGERS).for_each(|_| _ = connected(&mut server, 2));
    server.check_invariants();
    assert!(hog.iter().all(|id| server.has_ended(*id)), "each gave way to the next");
    for (id, space) in [(early, "a.b.c"), (late, "a.b.d")] {
        assert_eq!(say(&mut server, id, &[hello(space)]), Flow::More);
        assert!(matches!(heard(&mut server, id)[..], [Frame::Welcome(_)]));
    }
    // Where all have as many it is the oldest one.
    let mut server = self::server();
    let many: Vec<_> = (0..MAX_STRANGERS as u32).map(|user| connected(&mut server, user)).collect();
    connected(&mut server, 1000);
    let ended: Vec<_> = many.iter().filter(|id| server.has_ended(**id)).collect();
    assert_eq!(ended, [&many[0]]);
}

#[test]
fn who_does_not_read_is_not_asked_more() {
    let mut server = server();
    let one = connected(&mut server, 1);
    say(&mut server, one, &[hello("a.b.c"), declare(1)]);
    let mut bytes = Vec::new();
    (0..2000).for_each(|request| publish(request + 2, "A").encode(&mut bytes));
    let mut input = BytesMut::from(&bytes[..]);
    let go = |server: &mut Server, input: &mut BytesMut| {
        loop {
            match server.handle_data(NOW, one, input) {
                Flow::Again => server.check_invariants(),
                flow => return flow,
            }
        }
    };
    assert_eq!(go(&mut server, &mut input), Flow::Write);
    server.check_invariants();
    let left = input.len();
    assert!(left > 0 && server.is_held_up(one));
    assert_eq!(go(&mut server, &mut input), Flow::Write);
    assert_eq!(input.len(), left);
    let mut answers = heard(&mut server, one).len();
    while go(&mut server, &mut input) == Flow::Write {
        answers += heard(&mut server, one).len();
    }
    answers += heard(&mut server, one).len();
    assert_eq!((input.len(), answers), (0, 2002), "nothing is lost");
}

#[test]
fn one_turn_is_bounded() {
    let mut server = server();
    let one = connected(&mut server, 1);
    let recent = |request| Frame::Subscribe {
        request: Request(request),
        id: SubscriptionId(request as u32),
        matching: Matching::Every,
        replay: Replay::Recent { events: 1, within: Duration::from_secs(1) },
        text: String::new(),
    };
    say(&mut server, one, &[hello("a.b.c")]);
    assert_eq!(heard(&mut server, one).len(), 1);
    for (frames, turns) in [
        ((0..200).map(declare).collect::<Vec<_>>(), 3),
        ((1..=64).map(declare).collect(), 0),
        ((1..=9).map(recent).collect(), 2),
        ((11..=20).map(|request| subscribe(request, "")).collect(), 0),
    ] {
        let mut bytes = Vec::new();
        for frame in &frames {
            frame.encode(&mut bytes);
        }
        let mut input = BytesMut::from(&bytes[..]);
        let again = core::iter::from_fn(|| match server.handle_data(NOW, one, &mut input) {
            Flow::Again => Some(()),
            _ => None,
        });
        assert_eq!(again.count(), turns);
        assert_eq!(heard(&mut server, one).len(), frames.len());
    }
}

#[test]
fn frames_come_in_any_pieces() {
    let mut server = server();
    let one = connected(&mut server, 1);
    let mut bytes = Vec::new();
    for frame in [hello("a.b.c"), declare(1), subscribe(2, ""), publish(3, "A")] {
        frame.encode(&mut bytes);
    }
    let mut input = BytesMut::new();
    for byte in bytes {
        input.extend_from_slice(&[byte]);
        assert_eq!(server.handle_data(NOW, one, &mut input), Flow::More);
    }
    let answers = heard(&mut server, one);
    assert!(matches!(
        answers[..],
        [_, Frame::Done(_), Frame::Subscribed { .. }, Frame::Published { .. }, Frame::Event(_)]
    ));
}

#[test]
fn what_is_acknowledged_is_stored_first() {
    let mut server = server();
    let config = Config { journal: true, ..Config::default() };
    server.agent_mut().set_config(config);
    let (one, other) = (connected(&mut server, 1), connected(&mut server, 2));
    say(&mut server, other, &[hello("a.b.c"), subscribe(1, "")]);
    say(&mut server, one, &[hello("a.b.c"), declare(1)]);
    heard(&mut server, one);
    heard(&mut server, other);

    say(&mut server, one, &[publish(2, "A"), declare(3), publish(0, "A"), publish(4, "A")]);
    assert_eq!(heard(&mut server, one), [], "nothing is stored, and answers keep their order");
    assert_eq!(heard(&mut server, other).len(), 3, "nobody else waits for that");
    let places: Vec<u64> =
        core::iter::from_fn(|| server.agent_mut().poll_journal()).map(|record| record.place).collect();
    assert_eq!(places, [1, 2, 3]);
    server.handle_stored(1);
    server.check_invariants();
    let answers = heard(&mut server, one);
    assert!(
        matches!(&answers[..], [Frame::Published { request: Request(2), .. }, Frame::Refused(twice)] if twice.code == Code::DuplicateEvent),
        "{answers:?}"
    );
    // The disk is full.
    server.handle_store_failed();
    server.check_invariants();
    let answers = heard(&mut server, one);
    assert!(
        matches!(&answers[..], [Frame::Refused(refused)] if refused.request == Request(4)),
        "{answers:?}"
    );
    say(&mut server, one, &[publish(5, "A"), publish(0, "A")]);
    let answers = heard(&mut server, one);
    assert!(
        matches!(&answers[..], [Frame::Refused(refused)] if refused.request == Request(5)),
        "{answers:?}"
    );
    assert_eq!(heard(&mut server, other).len(), 1, "what nobody acknowledges goes on");
    assert_eq!(server.agent_mut().poll_journal(), None);
    assert_eq!((server.agent().metrics().not_stored, server.agent().metrics().journal_lost), (1, 1));

    // There is room again.
    server.handle_stored(3);
    say(&mut server, one, &[publish(6, "A"), Frame::Bye]);
    assert_eq!(heard(&mut server, one), []);
    assert!(!server.is_finished(one), "an answer is owed");
    let record = server.agent_mut().poll_journal().unwrap();
    server.handle_stored(record.place);
    assert!(matches!(heard(&mut server, one)[..], [Frame::Published { .. }, Frame::Bye]));
    assert!(server.is_finished(one));
    server.check_invariants();
}

/// What a connection hears of a refusal by a rule.
fn denied(lowest: u64, highest: u64) -> Reason {
    let mut server = server();
    let id = connected(&mut server, 1000);
    let Frame::Hello(hello) = hello("FTB.network.steadfast") else { panic!() };
    say(&mut server, id, &[Frame::Hello(Hello { lowest, highest, ..hello }), declare(1), publish(2, "A")]);
    let answers = heard(&mut server, id);
    let [Frame::Welcome(welcome), Frame::Done(_), Frame::Refused(refused)] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(welcome.version, highest.min(2));
    assert!(refused.words.contains("may not") && refused.code == Code::General, "{refused:?}");
    refused.reason
}

#[test]
fn a_reason_for_those_who_know_it() {
    assert_eq!(denied(1, 1), Reason::Other, "a client of version 1 would not understand more");
    assert_eq!(denied(1, 2), Reason::Denied);
    assert_eq!(denied(2, 7), Reason::Denied);
}

#[test]
fn who_closes_its_side_is_owed_what_waits() {
    let mut server = server();
    server.agent_mut().set_config(Config { journal: true, ..Config::default() });
    let id = connected(&mut server, 1000);
    say(&mut server, id, &[hello("a.b.c"), declare(1), publish(2, "A"), publish(3, "A")]);
    heard(&mut server, id);
    server.handle_end_of_input(id);
    server.check_invariants();
    assert!(server.has_ended(id) && server.is_owed(id) && !server.is_finished(id));
    let place = server.agent().journal_place();
    server.handle_stored(place - 1);
    assert!(matches!(&heard(&mut server, id)[..], [Frame::Published { request: Request(2), .. }]));
    assert!(server.is_owed(id));
    server.handle_store_failed();
    let last = heard(&mut server, id);
    let [Frame::Refused(refused)] = &last[..] else { panic!("{last:?}") };
    assert_eq!((refused.request, refused.reason), (Request(3), Reason::NotStored));
    assert!(server.is_finished(id));
}
