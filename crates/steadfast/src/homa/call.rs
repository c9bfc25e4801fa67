//! One call over Homa: made in the caller's task, ended by the packet that brings its response.

use super::engine::Engine;
use super::error::{HomaError, SendError, Silence};
use super::machine::{Asked, Finished, Key};
use super::peer::Peer;
use super::serve::seal_request;
use crate::lock;
use crate::rpc::{Body, CallError, CallOptions, Callee, Response};
use bytes::Bytes;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use steadfast_homa::{Outcome, Reason};
use steadfast_session::{DropReason, Outcome as Known};
use steadfast_wire::call::{Fault, MAX_TAIL, Tail};
use steadfast_wire::{Rule, Urgency};
use tokio::time::Instant as Wall;

/// Calls to one port of one peer.
#[derive(Clone)]
pub(crate) struct Caller {
    peer: Peer,
    port: u16,
}

/// A call that was begun. Dropping it cancels the call.
pub(crate) struct Outstanding {
    engine: Arc<Engine>,
    /// Keeps the transport open.
    caller: Caller,
    key: Option<Key>,
    limit: Duration,
}

const NOTHING: Known = Known::Dropped(DropReason::Cancelled);

impl Caller {
    pub(crate) fn new(peer: &Peer, port: u16) -> Self {
        Self { peer: peer.clone(), port }
    }

    pub(crate) const fn peer(&self) -> &Peer {
        &self.peer
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.peer.handle.engine
    }

    /// Requests of this transport that are unanswered.
    pub(crate) fn open(&self) -> usize {
        lock(&self.engine().machine).open().0
    }

    /// Makes a call. It waits only if there is no room, or the peer is not in reach. `buffer` is for the response.
    pub(crate) async fn start(
        &self,
        mut body: Body,
        options: CallOptions,
        buffer: Vec<u8>,
    ) -> Result<Outstanding, CallError> {
        let CallOptions { labels, deadline } = options;
        if labels.urgency == Urgency::Background {
            return Err(not_sent(SendError::Labels {
                what: "background",
                advice: "it sends the shortest first, whatever is urgent; use a conversation",
            }));
        }
        let body = match body.take_whole() {
            Some(bytes) => bytes,
            None => self.gather(body, deadline).await?,
        };
        let request = seal_request(body, deadline);
        let mut buffer = Some(buffer);
        match self.begin(&request, &labels.rule, deadline, &mut buffer) {
            Ok(outstanding) => Ok(outstanding),
            Err(error) if error.is_temporary() || error == SendError::NoPeer => {
                self.begin_later(request, labels.rule, deadline, buffer).await
            }
            Err(error) => Err(not_sent(error)),
        }
    }

    fn begin(
        &self,
        request: &Bytes,
        rule: &Rule,
        deadline: Option<Duration>,
        buffer: &mut Option<Vec<u8>>,
    ) -> Result<Outstanding, SendError> {
        let engine = self.engine();
        let now = engine.now();
        let peer = engine.find(now, self.peer.target(), rule)?;
        let asked = Asked {
            peer,
            port: self.port,
            from: None,
            body: request.clone(),
            deadline: deadline.map(|limit| now + limit),
            max_response: u32::MAX,
            buffer: buffer.take().unwrap_or_default(),
        };
        let key = engine.ask(now, asked)?;
        let limit = deadline.unwrap_or_default();
        Ok(Outstanding { engine: Arc::clone(engine), caller: self.clone(), key: Some(key), limit })
    }

    /// The way when it cannot begin at once.
    async fn begin_later(
        &self,
        request: Bytes,
        rule: Rule,
        deadline: Option<Duration>,
        mut buffer: Option<Vec<u8>>,
    ) -> Result<Outstanding, CallError> {
        let engine = self.engine();
        let until = deadline.map(|limit| Wall::now() + limit);
        let left = || until.map(|until| until.saturating_duration_since(Wall::now()));
        let begun = async {
            loop {
                match tokio::time::timeout(engine.connect_limit, self.peer.in_reach()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(HomaError::Closed)) => return Err(not_sent(SendError::Closed)),
                    Ok(Err(_)) | Err(_) => {
                        return Err(CallError::OutOfReach { callee: Box::new(self.peer.callee()) });
                    }
                }
                let attempt = || match self.begin(&request, &rule, left(), &mut buffer) {
                    Err(error) if error.is_temporary() => None,
                    result => Some(result),
                };
                match engine.until_room(attempt).await {
                    // It was there a moment ago.
                    Err(SendError::NoPeer) => tokio::task::yield_now().await,
                    result => return result.map_err(not_sent),
                }
            }
        };
        let Some(until) = until else { return begun.await };
        match tokio::time::timeout_at(until, begun).await {
            Ok(result) => result,
            Err(_) => Err(self.late(deadline.unwrap_or_default())),
        }
    }

    fn late(&self, limit: Duration) -> CallError {
        CallError::Deadline { callee: Box::new(self.peer.callee()), limit, request: NOTHING }
    }

    /// A body that is made as it is wanted is wanted whole here.
    async fn gather(&self, body: Body, deadline: Option<Duration>) -> Result<Bytes, CallError> {
        let most = self.engine().longest() as usize - MAX_TAIL;
        let made = body.into_bytes_within(most);
        let made = match deadline {
            None => made.await,
            Some(limit) => match tokio::time::timeout(limit, made).await {
                Ok(made) => made,
                Err(_) => return Err(self.late(limit)),
            },
        };
        made.map_err(|source| CallError::Body { source, request: NOTHING })
    }
}

