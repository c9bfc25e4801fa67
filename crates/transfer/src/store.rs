//! The receiver's directory: what may come about in it, and how.
//!
//! What is not whole lies in a hidden directory of mode 0700 within it, on the same file system, so that a file appears
//! under its name by one rename.

mod cleaning;
mod partial;

pub use cleaning::{DISCARD_AFTER, discard_partial};
pub(crate) use partial::{Found, Goal, Verified};

use crate::beneath::{self, split};
use crate::digest::{Digest, Work};
use crate::manifest::Time;
use crate::name::{PARTIAL_DIRECTORY, printable, printable_path};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use steadfast::Fingerprint;

/// A directory that takes files.
#[derive(Debug)]
pub struct Store {
    root: OwnedFd,
    /// Locked (shared) as long as this lives, so that nobody removes it.
    partial: OwnedFd,
    path: PathBuf,
    /// Whether files of other content are replaced.
    overwrite: bool,
}

/// Why a directory cannot take files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It cannot be made or opened.
    #[error("cannot receive into {path}: {source}; name a directory in which you may make files")]
    Directory {
        /// For a screen.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The hidden directory cannot be made or opened.
    #[error("cannot keep files that are not whole yet in {path}: {source}")]
    Partial {
        /// For a screen.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could change what is received.
    #[error(
        "cannot keep files that are not whole yet in {path}: it belongs to another user; remove it, or receive elsewhere"
    )]
    Foreign {
        /// For a screen.
        path: String,
    },
    /// The kernel is too old.
    #[error("cannot receive into {path}: this needs `openat2`, which Linux has since 5.6")]
    Kernel {
        /// For a screen.
        path: String,
    },
}

/// What stands where something is to be.
#[derive(Debug)]
pub(crate) enum Standing {
    Nothing,
    /// A file, open for reading, and its size.
    File(File, u64),
    /// A file that cannot be compared.
    Unreadable,
    /// Something that no file replaces.
    Other(&'static str),
}

/// Why one file or directory could not be had; for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) String);

impl Fault {
    pub(crate) fn new(what: &str, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let advice = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC) => "; make room there and send again, what has come is kept",
            Some(Errno::DQUOT) => {
                "; your quota there is used up: make room and send again, what has come is kept"
            }
            Some(Errno::XDEV) => "; another file system is mounted there: receive into it directly",
            Some(Errno::LOOP) => "; a symbolic link is in the way",
            Some(Errno::NOTDIR) => "; a file is in the way",
            _ => "",
        };
        Self(format!("cannot {what}: {}{advice}", words(&error)))
    }

    /// The same for something that is to appear in `directory`, which is of the receiver's.
    pub(crate) fn within(what: &str, error: Errno, directory: &[u8]) -> Self {
        let Self(words) = Self::new(what, error);
        if error != Errno::ACCESS {
            return Self(words);
        }
        let directory = if directory.is_empty() { b"." } else { directory };
        Self(format!("{words}; `chmod u+w {}` where it is received, and send again", printable(directory)))
    }
}

/// What the system says, without the number that only programmers want.
pub(crate) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let plain = text.split(" (os error").next().unwrap_or_default();
    let mut letters = plain.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

impl Store {
    /// Opens `path`, which is made if only its last name is missing. Blocks.
    pub fn open(path: &Path, overwrite: bool) -> Result<Self, StoreError> {
        let failed = |source: io::Error| StoreError::Directory { path: printable_path(path), source };
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let partial = partial_directory(&root, path)?;
        let store = Self { root, partial, path: path.to_path_buf(), overwrite };
        store.remove_old();
        Ok(store)
    }

