//! What the application does with requests, and how RPCs begin and end.

use super::Transport;
use crate::cutoffs::Levels;
use crate::event::{Call, CallError, Event, Outcome, Reason, RespondError};
use crate::id::{PeerId, RpcId};
use crate::outgoing::Outgoing;
use crate::packet::{Ack, Acks, Body, Dialect, LINUX_MAX_MESSAGE, Refusal};
use crate::rpc::{Progress, Role, Rpc, State};
use bytes::Bytes;
use core::time::Duration;
use steadfast_wire::Instant;

/// What both sides know of an RPC when it begins.
pub(super) struct Beginning {
    pub(super) client_id: u64,
    pub(super) peer: PeerId,
    pub(super) role: Role,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
}

impl Transport {
    /// Makes a request. It has one [`Event::Done`].
    pub fn request(&mut self, now: Instant, call: Call) -> Result<RpcId, CallError> {
        let index = self.peers.index_of(call.peer.index, call.peer.generation);
        let Some(peer) = index.and_then(|index| self.peers.get_mut(index)) else {
            return Err(CallError::NoPeer);
        };
        if !self.ports.contains_key(&call.from) {
            return Err(CallError::NoPort(call.from));
        }
        let (length, limit) = (call.body.len(), longest(self.config.max_message, peer.dialect));
        if length == 0 || length > limit as usize {
            return Err(CallError::Length { length, limit });
        }
        if self.clients >= self.config.max_client_rpcs {
            return Err(CallError::TooMany(self.config.max_client_rpcs));
        }
        if peer.clients.len() >= self.config.max_peer_calls {
            return Err(CallError::TooMany(self.config.max_peer_calls));
        }
        self.find_room(call.peer, Role::Client, length).map_err(CallError::Full)?;
        let Some(peer) = self.peers.get_mut(call.peer.index) else { return Err(CallError::NoPeer) };
        let client_id = peer.take_id();
        let beginning = Beginning {
            client_id,
            peer: call.peer,
            role: Role::Client,
            local_port: call.from,
            remote_port: call.port,
        };
        let name = self.begin(now, beginning);
        self.metrics.send_calls += 1;
        if let Some(rpc) = self.rpcs.get_mut(name.index) {
            rpc.cookie = call.cookie;
            rpc.deadline = call.deadline;
            rpc.max_response = call.max_response;
        }
        self.set_outgoing(name.index, call.body);
        let first = now + self.config.resend_after;
        self.arm(name.index, call.deadline.map_or(first, |deadline| deadline.min(first)));
        Ok(name)
    }

    /// Answers a request that was announced. [`Event::Answered`] follows, unless it was cancelled meanwhile.
    pub fn respond(&mut self, now: Instant, rpc: RpcId, body: Bytes) -> Result<(), RespondError> {
        let Some(index) = self.rpcs.index_of(rpc.index, rpc.generation) else {
            return Err(RespondError::Ended);
        };
        let (state, peer) = match self.rpcs.get(index) {
            Some(rpc) if rpc.role == Role::Server => (rpc.state, rpc.peer),
            _ => return Err(RespondError::NotAsked),
        };
        if state != State::InService {
            return Err(RespondError::NotAsked);
        }
        let limit = longest(self.config.max_message, self.dialect(peer));
        let length = body.len();
        if length == 0 || length > limit as usize {
            return Err(RespondError::Length { length, limit });
        }
        self.find_room(peer, Role::Server, length).map_err(RespondError::Full)?;
        self.metrics.reply_calls += 1;
        if let Some(rpc) = self.rpcs.get_mut(index) {
            rpc.state = State::Outgoing;
            rpc.quiet_since = now;
            rpc.progress = Progress::new(now, 0);
            let held = u64::from(core::mem::take(&mut rpc.held));
            self.held -= held;
            self.held_requests -= held;
            if let Some(peer) = self.peers.get_mut(rpc.peer.index) {
                *peer.held(Role::Server) -= held;
            }
        }
        self.set_outgoing(index, body);
        self.arm(index, now + self.config.retain);
        Ok(())
    }

