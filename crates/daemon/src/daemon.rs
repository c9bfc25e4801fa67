//! The daemon as a whole: how it begins, is told to read its configuration again, and ends.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use steadfast::Identity;
use steadfast_backplane::{Agent, Host, HostName, Incarnation, Keep, Provenance};
use steadfast_net::scout::{Override, ScoutError};
use steadfast_net::trust::TrustError;
use steadfast_net::{Places, Scout, ScoutConfig, TrustFile};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::attached::Attached;
use crate::exchange::{self, Exchange, ExchangeError};
use crate::faults::{self, Faults};
use crate::hub::Hub;
use crate::journal::{Journal, Past};
use crate::nats::{self, Bridge, NatsFileError};
use crate::seal::Seal;
use crate::settings::Settings;
use crate::sinks::Sinks;
use crate::socket::{self, Bound, Serving, SocketError};
use crate::store::{self, Word};
use crate::ways::Way;
use crate::{metrics, status};

/// How often the agent is told what the wall clock shows.
const WALL: Duration = Duration::from_secs(1);

/// Where a host's daemon keeps what it needs, if it runs as root.
const HOST_STATE: &str = "/var/lib/steadfast";
/// Where processes find a host's daemon.
const HOST_SOCKETS: &str = "/run/steadfast";

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// A socket is not bound.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The journal cannot be opened.
    #[error(
        "cannot open the journal of events in {path}: {error}; make the directory writable, or name another as `state`"
    )]
    Journal {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The figures are not served.
    #[error("cannot serve figures at {address}: {error}; name another address as `metrics`")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// No place is known for the socket.
    #[error(
        "cannot tell where the agent's socket belongs: XDG_RUNTIME_DIR is not set; name a place as `socket`"
    )]
    NoPlace,
    /// The networks cannot be watched.
    #[error(transparent)]
    Scout(#[from] ScoutError),
    /// It cannot be told whom this host trusts.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Events cannot go to NATS.
    #[error(transparent)]
    Nats(#[from] NatsFileError),
    /// Events cannot be exchanged with other hosts.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The system refuses something else.
    #[error("cannot start the daemon: {0}")]
    System(#[from] io::Error),
}

/// What all parts of the daemon may use.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) hub: Arc<Hub>,
    pub(crate) scout: Scout,
    pub(crate) faults: Faults,
    pub(crate) started: Instant,
    pub(crate) socket: PathBuf,
    pub(crate) exchange: Option<Arc<Exchange>>,
    pub(crate) sinks: Sinks,
    pub(crate) attached: Arc<Attached>,
    /// What the configuration says of interfaces.
    pub(crate) networks: Vec<Override>,
}

/// A host's daemon, which runs until [`run`](Self::run) ends or it is dropped.
#[derive(Debug)]
pub struct Daemon {
    shared: Arc<Shared>,
    agent: Bound,
    status: Bound,
    tasks: JoinSet<()>,
    serving: Serving,
    settings: Settings,
    store: Option<std::thread::JoinHandle<()>>,
}

/// Where the agent's socket is.
pub fn socket_path(settings: &Settings) -> Result<PathBuf, DaemonError> {
    if let Some(path) = &settings.socket {
        return Ok(path.clone());
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| Path::new(directory).is_absolute());
    match runtime {
        _ if rustix::process::geteuid().is_root() => Ok(Path::new(HOST_SOCKETS).join("agent.sock")),
        Some(directory) => Ok(Path::new(&directory).join("steadfast/agent.sock")),
        None => Err(DaemonError::NoPlace),
    }
}

/// Where the daemon answers questions about itself: beside the agent's socket.
pub fn status_path(settings: &Settings) -> Result<PathBuf, DaemonError> {
    Ok(socket_path(settings)?.with_file_name("daemon.sock"))
}

fn state_path(settings: &Settings, places: &Places) -> PathBuf {
    let root = rustix::process::geteuid().is_root();
    let usual = || if root { PathBuf::from(HOST_STATE) } else { places.state.clone() };
    settings.state.clone().unwrap_or_else(usual)
}

fn host_of(identity: &Identity) -> io::Result<Host> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let name = nix::unistd::gethostname()?;
    let name = name.to_str().and_then(|name| name.parse().ok());
    Ok(Host {
        origin: identity.fingerprint(),
        incarnation: Incarnation(u64::from_be_bytes(random)),
        name: name.unwrap_or(HostName::new("localhost").map_err(io::Error::other)?),
        address: None,
    })
}

