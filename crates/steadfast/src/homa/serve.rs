//! Requests that handlers answer. One that is done at once is answered from the task that read its request; one that waits gets
//! a task of its own.

use super::engine::{Engine, GROUP, Handle};
use super::error::HomaError;
use super::machine::PortUse;
use super::peers::From;
use crate::lock;
use crate::rpc::{Handler, Request, Response, ServeError};
use bytes::{Bytes, BytesMut};
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant as Wall};
use steadfast_homa::{RespondError, RpcId};
use steadfast_wire::Labels;
use steadfast_wire::call::{Fault, MAX_TAIL, MAX_WORDS, Tail};
use tokio::sync::Notify;

/// Handlers that run at once at a port, unless told otherwise.
const CONCURRENCY: usize = 1024;
/// Handlers that waited for their turn and are begun at once.
const MAX_BEGUN: usize = 64;
/// Handlers that take longer until they wait or are done, in nanoseconds, get tasks of their own from the start: packets are not to
/// wait for them.
const QUICK: u64 = 20_000;
/// What a shutdown takes longer than it was allowed, so that the last answers are still taken.
const ROOM: Duration = Duration::from_secs(2);

type Answer = Result<Response, String>;
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A handler of whatever type.
pub(super) trait AnyHandler: Send + Sync {
    fn begin(self: Arc<Self>, request: Request) -> Answering;
}

struct Typed<H>(H);

impl<H: Handler> AnyHandler for Typed<H> {
    fn begin(self: Arc<Self>, request: Request) -> Answering {
        Box::pin(async move { self.0.handle(request).await })
    }
}

/// A port that is served.
pub(super) struct Served {
    number: u16,
    handler: Arc<dyn AnyHandler>,
    concurrency: usize,
    /// Handlers that wait for something.
    running: AtomicUsize,
    waiting: Mutex<Waiting>,
    /// How long handlers take until they wait or are done, in nanoseconds, smoothed.
    pace: AtomicU64,
    draining: AtomicBool,
    idle: Notify,
    counters: Counters,
}

/// What has not begun, with when it came. One that is cancelled leaves its place in the order, not its body.
#[derive(Default)]
struct Waiting {
    jobs: HashMap<RpcId, (Job, Wall)>,
    order: VecDeque<RpcId>,
    /// Nobody serves the port any more. What came just before would be kept for ever, and would keep what it waits in.
    closed: bool,
}

impl Waiting {
    fn push(&mut self, job: Job) {
        if self.closed {
            return;
        }
        if self.order.len() > 2 * self.jobs.len() + 1024 {
            self.order.retain(|rpc| self.jobs.contains_key(rpc));
        }
        self.order.push_back(job.rpc);
        self.jobs.insert(job.rpc, (job, Wall::now()));
    }

    fn pop(&mut self) -> Option<(Job, Wall)> {
        loop {
            if let Some(job) = self.jobs.remove(&self.order.pop_front()?) {
                return Some(job);
            }
        }
    }
}

#[derive(Default)]
struct Counters {
    taken: AtomicU64,
    answered: AtomicU64,
    faults: AtomicU64,
}

/// A request for a handler.
pub(super) struct Job {
    pub(super) served: Arc<Served>,
    pub(super) rpc: RpcId,
    pub(super) from: From,
    pub(super) body: Bytes,
}

/// A response as it is sent.
fn encode(tail: Tail, body: Bytes) -> Bytes {
    // In the buffer of the body, where that is nobody else's.
    let mut out = match body.try_into_mut() {
        Ok(own) => own,
        Err(shared) => {
            let mut out = BytesMut::with_capacity(shared.len() + MAX_TAIL);
            out.extend_from_slice(&shared);
            out
        }
    };
    tail.encode(&mut out);
    out.freeze()
}

pub(super) fn seal_request(body: Bytes, deadline: Option<Duration>) -> Bytes {
    let milliseconds = |limit: Duration| u32::try_from(limit.as_millis().max(1)).ok();
    encode(Tail::Request { deadline: deadline.and_then(milliseconds) }, body)
}

