//! The connection to the agent, and after it the next: who waits for which answer, and where events go.

use super::{BackplaneError, LIMIT, Notice, Subscribing};
use crate::checkpoint::{self, Registration, register_own};
use crate::lock;
use crate::receipt::wait_until;
use bytes::BytesMut;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use steadfast_backplane::protocol::{Refused, Request};
use steadfast_backplane::{
    Client, Code, EventHandle, EventSpace, Heard, Inbox, Place, Receive, Replayed, Session, SessionError,
    Style, Subscription, SubscriptionId,
};
use steadfast_net::LocalStream;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

/// How much is read at a time.
const READ: usize = 32 * 1024;
/// How long it is until an agent that is gone is sought again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Bytes of events that wait for one subscriber, at most, by their weight.
const MAX_BYTES: usize = 16 << 20;

/// What the agent answers.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Published(Box<EventHandle>),
    Subscribed(Replayed),
}

type Waiter = oneshot::Sender<Result<Answer, BackplaneError>>;

/// What waits for one subscriber.
#[derive(Debug)]
struct Waiting {
    notices: VecDeque<Notice>,
    /// What they weigh.
    bytes: usize,
    room: usize,
    /// What gave way and is not told yet: events, and whether the agent was restarted.
    dropped: u64,
    restarted: bool,
    ended: bool,
    /// Who waits for the next one.
    waker: Option<Waker>,
}

#[derive(Debug)]
struct State {
    session: Session,
    inbox: Inbox,
    waiting: BTreeMap<SubscriptionId, Waiting>,
    /// Those for whom something came, to be woken when this is not locked any more.
    woken: Vec<Waker>,
    answers: HashMap<Request, Waiter>,
    stream: Option<Arc<LocalStream>>,
    out: Vec<u8>,
    written: usize,
    lost: Option<(u64, Code)>,
    /// The agent's last word, if it wants no more of this client, or the client left.
    ended: Option<Ended>,
    last_id: u32,
}

/// No connection follows.
#[derive(Debug, Clone)]
struct Ended {
    /// The agent's reason, if it was the agent.
    reason: Option<String>,
}

/// Whether there is to be no connection, because the process is about to be frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Quiet {
    #[default]
    No,
    Wanted,
    /// There is none.
    Yes,
}

/// What the task and the application share.
#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// The connection is another, or has ended.
    changed: Notify,
    /// There is something to write that the socket did not take at once.
    unsent: Notify,
    /// How it stands with having no connection for a while.
    quiet: watch::Sender<Quiet>,
}

/// A client's link to its agent.
#[derive(Debug)]
pub(super) struct Link {
    inner: Arc<Inner>,
    space: Option<EventSpace>,
    limit: Duration,
    task: AbortHandle,
    _registration: Option<Registration>,
}

impl Link {
    /// Connects, and waits until the agent has let the client in.
    pub(super) async fn open(
        space: Option<EventSpace>,
        client: Client,
        path: PathBuf,
        limit: Duration,
    ) -> Result<Arc<Self>, BackplaneError> {
        let until = Instant::now() + limit;
        let late = || BackplaneError::Late { what: "connect to the backplane", limit };
        // Not while a checkpoint is taken: nobody would ask this client to leave for it.
        let section = timeout_at(until, checkpoint::enter()).await.map_err(|_| late())?;
        let stream = timeout_at(until, LocalStream::connect(&path)).await.map_err(|_| late())?;
        let stream = stream.map_err(|error| BackplaneError::NoAgent { path: path.clone(), error })?;
        let (state, quiet) = (Mutex::new(State::new(space, client)), watch::Sender::default());
        let inner = Arc::new(Inner { state, changed: Notify::new(), unsent: Notify::new(), quiet });
        let task = tokio::spawn(run(Arc::clone(&inner), stream, path)).abort_handle();
        let registration = register_own(Pause(Arc::downgrade(&inner)));
        let link = Self { inner, space, limit, task, _registration: registration };
        drop(section);
        let open = wait_until(&link.inner.changed, || {
            let state = lock(&link.inner.state);
            state.check().err().map(Err).or_else(|| state.session.is_open().then_some(Ok(())))
        });
        timeout_at(until, open).await.map_err(|_| late())??;
        Ok(Arc::new(link))
    }

    pub(super) const fn space(&self) -> Option<EventSpace> {
        self.space
    }

    pub(super) fn is_open(&self) -> bool {
        lock(&self.inner.state).session.is_open()
    }

