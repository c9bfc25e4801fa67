//! What arrives: packets become state, never errors.

use super::Transport;
use super::calls::{Beginning, longest};
use crate::cutoffs::Levels;
use crate::event::{Event, Outcome, Placement, Reason};
use crate::id::PeerId;
use crate::incoming::{Added, Incoming};
use crate::outgoing::Question;
use crate::packet::{Ack, Acks, Body, DATA_HEADER, Data, DecodeError, Dialect, Packet, RESEND_ALL, Refusal};
use crate::rpc::{Progress, Role, Rpc, State};
use crate::taken::Taken;
use core::time::Duration;
use steadfast_wire::Instant;

/// A peer is told of cut-offs no more often than this.
const TELL_CUTOFFS: Duration = Duration::from_millis(1);
/// Questions for an acknowledgement that count as asked once a client said that it is busy: the next comes at sixteen
/// times the first interval.
const BUSY_NEED_ACKS: u32 = 4;

impl Transport {
    /// A packet arrived from a peer: the bytes after the IP or carrier header. If it brought bytes of a message, they
    /// must be copied from behind its first [`DATA_HEADER`] bytes to where the answer says, before the next event is taken.
    pub fn handle_packet(&mut self, now: Instant, peer: PeerId, bytes: &[u8]) -> Option<Placement> {
        match Packet::decode(self.dialect(peer), bytes) {
            Ok(packet) => {
                let payload = u32::try_from(bytes.len().saturating_sub(DATA_HEADER)).unwrap_or(u32::MAX);
                self.handle(now, peer, &packet, payload)
            }
            Err(error) => {
                match error {
                    DecodeError::Short { .. } => self.metrics.short_packets += 1,
                    DecodeError::UnknownType(_) => self.metrics.unknown_packet_types += 1,
                    DecodeError::Invalid(_) => self.metrics.malformed_packets += 1,
                }
                None
            }
        }
    }

    /// The same for a packet that was read already; `payload` is how many bytes follow the header of DATA.
    pub fn handle(&mut self, now: Instant, peer: PeerId, packet: &Packet, payload: u32) -> Option<Placement> {
        let lifetime = self.config.packet_lifetime;
        let known = self.peer_mut(peer)?;
        known.taken.turn(now, lifetime);
        known.heard = now;
        known.questions = 0;
        self.metrics.packets_rcvd[packet.kind().index()] += 1;
        let request = matches!(packet.body, Body::Data(_)) && packet.sender_id & 1 == 0;
        if !request && !self.ports.contains_key(&packet.destination) {
            // Several processes of a host may see its packets: to speak for another's RPC could end it.
            self.metrics.unknown_ports += 1;
            return None;
        }
        let index = self.find(peer, packet.sender_id);
        match packet.body {
            Body::Data(data) => return self.handle_data(now, peer, packet, data, payload),
            Body::Grant { offset, priority } => self.handle_grant(now, index, offset, priority),
            Body::Resend { offset, length, priority } => {
                self.handle_resend(now, peer, packet, index, (offset, length, priority));
            }
            Body::Unknown => self.handle_unknown(now, index),
            Body::Busy => self.handle_busy(now, index),
            Body::Cutoffs { cutoffs, version } => {
                if let Some(known) = self.peers.get_mut(peer.index) {
                    known.cutoffs = cutoffs;
                    known.cutoff_version = version;
                }
            }
            Body::Freeze => self.metrics.ignored_freezes += 1,
            Body::NeedAck => self.handle_need_ack(now, peer, packet, index),
            Body::Ack(acks) => {
                if packet.sender_id & 1 == 0 {
                    self.handle_ack(
                        peer,
                        Ack { client_id: packet.sender_id, server_port: packet.destination },
                    );
                    for ack in acks.as_slice() {
                        self.handle_ack(peer, *ack);
                    }
                }
            }
            Body::Refused(refusal) if packet.sender_id & 1 == 1 => self.handle_refused(now, index, refusal),
            Body::Refused(_) => {}
        }
        None
    }

