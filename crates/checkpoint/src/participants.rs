//! Processes that take part by themselves: asked before they are frozen, told when they go on.
//!
//! This is the one place where they are asked, over their control sockets. A process that has none is saved as it is.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use steadfast_control::{ControlError, Outcome, Prepared as Ready, Wish, find};

use crate::error::Error;
use crate::process::Process;

/// How long a process may take to be ready, and to go on, where nobody says otherwise.
const LIMIT: Duration = Duration::from_secs(10);
/// How long it waits for us when it is ready. After that it goes on by itself, as it has to if this process dies.
const SILENCE: Duration = Duration::from_secs(60);

/// A process that took part, as the manifest keeps it: it is told when it runs again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Which process.
    pub pid: u32,
    /// How it is spoken to.
    pub ready: Ready,
}

/// Processes that are ready and wait for the outcome. Dropped, they are told that nothing came of it.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    entries: Vec<Participant>,
    /// When the first of them goes on by itself.
    until: Option<Instant>,
}

impl Prepared {
    /// Asks every process that can be asked; one that says no is the reason why nothing is saved.
    pub(crate) fn ask(
        processes: &[Process],
        images: &Path,
        goes_on: bool,
        timeout: Option<Duration>,
        deadline: Option<Instant>,
    ) -> Result<Self, Error> {
        let mut prepared = Self::default();
        for process in processes {
            // Of one that ended just now, or may not be looked at, CRIU says what is to be said.
            let Ok(Some(place)) = find(process.pid) else { continue };
            if prepared.entries.iter().any(|known| known.ready.place == place) {
                // A fork shares its parent's, which is asked for both.
                continue;
            }
            let left = deadline.map_or(LIMIT, |deadline| deadline.saturating_duration_since(Instant::now()));
            let silence = timeout.map_or(SILENCE, |timeout| timeout + SILENCE);
            let wish = Wish { ready: left.min(LIMIT), silence, images: Some(images.to_owned()), goes_on };
            let until = Instant::now() + silence;
            let ready = place.prepare(&wish).map_err(|error| refused(process, error))?;
            prepared.entries.push(Participant { pid: process.pid, ready });
            prepared.until.get_or_insert(until);
        }
        Ok(prepared)
    }

    /// What the manifest keeps.
    pub(crate) fn entries(&self) -> &[Participant] {
        &self.entries
    }

    /// They go on beside their image. What they could not take up again.
    pub(crate) fn go_on(self) -> Vec<String> {
        self.tell(&Outcome::Continued)
    }

    /// Until when all of them are surely quiet.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// They ended with the checkpoint.
    pub(crate) fn leave(mut self) {
        self.entries.clear();
    }

    /// They go on when they can: they stand still, or do what a signal says.
    pub(crate) fn leave_word(mut self) {
        left(&std::mem::take(&mut self.entries), &Outcome::Continued);
    }

    fn tell(mut self, outcome: &Outcome) -> Vec<String> {
        told(&std::mem::take(&mut self.entries), outcome)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        let _faults = told(&entries, &Outcome::Abandoned("no checkpoint was taken".to_owned()));
    }
}

/// Tells those that were restored. What they could not take up again, unless they are stopped.
pub(crate) fn restored(entries: &[Participant], images: &Path, stopped: bool) -> Vec<String> {
    let outcome = Outcome::Restored { images: Some(images.to_owned()) };
    if stopped {
        left(entries, &outcome);
        return Vec::new();
    }
    told(entries, &outcome)
}

/// Leaves word for each: one that has ended hears nothing.
fn left(entries: &[Participant], outcome: &Outcome) {
    for entry in entries {
        let _gone = entry.ready.leave_word(outcome);
    }
}

/// In the opposite order, and each of them.
fn told(entries: &[Participant], outcome: &Outcome) -> Vec<String> {
    let mut faults = Vec::new();
    for entry in entries.iter().rev() {
        match entry.ready.go_on(outcome, LIMIT) {
            Ok(own) => faults.extend(own.into_iter().map(|fault| format!("process {}: {fault}", entry.pid))),
            Err(error) => faults.push(error.to_string()),
        }
    }
    faults
}

fn refused(process: &Process, error: ControlError) -> Error {
    let (pid, name) = (process.pid, process.name.clone());
    match error {
        ControlError::Refused { temporary, reason, .. } => Error::Refused { pid, name, reason, temporary },
        other => Error::Unready { pid, name, reason: other.to_string() },
    }
}
