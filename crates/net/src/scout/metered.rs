//! Which networks cost by volume, as `NetworkManager` knows it.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// What `NetworkManager` says, by interface name; an interface that it does not know is missing.
pub(super) type Answers = HashMap<String, bool>;

const ARGUMENTS: [&str; 5] = ["-t", "-f", "GENERAL.DEVICE,GENERAL.METERED", "device", "show"];

/// Asks through `program`; no answers if it is missing, fails or takes longer than `limit`.
///
/// Cancel safe: the child is killed.
pub(super) async fn ask(program: &Path, limit: Duration) -> Answers {
    let output = Command::new(program)
        .args(ARGUMENTS)
        // Its words are translated otherwise.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(limit, output).await {
        Ok(Ok(output)) if output.status.success() => parse(&String::from_utf8_lossy(&output.stdout)),
        Ok(Ok(output)) => {
            tracing::debug!(status = %output.status, "NetworkManager does not say what is metered");
            Answers::new()
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "NetworkManager cannot be asked what is metered");
            Answers::new()
        }
        Err(_) => {
            tracing::debug!(?limit, "NetworkManager did not say in time what is metered");
            Answers::new()
        }
    }
}

fn parse(text: &str) -> Answers {
    let mut answers = Answers::new();
    let mut device = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("GENERAL.DEVICE:") {
            // In values, it puts a backslash before colons and backslashes.
            device = Some(unescape(name));
        } else if let Some(value) = line.strip_prefix("GENERAL.METERED:") {
            // "yes", "no", either with " (guessed)", or "unknown".
            let metered = match value.split_whitespace().next() {
                Some("yes") => true,
                Some("no") => false,
                _ => continue,
            };
            if let Some(device) = device.take() {
                answers.insert(device, metered);
            }
        }
    }
    answers
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let text = "GENERAL.DEVICE:eth0\nGENERAL.METERED:no (guessed)\n\nGENERAL.DEVICE:wlan0\n\
                    GENERAL.METERED:yes (guessed)\n\nGENERAL.DEVICE:a\\:b\nGENERAL.METERED:yes\n\n\
                    GENERAL.DEVICE:lo\nGENERAL.METERED:unknown\n";
        let answers = parse(text);
        assert_eq!(answers.len(), 3);
        assert!(!answers["eth0"] && answers["wlan0"] && answers["a:b"]);
    }

    #[tokio::test]
    async fn a_program_that_is_missing_or_fails_says_nothing() {
        let limit = Duration::from_secs(20);
        assert!(ask(Path::new("/nonexistent/nmcli"), limit).await.is_empty());
        assert!(ask(Path::new("false"), limit).await.is_empty());
    }
}
