//! Moving processes to another host: what the two sides say to each other, and what each looks at before anything is frozen.
//!
//! | the one that has the processes | the other |
//! |---|---|
//! | `Ask`: which they are | `Welcome`, or `Refused` |
//! | saves them, and they stand still; `Images`: how much it is | `Send`, or `Refused` |
//! | the files, in a conversation of their own | |
//! | `Go`: from here on it does not let them go on by itself | restores them; `Runs`, or `Failed` |
//!
//! With `Runs` the old processes end, with anything else that is sure they go on. After `Go`, silence is no answer: they stay
//! stopped, so that never two run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use rustix::system::uname;
use serde::{Deserialize, Serialize};

use crate::criu::{Criu, Version};
use crate::error::{Class, Error};
use crate::manifest::{FILE, FORMAT, LOG, Manifest};
use crate::place::{self, Draft, Existing};
use crate::process;
use crate::scope::{Scope, Tree};
use crate::transit::{Owner, PASSING, sweep_passing};

/// What all messages begin with, so that whoever listens for something else takes them for nothing.
const MAGIC: &[u8] = b"sfMOVES\0";
/// The version that is spoken here.
const VERSION: u32 = 1;
/// The largest message.
const MAX: usize = 512 * 1024;
/// The most processes and threads of one migration.
const MAX_NUMBERS: usize = 32_768;
/// The most files that a checkpoint may have.
pub const MAX_FILES: u64 = 262_144;
/// The most letters that are taken over from the other side, for people.
const MAX_WORDS: usize = 4096;

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Said {
    /// These processes want to come.
    Ask(Ask),
    /// They may.
    Welcome {
        /// What the host calls itself.
        host: String,
    },
    /// They may not, and nothing was done.
    Refused(Refusal),
    /// They were saved, into so many files of so many bytes altogether.
    Images {
        /// How many.
        files: u64,
        /// Bytes of all of them.
        bytes: u64,
    },
    /// The files may come.
    Send,
    /// All of them are there: restore.
    Go,
    /// They run again.
    Runs {
        /// The first one, by its number there.
        pid: u32,
        /// What they could not take up again.
        faults: Vec<String>,
    },
    /// They do not, and nothing of them is left.
    Failed(Refusal),
}

/// Processes that want to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The oldest version of this that their side speaks.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
    /// The format of its manifests.
    pub format: u32,
    /// The kind of its machine.
    pub machine: String,
    /// Its CRIU.
    pub criu: Version,
    /// The first process.
    pub root: u32,
    /// What that is called.
    pub name: String,
    /// All numbers of processes and threads; empty where they are of a PID namespace of their own.
    pub numbers: Vec<u32>,
    /// At least so many bytes of memory.
    pub bytes: u64,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind of failure.
    pub class: Class,
    /// Its error number.
    pub errno: i32,
    /// Whether it is for want of a permission that somebody there could give.
    pub trust: bool,
    /// Why, and what would help.
    pub words: String,
}

impl Refusal {
    /// For something else than what an error says.
    #[must_use]
    pub fn new(class: Class, errno: nix::errno::Errno, words: impl Into<String>) -> Self {
        Self { class, errno: errno as i32, trust: false, words: words.into() }
    }

    /// Whoever asks is not among those who may.
    #[must_use]
    pub fn stranger(words: impl Into<String>) -> Self {
        Self { trust: true, ..Self::new(Class::Environment, nix::errno::Errno::EPERM, words) }
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self { class: error.class(), errno: error.errno(), trust: false, words: error.to_string() }
    }
}

/// The other side speaks otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it says something that is not understood here; is the same version of Steadfast on both hosts?")]
pub struct NotUnderstood;

impl Said {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Nothing in it can fail to be written.
        let text = serde_json::to_vec(self).unwrap_or_default();
        [MAGIC, &text].concat()
    }

    /// Whether these bytes are meant to be one, though perhaps of another version.
    #[must_use]
    pub fn is_meant(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// From bytes of a peer.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotUnderstood> {
        let text = bytes.strip_prefix(MAGIC).filter(|text| text.len() <= MAX).ok_or(NotUnderstood)?;
        let mut said: Self = serde_json::from_slice(text).map_err(|_| NotUnderstood)?;
        match &mut said {
            Self::Ask(ask) => {
                if ask.numbers.len() > MAX_NUMBERS {
                    return Err(NotUnderstood);
                }
                shorten(&mut ask.name);
                shorten(&mut ask.machine);
            }
            Self::Welcome { host } => shorten(host),
            Self::Refused(refusal) | Self::Failed(refusal) => shorten(&mut refusal.words),
            Self::Runs { faults, .. } => {
                faults.truncate(64);
                faults.iter_mut().for_each(shorten);
            }
            Self::Images { .. } | Self::Send | Self::Go => {}
        }
        Ok(said)
    }
}

