//! What waits for what, what is dropped with what, and whose bytes stay together.

use crate::pair::{A, B, Pair, after, net, ordered, pattern};
use bytes::Bytes;
use core::time::Duration;
use steadfast_session::{
    Config, DropReason, Event, OrderRequest, Ordering, Outcome, Read, SendError, SessionConfig,
};
use steadfast_sim::rng::Rng;
use steadfast_wire::{Labels, MessageId, Rule, Selector};

/// What each of the ten messages waits for at once; the rest follows from that.
const TABLE: [&[usize]; 10] = [&[], &[0], &[0], &[], &[1, 2, 3], &[4], &[4], &[6], &[5, 7], &[8]];
/// What each of the ten declares.
const DECLARED: [Option<&[usize]>; 10] =
    [None, Some(&[0]), Some(&[0]), Some(&[]), None, Some(&[4]), Some(&[4]), Some(&[6]), None, None];

fn transitive(table: impl Fn(usize) -> Vec<usize>, of: usize) -> Vec<usize> {
    let mut all = table(of);
    let mut next = 0;
    while next < all.len() {
        for more in table(all[next]) {
            if !all.contains(&more) {
                all.push(more);
            }
        }
        next += 1;
    }
    all
}

/// Sends the ten, each with labels from `labels`; message `n` says `n`.
fn send_ten(pair: &mut Pair, mut labels: impl FnMut(usize) -> Labels) -> Vec<MessageId> {
    let mut ids: Vec<MessageId> = Vec::new();
    for (number, declared) in DECLARED.iter().enumerate() {
        let order = match declared {
            None => OrderRequest::Default,
            Some([]) => OrderRequest::Unordered,
            Some(list) => after(&list.iter().map(|n| ids[*n]).collect::<Vec<_>>()),
        };
        let id = pair.send(A, labels(number), order, Bytes::from(vec![number as u8]));
        ids.push(id);
    }
    ids
}

fn numbers(pair: &Pair) -> Vec<usize> {
    pair.taken[B].iter().map(|m| usize::from(m.payload.as_ref().expect("whole")[0])).collect()
}

#[test]
fn ten_mixed_messages_keep_the_order_of_the_table() {
    const NETWORKS: usize = 4;
    let mut orders = std::collections::BTreeSet::new();
    let mut unordered_first = 0;
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let networks = [net(1_000_000, 10), net(300_000, 60), net(2_000_000, 4), net(50_000, 120)];
        let mut pair = Pair::open(seed, &Config::default(), &networks, ordered(Ordering::Total));
        (0..NETWORKS).for_each(|network| pair.set_up(A, network, false));
        // Each message may use one network only, and the networks come back one after the other in any order.
        let ids = send_ten(&mut pair, |_| {
            let name = format!("net{}", rng.range(0, NETWORKS as u64));
            let labels = if rng.chance(50) { Labels::foreground() } else { Labels::background() };
            labels.rule(Rule::default().require(Selector::Name(name)))
        });
        let mut order: Vec<usize> = (0..NETWORKS).collect();
        for at in (1..NETWORKS).rev() {
            order.swap(at, rng.range(0, at as u64 + 1) as usize);
        }
        for network in order {
            pair.set_up(A, network, true);
            pair.run(Duration::from_millis(rng.range(0, 400)));
        }
        pair.until_delivered(A, &ids);
        let got = numbers(&pair);
        assert_eq!(got.len(), 10, "each once: {got:?}");
        for (place, number) in got.iter().enumerate() {
            for before in transitive(|n| TABLE[n].to_vec(), *number) {
                assert!(got[..place].contains(&before), "{number} came before {before}: {got:?}");
            }
        }
        unordered_first += usize::from(got[0] == 3);
        orders.insert(got);
    }
    assert!(orders.len() > 4 && unordered_first > 0, "nothing was ever free to overtake: {orders:?}");
}

#[test]
fn cancelling_drops_exactly_the_declared_dependents() {
    for victim in 0..10 {
        let mut pair =
            Pair::open(victim as u64, &Config::default(), &[net(1_000_000, 20)], ordered(Ordering::Total));
        pair.set_up(A, 0, false);
        let ids = send_ten(&mut pair, |_| Labels::foreground());
        pair.cancel(A, ids[victim]);
        let declared = |n: usize| DECLARED[n].unwrap_or(&[]).to_vec();
        let falls = |n: usize| transitive(declared, n).contains(&victim);
        for (number, id) in ids.iter().enumerate() {
            let expected = match number {
                n if n == victim => Some(Outcome::Dropped(DropReason::Cancelled)),
                n if falls(n) => Some(Outcome::Dropped(DropReason::Dependency)),
                _ => None,
            };
            assert_eq!(pair.outcome(A, *id), expected, "{number} after cancelling {victim}");
        }
        // The implied order skips what is gone; all else arrives.
        pair.set_up(A, 0, true);
        let stay: Vec<usize> = (0..10).filter(|n| *n != victim && !falls(*n)).collect();
        pair.until_delivered(A, &stay.iter().map(|n| ids[*n]).collect::<Vec<_>>());
        let mut got = numbers(&pair);
        got.sort_unstable();
        assert_eq!(got, stay, "after cancelling {victim}");
    }
}

