//! What is known of another host.

use crate::cutoffs::Levels;
use crate::packet::{Ack, Acks, Dialect, PRIORITIES};
use crate::rpc::Role;
use crate::taken::Taken;
use alloc::collections::BTreeMap;
use core::time::Duration;
use steadfast_wire::Instant;

/// Questions for missing bytes in one interval, besides those that our own requests need.
const QUESTIONS: usize = 64;

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) link: u16,
    pub(crate) dialect: Dialect,
    pub(crate) segment: u32,
    pub(crate) overhead: u32,
    /// Our requests to it, by the client's id.
    pub(crate) clients: BTreeMap<u64, u32>,
    /// Its requests to us, by the client's id.
    pub(crate) servers: BTreeMap<u64, u32>,
    /// Of the next request to it. Counted for each peer, so that what it remembers of us is short.
    next_id: u64,
    first_id: u64,
    pub(crate) taken: Taken,
    /// Bytes of its requests that are held.
    pub(crate) held: u64,
    /// Bytes of its responses that arrive.
    pub(crate) held_responses: u64,
    /// Bytes of responses to it that are kept.
    pub(crate) kept: u64,
    /// Bytes of requests to it that are kept.
    pub(crate) kept_calls: u64,
    /// Bytes of its messages that may be on their way.
    pub(crate) incoming: u64,
    /// The shortest response, and the shortest request, that was refused because of these.
    pub(crate) refused: Option<u64>,
    pub(crate) refused_call: Option<u64>,
    /// Responses from it that are here and that it has not been told of.
    pub(crate) acks: Acks,
    /// How it divides levels, and which state of that we know.
    pub(crate) cutoffs: [u32; PRIORITIES],
    pub(crate) cutoff_version: u16,
    /// How many of its messages are in which sample of the traffic.
    sampled: (u32, u64),
    /// When we told it of ours.
    pub(crate) told_cutoffs: Option<Instant>,
    /// Packets other than DATA that wait to be sent to it.
    pub(crate) control: usize,
    /// What was asked of it since when, to be bounded.
    asked: usize,
    asked_since: Instant,
    /// Bytes that were sent to it again since when, to be bounded.
    repeated: u64,
    repeated_since: Instant,
    /// Questions that it left unanswered in a row.
    pub(crate) questions: u32,
    /// When it was asked for missing bytes last, after it had been silent.
    pub(crate) missed: Option<Instant>,
    /// When a packet came from it, or it was added.
    pub(crate) heard: Instant,
}

impl Peer {
    /// `first_id` is random: ids of a process that ended must not come again.
    pub(crate) fn new(
        now: Instant,
        config: &crate::config::PeerConfig,
        first_id: u64,
        priorities: u8,
    ) -> Self {
        // A quarter of all numbers, so that counting never comes to their end.
        let first_id = ((first_id >> 2) & !1).max(2);
        Self {
            link: config.link.0,
            dialect: config.dialect,
            segment: config.segment.max(1),
            overhead: config.overhead,
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            next_id: first_id,
            first_id,
            taken: Taken::new(now, config.dialect == Dialect::Linux),
            held: 0,
            held_responses: 0,
            kept: 0,
            kept_calls: 0,
            incoming: 0,
            refused: None,
            refused_call: None,
            acks: Acks::new(),
            cutoffs: Levels::unheard(priorities).cutoffs,
            cutoff_version: 0,
            sampled: (0, 0),
            told_cutoffs: None,
            control: 0,
            asked: 0,
            asked_since: now,
            repeated: 0,
            repeated_since: now,
            questions: 0,
            missed: None,
            heard: now,
        }
    }

    /// Bytes that are held of its requests, or of its responses to us.
    pub(crate) const fn held(&mut self, role: Role) -> &mut u64 {
        match role {
            Role::Client => &mut self.held_responses,
            Role::Server => &mut self.held,
        }
    }

    /// Bytes that are kept of requests to it, or of responses, and the shortest that was refused.
    pub(crate) const fn kept_and_refused(&mut self, role: Role) -> (&mut u64, &mut Option<u64>) {
        match role {
            Role::Client => (&mut self.kept_calls, &mut self.refused_call),
            Role::Server => (&mut self.kept, &mut self.refused),
        }
    }

    pub(crate) fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 2;
        id
    }

    /// How many questions for missing bytes it may be asked now. Its own requests make it no more: a packet of a peer
    /// would be answered by many.
    pub(crate) fn may_ask(&mut self, now: Instant, interval: Duration) -> usize {
        if now >= self.asked_since + interval {
            self.asked_since = now;
            self.asked = 0;
        }
        (QUESTIONS + self.clients.len() / 2).saturating_sub(self.asked)
    }

    pub(crate) fn count_asked(&mut self, questions: usize) {
        self.asked += questions;
    }

    /// How many bytes may be sent to it again now, of `most` in an interval.
    pub(crate) fn may_repeat(&mut self, now: Instant, interval: Duration, most: u64) -> u64 {
        if now >= self.repeated_since + interval {
            self.repeated_since = now;
            self.repeated = 0;
        }
        most.saturating_sub(self.repeated)
    }

    pub(crate) const fn count_repeated(&mut self, bytes: u64) {
        self.repeated += bytes;
    }

    /// Whether one more message of it may be in the sample, where one peer has no more than `most`.
    pub(crate) const fn is_sampled(&mut self, sample: u32, most: u64) -> bool {
        if self.sampled.0 != sample {
            self.sampled = (sample, 0);
        }
        let sampled = self.sampled.1 < most;
        self.sampled.1 += sampled as u64;
        sampled
    }

    pub(crate) fn take_ack(&mut self) -> Option<Ack> {
        self.acks.pop()
    }

    /// Whether no request came from it or went to it, as far as is known: there is nothing to remember.
    pub(crate) fn is_blank(&self) -> bool {
        self.is_idle() && self.taken.is_empty() && self.next_id == self.first_id
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.clients.is_empty() && self.servers.is_empty()
    }
}
