//! The thread that writes the journal, and so decides when something is acknowledged.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use steadfast_backplane::EventId;

use crate::hub::Hub;
use crate::journal::{self, Journal, Sync};

/// How long it is until a disk that refused is tried again, and how often what was written is forced to it.
const PAUSE: Duration = Duration::from_secs(1);
/// How long events that nobody waits for gather while they go on coming. So one alone is written at once, and many do not
/// wake the thread each.
const GATHER: Duration = Duration::from_millis(2);
/// How much is written at a time.
const BATCH: usize = 1 << 20;

/// What the thread is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// Events are there to be stored.
    Look,
    /// Everything up to this event has left the host on the way of this name.
    Left(Arc<str>, EventId),
    /// The daemon ends: what is there is written, and nothing more.
    End,
}

/// Begins to write. The thread ends with [`Word::End`].
pub(crate) fn start(
    hub: Arc<Hub>,
    journal: Journal,
    sync: Sync,
    words: Receiver<Word>,
) -> io::Result<thread::JoinHandle<()>> {
    let store = Store {
        hub,
        journal,
        sync,
        batch: Vec::new(),
        left: BTreeMap::new(),
        place: None,
        failed: false,
        dirty: false,
        synced: Instant::now(),
        syncing: None,
    };
    thread::Builder::new().name("journal".into()).spawn(move || store.run(&words))
}

struct Store {
    hub: Arc<Hub>,
    journal: Journal,
    sync: Sync,
    /// What is to be written.
    batch: Vec<u8>,
    left: BTreeMap<Arc<str>, EventId>,
    /// The last place in it.
    place: Option<u64>,
    failed: bool,
    /// Something was written and not forced to the disk; since when that was last done.
    dirty: bool,
    synced: Instant,
    syncing: Option<thread::JoinHandle<io::Result<()>>>,
}

impl Store {
    fn run(mut self, words: &Receiver<Word>) {
        let mut pause = PAUSE;
        loop {
            let word = match words.recv_timeout(pause) {
                Ok(word) => word,
                Err(RecvTimeoutError::Timeout) => Word::Look,
                Err(RecvTimeoutError::Disconnected) => Word::End,
            };
            self.hub.looks();
            let mut end = self.hear(word);
            while let Ok(word) = words.try_recv() {
                end |= self.hear(word);
            }
            // Those who go on publishing do not keep the end away.
            let last = end.then(|| self.hub.peek(|server| server.agent().journal_place()));
            pause = loop {
                if !self.take() {
                    self.hub.rests();
                    // What came in between said nothing.
                    if !self.take() {
                        break PAUSE;
                    }
                }
                let (place, full) = (self.place, self.batch.len() >= BATCH);
                if !self.write() {
                    break PAUSE;
                }
                if last.is_none_or(|last| place >= Some(last)) {
                    break if full { Duration::ZERO } else { GATHER };
                }
            };
            self.force();
            if end {
                // The end is the time to wait for it.
                if let Some(syncing) = self.syncing.take() {
                    let _forced = syncing.join();
                }
                return;
            }
        }
    }

    fn hear(&mut self, word: Word) -> bool {
        match word {
            Word::Look => {}
            Word::Left(way, id) => {
                self.left.insert(way, id);
            }
            Word::End => return true,
        }
        false
    }

    /// Takes what is there to be written; whether that is anything.
    fn take(&mut self) -> bool {
        let (batch, place) = (&mut self.batch, &mut self.place);
        self.hub.quietly(|server| {
            while batch.len() < BATCH
                && let Some(record) = server.agent_mut().poll_journal()
            {
                *place = Some(record.place);
                journal::put_event(batch, &record.delivery);
            }
        });
        while let Some((way, id)) = self.left.pop_first() {
            journal::put_left(batch, &way, id);
        }
        !batch.is_empty()
    }

    /// Writes what was taken; whether it could be.
    fn write(&mut self) -> bool {
        let written = self.journal.append(&self.batch).and_then(|()| match self.sync {
            Sync::Each => force(&self.journal.written()),
            Sync::Never | Sync::Second => Ok(()),
        });
        if let Err(error) = written {
            if !std::mem::replace(&mut self.failed, true) {
                tracing::error!(%error, "the journal cannot be written; nothing is acknowledged until it can");
            }
            self.hub.set_storage_fault(Some(error.to_string()));
            self.hub.with(|server, _| server.handle_store_failed());
            return false;
        }
        self.batch.clear();
        self.dirty = true;
        if std::mem::take(&mut self.failed) {
            tracing::info!("the journal can be written again");
            self.hub.set_storage_fault(None);
            self.hub.with(|server, _| server.agent_mut().set_storage_failed(false));
        }
        if let Some(place) = self.place.take() {
            self.hub.with(|server, _| server.handle_stored(place));
            self.hub.tell_stored(place);
        }
        true
    }

    /// Forces what was written to the disk, if it is time. Beside, because it may take long, and nothing waits for it.
    fn force(&mut self) {
        let busy = self.syncing.as_ref().is_some_and(|syncing| !syncing.is_finished());
        if self.sync != Sync::Second || busy {
            return;
        }
        if let Some(Ok(Err(error))) = self.syncing.take().map(thread::JoinHandle::join) {
            tracing::error!(%error, "the journal cannot be forced to the disk; a power cut may take away what was acknowledged");
        }
        if !self.dirty || self.synced.elapsed() < PAUSE {
            return;
        }
        let files = self.journal.written();
        let begun = thread::Builder::new().name("journal sync".into()).spawn(move || force(&files));
        self.syncing = begun.ok();
        self.dirty = self.syncing.is_none();
        self.synced = Instant::now();
    }
}

fn force(files: &[Arc<File>]) -> io::Result<()> {
    files.iter().try_for_each(|file| file.sync_data())
}