#[test]
fn what_waits_for_a_dropped_message_is_refused() {
    let mut pair = Pair::open(1, &Config::default(), &[net(1_000_000, 20)], ordered(Ordering::Total));
    pair.set_up(A, 0, false);
    let gone = pair.say(A, "gone");
    let dependent = pair.send(A, Labels::foreground(), after(&[gone]), Bytes::from_static(b"falls with it"));
    pair.cancel(A, gone);
    for waits_for in [gone, dependent] {
        let refused = pair.try_send(A, Labels::foreground(), after(&[waits_for]), Bytes::new());
        assert_eq!(refused, Err(SendError::Undeliverable(waits_for)));
        let labels = Labels::foreground();
        let refused = pair.on(A, |core, now, s| core.begin(now, s, labels, after(&[waits_for]), None));
        assert_eq!(refused, Err(SendError::Undeliverable(waits_for)));
    }
    let next = pair.say(A, "goes on");
    pair.set_up(A, 0, true);
    pair.until_delivered(A, &[next]);
    // Also once the receiver knows of it, and after that has been forgotten on the wire.
    pair.run(Duration::from_secs(5));
    let refused = pair.try_send(A, Labels::foreground(), after(&[gone]), Bytes::new());
    assert_eq!(refused, Err(SendError::Undeliverable(gone)));
    let later = pair.send(A, Labels::foreground(), after(&[next]), Bytes::from_static(b"later"));
    pair.until_delivered(A, &[later]);
    assert_eq!(pair.texts(B), ["goes on", "later"]);
}

#[test]
fn a_message_in_flight_that_is_cancelled_has_one_truth() {
    let mut pair = Pair::open(2, &Config::default(), &[net(1_000_000, 50)], ordered(Ordering::Total));
    pair.reads[B] = false;
    let first = pair.say(A, "first");
    let dependent = pair.send(A, Labels::foreground(), after(&[first]), Bytes::from_static(b"dependent"));
    let next = pair.say(A, "next");
    pair.until("all has arrived", |pair| pair.count(A, |event| matches!(event, Event::Acked { .. })) == 3);
    pair.cancel(A, first);
    assert_eq!(pair.outcome(A, first), None, "the receiver has the last word");
    pair.until("the receiver has spoken", |pair| pair.outcome(A, first).is_some());
    assert_eq!(pair.outcome(A, first), Some(Outcome::Dropped(DropReason::Cancelled)));
    pair.reads[B] = true;
    pair.take(B);
    pair.until_delivered(A, &[next]);
    assert_eq!(pair.outcome(A, dependent), Some(Outcome::Dropped(DropReason::Dependency)));
    assert_eq!(pair.texts(B), ["next"]);
}

#[test]
fn four_messages_are_taken_one_by_one_with_their_labels() {
    let mut pair = Pair::open(3, &Config::default(), &[net(1_000_000, 20)], ordered(Ordering::Total));
    pair.reads[B] = false;
    let labels = [
        Labels::foreground(),
        Labels::background().large(),
        Labels::foreground().small(),
        Labels::background().rule(Rule::default().prefer(Selector::Metered)),
    ];
    for (number, labels) in labels.iter().enumerate() {
        pair.send(A, labels.clone(), OrderRequest::Default, pattern(number as u64, 4));
    }
    pair.until("all has arrived", |pair| pair.count(A, |event| matches!(event, Event::Acked { .. })) == 4);
    for (number, labels) in labels.iter().enumerate() {
        let message = pair.recv(B).expect("one more");
        assert_eq!(message.id, MessageId(number as u64 + 1));
        assert_eq!(message.payload, Some(pattern(number as u64, 4)));
        assert_eq!((message.length, &message.labels), (Some(4), labels));
    }
    assert_eq!(pair.recv(B), None);
}

