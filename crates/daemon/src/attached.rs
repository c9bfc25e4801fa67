//! The processes that are attached: what they are told of the networks, their parts of them, and what they tell of themselves.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use steadfast::host::{
    Allowance, Attach, HostNetworks, Interface, Lines, MAX_LISTED, MAX_NETWORKS, MAX_TEXT, Reply, State,
    Statement, Usage, VERSION, namespace,
};
use steadfast_backplane::Process;
use steadfast_net::Scout;
use steadfast_session::{Arbiter, Config, Owner, ProcessId, Report};
use steadfast_wire::Instant;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::{Instant as Wall, sleep, timeout};

use crate::daemon::Shared;
use crate::process::name_of;
use crate::status::{PartStatus, ProcessStatus};

/// The most that are attached, of all users and of one; as many as the arbiter knows.
const MOST: usize = 1024;
const MOST_OF_USER: usize = 128;
/// The longest line of a process: what [`MAX_LISTED`] conversations and peers need.
const MAX_LINE: usize = 64 * 1024;
/// How many lines a process may say in a second, and at once; more of them wait in its own socket.
const RATE: f64 = 40.0;
const BURST: f64 = 40.0;
/// How long it may take to read what it is told.
const LIMIT: Duration = Duration::from_secs(5);
/// How often the arbiter is told the time while anybody is there.
const TICK: Duration = Duration::from_millis(100);
/// The most networks of one peer that are kept.
const MAX_PEER_NETWORKS: usize = 8;

/// All that are attached.
#[derive(Debug)]
pub(crate) struct Attached {
    started: Wall,
    namespace: u64,
    inner: Mutex<Inner>,
    /// The first one came.
    came: Notify,
}

#[derive(Debug)]
struct Inner {
    arbiter: Arbiter,
    members: BTreeMap<ProcessId, Arc<Member>>,
    users: HashMap<u32, usize>,
    last: u64,
}

/// One of them.
#[derive(Debug)]
struct Member {
    process: Process,
    name: String,
    attach: Attach,
    since: Wall,
    told: Mutex<Told>,
    /// There are shares for it.
    wake: Notify,
}

/// What it tells and is told.
#[derive(Debug, Default)]
struct Told {
    usage: Vec<Usage>,
    state: State,
    /// What it was last allowed, by network; and of these what it does not know yet.
    allowed: BTreeMap<u32, Allowance>,
    unsaid: BTreeMap<u32, Allowance>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Attached {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            arbiter: Arbiter::new(Config::default().background_queue),
            members: BTreeMap::new(),
            users: HashMap::new(),
            last: 0,
        };
        Self { started: Wall::now(), namespace: namespace(), inner: Mutex::new(inner), came: Notify::new() }
    }

    fn now(&self) -> Instant {
        Instant(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX / 2))
    }

    /// Lets a process in, unless there are too many.
    pub(crate) fn enter(self: &Arc<Self>, process: Process, attach: Attach) -> Result<Guard, String> {
        let mut inner = lock(&self.inner);
        let of = |user| inner.users.get(&user).copied().unwrap_or_default();
        let (of_user, of_root) = (of(process.user), of(0));
        // Others leave root its room.
        if process.user != 0 && inner.members.len() - of_root >= MOST - MOST_OF_USER {
            return Err(
                "too many processes of all users are attached already; this one goes on by itself".into()
            );
        }
        if of_user >= MOST_OF_USER {
            return Err(format!(
                "{MOST_OF_USER} processes of user {} are attached already; this one goes on by itself",
                process.user
            ));
        }
        inner.users.insert(process.user, of_user + 1);
        inner.last += 1;
        let id = ProcessId(inner.last);
        let (name, attach) = (name_of(process.pid), Attach { key: shorten(attach.key), ..attach });
        let (told, wake, since) = (Mutex::default(), Notify::new(), Wall::now());
        let member = Arc::new(Member { process, name, attach, since, told, wake });
        inner.members.insert(id, Arc::clone(&member));
        drop(inner);
        self.came.notify_one();
        Ok(Guard { all: Arc::clone(self), id, member })
    }

    /// Passes on what the arbiter says.
    fn distribute(inner: &mut Inner) {
        while let Some((process, share)) = inner.arbiter.poll_share() {
            let Some(member) = inner.members.get(&process) else { continue };
            let mut told = lock(&member.told);
            // At most as many as it may tell of.
            told.allowed.insert(share.network.0, share.into());
            told.unsaid.insert(share.network.0, share.into());
            drop(told);
            member.wake.notify_one();
        }
    }

    /// Tells the arbiter the time, for as long as the daemon runs.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        loop {
            let is_empty = {
                let (mut inner, now) = (lock(&self.inner), self.now());
                inner.arbiter.handle_timeout(now);
                Self::distribute(&mut inner);
                inner.members.is_empty()
            };
            if is_empty {
                self.came.notified().await;
            } else {
                sleep(TICK).await;
            }
        }
    }

    /// What is counted, for Prometheus.
    pub(crate) fn visit(&self, mut put: impl FnMut(&str, u64)) {
        let inner = lock(&self.inner);
        let stats = inner.arbiter.stats();
        put("processes_now", inner.members.len() as u64);
        put("silent", stats.silent);
        put("refused_processes", stats.refused_processes);
        put("refused_reports", stats.refused_reports);
    }

    /// What a user may see: root all, others what is theirs.
    pub(crate) fn status(&self, user: u32) -> Vec<ProcessStatus> {
        let inner = lock(&self.inner);
        let seen = inner.members.values().filter(|member| user == 0 || member.process.user == user);
        let seen: Vec<_> = seen.cloned().collect();
        drop(inner);
        seen.iter().map(|member| member.status()).collect()
    }
}

