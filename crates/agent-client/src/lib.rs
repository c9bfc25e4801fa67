//! A client of the agent of its host, for programs without a runtime: it publishes and receives events of the fault
//! backplane over the agent's Unix socket. Blocking, within limits; no threads.
//!
//! | file | one idea |
//! |---|---|
//! | `client.rs` | what a program calls; one connection after the other |
//! | `socket.rs` | one connection: made, read, written and waited for, never beyond a moment |
//! | `place.rs` | where the agent listens |
//! | `forks.rs` | what a forked child has of its parent's connections |
//! | `error.rs` | what goes wrong, with FTB's codes |
//!
//! Invariants: no call lasts longer than its limit, even if the agent is stopped; every descriptor is close-on-exec from its
//! birth; a client has one descriptor, and none after it was dropped; a process that was forked never speaks on its parent's
//! connection. What is heard is bounded by the queues of the [`Inbox`](steadfast_backplane::Inbox) and of callbacks.
//!
//! What is said, remembered and said again after a restart of the agent is [`steadfast_backplane::Session`]'s.
//!
//! Deliberately absent: threads, retries behind the program's back, printing.

#![forbid(unsafe_code)]

mod client;
mod error;
mod forks;
mod place;
mod socket;

pub use client::{Attention, Client, Counters, Settings};
pub use error::Error;
pub use forks::{after_fork, before_fork, inherited};
pub use place::{AGENT, HOST_AGENT, agent};
