//! What the configuration says about networks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use steadfast_wire::{Network, NetworkClass, NetworkId};

/// How to watch, and what to make of what is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoutConfig {
    /// What is said of interfaces; each that matches applies, a later one over an earlier one.
    pub overrides: Vec<Override>,
    /// The port on which this host listens, for [`Network::port`]; 0 if it does not (0).
    pub port: u16,
    /// The program that asks `NetworkManager` which networks are metered; `None` asks nobody (`nmcli`).
    pub nmcli: Option<PathBuf>,
    /// How long it may take (1 s).
    pub nmcli_limit: Duration,
    /// Where the kernel shows what netlink does not tell (`/sys/class/net`).
    pub sysfs: PathBuf,
}

impl Default for ScoutConfig {
    fn default() -> Self {
        Self {
            overrides: Vec::new(),
            port: 0,
            nmcli: Some("nmcli".into()),
            nmcli_limit: Duration::from_secs(1),
            sysfs: "/sys/class/net".into(),
        }
    }
}

/// What somebody else who watches this host knows of its interfaces, such as the daemon of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Knowledge {
    /// What its configuration says; [`ScoutConfig::overrides`] go before that, however general they are.
    pub overrides: Vec<Override>,
    /// What it found out, by the number of the interface.
    pub findings: BTreeMap<NetworkId, Finding>,
    /// Whether it goes on watching. If not, the network manager is asked, and its answers go before the findings.
    pub is_kept: bool,
}

/// What is found out of one interface, and not from netlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name: numbers are given anew.
    pub interface: String,
    /// What it is.
    pub class: NetworkClass,
    /// Whether it costs by volume.
    pub metered: bool,
}

impl Knowledge {
    pub(super) fn of(&self, id: NetworkId, interface: &str) -> Option<&Finding> {
        self.findings.get(&id).filter(|finding| finding.interface == interface)
    }
}

/// What the configuration says about the interfaces that match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Override {
    /// Their names; `*` stands for any letters, `?` for one.
    pub interface: String,
    /// What the network is called.
    pub name: Option<String>,
    /// Its class.
    pub class: Option<NetworkClass>,
    /// Its cost.
    pub cost: Option<u8>,
    /// Whether it costs by volume.
    pub metered: Option<bool>,
    /// Whether it is left out; `Some(false)` takes back what an earlier entry said.
    pub ignore: Option<bool>,
}

impl ScoutConfig {
    pub(super) fn ignores(&self, interface: &str) -> bool {
        self.matching(interface).filter_map(|entry| entry.ignore).last().unwrap_or(false)
    }

    /// The class by configuration.
    pub(super) fn class(&self, interface: &str) -> Option<NetworkClass> {
        self.matching(interface).filter_map(|entry| entry.class).last()
    }

    /// Applies the rest to the network of an interface.
    pub(super) fn apply(&self, interface: &str, network: &mut Network) {
        for entry in self.matching(interface) {
            if let Some(name) = &entry.name {
                network.name.clone_from(name);
            }
            network.cost = entry.cost.unwrap_or(network.cost);
            network.metered = entry.metered.unwrap_or(network.metered);
        }
    }

    fn matching<'a>(&'a self, interface: &'a str) -> impl Iterator<Item = &'a Override> {
        self.overrides.iter().filter(|entry| matches(&entry.interface, interface))
    }
}

/// Whether the whole of `name` matches `pattern`; linear in both but for one step back per `*`.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(letter) if *letter == b'?' || *letter == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star_p, star_n)) = star else { return false };
                // The star takes one letter more.
                star = Some((star_p, star_n + 1));
                (p, n) = (star_p + 1, star_n + 1);
            }
        }
    }
    pattern[p..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth01", true),
            ("eth*", "eth", true),
            ("eth?", "eth", false),
            ("*", "anything", true),
            ("w*n?", "wlan0", true),
            ("*a*b", "aabab", true),
            ("*a*b", "aaba", false),
            ("", "", true),
            ("", "x", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn later_entries_win_field_by_field() {
        let entry = |interface: &str| Override { interface: interface.into(), ..Override::default() };
        let config = ScoutConfig {
            overrides: vec![
                Override { cost: Some(9), metered: Some(true), ignore: Some(true), ..entry("*") },
                Override {
                    name: Some("field".into()),
                    class: Some(NetworkClass::Satellite),
                    ignore: Some(false),
                    ..entry("eth?")
                },
                Override { metered: Some(false), ..entry("eth0") },
            ],
            ..ScoutConfig::default()
        };
        let mut network = Network {
            id: NetworkId(2),
            name: "eth0".into(),
            class: NetworkClass::Ethernet,
            metered: false,
            cost: 0,
            port: 0,
            addresses: Vec::new(),
        };
        config.apply("eth0", &mut network);
        assert_eq!((network.name.as_str(), network.cost, network.metered), ("field", 9, false));
        assert_eq!(config.class("eth0"), Some(NetworkClass::Satellite));
        assert_eq!(config.class("lo"), None);
        assert!(!config.ignores("eth0"));
        assert!(config.ignores("lo"));
    }
}
