//! What goes wrong, by who must act: classes for scripts, error numbers for events, and words for people.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use crate::diagnosis::Diagnosis;
use crate::migration::Refusal;

/// The number of an error for what was not done in time.
pub const ETIMEDOUT: i32 = Errno::ETIMEDOUT as i32;

/// What kind of failure it is, and so what a script may do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// What was asked for names something that is not there, or makes no sense.
    Usage,
    /// The same may work later: a process number is taken, memory is short, the application said not now.
    Temporary,
    /// Something around is missing: rights, files, CRIU itself.
    Environment,
    /// It will not work, however often it is tried.
    Permanent,
    /// Whether it worked is not known, and somebody has to look.
    Unknown,
}

/// Why a checkpoint was not taken or not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No CRIU where it was looked for.
    #[error(
        "there is no CRIU {place}; install it (`apt-get install criu`, `dnf install criu`; Linux 6.16 and later need CRIU 4.2, which Debian 14 has), \
         or say where it is with STEADFAST_CRIU or `criu` under [checkpoint] in the configuration"
    )]
    NoCriu {
        /// Where it was looked for.
        place: String,
    },
    /// It could not be started, or did not speak as CRIU does.
    #[error("cannot use CRIU, {}: {reason}", program.display())]
    Unusable {
        /// The program.
        program: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
    /// Older than what is needed.
    #[error(
        "CRIU {found} ({}) is too old, at least {} is needed; take 4.2 or a newer one, as Debian 14 has it",
        program.display(), crate::criu::Version::OLDEST
    )]
    Old {
        /// The program.
        program: PathBuf,
        /// Its version.
        found: crate::Version,
    },
    /// There is no such process.
    #[error("there is no {what} {id}; `ps` shows what there is")]
    NoProcess {
        /// `process`, `process group` or `session`.
        what: &'static str,
        /// Its number.
        id: u32,
    },
    /// What is to be saved is not exactly one process with all its descendants.
    #[error("{0}")]
    Scope(String),
    /// A checkpoint is there.
    #[error(
        "there is a checkpoint in {} already; replace it with --clobber, keep it beside with --backup, or name another --dir",
        .0.display()
    )]
    Exists(PathBuf),
    /// Something else is there.
    #[error("{} is there and is no checkpoint, so it is left alone; name another --dir", .0.display())]
    Taken(PathBuf),
    /// One checkpoint is there, where several are to follow each other.
    #[error(
        "{} is one checkpoint, and --every makes several, each in a directory of its own below --dir; name another --dir",
        .0.display()
    )]
    Single(PathBuf),
    /// There is no directory to look into.
    #[error("there is no directory {}; name one that is there", .0.display())]
    NoDirectory(PathBuf),
    /// One that is there cannot be kept under that name.
    #[error(
        "cannot keep a checkpoint as `{}`: {why}; give --backup another name, or none for DIR.~1~ and so on", name.display()
    )]
    Backup {
        /// The name.
        name: PathBuf,
        /// Why not.
        why: String,
    },
    /// A checkpoint that others than its user and root could have changed.
    #[error(
        "{} is not used: {why}, so somebody else could choose what runs; if you trust it, make it yours (`chown -R`, `chmod -R go-w`)",
        path.display()
    )]
    Foreign {
        /// Where it is.
        path: PathBuf,
        /// Who may change it.
        why: String,
    },
    /// No checkpoint is there.
    #[error("{} is no checkpoint; `steadfast checkpoint list` shows those of a directory", .0.display())]
    NoCheckpoint(PathBuf),
    /// A checkpoint that is not what was saved.
    #[error("the checkpoint in {} is damaged: {what}; restore an older one", path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Made by a newer program.
    #[error(
        "the checkpoint in {} was made by another version ({version}, format {format}), this one reads format {}; restore it with that version",
        path.display(), crate::manifest::FORMAT
    )]
    Format {
        /// Where it is.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The program that made it.
        version: String,
    },
    /// Made by a newer CRIU.
    #[error("the checkpoint in {} was made by CRIU {made}, which is newer than this one, {here}; update CRIU here", path.display())]
    Newer {
        /// Where it is.
        path: PathBuf,
        /// Who made it.
        made: crate::Version,
        /// Who is to restore it.
        here: crate::Version,
    },
    /// Made on a machine of another kind.
    #[error("the checkpoint in {} was made on {made}, and this machine is {here}; restore it on one of its kind", path.display())]
    Machine {
        /// Where it is.
        path: PathBuf,
        /// Of which kind that machine is.
        made: String,
        /// Of which kind this one is.
        here: String,
    },
    /// Something is open that no CRIU can save.
    #[error(
        "process {pid} ({name}) has {what} open as descriptor {number}, which CRIU cannot save; let the program close it \
         before, or run without it"
    )]
    Descriptor {
        /// Which process.
        pid: u32,
        /// What it is called.
        name: String,
        /// The descriptor.
        number: u32,
        /// What it is.
        what: &'static str,
    },
    /// A number that a process had is another's now.
    #[error(
        "cannot restore process {pid} ({was}): its number is in use by {name}; wait until that has ended, or restore in a new PID \
         namespace (`unshare --pid --fork --mount-proc`)"
    )]
    PidInUse {
        /// The number.
        pid: u32,
        /// What had it when it was saved.
        was: String,
        /// What has it now.
        name: String,
    },
    /// The clock of this machine is behind that of the process, and CRIU cannot give it one of its own.
    #[error(
        "cannot restore {what}: the clock here (CLOCK_MONOTONIC) is {} s behind, so all its timers would wait for so long; restore as \
         root, on a kernel with time namespaces (CONFIG_TIME_NS), where its clock goes on",
        by.as_secs()
    )]
    Behind {
        /// What was to be restored.
        what: String,
        /// How far.
        by: Duration,
    },
    /// The number belongs to a process that has ended, and whose parent has not waited for it.
    #[error(
        "cannot restore process {pid} ({was}): its number is still in use: {name} has ended, but its parent, {keeper}, has not noticed \
         and so keeps the number; end that parent or let it wait for its children (in a container: start that with an init, as \
         `docker run --init` does), or restore in a new PID namespace (`unshare --pid --fork --mount-proc`)"
    )]
    Kept {
        /// The number.
        pid: u32,
        /// What had it when it was saved.
        was: String,
        /// What had it last.
        name: String,
        /// The parent, by number and name.
        keeper: String,
    },
    /// A process that takes part does not want it now.
    #[error("process {pid} ({name}) does not let itself be saved: {reason}{}", again(*temporary))]
    Refused {
        /// Which process.
        pid: u32,
        /// What it is called.
        name: String,
        /// What it says.
        reason: String,
        /// Whether it is worth trying again.
        temporary: bool,
    },
    /// A process that takes part could not be asked.
    #[error(
        "process {pid} ({name}) did not get ready to be saved: {reason}; look whether it is stopped or hangs"
    )]
    Unready {
        /// Which process.
        pid: u32,
        /// What it is called.
        name: String,
        /// What was wrong.
        reason: String,
    },
    /// It was not ready in time.
    #[error("saving {what} was not done within {limit:?}{more}; give it more with --timeout")]
    Late {
        /// What was to be saved.
        what: String,
        /// The limit.
        limit: Duration,
        /// What became of the processes.
        more: String,
    },
    /// CRIU did nothing any more.
    #[error(
        "saving {what} came to a stand: CRIU wrote nothing for {} s, {at}{more}{}; give it longer with --timeout, or look what is \
         the matter with the process and with the disk",
        limit.as_secs(), words(log.as_deref())
    )]
    Standstill {
        /// What was to be saved.
        what: String,
        /// How long nothing was written.
        limit: Duration,
        /// What it was waiting for.
        at: String,
        /// What became of the processes.
        more: &'static str,
        /// CRIU's log, if it has one.
        log: Option<PathBuf>,
    },
    /// Somebody who takes part went on before the processes were frozen: the image might hold what none can.
    #[error(
        "saving {0} took so long that a process of it, which was quiet for it, went on by itself; nothing was saved, try again when \
         less is going on here, or give it more with --timeout"
    )]
    WentOn(String),
    /// CRIU said no.
    #[error("cannot {doing}: {diagnosis}; CRIU's own words are in {}", log.display())]
    Criu {
        /// What was tried.
        doing: String,
        /// What it is about.
        diagnosis: Diagnosis,
        /// CRIU's log.
        log: PathBuf,
    },
    /// The system said no.
    #[error("cannot {doing}{}: {source}{}", at(path), help(source))]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what; empty where there is no file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another host does not take processes, or could not restore them.
    #[error("{host} {}: {}", if refusal.trust { "does not let this host migrate anything to it" } else { "could not take it" }, refusal.words)]
    Elsewhere {
        /// The host.
        host: String,
        /// What it says.
        refusal: Refusal,
    },
    /// Another host is not there any more.
    #[error(
        "{host} was lost before it could restore it: {why}; try again when it is back, or wait longer for it with --wait"
    )]
    Astray {
        /// The host.
        host: String,
        /// What is known of it.
        why: String,
    },
    /// Nobody knows whether it runs on another host.
    #[error(
        "it is not known whether process {pid} ({name}) runs on {host} now: {why}. Here it stays stopped, so that it never runs twice. \
         Look there with `ps`. While a `steadfast checkpoint-adopt` is there, it is being restored. If it runs there, run here `kill -KILL {pid}`; if it surely does not, `kill -CONT {pid}`, and it goes on \
         here. Its images are in {}", images.display()
    )]
    Undecided {
        /// The process.
        pid: u32,
        /// What it is called.
        name: String,
        /// The host.
        host: String,
        /// Why it is not known.
        why: String,
        /// Where it was saved.
        images: PathBuf,
    },
    /// Somebody let a process go on that was to stand still.
    #[error(
        "process {pid} was continued while it was copied, by `kill -CONT` or the end of its terminal; leave it alone and try again"
    )]
    Woken {
        /// Which.
        pid: u32,
    },
    /// A process that runs elsewhere now could not be ended.
    #[error(
        "cannot end process {pid}, which runs on the other host now: {source}; it is stopped, and must not go on: `kill -KILL {pid}`"
    )]
    Signal {
        /// The process.
        pid: u32,
        /// Why not.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {source}; is it there, and may it be executed?")]
    Start {
        /// What was to be started.
        program: String,
        /// Why not.
        source: io::Error,
    },
}