    /// The RPC that a peer names: even is its request to us, odd its answer to ours.
    fn find(&self, peer: PeerId, sender_id: u64) -> Option<u32> {
        let peer = self.peers.get(peer.index)?;
        let index = if sender_id & 1 == 1 {
            peer.clients.get(&(sender_id ^ 1))
        } else {
            peer.servers.get(&sender_id)
        };
        index.copied()
    }

    /// Answers a packet for which there is no RPC here.
    fn reply(&mut self, peer: PeerId, to: &Packet, body: Body) {
        let packet =
            Packet { source: to.destination, destination: to.source, sender_id: to.sender_id ^ 1, body };
        self.push_control(peer, packet);
    }

    fn handle_grant(&mut self, now: Instant, index: Option<u32>, offset: u32, priority: u8) {
        // Grants come out of order, also after the end; that is no fault.
        let Some(index) = index else { return };
        let top = self.top();
        if let Some(rpc) = self.rpcs.get_mut(index)
            && let Some(outgoing) = &mut rpc.outgoing
        {
            let before = outgoing.granted;
            outgoing.grant(offset, priority.min(top));
            if rpc.role == Role::Client || outgoing.granted > before {
                rpc.quiet_since = now;
            }
            rpc.confirmed = true;
            self.requeue(index);
        }
    }

    fn handle_resend(
        &mut self,
        now: Instant,
        peer: PeerId,
        packet: &Packet,
        index: Option<u32>,
        (offset, length, priority): (u32, u32, u8),
    ) {
        let Some(index) = index else {
            self.metrics.unknown_rpcs += 1;
            let answer = self.answer_to_unknown(peer, packet.sender_id);
            self.reply(peer, packet, answer);
            return;
        };
        let priority = priority.min(self.top());
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        match (&rpc.outgoing, rpc.role) {
            (Some(_), Role::Client) => rpc.confirmed = true,
            (Some(_), Role::Server) => {
                // The client is there: it is asked for an acknowledgement from the beginning.
                rpc.quiet_since = now;
                rpc.need_acks = 0;
            }
            (None, Role::Server) => {}
            // A late question for a request that has its answer on the way.
            (None, Role::Client) => return,
        }
        let repeats = self.repeat(now, index, (offset, length, priority));
        // Where others go first it may take long, here or in the network, and who hears nothing gives up.
        let waits = !repeats || priority < self.top() || self.waits_in_line(now, index);
        if let Some(rpc) = self.rpcs.get(index).filter(|_| waits) {
            let busy = rpc.packet(Body::Busy);
            self.push_control(peer, busy);
        }
    }

    /// Whether other messages leave before this one's next packet.
    fn waits_in_line(&self, now: Instant, index: u32) -> bool {
        let Some(rpc) = self.rpcs.get(index) else { return false };
        let place = rpc.outgoing.as_ref().and_then(|outgoing| outgoing.place);
        place.is_some_and(|place| !self.links[usize::from(rpc.link)].sender.is_next(now, place, &self.config))
    }

    /// Sends again what a peer misses; false if nothing of it was sent. Bytes are repeated no more often than an honest peer
    /// asks, which may come a little early, and no more than may be on their way to it.
    fn repeat(&mut self, now: Instant, index: u32, (offset, length, priority): (u32, u32, u8)) -> bool {
        let interval = self.config.resend_interval / 2;
        let Some(rpc) = self.rpcs.get_mut(index) else { return false };
        let Some(outgoing) = &mut rpc.outgoing else { return false };
        let Some(peer) = self.peers.get_mut(rpc.peer.index) else { return false };
        // Who has nothing of a message does not know what it is to come before.
        let most = if length == RESEND_ALL { outgoing.unscheduled_priority } else { priority };
        let question = Question { offset, length, priority: priority.min(most), segment: peer.segment };
        let most = peer.may_repeat(now, interval, u64::from(self.config.max_incoming));
        let again = outgoing.resend(now, question, interval, most);
        peer.count_repeated(again.unwrap_or(0));
        self.requeue(index);
        again.is_some()
    }

