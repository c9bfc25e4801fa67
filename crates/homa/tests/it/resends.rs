//! Loss, silence, what is asked for and what is answered (homa.md 2.4).

use crate::hand::{Hand, SEGMENT, SERVER, ack, config, data, ms, us};
use steadfast_homa::packet::{Body, Data, Dialect, Kind, Packet, RESEND_ALL, Refusal};
use steadfast_homa::{Config, Event, Outcome, Reason};

const ALL: Body = Body::Resend { offset: 0, length: RESEND_ALL, priority: 7 };

fn resend(offset: u32, length: u32) -> Body {
    Body::Resend { offset, length, priority: 7 }
}

#[test]
fn a_silent_server_is_asked_for_all_after_5_ms_and_less_and_less_often() {
    let mut hand = Hand::new(Config::default());
    hand.call(100);
    hand.leaving();
    assert!(hand.pass(us(4999)).is_empty());
    assert_eq!(hand.pass(us(2)), [ALL]);
    assert!(hand.pass(us(4990)).is_empty());
    assert_eq!(hand.pass(us(20)), [ALL]);
    assert!(hand.pass(us(9900)).is_empty());
    assert_eq!(hand.pass(us(200)), [ALL]);
    // 40, 65 and 90 ms after its request.
    assert_eq!(hand.pass(ms(75)).len(), 3);
}

#[test]
fn a_server_that_says_that_it_is_busy_is_not_asked_all_the_time() {
    let mut hand = Hand::new(Config::default());
    hand.call(100);
    let id = hand.id_of_call();
    let mut questions = 0;
    for _ in 0..1000 {
        let said = hand.pass(ms(1)).len();
        questions += said;
        if said > 0 {
            hand.answers(id, Body::Busy);
        }
    }
    assert!((30..50).contains(&questions), "{questions}");
    assert_eq!(hand.core.rpcs(), (1, 0));
}

#[test]
fn one_packet_of_a_peer_is_answered_by_few() {
    let mut hand = Hand::new(config!(grant_fifo_share: 0));
    for id in 0..200 {
        for offset in (1..20).map(|step| step * 2000) {
            hand.request(10 + 2 * id, 40_000, offset, 1);
        }
    }
    let said = hand.pass(ms(300));
    let questions = said.iter().filter(|body| matches!(body, Body::Resend { .. })).count();
    assert!(questions < 2000, "{questions} for 3,800 packets");
    assert_eq!(hand.core.rpcs(), (0, 0), "and all have ended");
}

#[test]
fn one_resend_for_each_gap_and_one_for_the_tail() {
    let mut hand = Hand::new(Config::default());
    hand.request_of(hand.peer, 10, 50_000, 20_000, 1000, 1000);
    hand.request_of(hand.peer, 10, 50_000, 20_000, 5000, 1000);
    let said = hand.pass(us(5001));
    let grants = said.iter().filter(|body| matches!(body, Body::Grant { .. })).count();
    let granted = said.iter().filter_map(|body| match body {
        Body::Grant { offset, .. } => Some(*offset),
        _ => None,
    });
    let end = granted.max().unwrap_or(20_000);
    // Not above messages that are shorter than what is left of it.
    let resend = |offset, length| Body::Resend { offset, length, priority: 4 };
    assert_eq!(said[grants..], [resend(0, 1000), resend(2000, 3000), resend(6000, end - 6000)]);
}

#[test]
fn a_slow_link_has_time_for_what_may_be_on_its_way_before_anything_is_asked_for() {
    let mut hand = Hand::new(config!(max_incoming: 50_000));
    // 20 ms for 50,000 bytes.
    hand.core.set_rate(hand.link, 20_000_000);
    hand.call(100);
    hand.leaving();
    assert!(hand.pass(us(19_990)).is_empty());
    assert_eq!(hand.pass(us(20)), [ALL]);
    assert!(hand.pass(us(19_980)).is_empty());
    assert_eq!(hand.pass(us(40)), [ALL]);
}

/// A link of 20 Mbit/s that takes 8 ms for what may be on its way, and a request of `length` bytes of which the first packet is
/// here.
fn begun(length: u32) -> Hand {
    let mut hand = Hand::new(config!(max_incoming: 20_000, timeout: ms(500)));
    hand.core.set_rate(hand.link, 20_000_000);
    hand.request(2, length, 0, SEGMENT);
    hand
}

