//! Small foreground messages on two paths at once: never, always, or while one is suspect; and what that may cost.

use crate::pair::{A, B, Pair, net, pattern};
use core::time::Duration;
use steadfast_session::{Config, Event, OrderRequest, Redundancy, SessionConfig};
use steadfast_wire::{Labels, MessageId, Rule, Selector};

const SECOND: Duration = Duration::from_secs(1);

fn open(seed: u64, budget: u64) -> Pair {
    let mut config = Config::default();
    config.redundancy_budget = budget;
    let networks = [net(1_000_000, 20), net(500_000, 60), net(500_000, 80)];
    Pair::open(seed, &config, &networks, SessionConfig::default())
}

fn set(pair: &mut Pair, labels: &Labels, redundancy: Redundancy) {
    pair.on(A, |core, _, session| core.set_redundancy(session, labels, redundancy)).unwrap();
}

fn send(pair: &mut Pair, labels: Labels, length: usize) -> MessageId {
    pair.send(A, labels, OrderRequest::Default, pattern(1, length))
}

/// What A sent twice, and what B got twice, in bytes.
fn twice(pair: &Pair) -> (u64, u64) {
    let stats = |host: usize| pair.world.nodes[host].core.stats();
    (stats(A).bytes_redundant, stats(B).bytes_duplicate)
}

fn suspicious(pair: &mut Pair) {
    pair.hole(A, 0, true, true);
    let probe = pair.say(A, "probe");
    pair.until("it is suspect", |pair| pair.saw(A, |e| matches!(e, Event::PathSuspect(_))));
    pair.until_delivered(A, &[probe]);
}

#[test]
fn by_default_small_foreground_goes_twice_while_a_path_is_suspect() {
    let mut pair = open(1, 64 * 1024);
    let calm = send(&mut pair, Labels::foreground(), 100);
    pair.until_delivered(A, &[calm]);
    assert_eq!(twice(&pair), (0, 0), "there is no reason yet");
    suspicious(&mut pair);
    let before = twice(&pair);
    let small = send(&mut pair, Labels::foreground(), 100);
    let others = [send(&mut pair, Labels::foreground(), 5000), send(&mut pair, Labels::background(), 100)];
    pair.run(SECOND);
    let frames = twice(&pair).0 - before.0;
    assert!((100..200).contains(&frames), "one packet of it, and no background: {frames}");
    assert_eq!(twice(&pair).1 - before.1, 100, "both came, and one was dropped");
    pair.until_delivered(A, &[small]);
    pair.until_delivered(A, &others);
    pair.hole(A, 0, false, false);
    pair.until("it is good again", |pair| {
        let paths = pair.world.nodes[A].core.paths();
        paths.len() == 3 && paths.iter().all(|info| !info.suspect)
    });
    let before = twice(&pair);
    let calm = send(&mut pair, Labels::foreground(), 100);
    pair.until_delivered(A, &[calm]);
    assert_eq!(twice(&pair).0, before.0, "the reason is gone");
}

#[test]
fn always_means_that_a_dead_path_costs_nothing_even_before_it_is_noticed() {
    for redundancy in [Redundancy::Always, Redundancy::Never] {
        let mut pair = open(2, 64 * 1024);
        set(&mut pair, &Labels::foreground(), redundancy);
        assert_eq!(
            pair.on(A, |core, _, session| core.redundancy(session, &Labels::foreground())),
            Ok(redundancy)
        );
        let before = pair.world.now;
        pair.hole(A, 0, true, true);
        let id = send(&mut pair, Labels::foreground(), 3000);
        pair.until("it is taken", |pair| !pair.taken[B].is_empty());
        let took = pair.world.now.since(before);
        // The way over the second network, and its own time on the wire.
        let at_once = took < Duration::from_millis(80);
        assert_eq!(at_once, redundancy == Redundancy::Always, "{redundancy:?}: {took:?}");
        pair.until_delivered(A, &[id]);
        assert_eq!(twice(&pair).0 / 1000, if at_once { 3 } else { 0 });
        assert_eq!(pair.ids(B), [id.0], "once");
    }
}