    /// What to say of an RPC that is not here.
    fn answer_to_unknown(&self, peer: PeerId, sender_id: u64) -> Body {
        let Some(known) = self.peers.get(peer.index) else { return Body::Unknown };
        if known.dialect == Dialect::Linux || sender_id & 1 == 1 {
            return Body::Unknown;
        }
        if known.taken.contains(sender_id) {
            Body::Refused(Refusal::Gone)
        } else if self.has_room_for_any(peer) {
            Body::Unknown
        } else {
            // It would be sent again for nothing; and its client need not give up on a server that lives. BUSY would say that
            // the request is here.
            Body::Refused(Refusal::NoRoom)
        }
    }

    fn handle_unknown(&mut self, now: Instant, index: Option<u32>) {
        let Some(rpc) = index.and_then(|index| self.rpcs.get_mut(index)) else { return };
        let index = rpc.name.index;
        let Some(peer) = self.peers.get(rpc.peer.index) else { return };
        match rpc.role {
            Role::Server => {
                self.metrics.server_rpcs_unknown += 1;
                self.end_server(index, false);
            }
            // It had it, and has forgotten it or is another process: to ask again might execute it again. In our own
            // dialect a server that had it says that it is gone, unless it forgot this peer.
            Role::Client if rpc.confirmed && (peer.dialect == Dialect::Linux || rpc.is_sent()) => {
                if rpc.state == State::Outgoing {
                    self.fail(index, Reason::Forgotten);
                }
            }
            Role::Client => _ = self.repeat(now, index, (0, RESEND_ALL, self.top())),
        }
    }

    fn handle_busy(&mut self, now: Instant, index: Option<u32>) {
        let Some(rpc) = index.and_then(|index| self.rpcs.get_mut(index)) else { return };
        match (rpc.role, rpc.state) {
            (Role::Client, _) | (Role::Server, State::Incoming) => {
                rpc.quiet_since = now;
                rpc.confirmed = true;
            }
            // Its client grants others first.
            (Role::Server, State::Outgoing) if rpc.waits_for_grants() => {
                rpc.quiet_since = now;
                rpc.need_acks = rpc.need_acks.min(BUSY_NEED_ACKS);
            }
            // A client that is busy with a response that it has to fetch could keep it here for ever.
            (Role::Server, _) => {}
        }
    }

    fn handle_refused(&mut self, now: Instant, index: Option<u32>, refusal: Refusal) {
        let Some(index) = index else { return };
        match refusal {
            // It lives, but has not got the request: that is not confirmed.
            Refusal::NoRoom => {
                if let Some(rpc) = self.rpcs.get_mut(index) {
                    rpc.quiet_since = now;
                }
            }
            refusal => self.fail(index, Reason::Refused(refusal)),
        }
    }

    fn handle_need_ack(&mut self, now: Instant, peer: PeerId, packet: &Packet, index: Option<u32>) {
        if packet.sender_id & 1 == 0 {
            return;
        }
        match index {
            // Whatever it was, nobody here waits for it.
            None => self.reply(peer, packet, Body::Ack(Acks::new())),
            Some(index) => {
                self.metrics.ignored_need_acks += 1;
                let Some(rpc) = self.rpcs.get(index) else { return };
                let interval = self.question_interval(rpc.link, rpc.asks);
                if rpc.incoming.is_some() && rpc.is_our_turn() {
                    // Others are granted first. A server that hears nothing would give up.
                    let busy = rpc.packet(Body::Busy);
                    self.push_control(peer, busy);
                } else if rpc.asked.is_none_or(|asked| now >= asked + interval) {
                    // The module asks every millisecond: what was asked for needs time to come.
                    self.ask_for_missing(now, index);
                }
            }
        }
    }

