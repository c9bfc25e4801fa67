//! Transfers over real sockets of the loopback, and peers that break every rule.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers too")]

mod common;
mod hostile_receiver;
mod hostile_sender;
mod resuming;
mod transfers;
