//! What the configuration says of the daemon; every key may be missing.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use steadfast_backplane::{Config, EventSpace, Rate, Rule, Rules, Who};

use crate::exchange::ExchangeSettings;
use crate::journal::Sync;
use crate::nats::NatsSettings;
use crate::sinks::settings::Sinks;

/// A text or a list of them.
pub(crate) fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(text) => vec![text],
        Written::Several(texts) => texts,
    })
}

/// The section `[daemon]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// Where processes find the agent. `/run/steadfast/agent.sock` for root, else `$XDG_RUNTIME_DIR/steadfast/agent.sock`.
    pub socket: Option<PathBuf>,
    /// Who may connect there: permissions of the socket, in octal. `666`: everybody on this host.
    pub socket_mode: Mode,
    /// Where the journal lies. `/var/lib/steadfast` for root, else the user's state directory.
    pub state: Option<PathBuf>,
    /// Where `/metrics` is served, for Prometheus. Nowhere.
    #[serde(deserialize_with = "figures")]
    pub metrics: Option<SocketAddr>,
    /// When the journal is forced to the disk: `never`, `second`, `each`.
    pub sync: Sync,
    /// How much the agent takes from processes.
    pub limits: Limits,
    /// Who may publish and subscribe where; the first that speaks decides. After these come the built-in ones.
    pub rules: Vec<RuleSetting>,
    /// The broker that brings events to many hosts. None.
    pub nats: Option<NatsSettings>,
    /// Other hosts to exchange events with, without a broker. None.
    pub exchange: ExchangeSettings,
    /// Where events go besides the clients of this host: the system's journal, commands, files. Nowhere.
    pub sinks: Sinks,
}

/// Where figures are served.
fn figures<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let address = text.parse().map_err(|_| {
        D::Error::custom(format!(
            "`{text}` is no place to serve figures at; write an address of this host and a port, like \"127.0.0.1:9463\""
        ))
    })?;
    Ok(Some(address))
}

/// Permissions of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Default for Mode {
    fn default() -> Self {
        Self(0o666)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
        mode.map(Self).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is no permissions; write them in octal, like \"660\""))
        })
    }
}

/// The most that a limit can be.
const MOST: i64 = 1_000_000_000;

/// A limit. Nothing of something would be a trap: to some that is none, to others it is no end of them.
fn some<'de, D: Deserializer<'de>, T: TryFrom<i64>>(deserializer: D) -> Result<T, D::Error> {
    let number = i64::deserialize(deserializer)?;
    let limit = (1..=MOST).contains(&number).then(|| T::try_from(number).ok()).flatten();
    limit.ok_or_else(|| {
        D::Error::custom(format!("{number} is no limit; write a whole number from 1 to {MOST}"))
    })
}

/// Bounds of the agent, each at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Limits {
    /// Clients of this host.
    #[serde(deserialize_with = "some")]
    pub clients: usize,
    /// Clients of one user.
    #[serde(deserialize_with = "some")]
    pub user_clients: usize,
    /// Events that wait for one client.
    #[serde(deserialize_with = "some")]
    pub queue: usize,
    /// Events that can be replayed.
    #[serde(deserialize_with = "some")]
    pub history: usize,
    /// Events that wait to leave the host.
    #[serde(deserialize_with = "some")]
    pub outbox: usize,
    /// Events a second of one client; half as many at once.
    #[serde(deserialize_with = "some")]
    pub client_rate: u32,
    /// Events a second of all clients of one user; half as many at once.
    #[serde(deserialize_with = "some")]
    pub user_rate: u32,
    /// Events a second of one other host that is trusted.
    #[serde(deserialize_with = "some")]
    pub host_rate: u32,
    /// Events a second that nobody vouches for, of all other hosts together.
    #[serde(deserialize_with = "some")]
    pub unsigned_rate: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let config = Config::default();
        Self {
            clients: config.max_clients,
            user_clients: config.max_user_clients,
            queue: config.queue_events,
            history: config.history_events,
            outbox: config.outbox_events,
            client_rate: config.client_rate.per_second,
            user_rate: config.user_rate.per_second,
            host_rate: config.signed_rate.per_second,
            unsigned_rate: config.unsigned_rate.per_second,
        }
    }
}

