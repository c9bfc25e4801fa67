//! Interfaces: veth pairs, up and down, what state they are in.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};

use super::Request;

/// The loopback interface is the first of every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// One end of a veth pair to be.
pub(crate) struct VethEnd<'a> {
    pub(crate) name: &'a str,
    pub(crate) hardware_address: [u8; 6],
    pub(crate) mtu: u32,
}

impl VethEnd<'_> {
    fn attributes(&self) -> Vec<LinkAttribute> {
        vec![
            LinkAttribute::IfName(self.name.into()),
            LinkAttribute::Address(self.hardware_address.to_vec()),
            LinkAttribute::Mtu(self.mtu),
        ]
    }
}

/// Makes a veth pair: `near` in the namespace of the socket, `far` in another.
pub(crate) fn create_veth(near: &VethEnd<'_>, far: &VethEnd<'_>, far_namespace: BorrowedFd<'_>) -> Request {
    let mut peer = LinkMessage::default();
    peer.attributes = far.attributes();
    peer.attributes.push(LinkAttribute::NetNsFd(far_namespace.as_raw_fd()));
    let mut link = LinkMessage::default();
    link.attributes = near.attributes();
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    Request { message: RouteNetlinkMessage::NewLink(link), flags: NLM_F_CREATE | NLM_F_EXCL }
}

/// Keeps an interface from giving itself an IPv6 address, and so from speaking.
pub(crate) fn silence_ipv6(index: u32) -> Request {
    let mut link = at(index);
    link.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![
        AfSpecInet6::AddrGenMode(In6AddrGenMode::None),
    ])]));
    Request { message: RouteNetlinkMessage::SetLink(link), flags: 0 }
}

pub(crate) fn set_up(index: u32) -> Request {
    flag_up(index, LinkFlags::Up)
}

pub(crate) fn set_down(index: u32) -> Request {
    flag_up(index, LinkFlags::empty())
}

pub(crate) fn delete(index: u32) -> Request {
    Request { message: RouteNetlinkMessage::DelLink(at(index)), flags: 0 }
}

pub(crate) fn by_name(name: &str) -> Request {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.into()));
    Request { message: RouteNetlinkMessage::GetLink(link), flags: 0 }
}

pub(crate) fn by_index(index: u32) -> Request {
    Request { message: RouteNetlinkMessage::GetLink(at(index)), flags: 0 }
}

/// The index that a [`by_name`] request was answered with.
pub(crate) fn found(answers: &[RouteNetlinkMessage]) -> Option<u32> {
    links(answers).map(|link| link.header.index).next()
}

/// Whether the interface of a [`by_index`] request carries frames: it has its carrier, and the kernel has noted that and
/// put a queue in place of the one that drops everything, which happens a moment later.
pub(crate) fn is_ready(answers: &[RouteNetlinkMessage]) -> bool {
    let drops = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::Qdisc(name) if name == "noop");
    let flags = LinkFlags::Running | LinkFlags::LowerUp;
    links(answers).any(|link| link.header.flags.contains(flags) && !link.attributes.iter().any(drops))
}

fn links(answers: &[RouteNetlinkMessage]) -> impl Iterator<Item = &LinkMessage> {
    answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    })
}

fn at(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}

fn flag_up(index: u32, flags: LinkFlags) -> Request {
    let mut link = at(index);
    link.header.flags = flags;
    link.header.change_mask = LinkFlags::Up;
    Request { message: RouteNetlinkMessage::SetLink(link), flags: 0 }
}
