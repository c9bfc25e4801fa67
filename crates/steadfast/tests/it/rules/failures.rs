//! Every failure that a lab can make, one after another, to the network that messages may use: nothing of them moves to the
//! other one, nor anything of the answers, which have the same rule.

use super::{Paths, delivered, lte_is, name};
use crate::common::{log, next, soon};
use crate::world::{block_on, close_after_peer, endpoint};
use std::time::Duration;
use steadfast::{Config, Endpoint, Identity, Labels, MultiSocket, NetworkClass, Receipt, Rule, Selector};
use steadfast_testbed::{Direction, Host, IpNet, Lab, Link, Loss, isolated};

/// Bytes of a message: one of them would show in the link's counters.
const LENGTH: usize = 100_000;

/// What the failures happen to.
struct Stage {
    lab: Lab,
    a: Host,
    b: Host,
    wifi: Link,
    lte: Link,
}

impl Stage {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let (wifi, lte) = (new_wifi(&lab, &a, &b), new_lte(&lab, &a, &b));
        Self { lab, a, b, wifi, lte }
    }

    fn readdress(&self, host: &Host, to: &str) {
        let old = self.wifi.addresses_of(host);
        self.wifi.add_address(host, to.parse::<IpNet>().unwrap()).unwrap();
        for net in old {
            self.wifi.remove_address(host, net).unwrap();
        }
    }
}

fn new_wifi(lab: &Lab, a: &Host, b: &Host) -> Link {
    lab.link("wifi", a, b).rate_mbit(40.0).delay(Duration::from_millis(5)).connect().unwrap()
}

/// The better one, so that whatever may go there does.
fn new_lte(lab: &Lab, a: &Host, b: &Host) -> Link {
    lab.link("lte", a, b).rate_mbit(200.0).connect().unwrap()
}

/// How one sees that a failure has come to something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Felt {
    /// A path is down, and the other network is still there.
    Down,
    /// The forbidden network's own path is down.
    ForbiddenDown,
    /// Frames were lost.
    Loss,
}

struct Failure {
    what: &'static str,
    strike: fn(&Stage),
    felt: Felt,
    mend: fn(&mut Stage),
}

const FAILURES: &[Failure] = &[
    Failure {
        what: "silent both ways",
        strike: |stage| stage.wifi.blackhole(Direction::Both),
        felt: Felt::Down,
        mend: |stage| stage.wifi.heal(),
    },
    Failure {
        what: "silent towards the peer",
        strike: |stage| stage.wifi.blackhole(Direction::AToB),
        felt: Felt::Down,
        mend: |stage| stage.wifi.heal(),
    },
    Failure {
        what: "silent from the peer",
        strike: |stage| stage.wifi.blackhole(Direction::BToA),
        felt: Felt::Down,
        mend: |stage| stage.wifi.heal(),
    },
    Failure {
        what: "our interface down",
        strike: |stage| stage.wifi.carrier_down(&stage.a).unwrap(),
        felt: Felt::Down,
        mend: |stage| stage.wifi.carrier_up(&stage.a).unwrap(),
    },
    Failure {
        what: "the peer's interface down",
        strike: |stage| stage.wifi.carrier_down(&stage.b).unwrap(),
        felt: Felt::Down,
        mend: |stage| stage.wifi.carrier_up(&stage.b).unwrap(),
    },
    Failure {
        what: "our plug pulled",
        strike: |stage| stage.wifi.unplug(&stage.a).unwrap(),
        felt: Felt::Down,
        mend: |stage| stage.wifi.plug(&stage.a).unwrap(),
    },
    Failure {
        what: "the peer's plug pulled",
        strike: |stage| stage.wifi.unplug(&stage.b).unwrap(),
        felt: Felt::Down,
        mend: |stage| stage.wifi.plug(&stage.b).unwrap(),
    },
    Failure {
        what: "our address changes",
        strike: |stage| stage.readdress(&stage.a, "10.1.0.11/24"),
        felt: Felt::Down,
        mend: |_| {},
    },
    Failure {
        what: "the peer's address changes",
        strike: |stage| stage.readdress(&stage.b, "10.1.0.12/24"),
        felt: Felt::Down,
        mend: |_| {},
    },
    Failure {
        what: "loss in bursts",
        strike: |stage| {
            stage.wifi.set(|settings| settings.loss = Loss::Bursty { share: 0.05, mean_burst: 5.0 });
        },
        felt: Felt::Loss,
        mend: |stage| stage.wifi.set(|settings| settings.loss = Loss::NONE),
    },
    Failure {
        what: "the network vanishes, and one like it appears",
        strike: |stage| stage.wifi.remove().unwrap(),
        felt: Felt::Down,
        mend: |stage| stage.wifi = new_wifi(&stage.lab, &stage.a, &stage.b),
    },
    Failure {
        what: "the forbidden network vanishes, and appears while the other is silent",
        strike: |stage| {
            stage.wifi.blackhole(Direction::Both);
            stage.lte.remove().unwrap();
        },
        felt: Felt::ForbiddenDown,
        mend: |stage| {
            stage.lte = new_lte(&stage.lab, &stage.a, &stage.b);
            stage.wifi.heal();
        },
    },
];

