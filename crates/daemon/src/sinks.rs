//! Where events go on this host besides its clients: the system's journal, a command for each, a file.
//!
//! A sink is a client of the agent in the daemon's own process. So its queue is as bounded as any other's, and holds up
//! nobody.
//!
//! | file | one idea |
//! |---|---|
//! | `settings.rs` | what the configuration says |
//! | `telling.rs` | how an event is told outside |
//! | `journal.rs`, `command.rs`, `file.rs` | the three of them |

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use steadfast_backplane::{
    Client, ClientId, Delivery, JobId, Matching, Next, Process, Replay, SubscriptionId,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::hub::Hub;
use crate::process::start_of;
use command::Commands;
use settings::{SinkName, SinkSettings, SinkTarget};

mod command;
mod file;
mod journal;
pub(crate) mod settings;
mod telling;

/// How long it is until what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a sink that ends has for what waits.
const LAST: Duration = Duration::from_secs(3);
/// How often the log tells of the same sink.
const SELDOM: Duration = Duration::from_secs(60);

/// A sink, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// What it is called.
    pub name: String,
    /// `journal`, `command` or `file`.
    pub kind: String,
    /// Why it does not work; none if it did the last time.
    pub fault: Option<String>,
    /// Events that it took: in the journal or the file, or whose command ended with 0.
    pub delivered: u64,
    /// Events that gave way in its full queue, or that it had not taken when it ended.
    pub dropped: u64,
    /// What failed: commands, which are not run again; attempts to write, which are repeated.
    pub failed: u64,
    /// Events that wait for it.
    pub waiting: u64,
}

/// The same while it changes. It outlives other settings of the sink.
#[derive(Debug)]
struct SinkState {
    name: SinkName,
    delivered: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    /// Taken out of the queue, and nothing of the above yet.
    in_hand: AtomicU64,
    fault: Mutex<Option<String>>,
    told: [Mutex<Option<Instant>>; 2],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SinkState {
    fn new(name: SinkName) -> Self {
        Self {
            name,
            delivered: AtomicU64::default(),
            dropped: AtomicU64::default(),
            failed: AtomicU64::default(),
            in_hand: AtomicU64::default(),
            fault: Mutex::default(),
            told: Default::default(),
        }
    }

    /// Whether it is time to tell people of something again.
    fn tells(&self, what: usize) -> bool {
        let mut told = lock(&self.told[what]);
        let due = told.is_none_or(|told| told.elapsed() >= SELDOM);
        if due {
            *told = Some(Instant::now());
        }
        due
    }

    fn delivered(&self, count: u64) {
        if count > 0 {
            self.delivered.fetch_add(count, Ordering::Relaxed);
            self.put_down(count);
            if lock(&self.fault).take().is_some() {
                tracing::debug!(sink = self.name.as_str(), "the sink works again");
            }
        }
    }

    fn put_down(&self, count: u64) {
        let less = |in_hand: u64| Some(in_hand.saturating_sub(count));
        let _always = self.in_hand.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// An event does not get there, and is not tried again.
    fn lost(&self, fault: String) {
        self.put_down(1);
        self.failed(fault);
    }

    /// It is tried again.
    fn failed(&self, fault: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if self.tells(0) {
            tracing::warn!(sink = self.name.as_str(), %fault, "events do not get there");
        }
        *lock(&self.fault) = Some(fault);
    }

    fn dropped(&self, count: u64) {
        if count == 0 {
            return;
        }
        self.dropped.fetch_add(count, Ordering::Relaxed);
        if self.tells(1) {
            let all = self.dropped.load(Ordering::Relaxed);
            tracing::warn!(
                sink = self.name.as_str(),
                all,
                "the oldest events gave way: more come than get there"
            );
        }
    }
}

/// What a sink gets.
#[derive(Debug)]
struct Feed {
    hub: Arc<Hub>,
    client: ClientId,
    /// Something came.
    came: Arc<Notify>,
    /// Nothing comes any more when this is true.
    end: watch::Receiver<bool>,
    state: Arc<SinkState>,
}

impl Feed {
    /// Attaches a sink to the agent.
    fn open(
        hub: &Arc<Hub>,
        settings: &SinkSettings,
        state: &Arc<SinkState>,
        end: watch::Receiver<bool>,
    ) -> Option<Self> {
        let pid = std::process::id();
        let user = rustix::process::geteuid().as_raw();
        let process = Process { user, pid, start: start_of(pid), own: true };
        let client = Client { name: state.name.0, job: JobId::NONE, extension: 0 };
        let came = Arc::new(Notify::new());
        let client = hub.with(|server, now| {
            let agent = server.agent_mut();
            let client = agent.attach(now, process, None, client).ok()?;
            for (number, wanted) in (1..).zip(&settings.events) {
                let id = SubscriptionId(number);
                agent.subscribe(now, client, id, wanted.clone(), Matching::Every, Replay::Nothing).ok()?;
            }
            Some(client)
        })?;
        hub.add_feed(client, Arc::clone(&came));
        Some(Self { hub: Arc::clone(hub), client, came, end, state: Arc::clone(state) })
    }

    fn state(&self) -> &SinkState {
        &self.state
    }

    fn shared_state(&self) -> Arc<SinkState> {
        Arc::clone(&self.state)
    }

    /// What is there to be taken.
    fn poll(&self) -> Option<Delivery> {
        loop {
            match self.hub.quietly(|server| server.agent_mut().poll(self.client))? {
                Next::Dropped(count) => self.state.dropped(count),
                Next::Event(delivery) => {
                    self.state.in_hand.fetch_add(1, Ordering::Relaxed);
                    return Some(delivery);
                }
            }
        }
    }

    /// What comes next; none at the end. Cancel safe.
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.poll() {
                return Some(delivery);
            }
            if *self.end.borrow_and_update() {
                return None;
            }
            tokio::select! {
                () = self.came.notified() => {}
                changed = self.end.changed() => changed.ok()?,
            }
        }
    }

