//! What people type to name a peer.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;
use std::time::Duration;
use steadfast_wire::{Fingerprint, id::FingerprintError};

/// The port that is meant where none is named, for TCP and UDP.
///
/// Chosen once from the user ports (1024 to 49151, RFC 6335) and, as far as we know, not assigned by IANA.
pub const DEFAULT_PORT: u16 = 7463;
/// The most addresses that one target may have.
pub const MAX_TARGET_ADDRESSES: usize = 16;
/// The most letters of a host name (RFC 1035, 2.3.4).
const MAX_HOST: usize = 253;

/// A peer to connect to: `KEY@ADDRESS,ADDRESS` or one `ADDRESS`.
///
/// An address is `HOST`, `HOST:PORT`, `[V6]:PORT` or a bare IPv6 address; a link-local one names its interface, as in
/// `fe80::1%eth0`.
///
/// ```
/// use steadfast_net::{DEFAULT_PORT, Target};
/// let target: Target = "boat.example,[fd00::1]:9000".parse().unwrap();
/// assert_eq!(target.fingerprint, None);
/// assert_eq!(target.addresses[0].port, DEFAULT_PORT);
/// assert_eq!(target.addresses[1].to_string(), "[fd00::1]:9000");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The key that the peer must have; `None` if the trusted peers decide.
    pub fingerprint: Option<Fingerprint>,
    /// Where it may be found, at least one.
    pub addresses: Vec<HostPort>,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

/// A host as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Host {
    /// A name to look up.
    Name(String),
    /// An address.
    Ip(IpAddr),
    /// An IPv6 address on one interface, by name or number.
    Scoped(Ipv6Addr, String),
}

/// Why a text names no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read `{text}` as {what}: {fault}")]
pub struct AddressError {
    text: String,
    what: &'static str,
    fault: Fault,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("nothing stands there; write HOST, HOST:PORT, [IPV6]:PORT or KEY@ADDRESS,ADDRESS")]
    Empty,
    #[error(transparent)]
    Key(#[from] FingerprintError),
    #[error("`{0}` is no port; a port is a number from 1 to 65535")]
    Port(String),
    #[error("`[` needs an IPv6 address and a `]`, as in [fd00::1]:{DEFAULT_PORT}")]
    Bracket,
    #[error("a host is a name of letters, digits, `-`, `_` and `.`, an IPv4 address or an IPv6 address")]
    Host,
    #[error("`%` and an interface belong behind an IPv6 address, as in fe80::1%eth0")]
    Scope,
    #[error("{0} addresses are too many, at most {MAX_TARGET_ADDRESSES} are tried; leave some out")]
    TooMany(usize),
}

/// No address of a target could be found.
#[derive(Debug, thiserror::Error)]
#[error("cannot find an address of {target}: {source}; check the name, or write an IP address")]
pub struct ResolveError {
    target: String,
    source: io::Error,
}

impl FromStr for Target {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let failed = |fault| AddressError { text: text.into(), what: "a peer", fault };
        let (fingerprint, list) = match text.split_once('@') {
            Some((key, list)) => (Some(key.trim().parse().map_err(|fault| failed(Fault::Key(fault)))?), list),
            None => (None, text),
        };
        let count = list.split(',').count();
        if count > MAX_TARGET_ADDRESSES {
            return Err(failed(Fault::TooMany(count)));
        }
        let addresses = list.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>()?;
        Ok(Self { fingerprint, addresses })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fingerprint) = self.fingerprint {
            write!(f, "{fingerprint}@")?;
        }
        for (index, address) in self.addresses.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{address}")?;
        }
        Ok(())
    }
}

impl Target {
    /// The socket addresses of all its hosts, each once, in the order of the text.
    ///
    /// Hosts that cannot be found within `limit` are left out; fails if none is left, with the first reason. Cancel safe.
    pub async fn resolve(&self, limit: Duration) -> Result<Vec<SocketAddr>, ResolveError> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut found = Vec::new();
        let mut first_error = None;
        for address in &self.addresses {
            match tokio::time::timeout_at(deadline, address.resolve()).await {
                Ok(Ok(addresses)) => found.extend(addresses),
                Ok(Err(error)) => first_error = first_error.or(Some(error)),
                Err(_) => first_error = first_error.or(Some(io::ErrorKind::TimedOut.into())),
            }
        }
        let mut seen = std::collections::HashSet::new();
        found.retain(|address| seen.insert(*address));
        if found.is_empty() {
            let source = first_error.unwrap_or_else(|| io::ErrorKind::NotFound.into());
            return Err(ResolveError { target: self.to_string(), source });
        }
        Ok(found)
    }
}

impl HostPort {
    /// The socket addresses of the host; an IP address is returned without a look-up. Cancel safe.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, self.port)]),
            Host::Scoped(ip, interface) => {
                let scope = interface_index(interface)?;
                Ok(vec![SocketAddrV6::new(*ip, self.port, 0, scope).into()])
            }
            Host::Name(name) => {
                let found: Vec<_> = tokio::net::lookup_host((name.as_str(), self.port)).await?.collect();
                if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
            }
        }
    }
}

