//! What kind of link an interface is.

use super::table::{Link, Table};
use std::fs;
use std::path::Path;
use steadfast_wire::NetworkClass;

// ARPHRD_* of `linux/if_arp.h`.
const ETHER: u16 = 1;
const INFINIBAND: u16 = 32;
const RAWIP: u16 = 519;
const TUNNEL: u16 = 768;
const TUNNEL6: u16 = 769;
const LOOPBACK: u16 = 772;
const SIT: u16 = 776;
const IPGRE: u16 = 778;
const WIRELESS: std::ops::RangeInclusive<u16> = 801..=805;
const IP6GRE: u16 = 823;
const NONE: u16 = 65534;

/// How many interfaces may lie on each other before the search for hardware ends.
const LAYERS: usize = 4;

/// What sysfs shows of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hints {
    pub(super) wifi: bool,
    pub(super) wwan: bool,
}

/// The class of an interface, by what netlink tells and what `hints` adds for hardware.
pub(super) fn classify(link: &Link, table: &Table, hints: &dyn Fn(&Link) -> Hints) -> NetworkClass {
    let mut link = link;
    for _ in 0..LAYERS {
        // A VLAN or a bond of cables is a cable to whoever pays for it and waits for it.
        let below = match link.kind.as_deref() {
            Some("vlan" | "macvlan" | "ipvlan" | "macsec") => link.lower.and_then(|lower| table.link(lower)),
            Some("bond" | "team") => table.first_member(link.index),
            _ => None,
        };
        match below {
            Some(below) => link = below,
            None => break,
        }
    }
    match (link.layer, link.kind.as_deref()) {
        (LOOPBACK, _) => NetworkClass::Loopback,
        (RAWIP, _) | (_, Some("wwan" | "rmnet")) => NetworkClass::Cellular,
        _ if link.name.starts_with("wwan") => NetworkClass::Cellular,
        (layer, _) if WIRELESS.contains(&layer) => NetworkClass::Wifi,
        (_, Some(_)) => NetworkClass::Virtual,
        (TUNNEL | TUNNEL6 | SIT | IPGRE | IP6GRE | NONE, None) => NetworkClass::Virtual,
        (INFINIBAND, None) => NetworkClass::Ethernet,
        (ETHER, None) => match hints(link) {
            Hints { wifi: true, .. } => NetworkClass::Wifi,
            Hints { wwan: true, .. } => NetworkClass::Cellular,
            _ => NetworkClass::Ethernet,
        },
        _ => NetworkClass::Other,
    }
}

