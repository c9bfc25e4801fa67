//! Calls over Homa between two hosts: networks that lose and reorder, that die, that may not be used.

use super::{echo, held};
use crate::common::soon;
use crate::world::{GUARD, block_on, endpoint, two_networks};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use steadfast::homa::Peer;
use steadfast::rpc::{CallError, CallOptions, Request, Response, Rpc};
use steadfast::{Config, Endpoint, Identity, Labels, Rule, Selector};
use steadfast_testbed::{Direction, Host, Lab, Link, Loss, isolated};
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

    /// Runs a client's part at `a` against a server at `b` that echoes, after a while if it is asked to, and counts.
    fn calls(&self, executed: &Arc<AtomicUsize>, part: impl AsyncFnOnce(&Peer, &Endpoint) + Send) {
        let (a_key, b_key) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let a_print = a_key.fingerprint();
        let (contact_out, contact_in) = oneshot::channel();
        let (over_out, over_in) = oneshot::channel::<()>();
        let counter = Arc::clone(executed);
        let server = self.b.thread("server", move || {
            block_on(async move {
                let endpoint = endpoint().identity(b_key).trust(a_print).bind().await.unwrap();
                let handler = move |request: Request| {
                    counter.fetch_add(1, Ordering::Relaxed);
                    async move {
                        let body = request.into_body();
                        if body.whole().is_some_and(|bytes| bytes.starts_with(b"slow")) {
                            tokio::time::sleep(Duration::from_millis(300)).await;
                        }
                        Response::new(body)
                    }
                };
                let _serving = endpoint.homa().unwrap().serve(1, handler).unwrap();
                contact_out.send(endpoint.contact()).unwrap();
                let _client_done = over_in.await;
            });
        });
        self.a.run(|| {
            block_on(async {
                let endpoint = endpoint().identity(a_key).bind().await.unwrap();
                let peer = endpoint.homa().unwrap().connect(contact_in.await.unwrap()).await.unwrap();
                while endpoint.paths().len() < 2 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                part(&peer, &endpoint).await;
            });
        });
        over_out.send(()).unwrap();
        server.join().unwrap();
    }
}

#[test]
fn a_lossy_network_executes_every_call_once() {
    isolated("homa::networks::a_lossy_network_executes_every_call_once", || {
        const CALLS: usize = 150;
        let net = Net::new();
        let executed = Arc::new(AtomicUsize::new(0));
        net.calls(&executed, async |peer, _| {
            for link in [&net.wifi, &net.lte] {
                link.set(|settings| settings.loss = Loss::Independent(0.03));
            }
            let rpc = Rpc::over_homa(peer, 1);
            for number in 0..CALLS {
                let body = vec![number as u8; if number % 10 == 0 { 60_000 } else { 100 }];
                let response = rpc.call(body.clone(), CallOptions::default().deadline(GUARD)).await.unwrap();
                assert!(response.into_bytes().await.unwrap() == body, "call {number} came back as another");
            }
        });
        assert_eq!(executed.load(Ordering::Relaxed), CALLS);
    });
}

