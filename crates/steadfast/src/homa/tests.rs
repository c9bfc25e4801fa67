//! Peers that say what no transport of ours would, and networks that lie.

use super::machine::{Asked, Machine};
use super::peers::{Form, Peers};
use super::{Config, Homa, HomaConfig, SendError};
use crate::rpc::{CallError, CallOptions, Request, Response, Rpc};
use crate::{Endpoint, Identity, ScoutConfig, lock};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;
use steadfast_homa::packet::Dialect;
use steadfast_homa::{Instant, Transport};
use steadfast_net::datagram::seal::{Algorithm, Keyring};
use steadfast_net::datagram::{Batch, Fault, Trouble};
use steadfast_wire::NetworkId;
use tokio::sync::Semaphore;

const GUARD: Duration = Duration::from_secs(60);

async fn soon<R>(what: &str, future: impl Future<Output = R>) -> R {
    tokio::time::timeout(GUARD, future).await.unwrap_or_else(|_| panic!("{what}: did not happen"))
}

fn local() -> crate::Builder {
    let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
    Endpoint::builder().scout(scout).addresses([IpAddr::V4(Ipv4Addr::LOCALHOST)])
}

/// Two endpoints that trust each other.
async fn pair() -> (Endpoint, Endpoint) {
    let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (a_key, b_key) = (a.fingerprint(), b.fingerprint());
    let a = local().identity(a).trust(b_key).bind().await.unwrap();
    (a, local().identity(b).trust(a_key).bind().await.unwrap())
}

/// A transport and a peer whose offer says that it receives at this port.
async fn offered(port: u16) -> (Homa, Endpoint, Rpc) {
    let (a, b) = pair().await;
    let homa = a.homa_with(HomaConfig::default()).unwrap();
    let (peer, b) = offers(&homa, b, port).await;
    (homa, b, Rpc::over_homa(&peer, 9))
}

/// Connects to a peer whose offer says that it receives at this port.
async fn offers(homa: &Homa, b: Endpoint, port: u16) -> (super::Peer, Endpoint) {
    let answers = async {
        let heard = async {
            loop {
                let heard = b.shared().peek(|inner, _| inner.core.offers());
                if let Some((association, _, offer)) = heard.into_iter().next() {
                    return (association, offer);
                }
                tokio::task::yield_now().await;
            }
        };
        let (association, offer) = soon("an offer", heard).await;
        let mut answer = offer[..5].to_vec();
        answer.extend_from_slice(&port.to_be_bytes());
        answer.extend_from_slice(&[0, 0]);
        answer.extend_from_slice(&Keyring::new(1).offer((), Algorithm::fastest()).unwrap().encode());
        b.shared().call(|inner, now| inner.core.offer(now, association, answer.into()));
    };
    let (peer, ()) = tokio::join!(soon("connect", homa.connect(b.contact())), answers);
    (peer.unwrap(), b)
}

#[tokio::test]
async fn a_peer_that_receives_nowhere_is_not_waited_for() {
    let (_homa, _b, rpc) = offered(0).await;
    for _ in 0..3 {
        let error = soon("a call", rpc.call("x", CallOptions::default())).await.unwrap_err();
        assert!(matches!(error, CallError::NotSentOverHoma(SendError::NoNetwork { .. })), "{error}");
    }
}

#[tokio::test]
async fn who_saw_no_packet_cannot_say_that_it_did_not_get_through() {
    // Somebody is there, and says nothing.
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let remote = silent.local_addr().unwrap();
    let (homa, _b, rpc) = offered(remote.port()).await;
    let _pending = soon("start", rpc.start("x", CallOptions::default())).await.unwrap();
    let mut packet = [0; 2000];
    let (length, _) = soon("a packet", silent.recv_from(&mut packet)).await.unwrap();
    let trouble = |quoted: &[u8]| {
        let mut machine = lock(&homa.handle.engine.machine);
        let Machine { transport, peers, .. } = &mut *machine;
        assert!(peers.is_sealed());
        let trouble = Trouble { remote, fault: Fault::PortUnreachable, own: false, quoted: quoted.to_vec() };
        peers.trouble(transport, &trouble).len()
    };
    assert_eq!(trouble(&[]), 0);
    assert_eq!(trouble(&packet[..12]), 0);
    let quoted = packet[..length.min(64)].to_vec();
    assert_eq!(trouble(&quoted), 1, "a packet of ours");
    for at in 0..5 {
        let mut forged = quoted.clone();
        forged[at] ^= 0xc0;
        assert_eq!(trouble(&forged), 0, "another key or version");
    }
    let mut later = quoted;
    later[5] = 0x7f;
    assert_eq!(trouble(&later), 0, "a counter that was never used");
}

