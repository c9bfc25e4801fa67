//! The fault backplane: events published on this host and others, and brought to whoever subscribed.
//!
//! A [`Backplane`] is one client of the host's agent (`steadfast daemon`). It outlives the agent: after a restart it is there
//! again, its events are declared and its subscriptions stand, and what was published meanwhile comes.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use steadfast::backplane::{Backplane, Declaration, Notice, Publication, Subscribing};
//!
//! let backplane = Backplane::connect("FTB.apps.example").await?;
//! backplane.declare([Declaration::new("DONE", "info")?]).await?;
//! let mut events = backplane.subscribe("severity=info", Subscribing::default()).await?;
//! backplane.publish(Publication::new("DONE", *b"after 3 s")?).await?;
//! if let Some(Notice::Event(delivery)) = events.next().await {
//!     println!("{}: {}", delivery.event.space, delivery.event.name);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | file | one idea |
//! |---|---|
//! | `backplane.rs` | what the application does |
//! | `backplane/link.rs` | the connection to the agent, one after the other |
//! | `backplane/error.rs` | why something is not done |

mod error;
mod link;

use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use error::BackplaneError;
pub(crate) use link::Pause;
use link::{Answer, Link};
pub use steadfast_agent_client::{AGENT, HOST_AGENT, agent};
use steadfast_backplane::SubscriptionId;
pub use steadfast_backplane::{
    Client, ClientName, Code, Declaration, Delivery, Event, EventHandle, EventId, EventName, EventSpace,
    Field, JobId, Kind, Level, Location, Matching, NameError, Payload, Provenance, Reason, Replay, Replayed,
    Schema, SchemaError, SchemaInfo, Severity, Subscription, SubscriptionError, Timestamp,
};

/// How long the agent may take for an answer, unless said otherwise.
pub const LIMIT: Duration = Duration::from_secs(5);
/// Events that wait for a subscriber, unless it says otherwise.
pub const QUEUE: usize = 1024;

/// What is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication(steadfast_backplane::Publication);

impl Publication {
    /// An event of a declared name, with at most 64 KiB of payload.
    pub fn new(name: &str, payload: impl Into<Vec<u8>>) -> Result<Self, BackplaneError> {
        let name = EventName::new(name)?;
        let payload = Payload::new(Bytes::from(payload.into()))?;
        Ok(Self(steadfast_backplane::Publication { name, kind: Kind::Plain, payload }))
    }

    /// The same, in answer to another event.
    #[must_use]
    pub fn in_answer_to(mut self, handle: EventHandle) -> Self {
        self.0.kind = Kind::Answer(Box::new(handle));
        self
    }
}

/// How somebody subscribes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribing {
    /// How attributes are joined. All must fit.
    pub matching: Matching,
    /// What is wanted of the past. Nothing.
    pub replay: Replay,
    /// How many events wait here, and never more than 16 MiB of them; further ones push out the oldest. [`QUEUE`].
    pub queue: usize,
}

impl Default for Subscribing {
    fn default() -> Self {
        Self { matching: Matching::Every, replay: Replay::Nothing, queue: QUEUE }
    }
}

impl Subscribing {
    /// The same, with this of the past.
    #[must_use]
    pub const fn replay(mut self, replay: Replay) -> Self {
        self.replay = replay;
        self
    }

    /// The same with another [`matching`](Self::matching).
    #[must_use]
    pub const fn matching(mut self, matching: Matching) -> Self {
        self.matching = matching;
        self
    }

    /// The same with another [`queue`](Self::queue).
    #[must_use]
    pub const fn queue(mut self, events: usize) -> Self {
        self.queue = events;
        self
    }
}

/// Who connects, and where to.
#[derive(Debug, Clone)]
pub struct Builder {
    space: Option<EventSpace>,
    client: Client,
    socket: PathBuf,
    limit: Duration,
}

impl Builder {
    /// What the client calls itself, at most 15 bytes. The program's name.
    pub fn name(mut self, name: &str) -> Result<Self, BackplaneError> {
        self.client.name = ClientName::new(name)?;
        Ok(self)
    }

    /// The job that it belongs to, at most 15 bytes. None.
    pub fn job(mut self, job: &str) -> Result<Self, BackplaneError> {
        self.client.job = JobId::new(job)?;
        Ok(self)
    }

    /// The agent's socket. What `STEADFAST_AGENT` says, or `/run/steadfast/agent.sock`, or the user's own.
    #[must_use]
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = path.into();
        self
    }

    /// How long the agent may take for an answer. [`LIMIT`].
    #[must_use]
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Connects. Fails after [`limit`](Self::limit) if no agent answers. Cancel safe.
    pub async fn connect(self) -> Result<Backplane, BackplaneError> {
        let link = Link::open(self.space, self.client, self.socket, self.limit).await?;
        Ok(Backplane { link })
    }
}

/// A client of the host's agent. Clones are the same client; it disconnects with the last of them and of its [`Events`].
#[derive(Debug, Clone)]
pub struct Backplane {
    link: Arc<Link>,
}

