//! Several processes on one host, whose background shares one network: as it is without arbitration, and with it.

use crate::pair::pattern;
use bytes::Bytes;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use steadfast_session::{
    Arbiter, Config, Event, OrderRequest, Owner, ProcessId, Read, Recv, Report, SessionConfig, Share,
};
use steadfast_sim::world::{Attachment, Step, World, identity};
use steadfast_wire::{Instant, Labels, MessageId, NetworkId, SessionId};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const PIECE: usize = 64 * 1024;
/// How often a process asks something small and urgent.
const PACE: Duration = Duration::from_millis(23);

/// One process of the host.
struct Process {
    node: usize,
    session: SessionId,
    bulk: Option<MessageId>,
    /// It asks each [`PACE`], and when it asks next.
    asks: Option<Instant>,
    asked: BTreeMap<u64, Instant>,
    trips: Vec<Duration>,
    /// Bytes of its bulk that came in.
    moved: u64,
}

/// How often a process reports, and how long what is said between it and the arbiter takes.
const REPORTS: Duration = Duration::from_millis(100);
const LATENCY: Duration = MS;

/// What is under way between processes and the arbiter of their host.
enum Mail {
    Report(usize, Report),
    Share(usize, Share),
}

/// A host with several processes, and other hosts that take all they send.
struct Crowd {
    world: World,
    processes: Vec<Process>,
    streams: BTreeSet<(usize, SessionId, MessageId)>,
    payload: Bytes,
    arbiter: Option<Arbiter>,
    /// When each process reports next.
    reports: Vec<Instant>,
    mail: VecDeque<(Instant, Mail)>,
}

fn config() -> Config {
    let mut config = Config::default();
    // What a process that stops sending still has is soon gone.
    config.send_buffers = [4 << 20, 2 << 20];
    config
}

/// A link of so many megabits a second and a round trip of so many milliseconds between two of its kind.
fn link(megabits: u64, rtt: u64) -> Attachment {
    Attachment::new(megabits * 125_000, Duration::from_millis(rtt) / 4)
}

impl Crowd {
    /// As many processes as `sinks` says; each talks to the host of that number.
    fn new(seed: u64, own: Attachment, others: &[Attachment], sinks: &[usize]) -> Self {
        let mut world = World::new(seed);
        world.check_every = 97;
        let first = world.add_host(config(), vec![own]);
        let nodes: Vec<usize> = (0..sinks.len())
            .map(|at| if at == 0 { first } else { world.add_process(config(), first) })
            .collect();
        let hosts: Vec<usize> =
            others.iter().map(|other| world.add_host(config(), vec![other.clone()])).collect();
        let mut processes = Vec::new();
        for (node, sink) in nodes.into_iter().zip(sinks) {
            let (to, now) = (hosts[*sink], world.clock(node));
            let address = world.address(to, 0);
            let core = &mut world.nodes[node].core;
            let session = core.connect(now, identity(to), &[address], SessionConfig::default());
            world.pump(node);
            processes.push(Process {
                node,
                session,
                bulk: None,
                asks: None,
                asked: BTreeMap::new(),
                trips: Vec::new(),
                moved: 0,
            });
        }
        let payload = pattern(7, PIECE);
        // They report at times of their own.
        let reports =
            (0..processes.len() as u32).map(|at| world.now + REPORTS * (at * 7 % 10) / 10).collect();
        let streams = BTreeSet::new();
        let mut crowd =
            Self { world, processes, streams, payload, arbiter: None, reports, mail: VecDeque::new() };
        crowd.run(2 * SECOND);
        crowd
    }

    fn asks(&mut self, process: usize) {
        self.processes[process].asks = Some(self.world.now);
    }

    fn begin(&mut self, process: usize, labels: Labels) {
        let Process { node, session, .. } = self.processes[process];
        let now = self.world.clock(node);
        let core = &mut self.world.nodes[node].core;
        let id = core.begin(now, session, labels, OrderRequest::Unordered, None).expect("it begins");
        self.processes[process].bulk = Some(id);
    }

    fn end(&mut self, process: usize) {
        let Process { node, session, bulk, .. } = self.processes[process];
        let now = self.world.clock(node);
        let id = bulk.expect("it has begun");
        self.world.nodes[node].core.cancel(now, session, id).expect("it can be cancelled");
        self.world.pump(node);
        self.processes[process].bulk = None;
    }