    pub(super) fn lost(&self) -> Option<(u64, Code)> {
        lock(&self.inner.state).lost
    }

    /// Says something that is answered, and waits for that.
    pub(super) async fn ask(
        &self,
        what: &'static str,
        say: impl FnOnce(&mut Session) -> Result<Request, SessionError>,
    ) -> Result<Answer, BackplaneError> {
        let (waiter, answer) = oneshot::channel();
        let request = {
            let mut state = lock(&self.inner.state);
            state.check()?;
            let request = say(&mut state.session)?;
            state.answers.insert(request, waiter);
            self.inner.flush(&mut state);
            request
        };
        let given_up = GivenUp { inner: &self.inner, request };
        let answer = tokio::time::timeout(self.limit, answer).await;
        drop(given_up);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(BackplaneError::Closed { reason: None }),
            Err(_) => Err(BackplaneError::Late { what, limit: self.limit }),
        }
    }

    /// Says something that is not answered.
    pub(super) fn tell(
        &self,
        say: impl FnOnce(&mut Session) -> Result<(), SessionError>,
    ) -> Result<(), BackplaneError> {
        let mut state = lock(&self.inner.state);
        state.check()?;
        say(&mut state.session)?;
        self.inner.flush(&mut state);
        Ok(())
    }

    /// Makes room for what a subscription brings.
    pub(super) fn enter(
        &self,
        wanted: Subscription,
        how: Subscribing,
    ) -> Result<SubscriptionId, BackplaneError> {
        let mut state = lock(&self.inner.state);
        state.check()?;
        state.last_id += 1;
        let id = SubscriptionId(state.last_id);
        state.inbox.subscribe(id, wanted, how.matching, Receive::Callback)?;
        state.waiting.insert(id, Waiting::new(how.queue.max(1)));
        Ok(id)
    }

    pub(super) fn end(&self, id: SubscriptionId) {
        let mut state = lock(&self.inner.state);
        state.waiting.remove(&id);
        let _known = state.inbox.unsubscribe(id);
        if let Ok(request) = state.session.unsubscribe(id) {
            state.session.give_up(request);
            self.inner.flush(&mut state);
        }
    }

    pub(super) async fn next(&self, id: SubscriptionId) -> Option<Notice> {
        poll_fn(|context| {
            let mut state = lock(&self.inner.state);
            let Some(waiting) = state.waiting.get_mut(&id) else { return Poll::Ready(None) };
            waiting.poll(context)
        })
        .await
    }

    pub(super) fn try_next(&self, id: SubscriptionId) -> Option<Notice> {
        lock(&self.inner.state).waiting.get_mut(&id)?.take()
    }

    /// Says farewell, and waits until everything before was taken in.
    pub(super) async fn leave(&self) -> Result<(), BackplaneError> {
        {
            let mut state = lock(&self.inner.state);
            state.check()?;
            state.session.leave()?;
            self.inner.flush(&mut state);
        }
        let ended = wait_until(&self.inner.changed, || {
            let state = lock(&self.inner.state);
            state.session.is_closed().then(|| state.ended.is_some())
        });
        let late = BackplaneError::Late { what: "leave the backplane", limit: self.limit };
        let left = tokio::time::timeout(self.limit, ended).await.map_err(|_| late)?;
        if left { Ok(()) } else { Err(BackplaneError::Unknown) }
    }
}

/// Has a client leave its agent for a while.
pub(crate) struct Pause(Weak<Inner>);

impl Pause {
    /// Returns when there is no connection, and none will be made until [`end`](Self::end).
    pub(crate) async fn begin(&self) {
        let Some(inner) = self.0.upgrade() else { return };
        let mut quiet = inner.quiet.subscribe();
        inner.quiet.send_replace(Quiet::Wanted);
        let ended = wait_until(&inner.changed, || lock(&inner.state).ended.is_some().then_some(()));
        tokio::select! {
            _ = quiet.wait_for(|quiet| *quiet == Quiet::Yes) => {}
            () = ended => {}
        }
    }

    /// It may connect again.
    pub(crate) fn end(&self) {
        if let Some(inner) = self.0.upgrade() {
            inner.quiet.send_replace(Quiet::No);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nobody waits for an answer any more.
struct GivenUp<'a> {
    inner: &'a Inner,
    request: Request,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.inner.state);
        if state.answers.remove(&self.request).is_some() {
            state.session.give_up(self.request);
            self.inner.flush(&mut state);
        }
    }
}

