//! A data centre's network, packet by packet: hosts that run the Homa core that ships, racks, and what a message's
//! completion costs in it compared with an empty network.
//!
//! | module | what lives there |
//! |---|---|
//! | [`workload`] | the lengths of messages in the papers, W1 to W5, and arrivals from a seed |
//! | [`topology`] | racks, spines, links; how long a message takes in an empty network |
//! | [`preset`] | simulations that are ready to run: the paper's, and smaller ones |
//! | `switch` | a link's queue: eight strict levels, or one |
//! | `station` | what a host runs: Homa, or a plain queue to compare with |
//! | [`run`], `agenda` | virtual time, from arrivals to completions |
//! | `downlink` | what a receiver's link does, and what of its time is wasted |
//! | [`report`] | slowdown by length, queues, goodput, wasted bandwidth |
//! | [`search`] | the largest load that is sustained |
//! | [`plot`], [`svg`] | slowdown by length as a drawing; what drawings are made of |
//!
//! Under [`Settings::paper`] messages are one-way, as in the simulations of the paper: a request that has arrived whole is
//! acknowledged outside of the network, and nothing is answered. Under [`Settings::shipped`] the core has the settings that
//! ship, a link's pace, responses and acknowledgements; faults are optional.
//!
//! Invariants: a seed replays exactly; no clock, no sockets, no threads. Deliberately absent: hosts that are busy, and TCP.

#![forbid(unsafe_code)]

mod agenda;
mod downlink;
pub mod plot;
pub mod preset;
pub mod report;
pub mod run;
pub mod search;
mod station;
pub mod svg;
mod switch;
pub mod topology;
pub mod workload;

pub use preset::Preset;
pub use report::Report;
pub use run::{Faults, Settings, Transport, carry, simulate};
pub use search::largest_load;
pub use workload::Workload;
