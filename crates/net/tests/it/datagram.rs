//! Packets over one host: sizes, levels, addresses, refusals.

use crate::common::{guarded, in_namespace, ip, loopback};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::process::Command;
use std::time::Duration;
use steadfast_net::datagram::seal::{Algorithm, Keyring, OpenError, Sealer};
use steadfast_net::datagram::{
    Batch, Fault, MAX_PACKET, ReceiveState, Received, Route, SendState, Socket, SocketConfig, SocketError,
    tos_of_level,
};

pub(crate) fn plain(address: SocketAddr) -> Socket {
    Socket::plain(address, &SocketConfig::default()).unwrap()
}

fn sealed(address: SocketAddr) -> Socket {
    Socket::sealed(address, &SocketConfig::default()).unwrap()
}

fn loopback6() -> SocketAddr {
    SocketAddr::from((Ipv6Addr::LOCALHOST, 0))
}

/// A packet as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) route: Route,
    pub(crate) tos: u8,
    pub(crate) bytes: Vec<u8>,
}

/// Sends all of it.
pub(crate) async fn send(socket: &Socket, batch: &mut Batch) {
    guarded(async {
        while socket.try_send(batch) == SendState::Blocked {
            socket.sendable().await.unwrap();
        }
    })
    .await;
    assert!(batch.is_empty());
}

/// Receives until there are `count` packets.
pub(crate) async fn receive(socket: &Socket, count: usize) -> Vec<Packet> {
    let mut room = Received::new();
    let mut packets = Vec::new();
    guarded(async {
        while packets.len() < count {
            let state = socket.try_recv(&mut room).unwrap();
            for mut arrival in room.arrivals() {
                let (route, tos) = (arrival.route, arrival.tos);
                packets.extend(arrival.packets().map(|bytes| Packet { route, tos, bytes: bytes.to_vec() }));
            }
            if state == ReceiveState::Blocked && packets.len() < count {
                socket.receivable().await.unwrap();
            }
        }
    })
    .await;
    packets
}

/// One packet to an address.
pub(crate) async fn send_one(socket: &Socket, remote: SocketAddr, level: u8, bytes: &[u8]) {
    let mut batch = Batch::new();
    assert!(batch.push(Route::to(remote), tos_of_level(level), |out| out.extend_from_slice(bytes)));
    send(socket, &mut batch).await;
}

#[tokio::test]
async fn a_run_arrives_as_its_packets() {
    for address in [loopback(), loopback6()] {
        let (one, other) = (plain(address), plain(address));
        let mut batch = Batch::new();
        let route = Route::to(other.local_addr());
        let expected: Vec<Vec<u8>> =
            (0..40).map(|number: u8| vec![number; if number == 39 { 700 } else { 1480 }]).collect();
        for bytes in &expected {
            assert!(batch.push(route, tos_of_level(5), |out| out.extend_from_slice(bytes)));
        }
        assert_eq!((batch.packets(), batch.bytes()), (40, 39 * 1480 + 700));
        send(&one, &mut batch).await;
        assert_eq!(one.offloads(), (true, true), "this kernel splits and joins");
        let packets = receive(&other, 40).await;
        assert_eq!(packets.iter().map(|packet| packet.bytes.clone()).collect::<Vec<_>>(), expected);
        let from = Route { remote: one.local_addr(), local: Some(address.ip()) };
        assert!(packets.iter().all(|packet| packet.route == from && packet.tos == 5 << 5), "{packets:?}");
    }
}

/// Sizes that grow and shrink, levels and peers that alternate, more packets and bytes than one run has.
#[tokio::test]
async fn any_sequence_of_packets_arrives_as_it_was() {
    let one = plain(loopback());
    let others = [plain(loopback()), plain(loopback())];
    let mut expected = [Vec::new(), Vec::new()];
    let mut batch = Batch::new();
    let sizes = [1, 1, 7, 1480, 1480, 1479, 1480, 30_000, 30_000, 30_000, MAX_PACKET, 1, 9000];
    for round in 0..200usize {
        let (to, level) = (usize::from(round % 11 == 0), (round / 20 % 8) as u8);
        // Long stretches of one size among all others.
        let size = if (50..150).contains(&round) { 500 } else { sizes[round % sizes.len()] };
        let bytes = vec![round as u8; size];
        let route = Route::to(others[to].local_addr());
        assert!(batch.push(route, tos_of_level(level), |out| out.extend_from_slice(&bytes)));
        expected[to].push((level << 5, bytes));
    }
    assert!(!batch.push(Route::to(loopback()), 0, |out| out.resize(out.len() + MAX_PACKET + 1, 0)));
    let bytes: usize = expected.iter().flatten().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!((batch.packets(), batch.bytes()), (200, bytes));
    assert!(others[0].receive_buffer().unwrap() > 0);
    let sending = async {
        send(&one, &mut batch).await;
        assert_eq!(batch.bytes(), 0);
    };
    let [first, second] = &others;
    let ((), at_first, at_second) =
        tokio::join!(sending, receive(first, expected[0].len()), receive(second, expected[1].len()));
    for (got, expected) in [at_first, at_second].into_iter().zip(expected) {
        let got: Vec<_> = got.into_iter().map(|packet| (packet.tos, packet.bytes)).collect();
        assert!(got == expected, "order, sizes, levels and bytes are those that were sent");
    }
}

