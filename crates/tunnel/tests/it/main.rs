//! Tunnels between two endpoints of this process, on the loopback.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers too")]

mod common;
mod connections;
mod refusals;
