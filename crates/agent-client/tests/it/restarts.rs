//! The agent is killed and started again.

use super::*;
use steadfast_agent_client::Error;
use steadfast_backplane::{Matching, Receive, Replay};

#[test]
fn everything_stands_again_and_nothing_is_missed() {
    let place = Place::new();
    let agent = place.agent();
    let (mut one, mut other) = (place.publisher(), place.client("other"));
    let (all, _) = other.subscribe("", Matching::Every, Replay::Nothing, Receive::Polling).unwrap();
    one.publish(publication("A")).unwrap();
    assert!(other.poll(all, GUARD).unwrap().is_some());
    drop(agent);
    assert!(matches!(one.publish(publication("A")), Err(Error::NoAgent { .. })));
    let error = other.poll(all, GUARD).unwrap_err();
    assert!(error.is_connection() && error.code() as i32 == -21, "{error}");
    assert!(error.to_string().contains("steadfast daemon"), "{error}");

    let _agent = place.agent();
    // Declared events are declared again, and this comes before the other has even noticed.
    let before = one.publish(publication("B")).unwrap();
    let delivery = other.poll(all, GUARD).unwrap().unwrap();
    assert_eq!(delivery.event.handle(), before);
    let after = one.publish(publication("C")).unwrap();
    assert_eq!(other.poll(all, GUARD).unwrap().unwrap().event.handle(), after);
    assert_eq!(other.poll(all, Duration::ZERO).unwrap(), None);
    assert_eq!((one.counters().connections, other.counters().connections), (2, 2));
}

#[test]
fn an_answer_that_does_not_come_is_unknown_and_not_asked_for_again() {
    let place = Place::new();
    let agent = place.agent();
    let mut one = place.publisher();
    agent.pause(true);
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(agent);
    });
    let error = one.publish(publication("A")).unwrap_err();
    assert!(matches!(error, Error::Unknown), "{error}");
    killer.join().unwrap();
    let agent = place.agent();
    let (_, replayed) = one
        .subscribe("", Matching::Every, Replay::Recent { events: 9, within: GUARD }, Receive::Polling)
        .unwrap();
    assert_eq!(replayed.events, 0);
    until("the agent counts", || agent.metrics().attached == 1);
    assert_eq!(agent.metrics().published, 0);
}

#[test]
fn what_the_agent_does_not_take_again_lapses() {
    let place = Place::new();
    let agent = place.agent();
    let mut one = place.client("one");
    let nothing = Replay::Nothing;
    let (first, _) = one.subscribe("", Matching::Every, nothing, Receive::Polling).unwrap();
    let (second, _) = one.subscribe("severity=info", Matching::Every, nothing, Receive::Polling).unwrap();
    drop(agent);
    let mut config = steadfast_backplane::Config::default();
    config.max_subscriptions = 1;
    let _agent = TestAgent::with(&place.path(), config);
    until("it is told", || one.poll(first, Duration::ZERO).is_ok() && one.counters().lapsed == 1);
    assert_eq!(one.poll(second, Duration::ZERO).unwrap_err().code() as i32, -9);
}
