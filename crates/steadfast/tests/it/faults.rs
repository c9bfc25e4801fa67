//! Faults of real networks, in a lab: two hosts, two networks, a background file beside urgent messages. Whatever
//! happens, everything arrives once, in order. `STEADFAST_ROUNDS` repeats each scenario.

use crate::common::{log, soon};
use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;
use steadfast::{
    CloseError, EndReason, Endpoint, Event, Identity, Labels, MultiSocket, Outcome, ScoutConfig,
    SessionError, Urgency,
};
use steadfast_testbed::{Direction, Host, IpNet, Lab, Link, isolated};

/// The file: so many messages of so many bytes.
const PIECES: u32 = 150;
const PIECE: usize = 32 * 1024;
/// Urgent messages, and their pace.
const URGENT: u32 = 150;
const PACE: Duration = Duration::from_millis(10);
/// Nothing that works takes this long.
const GUARD: Duration = Duration::from_secs(60);

/// What the workload tells the scenario.
#[derive(Debug, PartialEq, Eq)]
enum Signal {
    /// So many pieces of the file have arrived.
    Pieces(u32),
    Parked,
    Resumed,
    Done,
}

struct World {
    a: Host,
    b: Host,
    wifi: Link,
    lte: Link,
}

/// Runs the workload; `fault` is told how it goes and does what it likes to the networks.
fn scenario(name: &str, fault: fn(&World, &Signal)) {
    isolated(&format!("faults::{name}"), || {
        let rounds = std::env::var("STEADFAST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        for _ in 0..rounds {
            round(fault);
        }
    });
}

fn round(fault: fn(&World, &Signal)) {
    log();
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    let wifi = lab.link("wifi", &a, &b).rate_mbit(20.0).delay(Duration::from_millis(10)).connect().unwrap();
    let lte = lab.link("lte", &a, &b).rate_mbit(10.0).delay(Duration::from_millis(30)).connect().unwrap();
    let world = World { a, b, wifi, lte };

    let (signals, heard) = mpsc::channel();
    let (contact_out, contact_in) = tokio::sync::oneshot::channel();
    let (a_key, b_key) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let a_print = a_key.fingerprint();
    let receiver = {
        let signals = signals.clone();
        world.b.thread("receiver", move || {
            block_on(async move {
                let endpoint = endpoint().identity(b_key).trust(a_print).bind().await.unwrap();
                contact_out.send(endpoint.contact()).unwrap();
                let socket = endpoint.accept().await.unwrap();
                receive(&socket, &signals).await;
                // The sender may leave before this hears that both ends agreed.
                let closed = socket.close_within(GUARD).await;
                let left = |reason| matches!(reason, SessionError::Ended { reason: EndReason::Left, .. });
                assert!(
                    matches!(&closed, Ok(()))
                        || matches!(&closed, Err(CloseError::Session(e)) if left(e.clone())),
                    "{closed:?}"
                );
                endpoint.close("the test is over").await;
            });
        })
    };
    let sender = world.a.thread("sender", move || {
        block_on(async move {
            let endpoint = endpoint().identity(a_key).bind().await.unwrap();
            let contact = contact_in.await.unwrap();
            let socket = endpoint.connect(contact).await.unwrap();
            let mut events = socket.events();
            let watcher = signals.clone();
            tokio::spawn(async move {
                while let Some(event) = events.next().await {
                    let signal = match event {
                        Event::Parked { .. } => Signal::Parked,
                        Event::Resumed { .. } => Signal::Resumed,
                        _ => continue,
                    };
                    let _listens = watcher.send(signal);
                }
            });
            send(&socket).await;
            endpoint.close("everything was delivered").await;
            signals.send(Signal::Done).unwrap();
        });
    });
    loop {
        let signal = heard.recv_timeout(GUARD).expect("the workload goes on");
        if signal == Signal::Done {
            break;
        }
        fault(&world, &signal);
    }
    sender.join().unwrap();
    receiver.join().unwrap();
}

fn endpoint() -> steadfast::Builder {
    Endpoint::builder().scout(ScoutConfig { nmcli: None, ..ScoutConfig::default() }).connect_limit(GUARD)
}

fn block_on(workload: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(GUARD, workload).await.expect("the workload ends");
    });
}

async fn send(socket: &MultiSocket) {
    let file = async {
        let mut receipts = Vec::new();
        for number in 0..PIECES {
            let mut piece = vec![number as u8; PIECE];
            piece[..4].copy_from_slice(&number.to_be_bytes());
            receipts.push(socket.send(piece, Labels::background()).await.unwrap());
        }
        receipts
    };
    let urgent = async {
        let mut receipts = Vec::new();
        for number in 0..URGENT {
            receipts.push(socket.send(number.to_be_bytes().to_vec(), Labels::foreground()).await.unwrap());
            tokio::time::sleep(PACE).await;
        }
        receipts
    };
    let (file, urgent) = tokio::join!(file, urgent);
    for receipt in file.into_iter().chain(urgent) {
        assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
    }
    socket.close_within(GUARD).await.unwrap();
}

async fn receive(socket: &MultiSocket, signals: &mpsc::Sender<Signal>) {
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
            signals.send(Signal::Pieces(number + 1)).unwrap();
        }
    }
    assert_eq!(next, [URGENT, PIECES]);
}

#[test]
fn silent_cut_of_the_better_network() {
    scenario("silent_cut_of_the_better_network", |world, signal| match signal {
        Signal::Pieces(50) => world.wifi.blackhole(Direction::Both),
        Signal::Pieces(120) => world.wifi.heal(),
        _ => {}
    });
}

#[test]
fn own_link_down() {
    scenario("own_link_down", |world, signal| match signal {
        Signal::Pieces(50) => world.wifi.carrier_down(&world.a).unwrap(),
        Signal::Pieces(100) => world.wifi.carrier_up(&world.a).unwrap(),
        _ => {}
    });
}

#[test]
fn both_networks_gone_and_one_back() {
    scenario("both_networks_gone_and_one_back", |world, signal| match signal {
        Signal::Pieces(50) => {
            world.wifi.carrier_down(&world.a).unwrap();
            world.lte.blackhole(Direction::Both);
        }
        Signal::Parked => world.lte.heal(),
        _ => {}
    });
}

#[test]
fn cut_in_one_direction() {
    scenario("cut_in_one_direction", |world, signal| match signal {
        Signal::Pieces(30) => world.wifi.blackhole(Direction::BToA),
        Signal::Pieces(60) => world.wifi.heal(),
        Signal::Pieces(90) => world.wifi.blackhole(Direction::AToB),
        _ => {}
    });
}

#[test]
fn an_address_changes() {
    scenario("an_address_changes", |world, signal| {
        if *signal == Signal::Pieces(50) {
            let old = world.wifi.addresses_of(&world.a);
            let new: IpNet = "10.1.0.77/24".parse().unwrap();
            world.wifi.add_address(&world.a, new).unwrap();
            for net in old {
                world.wifi.remove_address(&world.a, net).unwrap();
            }
        }
    });
}
