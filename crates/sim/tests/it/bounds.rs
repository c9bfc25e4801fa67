//! A peer that takes what it can get: what it may make this side hold is bounded over all its processes and sessions,
//! and nobody else is the worse for it.

#![expect(clippy::unwrap_used, reason = "the inputs are this file's own")]

use bytes::{Bytes, BytesMut};
use std::time::Duration;
use steadfast_session::{Config, Endpoint, Event, Loss, Recv, SessionConfig};
use steadfast_sim::world::identity;
use steadfast_wire::frame::{Data, EndReason, Frame, Head, Hello, Process, Progress};
use steadfast_wire::{
    Address, Gather, Incarnation, Instant, Labels, MessageId, Network, NetworkClass, NetworkId, Order,
    PathNumber, SessionId, Token, Urgency,
};

const GREEDY: u8 = 1;
const FRIEND: u8 = 2;

/// A core, and peers whose every frame is written by hand.
struct Host {
    core: Endpoint,
    now: Instant,
    /// What it said since it was last looked at.
    said: Vec<Frame>,
    /// Frames of each path that are to be reported.
    counted: u64,
}

fn network() -> Network {
    Network {
        id: NetworkId(1),
        name: "net0".into(),
        class: NetworkClass::Ethernet,
        metered: false,
        cost: 0,
        port: 1,
        addresses: vec![Address { ip: "10.0.0.1".parse().unwrap(), prefix: 24 }],
    }
}

fn hello(incarnation: u64) -> Frame {
    Frame::Hello(Hello {
        version: 1,
        incarnation: Incarnation(incarnation),
        path: PathNumber(1),
        network: NetworkId(1),
        port: 1,
        features: 0,
        durable: false,
        max_message: 1 << 20,
        windows: [1 << 20; 2],
        process: Process::default(),
    })
}

impl Host {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let mut core = Endpoint::new(config, identity(0), [7; 32]);
        let now = Instant(1_000_000_000);
        core.handle_networks(now, vec![network()]);
        Self { core, now, said: Vec::new(), counted: 0 }
    }

    /// Process `incarnation` of a peer connects and says HELLO.
    fn greet(&mut self, peer: u8, incarnation: u64) -> PathNumber {
        let path = self.knock(peer).unwrap();
        self.say(path, &hello(incarnation));
        path
    }

    /// A peer connects and says nothing yet.
    fn knock(&mut self, peer: u8) -> Option<PathNumber> {
        let remote = format!("10.0.0.{}:1", 10 + peer).parse().unwrap();
        let ip = "10.0.0.1".parse().unwrap();
        self.core.handle_accepted(self.now, NetworkId(1), ip, remote, identity(peer.into()))
    }

    /// A peer says a frame; what is said to it is noted.
    fn say(&mut self, path: PathNumber, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert!(!self.core.handle_data(self.now, path, &mut BytesMut::from(&bytes[..])), "one frame");
        self.listen(path);
    }

    fn listen(&mut self, path: PathNumber) {
        while self.core.poll_action().is_some() {}
        while self.core.poll_ready().is_some() {}
        let mut out = Gather::default();
        while self.core.poll_transmit(self.now, path, 64 * 1024, &mut out) > 0 {}
        let mut out = BytesMut::from(&out.to_vec()[..]);
        while let Some(frame) = Frame::decode(&mut out).unwrap() {
            self.counted += u64::from(frame.is_counted());
            self.said.push(frame);
        }
    }

    fn open(&mut self, path: PathNumber, session: u64) {
        let token = Token([session as u8; 16]);
        self.say(path, &Frame::Open { session: SessionId(session), per_urgency: true, token });
    }

    fn accept_all(&mut self) {
        while self.core.accept(self.now, SessionConfig::default()).is_some() {}
    }

    /// A whole message of `size` bytes.
    fn send(&mut self, path: PathNumber, session: u64, id: u64, size: usize) {
        let mut offset = 0;
        loop {
            let piece = (size - offset).min(60_000);
            let fin = offset + piece == size;
            self.say(path, &data(session, id, offset as u64, vec![1; piece].into(), size as u64, fin));
            offset += piece;
            if fin {
                return;
            }
        }
    }

    /// Every peer but the greedy one is served as ever.
    fn serves_a_friend(&mut self) {
        let path = self.greet(FRIEND, 77);
        self.open(path, 1 << 40);
        self.accept_all();
        self.send(path, 1 << 40, 1, 100_000);
        let received = self.core.recv(self.now, SessionId(1 << 40)).unwrap();
        assert!(
            matches!(received, Recv::Message(message) if message.payload.as_ref().unwrap().len() == 100_000)
        );
        self.core.check_invariants();
    }

    fn ended(&self, why: EndReason) -> usize {
        self.said.iter().filter(|frame| matches!(frame, Frame::End { reason, .. } if *reason == why)).count()
    }
}

