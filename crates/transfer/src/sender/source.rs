//! One file that is read, and whether it stays what it was.

use super::walk::Place;
use crate::digest::{Digest, Hasher, Work};
use crate::manifest::Time;
use crate::store::words;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;

/// How much is read and given to the library at once.
const PIECE: usize = 128 * 1024;

/// Why a file does not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retraction {
    /// What has come of it belongs to nothing.
    pub(crate) changed: bool,
    pub(crate) words: String,
}

impl Retraction {
    fn changed() -> Self {
        let words = "it changed while it was being sent; send it again when it is at rest".into();
        Self { changed: true, words }
    }

    fn unreadable(error: &io::Error) -> Self {
        Self { changed: false, words: format!("cannot read it: {}", words(error)) }
    }
}

/// A file as it was offered, open.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    size: u64,
    modified: Time,
    hasher: Hasher,
    at: u64,
    pool: Pool,
}

impl Source {
    /// Opens a file that was offered with this size and time. Blocks, as all of this does.
    pub(crate) fn open(place: &Place, size: u64, modified: Time) -> Result<Self, Retraction> {
        let file = place.open().map_err(|error| Retraction::unreadable(&error))?;
        let source = Self { file, size, modified, hasher: Hasher::default(), at: 0, pool: Pool::default() };
        source.check()?;
        Ok(source)
    }

    /// Whether it still is what was offered.
    fn check(&self) -> Result<(), Retraction> {
        let now = self.file.metadata().map_err(|error| Retraction::unreadable(&error))?;
        let modified = Time { seconds: now.mtime(), nanoseconds: now.mtime_nsec() as u32 };
        let same = now.is_file() && now.len() == self.size && modified == self.modified;
        if same { Ok(()) } else { Err(Retraction::changed()) }
    }

    /// Whether the first `length` bytes have this checksum. If so, reading goes on behind them, otherwise at the beginning.
    pub(crate) fn begins_with(
        &mut self,
        length: u64,
        digest: Digest,
        work: &Work,
    ) -> Result<bool, Retraction> {
        let unreadable = |error: io::Error| Retraction::unreadable(&error);
        let hasher = crate::digest::of_prefix(&mut self.file, length, work).map_err(unreadable)?;
        let hasher = hasher.ok_or_else(Retraction::changed)?;
        if hasher.digest() == digest {
            self.hasher = hasher;
            self.at = length;
            return Ok(true);
        }
        self.file.rewind().map_err(unreadable)?;
        Ok(false)
    }

    /// The next piece; `None` at the end, which is where it was offered to be.
    pub(crate) fn piece(&mut self) -> Result<Option<Bytes>, Retraction> {
        let wanted = PIECE.min(usize::try_from(self.size - self.at).unwrap_or(PIECE));
        if wanted == 0 {
            return Ok(None);
        }
        let mut buffer = self.pool.take(wanted);
        let mut length = 0;
        while length < wanted {
            match self.file.read(&mut buffer[length..]) {
                Ok(0) => return Err(Retraction::changed()),
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Retraction::unreadable(&error)),
            }
        }
        self.hasher.update(&buffer);
        self.at += wanted as u64;
        Ok(Some(self.pool.lend(buffer)))
    }

    /// The checksum of all of it; fails if it changed since it was offered.
    pub(crate) fn finish(mut self) -> Result<Digest, Retraction> {
        // It may have grown within the grain of its time.
        let mut more = [0];
        if self.file.read(&mut more).map_err(|error| Retraction::unreadable(&error))? > 0 {
            return Err(Retraction::changed());
        }
        self.check()?;
        Ok(self.hasher.digest())
    }
}

/// Buffers that come back when the library has sent them.
#[derive(Debug, Default)]
struct Pool {
    lent: VecDeque<Bytes>,
}

impl Pool {
    /// The most buffers that are waited for: about what the library holds unsent.
    const MAX: usize = 192;

    fn take(&mut self, length: usize) -> BytesMut {
        // The first one lent is the first to come back.
        let back = self.lent.front().is_some_and(Bytes::is_unique).then(|| self.lent.pop_front()).flatten();
        let mut buffer = back.and_then(|bytes| bytes.try_into_mut().ok()).unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }

    fn lend(&mut self, buffer: BytesMut) -> Bytes {
        let bytes = buffer.freeze();
        if self.lent.len() < Self::MAX {
            self.lent.push_back(bytes.clone());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Directory;
    use std::io::Write;

    fn open(path: &std::path::Path) -> Source {
        let metadata = path.metadata().unwrap();
        let modified = Time { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() as u32 };
        Source::open(&Place::Named(path.into()), metadata.len(), modified).unwrap()
    }

    fn read(source: &mut Source) -> Result<Vec<u8>, Retraction> {
        let mut all = Vec::new();
        while let Some(piece) = source.piece()? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    #[test]
    fn a_file_is_read_from_the_beginning_or_behind_what_is_proven() {
        let directory = Directory::new();
        let path = directory.path().join("f");
        let content: Vec<u8> = (0..PIECE * 3 + 7).map(|at| (at * 7 / 3) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let mut whole = Hasher::default();
        whole.update(&content);
        let mut prefix = Hasher::default();
        prefix.update(&content[..1000]);
        let work = Work::default();
        let mut source = open(&path);
        assert!(source.begins_with(1000, prefix.digest(), &work).unwrap());
        assert_eq!(read(&mut source).unwrap(), content[1000..]);
        assert_eq!(source.finish().unwrap(), whole.digest());
        let mut source = open(&path);
        assert!(!source.begins_with(1001, prefix.digest(), &work).unwrap());
        assert_eq!(read(&mut source).unwrap(), content);
        assert_eq!(source.finish().unwrap(), whole.digest());
    }

    #[test]
    fn a_file_that_changes_is_not_sent() {
        let directory = Directory::new();
        let path = directory.path().join("f");
        std::fs::write(&path, vec![1; 1000]).unwrap();
        let mut grown = open(&path);
        assert_eq!(read(&mut grown).unwrap().len(), 1000);
        File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
        assert!(grown.finish().unwrap_err().changed);
        let mut shrunk = open(&path);
        File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
        assert!(shrunk.piece().unwrap_err().changed);
        let offered = Time { seconds: 1, nanoseconds: 0 };
        assert!(Source::open(&Place::Named(path.clone()), 10, offered).unwrap_err().changed);
        let missing = Source::open(&Place::Named(directory.path().join("none")), 1, offered).unwrap_err();
        assert!(!missing.changed && missing.words.contains("no such file"), "{missing:?}");
    }

    #[test]
    fn buffers_come_back() {
        let mut pool = Pool::default();
        let mut buffer = pool.take(10);
        buffer[0] = 7;
        let address = buffer.as_ptr();
        let sent = pool.lend(buffer);
        assert_eq!(sent[0], 7);
        assert_ne!(pool.take(10).as_ptr(), address, "it is not back yet");
        drop(sent);
        let again = pool.take(10);
        assert_eq!(again.as_ptr(), address);
    }
}
