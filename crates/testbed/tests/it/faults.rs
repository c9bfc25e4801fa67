//! Links at fault: blackholes, interfaces that go down, addresses that change.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use steadfast_testbed::{Direction, Host, IpNet, LabError, isolated};

use super::{is_silent, pair, pass, wire, wire_between};

#[test]
fn a_blackhole_is_silent_in_its_direction_alone() {
    isolated("faults::a_blackhole_is_silent_in_its_direction_alone", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).connect().unwrap();
        let wire = wire(&link);
        for (direction, from, to) in
            [(Direction::AToB, &wire.a, &wire.b), (Direction::BToA, &wire.b, &wire.a)]
        {
            link.blackhole(direction);
            from.send(b"lost").unwrap();
            pass(to, from);
            assert!(is_silent(to), "{direction:?}");
            from.send(b"lost").unwrap();
            link.heal();
            pass(from, to);
        }
        link.blackhole(Direction::Both);
        wire.a.send(b"lost").unwrap();
        wire.b.send(b"lost").unwrap();
        assert!(is_silent(&wire.a) && is_silent(&wire.b));
        link.heal();
        pass(&wire.a, &wire.b);
        let counters = link.counters();
        assert!(
            counters.a_to_b.dropped_blackhole >= 2 && counters.b_to_a.dropped_blackhole >= 2,
            "{counters:?}"
        );
    });
}

#[test]
fn a_blackhole_takes_what_is_under_way() {
    isolated("faults::a_blackhole_takes_what_is_under_way", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).delay(Duration::from_millis(40)).connect().unwrap();
        let wire = wire(&link);
        wire.a.send(b"lost").unwrap();
        link.blackhole(Direction::AToB);
        link.heal();
        pass(&wire.a, &wire.b);
    });
}

#[test]
fn an_interface_comes_back_with_all_it_had() {
    isolated("faults::an_interface_comes_back_with_all_it_had", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).connect().unwrap();
        let beyond: IpNet = "10.200.0.1/32".parse().unwrap();
        link.add_address(&net.b, beyond).unwrap();
        link.add_route(&net.a, beyond, link.address_of(&net.b)).unwrap();

        link.carrier_down(&net.a).unwrap();
        let (to_v4, to_v6) = (link.ipv4_of(&net.b).unwrap(), link.ipv6_of(&net.b).unwrap());
        let sender = net.a.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        let refusal = sender.send_to(b"word", (to_v4, 9)).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::NetworkUnreachable, "{refusal}");
        net.a.run(|| UdpSocket::bind((link.ipv6_of(&net.a).unwrap(), 0))).unwrap_err();
        net.b.run(|| UdpSocket::bind((to_v6, 0))).unwrap();

        link.carrier_up(&net.a).unwrap();
        assert!(
            knows_neighbour_for_good(&net.a, to_v4)
                && knows_neighbour_for_good(&net.b, link.ipv4_of(&net.a).unwrap())
        );
        for (of_a, of_b) in [
            (link.ipv4_of(&net.a).unwrap().into(), to_v4.into()),
            (link.ipv6_of(&net.a).unwrap().into(), to_v6.into()),
            (link.ipv4_of(&net.a).unwrap().into(), beyond.address()),
        ] {
            let wire = wire_between((&net.a, of_a), (&net.b, of_b));
            pass(&wire.a, &wire.b);
            pass(&wire.b, &wire.a);
        }
    });
}

/// Whether the host never needs to ask for this address's hardware address, so that no blackhole can spoil an answer.
fn knows_neighbour_for_good(host: &Host, neighbour: Ipv4Addr) -> bool {
    let table = host.run(|| std::fs::read_to_string("/proc/thread-self/net/arp")).unwrap();
    let neighbour = neighbour.to_string();
    // The third column holds flags: 2 for complete, 4 for permanent.
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|line| line.first() == Some(&neighbour.as_str()) && line.get(2) == Some(&"0x6"))
}

#[test]
fn a_plug_comes_out_and_goes_in_again() {
    isolated("faults::a_plug_comes_out_and_goes_in_again", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).connect().unwrap();
        let wire = wire(&link);
        pass(&wire.a, &wire.b);
        link.unplug(&net.a).unwrap();
        let has_route = |host: &Host| {
            let table = host.run(|| std::fs::read_to_string("/proc/thread-self/net/route")).unwrap();
            table.contains("wifi")
        };
        assert!(has_route(&net.a) && has_route(&net.b), "routes outlive the carrier");
        wire.b.send(b"lost").unwrap();
        assert!(is_silent(&wire.a));
        link.plug(&net.a).unwrap();
        pass(&wire.a, &wire.b);
        pass(&wire.b, &wire.a);
    });
}

