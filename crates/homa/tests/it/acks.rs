//! Acknowledgements: piggybacked, gathered, asked for, and not for ever (homa.md 2.4, 2.9).

use crate::hand::{Hand, ack, ack_of, config, data, ms, us};
use steadfast_homa::packet::{Acks, Body, Data, Dialect, Packet, RESEND_ALL};
use steadfast_homa::{Config, Event};

/// Makes a request and lets its response arrive; the id of it.
fn finished(hand: &mut Hand) -> u64 {
    hand.call(100);
    let id = hand.id_of_call();
    hand.response(id, 10, 10, 0, 10);
    assert!(matches!(hand.events()[..], [Event::Done { .. }]));
    id
}

#[test]
fn the_next_data_to_a_server_carries_an_acknowledgement() {
    let mut hand = Hand::new(Config::default());
    let id = finished(&mut hand);
    assert!(hand.says().is_empty(), "it waits for DATA");
    hand.call(2500);
    let acks: Vec<_> = hand
        .says()
        .iter()
        .map(|body| match body {
            Body::Data(data) => data.ack,
            _ => None,
        })
        .collect();
    assert_eq!(acks.len(), 3);
    assert_eq!(acks[0].map(|ack| (ack.client_id, ack.server_port)), Some((id, 7)));
    assert_eq!(acks[1..], [None, None], "once");
}

#[test]
fn a_sixth_acknowledgement_sends_all_in_one_packet() {
    let mut hand = Hand::new(Config::default());
    // None of them can ride on DATA: all requests left before the first response came.
    let ids: Vec<u64> = (0..6)
        .map(|_| {
            hand.call(100);
            hand.id_of_call()
        })
        .collect();
    for id in &ids[..5] {
        hand.response(*id, 10, 10, 0, 10);
        assert!(hand.replies().is_empty());
    }
    hand.response(ids[5], 10, 10, 0, 10);
    let all: Vec<Packet> = hand.leaving().into_iter().map(|(packet, ..)| packet).collect();
    let acks: Vec<&Packet> = all.iter().filter(|packet| matches!(packet.body, Body::Ack(_))).collect();
    assert_eq!(acks.len(), 1);
    assert_eq!((acks[0].sender_id, acks[0].destination), (ids[5], 7), "the header is the sixth");
    let Body::Ack(entries) = acks[0].body else { panic!("{acks:?}") };
    assert_eq!(entries.as_slice().iter().map(|ack| ack.client_id).collect::<Vec<_>>(), ids[..5]);
    assert_eq!(hand.core.metrics().ack_overflows, 1);
}

/// A server that has sent its response to request 10.
fn answered(config: Config, length: usize) -> Hand {
    let mut hand = Hand::new(config);
    hand.request(10, 100, 0, 100);
    let rpc = hand.announced();
    hand.respond(rpc, length);
    hand.leaving();
    hand
}

#[test]
fn a_piggybacked_acknowledgement_frees_the_server_after_the_data_was_taken() {
    let mut hand = answered(Config::default(), 100);
    let data = Data { length: 50, incoming: 50, ack: Some(ack_of(10)), ..data() };
    let packet = Packet { source: 0x8001, destination: 99, sender_id: 12, body: Body::Data(data) };
    assert!(hand.arrives(packet, 50).is_some());
    assert!(matches!(hand.events()[..], [Event::Request { .. }, Event::Answered { acknowledged: true, .. }]));
    assert_eq!(hand.core.rpcs(), (0, 1));
}

#[test]
fn an_acknowledgement_counts_although_its_data_is_dropped() {
    let mut hand = answered(config!(max_message: 5000, max_held: 5000), 100);
    hand.request(20, 1000, 0, 100);
    let data = Data { length: 5000, incoming: 5000, ack: Some(ack_of(10)), ..data() };
    let packet = Packet { source: 0x8001, destination: 99, sender_id: 12, body: Body::Data(data) };
    assert_eq!(hand.arrives(packet, 1000), None, "there is no room for so long a request");
    assert!(matches!(hand.events()[..], [Event::Answered { acknowledged: true, .. }]));
    assert_eq!(hand.core.metrics().dropped_data_no_bufs, 1000);
}

