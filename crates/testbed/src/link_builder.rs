//! What a link shall be, before it is.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::access::{packet_refused, veth_refused};
use crate::link::{End, Inner};
use crate::namespace::Namespace;
use crate::netlink::address;
use crate::netlink::interface::{self, VethEnd};
use crate::pipe::Pipe;
use crate::relay::Relay;
use crate::{Host, IpNet, Lab, LabError, Link, Loss, Queue, Settings, sys};

/// How long a fresh interface may take to be ready; it takes microseconds, but the kernel promises nothing.
const READY_GUARD: Duration = Duration::from_secs(10);

/// A link in the making: both directions alike, without limits unless set here. Change one direction afterwards with
/// [`Link::set_direction`].
#[derive(Debug)]
#[must_use = "a link exists only once it is connected"]
pub struct LinkBuilder<'lab> {
    lab: &'lab Lab,
    name: String,
    hosts: [Host; 2],
    interfaces: [String; 2],
    addresses: Option<[Vec<IpNet>; 2]>,
    settings: Settings,
    mtu: u32,
    seed: Option<u64>,
}

impl<'lab> LinkBuilder<'lab> {
    pub(crate) fn new(lab: &'lab Lab, name: &str, a: &Host, b: &Host) -> Self {
        Self {
            lab,
            name: name.into(),
            hosts: [a.clone(), b.clone()],
            interfaces: [name.into(), name.into()],
            addresses: None,
            settings: Settings::default(),
            mtu: 1500,
            seed: None,
        }
    }

    /// Megabits (10^6 bits) per second each way, counting 14 bytes of Ethernet header a frame. Default: no limit.
    pub fn rate_mbit(mut self, rate: f64) -> Self {
        self.settings.rate = Some((rate * 1e6) as u64);
        self
    }

