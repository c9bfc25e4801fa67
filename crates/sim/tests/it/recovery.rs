//! Paths that fail while messages are on them.

use crate::pair::{A, B, Pair, net, pattern};
use bytes::Bytes;
use core::time::Duration;
use steadfast_session::{Config, DownReason, Event, OrderRequest, SessionConfig};
use steadfast_wire::{Instant, Labels, MessageId, NetworkId};

/// The better of the two networks, and the other one.
const BEST: usize = 0;
const OTHER: usize = 1;

fn pair(seed: u64) -> Pair {
    let networks = [net(2_000_000, 10), net(500_000, 60)];
    let mut pair = Pair::open(seed, &Config::default(), &networks, SessionConfig::default());
    // Both sides have measured both paths.
    for host in [A, B] {
        let ids = [pair.say(host, "first"), bulk(&mut pair, host, 200_000)];
        pair.until_delivered(host, &ids);
    }
    pair
}

fn bulk(pair: &mut Pair, host: usize, length: usize) -> MessageId {
    let order = OrderRequest::Default;
    pair.send(host, Labels::background(), order, pattern(host as u64 + length as u64, length))
}

fn on(network: usize) -> impl Fn(&Event) -> bool {
    move |event| {
        let (Event::PathSuspect(info) | Event::PathRecovered(info) | Event::PathDown(info, _)) = event else {
            return false;
        };
        info.local == NetworkId(network as u32 + 1)
    }
}

fn suspected(pair: &Pair, host: usize, network: usize) -> Option<Instant> {
    pair.when(host, |event| matches!(event, Event::PathSuspect(_)) && on(network)(event))
}

fn down(pair: &Pair, host: usize, network: usize) -> Option<Instant> {
    pair.when(host, |event| matches!(event, Event::PathDown(..)) && on(network)(event))
}

/// Everything that was sent was taken, once, with its own bytes.
#[track_caller]
fn nothing_lost(pair: &Pair, host: usize, sent: &[(MessageId, Bytes)]) {
    for (id, bytes) in sent {
        let taken: Vec<_> = pair.taken[1 - host].iter().filter(|m| m.id == *id).collect();
        assert_eq!(taken.len(), 1, "{id}");
        assert!(taken[0].payload.as_ref() == Some(bytes), "{id} has other bytes");
    }
    assert_eq!((pair.ended(A), pair.ended(B)), (None, None));
    assert_eq!(pair.parked(A) + pair.parked(B), 0, "a path was always there");
}

/// Sends in the direction of `host` while `cut` is in force; returns what was sent and when the last small one was there.
fn traffic(pair: &mut Pair, host: usize) -> (Vec<(MessageId, Bytes)>, Instant) {
    let mut sent = Vec::new();
    let mut small = Vec::new();
    sent.push((bulk(pair, host, 300_000), pattern(host as u64 + 300_000, 300_000)));
    for number in 0..20 {
        let id = pair.say(host, &format!("{number}"));
        sent.push((id, Bytes::from(format!("{number}"))));
        small.push(id);
        pair.run(Duration::from_millis(5));
    }
    pair.until_delivered(host, &small);
    let at = pair.world.now;
    let ids: Vec<_> = sent.iter().map(|(id, _)| *id).collect();
    pair.until_delivered(host, &ids);
    (sent, at)
}

