//! The task behind a scout: netlink in, networks out.

use super::config::{Finding, Knowledge, Override, ScoutConfig};
use super::metered::{self, Answers};
use super::table::{Change, RTM_GETADDR, RTM_GETLINK, Table};
use super::{class, class::Hints};
use crate::netlink::{self, DONE, DUMP, DUMP_INTERRUPTED, ERROR, Message, Socket, messages, request};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use steadfast_wire::{Network, NetworkClass, NetworkId};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch as channel;
use tokio::task::JoinSet;

/// Multicast groups (rtnetlink(7)): links, addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// What the kernel may queue before it must drop: a few thousand messages.
const QUEUE: usize = 1024 * 1024;
/// More than the kernel puts into one datagram of a dump (32 KiB).
const DATAGRAM: usize = 64 * 1024;
/// Datagrams in one turn before the runtime's other tasks get theirs.
const TURN: usize = 64;
/// `IFLA_EXT_MASK` with `RTEXT_FILTER_SKIP_STATS`: nobody here looks at counters.
const SKIP_STATISTICS: [u8; 4] = 8u32.to_ne_bytes();
const IFLA_EXT_MASK: u16 = 29;

pub(super) struct Watch {
    /// With what was told before its own.
    config: ScoutConfig,
    /// What the configuration says itself.
    own: Vec<Override>,
    told: channel::Receiver<Knowledge>,
    socket: AsyncFd<Socket>,
    table: Table,
    dump: Dump,
    /// Of the latest request: tells the end of its dump from an older one's.
    sequence: u32,
    answers: Answers,
    asking: JoinSet<Answers>,
    /// The networks changed since `asking` began.
    ask_again: bool,
    networks: channel::Sender<Arc<[Network]>>,
    routes: channel::Sender<u64>,
    devices: Arc<Mutex<BTreeMap<NetworkId, String>>>,
}

/// Reading everything anew, at the start and after messages were lost.
#[derive(Debug)]
enum Dump {
    None,
    Links(Fresh),
    Addresses(Fresh),
}

/// What a dump has told so far, and the events since.
#[derive(Debug, Default)]
struct Fresh {
    table: Table,
    /// Something was lost or changed meanwhile: once more after this.
    spoiled: bool,
}

type Started = (
    Watch,
    channel::Receiver<Arc<[Network]>>,
    channel::Receiver<u64>,
    Arc<Mutex<BTreeMap<NetworkId, String>>>,
);

