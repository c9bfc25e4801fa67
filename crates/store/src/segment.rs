//! What is in a segment: a header, and batches of records.
//!
//! The header says the format, whose store it is, the segment's number and generation, and a *salt*, drawn anew for each
//! segment, which every checksum in it begins with: bytes of another segment never pass for its own.

use crate::error::StoreError;
use bytes::Bytes;
use crc32fast::Hasher;
use steadfast_session::{Digest, MAX_RECORD, Record};
use steadfast_wire::{Fingerprint, SessionId};

/// The format that this program writes, and the only one that it reads.
pub(crate) const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"steadfst";
pub(crate) const HEADER: usize = 8 + 4 + 8 + 8 + 32 + 8 + 4;
/// How a batch begins: a mark, the bytes of its records, its number, a checksum.
const BATCH: usize = 4 + 4 + 8 + 4;
const MARK: &[u8; 4] = b"btch";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: u64,
    /// How often the store was opened.
    pub(crate) generation: u64,
    pub(crate) identity: Fingerprint,
    pub(crate) salt: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.identity.0);
        out.extend_from_slice(&self.salt.to_be_bytes());
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_be_bytes());
        out
    }
}

/// Where and why a segment is not what was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Damaged { offset: u64, why: &'static str },
    Format(u32),
}

impl Fault {
    pub(crate) fn explain(self, place: String, segment: u64) -> StoreError {
        match self {
            Self::Damaged { offset, why } => {
                StoreError::Damaged { place, file: format!("{segment:016x}.log"), offset, why }
            }
            Self::Format(found) => StoreError::Version { place, found, known: FORMAT },
        }
    }
}

const fn damaged(offset: usize, why: &'static str) -> Fault {
    Fault::Damaged { offset: offset as u64, why }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn short(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// The header of a segment that has its name, and so was forced to the disk before.
pub(crate) fn header(bytes: &[u8]) -> Result<Header, Fault> {
    if !bytes.starts_with(MAGIC) {
        return Err(damaged(0, "it does not begin as a store does"));
    }
    if bytes.len() < HEADER {
        return Err(damaged(bytes.len(), "its header is cut"));
    }
    // First, because another format may have another checksum.
    if short(bytes, 8) != FORMAT {
        return Err(Fault::Format(short(bytes, 8)));
    }
    if crc32fast::hash(&bytes[..HEADER - 4]) != short(bytes, HEADER - 4) {
        return Err(damaged(0, "its header has another checksum"));
    }
    let mut identity = [0; 32];
    identity.copy_from_slice(&bytes[28..60]);
    let (own, generation, salt) = (number(bytes, 12), number(bytes, 20), number(bytes, 60));
    Ok(Header { number: own, generation, identity: Fingerprint(identity), salt })
}

/// The beginning of a batch's checksum.
fn head_sum(salt: u64, length: u32, batch: u64) -> Hasher {
    let mut sum = Hasher::new();
    sum.update(&salt.to_be_bytes());
    sum.update(&length.to_be_bytes());
    sum.update(&batch.to_be_bytes());
    sum
}

fn checksum(salt: u64, length: u32, batch: u64, body: &[u8]) -> u32 {
    let mut sum = head_sum(salt, length, batch);
    sum.update(body);
    sum.finalize()
}

/// A batch that is being put together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(BATCH, 0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() <= BATCH
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn put(&mut self, session: SessionId, record: &Record) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        record.encode(session, &mut self.bytes);
        let length = (self.bytes.len() - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// The batch as it is written.
    pub(crate) fn seal(&mut self, salt: u64, batch: u64) -> &[u8] {
        let length = (self.bytes.len() - BATCH) as u32;
        let sum = checksum(salt, length, batch, &self.bytes[BATCH..]);
        self.bytes[..4].copy_from_slice(MARK);
        self.bytes[4..8].copy_from_slice(&length.to_be_bytes());
        self.bytes[8..16].copy_from_slice(&batch.to_be_bytes());
        self.bytes[16..20].copy_from_slice(&sum.to_be_bytes());
        &self.bytes
    }
}

/// What begins like a batch, and fits.
struct Claim<'a> {
    batch: u64,
    body: &'a [u8],
    sum: u32,
}

fn claim(bytes: &[u8], at: usize) -> Option<Claim<'_>> {
    let head = bytes.get(at..at + BATCH)?;
    if &head[..4] != MARK {
        return None;
    }
    let body = bytes.get(at + BATCH..(at + BATCH).checked_add(short(head, 4) as usize)?)?;
    Some(Claim { batch: number(head, 8), body, sum: short(head, 16) })
}

/// The records of the batch at an offset if it is whole and has this number.
fn batch_at(bytes: &[u8], at: usize, salt: u64, batch: u64) -> Option<&[u8]> {
    let found = claim(bytes, at).filter(|found| found.batch == batch)?;
    (checksum(salt, found.body.len() as u32, batch, found.body) == found.sum).then_some(found.body)
}

/// Checksums of any part of some bytes, for little more than one look at each byte.
struct Sums<'a> {
    bytes: &'a [u8],
    /// That of all before each multiple of `STEP`.
    marks: Vec<u32>,
    /// How many bytes were looked at.
    looked: usize,
}

/// The most bytes that are looked at again for one end of a part.
const STEP: usize = 32;

