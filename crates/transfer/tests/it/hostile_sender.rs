//! Senders that break every rule: nothing comes about outside of the directory, and the receiver goes on.

use crate::common::{Place, meet, pair, soon};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::Arc;
use std::time::Duration;
use steadfast::{Labels, MultiSocket, Receipt, SendError};
use steadfast_transfer::message::{Answer, Greeting, MAX_OPEN, Offer, VERSION, data_head};
use steadfast_transfer::{Entry, Hasher, Kind, Monitor, Progress, ReceiveFailure, Receiver, Time};

/// Says whatever it is told to say.
struct Hostile {
    socket: MultiSocket,
}

impl Hostile {
    async fn say(&self, bytes: impl Into<Bytes>) -> Result<Receipt, SendError> {
        self.socket.send(bytes, Labels::foreground()).await
    }

    async fn greet(&self) {
        let greeting = Greeting { oldest: VERSION, newest: VERSION, features: 0, transfer: [3; 16] };
        self.say(greeting.encode()).await.unwrap();
    }

    async fn offer(&self, entries: Vec<Entry>) {
        let _refused = self.say(Offer::Entries(entries).encode()).await;
    }

    async fn content(&self, entry: u64, offset: u64, bytes: &[u8], checksum_of: &[u8]) {
        let mut hasher = Hasher::default();
        hasher.update(checksum_of);
        let mut all = BytesMut::from(&data_head(entry, offset)[..]);
        all.extend_from_slice(bytes);
        all.extend_from_slice(&hasher.digest().0);
        let _refused = self.socket.send(all.freeze(), Labels::background()).await;
    }

    /// The next answers; `None` at the end.
    async fn answers(&self) -> Option<Vec<Answer>> {
        let message = soon("answer", self.socket.recv()).await.ok()??;
        Some(Answer::decode_all(message.payload()?.clone()).unwrap())
    }

    /// The files that are asked for next, if that is soon.
    async fn wanted(&self) -> Vec<u64> {
        let mut wanted = Vec::new();
        while wanted.is_empty() {
            let message = tokio::time::timeout(Duration::from_millis(20), self.socket.recv()).await;
            let Ok(Ok(Some(message))) = message else { break };
            for answer in Answer::decode_all(message.payload().unwrap().clone()).unwrap() {
                if let Answer::Want { entry, .. } = answer {
                    wanted.push(entry);
                }
            }
        }
        wanted
    }

    /// Listens until this is said; panics at the end.
    async fn await_answer(&self, wanted: impl Fn(&Answer) -> bool) -> Answer {
        loop {
            let answers = self.answers().await.expect("the receiver ended it");
            if let Some(found) = answers.into_iter().find(&wanted) {
                return found;
            }
        }
    }
}

fn file(depth: u64, name: &[u8], size: u64) -> Entry {
    entry(depth, name, Kind::File(size))
}

fn directory(depth: u64, name: &[u8]) -> Entry {
    entry(depth, name, Kind::Directory)
}

fn entry(depth: u64, name: &[u8], kind: Kind) -> Entry {
    let modified = Time { seconds: 5, nanoseconds: 0 };
    Entry { depth, name: Bytes::copy_from_slice(name), kind, mode: 0o6777, modified }
}

/// Lets `act` talk to a receiver; how that ended, and what was received.
async fn against<F: Future<Output = ()>>(
    place: &Place,
    act: impl FnOnce(Hostile) -> F,
) -> (Result<u64, ReceiveFailure>, Progress) {
    // Long enough for a machine that does other things.
    against_within(Duration::from_secs(30), place, act).await
}

