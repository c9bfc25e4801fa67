//! The agent of one host: who is attached, what they may, and who gets which event.

use crate::access::{Rules, Who};
use crate::event::{Client, Event, EventId, Kind, Location, Payload, SchemaInfo};
use crate::handle::EventHandle;
use crate::limit::Bucket;
use crate::name::{EventName, EventSpace, HostName, Severity};
use crate::queue::{Delivery, Next, Provenance, Queue, SubscriptionId};
use crate::ready::{Notice, Ready};
use crate::schema::{Declaration, MAX_DECLARED};
use crate::subscription::{Matching, Subscription};
use crate::timestamp::Timestamp;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;
use history::{Entry, History, newest};
use journal::Journal;
use origins::{Origins, Seen};
use outbox::Outbox;
use steadfast_wire::{Fingerprint, Incarnation, Instant, varint};

mod config;
mod errors;
mod history;
mod journal;
mod origins;
mod outbox;
#[cfg(test)]
mod tests;

pub use config::{Config, Metrics};
pub use errors::{AttachError, DeclareError, PublishError, SubscribeError, UnsubscribeError};
pub use journal::Record;
pub use outbox::{Keep, Outgoing, SinkId};

/// The most ways out of a host.
const MAX_SINKS: usize = 1024;

/// A client as the agent numbers it; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

/// The host, as its events name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// Its identity.
    pub origin: Fingerprint,
    /// This run of its agent: random at its start.
    pub incarnation: Incarnation,
    /// Its name.
    pub name: HostName,
    /// An address of it.
    pub address: Option<IpAddr>,
}

/// A process on this host, as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its user.
    pub user: u32,
    /// Its number.
    pub pid: u32,
    /// When it started.
    pub start: Timestamp,
    /// Whether it is the agent's own, to which no rule and no rate applies.
    pub own: bool,
}

/// A client as it is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedClient {
    /// Its process.
    pub process: Process,
    /// Where it publishes, if it does.
    pub space: Option<EventSpace>,
    /// What it calls itself.
    pub client: Client,
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// How many events it has published.
    pub published: u64,
    /// How many events wait for it.
    pub waiting: usize,
}

/// What a client publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// One of its declared events; case does not matter.
    pub name: EventName,
    /// Whether it answers another.
    pub kind: Kind,
    /// What else there is to say.
    pub payload: Payload,
}

/// What a new subscription wants of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replay {
    /// Nothing.
    #[default]
    Nothing,
    /// The last events that it matches.
    Recent {
        /// So many at most.
        events: u32,
        /// None that came longer ago.
        within: Duration,
    },
    /// Everything that came after this event, or all that is there if it is not there any more.
    After(EventId),
}

/// What of the past a new subscription gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// So many events.
    pub events: u64,
    /// Whether that is all that it asked for of what is kept; if not, the event after which it asked is not kept any more, or
    /// the queue has no room for all.
    pub complete: bool,
}

/// How an event of another host came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The peer at the other end of a session; none for a broker.
    pub peer: Option<Fingerprint>,
    /// Whether its signature was verified, with a key of an origin that is trusted.
    pub verified: bool,
}

/// What became of an event of another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arrived {
    /// It is new and was handed on, to so many clients.
    Delivered(usize),
    /// It was here already.
    Duplicate,
    /// It is one of ours.
    Own,
    /// The peer did not originate it.
    Relayed,
    /// A rule refuses it.
    Denied,
    /// Too many come.
    TooFast,
    /// Its number is none.
    Malformed,
}

#[derive(Debug)]
struct Subscriber {
    id: SubscriptionId,
    subscription: Subscription,
    matching: Matching,
    /// Events from this position on came to it, or are about to.
    from: u64,
}

#[derive(Debug)]
struct Attached {
    process: Process,
    space: Option<EventSpace>,
    client: Client,
    declared: BTreeMap<EventName, (Declaration, Option<Arc<SchemaInfo>>)>,
    subscriptions: Vec<Subscriber>,
    queue: Queue,
    published: u64,
    bucket: Bucket,
    notice: Notice,
}

#[derive(Debug, Default)]
struct User {
    clients: usize,
    bucket: Bucket,
}

