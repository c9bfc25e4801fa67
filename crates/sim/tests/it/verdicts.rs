//! What is known of a peer that does not answer, and of one that does.

use crate::pair::{A, B, Pair, net, pattern};
use core::time::Duration;
use steadfast_session::{Config, Event, Evidence, Judgement, OrderRequest, SessionConfig, Verdict};
use steadfast_sim::world::{Attachment, Life};
use steadfast_wire::{Incarnation, Instant, Labels};

const SECOND: Duration = Duration::from_secs(1);

fn open(seed: u64, networks: &[Attachment]) -> Pair {
    let mut pair = Pair::open(seed, &Config::default(), networks, SessionConfig::default());
    for host in [A, B] {
        let id = pair.say(host, "first");
        pair.until_delivered(host, &[id]);
    }
    // The phase of the heartbeat is the seed's.
    pair.run(Duration::from_millis(2000 + seed * 137 % 1000));
    assert_eq!(verdicts(&pair, A), [Verdict::Alive]);
    assert_eq!(verdicts(&pair, B), [Verdict::Alive]);
    pair
}

fn judgements(pair: &Pair, host: usize) -> Vec<(Incarnation, Judgement)> {
    let of = |(_, event): &(Instant, Event)| match event {
        Event::Verdict { incarnation, judgement, .. } => Some((incarnation.unwrap(), judgement.clone())),
        _ => None,
    };
    pair.events[host].iter().filter_map(of).collect()
}

fn verdicts(pair: &Pair, host: usize) -> Vec<Verdict> {
    judgements(pair, host).into_iter().map(|(_, judgement)| judgement.verdict).collect()
}

/// Runs until a host has this verdict on the other, which is to come within `limit`; returns when it did.
#[track_caller]
fn until(pair: &mut Pair, host: usize, verdict: Verdict, limit: Duration) -> Duration {
    let start = pair.world.now;
    pair.until(&format!("{verdict:?} at {host}"), |pair| verdicts(pair, host).last() == Some(&verdict));
    let took = pair.world.now.since(start);
    assert!(took <= limit, "{verdict:?} took {took:?}");
    took
}

fn two() -> [Attachment; 2] {
    [net(2_000_000, 20), net(500_000, 60)]
}

fn cut(pair: &mut Pair, cut: bool) {
    for network in 0..pair.world.nodes[A].attachments.len() {
        pair.hole(A, network, cut, cut);
    }
}

#[track_caller]
fn still_converses(pair: &mut Pair) {
    for host in [A, B] {
        let id = pair.say(host, "still there");
        pair.until_delivered(host, &[id]);
    }
    assert_eq!((pair.ended(A), pair.ended(B)), (None, None));
}

#[test]
fn a_process_that_is_killed_has_crashed_and_its_successor_is_another_one() {
    for seed in 0..8 {
        let mut pair = open(seed, &two());
        pair.world.kill(B);
        until(&mut pair, A, Verdict::Crashed, Duration::from_millis(300));
        let (before, judgement) = judgements(&pair, A).last().unwrap().clone();
        assert!(matches!(judgement.evidence, Evidence::Refused(_)), "{judgement:?}");
        pair.run(10 * SECOND);
        assert_eq!(verdicts(&pair, A), [Verdict::Alive, Verdict::Crashed]);
        pair.restart(B, 0);
        pair.until("the new process is met", |pair| verdicts(pair, A).len() > 3);
        let after = judgements(&pair, A);
        assert_eq!(verdicts(&pair, A)[2..], [Verdict::Restarted, Verdict::Alive]);
        assert_eq!(after[2].0, before);
        assert_ne!(after[3].0, before);
        assert_eq!(after[2].1.evidence, Evidence::NewProcess(after[3].0));
        // That another process lives says nothing about a conversation that died with its predecessor.
        let concerned = |event: &Event| {
            let Event::Verdict { judgement, sessions, .. } = event else { return false };
            judgement.verdict == Verdict::Alive && sessions.contains(&pair.session)
        };
        assert_eq!(pair.count(A, concerned), 1);
    }
}

