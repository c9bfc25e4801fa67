//! What the two sides say, and how it is written.
//!
//! Every message begins with its kind, one byte. A kind below `IGNORABLE` must be understood, others are
//! skipped. Bytes after what a kind is known to hold are skipped, too: a later version may append. Each kind has a hard
//! bound, and a message of [`MAX_MESSAGE`] bytes is the largest that is looked at.
//!
//! The content of a file is a message of its own, streamed or whole: the kind [`CONTENT`], a varint with the number of its
//! entry, one with the offset of the first byte, the bytes, and the checksum of the whole file.

use crate::digest::Digest;
use crate::manifest::{Entry, Kind, Time};
use crate::name::MAX_NAME;
use bytes::{BufMut, Bytes, BytesMut};
use steadfast_wire::DecodeError;
use steadfast_wire::varint::{self, Reader};

/// The first bytes of a conversation that is a transfer.
const MAGIC: [u8; 8] = *b"sfFILES\0";

/// The version that is spoken here.
pub const VERSION: u64 = 1;
/// The first words of a conversation that only measures round trips: whoever takes files stays in it.
pub const PING: &[u8] = b"steadfast ping: this message measures a round trip and wants no answer";

/// The largest message that is looked at, the data excepted.
pub const MAX_MESSAGE: usize = 256 * 1024;

/// The most entries in one message.
pub const MAX_BATCH: usize = 256;

/// The most files that a sender may have offered and not yet heard the end of.
pub const MAX_OPEN: usize = 256;

/// The most bytes in what is said to people.
const MAX_WORDS: usize = 512;

/// The kind of a message with the content of a file.
pub const CONTENT: u8 = 6;

/// From here on kinds that are not known are skipped.
const IGNORABLE: u8 = 0x80;

/// The sender's first message: what it speaks, and which transfer this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// The oldest version that the sender can speak.
    pub oldest: u64,
    /// The newest.
    pub newest: u64,
    /// What it can do beyond the version, one bit each; none so far.
    pub features: u64,
    /// The same for the same command run again, so that it takes the place of one that was cut off.
    pub transfer: [u8; 16],
}

/// From the sender, after its greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offer {
    /// The next entries. They are numbered from 0 in the order in which they are said.
    Entries(Vec<Entry>),
    /// How much there will be altogether.
    Total {
        /// Files.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The checksum that was told is that of the same bytes: the file is there already.
    Same(u64),
    /// It is that of other bytes.
    Different(u64),
    /// The file will not come.
    Retract {
        /// The number of its entry.
        entry: u64,
        /// Whether what has come of it is worth nothing.
        changed: bool,
        /// Why.
        words: String,
    },
    /// Signs of life: bytes that were read without being sent, and an invitation to answer.
    Alive(u64),
    /// That was all.
    End {
        /// How many files could not be read.
        failed: u64,
    },
    /// Of a later version.
    Unknown,
}

/// From the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Its first message: the version and the features of both that hold from now on.
    Welcome {
        /// At most what the sender speaks.
        version: u64,
        /// Of those of the sender.
        features: u64,
    },
    /// It will not take part, and why.
    Refuse(String),
    /// A file may come.
    Want {
        /// The number of its entry.
        entry: u64,
        /// How many of its first bytes are here.
        have: u64,
        /// The checksum of these bytes.
        digest: Digest,
    },
    /// There is a file of this name and size: is this the checksum?
    Compare {
        /// The number of its entry.
        entry: u64,
        /// The checksum of the whole file that is there.
        digest: Digest,
    },
    /// What came was not what was sent: once more, all of it.
    Again(u64),
    /// It is there, whole, under its name.
    Stored(u64),
    /// It was there before.
    Kept(u64),
    /// It could not be had.
    Failed {
        /// The number of its entry.
        entry: u64,
        /// Why.
        words: String,
    },
    /// Signs of life.
    Progress {
        /// Bytes of content that came and were taken.
        taken: u64,
        /// Bytes that were read of what was here.
        checked: u64,
    },
    /// All that was offered is settled, the times of directories included.
    End,
    /// Of a later version.
    Unknown,
}

fn put_words(out: &mut BytesMut, words: &str) {
    let mut end = words.len().min(MAX_WORDS);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    varint::put_bytes(out, &words.as_bytes()[..end]);
}

fn words(reader: &mut Reader) -> Result<String, DecodeError> {
    Ok(String::from_utf8_lossy(&reader.bytes(MAX_WORDS)?).into_owned())
}

