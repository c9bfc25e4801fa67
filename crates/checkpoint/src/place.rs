//! Directories of checkpoints. What is being written stands beside the place under a name of its own, and takes the place in
//! one step when it is whole and on the disk: until then the last good one stays.
//!
//! | name | what it is |
//! |---|---|
//! | `DIR` | a checkpoint |
//! | `DIR.~1~`, .. | older ones that `--backup` kept |
//! | `.DIR.new-PID-N` | one that is being written; locked while its writer lives |
//! | `DIR/000001`, ..; `DIR/latest` | those of `--every`; which is the newest |

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, open, renameat_with};
use rustix::process::geteuid;

use crate::error::Error;
use crate::manifest::{FILE, LOG, Manifest};
use crate::transit::Owner;

/// The name of the link to the newest of several.
pub const LATEST: &str = "latest";

/// What becomes of a checkpoint that is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Existing {
    /// Nothing is saved.
    #[default]
    Refuse,
    /// The new one takes its place.
    Replace,
    /// It is kept beside, under this name or under the next number.
    Keep(Option<PathBuf>),
}

/// Tells drafts of this process apart.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A checkpoint that is being written. Dropped, nothing of it is left but CRIU's log, if that says something.
#[derive(Debug)]
pub(crate) struct Draft {
    place: PathBuf,
    existing: Existing,
    directory: PathBuf,
    /// Locked, as long as somebody writes here.
    handle: File,
    done: bool,
}

impl Draft {
    /// Begins to write what is to become `place`.
    pub(crate) fn begin(place: &Path, existing: Existing) -> Result<Self, Error> {
        let place = std::path::absolute(place).map_err(|error| Error::io("use", place, error))?;
        let (parent, name) = split(&place)?;
        fs::create_dir_all(parent).map_err(|error| Error::io("make the directory", parent, error))?;
        check(&place, &existing)?;
        if let Existing::Keep(Some(named)) = &existing {
            check_backup(&place, parent, name, named)?;
        }
        sweep(parent, name);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = parent.join(joined(".", name, &format!(".new-{}-{number}", std::process::id())));
        // A former process of this number may have left it, if that died a moment ago.
        let _left = fs::remove_dir_all(&directory);
        let make = || {
            // Memory of processes is nobody else's to read.
            DirBuilder::new().mode(0o700).create(&directory)?;
            let handle = File::open(&directory)?;
            flock(&handle, FlockOperation::NonBlockingLockExclusive)?;
            Ok(handle)
        };
        let handle = make().map_err(|error: io::Error| Error::io("make the directory", &directory, error))?;
        Ok(Self { place, existing, directory, handle, done: false })
    }

    /// Where CRIU writes.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Puts CRIU's log where it stays, for a checkpoint that was not taken.
    pub(crate) fn keep_log(&self) -> PathBuf {
        let (parent, name) = (self.place.parent().unwrap_or(Path::new("/")), self.place.file_name());
        let kept = parent.join(joined("", name.unwrap_or_default(), ".failed.log"));
        match fs::rename(self.directory.join(LOG), &kept) {
            Ok(()) => kept,
            Err(_) => self.directory.join(LOG),
        }
    }

    /// All is written: it takes its place. Returns where the one that was there is now, if it was kept.
    pub(crate) fn commit(&mut self) -> Result<Option<PathBuf>, Error> {
        let place = self.place.clone();
        let failed = |error: io::Error| Error::io("put the checkpoint in place at", &place, error);
        self.handle.sync_all().map_err(failed)?;
        let (parent, name) = split(&place)?;
        let mut kept = None;
        match renameat_with(CWD, &self.directory, CWD, &self.place, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                // Somebody else may have put it there meanwhile.
                check(&place, &self.existing)?;
                renameat_with(CWD, &self.directory, CWD, &place, RenameFlags::EXCHANGE)
                    .map_err(|error| failed(error.into()))?;
                // From here the new one is in place, and the old one in the draft's.
                if let Existing::Keep(backup) = self.existing.clone()
                    && self.directory.join(FILE).exists()
                {
                    kept = Some(self.keep(parent, name, backup.as_deref()).map_err(failed)?);
                } else {
                    let _old = fs::remove_dir_all(&self.directory);
                }
            }
            Err(error) => return Err(failed(error.into())),
        }
        self.done = true;
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
        Ok(kept)
    }

    /// Keeps what was in place, which is the draft's now. If that cannot be, all is as it was.
    fn keep(&mut self, parent: &Path, name: &OsStr, backup: Option<&Path>) -> io::Result<PathBuf> {
        keep(&self.directory, parent, name, backup).inspect_err(|_| {
            let back = renameat_with(CWD, &self.directory, CWD, &self.place, RenameFlags::EXCHANGE);
            // Otherwise the draft is the old checkpoint, and must not go with it.
            self.done = back.is_err();
        })
    }

    /// What owns it from now on, beside others.
    pub(crate) fn owner(&self) -> io::Result<Owner> {
        let handle = self.handle.try_clone()?;
        flock(&handle, FlockOperation::NonBlockingLockShared)?;
        Ok(Owner::held(handle))
    }

    /// Where it is, once it is done.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.done {
            let _gone = fs::remove_dir_all(&self.directory);
        }
    }
}

