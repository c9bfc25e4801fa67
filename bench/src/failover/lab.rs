//! Two hosts, two networks, and what happens to one of them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use steadfast_testbed::{Direction, Host, IpNet, Lab, Link};

/// One of the networks.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) one_way: Duration,
    /// Of the client and of the server.
    addresses: [Ipv4Addr; 2],
}

pub(super) const NETWORKS: [Plan; 2] = [
    Plan {
        name: "near",
        one_way: Duration::from_millis(10),
        addresses: [Ipv4Addr::new(10, 0, 1, 1), Ipv4Addr::new(10, 0, 1, 2)],
    },
    Plan {
        name: "far",
        one_way: Duration::from_millis(30),
        addresses: [Ipv4Addr::new(10, 0, 2, 1), Ipv4Addr::new(10, 0, 2, 2)],
    },
];

/// What happens to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing passes, and nobody is told.
    Silent,
    /// The client's own interface is set down.
    Down,
}

impl Fault {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Down => "down",
        }
    }
}

/// The hosts and networks of one round.
pub(super) struct Stage {
    /// Kept, since links die with it.
    _lab: Lab,
    pub(super) client: Host,
    pub(super) server: Host,
    links: Vec<Link>,
}

impl Stage {
    pub(super) fn new() -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let (client, server) = (lab.host("client")?, lab.host("server")?);
        let links = NETWORKS.iter().map(|plan| {
            let [a, b] = plan.addresses;
            let link = lab.link(plan.name, &client, &server).delay(plan.one_way);
            link.addresses(&[IpNet::new(a, 24)?], &[IpNet::new(b, 24)?]).connect()
        });
        let links = links.collect::<Result<_, _>>()?;
        Ok(Self { _lab: lab, client, server, links })
    }

    /// The server's address on the network with the shorter round trip.
    pub(super) fn server_address(&self) -> IpAddr {
        self.links[0].address_of(&self.server)
    }

    /// The server's address and interface on the other network.
    pub(super) fn other_end(&self) -> (IpAddr, String) {
        let link = &self.links[1];
        (link.address_of(&self.server), link.interface_of(&self.server).to_owned())
    }

    /// Frames that each network has carried to the server.
    pub(super) fn carried(&self) -> Vec<u64> {
        self.links.iter().map(|link| link.counters().a_to_b.frames).collect()
    }

    /// The network that has carried most since `before`.
    pub(super) fn busiest(&self, before: &[u64]) -> usize {
        let carried = self.carried();
        let since = |link: &usize| carried[*link] - before[*link];
        (0..carried.len()).max_by_key(since).unwrap_or(0)
    }

    pub(super) fn cut(&self, link: usize, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Silent => self.links[link].blackhole(Direction::Both),
            Fault::Down => self.links[link].carrier_down(&self.client)?,
        }
        Ok(())
    }

    pub(super) fn heal(&self, link: usize, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Silent => self.links[link].heal(),
            Fault::Down => self.links[link].carrier_up(&self.client)?,
        }
        Ok(())
    }
}
