//! The library with real sockets: over loopback, and between hosts of a lab.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod both;
mod byte_streams;
mod calls;
mod common;
mod conversation;
mod deferred;
mod durable;
mod ending;
mod endpoint;
mod faults;
mod homa;
mod hostile;
mod middle;
mod neighbours;
mod networks;
mod originals;
mod rules;
mod streams;
mod trust;
mod verdicts;
mod world;
