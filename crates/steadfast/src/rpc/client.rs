//! Making calls: many at once, each with its own labels, deadline and outcome.

use super::FOR_EVER;
use super::body::Body;
use super::error::{CallError, Callee};
use super::handler::Response;
use super::listen::{Listener, State};
use super::pending::{Pending, Starting, Talk};
use super::say;
use crate::deferred::Wait;
use crate::error::{CloseError, SessionError};
use crate::homa::{Caller, Peer};
use crate::receipt::wait_until;
use crate::socket::MultiSocket;
use crate::verdict::{Standing, Verdicts};
use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use steadfast_session::{Deferral, DropReason, Outcome, Patience, SendError};
use steadfast_wire::call::Head;
use steadfast_wire::frame::EndReason;
use steadfast_wire::{Fingerprint, Labels};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tower_service::Service;

/// How long [`Rpc::close`] waits for calls that are open, and for the conversation to end.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Calls over one conversation, or to one port of one peer over [Homa](crate::homa).
///
/// A cheap handle: clones make calls over the same conversation, which is used for calls alone, and which nobody else may
/// receive from. Dropping the last one (calls that are awaited count) cancels what is open and closes the conversation in
/// the background. It must be made within a tokio runtime, where one task receives the answers.
///
/// As a `tower` service it takes a [`Call`]; it is always ready, and back-pressure is in the call.
#[derive(Clone)]
pub struct Rpc {
    over: Over,
}

#[derive(Clone)]
enum Over {
    Conversation(Arc<Client>),
    Homa(Caller),
}

pub(super) struct Client {
    pub(super) socket: MultiSocket,
    pub(super) state: Arc<State>,
    /// Calls to be cancelled. Its end tells the task that nobody makes calls any more.
    pub(super) cancels: mpsc::UnboundedSender<u64>,
}

/// How a call is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CallOptions {
    /// The labels of the request. The response has its urgency and keeps its network rule. Foreground over any network
    /// by default.
    pub labels: Labels,
    /// How long the call may last until the response begins to arrive; for ever by default. The other side is told,
    /// and drops the handler when it has passed there.
    pub deadline: Option<Duration>,
}

impl CallOptions {
    /// The same with these labels.
    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// The same with a deadline.
    #[must_use]
    pub const fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }
}

/// What a call through `tower` is made of.
#[derive(Debug)]
pub struct Call {
    /// The request's body.
    pub body: Body,
    /// How it is to be made.
    pub options: CallOptions,
}

impl Call {
    /// A call with the default options.
    pub fn new(body: impl Into<Body>) -> Self {
        Self { body: body.into(), options: CallOptions::default() }
    }
}

/// What happened to the calls of one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RpcStats {
    /// Calls without an answer now, cancelled ones included until the other side has confirmed it.
    pub open: usize,
    /// Answers that belong to no open call, and were ignored: a cancelled call may have been answered before.
    pub unmatched: u64,
    /// Requests of the other side, which were refused.
    pub refused: u64,
}

impl Rpc {
    /// Makes calls over a conversation; at most 1,024 of each urgency are open at once, or as many as the other side takes.
    pub fn new(socket: MultiSocket) -> Self {
        Self::with_max_open(socket, 1024)
    }

    /// Makes calls over a conversation, with at most so many of each urgency open at once.
    pub fn with_max_open(socket: MultiSocket, max_open: usize) -> Self {
        let state = Arc::new(State::new(max_open.max(1)));
        let (cancels, cancelled) = mpsc::unbounded_channel();
        tokio::spawn(Listener::new(socket.clone(), Arc::clone(&state)).run(cancelled));
        Self { over: Over::Conversation(Arc::new(Client { socket, state, cancels })) }
    }

    /// Makes calls to a port of a peer over Homa: in microseconds, over one network at a time.
    ///
    /// Calls, outcomes, deadlines and cancelling are the same. What differs: a body is sent whole, at most as long as
    /// the transport takes; background is refused, since the shortest goes first in any case; a call that no network may carry
    /// fails at once; and the number of open calls is bounded for the transport
    /// ([`HomaConfig::max_open`](crate::homa::HomaConfig::max_open)). Nothing is sent yet.
    pub fn over_homa(peer: &Peer, port: u16) -> Self {
        Self { over: Over::Homa(Caller::new(peer, port)) }
    }

