//! How RPCs begin, go on and end (homa.md 2.1, 2.5).

use crate::hand::{CLIENT, Hand, SEGMENT, SERVER, ack, config, data, ms};
use steadfast_homa::packet::{Body, Data, Dialect, Packet, RESEND_ALL, Refusal};
use steadfast_homa::{Call, CallError, Config, Event, Outcome, PortError, Reason, RespondError};

#[test]
fn a_client_sends_then_receives_and_acknowledges() {
    let mut hand = Hand::new(Config::default());
    let rpc = hand.call(2500);
    let all = hand.leaving();
    let id = all[0].0.sender_id;
    assert_eq!(id & 1, 0, "a client's id is even");
    assert_eq!(all.iter().map(|(_, payload, _)| *payload).collect::<Vec<_>>(), [1000, 1000, 500]);
    let first = hand.response(id, 1500, 1500, 0, 1000).expect("is placed");
    assert!(first.first && first.response && first.rpc == rpc && first.length == 1500);
    assert!(hand.events().is_empty());
    let second = hand.response(id, 1500, 1500, 1000, 500).expect("is placed");
    assert!(!second.first && second.offset == 1000);
    let done = Event::Done { rpc, cookie: 42, outcome: Outcome::Delivered, length: 1500 };
    assert_eq!(hand.events(), [done]);
    assert_eq!(hand.core.rpcs(), (0, 0));
}

#[test]
fn a_server_receives_serves_sends_and_forgets_when_acknowledged() {
    let mut hand = Hand::new(Config::default());
    hand.request(10, 1500, 0, 1000);
    hand.request(10, 1500, 1000, 500);
    let rpc = hand.announced();
    assert!(hand.says().is_empty());
    hand.respond(rpc, 300);
    let (packet, payload, _) = hand.leaving()[0];
    assert_eq!((packet.source, packet.destination, packet.sender_id), (SERVER, CLIENT, 11));
    assert_eq!(payload, 300);
    hand.asks(10, ack());
    assert_eq!(hand.events(), [Event::Answered { rpc, acknowledged: true }]);
    assert_eq!(hand.core.rpcs(), (0, 0));
}

#[test]
fn a_request_begins_with_any_of_its_packets() {
    let mut hand = Hand::new(Config::default());
    let first = hand.request(10, 2500, 2000, 500).expect("is placed");
    assert!(first.first && first.offset == 2000);
    assert!(hand.request(10, 2500, 1000, 1000).is_some());
    assert!(hand.request(10, 2500, 0, 1000).is_some());
    hand.announced();
}

#[test]
fn duplicate_data_is_dropped_and_counted() {
    let mut hand = Hand::new(Config::default());
    hand.request(10, 2500, 0, 1000);
    assert_eq!(hand.request(10, 2500, 0, 1000), None);
    hand.request(10, 2500, 1000, 1500);
    assert_eq!(hand.request(10, 2500, 1000, 1000), None, "in service");
    assert_eq!(hand.core.metrics().packet_discards, 2);
    hand.announced();
    assert!(hand.events().is_empty());
}

#[test]
fn data_beyond_its_message_of_no_length_or_of_another_length_is_dropped() {
    let mut hand = Hand::new(Config::default());
    assert_eq!(hand.request(10, 1500, 1000, 501), None);
    assert_eq!(hand.request(10, 1500, u32::MAX - 5, 100), None);
    assert_eq!(hand.request(10, 0, 0, 0), None);
    assert_eq!(hand.core.rpcs(), (0, 0));
    hand.request(10, 2500, 0, 1000);
    assert_eq!(hand.request(10, 2600, 1000, 1000), None);
    assert_eq!(hand.core.metrics().malformed_packets, 4);
    assert_eq!(hand.core.rpcs(), (0, 1));
}

#[test]
fn a_request_too_long_for_this_server_is_not_begun() {
    let config = config!(max_message: 10_000);
    let mut hand = Hand::new(config);
    assert_eq!(hand.request(10, 10_001, 0, 1000), None);
    assert_eq!(hand.core.rpcs(), (0, 0));
    assert!(hand.request(12, 10_000, 0, 1000).is_some());
}

