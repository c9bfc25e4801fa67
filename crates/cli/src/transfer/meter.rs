//! What each network carries, and how fast the whole goes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use steadfast::{Endpoint, Event, Events, Fingerprint, PathInfo, PathNumber};
use tokio::time::Instant;

/// Rates are those of so long a time.
const WINDOW: Duration = Duration::from_secs(4);

/// Which bytes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Sent,
    Received,
}

/// Counts bytes of frames by network.
pub(crate) struct Meter {
    endpoint: Endpoint,
    /// For paths that go down between two looks.
    events: Events,
    peer: Option<Fingerprint>,
    direction: Direction,
    /// Bytes of each path at the last look, and its network: one that is gone has no name any more.
    seen: HashMap<PathNumber, (u64, String)>,
    networks: BTreeMap<String, u64>,
    window: VecDeque<Sample>,
}

struct Sample {
    at: Instant,
    content: u64,
    networks: BTreeMap<String, u64>,
}

/// Bytes a second.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rates {
    pub(crate) content: f64,
    /// By name, those that carry something.
    pub(crate) networks: BTreeMap<String, f64>,
}

impl Meter {
    /// Counts what goes to or comes from `peer`, or everybody.
    pub(crate) fn new(endpoint: &Endpoint, peer: Option<Fingerprint>, direction: Direction) -> Self {
        Self {
            endpoint: endpoint.clone(),
            events: endpoint.events(),
            peer,
            direction,
            seen: HashMap::new(),
            networks: BTreeMap::new(),
            window: VecDeque::new(),
        }
    }

    /// Looks, at a moment at which so much content had moved.
    pub(crate) fn sample(&mut self, content: u64) {
        while let Some(event) = self.events.try_next() {
            if let Event::PathDown(path, _) = event {
                self.count(&path);
                self.seen.remove(&path.path);
            }
        }
        for path in self.endpoint.paths() {
            self.count(&path);
        }
        let now = Instant::now();
        self.window.push_back(Sample { at: now, content, networks: self.networks.clone() });
        while self.window.len() > 2 && now - self.window[1].at >= WINDOW {
            self.window.pop_front();
        }
    }

    fn count(&mut self, path: &PathInfo) {
        if self.peer.is_some_and(|peer| peer != path.peer) {
            return;
        }
        let now = if self.direction == Direction::Sent { path.sent } else { path.received };
        let (before, name) = self.seen.entry(path.path).or_default();
        if name.is_empty() {
            name.clone_from(&path.local_name);
        }
        if !name.is_empty() {
            *self.networks.entry(name.clone()).or_default() += now.saturating_sub(*before);
            *before = now;
        }
    }

    /// Bytes of frames by network, so far.
    pub(crate) fn networks(&self) -> &BTreeMap<String, u64> {
        &self.networks
    }

    /// How fast it goes now.
    pub(crate) fn rates(&self) -> Rates {
        let (Some(first), Some(last)) = (self.window.front(), self.window.back()) else {
            return Rates::default();
        };
        let seconds = (last.at - first.at).as_secs_f64();
        if seconds <= 0.0 {
            return Rates::default();
        }
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        let networks = last
            .networks
            .iter()
            .map(|(name, after)| (name.clone(), rate(first.networks.get(name).copied().unwrap_or(0), *after)))
            // Heartbeats alone are no use of a network.
            .filter(|(_, rate)| *rate >= 500.0)
            .collect();
        Rates { content: rate(first.content, last.content), networks }
    }
}
