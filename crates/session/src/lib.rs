//! The session core of Steadfast: what a conversation over many networks is, without any I/O.
//!
//! An [`Endpoint`] is one process. It has associations (one for each process of a peer), which have paths (carrier
//! connections between a local and a remote network) and sessions (conversations). The driver feeds it bytes, network
//! changes and the time; it answers with bytes, actions and events. The same code runs under tokio, in the simulator
//! and in the fuzzers.
//!
//! | file | one idea |
//! |---|---|
//! | `endpoint.rs` | the public face: routing of paths and sessions to associations, timers |
//! | `association.rs` | paths and sessions of one peer process; dialling, sending, receiving, recovery below it |
//! | `path.rs`, `estimate.rs` | what is in flight on a carrier; round trip and rate |
//! | `steering.rs`, `learned.rs` | how much bulk may be in flight; what is remembered of networks |
//! | `arbiter.rs`, `share.rs`, `endpoint/arbitration.rs` | background of several processes: the arbiter of a host; what is said to it and by it; what a process does about it |
//! | `session.rs`, `epoch.rs` | one conversation's life; tokens that prove a state is the latest |
//! | `options.rs`, `policy.rs`, `deferral.rs`, `rules.rs` | what a message, or its labels, ask for; sends that wait for a network |
//! | `outbound.rs`, `inbound.rs` | messages until their outcome; assembly, order, delivery, credit |
//! | `ledger.rs`, `endpoint/bounds.rs` | what each peer takes of this side, and how much it may |
//! | `liveness.rs` | the verdict on a peer's process, and its evidence; `association/verdict.rs` has the rules |
//! | `journal.rs`, `journal/` | what a durable endpoint has to remember; the same in fewer records, and in bytes |
//!
//! Invariants: no clock, no sockets, no threads (`no_std`); time is an argument, randomness a seed; nothing a peer
//! says can panic or take unbounded memory; every message has exactly one outcome; with a reading application and a
//! healed network every session drains. `Endpoint::check_invariants` sweeps what can be swept.
//!
//! Deliberately absent: cryptography and identities' keys (the carrier's), storage (the journal's reader's).

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod arbiter;
mod assembly;
mod association;
mod config;
mod context;
mod cost;
mod deferral;
mod endpoint;
mod epoch;
mod estimate;
mod event;
mod inbound;
mod journal;
mod learned;
mod ledger;
mod liveness;
mod options;
mod outbound;
mod path;
mod payload;
mod policy;
mod rules;
mod seldom;
mod session;
mod share;
mod stats;
mod steering;

pub use arbiter::{Arbiter, ArbiterStats, Owner, ProcessId};
pub use association::AssociationId;
pub use config::{Config, Ordering, SessionConfig};
pub use deferral::{Deferral, DeferralId};
pub use endpoint::Endpoint;
pub use event::{
    Action, DownReason, DropReason, Event, Forecast, Outcome, PathInfo, ReachId, Read, Received, Recv, Route,
    SendError, SessionError,
};
pub use journal::{Digest, JournalEntry, MAX_RECORD, Record, Summary};
pub use liveness::{Evidence, Examination, Exit, Judgement, Loss, Verdict};
pub use options::{OrderRequest, Patience, SendOptions};
pub use policy::Redundancy;
pub use share::{NetworkUse, Report, Share};
pub use stats::Stats;
pub use steadfast_wire as wire;
