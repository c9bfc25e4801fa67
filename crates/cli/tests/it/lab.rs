//! Commands while networks come and go, in a lab.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc;

use serde_json::Value;
use steadfast::{Endpoint, Identity, NetworkClass, Override, ScoutConfig};
use steadfast_testbed::{Direction, Host, Lab, Link, isolated};
use tokio::sync::oneshot;

use crate::common::{Home, Running, accept_all};

struct World {
    _lab: Lab,
    a: Host,
    b: Host,
    wifi: Link,
    _lte: Link,
    home: Home,
}

fn world() -> World {
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    let wifi = lab.link("wifi", &a, &b).interfaces("wifi", "air").connect().unwrap();
    let lte = lab.link("lte", &a, &b).connect().unwrap();
    let home = Home::new();
    home.write("config.toml", "[networks.lo]\nignore = true\n[networks.lte]\nclass = 'cellular'\ncost = 3\n");
    World { _lab: lab, a, b, wifi, _lte: lte, home }
}

/// Starts the program on host a.
fn start(world: &World, arguments: &[&str]) -> Running {
    Running::start(&mut world.home.command(arguments), |command| world.a.spawn(command).unwrap())
}

#[test]
fn changes_of_networks_are_told() {
    isolated("lab::changes_of_networks_are_told", || {
        let world = world();
        let mut watch = start(&world, &["networks", "--watch", "--json"]);
        let is = |change: &'static str, name: &'static str| {
            move |object: &Value| object["change"] == change && object["network"]["name"] == name
        };
        let lte = watch.until("lte", is("up", "lte"));
        assert_eq!((&lte["network"]["class"], &lte["network"]["cost"]), (&"cellular".into(), &3.into()));
        assert_eq!(lte["network"]["metered"], true);
        assert!(lte["time"].as_f64().unwrap() > 0.0);
        world.wifi.carrier_down(&world.a).unwrap();
        let down = watch.until("the end of wifi", is("down", "wifi"));
        assert!(!down["network"]["addresses"].as_array().unwrap().is_empty(), "{down}");
        world.wifi.carrier_up(&world.a).unwrap();
        watch.until("wifi again", is("up", "wifi"));
        let (_, code) = watch.interrupt();
        assert_eq!(code, Some(0));
    });
}

#[test]
fn a_ping_goes_on_when_a_network_dies() {
    isolated("lab::a_ping_goes_on_when_a_network_dies", || {
        let world = world();
        let (contact, ended) = peer(&world);
        let mut ping = start(&world, &["ping", "--json", "-i", "50ms", &contact]);
        let local = |object: &Value| object["path"]["local"].as_str().unwrap_or_default().to_owned();
        let probe =
            |name: &'static str| move |object: &Value| object["type"] == "probe" && local(object) == name;
        // Its name there may come after the first answer.
        let wifi = probe("wifi");
        ping.until("an answer over wifi", |object| wifi(object) && object["path"]["remote"] == "air");
        world.wifi.blackhole(Direction::Both);
        let state =
            |state: &'static str| move |object: &Value| object["state"] == state && local(object) == "wifi";
        ping.until("suspicion", state("suspect"));
        // A copy may have gone over the other one: it is only suspect.
        let by_lte = |object: &Value| {
            object["by"].as_array().is_some_and(|paths| paths.iter().any(|path| path["local"] == "lte"))
        };
        let over_lte = |object: &Value| object["type"] == "message" && by_lte(object);
        ping.until("a message over lte", over_lte);
        let down = ping.until("the end of the path", state("down"));
        assert!(down["reason"].as_str().unwrap().contains("nothing was heard"), "{down}");
        let (rest, code) = ping.interrupt();
        assert_eq!(code, Some(0));
        let summary = rest.last().unwrap();
        let rows = summary["paths"].as_array().unwrap();
        // A network may have several paths, to each of the peer's.
        let some = |name: &str, key: &str| {
            let mut rows = rows.iter().filter(|row| row["path"]["local"] == name);
            rows.any(|row| row[key].as_f64().unwrap() > 0.0)
        };
        assert!(some("wifi", "loss_percent") && some("lte", "carried"), "{summary}");
        drop(ended);
    });
}

/// An endpoint on host b; it ends when the second value is dropped.
fn peer(world: &World) -> (String, oneshot::Sender<()>) {
    let (contact, told) = mpsc::channel();
    let (end, ended) = oneshot::channel::<()>();
    let trusted = world.home.key();
    let address = IpAddr::V4(world.wifi.ipv4_of(&world.b).unwrap_or(Ipv4Addr::UNSPECIFIED));
    world.b.thread("peer", move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let of = |interface: &str, class| Override {
                interface: interface.into(),
                class: Some(class),
                ..Override::default()
            };
            let overrides = vec![of("air", NetworkClass::Wifi), of("lte", NetworkClass::Cellular)];
            let scout = ScoutConfig { nmcli: None, overrides, ..ScoutConfig::default() };
            let identity = Identity::generate().unwrap();
            let endpoint =
                Endpoint::builder().identity(identity).trust(trusted).scout(scout).bind().await.unwrap();
            let line = format!("{}@{address}:{}", endpoint.fingerprint(), endpoint.port());
            contact.send(line).unwrap();
            tokio::select! {
                () = accept_all(endpoint) => {}
                _ = ended => {}
            }
        });
    });
    (told.recv().unwrap(), end)
}
