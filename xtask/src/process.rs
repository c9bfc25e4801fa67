//! Starting cargo and other programs.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ stands in the repository")
}

/// A call of the cargo that started this program, at the root of the repository, with nothing to read.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs to the end; false if the program says that it failed.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| cannot_start(command))?;
    Ok(status.success())
}

/// What the program printed to stdout, or `None` if it is missing or failed.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How long what the command started may hold its output when itself has ended.
const LINGERING: Duration = Duration::from_secs(10);

/// How a command that was listened to ended.
pub(crate) struct Streamed {
    pub(crate) status: ExitStatus,
    /// Whether something had to be killed: it said nothing for too long, or something that it started outlived it.
    pub(crate) killed: bool,
}

/// Runs to the end and shows each line, in the order of both streams, as soon as `keep` has seen it and wants it shown.
/// If there is none for as long as `patience`, everything that could still print one is killed.
pub(crate) fn stream(
    command: &mut Command,
    patience: Duration,
    mut keep: impl FnMut(&str) -> bool,
) -> Result<Streamed> {
    // One pipe for both: cargo names a test binary on stderr, the binary reports on stdout, and their order matters.
    let (reader, writer) = io::pipe().context("cannot make a pipe for the output")?;
    let pipe = fs::read_link(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    let pipe = pipe.context("cannot tell the pipe of the output; is /proc there?")?;
    command.stderr(writer.try_clone().context("cannot share a pipe for the output")?).stdout(writer);
    let mut child = command.spawn().with_context(|| cannot_start(command))?;
    // The command keeps its ends of the pipe, and the last line would never come.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        loop {
            let mut bytes = Vec::new();
            let end = matches!(reader.read_until(b'\n', &mut bytes), Ok(0) | Err(_));
            if end || sender.send(bytes).is_err() {
                return;
            }
        }
    });
    let mut killed = false;
    let mut quiet_since = Instant::now();
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(bytes) => {
                quiet_since = Instant::now();
                if keep(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r'])) {
                    // Someone who closed our output wants the rest of the run's verdict all the same.
                    let mut out = io::stdout().lock();
                    let _closed = out.write_all(&bytes).and_then(|()| out.flush());
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let ended = child.try_wait().context("cannot wait for the tests to end")?.is_some();
                if quiet_since.elapsed() > if ended { LINGERING } else { patience } {
                    let what = if ended { "were left behind" } else { "have said nothing for too long" };
                    println!("These processes {what}, and are killed: {}", kill_holders(&pipe));
                    killed = true;
                    quiet_since = Instant::now();
                }
            }
        }
    }
    Ok(Streamed { status: child.wait().context("cannot wait for the tests to end")?, killed })
}

/// Kills whoever has this pipe open, except for this process; says who that was.
fn kill_holders(pipe: &Path) -> String {
    let mut killed = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().filter_map(Result::ok);
        let holds =
            files.map(|file| file.path()).any(|file| fs::read_link(file).is_ok_and(|open| open == pipe));
        if holds && pid != std::process::id() {
            let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            killed.push(format!("{pid} `{}`", words.trim()));
            let _gone = succeeds(Command::new("kill").args(["-KILL", &pid.to_string()]));
        }
    }
    killed.join(", ")
}

/// Closes what whoever runs this left open, and leaves a session that was begun outside of this PID namespace: a process of
/// which either holds cannot be saved. Ctrl-C does not reach a session of its own.
const APART: &str = r#"
for open in /proc/$$/fd/*; do
    open=${open##*/}
    if [ "$open" -gt 2 ]; then eval "exec $open>&-"; fi
done
if [ "$(cut -d " " -f 6 /proc/$$/stat)" = 0 ]; then exec setsid "$@"; fi
exec "$@"
"#;

/// A call of cargo whose tests start processes and save them.
pub(crate) fn cargo_apart(arguments: &[&str]) -> Command {
    let cargo = cargo(arguments);
    let Some(bash) = find("bash") else { return cargo };
    let mut command = Command::new(bash);
    command.args(["-c", APART, "bash"]).arg(cargo.get_program()).args(cargo.get_args());
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Where a program lies on the search path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|directory| directory.join(program)).find(|candidate| candidate.is_file())
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`; is it installed and on the PATH?", command.get_program().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(600);

    #[test]
    fn both_streams_keep_their_order_to_the_last_line() {
        let script = "echo one; echo two >&2; echo three; printf four >&2; exit 3";
        let mut lines = Vec::new();
        let ended = stream(Command::new("sh").args(["-c", script]), PATIENCE, |line| {
            lines.push(line.to_owned());
            false
        });
        assert_eq!(lines, ["one", "two", "three", "four"]);
        let ended = ended.unwrap();
        assert_eq!((ended.status.code(), ended.killed), (Some(3), false));
    }

    #[test]
    fn what_hangs_or_is_left_behind_is_killed() {
        let mut hangs = Command::new("sh");
        hangs.args(["-c", "echo begun; exec sleep 1000"]);
        let ended = stream(&mut hangs, Duration::from_millis(300), |_| false).unwrap();
        assert_eq!((ended.status.code(), ended.killed), (None, true));
        let mut leaves = Command::new("sh");
        leaves.args(["-c", "sleep 1000 & exit 0"]);
        let ended = stream(&mut leaves, PATIENCE, |_| false).unwrap();
        assert_eq!((ended.status.code(), ended.killed), (Some(0), true));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = succeeds(&mut Command::new("no-such-program")).unwrap_err().to_string();
        assert!(error.contains("`no-such-program`"), "{error}");
    }
}
