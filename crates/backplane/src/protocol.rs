//! What a client and its agent say to each other over a stream: a Unix socket, for which the kernel vouches.
//!
//! A frame is a type (one byte), the length of its body (varint, at most [`MAX_BODY`]) and the body. Odd types must be
//! understood; unknown even ones are skipped. HELLO keeps its beginning in all versions, so that every agent can say which
//! versions it speaks. Numbers of requests are the client's; the agent answers in the order in which it is asked.

use crate::agent::{Publication, Replay, Replayed};
use crate::code::Code;
use crate::event::{Client, Event, EventId, Kind, Location, MAX_EVENT, Payload, SchemaInfo, flag};
use crate::handle::EventHandle;
use crate::name::{EventName, EventSpace, Severity};
use crate::queue::{Delivery, Provenance, SubscriptionId};
use crate::reason::Reason;
use crate::schema::{Declaration, MAX_DECLARED};
use crate::subscription::{MAX_SUBSCRIPTION, Matching};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::{Buf, BufMut, BytesMut};
use core::time::Duration;
use steadfast_wire::frame::DecodeError;
use steadfast_wire::{Fingerprint, Incarnation, Reader, varint};

/// The highest version that is spoken here. With 2 a refusal says its [`Reason`].
pub const VERSION: u64 = 2;
/// The lowest.
pub const LOWEST: u64 = 1;
/// The most bytes of a frame's body.
pub const MAX_BODY: usize = MAX_EVENT + 16;
/// The most bytes of what a refusal says to people.
pub const MAX_WORDS: usize = 512;
/// The longest time that a frame can name, in milliseconds (some 49 days); a longer one is said as this.
const MAX_MILLISECONDS: u64 = u32::MAX as u64;

pub(crate) const HELLO: u8 = 1;
const DECLARE: u8 = 3;
const PUBLISH: u8 = 5;
const SUBSCRIBE: u8 = 7;
const UNSUBSCRIBE: u8 = 9;
const BYE: u8 = 11;
const WELCOME: u8 = 21;
const DONE: u8 = 23;
const PUBLISHED: u8 = 25;
const SUBSCRIBED: u8 = 27;
const REFUSED: u8 = 29;
const EVENT: u8 = 31;
const DROPPED: u8 = 33;
const LOST: u8 = 35;

/// The version that two speak, of whom one says its lowest and highest; none if there is none.
pub(crate) const fn version(lowest: u64, highest: u64) -> Option<u64> {
    let both = if highest < VERSION { highest } else { VERSION };
    if lowest <= both && both >= LOWEST { Some(both) } else { None }
}

/// Whether an agent's first frame may begin with this.
pub(crate) const fn is_first(kind: u8) -> bool {
    matches!(kind, WELCOME | REFUSED)
}

/// A number that a client gives to what it asks for; 0 for what is not to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request(pub u64);

impl Request {
    /// Not to be answered.
    pub const NONE: Self = Self(0);
}

/// The first frame of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The lowest version that it speaks.
    pub lowest: u64,
    /// The highest.
    pub highest: u64,
    /// Where it publishes; none if it only subscribes.
    pub space: Option<EventSpace>,
    /// What it calls itself.
    pub client: Client,
}

/// The agent's answer to HELLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version that is spoken from now on.
    pub version: u64,
    /// The identity of the host.
    pub origin: Fingerprint,
    /// This run of its agent: another one after a restart.
    pub incarnation: Incarnation,
    /// How events name the client's process.
    pub location: Location,
    /// Its user, as the kernel says.
    pub user: u32,
}

/// Something that is not done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What was asked; [`Request::NONE`] if the stream itself was at fault, which then ends.
    pub request: Request,
    /// FTB's code for it.
    pub code: Code,
    /// After which time it may go better, in whole milliseconds.
    pub retry_after: Option<Duration>,
    /// For people; at most [`MAX_WORDS`] bytes.
    pub words: String,
    /// Why, for programs; [`Reason::Other`] is not said, as version 1 says none.
    pub reason: Reason,
}

