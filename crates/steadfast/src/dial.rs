//! Opening carriers when the core asks for them, each in a task of its own.

use crate::driver::MOMENT;
use crate::lock;
use crate::receipt::wait_until;
use crate::shared::Shared;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use steadfast_net::carrier::{DEFAULT_HANDSHAKE_LIMIT, Side, TcpName};
use steadfast_net::tls::TlsError;
use steadfast_net::{Carrier, ConnectOptions, Expect, connect, handshake};
use steadfast_session::Loss;
use steadfast_wire::{Fingerprint, Network, NetworkClass, NetworkId, PathNumber};

impl Shared {
    /// Starts to open the carrier of a path; the core is told what came of it.
    pub(crate) fn dial(
        self: &Arc<Self>,
        path: PathNumber,
        local: NetworkId,
        remote: SocketAddr,
        peer: Fingerprint,
    ) {
        let networks = self.networks();
        let network = networks.iter().find(|network| network.id == local).cloned();
        // An address of another interface of this host is reached through the loopback only by a socket that is not
        // bound to it: the kernel has the route with that interface.
        let device = network.as_ref().filter(|network| network.class != NetworkClass::Loopback);
        let device = device.and_then(|_| lock(&self.scout).as_ref().and_then(|scout| scout.device_of(local)));
        let shared = Arc::clone(self);
        self.carriers.connecting(path, || {
            self.spawn(async move {
                let Some(network) = network else { return shared.lost(path, Loss::Other) };
                let source = source_for(&network, remote.ip());
                let options = ConnectOptions { remote, device, source };
                match open(&shared, path, &options, peer).await {
                    Ok(carrier) => {
                        let local = known_as(&network, carrier.local_addr().ip());
                        shared.connected(path, carrier, local);
                    }
                    Err((error, loss)) => {
                        tracing::debug!(%path, %options, error, "no carrier");
                        shared.lost(path, loss);
                    }
                }
            })
        });
    }

    /// A peer whose key is proved refuses ours, or the other way round: whoever waits for it need not wait longer.
    pub(crate) fn note_refusal(self: &Arc<Self>, peer: Fingerprint, error: &TlsError) {
        if !matches!(error, TlsError::RefusedByPeer(_)) {
            return;
        }
        let waiting: Vec<_> = self.peek(|inner, _| {
            inner.sessions.values().filter(|s| s.peer == peer && !s.is_opened()).cloned().collect()
        });
        for state in waiting {
            state.refuse(&error.to_string());
            state.changed.notify_waiters();
        }
    }

    /// The local networks, as the core knows them.
    pub(crate) fn networks(&self) -> Vec<Network> {
        self.peek(|inner, _| inner.core.networks().to_vec())
    }

    /// The network that a carrier came in on, and the address that the core knows it by.
    pub(crate) fn network_of(&self, carrier: &Carrier) -> Option<(NetworkId, IpAddr)> {
        let (local, remote) = (carrier.local_addr().ip().to_canonical(), carrier.remote_addr().ip());
        let networks = self.networks();
        between(&networks, local, remote).map(|network| (network.id, known_as(network, local)))
    }

    /// Whether a connection that came in may be, by the network between its ends; waits a moment for the network to be
    /// known.
    pub(crate) async fn lets_in(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let (local, remote) = (local.ip().to_canonical(), remote.ip().to_canonical());
        let decided = wait_until(&self.networks_told, || {
            self.peek(|inner, _| {
                let network = between(inner.core.networks(), local, remote);
                let permitted = network.map(|network| !inner.core.forbids(network));
                // Where all are permitted the handshake need not wait.
                if inner.core.forbids_any() { permitted } else { Some(true) }
            })
        });
        tokio::time::timeout(MOMENT, decided).await.unwrap_or(false)
    }
}

/// The network of this host between two addresses, of which the first is local.
fn between(networks: &[Network], local: IpAddr, remote: IpAddr) -> Option<&Network> {
    let holds = |network: &&Network, ip: IpAddr| network.addresses.iter().any(|address| address.ip == ip);
    if local.is_loopback() || networks.iter().any(|network| holds(&network, remote)) {
        networks.iter().find(|network| network.class == NetworkClass::Loopback)
    } else {
        networks.iter().find(|network| holds(network, local))
    }
}

/// Within one host packets take the loopback whatever their addresses: the core then knows the path by an address
/// that the loopback has, or it would look for the path's address in vain.
fn known_as(network: &Network, local: IpAddr) -> IpAddr {
    let all = &network.addresses;
    if network.class != NetworkClass::Loopback || all.iter().any(|address| address.ip == local) {
        return local;
    }
    let same_family = all.iter().find(|address| address.ip.is_ipv4() == local.is_ipv4());
    same_family.or(all.first()).map_or(local, |address| address.ip)
}

async fn open(
    shared: &Arc<Shared>,
    path: PathNumber,
    options: &ConnectOptions,
    peer: Fingerprint,
) -> Result<Carrier, (String, Loss)> {
    let stream = connect(options).await.map_err(|error| {
        let refused = error.source.kind() == io::ErrorKind::ConnectionRefused;
        (error.to_string(), if refused { Loss::Refused } else { Loss::Other })
    })?;
    shared.reached(path, TcpName::of(&stream).ok());
    let side = Side::Connecting(Expect::Key(peer));
    // A refusal within the handshake proves nothing: anybody may answer at an old address. The peer's own comes later.
    handshake(stream, &shared.tls, side, DEFAULT_HANDSHAKE_LIMIT)
        .await
        .map_err(|error| (error.to_string(), Loss::Other))
}

/// The address of `network` to connect from: of the peer's subnet if there is one, else of its kind. The loopback
/// leaves it to the kernel, which then takes the address that is connected to.
fn source_for(network: &Network, remote: IpAddr) -> Option<IpAddr> {
    if network.class == NetworkClass::Loopback {
        return None;
    }
    let link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let fits = |ip: IpAddr| ip.is_ipv4() == remote.is_ipv4() && link_local(ip) == link_local(remote);
    let all = || network.addresses.iter().filter(|address| fits(address.ip));
    let near = all().find(|address| address.same_subnet(remote));
    near.or_else(|| all().next()).map(|address| address.ip)
}
