//! Frames on their way to a carrier. Large payloads stay where they are until they are encrypted: without this copy one
//! stream over the loopback is about a tenth faster.

use crate::frame::{Data, Frame};
use alloc::vec::Vec;
use bytes::Bytes;

/// Payloads from this length on are referred to, in bytes; a reference costs a TLS record of its own.
const REFERRED: usize = 8192;

/// Whole frames, in the order in which they are to be said.
///
/// ```
/// use steadfast_wire::{Frame, Gather};
/// let mut gather = Gather::default();
/// let size = gather.put(&Frame::Pong { nonce: 7 });
/// assert_eq!(gather.len(), size);
/// assert_eq!(gather.slices().map(<[u8]>::len).sum::<usize>(), size);
/// ```
#[derive(Debug, Default)]
pub struct Gather {
    copied: Vec<u8>,
    /// Payloads, each with the number of copied bytes that come before it.
    referred: Vec<(usize, Bytes)>,
    referred_bytes: usize,
}

impl Gather {
    /// How many bytes there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.copied.len() + self.referred_bytes
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all there is, and lets go of payloads; keeps its room.
    pub fn clear(&mut self) {
        self.copied.clear();
        self.referred.clear();
        self.referred_bytes = 0;
    }

    /// Appends bytes, which are copied.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
    }

    /// Appends a frame; returns its size in bytes.
    pub fn put(&mut self, frame: &Frame) -> usize {
        let before = self.copied.len();
        frame.encode(&mut self.copied);
        self.copied.len() - before
    }

    /// Appends a part of a message, whose payload is copied only if it is short; returns the frame's size in bytes.
    pub fn put_data(&mut self, data: Data) -> usize {
        let before = self.len();
        data.encode_head(&mut self.copied);
        if data.payload.len() < REFERRED {
            self.copied.extend_from_slice(&data.payload);
        } else {
            self.referred_bytes += data.payload.len();
            self.referred.push((self.copied.len(), data.payload));
        }
        self.len() - before
    }

    /// All bytes, in order, in pieces that are not empty.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.referred.iter().map(|(end, _)| *end).chain([self.copied.len()]);
        let starts = [0].into_iter().chain(self.referred.iter().map(|(end, _)| *end));
        let payloads = self.referred.iter().map(|(_, payload)| &payload[..]).chain([&[][..]]);
        let pairs = starts.zip(ends).map(|(start, end)| &self.copied[start..end]).zip(payloads);
        pairs.flat_map(|(copied, payload)| [copied, payload]).filter(|slice| !slice.is_empty())
    }

    /// All bytes in one piece, for whoever does not mind the copy.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.slices().fold(Vec::with_capacity(self.len()), |mut all, slice| {
            all.extend_from_slice(slice);
            all
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MessageId, SessionId, Urgency};
    use alloc::vec;

    fn data(length: usize) -> Data {
        Data {
            session: SessionId(5),
            id: MessageId(1),
            offset: 70_000,
            class: Urgency::Background,
            fin: false,
            head: None,
            payload: vec![7; length].into(),
        }
    }

    #[test]
    fn what_is_referred_to_reads_as_if_it_were_copied() {
        let mut gather = Gather::default();
        let mut expected = Vec::new();
        let lengths = [REFERRED, 3, REFERRED - 1, 50_000, 60_000, 1];
        for length in lengths {
            let size = gather.put_data(data(length));
            let before = expected.len();
            Frame::Data(data(length)).encode(&mut expected);
            assert_eq!(size, expected.len() - before, "{length}");
            gather.put(&Frame::Pong { nonce: 9 });
            Frame::Pong { nonce: 9 }.encode(&mut expected);
        }
        assert_eq!(gather.len(), expected.len());
        assert!(gather.to_vec() == expected, "the same bytes in the same order");
        assert_eq!(gather.slices().count(), 7, "three payloads and what lies around them");
        gather.clear();
        assert!(gather.is_empty() && gather.slices().next().is_none());
    }

    #[test]
    fn a_payload_may_be_last() {
        let mut gather = Gather::default();
        gather.put_bytes(b"xy");
        gather.put_data(data(REFERRED));
        assert_eq!(gather.slices().last().map(<[u8]>::len), Some(REFERRED));
        assert_eq!(gather.to_vec().len(), gather.len());
    }
}