impl Limits {
    /// As the agent takes them.
    pub(crate) fn config(self) -> Config {
        let rate = |per_second: u32, part: u32| Rate { per_second, burst: (per_second / part).max(1) };
        let mut config = Config::default();
        config.max_clients = self.clients;
        config.max_user_clients = self.user_clients;
        config.queue_events = self.queue;
        config.history_events = self.history;
        config.outbox_events = self.outbox;
        config.client_rate = rate(self.client_rate, 2);
        config.user_rate = rate(self.user_rate, 2);
        config.signed_rate = rate(self.host_rate, 1);
        config.unsigned_rate = rate(self.unsigned_rate, 1);
        config.journal = true;
        config
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RuleWritten")]
pub struct RuleSetting {
    space: Spaces,
    who: WhoSetting,
    publish: Option<bool>,
    subscribe: Option<bool>,
}

/// The same before it is known whether it says anything.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RuleWritten {
    /// The event spaces; each part may be `all`.
    space: Spaces,
    /// Whom it is about: a user by name or number, `anyone`, `signed-hosts`, `unsigned-hosts`.
    who: WhoSetting,
    /// Whether they may publish.
    publish: Option<bool>,
    /// Whether they may subscribe.
    subscribe: Option<bool>,
}

impl TryFrom<RuleWritten> for RuleSetting {
    type Error = &'static str;

    fn try_from(written: RuleWritten) -> Result<Self, Self::Error> {
        let RuleWritten { space, who, publish, subscribe } = written;
        if publish.is_none() && subscribe.is_none() {
            return Err("this rule says nothing; give it `publish`, `subscribe` or both, each true or false");
        }
        Ok(Self { space, who, publish, subscribe })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spaces(EventSpace);

impl<'de> Deserialize<'de> for Spaces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        EventSpace::new(&text).map(Self).map_err(|error| D::Error::custom(error.to_string()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WhoSetting(Who);

impl<'de> Deserialize<'de> for WhoSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u32),
            Name(String),
        }
        let name = match Written::deserialize(deserializer)? {
            Written::Number(user) => return Ok(Self(Who::User(user))),
            Written::Name(name) => name,
        };
        let user = || {
            let found = nix::unistd::User::from_name(&name).ok().flatten();
            found.map(|user| Who::User(user.uid.as_raw())).ok_or_else(|| {
                D::Error::custom(format!(
                    "there is no user `{name}` here; write a user's name or number, `anyone`, `signed-hosts` or `unsigned-hosts`"
                ))
            })
        };
        Ok(Self(match name.as_str() {
            "anyone" => Who::Anyone,
            "signed-hosts" => Who::SignedHost,
            "unsigned-hosts" => Who::UnsignedHost,
            _ => user()?,
        }))
    }
}

impl Settings {
    /// Puts what `[hosts]` says in the place of its names.
    pub fn name_hosts(&mut self, find: impl Fn(&str) -> Option<String>) {
        for host in &mut self.exchange.hosts.0 {
            if let Some(meant) = find(host.trim()) {
                *host = meant;
            }
        }
    }

