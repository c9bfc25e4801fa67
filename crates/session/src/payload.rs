//! The bytes of a message that is being sent: appended at the end, freed from the front, read anywhere between.

use alloc::collections::VecDeque;
use bytes::Bytes;

/// Chunks in order of offset, without gaps.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    chunks: VecDeque<(u64, Bytes)>,
    end: u64,
}

impl Payload {
    pub(crate) fn push(&mut self, bytes: Bytes) {
        let start = self.end;
        self.end += bytes.len() as u64;
        if !bytes.is_empty() {
            self.chunks.push_back((start, bytes));
        }
    }

    /// One past the last byte that was ever appended.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// The first byte that is still here.
    pub(crate) fn start(&self) -> u64 {
        self.chunks.front().map_or(self.end, |(start, _)| *start)
    }

    /// How many bytes are here.
    pub(crate) fn held(&self) -> u64 {
        self.end - self.start()
    }

    /// At most `max` bytes from `offset`, without copying; fewer at the end of a chunk.
    pub(crate) fn slice(&self, offset: u64, max: usize) -> Bytes {
        let index = self.chunks.partition_point(|(start, bytes)| start + bytes.len() as u64 <= offset);
        match self.chunks.get(index) {
            Some((start, bytes)) if *start <= offset => {
                let from = (offset - start) as usize;
                bytes.slice(from..bytes.len().min(from.saturating_add(max)))
            }
            _ => Bytes::new(),
        }
    }

    /// Drops whole chunks before `offset`; returns how many bytes that freed.
    pub(crate) fn free_to(&mut self, offset: u64) -> u64 {
        let before = self.held();
        while self.chunks.front().is_some_and(|(start, bytes)| start + bytes.len() as u64 <= offset) {
            self.chunks.pop_front();
        }
        before - self.held()
    }

    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_sliced_and_freed() {
        let mut payload = Payload::default();
        payload.push(Bytes::from_static(b"abc"));
        payload.push(Bytes::from_static(b"defg"));
        assert_eq!(payload.slice(1, 9), "bc");
        assert_eq!(payload.slice(3, 2), "de");
        assert_eq!(payload.slice(7, 2), "");
        assert_eq!(payload.free_to(5), 3);
        assert_eq!((payload.start(), payload.end(), payload.held()), (3, 7, 4));
        assert_eq!(payload.slice(1, 2), "");
        payload.clear();
        assert_eq!(payload.held(), 0);
    }
}
