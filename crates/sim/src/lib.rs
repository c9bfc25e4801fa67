//! A simulator for the session core: hosts, networks and stream carriers in virtual time, faults from a seed, and a
//! reference model that knows what must arrive.
//!
//! | module | what lives there |
//! |---|---|
//! | [`world`] | virtual time, hosts that run the very core that ships, the event queue |
//! | `carrier` | a reliable ordered byte stream over lossy, delayed, cut links: what TCP is to the core |
//! | [`model`] | what was sent and delivered, and the rules that both must keep |
//! | [`swarm`] | one seed: topology, workload, faults, healing, and the verdict |
//! | [`fuzz`] | plain functions from bytes to "no bug", driven on stable and by libFuzzer |
//!
//! Invariants: a seed replays exactly; no clock, no sockets, no threads. Deliberately absent: packets of real
//! protocols and queues inside the network; that is what the testbed is for.

#![forbid(unsafe_code)]

mod carrier;
pub mod fuzz;
pub mod model;
pub mod rng;
pub mod swarm;
pub mod world;
