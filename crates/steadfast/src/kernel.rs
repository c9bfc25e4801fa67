//! The kernel objects of an endpoint that are not carriers: listener, netlink, inotify. They come and go together.

use crate::error::BindError;
use crate::host::{self, Place};
use crate::lock;
use crate::shared::Shared;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use steadfast_net::carrier::{AcceptorConfig, Gate, Incoming};
use steadfast_net::{Acceptor, Listener, Scout, ScoutConfig, TrustWatcher};
use steadfast_wire::Network;
use tokio::sync::watch;

/// What it takes to make the kernel objects, at first and again.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) port: u16,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) scout: ScoutConfig,
    /// The daemon of the host, if it is asked.
    pub(crate) daemon: Option<Place>,
}

/// The kernel objects, as long as they are open.
#[derive(Debug)]
pub(crate) struct Kernel {
    acceptor: Acceptor,
    networks: Option<watch::Receiver<Arc<[Network]>>>,
    trust: Option<TrustWatcher>,
}

/// What the kernel tells.
#[derive(Debug)]
pub(crate) enum News {
    /// A carrier, or why a connection became none.
    Incoming(Box<Incoming>),
    /// The networks now; `None` if they are not watched any more.
    Networks(Option<Arc<[Network]>>),
    /// The file of trusted peers may have changed.
    Trust,
}

impl Kernel {
    /// Opens everything. The port is kept for the next time.
    pub(crate) async fn open(shared: &Arc<Shared>, plan: &mut Plan) -> Result<Self, BindError> {
        let listener = if plan.addresses.is_empty() {
            Listener::bind_any(plan.port)
        } else {
            let addresses: Vec<_> = plan.addresses.iter().map(|ip| SocketAddr::new(*ip, plan.port)).collect();
            Listener::bind(&addresses)
        };
        let listener = listener.map_err(BindError::Listen)?;
        plan.port = listener.port();
        plan.scout.port = plan.port;
        let acceptor = {
            let (tls, shared) = (shared.tls.clone(), Arc::clone(shared));
            let gate: Gate = Arc::new(move |local, remote| {
                let shared = Arc::clone(&shared);
                Box::pin(async move { shared.lets_in(local, remote).await })
            });
            Acceptor::start_gated(listener, tls, gate, AcceptorConfig::default())
        };
        *lock(&shared.reception) = Some(acceptor.gauge());
        let mut kernel = Self { acceptor, networks: None, trust: None };
        // Before the scout, so that it begins with what the daemon knows; what one said before may have been elsewhere.
        shared.unlearn();
        let first = match &plan.daemon {
            Some(daemon) => daemon.open(shared).await,
            None => None,
        };
        kernel.open_scout(shared, plan).await?;
        if let Some(daemon) = plan.daemon.clone() {
            shared.spawn(host::keep(Arc::clone(shared), daemon, first));
        }
        kernel.open_trust(shared);
        Ok(kernel)
    }

    /// Watches the networks, again if that ended.
    pub(crate) async fn open_scout(&mut self, shared: &Arc<Shared>, plan: &Plan) -> Result<(), BindError> {
        let scout = Scout::start_knowing(plan.scout.clone(), shared.known()).await;
        let scout = scout.map_err(BindError::Networks)?;
        self.networks = Some(scout.subscribe());
        let networks = scout.networks();
        *lock(&shared.scout) = Some(scout);
        tell_networks(shared, plan, &networks);
        Ok(())
    }

    /// Watches the file of trusted peers, again if that ended.
    pub(crate) fn open_trust(&mut self, shared: &Arc<Shared>) {
        let watcher = shared.trusted.path().map(|path| TrustWatcher::new(&path));
        self.trust = watcher.and_then(|watcher| {
            watcher.inspect_err(|error| tracing::info!(%error, "changes of trust go unnoticed")).ok()
        });
    }

    /// Whether something that should be watched is not.
    pub(crate) fn is_blind(&self, shared: &Shared) -> bool {
        self.networks.is_none() || (self.trust.is_none() && shared.trusted.path().is_some())
    }

    /// Watches what is not watched.
    pub(crate) async fn mend(&mut self, shared: &Arc<Shared>, plan: &Plan) {
        if self.networks.is_none()
            && let Err(error) = self.open_scout(shared, plan).await
        {
            tracing::debug!(%error, "the networks are still not watched");
        }
        if self.trust.is_none() && shared.trusted.path().is_some() {
            self.open_trust(shared);
        }
    }

    /// What happens next. Cancel safe.
    pub(crate) async fn next(&mut self) -> News {
        let Self { acceptor, networks, trust } = self;
        let changed = async {
            match networks {
                Some(receiver) => {
                    receiver.changed().await.ok().map(|()| Arc::clone(&receiver.borrow_and_update()))
                }
                None => pending().await,
            }
        };
        let edited = async {
            match trust {
                Some(watcher) => watcher.changed().await.is_ok(),
                None => pending().await,
            }
        };
        tokio::select! {
            incoming = acceptor.next() => match incoming {
                Some(incoming) => News::Incoming(Box::new(incoming)),
                // The runtime is ending, and this task with it.
                None => pending().await,
            },
            networks = changed => {
                if networks.is_none() {
                    self.networks = None;
                }
                News::Networks(networks)
            }
            watching = edited => {
                if !watching {
                    self.trust = None;
                }
                News::Trust
            }
        }
    }

    pub(crate) fn local_addresses(&self) -> Vec<SocketAddr> {
        self.acceptor.local_addrs().to_vec()
    }

    /// Closes everything, and returns when it is closed.
    pub(crate) async fn close(self, shared: &Arc<Shared>) {
        drop(self.trust);
        self.acceptor.close().await;
        let scout = lock(&shared.scout).take();
        if let Some(scout) = scout {
            scout.close().await;
        }
    }
}

/// Tells the core which networks there are, with the port on those that are listened on.
pub(crate) fn tell_networks(shared: &Arc<Shared>, plan: &Plan, networks: &[Network]) {
    let mut networks = networks.to_vec();
    if !plan.addresses.is_empty() && !plan.addresses.iter().any(IpAddr::is_unspecified) {
        for network in &mut networks {
            let listened = network.addresses.iter().any(|address| plan.addresses.contains(&address.ip));
            network.port = if listened { network.port } else { 0 };
        }
    }
    shared.call(|inner, now| inner.core.handle_networks(now, networks));
    shared.networks_told.notify_waiters();
}
