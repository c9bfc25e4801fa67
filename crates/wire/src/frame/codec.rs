//! The bodies of the frames. One function writes, one reads; `tests.rs` holds their golden vectors.

use super::{
    Ack, Data, DecodeError, EndReason, Frame, Head, Hello, MAX_ACK_RANGES, MAX_ID_RANGES, MAX_OFFER,
    MAX_OUTSTANDING, MAX_PARTIAL_RANGES, MAX_PAYLOAD, MAX_PENDING_TOKENS, MAX_REASON, Process, Progress,
    Resume, ShutKind, decode_networks,
};
use crate::id::{Incarnation, MessageId, NetworkId, PathNumber, SessionId, Token};
use crate::label::{Labels, Order, Urgency};
use crate::network::MAX_NETWORKS;
use crate::range_set::RangeSet;
use crate::varint::{self, Reader};
use alloc::string::ToString;
use alloc::vec::Vec;
use bytes::BufMut;

const HELLO: u64 = 1;
const NETWORKS: u64 = 3;
const OPEN: u64 = 5;
const ACCEPT: u64 = 7;
const CONFIRM: u64 = 9;
const RESUME: u64 = 11;
pub(super) const DATA: u64 = 13;
const ACK: u64 = 15;
const CREDIT: u64 = 17;
const RESET: u64 = 19;
const RELABEL: u64 = 21;
const SHUT: u64 = 23;
const END: u64 = 25;
const PROGRESS: u64 = 27;
const CHECK: u64 = 29;
const HAVE: u64 = 31;
const PING: u64 = 33;
const PONG: u64 = 35;
const BYE: u64 = 37;
const OFFER: u64 = 39;
const SUSPEND: u64 = 41;

const FLAG_CLASS: u8 = 1;
const FLAG_FIN: u8 = 2;
const FLAG_STREAMED: u8 = 4;
const FLAG_LENGTH: u8 = 8;
const FLAG_EXPIRES: u8 = 16;

const REASONS: [EndReason; 8] = [
    EndReason::Closed,
    EndReason::Aborted,
    EndReason::RolledBack,
    EndReason::Unknown,
    EndReason::Forgotten,
    EndReason::Refused,
    EndReason::Violation,
    EndReason::Left,
];

fn put_flag(out: &mut Vec<u8>, flag: bool) {
    out.put_u8(flag.into());
}

fn flag(reader: &mut Reader) -> Result<bool, DecodeError> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Malformed("a flag is neither 0 nor 1")),
    }
}

fn session(reader: &mut Reader) -> Result<SessionId, DecodeError> {
    reader.varint().map(SessionId)
}

/// Ids count up from 1; 0 says "none" where that is allowed.
fn message(reader: &mut Reader) -> Result<MessageId, DecodeError> {
    match reader.varint()? {
        0 => Err(DecodeError::Malformed("message ids start at 1")),
        id => Ok(MessageId(id)),
    }
}

fn path(reader: &mut Reader) -> Result<PathNumber, DecodeError> {
    Ok(PathNumber(reader.bounded(u32::MAX.into())? as u32))
}

fn urgency(reader: &mut Reader) -> Result<Urgency, DecodeError> {
    flag(reader).map(Urgency::from_bit)
}

fn put_token(out: &mut Vec<u8>, token: Option<Token>) {
    put_flag(out, token.is_some());
    if let Some(token) = token {
        out.put_slice(&token.0);
    }
}

fn token(reader: &mut Reader) -> Result<Option<Token>, DecodeError> {
    Ok(if flag(reader)? { Some(Token(reader.array()?)) } else { None })
}

fn kind_of(close: bool) -> ShutKind {
    if close { ShutKind::Close } else { ShutKind::Finish }
}