#[test]
fn a_silent_hole_in_the_better_network_does_not_stop_foreground() {
    let mut pair = pair(1);
    // Something is under way on it when it goes silent.
    let first = (bulk(&mut pair, A, 150_000), pattern(150_000, 150_000));
    pair.run(Duration::from_millis(20));
    pair.hole(A, BEST, true, true);
    let cut = pair.world.now;
    let (mut sent, small_done) = traffic(&mut pair, A);
    pair.until_delivered(A, &[first.0]);
    sent.push(first);
    let suspect = suspected(&pair, A, BEST).expect("the silence was noticed");
    assert!(suspect > cut && suspect < small_done);
    assert!(small_done.since(cut) < Config::default().down_after, "before the path is given up");
    pair.until("the path is given up", |pair| down(pair, A, BEST).is_some() && down(pair, B, BEST).is_some());
    assert_eq!(down(&pair, A, OTHER), None);
    assert!(pair.saw(A, |e| matches!(e, Event::PathDown(_, DownReason::Silence)) && on(BEST)(e)));
    // It comes back: nothing from before is taken again.
    pair.hole(A, BEST, false, false);
    pair.until("both paths are back", |pair| pair.world.nodes[A].core.paths().len() == 2);
    pair.run(Duration::from_secs(10));
    nothing_lost(&pair, A, &sent);
    assert!(pair.world.nodes[A].core.stats().bytes_resent > 0);
}

#[test]
fn one_way_cuts_are_survived_in_each_direction() {
    for (seed, (host, out)) in [(A, true), (A, false), (B, true), (B, false)].into_iter().enumerate() {
        let mut pair = pair(10 + seed as u64);
        pair.hole(host, BEST, out, !out);
        let cut = pair.world.now;
        for sender in [A, B] {
            let (sent, small_done) = traffic(&mut pair, sender);
            nothing_lost(&pair, sender, &sent);
            if sender == A {
                assert!(small_done.since(cut) < Config::default().down_after, "host {host}, out: {out}");
            }
        }
        assert!(suspected(&pair, A, BEST).is_some() || suspected(&pair, B, BEST).is_some());
        if (host, out) == (A, false) {
            // What A sent had arrived; only the answers were lost.
            assert!(pair.world.nodes[B].core.stats().bytes_duplicate > 0, "nothing came twice");
        }
        pair.hole(host, BEST, false, false);
        pair.until("both paths work again", |pair| {
            let paths = pair.world.nodes[A].core.paths();
            paths.len() == 2 && paths.iter().all(|path| !path.suspect)
        });
        let id = pair.say(B, "done");
        pair.until_delivered(B, &[id]);
    }
}

#[test]
fn a_carrier_that_fails_is_left_at_once() {
    for host in [A, B] {
        let mut pair = pair(20 + host as u64);
        let bytes = pattern(A as u64 + 400_000, 400_000);
        let big = bulk(&mut pair, A, 400_000);
        pair.run(Duration::from_millis(30));
        assert_eq!(pair.outcome(A, big), None, "it is under way");
        // The interface of one side goes down and comes back: what was on the carrier is gone.
        pair.set_up(host, BEST, false);
        let cut = pair.world.now;
        assert!(down(&pair, host, BEST).is_some(), "known at once");
        let id = pair.say(A, "over the other one");
        pair.until_delivered(A, &[id]);
        assert!(pair.world.now.since(cut) < Config::default().down_after);
        pair.until_delivered(A, &[big]);
        nothing_lost(&pair, A, &[(big, bytes), (id, Bytes::from_static(b"over the other one"))]);
        pair.set_up(host, BEST, true);
        pair.until("both paths are back", |pair| pair.world.nodes[A].core.paths().len() == 2);
    }
}

#[test]
fn a_new_address_on_the_same_network_is_a_new_path() {
    for host in [A, B] {
        let mut pair = pair(30 + host as u64);
        let mut sent = Vec::new();
        for round in 0..3 {
            let length = 300_000 + round;
            sent.push((bulk(&mut pair, A, length), pattern(A as u64 + length as u64, length)));
            pair.run(Duration::from_millis(30));
            pair.readdress(host, BEST);
            let text = format!("round {round}");
            sent.push((pair.say(A, &text), Bytes::from(text)));
            pair.run(Duration::from_millis(500));
        }
        let ids: Vec<_> = sent.iter().map(|(id, _)| *id).collect();
        pair.until_delivered(A, &ids);
        nothing_lost(&pair, A, &sent);
        let ip = pair.world.address(B, BEST).ip();
        pair.until("the new address is in use", |pair| {
            pair.world.nodes[A].core.paths().iter().any(|path| path.remote.ip() == ip || host == A)
        });
        pair.until("both networks are in use", |pair| pair.world.nodes[A].core.paths().len() == 2);
    }
}

