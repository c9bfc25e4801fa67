//! What calls learn when their server shuts down, restarts or goes, and servers when their callers do.

use super::{Scene, any, echo, hangs, soon, until};
use crate::common::{local, meet, pair, talking};
use std::sync::Arc;
use std::time::Duration;
use steadfast::rpc::{self, CallError, Request, Rpc, ServeConfig, ServeError};
use steadfast::{DropReason, EndReason, Identity, Outcome, SessionError};
use tokio::sync::Semaphore;

#[tokio::test]
async fn a_shutdown_lets_handlers_finish_and_refuses_the_rest() {
    let go = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&go);
    let handler = move |_: Request| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            "finished"
        }
    };
    let scene = Scene::with(handler, ServeConfig::default().concurrency(1)).await;
    let running = scene.rpc.start("runs", any()).await.unwrap();
    let waiting = scene.rpc.start("waits", any()).await.unwrap();
    until("both are there", || scene.server.stats().taken == 2).await;
    let shutdown = tokio::spawn(scene.server.shutdown(Duration::from_secs(30)));
    let error = soon("refused", waiting.response()).await.unwrap_err();
    assert!(matches!(error, CallError::Refused(_)), "{error}");
    assert_eq!(error.outcome(), Outcome::Dropped(DropReason::Refused));
    let error = soon("refused", scene.rpc.call("late", any())).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Dropped(DropReason::Refused));
    go.add_permits(1);
    assert_eq!(super::text(soon("answer", running.response()).await.unwrap()).await, "finished");
    assert_eq!(soon("shutdown", shutdown).await.unwrap(), Ok(()));
    let error = soon("over", scene.rpc.call("x", any())).await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Dropped(_)), "{error}");
}