fn again(temporary: bool) -> &'static str {
    if temporary { "; try again later" } else { "" }
}

fn words(log: Option<&Path>) -> String {
    log.map_or_else(String::new, |log| format!("; CRIU's own words are in {}", log.display()))
}

fn at(path: &Path) -> String {
    if path.as_os_str().is_empty() { String::new() } else { format!(" {}", path.display()) }
}

fn help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room, or name another place with --dir"
        }
        io::ErrorKind::PermissionDenied => {
            "; run it as root, or name a place that may be written to with --dir"
        }
        io::ErrorKind::NotFound => "; name a place that is there",
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            "; something else is there, name another place"
        }
        _ => "",
    }
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }

    /// The kind of failure.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Scope(_)
            | Self::NoProcess { .. }
            | Self::NoCheckpoint(_)
            | Self::Exists(_)
            | Self::Backup { .. }
            | Self::Single(_)
            | Self::NoDirectory(_)
            | Self::Taken(_) => Class::Usage,
            Self::Refused { temporary: false, .. } => Class::Permanent,
            // What is unknown there is an answer all the same: it goes on here.
            Self::Elsewhere { refusal, .. } if refusal.class == Class::Unknown => Class::Permanent,
            Self::Elsewhere { refusal, .. } => refusal.class,
            Self::Undecided { .. } | Self::Signal { .. } => Class::Unknown,
            Self::PidInUse { .. }
            | Self::Kept { .. }
            | Self::Refused { .. }
            | Self::Unready { .. }
            | Self::Late { .. }
            | Self::Standstill { .. }
            | Self::Woken { .. }
            | Self::Astray { .. }
            | Self::WentOn(_) => Class::Temporary,
            Self::NoCriu { .. }
            | Self::Unusable { .. }
            | Self::Old { .. }
            | Self::Newer { .. }
            | Self::Machine { .. }
            | Self::Foreign { .. }
            | Self::Behind { .. }
            | Self::Start { .. } => Class::Environment,
            Self::Damaged { .. } | Self::Format { .. } | Self::Descriptor { .. } => Class::Permanent,
            Self::Criu { diagnosis, .. } => diagnosis.class,
            Self::Io { source, .. } => class_of(source),
        }
    }

    /// The error number that the events of the fault backplane carry.
    #[must_use]
    pub fn errno(&self) -> i32 {
        let errno = match self {
            Self::NoCriu { .. } => Errno::ENOENT,
            Self::Unusable { .. } | Self::Old { .. } | Self::Newer { .. } | Self::Machine { .. } => {
                Errno::ENOSYS
            }
            Self::NoProcess { .. } => Errno::ESRCH,
            Self::Scope(_) | Self::Backup { .. } => Errno::EINVAL,
            Self::Foreign { .. } => Errno::EACCES,
            Self::Behind { .. } => Errno::EPERM,
            Self::Exists(_) | Self::Single(_) | Self::Taken(_) => Errno::EEXIST,
            Self::NoCheckpoint(_) | Self::NoDirectory(_) => Errno::ENOENT,
            Self::Descriptor { .. } => Errno::ENOTSUP,
            Self::Damaged { .. } => Errno::EBADMSG,
            Self::Format { .. } => Errno::EINVAL,
            Self::PidInUse { .. } | Self::Kept { .. } => Errno::EBUSY,
            Self::Refused { .. } | Self::Woken { .. } => Errno::EAGAIN,
            Self::Late { .. } | Self::Standstill { .. } | Self::Unready { .. } | Self::WentOn(_) => {
                Errno::ETIMEDOUT
            }
            Self::Astray { .. } => Errno::EHOSTUNREACH,
            Self::Undecided { .. } => Errno::EINPROGRESS,
            Self::Criu { diagnosis, .. } => return diagnosis.errno,
            Self::Elsewhere { refusal, .. } => return refusal.errno,
            Self::Io { source, .. } | Self::Start { source, .. } | Self::Signal { source, .. } => {
                return source.raw_os_error().unwrap_or(Errno::EIO as i32);
            }
        };
        errno as i32
    }

    /// CRIU's log, where there is one.
    #[must_use]
    pub fn log(&self) -> Option<&Path> {
        match self {
            Self::Criu { log, .. } => Some(log),
            Self::Standstill { log, .. } => log.as_deref(),
            _ => None,
        }
    }
}

fn class_of(error: &io::Error) -> Class {
    match error.kind() {
        io::ErrorKind::OutOfMemory | io::ErrorKind::ResourceBusy | io::ErrorKind::StorageFull => {
            Class::Temporary
        }
        io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::ReadOnlyFilesystem => Class::Environment,
        _ => Class::Permanent,
    }
}
