//! What the kernel knows of a TCP connection.
//!
//! Asked through netlink (`sock_diag(7)`), since the socket option has no safe wrapper that tells unsent bytes.

use crate::netlink::{self, attributes, error_of, messages, number32, number64, request};
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_INFO: u16 = 2;
const IPPROTO_TCP: u8 = 6;
/// Length of `struct inet_diag_msg`, behind which the attributes begin.
const ANSWER: usize = 72;

/// What the kernel knows of a connection (`struct tcp_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TcpInfo {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Its mean deviation.
    pub rtt_variance: Duration,
    /// The least round-trip time in the kernel's window (minutes).
    pub rtt_minimum: Duration,
    /// The timeout after which the kernel sends again.
    pub retransmission_timeout: Duration,
    /// Payload bytes of a full segment.
    pub segment_size: u32,
    /// Segments sent and not acknowledged.
    pub unacknowledged_segments: u32,
    /// Segments that the kernel takes for lost.
    pub lost_segments: u32,
    /// Segments sent again since the connection began.
    pub retransmitted_segments: u32,
    /// The congestion window, in segments.
    pub congestion_window: u32,
    /// Bytes that the kernel holds and has not sent once.
    pub unsent_bytes: u32,
    /// Bytes that the peer's kernel has acknowledged.
    pub acknowledged_bytes: u64,
    /// Bytes received in order.
    pub received_bytes: u64,
    /// The latest rate of delivery, in bytes a second.
    pub delivery_rate: u64,
    /// How long ago bytes last came from the peer.
    pub last_data_received: Duration,
    /// How long ago the peer's kernel last acknowledged something.
    pub last_ack_received: Duration,
    /// How often in a row it did not answer when it was asked about its closed window.
    pub unanswered_probes: u8,
}

/// By what the kernel knows a connection: to ask about it, whoever holds the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpName {
    local: SocketAddr,
    remote: SocketAddr,
    interface: u32,
}

impl TcpName {
    /// That of a connection.
    pub fn of(stream: &TcpStream) -> io::Result<Self> {
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        let interface = match SockRef::from(stream).device()? {
            Some(name) => crate::address::interface_index(&String::from_utf8_lossy(&name))?,
            None => match remote {
                SocketAddr::V6(v6) => v6.scope_id(),
                SocketAddr::V4(_) => 0,
            },
        };
        Ok(Self { local, remote, interface })
    }

    /// What the kernel knows of the connection.
    ///
    /// Asks through a netlink socket, some ten microseconds: for estimates now and then, not for every message.
    /// Fails with `Unsupported` or `NotFound` where the kernel cannot tell.
    pub fn info(&self) -> io::Result<TcpInfo> {
        query(self.local, self.remote, self.interface)
    }
}

fn query(local: SocketAddr, remote: SocketAddr, interface: u32) -> io::Result<TcpInfo> {
    let socket = netlink::Socket::open(netlink::SOCKET_DIAGNOSIS, 0)?;
    socket.send(&question(local, remote, interface))?;
    let mut buffer = [0; 4096];
    // The kernel answers within the call that asks, so nothing is waited for.
    let datagram = socket.receive(&mut buffer)?;
    for message in messages(datagram) {
        match message.kind {
            netlink::ERROR => {
                return Err(error_of(message.body).unwrap_or_else(|| io::ErrorKind::NotFound.into()));
            }
            SOCK_DIAG_BY_FAMILY => {
                let rest = message.body.get(ANSWER..).unwrap_or_default();
                let info = attributes(rest).find(|(kind, _)| *kind == INET_DIAG_INFO);
                if let Some(info) = info.and_then(|(_, value)| TcpInfo::parse(value)) {
                    return Ok(info);
                }
            }
            _ => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel does not tell about TCP connections"))
}

/// `struct inet_diag_req_v2` for exactly this connection.
fn question(local: SocketAddr, remote: SocketAddr, interface: u32) -> Vec<u8> {
    let family = if local.is_ipv4() { 2u8 } else { 10 };
    let mut body = vec![family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0];
    // In every state.
    body.extend_from_slice(&u32::MAX.to_ne_bytes());
    body.extend_from_slice(&local.port().to_be_bytes());
    body.extend_from_slice(&remote.port().to_be_bytes());
    for ip in [local.ip(), remote.ip()] {
        let mut wide = [0; 16];
        match ip {
            IpAddr::V4(v4) => wide[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => wide = v6.octets(),
        }
        body.extend_from_slice(&wide);
    }
    body.extend_from_slice(&interface.to_ne_bytes());
    // Any cookie.
    body.extend_from_slice(&u64::MAX.to_ne_bytes());
    request(SOCK_DIAG_BY_FAMILY, 0, 1, &body)
}

impl TcpInfo {
    /// Reads `struct tcp_info`, which only ever grows at its end; `None` if it is older than Linux 4.9.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let micros = |at| Some(Duration::from_micros(number32(bytes, at)?.into()));
        let millis = |at| Some(Duration::from_millis(number32(bytes, at)?.into()));
        Some(Self {
            unanswered_probes: *bytes.get(3)?,
            last_data_received: millis(52)?,
            last_ack_received: millis(56)?,
            retransmission_timeout: micros(8)?,
            segment_size: number32(bytes, 16)?,
            unacknowledged_segments: number32(bytes, 24)?,
            lost_segments: number32(bytes, 32)?,
            rtt: micros(68)?,
            rtt_variance: micros(72)?,
            congestion_window: number32(bytes, 80)?,
            retransmitted_segments: number32(bytes, 100)?,
            acknowledged_bytes: number64(bytes, 120)?,
            received_bytes: number64(bytes, 128)?,
            unsent_bytes: number32(bytes, 144)?,
            rtt_minimum: micros(148)?,
            delivery_rate: number64(bytes, 160)?,
        })
    }
}
