use super::*;

const RUNNING: u32 = IFF_UP | IFF_RUNNING | IFF_LOWER_UP;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn link_body(family: u8, index: u32, flags: u32, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![family, 0];
    body.extend(1u16.to_ne_bytes());
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(0u32.to_ne_bytes());
    body.extend(parts.concat());
    body
}

fn address_body(index: u32, ip: &str, flags: u32) -> Vec<u8> {
    let octets = match ip.parse().unwrap() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut body = vec![if octets.len() == 4 { 2 } else { 10 }, 24, flags as u8, 0];
    body.extend(index.to_ne_bytes());
    body.extend(attribute(IFA_ADDRESS, &octets));
    body.extend(attribute(IFA_FLAGS, &flags.to_ne_bytes()));
    body
}

fn apply(table: &mut Table, kind: u16, body: &[u8]) -> Change {
    table.apply(&Message { kind, flags: 0, sequence: 0, body })
}

fn ips(table: &Table, index: u32) -> Vec<String> {
    table.usable_addresses(index).iter().map(|address| address.ip.to_string()).collect()
}

#[test]
fn links_come_change_and_go() {
    let mut table = Table::default();
    let info = attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, b"veth\0"));
    let parts = [attribute(IFLA_IFNAME, b"v0\0"), info, attribute(IFLA_LINK, &9u32.to_ne_bytes())];
    let body = link_body(0, 5, RUNNING, &parts);
    assert_eq!(apply(&mut table, RTM_NEWLINK, &body), Change::Networks);
    assert_eq!(apply(&mut table, RTM_NEWLINK, &body), Change::Nothing);
    let link = table.link(5).unwrap();
    assert!(link.is_usable());
    assert_eq!((link.name.as_str(), link.kind.as_deref(), link.lower), ("v0", Some("veth"), Some(9)));
    for flag in [IFF_UP, IFF_RUNNING, IFF_LOWER_UP] {
        apply(&mut table, RTM_NEWLINK, &link_body(0, 5, RUNNING & !flag, &parts));
        assert!(!table.link(5).unwrap().is_usable(), "{flag:x}");
    }
    apply(&mut table, RTM_NEWADDR, &address_body(5, "10.0.0.1", 0x80));
    assert_eq!(apply(&mut table, RTM_DELLINK, &body), Change::Networks);
    assert_eq!(table, Table::default());
}

#[test]
fn leaving_a_bridge_is_not_leaving_the_host() {
    let mut table = Table::default();
    let parts = [attribute(IFLA_IFNAME, b"v0\0")];
    apply(&mut table, RTM_NEWLINK, &link_body(0, 5, RUNNING, &parts));
    assert_eq!(apply(&mut table, RTM_DELLINK, &link_body(7, 5, RUNNING, &parts)), Change::Nothing);
    assert!(table.link(5).is_some());
}

#[test]
fn a_wireless_event_does_not_replace_the_link() {
    let mut table = Table::default();
    let kind = attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, b"wwan\0"));
    apply(&mut table, RTM_NEWLINK, &link_body(0, 5, RUNNING, &[attribute(IFLA_IFNAME, b"w0\0"), kind]));
    let event = [attribute(IFLA_IFNAME, b"w0\0"), attribute(IFLA_WIRELESS, &[0; 8])];
    apply(&mut table, RTM_NEWLINK, &link_body(0, 5, RUNNING, &event));
    assert_eq!(table.link(5).unwrap().kind.as_deref(), Some("wwan"));
}

#[test]
fn a_lower_interface_elsewhere_is_not_ours() {
    let mut table = Table::default();
    let parts = [
        attribute(IFLA_IFNAME, b"v0\0"),
        attribute(IFLA_LINK_NETNSID, &0u32.to_ne_bytes()),
        attribute(IFLA_LINK, &2u32.to_ne_bytes()),
    ];
    apply(&mut table, RTM_NEWLINK, &link_body(0, 5, RUNNING, &parts));
    assert_eq!(table.link(5).unwrap().lower, None);
}

#[test]
fn unusable_addresses_are_left_out() {
    let mut table = Table::default();
    apply(&mut table, RTM_NEWADDR, &address_body(5, "fe80::1", 0x80));
    assert_eq!(ips(&table, 5), ["fe80::1"], "link-local is used if there is nothing else");
    for flags in [IFA_F_TENTATIVE, IFA_F_DADFAILED | IFA_F_TENTATIVE, IFA_F_DEPRECATED] {
        apply(&mut table, RTM_NEWADDR, &address_body(5, "fd00::1", flags));
        assert_eq!(ips(&table, 5), ["fe80::1"], "{flags:x}");
    }
    apply(&mut table, RTM_NEWADDR, &address_body(5, "fd00::1", IFA_F_TENTATIVE | IFA_F_OPTIMISTIC));
    assert_eq!(ips(&table, 5), ["fd00::1"]);
    assert_eq!(apply(&mut table, RTM_NEWADDR, &address_body(5, "fd00::1", 0x80)), Change::Networks);
    apply(&mut table, RTM_NEWADDR, &address_body(5, "10.0.0.1", 0x80));
    assert_eq!(ips(&table, 5), ["fd00::1", "10.0.0.1"]);
    apply(&mut table, RTM_DELADDR, &address_body(5, "fd00::1", 0x80));
    apply(&mut table, RTM_DELADDR, &address_body(5, "10.0.0.1", 0x80));
    assert_eq!(ips(&table, 5), ["fe80::1"]);
}

#[test]
fn between_two_points_the_local_end_counts() {
    let mut table = Table::default();
    let mut body = address_body(5, "10.0.0.2", 0x80);
    body.extend(attribute(IFA_LOCAL, &[10, 0, 0, 1]));
    apply(&mut table, RTM_NEWADDR, &body);
    assert_eq!(ips(&table, 5), ["10.0.0.1"]);
}

#[test]
fn only_routes_to_elsewhere_count() {
    let route = |table: u8, kind: u8, flags: u32| {
        let mut body = vec![2, 0, 0, 0, table, 3, 0, kind];
        body.extend(flags.to_ne_bytes());
        apply(&mut Table::default(), RTM_NEWROUTE, &body)
    };
    assert_eq!(route(254, RTN_UNICAST, 0), Change::Routes);
    assert_eq!(route(RT_TABLE_LOCAL, RTN_UNICAST, 0), Change::Nothing);
    assert_eq!(route(254, 3, 0), Change::Nothing);
    assert_eq!(route(254, RTN_UNICAST, RTM_F_CLONED), Change::Nothing);
}

#[test]
fn short_messages_change_nothing() {
    let mut table = Table::default();
    let full = link_body(0, 5, RUNNING, &[attribute(IFLA_IFNAME, b"v0\0")]);
    for kind in 16..26 {
        for length in 0..full.len().min(16) {
            apply(&mut table, kind, &full[..length]);
        }
    }
    assert_eq!(table, Table::default());
}
