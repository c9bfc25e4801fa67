//! When no network fits, with real sockets: the peer's endpoint is quiesced and revived, as a network that goes and comes;
//! and between hosts of a lab.

use crate::common::{cut, local, meet, next, soon, talking};
use crate::world::{block_on, endpoint};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use steadfast::{
    Deferred, DeferredError, DropReason, EndReason, Event, Identity, Labels, MultiSocket, Outcome, Rule,
    Selector, SendError, SendOptions, SessionError, Submission,
};
use steadfast_testbed::{Lab, isolated};
use tokio::sync::mpsc;

async fn defer(socket: &MultiSocket, text: &'static str, labels: &Labels) -> Deferred {
    match soon("an answer", socket.send_or_defer(text, labels.clone())).await.unwrap() {
        Submission::Deferred(deferred) => deferred,
        Submission::Sent(receipt) => panic!("a network fits: {receipt:?}"),
    }
}

fn no_network(error: &SendError) -> bool {
    matches!(error, SendError::NoNetwork { .. })
}

#[tokio::test]
async fn a_send_fails_at_once_or_after_a_time_or_waits() {
    let (_a, b, at_a, at_b) = talking().await;
    let fast = Labels::foreground();
    let slow = Labels::foreground().small();
    assert_eq!(at_a.failure_timeout(&fast), None);
    at_a.set_failure_timeout(&fast, Some(Duration::ZERO)).unwrap();
    at_a.set_failure_timeout(&slow, Some(Duration::from_millis(50))).unwrap();
    assert_eq!(at_a.failure_timeout(&fast), Some(Duration::ZERO));
    at_a.send("one", fast.clone()).await.unwrap();
    assert_eq!(next(&at_b).await.unwrap(), "one");

    cut(&b, &at_a).await;
    assert!(no_network(&soon("refused", at_a.send("x", fast.clone())).await.unwrap_err()));
    assert!(no_network(&soon("refused", at_a.begin(fast.clone())).await.unwrap_err()));
    assert!(no_network(&at_a.try_send("x", slow.clone()).unwrap_err()), "it does not wait");
    assert!(no_network(&soon("refused in time", at_a.send("x", slow.clone())).await.unwrap_err()));
    // The setting is for the next send: now it waits, and one that is dropped meanwhile has sent nothing.
    at_a.set_failure_timeout(&slow, Some(Duration::from_secs(3600))).unwrap();
    tokio::select! {
        biased;
        result = at_a.send("never", slow.clone()) => panic!("{result:?}"),
        () = tokio::task::yield_now() => {}
    }
    let (waits, ()) = tokio::join!(at_a.send("two", slow.clone()), async { b.revive().await.unwrap() });
    let receipt = waits.unwrap();
    assert_eq!(next(&at_b).await.unwrap(), "two");
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
    assert_eq!(at_a.cancel_deferred(&slow), 0, "what waited was a send");
}

