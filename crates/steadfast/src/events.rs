//! Events for whoever subscribed: bounded queues, the oldest dropped first, the loss counted.

use crate::lock;
use crate::receipt::wait_until;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use steadfast_session::{Event, ReachId};
use steadfast_wire::{Fingerprint, SessionId};
use tokio::sync::Notify;

/// Events that one subscriber may leave waiting, some 200 bytes each.
const QUEUE: usize = 256;

/// The events of an endpoint, or of one conversation, from the moment it was made.
///
/// At most 256 wait; beyond that the oldest are dropped and [`lost`](Self::lost) counts them.
/// What happens to single messages is told by their [`Receipt`](crate::Receipt)s and not here.
pub struct Events {
    subscriber: Arc<Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    scope: Scope,
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    lost: u64,
    over: bool,
}

/// What somebody subscribes to.
#[derive(Debug)]
pub(crate) enum Scope {
    Everything,
    /// One conversation and its peer.
    Session(SessionId, Fingerprint),
    /// Whatever process is in reach as this at present.
    Reach(Arc<Mutex<Option<ReachId>>>),
}

/// Everybody who subscribed.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    subscribers: Mutex<Vec<Weak<Subscriber>>>,
}

impl Events {
    /// The next event; `None` after the last: the conversation has ended, or the endpoint is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        let subscriber = &self.subscriber;
        wait_until(&subscriber.changed, || {
            let mut queue = lock(&subscriber.queue);
            match queue.events.pop_front() {
                Some(event) => Some(Some(event)),
                None => queue.over.then_some(None),
            }
        })
        .await
    }

    /// The next event if there is one.
    pub fn try_next(&mut self) -> Option<Event> {
        lock(&self.subscriber.queue).events.pop_front()
    }

    /// How many events were dropped because they were not taken in time.
    pub fn lost(&self) -> u64 {
        lock(&self.subscriber.queue).lost
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = lock(&self.subscriber.queue);
        write!(f, "Events({} waiting, {} lost)", queue.events.len(), queue.lost)
    }
}

impl Subscriber {
    fn wants(&self, event: &Event) -> bool {
        let (own, own_peer) = match &self.scope {
            Scope::Everything => return true,
            Scope::Session(session, peer) => (*session, *peer),
            Scope::Reach(reach) => {
                let own = *lock(reach);
                return matches!(event, Event::Verdict { reaches, .. } if own.is_some_and(|own| reaches.contains(&own)));
            }
        };
        match event {
            Event::Incoming { session, .. }
            | Event::Opened { session }
            | Event::PeerShut { session, .. }
            | Event::Parked { session }
            | Event::Resumed { session }
            | Event::Ended { session, .. } => *session == own,
            Event::PathUp(info)
            | Event::PathSuspect(info)
            | Event::PathRecovered(info)
            | Event::PathDown(info, _) => info.peer == own_peer,
            Event::Verdict { sessions, .. } => sessions.contains(&own),
            Event::PeerLeft { peer, .. } => *peer == own_peer,
            _ => false,
        }
    }

    fn push(&self, event: &Event) {
        let mut queue = lock(&self.queue);
        if queue.over {
            return;
        }
        if queue.events.len() >= QUEUE {
            queue.events.pop_front();
            queue.lost += 1;
        }
        queue.events.push_back(event.clone());
        queue.over = matches!((&self.scope, event), (Scope::Session(..), Event::Ended { .. }));
    }
}

impl Hub {
    /// A new subscriber.
    pub(crate) fn subscribe(&self, scope: Scope, over: bool) -> Events {
        let queue = Mutex::new(Queue { over, ..Queue::default() });
        let subscriber = Arc::new(Subscriber { scope, queue, changed: Notify::new() });
        let mut all = lock(&self.subscribers);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&subscriber));
        Events { subscriber }
    }

    /// Puts an event into the queues of those who want it; the returned ones are to be woken.
    pub(crate) fn publish(&self, event: &Event) -> Vec<Wanted> {
        let all = lock(&self.subscribers);
        let live = all.iter().filter_map(Weak::upgrade);
        live.filter(|one| one.wants(event))
            .map(|one| {
                one.push(event);
                Wanted(one)
            })
            .collect()
    }

    /// Nothing more will happen.
    pub(crate) fn close(&self) {
        for subscriber in lock(&self.subscribers).drain(..).filter_map(|one| one.upgrade()) {
            lock(&subscriber.queue).over = true;
            subscriber.changed.notify_waiters();
        }
    }
}

/// A subscriber that has something new.
#[derive(Debug)]
pub(crate) struct Wanted(Arc<Subscriber>);

impl Wanted {
    pub(crate) fn wake(&self) {
        self.0.changed.notify_waiters();
    }
}
