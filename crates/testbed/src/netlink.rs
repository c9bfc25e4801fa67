//! Requests to the kernel's routing netlink: blocking, one at a time, each answered before the next.

use std::io;
use std::sync::{Mutex, PoisonError};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

pub(crate) mod address;
pub(crate) mod interface;

/// What to ask, with the flags that say how.
pub(crate) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
}

pub(crate) struct Netlink {
    socket: Mutex<Socket>,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket: Mutex::new(socket) })
    }

    /// Sends a request and returns what the kernel answers, besides its acknowledgement.
    pub(crate) fn request(&self, request: Request) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | request.flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request.message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = socket.recv_from_full()?;
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let answer =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                match answer.payload {
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    _ => {}
                }
                // Each message is padded to four bytes, the last one perhaps not.
                let padded = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(padded..).unwrap_or_default();
            }
        }
    }
}

/// Takes one answer of the kernel as success: "it is already so" when adding, "it is gone" when removing.
pub(crate) fn tolerate<T: Default>(result: io::Result<T>, errno: i32) -> io::Result<T> {
    match result {
        Err(error) if error.raw_os_error() == Some(errno) => Ok(T::default()),
        other => other,
    }
}
