//! One conversation of a sender: offers go ahead, contents follow one after the other, answers come back.

use super::content::{self, Done, Job, Task};
use super::walk::{Item, Place, Plan};
use super::{SendFailure, Sender};
use crate::digest::{Digest, StopOnDrop, Work};
use crate::idle::Idle;
use crate::manifest::{Entry, Kind, Time};
use crate::message::{Answer, Greeting, MAX_BATCH, MAX_MESSAGE, MAX_OPEN, Offer, VERSION};
use crate::progress::{FileOutcome, Monitor, Stage};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use steadfast::{Labels, MultiSocket, OrderRequest, SendError};
use tokio::sync::{mpsc, oneshot};

/// The most bytes of entries in one message; each entry is far smaller.
const BATCH_BYTES: usize = MAX_MESSAGE / 4;

/// An entry whose outcome is not known yet.
struct Open {
    path: Vec<u8>,
    /// Where its content is; `None` for a directory.
    file: Option<(Place, u64, Time)>,
    state: State,
    /// How often the receiver asked for it once more.
    again: u8,
    /// It was compared, and is another file than the receiver's: a receiver could have it read for ever otherwise.
    different: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Offered,
    /// Its turn comes, or has come.
    Working,
    /// Its content is on its way, or the answer to a comparison.
    Sent,
}

type Content<'a> = Pin<Box<dyn Future<Output = (u64, Result<Done, SendError>)> + Send + 'a>>;

pub(super) struct Talk<'a> {
    sender: &'a Sender,
    socket: &'a MultiSocket,
    monitor: &'a Monitor,
    open: BTreeMap<u64, Open>,
    next: u64,
    jobs: VecDeque<Job>,
    /// Entries that were walked past and not offered yet.
    items: mpsc::Receiver<Item>,
    walked: bool,
    counted: Option<oneshot::Receiver<(u64, u64)>>,
    /// What is to be said and did not fit.
    outbox: VecDeque<Offer>,
    /// The last that was said: each offer waits for the one before, and for no content.
    last: Option<steadfast::MessageId>,
    ended: bool,
    failed: u64,
    work: Arc<Work>,
    /// What the receiver last told of its progress.
    heard: (u64, u64),
    _stop: StopOnDrop,
}

/// Opens the conversation and sends everything.
pub(super) async fn run(sender: &Sender, socket: &MultiSocket, monitor: &Monitor) -> Result<(), SendFailure> {
    let work = Arc::new(Work::default());
    let (items, walking) = mpsc::channel(MAX_BATCH);
    let plan = sender.plan.clone();
    tokio::task::spawn_blocking(move || plan.walk(&mut |item| items.blocking_send(item).is_ok()));
    let mut talk = Talk {
        sender,
        socket,
        monitor,
        open: BTreeMap::new(),
        next: 0,
        jobs: VecDeque::new(),
        items: walking,
        walked: false,
        counted: Some(count(sender.plan.clone(), Arc::clone(&work))),
        outbox: VecDeque::new(),
        last: None,
        ended: false,
        failed: 0,
        work: Arc::clone(&work),
        heard: (0, 0),
        _stop: StopOnDrop(work),
    };
    talk.greet().await?;
    talk.go_on().await
}

fn count(plan: Plan, work: Arc<Work>) -> oneshot::Receiver<(u64, u64)> {
    let (counted, count) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let total = plan.count(|| !work.is_stopped());
        let _gone = counted.send(total);
    });
    count
}