/// A router of events for one host, without any I/O.
///
/// [`attach`](Self::attach) a client, let it [`declare`](Self::declare), [`publish`](Self::publish) and
/// [`subscribe`](Self::subscribe); [`poll_ready`](Self::poll_ready) says which clients have something to take, until
/// [`poll`](Self::poll) says `None`. What is published here goes out through sinks ([`add_sink`](Self::add_sink),
/// [`poll_sink`](Self::poll_sink)); what comes from elsewhere comes in through [`handle_remote`](Self::handle_remote) and never
/// goes out again. When `publish` returns, the event is in the queue of every client that wants it, in the history and
/// among those that leave: that is what an acknowledgement says.
///
/// ```
/// # use steadfast_backplane::*;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (origin, incarnation) = (Fingerprint([7; 32]), Incarnation(9));
/// let host = Host { origin, incarnation, name: "node7".parse()?, address: None };
/// let mut agent = Agent::new(Config::default(), Rules::default(), host);
/// let now = Instant(1_000_000_000);
/// agent.handle_wall_time(now, "2026-07-01T12:00:00Z".parse()?);
///
/// let process = Process { user: 1000, pid: 4711, start: Timestamp(0), own: false };
/// let client = Client { name: "example".parse()?, job: JobId::NONE, extension: 0 };
/// let one = agent.attach(now, process, Some("FTB.apps.example".parse()?), client)?;
/// agent.declare(one, &[Declaration::new("DONE", "info")?], None)?;
/// let all = Subscription::new("event_name=done")?;
/// agent.subscribe(now, one, SubscriptionId(1), all, Matching::Every, Replay::Nothing)?;
///
/// let done = Publication { name: "DONE".parse()?, kind: Kind::Plain, payload: Payload::EMPTY };
/// let handle = agent.publish(now, one, done, true)?;
/// assert_eq!(agent.poll_ready(), Some(one));
/// let Some(Next::Event(delivery)) = agent.poll(one) else { panic!("nothing came") };
/// assert_eq!(delivery.event.handle(), handle);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Agent {
    config: Config,
    rules: Rules,
    host: Host,
    wall: (Instant, Timestamp),
    clients: BTreeMap<ClientId, Attached>,
    users: BTreeMap<u32, User>,
    last_client: u64,
    sequence: u64,
    position: u64,
    ready: Ready<ClientId>,
    local: History,
    remote: History,
    outbox: Outbox,
    journal: Journal,
    signed: Origins,
    unsigned: Origins,
    unsigned_bucket: Bucket,
    queued_bytes: usize,
    metrics: Metrics,
}

impl Agent {
    /// An agent to which nobody is attached.
    #[must_use]
    pub fn new(config: Config, rules: Rules, host: Host) -> Self {
        Self {
            config,
            rules,
            host,
            wall: (Instant::default(), Timestamp::default()),
            clients: BTreeMap::new(),
            users: BTreeMap::new(),
            last_client: 0,
            sequence: 0,
            position: 0,
            ready: Ready::new(),
            local: History::default(),
            remote: History::default(),
            outbox: Outbox::default(),
            journal: Journal::default(),
            signed: Origins::default(),
            unsigned: Origins::default(),
            unsigned_bucket: Bucket::default(),
            queued_bytes: 0,
            metrics: Metrics::default(),
        }
    }

    /// Tells what the wall clock shows; to be told at the start and whenever it may have been set, once a second say.
    pub fn handle_wall_time(&mut self, now: Instant, time: Timestamp) {
        self.wall = (now, time);
    }

    /// Replaces the rules, for what is published and delivered from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Replaces the settings. What is beyond new bounds gives way with the next event.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// The host.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The event of the history that came last, from here or elsewhere; number 0 of this run if there is none.
    #[must_use]
    pub fn newest(&self) -> EventId {
        let Host { origin, incarnation, .. } = self.host;
        let none = EventId { origin, incarnation, sequence: 0 };
        newest(&self.local, &self.remote).next().map_or(none, |entry| entry.delivery.event.id)
    }