/// Packets of other requests of `length` bytes keep the link busy for so many milliseconds; returns the questions that are
/// asked meanwhile about the first one.
fn busy(hand: &mut Hand, millis: u64, length: u32) -> Vec<Body> {
    let (peer, end, mut said) = (hand.another_peer(), hand.now + ms(millis), Vec::new());
    let packets = length / SEGMENT;
    for number in 0.. {
        if hand.now >= end {
            break;
        }
        let (id, offset) = (2 + 2 * u64::from(number / packets), number % packets * SEGMENT);
        hand.request_of(peer, id, length, length, offset, SEGMENT);
        // As long as its bytes take, headers included.
        said.extend(hand.pass(us((u64::from(SEGMENT) + 60 + 62) * 8 / 20)));
    }
    said.retain(|body| matches!(body, Body::Resend { .. }));
    said
}

#[test]
fn what_waits_in_a_switch_while_shorter_messages_come_is_not_asked_for() {
    let mut hand = begun(20_000);
    assert_eq!(busy(&mut hand, 50, SEGMENT), []);
    let mut hand = begun(20_000);
    assert_eq!(busy(&mut hand, 5, SEGMENT), []);
    let asked = hand.pass(ms(9));
    let resend = |offset, length| Body::Resend { offset, length, priority: 4 };
    assert_eq!(asked, [resend(SEGMENT, SEGMENT)]);
    // By now the link was idle for long enough.
    assert_eq!(hand.pass(ms(8)), [resend(SEGMENT, 19_000)]);
}

#[test]
fn beside_a_link_that_is_never_idle_one_packet_shows_whether_a_sender_lives() {
    let mut hand = begun(20_000);
    let asked = busy(&mut hand, 100, SEGMENT);
    let lengths = asked.iter().map(|body| if let Body::Resend { length, .. } = body { *length } else { 0 });
    assert!(!asked.is_empty() && lengths.clone().all(|length| length == SEGMENT), "{asked:?}");
}

#[test]
fn bytes_of_a_lower_level_explain_no_silence() {
    let mut hand = begun(2 * SEGMENT);
    let asked = busy(&mut hand, 10, 40 * SEGMENT);
    let of_first = |body: &&Body| matches!(body, Body::Resend { offset: SEGMENT, length: SEGMENT, .. });
    assert_eq!(asked.iter().filter(of_first).count(), 1, "{asked:?}");
}

#[test]
fn however_slow_a_link_is_questions_are_asked_before_a_request_is_given_up() {
    let mut hand = Hand::new(Config::default());
    hand.core.set_rate(hand.link, 1000);
    hand.call(100);
    hand.leaving();
    assert!(hand.pass(us(24_990)).is_empty());
    assert_eq!(hand.pass(us(20)), [ALL]);
    assert_eq!(hand.pass(ms(74)).len(), 2);
}

#[test]
fn what_is_sent_again_whole_does_not_come_before_shorter_messages() {
    let mut hand = Hand::new(Config::default());
    hand.call(50_000);
    let first = hand.leaving();
    let (id, level) = (first[0].0.sender_id, first[0].2);
    assert!(level < 7, "shorter ones have a level above it");
    hand.answers(id, Body::Unknown);
    let again = hand.leaving();
    assert!(!again.is_empty() && again.iter().all(|(_, _, other)| *other == level), "{again:?}");
}

#[test]
fn silence_of_100_ms_ends_a_request() {
    let mut hand = Hand::new(Config::default());
    let rpc = hand.call(100);
    hand.leaving();
    hand.pass(ms(99));
    assert!(hand.events().is_empty());
    hand.pass(ms(2));
    let outcome = Outcome::Unknown(Reason::Timeout);
    let events = hand.events();
    assert_eq!(events[0], Event::Done { rpc, cookie: 42, outcome, length: 0 });
    assert_eq!(hand.core.rpcs(), (0, 0));
}

#[test]
fn who_looks_at_the_clock_late_asks_before_it_gives_up() {
    let mut hand = Hand::new(Config::default());
    hand.call(100);
    hand.request(10, 5000, 0, 1000);
    hand.leaving();
    // The process was stopped.
    hand.now += ms(5000);
    hand.core.handle_timeout(hand.now);
    assert!(hand.events().is_empty());
    let said = hand.pass(ms(90));
    assert!(said.iter().filter(|body| matches!(body, Body::Resend { .. })).count() >= 2, "{said:?}");
    assert_eq!(hand.core.rpcs(), (1, 1));
    hand.pass(ms(20));
    assert_eq!(hand.core.rpcs(), (0, 0));
}

