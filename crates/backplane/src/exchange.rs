//! What the agents of two hosts say to each other in a conversation, each in one whole message.
//!
//! Who opened it begins with [`Message::Hello`], the other answers with its own. Then each sends [`Message::Events`], counted up
//! from 1, and says [`Message::Taken`] when those of the other are in its journal.

use crate::event::Event;
use alloc::vec::Vec;
use bytes::{BufMut, Bytes};
use steadfast_wire::frame::DecodeError;
use steadfast_wire::{Incarnation, Reader};

/// The version that is spoken here.
pub const VERSION: u8 = 1;
/// The most events of one message.
pub const MAX_EVENTS: usize = 256;
/// A message that has so many bytes gets no more events. With a last one of the longest it is far below what a conversation takes.
pub const ENOUGH: usize = 256 * 1024;

const MAGIC: [u8; 16] = *b"steadfast events";
const HELLO: u8 = 1;
const EVENTS: u8 = 2;
const TAKEN: u8 = 3;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who speaks.
    Hello {
        /// What it speaks.
        version: u8,
        /// The run of its agent.
        run: Incarnation,
    },
    /// Events of the speaker's host, in the order in which they were published.
    Events {
        /// Counts these messages, from 1.
        number: u64,
        /// The events.
        events: Vec<Event>,
    },
    /// All up to this number are in the journal.
    Taken(u64),
}

impl Message {
    /// The greeting of this version.
    #[must_use]
    pub fn hello(run: Incarnation) -> Self {
        Self::Hello { version: VERSION, run }
    }

    /// The message's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Hello { version, run } => {
                out.put_u8(HELLO);
                out.put_slice(&MAGIC);
                out.put_u8(*version);
                out.put_u64(run.0);
            }
            Self::Events { number, events } => {
                out.put_u8(EVENTS);
                out.put_u64(*number);
                out.put_u16(events.len() as u16);
                for event in events {
                    event.encode(&mut out);
                }
            }
            Self::Taken(number) => {
                out.put_u8(TAKEN);
                out.put_u64(*number);
            }
        }
        out.into()
    }

    /// Reads one. What stands behind it is a later version's, if it says HELLO, and a fault otherwise.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.byte()? {
            HELLO => {
                if reader.array()? != MAGIC {
                    return Err(DecodeError::Malformed("another protocol"));
                }
                let version = reader.byte()?;
                let run = Incarnation(u64::from_be_bytes(reader.array()?));
                return Ok(Self::Hello { version, run });
            }
            EVENTS => {
                let number = u64::from_be_bytes(reader.array()?);
                let count = usize::from(u16::from_be_bytes(reader.array()?));
                if count > MAX_EVENTS {
                    return Err(DecodeError::Malformed("more events than one message may have"));
                }
                let events = (0..count).map(|_| Event::decode(&mut reader)).collect::<Result<_, _>>()?;
                Self::Events { number, events }
            }
            TAKEN => Self::Taken(u64::from_be_bytes(reader.array()?)),
            _ => return Err(DecodeError::Malformed("a message of an unknown kind")),
        };
        if reader.remaining() > 0 {
            return Err(DecodeError::Trailing);
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Client, EventId, Kind, Location, MAX_EVENT, MAX_PAYLOAD, Payload};
    use crate::name::JobId;
    use crate::timestamp::Timestamp;
    use alloc::vec;
    use steadfast_wire::Fingerprint;

    fn event(sequence: u64, length: usize) -> Event {
        Event {
            id: EventId { origin: Fingerprint([7; 32]), incarnation: Incarnation(9), sequence },
            space: "a.b.c".parse().unwrap(),
            name: "DONE".parse().unwrap(),
            severity: "info".parse().unwrap(),
            kind: Kind::Plain,
            payload: Payload::new(vec![7; length].into()).unwrap(),
            client: Client { name: "one".parse().unwrap(), job: JobId::NONE, extension: 0 },
            number: 1,
            location: Location { host: "node7".parse().unwrap(), address: None, pid: 1, start: Timestamp(1) },
            user: 1,
            time: Timestamp(1),
            schema: None,
            signature: None,
        }
    }

    #[test]
    fn golden() {
        let hello = Message::hello(Incarnation(0x0102));
        assert_eq!(hello.encode()[..], *b"\x01steadfast events\x01\0\0\0\0\0\0\x01\x02");
        assert_eq!(Message::Taken(3).encode()[..], [3, 0, 0, 0, 0, 0, 0, 0, 3]);
        let events = Message::Events { number: 4, events: Vec::new() };
        assert_eq!(events.encode()[..], [2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0]);
    }

    #[test]
    fn written_and_read_back_or_refused() {
        let events = Message::Events { number: 1, events: vec![event(1, 0), event(2, 30)] };
        for message in [Message::hello(Incarnation(5)), events, Message::Taken(u64::MAX)] {
            let bytes = message.encode();
            for cut in 0..bytes.len() {
                assert!(Message::decode(bytes.slice(..cut)).is_err(), "{cut} of {message:?}");
                for bit in 0..8 {
                    let mut changed = bytes.to_vec();
                    changed[cut] ^= 1 << bit;
                    let _any = Message::decode(changed.into());
                }
            }
            let longer = Bytes::from([&bytes[..], &[0]].concat());
            let later = matches!(message, Message::Hello { .. });
            assert_eq!(Message::decode(longer).is_ok(), later);
            assert_eq!(Message::decode(bytes), Ok(message));
        }
    }

    #[test]
    fn the_longest_is_what_a_conversation_takes() {
        let many = Message::Events { number: 1, events: vec![event(1, 0); MAX_EVENTS + 1] };
        assert!(Message::decode(many.encode()).is_err());
        let longest = Message::Events { number: 1, events: vec![event(1, MAX_PAYLOAD); 4] }.encode();
        assert!(longest.len() > ENOUGH && longest.len() + MAX_EVENT < 1 << 20);
    }
}
