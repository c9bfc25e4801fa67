//! Endpoints as a whole: their life, their quiet, their events.

use crate::common::{local, meet, next, pair, soon, talking};
use std::time::Duration;
use steadfast::{ConnectError, Event, Identity, Labels, NetworkClass, Outcome, PathNumber};

#[tokio::test]
async fn what_an_endpoint_tells_of_itself() {
    let (a, b, _at_a, at_b) = talking().await;
    assert_ne!(a.port(), 0);
    assert_eq!(a.local_addresses().len(), 1);
    assert_eq!(a.contact(), format!("{}@127.0.0.1:{}", a.fingerprint(), a.port()));
    assert_eq!(at_b.peer(), a.fingerprint());
    let loopback = b.networks().into_iter().find(|network| network.class == NetworkClass::Loopback).unwrap();
    assert_eq!(loopback.port, b.port());
    let paths = b.paths();
    assert!(!paths.is_empty() && paths.iter().all(|path| path.peer == a.fingerprint()));
    assert_eq!(a.stats().violations_decode, 0);
}

#[tokio::test]
async fn nobody_there() {
    let (a, b) = pair().await;
    let contact = b.contact();
    soon("close", b.close("")).await;
    let identity = Identity::generate().unwrap();
    let c = local().identity(identity).trust(b.fingerprint()).connect_limit(Duration::from_millis(300));
    let c = c.bind().await.unwrap();
    let error = soon("connect", c.connect(&contact)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&b.fingerprint().to_string()), "{error}");
    drop(a);
}

#[tokio::test]
async fn quiesced_and_revived_it_loses_nothing() {
    const COUNT: u32 = 3000;
    let (a, b, at_a, at_b) = talking().await;
    let port = b.port();
    let sender = tokio::spawn(async move {
        let mut last = None;
        for number in 0..COUNT {
            last = Some(at_a.send(number.to_be_bytes().to_vec(), Labels::foreground()).await.unwrap());
            tokio::task::yield_now().await;
        }
        last.unwrap().outcome().await
    });
    for number in 0..COUNT {
        if number % 1000 == 500 {
            b.quiesce().await;
            b.quiesce().await;
            assert!(b.networks().is_empty() && b.paths().is_empty());
            b.revive().await.unwrap();
            b.revive().await.unwrap();
            assert_eq!(b.port(), port);
        }
        if number % 1000 == 700 {
            a.quiesce().await;
            a.revive().await.unwrap();
        }
        assert_eq!(next(&at_b).await.unwrap(), number.to_be_bytes().to_vec());
    }
    assert_eq!(soon("outcome", sender).await.unwrap(), Outcome::Delivered);
}

#[tokio::test]
async fn events_tell_of_parking_and_resuming() {
    let (_a, b, at_a, at_b) = talking().await;
    let mut events = at_a.events();
    b.quiesce().await;
    while !matches!(soon("parked", events.next()).await, Some(Event::Parked { .. })) {}
    assert!(at_a.is_parked());
    at_a.send("waits", Labels::foreground()).await.unwrap();
    b.revive().await.unwrap();
    while !matches!(soon("resumed", events.next()).await, Some(Event::Resumed { .. })) {}
    assert!(!at_a.is_parked());
    assert_eq!(next(&at_b).await.unwrap(), "waits");
    at_a.abort();
    let mut ended = false;
    while let Some(event) = soon("ended", events.next()).await {
        ended = matches!(event, Event::Ended { .. });
    }
    assert!(ended);
    assert_eq!(events.lost(), 0);
}

/// What a dropped endpoint leaves behind, on a runtime of its own.
#[test]
fn dropped_endpoints_leave_no_task() {
    for threads in [0, 2] {
        let mut builder = match threads {
            0 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(async {
            let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            let (a, b, at_a, at_b) = talking().await;
            at_a.send("x", Labels::foreground()).await.unwrap();
            assert_eq!(next(&at_b).await.unwrap(), "x");
            drop((a, b, at_b));
            // A conversation keeps its endpoint.
            at_a.send("y", Labels::foreground()).await.ok();
            drop(at_a);
            soon("no tasks", async {
                while tokio::runtime::Handle::current().metrics().num_alive_tasks() > before {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
        });
    }
}

#[tokio::test]
async fn within_one_host_any_of_its_addresses_leads_there() {
    let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (a_key, b_key) = (a.fingerprint(), b.fingerprint());
    let a = local().addresses([]).identity(a).trust(b_key).bind().await.unwrap();
    let b = local().addresses([]).identity(b).trust(a_key).bind().await.unwrap();
    let (at_a, at_b) = meet(&a, &b).await;
    at_a.send("near", Labels::foreground()).await.unwrap();
    assert_eq!(next(&at_b).await.unwrap(), "near");
}

#[tokio::test]
async fn a_path_is_probed_and_counts_its_bytes() {
    let (a, b, at_a, at_b) = talking().await;
    let before = a.paths()[0].clone();
    at_a.send(vec![0; 10_000], Labels::foreground()).await.unwrap();
    assert_eq!(next(&at_b).await.unwrap().len(), 10_000);
    assert!(a.paths()[0].sent >= before.sent + 10_000, "{:?}", a.paths());
    assert!(b.paths()[0].received >= 10_000, "{:?}", b.paths());
    let (one, two) = tokio::join!(soon("one", a.probe(before.path)), soon("two", a.probe(before.path)));
    assert!(one.is_some() && one == two, "{one:?} {two:?}");
    assert_eq!(soon("none", a.probe(PathNumber(u32::MAX))).await, None);
}