/// Reads the hints of an interface from `sysfs`; none if what lies there is another interface.
///
/// A mounted sysfs shows the namespace in which it was mounted. Number and hardware address together tell whether
/// the directory of that name is the interface that netlink means.
pub(super) fn hints(sysfs: &Path, link: &Link) -> Hints {
    let directory = sysfs.join(&link.name);
    let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let hardware: Vec<_> = link.hardware.iter().map(|byte| format!("{byte:02x}")).collect();
    let same =
        read("ifindex").trim() == link.index.to_string() && read("address").trim() == hardware.join(":");
    // The name is the kernel's, but a path must not leave the directory whatever it is.
    if !same || link.name.contains('/') {
        return Hints::default();
    }
    let uevent = read("uevent");
    let kind = uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
    Hints {
        wifi: kind == Some("wlan")
            || directory.join("phy80211").exists()
            || directory.join("wireless").exists(),
        wwan: kind == Some("wwan"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Message;
    use crate::private_file::testing::Directory;

    fn link(name: &str, layer: u16, kind: Option<&str>) -> Link {
        Link { index: 7, name: name.into(), layer, kind: kind.map(Into::into), ..Link::default() }
    }

    #[test]
    fn classes() {
        use NetworkClass::{Cellular, Ethernet, Loopback, Other, Virtual, Wifi};
        let none = Hints::default();
        let wifi = Hints { wifi: true, wwan: false };
        let wwan = Hints { wifi: false, wwan: true };
        for (name, layer, kind, hints, expected) in [
            ("lo", LOOPBACK, None, none, Loopback),
            ("eth0", ETHER, None, none, Ethernet),
            ("ib0", INFINIBAND, None, none, Ethernet),
            ("wlan0", ETHER, None, wifi, Wifi),
            ("mon0", 803, None, none, Wifi),
            ("wwan0", ETHER, None, none, Cellular),
            ("mhi0", ETHER, Some("wwan"), none, Cellular),
            ("usb0", ETHER, None, wwan, Cellular),
            ("rmnet0", RAWIP, None, none, Cellular),
            ("veth1", ETHER, Some("veth"), none, Virtual),
            ("br0", ETHER, Some("bridge"), none, Virtual),
            ("tun0", NONE, Some("tun"), none, Virtual),
            ("wg0", NONE, Some("wireguard"), none, Virtual),
            ("dummy0", ETHER, Some("dummy"), none, Virtual),
            ("vlan5", ETHER, Some("vlan"), none, Virtual),
            ("bond0", ETHER, Some("bond"), none, Virtual),
            ("sit0", SIT, None, none, Virtual),
            ("ppp0", 512, None, none, Other),
        ] {
            let class = classify(&link(name, layer, kind), &Table::default(), &|_| hints);
            assert_eq!(class, expected, "{name}");
        }
    }

    #[test]
    fn a_vlan_and_a_bond_are_what_lies_below() {
        let mut table = Table::default();
        let mut add = |index: u32, name: &[u8], master: u32| {
            let mut body = vec![0, 0];
            body.extend(ETHER.to_ne_bytes());
            for number in [index, 0, 0] {
                body.extend(number.to_ne_bytes());
            }
            body.extend([8, 0, 3, 0]);
            body.extend(name);
            body.extend([8, 0, 10, 0]);
            body.extend(master.to_ne_bytes());
            table.apply(&Message { kind: 16, flags: 0, sequence: 0, body: &body });
        };
        add(2, b"et0\0", 9);
        let wifi = |_: &Link| Hints { wifi: true, wwan: false };
        let vlan = Link { lower: Some(2), ..link("v", ETHER, Some("vlan")) };
        assert_eq!(classify(&vlan, &table, &wifi), NetworkClass::Wifi);
        let bond = Link { index: 9, ..link("b", ETHER, Some("bond")) };
        assert_eq!(classify(&bond, &table, &wifi), NetworkClass::Wifi);
        let own_ground = Link { index: 9, lower: Some(2), ..link("v", ETHER, Some("veth")) };
        assert_eq!(classify(&own_ground, &table, &wifi), NetworkClass::Virtual);
    }

    #[test]
    fn sysfs_of_another_interface_is_not_believed() {
        let directory = Directory::new();
        let device = directory.path().join("net0");
        fs::create_dir_all(device.join("phy80211")).unwrap();
        fs::write(device.join("ifindex"), "7\n").unwrap();
        fs::write(device.join("address"), "02:00:00:00:00:0a\n").unwrap();
        fs::write(device.join("uevent"), "DEVTYPE=wwan\nIFINDEX=7\n").unwrap();
        let ours = Link { hardware: vec![2, 0, 0, 0, 0, 10], ..link("net0", ETHER, None) };
        assert_eq!(hints(directory.path(), &ours), Hints { wifi: true, wwan: true });
        let number = Link { index: 8, ..ours.clone() };
        assert_eq!(hints(directory.path(), &number), Hints::default());
        let hardware = Link { hardware: vec![2, 0, 0, 0, 0, 11], ..ours.clone() };
        assert_eq!(hints(directory.path(), &hardware), Hints::default());
        let missing = Link { name: "net1".into(), ..ours };
        assert_eq!(hints(directory.path(), &missing), Hints::default());
    }
}
