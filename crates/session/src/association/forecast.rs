//! How long a message would take, from what the paths' traffic has taught.

use super::Association;
use crate::context::Context;
use crate::estimate::{INITIAL_RATE, INITIAL_RTT};
use crate::event::Forecast;
use crate::outbound::is_small;
use crate::path::Path;
use alloc::vec::Vec;
use core::time::Duration;
use steadfast_wire::{Labels, SessionId, Urgency};

/// How far a guess may be off, either way.
const GUESS: u64 = 16;

/// One path as a forecast sees it: when the first byte is there, and how many follow in a second.
#[derive(Debug, Clone, Copy)]
struct Lane {
    first: Duration,
    rate: u64,
}

impl Association {
    /// When the last byte of a message would be at the peer, were it sent now; `None` if no path may carry it.
    pub(crate) fn forecast(
        &self,
        cx: &Context,
        id: SessionId,
        labels: &Labels,
        bytes: u64,
    ) -> Option<Forecast> {
        let allowed = |path: &&Path| path.is_up() && self.judge(cx, &labels.rule, path).is_some();
        let usable: Vec<&Path> = self.paths.values().filter(allowed).collect();
        let good: Vec<&Path> = usable.iter().copied().filter(|path| path.is_good()).collect();
        let paths = if good.is_empty() { usable } else { good };
        if paths.is_empty() {
            return None;
        }
        let small = is_small(labels, bytes);
        let ahead = if small { 0 } else { self.waiting(id, labels.urgency) };
        let time = |lane: fn(&Path) -> Lane| {
            let lanes = paths.iter().map(|path| lane(path));
            if small {
                lanes.map(|lane| completion(alloc::vec![lane], bytes)).min().unwrap_or_default()
            } else {
                completion(lanes.collect(), bytes + ahead)
            }
        };
        Some(Forecast {
            likely: time(likely),
            earliest: time(earliest),
            latest: time(latest),
            measured: paths
                .iter()
                .all(|path| path.estimate.rtt().is_some() && (small || path.estimate.rate().is_some())),
        })
    }

    /// Bytes that would go before a message of this urgency.
    fn waiting(&self, id: SessionId, urgency: Urgency) -> u64 {
        let of = |class: Urgency| -> u64 {
            let others = self.sessions.values().filter(|session| session.id != id);
            // Sessions share in turns: of others' background as much goes first as of ours follows.
            let others: u64 = others.map(|session| session.out.buffered(class)).sum();
            self.sessions.get(&id).map_or(0, |session| session.out.buffered(class)) + others
        };
        match urgency {
            Urgency::Foreground => of(Urgency::Foreground),
            Urgency::Background => of(Urgency::Foreground) + of(Urgency::Background),
        }
    }
}

fn likely(path: &Path) -> Lane {
    Lane { first: path.estimate.rtt_or_guess() / 2, rate: path.estimate.rate_or_guess() }
}

fn earliest(path: &Path) -> Lane {
    let known = path.estimate.rtt().is_some();
    let first = if known { path.estimate.least_rtt() / 2 } else { Duration::ZERO };
    let rate = path.estimate.rates().max().map_or(INITIAL_RATE * GUESS, |rate| rate + rate / 10);
    Lane { first, rate }
}

fn latest(path: &Path) -> Lane {
    let known = path.estimate.rtt().is_some();
    let first = if known { path.estimate.patience(Duration::ZERO) } else { INITIAL_RTT * 10 };
    let rate = path.estimate.rates().min().map_or(INITIAL_RATE / GUESS, |rate| rate - rate / 10);
    Lane { first, rate: rate.max(1) }
}

/// When the last of `bytes` is there, if all lanes carry them and finish together.
fn completion(mut lanes: Vec<Lane>, bytes: u64) -> Duration {
    lanes.sort_unstable_by_key(|lane| lane.first);
    // With the first n lanes: the sum of rate * (t - first) is what is to be carried.
    let (mut rates, mut head, mut best) = (0u128, 0u128, Duration::MAX);
    for lane in lanes {
        if lane.first >= best {
            break;
        }
        rates += u128::from(lane.rate);
        head += u128::from(lane.rate) * lane.first.as_nanos();
        let nanos = (u128::from(bytes) * 1_000_000_000 + head) / rates;
        best = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn lanes_finish_together_and_a_late_one_is_left_out() {
        let fast = Lane { first: 10 * MS, rate: 8_000_000 };
        let slow = Lane { first: 30 * MS, rate: 2_000_000 };
        assert_eq!(completion(alloc::vec![fast], 8_000), 11 * MS);
        assert_eq!(completion(alloc::vec![slow, fast], 8_000), 11 * MS);
        // 10 ms x 8 MB/s and 30 ms x 2 MB/s are 140 kB that never flow.
        assert_eq!(completion(alloc::vec![slow, fast], 9_860_000), 1000 * MS);
    }
}
