//! Saving processes: who takes part is asked, CRIU dumps, what it wrote is looked at and put in place.
//!
//! If the processes are to go on, they do as soon as CRIU is done with them, and the rest happens meanwhile. If they are to
//! end or to stop, they stand still until the checkpoint is in place: what cannot be saved is not ended.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::system::uname;

use crate::criu::{Around, Criu, Served, Version, Watch, Worker, number};
use crate::diagnosis::{self, Diagnosis};
use crate::error::Error;
use crate::events::{Publisher, Verb};
use crate::image;
use crate::manifest::{self, FORMAT, LOG, Manifest, Outward};
use crate::parent::Masked;
use crate::participants::{Participant, Prepared};
use crate::place::{Draft, Existing};
use crate::process;
use crate::rpc::{Cgroups, Kind, NetworkLock, Notify, Options, Request};
use crate::scope::{Scope, Tree};

/// What becomes of the processes when they were saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum After {
    /// They go on.
    #[default]
    Run,
    /// They are stopped, as by SIGSTOP.
    Stop,
    /// They end, and their connections stay as they are.
    Kill,
    /// They get this signal before they do anything else.
    Signal(Signal),
}

/// Connections over TCP with somebody outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tcp {
    /// They are part of the checkpoint.
    #[default]
    Keep,
    /// A restored process finds them closed.
    Close,
}

/// How to save.
#[derive(Debug, Clone)]
pub struct Save {
    /// What the number means.
    pub scope: Scope,
    /// The number.
    pub id: u32,
    /// Where to.
    pub place: PathBuf,
    /// What becomes of one that is there.
    pub existing: Existing,
    /// What becomes of the processes.
    pub after: After,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Without such a limit: how long CRIU may write nothing, not even to its log.
    pub patience: Duration,
    /// What becomes of TCP connections.
    pub tcp: Tcp,
    /// The most bytes of one open file that was removed, which becomes part of the checkpoint.
    pub ghost_limit: u32,
}

/// The default of [`Save::patience`]. CRIU's own limit, for what it waits for in a process, is shorter.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The default of [`Save::ghost_limit`]: 64 MiB.
pub const GHOST_LIMIT: u32 = 64 << 20;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Processes that take part get ready.
    Asking,
    /// CRIU writes: bytes so far, and about how many it will be.
    Writing(u64, u64),
    /// What was written is checked and put on the disk.
    Checking,
}

/// Who is told how far it is, and may stop it.
pub trait Observer {
    /// Something has moved.
    fn progress(&mut self, progress: Progress);
    /// True ends the saving, and the processes go on.
    fn interrupted(&mut self) -> bool;
}

/// A checkpoint that was taken.
#[derive(Debug)]
pub struct Saved {
    /// Where it is.
    pub place: PathBuf,
    /// Where the one that was there is now.
    pub backup: Option<PathBuf>,
    /// What it says of itself.
    pub manifest: Manifest,
    /// How long the processes stood still, where CRIU says it.
    pub frozen: Option<Duration>,
    /// What processes that take part by themselves could not take up again.
    pub faults: Vec<String>,
}

/// Why nothing was saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// It failed.
    #[error(transparent)]
    Failed(#[from] Error),
    /// Somebody stopped it.
    #[error("saving was interrupted; the processes go on, and what was saved before is as it was")]
    Interrupted,
}

impl SaveError {
    fn errno(&self) -> i32 {
        match self {
            Self::Failed(error) => error.errno(),
            Self::Interrupted => nix::errno::Errno::EINTR as i32,
        }
    }
}

/// Saves processes.
pub fn save(
    criu: &Criu,
    save: &Save,
    masked: Option<&Masked>,
    publisher: &mut Publisher,
    observer: &mut dyn Observer,
) -> Result<Saved, SaveError> {
    let begun = publisher.begin(Verb::Checkpoint);
    let result = attempt(criu, save, masked, observer);
    publisher.end(begun, result.as_ref().err().map(SaveError::errno));
    result
}

fn attempt(
    criu: &Criu,
    save: &Save,
    masked: Option<&Masked>,
    observer: &mut dyn Observer,
) -> Result<Saved, SaveError> {
    let deadline = save.timeout.map(|timeout| Instant::now() + timeout);
    let tree = Tree::find(save.scope, save.id)?;
    tree.spares_this("save")?;
    for process in &tree.processes {
        if let Some((number, what)) = process::unsavable(process.pid) {
            return Err(
                Error::Descriptor { pid: process.pid, name: process.name.clone(), number, what }.into()
            );
        }
    }
    let mut draft = Draft::begin(&save.place, save.existing.clone())?;
    observer.progress(Progress::Asking);
    let goes_on = save.after != After::Kill;
    let prepared = Prepared::ask(&tree.processes, draft.place(), goes_on, save.timeout, deadline)?;
    dump(criu, save, masked, observer, (&tree, prepared), &mut draft, deadline)
}

