//! A host's end of a link or a switch: a veth pair between it and the middle.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::access::veth_refused;
use crate::namespace::Namespace;
use crate::netlink::interface::{self, VethEnd};
use crate::netlink::{address, tolerate};
use crate::{Host, IpNet, LabError, sys};

/// How long a fresh interface may take to be ready; it takes microseconds, but the kernel promises nothing.
const READY_GUARD: Duration = Duration::from_secs(10);

/// One host's side.
pub(crate) struct End {
    pub(crate) host: Host,
    pub(crate) interface: String,
    pub(crate) index: u32,
    pub(crate) hardware_address: [u8; 6],
    pub(crate) relay_index: u32,
    state: Mutex<EndState>,
}

/// What the end is meant to have; while it is down, the kernel forgets some of it.
#[derive(Default)]
pub(crate) struct EndState {
    pub(crate) down: bool,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) neighbours: Vec<IpAddr>,
    pub(crate) routes: Vec<(IpNet, IpAddr)>,
}

impl End {
    /// Makes one veth pair, from the middle to a host, and brings both of its interfaces up. What it is of has a number in
    /// the lab, and the end one there.
    pub(crate) fn make(
        host: &Host,
        interface: &str,
        (number, side): (u16, u8),
        mtu: u32,
        middle: &Namespace,
    ) -> Result<Self, LabError> {
        let far_name = format!("link{number}p{side}");
        let hardware_address = hardware_address(number, side);
        let near = VethEnd { name: interface, hardware_address, mtu };
        let far = VethEnd { name: &far_name, hardware_address: hardware_address_of_relay(number, side), mtu };
        let attempted = format!("make interface {interface} on host {}", host.name());
        let request = interface::create_veth(&far, &near, host.namespace().as_fd());
        middle.netlink.request(request).map_err(veth_refused(attempted))?;

        let relay_index = prepare(middle, &far_name, "the relay")?;
        let refused = |error| LabError::refused(format!("silence {far_name}"), error);
        middle.netlink.request(interface::silence_ipv6(relay_index)).map_err(refused)?;
        let index = prepare(host.namespace(), interface, host.name())?;
        bring_up(middle, relay_index, &far_name)?;
        bring_up(host.namespace(), index, interface)?;
        await_ready(middle, relay_index, &far_name)?;
        await_ready(host.namespace(), index, interface)?;
        let (host, interface) = (host.clone(), interface.to_owned());
        Ok(Self { host, interface, index, hardware_address, relay_index, state: Mutex::default() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, EndState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn request(&self, request: crate::netlink::Request, tolerated: i32) -> io::Result<()> {
        tolerate(self.host.namespace().netlink.request(request), tolerated).map(drop)
    }

    pub(crate) fn refused(&self, what: &dyn fmt::Display) -> impl FnOnce(io::Error) -> LabError + use<> {
        let attempted = format!("{what} on interface {} of host {}", self.interface, self.host.name());
        move |error| LabError::refused(attempted, error)
    }
}

/// Whether an interface can have this name.
pub(crate) fn check_interface(name: &str) -> Result<(), LabError> {
    let sound = !name.is_empty()
        && name.len() <= 15
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace());
    if sound {
        return Ok(());
    }
    Err(LabError::Misuse(format!(
        "{name:?} cannot name an interface: give 1 to 15 bytes without blanks, colons and slashes, or, for a link, set \
         other names with LinkBuilder::interfaces"
    )))
}

/// Whether an interface can have this MTU.
pub(crate) fn check_mtu(of: &str, mtu: u32) -> Result<(), LabError> {
    if (1280..=65_535).contains(&mtu) {
        return Ok(());
    }
    Err(LabError::Misuse(format!("{of} cannot have an MTU of {mtu}: give 1280 to 65535")))
}

/// Finds an interface just made and takes its offloads away.
fn prepare(namespace: &Namespace, interface: &str, owner: &str) -> Result<u32, LabError> {
    let refused =
        |what: &'static str| move |error| LabError::refused(format!("{what} {interface} of {owner}"), error);
    let answers =
        namespace.netlink.request(interface::by_name(interface)).map_err(refused("find interface"))?;
    let index = interface::found(&answers).ok_or_else(|| {
        refused("find interface")(io::Error::other("the kernel's answer describes no interface"))
    })?;
    namespace
        .run("tb-offloads", || {
            let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None)?;
            sys::offloads_off(&socket, interface)
        })
        .map_err(refused("turn off the offloads of interface"))?;
    Ok(index)
}

fn bring_up(namespace: &Namespace, index: u32, interface: &str) -> Result<(), LabError> {
    let refused = |error| LabError::refused(format!("bring up {interface}"), error);
    namespace.netlink.request(interface::set_up(index)).map_err(refused).map(drop)
}

/// Waits until an interface that is up carries frames. Either end of a pair has to, or the first ones may be lost.
pub(crate) fn await_ready(namespace: &Namespace, index: u32, interface: &str) -> Result<(), LabError> {
    wait_until(&format!("wait for interface {interface}"), || {
        Ok(interface::is_ready(&namespace.netlink.request(interface::by_index(index))?))
    })
}

/// Waits until a host takes what comes for an address that it was given. For IPv6 the kernel sees to that later, when it
/// would be done looking for duplicates, even where it is told not to look.
pub(crate) fn await_local(namespace: &Namespace, net: IpNet) -> Result<(), LabError> {
    wait_until(&format!("wait for address {net}"), || {
        match namespace.netlink.request(address::route_to(net.address())) {
            Ok(answers) => Ok(address::is_local(&answers)),
            Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => Ok(false),
            Err(error) => Err(error),
        }
    })
}

fn wait_until(what: &str, mut holds: impl FnMut() -> io::Result<bool>) -> Result<(), LabError> {
    let guard = Instant::now() + READY_GUARD;
    while !holds().map_err(|error| LabError::refused(what, error))? {
        if Instant::now() > guard {
            return Err(LabError::refused(what, io::Error::from(io::ErrorKind::TimedOut)));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Locally administered, and telling in a capture which link and side it is.
fn hardware_address(number: u16, side: u8) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x02, 0, 0, high, low, side + 1]
}

fn hardware_address_of_relay(number: u16, side: u8) -> [u8; 6] {
    let mut address = hardware_address(number, side);
    address[2] = 1;
    address
}

/// The addresses of a host where nobody asked for others; hosts count from 1.
pub(crate) fn default_addresses(number: u16, host: u8) -> Vec<IpNet> {
    let [high, low] = number.to_be_bytes();
    let v4 = Ipv4Addr::new(10, low, high, host);
    let v6 = Ipv6Addr::new(0xfd00, number, 0, 0, 0, 0, 0, u16::from(host));
    [IpNet::new(v4, 24), IpNet::new(v6, 64)].into_iter().flatten().collect()
}
