//! The head of a message that belongs to a request or its response.
//!
//! Every message of a conversation that carries calls begins with such a head: version, kind, number of the call, and what
//! the kind adds. The body follows without a length, because the message has one. The first three fields stay as they are
//! in every version, so that a request of a version that is not spoken can be answered.

use crate::frame::DecodeError;
use crate::varint;
use bytes::{Buf, BufMut, Bytes};

/// The version that is spoken here.
pub const VERSION: u8 = 1;

/// The most bytes of a head: two bytes, a number of eight, a byte or a number, a number.
pub const MAX_HEAD: usize = 26;

/// The most bytes of body in a whole message; a longer body is streamed. So what one call makes the other side hold is
/// small, and what is read as it arrives stays within the windows of the conversation.
pub const MAX_WHOLE_BODY: usize = 32 * 1024;

/// The most bytes of what a fault says to people.
pub const MAX_WORDS: usize = 1024;

/// The calls of each urgency that may be open before the other side has said how many it takes, and that it always takes.
pub const FIRST_LIMIT: u64 = 64;

/// The most calls of each urgency that a side may allow to be open.
pub const MAX_LIMIT: u64 = 8192;

const REQUEST: u8 = 0;
const RESPONSE: u8 = 1;
const FAULT: u8 = 2;
const CANCEL: u8 = 3;
const LIMITS: u8 = 4;

/// A flag of a request: a deadline follows.
const DEADLINE: u8 = 1;

/// The longest deadline, in milliseconds (some 49 days); a longer one is none.
const MAX_DEADLINE: u64 = u32::MAX as u64;

/// What a message of a call is. Calls are numbered by whoever makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// A request; the body follows.
    Request {
        /// The call.
        call: u64,
        /// Milliseconds, from when it is taken, in which an answer is of use.
        deadline: Option<u32>,
    },
    /// The answer; the body follows.
    Response {
        /// The call.
        call: u64,
    },
    /// Why there is no other answer; at most [`MAX_WORDS`] bytes for people follow. The message is whole.
    Fault {
        /// The call.
        call: u64,
        /// What kind of failure.
        fault: Fault,
    },
    /// Nobody waits for the answer any more. Answered by a fault, or by the response if that was faster. The message is
    /// whole, and ends here.
    Cancel {
        /// The call.
        call: u64,
    },
    /// How many calls of each urgency the other side may have open, foreground first. Never lowered. The message is
    /// whole, and ends here.
    Limits([u64; 2]),
    /// A request of a version that is not spoken here.
    Foreign {
        /// The call.
        call: u64,
    },
}

/// Why a call has no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fault {
    /// It was not begun: the other side serves no calls, or is shutting down.
    Refused = 0,
    /// It was not begun: this version of calls is not spoken there.
    Version = 1,
    /// The handler says that it failed.
    Failed = 2,
    /// The handler panicked.
    Panicked = 3,
    /// The server shut down while the handler ran.
    Stopped = 4,
    /// The deadline passed before the handler began.
    LateUnbegun = 5,
    /// The deadline passed while the handler ran.
    Late = 6,
    /// It was cancelled before the handler began.
    CancelledUnbegun = 7,
    /// It was cancelled while the handler ran.
    Cancelled = 8,
    /// A call that was to be cancelled is not open.
    NotOpen = 9,
}

impl Fault {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 10] = [
        Self::Refused,
        Self::Version,
        Self::Failed,
        Self::Panicked,
        Self::Stopped,
        Self::LateUnbegun,
        Self::Late,
        Self::CancelledUnbegun,
        Self::Cancelled,
        Self::NotOpen,
    ];

    /// Whether the handler had begun.
    #[must_use]
    pub const fn had_begun(self) -> bool {
        !matches!(
            self,
            Self::Refused | Self::Version | Self::LateUnbegun | Self::CancelledUnbegun | Self::NotOpen
        )
    }
}