#[test]
fn requests_are_taken_where_a_server_is_bound_or_a_port_serves() {
    let mut hand = Hand::new(Config::default());
    let from = hand.from;
    let to = |hand: &mut Hand, destination, id| {
        let data = Data { length: 10, incoming: 10, ..data() };
        hand.arrives(Packet { source: CLIENT, destination, sender_id: id, body: Body::Data(data) }, 10)
    };
    assert_eq!(to(&mut hand, 5, 10), None);
    assert_eq!(to(&mut hand, from, 12), None);
    hand.core.set_serving(from, true);
    assert!(to(&mut hand, from, 14).is_some());
    assert!(to(&mut hand, SERVER, 16).is_some());
    assert_eq!(hand.core.metrics().server_cant_create_rpcs, 2);
    assert!(hand.replies().is_empty(), "the module's dialect has no word for it");
}

#[test]
fn a_refused_request_is_dropped_at_the_client_and_never_executed_at_the_server() {
    let mut hand = Hand::speaking(Dialect::Steadfast, Config::default());
    let data = Data { length: 10, incoming: 10, ..data() };
    let packet = Packet { source: CLIENT, destination: 5, sender_id: 10, body: Body::Data(data) };
    hand.arrives(packet, 10);
    assert_eq!(hand.replies(), [Body::Refused(Refusal::NoSuchPort)]);
    // The client was told that it is not executed, so a late duplicate must not be.
    hand.core.bind(5).unwrap();
    assert_eq!(hand.arrives(packet, 10), None);

    let rpc = hand.call(100);
    let id = hand.id_of_call();
    hand.answers(id, Body::Refused(Refusal::NoSuchPort));
    let outcome = Outcome::Dropped(Reason::Refused(Refusal::NoSuchPort));
    assert_eq!(hand.events(), [Event::Done { rpc, cookie: 42, outcome, length: 0 }]);
    let rpc = hand.call(100);
    let id = hand.id_of_call();
    hand.answers(id, Body::Refused(Refusal::Abandoned));
    let outcome = Outcome::Unknown(Reason::Refused(Refusal::Abandoned));
    assert_eq!(hand.events(), [Event::Done { rpc, cookie: 42, outcome, length: 0 }]);
}

#[test]
fn unscheduled_bytes_leave_unasked_and_the_rest_waits_for_grants() {
    let config = config!(unscheduled: 2500);
    let mut hand = Hand::new(config);
    hand.call(10_000);
    let all = hand.leaving();
    let id = all[0].0.sender_id;
    assert_eq!(all.iter().map(|(_, payload, _)| *payload).collect::<Vec<_>>(), [1000, 1000, 500]);
    for (packet, ..) in all {
        let Body::Data(data) = packet.body else { panic!("{packet:?}") };
        assert_eq!((data.length, data.incoming), (10_000, 2500));
    }
    hand.answers(id, Body::Grant { offset: 4000, priority: 2 });
    let all = hand.leaving();
    assert_eq!(all.iter().map(|(_, payload, level)| (*payload, *level)).collect::<Vec<_>>(), [(1000, 2); 2]);
    hand.answers(id, Body::Grant { offset: 999_999, priority: 1 });
    let sent: usize = hand.leaving().iter().map(|(_, payload, _)| payload).sum();
    assert_eq!(sent, 5500, "never beyond the message");
}

#[test]
fn an_answer_to_half_a_request_is_not_believed() {
    let config = config!(unscheduled: 2500);
    let mut hand = Hand::new(config);
    hand.call(10_000);
    let id = hand.id_of_call();
    assert_eq!(hand.response(id, 100, 100, 0, 100), None);
    assert!(hand.events().is_empty());
}

#[test]
fn a_cancelled_request_ends_at_once_and_the_server_is_told_to_stop() {
    let mut hand = Hand::new(Config::default());
    let rpc = hand.call(100);
    hand.leaving();
    hand.core.cancel(rpc);
    let done = |outcome| Event::Done { rpc, cookie: 42, outcome, length: 0 };
    assert_eq!(hand.events(), [done(Outcome::Unknown(Reason::Cancelled))]);
    assert_eq!(hand.replies(), [ack()]);
    hand.core.cancel(rpc);
    assert!(hand.events().is_empty(), "one outcome");
}