fn split(place: &Path) -> Result<(&Path, &OsStr), Error> {
    let named = place.parent().zip(place.file_name());
    named.ok_or_else(|| Error::Taken(place.to_owned()))
}

fn joined(before: &str, name: &OsStr, after: &str) -> OsString {
    let mut joined = OsString::from(before);
    joined.push(name);
    joined.push(after);
    joined
}

/// Whether a checkpoint may be put there.
fn check(place: &Path, existing: &Existing) -> Result<(), Error> {
    let Ok(metadata) = fs::symlink_metadata(place) else { return Ok(()) };
    if place.join(FILE).exists() {
        return if *existing == Existing::Refuse { Err(Error::Exists(place.to_owned())) } else { Ok(()) };
    }
    let empty = metadata.is_dir() && fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_none());
    if empty && fs::remove_dir(place).is_ok() { Ok(()) } else { Err(Error::Taken(place.to_owned())) }
}

/// Whether a checkpoint can be kept under that name, which is found out before anything is saved.
fn check_backup(place: &Path, parent: &Path, name: &OsStr, named: &Path) -> Result<(), Error> {
    let to = parent.join(named);
    let cannot = |why: String| Err(Error::Backup { name: named.to_owned(), why });
    let (Some(beside), Some(last)) = (to.parent(), to.file_name()) else {
        return cannot("it is no name of a directory".to_owned());
    };
    if named.as_os_str().is_empty() {
        return cannot("it is empty".to_owned());
    }
    let found = fs::canonicalize(beside).and_then(|beside| Ok((fs::metadata(&beside)?, beside)));
    let (metadata, beside) = match found {
        Ok(found) => found,
        Err(error) => return cannot(format!("{}: {error}", beside.display())),
    };
    let own = fs::canonicalize(parent)
        .and_then(|own| Ok((fs::metadata(&own)?.dev(), own)))
        .map_err(|error| Error::io("use", parent, error))?;
    if metadata.dev() != own.0 {
        return cannot("it is on another file system".to_owned());
    }
    if beside == own.1 && last == name || beside.starts_with(own.1.join(name)) {
        return cannot("that is where the new one goes".to_owned());
    }
    if beside == own.1 && last.as_encoded_bytes().starts_with(joined(".", name, ".new-").as_encoded_bytes()) {
        return cannot("names like this are of checkpoints that are being written".to_owned());
    }
    // The same by another name, on file systems that take several names for one.
    let identity = |path: &Path| fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()));
    match (identity(&to), identity(place)) {
        (Ok(to), Ok(place)) if to == place => cannot("that is where the new one goes".to_owned()),
        _ => Ok(()),
    }
}

