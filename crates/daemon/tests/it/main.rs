//! The daemon from outside: in this process, with the library as its client, and each in a process of its own, as on hosts of
//! their own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod attached;
mod backplane;
mod client;
mod crowd;
mod disk;
mod exchange;
mod host;
mod nats;
mod outside;
mod place;
mod rude;
mod server;
mod shares;
mod sinks;
mod tls;
