//! The library with real sockets: over loopback, and between hosts of a lab.

mod common;
mod conversation;
