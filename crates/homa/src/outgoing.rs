//! A message that is sent: what was sent, what may be, and what has to be sent again.

use crate::packet::RESEND_ALL;
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::Range;
use core::time::Duration;
use steadfast_wire::{Instant, RangeSet};

/// The most ranges to be sent again; what is beyond is asked for again.
const MAX_RESENDS: usize = 64;

#[derive(Debug)]
pub(crate) struct Outgoing {
    body: Bytes,
    /// Up to where it was sent at least once.
    pub(crate) sent: u32,
    /// Up to where it may be sent.
    pub(crate) granted: u32,
    /// Up to where it is sent unasked.
    pub(crate) unscheduled: u32,
    /// The level of unscheduled bytes.
    pub(crate) unscheduled_priority: u8,
    /// The level that the last grant named.
    pub(crate) scheduled_priority: u8,
    resends: RangeSet,
    resend_priority: u8,
    /// What was asked for again since when: it is not sent once more for a while.
    repeated: RangeSet,
    repeated_since: Instant,
    /// Its place in the link's order, if it is there.
    pub(crate) place: Option<(u32, Instant, u32)>,
}

/// Bytes that a receiver misses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    pub(crate) offset: u32,
    /// Or [`RESEND_ALL`].
    pub(crate) length: u32,
    pub(crate) priority: u8,
    /// Payload bytes of a packet to it.
    pub(crate) segment: u32,
}

/// Bytes to send next, in packets of one header each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) range: Range<u32>,
    pub(crate) priority: u8,
    pub(crate) retransmit: bool,
}

impl Outgoing {
    pub(crate) fn new(body: Bytes, unscheduled: u32, priority: u8) -> Self {
        let unscheduled = unscheduled.min(body.len() as u32);
        Self {
            body,
            sent: 0,
            granted: unscheduled,
            unscheduled,
            unscheduled_priority: priority,
            scheduled_priority: 0,
            resends: RangeSet::new(),
            resend_priority: 0,
            repeated: RangeSet::new(),
            repeated_since: Instant(0),
            place: None,
        }
    }

    pub(crate) fn length(&self) -> u32 {
        self.body.len() as u32
    }

    pub(crate) fn payload(&self, range: Range<u32>) -> Bytes {
        self.body.slice(range.start as usize..range.end as usize)
    }

