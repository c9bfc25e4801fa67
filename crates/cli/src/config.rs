//! The configuration file: what hosts are called, what networks are worth, and where to listen.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use steadfast::{DEFAULT_PORT, NetworkClass, Override, ScoutConfig, Selector, Target};

use crate::exit::Failure;
use crate::output::clean;
use crate::rule::selector;
use crate::tunnel::{Allowed, Spec};

/// The host's configuration, where the user has none.
pub(crate) const SYSTEM_FILE: &str = "/etc/steadfast/config.toml";

/// What the file says; every key may be missing. `config.example.toml` documents them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// Names of peers and how to reach them.
    pub(crate) hosts: BTreeMap<HostName, Peer>,
    /// What is said of interfaces, by name or pattern.
    networks: BTreeMap<Interface, Network>,
    /// Networks over which nothing goes at all, not even what keeps a path alive.
    never_connect: Vec<NetworkName>,
    /// The port to listen on where others shall find this host.
    pub(crate) port: u16,
    /// What `steadfast tunnel` does where its arguments do not say it.
    pub(crate) tunnel: Tunnel,
    /// What `steadfast daemon` does.
    pub(crate) daemon: steadfast_daemon::Settings,
    /// What `steadfast checkpoint` does.
    pub(crate) checkpoint: crate::checkpoint::Settings,
}

/// Tunnels that are used often.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tunnel {
    /// What is forwarded to a host, by what it is called on the command line.
    pub(crate) forwards: BTreeMap<String, Vec<Spec>>,
    /// The targets that others may connect to through this host.
    pub(crate) allow: Vec<Allowed>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            networks: BTreeMap::new(),
            never_connect: Vec::new(),
            port: DEFAULT_PORT,
            tunnel: Tunnel::default(),
            daemon: steadfast_daemon::Settings::default(),
            checkpoint: crate::checkpoint::Settings::default(),
        }
    }
}

/// A peer as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) Target);

/// What is said of the interfaces of one name or pattern.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    name: Option<String>,
    class: Option<Class>,
    cost: Option<u8>,
    metered: Option<bool>,
    ignore: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class(NetworkClass);

/// A class, `metered`, or the name of a network, as the options of `send` take it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NetworkName(Selector);

/// One word that cannot be taken for an address with a port or a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostName(String);

/// An interface's name, in which `*` stands for any letters and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Interface(String);

impl<'de> Deserialize<'de> for Peer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.trim().parse().map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Class {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let classes = || NetworkClass::NAMES.map(|(_, name)| name).join(", ");
        let unknown =
            || D::Error::custom(format!("there is no class `{name}`; the classes are {}", classes()));
        NetworkClass::from_name(&name).map(Self).ok_or_else(unknown)
    }
}

impl<'de> Deserialize<'de> for NetworkName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Self(selector(&name)))
    }
}

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let letter = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(letter) {
            let fault =
                format!("`{name}` cannot name a host: a name has letters, digits, `-`, `_` and `.` only");
            return Err(D::Error::custom(fault));
        }
        Ok(Self(name))
    }
}

impl<'de> Deserialize<'de> for Interface {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl std::borrow::Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Interface {
    /// Entries apply one after the other: patterns first, those that say less before those that say more.
    fn precision(&self) -> (bool, usize) {
        let wild = |letter: &char| matches!(letter, '*' | '?');
        (!self.0.contains(['*', '?']), self.0.chars().filter(|letter| !wild(letter)).count())
    }
}

impl Config {
    /// Reads the user's file or, if that is missing, the host's; none at all is all defaults. A file that was asked for
    /// by name must be there.
    pub(crate) fn load(user: &Path, named: bool) -> anyhow::Result<Self> {
        let system = Path::new(SYSTEM_FILE);
        let files: &[&Path] = if named { &[user] } else { &[user, system] };
        for path in files {
            match fs::read_to_string(path) {
                Ok(text) => return Self::parse(path, &text),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !named => {}
                Err(error) => {
                    let path = path.display();
                    let help = "name another with --config, or leave that out for the usual one";
                    return Err(Failure::usage(format!(
                        "cannot read the configuration {path}: {error}; {help}"
                    ))
                    .into());
                }
            }
        }
        Ok(Self::default())
    }