    /// What differs from `other` and is looked at when the daemon starts, and only then.
    #[must_use]
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("socket", self.socket == other.socket),
            ("socket-mode", self.socket_mode == other.socket_mode),
            ("state", self.state == other.state),
            ("metrics", self.metrics == other.metrics),
            ("sync", self.sync == other.sync),
            ("[daemon.nats]", self.nats == other.nats),
            ("[daemon.exchange]", self.exchange == other.exchange),
        ];
        keys.into_iter().filter_map(|(key, same)| (!same).then_some(key)).collect()
    }

    /// As the agent takes them.
    pub(crate) fn rules(&self) -> Rules {
        let own = self.rules.iter().map(|rule| Rule {
            spaces: rule.space.0,
            who: rule.who.0,
            publish: rule.publish,
            subscribe: rule.subscribe,
        });
        Rules(own.chain(Rules::default().0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_leaves_a_host_unless_it_is_said() {
        let settings = read("").unwrap();
        assert_eq!(settings, Settings::default());
        assert!(settings.nats.is_none() && settings.exchange.hosts.0.is_empty());
        let settings = read("[nats]\nurl = 'nats://broker'").unwrap().nats.unwrap();
        assert_eq!(
            (&settings.prefix.0[..], &settings.stream.0[..]),
            ("steadfast.events", "STEADFAST_EVENTS")
        );
        assert_eq!((settings.jetstream, settings.history.0, settings.replicas.0), (false, 168, 1));
        assert_eq!(settings.history_bytes.0, 1 << 30);
        let settings = read("[nats]\nurl = ['nats://a:4222', 'tls://b']\nuser = 'ann'\npassword = 'secret'");
        let shown = format!("{:?}", settings.unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, words) in [
            ("[nats]", "url"),
            ("[nats]\nurl = []", "no server"),
            ("[nats]\nurl = 'broker'", "nats://broker:4222"),
            ("[nats]\nurl = 'nats://ann:secret@broker'", "keys of their own"),
            ("[nats]\nurl = 'nats://a'\nurls = 'nats://b'", "urls"),
            ("[nats]\nurl = 'nats://a'\nnkey = true\ntoken = 'x'", "only one of"),
            ("[nats]\nurl = 'nats://a'\nuser = 'x'", "`user` and `password`"),
            ("[nats]\nurl = 'nats://a'\nkey = 'x'", "`certificate` and `key`"),
            ("[nats]\nurl = 'nats://a'\nprefix = 'a.>'", "cannot begin subjects"),
            ("[nats]\nurl = 'nats://a'\nprefix = '$SYS'", "cannot begin subjects"),
            ("[nats]\nurl = 'nats://a'\nstream = 'a.b'", "cannot name a stream"),
            ("[nats]\nurl = 'nats://a'\nhistory = 0", "1 hour"),
            ("[nats]\nurl = 'nats://a'\nreplicas = 6", "1 to 5"),
            ("metrics = 'here'", "127.0.0.1:9463"),
            ("[limits]\nunsigned-rate = 0", "from 1 to"),
            ("[limits]\nqueue = 0", "from 1 to"),
            ("[limits]\nclients = -1", "-1 is no limit"),
            ("[limits]\nhistory = 1000000001", "from 1 to 1000000000"),
            ("[[rules]]\nspace = 'a.b.c'\nwho = 'anyone'", "says nothing"),
            ("[[rules]]\nspace = 'a.b.c'\nwho = 'anyone'\npublish = true\nread = true", "read"),
            ("[exchange]\nport = 7463", "steadfast receive"),
            ("[exchange]\nout = ['a.b']", "region.category.component"),
            ("[exchange]\nhost = 'a'", "host"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }

    #[test]
    fn what_waits_for_a_restart_is_told() {
        let old = read("").unwrap();
        let mut new =
            read("[nats]\nurl = 'nats://a'\n[exchange]\nhosts = ['boat', 'KEY@10.0.0.1']\n").unwrap();
        assert_eq!(new.needs_restart(&old), ["[daemon.nats]", "[daemon.exchange]"]);
        assert!(read("[limits]\nclients = 7").unwrap().needs_restart(&old).is_empty(), "these count at once");
        new.name_hosts(|name| (name == "boat").then(|| "KEY@10.0.0.7".to_owned()));
        assert_eq!(new.exchange.hosts.0, ["KEY@10.0.0.7", "KEY@10.0.0.1"]);
    }
}
