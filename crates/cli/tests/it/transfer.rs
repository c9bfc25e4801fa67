//! `steadfast send` and `steadfast receive` between two users of one machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use steadfast::{Endpoint, Labels, ScoutConfig};
use steadfast_transfer::message::{Answer, Greeting, Offer, VERSION};
use steadfast_transfer::{Entry, Kind, Time};

use crate::common::{Home, Running, skip};

/// Nothing that works takes this long, on however slow a machine.
const GUARD: Duration = Duration::from_secs(60);

/// So large that something can happen before it is there.
const LARGE: usize = 150_000_000;

/// Two users, one with files and one with a directory for them.
pub(crate) struct Two {
    pub(crate) a: Home,
    pub(crate) b: Home,
}

impl Two {
    pub(crate) fn new() -> Self {
        let two = Self { a: Home::new(), b: Home::new() };
        fs::create_dir_all(two.from("")).unwrap();
        fs::create_dir_all(two.to("")).unwrap();
        two
    }

    pub(crate) fn from(&self, path: &str) -> PathBuf {
        self.a.path().join("files").join(path)
    }

    pub(crate) fn to(&self, path: &str) -> PathBuf {
        self.b.path().join("incoming").join(path)
    }

    pub(crate) fn put(&self, path: &str, length: usize) -> String {
        let path = self.from(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content: Vec<u8> = (0..length).map(|at| (at / 251 + at) as u8).collect();
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What `receive` is told, besides the directory.
    pub(crate) fn receiving<'a>(&self, more: &[&'a str]) -> Vec<String> {
        let words: Vec<&'a str> = [&["receive", "--json"], more].concat();
        let mut words: Vec<String> = words.into_iter().map(String::from).collect();
        words.push(self.to("").to_str().unwrap().to_owned());
        words
    }

    /// Starts to receive from the other; what it listens on.
    pub(crate) fn receive(&self, more: &[&str]) -> (Running, String) {
        let key = self.a.key().to_string();
        let words = self.receiving(&[&["--trust", &key], more].concat());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut receiver = start(&self.b, &words);
        let contact = contact(&mut receiver);
        (receiver, contact)
    }