impl<'a> Sums<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut sum = Hasher::new();
        let mut marks = vec![0];
        for step in bytes.chunks(STEP) {
            sum.update(step);
            marks.push(sum.clone().finalize());
        }
        Self { bytes, marks, looked: bytes.len() }
    }

    /// That of all before an offset.
    fn before(&mut self, at: usize) -> u32 {
        let mark = at / STEP;
        let mut sum = Hasher::new_with_initial(self.marks[mark]);
        let rest = &self.bytes[mark * STEP..at];
        self.looked += rest.len();
        sum.update(rest);
        sum.finalize()
    }

    /// That of a part: a checksum of two parts is the sum of that of the second and that of the first with zeros behind.
    fn part(&mut self, begin: usize, end: usize) -> Hasher {
        let length = (end - begin) as u64;
        let mut first = Hasher::new_with_initial(self.before(begin));
        first.combine(&Hasher::new_with_initial_len(0, length));
        Hasher::new_with_initial_len(self.before(end) ^ first.finalize(), length)
    }
}

/// Whether a whole batch with a higher number begins anywhere, and how many bytes that took. What looks like one is soon as
/// much as there is room for, each as long as the rest; so none is looked at as a whole.
fn later_batch(bytes: &[u8], salt: u64, batch: u64) -> (bool, usize) {
    let mut sums: Option<Sums<'_>> = None;
    for at in 0..bytes.len() {
        let Some(found) = claim(bytes, at).filter(|found| found.batch > batch) else { continue };
        let sums = sums.get_or_insert_with(|| Sums::new(bytes));
        let body = sums.part(at + BATCH, at + BATCH + found.body.len());
        let mut sum = head_sum(salt, found.body.len() as u32, found.batch);
        sum.combine(&body);
        if sum.finalize() == found.sum {
            return (true, sums.looked);
        }
    }
    (false, sums.map_or(0, |sums| sums.looked))
}

/// Reads all batches into a digest. What was cut off at the end by a kill or a power cut was never confirmed, and is left
/// out. A batch is written only when the one before it was forced to the disk: if one that is not whole is followed by
/// one that is, it was damaged later.
pub(crate) fn read(bytes: &[u8], header: &Header) -> Result<Digest, Fault> {
    let mut digest = Digest::default();
    let (mut at, mut batch) = (HEADER, 0);
    while at < bytes.len() {
        let Some(body) = batch_at(bytes, at, header.salt, batch) else {
            let (later, _) = later_batch(&bytes[at + 1..], header.salt, batch);
            if later || batch == 0 {
                return Err(damaged(at, "a part has another checksum"));
            }
            return Ok(digest);
        };
        take_records(body, at + BATCH, &mut digest)?;
        at += BATCH + body.len();
        batch += 1;
    }
    // The first batch was there before the segment had its name.
    if batch == 0 {
        return Err(damaged(at, "its beginning is missing"));
    }
    Ok(digest)
}

fn take_records(mut body: &[u8], mut at: usize, digest: &mut Digest) -> Result<(), Fault> {
    while !body.is_empty() {
        let length = short(body, 0) as usize;
        let record = body.get(4..4 + length).filter(|_| body.len() >= 4 && length <= MAX_RECORD);
        let Some(record) = record else { return Err(damaged(at, "a record is longer than its part")) };
        // A copy, or each open message would keep the whole segment in memory.
        let (session, record) = Record::decode(Bytes::copy_from_slice(record))
            .map_err(|_| damaged(at, "a record cannot be read"))?;
        digest.take(session, &record);
        body = &body[4 + length..];
        at += 4 + length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_session::DropReason;
    use steadfast_wire::MessageId;

    const SALT: u64 = 0x1234_5678_9abc_def0;

    fn sealed(number: u64) -> Vec<u8> {
        let mut batch = Batch::default();
        batch.clear();
        for id in 1..20 {
            batch.put(SessionId(7), &Record::Cancelled(MessageId(id), DropReason::Cancelled));
        }
        batch.seal(SALT, number).to_vec()
    }

    #[test]
    fn a_sum_of_a_part_is_that_of_its_bytes() {
        let bytes: Vec<u8> = (0..1000_u32).map(|at| (at * 7 + at / 13) as u8).collect();
        let mut sums = Sums::new(&bytes);
        for begin in (0..1000).step_by(9) {
            for end in (begin..=1000).step_by(7).chain([1000]) {
                assert_eq!(sums.part(begin, end).finalize(), crc32fast::hash(&bytes[begin..end]));
            }
        }
    }

    #[test]
    fn a_later_batch_is_found_wherever_it_begins() {
        for before in 0..70 {
            for behind in [0, 1, 33] {
                let mut bytes = vec![b'b'; before];
                bytes.extend_from_slice(&sealed(5));
                bytes.resize(bytes.len() + behind, 0);
                assert!(later_batch(&bytes, SALT, 4).0, "{before} {behind}");
                assert!(!later_batch(&bytes, SALT, 5).0, "no later one");
                assert!(!later_batch(&bytes, SALT ^ 1, 4).0, "of another segment");
                bytes[before + BATCH + 5] ^= 1;
                assert!(!later_batch(&bytes, SALT, 4).0, "not whole");
            }
        }
    }

    /// The densest that there can be: a head begins in the number of the one before.
    #[test]
    fn what_only_looks_like_batches_costs_little() {
        const ALL: usize = 1 << 20;
        let mut bytes = Vec::new();
        while bytes.len() < ALL {
            bytes.extend_from_slice(MARK);
            bytes.extend_from_slice(&((ALL - bytes.len()).saturating_sub(BATCH + 8) as u32).to_be_bytes());
        }
        let claims = (0..ALL).filter(|at| claim(&bytes, *at).is_some()).count();
        assert!(claims > ALL / 10, "{claims}");
        let (found, looked) = later_batch(&bytes, SALT, 1);
        assert!(!found);
        assert!(looked <= 10 * ALL, "{looked}");
    }
}
