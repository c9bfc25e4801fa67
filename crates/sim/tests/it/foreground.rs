//! Foreground beside background on one network, whose buffer is as deep as one likes.

use crate::pair::{A, B, Pair, ordered, pattern};
use bytes::Bytes;
use core::time::Duration;
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
}

impl Load {
    fn new(seed: u64, networks: &[Attachment], directions: &[usize]) -> Self {
        let mut pair = Pair::open(seed, &Config::default(), networks, ordered(Ordering::PerUrgency));
        let mut bulk = [None; 2];
        for &host in directions {
            bulk[host] = Some(pair.begin_stream(host, Labels::background(), OrderRequest::Default));
        }
        Self { pair, bulk, payload: pattern(7, PIECE), asked: None, trips: Vec::new(), moved: [0; 2] }
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
                self.pair.send(A, Labels::foreground(), OrderRequest::Default, pattern(1, 128));
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
            self.pair.send(B, Labels::foreground(), OrderRequest::Default, pattern(2, 128));
        }
        if small(&mut self.pair.taken[A]) > 0
            && let Some(asked) = self.asked.take()
        {
            self.trips.push(self.pair.world.now.since(asked));
        }
        for host in [A, B] {
            for (bytes, _) in self.pair.streams[host].values_mut() {
                self.moved[host] += bytes.len();
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
