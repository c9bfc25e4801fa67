//! Messages between machines over every network they have.
//!
//! An application says what a message is for; the library picks the network, moves the message when that network dies,
//! and says exactly what became of it. Both sides prove a key; everything is encrypted.
//!
//! ```
//! use steadfast::{Endpoint, Identity, Labels};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let (ann, bob) = (Identity::generate()?, Identity::generate()?);
//!     let (ann_key, bob_key) = (ann.fingerprint(), bob.fingerprint());
//!     let ann = Endpoint::builder().identity(ann).trust(bob_key).bind().await?;
//!     let bob = Endpoint::builder().identity(bob).trust(ann_key).bind().await?;
//!
//!     let to_bob = ann.connect(bob.contact()).await?;
//!     let from_ann = bob.accept().await.ok_or("closed")?;
//!     let receipt = to_bob.send("hello", Labels::foreground()).await?;
//!     let message = from_ann.recv().await?.ok_or("nothing was sent")?;
//!     println!("{:?}: {:?}", message.payload(), receipt.outcome().await);
//!     Ok(())
//! }
//! ```
//!
//! | to | use |
//! |---|---|
//! | be someone, listen, connect | [`Endpoint`], [`Builder`], [`Identity`], [`TrustFile`] |
//! | converse | [`MultiSocket`] |
//! | say how urgent a message is and which networks it may use | [`Labels`], [`Rule`] |
//! | say what a message waits for | [`SendOptions`], [`Ordering`] |
//! | say how long it is worth delivering | [`SendOptions::expires_in`] |
//! | do something about it when no network fits | [`MultiSocket::set_failure_timeout`], [`MultiSocket::send_or_defer`] |
//! | know what became of it | [`Receipt`], [`Outcome`] |
//! | call and be called | [`rpc`] |
//! | keep conversations over a kill, a reboot or a power cut | [`Builder::store`], [`Receipt::stored`], [`Delivery`] |
//! | survive that the process is frozen, moved and started again | [`checkpoint`] |
//! | publish faults and hear of them | [`backplane`] |
//! | the same in microseconds, over one network | [`homa`] |
//! | send and read what is large | [`MessageWriter`], [`Message::read_chunk`] |
//! | read and write as with TCP, many streams in one conversation | [`Streams`], [`Stream`] |
//! | know why the other side does not answer | [`MultiSocket::verdict`], [`MultiSocket::verdicts`], [`Rpc::verdict`](rpc::Rpc::verdict) |
//! | watch the networks | [`Events`], [`Endpoint::paths`] |
//!
//! Invariants: whoever calls drives, so that a send reaches the socket from the caller's own task; the core's lock is
//! short, never held across an await nor during a system call; work per turn is bounded; dropping a handle or a future
//! never loses an acknowledged message; when the last handle is gone so are all tasks and sockets.
//! Deliberately absent: any protocol logic (it is in `steadfast-session`), threads of its own but the
//! one that writes a store and the one that serves the control socket, `unsafe`.
//!
//! | file | one idea |
//! |---|---|
//! | `endpoint.rs`, `socket.rs`, `message.rs`, `writer.rs`, `receipt.rs`, `deferred.rs`, `events.rs` | what users touch |
//! | `stream.rs`, `stream/` | byte streams: their halves, the task that takes what comes, their credit |
//! | `rpc.rs`, `rpc/` | requests and responses over a conversation |
//! | `backplane.rs`, `backplane/` | events, through the agent of this host |
//! | `homa.rs`, `homa/` | requests and responses over UDP, and as IP protocol 146 |
//! | `durable.rs`, `store.rs` | conversations that are kept on a disk; the thread that writes them there |
//! | `checkpoint.rs` | what is done before this process is frozen and after |
//! | `shared.rs` | the core behind its lock, and what follows a call into it |
//! | `carriers.rs`, `dial.rs` | carriers: reading, writing, opening |
//! | `driver.rs`, `kernel.rs` | the one task that waits; listener, netlink and inotify |
//! | `state.rs`, `trusted.rs`, `strangers.rs`, `clock.rs`, `process.rs`, `watch.rs`, `verdict.rs` | what is kept beside the core |

#![forbid(unsafe_code)]

pub mod backplane;
mod builder;
mod carriers;
pub mod checkpoint;
mod clock;
mod deferred;
mod dial;
mod driver;
mod durable;
mod endpoint;
mod error;
mod events;
pub mod homa;
pub mod host;
mod kernel;
mod message;
mod process;
mod receipt;
mod report;
pub mod rpc;
mod shared;
mod socket;
mod state;
mod store;
mod strangers;
mod stream;
mod trusted;
mod verdict;
mod watch;
mod writer;

pub use builder::{Builder, NetworkSource};
pub use bytes::Bytes;
pub use deferred::{Deferred, DeferredError, Submission};
pub use durable::{Acknowledgement, Delivery};
pub use endpoint::{Destination, Endpoint};
pub use error::{BindError, CloseError, ConnectError, ReadError, SessionError};
pub use events::Events;
pub use message::Message;
pub use receipt::Receipt;
pub use socket::MultiSocket;
pub use steadfast_net::carrier::AcceptorCounters;
pub use steadfast_net::scout::Override;
pub use steadfast_net::{DEFAULT_PORT, Identity, Places, ScoutConfig, Target, TrustFile};
pub use steadfast_session::{
    AssociationId, Config, DownReason, DropReason, Event, Evidence, Exit, Forecast, Judgement, OrderRequest,
    Ordering, Outcome, PathInfo, Patience, Redundancy, SendError, SendOptions, SessionConfig, Stats, Verdict,
};
pub use steadfast_store::StoreError;
pub use steadfast_wire::frame::EndReason;
pub use steadfast_wire::{
    Fingerprint, Labels, MessageId, Network, NetworkClass, NetworkId, PathNumber, Rule, Selector, Selectors,
    SessionId, SizeClass, Urgency,
};
pub use store::{StoreSync, StoreWritten, StoredError};
pub use strangers::Stranger;
pub use stream::{Stream, StreamError, StreamReader, StreamWriter, Streams};
pub use verdict::{Standing, Verdicts};
pub use writer::MessageWriter;

use std::sync::{Mutex, MutexGuard, PoisonError};

#[doc = include_str!("../../../docs/labels.md")]
pub mod labels {}

#[doc = include_str!("../../../docs/store.md")]
pub mod durability {}

/// The README's first program has to compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Locks; a panic elsewhere while it was held does not spread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
