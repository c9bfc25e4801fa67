//! What the configuration says of events between two hosts.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use steadfast::DEFAULT_PORT;
use steadfast_backplane::{EventSpace, Rule, Rules, Who};

/// Where daemons listen: beside [`DEFAULT_PORT`], where programs do. Not assigned by IANA, as far as we know.
pub const EXCHANGE_PORT: u16 = 7465;
/// The most hosts.
const MAX_HOSTS: usize = 256;

/// The section `[daemon.exchange]`. Without hosts nothing is listened on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ExchangeSettings {
    /// With whom: names of `[hosts]`, `KEY@ADDRESS,ADDRESS`, or the name of a trusted peer. Each has to name this host as well.
    /// Where an address has no port, it is 7465. None.
    pub hosts: Hosts,
    /// The TCP port to listen on; 0 is any that is free. 7465.
    pub port: Port,
    /// Addresses of this host to listen on. All.
    pub addresses: Vec<IpAddr>,
    /// Event spaces whose events go to these hosts; each part may be `all`. `["all.all.all"]`.
    pub out: Spaces,
    /// Event spaces whose events are taken from them. `["all.all.all"]`.
    #[serde(rename = "in")]
    pub incoming: Spaces,
}

/// Other hosts, as they were written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hosts(pub Vec<String>);

/// A port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port(pub u16);

/// Event spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spaces(Vec<EventSpace>);

impl Default for Port {
    fn default() -> Self {
        Self(EXCHANGE_PORT)
    }
}

impl Default for Spaces {
    fn default() -> Self {
        Self(EventSpace::new("all.all.all").into_iter().collect())
    }
}

impl Spaces {
    /// Whether an event space is among them.
    pub(super) fn filter(&self) -> impl Fn(&EventSpace) -> bool + Send + Sync + use<> {
        let rule = |spaces: &EventSpace, publish| Rule {
            spaces: *spaces,
            who: Who::Anyone,
            publish: Some(publish),
            subscribe: None,
        };
        let all = Self::default();
        let others = all.0.iter().map(|space| rule(space, false));
        let rules = Rules(self.0.iter().map(|space| rule(space, true)).chain(others).collect());
        move |space| rules.may_publish(space, Who::Anyone)
    }
}

impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hosts = Vec::deserialize(deserializer)?;
        if hosts.len() > MAX_HOSTS {
            return Err(D::Error::custom(format!(
                "events are exchanged with {MAX_HOSTS} hosts at most, not {}; a server of NATS brings them to more",
                hosts.len()
            )));
        }
        Ok(Self(hosts))
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let port = u16::deserialize(deserializer)?;
        if port == DEFAULT_PORT {
            return Err(D::Error::custom(format!(
                "{DEFAULT_PORT} is where programs like `steadfast receive` listen; choose another, or leave it at {EXCHANGE_PORT}"
            )));
        }
        Ok(Self(port))
    }
}

impl<'de> Deserialize<'de> for Spaces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let parse =
            |text: &String| EventSpace::new(text).map_err(|error| D::Error::custom(error.to_string()));
        Ok(Self(texts.iter().map(parse).collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let space = |text| EventSpace::new(text).unwrap();
        assert!(Spaces::default().filter()(&space("a.b.c")));
        let some = Spaces(vec![space("FTB.all.all"), space("a.b.c")]).filter();
        let fit = ["ftb.x.y", "A.b.c", "a.b.d"].map(|text| some(&space(text)));
        assert_eq!(fit, [true, true, false]);
        assert!(!Spaces(Vec::new()).filter()(&space("a.b.c")));
    }
}
