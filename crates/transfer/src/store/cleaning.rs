//! Removing what was never completed.

use super::{PARTIAL_DIRECTORY, Store, beneath};
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What nobody has added to for so long is removed when the next receiver starts in the directory: 30 days.
pub const DISCARD_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Removes all that was not completed in `directory`, and is not being received now; returns the bytes that were given
/// back. Blocks.
pub fn discard_partial(directory: &Path) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory, flags, Mode::empty())?;
    let partial = match beneath::directory(&root, PARTIAL_DIRECTORY.as_bytes()) {
        Err(Errno::NOENT) => return Ok(0),
        other => other?,
    };
    let freed = remove(&partial, Duration::ZERO)?;
    remove_empty(&root, &partial);
    Ok(freed)
}

impl Store {
    /// Removes what is older than [`DISCARD_AFTER`]. Where that fails nothing is lost.
    pub(super) fn remove_old(&self) {
        if let Err(error) = remove(&self.partial, DISCARD_AFTER) {
            tracing::debug!(%error, "old partial files could not be removed");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        remove_empty(&self.root, &self.partial);
    }
}

/// Removes the hidden directory if nothing is in it and nobody else uses it.
fn remove_empty(root: &OwnedFd, partial: &OwnedFd) {
    if rustix::fs::flock(partial.as_fd(), FlockOperation::NonBlockingLockExclusive).is_ok() {
        // It is not empty while something can be resumed.
        let _kept = rustix::fs::unlinkat(root, PARTIAL_DIRECTORY, AtFlags::REMOVEDIR);
    }
}

/// Removes the files in the hidden directory that are at least so old, and not locked.
pub(super) fn remove(partial: &OwnedFd, age: Duration) -> io::Result<u64> {
    let mut freed = 0;
    let now = SystemTime::now();
    for name in names(partial)? {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let Ok(stat) = rustix::fs::statat(partial, &*name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        // When it was written to or touched here: the time of its content may be the sender's.
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(stat.st_ctime.try_into().unwrap_or(0));
        let is_old = age.is_zero() || now.duration_since(changed).is_ok_and(|since| since >= age);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !is_old {
            continue;
        }
        let is_free = match beneath::open(partial, name.as_bytes(), flags, Mode::empty()) {
            Ok(file) => rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_ok(),
            // It was killed on the way to its name, when it had the sender's mode already; nobody has it open.
            Err(error) => error == Errno::ACCESS,
        };
        if is_free {
            rustix::fs::unlinkat(partial, &*name, AtFlags::empty())?;
            freed += u64::try_from(stat.st_size).unwrap_or(0);
        }
    }
    Ok(freed)
}

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    Ok(names)
}