#[test]
fn a_process_that_is_stopped_hangs_until_it_goes_on() {
    for (seed, busy) in [(0, false), (1, false), (2, true), (3, true)] {
        let mut pair = open(seed, &two());
        if busy {
            let _ = pair.send(A, Labels::background(), OrderRequest::Default, pattern(seed, 900_000));
            pair.run(Duration::from_millis(50));
        }
        pair.world.stop(B);
        until(&mut pair, A, Verdict::Hung, Config::default().verdict_after + Duration::from_millis(500));
        assert_eq!(judgements(&pair, A).last().unwrap().1.evidence, Evidence::Unanswered);
        // Its connections are given up meanwhile, and new ones are taken by its kernel and left mute.
        pair.run(40 * SECOND);
        assert_eq!(verdicts(&pair, A), [Verdict::Alive, Verdict::Hung]);
        pair.world.resume(B);
        until(&mut pair, A, Verdict::Alive, 15 * SECOND);
        still_converses(&mut pair);
        assert_eq!(pair.world.nodes[A].core.stats().verdicts_revoked, 1);
    }
}

/// What was not said because this process stood still is owed by nobody.
#[test]
fn who_stood_still_itself_takes_nobody_for_hung() {
    for delay in 0..12 {
        let mut pair = open(delay, &two());
        pair.world.kill(B);
        pair.restart(B, 0);
        // Its kernel takes new connections about now; what follows on them needs both processes.
        pair.run(Duration::from_millis(delay * 20));
        pair.world.stop(A);
        pair.run(2 * SECOND);
        pair.world.resume_late(A);
        pair.run(10 * SECOND);
        assert!(!verdicts(&pair, A).contains(&Verdict::Hung), "{delay}: {:?}", judgements(&pair, A));
        assert_eq!(verdicts(&pair, A).last(), Some(&Verdict::Alive), "{delay}");
    }
}

#[test]
fn a_process_that_is_stopped_and_then_killed_has_crashed() {
    let mut pair = open(5, &two());
    pair.world.stop(B);
    until(&mut pair, A, Verdict::Hung, 4 * SECOND);
    pair.run(20 * SECOND);
    pair.world.kill(B);
    until(&mut pair, A, Verdict::Crashed, 12 * SECOND);
}

#[test]
fn a_cut_is_no_death_and_is_taken_back_when_the_cable_is() {
    for (seed, seconds) in [(0, 1), (1, 2), (2, 4), (3, 20)] {
        let mut pair = open(seed, &two());
        cut(&mut pair, true);
        let begin = pair.world.now;
        for host in [A, B] {
            until(&mut pair, host, Verdict::Unreachable, 2 * SECOND);
            assert_eq!(judgements(&pair, host).last().unwrap().1.evidence, Evidence::Silence);
        }
        let rest = Duration::from_secs(seconds).saturating_sub(pair.world.now.since(begin));
        pair.run(rest);
        cut(&mut pair, false);
        for host in [A, B] {
            until(&mut pair, host, Verdict::Alive, 15 * SECOND);
            assert_eq!(verdicts(&pair, host), [Verdict::Alive, Verdict::Unreachable, Verdict::Alive]);
        }
        still_converses(&mut pair);
    }
}

#[test]
fn what_is_received_on_one_network_counts_for_all() {
    let mut pair = open(1, &two());
    pair.hole(A, 0, true, true);
    pair.run(30 * SECOND);
    assert_eq!((verdicts(&pair, A).len(), verdicts(&pair, B).len()), (1, 1));
    pair.hole(A, 0, false, false);
    // A hears the other side, which does not hear A.
    let mut pair = open(2, &[net(2_000_000, 20)]);
    pair.hole(A, 0, true, false);
    until(&mut pair, B, Verdict::Unreachable, 2 * SECOND);
    assert_eq!(verdicts(&pair, A), [Verdict::Alive]);
}

