//! Foreground beside background on one network, whose buffer is as deep as one likes.

use crate::pair::{A, B, Pair, ordered, pattern};
use bytes::Bytes;
use core::time::Duration;
use std::collections::BTreeMap;
use steadfast_session::{Config, OrderRequest, Ordering};
use steadfast_sim::world::Attachment;
use steadfast_wire::{Instant, Labels, MessageId};

const MS: Duration = Duration::from_millis(1);
const PIECE: usize = 64 * 1024;

/// Bulk in these directions and an exchange of 128 bytes each 100 ms.
struct Load {
    pair: Pair,
    bulk: [Option<MessageId>; 2],
    payload: Bytes,
    asked: Option<Instant>,
    trips: Vec<Duration>,
    /// Bytes of background that came in at each host.
    moved: [usize; 2],
    /// The same by message, of both hosts.
    streamed: BTreeMap<u64, usize>,
}

impl Load {
    fn new(seed: u64, networks: &[Attachment], directions: &[usize]) -> Self {
        let mut pair = Pair::open(seed, &Config::default(), networks, ordered(Ordering::PerUrgency));
        let mut bulk = [None; 2];
        for &host in directions {
            bulk[host] = Some(pair.begin_stream(host, Labels::background(), OrderRequest::Default));
        }
        Self {
            pair,
            bulk,
            payload: pattern(7, PIECE),
            asked: None,
            trips: Vec::new(),
            moved: [0; 2],
            streamed: BTreeMap::new(),
        }
    }

    /// Keeps the send buffers full and exchanges messages for so long; returns the exchanges' times, sorted.
    fn run(&mut self, time: Duration) -> Vec<Duration> {
        self.trips.clear();
        let end = self.pair.world.now + time;
        let mut next = self.pair.world.now;
        while self.pair.world.now < end {
            for host in [A, B] {
                let Some(id) = self.bulk[host] else { continue };
                let payload = self.payload.clone();
                while self
                    .pair
                    .on(host, |core, now, session| core.write(now, session, id, payload.clone()).is_ok())
                {
                }
            }
            if self.asked.is_none() && self.pair.world.now >= next {
                next = self.pair.world.now + 100 * MS;
                self.asked = Some(self.pair.world.now);
                self.pair.send(A, Labels::foreground(), OrderRequest::Unordered, pattern(1, 128));
            }
            self.pair.run(MS);
            self.answer();
        }
        let mut trips = self.trips.clone();
        trips.sort_unstable();
        trips
    }

    fn answer(&mut self) {
        let small = |taken: &mut Vec<steadfast_session::Received>| {
            let found = taken.iter().filter(|m| m.payload.is_some()).count();
            taken.clear();
            found
        };
        for _ in 0..small(&mut self.pair.taken[B]) {
            self.pair.send(B, Labels::foreground(), OrderRequest::Unordered, pattern(2, 128));
        }
        if small(&mut self.pair.taken[A]) > 0
            && let Some(asked) = self.asked.take()
        {
            self.trips.push(self.pair.world.now.since(asked));
        }
        for host in [A, B] {
            for (id, (bytes, _)) in &mut self.pair.streams[host] {
                self.moved[host] += bytes.len();
                *self.streamed.entry(*id).or_default() += bytes.len();
                bytes.clear();
            }
        }
    }
}

fn percentile(trips: &[Duration], percent: usize) -> Duration {
    trips[(trips.len() - 1) * percent / 100]
}

fn link(megabits: u64, rtt: u64) -> [Attachment; 1] {
    [Attachment::new(megabits * 125_000, Duration::from_millis(rtt) / 4)]
}

impl Load {
    /// What share of the link's rate background had, by the host that it came to.
    fn share(&self, host: usize, megabits: u64, time: Duration) -> f64 {
        self.moved[host] as f64 / (megabits as f64 * 125_000.0 * time.as_secs_f64())
    }
}

const SETTLE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(15);