    /// The other side's key; none over Homa in the clear, where nothing is proven.
    pub fn peer(&self) -> Option<Fingerprint> {
        match &self.over {
            Over::Conversation(client) => Some(client.socket.peer()),
            Over::Homa(caller) => caller.peer().key(),
        }
    }

    /// What is known of the other side's process: why it does not answer, or that it does; as
    /// [`MultiSocket::verdict`] and [`Peer::verdict`] say it.
    pub fn verdict(&self) -> Standing {
        match &self.over {
            Over::Conversation(client) => client.socket.verdict(),
            Over::Homa(caller) => caller.peer().verdict(),
        }
    }

    /// The changes of [`verdict`](Self::verdict) from now on.
    pub fn verdicts(&self) -> Verdicts {
        match &self.over {
            Over::Conversation(client) => client.socket.verdicts(),
            Over::Homa(caller) => caller.peer().verdicts(),
        }
    }

    /// What is open, and what was ignored. Over Homa what is open is counted for the whole transport.
    pub fn stats(&self) -> RpcStats {
        match &self.over {
            Over::Conversation(client) => client.state.stats(),
            Over::Homa(caller) => RpcStats { open: caller.open(), ..RpcStats::default() },
        }
    }

    /// Makes a call and waits for its response. Waits also while as many calls are open as the other side takes.
    ///
    /// Dropping the future cancels the call: a request that was not delivered never will be, otherwise the handler is
    /// dropped. The error says what became of the request, see [`CallError::outcome`].
    pub async fn call(&self, body: impl Into<Body>, options: CallOptions) -> Result<Response, CallError> {
        match &self.over {
            Over::Conversation(client) => client.start(body.into(), options).await?.response().await,
            Over::Homa(caller) => caller.start(body.into(), options, Vec::new()).await?.response().await,
        }
    }

    /// As [`call`](Self::call), and over Homa the response is put together in `buffer`, if it fits into its capacity: then
    /// [`Response::into_bytes`] gives that memory, and `Vec::from` or `try_into_mut` of it the buffer again.
    pub async fn call_into(
        &self,
        body: impl Into<Body>,
        options: CallOptions,
        buffer: Vec<u8>,
    ) -> Result<Response, CallError> {
        match &self.over {
            Over::Conversation(client) => client.start(body.into(), options).await?.response().await,
            Over::Homa(caller) => caller.start(body.into(), options, buffer).await?.response().await,
        }
    }

    /// Sends a request, or the beginning of one that is streamed, and returns without waiting for the response.
    ///
    /// Cancel safe: a future that is dropped before it returned has sent nothing.
    pub async fn start(&self, body: impl Into<Body>, options: CallOptions) -> Result<Pending, CallError> {
        match &self.over {
            Over::Conversation(client) => client.start(body.into(), options).await,
            Over::Homa(caller) => Ok(Pending::homa(caller.start(body.into(), options, Vec::new()).await?)),
        }
    }

    /// Makes no more calls, waits for those that are open, and closes the conversation: within 10 s in all. Over Homa there is
    /// nothing to close: dropping the handle is enough.
    pub async fn close(&self) -> Result<(), CloseError> {
        self.close_within(CLOSE_LIMIT).await
    }

    /// Makes no more calls, waits for those that are open, and closes the conversation. At the limit what is still open is
    /// given up, and its outcome unknown.
    pub async fn close_within(&self, limit: Duration) -> Result<(), CloseError> {
        match &self.over {
            Over::Conversation(client) => client.close_within(limit).await,
            Over::Homa(_) => Ok(()),
        }
    }
}

impl Client {
    async fn start(self: &Arc<Self>, body: Body, options: CallOptions) -> Result<Pending, CallError> {
        let CallOptions { labels, deadline: limit } = options;
        let deadline = limit.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
        let begun = self.begin(body, labels, limit);
        let Some((at, limit)) = deadline else { return begun.await.map(Pending::talk) };
        match tokio::time::timeout_at(at, begun).await {
            Ok(Ok(mut begun)) => {
                begun.until(at, limit);
                Ok(Pending::talk(begun))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let request = Outcome::Dropped(DropReason::Cancelled);
                Err(CallError::Deadline { callee: Box::new(self.callee()), limit, request })
            }
        }
    }

