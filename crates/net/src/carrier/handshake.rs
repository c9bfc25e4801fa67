//! From a TCP connection to a carrier.

use super::{Carrier, Shared, with_shared};
use crate::tls::{Expect, Outgoing, Records, Tls, TlsError};
use bytes::BytesMut;
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
    let mut records = Box::new(match side {
        Side::Connecting(expect) => tls.connecting(expect)?,
        Side::Accepting => tls.accepting()?,
    });
    let mut out = Outgoing::default();
    let mut plain = BytesMut::new();
    records.begin(&mut out).map_err(|error| tls.explain(error))?;
    loop {
        push(&stream, &mut out).await?;
        if !records.is_handshaking() {
            break;
        }
        stream.readable().await?;
        let pulled = with_shared(|shared| pull(&stream, &mut records, shared, &mut plain, &mut out));
        if let Err(error) = pulled? {
            // Cut short by the time limit as a whole, the error would be lost: the farewell has its own.
            let _ = tokio::time::timeout(FAREWELL, farewell(&stream, &mut out)).await;
            return Err(tls.explain(error).into());
        }
    }
    let peer = Tls::peer_of(&records)?;
    Ok(Carrier::new(stream, records, plain, tls.fingerprint(), peer)?)
}

async fn push(stream: &TcpStream, out: &mut Outgoing) -> io::Result<()> {
    let mut rest = out.bytes();
    while !rest.is_empty() {
        match stream.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    out.clear();
    Ok(())
}

/// Reads what has come, if anything has.
fn pull(
    stream: &TcpStream,
    records: &mut Records,
    Shared { input, .. }: &mut Shared,
    plain: &mut BytesMut,
    out: &mut Outgoing,
) -> io::Result<Result<(), rustls::Error>> {
    let held = records.hold(input);
    match stream.try_read(&mut input[held..]) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(length) => Ok(records.decrypt(&mut input[..held + length], plain, out)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Ok(())),
        Err(error) => Err(error),
    }
}

/// Sends the alert and reads on until the peer closes: closing with unread bytes would reset the connection, and the
/// peer might never learn why it was refused.
async fn farewell(stream: &TcpStream, out: &mut Outgoing) -> io::Result<()> {
    push(stream, out).await?;
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
