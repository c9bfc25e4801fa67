//! One file that is not whole yet.

use super::{Fault, Standing, Store, hidden_name, permissions, times};
use crate::beneath::{self, split};
use crate::digest::{Digest, Hasher, Work};
use crate::manifest::Time;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use steadfast::Fingerprint;

/// A file of at most so many bytes is not resumed but sent again: writing down what it is would cost as much.
const WORTH_RESUMING: u64 = 64 * 1024;

/// After so many bytes what was written is brought to the disk, so that the end has little left to wait for.
const SYNC_EVERY: u64 = 64 << 20;

/// The mode of what is not whole yet.
const OURS: Mode = Mode::RUSR.union(Mode::WUSR);

/// What may be resumed: the bytes that are here, and their checksum, which goes on with those to come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) have: u64,
    pub(crate) hasher: Hasher,
}

/// What the file is to become: its size and time tell whether what is here is its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) sender: Fingerprint,
    pub(crate) path: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) modified: Time,
}

/// Open for appending; locked, so that no other receiver writes to it.
#[derive(Debug)]
pub(crate) struct Partial {
    file: File,
    name: Vec<u8>,
    hasher: Hasher,
    length: u64,
    unsynced: u64,
}

/// Complete, and of the right checksum.
#[derive(Debug)]
pub(crate) struct Verified {
    partial: Partial,
    goal: Goal,
}

impl Goal {
    fn data(&self) -> Vec<u8> {
        hidden_name(self.sender, &self.path, ".data")
    }

    fn note(&self) -> Vec<u8> {
        hidden_name(self.sender, &self.path, ".what")
    }

    /// What is written down about a file that is worth resuming.
    fn description(&self) -> String {
        let Time { seconds, nanoseconds } = self.modified;
        let path = crate::name::printable(&self.path);
        format!(
            "size {}\nmodified {seconds}.{nanoseconds:09}\nfrom {}\npath {path}\n",
            self.size, self.sender
        )
    }
}

impl Store {
    /// What is here of a file that was cut off; nothing if it was another one, or a small one. Reads all of it.
    pub(crate) fn find(&self, goal: &Goal, work: &Work) -> Result<Found, Fault> {
        let failed = |error: io::Error| Fault::new("read what has come before", error);
        if goal.size <= WORTH_RESUMING {
            return Ok(Found::default());
        }
        let open = |name: &[u8]| self.open_hidden(name, OFlags::RDONLY);
        let (Ok(note), Ok(mut data)) = (open(&goal.note()), open(&goal.data())) else {
            return Ok(Found::default());
        };
        let mut text = String::new();
        let readable = note.take(64 * 1024).read_to_string(&mut text).is_ok();
        let have = data.metadata().map_err(failed)?.len();
        if !readable || text != goal.description() || have > goal.size {
            return Ok(Found::default());
        }
        let hasher = crate::digest::of_prefix(&mut data, have, work).map_err(failed)?;
        Ok(hasher.map_or_else(Found::default, |hasher| Found { have, hasher }))
    }

    /// Opens what is to be written, after `found`. Fails if it is no more what was found, or if another receiver writes it.
    pub(crate) fn append(&self, goal: &Goal, found: Found) -> Result<Partial, Fault> {
        let failed = |error: io::Error| Fault::new("write", error);
        let name = goal.data();
        let mut file = self.lock_hidden(&name)?;
        let length = file.metadata().map_err(failed)?.len();
        if found.have > 0 && length != found.have {
            return Err(Fault("what had come before was changed meanwhile; send it again".into()));
        }
        if found.have == 0 {
            file.set_len(0).map_err(failed)?;
            if goal.size > WORTH_RESUMING {
                self.write_note(goal).map_err(failed)?;
            }
        } else {
            // Without its note the file would be worth nothing: both become old together.
            self.touch(&goal.note()).map_err(|error| failed(error.into()))?;
        }
        file.seek(SeekFrom::Start(found.have)).map_err(failed)?;
        Ok(Partial { file, name, hasher: found.hasher, length: found.have, unsynced: 0 })
    }

