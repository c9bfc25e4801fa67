//! What a path's traffic says of it: round trip and its variance (RFC 6298), least round trip, delivery rate.

use alloc::collections::VecDeque;
use core::time::Duration;
use steadfast_wire::Instant;
use steadfast_wire::time::nanos;

/// How long the least round trip is believed.
const MIN_RTT_WINDOW: Duration = Duration::from_secs(10);
/// How many rounds the highest delivery rate is believed.
const RATE_ROUNDS: usize = 8;
/// A round of rate measurement is a round trip, at least and at most this long.
const ROUND: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];
/// Before the first measurement.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Before the first measurement, in bytes a second.
pub(crate) const INITIAL_RATE: u64 = 1_000_000;
/// Rounds without growth after which the path counts as full.
const PLATEAU: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct Estimate {
    srtt: Option<Duration>,
    /// Of the last path between the same networks. Nothing is suspect by it.
    expected_rtt: Option<Duration>,
    rttvar: Duration,
    /// When a round trip was last measured.
    measured: Option<Instant>,
    /// Least round trips of the last two windows.
    least: [Option<Duration>; 2],
    least_since: Option<Instant>,
    rates: VecDeque<u64>,
    /// Where the current round began: the peer's clock in microseconds, and the bytes acknowledged by then.
    round: Option<(u64, u64)>,
    delivered: u64,
    /// The sender had nothing to send at some moment of the round, so its rate says little of the path.
    starved: bool,
    /// Rounds without growth since the start.
    plateau: u32,
}

impl Estimate {
    pub(crate) const fn rtt(&self) -> Option<Duration> {
        self.srtt
    }

    /// Smoothed round trip, or a guess.
    pub(crate) fn rtt_or_guess(&self) -> Duration {
        self.srtt.or(self.expected_rtt).unwrap_or(INITIAL_RTT)
    }

    pub(crate) const fn measured(&self) -> Option<Instant> {
        self.measured
    }

    /// Whether what is believed is far above what was just measured.
    pub(crate) fn is_above(&self, sample: Duration) -> bool {
        self.srtt.is_some_and(|srtt| srtt > sample + sample / 4)
    }

    /// Least round trip of the last ten to twenty seconds.
    pub(crate) fn least_rtt(&self) -> Duration {
        self.least.iter().flatten().min().copied().unwrap_or_else(|| self.rtt_or_guess())
    }

    /// What a path is expected to be like until it is measured.
    pub(crate) fn expect(&mut self, rtt: Duration, rate: Option<u64>) {
        self.expected_rtt = Some(rtt);
        if let Some(rate) = rate.filter(|_| self.rates.is_empty()) {
            self.rates.push_back(rate - rate / 10);
            self.started();
        }
    }

    /// Recent delivery rates in bytes a second.
    pub(crate) fn rates(&self) -> impl Iterator<Item = u64> {
        self.rates.iter().copied()
    }

    /// Highest recent delivery rate in bytes a second.
    pub(crate) fn rate(&self) -> Option<u64> {
        self.rates.iter().max().copied()
    }

    pub(crate) fn rate_or_guess(&self) -> u64 {
        self.rate().unwrap_or(INITIAL_RATE).max(1)
    }

    /// How late an answer may be before the path is suspect: four variances, at least `margin`, over the round trip.
    pub(crate) fn patience(&self, margin: Duration) -> Duration {
        match self.srtt {
            Some(srtt) => srtt + (self.rttvar * 4).max(margin),
            None => Duration::from_secs(1),
        }
    }

    pub(crate) fn round_trip(&mut self, now: Instant, sample: Duration) {
        self.measured = Some(now);
        match self.srtt {
            None => {
                self.srtt = Some(sample);
                self.rttvar = sample / 2;
            }
            Some(srtt) => {
                self.rttvar = (self.rttvar * 3 + srtt.abs_diff(sample)) / 4;
                self.srtt = Some((srtt * 7 + sample) / 8);
            }
        }
        let since = *self.least_since.get_or_insert(now);
        if now.since(since) > MIN_RTT_WINDOW {
            self.least = [None, self.least[0]];
            self.least_since = Some(now);
        }
        self.least[0] = Some(self.least[0].map_or(sample, |least| least.min(sample)));
    }

