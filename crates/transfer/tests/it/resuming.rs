//! Going on after either side was gone.

use crate::common::{Place, both, content, local, meet, pair, soon};
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use steadfast::{Endpoint, Identity, Labels};
use steadfast_transfer::{Monitor, Receiver, Sender};

const LARGE: usize = 40_000_000;

/// Waits until some of it has come, and is on the disk.
async fn half_way(place: &Place) {
    while place.partial_bytes() < 5_000_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_was_cut_off_goes_on() {
    let place = Place::new();
    place.put("large", LARGE);
    let (a, b) = pair().await;
    let sender = Sender::new(place.plan(&["large"]), Labels::background());
    let receiver = Arc::new(Receiver::new(place.store(false)));
    let (at_a, at_b) = meet(&a, &b).await;
    let first = {
        let receiver = Arc::clone(&receiver);
        tokio::spawn(async move {
            let request = receiver.greet(at_b).await.unwrap();
            receiver.receive(request, Arc::default()).await
        })
    };
    // Dropped in the middle: the conversation stays, as that of a killed process does, until the next one comes.
    let from = Monitor::default();
    soon("half", async {
        tokio::select! {
            _ = sender.send(&at_a, &from) => panic!("it was done too early"),
            () = half_way(&place) => {}
        }
    })
    .await;
    let (again, at_b) = meet(&a, &b).await;
    let ended = both(&sender, again, &receiver, at_b).await;
    ended.sent.as_ref().unwrap();
    assert!(soon("the first", first).await.unwrap().unwrap_err().may_go_on());
    let (resumed, bytes) = (ended.receiver.resumed, ended.receiver.bytes);
    assert!(resumed >= 5_000_000 && resumed + bytes == LARGE as u64, "{resumed} {bytes}");
    assert_eq!(ended.sender.resumed, resumed);
    assert!(fs::read(place.to("large")).unwrap() == content(LARGE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_file_of_that_name_begins_anew() {
    let place = Place::new();
    let path = place.put("large", LARGE);
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    for same_time in [false, true] {
        fs::write(&path, content(LARGE)).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let (a, b) = pair().await;
        let receiver = Receiver::new(place.store(false));
        let sender = Sender::new(place.plan(&["large"]), Labels::background());
        {
            let (at_a, at_b) = meet(&a, &b).await;
            let from = Monitor::default();
            let receiving = async {
                let request = receiver.greet(at_b).await.unwrap();
                receiver.receive(request, Arc::default()).await
            };
            let both = Box::pin(async { tokio::join!(sender.send(&at_a, &from), receiving) });
            soon("half", async {
                tokio::select! {
                    _ = both => panic!("too early"),
                    () = half_way(&place) => {}
                }
            })
            .await;
        }
        // Other content of the same size, and of another time or, as with a clumsy tool, the same.
        let mut other = content(LARGE);
        other[0] ^= 1;
        fs::write(&path, &other).unwrap();
        let time = if same_time { modified } else { modified + Duration::from_secs(1) };
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        let (at_a, at_b) = meet(&a, &b).await;
        let ended = both(&sender, at_a, &receiver, at_b).await;
        ended.sent.as_ref().unwrap();
        assert_eq!((ended.receiver.resumed, ended.receiver.bytes), (0, LARGE as u64), "{same_time}");
        assert!(fs::read(place.to("large")).unwrap() == other);
        fs::remove_file(place.to("large")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_restarts_is_found_again() {
    let place = Place::new();
    place.put("first", 100_000);
    place.put("large", LARGE);
    let (a_id, b_path) = (Identity::generate().unwrap(), place.from("identity"));
    let a_key = a_id.fingerprint();
    let bind = |port| local().identity_file(&b_path).trust(a_key).port(port).bind();
    let b = bind(0).await.unwrap();
    let port = b.port();
    let a = local()
        .identity(a_id)
        .trust(b.fingerprint())
        .connect_limit(Duration::from_secs(30))
        .bind()
        .await
        .unwrap();
    let sender = Sender::new(place.plan(&["first", "large"]), Labels::background());
    let (from, contact) = (Monitor::default(), b.contact().parse().unwrap());
    let serve = |endpoint: Endpoint, receiver: Receiver| async move {
        let monitor = Arc::new(Monitor::default());
        loop {
            let Some(request) = receiver.greet(endpoint.accept().await.unwrap()).await else { continue };
            if receiver.receive(request, Arc::clone(&monitor)).await.is_ok() {
                return monitor.progress();
            }
        }
    };
    let receiving = async {
        tokio::select! {
            _ = serve(b.clone(), Receiver::new(place.store(false))) => panic!("it was done too early"),
            () = half_way(&place) => {}
        }
        b.close("restarting").await;
        drop(b);
        // Another test may have been given the port meanwhile, for as long as it takes.
        let again = loop {
            match bind(port).await {
                Ok(endpoint) => break endpoint,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        serve(again, Receiver::new(place.store(false))).await
    };
    let both = Box::pin(async { tokio::join!(sender.deliver(&a, &contact, &from), receiving) });
    let (sent, received) = soon("transfer", both).await;
    sent.unwrap();
    assert!(received.resumed >= 5_000_000, "{received:?}");
    assert_eq!((received.stored, received.kept), (1, 1), "{received:?}");
    let sent = from.progress();
    assert_eq!((sent.stored, sent.kept, sent.failed), (2, 0, 0), "{sent:?}");
    assert!(fs::read(place.to("large")).unwrap() == content(LARGE));
}
