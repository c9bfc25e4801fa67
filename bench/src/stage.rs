//! Two hosts, the networks between them, and what happens to one of those.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use steadfast_testbed::{Counters, Direction, Host, IpNet, Lab, Link, Queue, enter_user_namespace};

use crate::systems::{System, mptcp};

/// One of the networks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) one_way: Duration,
    /// Of the client's direction and of the server's; none means no limit.
    pub(crate) rate_mbit: [Option<f64>; 2],
    /// What may wait where there is a rate.
    pub(crate) queue: Duration,
    pub(crate) jitter: Duration,
    pub(crate) loss: f64,
}

impl Plan {
    /// Without delay, loss and limits.
    pub(crate) const fn new(name: &'static str) -> Self {
        let zero = Duration::ZERO;
        Self { name, one_way: zero, rate_mbit: [None; 2], queue: zero, jitter: zero, loss: 0.0 }
    }

    pub(crate) const fn one_way(mut self, millis: u64) -> Self {
        self.one_way = Duration::from_millis(millis);
        self
    }

    /// Both ways, with so much waiting at most.
    pub(crate) const fn rate(mut self, mbit: f64, queue_millis: u64) -> Self {
        self.rate_mbit = [Some(mbit); 2];
        self.queue = Duration::from_millis(queue_millis);
        self
    }

    /// From the client to the server alone.
    pub(crate) const fn one_sided(mut self) -> Self {
        self.rate_mbit[1] = None;
        self
    }

    /// Loses so many of a hundred frames and delays each by up to so much more.
    pub(crate) const fn lossy(mut self, percent: f64, jitter_millis: u64) -> Self {
        self.loss = percent / 100.0;
        self.jitter = Duration::from_millis(jitter_millis);
        self
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        let queue = format!(", at most {} ms of it waiting", self.queue.as_millis());
        let rate = match self.rate_mbit {
            [Some(mbit), Some(_)] => format!(", {mbit} Mbit/s each way{queue}"),
            [Some(mbit), None] => format!(", {mbit} Mbit/s from the client{queue}, no limit to it"),
            [None, Some(mbit)] => format!(", {mbit} Mbit/s to the client{queue}, no limit from it"),
            [None, None] => String::new(),
        };
        let part = |there: bool, words: String| if there { words } else { String::new() };
        let loss = part(self.loss > 0.0, format!(", {} % of all packets lost each way", self.loss * 100.0));
        let jitter = self.jitter.as_millis();
        let jitter = part(jitter > 0, format!(", up to {jitter} ms more each way by chance"));
        format!("{} ms round trip{rate}{loss}{jitter}", self.one_way.as_millis() * 2)
    }
}

/// What happens to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing passes, and nobody is told.
    Silent,
    /// The client's own interface is set down.
    Down,
}

impl Fault {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Down => "down",
        }
    }
}

/// The hosts and networks of one run.
pub(crate) struct Stage {
    /// Kept, since links die with it.
    _lab: Lab,
    pub(crate) client: Host,
    pub(crate) server: Host,
    links: Vec<Link>,
}

impl Stage {
    /// What is lost and delayed by chance follows from the seed and the traffic.
    pub(crate) fn new(plans: &[Plan], seed: u64) -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let (client, server) = (lab.host("client")?, lab.host("server")?);
        let mut links = Vec::new();
        for (number, plan) in (1u8..).zip(plans) {
            let [a, b] = [1, 2].map(|host| IpNet::new(Ipv4Addr::new(10, 0, number, host), 24));
            let link = lab.link(plan.name, &client, &server).delay(plan.one_way).jitter(plan.jitter);
            let link = link.loss(plan.loss).addresses(&[a?], &[b?]).seed(seed * 16 + u64::from(number));
            let link = link.connect()?;
            for (direction, rate) in [Direction::AToB, Direction::BToA].into_iter().zip(plan.rate_mbit) {
                link.set_direction(direction, |settings| {
                    settings.rate = rate.map(|mbit| (mbit * 1e6) as u64);
                    settings.queue = Queue::Time(plan.queue);
                });
            }
            links.push(link);
        }
        Ok(Self { _lab: lab, client, server, links })
    }

    /// Sets the hosts up for a system.
    pub(crate) fn prepare(&self, system: System) -> anyhow::Result<()> {
        if system == System::Mptcp { mptcp::prepare(self) } else { Ok(()) }
    }

    /// The server's addresses, one on each network.
    pub(crate) fn server_addresses(&self) -> Vec<IpAddr> {
        self.links.iter().map(|link| link.address_of(&self.server)).collect()
    }

    /// The names of the networks, which are also those of the interfaces.
    pub(crate) fn networks(&self) -> Vec<String> {
        self.links.iter().map(|link| link.name().to_owned()).collect()
    }

    /// What each network has carried.
    pub(crate) fn counters(&self) -> Vec<Counters> {
        self.links.iter().map(Link::counters).collect()
    }

    /// Says so if the emulator was too slow for what was sent: then a run says little.
    pub(crate) fn complain(&self) {
        let of = |both: &Counters| both.a_to_b.dropped_relay + both.b_to_a.dropped_relay;
        let frames: u64 = self.counters().iter().map(of).sum();
        if frames > 0 {
            eprintln!("the emulator lost {frames} frames because this machine was too slow");
        }
    }

    /// Bytes that all networks have carried, both ways.
    pub(crate) fn bytes(&self) -> u64 {
        self.counters().iter().map(|both| both.a_to_b.bytes + both.b_to_a.bytes).sum()
    }

    /// The network that has carried most frames to the server since `before`.
    pub(crate) fn busiest(&self, before: &[Counters]) -> usize {
        let now = self.counters();
        let since = |link: &usize| now[*link].a_to_b.frames - before[*link].a_to_b.frames;
        (0..now.len()).max_by_key(since).unwrap_or(0)
    }

    pub(crate) fn cut(&self, link: usize, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Silent => self.links[link].blackhole(Direction::Both),
            Fault::Down => self.links[link].carrier_down(&self.client)?,
        }
        Ok(())
    }

    pub(crate) fn heal(&self, link: usize, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Silent => self.links[link].heal(),
            Fault::Down => self.links[link].carrier_up(&self.client)?,
        }
        Ok(())
    }
}

/// Sees to it that this process may make hosts and networks.
pub(crate) fn allow() -> anyhow::Result<()> {
    if Lab::available().is_err() {
        await_single_thread();
        enter_user_namespace()?;
    }
    Ok(())
}

/// A thread that was joined may still be in the kernel's list for a moment, and then no user namespace can be entered.
fn await_single_thread() {
    for _ in 0..1000 {
        if fs::read_dir("/proc/self/task").map_or(1, Iterator::count) <= 1 {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
