//! Which counters were seen: all of a window behind the newest, and none before it.

/// How many counters the window holds.
pub(super) const BITS: u64 = 8192;
const WORD: u64 = 64;
const WORDS: usize = (BITS / WORD) as usize;

/// A bit for each of the newest [`BITS`] counters, at its remainder.
pub(super) struct Window {
    bits: Box<[u64; WORDS]>,
    /// One more than the newest counter.
    end: u64,
}

/// What a window says of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    New,
    Seen,
    TooOld,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { bits: Box::new([0; WORDS]), end: 0 }
    }

    /// One more than the newest counter; 0 before there was any.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn check(&self, counter: u64) -> Verdict {
        if counter >= self.end {
            Verdict::New
        } else if self.end - counter > BITS {
            Verdict::TooOld
        } else if self.bits[word(counter)] & bit(counter) != 0 {
            Verdict::Seen
        } else {
            Verdict::New
        }
    }

    /// A counter for which [`check`](Self::check) said that it is new was seen. It is less than [`u64::MAX`].
    pub(super) fn mark(&mut self, counter: u64) {
        if counter >= self.end {
            self.forget(counter);
            self.end = counter + 1;
        }
        self.bits[word(counter)] |= bit(counter);
    }

    /// Clears the bits of `end..=newest`, which stand for counters that leave the window.
    fn forget(&mut self, newest: u64) {
        if newest - self.end >= BITS {
            self.bits.fill(0);
            return;
        }
        let mut at = self.end;
        while at <= newest {
            // The rest of this word, or of what leaves.
            let last = (at | (WORD - 1)).min(newest);
            let count = last - at + 1;
            let ones = if count == WORD { u64::MAX } else { (1 << count) - 1 };
            self.bits[word(at)] &= !(ones << (at % WORD));
            at = last + 1;
        }
    }
}

fn word(counter: u64) -> usize {
    (counter % BITS / WORD) as usize
}

fn bit(counter: u64) -> u64 {
    1 << (counter % WORD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use steadfast_wire::rng::Rng;

    #[test]
    fn edges_are_exact() {
        let mut window = Window::new();
        window.mark(0);
        assert_eq!(window.check(0), Verdict::Seen);
        window.mark(BITS - 1);
        assert_eq!((window.check(0), window.check(1)), (Verdict::Seen, Verdict::New));
        window.mark(BITS);
        assert_eq!((window.check(0), window.check(1)), (Verdict::TooOld, Verdict::New));
        window.mark(1);
        assert_eq!((window.check(1), window.check(BITS)), (Verdict::Seen, Verdict::Seen));
        window.mark(2 * BITS);
        assert_eq!((window.check(BITS), window.check(BITS + 1)), (Verdict::TooOld, Verdict::New));
        window.mark(u64::MAX - 1);
        assert_eq!(window.check(u64::MAX - 1 - BITS), Verdict::TooOld);
        assert_eq!(window.check(u64::MAX - BITS), Verdict::New);
    }

    /// Against a set of everything that was ever seen.
    #[test]
    fn it_says_what_a_set_would() {
        for seed in 0..20 {
            let mut rng = Rng::new([seed; 32]);
            let (mut window, mut seen, mut end) = (Window::new(), HashSet::new(), 0);
            for _ in 0..20_000 {
                let reach = [3, 100, BITS + 2, 3 * BITS][rng.bits() as usize % 4];
                let base = end.max(BITS / 2) - BITS / 2;
                let counter = if rng.bits().is_multiple_of(2) {
                    base + rng.bits() % reach
                } else {
                    end + rng.bits() % 3
                };
                let expected = if counter + BITS < end {
                    Verdict::TooOld
                } else if seen.contains(&counter) {
                    Verdict::Seen
                } else {
                    Verdict::New
                };
                assert_eq!(window.check(counter), expected, "seed {seed}, {counter} of {end}");
                if expected == Verdict::New {
                    window.mark(counter);
                    seen.insert(counter);
                    end = end.max(counter + 1);
                }
                assert_eq!(window.end(), end);
            }
        }
    }
}