#[test]
fn the_only_network_may_change_its_address() {
    let mut pair = Pair::open(40, &Config::default(), &[net(1_000_000, 20)], SessionConfig::default());
    for (round, host) in [A, B, A, B].into_iter().enumerate() {
        let big = bulk(&mut pair, B, 100_000 + round);
        pair.run(Duration::from_millis(40));
        assert_eq!(pair.outcome(B, big), None, "it is under way");
        pair.readdress(host, 0);
        pair.until_delivered(B, &[big]);
    }
    assert_eq!(pair.ids(A), [1, 2, 3, 4]);
    assert_eq!((pair.ended(A), pair.ended(B)), (None, None));
}

#[test]
fn a_false_alarm_costs_bytes_and_no_path() {
    let mut pair = pair(50);
    let bytes = pattern(A as u64 + 200_000, 200_000);
    let big = bulk(&mut pair, A, 200_000);
    pair.run(Duration::from_millis(15));
    pair.hole(A, BEST, true, true);
    let id = pair.say(A, "in doubt");
    pair.until("the path is in doubt", |pair| suspected(pair, A, BEST).is_some());
    pair.hole(A, BEST, false, false);
    pair.until("the doubt is over", |pair| {
        pair.saw(A, |event| matches!(event, Event::PathRecovered(_)) && on(BEST)(event))
    });
    pair.until_delivered(A, &[big, id]);
    nothing_lost(&pair, A, &[(big, bytes), (id, Bytes::from_static(b"in doubt"))]);
    pair.run(Duration::from_secs(10));
    for host in [A, B] {
        assert!(!pair.saw(host, |event| matches!(event, Event::PathDown(..))), "no path was given up");
    }
}

#[test]
fn a_network_that_appears_takes_what_is_stuck_on_a_suspect_path() {
    let mut pair = pair(52);
    pair.set_up(A, OTHER, false);
    pair.until("the other path is gone", |pair| pair.world.nodes[A].core.paths().len() == 1);
    pair.hole(A, BEST, true, true);
    let cut = pair.world.now;
    let id = pair.say(A, "stuck");
    pair.until("the path is in doubt", |pair| suspected(pair, A, BEST).is_some());
    // There was nowhere else to go.
    pair.set_up(A, OTHER, true);
    pair.until_delivered(A, &[id]);
    assert!(pair.world.now.since(cut) < Config::default().down_after, "before the path is given up");
    assert_eq!(pair.parked(A) + pair.parked(B), 0, "a path was always there");
}

#[test]
fn a_slower_path_is_no_dead_path() {
    let mut pair = pair(51);
    // The round trip of the better network grows at once to many times what it was.
    for host in [A, B] {
        pair.world.nodes[host].attachments[BEST].delay = Duration::from_millis(200);
    }
    let (sent, _) = traffic(&mut pair, A);
    nothing_lost(&pair, A, &sent);
    pair.run(Duration::from_secs(30));
    for host in [A, B] {
        assert!(!pair.saw(host, |event| matches!(event, Event::PathDown(..))), "no path was given up");
    }
}

#[test]
fn a_crash_that_nobody_heard_of_is_noticed_and_told() {
    let networks = [net(1_000_000, 20)];
    let mut pair = Pair::open(60, &Config::default(), &networks, SessionConfig::default());
    // The process dies while nothing gets out: A's carrier is half open.
    pair.hole(B, 0, true, true);
    pair.restart(B, 0);
    let id = pair.say(A, "into the void");
    assert_eq!(pair.parked(A), 0, "A heard nothing");
    pair.until("the silence is noticed", |pair| pair.parked(A) == 1);
    assert!(pair.saw(A, |event| matches!(event, Event::PathDown(_, DownReason::Silence))));
    assert_eq!((pair.ended(A), pair.outcome(A, id)), (None, None), "the peer may still be there");
    pair.hole(B, 0, false, false);
    pair.until("A learns that B forgot", |pair| pair.ended(A).is_some());
    assert_eq!(pair.ended(A).map(|(reason, _)| reason), Some(steadfast_wire::frame::EndReason::Unknown));
    assert_eq!(pair.outcome(A, id), Some(steadfast_session::Outcome::Unknown));
}

