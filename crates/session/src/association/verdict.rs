//! From evidence to a verdict on the peer's process.
//!
//! While one path is good the process is alive. When all are suspect it was asked on each and answers on none; then the
//! kernel is asked in rounds whether the other side's kernel acknowledges. If that is silent, too, the peer is
//! unreachable; if it acknowledges and the process says nothing for long, that is hung. Without a path the attempts to
//! open one tell: refused where it listened, taken and left mute, or nothing at all. One process is judged at a time, in
//! one place, so that no two verdicts contradict each other.

use super::Association;
use crate::association::AssociationId;
use crate::config::Config;
use crate::context::Context;
use crate::event::{Action, DownReason, Event, ReachId};
use crate::liveness::{Evidence, Examination, Exit, Judgement, Loss, Round, Verdict};
use crate::path::{Path, State};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;
use steadfast_wire::{Incarnation, Instant, NetworkClass, PathNumber, SessionId};

/// The least silence after a question that is anything but a lost packet, which TCP sends again after 200 ms.
const ROUND: Duration = Duration::from_millis(350);
/// In how many rounds the other side's kernel has to answer before the process is to blame.
const ROUNDS: u32 = 3;
/// How exact a kernel's times are.
const TICK: Duration = Duration::from_millis(10);
/// How long a driver may take to say what its kernel knows.
const ANSWER: Duration = Duration::from_millis(200);
/// How long the carriers of a process that ended may take to end, too; another process may hold them.
pub(super) const AFTERLIFE: Duration = Duration::from_secs(1);

/// How long the process may owe an answer before it is hung.
pub(super) fn hung_after(config: &Config) -> Duration {
    // Before a path that is silent so long is given up.
    config.verdict_after * 7 / 12
}

/// How long nothing may answer, without a path, before it is unreachable.
fn lost_after(config: &Config, patience: Duration) -> Duration {
    // A path takes four round trips to come back.
    (config.verdict_after / 3).max(patience * 8).min(config.verdict_after)
}

/// When the kernel is to be asked whether a connection that was taken is mute: twice.
fn asks_mute_at(path: &Path, hung: Duration) -> Option<Instant> {
    let since = path.mute_since().filter(|_| path.examined.is_none())?;
    Some(path.found_mute.map_or(since + hung, |found| found + ROUND))
}

impl Association {
    pub(crate) fn number(&self) -> AssociationId {
        AssociationId(self.offers.number())
    }

    /// Whether anybody wants to know, and it can still change.
    fn is_on_trial(&self) -> bool {
        let wanted = !self.sessions.is_empty() || self.offers.is_wanted();
        wanted && !self.is_leaving() && !self.liveness.judged().verdict.is_final()
    }

    /// A verdict is told once; the same on other evidence only if that is better.
    pub(super) fn decide(&mut self, cx: &mut Context, now: Instant, verdict: Verdict, evidence: Evidence) {
        let before = self.liveness.judged().verdict;
        let firmer = matches!(evidence, Evidence::Exited(_)) && self.liveness.judged().evidence != evidence;
        if before.is_final() || (before == verdict && !firmer) {
            return;
        }
        let since = if before == verdict { self.liveness.judged().since } else { now };
        self.liveness.judged = Judgement { verdict, evidence, since };
        cx.stats.verdicts += 1;
        if verdict == Verdict::Alive && before != Verdict::Unknown {
            cx.stats.verdicts_revoked += 1;
        }
        // What another process had is not known to go on until that says so.
        let concerned = |session: &&alloc::boxed::Box<crate::session::Session>| {
            verdict != Verdict::Alive || !session.succeeds
        };
        let sessions = self.sessions.values().filter(concerned).map(|session| session.id).collect();
        self.tell_verdict(cx, sessions, self.offers.reaches().collect());
    }

    fn tell_verdict(&self, cx: &mut Context, sessions: Vec<SessionId>, reaches: Vec<ReachId>) {
        cx.event(Event::Verdict {
            association: self.number(),
            peer: self.peer,
            incarnation: self.incarnation,
            judgement: self.liveness.judged().clone(),
            sessions,
            reaches,
        });
    }