#[test]
fn what_was_not_sent_whole_was_not_executed() {
    let config = config!(unscheduled: 2500);
    let mut hand = Hand::new(config);
    let unsent = hand.call(100);
    hand.core.cancel(unsent);
    let half = hand.call(10_000);
    hand.leaving();
    hand.core.cancel(half);
    let outcome = Outcome::Dropped(Reason::Cancelled);
    let done = |rpc| Event::Done { rpc, cookie: 42, outcome, length: 0 };
    assert_eq!(hand.events(), [done(unsent), done(half)]);
    assert_eq!(hand.replies(), [ack()], "nothing is known of the first, so there is nothing to stop");
}

#[test]
fn a_cancellation_reaches_the_server_in_any_state_and_before_its_request() {
    let mut hand = Hand::new(Config::default());
    // Arriving, in service, and sent and not whole.
    hand.request(10, 2500, 0, 1000);
    hand.asks(10, ack());
    assert!(matches!(hand.events()[..], [Event::Discarded { .. }]));
    assert_eq!(hand.request(10, 2500, 0, 1000), None, "it does not begin again");
    hand.request(12, 100, 0, 100);
    let rpc = hand.announced();
    hand.asks(12, ack());
    assert_eq!(hand.events(), [Event::Cancelled { rpc }]);
    assert_eq!(hand.core.respond(hand.now, rpc, "late".into()), Err(RespondError::Ended));
    hand.request(14, 100, 0, 100);
    let rpc = hand.announced();
    hand.respond(rpc, 1_000_000);
    hand.leaving();
    hand.asks(14, ack());
    assert_eq!(hand.events(), [Event::Answered { rpc, acknowledged: false }]);
    // Overtaken by its cancellation.
    hand.asks(16, ack());
    assert_eq!(hand.request(16, 100, 0, 100), None);
    assert!(hand.events().is_empty());
}

#[test]
fn a_deadline_ends_a_request_that_its_server_still_works_on() {
    let mut hand = Hand::new(Config::default());
    let call = Call {
        peer: hand.peer,
        port: 7,
        from: hand.from,
        body: "x".into(),
        cookie: 1,
        deadline: Some(hand.now + ms(30)),
        max_response: 10,
    };
    let rpc = hand.core.request(hand.now, call).unwrap();
    let id = hand.id_of_call();
    for _ in 0..7 {
        hand.answers(id, Body::Busy);
        hand.pass(ms(4));
    }
    assert!(hand.events().is_empty());
    let said = hand.pass(ms(2));
    let outcome = Outcome::Unknown(Reason::Deadline);
    assert_eq!(hand.events(), [Event::Done { rpc, cookie: 1, outcome, length: 0 }]);
    assert_eq!(said.last(), Some(&ack()));
}

#[test]
fn a_response_longer_than_the_call_takes_ends_it() {
    let mut hand = Hand::new(Config::default());
    let call = Call {
        peer: hand.peer,
        port: 7,
        from: hand.from,
        body: "x".into(),
        cookie: 1,
        deadline: None,
        max_response: 999,
    };
    let rpc = hand.core.request(hand.now, call).unwrap();
    let id = hand.id_of_call();
    assert_eq!(hand.response(id, 1000, 1000, 0, 1000), None);
    let outcome = Outcome::Unknown(Reason::TooLong);
    assert_eq!(hand.events(), [Event::Done { rpc, cookie: 1, outcome, length: 0 }]);
    assert_eq!(hand.replies(), [ack()]);
}

