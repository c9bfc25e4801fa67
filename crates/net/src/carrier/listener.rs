//! Listening for connections on one port.

use super::connect::tune;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel completes before they are accepted (it caps this at `net.core.somaxconn`).
const BACKLOG: i32 = 1024;
/// How often a port that the kernel picked for one family is tried for the other.
const PORT_TRIES: usize = 32;
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Accepts TCP connections on one port of several addresses.
///
/// Dropping it closes its sockets; binding the same port again works at once.
#[derive(Debug)]
pub struct Listener {
    listeners: Vec<TcpListener>,
    next: usize,
    errors: u64,
}

/// A port that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", advice(source))]
pub struct BindError {
    /// What was asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there, choose another port or stop it",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges, choose a higher one",
        io::ErrorKind::AddrNotAvailable => "; no interface has that address",
        _ => "",
    }
}

impl Listener {
    /// Listens on `port` of every address of this host, IPv4 and IPv6; 0 lets the kernel pick one for both.
    ///
    /// Where one family is disabled the other alone is used. Must be called within a tokio runtime.
    pub fn bind_any(port: u16) -> Result<Self, BindError> {
        let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        match Self::bind(&[v4, v6]) {
            Err(error) if is_family_missing(&error.source) => {
                let remaining = if error.address.is_ipv6() { v4 } else { v6 };
                Self::bind(&[remaining])
            }
            other => other,
        }
    }

    /// Listens on all of the addresses. Those with port 0 share one port that the kernel picks.
    ///
    /// IPv6 addresses take no IPv4 connections. Must be called within a tokio runtime.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, BindError> {
        let mut tries = PORT_TRIES;
        loop {
            match Self::bind_once(addresses) {
                // The port that was free for the first address is taken for a later one: another may be free for all.
                Err((error, true)) if error.source.kind() == io::ErrorKind::AddrInUse && tries > 0 => {
                    tries -= 1;
                }
                Err((error, _)) => return Err(error),
                Ok(listener) => return Ok(listener),
            }
        }
    }

    /// On failure says also whether the port was one that the kernel had picked.
    fn bind_once(addresses: &[SocketAddr]) -> Result<Self, (BindError, bool)> {
        let mut listeners: Vec<TcpListener> = Vec::new();
        let mut picked = 0;
        for address in addresses {
            let mut wanted = *address;
            let shares = wanted.port() == 0 && picked != 0;
            if shares {
                wanted.set_port(picked);
            }
            let failed = |source| (BindError { address: wanted, source }, shares);
            let listener = listen(wanted).map_err(failed)?;
            if address.port() == 0 {
                picked = listener.local_addr().map_err(failed)?.port();
            }
            listeners.push(listener);
        }
        Ok(Self { listeners, next: 0, errors: 0 })
    }

    /// The addresses that are listened on, with their real ports.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The port of the first address; 0 if there is none.
    pub fn port(&self) -> u16 {
        self.local_addrs().first().map_or(0, SocketAddr::port)
    }

    /// How many times the kernel failed to give a connection since the start.
    pub fn accept_errors(&self) -> u64 {
        self.errors
    }

    /// The next connection with the peer's and the local address.
    ///
    /// Never fails: connections that died meanwhile are passed over, and while descriptors or memory are short it
    /// tries again after a pause of 5 ms, doubling to 500 ms. Cancel safe: no connection is lost.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr, SocketAddr) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.accept_one().await {
                Ok((stream, peer)) => {
                    let local = stream.local_addr();
                    if let (Ok(()), Ok(local)) = (tune(&SockRef::from(&stream)), local) {
                        return (stream, peer, local);
                    }
                    self.errors += 1;
                }
                Err(error) => {
                    self.errors += 1;
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        tracing::debug!(%error, "cannot accept a connection now");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        }
    }

    async fn accept_one(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|context| {
            let count = self.listeners.len();
            for step in 0..count {
                // In turns, so that a flood on one address does not starve the others.
                let index = (self.next + step) % count;
                if let Poll::Ready(accepted) = self.listeners[index].poll_accept(context) {
                    self.next = index + 1;
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier run that the kernel still remembers must not keep the port from us.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn is_family_missing(error: &io::Error) -> bool {
    let missing = [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| missing.iter().any(|errno| errno.raw_os_error() == code))
}
