//! Virtual time: messages come, frames move, messages complete.

use crate::agenda::Agenda;
use crate::downlink::Downlink;
use crate::report::{Report, Sample};
use crate::station::{Frame, Homa, Outcome, Queue, Station};
use crate::switch::Port;
use crate::topology::{MICROSECOND, Topology};
use crate::workload::{Rng, Workload};
use steadfast_homa::Config;
use steadfast_homa::packet::Kind;

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
    /// Payload bytes that hosts are given to send, as a part of what their links could carry, 0 to 1. That is what is
    /// offered, not only expected: the times of arrivals are stretched so that the lengths that were drawn make it true.
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

/// What happens at a time. Small, because there are tens of millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// The next message comes at a host.
    Message,
    /// A message has passed through its host's software.
    Submit(u32),
    /// A port has sent its frame, and may have another one.
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
    agenda: Agenda<Happening>,
    /// First those of hosts, then for each rack those to its hosts and to the spines, then for each spine those to racks.
    ports: Vec<Port>,
    /// By host.
    downlinks: Vec<Downlink>,
    stations: Vec<Station>,
    frames: Vec<Frame>,
    free: Vec<u32>,
    /// All that there will be, in the order of their arrival.
    messages: Vec<Message>,
    /// How many have come.
    come: usize,
    open: u32,
    /// For each host when it is asked again next.
    wakes: Vec<u64>,
    report: Report,
}

/// Runs until every message is complete.
///
/// Fails if the settings leave no room for the hosts.
pub fn simulate(settings: &Settings) -> Result<Report, String> {
    let mut world = World::new(settings.clone())?;
    world.run(World::is_complete);
    Ok(world.finish())
}

/// Runs until the last message came: what was carried is known then, and what messages took of those that were shorter.
///
/// Fails if the settings leave no room for the hosts.
pub fn carry(settings: &Settings) -> Result<Report, String> {
    let mut world = World::new(settings.clone())?;
    world.run(World::has_all);
    Ok(world.finish())
}

