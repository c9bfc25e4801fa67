//! A daemon in a place of its own, that can be ended and started again.

use std::future::Future;
use std::path::Path;

use steadfast::backplane::{Backplane, Builder, Declaration, Events, Notice, Publication, Subscribing};
use steadfast::{Identity, ScoutConfig};
use steadfast_daemon::{Daemon, Settings};
use steadfast_net::Places;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::host::Directory;
pub(crate) use crate::host::GUARD;

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future).await.unwrap_or_else(|_| panic!("{what}: it does not end"))
}

/// One host.
pub(crate) struct Host {
    directory: Directory,
    identity: Identity,
    pub(crate) settings: Settings,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Host {
    /// Its daemon does not run yet.
    pub(crate) fn new() -> Self {
        let directory = Directory::new();
        let place = &directory.0;
        let settings = Settings {
            socket: Some(place.join("agent.sock")),
            state: Some(place.clone()),
            ..Settings::default()
        };
        Self { directory, identity: Identity::generate().unwrap(), settings, running: None }
    }

    /// With its daemon.
    pub(crate) async fn started() -> Self {
        let mut host = Self::new();
        host.start().await;
        host
    }

    pub(crate) fn place(&self) -> &Path {
        &self.directory.0
    }

    pub(crate) async fn daemon(&self) -> Result<Daemon, steadfast_daemon::DaemonError> {
        let home = self.place().as_os_str().to_owned();
        let places = Places::from_variables(|name| (name == "HOME").then(|| home.clone())).unwrap();
        let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
        Daemon::start(&self.settings, scout, &places, &self.identity).await
    }

    pub(crate) async fn start(&mut self) {
        let daemon = self.daemon().await.unwrap();
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            daemon.run(async { drop(ended.await) }).await;
            daemon.close().await;
        });
        self.running = Some((end, task));
    }

    /// Ends the daemon; connections are cut.
    pub(crate) async fn end(&mut self) {
        let (end, task) = self.running.take().unwrap();
        end.send(()).unwrap();
        soon("the daemon's end", task).await.unwrap();
    }

    pub(crate) fn builder(&self, space: Option<&str>) -> Builder {
        Backplane::builder(space).unwrap().socket(self.place().join("agent.sock"))
    }

    /// A client that publishes `A` in `a.b.c`.
    pub(crate) async fn client(&self) -> Backplane {
        let client = soon("connecting", self.builder(Some("a.b.c")).connect()).await.unwrap();
        client.declare([Declaration::new("A", "info").unwrap()]).await.unwrap();
        client
    }

    /// Everything, to a client of its own.
    pub(crate) async fn all(&self) -> Events {
        let client = soon("connecting", self.builder(None).connect()).await.unwrap();
        client.subscribe("", Subscribing::default().queue(1 << 20)).await.unwrap()
    }
}

pub(crate) fn a(payload: impl ToString) -> Publication {
    Publication::new("A", payload.to_string()).unwrap()
}

/// The payloads of what comes, until there are so many; restarts are passed over.
pub(crate) async fn payloads(events: &mut Events, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < count {
        match soon("an event", events.next()).await {
            Some(Notice::Event(delivery)) => {
                found.push(String::from_utf8(delivery.event.payload.bytes().to_vec()).unwrap());
            }
            Some(Notice::Restarted) => {}
            other => panic!("{other:?} after {found:?}"),
        }
    }
    found
}
