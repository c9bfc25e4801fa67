//! What the kernel tells of processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) name: String,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) session: u32,
}

impl Process {
    /// None if there is none.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &[u8]) -> Option<Self> {
        // A name may hold anything, brackets too.
        let stat = String::from_utf8_lossy(stat);
        let (pid, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ').skip(1).map(str::parse::<u32>);
        let mut next = || fields.next()?.ok();
        Some(Self {
            pid: pid.parse().ok()?,
            name: name.to_owned(),
            parent: next()?,
            group: next()?,
            session: next()?,
        })
    }

    /// All there are, by their numbers.
    pub(crate) fn all() -> io::Result<BTreeMap<u32, Self>> {
        let entries = fs::read_dir("/proc")?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(pids.filter_map(|pid| Some((pid, Self::of(pid)?))).collect())
    }

    /// Bytes of its memory that are there.
    pub(crate) fn resident(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid)).unwrap_or_default();
        let pages: u64 = statm.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or_default();
        pages * rustix::param::page_size() as u64
    }

    /// Bytes of its memory that no file has.
    pub(crate) fn private(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid)).unwrap_or_default();
        let mut pages = statm.split(' ').skip(1).map_while(|field| field.parse::<u64>().ok());
        let (resident, shared) = (pages.next().unwrap_or_default(), pages.next().unwrap_or_default());
        resident.saturating_sub(shared) * rustix::param::page_size() as u64
    }
}

/// The numbers of its threads; the first is its own.
pub(crate) fn threads(pid: u32) -> BTreeSet<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.chain([pid]).collect()
}

/// Whether somebody has stopped it, each of its threads.
pub(crate) fn is_stopped(pid: u32) -> bool {
    all_threads(pid, &['T', 't'])
}

/// Whether somebody traces it and has stopped it so.
pub(crate) fn is_gripped(pid: u32) -> bool {
    all_threads(pid, &['t'])
}

/// Whether each thread that has not ended is in one of these states, and one is.
fn all_threads(pid: u32, states: &[char]) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    let state = |entry: fs::DirEntry| {
        let stat = fs::read(entry.path().join("stat")).ok()?;
        String::from_utf8_lossy(&stat).rsplit_once(") ")?.1.chars().next()
    };
    let mut live = entries.filter_map(state).filter(|state| !['Z', 'X'].contains(state)).peekable();
    live.peek().is_some() && live.all(|state| states.contains(&state))
}

/// Whoever has a number, a process or a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) name: String,
    /// Of a process that has ended: who has not waited for it, and so keeps its number.
    pub(crate) keeper: Option<String>,
}

impl Holder {
    /// Why a process that was called so does not get this number.
    pub(crate) fn error(self, pid: u32, was: String) -> Error {
        let Self { name, keeper } = self;
        match keeper {
            Some(keeper) => Error::Kept { pid, was, name, keeper },
            None => Error::PidInUse { pid, was, name },
        }
    }
}

/// Who has this number.
pub(crate) fn holder(number: u32) -> Option<Holder> {
    let keeper = || {
        // The first thread may end before the others.
        let alone = fs::read_dir(format!("/proc/{number}/task")).is_ok_and(|threads| threads.count() <= 1);
        let ended = Process::of(number).filter(|_| alone && !lives(number))?;
        Some(name(ended.parent).map_or_else(
            || "a process outside of this PID namespace".to_owned(),
            |name| format!("process {} ({name})", ended.parent),
        ))
    };
    Some(Holder { name: name(number)?, keeper: keeper() })
}

/// What a process or a thread is called.
fn name(number: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{number}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// What a process was started as.
pub(crate) fn command(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let mut words: Vec<_> = words.collect();
    if words.last().is_some_and(String::is_empty) {
        words.pop();
    }
    words
}

/// Whether a process is in a namespace of another kind than this one.
pub(crate) fn is_apart(pid: u32, namespace: &str) -> bool {
    let of = |whose: &str| fs::read_link(format!("/proc/{whose}/ns/{namespace}")).ok();
    of(&pid.to_string()) != of("self")
}

/// Of the standard descriptors of a process those that are pipes to somebody outside of the tree, with their names.
pub(crate) fn outward_pipes(root: u32, tree: &[u32]) -> Vec<(u32, String)> {
    let mut ways: BTreeMap<PathBuf, BTreeSet<bool>> = BTreeMap::new();
    for pid in tree {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            if is_pipe(&target) {
                let way = writes(*pid, &entry.file_name().to_string_lossy());
                ways.entry(target).or_default().extend(way);
            }
        }
    }
    let standard = (0..3).filter_map(|number| {
        let target = fs::read_link(format!("/proc/{root}/fd/{number}")).ok()?;
        // With both ends inside it leads nowhere else.
        (ways.get(&target)?.len() == 1).then(|| (number, target.to_string_lossy().into_owned()))
    });
    standard.collect()
}