impl Talk<'_> {
    /// Says who we are, and waits for the answer.
    async fn greet(&mut self) -> Result<(), SendFailure> {
        let greeting = Greeting {
            oldest: VERSION,
            newest: VERSION,
            features: 0,
            transfer: self.sender.plan.transfer(self.socket.peer()),
        };
        let receipt = self.socket.send(greeting.encode(), self.control()).await.map_err(lost)?;
        self.last = Some(receipt.id());
        let mut idle = Idle::new(self.sender.idle);
        loop {
            tokio::select! {
                answers = receive(self.socket) => {
                    let mut answers = answers?.into_iter();
                    return match answers.next() {
                        Some(Answer::Welcome { version: VERSION, .. }) => {
                            answers.try_for_each(|answer| self.handle(answer))
                        }
                        Some(Answer::Refuse(words)) => Err(SendFailure::Refused(words)),
                        _ => Err(SendFailure::Protocol("its first words are no welcome")),
                    };
                }
                () = tokio::time::sleep(idle.tick()) => self.look_at_the_clock(&mut idle).await?,
            }
        }
    }

    async fn look_at_the_clock(&self, idle: &mut Idle) -> Result<(), SendFailure> {
        let parked = !self.socket.has_network_for(&self.control());
        self.monitor.stage(if parked { Stage::Parked } else { Stage::Moving });
        let alive = Offer::Alive(self.work.bytes()).encode();
        if idle.is_over(self.socket, alive, &self.control()).await {
            return Err(SendFailure::Idle(self.sender.idle));
        }
        match self.sender.parked_limit {
            Some(limit) if idle.parked() > limit => Err(SendFailure::Parked(limit)),
            _ => Ok(()),
        }
    }

    /// Labels of everything but content.
    fn control(&self) -> Labels {
        Labels::foreground().rule(self.sender.labels.rule.clone())
    }

    async fn go_on(&mut self) -> Result<(), SendFailure> {
        let mut idle = Idle::new(self.sender.idle);
        let (mut content, mut current): (Option<Content<'_>>, u64) = (None, 0);
        let (mut told, mut ticks) = (0, tokio::time::interval(idle.tick()));
        loop {
            if content.is_none()
                && let Some(job) = self.jobs.pop_front()
            {
                current = job.entry;
                content = Some(self.begin(job));
            }
            self.say().await?;
            let room = self.open.len() < MAX_OPEN && self.outbox.is_empty() && !self.walked;
            tokio::select! {
                answers = receive(self.socket) => {
                    for answer in answers? {
                        // A promise that nothing but time keeps is no sign of life.
                        if !matches!(answer, Answer::Progress { taken, checked } if (taken, checked) == self.heard) {
                            idle.moved();
                        }
                        if answer == Answer::End && self.ended && self.open.is_empty() {
                            return Ok(());
                        }
                        self.handle(answer)?;
                    }
                    // Given up by the receiver: what is still to be written is not.
                    if !self.open.contains_key(&current) {
                        content = None;
                    }
                }
                item = self.items.recv(), if room => self.offer(item),
                (entry, done) = async { content.as_mut().expect("checked before").await }, if content.is_some() => {
                    content = None;
                    idle.moved();
                    self.done(entry, done)?;
                }
                total = async { self.counted.as_mut().expect("checked before").await }, if self.counted.is_some() => {
                    self.counted = None;
                    if let Ok((files, bytes)) = total {
                        self.monitor.counted(files, bytes);
                        self.outbox.push_back(Offer::Total { files, bytes });
                    }
                }
                _ = ticks.tick() => {
                    // Reading what needs not be sent takes long, too; the receiver is told that it goes on.
                    if self.work.bytes() != told {
                        told = self.work.bytes();
                        self.outbox.push_back(Offer::Alive(told));
                        idle.moved();
                    }
                    self.look_at_the_clock(&mut idle).await?;
                }
            }
        }
    }

    /// Says what is to be said as far as there is room.
    async fn say(&mut self) -> Result<(), SendFailure> {
        let all_known = self.walked && self.counted.is_none() && self.open.is_empty();
        if all_known && !self.ended {
            self.ended = true;
            self.outbox.push_back(Offer::End { failed: self.failed });
        }
        while let Some(offer) = self.outbox.front() {
            let order = OrderRequest::After(self.last.into_iter().collect());
            let sending = self.socket.send_with(offer.encode(), self.control(), order);
            // Polled once: with a full buffer the rest of the loop goes on.
            match tokio::time::timeout(Duration::ZERO, sending).await {
                Ok(receipt) => self.last = Some(receipt.map_err(lost)?.id()),
                Err(_) => break,
            }
            self.outbox.pop_front();
        }
        Ok(())
    }

    /// Takes what the walk came across, and what waits behind it.
    fn offer(&mut self, first: Option<Item>) {
        let (mut entries, mut bytes, mut item) = (Vec::new(), 0, first);
        loop {
            match item {
                Some(Item::Entry { entry, path, place }) => {
                    bytes += entry.name.len() + 64;
                    self.note(&entry, path, place);
                    entries.push(entry);
                }
                Some(Item::Skipped { path, words }) => {
                    self.monitor.settled(path, FileOutcome::Skipped(words.into()));
                }
                Some(Item::Failed { path, words }) => self.fail(path, words),
                None => {
                    self.walked = true;
                    break;
                }
            }
            if entries.len() >= MAX_BATCH || self.open.len() >= MAX_OPEN || bytes >= BATCH_BYTES {
                break;
            }
            item = match self.items.try_recv() {
                Ok(next) => Some(next),
                Err(_) => break,
            };
        }
        if !entries.is_empty() {
            self.outbox.push_back(Offer::Entries(entries));
        }
    }

    fn note(&mut self, entry: &Entry, path: Vec<u8>, place: Option<Place>) {
        let file = match (entry.kind, place) {
            (Kind::File(size), Some(place)) => Some((place, size, entry.modified)),
            _ => None,
        };
        self.open.insert(self.next, Open { path, file, state: State::Offered, again: 0, different: false });
        self.next += 1;
    }

    fn fail(&mut self, path: Vec<u8>, words: String) {
        self.failed += 1;
        self.monitor.settled(path, FileOutcome::Failed(words));
    }

    fn begin<'c>(&self, job: Job) -> Content<'c>
    where
        Self: 'c,
    {
        let (socket, labels, work) =
            (self.socket.clone(), self.sender.labels.clone(), Arc::new(Work::default()));
        let path = self.open.get(&job.entry).map(|open| open.path.clone()).unwrap_or_default();
        let (entry, size, monitor) = (job.entry, job.size, self.monitor);
        let alive = Arc::clone(&self.work);
        Box::pin(async move {
            let began = |offset| monitor.started(&path, offset, size);
            let shared = Arc::clone(&work);
            let running = content::run(socket, labels, job, work, began);
            tokio::pin!(running);
            let mut seen = 0;
            loop {
                tokio::select! {
                    done = &mut running => return (entry, done),
                    () = tokio::time::sleep(Duration::from_millis(200)) => {
                        let now = shared.bytes();
                        alive.note((now - seen) as usize);
                        seen = now;
                    }
                }
            }
        })
    }

    /// A job is done.
    fn done(&mut self, entry: u64, done: Result<Done, SendError>) -> Result<(), SendFailure> {
        let done = done.map_err(lost)?;
        // The receiver may have given it up meanwhile.
        let Some(open) = self.open.get_mut(&entry) else { return Ok(()) };
        match done {
            Done::Sent | Done::Stopped => open.state = State::Sent,
            Done::Same => {
                open.state = State::Sent;
                self.outbox.push_back(Offer::Same(entry));
            }
            Done::Different => {
                open.state = State::Offered;
                open.different = true;
                self.outbox.push_back(Offer::Different(entry));
            }
            Done::Retracted(retraction) => {
                self.retract(entry, retraction.changed, retraction.words);
            }
        }
        Ok(())
    }

    fn retract(&mut self, entry: u64, changed: bool, words: String) {
        if let Some(open) = self.open.remove(&entry) {
            self.outbox.push_back(Offer::Retract { entry, changed, words: words.clone() });
            self.fail(open.path, words);
        }
    }

    /// Takes one answer. One that no honest receiver gives ends the conversation.
    fn handle(&mut self, answer: Answer) -> Result<(), SendFailure> {
        let entry = match answer {
            Answer::Want { entry, .. } | Answer::Compare { entry, .. } | Answer::Failed { entry, .. } => {
                entry
            }
            Answer::Again(entry) | Answer::Stored(entry) | Answer::Kept(entry) => entry,
            Answer::Progress { taken, checked } => {
                if taken < self.heard.0 || checked < self.heard.1 {
                    return Err(SendFailure::Protocol("its progress went backwards"));
                }
                self.monitor.moved(taken - self.heard.0);
                self.monitor.note(|progress| progress.checked += checked - self.heard.1);
                self.heard = (taken, checked);
                return Ok(());
            }
            Answer::Refuse(words) => return Err(SendFailure::Refused(words)),
            Answer::Unknown => return Ok(()),
            Answer::Welcome { .. } => return Err(SendFailure::Protocol("it welcomed twice")),
            Answer::End => return Err(SendFailure::Protocol("it ended before everything was settled")),
        };
        if entry >= self.next {
            return Err(SendFailure::Protocol("it spoke of an entry that was not offered"));
        }
        // Retracted, while the answer was on its way.
        let Some(open) = self.open.get_mut(&entry) else { return Ok(()) };
        match (answer, open.state, &open.file) {
            (Answer::Want { have, digest, .. }, State::Offered, Some((_, size, _))) if have <= *size => {
                self.work_on(entry, Task::Send(have, digest));
            }
            (Answer::Compare { digest, .. }, State::Offered, Some(_)) if !open.different => {
                self.work_on(entry, Task::Compare(digest));
            }
            (Answer::Again(_), State::Sent, Some(_)) if open.again == 0 => {
                open.again += 1;
                self.work_on(entry, Task::Send(0, Digest([0; Digest::LENGTH])));
            }
            (Answer::Stored(_), State::Offered, None) => {
                self.open.remove(&entry);
            }
            (Answer::Stored(_), State::Sent, Some((_, size, _))) => {
                let outcome = FileOutcome::Stored(*size);
                self.settle(entry, outcome);
            }
            (Answer::Kept(_), State::Sent, Some((_, size, _))) => {
                let outcome = FileOutcome::Kept(*size);
                self.settle(entry, outcome);
            }
            (Answer::Failed { words, .. }, ..) => {
                self.jobs.retain(|job| job.entry != entry);
                self.settle(entry, FileOutcome::Failed(words));
            }
            _ => return Err(SendFailure::Protocol("it gave an answer to what was not asked")),
        }
        Ok(())
    }

    fn work_on(&mut self, entry: u64, task: Task) {
        let Some(open) = self.open.get_mut(&entry) else { return };
        if let Some((place, size, modified)) = open.file.clone() {
            open.state = State::Working;
            self.jobs.push_back(Job { entry, place, size, modified, task });
        }
    }

    fn settle(&mut self, entry: u64, outcome: FileOutcome) {
        let Some(open) = self.open.remove(&entry) else { return };
        let outcome = match outcome {
            FileOutcome::Stored(size) => {
                self.sender.remember(&open.path);
                FileOutcome::Stored(size)
            }
            // It came in an earlier conversation of this run.
            FileOutcome::Kept(size) if self.sender.knows(&open.path) => {
                self.monitor.note(|progress| progress.done += size);
                FileOutcome::Stored(size)
            }
            other => other,
        };
        self.monitor.settled(open.path, outcome);
    }
}

/// What a send that failed means.
fn lost(_: SendError) -> SendFailure {
    SendFailure::Lost(None)
}

/// The next answers. Cancel safe.
async fn receive(socket: &MultiSocket) -> Result<Vec<Answer>, SendFailure> {
    let message = match socket.recv().await {
        Ok(Some(message)) => message,
        Ok(None) => return Err(SendFailure::Lost(None)),
        Err(error) => return Err(SendFailure::Lost(Some(error))),
    };
    // A receiver has nothing that needs to be streamed.
    let payload: Bytes = message.payload().cloned().ok_or(SendFailure::Protocol("it streams"))?;
    Answer::decode_all(payload).map_err(|_| SendFailure::Protocol("its words cannot be read"))
}
