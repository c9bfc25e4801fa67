//! One process among its peers.

use crate::builder::Builder;
use crate::driver::Command;
use crate::error::{BindError, ConnectError};
use crate::events::{Events, Scope};
use crate::homa::{Homa, HomaConfig, HomaError};
use crate::lock;
use crate::receipt::wait_until;
use crate::shared::Shared;
use crate::socket::MultiSocket;
use crate::state::SessionState;
use crate::strangers::Stranger;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use steadfast_net::Target;
use steadfast_net::address::MAX_TARGET_ADDRESSES;
use steadfast_net::carrier::{AcceptorCounters, AcceptorGauge};
use steadfast_session::{PathInfo, SessionConfig, Stats};
use steadfast_wire::{Fingerprint, Network, NetworkClass, PathNumber};
use tokio::sync::{mpsc, oneshot};

/// One process among its peers: listens, connects, and watches the networks of its host.
///
/// A cheap handle: clones mean the same endpoint. When the last handle and the last conversation's last handle are
/// dropped, what was sent is still delivered (for at most 10 s), the peers are told, and every task and socket is gone.
#[derive(Clone)]
pub struct Endpoint {
    handle: Arc<Handle>,
}

/// What keeps an endpoint alive.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    commands: mpsc::UnboundedSender<Command>,
    connect_limit: Duration,
}

/// What peers are told of how long this endpoint is quiesced.
const SUSPENSION: Duration = Duration::from_secs(60);

/// Whom to connect to: a text as people type it, or a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Destination {
    /// `KEY@ADDRESS,ADDRESS`, as [`Endpoint::contact`] gives it, or `HOST:PORT` or `HOST` of a trusted peer of that name.
    Text(String),
    /// The same, taken apart.
    Target(Target),
}

impl From<&str> for Destination {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<&String> for Destination {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Destination {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Target> for Destination {
    fn from(target: Target) -> Self {
        Self::Target(target)
    }
}

impl Endpoint {
    /// Begins an endpoint; [`Builder::bind`] makes it.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(
        shared: Arc<Shared>,
        addresses: Arc<Mutex<Vec<SocketAddr>>>,
        commands: mpsc::UnboundedSender<Command>,
        connect_limit: Duration,
    ) -> Self {
        Self { handle: Arc::new(Handle { shared, addresses, commands, connect_limit }) }
    }

    pub(crate) fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.handle)
    }

    /// Whether the driver takes it.
    pub(crate) fn command(&self, command: Command) -> bool {
        self.handle.commands.send(command).is_ok()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Opens a conversation, with the settings of the [`Builder`].
    ///
    /// `KEY@ADDRESS,ADDRESS` (what [`contact`](Self::contact) of the other side gives) names a peer completely; its key
    /// is trusted from then on, as long as this endpoint lives. `HOST` or `HOST:PORT` is a peer that the trust file
    /// knows by the name `HOST`, at that address. All addresses are tried over all networks.
    ///
    /// Returns when the peer has answered; fails when it refuses or the limit has passed
    /// ([`Builder::connect_limit`]). Cancel safe: cancelling gives the conversation up.
    pub async fn connect(&self, to: impl Into<Destination>) -> Result<MultiSocket, ConnectError> {
        self.connect_with(to, self.shared().session_config).await
    }

    /// Opens a conversation as [`connect`](Self::connect) does, with settings of its own.
    pub async fn connect_with(
        &self,
        to: impl Into<Destination>,
        config: SessionConfig,
    ) -> Result<MultiSocket, ConnectError> {
        let limit = self.handle.connect_limit;
        let to = to.into();
        let deadline = tokio::time::Instant::now() + limit;
        let (peer, addresses) = self.find(to).await?;
        if self.shared().is_closed() {
            return Err(ConnectError::Closed);
        }
        let state = self.shared().call(|inner, now| {
            let session = inner.core.connect(now, peer, &addresses, config);
            let state = Arc::new(SessionState::new(session, peer, false));
            if let Some(judgement) = inner.core.verdict(session) {
                state.judge(judgement);
            }
            inner.sessions.insert(session, Arc::clone(&state));
            state
        });
        // From here on dropping the socket, and so this future, gives the conversation up.
        let socket = MultiSocket::new(Arc::clone(&self.handle), Arc::clone(&state));
        let settled = wait_until(&state.changed, || {
            if let Some(ended) = state.ended() {
                return Some(Err(ConnectError::Ended { peer, ended: ended.into() }));
            }
            if state.is_opened() {
                return Some(Ok(()));
            }
            state.refused().map(|reason| Err(ConnectError::Refused { peer, reason }))
        });
        match tokio::time::timeout_at(deadline, settled).await {
            Ok(Ok(())) => Ok(socket),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                Err(ConnectError::Unreachable { peer, addresses: addresses.join(", "), limit })
            }
        }
    }

