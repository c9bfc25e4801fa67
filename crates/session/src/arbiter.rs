//! Which process of a host may send how much background on which network, so that several of them are to a network what
//! one is.
//!
//! Each process steers its background by the delay that it sees. Several then see each other's queue: who comes later takes
//! it for a part of the way and adds its own, and nothing makes them equal. The arbiter knows what each of them has, and so
//! how much they have together. That is divided evenly, and the queue with it; who cannot use its part leaves it to the
//! others. It only limits: what a process may send at most is still what its own steering allows.

use crate::estimate::bytes_in;
use crate::share::{NetworkUse, Report, Share};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;
use steadfast_wire::{Instant, NetworkId};
use throughput::Throughput;

/// The most processes, of all users and of one; the rest does as processes do without an arbiter.
const MAX_PROCESSES: usize = 1024;
const MAX_OF_USER: usize = 128;
/// The most networks of one process that are looked at.
const MAX_NETWORKS: usize = 16;
/// A process that reports sooner than this after its last report is not heard.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
/// A process that is silent for so long is gone.
const SILENCE: Duration = Duration::from_millis(500);
/// How long a share is obeyed.
const VALID: Duration = Duration::from_secs(1);
/// How long a network is divided after the last but one process has stopped: what there is, is known so long.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// How often all let their queues run empty, at the latest and at the soonest.
const DRAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];
/// A process that has less than this part of its share, in tenths, for so long, leaves the rest to others...
const UNUSED: u64 = 8;
const UNUSED_AFTER: Duration = Duration::from_secs(1);
/// ...and is given all of it again after this time: perhaps it was the others that kept it from it.
const UNUSED_UNTIL: Duration = Duration::from_secs(8);
/// How long what a process moved counts as what it wants at least, and twice as long at most.
const LATELY: Duration = Duration::from_millis(500);
/// What background has of a network at least: this part of what it carries.
const FLOOR: u64 = 16;
/// Packets that may queue at least, and their size in bytes.
const PACKETS: u64 = 2;
const PACKET: u64 = 1500;

#[cfg(test)]
mod tests;
mod throughput;

/// A process, as whoever holds the arbiter numbers it. A number is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

/// What the system says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Its user. One user's processes have no more than a part of the arbiter's room.
    pub user: u32,
    /// Its network namespace: networks of two namespaces have nothing to do with each other, whatever their numbers.
    pub namespace: u64,
}

/// What was done and refused so far. Counters only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ArbiterStats {
    /// Reports of processes for which there was no room.
    pub refused_processes: u64,
    /// Reports that came too soon after the one before.
    pub refused_reports: u64,
    /// Processes that fell silent.
    pub silent: u64,
}

/// A network of a namespace.
type Place = (u64, NetworkId);

/// Divides the networks of a host among the background of its processes.
///
/// # How to drive it
///
/// Give it what processes report ([`handle_report`](Self::handle_report), about ten times a second for each), tell it when one
/// ends ([`handle_gone`](Self::handle_gone)) and the time ([`handle_timeout`](Self::handle_timeout), not later than
/// [`poll_timeout`](Self::poll_timeout)). After each call drain [`poll_share`](Self::poll_share) and pass every share on to its
/// process. What it says of a process that has ended may be dropped.
///
/// # What it holds
///
/// At most 1,024 processes (128 of one user) with 16 networks each, and one share for each of these.
#[derive(Debug)]
pub struct Arbiter {
    queue: Duration,
    members: BTreeMap<ProcessId, Member>,
    places: BTreeMap<Place, Territory>,
    shares: BTreeMap<(ProcessId, NetworkId), Share>,
    stats: ArbiterStats,
}

#[derive(Debug)]
struct Member {
    owner: Owner,
    heard: Instant,
    networks: BTreeSet<NetworkId>,
}

/// A network and who is on it.
#[derive(Debug)]
struct Territory {
    claims: BTreeMap<ProcessId, Claim>,
    /// What it carried of late.
    carried: Throughput,
    /// When more than one last wanted it.
    contended: Option<Instant>,
    drain: u64,
    drained: Instant,
}

/// What one process does on one network.
#[derive(Debug)]
struct Claim {
    heard: Instant,
    background: u64,
    /// The most background in the last two times of [`LATELY`]: a pause to let the queue run empty is no lack of demand.
    lately: [u64; 2],
    lately_since: Instant,
    foreground: u64,
    background_waits: bool,
    foreground_waits: bool,
    starting: bool,
    room: bool,
    /// Since when large messages of foreground wait without more of it getting through, and how much that is.
    stuck: Option<(Instant, u64)>,
    /// What it was last allowed.
    granted: Option<u64>,
    /// Since when it has less, and no more than this.
    unused: Option<(Instant, u64)>,
}

impl Claim {
    const fn new(now: Instant) -> Self {
        Self {
            heard: now,
            background: 0,
            lately: [0; 2],
            lately_since: now,
            foreground: 0,
            background_waits: false,
            foreground_waits: false,
            starting: false,
            room: false,
            stuck: None,
            granted: None,
            unused: None,
        }
    }

