//! Peers that break the rules of calls: the conversation ends, or what they say is ignored and counted.

use super::{Guard, any, echo, hangs, soon, until};
use crate::common::{meet, next, pair, talking};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use steadfast::rpc::{self, CallError, Request, Rpc, ServeConfig, ServeError, Server};
use steadfast::{
    Bytes, EndReason, Endpoint, Labels, Message, MultiSocket, OrderRequest, Outcome, SessionError,
};
use steadfast_wire::call::{Fault, Head, MAX_WHOLE_BODY};
use tokio::sync::mpsc;

fn message(head: Head, body: &[u8]) -> Bytes {
    let mut out = Vec::new();
    head.encode(&mut out);
    out.extend_from_slice(body);
    out.into()
}

async fn say(socket: &MultiSocket, head: Head, body: &[u8]) {
    let sent = socket.send_with(message(head, body), Labels::foreground(), OrderRequest::Unordered).await;
    sent.unwrap();
}

/// The next thing that is said, but for limits.
async fn hear(socket: &MultiSocket) -> Head {
    loop {
        let mut bytes = next(socket).await.expect("the conversation goes on");
        match Head::decode(&mut bytes).unwrap().unwrap() {
            Head::Limits(_) => {}
            head => return head,
        }
    }
}

const fn request(call: u64) -> Head {
    Head::Request { call, deadline: None }
}

/// A server with a friend, and an enemy on a conversation of its own.
struct Siege {
    server: Server,
    enemy: MultiSocket,
    friend: Rpc,
    _served: Server,
    _endpoints: [Endpoint; 2],
}

impl Siege {
    async fn new(handler: impl rpc::Handler) -> Self {
        let (a, b) = pair().await;
        let (at_a, at_b) = meet(&a, &b).await;
        let (friend, served) = (Rpc::new(at_a), rpc::serve(at_b, echo));
        let (enemy, at_b) = meet(&a, &b).await;
        let server = rpc::serve_with(at_b, handler, ServeConfig::default().max_open(64).concurrency(2));
        Self { server, enemy, friend, _served: served, _endpoints: [a, b] }
    }

