//! Packets between two hosts: IP protocol 146 on the wire, what a peer's kernel answers, packets that are too long.

use crate::common::guarded;
use crate::datagram::{receive, send, send_one};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use steadfast_homa::packet::{Ack, Body, Data, Dialect, Packet};
use steadfast_net::datagram::seal::{Algorithm, Keyring, Sealer};
use steadfast_net::datagram::{Batch, Fault, Route, Socket, SocketConfig, tos_of_level};
use steadfast_testbed::{Host, Lab, Link, isolated};
use tokio::runtime::{Builder, Handle, Runtime};

struct Scene {
    runtime: Runtime,
    a: Host,
    b: Host,
    link: Link,
    _lab: Lab,
}

impl Scene {
    fn new(mtu: u32) -> Self {
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let link = lab.link("net", &a, &b).mtu(mtu).connect().unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, a, b, link, _lab: lab }
    }

    /// The addresses of both hosts, of each family.
    fn addresses(&self) -> [(IpAddr, IpAddr); 2] {
        let (a, b) = (&self.a, &self.b);
        [
            (self.link.ipv4_of(a).unwrap().into(), self.link.ipv4_of(b).unwrap().into()),
            (self.link.ipv6_of(a).unwrap().into(), self.link.ipv6_of(b).unwrap().into()),
        ]
    }
}

/// A socket that lives on a host and is waited for here.
fn on(host: &Host, handle: &Handle, open: impl FnOnce() -> Socket + Send) -> Socket {
    host.run(|| {
        let _runtime = handle.enter();
        open()
    })
}

fn raw(host: &Host, handle: &Handle, address: IpAddr) -> Socket {
    on(host, handle, || Socket::raw(address, &SocketConfig::default()).unwrap())
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() }
}

#[test]
fn protocol_146_crosses_between_hosts() {
    isolated("datagram_lab::protocol_146_crosses_between_hosts", || {
        let scene = Scene::new(1500);
        let handle = scene.runtime.handle().clone();
        for (at_a, at_b) in scene.addresses() {
            // One end bound to its address, the other to none.
            let (a, b) = (raw(&scene.a, &handle, at_a), raw(&scene.b, &handle, unspecified(at_b)));
            assert!(a.is_raw() && a.overhead() == if at_a.is_ipv4() { 20 } else { 40 });
            scene.runtime.block_on(async {
                let mut batch = Batch::new();
                let most = 1500 - a.overhead() as usize;
                for number in 0..100u8 {
                    let size = if number % 7 == 0 { 28 } else { most };
                    let tos = tos_of_level(number / 10);
                    assert!(batch.push(Route::to(SocketAddr::new(at_b, 0)), tos, |out| {
                        out.resize(out.len() + size, number);
                    }));
                }
                send(&a, &mut batch).await;
                let packets = receive(&b, 100).await;
                for (number, packet) in packets.iter().enumerate() {
                    let size = if number % 7 == 0 { 28 } else { most };
                    assert_eq!(packet.bytes, vec![number as u8; size]);
                    assert_eq!(packet.tos, tos_of_level(number as u8 / 10), "{number}");
                    assert_eq!(packet.route, Route { remote: SocketAddr::new(at_a, 0), local: Some(at_b) });
                }
                assert!(batch.push(packets[0].route, 0, |out| out.extend_from_slice(b"an answer")));
                send(&b, &mut batch).await;
                let answer = receive(&a, 1).await.remove(0);
                assert_eq!((&answer.bytes[..], answer.route.remote.ip()), (&b"an answer"[..], at_b));
                assert_eq!((a.try_trouble(), a.counters().malformed), (None, 0));
            });
        }
    });
}

#[test]
fn a_host_without_homa_says_so() {
    isolated("datagram_lab::a_host_without_homa_says_so", || {
        let scene = Scene::new(1500);
        let handle = scene.runtime.handle().clone();
        for (at_a, at_b) in scene.addresses() {
            let a = raw(&scene.a, &handle, at_a);
            let b = SocketAddr::new(at_b, 0);
            scene.runtime.block_on(async {
                send_one(&a, b, 7, b"is anybody there, with a header that is long enough?").await;
                let trouble = guarded(a.trouble()).await.unwrap();
                assert_eq!((trouble.remote, trouble.fault), (b, Fault::ProtocolUnreachable));
                assert!(trouble.quoted.starts_with(b"is anybody there"), "{trouble:?}");
            });
            let there = raw(&scene.b, &handle, at_b);
            scene.runtime.block_on(async {
                send_one(&a, b, 7, b"now?").await;
                assert_eq!(receive(&there, 1).await[0].bytes, b"now?");
                assert_eq!(a.try_trouble(), None);
            });
        }
    });
}

