//! Calls over Homa: in the clear, sealed, as messages.

mod faults;
mod floods;
mod networks;
mod raw;

use crate::common::{Directory, local, pair, soon};
use std::sync::Arc;
use std::time::Duration;
use steadfast::homa::{Homa, HomaConfig, Incoming, RequestOptions, SendError, Server};
use steadfast::rpc::{CallError, CallOptions, Handler, Request, Response, Rpc};
use steadfast::{Bytes, DropReason, Endpoint, Identity, Labels, Outcome, Rule, Selector};
use tokio::sync::{Semaphore, mpsc};

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
    soon("the end of its socket", async {
        while std::net::UdpSocket::bind(address).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
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
    let (sender, mut dropped) = mpsc::unbounded_channel::<()>();
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

fn scopeguard(sender: mpsc::UnboundedSender<()>) -> impl Drop {
    struct Guard(mpsc::UnboundedSender<()>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _nobody_asks = self.0.send(());
        }
    }
    Guard(sender)
}

#[tokio::test]
async fn thousands_of_calls_are_answered_each_with_its_own() {
    let (client, _server, rpc, serving) = clear();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..3000_u32 {
        let rpc = rpc.clone();
        calls.spawn(async move {
            let response = rpc.call(number.to_be_bytes().to_vec(), CallOptions::default()).await.unwrap();
            assert_eq!(response.into_bytes().await.unwrap(), number.to_be_bytes().to_vec());
        });
    }
    while let Some(done) = soon("calls", calls.join_next()).await {
        done.unwrap();
    }
    assert_eq!(serving.stats().answered, 3000);
    assert_eq!(client.open_requests().0, 0);
}

/// A handler that waits until it is let go, and tells when it is begun and dropped.
fn held() -> (impl Handler, mpsc::UnboundedReceiver<&'static str>, Arc<Semaphore>) {
    struct Guard(mpsc::UnboundedSender<&'static str>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _nobody_asks = self.0.send("dropped");
        }
    }
    let (sender, told) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let handler = move |request: Request| {
        let (guard, gate) = (Guard(sender.clone()), Arc::clone(&waits));
        async move {
            guard.0.send("begun").unwrap();
            gate.acquire().await.unwrap().forget();
            Response::new(request.into_body())
        }
    };
    (handler, told, gate)
}

#[tokio::test]
async fn a_call_that_is_dropped_or_cancelled_stops_its_handler() {
    let (client, server) = (plain(), plain());
    let (handler, mut told, _gate) = held();
    let _serving = server.serve(9, handler).unwrap();
    let rpc = Rpc::over_homa(&client.peer(server.local_addr()).unwrap(), 9);
    let pending = soon("start", rpc.start("x", CallOptions::default())).await.unwrap();
    assert_eq!(soon("it begins", told.recv()).await, Some("begun"));
    drop(pending);
    assert_eq!(soon("it is dropped", told.recv()).await, Some("dropped"));

    let pending = soon("start", rpc.start("x", CallOptions::default())).await.unwrap();
    assert_eq!(soon("it begins", told.recv()).await, Some("begun"));
    let error = soon("cancel", pending.cancel()).await.unwrap_err();
    assert!(matches!(error, CallError::Cancelled { request: Outcome::Unknown }), "{error:?}");
    assert_eq!(soon("it is dropped", told.recv()).await, Some("dropped"));
    assert_eq!(client.open_requests().0, 0);
}

