//! Sends that wait for a network in the application's stead.

use crate::error::SessionError;
use crate::lock;
use crate::receipt::Receipt;
use crate::shared::Shared;
use crate::socket::MultiSocket;
use crate::state::SessionState;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use steadfast_session::{Deferral, DeferralId, SendError, SessionError as CoreError};
use steadfast_wire::Labels;

/// What came of [`MultiSocket::send_or_defer`].
#[derive(Debug)]
#[must_use = "a deferred send is cancelled when it is dropped"]
pub enum Submission {
    /// A network fits, and the message was accepted.
    Sent(Receipt),
    /// None does: this tells when one does.
    Deferred(Deferred),
}

/// A send that waits for a network. Nothing was sent.
///
/// A future: it ends when a network that is up may carry a message with these labels, and gives the payload back. The
/// application then sends, with these bytes or fresher ones; if the network is gone again by then,
/// [`send_or_defer`](MultiSocket::send_or_defer) gives another one. If it is gone before the future is polled, the future
/// goes on waiting by itself. [`on_ready`](Self::on_ready) takes a callback instead.
///
/// Dropping it cancels it, as [`MultiSocket::cancel_deferred`] cancels all with the same labels. It keeps the conversation
/// open, as every handle of it does; when that ends, it fails with the reason.
#[must_use = "a deferred send is cancelled when it is dropped"]
pub struct Deferred {
    wait: Wait,
    labels: Labels,
    payload: Bytes,
}

/// Why a deferred send will not find a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeferredError {
    /// It was cancelled.
    #[error("the deferred send was cancelled with `cancel_deferred`; nothing was sent")]
    Cancelled,
    /// The conversation ended.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// What a deferred send calls.
type Callback = Box<dyn FnOnce(Result<Bytes, DeferredError>) + Send>;

struct Thunk {
    labels: Labels,
    payload: Bytes,
    callback: Callback,
}

/// The waiting sends of one conversation, by their place in line.
#[derive(Default)]
pub(crate) struct Waits {
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    wakers: BTreeMap<DeferralId, Waker>,
    thunks: BTreeMap<DeferralId, Thunk>,
    /// A task runs callbacks.
    running: bool,
    /// It is to look once more.
    again: bool,
}

/// A place in line, given up when it is dropped.
pub(crate) struct Wait {
    socket: MultiSocket,
    id: Option<DeferralId>,
}

impl Wait {
    pub(crate) fn begin(
        socket: &MultiSocket,
        labels: &Labels,
        limit: Option<Duration>,
    ) -> Result<Self, SendError> {
        let id = socket.call(|inner, now, session| inner.core.defer(now, session, labels.clone(), limit))?;
        Ok(Self::of(socket, id))
    }

    pub(crate) fn of(socket: &MultiSocket, id: DeferralId) -> Self {
        Self { socket: socket.clone(), id: Some(id) }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Result<Deferral, CoreError>> {
        let Some(id) = self.id else { return Poll::Ready(Ok(Deferral::Gone)) };
        // Enlisted before looking: a change between the two is not missed.
        lock(&self.socket.state().waits().line).wakers.insert(id, context.waker().clone());
        match self.socket.peek(|inner, now, session| inner.core.check_deferral(now, session, id)) {
            Ok(Deferral::Waiting) => Poll::Pending,
            result => Poll::Ready(result),
        }
    }

    /// Waits until it is anything but waiting. Its place in line stays. Cancel safe.
    pub(crate) async fn over(&self) -> Result<Deferral, CoreError> {
        poll_fn(|context| self.poll(context)).await
    }

    fn end(&mut self) {
        let Some(id) = self.id.take() else { return };
        lock(&self.socket.state().waits().line).wakers.remove(&id);
        self.socket.call(|inner, now, session| inner.core.end_deferral(now, session, id));
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.end();
    }
}

impl Deferred {
    pub(crate) fn new(socket: &MultiSocket, id: DeferralId, labels: Labels, payload: Bytes) -> Self {
        Self { wait: Wait::of(socket, id), labels, payload }
    }

