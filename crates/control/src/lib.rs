//! The control socket of a process. A program that takes checkpoints asks there whether the process may be frozen, and says
//! there that it runs again: who keeps something that no image can hold (a connection, a lease) lets go of it before, and takes
//! it up again after.
//!
//! | file | one idea |
//! |---|---|
//! | `participant.rs` | who is asked in a process, and what it is told |
//! | `gate.rs` | parts of a program during which no checkpoint is taken |
//! | `registry.rs` | everybody in this process, asked one after the other |
//! | `server.rs` | the socket and the one thread that serves it |
//! | `client.rs` | the other side: finds the socket of a process, asks, and says how it went |
//! | `protocol.rs` | what the two say to each other |
//! | `place.rs` | where the sockets lie |
//! | `process.rs` | when a process started |
//!
//! Invariants: a process that was asked goes on by itself when nobody comes back within the time that was said; whoever prepared is
//! told exactly once how it went, in the opposite order; between the answer and the freeze the process holds no connection
//! of the requester; only its own user and root are listened to; every line is bounded and every wait has an end. The thread
//! and the socket are there while somebody is registered.
//!
//! Deliberately absent: a runtime, images, what a session is.

#![forbid(unsafe_code)]

mod client;
mod gate;
mod participant;
mod place;
pub mod process;
mod protocol;
mod registry;
mod server;

pub use client::{ControlError, Place, Prepared, Status, Wish, find};
pub use gate::{Phase, Section};
pub use participant::{Checkpoint, Outcome, Participant, Requester, Veto};
pub use place::CONTROL;
pub use registry::{Registration, Stage, enter, entering, phase, register, try_enter};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a panic elsewhere while it was held does not spread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
