//! Two hosts, two networks, and a workload over them: a background file beside urgent messages. Whatever a test does to the
//! networks meanwhile, everything arrives once, in order.

use crate::common::{log, soon};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use steadfast::{
    CloseError, EndReason, Endpoint, Event, Identity, Labels, MultiSocket, Outcome, Receipt, ScoutConfig,
    SessionError, Urgency,
};
use steadfast_testbed::{Host, Lab, Link, LinkBuilder, isolated};

/// Bytes of a piece of the file.
pub(crate) const PIECE: usize = 32 * 1024;
/// The pace of urgent messages.
const PACE: Duration = Duration::from_millis(10);
/// Pieces without an outcome before the next is sent, so that the file is under way as long as it lasts.
const UNDER_WAY: usize = 64;
/// Nothing that works takes this long.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

/// What is sent at least; more of it while [`World::held`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) pieces: u32,
    pub(crate) urgent: u32,
    /// Whether it goes on until the test says [`World::release`].
    pub(crate) held: bool,
}

impl Workload {
    pub(crate) const STANDARD: Self = Self { pieces: 150, urgent: 150, held: false };
    pub(crate) const HELD: Self = Self { held: true, ..Self::STANDARD };
}

/// What the workload tells the test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Signal {
    /// So many pieces of the file have arrived.
    Pieces(u32),
    /// A path came up at the sender; the local networks of all its paths.
    PathUp(String, Vec<String>),
    /// A path went down at the sender.
    PathDown(String),
    Parked,
    Resumed,
    Done,
}

impl Signal {
    pub(crate) fn is_up(&self, network: &str) -> bool {
        matches!(self, Self::PathUp(name, _) if name == network)
    }

    pub(crate) fn is_down(&self, network: &str) -> bool {
        matches!(self, Self::PathDown(name) if name == network)
    }
}

/// The hosts and what is between them, while the workload runs from `a` to `b`.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) a: Host,
    pub(crate) b: Host,
    pub(crate) wifi: Link,
    pub(crate) lte: Link,
    /// One that was made meanwhile.
    pub(crate) later: Mutex<Option<Link>>,
    /// How far the test is.
    step: AtomicU32,
    held: Arc<AtomicBool>,
}

impl World {
    /// Lets the workload end.
    pub(crate) fn release(&self) {
        self.held.store(false, Ordering::Relaxed);
    }

    pub(crate) fn step(&self) -> u32 {
        self.step.load(Ordering::Relaxed)
    }

    pub(crate) fn next_step(&self) {
        self.step.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a test does when it is told how the workload goes.
pub(crate) type Fault = fn(&World, &Signal);

/// The links of a world, from links without any settings.
pub(crate) type Links = for<'lab> fn(LinkBuilder<'lab>, LinkBuilder<'lab>) -> [LinkBuilder<'lab>; 2];

/// A better network and a worse one.
pub(crate) fn two_networks<'lab>(wifi: LinkBuilder<'lab>, lte: LinkBuilder<'lab>) -> [LinkBuilder<'lab>; 2] {
    [
        wifi.rate_mbit(20.0).delay(Duration::from_millis(10)),
        lte.rate_mbit(10.0).delay(Duration::from_millis(30)),
    ]
}

/// Runs a workload over two networks for the test of this path; `STEADFAST_ROUNDS` repeats it.
pub(crate) fn scenario(test: &str, workload: Workload, links: Links, fault: Fault) {
    isolated(test, || {
        let rounds = std::env::var("STEADFAST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        for _ in 0..rounds {
            round(workload, links, fault);
        }
    });
}