#[test]
fn one_ack_packet_frees_the_rpc_of_its_header_and_all_it_lists() {
    let mut hand = answered(Config::default(), 100);
    for id in [12, 14] {
        hand.request(id, 100, 0, 100);
        let rpc = hand.announced();
        hand.respond(rpc, 100);
    }
    hand.leaving();
    let mut acks = Acks::new();
    acks.push(ack_of(10));
    acks.push(ack_of(14));
    hand.asks(12, Body::Ack(acks));
    assert_eq!(hand.core.rpcs(), (0, 0));
}

#[test]
fn an_acknowledgement_names_the_port_that_it_is_for() {
    let mut hand = answered(Config::default(), 100);
    hand.arrives(Packet { source: 0x8001, destination: 98, sender_id: 10, body: ack() }, 0);
    assert_eq!(hand.core.rpcs(), (0, 1));
}

#[test]
fn a_server_asks_for_an_acknowledgement_after_2_ms_and_less_and_less_often() {
    let mut hand = answered(Config::default(), 100);
    assert!(hand.pass(us(1990)).is_empty());
    assert_eq!(hand.pass(us(20)), [Body::NeedAck]);
    let said = hand.pass(ms(200));
    assert!((3..10).contains(&said.len()), "{}", said.len());
}

#[test]
fn a_server_gives_up_on_a_client_that_never_acknowledges() {
    let mut hand = answered(Config::default(), 100);
    hand.pass(ms(299));
    assert!(hand.events().is_empty());
    hand.pass(ms(2));
    assert!(matches!(hand.events()[0], Event::Answered { acknowledged: false, .. }));
    assert_eq!(hand.core.rpcs(), (0, 0));
    assert_eq!(hand.core.metrics().unacknowledged, 1);
    assert!(hand.pass(ms(1000)).is_empty(), "and asks no more");
}

/// A server of our dialect, most of whose response to request 10 waits for grants.
fn ungranted(dialect: Dialect) -> Hand {
    let mut hand = Hand::speaking(dialect, config!(unscheduled: 1000));
    hand.request(10, 100, 0, 100);
    let rpc = hand.announced();
    hand.respond(rpc, 10_000);
    hand.leaving();
    hand
}

#[test]
fn a_server_gives_up_on_a_client_that_never_grants_and_says_nothing() {
    let mut hand = ungranted(Dialect::Steadfast);
    assert!(hand.pass(ms(299)).contains(&Body::NeedAck), "it asks first");
    assert!(hand.events().is_empty());
    hand.pass(ms(2));
    assert!(matches!(hand.events()[0], Event::Answered { acknowledged: false, .. }));
    // The module says nothing while it grants others.
    let mut hand = ungranted(Dialect::Linux);
    hand.pass(ms(9990));
    assert!(hand.events().is_empty());
    hand.pass(ms(20));
    assert!(matches!(hand.events()[0], Event::Answered { acknowledged: false, .. }));
}

/// Lets time pass for a client that is busy with others whenever it is asked.
fn busy_for(hand: &mut Hand, time: u64) {
    for _ in 0..time {
        if hand.pass(ms(1)).contains(&Body::NeedAck) {
            hand.asks(10, Body::Busy);
        }
    }
}

#[test]
fn a_response_waits_for_grants_while_its_client_says_that_it_is_busy_but_not_for_ever() {
    for dialect in [Dialect::Steadfast, Dialect::Linux] {
        let mut hand = ungranted(dialect);
        busy_for(&mut hand, 5000);
        assert!(hand.events().is_empty(), "{dialect:?}");
        hand.asks(10, Body::Grant { offset: 10_000, priority: 0 });
        assert_eq!(hand.offsets().len(), 9, "and goes on");
        hand.asks(10, ack());
        assert!(matches!(hand.events()[..], [Event::Answered { acknowledged: true, .. }]));
        let mut hand = ungranted(dialect);
        busy_for(&mut hand, 10_010);
        assert_eq!(hand.core.rpcs(), (0, 0), "{dialect:?}");
    }
}

#[test]
fn a_client_that_grants_others_first_says_so_when_asked() {
    let config = config!(max_incoming: 1, grant_fifo_share: 0);
    let mut hand = Hand::new(config);
    hand.call(100);
    let id = hand.id_of_call();
    hand.response(id, 50_000, 1000, 0, 1000);
    assert!(hand.replies().is_empty(), "there is no room for a grant");
    for _ in 0..3 {
        hand.answers(id, Body::NeedAck);
        assert_eq!(hand.replies(), [Body::Busy]);
    }
}

