//! Virtual time: messages come, frames move, messages complete.

use crate::report::{Report, Sample};
use crate::station::{Frame, Homa, Outcome, Queue, Station};
use crate::switch::Port;
use crate::topology::{MICROSECOND, Topology};
use crate::workload::{Rng, Workload};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;
use steadfast_homa::packet::PRIORITIES;
use steadfast_homa::{ANY_LENGTH, Config};

/// How often timers of hosts are looked at: nothing is lost here.
const TICK: u64 = 1000 * MICROSECOND;

/// What hosts run.
#[derive(Debug, Clone)]
pub enum Transport {
    /// The core that ships, under these settings. Nothing is paced, and requests are not answered.
    Homa(Box<Config>),
    /// The same as it is used: links are paced, requests get a short response, and acknowledgements travel.
    Exchange(Box<Config>),
    /// First in, first out, at one level.
    Queue,
}

/// Parts of all frames, 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Lost.
    pub lost: f64,
    /// Delivered twice, the second time 100 µs later, which is behind others.
    pub repeated: f64,
    /// Delivered 20 µs later than it should.
    pub late: f64,
}

/// One simulation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The network.
    pub topology: Topology,
    /// The lengths of messages.
    pub workload: Workload,
    /// Payload bytes that hosts are given to send, as a part of what their links could carry, 0 to 1.
    pub load: f64,
    /// How many messages there are.
    pub messages: u32,
    /// The first part of them that is not counted, while the network fills, 0 to 1.
    pub warm_up: f64,
    /// What hosts run.
    pub transport: Transport,
    /// What the network does to frames on their last link. A plain queue stands none of it.
    pub faults: Faults,
    /// The same seed gives the same run.
    pub seed: u64,
}

impl Settings {
    /// The paper's simulations (SIGCOMM'18) at a load where headers and grants count, too: 0.8 is 80 % of the links.
    #[must_use]
    pub fn paper(workload: Workload, load: f64, messages: u32) -> Self {
        let topology = Topology::paper();
        Self {
            topology,
            workload,
            // What is left for payload, as the paper's simulator has it.
            load: load
                * match workload {
                    Workload::W1 => 0.657,
                    Workload::W2 => 0.796,
                    Workload::W3 => 0.887,
                    Workload::W4 | Workload::W5 => 0.898,
                },
            messages,
            warm_up: 0.1,
            transport: Transport::Homa(Box::new(paper_config(workload))),
            faults: Faults::default(),
            seed: 1,
        }
    }

    /// The same network and load under the settings that ship; only W5 has longer messages than they allow.
    #[must_use]
    pub fn shipped(workload: Workload, load: f64, messages: u32) -> Self {
        let mut config = Config::default();
        config.max_message = config.max_message.max(1 << 25);
        let transport = Transport::Exchange(Box::new(config));
        Self { transport, ..Self::paper(workload, load, messages) }
    }
}

/// The paper's settings: as many levels for granted bytes as messages are granted at a time, the others for
/// unscheduled bytes in equal shares.
#[must_use]
pub fn paper_config(workload: Workload) -> Config {
    const UNSCHEDULED: u32 = 9328;
    let scheduled = match workload {
        Workload::W1 => 1,
        Workload::W2 => 3,
        Workload::W3 => 4,
        Workload::W4 | Workload::W5 => 7,
    };
    let mut config = Config::default();
    config.unscheduled = UNSCHEDULED;
    config.window = 10_000;
    config.max_incoming = u32::MAX / 2;
    config.overcommit = scheduled;
    config.grant_fifo_share = 0;
    config.pacer_fifo_share = 0;
    config.adapt_cutoffs = false;
    let mut cutoffs = [0; PRIORITIES];
    let shares = workload.equal_shares(UNSCHEDULED, PRIORITIES - scheduled);
    for (level, cutoff) in (scheduled..PRIORITIES).rev().zip(shares.into_iter().chain([ANY_LENGTH])) {
        cutoffs[level] = cutoff;
    }
    config.cutoffs = cutoffs;
    // Nothing is lost, and a long message may wait for long.
    config.resend_after = Duration::from_secs(100);
    config.resend_interval = Duration::from_secs(100);
    config.timeout = Duration::from_secs(1000);
    config.max_message = 1 << 26;
    config.max_held = u64::MAX / 2;
    config.max_kept = u64::MAX / 2;
    config.max_peer_held = u64::MAX / 2;
    config.max_peer_kept = u64::MAX / 2;
    config.max_client_rpcs = usize::MAX;
    config.max_peer_calls = usize::MAX;
    config.max_server_rpcs = usize::MAX;
    config.max_peer_rpcs = usize::MAX;
    config
}

