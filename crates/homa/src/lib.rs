//! The Homa core of Steadfast: short requests answered in microseconds while bulk moves, without any I/O.
//!
//! A [`Transport`] is one host, or one process of it: client and server at once. Messages are sent in two parts. The
//! first bytes leave unasked; the rest when the receiver grants it, which it does for a few messages at a time, shortest
//! remaining first. Eight levels of the network's switches let short messages overtake long ones.
//!
//! | file | one idea |
//! |---|---|
//! | `packet.rs` | every packet on the wire, in the module's layout |
//! | `transport.rs` | the public face; below it calls, what arrives, what leaves, timers |
//! | `rpc.rs`, `incoming.rs`, `outgoing.rs` | one request with its response; a message that arrives; one that is sent |
//! | `grants.rs` | which messages may go on: overcommitment, balance across peers, rank |
//! | `sender.rs` | what leaves over a link and when: order and pace |
//! | `cutoffs.rs` | levels computed from the traffic that arrives |
//! | `peer.rs`, `taken.rs` | what is known of another host; which of its requests were taken |
//! | `config.rs`, `metrics.rs` | settings; counters under the module's names |
//!
//! Invariants: no clock, no sockets, no threads (`no_std`); time is an argument, randomness a seed; nothing a peer says
//! can panic or take unbounded memory; every request has one outcome and it is true; no request is handed to the
//! application twice, also when duplicates are late; no search over all RPCs for a packet.
//! [`Transport::check_invariants`] sweeps what can be swept.
//!
//! Deliberately absent: bodies of messages that arrive, which the driver copies to where [`Placement`] says; addresses,
//! encryption and replay protection, which are the carrier's; anything about several networks.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod config;
mod cutoffs;
mod event;
mod grants;
mod id;
mod incoming;
mod metrics;
mod outgoing;
pub mod packet;
mod peer;
mod rpc;
mod sender;
mod slab;
mod taken;
mod transport;

pub use config::{ANY_LENGTH, Config, LinkConfig, PeerConfig};
pub use event::{Call, CallError, Event, Outcome, PeerError, Placement, PortError, Reason, RespondError};
pub use id::{FIRST_CLIENT_PORT, LinkId, PeerId, RpcId};
pub use metrics::Metrics;
pub use steadfast_wire::Instant;
pub use transport::{Run, Transmit, Transport};
