//! Processes that die and come back: with their store, with an old one, with none.

use crate::pair::{A, B, Pair, net, ordered, pattern};
use bytes::Bytes;
use core::time::Duration;
use steadfast_session::{
    Config, DropReason, Endpoint, Event, OrderRequest, Ordering, Outcome, Record, Recv, SessionConfig,
};
use steadfast_wire::frame::EndReason;
use steadfast_wire::{Labels, MessageId, Rule, Selector};

fn durable() -> Config {
    let mut config = Config::default();
    config.durable = true;
    config
}

fn open(seed: u64, config: &Config) -> Pair {
    let networks = [net(1_000_000, 20), net(300_000, 60)];
    Pair::open(seed, config, &networks, ordered(Ordering::Total))
}

/// Starts the process again from everything that its store confirmed.
fn restart_confirmed(pair: &mut Pair, host: usize) {
    let keep = pair.world.nodes[host].confirmed;
    pair.restart(host, keep);
}

/// Whether a host's store has such a record.
fn has_record(pair: &Pair, host: usize, is_such: impl Fn(&Record) -> bool) -> bool {
    let confirmed = pair.world.nodes[host].confirmed;
    pair.world.nodes[host].journal[..confirmed].iter().any(|entry| is_such(&entry.record))
}

/// Whether a host's store says that a message of this host was sent.
fn stored(pair: &Pair, host: usize, id: MessageId) -> bool {
    has_record(pair, host, |record| matches!(record, Record::Sent { id: of, .. } if *of == id))
}

#[test]
fn a_durable_host_goes_on_from_its_store_and_all_arrives_once() {
    for (seed, host) in [(1, A), (2, B), (3, A), (4, B)] {
        let mut pair = open(seed, &durable());
        let mut ids = Vec::new();
        for number in 0..30 {
            ids.push(pair.send(A, Labels::foreground(), OrderRequest::Default, pattern(number, 3000)));
            if number % 7 == 0 {
                pair.run(Duration::from_millis(3 * seed));
            }
        }
        pair.until("the store has it all", |pair| ids.iter().all(|id| stored(pair, A, *id)));
        restart_confirmed(&mut pair, host);
        // A second time, while it is finding back.
        pair.run(Duration::from_millis(30 * seed));
        restart_confirmed(&mut pair, host);
        ids.push(pair.say(A, "after the restart"));
        // The outcomes that were told before the crash are not told again; the messages are taken once in any case.
        let last = *ids.last().expect("some");
        pair.until_delivered(A, &[last]);
        assert_eq!(pair.ids(B), (1..=ids.len() as u64).collect::<Vec<_>>(), "host {host}");
        for message in &pair.taken[B][..30] {
            assert_eq!(message.payload, Some(pattern(message.id.0 - 1, 3000)));
        }
        assert_eq!((pair.ended(A), pair.ended(B)), (None, None));
    }
}

#[test]
fn a_message_that_the_store_has_and_the_peer_has_not_survives_its_sender() {
    let mut pair = open(5, &durable());
    (0..2).for_each(|network| pair.set_up(A, network, false));
    let id = pair.say(A, "from the store");
    pair.until("the store has it", |pair| stored(pair, A, id));
    restart_confirmed(&mut pair, A);
    (0..2).for_each(|network| pair.set_up(A, network, true));
    pair.until_delivered(A, &[id]);
    assert_eq!(pair.texts(B), ["from the store"]);
}

#[test]
fn nothing_is_sent_that_the_store_does_not_have() {
    let mut pair = open(6, &durable());
    pair.world.nodes[A].store_delay = Duration::from_secs(30);
    let id = pair.say(A, "not yet");
    pair.run(Duration::from_secs(20));
    assert!(pair.taken[B].is_empty() && pair.outcome(A, id).is_none());
    // The process dies before: the conversation goes on without what was never sent.
    restart_confirmed(&mut pair, A);
    pair.world.nodes[A].store_delay = Duration::from_millis(1);
    let id = pair.say(A, "in its place");
    pair.until_delivered(A, &[id]);
    assert_eq!(pair.texts(B), ["in its place"]);
}

