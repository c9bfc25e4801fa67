//! A link that stands: its addresses, its faults, its counters.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use crate::end::{End, await_local, await_ready};
use crate::namespace::Namespace;
use crate::netlink::{address, interface, tolerate};
use crate::pipe::Pipe;
use crate::relay::Relay;
use crate::{Counters, Host, IpNet, LabError, Settings};

/// Which way frames go, between the host named first when the link was made (A) and the second (B).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the first host to the second.
    AToB,
    /// From the second host to the first.
    BToA,
    /// Each way.
    Both,
}

impl Direction {
    fn covers(self, pipe: usize) -> bool {
        matches!((self, pipe), (Self::Both, _) | (Self::AToB, 0) | (Self::BToA, 1))
    }
}

/// A link between two hosts; a handle, whose clones mean the same link.
///
/// A method that takes a host means that host's end. The ones that return a `Result` give [`LabError::Misuse`] for a host
/// that is no end of the link, and [`LabError::Refused`] when the kernel refuses.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) ends: [End; 2],
    pub(crate) relay: Relay<[Pipe; 2]>,
    pub(crate) middle: Arc<Namespace>,
}

impl Link {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its first and its second host, A and B of [`Direction`].
    pub fn hosts(&self) -> [&Host; 2] {
        [&self.inner.ends[0].host, &self.inner.ends[1].host]
    }

    /// The name of the link's interface on a host.
    ///
    /// # Panics
    /// When the host is no end of this link.
    pub fn interface_of(&self, host: &Host) -> &str {
        &self.known_end(host).interface
    }

    /// The address of a host on this link: its first IPv4 address, or the first IPv6 one where there is none.
    ///
    /// # Panics
    /// When the host is no end of this link or has no address on it.
    pub fn address_of(&self, host: &Host) -> IpAddr {
        let v4 = self.ipv4_of(host).map(IpAddr::from);
        let address = v4.or_else(|| self.ipv6_of(host).map(IpAddr::from));
        address.unwrap_or_else(|| panic!("host {} has no address on link {}", host.name(), self.name()))
    }

