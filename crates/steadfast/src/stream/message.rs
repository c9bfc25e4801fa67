//! What two sides of a conversation of streams say beside the streams' bytes.
//!
//! Each direction of a stream is one streamed message, unordered, that begins with a head: nothing in it for the
//! direction of whoever opened, whose message id names the stream from then on, and that id for the other. Credits and
//! resets are whole messages.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes by which the messages of this protocol are known, with its version.
const MARK: &[u8; 4] = b"STR\x01";

/// The longest head, in bytes.
const MAX_HEAD: usize = 4 + 1 + 8;

/// A stream, named by the id of the message in which its opener writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Whether this side opened it.
    pub(super) ours: bool,
    pub(super) id: u64,
}

/// How a direction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// A new stream.
    Open,
    /// The other direction of the stream that the reader of this opened.
    Answer(u64),
}

/// Why the direction of whoever accepted ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The application gave it up.
    GivenUp,
    /// There are too many streams; nobody ever saw this one.
    TooMany,
}

/// A whole message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// So many bytes of a stream may be sent, from its beginning.
    Credit(Key, u64),
    /// Nothing more will come of a stream from who accepted it.
    Reset(Key, Why),
}

impl Head {
    pub(super) fn encode(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(MAX_HEAD);
        bytes.put_slice(MARK);
        match self {
            Self::Open => bytes.put_u8(0),
            Self::Answer(id) => {
                bytes.put_u8(1);
                bytes.put_u64(id);
            }
        }
        bytes.freeze()
    }

    /// Takes a head from the first bytes of a message. `Ok(None)` if more are needed; an error if it is none.
    pub(super) fn take(bytes: &mut Bytes) -> Result<Option<Self>, ()> {
        let known = bytes.len().min(MARK.len());
        if bytes[..known] != MARK[..known] {
            return Err(());
        }
        let head = match bytes.get(MARK.len()) {
            None => return Ok(None),
            Some(0) => Self::Open,
            Some(1) => match bytes.get(MARK.len() + 1..MAX_HEAD) {
                Some(mut id) => Self::Answer(id.get_u64()),
                None => return Ok(None),
            },
            Some(_) => return Err(()),
        };
        bytes.advance(if head == Self::Open { MARK.len() + 1 } else { MAX_HEAD });
        Ok(Some(head))
    }
}

impl Control {
    pub(super) fn encode(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(4 + 2 + 8 + 8);
        bytes.put_slice(MARK);
        let key = |bytes: &mut BytesMut, key: Key| {
            bytes.put_u8(u8::from(key.ours));
            bytes.put_u64(key.id);
        };
        match self {
            Self::Credit(of, limit) => {
                bytes.put_u8(2);
                key(&mut bytes, of);
                bytes.put_u64(limit);
            }
            Self::Reset(of, why) => {
                bytes.put_u8(3);
                key(&mut bytes, of);
                bytes.put_u8(u8::from(why == Why::TooMany));
            }
        }
        bytes.freeze()
    }

    /// Reads what the peer said, with keys as this side has them.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MARK)?;
        let kind = rest.try_get_u8().ok()?;
        let ours = match rest.try_get_u8().ok()? {
            // What is the peer's own is not ours.
            0 => true,
            1 => false,
            _ => return None,
        };
        let key = Key { ours, id: rest.try_get_u64().ok()? };
        let control = match kind {
            2 => Self::Credit(key, rest.try_get_u64().ok()?),
            3 => match rest.try_get_u8().ok()? {
                0 => Self::Reset(key, Why::GivenUp),
                1 => Self::Reset(key, Why::TooMany),
                _ => return None,
            },
            _ => return None,
        };
        rest.is_empty().then_some(control)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_in_pieces() {
        for head in [Head::Open, Head::Answer(0x0102_0304_0506_0708)] {
            let whole = [&head.encode()[..], b"rest"].concat();
            let length = head.encode().len();
            for cut in 0..length {
                assert_eq!(Head::take(&mut Bytes::copy_from_slice(&whole[..cut])), Ok(None), "{cut}");
            }
            let mut bytes = Bytes::from(whole);
            assert_eq!(Head::take(&mut bytes), Ok(Some(head)));
            assert_eq!(bytes, "rest");
        }
        for wrong in [&b"GET / HTTP"[..], b"S?", b"STR\x01\x07", b"STR\x02"] {
            assert_eq!(Head::take(&mut Bytes::copy_from_slice(wrong)), Err(()));
        }
    }

    #[test]
    fn controls_come_back_from_the_other_side() {
        let seen = |ours| Key { ours, id: 7 };
        for ours in [true, false] {
            let said = Control::Credit(seen(ours), u64::MAX).encode();
            assert_eq!(Control::decode(&said), Some(Control::Credit(seen(!ours), u64::MAX)));
            for why in [Why::GivenUp, Why::TooMany] {
                let said = Control::Reset(seen(ours), why).encode();
                assert_eq!(Control::decode(&said), Some(Control::Reset(seen(!ours), why)));
                for cut in 0..said.len() {
                    assert_eq!(Control::decode(&said[..cut]), None);
                }
                assert_eq!(Control::decode(&[&said[..], b"x"].concat()), None);
            }
        }
    }
}