/// Everything that is said. Clients say the first five, agents those after [`Bye`](Self::Bye), which both say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Who the client is.
    Hello(Hello),
    /// It will publish these events. Answered with [`Done`](Self::Done).
    Declare {
        /// What is asked.
        request: Request,
        /// What their schema says of itself.
        info: Option<SchemaInfo>,
        /// At most [`MAX_DECLARED`].
        events: Vec<Declaration>,
    },
    /// An event. Answered with [`Published`](Self::Published) if there is a request.
    Publish {
        /// What is asked.
        request: Request,
        /// What is published.
        publication: Publication,
    },
    /// It wants events. Answered with [`Subscribed`](Self::Subscribed), before the first of them.
    Subscribe {
        /// What is asked.
        request: Request,
        /// How the client numbers it.
        id: SubscriptionId,
        /// How attributes are joined.
        matching: Matching,
        /// What it wants of the past.
        replay: Replay,
        /// In FTB's language, at most [`MAX_SUBSCRIPTION`] bytes.
        text: String,
    },
    /// It wants them no more. Answered with [`Done`](Self::Done).
    Unsubscribe {
        /// What is asked.
        request: Request,
        /// Which.
        id: SubscriptionId,
    },
    /// The end: everything said before was taken in. The agent says so in answer.
    Bye,
    /// The agent's answer to [`Hello`](Self::Hello).
    Welcome(Welcome),
    /// It is done.
    Done(Request),
    /// The event was handed to everybody here who wants it.
    Published {
        /// What was asked.
        request: Request,
        /// Which event it became.
        handle: Box<EventHandle>,
    },
    /// The subscription stands.
    Subscribed {
        /// What was asked.
        request: Request,
        /// What comes first.
        replayed: Replayed,
        /// The newest event that there was then, wanted or not; number 0 of this run if there was none. Whoever asks
        /// for what came after it misses nothing.
        newest: EventId,
    },
    /// It is not done.
    Refused(Refused),
    /// An event that the client wants.
    Event(Delivery),
    /// So many events that it wanted gave way here.
    Dropped(u64),
    /// So many publications that were not to be answered were refused.
    Lost {
        /// How many.
        count: u64,
        /// The last one's reason.
        code: Code,
    },
}

