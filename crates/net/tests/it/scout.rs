//! Networks come, change and go, in namespaces of the tests' own.

use crate::common::{Directory, GUARD, guarded, in_namespace, ip};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use steadfast_net::scout::{Finding, Knowledge, Override};
use steadfast_net::{ConnectOptions, Listener, Scout, ScoutConfig, connect};
use steadfast_wire::{Network, NetworkClass};

/// An interface that is up and has its carrier as long as `NAME-far` is up; neither has an address.
fn add(name: &str) {
    ip(&format!("link add {name} type veth peer name {name}-far"));
    for end in [format!("{name}-far"), name.to_string()] {
        ip(&format!("link set {end} addrgenmode none"));
        ip(&format!("link set {end} up"));
    }
}

fn quiet() -> ScoutConfig {
    ScoutConfig { nmcli: None, ..ScoutConfig::default() }
}

fn find<'n>(networks: &'n [Network], name: &str) -> Option<&'n Network> {
    networks.iter().find(|network| network.name == name)
}

fn ips(network: &Network) -> Vec<String> {
    network.addresses.iter().map(|address| format!("{}/{}", address.ip, address.prefix)).collect()
}

/// Waits until the networks are as wanted.
async fn until(scout: &mut Scout, what: &str, wanted: impl Fn(&[Network]) -> bool) {
    let waiting = async {
        while !wanted(&scout.networks()) {
            scout.changed().await.unwrap();
        }
    };
    let seen = tokio::time::timeout(GUARD / 2, waiting).await;
    assert!(seen.is_ok(), "never {what}: {:?}", scout.networks());
}

#[test]
fn a_network_comes_changes_and_goes() {
    in_namespace("a_network_comes_changes_and_goes", || async {
        let mut scout = Scout::start(quiet()).await.unwrap();
        let networks = scout.networks();
        assert_eq!(networks.len(), 1, "{networks:?}");
        assert_eq!((networks[0].name.as_str(), networks[0].class), ("lo", NetworkClass::Loopback));
        assert!(ips(&networks[0]).contains(&"127.0.0.1/8".to_string()));

        add("d0");
        ip("addr add 10.1.0.1/24 dev d0");
        let has = |wanted: &'static [&str]| {
            move |networks: &[Network]| find(networks, "d0").is_some_and(|network| ips(network) == wanted)
        };
        until(&mut scout, "there", has(&["10.1.0.1/24"])).await;
        let d0 = find(&scout.networks(), "d0").unwrap().clone();
        assert_eq!((d0.class, d0.metered, d0.cost, d0.port), (NetworkClass::Virtual, false, 0, 0));
        assert_eq!(scout.device_of(d0.id).as_deref(), Some("d0"));

        ip("addr add fd01::1/64 dev d0 nodad");
        until(&mut scout, "with a second address", has(&["10.1.0.1/24", "fd01::1/64"])).await;
        ip("addr del 10.1.0.1/24 dev d0");
        until(&mut scout, "without its first address", has(&["fd01::1/64"])).await;
        ip("addr del fd01::1/64 dev d0");
        until(&mut scout, "without addresses", |networks| find(networks, "d0").is_none()).await;
        ip("addr add 10.1.0.1/24 dev d0");
        until(&mut scout, "back", has(&["10.1.0.1/24"])).await;
        ip("link set d0 down");
        until(&mut scout, "down", |networks| find(networks, "d0").is_none()).await;
        assert_eq!(scout.device_of(d0.id), None);
        ip("link set d0 up");
        until(&mut scout, "up", has(&["10.1.0.1/24"])).await;
        ip("link set d0-far down");
        until(&mut scout, "without carrier", |networks| find(networks, "d0").is_none()).await;
        ip("link set d0-far up");
        until(&mut scout, "with carrier", has(&["10.1.0.1/24"])).await;
        ip("link del d0");
        until(&mut scout, "gone", |networks| find(networks, "d0").is_none()).await;
    });
}

#[test]
fn a_pair_loses_its_carrier_with_its_peer() {
    in_namespace("a_pair_loses_its_carrier_with_its_peer", || async {
        let mut scout = Scout::start(quiet()).await.unwrap();
        ip("link add v0 type veth peer name v1");
        ip("addr add fd02::1/64 dev v0");
        ip("link set v0 up");
        ip("link set v1 up");
        // Not before the address was tested for duplicates.
        until(&mut scout, "there", |networks| {
            find(networks, "v0").is_some_and(|v0| ips(v0) == ["fd02::1/64"])
        })
        .await;
        assert_eq!(find(&scout.networks(), "v0").unwrap().class, NetworkClass::Virtual);
        // Without another address the link-local one counts.
        until(&mut scout, "the other end", |networks| {
            find(networks, "v1").is_some_and(|v1| v1.addresses.len() == 1 && ips(v1)[0].starts_with("fe80"))
        })
        .await;
        let link_local = find(&scout.networks(), "v1").unwrap().addresses[0].ip;
        let mut listener = Listener::bind_any(0).unwrap();
        let remote = SocketAddr::new(link_local, listener.port());
        let options = ConnectOptions { device: Some("lo".into()), ..ConnectOptions::to(remote) };
        assert!(connect(&options).await.is_err(), "a link-local address was reached over another interface");
        let options = ConnectOptions { device: Some("v1".into()), ..ConnectOptions::to(remote) };
        let (stream, accepted) = tokio::join!(connect(&options), listener.accept());
        drop((stream.unwrap(), accepted));

        ip("link set v1 down");
        until(&mut scout, "without carrier", |networks| find(networks, "v0").is_none()).await;
        ip("link set v1 up");
        until(&mut scout, "back", |networks| find(networks, "v0").is_some()).await;
    });
}

