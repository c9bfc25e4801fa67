//! Requests and responses: one kind of handler, one `call`, over a conversation that outlives its networks, or in microseconds
//! over [Homa](crate::homa), which has its own way to serve.
//!
//! ```
//! use steadfast::rpc::{self, CallOptions, Request, Rpc};
//! use steadfast::{Endpoint, Identity, Labels};
//! use std::time::Duration;
//!
//! async fn shout(request: Request) -> Result<String, rpc::BodyError> {
//!     let text = request.into_body().into_bytes().await?;
//!     Ok(String::from_utf8_lossy(&text).to_uppercase())
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let (ann, bob) = (Identity::generate()?, Identity::generate()?);
//!     let (ann_key, bob_key) = (ann.fingerprint(), bob.fingerprint());
//!     let ann = Endpoint::builder().identity(ann).trust(bob_key).bind().await?;
//!     let bob = Endpoint::builder().identity(bob).trust(ann_key).bind().await?;
//!
//!     let rpc = Rpc::new(ann.connect(bob.contact()).await?);
//!     let server = rpc::serve(bob.accept().await.ok_or("closed")?, shout);
//!
//!     let options = CallOptions::default().labels(Labels::foreground()).deadline(Duration::from_secs(5));
//!     let response = rpc.call("hello", options).await?;
//!     assert_eq!(response.into_bytes().await?, "HELLO");
//!     server.shutdown(Duration::from_secs(1)).await?;
//!     Ok(())
//! }
//! ```
//!
//! A request is executed at most once. A call that fails says what became of its request ([`CallError::outcome`]), in the
//! words of messages: delivered, surely not executed, or, where the conversation or the deadline ended first, unknown.
//! Urgency and network rule of a request hold for its response and for all that is said of it.
//!
//! A conversation that carries calls carries nothing else: one that is for calls alone costs little, it shares all paths
//! with others to the same peer, and urgency holds between them. Either side may be the one that calls, whoever opened it.
//!
//! Invariants: every call has one answer, whatever becomes of its handler; a peer has a bounded number of calls open and
//! makes either side hold at most 32 KiB for each, beside the windows of the conversation; what breaks the rules ends the
//! conversation; nothing of a conversation's messages is known outside of `say.rs`, `listen.rs` and `server/`.
//!
//! | file | one idea |
//! |---|---|
//! | `handler.rs`, `body.rs`, `error.rs` | what does not depend on the transport |
//! | `client.rs`, `pending.rs` | making calls, and one call |
//! | `listen.rs` | the client's task: answers, limits, cancelling |
//! | `server.rs`, `server/` | serving: the task that gives turns, the calls it owes answers |
//! | `say.rs` | heads and bodies as messages |

mod body;
mod client;
mod error;
mod handler;
mod listen;
mod pending;
mod say;
mod server;

pub use body::{Body, BodyWriter};
pub use client::{Call, CallOptions, Rpc, RpcStats};
pub use error::{BodyError, CallError, Callee, ServeError};
pub use handler::{Handler, IntoResponse, Request, Response, ServiceHandler, service};
pub use pending::Pending;
pub use server::{ServeConfig, Server, ServerStats, serve, serve_with};

/// The longest limit, which nobody sees the end of: longer ones cannot be added to every point in time.
const FOR_EVER: std::time::Duration = std::time::Duration::from_secs(30 * 365 * 86_400);
