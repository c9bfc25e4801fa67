//! Who may go on (homa.md 2.2).

use crate::hand::{CLIENT, Hand, SERVER, ack, config, ms};
use core::time::Duration;
use steadfast_homa::packet::{Body, Packet};
use steadfast_homa::{Config, LinkConfig, PeerConfig, PeerId};

/// Grants without the share for the oldest, which has a test of its own.
fn plain() -> Config {
    config!(grant_fifo_share: 0)
}

/// The grants that leave now: RPC, offset, level.
fn grants(hand: &mut Hand) -> Vec<(u64, u32, u8)> {
    let all = hand.leaving().into_iter();
    all.filter_map(|(packet, ..)| match packet.body {
        Body::Grant { offset, priority } => Some((packet.sender_id & !1, offset, priority)),
        _ => None,
    })
    .collect()
}

/// The first 1,000 bytes of a request, which are all that comes unasked.
fn begins(hand: &mut Hand, peer: PeerId, id: u64, length: u32) {
    hand.request_of(peer, id, length, 1000, 0, 1000);
}

#[test]
fn one_message_gets_half_of_what_may_be_on_its_way_and_the_lowest_level() {
    let mut hand = Hand::new(plain());
    let peer = hand.peer;
    begins(&mut hand, peer, 10, 900_000);
    assert_eq!(grants(&mut hand), [(10, 201_000, 0)]);
}

#[test]
fn a_message_is_granted_no_further_than_its_end() {
    let mut hand = Hand::new(plain());
    let peer = hand.peer;
    begins(&mut hand, peer, 10, 50_000);
    assert_eq!(grants(&mut hand), [(10, 50_000, 0)]);
    hand.request_of(hand.peer, 10, 50_000, 1000, 1000, 1000);
    assert!(grants(&mut hand).is_empty());
}

#[test]
fn what_comes_unasked_needs_no_grant() {
    let mut hand = Hand::new(plain());
    hand.request(10, 40_000, 0, 1000);
    assert!(grants(&mut hand).is_empty());
}

#[test]
fn each_packet_that_arrives_lets_one_more_go_and_a_batch_makes_one_grant() {
    let mut hand = Hand::new(plain());
    let peer = hand.peer;
    begins(&mut hand, peer, 10, 900_000);
    grants(&mut hand);
    hand.request_of(hand.peer, 10, 900_000, 1000, 1000, 1000);
    assert_eq!(grants(&mut hand), [(10, 202_000, 0)]);
    for offset in [2000, 3000, 4000] {
        hand.request_of(hand.peer, 10, 900_000, 1000, offset, 1000);
    }
    assert_eq!(grants(&mut hand), [(10, 205_000, 0)]);
}

#[test]
fn eight_messages_are_granted_a_ninth_of_all_each_and_the_ninth_waits() {
    let mut hand = Hand::new(plain());
    let peers: Vec<PeerId> = (0..9).map(|_| hand.another_peer()).collect();
    for (index, peer) in peers.iter().enumerate() {
        begins(&mut hand, *peer, 10 + 2 * index as u64, 500_000 + 1000 * index as u32);
    }
    let given = grants(&mut hand);
    assert_eq!(given.len(), 8);
    // 400,000 / 9.
    assert!(given.iter().all(|(_, offset, _)| *offset == 45_444), "{given:?}");
    assert!(given.iter().all(|(id, ..)| *id != 26), "the longest waits");
}

#[test]
fn better_messages_get_higher_levels_and_few_messages_the_lowest() {
    let mut hand = Hand::new(config!(grant_fifo_share: 0, window: 50_000));
    let peers: Vec<PeerId> = (0..6).map(|_| hand.another_peer()).collect();
    begins(&mut hand, peers[0], 10, 500_000);
    begins(&mut hand, peers[1], 12, 400_000);
    let level = |given: &[(u64, u32, u8)], id| given.iter().find(|grant| grant.0 == id).map(|grant| grant.2);
    let given = grants(&mut hand);
    assert_eq!((level(&given, 10), level(&given, 12)), (Some(0), Some(1)));
    for (index, peer) in peers.iter().enumerate().skip(2) {
        begins(&mut hand, *peer, 10 + 2 * index as u64, 300_000 - 1000 * index as u32);
    }
    let given = grants(&mut hand);
    // Four levels are for granted bytes; the best has the highest of them.
    assert_eq!([20, 18, 16, 14].map(|id| level(&given, id)), [Some(3), Some(2), Some(1), Some(0)]);
}