    /// A session that another process of the peer had goes on with this one.
    pub(super) fn succeeded(&self, cx: &mut Context, session: SessionId) {
        self.tell_verdict(cx, alloc::vec![session], Vec::new());
    }

    /// Sessions and what is kept in reach turn out to be with this process: what is known of it holds for them.
    pub(crate) fn joined_by(&self, cx: &mut Context, sessions: Vec<SessionId>, reaches: Vec<ReachId>) {
        let verdict = self.liveness.judged().verdict;
        let known = verdict != Verdict::Unknown && !verdict.is_final();
        if known && !(sessions.is_empty() && reaches.is_empty()) {
            self.tell_verdict(cx, sessions, reaches);
        }
    }

    /// Something was received on a path.
    pub(crate) fn heard(&mut self, cx: &mut Context, now: Instant, number: PathNumber) {
        if !self.liveness.is_doubted() || self.is_of_before(now, number) {
            return;
        }
        let judged = self.liveness.judged();
        let doubted_at = (judged.verdict == Verdict::Unreachable).then_some(judged.since);
        match self.paths.get_mut(&number).filter(|path| doubted_at.is_some_and(|at| path.up_since < at)) {
            // What a host sends again once it is back may be of a process that died meanwhile: only an answer tells.
            Some(path) => path.ping_due |= path.ping.is_none_or(|(_, asked)| doubted_at > Some(asked)),
            None => self.revoke(cx, now),
        }
    }

    /// A question of `asked` was answered on a path.
    pub(super) fn answered(&mut self, cx: &mut Context, now: Instant, number: PathNumber, asked: Instant) {
        let since = self.liveness.judged().since <= asked;
        if since && self.liveness.is_doubted() && !self.is_of_before(now, number) {
            self.revoke(cx, now);
        }
    }

    fn revoke(&mut self, cx: &mut Context, now: Instant) {
        self.liveness.suspended = None;
        self.liveness.round = None;
        self.decide(cx, now, Verdict::Alive, Evidence::Heard);
    }

    /// A path came up.
    pub(super) fn path_joined(&mut self, cx: &mut Context, now: Instant, number: PathNumber) {
        self.liveness.awoke();
        self.liveness.joined();
        if let Some(path) = self.paths.get(&number)
            && path.opener
        {
            let address = path.address;
            self.liveness.prove(address);
        }
        self.heard(cx, now, number);
        self.watch(cx, number);
    }

    /// On one host the kernel tells when the process ends.
    fn watch(&mut self, cx: &mut Context, number: PathNumber) {
        let same_host = self.paths.get(&number).is_some_and(|path| path.same_host);
        let Some(process) = self.hello.as_ref().map(|hello| hello.process).filter(|_| same_host) else {
            return;
        };
        // A pid means something in its namespace only.
        let here = process.pid != 0 && process.namespace == cx.config.process.namespace;
        if here && !core::mem::replace(&mut self.liveness.watched, true) {
            cx.actions.push_back(Action::Watch { association: self.number(), process });
        }
    }

    /// The association is over: nobody waits for the end of the process any more.
    pub(crate) fn unwatch(&mut self, cx: &mut Context) {
        if core::mem::take(&mut self.liveness.watched) {
            cx.actions.push_back(Action::Unwatch { association: self.number() });
        }
    }

    /// A path went down, or never came up.
    pub(super) fn path_lost(
        &mut self,
        cx: &mut Context,
        now: Instant,
        path: &Path,
        reason: DownReason,
        loss: Loss,
    ) {
        if path.is_up() {
            if self.is_up() {
                return;
            }
            let liveness = &mut self.liveness;
            let silent = reason == DownReason::Silence;
            let answered = liveness.round.take().is_some_and(|round| round.answered >= ROUNDS);
            liveness.patience = path.estimate.rtt_or_guess();
            liveness.ended = reason == DownReason::Carrier && loss == Loss::Ended;
            // The silence that it went down for counts.
            liveness.apart = Some(if silent { path.silent_from(now) } else { now });
            // Its kernel acknowledged until now.
            let hung = liveness.judged.verdict == Verdict::Hung || silent && answered;
            liveness.host_answered = hung.then_some(now);
            liveness.mute = hung.then_some(path.address);
            if hung && self.is_on_trial() {
                self.decide(cx, now, Verdict::Hung, Evidence::Unanswered);
            }
        } else if path.opener && loss == Loss::Refused {
            self.note_refusal(now, path.address);
        }
        self.weigh_apart(cx, now);
    }

