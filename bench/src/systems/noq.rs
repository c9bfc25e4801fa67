//! QUIC with its multipath extension: noq, one connection, a stream for each lane, a path over each network.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use noq::congestion::CubicConfig;
use noq::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use noq::{
    ClientConfig, Connection, Endpoint, PathStatus, RecvStream, SendStream, ServerConfig, TransportConfig,
};

use tokio::time::{Instant, sleep};

use super::lanes::{Lane, Lanes};
use super::{Ground, Listening, tls};
use crate::child::tell;

/// More than there are networks.
const PATHS: u32 = 4;
/// How long a further path may take.
const OPEN: Duration = Duration::from_secs(5);
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
    let connection = endpoint.connect_with(config, to, tls::NAME)?.await.context("no connection")?;
    for address in ground.addresses.iter().filter(|address| **address != to.ip()) {
        let further = SocketAddr::new(*address, to.port());
        open_path(&connection, further).await?;
    }
    let mut lanes = Vec::new();
    for number in 0..ground.lanes {
        lanes.push(lane(connection.open_bi().await?, number)?);
    }
    Lanes::announced(lanes, (endpoint, connection)).await
}

/// Opens a further path, as soon as the server has said by which ids to call it.
async fn open_path(connection: &Connection, to: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + OPEN;
    while let Err(error) = connection.open_path(to, PathStatus::Available).await {
        if Instant::now() > deadline {
            return Err(error).with_context(|| format!("no path to {to} within {OPEN:?}"));
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
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
