//! What a receiver's link does while there is something for it: it is busy, or idle for want of grants, or idle.

/// A host with more than this to come, in payload bytes, has a backlog: with less, all of it may be on its way. Twice what
/// the network holds in a round trip.
const DEEP: i64 = 20_000;

/// What a link did while it was measured. Times are picoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// It was idle although grants were withheld.
    pub(crate) wasted: u64,
    /// There was a backlog.
    pub(crate) backlog: u64,
    /// Payload bytes that arrived in that time.
    pub(crate) served: u64,
}

/// The link from a rack to a host. Times are picoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Downlink {
    since: u64,
    busy_until: u64,
    /// A message that the host knows of waits for its turn to be granted.
    withheld: bool,
    /// Payload bytes of messages to the host that are not there.
    missing: i64,
    tally: Tally,
}

impl Downlink {
    /// Counts from now on.
    pub(crate) fn start(&mut self, now: u64) {
        self.note(now);
        self.tally = Tally::default();
    }

    /// Until here all is as it was.
    fn note(&mut self, now: u64) {
        if self.withheld {
            // A frame that was begun ends before the next one begins, so one end is enough.
            self.tally.wasted += now.saturating_sub(self.since.max(self.busy_until));
        }
        if self.missing > DEEP {
            self.tally.backlog += now - self.since;
        }
        self.since = now;
    }

    /// A frame is sent until then.
    pub(crate) fn send(&mut self, now: u64, until: u64) {
        self.note(now);
        self.busy_until = until;
    }

    pub(crate) fn withhold(&mut self, now: u64, withheld: bool) {
        if self.withheld != withheld {
            self.note(now);
            self.withheld = withheld;
        }
    }

    /// A message for the host is given to its sender.
    pub(crate) fn begin(&mut self, now: u64, bytes: u32) {
        self.note(now);
        self.missing += i64::from(bytes);
    }

    /// Some of one is there.
    pub(crate) fn arrive(&mut self, now: u64, bytes: u32) {
        self.note(now);
        if self.missing > DEEP {
            self.tally.served += u64::from(bytes);
        }
        self.missing -= i64::from(bytes);
    }

    /// What it did since the start.
    pub(crate) fn stop(&mut self, now: u64) -> Tally {
        self.note(now);
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wasted_is_what_is_idle_while_grants_are_withheld() {
        let mut link = Downlink::default();
        link.start(0);
        // Frames from 100 to 200 and from 250 to 350. In between nobody waits for grants.
        link.send(100, 200);
        link.send(250, 350);
        // From 300 a message waits; the link is idle from 350 until a frame at 400, and again from 500.
        link.withhold(300, true);
        link.send(400, 500);
        // From 560 it is granted: idle until 600, which is not wasted.
        link.withhold(560, false);
        link.send(600, 700);
        assert_eq!(link.stop(1000).wasted, (400 - 350) + (560 - 500));
    }

    #[test]
    fn a_backlog_is_what_cannot_all_be_on_its_way() {
        let mut link = Downlink::default();
        link.start(0);
        link.begin(100, 20_000);
        link.begin(200, 2000);
        // 22,000 bytes are to come until 300, 20,500 until 400, and then 19,000.
        link.arrive(300, 1500);
        link.arrive(400, 1500);
        link.arrive(500, 1500);
        let tally = link.stop(1000);
        assert_eq!((tally.backlog, tally.served), (400 - 200, 3000));
    }

    #[test]
    fn what_was_before_the_start_does_not_count_and_what_goes_on_does() {
        let mut link = Downlink::default();
        link.begin(0, 100_000);
        link.withhold(0, true);
        link.arrive(50, 1500);
        link.start(100);
        let tally = link.stop(150);
        assert_eq!((tally.wasted, tally.backlog, tally.served), (50, 50, 0));
        link.send(150, 190);
        let tally = link.stop(200);
        assert_eq!((tally.wasted, tally.backlog, tally.served), (60, 100, 0));
    }
}
