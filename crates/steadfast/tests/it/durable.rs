//! Conversations that survive their processes: real ones, which are killed.

use crate::common::{Directory, local, soon};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use steadfast::{
    DropReason, EndReason, Endpoint, Identity, Labels, MultiSocket, Outcome, SessionError, StoreSync,
    StoredError,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

mod full;
mod side;

/// How often a process is killed; `STEADFAST_ROUNDS` sets another number.
const ROUNDS: u64 = 20;

fn rounds() -> u64 {
    std::env::var("STEADFAST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

/// One of the two: its directory, and its process while it runs.
struct Side {
    directory: PathBuf,
    peer: Option<String>,
    trusts: String,
    port: u16,
    child: Option<Child>,
    contact: String,
    lines: UnboundedReceiver<String>,
}

impl Side {
    fn start(&mut self) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["durable::side::process", "--exact", "--nocapture"]);
        command.env(side::DIRECTORY, &self.directory).env(side::TRUSTED, &self.trusts);
        command.env(side::PORT, self.port.to_string()).env(side::PEER, self.peer.as_deref().unwrap_or(""));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut all = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = all.find(|line| line.starts_with("listening ")).expect("the process listens");
        let (sender, lines) = unbounded_channel();
        std::thread::spawn(move || all.for_each(|line| drop(sender.send(line))));
        let mut words = line.split_whitespace().skip(1);
        self.port = words.next().unwrap().parse().unwrap();
        self.contact = words.next().unwrap().into();
        self.lines = lines;
        self.child = Some(child);
    }

    /// No signal handler, no destructor, nothing flushed.
    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        child.wait().unwrap();
    }

    fn order(&mut self, order: &str) {
        let stdin = self.child.as_mut().unwrap().stdin.as_mut().unwrap();
        stdin.write_all(format!("{order}\n").as_bytes()).unwrap();
    }

    /// Waits for a line that begins like this, and returns the rest of it.
    async fn says(&mut self, word: &str) -> String {
        loop {
            let line = soon(word, self.lines.recv()).await.expect("the process lives");
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().into();
            }
        }
    }

    /// Waits for so many lines.
    async fn goes_on(&mut self, lines: u64) {
        for _ in 0..lines {
            soon("progress", self.lines.recv()).await.expect("the process lives");
        }
    }

    fn numbers(&self, file: &str) -> Vec<u64> {
        let text = fs::read_to_string(self.directory.join(file)).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// Two processes that talk in one conversation, which the first opened.
async fn talking(place: &Directory) -> [Side; 2] {
    let [a, b] = ["a", "b"].map(|name| {
        let directory = place.0.join(name);
        fs::create_dir_all(&directory).unwrap();
        let key = Identity::load_or_create(&directory.join("identity")).unwrap().fingerprint();
        (directory, key.to_string())
    });
    let side = |own: &(PathBuf, String), other: &(PathBuf, String)| Side {
        directory: own.0.clone(),
        peer: None,
        trusts: other.1.clone(),
        port: 0,
        child: None,
        contact: String::new(),
        lines: unbounded_channel().1,
    };
    let mut sides = [side(&a, &b), side(&b, &a)];
    sides[1].start();
    sides[0].peer = Some(sides[1].contact.clone());
    sides[0].start();
    for side in &mut sides {
        side.says("up").await;
    }
    sides
}

/// Everything that either sent was taken by the other once and in order.
async fn all_is_there(sides: &mut [Side; 2]) {
    for side in &mut *sides {
        side.order("last");
    }
    let mut sent = [0; 2];
    for (side, sent) in sides.iter_mut().zip(&mut sent) {
        *sent = side.says("sent ").await.parse::<u64>().unwrap();
    }
    for (index, sent) in sent.into_iter().enumerate() {
        let taken = sides[1 - index].numbers("taken");
        let strange = taken.iter().zip(1..).position(|(taken, expected)| *taken != expected);
        assert_eq!(strange, None, "side {index}: {:?}", strange.map(|at| &taken[at.saturating_sub(3)..]));
        assert_eq!(taken.len() as u64, sent, "side {index}");
        let stored = sides[index].numbers("stored").into_iter().max();
        assert!(stored <= Some(sent), "side {index}: {stored:?} was stored, and {sent} was sent");
    }
}

#[tokio::test]
async fn whoever_is_killed_nothing_is_lost_doubled_or_out_of_order() {
    let place = Directory::new();
    let mut sides = talking(&place).await;
    let mut next = dice();
    for _ in 0..rounds() {
        let victim = (next() % 2) as usize;
        // Now and then both, and now and then before it has found back.
        sides[victim].goes_on(next() % 40).await;
        sides[victim].kill();
        if next().is_multiple_of(4) {
            sides[1 - victim].kill();
            sides[1 - victim].start();
        }
        sides[victim].start();
    }
    all_is_there(&mut sides).await;
}

/// Numbers that differ from run to run; where a process is when it is killed nobody can repeat.
fn dice() -> impl FnMut() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let state = RandomState::new();
    let mut count = 0_u64;
    move || {
        count += 1;
        state.hash_one(count)
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_store_from_a_backup_is_told_to_both_sides() {
    for victim in 0..2 {
        let place = Directory::new();
        let mut sides = talking(&place).await;
        sides[victim].goes_on(20).await;
        sides[victim].kill();
        let (store, backup) = (sides[victim].directory.join("store"), place.0.join("backup"));
        copy(&store, &backup);
        sides[victim].start();
        sides[victim].says("took").await;
        sides[victim].goes_on(20).await;
        sides[victim].kill();
        fs::remove_dir_all(&store).unwrap();
        copy(&backup, &store);
        sides[victim].start();
        for side in &mut sides {
            let ended = side.says("ended ").await;
            assert!(ended.contains("older state"), "{ended}");
        }
        // Whatever was taken before was taken once and in order.
        for side in &sides {
            let taken = side.numbers("taken");
            assert!(taken.iter().zip(1..).all(|(taken, expected)| *taken == expected), "{taken:?}");
        }
    }
}

// ----- within one process -------------------------------------------------------------------------------------------

/// A host that can be stopped and started again.
struct Host {
    directory: PathBuf,
    identity: Identity,
    trusts: Vec<steadfast::Fingerprint>,
    port: u16,
    sync: StoreSync,
}

impl Host {
    fn pair(place: &Directory, sync: StoreSync) -> [Self; 2] {
        let mut hosts = ["a", "b"].map(|name| Self {
            directory: place.0.join(name),
            identity: Identity::generate().unwrap(),
            trusts: Vec::new(),
            port: 0,
            sync,
        });
        let keys = [hosts[0].identity.fingerprint(), hosts[1].identity.fingerprint()];
        for host in &mut hosts {
            host.trusts.extend(keys);
        }
        hosts
    }

    async fn start(&mut self) -> Endpoint {
        let mut builder = local().identity(self.identity.clone()).port(self.port);
        for key in &self.trusts {
            builder = builder.trust(*key);
        }
        let endpoint = builder.store(&self.directory).store_sync(self.sync).bind().await.unwrap();
        self.port = endpoint.port();
        endpoint
    }
}

async fn converse(a: &Endpoint, b: &Endpoint) -> (MultiSocket, MultiSocket) {
    let at_a = soon("connect", a.connect(b.contact())).await.unwrap();
    let at_b = soon("accept", b.accept()).await.unwrap();
    (at_a, at_b)
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_detached_endpoint_goes_on_when_its_store_is_opened_again() {
    for sync in [StoreSync::Grouped, StoreSync::Each] {
        let place = Directory::new();
        let mut hosts = Host::pair(&place, sync);
        let (a, b) = (hosts[0].start().await, hosts[1].start().await);
        let (at_a, at_b) = converse(&a, &b).await;
        let mut receipts = Vec::new();
        for number in 1..=10 {
            receipts.push(at_a.send(format!("{number}"), Labels::foreground()).await.unwrap());
        }
        soon("stored", receipts[9].stored()).await.unwrap();
        for number in 1..=4 {
            let delivery = soon("recv", at_b.recv_held()).await.unwrap().unwrap();
            assert_eq!(delivery.payload().unwrap(), format!("{number}").as_bytes());
            // The third is done with and not acknowledged: it comes again.
            if number == 3 {
                std::mem::forget(delivery);
            } else {
                soon("stored", delivery.acknowledge().stored()).await.unwrap();
            }
        }
        let id = at_b.session_id();
        soon("detach", b.detach(MINUTE)).await;
        assert!(matches!(at_b.recv().await, Err(SessionError::Stopped(_))));
        assert!(b.accept().await.is_none());
        soon("detach", a.detach(MINUTE)).await;
        drop((a, b, at_a, at_b));

        let (a, b) = (hosts[0].start().await, hosts[1].start().await);
        let (at_a, at_b) = (a.restored().pop().unwrap(), b.restored().pop().unwrap());
        assert!(a.restored().is_empty(), "each is given once");
        assert_eq!((at_a.session_id(), at_b.session_id()), (id, id));
        assert_eq!(at_a.last_sent().map(|last| last.0), Some(10));
        let open: Vec<_> = at_a.unsettled();
        assert!(open.iter().any(|receipt| receipt.id().0 == 3), "{open:?}");
        soon("at once", open[0].stored()).await.unwrap();
        for number in [3, 5, 6, 7, 8, 9, 10] {
            let delivery = soon("recv", at_b.recv_held()).await.unwrap().unwrap();
            assert_eq!(
                (delivery.id().0, delivery.payload().unwrap().len()),
                (number, number.to_string().len())
            );
            let _stored = delivery.acknowledge();
        }
        for receipt in open {
            assert_eq!(soon("the outcome", receipt.outcome()).await, Outcome::Delivered);
        }
        // What has ended is not kept.
        let (closed, _) = tokio::join!(soon("close", at_a.close()), soon("close", at_b.close()));
        closed.unwrap();
        soon("close", a.close("")).await;
        soon("close", b.close("")).await;
        assert!(hosts[0].start().await.restored().is_empty());
    }
}

#[tokio::test]
async fn a_program_that_drops_everything_has_it_again() {
    let place = Directory::new();
    let mut hosts = Host::pair(&place, StoreSync::Grouped);
    let (a, b) = (hosts[0].start().await, hosts[1].start().await);
    let (at_a, at_b) = converse(&a, &b).await;
    let receipt = at_a.send("kept", Labels::foreground()).await.unwrap();
    soon("acked", receipt.acked()).await.unwrap();
    drop(at_b);
    let at_b = b.restored().pop().unwrap();
    drop((at_b, b));
    // It gives the store back by itself.
    let b = soon(
        "the store is free",
        Box::pin(async {
            loop {
                let mut builder = local().identity(hosts[1].identity.clone()).port(hosts[1].port);
                builder = builder.trust(hosts[0].identity.fingerprint());
                match builder.store(&hosts[1].directory).bind().await {
                    Ok(endpoint) => return endpoint,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        }),
    )
    .await;
    let at_b = b.restored().pop().unwrap();
    let message = soon("recv", at_b.recv()).await.unwrap().unwrap();
    assert_eq!(message.payload().unwrap(), "kept");
    assert_eq!(soon("the outcome", receipt.outcome()).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_delivery_is_given_again_if_it_is_dropped_and_may_be_refused() {
    let place = Directory::new();
    let mut hosts = Host::pair(&place, StoreSync::Grouped);
    let (a, b) = (hosts[0].start().await, hosts[1].start().await);
    let (at_a, at_b) = converse(&a, &b).await;
    let receipt = at_a.send("again", Labels::foreground()).await.unwrap();
    for _ in 0..3 {
        let delivery = soon("recv", at_b.recv_held()).await.unwrap().unwrap();
        assert_eq!(delivery.payload().unwrap(), "again");
    }
    assert_eq!(receipt.try_outcome(), None);
    soon("recv", at_b.recv_held()).await.unwrap().unwrap().refuse();
    let outcome = soon("the outcome", receipt.outcome()).await;
    assert_eq!(outcome, Outcome::Dropped(DropReason::Refused));
}

#[tokio::test]
async fn without_a_store_nothing_is_said_to_be_stored() {
    let (_a, _b, at_a, at_b) = crate::common::talking().await;
    let receipt = at_a.send("somewhere", Labels::foreground()).await.unwrap();
    assert_eq!(receipt.stored().await, Err(StoredError::NoStore));
    // Acknowledging works as well.
    let delivery = soon("recv", at_b.recv_held()).await.unwrap().unwrap();
    soon("stored", delivery.acknowledge().stored()).await.unwrap();
    assert_eq!(soon("the outcome", receipt.outcome()).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_peer_that_lost_its_store_ends_the_conversation() {
    let place = Directory::new();
    let mut hosts = Host::pair(&place, StoreSync::Grouped);
    let (a, b) = (hosts[0].start().await, hosts[1].start().await);
    let (at_a, at_b) = converse(&a, &b).await;
    let receipt = at_a.send("known", Labels::foreground()).await.unwrap();
    soon("recv", at_b.recv()).await.unwrap();
    soon("the outcome", receipt.outcome()).await;
    soon("detach", b.detach(MINUTE)).await;
    drop(at_b);
    fs::remove_dir_all(&hosts[1].directory).unwrap();
    let _b = hosts[1].start().await;
    let error = soon("the end", at_a.recv()).await.unwrap_err();
    assert!(matches!(error, SessionError::Ended { reason: EndReason::Unknown, .. }), "{error}");
}

#[tokio::test]
async fn an_acknowledgement_after_the_end_is_not_said_to_be_stored() {
    let place = Directory::new();
    let mut hosts = Host::pair(&place, StoreSync::Grouped);
    let (a, b) = (hosts[0].start().await, hosts[1].start().await);
    let (at_a, at_b) = converse(&a, &b).await;
    let _receipt = at_a.send("late", Labels::foreground()).await.unwrap();
    let delivery = soon("recv", at_b.recv_held()).await.unwrap().unwrap();
    soon("detach", b.detach(MINUTE)).await;
    let stored = soon("an answer", delivery.acknowledge().stored()).await;
    assert!(matches!(stored, Err(StoredError::Stopped(_))), "{stored:?}");
    drop(at_b);
    let b = hosts[1].start().await;
    let at_b = b.restored().pop().unwrap();
    assert_eq!(soon("recv", at_b.recv()).await.unwrap().unwrap().payload().unwrap(), "late");
}

#[tokio::test]
async fn what_was_dropped_and_then_ended_is_forgotten() {
    let place = Directory::new();
    let mut hosts = Host::pair(&place, StoreSync::Grouped);
    let (a, b) = (hosts[0].start().await, hosts[1].start().await);
    let (at_a, at_b) = converse(&a, &b).await;
    let (kept_a, kept_b) = converse(&a, &b).await;
    let receipt = at_a.send("taken", Labels::foreground()).await.unwrap();
    soon("recv", at_b.recv()).await.unwrap();
    soon("the outcome", receipt.outcome()).await;
    drop(at_b);
    at_a.abort();
    // The word of that is before what the other conversation says.
    let last = kept_a.send("last", Labels::foreground()).await.unwrap();
    soon("recv", kept_b.recv()).await.unwrap();
    soon("the outcome", last.outcome()).await;
    assert!(b.restored().is_empty());
}

#[tokio::test]
async fn a_store_in_use_is_said_to_be_that() {
    let place = Directory::new();
    let [mut host, _] = Host::pair(&place, StoreSync::Grouped);
    let first = host.start().await;
    let builder = local().identity(host.identity.clone()).store(&host.directory);
    let error = builder.bind().await.unwrap_err().to_string();
    assert!(error.contains("another process uses the store"), "{error}");
    // When `close` has returned it is free.
    soon("close", first.close("")).await;
    host.start().await;
}