    /// Gives up on a request that was announced, without an answer. Its client learns that it may have been executed.
    pub fn abandon(&mut self, rpc: RpcId) {
        let Some(index) = self.rpcs.index_of(rpc.index, rpc.generation) else { return };
        let Some(known) = self.rpcs.get(index) else { return };
        if known.role == Role::Server && known.state == State::InService {
            if self.dialect(known.peer) == Dialect::Steadfast {
                let packet = known.packet(Body::Refused(Refusal::Abandoned));
                let peer = known.peer;
                self.push_control(peer, packet);
            }
            self.metrics.server_rpc_discards += 1;
            self.unlink(index);
            // No event follows.
            self.rpcs.release(index);
        }
    }

    /// The driver has no room for a message whose first bytes came. They are forgotten, and its sender is asked for them again
    /// after [`Config::resend_after`](crate::Config::resend_after): its first packet is then announced anew. False if the
    /// message is whole or gone.
    pub fn postpone(&mut self, now: Instant, rpc: RpcId) -> bool {
        let Some(index) = self.rpcs.index_of(rpc.index, rpc.generation) else { return false };
        if !self.rpcs.get(index).is_some_and(|rpc| rpc.state == State::Incoming && rpc.incoming.is_some()) {
            return false;
        }
        self.unmanage(index);
        self.count_incoming(index, 0);
        let Some(rpc) = self.rpcs.get_mut(index) else { return false };
        rpc.incoming = None;
        rpc.asked = Some(now);
        rpc.quiet_since = now;
        let held = u64::from(core::mem::take(&mut rpc.held));
        self.held -= held;
        if rpc.role == Role::Server {
            self.held_requests -= held;
        }
        if let Some(peer) = self.peers.get_mut(rpc.peer.index) {
            *peer.held(rpc.role) -= held;
        }
        self.arm(index, now + self.config.resend_after);
        true
    }

    /// Gives up on one of our requests. Its outcome comes as [`Event::Done`]; the server is told to stop.
    pub fn cancel(&mut self, rpc: RpcId) {
        let Some(index) = self.rpcs.index_of(rpc.index, rpc.generation) else { return };
        if self.rpcs.get(index).is_some_and(|rpc| rpc.role == Role::Client) {
            self.metrics.abort_calls += 1;
            self.fail(index, Reason::Cancelled);
        }
    }

    /// Whether so much more may be kept; whoever is refused, with the limit, hears when there is room.
    fn find_room(&mut self, peer: PeerId, role: Role, length: usize) -> Result<(), u64> {
        let length = length as u64;
        let shorter =
            |refused: &mut Option<u64>| *refused = Some(refused.map_or(length, |other| other.min(length)));
        let Some(limit) = self.lacks_room(role, length) else {
            let limit = self.config.max_peer_kept;
            let Some(peer) = self.peers.get_mut(peer.index) else { return Ok(()) };
            let (kept, refused) = peer.kept_and_refused(role);
            if fits(*kept, length, limit) {
                return Ok(());
            }
            shorter(refused);
            self.metrics.refused_sends += 1;
            return Err(limit);
        };
        let refused = if role == Role::Client { &mut self.refused_call } else { &mut self.refused_response };
        shorter(refused);
        self.metrics.refused_sends += 1;
        Err(limit)
    }

    /// The limit of all that a message goes over. Peers that fetch nothing leave room to our own requests.
    fn lacks_room(&self, role: Role, length: u64) -> Option<u64> {
        let all = self.config.max_kept;
        let responses = all - all / 4;
        if !fits(self.kept, length, all) {
            return Some(all);
        }
        (role == Role::Server && !fits(self.kept_responses, length, responses)).then_some(responses)
    }