    /// Attaches a client. A client without an event space only subscribes.
    pub fn attach(
        &mut self,
        now: Instant,
        process: Process,
        space: Option<EventSpace>,
        client: Client,
    ) -> Result<ClientId, AttachError> {
        if self.users.len() > self.config.max_clients {
            self.users.retain(|_, user| user.clients > 0 || !user.bucket.is_full(now));
        }
        let user = self.users.entry(process.user).or_default();
        let refused = if process.own {
            None
        } else if self.clients.len() >= self.config.max_clients {
            Some(AttachError::Full(self.config.max_clients))
        } else if user.clients >= self.config.max_user_clients {
            Some(AttachError::UserFull(self.config.max_user_clients))
        } else {
            None
        };
        if let Some(error) = refused {
            self.metrics.attach_refused += 1;
            return Err(error);
        }
        user.clients += 1;
        self.last_client += 1;
        let id = ClientId(self.last_client);
        let attached = Attached {
            process,
            space,
            client,
            declared: BTreeMap::new(),
            subscriptions: Vec::new(),
            queue: Queue::default(),
            published: 0,
            bucket: Bucket::default(),
            notice: Notice::default(),
        };
        self.clients.insert(id, attached);
        self.metrics.attached += 1;
        self.share_queues();
        Ok(id)
    }

    /// Detaches a client; what waits for it is given up. A client that is not attached is none of ours any more.
    pub fn detach(&mut self, client: ClientId) {
        let Some(attached) = self.clients.remove(&client) else { return };
        self.queued_bytes -= attached.queue.bytes();
        self.ready.remove(client, &attached.notice);
        if let Some(user) = self.users.get_mut(&attached.process.user) {
            user.clients -= 1;
        }
    }

    /// Bytes that may wait for one client.
    fn queue_share(&self) -> usize {
        self.config.queue_bytes.min(self.config.all_queue_bytes / self.clients.len().max(1))
    }

    /// Lets what waits give way where each client's share became less.
    fn share_queues(&mut self) {
        let share = self.queue_share();
        if share >= self.config.queue_bytes || self.queued_bytes <= share {
            return;
        }
        for client in self.clients.values_mut() {
            let before = client.queue.bytes();
            self.metrics.dropped += client.queue.trim(self.config.queue_events, share);
            self.queued_bytes -= before - client.queue.bytes();
        }
    }

    /// Declares events. Events that were declared before stay as they were, all others are declared, and
    /// [`DeclareError::Duplicate`] says so; after any other error none is.
    pub fn declare(
        &mut self,
        client: ClientId,
        events: &[Declaration],
        info: Option<SchemaInfo>,
    ) -> Result<(), DeclareError> {
        let attached = self.clients.get_mut(&client).ok_or(DeclareError::NotAttached)?;
        if attached.space.is_none() {
            return Err(DeclareError::NoSpace);
        }
        let mut new: BTreeMap<EventName, Declaration> = BTreeMap::new();
        let mut duplicate = None;
        for event in events {
            let key = event.name.key();
            if attached.declared.contains_key(&key) || new.contains_key(&key) {
                duplicate.get_or_insert(event.name);
            } else if attached.declared.len() + new.len() == MAX_DECLARED {
                return Err(DeclareError::TooMany);
            } else {
                new.insert(key, *event);
            }
        }
        let info = info.map(Arc::new);
        attached.declared.extend(new.into_iter().map(|(key, event)| (key, (event, info.clone()))));
        duplicate.map_or(Ok(()), |name| Err(DeclareError::Duplicate(name)))
    }

    /// Publishes an event. If it is to be acknowledged, it is refused where it could not be kept; otherwise it may be lost on
    /// its way out of the host, which is counted.
    pub fn publish(
        &mut self,
        now: Instant,
        client: ClientId,
        publication: Publication,
        acknowledged: bool,
    ) -> Result<EventHandle, PublishError> {
        self.take(now, client, publication, acknowledged).map(|event| event.handle())
    }

