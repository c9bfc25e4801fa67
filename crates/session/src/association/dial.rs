//! Which paths to open, and when to try again.
//!
//! Both sides open paths, between every pair of a local and a remote network that can reach each other as far as
//! addresses tell. The side that opened the association begins; the other waits a moment, so that pairs are rarely
//! opened twice. Addresses that stopped answering are remembered and all of them are tried again: two hosts that
//! lost each other always find back as long as one address holds.

use super::Association;
use crate::context::Context;
use crate::event::{Action, DownReason};
use crate::path::{Path, State};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use steadfast_wire::time::nanos;
use steadfast_wire::{Instant, Network, NetworkClass, NetworkId, PathNumber, Rule};

/// The most addresses that are remembered besides those the peer announces.
const MAX_ADDRESSES: usize = 16;

/// The most pairs whose failures are remembered; beyond it only those that are still wanted.
const MAX_ATTEMPTS: usize = 256;

#[derive(Debug, Default)]
struct Attempt {
    next: Instant,
    failures: u32,
    /// Which of the pair's addresses is tried next.
    turn: usize,
}

/// A pair of networks; the remote one by number once it is known, by address before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Remote {
    Network(NetworkId),
    Address(SocketAddr),
}

/// Two networks, and the addresses at which the remote one may be reached.
type Pair = (NetworkId, Remote, Vec<SocketAddr>);

#[derive(Debug)]
pub(crate) struct Dials {
    addresses: Vec<SocketAddr>,
    attempts: BTreeMap<(NetworkId, Remote), Attempt>,
    /// We wait for the other side to open paths until then; `None` never to dial.
    from: Option<Instant>,
}

impl Dials {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, attempts: BTreeMap::new(), from: Some(Instant(0)) }
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn remember(&mut self, address: SocketAddr) {
        if self.addresses.contains(&address) {
            return;
        }
        if self.addresses.len() == MAX_ADDRESSES {
            // The first one is what the user typed; of those learned since, the oldest goes.
            self.addresses.remove(1);
        }
        self.addresses.push(address);
    }

    /// Leaves the opening to the peer until `from`.
    pub(crate) const fn wait_until(&mut self, from: Instant) {
        self.from = Some(from);
    }

    pub(super) const fn stop(&mut self) {
        self.from = None;
    }

    pub(super) fn networks_changed(&mut self, now: Instant) {
        for attempt in self.attempts.values_mut() {
            *attempt = Attempt { next: now, ..Attempt::default() };
        }
    }

    /// A path came up: its addresses are good, and the next failure is the first again.
    pub(super) fn came_up(&mut self, path: Option<&Path>) {
        let Some(path) = path else { return };
        for key in
            [path.remote.map(Remote::Network), Some(Remote::Address(path.address))].into_iter().flatten()
        {
            if let Some(attempt) = self.attempts.get_mut(&(path.local, key)) {
                attempt.failures = 0;
            }
        }
    }

    /// A path went down or never came up: pause, twice as long each time it fails in a row.
    pub(super) fn failed(&mut self, cx: &mut Context, now: Instant, path: &Path, was_up: bool) {
        let keys = [path.remote.map(Remote::Network), Some(Remote::Address(path.address))];
        for key in keys.into_iter().flatten() {
            let known = matches!(key, Remote::Network(_)) || self.addresses.contains(&path.address);
            if known || self.attempts.contains_key(&(path.local, key)) {
                let attempt = self.attempts.entry((path.local, key)).or_default();
                attempt.failures = if was_up { 0 } else { attempt.failures.saturating_add(1) };
                attempt.turn = attempt.turn.wrapping_add(1);
                attempt.next = now + pause(cx, attempt.failures);
            }
        }
    }
}

fn pause(cx: &mut Context, failures: u32) -> Duration {
    let base = cx.config.backoff_min.saturating_mul(1 << failures.min(16)).min(cx.config.backoff_max);
    // Between half and all of it, or two sides that failed together would try together for ever.
    Duration::from_nanos(nanos(base) / 2 + cx.rng.below(nanos(base) / 2 + 1))
}