impl Frame {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        // Nearly every body has a length of two bytes; where it has another, the body moves.
        let (head, guess) = (start + 1, 2);
        out.extend_from_slice(&[0; 3]);
        let kind = self.encode_body(out);
        let body = head + guess..out.len();
        debug_assert!(body.len() <= MAX_BODY);
        let (length, size) = (body.len(), varint::size(body.len() as u64));
        if size > guess {
            out.resize(out.len() + size - guess, 0);
        }
        if size != guess {
            out.copy_within(body, head + size);
        }
        out.truncate(head + size + length);
        out[start] = kind;
        varint::put(&mut &mut out[head..head + size], length as u64);
    }

    fn encode_body(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Self::Hello(hello) => hello.encode(out),
            Self::Declare { request, info, events } => {
                request.encode(out);
                put_option(info.as_ref(), out, SchemaInfo::encode);
                varint::put(out, events.len() as u64);
                for Declaration { name, severity } in events {
                    name.encode(out);
                    severity.encode(out);
                }
                DECLARE
            }
            Self::Publish { request, publication } => {
                request.encode(out);
                publication.name.encode(out);
                publication.kind.encode(out);
                publication.payload.encode(out);
                PUBLISH
            }
            Self::Subscribe { request, id, matching, replay, text } => {
                request.encode(out);
                varint::put(out, u64::from(id.0));
                out.put_u8(*matching as u8);
                replay.encode(out);
                varint::put_bytes(out, text.as_bytes());
                SUBSCRIBE
            }
            Self::Unsubscribe { request, id } => {
                request.encode(out);
                varint::put(out, u64::from(id.0));
                UNSUBSCRIBE
            }
            Self::Bye => BYE,
            Self::Welcome(welcome) => welcome.encode(out),
            Self::Done(request) => {
                request.encode(out);
                DONE
            }
            Self::Published { request, handle } => {
                request.encode(out);
                handle.encode(out);
                PUBLISHED
            }
            Self::Subscribed { request, replayed, newest } => {
                request.encode(out);
                varint::put(out, replayed.events);
                out.put_u8(u8::from(replayed.complete));
                newest.encode(out);
                SUBSCRIBED
            }
            Self::Refused(refused) => refused.encode(out),
            Self::Event(delivery) => {
                out.put_u8(delivery.provenance as u8);
                put_option(delivery.replay, out, |id, out| varint::put(out, u64::from(id.0)));
                delivery.event.encode(out);
                EVENT
            }
            Self::Dropped(count) => {
                varint::put(out, *count);
                DROPPED
            }
            Self::Lost { count, code } => {
                varint::put(out, *count);
                put_code(*code, out);
                LOST
            }
        }
    }

    /// Takes a frame from the front of `input`; `Ok(None)` if more bytes are needed. Never wants more than [`MAX_BODY`] bytes
    /// and a few.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, DecodeError> {
        loop {
            let Some((kind, rest)) = input.split_first() else { return Ok(None) };
            let kind = *kind;
            let Some((length, size)) = varint::peek(rest) else { return Ok(None) };
            if length > MAX_BODY as u64 {
                return Err(DecodeError::TooLarge);
            }
            if rest.len() < size + length as usize {
                return Ok(None);
            }
            input.advance(1 + size);
            let mut reader = Reader::new(input.split_to(length as usize).freeze());
            let Some(frame) = Self::decode_body(kind, &mut reader)? else { continue };
            return if reader.remaining() == 0 { Ok(Some(frame)) } else { Err(DecodeError::Trailing) };
        }
    }

    fn decode_body(kind: u8, reader: &mut Reader) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match kind {
            HELLO => Self::Hello(Hello::decode(reader)?),
            DECLARE => Self::Declare {
                request: Request::decode(reader)?,
                info: flag(reader)?.then(|| SchemaInfo::decode(reader)).transpose()?,
                events: (0..reader.bounded(MAX_DECLARED as u64)?)
                    .map(|_| {
                        let name = EventName::decode(reader)?;
                        Ok(Declaration { name, severity: Severity::decode(reader)? })
                    })
                    .collect::<Result<_, DecodeError>>()?,
            },
            PUBLISH => Self::Publish {
                request: Request::decode(reader)?,
                publication: Publication {
                    name: EventName::decode(reader)?,
                    kind: Kind::decode(reader)?,
                    payload: Payload::decode(reader)?,
                },
            },
            SUBSCRIBE => Self::Subscribe {
                request: Request::decode(reader)?,
                id: subscription(reader)?,
                matching: match reader.byte()? {
                    0 => Matching::Every,
                    1 => Matching::Ftb,
                    _ => return Err(DecodeError::Malformed("an unknown matching")),
                },
                replay: Replay::decode(reader)?,
                text: words(reader, MAX_SUBSCRIPTION)?,
            },
            UNSUBSCRIBE => Self::Unsubscribe { request: Request::decode(reader)?, id: subscription(reader)? },
            BYE => Self::Bye,
            WELCOME => Self::Welcome(Welcome::decode(reader)?),
            DONE => Self::Done(Request::decode(reader)?),
            PUBLISHED => Self::Published {
                request: Request::decode(reader)?,
                handle: Box::new(EventHandle::decode(reader)?),
            },
            SUBSCRIBED => Self::Subscribed {
                request: Request::decode(reader)?,
                replayed: Replayed { events: reader.varint()?, complete: flag(reader)? },
                newest: EventId::decode(reader)?,
            },
            REFUSED => Self::Refused(Refused::decode(reader)?),
            EVENT => Self::Event(Delivery {
                provenance: match reader.byte()? {
                    0 => Provenance::Local,
                    1 => Provenance::Signed,
                    2 => Provenance::Unsigned,
                    _ => return Err(DecodeError::Malformed("an unknown provenance")),
                },
                replay: flag(reader)?.then(|| subscription(reader)).transpose()?,
                event: Arc::new(Event::decode(reader)?),
            }),
            DROPPED => Self::Dropped(reader.varint()?),
            LOST => Self::Lost { count: reader.varint()?, code: code(reader)? },
            kind if kind % 2 == 1 => return Err(DecodeError::Unknown(u64::from(kind))),
            _ => return Ok(None),
        }))
    }
}

impl Request {
    fn encode(self, out: &mut impl BufMut) {
        varint::put(out, self.0);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self(reader.varint()?))
    }
}

