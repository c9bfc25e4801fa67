//! The library with real sockets: over loopback, and between hosts of a lab.

mod common;
mod conversation;
mod ending;
mod endpoint;
mod faults;
mod streams;
mod trust;