    /// A client has its response, or wants none.
    fn handle_ack(&mut self, peer: PeerId, ack: Ack) {
        let most = self.remembered();
        let Some(known) = self.peers.get_mut(peer.index) else { return };
        if ack.client_id & 1 == 1 || ack.client_id == 0 {
            return;
        }
        // Also if it is not here: a cancelled request may be on its way.
        known.taken.insert(ack.client_id, most);
        let Some(index) = known.servers.get(&ack.client_id).copied() else { return };
        if self.rpcs.get(index).is_some_and(|rpc| rpc.local_port == ack.server_port) {
            self.end_server(index, true);
        }
    }

    /// How many ranges of ids are remembered of each peer.
    pub(super) fn remembered(&self) -> usize {
        Taken::share(self.config.max_remembered, self.peers.len())
    }

    fn handle_data(
        &mut self,
        now: Instant,
        peer: PeerId,
        packet: &Packet,
        data: Data,
        payload: u32,
    ) -> Option<Placement> {
        let end = u64::from(data.offset) + u64::from(payload);
        if payload == 0 || end > u64::from(data.length) || packet.sender_id == 0 {
            self.metrics.malformed_packets += 1;
            return None;
        }
        let placement = match packet.sender_id & 1 {
            1 => self.handle_response(now, peer, packet, data, payload),
            _ => self.handle_request(now, peer, packet, data, payload),
        };
        if let Some(ack) = data.ack {
            self.handle_ack(peer, ack);
        }
        if data.cutoff_version != self.cutoff_version && self.ports.contains_key(&packet.destination) {
            self.tell_cutoffs(now, peer, packet);
        }
        placement
    }

    fn tell_cutoffs(&mut self, now: Instant, peer: PeerId, packet: &Packet) {
        let Some(known) = self.peers.get_mut(peer.index) else { return };
        if known.told_cutoffs.is_none_or(|at| now >= at + TELL_CUTOFFS) {
            known.told_cutoffs = Some(now);
            let body = Body::Cutoffs { cutoffs: self.levels.cutoffs, version: self.cutoff_version };
            self.reply(peer, packet, body);
        }
    }

    fn handle_response(
        &mut self,
        now: Instant,
        peer: PeerId,
        packet: &Packet,
        data: Data,
        payload: u32,
    ) -> Option<Placement> {
        let Some(index) = self.find(peer, packet.sender_id) else {
            // Late; the server will ask whether we have it.
            self.metrics.unknown_rpcs += 1;
            return None;
        };
        let rpc = self.rpcs.get(index)?;
        if rpc.incoming.is_some() {
            return self.add(now, index, data, payload);
        }
        if rpc.outgoing.as_ref().is_some_and(|outgoing| !outgoing.is_sent()) {
            // An answer to half a question; its outcome is to stay true.
            self.metrics.malformed_packets += 1;
            return None;
        }
        let limit = longest(self.config.max_message, self.dialect(peer));
        let rpc = self.rpcs.get(index)?;
        if data.length > rpc.max_response.min(limit) {
            self.fail(index, Reason::TooLong);
            return None;
        }
        let from_peer = self.peers.get(peer.index).map_or(0, |peer| peer.held_responses);
        if self.held + u64::from(data.length) > self.config.max_held
            || from_peer + u64::from(data.length) > self.config.max_peer_held
        {
            self.metrics.dropped_data_no_bufs += u64::from(payload);
            // The server has answered; it is for us to make room.
            if let Some(rpc) = self.rpcs.get_mut(index) {
                rpc.quiet_since = now;
            }
            return None;
        }
        self.drop_outgoing(index);
        if let Some(rpc) = self.rpcs.get_mut(index) {
            rpc.state = State::Incoming;
        }
        self.begin_message(now, index, data);
        self.add(now, index, data, payload)
    }

