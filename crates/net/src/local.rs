//! A stream to another process of this host, that costs no wake-up which nobody asked for.
//!
//! The kernel tells a writer each time that the reader made room, and whoever waits for that by default is woken once
//! more for each message. Here a socket is watched for what comes alone, and for room only while some is missing.

use std::future::poll_fn;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How long before a socket at which too many wait is tried again.
const CROWDED: Duration = Duration::from_millis(5);
/// How long before it is seen whether there is room to write, where the system does not tell.
const UNTOLD: Duration = Duration::from_millis(10);

/// Connects to a Unix socket at once or not at all: [`WouldBlock`](io::ErrorKind::WouldBlock) if too many wait there to be
/// accepted. What is connected does not block.
pub fn dial(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(std::os::fd::OwnedFd::from(socket).into())
}

/// The same, again and again while too many wait there; the caller knows for how long. Cancel safe.
pub async fn dial_patiently(path: &Path) -> io::Result<UnixStream> {
    loop {
        match dial(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(CROWDED).await,
            dialled => return dialled,
        }
    }
}

/// A connected Unix socket that never blocks. It belongs to the runtime in which it was made.
#[derive(Debug)]
pub struct LocalStream(AsyncFd<UnixStream>);

impl LocalStream {
    /// Takes over a socket.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        register(stream, Interest::READABLE).map(Self)
    }

    /// Connects, once there is room among those who wait to be accepted. Cancel safe.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        Self::new(dial_patiently(path).await?)
    }

    /// Reads what there is; 0 is the end. For one task at a time. Cancel safe.
    pub async fn read(&self, chunk: &mut [u8]) -> io::Result<usize> {
        loop {
            // One task reads: its place to be woken is kept ready, and costs no list.
            let mut ready = poll_fn(|context| self.0.poll_read_ready(context)).await?;
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

    /// Waits until the socket takes more. Costs a descriptor meanwhile; where there is none, it looks from time to time.
    /// Cancel safe.
    pub async fn writable(&self) -> io::Result<()> {
        let again = self.0.get_ref().try_clone().and_then(|again| register(again, Interest::WRITABLE));
        if let Ok(again) = again {
            return again.writable().await.map(drop);
        }
        loop {
            let mut socket = [PollFd::new(self.0.get_ref(), PollFlags::OUT)];
            match poll(&mut socket, Some(&Timespec::default())) {
                Ok(0) | Err(Errno::INTR) => tokio::time::sleep(UNTOLD).await,
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
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

    /// Who finds too many waiting waits with them.
    #[tokio::test]
    async fn a_socket_at_which_too_many_wait_is_tried_again() {
        let path = std::env::temp_dir().join(format!("steadfast-local-{}", std::process::id()));
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match dial(&path) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let mut connecting = std::pin::pin!(LocalStream::connect(&path));
        tokio::select! {
            biased;
            ended = &mut connecting => panic!("{ended:?}"),
            () = std::future::ready(()) => {}
        }
        let accepted = listener.accept().unwrap().0;
        let stream = tokio::time::timeout(Duration::from_secs(60), connecting).await.unwrap().unwrap();
        drop(accepted);
        // Those who waited before it.
        for _ in 1..waiting.len() {
            drop(listener.accept().unwrap());
        }
        let accepted =
            LocalStream::new(std::os::fd::OwnedFd::from(listener.accept().unwrap().0).into()).unwrap();
        assert_eq!(stream.try_write(b"it").unwrap(), 2);
        assert_eq!(accepted.read(&mut [0; 8]).await.unwrap(), 2);
        std::fs::remove_file(&path).unwrap();
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
