//! Journal records as bytes, for a store: the same on every machine, bounded, and refused if they are not exactly right.
//!
//! A record is its kind (a byte), its session (8 bytes) and its fields. The store adds length and checksum.

use super::{Record, Summary};
use crate::event::DropReason;
use alloc::vec::Vec;
use bytes::{BufMut, Bytes};
use core::net::SocketAddr;
use steadfast_wire::frame::{Head, MAX_ID_RANGES, ShutKind};
use steadfast_wire::varint::{self, Reader};
use steadfast_wire::{
    DecodeError, Fingerprint, Incarnation, Labels, MessageId, Order, RangeSet, SessionId, Token,
};

/// The longest payload of a message in a record, in bytes: what [`Config::max_message`](crate::Config::max_message) may be.
const MAX_PAYLOAD: usize = 1 << 30;
/// The longest record, in bytes.
pub const MAX_RECORD: usize = MAX_PAYLOAD + (1 << 20);
/// The most addresses that are remembered of a peer.
const MAX_ADDRESSES: usize = 256;

const REASONS: [DropReason; 7] = [
    DropReason::Cancelled,
    DropReason::Dependency,
    DropReason::Refused,
    DropReason::Restarted,
    DropReason::Expired,
    DropReason::NoNetwork,
    DropReason::Unreachable,
];

impl Record {
    /// Appends the record of a session. At most [`MAX_RECORD`] bytes.
    pub fn encode(&self, session: SessionId, out: &mut Vec<u8>) {
        out.put_u8(self.kind());
        out.put_u64(session.0);
        match self {
            Self::Opened { peer, incarnation, opener, per_urgency, addresses } => {
                out.put_slice(&peer.0);
                out.put_u8(
                    u8::from(incarnation.is_some()) | u8::from(*opener) << 1 | u8::from(*per_urgency) << 2,
                );
                if let Some(incarnation) = incarnation {
                    out.put_u64(incarnation.0);
                }
                let addresses = &addresses[..addresses.len().min(MAX_ADDRESSES)];
                varint::put(out, addresses.len() as u64);
                for address in addresses {
                    put_address(out, address);
                }
            }
            Self::Offered(token) | Self::Confirmed(token) | Self::Held(token) => out.put_slice(&token.0),
            Self::Sent { id, head, payload } => {
                varint::put(out, id.0);
                put_head(out, *id, head);
                if let Some(payload) = payload {
                    varint::put_bytes(out, payload);
                }
            }
            Self::Relabelled { id, labels } => {
                varint::put(out, id.0);
                labels.encode(out);
            }
            Self::Cancelled(id, reason) => {
                varint::put(out, id.0);
                let code = REASONS.iter().position(|known| known == reason);
                out.put_u8(code.map_or(0, |code| code as u8));
            }
            Self::Settled { id, delivered } => {
                varint::put(out, id.0);
                out.put_u8(u8::from(*delivered));
            }
            Self::Resolved { id, delivered, place } => {
                varint::put(out, id.0);
                out.put_u8(u8::from(*delivered) | u8::from(place.0 == 1) << 1);
                varint::put(out, place.1);
            }
            Self::Forgotten(id) | Self::Excused(id) => varint::put(out, id.0),
            Self::Shut(last, kind) => {
                varint::put(out, last.0);
                out.put_u8(u8::from(*kind == ShutKind::Close));
            }
            Self::Summary(summary) => put_summary(out, summary),
            Self::Ended => {}
        }
    }

    /// Reads a record that [`encode`](Self::encode) wrote: all of `bytes`, whose payload is shared and not copied.
    pub fn decode(bytes: Bytes) -> Result<(SessionId, Self), DecodeError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.byte()?;
        let session = SessionId(number(&mut reader)?);
        let record = decode_fields(kind, &mut reader)?;
        if reader.remaining() > 0 {
            return Err(DecodeError::Trailing);
        }
        Ok((session, record))
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Opened { .. } => 1,
            Self::Offered(_) => 2,
            Self::Confirmed(_) => 3,
            Self::Held(_) => 4,
            Self::Sent { payload: None, .. } => 5,
            Self::Sent { .. } => 6,
            Self::Relabelled { .. } => 7,
            Self::Cancelled(..) => 8,
            Self::Settled { .. } => 9,
            Self::Resolved { .. } => 10,
            Self::Forgotten(_) => 11,
            Self::Excused(_) => 12,
            Self::Shut(..) => 13,
            Self::Summary(_) => 14,
            Self::Ended => 15,
        }
    }
}

