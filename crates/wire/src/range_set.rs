//! Sets of integers that lie mostly together: received ids, bytes that arrived.

use crate::frame::DecodeError;
use crate::varint::{self, Reader};
use alloc::vec::Vec;
use bytes::BufMut;
use core::ops::Range;
use core::{fmt, slice};

/// A set of `u64` kept as sorted, disjoint, non-adjacent half-open ranges.
///
/// Memory is 16 bytes a range beyond the first, which lies in the set itself. Operations are logarithmic to find and linear in the ranges to insert, which suits
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
pub struct RangeSet(Ranges);

/// Most sets never have a second range, and there are many sets: one range takes no memory of its own.
#[derive(Clone, PartialEq, Eq)]
enum Ranges {
    /// No range, written `0..0`, or one.
    One(Range<u64>),
    /// Two at least.
    Many(Vec<Range<u64>>),
}

impl Default for Ranges {
    fn default() -> Self {
        Self::One(0..0)
    }
}

impl From<Vec<Range<u64>>> for Ranges {
    fn from(mut ranges: Vec<Range<u64>>) -> Self {
        match ranges.len() {
            0 | 1 => Self::One(ranges.pop().unwrap_or_default()),
            _ => Self::Many(ranges),
        }
    }
}

impl RangeSet {
    /// An empty set; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Ranges::One(0..0))
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slice().is_empty()
    }

    fn slice(&self) -> &[Range<u64>] {
        match &self.0 {
            Ranges::One(range) if range.is_empty() => &[],
            Ranges::One(range) => slice::from_ref(range),
            Ranges::Many(ranges) => ranges,
        }
    }

    /// Replaces the ranges from `first` to before `last` by these.
    fn splice(&mut self, first: usize, last: usize, by: impl IntoIterator<Item = Range<u64>>) {
        let mut ranges = match core::mem::take(&mut self.0) {
            Ranges::One(range) if range.is_empty() => Vec::new(),
            Ranges::One(range) => Vec::from([range]),
            Ranges::Many(ranges) => ranges,
        };
        ranges.splice(first..last, by);
        self.0 = ranges.into();
    }

    /// Adds a range that begins beyond the end of the last one.
    fn push(&mut self, range: Range<u64>) {
        match &mut self.0 {
            Ranges::One(first) if first.is_empty() => *first = range,
            Ranges::One(first) => self.0 = Ranges::Many(Vec::from([first.clone(), range])),
            Ranges::Many(ranges) => ranges.push(range),
        }
    }

    /// Gives back the memory that it has in reserve.
    pub fn shrink(&mut self) {
        if let Ranges::Many(ranges) = &mut self.0 {
            ranges.shrink_to_fit();
        }
    }

    /// How many ranges it holds (not how many integers).
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.slice().len()
    }

    /// How many integers it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.slice().iter().map(|r| r.end - r.start).sum()
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + '_ {
        self.slice().iter().cloned()
    }

    /// The smallest integer in the set.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        self.slice().first().map(|r| r.start)
    }

    /// The largest integer in the set.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.slice().last().map(|r| r.end - 1)
    }

    /// The first range whose end is beyond `value`.
    fn position(&self, value: u64) -> usize {
        self.slice().partition_point(|r| r.end <= value)
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(&self, value: u64) -> bool {
        self.slice().get(self.position(value)).is_some_and(|r| r.start <= value)
    }

    /// Whether all of `range` is in the set; an empty range always is.
    #[must_use]
    pub fn contains_range(&self, range: Range<u64>) -> bool {
        range.is_empty()
            || self
                .slice()
                .get(self.position(range.start))
                .is_some_and(|r| r.start <= range.start && range.end <= r.end)
    }

    /// The smallest integer at or above `from` that is not in the set.
    #[must_use]
    pub fn first_missing(&self, from: u64) -> u64 {
        match self.slice().get(self.position(from)) {
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
        let all = self.slice();
        let first = all.partition_point(|r| r.end < range.start);
        let last = first + all[first..].partition_point(|r| r.start <= range.end);
        let (mut merged, mut held) = (range, 0);
        for old in &all[first..last] {
            held += old.end - old.start;
            merged.start = merged.start.min(old.start);
            merged.end = merged.end.max(old.end);
        }
        let added = merged.end - merged.start - held;
        match &mut self.0 {
            Ranges::One(range) if range.is_empty() || first < last => *range = merged,
            Ranges::Many(ranges) if last - first == 1 => ranges[first] = merged,
            _ => self.splice(first, last, [merged]),
        }
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
        let all = self.slice();
        let first = self.position(range.start);
        let last = first + all[first..].partition_point(|r| r.start < range.end);
        if first == last {
            return;
        }
        let head = all[first].start..range.start;
        let tail = range.end..all[last - 1].end;
        match &mut self.0 {
            Ranges::One(all) if head.is_empty() && tail.is_empty() => *all = 0..0,
            Ranges::One(all) if tail.is_empty() => *all = head,
            Ranges::One(all) if head.is_empty() => *all = tail,
            _ => self.splice(first, last, [head, tail].into_iter().filter(|r| !r.is_empty())),
        }
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        if other.ranges() <= 4 {
            for range in other.slice() {
                self.insert(range.clone());
            }
            return;
        }
        // One pass over both: inserting one by one would be quadratic in what a peer may say.
        let mut all: Vec<Range<u64>> = Vec::with_capacity(self.ranges() + other.ranges());
        let (mut left, mut right) = (self.slice().iter().peekable(), other.slice().iter().peekable());
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
        self.0 = all.into();
    }

    /// The parts of `range` that are not in the set, in ascending order.
    pub fn missing(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = range.start;
        let mut index = self.position(range.start);
        core::iter::from_fn(move || {
            while at < range.end {
                match self.slice().get(index) {
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
        self.0 = Ranges::default();
    }

    /// Appends the set: the number of ranges, then for each the distance from the last end and its length.
    /// At most `limit` ranges are written, the highest ones.
    pub fn encode(&self, out: &mut impl BufMut, limit: usize) {
        let all = self.slice();
        let all = &all[all.len().saturating_sub(limit)..];
        varint::put(out, all.len() as u64);
        let mut last = 0;
        for range in all {
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
        let mut set = Self::new();
        let mut last = 0u64;
        for index in 0..count {
            let (gap, length) = (reader.varint()?, reader.varint()?);
            let start = last.checked_add(gap).ok_or(DecodeError::TooLarge)?;
            let end =
                start.checked_add(length).filter(|end| *end <= varint::MAX).ok_or(DecodeError::TooLarge)?;
            if length == 0 || (index > 0 && gap == 0) {
                return Err(DecodeError::Malformed("a range set has an empty or adjacent range"));
            }
            set.push(start..end);
            last = end;
        }
        Ok(set)
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
        f.debug_list().entries(self.slice()).finish()
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
                prop_assert!(set.slice().windows(2).all(|pair| pair[0].end < pair[1].start));
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
