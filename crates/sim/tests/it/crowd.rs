//! Several peers and several conversations behind one network: bulk to all of them, and an urgent exchange with each.

use crate::pair::{ordered, pattern};
use bytes::Bytes;
use core::time::Duration;
use steadfast_session::{Config, Event, OrderRequest, Ordering, Read, Recv};
use steadfast_sim::world::{Attachment, Step, World, identity};
use steadfast_wire::{Instant, Labels, MessageId, SessionId};

const MS: Duration = Duration::from_millis(1);
const PIECE: usize = 64 * 1024;
/// More than the path holds, and less than fills a send buffer.
const AHEAD: usize = 16 * PIECE;
/// The host that sends to all others.
const SOURCE: usize = 0;
const SETTLE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(15);

/// A conversation of the source with one of the others.
struct Talk {
    peer: usize,
    session: SessionId,
    bulk: Option<MessageId>,
    /// The same, as far as the peer has heard of it.
    reading: Option<MessageId>,
    /// Bytes of bulk that were written and not read.
    ahead: usize,
    asked: Option<Instant>,
    trips: Vec<Duration>,
    /// Bytes of bulk that the peer read.
    moved: usize,
}

struct Crowd {
    world: World,
    talks: Vec<Talk>,
    payload: Bytes,
    megabits: u64,
    /// What bulk is sent with.
    labels: Labels,
}

impl Crowd {
    /// So many peers with so many conversations each, all behind the source's link of this rate and round trip.
    fn new(seed: u64, megabits: u64, rtt: u64, peers: usize, conversations: usize) -> Self {
        let mut world = World::new(seed);
        world.check_every = 16;
        let delay = Duration::from_millis(rtt) / 4;
        world.add_host(Config::default(), vec![Attachment::new(megabits * 125_000, delay)]);
        for _ in 0..peers {
            world.add_host(Config::default(), vec![Attachment::new(125_000_000, delay)]);
        }
        let mut crowd = Self {
            world,
            talks: Vec::new(),
            payload: pattern(7, PIECE),
            megabits,
            labels: Labels::background(),
        };
        for peer in (1..=peers).flat_map(|peer| vec![peer; conversations]) {
            crowd.talk_to(peer);
        }
        crowd
    }

    fn talk_to(&mut self, peer: usize) {
        let (now, address) = (self.world.clock(SOURCE), self.world.address(peer, 0));
        let core = &mut self.world.nodes[SOURCE].core;
        let session = core.connect(now, identity(peer), &[address], ordered(Ordering::PerUrgency));
        self.talks.push(Talk {
            peer,
            session,
            bulk: None,
            reading: None,
            ahead: 0,
            asked: None,
            trips: Vec::new(),
            moved: 0,
        });
        self.world.pump(SOURCE);
    }

    /// Keeps an exchange going with everybody, and bulk with those of whom `bulk` says so.
    fn run(&mut self, time: Duration, bulk: impl Fn(usize) -> bool) {
        for talk in &mut self.talks {
            talk.trips.clear();
            talk.moved = 0;
        }
        let end = self.world.now + time;
        let mut next = self.world.now;
        while self.world.now < end {
            let now = self.world.clock(SOURCE);
            let asks = self.world.now >= next;
            let core = &mut self.world.nodes[SOURCE].core;
            for (number, talk) in self.talks.iter_mut().enumerate() {
                if bulk(number) {
                    let mut begin =
                        || core.begin(now, talk.session, self.labels.clone(), OrderRequest::Default, None);
                    let id = *talk.bulk.get_or_insert_with(|| begin().expect("it begins"));
                    while talk.ahead < AHEAD {
                        core.write(now, talk.session, id, self.payload.clone()).expect("there is room");
                        talk.ahead += PIECE;
                    }
                } else if let Some(id) = talk.bulk.take() {
                    core.cancel(now, talk.session, id).expect("the conversation goes on");
                    talk.ahead = 0;
                }
                if asks && talk.asked.is_none() {
                    talk.asked = Some(self.world.now);
                    core.send(
                        now,
                        talk.session,
                        Labels::foreground(),
                        OrderRequest::Unordered,
                        self.payload.slice(..128),
                    )
                    .expect("there is room");
                }
            }
            if asks {
                next = self.world.now + 100 * MS;
            }
            self.world.pump(SOURCE);
            let until = self.world.now + MS;
            while self.world.step(until) != Step::Over {
                self.hear();
            }
            self.world.now = until;
            self.hear();
        }
    }

    /// Takes, reads and answers whatever came in.
    fn hear(&mut self) {
        while !self.world.events.is_empty() {
            for (host, event) in std::mem::take(&mut self.world.events) {
                match event {
                    Event::Incoming { .. } => {
                        let now = self.world.clock(host);
                        while self.world.nodes[host].core.accept(now, ordered(Ordering::PerUrgency)).is_some()
                        {
                        }
                    }
                    Event::Readable { session } => self.take(host, session),
                    Event::PathDown(..) | Event::Ended { .. } => panic!("{event:?} at {host}"),
                    _ => {}
                }
            }
        }
    }

    fn take(&mut self, host: usize, session: SessionId) {
        let now = self.world.clock(host);
        let talk = self.talks.iter_mut().find(|talk| talk.session == session).expect("it is one of ours");
        let core = &mut self.world.nodes[host].core;
        while let Ok(Recv::Message(message)) = core.recv(now, session) {
            match message.payload {
                None => talk.reading = Some(message.id),
                Some(_) if host == SOURCE => {
                    talk.trips.extend(talk.asked.take().map(|asked| self.world.now.since(asked)));
                }
                Some(payload) => {
                    core.send(now, session, Labels::foreground(), OrderRequest::Unordered, payload)
                        .expect("there is room");
                }
            }
        }
        if let Some(id) = talk.reading.filter(|_| host == talk.peer) {
            while let Ok(Read::Chunk(bytes)) = core.read(now, session, id) {
                talk.moved += bytes.len();
                talk.ahead = talk.ahead.saturating_sub(bytes.len());
            }
        }
        self.world.pump(host);
    }