#[test]
fn a_short_newcomer_takes_the_slot_of_the_longest() {
    let mut hand = Hand::new(config!(grant_fifo_share: 0, overcommit: 1));
    let peer = hand.peer;
    let other = hand.another_peer();
    begins(&mut hand, peer, 10, 900_000);
    assert_eq!(grants(&mut hand).len(), 1);
    begins(&mut hand, other, 12, 60_000);
    assert_eq!(grants(&mut hand), [(12, 60_000, 0)], "it was granted whole, so the slot is free again");
    hand.request_of(hand.peer, 10, 900_000, 1000, 1000, 1000);
    assert_eq!(grants(&mut hand), [(10, 202_000, 0)]);
}

#[test]
fn a_sender_takes_not_all_room_by_its_word() {
    let mut hand = Hand::new(plain());
    let other = hand.another_peer();
    hand.request(10, 900_000, 0, 1000);
    begins(&mut hand, other, 12, 900_000);
    assert_eq!(grants(&mut hand), [(12, 201_000, 0)]);
}

#[test]
fn a_peer_that_claims_and_trickles_does_not_stop_the_grants_of_others() {
    for length in [16 << 20, 40_000] {
        let mut hand = Hand::new(config!(max_message: 16 << 20, grant_fifo_share: 0));
        let (hostile, honest) = (hand.peer, hand.another_peer());
        // One that seems to have sent its end, and ten that claim all that may come unasked.
        let ids: Vec<u64> = if length > 40_000 { vec![10] } else { (0..10).map(|id| 10 + 2 * id).collect() };
        let claim = if length > 40_000 { 1 } else { length };
        for id in &ids {
            hand.request_of(hostile, *id, length, claim, 0, 1);
            hand.request_of(hostile, *id, length, claim, length - 1, 1);
        }
        grants(&mut hand);
        begins(&mut hand, honest, 100, 900_000);
        assert!(grants(&mut hand).iter().any(|grant| grant.0 == 100), "{length}");
    }
}

#[test]
fn a_message_that_has_its_peer_for_itself_sends_more_unasked() {
    let mut hand = Hand::new(config!(unscheduled: 2000, unscheduled_alone: 5000));
    hand.call(10_000);
    assert_eq!(hand.offsets(), [0, 1000, 2000, 3000, 4000]);
    hand.call(10_000);
    assert_eq!(hand.offsets(), [0, 1000]);
    let mut hand = Hand::new(config!(unscheduled: 2000, unscheduled_alone: 1000));
    hand.call(10_000);
    assert_eq!(hand.offsets(), [0, 1000], "no less than any other");
}

#[test]
fn duplicates_and_busy_do_not_keep_what_is_on_its_way_from_ending() {
    for body in [None, Some(Body::Busy)] {
        let config = config!(max_incoming: 20_000, overcommit: 1, grant_fifo_share: 0);
        let mut hand = Hand::new(config);
        let other = hand.another_peer();
        begins(&mut hand, other, 10, 30_000);
        grants(&mut hand);
        // It has the only slot.
        let peer = hand.peer;
        begins(&mut hand, peer, 12, 900_000);
        assert_eq!(grants(&mut hand), []);
        let mut granted = false;
        for _ in 0..4 {
            match body {
                None => begins(&mut hand, other, 10, 30_000),
                Some(body) => {
                    let packet = Packet { source: CLIENT, destination: SERVER, sender_id: 10, body };
                    hand.arrives_from(other, packet, 0);
                }
            }
            let said = hand.pass(ms(4));
            granted |= said.iter().any(|body| matches!(body, Body::Grant { .. }));
        }
        assert!(granted, "{body:?}");
    }
}