/// The same with a limit of its own for doing nothing.
async fn against_within<F: Future<Output = ()>>(
    idle: Duration,
    place: &Place,
    act: impl FnOnce(Hostile) -> F,
) -> (Result<u64, ReceiveFailure>, Progress) {
    let (a, b) = pair().await;
    let (socket, at_b) = meet(&a, &b).await;
    let receiver = Receiver::new(place.store(true)).idle_limit(idle);
    let monitor = Arc::new(Monitor::default());
    let receiving = async {
        let request = receiver.greet(at_b).await.unwrap();
        receiver.receive(request, Arc::clone(&monitor)).await
    };
    let (received, ()) = soon("both", async { tokio::join!(receiving, act(Hostile { socket })) }).await;
    (received, monitor.progress())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_that_must_not_be_end_the_conversation() {
    let long = vec![b'x'; 256];
    let cases: Vec<(&str, Vec<Entry>)> = vec![
        ("dots", vec![file(0, b"..", 1)]),
        ("dot", vec![directory(0, b".")]),
        ("slash", vec![file(0, b"../evil", 1)]),
        ("absolute", vec![file(0, b"/tmp/evil", 1)]),
        ("nothing", vec![file(0, b"", 1)]),
        ("nul", vec![file(0, b"a\0b", 1)]),
        ("long", vec![file(0, &long, 1)]),
        ("ours", vec![directory(0, b".steadfast-partial"), file(1, b"x", 1)]),
        ("ours in capitals", vec![directory(0, b".STEADFAST-PARTIAL")]),
        ("twice", vec![file(0, b"a", 1), file(0, b"a", 1)]),
        ("twice, as something else", vec![directory(0, b"a"), file(0, b"a", 1)]),
        ("under a file", vec![file(0, b"a", 1), file(1, b"b", 1)]),
        ("under nothing", vec![file(3, b"a", 1)]),
        ("out of order", vec![file(0, b"b", 1), file(0, b"a", 1)]),
        ("back into a directory", vec![directory(0, b"a"), directory(0, b"b"), directory(0, b"a")]),
        ("deep", (0..200).map(|depth| directory(depth, b"d")).collect()),
    ];
    for (what, entries) in cases {
        let place = Place::new();
        let (received, _) = against(&place, |hostile| async move {
            hostile.greet().await;
            hostile.offer(entries).await;
            while hostile.answers().await.is_some() {}
        })
        .await;
        let error = received.unwrap_err();
        let broken = matches!(error, ReceiveFailure::Manifest(_) | ReceiveFailure::Protocol(_));
        assert!(broken, "{what}: {error}");
        assert!(!place.to("../evil").exists() && !std::path::Path::new("/tmp/evil").exists(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_lead_nowhere_planted_before_or_in_the_middle() {
    let place = Place::new();
    fs::create_dir_all(place.from("outside")).unwrap();
    symlink(place.from("outside"), place.to("planted")).unwrap();
    symlink(place.from("outside/target"), place.to("file")).unwrap();
    let (received, progress) = against(&place, |hostile| {
        let place = &place;
        async move {
            hostile.greet().await;
            let entries = vec![
                directory(0, b"dir"),
                file(1, b"evil", 4),
                file(0, b"file", 4),
                directory(0, b"planted"),
                file(1, b"evil", 4),
            ];
            hostile.offer(entries).await;
            let mut wanted = None;
            let mut failed = 0;
            while wanted.is_none() || failed < 3 {
                for answer in hostile.answers().await.expect("the receiver ended it") {
                    match answer {
                        Answer::Want { entry, .. } => wanted = Some(entry),
                        Answer::Failed { .. } => failed += 1,
                        _ => {}
                    }
                }
            }
            // The directory that was looked at turns into a link before the content comes.
            fs::remove_dir(place.to("dir")).unwrap();
            symlink(place.from("outside"), place.to("dir")).unwrap();
            hostile.content(wanted.unwrap(), 0, b"evil", b"evil").await;
            hostile.await_answer(|answer| matches!(answer, Answer::Failed { entry: 1, .. })).await;
            hostile.say(Offer::End { failed: 0 }.encode()).await.unwrap();
            hostile.await_answer(|answer| *answer == Answer::End).await;
        }
    })
    .await;
    received.unwrap();
    // Three of them from the beginning, then the file, and the directory that should get its mode.
    assert_eq!(progress.failed, 5, "{progress:?}");
    assert!(progress.failures.iter().all(|(_, words)| words.contains("symbolic link")), "{progress:?}");
    assert_eq!(fs::read_dir(place.from("outside")).unwrap().count(), 0);
    assert!(place.to("file").is_symlink());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_about_content_are_noticed() {
    for (what, offset, bytes, checksum_of) in [
        ("too short", 0, &b"abc"[..], &b"abc"[..]),
        ("too long", 0, b"abcde", b"abcde"),
        ("from behind the end", 9, b"abcd", b"abcd"),
        ("from the middle of nothing", 2, b"cd", b"abcd"),
    ] {
        let place = Place::new();
        let (received, _) = against(&place, |hostile| async move {
            hostile.greet().await;
            hostile.offer(vec![file(0, b"f", 4)]).await;
            hostile.await_answer(|answer| matches!(answer, Answer::Want { .. })).await;
            hostile.content(0, offset, bytes, checksum_of).await;
            while hostile.answers().await.is_some() {}
        })
        .await;
        assert!(matches!(received, Err(ReceiveFailure::Protocol(_))), "{what}: {received:?}");
        assert_eq!(place.received().len(), 0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_says_no_length_may_not_go_on_for_ever() {
    let place = Place::new();
    let (received, progress) = against(&place, |hostile| async move {
        hostile.greet().await;
        hostile.offer(vec![file(0, b"f", 100_000)]).await;
        hostile.await_answer(|answer| matches!(answer, Answer::Want { .. })).await;
        let mut writer = hostile.socket.begin(Labels::background()).await.unwrap();
        writer.write(data_head(0, 0)).await.unwrap();
        while writer.write(vec![0; 100_000]).await.is_ok() {}
    })
    .await;
    assert!(matches!(received, Err(ReceiveFailure::Protocol(_))), "{received:?}");
    assert_eq!(progress.bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_checksum_is_asked_for_again_once() {
    let place = Place::new();
    let (received, progress) = against(&place, |hostile| async move {
        hostile.greet().await;
        hostile.offer(vec![file(0, b"bad", 4), file(0, b"mended", 4)]).await;
        hostile.await_answer(|answer| matches!(answer, Answer::Want { .. })).await;
        hostile.content(0, 0, b"abcd", b"other").await;
        hostile.await_answer(|answer| *answer == Answer::Again(0)).await;
        hostile.content(0, 0, b"abcd", b"other").await;
        hostile.await_answer(|answer| matches!(answer, Answer::Failed { entry: 0, .. })).await;
        hostile.content(1, 0, b"abcd", b"other").await;
        hostile.await_answer(|answer| *answer == Answer::Again(1)).await;
        hostile.content(1, 0, b"good", b"good").await;
        hostile.await_answer(|answer| *answer == Answer::Stored(1)).await;
        hostile.say(Offer::End { failed: 0 }.encode()).await.unwrap();
        hostile.await_answer(|answer| *answer == Answer::End).await;
    })
    .await;
    received.unwrap();
    assert_eq!((progress.stored, progress.failed), (1, 1));
    assert_eq!(place.received().keys().collect::<Vec<_>>(), [b"mended"]);
    // Nobody's setuid bits, and as the umask has it, which is that of a file made here.
    let umask = 0o666 & !fs::metadata(place.put("made", 0)).unwrap().mode();
    assert_eq!(place.received()[&b"mended"[..]].mode & 0o666, 0o666 & !umask);
    assert_eq!(place.received()[&b"mended"[..]].mode & 0o7000, 0);
}

/// What was agreed on before is all that may come, in bytes and in number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_was_agreed_is_refused() {
    let some = vec![file(0, b"a", 5), file(0, b"b", 5)];
    let huge = vec![file(0, b"a", u64::MAX >> 2), file(0, b"b", u64::MAX >> 2), file(0, b"c", u64::MAX >> 2)];
    for (entries, bytes, offered) in [(1, 100, &some), (2, 9, &some), (9, u64::MAX >> 3, &huge)] {
        let place = Place::new();
        let (a, b) = pair().await;
        let (socket, at_b) = meet(&a, &b).await;
        let receiver = Receiver::new(place.store(true)).limits(entries, bytes);
        let hostile = Hostile { socket };
        let receiving = async {
            let request = receiver.greet(at_b).await.unwrap();
            receiver.receive(request, Arc::new(Monitor::default())).await
        };
        let speaking = async {
            hostile.greet().await;
            hostile.offer(offered.clone()).await;
            while hostile.answers().await.is_some() {}
        };
        let (received, ()) = soon("both", async { tokio::join!(receiving, speaking) }).await;
        let expected =
            matches!(received, Err(ReceiveFailure::TooMuch(so, many)) if (so, many) == (entries, bytes));
        assert!(expected, "{received:?}");
        assert_eq!(place.received().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_offered_and_never_sent_is_bounded() {
    let place = Place::new();
    let (received, _) = against(&place, |hostile| async move {
        hostile.greet().await;
        for batch in 0..5u64 {
            let entries =
                (0..100).map(|number| file(0, format!("{:08}", batch * 100 + number).as_bytes(), 9));
            hostile.offer(entries.collect()).await;
        }
        while hostile.answers().await.is_some() {}
    })
    .await;
    assert!(
        matches!(received, Err(ReceiveFailure::Protocol("it offers more than is agreed"))),
        "{received:?}"
    );
    const { assert!(5 * 100 > MAX_OPEN) };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_nothing_is_left() {
    let place = Place::new();
    let (received, _) = against_within(Duration::from_millis(400), &place, |hostile| async move {
        hostile.greet().await;
        hostile.offer(vec![file(0, b"f", 4)]).await;
        hostile.await_answer(|answer| matches!(answer, Answer::Want { .. })).await;
        // Alive, it says, and brings nothing on.
        while hostile.say(Offer::Alive(7).encode()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(matches!(received, Err(ReceiveFailure::Idle(_))), "{received:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_not_spoken_is_refused_with_words() {
    let place = Place::new();
    let (received, _) = against(&place, |hostile| async move {
        let greeting = Greeting { oldest: VERSION + 1, newest: VERSION + 2, features: 0, transfer: [3; 16] };
        hostile.say(greeting.encode()).await.unwrap();
        let answer = hostile.await_answer(|answer| matches!(answer, Answer::Refuse(_))).await;
        assert!(matches!(answer, Answer::Refuse(words) if words.contains("versions 2 to 3")));
    })
    .await;
    assert!(matches!(received, Err(ReceiveFailure::Version(2, 3))), "{received:?}");
}

/// One thing that a sender may say at any time, sensible or not.
#[derive(Debug, Clone)]
enum Act {
    Say(Offer),
    Noise(Vec<u8>),
    Content { entry: u64, offset: u64, bytes: Vec<u8>, right: bool },
    Mutated(Offer, u16, u8),
}

fn offers() -> impl Strategy<Value = Offer> {
    // Mostly in order and at the top, so that something comes of it.
    let depth = prop_oneof![8 => Just(0u64), 1 => 0u64..3];
    let name = prop_oneof![30 => "[a-z]{1,3}", 1 => "[a-d./]{0,2}"];
    let entries = proptest::collection::vec((depth, name, proptest::option::weighted(0.8, 0u64..6)), 0..6);
    let entries = entries.prop_map(|mut all| {
        all.sort_by(|one, other| one.1.cmp(&other.1));
        let entry = |(depth, name, size): (u64, String, Option<u64>)| match size {
            Some(size) => file(depth, name.as_bytes(), size),
            None => directory(depth, name.as_bytes()),
        };
        Offer::Entries(all.into_iter().map(entry).collect())
    });
    let one = 0u64..8;
    prop_oneof![
        6 => entries,
        1 => one.clone().prop_map(Offer::Same),
        1 => one.clone().prop_map(Offer::Different),
        2 => (one, any::<bool>()).prop_map(|(entry, changed)| Offer::Retract {
            entry, changed, words: "no".into()
        }),
        1 => any::<u8>().prop_map(|bytes| Offer::Alive(bytes.into())),
        1 => Just(Offer::Total { files: 1, bytes: 1 }),
        1 => Just(Offer::End { failed: 0 }),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let content = (0u64..8, 0u64..3, proptest::collection::vec(any::<u8>(), 0..6), any::<bool>());
    let act = prop_oneof![
        6 => offers().prop_map(Act::Say),
        1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Act::Noise),
        4 => content.prop_map(|(entry, offset, bytes, right)| Act::Content { entry, offset, bytes, right }),
        2 => (offers(), any::<u16>(), any::<u8>()).prop_map(|(offer, at, byte)| Act::Mutated(offer, at, byte)),
    ];
    proptest::collection::vec(act, 1..12)
}

/// Random conversations: whatever is said, the receiver ends the conversation in time, without a panic, and nothing
/// comes about outside of its directory.
#[test]
fn whatever_is_said() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let place = Place::new();
    fs::write(place.from("witness"), "untouched").unwrap();
    let before = crate::common::tree(&place.from(""));
    let (a, b) = runtime.block_on(pair());
    // The seed is fixed, so that what fails does so again.
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let settled = std::cell::Cell::new(0);
    let result = runner.run(&acts(), |acts| {
        let receiver = Receiver::new(place.store(true)).idle_limit(Duration::from_millis(100));
        let monitor = Arc::new(Monitor::default());
        let ended = runtime.block_on(async {
            let (socket, at_b) = meet(&a, &b).await;
            let hostile = Hostile { socket };
            hostile.greet().await;
            let receiving = async {
                let request = receiver.greet(at_b).await.unwrap();
                receiver.receive(request, Arc::clone(&monitor)).await
            };
            let speaking = async {
                let (mut sizes, mut wanted) = (Vec::new(), Vec::new());
                for act in &acts {
                    match act {
                        Act::Say(offer) => {
                            let _refused = hostile.say(offer.encode()).await;
                            if let Offer::Entries(entries) = offer {
                                sizes.extend(entries.iter().map(|entry| match entry.kind {
                                    Kind::File(size) => size as usize,
                                    Kind::Directory => 0,
                                }));
                                wanted.extend(hostile.wanted().await);
                            }
                        }
                        Act::Content { entry, right: true, .. } if !wanted.is_empty() => {
                            let entry = wanted[*entry as usize % wanted.len()];
                            let content = vec![7; sizes.get(entry as usize).copied().unwrap_or(0)];
                            hostile.content(entry, 0, &content, &content).await;
                            // Until it is there, which is when nothing more is said.
                            let _no_more = hostile.wanted().await;
                        }
                        Act::Noise(noise) => _ = hostile.say(noise.clone()).await,
                        Act::Content { entry, offset, bytes, right } => {
                            let of: &[u8] = if *right { bytes } else { b"other" };
                            hostile.content(*entry, *offset, bytes, of).await;
                        }
                        Act::Mutated(offer, at, byte) => {
                            let mut bytes = offer.encode().to_vec();
                            let length = bytes.len();
                            bytes[*at as usize % length] = *byte;
                            let _refused = hostile.say(bytes).await;
                        }
                    }
                }
                hostile.socket.finish().ok();
                while hostile.answers().await.is_some() {}
            };
            soon("the end", async { tokio::join!(receiving, speaking) }).await.0
        });
        if let Err(error) = &ended {
            prop_assert!(!matches!(error, ReceiveFailure::Panicked), "{error}");
        }
        settled.set(settled.get() + monitor.progress().stored);
        Ok(())
    });
    result.unwrap();
    assert_eq!(crate::common::tree(&place.from("")), before);
    assert!(settled.get() > 0, "some of it was sensible");
}
