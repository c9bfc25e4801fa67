//! What calls say of a peer that does not answer: the verdict on it, and why they failed.

use super::*;
use steadfast::rpc::{CallError, CallOptions, Rpc};

/// The next verdict that is told.
async fn next(changes: &mut steadfast::Verdicts) -> Verdict {
    tokio::time::timeout(GUARD, changes.next()).await.expect("a verdict").expect("a verdict").verdict
}

#[test]
fn calls_over_a_conversation() {
    two_hosts("calls::calls_over_a_conversation", |bench, _| async move {
        let socket = bench.here.connect(bench.peer.contact.clone()).await.unwrap();
        let _first = socket.send(CALLS, Labels::foreground()).await.unwrap().outcome().await;
        let rpc = Rpc::new(socket);
        let response = rpc.call("hello", CallOptions::default()).await.unwrap();
        assert_eq!(response.into_bytes().await.unwrap(), "hello");
        assert_eq!(rpc.verdict().verdict, Verdict::Alive);
        let mut changes = rpc.verdicts();
        bench.peer.signal(Signal::KILL);
        assert_eq!(next(&mut changes).await, Verdict::Crashed);
        let limit = Duration::from_millis(300);
        let error = rpc.call("hello", CallOptions::default().deadline(limit)).await.unwrap_err();
        assert!(matches!(error, CallError::Deadline { .. }), "{error:?}");
        let callee = error.callee().unwrap();
        assert_eq!(callee.peer, rpc.peer().unwrap().to_string());
        assert_eq!(callee.standing.as_ref().unwrap().verdict, Verdict::Crashed);
        let text = error.to_string();
        assert!(text.contains("crashed: its host answers") && text.contains("start it again"), "{text}");
    });
}

#[test]
fn calls_over_homa() {
    two_hosts("calls::calls_over_homa", |bench, bed| async move {
        // All of it, with the directory of the peer's key.
        let mut bench = bench;
        let homa = bench.here.homa().unwrap();
        let peer = homa.connect(bench.peer.contact.clone()).await.unwrap();
        let rpc = Rpc::over_homa(&peer, HOMA);
        let response = rpc.call("hello", CallOptions::default()).await.unwrap();
        assert_eq!(response.into_bytes().await.unwrap(), "hello");
        assert_eq!((rpc.verdict().verdict, peer.verdict().verdict), (Verdict::Alive, Verdict::Alive));
        let mut changes = rpc.verdicts();
        bench.peer.signal(Signal::STOP);
        let options = CallOptions::default().deadline(Duration::from_secs(4));
        let error = rpc.call("hello", options.clone()).await.unwrap_err();
        assert_eq!(error.callee().unwrap().peer, peer.key().unwrap().to_string());
        assert_eq!(next(&mut changes).await, Verdict::Hung);
        let error = rpc.call("hello", options.clone()).await.unwrap_err();
        assert!(error.to_string().contains("(hung: "), "{error}");
        bench.peer.signal(Signal::CONT);
        assert_eq!(next(&mut changes).await, Verdict::Alive);
        bench.peer.signal(Signal::KILL);
        bench.peer.child.wait().unwrap();
        assert_eq!(next(&mut changes).await, Verdict::Crashed);
        assert_eq!(peer.verdict().verdict, Verdict::Crashed);
        // Another process takes its place, and is the one that is called then.
        let (port, key, file) = (bench.peer.port, bench.here.fingerprint(), bench.identity.clone());
        bench.peer =
            tokio::task::spawn_blocking(move || Peer::start(Some(&bed.b), &file, key, port)).await.unwrap();
        assert_eq!(next(&mut changes).await, Verdict::Restarted);
        assert_eq!(next(&mut changes).await, Verdict::Alive);
        peer.in_reach().await.unwrap();
        let response = rpc.call("again", options).await.unwrap();
        assert_eq!(response.into_bytes().await.unwrap(), "again");
        // It leaves: that stays known of a peer that nobody seeks any more.
        bench.peer.leave();
        assert_eq!(next(&mut changes).await, Verdict::Left);
        assert_eq!(peer.verdict().verdict, Verdict::Left);
    });
}

#[test]
fn nothing_is_known_of_an_address() {
    block_on(async {
        let homa = steadfast::homa::Homa::plain("127.0.0.1:0".parse().unwrap()).unwrap();
        let peer = homa.peer("127.0.0.1:9".parse().unwrap()).unwrap();
        assert_eq!(peer.verdict().verdict, Verdict::Unknown);
        assert_eq!(peer.verdicts().next().await, None);
        let rpc = Rpc::over_homa(&peer, HOMA);
        let error = rpc.call("hello", CallOptions::default().deadline(Duration::from_millis(100))).await;
        let error = error.unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
    });
}