/// What follows the saving of one tree.
struct Dump<'a> {
    save: &'a Save,
    tree: &'a Tree,
    draft: &'a mut Draft,
    observer: &'a mut dyn Observer,
    facts: Manifest,
    expected: u64,
    /// Until when those who take part are surely quiet.
    quiet_until: Option<Instant>,
    /// What came of putting it in place, if that was done while the processes stood still.
    committed: Option<Result<(Manifest, Option<PathBuf>), Error>>,
    interrupted: bool,
    /// How much CRIU had written when that last was another number, and when that was.
    written: (u64, Instant),
    stands_still: bool,
}

fn dump(
    criu: &Criu,
    save: &Save,
    masked: Option<&Masked>,
    observer: &mut dyn Observer,
    (tree, prepared): (&Tree, Prepared),
    draft: &mut Draft,
    deadline: Option<Instant>,
) -> Result<Saved, SaveError> {
    let cannot = |error| Error::io("write into", draft.directory(), error);
    let directory: OwnedFd = File::open(draft.directory()).map_err(cannot)?.into();
    let words: OwnedFd = File::create(draft.directory().join("criu.out")).map_err(cannot)?.into();
    let around = Around { masked, words: Some(words), ..Around::default() };
    let mut worker = Worker::start(criu, around)?;
    let facts = facts(save, tree, worker.version(), prepared.entries());
    let request = request(save, tree, number(&directory));
    let expected = tree.processes.iter().map(process::Process::resident).sum();
    let quiet_until = prepared.until();
    let mut dump = Dump {
        save,
        tree,
        draft,
        observer,
        facts,
        expected,
        quiet_until,
        committed: None,
        interrupted: false,
        written: (0, Instant::now()),
        stands_still: false,
    };
    // Once somebody who takes part went on, nothing can be saved any more.
    let served = worker.serve(&request, deadline.or(quiet_until), &mut dump);
    worker.end();
    let served = served?;
    if let Some(Err(error)) = dump.committed {
        return Err(error.into());
    }
    match served {
        Served::Answer(answer) if answer.success => {}
        // CRIU has the same limit, and calls what it was at when that passed a failure of its own.
        Served::Answer(answer) if deadline.or(quiet_until).is_none_or(|at| Instant::now() < at) => {
            let log = dump.draft.directory().join(LOG);
            let words = fs::read_to_string(dump.draft.directory().join("criu.out")).unwrap_or_default();
            let message = answer.message.unwrap_or_default() + "\n" + &words;
            let diagnosis = Diagnosis::new(answer.errno, Some(message.trim()), &log);
            let doing = format!("save {}", described(tree));
            return Err(Error::Criu { doing, diagnosis, log: dump.draft.keep_log() }.into());
        }
        _ if dump.interrupted => return Err(SaveError::Interrupted),
        stopped => return Err(dump.late(matches!(stopped, Served::Killed)).into()),
    }
    let was_quiet = dump.committed.is_some() || dump.is_quiet();
    // They run again: what is left to do here, their peers need not wait for.
    let (standing, faults) = match save.after {
        After::Run => (None, prepared.go_on()),
        After::Signal(_) | After::Stop | After::Kill => (Some(prepared), Vec::new()),
    };
    let (manifest, backup) = match dump.committed.take() {
        Some(committed) => committed?,
        None if was_quiet => dump.finish()?,
        None => return Err(Error::WentOn(described(tree)).into()),
    };
    match standing {
        Some(prepared) if save.after == After::Kill => prepared.leave(),
        Some(prepared) => prepared.leave_word(),
        None => {}
    }
    let place = dump.draft.place().to_owned();
    let frozen = image::frozen(&place).map(Duration::from_micros);
    Ok(Saved { place, backup, manifest, frozen, faults })
}

