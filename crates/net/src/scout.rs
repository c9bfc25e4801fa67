//! Which networks this host has, and every change to them.

mod class;
mod config;
mod metered;
mod table;
mod watch;

pub use config::{Finding, Knowledge, Override, ScoutConfig};

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use steadfast_wire::{Network, NetworkId};
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;

/// Watches the host's networks (of the network namespace it is started in).
///
/// A network is an interface that is up, has its carrier and a usable address; the loopback is one. The kernel tells of
/// changes (netlink); nothing is polled. Dropping the scout closes its socket soon, [`close`](Self::close) waits until it
/// is closed; a new one can be started at any time.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use steadfast_net::{Scout, ScoutConfig};
/// let mut scout = Scout::start(ScoutConfig::default()).await?;
/// loop {
///     for network in scout.networks().iter() {
///         println!("{} {} {:?}", network.name, network.class.name(), network.addresses);
///     }
///     scout.changed().await?;
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Scout {
    networks: channel::Receiver<Arc<[Network]>>,
    routes: channel::Receiver<u64>,
    devices: Arc<Mutex<BTreeMap<NetworkId, String>>>,
    told: channel::Sender<Knowledge>,
    task: JoinHandle<()>,
}

/// Why the host's networks cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoutError {
    /// Netlink does not work.
    #[error("cannot watch this host's networks: {0}; netlink sockets must be permitted to this process")]
    Netlink(#[from] io::Error),
    /// The watch ended.
    #[error(
        "this host's networks are no longer watched: the runtime is ending or netlink failed; start a new scout"
    )]
    Ended,
}

impl Scout {
    /// Starts watching; returns when the present networks are known.
    ///
    /// Waits for the first answer of `NetworkManager`, at most [`ScoutConfig::nmcli_limit`], so that no metered
    /// network is taken for a free one at the start. Cancel safe: cancelling closes everything.
    pub async fn start(config: ScoutConfig) -> Result<Self, ScoutError> {
        Self::start_knowing(config, Knowledge::default()).await
    }

    /// The same for whoever was told something by somebody else: see [`learn`](Self::learn).
    pub async fn start_knowing(config: ScoutConfig, knowledge: Knowledge) -> Result<Self, ScoutError> {
        let (told, telling) = channel::channel(knowledge);
        let (watch, networks, routes, devices) = watch::Watch::start(config, telling).await?;
        Ok(Self { networks, routes, devices, told, task: tokio::spawn(watch.run()) })
    }

    /// Takes over what somebody else knows: what networks are called, what they are and cost. Which there are is still what the
    /// kernel says, and the own configuration goes before. As long as it is kept up to date the network manager is not asked.
    pub fn learn(&self, knowledge: Knowledge) {
        self.told.send_replace(knowledge);
    }

    /// The networks now, by interface number.
    pub fn networks(&self) -> Arc<[Network]> {
        Arc::clone(&self.networks.borrow())
    }

    /// Waits until the networks differ from those that the last call of this method returned (at first: from those
    /// at the start). Cancel safe. Fails if the watch has ended.
    pub async fn changed(&mut self) -> Result<Arc<[Network]>, ScoutError> {
        self.networks.changed().await.map_err(|_| ScoutError::Ended)?;
        Ok(Arc::clone(&self.networks.borrow_and_update()))
    }

    /// A receiver of its own for the networks.
    pub fn subscribe(&self) -> channel::Receiver<Arc<[Network]>> {
        self.networks.clone()
    }

    /// A number that grows with each change of routes: a moment to try what was unreachable.
    pub fn routes(&self) -> channel::Receiver<u64> {
        self.routes.clone()
    }

    /// The interface of a network, whatever the configuration calls the network: what
    /// [`ConnectOptions::device`](crate::ConnectOptions::device) needs.
    pub fn device_of(&self, network: NetworkId) -> Option<String> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).get(&network).cloned()
    }

    /// Stops, and returns when the socket is closed. Cancelling leaves that to the background.
    pub async fn close(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Scout {
    fn drop(&mut self) {
        self.task.abort();
    }
}
