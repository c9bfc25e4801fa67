//! What tells an event apart from all others, also in the 360 bytes that C programs copy about.

use crate::event::{EventId, Location, decode_address, encode_address};
use crate::name::{ClientName, EventName, EventSpace, HostName, Severity};
use crate::timestamp::Timestamp;
use alloc::format;
use alloc::vec::Vec;
use bytes::{BufMut, Bytes};
use steadfast_wire::Reader;
use steadfast_wire::frame::DecodeError;

/// Bytes of FTB's `FTB_event_handle_t`.
pub const FTB_HANDLE: usize = 360;

/// Stands before what FTB has no field for.
const MARK: &[u8; 4] = b"SFH1";

/// Bytes of what FTB has no field for: mark, id, number, start, address.
const HIDDEN: usize = 4 + EventId::LENGTH + 8 + 8 + 17;

/// Where FTB's fields are, in bytes from the start (x86-64, aarch64 and 32-bit ARM alike).
const NAME: (usize, usize) = (0, 32);
const SEVERITY: (usize, usize) = (32, 16);
const PARTS: [(usize, usize); 3] = [(48, 64), (112, 64), (176, 64)];
const CLIENT: (usize, usize) = (240, 16);
const EXTENSION: usize = 256;
const NUMBER: usize = 258;
const HOST: (usize, usize) = (260, 64);
const START: (usize, usize) = (324, 32);
const PID: usize = 356;

/// An event, told apart from all others. Handles are equal if their ids are.
#[derive(Debug, Clone)]
pub struct EventHandle {
    /// Which event.
    pub id: EventId,
    /// Its event space.
    pub space: EventSpace,
    /// Its name.
    pub name: EventName,
    /// Its severity.
    pub severity: Severity,
    /// The name of the client that published it.
    pub client: ClientName,
    /// The client's extension.
    pub extension: u8,
    /// The client's number for it; FTB's `seqnum` is its lower 16 bits.
    pub number: u64,
    /// Where it was published.
    pub location: Location,
}

impl PartialEq for EventHandle {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for EventHandle {}

/// Bytes that are no handle of an event that an agent of Steadfast took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "these {FTB_HANDLE} bytes are no event handle; pass on, unchanged, what FTB_Publish or FTB_Get_event_handle returned"
)]
pub struct NoHandle;

/// A field of C's, up to its NUL.
fn text(bytes: &[u8; FTB_HANDLE], (at, length): (usize, usize)) -> Result<&str, NoHandle> {
    let field = &bytes[at..at + length];
    let end = field.iter().position(|byte| *byte == 0).ok_or(NoHandle)?;
    core::str::from_utf8(&field[..end]).map_err(|_| NoHandle)
}

fn put(bytes: &mut [u8; FTB_HANDLE], (at, length): (usize, usize), text: &str) {
    // Every name is shorter than its field: so there is a NUL.
    let length = text.len().min(length - 1);
    bytes[at..at + length].copy_from_slice(&text.as_bytes()[..length]);
}

/// The bytes behind the NULs of the three parts of the event space. Together they hold 63 bytes at most, of 192.
fn spare(bytes: &[u8; FTB_HANDLE]) -> impl Iterator<Item = usize> + use<> {
    let ends = PARTS.map(|(at, length)| {
        let end = bytes[at..at + length].iter().position(|byte| *byte == 0).unwrap_or(length);
        (at + end + 1).min(at + length)..at + length
    });
    ends.into_iter().flatten()
}

impl EventHandle {
    /// As C programs have it. The fields tell the truth; what FTB has no field for lies behind the NULs of the event space's
    /// parts, where only copying the whole carries it along, which is how handles are passed on.
    #[must_use]
    pub fn to_ftb(&self) -> [u8; FTB_HANDLE] {
        let mut bytes = [0; FTB_HANDLE];
        put(&mut bytes, NAME, self.name.as_str());
        put(&mut bytes, SEVERITY, self.severity.as_str());
        let parts = [self.space.region(), self.space.category(), self.space.component()];
        PARTS.into_iter().zip(parts).for_each(|(field, part)| put(&mut bytes, field, part));
        put(&mut bytes, CLIENT, self.client.as_str());
        bytes[EXTENSION] = self.extension;
        bytes[NUMBER..NUMBER + 2].copy_from_slice(&(self.number as u16).to_ne_bytes());
        put(&mut bytes, HOST, self.location.host.as_str());
        put(&mut bytes, START, &self.location.start.ftb_start());
        bytes[PID..PID + 4].copy_from_slice(&self.location.pid.to_ne_bytes());
        let mut hidden = Vec::with_capacity(HIDDEN);
        hidden.extend_from_slice(MARK);
        self.id.encode(&mut hidden);
        hidden.put_u64(self.number);
        hidden.put_u64(self.location.start.0);
        encode_address(self.location.address, &mut hidden);
        hidden.resize(HIDDEN, 0);
        spare(&bytes).zip(hidden).for_each(|(at, byte)| bytes[at] = byte);
        bytes
    }

