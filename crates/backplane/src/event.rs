//! An event, and its one encoding: on the agent's socket, and below its signature.

use crate::handle::EventHandle;
use crate::name::{ClientName, EventName, EventSpace, Field, HostName, JobId, NameError, Severity, unfit};
use crate::text::{self, Text};
use crate::timestamp::Timestamp;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::{BufMut, Bytes};
use core::fmt;
use core::net::IpAddr;
use steadfast_wire::frame::DecodeError;
use steadfast_wire::{Fingerprint, Incarnation, Reader, varint};

/// The most bytes of a payload: 64 KiB.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// The most bytes of an encoded event.
pub const MAX_EVENT: usize = MAX_PAYLOAD + 1536;
/// The most bytes of the version of a schema.
pub const MAX_SCHEMA_VERSION: usize = 31;
/// The most bytes of the description of a schema.
pub const MAX_SCHEMA_DESCRIPTION: usize = 255;
/// The bytes of a signature (Ed25519).
pub const SIGNATURE_LENGTH: usize = 64;

/// What stands before an event below its signature, so that no other signature of the same key can be taken for one.
const SIGNED_AS: &[u8] = b"steadfast backplane event 1\0";

/// Which event, among all there ever are: the host's identity, the run of its agent, and a number that the agent counts up
/// from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The identity of the host where it was published.
    pub origin: Fingerprint,
    /// The run of its agent.
    pub incarnation: Incarnation,
    /// Its number within the run.
    pub sequence: u64,
}

/// What an event is, beside its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// FTB's type 1.
    Plain,
    /// In answer to another, FTB's type 2.
    Answer(Box<EventHandle>),
}

/// The bytes of an event, 64 KiB at most. Shared, not copied.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Payload(Bytes);

/// A payload that is longer than [`MAX_PAYLOAD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a payload has at most {MAX_PAYLOAD} bytes, this has {0}; publish where the data is instead")]
pub struct PayloadTooLong(pub usize);

impl Payload {
    /// Nothing.
    pub const EMPTY: Self = Self(Bytes::new());

    /// Checks the length.
    pub fn new(bytes: Bytes) -> Result<Self, PayloadTooLong> {
        if bytes.len() > MAX_PAYLOAD { Err(PayloadTooLong(bytes.len())) } else { Ok(Self(bytes)) }
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Who published, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// What it calls itself.
    pub name: ClientName,
    /// Its job.
    pub job: JobId,
    /// Tells clients of one process and name apart (FTB's `ext`).
    pub extension: u8,
}

/// Where an event was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The host's name.
    pub host: HostName,
    /// An address of the host, if its agent was told one; `host_name` of a subscription may mean it.
    pub address: Option<IpAddr>,
    /// The process, as the kernel numbers it there.
    pub pid: u32,
    /// When the process started.
    pub start: Timestamp,
}

/// What a schema says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaInfo {
    version: Text<MAX_SCHEMA_VERSION>,
    description: Box<str>,
}

impl SchemaInfo {
    /// A version of at most 31 bytes and a description of at most 255, either of them empty, without control characters.
    pub fn new(version: &str, description: &str) -> Result<Self, NameError> {
        let version = Text::new(version).map_err(unfit(Field::SchemaVersion, MAX_SCHEMA_VERSION))?;
        let unfit = unfit(Field::SchemaDescription, MAX_SCHEMA_DESCRIPTION);
        Text::<MAX_SCHEMA_DESCRIPTION>::new(description).map_err(unfit)?;
        Ok(Self { version, description: description.into() })
    }

    /// Its version; may be empty.
    #[must_use]
    pub fn version(&self) -> &str {
        self.version.as_str()
    }

    /// What it is for; may be empty.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        self.version.encode(out);
        out.put_u8(self.description.len() as u8);
        out.put_slice(self.description.as_bytes());
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let version = text::decode(reader, MAX_SCHEMA_VERSION, "no version of a schema", |text| {
            Text::<MAX_SCHEMA_VERSION>::new(text)
        })?;
        text::decode(reader, MAX_SCHEMA_DESCRIPTION, "no description of a schema", |description| {
            Self::new(version.as_str(), description)
        })
    }
}