#[test]
fn who_is_killed_behind_a_cut_has_crashed_when_the_cable_is_back() {
    for seed in 0..4 {
        let mut pair = open(seed, &two());
        cut(&mut pair, true);
        pair.run(Duration::from_millis(seed * 600));
        pair.world.kill(B);
        until(&mut pair, A, Verdict::Unreachable, 2 * SECOND);
        pair.run(15 * SECOND);
        assert_eq!(verdicts(&pair, A), [Verdict::Alive, Verdict::Unreachable]);
        cut(&mut pair, false);
        until(&mut pair, A, Verdict::Crashed, 12 * SECOND);
        // And where a new one has taken its place, that answers.
        pair.restart(B, 0);
        pair.until("restarted", |pair| verdicts(pair, A).contains(&Verdict::Restarted));
    }
}

#[test]
fn the_last_words_of_a_dead_process_do_not_bring_it_back() {
    for seed in 0..8 {
        let mut pair = open(seed, &two());
        cut(&mut pair, true);
        // Its kernel has them, and goes on sending them.
        let _last = pair.say(B, "I am well");
        pair.run(Duration::from_millis(50));
        pair.world.kill(B);
        until(&mut pair, A, Verdict::Unreachable, 2 * SECOND);
        cut(&mut pair, false);
        until(&mut pair, A, Verdict::Crashed, 12 * SECOND);
        assert_eq!(verdicts(&pair, A), [Verdict::Alive, Verdict::Unreachable, Verdict::Crashed], "{seed}");
    }
}

#[test]
fn a_restart_behind_a_cut_is_known_when_the_cable_is_back() {
    let mut pair = open(6, &two());
    cut(&mut pair, true);
    pair.restart(B, 0);
    until(&mut pair, A, Verdict::Unreachable, 2 * SECOND);
    cut(&mut pair, false);
    pair.until("restarted", |pair| verdicts(pair, A).contains(&Verdict::Restarted));
    assert!(!verdicts(&pair, A).contains(&Verdict::Crashed));
}

#[test]
fn a_farewell_is_no_crash() {
    let mut pair = open(1, &two());
    pair.on(B, |core, now, _| core.leave(now, "good night"));
    until(&mut pair, A, Verdict::Left, SECOND);
    let words = Evidence::Farewell("good night".into());
    assert_eq!(judgements(&pair, A).last().unwrap().1.evidence, words);
    pair.world.kill(B);
    pair.run(20 * SECOND);
    assert_eq!(verdicts(&pair, A), [Verdict::Alive, Verdict::Left]);
}

#[test]
fn without_a_network_of_our_own_nothing_is_said_of_the_peer() {
    let mut pair = open(1, &two());
    pair.set_up(A, 0, false);
    assert_eq!(verdicts(&pair, A), [Verdict::Alive]);
    pair.set_up(A, 1, false);
    assert_eq!(verdicts(&pair, A), [Verdict::Alive, Verdict::NoLocalNetwork]);
    pair.run(60 * SECOND);
    assert_eq!(verdicts(&pair, A).len(), 2);
    until(&mut pair, B, Verdict::Unreachable, SECOND);
    pair.set_up(A, 0, true);
    assert_eq!(verdicts(&pair, A)[2..], [Verdict::Unknown]);
    until(&mut pair, A, Verdict::Alive, 10 * SECOND);
    still_converses(&mut pair);
    assert_eq!(verdicts(&pair, A).len(), 4);
}

#[test]
fn a_reader_that_does_not_read_is_alive() {
    let mut pair = open(1, &two());
    pair.reads[B] = false;
    for number in 0..30 {
        let _full = pair.try_send(A, Labels::background(), OrderRequest::Default, pattern(number, 900_000));
    }
    pair.run(3600 * SECOND);
    assert_eq!((verdicts(&pair, A).len(), verdicts(&pair, B).len()), (1, 1));
}