    fn handle_request(
        &mut self,
        now: Instant,
        peer: PeerId,
        packet: &Packet,
        data: Data,
        payload: u32,
    ) -> Option<Placement> {
        let client_id = packet.sender_id;
        if let Some(index) = self.find(peer, client_id) {
            if self.rpcs.get(index).is_some_and(Rpc::is_postponed) {
                if data.length > self.config.max_message || !self.may_hold_of(peer, data.length, payload) {
                    return None;
                }
                self.begin_message(now, index, data);
            }
            return self.add(now, index, data, payload);
        }
        let most = self.remembered();
        let known = self.peers.get_mut(peer.index)?;
        if known.taken.contains(client_id) {
            self.metrics.late_duplicates += 1;
            self.metrics.discarded_bytes += u64::from(payload);
            return None;
        }
        let refusal = if self.ports.get(&packet.destination) != Some(&true) {
            Some(Refusal::NoSuchPort)
        } else if data.length > self.config.max_message {
            Some(Refusal::TooLong)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.metrics.server_cant_create_rpcs += 1;
            if known.dialect == Dialect::Steadfast {
                // It is told that it will not be executed, so it must not, even if the port opens now.
                known.taken.insert(client_id, most);
                self.reply(peer, packet, Body::Refused(refusal));
            }
            return None;
        }
        if !self.may_begin(peer) {
            self.metrics.server_cant_create_rpcs += 1;
            return None;
        }
        if !self.may_hold_of(peer, data.length, payload) {
            return None;
        }
        let (local_port, remote_port) = (packet.destination, packet.source);
        let name =
            self.begin(now, Beginning { client_id, peer, role: Role::Server, local_port, remote_port });
        self.begin_message(now, name.index, data);
        self.arm(name.index, now + self.config.resend_after);
        self.add(now, name.index, data, payload)
    }

    /// Whether a peer may have one more request here.
    fn may_begin(&self, peer: PeerId) -> bool {
        let Some(known) = self.peers.get(peer.index) else { return false };
        let servers = self.rpcs.len() - self.clients;
        servers < self.config.max_server_rpcs && known.servers.len() < self.config.max_peer_rpcs
    }

    /// Whether there is room for any request of a peer, however long.
    fn has_room_for_any(&self, peer: PeerId) -> bool {
        let longest = u64::from(self.config.max_message);
        let peer_held = self.peers.get(peer.index).map_or(0, |peer| peer.held);
        self.may_begin(peer)
            && self.may_hold_request(self.config.max_message)
            && peer_held + longest <= self.config.max_peer_held
    }

    /// Whether there is room for a request of a peer that begins.
    fn may_hold_of(&mut self, peer: PeerId, length: u32, payload: u32) -> bool {
        let held = self.peers.get(peer.index).map_or(0, |peer| peer.held) + u64::from(length);
        let room = held <= self.config.max_peer_held && self.may_hold_request(length);
        if !room {
            self.metrics.dropped_data_no_bufs += u64::from(payload);
        }
        room
    }

    /// Whether there is room for a request that begins. Those of peers leave a part to responses that we wait for.
    fn may_hold_request(&self, length: u32) -> bool {
        let (length, all) = (u64::from(length), self.config.max_held);
        let ours = (all / 4).min(all - u64::from(self.config.max_message));
        self.held + length <= all && self.held_requests + length <= all - ours
    }

    /// The first packet of a message is here.
    fn begin_message(&mut self, now: Instant, index: u32, data: Data) {
        self.metrics.count_message(data.length);
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        let level = Levels::level_of(&self.levels.cutoffs, data.length);
        rpc.incoming = Some(Incoming::new(data.length, data.incoming, level));
        rpc.held = data.length;
        rpc.asked = None;
        rpc.asks = 0;
        rpc.progress = Progress::new(now, 0);
        self.held += u64::from(data.length);
        if rpc.role == Role::Server {
            self.held_requests += u64::from(data.length);
        }
        if let Some(peer) = self.peers.get_mut(rpc.peer.index) {
            *peer.held(rpc.role) += u64::from(data.length);
        }
    }