fn data(session: u64, id: u64, offset: u64, payload: Bytes, length: u64, fin: bool) -> Frame {
    let order = Order::Unordered { sequence: id - 1 };
    let (streamed, length) = (length > 1 << 20, Some(length));
    let head = Head { labels: Labels::background(), order, streamed, length, expires_in: None };
    Frame::Data(Data {
        session: SessionId(session),
        id: MessageId(id),
        offset,
        class: Urgency::Background,
        fin,
        head: (offset == 0).then_some(head),
        payload,
    })
}

/// An empty view of a conversation, claimed with `token`.
fn claim(session: u64, token: Token) -> steadfast_wire::frame::Resume {
    let none = steadfast_wire::RangeSet::new;
    steadfast_wire::frame::Resume {
        session: SessionId(session),
        fresh: false,
        per_urgency: true,
        expects: false,
        confirmed: Some(token),
        offered: vec![Token([8; 16])],
        holds: None,
        next: MessageId(1),
        shut: None,
        received: none(),
        delivered: none(),
        dropped: none(),
        partial: Vec::new(),
        charged: [0; 2],
        limits: [1 << 20; 2],
    }
}

#[test]
fn a_flood_of_sessions_leaves_room_for_others() {
    let mut host = Host::new(|_| {});
    let path = host.greet(GREEDY, 1);
    for session in 1..=5000 {
        host.open(path, session);
    }
    assert_eq!(host.core.stats().refused_sessions, 5000 - 1024);
    assert!(host.ended(EndReason::Refused) > 0);
    host.serves_a_friend();
}

#[test]
fn whoever_makes_us_hold_too_much_loses_that_conversation_and_nobody_else_does() {
    let mut host = Host::new(|config| config.max_held = 4 << 20);
    let path = host.greet(GREEDY, 1);
    for session in 1..=200 {
        host.open(path, session);
        for id in 1..=5 {
            host.send(path, session, id, 80_000);
        }
        host.core.check_invariants();
    }
    assert!(host.core.stats().refused_memory > 150, "{:?}", host.core.stats());
    assert!(host.ended(EndReason::Refused) > 150);
    host.serves_a_friend();
}

#[test]
fn empty_messages_are_not_free() {
    let mut host = Host::new(|config| config.max_held = 4 << 20);
    let path = host.greet(GREEDY, 1);
    for session in 1..=10 {
        host.open(path, session);
        for id in 1..=3000 {
            host.send(path, session, id, 0);
        }
    }
    // 3,000 of them cost a window 192,000 bytes, and us eight times that.
    assert!(host.core.stats().refused_memory >= 7, "{:?}", host.core.stats());
    host.serves_a_friend();
}

#[test]
fn holes_are_bounded_and_weighed() {
    let mut host = Host::new(|config| config.max_held = 4 << 20);
    let path = host.greet(GREEDY, 1);
    host.open(path, 1);
    'flood: for id in 1..=8000 {
        for offset in (0..2000).step_by(2) {
            host.say(path, &data(1, id, offset, Bytes::from_static(b"x"), 4000, false));
            if host.core.stats().refused_memory > 0 {
                break 'flood;
            }
        }
    }
    assert!(host.ended(EndReason::Refused) == 1);
    host.open(path, 2);
    for offset in (0..4000).step_by(2) {
        host.say(path, &data(2, 1, offset, Bytes::from_static(b"x"), 4000, false));
    }
    assert_eq!(host.core.stats().violations_limit, 1, "more than 1,024 holes in one message");
    host.serves_a_friend();
}

#[test]
fn the_processes_of_a_peer_are_bounded_and_dead_ones_make_room() {
    let mut host = Host::new(|config| config.max_processes = 8);
    let paths: Vec<_> = (1..=8)
        .map(|process| {
            let path = host.greet(GREEDY, process);
            host.open(path, process);
            path
        })
        .collect();
    host.greet(GREEDY, 100);
    assert_eq!(host.core.stats().refused_processes, 1, "all eight live");
    host.serves_a_friend();
    // The third and the fifth die; the third is gone longer.
    for dies in [2, 4] {
        host.now += Duration::from_secs(1);
        host.core.handle_carrier_lost(host.now, paths[dies], Loss::Ended);
    }
    host.greet(GREEDY, 101);
    assert_eq!(host.core.stats().refused_processes, 1);
    assert_eq!(host.core.stats().forgotten, 1);
    let left: Vec<_> = host.core.sessions().collect();
    assert!(!left.contains(&SessionId(3)) && left.contains(&SessionId(5)), "{left:?}");
    host.core.check_invariants();
}