impl Backplane {
    /// Connects as a client that publishes in an event space.
    pub async fn connect(space: &str) -> Result<Self, BackplaneError> {
        Self::builder(Some(space))?.connect().await
    }

    /// Who connects: with an event space to publish in, or to subscribe only.
    pub fn builder(space: Option<&str>) -> Result<Builder, BackplaneError> {
        let program =
            std::env::current_exe().ok().and_then(|path| Some(path.file_stem()?.to_str()?.to_owned()));
        let mut program = program.unwrap_or_default();
        while ClientName::new(&program).is_err() && program.pop().is_some() {}
        let name = ClientName::new(&program).unwrap_or(ClientName::NONE);
        Ok(Builder {
            space: space.map(EventSpace::new).transpose()?,
            client: Client { name, job: JobId::NONE, extension: 0 },
            socket: agent(),
            limit: LIMIT,
        })
    }

    /// Declares events, each with its severity; before they are published. Cancel safe: it may be declared or not.
    pub async fn declare(&self, events: impl IntoIterator<Item = Declaration>) -> Result<(), BackplaneError> {
        self.declare_with(None, events.into_iter().collect()).await
    }

    /// Declares the events of a schema file, given as its text, which must be of this client's event space.
    pub async fn declare_schema(&self, text: &str) -> Result<(), BackplaneError> {
        let space = self.link.space().ok_or(BackplaneError::NoSpace)?;
        let Schema { info, events, .. } = Schema::new(text, &space)?;
        self.declare_with(info, events).await
    }

    async fn declare_with(
        &self,
        info: Option<SchemaInfo>,
        events: Vec<Declaration>,
    ) -> Result<(), BackplaneError> {
        self.link.ask("declare events", |session| session.declare(info, events)).await.map(drop)
    }

    /// Publishes an event; when this returns, every subscriber of this host has it in its queue, it is stored, and it leaves
    /// the host. [`BackplaneError::Unknown`] says that the agent ended before it answered. Cancelled, it may be published or
    /// not.
    pub async fn publish(&self, publication: Publication) -> Result<EventHandle, BackplaneError> {
        match self.link.ask("publish", |session| session.publish(publication.0, true)).await? {
            Answer::Published(handle) => Ok(*handle),
            Answer::Done | Answer::Subscribed(_) => Err(BackplaneError::Protocol),
        }
    }

    /// Publishes an event without waiting; if the agent refuses it, that is counted ([`lost`](Self::lost)). Fails if there is
    /// no agent now, or too much waits for it.
    pub fn publish_unacknowledged(&self, publication: Publication) -> Result<(), BackplaneError> {
        self.link.tell(|session| session.publish(publication.0, false).map(drop))
    }

    /// Subscribes, in FTB's language; the empty text is every event. An event comes once to a client: to the first of its
    /// subscriptions that wants it. Cancelled, it ends.
    pub async fn subscribe(&self, text: &str, how: Subscribing) -> Result<Events, BackplaneError> {
        let subscription = Subscription::new(text)?;
        let id = self.link.enter(subscription, how)?;
        let replayed = Replayed { events: 0, complete: true };
        let mut events = Events { link: Arc::clone(&self.link), id, replayed };
        let Subscribing { matching, replay, .. } = how;
        let answer =
            self.link.ask("subscribe", |session| session.subscribe(id, matching, replay, text)).await?;
        if let Answer::Subscribed(replayed) = answer {
            events.replayed = replayed;
        }
        Ok(events)
    }

    /// Publications that were not to be acknowledged and were refused, and the last one's reason.
    #[must_use]
    pub fn lost(&self) -> Option<(u64, Code)> {
        self.link.lost()
    }

    /// Whether the agent is there at present.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.is_open()
    }

    /// Disconnects, after everything that was published before was taken in. Cancelled, it has not.
    pub async fn close(self) -> Result<(), BackplaneError> {
        self.link.leave().await
    }
}

/// What a subscription brings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// An event.
    Event(Delivery),
    /// So many events that were wanted gave way to newer ones, because nobody took them.
    Dropped(u64),
    /// The agent was restarted. What it had stored comes; this says that there may be a gap.
    Restarted,
}

/// A subscription and what it brings. It ends when this is dropped.
#[derive(Debug)]
pub struct Events {
    link: Arc<Link>,
    id: SubscriptionId,
    replayed: Replayed,
}

impl Events {
    /// What came first of the past: how many events, and whether that is all of it.
    #[must_use]
    pub const fn replayed(&self) -> Replayed {
        self.replayed
    }

    /// What comes next; `None` if the subscription has ended, because the agent refuses it after a restart or the client was
    /// closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Notice> {
        self.link.next(self.id).await
    }

    /// What has come, without waiting.
    pub fn try_next(&mut self) -> Option<Notice> {
        self.link.try_next(self.id)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.link.end(self.id);
    }
}