#[test]
fn a_peer_that_says_anything_is_not_missed() {
    let mut hand = Hand::new(Config::default());
    hand.call(100);
    for _ in 0..20 {
        hand.pass(ms(4));
        hand.answers(2, Body::Freeze);
    }
    assert!(hand.core.metrics().packets_sent[Kind::Resend.index()] > 2, "it was asked");
    assert_eq!(hand.core.missed(hand.peer), None);
    hand.call(100);
    hand.leaving();
    hand.pass(ms(6));
    assert_eq!(hand.core.missed(hand.peer), Some(hand.now - ms(1)));
}

#[test]
fn silence_ends_a_request_that_arrives_and_it_may_begin_again() {
    let mut hand = Hand::new(Config::default());
    hand.request(10, 5000, 0, 1000);
    hand.pass(ms(101));
    assert!(matches!(hand.events()[..], [Event::Discarded { .. }, ..]));
    assert!(hand.request(10, 5000, 0, 1000).is_some(), "it was not executed");
}

/// Says `body` every 10 ms while the transport waits for its response; whether it still waits after 200 ms.
fn survives(body: Body) -> bool {
    let mut hand = Hand::new(config!(unscheduled: 500));
    hand.call(1000);
    let id = hand.id_of_call();
    for _ in 0..20 {
        hand.answers(id, body);
        hand.leaving();
        hand.pass(ms(10));
    }
    hand.core.rpcs().0 == 1
}

#[test]
fn silence_is_ended_by_grant_and_busy_and_data_but_not_by_others() {
    assert!(survives(Body::Busy));
    assert!(survives(Body::Grant { offset: 500, priority: 0 }));
    assert!(!survives(Body::NeedAck));
    assert!(!survives(Body::Freeze));
    assert!(!survives(Body::Cutoffs { cutoffs: [1; 8], version: 3 }));
    // A question is answered, and what is sent begins the wait anew; one that brings nothing to send does not.
    assert!(!survives(Body::Resend { offset: 1000, length: 5, priority: 0 }));
    // DATA, also if it is a duplicate.
    let mut hand = Hand::new(Config::default());
    hand.request(10, 5000, 0, 1000);
    for _ in 0..20 {
        hand.pass(ms(10));
        hand.request(10, 5000, 0, 1000);
    }
    assert_eq!(hand.core.rpcs(), (0, 1));
}

#[test]
fn nothing_is_asked_for_while_all_that_was_granted_is_here() {
    // No room for more: the peer waits for us, and not we for it.
    let config = config!(max_incoming: 1, grant_fifo_share: 0);
    let mut hand = Hand::new(config);
    hand.request_of(hand.peer, 10, 5000, 1000, 0, 1000);
    let said = hand.pass(ms(300));
    assert!(said.iter().all(|body| !matches!(body, Body::Resend { .. })), "{said:?}");
    assert_eq!(hand.core.rpcs(), (0, 1));
}

#[test]
fn nothing_is_asked_for_while_a_request_is_in_service() {
    let mut hand = Hand::new(Config::default());
    hand.request(10, 100, 0, 100);
    assert!(hand.pass(ms(1000)).is_empty());
    assert_eq!(hand.core.rpcs(), (0, 1));
}

#[test]
fn nothing_is_asked_for_while_what_may_be_sent_has_not_left() {
    let mut hand = Hand::new(Config::default());
    hand.call(1000);
    // The driver takes nothing.
    for _ in 0..100 {
        hand.now += ms(5);
        hand.core.handle_timeout(hand.now);
    }
    assert_eq!(hand.core.rpcs(), (1, 0));
    assert_eq!(hand.leaving().len(), 1, "the request and no question");
}

#[test]
fn a_resend_for_an_unknown_rpc_is_answered_with_unknown() {
    let mut hand = Hand::new(Config::default());
    hand.asks(10, ALL);
    hand.answers(20, ALL);
    let all = hand.leaving();
    assert_eq!((all[0].0.body, all[0].0.sender_id), (Body::Unknown, 11));
    assert_eq!((all[1].0.body, all[1].0.sender_id), (Body::Unknown, 20));
}

#[test]
fn a_resend_before_there_is_a_response_is_answered_with_busy() {
    let mut hand = Hand::new(Config::default());
    hand.request(10, 2000, 0, 1000);
    hand.asks(10, ALL);
    assert_eq!(hand.replies(), [Body::Busy], "arriving");
    hand.request(10, 2000, 1000, 1000);
    hand.asks(10, ALL);
    assert_eq!(hand.replies(), [Body::Busy], "in service");
}