#[tokio::test]
async fn a_refusal_is_told_of_the_peer_that_refuses() {
    // With the same level many go in one call; with another each in one of its own.
    for (address, level) in [(loopback(), 0), (loopback(), 1), (loopback6(), 0), (loopback6(), 1)] {
        let (one, alive) = (plain(address), plain(address));
        let gone = plain(address).local_addr();
        let mut batch = Batch::new();
        for number in 0..50u8 {
            for (remote, level) in [(gone, 0), (alive.local_addr(), level)] {
                let tos = tos_of_level(level);
                assert!(batch.push(Route::to(remote), tos, |out| out.extend_from_slice(&[number; 100])));
            }
        }
        send(&one, &mut batch).await;
        let packets = receive(&alive, 50).await;
        assert!(packets.iter().enumerate().all(|(number, packet)| packet.bytes[0] == number as u8));
        let trouble = guarded(one.trouble()).await.unwrap();
        assert_eq!((trouble.remote, trouble.fault), (gone, Fault::PortUnreachable));
        while let Some(trouble) = one.try_trouble() {
            assert_eq!((trouble.remote, trouble.fault), (gone, Fault::PortUnreachable));
        }
        assert_eq!(one.counters().refused, 0, "no packet was charged with another one's trouble");
        // Also while nothing else is done, and in the other direction, which the error was told of first.
        send_one(&one, gone, 0, b"again").await;
        assert_eq!(guarded(one.trouble()).await.unwrap().remote, gone);
        send_one(&one, gone, 0, b"and again").await;
        send_one(&alive, one.local_addr(), 0, b"back").await;
        assert_eq!(receive(&one, 1).await[0].bytes, b"back");
    }
}

#[tokio::test]
async fn nothing_unencrypted_leaves_the_host() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[2001:db8::1]:0", "[::ffff:192.0.2.1]:0"] {
        let address: SocketAddr = address.parse().unwrap();
        let error = Socket::plain(address, &SocketConfig::default()).unwrap_err();
        assert!(
            matches!(error, SocketError::NotLoopback { address: refused } if refused == address),
            "{error}"
        );
    }
    let one = plain(loopback());
    let mut batch = Batch::new();
    for remote in ["192.0.2.1:9", "[::1]:9"] {
        assert!(batch.push(Route::to(remote.parse().unwrap()), 0, |out| out.push(1)));
    }
    assert_eq!(one.try_send(&mut batch), SendState::Idle);
    assert_eq!((one.counters().refused, one.try_trouble()), (2, None));
    // A socket for sealed packets sends no others.
    let (one, other) = (sealed(loopback()), plain(loopback()));
    assert!(batch.push(Route::to(other.local_addr()), 0, |out| out.push(1)));
    assert_eq!(one.try_send(&mut batch), SendState::Idle);
    assert_eq!(one.counters().refused, 1);
}

#[tokio::test]
async fn sealed_packets_are_opened_where_they_lie() {
    for algorithm in [Algorithm::fastest(), Algorithm::Aes256Gcm, Algorithm::ChaCha20Poly1305] {
        let (one, other) = (sealed(loopback()), sealed(loopback()));
        let mut ring = Keyring::new(1);
        let mut sealer = Sealer::new(ring.offer("one", algorithm).unwrap());
        let mut batch = Batch::new();
        let route = Route::to(other.local_addr());
        for number in 0..100usize {
            let plain = vec![number as u8; if number % 30 == 0 { 10 } else { 1400 }];
            batch.push_sealed(route, 0, &mut sealer, |out| out.extend_from_slice(&plain)).unwrap();
        }
        assert_eq!(batch.bytes(), 96 * 1400 + 4 * 10 + 100 * Sealer::OVERHEAD);
        let too_long = batch.push_sealed(route, 0, &mut sealer, |out| out.resize(out.len() + MAX_PACKET, 0));
        assert!(too_long.unwrap_err().to_string().contains("65507"));
        send(&one, &mut batch).await;
        let mut room = Received::new();
        let mut number = 0;
        guarded(async {
            while number < 100 {
                if other.try_recv(&mut room).unwrap() == ReceiveState::Blocked && room.is_empty() {
                    other.receivable().await.unwrap();
                }
                for mut arrival in room.arrivals() {
                    for packet in arrival.packets() {
                        let mut again = packet.to_vec();
                        let (owner, plain) = ring.open(packet).unwrap();
                        assert!(*owner == "one" && plain.iter().all(|byte| *byte == number), "{number}");
                        assert_eq!(plain.len(), if number % 30 == 0 { 10 } else { 1400 });
                        assert_eq!(ring.open(&mut again), Err(OpenError::Replayed));
                        number += 1;
                    }
                }
            }
        })
        .await;
    }
}

