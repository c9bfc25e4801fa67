//! Calls in microseconds over one network: the Homa transport, over UDP or as IP protocol 146.
//!
//! ```
//! use steadfast::homa::Homa;
//! use steadfast::rpc::{CallOptions, Request, Response, Rpc};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let here = "127.0.0.1:0".parse()?;
//!     let (client, server) = (Homa::plain(here)?, Homa::plain(here)?);
//!     let echo = async |request: Request| Response::new(request.into_body());
//!     let _serving = server.serve(99, echo)?;
//!
//!     let rpc = Rpc::over_homa(&client.peer(server.local_addr())?, 99);
//!     let response = rpc.call("hello", CallOptions::default()).await?;
//!     assert_eq!(response.into_bytes().await?, "hello");
//!     Ok(())
//! }
//! ```
//!
//! [`Homa::plain`] is UDP without encryption, on the loopback alone; [`Endpoint::homa`](crate::Endpoint::homa) is UDP whose packets are
//! encrypted with keys that the endpoint's connections agree on; [`Homa::raw`] is IP protocol 146 as the Linux module
//! speaks it. `docs/homa.md` says which to take, and when to use a conversation instead.
//!
//! [`Rpc`](crate::rpc::Rpc) calls and [`Homa::serve`] answers with the same handlers and outcomes as over a conversation. Beneath,
//! a [`Port`] sends and takes requests as messages: in batches, polled, into buffers that are given in advance.
//!
//! Invariants: a request is sent from the caller's own task, an answer that is there at once from the task that read its
//! request; work per turn is bounded; tables are, by the transport's settings; dropping what is awaited cancels it; a
//! packet that is not proven changes nothing where packets are sealed; the secret of a key is said on encrypted paths
//! only, and dies with the association. Absent: bodies that are read as they arrive.
//!
//! | file | one idea |
//! |---|---|
//! | `engine.rs`, `alarm.rs` | what is shared; packets in and out; ways to peers; when the clock is looked at |
//! | `machine.rs` | the transport behind its lock, calls that wait, messages that arrive |
//! | `peers.rs` | peers of the transport: addresses, lanes, keys |
//! | `peer.rs` | whom users call; what the endpoint says of processes |
//! | `call.rs`, `serve.rs` | calls; handlers |
//! | `port.rs` | the transport without handlers |
//! | `assembly.rs`, `config.rs`, `error.rs` | a message that arrives; settings; errors |

mod alarm;
mod assembly;
mod call;
mod config;
mod engine;
mod error;
mod machine;
mod peer;
mod peers;
mod port;
mod serve;
#[cfg(test)]
mod tests;

pub(crate) use call::{Caller, Outstanding, of_fault};
pub(crate) use engine::{Engine, Handle};

pub use config::HomaConfig;
pub use error::{HomaError, SendError, Silence};
pub use peer::Peer;
pub use peers::From;
pub use port::{Arrived, Incoming, Port, RequestId, RequestOptions};
pub use serve::{Server, ServerStats};
pub use steadfast_homa::packet::Refusal;
pub use steadfast_homa::{Config, Metrics, Outcome, PortError, Reason, RespondError};
pub use steadfast_net::datagram::SocketError;

use crate::endpoint::{Destination, Endpoint};
use crate::lock;
use crate::rpc::Handler;
use peers::Form;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use steadfast_homa::packet::Dialect;
use steadfast_net::datagram::{Socket, SocketConfig};

/// A Homa transport of this process: client and server at once. A cheap handle. When the last one is gone, with all that
/// was made of it, what is open is cancelled and every socket closed.
///
/// It must be made within a tokio runtime, where a task for each socket receives.
#[derive(Clone)]
pub struct Homa {
    handle: Arc<Handle>,
}

impl Homa {
    /// UDP in the clear, for processes of one host: only loopback addresses are taken, on both sides. Port 0 is any that is free.
    pub fn plain(address: SocketAddr) -> Result<Self, HomaError> {
        Self::plain_with(address, HomaConfig::default())
    }

    /// The same with settings of its own.
    pub fn plain_with(address: SocketAddr, config: HomaConfig) -> Result<Self, HomaError> {
        let socket = Socket::plain(address, &of_socket(&config))?;
        Self::clear(vec![socket], Dialect::Steadfast, config)
    }

    /// IP protocol 146, as the Linux module speaks it. Nothing is encrypted or proven: it is for networks whose hosts are all
    /// trusted, and needs `CAP_NET_RAW`. Messages have at most 1,000,000 bytes.
    pub fn raw(address: IpAddr) -> Result<Self, HomaError> {
        Self::raw_with(address, HomaConfig::default())
    }

    /// The same with settings of its own.
    pub fn raw_with(address: IpAddr, config: HomaConfig) -> Result<Self, HomaError> {
        let socket = Socket::raw(address, &of_socket(&config))?;
        Self::clear(vec![socket], Dialect::Linux, config)
    }

    /// The same on all addresses of this host, of IPv4 and, where the host has it, of IPv6.
    pub fn raw_everywhere(config: HomaConfig) -> Result<Self, HomaError> {
        let open = |address: IpAddr| Socket::raw(address, &of_socket(&config));
        let mut sockets = vec![open(Ipv4Addr::UNSPECIFIED.into())?];
        match open(Ipv6Addr::UNSPECIFIED.into()) {
            Ok(socket) => sockets.push(socket),
            Err(error) => tracing::debug!(%error, "without IPv6"),
        }
        Self::clear(sockets, Dialect::Linux, config)
    }

