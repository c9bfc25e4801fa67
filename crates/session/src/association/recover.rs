//! Suspicion, loss, and the clock.
//!
//! A path that makes no progress is suspect: cheap, and revoked by the first answer. What is late on it is said again on
//! the best other path: foreground and control each as soon as it is late, since most alarms are false and end before
//! the next is; background as soon as the peer has told what it has.

use super::{Association, MAX_NOTICES};
use crate::config::Config;
use crate::context::Context;
use crate::event::{DownReason, Event};
use crate::path::{Cargo, Path, REPORT_DELAY};
use crate::session::Item;
use alloc::vec::Vec;
use core::time::Duration;
use steadfast_wire::frame::EndReason;
use steadfast_wire::{Frame, Instant, PathNumber, SessionId};

/// What is late within this time is said again together.
const RESCUE_STEP: Duration = Duration::from_millis(2);

impl Association {
    /// A path is in doubt. `ask` the peer what it got, unless it was the peer that told us.
    pub(super) fn suspect(&mut self, cx: &mut Context, now: Instant, number: PathNumber, ask: bool) {
        let Some(path) = self.paths.get_mut(&number) else { return };
        if path.suspect.is_some() || !path.is_up() {
            return;
        }
        path.suspect = Some(now);
        // An answer to this one ends the doubt.
        if path.ping.is_none() {
            path.ping_due = true;
        }
        cx.stats.suspicions += 1;
        if let Some(path) = self.paths.get(&number) {
            cx.event(Event::PathSuspect(self.info(cx, path)));
        }
        if ask {
            self.ask_about(number);
        }
        self.ask_others(&cx.config, now);
        self.rescue(cx, now, number);
        self.routes_changed();
    }

    /// Asks on the paths that were quiet for a while whether the peer is there: it may be gone from all of them.
    fn ask_others(&mut self, config: &Config, now: Instant) {
        for path in self.paths.values_mut().filter(|path| path.is_good() && path.ping.is_none()) {
            path.ping_due |= path.last_heard + config.heartbeat / 5 <= now;
        }
    }

    /// Asks the peer, by another path, what it got.
    fn ask_about(&mut self, number: PathNumber) {
        if let Some(path) = self.paths.get(&number)
            && self.paths.values().any(Path::is_good)
            && self.notices.len() < MAX_NOTICES
        {
            self.notices.push_back(Frame::Check { path: path.remote_number });
        }
    }

    /// Says again what is urgent and late on a suspect path, where that can go another way.
    fn rescue(&mut self, cx: &Context, now: Instant, number: PathNumber) {
        let has_other = self.paths.values().any(Path::is_good);
        let Some(path) = self.paths.get_mut(&number) else { return };
        path.rescue_at = None;
        if !has_other {
            return;
        }
        // No margin: that of the first has passed already.
        let patience = path.estimate.rtt_or_guess() + REPORT_DELAY;
        let Some(path) = self.paths.get(&number) else { return };
        let mut chosen = Vec::new();
        let mut next = None;
        for flight in &path.flights {
            let urgent = self.is_urgent(cx, &flight.cargo);
            let due = flight.at + patience;
            if urgent && due > now + RESCUE_STEP {
                next = Some(due);
                break;
            }
            chosen.push(urgent);
        }
        self.move_flights(number, |index| chosen.get(index).is_some_and(|urgent| *urgent));
        if let Some(path) = self.paths.get_mut(&number) {
            path.rescue_at = next;
        }
    }

    /// A path became good, perhaps the first while others are suspect.
    pub(super) fn rescue_all(&mut self, cx: &Context, now: Instant) {
        let suspect = |path: &&Path| path.is_up() && path.suspect.is_some();
        for number in self.paths.values().filter(suspect).map(|path| path.number).collect::<Vec<_>>() {
            self.ask_about(number);
            self.rescue(cx, now, number);
        }
    }

    /// Whether something is urgent and may go by a good path.
    fn is_urgent(&self, cx: &Context, cargo: &Cargo) -> bool {
        match cargo {
            Cargo::Session(id, Item::Data(message, _)) => {
                let out = self.sessions.get(id).map(|session| &session.out);
                out.is_some_and(|out| {
                    let rule = out.labels(message.0).map(|labels| &labels.rule);
                    let carries = |path: &Path| {
                        path.is_good() && rule.is_none_or(|rule| self.may_carry(cx, rule, path))
                    };
                    out.is_urgent(*message) && self.paths.values().any(carries)
                })
            }
            Cargo::Nothing | Cargo::Moved(..) => false,
            _ => true,
        }
    }

