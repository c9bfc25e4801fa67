//! What is said while everything is well.

use super::*;
use steadfast_agent_client::Error;
use steadfast_backplane::{Code, Matching, Receive, Replay};

fn code(error: &Error) -> i32 {
    error.code() as i32
}

#[test]
fn published_and_polled() {
    let place = Place::new();
    let _agent = place.agent();
    let (mut one, mut other) = (place.publisher(), place.client("other"));
    let early = one.publish(publication("A")).unwrap();
    let recent = Replay::Recent { events: 9, within: GUARD };
    let (all, replayed) = other.subscribe("", Matching::Every, recent, Receive::Polling).unwrap();
    assert_eq!((replayed.events, replayed.complete), (1, true));
    assert_eq!(other.poll(all, GUARD).unwrap().unwrap().event.handle(), early);
    assert_eq!(other.poll(all, Duration::ZERO).unwrap(), None);
    assert_eq!(other.poll(all, Duration::from_millis(5)).unwrap(), None);
    let late = one.publish(with("b", 60_000)).unwrap();
    let delivery = other.poll(all, GUARD).unwrap().unwrap();
    assert_eq!((delivery.event.handle(), delivery.event.payload.bytes().len()), (late, 60_000));
    assert_eq!(delivery.event.location.pid, std::process::id());
    assert_eq!(other.welcome().map(|welcome| welcome.location.pid), Some(std::process::id()));
    other.unsubscribe(all).unwrap();
    assert_eq!(code(&other.poll(all, Duration::ZERO).unwrap_err()), -9);
    assert_eq!(code(&other.unsubscribe(all).unwrap_err()), -9);
    one.disconnect(GUARD).unwrap();
}

#[test]
fn callbacks_before_polling_and_once() {
    let place = Place::new();
    let _agent = place.agent();
    let mut one = place.publisher();
    let nothing = Replay::Nothing;
    let (first, _) = one.subscribe("event_name=b", Matching::Every, nothing, Receive::Callback).unwrap();
    let (rest, _) = one.subscribe("", Matching::Every, nothing, Receive::Polling).unwrap();
    for name in ["A", "B", "C"] {
        one.publish(publication(name)).unwrap();
    }
    let name = |name: &str| name.parse().unwrap();
    for expected in ["A", "C"] {
        assert_eq!(one.poll(rest, GUARD).unwrap().unwrap().event.name, name(expected));
    }
    let (id, delivery) = one.next_callback().unwrap();
    assert_eq!((id, delivery.event.name), (first, name("B")));
    assert!(one.next_callback().is_none() && !one.has_callbacks());
    // What waits for a callback that ends goes to the next one that wants it, or is polled for.
    let (second, _) = one.subscribe("event_name=B", Matching::Every, nothing, Receive::Callback).unwrap();
    let published = one.publish(publication("B")).unwrap();
    until("the event comes", || one.receive().is_ok() && one.has_callbacks());
    one.unsubscribe(first).unwrap();
    let (id, delivery) = one.next_callback().unwrap();
    assert_eq!((id, delivery.event.handle()), (second, published));
    let published = one.publish(publication("B")).unwrap();
    until("the event comes", || one.receive().is_ok() && one.has_callbacks());
    one.unsubscribe(second).unwrap();
    assert!(one.next_callback().is_none() && !one.has_callbacks());
    assert_eq!(one.poll(rest, GUARD).unwrap().unwrap().event.handle(), published);
}

#[test]
fn refusals_have_words_and_codes() {
    let place = Place::new();
    let _agent = place.agent();
    let mut one = place.publisher();
    let error = one.publish(publication("D")).unwrap_err();
    assert_eq!(code(&error), -12);
    assert!(error.to_string().contains("cannot publish `D`"), "{error}");
    let error = one.declare(None, vec![Declaration::new("a", "fatal").unwrap()]).unwrap_err();
    assert_eq!(code(&error), -10);
    for (text, expected) in [("colour=red", -15), ("severity=debug", -16), ("severity", -14)] {
        let error = one.subscribe(text, Matching::Every, Replay::Nothing, Receive::Polling).unwrap_err();
        assert_eq!(code(&error), expected);
    }
    one.publish_unanswered(publication("D")).unwrap();
    one.publish_unanswered(publication("A")).unwrap();
    until("the refusal is told", || one.receive().is_ok() && one.counters().refused == 1);
    let settings = Settings { style: Style::None, ..place.settings() };
    let mut none = Client::connect(settings, None, named("none")).unwrap();
    let error = none.subscribe("", Matching::Every, Replay::Nothing, Receive::Polling).unwrap_err();
    assert_eq!(code(&error), -7);
    assert_eq!(Error::Unknown.code(), Code::NetworkGeneral);
}

#[test]
fn an_agent_that_is_full_says_so() {
    let place = Place::new();
    let config = steadfast_backplane::Config::default();
    let config = {
        let mut config = config;
        config.max_clients = 1;
        config
    };
    let _agent = TestAgent::with(&place.path(), config);
    let _one = place.client("one");
    let error = Client::connect(place.settings(), None, named("two")).unwrap_err();
    assert_eq!(code(&error), -1);
    assert!(error.to_string().contains("its 1 clients already"), "{error}");
}
