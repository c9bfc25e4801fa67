//! Whom this side trusts.

mod watch;

pub use watch::TrustWatcher;

use crate::private_file::{self, Existing};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use steadfast_wire::{Fingerprint, id::FingerprintError};

/// A file larger than this is not a list of peers (about 100,000 of them).
const MAX_FILE: u64 = 8 * 1024 * 1024;
/// The most bytes in the name of a peer.
pub const MAX_PEER_NAME: usize = 64;

/// The file of trusted peers: one a line, `FINGERPRINT [NAME]`; from `#` on a line is a comment.
///
/// The value is what the file held when it was last read. Edits keep comments and foreign lines, are atomic, and
/// several processes may make them at once (they take turns through a lock on `FILE.lock`).
///
/// ```
/// # let directory = std::env::temp_dir().join(format!("steadfast-doc-{}", std::process::id()));
/// use steadfast_net::{Identity, TrustFile};
/// let peer = Identity::generate().unwrap().fingerprint();
/// let mut trusted = TrustFile::open(&directory.join("trusted")).unwrap();
/// trusted.add(peer, Some("boat")).unwrap();
/// assert!(trusted.contains(&peer));
/// assert_eq!(trusted.find_by_name("boat"), Some(peer));
/// # std::fs::remove_dir_all(&directory).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct TrustFile {
    path: PathBuf,
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    text: String,
    peer: Option<Peer>,
}

#[derive(Debug, Clone)]
struct Peer {
    fingerprint: Fingerprint,
    name: Option<String>,
}

/// Why the list of trusted peers cannot be used or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The system refused.
    #[error("cannot {what} the trusted peers in {}: {source}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may change the file, and so decide whom this side trusts.
    #[error(
        "the trusted peers in {} may be changed by others (mode {mode:04o}): check them and run `chmod go-w {}`",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line cannot be read.
    #[error("{}, line {line}: {fault}; correct the line, or remove it", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        fault: LineFault,
    },
    /// The name cannot stand in the file.
    #[error("cannot name a peer `{0}`: a name is one word of at most 64 bytes without `#`, `@` or `,`")]
    Name(String),
    /// Another peer has the name.
    #[error(
        "cannot name {wanted} `{name}`: {holder} has that name; choose another, or remove that peer first"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Who should get it.
        wanted: Fingerprint,
        /// Who has it.
        holder: Fingerprint,
    },
}

/// What is wrong with a line of the file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineFault {
    /// Its first word.
    #[error(transparent)]
    Fingerprint(#[from] FingerprintError),
    /// More than a fingerprint and a name.
    #[error("a fingerprint and at most one word as its name is expected")]
    Words,
}

impl TrustFile {
    /// Reads the file; one that is missing is an empty list. Blocks on the disk.
    ///
    /// Fails at the first line that cannot be read, and if others may write to the file: a list that is half
    /// understood must not decide who may connect.
    pub fn open(path: &Path) -> Result<Self, TrustError> {
        // An edit replaces the file: through a symbolic link that must be the file it leads to.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let mut file = Self { path, lines: Vec::new() };
        file.reload()?;
        Ok(file)
    }