    /// The same for who may not want the handle, which is large.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        client: ClientId,
        publication: Publication,
        acknowledged: bool,
    ) -> Result<Arc<Event>, PublishError> {
        let attached = self.clients.get(&client).ok_or(PublishError::NotAttached)?;
        let (Some(space), Some((declaration, info))) =
            (attached.space, attached.declared.get(&publication.name.key()))
        else {
            self.metrics.undeclared += 1;
            return Err(PublishError::Undeclared(publication.name));
        };
        let Declaration { name, severity } = *declaration;
        let info = info.clone();
        self.admit(now, client, space)?;
        let attached = self.clients.get(&client).ok_or(PublishError::NotAttached)?;
        let event = self.event(now, attached, space, (name, severity), info, publication);
        let fits = self.outbox.make_room(event.weight(), self.config.outbox_events, self.config.outbox_bytes);
        if !fits && acknowledged {
            self.metrics.outbox_full += 1;
            return Err(PublishError::OutboxFull);
        }
        if acknowledged
            && self.config.journal
            && !self.journal.has_room(event.weight(), self.config.journal_bytes)
        {
            self.metrics.not_stored += 1;
            return Err(PublishError::NotStored);
        }
        self.spend(now, client);
        self.sequence = event.id.sequence;
        let event = Arc::new(event);
        if fits {
            self.outbox.push(Arc::clone(&event));
        } else {
            self.outbox.lose();
            self.metrics.outbox_lost += 1;
        }
        let delivery = Delivery { event: Arc::clone(&event), provenance: Provenance::Local, replay: None };
        self.hand_on(now, delivery);
        self.metrics.published += 1;
        self.metrics.acknowledged += u64::from(acknowledged);
        Ok(event)
    }

    /// Whether rules and rates let a client publish now.
    fn admit(&mut self, now: Instant, client: ClientId, space: EventSpace) -> Result<(), PublishError> {
        let attached = self.clients.get(&client).ok_or(PublishError::NotAttached)?;
        let Process { user, own, .. } = attached.process;
        if own {
            return Ok(());
        }
        if !self.rules.may_publish(&space, Who::User(user)) {
            self.metrics.denied += 1;
            return Err(PublishError::Denied { space, user });
        }
        let together =
            self.users.get(&user).map_or(Ok(()), |user| user.bucket.check(now, self.config.user_rate));
        let wait = attached.bucket.check(now, self.config.client_rate).and(together);
        wait.map_err(|retry_after| {
            self.metrics.too_fast += 1;
            PublishError::TooFast { retry_after }
        })
    }

    fn spend(&mut self, now: Instant, client: ClientId) {
        let Some(attached) = self.clients.get_mut(&client) else { return };
        attached.published += 1;
        attached.bucket.take(now, self.config.client_rate);
        if let Some(user) = self.users.get_mut(&attached.process.user).filter(|_| !attached.process.own) {
            user.bucket.take(now, self.config.user_rate);
        }
    }

    fn event(
        &self,
        now: Instant,
        attached: &Attached,
        space: EventSpace,
        (name, severity): (EventName, Severity),
        schema: Option<Arc<SchemaInfo>>,
        publication: Publication,
    ) -> Event {
        let Host { origin, incarnation, name: host, address } = self.host;
        let Process { user, pid, start, .. } = attached.process;
        let (then, time) = self.wall;
        Event {
            id: EventId { origin, incarnation, sequence: self.sequence + 1 },
            space,
            name,
            severity,
            kind: publication.kind,
            payload: publication.payload,
            client: attached.client,
            number: attached.published + 1,
            location: Location { host, address, pid, start },
            user,
            time: Timestamp(time.0.saturating_add(now.0.saturating_sub(then.0))),
            schema,
            signature: None,
        }
    }

    /// Puts an event into the history and into the queue of everybody who wants it; to how many.
    fn hand_on(&mut self, now: Instant, delivery: Delivery) -> usize {
        if self.config.journal {
            if self.journal.has_room(delivery.event.weight(), self.config.journal_bytes) {
                self.journal.push(delivery.clone());
            } else {
                self.metrics.journal_lost += 1;
            }
        }
        self.position += 1;
        let share = self.queue_share();
        let mut count = 0;
        for (id, client) in &mut self.clients {
            if !client.subscriptions.iter().any(|one| one.wants(&delivery.event))
                || !may_receive(&self.rules, &client.process, &delivery.event)
            {
                continue;
            }
            count += 1;
            let before = client.queue.bytes();
            self.metrics.dropped += client.queue.push(delivery.clone(), self.config.queue_events, share);
            self.queued_bytes = self.queued_bytes - before + client.queue.bytes();
            self.ready.raise(*id, &mut client.notice);
        }
        self.metrics.queued += count as u64;
        self.remember(now, delivery);
        count
    }

    fn remember(&mut self, at: Instant, delivery: Delivery) {
        let history =
            if delivery.provenance == Provenance::Local { &mut self.local } else { &mut self.remote };
        let entry = Entry { position: self.position, at, delivery };
        history.push(entry, self.config.history_events, self.config.history_bytes);
    }

    /// What is to be stored next, with [`Config::journal`]. Nothing is acknowledged before
    /// [`Server::handle_stored`](crate::Server::handle_stored) says that it is.
    pub fn poll_journal(&mut self) -> Option<Record> {
        self.journal.poll()
    }

    /// The place in the journal of what came last.
    #[must_use]
    pub const fn journal_place(&self) -> u64 {
        self.journal.last()
    }

    /// Whether what is published is acknowledged only when it is stored.
    pub(crate) const fn waits_for_storage(&self) -> bool {
        self.config.journal
    }

    /// Says whether events can be stored. While they cannot, acknowledged publishing is refused, and the rest is not stored.
    pub const fn set_storage_failed(&mut self, failed: bool) {
        self.journal.set_failed(failed);
    }

    /// Takes an event back from the journal of an earlier run, the oldest first, before anybody is attached. `owed` says
    /// that ways out, which are to be opened before, did not confirm it then.
    pub fn restore(&mut self, now: Instant, delivery: Delivery, owed: bool) {
        let event = &delivery.event;
        let ago = self.wall.1.0.saturating_sub(event.time.0);
        let at = Instant(now.0.saturating_sub(ago));
        if delivery.provenance == Provenance::Local {
            if owed
                && self.outbox.make_room(event.weight(), self.config.outbox_events, self.config.outbox_bytes)
            {
                self.outbox.push(Arc::clone(event));
            } else if owed {
                self.metrics.outbox_lost += 1;
            }
        } else {
            let vouched = delivery.provenance == Provenance::Signed;
            let (seen, rate) = if vouched {
                (&mut self.signed, self.config.signed_rate)
            } else {
                (&mut self.unsigned, self.config.unsigned_rate)
            };
            seen.handle(now, event.id, rate, self.config.max_origins);
        }
        self.position += 1;
        self.remember(at, Delivery { replay: None, ..delivery });
    }

    /// Adds a subscription behind the client's others. What it wants of the past comes before everything new.
    pub fn subscribe(
        &mut self,
        now: Instant,
        client: ClientId,
        id: SubscriptionId,
        subscription: Subscription,
        matching: Matching,
        replay: Replay,
    ) -> Result<Replayed, SubscribeError> {
        let share = self.queue_share();
        let attached = self.clients.get_mut(&client).ok_or(SubscribeError::NotAttached)?;
        if attached.subscriptions.iter().any(|one| one.id == id) {
            return Err(SubscribeError::Taken(id));
        }
        if attached.subscriptions.len() >= self.config.max_subscriptions {
            return Err(SubscribeError::TooMany(self.config.max_subscriptions));
        }
        let Process { user, own, .. } = attached.process;
        if let Some(space) = subscription.one_space().filter(|_| !own)
            && !self.rules.may_subscribe(space, Who::User(user))
        {
            self.metrics.denied += 1;
            return Err(SubscribeError::Denied { space: *space, user });
        }
        let mut new = Subscriber { id, subscription, matching, from: self.position + 1 };
        let room = self.config.queue_events.saturating_sub(attached.queue.len());
        let bytes = share.saturating_sub(attached.queue.bytes());
        let (past, complete) = recall(&self.local, &self.remote, now, replay, room, bytes, |event| {
            new.wants(event) && may_receive(&self.rules, &attached.process, event)
        });
        if let Some(first) = past.last() {
            new.from = first.position;
        }
        let others = &attached.subscriptions;
        let already = |entry: &Entry| {
            others.iter().any(|one| one.from <= entry.position && one.wants(&entry.delivery.event))
        };
        let wanted: Vec<Delivery> = past
            .into_iter()
            .rev()
            .filter(|entry| !already(entry))
            .map(|entry| Delivery { replay: Some(id), ..entry.delivery.clone() })
            .collect();
        let events = wanted.len() as u64;
        let before = attached.queue.bytes();
        for delivery in wanted {
            self.metrics.dropped += attached.queue.push(delivery, self.config.queue_events, share);
        }
        self.queued_bytes = self.queued_bytes - before + attached.queue.bytes();
        attached.subscriptions.push(new);
        if events > 0 {
            self.ready.raise(client, &mut attached.notice);
        }
        self.metrics.queued += events;
        self.metrics.replayed += events;
        Ok(Replayed { events, complete })
    }

    /// Ends a subscription. What it caught already still comes.
    pub fn unsubscribe(&mut self, client: ClientId, id: SubscriptionId) -> Result<(), UnsubscribeError> {
        let attached = self.clients.get_mut(&client).ok_or(UnsubscribeError::NotAttached)?;
        let at = attached.subscriptions.iter().position(|one| one.id == id);
        attached.subscriptions.remove(at.ok_or(UnsubscribeError::Unknown(id))?);
        Ok(())
    }

    /// A client that has something to take since [`poll`](Self::poll) last said `None` to it; each is named once.
    pub fn poll_ready(&mut self) -> Option<ClientId> {
        while let Some(id) = self.ready.pop() {
            if self.clients.get_mut(&id).is_some_and(|client| client.notice.name()) {
                return Some(id);
            }
        }
        None
    }

    /// What a client takes next, in the order in which it was published here.
    pub fn poll(&mut self, client: ClientId) -> Option<Next> {
        let attached = self.clients.get_mut(&client)?;
        let before = attached.queue.bytes();
        let next = attached.queue.pop();
        self.queued_bytes -= before - attached.queue.bytes();
        if next.is_none() {
            attached.notice.clear();
        }
        next
    }

    /// How many events wait for a client.
    #[must_use]
    pub fn waiting(&self, client: ClientId) -> usize {
        self.clients.get(&client).map_or(0, |attached| attached.queue.len())
    }

    /// Takes in an event of another host, and hands it to the clients of this one alone.
    pub fn handle_remote(&mut self, now: Instant, event: Event, arrival: Arrival) -> Arrived {
        let arrived = self.take_remote(now, event, arrival);
        let metrics = &mut self.metrics;
        match arrived {
            Arrived::Delivered(_) => metrics.remote += 1,
            Arrived::Duplicate => metrics.remote_duplicates += 1,
            Arrived::Own => metrics.remote_own += 1,
            Arrived::Relayed => metrics.remote_relayed += 1,
            Arrived::Denied => metrics.remote_denied += 1,
            Arrived::TooFast => metrics.remote_too_fast += 1,
            Arrived::Malformed => metrics.remote_malformed += 1,
        }
        arrived
    }

    fn take_remote(&mut self, now: Instant, event: Event, arrival: Arrival) -> Arrived {
        let EventId { origin, incarnation, sequence } = event.id;
        if sequence == 0 || sequence > varint::MAX {
            return Arrived::Malformed;
        }
        if arrival.peer.is_some_and(|peer| peer != origin) {
            return Arrived::Relayed;
        }
        // A session proves its peer as well as a signature does.
        let vouched = arrival.verified || arrival.peer.is_some();
        // Signed events of an earlier run are history that a broker kept; nobody else speaks in our name.
        if origin == self.host.origin && (incarnation == self.host.incarnation || !vouched) {
            return Arrived::Own;
        }
        let (who, provenance) = if vouched {
            (Who::SignedHost, Provenance::Signed)
        } else {
            (Who::UnsignedHost, Provenance::Unsigned)
        };
        if !self.rules.may_publish(&event.space, who) {
            return Arrived::Denied;
        }
        // Apart, so that an unsigned event that was made up cannot make the signed one a duplicate.
        let seen = if vouched {
            self.signed.handle(now, event.id, self.config.signed_rate, self.config.max_origins)
        } else if self.unsigned_bucket.check(now, self.config.unsigned_rate).is_err() {
            Seen::TooFast
        } else {
            self.unsigned_bucket.take(now, self.config.unsigned_rate);
            self.unsigned.handle(now, event.id, self.config.unsigned_rate, self.config.max_origins)
        };
        match seen {
            Seen::New => {}
            Seen::Again => return Arrived::Duplicate,
            Seen::TooFast => return Arrived::TooFast,
        }
        self.metrics.remote_unsigned += u64::from(!vouched);
        Arrived::Delivered(self.hand_on(now, Delivery { event: Arc::new(event), provenance, replay: None }))
    }

    /// Opens a way out for what is published here from now on. `None` if there are too many already (1,024).
    pub fn add_sink(&mut self, keep: Keep) -> Option<SinkId> {
        (self.outbox.sinks() < MAX_SINKS).then(|| self.outbox.add(keep))
    }

    /// Closes a way out.
    pub fn remove_sink(&mut self, sink: SinkId) {
        self.outbox.remove(sink);
    }

    /// What goes out next on this way, in the order in which it was published.
    pub fn poll_sink(&mut self, sink: SinkId) -> Option<Outgoing> {
        self.outbox.poll(sink)
    }

    /// Everything that was given out on this way up to this [place](Outgoing::Event) has arrived, and need not be kept.
    pub fn handle_confirmed(&mut self, sink: SinkId, place: u64) {
        self.outbox.confirm(sink, place);
    }

    /// The way out was interrupted: what was given out and not confirmed is given out again.
    pub fn handle_interrupted(&mut self, sink: SinkId) {
        self.outbox.rewind(sink);
    }

    /// Who is attached, for people.
    #[must_use]
    pub fn clients(&self) -> Vec<AttachedClient> {
        let of = |client: &Attached| AttachedClient {
            process: client.process,
            space: client.space,
            client: client.client,
            subscriptions: client.subscriptions.len(),
            published: client.published,
            waiting: client.queue.len(),
        };
        self.clients.values().map(of).collect()
    }

    /// What was done and refused, and what there is now.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics {
            clients_now: self.clients.len() as u64,
            queued_bytes_now: self.queued_bytes as u64,
            history_events_now: (self.local.len() + self.remote.len()) as u64,
            history_bytes_now: (self.local.bytes() + self.remote.bytes()) as u64,
            outbox_events_now: self.outbox.len() as u64,
            outbox_bytes_now: self.outbox.bytes() as u64,
            journal_events_now: self.journal.len() as u64,
            origins_now: (self.signed.len() + self.unsigned.len()) as u64,
            ..self.metrics
        }
    }

    /// Checks what must hold after every call; panics where it does not. For tests.
    pub fn check_invariants(&self) {
        let mut bytes = 0;
        for (id, client) in &self.clients {
            client.queue.check_invariants();
            bytes += client.queue.bytes();
            assert!(client.queue.len() <= self.config.queue_events);
            assert!(client.declared.len() <= MAX_DECLARED);
            assert!(client.subscriptions.len() <= self.config.max_subscriptions);
            assert!(
                client.notice.is_told() || client.queue.is_empty(),
                "{id:?} has something to take and nobody says so"
            );
        }
        assert_eq!(bytes, self.queued_bytes);
        let largest = crate::event::MAX_EVENT + size_of::<Event>() + size_of::<EventHandle>();
        assert!(bytes <= self.config.all_queue_bytes + self.clients.len() * largest);
        let clients: usize = self.users.values().map(|user| user.clients).sum();
        assert_eq!(clients, self.clients.len());
        assert!(self.ready.len() <= self.clients.len());
        self.local.check_invariants();
        self.remote.check_invariants();
        self.outbox.check_invariants();
        self.journal.check_invariants();
    }
}

