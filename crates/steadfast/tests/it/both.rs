//! What calls promise over a conversation and over Homa alike.

use crate::common::{pair, soon, talking};
use std::any::Any;
use std::future::pending;
use std::time::Duration;
use steadfast::rpc::{self, CallError, CallOptions, Request, Response, Rpc};
use steadfast::{Bytes, DropReason, Outcome};
use tokio::sync::mpsc;

#[derive(Debug, Clone, Copy)]
enum Over {
    Conversation,
    Homa,
}

const BOTH: [Over; 2] = [Over::Conversation, Over::Homa];

/// Calls, and what has to last as long as they do.
struct Scene {
    rpc: Rpc,
    /// What handlers that hang tell.
    told: mpsc::UnboundedReceiver<&'static str>,
    _kept: Box<dyn Any>,
}

/// Tells when it is dropped.
struct Guard(mpsc::UnboundedSender<&'static str>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _nobody_asks = self.0.send("dropped");
    }
}

async fn answer(
    request: Request,
    tell: mpsc::UnboundedSender<&'static str>,
) -> Result<Response, &'static str> {
    let body = request.into_body().into_bytes().await.unwrap();
    match body.as_ref() {
        b"fail" => Err("no such thing"),
        b"panic" => panic!("this is part of the test"),
        b"hang" => {
            tell.send("begun").unwrap();
            let _guard = Guard(tell);
            pending().await
        }
        _ => Ok(Response::new(body)),
    }
}

impl Scene {
    async fn new(over: Over) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let handler = move |request: Request| answer(request, tell.clone());
        let (rpc, kept): (Rpc, Box<dyn Any>) = match over {
            Over::Conversation => {
                let (a, b, at_a, at_b) = talking().await;
                (Rpc::new(at_a), Box::new((a, b, rpc::serve(at_b, handler))))
            }
            Over::Homa => {
                let (a, b) = pair().await;
                let serving = b.homa().unwrap().serve(9, handler).unwrap();
                let peer = soon("connect", a.homa().unwrap().connect(b.contact())).await.unwrap();
                (Rpc::over_homa(&peer, 9), Box::new((a, b, serving)))
            }
        };
        Self { rpc, told, _kept: kept }
    }

    async fn call(&self, body: impl Into<rpc::Body>) -> Result<Bytes, CallError> {
        self.call_with(body, CallOptions::default()).await
    }

    async fn call_with(&self, body: impl Into<rpc::Body>, options: CallOptions) -> Result<Bytes, CallError> {
        let response = soon("a call", self.rpc.call(body, options)).await?;
        Ok(soon("a body", response.into_bytes()).await.unwrap())
    }

    async fn hears(&mut self, what: &str) {
        assert_eq!(soon(what, self.told.recv()).await, Some(what));
    }
}

#[tokio::test]
async fn a_response_is_that_to_its_request() {
    for over in BOTH {
        let scene = Scene::new(over).await;
        // Empty, of one packet, of many, larger than what is sent unasked or lies in one message.
        for length in [0, 1, 1000, 50_000, 3_000_000] {
            let body: Bytes = (0..length).map(|at: usize| (at * 7 + at / 251) as u8).collect();
            assert!(scene.call(body.clone()).await.unwrap() == body, "{over:?}: {length} bytes");
        }
    }
}

#[tokio::test]
async fn a_handler_that_fails_or_panics_is_an_error_and_no_silence() {
    for over in BOTH {
        let scene = Scene::new(over).await;
        let error = scene.call("fail").await.unwrap_err();
        assert_eq!((error.outcome(), error), (Outcome::Delivered, CallError::Failed("no such thing".into())));
        let error = scene.call("panic").await.unwrap_err();
        assert_eq!((error.outcome(), error), (Outcome::Delivered, CallError::Panicked));
        assert_eq!(scene.call("and goes on").await.unwrap(), "and goes on");
    }
}

#[tokio::test]
async fn a_deadline_ends_a_call_and_its_handler() {
    for over in BOTH {
        let mut scene = Scene::new(over).await;
        let limit = CallOptions::default().deadline(Duration::from_millis(100));
        let error = scene.call_with("hang", limit).await.unwrap_err();
        assert!(matches!(error, CallError::Deadline { .. }), "{over:?}: {error}");
        assert!(!matches!(error.outcome(), Outcome::Dropped(_)), "{over:?}: it was begun, {error}");
        scene.hears("begun").await;
        scene.hears("dropped").await;
    }
}

#[tokio::test]
async fn who_cancels_or_drops_a_call_ends_its_handler() {
    for over in BOTH {
        let mut scene = Scene::new(over).await;
        let running = soon("start", scene.rpc.start("hang", CallOptions::default())).await.unwrap();
        scene.hears("begun").await;
        let error = soon("cancel", running.cancel()).await.unwrap_err();
        assert!(matches!(error, CallError::Cancelled { .. }), "{over:?}: {error}");
        assert!(!matches!(error.outcome(), Outcome::Dropped(_)), "{over:?}: it was begun, {error}");
        scene.hears("dropped").await;
        let running = soon("start", scene.rpc.start("hang", CallOptions::default())).await.unwrap();
        scene.hears("begun").await;
        drop(running);
        scene.hears("dropped").await;
    }
}

#[tokio::test]
async fn where_nobody_serves_a_request_is_refused_and_surely_not_executed() {
    let (a, b, at_a, at_b) = talking().await;
    // Who only calls refuses what is asked.
    let _also_calls = Rpc::new(at_b);
    let _opened = b.homa().unwrap();
    let peer = soon("connect", a.homa().unwrap().connect(b.contact())).await.unwrap();
    for (over, rpc) in BOTH.into_iter().zip([Rpc::new(at_a), Rpc::over_homa(&peer, 77)]) {
        for length in [1, 100_000] {
            let call = rpc.call(vec![0; length], CallOptions::default());
            let error = soon("a call", call).await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::Dropped(DropReason::Refused), "{over:?}: {error}");
        }
    }
}

#[tokio::test]
async fn each_of_many_calls_gets_its_own_response() {
    for over in BOTH {
        let scene = Scene::new(over).await;
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..800_u32 {
            let rpc = scene.rpc.clone();
            calls.spawn(async move {
                let body = number.to_be_bytes().repeat(1 + number as usize % 700);
                let response = rpc.call(body.clone(), CallOptions::default()).await.unwrap();
                assert_eq!(response.into_bytes().await.unwrap(), body);
            });
        }
        while let Some(done) = soon("calls", calls.join_next()).await {
            done.unwrap();
        }
    }
}
