//! Who is let in, and what both sides learn when somebody is not.

use crate::common::{GUARD, friends, guarded, receive, send, shake, tcp_pair, tls_trusting};
use steadfast_net::carrier::Side;
use steadfast_net::{Expect, Identity, TlsError, handshake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn friends_talk_both_ways() {
    let (one, other) = friends();
    for expect in [Expect::Key(other.fingerprint()), Expect::AnyTrusted] {
        let (client, server) = shake(&one, expect, &other).await;
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        assert_eq!(client.peer(), other.fingerprint());
        assert_eq!(server.peer(), one.fingerprint());
        assert_eq!(client.remote_addr(), server.local_addr());
        assert_eq!(server.remote_addr(), client.local_addr());
        send(&mut client, b"question").await.unwrap();
        assert_eq!(&guarded(receive(&mut server, 8)).await.unwrap().0[..], b"question");
        send(&mut server, b"answer").await.unwrap();
        assert_eq!(&guarded(receive(&mut client, 6)).await.unwrap().0[..], b"answer");
    }
}

#[tokio::test]
async fn a_stranger_who_connects_is_refused_by_name() {
    let (stranger, us) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let connecting = tls_trusting(&stranger, vec![us.fingerprint()]);
    let (client, server) = shake(&connecting, Expect::AnyTrusted, &tls_trusting(&us, vec![])).await;
    let error = server.unwrap_err();
    assert_eq!(error.tls(), Some(&TlsError::Stranger(stranger.fingerprint())));
    assert!(error.to_string().contains(&stranger.fingerprint().to_string()), "{error}");
    // The connecting side is done first, and learns it with its first read.
    let error = guarded(receive(&mut client.unwrap(), 1)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains(&format!("trust add {}", stranger.fingerprint())), "{error}");
}

#[tokio::test]
async fn a_refusal_is_read_also_by_those_who_already_talk() {
    let (stranger, us) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (connecting, accepting) =
        (tls_trusting(&stranger, vec![us.fingerprint()]), tls_trusting(&us, vec![]));
    let (client, server) = tcp_pair().await;
    let server = tokio::spawn(async move { handshake(server, &accepting, Side::Accepting, GUARD).await });
    let mut client =
        guarded(handshake(client, &connecting, Side::Connecting(Expect::AnyTrusted), GUARD)).await.unwrap();
    let _ = guarded(send(&mut client, &[7; 10_000])).await;
    let error = guarded(receive(&mut client, 1)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
    drop(client);
    assert!(guarded(server).await.unwrap().is_err());
}

#[tokio::test]
async fn a_stranger_who_listens_is_refused_by_name() {
    let (us, stranger) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let accepting = tls_trusting(&stranger, vec![us.fingerprint()]);
    let (client, server) = shake(&tls_trusting(&us, vec![]), Expect::AnyTrusted, &accepting).await;
    assert_eq!(client.unwrap_err().tls(), Some(&TlsError::Stranger(stranger.fingerprint())));
    assert_eq!(server.unwrap_err().tls(), Some(&TlsError::RefusedByPeer(stranger.fingerprint())));
}

#[tokio::test]
async fn another_key_than_expected_is_refused() {
    let (one, other) = friends();
    let expected = Identity::generate().unwrap().fingerprint();
    let (client, server) = shake(&one, Expect::Key(expected), &other).await;
    let found = other.fingerprint();
    assert_eq!(client.unwrap_err().tls(), Some(&TlsError::Unexpected { expected, found }));
    assert!(server.is_err());
}

#[tokio::test]
async fn a_pinned_key_needs_no_trust() {
    let (us, peer) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let accepting = tls_trusting(&peer, vec![us.fingerprint()]);
    let (client, _server) =
        shake(&tls_trusting(&us, vec![]), Expect::Key(peer.fingerprint()), &accepting).await;
    assert_eq!(client.unwrap().peer(), peer.fingerprint());
}

#[tokio::test]
async fn what_is_not_tls_is_refused() {
    let (us, _) = friends();
    let (mut client, server) = tcp_pair().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let refusing = handshake(server, &us, Side::Accepting, GUARD);
    let reading = async {
        let mut alert = Vec::new();
        client.read_to_end(&mut alert).await.unwrap();
        drop(client);
    };
    let (refused, ()) = guarded(async { tokio::join!(refusing, reading) }).await;
    assert!(matches!(refused.unwrap_err().tls(), Some(TlsError::Protocol(_))));
}

#[tokio::test]
async fn silence_ends_in_time() {
    let (us, _) = friends();
    let (_client, server) = tcp_pair().await;
    let limit = std::time::Duration::from_millis(50);
    let error = guarded(handshake(server, &us, Side::Accepting, limit)).await.unwrap_err();
    assert!(error.to_string().contains("within 50ms"), "{error}");
}
