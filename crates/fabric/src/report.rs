//! What a simulation found.

use crate::downlink::Tally;
use crate::run::Settings;

/// A message that completed.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Bytes of it.
    pub length: u32,
    /// Its time, as a multiple of what an empty network takes.
    pub slowdown: f64,
}

/// The queues of one kind of port, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Queues {
    sum: f64,
    ports: u32,
    /// The most that any of them held.
    pub most: u64,
}

impl Queues {
    pub(crate) fn add(&mut self, mean: f64, most: u64) {
        self.sum += mean;
        self.ports += 1;
        self.most = self.most.max(most);
    }

    /// What one of them held, in the mean over time.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.sum / f64::from(self.ports.max(1))
    }
}

/// Messages of similar length.
#[derive(Debug, Clone, Copy)]
pub struct Bin {
    /// The longest of them.
    pub length: u32,
    /// Half of them are no longer.
    pub middle: u32,
    /// How many.
    pub count: usize,
    /// The slowdown that half of them do not exceed.
    pub p50: f64,
    /// The slowdown that 99 in a hundred do not exceed.
    pub p99: f64,
}

/// The kinds of ports whose queues are measured, in their order.
pub const PORTS: [&str; 3] = ["rack_to_spine", "spine_to_rack", "rack_to_host"];

/// All that was measured.
#[derive(Debug, Clone)]
pub struct Report {
    /// Messages after the warm-up, shortest first.
    pub samples: Vec<Sample>,
    /// From rack to spine, from spine to rack, from rack to host: [`PORTS`].
    pub queues: [Queues; 3],
    /// Messages whose request had another outcome than a response.
    pub failed: u32,
    /// Frames sent over any link.
    pub packets: u64,
    /// Frames for which a switch had no room.
    pub dropped: u64,
    /// How often missing bytes were asked for.
    pub questions: u64,
    /// Payload bytes that were sent again.
    pub resent: u64,
    /// Payload bytes that came and were here already: what the links carried for nothing.
    pub discarded: u64,
    /// Payload bytes of all messages.
    payload: u64,
    /// Bits a second of all hosts' links.
    rate: f64,
    began: u64,
    ended: u64,
    offered: u64,
    carried: u64,
    /// Of all hosts.
    downlinks: Tally,
    hosts: usize,
}

impl Report {
    pub(crate) fn new(settings: &Settings) -> Self {
        let hosts = settings.topology.hosts();
        Self {
            samples: Vec::new(),
            queues: [Queues::default(); 3],
            failed: 0,
            packets: 0,
            dropped: 0,
            questions: 0,
            resent: 0,
            discarded: 0,
            payload: 0,
            rate: settings.topology.host_rate as f64 * hosts as f64,
            began: 0,
            ended: 0,
            offered: 0,
            carried: 0,
            downlinks: Tally::default(),
            hosts,
        }
    }

    pub(crate) fn begin(&mut self, now: u64) {
        self.began = now;
        (self.offered, self.carried) = (0, 0);
    }

    pub(crate) fn offer(&mut self, bytes: u32) {
        self.offered += u64::from(bytes);
        self.payload += u64::from(bytes);
    }

    pub(crate) fn carry(&mut self, bytes: u32) {
        self.carried += u64::from(bytes);
    }

    /// One host's link.
    pub(crate) fn add(&mut self, tally: Tally) {
        self.downlinks.wasted += tally.wasted;
        self.downlinks.backlog += tally.backlog;
        self.downlinks.served += tally.served;
    }

    pub(crate) fn end(&mut self, now: u64) {
        self.ended = now;
    }

    /// Picoseconds that were measured.
    fn time(&self) -> f64 {
        self.ended.saturating_sub(self.began).max(1) as f64
    }

    fn part(&self, bytes: u64) -> f64 {
        bytes as f64 * 8.0 / (self.rate * self.time() / 1e12)
    }

    /// Payload that came between the warm-up and the last message, as a part of what the hosts' links could carry.
    #[must_use]
    pub fn offered(&self) -> f64 {
        self.part(self.offered)
    }

    /// Payload that reached its host in the same time.
    #[must_use]
    pub fn goodput(&self) -> f64 {
        self.part(self.carried)
    }

    /// Which part of the same time a host's link was idle although the host knew of a message to it which it did not grant
    /// yet, in the mean: what the paper calls wasted bandwidth.
    #[must_use]
    pub fn wasted(&self) -> f64 {
        self.downlinks.wasted as f64 / (self.time() * self.hosts as f64)
    }

    /// Bytes that came and were here already, as a part of all messages.
    #[must_use]
    pub fn in_vain(&self) -> f64 {
        self.discarded as f64 / self.payload.max(1) as f64
    }

