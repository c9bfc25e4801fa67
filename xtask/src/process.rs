//! Starting cargo and other programs.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

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

/// Runs to the end and shows each line, in the order of both streams, as soon as `keep` has seen it and wants it shown.
pub(crate) fn stream(command: &mut Command, mut keep: impl FnMut(&str) -> bool) -> Result<ExitStatus> {
    // One pipe for both: cargo names a test binary on stderr, the binary reports on stdout, and their order matters.
    let (reader, writer) = io::pipe().context("cannot make a pipe for the output")?;
    command.stderr(writer.try_clone().context("cannot share a pipe for the output")?).stdout(writer);
    let mut child = command.spawn().with_context(|| cannot_start(command))?;
    // The command keeps its ends of the pipe, and the last line would never come.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).context("cannot read the output")? > 0 {
        let line = String::from_utf8_lossy(&bytes);
        if keep(line.trim_end_matches(['\n', '\r'])) {
            // Someone who closed our output wants the rest of the run's verdict all the same.
            let mut out = io::stdout().lock();
            let _closed = out.write_all(&bytes).and_then(|()| out.flush());
        }
        bytes.clear();
    }
    child.wait().context("cannot wait for the tests to end")
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

    #[test]
    fn both_streams_keep_their_order_to_the_last_line() {
        let script = "echo one; echo two >&2; echo three; printf four >&2; exit 3";
        let mut lines = Vec::new();
        let status = stream(Command::new("sh").args(["-c", script]), |line| {
            lines.push(line.to_owned());
            false
        });
        assert_eq!(lines, ["one", "two", "three", "four"]);
        assert_eq!(status.unwrap().code(), Some(3));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = succeeds(&mut Command::new("no-such-program")).unwrap_err().to_string();
        assert!(error.contains("`no-such-program`"), "{error}");
    }
}