#[test]
fn a_packet_that_is_too_long_is_told_and_others_go_out() {
    isolated("datagram_lab::a_packet_that_is_too_long_is_told_and_others_go_out", || {
        let scene = Scene::new(1400);
        let handle = scene.runtime.handle().clone();
        for (at_a, at_b) in scene.addresses() {
            let open = |address: IpAddr| {
                move || Socket::sealed(SocketAddr::new(address, 0), &SocketConfig::default()).unwrap()
            };
            let (a, b) = (on(&scene.a, &handle, open(at_a)), on(&scene.b, &handle, open(at_b)));
            let fits = 1400 - a.overhead() as usize - Sealer::OVERHEAD;
            let mut ring = Keyring::new(1);
            let mut sealer = Sealer::new(ring.offer((), Algorithm::fastest()).unwrap());
            scene.runtime.block_on(async {
                let mut batch = Batch::new();
                let route = Route::to(b.local_addr());
                // A run of them, which the kernel is to split, one alone, and then what fits.
                for size in [fits + 1, fits + 1, fits + 1, fits + 2, fits, fits, fits] {
                    batch.push_sealed(route, 0, &mut sealer, |out| out.resize(out.len() + size, 0)).unwrap();
                }
                send(&a, &mut batch).await;
                let packets = receive(&b, 3).await;
                assert!(packets.iter().all(|packet| packet.bytes.len() == fits + Sealer::OVERHEAD));
                let trouble = guarded(a.trouble()).await.unwrap();
                assert_eq!((trouble.remote, trouble.fault), (b.local_addr(), Fault::TooBig { mtu: 1400 }));
                assert_eq!((a.counters().refused, a.try_trouble()), (4, None));
                assert_eq!(a.offloads(), (true, true), "it was not the splitting");
            });
        }
        // The same in the clear.
        let (at_a, at_b) = scene.addresses()[0];
        let a = raw(&scene.a, &handle, at_a);
        scene.runtime.block_on(async {
            send_one(&a, SocketAddr::new(at_b, 0), 0, &[0; 1381]).await;
            let trouble = guarded(a.trouble()).await.unwrap();
            assert_eq!(trouble.fault, Fault::TooBig { mtu: 1400 });
        });
    });
}

/// What a host sees on its wire.
fn wire(host: &Host) -> OwnedFd {
    let open = || {
        nix::sys::socket::socket(
            AddressFamily::Packet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
    };
    host.run(open).unwrap()
}

/// The next packet of protocol 146 from its IP header on.
fn next_on(wire: &OwnedFd) -> Vec<u8> {
    let mut buffer = [0; 2048];
    loop {
        let length = rustix::net::recv(wire, &mut buffer[..], rustix::net::RecvFlags::empty()).unwrap().0;
        let packet = &buffer[..length];
        if (packet[0] >> 4 == 4 && packet[9] == 146) || (packet[0] >> 4 == 6 && packet[6] == 146) {
            return packet.to_vec();
        }
    }
}

/// The module's layout, field by field, behind an IP header without options.
#[test]
fn the_wire_shows_what_the_module_would_send() {
    isolated("datagram_lab::the_wire_shows_what_the_module_would_send", || {
        let scene = Scene::new(1500);
        let handle = scene.runtime.handle().clone();
        let data = Packet {
            source: 0x8123,
            destination: 4000,
            sender_id: 0x0102_0304_0506_0708,
            body: Body::Data(Data {
                length: 100_000,
                incoming: 40_000,
                ack: Some(Ack { client_id: 0x1112_1314_1516_1718, server_port: 99 }),
                cutoff_version: 0x2122,
                retransmit: true,
                offset: 1424,
            }),
        };
        for (at_a, at_b) in scene.addresses() {
            let (a, _b) = (raw(&scene.a, &handle, at_a), raw(&scene.b, &handle, at_b));
            let wire = wire(&scene.b);
            let mut batch = Batch::new();
            assert!(batch.push(Route::to(SocketAddr::new(at_b, 0)), tos_of_level(6), |out| {
                data.encode(out);
                out.extend_from_slice(b"payload");
            }));
            scene.runtime.block_on(send(&a, &mut batch));
            let packet = next_on(&wire);
            let homa = if at_a.is_ipv4() {
                let length = 20 + 56 + 7u16;
                assert_eq!((packet[0], packet[1]), (0x45, 0xc0), "version, header of 20 bytes; level 6");
                assert_eq!(packet[2..4], length.to_be_bytes());
                assert_eq!(packet[6] & 0x40, 0x40, "not to be fragmented");
                &packet[20..]
            } else {
                assert_eq!(packet[..2], [0x6c, packet[1] & 0xf], "version, level 6 across two bytes");
                assert_eq!(packet[4..7], [0, 56 + 7, 146], "length, protocol right behind");
                &packet[40..]
            };
            let mut expected = Vec::new();
            let fields: [&[u8]; 20] = [
                &[0x81, 0x23],                                     // 0: source port
                &[0x0f, 0xa0],                                     // 2: destination port
                &[0, 0, 5, 0x90],                                  // 4: sequence, the offset
                &[0, 0, 0],                                        // 8
                &[0x10],                                           // 11: type
                &[0xe0],                                           // 12: 14 words of header
                &[6],                                              // 13: flags
                &[0, 0],                                           // 14: window
                &[0, 0],                                           // 16: checksum
                &[0xb9, 0x7d],                                     // 18: urgent
                &[1, 2, 3, 4, 5, 6, 7, 8],                         // 20: sender_id
                &[0, 1, 0x86, 0xa0],                               // 28: message_length
                &[0, 0, 0x9c, 0x40],                               // 32: incoming
                &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18], // 36: ack.client_id
                &[0, 99],                                          // 44: ack.server_port
                &[0x21, 0x22],                                     // 46: cutoff_version
                &[1],                                              // 48: retransmit
                &[0, 0, 0],                                        // 49
                &[0, 0, 5, 0x90],                                  // 52: seg.offset
                b"payload",
            ];
            for field in fields {
                expected.extend_from_slice(field);
            }
            assert_eq!(homa, expected);
            assert_eq!(Packet::decode(Dialect::Linux, homa), Ok(data));
        }
    });
}

