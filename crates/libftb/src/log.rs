//! What an operator should know, at most once a minute of each kind: to syslog, or to standard error where `STEADFAST_LOG` is
//! set. No descriptor stays open for it.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, process};

const SYSLOG: &str = "/dev/log";
/// `LOG_USER` and `LOG_WARNING`.
const PRIORITY: u32 = 8 + 4;
const INTERVAL: Duration = Duration::from_secs(60);

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Cut,
    Dropped,
    Lapsed,
    Refused,
    AgentGone,
    StillRunning,
}

/// When each kind was told last, and how often it was not told since.
static TOLD: Mutex<[Option<(Instant, u64)>; 6]> = Mutex::new([None; 6]);

/// Tells something, with how often it was kept quiet since the last time.
pub(crate) fn tell(kind: Kind, text: &str) {
    if let Some(quiet) = admit(kind, Instant::now()) {
        let more = if quiet > 0 { format!(" ({quiet} more of the kind before)") } else { String::new() };
        write(&format!("libftb: {text}{more}"));
    }
}

fn admit(kind: Kind, now: Instant) -> Option<u64> {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let slot = &mut told[kind as usize];
    if let Some((last, quiet)) = slot
        && now.saturating_duration_since(*last) < INTERVAL
    {
        *quiet += 1;
        return None;
    }
    Some(slot.replace((now, 0)).map_or(0, |(_, quiet)| quiet))
}

fn write(line: &str) {
    if env::var_os("STEADFAST_LOG").is_some() {
        let _closed = writeln!(io::stderr(), "{line}");
        return;
    }
    let Ok(socket) = UnixDatagram::unbound() else { return };
    // A log that does not keep up holds up no program.
    if socket.set_nonblocking(true).is_ok() {
        let message = format!("<{PRIORITY}>ftb[{}]: {line}", process::id());
        let _nobody = socket.send_to(message.as_bytes(), SYSLOG);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_minute_with_the_count() {
        // Kinds of which no other test tells anything.
        let now = Instant::now();
        assert_eq!(admit(Kind::AgentGone, now), Some(0));
        assert_eq!(admit(Kind::AgentGone, now + INTERVAL / 2), None);
        assert_eq!(admit(Kind::AgentGone, now + INTERVAL / 2), None);
        assert_eq!(admit(Kind::Lapsed, now), Some(0), "each kind for itself");
        assert_eq!(admit(Kind::AgentGone, now + INTERVAL), Some(2));
        assert_eq!(admit(Kind::AgentGone, now + INTERVAL * 2), Some(0));
    }
}
