//! What can go wrong with a store, and what would help.

use std::io::{self, ErrorKind};
use steadfast_wire::Fingerprint;

/// Why a store cannot be opened, or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory or a file in it cannot be read, made or written.
    #[error("cannot {what} the store {place}: {source}; {}", advice(source))]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Which store.
        place: String,
        /// What the system says.
        source: io::Error,
    },
    /// The disk is full. Nothing was written; the same may be tried again.
    #[error(
        "cannot write the store {place}: {source}; make room on that disk: what waits to be stored goes on by itself then"
    )]
    Full {
        /// Which store.
        place: String,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "another process uses the store {place}: end it first, or give each process a directory of its own"
    )]
    Locked {
        /// Which store.
        place: String,
    },
    /// It was made with another key.
    #[error(
        "the store {place} belongs to the identity {stored}, and this is {given}: its conversations go on under their own \
         identity only; use that one, or another directory"
    )]
    Identity {
        /// Which store.
        place: String,
        /// Whose it is.
        stored: Fingerprint,
        /// Who wanted to open it.
        given: Fingerprint,
    },
    /// It was written by a program that knows another format.
    #[error(
        "the store {place} has format {found}, and this program knows {known}: use the version of Steadfast that wrote it, or \
         another directory"
    )]
    Version {
        /// Which store.
        place: String,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Something in it that was confirmed is not what was written.
    #[error(
        "the store {place} is damaged at byte {offset} of {file} ({why}): move the directory away to begin anew; the \
         conversations in it then end at the other side, which is told. A copy made earlier helps no more: its conversations \
         would end as rolled back"
    )]
    Damaged {
        /// Which store.
        place: String,
        /// Which file.
        file: String,
        /// Where.
        offset: u64,
        /// What does not fit.
        why: &'static str,
    },
    /// An earlier write failed in a way that leaves unknown what is on the disk.
    #[error(
        "the store {place} failed before and takes nothing more: start the program again once the disk is well"
    )]
    Failed {
        /// Which store.
        place: String,
    },
}

impl StoreError {
    pub(crate) fn io(what: &'static str, place: &str, source: io::Error) -> Self {
        let place = place.into();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { place, source },
            ErrorKind::WouldBlock => Self::Locked { place },
            _ => Self::Io { what, place, source },
        }
    }

    /// Whether the same may succeed later.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "let this user write there, or name another directory",
        ErrorKind::ReadOnlyFilesystem => "mount it for writing, or name a directory on another disk",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => "a store is a directory: name another one",
        ErrorKind::NotFound => "its parent has to be there",
        _ => "see what the system's log says of that disk",
    }
}
