//! Links at work: TCP, delay, rate, queue, loss.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

use steadfast_testbed::{Direction, Host, Link, Loss, Queue, isolated};

use super::{GUARD, pair, pass, wait_for, wire};

const MEGABYTE: usize = 1 << 20;

/// Sends a megabyte from one host to another and has it sent back.
fn echo_a_megabyte(from: &Host, to: &Host, address: IpAddr) {
    let listener = to.run(|| TcpListener::bind((address, 0))).unwrap();
    let target = listener.local_addr().unwrap();
    let server = to.thread("echo", move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = vec![0; MEGABYTE];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let mut stream = from.run(|| TcpStream::connect_timeout(&target, GUARD)).unwrap();
    stream.set_read_timeout(Some(GUARD)).unwrap();
    let sent: Vec<u8> = (0..MEGABYTE).map(|place| (place / 7) as u8).collect();
    stream.write_all(&sent).unwrap();
    let mut received = vec![0; MEGABYTE];
    stream.read_exact(&mut received).unwrap();
    assert!(sent == received, "every byte comes back in its place");
    server.join().unwrap();
}

#[test]
fn tcp_runs_both_ways_over_ipv4_and_ipv6() {
    isolated("traffic::tcp_runs_both_ways_over_ipv4_and_ipv6", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).delay(Duration::from_millis(1)).connect().unwrap();
        for (from, to) in [(&net.a, &net.b), (&net.b, &net.a)] {
            echo_a_megabyte(from, to, link.ipv4_of(to).unwrap().into());
            echo_a_megabyte(from, to, link.ipv6_of(to).unwrap().into());
        }
        let counters = link.counters();
        for way in [counters.a_to_b, counters.b_to_a] {
            assert!(way.bytes > 4 * MEGABYTE as u64, "{way:?}");
            assert!(way.bytes / way.frames <= 1514, "frames are cut to the MTU: {way:?}");
        }
    });
}

#[test]
fn several_links_join_the_same_hosts() {
    isolated("traffic::several_links_join_the_same_hosts", || {
        let net = pair();
        let links = ["ethernet", "wifi", "cellular"]
            .map(|name| net.lab.link(name, &net.a, &net.b).connect().unwrap());
        for link in &links {
            let wire = wire(link);
            pass(&wire.a, &wire.b);
            assert_eq!(link.interface_of(&net.a), link.name());
        }
        let third = net.lab.host("c").unwrap();
        let further = net.lab.link("wifi", &net.b, &third).interfaces("wifi-c", "eth0").connect().unwrap();
        let wire = wire(&further);
        pass(&wire.b, &wire.a);
    });
}

#[test]
fn nothing_arrives_before_its_delay() {
    isolated("traffic::nothing_arrives_before_its_delay", || {
        let net = pair();
        let delay = Duration::from_millis(20);
        let jitter = Duration::from_millis(5);
        let link = net.lab.link("wifi", &net.a, &net.b).delay(delay).jitter(jitter).connect().unwrap();
        let wire = wire(&link);
        for _ in 0..10 {
            assert!(pass(&wire.a, &wire.b) >= delay);
            assert!(pass(&wire.b, &wire.a) >= delay);
        }
        let longer = Duration::from_millis(60);
        link.set_direction(Direction::AToB, |settings| settings.delay = longer);
        assert!(pass(&wire.a, &wire.b) >= longer);
        assert!(pass(&wire.b, &wire.a) >= delay);
        link.set(|settings| (settings.delay, settings.jitter) = (Duration::ZERO, Duration::ZERO));
        let passes = (0..20).map(|_| pass(&wire.a, &wire.b));
        assert!(passes.min().unwrap() < delay, "a delay can be taken away again");
    });
}

/// Megabits per second of one TCP stream over the link, as its counters see it.
fn achieved_mbit(link: &Link) -> f64 {
    link.measure_precision().unwrap().rate_achieved / 1e6
}

#[test]
fn a_stream_fills_its_rate_and_no_more() {
    isolated("traffic::a_stream_fills_its_rate_and_no_more", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).rate_mbit(20.0).connect().unwrap();
        let slow = achieved_mbit(&link);
        assert!((14.0..21.0).contains(&slow), "{slow} of 20 Mbit/s");
        link.set(|settings| settings.rate = Some(60_000_000));
        let fast = achieved_mbit(&link);
        assert!((40.0..62.0).contains(&fast), "{fast} of 60 Mbit/s");
    });
}

