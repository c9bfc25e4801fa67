//! Making an endpoint.

use crate::checkpoint::{self, Quieted, register_own};
use crate::driver::Driver;
use crate::endpoint::Endpoint;
use crate::error::BindError;
use crate::events::Scope;
use crate::host::Place;
use crate::kernel::{Kernel, Plan};
use crate::process::this_process;
use crate::report::{place, report};
use crate::shared::Shared;
use crate::store::{self, Journal, Opened, StoreSync};
use crate::trusted::Trusted;
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use steadfast_net::{DEFAULT_PORT, Identity, Places, ScoutConfig, Tls, TrustFile};
use steadfast_session::{Config, Endpoint as Core, SessionConfig};
use steadfast_store::Store;
use steadfast_wire::{Fingerprint, Selector};
use tokio::sync::mpsc;

/// How long [`Endpoint::connect`] waits unless told otherwise.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Settings of an [`Endpoint`], each with a default that is good for a first try.
#[derive(Debug)]
#[must_use = "a builder makes nothing until `bind` is awaited"]
pub struct Builder {
    identity: Source<Identity>,
    trust: HashSet<Fingerprint>,
    trust_file: Option<PathBuf>,
    port: u16,
    addresses: Vec<IpAddr>,
    scout: ScoutConfig,
    session_config: SessionConfig,
    config: Config,
    never_connect: Vec<Selector>,
    connect_limit: Duration,
    daemon: Option<PathBuf>,
    network_source: NetworkSource,
    store: Option<store::Place>,
    checkpoints: bool,
}

/// Where an endpoint has from what it knows of its host's networks.
///
/// Which networks there are, and when one comes or goes, the kernel tells each process itself, whatever is chosen here: nobody
/// else has to be awake for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum NetworkSource {
    /// What the daemon of the host says of names, classes, costs and what is metered or left out, where the application says
    /// nothing itself ([`Builder::scout`]); without a daemon what this process finds out. What a daemon said stays true when it
    /// goes away.
    #[default]
    Auto,
    /// What this process finds out, and the application says.
    OwnScout,
}