#[test]
fn a_message_without_room_at_its_driver_is_postponed_and_asked_for_again() {
    let mut hand = Hand::new(config!(max_message: 5000, max_held: 5000));
    let all = Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 };
    let request = hand.request(10, 5000, 0, 1000).expect("is placed");
    assert_eq!((request.peer, request.port, request.cookie), (hand.peer, SERVER, 0));
    assert!(hand.core.postpone(hand.now, request.rpc));
    hand.core.check_invariants();
    assert!(!hand.core.postpone(hand.now, request.rpc));
    // Its room is another's.
    hand.call(100);
    let id = hand.id_of_call();
    let response = hand.response(id, 5000, 5000, 0, 1000).expect("is placed");
    assert_eq!((response.peer, response.port, response.cookie), (hand.peer, hand.from, 42));
    assert!(hand.core.postpone(hand.now, response.rpc));
    assert_eq!(hand.pass(ms(6)), [all, all]);
    let again = hand.request(10, 5000, 0, 1000).expect("is placed");
    assert!(again.first && again.rpc == request.rpc);
    assert!(hand.request(10, 5000, 1000, 4000).is_some());
    let served = hand.announced();
    assert!(!hand.core.postpone(hand.now, served), "it is whole");
    hand.respond(served, 10);
    assert!(hand.response(id, 5000, 5000, 0, 5000).is_some_and(|placement| placement.first));
    assert!(matches!(hand.events()[..], [Event::Done { outcome: Outcome::Delivered, .. }]));
}

#[test]
fn an_index_is_not_used_again_before_its_last_event_was_taken() {
    let mut hand = Hand::new(Config::default());
    let first = hand.call(100);
    hand.core.cancel(first);
    let second = hand.call(100);
    assert_ne!(first.index(), second.index());
    hand.events();
    let third = hand.call(100);
    assert_eq!(first.index(), third.index());
    assert_ne!(first, third);
    hand.request(10, 100, 0, 100);
    let served = hand.announced();
    hand.core.abandon(served);
    assert_eq!(hand.call(100).index(), served.index(), "no event follows");
}

#[test]
fn a_response_longer_than_any_message_ends_its_call() {
    for (dialect, length) in [(Dialect::Linux, 1_000_001), (Dialect::Steadfast, 2_000_001)] {
        let mut hand = Hand::speaking(dialect, config!(max_message: 2_000_000, max_held: 3_000_000));
        let rpc = hand.call(100);
        let id = hand.id_of_call();
        assert_eq!(hand.response(id, length, 1000, 0, 1000), None);
        let outcome = Outcome::Unknown(Reason::TooLong);
        assert_eq!(hand.events(), [Event::Done { rpc, cookie: 42, outcome, length: 0 }]);
    }
}

#[test]
fn an_unreachable_port_ends_the_requests_to_it_and_an_unreachable_host_all() {
    let mut hand = Hand::new(Config::default());
    let rpc = hand.call(100);
    hand.leaving();
    hand.core.handle_unreachable(hand.peer, Some(8));
    assert!(hand.events().is_empty());
    hand.core.handle_unreachable(hand.peer, Some(7));
    // It may have been executed before the port was closed.
    let outcome = Outcome::Unknown(Reason::Unreachable);
    assert_eq!(hand.events(), [Event::Done { rpc, cookie: 42, outcome, length: 0 }]);
    let rpc = hand.call(100);
    hand.core.handle_unreachable(hand.peer, None);
    let outcome = Outcome::Dropped(Reason::Unreachable);
    assert_eq!(hand.events(), [Event::Done { rpc, cookie: 42, outcome, length: 0 }]);
}

#[test]
fn closing_a_port_ends_what_is_under_way_there() {
    let mut hand = Hand::new(Config::default());
    hand.request(10, 100, 0, 100);
    let served = hand.announced();
    let asked = hand.call(100);
    hand.leaving();
    hand.core.close_port(SERVER);
    assert_eq!(hand.events(), [Event::Cancelled { rpc: served }]);
    hand.core.close_port(hand.from);
    let outcome = Outcome::Unknown(Reason::Closed);
    assert_eq!(hand.events(), [Event::Done { rpc: asked, cookie: 42, outcome, length: 0 }]);
    assert_eq!(hand.replies(), [ack()], "its server is told to stop");
    assert_eq!(hand.request(12, 100, 0, 100), None);
    hand.core.check_invariants();
}

