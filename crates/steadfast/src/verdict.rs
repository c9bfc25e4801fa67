//! What is known of a peer's process, as users see it.

use crate::events::Events;
use crate::homa::Peer;
use crate::shared::Shared;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use steadfast_session::{Event, Evidence, Judgement, Verdict};
use steadfast_wire::Instant;

/// A verdict with its evidence.
///
/// As text it is a line for a person: `crashed: its host answers, and nothing listens at 10.0.0.7:7463 any more`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// What is known.
    pub verdict: Verdict,
    /// What it rests on.
    pub evidence: Evidence,
    /// For how long.
    pub age: Duration,
}

/// The changes of the verdict on the other side of a conversation, or on a peer that is called over [Homa](crate::homa), in
/// order; at most 256 wait, as with [`Events`](crate::Events). Such a peer is kept in reach as long as this is.
#[derive(Debug)]
pub struct Verdicts {
    /// None where nothing is ever known.
    source: Option<(Events, Arc<Shared>)>,
    _peer: Option<Peer>,
}

impl Standing {
    pub(crate) fn new(judgement: Option<Judgement>, now: Instant) -> Self {
        match judgement {
            Some(Judgement { verdict, evidence, since }) => Self { verdict, evidence, age: now.since(since) },
            None => Self { verdict: Verdict::Unknown, evidence: Evidence::Nothing, age: Duration::ZERO },
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.verdict, self.evidence)
    }
}

impl Verdicts {
    pub(crate) fn new(events: Events, shared: Arc<Shared>) -> Self {
        Self { source: Some((events, shared)), _peer: None }
    }

    /// On a peer; of one that is an address nothing is ever told.
    pub(crate) fn of_peer(source: Option<(Events, Arc<Shared>)>, peer: Peer) -> Self {
        Self { source, _peer: Some(peer) }
    }

    /// The next change; `None` after the last: the conversation has ended, or the endpoint is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Standing> {
        let (events, shared) = self.source.as_mut()?;
        loop {
            if let Event::Verdict { judgement, .. } = events.next().await? {
                return Some(Standing::new(Some(judgement), shared.clock.now()));
            }
        }
    }
}