    fn clear(sockets: Vec<Socket>, dialect: Dialect, config: HomaConfig) -> Result<Self, HomaError> {
        let address = first_address(&sockets);
        let engine = Engine::open(sockets, Form::Clear(dialect), config, None)?;
        Ok(Self {
            handle: Arc::new(Handle { engine, endpoint: None, address, config: HomaConfig::default() }),
        })
    }

    /// Sealed UDP beside an endpoint.
    pub(crate) fn of(endpoint: &Endpoint, config: HomaConfig) -> Result<Self, HomaError> {
        let shared = endpoint.shared();
        let mut slot = lock(&shared.homa);
        if let Some(handle) = slot.upgrade() {
            return Ok(Self { handle });
        }
        let sockets = sealed_sockets(&endpoint.local_addresses(), &config)?;
        let address = first_address(&sockets);
        let engine = Engine::open(sockets, Form::Sealed, config.clone(), Some(Arc::clone(shared)))?;
        let endpoint = Some(endpoint.clone());
        let handle = Arc::new(Handle { engine: Arc::clone(&engine), endpoint, address, config });
        *slot = Arc::downgrade(&handle);
        drop(slot);
        shared.opened_homa(&engine);
        Ok(Self { handle })
    }

    /// The address of its (first) socket; its port is 0 if it is raw.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.address
    }

    /// A peer at an address, where packets are not sealed. Nothing is sent yet.
    pub fn peer(&self, address: SocketAddr) -> Result<Peer, HomaError> {
        if self.handle.endpoint.is_some() {
            let advice = "this transport calls keys, not addresses: use `connect` with KEY@ADDRESS";
            return Err(HomaError::Kind { peer: address.to_string(), advice });
        }
        let address =
            if self.handle.address.port() == 0 { SocketAddr::new(address.ip(), 0) } else { address };
        Ok(Peer::at(Arc::clone(&self.handle), address))
    }

    /// Finds a peer by its key, as [`Endpoint::connect`] does, and agrees on keys with it; it is kept in reach until the
    /// last handle is dropped.
    ///
    /// Fails when the limit has passed ([`HomaConfig::connect_limit`]). Cancel safe.
    pub async fn connect(&self, to: impl Into<Destination>) -> Result<Peer, HomaError> {
        let to = to.into();
        let Some(endpoint) = &self.handle.endpoint else {
            let peer = format!("{to:?}");
            let advice = "this transport calls addresses: use `peer`, or a transport of an endpoint";
            return Err(HomaError::Kind { peer, advice });
        };
        let (key, addresses) = endpoint.find(to).await?;
        Peer::reach(Arc::clone(&self.handle), key, addresses, self.handle.engine.connect_limit).await
    }

    /// Serves the calls to a port, 1 to 32,767, in tasks of the current runtime: at most 1,024 handlers wait for something
    /// at once, the others wait for their turn. What a handler returns is sent whole.
    pub fn serve(&self, port: u16, handler: impl Handler) -> Result<Server, HomaError> {
        Server::start(Arc::clone(&self.handle), port, handler, None)
    }

    /// The same with another bound for handlers that wait for something.
    pub fn serve_with(
        &self,
        port: u16,
        handler: impl Handler,
        concurrency: usize,
    ) -> Result<Server, HomaError> {
        Server::start(Arc::clone(&self.handle), port, handler, Some(concurrency))
    }

    /// Opens a port for messages without handlers: of this number (1 to 32,767), where requests are taken; or of none that matters,
    /// to send requests from.
    pub fn open(&self, port: Option<u16>) -> Result<Port, HomaError> {
        Port::open(Arc::clone(&self.handle), port)
    }

    /// Requests of this side that are unanswered, and those of peers that are here.
    pub fn open_requests(&self) -> (usize, usize) {
        lock(&self.handle.engine.machine).open()
    }

    /// The transport's counters.
    pub fn metrics(&self) -> Metrics {
        lock(&self.handle.engine.machine).transport.metrics().clone()
    }
}

/// A socket for each family of addresses that is listened on, IPv4 first.
pub(crate) fn sealed_sockets(listened: &[SocketAddr], config: &HomaConfig) -> Result<Vec<Socket>, HomaError> {
    let mut sockets = Vec::new();
    for v6 in [false, true] {
        let mut ips = listened.iter().map(SocketAddr::ip).filter(|ip| ip.is_ipv6() == v6);
        let Some(first) = ips.next() else { continue };
        let any = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
        let ip = if ips.next().is_none() { first } else { any };
        sockets.push(Socket::sealed(SocketAddr::new(ip, 0), &of_socket(config))?);
    }
    Ok(sockets)
}

fn first_address(sockets: &[Socket]) -> SocketAddr {
    sockets.first().map_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0), Socket::local_addr)
}

fn of_socket(config: &HomaConfig) -> SocketConfig {
    let mut socket = SocketConfig::default();
    socket.receive_buffer = config.receive_buffer;
    socket
}

impl fmt::Debug for Homa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Homa({}, {:?} requests)", self.local_addr(), self.open_requests())
    }
}
