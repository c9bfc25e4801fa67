//! A process that is about to be frozen says so, and for how long at most: until then its silence is no death.
//!
//! SUSPEND is the last word on every path. It may overtake, on another path, what was said before it; so only a HELLO that
//! comes after it proves that the process goes on, or whatever else comes once the old paths have had the time to end.

use super::Association;
use super::verdict::AFTERLIFE;
use crate::context::Context;
use crate::event::DownReason;
use crate::liveness::{Evidence, Suspension, Verdict};
use crate::path::{Path, State};
use alloc::vec::Vec;
use core::time::Duration;
use steadfast_wire::frame::FEATURE_SUSPENSION;
use steadfast_wire::time::nanos;
use steadfast_wire::{Frame, Instant, PathNumber};

impl Association {
    /// This process is about to be frozen: the peer hears it on every path, as far as it understands that.
    pub(crate) fn suspend(&mut self, cx: &mut Context, now: Instant) {
        let understands = self.hello.as_ref().is_some_and(|hello| hello.features & FEATURE_SUSPENSION != 0);
        self.dial_dirty = true;
        for number in self.paths.keys().copied().collect::<Vec<_>>() {
            let Some(path) = self.paths.get_mut(&number) else { continue };
            // The peer knows of a path from our HELLO on, also if we do not know yet whom it leads to.
            if understands && path.state != State::Connecting && !path.hello_due {
                path.suspend_due = true;
            } else {
                self.path_down(cx, now, number, DownReason::Suspended);
            }
        }
    }

    /// It goes on: what did not hear of it is of no use any more.
    pub(crate) fn wake(&mut self, cx: &mut Context, now: Instant) {
        self.dial_dirty = true;
        let deaf = |path: &&Path| path.suspend_due;
        for number in self.paths.values().filter(deaf).map(|path| path.number).collect::<Vec<_>>() {
            self.path_down(cx, now, number, DownReason::Suspended);
        }
    }

    /// The last frame of a path, if it is due.
    pub(super) fn last_word(cx: &Context, path: &Path) -> Option<Frame> {
        let limit = nanos(cx.suspended?) / 1_000_000;
        path.suspend_due.then_some(Frame::Suspend { epoch: cx.suspensions, limit })
    }

    /// The last word was said on a path: it ends.
    pub(crate) fn close_suspended(&mut self, cx: &mut Context, now: Instant, number: PathNumber) {
        if self.paths.get(&number).is_some_and(|path| path.suspend_due) {
            self.path_down(cx, now, number, DownReason::Suspended);
        }
    }

    /// The peer's process is about to be frozen; nothing more comes on this path.
    pub(super) fn handle_suspend(
        &mut self,
        cx: &mut Context,
        now: Instant,
        number: PathNumber,
        epoch: u64,
        limit: u64,
    ) {
        let limit = Duration::from_millis(limit).min(cx.config.max_suspension);
        let others = self.paths.values().any(|path| path.is_up() && path.number != number);
        let liveness = &mut self.liveness;
        let is_new = epoch > liveness.suspensions;
        // A path that came up late took it back for a moment, and now says the same.
        let again = epoch == liveness.suspensions && liveness.suspended.is_none() && !others;
        if (is_new || again) && liveness.can_live() {
            liveness.suspensions = epoch;
            liveness.suspended = Some(Suspension { at: now, until: now + limit });
            liveness.round = None;
            // It will not answer, and perhaps listens for a moment still.
            self.dials.rest_until(now + AFTERLIFE);
            self.decide(cx, now, Verdict::Suspended, Evidence::Suspended(limit));
        }
        self.path_down(cx, now, number, DownReason::Suspended);
    }

    /// Whether what comes on a path was perhaps said before the peer was suspended.
    pub(super) fn is_of_before(&self, now: Instant, number: PathNumber) -> bool {
        self.liveness.suspended.is_some_and(|suspended| {
            let joined = self.paths.get(&number).is_some_and(|path| path.up_since > suspended.at);
            !joined && now < suspended.at + AFTERLIFE
        })
    }

    /// The peer's own limit has passed: from now on its silence is judged as any other.
    pub(super) fn outlast(&mut self, now: Instant) {
        self.liveness.joined();
        self.liveness.suspended = None;
        if !self.is_up() {
            self.liveness.apart = Some(now);
        }
        self.dials.networks_changed(now);
        self.dial_dirty = true;
    }
}
