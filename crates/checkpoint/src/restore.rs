//! Restoring processes: the checkpoint is looked at, what stands in the way is told before CRIU tries, and the restored
//! process is a child of this one, unless it is to be on its own.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rustix::fs::{AtFlags, Mode, OFlags, fstat, open, openat, unlinkat};
use rustix::io::{Errno, dup};
use rustix::process::geteuid;
use rustix::system::uname;
use rustix::time::{ClockId, clock_gettime};

use crate::criu::{Around, Criu, Served, Watch, Worker, number};
use crate::diagnosis::Diagnosis;
use crate::error::Error;
use crate::events::{Publisher, Verb};
use crate::image;
use crate::manifest::{Manifest, RESTORE_LOG};
use crate::parent::Masked;
use crate::participants;
use crate::place;
use crate::process;
use crate::rpc::{Cgroups, Inherit, Kind, NetworkLock, Notify, Options, Request};
use crate::save::Tcp;
use crate::scope::{Scope, Tree};
use crate::sockets;

/// How to restore.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The checkpoint, or a directory with several of which the newest is meant.
    pub place: PathBuf,
    /// The restored process is no child of this one.
    pub detach: bool,
    /// What becomes of TCP connections.
    pub tcp: Tcp,
    /// What the restored processes get before they do anything else.
    pub signal: Option<Signal>,
}

/// Processes that run again.
#[derive(Debug)]
pub struct Restored {
    /// The checkpoint.
    pub place: PathBuf,
    /// The first process.
    pub pid: u32,
    /// What the checkpoint says of itself.
    pub manifest: Manifest,
    /// What processes that take part by themselves could not take up again.
    pub faults: Vec<String>,
}

/// Restored processes get these descriptors where theirs led out of the checkpoint; numbers in CRIU.
const STANDARD: i32 = 10;

/// How long the parent of a process that has ended may take to notice, and how often that is looked at.
const REAPING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

/// Restores processes.
pub fn restore(
    criu: &Criu,
    restore: &Restore,
    masked: Option<&Masked>,
    publisher: &mut Publisher,
) -> Result<Restored, Error> {
    let begun = publisher.begin(Verb::Restart);
    let result = attempt(criu, restore, masked);
    publisher.end(begun, result.as_ref().err().map(Error::errno));
    result
}

fn attempt(criu: &Criu, restore: &Restore, masked: Option<&Masked>) -> Result<Restored, Error> {
    let place = place::resolve(&restore.place);
    let place = std::path::absolute(&place).map_err(|error| Error::io("use", &place, error))?;
    let images = trusted(&place)?;
    let manifest = Manifest::read(&place)?;
    let here = uname().machine().to_string_lossy().into_owned();
    if manifest.machine != here {
        return Err(Error::Machine { path: place, made: manifest.machine, here });
    }
    manifest.verify(&place)?;
    if !manifest.own_pids {
        free(&manifest)?;
    }
    keeps_clock(&manifest, &place)?;
    sockets::prepare(&manifest.participants, &place)?;
    let pid = run(criu, restore, masked, (&place, images), &manifest)?;
    // One that was restored stopped hears of it when it runs.
    let stopped =
        manifest.processes.iter().any(|process| process.state == "stopped") && restore.signal.is_none();
    let faults = participants::restored(&manifest.participants, &place, stopped);
    Ok(Restored { place, pid, manifest, faults })
}

/// Whether the numbers that the processes had are nobody's now.
fn free(manifest: &Manifest) -> Result<(), Error> {
    let deadline = Instant::now() + REAPING;
    for saved in &manifest.processes {
        for number in std::iter::once(&saved.pid).chain(&saved.threads) {
            while let Some(holder) = process::holder(*number) {
                // Who ended a moment ago is about to be waited for.
                if holder.keeper.is_none() || Instant::now() >= deadline {
                    return Err(holder.error(*number, saved.name.clone()));
                }
                thread::sleep(LOOK);
            }
        }
    }
    Ok(())
}

/// Timers that a program has set wait for its clock, which must not go back. CRIU sees to that where it may.
fn keeps_clock(manifest: &Manifest, place: &Path) -> Result<(), Error> {
    if geteuid().is_root() && Path::new("/proc/self/ns/time").exists() {
        return Ok(());
    }
    let was = image::clock(place, manifest.files.keys()).unwrap_or_default();
    let is = clock_gettime(ClockId::Monotonic).tv_sec.cast_unsigned();
    behind(manifest, was, is)
}

fn behind(manifest: &Manifest, was: u64, is: u64) -> Result<(), Error> {
    let by = Duration::from_secs(was.saturating_sub(is));
    if by.is_zero() { Ok(()) } else { Err(Error::Behind { what: named(manifest), by }) }
}

