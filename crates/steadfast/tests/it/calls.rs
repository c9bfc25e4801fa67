//! Requests and responses over a conversation: every outcome, cancelling, bounds, and peers that break the rules.

mod bodies;
mod endings;
mod hostile;
mod networks;
mod patience;
mod turns;

use crate::common::{soon, talking};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use steadfast::rpc::{
    self, Body, Call, CallError, CallOptions, Handler, Request, Response, Rpc, ServeConfig, Server,
};
use steadfast::{DropReason, Endpoint, Labels, Outcome, Rule, Selector, Urgency};
use tokio::sync::{mpsc, oneshot};
use tower_service::Service;

/// Who calls, who serves, and what they call through.
struct Scene {
    caller: Endpoint,
    answerer: Endpoint,
    rpc: Rpc,
    server: Server,
}

impl Scene {
    async fn new(handler: impl Handler) -> Self {
        Self::with(handler, ServeConfig::default()).await
    }

    async fn with(handler: impl Handler, config: ServeConfig) -> Self {
        let (caller, answerer, at_caller, at_answerer) = talking().await;
        let rpc = Rpc::new(at_caller);
        let server = rpc::serve_with(at_answerer, handler, config);
        Self { caller, answerer, rpc, server }
    }

    async fn call(&self, body: impl Into<Body>, options: CallOptions) -> Result<Response, CallError> {
        soon("a call", self.rpc.call(body, options)).await
    }

    /// Waits until no call is open at the caller.
    async fn settles(&self) {
        until("calls are over", || self.rpc.stats().open == 0).await;
    }
}

/// Waits for a state.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    soon(what, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Plain options.
fn any() -> CallOptions {
    CallOptions::default()
}

async fn text(response: Response) -> String {
    String::from_utf8(soon("a body", response.into_bytes()).await.unwrap().to_vec()).unwrap()
}

async fn echo(request: Request) -> Response {
    Response::new(request.into_body())
}

/// Tells when it is dropped.
struct Guard(mpsc::UnboundedSender<&'static str>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _nobody_asks = self.0.send("dropped");
    }
}

/// A handler that begins and never ends, and where it tells so.
fn hangs() -> (impl Handler, mpsc::UnboundedReceiver<&'static str>) {
    let (sender, told) = mpsc::unbounded_channel();
    let handler = move |_request: Request| {
        let sender = sender.clone();
        async move {
            sender.send("begun").unwrap();
            let _guard = Guard(sender);
            pending::<Response>().await
        }
    };
    (handler, told)
}

#[tokio::test]
async fn a_handler_sees_who_asks_and_how_and_answers() {
    let labels = Labels::background().rule(Rule::default().prohibit(Selector::Metered));
    let expected = labels.clone();
    let scene = Scene::new(move |mut request: Request| {
        assert_eq!(*request.labels(), expected);
        assert!(request.time_left().unwrap() > Duration::from_secs(3000));
        let said = format!("{} says {:?}", request.peer().unwrap(), request.body().whole().unwrap());
        async move { said }
    })
    .await;
    let options = any().labels(labels).deadline(Duration::from_secs(3600));
    let response = scene.call("hello", options).await.unwrap();
    assert_eq!(text(response).await, format!("{} says b\"hello\"", scene.caller.fingerprint()));
    scene.settles().await;
    assert_eq!(scene.server.stats().answered, 1);
}

#[tokio::test]
async fn a_handler_that_fails_says_why_and_one_that_panics_takes_nobody_along() {
    let scene = Scene::new(async |request: Request| {
        match soon("a body", request.into_body().into_bytes()).await.unwrap().as_ref() {
            b"panic" => panic!("this is part of the test"),
            b"fail" => Err("é".repeat(2000)),
            _ => Ok(()),
        }
    })
    .await;
    let error = scene.call("panic", any()).await.unwrap_err();
    assert_eq!((error.outcome(), &error), (Outcome::Delivered, &CallError::Panicked));
    let error = scene.call("fail", any()).await.unwrap_err();
    assert_eq!(error, CallError::Failed("é".repeat(512)), "cut at 1,024 bytes");
    assert_eq!(error.outcome(), Outcome::Delivered);
    assert_eq!(text(scene.call("work", any()).await.unwrap()).await, "");
    assert_eq!((scene.server.stats().faults, scene.server.stats().answered), (2, 1));
}