    /// Whether every byte was sent at least once.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent == self.length()
    }

    /// Whether it has something to send now.
    pub(crate) fn is_ready(&self) -> bool {
        self.sent < self.granted || !self.resends.is_empty()
    }

    /// Bytes left, by which messages are ordered. What is sent again has its message's own length, or a long one would go
    /// before all others whenever its receiver asks for a few bytes of it.
    pub(crate) fn remaining(&self) -> u32 {
        if self.resends.is_empty() { self.length() - self.sent } else { self.length() }
    }

    /// A grant arrived; they come out of order, and an old one says nothing new.
    pub(crate) fn grant(&mut self, offset: u32, priority: u8) {
        let offset = offset.min(self.length());
        if offset >= self.granted {
            self.granted = offset;
            self.scheduled_priority = priority;
        }
    }

    /// The receiver misses bytes, of which `most` are sent again; what was asked for within `interval` is on its way.
    /// Returns how many are sent again, none if the receiver waits for us rather than for the network: nothing of it was
    /// sent.
    pub(crate) fn resend(
        &mut self,
        now: Instant,
        question: Question,
        interval: Duration,
        most: u64,
    ) -> Option<u64> {
        let Question { offset, length, priority, segment } = question;
        let end = if length == RESEND_ALL {
            self.sent
        } else {
            if offset >= self.length() {
                return None;
            }
            // Who asks for bytes has granted them: so a lost grant is repaired.
            let end = offset.saturating_add(length).min(self.length());
            self.granted = self.granted.max(end);
            end.min(self.sent)
        };
        if offset >= end {
            return None;
        }
        if now >= self.repeated_since + interval {
            self.repeated.clear();
            self.repeated_since = now;
        }
        let range =
            self.packet_at(offset, segment).start..self.packet_at(end - 1, segment).end.min(self.sent);
        let mut again = 0;
        let wanted: Vec<_> = self.repeated.missing(u64::from(range.start)..u64::from(range.end)).collect();
        for gap in wanted {
            // What is not sent now is asked for again.
            let gap = gap.start..gap.end.min(gap.start.saturating_add(most.saturating_sub(again)));
            if !gap.is_empty() && self.resends.ranges() < MAX_RESENDS {
                again += gap.end - gap.start;
                self.repeated.insert(gap.clone());
                self.resends.insert(gap);
            }
        }
        if let (Some(first), Some(last)) = (self.repeated.min(), self.repeated.max())
            && self.repeated.ranges() > MAX_RESENDS
        {
            // What lies between them waits as well.
            self.repeated.insert(first..last + 1);
        }
        if again > 0 {
            self.resend_priority = self.resend_priority.max(priority);
        }
        Some(again)
    }

    /// The packet that holds a byte: packets begin anew where the unscheduled bytes end.
    fn packet_at(&self, offset: u32, segment: u32) -> Range<u32> {
        let (base, limit) =
            if offset < self.unscheduled { (0, self.unscheduled) } else { (self.unscheduled, self.length()) };
        let start = base + (offset - base) / segment * segment;
        start..start.saturating_add(segment).min(limit)
    }

    /// What to send next, `budget` bytes at most but one packet at least; it counts as sent.
    pub(crate) fn next_piece(&mut self, segment: u32, budget: u32) -> Option<Piece> {
        let segment = segment.max(1);
        let most = (budget / segment).max(1).saturating_mul(segment);
        let again = self.resends.iter().next();
        if let Some(range) = again {
            // The packets of two grids must not be one run: the first ends where the unscheduled bytes do.
            let start = range.start as u32;
            let limit = if start < self.unscheduled { self.unscheduled } else { self.length() };
            let end = (range.end as u32).min(limit).min(start.saturating_add(most));
            self.resends.remove(u64::from(start)..u64::from(end));
            let priority = self.resend_priority;
            if self.resends.is_empty() {
                self.resend_priority = 0;
            }
            return Some(Piece { range: start..end, priority, retransmit: true });
        }
        if self.sent >= self.granted {
            return None;
        }
        let start = self.sent;
        let unscheduled = start < self.unscheduled;
        let limit = if unscheduled { self.unscheduled } else { self.length() };
        // A packet whose first byte was granted goes out whole.
        let packets = (self.granted.min(limit) - start).div_ceil(segment);
        let end = start.saturating_add(packets.saturating_mul(segment).min(most)).min(limit);
        self.sent = end;
        self.granted = self.granted.max(end);
        let priority = if unscheduled { self.unscheduled_priority } else { self.scheduled_priority };
        Some(Piece { range: start..end, priority, retransmit: false })
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.sent <= self.granted && self.granted <= self.length(), "sent what was granted");
        assert!(self.resends.max().is_none_or(|last| last < u64::from(self.sent)), "again what was sent");
        assert!(self.resends.ranges() <= MAX_RESENDS, "resends are bounded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const INTERVAL: Duration = Duration::from_millis(5);

    /// Whether the receiver waits for us.
    fn resend(message: &mut Outgoing, offset: u32, length: u32) -> bool {
        let question = Question { offset, length, priority: 7, segment: 1000 };
        message.resend(Instant(0), question, INTERVAL, u64::MAX).is_none()
    }

    fn message(length: usize, unscheduled: u32) -> Outgoing {
        Outgoing::new(Bytes::from(vec![0; length]), unscheduled, 6)
    }

    #[test]
    fn a_packet_ends_where_the_unscheduled_bytes_do() {
        let mut message = message(10_000, 2500);
        let piece = message.next_piece(1000, u32::MAX);
        assert_eq!(piece, Some(Piece { range: 0..2500, priority: 6, retransmit: false }));
        assert_eq!(message.next_piece(1000, u32::MAX), None);
        message.grant(3000, 2);
        // Its first byte was granted.
        let piece = message.next_piece(1000, u32::MAX);
        assert_eq!(piece, Some(Piece { range: 2500..3500, priority: 2, retransmit: false }));
    }

    #[test]
    fn an_old_grant_lowers_neither_offset_nor_priority() {
        let mut message = message(10_000, 2500);
        message.grant(6000, 3);
        message.grant(5000, 1);
        assert_eq!((message.granted, message.scheduled_priority), (6000, 3));
        message.grant(u32::MAX, 1);
        assert_eq!((message.granted, message.scheduled_priority), (10_000, 1));
    }

    #[test]
    fn a_retransmission_resends_whole_packets_that_intersect() {
        let mut message = message(10_000, 2500);
        message.grant(6000, 2);
        while message.next_piece(1000, u32::MAX).is_some() {}
        assert_eq!(message.sent, 6500);
        assert!(!resend(&mut message, 2400, 200));
        let again = |range| Some(Piece { range, priority: 7, retransmit: true });
        assert_eq!(message.next_piece(1000, u32::MAX), again(2000..2500));
        assert_eq!(message.next_piece(1000, u32::MAX), again(2500..3500));
        assert_eq!(message.next_piece(1000, u32::MAX), None);
    }

    #[test]
    fn a_resend_beyond_what_was_sent_is_a_grant() {
        let mut message = message(10_000, 2500);
        message.next_piece(1000, u32::MAX);
        assert!(resend(&mut message, 2500, 2000), "nothing of it was sent");
        assert_eq!(message.granted, 4500);
        assert_eq!(message.next_piece(1000, u32::MAX).map(|piece| piece.range), Some(2500..4500));
        assert!(resend(&mut message, u32::MAX, 5));
        assert!(resend(&mut message, 10_000, 1));
        assert_eq!(message.granted, 4500, "there are no such bytes");
        assert!(resend(&mut message, 10_000, RESEND_ALL));
        message.check_invariants();
    }

    #[test]
    fn ranges_to_send_again_are_bounded() {
        let mut message = message(1_000_000, 1_000_000);
        message.next_piece(1000, u32::MAX);
        for offset in (0..1_000_000).step_by(2000) {
            resend(&mut message, offset, 1);
            message.check_invariants();
        }
        let again = core::iter::from_fn(|| message.next_piece(1000, u32::MAX)).count();
        assert_eq!(again, MAX_RESENDS);
    }

    #[test]
    fn bytes_are_sent_again_once_in_an_interval_and_no_more_of_them_than_may_be() {
        let mut message = message(10_000, 10_000);
        message.next_piece(1000, u32::MAX);
        assert_eq!(message.remaining(), 0);
        let mut ask = |micros: u64, offset, length, most| {
            let question = Question { offset, length, priority: 7, segment: 1000 };
            let again = message.resend(Instant(micros * 1000), question, INTERVAL, most);
            assert_eq!(message.remaining(), if again == Some(0) { 0 } else { 10_000 }, "by its own length");
            while message.next_piece(1000, u32::MAX).is_some() {}
            again
        };
        assert_eq!(ask(5000, 2500, 1, u64::MAX), Some(1000));
        assert_eq!(ask(9999, 2500, 1, u64::MAX), Some(0));
        assert_eq!(ask(9999, 2000, 2000, u64::MAX), Some(1000));
        assert_eq!(ask(10_000, 2500, 1, u64::MAX), Some(1000));
        assert_eq!(ask(20_000, 0, RESEND_ALL, 3000), Some(3000));
    }
}