/// A few messages each way, all delivered and acknowledged, with the length of the host's journal before them.
fn history(pair: &mut Pair, host: usize) -> usize {
    let ids = [pair.say(A, "a1")];
    pair.until_delivered(A, &ids);
    let ids = [pair.say(B, "b1")];
    pair.until_delivered(B, &ids);
    pair.run(Duration::from_secs(1));
    let old = pair.world.nodes[host].confirmed;
    let ids: Vec<_> = ["a2", "a3"].map(|text| pair.say(A, text)).into();
    pair.until_delivered(A, &ids);
    let ids = [pair.say(B, "b2")];
    pair.until_delivered(B, &ids);
    pair.run(Duration::from_secs(1));
    assert!(pair.world.nodes[host].confirmed > old);
    old
}

#[track_caller]
fn rolled_back(pair: &mut Pair) {
    pair.until("both are told", |pair| pair.ended(A).is_some() && pair.ended(B).is_some());
    for host in [A, B] {
        let Some((EndReason::RolledBack, Some(common))) = pair.ended(host) else {
            panic!("host {host}: {:?}", pair.ended(host));
        };
        // Whatever is common was taken by the other side.
        let took = pair.ids(1 - host);
        assert!((1..=common.0).all(|id| took.contains(&id)), "host {host}: {common} of {took:?}");
        assert!(common.0 >= 1, "host {host}: the first message was common");
    }
}

#[test]
fn an_old_state_is_refused_on_both_sides() {
    for host in [A, B] {
        let mut pair = open(10 + host as u64, &durable());
        let old = history(&mut pair, host);
        pair.restart(host, old);
        rolled_back(&mut pair);
        assert_eq!(pair.texts(A), ["b1", "b2"], "nothing was taken twice");
        assert_eq!(pair.texts(B), ["a1", "a2", "a3"], "nothing was taken twice");
    }
}

#[test]
fn what_an_old_state_says_is_never_taken_for_new() {
    let mut pair = open(15, &durable());
    let old = history(&mut pair, A);
    (0..2).for_each(|network| pair.set_up(A, network, false));
    // What the old process was told is not the new one's.
    pair.events[A].clear();
    pair.restart(A, old);
    // The same number as a message that was delivered, other words.
    let id = pair.say(A, "another a2");
    assert_eq!(id, MessageId(2));
    (0..2).for_each(|network| pair.set_up(A, network, true));
    rolled_back(&mut pair);
    assert_eq!(pair.texts(B), ["a1", "a2", "a3"]);
    assert!(matches!(pair.outcome(A, id), Some(Outcome::Unknown | Outcome::Dropped(_))));
}

#[test]
fn of_two_claimants_from_one_state_the_first_goes_on() {
    for host in [A, B] {
        let mut pair = open(20 + host as u64, &durable());
        let ids = [pair.say(A, "a1")];
        pair.until_delivered(A, &ids);
        let ids = [pair.say(B, "b1")];
        pair.until_delivered(B, &ids);
        pair.run(Duration::from_secs(1));
        let state = pair.world.nodes[host].confirmed;
        // The first run from this state goes on, and says nothing of its own.
        pair.restart(host, state);
        pair.until("the first goes on", |pair| pair.resumed(1 - host) == 1);
        pair.run(Duration::from_secs(5));
        assert_eq!((pair.ended(A), pair.ended(B)), (None, None));
        // The second one comes from the same state: only the token tells.
        pair.restart(host, state);
        rolled_back(&mut pair);
    }
}

#[test]
fn a_copy_that_runs_while_the_original_goes_on_is_refused() {
    let mut pair = open(25, &durable());
    let old = history(&mut pair, A);
    let latest = pair.world.nodes[A].confirmed;
    // From the latest state it is exact.
    pair.restart(A, latest);
    let id = pair.say(A, "a4");
    pair.until_delivered(A, &[id]);
    assert_eq!((pair.ended(A), pair.ended(B)), (None, None));
    pair.restart(A, old);
    rolled_back(&mut pair);
    assert_eq!(pair.texts(B), ["a1", "a2", "a3", "a4"]);
}

