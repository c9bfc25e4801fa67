//! The daemon of a host: one for all its processes. It is the backplane's agent, watches the networks, and tells what it sees.
//!
//! | file | one idea |
//! |---|---|
//! | `daemon.rs` | the daemon as a whole: start, reload, end |
//! | `settings.rs` | what the configuration says of it |
//! | `hub.rs`, `socket.rs` | the agent behind one lock; its socket, and each client's connection |
//! | `journal.rs`, `store.rs` | events on the disk; the thread that writes them, and so decides when they are acknowledged |
//! | `ways.rs`, `seal.rs` | ways out of the host, and what comes in; signatures below that, and whose are believed |
//! | `nats.rs`, `exchange.rs` | the bridge to NATS; conversations with the daemons of other hosts |
//! | `sinks.rs` | events into the system's journal, commands and files |
//! | `attached.rs` | the processes that are attached: networks, their parts of them, their conversations and peers |
//! | `faults.rs` | Steadfast's own faults as events |
//! | `status.rs`, `metrics.rs` | questions about the host, and Prometheus |
//! | `manager.rs` | what a service manager is told |
//! | `process.rs` | what `/proc` says of a process |
//!
//! Invariants: what is acknowledged was written first; a client that does not read holds up nobody else; no lock is held
//! across an await or a write to the disk. Deliberately absent: any protocol logic, which is in `steadfast-backplane`.

#![forbid(unsafe_code)]

mod attached;
mod daemon;
mod exchange;
pub mod faults;
mod hub;
mod journal;
mod manager;
mod metrics;
mod nats;
mod process;
mod seal;
mod settings;
mod sinks;
mod socket;
pub mod status;
mod store;
mod ways;

pub use daemon::{Daemon, DaemonError, socket_path, status_path};
pub use exchange::{EXCHANGE_PORT, ExchangeError, ExchangeSettings};
pub use journal::Sync;
pub use manager::{Told, tell_manager};
pub use nats::{NatsFileError, NatsSettings, nkey};
pub use process::allow_descriptors;
pub use settings::{Limits, Mode, RuleSetting, Settings};
pub use sinks::SinkStatus;
pub use sinks::settings::{
    CommandSettings, FileSettings, JournalPlaces, SinkName, SinkSettings, SinkTarget, Sinks,
};
pub use socket::SocketError;
pub use ways::WayStatus;
