//! The one task of a conversation that takes requests, gives them their turn, and answers.

use super::ServeConfig;
use super::board::{Answer, Board, Calls, Open, count};
use crate::error::{CloseError, SessionError};
use crate::events::Events;
use crate::lock;
use crate::message::Message;
use crate::rpc::FOR_EVER;
use crate::rpc::error::ServeError;
use crate::rpc::handler::{Handler, Request};
use crate::rpc::say::{self, HearError, Heard};
use crate::socket::MultiSocket;
use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use steadfast_session::{Event, SendError};
use steadfast_wire::call::{FIRST_LIMIT, Fault, Head, MAX_LIMIT};
use steadfast_wire::frame::EndReason;
use steadfast_wire::{Labels, SizeClass, Urgency};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;

/// Answers that may wait for room in the send buffer before the peer is not listened to any more.
const OUTBOX: usize = 256;

/// What a shutdown takes longer than it was allowed, so that the last answers are still taken.
const ROOM: Duration = Duration::from_secs(2);

pub(super) struct Serving<H> {
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
    pub(super) fn new(socket: MultiSocket, handler: H, config: ServeConfig, board: Arc<Board>) -> Self {
        Self {
            events: socket.events(),
            socket,
            handler: Arc::new(handler),
            max_open: config.max_open.clamp(FIRST_LIMIT as usize, MAX_LIMIT as usize),
            concurrency: config.concurrency.max(1),
            board,
            tasks: JoinSet::new(),
            heads: JoinSet::new(),
            running: HashMap::new(),
            aborts: HashMap::new(),
            queues: Default::default(),
            busy: [0; 2],
            finished: false,
            draining: false,
            quiet: false,
        }
    }

    pub(super) async fn run(mut self, mut stopped: oneshot::Receiver<Duration>) -> Result<(), ServeError> {
        let limits = say::whole(Head::Limits([self.max_open as u64; 2]), &[]);
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
                    let limit = limit.min(FOR_EVER);
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
            message = socket.recv(), if !*finished && waiting < OUTBOX && heads.len() < say::MAX_HEADLESS => match message {
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

    fn take(&mut self, message: Message) -> Result<(), ServeError> {
        let Some(bytes) = message.payload() else {
            self.heads.spawn(say::hear_streamed(message));
            return Ok(());
        };
        match say::hear(message.labels.clone(), bytes.clone()) {
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
                let request =
                    Request { peer: Some(self.socket.peer()), labels: labels.clone(), deadline, body };
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
        let answer = Answer::new(call, labels, Arc::clone(&self.board));
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
