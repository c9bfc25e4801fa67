//! A stream to another process of this host, that costs no wake-up which nobody asked for.
//!
//! The kernel tells a writer each time that the reader made room, and whoever waits for that by default is woken once
//! more for each message. Here a socket is watched for what comes alone, and for room only while some is missing.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A connected Unix socket that never blocks. It belongs to the runtime in which it was made.
#[derive(Debug)]
pub struct LocalStream(AsyncFd<UnixStream>);

impl LocalStream {
    /// Takes over a socket.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        register(stream, Interest::READABLE).map(Self)
    }

    /// Connects. Cancel safe.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        Self::new(tokio::net::UnixStream::connect(path).await?.into_std()?)
    }

    /// Reads what there is; 0 is the end. For one task at a time. Cancel safe.
    pub async fn read(&self, chunk: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match (&mut ready.get_inner()).read(chunk) {
                Ok(count) => {
                    // Less than there was room for: there is no more, and nothing has to be asked again.
                    if count < chunk.len() {
                        ready.clear_ready();
                    }
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what the socket takes at once; [`WouldBlock`](io::ErrorKind::WouldBlock) if that is nothing.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (&mut self.0.get_ref()).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return written,
            }
        }
    }

    /// Waits until the socket takes more. Costs a descriptor meanwhile. Cancel safe.
    pub async fn writable(&self) -> io::Result<()> {
        let again = register(self.0.get_ref().try_clone()?, Interest::WRITABLE)?;
        again.writable().await.map(drop)
    }
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe, for types that change their descriptor: a standard socket does not"
)]
fn register(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(stream, interest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (LocalStream, LocalStream) {
        let (one, other) = UnixStream::pair().unwrap();
        (LocalStream::new(one).unwrap(), LocalStream::new(other).unwrap())
    }

    /// Everything goes over, however little room there is, and then the end is told.
    #[tokio::test]
    async fn what_does_not_fit_goes_when_there_is_room() {
        let (one, other) = pair();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
        let (bytes, mut waits) = (sent.clone(), 0);
        let writer = tokio::spawn(async move {
            let mut written = 0;
            while written < bytes.len() {
                match one.try_write(&bytes[written..]) {
                    Ok(count) => written += count,
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        waits += 1;
                        one.writable().await.unwrap();
                    }
                }
            }
            waits
        });
        let (mut came, mut chunk) = (Vec::new(), vec![0; 5000]);
        loop {
            match other.read(&mut chunk).await.unwrap() {
                0 => break,
                count => came.extend_from_slice(&chunk[..count]),
            }
        }
        assert!(writer.await.unwrap() > 0, "more than a socket takes at once");
        assert_eq!(came, sent);
    }

    /// What comes after a read that took everything is told, and so is an end that came with the last bytes.
    #[tokio::test]
    async fn nothing_is_overlooked() {
        let (one, other) = pair();
        let mut chunk = [0; 64];
        for number in 0..100 {
            let reader = async { other.read(&mut chunk).await.unwrap() };
            let (count, written) = tokio::join!(reader, async { one.try_write(&[number]).unwrap() });
            assert_eq!((count, written), (1, 1));
            assert_eq!(chunk[0], number);
        }
        one.try_write(b"last").unwrap();
        drop(one);
        assert_eq!(other.read(&mut chunk).await.unwrap(), 4);
        assert_eq!(other.read(&mut chunk).await.unwrap(), 0);
    }
}