/// Something that a process has open and that no CRIU can save: it cannot even be looked at from outside.
pub(crate) fn unsavable(pid: u32) -> Option<(u32, &'static str)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    entries.filter_map(Result::ok).find_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        (target.to_str()? == "anon_inode:[io_uring]").then_some((number, "an io_uring"))
    })
}

/// Whether a process has a socket that may be a connection to another host: any that is not among the Unix ones.
pub(crate) fn may_be_connected(pid: u32) -> bool {
    let unix = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    let unix: BTreeSet<&str> =
        unix.lines().skip(1).filter_map(|line| line.split_whitespace().nth(6)).collect();
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return true };
    entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).any(|target| {
        let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.is_some_and(|inode| !unix.contains(inode))
    })
}

/// When it was started, in the kernel's ticks since the machine was.
pub(crate) fn started(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The 22nd field; the third comes after the name.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// Whether a process runs, or could: one that has ended and is not waited for does not.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let stat = String::from_utf8_lossy(&stat);
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Whether a process, or a thread of it, waits in the kernel for something that no signal ends.
pub(crate) fn is_held(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    threads.filter_map(Result::ok).any(|thread| {
        let stat = fs::read(thread.path().join("stat")).unwrap_or_default();
        String::from_utf8_lossy(&stat).rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D'))
    })
}

fn is_pipe(target: &Path) -> bool {
    target.to_str().is_some_and(|target| target.starts_with("pipe:["))
}

/// Whether a descriptor is for writing.
fn writes(pid: u32, number: &str) -> Option<bool> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
    let flags = u32::from_str_radix(flags, 8).ok()?;
    Some(flags & 0o3 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;
    use std::process::{Child, Command, Stdio};

    #[test]
    fn names_may_hold_anything() {
        let process = Process::parse(b"41 (a) R (b) S 7 40 39 0 -1 4194304").unwrap();
        let expected = Process { pid: 41, name: "a) R (b".to_owned(), parent: 7, group: 40, session: 39 };
        assert_eq!(process, expected);
        assert_eq!(Process::parse(b"41 (a"), None);
        let own = Process::of(std::process::id()).unwrap();
        assert_eq!(Process::all().unwrap()[&own.pid], own);
        assert!(own.private() > 0 && own.private() <= own.resident());
        assert!(threads(own.pid).contains(&own.pid) && !is_stopped(own.pid));
        assert!(own.resident() > 0 && holder(own.pid).is_some() && !command(own.pid).is_empty());
        assert!(!is_apart(own.pid, "pid") && lives(own.pid) && unsavable(own.pid).is_none());
    }

    struct Sleeper(Child);

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ended = self.0.kill();
            let _ended = self.0.wait();
        }
    }

    #[test]
    fn who_has_ended_is_kept_by_its_parent() {
        let own = holder(std::process::id()).unwrap();
        assert_eq!(own.keeper, None);
        let mut child = Command::new("true").spawn().unwrap();
        while lives(child.id()) {
            std::thread::yield_now();
        }
        let kept = holder(child.id()).unwrap();
        let parent = Process::of(std::process::id()).unwrap();
        assert_eq!(kept.keeper, Some(format!("process {} ({})", parent.pid, parent.name)));
        child.wait().unwrap();
    }

    fn sleeper(input: impl Into<Stdio>) -> Sleeper {
        Sleeper(Command::new("sleep").arg("1000").stdin(input).spawn().unwrap())
    }

    #[test]
    fn a_socket_of_unix_leads_to_no_other_host() {
        let (one, _other) = UnixStream::pair().unwrap();
        let (nothing, unix) = (sleeper(Stdio::null()), sleeper(std::os::fd::OwnedFd::from(one)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = sleeper(std::os::fd::OwnedFd::from(listener));
        assert!(!may_be_connected(nothing.0.id()) && !may_be_connected(unix.0.id()));
        assert!(may_be_connected(tcp.0.id()));
        assert!(may_be_connected(u32::MAX), "what cannot be looked at may be");
    }
}