    /// The first IPv4 address of a host on this link.
    ///
    /// # Panics
    /// When the host is no end of this link.
    pub fn ipv4_of(&self, host: &Host) -> Option<Ipv4Addr> {
        self.addresses_of(host).into_iter().find_map(|net| match net.address() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    /// The first IPv6 address of a host on this link that was asked for; link-local ones are not counted.
    ///
    /// # Panics
    /// When the host is no end of this link.
    pub fn ipv6_of(&self, host: &Host) -> Option<Ipv6Addr> {
        self.addresses_of(host).into_iter().find_map(|net| match net.address() {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        })
    }

    /// The addresses of a host on this link in the order they were given, also while its interface is down.
    ///
    /// # Panics
    /// When the host is no end of this link.
    pub fn addresses_of(&self, host: &Host) -> Vec<IpNet> {
        self.known_end(host).state().addresses.clone()
    }

    /// Changes the settings of both directions. It holds for every frame that a host sends from now on; frames that wait
    /// follow a new rate, frames in flight keep their arrival.
    pub fn set(&self, change: impl FnMut(&mut Settings)) {
        self.set_direction(Direction::Both, change);
    }

    /// Changes the settings of one direction, as [`Link::set`] does for both.
    pub fn set_direction(&self, direction: Direction, mut change: impl FnMut(&mut Settings)) {
        self.inner.relay.with_pipes(|pipes| {
            let now = Instant::now();
            for (number, pipe) in pipes.iter_mut().enumerate() {
                if direction.covers(number) {
                    pipe.set(now, &mut change);
                }
            }
        });
    }

    /// The settings from A to B and from B to A.
    pub fn settings(&self) -> [Settings; 2] {
        self.inner.relay.with_pipes(|pipes| [pipes[0].settings().clone(), pipes[1].settings().clone()])
    }

    /// From now on every frame of this direction vanishes, those under way included, and no host is told.
    pub fn blackhole(&self, direction: Direction) {
        self.set_direction(direction, |settings| settings.blackhole = true);
    }

    /// Ends a blackhole, whichever direction it was in.
    pub fn heal(&self) {
        self.set(|settings| settings.blackhole = false);
    }

    /// What became of the frames so far. IPv6 and the hosts' multicast memberships send a few frames of their own.
    pub fn counters(&self) -> Counters {
        self.inner.relay.counted(|pipes| Counters { a_to_b: pipes[0].counters, b_to_a: pipes[1].counters })
    }

    /// Takes a host's interface down, as `ip link set down` does: it and its routes are gone, sending fails at once
    /// (`ENETUNREACH`), and the other host notices nothing.
    pub fn carrier_down(&self, host: &Host) -> Result<(), LabError> {
        let end = self.end(host)?;
        let mut state = end.state();
        end.request(interface::set_down(end.index), 0).map_err(end.refused(&"take the link down"))?;
        state.down = true;
        Ok(())
    }

    /// Brings a host's interface up again with all addresses and routes that it shall have, and returns when it is ready.
    pub fn carrier_up(&self, host: &Host) -> Result<(), LabError> {
        let end = self.end(host)?;
        let mut state = end.state();
        end.request(interface::set_up(end.index), 0).map_err(end.refused(&"bring the link up"))?;
        self.await_both_ends(end)?;
        state.down = false;
        for net in &state.addresses {
            let request = address::add(end.index, *net);
            end.request(request, libc::EEXIST)
                .map_err(end.refused(&format_args!("restore address {net}")))?;
            await_local(end.host.namespace(), *net)?;
        }
        for neighbour in &state.neighbours {
            self.tell_neighbour(end, *neighbour)?;
        }
        for (net, gateway) in &state.routes {
            let request = address::add_route(end.index, *net, *gateway);
            end.request(request, 0).map_err(end.refused(&format_args!("restore the route to {net}")))?;
        }
        Ok(())
    }

    /// Pulls the plug of a host's interface: it stays up and keeps its addresses and routes, but has no carrier until
    /// [`Link::plug`]. Nothing passes meanwhile, and the other host notices nothing.
    pub fn unplug(&self, host: &Host) -> Result<(), LabError> {
        let end = self.end(host)?;
        let request = interface::set_down(end.relay_index);
        self.inner.middle.netlink.request(request).map_err(end.refused(&"pull the plug"))?;
        Ok(())
    }

    /// Puts the plug back, and returns when the carrier is there.
    pub fn plug(&self, host: &Host) -> Result<(), LabError> {
        let end = self.end(host)?;
        let request = interface::set_up(end.relay_index);
        self.inner.middle.netlink.request(request).map_err(end.refused(&"put the plug back"))?;
        if end.state().down {
            return Ok(());
        }
        self.await_both_ends(end)
    }

    /// Gives a host one more address, usable when this returns (or, while its interface is down, once that is up).
    pub fn add_address(&self, host: &Host, net: IpNet) -> Result<(), LabError> {
        let end = self.end(host)?;
        {
            let mut state = end.state();
            if state.addresses.contains(&net) {
                let message =
                    format!("host {} has address {net} on link {} already", host.name(), self.name());
                return Err(LabError::Misuse(message));
            }
            if !state.down {
                let refused = end.refused(&format_args!("add address {net}"));
                end.request(address::add(end.index, net), 0).map_err(refused)?;
                await_local(end.host.namespace(), net)?;
            }
            state.addresses.push(net);
        }
        let peer = self.peer_of(end);
        let mut state = peer.state();
        state.neighbours.push(net.address());
        if !state.down {
            self.tell_neighbour(peer, net.address())?;
        }
        Ok(())
    }

    /// Takes an address from a host while it runs; [`LabError::Misuse`] if it has not got it.
    pub fn remove_address(&self, host: &Host, net: IpNet) -> Result<(), LabError> {
        let end = self.end(host)?;
        {
            let mut state = end.state();
            let Some(place) = state.addresses.iter().position(|known| *known == net) else {
                let message = format!("host {} has no address {net} on link {}", host.name(), self.name());
                return Err(LabError::Misuse(message));
            };
            let refused = end.refused(&format_args!("remove address {net}"));
            end.request(address::remove(end.index, net), libc::EADDRNOTAVAIL).map_err(refused)?;
            state.addresses.remove(place);
        }
        let peer = self.peer_of(end);
        let mut state = peer.state();
        state.neighbours.retain(|neighbour| *neighbour != net.address());
        let refused = peer.refused(&format_args!("forget neighbour {}", net.address()));
        peer.request(address::remove_neighbour(peer.index, net.address()), libc::ENOENT).map_err(refused)
    }

    /// Sends what a host has for a network (given with its first address, such as `10.9.0.0/16`) over this link to a
    /// gateway, an address of the other host. It comes back with [`Link::carrier_up`].
    pub fn add_route(&self, host: &Host, net: IpNet, gateway: IpAddr) -> Result<(), LabError> {
        let end = self.end(host)?;
        let mut state = end.state();
        if !state.down {
            let refused = end.refused(&format_args!("add a route to {net} through {gateway}"));
            end.request(address::add_route(end.index, net, gateway), 0).map_err(refused)?;
        }
        state.routes.push((net, gateway));
        Ok(())
    }

    /// Removes the link for good, as when an adapter is pulled out: the relay ends and both interfaces vanish. Doing it
    /// twice is no error.
    pub fn remove(&self) -> Result<(), LabError> {
        self.inner.relay.stop();
        for end in &self.inner.ends {
            let result = self.inner.middle.netlink.request(interface::delete(end.relay_index));
            tolerate(result, libc::ENODEV).map_err(end.refused(&"remove the link"))?;
        }
        Ok(())
    }

    fn await_both_ends(&self, end: &End) -> Result<(), LabError> {
        let of_relay = format!("{} of the relay", end.interface);
        await_ready(&self.inner.middle, end.relay_index, &of_relay)?;
        await_ready(end.host.namespace(), end.index, &end.interface)
    }

    fn tell_neighbour(&self, end: &End, neighbour: IpAddr) -> Result<(), LabError> {
        let hardware_address = self.peer_of(end).hardware_address;
        let request = address::add_neighbour(end.index, neighbour, hardware_address);
        end.request(request, 0).map_err(end.refused(&format_args!("add neighbour {neighbour}")))
    }

    fn end(&self, host: &Host) -> Result<&End, LabError> {
        self.inner.ends.iter().find(|end| end.host.is(host)).ok_or_else(|| {
            let [a, b] = self.hosts();
            LabError::Misuse(format!(
                "host {} is no end of link {}: give {} or {}",
                host.name(),
                self.name(),
                a.name(),
                b.name()
            ))
        })
    }

    fn known_end(&self, host: &Host) -> &End {
        self.end(host).unwrap_or_else(|misuse| panic!("{misuse}"))
    }

    fn peer_of(&self, end: &End) -> &End {
        let [a, b] = &self.inner.ends;
        if std::ptr::eq(a, end) { b } else { a }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.hosts();
        f.debug_struct("Link").field("name", &self.name()).field("a", a).field("b", b).finish_non_exhaustive()
    }
}
