//! Two hosts without a broker.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use bytes::BufMut;
use steadfast::{ConnectError, Endpoint, Fingerprint, Identity, Labels, MultiSocket, ScoutConfig};
use steadfast_backplane::{
    Client, Event, EventId, Incarnation, JobId, Kind, Location, Payload, Provenance, Replay, Signature,
    Timestamp,
};

use crate::disk::Disk;
use crate::host::{GUARD, Host, until};
use crate::server::Server;

const SPACE: &str = "FTB.apps.example";

/// What a host's settings say of another. A port of 1: nobody is there, it is to call.
fn settings(port: u16, other: Fingerprint, at: u16) -> String {
    format!("[exchange]\naddresses = ['127.0.0.1']\nport = {port}\nhosts = ['{other}@127.0.0.1:{at}']\n")
}

fn port_of(host: &Host) -> u16 {
    let contact = host.status().exchange.expect("it listens");
    contact.rsplit(':').next().unwrap().parse().unwrap()
}

fn way(other: &Host) -> String {
    format!("host {}", other.key())
}

fn connected(one: &Host, other: &Host) {
    one.wait_connected(&way(other));
    other.wait_connected(&way(one));
}

/// Waits until one says why it does not reach the other.
fn not_connected(one: &Host, other: &Host, words: &str) {
    let way = until("a fault", || Some(one.way(&way(other))).filter(|way| !way.connected));
    assert!(way.fault.as_ref().is_some_and(|fault| fault.contains(words)), "{way:?}");
}

/// Two hosts that call each other; and their ports.
fn pair() -> (Host, Host, u16, u16) {
    let (mut a, mut b) = (Host::new(), Host::new());
    b.start(&settings(0, a.key(), 1));
    let at_b = port_of(&b);
    a.start(&settings(0, b.key(), at_b));
    let at_a = port_of(&a);
    connected(&a, &b);
    (a, b, at_a, at_b)
}

#[test]
fn events_cross_both_ways() {
    let (mut a, mut b, at_a, at_b) = pair();
    let (mut one, mut other) = (a.client(SPACE), b.client(SPACE));
    one.subscribe("", Replay::Nothing);
    other.subscribe("", Replay::Nothing);
    let id = one.publish("one");
    let came = other.next();
    assert_eq!((came.event.id, came.provenance), (id, Provenance::Signed));
    // Whoever gets it from here can tell who made it.
    let signature = came.event.signature.expect("a signature");
    assert!(steadfast_net::identity::verify(&a.key(), &came.event.signed_bytes(), &signature.0));
    other.publish("two");
    assert_eq!(one.next_text(), ("one".into(), Provenance::Local));
    assert_eq!(one.next_text(), ("two".into(), Provenance::Signed));
    until("both are confirmed", || (a.way(&way(&b)).sent == 1 && b.way(&way(&a)).sent == 1).then_some(()));

    // Both call at once, and that is well; and what does not go out or come in stays where it is.
    a.stop();
    b.stop();
    b.start(&format!("{}in = ['FTB.apps.all']\n", settings(at_b, a.key(), at_a)));
    a.start(&format!("{}out = ['FTB.all.all', 'x.y.z']\n", settings(at_a, b.key(), at_b)));
    connected(&a, &b);
    let mut other = b.client(SPACE);
    other.subscribe("", Replay::Nothing);
    a.client("a.b.c").publish("stays");
    a.client("x.y.z").publish("is not taken");
    a.client(SPACE).publish("goes");
    assert_eq!(other.next_text(), ("goes".into(), Provenance::Signed));
    let counted = until("it is counted", || Some(b.way(&way(&a))).filter(|way| way.received > 0));
    assert_eq!((counted.received, counted.refused), (1, 1), "{counted:?}");
}

