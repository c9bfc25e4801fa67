//! The bytes of a message that is being received: pieces in any order, duplicates dropped, read from the front.

use alloc::collections::BTreeMap;
use bytes::{Bytes, BytesMut};
use core::ops::Range;

/// Pieces smaller than this are copied out of the buffer that they came in, in bytes; frames carry at most 64 KiB, and
/// those of a bulk transfer just that. Copied pieces grow to this length when more follows.
const COPIED: usize = 60 * 1024;
/// A copied piece shorter than this is joined to one that comes before it, in bytes. Longer ones are left, or pieces
/// that arrive backwards would be copied over and over.
const JOINED: usize = 1024;

/// Pieces of one message. Whoever inserts has paid for their bytes with credit; [`pieces`](Self::pieces) is what else
/// they cost: one for each hole, and at most one for each KiB.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    pieces: BTreeMap<u64, Piece>,
    read: u64,
}

#[derive(Debug)]
enum Piece {
    /// A part of the buffer that it came in.
    Shared(Bytes),
    /// Copied, because a small piece would keep a read buffer of up to 256 KiB alive.
    Copied(BytesMut),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Shared(bytes) => bytes.len(),
            Self::Copied(bytes) => bytes.len(),
        }
    }

    fn freeze(self) -> Bytes {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Copied(bytes) => bytes.freeze(),
        }
    }
}

impl Assembly {
    /// Keeps the parts of `bytes` (at `offset`) that lie in `fresh`, which hold nothing yet.
    pub(crate) fn insert(&mut self, offset: u64, bytes: &Bytes, fresh: Range<u64>) {
        let from = fresh.start.saturating_sub(offset) as usize;
        let to = (fresh.end.saturating_sub(offset) as usize).min(bytes.len());
        if from >= to {
            return;
        }
        let start = fresh.start;
        if to - from >= COPIED {
            self.pieces.insert(start, Piece::Shared(bytes.slice(from..to)));
            return;
        }
        let bytes = &bytes[from..to];
        let end = start + bytes.len() as u64;
        let before = self.pieces.range_mut(..start).next_back();
        let at = match before {
            Some((at, Piece::Copied(before)))
                if at + before.len() as u64 == start && before.len() + bytes.len() <= COPIED =>
            {
                before.extend_from_slice(bytes);
                *at
            }
            _ => {
                self.pieces.insert(start, Piece::Copied(BytesMut::from(bytes)));
                start
            }
        };
        self.join(at, end);
    }

    /// Joins what begins at `end` to the piece at `at`, if it is short.
    fn join(&mut self, at: u64, end: u64) {
        let Some(Piece::Copied(after)) = self.pieces.get(&end) else { return };
        if after.len() >= JOINED {
            return;
        }
        let Some(after) = self.pieces.remove(&end) else { return };
        if let Some(Piece::Copied(piece)) = self.pieces.get_mut(&at) {
            piece.extend_from_slice(&after.freeze());
        }
    }

    /// In how many pieces the bytes are held.
    pub(crate) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// How far the message was read.
    pub(crate) const fn position(&self) -> u64 {
        self.read
    }

    /// The next bytes, if they are here.
    pub(crate) fn read(&mut self) -> Option<Bytes> {
        let entry = self.pieces.first_entry().filter(|entry| *entry.key() == self.read)?;
        let bytes = entry.remove().freeze();
        self.read += bytes.len() as u64;
        Some(bytes)
    }

    /// Everything, in one piece, which stays here.
    pub(crate) fn share(&mut self) -> Bytes {
        let all = self.take();
        self.read = 0;
        if !all.is_empty() {
            self.pieces.insert(0, Piece::Shared(all.clone()));
        }
        all
    }

    /// Everything, in one piece; copies only if it is held in several.
    pub(crate) fn take(&mut self) -> Bytes {
        if self.pieces.len() <= 1 {
            return self.read().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(self.pieces.values().map(Piece::len).sum());
        while let Some(bytes) = self.read() {
            whole.extend_from_slice(&bytes);
        }
        whole.freeze()
    }

    /// Throws the bytes away.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// 64 KiB byte by byte, in the order of `places`; how many pieces they end in at most.
    fn byte_by_byte(places: impl Iterator<Item = u64>) -> usize {
        let all: Vec<u8> = (0..64 * 1024u32).map(|place| (place * 7 % 251) as u8).collect();
        let bytes = Bytes::from(all.clone());
        let mut assembly = Assembly::default();
        let mut most = 0;
        for place in places {
            assembly.insert(0, &bytes, place..place + 1);
            most = most.max(assembly.pieces());
        }
        assert_eq!(assembly.take(), all);
        most
    }

    #[test]
    fn many_small_pieces_become_few() {
        let end = 64 * 1024;
        assert!(byte_by_byte(0..end) <= 2, "forwards");
        assert!(byte_by_byte((0..end).rev()) <= 65, "backwards");
        let inside_out = (0..end / 2).flat_map(|i| [end / 2 + i, end / 2 - 1 - i]);
        assert!(byte_by_byte(inside_out) <= 65, "inside out");
        // Half of it are holes for a while, which the caller bounds.
        byte_by_byte((0..end).step_by(2).chain((1..end).step_by(2)));
    }

    #[test]
    fn large_pieces_are_shared_and_small_ones_copied() {
        let bytes = Bytes::from(alloc::vec![1; 2 * COPIED]);
        let mut assembly = Assembly::default();
        assembly.insert(0, &bytes, 0..COPIED as u64);
        assembly.insert(0, &bytes, COPIED as u64..COPIED as u64 + 10);
        assert_eq!(assembly.read().unwrap().as_ptr(), bytes.as_ptr());
        assert_ne!(assembly.read().unwrap().as_ptr(), bytes[COPIED..].as_ptr());
    }
}
