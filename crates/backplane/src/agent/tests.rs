use super::*;
use crate::access::Rule;
use crate::code::Code;
use crate::limit::Rate;
use crate::name::{ClientName, JobId};
use alloc::string::ToString;
use alloc::vec;

mod model;

const NOW: Instant = Instant(1_000_000_000);

fn host(origin: u8) -> Host {
    Host {
        origin: Fingerprint([origin; 32]),
        incarnation: Incarnation(9),
        name: HostName::new("node7").unwrap(),
        address: None,
    }
}

fn process(user: u32) -> Process {
    Process { user, pid: 70 + user, start: Timestamp(5), own: false }
}

fn agent(config: Config) -> Agent {
    let mut agent = Agent::new(config, Rules::default(), host(1));
    agent.handle_wall_time(Instant(0), Timestamp(1_000));
    agent
}

fn small() -> Config {
    Config { queue_events: 5, history_events: 8, outbox_events: 4, max_origins: 3, ..Config::default() }
}

fn client(agent: &mut Agent, user: u32, space: &str) -> ClientId {
    let name = Client { name: ClientName::new("test").unwrap(), job: JobId::NONE, extension: 0 };
    let space = EventSpace::new(space).unwrap();
    let id = agent.attach(NOW, process(user), Some(space), name).unwrap();
    let events = ["A", "B"].map(|name| Declaration::new(name, "info").unwrap());
    agent.declare(id, &events, None).unwrap();
    id
}

fn publication(name: &str) -> Publication {
    Publication { name: EventName::new(name).unwrap(), kind: Kind::Plain, payload: Payload::EMPTY }
}

fn subscribe(agent: &mut Agent, client: ClientId, id: u32, text: &str, replay: Replay) -> Replayed {
    let wanted = Subscription::new(text).unwrap();
    agent.subscribe(NOW, client, SubscriptionId(id), wanted, Matching::Every, replay).unwrap()
}

/// Sequences of what a client gets; drops as negative numbers.
fn taken(agent: &mut Agent, client: ClientId) -> Vec<i64> {
    agent.check_invariants();
    core::iter::from_fn(|| {
        Some(match agent.poll(client)? {
            Next::Dropped(count) => -count.cast_signed(),
            Next::Event(delivery) => delivery.event.id.sequence.cast_signed(),
        })
    })
    .collect()
}

#[test]
fn an_event_says_who_and_when() {
    let mut agent = agent(Config::default());
    let one = client(&mut agent, 7, "FTB.apps.test");
    let info = SchemaInfo::new("2", "more").unwrap();
    agent.declare(one, &[Declaration::new("Third", "FATAL").unwrap()], Some(info.clone())).unwrap();
    subscribe(&mut agent, one, 1, "", Replay::Nothing);
    let first = agent.publish(NOW, one, publication("a"), true).unwrap();
    let answer = Publication { kind: Kind::Answer(first.clone().into()), ..publication("THIRD") };
    let second = agent.publish(NOW + Duration::from_nanos(5), one, answer, false).unwrap();
    assert_eq!(agent.poll_ready(), Some(one));
    assert_eq!(agent.poll_ready(), None, "once");
    let Some(Next::Event(delivery)) = agent.poll(one) else { panic!("nothing") };
    assert_eq!((delivery.event.handle(), delivery.event.name.as_str()), (first.clone(), "A"), "as declared");
    let Some(Next::Event(Delivery { event, provenance, replay })) = agent.poll(one) else {
        panic!("nothing")
    };
    assert_eq!((provenance, replay, agent.poll(one)), (Provenance::Local, None, None));
    assert_eq!(event.id, EventId { origin: host(1).origin, incarnation: Incarnation(9), sequence: 2 });
    assert_eq!((event.handle(), event.number, event.severity), (second, 2, Severity::FATAL));
    assert_eq!(event.kind, Kind::Answer(first.into()));
    assert_eq!((event.user, event.location.pid, event.location.start), (7, 77, Timestamp(5)));
    assert_eq!(event.time, Timestamp(1_000 + 1_000_000_005));
    assert_eq!(event.schema.as_deref(), Some(&info));
    agent.publish(NOW, one, publication("B"), false).unwrap();
    assert_eq!(agent.poll_ready(), Some(one), "told again once it had taken everything");
}