    /// The key and the addresses of a destination.
    pub(crate) async fn find(&self, to: Destination) -> Result<(Fingerprint, Vec<SocketAddr>), ConnectError> {
        let target = match to {
            Destination::Text(text) => text.trim().parse::<Target>()?,
            Destination::Target(target) => target,
        };
        let trusted = &self.shared().trusted;
        let peer = if let Some(key) = target.fingerprint {
            key
        } else {
            let names: Vec<_> =
                target.addresses.iter().map(|address| host_name(&address.to_string())).collect();
            let found = names.iter().find_map(|name| trusted.find(name));
            let name = names.into_iter().next().unwrap_or_default();
            found.ok_or_else(|| ConnectError::UnknownPeer { target: target.to_string(), name })?
        };
        if peer == self.fingerprint() {
            return Err(ConnectError::Itself(peer));
        }
        let addresses = target.resolve(self.handle.connect_limit).await?;
        if target.fingerprint.is_some() {
            trusted.give(peer);
        }
        Ok((peer, addresses))
    }

    /// Waits for the next conversation that a peer opens; `None` once the endpoint is closed.
    ///
    /// Cancel safe: no conversation is lost.
    pub async fn accept(&self) -> Option<MultiSocket> {
        let shared = self.shared();
        let state = wait_until(&shared.incoming, || {
            let accepted = shared.call(|inner, now| {
                let (session, _) = inner.core.accept(now, shared.session_config)?;
                inner.sessions.get(&session).cloned()
            });
            accepted.map(Some).or_else(|| shared.is_closed().then_some(None))
        });
        Some(MultiSocket::new(Arc::clone(&self.handle), state.await?))
    }

    /// The Homa transport of this endpoint, for [calls](crate::rpc::Rpc::over_homa) in microseconds: UDP, encrypted with
    /// keys that are agreed on over the endpoint's paths. There is one; it is opened by the first call, and goes when its last handle does.
    pub fn homa(&self) -> Result<Homa, HomaError> {
        self.homa_with(HomaConfig::default())
    }

    /// The same with settings of its own, unless it is open already.
    pub fn homa_with(&self, config: HomaConfig) -> Result<Homa, HomaError> {
        if self.shared().is_closed() {
            return Err(HomaError::Closed);
        }
        Homa::of(self, config)
    }

