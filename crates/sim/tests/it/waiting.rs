//! When no network fits: wait, fail at once, fail after a time, or be told when one fits; each with the network absent,
//! appearing and vanishing. And messages that expire.

use crate::pair::{A, B, Pair, after, net, pattern};
use bytes::Bytes;
use core::time::Duration;
use steadfast_session::{
    Config, Deferral, DeferralId, DropReason, Event, OrderRequest, Outcome, Patience, SendError, SendOptions,
    SessionConfig,
};
use steadfast_wire::{Labels, MessageId, Rule, Selector};

const SECOND: Duration = Duration::from_secs(1);

/// Two networks; the labels below may use the second only.
fn two(seed: u64) -> Pair {
    let networks = [net(1_000_000, 20), net(500_000, 60)];
    Pair::open(seed, &Config::default(), &networks, SessionConfig::default())
}

fn picky() -> Labels {
    Labels::foreground().rule(Rule::default().require(Selector::Name("net1".into())))
}

fn set_timeout(pair: &mut Pair, labels: &Labels, timeout: Option<Duration>) {
    pair.on(A, |core, _, session| core.set_failure_timeout(session, labels, timeout)).unwrap();
}

fn send(pair: &mut Pair, options: impl Into<SendOptions>) -> Result<MessageId, SendError> {
    let options = options.into();
    pair.on(A, |core, now, session| core.send(now, session, picky(), options, Bytes::from_static(b"picky")))
}

fn defer(pair: &mut Pair, labels: Labels, limit: Option<Duration>) -> DeferralId {
    pair.on(A, |core, now, session| core.defer(now, session, labels, limit)).unwrap()
}

fn check(pair: &mut Pair, id: DeferralId) -> Deferral {
    pair.on(A, |core, now, session| core.check_deferral(now, session, id)).unwrap()
}

fn suitable(pair: &Pair) -> usize {
    pair.count(A, |event| matches!(event, Event::Suitable { .. }))
}

fn writable(pair: &Pair) -> usize {
    pair.count(A, |event| matches!(event, Event::Writable { .. }))
}

fn dropped(reason: DropReason) -> Outcome {
    Outcome::Dropped(reason)
}

// ----- the failure timeout -------------------------------------------------------------------------------------------

#[test]
fn by_default_a_message_waits_for_ever() {
    let mut pair = two(1);
    pair.set_up(A, 1, false);
    let id = send(&mut pair, OrderRequest::Default).unwrap();
    pair.run(Duration::from_secs(3600));
    assert_eq!(pair.outcome(A, id), None);
    pair.set_up(A, 1, true);
    pair.until_delivered(A, &[id]);
}

#[test]
fn the_timeout_belongs_to_exact_labels_and_can_be_taken_back() {
    let mut pair = two(2);
    let get = |pair: &mut Pair, labels: &Labels| {
        pair.on(A, |core, _, session| core.failure_timeout(session, labels)).unwrap()
    };
    assert_eq!(get(&mut pair, &picky()), None);
    set_timeout(&mut pair, &picky(), Some(SECOND));
    assert_eq!(get(&mut pair, &picky()), Some(SECOND));
    assert_eq!(get(&mut pair, &picky().small()), None, "other labels, though they may use the same networks");
    set_timeout(&mut pair, &picky(), None);
    pair.set_up(A, 1, false);
    let id = send(&mut pair, OrderRequest::Default).expect("it waits again");
    pair.set_up(A, 1, true);
    pair.until_delivered(A, &[id]);
}

#[test]
fn with_timeout_zero_a_send_fails_at_once_and_says_what_would_help() {
    let mut pair = two(3);
    set_timeout(&mut pair, &picky(), Some(Duration::ZERO));
    let before = send(&mut pair, OrderRequest::Default).expect("there is a network");
    pair.until_delivered(A, &[before]);
    pair.set_up(A, 1, false);
    let error = send(&mut pair, OrderRequest::Default).unwrap_err();
    assert_eq!(error, SendError::NoNetwork { labels: Box::new(picky()), timeout: Duration::ZERO });
    let text = error.to_string();
    for part in ["foreground", "require \"net1\"", "send_or_defer", "set_failure_timeout"] {
        assert!(text.contains(part), "{text}");
    }
    // Others are not concerned, and nothing of the refused one comes.
    let other = pair.say(A, "other");
    pair.until_delivered(A, &[other]);
    pair.set_up(A, 1, true);
    pair.until("there is a path again", |pair| pair.world.nodes[A].core.paths().len() == 2);
    let again = send(&mut pair, OrderRequest::Default).expect("it is back");
    pair.until_delivered(A, &[again]);
    assert_eq!(pair.texts(B), ["picky", "other", "picky"]);
}

