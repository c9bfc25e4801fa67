//! Which paths to open, and when to try again.
//!
//! Both sides open paths, between every pair of a local and a remote network that can reach each other as far as
//! addresses tell. The side that opened the association begins; the other waits a moment, so that pairs are rarely
//! opened twice. Addresses that stopped answering are remembered and all of them are tried again: two hosts that
//! lost each other always find back as long as one address holds.
//!
//! Where more networks reach each other than there may be paths, the most promising pairs have one, and those for which
//! something waits; `room.rs` says which paths give way.

use super::Association;
use crate::context::Context;
use crate::event::Action;
use crate::path::{Path, State};
use crate::rules::Rules;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use steadfast_wire::time::nanos;
use steadfast_wire::{Instant, Network, NetworkClass, NetworkId, Rule};

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
    /// Where a path ended just now: there it is seen at once whether somebody still listens.
    again: Option<IpAddr>,
}

/// A path that goes down sooner after it came up counts as an attempt that failed.
const LASTING: Duration = Duration::from_secs(1);

/// A pair of networks; the remote one by number once it is known, by address before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Remote {
    Network(NetworkId),
    Address(SocketAddr),
}

/// Less is more promising: another subnet, metered, cost, and what makes both sides choose alike.
type Rank = (bool, bool, u8, (u32, u32));

/// Two networks that may reach each other.
#[derive(Debug)]
pub(super) struct Pair {
    local: NetworkId,
    remote: Remote,
    /// Where the remote one may be reached.
    addresses: Vec<SocketAddr>,
    /// It is to have a path whatever waits. Both sides agree on that once each knows the other's networks.
    pub(super) regular: bool,
    /// Something of ours waits for it. The other side does not know.
    pub(super) demanded: bool,
}

impl Pair {
    pub(super) fn joins(&self, path: &Path) -> bool {
        path.local == self.local
            && match self.remote {
                Remote::Network(id) => path.remote == Some(id),
                Remote::Address(_) => self.addresses.contains(&path.address),
            }
    }

    const fn key(&self) -> (NetworkId, Remote) {
        (self.local, self.remote)
    }
}

/// The rules under which something waits for a path.
struct Demands<'a> {
    waiting: BTreeSet<&'a Rule>,
    refused: Vec<&'a Rules>,
}

impl Demands<'_> {
    fn include(&self, local: &Network, remote: &Network) -> bool {
        self.waiting.iter().any(|rule| rule.allows(local, remote))
            || self.refused.iter().any(|rules| rules.any(|rule| rule.allows(local, remote)))
    }
}

#[derive(Debug)]
pub(crate) struct Dials {
    addresses: Vec<SocketAddr>,
    attempts: BTreeMap<(NetworkId, Remote), Attempt>,
    /// We wait for the other side to open paths until then; `None` never to dial.
    from: Option<Instant>,
    /// No path can give way to what waits until then.
    pub(super) full_until: Instant,
}

