//! Hosts that lose each other and find back: the seven steps of the scenario in seed 000, and who is told when.

use crate::pair::{A, B, Pair, net};
use core::time::Duration;
use steadfast_session::{Config, DownReason, Event, Outcome, SessionConfig};
use steadfast_sim::world::Attachment;
use steadfast_wire::MessageId;
use steadfast_wire::frame::EndReason;

fn networks() -> [Attachment; 2] {
    [net(1_000_000, 10), net(500_000, 40)]
}

fn talking(seed: u64, networks: &[Attachment]) -> Pair {
    let mut pair = Pair::open(seed, &Config::default(), networks, SessionConfig::default());
    let ids = [pair.say(A, "hello from A")];
    pair.until_delivered(A, &ids);
    let ids = [pair.say(B, "hello from B")];
    pair.until_delivered(B, &ids);
    pair
}

/// Each side says something; it arrives once and in order after all that was said before.
#[track_caller]
fn still_talking(pair: &mut Pair, before: [&[MessageId]; 2]) {
    let last = [pair.say(A, "last from A"), pair.say(B, "last from B")];
    for host in [A, B] {
        pair.until_delivered(host, before[host]);
        pair.until_delivered(host, &[last[host]]);
        let ids = pair.ids(1 - host);
        assert_eq!(ids, (1..=last[host].0).collect::<Vec<u64>>(), "each once, in order");
    }
    for host in [A, B] {
        assert_eq!(pair.ended(host), None);
    }
}

fn set_all(pair: &mut Pair, host: usize, up: bool) {
    for network in 0..pair.world.nodes[host].attachments.len() {
        pair.set_up(host, network, up);
    }
}

#[test]
fn step_1_two_hosts_talk() {
    let mut pair = talking(1, &networks());
    still_talking(&mut pair, [&[], &[]]);
    assert_eq!(pair.parked(A) + pair.parked(B), 0);
}

#[test]
fn step_2_the_last_network_of_a_host_goes() {
    let mut pair = talking(2, &networks());
    pair.set_up(A, 0, false);
    pair.run(Duration::from_secs(10));
    assert_eq!(pair.parked(A), 0, "one is left");
    pair.set_up(A, 1, false);
    assert_eq!(pair.parked(A), 1, "it knows at once");
    let gone = |e: &Event| matches!(e, Event::PathDown(_, DownReason::LocalNetwork | DownReason::Carrier));
    assert!(pair.saw(A, gone));
    pair.until("B has noticed", |pair| pair.parked(B) == 1);
    // B tries in vain for long, and both still take what is to be sent.
    let ids = [pair.say(A, "kept by A"), pair.say(B, "kept by B")];
    pair.run(Duration::from_secs(3600));
    assert_eq!((pair.outcome(A, ids[A]), pair.outcome(B, ids[B])), (None, None));
    assert_eq!((pair.ended(A), pair.ended(B)), (None, None));
    pair.set_up(A, 0, true);
    pair.until("both go on", |pair| pair.resumed(A) == 1 && pair.resumed(B) == 1);
    still_talking(&mut pair, [&ids[..1], &ids[1..]]);
}

#[test]
fn step_3_a_host_that_finds_a_network_connects_to_the_address_it_knows() {
    let mut pair = talking(3, &networks());
    set_all(&mut pair, A, false);
    pair.until_parked();
    let ids = [pair.say(A, "kept by A"), pair.say(B, "kept by B")];
    // A comes back elsewhere: B cannot know where, so A has to find B.
    pair.world.nodes[A].attachments[0].generation += 7;
    pair.set_up(A, 0, true);
    pair.until("both go on", |pair| pair.resumed(A) == 1 && pair.resumed(B) == 1);
    still_talking(&mut pair, [&ids[..1], &ids[1..]]);
}

