//! What is to be sent, in the order in which it is offered.

use crate::beneath;
use crate::digest::Hasher;
use crate::manifest::{Chain, Entry, Kind, ManifestFault, Time};
use crate::name::{NameFault, printable_path};
use crate::store::words;
use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, statat};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use steadfast::Fingerprint;

/// The files and directories that a sender was told to send.
#[derive(Debug, Clone)]
pub struct Plan {
    /// By name, each once.
    tops: Vec<Top>,
}

#[derive(Debug, Clone)]
struct Top {
    name: Bytes,
    /// Without symbolic links.
    path: PathBuf,
}

/// Why something cannot be sent at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Nothing was named.
    #[error("nothing to send: name a file or a directory")]
    Nothing,
    /// It is not there, or may not be looked at.
    #[error("cannot send {path}: {}", words(.source))]
    Missing {
        /// For a screen.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It has no name that the receiver could give it.
    #[error("cannot send {path}: {fault}")]
    Name {
        /// For a screen.
        path: String,
        /// What is wrong.
        fault: NameFault,
    },
    /// Neither file nor directory.
    #[error("cannot send {path}: it is neither a file nor a directory")]
    Special {
        /// For a screen.
        path: String,
    },
    /// Two would have the same name there.
    #[error(
        "cannot send {first} and {second} at once: both would be `{name}` there; send them one after the other, or the directory that holds them"
    )]
    Twice {
        /// One, for a screen.
        first: String,
        /// The other.
        second: String,
        /// The name.
        name: String,
    },
}

/// Where the content of a file is read.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// Named by whoever sends: what it is a link to was meant.
    Named(PathBuf),
    /// In a directory that was named, and reached through no link.
    Beneath(Arc<OwnedFd>, Vec<u8>),
}

/// What a walk comes across.
#[derive(Debug)]
pub(crate) enum Item {
    /// To be offered. Directories have no content.
    Entry { entry: Entry, path: Vec<u8>, place: Option<Place> },
    /// Nothing that can be sent.
    Skipped { path: Vec<u8>, words: &'static str },
    /// Something that cannot be read.
    Failed { path: Vec<u8>, words: String },
}

impl Plan {
    /// Looks at what was named; links are followed. Blocks.
    pub fn new(paths: &[PathBuf]) -> Result<Self, PlanError> {
        if paths.is_empty() {
            return Err(PlanError::Nothing);
        }
        let mut tops: Vec<(Top, &Path)> = Vec::new();
        for path in paths {
            let shown = || printable_path(path);
            let missing = |source| PlanError::Missing { path: shown(), source };
            let real = path.canonicalize().map_err(missing)?;
            let metadata = real.metadata().map_err(missing)?;
            if !metadata.is_file() && !metadata.is_dir() {
                return Err(PlanError::Special { path: shown() });
            }
            // A link is known there by the link's name; `..` and the like by what they are.
            let name = path.file_name().or_else(|| real.file_name()).unwrap_or_default();
            crate::name::check(name.as_bytes()).map_err(|fault| PlanError::Name { path: shown(), fault })?;
            tops.push((Top { name: Bytes::copy_from_slice(name.as_bytes()), path: real }, path));
        }
        tops.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        if let Some(pair) = tops.windows(2).find(|pair| pair[0].0.name == pair[1].0.name) {
            return Err(PlanError::Twice {
                first: printable_path(pair[0].1),
                second: printable_path(pair[1].1),
                name: crate::name::printable(&pair[0].0.name),
            });
        }
        Ok(Self { tops: tops.into_iter().map(|(top, _)| top).collect() })
    }

    /// The same for the same files to the same receiver.
    pub(crate) fn transfer(&self, receiver: Fingerprint) -> [u8; 16] {
        let mut hasher = Hasher::default();
        hasher.update(&receiver.0);
        for top in &self.tops {
            hasher.update(top.path.as_os_str().as_bytes());
            hasher.update(b"\0");
        }
        let digest = hasher.digest().0;
        std::array::from_fn(|index| digest[index])
    }