#[test]
fn an_urgent_message_beside_bulk_meets_almost_an_idle_path() {
    // Megabits a second, round trip in milliseconds, where the bulk comes from; what p99 may be, and the least share.
    let cases = [
        (20, 40, &[A][..], 60, 0.95),
        (20, 40, &[A, B], 70, 0.93),
        (1, 40, &[A], 100, 0.93),
        (1, 40, &[A, B], 140, 0.88),
        (20, 200, &[A, B], 230, 0.9),
    ];
    for (megabits, rtt, from, limit, share) in cases {
        let mut load = Load::new(1, &link(megabits, rtt), from);
        load.run(SETTLE);
        load.moved = [0; 2];
        let trips = load.run(LOOK);
        let p99 = percentile(&trips, 99);
        assert!(p99 <= limit * MS, "{megabits} Mbit/s, {rtt} ms, from {from:?}: {p99:?}");
        for &host in from {
            let had = load.share(1 - host, megabits, LOOK);
            assert!(
                had >= share,
                "{megabits} Mbit/s, {rtt} ms, from {from:?}: background had {had:.3} of the link"
            );
        }
    }
}

#[test]
fn background_follows_the_rate_of_its_path() {
    let mut load = Load::new(2, &link(20, 40), &[A]);
    load.run(SETTLE);
    for megabits in [4, 40, 10] {
        for host in [A, B] {
            load.pair.world.nodes[host].attachments[0].rate = megabits * 125_000;
        }
        load.run(SETTLE);
        load.moved = [0; 2];
        let trips = load.run(SETTLE);
        let (p99, had) = (percentile(&trips, 99), load.share(B, megabits, SETTLE));
        assert!(p99 <= 75 * MS, "{megabits} Mbit/s: {p99:?}");
        assert!(had >= 0.9, "{megabits} Mbit/s: background had {had:.3} of the link");
    }
}

#[test]
fn a_clock_that_drifts_is_no_queue() {
    // Parts per million; quartz has some tens. In a minute that is more than the queue that we allow.
    for drift in [-300, 300] {
        let mut load = Load::new(3, &link(20, 40), &[A]);
        load.pair.world.nodes[B].drift = drift;
        load.run(SETTLE);
        load.moved = [0; 2];
        let time = Duration::from_secs(60);
        let trips = load.run(time);
        let (p99, had) = (percentile(&trips, 99), load.share(B, 20, time));
        assert!(p99 <= 65 * MS, "{drift}: {p99:?}");
        assert!(had >= 0.9, "{drift}: background had {had:.3} of the link");
    }
}

fn two(first: (u64, u64), second: (u64, u64)) -> [Attachment; 2] {
    [first, second].map(|(megabits, rtt)| Attachment::new(megabits * 125_000, Duration::from_millis(rtt) / 4))
}

#[test]
fn all_networks_carry_a_message_and_none_of_them_its_tail() {
    let cases = [
        ((100, 20), (100, 20)),
        ((100, 20), (100, 60)),
        ((80, 20), (20, 60)),
        ((80, 60), (20, 20)),
        ((1, 40), (8, 40)),
    ];
    for labels in [Labels::background(), Labels::foreground()] {
        for (first, second) in cases {
            let what = format!("{first:?} and {second:?} Mbit/s and ms, {labels:?}");
            let mut pair =
                Pair::open(4, &Config::default(), &two(first, second), ordered(Ordering::PerUrgency));
            let bytes = (first.0 + second.0) * 125_000 * 2;
            // At first nothing is known of the networks.
            for limit in [2600, 2200] {
                let begun = pair.world.now;
                let order = OrderRequest::Default;
                let id = pair.on(A, |core, now, session| {
                    core.begin(now, session, labels.clone(), order, Some(bytes)).expect("it begins")
                });
                let payload = pattern(1, bytes as usize);
                for at in (0..payload.len()).step_by(PIECE) {
                    pair.write(A, id, &payload.slice(at..payload.len().min(at + PIECE)));
                }
                pair.finish_stream(A, id);
                pair.until("it is there", |pair| {
                    pair.streams[B].get(&id.0).is_some_and(|(_, end)| *end == Some(true))
                });
                let took = pair.world.now.since(begun);
                assert!(took <= limit * MS, "{what}: two seconds' worth took {took:?}");
            }
        }
    }
}

