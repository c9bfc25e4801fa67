//! Targets, and which of them are allowed.

use std::fmt;
use std::str::FromStr;

/// The longest name of a host, in bytes (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 255;

/// Where a connection is to go: `HOST:PORT`, as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    host: String,
    port: u16,
}

/// What is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no target: write HOST:PORT, as in localhost:22 or [::1]:80")]
pub struct BadTarget {
    text: String,
}

impl Target {
    /// The host's name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// The two parts of `HOST:PORT`; an address of IPv6 stands in brackets.
fn split(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|host| host.contains(':'))?,
        None => Some(host).filter(|host| !host.contains([':', ']']))?,
    };
    let letter = |byte: u8| byte.is_ascii_graphic() && !b",=/[]".contains(&byte);
    let fits = !host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(letter);
    fits.then_some((host, port))
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget { text: text.chars().take(300).collect() };
        let (host, port) = split(text).filter(|(host, _)| !host.contains('*')).ok_or_else(bad)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The targets that a server connects to; empty at first.
///
/// A host is compared as it is written, without regard to case: `localhost` is not `127.0.0.1`.
#[derive(Debug, Clone, Default)]
pub struct AllowList {
    rules: Vec<(Option<String>, Option<u16>)>,
}

impl AllowList {
    /// Allows a target, `HOST:PORT`, in which `*` stands for every host or every port.
    pub fn allow(&mut self, text: &str) -> Result<(), BadTarget> {
        let bad = || BadTarget { text: text.chars().take(300).collect() };
        let (host, port) =
            split(text).filter(|(host, _)| *host == "*" || !host.contains('*')).ok_or_else(bad)?;
        let host = (host != "*").then(|| host.to_ascii_lowercase());
        let port = match port {
            "*" => None,
            port => Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?),
        };
        self.rules.push((host, port));
        Ok(())
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether it has this target.
    pub fn allows(&self, target: &Target) -> bool {
        self.rules.iter().any(|(host, port)| {
            host.as_ref().is_none_or(|host| *host == target.host)
                && port.is_none_or(|port| port == target.port)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        for (text, shown) in
            [("localhost:22", "localhost:22"), ("[::1]:80", "[::1]:80"), ("Boat.Local:443", "boat.local:443")]
        {
            assert_eq!(text.parse::<Target>().map(|target| target.to_string()), Ok(shown.into()));
        }
        for text in [
            "", "x", ":22", "x:", "x:0", "x:65536", "::1:22", "[x]:22", "a b:1", "*:22", "x:*", "a/b:1",
            "[::1:1",
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{text}: {error}");
        }
        assert!(format!("{}:1", "x".repeat(256)).parse::<Target>().is_err());
    }

    #[test]
    fn only_what_is_listed_is_allowed() {
        let mut list = AllowList::default();
        let allows = |list: &AllowList, text: &str| list.allows(&text.parse().unwrap());
        assert!(list.is_empty() && !allows(&list, "localhost:22"));
        list.allow("localhost:22").unwrap();
        list.allow("Web:*").unwrap();
        list.allow("*:8080").unwrap();
        for (text, allowed) in [
            ("localhost:22", true),
            ("LocalHost:22", true),
            ("localhost:23", false),
            ("127.0.0.1:22", false),
            ("xlocalhost:22", false),
            ("web:1", true),
            ("anything:8080", true),
            ("[fd00::1]:8080", true),
            ("anything:8081", false),
        ] {
            assert_eq!(allows(&list, text), allowed, "{text}");
        }
        for text in ["*", "*:0", "loc*:22", "22", "a:b"] {
            assert!(list.allow(text).is_err(), "{text}");
        }
    }
}
