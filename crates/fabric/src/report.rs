//! What a simulation found.

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
    /// How many.
    pub count: usize,
    /// The slowdown that half of them do not exceed.
    pub p50: f64,
    /// The slowdown that 99 in a hundred do not exceed.
    pub p99: f64,
}

/// All that was measured.
#[derive(Debug, Clone)]
pub struct Report {
    /// Messages after the warm-up, shortest first.
    pub samples: Vec<Sample>,
    /// From rack to spine, from spine to rack, from rack to host.
    pub queues: [Queues; 3],
    /// Messages whose request had another outcome than a response.
    pub failed: u32,
    /// Frames sent over any link.
    pub packets: u64,
    hosts: usize,
    rate: u64,
    began: u64,
    ended: u64,
    bytes: u64,
}

impl Report {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            samples: Vec::new(),
            queues: [Queues::default(); 3],
            failed: 0,
            packets: 0,
            hosts: settings.topology.hosts(),
            rate: settings.topology.host_rate,
            began: 0,
            ended: 0,
            bytes: 0,
        }
    }

    pub(crate) fn begin(&mut self, now: u64) {
        self.began = now;
        self.bytes = 0;
    }

    pub(crate) fn end(&mut self, now: u64, length: u32) {
        self.ended = now;
        self.bytes += u64::from(length);
    }

    /// Payload that completed between the warm-up and the last message's arrival, as a part of what the hosts' links
    /// could carry.
    #[must_use]
    pub fn goodput(&self) -> f64 {
        let seconds = self.ended.saturating_sub(self.began) as f64 / 1e12;
        self.bytes as f64 * 8.0 / (self.rate as f64 * self.hosts as f64 * seconds.max(1e-12))
    }

    /// `count` bins with the same number of messages.
    #[must_use]
    pub fn bins(&self, count: usize) -> Vec<Bin> {
        let edge = |index: usize| self.samples.len() * index / count.max(1);
        (0..count).filter_map(|index| bin(&self.samples[edge(index)..edge(index + 1)])).collect()
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
    Some(Bin { length, count: samples.len(), p50: at(0.5), p99: at(0.99) })
}