/// Takes a process out when its connection ends, and gives its part to the others at once.
pub(crate) struct Guard {
    all: Arc<Attached>,
    id: ProcessId,
    member: Arc<Member>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (mut inner, now) = (lock(&self.all.inner), self.all.now());
        inner.members.remove(&self.id);
        let user = self.member.process.user;
        if let Some(count) = inner.users.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                inner.users.remove(&user);
            }
        }
        inner.arbiter.handle_gone(now, self.id);
        Attached::distribute(&mut inner);
    }
}

impl Guard {
    /// What it does on its networks.
    fn report(&self, mut usage: Vec<Usage>) {
        // What is left out takes no memory either.
        usage.truncate(MAX_NETWORKS);
        usage.shrink_to_fit();
        for network in &mut usage {
            network.name = shorten(std::mem::take(&mut network.name));
        }
        let report = Report { networks: usage.iter().map(Into::into).collect() };
        let owner = Owner { user: self.member.process.user, namespace: self.member.attach.namespace };
        {
            let mut told = lock(&self.member.told);
            let keep = |id: &u32| usage.iter().any(|network| network.network == *id);
            told.allowed.retain(|id, _| keep(id));
            told.unsaid.retain(|id, _| keep(id));
            told.usage = usage;
        }
        let (mut inner, now) = (lock(&self.all.inner), self.all.now());
        inner.arbiter.handle_report(now, self.id, owner, &report);
        Attached::distribute(&mut inner);
    }

    fn account(&self, mut state: State) {
        state.sessions.truncate(MAX_LISTED);
        state.sessions.shrink_to_fit();
        state.peers.truncate(MAX_LISTED);
        state.peers.shrink_to_fit();
        for session in &mut state.sessions {
            for text in [&mut session.session, &mut session.peer, &mut session.state, &mut session.verdict] {
                *text = shorten(std::mem::take(text));
            }
        }
        for peer in &mut state.peers {
            peer.networks.truncate(MAX_PEER_NETWORKS);
            peer.networks.shrink_to_fit();
            let texts = [&mut peer.peer, &mut peer.verdict, &mut peer.evidence];
            for text in texts.into_iter().chain(&mut peer.networks) {
                *text = shorten(std::mem::take(text));
            }
        }
        lock(&self.member.told).state = state;
    }
}

