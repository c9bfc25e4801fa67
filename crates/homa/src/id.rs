//! Names of what a transport has: links, peers, RPCs.

/// A link of this host, with one rate and one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(crate) u16);

/// Another host, or on encrypted carriers one process of it. A forgotten peer's name is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl PeerId {
    /// A small number, unique among the peers that there are now: an index for tables of the driver.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

/// A request and its response, at either side. An ended RPC's name is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RpcId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl RpcId {
    /// A small number: an index for tables of the driver. It is not used again before the RPC's last event was taken, or the
    /// RPC was abandoned.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

/// The first port that is a client's; below it a server may be bound. 0 is no port.
pub const FIRST_CLIENT_PORT: u16 = 0x8000;
