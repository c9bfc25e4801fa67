//! What a process and the daemon of its host say to each other, for whoever writes a daemon or wants to ask one.
//!
//! Over the daemon's Unix socket go lines of JSON, each an object with `"version": 1`. What is not known in an object is ignored
//! by both sides, so that later versions may say more. A process begins with [`Statement::attach`] and is answered with
//! [`Reply::host`], again whenever that changes. From then on it says, each as often as it likes within the daemon's limits,
//! [`Statement::usage`], which is answered with [`Reply::shares`]; [`Statement::state`], which is not answered; and
//! [`Statement::ping`]. Nothing of it outlasts the connection.
//!
//! An [`Endpoint`](crate::Endpoint) does all that by itself ([`Builder::daemon`](crate::Builder::daemon)).

mod account;
mod lines;
mod link;

pub use lines::Lines;
pub(crate) use link::{Place, connect, keep};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use steadfast_net::scout::{Finding, Knowledge, Override};
use steadfast_session::{NetworkUse, Share};
use steadfast_wire::{NetworkClass, NetworkId};

/// The version of what is said.
pub const VERSION: u32 = 1;
/// The most conversations, and peers, of a [`State`].
pub const MAX_LISTED: usize = 64;
/// The most bytes of each text in a [`State`].
pub const MAX_TEXT: usize = 256;
/// The most networks that a process tells of.
pub const MAX_NETWORKS: usize = 16;

/// What a process says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Statement {
    /// [`VERSION`].
    pub version: u32,
    /// The first that is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach: Option<Attach>,
    /// What it does on each network, about ten times a second while it does something.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<Vec<Usage>>,
    /// Its conversations and peers, when they changed; at most once a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Anything, which is answered with the same as `pong`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping: Option<u64>,
}

/// Who attaches. User and process are what the kernel says of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attach {
    /// The key of the endpoint.
    pub key: String,
    /// The inode of its network namespace: only networks of one namespace have something to do with each other.
    pub namespace: u64,
}

/// What the daemon says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Reply {
    /// [`VERSION`].
    pub version: u32,
    /// The networks of the host, as the daemon knows them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostNetworks>,
    /// What part of networks the process may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<Vec<Allowance>>,
    /// The answer to a `ping`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pong: Option<u64>,
    /// Why what was said cannot be served; if it was the first, the connection ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What the daemon knows of the networks of its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostNetworks {
    /// The inode of its network namespace.
    pub namespace: u64,
    /// What its configuration says of interfaces; later entries go before earlier ones, word by word.
    pub configuration: Vec<Configured>,
    /// What it found out.
    pub interfaces: Vec<Interface>,
}

/// What the configuration says of interfaces ([`Override`]).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Configured {
    /// Their names, with `*` and `?`.
    pub interface: String,
    /// What the network is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Its cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<u8>,
    /// Whether it costs by volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metered: Option<bool>,
    /// Whether it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore: Option<bool>,
}

/// What was found out of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its class, by name.
    pub class: String,
    /// Whether it costs by volume.
    pub metered: bool,
}

/// What a process does on one network ([`NetworkUse`]). Rates are bytes a second.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// The number of the interface.
    pub network: u32,
    /// What it is called.
    pub name: String,
    /// Paths that are up.
    pub paths: u32,
    /// The highest rate lately measured, in bytes a second; 0 if none was.
    pub rate: u64,
    /// What arrived of foreground, in bytes a second.
    pub foreground: u64,
    /// What arrived of background, in bytes a second.
    pub background: u64,
    /// Large messages of foreground had to wait.
    pub foreground_waits: bool,
    /// Background had to wait.
    pub background_waits: bool,
    /// What the network can carry is still being found out.
    pub starting: bool,
    /// Nothing queued there lately.
    pub room: bool,
}

/// What part of a network the background of a process may have ([`Share`]).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Allowance {
    /// The number of the interface.
    pub network: u32,
    /// Bytes a second; without it, as much as there is room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Bytes that may queue in the network.
    pub queue: u64,
    /// Another process has foreground there.
    pub foreground: bool,
    /// When it is another number than before, the queue is to run empty once.
    pub drain: u64,
    /// How long that counts, in milliseconds; at most 5,000.
    pub valid_ms: u64,
}