/// What happens at a time. Small, because there are tens of millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// A message comes at a host.
    Message(u16),
    /// A message has passed through its host's software.
    Submit(u32),
    /// A port has sent its frame.
    Idle(u32),
    /// A frame has its place in a port's queue.
    Queued(u32, u32),
    /// A frame is whole at its destination, and the host looks at it.
    Received(u32),
    /// A host has something to send again, which it paced.
    Wake(u16),
    /// Timers.
    Tick,
}

struct Message {
    from: u16,
    to: u16,
    length: u32,
    born: u64,
    /// It is whole at its destination, or was given up.
    ended: bool,
}

struct World {
    settings: Settings,
    now: u64,
    rng: Rng,
    agenda: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    happenings: u64,
    /// First those of hosts, then for each rack those to its hosts and to the spines, then for each spine those to racks.
    ports: Vec<Port>,
    stations: Vec<Station>,
    frames: Vec<Frame>,
    free: Vec<u32>,
    messages: Vec<Message>,
    /// Picoseconds between two messages of a host, in the mean.
    interval: f64,
    open: u32,
    packets: u64,
    /// For each host when it is asked again next.
    wakes: Vec<u64>,
    report: Report,
}

/// Runs until every message is complete.
///
/// Fails if the settings leave no room for the hosts.
pub fn simulate(settings: &Settings) -> Result<Report, String> {
    let mut world = World::new(settings.clone())?;
    for host in 0..settings.topology.hosts() {
        let at = world.rng.exponential(world.interval) as u64;
        world.schedule(at, Happening::Message(host as u16));
    }
    world.schedule(TICK, Happening::Tick);
    while let Some(Reverse((at, _, happening))) = world.agenda.pop() {
        world.now = at;
        world.step(happening);
        if world.messages.len() == settings.messages as usize && world.open == 0 {
            break;
        }
    }
    Ok(world.finish())
}

impl World {
    fn new(settings: Settings) -> Result<Self, String> {
        let topology = settings.topology;
        let hosts = topology.hosts();
        let mut rng = Rng::new(settings.seed);
        let rates = (0..hosts)
            .map(|_| topology.host_rate)
            .chain((0..topology.racks).flat_map(|_| {
                let down = (0..topology.hosts_per_rack).map(|_| topology.host_rate);
                down.chain((0..topology.spines).map(|_| topology.spine_rate))
            }))
            .chain((0..topology.spines * topology.racks).map(|_| topology.spine_rate));
        let ports = rates.map(Port::new).collect();
        let mut homas = Vec::new();
        let mut stations = Vec::new();
        for host in 0..hosts as u16 {
            match &settings.transport {
                Transport::Homa(config) => homas.push(Homa::new(host, &topology, config, rng.seed(), false)?),
                Transport::Exchange(config) => {
                    homas.push(Homa::new(host, &topology, config, rng.seed(), true)?);
                }
                Transport::Queue => stations.push(Station::Queue(Queue::new(host))),
            }
        }
        for first in 0..homas.len() {
            let (before, after) = homas.split_at_mut(first);
            let Some((one, after)) = after.split_first_mut() else { continue };
            if !before.iter_mut().chain(after).all(|other| one.meet(other)) {
                return Err("a host did not tell of its cut-offs".into());
            }
        }
        stations.extend(homas.into_iter().map(|homa| Station::Homa(Box::new(homa))));
        let bytes_a_second = topology.host_rate as f64 / 8.0 * settings.load;
        let interval = settings.workload.mean() / bytes_a_second * 1e12;
        let report = Report::new(&settings);
        Ok(Self {
            settings,
            now: 0,
            rng,
            agenda: BinaryHeap::new(),
            happenings: 0,
            ports,
            stations,
            frames: Vec::new(),
            free: Vec::new(),
            messages: Vec::new(),
            interval,
            open: 0,
            packets: 0,
            wakes: vec![0; hosts],
            report,
        })
    }