    pub(super) fn begin(&mut self, now: Instant, beginning: Beginning) -> RpcId {
        let Beginning { client_id, peer, role, local_port, remote_port } = beginning;
        let link = self.peers.get(peer.index).map_or(0, |peer| peer.link);
        let (index, generation) = self.rpcs.insert(Rpc {
            name: RpcId { index: 0, generation: 0 },
            client_id,
            peer,
            link,
            role,
            state: if role == Role::Client { State::Outgoing } else { State::Incoming },
            local_port,
            remote_port,
            birth: now,
            quiet_since: now,
            progress: Progress::new(now, 0),
            fresh: now,
            busy_seen: 0,
            explained: Duration::ZERO,
            asked: None,
            asks: 0,
            need_acks: 0,
            timer: None,
            cookie: 0,
            deadline: None,
            max_response: u32::MAX,
            confirmed: false,
            outgoing: None,
            incoming: None,
            held: 0,
        });
        let name = RpcId { index, generation };
        if let Some(rpc) = self.rpcs.get_mut(index) {
            rpc.name = name;
        }
        if let Some(peer) = self.peers.get_mut(peer.index) {
            let table = if role == Role::Client { &mut peer.clients } else { &mut peer.servers };
            table.insert(client_id, index);
        }
        self.clients += usize::from(role == Role::Client);
        name
    }

    fn set_outgoing(&mut self, index: u32, body: Bytes) {
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        let Some(peer) = self.peers.get_mut(rpc.peer.index) else { return };
        let length = body.len() as u32;
        self.metrics.sent_msg_bytes += u64::from(length);
        self.kept += u64::from(length);
        if rpc.role == Role::Server {
            self.kept_responses += u64::from(length);
        }
        let (kept, _) = peer.kept_and_refused(rpc.role);
        let alone = if *kept == 0 { self.config.unscheduled_alone } else { 0 };
        let unscheduled = self.config.unscheduled.max(alone);
        *kept += u64::from(length);
        let level = Levels::level_of(&peer.cutoffs, length).min(self.config.priorities - 1);
        rpc.outgoing = Some(Outgoing::new(body, unscheduled, level));
        self.requeue(index);
    }

    /// Puts a message where it belongs in its link's order.
    pub(super) fn requeue(&mut self, index: u32) {
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        let birth = rpc.birth;
        let Some(outgoing) = &mut rpc.outgoing else { return };
        let place = outgoing.is_ready().then(|| (outgoing.remaining(), birth, index));
        if place != outgoing.place {
            self.links[usize::from(rpc.link)].sender.place(outgoing.place, place);
            outgoing.place = place;
        }
    }

    /// Our message is not needed any more.
    pub(super) fn drop_outgoing(&mut self, index: u32) {
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        let Some(outgoing) = rpc.outgoing.take() else { return };
        self.links[usize::from(rpc.link)].sender.place(outgoing.place, None);
        let length = u64::from(outgoing.length());
        let role = rpc.role;
        self.kept -= length;
        if role == Role::Server {
            self.kept_responses -= length;
        }
        let mut room = false;
        if let Some(peer) = self.peers.get_mut(rpc.peer.index) {
            let (kept, refused) = peer.kept_and_refused(role);
            *kept -= length;
            if refused.is_some_and(|length| fits(*kept, length, self.config.max_peer_kept)) {
                *refused = None;
                room = true;
            }
        }
        // Of what was refused the shortest has room now.
        if self.refused_call.is_some_and(|length| self.lacks_room(Role::Client, length).is_none()) {
            self.refused_call = None;
            room = true;
        }
        if self.refused_response.is_some_and(|length| self.lacks_room(Role::Server, length).is_none()) {
            self.refused_response = None;
            room = true;
        }
        if room {
            self.events.push_back(Event::Room);
        }
    }

