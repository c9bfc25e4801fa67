//! Serving calls: one task a conversation that takes requests, begins handlers as many as may run, and answers.

use super::error::ServeError;
use super::handler::{Handler, Request, Response};
use super::say::{self, HearError, Heard, SayError};
use crate::error::{CloseError, SessionError};
use crate::events::Events;
use crate::lock;
use crate::message::Message;
use crate::socket::MultiSocket;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use steadfast_session::{Event, SendError};
use steadfast_wire::call::{FIRST_LIMIT, Fault, Head, MAX_LIMIT};
use steadfast_wire::frame::EndReason;
use steadfast_wire::{Labels, SizeClass, Urgency};
use tokio::sync::{Notify, oneshot};
use tokio::task::{AbortHandle, Id, JoinHandle, JoinSet};
use tokio::time::Instant;

/// Answers that may wait for room in the send buffer before the peer is not listened to any more.
const OUTBOX: usize = 256;

/// What a shutdown takes longer than it was allowed, so that the last answers are still taken.
const ROOM: Duration = Duration::from_secs(2);

/// How a conversation is served.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ServeConfig {
    /// Calls of each urgency that the peer may have open, waiting or running: 1,024, at least 64, at most 8,192. Each holds up
    /// to 32 KiB of its request; longer bodies wait in the windows of the conversation. Beyond it the peer's own
    /// `call` waits.
    pub max_open: usize,
    /// Handlers that run at once, with the sending of what they answer: 128. Background has at most three quarters of
    /// them, so that foreground finds room.
    pub concurrency: usize,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self { max_open: 1024, concurrency: 128 }
    }
}

impl ServeConfig {
    /// The same with another [`max_open`](Self::max_open).
    #[must_use]
    pub const fn max_open(mut self, calls: usize) -> Self {
        self.max_open = calls;
        self
    }

    /// The same with another [`concurrency`](Self::concurrency).
    #[must_use]
    pub const fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers;
        self
    }
}

/// What a server has done on one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServerStats {
    /// Requests that were taken.
    pub taken: u64,
    /// Handlers that were begun.
    pub begun: u64,
    /// Calls that were answered with a response (or the beginning of one).
    pub answered: u64,
    /// Calls that were answered with a fault.
    pub faults: u64,
    /// Calls that were cancelled by the peer while they waited or ran.
    pub cancelled: u64,
    /// Messages that belong to no call which is open here, and were ignored.
    pub unmatched: u64,
}

#[derive(Debug, Default)]
struct Counters {
    taken: AtomicU64,
    begun: AtomicU64,
    answered: AtomicU64,
    faults: AtomicU64,
    cancelled: AtomicU64,
    unmatched: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Serves the calls that come over a conversation, with the default settings; see [`serve_with`].
pub fn serve(socket: MultiSocket, handler: impl Handler) -> Server {
    serve_with(socket, handler, ServeConfig::default())
}

/// Serves the calls that come over a conversation, in tasks of the current tokio runtime (it panics outside of one).
///
/// The conversation is used for calls alone, and nobody else may receive from it. Every request is executed at most once.
/// It is not important which side opened the conversation; two that serve each other use two.
pub fn serve_with(socket: MultiSocket, handler: impl Handler, config: ServeConfig) -> Server {
    let (stop, stopped) = oneshot::channel();
    let board = Arc::new(Board::default());
    let serving = Serving {
        events: socket.events(),
        socket,
        handler: Arc::new(handler),
        max_open: config.max_open.clamp(FIRST_LIMIT as usize, MAX_LIMIT as usize),
        concurrency: config.concurrency.max(1),
        board: Arc::clone(&board),
        tasks: JoinSet::new(),
        heads: JoinSet::new(),
        running: HashMap::new(),
        aborts: HashMap::new(),
        queues: Default::default(),
        busy: [0; 2],
        finished: false,
        draining: false,
        quiet: false,
    };
    let task = tokio::spawn(serving.run(stopped));
    Server { task, stop: Some(stop), board }
}

/// A conversation that is being served. Dropping it stops at once: handlers are dropped and the conversation closed.
#[must_use = "dropping it stops serving: keep it, or await `done`"]
pub struct Server {
    task: JoinHandle<Result<(), ServeError>>,
    stop: Option<oneshot::Sender<Duration>>,
    board: Arc<Board>,
}

impl Server {
    /// Waits until the peer has finished and all its calls are answered, or the conversation has ended. Cancel safe.
    pub async fn done(&mut self) -> Result<(), ServeError> {
        match (&mut self.task).await {
            Ok(result) => result,
            // Only dropping it or the end of the runtime stops the task.
            Err(_) => pending().await,
        }
    }

