//! What a sender offers, one entry after the other, and the order that keeps a receiver's memory small.
//!
//! An entry says how deep its directory lies in the chain of directories that are open, and its own name. Names within
//! a directory come in strictly increasing order of their bytes. So a path has one component more than a chain of
//! directories that were offered before, no path comes twice, nothing lies below a file, and a receiver keeps no more
//! than the chain.

use crate::name::{self, MAX_DEPTH, MAX_PATH, NameFault};
use bytes::Bytes;

/// One thing that is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// How many of the open directories it lies in.
    pub depth: u64,
    /// Its name.
    pub name: Bytes,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, of which receivers take 0777.
    pub mode: u32,
    /// When it was last changed.
    pub modified: Time,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory, which is open from then on.
    Directory,
    /// A file of so many bytes.
    File(u64),
}

/// A time of the file system: seconds since 1970 and nanoseconds of the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds, before 1970 negative.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// Why an entry cannot stand where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestFault {
    /// Its name.
    #[error(transparent)]
    Name(#[from] NameFault),
    /// It lies in a directory that is not open.
    #[error("an entry lies in no directory that was offered right before")]
    NoDirectory,
    /// It is no greater than the one before it in its directory.
    #[error("an entry was offered twice, or out of order")]
    Order,
}

/// The chain of open directories.
#[derive(Debug, Clone)]
pub struct Chain {
    /// The top, then one for each open directory.
    levels: Vec<Level>,
}

#[derive(Debug, Clone, Default)]
struct Level {
    /// Where its path ends in the path of the deepest.
    name: Bytes,
    last: Option<Bytes>,
}

impl Default for Chain {
    fn default() -> Self {
        Self { levels: vec![Level::default()] }
    }
}

impl Chain {
    /// Takes the next entry; returns its path, relative to the receiver's directory.
    ///
    /// After an error the chain is as it was.
    pub fn place(&mut self, entry: &Entry) -> Result<Vec<u8>, ManifestFault> {
        name::check(&entry.name)?;
        let depth = usize::try_from(entry.depth).unwrap_or(usize::MAX);
        let parent = self.levels.get(depth).ok_or(ManifestFault::NoDirectory)?;
        if parent.last.as_ref().is_some_and(|last| *last >= entry.name) {
            return Err(ManifestFault::Order);
        }
        let above = self.levels[1..=depth].iter().map(|level| level.name.len() + 1).sum::<usize>();
        if depth >= MAX_DEPTH || above + entry.name.len() > MAX_PATH {
            return Err(NameFault::Deep.into());
        }
        let mut path = Vec::with_capacity(above + entry.name.len());
        for level in &self.levels[1..=depth] {
            path.extend_from_slice(&level.name);
            path.push(b'/');
        }
        path.extend_from_slice(&entry.name);
        self.levels.truncate(depth + 1);
        self.levels[depth].last = Some(entry.name.clone());
        if entry.kind == Kind::Directory {
            self.levels.push(Level { name: entry.name.clone(), last: None });
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn entry(depth: u64, name: &[u8], kind: Kind) -> Entry {
        Entry { depth, name: Bytes::copy_from_slice(name), kind, mode: 0, modified: Time::default() }
    }

    #[test]
    fn a_tree_in_order() {
        let mut chain = Chain::default();
        for (depth, name, kind, path) in [
            (0, "a", Kind::Directory, Ok("a")),
            (1, "b", Kind::Directory, Ok("a/b")),
            (2, "c", Kind::File(1), Ok("a/b/c")),
            (2, "c", Kind::File(1), Err(ManifestFault::Order)),
            (3, "d", Kind::File(1), Err(ManifestFault::NoDirectory)),
            (1, "a", Kind::File(1), Err(ManifestFault::Order)),
            (1, "b", Kind::File(1), Err(ManifestFault::Order)),
            (1, "c", Kind::File(1), Ok("a/c")),
            (2, "d", Kind::File(1), Err(ManifestFault::NoDirectory)),
            (0, "b", Kind::File(1), Ok("b")),
            (1, "c", Kind::File(1), Err(ManifestFault::NoDirectory)),
            (0, "..", Kind::Directory, Err(ManifestFault::Name(NameFault::Dots))),
        ] {
            let placed = chain.place(&entry(depth, name.as_bytes(), kind));
            assert_eq!(placed, path.map(|path| path.as_bytes().to_vec()), "{depth} {name}");
        }
    }

    #[test]
    fn a_chain_has_an_end() {
        let mut chain = Chain::default();
        let deepest = (0..1000).find(|depth| chain.place(&entry(*depth, b"d", Kind::Directory)).is_err());
        assert_eq!(deepest, Some(MAX_DEPTH as u64));
        let mut chain = Chain::default();
        let long = [b'x'; 255];
        let deepest = (0..1000).find(|depth| chain.place(&entry(*depth, &long, Kind::Directory)).is_err());
        assert_eq!(deepest, Some((MAX_PATH / 256) as u64));
    }

    proptest! {
        /// Whatever is offered: no path comes twice, and each lies in a directory that was offered.
        #[test]
        fn whatever_is_offered(entries in proptest::collection::vec(
            (0u64..5, "[a-c./]{0,2}", any::<bool>()), 0..200))
        {
            let mut chain = Chain::default();
            let (mut seen, mut directories) = (HashSet::new(), HashSet::from([Vec::new()]));
            for (depth, name, directory) in entries {
                let kind = if directory { Kind::Directory } else { Kind::File(0) };
                let Ok(path) = chain.place(&entry(depth, name.as_bytes(), kind)) else { continue };
                prop_assert!(seen.insert(path.clone()), "{path:?} came twice");
                let above = path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |at| &path[..at]);
                prop_assert!(directories.contains(above), "{path:?} lies nowhere");
                prop_assert!(path.split(|byte| *byte == b'/').all(|part| name::check(part).is_ok()));
                if directory {
                    directories.insert(path);
                }
            }
        }
    }
}