#[test]
fn a_resend_of_what_was_not_sent_is_a_grant_and_is_answered_with_busy() {
    let mut hand = Hand::new(config!(unscheduled: 2000));
    hand.request(10, 100, 0, 100);
    let rpc = hand.announced();
    hand.respond(rpc, 10_000);
    assert_eq!(hand.offsets(), [0, 1000]);
    hand.asks(10, resend(2000, 3000));
    let said = hand.says();
    assert_eq!(said[0], Body::Busy);
    assert_eq!(said.len(), 4, "{said:?}");
    hand.asks(10, resend(10_000, 1));
    assert_eq!(hand.says(), [Body::Busy]);
}

#[test]
fn what_is_sent_again_says_so_and_goes_at_the_level_that_was_asked_for() {
    let mut hand = Hand::new(Config::default());
    hand.request(10, 100, 0, 100);
    let rpc = hand.announced();
    hand.respond(rpc, 3500);
    hand.leaving();
    hand.asks(10, resend(1500, 1000));
    let all = hand.leaving();
    assert_eq!(all.len(), 2);
    for ((packet, payload, level), offset) in all.iter().zip([1000, 2000]) {
        let Body::Data(data) = packet.body else { panic!("{packet:?}") };
        assert!(data.retransmit && data.offset == offset && data.incoming >= 3000);
        assert_eq!((*payload, *level), (1000, 7));
    }
    assert_eq!(hand.core.metrics().resent_packets, 2);
}

#[test]
fn an_unknown_rpc_is_sent_again_from_the_beginning() {
    let mut hand = Hand::new(Config::default());
    hand.call(2500);
    let id = hand.id_of_call();
    hand.answers(id, Body::Unknown);
    assert_eq!(hand.offsets(), [0, 1000, 2000]);
}

#[test]
fn a_server_that_forgets_all_it_gets_is_not_asked_for_ever() {
    let mut hand = Hand::new(Config::default());
    hand.call(2500);
    let id = hand.id_of_call();
    for _ in 0..30 {
        hand.pass(ms(5));
        hand.answers(id, Body::Unknown);
        hand.leaving();
    }
    assert!(matches!(hand.events()[..], [Event::Done { outcome: Outcome::Unknown(Reason::Timeout), .. }]));
}

#[test]
fn what_a_server_had_and_forgot_is_not_sent_again() {
    let mut hand = Hand::new(Config::default());
    let rpc = hand.call(2500);
    let id = hand.id_of_call();
    hand.answers(id, Body::Busy);
    hand.answers(id, Body::Unknown);
    let outcome = Outcome::Unknown(Reason::Forgotten);
    assert_eq!(hand.events(), [Event::Done { rpc, cookie: 42, outcome, length: 0 }]);
    assert!(hand.offsets().is_empty());
    // In our dialect a server that had it would say so, unless it was told to forget us.
    let mut hand = Hand::speaking(Dialect::Steadfast, Config::default());
    let rpc = hand.call(2500);
    let id = hand.id_of_call();
    hand.answers(id, Body::Busy);
    hand.answers(id, Body::Unknown);
    assert_eq!(hand.events(), [Event::Done { rpc, cookie: 42, outcome, length: 0 }]);
    assert!(hand.offsets().is_empty());
}

#[test]
fn a_server_without_room_has_not_got_the_request() {
    let mut hand = Hand::speaking(Dialect::Steadfast, Config::default());
    hand.call(2500);
    let id = hand.id_of_call();
    for _ in 0..20 {
        hand.pass(ms(50));
        hand.answers(id, Body::Refused(Refusal::NoRoom));
    }
    hand.answers(id, Body::Unknown);
    assert_eq!(hand.offsets(), [0, 1000, 2000]);
}

#[test]
fn unknown_is_ignored_by_a_client_whose_response_arrives() {
    let mut hand = Hand::new(Config::default());
    hand.call(100);
    let id = hand.id_of_call();
    hand.response(id, 2000, 2000, 0, 1000);
    hand.answers(id, Body::Unknown);
    assert!(hand.events().is_empty());
    assert!(hand.response(id, 2000, 2000, 1000, 1000).is_some());
}

