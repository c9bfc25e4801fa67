//! The demo's second process: makes two hosts and two networks, starts a process on each host, cuts and heals.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use steadfast_testbed::{Direction, Host, IpNet, Lab, LabError, Link, enter_user_namespace};

use super::protocol::{Nanos, Order, Report, Role, now, obey, read_lines, tell, write_line};
use crate::exit::Exit;

/// One of the emulated networks.
#[derive(Debug)]
pub(crate) struct NetworkPlan {
    /// Its name, and that of its interfaces.
    pub(crate) name: &'static str,
    /// Megabits a second, each way.
    pub(crate) rate_mbit: f64,
    /// From one host to the other.
    pub(crate) one_way: Duration,
    /// Those of the two hosts in it.
    addresses: [Ipv4Addr; 2],
}

/// The networks, the one that will be cut first.
pub(crate) const NETWORKS: [NetworkPlan; 2] = [
    NetworkPlan {
        name: "wifi",
        rate_mbit: 50.0,
        one_way: Duration::from_millis(10),
        addresses: addresses(1),
    },
    NetworkPlan { name: "lte", rate_mbit: 10.0, one_way: Duration::from_millis(30), addresses: addresses(2) },
];

const fn addresses(network: u8) -> [Ipv4Addr; 2] {
    [Ipv4Addr::new(10, 0, network, 1), Ipv4Addr::new(10, 0, network, 2)]
}

/// When the first network is cut, from the beginning of the run.
const CUT: Duration = Duration::from_secs(5);
/// When it comes back.
const HEAL: Duration = Duration::from_secs(10);
/// How long urgent messages go at least.
const RUN: Duration = Duration::from_secs(15);
/// The same without networks to cut.
const SHORT_RUN: Duration = Duration::from_secs(3);
/// Chosen so that the file lasts for most of the run.
const FILE_BYTES: u64 = 64 << 20;
/// How long the hosts have to get ready for the beginning once they were told.
const LEAD: Duration = Duration::from_millis(200);
/// How often the counters of the networks are told.
const PROGRESS: Duration = Duration::from_millis(100);
/// How long anything else may take.
const GUARD: Duration = Duration::from_secs(20);
/// How long the whole may take.
const WHOLE_GUARD: Duration = Duration::from_secs(120);

/// Where the conversation takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// Between two hosts that are made for it.
    Emulated,
    /// On this machine's loopback, where no hosts can be made.
    Loopback,
}

/// Runs the whole; must be called while the process has one thread.
pub(crate) fn run(place: Place) -> Exit {
    let stage = match place {
        Place::Emulated => match Stage::emulated() {
            Ok(stage) => stage,
            Err(error) => {
                tell(&Report::Forbidden(error.to_string()));
                return Exit::Done;
            }
        },
        Place::Loopback => Stage::Loopback,
    };
    // Orders are for hosts; here the end of standard input matters.
    obey(mpsc::channel().0);
    match perform(&stage) {
        Ok(()) => Exit::Done,
        Err(error) => {
            tell(&Report::Failed(format!("{error:#}")));
            Exit::Failed
        }
    }
}

/// What the hosts stand on.
enum Stage {
    Emulated {
        /// Kept, since links die with it.
        _lab: Lab,
        hosts: [Host; 2],
        links: Vec<Link>,
    },
    Loopback,
}

impl Stage {
    fn emulated() -> Result<Self, LabError> {
        if Lab::available().is_err() {
            enter_user_namespace()?;
        }
        let lab = Lab::new()?;
        let hosts = [lab.host(Role::Sender.host())?, lab.host(Role::Receiver.host())?];
        let links = NETWORKS.iter().map(|plan| {
            let link =
                lab.link(plan.name, &hosts[0], &hosts[1]).rate_mbit(plan.rate_mbit).delay(plan.one_way);
            let [a, b] = plan.addresses;
            // One address each: one path over each network, and one line in the story for what happens to it.
            link.addresses(&[IpNet::new(a, 24)?], &[IpNet::new(b, 24)?]).connect()
        });
        let links = links.collect::<Result<_, _>>()?;
        Ok(Self::Emulated { _lab: lab, hosts, links })
    }

    fn links(&self) -> &[Link] {
        match self {
            Self::Emulated { links, .. } => links,
            Self::Loopback => &[],
        }
    }

    fn is_loopback(&self) -> bool {
        matches!(self, Self::Loopback)
    }

    /// Where the comparison listens: on the network that will be cut.
    fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Emulated { hosts, links, .. } => Some(SocketAddr::new(links[0].address_of(&hosts[1]), 0)),
            Self::Loopback => None,
        }
    }

    /// Starts the process of a host, with pipes to and from it.
    fn start(&self, role: Role) -> anyhow::Result<Child> {
        let mut command = this_program();
        command
            .arg("demo-host")
            .arg(role.to_possible_value().map_or(String::new(), |v| v.get_name().to_owned()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = match self {
            Self::Emulated { hosts, .. } => hosts[role as usize].spawn(&mut command),
            Self::Loopback => command.spawn(),
        };
        child.with_context(|| format!("cannot start the process of host {}", role.host()))
    }
}

/// This program, even if its file was replaced meanwhile.
pub(crate) fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("steadfast");
    command
}

