//! Peers that say what no transport of ours would, and networks that lie.

use super::{Homa, HomaConfig, SendError};
use crate::rpc::{CallError, CallOptions, Rpc};
use crate::{Endpoint, Identity, ScoutConfig, lock};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use steadfast_net::datagram::seal::{Algorithm, Keyring};
use steadfast_net::datagram::{Fault, Trouble};

const GUARD: Duration = Duration::from_secs(60);

async fn soon<R>(what: &str, future: impl Future<Output = R>) -> R {
    tokio::time::timeout(GUARD, future).await.unwrap_or_else(|_| panic!("{what}: did not happen"))
}

/// A transport and a peer whose offer says that it receives at this port.
async fn offered(port: u16) -> (Homa, Endpoint, Rpc) {
    let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (a_key, b_key) = (a.fingerprint(), b.fingerprint());
    let local = || {
        let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
        Endpoint::builder().scout(scout).addresses([IpAddr::V4(Ipv4Addr::LOCALHOST)])
    };
    let a = local().identity(a).trust(b_key).bind().await.unwrap();
    let b = local().identity(b).trust(a_key).bind().await.unwrap();
    let homa = a.homa_with(HomaConfig::default()).unwrap();
    let answers = async {
        let heard = async {
            loop {
                let heard = b.shared().peek(|inner, _| inner.core.offers());
                if let Some((association, _, offer)) = heard.into_iter().next() {
                    return (association, offer);
                }
                tokio::task::yield_now().await;
            }
        };
        let (association, offer) = soon("an offer", heard).await;
        let mut answer = offer[..5].to_vec();
        answer.extend_from_slice(&port.to_be_bytes());
        answer.extend_from_slice(&[0, 0]);
        answer.extend_from_slice(&Keyring::new(1).offer((), Algorithm::fastest()).unwrap().encode());
        b.shared().call(|inner, now| inner.core.offer(now, association, answer.into()));
    };
    let (peer, ()) = tokio::join!(soon("connect", homa.connect(b.contact())), answers);
    let rpc = Rpc::over_homa(&peer.unwrap(), 9);
    (homa, b, rpc)
}

#[tokio::test]
async fn a_peer_that_receives_nowhere_is_not_waited_for() {
    let (_homa, _b, rpc) = offered(0).await;
    for _ in 0..3 {
        let error = soon("a call", rpc.call("x", CallOptions::default())).await.unwrap_err();
        assert!(matches!(error, CallError::NotSentOverHoma(SendError::NoNetwork { .. })), "{error}");
    }
}

#[tokio::test]
async fn who_saw_no_packet_cannot_say_that_it_did_not_get_through() {
    // Somebody is there, and says nothing.
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let remote = silent.local_addr().unwrap();
    let (homa, _b, rpc) = offered(remote.port()).await;
    let _pending = soon("start", rpc.start("x", CallOptions::default())).await.unwrap();
    let mut packet = [0; 2000];
    let (length, _) = soon("a packet", silent.recv_from(&mut packet)).await.unwrap();
    let trouble = |quoted: &[u8]| {
        let mut machine = lock(&homa.handle.engine.machine);
        let super::machine::Machine { transport, peers, .. } = &mut *machine;
        assert!(peers.is_sealed());
        let trouble = Trouble { remote, fault: Fault::PortUnreachable, quoted: quoted.to_vec() };
        peers.trouble(transport, &trouble).len()
    };
    assert_eq!(trouble(&[]), 0);
    assert_eq!(trouble(&packet[..12]), 0);
    let quoted = packet[..length.min(64)].to_vec();
    assert_eq!(trouble(&quoted), 1, "a packet of ours");
    for at in 0..5 {
        let mut forged = quoted.clone();
        forged[at] ^= 0xc0;
        assert_eq!(trouble(&forged), 0, "another key or version");
    }
    let mut later = quoted;
    later[5] = 0x7f;
    assert_eq!(trouble(&later), 0, "a counter that was never used");
}
