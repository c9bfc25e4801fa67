//! A host's networks, as the other side is told of them.

use crate::frame::DecodeError;
use crate::id::NetworkId;
use crate::varint::{self, Reader};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::BufMut;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most bytes in a network's name.
pub const MAX_NAME: usize = 64;
/// The most addresses of one network that a peer is told.
pub const MAX_ADDRESSES: usize = 8;
/// The most networks in one list.
pub const MAX_NETWORKS: usize = 16;

/// What kind of link a network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum NetworkClass {
    /// None of those below, or not known.
    Other = 0,
    /// A cable.
    Ethernet = 1,
    /// IEEE 802.11.
    Wifi = 2,
    /// A mobile network.
    Cellular = 3,
    /// A satellite link; only configuration can say so.
    Satellite = 4,
    /// This host itself.
    Loopback = 5,
    /// Bridges, tunnels, virtual Ethernet pairs.
    Virtual = 6,
}

impl NetworkClass {
    /// All classes with the names that people write.
    pub const NAMES: [(Self, &'static str); 7] = [
        (Self::Other, "other"),
        (Self::Ethernet, "ethernet"),
        (Self::Wifi, "wifi"),
        (Self::Cellular, "cellular"),
        (Self::Satellite, "satellite"),
        (Self::Loopback, "loopback"),
        (Self::Virtual, "virtual"),
    ];

    /// The class of a number on the wire; a number of a later version is [`NetworkClass::Other`].
    #[must_use]
    pub fn from_byte(byte: u8) -> Self {
        Self::NAMES.iter().map(|(class, _)| *class).find(|class| *class as u8 == byte).unwrap_or(Self::Other)
    }

    /// The name that people write.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(class, _)| *class == self).map_or("other", |(_, name)| name)
    }

    /// The class of a name; `None` if there is no such class.
    ///
    /// ```
    /// use steadfast_wire::NetworkClass;
    /// assert_eq!(NetworkClass::from_name("wifi"), Some(NetworkClass::Wifi));
    /// ```
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(class, _)| *class)
    }
}

/// An address of a network and the length of its prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// How many leading bits name the subnet (0 to 32 or 128).
    pub prefix: u8,
}

impl Address {
    /// Whether `other` lies in the subnet of this address.
    #[must_use]
    pub fn same_subnet(&self, other: IpAddr) -> bool {
        let high = |bits: u128, width: u32| {
            bits.checked_shr(width.saturating_sub(u32::from(self.prefix))).unwrap_or(0)
        };
        match (self.ip, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => high(u32::from(a).into(), 32) == high(u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => high(a.into(), 128) == high(b.into(), 128),
            _ => false,
        }
    }
}

/// A local interface with its class, cost and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its number on the host that has it.
    pub id: NetworkId,
    /// The interface's or the configured name; at most [`MAX_NAME`] bytes.
    pub name: String,
    /// What kind of link it is.
    pub class: NetworkClass,
    /// Whether it costs by volume.
    pub metered: bool,
    /// A configured cost; 0 unless set. Of two paths that would complete alike the cheaper is taken.
    pub cost: u8,
    /// The port on which its host listens for Steadfast there; 0 if it does not.
    pub port: u16,
    /// Its addresses; at most [`MAX_ADDRESSES`] are told to a peer.
    pub addresses: Vec<Address>,
}

impl Network {
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        varint::put(out, self.id.0.into());
        varint::put_bytes(out, truncate(&self.name).as_bytes());
        out.put_u8(self.class as u8);
        out.put_u8(u8::from(self.metered));
        out.put_u8(self.cost);
        out.put_u16(self.port);
        varint::put(out, self.addresses.len().min(MAX_ADDRESSES) as u64);
        for address in self.addresses.iter().take(MAX_ADDRESSES) {
            out.put_u8(address.prefix);
            match address.ip {
                IpAddr::V4(ip) => varint::put_bytes(out, &ip.octets()),
                IpAddr::V6(ip) => varint::put_bytes(out, &ip.octets()),
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let id = NetworkId(reader.bounded(u32::MAX.into())? as u32);
        let name = decode_name(reader)?;
        let class = NetworkClass::from_byte(reader.byte()?);
        let metered = reader.byte()? != 0;
        let cost = reader.byte()?;
        let port = u16::from_be_bytes(reader.array()?);
        let mut addresses = Vec::new();
        for _ in 0..reader.bounded(MAX_ADDRESSES as u64)? {
            let prefix = reader.byte()?;
            let octets = reader.bytes(64)?;
            // An address of an unknown kind carries its length and is left out: later kinds do not break us.
            let ip = if let Ok(v4) = <[u8; 4]>::try_from(&octets[..]) {
                IpAddr::V4(Ipv4Addr::from(v4))
            } else if let Ok(v6) = <[u8; 16]>::try_from(&octets[..]) {
                IpAddr::V6(Ipv6Addr::from(v6))
            } else {
                continue;
            };
            addresses.push(Address { ip, prefix });
        }
        Ok(Self { id, name, class, metered, cost, port, addresses })
    }
}

fn truncate(name: &str) -> &str {
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

pub(crate) fn decode_name(reader: &mut Reader) -> Result<String, DecodeError> {
    let bytes = reader.bytes(MAX_NAME)?;
    let text = core::str::from_utf8(&bytes).map_err(|_| DecodeError::Malformed("a name is not UTF-8"))?;
    Ok(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets() {
        let address = Address { ip: "10.1.2.3".parse().unwrap(), prefix: 24 };
        assert!(address.same_subnet("10.1.2.200".parse().unwrap()));
        assert!(!address.same_subnet("10.1.3.3".parse().unwrap()));
        assert!(!address.same_subnet("fd00::1".parse().unwrap()));
        let everything = Address { ip: "::1".parse().unwrap(), prefix: 0 };
        assert!(everything.same_subnet("fd00::1".parse().unwrap()));
        let nonsense = Address { ip: "::1".parse().unwrap(), prefix: 255 };
        assert!(nonsense.same_subnet("::1".parse().unwrap()));
    }
}
