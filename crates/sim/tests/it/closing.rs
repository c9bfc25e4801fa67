//! How conversations end when somebody wants them to.

use crate::pair::{A, B, Pair, net, ordered, pattern};
use bytes::Bytes;
use core::time::Duration;
use steadfast_session::{
    Config, DropReason, Endpoint, Event, OrderRequest, Ordering, Outcome, Recv, SendError, SessionConfig,
    SessionError,
};
use steadfast_sim::world::identity;
use steadfast_wire::frame::EndReason;
use steadfast_wire::{Labels, MessageId};

/// More than any of these tests needs.
const LONG: Duration = Duration::from_secs(120);

fn open(seed: u64) -> Pair {
    let networks = [net(1_000_000, 20), net(300_000, 60)];
    Pair::open(seed, &Config::default(), &networks, ordered(Ordering::Total))
}

fn close(pair: &mut Pair, host: usize, limit: Duration) {
    pair.on(host, |core, now, session| core.close(now, session, limit)).expect("it is open");
}

fn try_say(pair: &mut Pair, host: usize) -> Result<MessageId, SendError> {
    pair.try_send(host, Labels::foreground(), OrderRequest::Default, Bytes::from_static(b"more"))
}

#[track_caller]
fn until_closed(pair: &mut Pair) {
    pair.until("it has ended for both", |pair| pair.ended(A).is_some() && pair.ended(B).is_some());
    for host in [A, B] {
        assert_eq!(pair.ended(host).map(|(reason, _)| reason), Some(EndReason::Closed), "host {host}");
        assert!(!pair.knows(host));
        assert_eq!(try_say(pair, host), Err(SendError::Ended));
    }
}

#[test]
fn each_direction_is_shut_by_itself() {
    for first in [A, B] {
        let second = 1 - first;
        let mut pair = open(1 + first as u64);
        let mut ids =
            vec![pair.send(first, Labels::background(), OrderRequest::Default, pattern(1, 300_000))];
        ids.push(pair.say(first, "last words"));
        pair.on(first, Endpoint::finish).expect("it is open");
        assert_eq!(try_say(&mut pair, first), Err(SendError::Shut));
        pair.until("the other side hears of it", |pair| {
            pair.saw(second, |e| matches!(e, Event::PeerShut { closing: false, .. }))
        });
        pair.until_delivered(first, &ids);
        let end = pair.on(second, Endpoint::recv);
        assert_eq!(end, Ok(Recv::Finished), "all was taken");
        // The other direction goes on for as long as it likes.
        for round in 0..3 {
            pair.run(Duration::from_secs(100));
            let id = pair.say(second, &format!("{round}"));
            pair.until_delivered(second, &[id]);
        }
        assert_eq!((pair.ended(A), pair.ended(B)), (None, None));
        pair.on(second, Endpoint::finish).expect("it is open");
        until_closed(&mut pair);
        assert_eq!(pair.texts(first), ["0", "1", "2"]);
    }
}

#[test]
fn what_was_taken_late_is_still_taken_after_the_peer_shut() {
    let mut pair = open(3);
    pair.reads[B] = false;
    let ids = [pair.say(A, "one"), pair.say(A, "two")];
    pair.on(A, Endpoint::finish).expect("it is open");
    pair.on(B, Endpoint::finish).expect("it is open");
    pair.run(LONG);
    assert_eq!((pair.ended(A), pair.ended(B)), (None, None), "something was not taken");
    pair.reads[B] = true;
    pair.take(B);
    pair.until_delivered(A, &ids);
    until_closed(&mut pair);
    assert_eq!(pair.texts(B), ["one", "two"]);
}

#[test]
fn close_waits_until_everything_is_delivered() {
    for host in [A, B] {
        let mut pair = open(10 + host as u64);
        let mut ids: Vec<_> = (0..20).map(|n| pair.say(host, &format!("{n}"))).collect();
        ids.push(pair.send(host, Labels::background(), OrderRequest::Default, pattern(5, 500_000)));
        close(&mut pair, host, LONG);
        assert_eq!(try_say(&mut pair, host), Err(SendError::Shut));
        assert_eq!(pair.ended(host), None);
        until_closed(&mut pair);
        for id in &ids {
            assert_eq!(pair.outcome(host, *id), Some(Outcome::Delivered), "{id}");
        }
        assert_eq!(pair.ids(1 - host), (1..=21).collect::<Vec<u64>>());
    }
}