/// What a router says of a packet that is too long (RFC 1191; RFC 4443, section 3.2), quoting no more of it than its headers.
fn too_big(from: SocketAddr, to: SocketAddr, mtu: u16) -> Vec<u8> {
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes(), 1480u16.to_be_bytes(), [0; 2]].concat();
    let mut said = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut said = vec![3, 4, 0, 0, 0, 0];
            said.extend(mtu.to_be_bytes());
            said.extend([0x45, 0, 5, 220, 0, 0, 0x40, 0, 64, 17, 0, 0]);
            said.extend([source.octets(), destination.octets()].concat());
            said
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut said = vec![2, 0, 0, 0, 0, 0];
            said.extend(mtu.to_be_bytes());
            said.extend([0x60, 0, 0, 0, 5, 180, 17, 64]);
            said.extend([source.octets(), destination.octets()].concat());
            said
        }
        other => panic!("{other:?}"),
    };
    said.extend(ports);
    if from.is_ipv4() {
        let sum: u32 =
            said.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        said[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    // The kernel computes that of IPv6.
    said
}

#[test]
fn a_forged_word_that_packets_are_too_long_stops_none() {
    isolated("datagram_lab::a_forged_word_that_packets_are_too_long_stops_none", || {
        let scene = Scene::new(1500);
        let handle = scene.runtime.handle().clone();
        for (at_a, at_b) in scene.addresses() {
            let open = |address: IpAddr| {
                move || Socket::sealed(SocketAddr::new(address, 0), &SocketConfig::default()).unwrap()
            };
            let (a, b) = (on(&scene.a, &handle, open(at_a)), on(&scene.b, &handle, open(at_b)));
            let full = 1500 - a.overhead() as usize - Sealer::OVERHEAD;
            let mut ring = Keyring::new(1);
            let mut sealer = Sealer::new(ring.offer((), Algorithm::fastest()).unwrap());
            scene.runtime.block_on(async {
                let mut batch = Batch::new();
                let mut fill = |batch: &mut Batch| {
                    for _ in 0..3 {
                        let write = |out: &mut Vec<u8>| out.resize(out.len() + full, 0);
                        batch.push_sealed(Route::to(b.local_addr()), 0, &mut sealer, write).unwrap();
                    }
                };
                fill(&mut batch);
                send(&a, &mut batch).await;
                assert_eq!(receive(&b, 3).await.len(), 3);
                let forger = scene.b.run(|| {
                    let (family, protocol) = if at_b.is_ipv4() {
                        (socket2::Domain::IPV4, socket2::Protocol::ICMPV4)
                    } else {
                        (socket2::Domain::IPV6, socket2::Protocol::ICMPV6)
                    };
                    let socket = socket2::Socket::new(family, socket2::Type::RAW, Some(protocol)).unwrap();
                    socket.bind(&SocketAddr::new(at_b, 0).into()).unwrap();
                    socket
                });
                let word = too_big(a.local_addr(), b.local_addr(), 1280);
                forger.send_to(&word, &SocketAddr::new(at_a, 0).into()).unwrap();
                let trouble = guarded(a.trouble()).await.unwrap();
                assert_eq!((trouble.fault, trouble.own), (Fault::TooBig { mtu: 1280 }, false));
                assert!(trouble.quoted.is_empty(), "of the packet itself it knows nothing: {trouble:?}");
                fill(&mut batch);
                send(&a, &mut batch).await;
                assert_eq!(a.counters().refused, 0, "the kernel took it at its word");
                assert_eq!(receive(&b, 3).await.len(), 3);
                assert_eq!(a.try_trouble(), None);
            });
        }
    });
}
