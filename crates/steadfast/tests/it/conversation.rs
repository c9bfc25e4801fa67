//! Messages, receipts and endings over loopback.

use crate::common::{next, soon, talking};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use steadfast::{DropReason, Event, Labels, OrderRequest, Outcome, Rule, Selector, SendError, Urgency};

#[tokio::test]
async fn messages_both_ways_with_their_labels() {
    let (_a, _b, at_a, at_b) = talking().await;
    let labels = Labels::background().rule(Rule::default().prohibit(Selector::Metered));
    let receipt = at_a.send("over", labels.clone()).await.unwrap();
    let message = soon("recv", at_b.recv()).await.unwrap().unwrap();
    assert_eq!(message.labels, labels);
    assert_eq!(message.labels.urgency, Urgency::Background);
    assert_eq!(message.id, receipt.id());
    assert_eq!(message.payload().unwrap(), "over");
    soon("ack", receipt.acked()).await.unwrap();
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
    at_b.send("and back", Labels::foreground()).await.unwrap();
    assert_eq!(next(&at_a).await.unwrap(), "and back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_in_order_on_several_threads() {
    const COUNT: u32 = 5000;
    let (_a, _b, at_a, at_b) = talking().await;
    let sender = tokio::spawn(async move {
        let mut receipts = Vec::new();
        for number in 0..COUNT {
            receipts.push(at_a.send(number.to_be_bytes().to_vec(), Labels::foreground()).await.unwrap());
        }
        for receipt in receipts {
            assert_eq!(receipt.outcome().await, Outcome::Delivered);
        }
    });
    for number in 0..COUNT {
        assert_eq!(next(&at_b).await.unwrap(), number.to_be_bytes().to_vec());
    }
    soon("all outcomes", sender).await.unwrap();
}

#[tokio::test]
async fn try_recv_does_not_wait() {
    let (_a, _b, at_a, at_b) = talking().await;
    assert!(at_b.try_recv().unwrap().is_none());
    let receipt = at_a.send("x", Labels::foreground()).await.unwrap();
    soon("ack", receipt.acked()).await.unwrap();
    assert_eq!(at_b.try_recv().unwrap().unwrap().payload().unwrap(), "x");
    assert!(at_b.try_recv().unwrap().is_none());
}

#[tokio::test]
async fn try_send_says_when_the_buffer_is_full() {
    let (_a, b, at_a, _at_b) = talking().await;
    // Nobody is there to take anything.
    b.quiesce().await;
    let piece = bytes::Bytes::from(vec![0; 512 * 1024]);
    let mut sent = 0;
    let error = loop {
        match at_a.try_send(piece.clone(), Labels::foreground()) {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1000, "the buffer has no end");
    };
    assert_eq!(error, SendError::Full(Urgency::Foreground));
    assert!(error.to_string().contains("wait"), "{error}");
}

#[tokio::test]
async fn a_dropped_send_has_sent_nothing_and_a_dropped_recv_loses_nothing() {
    let (_a, _b, at_a, at_b) = talking().await;
    {
        let mut waiting = pin!(at_b.recv());
        assert!(poll_once(waiting.as_mut()).await.is_none());
    }
    let piece = bytes::Bytes::from(vec![0; 1024 * 1024]);
    let mut count = 0;
    loop {
        let mut sending = pin!(at_a.send(piece.clone(), Labels::background()));
        if poll_once(sending.as_mut()).await.is_none() {
            break;
        }
        count += 1;
    }
    at_a.finish().unwrap();
    let mut received = 0;
    while next(&at_b).await.is_some() {
        received += 1;
    }
    assert_eq!(received, count);
}

/// Polls once and then drops.
#[tokio::test]
async fn who_waits_for_a_message_and_is_not_polled_holds_up_nobody() {
    let (a, b, at_a, at_b) = talking().await;
    let second_at_a = a.connect(b.contact().as_str()).await.unwrap();
    let second_at_b = soon("accept", b.accept()).await.unwrap();
    // From now on it is known by which carrier the first conversation's messages come.
    at_a.send("first", Labels::foreground()).await.unwrap();
    assert_eq!(next(&at_b).await.unwrap(), "first");
    let waiting = at_b.recv();
    let mut waiting = pin!(waiting);
    assert!(poll_once(waiting.as_mut()).await.is_none());
    for number in 0..100_u32 {
        let receipt = second_at_a.send(number.to_be_bytes().to_vec(), Labels::foreground()).await.unwrap();
        assert_eq!(next(&second_at_b).await.unwrap(), number.to_be_bytes().to_vec());
        assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
    }
    let receipt = at_a.send("second", Labels::foreground()).await.unwrap();
    soon("ack", receipt.acked()).await.unwrap();
    let message = soon("recv", waiting).await.unwrap().unwrap();
    assert_eq!(message.payload().unwrap(), "second");
}

async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn a_cancelled_message_says_so_and_others_pass_it() {
    let (_a, b, at_a, at_b) = talking().await;
    let mut events = at_a.events();
    b.quiesce().await;
    while !matches!(soon("parked", events.next()).await, Some(Event::Parked { .. })) {}
    let first = at_a.send("first", Labels::foreground()).await.unwrap();
    let second = at_a.send("second", Labels::foreground()).await.unwrap();
    let waits =
        at_a.send_with("third", Labels::foreground(), OrderRequest::After(vec![first.id()])).await.unwrap();
    at_a.cancel(first.id()).unwrap();
    assert_eq!(soon("outcome", first.outcome()).await, Outcome::Dropped(DropReason::Cancelled));
    assert_eq!(soon("outcome", waits.outcome()).await, Outcome::Dropped(DropReason::Dependency));
    assert_eq!(soon("no ack", first.acked()).await, Err(Outcome::Dropped(DropReason::Cancelled)));
    let again = at_a.cancel(first.id()).unwrap_err();
    assert!(again.to_string().contains("outcome"), "{again}");
    b.revive().await.unwrap();
    assert_eq!(next(&at_b).await.unwrap(), "second");
    assert_eq!(soon("outcome", second.outcome()).await, Outcome::Delivered);
}

#[tokio::test]
async fn urgent_messages_overtake_by_relabelling() {
    let (_a, b, at_a, at_b) = talking().await;
    let mut events = at_a.events();
    b.quiesce().await;
    while !matches!(soon("parked", events.next()).await, Some(Event::Parked { .. })) {}
    at_a.send_with("slow", Labels::background(), OrderRequest::Unordered).await.unwrap();
    let fast = at_a.send_with("fast", Labels::background(), OrderRequest::Unordered).await.unwrap();
    at_a.relabel(fast.id(), Labels::foreground()).unwrap();
    b.revive().await.unwrap();
    soon("ack", fast.acked()).await.unwrap();
    assert_eq!(next(&at_b).await.unwrap(), "fast");
    assert_eq!(next(&at_b).await.unwrap(), "slow");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_with_advice() {
    let (_a, _b, at_a, _at_b) = talking().await;
    let error = at_a.send(vec![0; 2 << 20], Labels::background()).await.unwrap_err();
    assert!(error.to_string().contains("begin"), "{error}");
}