fn fault(fault: Fault, words: &str) -> Bytes {
    let end = (0..=words.len().min(MAX_WORDS)).rev().find(|at| words.is_char_boundary(*at)).unwrap_or(0);
    encode(Tail::Fault(fault), Bytes::copy_from_slice(&words.as_bytes()[..end]))
}

/// Begins what came in together; what is done at once is answered together, and what is left by who called this.
pub(super) fn begin(engine: &Arc<Engine>, jobs: Vec<Job>) {
    let mut answers: Vec<(RpcId, Bytes)> = Vec::with_capacity(jobs.len().min(GROUP));
    for job in jobs {
        if answers.len() == GROUP {
            answer(engine, answers.drain(..));
            engine.flush();
        }
        answers.extend(begin_one(engine, job));
    }
    answer(engine, answers.into_iter());
}

fn answer(engine: &Arc<Engine>, answers: impl Iterator<Item = (RpcId, Bytes)>) {
    let mut refused = Vec::new();
    {
        let now = engine.now();
        let mut machine = lock(&engine.machine);
        for (rpc, body) in answers {
            if let Err(error) = machine.respond(now, rpc, body.clone()) {
                refused.push((rpc, body, error));
            }
        }
    }
    for (rpc, body, error) in refused {
        respond_again(engine, rpc, body, error);
    }
}

fn begin_one(engine: &Arc<Engine>, job: Job) -> Option<(RpcId, Bytes)> {
    let served = Arc::clone(&job.served);
    if served.has_room() {
        return begin_now(engine, job, None);
    }
    lock(&served.waiting).push(job);
    // The last that ran may have ended before this one could be found waiting.
    begin_waiting(engine, &served);
    None
}

/// Begins what waits while there is room. One that is done at once makes none by its end, so the next one is looked for here.
fn begin_waiting(engine: &Arc<Engine>, served: &Arc<Served>) {
    for _ in 0..MAX_BEGUN {
        if !served.has_room() {
            return;
        }
        let Some((job, taken)) = lock(&served.waiting).pop() else { return };
        // Its client may have gone meanwhile.
        if lock(&engine.machine).is_served(job.rpc)
            && let Some((rpc, body)) = begin_now(engine, job, Some(taken))
        {
            respond(engine, rpc, body);
        }
    }
    // Others get their turn before there are more.
    let (later, served) = (Arc::clone(engine), Arc::clone(served));
    engine.spawn(async move { begin_waiting(&later, &served) });
}

fn begin_now(engine: &Arc<Engine>, job: Job, taken: Option<Wall>) -> Option<(RpcId, Bytes)> {
    let Job { served, rpc, from, mut body } = job;
    served.counters.taken.fetch_add(1, Ordering::Relaxed);
    let deadline = match Tail::decode(&mut body) {
        Ok(Tail::Request { deadline }) => deadline,
        Ok(_) => return Some((rpc, served.fault(Fault::Refused, "what was sent is no request"))),
        Err(error) => return Some((rpc, served.fault(Fault::Version, &error.to_string()))),
    };
    if served.draining.load(Ordering::Acquire) {
        return Some((rpc, served.fault(Fault::Refused, "it is shutting down")));
    }
    let allowed = |limit: u32| taken.unwrap_or_else(Wall::now) + Duration::from_millis(u64::from(limit));
    let deadline = deadline.map(allowed);
    if taken.is_some() && deadline.is_some_and(|at| at <= Wall::now()) {
        return Some((rpc, served.fault(Fault::LateUnbegun, "")));
    }
    let request = Request { peer: from.key, labels: Labels::foreground(), deadline, body: body.into() };
    let handler = Arc::clone(&served.handler);
    if served.pace.load(Ordering::Relaxed) >= QUICK {
        // Sometimes it is tried again: handlers may have become quick.
        let answering = Box::pin(async move { handler.begin(request).await });
        served.note_pace(Duration::ZERO);
        run(engine, served, rpc, answering, deadline);
        return None;
    }
    let begun = Wall::now();
    let started = catch_unwind(AssertUnwindSafe(|| {
        let mut answering = handler.begin(request);
        let step = answering.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        (answering, step)
    }));
    served.note_pace(begun.elapsed());
    match started {
        Ok((_, Poll::Ready(answer))) => Some((rpc, served.encode(answer))),
        // It is polled again there at once, so what woke it meanwhile is not lost.
        Ok((answering, Poll::Pending)) => {
            run(engine, served, rpc, answering, deadline);
            None
        }
        Err(panic) => Some((rpc, served.panicked(&panic))),
    }
}

