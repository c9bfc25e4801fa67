//! What happens when: a calendar of short days, because nearly all that is scheduled happens within microseconds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A day is 2^14 picoseconds, 16 ns: in a busy network of 144 hosts some thirty things happen in it.
const DAY: u32 = 14;
/// Days that have a page: 67 µs. What is later waits in a heap.
const DAYS: usize = 4096;

/// A time in picoseconds, and a number: what was scheduled first happens first.
type Moment = (u64, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry<T> {
    moment: Moment,
    what: T,
}

/// All that is still to happen, in order.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    /// Of the current day, last first.
    today: Vec<Entry<T>>,
    day: u64,
    /// By day, in any order.
    pages: Vec<Vec<Entry<T>>>,
    /// How much stands in them.
    noted: usize,
    later: BinaryHeap<Reverse<Entry<T>>>,
    scheduled: u64,
}

impl<T: Copy + Ord> Agenda<T> {
    pub(crate) fn new() -> Self {
        Self {
            today: Vec::new(),
            day: 0,
            pages: (0..DAYS).map(|_| Vec::new()).collect(),
            noted: 0,
            later: BinaryHeap::new(),
            scheduled: 0,
        }
    }

    /// Nothing is scheduled before what was taken out last.
    pub(crate) fn schedule(&mut self, at: u64, what: T) {
        self.scheduled += 1;
        self.note(Entry { moment: (at, self.scheduled), what });
    }

    fn note(&mut self, entry: Entry<T>) {
        let day = entry.moment.0 >> DAY;
        if day <= self.day {
            let place = self.today.partition_point(|other| other.moment > entry.moment);
            self.today.insert(place, entry);
        } else if day < self.day + DAYS as u64 {
            self.pages[day as usize % DAYS].push(entry);
            self.noted += 1;
        } else {
            self.later.push(Reverse(entry));
        }
    }

    /// What happens next, and when.
    pub(crate) fn next(&mut self) -> Option<(u64, T)> {
        while self.today.is_empty() {
            self.turn()?;
        }
        self.today.pop().map(|entry| (entry.moment.0, entry.what))
    }

    /// To the next day, or if no page has anything to the first one that has; none if nothing is left.
    fn turn(&mut self) -> Option<()> {
        self.day += 1;
        if self.noted == 0 {
            let Reverse(first) = self.later.peek()?;
            self.day = first.moment.0 >> DAY;
        }
        let page = &mut self.pages[self.day as usize % DAYS];
        self.noted -= page.len();
        core::mem::swap(&mut self.today, page);
        self.today.sort_unstable_by_key(|entry| Reverse(entry.moment));
        while let Some(Reverse(first)) = self.later.peek().copied()
            && first.moment.0 >> DAY < self.day + DAYS as u64
        {
            self.later.pop();
            self.note(first);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Rng;

    #[test]
    fn all_comes_in_the_order_of_time_and_then_of_scheduling() {
        let mut rng = Rng::new(1);
        let mut agenda = Agenda::new();
        let mut expected = BinaryHeap::new();
        let mut now = 0;
        for number in 0..200_000_u64 {
            // From the same moment to a second later, which is far beyond the pages.
            let power = rng.below(41);
            let later = rng.below(1 << power);
            agenda.schedule(now + later, number);
            expected.push(Reverse((now + later, number)));
            if number % 3 != 0 {
                let next = agenda.next();
                assert_eq!(next, expected.pop().map(|Reverse(pair)| pair));
                now = next.map_or(now, |(at, _)| at);
            }
        }
        while let Some(next) = agenda.next() {
            assert_eq!(Some(next), expected.pop().map(|Reverse(pair)| pair));
        }
        assert_eq!(expected.len(), 0);
    }
}
