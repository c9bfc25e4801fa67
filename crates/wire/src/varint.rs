//! Integers of 1, 2, 4 or 8 bytes (the encoding of RFC 9000, section 16), and a reader that cannot run past its end.

use crate::frame::DecodeError;
use bytes::{Buf, BufMut, Bytes};

/// The largest integer that can be written.
pub const MAX: u64 = (1 << 62) - 1;

/// Appends `value`, which the caller keeps at or below [`MAX`]; a larger one is written as [`MAX`].
pub fn put(out: &mut impl BufMut, value: u64) {
    debug_assert!(value <= MAX, "varint {value} is too large");
    let value = value.min(MAX);
    let size = size(value);
    let length_bits = u64::from(size.trailing_zeros()) << 62;
    // Shifted to the top, so that one append serves all sizes.
    let bytes = (value << (64 - 8 * size) | length_bits).to_be_bytes();
    out.put_slice(&bytes[..size]);
}

/// How many bytes [`put`] takes for `value`.
#[must_use]
pub const fn size(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Reads an integer from the start of `input`: the value and the bytes it took, or `None` if more bytes are needed.
#[must_use]
#[inline]
pub fn peek(input: &[u8]) -> Option<(u64, usize)> {
    let first = *input.first()?;
    let length = 1usize << (first >> 6);
    let bytes = input.get(..length)?;
    let mut value = u64::from(first & 0x3f);
    for byte in &bytes[1..] {
        value = (value << 8) | u64::from(*byte);
    }
    Some((value, length))
}

/// A cursor over one frame's body. Every read is checked; nothing is copied until it is known to be there.
#[derive(Debug)]
pub struct Reader(Bytes);

impl Reader {
    /// Reads from `body`.
    #[must_use]
    pub const fn new(body: Bytes) -> Self {
        Self(body)
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.0.len()
    }

    /// One byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        if self.0.is_empty() { Err(DecodeError::Truncated) } else { Ok(self.0.get_u8()) }
    }

    /// One integer.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let (value, length) = peek(&self.0).ok_or(DecodeError::Truncated)?;
        self.0.advance(length);
        Ok(value)
    }

    /// One integer of at most `max`.
    pub fn bounded(&mut self, max: u64) -> Result<u64, DecodeError> {
        let value = self.varint()?;
        if value > max { Err(DecodeError::TooLarge) } else { Ok(value) }
    }

    /// An array of exactly `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        if self.0.len() < N {
            return Err(DecodeError::Truncated);
        }
        self.0.copy_to_slice(&mut out);
        Ok(out)
    }

    /// What `read` makes of the next `length` bytes, where they lie.
    #[inline]
    pub fn with<T>(&mut self, length: usize, read: impl FnOnce(&[u8]) -> T) -> Result<T, DecodeError> {
        let value = read(self.0.get(..length).ok_or(DecodeError::Truncated)?);
        self.0.advance(length);
        Ok(value)
    }

    /// A length of at most `max`, then that many bytes (shared, not copied).
    pub fn bytes(&mut self, max: usize) -> Result<Bytes, DecodeError> {
        let length = self.bounded(max as u64)? as usize;
        if self.0.len() < length {
            return Err(DecodeError::Truncated);
        }
        Ok(self.0.split_to(length))
    }

    /// All that is left (shared, not copied).
    pub fn rest(&mut self) -> Bytes {
        core::mem::take(&mut self.0)
    }
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn what_lies_there_is_read_in_place_or_not_at_all() {
        let mut reader = Reader::new(Bytes::from_static(b"abc"));
        assert_eq!(reader.with(2, <[u8]>::to_vec), Ok(b"ab".to_vec()));
        assert_eq!(reader.with(2, <[u8]>::len), Err(DecodeError::Truncated));
        assert_eq!(
            (reader.remaining(), reader.with(1, <[u8]>::len), reader.with(0, <[u8]>::len)),
            (1, Ok(1), Ok(0))
        );
        assert_eq!(reader.with(1, <[u8]>::len), Err(DecodeError::Truncated));
    }

    #[test]
    fn golden_vectors_of_rfc_9000_appendix_a1() {
        for (value, bytes) in [
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (15_293, &[0x7b, 0xbd]),
            (37, &[0x25]),
        ] {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(peek(bytes), Some((value, bytes.len())));
            assert_eq!(size(value), bytes.len());
            assert_eq!(peek(&bytes[..bytes.len() - 1]), None);
        }
    }
}