#[test]
fn what_was_accepted_and_loses_its_network_before_it_left_is_surely_dropped() {
    let mut pair = two(4);
    set_timeout(&mut pair, &picky(), Some(5 * SECOND));
    // Nothing gets through, so the window of a path that carries much is soon full and the rest stays here.
    pair.hole(A, 1, true, true);
    let big = pattern(1, 900_000);
    let first = pair.on(A, |core, now, s| core.send(now, s, picky(), OrderRequest::Unordered, big)).unwrap();
    let second = send(&mut pair, OrderRequest::Unordered).unwrap();
    let dependent = pair.send(A, Labels::foreground(), after(&[second]), Bytes::from_static(b"dependent"));
    pair.set_up(A, 1, false);
    let gone = pair.world.now;
    pair.run(4 * SECOND);
    assert_eq!((pair.outcome(A, first), pair.outcome(A, second)), (None, None), "there is time left");
    pair.until("both are given up", |pair| {
        pair.outcome(A, first).is_some() && pair.outcome(A, second).is_some()
    });
    assert_eq!(pair.world.now.since(gone).as_secs(), 5);
    assert_eq!(pair.outcome(A, second), Some(dropped(DropReason::NoNetwork)));
    assert_eq!(pair.outcome(A, dependent), Some(dropped(DropReason::Dependency)));
    // Part of the first one may have been at the peer, which was asked over the other network.
    assert_eq!(pair.outcome(A, first), Some(dropped(DropReason::NoNetwork)));
    let last = pair.say(A, "last");
    pair.until_delivered(A, &[last]);
    assert_eq!(pair.texts(B), ["last"]);
}

#[test]
fn a_network_that_comes_back_in_time_saves_the_message() {
    let mut pair = two(5);
    set_timeout(&mut pair, &picky(), Some(5 * SECOND));
    pair.hole(A, 1, true, true);
    let id = send(&mut pair, OrderRequest::Default).unwrap();
    for _ in 0..3 {
        pair.set_up(A, 1, false);
        pair.run(4 * SECOND);
        pair.hole(A, 1, false, false);
        pair.set_up(A, 1, true);
        if pair.outcome(A, id).is_none() {
            pair.until("there is a path again", |pair| pair.world.nodes[A].core.paths().len() == 2);
        }
    }
    pair.until_delivered(A, &[id]);
}

#[test]
fn of_what_may_have_arrived_the_receiver_has_the_last_word() {
    // The message arrives and its acknowledgement does not: the only network goes away, for longer than the timeout.
    let mut pair = Pair::open(6, &Config::default(), &[net(1_000_000, 20)], SessionConfig::default());
    let labels = Labels::foreground();
    set_timeout(&mut pair, &labels, Some(SECOND));
    pair.hole(A, 0, false, true);
    let id = pair.say(A, "arrives");
    pair.until("it arrived", |pair| !pair.taken[B].is_empty());
    pair.set_up(A, 0, false);
    pair.run(60 * SECOND);
    assert_eq!(pair.outcome(A, id), None, "only the receiver knows");
    pair.hole(A, 0, false, false);
    pair.set_up(A, 0, true);
    pair.until_delivered(A, &[id]);

    // The same with a message that its application did not take yet.
    pair.until("there is a path again", |pair| pair.world.nodes[A].core.paths().len() == 1);
    pair.run(SECOND);
    pair.reads[B] = false;
    pair.hole(A, 0, false, true);
    let id = pair.say(A, "is dropped there");
    pair.run(SECOND);
    pair.set_up(A, 0, false);
    pair.run(60 * SECOND);
    assert_eq!(pair.outcome(A, id), None, "only the receiver knows");
    pair.hole(A, 0, false, false);
    pair.set_up(A, 0, true);
    pair.until("it is known", |pair| pair.outcome(A, id).is_some());
    assert_eq!(pair.outcome(A, id), Some(dropped(DropReason::NoNetwork)));
    pair.take(B);
    assert_eq!(pair.texts(B), ["arrives"]);
}