impl Waiting {
    const fn new(room: usize) -> Self {
        let notices = VecDeque::new();
        Self { notices, bytes: 0, room, dropped: 0, restarted: false, ended: false, waker: None }
    }

    /// What comes next, for the one task that waits for it; `None` after the end.
    fn poll(&mut self, context: &Context<'_>) -> Poll<Option<Notice>> {
        let notice = self.take();
        if notice.is_some() || self.ended {
            return Poll::Ready(notice);
        }
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Adds one, which always fits: the oldest give way.
    fn put(&mut self, notice: Notice) {
        let weight = weight(&notice);
        while (self.notices.len() >= self.room || self.bytes + weight > MAX_BYTES)
            && let Some(old) = self.pop()
        {
            match old {
                Notice::Event(_) => self.dropped += 1,
                Notice::Dropped(count) => self.dropped += count,
                Notice::Restarted => self.restarted = true,
            }
        }
        self.bytes += weight;
        self.notices.push_back(notice);
    }

    fn pop(&mut self) -> Option<Notice> {
        let notice = self.notices.pop_front()?;
        self.bytes -= weight(&notice);
        Some(notice)
    }

    fn take(&mut self) -> Option<Notice> {
        if std::mem::take(&mut self.restarted) {
            return Some(Notice::Restarted);
        }
        match std::mem::take(&mut self.dropped) {
            0 => self.pop(),
            dropped => Some(Notice::Dropped(dropped)),
        }
    }
}

fn weight(notice: &Notice) -> usize {
    match notice {
        Notice::Event(delivery) => delivery.event.weight(),
        Notice::Dropped(_) | Notice::Restarted => 0,
    }
}

impl State {
    fn new(space: Option<EventSpace>, client: Client) -> Self {
        Self {
            session: Session::new(space, client),
            inbox: Inbox::new(Style::Notify, 0),
            waiting: BTreeMap::new(),
            woken: Vec::new(),
            answers: HashMap::new(),
            stream: None,
            out: Vec::new(),
            written: 0,
            lost: None,
            ended: None,
            last_id: 0,
        }
    }

