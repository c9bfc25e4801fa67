//! No peer makes the transport hold, remember or say more than it may.

use crate::hand::{CLIENT, Hand, SERVER, ack, config, ms};
use core::time::Duration;
use steadfast_homa::packet::{Body, Dialect, Packet, RESEND_ALL, Refusal};
use steadfast_homa::{Call, CallError, Event, PeerConfig, PeerError, RespondError};

#[test]
fn requests_of_a_peer_and_of_all_are_bounded() {
    let config = config!(max_peer_rpcs: 3, max_server_rpcs: 5);
    let mut hand = Hand::new(config);
    let other = hand.another_peer();
    for id in 0..10 {
        hand.request(10 + 2 * id, 5000, 0, 1000);
    }
    assert_eq!(hand.core.rpcs(), (0, 3));
    for id in 0..10 {
        hand.request_of(other, 10 + 2 * id, 5000, 5000, 0, 1000);
    }
    assert_eq!(hand.core.rpcs(), (0, 5));
    assert_eq!(hand.core.metrics().server_cant_create_rpcs, 15);
}

#[test]
fn bytes_are_bounded_before_the_first_is_kept() {
    let config = config!(max_message: 10_000, max_held: 10_000);
    let mut hand = Hand::new(config);
    assert!(hand.request(10, 6000, 0, 1000).is_some());
    assert_eq!(hand.request(12, 6000, 0, 1000), None);
    assert!(hand.request(14, 4000, 0, 1000).is_some());
    // A client asks after its request and hears that it is unknown: it begins again when there is room.
    hand.asks(12, Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 });
    assert_eq!(hand.replies(), [Body::Unknown]);
    hand.request(10, 6000, 1000, 5000);
    let rpc = hand.announced();
    assert_eq!(hand.request(12, 6000, 0, 1000), None, "in service");
    hand.respond(rpc, 10);
    assert!(hand.request(12, 6000, 0, 1000).is_some());
}

#[test]
fn one_peer_holds_no_more_than_its_part() {
    let mut hand = Hand::new(config!(max_message: 5000, max_held: 20_000, max_peer_held: 8000));
    let other = hand.another_peer();
    assert!(hand.request(10, 5000, 0, 1000).is_some());
    assert_eq!(hand.request(12, 5000, 0, 1000), None);
    assert!(hand.request(14, 3000, 0, 1000).is_some());
    assert!(hand.request_of(other, 10, 5000, 5000, 0, 1000).is_some());
    hand.asks(10, ack());
    assert!(hand.request(12, 5000, 0, 1000).is_some());
}

#[test]
fn responses_of_one_peer_hold_no_more_than_its_part() {
    let mut hand = Hand::new(config!(max_message: 5000, max_held: 20_000, max_peer_held: 8000));
    let ids = [0; 2].map(|_| {
        hand.call(100);
        hand.id_of_call()
    });
    assert!(hand.response(ids[0], 5000, 5000, 0, 1000).is_some());
    assert_eq!(hand.response(ids[1], 5000, 5000, 0, 1000), None);
    hand.response(ids[0], 5000, 5000, 1000, 4000);
    assert!(hand.response(ids[1], 5000, 5000, 0, 1000).is_some());
}

#[test]
fn a_server_without_room_says_that_it_lives_and_later_that_it_wants_the_request() {
    let config = config!(max_message: 5000, max_held: 20_000, max_peer_held: 8000);
    let mut hand = Hand::speaking(Dialect::Steadfast, config);
    let ask = Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 };
    hand.request(10, 5000, 0, 1000);
    hand.request(12, 5000, 0, 1000);
    hand.asks(12, ask);
    assert_eq!(hand.replies(), [Body::Refused(Refusal::NoRoom)]);
    hand.asks(10, ack());
    hand.asks(12, ask);
    assert_eq!(hand.replies(), [Body::Unknown]);
    assert!(hand.request(12, 5000, 0, 1000).is_some());
}

#[test]
fn a_client_without_room_for_a_response_does_not_give_up_on_its_server() {
    let mut hand = Hand::new(config!(max_message: 5000, max_held: 5000));
    hand.request(10, 4500, 0, 1000);
    hand.call(100);
    let id = hand.id_of_call();
    for _ in 0..50 {
        hand.pass(ms(5));
        hand.request(10, 4500, 0, 1000);
        assert_eq!(hand.response(id, 1000, 1000, 0, 1000), None);
    }
    assert_eq!(hand.core.rpcs(), (1, 1));
}

#[test]
fn a_response_without_room_is_asked_for_again() {
    let config = config!(max_message: 5000, max_held: 5000);
    let mut hand = Hand::new(config);
    hand.request(10, 4500, 0, 1000);
    hand.call(100);
    let id = hand.id_of_call();
    assert_eq!(hand.response(id, 1000, 1000, 0, 1000), None);
    hand.asks(10, ack());
    hand.events();
    let said = hand.pass(ms(6));
    assert_eq!(said, [Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 }]);
    assert!(hand.response(id, 1000, 1000, 0, 1000).is_some());
    assert!(matches!(hand.events()[..], [Event::Done { length: 1000, .. }]));
}

