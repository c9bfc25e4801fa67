//! Time as the cores see it: an argument, never a clock.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A moment in nanoseconds on a monotonic clock that the caller chose.
///
/// Only differences have a meaning, and only within one process. Arithmetic saturates: a clock that jumps cannot
/// make a core panic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The latest moment there is; used as "never" where an `Option` would be noise.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// The time since `earlier`, zero if `earlier` is later.
    ///
    /// ```
    /// use core::time::Duration;
    /// use steadfast_wire::Instant;
    /// let start = Instant(5);
    /// assert_eq!((start + Duration::from_nanos(7)).since(start), Duration::from_nanos(7));
    /// assert_eq!(start.since(Instant(9)), Duration::ZERO);
    /// ```
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Whole nanoseconds of a duration, saturating at about 584 years.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(nanos(rhs)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(rhs)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.0 as f64 / 1e9)
    }
}
