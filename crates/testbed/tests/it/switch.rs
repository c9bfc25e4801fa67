//! Several hosts on one switch.

use std::net::UdpSocket;

use socket2::SockRef;
use steadfast_testbed::{Host, Lab, LabError, Queue, Switch, isolated};

use super::{pass, wait_for, wire_between};

fn three() -> (Lab, [Host; 3]) {
    let lab = Lab::new().unwrap();
    let hosts = ["a", "b", "c"].map(|name| lab.host(name).unwrap());
    (lab, hosts)
}

fn socket(switch: &Switch, from: &Host, to: &UdpSocket) -> UdpSocket {
    let socket = from.run(|| UdpSocket::bind((switch.address_of(from), 0))).unwrap();
    socket.connect(to.local_addr().unwrap()).unwrap();
    socket
}

#[test]
fn each_pair_of_hosts_reaches_each_other_and_nobody_else_hears() {
    isolated("switch::each_pair_of_hosts_reaches_each_other_and_nobody_else_hears", || {
        let (lab, [a, b, c]) = three();
        let switch = lab.switch("rack", &[&a, &b, &c]).connect().unwrap();
        for (from, to, other) in [(&a, &b, &c), (&b, &c, &a), (&c, &a, &b)] {
            let wire = wire_between((from, switch.address_of(from)), (to, switch.address_of(to)));
            let before = switch.counters(other).down;
            pass(&wire.a, &wire.b);
            pass(&wire.b, &wire.a);
            // Frames for groups, of IPv6, are larger than these.
            let heard = switch.counters(other).down.bytes - before.bytes;
            assert!(heard == 0 || heard >= 70, "{heard} bytes of others");
        }
        let refused = lab.switch("rack2", &[&a, &b, &a]).connect().unwrap_err();
        assert!(matches!(refused, LabError::Misuse(_)), "{refused}");
    });
}

#[test]
fn senders_share_the_wire_of_their_receiver_by_priority() {
    isolated("switch::senders_share_the_wire_of_their_receiver_by_priority", || {
        const FRAME: usize = 1000;
        let (lab, [a, b, c]) = three();
        let switch = lab.switch("rack", &[&a, &b, &c]).priorities(true).connect().unwrap();
        let to = c.run(|| UdpSocket::bind((switch.address_of(&c), 0))).unwrap();
        to.set_read_timeout(Some(super::GUARD)).unwrap();
        let (bulk, urgent) = (socket(&switch, &a, &to), socket(&switch, &b, &to));
        SockRef::from(&urgent).set_tos_v4(6 << 5).unwrap();
        // So slow that the first frame stays on the wire until the rate is changed.
        switch.set_down(&c, |settings| {
            settings.rate = Some(1);
            settings.queue = Queue::Bytes(10 * FRAME);
        });
        let before = switch.counters(&c).down.dropped_queue;
        wait_for("a full queue", || {
            bulk.send(&[b'l'; FRAME]).unwrap();
            (switch.counters(&c).down.dropped_queue > before).then_some(())
        });
        let before = switch.counters(&b).up.frames;
        // The settings of one way of one host leave the others alone. Its kernel says a few words of its own.
        wait_for("urgent ones pass", || {
            urgent.send(b"h").unwrap();
            (switch.counters(&b).up.frames > before + 8).then_some(())
        });
        switch.set_down(&c, |settings| settings.rate = Some(100_000_000));
        let mut buffer = [0; FRAME];
        let mut first = [0; 2];
        for letter in &mut first {
            to.recv(&mut buffer).unwrap();
            *letter = buffer[0];
        }
        assert_eq!(first, *b"lh", "the one on the wire is not interrupted");
    });
}
