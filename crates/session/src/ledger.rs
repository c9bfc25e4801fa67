//! What each peer makes this side hold, over all its processes and sessions.

use alloc::collections::BTreeMap;
use steadfast_wire::Fingerprint;

/// What one session, the sessions of one association, or those of one peer take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Dues {
    /// Memory of what arrived and was not taken, in bytes; an estimate that leans to the high side.
    pub(crate) held: u64,
    /// How much larger the windows are than at their beginning, in bytes.
    pub(crate) grown: u64,
    /// Parked sessions that the peer opened.
    pub(crate) parked: u64,
    /// Sessions that the peer opened and nobody accepted.
    pub(crate) waiting: u64,
    /// Sessions that the peer opened.
    pub(crate) opened: u64,
}

impl Dues {
    /// A part that was `old` is `new`.
    pub(crate) const fn replace(&mut self, old: Self, new: Self) {
        self.held = self.held - old.held + new.held;
        self.grown = self.grown - old.grown + new.grown;
        self.parked = self.parked - old.parked + new.parked;
        self.waiting = self.waiting - old.waiting + new.waiting;
        self.opened = self.opened - old.opened + new.opened;
    }
}

/// The dues of all peers.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    peers: BTreeMap<Fingerprint, Dues>,
}

impl Ledger {
    pub(crate) fn of(&self, peer: Fingerprint) -> Dues {
        self.peers.get(&peer).copied().unwrap_or_default()
    }

    /// An association of `peer` took `old` and takes `new`.
    pub(crate) fn replace(&mut self, peer: Fingerprint, old: Dues, new: Dues) {
        if old == new {
            return;
        }
        let dues = self.peers.entry(peer).or_default();
        dues.replace(old, new);
        if *dues == Dues::default() {
            self.peers.remove(&peer);
        }
    }

    /// Those who take anything, for the sweep of the invariants.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Fingerprint, &Dues)> {
        self.peers.iter()
    }
}
