//! What a checkpoint says of itself, in `steadfast.json` beside CRIU's images: who, when, on what, and what each file has to
//! be. It is written last; a directory without it is no checkpoint.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use steadfast_backplane::Timestamp;

use crate::criu::Version;
use crate::error::Error;
use crate::image::Process;
use crate::participants::Participant;
use crate::scope::Scope;

/// The manifest's format.
pub const FORMAT: u32 = 1;
/// Its name.
pub const FILE: &str = "steadfast.json";
/// What CRIU said while it saved.
pub const LOG: &str = "dump.log";
/// What CRIU said while it restored.
pub const RESTORE_LOG: &str = "restore.log";
/// More than any manifest has.
const MAX: u64 = 64 << 20;

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Its length in bytes.
    pub bytes: u64,
    /// The BLAKE3 of its content, in hexadecimal.
    pub blake3: String,
}

/// A standard descriptor that led out of the saved processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outward {
    /// 0, 1 or 2.
    pub number: u32,
    /// What CRIU calls it.
    pub key: String,
}

/// What a checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format.
    pub format: u32,
    /// The version of the program that made it.
    pub version: String,
    /// The version of CRIU.
    pub criu: Version,
    /// The kernel's release.
    pub kernel: String,
    /// The machine's kind, such as `x86_64`.
    pub machine: String,
    /// The host's name.
    pub host: String,
    /// When it was made, in milliseconds since 1970.
    pub time: u64,
    /// What was asked for.
    pub scope: Scope,
    /// The first process.
    pub root: u32,
    /// What that was started as.
    pub command: Vec<String>,
    /// All processes, the first one first.
    pub processes: Vec<Process>,
    /// Whether they go on as what they were: false if they ran on after it was made.
    pub ended: bool,
    /// Whether their numbers are of a PID namespace of their own.
    pub own_pids: bool,
    /// Whether they have a time namespace of their own, so that their clocks go on where they were.
    pub own_time: bool,
    /// Whether TCP connections were saved.
    pub tcp: bool,
    /// Standard descriptors that a restore connects to its own.
    pub outward: Vec<Outward>,
    /// The processes that take part by themselves.
    pub participants: Vec<Participant>,
    /// CRIU's images.
    pub files: BTreeMap<String, Piece>,
    /// The BLAKE3 of this manifest with nothing here.
    pub seal: String,
}

/// What even another format has.
#[derive(Deserialize)]
struct Head {
    format: u32,
    #[serde(default)]
    version: String,
}

impl Manifest {
    /// Reads that of a directory. It has to be whole.
    pub fn read(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let damaged =
            |what: String| Error::Damaged { path: directory.to_owned(), what: format!("{FILE}: {what}") };
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MAX).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(Error::NoCheckpoint(directory.to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged("it is no text".into()));
            }
            Err(error) => return Err(Error::io("read", &path, error)),
        }
        let head: Head = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if head.format != FORMAT {
            let (format, version) = (head.format, head.version);
            return Err(Error::Format { path: directory.to_owned(), format, version });
        }
        let manifest: Self = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if manifest.sealed()?.seal != manifest.seal {
            return Err(damaged("it is not what was written".to_owned()));
        }
        Ok(manifest)
    }

    /// The same with the right seal.
    fn sealed(&self) -> Result<Self, Error> {
        let mut sealed = self.clone();
        sealed.seal.clear();
        let text = serde_json::to_vec(&sealed)
            .map_err(|error| Error::io("write", Path::new(FILE), io::Error::other(error)))?;
        sealed.seal = blake3::hash(&text).to_hex().to_string();
        Ok(sealed)
    }

    /// Writes it into a directory, to the disk.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), Error> {
        let path = directory.join(FILE);
        let write = || {
            let mut text = serde_json::to_vec_pretty(&self.sealed().map_err(io::Error::other)?)?;
            text.push(b'\n');
            let mut file = File::create(&path)?;
            file.write_all(&text)?;
            file.sync_all()
        };
        write().map_err(|error| Error::io("write", &path, error))
    }

    /// The name of the first process.
    #[must_use]
    pub fn name(&self) -> String {
        self.processes.first().map_or_else(String::new, |process| process.name.clone())
    }

    /// The first process, by number and name.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("process {} ({})", self.root, self.name())
    }

    /// When it was made, as RFC 3339 writes it, to the second.
    #[must_use]
    pub fn when(&self) -> String {
        let text = Timestamp(self.time.saturating_mul(1_000_000)).to_string();
        format!("{}Z", text.split('.').next().unwrap_or_default())
    }

    /// Bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|piece| piece.bytes).sum()
    }

    /// Whether every file is there and is what was written.
    pub fn verify(&self, directory: &Path) -> Result<(), Error> {
        let damaged = |what: String| Error::Damaged { path: directory.to_owned(), what };
        for (name, piece) in &self.files {
            if name.contains('/') {
                return Err(damaged(format!("{FILE} names a file elsewhere, {name}")));
            }
            let path = directory.join(name);
            match fs::symlink_metadata(&path) {
                Ok(metadata) if !metadata.is_file() => return Err(damaged(format!("{name} is no file"))),
                Ok(metadata) if metadata.len() != piece.bytes => {
                    return Err(damaged(format!(
                        "{name} has {} bytes and had {}",
                        metadata.len(),
                        piece.bytes
                    )));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(damaged(format!("{name} is missing")));
                }
                Err(error) => return Err(Error::io("read", &path, error)),
            }
            let found = digest(&path).map_err(|error| Error::io("read", &path, error))?;
            if found != *piece {
                return Err(damaged(format!("{name} is not what was written")));
            }
        }
        Ok(())
    }
}

/// Whether a file of a checkpoint's directory is one of its images; logs and figures grow when it is used.
fn is_image(name: &str) -> bool {
    name != FILE && !name.starts_with("stats-") && Path::new(name).extension().is_some_and(|end| end == "img")
}

/// Looks at every image of a directory, and puts it on the disk.
pub(crate) fn pieces(directory: &Path) -> Result<BTreeMap<String, Piece>, Error> {
    let list = || -> io::Result<BTreeMap<String, Piece>> {
        let mut pieces = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !is_image(&name) || !entry.file_type()?.is_file() {
                continue;
            }
            File::open(entry.path())?.sync_all()?;
            pieces.insert(name, digest(&entry.path())?);
        }
        Ok(pieces)
    };
    list().map_err(|error| Error::io("check what was written into", directory, error))
}

fn digest(path: &Path) -> io::Result<Piece> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => {
                hasher.update(&buffer[..length]);
                bytes += length as u64;
            }
        }
    }
    Ok(Piece { bytes, blake3: hasher.finalize().to_hex().to_string() })
}
