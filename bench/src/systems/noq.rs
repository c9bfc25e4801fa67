//! QUIC with its multipath extension: noq, one connection, a stream for each lane, a path over each network.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use noq::congestion::CubicConfig;
use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use noq::{
    ClientConfig, Connection, Endpoint, PathEvent, PathId, PathStatus, RecvStream, SendStream, ServerConfig,
    TransportConfig,
};

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt as _;

use super::lanes::{Lane, Lanes};
use super::{Ground, Listening, tls};
use crate::child::tell;

/// More than there are networks.
const PATHS: u32 = 4;
/// How long a further path may take.
const OPEN: Duration = Duration::from_secs(5);
/// From one attempt to open a path again to the next.
const AGAIN: Duration = Duration::from_millis(100);
/// With two networks: the shortest that moved a conversation without giving up paths that were well.
const KEEP_ALIVE: Duration = Duration::from_millis(50);
const PATH_IDLE: Duration = Duration::from_millis(200);

/// Everything else is as noq has it.
fn transport(ground: &Ground) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config.congestion_controller_factory(Arc::new(CubicConfig::default()));
    config.max_concurrent_multipath_paths(PATHS);
    if ground.addresses.len() > 1 {
        config.default_path_keep_alive_interval(Some(KEEP_ALIVE));
        config.default_path_max_idle_timeout(Some(PATH_IDLE));
    }
    Arc::new(config)
}

/// A client's lanes.
pub(super) async fn client(to: SocketAddr, certificate: Vec<u8>, ground: &Ground) -> anyhow::Result<Lanes> {
    let crypto = QuicClientConfig::try_from(tls::client_config(certificate)?)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(ground));
    let endpoint = Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into())?;
    let first = to.ip();
    let connection = endpoint.connect_with(config, to, tls::NAME)?.await.context("no connection")?;
    let mut kept = JoinSet::new();
    for address in &ground.addresses {
        let to = SocketAddr::new(*address, to.port());
        let path = if *address == first { PathId::ZERO } else { open_path(&connection, to).await? };
        kept.spawn(keep_path(connection.clone(), path, to));
    }
    let mut lanes = Vec::new();
    for number in 0..ground.lanes {
        lanes.push(lane(connection.open_bi().await?, number)?);
    }
    Lanes::announced(lanes, (endpoint, connection, kept)).await
}

/// Opens a further path, as soon as the server has said by which ids to call it.
async fn open_path(connection: &Connection, to: SocketAddr) -> anyhow::Result<PathId> {
    let deadline = Instant::now() + OPEN;
    loop {
        match connection.open_path(to, PathStatus::Available).await {
            Ok(path) => return Ok(path.id()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("no path to {to} within {OPEN:?}"));
            }
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Opens a path again each time that it was given up. Beside bulk that happens to a path that is well: bulk goes over the
/// first, and so do the acknowledgements of the other.
async fn keep_path(connection: Connection, mut path: PathId, to: SocketAddr) {
    let mut events = connection.path_events();
    while let Some(event) = events.next().await {
        if !matches!(event, Ok(PathEvent::Abandoned { id, .. }) if id == path) {
            continue;
        }
        loop {
            if connection.close_reason().is_some() {
                return;
            }
            if let Ok(opened) = connection.open_path(to, PathStatus::Available).await {
                path = opened.id();
                break;
            }
            sleep(AGAIN).await;
        }
    }
}

/// A server's lanes.
pub(super) async fn server(ground: &Ground) -> anyhow::Result<Lanes> {
    let (crypto, certificate) = tls::server_config()?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(crypto)?));
    config.transport_config(transport(ground));
    let endpoint = Endpoint::server(config, (Ipv4Addr::UNSPECIFIED, 0).into())?;
    let contact = SocketAddr::new(ground.first(), endpoint.local_addr()?.port()).to_string();
    tell(&Listening { contact, certificate: certificate.to_vec() });
    let Some(incoming) = endpoint.accept().await else { bail!("the endpoint was closed") };
    let connection = incoming.await.context("no connection")?;
    let mut lanes = Vec::new();
    for number in 0..ground.lanes {
        // Streams come in the order of their numbers.
        lanes.push(lane(connection.accept_bi().await?, number)?);
    }
    Lanes::sorted(lanes, (endpoint, connection)).await
}

/// The first lane goes ahead of the others.
fn lane((output, input): (SendStream, RecvStream), number: u8) -> anyhow::Result<Lane> {
    output.set_priority(-i32::from(number))?;
    Ok(Lane::new(input, output))
}
