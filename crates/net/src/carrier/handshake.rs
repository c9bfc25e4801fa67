//! From a TCP connection to a carrier.

use super::{Carrier, Socket};
use crate::tls::{Expect, Tls, TlsError};
use rustls::Connection;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a handshake may take unless told otherwise.
pub const DEFAULT_HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// How long a refused peer has to read why.
const FAREWELL: Duration = Duration::from_millis(500);
/// What a refused peer may still send while it reads why.
const FAREWELL_BYTES: usize = 64 * 1024;

/// Which side of the handshake this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// We connected, and expect this peer.
    Connecting(Expect),
    /// The peer connected; it must be trusted.
    Accepting,
}

/// Why a connection did not become a carrier.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A key was refused, or the other side is not one of us.
    #[error("no secure connection with {remote}: {source}")]
    Tls {
        /// The other end.
        remote: SocketAddr,
        /// Why.
        source: TlsError,
    },
    /// The connection ended.
    #[error("no secure connection with {remote}: {source}; check that Steadfast listens there, on that port")]
    Io {
        /// The other end.
        remote: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It came in where no connection may be.
    #[error(
        "the connection of {remote} to {local} was reset: nothing may be connected over that network; \
         connect to another address of this host, or permit the network here"
    )]
    Gated {
        /// The other end.
        remote: SocketAddr,
        /// This end.
        local: SocketAddr,
    },
    /// It took too long.
    #[error("no secure connection with {remote} within {limit:?}: the other side is silent or overloaded")]
    TimedOut {
        /// The other end.
        remote: SocketAddr,
        /// The limit.
        limit: Duration,
    },
}

impl HandshakeError {
    /// The other end.
    pub fn remote(&self) -> SocketAddr {
        match self {
            Self::Tls { remote, .. }
            | Self::Io { remote, .. }
            | Self::Gated { remote, .. }
            | Self::TimedOut { remote, .. } => *remote,
        }
    }

    /// The TLS error, if it is one.
    pub fn tls(&self) -> Option<&TlsError> {
        match self {
            Self::Tls { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Authenticates both sides of a connection within `limit`.
///
/// A connecting side is done before the accepting side has decided about its key: a refusal then arrives as an error
/// of [`Carrier::try_read`]. A peer that is refused here gets up to half a second to read why.
///
/// Cancel safe: cancelling closes the connection.
pub async fn handshake(
    stream: TcpStream,
    tls: &Tls,
    side: Side,
    limit: Duration,
) -> Result<Carrier, HandshakeError> {
    let remote = stream
        .peer_addr()
        .map_err(|source| HandshakeError::Io { remote: SocketAddr::from(([0, 0, 0, 0], 0)), source })?;
    match tokio::time::timeout(limit, shake(stream, tls, side)).await {
        Ok(Ok(carrier)) => Ok(carrier),
        Ok(Err(Failure::Tls(source))) => Err(HandshakeError::Tls { remote, source }),
        Ok(Err(Failure::Io(source))) => Err(HandshakeError::Io { remote, source }),
        Err(_) => Err(HandshakeError::TimedOut { remote, limit }),
    }
}

enum Failure {
    Tls(TlsError),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

async fn shake(stream: TcpStream, tls: &Tls, side: Side) -> Result<Carrier, Failure> {
    let mut connection = Box::new(match side {
        Side::Connecting(expect) => tls.connecting(expect)?,
        Side::Accepting => tls.accepting()?,
    });
    loop {
        push(&stream, &mut connection).await?;
        if !connection.is_handshaking() {
            break;
        }
        if let Err(error) = pull(&stream, tls, &mut connection).await {
            if matches!(error, Failure::Tls(_)) {
                // Cut short by the time limit as a whole, the error would be lost: the farewell has its own.
                let _ = tokio::time::timeout(FAREWELL, farewell(&stream, &mut connection)).await;
            }
            return Err(error);
        }
    }
    let peer = Tls::peer_of(&connection)?;
    // The caller's record size bounds what is buffered; a second bound would only cut records in two.
    connection.set_buffer_limit(None);
    Ok(Carrier::new(stream, connection, tls.fingerprint(), peer)?)
}

async fn push(stream: &TcpStream, connection: &mut Connection) -> io::Result<()> {
    while connection.wants_write() {
        match connection.write_tls(&mut Socket(stream)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn pull(stream: &TcpStream, tls: &Tls, connection: &mut Connection) -> Result<(), Failure> {
    loop {
        match connection.read_tls(&mut Socket(stream)) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            Err(error) => return Err(error.into()),
        }
    }
    connection.process_new_packets().map_err(|error| tls.explain(error))?;
    Ok(())
}

/// Sends the alert and reads on until the peer closes: closing with unread bytes would reset the connection, and the
/// peer might never learn why it was refused.
async fn farewell(stream: &TcpStream, connection: &mut Connection) -> io::Result<()> {
    push(stream, connection).await?;
    socket2::SockRef::from(stream).shutdown(Shutdown::Write)?;
    // Not on the stack: this future is one of hundreds.
    let mut ignored = vec![0; 4096];
    let mut left = FAREWELL_BYTES;
    while left > 0 {
        match stream.try_read(&mut ignored) {
            Ok(0) => break,
            Ok(length) => left = left.saturating_sub(length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
