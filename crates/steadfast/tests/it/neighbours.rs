//! Who shares a network: other conversations, with the same peer and with others, and other programs. What is urgent passes
//! the bulk of all of them, and bulk makes room for others.
//!
//! Nothing is timed: what is compared is what arrived before what, and how much of each while all of them were under way.

use crate::common::{log, soon};
use crate::world::{GUARD, PIECE, block_on, close_after_peer, endpoint};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use steadfast::{Endpoint, Identity, Labels, MultiSocket, Outcome, SendOptions, Urgency};
use steadfast_testbed::{Host, Lab, Link, isolated};

/// The pace of urgent messages of a conversation.
const PACE: Duration = Duration::from_millis(10);
/// Pieces of bulk of a conversation that are always waiting or under way.
const UNDER_WAY: u32 = 64;

/// What arrived of a conversation.
#[derive(Debug, Default)]
struct Tally {
    pieces: AtomicU32,
    urgent: AtomicU32,
}

/// What all conversations share.
#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    /// Pieces of all conversations that arrived.
    pieces: AtomicU32,
    /// The most of these that arrived while one urgent message was under way.
    waited_for: AtomicU32,
}

/// Two hosts and a network between them, over which the first sends bulk and urgent messages.
struct Scene {
    a: Host,
    b: Host,
    wifi: Link,
    shared: Arc<Shared>,
    tallies: Vec<Arc<Tally>>,
}

impl Scene {
    /// So many peers with so many conversations each, while `watch` looks on and decides when it is over.
    fn play(peers: usize, conversations: usize, queue: Duration, watch: impl FnOnce(&Self)) {
        log();
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let wifi = lab.link("wifi", &a, &b).rate_mbit(20.0).delay(Duration::from_millis(10)).queue(queue);
        let wifi = wifi.connect().unwrap();
        let tallies = (0..peers * conversations).map(|_| Arc::default()).collect();
        let scene = Self { a, b, wifi, shared: Arc::default(), tallies };
        let a_key = Identity::generate().unwrap();
        let a_print = a_key.fingerprint();
        let mut contacts = Vec::new();
        let mut threads = Vec::new();
        for tallies in scene.tallies.chunks(conversations) {
            let (shared, tallies) = (Arc::clone(&scene.shared), tallies.to_vec());
            let (contact_out, contact_in) = std::sync::mpsc::channel();
            threads.push(scene.b.thread("peer", move || {
                block_on(async move {
                    let endpoint = endpoint().trust(a_print).identity(Identity::generate().unwrap());
                    let endpoint = endpoint.bind().await.unwrap();
                    contact_out.send(endpoint.contact()).unwrap();
                    let mut all = Vec::new();
                    for tally in tallies {
                        let socket = soon("a conversation", endpoint.accept()).await.unwrap();
                        all.push(tokio::spawn(take(socket, Arc::clone(&shared), tally)));
                    }
                    for one in all {
                        one.await.unwrap();
                    }
                    endpoint.close("the test is over").await;
                });
            }));
            contacts.push(contact_in.recv().unwrap());
        }
        let shared = Arc::clone(&scene.shared);
        threads.push(scene.a.thread("sender", move || {
            block_on(async move {
                let endpoint = endpoint().identity(a_key).bind().await.unwrap();
                let all: Vec<_> = contacts
                    .into_iter()
                    .flat_map(|contact| vec![contact; conversations])
                    .map(|contact| tokio::spawn(pour(endpoint.clone(), contact, Arc::clone(&shared))))
                    .collect();
                for one in all {
                    one.await.unwrap();
                }
                endpoint.close("the test is over").await;
            });
        }));
        watch(&scene);
        scene.shared.over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
    }

    fn urgent(&self) -> Vec<u32> {
        self.tallies.iter().map(|tally| tally.urgent.load(Ordering::Relaxed)).collect()
    }

    /// Urgent messages of every conversation have arrived since, and none ever waited for the bulk that waited when it
    /// was sent: at most for what the network held.
    fn assert_urgent_flows(&self, what: &str, before: &[u32]) {
        let now = self.urgent();
        assert!(
            now.iter().zip(before).all(|(now, before)| now - before >= 10),
            "{what}: {before:?}, {now:?}"
        );
        let waited = self.shared.waited_for.load(Ordering::Relaxed);
        assert!(waited <= UNDER_WAY / 4, "{what}: an urgent message waited for {waited} pieces of bulk");
    }

    /// Bytes of bulk that arrived.
    fn bulk(&self) -> u64 {
        u64::from(self.shared.pieces.load(Ordering::Relaxed)) * PIECE as u64
    }
}