    /// Reads the file again; blocks on the disk. After an error the list is as it was.
    pub fn reload(&mut self) -> Result<(), TrustError> {
        self.lines = self.read()?;
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the peer is trusted.
    pub fn contains(&self, fingerprint: &Fingerprint) -> bool {
        self.peers().any(|(known, _)| known == *fingerprint)
    }

    /// The name of a trusted peer.
    pub fn name_of(&self, fingerprint: &Fingerprint) -> Option<&str> {
        self.peers().find(|(known, name)| known == fingerprint && name.is_some()).and_then(|(_, name)| name)
    }

    /// The trusted peer of that name.
    pub fn find_by_name(&self, name: &str) -> Option<Fingerprint> {
        self.peers().find(|(_, known)| *known == Some(name)).map(|(fingerprint, _)| fingerprint)
    }

    /// All trusted peers with their names, in the order of the file.
    pub fn peers(&self) -> impl Iterator<Item = (Fingerprint, Option<&str>)> {
        self.lines
            .iter()
            .filter_map(|line| line.peer.as_ref())
            .map(|peer| (peer.fingerprint, peer.name.as_deref()))
    }

    /// Adds a peer, or gives a known one a new name; blocks on the disk and on other writers.
    ///
    /// Returns whether the file changed. Fails if another peer has the name.
    pub fn add(&mut self, fingerprint: Fingerprint, name: Option<&str>) -> Result<bool, TrustError> {
        let _lock = self.lock()?;
        self.reload()?;
        if let Some(name) = name {
            check_name(name)?;
            if let Some(holder) = self.find_by_name(name).filter(|holder| *holder != fingerprint) {
                return Err(TrustError::NameTaken { name: name.into(), wanted: fingerprint, holder });
            }
        }
        let known = self
            .lines
            .iter_mut()
            .find(|line| line.peer.as_ref().is_some_and(|p| p.fingerprint == fingerprint));
        match known {
            Some(line) => {
                let peer = line.peer.as_ref().and_then(|peer| peer.name.as_deref());
                if name.is_none() || peer == name {
                    return Ok(false);
                }
                let comment = line.text.find('#').map(|start| format!(" {}", &line.text[start..]));
                *line = Line::of(fingerprint, name, &comment.unwrap_or_default());
            }
            None => self.lines.push(Line::of(fingerprint, name, "")),
        }
        self.store()?;
        Ok(true)
    }

    /// Removes a peer; blocks on the disk and on other writers. Returns whether it was there.
    pub fn remove(&mut self, fingerprint: &Fingerprint) -> Result<bool, TrustError> {
        let _lock = self.lock()?;
        self.reload()?;
        let before = self.lines.len();
        self.lines.retain(|line| line.peer.as_ref().is_none_or(|peer| peer.fingerprint != *fingerprint));
        if self.lines.len() == before {
            return Ok(false);
        }
        self.store()?;
        Ok(true)
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> TrustError {
        let path = self.path.clone();
        move |source| TrustError::Io { what, path, source }
    }

    fn read(&self) -> Result<Vec<Line>, TrustError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("read")(error)),
        };
        let metadata = file.metadata().map_err(self.failed("read"))?;
        if metadata.mode() & 0o022 != 0 {
            return Err(TrustError::Exposed { path: self.path.clone(), mode: metadata.mode() & 0o7777 });
        }
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            return Err(self.failed("read")(io::Error::other("not a regular file of at most 8 MiB")));
        }
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(self.failed("read"))?;
        text.lines()
            .enumerate()
            .map(|(index, line)| {
                Line::parse(line).map_err(|fault| TrustError::Line {
                    path: self.path.clone(),
                    line: index + 1,
                    fault,
                })
            })
            .collect()
    }

    fn store(&self) -> Result<(), TrustError> {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&line.text);
            text.push('\n');
        }
        private_file::write(&self.path, text.as_bytes(), 0o600, Existing::Replace)
            .map_err(self.failed("write"))
    }

    /// Waits until no other writer is between its read and its rename; the lock ends with the returned file.
    fn lock(&self) -> Result<File, TrustError> {
        private_file::create_directories(private_file::parent(&self.path)).map_err(self.failed("lock"))?;
        let mut name = self.path.file_name().unwrap_or_default().to_os_string();
        name.push(".lock");
        // Beside the list, since the list itself is replaced and a lock on it would be a lock on a dead file.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.with_file_name(name))
            .map_err(self.failed("lock"))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|errno| self.failed("lock")(errno.into()))?;
        Ok(file)
    }
}

impl Line {
    fn parse(text: &str) -> Result<Self, LineFault> {
        let content = text.split('#').next().unwrap_or_default();
        let mut words = content.split_whitespace();
        let peer = match words.next() {
            None => None,
            Some(word) => Some(Peer { fingerprint: word.parse()?, name: words.next().map(Into::into) }),
        };
        if words.next().is_some() {
            return Err(LineFault::Words);
        }
        Ok(Self { text: text.into(), peer })
    }

    fn of(fingerprint: Fingerprint, name: Option<&str>, comment: &str) -> Self {
        let text = match name {
            Some(name) => format!("{fingerprint} {name}{comment}"),
            None => format!("{fingerprint}{comment}"),
        };
        Self { text, peer: Some(Peer { fingerprint, name: name.map(Into::into) }) }
    }
}

fn check_name(name: &str) -> Result<(), TrustError> {
    let forbidden =
        |letter: char| letter.is_whitespace() || letter.is_control() || matches!(letter, '#' | '@' | ',');
    if name.is_empty() || name.len() > MAX_PEER_NAME || name.contains(forbidden) {
        return Err(TrustError::Name(name.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
