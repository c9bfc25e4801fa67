//! Newtypes for everything that has a number or a name.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// A peer's identity: its Ed25519 public key (32 bytes).
///
/// Written for people as 52 letters and digits (base32 of RFC 4648, lower case, no padding).
///
/// ```
/// use steadfast_wire::Fingerprint;
/// let one = Fingerprint([7; 32]);
/// assert_eq!(one.to_string().parse::<Fingerprint>().unwrap(), one);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Letters in a written fingerprint: 256 bits in groups of five.
const FINGERPRINT_LETTERS: usize = 52;

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(FINGERPRINT_LETTERS);
        let (mut bits, mut held) = (0u32, 0u32);
        for byte in self.0 {
            bits = (bits << 8) | u32::from(byte);
            held += 8;
            while held >= 5 {
                held -= 5;
                text.push(char::from(ALPHABET[(bits >> held) as usize & 31]));
            }
        }
        text.push(char::from(ALPHABET[(bits << (5 - held)) as usize & 31]));
        f.write_str(&text)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a text is not a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// Not 52 characters.
    #[error(
        "a fingerprint has 52 letters and digits, this has {0}: copy it whole, as `steadfast id` prints it"
    )]
    Length(usize),
    /// A character outside a-z and 2-7, or bits beyond the key.
    #[error(
        "a fingerprint has only the letters a to z and the digits 2 to 7: copy it whole, as `steadfast id` prints it"
    )]
    Letters,
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != FINGERPRINT_LETTERS {
            return Err(FingerprintError::Length(text.chars().count()));
        }
        let mut key = [0u8; 32];
        let (mut bits, mut held, mut filled) = (0u32, 0u32, 0usize);
        for letter in text.bytes() {
            let value = match letter.to_ascii_lowercase() {
                low @ b'a'..=b'z' => low - b'a',
                digit @ b'2'..=b'7' => digit - b'2' + 26,
                _ => return Err(FingerprintError::Letters),
            };
            bits = (bits << 5) | u32::from(value);
            held += 5;
            if held >= 8 {
                held -= 8;
                if let Some(slot) = key.get_mut(filled) {
                    *slot = (bits >> held) as u8;
                }
                filled += 1;
            }
        }
        // 52 x 5 = 260 bits: the last four must be zero, or two texts would name one key.
        if bits & ((1 << held) - 1) != 0 {
            return Err(FingerprintError::Letters);
        }
        Ok(Self(key))
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{:x}", $letter, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

number!(
    /// One run of one endpoint process: random at its start, so that a restart is seen.
    Incarnation, u64, "i"
);
number!(
    /// A conversation (multi-socket): random, chosen by the side that opens it; below 2^62.
    SessionId, u64, "s"
);
number!(
    /// A local network as its owner numbers it (on Linux the interface index).
    NetworkId, u32, "n"
);
number!(
    /// A path as one of its two ends numbers it.
    PathNumber, u32, "p"
);

/// A message within one direction of a session; counts up from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An epoch token: 128 random bits that a session's side replaces at every resume (DESIGN, Semantics 5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub [u8; 16]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{:02x}{:02x}{:02x}", self.0[0], self.0[1], self.0[2])
    }
}