    /// What is kept free for it.
    fn demand(&self, now: Instant, least: u64) -> u64 {
        let settled = self.unused.is_some_and(|(since, _)| now.since(since) >= UNUSED_AFTER);
        if !self.background_waits || settled {
            self.background
        } else {
            // It may double before it is heard again.
            self.lately[0].max(self.lately[1]).saturating_mul(2).max(least)
        }
    }

    fn note(&mut self, now: Instant, network: &NetworkUse) {
        self.heard = now;
        self.background = network.background;
        self.foreground = network.foreground;
        self.background_waits = network.background_waits;
        self.foreground_waits = network.foreground_waits;
        self.starting = network.starting;
        self.room = network.room;
        if now.since(self.lately_since) >= LATELY {
            self.lately = [0, self.lately[0]];
            self.lately_since = now;
        }
        self.lately[0] = self.lately[0].max(self.background);
        let enough = self.granted.is_none_or(|granted| self.background >= granted / 10 * UNUSED);
        self.unused = if enough { None } else { Some(resting(now, self.unused, self.background)) };
        self.stuck = self.foreground_waits.then(|| resting(now, self.stuck, self.foreground));
    }

    /// What is kept free for its foreground.
    fn foreground_demand(&self, now: Instant, capacity: u64) -> u64 {
        if !self.foreground_waits {
            self.foreground
        } else if self.stuck.is_some_and(|(since, _)| now.since(since) >= UNUSED_AFTER) {
            // It has all that it can take, and is to keep it.
            self.foreground.saturating_add(self.foreground / 4)
        } else {
            self.foreground.saturating_mul(2).max(capacity / 4)
        }
    }

    /// What it may have of a network that has this much for each.
    fn grant(&self, level: u64) -> u64 {
        if !(self.background_waits && self.room) {
            return level;
        }
        // The network has more than it was ever seen to carry: who still grows may double, others are to grow.
        let grows = self.background / 9 > self.lately[1] / 8;
        let more = if grows { self.background } else { self.background / 4 };
        level.max(self.background.saturating_add(more))
    }
}

/// Since when something has not grown, and how much it was then.
fn resting(now: Instant, before: Option<(Instant, u64)>, amount: u64) -> (Instant, u64) {
    before
        .filter(|(since, most)| amount / 9 <= most / 8 && now.since(*since) < UNUSED_UNTIL)
        .unwrap_or((now, amount))
}

impl Arbiter {
    /// An arbiter that lets background queue in a network for `queue` in all, as
    /// [`Config::background_queue`](crate::Config::background_queue) does for one process; 10 ms is its default.
    #[must_use]
    pub const fn new(queue: Duration) -> Self {
        Self {
            queue,
            members: BTreeMap::new(),
            places: BTreeMap::new(),
            shares: BTreeMap::new(),
            stats: ArbiterStats { refused_processes: 0, refused_reports: 0, silent: 0 },
        }
    }

    /// What was done and refused so far.
    #[must_use]
    pub const fn stats(&self) -> ArbiterStats {
        self.stats
    }

    /// A process says what it does. What the system says of it must not change while it lives.
    pub fn handle_report(&mut self, now: Instant, process: ProcessId, owner: Owner, report: &Report) {
        let has_room = self.members.contains_key(&process) || self.has_room(owner.user);
        match self.members.get_mut(&process) {
            Some(member) if now.since(member.heard) < LEAST_PAUSE => {
                self.stats.refused_reports += 1;
                return;
            }
            Some(member) => member.heard = now,
            None if !has_room => {
                self.stats.refused_processes += 1;
                return;
            }
            None => {
                self.members.insert(process, Member { owner, heard: now, networks: BTreeSet::new() });
            }
        }
        let networks: BTreeMap<NetworkId, &NetworkUse> =
            report.networks.iter().take(MAX_NETWORKS).map(|network| (network.network, network)).collect();
        let Some(member) = self.members.get_mut(&process) else { return };
        let namespace = member.owner.namespace;
        let former = core::mem::replace(&mut member.networks, networks.keys().copied().collect());
        for id in former.into_iter().filter(|id| !networks.contains_key(id)) {
            self.leaves(now, (namespace, id), process);
        }
        for (id, network) in networks {
            let place = (namespace, id);
            let territory = self.places.entry(place).or_insert_with(|| Territory::new(now));
            let changed = territory.note(now, process, network);
            self.divide(now, place, (!changed).then_some(process));
        }
    }

    fn has_room(&self, user: u32) -> bool {
        let same = self.members.values().filter(|member| member.owner.user == user).count();
        self.members.len() < MAX_PROCESSES && same < MAX_OF_USER
    }

    /// A process has ended, or is not to be served any more.
    pub fn handle_gone(&mut self, now: Instant, process: ProcessId) {
        let Some(member) = self.members.remove(&process) else { return };
        for id in member.networks {
            self.leaves(now, (member.owner.namespace, id), process);
        }
    }