#[test]
fn a_stream_without_a_network_is_given_up() {
    let mut pair = two(7);
    set_timeout(&mut pair, &picky(), Some(SECOND));
    let stream = pair.begin_stream(A, picky(), OrderRequest::Default);
    pair.write(A, stream, &pattern(1, 10_000));
    pair.run(SECOND);
    pair.set_up(A, 1, false);
    pair.until("it is given up", |pair| pair.outcome(A, stream).is_some());
    assert_eq!(pair.outcome(A, stream), Some(dropped(DropReason::NoNetwork)));
    pair.run(SECOND);
    assert_eq!(pair.streams[B][&stream.0].1, Some(false), "its reader is told");
}

#[test]
fn new_labels_bring_a_message_under_another_rule() {
    let mut pair = two(8);
    set_timeout(&mut pair, &picky(), Some(2 * SECOND));
    pair.hole(A, 1, true, true);
    let id = send(&mut pair, OrderRequest::Default).unwrap();
    pair.set_up(A, 1, false);
    pair.run(SECOND);
    pair.on(A, |core, now, s| core.relabel(now, s, id, Labels::foreground())).unwrap();
    pair.until_delivered(A, &[id]);
}

#[test]
fn a_metered_network_is_opened_for_a_send_that_was_refused() {
    let mut metered = net(500_000, 60);
    metered.metered = true;
    let mut pair =
        Pair::begin(9, &Config::default(), &[net(1_000_000, 20), metered], SessionConfig::default());
    pair.until("it is open", |pair| pair.saw(A, |e| matches!(e, Event::Opened { .. })));
    pair.run(5 * SECOND);
    assert_eq!(pair.world.nodes[A].core.paths().len(), 1, "the metered one is used on demand");
    set_timeout(&mut pair, &picky(), Some(Duration::ZERO));
    send(&mut pair, OrderRequest::Default).unwrap_err();
    pair.until("the path is there", |pair| pair.world.nodes[A].core.paths().len() == 2);
    pair.run(SECOND);
    let id = send(&mut pair, OrderRequest::Default).expect("now it goes");
    pair.until_delivered(A, &[id]);
}

#[test]
fn a_send_that_waits_for_room_looks_again_when_its_network_goes() {
    let mut config = Config::default();
    config.send_buffers = [100_000; 2];
    let mut pair = Pair::open(17, &config, &[net(1_000_000, 20), net(500_000, 60)], SessionConfig::default());
    set_timeout(&mut pair, &picky(), Some(Duration::ZERO));
    pair.hole(A, 1, true, true);
    let big = pattern(1, 90_000);
    let try_big = |pair: &mut Pair| pair.try_send(A, picky(), OrderRequest::Default, big.clone());
    // This one keeps the buffer full: it may be without a network for ever.
    let options = SendOptions::new().patience(Patience::Endless);
    let stays =
        pair.on(A, |core, now, s| core.send(now, s, picky(), options, big.clone())).expect("there is room");
    assert!(matches!(try_big(&mut pair), Err(SendError::Full(_))), "there is no room");
    let before = writable(&pair);
    pair.set_up(A, 1, false);
    assert_eq!(writable(&pair), before + 1, "it is told to look again");
    assert!(
        matches!(try_big(&mut pair), Err(SendError::NoNetwork { .. })),
        "and learns why it waits in vain"
    );
    pair.hole(A, 1, false, false);
    pair.set_up(A, 1, true);
    pair.until_delivered(A, &[stays]);
}

