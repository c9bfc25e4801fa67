//! One conversation of a receiver: what is offered is looked at in order, contents are taken one after the other, files
//! come to their names several at a time.

use super::chores::{self, Chore, Finding};
use super::content::{Incoming, Taken};
use super::directories::{Directories, DirectoryId, Settled};
use super::{ReceiveFailure, Receiver};
use crate::digest::{StopOnDrop, Work};
use crate::idle::Idle;
use crate::manifest::{Chain, Entry, Kind};
use crate::message::{Answer, CONTENT, MAX_OPEN, Offer};
use crate::progress::{FileOutcome, Monitor, Stage};
use crate::store::{Fault, Found, Goal, Verified};
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use steadfast::{Labels, Message, MultiSocket, ReadError, SendError};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How many files come to their names at once: the disk then settles several with one wait.
const COMMITS: usize = 8;

/// Answers in one message.
const BATCH: usize = 64;

/// Answers and chores that wait before nothing more is taken from the sender. Each is bounded by an entry.
const WAITING: usize = 2 * MAX_OPEN;

/// How long the sender may take to hear the last answer.
const FAREWELL: Duration = Duration::from_secs(10);

/// An entry that is not settled.
struct Open {
    holder: DirectoryId,
    path: Vec<u8>,
    /// `None` for a directory.
    goal: Option<Goal>,
    state: State,
    again: bool,
}

enum State {
    /// Among the chores.
    Preparing,
    /// The sender is asked for what comes behind this.
    Wanted(Found),
    /// The sender is asked whether this is the same file.
    Compared,
    /// It is coming, or comes to its name.
    Coming,
}

type Slot<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

pub(super) struct Talk<'a> {
    receiver: &'a Receiver,
    socket: &'a MultiSocket,
    monitor: Arc<Monitor>,
    labels: Labels,
    chain: Chain,
    directories: Directories,
    open: BTreeMap<u64, Open>,
    next: u64,
    /// Bytes of all files that were offered.
    offered: u64,
    chores: VecDeque<Chore>,
    outbox: VecDeque<Answer>,
    /// Content that waits for the one before it.
    waiting: Option<Message>,
    /// Those whose thread has ended, on their way to their names.
    commits: JoinSet<(u64, Settling)>,
    verified: VecDeque<(u64, Verified)>,
    /// Said by the sender: that was all, but for so many.
    ended: Option<u64>,
    /// Directories have their modes.
    finished: bool,
    /// Bytes that were read of what is here.
    checked: Arc<Work>,
    /// Bytes of content that came.
    taken: Arc<Work>,
    alive: u64,
    _stop: StopOnDrop,
}

/// How a file came to its name.
enum Settling {
    Stored,
    Mismatch,
    Fault(Fault),
}

/// Takes everything; returns how many files the sender could not read.
pub(super) async fn run(
    receiver: &Receiver,
    socket: &MultiSocket,
    labels: Labels,
    monitor: Arc<Monitor>,
    welcome: Answer,
    mut stop: watch::Receiver<bool>,
) -> Result<u64, ReceiveFailure> {
    let checked = Arc::new(Work::default());
    let mut talk = Talk {
        receiver,
        socket,
        monitor,
        labels,
        chain: Chain::default(),
        directories: Directories::default(),
        open: BTreeMap::new(),
        next: 0,
        offered: 0,
        chores: VecDeque::new(),
        outbox: VecDeque::from([welcome]),
        waiting: None,
        commits: JoinSet::new(),
        verified: VecDeque::new(),
        ended: None,
        finished: false,
        checked: Arc::clone(&checked),
        taken: Arc::default(),
        alive: 0,
        _stop: StopOnDrop(checked),
    };
    tokio::select! {
        result = talk.go_on() => result,
        _ = stop.wait_for(|stop| *stop) => Err(ReceiveFailure::Superseded),
    }
}