fn round(workload: Workload, links: Links, fault: Fault) {
    log();
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    let [wifi, lte] =
        links(lab.link("wifi", &a, &b), lab.link("lte", &a, &b)).map(|link| link.connect().unwrap());
    let held = Arc::new(AtomicBool::new(workload.held));
    let (later, step) = (Mutex::default(), AtomicU32::new(0));
    let world = World { lab, a, b, wifi, lte, later, step, held: Arc::clone(&held) };
    let sent = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);

    let (signals, heard) = mpsc::channel();
    let (contact_out, contact_in) = tokio::sync::oneshot::channel();
    let (a_key, b_key) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let a_print = a_key.fingerprint();
    let receiver = {
        let (signals, sent) = (signals.clone(), Arc::clone(&sent));
        world.b.thread("receiver", move || {
            block_on(async move {
                let endpoint = endpoint().identity(b_key).trust(a_print).bind().await.unwrap();
                contact_out.send(endpoint.contact()).unwrap();
                let socket = endpoint.accept().await.unwrap();
                receive(&socket, &signals, &sent).await;
                close_after_peer(&socket).await;
                endpoint.close("the test is over").await;
            });
        })
    };
    let sender = world.a.thread("sender", move || {
        block_on(async move {
            let endpoint = endpoint().identity(a_key).bind().await.unwrap();
            let mut events = endpoint.events();
            let (watcher, watched) = (signals.clone(), endpoint.clone());
            let watch = tokio::spawn(async move {
                let mut names = HashMap::new();
                while let Some(event) = events.next().await {
                    let signal = match event {
                        Event::Parked { .. } => Signal::Parked,
                        Event::Resumed { .. } => Signal::Resumed,
                        Event::PathUp(info) => {
                            let all = watched.paths().into_iter().map(|path| path.local_name);
                            names.insert(info.path, info.local_name.clone());
                            Signal::PathUp(info.local_name, all.collect())
                        }
                        // The network may be gone by now, and its name with it.
                        Event::PathDown(info, _) => match names.remove(&info.path) {
                            Some(name) => Signal::PathDown(name),
                            None => continue,
                        },
                        _ => continue,
                    };
                    let _listens = watcher.send(signal);
                }
            });
            let contact = contact_in.await.unwrap();
            let socket = endpoint.connect(contact).await.unwrap();
            send(&socket, workload, &held, &sent).await;
            endpoint.close("everything was delivered").await;
            watch.await.unwrap();
            signals.send(Signal::Done).unwrap();
        });
    });
    let mut story = Vec::new();
    loop {
        let signal = heard.recv_timeout(GUARD);
        let signal =
            signal.unwrap_or_else(|_| panic!("the workload stands at step {}: {story:?}", world.step()));
        if signal == Signal::Done {
            break;
        }
        fault(&world, &signal);
        if !matches!(signal, Signal::Pieces(_)) {
            story.push((world.step(), signal));
        }
    }
    sender.join().unwrap();
    receiver.join().unwrap();
    assert!(!world.held.load(Ordering::Relaxed), "the test came to its end");
}

/// An endpoint on all networks of its host.
pub(crate) fn endpoint() -> steadfast::Builder {
    Endpoint::builder().scout(ScoutConfig { nmcli: None, ..ScoutConfig::default() }).connect_limit(GUARD)
}

/// Runs a host's part of a test, on a runtime of its own.
pub(crate) fn block_on<T>(workload: impl Future<Output = T>) -> T {
    block_on_within(GUARD, workload)
}

/// The same for what is meant to take long.
pub(crate) fn block_on_within<T>(limit: Duration, workload: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(limit, workload).await.expect("the workload ends") })
}

/// Closes from the side that only took; the other one may leave before this one hears that both agreed.
pub(crate) async fn close_after_peer(socket: &MultiSocket) {
    let closed = socket.close_within(GUARD).await;
    let left = |reason: &SessionError| matches!(reason, SessionError::Ended { reason: EndReason::Left, .. });
    assert!(
        matches!(&closed, Ok(())) || matches!(&closed, Err(CloseError::Session(error)) if left(error)),
        "{closed:?}"
    );
}

async fn delivered(receipt: Receipt) {
    assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
}

async fn send(socket: &MultiSocket, workload: Workload, held: &AtomicBool, sent: &[AtomicU32; 2]) {
    let goes_on = |number: u32, least: u32| number < least || held.load(Ordering::Relaxed);
    let file = async {
        let mut receipts = VecDeque::new();
        let mut number = 0_u32;
        while goes_on(number, workload.pieces) {
            let mut piece = vec![number as u8; PIECE];
            piece[..4].copy_from_slice(&number.to_be_bytes());
            receipts.push_back(socket.send(piece, Labels::background()).await.unwrap());
            number += 1;
            if receipts.len() > UNDER_WAY
                && let Some(oldest) = receipts.pop_front()
            {
                delivered(oldest).await;
            }
        }
        sent[Urgency::Background.index()].store(number, Ordering::Relaxed);
        receipts
    };
    let urgent = async {
        let mut receipts = VecDeque::new();
        let mut number = 0_u32;
        while goes_on(number, workload.urgent) {
            let bytes = number.to_be_bytes().to_vec();
            receipts.push_back(socket.send(bytes, Labels::foreground()).await.unwrap());
            number += 1;
            tokio::time::sleep(PACE).await;
        }
        sent[Urgency::Foreground.index()].store(number, Ordering::Relaxed);
        receipts
    };
    let (file, urgent) = tokio::join!(file, urgent);
    for receipt in file.into_iter().chain(urgent) {
        delivered(receipt).await;
    }
    socket.close_within(GUARD).await.unwrap();
}

async fn receive(socket: &MultiSocket, signals: &mpsc::Sender<Signal>, sent: &[AtomicU32; 2]) {
    let mut next = [0; 2];
    while let Some(message) = socket.recv().await.unwrap() {
        let urgency = message.labels.urgency;
        let bytes = message.into_bytes().await.unwrap();
        let number = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        assert_eq!(number, next[urgency.index()], "{urgency:?}: once and in order");
        next[urgency.index()] += 1;
        if urgency == Urgency::Background {
            assert_eq!(bytes.len(), PIECE);
            assert!(bytes[4..].iter().all(|byte| *byte == number as u8));
            let _over = signals.send(Signal::Pieces(number + 1));
        }
    }
    assert_eq!(next, [0, 1].map(|urgency| sent[urgency].load(Ordering::Relaxed)), "all of it");
}
