//! Packets of others over UDP and over IP protocol 146: many in one system call, a level of urgency on each.
//!
//! | file | one idea |
//! |---|---|
//! | `datagram/batch.rs` | [`Batch`]: packets on their way out, as runs of equal size |
//! | `datagram/received.rs` | [`Received`]: what one call of the kernel gave, to be read in place |
//! | `datagram/socket.rs` | [`Socket`]: which kinds there are, readiness, sending, receiving |
//! | `datagram/trouble.rs` | [`Trouble`]: what the network says of a peer |
//! | `datagram/kernel.rs` | control messages, the error queue |
//! | `datagram/raw.rs` | IP headers |
//! | [`seal`] | encryption of packets, without I/O |
//!
//! Invariants: one peer's trouble is never charged to the next one's packet; what is queued for the caller is bounded;
//! nothing unencrypted leaves for another host over UDP; no call blocks.

mod batch;
mod kernel;
mod raw;
mod received;
pub mod seal;
mod socket;
mod trouble;

pub use batch::{Batch, MAX_PACKET};
pub use received::{Arrival, Received};
pub use socket::{ReceiveState, SendState, Socket, SocketConfig, SocketCounters, SocketError};
pub use trouble::{Fault, Trouble};

use std::net::{IpAddr, SocketAddr};

/// The protocol number of raw sockets: Homa's.
pub const RAW_PROTOCOL: u8 = 146;

/// Where a packet goes or comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// The peer. Its port is 0 with raw sockets.
    pub remote: SocketAddr,
    /// Our address: of what arrives, the one that it was sent to; of what leaves, the one that it shall come from. None
    /// leaves it to the socket's own address, or to the kernel.
    pub local: Option<IpAddr>,
}

impl Route {
    /// To this address, from whichever of ours.
    pub const fn to(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }
}

/// The type of service of a level from 0 to 7: the three highest bits, as the Homa module does.
#[must_use]
pub const fn tos_of_level(level: u8) -> u8 {
    (if level > 7 { 7 } else { level }) << 5
}