#[test]
fn a_daemon_that_is_killed_gets_the_rest_later() {
    let (mut a, mut b, at_a, at_b) = pair();
    let mut one = a.client(SPACE);
    // A thousand more after each death, which begin while nobody is there.
    let (died, deaths) = mpsc::channel();
    let publish = std::thread::spawn(move || {
        let mut published = BTreeMap::new();
        for part in 0..3 {
            for number in 0..1000 {
                let text = format!("{part} {number}");
                published.insert(one.publish(&text), text);
            }
            let _more = deaths.recv();
        }
        published
    });
    for part in [300, 600] {
        until("some have arrived", || (b.counter("remote") >= part).then_some(()));
        b.kill();
        died.send(()).unwrap();
        b.start(&settings(at_b, a.key(), at_a));
    }
    drop(died);
    let published = publish.join().unwrap();
    until("all are confirmed", || (a.way(&way(&b)).sent >= 3000).then_some(()));
    let mut other = b.client(SPACE);
    other.subscribe("", Replay::Recent { events: 4096, within: GUARD });
    other.take_once(published);

    // The other side's turn: what it published while it could not reach anybody it still has after it was killed.
    b.stop();
    let mut one = a.client(SPACE);
    let owed: BTreeMap<_, _> = (0..20).map(|_| (one.publish("owed"), "owed".to_owned())).collect();
    a.kill();
    b.start(&settings(at_b, a.key(), at_a));
    let mut other = b.client(SPACE);
    other.subscribe("", Replay::Nothing);
    a.start(&settings(at_a, b.key(), at_b));
    other.take_once(owed);
    until("all are confirmed", || (a.way(&way(&b)).sent == 20).then_some(()));
}

#[test]
fn a_host_that_does_not_answer_is_not_connected() {
    let (a, mut b, at_a, at_b) = pair();
    b.kill();
    not_connected(&a, &b, "crashed");
    b.start(&settings(at_b, a.key(), at_a));
    connected(&a, &b);
    b.pause();
    // The rest waits here and makes that an answer is owed.
    let mut one = a.client(SPACE);
    one.publish("for later");
    not_connected(&a, &b, "hung");
    b.resume();
    connected(&a, &b);
    until("it came", || (a.way(&way(&b)).sent == 1).then_some(()));
}

#[test]
fn who_comes_too_fast_is_held_up_and_loses_nothing() {
    let (a, mut b, at_a, at_b) = pair();
    b.stop();
    b.start(&format!("{}[limits]\nhost-rate = 20\n", settings(at_b, a.key(), at_a)));
    connected(&a, &b);
    let mut one = a.client(SPACE);
    let published: BTreeMap<_, _> =
        (0..60).map(|n: u32| (one.publish(&n.to_string()), n.to_string())).collect();
    until("all have come", || (b.way(&way(&a)).received == 60).then_some(()));
    assert!(b.counter("remote_too_fast") > 0);
    let mut other = b.client(SPACE);
    other.subscribe("", Replay::Recent { events: 100, within: GUARD });
    other.take_once(published);
}

#[test]
fn with_a_server_beside_nothing_comes_twice() {
    let server = Server::with_jetstream();
    let nats = format!("[nats]\nurl = '{}'\njetstream = true\n", server.url());
    let (mut a, mut b) = (Host::new(), Host::new());
    a.trust(b.key());
    b.trust(a.key());
    b.start(&format!("{nats}{}", settings(0, a.key(), 1)));
    let at_b = port_of(&b);
    a.start(&format!("{nats}{}", settings(0, b.key(), at_b)));
    connected(&a, &b);
    a.wait_connected("nats");
    b.wait_connected("nats");
    let (mut one, mut other) = (a.client(SPACE), b.client(SPACE));
    other.subscribe("", Replay::Nothing);
    let published: BTreeMap<_, _> =
        (0..200).map(|n: u32| (one.publish(&n.to_string()), n.to_string())).collect();
    other.take_once(published);
    until("they came both ways", || {
        let (nats, host) = (b.way("nats"), b.way(&way(&a)));
        (nats.received + nats.refused == 200 && host.received + host.refused == 200).then_some(())
    });
    assert_eq!((b.counter("remote"), b.counter("remote_duplicates")), (200, 200));
}

#[test]
fn each_way_is_owed_what_it_did_not_get() {
    let server = Server::with_jetstream();
    let nats = format!("[nats]\nurl = '{}'\njetstream = true\n", server.url());
    let (mut a, mut b) = (Host::new(), Host::new());
    b.start(&settings(0, a.key(), 1));
    let at_b = port_of(&b);
    b.stop();
    let both = format!("{nats}{}", settings(0, b.key(), at_b));
    a.start(&both);
    let mut one = a.client(SPACE);
    let mut owed: BTreeMap<_, _> =
        (0..20).map(|n: u32| (one.publish(&n.to_string()), n.to_string())).collect();
    until("the server has them", || (a.way("nats").sent == 20).then_some(()));
    a.stop();
    a.start(&both);
    owed.insert(a.client(SPACE).publish("more"), "more".to_owned());
    b.start(&settings(at_b, a.key(), 1));
    let mut other = b.client(SPACE);
    other.subscribe("", Replay::Recent { events: 100, within: GUARD });
    other.take_once(owed);
    a.wait_sent();
    assert_eq!((a.way("nats").sent, a.way(&way(&b)).sent), (1, 21));
}