/// Waits for a state of what other threads do.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let guard = Instant::now() + GUARD;
    while !done() {
        assert!(Instant::now() < guard, "{what}: did not happen within {GUARD:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Sends bulk of which much always waits, and urgent messages that say how much of it all had arrived before them.
async fn pour(endpoint: Endpoint, contact: String, shared: Arc<Shared>) {
    let socket = endpoint.connect(contact).await.unwrap();
    let bulk = async {
        let mut receipts = VecDeque::new();
        while !shared.over.load(Ordering::Relaxed) {
            let piece = vec![0; PIECE];
            receipts.push_back(socket.send(piece, Labels::background()).await.unwrap());
            if receipts.len() > UNDER_WAY as usize
                && let Some(oldest) = receipts.pop_front()
            {
                assert_eq!(soon("outcome", oldest.outcome()).await, Outcome::Delivered);
            }
        }
    };
    let urgent = async {
        while !shared.over.load(Ordering::Relaxed) {
            let before = shared.pieces.load(Ordering::Relaxed).to_be_bytes().to_vec();
            let options = SendOptions::new().unordered();
            socket.send_with(before, Labels::foreground(), options).await.unwrap();
            tokio::time::sleep(PACE).await;
        }
    };
    tokio::join!(bulk, urgent);
    socket.close_within(GUARD).await.unwrap();
}

async fn take(socket: MultiSocket, shared: Arc<Shared>, tally: Arc<Tally>) {
    while let Some(message) = socket.recv().await.unwrap() {
        let urgency = message.labels.urgency;
        let bytes = message.into_bytes().await.unwrap();
        if urgency == Urgency::Background {
            shared.pieces.fetch_add(1, Ordering::Relaxed);
            tally.pieces.fetch_add(1, Ordering::Relaxed);
        } else {
            let before = u32::from_be_bytes(bytes[..].try_into().unwrap());
            shared.waited_for.fetch_max(shared.pieces.load(Ordering::Relaxed) - before, Ordering::Relaxed);
            tally.urgent.fetch_add(1, Ordering::Relaxed);
        }
    }
    close_after_peer(&socket).await;
}

#[test]
fn urgent_messages_pass_the_bulk_of_all_conversations_with_all_peers() {
    isolated("neighbours::urgent_messages_pass_the_bulk_of_all_conversations_with_all_peers", || {
        const PIECES: u32 = 40;
        for (peers, conversations) in [(1, 3), (3, 1), (2, 2)] {
            Scene::play(peers, conversations, Duration::from_secs(1), |scene| {
                let pieces = || scene.tallies.iter().map(|tally| tally.pieces.load(Ordering::Relaxed));
                until("all bulk moves", || pieces().min() >= Some(PIECES));
                let what = format!("{peers} peers, {conversations} conversations with each");
                let most = pieces().max();
                assert!(most < Some(10 * PIECES), "{what}: {most:?} pieces of one, {PIECES} of another");
                scene.assert_urgent_flows(&what, &vec![0; scene.tallies.len()]);
            });
        }
    });
}

/// Another program's transfer over the same network.
struct Foreign {
    arrived: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Foreign {
    fn start(from: &Host, to: &Host, link: &Link) -> Self {
        let listener = to.run(|| TcpListener::bind((link.address_of(to), 0))).unwrap();
        let target = listener.local_addr().unwrap();
        let mut source = from.run(|| TcpStream::connect(target)).unwrap();
        let (mut sink, _) = listener.accept().unwrap();
        for stream in [&source, &sink] {
            stream.set_read_timeout(Some(GUARD)).unwrap();
            stream.set_write_timeout(Some(GUARD)).unwrap();
        }
        let foreign = Self { arrived: Arc::default(), over: Arc::default() };
        let over = Arc::clone(&foreign.over);
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                source.write_all(&[0; 16 * 1024]).unwrap();
            }
        });
        let arrived = Arc::clone(&foreign.arrived);
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(length @ 1..) = sink.read(&mut buffer) {
                arrived.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        foreign
    }

    fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }
}

#[test]
fn bulk_makes_room_for_other_programs() {
    isolated("neighbours::bulk_makes_room_for_other_programs", || {
        const SOME: u64 = 2_000_000;
        const MUCH: u64 = 5_000_000;
        // How deep the network's buffer is in milliseconds, and whether the other goes the same way.
        for (queue, same_way) in [(30, true), (300, true), (100, false)] {
            Scene::play(1, 1, Duration::from_millis(queue), |scene| {
                let what = format!("{queue} ms, the same way: {same_way}");
                until("bulk moves", || scene.bulk() >= SOME);
                let (from, to) = if same_way { (&scene.a, &scene.b) } else { (&scene.b, &scene.a) };
                let foreign = Foreign::start(from, to, &scene.wifi);
                until("it has found its rate", || foreign.arrived() >= SOME);
                let (urgent, bulk, before) = (scene.urgent(), scene.bulk(), foreign.arrived());
                until("it goes on", || foreign.arrived() >= before + MUCH);
                let (bulk, had) = (scene.bulk() - bulk, foreign.arrived() - before);
                if same_way {
                    // As another program of its kind it would have half.
                    assert!(bulk <= had / 2, "{what}: {bulk} bytes of bulk beside {had}");
                    assert!(bulk > 0, "{what}: bulk starves");
                } else {
                    assert!(bulk >= had / 4, "{what}: {bulk} bytes of bulk against {had}");
                }
                scene.assert_urgent_flows(&what, &urgent);
                foreign.over.store(true, Ordering::Relaxed);
                let bulk = scene.bulk();
                until("bulk takes what is free again", || scene.bulk() >= bulk + MUCH);
            });
        }
    });
}