#[test]
fn a_client_that_asks_for_ever_does_not_keep_the_response_for_ever() {
    let mut hand = answered(Config::default(), 100);
    for _ in 0..101 {
        hand.pass(ms(100));
        hand.asks(10, Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 });
        hand.leaving();
    }
    assert_eq!(hand.core.rpcs(), (0, 0));
}

#[test]
fn a_client_that_asks_again_is_asked_for_its_acknowledgement_from_the_beginning() {
    let mut hand = answered(Config::default(), 100);
    hand.pass(ms(70));
    hand.asks(10, Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 });
    assert_eq!(hand.offsets(), [0]);
    assert_eq!(hand.pass(ms(3)), [Body::NeedAck]);
}

#[test]
fn a_client_that_is_only_busy_does_not_keep_the_response() {
    for body in [Body::Busy, Body::Grant { offset: 100, priority: 0 }] {
        let mut hand = answered(Config::default(), 100);
        for _ in 0..7 {
            hand.pass(ms(50));
            hand.asks(10, body);
        }
        assert_eq!(hand.core.rpcs(), (0, 0), "{body:?}");
    }
}

#[test]
fn a_client_that_asks_again_keeps_the_response() {
    let mut hand = answered(Config::default(), 100);
    for _ in 0..10 {
        hand.pass(ms(100));
        hand.asks(10, Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 });
        assert_eq!(hand.offsets(), [0]);
    }
    assert_eq!(hand.core.rpcs(), (0, 1));
}

#[test]
fn a_client_that_does_not_know_the_rpc_acknowledges_it() {
    let mut hand = Hand::new(Config::default());
    hand.answers(20, Body::NeedAck);
    let all = hand.leaving();
    assert_eq!((all[0].0.body, all[0].0.sender_id, all[0].0.destination), (ack(), 20, 7));
    let id = finished(&mut hand);
    hand.answers(id, Body::NeedAck);
    assert_eq!(hand.replies(), [ack()]);
}

#[test]
fn a_client_that_cancelled_acknowledges_when_asked() {
    let mut hand = Hand::new(Config::default());
    let rpc = hand.call(100);
    let id = hand.id_of_call();
    hand.core.cancel(rpc);
    assert_eq!(hand.replies(), [ack()]);
    hand.response(id, 1000, 1000, 0, 1000);
    assert!(hand.replies().is_empty(), "a late response is dropped silently");
    hand.answers(id, Body::NeedAck);
    assert_eq!(hand.replies(), [ack()]);
}

#[test]
fn a_client_that_misses_something_asks_for_it_instead() {
    let mut hand = Hand::new(Config::default());
    hand.call(100);
    let id = hand.id_of_call();
    hand.answers(id, Body::NeedAck);
    assert_eq!(hand.replies(), [Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 }]);
    hand.response(id, 3000, 3000, 1000, 1000);
    hand.answers(id, Body::NeedAck);
    let resend = |offset| Body::Resend { offset, length: 1000, priority: 6 };
    assert_eq!(hand.replies(), [resend(0), resend(2000)]);
    hand.answers(id, Body::NeedAck);
    assert!(hand.replies().is_empty(), "what was asked for needs time to come");
    assert_eq!(hand.core.metrics().ignored_need_acks, 3);
}

#[test]
fn a_late_duplicate_after_the_acknowledgement_is_not_executed_again() {
    let mut hand = answered(Config::default(), 100);
    hand.asks(10, ack());
    hand.events();
    assert_eq!(hand.request(10, 100, 0, 100), None);
    hand.pass(ms(10_000));
    assert_eq!(hand.request(10, 100, 0, 100), None);
    assert!(hand.events().is_empty());
    assert_eq!(hand.core.metrics().late_duplicates, 2);
}

#[test]
fn a_late_duplicate_after_the_server_gave_up_is_not_executed_again() {
    let mut hand = answered(Config::default(), 100);
    hand.pass(ms(1000));
    hand.events();
    assert_eq!(hand.request(10, 100, 0, 100), None);
    assert!(hand.events().is_empty());
}