#[test]
fn parked_sessions_are_counted_over_all_processes_of_a_peer() {
    let mut host = Host::new(|config| config.max_parked = 10);
    for process in 1..=4 {
        let path = host.greet(GREEDY, process);
        for session in 0..5 {
            host.open(path, process * 100 + session);
        }
        host.now += Duration::from_secs(1);
        host.core.handle_carrier_lost(host.now, path, Loss::Ended);
        host.core.check_invariants();
    }
    assert_eq!(host.core.stats().forgotten, 10);
    let left: Vec<_> = host.core.sessions().collect();
    assert!(left.iter().all(|session| session.0 >= 300) && left.len() == 10, "the oldest go first: {left:?}");
    host.serves_a_friend();
}

#[test]
fn a_flood_of_networks_closes_the_path() {
    let mut host = Host::new(|_| {});
    let path = host.greet(GREEDY, 1);
    for epoch in 1..=1000 {
        let mut network = network();
        network.name = format!("n{epoch}");
        host.say(path, &Frame::Networks { epoch, networks: vec![network] });
    }
    assert_eq!(host.core.stats().violations_limit, 1);
    host.serves_a_friend();
}

#[test]
fn a_peer_that_reports_nothing_hears_no_more_after_a_while() {
    let mut host = Host::new(|_| {});
    let path = host.greet(GREEDY, 1);
    host.open(path, 1);
    host.accept_all();
    for id in 1..=100_000 {
        host.send(path, 1, id, 1);
        let _message = host.core.recv(host.now, SessionId(1)).unwrap();
        host.said.clear();
        // It goes on talking, so it is not silent.
        host.now += Duration::from_micros(10);
    }
    assert!(host.counted <= 65_536 + 16, "{} frames wait for its report", host.counted);
    let report = Progress { path, count: host.counted, delay: 0, clock: 1 };
    host.say(path, &Frame::Progress(report));
    host.listen(path);
    assert!(host.said.iter().any(|frame| matches!(frame, Frame::Ack(..))), "and then everything is said");
    host.serves_a_friend();
}

#[test]
fn windows_grow_for_an_application_that_reads_and_only_so_far() {
    for (max_growth, most) in [(256 << 20, 16 << 20), (1 << 20, 3 << 20)] {
        let mut host = Host::new(|config| config.max_growth = max_growth);
        let path = host.greet(GREEDY, 1);
        host.open(path, 1);
        host.accept_all();
        let (mut credit, mut sent) = (0, 0);
        for id in 1..=600u64 {
            host.send(path, 1, id, 100_000);
            sent += 100_064;
            let _message = host.core.recv(host.now, SessionId(1)).unwrap();
            host.listen(path);
            for frame in host.said.drain(..) {
                if let Frame::Credit { limit, .. } = frame {
                    credit = limit;
                }
            }
        }
        let window = credit - sent;
        assert!((most * 7 / 8..=most).contains(&window), "{window} of {most}");
        host.core.check_invariants();
    }
}

#[test]
fn a_conversation_is_resumed_only_by_the_identity_that_opened_it() {
    let mut host = Host::new(|_| {});
    let friend = host.greet(FRIEND, 5);
    host.open(friend, 9);
    host.accept_all();
    host.core.handle_carrier_lost(host.now, friend, Loss::Ended);
    while host.core.poll_event().is_some() {}
    let thief = host.greet(GREEDY, 1);
    let resume = steadfast_wire::frame::Resume { fresh: true, ..claim(9, Token([9; 16])) };
    host.say(thief, &Frame::Resume(resume));
    host.send(thief, 9, 1, 10);
    assert!(host.ended(EndReason::Unknown) > 0, "{:?}", host.said);
    assert_eq!(host.core.peer(SessionId(9)), Some(identity(FRIEND.into())));
    assert_eq!(host.core.recv(host.now, SessionId(9)), Ok(Recv::Pending));
    while let Some(event) = host.core.poll_event() {
        assert!(!matches!(event, Event::Ended { .. } | Event::Resumed { .. }), "{event:?}");
    }
    host.core.check_invariants();
}

#[test]
fn those_who_do_not_greet_keep_nobody_else_out() {
    let mut host = Host::new(|_| {});
    for _ in 0..1000 {
        host.knock(GREEDY);
    }
    assert_eq!(host.core.stats().refused_greetings, 1000 - 256);
    host.serves_a_friend();
}

