//! The core of Steadfast's fault backplane: events published, and brought to whoever subscribed, on one host and between
//! hosts. After FTB (Fault Tolerance Backplane, API 0.5), whose programs it serves; without any I/O.
//!
//! An [`Event`] lives in an [`EventSpace`], has a name, a [`Severity`], a [`Payload`] and an [`EventHandle`]. A
//! [`Subscription`] says which events somebody wants. [`Agent`] routes for one host; [`Server`] is its side of the socket,
//! [`protocol`] what is said there; [`Session`] and [`Inbox`] are the client's side of it. docs/events.md says how it differs
//! from FTB.
//!
//! | file | one idea |
//! |---|---|
//! | `name.rs`, `text.rs` | event spaces, names, severities: rules, spelling, comparing without case |
//! | `event.rs`, `handle.rs`, `timestamp.rs` | an event and its one encoding, also below signatures; handles, also as C has them |
//! | `subscription.rs` | FTB's language, and what matches |
//! | `schema.rs` | schema files |
//! | `code.rs` | FTB's return codes; each error type here has a `code()` |
//! | `reason.rs` | why an agent refuses, where these do not tell |
//! | `queue.rs`, `inbox.rs`, `ready.rs` | bounded queues that drop their oldest; callbacks, polling, once per client; who has something |
//! | `agent.rs` | who is attached, declared events, publishing, subscribing, replay, events of other hosts |
//! | `agent/history.rs`, `journal.rs`, `outbox.rs`, `origins.rs` | the recent past; what is to be stored; what leaves the host; what came already |
//! | `access.rs`, `limit.rs` | who may; how fast |
//! | `exchange.rs` | what the agents of two hosts say to each other |
//! | `protocol.rs`, `server.rs`, `client.rs` | frames between client and agent; the agent's connections; a client's, one after the other |
//! | `cloud.rs` | CloudEvents 1.0 in JSON (feature `cloudevents`) |
//!
//! Invariants: no clock, no sockets, no threads (`no_std`), no randomness; time is an argument. Whatever a client or another
//! host says, nothing panics, and what is held is bounded by [`Config`]; a queue that is full loses its oldest and says
//! how many. A client gets an event once. What was acknowledged is in every queue, in the history, and among what leaves the
//! host. An event of another host never leaves this one. [`Server::check_invariants`] sweeps what can be swept.
//!
//! Deliberately absent: keys (whoever has them signs [`Event::signed_bytes`]), brokers, storage: what waits in queues is gone
//! with the process.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod access;
mod agent;
#[cfg(test)]
mod arbitrary;
mod client;
#[cfg(feature = "cloudevents")]
mod cloud;
mod code;
mod event;
pub mod exchange;
mod handle;
mod inbox;
mod limit;
mod name;
pub mod protocol;
mod queue;
mod ready;
mod reason;
mod schema;
mod server;
mod subscription;
mod text;
mod timestamp;

pub use access::{OWN_SPACE, Rule, Rules, Who};
pub use agent::{
    Agent, Arrival, Arrived, AttachError, AttachedClient, ClientId, Config, DeclareError, Host, Keep,
    Metrics, Outgoing, Process, Publication, PublishError, Record, Replay, Replayed, SinkId, SubscribeError,
    UnsubscribeError,
};
pub use client::{Heard, Session, SessionError, Violation};
#[cfg(feature = "cloudevents")]
pub use cloud::{CloudError, MAX_CLOUD_EVENT, MEDIA_TYPE};
pub use code::Code;
pub use event::{
    Client, Event, EventId, Kind, Location, MAX_EVENT, MAX_PAYLOAD, MAX_SCHEMA_DESCRIPTION,
    MAX_SCHEMA_VERSION, Payload, PayloadTooLong, SIGNATURE_LENGTH, SchemaInfo, Signature,
};
pub use handle::{EventHandle, FTB_HANDLE, NoHandle};
pub use inbox::{
    DEFAULT_POLLING_QUEUE, Inbox, InboxError, MAX_POLLING_QUEUE, MAX_SUBSCRIPTIONS, Place, Receive, Style,
    StyleError,
};
pub use limit::Rate;
pub use name::{
    ClientName, EventName, EventSpace, Field, HostName, JobId, Level, MAX_CLIENT_NAME, MAX_EVENT_NAME,
    MAX_EVENT_SPACE, MAX_HOST_NAME, NameError, Severity,
};
pub use queue::{Delivery, Next, Provenance, SubscriptionId};
pub use reason::Reason;
pub use schema::{Declaration, MAX_DECLARED, MAX_SCHEMA, Schema, SchemaError};
pub use server::{ConnectionId, Flow, Server};
pub use steadfast_wire::{Fingerprint, Incarnation, Instant};
pub use subscription::{MAX_SUBSCRIPTION, Matching, Subscription, SubscriptionError};
pub use timestamp::{Timestamp, TimestampError};