    fn schedule(&mut self, at: u64, happening: Happening) {
        self.happenings += 1;
        self.agenda.push(Reverse((at, self.happenings, happening)));
    }

    fn step(&mut self, happening: Happening) {
        match happening {
            Happening::Message(host) => self.message(host),
            Happening::Submit(number) => {
                let Message { from, to, length, .. } = self.messages[number as usize];
                self.stations[usize::from(from)].submit(self.now, number, to, length);
                self.send(u32::from(from));
            }
            Happening::Idle(port) => {
                self.ports[port as usize].busy = false;
                self.send(port);
            }
            Happening::Queued(port, frame) => {
                let Frame { level, bytes, .. } = self.frames[frame as usize];
                self.ports[port as usize].push(self.now, level, frame, bytes);
                self.send(port);
            }
            Happening::Received(frame) => self.received(frame),
            Happening::Wake(host) => self.send(u32::from(host)),
            Happening::Tick => {
                for host in 0..self.stations.len() {
                    for outcome in self.stations[host].tick(self.now) {
                        self.end(outcome);
                    }
                    self.send(host as u32);
                }
                self.schedule(self.now + TICK, Happening::Tick);
            }
        }
    }

    /// A message for another host, chosen evenly; then the next one of this host is scheduled.
    fn message(&mut self, host: u16) {
        if self.messages.len() >= self.settings.messages as usize {
            return;
        }
        let length = self.settings.workload.sample(&mut self.rng);
        let others = self.settings.topology.hosts() as u64 - 1;
        let mut to = self.rng.below(others) as u16;
        to += u16::from(to >= host);
        let number = self.messages.len() as u32;
        if number == self.warm() {
            let now = self.now;
            self.ports.iter_mut().for_each(|port| port.load.start(now));
            self.report.begin(now);
        }
        self.messages.push(Message { from: host, to, length, born: self.now, ended: false });
        self.open += 1;
        self.schedule(self.now + self.settings.topology.send_delay, Happening::Submit(number));
        let next = self.rng.exponential(self.interval) as u64;
        self.schedule(self.now + next, Happening::Message(host));
    }

    fn warm(&self) -> u32 {
        (f64::from(self.settings.messages) * self.settings.warm_up) as u32
    }

    /// Sends a port's next frame if it is idle.
    fn send(&mut self, port: u32) {
        let hosts = self.stations.len();
        let index = port as usize;
        if self.ports[index].busy {
            return;
        }
        let frame = if index < hosts {
            self.stations[index].next(self.now, &self.settings.topology).map(|frame| self.keep(frame))
        } else {
            let frames = &self.frames;
            self.ports[index].pop(self.now, |frame| frames[frame as usize].bytes)
        };
        let Some(frame) = frame else {
            if let Some(station) = self.stations.get(index) {
                self.wake(index as u16, station.wakes_at());
            }
            return;
        };
        let end = self.now + u64::from(self.frames[frame as usize].bytes) * self.ports[index].pace;
        self.ports[index].busy = true;
        self.packets += 1;
        self.schedule(end, Happening::Idle(port));
        let topology = self.settings.topology;
        match self.next_port(index, frame) {
            Some(next) => self.schedule(end + topology.switch_delay, Happening::Queued(next, frame)),
            // The host answers no sooner than its software and card have both had their time.
            None => self.arrive(end + topology.receive_delay + topology.send_delay, frame),
        }
    }

    /// A host that paces itself is asked again later; only where it does, or there would be no end to it.
    fn wake(&mut self, host: u16, at: Option<u64>) {
        if let (Transport::Exchange(_), Some(at)) = (&self.settings.transport, at)
            && self.wakes[usize::from(host)] <= self.now
        {
            // The clock of hosts counts nanoseconds.
            let at = at.max(self.now + 1000);
            self.wakes[usize::from(host)] = at;
            self.schedule(at, Happening::Wake(host));
        }
    }

