//! Plain connections of TCP and Multipath TCP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::lanes::{Lane, Lanes, share};
use super::{CONGESTION, Ground, Listening, System};
use crate::child::tell;

/// A client's lanes: a connection for each, or one for all.
pub(super) async fn client(system: System, to: SocketAddr, lanes: u8) -> anyhow::Result<Lanes> {
    let mut connected = Vec::new();
    for _ in 0..connections(system, lanes) {
        let (input, output) = connect(to, system == System::Mptcp).await?.into_split();
        connected.push(Lane::new(input, output));
    }
    Lanes::announced(spread(connected, lanes), ()).await
}

/// A server's lanes.
pub(super) async fn server(system: System, ground: &Ground) -> anyhow::Result<Lanes> {
    let multipath = system == System::Mptcp;
    let address = ground.first();
    // A further subflow is taken only where its own address is listened on.
    let listened = if multipath { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { address };
    let listener = listen(SocketAddr::new(listened, 0), multipath)?;
    let contact = SocketAddr::new(address, listener.local_addr()?.port()).to_string();
    tell(&Listening { contact, certificate: Vec::new() });
    let mut accepted = Vec::new();
    for _ in 0..connections(system, ground.lanes) {
        let (input, output) = accept(&listener).await?.into_split();
        accepted.push(Lane::new(input, output));
    }
    // Further subflows are taken only as long as it listens.
    Lanes::sorted(spread(accepted, ground.lanes), listener).await
}

fn connections(system: System, lanes: u8) -> u8 {
    if system == System::TcpOne { 1 } else { lanes }
}

/// The one connection for all lanes, or those that are lanes already.
fn spread(mut streams: Vec<Lane>, lanes: u8) -> Vec<Lane> {
    match streams.pop() {
        Some(only) if streams.is_empty() => share(only, lanes),
        last => {
            streams.extend(last);
            streams
        }
    }
}

/// Listens.
pub(crate) fn listen(address: SocketAddr, multipath: bool) -> io::Result<TcpListener> {
    let socket = socket(address, multipath)?;
    socket.bind(&address.into())?;
    socket.listen(8)?;
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
