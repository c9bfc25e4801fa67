//! The library's client and the daemon.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::place::{GUARD, Host, a, payloads, soon};
use steadfast::backplane::{
    BackplaneError, Code, Declaration, Kind, Notice, Provenance, Publication, Replay, Subscribing,
};

#[tokio::test]
async fn what_is_published_comes_and_can_be_answered() {
    let host = Host::started().await;
    let (one, other) = (host.client().await, host.client().await);
    let mut questions = one.subscribe("event_name=A", Subscribing::default()).await.unwrap();
    let mut answers =
        other.subscribe("event_space=a.b.all,severity=info", Subscribing::default()).await.unwrap();
    let handle = other.publish(a("question")).await.unwrap();
    let Some(Notice::Event(question)) = soon("the question", questions.next()).await else { panic!("none") };
    assert_eq!(question.event.handle(), handle);
    assert_eq!(question.provenance, Provenance::Local);
    assert_eq!(question.event.location.pid, std::process::id());
    assert_eq!(question.event.user, nix::unistd::getuid().as_raw());
    assert_eq!(payloads(&mut answers, 1).await, ["question"]);
    one.publish_unacknowledged(a("answer").in_answer_to(question.event.handle())).unwrap();
    let Some(Notice::Event(answer)) = soon("the answer", answers.next()).await else { panic!("none") };
    assert!(matches!(&answer.event.kind, Kind::Answer(answered) if **answered == handle), "{answer:?}");
    one.close().await.unwrap();
}

#[tokio::test]
async fn a_client_outlives_its_agent_and_misses_nothing() {
    let mut host = Host::started().await;
    let (publisher, mut events) = (host.client().await, host.all().await);
    let late = host.all().await;
    for round in 0..5 {
        let mut sent = Vec::new();
        for number in 0..50 {
            let payload = format!("{round}/{number}");
            publisher.publish(a(&payload)).await.unwrap();
            sent.push(payload);
        }
        // The first half is read before the agent ends, the second half was never read from it.
        assert_eq!(payloads(&mut events, 25).await, sent[..25]);
        host.end().await;
        assert!(matches!(
            publisher.publish(a("lost")).await,
            Err(BackplaneError::Session(_) | BackplaneError::Unknown)
        ));
        host.start().await;
        assert_eq!(payloads(&mut events, 25).await, sent[25..]);
        soon("the publisher's return", async {
            while !publisher.is_connected() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    // Who has heard nothing yet misses nothing either.
    let mut late = late;
    assert_eq!(payloads(&mut late, 250).await.len(), 250);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_for_those_who_come_late() {
    let mut host = Host::started().await;
    let publisher = host.client().await;
    let mut sent = Vec::new();
    for number in 0..20 {
        publisher.publish(a(number)).await.unwrap();
        sent.push(number.to_string());
    }
    host.end().await;
    host.start().await;
    let client = host.builder(None).connect().await.unwrap();
    for (replay, expected) in [
        (Replay::Recent { events: 5, within: GUARD * 60 }, &sent[15..]),
        (Replay::Recent { events: 5, within: Duration::ZERO }, &[]),
        (Replay::Recent { events: u32::MAX, within: Duration::MAX }, &sent),
    ] {
        let mut events = client.subscribe("", Subscribing::default().replay(replay)).await.unwrap();
        assert_eq!(events.replayed().events, expected.len() as u64);
        assert_eq!(payloads(&mut events, expected.len()).await, *expected);
    }
}

#[tokio::test]
async fn a_flood_and_a_reader_that_does_not_read() {
    let host = Host::started().await;
    let (publisher, lazy) = (host.client().await, host.all().await);
    let mut reader = host.all().await;
    let reading = async {
        let mut seen = BTreeSet::new();
        while !seen.contains("last") {
            match soon("an event", reader.next()).await {
                Some(Notice::Event(delivery)) => {
                    seen.insert(String::from_utf8_lossy(delivery.event.payload.bytes()).into_owned());
                }
                Some(Notice::Dropped(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let flooding = async {
        let filler = "x".repeat(8000);
        for _ in 0..5000 {
            // The socket is full now and then.
            while publisher.publish_unacknowledged(a(&filler)).is_err() {
                tokio::task::yield_now().await;
            }
        }
        soon("the last one", publisher.publish(a("last"))).await.unwrap();
    };
    tokio::join!(reading, flooding);
    drop(lazy);
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let mut host = Host::new();
    let error = soon("connecting to nobody", host.builder(None).connect()).await.unwrap_err();
    assert!(
        error.to_string().contains("steadfast daemon") && error.code() == Code::NetworkNoRoute,
        "{error}"
    );
    host.settings.limits.client_rate = 10;
    host.start().await;
    assert!(host.daemon().await.unwrap_err().to_string().contains("another daemon"));
    let client = host.client().await;
    let error = client.publish(Publication::new("B", "").unwrap()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidEventName, "{error}");
    let error = client.subscribe("colour=red", Subscribing::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::FilterAttribute, "{error}");
    let error = client.declare([Declaration::new("A", "fatal").unwrap()]).await.unwrap_err();
    assert_eq!(error.code(), Code::DuplicateEvent, "{error}");
    let refused = async {
        loop {
            if let Err(error) = client.publish(a(1)).await {
                return error;
            }
        }
    };
    let error = soon("a rate", refused).await;
    assert!(matches!(&error, BackplaneError::Refused { retry_after: Some(_), .. }), "{error}");
    assert!(client.lost().is_none());
    client.publish_unacknowledged(a(1)).unwrap();
    soon("the count of what was lost", async {
        while client.lost().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
