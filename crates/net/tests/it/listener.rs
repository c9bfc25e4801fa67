//! Listening on one port of both families.

use crate::common::guarded;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use steadfast_net::{ConnectOptions, Listener, connect};

#[tokio::test]
async fn one_port_for_both_families() {
    let mut listener = Listener::bind_any(0).unwrap();
    let addresses = listener.local_addrs();
    assert!(addresses.iter().all(|address| address.port() == listener.port()), "{addresses:?}");
    assert!(addresses[0].is_ipv4());
    let mut targets = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, listener.port()))];
    if addresses.len() > 1 {
        targets.push(SocketAddr::from((Ipv6Addr::LOCALHOST, listener.port())));
    } else {
        eprintln!("SKIPPED IPv6 in one_port_for_both_families: this host has none");
    }
    for target in targets {
        let options = ConnectOptions::to(target);
        let (stream, (_, peer, local)) =
            guarded(async { tokio::join!(connect(&options), listener.accept()) }).await;
        assert_eq!(stream.unwrap().local_addr().unwrap(), peer);
        assert_eq!(local, target);
    }
}

#[tokio::test]
async fn a_port_can_be_taken_again_at_once() {
    let mut listener = Listener::bind_any(0).unwrap();
    let port = listener.port();
    let options = ConnectOptions::to(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let (stream, accepted) = guarded(async { tokio::join!(connect(&options), listener.accept()) }).await;
    let error = Listener::bind_any(port).unwrap_err().to_string();
    assert!(error.contains("another program listens there"), "{error}");
    drop(listener);
    // The accepting end closes first, so its side of the old connection lingers in the kernel.
    drop(accepted);
    drop(stream);
    assert_eq!(Listener::bind_any(port).unwrap().port(), port);
}
