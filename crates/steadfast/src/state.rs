//! What the library knows of one conversation beside the core: who waits for what, and how it ended.

use crate::carriers::Link;
use crate::deferred::Waits;
use crate::error::SessionError;
use crate::lock;
use crate::receipt::{Cell, Receipt};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use steadfast_session::{Event, Judgement, Outcome, SessionError as CoreError};
use steadfast_wire::frame::EndReason;
use steadfast_wire::{Fingerprint, MessageId, SessionId};
use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct SessionState {
    pub(crate) id: SessionId,
    pub(crate) peer: Fingerprint,
    status: Mutex<Status>,
    /// By which carrier the last message came.
    usual: Mutex<Weak<Link>>,
    /// The application took something since it last sent: what it sends next is likely an answer, which somebody waits for.
    took: AtomicBool,
    pub(crate) readable: Notify,
    pub(crate) writable: Notify,
    /// Opened, ended, refused, parked, resumed.
    pub(crate) changed: Notify,
    /// Sends that wait for a network.
    waits: OnceLock<Box<Waits>>,
}

#[derive(Debug, Default)]
struct Status {
    opened: bool,
    ended: Option<Box<Ended>>,
    parked: bool,
    judgement: Option<Box<Judgement>>,
    left: Option<Box<str>>,
    refused: Option<Box<str>>,
    receipts: BTreeMap<MessageId, Arc<Cell>>,
}

impl Status {
    fn end(&mut self, ended: Ended, changed: &mut Vec<Arc<Cell>>) {
        self.ended.get_or_insert_with(|| Box::new(ended));
        for cell in std::mem::take(&mut self.receipts).into_values() {
            cell.set_outcome(Outcome::Unknown);
            changed.push(cell);
        }
    }
}

/// How a conversation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) reason: EndReason,
    pub(crate) common: Option<MessageId>,
    /// The peer's words, where it left.
    pub(crate) words: Option<String>,
    /// It did not end: this endpoint stopped, for this reason.
    pub(crate) stopped: Option<String>,
}

/// Whom to wake once the core's lock is free.
#[derive(Debug)]
pub(crate) enum Wake {
    Readable(Arc<SessionState>),
    Writable(Arc<SessionState>),
    Suitable(Arc<SessionState>),
    All(Arc<SessionState>),
}

impl Wake {
    pub(crate) fn wake(&self) {
        match self {
            Self::Readable(state) => state.readable.notify_waiters(),
            Self::Writable(state) => state.writable.notify_waiters(),
            Self::Suitable(state) => state.wake_waiting(),
            Self::All(state) => {
                state.readable.notify_waiters();
                state.writable.notify_waiters();
                state.changed.notify_waiters();
                state.wake_waiting();
            }
        }
    }

    /// Whose sends may have stopped waiting for a network.
    pub(crate) fn deferring(&self) -> Option<&Arc<SessionState>> {
        match self {
            Self::Suitable(state) | Self::All(state) => Some(state),
            _ => None,
        }
    }
}

impl SessionState {
    pub(crate) fn new(id: SessionId, peer: Fingerprint, opened: bool) -> Self {
        Self {
            id,
            peer,
            status: Mutex::new(Status { opened, ..Status::default() }),
            usual: Mutex::new(Weak::new()),
            took: AtomicBool::new(true),
            readable: Notify::new(),
            writable: Notify::new(),
            changed: Notify::new(),
            waits: OnceLock::new(),
        }
    }

    pub(crate) fn set_took(&self) {
        self.took.store(true, Ordering::Relaxed);
    }