impl Subscriber {
    fn wants(&self, event: &Event) -> bool {
        self.subscription.matches(event, self.matching)
    }
}

fn may_receive(rules: &Rules, process: &Process, event: &Event) -> bool {
    process.own || rules.may_subscribe(&event.space, Who::User(process.user))
}

/// Whether it is the event after which everything is asked for, or came before it. Events of this host come in their order, so
/// what was never stored, of the last moment of an earlier run, is not missed.
fn is_or_precedes(entry: &Entry, after: EventId) -> bool {
    let Delivery { event, provenance, .. } = &entry.delivery;
    let EventId { origin, incarnation, sequence } = event.id;
    let same_run = (origin, incarnation) == (after.origin, after.incarnation);
    event.id == after || (same_run && *provenance == Provenance::Local && sequence <= after.sequence)
}

/// What of the past is asked for and fits, the newest first; and whether that is all.
fn recall<'a>(
    local: &'a History,
    remote: &'a History,
    now: Instant,
    replay: Replay,
    room: usize,
    mut bytes: usize,
    wants: impl Fn(&Event) -> bool,
) -> (Vec<&'a Entry>, bool) {
    let mut found = Vec::new();
    let (most, oldest, after) = match replay {
        Replay::Nothing => return (found, true),
        Replay::Recent { events, within } => (events as usize, now - within, None),
        Replay::After(id) => (usize::MAX, Instant::default(), Some(id)),
    };
    for entry in newest(local, remote) {
        if after.is_some_and(|after| is_or_precedes(entry, after)) {
            return (found, true);
        }
        if found.len() == most || entry.at < oldest {
            break;
        }
        if wants(&entry.delivery.event) {
            let weight = entry.delivery.event.weight();
            if found.len() == room || weight > bytes {
                return (found, false);
            }
            bytes -= weight;
            found.push(entry);
        }
    }
    (found, after.is_none())
}