    /// Shuts down: what has not begun is refused, running handlers may finish within `limit`, then they are dropped and
    /// their callers told; then the conversation is closed. Every caller learns what became of its request.
    ///
    /// Fails if the answers were not all taken within the limit and 2 s more. Cancelling stops at once.
    pub async fn shutdown(mut self, limit: Duration) -> Result<(), ServeError> {
        if let Some(stop) = self.stop.take() {
            let _over = stop.send(limit);
        }
        self.done().await
    }

    /// What was done so far.
    pub fn stats(&self) -> ServerStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.board.counters;
        ServerStats {
            taken: read(&counters.taken),
            begun: read(&counters.begun),
            answered: read(&counters.answered),
            faults: read(&counters.faults),
            cancelled: read(&counters.cancelled),
            unmatched: read(&counters.unmatched),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({:?})", self.stats())
    }
}

/// What the tasks of calls share with the one that takes requests.
#[derive(Debug, Default)]
struct Board {
    /// Calls without an answer. Whoever takes one off answers it, so that there is exactly one answer.
    open: Mutex<Calls>,
    /// Answers that wait for room.
    outbox: Mutex<VecDeque<(Labels, Bytes)>>,
    posted: Notify,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Calls {
    all: HashMap<u64, Open>,
    of_urgency: [usize; 2],
}

impl Calls {
    fn insert(&mut self, call: u64, open: Open) {
        self.of_urgency[open.labels.urgency.index()] += 1;
        self.all.insert(call, open);
    }

    fn take(&mut self, call: u64) -> Option<Open> {
        let open = self.all.remove(&call)?;
        self.of_urgency[open.labels.urgency.index()] -= 1;
        Some(open)
    }
}

#[derive(Debug)]
struct Open {
    labels: Labels,
    /// Until its handler is begun.
    request: Option<Request>,
}

impl Board {
    fn take(&self, call: u64) -> Option<Open> {
        lock(&self.open).take(call)
    }

    fn post(&self, labels: &Labels, call: u64, fault: Fault, words: &str) {
        let message = say::whole(Head::Fault { call, fault }, say::words(words));
        lock(&self.outbox).push_back((labels.clone(), message));
        count(&self.counters.faults);
        self.posted.notify_one();
    }
}

/// Owes one call its answer: whatever ends its task, the caller hears of it.
struct Answer {
    call: u64,
    labels: Labels,
    board: Arc<Board>,
    /// The response is on its way; only a fault can still follow.
    sending: bool,
    given: bool,
}

impl Answer {
    async fn give(mut self, socket: &MultiSocket, result: Result<Response, (Fault, String)>) {
        if self.board.take(self.call).is_none() {
            // Answered already, by whoever cancelled it.
            self.given = true;
            return;
        }
        let response = match result {
            Ok(response) => response,
            Err((fault, words)) => return self.fail(fault, &words),
        };
        self.sending = true;
        let head = Head::Response { call: self.call };
        let result = match say::begin(socket, self.labels.clone(), head, response.into_body()).await {
            Ok(said) => {
                count(&self.board.counters.answered);
                match said.upload {
                    Some(upload) => upload.await,
                    None => Ok(()),
                }
            }
            Err(error) => Err(SayError::Send(error)),
        };
        match result {
            // The caller does without the rest.
            Ok(()) | Err(SayError::Send(SendError::NotOpen(_))) => self.given = true,
            Err(SayError::Body(error)) => self.fail(Fault::Failed, &error.to_string()),
            Err(SayError::Send(error)) => self.fail(Fault::Failed, &error.to_string()),
        }
    }

