//! What those who watch a transfer are told.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Failures that are remembered word by word; further ones are only counted.
const REMEMBERED: usize = 1000;

/// Something that happened once. Paths are bytes, relative to the receiver's directory: print them through
/// [`printable`](crate::printable).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// How much it is altogether is known.
    Counted {
        /// Files.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A file goes on where it was cut off.
    Resumed {
        /// The file.
        path: Vec<u8>,
        /// Bytes that were there.
        have: u64,
        /// All of its bytes.
        size: u64,
    },
    /// A file has its outcome.
    File {
        /// The file, or what was taken for one.
        path: Vec<u8>,
        /// What became of it.
        outcome: FileOutcome,
    },
    /// The conversation ended, and the sender tries to open a new one.
    Lost {
        /// Why, for people.
        words: String,
    },
    /// The receiver does not trust the sender's key, and the sender goes on asking.
    Untrusted,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileOutcome {
    /// It came, and is whole, and of so many bytes.
    Stored(u64),
    /// It was there already, with the same content.
    Kept(u64),
    /// It is nothing that can be sent, and why.
    Skipped(String),
    /// It could not be had, and why.
    Failed(String),
}

/// What a transfer does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Stage {
    /// There is no conversation yet, or no more.
    #[default]
    Connecting,
    /// It goes on.
    Moving,
    /// No network that may be used leads to the other side, or it is gone; it goes on when it is reached.
    Parked,
}

/// How far a transfer has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Progress {
    /// What it does now.
    pub stage: Stage,
    /// Files and bytes altogether, once they are counted.
    pub total: Option<(u64, u64)>,
    /// Files that came.
    pub stored: u64,
    /// Files that were there already, with the same content.
    pub kept: u64,
    /// Links, devices and the like that were passed over.
    pub skipped: u64,
    /// Files that could not be had.
    pub failed: u64,
    /// The first 1,000 of them, with the reason.
    pub failures: Vec<(Vec<u8>, String)>,
    /// Bytes of content that crossed the network.
    pub bytes: u64,
    /// Bytes that did not have to, because an earlier attempt had brought them.
    pub resumed: u64,
    /// Bytes of files that are settled or on their way, however they came.
    pub done: u64,
    /// The file whose content comes now.
    pub current: Option<Current>,
    /// Bytes that were read to compare them with what the other side has.
    pub checked: u64,
}

/// One file under way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Current {
    /// The file.
    pub path: Vec<u8>,
    /// All of its bytes.
    pub size: u64,
    /// Those that are there.
    pub done: u64,
}

/// Where a transfer tells what happens. Cheap to ask at any time, from any thread.
pub struct Monitor {
    progress: Mutex<Progress>,
    on_event: Box<dyn Fn(&Event) + Send + Sync>,
}

impl Default for Monitor {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Monitor({:?})", self.lock())
    }
}

impl Monitor {
    /// Calls `on_event` when something happens: from the task of the transfer, which it must not keep waiting.
    pub fn new(on_event: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self { progress: Mutex::default(), on_event: Box::new(on_event) }
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.on_event)(&event);
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
    }

    /// A new conversation begins: files are counted again, bytes go on.
    pub(crate) fn begin(&self) {
        self.note(|progress| {
            let Progress { bytes, resumed, checked, .. } = *progress;
            let total = progress.total;
            *progress = Progress { total, bytes, resumed, checked, ..Progress::default() };
        });
    }

    pub(crate) fn stage(&self, stage: Stage) {
        self.note(|progress| progress.stage = stage);
    }

    pub(crate) fn counted(&self, files: u64, bytes: u64) {
        let before = self.lock().total.replace((files, bytes));
        // A new conversation counts again, mostly the same.
        if before != Some((files, bytes)) {
            self.tell(Event::Counted { files, bytes });
        }
    }

    /// A file begins at `have` of its bytes.
    pub(crate) fn started(&self, path: &[u8], have: u64, size: u64) {
        self.note(|progress| {
            progress.current = Some(Current { path: path.to_vec(), size, done: have });
            progress.resumed += have;
            progress.done += have;
        });
        if have > 0 {
            self.tell(Event::Resumed { path: path.to_vec(), have, size });
        }
    }

    /// Bytes came.
    pub(crate) fn moved(&self, bytes: u64) {
        self.note(|progress| {
            progress.bytes += bytes;
            progress.done += bytes;
            if let Some(current) = &mut progress.current {
                current.done = (current.done + bytes).min(current.size);
            }
        });
    }

    pub(crate) fn settled(&self, path: Vec<u8>, outcome: FileOutcome) {
        self.note(|progress| {
            match &outcome {
                FileOutcome::Stored(_) => progress.stored += 1,
                FileOutcome::Kept(size) => {
                    progress.kept += 1;
                    progress.done += size;
                }
                FileOutcome::Skipped(_) => progress.skipped += 1,
                FileOutcome::Failed(words) => {
                    progress.failed += 1;
                    if progress.failures.len() < REMEMBERED {
                        progress.failures.push((path.clone(), words.clone()));
                    }
                }
            }
            if progress.current.as_ref().is_some_and(|current| current.path == path) {
                progress.current = None;
            }
        });
        self.tell(Event::File { path, outcome });
    }
}
