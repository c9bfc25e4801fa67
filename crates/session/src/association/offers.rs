//! What two processes offer each other beside sessions, such as keys of another transport: opaque here, said on a path
//! that is good, and void when the association ends.

use super::{Allowance, Association, OFFERS};
use crate::association::AssociationId;
use crate::context::Context;
use crate::event::{Event, ReachId, Route, Violation};
use crate::outbound::Candidate;
use crate::path::Path;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use steadfast_wire::frame::FEATURE_OFFERS;
use steadfast_wire::{Instant, Rule};

/// What a small packet is taken for when a route is chosen, in bytes.
const SMALL: u64 = 1500;

#[derive(Debug, Default)]
pub(crate) struct Offers {
    own: Option<(u64, Bytes)>,
    due: bool,
    /// How often the peer changed its mind lately.
    changes: Allowance,
    /// The newest of the peer's; empty once it took it back.
    heard: Option<(u64, Bytes)>,
    /// What the application wants of this association, and whether it was told that it is in reach.
    reaches: BTreeMap<ReachId, bool>,
    /// The application knows of this association.
    known: bool,
    /// What was heard is not told yet.
    news: bool,
    pub(super) routes_changed: bool,
    /// What will not be in reach, since the endpoint last looked.
    pub(crate) unreached: Vec<ReachId>,
}

impl Offers {
    /// Whether the association is kept for it although no session needs it.
    pub(super) fn keeps(&self) -> bool {
        self.is_wanted() || self.is_offered()
    }

    fn is_offered(&self) -> bool {
        self.heard().is_some()
    }

    /// What the peer offers.
    pub(crate) fn heard(&self) -> Option<&Bytes> {
        self.heard.as_ref().map(|(_, offer)| offer).filter(|offer| !offer.is_empty())
    }

    pub(crate) fn is_wanted(&self) -> bool {
        !self.reaches.is_empty()
    }

    pub(crate) fn wants(&self, reach: ReachId) -> bool {
        self.reaches.contains_key(&reach)
    }

    pub(crate) fn want(&mut self, reaches: impl IntoIterator<Item = ReachId>) {
        self.reaches.extend(reaches.into_iter().map(|reach| (reach, false)));
    }

    pub(crate) fn remove(&mut self, reach: ReachId) {
        self.reaches.remove(&reach);
    }

    pub(crate) fn take_reaches(&mut self) -> Vec<ReachId> {
        core::mem::take(&mut self.reaches).into_keys().collect()
    }

    pub(crate) fn offer(&mut self, offer: Bytes) {
        let epoch = self.own.as_ref().map_or(1, |(epoch, _)| epoch + 1);
        self.own = Some((epoch, offer));
        self.due = true;
        self.known = true;
    }

    /// What the peer offered does not count any more.
    pub(crate) fn unhear(&mut self) {
        if let Some((_, offer)) = &mut self.heard {
            *offer = Bytes::new();
        }
    }

    /// An offer was on a path that died.
    pub(super) fn lost(&mut self, epoch: u64) {
        self.due |= self.own.as_ref().is_some_and(|(own, _)| *own == epoch);
    }
}

impl Association {
    /// Whether it is kept for what is wanted or offered. What a peer offered is kept for a while without a path, so that
    /// it may come back, but not for ever.
    pub(super) fn is_held(&self) -> bool {
        self.offers.is_wanted() || self.offers.is_offered() && !self.paths.is_empty()
    }

    fn takes_offers(&self) -> bool {
        self.hello.as_ref().is_some_and(|hello| hello.features & FEATURE_OFFERS != 0)
    }

    pub(super) fn owes_offer(&self) -> bool {
        self.offers.due && self.takes_offers()
    }

    pub(super) fn take_due_offer(&mut self) -> Option<(u64, Bytes)> {
        if !self.owes_offer() {
            return None;
        }
        self.offers.due = false;
        self.offers.own.clone()
    }

    pub(super) fn handle_offer(&mut self, now: Instant, epoch: u64, offer: Bytes) -> Result<(), Violation> {
        // The same is said again where a path died.
        if self.offers.heard.as_ref().is_some_and(|(heard, _)| epoch <= *heard) {
            return Ok(());
        }
        if !self.offers.changes.take(now, OFFERS) {
            return Err(Violation::Limit);
        }
        // It came in a buffer with others.
        self.offers.heard = Some((epoch, Bytes::copy_from_slice(&offer)));
        self.offers.known = true;
        self.offers.news = true;
        Ok(())
    }

    /// What was to be in reach will not be.
    pub(super) fn end_reaches(&mut self) {
        let all = self.offers.take_reaches();
        self.offers.unreached.extend(all);
    }

    /// Tells the application what happened beside sessions.
    pub(crate) fn tell_offers(&mut self, cx: &mut Context, association: AssociationId) {
        if core::mem::take(&mut self.offers.news)
            && let Some((_, offer)) = &self.offers.heard
        {
            cx.event(Event::Offered { association, peer: self.peer, offer: offer.clone() });
        }
        if self.offers.is_wanted() && self.is_up() {
            let offers = self.takes_offers();
            for (reach, told) in &mut self.offers.reaches {
                if !core::mem::replace(told, true) {
                    self.offers.known = true;
                    cx.event(Event::Reached { reach: *reach, association, offers });
                }
            }
        }
        if core::mem::take(&mut self.offers.routes_changed) && self.offers.known {
            cx.event(Event::Rerouted { association });
        }
    }

    /// It is over.
    pub(crate) fn tell_dissociated(&self, cx: &mut Context, association: AssociationId) {
        if self.offers.known {
            cx.event(Event::Dissociated { association });
        }
    }

    fn route_of(path: &Path) -> Route {
        Route {
            path: path.number,
            network: path.local,
            local: path.local_ip,
            remote: path.address.ip(),
            suspect: path.suspect.is_some(),
        }
    }

    /// All paths that are up, as routes.
    pub(crate) fn routes(&self) -> Vec<Route> {
        self.paths.values().filter(|path| path.is_up()).map(Self::route_of).collect()
    }

    /// The one that a small message under a rule would take.
    pub(crate) fn route(&self, cx: &Context, now: Instant, rule: &Rule) -> Option<Route> {
        let small = Candidate { id: 0, small: true, remaining: SMALL };
        self.choose(cx, now, rule, small).and_then(|number| self.paths.get(&number)).map(Self::route_of)
    }
}