/// The processes of the hosts; dropping it ends them.
struct Troupe {
    children: [Child; 2],
    orders: [ChildStdin; 2],
    reports: Receiver<(Role, Option<Report>)>,
}

impl Troupe {
    fn start(stage: &Stage) -> anyhow::Result<Self> {
        let mut a = stage.start(Role::Sender)?;
        let mut b = stage.start(Role::Receiver)?;
        let (sender, reports) = mpsc::channel();
        let orders = [listen(&mut a, Role::Sender, sender.clone())?, listen(&mut b, Role::Receiver, sender)?];
        Ok(Self { children: [a, b], orders, reports })
    }

    fn order(&mut self, to: Role, order: &Order) -> anyhow::Result<()> {
        write_line(&mut self.orders[to as usize], order)
            .with_context(|| format!("the process of host {} is gone", to.host()))
    }

    /// Waits for the report that `wanted` makes something of, during the preparations.
    fn expect<T>(&self, what: &str, mut wanted: impl FnMut(Role, &Report) -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + GUARD;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (role, report) =
                self.reports.recv_timeout(left).with_context(|| format!("{what}: took too long"))?;
            match report {
                Some(Report::Failed(message)) => bail!(message),
                Some(report) => {
                    if let Some(found) = wanted(role, &report) {
                        return Ok(found);
                    }
                }
                None => bail!("{what}: the process of host {} ended", role.host()),
            }
        }
    }
}

impl Drop for Troupe {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that has ended cannot be killed, which is just as well.
            let _ended = child.kill();
            let _ended = child.wait();
        }
    }
}

/// Passes on what a host's process says, and its end as `None`.
fn listen(child: &mut Child, role: Role, to: Sender<(Role, Option<Report>)>) -> anyhow::Result<ChildStdin> {
    let output = child.stdout.take().context("a process was started without its output")?;
    let input = child.stdin.take().context("a process was started without its input")?;
    thread::spawn(move || {
        read_lines(output, |report| {
            let _over = to.send((role, Some(report)));
        });
        let _over = to.send((role, None));
    });
    Ok(input)
}

fn perform(stage: &Stage) -> anyhow::Result<()> {
    let mut troupe = Troupe::start(stage)?;
    prepare(stage, &mut troupe)?;
    let at = now() + nanos(LEAD);
    let until = at + nanos(if stage.is_loopback() { SHORT_RUN } else { RUN });
    troupe.order(Role::Sender, &Order::Begin { at, until, file_bytes: FILE_BYTES })?;
    tell(&Report::Began { at, until, file_bytes: FILE_BYTES });
    conduct(stage, &troupe, at)
}

/// Introduces the hosts to each other.
fn prepare(stage: &Stage, troupe: &mut Troupe) -> anyhow::Result<()> {
    let loopback = stage.is_loopback();
    let trust = troupe.expect("making a key", |role, report| match report {
        Report::Key(key) if role == Role::Sender => Some(key.clone()),
        _ => None,
    })?;
    troupe.order(Role::Receiver, &Order::Listen { trust, loopback, tcp: stage.tcp() })?;
    let (contact, tcp) = troupe.expect("listening", |_, report| match report {
        Report::Listening { contact, tcp } => Some((contact.clone(), *tcp)),
        _ => None,
    })?;
    let networks = stage.links().iter().map(|link| link.name().to_owned()).collect();
    troupe.order(Role::Sender, &Order::Connect { contact, loopback, networks, tcp })?;
    troupe.expect("connecting", |_, report| matches!(report, Report::Connected).then_some(()))
}

/// Does to the networks what is planned at its time, and passes on what the hosts say until both are done.
fn conduct(stage: &Stage, troupe: &Troupe, at: Nanos) -> anyhow::Result<()> {
    let carried = || stage.links().iter().map(|link| link.counters().a_to_b.bytes).collect::<Vec<_>>();
    let before = carried();
    let mut plan = vec![(at + nanos(HEAL), false), (at + nanos(CUT), true)];
    let mut next_progress = at;
    let mut running = 2;
    while running > 0 {
        let time = now();
        if time > at + nanos(WHOLE_GUARD) {
            return Err(anyhow!("the demo did not end within {WHOLE_GUARD:?}"));
        }
        if let (Some(link), Some((due, cut))) = (stage.links().first(), plan.last().copied())
            && time >= due
        {
            plan.pop();
            change(link, cut);
        }
        if time >= next_progress {
            next_progress = time + nanos(PROGRESS);
            let carried = carried().iter().zip(&before).map(|(now, before)| now - before).collect();
            tell(&Report::Carried(carried));
        }
        let next = plan.last().map_or(next_progress, |(due, _)| (*due).min(next_progress));
        match troupe.reports.recv_timeout(Duration::from_nanos(next.saturating_sub(now()))) {
            Ok((_, Some(Report::Failed(message)))) => bail!(message),
            Ok((_, Some(report))) => tell(&report),
            Ok((_, None)) => running -= 1,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(())
}

fn change(link: &Link, cut: bool) {
    if cut {
        link.blackhole(Direction::Both);
        tell(&Report::Cut(now()));
    } else {
        link.heal();
        tell(&Report::Healed(now()));
    }
}

fn nanos(time: Duration) -> Nanos {
    time.as_nanos() as Nanos
}
