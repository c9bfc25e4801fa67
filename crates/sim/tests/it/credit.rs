//! Readers that are slow, windows that are spent, and the message that must always finish.

use crate::pair::{A, B, Pair, net, ordered, pattern};
use bytes::Bytes;
use core::time::Duration;
use steadfast_session::{Config, Event, OrderRequest, Ordering, Read, SendError, SessionConfig};
use steadfast_wire::{Labels, MessageId, Rule, Selector, Urgency};

/// Small windows and buffers, so that they are soon full.
fn small() -> Config {
    let mut config = Config::default();
    config.max_message = 8 * 1024;
    config.windows = [32 * 1024, 32 * 1024];
    config.send_buffers = [32 * 1024, 32 * 1024];
    config
}

fn only(network: &str) -> Labels {
    Labels::foreground().rule(Rule::default().require(Selector::Name(network.into())))
}

fn try_piece(pair: &mut Pair, labels: &Labels, number: usize) -> Result<MessageId, SendError> {
    pair.try_send(A, labels.clone(), OrderRequest::Default, pattern(number as u64, 4000))
}

/// Sends pieces until there is no room and none comes for long; returns how many were accepted.
fn fill(pair: &mut Pair, labels: &Labels, ids: &mut Vec<MessageId>) -> usize {
    let mut quiet = 0;
    let mut accepted = 0;
    while quiet < 3 {
        match try_piece(pair, labels, ids.len()) {
            Ok(id) => {
                ids.push(id);
                accepted += 1;
                quiet = 0;
            }
            Err(SendError::Full(urgency)) => {
                assert_eq!(urgency, labels.urgency);
                pair.run(Duration::from_secs(5));
                quiet += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(accepted < 10_000, "nothing ever stopped the writer");
    }
    accepted
}

fn writable(pair: &Pair) -> usize {
    pair.count(A, |event| matches!(event, Event::Writable { .. }))
}

#[test]
fn a_slow_reader_stops_the_writer_and_a_reader_that_goes_on_frees_it() {
    for labels in [Labels::foreground(), Labels::background()] {
        let mut pair = Pair::open(1, &small(), &[net(1_000_000, 20)], SessionConfig::default());
        pair.reads[B] = false;
        let mut ids = Vec::new();
        let accepted = fill(&mut pair, &labels, &mut ids);
        // A window at the reader and a buffer at the writer, and a message or so over each.
        assert!((10..=20).contains(&accepted), "{accepted} messages of 4000 bytes");
        let (told, before) = (writable(&pair), pair.count(A, |e| matches!(e, Event::Acked { .. })));
        pair.run(Duration::from_secs(600));
        assert_eq!(pair.count(A, |e| matches!(e, Event::Acked { .. })), before, "nothing moves");
        assert_eq!(writable(&pair), told);
        pair.take(B);
        pair.until("the writer is told", |pair| writable(pair) > told);
        ids.push(try_piece(&mut pair, &labels, ids.len()).expect("there is room"));
        pair.reads[B] = true;
        pair.take(B);
        pair.until_delivered(A, &ids);
        for (number, message) in pair.taken[B].iter().enumerate() {
            assert_eq!(message.payload, Some(pattern(number as u64, 4000)));
        }
    }
}

#[test]
fn a_stream_that_is_not_read_stops_its_writer_only() {
    let mut pair = Pair::open(2, &small(), &[net(1_000_000, 20)], SessionConfig::default());
    pair.reads[B] = false;
    let stream = pair.begin_stream(A, Labels::background(), OrderRequest::Default);
    let mut written = 0;
    loop {
        let piece = pattern(3, 200_000).slice(written..written + 1000);
        match pair.on(A, |core, now, session| core.write(now, session, stream, piece)) {
            Ok(()) => written += 1000,
            Err(SendError::Full(Urgency::Background)) if written > 60_000 => break,
            Err(SendError::Full(_)) => pair.run(Duration::from_secs(1)),
            Err(error) => panic!("{error}"),
        }
        assert!(written < 100_000, "nothing ever stopped the writer");
    }
    pair.run(Duration::from_secs(60));
    // Foreground passes: nothing that background holds is in its way.
    for number in 0..100_u64 {
        let id = pair.send(A, Labels::foreground(), OrderRequest::Default, pattern(number, 4000));
        pair.until("foreground arrives", |pair| {
            pair.saw(A, |event| matches!(event, Event::Acked { id: of, .. } if *of == id))
        });
        let message = pair.recv(B).expect("it has arrived");
        assert_eq!((message.id, message.payload), (id, Some(pattern(number, 4000))));
    }
    assert_eq!(pair.recv(B).expect("the stream has begun").id, stream);
    pair.reads[B] = true;
    pair.take(B);
    pair.write(A, stream, &pattern(3, 200_000).slice(written..written + 1000));
    pair.finish_stream(A, stream);
    pair.until_delivered(A, &[stream]);
    assert!(pair.streams[B][&stream.0].0 == pattern(3, 200_000)[..written + 1000]);
}

#[test]
fn background_that_nobody_takes_does_not_stop_foreground() {
    let networks = [net(1_000_000, 20), net(300_000, 60)];
    let mut pair = Pair::open(3, &small(), &networks, ordered(Ordering::PerUrgency));
    pair.reads[B] = false;
    let mut ids = Vec::new();
    fill(&mut pair, &Labels::background(), &mut ids);
    // One application takes foreground only: the first in line, as long as there is any.
    for number in 0..50_u64 {
        let id = pair.send(A, Labels::foreground(), OrderRequest::Default, pattern(number, 4000));
        pair.until("foreground arrives", |pair| {
            pair.saw(A, |event| matches!(event, Event::Acked { id: of, .. } if *of == id))
        });
        assert_eq!(pair.recv(B).expect("foreground is first").id, id);
        pair.until_delivered(A, &[id]);
    }
    pair.reads[B] = true;
    pair.take(B);
    pair.until_delivered(A, &ids);
}

#[test]
fn a_message_over_the_limit_is_refused_with_what_to_do() {
    let mut pair = Pair::open(4, &small(), &[net(1_000_000, 20)], SessionConfig::default());
    for labels in [Labels::foreground(), Labels::background()] {
        let send = |pair: &mut Pair, size: usize| {
            pair.try_send(A, labels.clone(), OrderRequest::Default, pattern(1, size))
        };
        let error = send(&mut pair, 8 * 1024 + 1).expect_err("one byte too many");
        assert_eq!(error, SendError::TooLarge { size: 8 * 1024 + 1, limit: 8 * 1024 });
        assert!(error.to_string().contains("8193") && error.to_string().contains("`begin`"), "{error}");
        let id = send(&mut pair, 8 * 1024).expect("exactly the limit");
        pair.until_delivered(A, &[id]);
    }
    // The advice works.
    let stream = pair.begin_stream(A, Labels::foreground(), OrderRequest::Default);
    pair.write(A, stream, &pattern(1, 8 * 1024 + 1));
    pair.finish_stream(A, stream);
    pair.until_delivered(A, &[stream]);
    assert_eq!(pair.ids(B), [1, 2, 3], "what was refused took no number");
    // A length that was promised is kept.
    let (labels, order) = (Labels::foreground(), OrderRequest::Default);
    let promised = pair.on(A, |core, now, s| core.begin(now, s, labels, order, Some(5))).expect("begins");
    let six = pair.on(A, |core, now, s| core.write(now, s, promised, Bytes::from_static(b"sixsix")));
    assert_eq!(six, Err(SendError::TooLarge { size: 6, limit: 5 }));
    pair.write(A, promised, &Bytes::from_static(b"fives"));
    pair.finish_stream(A, promised);
    pair.until_delivered(A, &[promised]);
}

#[test]
fn the_oldest_message_finishes_when_later_ones_have_spent_the_window() {
    for (seed, reads) in [(5, true), (6, false)] {
        let networks = [net(1_000_000, 20), net(300_000, 60)];
        let mut pair = Pair::open(seed, &small(), &networks, ordered(Ordering::Total));
        pair.reads[B] = reads;
        pair.set_up(A, 1, false);
        let mut ids = vec![pair.send(A, only("net1"), OrderRequest::Default, pattern(0, 8 * 1024))];
        // All that comes later waits for it at the receiver, and holds the whole window.
        fill(&mut pair, &Labels::foreground(), &mut ids);
        assert!(pair.taken[B].is_empty());
        pair.set_up(A, 1, true);
        pair.reads[B] = true;
        pair.until_delivered(A, &ids);
        assert_eq!(pair.ids(B), (1..=ids.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn several_old_messages_finish_one_after_the_other() {
    let networks = [net(1_000_000, 20), net(300_000, 60), net(500_000, 30)];
    let mut pair = Pair::open(7, &small(), &networks, ordered(Ordering::Total));
    pair.set_up(A, 1, false);
    pair.set_up(A, 2, false);
    let mut ids: Vec<_> = (0..3)
        .map(|n| {
            let labels = only(if n % 2 == 0 { "net1" } else { "net2" });
            pair.send(A, labels, OrderRequest::Default, pattern(n, 8 * 1024))
        })
        .collect();
    while let Ok(id) = try_piece(&mut pair, &Labels::foreground(), ids.len()) {
        ids.push(id);
        pair.run(Duration::from_millis(500));
    }
    // The second of them can go first; only the first one lets anything be taken.
    pair.set_up(A, 2, true);
    pair.run(Duration::from_secs(60));
    assert!(pair.taken[B].is_empty());
    pair.set_up(A, 1, true);
    pair.until_delivered(A, &ids);
    assert_eq!(pair.ids(B), (1..=ids.len() as u64).collect::<Vec<_>>());
}

#[test]
fn an_old_message_finishes_after_one_that_gave_back_little() {
    let networks = [net(1_000_000, 20), net(300_000, 60)];
    let mut pair = Pair::open(10, &small(), &networks, ordered(Ordering::Total));
    pair.set_up(A, 1, false);
    let mut ids: Vec<_> = [100, 8 * 1024, 700, 8 * 1024]
        .map(|size| pair.send(A, only("net1"), OrderRequest::Default, pattern(size as u64, size)))
        .into();
    fill(&mut pair, &Labels::foreground(), &mut ids);
    pair.set_up(A, 1, true);
    pair.until_delivered(A, &ids);
    assert_eq!(pair.ids(B), (1..=ids.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_stream_begun_first_and_written_last_drains() {
    for length in [0, 1, 5000, 300_000] {
        let networks = [net(1_000_000, 20), net(300_000, 60)];
        let mut pair = Pair::open(8, &small(), &networks, ordered(Ordering::Total));
        let stream = pair.begin_stream(A, Labels::foreground(), OrderRequest::Default);
        let mut ids = vec![stream];
        let pieces = fill(&mut pair, &Labels::background(), &mut ids);
        let more = fill(&mut pair, &Labels::foreground(), &mut ids);
        assert!(pieces + more > 8, "the windows are full: {pieces} and {more}");
        assert!(pair.taken[B].is_empty());
        // The send buffer is full of what waits for the stream: its own bytes must have room all the same.
        let all = pattern(9, length);
        for chunk in all.chunks(2000) {
            pair.write(A, stream, &Bytes::copy_from_slice(chunk));
        }
        pair.finish_stream(A, stream);
        pair.until_delivered(A, &ids);
        assert!(pair.streams[B][&stream.0].0 == all, "of {length} bytes");
        assert_eq!(pair.ids(B), (1..=ids.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn reading_a_stream_slowly_in_a_full_window_gives_its_bytes() {
    let mut pair = Pair::open(9, &small(), &[net(1_000_000, 20)], ordered(Ordering::Total));
    pair.reads[B] = false;
    let stream = pair.begin_stream(A, Labels::foreground(), OrderRequest::Default);
    let all = pattern(4, 100_000);
    let mut written = 0;
    let mut got = Vec::new();
    while got.len() < all.len() {
        let next = (written + 3000).min(all.len());
        let piece = all.slice(written..next);
        if next > written && pair.on(A, |core, now, s| core.write(now, s, stream, piece)).is_ok() {
            written = next;
        }
        pair.run(Duration::from_millis(200));
        if pair.streams[B].is_empty() && pair.recv(B).is_none() {
            continue;
        }
        if let Some(Read::Chunk(bytes)) = pair.read(B, stream) {
            got.extend_from_slice(&bytes);
        }
    }
    assert!(got == all);
    pair.finish_stream(A, stream);
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.read(B, stream), Some(Read::End));
    pair.until_delivered(A, &[stream]);
}

#[test]
fn a_large_message_passes_a_stream_that_stays_open() {
    let mut pair = Pair::open(12, &Config::default(), &[net(5_000_000, 5)], SessionConfig::default());
    let stream = pair.begin_stream(A, Labels::background(), OrderRequest::Default);
    pair.write(A, stream, &Bytes::from_static(b"a log that never ends"));
    for size in [300_000, 1 << 20, 1 << 20] {
        let id = pair.send(A, Labels::foreground(), OrderRequest::Default, pattern(1, size));
        pair.until_delivered(A, &[id]);
    }
}