#[test]
fn foreground_is_taken_before_background_when_both_wait() {
    let mut pair = Pair::open(4, &Config::default(), &[net(1_000_000, 20)], SessionConfig::default());
    pair.reads[B] = false;
    for labels in [Labels::background(), Labels::foreground(), Labels::background(), Labels::foreground()] {
        pair.send(A, labels, OrderRequest::Default, Bytes::from_static(b"x"));
    }
    pair.until("all has arrived", |pair| pair.count(A, |event| matches!(event, Event::Acked { .. })) == 4);
    pair.take(B);
    assert_eq!(pair.ids(B), [2, 4, 1, 3]);
}

/// Writes `streams` messages of `length` bytes round robin, one byte at a time, and checks what comes out.
fn round_robin(ordering: Ordering, order: &OrderRequest, streams: u64, length: usize) -> Vec<u64> {
    let networks = [net(400_000, 20), net(1_000_000, 60)];
    let mut pair = Pair::open(streams, &Config::default(), &networks, ordered(ordering));
    let ids: Vec<MessageId> =
        (0..streams).map(|_| pair.begin_stream(A, Labels::foreground(), order.clone())).collect();
    for at in 0..length {
        for id in ids.iter().rev() {
            pair.write(A, *id, &pattern(id.0, length).slice(at..=at));
        }
        if at % 3 == 0 {
            pair.run(Duration::from_millis(7));
        }
    }
    for id in ids.iter().rev() {
        // The application has one stream in hand until that one has ended.
        if ordering == Ordering::Total && *order == OrderRequest::Default {
            assert!(pair.taken[B].len() <= 1, "{:?}", pair.ids(B));
        }
        pair.finish_stream(A, *id);
        pair.run(Duration::from_millis(3));
    }
    pair.until_delivered(A, &ids);
    for id in &ids {
        assert_eq!(pair.streams[B][&id.0].0, pattern(id.0, length), "{id}");
    }
    pair.ids(B)
}

#[test]
fn streams_written_byte_by_byte_do_not_interleave() {
    let taken = round_robin(Ordering::Total, &OrderRequest::Default, 64, 16);
    assert_eq!(taken, (1..=64).collect::<Vec<u64>>(), "in a total order one follows the other");
    let mut taken = round_robin(Ordering::PerUrgency, &OrderRequest::Unordered, 200, 9);
    taken.sort_unstable();
    assert_eq!(taken, (1..=200).collect::<Vec<u64>>());
}

#[test]
fn a_chain_that_is_ended_in_reverse_arrives_in_order() {
    let mut pair = Pair::open(5, &Config::default(), &[net(1_000_000, 20)], ordered(Ordering::PerUrgency));
    let mut ids: Vec<MessageId> = Vec::new();
    for _ in 0..10 {
        let order = ids.last().map_or(OrderRequest::Unordered, |last| after(&[*last]));
        ids.push(pair.begin_stream(A, Labels::foreground(), order));
    }
    for id in ids.iter().rev() {
        pair.write(A, *id, &pattern(id.0, 10));
        pair.finish_stream(A, *id);
        pair.run(Duration::from_millis(50));
    }
    pair.until_delivered(A, &ids);
    assert_eq!(pair.ids(B), (1..=10).collect::<Vec<u64>>());
}

#[test]
fn a_partial_read_gives_what_is_there() {
    let mut pair = Pair::open(6, &Config::default(), &[net(1_000_000, 20)], SessionConfig::default());
    pair.reads[B] = false;
    let id = pair.begin_stream(A, Labels::foreground(), OrderRequest::Default);
    pair.write(A, id, &Bytes::from_static(b"abc"));
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.recv(B).expect("it has begun").payload, None);
    assert_eq!(pair.read(B, id), Some(Read::Chunk(Bytes::from_static(b"abc"))));
    assert_eq!(pair.read(B, id), Some(Read::Pending));
    assert_eq!(pair.outcome(A, id), None);
    pair.write(A, id, &Bytes::from_static(b"de"));
    pair.finish_stream(A, id);
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.read(B, id), Some(Read::Chunk(Bytes::from_static(b"de"))));
    assert_eq!(pair.outcome(A, id), None, "not delivered before the end was read");
    assert_eq!(pair.read(B, id), Some(Read::End));
    pair.until_delivered(A, &[id]);
}

