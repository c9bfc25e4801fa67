//! What becomes of a send when no network fits: how long it may wait, and what waits in the application's stead.

use super::Endpoint;
use crate::association::Association;
use crate::deferral::{Deferral, DeferralId};
use crate::event::{SendError, SessionError};
use crate::options::Patience;
use crate::policy::Redundancy;
use crate::session::Session;
use alloc::boxed::Box;
use core::time::Duration;
use steadfast_wire::{Instant, Labels, SessionId};

impl Endpoint {
    fn find(&self, id: SessionId) -> Result<(&Association, &Session), SessionError> {
        let home = self.sessions.get(&id).and_then(|home| self.associations.get(home));
        let found = home.and_then(|home| Some((home, &**home.sessions.get(&id)?)));
        found.ok_or(SessionError::Ended)
    }

    fn find_mut(&mut self, id: SessionId) -> Result<&mut Session, SessionError> {
        let home = self.sessions.get(&id).and_then(|home| self.associations.get_mut(home));
        home.and_then(|home| home.sessions.get_mut(&id))
            .map(|session| &mut **session)
            .ok_or(SessionError::Ended)
    }

    /// Says how long messages with exactly these labels may be without a network, from now on; `None`, the default, for
    /// ever.
    ///
    /// A send with them then fails with [`SendError::NoNetwork`] while no network that is up may carry it: whoever wants
    /// to wait does so with [`defer`](Self::defer). A message that was accepted and whose last network goes away before
    /// the peer's library has it is dropped after that time with
    /// [`DropReason::NoNetwork`](crate::DropReason::NoNetwork): surely, if nothing of it left; else the receiver has the
    /// last word.
    ///
    /// The journal has neither the timeout nor which messages it holds for: those that [`restore`](Self::restore) brings
    /// back wait for ever.
    pub fn set_failure_timeout(
        &mut self,
        session: SessionId,
        labels: &Labels,
        timeout: Option<Duration>,
    ) -> Result<(), SessionError> {
        self.find_mut(session)?.policies.make().set_timeout(labels, timeout);
        Ok(())
    }

    /// What [`set_failure_timeout`](Self::set_failure_timeout) said last of exactly these labels.
    pub fn failure_timeout(
        &self,
        session: SessionId,
        labels: &Labels,
    ) -> Result<Option<Duration>, SessionError> {
        Ok(self.find(session)?.1.policies.timeout(labels))
    }

    /// Says whether small foreground messages with exactly these labels go out twice, from now on.
    pub fn set_redundancy(
        &mut self,
        session: SessionId,
        labels: &Labels,
        redundancy: Redundancy,
    ) -> Result<(), SessionError> {
        self.find_mut(session)?.policies.make().set_redundancy(labels, redundancy);
        Ok(())
    }

    /// What [`set_redundancy`](Self::set_redundancy) said last of exactly these labels.
    pub fn redundancy(&self, session: SessionId, labels: &Labels) -> Result<Redundancy, SessionError> {
        Ok(self.find(session)?.1.policies.redundancy(labels))
    }

    /// How long a message with these labels may be without a network; an error if it may not begin without one.
    pub(super) fn patience(
        &mut self,
        now: Instant,
        id: SessionId,
        labels: &Labels,
        patience: Patience,
    ) -> Result<Option<Duration>, SendError> {
        let (home, session) = self.find(id).map_err(|_| SendError::Ended)?;
        let timeout = session.policies.timeout(labels).filter(|_| patience != Patience::Endless);
        let Some(timeout) = timeout else { return Ok(None) };
        session.out.check_open(labels)?;
        if patience == Patience::Accepted || home.has_path_for(&self.cx, &labels.rule) {
            return Ok(Some(timeout));
        }
        // One that is used on demand only would otherwise never be there in time.
        let _wished = self.on_session(now, id, |s, _| s.deferrals.make().wish(&labels.rule));
        self.dial_again(now, id);
        Err(SendError::NoNetwork { labels: Box::new(labels.clone()), timeout })
    }

    /// Begins to wait for a network that may carry a message with these labels; [`Event::Suitable`](crate::Event::Suitable)
    /// tells when to look with [`check_deferral`](Self::check_deferral). The application then sends and
    /// [ends](Self::end_deferral) it, or goes on waiting if the network is gone again.
    ///
    /// With a `limit` it is [`Deferral::TimedOut`] after that, and [`cancel_deferred`](Self::cancel_deferred) leaves it alone.
    pub fn defer(
        &mut self,
        now: Instant,
        session: SessionId,
        labels: Labels,
        limit: Option<Duration>,
    ) -> Result<DeferralId, SendError> {
        self.find(session).map_err(|_| SendError::Ended)?.1.out.check_open(&labels)?;
        let id = self
            .on_session(now, session, |s, _| s.deferrals.make().add(now, labels, limit))
            .map_err(|_| SendError::Ended)??;
        self.dial_again(now, session);
        Ok(id)
    }

    /// How a send that waits for a network is doing at this moment.
    pub fn check_deferral(
        &self,
        now: Instant,
        session: SessionId,
        id: DeferralId,
    ) -> Result<Deferral, SessionError> {
        let (home, session) = self.find(session)?;
        Ok(match session.deferrals.find(now, id) {
            None => Deferral::Gone,
            Some((labels, _)) if home.has_path_for(&self.cx, &labels.rule) => Deferral::Ready,
            Some((_, true)) => Deferral::TimedOut,
            Some((_, false)) => Deferral::Waiting,
        })
    }

    /// Waits no longer. Whether it was waiting.
    pub fn end_deferral(&mut self, now: Instant, session: SessionId, id: DeferralId) -> bool {
        self.on_session(now, session, |s, _| s.deferrals.existing().is_some_and(|d| d.remove(id)))
            .unwrap_or(false)
    }

    /// Cancels every send with exactly these labels that waits for a network without a limit; returns how many they were.
    pub fn cancel_deferred(
        &mut self,
        now: Instant,
        session: SessionId,
        labels: &Labels,
    ) -> Result<usize, SessionError> {
        let cancelled =
            self.on_session(now, session, |s, _| s.deferrals.existing().map_or(0, |d| d.cancel(labels)))?;
        if cancelled > 0 {
            self.cx.event(crate::event::Event::Suitable { session });
        }
        Ok(cancelled)
    }

    /// A message of this session may use other networks than before.
    pub(super) fn rules_changed(&mut self, now: Instant, session: SessionId) {
        let Some(home) = self.sessions.get(&session).copied() else { return };
        if let Some(association) = self.associations.get_mut(&home) {
            association.enforce_rules(&mut self.cx, now);
            association.review(&mut self.cx, now, session);
            association.touch(session);
        }
        self.after(now, home);
    }

    /// Networks may be wanted that were not before.
    fn dial_again(&mut self, now: Instant, session: SessionId) {
        let Some(home) = self.sessions.get(&session).copied() else { return };
        if let Some(association) = self.associations.get_mut(&home) {
            association.addresses_changed();
        }
        self.after(now, home);
    }
}