#[test]
fn foreground_in_bulk_leaves_room_for_what_is_small_and_a_share_to_background() {
    let mut load = Load::new(5, &link(20, 40), &[A]);
    load.run(SETTLE);
    let id = load.pair.begin_stream(A, Labels::foreground(), OrderRequest::Unordered);
    let before = load.moved[B];
    let end = load.pair.world.now + LOOK;
    let (mut trips, mut written) = (Vec::new(), 0);
    while load.pair.world.now < end {
        // Always enough for the link, and never so much that the send buffer is full.
        while written < load.streamed.get(&id.0).copied().unwrap_or_default() + 8 * PIECE {
            let payload = load.payload.clone();
            load.pair.write(A, id, &payload);
            written += PIECE;
        }
        trips.extend(load.run(20 * MS));
    }
    trips.sort_unstable();
    let p99 = percentile(&trips, 99);
    assert!(p99 <= 75 * MS, "{p99:?}");
    let (urgent, all) = (load.streamed[&id.0], load.moved[B] - before);
    let share = 1.0 - urgent as f64 / all as f64;
    assert!((0.04..0.1).contains(&share), "background had {share:.3}");
}

#[test]
fn what_a_message_will_take_is_foretold_and_remembered_for_the_next_path() {
    let mut pair = Pair::open(6, &Config::default(), &two((80, 20), (20, 60)), ordered(Ordering::PerUrgency));
    let ask = |pair: &Pair, labels: &Labels, bytes: u64| {
        let found = pair.world.nodes[A].core.forecast(pair.session, labels, bytes);
        found.expect("it lives").expect("there is a path")
    };
    let bulk = Labels::background();
    assert!(!ask(&pair, &bulk, 1 << 20).measured, "nothing was sent yet");
    let payload = pattern(1, 5_000_000);
    for known in [false, true, true] {
        if known {
            let told = ask(&pair, &bulk, payload.len() as u64);
            assert!(told.measured);
            let ideal = 400 * MS;
            assert!(told.likely.abs_diff(ideal) < ideal / 5, "{told:?}");
            assert!(told.earliest <= told.likely && told.likely <= told.latest, "{told:?}");
        }
        let begun = pair.world.now;
        let id = pair.begin_stream(A, bulk.clone(), OrderRequest::Default);
        for at in (0..payload.len()).step_by(PIECE) {
            pair.write(A, id, &payload.slice(at..payload.len().min(at + PIECE)));
        }
        pair.finish_stream(A, id);
        pair.until("it is there", |pair| {
            pair.streams[B].get(&id.0).is_some_and(|(_, end)| *end == Some(true))
        });
        assert!(pair.world.now.since(begun) < Duration::from_secs(1));
        pair.run(Duration::from_secs(1));
    }
    let small = ask(&pair, &Labels::foreground(), 100);
    assert!(small.likely.abs_diff(12 * MS) < 5 * MS && small.earliest >= 10 * MS, "{small:?}");

    // The networks vanish and come back: there are new paths, of which something is known.
    for up in [false, true] {
        for network in [0, 1] {
            pair.set_up(A, network, up);
        }
        pair.run(Duration::from_secs(2));
    }
    assert!(ask(&pair, &bulk, 1 << 20).measured);
}

#[test]
fn a_small_message_passes_any_number_of_large_ones() {
    let mut pair = Pair::open(41, &Config::default(), &link(5, 40), ordered(Ordering::PerUrgency));
    let large: Vec<_> = (0..30)
        .map(|n| pair.send(A, Labels::foreground(), OrderRequest::Unordered, pattern(n, 100_000)))
        .collect();
    pair.run(500 * MS);
    let small = pair.send(A, Labels::foreground(), OrderRequest::Unordered, pattern(99, 100));
    pair.until_delivered(A, &[small]);
    let passed = large.iter().filter(|id| pair.outcome(A, **id).is_none()).count();
    assert!(passed > 20, "only {passed} of 30 large ones were passed");
    pair.until_delivered(A, &large);
}
