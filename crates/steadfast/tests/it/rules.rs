//! Network rules with real sockets: while the allowed network is silent, down, and back, the forbidden one carries what
//! keeps a path alive and not one byte of a message.

mod failures;

use crate::common::{Directory, next, soon};
use crate::world::{block_on, close_after_peer, endpoint};
use std::path::Path;
use std::time::Duration;
use steadfast::{
    DownReason, Endpoint, Event, Identity, Labels, NetworkClass, Outcome, Override, PathInfo, Receipt, Rule,
    ScoutConfig, Selector,
};
use steadfast_testbed::{Direction, Host, IpNet, Lab, Link, isolated};

/// Bytes of a message: one of them would show in the link's counters.
const LENGTH: usize = 200_000;

/// Everything that happened on the paths of an endpoint so far.
struct Paths {
    endpoint: Endpoint,
    events: steadfast::Events,
    down: Vec<(PathInfo, DownReason)>,
}

impl Paths {
    fn new(endpoint: &Endpoint) -> Self {
        Self { endpoint: endpoint.clone(), events: endpoint.events(), down: Vec::new() }
    }

    fn note(&mut self, event: Event) {
        if let Event::PathDown(info, reason) = event {
            self.down.push((info, reason));
        }
    }

    async fn until(&mut self, what: &str, done: impl Fn(&[PathInfo], &[(PathInfo, DownReason)]) -> bool) {
        while !done(&self.endpoint.paths(), &self.down) {
            let event = soon(what, self.events.next()).await.unwrap();
            self.note(event);
        }
    }

    /// Bytes of messages that were ever given to a network; to be asked when nothing happens any more.
    async fn data_sent(&mut self, network: &str) -> u64 {
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(50), self.events.next()).await
        {
            self.note(event);
        }
        let all = self.down.iter().map(|(info, _)| info.clone()).chain(self.endpoint.paths());
        all.filter(|info| info.local_name == network).map(|info| info.data_sent).sum()
    }
}

fn name(name: &str) -> Selector {
    Selector::Name(name.into())
}

fn lte_is(metered: bool) -> ScoutConfig {
    let lte = Override {
        interface: "lte".into(),
        class: Some(NetworkClass::Cellular),
        metered: Some(metered),
        ..Override::default()
    };
    ScoutConfig { nmcli: None, overrides: vec![lte], ..ScoutConfig::default() }
}

async fn delivered(receipts: Vec<Receipt>) {
    for receipt in receipts {
        assert_eq!(soon("outcome", receipt.outcome()).await, Outcome::Delivered);
    }
}

/// Runs `sender` on one host, while the other takes all that comes.
fn two_hosts(
    sides: [ScoutConfig; 2],
    sender: impl AsyncFnOnce(Endpoint, steadfast::MultiSocket, [Link; 2], Host) + Send + 'static,
) {
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    let wifi = lab.link("wifi", &a, &b).rate_mbit(40.0).delay(Duration::from_millis(5)).connect().unwrap();
    // The better one, so that whatever may go there does.
    let lte = lab.link("lte", &a, &b).rate_mbit(200.0).connect().unwrap();
    let (contact_out, contact_in) = tokio::sync::oneshot::channel();
    let (a_key, b_key) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let a_print = a_key.fingerprint();
    let [scout_a, scout_b] = sides;
    let receiver = b.thread("receiver", move || {
        block_on(async move {
            let endpoint = endpoint().scout(scout_b).identity(b_key).trust(a_print).bind().await.unwrap();
            contact_out.send(endpoint.contact()).unwrap();
            let socket = endpoint.accept().await.unwrap();
            while next(&socket).await.is_some() {}
            close_after_peer(&socket).await;
        });
    });
    let host = a.clone();
    let sender = a.thread("sender", move || {
        block_on(async move {
            let mut config = steadfast::Config::default();
            config.metered_standby = true;
            let builder = endpoint().scout(scout_a).config(config).identity(a_key);
            let endpoint = builder.bind().await.unwrap();
            let socket = endpoint.connect(contact_in.await.unwrap()).await.unwrap();
            sender(endpoint.clone(), socket.clone(), [wifi, lte], host).await;
            soon("closing", socket.close()).await.unwrap();
            endpoint.close("the test is over").await;
        });
    });
    sender.join().unwrap();
    receiver.join().unwrap();
}

