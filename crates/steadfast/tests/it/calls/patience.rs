//! Calls and the failure timeouts of their labels.

use super::{any, text, until};
use crate::common::{cut, soon, talking};
use std::sync::Arc;
use std::time::Duration;
use steadfast::rpc::{self, Body, BodyError, CallError, Request, Rpc};
use steadfast::{DropReason, Labels, Outcome, SendError};
use tokio::sync::{Notify, mpsc};

#[tokio::test]
async fn a_request_that_finds_no_network_in_time_fails_and_says_so() {
    let (_a, b, at_a, at_b) = talking().await;
    let (begun, mut running) = mpsc::unbounded_channel();
    let mut server = rpc::serve(at_b, move |request: Request| {
        begun.send(()).unwrap();
        async move { request.into_body().into_bytes().await }
    });
    let calm = Labels::foreground();
    at_a.set_failure_timeout(&calm, Some(Duration::from_millis(30))).unwrap();
    let rpc = Rpc::new(at_a.clone());
    // Half of its body is there when the network goes.
    let endless = Body::streamed(|mut writer| async move {
        writer.write(vec![1; 50_000]).await?;
        std::future::pending::<()>().await;
        Ok::<_, BodyError>(())
    });
    let half = tokio::spawn({
        let rpc = rpc.clone();
        async move { rpc.call(endless, any()).await.map(drop) }
    });
    soon("the handler", running.recv()).await.unwrap();
    cut(&b, &at_a).await;
    let error = soon("it is given up", half).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::NoNetwork { request: Outcome::Unknown, .. }), "{error:?}");
    assert!(error.to_string().contains("set_failure_timeout"), "{error}");
    let error = soon("it finds none", rpc.call("whole", any())).await.unwrap_err();
    assert!(matches!(error, CallError::NotSent(SendError::NoNetwork { .. })), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Dropped(DropReason::NoNetwork));
    // What is owed to the other side waits for a network all the same.
    b.revive().await.unwrap();
    until("its place is free", || rpc.stats().open == 0).await;
    until("the server heard", || server.stats().cancelled + server.stats().faults > 0).await;
    assert_eq!(text(soon("a call", rpc.call("again", any())).await.unwrap()).await, "again");
    soon("closing", rpc.close()).await.unwrap();
    soon("serving", server.done()).await.unwrap();
}

#[tokio::test]
async fn an_answer_waits_for_a_network_whatever_the_server_says_of_its_labels() {
    let (_a, b, at_a, at_b) = talking().await;
    let go = Arc::new(Notify::new());
    let (begun, mut running) = mpsc::unbounded_channel();
    at_b.set_failure_timeout(&Labels::foreground(), Some(Duration::ZERO)).unwrap();
    let wait = Arc::clone(&go);
    let server = rpc::serve(at_b, move |request: Request| {
        let (wait, begun) = (Arc::clone(&wait), begun.clone());
        async move {
            let asked = request.into_body().into_bytes().await.unwrap();
            begun.send(()).unwrap();
            wait.notified().await;
            if asked == "fail" { Err("it failed") } else { Ok(asked) }
        }
    });
    let rpc = Rpc::new(at_a.clone());
    let calls: Vec<_> = ["one", "fail", "two"]
        .into_iter()
        .map(|what| {
            let rpc = rpc.clone();
            tokio::spawn(async move { rpc.call(what, any()).await })
        })
        .collect();
    for _ in 0..3 {
        soon("a handler", running.recv()).await.unwrap();
    }
    cut(&b, &at_a).await;
    go.notify_waiters();
    until("all have answered", || server.stats().answered + server.stats().faults == 3).await;
    b.revive().await.unwrap();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(match soon("an answer", call).await.unwrap() {
            Ok(response) => text(response).await,
            Err(error) => error.to_string(),
        });
    }
    assert_eq!(answers, ["one", "the peer's handler failed: it failed", "two"]);
}

#[tokio::test]
async fn a_call_that_waits_for_its_place_hears_that_there_is_no_network() {
    let (_a, b, at_a, at_b) = talking().await;
    let (begun, mut running) = mpsc::unbounded_channel();
    let _server = rpc::serve(at_b, move |_: Request| {
        begun.send(()).unwrap();
        std::future::pending::<()>()
    });
    let hasty = Labels::foreground().small();
    at_a.set_failure_timeout(&hasty, Some(Duration::from_millis(30))).unwrap();
    let rpc = Rpc::with_max_open(at_a.clone(), 1);
    let first = rpc.start("takes the only place", any()).await.unwrap();
    soon("the handler", running.recv()).await.unwrap();
    let waits = tokio::spawn({
        let rpc = rpc.clone();
        async move { rpc.call("waits", any().labels(hasty)).await.map(drop) }
    });
    tokio::task::yield_now().await;
    cut(&b, &at_a).await;
    let error = soon("it finds none", waits).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::NotSent(SendError::NoNetwork { .. })), "{error:?}");
    drop(first);
}
