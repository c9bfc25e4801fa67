//! CRIU's log, in words that say what would help.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use nix::errno::Errno;

use crate::error::Class;

/// Of a log no more is read: its end says what went wrong.
const TAIL: u64 = 1 << 20;
/// What of CRIU's own line is shown, in bytes.
const SHOWN: usize = 300;

/// What CRIU's failure comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The kind of failure.
    pub class: Class,
    /// The number that fits it best.
    pub errno: i32,
    /// CRIU's first complaint.
    pub cause: String,
    /// What would help; empty where nobody knows.
    pub help: String,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

/// What a line of the log says, what it means, and what helps. The first that fits counts.
struct Rule(&'static [&'static str], Class, Errno, &'static str);

/// What helps whoever is not root.
const ROOT: &str = "run it as root";

/// What CRIU needs of root's rights, by their numbers; containers leave some out.
const RIGHTS: [(u32, &str); 12] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (3, "CAP_FOWNER"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (8, "CAP_SETPCAP"),
    (12, "CAP_NET_ADMIN"),
    (18, "CAP_SYS_CHROOT"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
    (24, "CAP_SYS_RESOURCE"),
];

/// What helps where rights are missing.
fn rights() -> String {
    if !rustix::process::geteuid().is_root() {
        return ROOT.to_owned();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    lacking(&status)
}

/// The same for root, whose rights are in this text of the kernel.
fn lacking(status: &str) -> String {
    let mask =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    let mask = mask.unwrap_or(u64::MAX);
    let missing: Vec<_> =
        RIGHTS.iter().filter(|(bit, _)| mask & (1 << bit) == 0).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return "though this is root: a security module or seccomp may forbid it".to_owned();
    }
    let of = missing.join(", ");
    format!(
        "root has no {of} here; run it outside of this container, or give that to it (`docker run --cap-add`)"
    )
}

const RULES: &[Rule] = &[
    Rule(
        &["CAP_CHECKPOINT_RESTORE"],
        Class::Environment,
        Errno::EPERM,
        "run it as root, or give the program CRIU the capability: setcap cap_checkpoint_restore+eip",
    ),
    Rule(
        &["of that type", "io_uring"],
        Class::Permanent,
        Errno::ENOTSUP,
        "CRIU cannot save io_uring; let the program close it before, or run without it",
    ),
    Rule(
        &["of that type"],
        Class::Permanent,
        Errno::ENOTSUP,
        "this descriptor cannot be saved; let the program close it before",
    ),
    Rule(
        &["half of stream unix connection"],
        Class::Permanent,
        Errno::ENOTSUP,
        "a Unix socket leads to a process that is not saved with it; save both (--tree of their common parent), or close it \
         before",
    ),
    Rule(
        &["Unknown socket"],
        Class::Permanent,
        Errno::ENOTSUP,
        "a socket of this family cannot be saved; let the program close it before",
    ),
    Rule(
        &["Connected TCP socket"],
        Class::Permanent,
        Errno::ENOTSUP,
        "save it with --tcp keep or --tcp close",
    ),
    Rule(&["Can't dump ghost file"], Class::Permanent, Errno::EFBIG, "allow more with --ghost-limit"),
    Rule(
        &["link remap"],
        Class::Permanent,
        Errno::ENOTSUP,
        "an open file was removed that has another name elsewhere; save with --kill, or close it before",
    ),
    Rule(
        &["criu itself is within dumped tree"],
        Class::Usage,
        Errno::EDEADLK,
        "this command would save itself; run it from outside that tree, from another login or with `setsid --fork`",
    ),
    Rule(
        &["session leader", "outside of its pid namespace"],
        Class::Permanent,
        Errno::ENOTSUP,
        "its session was begun outside of this container or PID namespace; start the program with setsid in here",
    ),
    Rule(
        &["Unseizable", "state D"],
        Class::Temporary,
        Errno::EBUSY,
        "it waits in the kernel, for a disk or another machine perhaps; try again when that is over",
    ),
    Rule(
        &["Unseizable"],
        Class::Environment,
        Errno::EPERM,
        "another program, a debugger perhaps, traces it, or it belongs to somebody else; end that, or run this as root",
    ),
    Rule(
        &["Timeout reached"],
        Class::Temporary,
        Errno::ETIMEDOUT,
        "a process could not be stopped in time; give it more with --timeout",
    ),
    Rule(
        &["Can't fork for", "File exists"],
        Class::Temporary,
        Errno::EBUSY,
        "the number of a process is in use; wait until that has ended",
    ),
    Rule(
        &["Unable to create a thread", "-17"],
        Class::Temporary,
        Errno::EBUSY,
        "the number of a thread is in use; wait until its process has ended",
    ),
    Rule(
        &["do not match expected"],
        Class::Temporary,
        Errno::EBUSY,
        "the number of a process is in use; wait until that has ended",
    ),
    Rule(
        &["has bad size"],
        Class::Environment,
        Errno::ENOENT,
        "an open file was changed since; put the file back as it was, it is not part of the checkpoint",
    ),
    Rule(
        &["has bad mode"],
        Class::Environment,
        Errno::EACCES,
        "an open file has other permissions now; put them back",
    ),
    Rule(
        &["has bad build-ID"],
        Class::Environment,
        Errno::ENOENT,
        "a program or library was replaced since; restore with the same versions of them",
    ),
    Rule(
        &["Can't open file", "No such file"],
        Class::Environment,
        Errno::ENOENT,
        "put that file back, it is not part of the checkpoint",
    ),
    Rule(
        &["No such file or directory"],
        Class::Environment,
        Errno::ENOENT,
        "put back what is missing, files are not part of a checkpoint",
    ),
    Rule(
        &["Can't bind inet socket", "in use"],
        Class::Temporary,
        Errno::EADDRINUSE,
        "another program has that port; end it",
    ),
    Rule(
        &["Cannot assign requested address"],
        Class::Environment,
        Errno::EADDRNOTAVAIL,
        "this host has not the address of that connection; restore with --tcp close",
    ),
    Rule(
        &["Connected TCP socket in image"],
        Class::Permanent,
        Errno::EINVAL,
        "restore with --tcp keep or close",
    ),
    Rule(
        &["images version"],
        Class::Permanent,
        Errno::EINVAL,
        "the images were made by another version of CRIU",
    ),
    Rule(
        &["vdso"],
        Class::Environment,
        Errno::ENOSYS,
        "this CRIU is too old for the kernel; take a newer one",
    ),
    Rule(
        &["vDSO"],
        Class::Environment,
        Errno::ENOSYS,
        "this CRIU is too old for the kernel; take a newer one",
    ),
    Rule(
        &["sockets: Can't get 1:16 opt"],
        Class::Environment,
        Errno::ENOSYS,
        "this CRIU is too old to save sockets on this kernel; take 4.2 or a newer one",
    ),
    Rule(&["Cannot allocate memory"], Class::Temporary, Errno::ENOMEM, "memory is short; try again later"),
    Rule(&["No space left on device"], Class::Temporary, Errno::ENOSPC, "make room, or name another --dir"),
    Rule(&["Operation not permitted"], Class::Environment, Errno::EPERM, ROOT),
    Rule(&["Permission denied"], Class::Environment, Errno::EACCES, ROOT),
    Rule(
        &["is not supported on host"],
        Class::Environment,
        Errno::ENOSYS,
        "restore on a machine whose processor can as much",
    ),
];

impl Diagnosis {
    /// From CRIU's answer and its log.
    pub(crate) fn new(errno: Option<i32>, message: Option<&str>, log: &Path) -> Self {
        Self::of(errno, message, &tail(log))
    }

    fn of(errno: Option<i32>, message: Option<&str>, log: &str) -> Self {
        let complaints = complaints(log);
        let lines = || {
            complaints
                .iter()
                .copied()
                .chain(message.into_iter().flat_map(str::lines))
                .filter(|line| !is_harmless(line))
        };
        let fits = |rule: &&Rule, line: &str| rule.0.iter().all(|part| line.contains(part));
        let found = RULES.iter().find_map(|rule| {
            // Lines around have the error's words: CRIU says them on the line of the failure itself.
            lines().find(|line| fits(&rule, line)).map(|line| (rule, line))
        });
        if let Some((rule, line)) = found {
            let owner = owner(log, line);
            let cause =
                format!("{}{}", shown(line), owner.map_or(String::new(), |pid| format!(" (process {pid})")));
            let help = if rule.3 == ROOT { rights() } else { rule.3.to_owned() };
            return Self { class: rule.1, errno: rule.2 as i32, cause, help };
        }
        let said = errno.filter(|errno| *errno > 0 && *errno != Errno::EBADRQC as i32);
        let cause = lines().next().map(shown);
        let cause = cause.or_else(|| said.map(|errno| Errno::from_raw(errno).desc().to_owned()));
        let cause = cause.unwrap_or_else(|| "CRIU gave no reason".to_owned());
        let class = match said.map(Errno::from_raw) {
            Some(Errno::ESRCH) => Class::Usage,
            Some(Errno::EEXIST | Errno::EBUSY | Errno::ENOMEM | Errno::EAGAIN) => Class::Temporary,
            Some(Errno::EPERM | Errno::EACCES | Errno::ENOENT) => Class::Environment,
            _ => Class::Permanent,
        };
        let errno = match said.map(Errno::from_raw) {
            Some(Errno::EEXIST) => Errno::EBUSY as i32,
            Some(errno) => errno as i32,
            None => Errno::EIO as i32,
        };
        Self { class, errno, cause, help: String::new() }
    }
}

/// The end of a log, as text.
pub(crate) fn tail(log: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(log) {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let _from = file.seek(SeekFrom::Start(length.saturating_sub(TAIL)));
        let _all = file.take(TAIL).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The errors and warnings of a log's end, the last `count` of them.
pub(crate) fn notable(log: &str, count: usize) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains("Error (") || line.contains("Warn  ("));
    let lines: Vec<_> = lines.filter(|line| !is_harmless(line)).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| shown(line)).collect()
}