/// Writes the body of any frame but DATA; returns the frame's type.
pub(super) fn encode_body(frame: &Frame, out: &mut Vec<u8>) -> u64 {
    match frame {
        Frame::Hello(hello) => {
            encode_hello(hello, out);
            HELLO
        }
        Frame::Networks { epoch, networks } => {
            varint::put(out, *epoch);
            varint::put(out, networks.len().min(MAX_NETWORKS) as u64);
            networks.iter().take(MAX_NETWORKS).for_each(|network| network.encode(out));
            NETWORKS
        }
        Frame::Resume(resume) => {
            encode_resume(resume, out);
            RESUME
        }
        Frame::Data(data) => {
            encode_data_fields(data, out);
            out.put_slice(&data.payload);
            DATA
        }
        Frame::Offer { from, to, epoch, offer } => {
            varint::put(out, *from);
            varint::put(out, *to);
            varint::put(out, *epoch);
            varint::put_bytes(out, &offer[..offer.len().min(MAX_OFFER)]);
            OFFER
        }
        Frame::Progress(progress) => {
            varint::put(out, progress.path.0.into());
            varint::put(out, progress.count);
            varint::put(out, progress.delay);
            varint::put(out, progress.clock);
            PROGRESS
        }
        Frame::Check { path } => {
            varint::put(out, path.0.into());
            CHECK
        }
        Frame::Have { path, count, closed } => {
            varint::put(out, path.0.into());
            put_flag(out, *closed);
            put_flag(out, count.is_some());
            varint::put(out, count.unwrap_or(0));
            HAVE
        }
        Frame::Ping { nonce } => {
            varint::put(out, *nonce);
            PING
        }
        Frame::Pong { nonce } => {
            varint::put(out, *nonce);
            PONG
        }
        Frame::Bye { reason } => {
            let mut end = reason.len().min(MAX_REASON);
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            varint::put_bytes(out, &reason.as_bytes()[..end]);
            BYE
        }
        Frame::Suspend { epoch, limit } => {
            varint::put(out, *epoch);
            varint::put(out, (*limit).min(varint::MAX));
            SUSPEND
        }
        of_a_session => encode_session_body(of_a_session, out),
    }
}

/// The small frames that begin with a session's id.
fn encode_session_body(frame: &Frame, out: &mut Vec<u8>) -> u64 {
    match frame {
        Frame::Open { session, per_urgency, token } => {
            varint::put(out, session.0);
            put_flag(out, *per_urgency);
            out.put_slice(&token.0);
            OPEN
        }
        Frame::Accept { session, token, holds } => {
            varint::put(out, session.0);
            out.put_slice(&token.0);
            out.put_slice(&holds.0);
            ACCEPT
        }
        Frame::Confirm { session, holds } => {
            varint::put(out, session.0);
            out.put_slice(&holds.0);
            CONFIRM
        }
        Frame::Ack(session, ack) => {
            varint::put(out, session.0);
            ack.received.encode(out, MAX_ACK_RANGES);
            ack.delivered.encode(out, MAX_ACK_RANGES);
            ack.dropped.encode(out, MAX_ACK_RANGES);
            ACK
        }
        Frame::Credit { session, class, limit } => {
            varint::put(out, session.0);
            out.put_u8(*class as u8);
            varint::put(out, *limit);
            CREDIT
        }
        Frame::Reset { session, id, order, sequence, class, charged, known } => {
            varint::put(out, session.0);
            varint::put(out, id.0);
            out.put_u8(*order as u8);
            varint::put(out, *sequence);
            out.put_u8(*class as u8);
            varint::put(out, *charged);
            put_flag(out, *known);
            RESET
        }
        Frame::Relabel { session, id, labels } => {
            varint::put(out, session.0);
            varint::put(out, id.0);
            labels.encode(out);
            RELABEL
        }
        Frame::Shut { session, last, kind } => {
            varint::put(out, session.0);
            varint::put(out, last.0);
            put_flag(out, *kind == ShutKind::Close);
            SHUT
        }
        Frame::End { session, reason, common } => {
            varint::put(out, session.0);
            out.put_u8(REASONS.iter().position(|known| known == reason).unwrap_or(0) as u8);
            varint::put(out, common.0);
            END
        }
        other => unreachable!("{other:?} is encoded elsewhere"),
    }
}

fn encode_hello(hello: &Hello, out: &mut Vec<u8>) {
    varint::put(out, hello.version);
    out.put_u64(hello.incarnation.0);
    varint::put(out, hello.path.0.into());
    varint::put(out, hello.network.0.into());
    out.put_u16(hello.port);
    varint::put(out, hello.features);
    put_flag(out, hello.durable);
    varint::put(out, hello.max_message);
    varint::put(out, hello.windows[0]);
    varint::put(out, hello.windows[1]);
    varint::put(out, hello.process.pid.into());
    varint::put(out, hello.process.start.min(varint::MAX));
    varint::put(out, hello.process.namespace.min(varint::MAX));
}

fn decode_hello(reader: &mut Reader) -> Result<Hello, DecodeError> {
    let hello = Hello {
        version: reader.varint()?,
        incarnation: Incarnation(u64::from_be_bytes(reader.array()?)),
        path: path(reader)?,
        network: NetworkId(reader.bounded(u32::MAX.into())? as u32),
        port: u16::from_be_bytes(reader.array()?),
        features: reader.varint()?,
        durable: flag(reader)?,
        max_message: reader.varint()?,
        windows: [reader.varint()?, reader.varint()?],
        process: Process {
            pid: reader.bounded(u32::MAX.into())? as u32,
            start: reader.varint()?,
            namespace: reader.varint()?,
        },
    };
    // A later version may say more here.
    reader.rest();
    Ok(hello)
}

