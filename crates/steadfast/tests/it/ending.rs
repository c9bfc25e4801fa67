//! How conversations end.

use crate::common::{local, meet, next, pair, soon, talking};
use std::time::Duration;
use steadfast::{CloseError, EndReason, Event, Identity, Labels, Outcome, SendError, SessionError};

fn reason_of(error: &SessionError) -> EndReason {
    match error {
        SessionError::Ended { reason, .. } => *reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn half_close_leaves_the_other_direction() {
    let (_a, _b, at_a, at_b) = talking().await;
    at_a.send("last", Labels::foreground()).await.unwrap();
    at_a.finish().unwrap();
    assert_eq!(at_a.send("more", Labels::foreground()).await.unwrap_err(), SendError::Shut);
    assert_eq!(next(&at_b).await.unwrap(), "last");
    assert!(next(&at_b).await.is_none());
    at_b.send("still here", Labels::foreground()).await.unwrap();
    assert_eq!(next(&at_a).await.unwrap(), "still here");
    at_b.finish().unwrap();
    assert!(next(&at_a).await.is_none());
    assert!(next(&at_b).await.is_none());
}

#[tokio::test]
async fn close_waits_until_the_peer_took_everything() {
    let (_a, _b, at_a, at_b) = talking().await;
    let receipt = at_a.send("take me", Labels::foreground()).await.unwrap();
    let closing = tokio::spawn({
        let at_a = at_a.clone();
        async move { at_a.close().await }
    });
    // The close has arrived when sends fail there.
    let error = soon("sends fail", async {
        loop {
            if let Err(error) = at_b.send("unwanted", Labels::foreground()).await {
                break error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(matches!(error, SendError::PeerShut | SendError::Shut), "{error}");
    assert!(!closing.is_finished());
    assert_eq!(next(&at_b).await.unwrap(), "take me");
    soon("close", closing).await.unwrap().unwrap();
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
    assert!(next(&at_b).await.is_none());
    assert_eq!(soon("closed again", at_a.close()).await, Ok(()));
    assert!(soon("recv", at_a.recv()).await.unwrap().is_none());
}

/// Whoever accepts until there is nothing more drops its conversations then, and peers hear a farewell all the same.
#[tokio::test(flavor = "multi_thread")]
async fn who_drops_all_when_the_endpoint_closes_has_left() {
    for round in 0..40 {
        let (a, b) = pair().await;
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(soon("connect", a.connect(b.contact())).await.unwrap());
        }
        let accepting = b.clone();
        let accepts = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Some(socket) = accepting.accept().await {
                kept.push(socket);
            }
        });
        b.close("good night").await;
        soon("the end of accepting", accepts).await.unwrap();
        for socket in all {
            let Err(error) = soon("the end", socket.recv()).await else {
                panic!("{round}: closed, not left")
            };
            assert_eq!(reason_of(&error), EndReason::Left, "{round}");
        }
    }
}

#[tokio::test]
async fn close_gives_up_at_its_limit() {
    let (_a, _b, at_a, _at_b) = talking().await;
    let receipt = at_a.send("nobody takes me", Labels::foreground()).await.unwrap();
    let limit = Duration::from_millis(200);
    let error = soon("close", at_a.close_within(limit)).await.unwrap_err();
    assert_eq!(error, CloseError::Limit(limit));
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Unknown);
}

#[tokio::test]
async fn abort_leaves_the_outcome_unknown_and_wakes_the_peer() {
    let (_a, _b, at_a, at_b) = talking().await;
    let receipt = at_b.send("nobody takes me", Labels::foreground()).await.unwrap();
    let own = at_a.send("nor me", Labels::foreground()).await.unwrap();
    soon("ack", own.acked()).await.unwrap();
    at_a.abort();
    assert_eq!(soon("outcome", own.outcome()).await, Outcome::Unknown);
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Unknown);
    let error = soon("recv", at_a.recv()).await.unwrap_err();
    assert_eq!(reason_of(&error), EndReason::Aborted);
    let error = at_b.send("late", Labels::foreground()).await.unwrap_err();
    assert_eq!(error, SendError::Ended);
}

#[tokio::test]
async fn a_blocked_reader_wakes_when_the_conversation_ends() {
    for abort in [false, true] {
        let (_a, _b, at_a, at_b) = talking().await;
        let reader = tokio::spawn(async move { at_b.recv().await });
        // It is waiting by the time anything can arrive.
        tokio::task::yield_now().await;
        if abort {
            at_a.abort();
            let error = soon("reader", reader).await.unwrap().unwrap_err();
            assert_eq!(reason_of(&error), EndReason::Aborted);
        } else {
            soon("close", at_a.close()).await.unwrap();
            assert!(soon("reader", reader).await.unwrap().unwrap().is_none());
        }
    }
}

#[tokio::test]
async fn a_blocked_writer_wakes_when_the_peer_closes() {
    let (_a, _b, at_a, at_b) = talking().await;
    let writer = tokio::spawn(async move {
        loop {
            if let Err(error) = at_a.send(vec![0; 1 << 20], Labels::foreground()).await {
                return error;
            }
        }
    });
    soon("recv", at_b.recv()).await.unwrap();
    let _refuses_the_rest = soon("close", at_b.close()).await;
    let error = soon("writer", writer).await.unwrap();
    assert!(matches!(error, SendError::PeerShut | SendError::Shut | SendError::Ended), "{error}");
}

#[tokio::test]
async fn dropping_the_last_handle_delivers_what_was_sent() {
    let (_a, _b, at_a, at_b) = talking().await;
    let receipt = at_a.send("good-bye", Labels::foreground()).await.unwrap();
    let clone = at_a.clone();
    drop(at_a);
    clone.send("really", Labels::foreground()).await.unwrap();
    drop(clone);
    assert_eq!(next(&at_b).await.unwrap(), "good-bye");
    assert_eq!(next(&at_b).await.unwrap(), "really");
    assert!(next(&at_b).await.is_none());
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
}

#[tokio::test]
async fn an_endpoint_that_closes_says_why() {
    let (a, b, at_a, at_b) = talking().await;
    let mut events = at_b.events();
    soon("close", a.close("time for bed")).await;
    let error = soon("recv", at_b.recv()).await.unwrap_err();
    assert_eq!(reason_of(&error), EndReason::Left);
    assert!(error.to_string().contains("time for bed"), "{error}");
    let mut left = false;
    while let Some(event) = soon("event", events.next()).await {
        left |= matches!(&event, Event::PeerLeft { reason, .. } if reason == "time for bed");
    }
    assert!(left);
    assert!(soon("accept", a.accept()).await.is_none());
    assert_eq!(at_a.send("late", Labels::foreground()).await.unwrap_err(), SendError::Ended);
    assert!(soon("connect", a.connect(b.contact())).await.is_err());
    soon("close again", a.close("twice")).await;
}

#[tokio::test]
async fn a_peer_that_restarts_ends_the_old_conversation() {
    let (a, b) = pair().await;
    // The identity outlives the process.
    let directory = crate::common::Directory::new();
    let path = directory.0.join("identity");
    let identity = Identity::generate().unwrap();
    identity.save(&path).unwrap();
    soon("close", b.close("")).await;
    soon("close", a.close("")).await;
    let other = Identity::generate().unwrap();
    let a = local().trust(identity.fingerprint()).identity(other).bind().await.unwrap();
    let b = local().identity_file(&path).trust(a.fingerprint()).bind().await.unwrap();
    let (at_a, at_b) = meet(&a, &b).await;
    at_a.send("before", Labels::foreground()).await.unwrap();
    assert_eq!(next(&at_b).await.unwrap(), "before");
    // A crash: nobody says goodbye.
    let port = b.port();
    b.quiesce().await;
    let again = local().identity_file(&path).trust(a.fingerprint()).port(port).bind().await.unwrap();
    let unsure = at_a.send("after", Labels::foreground()).await;
    let error = soon("end", at_a.recv()).await.unwrap_err();
    assert_eq!(reason_of(&error), EndReason::Unknown);
    assert!(error.to_string().contains("restarted"), "{error}");
    if let Ok(receipt) = unsure {
        // Whether a byte of it was sent decides between the two.
        let outcome = soon("outcome", receipt.outcome()).await;
        assert!(matches!(outcome, Outcome::Unknown | Outcome::Dropped(_)), "{outcome:?}");
    }
    let (at_a, at_b) = meet(&a, &again).await;
    at_a.send("anew", Labels::foreground()).await.unwrap();
    assert_eq!(next(&at_b).await.unwrap(), "anew");
}