impl Dump<'_> {
    /// Whether nobody who takes part can have gone on by itself yet.
    fn is_quiet(&self) -> bool {
        self.quiet_until.is_none_or(|until| Instant::now() < until)
    }

    /// Looks at what was written, and puts it in place.
    fn finish(&mut self) -> Result<(Manifest, Option<PathBuf>), Error> {
        self.observer.progress(Progress::Checking);
        let directory = self.draft.directory().to_owned();
        let unreadable = |error: std::io::Error| Error::Damaged {
            path: directory.clone(),
            what: format!("CRIU has just written it, and it cannot be read: {error}"),
        };
        let mut manifest = self.facts.clone();
        manifest.processes = image::processes(&directory).map_err(unreadable)?;
        image::loosen(&directory).map_err(unreadable)?;
        manifest.files = manifest::pieces(&directory)?;
        let _words = fs::remove_file(directory.join("criu.out"));
        manifest.write(&directory)?;
        let backup = self.draft.commit()?;
        Ok((Manifest::read(self.draft.place())?, backup))
    }

    /// Why it was given up, if nobody interrupted it.
    fn late(&mut self, was_killed: bool) -> Error {
        let what = described(self.tree);
        let more = if was_killed {
            "; CRIU did not stop either and was killed, look whether the processes still run"
        } else {
            "; the processes go on"
        };
        if let Some(limit) = self.save.timeout {
            return Error::Late { what, limit, more: more.to_owned() };
        }
        if !self.stands_still {
            return Error::WentOn(what);
        }
        let log = self.draft.directory().join(LOG);
        let last = diagnosis::tail(&log).lines().last().map(str::to_owned);
        let held = self.tree.processes.iter().find(|process| process::is_held(process.pid));
        let at = match (held, last) {
            (Some(held), _) => {
                format!("process {} ({}) is in the kernel and cannot be stopped there", held.pid, held.name)
            }
            (None, Some(last)) => format!("its last words were: {}", last.trim()),
            (None, None) => "it has not even begun".to_owned(),
        };
        let log = log.is_file().then(|| self.draft.keep_log());
        Error::Standstill { what, limit: self.save.patience, at, more, log }
    }

    /// For all that stand still now: some may have been forked after they were looked for.
    fn signal(&self, signal: Signal) {
        let now = Tree::find(Scope::Tree, self.tree.root().pid);
        let pids = now.as_ref().map_or_else(|_| self.tree.pids(), Tree::pids);
        for pid in pids {
            let _gone = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }
}

impl Watch for Dump<'_> {
    fn point(&mut self, notify: &Notify) -> bool {
        if notify.script.as_deref() != Some("post-dump") || self.save.after == After::Run {
            return true;
        }
        let committed =
            if self.is_quiet() { self.finish() } else { Err(Error::WentOn(described(self.tree))) };
        let whole = committed.is_ok();
        self.committed = Some(committed);
        match self.save.after {
            _ if !whole => {}
            // They stand still, and find it before anything else when they are let go.
            After::Stop => self.signal(Signal::SIGSTOP),
            After::Signal(signal) => self.signal(signal),
            After::Run | After::Kill => {}
        }
        whole
    }

    fn tick(&mut self) -> bool {
        let written = fs::read_dir(self.draft.directory()).into_iter().flatten();
        let written = written.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
        self.observer.progress(Progress::Writing(written, self.expected.max(written)));
        if self.committed.is_some() {
            return true;
        }
        if written != self.written.0 {
            self.written = (written, Instant::now());
        }
        self.interrupted |= self.observer.interrupted();
        self.stands_still |= self.save.timeout.is_none() && self.written.1.elapsed() > self.save.patience;
        !self.interrupted && !self.stands_still
    }
}

fn described(tree: &Tree) -> String {
    let root = tree.root();
    match tree.processes.len() {
        1 => format!("process {} ({})", root.pid, root.name),
        count => format!("process {} ({}) and {} more", root.pid, root.name, count - 1),
    }
}

fn request(save: &Save, tree: &Tree, directory: i32) -> Request {
    let goes_on = save.after != After::Kill;
    // With nftables CRIU removes its table while the processes stand still, for which the kernel takes tens of milliseconds,
    // also where no connection was held up.
    let connected = tree.pids().into_iter().any(process::may_be_connected);
    let options = Options {
        images_dir_fd: directory,
        pid: Some(tree.root().pid.cast_signed()),
        leave_running: Some(goes_on),
        // Datagram sockets that lead outside, as to a log.
        ext_unix_sockets: Some(true),
        tcp_established: Some(save.tcp == Tcp::Keep),
        tcp_close: (save.tcp == Tcp::Close).then_some(true),
        shell_job: Some(true),
        file_locks: Some(true),
        log_level: Some(3),
        log_file: Some(LOG.to_owned()),
        notify_scripts: Some(true),
        // Names that CRIU makes for files without one; it removes them where the processes go on.
        link_remap: Some(!goes_on),
        cgroups: Some(Cgroups::Ignore.into()),
        ghost_limit: Some(save.ghost_limit),
        timeout: save.timeout.map(|timeout| (timeout.as_secs_f64().ceil() as u32).max(1)),
        network_lock: connected.then(|| NetworkLock::Nftables.into()),
        unprivileged: (!rustix::process::geteuid().is_root()).then_some(true),
        ..Options::default()
    };
    Request { kind: Kind::Dump.into(), options: Some(options), ..Request::default() }
}

