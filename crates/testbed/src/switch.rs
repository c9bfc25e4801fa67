//! Several hosts on one switch: each frame crosses the wire of its sender, then that of its receiver.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::access::packet_refused;
use crate::end::{End, await_local, check_interface, check_mtu, default_addresses};
use crate::namespace::Namespace;
use crate::netlink::{address, interface, tolerate};
use crate::pipe::{DirectionCounters, Pipe};
use crate::relay::{BATCH, Relay, Wiring, deliver};
use crate::{Host, IpNet, Lab, LabError, Queue, Settings, sys};

/// Hardware addresses of hosts count them, and have a byte for it.
const MOST_HOSTS: usize = 250;

/// A switch in the making. Both ways of each port are alike, without limits unless set here; change one way of one host's
/// afterwards with [`Switch::set_up`] and [`Switch::set_down`].
#[derive(Debug)]
#[must_use = "a switch exists only once it is connected"]
pub struct SwitchBuilder<'lab> {
    lab: &'lab Lab,
    name: String,
    hosts: Vec<Host>,
    settings: Settings,
    mtu: u32,
    seed: Option<u64>,
    level: Option<u8>,
}

/// A switch; a handle, whose clones mean the same one.
///
/// It stores a frame until it is whole and passes it on to the host with its destination's hardware address. What is for
/// a group goes to all others, what is for nobody here to nobody.
///
/// # Panics
/// A method that takes a host panics if it has no port here.
#[derive(Clone)]
pub struct Switch {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    ends: Vec<End>,
    relay: Relay<Vec<Port>>,
    middle: Arc<Namespace>,
}

/// What became of the frames of one host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortCounters {
    /// From the host to the switch; its frames and bytes are those that the switch passed on.
    pub up: DirectionCounters,
    /// From the switch to the host.
    pub down: DirectionCounters,
}

struct Port {
    hardware_address: [u8; 6],
    up: Pipe,
    down: Pipe,
}

impl Wiring for Vec<Port> {
    fn entry(&mut self, socket: usize) -> &mut Pipe {
        &mut self[socket].up
    }

    fn deliver(&mut self, sockets: &[Socket]) {
        switch(self, Instant::now());
        for (port, socket) in self.iter_mut().zip(sockets) {
            deliver(socket, &mut port.down);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.iter().flat_map(|port| [port.up.poll_timeout(), port.down.poll_timeout()]).flatten().min()
    }
}

/// Passes on what has arrived at the switch, in the order in which it did and at that time: a relay that is late does not change
/// which frame goes first.
fn switch(ports: &mut [Port], now: Instant) {
    for _ in 0..BATCH * ports.len() {
        let arrived =
            ports.iter_mut().enumerate().filter_map(|(number, port)| Some((port.up.arrived(now)?, number)));
        let Some((_, from)) = arrived.min() else { return };
        let Some((at, frame)) = ports[from].up.arrive(now) else { return };
        ports[from].up.counters.hand_over(at, now, frame.len());
        pass_on(ports, from, at, &frame);
    }
}

fn pass_on(ports: &mut [Port], from: usize, now: Instant, frame: &[u8]) {
    let Some(destination) = frame.first_chunk::<6>() else { return };
    let is_group = destination[0] & 1 == 1;
    for (number, port) in ports.iter_mut().enumerate() {
        if number != from && (is_group || port.hardware_address == *destination) {
            port.down.enter(now, frame);
        }
    }
}

impl<'lab> SwitchBuilder<'lab> {
    pub(crate) fn new(lab: &'lab Lab, name: &str, hosts: &[&Host]) -> Self {
        let hosts = hosts.iter().copied().cloned().collect();
        Self {
            lab,
            name: name.into(),
            hosts,
            settings: Settings::default(),
            mtu: 1500,
            seed: None,
            level: None,
        }
    }

    /// Megabits (10^6 bits) per second of each wire each way, counting 14 bytes of Ethernet header a frame. Default: no
    /// limit.
    pub fn rate_mbit(mut self, rate: f64) -> Self {
        self.settings.rate = Some((rate * 1e6) as u64);
        self
    }

    /// One-way delay of each wire; between two hosts there are two. Default zero, at most an hour.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.settings.delay = delay;
        self
    }