/// Opens a checkpoint that nobody but root and the caller could have changed: what is in it will run.
fn trusted(place: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = match open(place, flags, Mode::empty()) {
        Ok(handle) => handle,
        Err(Errno::NOENT | Errno::NOTDIR) => return Err(Error::NoCheckpoint(place.to_owned())),
        Err(error) => return Err(Error::io("read", place, error.into())),
    };
    let found = fstat(&handle).map_err(|error| Error::io("read", place, error.into()))?;
    let foreign = |why: String| Err(Error::Foreign { path: place.to_owned(), why });
    if ![0, geteuid().as_raw()].contains(&found.st_uid) {
        return foreign(format!("it belongs to user {}", found.st_uid));
    }
    if found.st_mode & 0o022 != 0 {
        return foreign(format!("others may write into it (mode {:o})", found.st_mode & 0o777));
    }
    Ok(handle)
}

/// A new file, whatever had its name.
fn create(directory: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::from_raw_mode(0o600))?)
}

/// What CRIU says before it logs.
const WORDS: &str = "criu.out";

/// Where CRIU logs: beside the images, or where that is possible.
struct Work {
    directory: PathBuf,
    handle: OwnedFd,
    temporary: bool,
}

impl Work {
    fn new(place: &Path, images: &OwnedFd) -> Result<Self, Error> {
        if create(images, RESTORE_LOG).is_ok() {
            let handle = images.try_clone().map_err(|error| Error::io("use", place, error))?;
            return Ok(Self { directory: place.to_owned(), handle, temporary: false });
        }
        let directory = std::env::temp_dir().join(format!("steadfast-restore-{}", std::process::id()));
        let create = || DirBuilder::new().mode(0o700).create(&directory);
        let make = || {
            match create() {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    fs::remove_dir_all(&directory).and_then(|()| create())?;
                }
                made => made?,
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(open(&directory, flags, Mode::empty())?)
        };
        let handle = make().map_err(|error: io::Error| Error::io("make the directory", &directory, error))?;
        Ok(Self { directory, handle, temporary: true })
    }

    fn log(&self) -> PathBuf {
        self.directory.join(RESTORE_LOG)
    }
}

fn run(
    criu: &Criu,
    restore: &Restore,
    masked: Option<&Masked>,
    (place, images): (&Path, OwnedFd),
    manifest: &Manifest,
) -> Result<u32, Error> {
    let work = Work::new(place, &images)?;
    let words = work.directory.join(WORDS);
    let out = create(&work.handle, WORDS).map_err(|error| Error::io("write", &words, error))?;
    let (descriptors, inherit) = standard(manifest)?;
    let around = Around { terminal: true, descriptors, masked, words: Some(out), same_group: true };
    let mut worker = Worker::start(criu, around)?;
    if manifest.criu.major > worker.version().major {
        let (made, here) = (manifest.criu, worker.version());
        return Err(Error::Newer { path: place.to_owned(), made, here });
    }
    let mut options = options(restore, number(&images), number(&work.handle));
    options.inherit = inherit;
    let request = Request { kind: Kind::Restore.into(), options: Some(options), ..Request::default() };
    let mut points = Points { signal: restore.signal, pids: pids(manifest), root: None };
    let served = worker.serve(&request, None, &mut points);
    worker.end();
    let said = fs::read_to_string(&words).unwrap_or_default();
    let _words = fs::remove_file(&words);
    let answer = match served {
        Ok(Served::Answer(answer)) if answer.success => {
            if work.temporary {
                let _log = fs::remove_dir_all(&work.directory);
            }
            let pid = answer.restore.as_ref().map(|restored| restored.pid).or(points.root);
            return Ok(pid.unwrap_or_default().cast_unsigned());
        }
        Ok(Served::Answer(answer)) => answer,
        Ok(Served::Stopped | Served::Killed) => unreachable!("nothing limits a restore"),
        Err(error) => {
            points.reap(restore);
            return Err(error);
        }
    };
    points.root = points.root.or(answer.restore.map(|restored| restored.pid));
    points.reap(restore);
    let message = answer.message.unwrap_or_default() + "\n" + &said;
    let diagnosis = Diagnosis::new(answer.errno, Some(message.trim()), &work.log());
    let doing = format!("restore {} from {}", named(manifest), place.display());
    Err(Error::Criu { doing, diagnosis, log: work.log() })
}

fn named(manifest: &Manifest) -> String {
    let name = manifest.processes.first().map_or("", |process| process.name.as_str());
    format!("process {} ({name})", manifest.root)
}

fn pids(manifest: &Manifest) -> Vec<u32> {
    if manifest.own_pids {
        Vec::new()
    } else {
        manifest.processes.iter().map(|process| process.pid).collect()
    }
}

struct Points {
    signal: Option<Signal>,
    pids: Vec<u32>,
    root: Option<i32>,
}

