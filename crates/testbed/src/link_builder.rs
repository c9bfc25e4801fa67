//! What a link shall be, before it is.

use std::sync::Arc;
use std::time::Duration;

use crate::access::packet_refused;
use crate::end::{End, check_interface, check_mtu, default_addresses};
use crate::link::Inner;
use crate::pipe::Pipe;
use crate::relay::Relay;
use crate::{Host, IpNet, Lab, LabError, Link, Loss, Queue, Settings, sys};

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
        let make = |side: usize| {
            End::make(&self.hosts[side], &self.interfaces[side], (number, side as u8), self.mtu, middle)
        };
        let (a, b) = (make(0)?, make(1)?);
        let sockets = middle.run("tb-sockets", || {
            Ok(vec![sys::packet_socket(a.relay_index)?, sys::packet_socket(b.relay_index)?])
        });
        let seed = self.seed.unwrap_or(u64::from(number));
        let pipes = [Pipe::new(self.settings.clone(), seed), Pipe::new(self.settings.clone(), !seed)];
        let relay = Relay::start(&self.name, sockets.map_err(packet_refused)?, pipes, None)
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
            check_interface(name)?;
        }
        if self.hosts[0].is(&self.hosts[1]) {
            let host = self.hosts[0].name();
            return misuse(format!(
                "link {} would join {host} with itself: give two different hosts",
                self.name
            ));
        }
        check_mtu(&format!("link {}", self.name), self.mtu)
    }

    fn addresses_for(&self, number: u16) -> [Vec<IpNet>; 2] {
        self.addresses.clone().unwrap_or_else(|| [default_addresses(number, 1), default_addresses(number, 2)])
    }
}
