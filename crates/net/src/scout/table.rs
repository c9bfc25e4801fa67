//! The kernel's interfaces and addresses as netlink tells them.

use crate::netlink::{Message, attributes, number16, number32, text};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use steadfast_wire::Address;

// rtnetlink(7).
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_WIRELESS: u16 = 11;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;

const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 1 << 6;
const IFF_LOWER_UP: u32 = 1 << 16;

const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;

const RT_TABLE_LOCAL: u8 = 255;
const RTN_UNICAST: u8 = 1;
const RTM_F_CLONED: u32 = 0x200;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// `ARPHRD_*`.
    pub(super) layer: u16,
    pub(super) flags: u32,
    /// What made it, such as `veth`; none for hardware.
    pub(super) kind: Option<String>,
    /// The interface below it, in this namespace.
    pub(super) lower: Option<u32>,
    /// The bond or bridge that it is a member of.
    pub(super) master: Option<u32>,
    pub(super) hardware: Vec<u8>,
}

impl Link {
    /// Whether packets can leave: it is up, has its carrier and is not waiting for its own set-up.
    pub(super) fn is_usable(&self) -> bool {
        let needed = IFF_UP | IFF_RUNNING | IFF_LOWER_UP;
        self.flags & needed == needed
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    address: Address,
    flags: u32,
}

/// What a message changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    Networks,
    Routes,
}

/// All interfaces with their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Table {
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<u32, Vec<Entry>>,
}

impl Table {
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    pub(super) fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The first member of a bond or bridge.
    pub(super) fn first_member(&self, master: u32) -> Option<&Link> {
        self.links.values().find(|link| link.master == Some(master))
    }

    /// The addresses of an interface that can be used now; link-local ones only if there are no others.
    pub(super) fn usable_addresses(&self, index: u32) -> Vec<Address> {
        let entries = self.addresses.get(&index).map(Vec::as_slice).unwrap_or_default();
        let usable: Vec<_> =
            entries.iter().filter(|entry| entry.is_usable()).map(|entry| entry.address).collect();
        let routable: Vec<_> = usable.iter().filter(|address| !is_link_local(address.ip)).copied().collect();
        if routable.is_empty() { usable } else { routable }
    }

    /// Takes in a message. What cannot be read, or is about something else, changes nothing.
    pub(super) fn apply(&mut self, message: &Message<'_>) -> Change {
        let changed = match message.kind {
            RTM_NEWLINK => self.new_link(message.body),
            RTM_DELLINK => self.delete_link(message.body),
            RTM_NEWADDR => self.address(message.body, true),
            RTM_DELADDR => self.address(message.body, false),
            RTM_NEWROUTE | RTM_DELROUTE => return route_change(message.body),
            _ => None,
        };
        if changed == Some(true) { Change::Networks } else { Change::Nothing }
    }

    fn new_link(&mut self, body: &[u8]) -> Option<bool> {
        // Other families than "unspecified" tell of an interface's part in a bridge, with the same message.
        if *body.first()? != 0 {
            return None;
        }
        let index = number32(body, 4)?;
        let mut link =
            Link { index, layer: number16(body, 2)?, flags: number32(body, 8)?, ..Link::default() };
        let mut elsewhere = false;
        for (kind, value) in attributes(body.get(16..)?) {
            match kind {
                // An event of an old wireless driver; the link itself is told in a message of its own.
                IFLA_WIRELESS => return None,
                IFLA_IFNAME => link.name = text(value),
                IFLA_ADDRESS => link.hardware = value.to_vec(),
                IFLA_LINK => link.lower = number32(value, 0).filter(|lower| *lower != index && *lower != 0),
                IFLA_LINK_NETNSID => elsewhere = true,
                IFLA_MASTER => link.master = number32(value, 0),
                IFLA_LINKINFO => {
                    let name = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                    link.kind = name.map(|(_, name)| text(name));
                }
                _ => {}
            }
        }
        if elsewhere {
            // The number means an interface of another namespace, and here perhaps a different one.
            link.lower = None;
        }
        if link.name.is_empty() {
            return None;
        }
        let before = self.links.insert(index, link);
        Some(before.as_ref() != self.links.get(&index))
    }

    fn delete_link(&mut self, body: &[u8]) -> Option<bool> {
        if *body.first()? != 0 {
            return None;
        }
        let index = number32(body, 4)?;
        // The kernel tells of lost addresses too, but perhaps later.
        self.addresses.remove(&index);
        Some(self.links.remove(&index).is_some())
    }

    fn address(&mut self, body: &[u8], present: bool) -> Option<bool> {
        let prefix = *body.get(1)?;
        let index = number32(body, 4)?;
        let (mut local, mut address, mut flags) = (None, None, u32::from(*body.get(2)?));
        for (kind, value) in attributes(body.get(8..)?) {
            match kind {
                IFA_LOCAL => local = ip_of(value),
                IFA_ADDRESS => address = ip_of(value),
                // The same flags in full width.
                IFA_FLAGS => flags = number32(value, 0).unwrap_or(flags),
                _ => {}
            }
        }
        // Between two points IFA_ADDRESS is the other end.
        let address = Address { ip: local.or(address)?, prefix };
        let entries = self.addresses.entry(index).or_default();
        let known = entries.iter().position(|entry| entry.address == address);
        let changed = match (present, known) {
            (true, Some(at)) => std::mem::replace(&mut entries[at].flags, flags) != flags,
            (true, None) => {
                entries.push(Entry { address, flags });
                true
            }
            (false, Some(at)) => {
                entries.remove(at);
                true
            }
            (false, None) => false,
        };
        if entries.is_empty() {
            self.addresses.remove(&index);
        }
        Some(changed)
    }
}

impl Entry {
    fn is_usable(&self) -> bool {
        let has = |flag| self.flags & flag != 0;
        match self.address.ip {
            IpAddr::V4(_) => true,
            // An optimistic address may be used while it is tested (RFC 4429).
            IpAddr::V6(_) => {
                !has(IFA_F_DADFAILED | IFA_F_DEPRECATED) && (!has(IFA_F_TENTATIVE) || has(IFA_F_OPTIMISTIC))
            }
        }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn ip_of(value: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::from(v4));
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into())
}

/// Only routes to somewhere else matter; the kernel adds local ones with each address.
fn route_change(body: &[u8]) -> Change {
    let (table, kind) = (body.get(4), body.get(7));
    let cloned = number32(body, 8).is_none_or(|flags| flags & RTM_F_CLONED != 0);
    if table == Some(&RT_TABLE_LOCAL) || kind != Some(&RTN_UNICAST) || cloned {
        return Change::Nothing;
    }
    Change::Routes
}

#[cfg(test)]
mod tests;