#[test]
fn whoever_writes_a_message_that_was_dropped_does_not_wait_for_room() {
    let mut config = Config::default();
    config.send_buffers = [100_000; 2];
    for refuses in [false, true] {
        let mut pair = Pair::open(18, &config, &[net(1_000_000, 20)], SessionConfig::default());
        let first = pair.begin_stream(A, Labels::foreground(), OrderRequest::Unordered);
        let second = pair.begin_stream(A, Labels::foreground(), OrderRequest::Unordered);
        pair.write(A, second, &pattern(2, 1000));
        pair.until("it is read", |pair| pair.streams[B].contains_key(&second.0));
        pair.run(SECOND);
        // The first one fills the buffer, far beyond its half.
        pair.hole(A, 0, true, !refuses);
        let piece = pattern(1, 90_000);
        pair.on(A, |core, now, s| core.write(now, s, first, piece.clone())).unwrap();
        let write = |pair: &mut Pair| pair.on(A, |core, now, s| core.write(now, s, second, piece.clone()));
        assert!(matches!(write(&mut pair), Err(SendError::Full(_))), "{refuses}");
        let before = writable(&pair);
        if refuses {
            pair.on(B, |core, now, s| core.refuse(now, s, second)).unwrap();
            pair.until("its writer is told", |pair| writable(pair) > before);
        } else {
            pair.cancel(A, second);
            assert_eq!(writable(&pair), before + 1, "its writer is told");
        }
        assert_eq!(write(&mut pair), Err(SendError::NotOpen(second)), "{refuses}");
    }
}

#[test]
fn a_metered_network_is_not_opened_for_what_may_not_use_it() {
    let absent = Selector::Name("net7".into());
    let free = Rule::default().prohibit(Selector::Metered);
    let elsewhere = Rule::default().require(absent.clone());
    // Both ends have to be allowed.
    let local = Rule::default().prohibit(Selector::Name("net0".into()));
    for (rule, opens) in
        [(free.prohibit(Selector::Name("net0".into())), false), (elsewhere, false), (local, true)]
    {
        for way in 0..3 {
            let mut metered = net(500_000, 60);
            metered.metered = true;
            let networks = [net(1_000_000, 20), metered];
            let mut pair = Pair::begin(16, &Config::default(), &networks, SessionConfig::default());
            pair.until("it is open", |pair| pair.saw(A, |e| matches!(e, Event::Opened { .. })));
            let labels = Labels::foreground().rule(rule.clone());
            match way {
                // It waits in the send buffer, waits in the application's stead, or was refused.
                0 => drop(pair.send(A, labels, OrderRequest::Default, Bytes::new())),
                1 => drop(defer(&mut pair, labels, None)),
                _ => {
                    set_timeout(&mut pair, &labels, Some(Duration::ZERO));
                    let refused = pair.try_send(A, labels, OrderRequest::Default, Bytes::new());
                    assert!(matches!(refused, Err(SendError::NoNetwork { .. })));
                }
            }
            pair.run(10 * SECOND);
            let paths = pair.world.nodes[A].core.paths().len();
            assert_eq!(paths, 1 + usize::from(opens), "{rule}, way {way}");
        }
    }
}

#[test]
fn new_labels_take_back_the_wish_for_a_metered_network() {
    let mut metered = net(500_000, 60);
    metered.metered = true;
    let networks = [net(1_000_000, 20), metered];
    let mut pair = Pair::begin(16, &Config::default(), &networks, SessionConfig::default());
    pair.until("it is open", |pair| pair.saw(A, |e| matches!(e, Event::Opened { .. })));
    // It cannot be opened yet.
    pair.hole(A, 1, true, true);
    let wants = Labels::foreground().rule(Rule::default().prohibit(Selector::Name("net0".into())));
    let id = pair.send(A, wants.clone(), OrderRequest::Default, Bytes::new());
    pair.run(SECOND);
    let strict = Rule::default().prohibit(Selector::Name("net0".into())).prohibit(Selector::Metered);
    pair.on(A, |core, now, s| core.relabel(now, s, id, Labels::foreground().rule(strict))).unwrap();
    // What was begun fails in the meantime.
    pair.run(10 * SECOND);
    pair.hole(A, 1, false, false);
    pair.run(20 * SECOND);
    assert_eq!(pair.world.nodes[A].core.paths().len(), 1);
    pair.on(A, |core, now, s| core.relabel(now, s, id, wants)).unwrap();
    pair.until_delivered(A, &[id]);
}

// ----- sends that wait for a network ---------------------------------------------------------------------------------