impl Association {
    /// Opens the paths that are missing and due.
    pub(crate) fn dial(&mut self, cx: &mut Context, now: Instant) {
        let Some(from) = self.dials.from else { return };
        self.dial_dirty = true;
        if from > now || self.wants_nothing() {
            return;
        }
        let wanted = self.pairs(cx);
        if self.dials.attempts.len() > MAX_ATTEMPTS {
            self.dials
                .attempts
                .retain(|pair, _| wanted.iter().any(|(local, remote, _)| (*local, *remote) == *pair));
        }
        for (local, remote, addresses) in &wanted {
            let (local, remote) = (*local, *remote);
            let due = self.dials.attempts.get(&(local, remote)).is_none_or(|attempt| attempt.next <= now);
            if !due || self.has_path(local, remote, addresses) {
                continue;
            }
            if !self.make_room(cx, now, &wanted) {
                return;
            }
            let attempt = self.dials.attempts.entry((local, remote)).or_default();
            let address = addresses[attempt.turn % addresses.len()];
            // The attempt's own end sets the next time; this guards against a driver that never answers.
            attempt.next = now + cx.config.connect_timeout.saturating_mul(2);
            let number = cx.next_path();
            let mut path = Path::new(number, true, local, address, now, now + cx.config.connect_timeout);
            path.same_host = cx.is_ours(address.ip());
            self.paths.insert(number, path);
            cx.actions.push_back(Action::Connect { path: number, local, remote: address, peer: self.peer });
        }
    }

    /// When [`Association::dial`] has something to do.
    pub(super) fn next_dial(&self, cx: &Context) -> Option<Instant> {
        let from = self.dials.from?;
        if self.wants_nothing() {
            return None;
        }
        let wanted = self.pairs(cx);
        if self.paths.len() >= cx.config.max_paths && self.spare(&wanted).is_none() {
            return None;
        }
        let missing =
            wanted.iter().filter(|(local, remote, addresses)| !self.has_path(*local, *remote, addresses));
        let next = |(local, remote, _): &Pair| {
            self.dials.attempts.get(&(*local, *remote)).map_or(Instant(0), |a| a.next)
        };
        let due = missing.map(next).min()?;
        Some(due.max(from))
    }

    /// A path between networks that are not among the most promising pairs.
    fn spare(&self, wanted: &[Pair]) -> Option<PathNumber> {
        let joins = |path: &Path, (local, remote, addresses): &Pair| {
            path.local == *local
                && match remote {
                    Remote::Network(id) => path.remote == Some(*id),
                    Remote::Address(_) => addresses.contains(&path.address),
                }
        };
        // Never the last one that works.
        if self.paths.values().filter(|path| path.is_good()).count() < 2 {
            return None;
        }
        let spare = |path: &&Path| path.is_up() && !wanted.iter().any(|pair| joins(path, pair));
        self.paths.values().find(spare).map(|path| path.number)
    }

    /// Makes sure that one more path may be opened.
    fn make_room(&mut self, cx: &mut Context, now: Instant, wanted: &[Pair]) -> bool {
        if self.paths.len() < cx.config.max_paths {
            return true;
        }
        let Some(number) = self.spare(wanted) else { return false };
        self.path_down(cx, now, number, DownReason::Replaced);
        true
    }

    fn wants_nothing(&self) -> bool {
        self.sessions.is_empty()
    }

    fn has_path(&self, local: NetworkId, remote: Remote, addresses: &[SocketAddr]) -> bool {
        self.paths.values().any(|path| {
            path.local == local
                && match remote {
                    Remote::Network(id) => {
                        path.remote == Some(id)
                            || path.remote.is_none() && path.opener && addresses.contains(&path.address)
                    }
                    Remote::Address(address) => path.address == address,
                }
        })
    }

