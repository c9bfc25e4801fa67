//! A process and who takes its checkpoints, over its control socket: both in this process, one test at a time.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers too")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use steadfast_control::{
    Checkpoint, ControlError, Outcome, Participant, Phase, Place, Registration, Stage, Veto, Wish, enter,
    find, phase, register, try_enter,
};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const LONG: Duration = Duration::from_secs(60);

fn alone() -> MutexGuard<'static, ()> {
    let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // The thread of the test before ends by itself.
    while find(std::process::id()).unwrap().is_some() {
        std::thread::yield_now();
    }
    alone
}

fn wish() -> Wish {
    Wish { ready: LONG, silence: LONG, images: Some("/images".into()), goes_on: true }
}

/// Tells what it is told, and does as it is bid.
struct Witness {
    name: &'static str,
    heard: Sender<String>,
    answer: Result<(), Veto>,
    fault: Option<&'static str>,
    /// Waits for this before it is ready.
    hold: Option<Arc<Mutex<()>>>,
}

impl Participant for Witness {
    fn prepare(&mut self, checkpoint: &Checkpoint) -> Result<(), Veto> {
        assert_eq!(phase(), Phase::Active);
        enter().leave();
        let Checkpoint { requester, images, goes_on, .. } = checkpoint;
        assert_eq!((requester.pid, *goes_on), (std::process::id(), true));
        let images = images.clone().unwrap_or_default();
        self.heard.send(format!("{} prepares for {}", self.name, images.display())).unwrap();
        if let Some(hold) = &self.hold {
            drop(hold.lock().unwrap());
        }
        self.answer.clone()
    }

    fn go_on(&mut self, outcome: &Outcome) -> Result<(), String> {
        self.heard.send(format!("{} {outcome}", self.name)).unwrap();
        self.fault.map_or(Ok(()), |fault| Err(fault.into()))
    }
}

struct Bench {
    heard: Receiver<String>,
    sender: Sender<String>,
    registrations: Vec<Registration>,
}

impl Bench {
    fn new() -> Self {
        let (sender, heard) = channel();
        Self { heard, sender, registrations: Vec::new() }
    }

    fn witness(&self, name: &'static str) -> Witness {
        Witness { name, heard: self.sender.clone(), answer: Ok(()), fault: None, hold: None }
    }

    fn add(&mut self, stage: Stage, witness: Witness) {
        self.registrations.push(register(stage, witness).unwrap());
    }

    fn hears(&self, words: &[&str]) {
        for word in words {
            assert_eq!(self.heard.recv_timeout(LONG).unwrap(), *word);
        }
        assert!(self.heard.try_recv().is_err());
    }
}

