//! Files while networks come and go, in a lab.

use std::time::Duration;

use steadfast_testbed::{Host, Lab, Link, isolated};

use crate::common::{Home, Running};
use crate::transfer::{Two, contact, result};

/// Two users on two hosts with two networks between them.
pub(crate) struct World {
    _lab: Lab,
    pub(crate) a: Host,
    pub(crate) b: Host,
    pub(crate) wifi: Link,
    pub(crate) lte: Link,
    pub(crate) two: Two,
}

pub(crate) fn world() -> World {
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    let link =
        |name| lab.link(name, &a, &b).rate_mbit(20.0).delay(Duration::from_millis(2)).connect().unwrap();
    let (wifi, lte) = (link("wifi"), link("lte"));
    let two = Two::new();
    for home in [&two.a, &two.b] {
        let classes =
            "[networks.wifi]\nclass = 'wifi'\n[networks.lte]\nclass = 'cellular'\nmetered = false\n";
        home.write("config.toml", &format!("[networks.lo]\nignore = true\n{classes}"));
    }
    World { _lab: lab, a, b, wifi, lte, two }
}

pub(crate) fn start(home: &Home, host: &Host, words: &[&str]) -> Running {
    Running::start(&mut home.command(words), |command| host.spawn(command).unwrap())
}

impl World {
    fn receive(&self) -> (Running, String) {
        let key = self.two.a.key().to_string();
        let words = self.two.receiving(&["--trust", &key]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut receiver = start(&self.two.b, &self.b, &words);
        let contact = contact(&mut receiver);
        (receiver, contact)
    }

    fn send(&self, words: &[&str]) -> Running {
        start(&self.two.a, &self.a, &[&["send", "--json"], words].concat())
    }

    fn arrived(&self, name: &str) -> bool {
        std::fs::read(self.two.from(name)).unwrap() == std::fs::read(self.two.to(name)).unwrap()
    }
}

/// Bytes that a link has carried, both ways.
pub(crate) fn carried(link: &Link) -> u64 {
    let counters = link.counters();
    counters.a_to_b.bytes + counters.b_to_a.bytes
}

#[test]
fn a_transfer_outlives_all_its_networks() {
    isolated("transfer_lab::a_transfer_outlives_all_its_networks", || {
        let world = world();
        let file = world.two.put("f", 12_000_000);
        let (receiver, contact) = world.receive();
        let mut sender = world.send(&[&file, &contact]);
        sender.until("some progress", |object| {
            object["event"] == "progress" && object["bytes"].as_u64() > Some(100_000)
        });
        world.wifi.carrier_down(&world.a).unwrap();
        world.lte.carrier_down(&world.a).unwrap();
        sender.until("that it waits", |object| object["stage"] == "waiting");
        world.lte.carrier_up(&world.a).unwrap();
        let sent = result(sender.end(), 0);
        let received = result(receiver.end(), 0);
        // The conversation went on: nothing was begun anew.
        assert_eq!((&sent["bytes"], &sent["resumed_bytes"]), (&12_000_000.into(), &0.into()), "{sent}");
        assert_eq!(received["files"], 1, "{received}");
        assert!(world.arrived("f"));
    });
}

#[test]
fn what_must_never_be_used_carries_nothing_of_it() {
    isolated("transfer_lab::what_must_never_be_used_carries_nothing_of_it", || {
        let world = world();
        // Many names, so that the manifest alone would show.
        let directory = world.two.from("d");
        for number in 0..300 {
            world.two.put(&format!("d/{number:0200}"), 20_000);
        }
        let (receiver, contact) = world.receive();
        let sender = world.send(&["--never", "cellular", directory.to_str().unwrap(), &contact]);
        let sent = result(sender.end(), 0);
        result(receiver.end(), 0);
        let (wifi, lte) = (carried(&world.wifi), carried(&world.lte));
        // Control frames are exempt and all small; the names alone would be more than these.
        let frames = sent["networks"]["lte"].as_u64().unwrap_or(0);
        assert!(frames < 30_000, "{frames} bytes of frames went over what was forbidden: {sent}");
        assert!(lte < wifi / 10, "{lte} bytes went over what was forbidden, {wifi} over the other");
    });
}