#[test]
fn every_peer_has_one_message_granted_before_any_has_two() {
    let mut hand = Hand::new(config!(grant_fifo_share: 0, overcommit: 2));
    let peer = hand.peer;
    let other = hand.another_peer();
    for id in [10, 12, 14] {
        begins(&mut hand, peer, id, 300_000 + id as u32);
    }
    begins(&mut hand, other, 20, 900_000);
    let given: Vec<u64> = grants(&mut hand).iter().map(|grant| grant.0).collect();
    assert_eq!(given, [10, 20]);
}

#[test]
fn no_more_is_on_its_way_than_may_be_and_the_best_is_served_first_when_there_is_room() {
    let mut hand = Hand::new(config!(grant_fifo_share: 0, max_incoming: 100_000, window: 45_000));
    let (peer, other, third) = (hand.peer, hand.another_peer(), hand.another_peer());
    begins(&mut hand, peer, 10, 900_000);
    begins(&mut hand, other, 12, 800_000);
    begins(&mut hand, third, 14, 700_000);
    // The shorter ones get their window, the longest what is left.
    assert_eq!(grants(&mut hand), [(14, 46_000, 2), (12, 46_000, 1), (10, 11_000, 0)]);
    hand.request_of(hand.peer, 10, 900_000, 1000, 1000, 1000);
    assert_eq!(grants(&mut hand), [(10, 12_000, 0)]);
    hand.request_of(hand.peer, 10, 900_000, 1000, 2000, 1000);
    hand.request_of(other, 12, 800_000, 1000, 1000, 1000);
    assert_eq!(grants(&mut hand), [(12, 47_000, 1), (10, 13_000, 0)]);
}

#[test]
fn a_peer_with_more_on_its_way_than_counts_for_others_has_it_against_itself() {
    let mut hand = Hand::new(config!(grant_fifo_share: 0, max_incoming: 100_000, window: 60_000));
    let (peer, other) = (hand.peer, hand.another_peer());
    for id in [10, 12] {
        begins(&mut hand, peer, id, 500_000 + 100 * id as u32);
    }
    assert_eq!(grants(&mut hand), [(10, 61_000, 1), (12, 41_000, 0)], "all that may be");
    begins(&mut hand, other, 14, 900_000);
    assert_eq!(grants(&mut hand), [(14, 51_000, 0)], "half of it");
    hand.request_of(peer, 10, 501_000, 1000, 1000, 1000);
    assert_eq!(grants(&mut hand), []);
}

#[test]
fn no_packet_is_spent_on_granting_less_than_one() {
    let mut hand = Hand::new(config!(grant_fifo_share: 0, max_incoming: 90_500, window: 45_000));
    let (peer, other, third) = (hand.peer, hand.another_peer(), hand.another_peer());
    begins(&mut hand, peer, 10, 900_000);
    begins(&mut hand, other, 12, 800_000);
    begins(&mut hand, third, 14, 700_000);
    let most = [(14, 46_000, 2), (12, 46_000, 1)];
    assert_eq!(grants(&mut hand), most, "500 bytes are left, which is half a packet");
    hand.request_of(other, 12, 800_000, 1000, 1000, 500);
    assert_eq!(grants(&mut hand), [(12, 46_500, 1)]);
    hand.request_of(peer, 10, 900_000, 1000, 1000, 500);
    assert_eq!(grants(&mut hand), [], "it was beyond what was granted, so no room came back");
    let packet = Packet { source: CLIENT, destination: SERVER, sender_id: 12, body: ack() };
    hand.arrives_from(other, packet, 0);
    assert_eq!(grants(&mut hand), [(10, 46_500, 0)]);
}

