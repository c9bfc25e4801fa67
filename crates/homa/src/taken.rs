//! Which of a peer's requests were taken, so that a late duplicate of one is never executed again.

use core::time::Duration;
use steadfast_wire::{Instant, RangeSet};

/// The fewest ranges that are remembered of a peer.
const LEAST: usize = 64;
/// The most: inserting moves those behind.
const MOST: usize = 4096;

/// What was taken in one generation.
///
/// Ids count up by two at a client, so those of our own clients make few ranges. Where there are too many, the lowest ids
/// are all held to be taken: a request that is refused wrongly ends with its outcome unknown, which is true.
#[derive(Debug, Default)]
struct Generation {
    /// Halves of ids below it count as taken.
    floor: u64,
    halves: RangeSet,
}

impl Generation {
    fn contains(&self, half: u64) -> bool {
        half < self.floor || self.halves.contains(half)
    }

    fn insert(&mut self, half: u64, most: usize) {
        if half < self.floor {
            return;
        }
        self.halves.insert_one(half);
        if self.halves.ranges() > most {
            // Several at once, because those behind are moved each time.
            let lowest = self.halves.iter().nth(most / 8);
            if let Some(range) = lowest {
                self.floor = range.end;
                self.halves.remove(0..range.end);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.floor == 0 && self.halves.is_empty()
    }
}

/// The module counts its ids from 2 at every start. So what a peer of that dialect used is forgotten once no packet of it
/// can be left in the network, or a host that starts again would be refused until it has counted as far.
#[derive(Debug)]
pub(crate) struct Taken {
    recent: Generation,
    /// Of the packet lifetime before, where ids come again.
    older: Generation,
    /// When the last generation began, where ids come again.
    turned: Option<Instant>,
}

impl Taken {
    /// `recurs` if ids come again without the carrier knowing.
    pub(crate) fn new(now: Instant, recurs: bool) -> Self {
        let (recent, older) = (Generation::default(), Generation::default());
        Self { recent, older, turned: recurs.then_some(now) }
    }

    /// How many ranges one of `peers` may have if all together have `all`.
    pub(crate) fn share(all: usize, peers: usize) -> usize {
        (all / peers.max(1)).clamp(LEAST, MOST)
    }

    /// Forgets what is old; to be called before anything is asked or inserted.
    pub(crate) fn turn(&mut self, now: Instant, lifetime: Duration) {
        if let Some(turned) = self.turned
            && now >= turned + lifetime
        {
            self.older = core::mem::take(&mut self.recent);
            if now >= turned + lifetime * 2 {
                self.older = Generation::default();
            }
            self.turned = Some(now);
        }
    }

    pub(crate) fn contains(&self, client_id: u64) -> bool {
        let half = client_id >> 1;
        self.recent.contains(half) || self.older.contains(half)
    }

    pub(crate) fn insert(&mut self, client_id: u64, most: usize) {
        let most = if self.turned.is_some() { most / 2 } else { most };
        self.recent.insert(client_id >> 1, most);
    }

    pub(crate) fn clear(&mut self) {
        (self.recent, self.older) = (Generation::default(), Generation::default());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.older.is_empty()
    }

    pub(crate) fn ranges(&self) -> usize {
        self.recent.halves.ranges() + self.older.halves.ranges()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_a_row_take_one_range() {
        let mut taken = Taken::new(Instant(0), false);
        for id in (1000..3000).step_by(2) {
            assert!(!taken.contains(id));
            taken.insert(id, LEAST);
            assert!(taken.contains(id));
        }
        assert_eq!(taken.ranges(), 1);
        assert!(!taken.contains(998));
    }

    #[test]
    fn what_was_taken_stays_taken_when_there_are_too_many() {
        let mut taken = Taken::new(Instant(0), false);
        for id in (1000..100_000).step_by(10) {
            taken.insert(id, LEAST);
            assert!(taken.ranges() <= LEAST);
        }
        assert!((1000..100_000).step_by(10).all(|id| taken.contains(id)));
        assert!(!taken.contains(99_996), "a gap among the latest ids is still open");
    }

    #[test]
    fn ids_that_come_again_are_forgotten_after_a_packet_lifetime_and_before_two() {
        let lifetime = Duration::from_secs(30);
        for recurs in [true, false] {
            let mut taken = Taken::new(Instant(0), recurs);
            let at = |seconds| Instant(0) + Duration::from_secs(seconds);
            let mut after = |seconds| {
                taken.turn(at(seconds), lifetime);
                if seconds == 29 {
                    taken.insert(2, LEAST);
                }
                taken.contains(2)
            };
            assert!([29, 31, 59].into_iter().all(&mut after));
            assert_eq!(after(62), !recurs);
        }
    }

    #[test]
    fn the_last_id_there_is_does_no_harm() {
        let mut taken = Taken::new(Instant(0), false);
        taken.insert(u64::MAX, LEAST);
        assert!(taken.contains(u64::MAX));
        assert!(!taken.contains(2));
    }
}
