//! Several processes on one narrow network, in a lab: to foreground they are what one is.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use steadfast::{Builder, Endpoint, Fingerprint, Identity, Labels, MultiSocket, ScoutConfig, Urgency};
use steadfast_testbed::{Host, Lab, isolated};

use crate::host::{Directory, GUARD, ask, until};
use crate::place;

const WHERE: &str = "STEADFAST_TEST_SENDER";
const CONTACT: &str = "STEADFAST_TEST_CONTACT";
const DAEMON: &str = "STEADFAST_TEST_SOCKET";

/// What the network carries, in Mbit/s: so little that two packets of each process are a long queue.
const RATE: f64 = 1.0;
const DELAY: Duration = Duration::from_millis(20);
/// Bytes of a piece of background.
const PIECE: usize = 8 * 1024;
/// Processes that send them.
const SENDERS: usize = 4;
/// Exchanges of which the median is taken.
const EXCHANGES: usize = 40;

fn builder(daemon: PathBuf) -> Builder {
    let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
    Endpoint::builder().scout(scout).daemon(Some(daemon)).connect_limit(GUARD)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// No test by itself: a process that sends background until it is killed.
#[test]
fn sender_of_a_test() {
    let Some(identity) = std::env::var_os(WHERE).map(PathBuf::from) else { return };
    // Whoever started it may be killed itself.
    std::thread::spawn(|| {
        let _end = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let daemon = std::env::var_os(DAEMON).unwrap().into();
    block_on(async {
        let endpoint = builder(daemon).identity_file(identity).bind().await.unwrap();
        let socket = endpoint.connect(std::env::var(CONTACT).unwrap()).await.unwrap();
        while socket.send(vec![0; PIECE], Labels::background()).await.is_ok() {}
    });
}

struct Sender(Child);

impl Sender {
    fn start(host: &Host, identity: &Path, contact: &str, daemon: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "shares::sender_of_a_test", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        command.env(WHERE, identity).env(CONTACT, contact).env(DAEMON, daemon);
        Self(host.spawn(&mut command).unwrap())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Bytes that came from each sender.
type Arrived = Arc<Vec<AtomicU64>>;

/// Takes background and sends foreground back.
async fn take(socket: MultiSocket, at: Option<usize>, arrived: Arrived) {
    while let Ok(Some(message)) = socket.recv().await {
        let urgency = message.labels.urgency;
        let Ok(bytes) = message.into_bytes().await else { return };
        match at {
            Some(at) if urgency == Urgency::Background => {
                arrived[at].fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            _ => _ = socket.send(bytes, Labels::foreground()).await,
        }
    }
}

/// A daemon on this host, until what is returned is dropped.
fn daemon(host: &Host) -> (PathBuf, mpsc::Sender<()>) {
    let (place, told) = mpsc::channel();
    let (over, ends) = mpsc::channel::<()>();
    host.thread("daemon", move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let mut host = runtime.block_on(place::Host::started());
        place.send(host.place().join("daemon.sock")).unwrap();
        let _dropped = ends.recv();
        runtime.block_on(host.end());
    });
    (told.recv().unwrap(), over)
}

fn receiver(host: &Host, keys: Vec<Fingerprint>, arrived: &Arrived) -> (String, Arc<AtomicBool>) {
    let (contact, told) = mpsc::channel();
    let (over, arrived) = (Arc::new(AtomicBool::new(false)), Arc::clone(arrived));
    let ends = Arc::clone(&over);
    host.thread("receiver", move || {
        block_on(async {
            let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
            let endpoint = Endpoint::builder().scout(scout).daemon(None);
            let endpoint = endpoint.identity(Identity::generate().unwrap());
            let endpoint = keys.iter().fold(endpoint, |endpoint, key| endpoint.trust(*key));
            let endpoint = endpoint.bind().await.unwrap();
            contact.send(endpoint.contact()).unwrap();
            while !ends.load(Ordering::Relaxed) {
                let accepted = tokio::time::timeout(Duration::from_millis(100), endpoint.accept()).await;
                if let Ok(Some(socket)) = accepted {
                    let at = keys.iter().position(|key| *key == socket.peer()).filter(|at| *at < SENDERS);
                    tokio::spawn(take(socket, at, Arc::clone(&arrived)));
                }
            }
        });
    });
    (told.recv().unwrap(), over)
}

/// Exchanges foreground, and keeps how long each takes.
fn foreground(
    host: &Host,
    identity: Identity,
    contact: String,
    daemon: PathBuf,
) -> Arc<Mutex<Vec<Duration>>> {
    let took = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::downgrade(&took);
    host.thread("foreground", move || {
        block_on(async {
            let endpoint = builder(daemon).identity(identity).bind().await.unwrap();
            let socket = endpoint.connect(contact).await.unwrap();
            while let Some(took) = kept.upgrade() {
                let begin = Instant::now();
                // At the end its host is gone.
                if socket.send(vec![0; 128], Labels::foreground()).await.is_err() {
                    return;
                }
                let Ok(Some(_)) = socket.recv().await else { return };
                took.lock().unwrap().push(begin.elapsed());
                drop(took);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    });
    took
}

/// The median of the next exchanges, once all background has moved this much more.
fn median(took: &Mutex<Vec<Duration>>, arrived: &[AtomicU64], bytes: u64) -> Duration {
    let before: Vec<_> = arrived.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    until("background moves", || {
        let moved = arrived.iter().zip(&before);
        moved
            .map(|(now, before)| now.load(Ordering::Relaxed) - before)
            .all(|moved| moved >= bytes)
            .then_some(())
    });
    took.lock().unwrap().clear();
    until("exchanges", || (took.lock().unwrap().len() >= EXCHANGES).then_some(()));
    let mut took = took.lock().unwrap().clone();
    took.sort();
    took[took.len() / 2]
}

#[test]
fn several_processes_are_to_foreground_what_one_is() {
    isolated("shares::several_processes_are_to_foreground_what_one_is", || {
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let link = lab.link("narrow", &a, &b).rate_mbit(RATE).delay(DELAY).queue(Duration::from_secs(2));
        let _link = link.connect().unwrap();
        let (socket, daemon) = daemon(&a);
        let directory = Directory::new();
        let identities: Vec<_> = (0..=SENDERS).map(|_| Identity::generate().unwrap()).collect();
        let keys: Vec<_> = identities.iter().map(Identity::fingerprint).collect();
        let arrived: Arrived = Arc::new((0..SENDERS).map(|_| AtomicU64::new(0)).collect());
        let (contact, over) = receiver(&b, keys, &arrived);
        let start = |at: usize| {
            let path = directory.0.join(format!("identity-{at}"));
            identities[at].save(&path).unwrap();
            Sender::start(&a, &path, &contact, &socket)
        };
        let took = foreground(&a, identities[SENDERS].clone(), contact.clone(), socket.clone());
        let mut senders = vec![start(0)];
        let one = median(&took, &arrived[..1], 40 * PIECE as u64);
        senders.extend((1..SENDERS).map(start));
        let several = median(&took, &arrived, 20 * PIECE as u64);
        // Each has its part.
        let parts: Vec<_> =
            ask(&socket).unwrap().processes.into_iter().flat_map(|process| process.networks).collect();
        let limited = parts.iter().filter(|part| part.allowed.is_some()).count();
        assert!(limited >= SENDERS, "{parts:?}");
        // Without the daemon each queues for itself: that is what is compared with.
        drop(daemon);
        let without = median(&took, &arrived, 10 * PIECE as u64);
        over.store(true, Ordering::Relaxed);
        let figures =
            format!("one: {one:?}; {SENDERS}: {several:?}; {SENDERS} without a daemon: {without:?}");
        println!("an exchange takes, beside background of {figures}");
        assert!(several < one * 2, "{figures}");
        assert!(several * 4 < without * 3, "{figures}");
    });
}