/// The conversations and peers of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Conversations; at most [`MAX_LISTED`], first those that are parked or have something to send.
    pub sessions: Vec<SessionState>,
    /// Processes of peers; at most [`MAX_LISTED`], first those of which something is wrong.
    pub peers: Vec<PeerState>,
    /// How many conversations there are in all.
    pub all_sessions: u64,
    /// How many peers there are in all.
    pub all_peers: u64,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionState {
    /// Its number.
    pub session: String,
    /// The peer's key.
    pub peer: String,
    /// `opening`, `open` or `parked`.
    pub state: String,
    /// Bytes that the peer's library has not acknowledged.
    pub queued: u64,
    /// The verdict on the peer's process.
    pub verdict: String,
}

/// The process of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerState {
    /// Its key.
    pub peer: String,
    /// What is known of it.
    pub verdict: String,
    /// What that rests on.
    pub evidence: String,
    /// The local networks over which paths to it are up.
    pub networks: Vec<String>,
}

/// The inode of the network namespace of this thread; 0 if that is not told.
#[must_use]
pub fn namespace() -> u64 {
    let told = |path| std::fs::metadata(path).map(|namespace| namespace.ino());
    told("/proc/thread-self/ns/net").or_else(|_| told("/proc/self/ns/net")).unwrap_or(0)
}

impl From<&Override> for Configured {
    fn from(entry: &Override) -> Self {
        Self {
            interface: entry.interface.clone(),
            name: entry.name.clone(),
            class: entry.class.map(|class| class.name().into()),
            cost: entry.cost,
            metered: entry.metered,
            ignore: entry.ignore,
        }
    }
}

impl From<Configured> for Override {
    fn from(entry: Configured) -> Self {
        Self {
            interface: entry.interface,
            name: entry.name,
            class: entry.class.and_then(|class| NetworkClass::from_name(&class)),
            cost: entry.cost,
            metered: entry.metered,
            ignore: entry.ignore,
        }
    }
}

impl HostNetworks {
    /// As a scout takes it.
    #[must_use]
    pub fn knowledge(self) -> Knowledge {
        let findings = self.interfaces.into_iter().filter_map(|Interface { id, name, class, metered }| {
            let class = NetworkClass::from_name(&class)?;
            Some((NetworkId(id), Finding { interface: name, class, metered }))
        });
        let findings: BTreeMap<_, _> = findings.collect();
        let overrides = self.configuration.into_iter().map(Override::from).collect();
        Knowledge { overrides, findings, is_kept: true }
    }
}

impl From<NetworkUse> for Usage {
    fn from(network: NetworkUse) -> Self {
        Self {
            network: network.network.0,
            name: network.name,
            paths: network.paths,
            rate: network.rate,
            foreground: network.foreground,
            background: network.background,
            foreground_waits: network.foreground_waits,
            background_waits: network.background_waits,
            starting: network.starting,
            room: network.room,
        }
    }
}

impl From<&Usage> for NetworkUse {
    fn from(usage: &Usage) -> Self {
        Self {
            network: NetworkId(usage.network),
            // The arbiter goes by the number.
            name: String::new(),
            paths: usage.paths,
            rate: usage.rate,
            foreground: usage.foreground,
            background: usage.background,
            foreground_waits: usage.foreground_waits,
            background_waits: usage.background_waits,
            starting: usage.starting,
            room: usage.room,
        }
    }
}

impl Usage {
    /// Whether nothing at all happens there.
    fn is_idle(&self) -> bool {
        self.foreground == 0 && self.background == 0 && !self.foreground_waits && !self.background_waits
    }
}

impl From<Share> for Allowance {
    fn from(share: Share) -> Self {
        Self {
            network: share.network.0,
            rate: share.rate,
            queue: share.queue,
            foreground: share.foreground,
            drain: share.drain,
            valid_ms: u64::try_from(share.valid.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl From<Allowance> for Share {
    fn from(allowed: Allowance) -> Self {
        Self {
            network: NetworkId(allowed.network),
            rate: allowed.rate,
            queue: allowed.queue,
            foreground: allowed.foreground,
            drain: allowed.drain,
            valid: Duration::from_millis(allowed.valid_ms),
        }
    }
}