    /// Calls `visit` for everything, in order, until it says that it wants no more. Blocks.
    pub(crate) fn walk(&self, visit: &mut dyn FnMut(Item) -> bool) {
        let mut walk = Walk { chain: Chain::default(), visit };
        for top in &self.tops {
            if !walk.top(top) {
                return;
            }
        }
    }

    /// How many files there are, and their bytes. Blocks.
    pub(crate) fn count(&self, go_on: impl Fn() -> bool) -> (u64, u64) {
        let (mut files, mut bytes) = (0, 0u64);
        self.walk(&mut |item| {
            if let Item::Entry { entry: Entry { kind: Kind::File(size), .. }, .. } = item {
                files += 1;
                bytes = bytes.saturating_add(size);
            }
            go_on()
        });
        (files, bytes)
    }
}

/// The result of each step: whether to go on.
struct Walk<'a> {
    chain: Chain,
    visit: &'a mut dyn FnMut(Item) -> bool,
}

impl Walk<'_> {
    fn top(&mut self, top: &Top) -> bool {
        let failed = |words: String| Item::Failed { path: top.name.to_vec(), words };
        let stat = match rustix::fs::stat(&top.path) {
            Ok(stat) => stat,
            Err(error) => return (self.visit)(failed(words(&error.into()))),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                self.offer(0, &top.name, &top.name, &stat, Some(Place::Named(top.path.clone()))).is_ok()
            }
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = match rustix::fs::open(&top.path, flags, Mode::empty()) {
                    Ok(root) => Arc::new(root),
                    Err(error) => return (self.visit)(failed(words(&error.into()))),
                };
                match self.offer(0, &top.name, &top.name, &stat, None) {
                    Ok(Some(path)) => self.directory(&root, &mut Vec::new(), &path, 1),
                    Ok(None) => true,
                    Err(Stop) => false,
                }
            }
            _ => (self.visit)(failed("it is neither a file nor a directory any more".into())),
        }
    }

    /// Everything in the directory at `below` in `root`, which is called `path` there.
    fn directory(&mut self, root: &Arc<OwnedFd>, below: &mut Vec<u8>, path: &[u8], depth: u64) -> bool {
        let names = beneath::directory(root.as_ref(), below)
            .map_err(io::Error::from)
            .and_then(|directory| Ok((names(&directory)?, directory)));
        let (names, directory) = match names {
            Ok(found) => found,
            Err(error) => return (self.visit)(Item::Failed { path: path.to_vec(), words: words(&error) }),
        };
        for name in names {
            let whole = || [path, b"/", &name].concat();
            let stat = match statat(&directory, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Removed meanwhile.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => {
                    if !(self.visit)(Item::Failed { path: whole(), words: words(&error.into()) }) {
                        return false;
                    }
                    continue;
                }
            };
            let length = below.len();
            if length > 0 {
                below.push(b'/');
            }
            below.extend_from_slice(&name);
            let go_on = match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => {
                    let place = Place::Beneath(Arc::clone(root), below.clone());
                    self.offer(depth, &name, &whole(), &stat, Some(place)).is_ok()
                }
                FileType::Directory => match self.offer(depth, &name, &whole(), &stat, None) {
                    Ok(Some(path)) => self.directory(root, below, &path, depth + 1),
                    Ok(None) => true,
                    Err(Stop) => false,
                },
                FileType::Symlink => (self.visit)(Item::Skipped { path: whole(), words: "a symbolic link" }),
                _ => (self.visit)(Item::Skipped { path: whole(), words: "no regular file" }),
            };
            below.truncate(length);
            if !go_on {
                return false;
            }
        }
        true
    }

    /// Offers one entry; its path, or `None` if it cannot be offered.
    fn offer(
        &mut self,
        depth: u64,
        name: &[u8],
        whole: &[u8],
        stat: &Stat,
        place: Option<Place>,
    ) -> Result<Option<Vec<u8>>, Stop> {
        let kind = if place.is_some() { Kind::File(stat.st_size as u64) } else { Kind::Directory };
        let modified = Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 };
        let name = Bytes::copy_from_slice(name);
        let entry = Entry { depth, name, kind, mode: stat.st_mode & 0o7777, modified };
        let (item, path) = match self.chain.place(&entry) {
            Ok(path) => (Item::Entry { entry, path: path.clone(), place }, Some(path)),
            Err(ManifestFault::Name(NameFault::Reserved)) => {
                (Item::Skipped { path: whole.to_vec(), words: "what a receiver keeps half-way" }, None)
            }
            Err(fault) => (Item::Failed { path: whole.to_vec(), words: fault.to_string() }, None),
        };
        if (self.visit)(item) { Ok(path) } else { Err(Stop) }
    }
}

