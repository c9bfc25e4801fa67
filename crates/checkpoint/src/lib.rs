//! Checkpoint and restart of processes through CRIU, with the events of the fault backplane.
//!
//! | file | one idea |
//! |---|---|
//! | `criu.rs`, `rpc.rs` | the program CRIU: where it is, its workers, what is said to them |
//! | `diagnosis.rs` | its log, in words that say what would help |
//! | `image.rs` | what it wrote, as far as it is read here |
//! | `scope.rs`, `process.rs` | which processes are meant; what the kernel tells of them |
//! | `save.rs`, `restore.rs`, `run.rs` | the three verbs |
//! | `migration.rs`, `standing.rs`, `grip.rs` | to another host: what the two say; processes that stand still meanwhile; and that nobody lets go on |
//! | `transit.rs` | images that nobody keeps, and whose they are meanwhile |
//! | `participants.rs` | processes that take part by themselves: the one place where they are asked |
//! | `sockets.rs` | directories of control sockets, for those that are restored |
//! | `manifest.rs`, `place.rs` | what a checkpoint says of itself; directories, backups, rotation |
//! | `parent.rs` | being the parent of a program: signals, and how it ended |
//! | `events.rs` | what is published |
//! | `error.rs` | what goes wrong, by who must act |
//!
//! Invariants: a checkpoint takes the place of another only when it is whole, checked and on the disk; processes that are to
//! end are not ended before; a BEGIN has at most one END or ERROR; nothing waits for the agent longer than half a second.
//! Deliberately absent: threads but the one that holds what is about to move, moving of files that processes have open, programs that are not told apart from their
//! children.

#![forbid(unsafe_code)]

mod criu;
mod diagnosis;
mod error;
mod events;
mod grip;
mod image;
mod manifest;
mod migration;
mod parent;
mod participants;
mod place;
mod process;
mod restore;
mod rpc;
mod run;
mod save;
mod scope;
mod sockets;
mod standing;
mod transit;

use std::path::Path;

pub use criu::{CRIU, Criu, Version};
pub use diagnosis::Diagnosis;
pub use error::{Class, ETIMEDOUT, Error};
pub use events::{Publisher, SPACE};
pub use image::{Descriptor, Process};
pub use manifest::{FILE, FORMAT, LOG, Manifest, Outward, Piece, RESTORE_LOG};
pub use migration::{Arrival, Ask, MAX_FILES, Moving, NotUnderstood, Refusal, Said, files, prepare, room};
pub use nix::errno::Errno;
pub use nix::sys::signal::Signal;
pub use parent::{Ended, Masked, Woken};
pub use participants::Participant;
pub use place::{Existing, Found, LATEST, list, resolve};
pub use restore::{Restore, Restored, restore};
pub use run::{Started, run};
pub use save::{After, GHOST_LIMIT, Observer, PATIENCE, Progress, Save, SaveError, Saved, Series, Tcp, save};
pub use scope::{Same, Scope};
pub use standing::Standing;
pub use transit::{Departure, Left, Owner, left};

/// What a process of a checkpoint has open.
pub fn descriptors(place: &Path, pid: u32) -> Result<Vec<Descriptor>, Error> {
    image::descriptors(place, pid)
        .map_err(|error| Error::Damaged { path: place.to_owned(), what: error.to_string() })
}

/// The last warnings and errors of a checkpoint's log, in CRIU's words, at most `count`.
#[must_use]
pub fn warnings(place: &Path, count: usize) -> Vec<String> {
    diagnosis::notable(&diagnosis::tail(&place.join(LOG)), count)
}

/// How long the processes stood still, in microseconds, where CRIU has said it.
#[must_use]
pub fn frozen(place: &Path) -> Option<u64> {
    image::frozen(place)
}