    /// What a host receives while it has a backlog, payload as a part of what its link could carry. With more than that to do a
    /// host falls behind without end, and with less it catches up. This does not depend on how long was simulated, as the
    /// backlog does: with long messages that grows for seconds, even where it is bounded. 1 if nobody had one.
    #[must_use]
    pub fn capacity(&self) -> f64 {
        let Tally { backlog, served, .. } = self.downlinks;
        if backlog == 0 {
            return 1.0;
        }
        served as f64 * 8.0 / (self.rate / self.hosts as f64 * backlog as f64 / 1e12)
    }

    /// For which part of the time a host had a backlog, in the mean.
    #[must_use]
    pub fn backlog(&self) -> f64 {
        self.downlinks.backlog as f64 / (self.time() * self.hosts as f64)
    }

    /// Whether what waits is bounded at this load: hosts that have a backlog receive at least as much as is offered.
    #[must_use]
    pub fn is_sustained(&self) -> bool {
        self.capacity() >= self.offered()
    }

    /// The shortest tenth of all messages.
    #[must_use]
    pub fn short(&self) -> Option<Bin> {
        bin(&self.samples[..self.samples.len().div_ceil(10)])
    }

    /// `count` bins with the same number of messages.
    #[must_use]
    pub fn bins(&self, count: usize) -> Vec<Bin> {
        let edge = |index: usize| self.samples.len() * index / count.max(1);
        (0..count).filter_map(|index| bin(&self.samples[edge(index)..edge(index + 1)])).collect()
    }

    /// Bins of similar lengths, so many for a power of ten, with `enough` messages each: one with fewer goes with the next
    /// longer one, and the longest with what is before them.
    #[must_use]
    pub fn bins_by_length(&self, a_decade: f64, enough: usize) -> Vec<Bin> {
        let number = |sample: &Sample| (f64::from(sample.length).log10() * a_decade) as i32;
        let (mut edges, mut end) = (vec![0], 0);
        for group in self.samples.chunk_by(|one, other| number(one) == number(other)) {
            end += group.len();
            if end - edges[edges.len() - 1] >= enough {
                edges.push(end);
            }
        }
        if edges.len() > 1 {
            edges.pop();
        }
        edges.push(end);
        edges.windows(2).filter_map(|edge| bin(&self.samples[edge[0]..edge[1]])).collect()
    }

    /// All that programs want to know, each with its name: slowdowns of the shortest tenth and half, and by tenth of all
    /// messages, queues in bytes, and the rest in parts of the links.
    #[must_use]
    pub fn figures(&self) -> Vec<(String, f64)> {
        let mut figures = Vec::new();
        let mut add = |name: &str, value: f64| figures.push((name.to_owned(), value));
        let half = bin(&self.samples[..self.samples.len().div_ceil(2)]);
        for (name, bin) in [("short", self.short()), ("half", half)] {
            let Some(bin) = bin else { continue };
            add(&format!("{name}_slowdown_p50"), bin.p50);
            add(&format!("{name}_slowdown_p99"), bin.p99);
        }
        for (bin, number) in self.bins(10).into_iter().zip(1..) {
            add(&format!("decile_{number}_bytes"), f64::from(bin.length));
            add(&format!("decile_{number}_slowdown_p50"), bin.p50);
            add(&format!("decile_{number}_slowdown_p99"), bin.p99);
        }
        for (name, queues) in PORTS.into_iter().zip(self.queues) {
            add(&format!("queue_{name}_mean"), queues.mean());
            add(&format!("queue_{name}_max"), queues.most as f64);
        }
        add("offered", self.offered());
        add("goodput", self.goodput());
        add("wasted", self.wasted());
        add("backlog", self.backlog());
        add("capacity", self.capacity());
        add("failed", f64::from(self.failed));
        add("packets", self.packets as f64);
        add("dropped", self.dropped as f64);
        add("questions", self.questions as f64);
        add("resent", self.resent as f64 / self.payload.max(1) as f64);
        add("in_vain", self.in_vain());
        figures
    }

    /// All messages that are no longer than this.
    #[must_use]
    pub fn up_to(&self, length: u32) -> Option<Bin> {
        bin(&self.samples[..self.samples.partition_point(|sample| sample.length <= length)])
    }
}

fn bin(samples: &[Sample]) -> Option<Bin> {
    let length = samples.last()?.length;
    let mut slowdowns: Vec<f64> = samples.iter().map(|sample| sample.slowdown).collect();
    slowdowns.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| slowdowns[((slowdowns.len() as f64 * part) as usize).min(slowdowns.len() - 1)];
    let middle = samples[(samples.len() - 1) / 2].length;
    Some(Bin { length, middle, count: samples.len(), p50: at(0.5), p99: at(0.99) })
}