/// Counts a handler that waits; when it is over, the next may begin.
struct Running {
    engine: Arc<Engine>,
    served: Arc<Served>,
    /// It answered. Otherwise it was dropped, perhaps because the runtime ends.
    ended: bool,
}

impl Running {
    fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.served.running.fetch_sub(1, Ordering::AcqRel);
        let (engine, served) = (Arc::clone(&self.engine), Arc::clone(&self.served));
        if self.ended {
            begin_waiting(&engine, &served);
        } else {
            // A runtime that ends drops this one, too, and so begins nothing.
            self.engine.spawn(async move { begin_waiting(&engine, &served) });
        }
        self.served.idle.notify_waiters();
    }
}

/// Lets a handler go on in a task of its own.
fn run(
    engine: &Arc<Engine>,
    served: Arc<Served>,
    rpc: RpcId,
    mut answering: Answering,
    deadline: Option<Wall>,
) {
    served.running.fetch_add(1, Ordering::AcqRel);
    let running = Running { engine: Arc::clone(engine), served, ended: false };
    let task = engine.spawn(async move {
        let caught = poll_fn(|context| {
            let step = catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(context)));
            match step {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(answer)) => Poll::Ready(Ok(answer)),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        });
        let caught = match deadline {
            Some(at) => tokio::time::timeout_at(at.into(), caught).await.ok(),
            None => Some(caught.await),
        };
        let served = &running.served;
        let body = match caught {
            Some(Ok(answer)) => served.encode(answer),
            Some(Err(panic)) => served.panicked(&panic),
            None => served.fault(Fault::Late, ""),
        };
        respond(&running.engine, rpc, body);
        running.end();
    });
    // It may have been cancelled before there was a task.
    let unwanted = !lock(&engine.machine).set_task(rpc, task.clone());
    if unwanted && !task.is_finished() {
        task.abort();
    }
}

fn respond(engine: &Arc<Engine>, rpc: RpcId, body: Bytes) {
    if let Err(error) = engine.respond(rpc, body.clone()) {
        respond_again(engine, rpc, body, error);
    }
}

/// An answer was not taken.
fn respond_again(engine: &Arc<Engine>, rpc: RpcId, body: Bytes, error: RespondError) {
    match error {
        // Nobody waits for it any more.
        RespondError::Ended | RespondError::NotAsked => {}
        RespondError::Length { .. } => {
            let _ended = engine.respond(rpc, fault(Fault::Failed, &error.to_string()));
        }
        RespondError::Full(_) => {
            let waits = Arc::clone(engine);
            engine.spawn(async move {
                waits
                    .until_room(|| match waits.respond(rpc, body.clone()) {
                        Err(RespondError::Full(_)) => None,
                        _ => Some(()),
                    })
                    .await;
            });
        }
    }
}

impl Served {
    fn has_room(&self) -> bool {
        self.running.load(Ordering::Acquire) < self.concurrency
    }

    /// Nobody waits for a request any more.
    pub(super) fn cancel(&self, rpc: RpcId) {
        lock(&self.waiting).jobs.remove(&rpc);
    }

    /// What a handler says, as it is sent.
    fn encode(&self, answer: Answer) -> Bytes {
        match answer.map(|mut response| response.body().take_whole()) {
            Ok(Some(body)) => {
                self.counters.answered.fetch_add(1, Ordering::Relaxed);
                encode(Tail::Response, body)
            }
            Ok(None) => {
                self.fault(Fault::Failed, "its response is made in pieces, which Homa does not carry")
            }
            Err(words) => self.fault(Fault::Failed, &words),
        }
    }

