//! A data centre's network, packet by packet: hosts that run the Homa core that ships, racks, and what a message's
//! completion costs in it compared with an empty network.
//!
//! | module | what lives there |
//! |---|---|
//! | [`workload`] | the lengths of messages in the papers, W1 to W5, and arrivals from a seed |
//! | [`topology`] | racks, spines, links; how long a message takes in an empty network |
//! | `switch` | a link's queue: eight strict levels, or one |
//! | `station` | what a host runs: Homa, or a plain queue to compare with |
//! | [`run`] | virtual time, from arrivals to completions |
//! | [`report`] | slowdown by length, queues, goodput |
//!
//! Under [`Settings::paper`] messages are one-way, as in the simulations of the paper: a request that has arrived whole is
//! acknowledged outside of the network, and nothing is answered. Under [`Settings::shipped`] the core has the settings that
//! ship, a link's pace, responses and acknowledgements; faults are optional.
//!
//! Invariants: a seed replays exactly; no clock, no sockets, no threads. Deliberately absent: queues with an end, hosts that
//! are busy, and TCP.

#![forbid(unsafe_code)]

pub mod report;
pub mod run;
mod station;
mod switch;
pub mod topology;
pub mod workload;

pub use report::Report;
pub use run::{Faults, Settings, Transport, simulate};
pub use workload::Workload;