    /// A whole message is in the sample that cut-offs follow: what its sender only claims is not.
    fn sample(&mut self, now: Instant, peer: PeerId, length: u32, unscheduled: u32) {
        if !self.config.adapt_cutoffs {
            return;
        }
        // One peer does not decide for all, unless it is the only one.
        let most = if self.peers.len() > 1 { self.config.cutoff_messages / 4 } else { u64::MAX };
        let sample = self.traffic.sample();
        if self.peers.get_mut(peer.index).is_some_and(|peer| peer.is_sampled(sample, most.max(1))) {
            self.traffic.count(length, unscheduled.min(self.config.unscheduled));
        } else {
            self.traffic.count_beyond();
        }
        if let Some(levels) = self.traffic.levels(now, &self.config)
            && levels != self.levels
        {
            self.levels = levels;
            self.cutoff_version = self.cutoff_version.wrapping_add(1).max(1);
            self.metrics.cutoff_changes += 1;
        }
    }

    /// Bytes of a message that has begun.
    fn add(&mut self, now: Instant, index: u32, data: Data, payload: u32) -> Option<Placement> {
        self.count_busy(index, data, payload);
        let rpc = self.rpcs.get_mut(index)?;
        rpc.quiet_since = now;
        rpc.confirmed = true;
        let key = rpc.grant_key();
        let Some(incoming) = rpc.incoming.as_mut().filter(|_| rpc.state == State::Incoming) else {
            self.discard(data.retransmit, payload);
            return None;
        };
        if incoming.length != data.length {
            self.metrics.malformed_packets += 1;
            return None;
        }
        let first = incoming.got == 0;
        match incoming.add(data.offset, payload, self.config.max_gaps) {
            Added::New => self.metrics.resent_packets_used += u64::from(data.retransmit),
            Added::Duplicate => {
                self.discard(data.retransmit, payload);
                return None;
            }
            Added::TooManyGaps => {
                self.metrics.refused_gaps += 1;
                return None;
            }
        }
        incoming.stalled = false;
        rpc.fresh = now;
        rpc.explained = Duration::ZERO;
        rpc.busy_seen = self.links[usize::from(rpc.link)].busy(incoming.level);
        rpc.asks = 0;
        let response = rpc.role == Role::Client;
        let placement = Placement {
            rpc: rpc.name,
            peer: rpc.peer,
            port: rpc.local_port,
            cookie: rpc.cookie,
            response,
            first,
            length: data.length,
            offset: data.offset,
        };
        if incoming.is_complete() {
            self.complete(now, index, key);
        } else {
            self.recount(index);
            self.manage(index, key);
        }
        Some(placement)
    }

    /// The link carried bytes of a message: whoever has a lower level had to wait meanwhile.
    fn count_busy(&mut self, index: u32, data: Data, payload: u32) {
        let Some(rpc) = self.rpcs.get(index) else { return };
        let overhead = self.peers.get(rpc.peer.index).map_or(0, |peer| peer.overhead);
        let level = match &rpc.incoming {
            Some(incoming) if data.retransmit => {
                Levels::level_of(&self.levels.cutoffs, incoming.unreceived())
            }
            Some(incoming) if data.offset >= incoming.claimed => incoming.granted_level,
            _ => Levels::level_of(&self.levels.cutoffs, data.length),
        };
        let bytes = u64::from(payload) + DATA_HEADER as u64 + u64::from(overhead);
        let wire = self.links[usize::from(rpc.link)].wire;
        for link in self.links.iter_mut().filter(|link| link.wire == wire) {
            link.count_busy(level, bytes);
        }
    }

    fn discard(&mut self, retransmit: bool, payload: u32) {
        self.metrics.discarded_bytes += u64::from(payload);
        if retransmit {
            self.metrics.resent_discards += 1;
        } else {
            self.metrics.packet_discards += 1;
        }
    }

    /// Brings up to date what is on its way to the link.
    pub(super) fn recount(&mut self, index: u32) {
        let Some(incoming) = self.rpcs.get(index).and_then(|rpc| rpc.incoming.as_ref()) else { return };
        let counted = incoming.counts(self.config.unscheduled);
        self.count_incoming(index, counted);
    }