    /// A frame comes to its host, unless the network has it otherwise.
    fn arrive(&mut self, at: u64, frame: u32) {
        let Faults { lost, repeated, late } = self.settings.faults;
        if self.happens(lost) {
            self.free.push(frame);
            return;
        }
        if self.happens(repeated) {
            let copy = self.keep(self.frames[frame as usize].clone());
            self.schedule(at + 100 * MICROSECOND, Happening::Received(copy));
        }
        let late = if self.happens(late) { 20 * MICROSECOND } else { 0 };
        self.schedule(at + late, Happening::Received(frame));
    }

    fn happens(&mut self, part: f64) -> bool {
        // No number is drawn where nothing may happen: so runs without faults stay the same.
        part > 0.0 && (self.rng.below(1 << 32) as f64) < part * f64::from(u32::MAX)
    }

    fn keep(&mut self, frame: Frame) -> u32 {
        if let Some(index) = self.free.pop() {
            self.frames[index as usize] = frame;
            return index;
        }
        self.frames.push(frame);
        self.frames.len() as u32 - 1
    }

    /// Where a frame goes from a port; none if the port leads to its destination.
    fn next_port(&mut self, port: usize, frame: u32) -> Option<u32> {
        let topology = &self.settings.topology;
        let hosts = topology.hosts();
        let to = usize::from(self.frames[frame as usize].to);
        let per_rack = topology.hosts_per_rack + topology.spines;
        let down = hosts + topology.rack(to) * per_rack + to % topology.hosts_per_rack;
        let spines = hosts + topology.racks * per_rack;
        if port < hosts {
            let rack = topology.rack(port);
            if rack == topology.rack(to) {
                return Some(down as u32);
            }
            let spine = self.rng.below(topology.spines as u64) as usize;
            return Some((hosts + rack * per_rack + topology.hosts_per_rack + spine) as u32);
        }
        if port < spines {
            let spine = ((port - hosts) % per_rack).checked_sub(topology.hosts_per_rack)?;
            return Some((spines + spine * topology.racks + topology.rack(to)) as u32);
        }
        Some(down as u32)
    }

    fn received(&mut self, index: u32) {
        let frame = self.frames[index as usize].clone();
        self.free.push(index);
        let to = frame.to;
        for outcome in self.stations[usize::from(to)].receive(self.now, &frame) {
            self.end(outcome);
        }
        self.send(u32::from(to));
    }

    /// A message has come to its end.
    fn end(&mut self, outcome: Outcome) {
        let number = match outcome {
            Outcome::Completed(number) => number,
            Outcome::Failed(number) => {
                self.report.failed += 1;
                let message = &mut self.messages[number as usize];
                if !core::mem::replace(&mut message.ended, true) {
                    self.open -= 1;
                }
                return;
            }
        };
        let message = &mut self.messages[number as usize];
        if !core::mem::replace(&mut message.ended, true) {
            let topology = &self.settings.topology;
            let took = self.now - topology.send_delay - message.born;
            let ideal = topology.ideal(usize::from(message.from), usize::from(message.to), message.length);
            let from = usize::from(message.from);
            let length = message.length;
            if number >= self.warm() {
                let slowdown = took as f64 / ideal as f64;
                self.report.samples.push(Sample { length, slowdown });
            }
            self.open -= 1;
            if self.messages.len() < self.settings.messages as usize {
                self.report.end(self.now, length);
            }
            self.stations[from].acknowledged(number);
        }
    }

    fn finish(mut self) -> Report {
        let topology = self.settings.topology;
        let hosts = topology.hosts();
        let per_rack = topology.hosts_per_rack + topology.spines;
        let racks = hosts..hosts + topology.racks * per_rack;
        for (index, port) in self.ports.iter().enumerate().skip(hosts) {
            let kind = if !racks.contains(&index) {
                1
            } else if (index - hosts) % per_rack < topology.hosts_per_rack {
                2
            } else {
                0
            };
            self.report.queues[kind].add(port.load.mean(), port.load.most);
        }
        self.report.packets = self.packets;
        self.report.samples.sort_unstable_by_key(|sample| sample.length);
        self.report
    }
}