#[tokio::test]
async fn a_receipt_tells_that_the_network_went_away_for_too_long() {
    let (_a, b, at_a, at_b) = talking().await;
    let labels = Labels::background().small();
    at_a.set_failure_timeout(&labels, Some(Duration::from_millis(50))).unwrap();
    // The reader takes nothing, so most of it stays here.
    let options = SendOptions::new().unordered();
    let mut receipts = Vec::new();
    while let Ok(receipt) = at_a.try_send(vec![0; 1 << 20], labels.clone()) {
        receipts.push(receipt);
    }
    let last = receipts.pop().unwrap();
    cut(&b, &at_a).await;
    assert_eq!(soon("outcome", last.outcome()).await, Outcome::Dropped(DropReason::NoNetwork));
    // Without a timeout it waits, and comes.
    let receipt = at_a.send_with("patient", Labels::foreground(), options).await.unwrap();
    b.revive().await.unwrap();
    assert_eq!(next(&at_b).await.unwrap(), "patient");
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_deferred_send_comes_back_when_a_network_does() {
    let (_a, b, at_a, at_b) = talking().await;
    let labels = Labels::foreground();
    match at_a.send_or_defer("now", labels.clone()).await.unwrap() {
        Submission::Sent(_) => assert_eq!(next(&at_b).await.unwrap(), "now"),
        Submission::Deferred(_) => panic!("a network is there"),
    }
    for round in 0..3 {
        cut(&b, &at_a).await;
        let deferred = defer(&at_a, "later", &labels).await;
        assert_eq!(deferred.payload(), "later");
        let woken = tokio::spawn(deferred);
        tokio::task::yield_now().await;
        b.revive().await.unwrap();
        let payload = soon("it is told", woken).await.unwrap().unwrap();
        assert_eq!(payload, "later", "round {round}");
        // Gone again before the application sends: it is deferred again.
        cut(&b, &at_a).await;
        let again = defer(&at_a, "fresh", &labels).await;
        b.revive().await.unwrap();
        soon("it is told again", again).await.unwrap();
        at_a.send("fresh", labels.clone()).await.unwrap();
        assert_eq!(next(&at_b).await.unwrap(), "fresh");
    }
}

#[tokio::test]
async fn a_network_that_is_gone_before_anybody_looked_does_not_count() {
    let (_a, b, at_a, _at_b) = talking().await;
    cut(&b, &at_a).await;
    let mut deferred = Box::pin(defer(&at_a, "later", &Labels::foreground()).await);
    let mut events = at_a.events();
    b.revive().await.unwrap();
    while !at_a.has_network_for(&Labels::foreground()) {
        soon("an event", events.next()).await.unwrap();
    }
    cut(&b, &at_a).await;
    // Polled only now.
    let early = tokio::time::timeout(Duration::from_millis(20), &mut deferred).await;
    assert!(early.is_err(), "{early:?}");
    b.revive().await.unwrap();
    assert_eq!(soon("it is told", deferred).await.unwrap(), "later");
}

#[tokio::test]
async fn callbacks_run_in_order_and_stop_when_the_network_goes_away() {
    let (_a, b, at_a, at_b) = talking().await;
    let (labels, other) = (Labels::foreground(), Labels::foreground().small());
    cut(&b, &at_a).await;
    let (told, mut heard) = mpsc::unbounded_channel();
    for number in 0..5_u32 {
        for (labels, name) in [(&labels, "first"), (&other, "second")] {
            let told = told.clone();
            let socket = at_a.clone();
            let (labels, peer) = (labels.clone(), b.clone());
            defer(&at_a, "x", &labels).await.on_ready(move |payload| {
                assert_eq!(payload.unwrap(), "x");
                socket.try_send(number.to_be_bytes().to_vec(), labels).unwrap();
                told.send((name, number)).unwrap();
                if number == 2 {
                    // In the middle of the run, and from within a callback: no lock is held.
                    drop(tokio::spawn(async move { peer.quiesce().await }));
                }
                assert!(number != 1, "a callback that panics harms nobody else");
            });
        }
    }
    b.revive().await.unwrap();
    let mut order = Vec::new();
    while order.len() < 10 {
        match tokio::time::timeout(Duration::from_millis(100), heard.recv()).await {
            Ok(entry) => order.push(entry.unwrap()),
            // The network went away in the middle.
            Err(_) => b.revive().await.unwrap(),
        }
    }
    for name in ["first", "second"] {
        let numbers: Vec<u32> =
            order.iter().filter(|(of, _)| *of == name).map(|(_, number)| *number).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4], "{name}: {order:?}");
    }
    b.revive().await.unwrap();
    for _ in 0..10 {
        next(&at_b).await.unwrap();
    }
}