fn reader(bytes: Bytes) -> Result<Reader, DecodeError> {
    if bytes.len() > MAX_MESSAGE { Err(DecodeError::TooLarge) } else { Ok(Reader::new(bytes)) }
}

impl Greeting {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(&MAGIC);
        for number in [self.oldest, self.newest, self.features] {
            varint::put(&mut out, number);
        }
        out.put_slice(&self.transfer);
        out.freeze()
    }

    /// From bytes; `None` if this is no greeting of a transfer.
    pub fn decode(bytes: Bytes) -> Option<Self> {
        let mut reader = reader(bytes).ok()?;
        if reader.array().ok()? != MAGIC {
            return None;
        }
        let mut number = || reader.varint().ok();
        let (oldest, newest, features) = (number()?, number()?, number()?);
        Some(Self { oldest, newest, features, transfer: reader.array().ok()? })
    }
}

/// Appends one entry, with its length before it, so that a later version may append to it.
pub(crate) fn put_entry(out: &mut BytesMut, entry: &Entry) {
    let mut body = BytesMut::with_capacity(entry.name.len() + 40);
    varint::put(&mut body, entry.depth);
    varint::put_bytes(&mut body, &entry.name);
    match entry.kind {
        Kind::Directory => body.put_u8(0),
        Kind::File(size) => {
            body.put_u8(1);
            varint::put(&mut body, size);
        }
    }
    varint::put(&mut body, entry.mode.into());
    body.put_i64(entry.modified.seconds);
    varint::put(&mut body, entry.modified.nanoseconds.into());
    varint::put_bytes(out, &body);
}

fn entry(body: Bytes) -> Result<Entry, DecodeError> {
    let mut reader = Reader::new(body);
    let depth = reader.varint()?;
    // One more than is allowed: what it is refused for is said in the words of the manifest.
    let name = reader.bytes(MAX_NAME + 1)?;
    let kind = match reader.byte()? {
        0 => Kind::Directory,
        1 => Kind::File(reader.varint()?),
        _ => return Err(DecodeError::Malformed("an entry is neither file nor directory")),
    };
    let mode = reader.bounded(u32::MAX.into())? as u32;
    let seconds = i64::from_be_bytes(reader.array()?);
    let nanoseconds = reader.bounded(999_999_999)? as u32;
    Ok(Entry { depth, name, kind, mode, modified: Time { seconds, nanoseconds } })
}

impl Offer {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Entries(entries) => {
                out.put_u8(1);
                varint::put(&mut out, entries.len() as u64);
                for entry in entries {
                    put_entry(&mut out, entry);
                }
            }
            Self::Total { files, bytes } => {
                out.put_u8(IGNORABLE);
                varint::put(&mut out, *files);
                varint::put(&mut out, *bytes);
            }
            Self::Same(entry) => {
                out.put_u8(2);
                varint::put(&mut out, *entry);
            }
            Self::Different(entry) => {
                out.put_u8(3);
                varint::put(&mut out, *entry);
            }
            Self::Retract { entry, changed, words } => {
                out.put_u8(4);
                varint::put(&mut out, *entry);
                out.put_u8(u8::from(*changed));
                put_words(&mut out, words);
            }
            Self::Alive(bytes) => {
                out.put_u8(IGNORABLE | 1);
                varint::put(&mut out, *bytes);
            }
            Self::End { failed } => {
                out.put_u8(5);
                varint::put(&mut out, *failed);
            }
            Self::Unknown => out.put_u8(0xff),
        }
        out.freeze()
    }

    /// From bytes.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = reader(bytes)?;
        Ok(match reader.byte()? {
            1 => {
                let count = reader.bounded(MAX_BATCH as u64)?;
                let mut entries = Vec::new();
                for _ in 0..count {
                    entries.push(entry(reader.bytes(MAX_MESSAGE)?)?);
                }
                Self::Entries(entries)
            }
            2 => Self::Same(reader.varint()?),
            3 => Self::Different(reader.varint()?),
            4 => Self::Retract {
                entry: reader.varint()?,
                changed: reader.byte()? != 0,
                words: words(&mut reader)?,
            },
            5 => Self::End { failed: reader.varint()? },
            IGNORABLE => Self::Total { files: reader.varint()?, bytes: reader.varint()? },
            0x81 => Self::Alive(reader.varint()?),
            kind if kind >= IGNORABLE => Self::Unknown,
            _ => return Err(DecodeError::Malformed("an unknown kind of message")),
        })
    }
}