    fn note_refusal(&mut self, now: Instant, address: SocketAddr) {
        let announced = |ip| self.remote_networks.iter().any(|n| n.addresses.iter().any(|a| a.ip == ip));
        let liveness = &self.liveness;
        // A host that came from an address which it calls its own is not behind another one.
        let its_own =
            liveness.is_proven(address) || self.came_from.contains(&address) && announced(address.ip());
        self.liveness.host_answered = Some(now);
        if its_own && self.incarnation.is_some() {
            self.liveness.refused = Some((now, address));
        } else {
            self.liveness.denied = Some(address);
        }
    }

    /// The other side's kernel took the connection of a path.
    pub(crate) fn path_reached(&mut self, now: Instant, number: PathNumber) {
        if let Some(path) = self.paths.get_mut(&number).filter(|path| path.state == State::Connecting) {
            path.reached = Some(now);
            self.liveness.host_answered = Some(now);
        }
    }

    /// The kernel says that the process ended.
    pub(crate) fn process_exited(&mut self, cx: &mut Context, now: Instant, exit: Exit) {
        // What it said last may not be read yet, a farewell perhaps: its carriers end after that.
        self.liveness.exited.get_or_insert((now, exit));
        self.weigh(cx, now);
    }

    /// Another process answers in its place.
    pub(crate) fn replaced_by(&mut self, cx: &mut Context, now: Instant, new: Incarnation) {
        self.decide(cx, now, Verdict::Restarted, Evidence::NewProcess(new));
    }

    /// Our networks changed.
    pub(super) fn weigh_networks(&mut self, cx: &mut Context, now: Instant) {
        let verdict = self.liveness.judged().verdict;
        let gone = verdict == Verdict::Crashed || self.liveness.suspended.is_some();
        // While it is suspended this side has none by its own choice.
        if self.is_up() || !self.is_on_trial() || gone || cx.suspended.is_some() {
            return;
        }
        if !self.has_network(cx) {
            self.decide(cx, now, Verdict::NoLocalNetwork, Evidence::NoNetwork);
        } else if verdict == Verdict::NoLocalNetwork {
            self.liveness.apart = Some(now);
            self.liveness.host_answered = None;
            self.decide(cx, now, Verdict::Unknown, Evidence::NetworkBack);
        }
    }

    /// Whether any network here could lead to the peer.
    fn has_network(&self, cx: &Context) -> bool {
        let leads = |network: &&steadfast_wire::Network| {
            !cx.config.forbids(network)
                && !network.addresses.is_empty()
                && (network.class != NetworkClass::Loopback || self.is_local(cx))
        };
        cx.networks.iter().any(|network| leads(&network))
    }

    fn is_local(&self, cx: &Context) -> bool {
        self.dials.addresses().iter().any(|address| cx.is_ours(address.ip()))
    }

    /// What is due by the clock, or follows from new evidence.
    pub(super) fn weigh(&mut self, cx: &mut Context, now: Instant) {
        if !self.is_on_trial() || cx.suspended.is_some() {
            return;
        }
        match self.liveness.suspended {
            Some(suspended) if now < suspended.until => return,
            Some(_) => self.outlast(now),
            None => {}
        }
        if let Some((at, exit)) = self.liveness.exited
            && (!self.is_up() || at + AFTERLIFE <= now)
        {
            self.decide(cx, now, Verdict::Crashed, Evidence::Exited(exit));
        } else if self.is_up() {
            self.weigh_silence(cx, now);
        } else {
            self.weigh_apart(cx, now);
        }
    }

    /// Since when all paths are silent although an answer is owed on each, and how long after that it is worth asking the
    /// kernel; `None` while one is good.
    fn silence(&self, config: &Config) -> Option<(Instant, Duration)> {
        let mut all: Option<(Instant, Instant)> = None;
        for path in self.paths.values().filter(|path| path.is_up()) {
            let from = path.silent_from(path.suspect?);
            let asks_at = from + ROUND.max(path.patience(config) * 3).min(config.verdict_after / 2);
            all = Some(all.map_or((from, asks_at), |(other, latest)| (other.max(from), latest.max(asks_at))));
        }
        all.map(|(from, asks_at)| (from, asks_at.since(from)))
    }

