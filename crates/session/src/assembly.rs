//! The bytes of a message that is being received: pieces in any order, duplicates dropped, read from the front.

use alloc::collections::BTreeMap;
use bytes::{Bytes, BytesMut};
use core::ops::Range;

/// Pieces smaller than this are copied out of the buffer that they came in, in bytes.
const COPIED: usize = 32 * 1024;

/// Pieces of one message. Memory is that of the pieces; whoever inserts has paid for them with credit.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    pieces: BTreeMap<u64, Bytes>,
    read: u64,
}

impl Assembly {
    /// Keeps the parts of `bytes` (at `offset`) that lie in `fresh`, which hold nothing yet.
    pub(crate) fn insert(&mut self, offset: u64, bytes: &Bytes, fresh: Range<u64>) {
        let from = fresh.start.saturating_sub(offset) as usize;
        let to = (fresh.end.saturating_sub(offset) as usize).min(bytes.len());
        if from >= to {
            return;
        }
        let piece = bytes.slice(from..to);
        // A small piece would keep the whole read buffer alive that it was cut from, which may be 256 KiB.
        let piece = if piece.len() < COPIED { Bytes::copy_from_slice(&piece) } else { piece };
        self.pieces.insert(fresh.start, piece);
    }

    /// How far the message was read.
    pub(crate) const fn position(&self) -> u64 {
        self.read
    }

    /// The next bytes, if they are here.
    pub(crate) fn read(&mut self) -> Option<Bytes> {
        let entry = self.pieces.first_entry().filter(|entry| *entry.key() == self.read)?;
        let bytes = entry.remove();
        self.read += bytes.len() as u64;
        Some(bytes)
    }

    /// Everything, in one piece; copies only if it came in several.
    pub(crate) fn take(&mut self) -> Bytes {
        if self.pieces.len() <= 1 {
            return self.read().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(self.pieces.values().map(Bytes::len).sum());
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
