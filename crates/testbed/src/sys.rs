//! The few kernel calls that no safe wrapper offers: packet sockets bound to an interface, an interface's offloads, and the
//! order in which threads get a processor.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// Raised with root's rights alone; elsewhere the kernel grants what `net.core.rmem_max` allows.
const RECEIVE_BUFFER: usize = 64 << 20;

/// The part of the kernel's `ifreq` that the ethtool request reads: a name, a pointer, and room up to its size.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    value: *mut FeatureValue,
    rest: [u8; 32],
}

#[repr(C)]
struct FeatureValue {
    command: u32,
    on: u32,
}

/// Commands that switch one offload each: transmit checksum, TCP segmentation, generic segmentation, generic receive.
const OFFLOADS: [u32; 4] = [0x17, 0x1f, 0x24, 0x2c];

/// A non-blocking packet socket that receives every frame coming in on the interface with this index, and sends whole
/// frames out of it. It belongs to the network namespace of the calling thread.
pub(crate) fn packet_socket(index: u32) -> io::Result<Socket> {
    // Without a protocol it hears nothing until it is bound, so no frame of another interface slips in.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0)))?;
    ignore_outgoing(&socket)?;
    if nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err()
    {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    socket.bind(&link_address(index))?;
    Ok(socket)
}

#[expect(unsafe_code, reason = "socket2 has no constructor for link-layer addresses")]
fn link_address(index: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is plain data, no larger than the storage, whose zeroed bytes are a valid value of it.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the storage holds a sockaddr_ll with its family set, and the length is that of sockaddr_ll.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

#[expect(unsafe_code, reason = "no safe wrapper knows this option")]
fn ignore_outgoing(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the pointer and length describe one c_int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets the calling thread have a processor as soon as it has something to do, before all that is not in real time and all of a
/// lower level (1 to 99, `SCHED_FIFO`). What it starts later is not in real time. Otherwise a thread may wait for some milliseconds
/// until another one's turn is over, which no wire would do.
///
/// Needs `CAP_SYS_NICE` or `RLIMIT_RTPRIO`. A thread that never sleeps leaves others almost nothing. And a processor that such
/// threads have had for 950 of 1000 ms, together, is taken from them for the other 50 (`sched_rt_runtime_us`, sched(7)): what is to be
/// on time must need much less of it.
#[expect(unsafe_code, reason = "no safe wrapper knows this call")]
pub fn run_in_real_time(level: u8) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: level.into() };
    // SAFETY: the call reads the parameters, which outlive it; zero means the calling thread.
    let result = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Frames that did not fit the socket's receive buffer since this was last asked.
#[expect(unsafe_code, reason = "no safe wrapper knows this option")]
pub(crate) fn overruns(socket: &Socket) -> io::Result<u64> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the descriptor is open, and pointer and length describe one tpacket_stats, which any bytes make valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(u64::from(statistics.tp_drops)) } else { Err(io::Error::last_os_error()) }
}

/// Turns off all offloads of an interface in the namespace of `socket`, so that what it sends are complete packets of at
/// most its MTU.
#[expect(unsafe_code, reason = "an ioctl whose argument is a pointer has no safe wrapper")]
pub(crate) fn offloads_off(socket: &impl AsFd, interface: &str) -> io::Result<()> {
    for command in OFFLOADS {
        let mut value = FeatureValue { command, on: 0 };
        let mut request =
            InterfaceRequest { name: [0; libc::IFNAMSIZ], value: &raw mut value, rest: [0; 32] };
        let length = interface.len().min(libc::IFNAMSIZ - 1);
        request.name[..length].copy_from_slice(&interface.as_bytes()[..length]);
        // SAFETY: the descriptor is open; the request is at least as large as an ifreq, its name ends in a zero byte, and
        // its pointer is to a FeatureValue that outlives the call.
        let result =
            unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
