//! What this process does on its networks, and what part of them it may have beside other processes of its host.

use super::Endpoint;
use crate::path::{Meter, Path};
use crate::share::{Allotment, Kept, NetworkUse, Report, Share};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;
use steadfast_wire::time::nanos;
use steadfast_wire::{Instant, NetworkId};

/// Whoever asks again sooner gets the same answer: of less time nothing can be said.
const LEAST: Duration = Duration::from_millis(10);
/// What the arbiter of the host was told, and what it said.
#[derive(Debug, Default)]
pub(super) struct Arbitration {
    asked: Option<Instant>,
    report: Report,
    /// By network; only those that are here.
    shares: BTreeMap<NetworkId, Kept>,
}

impl Endpoint {
    /// What this process does on its networks, for the arbiter of the host. Rates are those since the last call, so that only
    /// one may ask, about ten times a second; it looks at each path once.
    pub fn network_use(&mut self, now: Instant) -> Report {
        let elapsed = match self.arbitration.asked {
            Some(asked) if now.since(asked) < LEAST => return self.arbitration.report.clone(),
            Some(asked) => now.since(asked),
            // What was before is not known.
            None => Duration::MAX,
        };
        self.arbitration.asked = Some(now);
        let mut uses: BTreeMap<NetworkId, NetworkUse> = BTreeMap::new();
        for path in self.associations.values_mut().flat_map(|home| home.paths.values_mut()) {
            if path.is_up() {
                let of = path.local;
                let network = uses.entry(of).or_insert_with(|| unused(of));
                add(now, network, path, elapsed);
            }
        }
        for network in uses.values_mut() {
            network.name = self.cx.network_name(network.network);
        }
        self.arbitration.report = Report { networks: uses.into_values().collect() };
        self.arbitration.report.clone()
    }

    /// The arbiter of the host says what part of a network the background of this process may have; it counts until it has
    /// said something else, or [`Share::valid`] has passed. One of a network that is not here is ignored.
    pub fn set_share(&mut self, now: Instant, share: Share) {
        if self.cx.network(share.network).is_none() {
            return;
        }
        let kept = Kept::new(now, share);
        let networks = &self.cx.networks;
        let shares = &mut self.arbitration.shares;
        shares.retain(|id, kept| now < kept.until && networks.iter().any(|network| network.id == *id));
        let before = shares.insert(share.network, kept);
        let drains = before.is_some_and(|before| before.share.drain != share.drain);
        let on_it = |path: &&mut Path| path.is_up() && path.local == share.network;
        let (mut paths, mut rates, mut concerned) = (0, 0u64, Vec::new());
        for path in self.associations.values_mut().flat_map(|home| home.paths.values_mut()).filter(on_it) {
            if path.has_background() {
                paths += 1;
                rates = rates.saturating_add(path.estimate.rate_or_guess());
            }
        }
        for (id, home) in &mut self.associations {
            for path in home.paths.values_mut().filter(on_it) {
                concerned.push(*id);
                // One that is idle may begin with all of it, until the next share.
                let part =
                    if path.has_background() { (path.estimate.rate_or_guess(), rates) } else { (1, 1) };
                let allotment = share.rate.map(|rate| allot(rate, share.queue, part, kept.until));
                path.allot(allotment);
                if drains && paths > 0 {
                    path.drain(now);
                }
            }
        }
        concerned.dedup();
        // What waited for it may go now.
        for id in concerned {
            self.after(now, id);
        }
    }
}

fn unused(network: NetworkId) -> NetworkUse {
    NetworkUse {
        network,
        name: alloc::string::String::new(),
        paths: 0,
        rate: 0,
        foreground: 0,
        background: 0,
        foreground_waits: false,
        background_waits: false,
        starting: false,
        room: true,
    }
}

/// Adds what a path did in a time to its network.
fn add(now: Instant, network: &mut NetworkUse, path: &mut Path, elapsed: Duration) {
    let in_use = path.has_background();
    let Meter { background, foreground, background_waited, foreground_waited } =
        core::mem::take(&mut path.meter);
    path.waited = background_waited;
    // A socket that takes nothing holds back whatever there is.
    let stuck = path.blocked.is_some();
    network.paths += 1;
    if in_use {
        network.rate = network.rate.saturating_add(path.estimate.rate().unwrap_or(0));
        network.starting |= path.is_starting(now);
        network.room &= path.has_room();
    }
    network.background = network.background.saturating_add(rate(background, elapsed));
    network.foreground = network.foreground.saturating_add(rate(foreground, elapsed));
    network.background_waits |= background_waited || stuck && background > 0;
    network.foreground_waits |= foreground_waited;
}

fn rate(bytes: u64, elapsed: Duration) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(nanos(elapsed).max(1))).unwrap_or(u64::MAX)
}

/// A path's part of a share.
fn allot(rate: u64, queue: u64, (part, of): (u64, u64), until: Instant) -> Allotment {
    let part_of = |all: u64| {
        u64::try_from(u128::from(all) * u128::from(part) / u128::from(of.max(1))).unwrap_or(u64::MAX)
    };
    Allotment { rate: part_of(rate), queue: part_of(queue), until }
}