#[test]
fn a_full_queue_drops_its_tail() {
    isolated("traffic::a_full_queue_drops_its_tail", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).rate_mbit(0.01).queue_bytes(1000).connect().unwrap();
        let wire = wire(&link);
        for _ in 0..100 {
            wire.a.send(&[0; 58]).unwrap();
        }
        // Each frame is of 100 bytes and takes 80 ms; at most 11 fit in the wire and the queue at once.
        let dropped = wait_for("a full queue", || {
            let dropped = link.counters().a_to_b.dropped_queue;
            (dropped > 0).then_some(dropped)
        });
        assert!(dropped <= 100);
        link.set(|settings| (settings.rate, settings.queue) = (None, Queue::Bytes(0)));
        pass(&wire.b, &wire.a);
    });
}

#[test]
fn loss_takes_its_share_and_is_counted() {
    isolated("traffic::loss_takes_its_share_and_is_counted", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).loss(0.5).connect().unwrap();
        let wire = wire(&link);
        for _ in 0..1000 {
            wire.a.send(b"frame").unwrap();
        }
        let (lost, passed) = wait_for("the fate of every frame", || {
            let way = link.counters().a_to_b;
            assert_eq!(way.dropped_relay, 0, "{way:?}");
            (way.dropped_loss + way.frames >= 1000).then_some((way.dropped_loss, way.frames))
        });
        assert!((350..650).contains(&lost), "{lost} lost, {passed} passed");
        link.set(|settings| settings.loss = Loss::NONE);
        let before = link.counters().a_to_b.dropped_loss;
        let wire = super::wire(&link);
        for _ in 0..50 {
            pass(&wire.a, &wire.b);
        }
        assert_eq!(link.counters().a_to_b.dropped_loss, before);
    });
}

#[test]
fn loss_in_bursts_takes_frames_in_a_row() {
    isolated("traffic::loss_in_bursts_takes_frames_in_a_row", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).bursty_loss(0.5, 20.0).connect().unwrap();
        let wire = wire(&link);
        let mut fates = Vec::new();
        let mut before = link.counters().a_to_b;
        for _ in 0..2000 {
            wire.a.send(b"frame").unwrap();
            let now = wait_for("the fate of a frame", || {
                let now = link.counters().a_to_b;
                (now.dropped_loss + now.frames > before.dropped_loss + before.frames).then_some(now)
            });
            fates.push(now.dropped_loss > before.dropped_loss);
            before = now;
        }
        let lost = fates.iter().filter(|lost| **lost).count();
        assert!((600..1400).contains(&lost), "{lost} lost");
        let bursts = fates.chunk_by(|one, next| one == next).filter(|run| run[0]).count();
        // Lost one by one they would be some 500 bursts; twenty in a row on average make 50 of it.
        assert!((15..200).contains(&bursts), "{lost} lost in {bursts} bursts");
    });
}

#[test]
fn a_queue_is_changed_while_it_is_in_use() {
    isolated("traffic::a_queue_is_changed_while_it_is_in_use", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).rate_mbit(0.001).queue_bytes(0).connect().unwrap();
        let wire = wire(&link);
        let dropped = |frames: usize| {
            let before = link.counters().a_to_b.dropped_queue;
            for _ in 0..frames {
                wire.a.send(&[0; 58]).unwrap();
            }
            // Asking takes in what was sent.
            assert_eq!(link.settings()[0].rate, Some(1000));
            link.counters().a_to_b.dropped_queue - before
        };
        // The wire takes one frame of 100 bytes in 800 ms.
        assert!(dropped(20) >= 10);
        link.set_direction(Direction::AToB, |settings| settings.queue = Queue::Bytes(1 << 20));
        assert_eq!(dropped(20), 0);
        link.set_direction(Direction::AToB, |settings| {
            settings.queue = Queue::Time(Duration::from_millis(1));
        });
        assert!(dropped(20) >= 10);
        assert_eq!(link.settings()[1].queue, Queue::Bytes(0), "the other direction keeps its own");
    });
}