fn not_sent(error: SendError) -> CallError {
    CallError::NotSentOverHoma(error)
}

impl Outstanding {
    pub(crate) async fn response(mut self) -> Result<Response, CallError> {
        self.wait().await
    }

    /// Cancels the call and waits until it is known what became of it.
    pub(crate) async fn cancel(mut self) -> Result<Response, CallError> {
        if let Some(key) = self.key {
            self.engine.with(|machine, _| machine.cancel(key, true));
        }
        self.wait().await
    }

    async fn wait(&mut self) -> Result<Response, CallError> {
        let Some(key) = self.key else { return Err(CallError::Cancelled { request: NOTHING }) };
        let finished = poll_fn(|context| lock(&self.engine.machine).poll_call(key, context)).await;
        self.key = None;
        let Some(Finished { outcome, body }) = finished else {
            return Err(CallError::Cancelled { request: NOTHING });
        };
        let mut body = Bytes::from(body);
        match outcome {
            Outcome::Delivered => match Tail::decode(&mut body) {
                Ok(Tail::Response) => Ok(Response::new(body)),
                Ok(Tail::Fault(fault)) => {
                    let words = || String::from_utf8_lossy(&body).into_owned();
                    Err(of_fault(fault, self.limit, || Box::new(self.caller.peer.callee()), words))
                }
                _ => Err(self.unanswered(Silence::NoCall, Known::Unknown)),
            },
            Outcome::Dropped(reason) => Err(self.failed(reason, Known::Dropped(drop_reason(reason)))),
            Outcome::Unknown(reason) => Err(self.failed(reason, Known::Unknown)),
        }
    }

    fn failed(&self, reason: Reason, request: Known) -> CallError {
        match reason {
            Reason::Deadline => CallError::Deadline {
                callee: Box::new(self.caller.peer.callee()),
                limit: self.limit,
                request,
            },
            Reason::Cancelled => CallError::Cancelled { request },
            reason => self.unanswered(Silence::Transport(reason), request),
        }
    }

    fn unanswered(&self, reason: Silence, request: Known) -> CallError {
        CallError::Unanswered {
            callee: Box::new(self.caller.peer.callee()),
            port: self.caller.port,
            reason,
            request,
        }
    }
}

const fn drop_reason(reason: Reason) -> DropReason {
    match reason {
        Reason::Refused(_) => DropReason::Refused,
        Reason::Restarted => DropReason::Restarted,
        Reason::Cancelled | Reason::Closed => DropReason::Cancelled,
        Reason::Deadline => DropReason::Expired,
        _ => DropReason::Unreachable,
    }
}

/// What a fault says to the caller.
pub(crate) fn of_fault(
    fault: Fault,
    limit: Duration,
    callee: impl FnOnce() -> Box<Callee>,
    words: impl FnOnce() -> String,
) -> CallError {
    match fault {
        Fault::Refused => CallError::Refused(words()),
        Fault::Version => CallError::Refused("it does not speak this version of calls".into()),
        Fault::Failed => CallError::Failed(words()),
        Fault::Panicked => CallError::Panicked,
        Fault::Stopped => CallError::Stopped,
        Fault::LateUnbegun => CallError::Deadline { callee: callee(), limit, request: NOTHING },
        Fault::Late => CallError::Deadline { callee: callee(), limit, request: Known::Delivered },
        Fault::CancelledUnbegun => CallError::Cancelled { request: NOTHING },
        Fault::Cancelled => CallError::Cancelled { request: Known::Delivered },
        // It was never begun, or its answer is on its way.
        Fault::NotOpen => CallError::Cancelled { request: Known::Unknown },
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.engine.with(|machine, _| machine.cancel(key, false));
        }
    }
}