#[test]
fn paths_of_all_processes_are_counted() {
    let mut host = Host::new(|config| config.max_peer_paths = 20);
    for process in 1..=64 {
        if let Some(path) = host.knock(GREEDY) {
            host.say(path, &hello(process));
        }
    }
    assert_eq!(host.core.paths().len(), 20);
    assert_eq!(host.core.stats().refused_processes, 44);
    host.serves_a_friend();
}

#[test]
fn who_is_no_longer_trusted_does_not_get_in_by_a_connection_of_before() {
    let mut host = Host::new(|_| {});
    let kept = host.knock(GREEDY).unwrap();
    host.core.forget(host.now, identity(GREEDY.into()), "gone");
    host.say(kept, &hello(1));
    host.open(kept, 1);
    assert_eq!(host.core.paths(), []);
    assert_eq!(host.core.sessions().count(), 0);
    host.serves_a_friend();
}

#[test]
fn a_peer_that_is_another_process_wherever_it_is_dialled_is_bounded() {
    let mut host = Host::new(|config| config.max_processes = 8);
    let remote = "10.0.0.11:1".parse().unwrap();
    host.core.connect(host.now, identity(GREEDY.into()), &[remote], SessionConfig::default());
    let networks: Vec<_> = (1..=16)
        .map(|id| {
            let ip = format!("10.0.0.{}", 100 + id).parse().unwrap();
            Network { id: NetworkId(id), port: 9, addresses: vec![Address { ip, prefix: 24 }], ..network() }
        })
        .collect();
    let (mut dialled, mut process) = (0, 0);
    for _ in 0..500 {
        host.now += Duration::from_millis(100);
        host.core.handle_timeout(host.now);
        let mut connects = Vec::new();
        while let Some(action) = host.core.poll_action() {
            if let steadfast_session::Action::Connect { path, .. } = action {
                connects.push(path);
            }
        }
        for path in connects {
            dialled += 1;
            process += 1;
            host.core.handle_connected(host.now, path, "10.0.0.1".parse().unwrap());
            host.say(path, &hello(process));
            host.say(path, &Frame::Networks { epoch: process, networks: networks.clone() });
        }
        host.core.check_invariants();
    }
    assert!(host.core.paths().len() <= 64, "{} paths", host.core.paths().len());
    assert!(dialled < 1000, "{dialled} connections in 50 s");
    host.serves_a_friend();
}

#[test]
fn endings_of_one_peer_make_those_of_another_not_forgotten() {
    let mut host = Host::new(|_| {});
    let friend = host.greet(FRIEND, 5);
    host.open(friend, 9);
    let end = |session| Frame::End {
        session: SessionId(session),
        reason: EndReason::Aborted,
        common: MessageId(0),
    };
    host.say(friend, &end(9));
    let path = host.greet(GREEDY, 1);
    for session in 100..10_100 {
        host.open(path, session);
        host.say(path, &end(session));
    }
    host.said.clear();
    // An OPEN of before, which was late.
    host.open(friend, 9);
    assert_eq!(host.ended(EndReason::Aborted), 1, "{:?}", host.said);
    host.core.check_invariants();
}

#[test]
fn a_resume_that_claims_what_was_never_sent_ends_the_conversation() {
    for partial in [0..(1 << 62) - 1, 0..200, 500..501] {
        let mut host = Host::new(|_| {});
        let path = host.greet(GREEDY, 1);
        host.open(path, 1);
        host.accept_all();
        let order = steadfast_session::OrderRequest::Default;
        host.core.send(host.now, SessionId(1), Labels::foreground(), order, vec![1; 100].into()).unwrap();
        host.listen(path);
        let accept =
            |frame: &Frame| if let Frame::Accept { token, .. } = frame { Some(*token) } else { None };
        let holds = host.said.iter().find_map(accept);
        let resume = steadfast_wire::frame::Resume {
            offered: vec![Token([8; 16])],
            holds,
            partial: vec![(MessageId(1), [partial].into_iter().collect())],
            ..claim(1, Token([1; 16]))
        };
        host.say(path, &Frame::Resume(resume));
        assert_eq!(host.core.sessions().count(), 0, "{:?}", host.said);
        host.serves_a_friend();
    }
}

#[test]
fn a_message_is_as_long_as_its_head_says() {
    let mut host = Host::new(|_| {});
    let path = host.greet(GREEDY, 1);
    host.open(path, 1);
    host.say(path, &data(1, 1, 0, Bytes::from_static(b"short"), 100, true));
    assert_eq!(host.core.stats().violations_flow_control, 1);
    host.serves_a_friend();
}
