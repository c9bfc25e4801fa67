//! QUIC: quinn, one connection, a stream for each call.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use anyhow::Context;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use socket2::SockRef;
use steadfast::Bytes;

use super::tls;
use crate::systems::calls::{BUFFER, SHORT, answer};

/// Bytes of the longest message.
const LONGEST: usize = 16 << 20;

/// How long packets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packets {
    /// As quinn makes them, which the kernel splits.
    Usual,
    /// As long as it may make them on the loopback.
    Long,
}

/// About the longest packet of UDP over IPv4, in bytes.
const LONG: u16 = 65_000;

/// Windows that are never full.
fn transport(packets: Packets) -> anyhow::Result<Arc<TransportConfig>> {
    let mut config = TransportConfig::default();
    if packets == Packets::Long {
        let mut search = MtuDiscoveryConfig::default();
        search.upper_bound(LONG);
        // The kernel takes no more than one of these at a time.
        config.mtu_discovery_config(Some(search)).enable_segmentation_offload(false);
    }
    config.stream_receive_window(VarInt::try_from(LONGEST)?);
    config.receive_window(VarInt::try_from(8 * LONGEST)?).send_window(8 * LONGEST as u64);
    Ok(Arc::new(config))
}

fn endpoint(server: Option<ServerConfig>, packets: Packets) -> anyhow::Result<Endpoint> {
    let mut config = EndpointConfig::default();
    if packets == Packets::Long {
        config.max_udp_payload_size(LONG)?;
    }

    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    SockRef::from(&socket).set_recv_buffer_size(BUFFER)?;
    SockRef::from(&socket).set_send_buffer_size(BUFFER)?;
    Ok(Endpoint::new(config, server, socket, Arc::new(TokioRuntime))?)
}

/// A client over a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    _endpoint: Endpoint,
    connection: Connection,
}

impl Client {
    pub(super) async fn connect(
        to: SocketAddr,
        certificate: Vec<u8>,
        packets: Packets,
    ) -> anyhow::Result<Self> {
        let crypto = QuicClientConfig::try_from(tls::client_config(certificate)?)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport(packets)?);
        let endpoint = endpoint(None, packets)?;
        let connection = endpoint.connect_with(config, to, tls::NAME)?.await.context("no connection")?;
        Ok(Self { _endpoint: endpoint, connection })
    }

    /// Makes a call.
    pub(crate) async fn call(&self, body: Bytes) -> anyhow::Result<Bytes> {
        let (mut output, mut input) = self.connection.open_bi().await?;
        output.write_chunk(body).await?;
        output.finish()?;
        Ok(input.read_to_end(SHORT).await?.into())
    }
}

/// A server that listens, and its certificate (DER).
pub(super) fn listen(packets: Packets) -> anyhow::Result<(Endpoint, Vec<u8>)> {
    let (crypto, certificate) = tls::server_config()?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(crypto)?));
    config.transport_config(transport(packets)?);
    Ok((endpoint(Some(config), packets)?, certificate.to_vec()))
}

/// Serves one connection until it ends.
pub(super) async fn serve(endpoint: Endpoint) -> anyhow::Result<()> {
    let connection = endpoint.accept().await.context("the endpoint was closed")?.await?;
    loop {
        let (mut output, mut input) = connection.accept_bi().await?;
        tokio::spawn(async move {
            let request = input.read_to_end(LONGEST).await?;
            output.write_chunk(answer(request.into())).await?;
            output.finish()?;
            anyhow::Ok(())
        });
    }
}