impl Head {
    /// Appends the head.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(VERSION);
        let (kind, call) = match *self {
            Self::Request { call, .. } | Self::Foreign { call } => (REQUEST, call),
            Self::Response { call } => (RESPONSE, call),
            Self::Fault { call, .. } => (FAULT, call),
            Self::Cancel { call } => (CANCEL, call),
            Self::Limits(_) => (LIMITS, 0),
        };
        out.put_u8(kind);
        varint::put(out, call);
        match *self {
            Self::Request { deadline: Some(deadline), .. } => {
                out.put_u8(DEADLINE);
                varint::put(out, u64::from(deadline));
            }
            Self::Request { deadline: None, .. } => out.put_u8(0),
            Self::Fault { fault, .. } => out.put_u8(fault as u8),
            Self::Limits(limits) => limits.into_iter().for_each(|limit| varint::put(out, limit)),
            Self::Response { .. } | Self::Cancel { .. } | Self::Foreign { .. } => {}
        }
    }

    /// Takes a head from the front of `input` and leaves the body; `Ok(None)`, with nothing taken, if more bytes are needed
    /// (never with [`MAX_HEAD`] bytes or more).
    pub fn decode(input: &mut Bytes) -> Result<Option<Self>, DecodeError> {
        let mut cursor = Cursor { bytes: input, at: 0 };
        match cursor.head() {
            Ok(head) => {
                let at = cursor.at;
                input.advance(at);
                Ok(Some(head))
            }
            Err(DecodeError::Truncated) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Reads without taking, because the rest may not be there yet.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or(DecodeError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self, max: u64) -> Result<u64, DecodeError> {
        let rest = self.bytes.get(self.at..).ok_or(DecodeError::Truncated)?;
        let (value, length) = varint::peek(rest).ok_or(DecodeError::Truncated)?;
        self.at += length;
        if value > max { Err(DecodeError::TooLarge) } else { Ok(value) }
    }

    fn head(&mut self) -> Result<Head, DecodeError> {
        let version = self.byte()?;
        if version == 0 {
            return Err(DecodeError::Malformed("a message that belongs to no call"));
        }
        let kind = self.byte()?;
        let call = self.varint(varint::MAX)?;
        if version != VERSION {
            return match kind {
                REQUEST => Ok(Head::Foreign { call }),
                _ => Err(DecodeError::Malformed("a call of a version that is not spoken")),
            };
        }
        match kind {
            REQUEST => {
                let deadline = match self.byte()? {
                    0 => None,
                    DEADLINE => Some(self.varint(MAX_DEADLINE)? as u32),
                    _ => return Err(DecodeError::Malformed("unknown flags of a request")),
                };
                Ok(Head::Request { call, deadline })
            }
            RESPONSE => Ok(Head::Response { call }),
            FAULT => {
                let code = self.byte()?;
                let fault = Fault::ALL.get(usize::from(code)).copied();
                let fault = fault.ok_or(DecodeError::Malformed("unknown fault of a call"))?;
                Ok(Head::Fault { call, fault })
            }
            CANCEL => Ok(Head::Cancel { call }),
            LIMITS if call == 0 => Ok(Head::Limits([self.varint(MAX_LIMIT)?, self.varint(MAX_LIMIT)?])),
            _ => Err(DecodeError::Malformed("unknown kind of a call's message")),
        }
    }
}

/// What a Homa message that belongs to a call is. It stands behind the body, so that a body of any length can be sent, and
/// is received, where it lies: what the kind adds, then one byte of version and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// A request.
    Request {
        /// Milliseconds, from when it is taken, in which an answer is of use.
        deadline: Option<u32>,
    },
    /// The answer.
    Response,
    /// Why there is no other answer; the body is at most [`MAX_WORDS`] bytes for people.
    Fault(Fault),
}

/// The most bytes of a tail.
pub const MAX_TAIL: usize = 5;

const TAIL_VERSION: u8 = VERSION << 4;
const LATE_REQUEST: u8 = 3;

impl Tail {
    /// Appends it to the body.
    pub fn encode(&self, out: &mut impl BufMut) {
        let kind = match self {
            Self::Request { deadline: None } => REQUEST,
            Self::Request { deadline: Some(deadline) } => {
                out.put_u32(*deadline);
                LATE_REQUEST
            }
            Self::Response => RESPONSE,
            Self::Fault(fault) => {
                out.put_u8(*fault as u8);
                FAULT
            }
        };
        out.put_u8(TAIL_VERSION | kind);
    }