#[test]
fn a_route_is_told() {
    in_namespace("a_route_is_told", || async {
        add("d0");
        ip("addr add 10.1.0.1/24 dev d0");
        let scout = Scout::start(quiet()).await.unwrap();
        let mut routes = scout.routes();
        routes.mark_unchanged();
        ip("route add 10.9.0.0/16 via 10.1.0.2");
        guarded(routes.changed()).await.unwrap();
    });
}

#[test]
fn configuration_wins() {
    in_namespace("configuration_wins", || async {
        for name in ["d0", "d1", "x0"] {
            add(name);
            ip(&format!("addr add 10.1.0.1/24 dev {name}"));
        }
        let entry = |interface: &str| Override { interface: interface.into(), ..Override::default() };
        let config = ScoutConfig {
            port: 99,
            overrides: vec![
                Override { class: Some(NetworkClass::Satellite), cost: Some(7), ..entry("d?") },
                Override { name: Some("dish".into()), metered: Some(true), ..entry("d0") },
                Override { ignore: Some(true), ..entry("x*") },
            ],
            ..quiet()
        };
        let scout = Scout::start(config).await.unwrap();
        let networks = scout.networks();
        assert!(find(&networks, "x0").is_none() && find(&networks, "d0").is_none(), "{networks:?}");
        let (dish, d1) = (find(&networks, "dish").unwrap(), find(&networks, "d1").unwrap());
        assert_eq!((dish.class, dish.cost, dish.metered), (NetworkClass::Satellite, 7, true));
        assert_eq!((d1.class, d1.cost, d1.metered), (NetworkClass::Satellite, 7, false));
        assert_eq!((dish.port, scout.device_of(dish.id).as_deref()), (99, Some("d0")));
    });
}

/// A fake nmcli in `directory`: a link to the committed one, since a script that was just written may be "busy" in a
/// child that another test is starting.
fn fake_nmcli(directory: &Path) -> PathBuf {
    let path = directory.join("nmcli");
    std::os::unix::fs::symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/nmcli"), &path).unwrap();
    path
}

#[test]
fn the_network_manager_is_asked() {
    in_namespace("the_network_manager_is_asked", || async {
        let directory = Directory::new();
        let answer = directory.path().join("answer");
        let say = |name: &str, metered: &str| {
            fs::write(&answer, format!("GENERAL.DEVICE:{name}\nGENERAL.METERED:{metered}\n")).unwrap();
        };
        let nmcli = fake_nmcli(directory.path());
        for name in ["d0", "d1"] {
            add(name);
            ip(&format!("addr add 10.1.0.1/24 dev {name}"));
        }
        say("d0", "yes (guessed)");
        let config = ScoutConfig { nmcli: Some(nmcli.clone()), nmcli_limit: GUARD, ..ScoutConfig::default() };
        let mut scout = Scout::start(config.clone()).await.unwrap();
        assert!(find(&scout.networks(), "d0").unwrap().metered, "known from the start");
        assert!(!find(&scout.networks(), "d1").unwrap().metered);

        say("d1", "yes");
        ip("addr add 10.2.0.1/24 dev d1");
        until(&mut scout, "asked again", |networks| {
            find(networks, "d1").unwrap().metered && !find(networks, "d0").unwrap().metered
        })
        .await;
        scout.close().await;

        let wins = Override { interface: "d1".into(), metered: Some(false), ..Override::default() };
        let scout = Scout::start(ScoutConfig { overrides: vec![wins], ..config }).await.unwrap();
        assert!(!find(&scout.networks(), "d1").unwrap().metered, "the configuration wins");
        scout.close().await;

        fs::remove_file(&answer).unwrap();
        let slow = ScoutConfig {
            nmcli: Some(nmcli),
            nmcli_limit: Duration::from_millis(100),
            ..ScoutConfig::default()
        };
        assert_eq!(
            Scout::start(slow).await.unwrap().networks().len(),
            3,
            "a manager that hangs is left alone"
        );
    });
}