impl Points {
    /// What CRIU made as a child of this process before it failed ends, and is waited for.
    fn reap(&self, restore: &Restore) {
        let Some(root) = self.root.filter(|root| *root > 0 && !restore.detach) else { return };
        let root = Pid::from_raw(root);
        // Only a child of this process can be reaped, so nobody else is hit.
        if waitpid(root, Some(nix::sys::wait::WaitPidFlag::WNOHANG))
            == Ok(nix::sys::wait::WaitStatus::StillAlive)
        {
            // What that has for children would otherwise run without it.
            let tree = Tree::find(Scope::Tree, root.as_raw().cast_unsigned()).map(|tree| tree.pids());
            for pid in tree.unwrap_or_default() {
                let _gone = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
            let _gone = kill(root, Signal::SIGKILL);
            let _reaped = waitpid(root, None);
        }
    }
}

impl Watch for Points {
    fn point(&mut self, notify: &Notify) -> bool {
        if let Some(pid) = notify.pid {
            self.root = Some(pid);
        }
        // They are made and do not run yet.
        if notify.script.as_deref() == Some("pre-resume")
            && let Some(signal) = self.signal
        {
            let root = self.root.map(i32::cast_unsigned);
            let pids = if self.pids.is_empty() { root.into_iter().collect() } else { self.pids.clone() };
            for pid in pids {
                let _gone = kill(Pid::from_raw(pid.cast_signed()), signal);
            }
        }
        true
    }

    fn tick(&mut self) -> bool {
        true
    }
}

/// Descriptors with their numbers in CRIU, and what they stand for.
type Standard = (Vec<(OwnedFd, i32)>, Vec<Inherit>);

/// This process's standard descriptors, for those of the restored one that led to somebody else.
fn standard(manifest: &Manifest) -> Result<Standard, Error> {
    let (mut descriptors, mut inherit) = (Vec::new(), Vec::new());
    for outward in &manifest.outward {
        let copy = match outward.number {
            0 => dup(rustix::stdio::stdin()),
            1 => dup(rustix::stdio::stdout()),
            2 => dup(rustix::stdio::stderr()),
            _ => continue,
        };
        let copy = copy.map_err(|error| {
            Error::io("pass on a standard descriptor, open it or redirect it", Path::new(""), error.into())
        })?;
        // Of two that are one pipe the first counts.
        if inherit.iter().any(|known: &Inherit| known.key == outward.key) {
            continue;
        }
        let place = STANDARD + outward.number.cast_signed();
        descriptors.push((copy, place));
        inherit.push(Inherit { key: outward.key.clone(), fd: place });
    }
    Ok((descriptors, inherit))
}

fn options(restore: &Restore, images: i32, work: i32) -> Options {
    Options {
        images_dir_fd: images,
        work_dir_fd: Some(work),
        ext_unix_sockets: Some(true),
        tcp_established: Some(restore.tcp == Tcp::Keep),
        tcp_close: (restore.tcp == Tcp::Close).then_some(true),
        shell_job: Some(true),
        file_locks: Some(true),
        log_level: Some(3),
        log_file: Some(RESTORE_LOG.to_owned()),
        notify_scripts: Some(true),
        link_remap: Some(true),
        restore_sibling: Some(!restore.detach),
        cgroups: Some(Cgroups::Ignore.into()),
        network_lock: Some(NetworkLock::Nftables.into()),
        unprivileged: (!geteuid().is_root()).then_some(true),
        ..Options::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The processor's registers are in the images.
    #[test]
    fn images_of_another_kind_of_machine_are_not_restored() {
        let place = std::env::temp_dir().join(format!("steadfast-machine-{}", std::process::id()));
        let _before = fs::remove_dir_all(&place);
        DirBuilder::new().mode(0o700).create(&place).unwrap();
        let here = uname().machine().to_str().unwrap().to_owned();
        let of = |machine: &str| {
            let manifest: Manifest = serde_json::from_value(json!({
                "format": crate::manifest::FORMAT, "version": "1", "criu": { "major": 4, "minor": 2, "sublevel": 0 }, "kernel": "6",
                "machine": machine, "host": "boat", "time": 0, "scope": "tree", "root": 7, "command": ["sim"], "processes": [],
                "ended": true, "own_pids": false, "own_time": false, "tcp": true, "outward": [], "participants": [],
                "files": { "core-7.img": { "bytes": 1, "blake3": "" } }, "seal": "",
            }))
            .unwrap();
            manifest.write(&place).unwrap();
            let how = Restore { place: place.clone(), detach: false, tcp: Tcp::Keep, signal: None };
            attempt(&Criu::at("/nowhere/criu".into()), &how, None).unwrap_err()
        };
        let error = of("pdp11");
        let text = error.to_string();
        assert!(matches!(&error, Error::Machine { made, .. } if made == "pdp11"), "{text}");
        assert!(text.contains(&here) && text.contains("one of its kind"), "{text}");
        // Of this kind, what is missing is told.
        assert!(matches!(of(&here), Error::Damaged { .. }));
        fs::remove_dir_all(&place).unwrap();
    }
}
