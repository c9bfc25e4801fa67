//! The receiving side.

mod chores;
mod content;
mod directories;
mod talk;

use crate::manifest::ManifestFault;
use crate::message::{Answer, Greeting, PING, VERSION};
use crate::progress::Monitor;
use crate::sender::IDLE;
use crate::store::Store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use steadfast::{Fingerprint, Labels, Message, MultiSocket, SessionError};
use tokio::sync::watch;

/// How long a peer may take to say its first words.
const GREETING: Duration = Duration::from_secs(30);

/// Takes transfers into one directory, several at once.
#[derive(Debug)]
pub struct Receiver {
    store: Arc<Store>,
    idle: Duration,
    /// The most entries and bytes of one transfer.
    limits: (u64, u64),
    /// By who sends and what: a sender that was cut off and comes back takes its own place.
    running: Mutex<HashMap<(Fingerprint, [u8; 16]), Running>>,
}

#[derive(Debug, Clone)]
struct Running {
    stop: watch::Sender<bool>,
    /// Held as long as files may be open.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A peer that wants to send.
#[derive(Debug)]
pub struct Request {
    socket: MultiSocket,
    greeting: Greeting,
    /// What is said to the sender, under its own rule.
    labels: Labels,
}

impl Request {
    /// Who.
    pub fn peer(&self) -> Fingerprint {
        self.socket.peer()
    }

    /// Whether no network leads to the sender at the moment.
    pub fn conversation(&self) -> MultiSocket {
        self.socket.clone()
    }
}

/// Why a transfer did not come to its end. What has come is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveFailure {
    /// The sender speaks another version.
    #[error(
        "the sender speaks versions {0} to {1} of the protocol, and this side {VERSION}: install the same version on both"
    )]
    Version(u64, u64),
    /// The sender broke the protocol.
    #[error("the sender broke the protocol, {0}: check that both sides have the same version")]
    Protocol(&'static str),
    /// The sender offered what must not be.
    #[error("the sender broke the protocol: {0}")]
    Manifest(#[from] ManifestFault),
    /// The sender is there and does nothing.
    #[error("the sender answers and does nothing, for {0:?} now")]
    Idle(Duration),
    /// The sender ended it early.
    #[error("the sender gave up")]
    GaveUp,
    /// The sender offered more than was agreed.
    #[error("more is offered than was agreed: {0} files and directories, {1} bytes")]
    TooMuch(u64, u64),
    /// The conversation ended.
    #[error(transparent)]
    Lost(SessionError),
    /// The same sender came back for the same files.
    #[error("the sender began anew")]
    Superseded,
    /// A fault of this program.
    #[error("this program failed; what has come is kept")]
    Panicked,
}

impl ReceiveFailure {
    /// Whether the sender may come back and go on.
    pub fn may_go_on(&self) -> bool {
        matches!(self, Self::GaveUp | Self::Lost(_) | Self::Superseded)
    }
}

impl Receiver {
    /// Takes files into this directory.
    pub fn new(store: Store) -> Self {
        Self { store: Arc::new(store), idle: IDLE, limits: (u64::MAX, u64::MAX), running: Mutex::default() }
    }

    /// The most files and directories, and the most bytes, that one transfer may bring. No limit.
    #[must_use]
    pub fn limits(mut self, entries: u64, bytes: u64) -> Self {
        self.limits = (entries, bytes);
        self
    }

    /// How long a sender may do nothing while a network is there. 60 s.
    #[must_use]
    pub fn idle_limit(mut self, limit: Duration) -> Self {
        self.idle = limit;
        self
    }

    /// The directory.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Takes a peer's first words; `None`, and the conversation is over, if they are not those of a transfer. One that only
    /// measures round trips is read until its opener ends it.
    pub async fn greet(&self, socket: MultiSocket) -> Option<Request> {
        let first = tokio::time::timeout(GREETING, socket.recv()).await;
        let message = first.ok().and_then(Result::ok).flatten();
        self.greet_with(socket, message).await
    }

    /// The same where the first words were read already; `None` of them if there are none.
    pub async fn greet_with(&self, socket: MultiSocket, message: Option<Message>) -> Option<Request> {
        let pings = message.as_ref().and_then(Message::payload).is_some_and(|words| *words == PING);
        let greeting = message.and_then(|message| {
            let greeting = Greeting::decode(message.payload()?.clone())?;
            Some((greeting, Labels::foreground().rule(message.labels.rule.clone())))
        });
        let Some((greeting, labels)) = greeting else {
            if pings {
                while let Ok(Some(_)) = socket.recv().await {}
            }
            // Ended in the background: who asked for something else is answered by the end.
            drop(socket);
            return None;
        };
        Some(Request { socket, greeting, labels })
    }

    /// Takes everything; returns how many files the sender could not read. What became of each file is in the monitor.
    pub async fn receive(&self, request: Request, monitor: Arc<Monitor>) -> Result<u64, ReceiveFailure> {
        let Request { socket, greeting, labels } = request;
        let Greeting { oldest, newest, transfer, .. } = greeting;
        if !(oldest..=newest).contains(&VERSION) {
            let failure = ReceiveFailure::Version(oldest, newest);
            self.refuse(&socket, labels, &failure).await;
            return Err(failure);
        }
        let key = (socket.peer(), transfer);
        let (stop, stopped) = watch::channel(false);
        let turn = {
            let mut running = self.running();
            let before = running.get(&key).map(|before| {
                before.stop.send_replace(true);
                Arc::clone(&before.turn)
            });
            let turn = before.unwrap_or_default();
            running.insert(key, Running { stop: stop.clone(), turn: Arc::clone(&turn) });
            turn
        };
        let _leave = Leave { receiver: self, key, stop };
        let _turn = turn.lock().await;
        let welcome = Answer::Welcome { version: VERSION, features: 0 };
        let result = talk::run(self, &socket, labels.clone(), monitor, welcome, stopped).await;
        if let Err(failure) = &result
            && !matches!(failure, ReceiveFailure::Lost(_))
        {
            self.refuse(&socket, labels, failure).await;
        }
        result
    }

    /// Tells the sender why, if it listens, and ends the conversation.
    async fn refuse(&self, socket: &MultiSocket, labels: Labels, failure: &ReceiveFailure) {
        let words = match failure {
            ReceiveFailure::Superseded => "the same transfer was started once more".into(),
            other => other.to_string(),
        };
        let answer = Answer::encode_all(&[Answer::Refuse(words)]);
        let told = async {
            if let Ok(receipt) = socket.send(answer, labels).await {
                let _outcome = receipt.outcome().await;
            }
        };
        // One that was cut off and came back under another conversation does not listen here any more.
        let _heard = tokio::time::timeout(Duration::from_secs(2), told).await;
        socket.abort();
    }

    fn running(&self) -> MutexGuard<'_, HashMap<(Fingerprint, [u8; 16]), Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a transfer off the list, unless another has its place by then.
struct Leave<'a> {
    receiver: &'a Receiver,
    key: (Fingerprint, [u8; 16]),
    stop: watch::Sender<bool>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut running = self.receiver.running();
        if running.get(&self.key).is_some_and(|other| other.stop.same_channel(&self.stop)) {
            running.remove(&self.key);
        }
    }
}