/// A peer of no program of ours.
struct Stranger {
    endpoint: Endpoint,
    socket: MultiSocket,
}

impl Stranger {
    async fn try_call(host: &Host, identity: Identity, port: u16) -> Result<Self, ConnectError> {
        let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
        let builder = Endpoint::builder().identity(identity).trust(host.key()).scout(scout);
        let endpoint = builder.bind().await.unwrap();
        let socket = endpoint.connect(format!("{}@127.0.0.1:{port}", host.key())).await?;
        Ok(Self { endpoint, socket })
    }

    async fn call(host: &Host, identity: Identity, port: u16) -> Self {
        Self::try_call(host, identity, port).await.unwrap()
    }

    async fn say(&self, bytes: Vec<u8>) {
        self.socket.send(bytes, Labels::foreground()).await.unwrap();
    }

    async fn greet(&self, version: u8) {
        self.say(hello(version)).await;
    }

    async fn hear(&self) -> Option<Vec<u8>> {
        let heard =
            tokio::time::timeout(GUARD, self.socket.recv()).await.expect("it says something, or ends");
        heard.ok().flatten().map(|message| message.payload().unwrap().to_vec())
    }

    async fn is_refused(&self) {
        while self.hear().await.is_some() {}
        self.endpoint.close("over").await;
    }
}

fn hello(version: u8) -> Vec<u8> {
    hello_of(version, 77)
}

/// The greeting of a certain run of a daemon.
fn hello_of(version: u8, run: u64) -> Vec<u8> {
    let mut hello = vec![1];
    hello.extend_from_slice(b"steadfast events");
    hello.put_u8(version);
    hello.put_u64(run);
    hello
}

#[test]
fn a_host_has_few_conversations_and_all_of_one_run() {
    let (mut a, other) = (Host::new(), Host::new());
    a.start(&settings(0, other.key(), 1));
    let port = port_of(&a);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut all = vec![Stranger::call(&a, other.identity.clone(), port).await];
        let endpoint = all[0].endpoint.clone();
        for _ in 1..6 {
            let socket = endpoint.connect(format!("{}@127.0.0.1:{port}", a.key())).await.unwrap();
            all.push(Stranger { endpoint: endpoint.clone(), socket });
        }
        let mut all = all.into_iter();
        let four: Vec<_> = all.by_ref().take(4).collect();
        for one in &four {
            one.greet(1).await;
            assert!(one.hear().await.is_some(), "it is greeted");
            // Taken in as one of those that stand.
            one.say(events(1, &[])).await;
            assert_eq!(one.hear().await.unwrap(), [3, 0, 0, 0, 0, 0, 0, 0, 1]);
        }
        let (fifth, later) = (all.next().unwrap(), all.next().unwrap());
        fifth.greet(1).await;
        while fifth.hear().await.is_some() {}
        // A daemon that was started again: what its earlier run had is over.
        later.say(hello_of(1, 78)).await;
        assert!(later.hear().await.is_some());
        for one in &four {
            assert_eq!(one.hear().await, None);
        }
        later.say(events(1, &[])).await;
        assert_eq!(later.hear().await.unwrap(), [3, 0, 0, 0, 0, 0, 0, 0, 1]);
        endpoint.close("over").await;
    });
}

fn events(number: u64, all: &[&Event]) -> Vec<u8> {
    let mut out = vec![2];
    out.put_u64(number);
    out.put_u16(all.len() as u16);
    for event in all {
        event.encode(&mut out);
    }
    out
}