    /// One-way delay. Default zero, at most an hour.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.settings.delay = delay;
        self
    }

    /// Extra one-way delay, uniform between zero and this, that keeps the order of frames. Default zero.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.settings.jitter = jitter;
        self
    }

    /// Probability between 0 and 1 that a frame is lost, each for itself. Default 0.
    pub fn loss(mut self, loss: f64) -> Self {
        self.settings.loss = Loss::Independent(loss);
        self
    }

    /// Loses a share of all frames between 0 and 1, in bursts of so many frames on average; see [`Loss::Bursty`].
    pub fn bursty_loss(mut self, share: f64, mean_burst_frames: f64) -> Self {
        self.settings.loss = Loss::Bursty { share, mean_burst: mean_burst_frames };
        self
    }

    /// What may wait for the wire, in time at the link's rate, before frames are dropped. Default 100 ms.
    pub fn queue(mut self, queue: Duration) -> Self {
        self.settings.queue = Queue::Time(queue);
        self
    }

    /// What may wait for the wire, in bytes, before frames are dropped.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.settings.queue = Queue::Bytes(bytes);
        self
    }

    /// Whether frames wait in eight queues of strict priority, by DSCP; see [`Settings::priorities`]. Default false.
    pub fn priorities(mut self, on: bool) -> Self {
        self.settings.priorities = on;
        self
    }

    /// All settings at once, in place of those set before.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Largest IP packet in bytes, 1280 to 65535. Default 1500.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// The interface's name on each host, when it shall not be the link's; at most 15 bytes each.
    pub fn interfaces(mut self, on_a: &str, on_b: &str) -> Self {
        self.interfaces = [on_a.into(), on_b.into()];
        self
    }

    /// The addresses of each host, in place of the default: for the lab's Nth link `10.N.0.1/24` and `fd00:N::1/64` on
    /// the first host and the same with `.2` and `::2` on the second (N in hexadecimal in IPv6; from N = 256 on,
    /// `10.(N mod 256).(N / 256).1/24`). Either may be empty.
    pub fn addresses(mut self, of_a: &[IpNet], of_b: &[IpNet]) -> Self {
        self.addresses = Some([of_a.to_vec(), of_b.to_vec()]);
        self
    }

    /// What loss and jitter are drawn from; the same seed and the same frames give the same fate. Default: the link's
    /// number in its lab.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Makes the interfaces, gives them their addresses, starts the relay, and returns once both ends are ready.
    ///
    /// [`LabError::Misuse`] for a name, an MTU or a pair of hosts that cannot work, [`LabError::Forbidden`] where the
    /// kernel lacks veth or packet sockets, [`LabError::Refused`] for what else the kernel does not take, such as a name
    /// that the host already has.
    pub fn connect(self) -> Result<Link, LabError> {
        self.check()?;
        let number = self.lab.next_link_number();
        let middle = self.lab.middle();
        let a = self.make_end(0, number, middle)?;
        let b = self.make_end(1, number, middle)?;
        let sockets = middle.run("tb-sockets", || {
            Ok([sys::packet_socket(a.relay_index)?, sys::packet_socket(b.relay_index)?])
        });
        let seed = self.seed.unwrap_or(u64::from(number));
        let pipes = [Pipe::new(self.settings.clone(), seed), Pipe::new(self.settings.clone(), !seed)];
        let relay = Relay::start(&self.name, sockets.map_err(packet_refused)?, pipes)
            .map_err(|error| LabError::refused("start the relay thread", error))?;
        let link =
            Link::new(Inner { name: self.name.clone(), ends: [a, b], relay, middle: Arc::clone(middle) });
        self.lab.adopt(link.clone());
        for (host, nets) in self.hosts.iter().zip(self.addresses_for(number)) {
            for net in nets {
                link.add_address(host, net)?;
            }
        }
        Ok(link)
    }

    fn check(&self) -> Result<(), LabError> {
        let misuse = |message: String| Err(LabError::Misuse(message));
        for name in &self.interfaces {
            let sound = !name.is_empty()
                && name.len() <= 15
                && name != "."
                && name != ".."
                && !name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace());
            if !sound {
                return misuse(format!(
                    "{name:?} cannot name an interface: give 1 to 15 bytes without blanks, colons and slashes, or set \
                     other names with LinkBuilder::interfaces"
                ));
            }
        }
        if self.hosts[0].is(&self.hosts[1]) {
            let host = self.hosts[0].name();
            return misuse(format!(
                "link {} would join {host} with itself: give two different hosts",
                self.name
            ));
        }
        if !(1280..=65_535).contains(&self.mtu) {
            return misuse(format!(
                "link {} cannot have an MTU of {}: give 1280 to 65535",
                self.name, self.mtu
            ));
        }
        Ok(())
    }

    /// Makes one veth pair, from the middle to a host, and brings both of its interfaces up.
    fn make_end(&self, side: usize, number: u16, middle: &Namespace) -> Result<End, LabError> {
        let (host, interface) = (&self.hosts[side], &self.interfaces[side]);
        let far_name = format!("link{number}{}", ["a", "b"][side]);
        let hardware_address = hardware_address(number, side as u8);
        let near = VethEnd { name: interface, hardware_address, mtu: self.mtu };
        let far = VethEnd {
            name: &far_name,
            hardware_address: hardware_address_of_relay(number, side),
            mtu: self.mtu,
        };
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
        Ok(End::new(host.clone(), interface.clone(), index, hardware_address, relay_index))
    }

    fn addresses_for(&self, number: u16) -> [Vec<IpNet>; 2] {
        self.addresses.clone().unwrap_or_else(|| [default_addresses(number, 1), default_addresses(number, 2)])
    }
}

/// Finds an interface just made and takes its offloads away.
fn prepare(namespace: &Namespace, interface: &str, owner: &str) -> Result<u32, LabError> {
    let refused =
        |what: &'static str| move |error| LabError::refused(format!("{what} {interface} of {owner}"), error);
    let answers =
        namespace.netlink.request(interface::by_name(interface)).map_err(refused("find interface"))?;
    let index = interface::found(&answers).ok_or_else(|| {
        refused("find interface")(std::io::Error::other("the kernel's answer describes no interface"))
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
            Err(error) if error.kind() == std::io::ErrorKind::NetworkUnreachable => Ok(false),
            Err(error) => Err(error),
        }
    })
}

fn wait_until(what: &str, mut holds: impl FnMut() -> std::io::Result<bool>) -> Result<(), LabError> {
    let guard = Instant::now() + READY_GUARD;
    while !holds().map_err(|error| LabError::refused(what, error))? {
        if Instant::now() > guard {
            return Err(LabError::refused(what, std::io::Error::from(std::io::ErrorKind::TimedOut)));
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

fn hardware_address_of_relay(number: u16, side: usize) -> [u8; 6] {
    hardware_address(number, side as u8 + 2)
}

fn default_addresses(number: u16, host: u8) -> Vec<IpNet> {
    let [high, low] = number.to_be_bytes();
    let v4 = Ipv4Addr::new(10, low, high, host);
    let v6 = Ipv6Addr::new(0xfd00, number, 0, 0, 0, 0, 0, u16::from(host));
    [IpNet::new(v4, 24), IpNet::new(v6, 64)].into_iter().flatten().collect()
}
