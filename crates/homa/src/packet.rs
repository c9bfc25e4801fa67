//! Every packet type on the wire, as the Linux module of July 2026 lays them out, and what our own dialect adds.
//!
//! All integers are big-endian. The first 28 bytes have TCP's shape, so that segmentation offload of network cards can be
//! tricked into splitting packets; most of it carries nothing.

use bytes::BufMut;
use thiserror::Error;

#[cfg(test)]
mod tests;

/// Bytes of the header that all packets have.
pub const COMMON_HEADER: usize = 28;
/// Bytes of a DATA packet before its payload.
pub const DATA_HEADER: usize = 56;
/// Bytes of the longest packet but DATA.
pub const MAX_CONTROL: usize = 80;
/// The IP protocol number of Homa.
pub const IP_PROTOCOL: u8 = 146;
/// The most acknowledgements in one ACK besides that of its header.
pub const MAX_ACKS: usize = 5;
/// Priority levels; the highest is the most urgent.
pub const PRIORITIES: usize = 8;
/// The longest message of [`Dialect::Linux`].
pub const LINUX_MAX_MESSAGE: u32 = 1_000_000;
/// In a RESEND: all that was sent so far, because nothing has arrived.
pub const RESEND_ALL: u32 = u32::MAX;

/// `doff` of a frame that a network card is to split: in front of all segments but the first stand four bytes.
const DOFF_SPLIT: u8 = 13;
/// These four bytes: the segment's offset.
const SEGMENT_HEADER: usize = 4;
/// In `seg.offset`: the offset stands in the TCP sequence number.
const OFFSET_IN_SEQUENCE: u32 = u32::MAX;
/// SYN and RST, which no TCP sends together: how the module tells its packets where they look like TCP.
const FLAGS: u8 = 6;
/// The urgent pointer, for the same purpose.
const URGENT: u16 = 0xb97d;

/// Which packets a peer understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Exactly what the Linux module speaks (version 2, July 2026).
    Linux,
    /// The same, and REFUSED, so that a client hears why a request is not answered. RPC ids are never reused by a
    /// restarted process without the carrier noticing: whenever the keys of a peer change, both sides call
    /// [`handle_restart`](crate::Transport::handle_restart).
    Steadfast,
}

/// Why bytes are not a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Fewer bytes than its type has.
    #[error("packet of {length} bytes is too short for its type")]
    Short {
        /// Bytes that there are.
        length: usize,
    },
    /// No type of this dialect.
    #[error("unknown packet type {0:#04x}")]
    UnknownType(u8),
    /// A number in it that has no meaning.
    #[error("packet of type {0:#04x} contradicts itself")]
    Invalid(u8),
}

/// One packet without a DATA packet's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The sender's port.
    pub source: u16,
    /// The port that it is for.
    pub destination: u16,
    /// The RPC as its sender names it: even at the client, odd at the server.
    pub sender_id: u64,
    /// The rest, by type.
    pub body: Body,
}

/// What a packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Bytes of a message.
    Data(Data),
    /// The sender may go on.
    Grant {
        /// Up to here, exclusive.
        offset: u32,
        /// The level for what follows.
        priority: u8,
    },
    /// Bytes that should have arrived and did not.
    Resend {
        /// The first of them.
        offset: u32,
        /// How many, or [`RESEND_ALL`].
        length: u32,
        /// The level to send them at.
        priority: u8,
    },
    /// The sender does not know the RPC that was spoken of.
    Unknown,
    /// The sender is alive and has nothing to say yet.
    Busy,
    /// Which level an unscheduled message of which length gets.
    Cutoffs {
        /// For each level the longest message that may use it.
        cutoffs: [u32; PRIORITIES],
        /// Which state of them this is.
        version: u16,
    },
    /// Debugging of the module; ignored.
    Freeze,
    /// The server asks whether the response arrived.
    NeedAck,
    /// The responses of the header's RPC and of these have arrived.
    Ack(Acks),
    /// The server will not answer: [`Dialect::Steadfast`] only.
    Refused(Refusal),
}