    /// What may wait for a wire, in bytes, before frames are dropped. Default 100 ms at its rate.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.settings.queue = Queue::Bytes(bytes);
        self
    }

    /// Whether frames wait in eight queues of strict priority, by DSCP; see [`Settings::priorities`]. Default false.
    pub fn priorities(mut self, on: bool) -> Self {
        self.settings.priorities = on;
        self
    }

    /// Largest IP packet in bytes, 1280 to 65535. Default 1500.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// What loss and jitter are drawn from; the same seed and the same frames give the same fate. Default: the switch's
    /// number in its lab.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Whether the switch runs [in real time](crate::run_in_real_time), at this level. Then it is on time while the hosts'
    /// processes take all processors, but not if these are in real time, too, and take nearly all; `late` and `latest` among its
    /// [counters](Switch::counters) tell. [`connect`](Self::connect) fails if that is not allowed. Default no.
    pub fn real_time(mut self, level: Option<u8>) -> Self {
        self.level = level;
        self
    }

    /// Makes the interfaces, all with the switch's name, gives each host the addresses `10.N.0.H/24` and `fd00:N::H/64`, where
    /// the switch is the lab's Nth link and H counts hosts from 1, tells each of all others, and returns once all are
    /// ready. Errors are those of [`LinkBuilder::connect`](crate::LinkBuilder::connect).
    pub fn connect(self) -> Result<Switch, LabError> {
        self.check()?;
        let number = self.lab.next_link_number();
        let middle = self.lab.middle();
        let mut ends = Vec::new();
        for (side, host) in (0..).zip(&self.hosts) {
            ends.push(End::make(host, &self.name, (number, side), self.mtu, middle)?);
        }
        let sockets: Result<_, _> = middle
            .run("tb-sockets", || ends.iter().map(|end: &End| sys::packet_socket(end.relay_index)).collect());
        let seed = self.seed.unwrap_or(u64::from(number)) << 16;
        let pipe = |seed| Pipe::new(self.settings.clone(), seed);
        let port = |(side, end): (u64, &End)| Port {
            hardware_address: end.hardware_address,
            up: pipe(seed + side * 2),
            down: pipe(seed + side * 2 + 1),
        };
        let ports = (0..).zip(&ends).map(port).collect();
        let relay = Relay::start(&self.name, sockets.map_err(packet_refused)?, ports, self.level)
            .map_err(|error| LabError::refused("start the relay thread", error))?;
        let switch = Switch {
            inner: Arc::new(Inner { name: self.name.clone(), ends, relay, middle: Arc::clone(middle) }),
        };
        self.lab.adopt_switch(switch.clone());
        switch.introduce_all(number)?;
        Ok(switch)
    }

    fn check(&self) -> Result<(), LabError> {
        check_interface(&self.name)?;
        check_mtu(&format!("switch {}", self.name), self.mtu)?;
        let count = self.hosts.len();
        if !(2..=MOST_HOSTS).contains(&count) {
            return Err(LabError::Misuse(format!(
                "switch {} cannot join {count} hosts: give 2 to {MOST_HOSTS}",
                self.name
            )));
        }
        let repeated = |(at, host): &(usize, &Host)| self.hosts[..*at].iter().any(|before| before.is(host));
        let twice = self.hosts.iter().enumerate().find(repeated);
        match twice {
            Some((_, host)) => Err(LabError::Misuse(format!(
                "switch {} would join {} twice: give each host once",
                self.name,
                host.name()
            ))),
            None => Ok(()),
        }
    }
}

impl Switch {
    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The IPv4 address of a host here.
    pub fn address_of(&self, host: &Host) -> IpAddr {
        let addresses = self.inner.ends[self.port_of(host)].state().addresses.clone();
        let v4 = addresses.iter().map(IpNet::address).find(IpAddr::is_ipv4);
        v4.unwrap_or_else(|| panic!("every host on a switch has an IPv4 address"))
    }

    /// Changes the settings of the wire from a host to the switch, as [`Link::set`](crate::Link::set) does for a link.
    pub fn set_up(&self, host: &Host, change: impl FnOnce(&mut Settings)) {
        let port = self.port_of(host);
        self.inner.relay.with_pipes(|ports| ports[port].up.set(Instant::now(), change));
    }

    /// Changes the settings of the wire from the switch to a host, and of the queue in front of it.
    pub fn set_down(&self, host: &Host, change: impl FnOnce(&mut Settings)) {
        let port = self.port_of(host);
        self.inner.relay.with_pipes(|ports| ports[port].down.set(Instant::now(), change));
    }