#[test]
fn an_rpc_that_its_client_does_not_know_is_dropped_by_the_server() {
    let mut hand = Hand::new(Config::default());
    hand.request(10, 2000, 0, 1000);
    hand.asks(10, Body::Unknown);
    assert!(matches!(hand.events()[..], [Event::Discarded { .. }]));
    assert_eq!(hand.core.metrics().server_rpcs_unknown, 1);
}

#[test]
fn other_packets_for_unknown_rpcs_are_dropped_silently() {
    let mut hand = Hand::new(Config::default());
    for body in [Body::Grant { offset: 1, priority: 1 }, Body::Busy, Body::Unknown, Body::Freeze] {
        hand.asks(10, body);
        hand.answers(20, body);
    }
    hand.response(20, 1000, 1000, 0, 1000);
    assert!(hand.replies().is_empty());
    assert_eq!(hand.core.rpcs(), (0, 0));
}

#[test]
fn nobody_speaks_for_a_port_that_is_not_open_here() {
    let mut hand = Hand::new(Config::default());
    for body in [ALL, Body::NeedAck, Body::Unknown, Body::Data(Data { length: 9, incoming: 9, ..data() })] {
        for sender_id in [10, 21] {
            hand.arrives(Packet { source: 1, destination: 5, sender_id, body }, 9);
        }
    }
    assert!(hand.leaving().is_empty(), "another process of this host may have it");
    assert_eq!(hand.core.metrics().unknown_ports, 7);
}

#[test]
fn a_lost_grant_is_repaired_by_the_question_for_what_it_granted() {
    let mut hand = Hand::new(config!(unscheduled: 2000));
    hand.call(5000);
    let id = hand.id_of_call();
    hand.answers(id, resend(2000, 3000));
    assert_eq!(hand.offsets(), [2000, 3000, 4000]);
}

#[test]
fn a_silent_sender_takes_no_room_from_others() {
    let config = config!(max_incoming: 20_000, overcommit: 1, grant_fifo_share: 0);
    let mut hand = Hand::new(config);
    hand.request_of(hand.peer, 10, 30_000, 1000, 0, 1000);
    assert!(hand.replies().iter().any(|body| matches!(body, Body::Grant { .. })));
    // It has the only slot, and says nothing.
    let other = hand.another_peer();
    hand.request_of(other, 10, 900_000, 1000, 0, 1000);
    assert!(hand.replies().is_empty());
    let said = hand.pass(ms(6));
    assert!(said.iter().any(|body| matches!(body, Body::Grant { .. })), "{said:?}");
}

#[test]
fn a_peer_that_answers_no_question_loses_all_its_rpcs_at_once() {
    let mut hand = Hand::new(Config::default());
    hand.call(100);
    hand.leaving();
    hand.pass(ms(95));
    let young = hand.call(100);
    hand.leaving();
    hand.pass(ms(6));
    let events = hand.events();
    assert!(events.iter().any(|event| matches!(event, Event::Done { rpc, .. } if *rpc == young)));
    assert_eq!(events.last(), Some(&Event::PeerSilent { peer: hand.peer }));
    assert_eq!(hand.core.rpcs(), (0, 0));
}

#[test]
fn requests_that_the_peer_asks_about_are_sent_again_by_the_client() {
    let mut hand = Hand::new(Config::default());
    hand.call(2500);
    let id = hand.id_of_call();
    hand.answers(id, resend(1000, 500));
    assert_eq!(hand.offsets(), [1000]);
}

