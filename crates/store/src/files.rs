//! What a store asks of a disk: numbered segments that are begun beside the others and then take their name.

use rustix::fs::{FlockOperation, flock};
use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A disk. Every call is done when it returns, but survives a power cut only once it is forced.
pub trait Files: Debug {
    /// How people find it.
    fn place(&self) -> String;
    /// The segments that have their names.
    fn list(&mut self) -> io::Result<Vec<u64>>;
    /// All bytes of a segment.
    fn read(&mut self, segment: u64) -> io::Result<Vec<u8>>;
    /// Begins a segment that has no name yet, in place of one that was begun and never named. Until it is named or
    /// abandoned, the calls below concern it, and then the one that was named last.
    fn begin(&mut self) -> io::Result<()>;
    /// Appends to the segment.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the segment.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Forces what was appended to the disk.
    fn force(&mut self) -> io::Result<()>;
    /// Gives the segment that was begun its name, and forces all names to the disk.
    fn name(&mut self, segment: u64) -> io::Result<()>;
    /// Removes the segment that was begun.
    fn abandon(&mut self) -> io::Result<()>;
    /// Removes a segment.
    fn remove(&mut self, segment: u64) -> io::Result<()>;
}

/// A directory of the system, locked against other processes as long as this is there.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    names: File,
    /// Holds the lock.
    _lock: File,
    named: Option<File>,
    begun: Option<File>,
}

const BEGUN: &str = "begun";

impl Directory {
    /// Opens or makes a directory, with mode 0700, and its parents. [`io::ErrorKind::WouldBlock`] if another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let missing =
            path.ancestors().filter(|one| !one.as_os_str().is_empty()).take_while(|one| !one.exists());
        let missing: Vec<&Path> = missing.collect();
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        // That the directory is there is to outlast a power cut, too.
        for made in missing {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        let names = File::open(path)?;
        let lock = private().write(true).create(true).truncate(false).open(path.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path: path.into(), names, _lock: lock, named: None, begun: None })
    }

    fn segment(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:016x}.log"))
    }

    fn current(&mut self) -> io::Result<&mut File> {
        self.begun.as_mut().or(self.named.as_mut()).ok_or_else(|| io::Error::other("no segment was begun"))
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

impl Files for Directory {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn list(&mut self) -> io::Result<Vec<u64>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".log")).filter(|n| n.len() == 16);
            all.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
        }
        Ok(all)
    }

    fn read(&mut self, segment: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.segment(segment))?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn begin(&mut self) -> io::Result<()> {
        // A new file has the mode that was asked for, whatever lay there.
        self.abandon()?;
        self.begun = Some(private().append(true).create_new(true).open(self.path.join(BEGUN))?);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.current()?.write_all(bytes)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.current()?.set_len(length)
    }

    fn force(&mut self) -> io::Result<()> {
        self.current()?.sync_data()
    }

    fn name(&mut self, segment: u64) -> io::Result<()> {
        fs::rename(self.path.join(BEGUN), self.segment(segment))?;
        self.named = self.begun.take();
        self.names.sync_all()
    }

    fn abandon(&mut self) -> io::Result<()> {
        self.begun = None;
        match fs::remove_file(self.path.join(BEGUN)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        fs::remove_file(self.segment(segment))
    }
}
