//! A message that arrives: which of its bytes are here, and how many may come.

use steadfast_wire::RangeSet;

#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) length: u32,
    /// Up to where the sender may send: what it sends unasked, then what it was granted.
    pub(crate) granted: u32,
    /// Up to where the sender says that it sends unasked.
    pub(crate) claimed: u32,
    /// What we granted beyond what the sender itself said.
    given: u32,
    /// Bytes that are here.
    pub(crate) got: u32,
    /// Those of them that lie below `granted`.
    arrived: u32,
    received: RangeSet,
    /// What it adds to the bytes on their way to the link.
    pub(crate) counted: u32,
    /// The lowest level that its missing bytes may have.
    pub(crate) level: u8,
    /// The level that was granted last.
    pub(crate) granted_level: u8,
    /// Its sender was silent and is not granted anything until something arrives.
    pub(crate) stalled: bool,
    /// Whether the link's grants know of it.
    pub(crate) managed: bool,
}

/// What a packet brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// At least one byte that was not here.
    New,
    Duplicate,
    /// It would begin one range too many.
    TooManyGaps,
}

impl Incoming {
    /// `unscheduled` is what the sender says it sends unasked, at `level`.
    pub(crate) fn new(length: u32, unscheduled: u32, level: u8) -> Self {
        Self {
            length,
            granted: unscheduled.min(length),
            claimed: unscheduled.min(length),
            given: 0,
            got: 0,
            arrived: 0,
            received: RangeSet::new(),
            counted: 0,
            level,
            granted_level: level,
            stalled: false,
            managed: false,
        }
    }

    /// A packet's bytes, which lie within the message.
    pub(crate) fn add(&mut self, offset: u32, length: u32, max_gaps: usize) -> Added {
        let range = u64::from(offset)..u64::from(offset) + u64::from(length);
        if self.received.contains_range(range.clone()) {
            return Added::Duplicate;
        }
        // The beginning may always be a range of its own, so that a message whose sender repeats it in order gets on.
        if self.received.ranges() >= max_gaps && offset > 0 {
            let touches = self.received.iter().any(|held| held.start <= range.end && range.start <= held.end);
            if !touches {
                return Added::TooManyGaps;
            }
        }
        let new = self.received.insert(range) as u32;
        self.got += new;
        // A packet whose first byte was granted comes whole. What lies beyond was not asked for: it is kept, and says nothing
        // of what is on its way.
        let end = offset.saturating_add(length);
        if offset < self.granted && end > self.granted {
            self.granted = end.min(self.length);
            self.count_arrived();
        } else if offset < self.granted {
            self.arrived += new;
        }
        Added::New
    }

    /// The sender may send `step` bytes more, at `level`.
    pub(crate) fn grant(&mut self, step: u32, level: u8) {
        self.level = if self.has_all_granted() { level } else { self.level.min(level) };
        self.granted_level = level;
        let before = self.granted;
        self.granted = self.granted.saturating_add(step).min(self.length);
        self.given = self.given.saturating_add(self.granted - before);
        self.count_arrived();
    }

    fn count_arrived(&mut self) {
        self.arrived = self.received.count_in(0..u64::from(self.granted)) as u32;
    }

    pub(crate) const fn is_complete(&self) -> bool {
        self.got == self.length
    }

    /// Bytes that are not here: the order in which messages are granted.
    pub(crate) const fn unreceived(&self) -> u32 {
        self.length - self.got
    }

    /// Bytes that may be on their way.
    pub(crate) const fn expected(&self) -> u32 {
        self.granted - self.arrived
    }

    /// What it adds to the bytes on their way: what a sender says of itself counts no more than `unscheduled`, or a
    /// single one could take all room by its word.
    pub(crate) fn counts(&self, unscheduled: u32) -> u32 {
        if self.stalled { 0 } else { self.expected().min(unscheduled.saturating_add(self.given)) }
    }

    /// Whether all that may be sent has arrived: silence is our own doing.
    pub(crate) const fn has_all_granted(&self) -> bool {
        self.expected() == 0
    }

    /// What may be sent and is not here, as offset and length, first to last.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let wanted = 0..u64::from(self.granted);
        self.received.missing(wanted).map(|gap| (gap.start as u32, (gap.end - gap.start) as u32))
    }

    pub(crate) fn check_invariants(&self, max_gaps: usize, unscheduled: u32) {
        assert_eq!(u64::from(self.got), self.received.count(), "bytes are counted once");
        assert!(self.granted <= self.length && self.got <= self.length, "within the message");
        let arrived = self.received.count_in(0..u64::from(self.granted));
        assert_eq!(u64::from(self.arrived), arrived, "what was granted and is here is counted once");
        assert!(self.received.ranges() <= max_gaps + 1, "ranges are bounded");
        assert_eq!(self.counted, self.counts(unscheduled), "what is on its way");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn a_packet_extends_begins_a_gap_fills_one_or_is_a_duplicate() {
        let mut message = Incoming::new(10_000, 10_000, 5);
        assert_eq!(message.add(0, 1000, 8), Added::New);
        assert_eq!(message.add(4000, 1000, 8), Added::New);
        assert_eq!(message.gaps().collect::<Vec<_>>(), [(1000, 3000), (5000, 5000)]);
        assert_eq!(message.add(2000, 1000, 8), Added::New);
        assert_eq!(message.gaps().collect::<Vec<_>>(), [(1000, 1000), (3000, 1000), (5000, 5000)]);
        assert_eq!(message.add(500, 500, 8), Added::Duplicate);
        assert_eq!(message.add(4000, 1000, 8), Added::Duplicate);
        // Across the edge of a gap: the original drops it, here its new bytes count.
        assert_eq!(message.add(900, 1000, 8), Added::New);
        assert_eq!(message.got, 3900);
        message.add(1900, 2100, 8);
        message.add(5000, 5000, 8);
        assert!(message.is_complete());
    }

    #[test]
    fn what_was_not_granted_says_nothing_of_what_is_on_its_way() {
        let mut message = Incoming::new(1_000_000, 1000, 5);
        message.add(0, 600, 8);
        message.add(999_999, 1, 8);
        assert_eq!((message.granted, message.expected()), (1000, 400));
        // Its first byte was granted.
        message.add(600, 600, 8);
        assert_eq!((message.granted, message.expected()), (1200, 0));
        message.add(1200, 100, 8);
        assert!(message.has_all_granted());
        message.grant(1000, 3);
        assert_eq!((message.granted, message.expected()), (2200, 900));
    }

    #[test]
    fn a_sender_that_claims_nearly_all_counts_no_more_once_it_was_granted_the_rest() {
        let mut message = Incoming::new(1_000_000, 999_999, 5);
        message.add(0, 1, 8);
        assert_eq!(message.counts(1000), 1000);
        message.grant(1, 3);
        assert_eq!(message.counts(1000), 1001);
    }

    #[test]
    fn a_range_too_many_is_refused_and_one_that_closes_a_gap_is_not() {
        let mut message = Incoming::new(10_000, 10_000, 5);
        for offset in [1000, 2000, 3000] {
            assert_eq!(message.add(offset, 10, 3), Added::New);
        }
        assert_eq!(message.add(4000, 10, 3), Added::TooManyGaps);
        assert_eq!(message.add(1010, 990, 3), Added::New);
        assert_eq!(message.add(4000, 10, 3), Added::New);
        assert_eq!(message.add(0, 10, 3), Added::New, "the beginning");
        assert_eq!(message.add(5000, 10, 3), Added::TooManyGaps);
    }
}
