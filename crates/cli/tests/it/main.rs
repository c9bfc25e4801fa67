//! The program as a person runs it.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers too")]

mod checkpoint;
mod common;
mod config;
mod daemon;
mod demo;
mod keys;
mod lab;
mod libftb;
mod manual;
mod ping;
mod rpc;
mod simulate;
mod terminal;
mod transfer;
mod transfer_lab;
mod trust;
mod tunnel;
mod tunnel_lab;
mod usage;
mod watch;