#[derive(Debug)]
enum Source<T> {
    Default,
    File(PathBuf),
    Given(T),
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            identity: Source::Default,
            trust: HashSet::new(),
            trust_file: None,
            port: 0,
            addresses: Vec::new(),
            scout: ScoutConfig::default(),
            session_config: SessionConfig::default(),
            config: Config::default(),
            never_connect: Vec::new(),
            connect_limit: CONNECT_LIMIT,
            daemon: Some(place()),
            network_source: NetworkSource::default(),
            store: None,
            checkpoints: true,
        }
    }

    /// The key pair of this side. Default: the file of [`Places`], which is made at its first use.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Source::Given(identity);
        self
    }

    /// The file of this side's key pair, which is made if it is missing.
    pub fn identity_file(mut self, path: impl AsRef<Path>) -> Self {
        self.identity = Source::File(path.as_ref().into());
        self
    }

    /// Trusts a peer; may be called for several. If neither this nor [`trust_file`](Self::trust_file) is called, the
    /// trust file of [`Places`] is read.
    pub fn trust(mut self, peer: Fingerprint) -> Self {
        self.trust.insert(peer);
        self
    }

    /// The file of trusted peers; none is an empty one. It is watched: a key that is added may connect at once, and
    /// one that is removed loses its conversations.
    pub fn trust_file(mut self, path: impl AsRef<Path>) -> Self {
        self.trust_file = Some(path.as_ref().into());
        self
    }

    /// The TCP port to listen on; 0, the default, is any that is free.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Listens on the port that peers try where none is named ([`DEFAULT_PORT`]).
    pub fn listen_default(self) -> Self {
        self.port(DEFAULT_PORT)
    }

    /// Listens on these addresses only; by default on all.
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.addresses = addresses.into_iter().collect();
        self
    }

    /// How the networks of this host are watched and named. The port in it is set by the endpoint.
    pub fn scout(mut self, config: ScoutConfig) -> Self {
        self.scout = config;
        self
    }

    /// Settings of the conversations that are accepted, and of those that [`Endpoint::connect`] opens.
    pub fn session_config(mut self, config: SessionConfig) -> Self {
        self.session_config = config;
        self
    }

    /// Networks over which nothing is to go, not even what keeps a path alive: on either side, no path has an end there. The
    /// system still answers who connects to the port there, and the connection is reset before anything is said on it.
    /// Adds to [`Config::never_connect`]. To leave out interfaces of this host, see also
    /// [`Override::ignore`](crate::Override::ignore).
    pub fn never_connect(mut self, networks: impl IntoIterator<Item = Selector>) -> Self {
        self.never_connect.extend(networks);
        self
    }

    /// Limits and intervals of the core. Its `process` and `durable` are set by the endpoint.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// How long [`Endpoint::connect`] waits for the peer's answer. 10 s.
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.connect_limit = limit;
        self
    }

    /// The socket of the host's daemon: it says what it knows of the networks ([`network_source`](Self::network_source)) and
    /// divides them among the background of all processes, and is told of conversations, peers and verdicts, for `steadfast
    /// status` and, where something fails, for events in `FTB.network.steadfast`. Nobody with `None`; unless said otherwise,
    /// `daemon.sock` beside the [agent's socket](crate::backplane::agent). It is sought again when it is gone, and without it everything
    /// works as well. One of a user who is neither root nor the one of this process is not believed and told nothing.
    pub fn daemon(mut self, socket: Option<PathBuf>) -> Self {
        self.daemon = socket;
        self
    }

    /// Where from to have what is known of networks. Default: [`NetworkSource::Auto`].
    pub fn network_source(mut self, source: NetworkSource) -> Self {
        self.network_source = source;
        self
    }

    /// Keeps conversations in this directory, which is made if it is missing, so that they survive the process: what
    /// [`Receipt::stored`](crate::Receipt::stored) said of a message holds after a kill and after a power cut, and
    /// [`Endpoint::restored`] has the conversations when the store is opened again. It belongs to the identity, and one endpoint
    /// at a time may have it open. See [`durability`](crate::durability).
    pub fn store(mut self, directory: impl AsRef<Path>) -> Self {
        let sync = self.store.map(|place| place.sync).unwrap_or_default();
        self.store = Some(store::Place { path: directory.as_ref().into(), sync });
        self
    }

    /// When the [`store`](Self::store), which is named before, is forced to the disk: [`StoreSync::Grouped`] unless said otherwise.
    pub fn store_sync(mut self, sync: StoreSync) -> Self {
        if let Some(place) = &mut self.store {
            place.sync = sync;
        }
        self
    }

    /// Whether it prepares for [checkpoints](crate::checkpoint) of this process, so that its conversations survive them. It does
    /// unless said otherwise; the first endpoint of a process that does opens the control socket. [`bind`](Self::bind) waits while a
    /// checkpoint is being taken.
    pub fn checkpoints(mut self, takes_part: bool) -> Self {
        self.checkpoints = takes_part;
        self
    }

    /// Makes the endpoint: reads identity and trust, listens, and watches the networks.
    ///
    /// Waits for files, half a second for the daemon and a second for the network manager at most. Works on current-thread and multi-thread runtimes,
    /// whose I/O and time drivers must be enabled. Cancel safe: cancelling closes everything.
    pub async fn bind(self) -> Result<Endpoint, BindError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(BindError::NoRuntime);
        }
        // Not while a checkpoint is taken: nobody would ask this endpoint to prepare for it.
        let section = if self.checkpoints { Some(checkpoint::enter().await) } else { None };
        let (identity, trusted, opened, builder) = tokio::task::spawn_blocking(move || self.read_files())
            .await
            .map_err(|_| BindError::NoRuntime)??;
        let fingerprint = identity.fingerprint();
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| BindError::Random)?;
        let mut config = builder.config;
        config.process = this_process();
        // Without a store nothing would ever be confirmed.
        config.durable = opened.is_some();
        config.never_connect.extend(builder.never_connect);
        let core = Core::new(config, fingerprint, seed);

        let trusted = Arc::new(trusted);
        let decides = Arc::clone(&trusted);
        let tls = Tls::new(&identity, Arc::new(move |key| decides.contains(key)));
        let journal = opened.is_some().then(Arc::<Journal>::default);
        let shared = Shared::new(core, fingerprint, tls, trusted, builder.session_config, journal.clone());
        let shared = Arc::new(shared);
        let mut keep = None;
        if let (Some(journal), Some(opened)) = (journal, opened) {
            shared.restore(opened.store.digest());
            keep = Some((journal, opened));
        }
        let networks = builder.network_source == NetworkSource::Auto;
        let daemon = builder.daemon.clone().map(|socket| Place { socket, networks });
        let Self { port, addresses, scout, .. } = builder;
        let mut plan = Plan { port, addresses, scout, daemon };
        let kernel = Kernel::open(&shared, &mut plan).await?;
        let addresses = Arc::new(Mutex::new(kernel.local_addresses()));
        // Not before the rest is there: a store is free at once when this fails.
        if let Some((journal, opened)) = keep {
            store::start(&shared, journal, opened).map_err(BindError::Thread)?;
        }
        let (commands, receiver) = mpsc::unbounded_channel();
        let registration = builder.checkpoints.then(|| {
            let (commands, who) = (commands.downgrade(), fingerprint.to_string());
            register_own(Quieted { commands, who, quiet: false })
        });
        let registration = registration.flatten();
        drop(section);
        let driver =
            Driver::new(Arc::clone(&shared), plan, kernel, Arc::clone(&addresses), receiver, registration);
        tokio::spawn(driver.run());
        if let Some(daemon) = builder.daemon {
            let turn = Arc::clone(&shared.telling_daemon);
            tokio::spawn(report(shared.hub.subscribe(Scope::Everything, false), daemon, turn));
        }
        Ok(Endpoint::new(shared, addresses, commands, builder.connect_limit))
    }

    fn read_files(mut self) -> Result<(Identity, Trusted, Option<Opened>, Self), BindError> {
        let identity = match std::mem::replace(&mut self.identity, Source::Default) {
            Source::Given(identity) => identity,
            Source::File(path) => Identity::load_or_create(&path)?,
            Source::Default => Identity::load_or_create(&Places::from_env()?.identity)?,
        };
        let path = match self.trust_file.take() {
            Some(path) => Some(path),
            None if self.trust.is_empty() => Some(Places::from_env()?.trusted),
            None => None,
        };
        let file = path.map(|path| TrustFile::open(&path)).transpose()?;
        let trusted = Trusted::new(std::mem::take(&mut self.trust), file);
        let opened = match self.store.take() {
            Some(store::Place { path, sync }) => {
                Some(Opened { store: Store::open(&path, identity.fingerprint())?, sync })
            }
            None => None,
        };
        Ok((identity, trusted, opened, self))
    }
}
