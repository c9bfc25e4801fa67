//! How often somebody may do something: a token bucket, kept as the moment at which it is full again.

use core::time::Duration;
use steadfast_wire::Instant;

/// So many a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Events a second in the long run; 0 for as many as come.
    pub per_second: u32,
    /// Events at once, after a pause; at least 1.
    pub burst: u32,
}

impl Rate {
    /// As many as come.
    pub const UNLIMITED: Self = Self { per_second: 0, burst: 1 };

    fn interval(self) -> Option<Duration> {
        1_000_000_000u64.checked_div(u64::from(self.per_second)).map(Duration::from_nanos)
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// Whether there is a token, or for how long there will be none.
    pub(crate) fn check(self, now: Instant, rate: Rate) -> Result<(), Duration> {
        let Some(interval) = rate.interval() else { return Ok(()) };
        let room = interval * (rate.burst.max(1) - 1);
        match self.full_at.since(now).checked_sub(room) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    pub(crate) fn take(&mut self, now: Instant, rate: Rate) {
        if let Some(interval) = rate.interval() {
            self.full_at = self.full_at.max(now) + interval;
        }
    }

    pub(crate) fn is_full(self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate { per_second: 10, burst: 3 };
        let mut bucket = Bucket::default();
        let mut now = Instant(5_000_000_000);
        for _ in 0..3 {
            assert_eq!(bucket.check(now, rate), Ok(()));
            bucket.take(now, rate);
        }
        assert_eq!(bucket.check(now, rate), Err(Duration::from_millis(100)));
        now += Duration::from_millis(99);
        assert_eq!(bucket.check(now, rate), Err(Duration::from_millis(1)));
        now += Duration::from_millis(1);
        assert_eq!(bucket.check(now, rate), Ok(()));
        bucket.take(now, rate);
        assert!(bucket.check(now, rate).is_err() && !bucket.is_full(now));
        now += Duration::from_secs(100);
        assert!(bucket.is_full(now));
        let taken = (0..10).take_while(|_| {
            let free = bucket.check(now, rate).is_ok();
            bucket.take(now, rate);
            free
        });
        assert_eq!(taken.count(), 3, "a long pause gives no more than a burst");
        assert_eq!(bucket.check(now, Rate::UNLIMITED), Ok(()));
    }
}