#[test]
fn a_peer_without_a_store_that_restarts_ends_the_conversation() {
    for host in [A, B] {
        let mut pair = open(30 + host as u64, &Config::default());
        let ids = [pair.say(A, "one")];
        pair.until_delivered(A, &ids);
        let other = 1 - host;
        pair.reads[host] = false;
        let pending = pair.say(other, "never taken");
        pair.until("it has arrived", |pair| {
            pair.saw(other, |event| matches!(event, Event::Acked { id, .. } if *id == pending))
        });
        pair.restart(host, 0);
        // Only the opener knows where the other one is; a process that came back has to be reachable, or come.
        if host == A {
            let (now, address) = (pair.world.clock(A), pair.world.address(B, 0));
            let peer = steadfast_sim::world::identity(B);
            pair.world.nodes[A].core.connect(now, peer, &[address], SessionConfig::default());
            pair.world.pump(A);
        }
        pair.until("the survivor is told", |pair| pair.ended(other).is_some());
        assert_eq!(pair.ended(other).map(|(reason, _)| reason), Some(EndReason::Unknown));
        assert_eq!(pair.outcome(other, pending), Some(Outcome::Unknown));
    }
}

#[test]
fn a_stream_does_not_survive_its_sender_and_is_never_silent() {
    for (seed, finished) in [(40, false), (41, true), (42, false), (43, true)] {
        let mut pair = open(seed, &durable());
        let stream = pair.begin_stream(A, Labels::background(), OrderRequest::Default);
        pair.write(A, stream, &pattern(7, 120_000));
        if finished {
            pair.finish_stream(A, stream);
        }
        pair.run(Duration::from_millis(if seed < 42 { 40 } else { 2000 }));
        let before = pair.outcome(A, stream);
        restart_confirmed(&mut pair, A);
        let next = pair.say(A, "after it");
        pair.until_delivered(A, &[next]);
        pair.until("the stream has its outcome", |pair| pair.outcome(A, stream).is_some());
        let outcome = pair.outcome(A, stream).expect("just seen");
        let read = pair.streams[B].get(&stream.0).cloned();
        match outcome {
            Outcome::Delivered => {
                assert_eq!(read, Some((pattern(7, 120_000).to_vec(), Some(true))), "seed {seed}");
            }
            Outcome::Dropped(DropReason::Restarted) => {
                assert_eq!(before, None);
                assert!(read.is_none_or(|(bytes, end)| {
                    end == Some(false) && pattern(7, 120_000).starts_with(&bytes)
                }));
            }
            other => panic!("seed {seed}: {other:?}"),
        }
        assert!(finished || outcome != Outcome::Delivered, "nobody finished it");
        assert_eq!((pair.ended(A), pair.ended(B)), (None, None));
    }
}

#[test]
fn a_stream_whose_reader_restarts_has_an_outcome() {
    let mut pair = open(50, &durable());
    let stream = pair.begin_stream(A, Labels::foreground(), OrderRequest::Default);
    pair.write(A, stream, &pattern(8, 100_000));
    pair.until("it was read in part", |pair| {
        pair.streams[B].get(&stream.0).is_some_and(|(bytes, _)| bytes.len() > 30_000)
    });
    pair.run(Duration::from_secs(1));
    restart_confirmed(&mut pair, B);
    pair.run(Duration::from_secs(5));
    // The writer may be refused: then it has been told why.
    let more = Bytes::from_static(b"more");
    let written = pair.on(A, |core, now, session| core.write(now, session, stream, more));
    if written.is_ok() {
        pair.finish_stream(A, stream);
    }
    pair.until("the stream has its outcome", |pair| pair.outcome(A, stream).is_some());
    assert_eq!(pair.outcome(A, stream), Some(Outcome::Dropped(DropReason::Restarted)));
    let next = pair.say(A, "after it");
    pair.until_delivered(A, &[next]);
}

#[test]
fn limits_that_a_journal_does_not_have_are_set_anew() {
    let mut pair = open(51, &durable());
    pair.until("the store knows the conversation", |pair| {
        has_record(pair, A, |record| matches!(record, Record::Held(_)))
    });
    (0..2).for_each(|network| pair.set_up(A, network, false));
    restart_confirmed(&mut pair, A);
    let mut config = SessionConfig::default();
    config.park_limit = Some(Duration::from_secs(20));
    pair.on(A, |core, now, session| core.configure(now, session, config)).unwrap();
    pair.run(Duration::from_secs(19));
    assert_eq!(pair.ended(A), None);
    pair.until("it is given up", |pair| pair.ended(A).is_some());
    assert_eq!(pair.ended(A).map(|(reason, _)| reason), Some(EndReason::Forgotten));
}