#[test]
fn a_deferred_send_is_told_when_a_network_fits() {
    let mut pair = two(10);
    let at_once = defer(&mut pair, picky(), None);
    assert_eq!(check(&mut pair, at_once), Deferral::Ready);
    pair.set_up(A, 1, false);
    assert_eq!(check(&mut pair, at_once), Deferral::Waiting, "it vanished meanwhile: it waits again");
    let (before, other) = (suitable(&pair), defer(&mut pair, Labels::background(), None));
    assert_eq!(check(&mut pair, other), Deferral::Ready, "the other network will do for that");
    pair.run(60 * SECOND);
    assert_eq!(check(&mut pair, at_once), Deferral::Waiting);
    pair.set_up(A, 1, true);
    pair.until("it is told", |pair| suitable(pair) > before);
    pair.run(SECOND);
    assert_eq!(check(&mut pair, at_once), Deferral::Ready);
    assert!(pair.on(A, |core, now, s| core.end_deferral(now, s, at_once)));
    assert!(!pair.on(A, |core, now, s| core.end_deferral(now, s, at_once)), "once");
    assert_eq!(check(&mut pair, at_once), Deferral::Gone);
}

#[test]
fn a_send_that_waits_with_a_limit_learns_that_it_is_over() {
    let mut pair = two(11);
    pair.set_up(A, 1, false);
    let id = defer(&mut pair, picky(), Some(3 * SECOND));
    let (before, start) = (suitable(&pair), pair.world.now);
    pair.until("it is told", |pair| suitable(pair) > before);
    assert_eq!(pair.world.now.since(start).as_secs(), 3);
    assert_eq!(check(&mut pair, id), Deferral::TimedOut);
    // A network that comes at that moment is still welcome.
    pair.set_up(A, 1, true);
    pair.until("there is a path again", |pair| pair.world.nodes[A].core.paths().len() == 2);
    assert_eq!(check(&mut pair, id), Deferral::Ready);
}

#[test]
fn cancelling_counts_exactly_what_waits_with_these_labels() {
    let mut pair = two(12);
    pair.set_up(A, 1, false);
    let mine: Vec<_> = (0..5).map(|_| defer(&mut pair, picky(), None)).collect();
    let other = defer(&mut pair, picky().small(), None);
    let bounded = defer(&mut pair, picky(), Some(SECOND));
    pair.on(A, |core, now, s| core.end_deferral(now, s, mine[2]));
    let cancel = |pair: &mut Pair| pair.on(A, |core, now, s| core.cancel_deferred(now, s, &picky())).unwrap();
    assert_eq!((cancel(&mut pair), cancel(&mut pair)), (4, 0));
    assert!(mine.iter().all(|id| check(&mut pair, *id) == Deferral::Gone));
    assert_eq!(check(&mut pair, other), Deferral::Waiting);
    assert_eq!(check(&mut pair, bounded), Deferral::Waiting, "that is a send, which returns by itself");
}

#[test]
fn there_is_a_bound_to_what_waits() {
    let mut pair = two(13);
    for _ in 0..8192 {
        defer(&mut pair, picky(), None);
    }
    let refused = pair.on(A, |core, now, s| core.defer(now, s, picky(), None));
    assert_eq!(refused, Err(SendError::TooManyDeferred));
}

// ----- expiry --------------------------------------------------------------------------------------------------------

fn short() -> SendOptions {
    SendOptions::new().expires_in(2 * SECOND)
}

#[test]
fn what_expires_before_it_left_is_dropped_with_its_declared_dependents() {
    let mut pair = two(20);
    pair.set_up(A, 1, false);
    let start = pair.world.now;
    let first = send(&mut pair, short()).unwrap();
    let child = pair.send(A, Labels::foreground(), after(&[first]), Bytes::from_static(b"child"));
    let grandchild = pair.send(A, Labels::background(), after(&[child]), Bytes::from_static(b"grandchild"));
    // The implied order skips what is gone.
    let next = pair.say(A, "next");
    pair.run(SECOND);
    assert_eq!((pair.outcome(A, first), pair.outcome(A, next)), (None, None), "it waits in the order");
    pair.until_delivered(A, &[next]);
    assert_eq!(pair.world.now.since(start).as_secs(), 2);
    assert_eq!(pair.outcome(A, first), Some(dropped(DropReason::Expired)));
    assert_eq!(pair.outcome(A, child), Some(dropped(DropReason::Dependency)));
    assert_eq!(pair.outcome(A, grandchild), Some(dropped(DropReason::Dependency)));
    pair.set_up(A, 1, true);
    pair.run(10 * SECOND);
    assert_eq!(pair.texts(B), ["next"]);
}