#[tokio::test]
async fn only_who_left_something_out_is_asked_for_its_paths() {
    let keys = [(); 3].map(|()| Identity::generate().unwrap());
    let [a_print, b_print, c_print] = [0, 1, 2].map(|at| keys[at].fingerprint());
    let [a, b, c] = keys;
    let a = local().identity(a).trust(b_print).trust(c_print).bind().await.unwrap();
    let homa = a.homa().unwrap();
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let (to_b, _b) = offers(&homa, local().identity(b).trust(a_print).bind().await.unwrap(), port).await;
    let (to_c, _c) = offers(&homa, local().identity(c).trust(a_print).bind().await.unwrap(), port).await;
    let (b_rpc, c_rpc) = (Rpc::over_homa(&to_b, 9), Rpc::over_homa(&to_c, 9));
    let missed_at = |now| {
        let machine = lock(&homa.handle.engine.machine);
        machine.peers.missed_since(&machine.transport, now, None)
    };
    let missed = || missed_at(homa.handle.engine.now());
    let _to_b = soon("start", b_rpc.start("x", CallOptions::default())).await.unwrap();
    soon("it is missed", async {
        while missed().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(lock(&homa.handle.engine.machine).peers.associations().len(), 2);
    let associations = missed();
    assert_eq!(associations.len(), 1, "nothing is under way with the other");
    assert!(missed_at(Instant(0)).is_empty(), "something had just come from it");
    let whose = a.shared().peek(|inner, _| inner.core.associate(associations[0]));
    assert_eq!(whose, Some(b_print));
    // And once both are, both.
    let _to_c = soon("start", c_rpc.start("x", CallOptions::default())).await.unwrap();
    soon("both are missed", async {
        while missed().len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

async fn echo(request: Request) -> Response {
    Response::new(request.into_body())
}

#[tokio::test]
async fn a_transport_that_ends_late_takes_nothing_from_the_next_one() {
    let (a, b) = pair().await;
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let handler = move |request: Request| {
        let gate = Arc::clone(&waits);
        async move {
            gate.acquire().await.unwrap().forget();
            Response::new(request.into_body())
        }
    };
    let _serving = b.homa().unwrap().serve(9, handler).unwrap();
    let former = a.homa().unwrap();
    let _to_b = soon("connect", former.connect(b.contact())).await.unwrap();
    // As if its last handle were being dropped on another thread.
    *lock(&a.shared().homa) = Weak::new();
    let next = a.homa().unwrap();
    let rpc = Rpc::over_homa(&soon("connect", next.connect(b.contact())).await.unwrap(), 9);
    let pending = soon("start", rpc.start("x", CallOptions::default())).await.unwrap();
    former.handle.engine.close();
    // It goes the same way as what the former one might have said, and behind it.
    let _conversation = soon("connect", a.connect(b.contact())).await.unwrap();
    assert_eq!(b.shared().peek(|inner, _| inner.core.offers().len()), 1, "what it offers was taken back");
    gate.add_permits(1);
    assert_eq!(
        soon("the call", pending.response()).await.unwrap().into_bytes().await.unwrap(),
        "x",
        "what the former one says last does not count"
    );
}

/// A machine with a peer on the IPv4 and one on the IPv6 of a network, for each more than is filled at once.
fn two_families() -> Machine {
    let transport = Transport::new(Config::default(), [7; 32]);
    let peers = Peers::new(Form::Clear(Dialect::Steadfast), [28, 48], 1500);
    let mut machine = Machine::new(transport, peers, 0, 1000);
    let now = Instant(1_000_000_000);
    for (family, address) in ["192.0.2.1:9", "[2001:db8::1]:9"].into_iter().enumerate() {
        let link = machine.link_of(NetworkId(1), family);
        let Machine { transport, peers, .. } = &mut machine;
        let peer = peers.at(transport, now, link, address.parse::<SocketAddr>().unwrap()).unwrap();
        for _ in 0..20 {
            let body = vec![7; 40_000].into();
            let asked = Asked {
                peer,
                port: 9,
                from: None,
                body,
                deadline: None,
                max_response: 100,
                buffer: Vec::new(),
            };
            machine.ask(now, asked).unwrap();
        }
    }
    machine
}

#[test]
fn a_socket_that_takes_nothing_does_not_stop_the_other() {
    for blocked in [0, 1] {
        let (mut machine, now) = (two_families(), Instant(1_000_000_000));
        let mut batches = [Batch::new(), Batch::new()];
        let mut full = [false; 2];
        full[blocked] = true;
        while machine.fill(now, &mut batches, full) {}
        let bytes = batches.each_ref().map(Batch::bytes);
        assert_eq!(bytes[blocked], 0, "it holds nothing more than it did");
        assert!(bytes[1 - blocked] > 800_000, "the other takes all of its own: {bytes:?}");
        while machine.fill(now, &mut batches, [false; 2]) {}
        assert!(batches[blocked].bytes() > 800_000, "and then it goes on");
    }
}

#[test]
fn each_network_is_the_first_in_its_turn() {
    let (mut machine, now) = (two_families(), Instant(1_000_000_000));
    let mut batches = [Batch::new(), Batch::new()];
    let mut began = [0; 2];
    for _ in 0..2 {
        machine.fill(now, &mut batches, [false; 2]);
        for (batch, began) in batches.iter_mut().zip(&mut began) {
            *began += usize::from(!batch.is_empty());
            batch.clear();
        }
    }
    assert_eq!(began, [1, 1], "one waited for all of the other");
}

#[tokio::test]
async fn forged_packets_wear_out_a_key_and_not_its_peer() {
    let (a, b) = pair().await;
    let server = b.homa().unwrap();
    lock(&server.handle.engine.machine).peers.ring = Keyring::with_forgeries(16, 40);
    let _serving = server.serve(9, echo).unwrap();
    let rpc = Rpc::over_homa(&soon("connect", a.homa().unwrap().connect(b.contact())).await.unwrap(), 9);
    soon("a call", rpc.call("x", CallOptions::default())).await.unwrap();
    // What b offered begins with the version, the round, ports and the algorithm.
    let key = || {
        let offers = a.shared().peek(|inner, _| inner.core.offers());
        offers.first().map(|(_, _, offer)| offer[10..14].to_vec())
    };
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for round in 0..3 {
        let worn = key().unwrap();
        let mut counter = 1000_u64;
        soon("a new key", async {
            while key().is_none_or(|key| key == worn) {
                counter += 1;
                let forged = [&[0x40][..], &worn, &counter.to_be_bytes(), &[0; 40]].concat();
                stranger.send_to(&forged, server.local_addr()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        soon("a call", async {
            // Both have the new ones once it succeeds.
            let limit = CallOptions::default().deadline(Duration::from_secs(1));
            while rpc.call("y", limit.clone()).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(counter < 1000 + 1000, "round {round}");
    }
}

#[tokio::test]
async fn what_begins_as_a_transport_ends_ends_with_it() {
    let homa = Homa::plain("127.0.0.1:0".parse().unwrap()).unwrap();
    let engine = Arc::clone(&homa.handle.engine);
    drop(homa);
    let token = Arc::new(());
    let watched = Arc::downgrade(&token);
    engine.spawn(async move {
        std::future::pending::<()>().await;
        drop(token);
    });
    soon("it is dropped", async {
        while watched.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
