//! The thread that writes the journal of a durable endpoint, and so decides when something is promised.
//!
//! Whoever calls the core leaves its records in a queue, under the core's lock and so in their order. The thread takes all
//! that waits there, writes it, forces it to the disk once, and tells the core.

use crate::lock;
use crate::receipt::wait_until;
use crate::shared::Shared;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;
use steadfast_session::{JournalEntry, Record};
use steadfast_store::{Directory, Files, Store};
use tokio::sync::Notify;

/// How much is written at a time, in bytes of payloads, and one message more.
const BATCH: usize = 4 << 20;
/// The most records that are written at a time.
const RECORDS: usize = 16 * 1024;
/// What may wait to be written before the application has to wait, in bytes.
const BACKLOG: usize = 64 << 20;
/// And before nothing more is read from the networks, which peers may take for a process that hangs: only they can bring it so
/// far, with what they say beside messages, and an application that tries to send without waiting.
const FLOOD: usize = 2 * BACKLOG;
/// What a record takes in the queue beside its payload, in bytes, about.
const RECORD: usize = 256;
/// How long it is until a full disk is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// When what was written is forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StoreSync {
    /// Once for everything that waits by then: several messages share the price, and one that comes alone waits for nobody.
    #[default]
    Grouped,
    /// Once for each message that is sent, and each that is taken.
    Each,
}

/// Why nobody can say that something is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoredError {
    /// The endpoint has no store.
    #[error("this endpoint keeps nothing on a disk: open it with `Builder::store`")]
    NoStore,
    /// The endpoint has stopped before that.
    #[error("{0}")]
    Stopped(String),
}

/// What was written to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreWritten {
    /// How often something was appended and forced to the disk.
    pub batches: u64,
    /// Bytes of that. What is written anew to make room is not counted.
    pub bytes: u64,
}

/// How far the journal is.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    state: Mutex<State>,
    /// There is something to write, or no need to wait any more.
    work: Condvar,
    /// Something was written, or never will be.
    pub(crate) progress: Notify,
    /// The backlog is shorter than it was.
    pub(crate) relief: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<JournalEntry>,
    bytes: usize,
    /// The thread waits for work. To wake one that does not costs a call of the kernel as well.
    idle: bool,
    /// The last record that is on the disk, or was in the queue.
    stored: u64,
    queued: u64,
    written: StoreWritten,
    /// Nothing more comes.
    closing: bool,
    /// The thread is gone, and with it the store.
    gone: bool,
    /// The disk is full, in words.
    full: Option<String>,
    /// Why nothing more is written.
    failed: Option<String>,
}

fn payload(entry: &JournalEntry) -> usize {
    match &entry.record {
        Record::Sent { payload: Some(payload), .. } => payload.len(),
        _ => 0,
    }
}

impl Journal {
    /// Adds what the core emitted. Its lock is held.
    pub(crate) fn push(&self, entries: impl Iterator<Item = JournalEntry>) {
        let mut entries = entries.peekable();
        if entries.peek().is_none() {
            return;
        }
        let mut state = lock(&self.state);
        for entry in entries {
            state.queued = entry.number;
            if state.failed.is_none() && !state.closing {
                state.bytes += payload(&entry) + RECORD;
                state.queue.push(entry);
            }
        }
        let wakes = std::mem::take(&mut state.idle);
        drop(state);
        if wakes {
            self.work.notify_one();
        }
    }

    /// Whether so much waits to be written that the application has to wait.
    pub(crate) fn is_behind(&self) -> bool {
        let state = lock(&self.state);
        !state.gone && state.bytes > BACKLOG
    }

    /// Whether so much waits to be written that peers have to wait.
    pub(crate) fn is_flooded(&self) -> bool {
        let state = lock(&self.state);
        !state.gone && state.bytes > FLOOD
    }

    /// The last record that was emitted.
    pub(crate) fn queued(&self) -> u64 {
        lock(&self.state).queued
    }

    /// Why nothing can be stored at the moment, if that is so.
    pub(crate) fn fault(&self) -> Option<String> {
        let state = lock(&self.state);
        state.failed.clone().or_else(|| state.full.clone())
    }

    /// Waits until all records up to this one are on the disk. Cancel safe.
    pub(crate) async fn stored(&self, number: u64) -> Result<(), StoredError> {
        wait_until(&self.progress, || {
            let state = lock(&self.state);
            if state.stored >= number {
                return Some(Ok(()));
            }
            let stopped = state.gone.then(|| "the endpoint has ended, and this was not stored before".into());
            state.failed.clone().or(stopped).map(|why| Err(StoredError::Stopped(why)))
        })
        .await
    }

