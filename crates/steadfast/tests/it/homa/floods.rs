//! A hostile host on the same switch: what it sends is bounded where it arrives, and others' calls succeed.

use crate::world::{GUARD, block_on, endpoint};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use steadfast::homa::{HomaConfig, Incoming, Metrics, RequestOptions, SendError};
use steadfast::rpc::{CallOptions, Request, Response, Rpc};
use steadfast::{Bytes, Fingerprint, Identity};
use steadfast_testbed::{Host, Lab, Switch, isolated};
use tokio::sync::oneshot;

const CALLS: usize = 300;
/// Packets that a flood sends at once.
const BURST: usize = 8;
const CAPTURED: usize = 200;
/// Requests of the greatest length at a time.
const GREED: usize = 64;
/// Every protocol, in the order of the network.
const ALL: i32 = 0x0300;
/// Ethernet, IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;

struct World {
    _lab: Lab,
    server: Host,
    client: Host,
    hostile: Host,
    switch: Switch,
}

impl World {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let [server, client, hostile] = ["server", "client", "hostile"].map(|name| lab.host(name).unwrap());
        let switch = lab.switch("rack", &[&server, &client, &hostile]);
        let switch = switch.rate_mbit(100.0).queue_bytes(200_000).priorities(true).connect().unwrap();
        Self { _lab: lab, server, client, hostile, switch }
    }
}

fn config() -> HomaConfig {
    let mut config = HomaConfig::default().link_rate(100_000_000);
    config.transport.unscheduled = 10_000;
    config.transport.max_incoming = 80_000;
    // As many as a greedy peer has may be kept where they are made; where they arrive, only some of them are held.
    config.transport.max_message = 1_000_000;
    config.transport.max_peer_held = 8_000_000;
    config.transport.max_peer_kept = 64_000_000;
    config
}

/// What the parts of a test tell each other.
#[derive(Default)]
struct Signs {
    /// The flood has come as far as it should before others' calls count.
    flooded: AtomicBool,
    /// The calls are over.
    over: AtomicBool,
}

/// What the server looked like.
struct Seen {
    executed: usize,
    metrics: Metrics,
    most_open: usize,
}

/// The server, until the calls are over. The flood has come when `flooded` says so of its counters and of how many packets
/// its host was sent.
async fn serve(
    world: &World,
    prints: [Fingerprint; 2],
    told: [oneshot::Sender<(String, SocketAddr)>; 2],
    signs: &Signs,
    flooded: impl Fn(&Metrics, u64) -> bool,
) -> Seen {
    let [one, other] = prints;
    let identity = Identity::generate().unwrap();
    let endpoint = endpoint().identity(identity).trust(one).trust(other).bind().await.unwrap();
    let homa = endpoint.homa_with(config()).unwrap();
    let executed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executed);
    let handler = move |request: Request| {
        counter.fetch_add(1, Ordering::Relaxed);
        async move { Response::new(request.into_body()) }
    };
    let serving = homa.serve(1, handler).unwrap();
    let at = SocketAddr::new(world.switch.address_of(&world.server), homa.local_addr().port());
    for told in told {
        told.send((endpoint.contact(), at)).unwrap();
    }
    let mut most_open = 0;
    while !signs.over.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        most_open = most_open.max(homa.open_requests().1);
        let sent = world.switch.counters(&world.hostile).up.frames;
        if flooded(&homa.metrics(), sent) {
            signs.flooded.store(true, Ordering::Release);
        }
    }
    let seen = Seen { executed: executed.load(Ordering::Relaxed), metrics: homa.metrics(), most_open };
    drop(serving);
    endpoint.close("").await;
    seen
}

/// The client: calls until the flood has come, and then those that count. How many it made.
async fn call(key: Identity, contact: String, signs: &Signs) -> usize {
    let endpoint = endpoint().identity(key).bind().await.unwrap();
    let homa = endpoint.homa_with(config()).unwrap();
    let rpc = Rpc::over_homa(&homa.connect(contact.as_str()).await.unwrap(), 1);
    let (mut number, mut counted) = (0, 0);
    while counted < CALLS {
        counted += usize::from(signs.flooded.load(Ordering::Acquire));
        number += 1;
        let body = vec![number as u8; if number % 10 == 0 { 20_000 } else { 100 }];
        let response = rpc.call(body.clone(), CallOptions::default().deadline(GUARD)).await.unwrap();
        assert!(response.into_bytes().await.unwrap() == body, "call {number} came back as another");
    }
    number
}

/// Runs calls of the client against the server while a hostile host, whose key is trusted, does its part: how many calls were
/// made, and what the server looked like.
fn calls_beside(
    flooded: impl Fn(&Metrics, u64) -> bool + Send,
    hostile: impl FnOnce(&World, Identity, (String, SocketAddr), &Signs) + Send,
) -> (usize, Seen) {
    let (world, signs) = (World::new(), Signs::default());
    let (world, signs) = (&world, &signs);
    let [client_key, hostile_key] = [(); 2].map(|()| Identity::generate().unwrap());
    let prints = [client_key.fingerprint(), hostile_key.fingerprint()];
    let ([to_client, to_hostile], [client_hears, hostile_hears]) = {
        let (one, two) = (oneshot::channel(), oneshot::channel());
        ([one.0, two.0], [one.1, two.1])
    };
    thread::scope(|scope| {
        let server = scope.spawn(move || {
            let part = || block_on(serve(world, prints, [to_client, to_hostile], signs, flooded));
            world.server.run(part)
        });
        let attack = scope.spawn(move || {
            let found = hostile_hears.blocking_recv().unwrap();
            world.hostile.run(|| hostile(world, hostile_key, found, signs));
        });
        let calls = world.client.run(|| {
            block_on(async {
                let (contact, _) = client_hears.await.unwrap();
                call(client_key, contact, signs).await
            })
        });
        signs.over.store(true, Ordering::Release);
        attack.join().unwrap();
        (calls, server.join().unwrap())
    })
}