#[test]
fn bytes_not_received_decide_and_not_those_not_granted() {
    let mut hand = Hand::new(config!(grant_fifo_share: 0, overcommit: 1));
    let peer = hand.peer;
    let other = hand.another_peer();
    begins(&mut hand, peer, 10, 300_000);
    // Granted to 201,000: 99,000 left to grant, but 299,000 to receive.
    grants(&mut hand);
    begins(&mut hand, other, 12, 250_000);
    assert_eq!(grants(&mut hand).iter().map(|grant| grant.0).collect::<Vec<_>>(), [12]);
}

#[test]
fn the_oldest_message_gets_a_share_of_the_link_whatever_its_length() {
    let config = config!(overcommit: 1, max_incoming: 100_000);
    let mut hand = Hand::new(config);
    let mut core = steadfast_homa::Transport::new(config!(overcommit: 1), [9; 32]);
    let link = core.add_link(LinkConfig { rate: 25_000_000_000 });
    let peer =
        PeerConfig { link, dialect: steadfast_homa::packet::Dialect::Linux, segment: 1000, overhead: 0 };
    let (old, young) = (core.add_peer(hand.now, peer).unwrap(), core.add_peer(hand.now, peer).unwrap());
    core.bind(SERVER).unwrap();
    std::mem::swap(&mut hand.core, &mut core);
    begins(&mut hand, old, 10, 1_000_000);
    hand.now += Duration::from_micros(1);
    begins(&mut hand, young, 12, 500_000);
    grants(&mut hand);
    // 50,000 bytes at 25 Gbit/s take 16 µs, a twentieth of 320 µs.
    hand.now += Duration::from_micros(318);
    assert!(grants(&mut hand).is_empty());
    assert!(hand.core.poll_timeout().is_some_and(|at| at <= hand.now + Duration::from_micros(2)));
    hand.now += Duration::from_micros(2);
    let given = grants(&mut hand);
    assert_eq!(given.len(), 1);
    assert_eq!((given[0].0, given[0].2), (10, 3), "at the highest level below what comes unasked");
    assert_eq!(hand.core.metrics().fifo_grants, 1);
    // One that does not use what it has gets no more.
    for _ in 0..20 {
        hand.now += Duration::from_micros(320);
        grants(&mut hand);
        hand.request_of(young, 12, 500_000, 1000, 1000, 1000);
    }
    assert!(hand.core.metrics().fifo_grants < 10);
    // But the next one does.
    let before = hand.core.metrics().fifo_grants;
    begins(&mut hand, young, 14, 900_000);
    hand.now += Duration::from_micros(320);
    let given = grants(&mut hand);
    assert!(given.iter().any(|(id, _, level)| (*id, *level) == (14, 3)), "{given:?}");
    assert!(hand.core.metrics().fifo_grants > before);
}

#[test]
fn a_grant_after_the_end_or_for_a_message_that_arrives_does_nothing() {
    let mut hand = Hand::new(plain());
    let peer = hand.peer;
    begins(&mut hand, peer, 10, 900_000);
    hand.leaving();
    hand.asks(10, Body::Grant { offset: 5, priority: 0 });
    assert!(hand.says().is_empty());
    assert!(hand.pass(ms(1)).is_empty());
}

#[test]
fn a_message_waits_for_its_turn_until_another_is_done() {
    let mut hand = Hand::new(config!(grant_fifo_share: 0, overcommit: 1));
    let (peer, link) = (hand.peer, hand.link);
    begins(&mut hand, peer, 10, 3000);
    grants(&mut hand);
    assert_eq!(hand.core.withheld(link), 0, "one is granted, and whole at once");
    begins(&mut hand, peer, 12, 900_000);
    begins(&mut hand, peer, 14, 950_000);
    grants(&mut hand);
    assert_eq!(hand.core.withheld(link), 1);
    // Its client gave it up.
    hand.asks(12, ack());
    assert_eq!(hand.core.withheld(link), 0);
    assert!(grants(&mut hand).iter().all(|(id, ..)| *id == 14));
}