#[tokio::test]
async fn cancelling_counts_exactly_and_drops_what_callbacks_hold() {
    let (_a, b, at_a, _at_b) = talking().await;
    let labels = Labels::foreground();
    cut(&b, &at_a).await;
    let held = Arc::new(());
    let future = defer(&at_a, "a future", &labels).await;
    drop(defer(&at_a, "dropped", &labels).await);
    for _ in 0..3 {
        let held = Arc::clone(&held);
        defer(&at_a, "a callback", &labels).await.on_ready(move |_| {
            drop(held);
            panic!("it was cancelled");
        });
    }
    let other = defer(&at_a, "another", &labels.clone().small()).await;
    assert_eq!(Arc::strong_count(&held), 4);
    assert_eq!(at_a.cancel_deferred(&labels), 4);
    assert_eq!(Arc::strong_count(&held), 1, "at once");
    assert_eq!(at_a.cancel_deferred(&labels), 0);
    assert_eq!(soon("it is told", future).await, Err(DeferredError::Cancelled));
    b.revive().await.unwrap();
    assert_eq!(soon("the other one", other).await.unwrap(), "another");
}

#[tokio::test]
async fn what_is_deferred_ends_with_the_conversation_and_its_reason() {
    let (a, b, at_a, _at_b) = talking().await;
    cut(&b, &at_a).await;
    let future = defer(&at_a, "a future", &Labels::foreground()).await;
    let (told, mut heard) = mpsc::unbounded_channel();
    let tell = told.clone();
    defer(&at_a, "a callback", &Labels::foreground())
        .await
        .on_ready(move |result| tell.send(result).unwrap());
    at_a.abort();
    let reason = |result: Result<_, DeferredError>| match result {
        Err(DeferredError::Session(SessionError::Ended { reason, .. })) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(soon("the future", future).await), EndReason::Aborted);
    assert_eq!(reason(soon("the callback", heard.recv()).await.unwrap()), EndReason::Aborted);
    let refused = at_a.send_or_defer("x", Labels::foreground()).await;
    assert!(matches!(refused, Err(SendError::Ended)), "{refused:?}");
    // The endpoint's end is the end of its conversations.
    b.revive().await.unwrap();
    let (at_a, _at_b) = meet(&a, &b).await;
    cut(&b, &at_a).await;
    let future = defer(&at_a, "a future", &Labels::foreground()).await;
    defer(&at_a, "a callback", &Labels::foreground())
        .await
        .on_ready(move |result| told.send(result).unwrap());
    soon("closing", a.close("the test is over")).await;
    assert_eq!(reason(soon("the future", future).await), EndReason::Left);
    assert_eq!(reason(soon("the callback", heard.recv()).await.unwrap()), EndReason::Left);
}

#[tokio::test]
async fn a_message_expires_and_its_dependents_with_it() {
    let (_a, b, at_a, at_b) = talking().await;
    cut(&b, &at_a).await;
    let options = SendOptions::new().expires_in(Duration::from_millis(30));
    let stale = at_a.send_with("stale", Labels::foreground(), options).await.unwrap();
    let waits = SendOptions::new().after(&[stale.id()]);
    let dependent = at_a.send_with("dependent", Labels::foreground(), waits).await.unwrap();
    let other = at_a.send("other", Labels::foreground()).await.unwrap();
    assert_eq!(soon("outcome", stale.outcome()).await, Outcome::Dropped(DropReason::Expired));
    assert_eq!(soon("outcome", dependent.outcome()).await, Outcome::Dropped(DropReason::Dependency));
    b.revive().await.unwrap();
    assert_eq!(next(&at_b).await.unwrap(), "other");
    assert_eq!(soon("outcome", other.outcome()).await, Outcome::Delivered);
}

#[tokio::test]
async fn networks_that_are_never_to_be_used_are_not_even_named() {
    let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (a_key, b_key) = (a.fingerprint(), b.fingerprint());
    let loopback = Selector::Class(steadfast::NetworkClass::Loopback);
    let strict = local().identity(b).trust(a_key).never_connect([loopback]).bind().await.unwrap();
    let port = strict.port();
    assert!(!strict.contact().contains("127.0.0.1"), "{}", strict.contact());
    let open =
        local().identity(a).trust(b_key).connect_limit(Duration::from_millis(300)).bind().await.unwrap();
    let refused = open.connect(format!("{b_key}@127.0.0.1:{port}")).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(strict.reception().gated > 0);
    assert!(strict.paths().is_empty() && open.paths().is_empty());
}

