//! Verdicts on peers' processes, and what the driver's kernel knows about them.

use super::Endpoint;
use crate::association::AssociationId;
use crate::event::{Action, ReachId};
use crate::liveness::{Evidence, Examination, Exit, Judgement, Verdict};
use alloc::vec::Vec;
use core::time::Duration;
use steadfast_wire::{Instant, PathNumber, SessionId};

impl Endpoint {
    /// What is known of the process at the other end of a session; `None` if the session has ended.
    #[must_use]
    pub fn verdict(&self, session: SessionId) -> Option<Judgement> {
        let home = self.associations.get(self.sessions.get(&session)?)?;
        let judged = home.liveness.judged();
        // Another process had the session: that this one lives means nothing for it yet.
        if home.sessions.get(&session).is_some_and(|session| session.succeeds)
            && let Some(incarnation) = home.incarnation
        {
            let evidence = Evidence::NewProcess(incarnation);
            return Some(Judgement { verdict: Verdict::Restarted, evidence, since: judged.since });
        }
        Some(judged.clone())
    }

    /// What is known of a process; `None` if nothing is going on with it any more.
    #[must_use]
    pub fn verdict_on(&self, association: AssociationId) -> Option<Judgement> {
        self.associations.get(&association).map(|home| home.liveness.judged().clone())
    }

    /// What is known of the process that is to be in reach; `None` if it will not be any more.
    #[must_use]
    pub fn verdict_at(&self, reach: ReachId) -> Option<Judgement> {
        self.verdict_on(*self.reaches.get(&reach)?)
    }

    /// The other side's kernel took the connection that a path is to use; nothing was said on it yet.
    pub fn handle_reached(&mut self, now: Instant, path: PathNumber) {
        self.on_path(now, path, |association, _| association.path_reached(now, path));
    }

    /// What the kernel knows of a path's carrier, as [`Action::Examine`](crate::Action::Examine) asked; `None` if it does not
    /// tell.
    pub fn handle_examined(&mut self, now: Instant, path: PathNumber, examination: Option<Examination>) {
        self.on_path(now, path, |association, cx| association.path_examined(cx, now, path, examination));
    }

    /// A process that [`Action::Watch`](crate::Action::Watch) named has ended.
    pub fn handle_exited(&mut self, now: Instant, association: AssociationId, exit: Exit) {
        let Some(found) = self.associations.get_mut(&association) else { return };
        found.process_exited(&mut self.cx, now, exit);
        self.after(now, association);
    }

    /// This process is about to be frozen, for at most this long as far as it knows: peers hear it on every path, which ends
    /// after that, and do not take the silence for a death. Nothing is opened or let in until [`wake`](Self::wake).
    ///
    /// Drain, let the carriers say it, and then close what is still open: a peer that hears nothing is silent.
    pub fn suspend(&mut self, now: Instant, limit: Duration) {
        self.cx.suspended = Some(limit);
        self.cx.suspensions += 1;
        for path in core::mem::take(&mut self.greetings).into_keys() {
            self.cx.actions.push_back(Action::Reset { path });
        }
        for id in self.associations.keys().copied().collect::<Vec<_>>() {
            if let Some(association) = self.associations.get_mut(&id) {
                association.suspend(&mut self.cx, now);
            }
            self.after(now, id);
        }
    }

    /// Undoes [`suspend`](Self::suspend): every peer is sought again.
    pub fn wake(&mut self, now: Instant) {
        if self.cx.suspended.take().is_none() {
            return;
        }
        for id in self.associations.keys().copied().collect::<Vec<_>>() {
            if let Some(association) = self.associations.get_mut(&id) {
                association.wake(&mut self.cx, now);
            }
            self.after(now, id);
        }
    }
}