#[test]
fn a_wildcard_socket_answers_from_the_address_that_was_asked() {
    in_namespace("a_wildcard_socket_answers_from_the_address_that_was_asked", || async {
        ip("addr add 10.9.0.1/32 dev lo");
        ip("addr add fd09::1/128 dev lo nodad");
        ip("addr add fd09::2/128 dev lo nodad");
        let asked: [[IpAddr; 2]; 2] = [
            [Ipv4Addr::new(10, 9, 0, 1).into(), Ipv4Addr::new(127, 0, 0, 2).into()],
            ["fd09::1".parse().unwrap(), "fd09::2".parse().unwrap()],
        ];
        for asked in asked {
            let everywhere: IpAddr =
                if asked[0].is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let server = sealed(SocketAddr::new(everywhere, 0));
            let client = sealed(SocketAddr::new(everywhere, 0));
            let mut ring = Keyring::new(2);
            let mut sealer = Sealer::new(ring.offer((), Algorithm::fastest()).unwrap());
            for address in asked {
                let server_at = SocketAddr::new(address, server.local_addr().port());
                let mut batch = Batch::new();
                for number in 0..3 {
                    let route = Route::to(server_at);
                    batch.push_sealed(route, 0, &mut sealer, |out| out.push(number)).unwrap();
                }
                send(&client, &mut batch).await;
                let question = receive(&server, 3).await.remove(0);
                assert_eq!(question.route.local, Some(address));
                batch.push_sealed(question.route, 0, &mut sealer, |out| out.push(9)).unwrap();
                send(&server, &mut batch).await;
                assert_eq!(receive(&client, 1).await[0].route.remote, server_at);
            }
        }
    });
}

/// A queue holds what was sent, so the socket is full; that the network told an error must not make waiting futile.
#[test]
fn a_full_socket_waits_although_there_were_errors() {
    in_namespace("a_full_socket_waits_although_there_were_errors", || async {
        let mut config = SocketConfig::default();
        config.send_buffer = 20_000;
        let one = Socket::plain(loopback(), &config).unwrap();
        let gone = plain(loopback()).local_addr();
        send_one(&one, gone, 0, b"nobody").await;
        assert_eq!(guarded(one.trouble()).await.unwrap().remote, gone);
        let limit = "qdisc add dev lo root tbf rate 8mbit burst 2000 limit 1000000";
        assert!(Command::new("tc").args(limit.split_whitespace()).status().unwrap().success());

        let other = plain(loopback());
        let mut batch = Batch::new();
        let mut size = 1000;
        for number in 0..300u16 {
            // Of no two equal sizes, so that each is a call.
            size = if size == 1000 { 1001 } else { 1000 };
            assert!(batch.push(Route::to(other.local_addr()), (number % 2) as u8, |out| {
                out.resize(out.len() + size, 0);
            }));
        }
        let mut blocked = 0;
        let sending = async {
            while one.try_send(&mut batch) == SendState::Blocked {
                blocked += 1;
                one.sendable().await.unwrap();
            }
        };
        guarded(async { tokio::join!(sending, receive(&other, 300)) }).await;
        assert!(blocked > 0, "the socket was never full, nothing was tested");
        assert!(blocked <= 300, "{blocked} wake-ups for 300 packets");
        // While it is full, a wait that is given up leaves nothing behind.
        while one.try_send(&mut batch) == SendState::Idle {
            assert!(batch.push(Route::to(other.local_addr()), 0, |out| out.resize(out.len() + 1000, 0)));
        }
        let waiting = tokio::time::timeout(Duration::ZERO, pin!(one.sendable())).await;
        assert!(waiting.is_err(), "full, and called ready");
        guarded(one.sendable()).await.unwrap();
    });
}

#[tokio::test]
async fn long_ends_are_sent_from_where_they_lie_and_in_their_order() {
    let (one, other) = (plain(loopback()), plain(loopback()));
    let route = Route::to(other.local_addr());
    let (mut batch, mut expected) = (Batch::new(), Vec::new());
    for number in 0..9_u8 {
        let length = if number % 3 == 1 { 30_000 } else { 100 };
        let (head, rest) = (vec![number; 50], vec![!number; length]);
        let added = if number % 3 == 1 {
            batch.push_long(route, 0, |out| out.extend_from_slice(&head), rest.clone().into())
        } else {
            batch.push(route, 0, |out| out.extend([&head[..], &rest].concat()))
        };
        assert!(added);
        expected.push([head, rest].concat());
    }
    assert_eq!((batch.packets(), batch.bytes()), (9, expected.iter().map(Vec::len).sum()));
    assert!(!batch.push_long(route, 0, |out| out.push(1), vec![0; MAX_PACKET].into()), "too long");
    send(&one, &mut batch).await;
    assert_eq!(batch.bytes(), 0);
    let found = receive(&other, 9).await;
    assert!(found.iter().map(|packet| &packet.bytes).eq(&expected), "each packet whole, in order");
}
