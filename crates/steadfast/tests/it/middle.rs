//! Someone in the middle of the better path, on a host of their own: who holds everything back while the connections stay
//! open, who changes what passes, and who ends the connections with a key of their own.

mod proxy;

use crate::common::soon;
use crate::world::{GUARD, block_on, close_after_peer, endpoint};
use proxy::{Harm, Proxy};
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use steadfast::{
    ConnectError, DownReason, Endpoint, Event, Events, Fingerprint, Identity, Labels, MultiSocket, Outcome,
};
use steadfast_testbed::{Host, IpNet, Lab, Link, isolated};
use tokio::sync::oneshot;

/// Two hosts, a short way through a third, and a long one without.
struct Triangle {
    a: Host,
    middle: Host,
    b: Host,
    /// From `a` to the middle.
    wifi: Link,
    /// From the middle to `b`.
    wire: Link,
    lte: Link,
    _lab: Lab,
}

impl Triangle {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let (a, middle, b) = (lab.host("a").unwrap(), lab.host("middle").unwrap(), lab.host("b").unwrap());
        let link = |name, from: &Host, to: &Host, delay: u64, number: u8| {
            let net = |host: u8| IpNet::new([10, 77, number, host], 24).unwrap();
            let link = lab.link(name, from, to).rate_mbit(50.0).delay(Duration::from_millis(delay));
            link.addresses(&[net(1)], &[net(2)]).connect().unwrap()
        };
        let wifi = link("wifi", &a, &middle, 2, 1);
        let wire = link("wire", &middle, &b, 2, 2);
        let lte = link("lte", &a, &b, 40, 3);
        Self { a, middle, b, wifi, wire, lte, _lab: lab }
    }

    /// What `a` is told: `b`'s key, at the middle and at the address on the long way.
    fn contact(&self, key: Fingerprint, middle_port: u16, port: u16) -> String {
        let at_middle = SocketAddr::new(self.wifi.address_of(&self.middle), middle_port);
        format!("{key}@{at_middle},{}", self.direct(port))
    }

    fn direct(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.lte.address_of(&self.b), port)
    }

    fn proxy(&self, port: u16) -> Proxy {
        let target = SocketAddr::new(self.wire.address_of(&self.b), port);
        Proxy::start(&self.middle, self.wifi.address_of(&self.middle), target)
    }
}

/// Runs `at_b` on host `b` beside `at_a` on host `a`; the first is given the endpoint, the second it too and what is told
/// about the other: its key and port.
fn between<A, B>(
    net: &Triangle,
    at_a: impl FnOnce(Endpoint, Fingerprint, u16) -> A + Send,
    at_b: impl FnOnce(Endpoint) -> B + Send,
) where
    A: Future<Output = ()>,
    B: Future<Output = ()>,
{
    let (a_key, b_key) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (a_print, b_print) = (a_key.fingerprint(), b_key.fingerprint());
    let (port_out, port_in) = oneshot::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            net.b.run(|| {
                block_on(async {
                    let endpoint = endpoint().identity(b_key).trust(a_print).bind().await.unwrap();
                    port_out.send(endpoint.port()).unwrap();
                    at_b(endpoint).await;
                });
            });
        });
        net.a.run(|| {
            block_on(async {
                let endpoint = endpoint().identity(a_key).trust(b_print).bind().await.unwrap();
                let port = port_in.await.unwrap();
                at_a(endpoint, b_print, port).await;
            });
        });
    });
}

/// Takes everything, checks that it is what [`bytes_of`] says, and answers each message with the same.
async fn echo(endpoint: Endpoint) {
    let socket = endpoint.accept().await.unwrap();
    let mut next = 0;
    while let Some(message) = socket.recv().await.unwrap() {
        let labels = message.labels.clone();
        let bytes = message.into_bytes().await.unwrap();
        assert!(bytes == bytes_of(next, bytes.len()), "message {next} is wrong");
        socket.send(bytes, labels).await.unwrap();
        next += 1;
    }
    close_after_peer(&socket).await;
    endpoint.close("the test is over").await;
}

/// What message `number` says: its number, and then what no other message says at that place.
fn bytes_of(number: u32, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..length as u32).map(|place| (number.wrapping_mul(167) ^ place) as u8).collect();
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Sends a message there and waits for it to come back.
async fn there_and_back(socket: &MultiSocket, number: u32, length: usize) {
    let sent = bytes_of(number, length);
    let receipt = socket.send(sent.clone(), Labels::foreground()).await.unwrap();
    let back = soon("the answer", socket.recv()).await.unwrap().unwrap().into_bytes().await.unwrap();
    assert!(back == sent, "answer {number} is wrong");
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
}

/// Talks until the short path and the long one are up, and are known as such.
async fn both_paths(endpoint: &Endpoint, socket: &MultiSocket, number: &mut u32) {
    let measured = |name: &str| {
        let found = endpoint.paths().into_iter().find(|path| path.local_name == name && !path.suspect);
        found.and_then(|path| path.rtt)
    };
    let guard = Instant::now() + GUARD;
    loop {
        if let (Some(short), Some(long)) = (measured("wifi"), measured("lte"))
            && short < long
        {
            return;
        }
        assert!(Instant::now() < guard, "both paths: {:?}", endpoint.paths());
        there_and_back(socket, *number, 10).await;
        *number += 1;
    }
}