    /// What became of a host's frames so far.
    pub fn counters(&self, host: &Host) -> PortCounters {
        let port = self.port_of(host);
        self.inner
            .relay
            .counted(|ports| PortCounters { up: ports[port].up.counters, down: ports[port].down.counters })
    }

    fn port_of(&self, host: &Host) -> usize {
        let port = self.inner.ends.iter().position(|end| end.host.is(host));
        port.unwrap_or_else(|| panic!("host {} has no port on switch {}", host.name(), self.name()))
    }

    /// Gives every host its addresses, and tells it where all others are: a switch asks nobody.
    fn introduce_all(&self, number: u16) -> Result<(), LabError> {
        let ends = &self.inner.ends;
        for (side, end) in (1..).zip(ends) {
            for net in default_addresses(number, side) {
                let refused = end.refused(&format_args!("add address {net}"));
                end.request(address::add(end.index, net), 0).map_err(refused)?;
                await_local(end.host.namespace(), net)?;
                end.state().addresses.push(net);
                for other in ends.iter().filter(|other| !std::ptr::eq(*other, end)) {
                    let refused = other.refused(&format_args!("add neighbour {}", net.address()));
                    let request = address::add_neighbour(other.index, net.address(), end.hardware_address);
                    other.request(request, 0).map_err(refused)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the relay; the interfaces vanish.
    pub(crate) fn remove(&self) -> Result<(), LabError> {
        self.inner.relay.stop();
        for end in &self.inner.ends {
            let result = self.inner.middle.netlink.request(interface::delete(end.relay_index));
            tolerate(result, libc::ENODEV).map_err(end.refused(&"remove the switch"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.inner.ends.iter().map(|end| end.host.name()).collect();
        f.debug_struct("Switch").field("name", &self.name()).field("hosts", &hosts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Three hosts; 1,000 bytes take 1 ms on each wire.
    fn three() -> Vec<Port> {
        let settings = Settings { rate: Some(8_000_000), priorities: true, ..Settings::default() };
        let pipe = || Pipe::new(settings.clone(), 1);
        let port = |number| Port { hardware_address: [2, 0, 0, 0, 0, number], up: pipe(), down: pipe() };
        (0..3).map(port).collect()
    }

    /// A frame of 1,000 bytes to a host in a class, which is its last byte, too.
    fn frame(to: u8, class: u8) -> Vec<u8> {
        let mut frame = vec![class; 1000];
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, to]);
        frame[12..16].copy_from_slice(&[0x08, 0x00, 0x45, class << 5]);
        frame
    }

    fn taken(pipe: &mut Pipe, now: Instant) -> Vec<(u8, Instant)> {
        std::iter::from_fn(|| pipe.arrive(now)).map(|(at, frame)| (frame[999], at)).collect()
    }

    #[test]
    fn a_late_relay_changes_neither_when_frames_leave_nor_which_goes_first() {
        let (start, mut ports) = (Instant::now(), three());
        // The first host's frame is at the switch after 1 ms, those of the second after 1.5 and 2.5: when the wire to the third is
        // free for the next, the urgent one is not there yet.
        ports[0].up.enter(start, &frame(2, 3));
        ports[1].up.enter(start + MS / 2, &frame(2, 1));
        ports[1].up.enter(start + MS / 2, &frame(2, 7));
        switch(&mut ports, start + 50 * MS);
        let expected = [(3, 2), (1, 3), (7, 4)].map(|(class, millis)| (class, start + millis * MS));
        assert_eq!(taken(&mut ports[2].down, start + 50 * MS), expected);
        let late = ports.iter().map(|port| port.up.counters.late).sum::<u64>();
        assert_eq!(late, 3, "and it is told that it was late");
    }

    #[test]
    fn what_has_not_arrived_is_not_passed_on() {
        let (start, mut ports) = (Instant::now(), three());
        ports[0].up.enter(start, &frame(2, 1));
        switch(&mut ports, start + MS / 2);
        assert_eq!(taken(&mut ports[2].down, start + 50 * MS), []);
        switch(&mut ports, start + MS);
        assert_eq!(taken(&mut ports[2].down, start + 50 * MS), [(1, start + 2 * MS)]);
    }
}
