//! Being stopped, and the command that goes on.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use steadfast_transfer::printable;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that people and systems stop a program with; none for one that is ignored.
pub(crate) struct Stop([Option<Signal>; 3]);

impl Stop {
    /// From now on they do not end the program by themselves. What whoever started it had it ignore, as `nohup` does, stays
    /// ignored: listening would undo that.
    pub(crate) fn new() -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let listen = |kind: SignalKind| {
            let heard = (!ignores(&status, kind.as_raw_value())).then(|| signal(kind));
            heard.transpose().context("cannot watch for signals")
        };
        let terminate = signal(SignalKind::terminate()).context("cannot watch for signals")?;
        Ok(Self([listen(SignalKind::interrupt())?, Some(terminate), listen(SignalKind::hangup())?]))
    }

    /// Waits for one of them. Cancel safe.
    pub(crate) async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            () = heard(interrupt) => {}
            () = heard(terminate) => {}
            () = heard(hangup) => {}
        }
    }
}

async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether a process of this status ignores a signal: a bit for each, from 1.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// The command that was typed, to be typed again.
pub(crate) fn same_command() -> String {
    command(std::env::args_os())
}

fn command(words: impl Iterator<Item = OsString>) -> String {
    words.map(|word| quoted(word.as_bytes())).collect::<Vec<_>>().join(" ")
}

/// A word as shells take it.
pub(crate) fn quoted(word: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./,:@%+=".contains(byte);
    match std::str::from_utf8(word) {
        Ok(text) if !word.is_empty() && word.iter().all(plain) => text.into(),
        Ok(text) if !text.contains(char::is_control) && printable(word).replace("\\\\", "\\") == text => {
            format!("'{}'", text.replace('\'', "'\\''"))
        }
        // Bash, zsh and most others know this form, which shows every byte.
        _ => format!("$'{}'", word.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn what_is_ignored_is_read_from_the_status() {
        let status = "Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n";
        assert_eq!([1, 2, 13, 64].map(|signal| ignores(status, signal)), [true, false, true, false]);
        assert!(!ignores("", 1));
    }

    #[test]
    fn a_command_can_be_typed_again() {
        let words = ["steadfast", "send", "my file", "it's", "größe", ""].map(OsString::from);
        let strange = OsString::from_vec(b"\xff\x1b".to_vec());
        let words = words.into_iter().chain([strange]);
        assert_eq!(command(words), r"steadfast send 'my file' 'it'\''s' 'größe' '' $'\xff\x1b'");
    }
}