#[test]
fn tiny_windows_cut_messages_anew_and_change_no_byte() {
    for (seed, window) in [(1, 300), (2, 1024), (3, 4097)] {
        let mut config = Config::default();
        config.windows = [window; 2];
        config.max_message = window / 2;
        let networks = [net(200_000, 8), net(300_000, 30)];
        let mut pair = Pair::open(seed, &config, &networks, SessionConfig::default());
        let size = |number: u64| (window / 2).min(number * 37) as usize;
        let mut ids = Vec::new();
        for number in 1..40 {
            let labels = if number % 3 == 0 { Labels::background() } else { Labels::foreground() };
            ids.push(pair.send(A, labels, OrderRequest::Default, pattern(number, size(number))));
        }
        let stream = pair.begin_stream(A, Labels::background(), OrderRequest::Default);
        for chunk in pattern(99, 20_000).chunks(777) {
            pair.write(A, stream, &Bytes::copy_from_slice(chunk));
        }
        pair.finish_stream(A, stream);
        ids.push(stream);
        pair.until_delivered(A, &ids);
        assert_eq!(pair.streams[B][&stream.0].0, pattern(99, 20_000));
        for message in pair.taken[B].iter().filter(|message| message.id != stream) {
            assert_eq!(message.payload, Some(pattern(message.id.0, size(message.id.0))), "{}", message.id);
        }
        assert_eq!(pair.taken[B].len(), 40);
    }
}

/// As many messages as may be open at once, each waiting for the one before. One step of the stack for each would
/// overflow it.
const CHAIN: usize = 8000;

fn chain(pair: &mut Pair, first: MessageId) -> Vec<MessageId> {
    let mut last = first;
    (0..CHAIN)
        .map(|_| {
            last = pair.send(A, Labels::foreground(), after(&[last]), Bytes::new());
            last
        })
        .collect()
}

#[test]
fn a_long_chain_is_dropped_at_the_sender_without_deep_recursion() {
    let mut pair = Pair::open(70, &Config::default(), &[net(5_000_000, 5)], ordered(Ordering::Total));
    pair.world.check_every = 0;
    pair.set_up(A, 0, false);
    pair.until_parked();
    let first = pair.say(A, "first");
    let links = chain(&mut pair, first);
    pair.cancel(A, first);
    pair.run(Duration::from_millis(1));
    for link in &links {
        assert_eq!(pair.outcome(A, *link), Some(Outcome::Dropped(DropReason::Dependency)));
    }
    pair.set_up(A, 0, true);
    let after_all = pair.say(A, "after all");
    pair.until_delivered(A, &[after_all]);
}

#[test]
fn a_long_chain_is_dropped_at_the_receiver_without_deep_recursion() {
    let only = |name: &str| Labels::foreground().rule(Rule::default().require(Selector::Name(name.into())));
    let networks = [net(5_000_000, 5), net(5_000_000, 5)];
    let mut config = Config::default();
    config.first_windows = config.windows;
    let mut pair = Pair::open(71, &config, &networks, ordered(Ordering::PerUrgency));
    pair.world.check_every = 0;
    pair.set_up(A, 1, false);
    let first = pair.send(A, only("net1"), OrderRequest::Unordered, Bytes::from_static(b"first"));
    let links = chain(&mut pair, first);
    // They arrive and wait for the first, which has no network.
    pair.until("all links are at the receiver", |pair| {
        pair.count(A, |event| matches!(event, Event::Acked { .. })) >= CHAIN
    });
    pair.cancel(A, first);
    pair.until("every link has its outcome", |pair| pair.outcome(A, links[CHAIN - 1]).is_some());
    assert_eq!(pair.outcome(A, links[CHAIN - 1]), Some(Outcome::Dropped(DropReason::Dependency)));
    assert!(pair.taken[B].is_empty());
}

#[test]
fn unordered_streams_take_turns() {
    let mut pair = Pair::open(8, &Config::default(), &[net(1_000_000, 20)], SessionConfig::default());
    let bulk = pair.begin_stream(A, Labels::foreground(), OrderRequest::Unordered);
    pair.write(A, bulk, &pattern(bulk.0, 3_000_000));
    let short: Vec<_> =
        (0..40).map(|_| pair.begin_stream(A, Labels::foreground(), OrderRequest::Unordered)).collect();
    for id in &short {
        pair.write(A, *id, &pattern(id.0, 100));
    }
    let arrived = |pair: &Pair, id: &MessageId| pair.streams[B].get(&id.0).map_or(0, |stream| stream.0.len());
    pair.until("every short one has arrived", |pair| short.iter().all(|id| arrived(pair, id) == 100));
    let ahead = arrived(&pair, &bulk);
    assert!(ahead < 1_500_000, "the short ones waited for {ahead} bytes");
    for id in short.iter().chain([&bulk]) {
        pair.finish_stream(A, *id);
    }
    pair.until_delivered(A, &[&short[..], &[bulk]].concat());
}
