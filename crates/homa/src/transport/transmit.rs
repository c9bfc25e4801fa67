//! What leaves: grants for what arrived, control packets, then runs of DATA.

use super::Transport;
use crate::id::{LinkId, PeerId, RpcId};
use crate::incoming::Incoming;
use crate::packet::{Body, DATA_HEADER, Data, Kind, Packet};
use bytes::{BufMut, Bytes};
use core::time::Duration;
use steadfast_wire::Instant;

/// The rate of a link that has none, where one is needed.
const ASSUMED_RATE: u64 = 10_000_000_000;
/// How many messages are looked at to find the oldest whose sender uses what it has.
const OLDEST: usize = 256;

/// Packets of one message to one peer, in order: all have a full segment of payload but the last.
#[derive(Debug, Clone)]
pub struct Run {
    /// Whom it is for.
    pub peer: PeerId,
    /// Of which request, or of the response to which.
    pub rpc: RpcId,
    /// The level of all its packets.
    pub priority: u8,
    /// The first packet; the others differ in their offset and acknowledge nothing.
    pub packet: Packet,
    /// The payload of all packets together.
    pub payload: Bytes,
    /// Payload bytes of each packet but the last.
    pub segment: u32,
}

impl Run {
    /// How many packets it is.
    pub fn packets(&self) -> usize {
        self.payload.len().div_ceil(self.segment as usize)
    }

    /// The header of one of them.
    pub fn header(&self, index: usize) -> Packet {
        let mut packet = self.packet;
        if let Body::Data(data) = &mut packet.body
            && index > 0
        {
            data.offset += index as u32 * self.segment;
            data.ack = None;
        }
        packet
    }

    /// The payload of one of them.
    pub fn payload(&self, index: usize) -> &[u8] {
        &self.payload[self.range(index)]
    }

    /// The payload of one of them, not copied.
    pub fn share_payload(&self, index: usize) -> Bytes {
        self.payload.slice(self.range(index))
    }

    fn range(&self, index: usize) -> core::ops::Range<usize> {
        let start = (index * self.segment as usize).min(self.payload.len());
        start..(start + self.segment as usize).min(self.payload.len())
    }
}

/// Something to send, in one go where the carrier can.
#[derive(Debug, Clone)]
pub enum Transmit {
    /// Packets of a message.
    Data(Run),
    /// One packet without payload.
    Control {
        /// Whom it is for.
        peer: PeerId,
        /// Its level.
        priority: u8,
        /// The packet.
        packet: Packet,
    },
}

impl Transmit {
    /// Whom it is for.
    pub const fn peer(&self) -> PeerId {
        match self {
            Self::Data(run) => run.peer,
            Self::Control { peer, .. } => *peer,
        }
    }

    /// The level of its packets.
    pub const fn priority(&self) -> u8 {
        match self {
            Self::Data(run) => run.priority,
            Self::Control { priority, .. } => *priority,
        }
    }

    /// How many packets it is.
    pub fn packets(&self) -> usize {
        match self {
            Self::Data(run) => run.packets(),
            Self::Control { .. } => 1,
        }
    }

    /// Writes one of its packets whole. Panics if `out` has no room: a segment and [`DATA_HEADER`] bytes are enough.
    pub fn write(&self, index: usize, out: &mut impl BufMut) {
        match self {
            Self::Data(run) => {
                run.header(index).encode(out);
                out.put_slice(run.payload(index));
            }
            Self::Control { packet, .. } => packet.encode(out),
        }
    }
}

impl Transport {
    /// What to send next over a link, a run of `budget` payload bytes at most, and no more than the link has room for (but one
    /// packet at least): none if there is nothing, or the link has enough for now.
    pub fn poll_transmit(&mut self, now: Instant, link: LinkId, budget: u32) -> Option<Transmit> {
        let index = link.0;
        self.links.get(usize::from(index))?;
        self.grant(now, index);
        let link = &mut self.links[usize::from(index)];
        while let Some((peer, packet)) = link.sender.control.pop_front() {
            let Some(known) = self.peers.index_of(peer.index, peer.generation) else { continue };
            let Some(known) = self.peers.get_mut(known) else { continue };
            known.control -= 1;
            let overhead = known.overhead;
            let bytes = packet.kind().header() as u64 + u64::from(overhead);
            let priority = self.config.priorities - 1;
            self.charge(now, index, bytes);
            self.metrics.count_sent(packet.kind(), priority, 1, packet.kind().header() as u64);
            return Some(Transmit::Control { peer, priority, packet });
        }
        let rpc = link.sender.next(now, &self.config);
        if rpc.is_none() && link.sender.len() > 0 {
            self.metrics.throttle_list_adds += 1;
        }
        self.send(now, rpc?, budget).map(Transmit::Data)
    }

