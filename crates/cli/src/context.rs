//! From the global options to an endpoint that is ready, and from what was typed to a peer.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use steadfast::{BindError, Builder, Endpoint, MultiSocket, Places, Target, TrustFile};

use crate::config::Config;
use crate::duration;
use crate::exit::Failure;

/// How long a port that is taken is waited for, and how often it is tried.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
const PORT_PAUSE: Duration = Duration::from_millis(100);

/// Options that every command has, before or after its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Globals {
    /// The configuration, instead of ~/.config/steadfast/config.toml or else /etc/steadfast/config.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The private key of this side, instead of ~/.config/steadfast/identity.
    #[arg(long, global = true, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Print JSON: one object, or one a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Options of commands that connect.
#[derive(Debug, Args)]
pub(crate) struct Connecting {
    /// How long to wait for the peer's first answer.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse, help_heading = "Options")]
    pub(crate) connect_limit: Duration,
}

/// What a command works with.
pub(crate) struct Context {
    pub(crate) places: Places,
    /// Whether the configuration file was asked for by name, and so must be there.
    config_named: bool,
}

impl Context {
    /// Finds the files; reads none. Starts no thread.
    pub(crate) fn new(globals: &Globals) -> anyhow::Result<Self> {
        let mut places = Places::from_env().map_err(|error| Failure::usage(error.to_string()))?;
        let variable = std::env::var_os("STEADFAST_CONFIG").is_some_and(|value| !value.is_empty());
        let config_named = variable || globals.config.is_some();
        if let Some(path) = &globals.config {
            places.config.clone_from(path);
        }
        if let Some(path) = &globals.identity {
            places.identity.clone_from(path);
        }
        Ok(Self { places, config_named })
    }

    /// Reads the configuration.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        Config::load(&self.places.config, self.config_named)
    }

    /// What another process of this program is told, so that it reads the same configuration.
    pub(crate) fn config_words(&self) -> Vec<OsString> {
        let named = self.config_named.then(|| ["--config".into(), self.places.config.clone().into()]);
        named.into_iter().flatten().collect()
    }

    /// Reads the trusted peers.
    pub(crate) fn trusted(&self) -> anyhow::Result<TrustFile> {
        Ok(TrustFile::open(&self.places.trusted)?)
    }

    /// An endpoint of this user: identity, trusted peers and networks are set. Its port is any that is free.
    pub(crate) fn builder(&self, config: &Config) -> Builder {
        Endpoint::builder()
            .identity_file(&self.places.identity)
            .trust_file(&self.places.trusted)
            .scout(config.scout())
            .never_connect(config.never_connect())
            .daemon(Some(crate::events::socket(config).with_file_name("daemon.sock")))
    }

    /// An endpoint at this port, or where others look first, or at any. `more` adds to its settings.
    pub(crate) async fn listen(
        &self,
        config: &Config,
        port: Option<u16>,
        more: impl Fn(Builder) -> Builder,
    ) -> anyhow::Result<Endpoint> {
        let bind = |port| more(self.builder(config)).port(port).bind();
        let patience = tokio::time::Instant::now() + PORT_PATIENCE;
        loop {
            match bind(port.unwrap_or(config.port)).await {
                // One that was stopped just now may still hold it, and its peers look for the next one there.
                Err(BindError::Listen(_)) if tokio::time::Instant::now() < patience => {
                    tokio::time::sleep(PORT_PAUSE).await;
                }
                Err(BindError::Listen(_)) if port.is_none() => return Ok(bind(0).await?),
                other => return Ok(other?),
            }
        }
    }

    /// The peer that is meant by `HOST[:PORT]`, a name of the configuration, or `KEY@ADDRESS,ADDRESS`.
    pub(crate) fn target(&self, config: &Config, text: &str) -> anyhow::Result<Target> {
        let text = text.trim();
        let Some(peer) = config.hosts.get(text) else {
            return text.parse().map_err(|error: <Target as std::str::FromStr>::Err| {
                Failure::usage(error.to_string()).into()
            });
        };
        let mut target = peer.0.clone();
        if target.fingerprint.is_none() {
            // Its own name comes first; those of its addresses are looked for when it is connected to.
            target.fingerprint = self.trusted()?.find_by_name(text);
        }
        Ok(target)
    }

    /// Binds an endpoint and opens a conversation with `host`.
    pub(crate) async fn connect(
        &self,
        host: &str,
        options: &Connecting,
    ) -> anyhow::Result<(Endpoint, MultiSocket)> {
        let config = self.config()?;
        let target = self.target(&config, host)?;
        let endpoint = self.builder(&config).connect_limit(options.connect_limit).bind().await?;
        let socket = endpoint.connect(target).await.map_err(|error| {
            let error = anyhow::Error::from(error);
            // The key and the addresses are in the error; what else the peer is called is not.
            if host.contains('@') { error } else { error.context(format!("cannot reach {host}")) }
        })?;
        Ok((endpoint, socket))
    }
}

/// Runs a command's future on a runtime of its own: not before this does the program have more than one thread.
pub(crate) fn run<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("cannot start the threads that this command needs")?;
    let result = runtime.block_on(future);
    // A look-up of a name cannot be stopped, and nobody waits for it any more.
    runtime.shutdown_background();
    result
}