    /// Writes what is there and nothing more; waits until the store is closed.
    pub(crate) async fn close(&self) {
        self.end();
        wait_until(&self.progress, || lock(&self.state).gone.then_some(())).await;
    }

    /// Writes what is there and nothing more, and closes the store.
    pub(crate) fn end(&self) {
        lock(&self.state).closing = true;
        self.work.notify_one();
    }

    /// Takes what is to be written next: at most so many bytes, or one message. `None` at the end.
    fn next(&self, sync: StoreSync, batch: &mut Vec<JournalEntry>) -> Option<()> {
        let mut state = lock(&self.state);
        while state.queue.is_empty() {
            if state.closing {
                return None;
            }
            state.idle = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        let mut bytes = 0;
        let mut count = 0;
        for entry in &state.queue {
            bytes += payload(entry);
            count += 1;
            let single = matches!(entry.record, Record::Sent { .. } | Record::Resolved { .. });
            if bytes >= BATCH || count >= RECORDS || (sync == StoreSync::Each && single) {
                break;
            }
        }
        batch.extend(state.queue.drain(..count));
        state.bytes -= bytes + count * RECORD;
        drop(state);
        self.relief.notify_waiters();
        Some(())
    }

    /// Waits before a full disk is tried again; whether that is worth it.
    fn pause(&self, why: String) -> bool {
        let mut state = lock(&self.state);
        if state.full.replace(why).is_none() {
            tracing::warn!(
                "the store's disk is full: nothing is sent or acknowledged until there is room; see `Endpoint::store_fault`"
            );
            self.progress.notify_waiters();
        }
        if state.closing {
            return false;
        }
        drop(self.work.wait_timeout(state, PAUSE));
        true
    }

    pub(crate) fn written(&self) -> StoreWritten {
        lock(&self.state).written
    }

    fn note(&self, number: u64, written: StoreWritten) {
        let mut state = lock(&self.state);
        (state.stored, state.written) = (number, written);
        if state.full.take().is_some() {
            tracing::info!("the store can be written again");
        }
    }

    fn fail(&self, why: String) {
        let mut state = lock(&self.state);
        state.failed = Some(why);
        state.queue.clear();
        state.bytes = 0;
    }

    fn gone(&self) {
        lock(&self.state).gone = true;
        self.progress.notify_waiters();
        self.relief.notify_waiters();
    }
}

/// Where an endpoint keeps its conversations, and what it opened there.
#[derive(Debug)]
pub(crate) struct Opened<F: Files = Directory> {
    pub(crate) store: Store<F>,
    pub(crate) sync: StoreSync,
}

/// What the builder was told.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) sync: StoreSync,
}

/// Begins to write. The thread ends with [`Journal::close`], or when nobody is left who could call it.
pub(crate) fn start(shared: &Arc<Shared>, journal: Arc<Journal>, opened: Opened) -> io::Result<()> {
    let shared = Arc::downgrade(shared);
    let thread = thread::Builder::new().name("steadfast store".into());
    thread.spawn(move || {
        // Also if it panics: whoever waits for the end is not to wait for ever.
        let _end = End(&journal);
        write(&shared, &journal, opened);
    })?;
    Ok(())
}

struct End<'a>(&'a Journal);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.gone();
    }
}