    /// The addresses that are listened on; unspecified ones (`0.0.0.0`, `[::]`) mean all of this host.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        lock(&self.handle.addresses).clone()
    }

    /// The port that is listened on.
    pub fn port(&self) -> u16 {
        lock(&self.handle.addresses).first().map_or(0, SocketAddr::port)
    }

    /// The public key by which peers know this side.
    pub fn fingerprint(&self) -> Fingerprint {
        self.shared().identity
    }

    /// The one line to give to the other side: `KEY@ADDRESS:PORT,ADDRESS:PORT`, for its [`connect`](Self::connect).
    ///
    /// Has the addresses of all networks that are listened on now; those of the loopback only if there are no others.
    pub fn contact(&self) -> String {
        let bound: Vec<IpAddr> = self.local_addresses().iter().map(SocketAddr::ip).collect();
        let listened = |ip: IpAddr| {
            bound.contains(&ip) || bound.iter().any(|b| b.is_unspecified() && b.is_ipv4() == ip.is_ipv4())
        };
        let usable = |ip: &IpAddr| {
            let local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
            listened(*ip) && !local
        };
        let networks = self.networks();
        let of = |loopback: bool| -> Vec<String> {
            let open = |n: &&Network| self.shared().peek(|inner, _| !inner.core.forbids(n));
            let networks = networks.iter().filter(open);
            let networks = networks.filter(|n| (n.class == NetworkClass::Loopback) == loopback);
            let all = networks
                .flat_map(|network| network.addresses.iter().map(|address| address.ip))
                .filter(usable);
            all.map(|ip| SocketAddr::new(ip, self.port()).to_string()).take(MAX_TARGET_ADDRESSES).collect()
        };
        let outside = of(false);
        let addresses = if outside.is_empty() { of(true) } else { outside };
        format!("{}@{}", self.fingerprint(), addresses.join(","))
    }

    /// The networks of this host now; empty while quiesced.
    pub fn networks(&self) -> Vec<Network> {
        self.shared().networks()
    }

    /// All paths to all peers that are up.
    pub fn paths(&self) -> Vec<PathInfo> {
        self.shared().peek(|inner, _| inner.core.paths())
    }

    /// Measures the round trip of one path now, between the two libraries: [`PathInfo::path`] of [`paths`](Self::paths)
    /// names it. `None` if there is no such path (any more). Cancel safe.
    pub async fn probe(&self, path: PathNumber) -> Option<Duration> {
        let (sender, answer) = oneshot::channel();
        let asked = self.shared().call(|inner, now| {
            let asked = inner.core.probe(now, path);
            if asked {
                let waiting = inner.probes.entry(path).or_default();
                waiting.retain(|other| !other.is_closed());
                waiting.push(sender);
            }
            asked
        });
        if asked { answer.await.ok() } else { None }
    }

    /// Trusts a peer from now on, as long as this endpoint lives, or until it is removed from the trust file.
    pub fn trust(&self, peer: Fingerprint) {
        self.shared().trusted.give(peer);
    }

    /// Waits for a peer whose key is not trusted and that was therefore refused; it may be let in next time by
    /// [`trust`](Self::trust) or through the trust file. At most 16 wait to be told; `None` once the endpoint is closed.
    ///
    /// Cancel safe: none is lost.
    pub async fn next_stranger(&self) -> Option<Stranger> {
        wait_until(&self.shared().strangers.changed, || {
            let stranger = self.shared().strangers.take();
            if stranger.is_none() && self.shared().is_closed() { Some(None) } else { stranger.map(Some) }
        })
        .await
    }

    /// What became of those who connected to this endpoint, since it was made or last revived.
    pub fn reception(&self) -> AcceptorCounters {
        lock(&self.shared().reception).as_ref().map(AcceptorGauge::read).unwrap_or_default()
    }

    /// What was done and refused so far.
    pub fn stats(&self) -> Stats {
        self.shared().peek(|inner, _| inner.core.stats())
    }

    /// The events of all conversations and paths, from now on.
    pub fn events(&self) -> Events {
        self.shared().hub.subscribe(Scope::Everything, self.shared().is_closed())
    }

    /// Ends every conversation, tells every peer why (at most 256 bytes), and closes everything, within about 2 s.
    ///
    /// To have all messages delivered first, [`close`](MultiSocket::close) the conversations before. Calling it again
    /// does nothing. Cancelling leaves the rest to the background.
    pub async fn close(&self, reason: &str) {
        let (done, closed) = oneshot::channel();
        if self.handle.commands.send(Command::Close(reason.into(), done)).is_ok() {
            let _closed_already = closed.await;
        }
    }

    /// Closes every kernel object (listener, carriers, netlink, inotify) and stops the clock; conversations stay, parked,
    /// and what is sent waits. [`revive`](Self::revive) opens everything again.
    ///
    /// Peers are told before, within 1 s, and have the verdict [`Suspended`](crate::Verdict::Suspended) for at most a minute;
    /// those whom the word does not reach see a network failure, or a crash. Cancelling leaves the rest to the background.
    pub async fn quiesce(&self) {
        self.quiesce_for(SUSPENSION).await;
    }

    /// The same for what may take longer, or is sure to be over sooner: peers are told `limit`, of which they grant 10 minutes
    /// at most. If it passes first, they judge the silence as any other.
    pub async fn quiesce_for(&self, limit: Duration) {
        let (done, quiesced) = oneshot::channel();
        if self.handle.commands.send(Command::Quiesce(limit, done)).is_ok() {
            let _closed = quiesced.await;
        }
    }

    /// Undoes [`quiesce`](Self::quiesce): listens on the same port again, and every conversation goes on, whatever the
    /// system's clocks and networks did meanwhile.
    ///
    /// After an error it is still quiesced. Cancelling leaves the rest to the background.
    pub async fn revive(&self) -> Result<(), BindError> {
        let (done, revived) = oneshot::channel();
        self.handle.commands.send(Command::Revive(done)).map_err(|_| BindError::Closed)?;
        revived.await.map_err(|_| BindError::Closed)?
    }
}

/// `boat:7463` is the peer `boat`, `[fd00::1]:7463` is `fd00::1`.
fn host_name(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').into()
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}, port {})", self.fingerprint(), self.port())
    }
}
