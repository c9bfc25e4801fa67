//! Sets of integers that lie mostly together: received ids, bytes that arrived.

use crate::frame::DecodeError;
use crate::varint::{self, Reader};
use alloc::vec::Vec;
use bytes::BufMut;
use core::fmt;
use core::ops::Range;

/// A set of `u64` kept as sorted, disjoint, non-adjacent half-open ranges.
///
/// Memory is 16 bytes a range. Operations are logarithmic to find and linear in the ranges to insert, which suits
/// the few ranges that a healthy conversation has; whoever fills a set from a peer bounds [`RangeSet::ranges`].
///
/// ```
/// use steadfast_wire::RangeSet;
/// let mut set = RangeSet::new();
/// set.insert(1..4);
/// set.insert(4..6);
/// assert_eq!(set.iter().collect::<Vec<_>>(), [1..6]);
/// assert_eq!(set.first_missing(1), 6);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    /// An empty set; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives back the memory that it has in reserve.
    pub fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    /// How many ranges it holds (not how many integers).
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.0.len()
    }

    /// How many integers it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|r| r.end - r.start).sum()
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }

    /// The smallest integer in the set.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        self.0.first().map(|r| r.start)
    }

    /// The largest integer in the set.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.0.last().map(|r| r.end - 1)
    }

    /// The first range whose end is beyond `value`.
    fn position(&self, value: u64) -> usize {
        self.0.partition_point(|r| r.end <= value)
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(&self, value: u64) -> bool {
        self.0.get(self.position(value)).is_some_and(|r| r.start <= value)
    }

    /// Whether all of `range` is in the set; an empty range always is.
    #[must_use]
    pub fn contains_range(&self, range: Range<u64>) -> bool {
        range.is_empty()
            || self
                .0
                .get(self.position(range.start))
                .is_some_and(|r| r.start <= range.start && range.end <= r.end)
    }

    /// The smallest integer at or above `from` that is not in the set.
    #[must_use]
    pub fn first_missing(&self, from: u64) -> u64 {
        match self.0.get(self.position(from)) {
            Some(r) if r.start <= from => r.end,
            _ => from,
        }
    }

    /// Adds a range; returns how many integers were new.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        // All ranges that overlap or touch the new one are folded into it.
        let first = self.0.partition_point(|r| r.end < range.start);
        let last = first + self.0[first..].partition_point(|r| r.start <= range.end);
        let (mut merged, mut held) = (range, 0);
        for old in &self.0[first..last] {
            held += old.end - old.start;
            merged.start = merged.start.min(old.start);
            merged.end = merged.end.max(old.end);
        }
        let added = merged.end - merged.start - held;
        // Most sets never have a second range, and there are many sets.
        if self.0.capacity() == 0 {
            self.0.reserve_exact(1);
        }
        self.0.splice(first..last, [merged]);
        added
    }

    /// Adds one integer; returns whether it was new.
    pub fn insert_one(&mut self, value: u64) -> bool {
        self.insert(value..value + 1) == 1
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.position(range.start);
        let last = first + self.0[first..].partition_point(|r| r.start < range.end);
        if first == last {
            return;
        }
        let head = self.0[first].start..range.start;
        let tail = range.end..self.0[last - 1].end;
        self.0.splice(first..last, [head, tail].into_iter().filter(|r| !r.is_empty()));
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        if other.ranges() <= 4 {
            for range in &other.0 {
                self.insert(range.clone());
            }
            return;
        }
        // One pass over both: inserting one by one would be quadratic in what a peer may say.
        let mut all: Vec<Range<u64>> = Vec::with_capacity(self.ranges() + other.ranges());
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let Some(next) = match (left.peek(), right.peek()) {
            (Some(l), Some(r)) if l.start <= r.start => left.next(),
            (Some(_), None) => left.next(),
            _ => right.next(),
        } {
            match all.last_mut() {
                Some(last) if next.start <= last.end => last.end = last.end.max(next.end),
                _ => all.push(next.clone()),
            }
        }
        self.0 = all;
    }

    /// The parts of `range` that are not in the set, in ascending order.
    pub fn missing(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = range.start;
        let mut index = self.position(range.start);
        core::iter::from_fn(move || {
            while at < range.end {
                match self.0.get(index) {
                    Some(held) if held.start <= at => {
                        at = held.end;
                        index += 1;
                    }
                    next => {
                        let end = next.map_or(range.end, |held| held.start.min(range.end));
                        let gap = at..end;
                        at = end;
                        return Some(gap);
                    }
                }
            }
            None
        })
    }

    /// How many integers of `range` are in the set.
    #[must_use]
    pub fn count_in(&self, range: Range<u64>) -> u64 {
        let missing: u64 = self.missing(range.clone()).map(|r| r.end - r.start).sum();
        range.end.saturating_sub(range.start) - missing
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Appends the set: the number of ranges, then for each the distance from the last end and its length.
    /// At most `limit` ranges are written, the highest ones.
    pub fn encode(&self, out: &mut impl BufMut, limit: usize) {
        let skip = self.0.len().saturating_sub(limit);
        varint::put(out, (self.0.len() - skip) as u64);
        let mut last = 0;
        for range in &self.0[skip..] {
            varint::put(out, range.start - last);
            varint::put(out, range.end - range.start);
            last = range.end;
        }
    }

    /// Reads a set of at most `limit` ranges.
    pub fn decode(reader: &mut Reader, limit: usize) -> Result<Self, DecodeError> {
        let count = reader.bounded(limit as u64)? as usize;
        // Each range takes two bytes at least, so a short frame cannot ask for much.
        if count > reader.remaining() / 2 {
            return Err(DecodeError::Truncated);
        }
        let mut ranges: Vec<Range<u64>> = Vec::with_capacity(count);
        let mut last = 0u64;
        for index in 0..count {
            let (gap, length) = (reader.varint()?, reader.varint()?);
            let start = last.checked_add(gap).ok_or(DecodeError::TooLarge)?;
            let end =
                start.checked_add(length).filter(|end| *end <= varint::MAX).ok_or(DecodeError::TooLarge)?;
            if length == 0 || (index > 0 && gap == 0) {
                return Err(DecodeError::Malformed("a range set has an empty or adjacent range"));
            }
            ranges.push(start..end);
            last = end;
        }
        Ok(Self(ranges))
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_integers(ops in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..12), 0..60)) {
            let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
            for (add, start, length) in ops {
                if add {
                    let before = model.len();
                    model.extend(start..start + length);
                    prop_assert_eq!(set.insert(start..start + length), (model.len() - before) as u64);
                } else {
                    model.retain(|v| !(start..start + length).contains(v));
                    set.remove(start..start + length);
                }
                prop_assert_eq!(set.count(), model.len() as u64);
                for value in 0..75 {
                    prop_assert_eq!(set.contains(value), model.contains(&value));
                    prop_assert_eq!(set.first_missing(value), (value..200).find(|v| !model.contains(v)).unwrap_or(0));
                }
                let gaps: Vec<u64> = set.missing(3..50).flatten().collect();
                prop_assert_eq!(gaps, (3..50).filter(|v| !model.contains(v)).collect::<Vec<_>>());
                prop_assert_eq!(set.count_in(3..50), model.range(3..50).count() as u64);
                prop_assert!(set.0.windows(2).all(|pair| pair[0].end < pair[1].start));
                let mut out = Vec::new();
                set.encode(&mut out, usize::MAX);
                prop_assert_eq!(&RangeSet::decode(&mut Reader::new(out.into()), 100).unwrap(), &set);
            }
        }
    }

    #[test]
    fn a_claimed_count_takes_no_memory_before_the_bytes_are_there() {
        let mut out = Vec::new();
        varint::put(&mut out, 1 << 20);
        assert_eq!(RangeSet::decode(&mut Reader::new(out.into()), 1 << 21), Err(DecodeError::Truncated));
    }
}
