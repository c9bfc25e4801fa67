//! A way out of the host, and what comes in from elsewhere: what NATS and other daemons have in common.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast_backplane::{Agent, Arrival, Arrived, Event, EventId, Keep, Outgoing, SinkId};

use crate::hub::Hub;
use crate::store::Word;

/// How long something waits that came too fast, or cannot be stored.
const TOO_FAST: Duration = Duration::from_millis(10);
const NOT_STORED: Duration = Duration::from_millis(500);
/// Between attempts to reach somebody.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Where events go to and come from, other than this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayStatus {
    /// `nats`, or `host KEY`.
    pub name: String,
    /// What it is connected to now.
    pub connected: bool,
    /// Why it is not, or was not the last time.
    pub fault: Option<String>,
    /// Events that went out and were confirmed.
    pub sent: u64,
    /// Events that gave way before they could go out, or that never can.
    pub lost: u64,
    /// Events that came in.
    pub received: u64,
    /// What came in and was not taken: duplicates, our own, what is no event, or a forgery.
    pub refused: u64,
}

/// The same while it changes.
#[derive(Debug)]
pub(crate) struct WayState {
    name: Arc<str>,
    link: Mutex<Link>,
    sent: AtomicU64,
    lost: AtomicU64,
    received: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Link {
    connected: bool,
    fault: Option<String>,
}

impl WayState {
    fn new(name: Arc<str>) -> Self {
        let (sent, lost) = (AtomicU64::default(), AtomicU64::default());
        let (received, refused) = (AtomicU64::default(), AtomicU64::default());
        Self { name, link: Mutex::default(), sent, lost, received, refused }
    }

    pub(crate) fn status(&self) -> WayStatus {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        WayStatus {
            name: self.name.to_string(),
            connected: link.connected,
            fault: link.fault.clone(),
            sent: self.sent.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// It works from now on.
    pub(crate) fn set_connected(&self) {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if !link.connected {
            tracing::info!(way = %self.name, "events are exchanged");
        }
        *link = Link { connected: true, fault: None };
    }

    /// It does not, and why. Told once for each cause.
    pub(crate) fn set_fault(&self, fault: String) {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if link.connected || link.fault.as_ref() != Some(&fault) {
            tracing::warn!(way = %self.name, %fault, "events wait here");
        }
        *link = Link { connected: false, fault: Some(fault) };
    }

    pub(crate) fn lost(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn took(&self, arrived: Arrived) {
        if matches!(arrived, Arrived::Delivered(_)) {
            self.received.fetch_add(1, Ordering::Relaxed);
        } else {
            self.refused();
        }
    }
}

/// One way out.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) hub: Arc<Hub>,
    pub(crate) state: Arc<WayState>,
    sink: SinkId,
}

impl Way {
    /// Opens a way of this name. None if there are too many.
    pub(crate) fn open(hub: &Arc<Hub>, name: &str, keep: Keep) -> Option<Self> {
        let sink = hub.quietly(|server| server.agent_mut().add_sink(keep))?;
        let state = Arc::new(WayState::new(name.into()));
        hub.add_way(Arc::clone(&state));
        Some(Self { hub: Arc::clone(hub), state, sink })
    }

    pub(crate) fn name(&self) -> &str {
        &self.state.name
    }

    /// What was given out in an earlier run went there then.
    pub(crate) fn skip(&self, agent: &mut Agent) {
        while let Some(outgoing) = agent.poll_sink(self.sink) {
            if let Outgoing::Event { place, .. } = outgoing {
                agent.handle_confirmed(self.sink, place);
                return;
            }
        }
    }

    /// What goes out next, if there is something.
    pub(crate) fn poll(&self) -> Option<(u64, Arc<Event>)> {
        loop {
            match self.hub.quietly(|server| server.agent_mut().poll_sink(self.sink))? {
                Outgoing::Lost(count) => self.state.lost(count),
                Outgoing::Event { place, event } => return Some((place, event)),
            }
        }
    }

    /// Waits for what goes out next. Cancel safe: what was not returned comes next.
    pub(crate) async fn next(&self) -> (u64, Arc<Event>) {
        loop {
            let mut told = pin!(self.hub.sinks.notified());
            // Enlisted before looking: an event between the two is not missed.
            told.as_mut().enable();
            if let Some(next) = self.poll() {
                return next;
            }
            told.await;
        }
    }

    /// Everything up to this event is where it should be: `count` more than before.
    pub(crate) fn confirmed(&self, place: u64, id: EventId, count: u64) {
        self.state.sent.fetch_add(count, Ordering::Relaxed);
        self.hub.tell_store(Word::Left(Arc::clone(&self.state.name), id));
        self.hub.quietly(|server| server.agent_mut().handle_confirmed(self.sink, place));
    }

    /// What was not confirmed is given out again.
    pub(crate) fn interrupted(&self) {
        self.hub.quietly(|server| server.agent_mut().handle_interrupted(self.sink));
    }

    /// Takes in an event of a host that is vouched for; holds up who brings it rather than lose it. Returns the place in the journal
    /// up to which everything has to be stored until it may be forgotten elsewhere.
    pub(crate) async fn take_in(&self, event: &Event, arrival: Arrival) -> u64 {
        loop {
            if self.hub.storage_fault().is_some() {
                tokio::time::sleep(NOT_STORED).await;
                continue;
            }
            let (arrived, place) = self.hand_over(event.clone(), arrival);
            if arrived != Arrived::TooFast {
                self.state.took(arrived);
                return place;
            }
            tokio::time::sleep(TOO_FAST).await;
        }
    }

    /// Takes in an event that nobody vouches for; it is lost if such come too fast.
    pub(crate) fn take_in_unsigned(&self, event: Event) -> u64 {
        let (arrived, place) = self.hand_over(event, Arrival { peer: None, verified: false });
        self.state.took(arrived);
        place
    }

    fn hand_over(&self, event: Event, arrival: Arrival) -> (Arrived, u64) {
        let handed = self.hub.with(|server, now| {
            let arrived = server.agent_mut().handle_remote(now, event, arrival);
            (arrived, server.agent().journal_place())
        });
        self.hub.tell_arrived(true);
        handed
    }
}

/// How long it is until the next attempt.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self(FIRST)
    }

    /// What was connected held for so long.
    pub(crate) fn held(&mut self, time: Duration) {
        if time > LONGEST {
            self.0 = FIRST;
        }
    }

    /// Waits, each time longer, with some chance so that not all come at once.
    pub(crate) async fn wait(&mut self) {
        let mut random = [0; 1];
        let _none = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        let wait = self.0 * (192 + u32::from(random[0])) / 320;
        self.0 = (self.0 * 2).min(LONGEST);
        tokio::time::sleep(wait).await;
    }
}
