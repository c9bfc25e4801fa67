//! Being stopped, and the command that goes on.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use steadfast_transfer::printable;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that people and systems stop a program with.
pub(crate) struct Stop([Signal; 3]);

impl Stop {
    /// From now on they do not end the program by themselves.
    pub(crate) fn new() -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let listen = |kind| signal(kind).context("cannot watch for signals");
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    /// Waits for one of them. Cancel safe.
    pub(crate) async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
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
    fn a_command_can_be_typed_again() {
        let words = ["steadfast", "send", "my file", "it's", "größe", ""].map(OsString::from);
        let strange = OsString::from_vec(b"\xff\x1b".to_vec());
        let words = words.into_iter().chain([strange]);
        assert_eq!(command(words), r"steadfast send 'my file' 'it'\''s' 'größe' '' $'\xff\x1b'");
    }
}