/// Sends a message of either urgency under each rule.
async fn say(socket: &MultiSocket, rules: &[Rule], receipts: &mut Vec<Receipt>) {
    for rule in rules {
        for labels in [Labels::foreground(), Labels::background()] {
            let labels = labels.rule(rule.clone());
            receipts.push(socket.send(vec![1; LENGTH], labels).await.unwrap());
        }
    }
}

/// Waits until everything was delivered and answered.
async fn settled(socket: &MultiSocket, receipts: Vec<Receipt>) {
    for _ in &receipts {
        assert_eq!(next(socket).await.map(|answer| answer.len()), Some(LENGTH));
    }
    delivered(receipts).await;
}

async fn through_all(endpoint: &Endpoint, socket: &MultiSocket, stage: &mut Stage) {
    let rules = [
        Rule::default().prohibit(name("lte")),
        Rule::default().prohibit(Selector::Class(NetworkClass::Cellular)).prefer(name("lte")),
        Rule::default().prohibit(Selector::Metered),
        Rule::default().require(name("wifi")),
    ];
    let mut paths = Paths::new(endpoint);
    for Failure { what, strike, felt, mend } in FAILURES {
        paths.until(what, |up, _| up.len() == 2).await;
        let (lost, mut before) = (paths.down.len(), stage.lte.counters());
        let mut receipts = Vec::new();
        say(socket, &rules, &mut receipts).await;
        strike(stage);
        say(socket, &rules, &mut receipts).await;
        if *felt == Felt::Loss {
            let dropped = async {
                while stage.wifi.counters().a_to_b.dropped_loss < 20 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            soon(what, dropped).await;
        } else {
            paths.until(what, |_, down| down.len() > lost).await;
        }
        let there = endpoint.paths().iter().any(|path| path.local_name == "lte");
        assert_eq!(there, *felt != Felt::ForbiddenDown, "{what}");
        say(socket, &rules, &mut receipts).await;
        mend(stage);
        if *felt == Felt::ForbiddenDown {
            before = steadfast_testbed::Counters::default();
        }
        settled(socket, receipts).await;
        assert_eq!(paths.data_sent("lte").await, 0, "{what}");
        let after = stage.lte.counters();
        for (after, before) in [(after.a_to_b, before.a_to_b), (after.b_to_a, before.b_to_a)] {
            let control = after.bytes - before.bytes;
            assert!(control < LENGTH as u64 / 2, "{what}: {control} bytes are more than control");
        }
    }
    // The counters do count, both ways.
    let before = stage.lte.counters();
    let there = Labels::foreground().rule(Rule::default().prefer(name("lte")));
    settled(socket, vec![socket.send(vec![1; LENGTH], there).await.unwrap()]).await;
    assert!(paths.data_sent("lte").await >= LENGTH as u64);
    let after = stage.lte.counters();
    for (after, before) in [(after.a_to_b, before.a_to_b), (after.b_to_a, before.b_to_a)] {
        assert!(after.bytes - before.bytes > LENGTH as u64);
    }
}

#[test]
fn no_failure_moves_a_byte_of_a_message_to_a_forbidden_network() {
    isolated("rules::failures::no_failure_moves_a_byte_of_a_message_to_a_forbidden_network", || {
        log();
        let mut stage = Stage::new();
        let (contact_out, contact_in) = tokio::sync::oneshot::channel();
        let (a_key, b_key) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let a_print = a_key.fingerprint();
        let mut config = Config::default();
        config.metered_standby = true;
        // Most of the failures are silent.
        config.down_after = Duration::from_secs(1);
        let ours = endpoint().scout(lte_is(true)).config(config.clone()).identity(a_key);
        let theirs = endpoint().scout(lte_is(true)).config(config).identity(b_key).trust(a_print);
        let receiver = stage.b.thread("receiver", move || {
            block_on(async move {
                let endpoint = theirs.bind().await.unwrap();
                contact_out.send(endpoint.contact()).unwrap();
                let socket = endpoint.accept().await.unwrap();
                while let Some(message) = soon("a message", socket.recv()).await.unwrap() {
                    let labels = message.labels.clone();
                    socket.send(message.into_bytes().await.unwrap(), labels).await.unwrap();
                }
                close_after_peer(&socket).await;
            });
        });
        let sender = stage.a.clone().thread("sender", move || {
            block_on(async move {
                let endpoint = ours.bind().await.unwrap();
                let socket = endpoint.connect(contact_in.await.unwrap()).await.unwrap();
                through_all(&endpoint, &socket, &mut stage).await;
                soon("closing", socket.close()).await.unwrap();
                endpoint.close("the test is over").await;
            });
        });
        sender.join().unwrap();
        receiver.join().unwrap();
    });
}