#[test]
fn not_one_byte_of_a_message_on_a_forbidden_network() {
    isolated("rules::not_one_byte_of_a_message_on_a_forbidden_network", || {
        let rules = [
            Rule::default().prohibit(name("lte")),
            Rule::default().prohibit(Selector::Class(NetworkClass::Cellular)).prefer(name("lte")),
            Rule::default().prohibit(Selector::Metered),
            Rule::default().require(name("wifi")),
        ];
        // What the network is, this side knows, or only the other.
        let plain = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
        for sides in [[lte_is(true), plain.clone()], [plain, lte_is(true)]] {
            let rules = rules.clone();
            two_hosts(sides, async move |endpoint, socket, [wifi, lte], host| {
                let mut paths = Paths::new(&endpoint);
                paths.until("both networks", |up, _| up.len() == 2).await;
                let before = lte.counters();
                let mut receipts = Vec::new();
                let mut say = async || {
                    for rule in &rules {
                        for labels in [Labels::foreground(), Labels::background()] {
                            let labels = labels.rule(rule.clone());
                            receipts.push(socket.send(vec![1; LENGTH], labels).await.unwrap());
                        }
                    }
                };
                say().await;
                wifi.blackhole(Direction::Both);
                say().await;
                paths.until("silence is noticed", |_, down| !down.is_empty()).await;
                wifi.heal();
                paths.until("it is back", |up, _| up.len() == 2).await;
                wifi.carrier_down(&host).unwrap();
                paths.until("it is down", |up, _| up.len() == 1).await;
                say().await;
                wifi.carrier_up(&host).unwrap();
                delivered(receipts).await;
                assert_eq!(paths.data_sent("lte").await, 0);
                assert!(paths.data_sent("wifi").await >= 24 * LENGTH as u64);
                let after = lte.counters();
                let control = after.a_to_b.bytes - before.a_to_b.bytes;
                assert!(control < LENGTH as u64 / 2, "{control} bytes are more than control");
                // The counters do count.
                let there = Labels::foreground().rule(Rule::default().prefer(name("lte")));
                delivered(vec![socket.send(vec![1; LENGTH], there).await.unwrap()]).await;
                assert!(paths.data_sent("lte").await >= LENGTH as u64);
                assert!(lte.counters().a_to_b.bytes - after.a_to_b.bytes > LENGTH as u64);
            });
        }
    });
}

/// Asks a file what is metered, as the tests of the scout do.
fn asks(directory: &Path) -> ScoutConfig {
    let nmcli = directory.join("nmcli");
    let real = concat!(env!("CARGO_MANIFEST_DIR"), "/../net/tests/it/nmcli");
    std::os::unix::fs::symlink(real, &nmcli).unwrap();
    ScoutConfig { nmcli: Some(nmcli), nmcli_limit: crate::world::GUARD, ..ScoutConfig::default() }
}

#[test]
fn a_network_becomes_metered_in_the_middle_of_a_message() {
    isolated("rules::a_network_becomes_metered_in_the_middle_of_a_message", || {
        for side in [0, 1] {
            let directory = Directory::new();
            let say = |metered: &str| format!("GENERAL.DEVICE:lte\nGENERAL.METERED:{metered}\n");
            let answer = directory.0.join("answer");
            std::fs::write(&answer, say("no")).unwrap();
            let mut sides = [0, 1].map(|_| ScoutConfig { nmcli: None, ..ScoutConfig::default() });
            sides[side] = asks(&directory.0);
            let metered = say("yes");
            two_hosts(sides, async move |endpoint, socket, [wifi, lte], _| {
                let mut paths = Paths::new(&endpoint);
                paths.until("both networks", |up, _| up.len() == 2).await;
                let rule = Rule::default().prohibit(Selector::Metered).prefer(name("lte"));
                // 20 MB, of which the network carries a part before the scout has asked, and the other one seconds' worth.
                let labels = Labels::background().rule(rule);
                let mut receipts = Vec::new();
                for _ in 0..100 {
                    receipts.push(socket.send(vec![1; LENGTH], labels.clone()).await.unwrap());
                }
                // What is under way stays so: on a busy machine all of it may have been acknowledged just when the news come,
                // and then there is nothing to reset.
                lte.blackhole(Direction::BToA);
                std::fs::write(&answer, &metered).unwrap();
                // The scout asks again when an address changes.
                let [a, b] = lte.hosts().map(Host::clone);
                let net: IpNet = "10.77.0.1/24".parse().unwrap();
                lte.add_address(if side == 0 { &a } else { &b }, net).unwrap();
                let reset = |_: &[PathInfo], down: &[(PathInfo, DownReason)]| {
                    down.iter().any(|(info, why)| info.local_name == "lte" && *why == DownReason::Prohibited)
                };
                paths.until("the carrier is reset", reset).await;
                lte.heal();
                let before = paths.data_sent("lte").await;
                let sent = lte.counters();
                delivered(receipts).await;
                assert_eq!(paths.data_sent("lte").await, before, "not one byte more");
                let control = lte.counters().a_to_b.bytes - sent.a_to_b.bytes;
                assert!(control < LENGTH as u64 / 2, "{control} bytes are more than control");
                assert!(wifi.counters().a_to_b.bytes > 10 * LENGTH as u64, "the rest moved");
                assert_eq!(endpoint.stats().rules_enforced, 1);
            });
        }
    });
}