#[test]
fn a_conversation_that_was_closing_is_closed_again() {
    let mut pair = open(52, &durable());
    (0..2).for_each(|network| pair.set_up(A, network, false));
    let limit = Duration::from_secs(20);
    pair.on(A, |core, now, session| core.close(now, session, limit)).unwrap();
    pair.until("the store has it", |pair| has_record(pair, A, |record| matches!(record, Record::Shut(..))));
    restart_confirmed(&mut pair, A);
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.ended(A), None, "when it was to be over went with the process");
    pair.on(A, |core, now, session| core.close(now, session, limit)).unwrap();
    pair.until("it is over", |pair| pair.ended(A).is_some());
    assert_eq!(pair.ended(A).map(|(reason, _)| reason), Some(EndReason::Aborted));
}

// ----- new labels ----------------------------------------------------------------------------------------------------

/// A conversation whose bytes are watched.
fn watched(seed: u64) -> Pair {
    let mut pair = open(seed, &durable());
    pair.world.said = Some(Vec::new());
    pair
}

fn only(network: &str) -> Rule {
    Rule::default().require(Selector::Name(network.into()))
}

/// How often something of a message of A went over a network.
fn said(pair: &Pair, network: usize, id: MessageId) -> usize {
    let all = pair.world.said.as_ref().unwrap().iter();
    all.filter(|said| said.id == id && said.from == (A, network)).count()
}

#[track_caller]
fn relabel(pair: &mut Pair, id: MessageId, labels: &Labels) {
    pair.on(A, |core, now, session| core.relabel(now, session, id, labels.clone())).unwrap();
}

fn until_labels_stored(pair: &mut Pair, id: MessageId, labels: &Labels) {
    pair.until("the store has the new labels", |pair| {
        has_record(
            pair,
            A,
            |record| matches!(record, Record::Relabelled { id: of, labels: new } if (*of, new) == (id, labels)),
        )
    });
}

#[test]
fn new_labels_survive_the_restart_of_their_sender() {
    let mut pair = watched(60);
    (0..2).for_each(|network| pair.set_up(A, network, false));
    let id = pair.send(A, Labels::foreground().rule(only("net0")), OrderRequest::Default, pattern(1, 5000));
    let between = Labels::foreground();
    let last = Labels::background().large().rule(only("net1"));
    relabel(&mut pair, id, &between);
    relabel(&mut pair, id, &last);
    until_labels_stored(&mut pair, id, &last);
    restart_confirmed(&mut pair, A);
    // The network that only the first labels want is there alone, and then the other one.
    pair.set_up(A, 0, true);
    pair.until("it is found again", |pair| pair.resumed(B) > 0);
    pair.run(Duration::from_secs(30));
    assert_eq!(said(&pair, 0, id), 0);
    pair.set_up(A, 1, true);
    pair.until_delivered(A, &[id]);
    assert_eq!(said(&pair, 0, id), 0);
    assert_eq!(pair.taken[B][0].labels, last, "the peer is told");
}

#[test]
fn a_peer_that_was_told_other_labels_is_told_the_last_ones_after_a_restart() {
    let mut pair = watched(61);
    pair.reads[B] = false;
    let first = Labels::background();
    let id = pair.send(A, first.clone(), OrderRequest::Default, pattern(1, 100));
    relabel(&mut pair, id, &Labels::foreground());
    until_labels_stored(&mut pair, id, &Labels::foreground());
    // The peer has it and knows of the change.
    pair.run(Duration::from_secs(1));
    (0..2).for_each(|network| pair.set_up(A, network, false));
    relabel(&mut pair, id, &first);
    until_labels_stored(&mut pair, id, &first);
    restart_confirmed(&mut pair, A);
    (0..2).for_each(|network| pair.set_up(A, network, true));
    pair.until("it is found again", |pair| pair.resumed(B) > 0);
    pair.run(Duration::from_secs(1));
    pair.take(B);
    assert_eq!(pair.taken[B][0].labels, first);
}