#[test]
fn a_saturated_link_is_alive_for_an_hour() {
    // Slow, far, lossy, and full in both directions all the time.
    let mut link = net(60_000, 120);
    (link.loss, link.jitter) = (10, Duration::from_millis(20));
    let mut pair = open(3, &[link]);
    let end = pair.world.now + 3600 * SECOND;
    let mut number = 0;
    while pair.world.now < end {
        for host in [A, B] {
            number += 1;
            let labels = if number % 3 == 0 { Labels::foreground() } else { Labels::background() };
            let _full = pair.try_send(host, labels, OrderRequest::Default, pattern(number, 100_000));
        }
        pair.run(2 * SECOND);
        // What was told is not what is asked here, and would fill the memory.
        for events in &mut pair.events {
            events.retain(|(_, event)| matches!(event, Event::Verdict { .. }));
        }
        pair.taken.iter_mut().for_each(Vec::clear);
    }
    assert_eq!((verdicts(&pair, A), verdicts(&pair, B)), (vec![Verdict::Alive], vec![Verdict::Alive]));
}

/// A process that says that it is about to be frozen, and is.
fn suspend(pair: &mut Pair, host: usize, limit: Duration) {
    pair.on(host, |core, now, _| core.suspend(now, limit));
    pair.run(Duration::from_millis(500));
    pair.world.freeze(host);
}

#[test]
fn who_said_that_it_is_frozen_is_not_taken_for_dead() {
    for seed in 0..8 {
        let mut pair = open(seed, &two());
        let under_way = pair.send(A, Labels::background(), OrderRequest::Default, pattern(seed, 900_000));
        pair.run(Duration::from_millis(seed * 40));
        suspend(&mut pair, B, 60 * SECOND);
        assert_eq!(verdicts(&pair, A), [Verdict::Alive, Verdict::Suspended]);
        let limit = Evidence::Suspended(60 * SECOND);
        assert_eq!(judgements(&pair, A).last().unwrap().1.evidence, limit);
        pair.run(50 * SECOND);
        assert_eq!(verdicts(&pair, A).len(), 2, "nothing is said within its limit");
        pair.world.thaw(B);
        until(&mut pair, A, Verdict::Alive, 6 * SECOND);
        pair.until_delivered(A, &[under_way]);
        still_converses(&mut pair);
        pair.run(60 * SECOND);
        assert_eq!(verdicts(&pair, A), [Verdict::Alive, Verdict::Suspended, Verdict::Alive]);
        // And once more: that counts as another one.
        suspend(&mut pair, B, 60 * SECOND);
        assert_eq!(verdicts(&pair, A).last(), Some(&Verdict::Suspended));
    }
}

#[test]
fn after_the_limit_that_it_said_silence_is_judged_as_usual() {
    // It is gone.
    let mut pair = open(1, &two());
    suspend(&mut pair, B, 20 * SECOND);
    pair.world.kill(B);
    pair.run(19 * SECOND);
    assert_eq!(verdicts(&pair, A), [Verdict::Alive, Verdict::Suspended]);
    until(&mut pair, A, Verdict::Crashed, SECOND);
    assert!(matches!(judgements(&pair, A).last().unwrap().1.evidence, Evidence::Refused(_)));
    assert_eq!(verdicts(&pair, A).len(), 3);
    // It is cut off.
    let mut pair = open(2, &two());
    suspend(&mut pair, B, 20 * SECOND);
    cut(&mut pair, true);
    pair.run(19 * SECOND);
    assert_eq!(verdicts(&pair, A).len(), 2);
    until(&mut pair, A, Verdict::Unreachable, 3 * SECOND);
    // It says more than it is allowed.
    let mut pair = open(3, &two());
    suspend(&mut pair, B, 10_000 * SECOND);
    pair.run(Config::default().max_suspension.saturating_sub(SECOND));
    assert_eq!(verdicts(&pair, A).len(), 2);
    until(&mut pair, A, Verdict::Crashed, 2 * SECOND);
}