/// Sends these over and over, some each millisecond, until the calls are over.
fn send(to: SocketAddr, packets: &[Vec<u8>], signs: &Signs) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    for burst in (0..packets.len()).cycle().step_by(BURST) {
        if signs.over.load(Ordering::Acquire) {
            return;
        }
        for packet in packets.iter().cycle().skip(burst).take(BURST) {
            // What the wire does not take is lost.
            let _lost = socket.send_to(packet, to);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Packets that come to the server's transport from others.
fn capture(world: &World, port: u16) -> Vec<Vec<u8>> {
    let socket =
        world.server.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL)))).unwrap();
    socket.set_read_timeout(Some(GUARD)).unwrap();
    let (mut packets, mut frame) = (Vec::new(), vec![0; 2048]);
    while packets.len() < CAPTURED {
        let length = (&socket).read(&mut frame).unwrap();
        let frame = &frame[..length];
        let is_udp = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17);
        if is_udp && frame.get(36..38) == Some(&port.to_be_bytes()) && length > HEADERS {
            packets.push(frame[HEADERS..].to_vec());
        }
    }
    packets
}

/// A trusted peer: so many requests of the greatest length at a time, until the calls are over; whoever is refused asks again.
async fn greed(key: Identity, contact: String, signs: &Signs, ended: &AtomicUsize) {
    let endpoint = endpoint().identity(key).bind().await.unwrap();
    let homa = endpoint.homa_with(config()).unwrap();
    let peer = homa.connect(contact.as_str()).await.unwrap();
    let port = homa.open(None).unwrap();
    let longest = Bytes::from(vec![7; config().transport.max_message as usize]);
    let mut open = 0;
    while !signs.over.load(Ordering::Acquire) {
        while open < GREED {
            match port.send(&peer, 1, longest.clone(), 0, RequestOptions::default()) {
                Ok(()) => open += 1,
                Err(SendError::Full { .. }) if open > 0 => break,
                Err(error) => panic!("{error}"),
            }
        }
        let heard = tokio::time::timeout(Duration::from_millis(20), port.recv()).await;
        if let Ok(Some(Incoming::Done { .. })) = heard {
            ended.fetch_add(1, Ordering::Relaxed);
            open -= 1;
        }
    }
}

fn random(length: usize, seed: &mut u64) -> Vec<u8> {
    let mut next = || {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn packets_that_are_random_forged_or_replayed_change_nothing() {
    isolated("homa::floods::packets_that_are_random_forged_or_replayed_change_nothing", || {
        let (calls, seen) = calls_beside(
            |_, sent| sent > 5000,
            |world, _, (_, at), signs| {
                let captured = capture(world, at.port());
                let mut seed = 7;
                let noise = (1..1400).step_by(7).map(|length| random(length, &mut seed));
                let noise: Vec<_> = noise.collect();
                let forged = captured.iter().map(|packet| {
                    // It names a key that there is, and was sealed with another one.
                    let mut packet = packet.clone();
                    if let Some(last) = packet.last_mut() {
                        *last ^= 1;
                    }
                    packet
                });
                let ahead = captured.iter().map(|packet| {
                    // The same of packets that are yet to come.
                    let mut packet = packet.clone();
                    packet[8] ^= 0x40;
                    packet
                });
                let all: Vec<_> =
                    noise.into_iter().chain(forged).chain(ahead).chain(captured.clone()).collect();
                send(at, &all, signs);
            },
        );
        assert_eq!(seen.executed, calls, "each call was executed once");
        assert_eq!(seen.metrics.peer_allocs, 1, "the client is the only peer");
        assert_eq!(
            seen.metrics.malformed_packets + seen.metrics.unknown_packet_types,
            0,
            "nothing was opened"
        );
        assert_eq!(seen.metrics.late_duplicates, 0, "no replay reached the transport");
        assert!(seen.most_open <= 1, "{} requests of one caller", seen.most_open);
    });
}

#[test]
fn a_trusted_peer_with_the_longest_requests_leaves_others_alone() {
    isolated("homa::floods::a_trusted_peer_with_the_longest_requests_leaves_others_alone", || {
        let ended = AtomicUsize::new(0);
        let (calls, seen) = calls_beside(
            // It has all the room that one peer gets.
            |metrics, _| metrics.dropped_data_no_bufs > 0,
            |_, key, (contact, _), signs| block_on(greed(key, contact, signs, &ended)),
        );
        assert!(seen.executed >= calls, "each of others' calls was executed");
        assert!(seen.executed <= calls + ended.load(Ordering::Relaxed) + GREED, "and none twice");
        assert_eq!(seen.metrics.peer_allocs, 2, "the client and the greedy one");
        assert!(seen.most_open <= GREED + 1, "{} requests are here", seen.most_open);
    });
}