#[test]
fn never_means_never() {
    let mut pair = open(3, 64 * 1024);
    set(&mut pair, &Labels::foreground(), Redundancy::Never);
    suspicious(&mut pair);
    let id = send(&mut pair, Labels::foreground(), 100);
    pair.until_delivered(A, &[id]);
    assert_eq!(twice(&pair).0, 0);
}

#[test]
fn the_budget_holds_and_what_it_refused_is_counted() {
    let mut pair = open(4, 1000);
    set(&mut pair, &Labels::foreground(), Redundancy::Always);
    let ids: Vec<_> = (0..20).map(|_| send(&mut pair, Labels::foreground(), 200)).collect();
    pair.until_delivered(A, &ids);
    let stats = pair.world.nodes[A].core.stats();
    let frame = stats.bytes_redundant / 4;
    assert!((200..=250).contains(&frame), "the budget pays for four frames: {frame}");
    assert_eq!(stats.refused_redundancy, 16);
    pair.run(SECOND);
    let id = send(&mut pair, Labels::foreground(), 200);
    pair.until_delivered(A, &[id]);
    assert_eq!(twice(&pair).0, 5 * frame, "it is earned anew");
    let mut none = open(5, 0);
    set(&mut none, &Labels::foreground(), Redundancy::Always);
    let id = send(&mut none, Labels::foreground(), 10);
    none.until_delivered(A, &[id]);
    assert_eq!(twice(&none).0, 0);
}

#[test]
fn a_copy_keeps_the_rule_and_does_not_go_where_it_is_to_be_avoided() {
    let name = |name: &str| Selector::Name(name.into());
    let prohibits = Rule::default().prohibit(name("net1"));
    let avoids = Rule::default().avoid(name("net1"));
    for (rule, copies) in [
        (prohibits.clone(), 1),
        (avoids, 1),
        (prohibits.prohibit(name("net2")), 0),
        (Rule::default().require(name("net0")), 0),
    ] {
        let mut pair = open(6, 64 * 1024);
        pair.world.said = Some(Vec::new());
        let labels = Labels::foreground().rule(rule.clone());
        set(&mut pair, &labels, Redundancy::Always);
        let id = send(&mut pair, labels, 300);
        pair.until_delivered(A, &[id]);
        let networks: Vec<usize> =
            pair.world.said.as_ref().unwrap().iter().filter(|s| s.from.0 == A).map(|s| s.from.1).collect();
        assert!(!networks.contains(&1), "{rule}: {networks:?}");
        assert_eq!(networks.len(), 1 + copies, "{rule}: {networks:?}");
    }
}

#[test]
fn what_a_copy_costs_is_its_frame() {
    // A short message whose rule is longer than a packet.
    let mut rule = Rule::default();
    for number in 0..8 {
        let long = |word: &str| Selector::Name(format!("{word}{number}{}", "x".repeat(50)));
        let (prohibit, avoid, prefer) = (long("prohibit"), long("avoid"), long("prefer"));
        rule = rule.prohibit(prohibit).avoid(avoid).prefer(prefer);
    }
    let labels = Labels::foreground().rule(rule);
    let mut pair = open(7, 3000);
    set(&mut pair, &labels, Redundancy::Always);
    let ids: Vec<_> = (0..5).map(|_| send(&mut pair, labels.clone(), 10)).collect();
    pair.until_delivered(A, &ids);
    let stats = pair.world.nodes[A].core.stats();
    assert!((1200..=3000).contains(&stats.bytes_redundant), "{}", stats.bytes_redundant);
    assert!(stats.refused_redundancy >= 3, "{}", stats.refused_redundancy);
    let mut pair = open(8, 64 * 1024);
    suspicious(&mut pair);
    let before = twice(&pair).0;
    let id = send(&mut pair, labels, 10);
    pair.until_delivered(A, &[id]);
    assert_eq!(twice(&pair).0, before, "it does not fit one packet");
}

#[test]
fn a_message_that_leaves_in_pieces_goes_twice_too() {
    let mut pair = open(9, 64 * 1024);
    set(&mut pair, &Labels::foreground(), Redundancy::Always);
    // More than a carrier is filled with at once.
    let id = send(&mut pair, Labels::foreground(), 15_000);
    pair.until_delivered(A, &[id]);
    pair.run(SECOND);
    assert_eq!(twice(&pair).0 / 1000, 15);
    assert_eq!(pair.ids(B), [id.0], "once");
}