#[test]
fn step_4_where_that_fails_it_tries_the_other_addresses() {
    for alive in [0, 1] {
        let mut pair = talking(4, &networks());
        set_all(&mut pair, A, false);
        pair.until_parked();
        // One of B's networks swallows everything; nobody tells A.
        pair.hole(B, 1 - alive, true, true);
        pair.world.nodes[A].attachments.iter_mut().for_each(|a| a.generation += 3);
        set_all(&mut pair, A, true);
        pair.until("both go on", |pair| pair.resumed(A) == 1 && pair.resumed(B) == 1);
        still_talking(&mut pair, [&[], &[]]);
        assert!(pair.world.nodes[A].core.paths().iter().all(|path| path.local.0 == alive as u32 + 1));
    }
}

#[test]
fn step_5_who_reaches_nobody_waits_and_is_found() {
    let mut pair = talking(5, &networks());
    set_all(&mut pair, A, false);
    pair.until_parked();
    set_all(&mut pair, B, false);
    set_all(&mut pair, A, true);
    pair.run(Duration::from_secs(1800));
    assert_eq!((pair.resumed(A), pair.ended(A)), (0, None), "it waits");
    // B comes back at other addresses: A cannot find it, but has not moved itself.
    pair.world.nodes[B].attachments.iter_mut().for_each(|a| a.generation += 1);
    set_all(&mut pair, B, true);
    pair.until("both go on", |pair| pair.resumed(A) == 1 && pair.resumed(B) == 1);
    still_talking(&mut pair, [&[], &[]]);
}

/// Both sides lose everything at once; `first` comes back long before the other, and `moved` somewhere else.
fn deadlock(seed: u64, first: usize, moved: usize) {
    let mut pair = talking(seed, &networks());
    set_all(&mut pair, A, false);
    set_all(&mut pair, B, false);
    assert_eq!((pair.parked(A), pair.parked(B)), (1, 1));
    let ids = [pair.say(A, "kept by A"), pair.say(B, "kept by B")];
    pair.run(Duration::from_secs(900));
    pair.world.nodes[moved].attachments.iter_mut().for_each(|a| a.generation += 1);
    set_all(&mut pair, first, true);
    pair.run(Duration::from_secs(900));
    assert_eq!((pair.resumed(A), pair.resumed(B)), (0, 0), "nobody is there to talk to");
    // Only one of its networks comes back to the other.
    pair.set_up(1 - first, 1, true);
    pair.until("both go on", |pair| pair.resumed(A) == 1 && pair.resumed(B) == 1);
    still_talking(&mut pair, [&ids[..1], &ids[1..]]);
}

#[test]
fn step_6_two_hosts_that_forgot_each_other_find_back_from_either_side() {
    for (seed, (first, moved)) in [(A, A), (A, B), (B, A), (B, B)].into_iter().enumerate() {
        deadlock(60 + seed as u64, first, moved);
    }
}

#[test]
fn step_7_the_list_after_reconnecting_replaces_the_remembered_one() {
    let mut pair = talking(7, &networks());
    set_all(&mut pair, B, false);
    pair.until_parked();
    // B moves on both networks; it finds A, and says where it is now.
    pair.world.nodes[B].attachments.iter_mut().for_each(|a| a.generation += 1);
    set_all(&mut pair, B, true);
    pair.until("both go on", |pair| pair.resumed(A) == 1 && pair.resumed(B) == 1);
    still_talking(&mut pair, [&[], &[]]);
    // Now A moves: it has only the new list to find B by, and B cannot find A.
    set_all(&mut pair, A, false);
    pair.until("both have noticed", |pair| pair.parked(A) == 2 && pair.parked(B) == 2);
    pair.world.nodes[A].attachments.iter_mut().for_each(|a| a.generation += 1);
    set_all(&mut pair, A, true);
    pair.until("both go on", |pair| pair.resumed(A) == 2 && pair.resumed(B) == 2);
    still_talking(&mut pair, [&[], &[]]);
    let remote = pair.world.address(B, 0).ip();
    assert!(pair.world.nodes[A].core.paths().iter().any(|path| path.remote.ip() == remote));
}