    async fn begin(
        self: &Arc<Self>,
        body: Body,
        labels: Labels,
        limit: Option<Duration>,
    ) -> Result<Talk, CallError> {
        let Self { socket, state, .. } = &**self;
        let permit = self.permit(&labels).await?;
        let (starting, answer) =
            Starting::new(self, permit, labels.clone()).map_err(|source| self.not_begun(source))?;
        let milliseconds = |limit: Duration| u32::try_from(limit.as_millis().max(1)).ok();
        let head = Head::Request { call: starting.call(), deadline: limit.and_then(milliseconds) };
        match say::begin(socket, labels, head, body, Patience::Labels).await {
            Ok(said) => Ok(starting.begun(said, answer)),
            Err(SendError::Ended) => Err(self.not_begun(state.ended().unwrap_or_else(|| ended(socket)))),
            Err(error) => Err(CallError::NotSent(error)),
        }
    }

    /// Waits for a place among the open calls, which may never be free while there is no network.
    async fn permit(&self, labels: &Labels) -> Result<OwnedSemaphorePermit, CallError> {
        let Self { socket, state, .. } = self;
        tokio::select! {
            biased;
            permit = state.permit(labels.urgency) => permit.map_err(|source| self.not_begun(source)),
            error = no_network(socket, labels) => Err(CallError::NotSent(error)),
        }
    }

    /// The conversation is over before a request was sent.
    fn not_begun(&self, source: SessionError) -> CallError {
        let request = Outcome::Dropped(DropReason::Cancelled);
        CallError::Ended { callee: Box::new(self.callee()), source, request }
    }

    pub(super) fn callee(&self) -> Callee {
        let standing = Some(self.socket.verdict());
        Callee { peer: self.socket.peer().to_string(), standing }
    }

    async fn close_within(&self, limit: Duration) -> Result<(), CloseError> {
        let Self { socket, state, .. } = self;
        let until = Instant::now() + limit.min(FOR_EVER);
        state.shut();
        let idle = wait_until(&state.changed, || (state.stats().open == 0).then_some(()));
        let _open_still = tokio::time::timeout_at(until, idle).await;
        socket.close_within(until.saturating_duration_since(Instant::now())).await
    }
}

/// Waits until there was no network for as long as the failure timeout of the labels says, if it says so.
async fn no_network(socket: &MultiSocket, labels: &Labels) -> SendError {
    while let Some(timeout) = socket.failure_timeout(labels) {
        // Enlisted before looking: a network that goes between the two is not missed.
        let mut events = socket.events();
        if socket.has_network_for(labels) {
            if events.next().await.is_none() {
                break;
            }
            continue;
        }
        drop(events);
        let waited = match Wait::begin(socket, labels, Some(timeout)) {
            Ok(wait) => wait.over().await,
            Err(SendError::Ended) => break,
            Err(error) => return error,
        };
        match waited {
            Ok(Deferral::Ready) => {}
            Ok(_) => return SendError::NoNetwork { labels: Box::new(labels.clone()), timeout },
            Err(_) => break,
        }
    }
    // For ever, or until the conversation ends: whoever waits for a place is told.
    pending().await
}

/// How the conversation ended, as far as it is known.
pub(super) fn ended(socket: &MultiSocket) -> SessionError {
    match socket.state().ended() {
        Some(ended) => ended.into(),
        None => SessionError::Ended { reason: EndReason::Closed, words: None, common: None },
    }
}

impl Service<Call> for Rpc {
    type Response = Response;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, CallError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let rpc = self.clone();
        Box::pin(async move { Rpc::call(&rpc, call.body, call.options).await })
    }
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.over {
            Over::Conversation(client) => write!(f, "Rpc({:?}, {:?})", client.socket, self.stats()),
            Over::Homa(caller) => write!(f, "Rpc({:?}, {:?})", caller.peer(), self.stats()),
        }
    }
}
