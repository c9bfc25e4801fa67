//! One request and its response, at either side.

use crate::id::{PeerId, RpcId};
use crate::incoming::Incoming;
use crate::outgoing::Outgoing;
use crate::packet::{Body, Packet};
use core::time::Duration;
use steadfast_wire::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// A client goes from `Outgoing` to `Incoming`, a server through all three in the other order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Our message is sent, or waits to be.
    Outgoing,
    /// The peer's message arrives.
    Incoming,
    /// The application has the request.
    InService,
}

/// One in so many parts of the time in which a link was busy counts as silence of who waits for it.
pub(crate) const AT_LEAST: u32 = 8;
/// Parts of a message that count as getting on.
const PARTS: u32 = 64;

/// Since when a message has not got on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) since: Instant,
    bytes: u32,
}

impl Progress {
    pub(crate) const fn new(now: Instant, bytes: u32) -> Self {
        Self { since: now, bytes }
    }

    /// `bytes` of `length` have come, or gone. A few are not enough, or a message could be dragged on for ever.
    pub(crate) fn note(&mut self, now: Instant, bytes: u32, length: u32) {
        let enough = self.bytes.saturating_add((length / PARTS).max(1)).min(length);
        if bytes > self.bytes && bytes >= enough {
            *self = Self::new(now, bytes);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Rpc {
    pub(crate) name: RpcId,
    /// As the client names it; even.
    pub(crate) client_id: u64,
    pub(crate) peer: PeerId,
    pub(crate) link: u16,
    pub(crate) role: Role,
    pub(crate) state: State,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) birth: Instant,
    /// Since when we wait for the peer and hear nothing: what we send ourselves begins the wait anew.
    pub(crate) quiet_since: Instant,
    /// Of the message that arrives, or of a response that is sent.
    pub(crate) progress: Progress,
    /// When bytes came that were not here, or the peer was allowed to send some.
    pub(crate) fresh: Instant,
    /// How long its link had been busy when that was looked at last, with what comes before its missing bytes.
    pub(crate) busy_seen: u64,
    /// For how long it has been since then: that is not its sender's silence.
    pub(crate) explained: Duration,
    /// When we asked last for what is missing.
    pub(crate) asked: Option<Instant>,
    /// How often, since something new came.
    pub(crate) asks: u32,
    /// Questions for an acknowledgement.
    pub(crate) need_acks: u32,
    /// Its entry among the timers.
    pub(crate) timer: Option<Instant>,
    pub(crate) cookie: u64,
    pub(crate) deadline: Option<Instant>,
    pub(crate) max_response: u32,
    /// The server said something that shows that it had this RPC.
    pub(crate) confirmed: bool,
    pub(crate) outgoing: Option<Outgoing>,
    pub(crate) incoming: Option<Incoming>,
    /// Bytes that it adds to what is held.
    pub(crate) held: u32,
}

impl Rpc {
    /// The id that our packets carry.
    pub(crate) const fn sender_id(&self) -> u64 {
        match self.role {
            Role::Client => self.client_id,
            Role::Server => self.client_id | 1,
        }
    }

    pub(crate) const fn packet(&self, body: Body) -> Packet {
        Packet { source: self.local_port, destination: self.remote_port, sender_id: self.sender_id(), body }
    }

    /// What was sent of our message has all left, and it is not the network's turn.
    pub(crate) fn is_sending(&self) -> bool {
        self.outgoing.as_ref().is_some_and(Outgoing::is_ready)
    }

    /// Whether it is our doing that the peer says nothing: it has all that it may answer, or sent all that it may.
    pub(crate) fn is_our_turn(&self) -> bool {
        match &self.incoming {
            Some(incoming) => incoming.has_all_granted(),
            None => self.is_sending(),
        }
    }

    /// For how long its link was idle since bytes came that were not here.
    pub(crate) fn idle(&self, now: Instant) -> Duration {
        now.since(self.fresh).saturating_sub(self.explained / AT_LEAST)
    }

    /// Whether every byte of our message was sent, or it was dropped because its answer is here.
    pub(crate) fn is_sent(&self) -> bool {
        self.outgoing.as_ref().is_none_or(Outgoing::is_sent)
    }

    /// Whether its driver had no room for the peer's message.
    pub(crate) fn is_postponed(&self) -> bool {
        self.state == State::Incoming && self.incoming.is_none()
    }

    /// Whether the rest of our message may not be sent yet.
    pub(crate) fn waits_for_grants(&self) -> bool {
        self.outgoing.as_ref().is_some_and(|outgoing| outgoing.granted < outgoing.length())
    }

    /// Its place in the order in which messages are granted.
    pub(crate) fn grant_key(&self) -> Option<(u32, Instant, u32)> {
        let incoming = self.incoming.as_ref()?;
        Some((incoming.unreceived(), self.birth, self.name.index))
    }
}