#[test]
fn a_message_that_is_taken_in_time_does_not_expire() {
    let mut pair = two(21);
    let id =
        pair.on(A, |core, now, s| core.send(now, s, Labels::foreground(), short(), Bytes::new())).unwrap();
    pair.until_delivered(A, &[id]);
    pair.run(10 * SECOND);
    assert_eq!(pair.outcome(A, id), Some(Outcome::Delivered));
    for host in [A, B] {
        assert_eq!(pair.world.nodes[host].core.stats().expired_here, 0);
    }
}

#[test]
fn an_untaken_message_expires_at_the_receiver_though_nothing_gets_through() {
    let mut pair = Pair::open(22, &Config::default(), &[net(1_000_000, 20)], SessionConfig::default());
    pair.reads[B] = false;
    pair.world.nodes[B].drift = -200;
    let id =
        pair.on(A, |core, now, s| core.send(now, s, Labels::foreground(), short(), Bytes::new())).unwrap();
    let late = pair.say(A, "late");
    pair.run(SECOND);
    pair.hole(A, 0, true, true);
    pair.until("it is dropped there", |pair| pair.world.nodes[B].core.stats().expired_here == 1);
    assert_eq!(pair.outcome(A, id), None, "the sender cannot know");
    pair.take(B);
    assert_eq!(pair.texts(B), ["late"]);
    pair.hole(A, 0, false, false);
    pair.until_delivered(A, &[late]);
    pair.until("it is known", |pair| pair.outcome(A, id).is_some());
    assert_eq!(pair.outcome(A, id), Some(dropped(DropReason::Expired)));
}

#[test]
fn what_arrived_and_was_taken_is_delivered_though_its_time_passed_meanwhile() {
    let mut pair = Pair::open(23, &Config::default(), &[net(1_000_000, 20)], SessionConfig::default());
    pair.hole(A, 0, false, true);
    let id =
        pair.on(A, |core, now, s| core.send(now, s, Labels::foreground(), short(), Bytes::new())).unwrap();
    pair.until("it was taken", |pair| !pair.taken[B].is_empty());
    pair.run(60 * SECOND);
    assert_eq!(pair.outcome(A, id), None);
    pair.hole(A, 0, false, false);
    pair.until_delivered(A, &[id]);
}

#[test]
fn a_message_that_is_half_sent_expires_by_request() {
    let mut pair = Pair::open(24, &Config::default(), &[net(50_000, 20)], SessionConfig::default());
    let labels = Labels::background();
    let id = pair.on(A, |core, now, s| core.send(now, s, labels, short(), pattern(1, 1_000_000))).unwrap();
    pair.until("it expired", |pair| pair.outcome(A, id).is_some());
    assert_eq!(pair.outcome(A, id), Some(dropped(DropReason::Expired)));
    let sent = pair.world.nodes[A].core.stats().bytes_sent;
    assert!(sent > 10_000 && sent < 500_000, "{sent} bytes of it were sent");
    let next = pair.say(A, "next");
    pair.until_delivered(A, &[next]);
    assert_eq!(pair.texts(B), ["next"]);
}

#[test]
fn lifetimes_survive_a_restart_and_count_anew() {
    let mut config = Config::default();
    config.durable = true;
    let mut pair = Pair::open(25, &config, &[net(1_000_000, 20)], SessionConfig::default());
    pair.set_up(A, 0, false);
    let id =
        pair.on(A, |core, now, s| core.send(now, s, Labels::foreground(), short(), Bytes::new())).unwrap();
    pair.run(SECOND);
    let keep = pair.world.nodes[A].confirmed;
    pair.restart(A, keep);
    pair.run(SECOND * 3 / 2);
    assert_eq!(pair.outcome(A, id), None);
    pair.run(SECOND);
    // An earlier process may have sent it, so the receiver has the last word.
    pair.set_up(A, 0, true);
    pair.until("it is known", |pair| pair.outcome(A, id).is_some());
    assert_eq!(pair.outcome(A, id), Some(dropped(DropReason::Expired)));
}
