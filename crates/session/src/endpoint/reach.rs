//! Processes that are kept in reach for another protocol, and what is offered to them.

use super::Endpoint;
use crate::association::{Association, AssociationId};
use crate::event::{ReachId, Route};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, SocketAddr};
use steadfast_wire::{Fingerprint, Instant, Rule};

impl Endpoint {
    /// Keeps a process of `peer`, who is at some of these addresses, in reach without a session:
    /// [`Event::Reached`](crate::Event::Reached) tells when it is, and again if another process takes its place.
    ///
    /// An association that was reached at one of the addresses, or that no address is needed for, is shared.
    pub fn reach(&mut self, now: Instant, peer: Fingerprint, addresses: &[SocketAddr]) -> ReachId {
        let known = self.by_place(peer, addresses);
        let id = known.unwrap_or_else(|| self.create(Association::new(peer, None, addresses.to_vec())));
        let reach = ReachId(self.next_reach);
        self.next_reach += 1;
        self.reaches.insert(reach, id);
        if let Some(association) = self.associations.get_mut(&id) {
            association.offers.want([reach]);
            association.addresses_changed();
        }
        self.after(now, id);
        reach
    }

    /// It need not be in reach any more. The association goes on for as long as something else needs it, or its idle limit.
    pub fn unreach(&mut self, now: Instant, reach: ReachId) {
        let Some(id) = self.reaches.remove(&reach) else { return };
        if let Some(association) = self.associations.get_mut(&id) {
            association.offers.remove(reach);
            association.addresses_changed();
        }
        self.after(now, id);
    }

    /// Offers something to a process, at most [`MAX_OFFER`](steadfast_wire::frame::MAX_OFFER) bytes; empty to take it back. It
    /// is said on a path that is good, and again if that dies. The last offer counts. Whether the process is known.
    pub fn offer(&mut self, now: Instant, association: AssociationId, offer: Bytes) -> bool {
        debug_assert!(offer.len() <= steadfast_wire::frame::MAX_OFFER, "an offer is too long");
        let Some(found) = self.associations.get_mut(&association) else { return false };
        found.offers.offer(offer);
        self.after(now, association);
        true
    }

    /// Takes back what is offered to processes, to all of them.
    pub fn withdraw(&mut self, now: Instant) {
        let offers =
            |(id, association): (&AssociationId, &Association)| association.offers.offers().then_some(*id);
        for id in self.associations.iter().filter_map(offers).collect::<Vec<_>>() {
            self.offer(now, id, Bytes::new());
        }
    }

    /// What processes offer at present, with their peers.
    #[must_use]
    pub fn offers(&self) -> Vec<(AssociationId, Fingerprint, Bytes)> {
        let of = |(id, association): (&AssociationId, &Association)| {
            Some((*id, association.peer, association.offers.heard()?.clone()))
        };
        self.associations.iter().filter_map(of).collect()
    }

    /// Something that is surely of this process came from this address at `at`, beside the paths: so those that lead there are not
    /// given up, however late their own bytes are. Suspicion is another matter.
    pub fn handle_heard(&mut self, association: AssociationId, remote: IpAddr, at: Instant) {
        let Some(association) = self.associations.get_mut(&association) else { return };
        for path in association.paths.values_mut().filter(|path| path.address.ip() == remote) {
            path.heard_beside = path.heard_beside.max(at);
        }
    }

    /// How a process can be reached now, by all paths that are up.
    #[must_use]
    pub fn routes(&self, association: AssociationId) -> Vec<Route> {
        self.associations.get(&association).map(Association::routes).unwrap_or_default()
    }

    /// How a small message under a rule would go now; `None` if no path that is up may carry it.
    #[must_use]
    pub fn route(&self, now: Instant, association: AssociationId, rule: &Rule) -> Option<Route> {
        self.associations.get(&association)?.route(&self.cx, now, rule)
    }

    /// Whose process it is.
    #[must_use]
    pub fn associate(&self, association: AssociationId) -> Option<Fingerprint> {
        self.associations.get(&association).map(|association| association.peer)
    }
}
