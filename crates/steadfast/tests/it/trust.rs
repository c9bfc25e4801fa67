//! Who may converse.

use crate::common::{Directory, local, meet, next, pair, soon};
use steadfast::{ConnectError, EndReason, Identity, Labels, SessionError, TrustFile};

#[tokio::test]
async fn a_stranger_is_refused_and_told_so() {
    let (a, _b) = pair().await;
    let stranger =
        local().identity(Identity::generate().unwrap()).trust(a.fingerprint()).bind().await.unwrap();
    let error = soon("connect", stranger.connect(a.contact())).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    let advice = format!("steadfast trust add {}", stranger.fingerprint());
    assert!(error.to_string().contains(&advice), "{error}");
}

#[tokio::test]
async fn a_stranger_is_asked_about_and_let_in_if_trusted() {
    let (a, b) = pair().await;
    let stranger =
        local().identity(Identity::generate().unwrap()).trust(a.fingerprint()).bind().await.unwrap();
    for _ in 0..2 {
        soon("refusal", stranger.connect(a.contact())).await.unwrap_err();
    }
    let asked = soon("stranger", a.next_stranger()).await.unwrap();
    assert_eq!(asked.key, stranger.fingerprint());
    assert!(asked.address.ip().is_loopback());
    assert!(a.reception().strangers >= 1, "{:?}", a.reception());
    a.trust(asked.key);
    meet(&stranger, &a).await;
    b.close("").await;
    assert_eq!(soon("the end", b.next_stranger()).await, None);
}

#[tokio::test]
async fn a_host_without_a_key_is_a_trusted_name() {
    let directory = Directory::new();
    let path = directory.0.join("trusted");
    let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let b = local().identity(b).trust(a.fingerprint()).bind().await.unwrap();
    let a = local().identity(a).trust_file(&path).bind().await.unwrap();
    let address = format!("127.0.0.1:{}", b.port());
    let error = soon("connect", a.connect(&address)).await.unwrap_err();
    assert!(error.to_string().contains(&format!("KEY@{address}")), "{error}");
    TrustFile::open(&path).unwrap().add(b.fingerprint(), Some("127.0.0.1")).unwrap();
    // The file is watched; nothing tells when that has happened.
    let at_a = soon("connect", async {
        loop {
            match a.connect(&address).await {
                Ok(socket) => break socket,
                Err(ConnectError::UnknownPeer { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await;
    assert_eq!(at_a.peer(), b.fingerprint());
}

#[tokio::test]
async fn removing_a_key_from_the_file_ends_its_conversations() {
    let directory = Directory::new();
    let path = directory.0.join("trusted");
    let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let mut file = TrustFile::open(&path).unwrap();
    file.add(a.fingerprint(), Some("friend")).unwrap();
    let a = local().identity(a).trust(b.fingerprint()).bind().await.unwrap();
    let b = local().identity(b).trust_file(&path).bind().await.unwrap();
    let (at_a, at_b) = meet(&a, &b).await;
    at_a.send("hello", Labels::foreground()).await.unwrap();
    assert_eq!(next(&at_b).await.unwrap(), "hello");
    file.remove(&a.fingerprint()).unwrap();
    for socket in [&at_a, &at_b] {
        let error = soon("end", socket.recv()).await.unwrap_err();
        assert!(matches!(&error, SessionError::Ended { reason: EndReason::Left, .. }), "{error}");
    }
    let error = soon("connect", a.connect(b.contact())).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn an_endpoint_does_not_converse_with_itself() {
    let (a, _b) = pair().await;
    let error = soon("connect", a.connect(a.contact())).await.unwrap_err();
    assert!(matches!(error, ConnectError::Itself(_)), "{error}");
}