/// The header of DATA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data {
    /// Bytes of the whole message.
    pub length: u32,
    /// Up to where the sender sends without being asked.
    pub incoming: u32,
    /// An RPC of this server whose response has arrived, if any.
    pub ack: Option<Ack>,
    /// Which state of the receiver's cut-offs the sender knows; 0 for none.
    pub cutoff_version: u16,
    /// Whether it is sent again.
    pub retransmit: bool,
    /// Where the payload belongs.
    pub offset: u32,
}

/// An RPC whose response has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ack {
    /// The client's id of it, even.
    pub client_id: u64,
    /// The server's port.
    pub server_port: u16,
}

/// At most [`MAX_ACKS`] acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Acks {
    entries: [Ack; MAX_ACKS],
    count: u8,
}

impl Acks {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: [Ack { client_id: 0, server_port: 0 }; MAX_ACKS], count: 0 }
    }

    /// Adds one; false if there is no room.
    pub fn push(&mut self, ack: Ack) -> bool {
        let Some(entry) = self.entries.get_mut(self.count as usize) else { return false };
        *entry = ack;
        self.count += 1;
        true
    }

    /// Takes out the newest.
    pub fn pop(&mut self) -> Option<Ack> {
        self.count = self.count.checked_sub(1)?;
        Some(core::mem::take(&mut self.entries[self.count as usize]))
    }

    /// Those that there are, oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[Ack] {
        &self.entries[..self.count as usize]
    }

    /// Whether one more has no room.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.count as usize == MAX_ACKS
    }
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No server has this port: it was not executed.
    NoSuchPort,
    /// It is longer than this server takes: it was not executed.
    TooLong,
    /// It was taken, or may have been long ago, and its response is no longer here.
    Gone,
    /// The server's application gave up on it.
    Abandoned,
    /// There is no room for it at present: it was not executed, and is to be asked about again.
    NoRoom,
}

impl Refusal {
    /// Whether the request surely was not executed, and will not be.
    #[must_use]
    pub const fn is_unexecuted(self) -> bool {
        matches!(self, Self::NoSuchPort | Self::TooLong)
    }

    const fn code(self) -> u8 {
        match self {
            Self::NoSuchPort => 1,
            Self::TooLong => 2,
            Self::Gone => 3,
            Self::Abandoned => 4,
            Self::NoRoom => 5,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::NoSuchPort,
            2 => Self::TooLong,
            3 => Self::Gone,
            4 => Self::Abandoned,
            5 => Self::NoRoom,
            _ => return None,
        })
    }
}

/// The type of a packet, as counters name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Payload.
    Data = 0x10,
    /// May go on.
    Grant = 0x11,
    /// Missing bytes.
    Resend = 0x12,
    /// No such RPC.
    Unknown = 0x13,
    /// Alive.
    Busy = 0x14,
    /// Levels of unscheduled bytes.
    Cutoffs = 0x15,
    /// Debugging.
    Freeze = 0x16,
    /// Did it arrive?
    NeedAck = 0x17,
    /// It did.
    Ack = 0x18,
    /// It will not be answered.
    Refused = 0x30,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Data,
        Self::Grant,
        Self::Resend,
        Self::Unknown,
        Self::Busy,
        Self::Cutoffs,
        Self::Freeze,
        Self::NeedAck,
        Self::Ack,
        Self::Refused,
    ];

    /// The name that the module prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Data => "DATA",
            Self::Grant => "GRANT",
            Self::Resend => "RESEND",
            Self::Unknown => "RPC_UNKNOWN",
            Self::Busy => "BUSY",
            Self::Cutoffs => "CUTOFFS",
            Self::Freeze => "FREEZE",
            Self::NeedAck => "NEED_ACK",
            Self::Ack => "ACK",
            Self::Refused => "REFUSED",
        }
    }

    /// Its place in [`Kind::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Refused => 9,
            kind => kind as usize - Self::Data as usize,
        }
    }

    /// Bytes of the whole header.
    #[must_use]
    pub const fn header(self) -> usize {
        match self {
            Self::Data => DATA_HEADER,
            Self::Grant => 33,
            Self::Resend => 37,
            Self::Unknown | Self::Busy | Self::Freeze | Self::NeedAck => COMMON_HEADER,
            Self::Cutoffs => 62,
            Self::Ack => MAX_CONTROL,
            Self::Refused => 29,
        }
    }

    fn from_code(code: u8, dialect: Dialect) -> Option<Self> {
        let kind = Self::ALL.into_iter().find(|kind| *kind as u8 == code)?;
        (kind != Self::Refused || dialect == Dialect::Steadfast).then_some(kind)
    }
}

