//! What the network says of a peer, as far as the kernel hands it on.

use nix::errno::Errno;
use std::net::SocketAddr;

/// What is wrong with reaching a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nobody listens on its port.
    PortUnreachable,
    /// Its kernel does not know the protocol: it has no Homa.
    ProtocolUnreachable,
    /// There is no way to it, or a firewall says so.
    HostUnreachable,
    /// A packet was longer than the path takes.
    TooBig {
        /// What it takes in bytes, headers of IP and UDP included; 0 if that is not known.
        mtu: u32,
    },
}

/// A packet that did not get through.
///
/// Anybody on the way can forge it unless it is [`own`](Self::own), and those who guess ports and addresses can, too: a
/// hint, no proof. Who forges cannot quote a packet that they did not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Whom the packet was for.
    pub remote: SocketAddr,
    /// What happened to it.
    pub fault: Fault,
    /// Our own kernel says so, and nobody else.
    pub own: bool,
    /// Its beginning behind all headers of IP and UDP, as far as it was quoted, [`Trouble::MAX_QUOTED`] bytes at most.
    pub quoted: Vec<u8>,
}

impl Trouble {
    /// The most bytes of a packet that are kept.
    pub const MAX_QUOTED: usize = 64;
}

impl Fault {
    /// None if the error says nothing of the peer.
    pub(super) fn from_errno(errno: Errno, mtu: u32) -> Option<Self> {
        Some(match errno {
            Errno::ECONNREFUSED => Self::PortUnreachable,
            Errno::ENOPROTOOPT => Self::ProtocolUnreachable,
            Errno::EMSGSIZE => Self::TooBig { mtu },
            Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETDOWN
            | Errno::ENONET
            | Errno::EACCES
            | Errno::EPERM
            | Errno::EOPNOTSUPP => Self::HostUnreachable,
            _ => return None,
        })
    }

    /// Whether both are the same but for their numbers.
    pub(super) fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}
