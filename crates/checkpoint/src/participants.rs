//! Processes that take part by themselves: asked before they are frozen, told when they go on.
//!
//! This is the one place where they are asked. A process that has no way to be asked is saved as it is.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::process::Process;

/// A process that took part, as the manifest keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Which process.
    pub pid: u32,
    /// How it is found again after a restore.
    pub place: String,
    /// What was agreed.
    pub token: String,
}

/// What became of the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was taken, and the process goes on.
    Continued,
    /// It was not taken.
    Aborted,
}

/// Processes that are ready and wait for the outcome.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    entries: Vec<Participant>,
}

impl Prepared {
    /// Asks every process that can be asked; one that says no is the reason why nothing is saved.
    pub(crate) fn ask(_processes: &[Process], _deadline: Option<Instant>) -> Result<Self, Error> {
        Ok(Self::default())
    }

    /// What the manifest keeps.
    pub(crate) fn entries(&self) -> &[Participant] {
        &self.entries
    }

    /// Tells all of them.
    pub(crate) fn go_on(self, _outcome: Outcome) {}
}

/// Tells those that were restored.
pub(crate) fn restored(_entries: &[Participant]) {}