#[test]
fn close_waits_through_a_time_without_networks() {
    let mut pair = open(12);
    (0..2).for_each(|network| pair.set_up(A, network, false));
    let id = pair.say(A, "kept");
    close(&mut pair, A, LONG);
    pair.run(LONG / 2);
    assert_eq!(pair.ended(A), None);
    pair.set_up(A, 1, true);
    until_closed(&mut pair);
    assert_eq!(pair.outcome(A, id), Some(Outcome::Delivered));
    assert_eq!(pair.texts(B), ["kept"]);
}

#[test]
fn who_closes_takes_no_more_and_the_other_side_is_told_so() {
    let mut pair = open(13);
    pair.reads[A] = false;
    let waiting = pair.say(B, "not taken");
    pair.until("it has arrived", |pair| pair.saw(B, |event| matches!(event, Event::Acked { .. })));
    close(&mut pair, A, LONG);
    pair.until("B hears of it", |pair| {
        pair.saw(B, |event| matches!(event, Event::PeerShut { closing: true, .. }))
    });
    assert!(matches!(try_say(&mut pair, B), Err(SendError::PeerShut | SendError::Shut | SendError::Ended)));
    until_closed(&mut pair);
    assert_eq!(pair.outcome(B, waiting), Some(Outcome::Dropped(DropReason::Refused)));
    assert!(pair.taken[A].is_empty());
}

#[test]
fn both_may_close_at_once() {
    let mut pair = open(14);
    pair.reads = [false; 2];
    let ids = [pair.say(A, "a"), pair.say(B, "b")];
    close(&mut pair, A, LONG);
    close(&mut pair, B, LONG);
    until_closed(&mut pair);
    for host in [A, B] {
        assert_eq!(pair.outcome(host, ids[host]), Some(Outcome::Dropped(DropReason::Refused)));
    }
}

#[test]
fn a_close_that_takes_too_long_aborts() {
    let mut pair = open(15);
    pair.reads[B] = false;
    let id = pair.say(A, "never taken");
    pair.until("it has arrived", |pair| pair.saw(A, |event| matches!(event, Event::Acked { .. })));
    close(&mut pair, A, Duration::from_secs(40));
    pair.run(Duration::from_secs(39));
    assert_eq!((pair.ended(A), pair.ended(B)), (None, None));
    pair.until("it has ended for both", |pair| pair.ended(A).is_some() && pair.ended(B).is_some());
    for host in [A, B] {
        assert_eq!(pair.ended(host).map(|(reason, _)| reason), Some(EndReason::Aborted));
    }
    assert_eq!(pair.outcome(A, id), Some(Outcome::Unknown));
}

#[test]
fn abort_leaves_unknown_what_was_under_way() {
    let mut pair = open(16);
    pair.reads[B] = false;
    let taken = pair.say(A, "taken");
    pair.until("it has arrived", |pair| pair.saw(A, |event| matches!(event, Event::Acked { .. })));
    assert!(pair.recv(B).is_some());
    pair.until_delivered(A, &[taken]);
    let arrived = pair.say(A, "arrived");
    let big = pair.send(A, Labels::foreground(), OrderRequest::Default, pattern(3, 900_000));
    pair.run(Duration::from_millis(100));
    let backwards = pair.say(B, "on its way");
    pair.on(A, Endpoint::abort).expect("it is open");
    assert_eq!(pair.ended(A).map(|(reason, _)| reason), Some(EndReason::Aborted), "at once");
    assert_eq!(try_say(&mut pair, A), Err(SendError::Ended));
    for id in [arrived, big] {
        assert_eq!(pair.outcome(A, id), Some(Outcome::Unknown), "{id}");
    }
    assert_eq!(pair.outcome(A, taken), Some(Outcome::Delivered));
    pair.until("B is told", |pair| pair.ended(B).is_some());
    assert_eq!(pair.ended(B).map(|(reason, _)| reason), Some(EndReason::Aborted));
    assert_eq!(pair.outcome(B, backwards), Some(Outcome::Unknown));
    assert_eq!(try_say(&mut pair, B), Err(SendError::Ended));
    let again = pair.on(A, Endpoint::abort);
    assert_eq!(again, Err(SessionError::Ended));
}