impl Daemon {
    /// Opens the journal, takes up what an earlier run left, and binds the sockets. Needs a runtime.
    pub async fn start(
        settings: &Settings,
        scout: ScoutConfig,
        places: &Places,
        identity: &Identity,
    ) -> Result<Self, DaemonError> {
        let mode = settings.socket_mode.0;
        let socket = socket_path(settings)?;
        socket::is_left_behind(&socket)?;
        // Of two that start at once the journal lets in one, before either takes away the other's socket.
        let path = state_path(settings, places).join("events");
        let (journal, past) =
            Journal::open(&path).map_err(|error| DaemonError::Journal { path: path.clone(), error })?;
        let agent = Bound::new(&socket, mode)?;
        let status = Bound::new(&status_path(settings)?, mode)?;
        let metrics = match settings.metrics {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|error| DaemonError::Metrics { address, error })?)
            }
            None => None,
        };

        let host = host_of(identity)?;
        let trusted = TrustFile::open(&places.trusted)?;
        let found = exchange::find(&settings.exchange, &host.origin, &trusted)?;
        let seal = Arc::new(Seal::new(identity.clone(), places.trusted.clone())?);
        let (sender, words) = mpsc::channel();
        let core = Agent::new(settings.limits.config(), settings.rules(), host);
        let hub = Arc::new(Hub::new(core, sender));

        // Before what is owed to them comes back.
        let broker = settings.nats.as_ref().and_then(|_| Way::open(&hub, nats::NAME, Keep::UntilConfirmed));
        let open = |found: &exchange::Found| {
            let way = Way::open(&hub, &found.way(), Keep::WhileRoom);
            way.ok_or_else(|| ExchangeError::TooMany(found.way()))
        };
        let hosts = found.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        tracing::info!(events = past.deliveries.len(), socket = %socket.display(), "the agent is there");
        restore(&hub, past, &broker.iter().chain(&hosts).cloned().collect::<Vec<_>>());

        let bridge = match (&settings.nats, broker) {
            (Some(settings), Some(way)) => {
                Some(Bridge::new(settings.clone(), Arc::clone(&seal), way, host.name)?)
            }
            _ => None,
        };
        let exchange = if found.is_empty() {
            None
        } else {
            let world = (places.trusted.clone(), scout.clone());
            let seal = Arc::clone(&seal);
            let exchange = Exchange::bind(&settings.exchange, found, hosts, seal, host.incarnation, world);
            Some(Arc::new(exchange.await?))
        };
        let networks = scout.overrides.clone();
        let scout = Scout::start(scout).await?;
        let attached = Arc::new(Attached::new());
        let store = store::start(Arc::clone(&hub), journal, settings.sync, words)?;
        let faults = Faults::attach(&hub)
            .ok_or_else(|| io::Error::other("the agent does not let its own daemon in"))?;
        let serving = Serving::start()?;
        let sinks = Sinks::new(Arc::clone(&hub));
        sinks.set(&settings.sinks);
        let started = Instant::now();
        let shared = Shared { hub, scout, faults, started, socket, exchange, sinks, attached, networks };
        let shared = Arc::new(shared);
        let mut tasks = JoinSet::new();
        if let Some(listener) = metrics {
            tasks.spawn(metrics::serve(Arc::clone(&shared), listener));
        }
        tasks.spawn(keep_time(Arc::clone(&shared.hub)));
        tasks.spawn(faults::watch(Arc::clone(&shared)));
        tasks.spawn(Arc::clone(&shared.attached).keep_time());
        if bridge.is_some() || shared.exchange.is_some() {
            tasks.spawn(async move { seal.watch().await });
        }
        if let Some(bridge) = bridge {
            tasks.spawn(bridge.run());
        }
        if let Some(exchange) = &shared.exchange {
            tasks.spawn(Arc::clone(exchange).run());
        }
        Ok(Self { shared, agent, status, tasks, serving, settings: settings.clone(), store: Some(store) })
    }

    /// Serves until `end` is done, and from then on only who is connected already. Can be called again.
    pub async fn run(&self, end: impl Future<Output = ()>) {
        let hub = &self.shared.hub;
        tokio::select! {
            () = end => {}
            () = socket::accept(hub, &self.agent.listener, &self.serving) => {}
            () = status::accept(&self.shared, &self.status.listener) => {}
        }
    }

    /// Ends it: peers are told, what was acknowledged is on the disk, and sinks had some time for what waits.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
        if let Some(exchange) = &self.shared.exchange {
            exchange.endpoint.close("the daemon ends").await;
        }
        self.shared.sinks.close().await;
    }

    /// Where processes find the agent.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// Takes other rules, limits and sinks at once; needs a runtime. All else waits for the next start: returns what of
    /// that differs.
    pub fn reload(&self, settings: &Settings) -> Vec<&'static str> {
        self.shared.hub.with(|server, _| {
            server.agent_mut().set_config(settings.limits.config());
            server.agent_mut().set_rules(settings.rules());
        });
        self.shared.sinks.set(&settings.sinks);
        settings.needs_restart(&self.settings)
    }
}

/// Gives the agent back what an earlier run left, and to each way out what it had not taken then.
fn restore(hub: &Hub, past: Past, ways: &[Way]) {
    let Past { deliveries, left } = past;
    let left: Vec<usize> = ways.iter().map(|way| left.get(way.name()).copied().unwrap_or_default()).collect();
    hub.with(|server, now| {
        let agent = server.agent_mut();
        for (at, delivery) in deliveries.into_iter().enumerate() {
            let owed = delivery.provenance == Provenance::Local && left.iter().any(|left| at >= *left);
            agent.restore(now, delivery, owed);
            // At once, so that what one way still needs leaves room for what another needs.
            for (way, _) in ways.iter().zip(&left).filter(|(_, left)| owed && at < **left) {
                way.skip(agent);
            }
        }
    });
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.tasks.abort_all();
        self.shared.hub.tell_store(Word::End);
        if let Some(store) = self.store.take() {
            let _ended = store.join();
        }
        self.shared.hub.end();
    }
}

/// Tells the agent the time, and what is due.
async fn keep_time(hub: Arc<Hub>) {
    loop {
        hub.tell_wall_time();
        let due = hub.with(|server, now| {
            server.handle_timeout(now);
            server.poll_timeout().map(|at| at.since(now))
        });
        let wait = due.map_or(WALL, |due| due.min(WALL));
        tokio::select! {
            () = hub.timer.notified() => {}
            () = tokio::time::sleep(wait.max(Duration::from_millis(1))) => {}
        }
    }
}
