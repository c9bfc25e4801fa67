//! Everybody in this process who is asked, one after the other.

use crate::gate::{Gate, Phase, Section};
use crate::lock;
use crate::participant::{Checkpoint, Outcome, Participant, Veto};
use crate::server::Server;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

/// Who is asked when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// First before a checkpoint, and last after it: what uses libraries.
    Application,
    /// Last before a checkpoint, and first after it.
    Library,
}

type Shared = Arc<Mutex<Box<dyn Participant>>>;

/// One who is registered.
#[derive(Clone)]
pub(crate) struct Entry {
    id: u64,
    stage: Stage,
    participant: Shared,
}

struct Registry {
    next: u64,
    entries: Vec<Entry>,
    server: Option<Server>,
}

static GATE: Gate = Gate::new();
static REGISTRY: Mutex<Registry> = Mutex::new(Registry { next: 0, entries: Vec::new(), server: None });

/// Somebody is asked until this is dropped.
#[derive(Debug)]
#[must_use = "nobody is asked any more as soon as it is dropped"]
pub struct Registration(u64);

/// Registers somebody who is asked before each checkpoint of this process. Those of a stage are asked in the opposite order
/// of their registration, and told in this order. The first one opens the control socket.
///
/// Fails if the socket cannot be opened; [`CONTROL`](crate::CONTROL) can name another directory.
pub fn register(stage: Stage, participant: impl Participant + 'static) -> io::Result<Registration> {
    let mut registry = lock(&REGISTRY);
    // In a forked child the thread of its parent does not run.
    if !registry.server.as_ref().is_some_and(Server::is_of_this_process) {
        registry.server = Some(Server::start()?);
    }
    registry.next += 1;
    let id = registry.next;
    registry.entries.push(Entry { id, stage, participant: Arc::new(Mutex::new(Box::new(participant))) });
    Ok(Registration(id))
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut registry = lock(&REGISTRY);
        let index = registry.entries.iter().position(|entry| entry.id == self.0);
        let removed = index.map(|index| registry.entries.remove(index));
        let server = if registry.entries.is_empty() { registry.server.take() } else { None };
        drop(registry);
        if let Some(server) = server {
            server.stop();
        }
        // What a participant holds may be anything: not under the lock.
        drop(removed);
    }
}

/// Begins a part of the program during which no checkpoint is taken; waits until none is wanted or taken. To enter another
/// one inside, see [`Section::again`]. Within what a [`Participant`] does it holds nothing up.
pub fn enter() -> Section {
    GATE.enter()
}

/// The same for tasks. Cancel safe.
pub async fn entering() -> Section {
    GATE.entering().await
}

/// The same without waiting: `None` while a checkpoint is wanted or taken.
pub fn try_enter() -> Option<Section> {
    GATE.try_enter()
}

/// What is going on with checkpoints of this process.
pub fn phase() -> Phase {
    GATE.phase()
}

pub(crate) fn gate() -> &'static Gate {
    &GATE
}

/// How many are asked.
pub(crate) fn participants() -> usize {
    lock(&REGISTRY).entries.len()
}

/// Asks everybody. After a veto, those who had prepared are told.
pub(crate) fn prepare(checkpoint: &Checkpoint) -> Result<Vec<Entry>, Veto> {
    let mut asked: Vec<Entry> = lock(&REGISTRY).entries.clone();
    asked.reverse();
    asked.sort_by_key(|entry| entry.stage);
    let mut ready = Vec::new();
    for entry in asked {
        let answer =
            Gate::inside(|| catch_unwind(AssertUnwindSafe(|| lock(&entry.participant).prepare(checkpoint))));
        let answer = answer.unwrap_or_else(|_| Err(Veto::Permanent("a part of the program panicked".into())));
        if let Err(veto) = answer {
            go_on(ready, &Outcome::Abandoned(format!("vetoed: {veto}")));
            return Err(veto);
        }
        ready.push(entry);
    }
    Ok(ready)
}

/// Tells those who had prepared and are still there. What went wrong.
pub(crate) fn go_on(ready: Vec<Entry>, outcome: &Outcome) -> Vec<String> {
    let mut faults = Vec::new();
    for entry in ready.into_iter().rev() {
        if !lock(&REGISTRY).entries.iter().any(|other| other.id == entry.id) {
            continue;
        }
        let told =
            Gate::inside(|| catch_unwind(AssertUnwindSafe(|| lock(&entry.participant).go_on(outcome))));
        faults.extend(told.unwrap_or_else(|_| Err("a part of the program panicked".into())).err());
    }
    faults
}