/// TCP segments that this thread's host has sent, and how many of them were resets.
fn segments_sent() -> [u64; 2] {
    let table = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let [names, values] = [0, 1].map(|line| {
        let mut lines = table.lines().filter(|text| text.starts_with("Tcp:"));
        lines.nth(line).unwrap().split_whitespace().collect::<Vec<_>>()
    });
    ["OutSegs", "OutRsts"].map(|wanted| {
        let column = names.iter().position(|name| *name == wanted).unwrap();
        values[column].parse().unwrap()
    })
}

#[test]
fn a_network_over_which_nothing_may_be_connected_hears_nothing() {
    isolated("rules::a_network_over_which_nothing_may_be_connected_hears_nothing", || {
        const CALLS: u64 = 20;
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let wifi = lab.link("wifi", &a, &b).connect().unwrap();
        let lte = lab.link("lte", &a, &b).connect().unwrap();
        let (a_key, b_key) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let (a_print, b_print) = (a_key.fingerprint(), b_key.fingerprint());
        let (port_out, port_in) = tokio::sync::oneshot::channel();
        let (met_out, met_in) = tokio::sync::oneshot::channel();
        let (by_wifi, by_lte) = (wifi.address_of(&b), lte.address_of(&b));
        let strict = b.thread("strict", move || {
            block_on(async move {
                let strict = endpoint().identity(b_key).trust(a_print).never_connect([name("lte")]);
                let strict = strict.bind().await.unwrap();
                port_out.send((strict.port(), strict.clone())).unwrap();
                let socket = strict.accept().await.unwrap();
                assert!(next(&socket).await.is_some());
                met_out.send(strict.paths()).unwrap();
                assert!(next(&socket).await.is_none());
                close_after_peer(&socket).await;
                strict.close("the test is over").await;
            });
        });
        let host = b.clone();
        let open = a.thread("open", move || {
            block_on(async move {
                let (port, strict) = port_in.await.unwrap();
                let before = host.run(segments_sent);
                for call in 0..CALLS {
                    // It may be over before the system says that it had begun.
                    let end = match tokio::net::TcpStream::connect((by_lte, port)).await {
                        Ok(stream) => {
                            soon("the end", stream.readable()).await.unwrap();
                            stream.try_read(&mut [0; 100])
                        }
                        Err(error) => Err(error),
                    };
                    let end = end.map_err(|error| error.kind());
                    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "call {call}");
                }
                let counted = async {
                    while strict.reception().gated < CALLS {
                        tokio::task::yield_now().await;
                    }
                };
                soon("the last is counted", counted).await;
                let after = host.run(segments_sent);
                // What the kernel says to let one in, before it asks us, and the reset.
                assert_eq!([0, 1].map(|of| after[of] - before[of]), [2 * CALLS, CALLS]);

                // One of ours tries both networks as long as it is told of both, and gets in by the other.
                let before = lte.counters().b_to_a;
                let endpoint = endpoint().identity(a_key).bind().await.unwrap();
                let contact = format!("{b_print}@{by_lte}:{port},{by_wifi}:{port}");
                let socket = endpoint.connect(contact).await.unwrap();
                delivered(vec![socket.send(vec![1; LENGTH], Labels::foreground()).await.unwrap()]).await;
                let names: Vec<_> = met_in.await.unwrap().into_iter().map(|path| path.local_name).collect();
                assert_eq!(names, ["wifi"]);
                let after = lte.counters().b_to_a;
                let [frames, bytes] = [after.frames - before.frames, after.bytes - before.bytes];
                assert!(strict.reception().gated > CALLS, "it was tried");
                assert!(
                    bytes <= frames * 110,
                    "{bytes} bytes in {frames} frames: there is more than headers"
                );
                soon("closing", socket.close()).await.unwrap();
                endpoint.close("the test is over").await;
            });
        });
        open.join().unwrap();
        strict.join().unwrap();
    });
}