#[test]
fn under_a_new_rule_nothing_leaves_before_the_store_has_it() {
    let mut pair = watched(62);
    let before = Labels::background().rule(only("net0"));
    let id = pair.send(A, before, OrderRequest::Default, pattern(1, 900_000));
    pair.run(Duration::from_millis(200));
    assert!(said(&pair, 0, id) > 0, "it is under way");
    pair.world.nodes[A].store_delay = Duration::from_secs(30);
    pair.world.said = Some(Vec::new());
    let after = Labels::foreground().rule(only("net1"));
    relabel(&mut pair, id, &after);
    pair.run(Duration::from_secs(29));
    // The old rule forbids one network and the new one the other.
    assert_eq!((said(&pair, 0, id), said(&pair, 1, id)), (0, 0));
    pair.until_delivered(A, &[id]);
    assert_eq!(said(&pair, 0, id), 0);
    assert!(said(&pair, 1, id) > 0);
    assert_eq!(pair.taken[B][0].labels, after);
}

#[test]
fn new_labels_that_the_store_lost_were_never_in_force() {
    let mut pair = watched(63);
    let before = Labels::background().rule(only("net0"));
    pair.set_up(A, 0, false);
    let id = pair.send(A, before.clone(), OrderRequest::Default, pattern(1, 5000));
    pair.until("the store has it", |pair| stored(pair, A, id));
    pair.world.nodes[A].store_delay = Duration::from_secs(30);
    relabel(&mut pair, id, &Labels::foreground().rule(only("net1")));
    pair.run(Duration::from_secs(20));
    assert_eq!(said(&pair, 1, id), 0, "the store may still lose it");
    restart_confirmed(&mut pair, A);
    pair.world.nodes[A].store_delay = Duration::from_millis(1);
    pair.run(Duration::from_secs(20));
    assert_eq!(said(&pair, 1, id), 0);
    pair.set_up(A, 0, true);
    pair.until_delivered(A, &[id]);
    assert_eq!(said(&pair, 1, id), 0);
    assert_eq!(pair.taken[B][0].labels, before, "the peer never heard of them");
}

#[test]
fn an_application_that_says_its_wish_again_before_the_networks_are_there_loses_nothing() {
    let mut pair = watched(64);
    (0..2).for_each(|network| pair.set_up(A, network, false));
    let id = pair.send(A, Labels::foreground().rule(only("net0")), OrderRequest::Default, pattern(1, 5000));
    pair.until("the store has it", |pair| stored(pair, A, id));
    let wish = Labels::foreground().rule(only("net1"));
    relabel(&mut pair, id, &wish);
    restart_confirmed(&mut pair, A);
    relabel(&mut pair, id, &wish);
    (0..2).for_each(|network| pair.set_up(A, network, true));
    pair.until_delivered(A, &[id]);
    assert_eq!(said(&pair, 0, id), 0);
}

#[test]
fn a_new_urgency_does_not_wait_for_the_store_but_the_peer_does() {
    let mut pair = watched(65);
    pair.send(A, Labels::background(), OrderRequest::Unordered, pattern(1, 900_000));
    let id = pair.send(A, Labels::background(), OrderRequest::Unordered, pattern(2, 30_000));
    pair.until("the store has it", |pair| stored(pair, A, id));
    pair.world.nodes[A].store_delay = Duration::from_secs(300);
    relabel(&mut pair, id, &Labels::foreground());
    pair.until("it is there", |pair| pair.ids(B).contains(&id.0));
    assert_eq!(pair.ids(B), [id.0], "it overtook what was before it");
    assert_eq!(pair.taken[B][0].labels, Labels::background(), "a restart might take it back");
}

// ----- messages that the application acknowledges --------------------------------------------------------------------