/// How a path over this network ended, if it did.
fn end_of(name: &str, events: &mut Events) -> Option<DownReason> {
    std::iter::from_fn(|| events.try_next()).find_map(|event| match event {
        Event::PathDown(info, reason) if info.local_name == name => Some(reason),
        _ => None,
    })
}

#[test]
fn who_holds_everything_back_does_not_stop_an_urgent_message() {
    isolated("middle::who_holds_everything_back_does_not_stop_an_urgent_message", || {
        let net = Triangle::new();
        between(
            &net,
            async |endpoint, key, port| {
                let proxy = net.proxy(port);
                let socket = endpoint.connect(net.contact(key, proxy.port(), port)).await.unwrap();
                let mut number = 0;
                both_paths(&endpoint, &socket, &mut number).await;
                proxy.hold();
                let started = Instant::now();
                // Before the middle lets go: it does so only afterwards.
                there_and_back(&socket, number, 10).await;
                let took = started.elapsed();
                let held = proxy.held();
                assert!(held > 0, "the message did not try the better way");
                writeln!(
                    std::io::stderr(),
                    "MEASURED ten bytes there and back past a silent middle: {took:?} (round trips 8 and 80 ms)"
                )
                .unwrap();
                for further in 1..=10 {
                    there_and_back(&socket, number + further, 10).await;
                }
                proxy.let_go();
                number += 11;
                // The connections were never closed, so the path answers again or is made anew.
                let trusted =
                    || endpoint.paths().iter().any(|path| path.local_name == "wifi" && !path.suspect);
                while !trusted() {
                    there_and_back(&socket, number, 10).await;
                    number += 1;
                }
                socket.close_within(GUARD).await.unwrap();
                endpoint.close("").await;
            },
            echo,
        );
    });
}

#[test]
fn what_is_changed_on_the_way_is_never_believed() {
    isolated("middle::what_is_changed_on_the_way_is_never_believed", || {
        let net = Triangle::new();
        between(
            &net,
            async |endpoint, key, port| {
                let proxy = net.proxy(port);
                let socket = endpoint.connect(net.contact(key, proxy.port(), port)).await.unwrap();
                let mut number = 0;
                for harm in Harm::ALL {
                    for towards_b in [true, false] {
                        both_paths(&endpoint, &socket, &mut number).await;
                        let mut events = endpoint.events();
                        let before = endpoint.stats().paths_down;
                        proxy.harm(harm, towards_b);
                        while !proxy.has_harmed() {
                            there_and_back(&socket, number, 3000).await;
                            number += 1;
                        }
                        let reason = loop {
                            there_and_back(&socket, number, 3000).await;
                            number += 1;
                            if let Some(reason) = end_of("wifi", &mut events) {
                                break reason;
                            }
                        };
                        // Where the other side finds out, its word may come before the end of the connection.
                        let told = towards_b && reason == DownReason::Closed;
                        assert!(
                            told || reason == DownReason::Carrier,
                            "{reason:?}, {harm:?}, towards b: {towards_b}"
                        );
                        assert!(endpoint.stats().paths_down > before);
                    }
                }
                let stats = endpoint.stats();
                let believed = stats.violations_decode
                    + stats.violations_hello
                    + stats.violations_flow_control
                    + stats.violations_contradiction
                    + stats.violations_progress
                    + stats.violations_limit;
                assert_eq!(believed, 0, "what was changed came as far as the protocol: {stats:?}");
                socket.close_within(GUARD).await.unwrap();
                endpoint.close("").await;
            },
            echo,
        );
    });
}

#[test]
fn who_has_another_key_is_refused() {
    isolated("middle::who_has_another_key_is_refused", || {
        let net = Triangle::new();
        between(
            &net,
            async |endpoint, key, port| {
                // It trusts everybody it meets, and would take what comes.
                let stranger_key = Identity::generate().unwrap();
                let a_print = endpoint.fingerprint();
                let (port_out, port_in) = oneshot::channel();
                let (over, wait) = oneshot::channel::<()>();
                let target = SocketAddr::new(net.wire.address_of(&net.b), port);
                let stranger = net.middle.thread("stranger", move || {
                    block_on(async move {
                        let stranger = crate::world::endpoint()
                            .identity(stranger_key)
                            .trust(a_print)
                            .bind()
                            .await
                            .unwrap();
                        port_out.send(stranger.port()).unwrap();
                        // Nor is it let in at the other side.
                        let refused = stranger.connect(format!("{key}@{target}")).await.unwrap_err();
                        assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
                        wait.await.unwrap();
                        assert_eq!(stranger.stats().frames_received, 0, "nobody says anything to it");
                        assert!(stranger.paths().is_empty());
                    });
                });
                let middle_port = port_in.await.unwrap();
                let socket = endpoint.connect(net.contact(key, middle_port, port)).await.unwrap();
                for number in 0..50 {
                    there_and_back(&socket, number, 3000).await;
                }
                let names: Vec<_> = endpoint.paths().into_iter().map(|path| path.local_name).collect();
                assert_eq!(names, ["lte"]);
                assert!(net.wifi.counters().a_to_b.bytes > 0, "it was tried");
                socket.close_within(GUARD).await.unwrap();
                endpoint.close("").await;
                over.send(()).unwrap();
                stranger.join().unwrap();
            },
            echo,
        );
    });
}