/// All three policies and a deferred send against a network that is absent, appears and vanishes.
#[test]
fn every_policy_between_two_hosts() {
    isolated("deferred::every_policy_between_two_hosts", || {
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let _wifi = lab.link("wifi", &a, &b).connect().unwrap();
        let lte = lab.link("lte", &a, &b).connect().unwrap();
        let (contact_out, contact_in) = tokio::sync::oneshot::channel();
        let (a_key, b_key) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let a_print = a_key.fingerprint();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let receiver = {
            let taken = Arc::clone(&taken);
            b.thread("receiver", move || {
                block_on(async move {
                    let endpoint = endpoint().identity(b_key).trust(a_print).bind().await.unwrap();
                    contact_out.send(endpoint.contact()).unwrap();
                    let socket = endpoint.accept().await.unwrap();
                    while let Some(bytes) = next(&socket).await {
                        taken.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
                    }
                    crate::world::close_after_peer(&socket).await;
                });
            })
        };
        let host = a.clone();
        let sender = a.thread("sender", move || {
            block_on(async move {
                let endpoint = endpoint().identity(a_key).bind().await.unwrap();
                let socket = endpoint.connect(contact_in.await.unwrap()).await.unwrap();
                over_lte(&socket, || lte.carrier_down(&host).unwrap(), || lte.carrier_up(&host).unwrap())
                    .await;
                soon("closing", socket.close()).await.unwrap();
                endpoint.close("the test is over").await;
            });
        });
        sender.join().unwrap();
        receiver.join().unwrap();
        assert_eq!(*taken.lock().unwrap(), ["at first", "waited", "in time", "deferred", "called"]);
    });
}

async fn until_fits(socket: &MultiSocket, labels: &Labels, fits: bool) {
    let mut events = socket.events();
    while socket.has_network_for(labels) != fits {
        let event: Option<Event> = soon("an event", events.next()).await;
        event.unwrap();
    }
}

async fn over_lte(socket: &MultiSocket, down: impl Fn(), up: impl Fn()) {
    let labels = Labels::foreground().rule(Rule::default().require(Selector::Name("lte".into())));
    let set = |timeout| socket.set_failure_timeout(&labels, timeout).unwrap();
    until_fits(socket, &labels, true).await;
    set(Some(Duration::ZERO));
    let receipt = soon("at once", socket.send("at first", labels.clone())).await.unwrap();
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
    down();
    until_fits(socket, &labels, false).await;
    // Absent: at once, after a time, or not before it is back.
    assert!(no_network(&soon("at once", socket.send("x", labels.clone())).await.unwrap_err()));
    set(Some(Duration::from_millis(50)));
    assert!(no_network(&soon("in time", socket.send("x", labels.clone())).await.unwrap_err()));
    set(None);
    let waited = socket.send("waited", labels.clone()).await.unwrap();
    set(Some(Duration::from_secs(3600)));
    let (deferred, called) = (defer(socket, "x", &labels).await, defer(socket, "x", &labels).await);
    let (told, mut heard) = mpsc::unbounded_channel();
    called.on_ready(move |result| told.send(result).unwrap());
    // It appears.
    let (sent, ()) = tokio::join!(socket.send("in time", labels.clone()), async { up() });
    let outcomes = [waited, sent.unwrap()];
    soon("the future", deferred).await.unwrap();
    soon("the callback", heard.recv()).await.unwrap().unwrap();
    for receipt in outcomes {
        assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
    }
    for text in ["deferred", "called"] {
        match socket.send_or_defer(text, labels.clone()).await.unwrap() {
            Submission::Sent(receipt) => {
                assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
            }
            Submission::Deferred(_) => panic!("the network is back"),
        }
    }
    // It vanishes under what was accepted: nothing of that can be sent before it is gone.
    down();
    until_fits(socket, &labels, false).await;
    set(None);
    let options = SendOptions::new().expires_in(Duration::from_millis(50));
    let stale = socket.send_with("stale", labels.clone(), options).await.unwrap();
    assert_eq!(soon("outcome", stale.outcome()).await, Outcome::Dropped(DropReason::Expired));
}