#[test]
fn addresses_change_while_it_runs() {
    isolated("faults::addresses_change_while_it_runs", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).connect().unwrap();
        for (of_a, of_b) in [("10.77.0.1/24", "10.77.0.2/24"), ("fd77::1/64", "fd77::2/64")] {
            let (of_a, of_b): (IpNet, IpNet) = (of_a.parse().unwrap(), of_b.parse().unwrap());
            link.add_address(&net.a, of_a).unwrap();
            link.add_address(&net.b, of_b).unwrap();
            let wire = wire_between((&net.a, of_a.address()), (&net.b, of_b.address()));
            pass(&wire.a, &wire.b);
            pass(&wire.b, &wire.a);

            link.remove_address(&net.b, of_b).unwrap();
            net.b.run(|| UdpSocket::bind((of_b.address(), 0))).unwrap_err();
            wire.a.send(b"lost").ok();
            assert!(is_silent(&wire.b));
            link.add_address(&net.b, of_b).unwrap();
            let again = wire_between((&net.a, of_a.address()), (&net.b, of_b.address()));
            pass(&again.a, &again.b);
        }
        assert_eq!(link.addresses_of(&net.b).len(), 4);
        assert!(matches!(
            link.remove_address(&net.a, "10.78.0.1/24".parse().unwrap()),
            Err(LabError::Misuse(_))
        ));
    });
}

#[test]
fn an_address_is_replaced_by_another_of_its_subnet() {
    isolated("faults::an_address_is_replaced_by_another_of_its_subnet", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).connect().unwrap();
        for (old, new) in [("10.1.0.1/24", "10.1.0.77/24"), ("fd00:1::1/64", "fd00:1::77/64")] {
            let new: IpNet = new.parse().unwrap();
            link.add_address(&net.a, new).unwrap();
            link.remove_address(&net.a, old.parse().unwrap()).unwrap();
            let of_b = link.addresses_of(&net.b).into_iter().map(|net| net.address());
            let of_b = of_b.into_iter().find(|ip| ip.is_ipv4() == new.address().is_ipv4()).unwrap();
            let wire = wire_between((&net.a, new.address()), (&net.b, of_b));
            pass(&wire.a, &wire.b);
            pass(&wire.b, &wire.a);
        }
    });
}

#[test]
fn a_removed_link_takes_its_interfaces_along() {
    isolated("faults::a_removed_link_takes_its_interfaces_along", || {
        let net = pair();
        let link = net.lab.link("wifi", &net.a, &net.b).connect().unwrap();
        let other = net.lab.link("cellular", &net.a, &net.b).connect().unwrap();
        link.remove().unwrap();
        link.remove().unwrap();
        for host in [&net.a, &net.b] {
            host.run(|| UdpSocket::bind((link.address_of(host), 0))).unwrap_err();
        }
        let wire = wire(&other);
        pass(&wire.a, &wire.b);
        let again = net.lab.link("wifi", &net.a, &net.b).connect().unwrap();
        assert_ne!(again.address_of(&net.a), link.address_of(&net.a));
    });
}

#[test]
fn misuse_is_told() {
    isolated("faults::misuse_is_told", || {
        let net = pair();
        let stranger = net.lab.host("c").unwrap();
        let misuse = |result: Result<_, LabError>| match result {
            Err(LabError::Misuse(message)) => message,
            other => panic!("{other:?}"),
        };
        assert!(misuse(net.lab.host("a").map(drop)).contains("a name of its own"));
        let link = |name| net.lab.link(name, &net.a, &net.b);
        for name in ["", "a name with blanks", "sixteen-bytes-ok", "a/b", "."] {
            assert!(misuse(link(name).connect().map(drop)).contains("LinkBuilder::interfaces"), "{name}");
        }
        assert!(misuse(link("wifi").mtu(576).connect().map(drop)).contains("1280"));
        assert!(
            misuse(net.lab.link("loop", &net.a, &net.a).connect().map(drop)).contains("two different hosts")
        );
        let wifi = link("wifi").connect().unwrap();
        assert!(misuse(wifi.carrier_down(&stranger)).contains("give a or b"));
        let twice = link("wifi").connect().unwrap_err();
        assert!(matches!(twice, LabError::Refused { .. }), "{twice}");
        assert!(twice.to_string().contains("interface wifi on host a"), "{twice}");
    });
}
