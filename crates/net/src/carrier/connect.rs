//! Opening a TCP connection over a chosen network.

use super::DEFAULT_UNSENT_LIMIT;
use crate::address::interface_index;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use tokio::net::{TcpSocket, TcpStream};

/// The congestion control that every carrier asks for: with bbr, foreground that shares a connection with background
/// stalls while it probes the round trip.
const CONGESTION: &str = "cubic";

/// Where to connect, and over which network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The peer. A link-local address without a scope gets that of `device`.
    pub remote: SocketAddr,
    /// The interface that all packets must take, by name (`SO_BINDTODEVICE`).
    pub device: Option<String>,
    /// The local address; the kernel chooses one if there is none.
    pub source: Option<IpAddr>,
}

impl ConnectOptions {
    /// To `remote` over whatever network the routes say.
    pub fn to(remote: SocketAddr) -> Self {
        Self { remote, device: None, source: None }
    }
}

impl fmt::Display for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.remote)?;
        if let Some(device) = &self.device {
            write!(f, " over {device}")?;
        }
        if let Some(source) = self.source {
            write!(f, " from {source}")?;
        }
        Ok(())
    }
}

/// A connection that was not made.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {options}: {source}{}", advice(source))]
pub struct ConnectError {
    /// What was attempted.
    pub options: ConnectOptions,
    /// What the system said.
    pub source: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "; check that Steadfast listens there, on that port",
        io::ErrorKind::TimedOut => "; check that the host is up and no firewall is between",
        io::ErrorKind::AddrNotAvailable => "; the local address is gone, the network has probably changed",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            "; check the routes of that network"
        }
        io::ErrorKind::PermissionDenied => {
            "; binding to an interface needs CAP_NET_RAW on this kernel, or a source address"
        }
        _ => "",
    }
}

/// Connects, over the given interface and from the given address.
///
/// Where the kernel forbids binding to an interface (before Linux 5.7 without `CAP_NET_RAW`) the source address alone
/// steers, and without one the connection fails. The socket is close-on-exec, without Nagle's delay, with cubic as its
/// congestion control if the kernel has it ([`congestion`] tells) and an unsent limit of [`DEFAULT_UNSENT_LIMIT`].
///
/// Takes as long as the kernel tries (minutes): set a limit of your own. Cancel safe: cancelling closes the socket.
pub async fn connect(options: &ConnectOptions) -> Result<TcpStream, ConnectError> {
    let failed = |source| ConnectError { options: options.clone(), source };
    let (socket, remote) = prepare(options).map_err(failed)?;
    let stream = socket.connect(remote).await.map_err(failed)?;
    Ok(stream)
}

fn prepare(options: &ConnectOptions) -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(options.remote), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    tune(&SockRef::from(&socket))?;
    let mut scope = 0;
    if let Some(device) = &options.device {
        match socket.bind_device(Some(device.as_bytes())) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && options.source.is_some() => {
                tracing::debug!(
                    device,
                    "binding to the interface is not permitted; the source address steers"
                );
            }
            Err(error) => return Err(error),
        }
        scope = interface_index(device)?;
    }
    if let Some(source) = options.source {
        socket.bind(&scoped(SocketAddr::new(source, 0), scope).into())?;
    }
    Ok((TcpSocket::from_std_stream(socket.into()), scoped(options.remote, scope)))
}

/// The address with `scope` if it is link-local and has none.
fn scoped(address: SocketAddr, scope: u32) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            SocketAddrV6::new(*v6.ip(), v6.port(), v6.flowinfo(), scope).into()
        }
        other => other,
    }
}

/// Sets what every connection has, whoever opened it.
pub(super) fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(DEFAULT_UNSENT_LIMIT)?;
    if let Err(error) = socket.set_tcp_congestion(CONGESTION.as_bytes()) {
        tracing::debug!(%error, "no {CONGESTION} for this connection; it keeps the system's congestion control");
    }
    Ok(())
}

pub(super) fn set_unsent_limit(stream: &TcpStream, bytes: u32) -> io::Result<()> {
    // 0 would mean the system's setting, which is no limit at all; the option is a signed int.
    SockRef::from(stream).set_tcp_notsent_lowat(bytes.clamp(1, i32::MAX as u32))
}

/// The congestion control that a connection has.
pub fn congestion(stream: &TcpStream) -> io::Result<String> {
    let name = SockRef::from(stream).tcp_congestion()?;
    Ok(String::from_utf8_lossy(&name).trim_end_matches('\0').to_string())
}
