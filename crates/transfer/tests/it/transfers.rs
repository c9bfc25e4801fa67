//! What comes over, and what does not.

use crate::common::{Place, content, meet, pair, soon, transfer, tree};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use steadfast::Labels;
use steadfast_transfer::{Monitor, Receiver, Sender};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_arrives_as_it_is() {
    let place = Place::new();
    place.put("tree/empty", 0);
    place.put("tree/small", 1);
    place.put("tree/a/b/c/large", 3_000_001);
    place.put("tree/a/edge", 64 * 1024);
    place.put("tree/a/over", 64 * 1024 + 1);
    for number in 0..600 {
        place.put(&format!("tree/many/{number}"), number);
    }
    fs::create_dir_all(place.from("tree/void/void")).unwrap();
    let strange = place.from("tree").join(OsStr::from_bytes(b"\xff\x1b[2J\n"));
    fs::write(&strange, "strange").unwrap();
    fs::set_permissions(&strange, fs::Permissions::from_mode(0o4640)).unwrap();
    symlink("small", place.from("tree/link")).unwrap();
    let past = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    for path in ["tree/small", "tree/void", "tree/a/b", "tree"] {
        fs::File::open(place.from(path)).unwrap().set_modified(past).unwrap();
    }
    fs::set_permissions(place.from("tree/a/b"), fs::Permissions::from_mode(0o500)).unwrap();
    place.put("single", 100);

    let ended = transfer(place.plan(&["tree", "single"]), place.store(false)).await;
    ended.sent.as_ref().unwrap();
    assert_eq!(*ended.received.as_ref().unwrap(), 0);
    assert_eq!(ended.failures(), []);
    let mut wanted = tree(&place.from(""));
    wanted.remove(&b"tree/link"[..]);
    wanted.get_mut(&b"tree/\xff\x1b[2J\n"[..]).unwrap().mode = 0o640;
    let received = place.received();
    assert_eq!(received.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (path, kept) in &wanted {
        assert_eq!(received[path], *kept, "{}", steadfast_transfer::printable(path));
    }
    assert_eq!((ended.sender.stored, ended.sender.skipped), (607, 1));
    assert_eq!((ended.receiver.stored, ended.receiver.resumed), (607, 0));
    assert_eq!(ended.sender.total.unwrap().0, 607);
    assert_eq!(ended.sender.bytes, ended.receiver.bytes);
    assert_eq!(ended.sender.bytes, ended.sender.total.unwrap().1);
    fs::set_permissions(place.from("tree/a/b"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(place.to("tree/a/b"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_kept_or_replaced() {
    let place = Place::new();
    for name in ["d/same", "d/other", "d/longer", "d/new"] {
        place.put(name, 100_000);
    }
    fs::create_dir_all(place.to("d")).unwrap();
    fs::write(place.to("d/same"), content(100_000)).unwrap();
    fs::write(place.to("d/other"), vec![7; 100_000]).unwrap();
    fs::write(place.to("d/longer"), vec![7; 100_001]).unwrap();
    let ended = transfer(place.plan(&["d"]), place.store(false)).await;
    ended.sent.as_ref().unwrap();
    let failures = ended.failures();
    let paths: Vec<_> = failures.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["d/longer", "d/other"]);
    assert!(failures.iter().all(|(_, words)| words.contains("--overwrite")), "{failures:?}");
    assert_eq!((ended.receiver.stored, ended.receiver.kept, ended.receiver.bytes), (1, 1, 100_000));
    assert_eq!(fs::read(place.to("d/other")).unwrap(), vec![7; 100_000]);

    let ended = transfer(place.plan(&["d"]), place.store(true)).await;
    assert_eq!(ended.failures(), []);
    assert_eq!((ended.sender.stored, ended.sender.kept), (2, 2));
    for name in ["d/same", "d/other", "d/longer", "d/new"] {
        assert_eq!(fs::read(place.to(name)).unwrap(), content(100_000), "{name}");
    }
    assert!(!place.to(".steadfast-partial").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_way_stays() {
    let place = Place::new();
    place.put("d/directory", 10);
    place.put("d/file/inner", 10);
    place.put("d/link/inner", 10);
    place.put("d/pipe", 10);
    place.put("d/fine", 10);
    fs::create_dir_all(place.to("d/directory")).unwrap();
    fs::create_dir_all(place.to("elsewhere")).unwrap();
    fs::write(place.to("d/file"), "a file").unwrap();
    symlink("../elsewhere", place.to("d/link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.to("d/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let ended = transfer(place.plan(&["d"]), place.store(true)).await;
    ended.sent.as_ref().unwrap();
    let failures = ended.failures();
    let paths: Vec<_> = failures.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        ["d/directory", "d/file", "d/file/inner", "d/link", "d/link/inner", "d/pipe"],
        "{failures:?}"
    );
    assert_eq!(fs::read_dir(place.to("elsewhere")).unwrap().count(), 0);
    assert_eq!(fs::read(place.to("d/fine")).unwrap(), content(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_meanwhile_is_not_delivered() {
    let place = Place::new();
    let growing = place.put("growing", 30_000_000);
    place.put("still", 10);
    let (a, b) = pair().await;
    let (at_a, at_b) = meet(&a, &b).await;
    let sender = Sender::new(place.plan(&["growing", "still"]), Labels::background());
    let receiver = Receiver::new(place.store(false));
    let (from, to) = (Monitor::default(), Arc::new(Monitor::default()));
    let receiving = async {
        let request = receiver.greet(at_b).await.unwrap();
        receiver.receive(request, Arc::clone(&to)).await
    };
    let change = async {
        while to.progress().bytes == 0 {
            tokio::task::yield_now().await;
        }
        fs::write(&growing, "something else").unwrap();
    };
    let (sent, received, ()) =
        soon("transfer", async { tokio::join!(sender.send(&at_a, &from), receiving, change) }).await;
    sent.unwrap();
    received.unwrap();
    for progress in [from.progress(), to.progress()] {
        assert_eq!((progress.stored, progress.failed), (1, 1), "{progress:?}");
        assert!(progress.failures[0].1.contains("changed"), "{progress:?}");
    }
    assert_eq!(place.received().keys().collect::<Vec<_>>(), [b"still"]);
    drop(receiver);
    assert!(!place.to(".steadfast-partial").exists(), "what came of it is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_foreground_it_works_as_well() {
    let place = Place::new();
    place.put("d/large", 5_000_000);
    for number in 0..300 {
        place.put(&format!("d/{number}"), 1000);
    }
    let (a, b) = pair().await;
    let (at_a, at_b) = meet(&a, &b).await;
    let sender = Sender::new(place.plan(&["d"]), Labels::foreground());
    let ended = crate::common::both(&sender, at_a, &Receiver::new(place.store(false)), at_b).await;
    ended.sent.as_ref().unwrap();
    assert_eq!((ended.failures().len(), ended.receiver.stored), (0, 301));
}

#[tokio::test]
async fn what_is_no_transfer_is_let_go() {
    let place = Place::new();
    let (a, b) = pair().await;
    let receiver = Receiver::new(place.store(false));
    let (at_a, at_b) = meet(&a, &b).await;
    at_a.send("ping", Labels::foreground()).await.unwrap();
    assert!(soon("greeting", receiver.greet(at_b)).await.is_none());
    assert!(soon("the end", at_a.recv()).await.unwrap().is_none());
    let (at_a, at_b) = meet(&a, &b).await;
    drop(at_a);
    assert!(soon("greeting", receiver.greet(at_b)).await.is_none());
}
