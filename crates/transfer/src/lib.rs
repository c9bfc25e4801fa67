//! Files and directories over a conversation of Steadfast.
//!
//! A [`Sender`] offers what a [`Plan`] names, a [`Receiver`] takes it into a directory. Both go on from where they were
//! after every network was lost, and after either process was killed.
//!
//! | file | one idea |
//! |---|---|
//! | `name.rs`, `manifest.rs` | which names and paths there may be, and in which order |
//! | `message.rs` | what the two sides say |
//! | `beneath.rs`, `store.rs` | the receiver's directory: nothing outside of it, nothing in it that is not whole |
//! | `sender.rs` with `walk.rs`, `source.rs`, `content.rs`, `talk.rs` | the sending side |
//! | `receiver.rs` with `chores.rs`, `directories.rs`, `content.rs`, `talk.rs` | the receiving side |
//! | `digest.rs`, `idle.rs`, `progress.rs` | checksums, whether the other side does something, what is told |
//!
//! Invariants:
//! - A file has its name only when all of it is there, checked and on the disk.
//! - No path leads out of the receiver's directory, whatever a sender says and whatever links lie there.
//! - What a peer can make us hold is bounded: 256 entries without an outcome, one content at a time, the chain of
//!   directories that they lie in.
//! - A peer that breaks the protocol ends its conversation, and can never panic us.
//! - Blocking work runs beside the runtime and ends when whoever wanted it is gone.
//!
//! Deliberately absent: a terminal, encryption and identity (the library has them), compression, deleting at the
//! receiver, owners and groups, links and devices.

#![forbid(unsafe_code)]

mod beneath;
mod digest;
mod idle;
mod manifest;
pub mod message;
mod name;
mod progress;
mod receiver;
mod sender;
mod store;
#[cfg(test)]
mod testing;

pub use digest::{Digest, Hasher};
pub use manifest::{Chain, Entry, Kind, ManifestFault, Time};
pub use name::{NameFault, PARTIAL_DIRECTORY, printable, printable_path};
pub use progress::{Current, Event, FileOutcome, Monitor, Progress, Stage};
pub use receiver::{ReceiveFailure, Receiver, Request};
pub use sender::{Plan, PlanError, SendFailure, Sender};
pub use store::{DISCARD_AFTER, Store, StoreError, discard_partial};
