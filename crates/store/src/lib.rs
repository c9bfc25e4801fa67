//! The journal of a durable endpoint, on a disk: what it confirms is there after a kill and after a power cut.
//!
//! A [`Store`] is a directory with one *segment*: a file to which batches of records are appended, each with its length,
//! number and checksum, and forced to the disk before anything in it counts. What is settled stays in the file until that
//! is mostly rubbish; then what the records come to (a [`Digest`](steadfast_session::Digest)) begins the next segment, and
//! the old one goes. The digest is the only index, and in memory, where the core has all of it anyway.
//!
//! | file | one idea |
//! |---|---|
//! | `store.rs` | opening, appending, beginning a new segment |
//! | `segment.rs` | what is in a segment, and where it is cut or damaged |
//! | `files.rs` | what a store asks of a disk; a directory |
//! | `crash.rs` | a disk in memory that loses, tears and reorders what was not forced to it, for tests |
//! | `error.rs` | what can go wrong, and what would help |
//!
//! Invariants:
//! - Whatever [`Store::append`] returned from is there at the next [`Store::open`], in order, and before all that came later.
//! - A batch is there as a whole or not at all. A cut end is no damage; anything else that does not fit is, and is refused.
//! - The file is at most twice what is open, and 8 MiB, and one batch.
//! - One process at a time, its own user alone (mode 0600), one identity.
//!
//! Deliberately absent: encryption (whoever reads the user's files reads the identity, too), threads, and any idea of what a
//! restored backup is: sessions prove by their tokens that a state is the latest.

#![forbid(unsafe_code)]

pub mod crash;
mod error;
mod files;
mod segment;
mod store;

pub use error::StoreError;
pub use files::{Directory, Files};
pub use store::{SLACK, Store};
