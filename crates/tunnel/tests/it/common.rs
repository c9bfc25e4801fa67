//! A client and a server, and targets.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use steadfast::{Builder, Endpoint, Identity, Labels, ScoutConfig};
use steadfast_tunnel::{AllowList, Client, Event, Forward, Monitor, Server, config};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

/// Nothing that works takes this long, on however slow a machine.
const GUARD: Duration = Duration::from_secs(60);

/// Awaits what must happen.
pub(crate) async fn soon<R>(what: &str, future: impl Future<Output = R>) -> R {
    match tokio::time::timeout(GUARD, future).await {
        Ok(result) => result,
        Err(tokio::time::error::Elapsed { .. }) => panic!("{what}: did not happen within {GUARD:?}"),
    }
}

pub(crate) fn local() -> Builder {
    let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
    Endpoint::builder().scout(scout).config(config()).addresses([IpAddr::V4(Ipv4Addr::LOCALHOST)])
}

pub(crate) async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Two endpoints with a tunnel between them.
pub(crate) struct World {
    pub(crate) client: Endpoint,
    pub(crate) server: Endpoint,
    pub(crate) forwards: Vec<Forward>,
    /// What the client tells, and the server.
    pub(crate) told: [UnboundedReceiver<Event>; 2],
    identity: PathBuf,
    running: JoinHandle<()>,
    serving: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.running.abort();
        self.serving.abort();
        let _left_behind = std::fs::remove_file(&self.identity);
    }
}

/// A file of this world's own.
fn identity_file() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("steadfast-tunnel-it-{}-{number}", std::process::id()))
}

fn monitor() -> (Monitor, UnboundedReceiver<Event>) {
    let (sender, events) = unbounded_channel();
    let monitor = Monitor::new(move |event| {
        let _over = sender.send(event);
    });
    (monitor, events)
}

/// Serves every conversation.
pub(crate) fn serve(endpoint: &Endpoint, allowed: &[String], monitor: Monitor) -> JoinHandle<()> {
    let mut list = AllowList::default();
    for text in allowed {
        list.allow(text).unwrap();
    }
    let (endpoint, server) = (endpoint.clone(), Server::new(list, monitor));
    tokio::spawn(async move {
        while let Some(socket) = endpoint.accept().await {
            let server = server.clone();
            tokio::spawn(async move { server.serve(socket).await });
        }
    })
}

impl World {
    /// Forwards to these targets under these labels, of which some are allowed.
    pub(crate) async fn new(targets: &[(String, Labels)], allowed: &[String]) -> Self {
        let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let (a_key, b_key) = (a.fingerprint(), b.fingerprint());
        let identity = identity_file();
        b.save(&identity).unwrap();
        let client = local().identity(a).trust(b_key).bind().await.unwrap();
        let server = local().identity(b).trust(a_key).bind().await.unwrap();
        let mut forwards = Vec::new();
        for (target, labels) in targets {
            let (listener, _) = listener().await;
            forwards.push(Forward::new(listener, target.parse().unwrap(), labels.clone()));
        }
        let ((from_client, client_told), (from_server, server_told)) = (monitor(), monitor());
        let serving = serve(&server, allowed, from_server);
        let peer = server.contact().parse().unwrap();
        let running = Client::new(client.clone(), peer, forwards.clone(), from_client);
        let running = tokio::spawn(async move { running.run().await.unwrap() });
        Self { client, server, forwards, told: [client_told, server_told], identity, running, serving }
    }

    /// The server's process ends, and another one of the same identity comes to the same port.
    pub(crate) async fn restart_server(&mut self, allowed: &[String]) {
        self.serving.abort();
        let port = self.server.port();
        self.server.close("it is started anew").await;
        let builder = local().identity_file(&self.identity).trust(self.client.fingerprint()).port(port);
        self.server = builder.bind().await.unwrap();
        let (monitor, told) = monitor();
        self.told[1] = told;
        self.serving = serve(&self.server, allowed, monitor);
    }

    /// The client is cancelled, as at Ctrl-C.
    pub(crate) fn stop_client(&self) {
        self.running.abort();
    }

    /// A program connects.
    pub(crate) async fn connect(&self, forward: usize) -> TcpStream {
        TcpStream::connect(self.forwards[forward].address().unwrap()).await.unwrap()
    }

    /// Waits until a side tells something.
    pub(crate) async fn until<R>(
        &mut self,
        side: usize,
        what: &str,
        found: impl Fn(Event) -> Option<R>,
    ) -> R {
        soon(what, async {
            loop {
                let event = self.told[side].recv().await.unwrap();
                if let Some(found) = found(event) {
                    return found;
                }
            }
        })
        .await
    }

    /// Waits for the end of a connection; why it broke.
    pub(crate) async fn closed(&mut self, side: usize) -> Option<String> {
        let closed = |event| match event {
            Event::Closed { reason, .. } => Some(reason),
            _ => None,
        };
        self.until(side, "the end of a connection", closed).await
    }
}