    fn fault(&self, kind: Fault, words: &str) -> Bytes {
        self.counters.faults.fetch_add(1, Ordering::Relaxed);
        fault(kind, words)
    }

    fn panicked(&self, _panic: &Box<dyn Any + Send>) -> Bytes {
        self.fault(Fault::Panicked, "")
    }

    fn note_pace(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).min(1_000_000_000);
        let before = self.pace.load(Ordering::Relaxed);
        self.pace.store(before - before / 16 + took / 16, Ordering::Relaxed);
    }
}

/// What a [`Server`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServerStats {
    /// Requests that were taken.
    pub taken: u64,
    /// Calls that were answered with a response.
    pub answered: u64,
    /// Calls that were answered with a fault.
    pub faults: u64,
    /// Handlers that wait for something.
    pub running: usize,
}

/// A port that is served. Dropping it stops at once: handlers are dropped, and the port closed.
#[must_use = "dropping it stops serving"]
pub struct Server {
    handle: Arc<Handle>,
    served: Arc<Served>,
}

impl Server {
    pub(super) fn start(
        handle: Arc<Handle>,
        port: u16,
        handler: impl Handler,
        concurrency: Option<usize>,
    ) -> Result<Self, HomaError> {
        let served = Arc::new(Served {
            number: port,
            handler: Arc::new(Typed(handler)),
            concurrency: concurrency.unwrap_or(CONCURRENCY).max(1),
            running: AtomicUsize::new(0),
            waiting: Mutex::default(),
            pace: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            idle: Notify::new(),
            counters: Counters::default(),
        });
        {
            let mut machine = lock(&handle.engine.machine);
            if machine.closed {
                return Err(HomaError::Closed);
            }
            machine.transport.bind(port)?;
            machine.ports.insert(port, PortUse::Served(Arc::clone(&served)));
        }
        Ok(Self { handle, served })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.served.number
    }

    /// What was done so far.
    pub fn stats(&self) -> ServerStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.served.counters;
        ServerStats {
            taken: read(&counters.taken),
            answered: read(&counters.answered),
            faults: read(&counters.faults),
            running: self.served.running.load(Ordering::Relaxed),
        }
    }

    /// Shuts down: what has not begun is refused, running handlers may finish within `limit`, then they are dropped and
    /// their callers told. Every caller learns what became of its request.
    ///
    /// Fails if the answers were not all taken within the limit and 2 s more. Cancelling stops at once.
    pub async fn shutdown(self, limit: Duration) -> Result<(), ServeError> {
        let engine = &self.handle.engine;
        self.served.draining.store(true, Ordering::Release);
        let waiting = std::mem::take(&mut *lock(&self.served.waiting));
        for rpc in waiting.jobs.into_keys() {
            respond(engine, rpc, self.served.fault(Fault::Refused, "it is shutting down"));
        }
        let quiet = || (self.served.running.load(Ordering::Acquire) == 0).then_some(());
        let idle = crate::receipt::wait_until(&self.served.idle, quiet);
        if tokio::time::timeout(limit, idle).await.is_err() {
            let running = lock(&engine.machine).served_at(self.served.number);
            for (rpc, task) in running.into_iter().filter(|(_, task)| task.is_some()) {
                if let Some(task) = task {
                    task.abort();
                }
                respond(engine, rpc, self.served.fault(Fault::Stopped, ""));
            }
        }
        let taken = async {
            while !lock(&engine.machine).served_at_is_empty(self.served.number) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(ROOM, taken).await.map_err(|_| ServeError::Limit(limit))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let number = self.served.number;
        *lock(&self.served.waiting) = Waiting { closed: true, ..Waiting::default() };
        self.handle.engine.with(|machine, _| machine.close_port(number));
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server(port {}, {:?})", self.served.number, self.stats())
    }
}