    /// The pairs of networks that are to have a path: those that may reach each other, the most promising first, at
    /// most as many as there may be paths. Both sides come to the same list once each knows the other's networks.
    fn pairs(&self, cx: &Context) -> Vec<Pair> {
        let is_loopback =
            |path: &Path| cx.network(path.local).is_some_and(|n| n.class == NetworkClass::Loopback);
        let same_host = self.paths.values().any(|path| path.is_up() && is_loopback(path));
        let unmetered = |path: &Path| path.is_good() && cx.network(path.local).is_some_and(|n| !n.metered);
        // Metered networks are for when no other works, or for a message that may use them and no other.
        let metered = cx.config.metered_standby || !self.paths.values().any(unmetered);
        let is_wanted = |local: &Network, remote: &Network| {
            let allows = |rule: &Rule| rule.allows(local, remote);
            !local.metered
                || metered
                || self.sessions.values().any(|s| s.out.wants(allows) || s.deferrals.wants(allows))
        };
        let first = cx.identity < self.peer;
        let tie = |local: NetworkId, remote: u32| if first { (local.0, remote) } else { (remote, local.0) };
        let mut pairs = Vec::new();
        for local in &cx.networks {
            if cx.config.forbids(local) {
                continue;
            }
            let loopback = local.class == NetworkClass::Loopback;
            if same_host && !loopback {
                continue;
            }
            for remote in &self.remote_networks {
                if loopback != (remote.class == NetworkClass::Loopback)
                    || (loopback && !same_host)
                    || remote.port == 0
                    || cx.config.forbids(remote)
                    || !is_wanted(local, remote)
                {
                    continue;
                }
                let addresses = reachable(local, remote);
                if let Some(near) = addresses.first().map(|address| near(local, address.ip())) {
                    let rank = (
                        !near,
                        local.metered || remote.metered,
                        local.cost.max(remote.cost),
                        tie(local.id, remote.id.0),
                    );
                    pairs.push((rank, (local.id, Remote::Network(remote.id), addresses)));
                }
            }
            for address in &self.dials.addresses {
                let announced = self.remote_networks.iter().any(|network| {
                    network.port == address.port() && network.addresses.iter().any(|a| a.ip == address.ip())
                });
                let own = cx.networks.iter().any(|n| n.addresses.iter().any(|a| a.ip == address.ip()));
                let here = address.ip().is_loopback() || own;
                // Within one host the peer's networks count only once a path has shown that it is here.
                let covered = announced && (same_host || !loopback);
                if !covered
                    && !self.is_closed_to(cx, *address)
                    && here == loopback
                    && speaks(local, address.ip())
                    // Nothing is known of the other end.
                    && is_wanted(local, local)
                {
                    let rank =
                        (!near(local, address.ip()), local.metered, local.cost, tie(local.id, u32::MAX));
                    pairs.push((rank, (local.id, Remote::Address(*address), alloc::vec![*address])));
                }
            }
        }
        pairs.sort_by_key(|(rank, _)| *rank);
        pairs.truncate(cx.config.max_paths);
        pairs.into_iter().map(|(_, pair)| pair).collect()
    }

    /// Whether the peer says that it does not listen at an address, or nothing may go there.
    fn is_closed_to(&self, cx: &Context, address: SocketAddr) -> bool {
        let mut there =
            self.remote_networks.iter().filter(|n| n.addresses.iter().any(|a| a.ip == address.ip()));
        there.any(|network| network.port == 0 || cx.config.forbids(network))
    }

    /// Whether another path already joins the same two networks; then one of the two has to go.
    pub(crate) fn twin(&self, of: &Path) -> Option<&Path> {
        let same = |path: &&Path| {
            path.number != of.number
                && path.state == State::Up
                && path.local == of.local
                && path.remote == of.remote
        };
        self.paths.values().find(same)
    }

    /// Where the peer says that it can be reached.
    pub(crate) fn announced(&self) -> Vec<SocketAddr> {
        let of = |network: &Network| -> Vec<SocketAddr> {
            network.addresses.iter().map(|address| SocketAddr::new(address.ip, network.port)).collect()
        };
        self.remote_networks.iter().filter(|network| network.port != 0).flat_map(of).collect()
    }

    /// Addresses of the same identity; those on a port that was asked for are the same process, as far as one can tell.
    pub(crate) fn also_at(&mut self, addresses: &[SocketAddr]) {
        for address in addresses {
            if self.dials.addresses.iter().any(|known| known.port() == address.port()) {
                self.dials.remember(*address);
            }
        }
        self.dial_dirty = true;
    }

    /// An address was added: look again.
    pub(crate) const fn addresses_changed(&mut self) {
        self.dial_dirty = true;
    }

    /// The dialled addresses of an association that turned out to be this one.
    pub(crate) fn adopt_addresses(&mut self, other: &Self) {
        for address in &other.dials.addresses {
            self.dials.remember(*address);
        }
    }
}

fn speaks(network: &Network, ip: IpAddr) -> bool {
    network.addresses.iter().any(|address| address.ip.is_ipv4() == ip.is_ipv4())
}

fn near(network: &Network, ip: IpAddr) -> bool {
    network.addresses.iter().any(|address| address.same_subnet(ip))
}

/// The remote network's addresses that the local one can speak to, those of its own subnets first.
fn reachable(local: &Network, remote: &Network) -> Vec<SocketAddr> {
    let mut addresses: Vec<IpAddr> =
        remote.addresses.iter().map(|a| a.ip).filter(|ip| speaks(local, *ip)).collect();
    addresses.sort_by_key(|ip| (!near(local, *ip), ip.is_ipv6()));
    addresses.into_iter().map(|ip| SocketAddr::new(ip, remote.port)).collect()
}
