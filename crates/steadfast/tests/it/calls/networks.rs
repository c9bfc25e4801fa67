//! Calls over two networks of which one dies.

use super::{any, text};
use crate::world::{GUARD, block_on, endpoint, two_networks};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use steadfast::rpc::{self, CallError, Request, Response, Rpc, ServeError};
use steadfast::{DropReason, Identity, Labels, Outcome, Rule, Selector};
use steadfast_testbed::{Direction, Host, Lab, Link, isolated};
use tokio::sync::oneshot;

struct Net {
    a: Host,
    b: Host,
    wifi: Link,
    lte: Link,
    _lab: Lab,
}

impl Net {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let [wifi, lte] = two_networks(lab.link("wifi", &a, &b), lab.link("lte", &a, &b))
            .map(|link| link.connect().unwrap());
        Self { a, b, wifi, lte, _lab: lab }
    }
}

/// Runs a client's part at `a` against a server at `b` that echoes and counts.
fn calls(net: &Net, executed: &Arc<AtomicUsize>, part: impl AsyncFnOnce(&Rpc, &steadfast::Endpoint) + Send) {
    let (a_key, b_key) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let a_print = a_key.fingerprint();
    let (contact_out, contact_in) = oneshot::channel();
    let counter = Arc::clone(executed);
    let server = net.b.thread("server", move || {
        block_on(async move {
            let endpoint = endpoint().identity(b_key).trust(a_print).bind().await.unwrap();
            contact_out.send(endpoint.contact()).unwrap();
            let mut server = rpc::serve(endpoint.accept().await.unwrap(), move |request: Request| {
                counter.fetch_add(1, Ordering::Relaxed);
                async move { Response::new(request.into_body()) }
            });
            let over = server.done().await;
            // The other side may leave before this one hears that both agreed.
            assert!(matches!(over, Ok(()) | Err(ServeError::Session(_))), "{over:?}");
            endpoint.close("").await;
        });
    });
    net.a.run(|| {
        block_on(async {
            let endpoint = endpoint().identity(a_key).bind().await.unwrap();
            let rpc = Rpc::new(endpoint.connect(contact_in.await.unwrap()).await.unwrap());
            while endpoint.paths().len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            part(&rpc, &endpoint).await;
            rpc.close_within(GUARD).await.unwrap();
            endpoint.close("").await;
        });
    });
    server.join().unwrap();
}

#[test]
fn calls_survive_the_loss_of_a_network() {
    isolated("calls::networks::calls_survive_the_loss_of_a_network", || {
        const CALLS: usize = 200;
        let net = Net::new();
        let executed = Arc::new(AtomicUsize::new(0));
        calls(&net, &executed, async |rpc, endpoint| {
            for number in 0..CALLS {
                match number {
                    50 => net.wifi.blackhole(Direction::Both),
                    100 => net.wifi.heal(),
                    150 => net.lte.blackhole(Direction::BToA),
                    _ => {}
                }
                let size = if number % 10 == 0 { 100_000 } else { 100 };
                let response = rpc.call(vec![number as u8; size], any()).await.unwrap();
                let bytes = response.into_bytes().await.unwrap();
                assert!(bytes.len() == size && bytes.iter().all(|byte| *byte == number as u8));
            }
            assert!(endpoint.stats().bytes_resent > 0, "what was under way moved");
        });
        assert_eq!(executed.load(Ordering::Relaxed), CALLS, "each was executed once");
    });
}

#[test]
fn a_rule_covers_the_request_its_response_and_its_end() {
    isolated("calls::networks::a_rule_covers_the_request_its_response_and_its_end", || {
        const SIZE: usize = 1 << 20;
        let net = Net::new();
        let executed = Arc::new(AtomicUsize::new(0));
        calls(&net, &executed, async |rpc, endpoint| {
            // The better one: an answer without the rule would take it.
            let never_wifi = any()
                .labels(Labels::background().rule(Rule::default().prohibit(Selector::Name("wifi".into()))));
            let on_wifi = || net.wifi.counters().a_to_b.bytes + net.wifi.counters().b_to_a.bytes;
            let before = on_wifi();
            let response = rpc.call(vec![7; SIZE], never_wifi.clone()).await.unwrap();
            assert_eq!(response.into_bytes().await.unwrap().len(), SIZE);
            assert!(on_wifi() - before < 100_000, "only control went there: {}", on_wifi() - before);
            // Without the network that it may use it waits, while others go on.
            net.lte.carrier_down(&net.a).unwrap();
            while endpoint.paths().len() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let limit = Duration::from_millis(300);
            let error = rpc.call("held", never_wifi.clone().deadline(limit)).await.unwrap_err();
            assert!(matches!(&error, CallError::Deadline { limit: told, .. } if *told == limit), "{error}");
            assert_eq!(error.outcome(), Outcome::Dropped(DropReason::Cancelled));
            let held = rpc.start("held, then sent", never_wifi).await.unwrap();
            assert_eq!(text(rpc.call("others", any()).await.unwrap()).await, "others");
            net.lte.carrier_up(&net.a).unwrap();
            assert_eq!(text(held.response().await.unwrap()).await, "held, then sent");
        });
        assert_eq!(executed.load(Ordering::Relaxed), 3);
    });
}