    /// From what a C program passes on.
    pub fn from_ftb(bytes: &[u8; FTB_HANDLE]) -> Result<Self, NoHandle> {
        let hidden: Vec<u8> = spare(bytes).take(HIDDEN).map(|at| bytes[at]).collect();
        let rest = hidden.strip_prefix(MARK).ok_or(NoHandle)?;
        let mut reader = Reader::new(Bytes::copy_from_slice(rest));
        let mut read = || -> Result<_, DecodeError> {
            let id = EventId::decode(&mut reader)?;
            let number = u64::from_be_bytes(reader.array()?);
            let start = Timestamp(u64::from_be_bytes(reader.array()?));
            Ok((id, number, start, decode_address(&mut reader)?))
        };
        let (id, number, start, address) = read().map_err(|_| NoHandle)?;
        let [region, category, component] = PARTS;
        let space =
            format!("{}.{}.{}", text(bytes, region)?, text(bytes, category)?, text(bytes, component)?);
        let host = HostName::new(text(bytes, HOST)?).map_err(|_| NoHandle)?;
        let pid = [PID, PID + 1, PID + 2, PID + 3].map(|at| bytes[at]);
        Ok(Self {
            id,
            space: EventSpace::new(&space).map_err(|_| NoHandle)?,
            name: EventName::new(text(bytes, NAME)?).map_err(|_| NoHandle)?,
            severity: Severity::new(text(bytes, SEVERITY)?).map_err(|_| NoHandle)?,
            client: ClientName::new(text(bytes, CLIENT)?).map_err(|_| NoHandle)?,
            extension: bytes[EXTENSION],
            number,
            location: Location { host, address, pid: u32::from_ne_bytes(pid), start },
        })
    }

    /// Appends it, for the protocol and below signatures.
    pub fn encode(&self, out: &mut impl BufMut) {
        self.id.encode(out);
        self.space.encode(out);
        self.name.encode(out);
        self.severity.encode(out);
        self.client.encode(out);
        out.put_u8(self.extension);
        out.put_u64(self.number);
        self.location.encode(out);
    }

    /// Reads it from the front of `reader`.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            id: EventId::decode(reader)?,
            space: EventSpace::decode(reader)?,
            name: EventName::decode(reader)?,
            severity: Severity::decode(reader)?,
            client: ClientName::decode(reader)?,
            extension: reader.byte()?,
            number: u64::from_be_bytes(reader.array()?),
            location: Location::decode(reader)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arbitrary;
    use proptest::prelude::*;

    fn encoded(handle: &EventHandle) -> Vec<u8> {
        let mut out = Vec::new();
        handle.encode(&mut out);
        out
    }

    #[test]
    fn the_fields_that_c_programs_read() {
        let bytes = arbitrary::event().handle().to_ftb();
        for (at, text) in [
            (0, &b"ev_b\0"[..]),
            (32, b"FATAL\0"),
            (48, b"FTB\0"),
            (112, b"mpi\0"),
            (176, b"mpich2\0"),
            (240, b"one\0"),
            (260, b"node7\0"),
            (324, b"Thu_Jan_01_001_00:00:00\0"),
        ] {
            assert_eq!(&bytes[at..at + text.len()], text);
        }
        assert_eq!(bytes[258..260], 5u16.to_ne_bytes());
        assert_eq!(bytes[356..360], 1234u32.to_ne_bytes());
    }

    #[test]
    fn what_is_no_handle() {
        let bytes = arbitrary::event().handle().to_ftb();
        assert_eq!(EventHandle::from_ftb(&[0; FTB_HANDLE]), Err(NoHandle));
        assert_eq!(EventHandle::from_ftb(&[b'x'; FTB_HANDLE]), Err(NoHandle));
        // Copied text by text, or made up.
        let mut copied = [0; FTB_HANDLE];
        for (at, length) in [NAME, SEVERITY, PARTS[0], PARTS[1], PARTS[2], CLIENT, HOST, START] {
            let end = bytes[at..at + length].iter().position(|byte| *byte == 0).unwrap();
            copied[at..at + end].copy_from_slice(&bytes[at..at + end]);
        }
        assert_eq!(EventHandle::from_ftb(&copied), Err(NoHandle));
        for (at, byte) in [(0, b'-'), (32, b'x'), (48, b'-'), (260, b' '), (112, 0xff)] {
            let mut broken = bytes;
            broken[at] = byte;
            assert_eq!(EventHandle::from_ftb(&broken), Err(NoHandle), "{at}");
        }
    }

    proptest! {
        #[test]
        fn both_forms_keep_everything(event in arbitrary::events()) {
            let handle = event.handle();
            let back = EventHandle::from_ftb(&handle.to_ftb()).unwrap();
            prop_assert_eq!(encoded(&back), encoded(&handle));
            let mut reader = Reader::new(Bytes::from(encoded(&handle)));
            let back = EventHandle::decode(&mut reader).unwrap();
            prop_assert_eq!(encoded(&back), encoded(&handle));
            prop_assert_eq!(reader.remaining(), 0);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            event in arbitrary::events(),
            changes in proptest::collection::vec((0..FTB_HANDLE, any::<u8>()), 0..4),
        ) {
            let mut bytes = event.handle().to_ftb();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let _any = EventHandle::from_ftb(&bytes);
        }
    }
}