#[test]
fn a_network_that_dies_takes_its_other_paths_into_doubt() {
    let networks = [net(2_000_000, 20), net(2_000_000, 60)];
    let mut pair = Pair::begin(9, &Config::default(), &networks, SessionConfig::default());
    // Each network of one host reaches each of the other: four paths, and the two best share what is about to die.
    pair.world.routed = true;
    pair.until("four paths are up", |pair| {
        [A, B].iter().all(|host| pair.world.nodes[*host].core.paths().len() == 4)
    });
    for host in [A, B] {
        let ids: Vec<_> = (0..100).map(|number| pair.say(host, &format!("{number}"))).collect();
        pair.until_delivered(host, &ids);
    }
    pair.run(Duration::from_secs(2));
    let before = pair.world.now;
    pair.hole(B, BEST, true, true);
    let id = pair.say(A, "where to?");
    pair.until("it arrives", |pair| pair.taken[B].iter().any(|message| message.id == id));
    let waited = pair.world.now.since(before);
    // Suspected after 60 ms, there 60 ms later; a second suspicion would cost 100 ms more.
    assert!(waited < Duration::from_millis(150), "{waited:?}");
}

#[test]
fn after_a_stall_a_path_is_measured_anew_though_only_the_other_side_uses_it() {
    let mut pair = pair(10);
    let rtt = |pair: &Pair| {
        let paths = pair.world.nodes[A].core.paths();
        paths
            .iter()
            .find(|path| path.local == NetworkId(BEST as u32 + 1))
            .and_then(|path| path.rtt)
            .expect("measured")
    };
    let before = rtt(&pair);
    pair.hole(A, BEST, true, true);
    pair.say(A, "into the hole");
    pair.run(Duration::from_millis(800));
    pair.hole(A, BEST, false, false);
    // B finds it good again and talks on it all the time; A hears that, and would not ask.
    for number in 0..400 {
        let ids = [pair.say(B, &format!("b{number}")), pair.say(A, &format!("a{number}"))];
        pair.run(Duration::from_millis(10));
        pair.until_delivered(B, &ids[..1]);
    }
    assert!(rtt(&pair) < before * 3 / 2, "{before:?} before, {:?} now", rtt(&pair));
}

#[test]
fn a_network_that_is_gone_still_has_its_name() {
    let mut pair = pair(11);
    pair.set_up(A, BEST, false);
    pair.until("it is told", |pair| down(pair, A, BEST).is_some());
    let named = |event: &Event| matches!(event, Event::PathDown(info, _) if info.local_name == "net0");
    assert!(pair.saw(A, named));
}

#[test]
fn an_alarm_that_was_false_costs_what_was_late_and_not_all_that_was_under_way() {
    let mut pair = pair(40);
    let text = "x".repeat(100);
    let say = |pair: &mut Pair| {
        pair.run(Duration::from_millis(2));
        pair.say(A, &text)
    };
    for _ in 0..50 {
        say(&mut pair);
    }
    assert_eq!(pair.world.nodes[A].core.stats().bytes_resent, 0);
    // A little more than what is waited for.
    pair.world.nodes[A].attachments[BEST].delay += Duration::from_millis(40);
    let mut held = Vec::new();
    for _ in 0..100 {
        if suspected(&pair, A, BEST).is_none() {
            held.push(say(&mut pair));
        }
    }
    pair.until_delivered(A, &held);
    let again = pair.world.nodes[A].core.stats().bytes_resent / 100;
    assert!(suspected(&pair, A, BEST).is_some() && again >= 1, "what was late was said again");
    assert!(again < held.len() as u64, "{again} of {}", held.len());
    assert_eq!(suspected(&pair, A, OTHER), None);
}
