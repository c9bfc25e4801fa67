//! What was asked and answered so far.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use steadfast::PathInfo;

/// Two networks that a path leads over. A path that comes back has another number, and another port if the peer opened
/// it, but the same route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Route {
    pub(super) local: String,
    pub(super) address: IpAddr,
    /// As the peer calls its network; empty until it has said so, which may be after the first answer.
    pub(super) remote: String,
}

impl Route {
    pub(super) fn of(path: &PathInfo) -> Self {
        Self { local: path.local_name.clone(), remote: path.remote_name.clone(), address: path.remote.ip() }
    }

    /// Whether it is the same, however much the peer had said by then.
    pub(super) fn is(&self, other: &Self) -> bool {
        (&self.local, self.address) == (&other.local, other.address)
    }
}

/// Round trips.
#[derive(Debug, Default)]
pub(super) struct Times {
    pub(super) asked: u64,
    pub(super) answered: u64,
    /// Messages that this path carried.
    pub(super) carried: u64,
    min: f64,
    max: f64,
    sum: f64,
    squares: f64,
}

/// Round trips in milliseconds, in short.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    pub(super) min: f64,
    pub(super) avg: f64,
    pub(super) max: f64,
    /// Standard deviation, as ping calls it.
    pub(super) mdev: f64,
}

impl Times {
    fn add(&mut self, time: Duration) {
        let time = milliseconds(time);
        self.min = if self.answered == 0 { time } else { self.min.min(time) };
        self.max = self.max.max(time);
        self.sum += time;
        self.squares += time * time;
        self.answered += 1;
    }

    /// Without an answer in percent.
    pub(super) fn loss(&self) -> f64 {
        if self.asked == 0 { 0.0 } else { 100.0 * (1.0 - self.answered as f64 / self.asked as f64) }
    }

    pub(super) fn summary(&self) -> Option<Summary> {
        let count = self.answered as f64;
        let avg = self.sum / count;
        let mdev = (self.squares / count - avg * avg).max(0.0).sqrt();
        let round = |time: f64| (time * 1e3).round() / 1e3;
        (self.answered > 0).then_some(Summary {
            min: self.min,
            avg: round(avg),
            max: self.max,
            mdev: round(mdev),
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    /// In the order in which they came up.
    pub(super) routes: Vec<(Route, Times)>,
    pub(super) message: Times,
}

impl Tally {
    fn route(&mut self, route: &Route) -> &mut Times {
        let found = self.routes.iter().position(|(known, _)| known.is(route));
        let index = found.unwrap_or_else(|| {
            self.routes.push((route.clone(), Times::default()));
            self.routes.len() - 1
        });
        let (known, times) = &mut self.routes[index];
        if !route.remote.is_empty() {
            known.remote.clone_from(&route.remote);
        }
        times
    }

    pub(super) fn asked(&mut self, route: &Route) {
        self.route(route).asked += 1;
    }

    pub(super) fn answer(&mut self, route: &Route, time: Option<Duration>) {
        if let Some(time) = time {
            self.route(route).add(time);
        }
    }

    pub(super) fn message_answer(&mut self, by: &[Route], time: Option<Duration>) {
        if let Some(time) = time {
            self.message.add(time);
            for route in by {
                self.route(route).carried += 1;
            }
        }
    }

    /// Whether there was any answer.
    pub(super) fn answered(&self) -> bool {
        self.message.answered > 0 || self.routes.iter().any(|(_, times)| times.answered > 0)
    }
}

/// To the microsecond: what is behind that is noise.
pub(super) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_comes_late_is_no_other_route() {
        let route = |remote: &str| Route {
            local: "wifi".into(),
            address: IpAddr::from([10, 0, 0, 1]),
            remote: remote.into(),
        };
        let mut tally = Tally::default();
        tally.asked(&route(""));
        tally.answer(&route("air"), Some(Duration::from_millis(1)));
        tally.asked(&route(""));
        assert_eq!(tally.routes.len(), 1);
        let (known, times) = &tally.routes[0];
        assert_eq!((known.remote.as_str(), times.asked, times.answered), ("air", 2, 1));
    }

    #[test]
    fn times_in_short() {
        let mut times = Times { asked: 4, ..Times::default() };
        assert_eq!(times.summary(), None);
        for milliseconds in [2, 4, 6] {
            times.add(Duration::from_millis(milliseconds));
        }
        let summary = times.summary().unwrap();
        assert_eq!((summary.min, summary.avg, summary.max, times.loss()), (2.0, 4.0, 6.0, 25.0));
        assert!((summary.mdev - (8.0f64 / 3.0).sqrt()).abs() < 1e-3, "{summary:?}");
    }
}