    fn parse(path: &Path, text: &str) -> anyhow::Result<Self> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let content = clean(text.lines().nth(line - 1).unwrap_or_default().trim());
            let message = error.message().trim().replace('\n', "; ");
            let path = path.display();
            Failure::usage(format!(
                "cannot use the configuration {path}, line {line}, `{content}`: {message}"
            ))
            .into()
        })
    }

    /// Networks over which nothing goes at all.
    pub(crate) fn never_connect(&self) -> impl Iterator<Item = Selector> + '_ {
        self.never_connect.iter().map(|name| name.0.clone())
    }

    /// How the host's networks are watched and what they are called.
    pub(crate) fn scout(&self) -> ScoutConfig {
        let mut entries: Vec<_> = self.networks.iter().collect();
        entries.sort_by_key(|(interface, _)| interface.precision());
        let entries = entries.into_iter().map(|(interface, network)| Override {
            interface: interface.0.clone(),
            name: network.name.clone(),
            class: network.class.map(|class| class.0),
            cost: network.cost,
            metered: network.metered,
            ignore: network.ignore,
        });
        ScoutConfig { overrides: entries.collect(), ..ScoutConfig::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Config> {
        Config::parse(Path::new("config.toml"), text)
    }

    #[test]
    fn the_example_says_the_defaults() {
        let example = include_str!("../config.example.toml");
        assert_eq!(parse(example).unwrap(), Config::default());
        // Where a line begins with `#` and no blank, a value is documented; all of them together are a configuration.
        let all: String = example
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        let all = parse(&all).unwrap();
        assert!(!all.hosts.is_empty() && all.networks.len() > 1, "{all:?}");
        assert!(all.tunnel.forwards["boat"].len() > 1 && !all.tunnel.allow.is_empty(), "{all:?}");
        let never: Vec<_> = all.never_connect().collect();
        assert_eq!(never, [Selector::Class(NetworkClass::Cellular), Selector::Name("guest".into())]);
        assert_eq!(all.port, DEFAULT_PORT);
    }

    #[test]
    fn faults_name_the_line_and_what_would_do() {
        for (text, line, parts) in [
            ("\nprot = 1\n", 2, &["`prot`", "`hosts`", "`networks`", "`port`"][..]),
            ("port = 70000", 1, &["70000"]),
            (
                "[networks.wlan0]\ncost = 1\nclas = \"wifi\"",
                3,
                &["`clas`", "`class`", "`metered`", "`ignore`"],
            ),
            ("[networks.wlan0]\nclass = \"wlan\"", 2, &["`wlan`", "cellular"]),
            ("[hosts]\nboat = \"KEY@10.0.0.1\"", 2, &["KEY@10.0.0.1", "52"]),
            ("[hosts]\n\"a:1\" = \"10.0.0.1\"", 2, &["`a:1`", "letters"]),
            ("[tunnel.forwards]\nboat = ['2222']", 2, &["`2222`", "2222=localhost:22"]),
            ("[tunnel]\nallow = ['22']", 2, &["`22`", "HOST:PORT"]),
            ("port = ", 1, &["`port =`"]),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("config.toml, line {line}")), "{error}");
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn the_most_precise_entry_wins() {
        let config = parse(
            "[networks.'*']\nignore = true\n[networks.eth0]\nignore = false\n[networks.'eth?']\ncost = 3",
        )
        .unwrap()
        .scout();
        let order: Vec<_> = config.overrides.iter().map(|entry| entry.interface.as_str()).collect();
        assert_eq!(order, ["*", "eth?", "eth0"]);
    }
}