/// The number of an interface by name, or the number itself.
pub(crate) fn interface_index(interface: &str) -> io::Result<u32> {
    if let Ok(index) = interface.parse() {
        return Ok(index);
    }
    // Interface numbers are asked through a socket, any socket.
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, interface)?)
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let failed = |fault| AddressError { text: text.into(), what: "an address", fault };
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
            _ => Err(failed(Fault::Port(text.into()))),
        };
        if text.is_empty() {
            return Err(failed(Fault::Empty));
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']').ok_or_else(|| failed(Fault::Bracket))?;
            let host = parse_v6(inside).map_err(failed)?.ok_or_else(|| failed(Fault::Bracket))?;
            return match (after, after.strip_prefix(':')) {
                ("", _) => Ok(Self { host, port: DEFAULT_PORT }),
                (_, Some(number)) => Ok(Self { host, port: port(number)? }),
                _ => Err(failed(Fault::Bracket)),
            };
        }
        if let Some(host) = parse_v6(text).map_err(failed)? {
            return Ok(Self { host, port: DEFAULT_PORT });
        }
        let (host, number) = match text.split_once(':') {
            Some((host, number)) => (host, port(number)?),
            None => (text, DEFAULT_PORT),
        };
        Ok(Self { host: parse_host(host).map_err(failed)?, port: number })
    }
}

/// An IPv6 address with or without an interface; `None` if the text is not one.
fn parse_v6(text: &str) -> Result<Option<Host>, Fault> {
    let (address, interface) = match text.split_once('%') {
        Some((address, interface)) => (address, Some(interface)),
        None => (text, None),
    };
    match (address.parse::<Ipv6Addr>(), interface) {
        (Ok(ip), None) => Ok(Some(Host::Ip(ip.into()))),
        (Ok(ip), Some(interface)) if !interface.is_empty() => Ok(Some(Host::Scoped(ip, interface.into()))),
        (Ok(_) | Err(_), Some(_)) => Err(Fault::Scope),
        (Err(_), None) => Ok(None),
    }
}

fn parse_host(text: &str) -> Result<Host, Fault> {
    if let Ok(ip) = text.parse() {
        return Ok(Host::Ip(ip));
    }
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    // A resolver may read `10.1` as 10.0.0.1 and `300.1.1.1` as a name: neither was meant.
    if text.is_empty() || text.len() > MAX_HOST || numeric || !text.bytes().all(letter) {
        return Err(Fault::Host);
    }
    Ok(Host::Name(text.into()))
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Ip(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
            Host::Scoped(ip, interface) => write!(f, "[{ip}%{interface}]:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let name = |text: &str| Host::Name(text.into());
        let ip = |text: &str| Host::Ip(text.parse().unwrap());
        for (text, host, port) in [
            ("boat", name("boat"), DEFAULT_PORT),
            ("boat.example:80", name("boat.example"), 80),
            ("10.0.0.1", ip("10.0.0.1"), DEFAULT_PORT),
            ("10.0.0.1:9", ip("10.0.0.1"), 9),
            ("::1", ip("::1"), DEFAULT_PORT),
            ("[::1]", ip("::1"), DEFAULT_PORT),
            ("[fd00::1]:9000", ip("fd00::1"), 9000),
            ("fe80::1%eth0", Host::Scoped("fe80::1".parse().unwrap(), "eth0".into()), DEFAULT_PORT),
            ("[fe80::1%2]:7", Host::Scoped("fe80::1".parse().unwrap(), "2".into()), 7),
        ] {
            let parsed: HostPort = text.parse().unwrap();
            assert_eq!(parsed, HostPort { host, port }, "{text}");
            assert_eq!(parsed.to_string().parse::<HostPort>().unwrap(), parsed, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, part) in [
            ("", "nothing"),
            ("boat:", "no port"),
            ("boat:0", "no port"),
            ("boat:+5", "no port"),
            ("boat:65536", "no port"),
            ("[::1", "`]`"),
            ("[10.0.0.1]:5", "`]`"),
            ("[::1]x", "`]`"),
            ("a b", "a host is"),
            ("300.1.1.1", "a host is"),
            ("10.1", "a host is"),
            ("boat%eth0", "`%`"),
            ("fe80::1%", "`%`"),
        ] {
            let error = text.parse::<HostPort>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn targets() {
        let key = Fingerprint([9; 32]);
        let text = format!("{key}@10.0.0.1,[fd00::1]:80,boat:1");
        let target: Target = text.parse().unwrap();
        assert_eq!(target.fingerprint, Some(key));
        assert_eq!(target.addresses.len(), 3);
        assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        assert!("short@host".parse::<Target>().unwrap_err().to_string().contains("52"));
        assert!(format!("{key}@").parse::<Target>().is_err());
        let many = vec!["a"; MAX_TARGET_ADDRESSES + 1].join(",");
        assert!(many.parse::<Target>().unwrap_err().to_string().contains("too many"));
    }

    #[tokio::test]
    async fn resolving() {
        let target: Target = "127.0.0.1:5,[::1]:6,127.0.0.1:5,fe80::1%lo".parse().unwrap();
        let found = target.resolve(Duration::from_secs(60)).await.unwrap();
        assert_eq!(found.len(), 3, "{found:?}");
        let SocketAddr::V6(scoped) = found[2] else { panic!("{found:?}") };
        assert_ne!(scoped.scope_id(), 0);
        let error = "fe80::1%nosuchdevice"
            .parse::<Target>()
            .unwrap()
            .resolve(Duration::from_secs(60))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("nosuchdevice"), "{error}");
    }
}