    /// The next packets of a message.
    fn send(&mut self, now: Instant, index: u32, budget: u32) -> Option<Run> {
        let rpc = self.rpcs.get_mut(index)?;
        let peer = self.peers.get_mut(rpc.peer.index)?;
        let outgoing = rpc.outgoing.as_mut()?;
        // A message that is shorter than this one may come before the link has sent all of it.
        let room = self.links[usize::from(rpc.link)].sender.room(now, &self.config);
        let packets = room.div_ceil(u64::from(peer.segment) + DATA_HEADER as u64 + u64::from(peer.overhead));
        let room = u32::try_from(packets).unwrap_or(u32::MAX).saturating_mul(peer.segment);
        let piece = outgoing.next_piece(peer.segment, budget.min(room))?;
        let data = Data {
            length: outgoing.length(),
            incoming: if piece.retransmit {
                piece.range.end.max(outgoing.unscheduled)
            } else {
                outgoing.unscheduled
            },
            ack: peer.take_ack(),
            cutoff_version: peer.cutoff_version,
            retransmit: piece.retransmit,
            offset: piece.range.start,
        };
        let payload = outgoing.payload(piece.range);
        let waits = !outgoing.is_ready();
        // What is sent again is no new beginning, or a server that forgets all it gets would be asked for ever.
        if !piece.retransmit {
            rpc.quiet_since = now;
            rpc.need_acks = 0;
            rpc.progress.note(now, outgoing.sent, outgoing.length());
        }
        let run = Run {
            peer: rpc.peer,
            rpc: rpc.name,
            priority: piece.priority,
            packet: rpc.packet(Body::Data(data)),
            payload,
            segment: peer.segment,
        };
        let packets = run.packets() as u64;
        let headers = packets * DATA_HEADER as u64;
        let bytes = run.payload.len() as u64 + headers;
        let (link, overhead, role) = (rpc.link, packets * u64::from(peer.overhead), rpc.role);
        self.charge(now, link, bytes + overhead);
        self.metrics.count_sent(Kind::Data, run.priority, packets, bytes);
        if piece.retransmit {
            self.metrics.resent_packets += packets;
            self.metrics.resent_bytes += run.payload.len() as u64;
        }
        let asks = waits && role == crate::rpc::Role::Server;
        self.requeue(index);
        if asks {
            self.arm(index, now + self.config.request_ack_after);
        }
        Some(run)
    }

    /// How far ahead of what arrived one of `active` messages is granted.
    fn window(&self, active: usize) -> u32 {
        match self.config.window {
            0 => self.config.max_incoming / (active as u32 + 1),
            window => window,
        }
    }

    /// Grants what may be granted on a link.
    fn grant(&mut self, now: Instant, index: u16) {
        self.grant_oldest(now, index);
        let mut after = None;
        loop {
            let link = &self.links[usize::from(index)];
            let room = link.sender.control.len() < self.config.max_control;
            let Some(key) = link.grants.due(after).filter(|_| room) else { return };
            let window = self.window(link.grants.active());
            let Some(rpc) = self.rpcs.get(key.2) else { return };
            let Some(incoming) = &rpc.incoming else { return };
            let goal = incoming.got.saturating_add(window).min(incoming.length);
            let wanted = goal.saturating_sub(incoming.granted);
            let Some(peer) = self.peers.get(rpc.peer.index) else { return };
            // A peer with more on its way than counts for others has that against itself.
            let excess = peer.incoming.saturating_sub(self.peer_incoming());
            let headroom =
                u64::from(self.config.max_incoming).saturating_sub(self.incoming_of(index) + excess);
            if wanted == 0 {
                self.links[usize::from(index)].grants.served(key.2);
                continue;
            }
            // It stays due, and so does all that is behind it: a grant of a few bytes would cost a whole packet.
            let says = peer.control < self.control_share();
            if !says || headroom < u64::from(wanted.min(peer.segment)) {
                if says && excess == 0 {
                    return;
                }
                after = Some(key);
                continue;
            }
            let step = u64::from(wanted).min(headroom) as u32;
            if step == wanted {
                self.links[usize::from(index)].grants.served(key.2);
            }
            let priority = self.grant_priority(index, key);
            self.extend_grant(now, key.2, step, priority);
        }
    }

    /// The lowest levels that are enough, so that a newcomer with less left has one above.
    fn grant_priority(&self, index: u16, key: (u32, Instant, u32)) -> u8 {
        let grants = &self.links[usize::from(index)].grants;
        let rank = grants.rank(key) as u8;
        let scheduled = self.levels.scheduled;
        let unused = (scheduled + 1).saturating_sub(grants.active() as u8);
        scheduled.saturating_sub(rank).saturating_sub(unused)
    }