    /// The enemy's conversation ends, the friend's goes on.
    async fn ends(mut self) -> String {
        let over = soon("thrown out", self.server.done()).await;
        let Err(ServeError::Violation(what)) = over else { panic!("{over:?}") };
        let error = loop {
            match soon("the end", self.enemy.recv()).await {
                Ok(message) => assert!(message.is_some(), "it is no polite end"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, SessionError::Ended { reason: EndReason::Aborted, .. }), "{error}");
        let response = soon("a friend's call", self.friend.call("well?", any())).await.unwrap();
        assert_eq!(super::text(response).await, "well?");
        what
    }
}

#[tokio::test]
async fn what_is_no_call_ends_the_conversation() {
    for bytes in [
        &b"hello, this is an ordinary message"[..],
        b"",
        &[1],
        &[1, 0, 1],
        &[1, 9, 1],
        &[1, 0, 1, 8],
        &[1, 3, 1, 1],
        &[1, 4, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0],
    ] {
        let siege = Siege::new(echo).await;
        siege.enemy.send(Bytes::copy_from_slice(bytes), Labels::foreground()).await.unwrap();
        siege.ends().await;
    }
}

#[tokio::test]
async fn a_whole_message_that_should_be_streamed() {
    let siege = Siege::new(echo).await;
    say(&siege.enemy, request(1), &vec![0; MAX_WHOLE_BODY]).await;
    assert_eq!(hear(&siege.enemy).await, Head::Response { call: 1 });
    say(&siege.enemy, request(2), &vec![0; MAX_WHOLE_BODY + 1]).await;
    assert!(siege.ends().await.contains("longer"));
}

#[tokio::test]
async fn a_streamed_message_that_should_be_whole() {
    for head in
        [Head::Cancel { call: 1 }, Head::Fault { call: 1, fault: Fault::Failed }, Head::Limits([1; 2])]
    {
        let siege = Siege::new(echo).await;
        let mut writer = siege.enemy.begin(Labels::foreground()).await.unwrap();
        writer.write(message(head, b"")).await.unwrap();
        writer.finish().await.unwrap();
        assert!(siege.ends().await.contains("streamed"));
    }
    let siege = Siege::new(echo).await;
    let mut writer = siege.enemy.begin(Labels::foreground()).await.unwrap();
    writer.write(vec![1, 0]).await.unwrap();
    writer.finish().await.unwrap();
    assert!(siege.ends().await.contains("shorter"));
}

#[tokio::test]
async fn a_head_that_arrives_byte_by_byte_is_a_head() {
    let siege = Siege::new(echo).await;
    let mut writer = siege.enemy.begin(Labels::foreground()).await.unwrap();
    let bytes = message(Head::Request { call: 70, deadline: Some(100_000) }, b"abc");
    for at in 0..bytes.len() {
        writer.write(bytes.slice(at..=at)).await.unwrap();
        tokio::task::yield_now().await;
    }
    writer.finish().await.unwrap();
    assert_eq!(hear(&siege.enemy).await, Head::Response { call: 70 });
}

#[tokio::test]
async fn more_calls_than_allowed() {
    let (handler, _told) = hangs();
    let siege = Siege::new(handler).await;
    for call in 1..=65 {
        say(&siege.enemy, request(call), b"x").await;
    }
    assert!(siege.ends().await.contains("more calls"));
}

#[tokio::test]
async fn two_calls_of_one_number() {
    let (handler, _told) = hangs();
    let siege = Siege::new(handler).await;
    say(&siege.enemy, request(7), b"x").await;
    say(&siege.enemy, request(7), b"x").await;
    assert!(siege.ends().await.contains("one number"));
}

#[tokio::test]
async fn streams_that_never_say_what_they_are() {
    let siege = Siege::new(echo).await;
    let mut writers = Vec::new();
    for call in 0..200 {
        let bytes = message(request(1000 + call), b"x");
        let begun = siege.enemy.begin_with(Labels::foreground(), OrderRequest::Unordered, None);
        let mut writer = begun.await.unwrap();
        writer.write(bytes.slice(..1)).await.unwrap();
        writers.push((writer, bytes.slice(1..)));
    }
    // What comes behind them waits, and friends are served.
    say(&siege.enemy, request(7), b"x").await;
    let response = soon("a friend's call", siege.friend.call("well?", any())).await.unwrap();
    assert_eq!(super::text(response).await, "well?");
    // Once they say it, all are answered.
    let mut open = HashSet::from([7]);
    for (number, (mut writer, rest)) in writers.into_iter().enumerate() {
        writer.write(rest).await.unwrap();
        writer.finish().await.unwrap();
        open.insert(1000 + number as u64);
        if open.len() >= 60 {
            let Head::Response { call } = hear(&siege.enemy).await else { panic!("no response") };
            assert!(open.remove(&call), "{call}");
        }
    }
    while !open.is_empty() {
        let Head::Response { call } = hear(&siege.enemy).await else { panic!("no response") };
        assert!(open.remove(&call), "{call}");
    }
}

#[tokio::test]
async fn what_belongs_to_no_call_is_ignored_and_counted() {
    let siege = Siege::new(echo).await;
    say(&siege.enemy, Head::Response { call: 5 }, b"x").await;
    say(&siege.enemy, Head::Fault { call: 5, fault: Fault::Failed }, b"x").await;
    say(&siege.enemy, Head::Limits([8192; 2]), b"").await;
    say(&siege.enemy, Head::Cancel { call: 5 }, b"").await;
    assert_eq!(hear(&siege.enemy).await, Head::Fault { call: 5, fault: Fault::NotOpen });
    say(&siege.enemy, Head::Foreign { call: 6 }, b"\0").await;
    let mut other = message(request(9), b"?").to_vec();
    other[0] = 2;
    siege.enemy.send(other, Labels::foreground()).await.unwrap();
    let mut heard = HashSet::new();
    for _ in 0..2 {
        heard.insert(format!("{:?}", hear(&siege.enemy).await));
    }
    assert!(heard.contains(&format!("{:?}", Head::Fault { call: 9, fault: Fault::Version })), "{heard:?}");
    assert_eq!(siege.server.stats().unmatched, 3);
}

/// Who takes no answers is not listened to any more: nothing piles up at the server.
#[tokio::test]
async fn a_peer_that_only_talks() {
    let siege = Siege::new(echo).await;
    // Nothing is received at the enemy, so its window fills with answers, then the server's send buffer, then its outbox.
    let mut said = 0_u64;
    let mut silent = 0;
    while silent < 50 {
        let cancel = message(Head::Cancel { call: said }, b"");
        if siege.enemy.try_send(cancel, Labels::foreground()).is_ok() {
            said += 1;
            silent = 0;
        } else {
            silent += 1;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        assert!(said < 1_000_000, "there is no end to it");
        tokio::task::yield_now().await;
    }
    // All of it is answered once it listens.
    let mut heard = 0;
    while heard < said {
        assert!(matches!(hear(&siege.enemy).await, Head::Fault { fault: Fault::NotOpen, .. }));
        heard += 1;
    }
}

/// An honest client, and a server that is an enemy.
async fn ambush() -> (Rpc, MultiSocket, [Endpoint; 2]) {
    let (a, b, at_a, at_b) = talking().await;
    (Rpc::new(at_a), at_b, [a, b])
}

#[tokio::test]
async fn answers_that_nobody_asked_for() {
    let (rpc, enemy, _endpoints) = ambush().await;
    let pending = rpc.start("x", any()).await.unwrap();
    let asked: Message = soon("a request", enemy.recv()).await.unwrap().unwrap();
    let Some(Head::Request { call, .. }) = Head::decode(&mut asked.payload().unwrap().clone()).unwrap()
    else {
        panic!("no request")
    };
    for other in [call + 1, 0, 1 << 40] {
        say(&enemy, Head::Response { call: other }, b"x").await;
        say(&enemy, Head::Fault { call: other, fault: Fault::Failed }, b"x").await;
    }
    let mut writer = enemy.begin(Labels::foreground()).await.unwrap();
    writer.write(message(Head::Response { call: call + 1 }, &[0; 100])).await.unwrap();
    until("all are counted", || rpc.stats().unmatched == 7).await;
    // Nobody reads it.
    soon("refused", async { while writer.write(vec![0; 1000]).await.is_ok() {} }).await;
    say(&enemy, Head::Response { call }, b"the answer").await;
    say(&enemy, Head::Response { call }, b"another answer").await;
    assert_eq!(super::text(soon("the answer", pending.response()).await.unwrap()).await, "the answer");
    until("the other is counted", || rpc.stats().unmatched == 8).await;
}

#[tokio::test]
async fn a_server_that_breaks_the_rules_ends_its_calls() {
    for bytes in [
        Bytes::from_static(b"hello"),
        message(Head::Response { call: 1 }, &vec![0; MAX_WHOLE_BODY + 1]),
        message(Head::Fault { call: 1, fault: Fault::Failed }, &[b'x'; 1025]),
        Bytes::from_static(&[1, 2, 1, 77]),
    ] {
        let (rpc, enemy, _endpoints) = ambush().await;
        let pending = rpc.start("x", any()).await.unwrap();
        enemy.send_with(bytes, Labels::foreground(), OrderRequest::Unordered).await.unwrap();
        let error = soon("the end", pending.response()).await.unwrap_err();
        let CallError::Ended { source: SessionError::Ended { reason, .. }, request, .. } = error else {
            panic!("{error}")
        };
        assert_eq!((reason, request), (EndReason::Violation, Outcome::Unknown));
    }
}

#[tokio::test]
async fn words_that_are_no_text() {
    let (rpc, enemy, _endpoints) = ambush().await;
    let pending = rpc.start("x", any()).await.unwrap();
    say(&enemy, Head::Fault { call: 1, fault: Fault::Failed }, &[0xff, b'a']).await;
    let error = soon("the fault", pending.response()).await.unwrap_err();
    assert_eq!(error, CallError::Failed("\u{fffd}a".into()));
}

#[tokio::test]
async fn calls_that_come_and_go_leave_nothing() {
    let begun = Arc::new(AtomicUsize::new(0));
    let (sender, mut told) = mpsc::unbounded_channel();
    let counter = Arc::clone(&begun);
    let siege = Siege::new(move |_: Request| {
        counter.fetch_add(1, Ordering::Relaxed);
        let guard = Guard(sender.clone());
        async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        }
    })
    .await;
    // Many times what may be open, each cancelled at once: two run, the others never begin.
    for call in 0..1000 {
        say(&siege.enemy, request(call), &[0; 1000]).await;
        say(&siege.enemy, Head::Cancel { call }, b"").await;
        assert!(matches!(
            hear(&siege.enemy).await,
            Head::Fault { fault: Fault::Cancelled | Fault::CancelledUnbegun, .. }
        ));
    }
    let stats = siege.server.stats();
    assert_eq!((stats.taken, stats.cancelled), (1000, 1000));
    for _ in 0..begun.load(Ordering::Relaxed) {
        assert_eq!(soon("drops", told.recv()).await, Some("dropped"));
    }
}