/// An Ed25519 signature by the origin's key over [`Event::signed_bytes`]. Opaque here: whoever has keys makes and
/// verifies it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; SIGNATURE_LENGTH]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}..", self.0[0], self.0[1])
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which event.
    pub id: EventId,
    /// Where it lives.
    pub space: EventSpace,
    /// What happened, as its declarer spells it.
    pub name: EventName,
    /// How bad it is.
    pub severity: Severity,
    /// Whether it answers another.
    pub kind: Kind,
    /// What else there is to say.
    pub payload: Payload,
    /// Who says so.
    pub client: Client,
    /// The client's number for it, counted up from 1. FTB has 16 bits for it.
    pub number: u64,
    /// Where.
    pub location: Location,
    /// The user there, as the kernel vouched to its agent.
    pub user: u32,
    /// When, on the clock of the origin.
    pub time: Timestamp,
    /// What its schema says of itself.
    pub schema: Option<Arc<SchemaInfo>>,
    /// Its origin's signature, on events that leave a host.
    pub signature: Option<Signature>,
}

impl EventId {
    /// Bytes of an encoded id.
    pub(crate) const LENGTH: usize = 32 + 8 + 8;

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(&self.origin.0);
        out.put_u64(self.incarnation.0);
        out.put_u64(self.sequence);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let origin = Fingerprint(reader.array()?);
        let incarnation = Incarnation(u64::from_be_bytes(reader.array()?));
        Ok(Self { origin, incarnation, sequence: u64::from_be_bytes(reader.array()?) })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}-{}", self.origin, self.incarnation.0, self.sequence)
    }
}

impl Client {
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        self.name.encode(out);
        self.job.encode(out);
        out.put_u8(self.extension);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let (name, job) = (ClientName::decode(reader)?, JobId::decode(reader)?);
        Ok(Self { name, job, extension: reader.byte()? })
    }
}

impl Location {
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        self.host.encode(out);
        encode_address(self.address, out);
        out.put_u32(self.pid);
        out.put_u64(self.start.0);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            host: HostName::decode(reader)?,
            address: decode_address(reader)?,
            pid: u32::from_be_bytes(reader.array()?),
            start: Timestamp(u64::from_be_bytes(reader.array()?)),
        })
    }
}

pub(crate) fn encode_address(address: Option<IpAddr>, out: &mut impl BufMut) {
    match address {
        None => out.put_u8(0),
        Some(IpAddr::V4(address)) => {
            out.put_u8(4);
            out.put_slice(&address.octets());
        }
        Some(IpAddr::V6(address)) => {
            out.put_u8(16);
            out.put_slice(&address.octets());
        }
    }
}

pub(crate) fn decode_address(reader: &mut Reader) -> Result<Option<IpAddr>, DecodeError> {
    Ok(match reader.byte()? {
        0 => None,
        4 => Some(IpAddr::from(reader.array::<4>()?)),
        16 => Some(IpAddr::from(reader.array::<16>()?)),
        _ => return Err(DecodeError::Malformed("no address")),
    })
}

impl Kind {
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        match self {
            Self::Plain => out.put_u8(1),
            Self::Answer(handle) => {
                out.put_u8(2);
                handle.encode(out);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.byte()? {
            1 => Ok(Self::Plain),
            2 => Ok(Self::Answer(Box::new(EventHandle::decode(reader)?))),
            _ => Err(DecodeError::Malformed("an event of an unknown type")),
        }
    }
}

impl Payload {
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        varint::put_bytes(out, &self.0);
    }

    /// Copied, so that a small payload does not keep a large buffer alive.
    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let length = reader.bounded(MAX_PAYLOAD as u64)? as usize;
        Ok(Self(reader.with(length, Bytes::copy_from_slice)?))
    }
}