#[test]
fn a_farewell_for_a_while_that_is_lost_on_one_network_comes_by_another() {
    let mut pair = open(4, &two());
    pair.hole(B, 0, true, true);
    suspend(&mut pair, B, 60 * SECOND);
    pair.run(30 * SECOND);
    assert_eq!(verdicts(&pair, A), [Verdict::Alive, Verdict::Suspended]);
    pair.hole(B, 0, false, false);
    pair.world.thaw(B);
    until(&mut pair, A, Verdict::Alive, 10 * SECOND);
    still_converses(&mut pair);
}

#[test]
fn another_process_in_the_place_of_a_frozen_one_is_another_one() {
    let mut pair = open(5, &two());
    suspend(&mut pair, B, 60 * SECOND);
    pair.restart(B, 0);
    pair.until("restarted", |pair| verdicts(pair, A).contains(&Verdict::Restarted));
    assert!(!verdicts(&pair, A).contains(&Verdict::Crashed));
}

/// Both processes are given a processor late now and then, one of them reads slowly, and the link is always full.
fn under_load(seed: u64, time: Duration) {
    let mut link = net(250_000, 60);
    (link.loss, link.jitter) = (5, Duration::from_millis(10));
    let mut pair = open(seed, &[link, net(60_000, 120)]);
    pair.reads[B] = false;
    let end = pair.world.now + time;
    let mut number = 0;
    while pair.world.now < end {
        for host in [A, B] {
            number += 1;
            let labels = if number % 3 == 0 { Labels::foreground() } else { Labels::background() };
            let _full = pair.try_send(host, labels, OrderRequest::Default, pattern(number, 100_000));
        }
        if pair.world.rng.range(0, 3) == 0 {
            pair.recv(B);
        }
        let host = [A, B][pair.world.rng.range(0, 2) as usize];
        // Most often 200 ms, sometimes up to a second.
        let most = if pair.world.rng.range(0, 8) == 0 { 1000 } else { 200 };
        let late = Duration::from_millis(pair.world.rng.range(1, most));
        pair.world.stop(host);
        pair.run(late);
        pair.world.resume_late(host);
        let pause = Duration::from_millis(pair.world.rng.range(10, 1000));
        pair.run(pause);
        for events in &mut pair.events {
            events.retain(|(_, event)| matches!(event, Event::Verdict { .. }));
        }
        pair.taken.iter_mut().for_each(Vec::clear);
    }
    for host in [A, B] {
        assert_eq!(verdicts(&pair, host), [Verdict::Alive], "seed {seed}: {:#?}", judgements(&pair, host));
    }
    assert!(pair.world.nodes[A].core.stats().suspicions > 0, "there was no trouble at all");
}

#[test]
fn load_gives_no_verdict() {
    // An hour each in the soak.
    let seconds = std::env::var("STEADFAST_LOAD_SECONDS").ok().and_then(|text| text.parse().ok());
    for seed in 0..4 {
        under_load(seed, Duration::from_secs(seconds.unwrap_or(120)));
    }
}

#[test]
fn who_was_never_reached_did_not_crash() {
    let mut pair = Pair::begin(1, &Config::default(), &two(), SessionConfig::default());
    pair.world.nodes[B].life = Life::Dead;
    pair.run(10 * SECOND);
    let last = |pair: &Pair| {
        let of = |(_, event): &(Instant, Event)| match event {
            Event::Verdict { judgement, .. } => Some(judgement.clone()),
            _ => None,
        };
        pair.events[A].iter().filter_map(of).next_back().unwrap()
    };
    assert_eq!(last(&pair).verdict, Verdict::Unreachable);
    assert!(matches!(last(&pair).evidence, Evidence::NobodyListens(_)));
    pair.restart(B, 0);
    pair.until("it is reached", |pair| last(pair).verdict == Verdict::Alive);
}