    /// All paths are silent: the kernel is asked what it knows, in rounds.
    fn weigh_silence(&mut self, cx: &mut Context, now: Instant) {
        let verdict = self.liveness.judged().verdict;
        let silence = self.silence(&cx.config);
        let Some((from, wait)) = silence.filter(|_| !matches!(verdict, Verdict::Hung | Verdict::Unreachable))
        else {
            self.liveness.round = None;
            return;
        };
        let fresh = Round { silent_from: from, began: from, asks_at: from + wait, asked: None, answered: 0 };
        let round = *self.liveness.round.get_or_insert(fresh);
        // Something came meanwhile, or another path is silent only now.
        let mut round = if round.silent_from < from { fresh } else { round };
        if round.asks_at <= now && round.asked.is_none() {
            round.asked = Some(now);
            for path in self.paths.values_mut().filter(|path| path.is_up()) {
                path.examined = None;
                cx.actions.push_back(Action::Examine { path: path.number });
            }
        }
        self.liveness.round = Some(round);
        let late = round.asked.is_some_and(|asked| asked + ANSWER <= now);
        let all = || self.paths.values().filter(|p| p.is_up()).all(|p| p.examined.is_some());
        if round.asked.is_some() && (late || all()) {
            self.conclude(cx, now, round, wait);
        }
    }

    /// The kernel has said of every path what it knows.
    fn conclude(&mut self, cx: &mut Context, now: Instant, round: Round, wait: Duration) {
        let asked = round.asked.unwrap_or(now);
        let span = asked.since(round.began);
        let known =
            || self.paths.values().filter(|p| p.is_up()).map(|path| path.examined.and_then(Result::ok));
        let unread = |e: Examination| e.last_data + TICK < asked.since(round.silent_from);
        let silent = |e: Examination| (e.unacknowledged && e.last_ack > span / 2) || e.stuck;
        let hung_at = round.silent_from + hung_after(&cx.config);
        let mut next = Round { began: now, asks_at: now + wait, asked: None, answered: 0, ..round };
        if known().flatten().any(unread) {
            // The peer spoke and we have not read it: that is our own fault.
            self.liveness.round = Some(next);
            return;
        }
        if known().all(|examined| examined.is_some_and(silent)) {
            return self.decide(cx, now, Verdict::Unreachable, Evidence::Silence);
        }
        if known().flatten().any(|examined| !silent(examined)) {
            next.answered = round.answered + 1;
            // After a cut an answer may wait in the other side's kernel, which tries again ever more rarely.
            if hung_at <= now && next.answered >= ROUNDS {
                return self.decide(cx, now, Verdict::Hung, Evidence::Unanswered);
            }
        } else if round.silent_from + cx.config.verdict_after <= now {
            // The kernel does not tell.
            return self.decide(cx, now, Verdict::Unreachable, Evidence::Silence);
        }
        // Ask the process again, and the kernel once more after that.
        for path in self.paths.values_mut().filter(|path| path.is_up()) {
            path.ping_due = true;
        }
        let soon = now + wait.min(hung_after(&cx.config) / 4);
        // The last round ends when it has to, if it has not all but begun.
        next.asks_at = if now + ROUND / 2 < hung_at { soon.min(hung_at) } else { soon };
        self.liveness.round = Some(next);
    }

    /// Connections that were taken and on which nobody says anything: the kernel is asked whether what we said arrived.
    fn examine_mute(&mut self, cx: &mut Context, now: Instant) {
        let hung = hung_after(&cx.config);
        for path in self.paths.values_mut() {
            if asks_mute_at(path, hung).is_some_and(|at| at <= now) {
                path.examined = Some(Err(()));
                cx.actions.push_back(Action::Examine { path: path.number });
            }
        }
    }