    /// What share of the link each conversation's bulk had in the last run, which took so long.
    fn shares(&self, time: Duration) -> Vec<f64> {
        let all = self.megabits as f64 * 125_000.0 * time.as_secs_f64();
        self.talks.iter().map(|talk| talk.moved as f64 / all).collect()
    }

    /// The 99th of a hundred exchanges of the conversation that fared worst.
    fn worst(&self) -> Duration {
        let of = |talk: &Talk| {
            let mut trips = talk.trips.clone();
            trips.sort_unstable();
            trips[(trips.len() - 1) * 99 / 100]
        };
        self.talks.iter().map(of).max().expect("there are some")
    }
}

#[test]
fn bulk_to_many_leaves_an_urgent_message_almost_an_idle_path_and_each_its_share() {
    // Megabits a second, round trip in milliseconds, peers, conversations with each; what p99 may be anywhere, and the
    // least share of the link for all. Each bulk keeps a queue of its path's own, 10 ms or two packets.
    let cases = [
        (20, 40, 1, 4, 60, 0.97),
        (20, 40, 2, 2, 65, 0.97),
        (20, 40, 3, 1, 65, 0.97),
        (5, 40, 3, 2, 90, 0.95),
        (100, 20, 3, 2, 40, 0.98),
        (20, 200, 2, 1, 225, 0.95),
    ];
    for (megabits, rtt, peers, conversations, limit, least) in cases {
        let what =
            format!("{megabits} Mbit/s, {rtt} ms, {peers} peers, {conversations} conversations with each");
        let mut crowd = Crowd::new(1, megabits, rtt, peers, conversations);
        crowd.run(SETTLE, |_| true);
        crowd.run(LOOK, |_| true);
        let (worst, shares) = (crowd.worst(), crowd.shares(LOOK));
        assert!(worst <= limit * MS, "{what}: {worst:?}");
        assert!(shares.iter().sum::<f64>() >= least, "{what}: {shares:?}");
        let fair = least / shares.len() as f64;
        assert!(shares.iter().all(|share| *share >= fair / 2.0), "{what}: {shares:?}");
        // To one peer they take turns.
        for of_peer in shares.chunks(conversations) {
            let mean = of_peer.iter().sum::<f64>() / conversations as f64;
            assert!(of_peer.iter().all(|share| (share / mean - 1.0).abs() < 0.05), "{what}: {shares:?}");
        }
    }
}

#[test]
fn who_comes_later_and_who_was_first_both_have_a_share() {
    // As above, with what p99 may be while the new path has still to learn that the queue it met is ours.
    for (megabits, rtt, at_first, limit) in [(20, 40, 90, 70), (5, 40, 100, 80), (20, 200, 260, 230)] {
        let what = format!("{megabits} Mbit/s, {rtt} ms");
        let mut crowd = Crowd::new(1, megabits, rtt, 1, 1);
        let delay = Duration::from_millis(rtt) / 4;
        let late = crowd.world.add_host(Config::default(), vec![Attachment::new(125_000_000, delay)]);
        crowd.run(SETTLE, |_| true);
        crowd.talk_to(late);
        for (time, limit) in [(SETTLE, at_first), (LOOK, limit), (LOOK, limit)] {
            crowd.run(time, |_| true);
            assert!(crowd.worst() <= limit * MS, "{what}: {:?} of {limit} ms", crowd.worst());
        }
        let shares = crowd.shares(LOOK);
        assert!(shares.iter().all(|share| *share >= 0.1), "{what}: {shares:?}");
        assert!(shares.iter().sum::<f64>() >= 0.95, "{what}: {shares:?}");
        // What one leaves the other takes, whichever it is.
        for left in [0, 1] {
            crowd.run(SETTLE, |number| number == left);
            crowd.run(LOOK, |number| number == left);
            let (worst, shares) = (crowd.worst(), crowd.shares(LOOK));
            assert!(worst <= limit * MS, "{what}: {worst:?}");
            assert!(shares[left] >= 0.95, "{what}: {shares:?}");
        }
    }
}

#[test]
fn large_urgent_messages_of_all_conversations_share_and_let_small_ones_pass() {
    // Megabits a second, round trip in milliseconds, conversations with one peer, what p99 of a small message may be.
    for (megabits, rtt, conversations, limit) in
        [(20, 40, 2, 60), (20, 40, 4, 60), (5, 40, 4, 80), (100, 20, 4, 40)]
    {
        let what = format!("{megabits} Mbit/s, {rtt} ms, {conversations} conversations");
        let mut crowd = Crowd::new(1, megabits, rtt, 1, conversations + 1);
        crowd.labels = Labels::foreground();
        // The last one has small messages only.
        let bulk = |number| number < conversations;
        crowd.run(SETTLE, bulk);
        crowd.run(LOOK, bulk);
        let (worst, shares) = (crowd.worst(), crowd.shares(LOOK));
        assert!(worst <= limit * MS, "{what}: {worst:?}");
        let fair = 0.95 / conversations as f64;
        assert!(shares[..conversations].iter().all(|share| *share >= fair * 0.9), "{what}: {shares:?}");
    }
}