#[test]
fn what_somebody_else_knows_is_taken_over() {
    in_namespace("what_somebody_else_knows_is_taken_over", || async {
        let directory = Directory::new();
        let nmcli = fake_nmcli(directory.path());
        fs::write(directory.path().join("answer"), "GENERAL.DEVICE:d1\nGENERAL.METERED:no\n").unwrap();
        for name in ["d0", "d1", "x0"] {
            add(name);
            ip(&format!("addr add 10.1.0.1/24 dev {name}"));
        }
        let entry = |interface: &str| Override { interface: interface.into(), ..Override::default() };
        let own = vec![Override { cost: Some(1), ..entry("d*") }];
        let config =
            ScoutConfig { overrides: own, nmcli: Some(nmcli), nmcli_limit: GUARD, ..ScoutConfig::default() };
        let mut scout = Scout::start(config.clone()).await.unwrap();
        let id = |name: &str| find(&scout.networks(), name).unwrap().id;
        let [d0, d1] = ["d0", "d1"].map(id);
        let finding = |interface: &str, class| Finding { interface: interface.into(), class, metered: true };
        let knowledge = Knowledge {
            overrides: vec![
                Override { name: Some("dish".into()), cost: Some(9), ..entry("d0") },
                Override { ignore: Some(true), ..entry("x*") },
            ],
            findings: [
                (d0, finding("another", NetworkClass::Satellite)),
                (d1, finding("d1", NetworkClass::Cellular)),
            ]
            .into(),
            is_kept: true,
        };
        scout.learn(knowledge.clone());
        until(&mut scout, "told", |networks| {
            find(networks, "dish").is_some() && find(networks, "x0").is_none()
        })
        .await;
        let check = |networks: &[Network], metered| {
            let (dish, d1) = (find(networks, "dish").unwrap(), find(networks, "d1").unwrap());
            // The number has gone to another interface: what was found out of the former says nothing.
            assert_eq!((dish.class, dish.cost, dish.metered), (NetworkClass::Virtual, 1, false));
            assert_eq!((d1.class, d1.cost, d1.metered), (NetworkClass::Cellular, 1, metered));
            assert!(find(networks, "x0").is_none(), "{networks:?}");
        };
        check(&scout.networks(), true);
        // Left alone it keeps all that, and asks the network manager itself.
        scout.learn(Knowledge { is_kept: false, ..knowledge.clone() });
        until(&mut scout, "asked", |networks| !find(networks, "d1").unwrap().metered).await;
        check(&scout.networks(), false);
        // One that begins with it asks nobody.
        let scout = Scout::start_knowing(config, knowledge).await.unwrap();
        check(&scout.networks(), true);
    });
}

#[test]
fn a_flood_that_the_kernel_drops_is_caught_up() {
    in_namespace("a_flood_that_the_kernel_drops_is_caught_up", || async {
        add("d0");
        let mut scout = Scout::start(quiet()).await.unwrap();
        let directory = Directory::new();
        let batch = directory.path().join("batch");
        let mut text = String::new();
        for number in 0..6000 {
            writeln!(text, "addr add 10.{}.{}.1/32 dev d0", number / 200, number % 200).unwrap();
        }
        fs::write(&batch, text).unwrap();
        // Blocks this thread, and with it the scout, until everything has happened.
        ip(&format!("-batch {}", batch.display()));
        let sockets = fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
        let dropped = |line: &str| line.split_whitespace().nth(8).is_some_and(|drops| drops != "0");
        assert!(sockets.lines().skip(1).any(dropped), "nothing was dropped, nothing was tested:\n{sockets}");
        until(&mut scout, "all there", |networks| {
            find(networks, "d0")
                .is_some_and(|d0| d0.addresses.iter().filter(|address| address.ip.is_ipv4()).count() == 6000)
        })
        .await;
        ip("addr flush dev d0");
        until(&mut scout, "all gone", |networks| find(networks, "d0").is_none()).await;
    });
}

#[test]
fn a_scout_can_be_started_again() {
    in_namespace("a_scout_can_be_started_again", || async {
        let sockets = || fs::read_to_string("/proc/thread-self/net/netlink").unwrap().lines().count();
        let before = sockets();
        for round in 0..3 {
            let scout = Scout::start(quiet()).await.unwrap();
            assert_eq!(scout.networks().len(), 1 + round);
            assert_eq!(sockets(), before + 1);
            scout.close().await;
            assert_eq!(sockets(), before, "a descriptor was left open");
            add(&format!("d{round}"));
            ip(&format!("addr add 10.{round}.0.1/24 dev d{round}"));
        }
    });
}

#[test]
fn without_ipv6_the_rest_works() {
    in_namespace("without_ipv6_the_rest_works", || async {
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let scout = Scout::start(quiet()).await.unwrap();
        assert_eq!(ips(&scout.networks()[0]), ["127.0.0.1/8"]);
        let mut listener = Listener::bind_any(0).unwrap();
        let options = ConnectOptions::to(SocketAddr::from(([127, 0, 0, 1], listener.port())));
        let (stream, _) = tokio::join!(connect(&options), listener.accept());
        stream.unwrap();
        let options = ConnectOptions::to(SocketAddr::from((Ipv6Addr::LOCALHOST, listener.port())));
        assert!(connect(&options).await.is_err());
    });
}
