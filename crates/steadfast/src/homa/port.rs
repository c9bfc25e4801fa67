//! The transport without handlers: requests and outcomes as messages, taken when the application wants them, in batches, into
//! buffers that it gave in advance.

use super::engine::{Engine, Handle};
use super::error::{HomaError, SendError};
use super::machine::{Asked, Effects, PortUse};
use super::peer::Peer;
use super::peers::From;
use crate::lock;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;
use steadfast_homa::{Outcome, RespondError, RpcId};
use steadfast_wire::Rule;

/// Buffers that a port keeps for what arrives.
const MAX_BUFFERS: usize = 4096;

/// What a port tells, inside.
pub(super) enum PortEvent {
    /// `given` if the buffer of the body is of the port's pool.
    Request {
        rpc: RpcId,
        from: From,
        body: Vec<u8>,
        given: bool,
    },
    Cancelled(RpcId),
    Answered {
        rpc: RpcId,
        acknowledged: bool,
    },
    Done(Verdict),
}

/// How a request of a port ended.
pub(super) struct Verdict {
    pub(super) cookie: u64,
    pub(super) outcome: Outcome,
    pub(super) body: Vec<u8>,
}

/// What came to a port and nobody took, in order. It is bounded by what the transport holds: each entry belongs to a request that
/// is under way, or that the application made.
#[derive(Default)]
pub(super) struct Mailbox {
    events: BTreeMap<u64, PortEvent>,
    next: u64,
    waker: Option<Waker>,
    /// Room that was given in advance, the shortest first.
    pool: Vec<Vec<u8>>,
}

impl Mailbox {
    /// Adds something; by which number it is found again.
    pub(super) fn push(&mut self, event: PortEvent, effects: &mut Effects) -> u64 {
        let number = self.next;
        self.next += 1;
        self.events.insert(number, event);
        effects.wakes.extend(self.waker.take());
        number
    }

    /// A request is wanted no more: if nobody took it, nobody ever hears of it.
    pub(super) fn cancel(&mut self, number: u64, rpc: RpcId, effects: &mut Effects) {
        match self.events.remove(&number) {
            Some(PortEvent::Request { body, given: true, .. }) => drop(self.give(body)),
            Some(_) => {}
            None => drop(self.push(PortEvent::Cancelled(rpc), effects)),
        }
    }

    /// The shortest buffer of the pool that has room.
    pub(super) fn buffer(&mut self, length: usize) -> Option<Vec<u8>> {
        let at = self.pool.partition_point(|buffer| buffer.capacity() < length);
        (at < self.pool.len()).then(|| self.pool.remove(at))
    }

    pub(super) fn into_reader(self) -> Option<Waker> {
        self.waker
    }

    pub(super) fn give(&mut self, buffer: Vec<u8>) -> bool {
        if self.pool.len() >= MAX_BUFFERS {
            return false;
        }
        let at = self.pool.partition_point(|other| other.capacity() < buffer.capacity());
        self.pool.insert(at, buffer);
        true
    }
}

/// A request that came to a [`Port`] and waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(RpcId);

/// The bytes of a message that arrived.
pub struct Arrived {
    bytes: Vec<u8>,
}

impl Arrived {
    /// How many bytes they are: known before any is copied.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// They lie here.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Copies them to where they are wanted: as many as there is room for, and how many that were.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let length = self.length().min(to.len());
        to[..length].copy_from_slice(&self.as_slice()[..length]);
        length
    }

    /// The buffer that they were assembled in: one of [`Port::give`], if one had room. Give it back when it was read.
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

impl fmt::Debug for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arrived({} bytes)", self.length())
    }
}

/// What came to a [`Port`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Incoming {
    /// A request, whole. Answer it with [`Port::respond`], or give it up with [`Port::abandon`].
    Request {
        /// To answer it.
        id: RequestId,
        /// Who asks.
        from: From,
        /// What.
        body: Arrived,
    },
    /// Nobody waits for the answer to a request any more.
    Cancelled {
        /// Which.
        id: RequestId,
    },
    /// An answer that was given has come to its end.
    Answered {
        /// To which request.
        id: RequestId,
        /// Whether the client acknowledged it.
        acknowledged: bool,
    },
    /// A request of this port has its outcome.
    Done {
        /// That of [`Port::send`].
        cookie: u64,
        /// What became of it.
        outcome: Outcome,
        /// The response, if it was [`Delivered`](Outcome::Delivered); empty otherwise.
        body: Arrived,
    },
}

/// How a request is to be sent from a [`Port`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RequestOptions {
    /// How long to wait for the response at most; as long as the server says that it works if none.
    pub deadline: Option<Duration>,
    /// The networks that it may use, where the peer is a key. Any by default.
    pub rule: Rule,
    /// Bytes of the longest response that is taken; the transport's own limit by default.
    pub max_response: Option<u32>,
    /// Where the response is put, if it fits into its capacity.
    pub buffer: Vec<u8>,
}

/// A port of a [`Homa`](super::Homa): sends requests, and takes those of others if its number is a server's.
///
/// Nothing is copied that need not be, and nobody is woken for what is polled. Dropping it ends what is under way there.
pub struct Port {
    handle: Arc<Handle>,
    number: u16,
}

