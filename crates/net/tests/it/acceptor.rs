//! Strangers must not keep out friends.

use crate::common::{GUARD, friends, guarded, loopback, tls_trusting};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use steadfast_net::carrier::{AcceptorConfig, Gate, HandshakeError, Side};
use steadfast_net::{
    Acceptor, Carrier, ConnectOptions, Expect, Identity, Listener, Tls, TlsError, connect, handshake,
};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

fn config(half_open: usize) -> AcceptorConfig {
    let mut config = AcceptorConfig::default();
    config.half_open = half_open;
    config.limit = GUARD * 10;
    config
}

async fn arrive(tls: &Tls, expected: &Tls, address: SocketAddr) -> Carrier {
    let options = ConnectOptions::to(address);
    let stream = connect(&options).await.unwrap();
    handshake(stream, tls, Side::Connecting(Expect::Key(expected.fingerprint())), GUARD).await.unwrap()
}

#[tokio::test]
async fn those_who_stall_delay_nobody() {
    const STALLED: usize = 200;
    // Fewer places than there are stalled handshakes, and more.
    for places in [16, 256] {
        let (us, friend) = friends();
        let mut acceptor =
            Acceptor::start(Listener::bind(&[loopback()]).unwrap(), us.clone(), config(places));
        let address = acceptor.local_addrs()[0];
        let mut stalled = Vec::new();
        for _ in 0..STALLED {
            stalled.push(guarded(TcpStream::connect(address)).await.unwrap());
        }
        for _ in 0..3 {
            let (_carrier, incoming) =
                guarded(async { tokio::join!(arrive(&friend, &us, address), acceptor.next()) }).await;
            assert_eq!(incoming.unwrap().unwrap().peer(), friend.fingerprint());
        }
        let counters = acceptor.counters();
        assert_eq!((counters.completed, counters.timed_out), (3, 0), "{counters:?}");
        assert_eq!(counters.accepted, STALLED as u64 + 3);
        assert_eq!(counters.displaced > 0, places < STALLED, "{counters:?}");
        guarded(acceptor.close()).await;
    }
}

#[tokio::test]
async fn a_stranger_is_named() {
    let (us, _) = friends();
    let stranger = Identity::generate().unwrap();
    let connecting = tls_trusting(&stranger, vec![us.fingerprint()]);
    let mut acceptor = Acceptor::start(Listener::bind(&[loopback()]).unwrap(), us.clone(), config(4));
    let address = acceptor.local_addrs()[0];
    let ((), incoming) = guarded(async {
        tokio::join!(async { drop(arrive(&connecting, &us, address).await) }, acceptor.next())
    })
    .await;
    let error = incoming.unwrap().unwrap_err();
    assert_eq!(error.tls(), Some(&TlsError::Stranger(stranger.fingerprint())));
    assert_eq!(acceptor.counters().strangers, 1);
}

#[tokio::test]
async fn closing_frees_the_port_and_ends_handshakes() {
    let (us, _) = friends();
    let acceptor = Acceptor::start(Listener::bind(&[loopback()]).unwrap(), us.clone(), config(4));
    let address = acceptor.local_addrs()[0];
    let stalled = guarded(TcpStream::connect(address)).await.unwrap();
    guarded(acceptor.close()).await;
    let mut acceptor = Acceptor::start(Listener::bind(&[address]).unwrap(), us, config(4));
    guarded(stalled.readable()).await.unwrap();
    assert_ne!(stalled.try_read(&mut [0]).ok(), Some(1));
    drop(stalled);
    drop(guarded(TcpStream::connect(address)).await.unwrap());
    assert!(guarded(acceptor.next()).await.unwrap().is_err());
}

#[tokio::test]
async fn who_does_not_pass_the_gate_is_told_nothing() {
    let (us, friend) = friends();
    let places = Arc::new(Semaphore::new(0));
    let gate: Gate = {
        let places = Arc::clone(&places);
        Arc::new(move |local, remote| {
            assert!(local.ip().is_loopback() && local != remote);
            let places = Arc::clone(&places);
            // One is let in for each place there is, and nobody once it is closed.
            Box::pin(async move { places.acquire().await.map(tokio::sync::SemaphorePermit::forget).is_ok() })
        })
    };
    let listener = Listener::bind(&[loopback()]).unwrap();
    let mut acceptor = Acceptor::start_gated(listener, us.clone(), gate, config(4));
    let address = acceptor.local_addrs()[0];
    // It waits at the gate, and is let in.
    places.add_permits(1);
    let (_carrier, incoming) =
        guarded(async { tokio::join!(arrive(&friend, &us, address), acceptor.next()) }).await;
    assert_eq!(incoming.unwrap().unwrap().peer(), friend.fingerprint());
    let stream = guarded(TcpStream::connect(address)).await.unwrap();
    // Long enough that whoever listens would be told why it is no greeting.
    stream.writable().await.unwrap();
    stream.try_write(&[b'x'; 100]).unwrap();
    places.close();
    let error = guarded(acceptor.next()).await.unwrap().unwrap_err();
    let gated = HandshakeError::Gated { remote: stream.local_addr().unwrap(), local: address };
    assert_eq!(error.to_string(), gated.to_string());
    guarded(stream.readable()).await.unwrap();
    assert_eq!(stream.try_read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    let counters = acceptor.counters();
    assert_eq!((counters.accepted, counters.completed, counters.gated, counters.failed), (2, 1, 1, 0));
}