impl Member {
    fn status(&self) -> ProcessStatus {
        let told = lock(&self.told);
        let part = |usage: &Usage| PartStatus {
            network: usage.name.clone(),
            paths: usage.paths,
            foreground: usage.foreground,
            background: usage.background,
            allowed: told.allowed.get(&usage.network).and_then(|allowed| allowed.rate),
        };
        ProcessStatus {
            pid: self.process.pid,
            process: self.name.clone(),
            user: self.process.user,
            key: self.attach.key.clone(),
            attached: self.since.elapsed().as_secs_f64(),
            networks: told.usage.iter().map(part).collect(),
            state: told.state.clone(),
        }
    }
}

/// A text that is no longer than it may be, and holds no more room than it needs.
fn shorten(mut text: String) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or_default());
    text.shrink_to_fit();
    text
}

/// How much a process may still say.
struct Measure {
    left: f64,
    since: Wall,
}

impl Measure {
    /// Waits until another line is admitted.
    async fn admit(&mut self) {
        self.left = (self.left + self.since.elapsed().as_secs_f64() * RATE).min(BURST);
        self.since = Wall::now();
        self.left -= 1.0;
        if self.left < 0.0 {
            sleep(Duration::from_secs_f64(-self.left / RATE)).await;
        }
    }
}

/// What is known of the networks here.
fn networks(scout: &Scout, shared: &Shared) -> HostNetworks {
    let interface = |network: &steadfast::Network| {
        let name = scout.device_of(network.id)?;
        let class = network.class.name().into();
        Some(Interface { id: network.id.0, name, class, metered: network.metered })
    };
    HostNetworks {
        namespace: shared.attached.namespace,
        configuration: shared.networks.iter().map(Into::into).collect(),
        interfaces: scout.networks().iter().filter_map(interface).collect(),
    }
}

/// Serves one process until its end. `read` is what it said after the first line.
pub(crate) async fn serve(shared: &Shared, stream: UnixStream, read: &[u8], guard: &Guard) -> io::Result<()> {
    let mut lines = Lines::new(stream, read, MAX_LINE);
    let mut measure = Measure { left: BURST, since: Wall::now() };
    let mut changes = shared.scout.subscribe();
    changes.mark_changed();
    loop {
        let mut reply = Reply { version: VERSION, ..Reply::default() };
        tokio::select! {
            line = lines.next() => {
                hear(guard, &line?, &mut reply);
                measure.admit().await;
            }
            () = guard.member.wake.notified() => {}
            changed = changes.changed() => {
                changed.map_err(io::Error::other)?;
                reply.host = Some(networks(&shared.scout, shared));
            }
        }
        let unsaid = std::mem::take(&mut lock(&guard.member.told).unsaid);
        if !unsaid.is_empty() {
            reply.shares = Some(unsaid.into_values().collect());
        }
        if reply != (Reply { version: VERSION, ..Reply::default() }) {
            say(&mut lines, &reply).await?;
        }
    }
}

fn hear(guard: &Guard, line: &[u8], reply: &mut Reply) {
    let statement = match serde_json::from_slice::<Statement>(line) {
        Ok(statement) if statement.version == VERSION => statement,
        Ok(Statement { version, .. }) => {
            reply.error = Some(format!(
                "this daemon speaks version {VERSION}, not {version}; update the older of both"
            ));
            return;
        }
        Err(error) => {
            reply.error = Some(format!("cannot understand that ({error})"));
            return;
        }
    };
    if let Some(usage) = statement.usage {
        guard.report(usage);
    }
    if let Some(state) = statement.state {
        guard.account(state);
    }
    reply.pong = statement.ping;
}

/// Writes a line, unless the process reads too slowly.
async fn say(lines: &mut Lines, reply: &Reply) -> io::Result<()> {
    lines.put(reply)?;
    timeout(LIMIT, lines.written()).await?
}
