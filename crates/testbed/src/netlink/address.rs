//! Addresses, neighbours and routes of an interface.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Request;
use crate::IpNet;

pub(crate) fn add(index: u32, net: IpNet) -> Request {
    Request {
        message: RouteNetlinkMessage::NewAddress(message(index, net)),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

pub(crate) fn remove(index: u32, net: IpNet) -> Request {
    Request { message: RouteNetlinkMessage::DelAddress(message(index, net)), flags: 0 }
}

fn message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = net.prefix();
    message.header.family = family(net.address());
    message.attributes =
        vec![AddressAttribute::Local(net.address()), AddressAttribute::Address(net.address())];
    if net.address().is_ipv6() {
        // There is nobody on the link to duplicate it, and a tentative address cannot be bound.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    if let Some(broadcast) = net.broadcast() {
        message.attributes.push(AddressAttribute::Broadcast(broadcast));
    }
    message
}

/// Asks where packets to an address go.
pub(crate) fn route_to(address: IpAddr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    message.attributes = vec![RouteAttribute::Destination(RouteAddress::from(address))];
    Request { message: RouteNetlinkMessage::GetRoute(message), flags: 0 }
}

/// Whether a [`route_to`] request was answered with "to this host itself".
pub(crate) fn is_local(answers: &[RouteNetlinkMessage]) -> bool {
    let local = |answer: &RouteNetlinkMessage| matches!(answer, RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Local);
    answers.iter().any(local)
}

/// Tells an interface for good which hardware address a neighbour has.
pub(crate) fn add_neighbour(index: u32, address: IpAddr, hardware_address: [u8; 6]) -> Request {
    let mut message = neighbour(index, address);
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(hardware_address.to_vec()));
    Request { message: RouteNetlinkMessage::NewNeighbour(message), flags: NLM_F_CREATE | NLM_F_REPLACE }
}

pub(crate) fn remove_neighbour(index: u32, address: IpAddr) -> Request {
    Request { message: RouteNetlinkMessage::DelNeighbour(neighbour(index, address)), flags: 0 }
}

fn neighbour(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    let destination = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes = vec![NeighbourAttribute::Destination(destination)];
    message
}

/// Sends what goes to a network out of an interface, through a gateway on the link.
pub(crate) fn add_route(index: u32, net: IpNet, gateway: IpAddr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = family(net.address());
    message.header.destination_prefix_length = net.prefix();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(net.address())),
        RouteAttribute::Gateway(RouteAddress::from(gateway)),
        RouteAttribute::Oif(index),
    ];
    Request { message: RouteNetlinkMessage::NewRoute(message), flags: NLM_F_CREATE | NLM_F_REPLACE }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