    /// Says again what is in flight on a path, where `chosen` says so by its place in the queue.
    pub(super) fn move_flights(&mut self, number: PathNumber, chosen: impl Fn(usize) -> bool) {
        let Some(path) = self.paths.get_mut(&number) else { return };
        let mut moved = Vec::new();
        for (index, flight) in path.flights.iter_mut().enumerate() {
            if !chosen(index) {
                continue;
            }
            let cargo = core::mem::replace(&mut flight.cargo, Cargo::Nothing);
            flight.cargo = match cargo {
                Cargo::Session(id, item) => {
                    moved.push((Cargo::Session(id, item.clone()), flight.at));
                    Cargo::Moved(id, item)
                }
                Cargo::End(ending) => {
                    moved.push((Cargo::End(ending), flight.at));
                    Cargo::Nothing
                }
                again @ (Cargo::Networks | Cargo::Offer(_)) => {
                    moved.push((again, flight.at));
                    Cargo::Nothing
                }
                other => other,
            };
        }
        for (cargo, at) in moved {
            self.cargo_lost(cargo, at);
        }
    }

    /// A suspect path answered.
    pub(super) fn recovered(&mut self, cx: &mut Context, now: Instant, number: PathNumber) {
        let Some(path) = self.paths.get_mut(&number) else { return };
        if path.suspect.take().is_some() {
            path.rescue_at = None;
            cx.stats.recoveries += 1;
            let path = &self.paths[&number];
            cx.event(Event::PathRecovered(self.info(cx, path)));
            self.rescue_all(cx, now);
            self.routes_changed();
        }
    }

    /// What is due by the clock.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context, now: Instant) {
        for number in self.paths.keys().copied().collect::<Vec<_>>() {
            self.path_timeout(cx, now, number);
        }
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.session_timeout(cx, now, id);
            self.touch(id);
            // A timer that does not move would be run for ever.
            debug_assert!(
                self.timer_of.get(&id).is_none_or(|next| *next > at),
                "a session timer stands still"
            );
        }
        // Paths that never said HELLO, or take nothing, hear no farewell.
        if self.bye.as_ref().is_some_and(|(_, latest)| *latest <= now) {
            for number in self.deaf_paths() {
                self.path_down(cx, now, number, DownReason::Ended);
            }
        }
        self.weigh(cx, now);
        self.dial(cx, now);
        if self.idle_at(cx).is_some_and(|at| at <= now) {
            self.offers.unhear();
            // No farewell: a conversation that the peer opens just now is to find its way back.
            for number in self.paths.keys().copied().collect::<Vec<_>>() {
                self.path_down(cx, now, number, DownReason::Ended);
            }
        }
    }

    fn farewell_at(&self) -> Option<Instant> {
        self.bye.as_ref().filter(|_| !self.paths.is_empty()).map(|(_, at)| *at)
    }

    fn deaf_paths(&self) -> Vec<PathNumber> {
        self.paths
            .values()
            .filter(|path| !path.is_up() || path.blocked.is_some())
            .map(|path| path.number)
            .collect()
    }

    /// When an association without sessions is closed.
    fn idle_at(&self, cx: &Context) -> Option<Instant> {
        let since = self.idle_since.filter(|_| self.bye.is_none())?;
        Some(since + cx.config.idle_limit)
    }

    fn path_timeout(&mut self, cx: &mut Context, now: Instant, number: PathNumber) {
        let Some(path) = self.paths.get_mut(&number) else { return };
        if path.down_at(&cx.config).is_some_and(|at| at <= now) {
            self.path_down(cx, now, number, DownReason::Silence);
            return;
        }
        if path.report_at.is_some_and(|at| at <= now) {
            path.report_at = None;
            path.report_due = true;
        }
        if path.paced.is_some_and(|at| at <= now) {
            path.paced = None;
        }
        let rescues = path.rescue_at.is_some_and(|at| at <= now);
        if path.ping_at(&cx.config).is_some_and(|at| at <= now) {
            path.ping_due = true;
        }
        if path.suspicion_at(&cx.config).is_some_and(|at| at <= now) {
            self.suspect(cx, now, number, true);
        } else if rescues {
            self.rescue(cx, now, number);
        }
    }

    fn session_timeout(&mut self, cx: &mut Context, now: Instant, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.handle_timeout(cx, now);
        if session.notice_at.is_some_and(|at| at <= now) {
            session.tell_parked(cx);
        }
        if session.limit_at.is_some_and(|at| at <= now) {
            self.end(cx, id, EndReason::Forgotten, true, None);
        } else if session.close_at.is_some_and(|at| at <= now) {
            self.end(cx, id, EndReason::Aborted, true, None);
        } else {
            self.finish_over(cx, id);
        }
    }

    /// When the clock next has something to do here.
    pub(crate) fn timeout(&self, cx: &Context) -> Option<Instant> {
        let paths = self.paths.values().filter_map(|path| path.timeout(&cx.config)).min();
        let sessions = self.timers.first().map(|(at, _)| *at);
        [paths, sessions, self.dial_at, self.idle_at(cx), self.farewell_at(), self.weigh_at(cx)]
            .into_iter()
            .flatten()
            .min()
    }
}