impl Event {
    /// The bytes that its origin signs: everything but the signature, after a text that says what they are. One event has
    /// one such encoding, however it travelled.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIGNED_AS.len() + 512 + self.payload.bytes().len());
        out.extend_from_slice(SIGNED_AS);
        self.encode_unsigned(&mut out);
        out
    }

    /// What tells it apart from all others, to answer it or to ask for what came after it.
    #[must_use]
    pub fn handle(&self) -> EventHandle {
        EventHandle {
            id: self.id,
            space: self.space,
            name: self.name,
            severity: self.severity,
            client: self.client.name,
            extension: self.client.extension,
            number: self.number,
            location: self.location,
        }
    }

    /// Bytes that it takes in a queue.
    #[must_use]
    pub fn weight(&self) -> usize {
        let answered = if matches!(self.kind, Kind::Answer(_)) { size_of::<EventHandle>() } else { 0 };
        let described = self.schema.as_ref().map_or(0, |schema| schema.description.len());
        size_of::<Self>() + answered + described + self.payload.bytes().len()
    }

    fn encode_unsigned(&self, out: &mut impl BufMut) {
        self.id.encode(out);
        self.space.encode(out);
        self.name.encode(out);
        self.severity.encode(out);
        self.kind.encode(out);
        self.client.encode(out);
        out.put_u64(self.number);
        self.location.encode(out);
        out.put_u32(self.user);
        out.put_u64(self.time.0);
        match &self.schema {
            Some(schema) => {
                out.put_u8(1);
                schema.encode(out);
            }
            None => out.put_u8(0),
        }
        self.payload.encode(out);
    }

    /// Appends it.
    pub fn encode(&self, out: &mut impl BufMut) {
        self.encode_unsigned(out);
        match &self.signature {
            Some(signature) => {
                out.put_u8(1);
                out.put_slice(&signature.0);
            }
            None => out.put_u8(0),
        }
    }

    /// Reads it from the front of `reader`. Every length is checked first.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut event = Self {
            id: EventId::decode(reader)?,
            space: EventSpace::decode(reader)?,
            name: EventName::decode(reader)?,
            severity: Severity::decode(reader)?,
            kind: Kind::decode(reader)?,
            client: Client::decode(reader)?,
            number: u64::from_be_bytes(reader.array()?),
            location: Location::decode(reader)?,
            user: u32::from_be_bytes(reader.array()?),
            time: Timestamp(u64::from_be_bytes(reader.array()?)),
            schema: flag(reader)?.then(|| SchemaInfo::decode(reader)).transpose()?.map(Arc::new),
            payload: Payload::decode(reader)?,
            signature: None,
        };
        if flag(reader)? {
            event.signature = Some(Signature(reader.array()?));
        }
        Ok(event)
    }
}

pub(crate) fn flag(reader: &mut Reader) -> Result<bool, DecodeError> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Malformed("neither yes nor no")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arbitrary;
    use alloc::string::String;
    use alloc::vec;
    use core::fmt::Write as _;
    use proptest::prelude::*;

    /// What is signed must never change without its name in `SIGNED_AS`: signatures would break.
    #[test]
    fn golden_signed_bytes() {
        let bytes = arbitrary::event().signed_bytes();
        let mut hex = String::new();
        for byte in bytes {
            write!(hex, "{byte:02x}").unwrap();
        }
        let expected = [
            "73746561646661737420 6261636b706c616e65 206576656e742031 00",
            &"07".repeat(32),
            "00000000000000090000000000000003",
            "0e 4654422e6d70692e6d7069636832",
            "04 65765f62",
            "05 464154414c",
            "01",
            "03 6f6e65 02 3432 00",
            "0000000000000005",
            "05 6e6f646537 04 0a000007 000004d2 0000000000000064",
            "000003e8 00000000000000c8",
            "01 03 312e32 05 74657374 73",
            "05 68656c6c6f",
        ]
        .concat()
        .replace(' ', "");
        assert_eq!(hex, expected);
    }

    #[test]
    fn the_largest_event_fits() {
        let event = arbitrary::largest();
        let mut out = Vec::new();
        event.encode(&mut out);
        assert!(out.len() <= MAX_EVENT, "{}", out.len());
        assert_eq!(Event::decode(&mut Reader::new(Bytes::from(out))), Ok(event));
        assert_eq!(Payload::new(vec![0; MAX_PAYLOAD + 1].into()), Err(PayloadTooLong(MAX_PAYLOAD + 1)));
    }

    proptest! {
        #[test]
        fn written_and_read_back(event in arbitrary::events()) {
            let mut out = Vec::new();
            event.encode(&mut out);
            for cut in [0, out.len() / 2, out.len() - 1] {
                prop_assert!(Event::decode(&mut Reader::new(Bytes::copy_from_slice(&out[..cut]))).is_err());
            }
            let mut reader = Reader::new(Bytes::from(out));
            let back = Event::decode(&mut reader).unwrap();
            prop_assert_eq!(reader.remaining(), 0);
            prop_assert_eq!(back.signed_bytes(), event.signed_bytes(), "its spelling, too");
            prop_assert_eq!(back, event);
        }

        #[test]
        fn whatever_changes_is_signed(event in arbitrary::events(), other in arbitrary::events()) {
            let mut changed = event.clone();
            changed.payload = other.payload.clone();
            changed.user = other.user;
            changed.kind = other.kind.clone();
            prop_assert_eq!(changed == event, changed.signed_bytes() == event.signed_bytes());
            changed = event.clone();
            changed.signature = None;
            prop_assert_eq!(changed.signed_bytes(), event.signed_bytes());
        }
    }
}