#[tokio::test]
async fn dropping_a_call_drops_its_handler() {
    let (handler, mut told) = hangs();
    let scene = Scene::new(handler).await;
    let pending = scene.rpc.start("x", any()).await.unwrap();
    assert_eq!(soon("begins", told.recv()).await, Some("begun"));
    drop(pending);
    assert_eq!(soon("drops", told.recv()).await, Some("dropped"));
    scene.settles().await;
    assert_eq!(scene.server.stats().cancelled, 1);
}

#[tokio::test]
async fn who_cancels_hears_what_became_of_it() {
    let (handler, mut told) = hangs();
    let scene = Scene::with(handler, ServeConfig::default().concurrency(1)).await;
    let running = scene.rpc.start("runs", any()).await.unwrap();
    assert_eq!(soon("begins", told.recv()).await, Some("begun"));
    let waiting = scene.rpc.start("waits", any()).await.unwrap();
    until("both are there", || scene.server.stats().taken == 2).await;
    let error = soon("cancel", waiting.cancel()).await.unwrap_err();
    assert_eq!(error, CallError::Cancelled { request: Outcome::Dropped(DropReason::Cancelled) });
    let error = soon("cancel", running.cancel()).await.unwrap_err();
    assert_eq!(error, CallError::Cancelled { request: Outcome::Delivered });
    assert_eq!(soon("drops", told.recv()).await, Some("dropped"));
    // Its place is free, and the one that was cancelled while it waited never began.
    let _third = scene.rpc.start("third", any()).await.unwrap();
    assert_eq!(soon("begins", told.recv()).await, Some("begun"));
    assert_eq!(scene.server.stats().begun, 2);
}

#[tokio::test]
async fn a_request_that_was_not_delivered_is_cancelled_for_good() {
    let executed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executed);
    let scene = Scene::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        async {}
    })
    .await;
    scene.answerer.quiesce().await;
    until("parked", || scene.caller.paths().is_empty()).await;
    let cancelled = scene.rpc.start("never", any()).await.unwrap();
    let dropped = scene.rpc.start("nor this", any()).await.unwrap();
    let error = soon("cancel", cancelled.cancel()).await.unwrap_err();
    assert_eq!(error, CallError::Cancelled { request: Outcome::Dropped(DropReason::Cancelled) });
    drop(dropped);
    scene.settles().await;
    let limit = Duration::from_millis(50);
    let error = scene.call("late", any().deadline(limit)).await.unwrap_err();
    assert!(matches!(&error, CallError::Deadline { limit: told, .. } if *told == limit), "{error}");
    assert_eq!(error.outcome(), Outcome::Dropped(DropReason::Cancelled));
    scene.answerer.revive().await.unwrap();
    scene.call("now", any()).await.unwrap();
    assert_eq!(executed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_deadline_ends_the_call_on_both_sides() {
    let (handler, mut told) = hangs();
    let scene = Scene::new(handler).await;
    let limit = Duration::from_millis(100);
    let error = scene.call("x", any().deadline(limit)).await.unwrap_err();
    assert!(matches!(&error, CallError::Deadline { limit: told, .. } if *told == limit), "{error}");
    assert_eq!(error.outcome(), Outcome::Delivered);
    assert!(error.to_string().contains("delivered"), "{error}");
    assert_eq!(soon("begins", told.recv()).await, Some("begun"));
    assert_eq!(soon("drops", told.recv()).await, Some("dropped"));
    scene.settles().await;
}

#[tokio::test]
async fn a_server_keeps_the_deadline_without_being_told_again() {
    let (handler, mut told) = hangs();
    let scene = Scene::new(handler).await;
    // It cannot say that it gave the call up.
    let pending = scene.rpc.start("x", any().deadline(Duration::from_millis(200))).await.unwrap();
    assert_eq!(soon("begins", told.recv()).await, Some("begun"));
    scene.caller.quiesce().await;
    assert_eq!(soon("drops", told.recv()).await, Some("dropped"));
    assert!(matches!(soon("late", pending.response()).await, Err(CallError::Deadline { .. })));
}

#[tokio::test]
async fn a_call_that_waited_too_long_for_its_turn_is_not_begun() {
    let (release, wait) = oneshot::channel::<()>();
    let wait = Arc::new(tokio::sync::Mutex::new(Some(wait)));
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&begun);
    let handler = move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        let wait = Arc::clone(&wait);
        async move {
            if let Some(wait) = wait.lock().await.take() {
                wait.await.unwrap();
            }
        }
    };
    let scene = Scene::with(handler, ServeConfig::default().concurrency(1)).await;
    let first = scene.rpc.start("first", any()).await.unwrap();
    until("it runs", || scene.server.stats().begun == 1).await;
    let limit = Duration::from_millis(50);
    let second = scene.rpc.start("second", any().deadline(limit)).await.unwrap();
    until("it waits", || scene.server.stats().taken == 2).await;
    let error = soon("late", second.response()).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error}");
    release.send(()).unwrap();
    soon("first", first.response()).await.unwrap();
    scene.settles().await;
    assert_eq!(begun.load(Ordering::Relaxed), 1);
}