/// What CRIU can do without.
fn is_harmless(line: &str) -> bool {
    line.contains("rlimit: Can't setup RLIMIT_NOFILE")
}

fn complaints(log: &str) -> Vec<&str> {
    let is = |line: &&str| line.contains("Error (") || line.contains("CRIU needs to have");
    log.lines().filter(is).filter(|line| !is_harmless(line)).collect()
}

/// Whose files were being saved when this line was written.
fn owner(log: &str, line: &str) -> Option<u32> {
    if !line.contains("of that type") {
        return None;
    }
    let before = &log[..log.find(line)?];
    let marker = "Dumping opened files (pid: ";
    let rest = &before[before.rfind(marker)? + marker.len()..];
    rest[..rest.find(')')?].parse().ok()
}

/// A line without the time and the place in CRIU's source.
fn shown(line: &str) -> String {
    let text = line
        .split_once("Error (")
        .or_else(|| line.split_once("Warn  ("))
        .map_or(line, |(_, rest)| rest.split_once("): ").map_or(rest, |(_, text)| text));
    let text = text.trim().trim_end_matches(['.', ':']);
    let mut end = text.len().min(SHOWN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_told_what_it_lacks() {
        let of = |mask: &str| lacking(&format!("Name:\tx\nCapPrm:\t0\nCapEff:\t{mask}\n"));
        let text = of("000001fffeffffff");
        assert!(text.contains("no CAP_SYS_RESOURCE here") && text.contains("container"), "{text}");
        assert!(of("0").contains("CAP_CHOWN, CAP_DAC_OVERRIDE"));
        assert!(of("000001ffffffffff").contains("security module"));
    }

    #[test]
    fn logs_become_advice() {
        for (log, class, errno, parts) in [
            (
                "(00.1) Dumping opened files (pid: 41)\n(00.2) Error (criu/files-ext.c:98): Can't dump file 5 of that type [600] (unknown anon_inode:[io_uring])\n(00.3) Error (criu/cr-dump.c:1): Dumping FAILED.\n",
                Class::Permanent,
                Errno::ENOTSUP,
                &["file 5", "io_uring", "process 41", "close it"][..],
            ),
            (
                "(00.1) Error (criu/cr-restore.c:1): Can't fork for 41: File exists\n",
                Class::Temporary,
                Errno::EBUSY,
                &["41", "in use"],
            ),
            (
                "(00.1) Error (criu/files-reg.c:1): File tmp/x has bad size 3 (expect 5)\n",
                Class::Environment,
                Errno::ENOENT,
                &["tmp/x", "put the file back"],
            ),
            (
                "(00.1) Error (criu/x.c:1): Something else\n",
                Class::Permanent,
                Errno::EIO,
                &["Something else"],
            ),
            (
                "Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n(00.1) Error (criu/sockets.c:628): sockets: Can't get 1:16 opt: Operation not supported\n",
                Class::Environment,
                Errno::ENOSYS,
                &["1:16", "4.2"],
            ),
            (
                "(00.1) Error (compel/src/lib/infect.c:1): Unseizable non-zombie 41 found, state D, err -1/3\n",
                Class::Temporary,
                Errno::EBUSY,
                &["41", "waits in the kernel"],
            ),
            (
                "(00.1) pie: 41: Error (criu/pie/restorer.c:1): Unable to create a thread: -17\n",
                Class::Temporary,
                Errno::EBUSY,
                &["thread", "in use"],
            ),
            ("", Class::Permanent, Errno::EIO, &["no reason"]),
        ] {
            let diagnosis = Diagnosis::of(None, None, log);
            assert_eq!((diagnosis.class, diagnosis.errno), (class, errno as i32), "{diagnosis}");
            let text = diagnosis.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
            assert!(!text.contains("criu/") && !text.contains(".:"), "{text}");
        }
        let diagnosis = Diagnosis::of(Some(Errno::ESRCH as i32), None, "");
        assert_eq!((diagnosis.class, diagnosis.errno), (Class::Usage, Errno::ESRCH as i32));
        let said = Diagnosis::of(
            None,
            Some(
                "Error (x.c:1): CRIU needs to have the CAP_SYS_ADMIN or the CAP_CHECKPOINT_RESTORE capability:",
            ),
            "",
        );
        assert_eq!(said.errno, Errno::EPERM as i32);
        assert!(said.to_string().contains("capability; run it as root"), "{said}");
    }
}
