//! The task of a client: takes answers, gives them to the calls that wait, and sees cancelled calls to their end.

use super::body::Body;
use super::client::RpcStats;
use super::pending::Answer;
use super::say::{self, HearError, Heard};
use crate::error::SessionError;
use crate::lock;
use crate::message::Message;
use crate::receipt::Receipt;
use crate::socket::MultiSocket;
use bytes::Bytes;
use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use steadfast_session::{Outcome, Patience, SendError};
use steadfast_wire::call::{FIRST_LIMIT, Fault, Head};
use steadfast_wire::frame::EndReason;
use steadfast_wire::{Labels, Urgency};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long cancelled calls are seen to after the last handle is gone.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// What handles, calls and the task share.
#[derive(Debug)]
pub(super) struct State {
    calls: Mutex<Calls>,
    /// A call for each permit, by urgency.
    slots: [Arc<Semaphore>; 2],
    max_open: usize,
    /// A call is over.
    pub(super) changed: Notify,
    unmatched: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug)]
struct Calls {
    next: u64,
    open: HashMap<u64, Open>,
    /// How many the other side takes, by urgency, as far as we want to make them.
    limits: [usize; 2],
    ended: Option<SessionError>,
}

/// A call without an answer.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) sender: oneshot::Sender<Answer>,
    /// Of the request, once it was sent.
    pub(super) receipt: Option<Receipt>,
    pub(super) streamed: bool,
    pub(super) labels: Labels,
    #[expect(dead_code, reason = "held until the call is over")]
    pub(super) permit: OwnedSemaphorePermit,
}

