//! The time that the core is told: it stands still while the endpoint is quiesced and never goes back.

use crate::lock;
use std::sync::Mutex;
use std::time::Instant as Wall;
use steadfast_wire::Instant;

/// A monotonic clock whose base can be moved.
#[derive(Debug)]
pub(crate) struct Clock {
    anchor: Mutex<Anchor>,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    base: Wall,
    /// What the core was told at `base`, in nanoseconds.
    at: u64,
    last: u64,
    frozen: bool,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { anchor: Mutex::new(Anchor { base: Wall::now(), at: 1, last: 1, frozen: false }) }
    }

    pub(crate) fn now(&self) -> Instant {
        self.at(Wall::now())
    }

    fn at(&self, wall: Wall) -> Instant {
        let mut anchor = lock(&self.anchor);
        if !anchor.frozen {
            let passed = wall.saturating_duration_since(anchor.base);
            let passed = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
            // A system whose monotonic clock went back (a restored image) must not take the core with it.
            anchor.last = anchor.last.max(anchor.at.saturating_add(passed));
        }
        Instant(anchor.last)
    }

    /// Stops the time.
    pub(crate) fn freeze(&self) {
        let _last = self.now();
        lock(&self.anchor).frozen = true;
    }

    /// Lets the time go on from where it was stopped, whatever the system's clock did meanwhile.
    pub(crate) fn thaw(&self) {
        self.thaw_at(Wall::now());
    }

    fn thaw_at(&self, wall: Wall) {
        let mut anchor = lock(&self.anchor);
        *anchor = Anchor { base: wall, at: anchor.last, last: anchor.last, frozen: false };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_that_jumps_does_not_take_the_core_along() {
        let clock = Clock::new();
        let start = Wall::now() + Duration::from_secs(100);
        let before = clock.at(start);
        let earlier = |seconds| start.checked_sub(Duration::from_secs(seconds)).unwrap();
        assert_eq!(clock.at(earlier(50)), before, "never back");
        lock(&clock.anchor).frozen = true;
        assert_eq!(clock.at(start + Duration::from_secs(1000)), before, "frozen");
        let later = start + Duration::from_secs(5000);
        clock.thaw_at(later);
        assert_eq!(clock.at(later), before);
        assert_eq!(clock.at(later + Duration::from_secs(1)).since(before), Duration::from_secs(1));
        clock.thaw_at(earlier(90));
        let now = clock.at(earlier(89));
        assert_eq!(now.since(before), Duration::from_secs(2));
    }
}
