//! Receivers that break every rule: the sender reads nothing but what it was told to send, and comes to an end.

use crate::common::{Place, content, meet, pair, soon};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::time::Duration;
use steadfast::{Labels, MultiSocket};
use steadfast_transfer::message::{Answer, Offer, VERSION};
use steadfast_transfer::{Digest, Monitor, SendFailure, Sender};

const WELCOME: Answer = Answer::Welcome { version: VERSION, features: 0 };

async fn say(socket: &MultiSocket, answers: &[Answer]) {
    let _ended = socket.send(Answer::encode_all(answers), Labels::foreground()).await;
}

/// Sends a file to whoever `act` plays.
async fn against<F: Future<Output = ()>>(act: impl FnOnce(MultiSocket) -> F) -> Result<(), SendFailure> {
    // Long enough for a machine that does other things.
    against_within(Duration::from_secs(30), act).await
}

/// The same with a limit of its own for doing nothing.
async fn against_within<F: Future<Output = ()>>(
    idle: Duration,
    act: impl FnOnce(MultiSocket) -> F,
) -> Result<(), SendFailure> {
    let place = Place::new();
    place.put("f", 200_000);
    let (a, b) = pair().await;
    let (at_a, at_b) = meet(&a, &b).await;
    let sender = Sender::new(place.plan(&["f"]), Labels::background()).idle_limit(idle);
    let monitor = Monitor::default();
    let (sent, ()) = soon("both", async { tokio::join!(sender.send(&at_a, &monitor), act(at_b)) }).await;
    sent
}

