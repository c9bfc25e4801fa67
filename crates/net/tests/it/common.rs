//! What several tests need.

use bytes::BytesMut;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use steadfast_net::carrier::{HandshakeError, ReadState, Side, WriteState};
use steadfast_net::{Carrier, ConnectOptions, Expect, Identity, Listener, Tls, connect, handshake};
use steadfast_wire::Fingerprint;
use tokio::net::TcpStream;

/// No test waits for a time; this only turns a hang into a failure.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

pub(crate) async fn guarded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future).await.expect("the test hangs")
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// TLS for a new identity that trusts these keys.
pub(crate) fn tls_trusting(identity: &Identity, trusted: Vec<Fingerprint>) -> Tls {
    Tls::new(identity, Arc::new(move |key| trusted.contains(key)))
}

/// Two sides that trust each other.
pub(crate) fn friends() -> (Tls, Tls) {
    let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    (tls_trusting(&one, vec![other.fingerprint()]), tls_trusting(&other, vec![one.fingerprint()]))
}

/// A TCP connection over loopback: the connecting end and the accepting one.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let mut listener = Listener::bind(&[loopback()]).unwrap();
    let options = ConnectOptions::to(listener.local_addrs()[0]);
    let (connected, accepted) = guarded(async { tokio::join!(connect(&options), listener.accept()) }).await;
    (connected.unwrap(), accepted.0)
}

/// Both ends' handshakes over one connection.
pub(crate) async fn shake(
    connecting: &Tls,
    expect: Expect,
    accepting: &Tls,
) -> (Result<Carrier, HandshakeError>, Result<Carrier, HandshakeError>) {
    let (client, server) = tcp_pair().await;
    guarded(async {
        tokio::join!(
            handshake(client, connecting, Side::Connecting(expect), GUARD),
            handshake(server, accepting, Side::Accepting, GUARD)
        )
    })
    .await
}

/// Two ends of a carrier, the connecting one first.
pub(crate) async fn carrier_pair() -> (Carrier, Carrier) {
    let (one, other) = friends();
    let (client, server) = shake(&one, Expect::Key(other.fingerprint()), &other).await;
    (client.unwrap(), server.unwrap())
}

/// Sends all of `bytes`.
pub(crate) async fn send(carrier: &mut Carrier, bytes: &[u8]) -> std::io::Result<()> {
    let mut rest = bytes;
    let socket = carrier.socket();
    loop {
        let state = carrier.try_write(&mut |out, room| {
            let (now, later) = rest.split_at(rest.len().min(room));
            out.put_bytes(now);
            rest = later;
            !rest.is_empty()
        })?;
        match state {
            WriteState::Idle => return Ok(()),
            WriteState::Blocked => socket.writable().await?,
            WriteState::More => tokio::task::yield_now().await,
        }
    }
}

/// Reads until `length` bytes are there or the stream is over.
pub(crate) async fn receive(carrier: &mut Carrier, length: usize) -> std::io::Result<(BytesMut, ReadState)> {
    let mut out = BytesMut::new();
    let socket = carrier.socket();
    loop {
        let most = (length - out.len()).min(100_000);
        let state = carrier.try_read(&mut out, most)?;
        match state {
            _ if out.len() == length => return Ok((out, state)),
            ReadState::Blocked => socket.readable().await?,
            ReadState::More => tokio::task::yield_now().await,
            over => return Ok((out, over)),
        }
    }
}

/// How the stream ends, with nothing before the end.
pub(crate) async fn ending(carrier: &mut Carrier) -> ReadState {
    let (rest, state) = guarded(receive(carrier, usize::MAX)).await.unwrap();
    assert!(rest.is_empty(), "{} bytes before the end", rest.len());
    state
}

/// A directory of a test's own, removed at its end.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Somebody who was killed, or is in another PID namespace, may have had the same number.
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("steadfast-net-it-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}"),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a test in a network namespace of its own, on a thread of its own, with the loopback up.
pub(crate) fn in_namespace<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|error| error.to_string())?;
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { guarded(test()).await });
        Ok::<(), String>(())
    });
    if let Err(reason) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
        assert!(std::env::var_os("CI").is_none(), "{name} cannot run: {reason}");
        eprintln!("SKIPPED {name}: no network namespace: {reason}");
    }
}

pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {arguments}: {status}");
}