#[test]
fn cutoffs_are_told_to_whoever_knows_others_once_a_millisecond() {
    let mut hand = Hand::new(Config::default());
    let cutoffs = |hand: &mut Hand| {
        let all = hand.leaving();
        all.into_iter()
            .filter_map(|(packet, ..)| match packet.body {
                Body::Cutoffs { cutoffs, version } => Some((cutoffs, version)),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    for id in [10, 12, 14] {
        hand.request(id, 5000, 0, 1000);
    }
    let told = cutoffs(&mut hand);
    assert_eq!(told.len(), 1);
    let (levels, version) = told[0];
    assert_eq!(levels[4..], [i32::MAX as u32, 15_000, 2800, 200]);
    hand.pass(ms(1));
    hand.request(16, 5000, 0, 1000);
    assert_eq!(cutoffs(&mut hand).len(), 1);
    hand.pass(ms(1));
    let body = Body::Data(Data { length: 5000, incoming: 5000, cutoff_version: version, ..data() });
    hand.arrives(Packet { source: 0x8001, destination: SERVER, sender_id: 18, body }, 1000);
    assert!(cutoffs(&mut hand).is_empty(), "it knows");
}

#[test]
fn a_sender_uses_the_cutoffs_that_it_was_told_and_says_which() {
    let mut hand = Hand::new(Config::default());
    hand.call(100);
    let (packet, _, level) = hand.leaving()[0];
    assert_eq!(level, 6, "before the receiver was heard");
    assert!(matches!(packet.body, Body::Data(data) if data.cutoff_version == 0));
    let cutoffs = [i32::MAX as u32, 0, 0, 0, 0, 5000, 200, 50];
    hand.answers(packet.sender_id, Body::Cutoffs { cutoffs, version: 77 });
    for (length, expected) in [(50, 7), (51, 6), (201, 5), (5001, 0)] {
        hand.call(length);
        let (packet, _, level) = hand.leaving()[0];
        assert_eq!(level, expected, "{length}");
        assert!(matches!(packet.body, Body::Data(data) if data.cutoff_version == 77));
    }
}

#[test]
fn each_packet_says_which_cutoffs_its_sender_knows_by_then() {
    let mut hand = Hand::new(config!(unscheduled: 1000));
    hand.call(5000);
    let id = hand.id_of_call();
    hand.answers(id, Body::Cutoffs { cutoffs: [i32::MAX as u32; 8], version: 77 });
    hand.answers(id, Body::Grant { offset: 2000, priority: 1 });
    let (packet, _, level) = hand.leaving()[0];
    assert!(matches!(packet.body, Body::Data(data) if data.cutoff_version == 77 && data.offset == 1000));
    assert_eq!(level, 1);
}

#[test]
fn cutoffs_follow_the_traffic_that_arrives() {
    let config = config!(cutoff_messages: 100);
    let mut hand = Hand::new(config);
    let before = hand.core.cutoffs();
    for id in 0..400_u64 {
        hand.request(10 + 2 * id, 700, 0, 700);
        let rpc = hand.announced();
        hand.respond(rpc, 1);
        hand.leaving();
        hand.asks(10 + 2 * id, ack());
        hand.events();
        hand.pass(ms(5));
    }
    let after = hand.core.cutoffs();
    assert_ne!(before, after);
    assert_eq!(after[7], 704, "all messages have the same length: {after:?}");
    assert!(hand.core.metrics().cutoff_changes >= 1);
}

#[test]
fn cutoffs_follow_what_arrived_and_not_what_was_claimed() {
    let mut hand = Hand::new(config!(cutoff_messages: 100));
    let before = hand.core.cutoffs();
    for id in 0..400_u64 {
        hand.request(10 + 2 * id, 700, 0, 1);
        hand.asks(10 + 2 * id, ack());
        hand.pass(ms(5));
    }
    assert_eq!(hand.core.cutoffs(), before);
}

/// Cut-offs after 400 messages, three of four from one peer, all claimed to come unasked. `length` is told which peer's it
/// is.
fn cutoffs_of(unscheduled: u32, length: impl Fn(u64, bool) -> u32) -> [u32; 8] {
    let mut hand = Hand::new(config!(cutoff_messages: 100, unscheduled: unscheduled));
    let other = hand.another_peer();
    for id in 0..400_u64 {
        let many = id % 4 != 0;
        let (peer, length) = (if many { hand.peer } else { other }, length(id, many));
        hand.request_of(peer, 10 + 2 * id, length, length, 0, length);
        let packet = Packet { source: 1, destination: SERVER, sender_id: 10 + 2 * id, body: ack() };
        hand.arrives_from(peer, packet, 0);
        hand.pass(ms(5));
    }
    assert!(hand.core.metrics().cutoff_changes >= 1);
    hand.core.cutoffs()
}

#[test]
fn one_peer_does_not_decide_on_cutoffs_for_all() {
    let cutoffs = cutoffs_of(40_000, |_, many| if many { 100 } else { 1000 });
    // All together a quarter of the bytes are in messages of 100 bytes, without that peer's excess a tenth.
    assert_eq!(cutoffs[7], 1024, "{cutoffs:?}");
}

#[test]
fn no_more_counts_as_unasked_than_we_want() {
    let cutoffs = cutoffs_of(1000, |id, _| 3000 + 100 * (id as u32 % 30));
    let levels = cutoffs[1..].iter().filter(|cutoff| **cutoff > 0).count();
    assert_eq!(levels, 2, "for less than a quarter of all bytes: {cutoffs:?}");
}