#[tokio::test]
async fn at_the_cap_calls_wait_and_sends_fail() {
    let config = HomaConfig::default().max_open(2);
    let client = Homa::plain_with("127.0.0.1:0".parse().unwrap(), config).unwrap();
    let server = plain();
    let (handler, mut told, gate) = held();
    let _serving = server.serve(9, handler).unwrap();
    let peer = client.peer(server.local_addr()).unwrap();
    let rpc = Rpc::over_homa(&peer, 9);
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let rpc = rpc.clone();
            tokio::spawn(async move { rpc.call("x", CallOptions::default()).await.map(drop) })
        })
        .collect();
    for _ in 0..2 {
        assert_eq!(soon("it begins", told.recv()).await, Some("begun"));
    }
    assert_eq!(client.open_requests().0, 2);
    let port = client.open(None).unwrap();
    let refused = port.send(&peer, 9, "x", 1, RequestOptions::default()).unwrap_err();
    assert_eq!(refused, SendError::TooMany { limit: 2 });
    let options = CallOptions::default().deadline(Duration::from_millis(20));
    let late = soon("a call", rpc.call("x", options)).await.unwrap_err();
    assert_eq!(late.outcome(), Outcome::Dropped(DropReason::Cancelled), "it was not sent: {late}");
    gate.add_permits(3);
    for call in calls {
        soon("a call", call).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_handler_that_panics_or_fails_says_so() {
    let (client, server) = (plain(), plain());
    let handler = async |request: Request| match request.into_body().into_bytes().await.unwrap().as_ref() {
        b"panic" => panic!("it was asked to"),
        b"later" => {
            tokio::task::yield_now().await;
            panic!("it was asked to")
        }
        _ => Err::<Response, _>("no such thing"),
    };
    let serving = server.serve(9, handler).unwrap();
    let rpc = Rpc::over_homa(&client.peer(server.local_addr()).unwrap(), 9);
    for body in ["panic", "later"] {
        let error = soon("a call", rpc.call(body, CallOptions::default())).await.unwrap_err();
        assert_eq!(error, CallError::Panicked);
    }
    let error = soon("a call", rpc.call("x", CallOptions::default())).await.unwrap_err();
    assert_eq!(error, CallError::Failed("no such thing".into()));
    assert_eq!(serving.stats().faults, 3);
}

#[tokio::test]
async fn a_shutdown_tells_every_caller() {
    let (client, server) = (plain(), plain());
    let (handler, mut told, _gate) = held();
    let serving = server.serve(9, handler).unwrap();
    let rpc = Rpc::over_homa(&client.peer(server.local_addr()).unwrap(), 9);
    let call = tokio::spawn(async move { rpc.call("x", CallOptions::default()).await.map(drop) });
    assert_eq!(soon("it begins", told.recv()).await, Some("begun"));
    soon("shutdown", serving.shutdown(Duration::from_millis(10))).await.unwrap();
    assert_eq!(soon("the call", call).await.unwrap(), Err(CallError::Stopped));
}

#[tokio::test]
async fn background_and_rules_are_refused_where_they_mean_nothing() {
    let (_client, _server, rpc, _serving) = clear();
    for labels in
        [Labels::background(), Labels::foreground().rule(Rule::default().prohibit(Selector::Metered))]
    {
        let error = soon("a call", rpc.call("x", CallOptions::default().labels(labels))).await.unwrap_err();
        assert!(matches!(error, CallError::NotSentOverHoma(SendError::Labels { .. })), "{error}");
    }
}

#[tokio::test]
async fn a_port_takes_messages_in_batches_and_in_buffers_given_before() {
    let (client, server) = (plain(), plain());
    let (asks, serves) = (client.open(None).unwrap(), server.open(Some(5)).unwrap());
    let peer = client.peer(server.local_addr()).unwrap();
    let buffer = Vec::with_capacity(50_000);
    let place = buffer.as_ptr();
    assert!(serves.give(Vec::with_capacity(10)) && serves.give(buffer));
    let response = Vec::with_capacity(1000);
    let response_place = response.as_ptr();
    let mut options = RequestOptions::default();
    options.buffer = response;
    asks.send(&peer, 5, pattern(50_000), 77, options).unwrap();
    let Some(Incoming::Request { id, body, from }) = soon("a request", serves.recv()).await else {
        panic!("no request")
    };
    assert_eq!((body.length(), body.as_slice().as_ptr()), (50_000, place));
    assert_eq!((from.key, from.address), (None, Some(client.local_addr())));
    let mut start = [0; 7];
    assert_eq!((body.copy_to(&mut start), &start[..]), (7, &pattern(7)[..]));
    assert!(serves.give(body.into_buffer()));
    serves.respond(id, "there").unwrap();
    let Some(Incoming::Done { cookie, outcome, body }) = soon("an outcome", asks.recv()).await else {
        panic!("no outcome")
    };
    assert_eq!((cookie, outcome), (77, steadfast::homa::Outcome::Delivered));
    assert_eq!((body.as_slice(), body.as_slice().as_ptr()), (&b"there"[..], response_place));

    assert!(asks.try_recv().is_none(), "it does not wait");
    for cookie in 0..10 {
        asks.send(&peer, 5, "again", cookie, RequestOptions::default()).unwrap();
    }
    let mut requests = Vec::new();
    soon("requests", async {
        while requests.len() < 10 {
            // Who polls leaves the runtime its turn, which looks at the socket.
            serves.poll_batch(&mut requests, 16);
            requests.retain(|incoming| matches!(incoming, Incoming::Request { .. }));
            tokio::task::yield_now().await;
        }
    })
    .await;
    let answers = requests.into_iter().map(|incoming| match incoming {
        Incoming::Request { id, .. } => (id, Bytes::from_static(b"all")),
        other => panic!("{other:?}"),
    });
    assert!(serves.respond_all(answers).is_empty());
    let (mut done, mut all) = (0, Vec::new());
    while done < 10 {
        done += soon("outcomes", asks.recv_batch(&mut all, 4)).await;
    }
    assert_eq!(all.len(), 10);
}

#[tokio::test]
async fn a_server_that_restarts_is_noticed_at_once_and_found_again() {
    let directory = Directory::new();
    let path = directory.0.join("identity");
    let a_key = Identity::generate().unwrap();
    let a_print = a_key.fingerprint();
    let server = || local().identity_file(&path).trust(a_print);
    let b = server().bind().await.unwrap();
    let a = local().identity(a_key).trust(b.fingerprint()).bind().await.unwrap();
    let port = b.port();
    let (handler, mut told, _gate) = held();
    let serving = b.homa().unwrap().serve(9, handler).unwrap();
    let peer = soon("connect", a.homa().unwrap().connect(b.contact())).await.unwrap();
    let rpc = Rpc::over_homa(&peer, 9);
    let pending = soon("start", rpc.start("x", CallOptions::default())).await.unwrap();
    assert_eq!(soon("it begins", told.recv()).await, Some("begun"));
    // It ends without a word on its packets; that its connections do is heard.
    drop(serving);
    b.close("").await;
    drop(b);
    let error = soon("the call", pending.response()).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");

    let b = server().port(port).bind().await.unwrap();
    let _serving = b.homa().unwrap().serve(9, echo).unwrap();
    let response = soon("a call", rpc.call("again", CallOptions::default())).await.unwrap();
    assert_eq!(response.into_bytes().await.unwrap(), "again");
}

#[tokio::test]
async fn a_transport_that_is_opened_again_agrees_on_new_keys() {
    let (_a, b, rpc, serving) = sealed().await;
    soon("a call", rpc.call("one", CallOptions::default())).await.unwrap();
    drop(serving);
    soon("it is gone", async {
        while rpc.call("two", CallOptions::default().deadline(Duration::from_millis(50))).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let _serving = b.homa().unwrap().serve(99, echo).unwrap();
    soon("a call", rpc.call("three", CallOptions::default())).await.unwrap();
}

#[tokio::test]
async fn quiescing_closes_its_sockets_and_reviving_opens_them() {
    let (a, b, rpc, _serving) = sealed().await;
    for endpoint in [&b, &a] {
        soon("quiesce", endpoint.quiesce()).await;
        soon("revive", endpoint.revive()).await.unwrap();
        let response = soon("a call", async {
            loop {
                match rpc.call("x", CallOptions::default()).await {
                    Ok(response) => break response,
                    // What crosses the pause may end.
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        })
        .await;
        assert_eq!(response.into_bytes().await.unwrap(), "x");
    }
}

#[tokio::test]
async fn packets_of_strangers_change_nothing() {
    let (_a, b, rpc, serving) = sealed().await;
    let homa = b.homa().unwrap();
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in 0..1200_usize {
        // Some look like the real ones, to a key that there is not.
        let mut packet: Vec<u8> = pattern(length).to_vec();
        if let Some(first) = packet.first_mut() {
            *first = 0x40;
        }
        stranger.send_to(&packet, homa.local_addr()).await.unwrap();
    }
    for _ in 0..10 {
        soon("a call", rpc.call("x", CallOptions::default())).await.unwrap();
    }
    assert_eq!(serving.stats().taken, 10);
    assert_eq!(homa.metrics().peer_allocs, 1, "the caller is the only peer");
}

#[tokio::test]
async fn both_sides_may_call_each_other() {
    let (a, b, rpc, _serving) = sealed().await;
    let _serving_too = a.homa().unwrap().serve(99, echo).unwrap();
    let back = soon("connect", b.homa().unwrap().connect(a.contact())).await.unwrap();
    let back = Rpc::over_homa(&back, 99);
    for _ in 0..100 {
        let (there, here) =
            tokio::join!(rpc.call("x", CallOptions::default()), back.call("y", CallOptions::default()));
        assert_eq!(there.unwrap().into_bytes().await.unwrap(), "x");
        assert_eq!(here.unwrap().into_bytes().await.unwrap(), "y");
    }
}

#[tokio::test]
async fn requests_that_are_cancelled_before_anybody_took_them_are_not_kept() {
    let (client, server) = (plain(), plain());
    let serves = server.open(Some(5)).unwrap();
    let rpc = Rpc::over_homa(&client.peer(server.local_addr()).unwrap(), 5);
    for _ in 0..100 {
        let pending = soon("start", rpc.start("x", CallOptions::default())).await.unwrap();
        soon("it is there", async {
            while server.open_requests().1 == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop(pending);
        soon("it is gone", async {
            while server.open_requests().1 > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert!(serves.try_recv().is_none());
}

#[tokio::test]
async fn a_buffer_of_what_nobody_took_is_used_again() {
    let (client, server) = (plain(), plain());
    let serves = server.open(Some(5)).unwrap();
    let buffer = Vec::with_capacity(100_000);
    let place = buffer.as_ptr();
    assert!(serves.give(buffer));
    let rpc = Rpc::over_homa(&client.peer(server.local_addr()).unwrap(), 5);
    for length in [100, 90_000] {
        let pending = soon("start", rpc.start(pattern(length), CallOptions::default())).await.unwrap();
        soon("it is there", async {
            while server.open_requests().1 == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop(pending);
        soon("it is gone", async {
            while server.open_requests().1 > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let _pending = soon("start", rpc.start("y", CallOptions::default())).await.unwrap();
    let Some(Incoming::Request { body, .. }) = soon("a request", serves.recv()).await else {
        panic!("no request")
    };
    assert_eq!(body.as_slice().as_ptr(), place);
}

#[tokio::test]
async fn handlers_beyond_their_number_wait_for_their_turn() {
    let (client, server) = (plain(), plain());
    let (handler, mut told, gate) = held();
    let serving = server.serve_with(9, handler, 1).unwrap();
    let rpc = Rpc::over_homa(&client.peer(server.local_addr()).unwrap(), 9);
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.push(soon("start", rpc.start("x", CallOptions::default())).await.unwrap());
        soon("it is there", async {
            while server.open_requests().1 < calls.len() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!(soon("the first begins", told.recv()).await, Some("begun"));
    // The second never begins.
    drop(calls.remove(1));
    soon("that is heard", async {
        while server.open_requests().1 > 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gate.add_permits(2);
    for call in calls {
        soon("a call", call.response()).await.unwrap();
    }
    assert_eq!(serving.stats().taken, 2);
}

#[tokio::test]
async fn requests_that_waited_are_all_begun_when_there_is_room() {
    let (client, server) = (plain(), plain());
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let handler = move |request: Request| {
        let gate = Arc::clone(&opened);
        async move {
            let body = request.into_body().into_bytes().await.unwrap();
            if body == "slow" {
                gate.acquire().await.unwrap().forget();
            }
            Response::new(body)
        }
    };
    let serving = server.serve_with(9, handler, 1).unwrap();
    let rpc = Rpc::over_homa(&client.peer(server.local_addr()).unwrap(), 9);
    let slow = soon("start", rpc.start("slow", CallOptions::default())).await.unwrap();
    soon("it waits", async {
        while serving.stats().running == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // These are done as soon as they begin, so that none of them makes room by its end.
    let mut quick = Vec::new();
    for _ in 0..200 {
        quick.push(soon("start", rpc.start("quick", CallOptions::default())).await.unwrap());
    }
    soon("they are there", async {
        while server.open_requests().1 <= quick.len() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gate.add_permits(1);
    soon("the slow one", slow.response()).await.unwrap();
    for call in quick {
        soon("one that waited", call.response()).await.unwrap();
    }
}

#[tokio::test]
async fn closing_an_endpoint_ends_who_waits_at_a_port() {
    let (_a, b) = pair().await;
    let port = b.homa().unwrap().open(Some(5)).unwrap();
    let waits = tokio::spawn(async move { port.recv().await.is_none() });
    // It waits by then, on this runtime of one thread.
    tokio::task::yield_now().await;
    soon("close", b.close("enough")).await;
    assert!(soon("the end", waits).await.unwrap());
}

/// Handlers that wait their turn must not hold up a program that ends.
#[test]
fn a_runtime_ends_although_requests_wait() {
    let (done, ended) = std::sync::mpsc::channel();
    let ends = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let kept = runtime.block_on(async {
            let (client, server) = (plain(), plain());
            let hangs = async |_: Request| std::future::pending::<Response>().await;
            let serving = server.serve_with(9, hangs, 1).unwrap();
            let rpc = Rpc::over_homa(&client.peer(server.local_addr()).unwrap(), 9);
            let mut calls = Vec::new();
            for _ in 0..10 {
                calls.push(soon("start", rpc.start("x", CallOptions::default())).await.unwrap());
            }
            soon("they are there", async {
                while server.open_requests().1 < calls.len() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            (client, server, serving, calls)
        });
        drop(runtime);
        drop(kept);
        done.send(()).unwrap();
    });
    let ended = ended.recv_timeout(Duration::from_secs(60));
    assert!(ended.is_ok(), "it hangs");
    ends.join().unwrap();
}
#[tokio::test]
async fn a_transport_may_be_opened_and_closed_often() {
    let (a, b) = pair().await;
    let _serving = b.homa().unwrap().serve(9, echo).unwrap();
    for _ in 0..100 {
        let peer = soon("connect", a.homa().unwrap().connect(b.contact())).await.unwrap();
        let rpc = Rpc::over_homa(&peer, 9);
        soon("a call", rpc.call("x", CallOptions::default())).await.unwrap();
    }
}
