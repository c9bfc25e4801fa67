//! Calls over Homa: in the clear, sealed, as messages.

use crate::common::{pair, soon};
use std::time::Duration;
use steadfast::homa::{Homa, HomaConfig, Server};
use steadfast::rpc::{CallError, CallOptions, Request, Response, Rpc};
use steadfast::{Bytes, DropReason, Endpoint, Outcome};

async fn echo(request: Request) -> Response {
    Response::new(request.into_body())
}

fn plain() -> Homa {
    Homa::plain("127.0.0.1:0".parse().unwrap()).unwrap()
}

fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A client and a server in the clear.
fn clear() -> (Homa, Homa, Rpc, Server) {
    let (client, server) = (plain(), plain());
    let serving = server.serve(99, echo).unwrap();
    let rpc = Rpc::over_homa(&client.peer(server.local_addr()).unwrap(), 99);
    (client, server, rpc, serving)
}

/// A client and a server that know each other's keys.
async fn sealed() -> (Endpoint, Endpoint, Rpc, Server) {
    let (a, b) = pair().await;
    let serving = b.homa().unwrap().serve(99, echo).unwrap();
    let peer = soon("connect", a.homa().unwrap().connect(b.contact())).await.unwrap();
    let rpc = Rpc::over_homa(&peer, 99);
    (a, b, rpc, serving)
}

async fn carries_all_sizes(rpc: &Rpc) {
    for length in [0, 1, 100, 1423, 1424, 40_000, 70_000, 1_000_000, (16 << 20) - 5] {
        let body = pattern(length);
        let response = soon("a call", rpc.call(body.clone(), CallOptions::default())).await.unwrap();
        assert!(response.into_bytes().await.unwrap() == body, "{length} bytes came back as others");
    }
}

#[tokio::test]
async fn bodies_of_all_sizes_come_back_in_the_clear() {
    let (_client, _server, rpc, serving) = clear();
    carries_all_sizes(&rpc).await;
    assert_eq!(serving.stats().answered, 9);
}

#[tokio::test]
async fn bodies_of_all_sizes_come_back_sealed() {
    let (a, _b, rpc, _serving) = sealed().await;
    assert!(rpc.peer().is_some_and(|key| key != a.fingerprint()));
    carries_all_sizes(&rpc).await;
}

#[tokio::test]
async fn a_port_that_nobody_serves_refuses_at_once() {
    let (client, server, _rpc, _serving) = clear();
    let rpc = Rpc::over_homa(&client.peer(server.local_addr()).unwrap(), 100);
    let error = soon("a call", rpc.call("x", CallOptions::default())).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Dropped(DropReason::Refused), "{error}");
    assert!(error.to_string().contains("port 100"), "{error}");
}

#[tokio::test]
async fn nobody_there_fails_at_once() {
    let (client, gone) = (plain(), plain());
    let address = gone.local_addr();
    drop(gone);
    // The tasks that hold its socket end in their next turn.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let rpc = Rpc::over_homa(&client.peer(address).unwrap(), 99);
    let error = soon("a call", rpc.call("x", CallOptions::default())).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn who_asks_is_proven_where_packets_are_sealed() {
    let (a, b) = pair().await;
    let who = async |request: Request| format!("{:?}", request.peer());
    let _serving = b.homa().unwrap().serve(7, who).unwrap();
    let peer = soon("connect", a.homa().unwrap().connect(b.contact())).await.unwrap();
    let rpc = Rpc::over_homa(&peer, 7);
    let response = soon("a call", rpc.call("", CallOptions::default())).await.unwrap();
    assert_eq!(response.into_bytes().await.unwrap(), format!("{:?}", Some(a.fingerprint())));
}

#[tokio::test]
async fn a_peer_without_homa_says_so() {
    let (a, b) = pair().await;
    let config = HomaConfig::default().connect_limit(Duration::from_millis(500));
    let homa = a.homa_with(config).unwrap();
    let error = soon("connect", homa.connect(b.contact())).await.unwrap_err();
    assert!(matches!(error, steadfast::homa::HomaError::NotOffered { .. }), "{error}");
}

#[tokio::test]
async fn the_deadline_ends_a_call_on_both_sides() {
    let (client, server) = (plain(), plain());
    let (sender, mut dropped) = tokio::sync::mpsc::unbounded_channel::<()>();
    let hangs = move |_: Request| {
        let sender = sender.clone();
        async move {
            let _told_when_dropped = scopeguard(sender);
            std::future::pending::<Response>().await
        }
    };
    let _serving = server.serve(9, hangs).unwrap();
    let rpc = Rpc::over_homa(&client.peer(server.local_addr()).unwrap(), 9);
    let options = CallOptions::default().deadline(Duration::from_millis(50));
    let error = soon("a call", rpc.call("x", options)).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error}");
    soon("the handler is dropped", dropped.recv()).await;
}

fn scopeguard(sender: tokio::sync::mpsc::UnboundedSender<()>) -> impl Drop {
    struct Guard(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _nobody_asks = self.0.send(());
        }
    }
    Guard(sender)
}