    /// Where it is, as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What stands at `path`.
    pub(crate) fn look(&self, path: &[u8]) -> Result<Standing, Fault> {
        let failed = |error: Errno| Fault::new("look at what is there", error);
        let (above, name) = split(path);
        let parent = beneath::directory(&self.root, above).map_err(failed)?;
        // Looked at before it is opened: opening a device may do things, and a pipe may wait for ever.
        let before = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Standing::Nothing),
            Err(error) => return Err(failed(error)),
        };
        match FileType::from_raw_mode(before.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Ok(Standing::Other("a directory")),
            FileType::Symlink => return Ok(Standing::Other("a symbolic link")),
            _ => return Ok(Standing::Other("something that is no regular file")),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match beneath::open(&parent, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ACCESS | Errno::PERM) => return Ok(Standing::Unreadable),
            Err(error) => return Err(failed(error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(Standing::Other("something that is no regular file"));
        }
        Ok(Standing::File(file.into(), stat.st_size as u64))
    }

    /// Makes a directory that nobody else may enter until it is complete; one that is there stays as it is.
    pub(crate) fn make_directory(&self, sender: Fingerprint, path: &[u8]) -> Result<(), Fault> {
        let (above, name) = split(path);
        let failed = |error: Errno| Fault::within("make the directory", error, above);
        let parent = beneath::directory(&self.root, above).map_err(failed)?;
        let marker = marker(sender, path);
        // Written first: whoever goes on after this process was killed knows that the directory is a new one.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW;
        let marked = || beneath::open(&self.partial, &marker, flags, Mode::RUSR | Mode::WUSR).map(drop);
        if matches!(rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT)) {
            marked().map_err(failed)?;
        }
        let made = match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => match beneath::directory(&parent, name) {
                Ok(_) => Ok(()),
                Err(Errno::NOTDIR) => Err(Fault("a file of that name is in the way".into())),
                Err(Errno::LOOP) => Err(Fault("a symbolic link of that name is in the way".into())),
                Err(error) => Err(failed(error)),
            },
            Err(error) => Err(failed(error)),
        };
        if made.is_err() {
            let _gone = rustix::fs::unlinkat(&self.partial, &marker[..], AtFlags::empty());
        }
        made
    }

    /// Gives a directory that was made here its mode and time; one that was there before keeps its own. One in which
    /// something failed stays open to its owner, and gets its mode when all of it was sent again.
    pub(crate) fn finish_directory(
        &self,
        sender: Fingerprint,
        path: &[u8],
        mode: u32,
        modified: Time,
        failed: bool,
    ) -> Result<(), Fault> {
        let marker = marker(sender, path);
        let stays_open = failed && mode & 0o700 != 0o700;
        let marked = if stays_open {
            rustix::fs::statat(&self.partial, &marker[..], AtFlags::SYMLINK_NOFOLLOW).map(drop)
        } else {
            rustix::fs::unlinkat(&self.partial, &marker[..], AtFlags::empty())
        };
        let mode = if stays_open { mode | 0o700 } else { mode };
        match marked {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(Fault::new("finish the directory", error)),
        }
        let finish = || {
            let directory = beneath::directory(&self.root, path)?;
            rustix::fs::futimens(&directory, &times(modified))?;
            rustix::fs::fchmod(&directory, permissions(mode))?;
            rustix::fs::fsync(&directory)
        };
        finish().map_err(|error| Fault::new("give the directory its mode and time", error))
    }

    /// Whether a file that stands at its place with other content gives way.
    pub(crate) fn overwrites(&self) -> bool {
        self.overwrite
    }

    /// The checksum of a file that stands there; `None` if it became shorter meanwhile.
    pub(crate) fn digest_of(file: &mut File, size: u64, work: &Work) -> Result<Option<Digest>, Fault> {
        let hasher = crate::digest::of_prefix(file, size, work);
        Ok(hasher.map_err(|error| Fault::new("read what is there", error))?.map(|hasher| hasher.digest()))
    }
}

fn permissions(mode: u32) -> Mode {
    // Neither setuid, setgid nor sticky: whose they would be is not for the sender to say. Nor is it who else may read or
    // write here: that is the receiver's umask.
    Mode::from_raw_mode(mode & 0o777 & !umask())
}

/// What this process forbids others. Asking the system for it would change it, so it is read, once.
fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        umask.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0o022)
    })
}

fn times(modified: Time) -> Timestamps {
    let last_modification = Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanoseconds.into() };
    let last_access = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    Timestamps { last_access, last_modification }
}

/// A name in the hidden directory that depends on who sends and on the path.
fn hidden_name(sender: Fingerprint, path: &[u8], ending: &str) -> Vec<u8> {
    let mut hasher = crate::digest::Hasher::default();
    hasher.update(&sender.0);
    hasher.update(path);
    let Digest(digest) = hasher.digest();
    let mut name = Vec::with_capacity(32 + ending.len());
    for byte in &digest[..16] {
        name.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    name.extend_from_slice(ending.as_bytes());
    name
}

fn marker(sender: Fingerprint, path: &[u8]) -> Vec<u8> {
    hidden_name(sender, path, ".directory")
}

/// The hidden directory, ours alone, and locked against removal.
fn partial_directory(root: &OwnedFd, path: &Path) -> Result<OwnedFd, StoreError> {
    let shown = || printable_path(&path.join(PARTIAL_DIRECTORY));
    let failed = |error: Errno| match error {
        Errno::NOSYS => StoreError::Kernel { path: printable_path(path) },
        other => StoreError::Partial { path: shown(), source: other.into() },
    };
    let name = PARTIAL_DIRECTORY.as_bytes();
    loop {
        match rustix::fs::mkdirat(root, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
        let directory = match beneath::directory(root, name) {
            // Another receiver was just done with it.
            Err(Errno::NOENT) => continue,
            other => other.map_err(failed)?,
        };
        let stat = rustix::fs::fstat(&directory).map_err(failed)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(StoreError::Foreign { path: shown() });
        }
        rustix::fs::fchmod(&directory, Mode::RWXU).map_err(failed)?;
        rustix::fs::flock(directory.as_fd(), FlockOperation::LockShared).map_err(failed)?;
        // Removed before the lock was had: then there is another one by now, or none.
        let now = rustix::fs::statat(root, name, AtFlags::SYMLINK_NOFOLLOW);
        if now.is_ok_and(|now| (now.st_dev, now.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(directory);
        }
    }
}

#[cfg(test)]
mod tests;