/// Everything of a DATA frame before its payload.
pub(super) fn encode_data_fields(data: &Data, out: &mut Vec<u8>) {
    debug_assert_eq!(data.head.is_some(), data.offset == 0);
    debug_assert!(data.payload.len() <= MAX_PAYLOAD);
    varint::put(out, data.session.0);
    varint::put(out, data.id.0);
    varint::put(out, data.offset);
    let mut flags = if data.class == Urgency::Background { FLAG_CLASS } else { 0 };
    flags |= if data.fin { FLAG_FIN } else { 0 };
    if let Some(head) = &data.head {
        flags |= if head.streamed { FLAG_STREAMED } else { 0 };
        flags |= if head.length.is_some() { FLAG_LENGTH } else { 0 };
        flags |= if head.expires_in.is_some() { FLAG_EXPIRES } else { 0 };
    }
    out.put_u8(flags);
    if let Some(head) = &data.head {
        head.labels.encode(out);
        head.order.encode(out, data.id);
        for number in [head.length, head.expires_in].into_iter().flatten() {
            varint::put(out, number.min(varint::MAX));
        }
    }
}

fn decode_data(reader: &mut Reader) -> Result<Data, DecodeError> {
    let (session, id, offset, flags) = (session(reader)?, message(reader)?, reader.varint()?, reader.byte()?);
    if flags & !(FLAG_CLASS | FLAG_FIN | FLAG_STREAMED | FLAG_LENGTH | FLAG_EXPIRES) != 0 {
        return Err(DecodeError::Malformed("unknown DATA flags"));
    }
    let head = if offset == 0 {
        let labels = Labels::decode(reader)?;
        let order = Order::decode(reader, id)?;
        let length = if flags & FLAG_LENGTH != 0 { Some(reader.varint()?) } else { None };
        let expires_in = if flags & FLAG_EXPIRES != 0 { Some(reader.varint()?) } else { None };
        let streamed = flags & FLAG_STREAMED != 0;
        if !streamed && length.is_none() {
            return Err(DecodeError::Malformed("a whole message must say its length"));
        }
        Some(Head { labels, order, streamed, length, expires_in })
    } else {
        None
    };
    let payload = reader.rest();
    if payload.len() > MAX_PAYLOAD || offset.saturating_add(payload.len() as u64) >= varint::MAX {
        return Err(DecodeError::TooLarge);
    }
    let class = Urgency::from_bit(flags & FLAG_CLASS != 0);
    Ok(Data { session, id, offset, class, fin: flags & FLAG_FIN != 0, head, payload })
}

fn encode_resume(resume: &Resume, out: &mut Vec<u8>) {
    varint::put(out, resume.session.0);
    put_flag(out, resume.fresh);
    put_flag(out, resume.per_urgency);
    put_flag(out, resume.expects);
    put_token(out, resume.confirmed);
    varint::put(out, resume.offered.len() as u64);
    resume.offered.iter().for_each(|token| out.put_slice(&token.0));
    put_token(out, resume.holds);
    varint::put(out, resume.next.0);
    put_flag(out, resume.shut.is_some());
    if let Some((last, kind)) = resume.shut {
        varint::put(out, last.0);
        put_flag(out, kind == ShutKind::Close);
    }
    for set in [&resume.received, &resume.delivered, &resume.dropped] {
        set.encode(out, MAX_ID_RANGES);
    }
    varint::put(out, resume.partial.len() as u64);
    for (id, units) in &resume.partial {
        varint::put(out, id.0);
        units.encode(out, MAX_PARTIAL_RANGES);
    }
    for number in resume.charged.iter().chain(&resume.limits) {
        varint::put(out, *number);
    }
}