impl Port {
    pub(super) fn open(handle: Arc<Handle>, number: Option<u16>) -> Result<Self, HomaError> {
        let number = {
            let mut machine = lock(&handle.engine.machine);
            if machine.closed {
                return Err(HomaError::Closed);
            }
            let number = match number {
                Some(number) => machine.transport.bind(number).map(|()| number),
                None => machine.transport.open_port(),
            }?;
            machine.ports.insert(number, PortUse::Mailbox(Mailbox::default()));
            number
        };
        Ok(Self { handle, number })
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.handle.engine
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Gives a buffer in advance: what arrives is put together in the shortest that has room for it, and in memory of its own if
    /// none has. False, and the buffer is gone, if there are 4,096 already.
    pub fn give(&self, buffer: Vec<u8>) -> bool {
        match lock(&self.engine().machine).ports.get_mut(&self.number) {
            Some(PortUse::Mailbox(mailbox)) => mailbox.give(buffer),
            _ => false,
        }
    }

    /// Sends a request and returns at once; its outcome comes as [`Incoming::Done`] with `cookie`.
    pub fn send(
        &self,
        peer: &Peer,
        port: u16,
        body: impl Into<Bytes>,
        cookie: u64,
        options: RequestOptions,
    ) -> Result<(), SendError> {
        let engine = self.engine();
        let now = engine.now();
        let deadline = options.deadline.map(|limit| now + limit);
        let to = engine.find(now, peer.target(), &options.rule)?;
        let asked = Asked {
            peer: to,
            port,
            from: Some((self.number, cookie)),
            body: body.into(),
            deadline,
            max_response: options.max_response.unwrap_or(u32::MAX),
            buffer: options.buffer,
        };
        engine.ask(now, asked).map(drop)
    }

    /// Answers a request and returns at once.
    pub fn respond(&self, id: RequestId, body: impl Into<Bytes>) -> Result<(), RespondError> {
        self.engine().respond(id.0, body.into())
    }

    /// Answers several requests at once, which go out together: those that could not be answered, and why.
    pub fn respond_all(
        &self,
        answers: impl IntoIterator<Item = (RequestId, Bytes)>,
    ) -> Vec<(RequestId, RespondError)> {
        let engine = self.engine();
        let now = engine.now();
        let mut failed = Vec::new();
        let mut effects = Effects::default();
        {
            let mut machine = lock(&engine.machine);
            for (id, body) in answers {
                if let Err(error) = machine.respond(now, id.0, body) {
                    failed.push((id, error));
                }
            }
            machine.drain(&mut effects);
        }
        engine.carry_out(effects);
        engine.flush();
        failed
    }

    /// Gives up on a request: its client learns that it may have been executed.
    pub fn abandon(&self, id: RequestId) {
        self.engine().with(|machine, _| machine.transport.abandon(id.0));
    }

    /// What has come, if anything has; does not wait.
    pub fn try_recv(&self) -> Option<Incoming> {
        let mut machine = lock(&self.engine().machine);
        let Some(PortUse::Mailbox(mailbox)) = machine.ports.get_mut(&self.number) else { return None };
        mailbox.events.pop_first().map(|(_, event)| Incoming::from(event))
    }

    /// Looks at the socket itself, takes what has come to this port, at most `max`, and does not wait: for who polls instead of being
    /// woken. How many there were.
    pub fn poll_batch(&self, into: &mut Vec<Incoming>, max: usize) -> usize {
        self.engine().poll_sockets();
        self.take(into, max)
    }

    fn take(&self, into: &mut Vec<Incoming>, max: usize) -> usize {
        let mut machine = lock(&self.engine().machine);
        let Some(PortUse::Mailbox(mailbox)) = machine.ports.get_mut(&self.number) else { return 0 };
        let before = into.len();
        while into.len() - before < max
            && let Some((_, event)) = mailbox.events.pop_first()
        {
            into.push(event.into());
        }
        into.len() - before
    }

    /// Waits for what comes next; `None` once the transport is closed. Cancel safe.
    pub async fn recv(&self) -> Option<Incoming> {
        let mut one = Vec::with_capacity(1);
        self.recv_batch(&mut one, 1).await;
        one.pop()
    }

    /// Waits until something has come and takes all of it, at most `max` (at least 1): how many there were, 0 once the transport is
    /// closed. One task may wait at a time. Cancel safe.
    pub async fn recv_batch(&self, into: &mut Vec<Incoming>, max: usize) -> usize {
        poll_fn(|context| {
            let count = self.take(into, max.max(1));
            if count > 0 {
                return Poll::Ready(count);
            }
            let mut machine = lock(&self.engine().machine);
            let closed = machine.closed;
            match machine.ports.get_mut(&self.number) {
                Some(PortUse::Mailbox(mailbox)) if !closed => {
                    if !mailbox.events.is_empty() {
                        context.waker().wake_by_ref();
                    }
                    mailbox.waker = Some(context.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(0),
            }
        })
        .await
    }
}

impl std::convert::From<PortEvent> for Incoming {
    fn from(event: PortEvent) -> Self {
        match event {
            PortEvent::Request { rpc, from, body, .. } => {
                Self::Request { id: RequestId(rpc), from, body: Arrived { bytes: body } }
            }
            PortEvent::Cancelled(rpc) => Self::Cancelled { id: RequestId(rpc) },
            PortEvent::Answered { rpc, acknowledged } => Self::Answered { id: RequestId(rpc), acknowledged },
            PortEvent::Done(Verdict { cookie, outcome, body }) => {
                Self::Done { cookie, outcome, body: Arrived { bytes: body } }
            }
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let number = self.number;
        self.engine().with(|machine, _| machine.close_port(number));
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({})", self.number)
    }
}
