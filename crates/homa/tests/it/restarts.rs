//! Peers that die, or come back as another process.

use crate::hand::{Hand, config, ms};
use steadfast_homa::packet::{Body, Dialect};
use steadfast_homa::{Config, Event, Outcome, Reason};

#[test]
fn a_restart_that_the_carrier_tells_of_ends_all_that_was_under_way() {
    let mut hand = Hand::speaking(Dialect::Steadfast, config!(unscheduled: 1000));
    let whole = hand.call(100);
    hand.leaving();
    let half = hand.call(5000);
    hand.leaving();
    hand.request(10, 100, 0, 100);
    let served = hand.announced();
    hand.request(12, 2000, 0, 1000);
    hand.core.handle_restart(hand.peer);
    hand.core.check_invariants();
    let done = |rpc, outcome| Event::Done { rpc, cookie: 42, outcome, length: 0 };
    let events = hand.events();
    assert!(events.contains(&done(whole, Outcome::Unknown(Reason::Restarted))));
    assert!(events.contains(&done(half, Outcome::Dropped(Reason::Restarted))));
    assert!(events.contains(&Event::Cancelled { rpc: served }));
    assert!(matches!(events.last(), Some(Event::Discarded { .. })));
    assert!(hand.says().is_empty(), "nothing of it is of interest to the new process");
    assert!(hand.request(10, 100, 0, 100).is_some(), "the new process may use any id");
}

#[test]
fn a_restarted_server_is_noticed_by_its_answers() {
    let mut hand = Hand::new(config!(unscheduled: 1000));
    let rpc = hand.call(5000);
    let id = hand.id_of_call();
    hand.answers(id, Body::Grant { offset: 2000, priority: 0 });
    hand.leaving();
    hand.answers(id, Body::Unknown);
    // It was granted, so it was known; the rest was never sent, so it was not executed.
    let outcome = Outcome::Dropped(Reason::Forgotten);
    assert_eq!(hand.events(), [Event::Done { rpc, cookie: 42, outcome, length: 0 }]);
}

#[test]
fn a_restarted_client_is_noticed_by_its_answers() {
    let mut hand = Hand::new(Config::default());
    hand.request(10, 100, 0, 100);
    let rpc = hand.announced();
    hand.respond(rpc, 100);
    hand.leaving();
    assert_eq!(hand.pass(ms(3)), [Body::NeedAck]);
    // The new process knows nothing of it, and says what a client says then.
    hand.asks(10, crate::hand::ack());
    assert_eq!(hand.core.rpcs(), (0, 0));
}

#[test]
fn a_kernel_that_starts_again_and_counts_from_the_beginning_is_served() {
    let mut hand = Hand::new(Config::default());
    for id in (1..40).map(|half| 2 * half) {
        assert!(hand.request(id, 100, 0, 100).is_some());
        let rpc = hand.announced();
        hand.respond(rpc, 100);
        hand.leaving();
        hand.asks(id, crate::hand::ack());
        hand.events();
        hand.pass(ms(1000));
    }
    assert_eq!(hand.request(78, 100, 0, 100), None, "a late duplicate");
    hand.pass(ms(60_000));
    assert!((1..40).all(|half| hand.request(2 * half, 100, 0, 100).is_some()));
}

#[test]
fn ids_and_ports_of_another_process_are_others() {
    let first = |seed| {
        let mut core = steadfast_homa::Transport::new(Config::default(), [seed; 32]);
        core.open_port().unwrap()
    };
    assert_ne!(first(1), first(2));
    let mut one = Hand::new(Config::default());
    one.call(10);
    let id = one.id_of_call();
    assert!(id > 1 << 32 && id < 1 << 63, "random, and far from the end of all numbers: {id}");
}
