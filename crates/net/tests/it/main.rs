//! The crate against the real kernel: loopback sockets, and interfaces in namespaces of the tests' own.

mod acceptor;
mod carrier;
mod common;
mod listener;
mod scout;
mod tls;
mod trust;