#[test]
fn nothing_is_said_to_a_peer_that_was_removed() {
    let mut hand = Hand::new(Config::default());
    hand.call(100);
    hand.leaving();
    hand.core.remove_peer(hand.peer);
    assert_eq!(hand.core.poll_timeout(), None, "nothing waits");
    assert!(hand.leaving().is_empty());
}

#[test]
fn ports_of_servers_are_below_those_of_clients_and_each_is_bound_once() {
    let mut hand = Hand::new(config!(max_ports: 4));
    assert_eq!(hand.core.bind(0), Err(PortError::NotServers(0)));
    assert_eq!(hand.core.bind(0x8000), Err(PortError::NotServers(0x8000)));
    assert_eq!(hand.core.bind(SERVER), Err(PortError::InUse(SERVER)));
    let port = hand.core.open_port().unwrap();
    assert!(port >= 0x8000 && port != hand.from);
    hand.core.bind(1).unwrap();
    assert_eq!(hand.core.open_port(), Err(PortError::TooMany(4)));
}

#[test]
fn misuse_is_refused_and_says_what_to_do() {
    let mut hand = Hand::new(Config::default());
    let call = |hand: &Hand, length: usize, from| Call {
        peer: hand.peer,
        port: 7,
        from,
        body: vec![0; length].into(),
        cookie: 0,
        deadline: None,
        max_response: 1,
    };
    let (empty, long) = (call(&hand, 0, hand.from), call(&hand, 1_000_001, hand.from));
    let limit = 1_000_000;
    assert_eq!(hand.core.request(hand.now, empty), Err(CallError::Length { length: 0, limit }));
    assert_eq!(hand.core.request(hand.now, long), Err(CallError::Length { length: 1_000_001, limit }));
    let port = call(&hand, 1, 3);
    assert_eq!(hand.core.request(hand.now, port), Err(CallError::NoPort(3)));
    let rpc = hand.call(10);
    assert_eq!(hand.core.respond(hand.now, rpc, "x".into()), Err(RespondError::NotAsked));
    hand.request(10, 100, 0, 100);
    let rpc = hand.announced();
    assert!(matches!(hand.core.respond(hand.now, rpc, "".into()), Err(RespondError::Length { .. })));
    hand.respond(rpc, 1);
    assert_eq!(hand.core.respond(hand.now, rpc, "x".into()), Err(RespondError::NotAsked));
    let orphan = call(&hand, 1, hand.from);
    hand.core.remove_peer(hand.peer);
    assert_eq!(hand.core.request(hand.now, orphan), Err(CallError::NoPeer));
    assert_eq!(hand.core.rpcs(), (0, 0));
}

#[test]
fn an_abandoned_request_is_told_of_where_there_is_a_word_for_it() {
    let mut hand = Hand::speaking(Dialect::Steadfast, Config::default());
    hand.request(10, 100, 0, 100);
    let rpc = hand.announced();
    hand.core.abandon(rpc);
    assert_eq!(hand.replies(), [Body::Refused(Refusal::Abandoned)]);
    assert_eq!(hand.request(10, 100, 0, 100), None, "it was taken once");
    hand.asks(10, Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 });
    assert_eq!(hand.replies(), [Body::Refused(Refusal::Gone)]);
}

#[test]
fn a_run_is_the_packets_that_a_carrier_may_send_in_one_go() {
    let mut hand = Hand::new(Config::default());
    hand.call(3500);
    let run = hand.core.poll_transmit(hand.now, hand.link, 2999).expect("has room");
    assert_eq!(run.packets(), 2, "a budget is whole packets");
    let mut packet = Vec::new();
    run.write(1, &mut packet);
    assert_eq!(packet.len(), 56 + SEGMENT as usize);
    assert!(
        matches!(Packet::decode(Dialect::Linux, &packet).unwrap().body, Body::Data(d) if d.offset == 1000)
    );
    let run = hand.core.poll_transmit(hand.now, hand.link, 1).expect("has room");
    assert_eq!(run.packets(), 1, "and one packet at least");
}
