//! Transfers that are under way, as files: what a reboot cuts off is found there again.
//!
//! A job is the command as it was typed, and where. It is locked as long as its process lives, and goes when there is
//! nothing to go on with.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::output::Output;

/// What a command may read beside its words.
const VARIABLES: [&str; 2] = ["STEADFAST_CONFIG", "STEADFAST_IDENTITY"];

/// A command that can be run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Typed {
    /// Without the program.
    pub(crate) words: Vec<OsString>,
    pub(crate) directory: PathBuf,
    pub(crate) variables: Vec<(String, OsString)>,
}

impl Typed {
    /// What this process was told, and `more`.
    pub(crate) fn now(more: &[String]) -> io::Result<Self> {
        let words = env::args_os().skip(1).chain(more.iter().map(OsString::from)).collect();
        let variables = VARIABLES.iter().filter_map(|name| Some(((*name).into(), env::var_os(name)?)));
        Ok(Self { words, directory: env::current_dir()?, variables: variables.collect() })
    }

    fn name(&self) -> String {
        let mut hash = Sha256::new();
        let variables = self.variables.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        let words = self.words.iter().map(|word| word.as_bytes());
        for part in words.chain([self.directory.as_os_str().as_bytes()]).chain(variables) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize()[..8].iter().fold(String::new(), |name, byte| format!("{name}{byte:02x}")) + ".json"
    }
}

/// Commands with their files, and the files that make no sense.
pub(crate) type Waiting = (Vec<(PathBuf, Typed)>, Vec<PathBuf>);

/// The directory of jobs.
#[derive(Debug)]
pub(crate) struct Jobs {
    directory: PathBuf,
    /// Whether it was asked for by name, and so must be there.
    named: bool,
}

/// A job of this process.
#[derive(Debug)]
pub(crate) struct Job {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
    /// An earlier run of the same command had been cut off.
    again: bool,
}

impl Jobs {
    /// Those in `directory`, or where the state of this user lies.
    pub(crate) fn new(named: Option<&Path>, context: &Context) -> Self {
        let directory = named.map_or_else(|| context.places.state.join("transfers"), Path::to_path_buf);
        Self { directory, named: named.is_some() }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Remembers a command until [`Job::is_over`]. `None` if another process runs the same, or where the state of this user
    /// cannot be written: then it is said that nothing will find it.
    pub(crate) fn begin(&self, typed: &Typed, output: &mut Output) -> anyhow::Result<Option<Job>> {
        let shown = self.directory.display();
        match self.remember(typed) {
            Ok(job) => Ok(job),
            Err(error) if self.named => Err(error).with_context(|| {
                format!("cannot remember this transfer in {shown}: let this user write there, or name another directory")
            }),
            Err(error) => {
                output.line(format!(
                    "After a reboot `steadfast resume` will not know of this: cannot write {shown}: {error}; --store names \
                     another directory."
                ))?;
                Ok(None)
            }
        }
    }

    fn remember(&self, typed: &Typed) -> io::Result<Option<Job>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let path = self.directory.join(typed.name());
        if path.exists() {
            return Ok(lock(&path)?.map(|file| Job { path, _file: file, again: true }));
        }
        let begun = path.with_extension(format!("{}.begun", std::process::id()));
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&begun)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let text = serde_json::to_vec(typed).map_err(io::Error::other)?;
        // A name that is there after a power cut has its content.
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&begun, &path))
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .inspect_err(|_| drop(fs::remove_file(&begun)))?;
        Ok(Some(Job { path, _file: file, again: false }))
    }

    /// The commands that were cut off and that nobody runs now, and the files that make no sense.
    pub(crate) fn waiting(&self) -> io::Result<Waiting> {
        let (mut found, mut strange) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((found, strange)),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") || lock(&path)?.is_none() {
                continue;
            }
            match fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                Some(typed) => found.push((path, typed)),
                None => strange.push(path),
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok((found, strange))
    }
}

/// The file of a job, locked; `None` if another process has it, or just removed it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => return Ok(None),
        locked => locked?,
    }
    let same = fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|then| now.ino() == then.ino()));
    Ok(same.then_some(file))
}

impl Job {
    /// Whether an earlier run of the same command had been cut off.
    pub(crate) const fn goes_on(&self) -> bool {
        self.again
    }

    /// There is nothing to go on with.
    pub(crate) fn done(self) {
        // If it stays, the next run of it finds everything done.
        let _stays = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(name: &str) -> Jobs {
        let directory = env::temp_dir().join(format!("steadfast-jobs-{}-{name}", std::process::id()));
        let _none = fs::remove_dir_all(&directory);
        Jobs { directory, named: true }
    }

    fn typed(word: &str) -> Typed {
        Typed { words: vec!["send".into(), word.into()], directory: "/".into(), variables: Vec::new() }
    }

    #[test]
    fn a_job_waits_when_its_process_is_gone_and_not_before() {
        let jobs = jobs("waits");
        assert_eq!(jobs.waiting().unwrap(), (Vec::new(), Vec::new()), "no directory is no job");
        let job = jobs.remember(&typed("one")).unwrap().unwrap();
        assert!(!job.goes_on());
        assert!(jobs.remember(&typed("one")).unwrap().is_none(), "it runs");
        assert!(jobs.waiting().unwrap().0.is_empty());
        drop(job);
        let waiting: Vec<_> = jobs.waiting().unwrap().0.into_iter().map(|(_, typed)| typed).collect();
        assert_eq!(waiting, [typed("one")]);
        let job = jobs.remember(&typed("one")).unwrap().unwrap();
        assert!(job.goes_on());
        jobs.remember(&typed("two")).unwrap().unwrap().done();
        job.done();
        assert!(jobs.waiting().unwrap().0.is_empty());
        fs::write(jobs.directory.join("strange.json"), "{").unwrap();
        assert_eq!(jobs.waiting().unwrap().1.len(), 1);
        fs::remove_dir_all(&jobs.directory).unwrap();
    }
}