impl Answer {
    /// Several as one message.
    pub fn encode_all(answers: &[Self]) -> Bytes {
        let mut out = BytesMut::new();
        for answer in answers {
            varint::put_bytes(&mut out, &answer.encode());
        }
        out.freeze()
    }

    /// All of one message.
    pub fn decode_all(bytes: Bytes) -> Result<Vec<Self>, DecodeError> {
        let mut all = reader(bytes)?;
        let mut answers = Vec::new();
        while all.remaining() > 0 {
            answers.push(Self::decode(all.bytes(MAX_MESSAGE)?)?);
        }
        Ok(answers)
    }

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Welcome { version, features } => {
                out.put_u8(1);
                varint::put(&mut out, *version);
                varint::put(&mut out, *features);
            }
            Self::Refuse(words) => {
                out.put_u8(2);
                put_words(&mut out, words);
            }
            Self::Want { entry, have, digest } => {
                out.put_u8(3);
                varint::put(&mut out, *entry);
                varint::put(&mut out, *have);
                out.put_slice(&digest.0);
            }
            Self::Compare { entry, digest } => {
                out.put_u8(4);
                varint::put(&mut out, *entry);
                out.put_slice(&digest.0);
            }
            Self::Again(entry) => {
                out.put_u8(5);
                varint::put(&mut out, *entry);
            }
            Self::Stored(entry) => {
                out.put_u8(6);
                varint::put(&mut out, *entry);
            }
            Self::Kept(entry) => {
                out.put_u8(7);
                varint::put(&mut out, *entry);
            }
            Self::Failed { entry, words } => {
                out.put_u8(8);
                varint::put(&mut out, *entry);
                put_words(&mut out, words);
            }
            Self::End => out.put_u8(9),
            Self::Progress { taken, checked } => {
                out.put_u8(IGNORABLE);
                varint::put(&mut out, *taken);
                varint::put(&mut out, *checked);
            }
            Self::Unknown => out.put_u8(0xff),
        }
        out.freeze()
    }

    fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        Ok(match reader.byte()? {
            1 => Self::Welcome { version: reader.varint()?, features: reader.varint()? },
            2 => Self::Refuse(words(&mut reader)?),
            3 => Self::Want {
                entry: reader.varint()?,
                have: reader.varint()?,
                digest: Digest(reader.array()?),
            },
            4 => Self::Compare { entry: reader.varint()?, digest: Digest(reader.array()?) },
            5 => Self::Again(reader.varint()?),
            6 => Self::Stored(reader.varint()?),
            7 => Self::Kept(reader.varint()?),
            8 => Self::Failed { entry: reader.varint()?, words: words(&mut reader)? },
            9 => Self::End,
            IGNORABLE => Self::Progress { taken: reader.varint()?, checked: reader.varint()? },
            kind if kind >= IGNORABLE => Self::Unknown,
            _ => return Err(DecodeError::Malformed("an unknown kind of message")),
        })
    }
}

/// The head of a message with content: the number of the entry and the offset of the first byte.
pub fn data_head(entry: u64, offset: u64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(CONTENT);
    varint::put(&mut out, entry);
    varint::put(&mut out, offset);
    out.freeze()
}