fn decode_fields(kind: u8, reader: &mut Reader) -> Result<Record, DecodeError> {
    Ok(match kind {
        1 => {
            let peer = Fingerprint(reader.array()?);
            let bits = bits(reader, 7)?;
            let incarnation = if bits & 1 == 1 { Some(Incarnation(number(reader)?)) } else { None };
            let mut addresses = Vec::new();
            for _ in 0..reader.bounded(MAX_ADDRESSES as u64)? {
                addresses.push(address(reader)?);
            }
            let (opener, per_urgency) = (bits & 2 != 0, bits & 4 != 0);
            Record::Opened { peer, incarnation, opener, per_urgency, addresses }
        }
        2 => Record::Offered(Token(reader.array()?)),
        3 => Record::Confirmed(Token(reader.array()?)),
        4 => Record::Held(Token(reader.array()?)),
        5 | 6 => {
            let id = message(reader)?;
            let head = head(reader, id)?;
            let payload = if kind == 6 { Some(reader.bytes(MAX_PAYLOAD)?) } else { None };
            let other_length = |payload: &Bytes| head.length != Some(payload.len() as u64) || head.streamed;
            if payload.as_ref().is_some_and(other_length) {
                return Err(DecodeError::Malformed("a message has another length than its record says"));
            }
            Record::Sent { id, head, payload }
        }
        7 => Record::Relabelled { id: message(reader)?, labels: Labels::decode(reader)? },
        8 => {
            let id = message(reader)?;
            let reason = REASONS.get(reader.byte()? as usize).copied();
            Record::Cancelled(id, reason.ok_or(DecodeError::Malformed("unknown reason"))?)
        }
        9 => Record::Settled { id: message(reader)?, delivered: bits(reader, 1)? == 1 },
        10 => {
            let (id, bits) = (message(reader)?, bits(reader, 3)?);
            Record::Resolved {
                id,
                delivered: bits & 1 == 1,
                place: (usize::from(bits & 2 != 0), reader.varint()?),
            }
        }
        11 => Record::Forgotten(message(reader)?),
        12 => Record::Excused(message(reader)?),
        13 => {
            let last = MessageId(reader.varint()?);
            let kind = if bits(reader, 1)? == 1 { ShutKind::Close } else { ShutKind::Finish };
            Record::Shut(last, kind)
        }
        14 => Record::Summary(summary(reader)?),
        15 => Record::Ended,
        _ => return Err(DecodeError::Malformed("unknown kind of record")),
    })
}

fn message(reader: &mut Reader) -> Result<MessageId, DecodeError> {
    match reader.varint()? {
        0 => Err(DecodeError::Malformed("messages are counted from 1")),
        // Ids count up by one, and the next one has to be a number, too.
        varint::MAX => Err(DecodeError::TooLarge),
        id => Ok(MessageId(id)),
    }
}

fn bits(reader: &mut Reader, known: u8) -> Result<u8, DecodeError> {
    let bits = reader.byte()?;
    if bits & !known == 0 { Ok(bits) } else { Err(DecodeError::Malformed("unknown bits")) }
}

fn number(reader: &mut Reader) -> Result<u64, DecodeError> {
    Ok(u64::from_be_bytes(reader.array()?))
}

fn put_address(out: &mut Vec<u8>, address: &SocketAddr) {
    match address {
        SocketAddr::V4(v4) => {
            out.put_u8(4);
            out.put_slice(&v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            out.put_u8(6);
            out.put_slice(&v6.ip().octets());
            out.put_u32(v6.scope_id());
        }
    }
    out.put_u16(address.port());
}

fn address(reader: &mut Reader) -> Result<SocketAddr, DecodeError> {
    let port = |reader: &mut Reader| Ok::<_, DecodeError>(u16::from_be_bytes(reader.array()?));
    match reader.byte()? {
        4 => Ok((reader.array::<4>()?, port(reader)?).into()),
        6 => {
            let ip = reader.array::<16>()?.into();
            let scope = u32::from_be_bytes(reader.array()?);
            Ok(core::net::SocketAddrV6::new(ip, port(reader)?, 0, scope).into())
        }
        _ => Err(DecodeError::Malformed("unknown kind of address")),
    }
}

fn put_head(out: &mut Vec<u8>, id: MessageId, head: &Head) {
    let bits = u8::from(head.streamed)
        | u8::from(head.length.is_some()) << 1
        | u8::from(head.expires_in.is_some()) << 2;
    out.put_u8(bits);
    head.labels.encode(out);
    head.order.encode(out, id);
    for number in [head.length, head.expires_in].into_iter().flatten() {
        varint::put(out, number.min(varint::MAX));
    }
}

fn head(reader: &mut Reader, id: MessageId) -> Result<Head, DecodeError> {
    let bits = bits(reader, 7)?;
    let labels = Labels::decode(reader)?;
    let order = Order::decode(reader, id)?;
    let length = if bits & 2 != 0 { Some(reader.varint()?) } else { None };
    let expires_in = if bits & 4 != 0 { Some(reader.varint()?) } else { None };
    Ok(Head { labels, order, streamed: bits & 1 == 1, length, expires_in })
}

fn put_summary(out: &mut Vec<u8>, summary: &Summary) {
    for number in [summary.sent, summary.sequences[0], summary.sequences[1], summary.floor] {
        varint::put(out, number);
    }
    let [foreground, background] = &summary.places;
    for set in [&summary.dropped, &summary.resolved, &summary.refused, foreground, background] {
        set.encode(out, MAX_ID_RANGES + 1);
    }
}

fn summary(reader: &mut Reader) -> Result<Summary, DecodeError> {
    let sent = reader.bounded(varint::MAX - 1)?;
    let sequences = [reader.varint()?, reader.varint()?];
    let floor = reader.varint()?;
    let mut sets: [RangeSet; 5] = Default::default();
    for set in &mut sets {
        *set = RangeSet::decode(reader, MAX_ID_RANGES + 1)?;
    }
    let [dropped, resolved, refused, foreground, background] = sets;
    Ok(Summary { sent, sequences, dropped, floor, resolved, refused, places: [foreground, background] })
}

#[cfg(test)]
mod tests;
