//! Hosts that a server of NATS connects.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, TryRecvError};

use async_nats::Client as Nats;
use futures_core::Stream;
use nkeys::KeyPair;
use steadfast_backplane::{Event, Provenance, Replay};

use crate::host::{GUARD, Host, until};
use crate::server::Server;

const SPACE: &str = "FTB.apps.example";
const SUBJECT: &str = "steadfast.events.ftb.apps.example.done";

fn settings(server: &Server, jetstream: bool) -> String {
    format!("[nats]\nurl = '{}'\njetstream = {jetstream}\n", server.url())
}

/// Two hosts that trust each other.
fn pair() -> (Host, Host) {
    let (a, b) = (Host::new(), Host::new());
    a.trust(b.key());
    b.trust(a.key());
    (a, b)
}

fn start(host: &mut Host, settings: &str) {
    host.start(settings);
    host.wait_connected("nats");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn next(messages: &mut async_nats::Subscriber) -> async_nats::Message {
    let next = poll_fn(|context| Pin::new(&mut *messages).poll_next(context));
    tokio::time::timeout(GUARD, next).await.expect("a message comes").expect("the connection stands")
}

#[test]
fn events_cross_and_others_read_them_too() {
    for jetstream in [false, true] {
        let server = Server::with_jetstream();
        let (mut a, mut b) = pair();
        start(&mut a, &settings(&server, jetstream));
        start(&mut b, &settings(&server, jetstream));
        let (mut at_a, mut at_b) = (a.client(SPACE), b.client(SPACE));
        at_a.subscribe("", Replay::Nothing);
        at_b.subscribe("", Replay::Nothing);

        let runtime = runtime();
        let _entered = runtime.enter();
        let (nats, mut messages) = runtime.block_on(async {
            let nats = async_nats::connect(server.url()).await.unwrap();
            let messages = nats.subscribe("steadfast.events.ftb.apps.>").await.unwrap();
            nats.request("nobody", "".into()).await.unwrap_err();
            (nats, messages)
        });
        let id = at_a.publish("one");
        assert_eq!(at_a.next_text(), ("one".into(), Provenance::Local));
        assert_eq!(at_b.next_text(), ("one".into(), Provenance::Signed));
        let message = runtime.block_on(next(&mut messages));
        assert_eq!(message.subject.as_str(), SUBJECT);
        let event = Event::from_cloud_event(std::str::from_utf8(&message.payload).unwrap()).unwrap();
        assert_eq!((event.id, &event.payload.bytes()[..]), (id, &b"one"[..]));

        // Back, and nothing comes twice.
        at_b.publish("two");
        assert_eq!(at_b.next_text(), ("two".into(), Provenance::Local));
        assert_eq!(at_a.next_text(), ("two".into(), Provenance::Signed));
        until("their own events came back, and were dropped", || {
            [&a, &b].iter().all(|host| host.counter("remote_own") == 1).then_some(())
        });
        for host in [&a, &b] {
            host.wait_sent();
            let way = until("it is counted", || {
                Some(host.way("nats")).filter(|way| way.received > 0 && way.refused > 0)
            });
            assert_eq!((way.sent, way.received, way.refused), (1, 1, 1), "{way:?}");
        }
        drop(nats);
    }
}

/// How many events may be published that did not arrive yet.
const AHEAD: u64 = 5000;

/// What one host publishes while something befalls servers arrives at the other, each event once.
fn loses_nothing(settings: &str, befall: impl FnOnce(&Host, &Host, &AtomicU64)) {
    let (mut a, mut b) = pair();
    start(&mut a, settings);
    start(&mut b, settings);
    let mut at_b = b.client(SPACE);
    at_b.subscribe("", Replay::Nothing);
    let reader = std::thread::spawn(move || {
        let mut came = Vec::new();
        loop {
            let delivery = at_b.next();
            if delivery.provenance == Provenance::Local {
                return came;
            }
            came.push(delivery);
        }
    });
    let mut at_a = a.client(SPACE);
    let (enough, more) = mpsc::channel::<()>();
    // No more than fits what waits to leave the host, however long the servers take.
    let most = Arc::new(AtomicU64::new(AHEAD));
    let may = Arc::clone(&most);
    let publish = std::thread::spawn(move || {
        let mut published = BTreeMap::new();
        while more.try_recv() == Err(TryRecvError::Empty) {
            if published.len() as u64 >= may.load(Ordering::Acquire) {
                std::thread::yield_now();
                continue;
            }
            let text = published.len().to_string();
            published.insert(at_a.publish(&text), text);
        }
        published
    });
    befall(&a, &b, &most);
    drop(enough);
    let mut published: BTreeMap<_, _> = publish.join().unwrap();
    let all = published.len() as u64;
    until("all have arrived", || (b.counter("remote") >= all).then_some(()));
    until("all are confirmed", || (a.way("nats").sent >= all).then_some(()));
    // The last that the reader gets.
    b.client(SPACE).publish("end");
    for delivery in reader.join().unwrap() {
        let text = published.remove(&delivery.event.id).expect("none comes twice");
        assert_eq!(
            (text.as_bytes(), delivery.provenance),
            (&delivery.event.payload.bytes()[..], Provenance::Signed)
        );
    }
    assert!(published.is_empty(), "{} are lost", published.len());
}

fn wait_for_more(b: &Host, most: &AtomicU64) {
    let before = b.counter("remote");
    until("more have arrived", || {
        let now = b.counter("remote");
        most.store(now + AHEAD, Ordering::Release);
        (now > before + 200).then_some(())
    });
}

#[test]
fn a_server_that_is_killed_under_load_loses_nothing() {
    let mut server = Server::with_jetstream();
    loses_nothing(&settings(&server, true), |a, b, most| {
        for part in [1, 2] {
            wait_for_more(b, most);
            server.kill();
            until("they know", || (!a.way("nats").connected && !b.way("nats").connected).then_some(()));
            server.start();
            until("both are back", || (a.way("nats").connected && b.way("nats").connected).then_some(part));
        }
    });
}

#[test]
fn a_cluster_goes_on_without_one_of_its_servers() {
    let mut servers = Server::cluster();
    let urls = servers.each_ref().map(|server| format!("'{}'", server.url())).join(", ");
    loses_nothing(&format!("[nats]\nurl = [{urls}]\njetstream = true\nreplicas = 3\n"), |_, b, most| {
        // One after the other: one that they talk to, or the stream's leader.
        for server in &mut servers[..2] {
            wait_for_more(b, most);
            server.kill();
            wait_for_more(b, most);
            server.start();
        }
    });
}

#[test]
fn what_came_while_a_host_was_away_comes_later() {
    let mut server = Server::with_jetstream();
    let (mut a, mut b) = pair();
    start(&mut a, &settings(&server, true));
    start(&mut b, &settings(&server, true));
    b.stop();
    let mut at_a = a.client(SPACE);
    let away: BTreeMap<_, _> =
        (0..50).map(|number| (at_a.publish(&format!("{number}")), format!("{number}"))).collect();
    start(&mut b, &settings(&server, true));
    let mut at_b = b.client(SPACE);
    at_b.subscribe("", Replay::Recent { events: 1000, within: GUARD });
    at_b.take_once(away);

    a.wait_sent();
    // The server away, and then the host that published: its journal has them.
    server.kill();
    let owed: BTreeMap<_, _> =
        (50..99).map(|number| (at_a.publish(&format!("{number}")), format!("{number}"))).collect();
    a.kill();
    a.start(&settings(&server, true));
    server.start();
    at_b.take_once(owed);
    a.wait_sent();
    let sent = a.way("nats").sent;
    assert!((49..99).contains(&sent), "what was confirmed is not sent again, but {sent} were");
    // And the next run owes nothing.
    a.stop();
    start(&mut a, &settings(&server, true));
    a.client(SPACE).publish("after");
    assert_eq!(at_b.next_text(), ("after".into(), Provenance::Signed));
    a.wait_sent();
    assert_eq!(a.way("nats").sent, 1);
}

#[test]
fn without_jetstream_what_was_not_sent_is_sent_later() {
    let mut server = Server::new(|_| String::new());
    let (mut a, mut b) = pair();
    start(&mut b, &settings(&server, false));
    server.kill();
    a.start(&settings(&server, false));
    let mut at_a = a.client(SPACE);
    let owed: BTreeMap<_, _> =
        (0..600).map(|number| (at_a.publish(&format!("{number}")), format!("{number}"))).collect();
    // A server that nobody listens to has it, and that is all that is promised.
    a.stop();
    let mut at_b = b.client(SPACE);
    at_b.subscribe("", Replay::Nothing);
    until("it has noticed", || (!b.way("nats").connected).then_some(()));
    server.start();
    b.wait_connected("nats");
    start(&mut a, &settings(&server, false));
    at_b.take_once(owed);
}

/// An event as a host would send it, after `change`, which its signature does not know of.
async fn forge(nats: &Nats, event: &Event, change: impl FnOnce(&mut Event)) {
    let mut event = event.clone();
    change(&mut event);
    let subject = format!("steadfast.events.{}.{}", event.space, event.name).to_lowercase();
    nats.publish(subject, event.to_cloud_event().into()).await.unwrap();
}

#[test]
fn a_forgery_is_not_believed() {
    for jetstream in [false, true] {
        let server = Server::with_jetstream();
        let (mut a, mut b) = pair();
        start(&mut a, &settings(&server, jetstream));
        start(&mut b, &settings(&server, jetstream));
        let (mut at_a, mut at_b) = (a.client(SPACE), b.client(SPACE));
        at_b.subscribe("", Replay::Nothing);
        let runtime = runtime();
        let _entered = runtime.enter();
        let nats = runtime.block_on(async_nats::connect(server.url())).unwrap();
        let mut messages = runtime.block_on(nats.subscribe("steadfast.events.>")).unwrap();
        runtime.block_on(nats.request("nobody", "".into())).unwrap_err();
        at_a.publish("true");
        assert_eq!(at_b.next_text(), ("true".into(), Provenance::Signed));
        let message = runtime.block_on(next(&mut messages));
        let event = Event::from_cloud_event(std::str::from_utf8(&message.payload).unwrap()).unwrap();
        let sequence = event.id.sequence;

        runtime.block_on(async {
            // Nobody takes these: our words, a signature of something else, another subject, nothing at all.
            let own = |event: &mut Event| {
                event.signature = None;
                event.id.sequence = sequence + 1;
                event.space = "FTB.network.steadfast".parse().unwrap();
            };
            forge(&nats, &event, own).await;
            forge(&nats, &event, |event| event.id.sequence = sequence + 1).await;
            nats.publish("steadfast.events.a.b.c.done", message.payload.clone()).await.unwrap();
            nats.publish(SUBJECT, "no event".into()).await.unwrap();
            nats.publish(SUBJECT, vec![b' '; 900_000].into()).await.unwrap();
            // The true one once more, and one that takes the next one's number: it is known for what it is.
            nats.publish(SUBJECT, message.payload.clone()).await.unwrap();
            let made_up = |event: &mut Event| {
                event.signature = None;
                event.id.sequence = sequence + 1;
            };
            forge(&nats, &event, made_up).await;
        });
        assert_eq!(at_b.next_text(), ("true".into(), Provenance::Unsigned));
        assert_eq!(b.counter("remote_denied"), 1);
        assert_eq!(b.counter("remote_duplicates"), 1);
        assert_eq!(b.way("nats").refused, 6);
        // It did not keep the true one out.
        at_a.publish("next");
        assert_eq!(at_b.next_text(), ("next".into(), Provenance::Signed));

        // Who is trusted no more is vouched for no more.
        b.distrust(a.key());
        until("the file was read again", || {
            at_a.publish("again");
            (at_b.next_text().1 == Provenance::Unsigned).then_some(())
        });
    }
}

#[test]
fn a_host_proves_itself_to_the_server() {
    let (mut a, mut b) = pair();
    let users = [&a, &b].map(|host| format!("{{ nkey: {} }}", steadfast_daemon::nkey(&host.key())));
    let server = Server::new(|_| format!("authorization {{ users: [{}] }}", users.join(", ")));
    let text = format!("[nats]\nurl = '{}'\nnkey = true\n", server.url());
    start(&mut a, &text);
    start(&mut b, &text);
    let mut at_b = b.client(SPACE);
    at_b.subscribe("", Replay::Nothing);
    a.client(SPACE).publish("one");
    assert_eq!(at_b.next_text(), ("one".into(), Provenance::Signed));
    assert_eq!(a.status().nkey, steadfast_daemon::nkey(&a.key()));
    let mut stranger = Host::new();
    stranger.start(&text);
    until("it is refused, and says why", || {
        stranger.way("nats").fault.filter(|fault| fault.contains("authorization violation"))
    });
}

#[test]
fn passwords_and_tokens() {
    for (users, keys) in [
        ("{ user: ann, password: 'secret 1' }", "user = 'ann'\npassword = 'secret 1'"),
        ("{ token: 'secret 2' }", "token = 'secret 2'"),
    ] {
        let server = Server::new(|_| format!("authorization {users}"));
        let mut host = Host::new();
        start(&mut host, &format!("[nats]\nurl = '{}'\n{keys}\n", server.url()));
        host.client(SPACE).publish("one");
        until("it was sent", || (host.way("nats").sent == 1).then_some(()));
    }
}

/// What one key says of another, as NATS has it: a JWT.
fn token(issuer: &KeyPair, subject: &KeyPair, name: &str, mut claims: serde_json::Value) -> String {
    claims["version"] = 2.into();
    let claims = serde_json::json!({
        "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "name": name, "sub": subject.public_key(),
        "nats": claims,
    });
    let encode = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    let head = encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let text = format!("{head}.{}", encode(claims.to_string().as_bytes()));
    format!("{text}.{}", encode(&issuer.sign(text.as_bytes()).unwrap()))
}

#[test]
fn credentials() {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let of_operator = token(&operator, &operator, "operator", serde_json::json!({ "type": "operator" }));
    let limits = serde_json::json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    let claims = serde_json::json!({ "type": "account", "limits": limits });
    let of_account = token(&operator, &account, "account", claims);
    let claims = serde_json::json!({ "type": "user", "subs": -1, "data": -1, "payload": -1 });
    let server = Server::new(|_| {
        format!(
            "operator: '{of_operator}'\nresolver: MEMORY\nresolver_preload: {{ {}: '{of_account}' }}",
            account.public_key()
        )
    });
    // As `nsc` writes them.
    let file = |name: &str, issuer: &KeyPair| {
        let path = server.directory.0.join(name);
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            token(issuer, &user, "user", claims.clone()),
            user.seed().unwrap()
        );
        std::fs::write(&path, text).unwrap();
        format!("[nats]\nurl = '{}'\ncredentials = '{}'\n", server.url(), path.display())
    };
    let (mut a, mut b) = pair();
    let text = file("user.creds", &account);
    start(&mut a, &text);
    start(&mut b, &text);
    let mut at_b = b.client(SPACE);
    at_b.subscribe("", Replay::Nothing);
    a.client(SPACE).publish("one");
    assert_eq!(at_b.next_text(), ("one".into(), Provenance::Signed));
    let mut stranger = Host::new();
    stranger.start(&file("other.creds", &KeyPair::new_account()));
    until("it is refused, and says why", || {
        stranger.way("nats").fault.filter(|fault| fault.contains("authorization violation"))
    });
}

#[test]
fn what_the_server_forbids_is_not_confirmed() {
    let server = Server::new(|_| {
        "authorization { users: [{ user: ann, password: x, permissions: { publish: ['_INBOX.>'] } }] }".into()
    });
    let mut host = Host::new();
    start(&mut host, &format!("[nats]\nurl = '{}'\nuser = 'ann'\npassword = 'x'\n", server.url()));
    host.client(SPACE).publish("one");
    until("it says so", || host.way("nats").fault.filter(|fault| fault.contains("Permissions Violation")));
    assert_eq!(host.way("nats").sent, 0);
}