/// Takes whatever comes until the end.
async fn listen(socket: &MultiSocket) {
    while let Ok(Some(mut message)) = soon("message", socket.recv()).await {
        while let Ok(Some(_)) = soon("chunk", message.read_chunk()).await {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_no_receiver_gives_end_the_conversation() {
    let digest = Digest([0; 32]);
    for (what, answers) in [
        ("no welcome", vec![Answer::End]),
        ("another version", vec![Answer::Welcome { version: VERSION + 1, features: 0 }]),
        ("an entry that was not offered", vec![WELCOME, Answer::Want { entry: 70, have: 0, digest }]),
        ("more than there is", vec![WELCOME, Answer::Want { entry: 0, have: 200_001, digest }]),
        ("stored, unseen", vec![WELCOME, Answer::Stored(0)]),
        ("kept, unasked", vec![WELCOME, Answer::Kept(0)]),
        ("the end of it", vec![WELCOME, Answer::End]),
        ("welcome, twice", vec![WELCOME, WELCOME]),
    ] {
        let sent = against(|socket| async move {
            if answers.len() > 1 {
                say(&socket, &answers[..1]).await;
                // The entry has to be known before anything can be said of it.
                loop {
                    let message = soon("offer", socket.recv()).await.unwrap().unwrap();
                    if matches!(Offer::decode(message.payload().unwrap().clone()), Ok(Offer::Entries(_))) {
                        break;
                    }
                }
                say(&socket, &answers[1..]).await;
            } else {
                say(&socket, &answers).await;
            }
            listen(&socket).await;
        })
        .await;
        assert!(matches!(sent, Err(SendFailure::Protocol(_))), "{what}: {sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_takes_nothing_or_asks_for_ever_is_left() {
    let sent =
        against_within(Duration::from_millis(400), |socket| async move { listen(&socket).await }).await;
    assert!(matches!(sent, Err(SendFailure::Idle(_))), "{sent:?}");
    let sent = against_within(Duration::from_millis(400), |socket| async move {
        say(&socket, &[WELCOME]).await;
        listen(&socket).await;
    })
    .await;
    assert!(matches!(sent, Err(SendFailure::Idle(_))), "{sent:?}");
    // It says that it goes on, and does not.
    let sent = against_within(Duration::from_millis(400), |socket| async move {
        say(&socket, &[WELCOME]).await;
        tokio::select! {
            () = listen(&socket) => {}
            () = async {
                loop {
                    say(&socket, &[Answer::Progress { taken: 0, checked: 0 }]).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            } => {}
        }
    })
    .await;
    assert!(matches!(sent, Err(SendFailure::Idle(_))), "{sent:?}");
    // The same content once more is asked for at most once.
    let sent = against(|socket| async move {
        say(&socket, &[WELCOME]).await;
        while let Ok(Some(mut message)) = soon("message", socket.recv()).await {
            if !message.is_streamed() {
                if matches!(Offer::decode(message.payload().unwrap().clone()), Ok(Offer::Entries(_))) {
                    say(&socket, &[Answer::Want { entry: 0, have: 0, digest: Digest([0; 32]) }]).await;
                }
                continue;
            }
            let mut all = Vec::new();
            while let Ok(Some(chunk)) = soon("chunk", message.read_chunk()).await {
                all.extend_from_slice(&chunk);
            }
            assert!(all[all.len() - 200_032..all.len() - 32] == content(200_000));
            say(&socket, &[Answer::Again(0)]).await;
        }
    })
    .await;
    assert!(matches!(sent, Err(SendFailure::Protocol(_))), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_compared_once() {
    let sent = against(|socket| async move {
        let compare = [Answer::Compare { entry: 0, digest: Digest([0; 32]) }];
        say(&socket, &[WELCOME]).await;
        while let Ok(Some(message)) = soon("message", socket.recv()).await {
            match Offer::decode(message.payload().unwrap().clone()) {
                Ok(Offer::Entries(_) | Offer::Different(0)) => say(&socket, &compare).await,
                _ => {}
            }
        }
    })
    .await;
    assert!(matches!(sent, Err(SendFailure::Protocol(_))), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_of_a_refusal_control_no_terminal() {
    let sent = against(|socket| async move {
        say(&socket, &[Answer::Refuse("no\x1b[2J".into())]).await;
        listen(&socket).await;
    })
    .await;
    let words = sent.unwrap_err().to_string();
    assert!(words.contains("no\\u{1b}[2J"), "{words}");
}

/// Random answers: the sender ends in time, without a panic.
#[test]
fn whatever_is_answered() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let place = Place::new();
    place.put("d/a", 10);
    place.put("d/b", 100_000);
    let (a, b) = runtime.block_on(pair());
    let one = 0u64..4;
    let digest = any::<u8>().prop_map(|byte| Digest([byte; 32]));
    let answer = prop_oneof![
        (one.clone(), 0u64..20, digest.clone()).prop_map(|(entry, have, digest)| Answer::Want {
            entry,
            have,
            digest
        }),
        (one.clone(), digest).prop_map(|(entry, digest)| Answer::Compare { entry, digest }),
        one.clone().prop_map(Answer::Again),
        one.clone().prop_map(Answer::Stored),
        one.clone().prop_map(Answer::Kept),
        one.clone().prop_map(|entry| Answer::Failed { entry, words: "no".into() }),
        (0u64..9, 0u64..9).prop_map(|(taken, checked)| Answer::Progress { taken, checked }),
        Just(Answer::End),
        Just(Answer::Unknown),
    ];
    let answers =
        proptest::collection::vec((answer, proptest::option::of((any::<u16>(), any::<u8>()))), 1..12);
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&answers, |answers| {
        runtime.block_on(async {
            let (at_a, at_b) = meet(&a, &b).await;
            let sender =
                Sender::new(place.plan(&["d"]), Labels::background()).idle_limit(Duration::from_millis(100));
            let monitor = Monitor::default();
            let answering = async {
                say(&at_b, &[WELCOME]).await;
                for (answer, mutation) in &answers {
                    let mut bytes = Answer::encode_all(std::slice::from_ref(answer)).to_vec();
                    if let Some((at, byte)) = mutation {
                        let length = bytes.len();
                        bytes[*at as usize % length] = *byte;
                    }
                    let _ended = at_b.send(bytes, Labels::foreground()).await;
                    tokio::task::yield_now().await;
                }
                listen(&at_b).await;
            };
            let _any = soon("the end", async { tokio::join!(sender.send(&at_a, &monitor), answering) }).await;
        });
        Ok(())
    });
    result.unwrap();
}
