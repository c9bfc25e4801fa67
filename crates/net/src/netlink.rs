//! Netlink messages, as far as they are needed: headers, attributes, sockets.
//!
//! Read by hand, because a decoder that rejects a whole message for one attribute of a newer kernel, which nobody
//! here looks at, would hide an interface.

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, sendto,
    socket_with,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Length of a message's header (RFC 3549, section 2.3.2).
const HEADER: usize = 16;
const ALIGNMENT: usize = 4;

pub(crate) const DONE: u16 = 3;
pub(crate) const ERROR: u16 = 2;
pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const DUMP: u16 = 0x300;
/// The table changed while it was dumped: what was read may lack or double an entry.
pub(crate) const DUMP_INTERRUPTED: u16 = 0x10;
/// Nested and byte-order bits of an attribute's type.
const ATTRIBUTE_FLAGS: u16 = 0xc000;

/// Links, addresses and routes. The kernel numbers this protocol 0, for which a `Protocol` has no value.
pub(crate) const ROUTE: Option<Protocol> = None;
/// What sockets are doing.
pub(crate) const SOCKET_DIAGNOSIS: Option<Protocol> = Some(netlink::SOCK_DIAG);

/// A netlink socket: non-blocking, close-on-exec.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// A socket that joins `groups`, a set of bits.
    pub(crate) fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self(socket))
    }

    pub(crate) fn send(&self, message: &[u8]) -> io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.0, message, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    /// One datagram from the kernel. `WouldBlock` if there is none; what other processes sent is passed over.
    pub(crate) fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        loop {
            let (_, length, from) = recvfrom(&self.0, &mut *buffer, RecvFlags::TRUNC)?;
            if length > buffer.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink message was cut short"));
            }
            let from = from.map(SocketAddrNetlink::try_from);
            if matches!(from, Some(Ok(address)) if address.pid() == 0) {
                return Ok(&buffer[..length]);
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// A message as it lies in a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// The messages of a datagram; ends at the first one that does not fit into it.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = number32(datagram, 0)? as usize;
        let body = datagram.get(HEADER..length)?;
        let message = Message {
            kind: number16(datagram, 4)?,
            flags: number16(datagram, 6)?,
            sequence: number32(datagram, 8)?,
            body,
        };
        datagram = datagram.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes of a message as type and value; ends at the first one that does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(number16(bytes, 0)?);
        let kind = number16(bytes, 2)? & !ATTRIBUTE_FLAGS;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A request of `kind` with `body`, whose length is a multiple of four.
pub(crate) fn request(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    debug_assert_eq!(body.len() % ALIGNMENT, 0);
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&0u32.to_ne_bytes());
    message.extend_from_slice(body);
    message
}

/// What an [`ERROR`] message says; `None` for the zero that acknowledges.
pub(crate) fn error_of(body: &[u8]) -> Option<io::Error> {
    match number32(body, 0)?.cast_signed() {
        0 => None,
        code => Some(io::Error::from_raw_os_error(code.wrapping_neg())),
    }
}

/// A string attribute without the zero that ends it.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

pub(crate) fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn number64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_is_read() {
        let mut datagram = request(18, DUMP, 7, &[1, 2, 3, 4]);
        datagram.extend(request(DONE, 0, 8, &[]));
        let read: Vec<_> = messages(&datagram).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].sequence, read[0].body), (18, 7, &[1, 2, 3, 4][..]));
        assert_eq!(read[0].flags, REQUEST | DUMP);
        assert_eq!((read[1].kind, read[1].body.len()), (DONE, 0));
    }

    #[test]
    fn lengths_that_lie_end_the_reading() {
        let good = request(1, 0, 1, &[0; 8]);
        for length in [0u32, 15, 25, u32::MAX] {
            let mut bad = good.clone();
            bad[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&bad).count(), 0, "{length}");
        }
        for length in [0u16, 3, 9, u16::MAX] {
            let mut bad = vec![0; 8];
            bad[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(attributes(&bad).count(), 0, "{length}");
        }
        assert_eq!(attributes(&[]).count(), 0);
    }

    #[test]
    fn attributes_are_padded_and_lose_their_flags() {
        let mut bytes = Vec::new();
        for (kind, value) in [(3u16 | 0x8000, &b"lo\0"[..]), (4, &[9; 4])] {
            bytes.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read, [(3, &b"lo\0"[..]), (4, &[9; 4][..])]);
        assert_eq!(text(read[0].1), "lo");
    }
}