fn shorten(words: &mut String) {
    let end = words.char_indices().nth(MAX_WORDS).map_or(words.len(), |(at, _)| at);
    words.truncate(end);
}

/// Processes that are to move, before anything is done to them.
#[derive(Debug)]
pub struct Moving {
    /// What is asked of the other side.
    pub ask: Ask,
    /// Those that were stopped by somebody before.
    pub(crate) stopped: BTreeSet<u32>,
}

impl Moving {
    /// Looks at a process and all its descendants.
    pub fn look(criu: &Criu, id: u32) -> Result<Self, Error> {
        let tree = Tree::find(Scope::Tree, id)?;
        tree.spares_this("migrate")?;
        let root = tree.root();
        let mut numbers = Vec::new();
        if !process::is_apart(root.pid, "pid") {
            numbers = tree.pids().into_iter().flat_map(process::threads).collect();
        }
        if numbers.len() > MAX_NUMBERS {
            let count = numbers.len();
            return Err(Error::Scope(format!(
                "cannot migrate process {id}: it has {count} descendants and threads, at most {MAX_NUMBERS} can move at once"
            )));
        }
        let ask = Ask {
            oldest: VERSION,
            newest: VERSION,
            format: FORMAT,
            machine: machine(),
            criu: criu.version()?,
            root: root.pid,
            name: root.name.clone(),
            numbers,
            bytes: tree.processes.iter().map(process::Process::private).sum(),
        };
        let stopped = tree.pids().into_iter().filter(|pid| process::is_stopped(*pid)).collect();
        Ok(Self { ask, stopped })
    }
}

fn machine() -> String {
    uname().machine().to_string_lossy().into_owned()
}

impl Ask {
    /// Whether what asks can be restored here, as far as that can be told now.
    pub fn examine(&self, criu: &Criu) -> Result<(), Refusal> {
        let unfit = |words: String| Refusal::new(Class::Environment, nix::errno::Errno::ENOSYS, words);
        if !(self.oldest..=self.newest).contains(&VERSION) || self.format != FORMAT {
            return Err(unfit(format!(
                "it speaks version {} of migrations and this side {VERSION}; install the same version of Steadfast on both hosts",
                self.newest
            )));
        }
        let here = machine();
        if self.machine != here {
            let made = &self.machine;
            return Err(unfit(format!(
                "it runs on {made}, and this machine is {here}; choose a host of its kind"
            )));
        }
        let own = criu.version().map_err(|error| Refusal::from(&error))?;
        if self.criu.major > own.major {
            return Err(unfit(format!(
                "it is saved by CRIU {}, and this host has {own}; update CRIU here",
                self.criu
            )));
        }
        for number in &self.numbers {
            if let Some(holder) = process::holder(*number) {
                return Err(Refusal::from(&holder.error(*number, self.name.clone())));
            }
        }
        Ok(())
    }
}

/// The files of a checkpoint that whoever restores it needs.
#[must_use]
pub fn files(place: &Path, manifest: &Manifest) -> Vec<PathBuf> {
    let own = [FILE, LOG].into_iter().map(str::to_owned);
    let all = manifest.files.keys().cloned().chain(own).map(|name| place.join(name));
    all.filter(|path| path.is_file()).collect()
}