    fn write_note(&self, goal: &Goal) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        self.open_hidden(&goal.note(), flags)?.write_all(goal.description().as_bytes())
    }

    fn touch(&self, name: &[u8]) -> Result<(), Errno> {
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        rustix::fs::utimensat(&self.partial, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Removes what has come of a file.
    pub(crate) fn discard(&self, goal: &Goal) {
        for name in [goal.note(), goal.data()] {
            // Missing is as good.
            let _gone = rustix::fs::unlinkat(&self.partial, &name[..], AtFlags::empty());
        }
    }

    /// Brings a file to the disk and then to its name. What stands there stays, unless files are to be overwritten.
    pub(crate) fn commit(&self, verified: Verified) -> Result<(), Fault> {
        let Verified { partial, goal } = verified;
        let failed = |error: Errno| Fault::new("bring the file to its name", error);
        partial.file.sync_all().map_err(|error| Fault::new("bring the file to the disk", error))?;
        let (above, leaf) = split(&goal.path);
        let parent = beneath::directory(&self.root, above).map_err(failed)?;
        self.name(&partial, &goal, &parent, leaf).inspect_err(|_| {
            // Of a mode that may be neither read nor written it could not be resumed.
            let _as_before = rustix::fs::fchmod(&partial.file, OURS);
        })?;
        rustix::fs::fsync(&parent).map_err(failed)?;
        if goal.size > WORTH_RESUMING {
            let _gone = rustix::fs::unlinkat(&self.partial, &goal.note()[..], AtFlags::empty());
        }
        Ok(())
    }

    /// Gives a file its mode, its time and its name, in this order: it appears with all of them.
    fn name(&self, partial: &Partial, goal: &Goal, parent: &OwnedFd, leaf: &[u8]) -> Result<(), Fault> {
        let failed = |error: Errno| Fault::within("bring the file to its name", error, split(&goal.path).0);
        if let (true, Standing::Other(what)) = (self.overwrite, self.look(&goal.path)?) {
            return Err(Fault(format!("{what} of that name is in the way")));
        }
        rustix::fs::fchmod(&partial.file, permissions(goal.mode)).map_err(failed)?;
        rustix::fs::futimens(&partial.file, &times(goal.modified)).map_err(failed)?;
        if self.overwrite {
            return rustix::fs::renameat(&self.partial, &partial.name[..], parent, leaf).map_err(failed);
        }
        rename_new(&self.partial, &partial.name, parent, leaf).map_err(|error| match error {
            Errno::EXIST => Fault("a file of that name appeared meanwhile and was left alone".into()),
            other => failed(other),
        })
    }

    /// Opens what is to be written, and locks it.
    fn lock_hidden(&self, name: &[u8]) -> Result<File, Fault> {
        let failed = |error: Errno| Fault::new("write", error);
        loop {
            let file = self.open_hidden(name, OFlags::RDWR | OFlags::CREATE).map_err(failed)?;
            rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).map_err(|error| {
                match error {
                    Errno::AGAIN => Fault("it is being received by another transfer".into()),
                    other => failed(other),
                }
            })?;
            let stat = rustix::fs::fstat(&file).map_err(failed)?;
            // Before the lock was had another transfer may have brought it to its name: it is no longer ours to write.
            match rustix::fs::statat(&self.partial, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(now) if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) => {}
                // A second name is that of the whole file, where renaming is linking.
                Ok(now) if now.st_nlink > 1 => {
                    rustix::fs::unlinkat(&self.partial, name, AtFlags::empty()).map_err(failed)?;
                }
                Ok(_) => return Ok(file),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Opens a file in the hidden directory. One that was killed on the way to its name has the sender's mode, which may
    /// forbid it.
    fn open_hidden(&self, name: &[u8], flags: OFlags) -> Result<File, Errno> {
        let open = || beneath::open(&self.partial, name, flags | OFlags::NOFOLLOW, mode_for(flags));
        let opened = match open() {
            Err(Errno::ACCESS) => {
                let stat = rustix::fs::statat(&self.partial, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(Errno::ACCESS);
                }
                rustix::fs::chmodat(&self.partial, name, OURS, AtFlags::empty())?;
                open()
            }
            other => other,
        };
        opened.map(File::from)
    }
}

/// Only what is made has a mode.
fn mode_for(flags: OFlags) -> Mode {
    if flags.contains(OFlags::CREATE) { OURS } else { Mode::empty() }
}

fn rename_new(from: impl AsFd, name: &[u8], to: impl AsFd, leaf: &[u8]) -> Result<(), Errno> {
    match rustix::fs::renameat_with(&from, name, &to, leaf, RenameFlags::NOREPLACE) {
        // Some network file systems know no flags; a hard link refuses to replace as well.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            rustix::fs::linkat(&from, name, &to, leaf, AtFlags::empty())?;
            // It has its name; what is left is another name of it, which goes with its age.
            let _left = rustix::fs::unlinkat(&from, name, AtFlags::empty());
            Ok(())
        }
        other => other,
    }
}

impl Partial {
    /// Appends. After an error what has come before is still there.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let write = self.file.write_all(bytes);
        write.map_err(|error| Fault::new("write", error))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.file.sync_data().map_err(|error| Fault::new("bring the file to the disk", error))?;
        }
        Ok(())
    }

    /// Whether the whole is what was sent; `None` if it is not.
    pub(crate) fn verify(self, goal: Goal, digest: Digest) -> Option<Verified> {
        (self.length == goal.size && self.hasher.digest() == digest)
            .then_some(Verified { partial: self, goal })
    }
}
