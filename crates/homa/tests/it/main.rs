//! Tests of the Homa core: what it answers to a peer that is played by hand, and what becomes of requests in a network
//! that loses, delays and repeats.

mod acks;
mod bottleneck;
mod bounds;
mod grants;
mod hand;
mod lifecycle;
mod network;
mod pacing;
mod resends;
mod restarts;
mod swarm;