impl Watch {
    /// Opens the socket and reads the present state.
    pub(super) async fn start(
        config: ScoutConfig,
        told: channel::Receiver<Knowledge>,
    ) -> io::Result<Started> {
        let socket = Socket::open(netlink::ROUTE, GROUPS)?;
        // The privileged call goes beyond the system's bound; without the privilege the bound has to do.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE).is_err() {
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, QUEUE)?;
        }
        let (networks, networks_receiver) = channel::channel(Arc::from([]));
        let (routes, routes_receiver) = channel::channel(0);
        let devices = Arc::new(Mutex::new(BTreeMap::new()));
        let mut watch = Self {
            own: config.overrides.clone(),
            config,
            told,
            socket: register(socket)?,
            table: Table::default(),
            dump: Dump::None,
            sequence: 0,
            answers: Answers::new(),
            asking: JoinSet::new(),
            ask_again: false,
            networks,
            routes,
            devices: Arc::clone(&devices),
        };
        watch.take_in();
        watch.ask();
        watch.begin_dump()?;
        while !matches!(watch.dump, Dump::None) {
            watch.socket.readable().await?.retain_ready();
            watch.turn()?;
        }
        if let Some(Ok(answers)) = watch.asking.join_next().await {
            watch.answers = answers;
        }
        watch.publish();
        // What was found at the start is no change.
        watch.ask_again = false;
        let mut networks_receiver = networks_receiver;
        networks_receiver.mark_unchanged();
        Ok((watch, networks_receiver, routes_receiver, devices))
    }

    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                ready = self.socket.readable() => {
                    // Readiness is cleared in `turn`, by the read that finds nothing.
                    let ready = ready.map(|mut guard| guard.retain_ready());
                    if let Err(error) = ready.and_then(|()| self.turn()) {
                        tracing::info!(%error, "the host's networks are no longer watched");
                        return;
                    }
                    // A turn may end early while more is queued.
                    tokio::task::yield_now().await;
                }
                Ok(()) = self.told.changed() => {
                    self.take_in();
                    self.publish();
                    self.ask();
                }
                Some(answers) = self.asking.join_next() => {
                    // A child that was lost leaves what was known, and who was told meanwhile needs no answer.
                    if let (Ok(answers), false) = (answers, self.told.borrow().is_kept) {
                        self.answers = answers;
                    }
                    self.publish();
                    if std::mem::take(&mut self.ask_again) {
                        self.ask();
                    }
                }
            }
        }
    }

    /// Takes in what somebody else says.
    fn take_in(&mut self) {
        let told = self.told.borrow_and_update();
        self.config.overrides = told.overrides.iter().chain(&self.own).cloned().collect();
        if told.is_kept {
            // Who says that has newer ones.
            self.answers.clear();
        }
    }

    /// Takes in what is queued, then publishes once.
    fn turn(&mut self) -> io::Result<()> {
        // Changes are rare, and endpoints may be many: nothing is kept for the next one.
        let mut buffer = vec![0; DATAGRAM];
        let (mut networks, mut routes) = (false, false);
        let mut result = Ok(());
        for _ in 0..TURN {
            let read = self.socket.try_io(Interest::READABLE, |socket| socket.receive(&mut buffer));
            let step = match read {
                Ok(datagram) => self.datagram(datagram, &mut networks, &mut routes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) if was_lost(&error) => self.begin_dump(),
                Err(error) => Err(error),
            };
            if step.is_err() {
                result = step;
                break;
            }
        }
        if routes {
            self.routes.send_modify(|count| *count += 1);
        }
        if networks && matches!(self.dump, Dump::None) && self.publish() {
            self.ask();
        }
        result
    }

    fn datagram(&mut self, datagram: &[u8], networks: &mut bool, routes: &mut bool) -> io::Result<()> {
        for message in messages(datagram) {
            let ours = message.sequence == self.sequence && !matches!(self.dump, Dump::None);
            if ours && message.flags & DUMP_INTERRUPTED != 0 {
                self.spoil();
            }
            match message.kind {
                DONE if ours => {
                    self.end_of_dump()?;
                    *networks = true;
                }
                ERROR if ours => {
                    if let Some(error) = netlink::error_of(message.body) {
                        return Err(error);
                    }
                }
                _ => match self.apply(&message) {
                    Change::Networks => *networks = true,
                    Change::Routes => *routes = true,
                    Change::Nothing => {}
                },
            }
        }
        Ok(())
    }

    fn apply(&mut self, message: &Message<'_>) -> Change {
        match &mut self.dump {
            Dump::None => self.table.apply(message),
            Dump::Links(fresh) | Dump::Addresses(fresh) => fresh.table.apply(message),
        }
    }

    /// Reads everything anew; if that is under way, once more afterwards (the kernel runs one dump a socket).
    fn begin_dump(&mut self) -> io::Result<()> {
        if !matches!(self.dump, Dump::None) {
            self.spoil();
            return Ok(());
        }
        self.dump = Dump::Links(Fresh::default());
        self.ask_kernel(RTM_GETLINK)
    }

    fn spoil(&mut self) {
        if let Dump::Links(fresh) | Dump::Addresses(fresh) = &mut self.dump {
            fresh.spoiled = true;
        }
    }

    fn end_of_dump(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.dump, Dump::None) {
            Dump::None => Ok(()),
            Dump::Links(fresh) => {
                self.dump = Dump::Addresses(fresh);
                self.ask_kernel(RTM_GETADDR)
            }
            Dump::Addresses(fresh) if fresh.spoiled => self.begin_dump(),
            Dump::Addresses(fresh) => {
                self.table = fresh.table;
                Ok(())
            }
        }
    }

    fn ask_kernel(&mut self, kind: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut body = Vec::with_capacity(24);
        if kind == RTM_GETLINK {
            body.resize(16, 0);
            body.extend_from_slice(&8u16.to_ne_bytes());
            body.extend_from_slice(&IFLA_EXT_MASK.to_ne_bytes());
            body.extend_from_slice(&SKIP_STATISTICS);
        } else {
            body.resize(8, 0);
        }
        self.socket.get_ref().send(&request(kind, DUMP, self.sequence, &body))
    }

    /// Asks what is metered; if that is under way, once more afterwards. Not while somebody else does.
    fn ask(&mut self) {
        if self.told.borrow().is_kept {
            return;
        }
        let Some(program) = self.config.nmcli.clone() else { return };
        if !self.asking.is_empty() {
            self.ask_again = true;
            return;
        }
        let limit = self.config.nmcli_limit;
        self.asking.spawn(async move { metered::ask(&program, limit).await });
    }

    /// Tells the networks if they changed; returns whether they did.
    fn publish(&mut self) -> bool {
        let (networks, devices): (Vec<Network>, BTreeMap<NetworkId, String>) = {
            let told = self.told.borrow();
            let found = self.table.links().filter_map(|link| {
                let finding = told.of(NetworkId(link.index), &link.name);
                let network = network_of(link, &self.table, &self.config, &self.answers, finding)?;
                let device = (network.id, link.name.clone());
                Some((network, device))
            });
            found.unzip()
        };
        // Before the networks, so that whoever is told of a network can ask for its device.
        *self.devices.lock().unwrap_or_else(PoisonError::into_inner) = devices;
        self.networks.send_if_modified(|current| {
            if **current == *networks {
                return false;
            }
            *current = networks.into();
            tracing::debug!(networks = ?current, "the host's networks changed");
            true
        })
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; what it asks for holds, since a Socket owns its descriptor and never changes it"
)]
fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

fn network_of(
    link: &super::table::Link,
    table: &Table,
    config: &ScoutConfig,
    answers: &Answers,
    finding: Option<&Finding>,
) -> Option<Network> {
    if !link.is_usable() || config.ignores(&link.name) {
        return None;
    }
    let addresses = table.usable_addresses(link.index);
    if addresses.is_empty() {
        return None;
    }
    let hints = |link: &super::table::Link| -> Hints { class::hints(&config.sysfs, link) };
    let class = config.class(&link.name).or(finding.map(|finding| finding.class));
    let class = class.unwrap_or_else(|| class::classify(link, table, &hints));
    let metered = answers.get(&link.name).copied().or(finding.map(|finding| finding.metered));
    let metered = metered.unwrap_or(class == NetworkClass::Cellular);
    let id = NetworkId(link.index);
    let name = link.name.clone();
    let mut network = Network { id, name, class, metered, cost: 0, port: config.port, addresses };
    config.apply(&link.name, &mut network);
    Some(network)
}

/// Whether the kernel, or our buffer, dropped messages.
fn was_lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) || error.kind() == io::ErrorKind::InvalidData
}