    /// Bytes that came and are not whole yet.
    fn partial(&self) -> u64 {
        let Ok(hidden) = fs::read_dir(self.to(".steadfast-partial")) else { return 0 };
        hidden.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).max().unwrap_or(0)
    }

    fn await_partial(&self) {
        let guard = Instant::now() + GUARD;
        while self.partial() < 5_000_000 {
            assert!(Instant::now() < guard, "nothing came");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

pub(crate) fn start(home: &Home, words: &[&str]) -> Running {
    Running::start(&mut home.command(words), |command| command.spawn().unwrap())
}

/// What a side that waits listens on.
pub(crate) fn contact_of(side: &mut Running) -> String {
    let listening = side.until("its line", |object| object["event"] == "listening");
    listening["contact"].as_str().unwrap().to_owned()
}

/// What the line for the other side says.
pub(crate) fn contact(receiver: &mut Running) -> String {
    let listening = receiver.until("its line", |object| object["event"] == "listening");
    let contact = listening["contact"].as_str().unwrap().to_owned();
    // An address of IPv6 has what a shell would take for a pattern.
    let quoted = if contact.contains('[') { format!("'{contact}'") } else { contact.clone() };
    assert_eq!(listening["command"], format!("steadfast send FILE... {quoted}"));
    contact
}

fn port(contact: &str) -> String {
    contact.rsplit_once(':').unwrap().1.to_owned()
}

fn same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}

/// The last object of a command that ended so.
pub(crate) fn result(ended: (Vec<Value>, Option<i32>), code: i32) -> Value {
    let last = ended.0.last().cloned().unwrap_or_default();
    assert_eq!(ended.1, Some(code), "{last}");
    assert_eq!((&last["event"], &last["exit"]), (&"result".into(), &code.into()), "{last}");
    last
}

#[test]
fn a_tree_arrives_and_both_sides_say_so() {
    let two = Two::new();
    for (name, length) in [("tree/a", 10), ("tree/b/c", 3_000_000), ("tree/empty", 0)] {
        two.put(name, length);
    }
    std::os::unix::fs::symlink("a", two.from("tree/link")).unwrap();
    let (receiver, contact) = two.receive(&[]);
    let tree = two.from("tree");
    let sender = start(&two.a, &["send", "--json", tree.to_str().unwrap(), &contact]);
    let (objects, code) = sender.end();
    let find = |event: &str| objects.iter().find(|object| object["event"] == event).unwrap();
    assert_eq!((&find("offer")["files"], &find("offer")["bytes"]), (&3.into(), &3_000_010.into()));
    let outcomes = |wanted: &str| objects.iter().filter(|object| object["outcome"] == wanted).count();
    assert_eq!((outcomes("done"), outcomes("skipped"), outcomes("failed")), (3, 1, 0), "{objects:?}");
    let sent = result((objects, code), 0);
    let received = result(receiver.end(), 0);
    assert_eq!(sent["skipped"], 1, "{sent}");
    for side in [&sent, &received] {
        assert_eq!((&side["files"], &side["bytes"]), (&3.into(), &3_000_010.into()), "{side}");
        assert_eq!((&side["resumed_bytes"], &side["kept"]), (&0.into(), &0.into()), "{side}");
        assert_eq!(side["failed"], serde_json::json!([]), "{side}");
        assert!(side["seconds"].as_f64().unwrap() > 0.0, "{side}");
        assert!(side["networks"]["lo"].as_u64().unwrap() >= 3_000_010, "{side}");
    }
    for name in ["tree/a", "tree/b/c", "tree/empty"] {
        assert!(same(&two.from(name), &two.to(name)), "{name}");
    }
    assert!(!two.to("tree/link").exists() && !two.to(".steadfast-partial").exists());
}

#[test]
fn what_is_there_stays_and_the_rest_comes() {
    let two = Two::new();
    let files = ["same", "other", "new"].map(|name| two.put(name, 1000));
    fs::copy(&files[0], two.to("same")).unwrap();
    fs::write(two.to("other"), "mine").unwrap();
    let send = |contact: &str| {
        let words = [&["send", "--json"], &files.each_ref().map(String::as_str)[..], &[contact]].concat();
        start(&two.a, &words).end()
    };
    let (receiver, contact) = two.receive(&[]);
    let sent = result(send(&contact), 1);
    result(receiver.end(), 1);
    assert_eq!((&sent["files"], &sent["kept"]), (&1.into(), &1.into()), "{sent}");
    assert_eq!(sent["failed"][0]["path"], "other", "{sent}");
    assert!(sent["failed"][0]["reason"].as_str().unwrap().contains("--overwrite"), "{sent}");
    assert_eq!(fs::read(two.to("other")).unwrap(), b"mine");
    let (receiver, contact) = two.receive(&["--overwrite"]);
    let sent = result(send(&contact), 0);
    result(receiver.end(), 0);
    assert_eq!((&sent["files"], &sent["kept"]), (&1.into(), &2.into()), "{sent}");
    assert!(same(&two.from("other"), &two.to("other")));
}

#[test]
fn a_killed_sender_goes_on() {
    let two = Two::new();
    let file = two.put("large", LARGE);
    let (receiver, contact) = two.receive(&[]);
    let sender = start(&two.a, &["send", "--json", &file, &contact]);
    two.await_partial();
    // With SIGKILL.
    drop(sender);
    let sent = result(start(&two.a, &["send", "--json", &file, &contact]).end(), 0);
    let received = result(receiver.end(), 0);
    for side in [&sent, &received] {
        let number = |key: &str| side[key].as_u64().unwrap();
        assert!(number("resumed_bytes") >= 5_000_000, "{side}");
        assert_eq!(number("resumed_bytes") + number("bytes"), LARGE as u64, "{side}");
        assert!(number("bytes") < LARGE as u64, "{side}");
    }
    assert!(same(&two.from("large"), &two.to("large")));
}

#[test]
fn a_killed_receiver_is_found_again() {
    let two = Two::new();
    let file = two.put("large", LARGE);
    let (receiver, contact) = two.receive(&[]);
    let sender = start(&two.a, &["send", "--json", &file, &contact]);
    two.await_partial();
    drop(receiver);
    let kept = two.partial();
    let (receiver, again) = two.receive(&["--port", &port(&contact)]);
    assert_eq!(again, contact);
    let received = result(receiver.end(), 0);
    let sent = result(sender.end(), 0);
    assert!(received["resumed_bytes"].as_u64().unwrap() >= kept.min(5_000_000), "{received}");
    assert!(received["bytes"].as_u64().unwrap() < LARGE as u64, "{received}");
    assert_eq!((&sent["files"], &sent["kept"]), (&1.into(), &0.into()), "{sent}");
    assert!(same(&two.from("large"), &two.to("large")));
}

#[test]
fn after_a_reboot_both_sides_go_on_without_being_told_what() {
    let two = Two::new();
    let file = two.put("large", LARGE);
    let (receiver, contact) = two.receive(&[]);
    let sender = start(&two.a, &["send", "--json", &file, &contact]);
    two.await_partial();
    let running = two.a.run(&["resume", "--list", "--json"]).ended(0);
    assert!(running.objects().is_empty(), "it runs");
    drop((sender, receiver));
    let waiting = two.a.run(&["resume", "--list", "--json"]).ended(0).objects();
    let words = waiting[0]["command"].as_str().unwrap();
    assert!(waiting.len() == 1 && words.contains("send --json"), "{waiting:?}");
    // In whatever order they come up.
    let sender = start(&two.a, &["resume", "--json"]);
    let receiver = start(&two.b, &["resume", "--json"]);
    for side in [sender.end(), receiver.end()] {
        let (objects, code) = side;
        assert_eq!(code, Some(0), "{objects:?}");
        let found = objects.iter().find(|object| object["event"] == "result").unwrap();
        assert!(found["resumed_bytes"].as_u64().unwrap() >= 5_000_000, "{found}");
        assert_eq!(objects.last().unwrap()["event"], "ended", "{objects:?}");
    }
    assert!(same(&two.from("large"), &two.to("large")));
    for home in [&two.a, &two.b] {
        assert!(home.run(&["resume", "--json"]).ended(0).objects().is_empty(), "nothing is left to do");
    }
}

#[test]
fn what_was_never_begun_is_not_remembered_and_what_is_forgotten_neither() {
    let two = Two::new();
    let file = two.put("small", 10);
    let nobody = format!("{}@127.0.0.1:9", two.b.key());
    let store = two.from("jobs");
    let store = store.to_str().unwrap();
    let sent = two.a.run(&["send", "--json", "--wait", "1s", "--store", store, &file, &nobody]);
    sent.ended(4);
    assert_eq!(fs::read_dir(store).unwrap().count(), 0);
    let (receiver, contact) = two.receive(&[]);
    let large = two.put("large", LARGE);
    let sender = start(&two.a, &["send", "--json", "--store", store, &large, &contact]);
    two.await_partial();
    drop((sender, receiver));
    two.a.run(&["resume", "--store", store, "--forget"]).ended(0);
    assert_eq!(fs::read_dir(store).unwrap().count(), 0);
    // Where it cannot be remembered, as it was asked to be, nothing is sent.
    let run = two.a.run(&["send", "--store", &file, &file, &contact]);
    run.failed(1, &["cannot remember this transfer", "name another directory"]);
}

#[test]
fn whoever_is_stopped_says_how_to_go_on() {
    let two = Two::new();
    let file = two.put("large", LARGE);
    let (receiver, contact) = two.receive(&[]);
    let sender = start(&two.a, &["send", "--json", &file, &contact]);
    two.await_partial();
    let sent = result(sender.interrupt(), 5);
    let words = sent["error"].as_str().unwrap();
    assert!(words.contains(&format!("send --json {file} '{contact}'")), "{words}");
    let (objects, code) = receiver.interrupt();
    let last = objects.last().unwrap();
    assert_eq!((code, &last["exit"]), (Some(5), &5.into()), "{last}");
    let words = last["error"].as_str().unwrap();
    assert!(words.contains("receive") && words.contains(&format!("--port {}", port(&contact))), "{words}");
    assert!(two.partial() > 0);
    let run = two.b.run(&["receive", "--json", "--discard-partial", two.to("").to_str().unwrap()]).ended(0);
    assert!(run.object()["bytes"].as_u64().unwrap() >= 5_000_000, "{run:?}");
    assert_eq!(fs::read_dir(two.to("")).unwrap().count(), 0);
}

#[test]
fn strangers_are_refused_until_somebody_trusts_them() {
    let two = Two::new();
    let file = two.put("f", 10);
    let words = two.receiving(&[]);
    let mut receiver = start(&two.b, &words.iter().map(String::as_str).collect::<Vec<_>>());
    let contact = contact(&mut receiver);
    let refused = two.a.run(&["send", &file, &contact]).failed(3, &["trust"]);
    assert!(refused.err.contains(&two.a.key().to_string()), "{refused:?}");
    let told = receiver.until("the stranger", |object| object["event"] == "refused");
    assert_eq!(told["key"], two.a.key().to_string());
    // Waits until the key is accepted there.
    let sender = start(&two.a, &["send", "--json", "--wait", "1m", &file, &contact]);
    two.b.run(&["trust", "add", &two.a.key().to_string()]).ended(0);
    result(sender.end(), 0);
    result(receiver.end(), 0);
    assert!(same(&two.from("f"), &two.to("f")));
}

#[test]
fn other_exit_codes() {
    let two = Two::new();
    let file = two.put("f", 10);
    for words in
        [&["send"][..], &["send", &file], &["send", "/no/such/file", "boat"], &["receive", "/no/such/dir/x"]]
    {
        two.a.run(words).ended(2);
    }
    let object = two.a.run(&["send", "--json"]).ended(2).object();
    let words = object["error"].as_str().unwrap();
    assert!(words.contains("not provided") && words.contains("<FILE>"), "{words}");
    two.a.run(&["send", "--only", &"x".repeat(70), &file, "boat"]).failed(2, &["64 bytes"]);
    two.a.run(&["send", "--json", &file, "boat"]).ended(3);
    // A port at which nobody listens any more.
    let (receiver, contact) = two.receive(&[]);
    drop(receiver);
    let sent = result(start(&two.a, &["send", "--json", "--wait", "1", &file, &contact]).end(), 4);
    assert!(sent["error"].as_str().unwrap().contains("no answer"), "{sent}");
}

#[test]
fn a_rule_that_no_network_fits_is_waited_for_only_so_long() {
    let two = Two::new();
    let file = two.put("f", 10);
    let (_receiver, contact) = two.receive(&[]);
    let sent = result(
        start(&two.a, &["send", "--json", "--only", "satellite", "--wait", "1", &file, &contact]).end(),
        4,
    );
    assert!(sent["error"].as_str().unwrap().contains("no network that may be used"), "{sent}");
}

#[test]
fn other_conversations_are_no_transfers() {
    let two = Two::new();
    let file = two.put("f", 10);
    let (receiver, contact) = two.receive(&[]);
    let pinged = two.a.run(&["ping", "-c", "4", "-i", "10ms", "--json", &contact]).ended(0);
    // Whoever takes files stays in a conversation that only measures.
    assert!(!pinged.out.contains("ended"), "{}", pinged.out);
    result(start(&two.a, &["send", "--json", &file, &contact]).end(), 0);
    let received = result(receiver.end(), 0);
    assert_eq!(received["files"], 1, "{received}");
}

#[test]
fn several_are_received_at_once_if_it_stays() {
    let two = Two::new();
    let files = [two.put("one", 5_000_000), two.put("two", 5_000_000)];
    let (receiver, contact) = two.receive(&["--keep"]);
    let senders = files.each_ref().map(|file| start(&two.a, &["send", "--json", file, &contact]));
    for sender in senders {
        result(sender.end(), 0);
    }
    let mut receiver = receiver;
    for _ in 0..2 {
        receiver.until("a result", |object| object["event"] == "result" && object["exit"] == 0);
    }
    let (objects, code) = receiver.interrupt();
    assert_eq!(code, Some(0), "{objects:?}");
    assert!(same(&two.from("one"), &two.to("one")) && same(&two.from("two"), &two.to("two")));
}

#[test]
fn what_another_sender_left_incomplete_is_told_at_the_end() {
    let two = Two::new();
    let other = Home::new();
    let (large, small) = (two.put("large", LARGE), two.put("small", 10));
    let key = other.key().to_string();
    let (mut receiver, contact) = two.receive(&["--trust", &key]);
    let sender = start(&other, &["send", "--json", &large, &contact]);
    two.await_partial();
    result(sender.interrupt(), 5);
    receiver.until("the cut", |object| object["event"] == "cut_off");
    result(start(&two.a, &["send", "--json", &small, &contact]).end(), 0);
    let (objects, code) = receiver.end();
    let last = objects.last().unwrap();
    assert_eq!((code, &last["event"]), (Some(5), &"incomplete".into()), "{objects:?}");
    assert_eq!((&last["peer"], &last["exit"]), (&key.into(), &5.into()), "{objects:?}");
}

#[test]
fn a_full_disk_says_so_and_keeps_what_came() {
    let two = Two::new();
    let file = two.put("large", 9_000_000);
    let key = two.a.key().to_string();
    let words = two.receiving(&["--trust", &key]);
    // A disk of its own, in a namespace of its own.
    let script = "mount -t tmpfs -o size=4m none \"$0\" && cd \"$0\" && exec \"$@\" --keep .";
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(two.to(""));
    command.arg(env!("CARGO_BIN_EXE_steadfast")).args(&words[..words.len() - 1]).env("HOME", two.b.path());
    let mut receiver = Running::start(&mut command, |command| command.spawn().unwrap());
    let Some(listening) = receiver.object() else {
        return skip(
            "transfer::a_full_disk_says_so_and_keeps_what_came",
            "no file system can be mounted here",
        );
    };
    let contact = listening["contact"].as_str().unwrap().to_owned();
    let words = ["send", "--json", &file, &contact];
    let sent = result(start(&two.a, &words).end(), 1);
    assert_eq!((&sent["files"], &sent["failed_files"]), (&0.into(), &1.into()), "{sent}");
    assert!(sent["failed"][0]["reason"].as_str().unwrap().contains("make room"), "{sent}");
    // What came is kept: the next attempt begins behind it.
    let resumed = start(&two.a, &words).until("resumption", |object| object["event"] == "resumed");
    assert!(resumed["have"].as_u64().unwrap() > 1_000_000, "{resumed}");
}

#[test]
fn a_hostile_sender_writes_nowhere() {
    let two = Two::new();
    let (receiver, contact) = two.receive(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
        let builder = Endpoint::builder().identity_file(two.a.file("identity")).scout(scout);
        let endpoint = builder.trust_file(two.a.file("trusted")).bind().await.unwrap();
        let socket = endpoint.connect(&contact).await.unwrap();
        let greeting = Greeting { oldest: VERSION, newest: VERSION, features: 0, transfer: [1; 16] };
        socket.send(greeting.encode(), Labels::foreground()).await.unwrap();
        let entry = |name: &'static str| Entry {
            depth: 0,
            name: name.as_bytes().into(),
            kind: Kind::File(4),
            mode: 0o777,
            modified: Time::default(),
        };
        let offer = Offer::Entries(vec![entry("../evil\u{1b}[2J")]);
        socket.send(offer.encode(), Labels::foreground()).await.unwrap();
        let mut refused = false;
        while let Ok(Some(message)) = socket.recv().await {
            let answers = Answer::decode_all(message.payload().unwrap().clone()).unwrap();
            refused |= answers.iter().any(|answer| matches!(answer, Answer::Refuse(_)));
        }
        assert!(refused, "it is told why");
    });
    let received = result(receiver.end(), 1);
    assert!(received["error"].as_str().unwrap().contains("slash"), "{received}");
    assert!(!two.b.path().join("evil\u{1b}[2J").exists());
    assert_eq!(fs::read_dir(two.to("")).unwrap().count(), 0);
}