impl Dials {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, attempts: BTreeMap::new(), from: Some(Instant(0)), full_until: Instant(0) }
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

    /// Opens nothing until `at`.
    pub(super) fn rest_until(&mut self, at: Instant) {
        self.from = self.from.map(|from| from.max(at));
    }

    pub(super) const fn stop(&mut self) {
        self.from = None;
    }

    pub(super) fn networks_changed(&mut self, now: Instant) {
        self.full_until = now;
        for attempt in self.attempts.values_mut() {
            *attempt = Attempt { next: now, ..Attempt::default() };
        }
    }

    /// A path went down or never came up: pause, twice as long each time it fails in a row, or not at all after a path that
    /// lasted, where it is worth knowing at once whether somebody still listens.
    pub(super) fn failed(
        &mut self,
        cx: &mut Context,
        now: Instant,
        path: &Path,
        was_up: bool,
        at_once: bool,
    ) {
        let lasted = was_up && now.since(path.up_since) >= LASTING;
        // An address may lead to another network than it was meant to.
        let other = path.remote.filter(|remote| path.meant != Some(*remote));
        let networks = [path.meant, other].into_iter().flatten().map(Remote::Network);
        for key in networks.chain([Remote::Address(path.address)]) {
            let known = matches!(key, Remote::Network(_)) || self.addresses.contains(&path.address);
            if known || self.attempts.contains_key(&(path.local, key)) {
                let attempt = self.attempts.entry((path.local, key)).or_default();
                attempt.failures = if lasted { 0 } else { attempt.failures.saturating_add(1) };
                attempt.turn = attempt.turn.wrapping_add(1);
                let wait = pause(cx, attempt.failures);
                let at_once = lasted && at_once;
                attempt.next = if at_once { now } else { now + wait };
                attempt.again = at_once.then(|| path.address.ip());
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
        if from > now || self.wants_nothing() || cx.suspended.is_some() {
            return;
        }
        let pairs = self.pairs(cx);
        let attempts = &mut self.dials.attempts;
        if attempts.len() > MAX_ATTEMPTS {
            attempts.retain(|key, _| pairs.iter().any(|pair| pair.key() == *key));
        }
        let due = |pair: &&Pair| attempts.get(&pair.key()).is_none_or(|attempt| attempt.next <= now);
        let mut due: Vec<&Pair> = pairs.iter().filter(due).collect();
        // What failed least comes first, so that whatever can be reached has its turn.
        due.sort_by_key(|pair| (!pair.demanded, attempts.get(&pair.key()).map_or(0, |a| a.failures)));
        for pair in due {
            if !self.may_open(cx, &pairs, pair) {
                continue;
            }
            if let Some(later) = self.waits_for_room(cx, now, &pairs, pair) {
                if pair.demanded {
                    self.dials.full_until = later;
                } else {
                    self.dials.attempts.entry(pair.key()).or_default().next = later;
                }
                continue;
            }
            self.open(cx, now, pair);
        }
    }

    fn open(&mut self, cx: &mut Context, now: Instant, pair: &Pair) {
        let attempt = self.dials.attempts.entry(pair.key()).or_default();
        let again = attempt.again.take();
        let again = pair.addresses.iter().find(|address| Some(address.ip()) == again);
        let address = *again.unwrap_or(&pair.addresses[attempt.turn % pair.addresses.len()]);
        // The attempt's own end sets the next time; this guards against a driver that never answers.
        attempt.next = now + cx.config.connect_timeout.saturating_mul(2);
        let (number, local) = (cx.next_path(), pair.local);
        let mut path = Path::new(number, true, local, address, now, now + cx.config.connect_timeout);
        path.same_host = cx.is_ours(address.ip());
        path.demanded = pair.demanded;
        if let Remote::Network(id) = pair.remote {
            path.meant = Some(id);
        }
        self.paths.insert(number, path);
        cx.actions.push_back(Action::Connect { path: number, local, remote: address, peer: self.peer });
    }

    /// When [`Association::dial`] has something to do.
    pub(super) fn next_dial(&self, cx: &Context) -> Option<Instant> {
        let from = self.dials.from?;
        if self.wants_nothing() || cx.suspended.is_some() {
            return None;
        }
        let full = self.paths.len() >= cx.config.max_paths;
        let pairs = self.pairs(cx);
        let next = |pair: &Pair| {
            let next = self.dials.attempts.get(&pair.key()).map_or(Instant(0), |a| a.next);
            if full && pair.demanded { next.max(self.dials.full_until) } else { next }
        };
        let due = pairs.iter().filter(|pair| self.may_open(cx, &pairs, pair)).map(next).min()?;
        Some(due.max(from))
    }

    /// Whether a pair is to have a path and has none, and there is room for one more or may be.
    fn may_open(&self, cx: &Context, pairs: &[Pair], pair: &Pair) -> bool {
        let wanted = pair.regular || pair.demanded;
        wanted && !self.has_path(pair) && self.may_exceed(cx, pairs, pair.demanded)
    }

    fn wants_nothing(&self) -> bool {
        self.sessions.is_empty() && !self.offers.is_wanted()
    }

    fn has_path(&self, pair: &Pair) -> bool {
        self.paths.values().any(|path| {
            path.local == pair.local
                && match pair.remote {
                    Remote::Network(id) => {
                        path.remote == Some(id)
                            || path.remote.is_none() && path.opener && pair.addresses.contains(&path.address)
                    }
                    Remote::Address(address) => path.address == address,
                }
        })
    }

    /// The rules under which something waits for a path.
    fn demands(&self, cx: &Context) -> Demands<'_> {
        let mut demands = Demands { waiting: BTreeSet::new(), refused: Vec::new() };
        for session in self.wanting.iter().filter_map(|id| self.sessions.get(id)) {
            demands.waiting.extend(session.out.waiting_rules());
            demands.waiting.extend(session.deferrals.rules().filter(|rule| !self.has_path_for(cx, rule)));
            demands.refused.push(session.deferrals.wished());
        }
        demands
    }

    /// The pairs of networks that may reach each other, the most promising first. As many as there may be paths are
    /// regular, or all while there is no path; metered ones on demand are here only if something waits for them.
    pub(super) fn pairs(&self, cx: &Context) -> Vec<Pair> {
        let is_loopback =
            |path: &Path| cx.network(path.local).is_some_and(|n| n.class == NetworkClass::Loopback);
        let same_host = self.paths.values().any(|path| path.is_up() && is_loopback(path));
        let unmetered = |path: &Path| {
            path.is_good()
                && cx.network(path.local).is_some_and(|n| !n.metered)
                && self.remote_network(path.remote).is_none_or(|n| !n.metered)
        };
        // Metered networks are for when no other works, or for a message that may use them and no other. Either side pays.
        let metered = cx.config.metered_standby || !self.paths.values().any(unmetered);
        let demands = self.demands(cx);
        let first = cx.identity < self.peer;
        let tie = |local: NetworkId, remote: u32| if first { (local.0, remote) } else { (remote, local.0) };
        let mut pairs = Vec::new();
        let mut add = |rank: Rank, local: &Network, remote: &Network, (to, addresses): (Remote, Vec<_>)| {
            let demanded = demands.include(local, remote);
            // Not which network is metered decides, but whether the path is.
            let regular = metered || !rank.1;
            if regular || demanded {
                pairs.push((rank, Pair { local: local.id, remote: to, addresses, regular, demanded }));
            }
        };
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
                {
                    continue;
                }
                let addresses = reachable(local, remote);
                if let Some(near) = addresses.first().map(|address| near(local, address.ip())) {
                    let costly = local.metered || remote.metered;
                    let rank = (!near, costly, local.cost.max(remote.cost), tie(local.id, remote.id.0));
                    add(rank, local, remote, (Remote::Network(remote.id), addresses));
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
                {
                    let rank =
                        (!near(local, address.ip()), local.metered, local.cost, tie(local.id, u32::MAX));
                    // Nothing is known of the other end.
                    add(rank, local, local, (Remote::Address(*address), alloc::vec![*address]));
                }
            }
        }
        pairs.sort_by_key(|(rank, pair)| (!pair.regular, *rank));
        let mut pairs: Vec<Pair> = pairs.into_iter().map(|(_, pair)| pair).collect();
        if self.is_up() {
            pairs.iter_mut().skip(cx.config.max_paths).for_each(|pair| pair.regular = false);
        }
        pairs
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