    /// `bytes` more were acknowledged; the last of them arrived at `clock` (microseconds, the peer's). Whether a round of
    /// measurement ended with them.
    pub(crate) fn delivered(&mut self, bytes: u64, clock: u64) -> bool {
        self.delivered += bytes;
        let Some((begun, before)) = self.round else {
            self.round = Some((clock, self.delivered));
            return false;
        };
        let elapsed = Duration::from_micros(clock.saturating_sub(begun));
        if elapsed < self.rtt_or_guess().clamp(ROUND[0], ROUND[1]) {
            return false;
        }
        let rate =
            u64::try_from(u128::from(self.delivered - before) * 1_000_000_000 / u128::from(nanos(elapsed)))
                .unwrap_or(u64::MAX);
        self.end_round(rate);
        self.round = Some((clock, self.delivered));
        true
    }

    fn end_round(&mut self, rate: u64) {
        let best = self.rate().unwrap_or(0);
        // A round in which the sender ran dry says nothing of the path, unless it beats what is known or guessed.
        if !core::mem::take(&mut self.starved) || rate > self.rate_or_guess() {
            self.plateau = if rate > best + best / 4 { 0 } else { self.plateau.saturating_add(1) };
            self.rates.push_back(rate);
            if self.rates.len() > RATE_ROUNDS {
                self.rates.pop_front();
            }
        }
    }

    /// The sender has nothing more to send just now.
    pub(crate) const fn starved(&mut self) {
        self.starved = true;
    }

    /// Nothing was in flight for a while: the round says how fast the path is at least. An application that writes now
    /// and then may never keep it busy for a whole one.
    pub(crate) const fn idle(&mut self) {
        self.starved = true;
    }

    /// Whether the rate still grows from round to round.
    pub(crate) const fn is_starting(&self) -> bool {
        self.plateau < PLATEAU
    }

    /// The path is full.
    pub(crate) const fn started(&mut self) {
        self.plateau = PLATEAU;
    }

    /// There is more room than there was: the rate is found anew, from where it is.
    pub(crate) const fn restart(&mut self) {
        self.plateau = 0;
    }

    /// The path became slower than it was: what is believed of it is lowered without waiting for it to be forgotten.
    pub(crate) fn slow_down(&mut self) {
        for rate in &mut self.rates {
            *rate -= *rate * 3 / 20;
        }
    }
}

/// How many bytes pass in `time` at `rate` bytes a second.
pub(crate) fn bytes_in(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
}

/// How long `bytes` take at `rate` bytes a second.
pub(crate) fn time_of(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_path_and_not_of_a_starved_sender() {
        let mut estimate = Estimate::default();
        let mut now = Instant(0);
        let mut clock = 0;
        for _ in 0..50 {
            now += Duration::from_millis(10);
            clock += 10_000;
            estimate.round_trip(now, Duration::from_millis(20));
            estimate.delivered(25_000, clock);
        }
        let rate = estimate.rate().unwrap();
        assert!((2_400_000..=2_600_000).contains(&rate), "{rate}");
        for _ in 0..50 {
            clock += 10_000;
            estimate.starved();
            estimate.delivered(1_000, clock);
        }
        assert_eq!(estimate.rate().unwrap(), rate);
    }

    #[test]
    fn patience_covers_the_variance() {
        let mut estimate = Estimate::default();
        for at in 0..100u64 {
            estimate.round_trip(Instant(at), Duration::from_millis(if at % 2 == 0 { 20 } else { 60 }));
        }
        assert!(estimate.patience(Duration::from_millis(15)) > Duration::from_millis(100));
    }
}