/// Whoever listens has had enough.
struct Stop;

/// The names in a directory, in the order of their bytes.
fn names(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

impl Place {
    /// Opens the file for reading; whether it is one is for the caller to look.
    pub(crate) fn open(&self) -> io::Result<File> {
        // Without waiting, in case a pipe took its place.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match self {
            Self::Named(path) => rustix::fs::open(path, flags, Mode::empty())?,
            Self::Beneath(root, path) => {
                beneath::open(root.as_ref(), path, flags | OFlags::NOFOLLOW, Mode::empty())?
            }
        };
        Ok(file.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Directory;
    use std::os::unix::fs::symlink;

    fn walked(plan: &Plan) -> Vec<String> {
        let mut all = Vec::new();
        plan.walk(&mut |item| {
            all.push(match item {
                Item::Entry { path, place: None, .. } => format!("{}/", path.escape_ascii()),
                Item::Entry { path, .. } => path.escape_ascii().to_string(),
                Item::Skipped { path, .. } => format!("skipped {}", path.escape_ascii()),
                Item::Failed { path, words } => format!("failed {} {words}", path.escape_ascii()),
            });
            true
        });
        all
    }

    #[test]
    fn a_tree_is_walked_in_order() {
        let directory = Directory::new();
        let top = directory.path().join("top");
        std::fs::create_dir_all(top.join("b/empty")).unwrap();
        std::fs::create_dir_all(top.join(".steadfast-partial")).unwrap();
        std::fs::write(top.join("b.txt"), "12").unwrap();
        std::fs::write(top.join("b/z"), "345").unwrap();
        std::fs::write(top.join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        std::fs::write(directory.path().join("one"), "6789").unwrap();
        symlink("b", top.join("link")).unwrap();
        symlink("one", directory.path().join("alias")).unwrap();
        let plan = Plan::new(&[directory.path().join("top"), directory.path().join("alias")]).unwrap();
        assert_eq!(
            walked(&plan),
            [
                "alias",
                "top/",
                "skipped top/.steadfast-partial",
                "top/b/",
                "top/b/empty/",
                "top/b/z",
                "top/b.txt",
                "skipped top/link",
                "top/\\xff"
            ]
        );
        assert_eq!(plan.count(|| true), (4, 9));
        let same = Plan::new(&[directory.path().join("alias"), top.join("../top/")]).unwrap();
        assert_eq!(same.transfer(Fingerprint([1; 32])), plan.transfer(Fingerprint([1; 32])));
        assert_ne!(same.transfer(Fingerprint([2; 32])), plan.transfer(Fingerprint([1; 32])));
    }

    #[test]
    fn what_cannot_be_sent_says_why() {
        let directory = Directory::new();
        std::fs::create_dir_all(directory.path().join("a")).unwrap();
        std::fs::write(directory.path().join("a/f"), "").unwrap();
        std::fs::write(directory.path().join("f"), "").unwrap();
        let plan = |paths: &[&str]| {
            let paths: Vec<_> = paths.iter().map(|path| directory.path().join(path)).collect();
            Plan::new(&paths).unwrap_err().to_string()
        };
        assert!(plan(&[]).contains("nothing to send"));
        assert!(plan(&["missing"]).contains("no such file"), "{}", plan(&["missing"]));
        assert!(plan(&["a/f", "f"]).contains("both would be `f`"));
        assert!(Plan::new(&["/dev/null".into()]).unwrap_err().to_string().contains("neither"));
        assert!(Plan::new(&["/".into()]).is_err());
        assert!(Plan::new(&[directory.path().join("a/.")]).is_ok());
        assert!(Plan::new(&[directory.path().join("a/..")]).is_ok());
    }
}
