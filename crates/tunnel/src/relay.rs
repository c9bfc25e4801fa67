//! Bytes both ways between a TCP connection and a stream, each direction until its end.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_keepalive, set_socket_linger};
use steadfast::{StreamReader, StreamWriter};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::event::Connection;
use crate::message::Answer;

/// Bytes that are moved at once.
const PIECE: usize = 32 * 1024;

/// How long a target may take to read what a peer left behind that is gone.
pub(crate) const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// Why a connection broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the connection here broke: {0}")]
    Local(io::Error),
    #[error(transparent)]
    Stream(io::Error),
    #[error("{0}")]
    Refused(String),
}

/// What a side does besides moving bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// A program connected here; the first that comes over the stream is the answer.
    Client,
    /// This side connected to the target.
    Server,
}

/// A TCP connection that is reset when it is dropped before its end: its program is to see an error and not an end.
pub(crate) struct Tcp {
    stream: TcpStream,
    over: bool,
}

impl Tcp {
    /// Takes charge of a connection: small writes go at once, and a program whose host vanished is noticed some day.
    pub(crate) fn new(stream: TcpStream) -> Self {
        // A connection that refuses either works all the same.
        let _plain = stream.set_nodelay(true);
        let _plain = set_socket_keepalive(&stream, true);
        Self { stream, over: false }
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        if !self.over {
            // Where that cannot be set the program sees an end, which is the best that is left.
            let _closed = set_socket_linger(&self.stream, Some(Duration::ZERO));
        }
    }
}

/// Moves bytes until both directions have ended, or one breaks: then both are reset.
pub(crate) async fn relay(
    mut tcp: Tcp,
    stream: (StreamReader, StreamWriter),
    side: Side,
    connection: &Connection,
) -> Result<(), Broken> {
    both(&mut tcp.stream, stream, side, connection).await?;
    tcp.over = true;
    Ok(())
}

/// Waits until a connection is reset: who reads and writes nothing would not see it.
async fn reset(tcp: &TcpStream) -> Broken {
    match tcp.ready(Interest::ERROR).await.and_then(|_| tcp.take_error()) {
        Ok(Some(error)) | Err(error) => Broken::Local(error),
        // Whoever reads or writes after all was told.
        Ok(None) => pending().await,
    }
}

async fn both(
    tcp: &mut TcpStream,
    (mut read, mut write): (StreamReader, StreamWriter),
    side: Side,
    connection: &Connection,
) -> Result<(), Broken> {
    let (mut tcp_read, mut tcp_write) = tcp.split();
    let (no_end_comes, nobody_reads) = (read.broken(), write.broken());
    let moving = async {
        let mut buffer = vec![0; PIECE];
        loop {
            match tcp_read.read(&mut buffer).await.map_err(Broken::Local)? {
                0 => return write.shutdown().await.map_err(Broken::Stream),
                length => {
                    tokio::select! {
                        biased;
                        written = write.write_all(&buffer[..length]) => written.map_err(Broken::Stream)?,
                        broken = reset(tcp_read.as_ref()) => return Err(broken),
                    }
                    connection.count(side == Side::Client, length as u64);
                }
            }
        }
    };
    // Whoever sends may be quiet for ever.
    let up = async {
        tokio::select! {
            biased;
            result = moving => result,
            error = nobody_reads => Err(Broken::Stream(error.into())),
        }
    };
    let down = async {
        if side == Side::Client
            && let Answer::Refused(words) = Answer::read(&mut read).await.map_err(Broken::Stream)?
        {
            return Err(Broken::Refused(words));
        }
        let mut buffer = vec![0; PIECE];
        let mut no_end_comes = pin!(no_end_comes);
        loop {
            let length = tokio::select! {
                biased;
                length = read.read(&mut buffer) => length.map_err(Broken::Stream)?,
                broken = reset(tcp_write.as_ref()) => return Err(broken),
            };
            match length {
                0 => return tcp_write.shutdown().await.map_err(Broken::Local),
                length => {
                    // Whoever receives may have stopped reading; what it has room for it gets.
                    tokio::select! {
                        biased;
                        written = tcp_write.write_all(&buffer[..length]) => written.map_err(Broken::Local)?,
                        error = &mut no_end_comes => return Err(Broken::Stream(error.into())),
                    }
                    connection.count(side == Side::Server, length as u64);
                }
            }
        }
    };
    let (mut up, mut down) = (pin!(up), pin!(down));
    tokio::select! {
        result = &mut up => match result {
            Ok(()) => down.await,
            // Why is said in the other direction.
            Err(Broken::Stream(error)) => match side {
                Side::Client => down.await.and(Err(Broken::Stream(error))),
                Side::Server => match timeout(LEFT_BEHIND, down).await {
                    Ok(result) => result.and(Err(Broken::Stream(error))),
                    Err(_) => Err(Broken::Stream(error)),
                },
            },
            broken => broken,
        },
        result = &mut down => match result {
            Ok(()) => up.await,
            broken => broken,
        },
    }
}
