//! Plain connections of TCP and Multipath TCP.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::CONGESTION;

/// Listens.
pub(crate) fn listen(address: SocketAddr, multipath: bool) -> io::Result<TcpListener> {
    let socket = socket(address, multipath)?;
    socket.bind(&address.into())?;
    socket.listen(1)?;
    TcpListener::from_std(socket.into())
}

/// Takes a connection.
pub(crate) async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    tune(&SockRef::from(&stream))?;
    Ok(stream)
}

/// Connects.
pub(crate) async fn connect(to: SocketAddr, multipath: bool) -> io::Result<TcpStream> {
    TcpSocket::from_std_stream(socket(to, multipath)?.into()).connect(to).await
}

fn socket(address: SocketAddr, multipath: bool) -> io::Result<Socket> {
    let protocol = if multipath { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    tune(&SockRef::from(&socket))?;
    Ok(socket)
}

fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_congestion(CONGESTION.as_bytes())
}
