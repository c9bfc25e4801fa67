//! The program as a person runs it.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers too")]

mod common;
mod demo;
mod usage;