    fn extend_grant(&mut self, now: Instant, index: u32, step: u32, priority: u8) {
        self.look(now, index);
        let Some(rpc) = self.rpcs.get_mut(index) else { return };
        let Some(incoming) = &mut rpc.incoming else { return };
        if incoming.has_all_granted() {
            // It could not send anything until now.
            rpc.fresh = now;
            rpc.quiet_since = now;
            rpc.explained = Duration::ZERO;
        }
        incoming.grant(step, priority);
        rpc.busy_seen = self.links[usize::from(rpc.link)].busy(incoming.level);
        let whole = incoming.granted == incoming.length;
        let offset = incoming.granted;
        let (peer, packet) = (rpc.peer, rpc.packet(Body::Grant { offset, priority }));
        self.recount(index);
        if whole {
            self.unmanage(index);
        }
        self.push_control(peer, packet);
    }

    /// Each time that the link's share for the oldest message is one increment, it gets it, however much it has left.
    fn grant_oldest(&mut self, now: Instant, index: u16) {
        let link = &mut self.links[usize::from(index)];
        if link.grants.len() == 0 {
            link.next_fifo = None;
            return;
        }
        if link.next_fifo.is_some_and(|next| now < next)
            || link.sender.control.len() >= self.config.max_control
        {
            return;
        }
        let Some(interval) = self.fifo_interval(index) else { return };
        let link = &mut self.links[usize::from(index)];
        if link.next_fifo.replace(now + interval).is_none() {
            // The first message of all begins the first interval.
            return;
        }
        let grants = &self.links[usize::from(index)].grants;
        let increment = self.config.grant_fifo_increment;
        let most = u64::from(self.window(grants.active())) + 2 * u64::from(increment);
        let expected = |rpc: u32| {
            let rpc = self.rpcs.get(rpc)?;
            let says = self.peers.get(rpc.peer.index)?.control < self.control_share();
            rpc.incoming.as_ref().filter(|_| says).map(Incoming::expected)
        };
        // Some senders do not even use what they have.
        let some = grants.by_age().take(OLDEST).filter_map(|rpc| Some((rpc, expected(rpc)?)));
        let oldest = { some }.find(|(_, expected)| u64::from(*expected) < most);
        let Some((oldest, expected)) = oldest else { return };
        self.metrics.fifo_grants += 1;
        self.metrics.fifo_grants_no_incoming += u64::from(expected == 0);
        // Above what others are granted, and no higher: the bytes of a long message would hold up short ones that come unasked.
        let priority = self.levels.scheduled;
        self.extend_grant(now, oldest, increment, priority);
    }

    /// How often the oldest message gets its share.
    fn fifo_interval(&self, index: u16) -> Option<Duration> {
        let share = u128::from(self.config.grant_fifo_share);
        let rate = match self.links[usize::from(index)].sender.rate {
            0 => ASSUMED_RATE,
            rate => rate,
        };
        let bits = u128::from(self.config.grant_fifo_increment) * 8;
        let nanos = (bits * 1_000_000_000 * 1000).checked_div(u128::from(rate) * share)?;
        Some(Duration::from_nanos(nanos as u64))
    }

    /// How many messages arrive over a link that may not go on before one of those that are granted is done. While
    /// there are some and the link is idle, more [overcommitment](crate::Config::overcommit) would have used it.
    pub fn withheld(&self, link: LinkId) -> usize {
        let link = self.links.get(usize::from(link.0));
        link.map_or(0, |link| link.grants.len().saturating_sub(link.grants.active()))
    }

    /// When [`handle_timeout`](Self::handle_timeout) should be called again.
    pub fn poll_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// When [`poll_transmit`](Self::poll_transmit) should be called again for a link, once it had nothing more. A driver whose
    /// socket is full need not ask, but waits for that.
    pub fn poll_link(&self, link: LinkId) -> Option<Instant> {
        let link = self.links.get(usize::from(link.0))?;
        let control = (!link.sender.control.is_empty()).then_some(Instant(0));
        let waits = link.grants.len() > link.grants.active() || link.grants.due(None).is_some();
        let fifo = link.next_fifo.filter(|_| waits);
        [control, fifo, link.sender.wakes_at(&self.config)].into_iter().flatten().min()
    }

    /// When [`handle_timeout`](Self::handle_timeout) and [`poll_transmit`](Self::poll_transmit) should be called again,
    /// once everything was drained; none if only the application or a packet can change anything. A driver that could not
    /// drain a link asks [`poll_timer`](Self::poll_timer) and [`poll_link`](Self::poll_link) of the others.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let links = (0..self.links.len() as u16).filter_map(|link| self.poll_link(LinkId(link)));
        links.chain(self.poll_timer()).min()
    }
}