/// Bytes that may come into a directory: a tenth of what is free stays free, whatever `limit` says.
pub fn room(directory: &Path, limit: Option<u64>) -> Result<u64, Error> {
    let found = statvfs(directory).map_err(|error| Error::io("look for room in", directory, error.into()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let free = free - free / 10;
    Ok(limit.map_or(free, |limit| free.min(limit)))
}

/// Images that are coming. Dropped, nothing of them is left.
#[derive(Debug)]
pub struct Arrival(Draft);

impl Arrival {
    /// What becomes the checkpoint `place`; one that is there is kept beside it. Without `keep` it is rubbish as soon as nobody owns
    /// it.
    pub fn begin(place: &Path, keep: bool) -> Result<Self, Error> {
        let draft = Draft::begin(place, Existing::Keep(None))?;
        if !keep {
            let path = draft.directory().join(PASSING);
            fs::File::create(&path).map_err(|error| Error::io("write", &path, error))?;
        }
        Ok(Self(draft))
    }

    /// Where they come to.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.0.directory()
    }

    /// All of them are there. Returns where, and what owns that.
    pub fn commit(mut self) -> Result<(PathBuf, Owner), Error> {
        // What came has to be a checkpoint, before it takes the place of another.
        Manifest::read(self.0.directory())?;
        self.0.commit()?;
        let place = self.0.place().to_owned();
        let owner = self.0.owner().map_err(|error| Error::io("use", &place, error))?;
        Ok((place, owner))
    }
}

/// Makes a directory for arrivals, which is its owner's alone, and removes what was left in it by one that was killed.
pub fn prepare(directory: &Path) -> Result<PathBuf, Error> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    let cannot = |error| Error::io("make the directory", directory, error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(cannot)?;
    let directory = fs::canonicalize(directory).map_err(cannot)?;
    let metadata = fs::metadata(&directory).map_err(cannot)?;
    // Images of processes are secrets, and run.
    if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        let why = "others own it or may write into it".to_owned();
        return Err(Error::Foreign { path: directory, why });
    }
    place::sweep_all(&directory);
    sweep_passing(&directory);
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        Ask {
            oldest: VERSION,
            newest: VERSION,
            format: FORMAT,
            machine: machine(),
            criu: Version { major: 4, minor: 2, sublevel: 0 },
            root: 7,
            name: "a".repeat(MAX_WORDS + 9),
            numbers: vec![7, 8],
            bytes: 1,
        }
    }

    #[test]
    fn what_is_said_is_understood() {
        let refusal = Refusal::stranger("no");
        for said in [
            Said::Welcome { host: "b".to_owned() },
            Said::Refused(refusal.clone()),
            Said::Images { files: 3, bytes: u64::MAX },
            Said::Send,
            Said::Go,
            Said::Runs { pid: 7, faults: vec!["x".to_owned()] },
            Said::Failed(refusal),
        ] {
            assert_eq!(Said::decode(&said.encode()), Ok(said));
        }
        let Ok(Said::Ask(short)) = Said::decode(&Said::Ask(ask()).encode()) else { panic!("an ask") };
        assert_eq!((short.name.len(), short.numbers), (MAX_WORDS, vec![7, 8]));
    }

    #[test]
    fn whatever_comes_is_no_harm() {
        let many = Ask { numbers: vec![1; MAX_NUMBERS + 1], ..ask() };
        let long = [MAGIC, &vec![b' '; MAX + 1]].concat();
        for bytes in
            [&b""[..], b"sfFILES\0\x01", MAGIC, b"sfMOVES\0{\"go\":", &Said::Ask(many).encode(), &long]
        {
            assert_eq!(Said::decode(bytes), Err(NotUnderstood));
        }
        assert!(Said::is_meant(&long) && !Said::is_meant(b"sfFILES\0\x01"));
        // Of a later version.
        let later = br#"sfMOVES {"images":{"files":1,"bytes":2,"more":3}}"#;
        let mut later = later.to_vec();
        later[7] = 0;
        assert_eq!(Said::decode(&later), Ok(Said::Images { files: 1, bytes: 2 }));
    }

    #[test]
    fn there_is_room_within_the_limit() {
        let free = room(Path::new("/tmp"), None).unwrap();
        assert!(free > 10);
        assert_eq!(room(Path::new("/tmp"), Some(10)).unwrap(), 10);
        assert!(room(Path::new("/nowhere/at/all"), None).is_err());
    }

    #[test]
    fn what_was_not_completed_goes() {
        let directory = std::env::temp_dir().join(format!("steadfast-arrivals-{}", std::process::id()));
        let directory = prepare(&directory).unwrap();
        let passing = Arrival::begin(&directory.join("one"), false).unwrap();
        assert!(passing.directory().join(PASSING).exists());
        drop(passing);
        let arrival = Arrival::begin(&directory.join("one"), true).unwrap();
        assert!(!arrival.directory().join(PASSING).exists());
        fs::write(arrival.directory().join("core-1.img"), "1").unwrap();
        let kept = arrival.directory().to_owned();
        prepare(&directory).unwrap();
        assert!(kept.exists(), "its writer lives");
        assert!(arrival.commit().is_err(), "it is no checkpoint");
        assert!(!kept.exists());
        fs::create_dir(directory.join(".two.new-1-1")).unwrap();
        fs::create_dir(directory.join("three")).unwrap();
        prepare(&directory).unwrap();
        let names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["three"]);
        fs::remove_dir_all(&directory).unwrap();
    }
}