/// When messages come, from where to where: chosen evenly, and so that what is to warm up and what counts are both the load.
fn arrivals(settings: &Settings, rng: &mut Rng) -> Vec<Message> {
    let hosts = settings.topology.hosts() as u64;
    let warm = f64::from(settings.messages) * settings.warm_up;
    let parts = [warm as u32, settings.messages - warm as u32];
    let bytes_a_second = settings.topology.host_rate as f64 / 8.0 * hosts as f64 * settings.load;
    let mut messages = Vec::with_capacity(settings.messages as usize);
    let mut began = 0.0;
    for count in parts {
        let (mut at, mut bytes) = (0.0, 0.0);
        let drawn = (0..count).map(|_| {
            at += rng.exponential(1.0);
            let length = settings.workload.sample(rng);
            bytes += f64::from(length);
            let (from, to) = (rng.below(hosts), rng.below(hosts - 1));
            let to = to + u64::from(to >= from);
            (at, Message { from: from as u16, to: to as u16, length, born: 0, ended: false })
        });
        let drawn: Vec<_> = drawn.collect();
        let stretch = bytes / bytes_a_second * 1e12 / at.max(f64::MIN_POSITIVE);
        let born = |at: f64| (began + at * stretch) as u64;
        messages.extend(drawn.into_iter().map(|(at, message)| Message { born: born(at), ..message }));
        began += at * stretch;
    }
    messages
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
        let ports = rates.map(|rate| Port::new(rate, topology.buffer)).collect();
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
        let messages = arrivals(&settings, &mut rng);
        let report = Report::new(&settings);
        let mut agenda = Agenda::new();
        agenda.schedule(TICK, Happening::Tick);
        if let Some(first) = messages.first() {
            agenda.schedule(first.born, Happening::Message);
        }
        Ok(Self {
            settings,
            now: 0,
            rng,
            agenda,
            ports,
            downlinks: vec![Downlink::default(); hosts],
            stations,
            frames: Vec::new(),
            free: Vec::new(),
            messages,
            come: 0,
            open: 0,
            wakes: vec![0; hosts],
            report,
        })
    }

    fn run(&mut self, until: impl Fn(&Self) -> bool) {
        while let Some((at, happening)) = self.agenda.next() {
            self.now = at;
            self.step(happening);
            if until(self) {
                break;
            }
        }
    }

    fn has_all(&self) -> bool {
        self.come == self.messages.len()
    }

    fn is_complete(&self) -> bool {
        self.has_all() && self.open == 0
    }

    fn schedule(&mut self, at: u64, happening: Happening) {
        self.agenda.schedule(at, happening);
    }

    fn step(&mut self, happening: Happening) {
        match happening {
            Happening::Message => self.message(),
            Happening::Submit(number) => {
                let Message { from, to, length, .. } = self.messages[number as usize];
                self.stations[usize::from(from)].submit(self.now, number, to, length);
                self.send(u32::from(from));
            }
            Happening::Idle(port) => {
                self.ports[port as usize].expected = false;
                self.send(port);
            }
            Happening::Queued(port, frame) => {
                let Frame { level, bytes, .. } = self.frames[frame as usize];
                if !self.ports[port as usize].push(self.now, level, frame, bytes) {
                    self.report.dropped += 1;
                    self.free.push(frame);
                    return;
                }
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

    /// A message comes, and the next one is scheduled. What is measured over time is measured from the first one that
    /// counts to the last one.
    fn message(&mut self) {
        let number = self.come;
        let Message { to, length, .. } = self.messages[number];
        self.come += 1;
        self.open += 1;
        self.downlinks[usize::from(to)].begin(self.now, length);
        if number == self.warm() as usize {
            let now = self.now;
            self.ports.iter_mut().for_each(|port| port.load.start(now));
            self.downlinks.iter_mut().for_each(|link| link.start(now));
            self.report.begin(now);
        }
        self.report.offer(length);
        self.schedule(self.now + self.settings.topology.send_delay, Happening::Submit(number as u32));
        match self.messages.get(self.come) {
            Some(next) => self.schedule(next.born, Happening::Message),
            None => self.measure(),
        }
    }

    fn warm(&self) -> u32 {
        (f64::from(self.settings.messages) * self.settings.warm_up) as u32
    }

    /// Sends a port's next frame if it is idle.
    fn send(&mut self, port: u32) {
        let hosts = self.stations.len();
        let index = port as usize;
        let idle = self.ports[index].free_at <= self.now;
        let frame = if !idle {
            None
        } else if index < hosts {
            self.stations[index].next(self.now, &self.settings.topology).map(|frame| self.keep(frame))
        } else {
            let frames = &self.frames;
            self.ports[index].pop(self.now, |frame| frames[frame as usize].bytes)
        };
        if let Some(frame) = frame {
            self.transmit(index, frame);
        } else if idle {
            if let Some(station) = self.stations.get(index) {
                self.wake(index as u16, station.wakes_at());
            }
            return;
        }
        // Hosts have to be asked whether there is more.
        let there = &mut self.ports[index];
        if (index < hosts || there.has_more()) && !there.expected {
            there.expected = true;
            let at = there.free_at;
            self.schedule(at, Happening::Idle(port));
        }
    }

    /// A port sends a frame from now.
    fn transmit(&mut self, port: usize, frame: u32) {
        let end = self.now + u64::from(self.frames[frame as usize].bytes) * self.ports[port].pace;
        self.ports[port].free_at = end;
        self.report.packets += 1;
        let topology = self.settings.topology;
        if let Some(next) = self.next_port(port, frame) {
            self.schedule(end + topology.switch_delay, Happening::Queued(next, frame));
            return;
        }
        let to = usize::from(self.frames[frame as usize].to);
        self.downlinks[to].send(self.now, end);
        // The host answers no sooner than its software and card have both had their time.
        self.arrive(end + topology.receive_delay + topology.send_delay, frame);
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
        let frame = &self.frames[index as usize];
        let to = frame.to;
        if !self.has_all() && frame.is_of_message() {
            self.report.carry(frame.payload);
            self.downlinks[usize::from(to)].arrive(self.now, frame.payload);
        }
        let outcomes = self.stations[usize::from(to)].receive(self.now, frame);
        self.free.push(index);
        for outcome in outcomes {
            self.end(outcome);
        }
        self.send(u32::from(to));
        let withheld = self.stations[usize::from(to)].withholds();
        self.downlinks[usize::from(to)].withhold(self.now, withheld);
    }

    /// A message has come to its end.
    fn end(&mut self, outcome: Outcome) {
        let (Outcome::Completed(number) | Outcome::Failed(number)) = outcome;
        let failed = matches!(outcome, Outcome::Failed(_));
        self.report.failed += u32::from(failed);
        let message = &mut self.messages[number as usize];
        if core::mem::replace(&mut message.ended, true) {
            return;
        }
        let Message { from, to, length, born, .. } = *message;
        self.open -= 1;
        if failed {
            return;
        }
        if number >= self.warm() {
            let topology = &self.settings.topology;
            let took = self.now - topology.send_delay - born;
            let ideal = topology.ideal(usize::from(from), usize::from(to), length);
            self.report.samples.push(Sample { length, slowdown: took as f64 / ideal as f64 });
        }
        self.stations[usize::from(from)].acknowledged(number);
    }

    /// The last message has come: what was carried until now.
    fn measure(&mut self) {
        let now = self.now;
        let hosts = self.stations.len();
        let per_rack = self.settings.topology.hosts_per_rack + self.settings.topology.spines;
        let racks = hosts..hosts + self.settings.topology.racks * per_rack;
        for (index, port) in self.ports.iter_mut().enumerate().skip(hosts) {
            let kind = if !racks.contains(&index) {
                1
            } else if (index - hosts) % per_rack < self.settings.topology.hosts_per_rack {
                2
            } else {
                0
            };
            let (mean, most) = port.stop(now);
            self.report.queues[kind].add(mean, most);
        }
        for link in &mut self.downlinks {
            self.report.add(link.stop(now));
        }
        self.report.end(now);
    }

    fn finish(mut self) -> Report {
        self.report.samples.sort_unstable_by_key(|sample| sample.length);
        for metrics in self.stations.iter().filter_map(Station::metrics) {
            self.report.questions += metrics.packets_sent[Kind::Resend.index()];
            self.report.resent += metrics.resent_bytes;
            self.report.discarded += metrics.discarded_bytes;
        }
        self.report
    }
}
