//! What two processes offer each other beside sessions, such as keys of another transport: opaque here, said on a path
//! that is good, and void when the association ends, on either side.
//!
//! One side may forget an association that the other goes on with. So each side numbers it, and every offer says whose it is
//! and for whom: nobody takes what was offered to the one before, which may have used it already. A higher number of the peer's
//! than before makes all void that was offered, and the application hears that the former process is gone.

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
use steadfast_wire::{Frame, Instant, Rule};

/// What a small packet is taken for when a route is chosen, in bytes.
const SMALL: u64 = 1500;

#[derive(Debug, Default)]
pub(crate) struct Offers {
    /// Our number of the association, and the peer's; 0 while it is not known.
    number: u64,
    peer: u64,
    own: Option<Bytes>,
    /// Of ours.
    epoch: u64,
    due: bool,
    /// How often something was said.
    said: u64,
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
    /// That all is void which was known is not told yet.
    renewed: bool,
    pub(super) routes_changed: bool,
    /// What will not be in reach, since the endpoint last looked.
    pub(crate) unreached: Vec<ReachId>,
}

impl Offers {
    pub(crate) fn set_number(&mut self, number: u64) {
        self.number = number;
    }

    /// Our number of the association.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// A path came up. If it leads to an association that does not know what was said, that is to show.
    pub(super) fn path_up(&mut self) {
        self.due |= self.peer != 0 || self.own.is_some();
    }

    /// Whether the association is kept for it although no session needs it.
    pub(super) fn keeps(&self) -> bool {
        self.is_wanted() || self.is_offered()
    }

    fn is_offered(&self) -> bool {
        self.heard().is_some()
    }

    /// Whether we offer something.
    pub(crate) fn offers(&self) -> bool {
        self.own.as_ref().is_some_and(|offer| !offer.is_empty())
    }

    /// What the peer offers.
    pub(crate) fn heard(&self) -> Option<&Bytes> {
        self.heard.as_ref().map(|(_, offer)| offer).filter(|offer| !offer.is_empty())
    }

    pub(crate) fn is_wanted(&self) -> bool {
        !self.reaches.is_empty()
    }

    pub(super) fn reaches(&self) -> impl Iterator<Item = ReachId> {
        self.reaches.keys().copied()
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
        self.epoch += 1;
        self.own = Some(offer);
        self.due = true;
        self.known = true;
    }

    /// What the peer offered does not count any more.
    pub(crate) fn unhear(&mut self) {
        if let Some((_, offer)) = &mut self.heard {
            *offer = Bytes::new();
        }
    }

    /// What was said was on a path that died.
    pub(super) fn lost(&mut self, said: u64) {
        self.due |= self.said == said;
    }

    /// The peer has forgotten the association that it had, if this is not the first one.
    fn meet(&mut self, peer: u64) {
        let known = core::mem::replace(&mut self.peer, peer) != 0;
        // What is said before the peer's number is known is for nobody.
        self.due |= self.own.is_some();
        if !known {
            return;
        }
        self.own = None;
        self.heard = None;
        self.news = false;
        self.renewed |= core::mem::take(&mut self.known);
        self.reaches.values_mut().for_each(|told| *told = false);
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

    /// The OFFER that is to be said, and by which number it is known if it is lost.
    pub(super) fn take_due_offer(&mut self) -> Option<(u64, Frame)> {
        if !self.owes_offer() {
            return None;
        }
        let offers = &mut self.offers;
        offers.due = false;
        offers.said += 1;
        let known = offers.own.as_ref().filter(|_| offers.peer != 0);
        let (epoch, offer) = known.map_or((0, Bytes::new()), |offer| (offers.epoch, offer.clone()));
        Some((offers.said, Frame::Offer { from: offers.number, to: offers.peer, epoch, offer }))
    }

    /// What the peer's association `from` offers to ours, if `to` is that.
    pub(super) fn handle_offer(
        &mut self,
        now: Instant,
        (from, to): (u64, u64),
        epoch: u64,
        offer: &Bytes,
    ) -> Result<(), Violation> {
        let offers = &mut self.offers;
        // The same is said again where a path died.
        let heard = offers.heard.as_ref().map_or(0, |(heard, _)| *heard);
        if from < offers.peer.max(1) || from == offers.peer && to == offers.number && epoch <= heard {
            return Ok(());
        }
        if !offers.changes.take(now, OFFERS) {
            return Err(Violation::Limit);
        }
        if from > offers.peer {
            offers.meet(from);
        }
        if to != offers.number {
            // It does not know us, or knew one that was forgotten.
            offers.due = true;
            return Ok(());
        }
        if epoch == 0 {
            return Ok(());
        }
        let had = offers.heard().is_some();
        // It came in a buffer with others.
        offers.heard = Some((epoch, Bytes::copy_from_slice(offer)));
        // That there is none is no news to who knew of none.
        if had || offers.news || !offer.is_empty() {
            offers.known = true;
            offers.news = true;
        }
        Ok(())
    }

    /// What was to be in reach will not be.
    pub(super) fn end_reaches(&mut self) {
        let all = self.offers.take_reaches();
        self.offers.unreached.extend(all);
    }

    /// Tells the application what happened beside sessions.
    pub(crate) fn tell_offers(&mut self, cx: &mut Context, association: AssociationId) {
        if core::mem::take(&mut self.offers.renewed) {
            cx.event(Event::Dissociated { association });
        }
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