    /// A message adds so much to what is on its way. All of one peer add no more than half of what may be, or its word could
    /// keep others from being granted.
    pub(super) fn count_incoming(&mut self, index: u32, counted: u32) {
        let most = self.peer_incoming();
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        let Some(incoming) = &mut rpc.incoming else { return };
        let Some(peer) = self.peers.get_mut(rpc.peer.index) else { return };
        let link = &mut self.links[usize::from(rpc.link)];
        let before = peer.incoming.min(most);
        peer.incoming = peer.incoming - u64::from(incoming.counted) + u64::from(counted);
        link.incoming = link.incoming - before + peer.incoming.min(most);
        incoming.counted = counted;
    }

    /// What the messages of one peer count at most, to others.
    pub(super) fn peer_incoming(&self) -> u64 {
        u64::from(self.config.max_incoming) / 2
    }

    /// Tells the grants of a message that has changed; `old` is its place before.
    fn manage(&mut self, index: u32, old: Option<(u32, Instant, u32)>) {
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        let (Some(old), Some(new)) = (old, rpc.grant_key()) else { return };
        let Some(incoming) = &mut rpc.incoming else { return };
        let grants = &mut self.links[usize::from(rpc.link)].grants;
        let needs_more = incoming.granted < incoming.length;
        match (incoming.managed, needs_more) {
            (true, true) => {
                self.metrics.grant_priority_bumps += u64::from(grants.update(rpc.peer.index, old, new));
            }
            (true, false) => grants.remove(rpc.peer.index, old),
            (false, true) => grants.insert(rpc.peer.index, new),
            (false, false) => {}
        }
        incoming.managed = needs_more;
    }

    /// Tells the grants of a message that they do not know, if it waits for them.
    pub(super) fn manage_anew(&mut self, index: u32) {
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        let Some(key) = rpc.grant_key() else { return };
        let Some(incoming) = &mut rpc.incoming else { return };
        if incoming.granted < incoming.length && !incoming.stalled && !incoming.managed {
            incoming.managed = true;
            self.links[usize::from(rpc.link)].grants.insert(rpc.peer.index, key);
        }
    }

    /// The grants need not know of a message any more, whose place has not changed since they were told.
    pub(super) fn unmanage(&mut self, index: u32) {
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        let Some(key) = rpc.grant_key() else { return };
        let Some(incoming) = &mut rpc.incoming else { return };
        if core::mem::take(&mut incoming.managed) {
            self.links[usize::from(rpc.link)].grants.remove(rpc.peer.index, key);
        }
    }

    /// The last bytes of a message are here; `old` is its place before they were.
    fn complete(&mut self, now: Instant, index: u32, old: Option<(u32, Instant, u32)>) {
        self.recount(index);
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        let (name, peer, client_id) = (rpc.name, rpc.peer, rpc.client_id);
        let (local_port, remote_port) = (rpc.local_port, rpc.remote_port);
        if let Some(incoming) = &mut rpc.incoming
            && core::mem::take(&mut incoming.managed)
            && let Some(old) = old
        {
            self.links[usize::from(rpc.link)].grants.remove(peer.index, old);
        }
        let message = rpc.incoming.as_ref();
        let (length, claimed) = message.map_or((0, 0), |incoming| (incoming.length, incoming.claimed));
        let role = rpc.role;
        self.sample(now, peer, length, claimed);
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        if role == Role::Client {
            let cookie = rpc.cookie;
            self.metrics.responses_received += 1;
            self.unlink(index);
            self.queue_ack(peer, local_port, Ack { client_id, server_port: remote_port });
            let outcome = Outcome::Delivered;
            self.events.push_back(Event::Done { rpc: name, cookie, outcome, length });
        } else {
            rpc.state = State::InService;
            rpc.incoming = None;
            let most = self.remembered();
            if let Some(peer) = self.peers.get_mut(peer.index) {
                peer.taken.insert(client_id, most);
            }
            self.metrics.requests_received += 1;
            self.events.push_back(Event::Request { rpc: name, peer, port: local_port, length });
        }
    }
}
