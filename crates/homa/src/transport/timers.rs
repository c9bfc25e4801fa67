//! What happens because nothing happened: questions, silence, deadlines.

use super::Transport;
use crate::cutoffs::Levels;
use crate::event::{Event, Reason};
use crate::id::PeerId;
use crate::packet::{Body, Dialect, Packet, RESEND_ALL};
use crate::rpc::{AT_LEAST, Progress, Role, State};
use alloc::vec::Vec;
use core::time::Duration;
use steadfast_wire::Instant;

/// The most gaps of a message that are asked for at a time.
const QUESTIONS: usize = 16;
/// An RPC is looked at no more often than this.
const TICK: Duration = Duration::from_micros(1);

impl Transport {
    /// Does all that is due. Each RPC has one timer, which packets only move when it fires.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, index)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, index));
            let late = now.since(at);
            if let Some(rpc) = self.rpcs.get_mut(index) {
                rpc.timer = None;
                // While nobody looked at the clock, nobody asked the peer for anything: that was our silence.
                rpc.quiet_since = (rpc.quiet_since + late).min(now);
                rpc.progress.since = (rpc.progress.since + late).min(now);
            }
            if let Some(next) = self.expire(now, index) {
                self.arm(index, next.max(now + TICK));
            }
        }
    }

    /// Looks at an RPC at this time at the latest.
    pub(super) fn arm(&mut self, index: u32, at: Instant) {
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        if rpc.timer.is_none_or(|timer| at < timer) {
            if let Some(timer) = rpc.timer.replace(at) {
                self.timers.remove(&(timer, index));
            }
            self.timers.insert((at, index));
        }
    }

    /// Returns when to look again, if the RPC is still here and waits for its peer.
    fn expire(&mut self, now: Instant, index: u32) -> Option<Instant> {
        let rpc = self.rpcs.get(index)?;
        let deadline = rpc.deadline;
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.fail(index, Reason::Deadline);
            return None;
        }
        let next = match (rpc.role, rpc.state) {
            (Role::Server, State::InService) => None,
            (Role::Server, State::Outgoing) => self.expire_response(now, index),
            _ => self.expire_question(now, index),
        };
        next.map(|next| deadline.map_or(next, |deadline| deadline.min(next)))
    }

    /// A message of the peer is missing, or its answer to ours.
    fn expire_question(&mut self, now: Instant, index: u32) -> Option<Instant> {
        self.look(now, index);
        let rpc = self.rpcs.get_mut(index)?;
        if rpc.is_our_turn() {
            rpc.quiet_since = now;
            rpc.fresh = now;
            rpc.explained = Duration::ZERO;
        }
        let (link, mut slow) = (rpc.link, false);
        if let Some(incoming) = &rpc.incoming {
            if rpc.is_our_turn() {
                rpc.progress = Progress::new(now, incoming.got);
            } else {
                rpc.progress.note(now, incoming.got, incoming.length);
            }
            slow = now >= rpc.progress.since + self.config.patience;
        }
        let stale = rpc.incoming.is_some() && rpc.idle(now) >= self.resend_after(link);
        if stale {
            // Also if its sender says something: duplicates keep nobody else from being granted.
            self.stall(index);
        }
        let rpc = self.rpcs.get(index)?;
        let after = self.resend_after(link);
        let interval = self.question_interval(link, rpc.asks);
        let silent = now.since(rpc.quiet_since);
        let end = rpc.quiet_since + self.config.timeout;
        if silent >= self.config.timeout || slow {
            let peer = rpc.peer;
            self.metrics.rpc_timeouts += 1;
            self.end(index, Reason::Timeout);
            self.judge(now, peer);
            return None;
        }
        if silent < after {
            return Some(rpc.quiet_since + after);
        }
        if rpc.asked.is_none_or(|asked| now >= asked + interval) {
            self.ask_for_missing(now, index);
        }
        let rpc = self.rpcs.get(index)?;
        let interval = self.question_interval(link, rpc.asks);
        Some(rpc.asked.map_or(end, |asked| (asked + interval).min(end)))
    }

    /// A response is sent and not acknowledged, or not granted whole.
    fn expire_response(&mut self, now: Instant, index: u32) -> Option<Instant> {
        let dialect = self.dialect(self.rpcs.get(index)?.peer);
        let rpc = self.rpcs.get_mut(index)?;
        if rpc.is_sending() {
            rpc.quiet_since = now;
            let link = rpc.link;
            return Some(now + self.resend_after(link));
        }
        // A client that grants others first says so if it is asked, but the module does not.
        let mute = rpc.waits_for_grants() && dialect == Dialect::Linux;
        let retain = if mute { self.config.patience } else { self.config.retain };
        let end = (rpc.quiet_since + retain).min(rpc.progress.since + self.config.patience);
        if now >= end {
            // The client gave up long ago: its timeout is shorter. What it sends late finds that the request was taken.
            let peer = rpc.peer;
            self.metrics.unacknowledged += 1;
            self.end_server(index, false);
            self.judge(now, peer);
            return None;
        }
        let wait = |asked: u32| self.config.request_ack_after.saturating_mul(1 << asked.min(16));
        if now >= rpc.quiet_since + wait(rpc.need_acks) {
            rpc.need_acks += 1;
            let (peer, packet) = (rpc.peer, rpc.packet(Body::NeedAck));
            let next = (rpc.quiet_since + wait(rpc.need_acks)).min(end);
            self.ask(peer, packet);
            return Some(next);
        }
        Some((rpc.quiet_since + wait(rpc.need_acks)).min(end))
    }

    /// While its link was busy with what comes before its missing bytes, or beside them, a message waits in a switch: most of
    /// that time is not its sender's silence, and the rest finds a dead one beside a link that is never idle.
    pub(super) fn look(&mut self, now: Instant, index: u32) {
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        let Some(incoming) = &rpc.incoming else { return };
        let busy = self.links[usize::from(rpc.link)].busy(incoming.level);
        let before = core::mem::replace(&mut rpc.busy_seen, busy);
        let longest = now.since(rpc.fresh.min(rpc.quiet_since));
        let explained = Duration::from_nanos(busy.saturating_sub(before)).min(longest);
        rpc.explained += explained;
        let shift = explained.saturating_sub(explained / AT_LEAST);
        for since in [&mut rpc.quiet_since, &mut rpc.fresh, &mut rpc.progress.since] {
            *since = (*since + shift).min(now);
        }
    }

    /// A sender that is silent takes no part of what may be on its way, and is not granted more.
    fn stall(&mut self, index: u32) {
        self.unmanage(index);
        if let Some(incoming) = self.rpcs.get_mut(index).and_then(|rpc| rpc.incoming.as_mut()) {
            incoming.stalled = true;
        }
        self.recount(index);
    }

    /// How long a link takes for all that may be on its way to it. For so long a message may be silent only because shorter ones
    /// come first: to ask for it would bring its bytes twice, and the second time before the shorter ones.
    fn drain(&self, link: u16) -> Duration {
        let rate = self.links.get(usize::from(link)).map_or(0, |link| link.sender.rate);
        let nanos = (u64::from(self.config.max_incoming) * 8_000_000_000).checked_div(rate).unwrap_or(0);
        // A few questions must be asked before it is given up.
        Duration::from_nanos(nanos).min(self.config.timeout / 4)
    }

    /// Silence after which missing bytes are asked for.
    pub(super) fn resend_after(&self, link: u16) -> Duration {
        self.config.resend_after.max(self.drain(link))
    }

    /// How long after a question the next is asked, if nothing new came after `asks` of them: who answers that it is busy
    /// needs not be asked all the time.
    pub(super) fn question_interval(&self, link: u16, asks: u32) -> Duration {
        let interval = self.config.resend_interval.max(self.drain(link));
        let longest = (self.config.timeout / 4).max(interval);
        interval.saturating_mul(1 << asks.saturating_sub(1).min(16)).min(longest)
    }

    /// Asks for all that could be here and is not.
    pub(super) fn ask_for_missing(&mut self, now: Instant, index: u32) {
        let top = self.top();
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        rpc.asked = Some(now);
        let (peer, link) = (rpc.peer, rpc.link);
        let interval = self.config.resend_interval.max(self.drain(link));
        let after = self.resend_after(link);
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        let Some(known) = self.peers.get_mut(peer.index) else { return };
        let most = known.may_ask(now, interval).min(QUESTIONS);
        if most == 0 {
            return;
        }
        rpc.asks = rpc.asks.saturating_add(1);
        // What waits in a switch would come twice: a single packet shows whether its sender lives.
        let parked = !rpc.explained.is_zero() && rpc.idle(now) < after;
        let (most, longest) = if parked { (1, known.segment) } else { (most, u32::MAX) };
        // As if the sender began with what is left: above what is granted, below what is shorter.
        let priority = rpc
            .incoming
            .as_ref()
            .map_or(top, |incoming| Levels::level_of(&self.levels.cutoffs, incoming.unreceived()).min(top));
        let resend = |offset, length| Body::Resend { offset, length, priority };
        let packets: Vec<Packet> = match &rpc.incoming {
            Some(incoming) => incoming
                .gaps()
                .take(most)
                .map(|(offset, length)| rpc.packet(resend(offset, length.min(longest))))
                .collect(),
            None => Vec::from([rpc.packet(resend(0, RESEND_ALL))]),
        };
        known.count_asked(packets.len());
        if now.since(known.heard) >= after {
            known.missed = Some(now);
        }
        for packet in packets {
            self.ask(peer, packet);
        }
    }

    /// A packet that a living peer answers.
    fn ask(&mut self, peer: PeerId, packet: Packet) {
        if let Some(known) = self.peers.get_mut(peer.index) {
            known.questions = known.questions.saturating_add(1);
        }
        self.push_control(peer, packet);
    }

    /// An RPC ended in silence: if the peer answered nobody else either, it is gone, and all that waits for it ends now.
    fn judge(&mut self, now: Instant, peer: PeerId) {
        let Some(known) = self.peers.get(peer.index) else { return };
        let silent = now.since(known.heard) >= self.config.timeout;
        if !silent || known.questions < self.config.peer_questions {
            return;
        }
        let all = known.clients.values().chain(known.servers.values());
        let waiting: Vec<u32> = all
            .copied()
            .filter(|index| {
                // A request in service still has its work; whether its client is gone shows when it is answered.
                self.rpcs
                    .get(*index)
                    .is_some_and(|rpc| rpc.role == Role::Client || rpc.state != State::InService)
            })
            .collect();
        self.metrics.silent_peers += 1;
        for index in waiting {
            self.end(index, Reason::Timeout);
        }
        self.events.push_back(Event::PeerSilent { peer });
    }
}
