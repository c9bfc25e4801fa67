//! What leaves over a link, in which order and how fast (homa.md 2.3).

use crate::hand::{Hand, SEGMENT, config};
use core::time::Duration;
use steadfast_homa::packet::{Body, Dialect, Packet, RESEND_ALL};
use steadfast_homa::{Call, Config, LinkConfig, LinkId, PeerConfig, PeerError, PeerId, RpcId, Transmit};

/// A transport with a second link of 1 Gbit/s: 1,118 bytes, headers and all, take 9 µs.
fn paced(settings: Config) -> (Hand, LinkId, PeerId) {
    let mut hand = Hand::new(settings);
    let link = hand.core.add_link(LinkConfig { rate: 1_000_000_000 });
    let peer = PeerConfig { link, dialect: Dialect::Linux, segment: SEGMENT, overhead: 62 };
    let peer = hand.core.add_peer(hand.now, peer).expect("room for a peer");
    (hand, link, peer)
}

fn call(hand: &mut Hand, peer: PeerId, length: usize) -> RpcId {
    let body = vec![0; length].into();
    let call = Call { peer, port: 7, from: hand.from, body, cookie: 0, deadline: None, max_response: 1 };
    hand.core.request(hand.now, call).expect("room for a request")
}

/// The RPCs whose packets leave now, one packet each.
fn leaving(hand: &mut Hand, link: LinkId) -> Vec<RpcId> {
    let mut all = Vec::new();
    while let Some(transmit) = hand.core.poll_transmit(hand.now, link, 1) {
        if let Transmit::Data(run) = transmit {
            all.push(run.rpc);
        }
    }
    hand.core.check_invariants();
    all
}

#[test]
fn a_link_gets_what_it_can_send_and_the_next_packet_has_its_time() {
    let (mut hand, link, peer) = paced(config!(pacer_fifo_share: 0));
    call(&mut hand, peer, 20_000);
    let (mut packets, start) = (leaving(&mut hand, link).len(), hand.now);
    while packets < 20 {
        let next = hand.core.poll_timeout().expect("more waits");
        assert!(next > hand.now, "what could leave has left");
        hand.now = next;
        hand.core.handle_timeout(hand.now);
        packets += leaving(&mut hand, link).len();
    }
    // 20 packets of 1,118 bytes at 99 % of 1 Gbit/s take 180 µs, but the last may be queued.
    let took = hand.now.since(start).as_micros();
    assert!((160..180).contains(&took), "{took}");
}

#[test]
fn no_run_is_longer_than_what_a_link_may_have_queued() {
    let backlog = Duration::from_micros(50);
    let (mut hand, link, peer) = paced(config!(pacer_fifo_share: 0, max_backlog: backlog));
    let long = call(&mut hand, peer, 1_000_000);
    let run = |hand: &mut Hand| match hand.core.poll_transmit(hand.now, link, 65_536) {
        Some(Transmit::Data(run)) => Some((run.rpc, run.packets())),
        _ => None,
    };
    // 50 µs hold five packets of 9 µs and begin a sixth.
    assert_eq!(run(&mut hand), Some((long, 6)));
    assert_eq!(run(&mut hand), None);
    // As soon as there is room for a packet, it is that of the message with the fewest bytes left.
    let short = call(&mut hand, peer, 3000);
    hand.now += Duration::from_micros(10);
    assert_eq!(run(&mut hand), Some((short, 1)));
    hand.now += Duration::from_micros(20);
    assert_eq!((run(&mut hand), run(&mut hand)), (Some((short, 2)), None));
    hand.now += Duration::from_millis(1);
    assert_eq!(run(&mut hand), Some((long, 6)), "an idle link has not saved up more");
    // A link whose rate is not known takes it all, as far as it goes unasked.
    let free = hand.call(30_000);
    let first = hand.link;
    let all = hand.core.poll_transmit(hand.now, first, 65_536).expect("nothing is paced");
    assert_eq!((matches!(&all, Transmit::Data(run) if run.rpc == free), all.packets()), (true, 30));
}

#[test]
fn who_asks_for_what_waits_behind_others_hears_that_it_is_busy() {
    let (mut hand, link, peer) = paced(config!(pacer_fifo_share: 0));
    call(&mut hand, peer, 20_000);
    let id = hand.core.poll_transmit(hand.now, link, 1).map(|first| match first {
        Transmit::Data(run) => run.packet.sender_id,
        Transmit::Control { .. } => panic!("nothing was asked"),
    });
    let question = Packet {
        source: 7,
        destination: hand.from,
        sender_id: id.expect("the link is idle") | 1,
        body: Body::Resend { offset: 0, length: SEGMENT, priority: 7 },
    };
    let low = Packet { body: Body::Resend { offset: 0, length: SEGMENT, priority: 3 }, ..question };
    let asked = |hand: &mut Hand, question: Packet| {
        hand.now += Duration::from_millis(50);
        hand.arrives_from(peer, question, 0);
        let first = hand.core.poll_transmit(hand.now, link, 1).expect("something leaves");
        matches!(first, Transmit::Control { packet: Packet { body: Body::Busy, .. }, .. })
    };
    assert!(!asked(&mut hand, question), "it leaves at once");
    assert!(asked(&mut hand, low), "it may have to wait in a switch");
    let _shorter = call(&mut hand, peer, 10_000);
    assert!(asked(&mut hand, question), "a shorter message goes first");
}

