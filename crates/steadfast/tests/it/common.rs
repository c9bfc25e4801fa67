//! Pairs of endpoints, and guards.

use bytes::Bytes;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use steadfast::{Builder, Endpoint, Identity, Labels, MultiSocket, ScoutConfig};

/// Nothing that works takes this long, on however slow a machine.
const GUARD: Duration = Duration::from_secs(60);

/// Awaits what must happen.
pub(crate) async fn soon<R>(what: &str, future: impl Future<Output = R>) -> R {
    match tokio::time::timeout(GUARD, future).await {
        Ok(result) => result,
        Err(tokio::time::error::Elapsed { .. }) => panic!("{what}: did not happen within {GUARD:?}"),
    }
}

/// Shows what `STEADFAST_LOG` asks for, such as `steadfast=debug`.
pub(crate) fn log() {
    let filter = tracing_subscriber::EnvFilter::from_env("STEADFAST_LOG");
    let _set_already = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

/// An endpoint on the loopback alone.
pub(crate) fn local() -> Builder {
    log();
    let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
    Endpoint::builder().scout(scout).addresses([IpAddr::V4(Ipv4Addr::LOCALHOST)])
}

/// Two endpoints that trust each other.
pub(crate) async fn pair() -> (Endpoint, Endpoint) {
    let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (a_key, b_key) = (a.fingerprint(), b.fingerprint());
    let a = local().identity(a).trust(b_key).bind().await.unwrap();
    let b = local().identity(b).trust(a_key).bind().await.unwrap();
    (a, b)
}

/// Two endpoints and a conversation that the first opened.
pub(crate) async fn talking() -> (Endpoint, Endpoint, MultiSocket, MultiSocket) {
    let (a, b) = pair().await;
    let (at_a, at_b) = meet(&a, &b).await;
    (a, b, at_a, at_b)
}

/// A conversation between two endpoints.
pub(crate) async fn meet(a: &Endpoint, b: &Endpoint) -> (MultiSocket, MultiSocket) {
    let at_a = soon("connect", a.connect(b.contact())).await.unwrap();
    let at_b = soon("accept", b.accept()).await.unwrap();
    assert_eq!(at_a.session_id(), at_b.session_id());
    (at_a, at_b)
}

/// The next message as bytes; `None` at the end.
pub(crate) async fn next(socket: &MultiSocket) -> Option<Bytes> {
    let message = soon("recv", socket.recv()).await.unwrap()?;
    Some(soon("the rest of a message", message.into_bytes()).await.unwrap())
}

/// A directory of this test's own.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Somebody who was killed, or is in another PID namespace, may have had the same number.
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("steadfast-it-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}"),
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Waits until no network leads to the peer.
pub(crate) async fn cut(peer: &Endpoint, socket: &MultiSocket) {
    let mut events = socket.events();
    peer.quiesce().await;
    while socket.has_network_for(&Labels::foreground()) {
        soon("an event", events.next()).await.unwrap();
    }
}