#[test]
fn step_7_a_limit_of_its_own_ends_waiting() {
    let limit = Duration::from_secs(300);
    let mut config = SessionConfig::default();
    config.park_limit = Some(limit);
    let mut pair = Pair::open(8, &Config::default(), &networks(), config);
    // A short absence is no end.
    set_all(&mut pair, A, false);
    pair.run(limit * 9 / 10);
    set_all(&mut pair, A, true);
    pair.until("both go on", |pair| pair.resumed(A) == 1 && pair.resumed(B) == 1);
    pair.run(limit * 2);
    assert_eq!(pair.ended(A), None, "the limit is for one absence");
    set_all(&mut pair, A, false);
    let id = pair.say(A, "never");
    pair.run(limit * 99 / 100);
    assert_eq!(pair.ended(A), None);
    pair.until("A gives up", |pair| pair.ended(A).is_some());
    assert_eq!(pair.ended(A), Some((EndReason::Forgotten, None)));
    assert!(matches!(pair.outcome(A, id), Some(Outcome::Unknown | Outcome::Dropped(_))));
    // The other side has no limit; it learns when they meet again.
    assert_eq!(pair.ended(B), None);
    set_all(&mut pair, A, true);
    pair.until("B hears of it", |pair| pair.ended(B).is_some());
    assert!(matches!(pair.ended(B), Some((EndReason::Forgotten, _))), "{:?}", pair.ended(B));
}

#[test]
fn the_application_is_told_at_once_after_a_time_or_never() {
    let wait = Duration::from_secs(20);
    for notice in [Some(Duration::ZERO), Some(wait), None] {
        let mut config = SessionConfig::default();
        config.park_notice = notice;
        let mut pair = Pair::open(9, &Config::default(), &networks(), config);
        let away = |pair: &mut Pair, time: Duration| {
            set_all(pair, A, false);
            pair.run(time);
        };
        let back = |pair: &mut Pair| {
            set_all(pair, A, true);
            let id = pair.say(A, "back");
            pair.until_delivered(A, &[id]);
        };
        // Shorter than the wait, then longer.
        away(&mut pair, wait / 2);
        let told_soon = usize::from(notice == Some(Duration::ZERO));
        assert_eq!(pair.parked(A), told_soon, "{notice:?}");
        back(&mut pair);
        assert_eq!(pair.resumed(A), told_soon, "resumed is told to who was told of parking: {notice:?}");
        away(&mut pair, wait * 2);
        let told = told_soon + usize::from(notice.is_some());
        assert_eq!(pair.parked(A), told, "{notice:?}");
        back(&mut pair);
        assert_eq!(pair.resumed(A), told, "{notice:?}");
        assert_eq!(pair.texts(B), ["back", "back"]);
    }
}

#[test]
fn without_any_network_sends_are_accepted_and_arrive_once() {
    let mut pair = talking(10, &networks());
    set_all(&mut pair, A, false);
    pair.until_parked();
    let from_a: Vec<_> = (0..50).map(|n| pair.say(A, &format!("a{n}"))).collect();
    let from_b: Vec<_> = (0..50).map(|n| pair.say(B, &format!("b{n}"))).collect();
    pair.run(Duration::from_secs(60));
    assert!(from_a.iter().all(|id| pair.outcome(A, *id).is_none()));
    set_all(&mut pair, A, true);
    still_talking(&mut pair, [&from_a, &from_b]);
    for host in [A, B] {
        assert_eq!((pair.parked(host), pair.resumed(host)), (1, 1));
        let (parked, resumed) = (
            pair.when(host, |e| matches!(e, Event::Parked { .. })),
            pair.when(host, |e| matches!(e, Event::Resumed { .. })),
        );
        assert!(parked < resumed);
    }
}
