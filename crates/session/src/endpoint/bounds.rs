//! What one peer may take of this side, over all its processes and sessions.

use super::Endpoint;
use crate::association::AssociationId;
use crate::event::Action;
use crate::ledger::Dues;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;
use steadfast_wire::frame::EndReason;
use steadfast_wire::{Fingerprint, Instant, PathNumber};

impl Endpoint {
    /// Counts what an association takes, and holds its peer to the bounds.
    pub(super) fn settle(&mut self, now: Instant, id: AssociationId) {
        let Some(association) = self.associations.get_mut(&id) else { return };
        if association.is_settled() {
            return;
        }
        let (peer, config) = (association.peer, &self.cx.config);
        let (max_held, max_parked) = (config.max_held, config.max_parked as u64);
        let room = config.max_growth.saturating_sub(self.ledger.of(peer).grown);
        // A part of what is left, so that nobody takes it all.
        association.settle(&mut self.ledger, room / 4);
        if self.ledger.of(peer).held > max_held {
            self.end_heaviest(now, peer);
        }
        if self.ledger.of(peer).parked > max_parked {
            self.forget_excess(now, peer);
        }
    }

    /// A peer made us hold too much: the sessions that hold most go, whichever process has them.
    fn end_heaviest(&mut self, now: Instant, peer: Fingerprint) {
        let mut touched = BTreeSet::new();
        while self.ledger.of(peer).held > self.cx.config.max_held {
            let of_peer = self.associations.iter().filter(|(_, a)| a.peer == peer);
            let heaviest = of_peer.filter_map(|(id, a)| a.heaviest().map(|heaviest| (heaviest, *id))).max();
            let Some(((_, session), home)) = heaviest else { break };
            let Some(association) = self.associations.get_mut(&home) else { break };
            self.cx.stats.refused_memory += 1;
            association.end(&mut self.cx, session, EndReason::Refused, true, None);
            association.settle(&mut self.ledger, 0);
            touched.insert(home);
        }
        for id in touched {
            self.after(now, id);
        }
    }

    /// A peer may park only so many of the sessions that it opened: those parked longest go.
    fn forget_excess(&mut self, now: Instant, peer: Fingerprint) {
        let mut parked: Vec<_> = (self.associations.iter().filter(|(_, a)| a.peer == peer))
            .flat_map(|(id, association)| association.parked().map(|(since, session)| (since, session, *id)))
            .collect();
        parked.sort_unstable();
        let excess = parked.len().saturating_sub(self.cx.config.max_parked);
        let mut touched = BTreeSet::new();
        for (_, session, home) in parked.into_iter().take(excess) {
            if let Some(association) = self.associations.get_mut(&home) {
                association.forget(&mut self.cx, session);
                association.settle(&mut self.ledger, 0);
                touched.insert(home);
            }
        }
        for id in touched {
            self.after(now, id);
        }
    }

    /// Makes room for one more path that has not said HELLO: the oldest of the peer that has most goes.
    pub(super) fn displace_greeting(&mut self) {
        let mut of: BTreeMap<Fingerprint, (usize, Reverse<PathNumber>)> = BTreeMap::new();
        for (number, greeting) in &self.greetings {
            of.entry(greeting.peer).or_insert((0, Reverse(*number))).0 += 1;
        }
        let Some((_, Reverse(oldest))) = of.into_values().max() else { return };
        self.greetings.remove(&oldest);
        self.cx.stats.refused_greetings += 1;
        self.cx.actions.push_back(Action::Reset { path: oldest });
    }

    /// Whether a peer may have one more path.
    pub(super) fn has_room_for_path(&self, peer: Fingerprint) -> bool {
        let of_peer = self.associations.values().filter(|association| association.peer == peer);
        of_peer.map(|association| association.paths.len()).sum::<usize>() < self.cx.config.max_peer_paths
    }

    /// Makes room for one more process of a peer; whether there is.
    pub(super) fn make_room(&mut self, now: Instant, peer: Fingerprint) -> bool {
        let of_peer = || self.associations.iter().filter(|(_, a)| a.peer == peer && !a.only_waits());
        if of_peer().count() < self.cx.config.max_processes {
            return self.associations.len() < self.cx.config.max_associations;
        }
        let longest = of_peer().filter_map(|(id, a)| a.forgettable().map(|since| (since, *id))).min();
        let Some((_, id)) = longest else { return false };
        if let Some(association) = self.associations.get_mut(&id) {
            for session in association.sessions.keys().copied().collect::<Vec<_>>() {
                association.forget(&mut self.cx, session);
            }
            association.offers.unhear();
        }
        self.after(now, id);
        true
    }

    pub(super) fn check_bounds(&self) {
        let mut dues: BTreeMap<Fingerprint, Dues> = BTreeMap::new();
        for association in self.associations.values() {
            dues.entry(association.peer).or_default().replace(Dues::default(), association.dues());
        }
        dues.retain(|_, dues| *dues != Dues::default());
        assert!(self.ledger.iter().eq(dues.iter()), "the ledger is wrong");
        for dues in dues.values() {
            let config = &self.cx.config;
            assert!(dues.held <= config.max_held, "holds too much");
            assert!(dues.grown <= config.max_growth, "windows grew too much");
            assert!(dues.parked <= config.max_parked as u64, "too many are parked");
        }
    }
}
