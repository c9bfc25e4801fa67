//! Whether the other side still does something.
//!
//! Silence says nothing while no network that the transfer may use leads to the peer. So the clock runs only after the
//! peer's library has acknowledged a message under the same rule: then a network is there, and it is the peer's program
//! that does nothing.

use bytes::Bytes;
use std::time::Duration;
use steadfast::{Labels, MultiSocket, Receipt};
use tokio::time::Instant;

/// Watches one conversation.
#[derive(Debug)]
pub(crate) struct Idle {
    limit: Duration,
    /// When the peer last did something.
    moved: Instant,
    nudge: Option<Receipt>,
    /// When the peer's library had the nudge.
    heard: Option<Instant>,
    parked_since: Option<Instant>,
}

impl Idle {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, moved: Instant::now(), nudge: None, heard: None, parked_since: None }
    }

    /// The peer did something that brings the transfer on.
    pub(crate) fn moved(&mut self) {
        self.moved = Instant::now();
        self.nudge = None;
        self.heard = None;
    }

    /// How often [`is_over`](Self::is_over) wants to be asked.
    pub(crate) fn tick(&self) -> Duration {
        (self.limit / 8).clamp(Duration::from_millis(5), Duration::from_millis(500))
    }

    /// For how long no network that may be used has led to the peer.
    pub(crate) fn parked(&self) -> Duration {
        self.parked_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether the peer had a network and the time, and did nothing. `nudge` says nothing but that somebody is there.
    pub(crate) async fn is_over(&mut self, socket: &MultiSocket, nudge: Bytes, labels: &Labels) -> bool {
        if !socket.has_network_for(labels) {
            self.parked_since.get_or_insert_with(Instant::now);
            self.moved();
            return false;
        }
        self.parked_since = None;
        if self.moved.elapsed() < self.limit / 2 {
            return false;
        }
        match &self.nudge {
            None => match socket.try_send(nudge, labels.clone()) {
                Ok(receipt) => self.nudge = Some(receipt),
                // What was said before is not even taken: that counts as heard.
                Err(_) => _ = self.heard.get_or_insert_with(Instant::now),
            },
            Some(receipt) => {
                let acked = tokio::time::timeout(Duration::ZERO, receipt.acked()).await;
                if self.heard.is_none() && acked.is_ok() {
                    self.heard = Some(Instant::now());
                }
            }
        }
        self.heard.is_some_and(|heard| heard.elapsed() >= self.limit / 2)
    }
}