#[test]
fn a_call_moves_to_another_network_when_its_own_dies() {
    isolated("homa::networks::a_call_moves_to_another_network_when_its_own_dies", || {
        let net = Net::new();
        let executed = Arc::new(AtomicUsize::new(0));
        net.calls(&executed, async |peer, _| {
            let rpc = Rpc::over_homa(peer, 1);
            rpc.call("x", CallOptions::default()).await.unwrap();
            let pending = rpc.start("slow", CallOptions::default()).await.unwrap();
            // The request took the better network.
            soon("it begins", async {
                while executed.load(Ordering::Relaxed) < 2 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
            net.wifi.blackhole(Direction::Both);
            let response = pending.response().await.unwrap();
            assert_eq!(response.into_bytes().await.unwrap(), "slow");
            rpc.call("y", CallOptions::default()).await.unwrap();
        });
        assert_eq!(executed.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn a_rule_holds_for_every_packet() {
    isolated("homa::networks::a_rule_holds_for_every_packet", || {
        let net = Net::new();
        let executed = Arc::new(AtomicUsize::new(0));
        net.calls(&executed, async |peer, _| {
            let rpc = Rpc::over_homa(peer, 1);
            let only = |name: &str| {
                let rule = Rule::default().require(Selector::Name(name.into()));
                CallOptions::default().labels(Labels::foreground().rule(rule))
            };
            // Nothing passes over the better network, and no such call needs it.
            net.wifi.blackhole(Direction::Both);
            for _ in 0..20 {
                rpc.call(vec![1; 3000], only("lte")).await.unwrap();
            }
            let error = rpc.call("x", only("satellite")).await.unwrap_err();
            assert!(error.to_string().contains("no network"), "{error}");
            assert!(matches!(error, CallError::NotSentOverHoma(_)), "{error:?}");
        });
        assert_eq!(executed.load(Ordering::Relaxed), 20);
    });
}

/// One side forgets the other while there is no network, and not the other way round: who seeks somebody forgets nobody.
#[test]
fn who_was_forgotten_without_a_network_is_called_again() {
    isolated("homa::networks::who_was_forgotten_without_a_network_is_called_again", || {
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let wire = lab.link("wire", &a, &b).connect().unwrap();
        let (a_key, b_key) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let a_print = a_key.fingerprint();
        let (contact_out, contact_in) = oneshot::channel();
        let (over_out, over_in) = oneshot::channel::<()>();
        let (handler, mut told, _gate) = held();
        let server = b.thread("server", move || {
            block_on(async move {
                let mut config = Config::default();
                config.idle_limit = Duration::from_millis(300);
                let endpoint = endpoint().identity(b_key).trust(a_print).config(config).bind().await.unwrap();
                let homa = endpoint.homa().unwrap();
                let _serving = (homa.serve(1, handler).unwrap(), homa.serve(2, echo).unwrap());
                contact_out.send(endpoint.contact()).unwrap();
                let _client_done = over_in.await;
            });
        });
        a.run(|| {
            block_on(async {
                let endpoint = endpoint().identity(a_key).bind().await.unwrap();
                let peer = endpoint.homa().unwrap().connect(contact_in.await.unwrap()).await.unwrap();
                let pending = Rpc::over_homa(&peer, 1).start("x", CallOptions::default()).await.unwrap();
                assert_eq!(soon("it begins", told.recv()).await, Some("begun"));
                // Time to acknowledge what was offered: what is not, is said again by itself.
                tokio::time::sleep(Duration::from_millis(1500)).await;
                wire.carrier_down(&a).unwrap();
                wire.carrier_down(&b).unwrap();
                // Nothing else ends it: a server in service waits for its client.
                assert_eq!(soon("the client is forgotten", told.recv()).await, Some("dropped"));
                wire.carrier_up(&a).unwrap();
                wire.carrier_up(&b).unwrap();
                pending.response().await.unwrap_err();
                let rpc = Rpc::over_homa(&peer, 2);
                soon("a call", async {
                    let limit = CallOptions::default().deadline(Duration::from_secs(1));
                    while rpc.call("y", limit.clone()).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                })
                .await;
            });
        });
        over_out.send(()).unwrap();
        server.join().unwrap();
    });
}

/// Routers say which packets are too long for what comes behind them; that is heard although the kernel does not act on it.
#[test]
fn a_path_that_takes_less_than_its_ends_is_found_out() {
    isolated("homa::networks::a_path_that_takes_less_than_its_ends_is_found_out", || {
        for mtu in [1400, 1280] {
            let lab = Lab::new().unwrap();
            let [a, router, b] = ["a", "router", "b"].map(|name| lab.host(name).unwrap());
            let near = lab.link("near", &a, &router).connect().unwrap();
            // The next one is the narrow one, in both directions.
            let middle = lab.host("middle").unwrap();
            let narrow = lab.link("narrow", &router, &middle).mtu(mtu).connect().unwrap();
            let far = lab.link("far", &middle, &b).connect().unwrap();
            for host in [&router, &middle] {
                host.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
            }
            let net = |address: std::net::Ipv4Addr| steadfast_testbed::IpNet::new(address, 32).unwrap();
            let to = |link: &Link, host: &Host| link.ipv4_of(host).unwrap();
            let (at_a, at_b) = (to(&near, &a), to(&far, &b));
            near.add_route(&a, net(at_b), to(&near, &router).into()).unwrap();
            narrow.add_route(&router, net(at_b), to(&narrow, &middle).into()).unwrap();
            narrow.add_route(&middle, net(at_a), to(&narrow, &router).into()).unwrap();
            far.add_route(&b, net(at_a), to(&far, &middle).into()).unwrap();
            // Where a router is that says so.
            near.add_route(&a, net(to(&narrow, &middle)), to(&near, &router).into()).unwrap();
            far.add_route(&b, net(to(&narrow, &router)), to(&far, &middle).into()).unwrap();

            let (a_key, b_key) = (Identity::generate().unwrap(), Identity::generate().unwrap());
            let (a_print, b_print) = (a_key.fingerprint(), b_key.fingerprint());
            let (port_out, port_in) = oneshot::channel();
            let (over_out, over_in) = oneshot::channel::<()>();
            let server = b.thread("server", move || {
                block_on(async move {
                    let endpoint = endpoint().identity(b_key).trust(a_print).bind().await.unwrap();
                    let _serving = endpoint.homa().unwrap().serve(1, echo).unwrap();
                    port_out.send(endpoint.port()).unwrap();
                    let _client_done = over_in.await;
                });
            });
            a.run(|| {
                block_on(async {
                    let endpoint = endpoint().identity(a_key).trust(b_print).bind().await.unwrap();
                    let contact = format!("{b_print}@{at_b}:{}", port_in.await.unwrap());
                    let peer = endpoint.homa().unwrap().connect(contact.as_str()).await.unwrap();
                    let rpc = Rpc::over_homa(&peer, 1);
                    for length in [10, 200_000, 1] {
                        let body = vec![7; length];
                        let response = soon("a call", rpc.call(body.clone(), CallOptions::default())).await;
                        assert!(response.unwrap().into_bytes().await.unwrap() == body, "{length}");
                    }
                });
            });
            over_out.send(()).unwrap();
            server.join().unwrap();
        }
    });
}