    fn check(&self) -> Result<(), BackplaneError> {
        match &self.ended {
            Some(Ended { reason }) => Err(BackplaneError::Closed { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn answer(&mut self, request: Request, answer: Result<Answer, BackplaneError>) {
        if let Some(waiter) = self.answers.remove(&request) {
            // Who waited is gone.
            let _gone = waiter.send(answer);
        }
    }

    /// Tells all subscribers.
    fn tell(&mut self, notice: &Notice) {
        for waiting in self.waiting.values_mut() {
            waiting.put(notice.clone());
            self.woken.extend(waiting.waker.take());
        }
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Welcome { restarted: true, .. } => self.tell(&Notice::Restarted),
            Heard::Done(request) => self.answer(request, Ok(Answer::Done)),
            Heard::Published { request, handle } => self.answer(request, Ok(Answer::Published(handle))),
            Heard::Subscribed { request, replayed } => self.answer(request, Ok(Answer::Subscribed(replayed))),
            Heard::Refused(refused) => {
                let Refused { request, code, retry_after, words, reason } = refused;
                let refused = BackplaneError::Refused { code, reason, retry_after, words };
                self.answer(request, Err(refused));
            }
            Heard::Unknown(request) => self.answer(request, Err(BackplaneError::Unknown)),
            Heard::Event(delivery) => {
                if let Place::Callback(id, delivery) = self.inbox.handle_delivery(delivery)
                    && let Some(waiting) = self.waiting.get_mut(&id)
                {
                    waiting.put(Notice::Event(delivery));
                    self.woken.extend(waiting.waker.take());
                }
            }
            Heard::Dropped(count) => self.tell(&Notice::Dropped(count)),
            Heard::Lost { count, code } => {
                self.lost = Some((self.lost.map_or(0, |(before, _)| before) + count, code));
            }
            Heard::Lapsed { id, .. } => {
                let _known = self.inbox.unsubscribe(id);
                if let Some(waiting) = self.waiting.get_mut(&id) {
                    waiting.ended = true;
                    self.woken.extend(waiting.waker.take());
                }
            }
            Heard::Ended(reason) => self.end(reason.map(|refused| refused.words)),
            _ => {}
        }
    }

    fn end(&mut self, reason: Option<String>) {
        for waiting in self.waiting.values_mut() {
            waiting.ended = true;
            self.woken.extend(waiting.waker.take());
        }
        for (_, waiter) in self.answers.drain() {
            let _gone = waiter.send(Err(BackplaneError::Closed { reason: reason.clone() }));
        }
        self.ended = Some(Ended { reason });
    }
}

impl Inner {
    /// Writes what the socket takes at once; the task does the rest. Returns whether that was all.
    fn flush(&self, state: &mut State) -> bool {
        let Some(stream) = state.stream.clone() else { return true };
        loop {
            if state.written == state.out.len() {
                state.out.clear();
                state.written = 0;
                // What is not moved stays where it has a bound.
                if !state.session.poll_transmit(&mut state.out) {
                    return true;
                }
            }
            match stream.try_write(&state.out[state.written..]) {
                Ok(count) => state.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unsent.notify_one();
                    return false;
                }
                // Whoever reads sees it, too.
                Err(_) => state.written = state.out.len(),
            }
        }
    }

    /// Takes in what was read. Whether the connection goes on.
    fn take_in(&self, input: &mut BytesMut) -> bool {
        let mut state = lock(&self.state);
        let goes_on = loop {
            match state.session.poll(input) {
                Ok(Some(heard)) => {
                    let tells = matches!(heard, Heard::Welcome { .. } | Heard::Ended(_));
                    state.hear(heard);
                    if tells {
                        self.changed.notify_waiters();
                    }
                }
                Ok(None) => {
                    self.flush(&mut state);
                    break !state.session.is_closed();
                }
                Err(violation) => {
                    tracing::debug!(%violation, "the agent is given up");
                    break false;
                }
            }
        };
        let woken = std::mem::take(&mut state.woken);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        goes_on
    }

    async fn serve(&self, stream: LocalStream) {
        let stream = Arc::new(stream);
        let (mut input, mut chunk) = (BytesMut::new(), vec![0; READ].into_boxed_slice());
        {
            let mut state = lock(&self.state);
            state.stream = Some(Arc::clone(&stream));
            state.written = 0;
            state.out.clear();
            state.session.handle_connected();
            self.flush(&mut state);
        }
        let mut all = false;
        let mut unsent = pin!(self.unsent.notified());
        loop {
            tokio::select! {
                biased;
                () = unsent.as_mut(), if all => {
                    unsent.set(self.unsent.notified());
                    all = false;
                }
                read = stream.read(&mut chunk) => {
                    let Ok(count @ 1..) = read else { return };
                    input.extend_from_slice(&chunk[..count]);
                    if !self.take_in(&mut input) {
                        return;
                    }
                }
                ready = stream.writable(), if !all => {
                    if ready.is_err() {
                        return;
                    }
                    all = self.flush(&mut lock(&self.state));
                }
            }
        }
    }
}

/// Serves one connection after the other, until the agent wants no more of the client or the client left.
async fn run(inner: Arc<Inner>, first: LocalStream, path: PathBuf) {
    let (mut stream, mut quiet) = (first, inner.quiet.subscribe());
    loop {
        tokio::select! {
            () = inner.serve(stream) => {}
            _ = quiet.wait_for(|quiet| *quiet == Quiet::Wanted) => {}
        }
        {
            let mut state = lock(&inner.state);
            state.stream = None;
            if !state.session.is_closed() {
                state.session.handle_closed();
            }
        }
        inner.take_in(&mut BytesMut::new());
        inner.changed.notify_waiters();
        if lock(&inner.state).ended.is_some() {
            return;
        }
        let mut pause = FIRST_PAUSE;
        stream = loop {
            inner.quiet.send_if_modified(|quiet| {
                let wanted = *quiet == Quiet::Wanted;
                if wanted {
                    *quiet = Quiet::Yes;
                }
                wanted
            });
            // The task ends before what it subscribed to.
            drop(quiet.wait_for(|quiet| *quiet != Quiet::Yes).await);
            let connecting = async {
                let connected = tokio::time::timeout(LIMIT, LocalStream::connect(&path)).await;
                if !matches!(connected, Ok(Ok(_))) {
                    tokio::time::sleep(pause).await;
                }
                connected
            };
            tokio::select! {
                connected = connecting => if let Ok(Ok(stream)) = connected {
                    break stream;
                },
                _ = quiet.wait_for(|quiet| *quiet == Quiet::Wanted) => continue,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use steadfast_backplane::{
        Delivery, Event, EventId, Fingerprint, Incarnation, JobId, Kind, Location, Matching, Payload,
        Provenance, Timestamp,
    };

    fn event(sequence: u64, length: usize) -> Notice {
        let event = Event {
            id: EventId { origin: Fingerprint([7; 32]), incarnation: Incarnation(9), sequence },
            space: "a.b.c".parse().unwrap(),
            name: "DONE".parse().unwrap(),
            severity: "info".parse().unwrap(),
            kind: Kind::Plain,
            payload: Payload::new(vec![7; length].into()).unwrap(),
            client: Client { name: "one".parse().unwrap(), job: JobId::NONE, extension: 0 },
            number: 1,
            location: Location { host: "node7".parse().unwrap(), address: None, pid: 1, start: Timestamp(1) },
            user: 1,
            time: Timestamp(1),
            schema: None,
            signature: None,
        };
        Notice::Event(Delivery { event: Arc::new(event), provenance: Provenance::Local, replay: None })
    }

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A subscriber may be given from task to task: whoever asked last is woken, once, and by the end as well.
    #[test]
    fn who_waits_now_is_woken() {
        let client = Client { name: "one".parse().unwrap(), job: JobId::NONE, extension: 0 };
        let mut state = State::new(None, client);
        let (one, other) = (Arc::new(Woken(AtomicUsize::new(0))), Arc::new(Woken(AtomicUsize::new(0))));
        let wakers = [&one, &other].map(|woken| Waker::from(Arc::clone(woken)));
        let mut enter = |number| {
            let id = SubscriptionId(number);
            state.inbox.subscribe(id, Subscription::ALL, Matching::Every, Receive::Callback).unwrap();
            state.waiting.insert(id, Waiting::new(8));
            id
        };
        let (first, second) = (enter(1), enter(2));
        let poll = |state: &mut State, id, waker| {
            state.waiting.get_mut(&id).unwrap().poll(&Context::from_waker(waker))
        };
        let wake = |state: &mut State, expected: [usize; 2]| {
            state.woken.drain(..).for_each(Waker::wake);
            assert_eq!([&one, &other].map(|woken| woken.0.load(Ordering::Relaxed)), expected);
        };
        assert!(poll(&mut state, first, &wakers[0]).is_pending());
        assert!(poll(&mut state, first, &wakers[1]).is_pending());
        for number in 1..=2 {
            let Notice::Event(delivery) = event(number, 0) else { unreachable!() };
            state.hear(Heard::Event(delivery));
        }
        wake(&mut state, [0, 1]);
        for number in 1..=2 {
            let Poll::Ready(notice) = poll(&mut state, first, &wakers[0]) else { panic!("nothing came") };
            assert_eq!(sequence(notice), number);
        }
        assert!(poll(&mut state, first, &wakers[0]).is_pending());
        assert!(poll(&mut state, second, &wakers[1]).is_pending());
        state.hear(Heard::Ended(None));
        wake(&mut state, [1, 2]);
        for id in [first, second] {
            assert_eq!(poll(&mut state, id, &wakers[0]), Poll::Ready(None));
        }
    }

    fn sequence(notice: Option<Notice>) -> u64 {
        match notice {
            Some(Notice::Event(delivery)) => delivery.event.id.sequence,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_waits_is_bounded_in_bytes() {
        const LENGTH: usize = 60_000;
        let mut waiting = Waiting::new(usize::MAX);
        let all = 2 * (MAX_BYTES / LENGTH) as u64;
        for number in 1..=all {
            waiting.put(event(number, LENGTH));
            assert!(waiting.bytes <= MAX_BYTES);
        }
        let Some(Notice::Dropped(dropped)) = waiting.take() else { panic!("nothing gave way") };
        assert!(dropped >= all / 2 && dropped < all / 2 + 10, "{dropped} of {all}");
        for number in dropped + 1..=all {
            assert_eq!(sequence(waiting.take()), number);
        }
        assert_eq!((waiting.take(), waiting.bytes), (None, 0));
    }

    #[test]
    fn what_gives_way_is_told_whatever_it_was() {
        let mut waiting = Waiting::new(2);
        waiting.put(Notice::Dropped(5));
        waiting.put(Notice::Restarted);
        for number in 1..=3 {
            waiting.put(event(number, 0));
        }
        assert_eq!(waiting.take(), Some(Notice::Restarted));
        assert_eq!(waiting.take(), Some(Notice::Dropped(6)));
        assert_eq!((sequence(waiting.take()), sequence(waiting.take())), (2, 3));
        assert_eq!(waiting.take(), None);
    }
}