impl State {
    pub(super) fn new(max_open: usize) -> Self {
        let first = max_open.min(FIRST_LIMIT as usize);
        let calls = Calls { next: 1, open: HashMap::new(), limits: [first; 2], ended: None };
        Self {
            calls: Mutex::new(calls),
            slots: [(); 2].map(|()| Arc::new(Semaphore::new(first))),
            max_open,
            changed: Notify::new(),
            unmatched: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub(super) fn stats(&self) -> RpcStats {
        RpcStats {
            open: lock(&self.calls).open.len(),
            unmatched: self.unmatched.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Waits until one more call may be open. Cancel safe.
    pub(super) async fn permit(&self, urgency: Urgency) -> Result<OwnedSemaphorePermit, SessionError> {
        let slot = Arc::clone(&self.slots[urgency.index()]).acquire_owned().await;
        slot.map_err(|_| self.ended().unwrap_or_else(closed))
    }

    pub(super) fn ended(&self) -> Option<SessionError> {
        lock(&self.calls).ended.clone()
    }

    pub(super) fn insert(&self, open: Open) -> Result<u64, SessionError> {
        let mut calls = lock(&self.calls);
        if let Some(ended) = &calls.ended {
            return Err(ended.clone());
        }
        let call = calls.next;
        calls.next += 1;
        calls.open.insert(call, open);
        Ok(call)
    }

    /// The request is on its way. It may have been answered already.
    pub(super) fn sent(&self, call: u64, receipt: &Receipt, streamed: bool) {
        if let Some(open) = lock(&self.calls).open.get_mut(&call) {
            open.receipt = Some(receipt.clone());
            open.streamed = streamed;
        }
    }

    pub(super) fn remove(&self, call: u64) {
        drop(self.take(call));
    }

    fn take(&self, call: u64) -> Option<Open> {
        let open = lock(&self.calls).open.remove(&call);
        self.changed.notify_waiters();
        open
    }

    /// No more calls are made.
    pub(super) fn shut(&self) {
        self.slots.iter().for_each(|slots| slots.close());
    }

    fn answer(&self, call: u64, answer: Answer) {
        match self.take(call) {
            // Nobody may wait any more; a body that was on its way is refused by being dropped.
            Some(open) => drop(open.sender.send(answer)),
            None => drop(self.unmatched.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn raise(&self, limits: [u64; 2]) {
        let mut calls = lock(&self.calls);
        for (class, limit) in limits.into_iter().enumerate() {
            let limit = self.max_open.min(limit as usize);
            let more = limit.saturating_sub(calls.limits[class]);
            calls.limits[class] += more;
            self.slots[class].add_permits(more);
        }
    }

    fn end(&self, error: &SessionError) {
        let open = {
            let mut calls = lock(&self.calls);
            calls.ended.get_or_insert_with(|| error.clone());
            std::mem::take(&mut calls.open)
        };
        self.shut();
        for (_, open) in open {
            let _gave_up = open.sender.send(Answer::Ended(error.clone()));
        }
        self.changed.notify_waiters();
    }
}

fn closed() -> SessionError {
    SessionError::Ended { reason: EndReason::Closed, words: None, common: None }
}

pub(super) struct Listener {
    socket: MultiSocket,
    state: Arc<State>,
    heads: JoinSet<Result<Heard, HearError>>,
    cancels: JoinSet<()>,
}

/// However the task ends, nobody waits in vain.
struct Ending(Arc<State>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(&closed());
    }
}

impl Listener {
    pub(super) fn new(socket: MultiSocket, state: Arc<State>) -> Self {
        Self { socket, state, heads: JoinSet::new(), cancels: JoinSet::new() }
    }

    pub(super) async fn run(mut self, mut cancelled: mpsc::UnboundedReceiver<u64>) {
        let _ending = Ending(Arc::clone(&self.state));
        let mut until = None;
        let error = loop {
            if until.is_some() && self.state.stats().open == 0 {
                return;
            }
            // A peer that has much to say leaves others their turn.
            tokio::task::coop::consume_budget().await;
            let late = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => pending().await,
                }
            };
            let heard = tokio::select! {
                message = self.socket.recv(), if self.heads.len() < say::MAX_HEADLESS => match message {
                    Ok(Some(message)) => self.take(message),
                    Ok(None) => break closed(),
                    Err(error) => break error,
                },
                Some(heard) = self.heads.join_next(), if !self.heads.is_empty() => {
                    heard.unwrap_or(Err(HearError::Gone)).map(Some)
                }
                Some(_) = self.cancels.join_next(), if !self.cancels.is_empty() => Ok(None),
                call = cancelled.recv(), if until.is_none() => {
                    match call {
                        Some(call) => self.cancel(call),
                        None => until = Some(Instant::now() + AFTERWARDS),
                    }
                    Ok(None)
                }
                () = late => return,
            };
            let understood = match heard {
                Ok(Some(heard)) => self.understand(heard),
                Ok(None) | Err(HearError::Gone) => Ok(()),
                Err(HearError::Violation(what)) => Err(what),
            };
            if let Err(what) = understood {
                tracing::debug!(peer = %self.socket.peer(), what, "the rules of calls are broken");
                self.socket.abort();
                break SessionError::Ended { reason: EndReason::Violation, words: None, common: None };
            }
        };
        self.state.end(&error);
    }

    fn take(&mut self, mut message: Message) -> Result<Option<Heard>, HearError> {
        if let Some(bytes) = message.payload() {
            let bytes: Bytes = bytes.clone();
            return say::hear(std::mem::take(&mut message.labels), bytes).map(Some);
        }
        self.heads.spawn(say::hear_streamed(message));
        Ok(None)
    }

    fn understand(&mut self, heard: Heard) -> Result<(), String> {
        let Heard { labels, head, body } = heard;
        match head {
            Head::Response { call } => self.state.answer(call, Answer::Response(body)),
            Head::Fault { call, fault } => self.fault(call, fault, &body),
            Head::Limits(limits) => self.state.raise(limits),
            Head::Request { call, .. } | Head::Foreign { call } => return self.refuse(labels, call),
            Head::Cancel { .. } => drop(self.state.unmatched.fetch_add(1, Ordering::Relaxed)),
        }
        Ok(())
    }

    fn fault(&self, call: u64, fault: Fault, words: &Body) {
        if fault == Fault::NotOpen && self.was_taken(call) {
            // It was answered before it was to be cancelled, and the answer is on its way.
            return;
        }
        let words = words.whole().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        self.state.answer(call, Answer::Fault(fault, words.unwrap_or_default()));
    }

    /// Whether the other side surely took a call up.
    fn was_taken(&self, call: u64) -> bool {
        let calls = lock(&self.state.calls);
        let receipt = calls.open.get(&call).and_then(|open| open.receipt.as_ref());
        receipt.is_some_and(|receipt| receipt.try_outcome() == Some(Outcome::Delivered))
    }

    /// Nobody serves calls here.
    fn refuse(&self, labels: Labels, call: u64) -> Result<(), String> {
        self.state.refused.fetch_add(1, Ordering::Relaxed);
        let head = Head::Fault { call, fault: Fault::Refused };
        let message = say::whole(head, b"it serves no calls on this conversation");
        match self.socket.try_send_with(message, labels, say::options(Patience::Endless)) {
            Err(SendError::Full(_)) => Err("requests where none are served".into()),
            _ => Ok(()),
        }
    }

    /// Sees a call to its end that nobody waits for: what was not delivered is dropped, otherwise the other side is told.
    /// It answers that, and then the call is over.
    fn cancel(&mut self, call: u64) {
        let found = {
            let calls = lock(&self.state.calls);
            calls.open.get(&call).map(|open| (open.receipt.clone(), open.streamed, open.labels.clone()))
        };
        let Some((Some(receipt), streamed, labels)) = found else { return };
        let (socket, state) = (self.socket.clone(), Arc::clone(&self.state));
        self.cancels.spawn(async move {
            match receipt.outcome().await {
                Outcome::Dropped(reason) if !streamed => {
                    if let Some(open) = state.take(call) {
                        let _gave_up = open.sender.send(Answer::Undelivered(reason));
                    }
                }
                // The end of the conversation ends the call.
                Outcome::Unknown => {}
                _ => drop(say::send(&socket, labels, say::whole(Head::Cancel { call }, &[])).await),
            }
        });
    }
}