    fn fail(&mut self, fault: Fault, words: &str) {
        self.given = true;
        self.board.post(&self.labels, self.call, fault, words);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given && (self.sending || self.board.take(self.call).is_some()) {
            let fault = if std::thread::panicking() { Fault::Panicked } else { Fault::Stopped };
            self.fail(fault, "");
        }
    }
}

struct Serving<H> {
    socket: MultiSocket,
    events: Events,
    handler: Arc<H>,
    max_open: usize,
    concurrency: usize,
    board: Arc<Board>,
    /// A task for each handler that was begun.
    tasks: JoinSet<()>,
    /// Streamed messages that have not yet said what they are.
    heads: JoinSet<Result<Heard, HearError>>,
    running: HashMap<Id, (u64, Urgency)>,
    aborts: HashMap<u64, AbortHandle>,
    /// Calls that wait for their turn.
    queues: [VecDeque<u64>; 2],
    busy: [usize; 2],
    /// The peer makes no more calls.
    finished: bool,
    draining: bool,
    /// There are no more events.
    quiet: bool,
}

enum Step {
    Message(Message),
    Finished,
    Heard(Result<Heard, HearError>),
    /// A handler and its answer are over.
    Done(Id),
    Event(Option<Event>),
    Stop(Duration),
    Limit,
    Nothing,
    Failed(SessionError),
}

/// A shutdown that is under way.
struct Stop {
    limit: Duration,
    /// When the conversation is given up.
    until: Instant,
    /// The handlers had their time.
    cut: bool,
}

impl<H: Handler> Serving<H> {
    async fn run(mut self, mut stopped: oneshot::Receiver<Duration>) -> Result<(), ServeError> {
        let limits = whole_limits(self.max_open);
        lock(&self.board.outbox).push_back((Labels::foreground(), limits));
        let mut stop: Option<Stop> = None;
        loop {
            self.begin_waiting();
            // A peer that has much to say leaves others their turn.
            tokio::task::coop::consume_budget().await;
            let alarm = stop.as_ref().map(|stop| if stop.cut { stop.until } else { stop.until - ROOM });
            match self.step(&mut stopped, alarm).await {
                Step::Message(message) => self.take(message)?,
                Step::Heard(Ok(heard)) => self.understand(heard)?,
                Step::Heard(Err(HearError::Violation(what))) => return Err(self.violated(what)),
                Step::Finished => self.finished = true,
                Step::Done(id) => self.over(id),
                Step::Event(Some(Event::PeerShut { closing: true, .. })) => self.drop_all(),
                Step::Event(None) => {
                    self.quiet = true;
                    if let Some(ended) = self.socket.state().ended().filter(|_| self.finished) {
                        return Self::ended(ended.into());
                    }
                }
                Step::Stop(limit) => {
                    stop = Some(Stop { limit, until: Instant::now() + limit + ROOM, cut: false });
                    self.drain();
                }
                Step::Limit => {
                    if let Some(stop) = stop.as_mut().filter(|stop| !stop.cut) {
                        stop.cut = true;
                        // Each tells its caller as it goes.
                        self.tasks.abort_all();
                    } else {
                        self.socket.abort();
                        return Err(ServeError::Limit(stop.map_or(ROOM, |stop| stop.limit)));
                    }
                }
                Step::Failed(error) => return Self::ended(error),
                Step::Heard(Err(HearError::Gone)) | Step::Event(_) | Step::Nothing => {}
            }
            if (self.finished || self.draining) && self.is_idle() {
                return self.close(stop).await;
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.tasks.is_empty() && lock(&self.board.open).all.is_empty() && lock(&self.board.outbox).is_empty()
    }

    async fn step(&mut self, stopped: &mut oneshot::Receiver<Duration>, alarm: Option<Instant>) -> Step {
        let Self { socket, events, board, tasks, heads, finished, draining, quiet, .. } = self;
        let (first, waiting) = {
            let outbox = lock(&board.outbox);
            (outbox.front().cloned(), outbox.len())
        };
        let answering = async {
            match first {
                Some((labels, message)) => say::send(socket, labels, message).await,
                None => pending().await,
            }
        };
        let late = async {
            match alarm {
                Some(at) => tokio::time::sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            sent = answering => {
                // Only this task takes from the front.
                lock(&board.outbox).pop_front();
                match sent {
                    Ok(_) | Err(SendError::BadRule | SendError::TooLarge { .. }) => Step::Nothing,
                    // Nobody takes an answer any more; how it ended is told by receiving.
                    Err(_) => {
                        lock(&board.outbox).clear();
                        Step::Nothing
                    }
                }
            }
            Some(done) = tasks.join_next_with_id(), if !tasks.is_empty() => match done {
                Ok((id, ())) => Step::Done(id),
                Err(error) => Step::Done(error.id()),
            },
            Some(heard) = heads.join_next(), if !heads.is_empty() => match heard {
                Ok(heard) => Step::Heard(heard),
                Err(_) => Step::Nothing,
            },
            allowed = &mut *stopped, if !*draining => match allowed {
                Ok(allowed) => Step::Stop(allowed),
                // Its handle is gone, and this task with it.
                Err(_) => pending().await,
            },
            () = late => Step::Limit,
            message = socket.recv(), if !*finished && waiting < OUTBOX => match message {
                Ok(Some(message)) => Step::Message(message),
                Ok(None) => Step::Finished,
                Err(error) => Step::Failed(error),
            },
            () = board.posted.notified() => Step::Nothing,
            event = events.next(), if !*quiet => Step::Event(event),
        }
    }

    fn violated(&mut self, what: String) -> ServeError {
        tracing::debug!(peer = %self.socket.peer(), what, "the rules of calls are broken");
        self.socket.abort();
        ServeError::Violation(what)
    }

    fn take(&mut self, mut message: Message) -> Result<(), ServeError> {
        let heard = match message.payload() {
            Some(bytes) => say::hear(message.labels.clone(), bytes.clone()),
            None if self.heads.len() >= 2 * self.max_open => {
                Err(HearError::Violation("more streamed messages than calls may be open".into()))
            }
            None => {
                message.labels.size = SizeClass::Auto;
                self.heads.spawn(say::hear_streamed(message));
                return Ok(());
            }
        };
        match heard {
            Ok(heard) => self.understand(heard),
            Err(HearError::Violation(what)) => Err(self.violated(what)),
            Err(HearError::Gone) => Ok(()),
        }
    }

    fn understand(&mut self, heard: Heard) -> Result<(), ServeError> {
        let Heard { mut labels, head, body } = heard;
        // The size was said of the request.
        labels.size = SizeClass::Auto;
        match head {
            Head::Request { call, deadline } => {
                let deadline = deadline.map(|limit| Instant::now() + Duration::from_millis(u64::from(limit)));
                let deadline = deadline.map(Instant::into_std);
                let request = Request { peer: self.socket.peer(), labels: labels.clone(), deadline, body };
                self.admit(call, labels, request)
            }
            Head::Foreign { call } => {
                self.board.post(&labels, call, Fault::Version, "");
                Ok(())
            }
            Head::Cancel { call } => {
                self.cancel(call, &labels);
                Ok(())
            }
            Head::Response { .. } | Head::Fault { .. } | Head::Limits(_) => {
                count(&self.board.counters.unmatched);
                Ok(())
            }
        }
    }

    fn admit(&mut self, call: u64, labels: Labels, request: Request) -> Result<(), ServeError> {
        count(&self.board.counters.taken);
        if self.draining {
            self.board.post(&labels, call, Fault::Refused, "it is shutting down");
            return Ok(());
        }
        let urgency = labels.urgency;
        let (known, open) = {
            let open = lock(&self.board.open);
            let known = open.all.contains_key(&call) || self.aborts.contains_key(&call);
            (known, open.of_urgency[urgency.index()])
        };
        if known {
            return Err(self.violated("two calls of one number".into()));
        }
        if open >= self.max_open {
            return Err(self.violated("more calls than it was allowed".into()));
        }
        lock(&self.board.open).insert(call, Open { labels, request: Some(request) });
        self.queues[urgency.index()].push_back(call);
        Ok(())
    }

    /// Nobody waits for a call any more.
    fn cancel(&mut self, call: u64, labels: &Labels) {
        let Some(open) = self.board.take(call) else {
            self.board.post(labels, call, Fault::NotOpen, "");
            return;
        };
        count(&self.board.counters.cancelled);
        let fault = if open.request.is_some() {
            self.queues[open.labels.urgency.index()].retain(|waiting| *waiting != call);
            Fault::CancelledUnbegun
        } else {
            if let Some(handler) = self.aborts.get(&call) {
                handler.abort();
            }
            Fault::Cancelled
        };
        self.board.post(labels, call, fault, "");
    }

    /// Begins the handlers of calls that wait, as many as may run, foreground first.
    fn begin_waiting(&mut self) {
        let background =
            self.concurrency - if self.concurrency > 1 { (self.concurrency / 4).max(1) } else { 0 };
        loop {
            let room = self.busy[0] + self.busy[1] < self.concurrency;
            let urgency = match () {
                () if !room => return,
                () if !self.queues[0].is_empty() => Urgency::Foreground,
                () if !self.queues[1].is_empty() && self.busy[1] < background => Urgency::Background,
                () => return,
            };
            if let Some(call) = self.queues[urgency.index()].pop_front() {
                self.begin(call, urgency);
            }
        }
    }

    fn begin(&mut self, call: u64, urgency: Urgency) {
        let begun = lock(&self.board.open).all.get_mut(&call).and_then(|open| {
            let request = open.request.take()?;
            Some((open.labels.clone(), request))
        });
        let Some((labels, request)) = begun else { return };
        let deadline = request.deadline.map(Instant::from_std);
        if deadline.is_some_and(|at| at <= Instant::now()) {
            self.board.take(call);
            self.board.post(&labels, call, Fault::LateUnbegun, "");
            return;
        }
        count(&self.board.counters.begun);
        let answer = Answer { call, labels, board: Arc::clone(&self.board), sending: false, given: false };
        let (handler, socket) = (Arc::clone(&self.handler), self.socket.clone());
        let task = self.tasks.spawn(async move {
            let handled = handler.handle(request);
            let result = match deadline {
                Some(at) => tokio::time::timeout_at(at, handled).await,
                None => Ok(handled.await),
            };
            let result = match result {
                Ok(result) => result.map_err(|words| (Fault::Failed, words)),
                Err(_) => Err((Fault::Late, String::new())),
            };
            answer.give(&socket, result).await;
        });
        self.busy[urgency.index()] += 1;
        self.running.insert(task.id(), (call, urgency));
        self.aborts.insert(call, task);
    }

    fn over(&mut self, id: Id) {
        if let Some((call, urgency)) = self.running.remove(&id) {
            self.aborts.remove(&call);
            self.busy[urgency.index()] -= 1;
        }
    }

    /// The peer takes no answers any more.
    fn drop_all(&mut self) {
        self.queues = Default::default();
        *lock(&self.board.open) = Calls::default();
        self.tasks.abort_all();
    }

    /// Takes up nothing new.
    fn drain(&mut self) {
        self.draining = true;
        for call in self.queues.iter_mut().flat_map(std::mem::take) {
            if let Some(open) = self.board.take(call) {
                self.board.post(&open.labels, call, Fault::Refused, "it is shutting down");
            }
        }
    }

    fn ended(error: SessionError) -> Result<(), ServeError> {
        match error {
            SessionError::Ended { reason: EndReason::Closed, .. } => Ok(()),
            error => Err(error.into()),
        }
    }

    async fn close(&self, stop: Option<Stop>) -> Result<(), ServeError> {
        let closed = match &stop {
            Some(stop) => {
                self.socket.close_within(stop.until.saturating_duration_since(Instant::now())).await
            }
            None => self.socket.close().await,
        };
        closed.or_else(|error| match error {
            CloseError::Session(error) => Self::ended(error),
            CloseError::Limit(limit) => Err(ServeError::Limit(stop.map_or(limit, |stop| stop.limit))),
        })
    }
}

fn whole_limits(max_open: usize) -> Bytes {
    say::whole(Head::Limits([max_open as u64; 2]), &[])
}
