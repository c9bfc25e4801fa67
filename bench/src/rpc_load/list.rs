//! Which requests there are: the same for every system.

use serde::{Deserialize, Serialize};
use steadfast_fabric::Workload;
use steadfast_fabric::workload::Rng;

/// The longest message that Homa takes, less what nobody would notice.
pub(crate) const LONGEST: u32 = (16 << 20) - 64;
/// Bytes of a packet's payload, and of its headers from Ethernet's on, as Homa over sealed UDP has them.
const SEGMENT: u32 = 1378;
const HEADERS: u32 = 136;
/// A response with all headers.
const RESPONSE: f64 = 144.0;
/// Samples of which a mean is taken.
const MEAN_OF: u32 = 200_000;

/// What is offered to the network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) workload: Workload,
    /// Of each wire.
    pub(crate) mbit: f64,
    /// The part of each wire that is used.
    pub(crate) load: f64,
    pub(crate) seed: u64,
}

/// The same in words that can be sent to a process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Offered {
    /// Which of the papers' workloads.
    workload: usize,
    /// Nanoseconds from a request of one host to its next, in the mean.
    interval: f64,
    seed: u64,
}

/// A request of one host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    /// Nanoseconds after the start.
    pub(crate) at: u64,
    /// To which other host, counted without this one.
    pub(crate) to: usize,
    pub(crate) length: u32,
}

impl Traffic {
    pub(crate) fn offered(&self) -> Offered {
        let mut rng = Rng::new(0);
        let sum: f64 = (0..MEAN_OF).map(|_| wire_bytes(length(self.workload, &mut rng)) + RESPONSE).sum();
        let mean = sum / f64::from(MEAN_OF);
        let interval = mean * 8e3 / (self.mbit * self.load);
        Offered { workload: self.workload as usize, interval, seed: self.seed }
    }
}

impl Offered {
    /// The requests of a host, one after the other, without an end.
    pub(crate) fn requests(self, host: usize, others: usize) -> impl Iterator<Item = Planned> {
        let workload = Workload::ALL[self.workload];
        let mut rng = Rng::new(self.seed << 32 | host as u64);
        let mut at = 0.0;
        std::iter::repeat_with(move || {
            at += rng.exponential(self.interval);
            let to = rng.below(others as u64) as usize;
            Planned { at: at as u64, to, length: length(workload, &mut rng) }
        })
    }
}

/// What is too long for Homa is left out.
fn length(workload: Workload, rng: &mut Rng) -> u32 {
    loop {
        let length = workload.sample(rng);
        if length <= LONGEST {
            return length;
        }
    }
}

/// Bytes of a message on the wire.
pub(crate) fn wire_bytes(length: u32) -> f64 {
    f64::from(length) + f64::from(length.div_ceil(SEGMENT) * HEADERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_hosts_offer_the_load_that_was_asked_for() {
        for workload in [Workload::W2, Workload::W3, Workload::W4] {
            let offered = Traffic { workload, mbit: 50.0, load: 0.8, seed: 1 }.offered();
            let seconds = 4000;
            let sum: f64 = offered
                .requests(0, 4)
                .take_while(|planned| planned.at < seconds * 1_000_000_000)
                .take(400_000)
                .fold((0.0, 0), |(sum, _), planned| {
                    (sum + (wire_bytes(planned.length) + RESPONSE) * 8.0, planned.at)
                })
                .pipe(|(bits, at)| bits / (at as f64 / 1e9) / 50e6);
            assert!((0.75..0.85).contains(&sum), "{workload:?}: {sum}");
        }
    }

    trait Pipe: Sized {
        fn pipe<T>(self, of: impl FnOnce(Self) -> T) -> T {
            of(self)
        }
    }
    impl Pipe for (f64, u64) {}

    #[test]
    fn the_list_follows_from_the_seed_and_the_host() {
        let list = |seed, host| {
            let offered = Traffic { workload: Workload::W5, mbit: 50.0, load: 0.5, seed }.offered();
            let first = offered.requests(host, 4).take(100);
            first.map(|planned| (planned.at, planned.to, planned.length)).collect::<Vec<_>>()
        };
        assert_eq!(list(1, 0), list(1, 0));
        assert_ne!(list(1, 0), list(1, 1));
        assert_ne!(list(1, 0), list(2, 0));
        assert!(list(3, 2).iter().all(|(_, to, length)| *to < 4 && *length <= LONGEST));
    }
}
