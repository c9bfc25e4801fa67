//! When the clock is looked at.

use std::time::Duration;
use steadfast_homa::Instant;

/// Less than this cannot be slept, and what is paced has that much to do.
const BEAT: Duration = Duration::from_millis(1);

/// The moment at which a sleeper looks at the clock. What is due may move it forward, but however often the sleeper is disturbed,
/// it is not put off: packets that come all the time would keep it from ever looking.
#[derive(Debug)]
pub(super) struct Alarm {
    /// Asleep until then.
    at: Instant,
    /// When it looked last.
    looked: Instant,
}

impl Alarm {
    pub(super) const fn new() -> Self {
        Self { at: Instant::FAR_FUTURE, looked: Instant(0) }
    }

    /// The sleeper looks now.
    pub(super) const fn look(&mut self, now: Instant) {
        self.looked = now;
    }

    /// The sleeper goes to sleep: until when, which may be past.
    pub(super) fn set(&mut self, due: Option<Instant>) -> Option<Instant> {
        let at = due.map(|due| self.soonest(due));
        self.at = at.unwrap_or(Instant::FAR_FUTURE);
        at
    }

    /// Whether the sleeper has to be told, because it sleeps longer than until `due`.
    pub(super) fn wakes(&mut self, due: Option<Instant>) -> bool {
        let Some(at) = due.map(|due| self.soonest(due)).filter(|at| *at < self.at) else { return false };
        self.at = at;
        true
    }

    fn soonest(&self, due: Instant) -> Instant {
        due.max(self.looked + BEAT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_that_is_disturbed_all_the_time_looks_at_the_clock_each_beat() {
        let mut alarm = Alarm::new();
        let (mut now, mut looks) = (Instant(1_000_000_000), 0);
        alarm.look(now);
        let end = now + Duration::from_millis(100);
        while now < end {
            // A packet comes, and what is paced is due in a moment.
            now += Duration::from_micros(300);
            alarm.wakes(Some(now));
            if alarm.set(Some(now)).is_some_and(|at| at <= now) {
                alarm.look(now);
                looks += 1;
            }
        }
        assert!((80..=100).contains(&looks), "{looks}");
    }

    #[test]
    fn a_sleeper_is_woken_for_what_is_due_sooner_and_for_nothing_else() {
        let mut alarm = Alarm::new();
        let at = |millis: u64| Some(Instant(millis * 1_000_000));
        assert_eq!(alarm.set(None), None);
        assert!(alarm.wakes(at(50)));
        assert!(!alarm.wakes(at(50)), "it was told");
        assert!(!alarm.wakes(None));
        assert_eq!(alarm.set(at(50)), at(50));
        assert!(!alarm.wakes(at(60)));
        assert!(alarm.wakes(at(40)));
        alarm.look(Instant(40_000_000));
        assert_eq!(alarm.set(at(40)), at(41), "not before the next beat");
        assert!(!alarm.wakes(at(40)));
    }
}
