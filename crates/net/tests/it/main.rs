//! The crate against the real kernel: loopback sockets, and interfaces in namespaces of the tests' own.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skipped"
)]

mod acceptor;
mod carrier;
mod common;
mod datagram;
mod datagram_lab;
mod listener;
mod local;
mod scout;
mod tls;
mod trust;