    /// What a driver's kernel knows of a path that is silent.
    pub(crate) fn path_examined(
        &mut self,
        cx: &mut Context,
        now: Instant,
        number: PathNumber,
        examination: Option<Examination>,
    ) {
        let Some(path) = self.paths.get_mut(&number) else { return };
        path.examined = Some(examination.ok_or(()));
        if let (Some(since), Some(examined)) = (path.mute_since(), examination)
            && !examined.unacknowledged
            && examined.last_data + TICK >= now.since(since)
        {
            self.liveness.host_answered = Some(now);
            if path.found_mute.is_some() {
                self.liveness.mute = Some(path.address);
            } else {
                // Perhaps it was this process that stood still, and the peer has not heard all that it answers.
                path.found_mute = Some(now);
                path.examined = None;
            }
        }
        self.weigh(cx, now);
    }

    /// Without a path: what became of the attempts to open one.
    fn weigh_apart(&mut self, cx: &mut Context, now: Instant) {
        let rests = cx.suspended.is_some() || self.liveness.suspended.is_some();
        if !self.is_on_trial() || self.is_up() || rests {
            return;
        }
        if let Some((_, exit)) = self.liveness.exited {
            return self.decide(cx, now, Verdict::Crashed, Evidence::Exited(exit));
        }
        let verdict = self.liveness.judged().verdict;
        if verdict == Verdict::Crashed {
            return;
        }
        // What was refused beside a path that worked says nothing of later, unless that ended just then, too.
        let liveness = &self.liveness;
        let since = liveness.apart.map(|apart| if liveness.ended { apart - AFTERLIFE } else { apart });
        if let Some((_, address)) = liveness.refused.filter(|(at, _)| since.is_some_and(|since| *at >= since))
        {
            return self.decide(cx, now, Verdict::Crashed, Evidence::Refused(address));
        }
        if !self.has_network(cx) {
            return self.decide(cx, now, Verdict::NoLocalNetwork, Evidence::NoNetwork);
        }
        self.examine_mute(cx, now);
        let lost = self.lost_at(cx).is_some_and(|at| at <= now);
        if let Some(address) = self.liveness.mute.filter(|_| !lost) {
            return self.decide(cx, now, Verdict::Hung, Evidence::Mute(address));
        }
        if lost {
            self.liveness.mute = None;
            let evidence = match self.liveness.denied {
                Some(address) => Evidence::NobodyListens(address),
                None if self.liveness.ended => Evidence::Ended,
                None => Evidence::Silence,
            };
            self.decide(cx, now, Verdict::Unreachable, evidence);
        }
    }

    /// When it counts as unreachable, without a path.
    fn lost_at(&self, cx: &Context) -> Option<Instant> {
        let liveness = &self.liveness;
        let lost = liveness.apart? + lost_after(&cx.config, liveness.patience);
        // A host that answered is there until all of it had time to be tried again.
        let again = cx.config.connect_timeout + cx.config.backoff_max;
        let answered = liveness.host_answered.filter(|_| liveness.denied.is_none());
        Some(answered.map_or(lost, |at| lost.max(at + again)))
    }

    /// When [`weigh`](Self::weigh) has something to do.
    pub(super) fn weigh_at(&self, cx: &Context) -> Option<Instant> {
        let verdict = self.liveness.judged().verdict;
        let crashed = verdict == Verdict::Crashed && self.liveness.exited.is_none();
        if crashed || !self.is_on_trial() || cx.suspended.is_some() {
            return None;
        }
        if let Some(suspended) = self.liveness.suspended {
            return Some(suspended.until);
        }
        if let Some((at, exit)) = self.liveness.exited {
            let told = self.liveness.judged().evidence == Evidence::Exited(exit);
            return (!told).then(|| at + AFTERLIFE);
        }
        if self.is_up() {
            let (from, wait) = self.silence(&cx.config)?;
            if matches!(verdict, Verdict::Hung | Verdict::Unreachable) {
                return None;
            }
            let round = self.liveness.round.filter(|round| round.silent_from >= from);
            let due = |round: Round| round.asked.map_or(round.asks_at, |asked| asked + ANSWER);
            return Some(round.map_or(from + wait, due));
        }
        let hung = hung_after(&cx.config);
        let mute = self.paths.values().filter_map(|path| asks_mute_at(path, hung)).min();
        let settled = matches!(verdict, Verdict::Unreachable | Verdict::NoLocalNetwork);
        let lost = self.lost_at(cx).filter(|_| !settled);
        [mute, lost].into_iter().flatten().min()
    }
}
