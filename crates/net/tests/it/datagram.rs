//! Packets over loopback and between namespaces: sizes, levels, addresses, refusals.

use crate::common::{guarded, loopback};
use std::net::{Ipv6Addr, SocketAddr};
use steadfast_net::datagram::{
    Batch, ReceiveState, Received, Route, SendState, Socket, SocketConfig, tos_of_level,
};

fn plain(address: impl Into<SocketAddr>) -> Socket {
    Socket::plain(address.into(), &SocketConfig::default()).unwrap()
}

fn loopback6() -> SocketAddr {
    SocketAddr::from((Ipv6Addr::LOCALHOST, 0))
}

/// A packet as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Packet {
    route: Route,
    tos: u8,
    bytes: Vec<u8>,
}

/// Sends all of it.
async fn send(socket: &Socket, batch: &mut Batch) {
    guarded(async {
        while socket.try_send(batch) == SendState::Blocked {
            socket.sendable().await.unwrap();
        }
    })
    .await;
    assert!(batch.is_empty());
}

/// Receives until there are `count` packets.
async fn receive(socket: &Socket, count: usize) -> Vec<Packet> {
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