#[test]
fn what_is_kept_to_be_sent_is_bounded_and_room_is_told_of() {
    let config = config!(max_kept: 10_000);
    let mut hand = Hand::new(config);
    let call = |hand: &Hand| Call {
        peer: hand.peer,
        port: 7,
        from: hand.from,
        body: vec![0; 6000].into(),
        cookie: 0,
        deadline: None,
        max_response: 1,
    };
    hand.request(10, 100, 0, 100);
    let served = hand.announced();
    let first = hand.core.request(hand.now, call(&hand)).unwrap();
    let again = call(&hand);
    assert_eq!(hand.core.request(hand.now, again), Err(CallError::Full(10_000)));
    let body = vec![0; 6000].into();
    assert_eq!(hand.core.respond(hand.now, served, body), Err(RespondError::Full(10_000)));
    hand.core.cancel(first);
    assert!(hand.events().contains(&Event::Room));
    hand.respond(served, 6000);
}

#[test]
fn a_peer_that_acknowledges_nothing_leaves_room_to_others() {
    let mut hand = Hand::new(config!(max_peer_kept: 10_000));
    let other = hand.another_peer();
    let mut served = Vec::new();
    for id in [10, 12] {
        hand.request(id, 100, 0, 100);
        served.push(hand.announced());
    }
    hand.request_of(other, 10, 100, 100, 0, 100);
    let elsewhere = hand.announced();
    hand.respond(served[0], 6000);
    let body: Vec<u8> = vec![0; 6000];
    let full = Err(RespondError::Full(10_000));
    assert_eq!(hand.core.respond(hand.now, served[1], body.into()), full);
    hand.respond(elsewhere, 6000);
    hand.leaving();
    hand.asks(10, ack());
    assert!(hand.events().contains(&Event::Room));
    hand.respond(served[1], 6000);
}

#[test]
fn requests_to_one_peer_leave_room_to_others() {
    let mut hand = Hand::new(config!(max_peer_calls: 2, max_peer_kept: 10_000));
    let other = hand.another_peer();
    let call = |hand: &Hand, peer, length| Call {
        peer,
        port: 7,
        from: hand.from,
        body: vec![0; length].into(),
        cookie: 0,
        deadline: None,
        max_response: 1,
    };
    hand.call(6000);
    let long = call(&hand, hand.peer, 6000);
    assert_eq!(hand.core.request(hand.now, long.clone()), Err(CallError::Full(10_000)));
    let second = hand.call(1);
    let short = call(&hand, hand.peer, 1);
    assert_eq!(hand.core.request(hand.now, short), Err(CallError::TooMany(2)));
    hand.core.request(hand.now, Call { peer: other, ..long }).expect("room for another peer");
    hand.core.cancel(second);
    assert!(!hand.events().contains(&Event::Room), "6,000 have no room yet");
}

#[test]
fn peers_leave_room_to_our_own_requests_and_their_responses() {
    let config = config!(max_kept: 10_000, max_message: 5000, max_held: 20_000);
    let mut hand = Hand::new(config);
    for id in [10, 12] {
        hand.request(id, 100, 0, 100);
    }
    let requests = hand.events().into_iter().filter_map(|event| match event {
        Event::Request { rpc, .. } => Some(rpc),
        _ => None,
    });
    let served: Vec<_> = requests.collect();
    hand.respond(served[0], 5000);
    let body: Vec<u8> = vec![0; 3000];
    assert_eq!(hand.core.respond(hand.now, served[1], body.into()), Err(RespondError::Full(7500)));
    hand.call(4000);
    let id = hand.id_of_call();
    for id in [20, 22, 24] {
        hand.request(id, 4900, 0, 1000);
    }
    assert_eq!(hand.request(26, 4900, 0, 1000), None, "a quarter is not for requests of peers");
    assert!(hand.response(id, 4900, 4900, 0, 1000).is_some());
    // As soon as what was refused has room.
    hand.asks(10, ack());
    assert!(hand.events().contains(&Event::Room));
    hand.respond(served[1], 3000);
}

#[test]
fn room_is_told_of_as_soon_as_the_shortest_that_was_refused_has_it() {
    let mut hand = Hand::new(config!(max_peer_kept: 10_000));
    let mut served = Vec::new();
    for id in [10, 12, 14, 16] {
        hand.request(id, 100, 0, 100);
        served.push(hand.announced());
    }
    hand.respond(served[0], 8000);
    hand.respond(served[1], 1000);
    for length in [9000, 2000] {
        let body: Vec<u8> = vec![0; length];
        assert!(hand.core.respond(hand.now, served[2], body.into()).is_err());
    }
    hand.leaving();
    hand.asks(12, ack());
    assert!(hand.events().contains(&Event::Room), "although most is not acknowledged");
    hand.respond(served[2], 2000);
}

#[test]
fn a_message_that_is_dragged_on_ends() {
    let mut hand = Hand::new(config!(max_message: 64_000, unscheduled: 64_000));
    for step in 0..20_000 {
        if hand.core.rpcs().1 == 0 && step > 0 {
            // A sixty-fourth is a thousand bytes; a byte each 20 ms is half of that in 10 s.
            assert!((500..520).contains(&step), "{step}");
            return;
        }
        hand.request(10, 64_000, step, 1);
        hand.pass(ms(20));
    }
    panic!("it was dragged on");
}

