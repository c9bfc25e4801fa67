//! What the daemon of a host hears of an endpoint and says to it.

use crate::{Endpoint, Identity, Labels, ScoutConfig};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use steadfast_session::{NetworkUse, Share};

const GUARD: Duration = Duration::from_secs(60);

async fn soon<R>(what: &str, future: impl Future<Output = R>) -> R {
    tokio::time::timeout(GUARD, future).await.unwrap_or_else(|_| panic!("{what}: did not happen"))
}

fn local() -> crate::Builder {
    let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
    // Only one may ask what it does.
    Endpoint::builder().daemon(None).scout(scout).addresses([IpAddr::V4(Ipv4Addr::LOCALHOST)])
}

/// Asks as a daemon would, until an answer is as expected.
async fn until(endpoint: &Endpoint, what: &str, holds: impl Fn(&NetworkUse) -> bool) -> NetworkUse {
    let asks = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let report = endpoint.shared().network_use();
            if let Some(found) = report.networks.into_iter().find(|network| holds(network)) {
                return found;
            }
        }
    };
    soon(what, asks).await
}

#[tokio::test]
async fn an_endpoint_tells_what_it_does_and_obeys_its_share() {
    let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (a_key, b_key) = (a.fingerprint(), b.fingerprint());
    let a = local().identity(a).trust(b_key).bind().await.unwrap();
    let b = local().identity(b).trust(a_key).bind().await.unwrap();
    let socket = soon("connect", a.connect(b.contact())).await.unwrap();
    let other = soon("accept", b.accept()).await.unwrap();
    let sends = tokio::spawn(async move {
        loop {
            if socket.send(vec![7; 64 * 1024], Labels::background()).await.is_err() {
                return;
            }
        }
    });
    let takes = tokio::spawn(async move {
        while let Ok(Some(message)) = other.recv().await {
            if message.into_bytes().await.is_err() {
                return;
            }
        }
    });
    let found = until(&a, "background", |network| network.background > 2_000_000).await;
    assert_eq!((found.name.as_str(), found.paths), ("lo", 1));
    let shared = a.shared();
    let share = |rate| Share {
        network: found.network,
        rate,
        queue: 10_000,
        foreground: false,
        drain: 0,
        valid: Duration::from_secs(5),
    };
    // Said again as a daemon would, so that it lasts.
    let held = |network: &NetworkUse| {
        shared.set_share(share(Some(100_000)));
        network.background_waits && network.background < 1_000_000
    };
    until(&a, "it holds back", held).await;
    shared.set_share(share(None));
    until(&a, "it does so no longer", |network| network.background > 2_000_000).await;
    sends.abort();
    takes.abort();
}

/// What is sent in a row goes out together, an answer at once.
#[tokio::test]
async fn only_what_follows_another_message_waits_for_company() {
    let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (a_key, b_key) = (a.fingerprint(), b.fingerprint());
    let a = local().identity(a).trust(b_key).bind().await.unwrap();
    let b = local().identity(b).trust(a_key).bind().await.unwrap();
    let socket = soon("connect", a.connect(b.contact())).await.unwrap();
    let other = soon("accept", b.accept()).await.unwrap();
    let path = a.paths()[0].path;
    let waits = || a.shared().peek(|inner, now| inner.core.has_output(now, path));
    let say = || drop(socket.try_send("one", Labels::foreground()).unwrap());
    let take = async |from: &crate::MultiSocket| drop(soon("a message", from.recv()).await.unwrap().unwrap());
    let rounds = async {
        // On a busy machine there may be a pause between any two.
        let mut waited = false;
        while !waited {
            say();
            assert!(!waits(), "the first one");
            say();
            waited = waits();
            for _ in 0..2 * usize::try_from(crate::carriers::MAX_FLURRY).unwrap() {
                say();
            }
            let sent = 2 + 2 * crate::carriers::MAX_FLURRY;
            let arrived = async {
                for _ in 0..sent {
                    take(&other).await;
                }
            };
            arrived.await;
            other.try_send("an answer", Labels::foreground()).unwrap();
            take(&socket).await;
        }
    };
    soon("the messages", rounds).await;
}