fn write<F: Files>(shared: &Weak<Shared>, journal: &Journal, opened: Opened<F>) {
    let Opened { mut store, sync } = opened;
    let mut batch = Vec::new();
    while journal.next(sync, &mut batch).is_some() {
        loop {
            match store.append(batch.iter().map(|entry| (entry.session, &entry.record))) {
                Ok(()) => break,
                Err(error) if error.is_full() => {
                    if !journal.pause(error.to_string()) {
                        return;
                    }
                }
                Err(error) => {
                    let why = error.to_string();
                    tracing::error!(error = %why, "the endpoint stops: what it promises could not be kept");
                    journal.fail(why.clone());
                    if let Some(shared) = shared.upgrade() {
                        let _runtime = shared.enter();
                        shared.stop(&why);
                    }
                    return;
                }
            }
        }
        let last = batch.last().map_or(0, |entry| entry.number);
        batch.clear();
        let (batches, bytes) = store.appended();
        journal.note(last, StoreWritten { batches, bytes });
        if let Some(shared) = shared.upgrade() {
            let _runtime = shared.enter();
            shared.call(|inner, now| inner.core.handle_confirmed(now, last));
        }
        journal.progress.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use steadfast_session::DropReason;
    use steadfast_store::crash::Disk;
    use steadfast_wire::frame::Head;
    use steadfast_wire::{Fingerprint, Labels, MessageId, Order, SessionId};

    fn sent(number: u64, bytes: usize) -> JournalEntry {
        let (labels, length) = (Labels::foreground(), Some(bytes as u64));
        let head = Head { labels, order: Order::Total, streamed: false, length, expires_in: None };
        let record = Record::Sent { id: MessageId(number), head, payload: Some(Bytes::from(vec![0; bytes])) };
        JournalEntry { number, session: SessionId(1), record }
    }

    fn other(number: u64) -> JournalEntry {
        let record = Record::Cancelled(MessageId(1), DropReason::Cancelled);
        JournalEntry { number, session: SessionId(1), record }
    }

    /// The numbers of each batch.
    fn batches(sync: StoreSync, entries: Vec<JournalEntry>) -> Vec<Vec<u64>> {
        let journal = Journal::default();
        journal.push(entries.into_iter());
        lock(&journal.state).closing = true;
        let mut all = Vec::new();
        let mut batch = Vec::new();
        while journal.next(sync, &mut batch).is_some() {
            all.push(batch.drain(..).map(|entry| entry.number).collect());
        }
        assert_eq!(lock(&journal.state).bytes, 0, "what is counted in is counted out");
        all
    }

    #[test]
    fn all_that_waits_is_written_at_once_or_message_by_message() {
        let entries = || vec![other(1), sent(2, 10), sent(3, 10), other(4)];
        assert_eq!(batches(StoreSync::Grouped, entries()), [vec![1, 2, 3, 4]]);
        assert_eq!(batches(StoreSync::Each, entries()), [vec![1, 2], vec![3], vec![4]]);
        let large = vec![sent(1, BATCH - 1), sent(2, 1), sent(3, BATCH), other(4)];
        assert_eq!(batches(StoreSync::Grouped, large), [vec![1, 2], vec![3], vec![4]]);
    }

    /// A thread that writes to a disk in memory.
    fn writing(disk: &Disk) -> Arc<Journal> {
        let store = Store::open_on(disk.clone(), Fingerprint([1; 32])).unwrap();
        let journal = Arc::<Journal>::default();
        let writes = Arc::clone(&journal);
        thread::spawn(move || {
            let _end = End(&writes);
            write(&Weak::new(), &writes, Opened { store, sync: StoreSync::Grouped });
        });
        journal
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_what_waits_goes_on_when_there_is_room() {
        let disk = Disk::default();
        let journal = writing(&disk);
        disk.set_room(Some(10));
        journal.push([sent(1, 1000)].into_iter());
        let fault = wait_until(&journal.progress, || journal.fault()).await;
        assert!(fault.contains("make room"), "{fault}");
        journal.push([sent(2, 1000)].into_iter());
        disk.set_room(None);
        assert_eq!(journal.stored(2).await, Ok(()));
        assert_eq!(journal.fault(), None);
        // A disk that is full at the end does not keep the end away.
        disk.set_room(Some(10));
        journal.push([sent(3, 1000)].into_iter());
        wait_until(&journal.progress, || journal.fault()).await;
        journal.close().await;
        assert!(matches!(journal.stored(3).await, Err(StoredError::Stopped(_))));
    }

    #[tokio::test]
    async fn a_disk_that_fails_ends_it() {
        let disk = Disk::default();
        let journal = writing(&disk);
        disk.refuse_force(true);
        journal.push([sent(1, 1000)].into_iter());
        let error = journal.stored(1).await.unwrap_err().to_string();
        assert!(error.contains("force to the disk"), "{error}");
        journal.close().await;
    }

    #[test]
    fn a_journal_that_failed_keeps_nothing() {
        let journal = Journal::default();
        journal.push([sent(1, 10)].into_iter());
        journal.fail("the disk broke".into());
        journal.push((2..1000).map(|number| sent(number, 100_000)));
        assert!(!journal.is_behind());
        assert_eq!((journal.queued(), journal.fault()), (999, Some("the disk broke".into())));
    }
}