/// A service that counts, and is ready only when it was asked.
#[derive(Clone)]
struct Counting {
    ready: bool,
    count: Arc<AtomicUsize>,
}

impl Service<Request> for Counting {
    type Response = String;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<String, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "it was made ready");
        std::future::ready(match request.body().whole().map(AsRef::as_ref) {
            Some(b"fail") => Err(std::io::Error::other("out of paper")),
            _ => Ok(format!("number {}", self.count.fetch_add(1, Ordering::Relaxed))),
        })
    }
}

#[tokio::test]
async fn services_of_tower_on_both_sides() {
    let scene = Scene::new(rpc::service(Counting { ready: false, count: Arc::default() })).await;
    let mut service = scene.rpc.clone();
    for number in 0..3 {
        std::future::poll_fn(|context| service.poll_ready(context)).await.unwrap();
        let call = Service::call(&mut service, Call::new("count"));
        assert_eq!(text(soon("a call", call).await.unwrap()).await, format!("number {number}"));
    }
    let error = scene.call("fail", any()).await.unwrap_err();
    assert_eq!(error, CallError::Failed("out of paper".into()));
}

#[tokio::test]
async fn nobody_serves_at_a_client() {
    let (_a, _b, at_a, at_b) = talking().await;
    let (a, b) = (Rpc::new(at_a), Rpc::new(at_b));
    let error = soon("a call", a.call("x", any())).await.unwrap_err();
    assert!(matches!(error, CallError::Refused(_)), "{error}");
    assert_eq!(error.outcome(), Outcome::Dropped(DropReason::Refused));
    let error = soon("a call", b.call(vec![0; 100_000], any())).await.unwrap_err();
    assert!(matches!(error, CallError::Refused(_)), "{error}");
    assert_eq!((a.stats().refused, b.stats().refused), (1, 1));
}

#[tokio::test]
async fn either_side_may_call_whoever_opened_the_conversation() {
    let (_a, _b, at_a, at_b) = talking().await;
    let _server = rpc::serve(at_a, echo);
    let rpc = Rpc::new(at_b);
    assert_eq!(text(soon("a call", rpc.call("back", any())).await.unwrap()).await, "back");
    assert_eq!(Labels::default().urgency, Urgency::Foreground);
}
