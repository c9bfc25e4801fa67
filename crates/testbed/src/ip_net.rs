//! An address with its prefix length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use crate::LabError;

/// An IP address with the length of its network prefix in bits, such as `10.1.0.1/24` or `fd00:1::1/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpNet {
    address: IpAddr,
    prefix: u8,
}

impl IpNet {
    /// Joins an address and a prefix length in bits; [`LabError::Misuse`] above 32 for IPv4 or 128 for IPv6.
    pub fn new(address: impl Into<IpAddr>, prefix: u8) -> Result<Self, LabError> {
        let address = address.into();
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest {
            let message =
                format!("{address}/{prefix} is no network: give a prefix length of at most {longest}");
            return Err(LabError::Misuse(message));
        }
        Ok(Self { address, prefix })
    }

    /// The address, host bits included.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The length of the network prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The directed broadcast address, which IPv4 networks of more than two addresses have.
    pub(crate) fn broadcast(&self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(address) if self.prefix < 31 => {
                Some(Ipv4Addr::from_bits(address.to_bits() | (u32::MAX >> self.prefix)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for IpNet {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        let misuse =
            || LabError::Misuse(format!("{text:?} is no network: write it like 10.1.0.1/24 or fd00:1::1/64"));
        let (address, prefix) = text.split_once('/').ok_or_else(misuse)?;
        let address: IpAddr = address.parse().map_err(|_| misuse())?;
        Self::new(address, prefix.parse().map_err(|_| misuse())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in ["10.1.0.1/24", "fd00:1::1/64", "0.0.0.0/0", "::/0"] {
            assert_eq!(text.parse::<IpNet>().unwrap().to_string(), text);
        }
        for text in ["10.1.0.1", "10.1.0.1/33", "fd00::1/129", "x/1", "10.1.0.1/"] {
            assert!(text.parse::<IpNet>().is_err(), "{text}");
        }
    }

    #[test]
    fn broadcast_is_the_last_address() {
        let broadcast = |text: &str| text.parse::<IpNet>().unwrap().broadcast();
        assert_eq!(broadcast("10.1.0.1/24"), Some(Ipv4Addr::new(10, 1, 0, 255)));
        assert_eq!(broadcast("10.1.0.1/31"), None);
        assert_eq!(broadcast("fd00::1/64"), None);
    }
}
