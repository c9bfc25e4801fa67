//! The sending side.

mod content;
mod source;
mod talk;
mod walk;

pub use walk::{Plan, PlanError};

use crate::digest::Hasher;
use crate::progress::{Event, Monitor, Stage};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use steadfast::{ConnectError, EndReason, Endpoint, Labels, MultiSocket, SessionError, Target};
use tokio::time::Instant;

/// How long a peer that has a network may do nothing.
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// How often a receiver that refuses our key is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Conversations that end one after the other before anything came of them.
const FRUITLESS: u32 = 5;

/// Sends what was planned, over as many conversations as it takes.
#[derive(Debug)]
pub struct Sender {
    plan: Plan,
    labels: Labels,
    idle: Duration,
    reach_limit: Duration,
    trust_limit: Duration,
    parked_limit: Option<Duration>,
    /// What is there since an earlier conversation, by a hash of its path.
    known: Mutex<HashSet<u64>>,
}

/// Why not everything was settled. Whatever it is: the same once more goes on from where it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendFailure {
    /// No conversation came about.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The conversation ended; a new one may go on.
    #[error("the conversation with the receiver ended{}", .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Lost(Option<SessionError>),
    /// The receiver will not.
    #[error("the receiver will not take it: {}", crate::name::printable(.0.as_bytes()))]
    Refused(String),
    /// The receiver speaks otherwise than agreed.
    #[error("the receiver broke the protocol, {0}: check that both sides have the same version")]
    Protocol(&'static str),
    /// The receiver is there and does nothing.
    #[error("the receiver answers and does nothing, for {0:?} now: look what it waits for, and send again")]
    Idle(Duration),
    /// No network for too long.
    #[error(
        "no network that may be used led to the receiver for {0:?}: send again to go on from there, or wait longer"
    )]
    Parked(Duration),
}

impl Sender {
    /// Sends with these labels: the content with their urgency, everything under their rule.
    pub fn new(plan: Plan, labels: Labels) -> Self {
        Self {
            plan,
            labels,
            idle: IDLE,
            reach_limit: Duration::from_secs(30),
            trust_limit: Duration::ZERO,
            parked_limit: None,
            known: Mutex::default(),
        }
    }

    /// How long a receiver that went away may take to come back, besides what one attempt takes
    /// ([`Builder::connect_limit`](steadfast::Builder::connect_limit)). 30 s.
    #[must_use]
    pub fn reach_limit(mut self, limit: Duration) -> Self {
        self.reach_limit = limit;
        self
    }

    /// How long a receiver that does not trust our key is asked again. Not at all.
    #[must_use]
    pub fn trust_limit(mut self, limit: Duration) -> Self {
        self.trust_limit = limit;
        self
    }

    /// How long there may be no network in the middle of it. For ever.
    #[must_use]
    pub fn parked_limit(mut self, limit: Option<Duration>) -> Self {
        self.parked_limit = limit;
        self
    }

    /// How long the receiver may do nothing while a network is there. 60 s.
    #[must_use]
    pub fn idle_limit(mut self, limit: Duration) -> Self {
        self.idle = limit;
        self
    }

    /// Connects, sends everything, and connects again where a conversation ends before that. What became of each file is
    /// in the monitor.
    ///
    /// Cancel safe in that the same once more goes on from where it was.
    pub async fn deliver(
        &self,
        endpoint: &Endpoint,
        to: &Target,
        monitor: &Monitor,
    ) -> Result<(), SendFailure> {
        let asked_until = Instant::now() + self.trust_limit;
        let (mut away_until, mut fruitless, mut untrusted) = (None, 0, false);
        loop {
            let socket = match endpoint.connect(to.clone()).await {
                Ok(socket) => socket,
                Err(ConnectError::Refused { .. }) if Instant::now() < asked_until => {
                    if !std::mem::replace(&mut untrusted, true) {
                        monitor.tell(Event::Untrusted);
                    }
                    tokio::time::sleep(ASK_AGAIN).await;
                    continue;
                }
                Err(ConnectError::Unreachable { .. } | ConnectError::Ended { .. })
                    if away_until.is_some_and(|until| Instant::now() < until) =>
                {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let before = monitor.progress();
            let failure = match self.send(&socket, monitor).await {
                Err(SendFailure::Lost(error)) if error.as_ref().is_none_or(may_come_back) => {
                    SendFailure::Lost(error)
                }
                other => return other,
            };
            let after = monitor.progress();
            let nothing = (before.bytes, before.checked) == (after.bytes, after.checked);
            fruitless = if nothing { fruitless + 1 } else { 0 };
            if fruitless >= FRUITLESS {
                return Err(failure);
            }
            monitor.stage(Stage::Connecting);
            monitor.tell(Event::Lost { words: failure.to_string() });
            away_until = Some(Instant::now() + self.reach_limit);
            tokio::time::sleep(Duration::from_millis(100) * 2u32.pow(fruitless)).await;
        }
    }

    /// Sends everything over one conversation, and ends it.
    pub async fn send(&self, socket: &MultiSocket, monitor: &Monitor) -> Result<(), SendFailure> {
        monitor.begin();
        let mut result = talk::run(self, socket, monitor).await;
        if let Err(SendFailure::Lost(why @ None)) = &mut result {
            // Writing learns that it is over, but not why.
            *why = tokio::time::timeout(Duration::from_secs(1), drain(socket)).await.ok().flatten();
        }
        match &result {
            // The receiver waits for it, and nothing is lost without.
            Ok(()) => _ = socket.close().await,
            Err(SendFailure::Lost(_)) => {}
            Err(_) => socket.abort(),
        }
        result
    }

    fn remember(&self, path: &[u8]) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(short(path));
    }

    fn knows(&self, path: &[u8]) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&short(path))
    }
}

fn short(path: &[u8]) -> u64 {
    let mut hasher = Hasher::default();
    hasher.update(path);
    u64::from_be_bytes(std::array::from_fn(|index| hasher.digest().0[index]))
}

/// Reads until the end, for its reason.
async fn drain(socket: &MultiSocket) -> Option<SessionError> {
    loop {
        match socket.recv().await {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}

/// Whether a new conversation may go on where this one ended.
fn may_come_back(error: &SessionError) -> bool {
    let never = |reason| matches!(reason, EndReason::Refused | EndReason::Violation);
    !matches!(error, SessionError::Ended { reason, .. } if never(*reason))
}
