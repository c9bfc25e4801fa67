//! Eight classes in front of one wire, from the kernel's own sockets.

use std::net::UdpSocket;

use socket2::SockRef;
use steadfast_testbed::{Link, Queue, isolated};

use super::{pair, pass, wait_for, wire_between};

/// Every frame of the flood, with its headers.
const FRAME: usize = 1000;
const HEADERS: [usize; 2] = [14 + 20 + 8, 14 + 40 + 8];

fn set_class(socket: &UdpSocket, class: u32) {
    let socket = SockRef::from(socket);
    if socket.local_addr().unwrap().is_ipv4() {
        socket.set_tos_v4(class << 5).unwrap();
    } else {
        socket.set_tclass_v6(class << 5).unwrap();
    }
}

/// Sends until the class drops its tail, so that nothing more of it can wait; says how many were sent.
fn flood(link: &Link, socket: &UdpSocket, headers: usize) -> usize {
    let mut sent = 0;
    let before = link.counters().a_to_b.dropped_queue;
    wait_for("a full queue", || {
        socket.send(&vec![b'l'; FRAME - headers]).unwrap();
        sent += 1;
        (link.counters().a_to_b.dropped_queue > before).then_some(sent)
    })
}

/// What comes out of the socket until everything has arrived that is under way: one letter each.
fn letters(from: &UdpSocket, to: &UdpSocket) -> String {
    from.send(b".").unwrap();
    let mut letters = String::new();
    let mut buffer = [0; FRAME];
    while !letters.ends_with('.') {
        to.recv(&mut buffer).unwrap();
        letters.push(char::from(buffer[0]));
    }
    letters
}

#[test]
fn a_higher_class_passes_a_flood_of_a_lower_one() {
    isolated("priorities::a_higher_class_passes_a_flood_of_a_lower_one", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).connect().unwrap();
        let families = [
            (link.ipv4_of(&net.a).unwrap().into(), link.ipv4_of(&net.b).unwrap().into()),
            (link.ipv6_of(&net.a).unwrap().into(), link.ipv6_of(&net.b).unwrap().into()),
        ];
        for ((of_a, of_b), headers) in families.into_iter().zip(HEADERS) {
            for priorities in [true, false] {
                let wire = wire_between((&net.a, of_a), (&net.b, of_b));
                pass(&wire.a, &wire.b);
                // So slow that the first frame stays on the wire until the rate is changed.
                link.set(|settings| {
                    settings.rate = Some(1);
                    settings.queue = Queue::Bytes(20 * FRAME);
                    settings.priorities = priorities;
                });
                set_class(&wire.a, 1);
                flood(&link, &wire.a, headers);
                let before = link.counters().a_to_b.dropped_queue;
                for (class, letter) in [(3, b"m"), (6, b"h"), (3, b"m"), (6, b"h")] {
                    set_class(&wire.a, class);
                    wire.a.send(letter).unwrap();
                }
                // With room for the word that ends it.
                link.set(|settings| {
                    settings.rate = Some(100_000_000);
                    settings.queue = Queue::Bytes(100 * FRAME);
                });
                let dropped = link.counters().a_to_b.dropped_queue - before;
                set_class(&wire.a, 0);
                let letters = letters(&wire.a, &wire.b);
                if priorities {
                    assert_eq!(dropped, 0);
                    // The one on the wire is not interrupted; the system's own frames may have taken some room.
                    let waited = letters.strip_prefix("lhhmm").unwrap_or_else(|| panic!("{letters}"));
                    assert!(waited.starts_with("lllllllll"), "{letters}");
                } else {
                    assert!(letters.starts_with("llllllllll"), "{letters}");
                }
            }
        }
    });
}