#[test]
fn declared_events_and_codes() {
    let mut agent = agent(Config::default());
    let one = client(&mut agent, 7, "FTB.apps.test");
    let declare = |agent: &mut Agent, names: &[&str]| {
        let events: Vec<_> = names.iter().map(|name| Declaration::new(name, "error").unwrap()).collect();
        agent.declare(one, &events, None).map_err(DeclareError::code)
    };
    let publish = |agent: &mut Agent, name| {
        agent.publish(NOW, one, publication(name), true).map_err(PublishError::code)
    };
    assert_eq!(publish(&mut agent, "C"), Err(Code::InvalidEventName));
    assert_eq!(declare(&mut agent, &["a", "C"]), Err(Code::DuplicateEvent));
    assert_eq!(publish(&mut agent, "a").unwrap().severity, Severity::INFO, "as it was");
    assert!(publish(&mut agent, "C").is_ok(), "what follows a duplicate is declared");
    assert_eq!(declare(&mut agent, &["D", "d", "E"]), Err(Code::DuplicateEvent));
    let many: Vec<_> = (0..MAX_DECLARED).map(|number| alloc::format!("E{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| &name[..]).collect();
    assert_eq!(declare(&mut agent, &many), Err(Code::General));
    assert_eq!(publish(&mut agent, "E0"), Err(Code::InvalidEventName), "all or none");
    assert_eq!(declare(&mut agent, &many[..MAX_DECLARED - 5]), Ok(()));
    assert_eq!(declare(&mut agent, &["X"]), Err(Code::General));
    let name = Client { name: ClientName::NONE, job: JobId::NONE, extension: 0 };
    let silent = agent.attach(NOW, process(7), None, name).unwrap();
    let declared = agent.declare(silent, &[Declaration::new("A", "info").unwrap()], None);
    assert_eq!(declared.unwrap_err().code(), Code::EventSpaceFormat);
    assert!(matches!(agent.publish(NOW, silent, publication("A"), true), Err(PublishError::Undeclared(_))));
    agent.detach(one);
    assert_eq!(publish(&mut agent, "a"), Err(Code::InvalidHandle));
    assert_eq!(declare(&mut agent, &["a"]), Err(Code::InvalidHandle));
    assert_eq!(agent.unsubscribe(one, SubscriptionId(1)).unwrap_err().code(), Code::InvalidHandle);
    assert_eq!(agent.metrics().undeclared, 3);
}

#[test]
fn rules_decide() {
    let mut agent = agent(Config::default());
    let own = client(&mut agent, 7, "FTB.network.steadfast");
    let error = agent.publish(NOW, own, publication("A"), true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "user 7 may not publish in `FTB.network.steadfast`; whoever runs this host's daemon can \
                                   allow it in its configuration"
    );
    let root = client(&mut agent, 0, "ftb.network.steadfast");
    agent.publish(NOW, root, publication("A"), true).unwrap();
    let name = Client { name: ClientName::NONE, job: JobId::NONE, extension: 0 };
    let daemon = Process { own: true, ..process(7) };
    let daemon = agent.attach(NOW, daemon, EventSpace::new(crate::OWN_SPACE).ok(), name).unwrap();
    agent.declare(daemon, &[Declaration::new("A", "info").unwrap()], None).unwrap();
    agent.publish(NOW, daemon, publication("A"), true).unwrap();

    let secret = |who, subscribe| Rule {
        spaces: EventSpace::new("a.secret.all").unwrap(),
        who,
        publish: None,
        subscribe: Some(subscribe),
    };
    agent.set_rules(Rules(vec![secret(Who::User(1), true), secret(Who::Anyone, false)]));
    let (one, two) = (client(&mut agent, 1, "a.secret.x"), client(&mut agent, 2, "a.open.x"));
    let denied = agent.subscribe(
        NOW,
        two,
        SubscriptionId(1),
        Subscription::new("event_space=a.secret.x").unwrap(),
        Matching::Every,
        Replay::Nothing,
    );
    assert!(matches!(denied, Err(SubscribeError::Denied { user: 2, .. })));
    for client in [one, two] {
        subscribe(&mut agent, client, 1, "event_space=a.all.all", Replay::Nothing);
        agent.publish(NOW, client, publication("A"), true).unwrap();
    }
    assert_eq!(taken(&mut agent, one), [3, 4]);
    assert_eq!(taken(&mut agent, two), [4], "it gets what it may");
    let past =
        subscribe(&mut agent, two, 2, "", Replay::Recent { events: 9, within: Duration::from_secs(9) });
    assert_eq!(past.events, 2, "also of the past: the first two");
    assert_eq!(agent.metrics().denied, 2);
}

#[test]
fn floods_are_refused_with_a_time() {
    let rate = |burst| Rate { per_second: 10, burst };
    let mut agent = agent(Config { client_rate: rate(3), user_rate: rate(4), ..Config::default() });
    let (one, two, other) =
        (client(&mut agent, 1, "a.b.c"), client(&mut agent, 1, "a.b.d"), client(&mut agent, 2, "a.b.c"));
    let mut go = |now, client| agent.publish(now, client, publication("A"), true).map(|_| ());
    assert_eq!([go(NOW, one), go(NOW, one), go(NOW, one)], [Ok(()), Ok(()), Ok(())]);
    let wait = Duration::from_millis(100);
    assert_eq!(go(NOW, one), Err(PublishError::TooFast { retry_after: wait }));
    assert_eq!(go(NOW, two), Ok(()));
    assert_eq!(go(NOW, two), Err(PublishError::TooFast { retry_after: wait }), "all of a user together");
    assert_eq!(go(NOW, other), Ok(()));
    assert_eq!(go(NOW + wait, one), Ok(()));
    assert_eq!(agent.metrics().too_fast, 2);
    // A user who comes back is the same user.
    agent.detach(one);
    agent.detach(two);
    let again = client(&mut agent, 1, "a.b.c");
    assert!(agent.publish(NOW + wait, again, publication("A"), true).is_err());
}

#[test]
fn places_are_limited_and_queues_shared() {
    let config = Config { max_clients: 3, max_user_clients: 2, all_queue_bytes: 90_000, ..Config::default() };
    let mut agent = agent(config);
    let one = client(&mut agent, 1, "a.b.c");
    subscribe(&mut agent, one, 1, "", Replay::Nothing);
    let payload = Payload::new(vec![0; 10_000].into()).unwrap();
    for _ in 0..20 {
        agent.publish(NOW, one, Publication { payload: payload.clone(), ..publication("A") }, true).unwrap();
    }
    agent.check_invariants();
    let full = agent.metrics().queued_bytes_now;
    assert!((70_000..=90_000).contains(&full), "{full}");
    client(&mut agent, 1, "a.b.d");
    assert!(agent.metrics().queued_bytes_now <= 45_000, "a new client has its share");
    let name = Client { name: ClientName::NONE, job: JobId::NONE, extension: 0 };
    assert_eq!(agent.attach(NOW, process(1), None, name), Err(AttachError::UserFull(2)));
    client(&mut agent, 2, "a.b.d");
    assert_eq!(agent.attach(NOW, process(3), None, name), Err(AttachError::Full(3)));
    assert!(agent.attach(NOW, Process { own: true, ..process(1) }, None, name).is_ok());
    agent.check_invariants();
    agent.detach(one);
    assert_eq!(agent.metrics().queued_bytes_now, 0);
    agent.check_invariants();
}

#[test]
fn the_past_is_replayed_once() {
    let mut agent = agent(small());
    let one = client(&mut agent, 1, "a.b.c");
    let handles: Vec<_> = (0..10).map(|_| agent.publish(NOW, one, publication("A"), true).unwrap()).collect();
    let recent = |events| Replay::Recent { events, within: Duration::from_secs(60) };
    let told = |events, complete| Replayed { events, complete };
    assert_eq!(subscribe(&mut agent, one, 1, "", recent(2)), told(2, true));
    assert_eq!(taken(&mut agent, one), [9, 10]);
    // What came through the first is not told again.
    assert_eq!(subscribe(&mut agent, one, 2, "", recent(4)), told(2, true));
    assert_eq!(taken(&mut agent, one), [7, 8]);
    agent.publish(NOW, one, publication("B"), true).unwrap();
    assert_eq!(taken(&mut agent, one), [11], "once");
    for (id, replay, expected, events) in [
        (3, Replay::After(handles[8].id), told(2, true), &[10, 11][..]),
        (4, Replay::After(handles[0].id), told(5, false), &[7, 8, 9, 10, 11]),
        (5, Replay::Nothing, told(0, true), &[]),
        (6, recent(u32::MAX), told(5, false), &[7, 8, 9, 10, 11]),
        (7, Replay::Recent { events: 9, within: Duration::ZERO }, told(5, false), &[7, 8, 9, 10, 11]),
    ] {
        let late = client(&mut agent, 2, "a.b.c");
        assert_eq!(subscribe(&mut agent, late, id, "", replay), expected, "{replay:?}");
        assert_eq!(taken(&mut agent, late), events, "{replay:?}");
        agent.detach(late);
    }
    let late = client(&mut agent, 2, "a.b.c");
    let later = NOW + Duration::from_secs(2);
    let wanted = Replay::Recent { events: 9, within: Duration::from_secs(1) };
    let past =
        agent.subscribe(later, late, SubscriptionId(1), Subscription::ALL, Matching::Every, wanted).unwrap();
    assert_eq!(past, told(0, true));
}

fn remote(origin: u8, sequence: u64) -> Event {
    let mut event = crate::arbitrary::event();
    event.id = EventId { origin: Fingerprint([origin; 32]), incarnation: Incarnation(1), sequence };
    event
}

#[test]
fn events_of_other_hosts() {
    const SIGNED: Arrival = Arrival { peer: None, verified: true };
    const UNSIGNED: Arrival = Arrival { peer: None, verified: false };
    let mut agent = agent(small());
    let sink = agent.add_sink(Keep::UntilConfirmed).unwrap();
    let one = client(&mut agent, 1, "a.b.c");
    subscribe(&mut agent, one, 1, "", Replay::Nothing);
    let session = |peer: u8| Arrival { peer: Some(Fingerprint([peer; 32])), verified: false };
    let mut own_run = remote(1, 7);
    own_run.id.incarnation = Incarnation(9);
    let mut own_space = remote(3, 8);
    own_space.space = EventSpace::new(crate::OWN_SPACE).unwrap();
    for (event, arrival, expected) in [
        (remote(2, 1), UNSIGNED, Arrived::Delivered(1)),
        (remote(2, 1), UNSIGNED, Arrived::Duplicate),
        // What somebody made up does not stand in the way of the true one.
        (remote(2, 1), SIGNED, Arrived::Delivered(1)),
        (remote(2, 1), session(2), Arrived::Duplicate),
        (remote(2, 2), session(3), Arrived::Relayed),
        (remote(2, 2), session(2), Arrived::Delivered(1)),
        (own_run.clone(), SIGNED, Arrived::Own),
        (own_run, UNSIGNED, Arrived::Own),
        (remote(1, 7), UNSIGNED, Arrived::Own),
        (remote(1, 7), SIGNED, Arrived::Delivered(1)),
        (own_space.clone(), UNSIGNED, Arrived::Denied),
        (own_space, SIGNED, Arrived::Delivered(1)),
        (remote(2, 0), SIGNED, Arrived::Malformed),
        (remote(2, u64::MAX), SIGNED, Arrived::Malformed),
    ] {
        let id = event.id;
        assert_eq!(agent.handle_remote(NOW, event, arrival), expected, "{id} {arrival:?}");
        agent.check_invariants();
    }
    let marks: Vec<_> = core::iter::from_fn(|| match agent.poll(one) {
        Some(Next::Event(delivery)) => Some(delivery.provenance),
        _ => None,
    })
    .collect();
    let (signed, unsigned) = (Provenance::Signed, Provenance::Unsigned);
    assert_eq!(marks, [unsigned, signed, signed, signed, signed]);
    assert_eq!(agent.poll_sink(sink), None, "nothing of others leaves");
    let metrics = agent.metrics();
    assert_eq!(
        (metrics.remote, metrics.remote_unsigned, metrics.remote_duplicates, metrics.remote_own),
        (5, 1, 2, 3)
    );
    // A flood of made-up hosts: bounded, and what was signed is remembered.
    let mut delivered = 0;
    for sequence in 1..5000 {
        let made_up = remote((sequence % 200) as u8 + 10, sequence);
        delivered += u32::from(matches!(agent.handle_remote(NOW, made_up, UNSIGNED), Arrived::Delivered(_)));
    }
    assert_eq!(delivered, 998, "the burst, less the two before");
    assert_eq!(agent.handle_remote(NOW, remote(2, 1), SIGNED), Arrived::Duplicate);
    assert!(agent.metrics().origins_now <= 6);
    agent.check_invariants();
}

#[test]
fn acknowledged_events_leave_or_are_refused() {
    let mut agent = agent(small());
    let broker = agent.add_sink(Keep::UntilConfirmed).unwrap();
    let peer = agent.add_sink(Keep::WhileRoom).unwrap();
    let one = client(&mut agent, 1, "a.b.c");
    let go =
        |agent: &mut Agent, acknowledged| agent.publish(NOW, one, publication("A"), acknowledged).map(|_| ());
    let out = |agent: &mut Agent, sink| -> Vec<i64> {
        agent.check_invariants();
        core::iter::from_fn(|| {
            Some(match agent.poll_sink(sink)? {
                Outgoing::Lost(count) => -count.cast_signed(),
                Outgoing::Event { event, .. } => event.id.sequence.cast_signed(),
            })
        })
        .collect()
    };
    for _ in 0..4 {
        go(&mut agent, true).unwrap();
    }
    assert_eq!(out(&mut agent, broker), [1, 2, 3, 4]);
    assert_eq!(go(&mut agent, true), Err(PublishError::OutboxFull));
    assert_eq!(go(&mut agent, false), Ok(()), "it is for this host at least");
    assert_eq!(out(&mut agent, peer), [-1, 1, 2, 3, 4]);
    agent.handle_confirmed(broker, 2);
    agent.handle_interrupted(broker);
    assert_eq!(out(&mut agent, broker), [-1, 3, 4], "again what was not confirmed");
    go(&mut agent, true).unwrap();
    go(&mut agent, true).unwrap();
    assert_eq!(go(&mut agent, true), Err(PublishError::OutboxFull));
    // More than was given out cannot be confirmed.
    agent.handle_confirmed(broker, u64::MAX);
    agent.handle_interrupted(broker);
    assert_eq!(out(&mut agent, broker), [6, 7]);
    agent.remove_sink(broker);
    for _ in 0..9 {
        go(&mut agent, true).unwrap();
    }
    assert_eq!(out(&mut agent, peer), [-7, 13, 14, 15, 16]);
    agent.remove_sink(peer);
    agent.check_invariants();
    go(&mut agent, true).unwrap();
    assert_eq!((agent.metrics().outbox_events_now, agent.metrics().outbox_bytes_now), (0, 0));
    assert_eq!((agent.metrics().outbox_full, agent.metrics().outbox_lost), (2, 1));
}

#[test]
fn a_client_that_never_reads() {
    let mut agent = agent(small());
    let one = client(&mut agent, 1, "a.b.c");
    subscribe(&mut agent, one, 1, "", Replay::Nothing);
    for _ in 0..100 {
        agent.publish(NOW, one, publication("A"), true).unwrap();
        agent.check_invariants();
    }
    assert_eq!(taken(&mut agent, one), [-95, 96, 97, 98, 99, 100]);
    // Coming and going leaves nothing.
    for _ in 0..100 {
        let other = client(&mut agent, 1, "a.b.c");
        subscribe(&mut agent, other, 1, "", Replay::Recent { events: 1, within: Duration::from_secs(1) });
        agent.detach(other);
        agent.check_invariants();
    }
    assert_eq!(agent.poll_ready(), None, "it has taken everything");
}

#[test]
fn what_an_earlier_run_stored_is_there_again() {
    let stored: Vec<Delivery> = {
        let mut agent = agent(Config { journal: true, ..Config::default() });
        let one = client(&mut agent, 1, "a.b.c");
        for _ in 0..4 {
            agent.publish(NOW, one, publication("A"), true).unwrap();
        }
        core::iter::from_fn(|| agent.poll_journal()).map(|record| record.delivery).collect()
    };
    assert_eq!(stored.len(), 4);
    let mut agent = agent(Config { journal: true, ..Config::default() });
    agent.host.incarnation = Incarnation(10);
    let broker = agent.add_sink(Keep::UntilConfirmed).unwrap();
    let last = stored[3].event.id;
    for (index, delivery) in stored[..3].iter().enumerate() {
        agent.restore(NOW, delivery.clone(), index > 0);
    }
    assert_eq!(agent.poll_journal(), None, "it is stored");
    let sent: Vec<u64> = core::iter::from_fn(|| agent.poll_sink(broker))
        .filter_map(|out| match out {
            Outgoing::Event { event, .. } => Some(event.id.sequence),
            Outgoing::Lost(_) => None,
        })
        .collect();
    assert_eq!(sent, [2, 3], "what the broker did not confirm");
    let one = client(&mut agent, 1, "a.b.c");
    agent.publish(NOW, one, publication("A"), true).unwrap();
    // Two that heard different events last; one of them an event that was not stored.
    for (after, expected) in [(stored[1].event.id, &[3, 1][..]), (last, &[1])] {
        let late = client(&mut agent, 2, "x.y.z");
        let replayed = agent
            .subscribe(
                NOW,
                late,
                SubscriptionId(1),
                Subscription::new("").unwrap(),
                Matching::Every,
                Replay::After(after),
            )
            .unwrap();
        assert!(replayed.complete);
        assert_eq!(taken(&mut agent, late), expected);
        agent.detach(late);
    }
    agent.check_invariants();
}