#[test]
fn a_peer_that_asks_all_the_time_is_not_sent_everything_each_time() {
    let mut hand = Hand::new(config!(max_incoming: 20_000));
    for id in [10, 12] {
        hand.request(id, 100, 0, 100);
        let rpc = hand.announced();
        hand.respond(rpc, 30_000);
    }
    hand.leaving();
    let mut packets = 0;
    for _ in 0..100 {
        for id in [10, 12] {
            hand.asks(id, Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 });
        }
        packets += hand.offsets().len();
    }
    assert_eq!(packets, 20);
    hand.now += ms(3);
    hand.asks(10, Body::Resend { offset: 25_000, length: 1, priority: 7 });
    assert_eq!(hand.offsets(), [25_000]);
}

#[test]
fn our_requests_are_bounded() {
    let mut hand = Hand::new(config!(max_client_rpcs: 2));
    hand.call(1);
    hand.call(1);
    let call = Call {
        peer: hand.peer,
        port: 7,
        from: hand.from,
        body: "x".into(),
        cookie: 0,
        deadline: None,
        max_response: 1,
    };
    assert_eq!(hand.core.request(hand.now, call), Err(CallError::TooMany(2)));
}

#[test]
fn an_idle_peer_makes_room_for_another_only_when_nothing_of_it_is_left_in_the_network() {
    let mut hand = Hand::new(config!(max_peers: 2));
    let config = PeerConfig { link: hand.link, dialect: Dialect::Linux, segment: 1000, overhead: 0 };
    let second = hand.another_peer();
    for peer in [hand.peer, second] {
        // Taken and answered, or cancelled before it came.
        let packet = Packet { source: CLIENT, destination: SERVER, sender_id: 2, body: ack() };
        hand.arrives_from(peer, packet, 0);
    }
    assert_eq!(hand.core.add_peer(hand.now, config), Err(PeerError::TooMany(2)));
    hand.now += Duration::from_secs(31);
    hand.request(10, 5000, 0, 1000);
    let third = hand.core.add_peer(hand.now, config).unwrap();
    assert_eq!(hand.events(), [Event::PeerForgotten { peer: second }]);
    assert_ne!(second, third);
    assert_eq!(hand.request_of(second, 10, 100, 100, 0, 100), None, "its name means nobody");
    hand.request_of(third, 10, 5000, 5000, 0, 1000);
    assert_eq!(hand.core.add_peer(hand.now, config), Err(PeerError::TooMany(2)), "both are busy");
}

#[test]
fn peers_that_only_show_up_keep_nobody_out() {
    let mut hand = Hand::new(config!(max_peers: 3));
    hand.call(100);
    let config = PeerConfig { link: hand.link, dialect: Dialect::Linux, segment: 1000, overhead: 0 };
    for _ in 0..100 {
        let peer = hand.core.add_peer(hand.now, config).expect("room for who comes");
        let packet = Packet { source: CLIENT, destination: SERVER, sender_id: 2, body: Body::Busy };
        hand.arrives_from(peer, packet, 0);
    }
    assert_eq!(hand.core.rpcs(), (1, 0), "who is spoken with stays");
}

#[test]
fn ranges_of_a_message_are_bounded_and_it_still_arrives() {
    let mut hand = Hand::new(config!(max_gaps: 8));
    for offset in (0..40_000).step_by(2000).rev() {
        hand.request(10, 40_000, offset, 1000);
    }
    assert!(hand.core.metrics().refused_gaps > 0);
    for offset in (0..40_000).step_by(1000) {
        hand.request(10, 40_000, offset, 1000);
    }
    hand.announced();
}

#[test]
fn packets_to_be_said_are_bounded() {
    let mut hand = Hand::new(config!(max_control: 20));
    for id in 0..100 {
        hand.asks(10 + 2 * id, Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 });
    }
    // One peer has its part.
    let other = hand.another_peer();
    for id in 0..100 {
        let body = Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 };
        let packet = Packet { source: CLIENT, destination: SERVER, sender_id: 10 + 2 * id, body };
        hand.arrives_from(other, packet, 0);
    }
    let peers: Vec<_> = std::iter::from_fn(|| hand.core.poll_transmit(hand.now, hand.link, 1)).collect();
    assert_eq!(peers.iter().filter(|transmit| transmit.peer() == hand.peer).count(), 16);
    assert_eq!(peers.len(), 20);
    assert_eq!(hand.core.metrics().refused_control, 180);
}

#[test]
fn grants_wait_while_too_much_is_to_be_said() {
    let mut hand = Hand::new(config!(max_control: 16, grant_fifo_share: 0));
    for id in 0..16 {
        hand.asks(1000 + 2 * id, Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 });
    }
    hand.request_of(hand.peer, 10, 100_000, 1000, 0, 1000);
    let said = hand.replies();
    assert!(said.iter().any(|body| matches!(body, Body::Grant { .. })), "said as soon as there is room");
}