impl Talk<'_> {
    async fn go_on(&mut self) -> Result<u64, ReceiveFailure> {
        let mut idle = Idle::new(self.receiver.idle);
        let mut ticks = tokio::time::interval(idle.tick());
        let mut chore: Option<JoinHandle<Vec<Finding>>> = None;
        let mut head: Slot<Result<Option<Incoming>, ReadError>> = None;
        let mut body: Slot<(u64, Taken)> = None;
        let mut coming = None;
        let mut told = (0, 0);
        loop {
            if chore.is_none() && !self.chores.is_empty() {
                chore = Some(self.start_chores());
            }
            let busy = head.is_some() || body.is_some() || !self.verified.is_empty();
            if !busy
                && self.commits.len() < COMMITS
                && let Some(message) = self.waiting.take()
            {
                head = Some(Box::pin(Incoming::read(message)));
            }
            self.start_commits();
            if let Some(failed) = self.look_at_the_end(chore.is_some()) {
                return self.farewell(failed).await;
            }
            self.say()?;
            let room = self.waiting.is_none() && self.outbox.len() < WAITING && self.chores.len() < WAITING;
            tokio::select! {
                message = self.socket.recv(), if room => {
                    let message = message.map_err(ReceiveFailure::Lost)?.ok_or(ReceiveFailure::GaveUp)?;
                    if self.take(message)? {
                        idle.moved();
                    }
                }
                findings = async { chore.as_mut().expect("checked before").await }, if chore.is_some() => {
                    chore = None;
                    for finding in findings.map_err(|_| ReceiveFailure::Panicked)? {
                        self.found(finding);
                    }
                    idle.moved();
                }
                incoming = async { head.as_mut().expect("checked before").await }, if head.is_some() => {
                    head = None;
                    if let Some(incoming) = incoming.map_err(lost)? {
                        coming = Some(incoming.entry);
                        body = self.begin(incoming)?;
                        idle.moved();
                    }
                }
                (entry, taken) = async { body.as_mut().expect("checked before").await }, if body.is_some() => {
                    body = None;
                    self.came(entry, taken)?;
                    idle.moved();
                }
                Some(commit) = self.commits.join_next(), if !self.commits.is_empty() => {
                    let (entry, settling) = commit.map_err(|_| ReceiveFailure::Panicked)?;
                    self.settling(entry, settling);
                    idle.moved();
                }
                _ = ticks.tick() => {
                    let now = (self.taken.bytes(), self.checked.bytes());
                    let ours = chore.is_some() || !self.commits.is_empty();
                    if ours || now.0 != told.0 {
                        idle.moved();
                    }
                    if now != told {
                        told = now;
                        self.outbox.push_back(Answer::Progress { taken: now.0, checked: now.1 });
                    }
                    self.look_at_the_clock(&mut idle, now).await?;
                }
            }
            // Retracted: what is still coming of it is refused.
            if coming.is_some_and(|entry| !self.open.contains_key(&entry)) {
                body = None;
            }
        }
    }

    async fn look_at_the_clock(&self, idle: &mut Idle, now: (u64, u64)) -> Result<(), ReceiveFailure> {
        let parked = !self.socket.has_network_for(&self.labels);
        self.monitor.stage(if parked { Stage::Parked } else { Stage::Moving });
        let alive = Answer::encode_all(&[Answer::Progress { taken: now.0, checked: now.1 }]);
        if idle.is_over(self.socket, alive, &self.labels).await {
            return Err(ReceiveFailure::Idle(self.receiver.idle));
        }
        Ok(())
    }

    /// Says what is to be said as far as there is room.
    fn say(&mut self) -> Result<(), ReceiveFailure> {
        while !self.outbox.is_empty() {
            let count = self.outbox.len().min(BATCH);
            let batch = &self.outbox.make_contiguous()[..count];
            match self.socket.try_send(Answer::encode_all(batch), self.labels.clone()) {
                Ok(_) => drop(self.outbox.drain(..count)),
                Err(SendError::Full(_)) => break,
                Err(_) => return Err(ReceiveFailure::GaveUp),
            }
        }
        Ok(())
    }

    /// Takes a message; whether it brings the transfer on.
    fn take(&mut self, message: Message) -> Result<bool, ReceiveFailure> {
        let broken = ReceiveFailure::Protocol;
        let payload = message.payload().cloned().unwrap_or_default();
        if message.is_streamed() || payload.first() == Some(&CONTENT) {
            self.waiting = Some(message);
            return Ok(false);
        }
        match Offer::decode(payload).map_err(|_| broken("its words cannot be read"))? {
            Offer::Entries(entries) => {
                if self.ended.is_some() {
                    return Err(broken("it offers after its end"));
                }
                for entry in entries {
                    self.offered(entry)?;
                }
            }
            Offer::Total { files, bytes } => self.monitor.counted(files, bytes),
            Offer::Same(entry) => self.compared(entry, true)?,
            Offer::Different(entry) => self.compared(entry, false)?,
            Offer::Retract { entry, changed, words } => self.retracted(entry, changed, words)?,
            Offer::Alive(bytes) => {
                let more = bytes > self.alive;
                self.alive = bytes;
                return Ok(more);
            }
            Offer::End { failed } => {
                if self.ended.replace(failed).is_some() {
                    return Err(broken("it ends twice"));
                }
            }
            Offer::Unknown => return Ok(false),
        }
        Ok(true)
    }

    fn offered(&mut self, entry: Entry) -> Result<(), ReceiveFailure> {
        if self.open.len() >= MAX_OPEN {
            return Err(ReceiveFailure::Protocol("it offers more than is agreed"));
        }
        if let Kind::File(size) = entry.kind {
            self.offered = self.offered.saturating_add(size);
        }
        let (entries, bytes) = self.receiver.limits;
        if self.next >= entries || self.offered > bytes {
            return Err(ReceiveFailure::TooMuch(entries, bytes));
        }
        let path = self.chain.place(&entry)?;
        let (holder, settled) = self.directories.enter(entry.depth as usize);
        self.finish(settled);
        let (sender, number) = (self.socket.peer(), self.next);
        self.next += 1;
        let Entry { mode, modified, .. } = entry;
        let goal = match entry.kind {
            Kind::Directory => {
                self.directories.push(holder, Settled { path: path.clone(), mode, modified, failed: false });
                self.chores.push_back(Chore::Make { entry: number, path: path.clone() });
                None
            }
            Kind::File(size) => {
                let goal = Goal { sender, path: path.clone(), size, mode, modified };
                let chore = Chore::Prepare { entry: number, goal: goal.clone(), compared: false };
                self.chores.push_back(chore);
                Some(goal)
            }
        };
        self.open.insert(number, Open { holder, path, goal, state: State::Preparing, again: false });
        Ok(())
    }

    fn compared(&mut self, entry: u64, same: bool) -> Result<(), ReceiveFailure> {
        let open = self.open.get_mut(&entry);
        let Some(Open { state, goal: Some(goal), .. }) =
            open.filter(|open| matches!(open.state, State::Compared))
        else {
            return Err(ReceiveFailure::Protocol("it compares what it was not asked about"));
        };
        if same {
            let outcome = FileOutcome::Kept(goal.size);
            self.settle(entry, Answer::Kept(entry), outcome);
        } else {
            *state = State::Preparing;
            self.chores.push_back(Chore::Prepare { entry, goal: goal.clone(), compared: true });
        }
        Ok(())
    }

    fn retracted(&mut self, entry: u64, changed: bool, words: String) -> Result<(), ReceiveFailure> {
        if entry >= self.next {
            return Err(ReceiveFailure::Protocol("it retracts what it did not offer"));
        }
        // We may have given it up ourselves meanwhile.
        let Some(open) = self.open.remove(&entry) else { return Ok(()) };
        if let (Some(goal), true) = (open.goal, changed) {
            self.chores.push_back(Chore::Discard(goal));
        }
        self.directories.failed(open.holder);
        self.release(open.holder);
        self.monitor.settled(open.path, FileOutcome::Failed(format!("the sender: {words}")));
        Ok(())
    }

    fn start_chores(&mut self) -> JoinHandle<Vec<Finding>> {
        let some: Vec<Chore> = self.chores.drain(..self.chores.len().min(BATCH)).collect();
        let (store, sender, work) =
            (Arc::clone(&self.receiver.store), self.socket.peer(), Arc::clone(&self.checked));
        tokio::task::spawn_blocking(move || chores::run(&store, sender, some, &work))
    }

    fn found(&mut self, finding: Finding) {
        match finding {
            Finding::Made(entry) => {
                if let Some(open) = self.open.remove(&entry) {
                    self.release(open.holder);
                }
                self.outbox.push_back(Answer::Stored(entry));
            }
            Finding::Want(entry, found) => {
                let Some(open) = self.open.get_mut(&entry) else { return };
                let digest = found.hasher.digest();
                self.outbox.push_back(Answer::Want { entry, have: found.have, digest });
                open.state = State::Wanted(found);
            }
            Finding::Stands(entry, digest) => {
                let Some(open) = self.open.get_mut(&entry) else { return };
                open.state = State::Compared;
                self.outbox.push_back(Answer::Compare { entry, digest });
            }
            Finding::Failed(entry, fault) => self.fail(entry, fault),
            Finding::Unfinished(path, fault) => {
                self.monitor.settled(path, FileOutcome::Failed(fault.0));
            }
        }
    }

    /// A content begins. What was retracted, or is none, is refused by dropping it.
    fn begin(&mut self, incoming: Incoming) -> Result<Slot<(u64, Taken)>, ReceiveFailure> {
        let entry = incoming.entry;
        if entry >= self.next {
            return Err(ReceiveFailure::Protocol("it sends what it did not offer"));
        }
        let Some(open) = self.open.get_mut(&entry) else { return Ok(None) };
        let (State::Wanted(found), Some(goal)) = (&mut open.state, &open.goal) else {
            return Err(ReceiveFailure::Protocol("it sends what was not asked for"));
        };
        let mut found = std::mem::take(found);
        if incoming.offset == 0 {
            found = Found::default();
        }
        if incoming.offset != found.have || !incoming.fits(goal) {
            return Err(ReceiveFailure::Protocol("it sends other bytes than it offered"));
        }
        open.state = State::Coming;
        self.monitor.started(&goal.path, found.have, goal.size);
        let (store, goal) = (Arc::clone(&self.receiver.store), goal.clone());
        let (monitor, taken) = (Arc::clone(&self.monitor), Arc::clone(&self.taken));
        Ok(Some(Box::pin(async move { (entry, incoming.take(store, goal, found, &monitor, &taken).await) })))
    }

    /// A content has come, or will not.
    fn came(&mut self, entry: u64, taken: Taken) -> Result<(), ReceiveFailure> {
        match taken {
            Taken::Verified(verified) => self.verified.push_back((entry, verified)),
            Taken::Mismatch => self.settling(entry, Settling::Mismatch),
            // The sender says why in words of its own.
            Taken::Dropped => {
                if let Some(open) = self.open.get_mut(&entry) {
                    open.state = State::Preparing;
                }
            }
            Taken::Fault(fault) => self.fail(entry, fault),
            Taken::Lost(error) => return Err(ReceiveFailure::Lost(error)),
            Taken::Lie => return Err(ReceiveFailure::Protocol("it sends other bytes than it offered")),
        }
        Ok(())
    }

    fn start_commits(&mut self) {
        while self.commits.len() < COMMITS
            && let Some((entry, verified)) = self.verified.pop_front()
        {
            let store = Arc::clone(&self.receiver.store);
            self.commits.spawn_blocking(move || match store.commit(verified) {
                Ok(()) => (entry, Settling::Stored),
                Err(fault) => (entry, Settling::Fault(fault)),
            });
        }
    }

    fn settling(&mut self, entry: u64, settling: Settling) {
        let Some(open) = self.open.get_mut(&entry) else { return };
        let Some(goal) = &open.goal else { return };
        match settling {
            Settling::Stored => {
                let outcome = FileOutcome::Stored(goal.size);
                self.settle(entry, Answer::Stored(entry), outcome);
            }
            Settling::Mismatch => {
                if std::mem::replace(&mut open.again, true) {
                    self.chores.push_back(Chore::Discard(goal.clone()));
                    let fault = "what came was twice something else than what was sent; look at the memory and the disks of both";
                    self.fail(entry, Fault(fault.into()));
                } else {
                    // Not removed: it comes again from its beginning, perhaps before a chore would get to it.
                    open.state = State::Wanted(Found::default());
                    self.outbox.push_back(Answer::Again(entry));
                }
            }
            Settling::Fault(fault) => self.fail(entry, fault),
        }
    }

    fn fail(&mut self, entry: u64, fault: Fault) {
        if let Some(open) = self.open.get(&entry) {
            self.directories.failed(open.holder);
        }
        let answer = Answer::Failed { entry, words: fault.0.clone() };
        self.settle(entry, answer, FileOutcome::Failed(fault.0));
    }

    fn settle(&mut self, entry: u64, answer: Answer, outcome: FileOutcome) {
        let Some(open) = self.open.remove(&entry) else { return };
        self.outbox.push_back(answer);
        self.release(open.holder);
        self.monitor.settled(open.path, outcome);
    }

    fn release(&mut self, holder: DirectoryId) {
        let mut settled = Vec::new();
        self.directories.release(holder, &mut settled);
        self.finish(settled);
    }

    fn finish(&mut self, settled: Vec<Settled>) {
        self.chores.extend(settled.into_iter().map(Chore::Finish));
    }

    /// How many files the sender could not read, once all is done.
    fn look_at_the_end(&mut self, chore: bool) -> Option<u64> {
        let failed = self.ended?;
        let settled = |talk: &Self| talk.open.is_empty() && talk.chores.is_empty() && !chore;
        if settled(self) && !self.finished {
            self.finished = true;
            let last = self.directories.end();
            self.finish(last);
        }
        (settled(self) && self.finished).then_some(failed)
    }

    /// Tells that all is done, and waits until the sender knows.
    async fn farewell(&mut self, failed: u64) -> Result<u64, ReceiveFailure> {
        let (taken, checked) = (self.taken.bytes(), self.checked.bytes());
        self.outbox.push_back(Answer::Progress { taken, checked });
        self.outbox.push_back(Answer::End);
        let last = async {
            while !self.outbox.is_empty() {
                self.say()?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            while let Ok(Some(_)) = self.socket.recv().await {}
            Ok::<_, ReceiveFailure>(())
        };
        // Everything is in its place, whether the sender hears it or not.
        let _heard = tokio::time::timeout(FAREWELL, last).await;
        let _over = self.socket.close_within(FAREWELL).await;
        Ok(failed)
    }
}

fn lost(error: ReadError) -> ReceiveFailure {
    match error {
        ReadError::Session(error) => ReceiveFailure::Lost(error),
        _ => ReceiveFailure::GaveUp,
    }
}