/// What the application of B is given, and holds.
fn given(pair: &mut Pair) -> Vec<u64> {
    let mut ids = Vec::new();
    loop {
        match pair.on(B, Endpoint::recv_held) {
            Ok(Recv::Message(message)) => {
                assert_eq!(message.payload, Some(pattern(message.id.0, 2000)));
                ids.push(message.id.0);
            }
            Ok(_) => return ids,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A durable conversation in which B takes nothing by itself, and what A sent in it.
fn holding(seed: u64, count: u64) -> (Pair, Vec<MessageId>) {
    let mut pair = open(seed, &durable());
    pair.reads[B] = false;
    let send = |id| pair.send(A, Labels::foreground(), OrderRequest::Default, pattern(id, 2000));
    let ids: Vec<_> = (1..=count).map(send).collect();
    let last = ids[ids.len() - 1];
    pair.until("all have arrived", |pair| {
        pair.saw(A, |event| matches!(event, Event::Acked { id, .. } if *id == last))
    });
    (pair, ids)
}

fn acknowledge(pair: &mut Pair, id: u64) {
    pair.on(B, |core, now, session| core.acknowledge(now, session, MessageId(id))).unwrap();
}

#[test]
fn what_was_not_acknowledged_is_given_again_after_a_restart_and_in_order() {
    let (mut pair, ids) = holding(70, 6);
    assert_eq!(given(&mut pair), [1, 2, 3, 4, 5, 6], "the order goes on before anything is acknowledged");
    for id in [1, 2, 5] {
        acknowledge(&mut pair, id);
    }
    pair.until("the store has it", |pair| {
        has_record(pair, B, |record| matches!(record, Record::Resolved { id: MessageId(5), .. }))
    });
    assert_eq!(pair.outcome(A, ids[2]), None, "nobody said what became of it");
    for _ in 0..2 {
        restart_confirmed(&mut pair, B);
        pair.until("it has come again", |pair| pair.resumed(A) > 0);
        pair.events[A].clear();
        pair.run(Duration::from_secs(10));
        assert_eq!(given(&mut pair), [3, 4, 6]);
    }
    for id in [3, 4, 6] {
        acknowledge(&mut pair, id);
    }
    pair.until_delivered(A, &[ids[2], ids[3], ids[5]]);
    assert!(given(&mut pair).is_empty());
    assert_eq!((pair.ended(A), pair.ended(B)), (None, None));
}

#[test]
fn a_message_that_is_held_can_be_given_back_or_refused_and_not_be_reset() {
    let (mut pair, ids) = holding(71, 3);
    assert_eq!(given(&mut pair), [1, 2, 3]);
    // The sender would rather not have sent it: what has the last word is the application.
    pair.on(A, |core, now, session| core.cancel(now, session, ids[0])).unwrap();
    pair.run(Duration::from_secs(2));
    assert_eq!(pair.outcome(A, ids[0]), None);
    acknowledge(&mut pair, 1);
    pair.on(B, |core, now, session| core.refuse(now, session, ids[1])).unwrap();
    pair.on(B, |core, now, session| core.give_back(now, session, ids[2])).unwrap();
    let again = pair.on(B, |core, now, session| core.acknowledge(now, session, ids[2]));
    assert!(again.is_err(), "it is not held any more");
    assert_eq!(given(&mut pair), [3]);
    acknowledge(&mut pair, 3);
    pair.until_delivered(A, &[ids[0], ids[2]]);
    pair.until("it was refused", |pair| pair.outcome(A, ids[1]).is_some());
    assert_eq!(pair.outcome(A, ids[1]), Some(Outcome::Dropped(DropReason::Refused)));
}

#[test]
fn what_was_declared_to_wait_waits_for_the_acknowledgement() {
    let (mut pair, ids) = holding(72, 1);
    let after = OrderRequest::After(vec![ids[0]]);
    let second = pair.send(A, Labels::foreground(), after, pattern(2, 2000));
    pair.until("it has arrived", |pair| {
        pair.saw(A, |event| matches!(event, Event::Acked { id, .. } if *id == second))
    });
    assert_eq!(given(&mut pair), [1]);
    assert!(given(&mut pair).is_empty());
    acknowledge(&mut pair, 1);
    assert_eq!(given(&mut pair), [2]);
}

#[test]
fn messages_that_are_held_fill_the_window_until_they_are_acknowledged() {
    let mut pair = open(73, &durable());
    pair.reads[B] = false;
    // Four times the window.
    for id in 1..=80 {
        let sent = pair.on(A, |core, now, session| {
            core.send(now, session, Labels::foreground(), OrderRequest::Default, pattern(id, 100_000))
        });
        if sent.is_err() {
            break;
        }
    }
    let mut held = Vec::new();
    for _ in 0..60 {
        pair.run(Duration::from_secs(1));
        while let Ok(Recv::Message(message)) = pair.on(B, Endpoint::recv_held) {
            held.push(message.id);
        }
    }
    let stuck = held.len();
    assert!((10..40).contains(&stuck), "{stuck} are held");
    for id in held {
        acknowledge(&mut pair, id.0);
    }
    pair.run(Duration::from_secs(10));
    let more = pair.on(B, Endpoint::recv_held);
    assert!(matches!(more, Ok(Recv::Message(_))), "{more:?}");
}