fn decode_resume(reader: &mut Reader) -> Result<Resume, DecodeError> {
    let (session, fresh, per_urgency) = (session(reader)?, flag(reader)?, flag(reader)?);
    let expects = flag(reader)?;
    let confirmed = token(reader)?;
    let mut offered = Vec::new();
    for _ in 0..reader.bounded(MAX_PENDING_TOKENS as u64)? {
        offered.push(Token(reader.array()?));
    }
    let holds = token(reader)?;
    let next = message(reader)?;
    let shut = if flag(reader)? { Some((MessageId(reader.varint()?), kind_of(flag(reader)?))) } else { None };
    let mut sets: [RangeSet; 3] = Default::default();
    for set in &mut sets {
        *set = RangeSet::decode(reader, MAX_ID_RANGES)?;
    }
    let (mut partial, mut ranges) = (Vec::new(), 0);
    for _ in 0..reader.bounded(MAX_OUTSTANDING as u64)? {
        let id = message(reader)?;
        let units = RangeSet::decode(reader, MAX_PARTIAL_RANGES - ranges)?;
        if units.is_empty() {
            return Err(DecodeError::Malformed("a partial message has nothing"));
        }
        ranges += units.ranges();
        partial.push((id, units));
    }
    let [received, delivered, dropped] = sets;
    let charged = [reader.varint()?, reader.varint()?];
    let limits = [reader.varint()?, reader.varint()?];
    Ok(Resume {
        session,
        fresh,
        per_urgency,
        expects,
        confirmed,
        offered,
        holds,
        next,
        shut,
        received,
        delivered,
        dropped,
        partial,
        charged,
        limits,
    })
}

/// Reads the body of a frame; `None` for an unknown type, whose body is left unread.
pub(super) fn decode_body(kind: u64, reader: &mut Reader) -> Result<Option<Frame>, DecodeError> {
    Ok(Some(match kind {
        HELLO => Frame::Hello(decode_hello(reader)?),
        NETWORKS => Frame::Networks { epoch: reader.varint()?, networks: decode_networks(reader)? },
        OPEN => Frame::Open {
            session: session(reader)?,
            per_urgency: flag(reader)?,
            token: Token(reader.array()?),
        },
        ACCEPT => Frame::Accept {
            session: session(reader)?,
            token: Token(reader.array()?),
            holds: Token(reader.array()?),
        },
        CONFIRM => Frame::Confirm { session: session(reader)?, holds: Token(reader.array()?) },
        RESUME => Frame::Resume(decode_resume(reader)?),
        DATA => Frame::Data(decode_data(reader)?),
        ACK => {
            let session = session(reader)?;
            let received = RangeSet::decode(reader, MAX_ACK_RANGES)?;
            let delivered = RangeSet::decode(reader, MAX_ACK_RANGES)?;
            let dropped = RangeSet::decode(reader, MAX_ACK_RANGES)?;
            Frame::Ack(session, Ack { received, delivered, dropped })
        }
        CREDIT => {
            Frame::Credit { session: session(reader)?, class: urgency(reader)?, limit: reader.varint()? }
        }
        RESET => Frame::Reset {
            session: session(reader)?,
            id: message(reader)?,
            order: urgency(reader)?,
            sequence: reader.varint()?,
            class: urgency(reader)?,
            charged: reader.varint()?,
            known: flag(reader)?,
        },
        RELABEL => Frame::Relabel {
            session: session(reader)?,
            id: message(reader)?,
            labels: Labels::decode(reader)?,
        },
        SHUT => Frame::Shut {
            session: session(reader)?,
            last: MessageId(reader.varint()?),
            kind: kind_of(flag(reader)?),
        },
        END => Frame::End {
            session: session(reader)?,
            // A reason of a later version still ends the session.
            reason: REASONS.get(reader.byte()? as usize).copied().unwrap_or(EndReason::Aborted),
            common: MessageId(reader.varint()?),
        },
        OFFER => Frame::Offer {
            from: reader.varint()?,
            to: reader.varint()?,
            epoch: reader.varint()?,
            offer: reader.bytes(MAX_OFFER)?,
        },
        PROGRESS => Frame::Progress(Progress {
            path: path(reader)?,
            count: reader.varint()?,
            delay: reader.varint()?,
            clock: reader.varint()?,
        }),
        CHECK => Frame::Check { path: path(reader)? },
        HAVE => {
            let (path, closed, known, count) =
                (path(reader)?, flag(reader)?, flag(reader)?, reader.varint()?);
            Frame::Have { path, count: known.then_some(count), closed }
        }
        PING => Frame::Ping { nonce: reader.varint()? },
        PONG => Frame::Pong { nonce: reader.varint()? },
        BYE => {
            let text = reader.bytes(MAX_REASON)?;
            let text =
                core::str::from_utf8(&text).map_err(|_| DecodeError::Malformed("a reason is not UTF-8"))?;
            Frame::Bye { reason: text.to_string() }
        }
        SUSPEND => Frame::Suspend { epoch: reader.varint()?, limit: reader.varint()? },
        _ => return Ok(None),
    }))
}