#[test]
fn a_full_link_still_takes_control_packets_and_short_messages() {
    let (mut hand, link, peer) = paced(config!(pacer_fifo_share: 0));
    let long = call(&mut hand, peer, 20_000);
    assert_eq!(leaving(&mut hand, link), [long], "one is more than 5 µs");
    let short = call(&mut hand, peer, 999);
    assert_eq!(leaving(&mut hand, link), [short]);
    let other = call(&mut hand, peer, 1000);
    assert!(leaving(&mut hand, link).is_empty());
    hand.arrives_from(
        peer,
        Packet {
            source: 1,
            destination: crate::hand::SERVER,
            sender_id: 2,
            body: Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 },
        },
        0,
    );
    assert!(matches!(hand.core.poll_transmit(hand.now, link, 1), Some(Transmit::Control { .. })));
    hand.now += Duration::from_micros(40);
    assert_eq!(leaving(&mut hand, link), [other], "it has fewer bytes left than the long one");
}

#[test]
fn a_full_link_holds_up_no_other() {
    let (mut hand, link, peer) = paced(Config::default());
    call(&mut hand, peer, 20_000);
    leaving(&mut hand, link);
    assert!(leaving(&mut hand, link).is_empty());
    let free = hand.call(3000);
    let first = hand.link;
    assert_eq!(leaving(&mut hand, first), [free; 3]);
}

#[test]
fn a_link_whose_socket_is_full_hides_neither_timers_nor_other_links() {
    let (mut hand, full, peer) = paced(config!(grant_fifo_share: 0));
    call(&mut hand, peer, 20_000);
    assert!(hand.core.poll_link(full).is_some_and(|at| at <= hand.now), "it would send");
    assert!(hand.core.poll_timeout().is_some_and(|at| at <= hand.now));
    assert_eq!(hand.core.poll_timer(), Some(hand.now + Duration::from_millis(5)));
    assert_eq!(hand.core.poll_link(hand.link), None);
    hand.call(100);
    assert!(hand.core.poll_link(hand.link).is_some());
}

#[test]
fn what_is_under_way_goes_on_over_another_link() {
    let (mut hand, slow, _) = paced(config!(grant_fifo_share: 0, unscheduled: 2000));
    hand.call(2000);
    hand.request_of(hand.peer, 10, 900_000, 1000, 0, 1000);
    hand.asks(20, Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 });
    let peer = PeerConfig { link: slow, dialect: Dialect::Linux, segment: 500, overhead: 62 };
    hand.core.update_peer(hand.peer, peer).expect("both are known");
    hand.core.check_invariants();
    assert!(hand.leaving().is_empty(), "nothing is left on the link before");
    hand.link = slow;
    let mut all = hand.leaving();
    hand.now += Duration::from_micros(50);
    all.extend(hand.leaving());
    assert!(all.iter().any(|(packet, ..)| matches!(packet.body, Body::Grant { .. })));
    assert!(all.iter().any(|(packet, ..)| matches!(packet.body, Body::Unknown)));
    assert_eq!(all.iter().map(|(_, payload, _)| payload).sum::<usize>(), 2000);
    hand.core.remove_peer(hand.peer);
    assert_eq!(hand.core.update_peer(hand.peer, peer), Err(PeerError::NoPeer));
}

#[test]
fn the_message_with_the_fewest_bytes_left_leaves_first() {
    let mut hand = Hand::new(config!(pacer_fifo_share: 0, unscheduled: 2000));
    let (long, middle, short) = (hand.call(9000), hand.call(3000), hand.call(2000));
    let link = hand.link;
    assert_eq!(leaving(&mut hand, link), [short, short, middle, middle, long, long]);
}

#[test]
fn one_pick_in_twenty_is_the_oldest() {
    let mut hand = Hand::new(config!(pacer_fifo_share: 50));
    let old = hand.call(40_000);
    let young: Vec<RpcId> = (0..20).map(|_| hand.call(2000)).collect();
    let link = hand.link;
    let first: Vec<RpcId> = leaving(&mut hand, link).into_iter().take(40).collect();
    assert_eq!(first.iter().filter(|rpc| **rpc == old).count(), 2);
    assert!(young.iter().filter(|rpc| first.contains(rpc)).count() >= 19);
}

#[test]
fn what_may_be_on_its_way_is_counted_for_each_link() {
    let (mut hand, link, peer) = paced(config!(max_incoming: 50_000, window: 50_000, grant_fifo_share: 0));
    hand.request_of(hand.peer, 10, 900_000, 1000, 0, 1000);
    hand.request_of(peer, 10, 900_000, 1000, 0, 1000);
    for link in [hand.link, link] {
        let mut granted = Vec::new();
        while let Some(transmit) = hand.core.poll_transmit(hand.now, link, 1) {
            if let Transmit::Control { packet, .. } = transmit
                && let Body::Grant { offset, .. } = packet.body
            {
                granted.push(offset);
            }
        }
        assert_eq!(granted, [51_000]);
    }
}

#[test]
fn links_of_one_wire_send_no_more_than_it_takes() {
    let (mut hand, first, peer) = paced(config!(pacer_fifo_share: 0));
    let second = hand.core.add_link(LinkConfig { rate: 1_000_000_000 });
    hand.core.share_wire(second, first);
    let other = PeerConfig { link: second, dialect: Dialect::Linux, segment: SEGMENT, overhead: 62 };
    let other = hand.core.add_peer(hand.now, other).expect("room for a peer");
    call(&mut hand, peer, 20_000);
    call(&mut hand, other, 20_000);
    while hand.core.poll_transmit(hand.now, first, 1).is_some() {}
    assert!(hand.core.poll_transmit(hand.now, second, 1).is_none(), "the wire has enough");
    hand.now = hand.core.poll_link(second).expect("it goes on");
    assert!(hand.core.poll_transmit(hand.now, second, 1).is_some());
    hand.core.check_invariants();
}