/// What is known before CRIU begins.
fn facts(save: &Save, tree: &Tree, criu: Version, entries: &[Participant]) -> Manifest {
    let root = tree.root().pid;
    let system = uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let outward = process::outward_pipes(root, &tree.pids());
    Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        criu,
        kernel: text(system.release()),
        machine: text(system.machine()),
        host: text(system.nodename()),
        time: now.as_millis() as u64,
        scope: save.scope,
        root,
        command: process::command(root),
        processes: Vec::new(),
        ended: matches!(save.after, After::Kill),
        own_pids: process::is_apart(root, "pid"),
        own_time: process::is_apart(root, "time"),
        tcp: save.tcp == Tcp::Keep,
        outward: outward.into_iter().map(|(number, key)| Outward { number, key }).collect(),
        participants: entries.to_vec(),
        files: std::collections::BTreeMap::new(),
        seal: String::new(),
    }
}

/// Checkpoints that follow each other in a directory.
#[derive(Debug)]
pub struct Series {
    rotation: crate::place::Rotation,
    keep: usize,
}

impl Series {
    /// In this directory, of which the newest `keep` stay.
    pub fn new(directory: &Path, keep: usize) -> Result<Self, Error> {
        Ok(Self { rotation: crate::place::Rotation::new(directory)?, keep })
    }

    /// Saves the next one. The place that `how` names counts for nothing. Beside it comes why the newest is not pointed to, if
    /// that failed: it is saved all the same.
    pub fn save(
        &self,
        criu: &Criu,
        how: &Save,
        masked: Option<&Masked>,
        publisher: &mut Publisher,
        observer: &mut dyn Observer,
    ) -> Result<(Saved, Option<Error>), SaveError> {
        let how = Save { place: self.rotation.next(), existing: Existing::Refuse, ..how.clone() };
        let saved = save(criu, &how, masked, publisher, observer)?;
        let fault = self.rotation.turn(&saved.place, self.keep).err();
        Ok((saved, fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criu_is_told_what_was_asked_for() {
        let tree = Tree::find(Scope::Pid, std::process::id())
            .or_else(|_| Tree::find(Scope::Tree, std::process::id()));
        let tree = tree.unwrap();
        let save = |after, timeout, tcp| Save {
            scope: Scope::Tree,
            id: tree.root().pid,
            place: PathBuf::new(),
            existing: Existing::Refuse,
            after,
            timeout,
            patience: PATIENCE,
            tcp,
            ghost_limit: 7,
        };
        let of = |save: &Save| request(save, &tree, 3).options.unwrap();
        let seconds = |millis| of(&save(After::Run, Some(Duration::from_millis(millis)), Tcp::Keep)).timeout;
        // Its own limit is 10 s where none is said, and it knows whole seconds only.
        assert_eq!(
            (seconds(1), seconds(1000), seconds(1500), seconds(60_000)),
            (Some(1), Some(1), Some(2), Some(60))
        );
        let run = of(&save(After::Run, None, Tcp::Keep));
        assert_eq!((run.timeout, run.leave_running, run.link_remap), (None, Some(true), Some(false)));
        assert_eq!((run.tcp_established, run.tcp_close, run.ghost_limit), (Some(true), None, Some(7)));
        let kill = of(&save(After::Kill, None, Tcp::Close));
        assert_eq!((kill.leave_running, kill.link_remap), (Some(false), Some(true)));
        assert_eq!((kill.tcp_established, kill.tcp_close), (Some(false), Some(true)));
        // Stopped ones go on one day, and what was asked for is noted.
        assert_eq!(of(&save(After::Stop, None, Tcp::Keep)).leave_running, Some(true));
        let version = Version { major: 4, minor: 2, sublevel: 0 };
        let noted = |after, tcp| facts(&save(after, None, tcp), &tree, version, &[]);
        let (stopped, killed) = (noted(After::Stop, Tcp::Keep), noted(After::Kill, Tcp::Close));
        assert_eq!((stopped.ended, stopped.tcp, killed.ended, killed.tcp), (false, true, true, false));
        assert_eq!((stopped.scope, stopped.root), (Scope::Tree, tree.root().pid));
        assert_eq!(stopped.machine, uname().machine().to_str().unwrap());
    }
}
