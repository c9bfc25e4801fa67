//! How conversations ended, for peers that ask later.

use crate::session::Ending;
use alloc::collections::{BTreeMap, VecDeque};
use steadfast_wire::{Fingerprint, SessionId};

/// How many endings of conversations with one peer are remembered. What one peer does makes no other forgotten.
const OF_A_PEER: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Tombstones {
    endings: BTreeMap<(Fingerprint, SessionId), Ending>,
    /// In the order in which they ended.
    burials: BTreeMap<Fingerprint, VecDeque<SessionId>>,
}

impl Tombstones {
    pub(super) fn bury(&mut self, peer: Fingerprint, ending: Ending) {
        if self.endings.insert((peer, ending.0), ending).is_some() {
            return;
        }
        let burials = self.burials.entry(peer).or_default();
        burials.push_back(ending.0);
        if burials.len() > OF_A_PEER
            && let Some(oldest) = burials.pop_front()
        {
            self.endings.remove(&(peer, oldest));
        }
    }

    /// How a conversation with this peer ended.
    pub(super) fn find(&self, peer: Fingerprint, session: SessionId) -> Option<Ending> {
        self.endings.get(&(peer, session)).copied()
    }

    pub(super) fn check_invariants(&self) {
        let buried: usize = self.burials.values().map(VecDeque::len).sum();
        assert_eq!(buried, self.endings.len(), "a tombstone without a burial");
        assert!(self.burials.values().all(|burials| burials.len() <= OF_A_PEER), "too many tombstones");
    }
}