#[test]
fn what_another_originated_and_what_is_no_event_is_refused() {
    // An event of a third host, which both trust, truly signed.
    let third = Host::new();
    let mut event = sample(&third);
    let (mut a, evil) = (Host::new(), Host::new());
    a.trust(third.key());
    a.start(&settings(0, evil.key(), 1));
    let port = port_of(&a);
    let mut one = a.client(SPACE);
    one.subscribe("", Replay::Nothing);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let stranger = Stranger::call(&a, evil.identity.clone(), port).await;
        stranger.greet(1).await;
        assert_eq!(stranger.hear().await.unwrap()[..17], *b"\x01steadfast events");
        let relayed = event.clone();
        event.id.origin = evil.key();
        event.signature = None;
        stranger.say(events(1, &[&relayed, &event])).await;
        assert_eq!(stranger.hear().await.unwrap(), [3, 0, 0, 0, 0, 0, 0, 0, 1], "both were dealt with");
        assert_eq!(one.next().event.id, event.id);
        assert_eq!((a.counter("remote_relayed"), a.counter("remote")), (1, 1));
        // Counted wrongly.
        stranger.say(events(9, &[])).await;
        stranger.is_refused().await;

        for words in [
            vec![9],
            events(1, &[&event])[..60].to_vec(),
            {
                let mut many = vec![2];
                many.put_u64(1);
                many.put_u16(u16::MAX);
                many
            },
            vec![3, 0, 0, 0, 0, 0, 0, 0, 200],
            [events(1, &[]), vec![0]].concat(),
        ] {
            let stranger = Stranger::call(&a, evil.identity.clone(), port).await;
            stranger.greet(1).await;
            stranger.hear().await.unwrap();
            stranger.say(words).await;
            stranger.is_refused().await;
        }
        // No greeting, and one of a later version, which hears what is spoken here.
        let stranger = Stranger::call(&a, evil.identity.clone(), port).await;
        stranger.say(events(1, &[&event])).await;
        stranger.is_refused().await;
        let stranger = Stranger::call(&a, evil.identity.clone(), port).await;
        stranger.greet(2).await;
        assert_eq!(stranger.hear().await.unwrap()[17], 1);
        stranger.is_refused().await;
        until("it says why", || a.way(&way(&evil)).fault.filter(|fault| fault.contains("version 2")));
        // Trusted, but not a host to exchange events with.
        if let Ok(stranger) = Stranger::try_call(&a, third.identity.clone(), port).await {
            // It may be over before this is said.
            let _over = stranger.socket.send(hello(1), Labels::foreground()).await;
            assert_eq!(stranger.hear().await, None);
            stranger.is_refused().await;
        }
    });
    assert_eq!(a.counter("remote"), 1);
}

/// The other host may forget what it has heard of as taken.
#[test]
fn what_is_not_stored_is_not_said_to_be_taken() {
    let (mut a, other) = (Host::new(), Host::new());
    std::fs::create_dir_all(a.state()).unwrap();
    let test = "what_is_not_stored_is_not_said_to_be_taken";
    let Some(disk) = Disk::mount(test, &a.state(), "256k") else { return };
    a.start(&settings(0, other.key(), 1));
    let port = port_of(&a);
    let mut event = sample(&other);
    event.payload = Payload::new(vec![b'x'; 60_000].into()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let stranger = Stranger::call(&a, other.identity.clone(), port).await;
        stranger.greet(1).await;
        stranger.hear().await.unwrap();
        // It may tell of its disk meanwhile.
        let taken = async || loop {
            let words = stranger.hear().await.unwrap();
            if let Some(number) = words.strip_prefix(&[3]) {
                return u64::from_be_bytes(number.try_into().unwrap());
            }
        };
        let mut number = 0;
        loop {
            number += 1;
            assert!(number < 8, "all of them are taken");
            event.id.sequence = number;
            event.signature = Some(Signature(other.identity.sign(&event.signed_bytes())));
            stranger.say(events(number, &[&event])).await;
            until("it comes", || (a.counter("remote") == number).then_some(()));
            match tokio::time::timeout(Duration::from_millis(500), taken()).await {
                Ok(said) => assert_eq!(said, number),
                Err(_) if a.status().agent.storage_fault.is_some() => break,
                Err(_) => assert_eq!(taken().await, number),
            }
        }
        assert!(number > 1, "nothing was taken");
        disk.resize("8m");
        assert_eq!(taken().await, number);
        stranger.endpoint.close("over").await;
    });
}

/// An event as its host would sign it.
fn sample(host: &Host) -> Event {
    let mut event = Event {
        id: EventId { origin: host.key(), incarnation: Incarnation(5), sequence: 1 },
        space: SPACE.parse().unwrap(),
        name: "DONE".parse().unwrap(),
        severity: "info".parse().unwrap(),
        kind: Kind::Plain,
        payload: Payload::EMPTY,
        client: Client { name: "test".parse().unwrap(), job: JobId::NONE, extension: 0 },
        number: 1,
        location: Location { host: "third".parse().unwrap(), address: None, pid: 1, start: Timestamp(1) },
        user: 1,
        time: Timestamp(1),
        schema: None,
        signature: None,
    };
    event.signature = Some(Signature(host.identity.sign(&event.signed_bytes())));
    event
}