/// Puts an old checkpoint under the name of a backup. Where that is impossible, it goes under the next number.
fn keep(old: &Path, parent: &Path, name: &OsStr, named: Option<&Path>) -> io::Result<PathBuf> {
    let rename = |to: &Path| renameat_with(CWD, old, CWD, to, RenameFlags::NOREPLACE);
    if let Some(named) = named {
        let to = parent.join(named);
        if rename(&to).is_ok() {
            return Ok(to);
        }
        // The name is taken: by an older backup, which gives way as with `cp --backup`, or by something else.
        if to.join(FILE).exists() && renameat_with(CWD, old, CWD, &to, RenameFlags::EXCHANGE).is_ok() {
            let _older = fs::remove_dir_all(old);
            return Ok(to);
        }
    }
    let mut number = 1_u32;
    loop {
        let to = parent.join(joined("", name, &format!(".~{number}~")));
        match rename(&to) {
            Ok(()) => return Ok(to),
            Err(rustix::io::Errno::EXIST) => number += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes what writers left that were killed.
fn sweep(parent: &Path, name: &OsStr) {
    let prefix = joined(".", name, ".new-");
    sweep_those(parent, |name| name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes()));
}

/// The same for all names.
pub(crate) fn sweep_all(parent: &Path) {
    sweep_those(parent, |name| {
        let name = name.to_string_lossy();
        let number = name.strip_prefix('.').and_then(|name| name.rsplit_once(".new-"));
        number.is_some_and(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'))
    });
}

fn sweep_those(parent: &Path, is_one: impl Fn(&OsStr) -> bool) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.filter_map(Result::ok) {
        if !is_one(&entry.file_name()) {
            continue;
        }
        // Anybody may have put anything there, where they may write: only what is ours is looked at.
        let flags =
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(handle) = open(entry.path(), flags, Mode::empty()) else { continue };
        let ours = fstat(&handle).is_ok_and(|found| found.st_uid == geteuid().as_raw());
        if ours && flock(&handle, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _gone = fs::remove_dir_all(entry.path());
        }
    }
}

/// A checkpoint that was found.
#[derive(Debug)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself, or why it cannot be used.
    pub manifest: Result<Manifest, Error>,
}

/// Where a checkpoint is that was named: itself, or the newest of several.
#[must_use]
pub fn resolve(path: &Path) -> PathBuf {
    let latest = path.join(LATEST);
    if !path.join(FILE).exists() && latest.join(FILE).exists() {
        return fs::canonicalize(&latest).unwrap_or(latest);
    }
    path.to_owned()
}

/// The checkpoints of a directory, by their names; the directory itself and its backups if it is one.
pub fn list(directory: &Path) -> Result<Vec<Found>, Error> {
    let found = |path: PathBuf| Found { manifest: Manifest::read(&path), path };
    let absolute = std::path::absolute(directory).map_err(|error| Error::io("use", directory, error))?;
    if !directory.is_dir() {
        return Err(Error::NoDirectory(directory.to_owned()));
    }
    if directory.join(FILE).exists() {
        let mut all = vec![found(directory.to_owned())];
        if let Ok((parent, name)) = split(&absolute) {
            let prefix = joined("", name, ".~");
            let is_backup = |name: &OsStr| name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
            all.extend(
                below(parent)?.into_iter().filter(|path| path.file_name().is_some_and(is_backup)).map(found),
            );
        }
        return Ok(all);
    }
    Ok(below(directory)?.into_iter().map(found).collect())
}

/// The directories below one that hold a manifest, without links and drafts.
fn below(directory: &Path) -> Result<BTreeSet<PathBuf>, Error> {
    let read = || -> io::Result<BTreeSet<PathBuf>> {
        let mut paths = BTreeSet::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if !hidden && entry.file_type()?.is_dir() && entry.path().join(FILE).exists() {
                paths.insert(entry.path());
            }
        }
        Ok(paths)
    };
    read().map_err(|error| Error::io("list the checkpoints of", directory, error))
}

/// How long the names are that number checkpoints, until these numbers are used up; and how long they may become.
const DIGITS: usize = 6;
const MAX_DIGITS: usize = 18;

/// A directory in which checkpoints follow each other.
#[derive(Debug)]
pub(crate) struct Rotation {
    base: PathBuf,
}

impl Rotation {
    pub(crate) fn new(base: &Path) -> Result<Self, Error> {
        if base.join(FILE).exists() {
            return Err(Error::Single(base.to_owned()));
        }
        fs::create_dir_all(base).map_err(|error| Error::io("make the directory", base, error))?;
        Ok(Self { base: base.to_owned() })
    }

    /// The numbers that are taken, by whatever. Of six digits; longer ones are ours once that did not suffice.
    fn numbers(&self) -> Vec<(u64, PathBuf)> {
        let newest = fs::read_link(self.base.join(LATEST)).unwrap_or_default();
        let digits = DIGITS..=newest.as_os_str().len().clamp(DIGITS, MAX_DIGITS);
        let number = |name: &str| -> Option<u64> {
            let name = name.strip_suffix(".failed.log").unwrap_or(name);
            let whole = digits.contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_digit());
            whole.then(|| name.parse().ok())?
        };
        let mut numbers: Vec<_> = fs::read_dir(&self.base)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((number(entry.file_name().to_str()?)?, entry.path()))
            })
            .collect();
        numbers.sort();
        numbers
    }

    /// Where the next one goes.
    pub(crate) fn next(&self) -> PathBuf {
        let last = self.numbers().last().map_or(0, |(number, _)| *number);
        self.base.join(format!("{:06}", last + 1))
    }

    /// A new one is in place: the link leads to it, and of the older ones all but `keep` in total go.
    pub(crate) fn turn(&self, newest: &Path, keep: usize) -> Result<(), Error> {
        let link = self.base.join(format!(".{LATEST}.new-{}", std::process::id()));
        let name = newest.file_name().unwrap_or_default();
        let _left = fs::remove_file(&link);
        std::os::unix::fs::symlink(name, &link)
            .and_then(|()| fs::rename(&link, self.base.join(LATEST)))
            .and_then(|()| File::open(&self.base)?.sync_all())
            .map_err(|error| Error::io("point to the newest checkpoint in", &self.base, error))?;
        let whole: Vec<_> = self
            .numbers()
            .into_iter()
            .filter(|(_, path)| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()))
            .filter(|(_, path)| path.join(FILE).exists())
            .map(|(_, path)| path)
            .collect();
        let surplus = whole.len().saturating_sub(keep.max(1));
        for path in &whole[..surplus] {
            // First it is no checkpoint any more, so that nobody finds half of one.
            let _gone = fs::remove_file(path.join(FILE)).and_then(|()| fs::remove_dir_all(path));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
