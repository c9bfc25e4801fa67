//! The kernel's side of packets: control messages, and the queue of errors.

use super::batch::Run;
use super::received::Head;
use super::trouble::{Fault, Trouble};
use super::{Route, raw};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg, recvmsg,
    sendmmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::RawFd;

/// Room for all control messages that are asked for.
const CONTROL: usize = 256;
/// Packets in one call that the kernel does not split.
const MAX_SINGLES: usize = 64;

/// Control messages of a run: at most three.
struct Controls {
    tos: u8,
    class: i32,
    segment: u16,
    v4: libc::in_pktinfo,
    v6: libc::in6_pktinfo,
}

impl Controls {
    fn new(run: &Run) -> Self {
        let v4 = match run.route.local {
            Some(IpAddr::V4(local)) => u32::from_ne_bytes(local.octets()),
            _ => 0,
        };
        let v6 = match run.route.local {
            Some(IpAddr::V6(local)) => local.octets(),
            _ => [0; 16],
        };
        // An address of this link only is none without its interface.
        let interface = match run.route.remote {
            SocketAddr::V6(remote) => remote.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        Self {
            tos: run.tos,
            class: i32::from(run.tos),
            segment: run.segment as u16,
            v4: libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: v4 },
                ipi_addr: libc::in_addr { s_addr: 0 },
            },
            v6: libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: v6 }, ipi6_ifindex: interface },
        }
    }

    /// Calls `with` with those that the run needs.
    fn with<T>(&self, run: &Run, split: bool, with: impl FnOnce(&[ControlMessage<'_>]) -> T) -> T {
        let tos = match run.route.remote {
            SocketAddr::V4(_) => ControlMessage::Ipv4Tos(&self.tos),
            SocketAddr::V6(_) => ControlMessage::Ipv6TClass(&self.class),
        };
        let local = match (run.route.remote, run.route.local) {
            (SocketAddr::V4(_), Some(IpAddr::V4(_))) => Some(ControlMessage::Ipv4PacketInfo(&self.v4)),
            (SocketAddr::V6(_), Some(IpAddr::V6(_))) => Some(ControlMessage::Ipv6PacketInfo(&self.v6)),
            _ => None,
        };
        let segment = ControlMessage::UdpGsoSegments(&self.segment);
        match (local, split) {
            (Some(local), true) => with(&[tos, local, segment]),
            (Some(local), false) => with(&[tos, local]),
            (None, true) => with(&[tos, segment]),
            (None, false) => with(&[tos]),
        }
    }
}

/// Sends a whole run, which the kernel splits.
pub(super) fn send_split(fd: RawFd, run: &Run, bytes: &[u8]) -> Result<(), Errno> {
    let remote = SockaddrStorage::from(run.route.remote);
    let slices = [IoSlice::new(bytes)];
    Controls::new(run).with(run, true, |controls| {
        sendmsg(fd, &slices, controls, MsgFlags::MSG_DONTWAIT, Some(&remote)).map(drop)
    })
}

/// Sends the first `most` packets of a run one by one; how many went.
pub(super) fn send_singles(fd: RawFd, run: &Run, bytes: &[u8], most: usize) -> Result<usize, Errno> {
    let remote = SockaddrStorage::from(run.route.remote);
    let controls = Controls::new(run);
    let most = most.min(run.packets()).min(MAX_SINGLES);
    if most <= 1 {
        let slices = [IoSlice::new(&bytes[..run.segment.min(bytes.len())]), IoSlice::new(&run.rest)];
        return controls.with(run, false, |controls| {
            sendmsg(fd, &slices, controls, MsgFlags::MSG_DONTWAIT, Some(&remote)).map(|_| 1)
        });
    }
    let slices: Vec<[IoSlice<'_>; 1]> =
        bytes.chunks(run.segment).take(most).map(|packet| [IoSlice::new(packet)]).collect();
    let remotes = vec![Some(remote); slices.len()];
    controls.with(run, false, |controls| send_many(fd, &slices, &remotes, controls))
}

/// Sends runs of one packet each, which differ in their peer and length only; how many went.
pub(super) fn send_alike(fd: RawFd, runs: &[(&Run, &[u8])]) -> Result<usize, Errno> {
    let Some((first, _)) = runs.first() else { return Ok(0) };
    let slices: Vec<_> = runs.iter().map(|(_, bytes)| [IoSlice::new(bytes)]).collect();
    let remotes: Vec<_> = runs.iter().map(|(run, _)| Some(SockaddrStorage::from(run.route.remote))).collect();
    Controls::new(first).with(first, false, |controls| send_many(fd, &slices, &remotes, controls))
}

fn send_many(
    fd: RawFd,
    slices: &[[IoSlice<'_>; 1]],
    remotes: &[Option<SockaddrStorage>],
    controls: &[ControlMessage<'_>],
) -> Result<usize, Errno> {
    let space = controls.iter().map(space).sum();
    // Room for more would be read as a control message without a length.
    let mut headers = MultiHeaders::preallocate(slices.len(), Some(Vec::with_capacity(space)));
    let sent = sendmmsg(fd, &mut headers, slices, remotes, controls, MsgFlags::MSG_DONTWAIT)?;
    Ok(sent.count())
}

/// Bytes that a control message takes.
fn space(control: &ControlMessage<'_>) -> usize {
    const fn with_header(data: usize) -> usize {
        let word = size_of::<usize>();
        size_of::<libc::cmsghdr>().next_multiple_of(word) + data.next_multiple_of(word)
    }
    match control {
        ControlMessage::Ipv4Tos(_) => with_header(1),
        ControlMessage::Ipv4PacketInfo(_) => with_header(size_of::<libc::in_pktinfo>()),
        ControlMessage::Ipv6PacketInfo(_) => with_header(size_of::<libc::in6_pktinfo>()),
        _ => with_header(size_of::<i32>()),
    }
}

/// How IPv6 says that a protocol is unknown: a problem with a parameter (RFC 4443, section 3.4).
const ICMP6_UNRECOGNIZED_HEADER: (u8, u8) = (4, 1);

/// What one call of the kernel gave.
#[derive(Debug)]
pub(super) enum Got {
    /// Packets.
    Packets(Head),
    /// Something that is to be dropped.
    Nothing,
}

/// How a socket's packets arrive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The socket's own address, unless it has all of the host's.
    pub(super) local: Option<IpAddr>,
    /// Whether there is an IP header in front.
    pub(super) with_header: bool,
}

/// Receives into `slot`.
pub(super) fn receive(fd: RawFd, slot: &mut [u8], shape: Shape) -> Result<Got, Errno> {
    let mut control = [0; CONTROL];
    let mut slices = [IoSliceMut::new(slot)];
    let message = recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let head = head_of(&message, shape);
    Ok(finish(head, slot, shape))
}

/// Receives into as many of `slots` as there is something for.
pub(super) fn receive_many(fd: RawFd, slots: &mut [Vec<u8>], shape: Shape) -> Result<Vec<Got>, Errno> {
    let heads: Vec<Option<Head>> = {
        // Anew for each call: what the kernel wrote into them is not undone by the next one.
        let control = Some(Vec::with_capacity(CONTROL));
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(slots.len(), control);
        let mut slices: Vec<_> = slots.iter_mut().map(|slot| [IoSliceMut::new(slot)]).collect();
        recvmmsg(fd, &mut headers, &mut slices, MsgFlags::MSG_DONTWAIT, None)?
            .map(|message| head_of(&message, shape))
            .collect()
    };
    Ok(heads.into_iter().zip(slots).map(|(head, slot)| finish(head, slot, shape)).collect())
}

fn head_of(message: &RecvMsg<'_, '_, SockaddrStorage>, shape: Shape) -> Option<Head> {
    let remote = message.address.as_ref().and_then(address_of)?;
    let length = message.bytes;
    if message.flags.contains(MsgFlags::MSG_TRUNC) || length == 0 {
        return None;
    }
    let route = Route { remote, local: shape.local };
    let mut head = Head { route, tos: 0, segment: length, start: 0, end: length };
    read_controls(message, &mut head);
    Some(head)
}

/// Takes off the IP header.
fn finish(head: Option<Head>, slot: &[u8], shape: Shape) -> Got {
    let Some(mut head) = head else { return Got::Nothing };
    if shape.with_header {
        let Some(header) = raw::header(&slot[..head.end]) else { return Got::Nothing };
        head.tos = header.tos;
        head.route.local = shape.local.or(Some(IpAddr::V4(header.destination)));
        (head.start, head.end) = (header.start, header.end);
        head.segment = header.end - header.start;
    }
    Got::Packets(head)
}

fn read_controls(message: &RecvMsg<'_, '_, SockaddrStorage>, head: &mut Head) {
    for control in message.cmsgs().into_iter().flatten() {
        match control {
            ControlMessageOwned::Ipv4Tos(tos) => head.tos = tos,
            ControlMessageOwned::Ipv6TClass(class) => head.tos = class as u8,
            ControlMessageOwned::Ipv4PacketInfo(info) if head.route.local.is_none() => {
                let octets = info.ipi_spec_dst.s_addr.to_ne_bytes();
                head.route.local = Some(IpAddr::V4(Ipv4Addr::from(octets)));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) if head.route.local.is_none() => {
                head.route.local = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
            }
            ControlMessageOwned::UdpGroSegments(segment) if segment > 0 => {
                head.segment = (segment as usize).min(head.end);
            }
            _ => {}
        }
    }
}

/// Who says that a packet did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Someone on the way, or the peer.
    Network,
    /// Our own kernel, which knows no port.
    Local,
}

/// The next entry of the error queue: none if it says nothing of a peer.
pub(super) fn receive_error(fd: RawFd) -> Result<Option<(Trouble, Origin)>, Errno> {
    let mut control = [0; CONTROL];
    let mut quoted = [0; Trouble::MAX_QUOTED];
    let mut slices = [IoSliceMut::new(&mut quoted)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control), flags)?;
    let length = message.bytes;
    let Some(remote) = message.address.as_ref().and_then(address_of) else { return Ok(None) };
    let found = message.cmsgs().into_iter().flatten().find_map(|control| {
        let (ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _)) =
            control
        else {
            return None;
        };
        let unknown_header = error.ee_origin == libc::SO_EE_ORIGIN_ICMP6
            && (error.ee_type, error.ee_code) == ICMP6_UNRECOGNIZED_HEADER;
        let fault = if unknown_header {
            Fault::ProtocolUnreachable
        } else {
            Fault::from_errno(Errno::from_raw(error.ee_errno.cast_signed()), error.ee_info)?
        };
        let local = error.ee_origin == libc::SO_EE_ORIGIN_LOCAL;
        Some((fault, if local { Origin::Local } else { Origin::Network }))
    });
    let quoted = quoted[..length.min(Trouble::MAX_QUOTED)].to_vec();
    let trouble = |(fault, origin)| {
        (Trouble { remote, fault, own: origin == Origin::Local, quoted: quoted.clone() }, origin)
    };
    Ok(found.map(trouble))
}

fn address_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*v4).into());
    }
    // Not the flow label: it would make two routes of one.
    let v6 = address.as_sockaddr_in6()?;
    Some(SocketAddrV6::new(v6.ip(), v6.port(), 0, v6.scope_id()).into())
}
