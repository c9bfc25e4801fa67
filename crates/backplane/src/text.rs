//! Short texts that lie in place: an event holds nine of them, and none is worth an allocation.

use bytes::BufMut;
use core::fmt;
use steadfast_wire::{Reader, frame::DecodeError};

/// A text of at most `MAX` bytes (255 at most), without control characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Text<const MAX: usize> {
    // First, so that the derived order is that of the bytes; those after the text are zero.
    bytes: [u8; MAX],
    length: u8,
}

/// What keeps a text out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    TooLong,
    Control,
}

impl<const MAX: usize> Text<MAX> {
    pub(crate) const EMPTY: Self = Self { bytes: [0; MAX], length: 0 };

    /// A text that is known: zeros after its `length` bytes.
    pub(crate) const fn constant(bytes: [u8; MAX], length: u8) -> Self {
        Self { bytes, length }
    }

    pub(crate) fn new(text: &str) -> Result<Self, Unfit> {
        if text.len() > MAX {
            return Err(Unfit::TooLong);
        }
        // Nearly every text is ASCII, and byte by byte is quicker.
        let control = if text.is_ascii() {
            text.bytes().any(|byte| byte.is_ascii_control())
        } else {
            text.chars().any(char::is_control)
        };
        if control {
            return Err(Unfit::Control);
        }
        let mut bytes = [0; MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, length: text.len() as u8 })
    }

    pub(crate) fn as_str(&self) -> &str {
        // What was put in was text.
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    pub(crate) fn lowercase(mut self) -> Self {
        self.bytes.make_ascii_lowercase();
        self
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(self.length);
        out.put_slice(self.as_bytes());
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Reads a text of at most `max` bytes and makes of it what `parse` makes.
pub(crate) fn decode<T, E>(
    reader: &mut Reader,
    max: usize,
    what: &'static str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, DecodeError> {
    let length = usize::from(reader.byte()?);
    if length > max {
        return Err(DecodeError::TooLarge);
    }
    let text = reader.with(length, |bytes| parse(core::str::from_utf8(bytes).ok()?).ok())?;
    text.ok_or(DecodeError::Malformed(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_any_size_keep_a_text_out() {
        for text in ["a\tb", "\u{7f}", "\0", "\u{85}", "ä\n", "ä\u{9f}"] {
            assert_eq!(Text::<8>::new(text), Err(Unfit::Control), "{text:?}");
        }
        for text in ["", "a b", "~", "ä", "\u{a0}"] {
            assert_eq!(Text::<8>::new(text).map(|text| text.length), Ok(text.len() as u8));
        }
        assert_eq!(Text::<1>::new("\u{e4}"), Err(Unfit::TooLong));
    }
}