impl Packet {
    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.body {
            Body::Data(_) => Kind::Data,
            Body::Grant { .. } => Kind::Grant,
            Body::Resend { .. } => Kind::Resend,
            Body::Unknown => Kind::Unknown,
            Body::Busy => Kind::Busy,
            Body::Cutoffs { .. } => Kind::Cutoffs,
            Body::Freeze => Kind::Freeze,
            Body::NeedAck => Kind::NeedAck,
            Body::Ack(_) => Kind::Ack,
            Body::Refused(_) => Kind::Refused,
        }
    }

    /// Writes it, without a payload: [`Kind::header`] bytes, [`MAX_CONTROL`] at most. Panics if `out` has no room.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut bytes = [0; MAX_CONTROL];
        let kind = self.kind();
        put(&mut bytes, 0, self.source.to_be_bytes());
        put(&mut bytes, 2, self.destination.to_be_bytes());
        bytes[11] = kind as u8;
        // Words of the header; only DATA tells the truth, because only there it matters to a network card.
        bytes[12] = if kind == Kind::Data { (DATA_HEADER as u8 / 4) << 4 } else { 5 << 4 };
        bytes[13] = FLAGS;
        put(&mut bytes, 18, URGENT.to_be_bytes());
        put(&mut bytes, 20, self.sender_id.to_be_bytes());
        match &self.body {
            Body::Data(data) => {
                put(&mut bytes, 4, data.offset.to_be_bytes());
                put(&mut bytes, 28, data.length.to_be_bytes());
                put(&mut bytes, 32, data.incoming.to_be_bytes());
                let ack = data.ack.unwrap_or_default();
                put(&mut bytes, 36, ack.client_id.to_be_bytes());
                put(&mut bytes, 44, ack.server_port.to_be_bytes());
                put(&mut bytes, 46, data.cutoff_version.to_be_bytes());
                bytes[48] = u8::from(data.retransmit);
                put(&mut bytes, 52, data.offset.to_be_bytes());
            }
            Body::Grant { offset, priority } => {
                put(&mut bytes, 28, offset.to_be_bytes());
                bytes[32] = *priority;
            }
            Body::Resend { offset, length, priority } => {
                put(&mut bytes, 28, offset.to_be_bytes());
                put(&mut bytes, 32, length.to_be_bytes());
                bytes[36] = *priority;
            }
            Body::Cutoffs { cutoffs, version } => {
                for (level, cutoff) in cutoffs.iter().enumerate() {
                    put(&mut bytes, 28 + 4 * level, cutoff.to_be_bytes());
                }
                put(&mut bytes, 60, version.to_be_bytes());
            }
            Body::Ack(acks) => {
                put(&mut bytes, 28, u16::from(acks.count).to_be_bytes());
                for (index, ack) in acks.as_slice().iter().enumerate() {
                    put(&mut bytes, 30 + 10 * index, ack.client_id.to_be_bytes());
                    put(&mut bytes, 38 + 10 * index, ack.server_port.to_be_bytes());
                }
            }
            Body::Refused(refusal) => bytes[28] = refusal.code(),
            Body::Unknown | Body::Busy | Body::Freeze | Body::NeedAck => {}
        }
        out.put_slice(&bytes[..kind.header()]);
    }

    /// Reads a packet. What follows its [`Kind::header`] is the payload of DATA; other types ignore it.
    pub fn decode(dialect: Dialect, bytes: &[u8]) -> Result<Self, DecodeError> {
        let short = DecodeError::Short { length: bytes.len() };
        let code = *bytes.get(11).filter(|_| bytes.len() >= COMMON_HEADER).ok_or(short)?;
        let kind = Kind::from_code(code, dialect).ok_or(DecodeError::UnknownType(code))?;
        if bytes.len() < kind.header() {
            return Err(short);
        }
        let body = match kind {
            Kind::Data => Body::Data(decode_data(bytes)),
            Kind::Grant => Body::Grant { offset: u32_at(bytes, 28), priority: bytes[32] },
            Kind::Resend => {
                Body::Resend { offset: u32_at(bytes, 28), length: u32_at(bytes, 32), priority: bytes[36] }
            }
            Kind::Unknown => Body::Unknown,
            Kind::Busy => Body::Busy,
            Kind::Cutoffs => Body::Cutoffs {
                cutoffs: core::array::from_fn(|level| u32_at(bytes, 28 + 4 * level)),
                version: u16_at(bytes, 60),
            },
            Kind::Freeze => Body::Freeze,
            Kind::NeedAck => Body::NeedAck,
            Kind::Ack => {
                let count = usize::from(u16_at(bytes, 28));
                let mut acks = Acks::new();
                for at in (0..count.min(MAX_ACKS)).map(|index| 30 + 10 * index) {
                    acks.push(Ack { client_id: u64_at(bytes, at), server_port: u16_at(bytes, at + 8) });
                }
                if count > MAX_ACKS {
                    return Err(DecodeError::Invalid(code));
                }
                Body::Ack(acks)
            }
            Kind::Refused => Body::Refused(Refusal::from_code(bytes[28]).ok_or(DecodeError::Invalid(code))?),
        };
        let (source, destination) = (u16_at(bytes, 0), u16_at(bytes, 2));
        Ok(Self { source, destination, sender_id: u64_at(bytes, 20), body })
    }
}

