//! The hosts, their switch, and a run.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::bail;
use steadfast_testbed::{EmulatorPrecision, Host, Lab, Switch, run_in_real_time};

use super::flood::{self, Flood};
use super::host::{Carrier, Found, Order, RackHost, Report};
use super::list::Traffic;
use super::{Late, Run};
use crate::Part;
use crate::child::{Child, Place};
use crate::usage::{Nanos, now};

/// Those that ask each other.
pub(crate) const HOSTS: usize = 5;
/// What may wait in front of a wire, in each of its eight queues: twenty times what the network holds in a round trip, as
/// switches of ten gigabits a second have.
const QUEUE: usize = 200_000;
pub(crate) const DESCRIPTION: &str = "emulated in user space: one switch, a wire each way for each host, in front of each 200,000 bytes \
    in each of eight queues of strict priority by DSCP (TCP is in the lowest), MTU 1500";
/// In real time a host's process is not interrupted by another, and the switch by none of them.
const LEVELS: [u8; 2] = [1, 2];
/// Anything that is not measured takes less.
const GUARD: Duration = Duration::from_secs(60);
/// Between an order and the first request.
const LEAD: Duration = Duration::from_millis(300);

/// What the emulator is worth on this machine.
pub(crate) fn precision() -> anyhow::Result<String> {
    Ok(EmulatorPrecision::measure()?.to_string().replace('\n', "; "))
}

/// The levels of the hosts' processes and of the switch, if this machine allows real time.
pub(crate) fn levels() -> Option<[u8; 2]> {
    let tried = thread::spawn(|| run_in_real_time(LEVELS[1])).join();
    tried.is_ok_and(|allowed| allowed.is_ok()).then_some(LEVELS)
}

pub(crate) struct Rack {
    hosts: Vec<Host>,
    switch: Switch,
    children: Vec<Child>,
    contacts: Vec<String>,
    ports: Vec<u16>,
    /// Kept, since the switch dies with it.
    _lab: Lab,
}

impl Rack {
    /// Measures the empty network, then what is offered.
    pub(crate) fn run(
        carrier: Carrier,
        traffic: Traffic,
        flood: Option<Flood>,
        lasts: Duration,
    ) -> anyhow::Result<Run> {
        let mut rack = Self::new(carrier, traffic, flood)?;
        rack.children[1].order(&Order::Alone)?;
        rack.expect_ready(1)?;
        let mut hostile = flood.map(|flood| rack.disturb(flood, traffic)).transpose()?;
        let before = rack.carried();
        let start = now() + LEAD.as_nanos() as Nanos;
        for child in &mut rack.children[..HOSTS] {
            child.order(&Order::Offer { offered: traffic.offered(), start, lasts })?;
        }
        let end = start + lasts.as_nanos() as Nanos;
        if let Some(hostile) = &mut hostile {
            hostile.begin(&rack.hosts[0], rack.ports[0])?;
        }
        thread::sleep(Duration::from_nanos(end.saturating_sub(now())));
        let carried = rack.carried() - before;
        let mut found = Found::default();
        for child in &rack.children[..HOSTS] {
            match child.expect("the requests", lasts + GUARD)? {
                Report::Found(of_host) => found.add(of_host),
                other => bail!("expected what was found, not {other:?}"),
            }
        }
        let bits = carried as f64 * 8.0 / HOSTS as f64;
        let link_used = bits / (traffic.mbit * 1e6 * lasts.as_secs_f64());
        let wires: Vec<_> = rack
            .hosts
            .iter()
            .map(|host| rack.switch.counters(host))
            .flat_map(|both| [both.up, both.down])
            .collect();
        let dropped = [
            wires.iter().map(|wire| wire.dropped_queue).sum(),
            wires.iter().map(|wire| wire.dropped_relay).sum(),
        ];
        let late = Late {
            frames: wires.iter().map(|wire| wire.late).sum(),
            of: wires.iter().map(|wire| wire.frames).sum(),
            most: wires.iter().map(|wire| wire.latest).max().unwrap_or_default(),
        };
        Ok(Run { found, link_used, dropped, late })
    }

    /// Starts a process on each host; they find each other. A greedy host is trusted as the others are.
    fn new(carrier: Carrier, traffic: Traffic, flood: Option<Flood>) -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let count = HOSTS + usize::from(flood.is_some());
        let hosts: Vec<Host> =
            (0..count).map(|number| lab.host(&format!("h{number}"))).collect::<Result<_, _>>()?;
        let all: Vec<&Host> = hosts.iter().collect();
        let builder = lab.switch("rack", &all).rate_mbit(traffic.mbit).queue_bytes(QUEUE).priorities(true);
        let switch = builder.real_time(levels().map(|[_, switch]| switch)).connect()?;
        let rate = (traffic.mbit * 1e6) as u64;
        let level = levels().map(|[hosts, _]| hosts);
        let (mut children, mut keys) = (Vec::new(), Vec::new());
        for (index, host) in hosts.iter().enumerate() {
            let part = RackHost { carrier, rate, index, level };
            let part = if index == HOSTS { Part::Hostile(part) } else { Part::RackHost(part) };
            children.push(Child::start(host.name(), part, Place::Host(host))?);
        }
        for child in &children {
            match child.expect("its key", GUARD)? {
                Report::Key(key) => keys.push(key),
                other => bail!("expected a key, not {other:?}"),
            }
        }
        let (mut contacts, mut ports) = (Vec::new(), Vec::new());
        for (index, child) in children.iter_mut().enumerate() {
            child.order(&Order::Trust(keys.iter().filter(|key| !key.is_empty()).cloned().collect()))?;
            match child.expect("where it is", GUARD)? {
                Report::Contact { contact, port } => {
                    let address = SocketAddr::new(switch.address_of(&hosts[index]), port);
                    contacts.push(if contact.is_empty() { address.to_string() } else { contact });
                    ports.push(port);
                }
                other => bail!("expected a contact, not {other:?}"),
            }
        }
        let mut rack = Self { hosts, switch, children, contacts, ports, _lab: lab };
        rack.meet()?;
        Ok(rack)
    }

    fn meet(&mut self) -> anyhow::Result<()> {
        for index in 0..self.children.len() {
            // A hostile host knows its victim.
            let others = if index == HOSTS { 0..1 } else { 0..HOSTS };
            let contacts = others.filter(|other| *other != index).map(|other| self.contacts[other].clone());
            self.children[index].order(&Order::Meet(contacts.collect()))?;
        }
        for index in 0..self.children.len() {
            self.expect_ready(index)?;
        }
        Ok(())
    }

    fn expect_ready(&self, index: usize) -> anyhow::Result<()> {
        match self.children[index].expect("being ready", GUARD)? {
            Report::Ready => Ok(()),
            other => bail!("expected a host to be ready, not {other:?}"),
        }
    }

    fn disturb(&mut self, flood: Flood, traffic: Traffic) -> anyhow::Result<flood::Conductor> {
        let Some(child) = self.children.pop().filter(|_| self.children.len() == HOSTS) else {
            bail!("there is no hostile host");
        };
        let target = SocketAddr::new(self.switch.address_of(&self.hosts[0]), self.ports[0]);
        Ok(flood::Conductor::new(child, flood, target, (traffic.mbit * 1e6) as u64))
    }

    /// Bytes that all wires to those hosts have carried that ask each other.
    fn carried(&self) -> u64 {
        self.hosts[..HOSTS].iter().map(|host| self.switch.counters(host).down.bytes).sum()
    }
}
