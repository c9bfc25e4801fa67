//! Which of a peer's requests were taken, so that a late duplicate of one is never executed again.

use steadfast_wire::RangeSet;

/// The fewest ranges that are remembered of a peer.
const LEAST: usize = 64;
/// The most: inserting moves those behind.
const MOST: usize = 4096;

/// Ids count up by two at a client, so those of our own clients make few ranges. Where there are too many, the lowest ids
/// are all held to be taken: a request that is refused wrongly ends with its outcome unknown, which is true.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Halves of ids below it count as taken.
    floor: u64,
    halves: RangeSet,
}

impl Taken {
    /// How many ranges one of `peers` may have if all together have `all`.
    pub(crate) fn share(all: usize, peers: usize) -> usize {
        (all / peers.max(1)).clamp(LEAST, MOST)
    }

    pub(crate) fn contains(&self, client_id: u64) -> bool {
        let half = client_id >> 1;
        half < self.floor || self.halves.contains(half)
    }

    pub(crate) fn insert(&mut self, client_id: u64, most: usize) {
        let half = client_id >> 1;
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

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn ranges(&self) -> usize {
        self.halves.ranges()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_a_row_take_one_range() {
        let mut taken = Taken::default();
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
        let mut taken = Taken::default();
        for id in (1000..100_000).step_by(10) {
            taken.insert(id, LEAST);
            assert!(taken.ranges() <= LEAST);
        }
        assert!((1000..100_000).step_by(10).all(|id| taken.contains(id)));
        assert!(!taken.contains(99_996), "a gap among the latest ids is still open");
    }

    #[test]
    fn the_last_id_there_is_does_no_harm() {
        let mut taken = Taken::default();
        taken.insert(u64::MAX, LEAST);
        assert!(taken.contains(u64::MAX));
        assert!(!taken.contains(2));
    }
}