impl Hello {
    fn encode(&self, out: &mut Vec<u8>) -> u8 {
        varint::put(out, self.lowest);
        varint::put(out, self.highest);
        put_option(self.space.as_ref(), out, EventSpace::encode);
        self.client.encode(out);
        HELLO
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let (lowest, highest) = (reader.varint()?, reader.varint()?);
        if version(lowest, highest).is_none() {
            // What follows is another version's matter.
            let client =
                Client { name: crate::name::ClientName::NONE, job: crate::name::JobId::NONE, extension: 0 };
            reader.rest();
            return Ok(Self { lowest, highest, space: None, client });
        }
        let space = flag(reader)?.then(|| EventSpace::decode(reader)).transpose()?;
        Ok(Self { lowest, highest, space, client: Client::decode(reader)? })
    }
}

impl Welcome {
    fn encode(&self, out: &mut Vec<u8>) -> u8 {
        varint::put(out, self.version);
        out.put_slice(&self.origin.0);
        out.put_u64(self.incarnation.0);
        self.location.encode(out);
        out.put_u32(self.user);
        WELCOME
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            version: reader.varint()?,
            origin: Fingerprint(reader.array()?),
            incarnation: Incarnation(u64::from_be_bytes(reader.array()?)),
            location: Location::decode(reader)?,
            user: u32::from_be_bytes(reader.array()?),
        })
    }
}

impl Refused {
    fn encode(&self, out: &mut Vec<u8>) -> u8 {
        self.request.encode(out);
        put_code(self.code, out);
        put_option(self.retry_after, out, put_duration);
        let end = (0..=self.words.len().min(MAX_WORDS)).rev().find(|at| self.words.is_char_boundary(*at));
        varint::put_bytes(out, &self.words.as_bytes()[..end.unwrap_or(0)]);
        if self.reason != Reason::Other {
            out.put_u8(self.reason as u8);
        }
        REFUSED
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            request: Request::decode(reader)?,
            code: code(reader)?,
            retry_after: flag(reader)?.then(|| duration(reader)).transpose()?,
            words: words(reader, MAX_WORDS)?,
            reason: match reader.remaining() {
                0 => Reason::Other,
                _ => Reason::from_number(reader.byte()?),
            },
        })
    }
}

impl Replay {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => out.put_u8(0),
            Self::Recent { events, within } => {
                out.put_u8(1);
                varint::put(out, u64::from(*events));
                put_duration(*within, out);
            }
            Self::After(id) => {
                out.put_u8(2);
                id.encode(out);
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.byte()? {
            0 => Self::Nothing,
            1 => Self::Recent {
                events: reader.bounded(u64::from(u32::MAX))? as u32,
                within: duration(reader)?,
            },
            2 => Self::After(EventId::decode(reader)?),
            _ => return Err(DecodeError::Malformed("an unknown kind of replay")),
        })
    }
}

fn put_option<T, B: BufMut>(value: Option<T>, out: &mut B, put: impl FnOnce(T, &mut B)) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(value, out);
    }
}

/// Rounded up: who waits for so long does not come too early.
fn put_duration(duration: Duration, out: &mut Vec<u8>) {
    let milliseconds = duration.as_nanos().div_ceil(1_000_000);
    varint::put(out, u64::try_from(milliseconds).unwrap_or(u64::MAX).min(MAX_MILLISECONDS));
}

fn duration(reader: &mut Reader) -> Result<Duration, DecodeError> {
    Ok(Duration::from_millis(reader.bounded(MAX_MILLISECONDS)?))
}

fn put_code(code: Code, out: &mut Vec<u8>) {
    out.put_u8((code as i32).unsigned_abs() as u8);
}

fn code(reader: &mut Reader) -> Result<Code, DecodeError> {
    Code::from_number(-i32::from(reader.byte()?)).ok_or(DecodeError::Malformed("an unknown code"))
}

fn subscription(reader: &mut Reader) -> Result<SubscriptionId, DecodeError> {
    Ok(SubscriptionId(reader.bounded(u64::from(u32::MAX))? as u32))
}

fn words(reader: &mut Reader, max: usize) -> Result<String, DecodeError> {
    let bytes = reader.bytes(max)?;
    let words = core::str::from_utf8(&bytes).map_err(|_| DecodeError::Malformed("a text that is none"))?;
    Ok(words.into())
}

#[cfg(test)]
mod tests;
