//! The calls that are open, and the answers that they are owed.

use crate::lock;
use crate::rpc::handler::{Request, Response};
use crate::rpc::say::{self, SayError};
use crate::socket::MultiSocket;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use steadfast_session::{Patience, SendError};
use steadfast_wire::Labels;
use steadfast_wire::call::{Fault, Head};
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) taken: AtomicU64,
    pub(super) begun: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) unmatched: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What the tasks of calls share with the one that takes requests.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// Calls without an answer. Whoever takes one off answers it, so that there is exactly one answer.
    pub(super) open: Mutex<Calls>,
    /// Answers that wait for room.
    pub(super) outbox: Mutex<VecDeque<(Labels, Bytes)>>,
    pub(super) posted: Notify,
    pub(super) counters: Counters,
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) all: HashMap<u64, Open>,
    pub(super) of_urgency: [usize; 2],
}

impl Calls {
    pub(super) fn insert(&mut self, call: u64, open: Open) {
        self.of_urgency[open.labels.urgency.index()] += 1;
        self.all.insert(call, open);
    }

    pub(super) fn take(&mut self, call: u64) -> Option<Open> {
        let open = self.all.remove(&call)?;
        self.of_urgency[open.labels.urgency.index()] -= 1;
        Some(open)
    }
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) labels: Labels,
    /// Until its handler is begun.
    pub(super) request: Option<Request>,
}

impl Board {
    pub(super) fn take(&self, call: u64) -> Option<Open> {
        lock(&self.open).take(call)
    }

    pub(super) fn post(&self, labels: &Labels, call: u64, fault: Fault, words: &str) {
        let message = say::whole(Head::Fault { call, fault }, say::words(words));
        lock(&self.outbox).push_back((labels.clone(), message));
        count(&self.counters.faults);
        self.posted.notify_one();
    }
}

/// Owes one call its answer: whatever ends its task, the caller hears of it.
pub(super) struct Answer {
    call: u64,
    labels: Labels,
    board: Arc<Board>,
    /// The response is on its way; only a fault can still follow.
    sending: bool,
    given: bool,
}

impl Answer {
    pub(super) const fn new(call: u64, labels: Labels, board: Arc<Board>) -> Self {
        Self { call, labels, board, sending: false, given: false }
    }

    pub(super) async fn give(mut self, socket: &MultiSocket, result: Result<Response, (Fault, String)>) {
        if self.board.take(self.call).is_none() {
            // Answered already, by whoever cancelled it.
            self.given = true;
            return;
        }
        let response = match result {
            Ok(response) => response,
            Err((fault, words)) => return self.fail(fault, &words),
        };
        self.sending = true;
        let head = Head::Response { call: self.call };
        // Nobody here could be told that it found no network; whoever calls has a deadline.
        let (labels, body) = (self.labels.clone(), response.into_body());
        let result = match say::begin(socket, labels, head, body, Patience::Endless).await {
            Ok(said) => {
                count(&self.board.counters.answered);
                match said.upload {
                    Some(upload) => upload.await,
                    None => Ok(()),
                }
            }
            Err(error) => Err(SayError::Send(error)),
        };
        match result {
            // The caller does without the rest.
            Ok(()) | Err(SayError::Send(SendError::NotOpen(_))) => self.given = true,
            Err(SayError::Body(error)) => self.fail(Fault::Failed, &error.to_string()),
            Err(SayError::Send(error)) => self.fail(Fault::Failed, &error.to_string()),
        }
    }

    fn fail(&mut self, fault: Fault, words: &str) {
        self.given = true;
        self.board.post(&self.labels, self.call, fault, words);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given && (self.sending || self.board.take(self.call).is_some()) {
            let fault = if std::thread::panicking() { Fault::Panicked } else { Fault::Stopped };
            self.fail(fault, "");
        }
    }
}
