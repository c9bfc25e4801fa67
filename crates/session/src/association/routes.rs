//! What a change of networks means: for what waits for one, and for what is under way on one that it may no longer use.

use super::Association;
use crate::context::Context;
use crate::event::{DownReason, Event};
use crate::path::{Cargo, Path};
use crate::session::Item;
use alloc::vec::Vec;
use steadfast_wire::{Instant, PathNumber, SessionId};

impl Association {
    /// The paths changed, or the networks that they join: looks again at all that waits for one.
    pub(super) fn review_all(&mut self, cx: &mut Context, now: Instant) {
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.review(cx, now, id);
            self.touch(id);
        }
    }

    /// Looks again at what waits for a network in one session.
    pub(crate) fn review(&mut self, cx: &mut Context, now: Instant, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let routable: Vec<(u64, bool)> = if session.out.has_impatient() {
            session.out.impatient().map(|(id, rule)| (id, self.has_path_for(cx, rule))).collect()
        } else {
            Vec::new()
        };
        let suits = session.deferrals.rules().any(|rule| self.has_path_for(cx, rule));
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for (message, routable) in routable {
            session.out.set_routable(now, message, routable);
        }
        if let Some(deferrals) = session.deferrals.existing() {
            deferrals.paths_changed();
        }
        // What waits for room may be better told that no network fits.
        session.out.try_again(cx);
        if suits {
            cx.event(Event::Suitable { session: id });
        }
    }

    /// Closes every path on which bytes are under way that may no longer use its networks, and every path that may not
    /// be at all. What was not given to the kernel finds another path by itself.
    pub(crate) fn enforce_rules(&mut self, cx: &mut Context, now: Instant) {
        for number in self.paths.keys().copied().collect::<Vec<_>>() {
            self.enforce_never(cx, now, number);
        }
        let breaks = |path: &&Path| {
            // A message may have other labels now than those it was given to the path with.
            path.carried.any(|rule| !self.may_carry(cx, rule, path))
                || path.flights.iter().any(|flight| self.breaks(cx, path, &flight.cargo))
        };
        let broken: Vec<PathNumber> =
            self.paths.values().filter(|p| p.is_up()).filter(breaks).map(|p| p.number).collect();
        for number in broken {
            cx.stats.rules_enforced += 1;
            self.path_down(cx, now, number, DownReason::Prohibited);
        }
    }

    /// Whether what may still lie in a path's socket may not go there.
    fn breaks(&self, cx: &Context, path: &Path, cargo: &Cargo) -> bool {
        let (Cargo::Session(id, Item::Data(message, _)) | Cargo::Moved(id, Item::Data(message, _))) = cargo
        else {
            return false;
        };
        let labels = self.sessions.get(id).and_then(|session| session.out.labels(message.0));
        labels.is_some_and(|labels| !self.may_carry(cx, &labels.rule, path))
    }

    /// Closes a path that the configuration forbids, as far as its networks are known. Whether it did.
    pub(super) fn enforce_never(&mut self, cx: &mut Context, now: Instant, number: PathNumber) -> bool {
        let Some(path) = self.paths.get(&number).filter(|_| !cx.config.never_connect.is_empty()) else {
            return false;
        };
        let ends = [cx.network(path.local), self.remote_network(path.remote)];
        let forbidden = ends.into_iter().flatten().any(|network| cx.config.forbids(network));
        if forbidden {
            cx.stats.refused_networks += 1;
            self.path_down(cx, now, number, DownReason::Prohibited);
        }
        forbidden
    }
}