    /// Takes it off a whole message and leaves the body.
    pub fn decode(message: &mut Bytes) -> Result<Self, DecodeError> {
        let (kind, rest) = message.split_last().ok_or(DecodeError::Truncated)?;
        let (tail, length) = match kind ^ TAIL_VERSION {
            REQUEST => (Self::Request { deadline: None }, 1),
            LATE_REQUEST => {
                let deadline = rest.last_chunk().ok_or(DecodeError::Truncated)?;
                (Self::Request { deadline: Some(u32::from_be_bytes(*deadline)) }, 5)
            }
            RESPONSE => (Self::Response, 1),
            FAULT => {
                let code = rest.last().ok_or(DecodeError::Truncated)?;
                let fault = Fault::ALL.get(usize::from(*code)).copied();
                (Self::Fault(fault.ok_or(DecodeError::Malformed("unknown fault of a call"))?), 2)
            }
            _ => {
                return Err(DecodeError::Malformed(
                    "a message of a version or kind of calls that is not spoken",
                ));
            }
        };
        message.truncate(message.len() - length);
        Ok(tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// A change here is a change of what is said: raise [`VERSION`].
    const GOLDEN: [(Head, &[u8]); 8] = [
        (Head::Request { call: 1, deadline: None }, &[1, 0, 1, 0]),
        (Head::Request { call: 300, deadline: Some(1500) }, &[1, 0, 0x41, 0x2c, 1, 0x45, 0xdc]),
        (
            Head::Request { call: varint::MAX, deadline: Some(u32::MAX) },
            &[1, 0, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0xc0, 0, 0, 0, 255, 255, 255, 255],
        ),
        (Head::Response { call: 1 }, &[1, 1, 1]),
        (Head::Fault { call: 2, fault: Fault::Failed }, &[1, 2, 2, 2]),
        (Head::Fault { call: 2, fault: Fault::NotOpen }, &[1, 2, 2, 9]),
        (Head::Cancel { call: 64 }, &[1, 3, 0x40, 64]),
        (Head::Limits([64, 1024]), &[1, 4, 0, 0x40, 64, 0x44, 0]),
    ];

    #[test]
    fn golden_vectors() {
        for (head, bytes) in GOLDEN {
            let mut out = Vec::new();
            head.encode(&mut out);
            assert_eq!(out, bytes, "{head:?}");
            assert!(bytes.len() <= MAX_HEAD);
            for cut in 0..bytes.len() {
                let mut part = Bytes::copy_from_slice(&bytes[..cut]);
                assert_eq!(Head::decode(&mut part), Ok(None), "{head:?} cut at {cut}");
                assert_eq!(part.len(), cut, "nothing is taken");
            }
            let mut whole = Bytes::from([bytes, b"body"].concat());
            assert_eq!(Head::decode(&mut whole), Ok(Some(head)));
            assert_eq!(&whole[..], b"body");
        }
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        for (bytes, what) in [
            (&[0, 0, 1, 0][..], "version 0"),
            (&[2, 1, 1], "an answer of another version"),
            (&[1, 9, 1], "an unknown kind"),
            (&[1, 0, 1, 2], "an unknown flag"),
            (&[1, 2, 1, 10], "an unknown fault"),
            (&[1, 4, 1, 1, 1], "limits of a call"),
            (&[1, 4, 0, 0x80, 1, 0, 0, 1], "a limit beyond its bound"),
            (&[1, 0, 1, 1, 0xc0, 0, 0, 1, 0, 0, 0, 0], "a deadline beyond its bound"),
        ] {
            let mut input = Bytes::copy_from_slice(bytes);
            assert!(Head::decode(&mut input).is_err(), "{what}");
        }
        let mut other = Bytes::from_static(&[7, 0, 5, 99, 99]);
        assert_eq!(Head::decode(&mut other), Ok(Some(Head::Foreign { call: 5 })));
    }

    #[test]
    fn golden_tails() {
        for (tail, bytes) in [
            (Tail::Request { deadline: None }, &[0x10][..]),
            (Tail::Request { deadline: Some(1500) }, &[0, 0, 5, 0xdc, 0x13]),
            (Tail::Response, &[0x11]),
            (Tail::Fault(Fault::Failed), &[2, 0x12]),
        ] {
            let mut out = Vec::new();
            tail.encode(&mut out);
            assert_eq!(out, bytes, "{tail:?}");
            assert!(bytes.len() <= MAX_TAIL);
            let mut whole = Bytes::from([b"body", bytes].concat());
            assert_eq!(Tail::decode(&mut whole), Ok(tail));
            assert_eq!(&whole[..], b"body");
        }
        for (bytes, what) in [
            (&[][..], "nothing"),
            (&[0x20], "another version"),
            (&[0x14], "an unknown kind"),
            (&[0, 5, 0xdc, 0x13], "half a deadline"),
            (&[0x12], "a fault without its kind"),
            (&[10, 0x12], "an unknown fault"),
        ] {
            assert!(Tail::decode(&mut Bytes::copy_from_slice(bytes)).is_err(), "{what}");
        }
    }

    proptest! {
        #[test]
        fn any_tail_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut input = Bytes::from(bytes.clone());
            if let Ok(tail) = Tail::decode(&mut input) {
                let mut out = input.to_vec();
                tail.encode(&mut out);
                prop_assert_eq!(out, bytes);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut input = Bytes::from(bytes);
            let enough = input.len() >= MAX_HEAD;
            let head = Head::decode(&mut input);
            prop_assert!(!(enough && head == Ok(None)));
            if let Ok(Some(head)) = head && !matches!(head, Head::Foreign { .. }) {
                let mut out = Vec::new();
                head.encode(&mut out);
                prop_assert_eq!(Head::decode(&mut Bytes::from(out)), Ok(Some(head)));
            }
        }
    }
}