#[tokio::test]
async fn a_shutdown_stops_handlers_at_its_limit() {
    let (handler, mut told) = hangs();
    let scene = Scene::new(handler).await;
    let running = scene.rpc.start("runs", any()).await.unwrap();
    assert_eq!(soon("begins", told.recv()).await, Some("begun"));
    let shutdown = tokio::spawn(scene.server.shutdown(Duration::from_millis(50)));
    assert_eq!(soon("stopped", running.response()).await.unwrap_err(), CallError::Stopped);
    assert_eq!(soon("drops", told.recv()).await, Some("dropped"));
    assert_eq!(soon("shutdown", shutdown).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_shutdown_ends_even_if_nobody_hears_of_it() {
    let (handler, mut told) = hangs();
    let scene = Scene::new(handler).await;
    let _running = scene.rpc.start("runs", any()).await.unwrap();
    assert_eq!(soon("begins", told.recv()).await, Some("begun"));
    scene.caller.quiesce().await;
    let limit = Duration::from_millis(50);
    let over = soon("shutdown", scene.server.shutdown(limit)).await;
    assert_eq!(over, Err(ServeError::Limit(limit)));
}

#[tokio::test]
async fn a_server_that_is_dropped_ends_its_calls() {
    let (handler, mut told) = hangs();
    let scene = Scene::new(handler).await;
    let running = scene.rpc.start("runs", any()).await.unwrap();
    assert_eq!(soon("begins", told.recv()).await, Some("begun"));
    drop(scene.server);
    assert_eq!(soon("drops", told.recv()).await, Some("dropped"));
    let error = soon("ends", running.response()).await.unwrap_err();
    assert_eq!(
        error.outcome(),
        if error == CallError::Stopped { Outcome::Delivered } else { Outcome::Unknown }
    );
}

#[tokio::test]
async fn a_client_that_is_dropped_ends_its_handlers() {
    let (handler, mut told) = hangs();
    let mut scene = Scene::new(handler).await;
    let running = scene.rpc.start("runs", any()).await.unwrap();
    assert_eq!(soon("begins", told.recv()).await, Some("begun"));
    drop(running);
    drop(scene.rpc);
    assert_eq!(soon("drops", told.recv()).await, Some("dropped"));
    assert_eq!(soon("served", scene.server.done()).await, Ok(()));
}

#[tokio::test]
async fn close_waits_for_calls_that_are_open() {
    let go = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&go);
    let handler = move |_: Request| {
        let gate = Arc::clone(&gate);
        async move { gate.acquire().await.unwrap().forget() }
    };
    let mut scene = Scene::new(handler).await;
    let running = scene.rpc.start("runs", any()).await.unwrap();
    let closing = tokio::spawn({
        let rpc = scene.rpc.clone();
        async move { rpc.close().await }
    });
    until("it runs", || scene.server.stats().begun == 1).await;
    soon("no more calls", async {
        while scene.rpc.call("x", any().deadline(Duration::from_millis(1))).await.is_ok() {}
    })
    .await;
    assert!(!closing.is_finished());
    go.add_permits(100);
    soon("answer", running.response()).await.unwrap();
    assert_eq!(soon("close", closing).await.unwrap(), Ok(()));
    assert_eq!(soon("served", scene.server.done()).await, Ok(()));
}

#[tokio::test]
async fn a_conversation_that_ends_leaves_it_unknown() {
    let (_a, _b, at_a, at_b) = talking().await;
    let (handler, mut told) = hangs();
    let aborts = at_a.clone();
    let rpc = Rpc::new(at_a);
    let mut server = rpc::serve(at_b, handler);
    let running = rpc.start("runs", any()).await.unwrap();
    assert_eq!(soon("begins", told.recv()).await, Some("begun"));
    aborts.abort();
    let error = soon("ends", running.response()).await.unwrap_err();
    let CallError::Ended { source: SessionError::Ended { reason, .. }, request, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((reason, request), (EndReason::Aborted, Outcome::Unknown));
    assert_eq!(soon("drops", told.recv()).await, Some("dropped"));
    let over = soon("served", server.done()).await;
    assert!(matches!(over, Err(ServeError::Session(_))), "{over:?}");
    let error = soon("a call", rpc.call("x", any())).await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Dropped(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_restarts() {
    let (a_key, b_key) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (a_print, b_print) = (a_key.fingerprint(), b_key.fingerprint());
    let folder = crate::common::Directory::new();
    let file = folder.0.join("identity");
    b_key.save(&file).unwrap();
    let a = local().identity(a_key).trust(b_print).bind().await.unwrap();
    let b = local().identity(b_key).trust(a_print).bind().await.unwrap();
    let (at_a, at_b) = meet(&a, &b).await;
    let rpc = Rpc::new(at_a);
    let (handler, mut told) = hangs();
    let _old = rpc::serve(at_b, handler);
    let running = rpc.start("runs", any()).await.unwrap();
    assert_eq!(soon("begins", told.recv()).await, Some("begun"));
    // It dies without a word, and what is called then does not leave.
    let port = b.port();
    b.quiesce().await;
    until("parked", || a.paths().is_empty()).await;
    let waiting = rpc.start("waits", any()).await.unwrap();
    let again = Identity::load(&file).unwrap();
    let b = local().identity(again).trust(a_print).port(port).bind().await.unwrap();
    let error = soon("ends", running.response()).await.unwrap_err();
    let CallError::Ended { source: SessionError::Ended { reason, .. }, request, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((reason, request), (EndReason::Unknown, Outcome::Unknown));
    let error = soon("ends", waiting.response()).await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Dropped(_)), "{error}");
    // Whoever wants to go on opens a new conversation.
    let (at_a, at_b) = meet(&a, &b).await;
    let _server = rpc::serve(at_b, echo);
    let rpc = Rpc::new(at_a);
    assert_eq!(super::text(soon("a call", rpc.call("again", any())).await.unwrap()).await, "again");
}

#[tokio::test]
async fn an_endpoint_that_closes_ends_calls_and_servers() {
    let (a, b) = pair().await;
    let (at_a, at_b) = meet(&a, &b).await;
    let rpc = Rpc::new(at_a);
    let (handler, mut told) = hangs();
    let mut server = rpc::serve(at_b, handler);
    let running = rpc.start("runs", any()).await.unwrap();
    assert_eq!(soon("begins", told.recv()).await, Some("begun"));
    soon("close", b.close("time for bed")).await;
    let error = soon("ends", running.response()).await.unwrap_err();
    let CallError::Ended { source: SessionError::Ended { reason, .. }, request, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((reason, request), (EndReason::Left, Outcome::Unknown));
    assert_eq!(soon("drops", told.recv()).await, Some("dropped"));
    assert!(soon("served", server.done()).await.is_err());
}

#[tokio::test]
async fn any_limit_will_do() {
    let scene = Scene::new(echo).await;
    let shutdown = tokio::spawn(scene.server.shutdown(Duration::MAX));
    assert_eq!(soon("shutdown", shutdown).await.unwrap(), Ok(()));
    let mut scene = Scene::new(echo).await;
    assert_eq!(soon("close", scene.rpc.close_within(Duration::MAX)).await, Ok(()));
    assert_eq!(soon("served", scene.server.done()).await, Ok(()));
}
