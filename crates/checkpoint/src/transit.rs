//! Images that lie on a disk only as long as a migration needs them. They hold secrets, so what a command leaves that was killed
//! is found by the next one: whose owner has ended has no lock.
//!
//! | name | what it is |
//! |---|---|
//! | `migrating/PID` | a process that goes away: `images`, and `ordered` once the other host was told to restore it |
//! | `migrated/KEY.PID` | one that comes: `passing` in it if it goes when it runs |

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use crate::error::Error;
use crate::migration::prepare;

/// What says that the other host was told to restore it, and which that is.
const ORDERED: &str = "ordered";
/// What says that nobody wants to keep it.
pub(crate) const PASSING: &str = "passing";
/// Of what was written there no more is read.
const MAX: usize = 1024;

/// A directory, locked.
fn lock(directory: &Path, how: FlockOperation) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = File::from(open(directory, flags, Mode::empty())?);
    flock(&handle, how)?;
    // Who had the lock may have removed it.
    let (held, there) = (handle.metadata()?, fs::symlink_metadata(directory)?);
    if held.ino() == there.ino() { Ok(handle) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Whoever needs a directory. Several may at once; without any it is rubbish.
#[derive(Debug)]
pub struct Owner(#[expect(dead_code, reason = "it is held")] File);

impl Owner {
    /// Takes part in owning a directory. None if nobody can.
    #[must_use]
    pub fn of(directory: &Path) -> Option<Self> {
        lock(directory, FlockOperation::NonBlockingLockShared).ok().map(Self)
    }

    pub(crate) const fn held(handle: File) -> Self {
        Self(handle)
    }
}

/// Where the images of a process lie that goes away. Dropped, nothing of it is left, unless the other host was told to restore it.
#[derive(Debug)]
pub struct Departure {
    directory: PathBuf,
    /// Locked as long as this lives.
    _handle: File,
    stays: bool,
}

impl Departure {
    /// A place for this process below `base`.
    pub fn begin(base: &Path, pid: u32) -> Result<Self, Error> {
        let directory = prepare(base)?.join(pid.to_string());
        let handle = loop {
            match DirBuilder::new().mode(0o700).create(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("make the directory", &directory, error));
                }
                _ => {}
            }
            match lock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(handle) => break handle,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Error::Scope(format!("another migration of process {pid} is under way")));
                }
                Err(error) => return Err(Error::io("use", &directory, error)),
            }
        };
        if directory.join(ORDERED).exists() {
            return Err(Error::Scope(format!(
                "there are images of an earlier migration of process {pid} in {}, and it is not known whether that runs elsewhere; look \
                 there, then remove them: `rm -r {}`, or name another --dir",
                directory.display(),
                directory.display()
            )));
        }
        let _left = fs::remove_dir_all(directory.join("images"));
        Ok(Self { directory, _handle: handle, stays: false })
    }

    /// Where the images go.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.directory.join("images")
    }

    /// The other host is about to be told to restore it: from here on they stay until it is known what came of that.
    pub fn ordered(&mut self, name: &str, host: &str) -> Result<(), Error> {
        let path = self.directory.join(ORDERED);
        let write = || {
            let mut file = File::create(&path)?;
            writeln!(file, "{name} to {host}")?;
            file.sync_all()?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(|error| Error::io("write", &path, error))?;
        self.stays = true;
        Ok(())
    }

    /// It is known.
    pub fn decided(&mut self) {
        self.stays = false;
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if !self.stays {
            let _gone = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Images that a migration left of which nobody knows what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Where they are.
    pub directory: PathBuf,
    /// What the process is called, and to which host it went.
    pub what: String,
}

/// Removes what migrations left below `base` that were killed before they told another host anything; what the others left.
#[must_use]
pub fn left(base: &Path) -> Vec<Left> {
    let mut all = Vec::new();
    for directory in below(base) {
        let name = directory.file_name().unwrap_or_default().as_encoded_bytes();
        if !name.iter().all(u8::is_ascii_digit) {
            continue;
        }
        let Ok(_handle) = lock(&directory, FlockOperation::NonBlockingLockExclusive) else { continue };
        match fs::read(directory.join(ORDERED)) {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text[..text.len().min(MAX)]);
                all.push(Left { what: text.trim().to_owned(), directory });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _gone = fs::remove_dir_all(&directory);
            }
            Err(_) => {}
        }
    }
    all.sort_by(|one, other| one.directory.cmp(&other.directory));
    all
}

/// Removes what came and was not to stay, where neither who accepted it lives nor who restores it.
pub(crate) fn sweep_passing(base: &Path) {
    for directory in below(base).into_iter().filter(|directory| directory.join(PASSING).exists()) {
        if lock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _gone = fs::remove_dir_all(&directory);
        }
    }
}

fn below(base: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(base).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Base(PathBuf);

    impl Base {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("steadfast-transit-{name}-{}", std::process::id()));
            let _before = fs::remove_dir_all(&path);
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = below(&self.0)
                .iter()
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Base {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    /// As if the process were killed: nothing is removed, and the lock is gone.
    fn killed(departure: Departure) {
        let mut departure = departure;
        departure.stays = true;
    }

    #[test]
    fn what_a_killed_migration_left_goes_unless_it_may_run_elsewhere() {
        let base = Base::new("departures");
        let lives = Departure::begin(&base.0, 7).unwrap();
        let mode = fs::metadata(base.0.join("7")).unwrap().mode() & 0o777;
        assert_eq!((mode, lives.images()), (0o700, fs::canonicalize(&base.0).unwrap().join("7/images")));
        let again = Departure::begin(&base.0, 7).unwrap_err().to_string();
        assert!(again.contains("under way"), "{again}");
        for pid in [8, 9, 10] {
            let mut departure = Departure::begin(&base.0, pid).unwrap();
            fs::create_dir(departure.images()).unwrap();
            match pid {
                8 => killed(departure),
                9 => {
                    departure.ordered("sim", "boat").unwrap();
                    killed(departure);
                }
                _ => {
                    departure.ordered("sim", "boat").unwrap();
                    departure.decided();
                }
            }
        }
        fs::create_dir(base.0.join("other")).unwrap();
        assert_eq!(base.names(), ["7", "8", "9", "other"]);
        let left = left(&base.0);
        assert_eq!(base.names(), ["7", "9", "other"]);
        assert_eq!((left.len(), &left[0].what[..]), (1, "sim to boat"), "{left:?}");
        let again = Departure::begin(&base.0, 9).unwrap_err().to_string();
        assert!(again.contains("not known") && again.contains("rm -r"), "{again}");
        drop(lives);
        assert_eq!(base.names(), ["9", "other"]);
    }

    #[test]
    fn what_came_goes_when_nobody_needs_it() {
        let base = Base::new("arrivals");
        for (name, passing) in [("a.1", true), ("b.2", true), ("c.3", false)] {
            fs::create_dir_all(base.0.join(name)).unwrap();
            if passing {
                File::create(base.0.join(name).join(PASSING)).unwrap();
            }
        }
        let one = Owner::of(&base.0.join("a.1")).unwrap();
        let other = Owner::of(&base.0.join("a.1")).unwrap();
        drop(one);
        sweep_passing(&base.0);
        assert_eq!(base.names(), ["a.1", "c.3"]);
        drop(other);
        sweep_passing(&base.0);
        assert_eq!(base.names(), ["c.3"]);
        assert!(Owner::of(&base.0.join("a.1")).is_none());
    }
}