    /// What is due by the clock: those that are silent are gone.
    pub fn handle_timeout(&mut self, now: Instant) {
        let silent = self.members.iter().filter(|(_, member)| member.heard + SILENCE <= now);
        for process in silent.map(|(process, _)| *process).collect::<Vec<_>>() {
            self.stats.silent += 1;
            self.handle_gone(now, process);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.members.values().map(|member| member.heard + SILENCE).min()
    }

    /// What a process is to be told.
    pub fn poll_share(&mut self) -> Option<(ProcessId, Share)> {
        self.shares.pop_first().map(|((process, _), share)| (process, share))
    }

    /// A process is not on a network any more.
    fn leaves(&mut self, now: Instant, place: Place, process: ProcessId) {
        self.shares.remove(&(process, place.1));
        let Some(territory) = self.places.get_mut(&place) else { return };
        territory.claims.remove(&process);
        if territory.claims.is_empty() {
            self.places.remove(&place);
        } else {
            self.divide(now, place, None);
        }
    }

    /// Divides a network anew, and tells one process or all of them.
    fn divide(&mut self, now: Instant, place: Place, only: Option<ProcessId>) {
        let Some(territory) = self.places.get_mut(&place) else { return };
        let level = territory.level(now);
        let wanting = territory.claims.values().filter(|claim| claim.background_waits).count() as u64;
        let budget = bytes_in(territory.carried.most().unwrap_or(0), self.queue).max(PACKETS * PACKET);
        let queue = budget / wanting.max(1);
        let drain = territory.drain;
        let foreground = |claim: &Claim| claim.foreground_waits || claim.foreground > 0;
        let with_foreground = territory.claims.values().filter(|claim| foreground(claim)).count();
        for (process, claim) in &mut territory.claims {
            claim.granted = level.map(|level| claim.grant(level));
            if only.is_some_and(|only| only != *process) {
                continue;
            }
            let share = Share {
                network: place.1,
                rate: claim.granted,
                queue,
                foreground: with_foreground > usize::from(foreground(claim)),
                drain,
                valid: VALID,
            };
            self.shares.insert((*process, place.1), share);
        }
    }
}

impl Territory {
    fn new(now: Instant) -> Self {
        Self {
            claims: BTreeMap::new(),
            carried: Throughput::new(now),
            contended: None,
            drain: 0,
            drained: now,
        }
    }

    /// What a process does now. Whether all have to hear of it: it begins, or ends, or it is time to drain.
    fn note(&mut self, now: Instant, process: ProcessId, network: &NetworkUse) -> bool {
        let claim = self.claims.entry(process).or_insert_with(|| Claim::new(now));
        let (begins, ends) = match (claim.background_waits, network.background_waits) {
            (false, true) => (true, false),
            (true, false) => (false, true),
            _ => (false, false),
        };
        let pushes = claim.foreground_waits != network.foreground_waits;
        self.carried.add(claim.heard, now, network.background.saturating_add(network.foreground));
        claim.note(now, network);
        // What all have told of is known.
        let known = self.claims.values().map(|claim| claim.heard).min().unwrap_or(now);
        self.carried.settle(now, known);
        let drains = self.wanting() > 1 && now.since(self.drained) >= DRAIN[usize::from(!begins)];
        if drains {
            self.drain += 1;
            self.drained = now;
        }
        begins || ends || pushes || drains
    }

    fn wanting(&self) -> usize {
        self.claims.values().filter(|claim| claim.background_waits).count()
    }

    /// What the background of each process may have, in bytes a second; `None` if there is nothing to divide.
    fn level(&mut self, now: Instant) -> Option<u64> {
        let pressing = self.claims.values().any(|claim| claim.foreground_waits);
        let wanting = self.wanting();
        if wanting > 1 || wanting == 1 && pressing {
            self.contended = Some(now);
        } else if wanting == 0 || self.contended.is_none_or(|at| now.since(at) >= AFTERWARDS) {
            return None;
        }
        // Before anybody has found out what there is, it cannot be divided.
        if self.claims.values().all(|claim| claim.starting || !claim.background_waits) {
            return None;
        }
        let capacity = self.carried.most()?;
        let reserved = self.claims.values().map(|claim| claim.foreground_demand(now, capacity));
        let reserved = reserved.fold(0, u64::saturating_add);
        let free = capacity.saturating_sub(reserved).max(capacity / FLOOR);
        let mut demands: Vec<u64> =
            self.claims.values().map(|claim| claim.demand(now, free / FLOOR)).filter(|d| *d > 0).collect();
        demands.sort_unstable();
        let mut left = free;
        let count = demands.len();
        for (at, demand) in demands.iter().enumerate() {
            let even = left / (count - at) as u64;
            if *demand >= even {
                return Some(even);
            }
            left -= demand;
        }
        // Nobody wants more than there is.
        let spare = left / demands.len().max(1) as u64;
        Some(demands.last().copied().unwrap_or(0).saturating_add(spare))
    }
}