/// Reads a packet and its payload, or all packets of a frame that the module left to be split and no network card did,
/// as between virtual ones. `segment` is the payload of a full packet at its sender: the packet size of the path without
/// IP's header and [`DATA_HEADER`].
pub fn split(
    dialect: Dialect,
    bytes: &[u8],
    segment: usize,
) -> Result<impl Iterator<Item = (Packet, &[u8])>, DecodeError> {
    let mut packet = Packet::decode(dialect, bytes)?;
    let whole = bytes.get(12).is_none_or(|doff| doff >> 4 != DOFF_SPLIT);
    let mut rest = if matches!(packet.body, Body::Data(_)) { &bytes[DATA_HEADER..] } else { &[] };
    let mut first = true;
    Ok(core::iter::from_fn(move || {
        if !first {
            let (offset, data) = rest.split_first_chunk::<SEGMENT_HEADER>()?;
            rest = data;
            if let Body::Data(header) = &mut packet.body {
                header.offset = u32::from_be_bytes(*offset);
                header.ack = None;
            }
        }
        first = false;
        let length = if whole { rest.len() } else { rest.len().min(segment.max(1)) };
        let (payload, behind) = rest.split_at(length);
        rest = behind;
        Some((packet, payload))
    }))
}

fn decode_data(bytes: &[u8]) -> Data {
    let ack = Ack { client_id: u64_at(bytes, 36), server_port: u16_at(bytes, 44) };
    // Only frames that the module splits itself carry their offset here.
    let offset = match u32_at(bytes, 52) {
        OFFSET_IN_SEQUENCE => u32_at(bytes, 4),
        offset => offset,
    };
    Data {
        length: u32_at(bytes, 28),
        incoming: u32_at(bytes, 32),
        ack: (ack.client_id != 0).then_some(ack),
        cutoff_version: u16_at(bytes, 46),
        retransmit: bytes[48] != 0,
        offset,
    }
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(bytes, at))
}