    /// Lets time pass; everybody does what they do.
    fn run(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            self.write();
            self.ask();
            self.arbitrate();
            let until = self.world.now + MS;
            while self.world.step(until) != Step::Over {
                self.absorb();
            }
            self.world.now = until;
        }
    }

    fn arbitrate(&mut self) {
        let now = self.world.now;
        for (at, process) in self.processes.iter().enumerate() {
            if self.arbiter.is_some() && self.reports[at] <= now {
                self.reports[at] = now + REPORTS;
                let report = self.world.nodes[process.node].core.network_use(now);
                self.mail.push_back((now + LATENCY, Mail::Report(at, report)));
            }
        }
        while self.mail.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, mail)) = self.mail.pop_front()
        {
            match mail {
                Mail::Report(from, report) => {
                    let Some(arbiter) = &mut self.arbiter else { continue };
                    let owner = Owner { user: 0, namespace: 0 };
                    arbiter.handle_timeout(now);
                    arbiter.handle_report(now, ProcessId(from as u64), owner, &report);
                    while let Some((process, share)) = arbiter.poll_share() {
                        let mail = Mail::Share(process.0 as usize, share);
                        self.mail.push_back((now + LATENCY, mail));
                    }
                }
                Mail::Share(to, share) => {
                    let node = self.processes[to].node;
                    self.world.nodes[node].core.set_share(now, share);
                    self.world.pump(node);
                }
            }
        }
    }

    fn write(&mut self) {
        for process in &self.processes {
            let Some(id) = process.bulk else { continue };
            let now = self.world.clock(process.node);
            let core = &mut self.world.nodes[process.node].core;
            while core.write(now, process.session, id, self.payload.clone()).is_ok() {}
            self.world.pump(process.node);
        }
    }

    fn ask(&mut self) {
        for process in &mut self.processes {
            let now = self.world.now;
            let Some(at) = process.asks.filter(|at| *at <= now) else { continue };
            process.asks = Some(at + PACE);
            let core = &mut self.world.nodes[process.node].core;
            let sent = core.send(
                now,
                process.session,
                Labels::foreground(),
                OrderRequest::Unordered,
                pattern(1, 128),
            );
            process.asked.insert(sent.expect("it is small").0, now);
            self.world.pump(process.node);
        }
    }

    fn absorb(&mut self) {
        for (node, event) in std::mem::take(&mut self.world.events) {
            match event {
                Event::Incoming { session, .. } | Event::Readable { session } => self.take(node, session),
                Event::Outcome { session, id, .. } => {
                    let now = self.world.now;
                    let found = self.processes.iter_mut().find(|p| p.node == node && p.session == session);
                    if let Some(process) = found
                        && let Some(asked) = process.asked.remove(&id.0)
                    {
                        process.trips.push(now.since(asked));
                    }
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, node: usize, session: SessionId) {
        let now = self.world.clock(node);
        let core = &mut self.world.nodes[node].core;
        while core.accept(now, SessionConfig::default()).is_some() {}
        while let Ok(Recv::Message(message)) = core.recv(now, session) {
            if message.payload.is_none() {
                self.streams.insert((node, session, message.id));
            }
        }
        let mine = (node, session, MessageId(0))..=(node, session, MessageId(u64::MAX));
        for (_, _, id) in self.streams.range(mine).copied().collect::<Vec<_>>() {
            loop {
                match core.read(now, session, id) {
                    Ok(Read::Chunk(bytes)) => {
                        let from = self.processes.iter_mut().find(|process| process.session == session);
                        from.expect("somebody sent it").moved += bytes.len() as u64;
                    }
                    Ok(Read::Pending) => break,
                    _ => {
                        self.streams.remove(&(node, session, id));
                        break;
                    }
                }
            }
        }
        self.world.pump(node);
    }

    /// Runs for so long; what each process moved, as a part of `megabits`.
    fn measure(&mut self, time: Duration, megabits: u64) -> Vec<f64> {
        for process in &mut self.processes {
            process.moved = 0;
            process.trips.clear();
        }
        self.run(time);
        let all = megabits as f64 * 125_000.0 * time.as_secs_f64();
        self.processes.iter().map(|process| process.moved as f64 / all).collect()
    }

    /// The median and the 99th percentile of what a process's exchanges took.
    fn trips(&self, process: usize) -> [Duration; 2] {
        let mut trips = self.processes[process].trips.clone();
        trips.sort_unstable();
        [50, 99].map(|percent| trips[(trips.len() - 1) * percent / 100])
    }
}

/// How even these parts are: 1 if all are the same, 1/n if one has everything (Jain, Chiu and Hawe, 1984).
fn evenness(parts: &[f64]) -> f64 {
    let (sum, squares) = (parts.iter().sum::<f64>(), parts.iter().map(|part| part * part).sum::<f64>());
    sum * sum / (parts.len() as f64 * squares)
}

/// Processes that all talk to one host behind a wide link; the first one only asks.
fn beside(senders: usize, megabits: u64, rtt: u64, arbiter: bool) -> Crowd {
    let mut crowd = Crowd::new(1, link(megabits, rtt), &[link(1000, rtt)], &vec![0; senders + 1]);
    crowd.arbiter = arbiter.then(|| Arbiter::new(10 * MS));
    crowd.asks(0);
    crowd
}

/// What is left when so many senders have begun one by one: how long the exchanges take, and what each sender has.
fn after_all_began(senders: usize, megabits: u64, rtt: u64, arbiter: bool) -> ([Duration; 2], Vec<f64>) {
    let mut crowd = beside(senders, megabits, rtt, arbiter);
    for sender in 1..=senders {
        crowd.begin(sender, Labels::background());
        crowd.run(SECOND);
    }
    crowd.run(4 * SECOND);
    let parts = crowd.measure(16 * SECOND, megabits);
    (crowd.trips(0), parts[1..].to_vec())
}

#[test]
fn several_processes_are_to_a_network_what_one_is() {
    // Megabits a second, round trip in milliseconds, senders.
    for (megabits, rtt, senders) in [(20, 40, 2), (20, 40, 8), (100, 10, 4), (20, 200, 4), (2, 40, 4)] {
        let idle = Duration::from_millis(rtt);
        let what = format!("{senders} senders, {megabits} Mbit/s, {rtt} ms");
        // One process with all of it: its own foreground beside its own background.
        let mut one = beside(0, megabits, rtt, false);
        one.begin(0, Labels::background());
        one.run(5 * SECOND);
        one.measure(16 * SECOND, megabits);
        let alone = one.trips(0);
        let (without, uneven) = after_all_began(senders, megabits, rtt, false);
        let (with, parts) = after_all_began(senders, megabits, rtt, true);
        let all: f64 = parts.iter().sum();
        eprintln!(
            "{what}: alone {alone:?}, without {without:?} even {:.3}, with {with:?} even {:.3} sum {all:.3}",
            evenness(&uneven),
            evenness(&parts)
        );
        // Of the median, and of what one in a hundred waits for.
        for (at, limit) in [(0, [3, 2, 3]), (1, [2, 1, 5])] {
            let [wait, other] = [with[at], alone[at]].map(|trip| trip.saturating_sub(idle));
            let limit = other * limit[0] / limit[1] + limit[2] * MS;
            assert!(wait <= limit, "{what}: foreground waits {wait:?}, in one process {other:?}");
        }
        assert!(all >= 0.9, "{what}: background has {all:.3} of the link");
        assert!(evenness(&parts) >= 0.99, "{what}: {parts:.3?}");
    }
}

#[test]
fn on_a_slow_network_foreground_would_wait_for_the_queue_of_each() {
    let (without, _) = after_all_began(8, 2, 40, false);
    let (with, parts) = after_all_began(8, 2, 40, true);
    assert!(without[0] >= 200 * MS, "{without:?}: then this test shows nothing");
    assert!(with[1] <= 90 * MS, "{with:?}");
    assert!(parts.iter().sum::<f64>() >= 0.9 && evenness(&parts) >= 0.8, "{parts:.3?}");
}

#[test]
fn who_begins_and_who_ends_is_taken_into_account_within_a_second() {
    for (megabits, rtt) in [(20, 40), (100, 10)] {
        for arbiter in [false, true] {
            let mut crowd = beside(3, megabits, rtt, arbiter);
            crowd.begin(1, Labels::background());
            crowd.run(5 * SECOND);
            let mut even = Vec::new();
            for step in 0..4 {
                match step {
                    0 => crowd.begin(2, Labels::background()),
                    1 => crowd.begin(3, Labels::background()),
                    2 => crowd.end(2),
                    _ => crowd.end(1),
                }
                crowd.run(SECOND);
                let mut parts = crowd.measure(SECOND / 2, megabits);
                parts.retain(|part| *part > 0.0);
                even.push((evenness(&parts), parts.iter().sum::<f64>()));
                crowd.run(2 * SECOND);
            }
            eprintln!("{megabits} {rtt} {arbiter}: {even:.3?}");
            let ok = |(even, sum): &(f64, f64)| *even >= 0.98 && *sum >= 0.9;
            assert_eq!(even.iter().all(ok), arbiter, "{megabits} Mbit/s, {rtt} ms: {even:.3?}");
        }
    }
}

#[test]
fn who_cannot_use_its_share_leaves_it_to_the_others() {
    for rtt in [10, 40, 200] {
        // The second one's peer has a narrow link.
        let others = [link(1000, rtt), link(2, rtt)];
        let mut crowd = Crowd::new(1, link(40, rtt), &others, &[0, 0, 1]);
        crowd.arbiter = Some(Arbiter::new(10 * MS));
        crowd.asks(0);
        crowd.begin(2, Labels::background());
        crowd.run(4 * SECOND);
        // Only the narrow one has told what it moves: nobody knows what the network carries.
        crowd.begin(1, Labels::background());
        for _ in 0..6 {
            eprintln!("{rtt} {:.2?}", crowd.measure(SECOND, 40));
        }
        let parts = crowd.measure(8 * SECOND, 40);
        eprintln!("{rtt} {parts:.3?} {:?}", crowd.trips(0));
        assert!(parts[1] >= 0.85 && parts[2] >= 0.04, "{rtt} ms: {parts:.3?}");
    }
}

#[test]
fn a_network_that_is_not_the_narrow_place_holds_nobody_back() {
    let far = [link(20, 40), link(20, 40), link(20, 40)];
    let mut crowd = Crowd::new(1, link(1000, 40), &far, &[0, 1, 2]);
    crowd.arbiter = Some(Arbiter::new(10 * MS));
    for sender in 0..3 {
        crowd.begin(sender, Labels::background());
        crowd.run(3 * SECOND);
    }
    let parts = crowd.measure(5 * SECOND, 20);
    assert!(parts.iter().all(|part| *part >= 0.9), "{parts:.3?}");
}

#[test]
fn background_makes_room_for_large_foreground_of_another_process_and_does_not_starve() {
    for rtt in [10, 40] {
        let mut crowd = beside(3, 20, rtt, true);
        for sender in 1..=2 {
            crowd.begin(sender, Labels::background());
        }
        crowd.run(4 * SECOND);
        crowd.begin(3, Labels::foreground());
        for _ in 0..4 {
            eprintln!("pressing {rtt} {:.2?} {:?}", crowd.measure(SECOND, 20), crowd.trips(0));
        }
        let parts = crowd.measure(5 * SECOND, 20);
        eprintln!("pressing {rtt} {parts:.3?} {:?}", crowd.trips(0));
        assert!(parts[3] >= 0.7, "{rtt} ms: foreground has {parts:.3?}");
        assert!(parts[1] >= 0.015 && parts[2] >= 0.015, "{rtt} ms: background has {parts:.3?}");
        crowd.end(3);
        crowd.run(2 * SECOND);
        let parts = crowd.measure(SECOND, 20);
        assert!(parts[1] >= 0.4 && parts[2] >= 0.4, "{rtt} ms: and afterwards {parts:.3?}");
    }
}

#[test]
fn without_their_arbiter_processes_go_on_as_they_do_alone() {
    let mut crowd = beside(4, 20, 40, true);
    for sender in 1..=4 {
        crowd.begin(sender, Labels::background());
    }
    crowd.run(4 * SECOND);
    crowd.arbiter = None;
    for sender in 1..4 {
        crowd.end(sender);
    }
    // What it was last told counts for a second; then it has to find out what there is.
    crowd.run(4 * SECOND);
    let parts = crowd.measure(2 * SECOND, 20);
    assert!(parts[4] >= 0.95, "{parts:.3?}");
}

#[test]
fn a_share_of_nothing_starves_nobody_and_dies_by_itself() {
    let mut crowd = beside(1, 20, 40, false);
    crowd.begin(1, Labels::background());
    crowd.run(3 * SECOND);
    let (node, now) = (crowd.processes[1].node, crowd.world.now);
    let network = NetworkId(1);
    let valid = 3600 * SECOND;
    let share = Share { network, rate: Some(0), queue: 0, foreground: false, drain: 0, valid };
    crowd.world.nodes[node].core.set_share(now, share);
    crowd.run(SECOND);
    let parts = crowd.measure(3 * SECOND, 20);
    assert!((0.0003..0.01).contains(&parts[1]), "a packet a second: {parts:.4?}");
    crowd.run(4 * SECOND);
    let parts = crowd.measure(SECOND, 20);
    assert!(parts[1] >= 0.9, "not even a share without end lasts longer than 5 s: {parts:.3?}");
}

#[test]
fn they_follow_the_rate_of_the_network_together() {
    let mut crowd = beside(3, 20, 40, true);
    for sender in 1..=3 {
        crowd.begin(sender, Labels::background());
    }
    crowd.run(4 * SECOND);
    for megabits in [4, 40, 10] {
        crowd.world.nodes[0].attachments[0].rate = megabits * 125_000;
        crowd.run(4 * SECOND);
        let parts = crowd.measure(4 * SECOND, megabits);
        let all: f64 = parts.iter().sum();
        assert!(all >= 0.9 && evenness(&parts[1..]) >= 0.97, "{megabits} Mbit/s: {parts:.3?}");
        assert!(crowd.trips(0)[0] <= 65 * MS, "{megabits} Mbit/s: {:?}", crowd.trips(0));
    }
}