/// Takes the head off what has come of a message with content; `None` if more is needed, or if it has none.
pub(crate) fn take_data_head(bytes: &mut BytesMut) -> Option<(u64, u64)> {
    let kind = bytes.first().filter(|kind| **kind == CONTENT).map(|_| 1)?;
    let (entry, first) = varint::peek(&bytes[kind..])?;
    let (offset, second) = varint::peek(&bytes[kind + first..])?;
    let _head = bytes.split_to(kind + first + second);
    Some((entry, offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offers() -> impl Strategy<Value = Offer> {
        let number = 0..=varint::MAX;
        let time = (any::<i64>(), 0u32..1_000_000_000)
            .prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds });
        let kind = prop_oneof![Just(Kind::Directory), number.clone().prop_map(Kind::File)];
        let name = proptest::collection::vec(any::<u8>(), 0..=MAX_NAME + 1).prop_map(Bytes::from);
        let entry = (number.clone(), name, kind, any::<u32>(), time)
            .prop_map(|(depth, name, kind, mode, modified)| Entry { depth, name, kind, mode, modified });
        prop_oneof![
            proptest::collection::vec(entry, 0..20).prop_map(Offer::Entries),
            (number.clone(), number.clone()).prop_map(|(files, bytes)| Offer::Total { files, bytes }),
            number.clone().prop_map(Offer::Same),
            number.clone().prop_map(Offer::Different),
            (number.clone(), any::<bool>(), "\\PC{0,40}")
                .prop_map(|(entry, changed, words)| Offer::Retract { entry, changed, words }),
            number.clone().prop_map(Offer::Alive),
            number.prop_map(|failed| Offer::End { failed }),
        ]
    }

    fn answers() -> impl Strategy<Value = Answer> {
        let number = 0..=varint::MAX;
        let digest = any::<[u8; 32]>().prop_map(Digest);
        prop_oneof![
            (number.clone(), number.clone())
                .prop_map(|(version, features)| Answer::Welcome { version, features }),
            "\\PC{0,40}".prop_map(Answer::Refuse),
            (number.clone(), number.clone(), digest.clone()).prop_map(|(entry, have, digest)| Answer::Want {
                entry,
                have,
                digest
            }),
            (number.clone(), digest).prop_map(|(entry, digest)| Answer::Compare { entry, digest }),
            number.clone().prop_map(Answer::Again),
            number.clone().prop_map(Answer::Stored),
            number.clone().prop_map(Answer::Kept),
            (number.clone(), "\\PC{0,40}").prop_map(|(entry, words)| Answer::Failed { entry, words }),
            (number.clone(), number).prop_map(|(taken, checked)| Answer::Progress { taken, checked }),
            Just(Answer::End),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(offer in offers(), all in proptest::collection::vec(answers(), 0..20)) {
            prop_assert_eq!(Offer::decode(offer.encode()), Ok(offer));
            prop_assert_eq!(Answer::decode_all(Answer::encode_all(&all)), Ok(all));
        }

        /// Anything at all, and messages with bytes changed: an error or a message, never a panic, and never more
        /// memory than what came.
        #[test]
        fn whatever_comes(noise in proptest::collection::vec(any::<u8>(), 0..200),
                          offer in offers(), answer in answers(),
                          changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8),
                          cut in any::<u16>()) {
            for bytes in [noise.clone(), offer.encode().to_vec(), Answer::encode_all(&[answer]).to_vec(), {
                let greeting = Greeting { oldest: 1, newest: 1, features: 0, transfer: [1; 16] };
                greeting.encode().to_vec()
            }] {
                let mut bytes = bytes;
                for (at, value) in &changes {
                    let length = bytes.len().max(1);
                    if let Some(byte) = bytes.get_mut(*at as usize % length) {
                        *byte = *value;
                    }
                }
                bytes.truncate(cut as usize % (bytes.len() + 1));
                let bytes = Bytes::from(bytes);
                let _any = Offer::decode(bytes.clone());
                let _any = Answer::decode_all(bytes.clone());
                let _any = Greeting::decode(bytes.clone());
                let _any = take_data_head(&mut BytesMut::from(&bytes[..]));
            }
        }
    }

    #[test]
    fn a_later_version_is_understood_as_far_as_it_goes() {
        let mut longer = BytesMut::from(&Offer::Same(7).encode()[..]);
        longer.put_slice(b"more");
        assert_eq!(Offer::decode(longer.freeze()), Ok(Offer::Same(7)));
        assert_eq!(Offer::decode(Bytes::from_static(&[0xc1, 1, 2])), Ok(Offer::Unknown));
        assert!(Offer::decode(Bytes::from_static(&[0x41, 1, 2])).is_err());
        let greeting = Greeting { oldest: 1, newest: 9, features: 3, transfer: [7; 16] };
        let mut longer = BytesMut::from(&greeting.encode()[..]);
        longer.put_slice(b"more");
        assert_eq!(Greeting::decode(longer.freeze()), Some(greeting));
        assert_eq!(Greeting::decode(Bytes::from_static(b"ping")), None);
    }

    #[test]
    fn bounds() {
        assert_eq!(Offer::decode(Bytes::from(vec![1; MAX_MESSAGE + 1])), Err(DecodeError::TooLarge));
        let entry = Entry {
            depth: 0,
            name: Bytes::from(vec![b'a'; MAX_NAME]),
            kind: Kind::File(varint::MAX),
            mode: u32::MAX,
            modified: Time { seconds: i64::MIN, nanoseconds: 999_999_999 },
        };
        let full = Offer::Entries(vec![entry; MAX_BATCH]);
        assert!(full.encode().len() <= MAX_MESSAGE);
        let long = Answer::Refuse("ä".repeat(MAX_WORDS));
        assert!(matches!(&Answer::decode_all(Answer::encode_all(&[long])).unwrap()[..], [Answer::Refuse(_)]));
    }
}
