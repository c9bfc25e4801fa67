//! Many calls at once: bounds, turns and back-pressure.

use super::{Scene, any, echo, hangs, soon, until};
use crate::common::talking;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use steadfast::rpc::{self, Request, Response, Rpc, ServeConfig};
use steadfast::{Labels, Urgency};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_outstanding() {
    const CALLS: usize = 1000;
    let (arrived, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let handler = {
        let (arrived, go) = (Arc::clone(&arrived), Arc::clone(&go));
        move |request: Request| {
            let (arrived, go) = (Arc::clone(&arrived), Arc::clone(&go));
            async move {
                arrived.fetch_add(1, Ordering::Relaxed);
                go.acquire().await.unwrap().forget();
                Response::new(request.into_body())
            }
        }
    };
    let scene = Scene::with(handler, ServeConfig::default().concurrency(CALLS)).await;
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let rpc = scene.rpc.clone();
        calls.spawn(async move {
            let response = rpc.call(number.to_string(), any()).await.unwrap();
            assert_eq!(super::text(response).await, number.to_string());
        });
    }
    until("all are with their handlers", || arrived.load(Ordering::Relaxed) == CALLS).await;
    assert_eq!(scene.rpc.stats().open, CALLS);
    go.add_permits(CALLS);
    while let Some(call) = soon("a call", calls.join_next()).await {
        call.unwrap();
    }
    scene.settles().await;
    assert_eq!((scene.server.stats().taken, scene.server.stats().answered), (1000, 1000));
}

#[tokio::test]
async fn as_many_as_the_server_takes_and_as_may_run() {
    let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let peak = Arc::clone(&peak);
        move |_: Request| {
            let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, Ordering::Relaxed);
            }
        }
    };
    let scene = Scene::with(handler, ServeConfig::default().max_open(64).concurrency(3)).await;
    let mut calls = JoinSet::new();
    for _ in 0..300 {
        let rpc = scene.rpc.clone();
        calls.spawn(async move { rpc.call("x", any()).await.map(drop) });
    }
    while let Some(call) = soon("a call", calls.join_next()).await {
        call.unwrap().unwrap();
        assert!(scene.rpc.stats().open <= 64, "{:?}", scene.rpc.stats());
    }
    assert_eq!(peak.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn background_leaves_room_for_foreground() {
    let handler = async |request: Request| {
        if request.labels().urgency == Urgency::Background {
            pending::<()>().await;
        }
        "at once"
    };
    let scene = Scene::with(handler, ServeConfig::default().concurrency(4)).await;
    let mut hanging = Vec::new();
    for _ in 0..10 {
        hanging.push(scene.rpc.start("x", any().labels(Labels::background())).await.unwrap());
    }
    until("they are all there", || scene.server.stats().taken == 10).await;
    assert_eq!(scene.server.stats().begun, 3);
    assert_eq!(super::text(scene.call("x", any()).await.unwrap()).await, "at once");
}

#[tokio::test]
async fn who_waits_for_a_place_may_give_up_and_leaves_it_to_others() {
    let (_a, _b, at_a, at_b) = talking().await;
    let (handler, mut told) = hangs();
    let rpc = Rpc::with_max_open(at_a, 1);
    let _server = rpc::serve(at_b, handler);
    let first = rpc.start("first", any()).await.unwrap();
    assert_eq!(soon("begins", told.recv()).await, Some("begun"));
    let limit = std::time::Duration::from_millis(20);
    let error = soon("no place", rpc.call("second", any().deadline(limit))).await.unwrap_err();
    assert!(matches!(error.outcome(), steadfast::Outcome::Dropped(_)), "{error}");
    let waiting = tokio::spawn({
        let rpc = rpc.clone();
        async move { rpc.start("third", any()).await.map(drop) }
    });
    tokio::task::yield_now().await;
    drop(first);
    soon("its turn", waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn more_calls_are_allowed_once_the_server_says_so() {
    let scene = Scene::with(echo, ServeConfig::default().max_open(200)).await;
    scene.call("x", any()).await.unwrap();
    let (_a, _b, at_a, at_b) = talking().await;
    let rpc = Rpc::new(at_a);
    let mut calls = Vec::new();
    // Nobody has said anything yet: 64, not one more.
    for _ in 0..64 {
        calls.push(soon("a place", rpc.start("x", any())).await.unwrap());
    }
    let more = rpc.start("x", any());
    let mut more = std::pin::pin!(more);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(20), more.as_mut()).await.is_err());
    let (handler, _told) = hangs();
    let _server = rpc::serve_with(at_b, handler, ServeConfig::default().max_open(200));
    calls.push(soon("a place", more).await.unwrap());
    for _ in 65..200 {
        calls.push(soon("a place", rpc.start("x", any())).await.unwrap());
    }
    assert_eq!(rpc.stats().open, 200);
}