    /// The labels that it waits with.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What was to be sent.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Calls `callback` once, when a network fits, with the payload; or, if the conversation ends first, with its reason.
    /// It is never called if [`MultiSocket::cancel_deferred`] cancels it.
    ///
    /// Callbacks of a conversation run one after the other, those with the same labels in the order in which they were
    /// deferred, on a task of the runtime: they may call into this library, and are not to block. Each is preceded by a look
    /// at the networks: when the last fitting one is gone, the rest waits for the next.
    pub fn on_ready(mut self, callback: impl FnOnce(Result<Bytes, DeferredError>) + Send + 'static) {
        let Some(id) = self.wait.id.take() else { return };
        let socket = &self.wait.socket;
        let thunk = Thunk {
            labels: self.labels.clone(),
            payload: std::mem::take(&mut self.payload),
            callback: Box::new(callback),
        };
        {
            let mut line = lock(&socket.state().waits().line);
            line.wakers.remove(&id);
            line.thunks.insert(id, thunk);
        }
        // A network may fit by now, or the conversation be over.
        socket.shared().run_thunks(socket.state());
    }
}

impl Future for Deferred {
    type Output = Result<Bytes, DeferredError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(state) = self.wait.poll(context) else { return Poll::Pending };
        let result = match state {
            Ok(Deferral::Ready) => Ok(std::mem::take(&mut self.payload)),
            Ok(_) => Err(DeferredError::Cancelled),
            Err(error) => Err(self.wait.socket.explain(error).into()),
        };
        self.wait.end();
        Poll::Ready(result)
    }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deferred({:?} with {:?})", self.wait.id, self.labels)
    }
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = lock(&self.line);
        write!(f, "Waits({} futures, {} callbacks)", line.wakers.len(), line.thunks.len())
    }
}

impl Waits {
    /// Whoever waits looks again.
    pub(crate) fn wake(&self) {
        let wakers = std::mem::take(&mut lock(&self.line).wakers);
        wakers.into_values().for_each(Waker::wake);
    }

    /// Callbacks that are not waiting any more, because they were cancelled, are dropped.
    pub(crate) fn drop_gone(&self, labels: &Labels, is_gone: impl Fn(DeferralId) -> bool) {
        let mut candidates = Vec::new();
        {
            let line = lock(&self.line);
            let of_labels = line.thunks.iter().filter(|(_, thunk)| thunk.labels == *labels);
            candidates.extend(of_labels.map(|(id, _)| *id));
        }
        for id in candidates.into_iter().filter(|id| is_gone(*id)) {
            // What a callback holds may call into this library as it is dropped: not under the lock.
            let gone = lock(&self.line).thunks.remove(&id);
            drop(gone);
        }
    }

    /// Whether a task has to be started to run callbacks; one that runs already will look once more.
    fn start(&self) -> bool {
        let mut line = lock(&self.line);
        line.again = true;
        !line.thunks.is_empty() && !std::mem::replace(&mut line.running, true)
    }

    /// Whether a running task is to look (once more).
    fn goes_on(&self) -> bool {
        let mut line = lock(&self.line);
        line.running = std::mem::take(&mut line.again);
        line.running
    }
}

impl Shared {
    /// Runs the callbacks of a conversation for which a network fits, on a task of their own.
    pub(crate) fn run_thunks(self: &Arc<Self>, state: &Arc<SessionState>) {
        if state.has_waits() && state.waits().start() {
            let _ends_by_itself = self.spawn_freely(Arc::clone(self).call_thunks(Arc::clone(state)));
        }
    }

    async fn call_thunks(self: Arc<Self>, state: Arc<SessionState>) {
        while state.waits().goes_on() {
            // Labels for which nothing fits in this pass: those behind must not overtake if that changes meanwhile.
            let mut stuck: Vec<Labels> = Vec::new();
            let ids: Vec<DeferralId> = lock(&state.waits().line).thunks.keys().copied().collect();
            for id in ids {
                // Taken out first: from here on whoever cancels it leaves the dropping to us.
                let Some(thunk) = lock(&state.waits().line).thunks.remove(&id) else { continue };
                if stuck.contains(&thunk.labels) {
                    lock(&state.waits().line).thunks.insert(id, thunk);
                    continue;
                }
                let found = self.call(|inner, now| {
                    let found = inner.core.check_deferral(now, state.id, id);
                    if found == Ok(Deferral::Ready) {
                        inner.core.end_deferral(now, state.id, id);
                    }
                    found
                });
                match found {
                    Ok(Deferral::Waiting) => {
                        stuck.push(thunk.labels.clone());
                        lock(&state.waits().line).thunks.insert(id, thunk);
                    }
                    Ok(Deferral::Ready) => {
                        let Thunk { payload, callback, .. } = thunk;
                        call(callback, Ok(payload));
                        tokio::task::yield_now().await;
                    }
                    Ok(_) => drop(thunk),
                    Err(error) => call(thunk.callback, Err(state.explain(error).into())),
                }
            }
        }
    }
}

/// One callback that panics does not keep the others from running; the panic is reported as any is.
fn call(callback: Callback, result: Result<Bytes, DeferredError>) {
    let _panicked = catch_unwind(AssertUnwindSafe(|| callback(result)));
}