fn place() -> Place {
    let place = find(std::process::id()).unwrap().unwrap();
    assert_eq!(place.pid, std::process::id());
    place
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn everybody_prepares_and_goes_on_in_the_opposite_order() {
    let _alone = alone();
    let mut bench = Bench::new();
    let application = bench.witness("first");
    bench.add(Stage::Application, application);
    let fault = Some("the port is taken");
    let library = Witness { fault, ..bench.witness("library") };
    bench.add(Stage::Library, library);
    let second = bench.witness("second");
    bench.add(Stage::Application, second);
    let before = descriptors();
    let place = place();
    assert_eq!(place.status(LONG).unwrap().participants, 3);
    for (outcome, words) in [
        (Outcome::Continued, "goes on after its image was taken"),
        (Outcome::Restored { images: Some("/elsewhere".into()) }, "restored from /elsewhere"),
        (Outcome::Abandoned("no space".into()), "goes on without an image: no space"),
    ] {
        let prepared = place.prepare(&wish()).unwrap();
        bench.hears(&[
            "second prepares for /images",
            "first prepares for /images",
            "library prepares for /images",
        ]);
        assert_eq!(descriptors(), before, "nothing that an image cannot hold");
        assert!(place.status(LONG).unwrap().prepared && phase() == Phase::Active && try_enter().is_none());
        let error = place.prepare(&wish()).unwrap_err();
        assert!(matches!(error, ControlError::Refused { temporary: true, .. }), "{error}");
        let written = serde_json::to_string(&prepared).unwrap();
        let prepared: steadfast_control::Prepared = serde_json::from_str(&written).unwrap();
        assert_eq!(prepared.go_on(&outcome, LONG).unwrap(), ["the port is taken"]);
        let expected: Vec<_> =
            ["library", "first", "second"].iter().map(|name| format!("{name} {words}")).collect();
        bench.hears(&expected.iter().map(String::as_str).collect::<Vec<_>>());
        // Said twice, done once.
        assert_eq!(prepared.go_on(&outcome, LONG).unwrap(), ["the port is taken"]);
        bench.hears(&[]);
        assert!(phase() == Phase::Idle && try_enter().is_some());
    }
}

#[test]
fn a_veto_ends_it_for_all() {
    let _alone = alone();
    let mut bench = Bench::new();
    let (first, second) = (bench.witness("first"), bench.witness("second"));
    for (temporary, veto) in
        [(true, Veto::Temporary("a move is made".into())), (false, Veto::Permanent("a GPU is held".into()))]
    {
        let third = Witness { answer: Err(veto.clone()), ..bench.witness("vetoes") };
        let library = register(Stage::Library, third).unwrap();
        if bench.registrations.is_empty() {
            let (first, second) = (bench.witness(first.name), bench.witness(second.name));
            bench.add(Stage::Application, first);
            bench.add(Stage::Application, second);
        }
        let error = place().prepare(&wish()).unwrap_err();
        assert!(matches!(error, ControlError::Refused { temporary: t, .. } if t == temporary), "{error}");
        assert!(error.to_string().contains(&veto.to_string()), "{error}");
        let told = format!("goes on without an image: vetoed: {veto}");
        bench.hears(&[
            "second prepares for /images",
            "first prepares for /images",
            "vetoes prepares for /images",
            &format!("first {told}"),
            &format!("second {told}"),
        ]);
        assert_eq!(phase(), Phase::Idle);
        drop(library);
    }
}

#[test]
fn without_a_word_it_goes_on_by_itself() {
    let _alone = alone();
    let mut bench = Bench::new();
    let one = bench.witness("one");
    bench.add(Stage::Library, one);
    let prepared = place().prepare(&Wish { silence: Duration::ZERO, ..wish() }).unwrap();
    bench.hears(&[
        "one prepares for /images",
        "one goes on without an image: nobody said how the checkpoint went",
    ]);
    // Whoever comes late is told how it went; whoever was never there is not.
    assert!(prepared.go_on(&Outcome::Continued, LONG).unwrap().is_empty());
    let stranger = serde_json::to_string(&prepared).unwrap().replace("token\":\"", "token\":\"x");
    let stranger: steadfast_control::Prepared = serde_json::from_str(&stranger).unwrap();
    let error = stranger.go_on(&Outcome::Continued, LONG).unwrap_err();
    assert!(error.to_string().contains("did not prepare"), "{error}");
}

#[test]
fn a_requester_that_is_gone_is_not_waited_for() {
    let _alone = alone();
    let mut bench = Bench::new();
    let hold = Arc::new(Mutex::new(()));
    let held = hold.lock().unwrap();
    let slow = Witness { hold: Some(Arc::clone(&hold)), ..bench.witness("slow") };
    bench.add(Stage::Library, slow);
    let place = place();
    let mut stream = UnixStream::connect(&place.path).unwrap();
    let question =
        r#"{"version":1,"prepare":{"token":"t","ready_ms":60000,"silence_ms":60000,"goes_on":true}}"#;
    stream.write_all(format!("{question}\n").as_bytes()).unwrap();
    bench.hears(&["slow prepares for "]);
    drop(stream);
    drop(held);
    bench.hears(&["slow goes on without an image: the requester is gone"]);
}

/// It hears of it as soon as it runs; nobody waits until then.
#[test]
fn a_word_is_left_for_who_stands_still() {
    let _alone = alone();
    let mut bench = Bench::new();
    let one = bench.witness("one");
    bench.add(Stage::Library, one);
    let prepared = place().prepare(&wish()).unwrap();
    prepared.leave_word(&Outcome::Continued).unwrap();
    bench.hears(&["one prepares for /images", "one goes on after its image was taken"]);
}

fn connect_at_once(path: &std::path::Path) -> rustix::io::Result<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

#[test]
fn who_does_not_accept_is_not_waited_for() {
    let _alone = alone();
    let path = std::env::temp_dir().join(format!("control-crowded-{}.sock", std::process::id()));
    let _listener = UnixListener::bind(&path).unwrap();
    let place = Place { pid: std::process::id(), path: path.clone() };
    // All places of those who wait to be accepted are taken.
    let mut waiting = Vec::new();
    while let Ok(stream) = connect_at_once(&path) {
        waiting.push(stream);
    }
    let error = place.status(Duration::ZERO).unwrap_err();
    assert!(matches!(error, ControlError::Late { .. }), "{error}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn sections_hold_a_checkpoint_up() {
    let _alone = alone();
    let mut bench = Bench::new();
    let one = bench.witness("one");
    bench.add(Stage::Library, one);
    let place = place();
    let section = enter();
    let error = place.prepare(&Wish { ready: Duration::from_millis(20), ..wish() }).unwrap_err();
    assert!(error.to_string().contains("must not be interrupted"), "{error}");
    assert_eq!(phase(), Phase::Idle);
    let asker = std::thread::spawn(move || place.prepare(&wish()).unwrap());
    while phase() != Phase::Pending {
        std::thread::yield_now();
    }
    let program = std::thread::spawn(move || section.leave());
    let prepared = asker.join().unwrap();
    assert!(!program.is_finished(), "it is held until the checkpoint is over");
    prepared.go_on(&Outcome::Continued, LONG).unwrap();
    program.join().unwrap();
    bench.hears(&["one prepares for /images", "one goes on after its image was taken"]);
}

#[test]
fn nonsense_is_not_understood() {
    let _alone = alone();
    let mut bench = Bench::new();
    let one = bench.witness("one");
    bench.add(Stage::Library, one);
    let place = place();
    for words in ["", "{}", "{\"version\":1}\n", "[1,2\n", "{\"prepare\":7}\n", "\n", &"x".repeat(100_000)] {
        let mut stream = UnixStream::connect(&place.path).unwrap();
        // It may have closed before it had all.
        let _cut_short = stream.write_all(words.as_bytes());
        let _ended = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _reset = stream.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.contains("does not know what was asked"), "{answer}");
    }
    assert!(!place.status(LONG).unwrap().prepared);
    bench.hears(&[]);
}

#[test]
fn nothing_is_left_when_nobody_is_registered() {
    let _alone = alone();
    let before = descriptors();
    for _ in 0..50 {
        let mut bench = Bench::new();
        let (one, other) = (bench.witness("one"), bench.witness("other"));
        bench.add(Stage::Library, one);
        bench.add(Stage::Application, other);
        let place = place();
        bench.registrations.pop();
        assert_eq!(place.status(LONG).unwrap().participants, 1);
        bench.registrations.clear();
        assert!(!place.path.exists());
        while descriptors() > before {
            std::thread::yield_now();
        }
    }
}