    /// Takes an RPC out of every table. Its place is free once its last event was taken.
    pub(super) fn unlink(&mut self, index: u32) -> Option<Rpc> {
        self.drop_outgoing(index);
        self.unmanage(index);
        self.count_incoming(index, 0);
        let rpc = self.rpcs.retire(index)?;
        if let Some(at) = rpc.timer {
            self.timers.remove(&(at, index));
        }
        self.held -= u64::from(rpc.held);
        if rpc.role == Role::Server {
            self.held_requests -= u64::from(rpc.held);
        }
        let most = self.remembered();
        if let Some(peer) = self.peers.get_mut(rpc.peer.index) {
            *peer.held(rpc.role) -= u64::from(rpc.held);
            if rpc.role == Role::Server && rpc.state != State::Incoming {
                // Taken long ago, it may have been forgotten while it was here.
                peer.taken.insert(rpc.client_id, most);
            }
            let table = if rpc.role == Role::Client { &mut peer.clients } else { &mut peer.servers };
            table.remove(&rpc.client_id);
        }
        self.clients -= usize::from(rpc.role == Role::Client);
        Some(rpc)
    }

    /// Ends an RPC at either side, undelivered.
    pub(super) fn end(&mut self, index: u32, reason: Reason) {
        match self.rpcs.get(index).map(|rpc| rpc.role) {
            Some(Role::Client) => self.fail(index, reason),
            Some(Role::Server) => self.end_server(index, false),
            None => {}
        }
    }

    /// Ends one of our requests, undelivered.
    pub(super) fn fail(&mut self, index: u32, reason: Reason) {
        let Some(rpc) = self.unlink_client(index) else { return };
        let (rpc, whole, begun) = rpc;
        // A server executes whole requests only. Whatever else was asked of it, it has not got this one.
        let unexecuted = !whole || matches!(reason, Reason::Refused(refusal) if refusal.is_unexecuted());
        let outcome = if unexecuted { Outcome::Dropped(reason) } else { Outcome::Unknown(reason) };
        let gone = matches!(reason, Reason::Refused(_) | Reason::Restarted | Reason::Forgotten);
        if begun && !gone {
            // An acknowledgement frees a server's RPC in any state, and it will not begin again.
            let ack = Ack { client_id: rpc.client_id, server_port: rpc.remote_port };
            self.push_ack(rpc.peer, rpc.local_port, ack, Acks::new());
        }
        self.events.push_back(Event::Done { rpc: rpc.name, cookie: rpc.cookie, outcome, length: 0 });
    }

    /// Takes out one of our requests; with it whether all of it was sent, and whether anything was.
    fn unlink_client(&mut self, index: u32) -> Option<(Rpc, bool, bool)> {
        // Once a response arrives the request is dropped: it was whole.
        let outgoing = self.rpcs.get(index)?.outgoing.as_ref();
        let (whole, begun) =
            outgoing.map_or((true, true), |outgoing| (outgoing.is_sent(), outgoing.sent > 0));
        Some((self.unlink(index)?, whole, begun))
    }

    /// Ends a peer's request; `acknowledged` if its client said that the response is there.
    pub(super) fn end_server(&mut self, index: u32, acknowledged: bool) {
        let whole = self.rpcs.get(index).and_then(|rpc| rpc.outgoing.as_ref()).is_some_and(Outgoing::is_sent);
        let Some(rpc) = self.unlink(index) else { return };
        let name = rpc.name;
        self.events.push_back(match rpc.state {
            State::Incoming => Event::Discarded { rpc: name },
            State::InService => Event::Cancelled { rpc: name },
            State::Outgoing => Event::Answered { rpc: name, acknowledged: acknowledged && whole },
        });
        if rpc.state != State::Outgoing {
            self.metrics.server_rpc_discards += 1;
        }
    }
}

/// Whether so much more may be kept: a message longer than all may be sent alone.
const fn fits(kept: u64, length: u64, limit: u64) -> bool {
    kept == 0 || kept + length <= limit
}

/// The longest message that a peer takes, or sends.
pub(super) fn longest(limit: u32, dialect: Dialect) -> u32 {
    match dialect {
        Dialect::Linux => limit.min(LINUX_MAX_MESSAGE),
        Dialect::Steadfast => limit,
    }
}