    /// Whether what is sent now comes after other messages, with nothing taken between.
    pub(crate) fn sends_in_a_row(&self) -> bool {
        !self.took.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn usual(&self) -> Option<Arc<Link>> {
        lock(&self.usual).upgrade()
    }

    pub(crate) fn set_usual(&self, link: &Arc<Link>) {
        let mut usual = lock(&self.usual);
        if !std::ptr::eq(usual.as_ptr(), Arc::as_ptr(link)) {
            *usual = Arc::downgrade(link);
        }
    }

    /// A conversation that a store brought back.
    pub(crate) fn restored(id: SessionId, peer: Fingerprint) -> Self {
        let state = Self::new(id, peer, true);
        lock(&state.status).parked = true;
        state
    }

    /// A message was given to the core (whose lock is held, so that no event of it comes before).
    pub(crate) fn sent(&self, id: MessageId) -> Receipt {
        let cell = Arc::new(Cell::default());
        lock(&self.status).receipts.insert(id, Arc::clone(&cell));
        Receipt::new(id, cell)
    }

    /// The receipts of all messages without an outcome.
    pub(crate) fn open_receipts(&self) -> Vec<Receipt> {
        let status = lock(&self.status);
        status.receipts.iter().map(|(id, cell)| Receipt::new(*id, Arc::clone(cell))).collect()
    }

    /// This endpoint stops, and the conversation with it, but it does not end.
    pub(crate) fn stop(&self, why: &str, changed: &mut Vec<Arc<Cell>>) {
        let stopped = Some(why.into());
        let ended = Ended { reason: EndReason::Unknown, common: None, words: None, stopped };
        lock(&self.status).end(ended, changed);
    }

    /// Takes in an event of this conversation; adds the receipts to wake to `changed`.
    pub(crate) fn note(&self, event: &Event, changed: &mut Vec<Arc<Cell>>) {
        let mut status = lock(&self.status);
        match event {
            Event::Opened { .. } => status.opened = true,
            Event::Parked { .. } => status.parked = true,
            Event::Resumed { .. } => status.parked = false,
            Event::PeerLeft { reason, .. } => status.left = Some(reason.as_str().into()),
            Event::Acked { id, .. } => {
                let cell = status.receipts.get(id);
                if let Some(cell) = cell {
                    cell.set_acked();
                }
                changed.extend(cell.cloned());
            }
            Event::GivenUp { id, reason, .. } => {
                let cell = status.receipts.get(id);
                if let Some(cell) = cell {
                    cell.set_given_up(*reason);
                }
                changed.extend(cell.cloned());
            }
            Event::Outcome { id, outcome, .. } => {
                let cell = status.receipts.remove(id);
                if status.receipts.is_empty() {
                    // There are thousands of conversations in which nothing happens, and a map keeps its last room.
                    status.receipts = BTreeMap::new();
                }
                if let Some(cell) = &cell {
                    cell.set_outcome(*outcome);
                }
                changed.extend(cell);
            }
            Event::Ended { reason, common, .. } => {
                let words = status.left.take().map(String::from);
                let ended = Ended { reason: *reason, common: *common, words, stopped: None };
                status.end(ended, changed);
            }
            _ => {}
        }
    }

    /// What is known of the peer's process from now on.
    pub(crate) fn judge(&self, judgement: Judgement) {
        lock(&self.status).judgement = Some(Box::new(judgement));
    }

    /// What was last known of the peer's process.
    pub(crate) fn judgement(&self) -> Option<Judgement> {
        lock(&self.status).judgement.as_deref().cloned()
    }

    /// The peer refuses us: nothing will come of opening this.
    pub(crate) fn refuse(&self, why: &str) {
        lock(&self.status).refused.get_or_insert_with(|| why.into());
    }

    pub(crate) fn refused(&self) -> Option<String> {
        lock(&self.status).refused.as_deref().map(String::from)
    }

    /// The sends that wait for a network; made when the first one does.
    pub(crate) fn waits(&self) -> &Waits {
        self.waits.get_or_init(Box::default)
    }

    /// Whether any send ever waited.
    pub(crate) fn has_waits(&self) -> bool {
        self.waits.get().is_some()
    }

    fn wake_waiting(&self) {
        if let Some(waits) = self.waits.get() {
            waits.wake();
        }
    }

    pub(crate) fn is_opened(&self) -> bool {
        lock(&self.status).opened
    }

    pub(crate) fn is_parked(&self) -> bool {
        lock(&self.status).parked
    }

    /// What an error of the core means here.
    pub(crate) fn explain(&self, error: CoreError) -> SessionError {
        match error {
            CoreError::NoMessage(id) => SessionError::NoMessage(id),
            CoreError::Ended => match self.ended() {
                Some(ended) => ended.into(),
                None => SessionError::Ended { reason: EndReason::Unknown, words: None, common: None },
            },
        }
    }

    pub(crate) fn ended(&self) -> Option<Ended> {
        lock(&self.status).ended.as_deref().cloned()
    }
}