#[test]
fn sends_fail_at_once_after_either_end_shut() {
    let mut pair = open(17);
    pair.reads = [false; 2];
    let held = pair.say(A, "holds the conversation open");
    let stream = pair.begin_stream(B, Labels::foreground(), OrderRequest::Default);
    pair.run(Duration::from_secs(1));
    close(&mut pair, A, LONG);
    assert_eq!(try_say(&mut pair, A), Err(SendError::Shut));
    let labels = Labels::background();
    let refused = pair.on(A, |core, now, s| core.begin(now, s, labels, OrderRequest::Unordered, None));
    assert_eq!(refused, Err(SendError::Shut));
    pair.until("B hears of it", |pair| pair.saw(B, |e| matches!(e, Event::PeerShut { closing: true, .. })));
    assert_eq!(try_say(&mut pair, B), Err(SendError::PeerShut), "B did not shut anything itself");
    pair.until("the stream is refused", |pair| pair.outcome(B, stream).is_some());
    assert_eq!(pair.outcome(B, stream), Some(Outcome::Dropped(DropReason::Refused)));
    let written = pair.on(B, |core, now, s| core.write(now, s, stream, Bytes::from_static(b"x")));
    assert_eq!(written, Err(SendError::NotOpen(stream)));
    pair.reads[B] = true;
    pair.take(B);
    until_closed(&mut pair);
    assert_eq!(pair.outcome(A, held), Some(Outcome::Delivered));
}

#[test]
fn who_leaves_says_why() {
    for host in [A, B] {
        let mut pair = open(20 + host as u64);
        let other = 1 - host;
        pair.reads = [false; 2];
        let ids = [pair.say(A, "a"), pair.say(B, "b")];
        pair.run(Duration::from_secs(1));
        pair.on(host, |core, now, _| core.leave(now, "shutting down for the night"));
        assert_eq!(pair.ended(host).map(|(reason, _)| reason), Some(EndReason::Left));
        pair.until("the other one is told", |pair| pair.ended(other).is_some());
        assert_eq!(pair.ended(other).map(|(reason, _)| reason), Some(EndReason::Left));
        let said = |event: &Event| {
            matches!(event, Event::PeerLeft { peer, reason }
                if *peer == identity(host) && reason == "shutting down for the night")
        };
        assert_eq!(pair.count(other, said), 1, "once, however many paths there are");
        for host in [A, B] {
            assert_eq!(pair.outcome(host, ids[host]), Some(Outcome::Unknown));
            assert!(pair.world.nodes[host].core.paths().is_empty() || host == other);
        }
        pair.run(LONG);
        assert!(pair.world.nodes[other].core.paths().is_empty(), "nobody is there");
    }
}

#[test]
fn a_closed_conversation_that_is_claimed_again_is_told_so() {
    let mut config = Config::default();
    config.durable = true;
    let networks = [net(1_000_000, 20)];
    let mut pair = Pair::open(30, &config, &networks, SessionConfig::default());
    let id = pair.say(A, "one");
    pair.until_delivered(A, &[id]);
    pair.run(Duration::from_secs(1));
    let before = pair.world.nodes[A].confirmed;
    close(&mut pair, A, LONG);
    until_closed(&mut pair);
    // A's process comes back from before the end.
    pair.events[A].clear();
    pair.restart(A, before);
    assert!(pair.knows(A));
    pair.until("it is told", |pair| pair.ended(A).is_some());
    assert_eq!(pair.ended(A).map(|(reason, _)| reason), Some(EndReason::Closed));
    assert_eq!(pair.count(B, |event| matches!(event, Event::Ended { .. })), 1);
    assert_eq!(pair.count(B, |event| matches!(event, Event::Incoming { .. })), 1, "it is not opened anew");
}

#[test]
fn an_end_that_went_into_a_hole_is_said_again_on_another_path() {
    let networks = [net(5_000_000, 1), net(500_000, 40)];
    let mut pair = Pair::open(90, &Config::default(), &networks, SessionConfig::default());
    // The quicker path carries control, and swallows it from now on.
    for host in [A, B] {
        pair.hole(host, 0, true, true);
    }
    pair.on(A, Endpoint::abort).expect("it was open");
    pair.until("the other side learns of the end", |pair| pair.ended(B).is_some());
    assert_eq!(pair.ended(B).map(|(reason, _)| reason), Some(EndReason::Aborted));
    assert_eq!(pair.parked(B), 0, "one network worked all the time");
}