    /// Wants nothing more.
    fn unsubscribe(hub: &Hub, client: ClientId, settings: &SinkSettings) {
        hub.quietly(|server| {
            for (number, _) in (1..).zip(&settings.events) {
                let _none = server.agent_mut().unsubscribe(client, SubscriptionId(number));
            }
        });
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let left = self.hub.quietly(|server| {
            let left = server.agent().waiting(self.client);
            server.agent_mut().detach(self.client);
            left
        });
        self.hub.remove_feed(self.client);
        self.state.dropped(left as u64 + self.state.in_hand.swap(0, Ordering::Relaxed));
    }
}

/// One sink at work.
#[derive(Debug)]
struct Running {
    settings: SinkSettings,
    state: Arc<SinkState>,
    client: ClientId,
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// All sinks of the daemon.
#[derive(Debug)]
pub(crate) struct Sinks {
    hub: Arc<Hub>,
    running: Mutex<BTreeMap<SinkName, Running>>,
}

impl Sinks {
    /// None yet.
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, running: Mutex::default() }
    }

    /// Makes them what the settings say. Those that stay as they are go on; what waits for others still gets there.
    /// Needs a runtime.
    pub(crate) fn set(&self, wanted: &settings::Sinks) {
        let mut running = lock(&self.running);
        let mut states = BTreeMap::new();
        let mut ending = Vec::new();
        for (name, one) in std::mem::take(&mut *running) {
            if wanted.0.get(&name) == Some(&one.settings) {
                running.insert(name, one);
            } else {
                states.insert(name, Arc::clone(&one.state));
                ending.push(self.end_one(one));
            }
        }
        // Who writes the same file as one that ends begins after it.
        let (done, gate) = watch::channel(());
        tokio::spawn(async move {
            for task in ending {
                let _ended = task.await;
            }
            drop(done);
        });
        for (name, settings) in &wanted.0 {
            if running.contains_key(name) {
                continue;
            }
            let state = states.remove(name).unwrap_or_else(|| Arc::new(SinkState::new(*name)));
            let (end, ended) = watch::channel(false);
            let Some(feed) = Feed::open(&self.hub, settings, &state, ended) else {
                tracing::error!(sink = name.as_str(), "the agent does not let this sink in");
                continue;
            };
            let client = feed.client;
            let task = tokio::spawn(run(feed, settings.to.clone(), gate.clone()));
            running.insert(*name, Running { settings: settings.clone(), state, client, end, task });
        }
    }

    fn end_one(&self, one: Running) -> JoinHandle<()> {
        Feed::unsubscribe(&self.hub, one.client, &one.settings);
        let _ended = one.end.send(true);
        one.task
    }

    /// Ends all. What waits has some time to get there.
    pub(crate) async fn close(&self) {
        let all = std::mem::take(&mut *lock(&self.running));
        let tasks: Vec<_> = all.into_values().map(|one| self.end_one(one)).collect();
        for task in tasks {
            let _ended = task.await;
        }
    }

    /// For people.
    pub(crate) fn status(&self) -> Vec<SinkStatus> {
        let status = |(name, one): (&SinkName, &Running)| SinkStatus {
            name: name.as_str().into(),
            kind: one.settings.to.kind().into(),
            fault: lock(&one.state.fault).clone(),
            delivered: one.state.delivered.load(Ordering::Relaxed),
            dropped: one.state.dropped.load(Ordering::Relaxed),
            failed: one.state.failed.load(Ordering::Relaxed),
            waiting: one.state.in_hand.load(Ordering::Relaxed)
                + self.hub.peek(|server| server.agent().waiting(one.client)) as u64,
        };
        lock(&self.running).iter().map(status).collect()
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        for one in lock(&self.running).values() {
            one.task.abort();
        }
    }
}

impl SinkTarget {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Journal(_) => "journal",
            Self::Command(_) => "command",
            Self::File(_) => "file",
        }
    }
}

/// Works until the end, and a little longer for what waits then.
async fn run(mut feed: Feed, to: SinkTarget, mut gate: watch::Receiver<()>) {
    let mut end = feed.end.clone();
    let commands = Commands::default();
    let work = async {
        // Open when there is nobody left who holds it.
        while gate.changed().await.is_ok() {}
        // What the one before said of its place is not said of this one's.
        *lock(&feed.state.fault) = None;
        match &to {
            SinkTarget::Journal(places) => journal::run(&mut feed, places).await,
            SinkTarget::Command(settings) => command::run(&mut feed, settings, &commands).await,
            SinkTarget::File(settings) => file::run(&mut feed, settings).await,
        }
    };
    let late = async {
        drop(end.wait_for(|end| *end).await);
        tokio::time::sleep(LAST).await;
    };
    tokio::select! {
        () = work => {}
        () = late => {}
    }
    // None outlives the daemon, nor the settings that want it.
    commands.end(command::STARTING).await;
}
