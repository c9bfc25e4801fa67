//! One conversation over all networks of both sides.

use crate::deferred::{Deferred, Submission, Wait};
use crate::endpoint::Handle;
use crate::error::{CloseError, SessionError};
use crate::events::{Events, Scope};
use crate::message::Message;
use crate::receipt::{Receipt, wait_until};
use crate::shared::{Inner, Shared};
use crate::state::SessionState;
use crate::verdict::{Standing, Verdicts};
use crate::writer::MessageWriter;
use bytes::Bytes;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use steadfast_session::{
    Deferral, Forecast, Recv, Redundancy, SendError, SendOptions, SessionError as CoreError,
};
use steadfast_wire::frame::EndReason;
use steadfast_wire::{Fingerprint, Instant, Labels, MessageId, SessionId};

/// How long a conversation may take to end unless told otherwise.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// A conversation with one peer over every network that both have: messages in both directions.
///
/// It outlives every network: while none works it is parked, and what is sent waits. A cheap handle: clones mean the
/// same conversation. Dropping the last one (unread [`Message`]s and unfinished [`MessageWriter`]s count) closes it in the
/// background as [`close`](Self::close) does; in an endpoint with a [store](crate::Builder::store) it ends nothing, and
/// [`Endpoint::restored`](crate::Endpoint::restored) has the conversation again.
#[derive(Clone)]
pub struct MultiSocket {
    conversation: Arc<Conversation>,
}

/// What keeps a conversation going.
struct Conversation {
    handle: Arc<Handle>,
    state: Arc<SessionState>,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let id = self.state.id;
        let opened = self.state.is_opened();
        let shared = &self.handle.shared;
        if opened && shared.journal.is_some() {
            // A program that ends, or panics, drops its handles, and its conversations are to outlive it.
            shared.put_back(&self.state);
            return;
        }
        // An error means that it has ended already.
        let _over = self.handle.shared.call(|inner, now| {
            if opened { inner.core.close(now, id, CLOSE_LIMIT) } else { inner.core.abort(now, id) }
        });
    }
}

impl MultiSocket {
    pub(crate) fn new(handle: Arc<Handle>, state: Arc<SessionState>) -> Self {
        Self { conversation: Arc::new(Conversation { handle, state }) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.conversation.handle.shared
    }

    pub(crate) fn state(&self) -> &Arc<SessionState> {
        &self.conversation.state
    }

    pub(crate) fn call<R>(&self, f: impl FnOnce(&mut Inner, Instant, SessionId) -> R) -> R {
        self.shared().call(|inner, now| f(inner, now, self.state().id))
    }

    pub(crate) fn peek<R>(&self, f: impl FnOnce(&mut Inner, Instant, SessionId) -> R) -> R {
        self.shared().peek(|inner, now| f(inner, now, self.state().id))
    }

    /// Takes something from the conversation: what is to be said about that waits for a moment.
    pub(crate) fn take<R>(&self, f: impl FnOnce(&mut Inner, Instant, SessionId) -> R) -> R {
        self.shared().call_and_leave(|inner, now| f(inner, now, self.state().id))
    }

    /// The other side's key.
    pub fn peer(&self) -> Fingerprint {
        self.state().peer
    }

    /// The conversation's id, the same on both sides.
    pub fn session_id(&self) -> SessionId {
        self.state().id
    }

    /// Whether no network leads to the peer at the moment.
    pub fn is_parked(&self) -> bool {
        self.state().is_parked()
    }

    /// What is known of the process at the other side: whether it lives, and if not, why it does not answer, by what
    /// evidence, and for how long. It stays what it was last when the conversation has ended.
    pub fn verdict(&self) -> Standing {
        let judgement = self.state().judgement();
        Standing::new(judgement, self.shared().clock.now())
    }

    /// The changes of [`verdict`](Self::verdict) from now on.
    pub fn verdicts(&self) -> Verdicts {
        Verdicts::new(self.events(), Arc::clone(self.shared()))
    }

    /// Whether a network that is up may carry messages with these labels. If not, what is sent with them waits.
    pub fn has_network_for(&self, labels: &Labels) -> bool {
        let id = self.session_id();
        self.shared().peek(|inner, _| inner.core.has_path_for(id, &labels.rule))
    }

    /// How long a message of `bytes` bytes with these labels would take to be at the peer, were it sent now: what waits
    /// in the send buffer goes first, background and large messages use all networks at once. It rests on what the
    /// traffic of the paths, and of earlier ones between the same networks, has taught; nothing is sent to find out.
    ///
    /// `Ok(None)` if no network that is up may carry it.
    pub fn estimate(&self, labels: &Labels, bytes: u64) -> Result<Option<Forecast>, SessionError> {
        let id = self.session_id();
        self.shared()
            .peek(|inner, _| inner.core.forecast(id, labels, bytes))
            .map_err(|error| self.explain(error))
    }

    /// The events of this conversation and of the paths to its peer, from now on.
    pub fn events(&self) -> Events {
        let scope = Scope::Session(self.session_id(), self.peer());
        self.shared().hub.subscribe(scope, self.state().ended().is_some())
    }

    // ----- sending -------------------------------------------------------------------------------------------------

    /// Sends a whole message, of at most [`Config::max_message`](crate::Config::max_message) of the peer (1 MiB).
    ///
    /// Returns once the message is in the send buffer, and waits only while that is full: this is the back-pressure.
    /// Then it goes out over whatever networks its labels allow, now or when there is one; the [`Receipt`] tells. If its
    /// labels have a failure timeout ([`set_failure_timeout`](Self::set_failure_timeout)), it waits so long at most until a
    /// network that is up may carry it, and fails with [`SendError::NoNetwork`].
    ///
    /// The first message goes out at once, and so does one that follows a message taken from this conversation. Others that
    /// are sent within 50 microseconds of the last write share the next one, up to 16: a task of the runtime makes it as soon
    /// as it has its turn.
    ///
    /// Cancel safe: a future that is dropped before it returned has sent nothing.
    pub async fn send(&self, payload: impl Into<Bytes>, labels: Labels) -> Result<Receipt, SendError> {
        self.send_with(payload, labels, SendOptions::default()).await
    }

    /// Sends as [`send`](Self::send) does, and says what the message has to wait for at the receiver and how long it is
    /// worth delivering; an [`OrderRequest`](crate::OrderRequest) alone will do. Cancel safe.
    pub async fn send_with(
        &self,
        payload: impl Into<Bytes>,
        labels: Labels,
        options: impl Into<SendOptions>,
    ) -> Result<Receipt, SendError> {
        let (payload, options) = (payload.into(), options.into());
        let send = || self.try_send_with(payload.clone(), labels.clone(), options.clone());
        self.when_a_network_fits(&labels, send).await
    }

    /// Sends if there is room in the send buffer now; [`SendError::Full`] otherwise. Does not wait for a network either,
    /// where the labels have a failure timeout of whatever length.
    pub fn try_send(&self, payload: impl Into<Bytes>, labels: Labels) -> Result<Receipt, SendError> {
        self.try_send_with(payload.into(), labels, SendOptions::default())
    }

    pub(crate) fn try_send_with(
        &self,
        payload: Bytes,
        labels: Labels,
        options: SendOptions,
    ) -> Result<Receipt, SendError> {
        let session = self.session_id();
        let send = |inner: &mut Inner, now| {
            let id = inner.core.send(now, session, labels, options, payload)?;
            Ok(self.state().sent(id))
        };
        let in_a_row = self.state().sends_in_a_row();
        let sent = if in_a_row { self.shared().call_in_a_row(send) } else { self.shared().call(send) };
        sent.map(|receipt| self.kept(receipt))
    }

    fn kept(&self, receipt: Receipt) -> Receipt {
        receipt.kept(self.shared().journal.as_ref())
    }

    /// Sends if a network that is up may carry the message; otherwise nothing is sent, and the [`Deferred`] tells when one
    /// may. Waits only while a network fits and the send buffer is full. Cancel safe.
    ///
    /// ```
    /// use steadfast::{Labels, MultiSocket, Rule, Selector, Submission};
    /// # async fn run(socket: &MultiSocket) -> Result<(), Box<dyn std::error::Error>> {
    /// let cheap = Labels::background().rule(Rule::default().prohibit(Selector::Metered));
    /// let mut report = measure();
    /// while let Submission::Deferred(deferred) = socket.send_or_defer(report, cheap.clone()).await? {
    ///     deferred.await?;
    ///     // What was true when there was no network may be stale by now.
    ///     report = measure();
    /// }
    /// # Ok(())
    /// # }
    /// # fn measure() -> Vec<u8> { Vec::new() }
    /// ```
    pub async fn send_or_defer(
        &self,
        payload: impl Into<Bytes>,
        labels: Labels,
    ) -> Result<Submission, SendError> {
        self.send_or_defer_with(payload, labels, SendOptions::default()).await
    }

    /// Sends or defers as [`send_or_defer`](Self::send_or_defer) does, with options for what is sent. Cancel safe.
    pub async fn send_or_defer_with(
        &self,
        payload: impl Into<Bytes>,
        labels: Labels,
        options: impl Into<SendOptions>,
    ) -> Result<Submission, SendError> {
        let (payload, options) = (payload.into(), options.into());
        let attempt = || {
            self.call(|inner, now, session| {
                let (labels, options, payload) = (labels.clone(), options.clone(), payload.clone());
                if inner.core.has_path_for(session, &labels.rule) {
                    let id = inner.core.send(now, session, labels, options, payload)?;
                    return Ok(Ok(self.state().sent(id)));
                }
                inner.core.defer(now, session, labels, None).map(Err)
            })
        };
        Ok(match self.when_there_is_room(attempt).await? {
            Ok(receipt) => Submission::Sent(self.kept(receipt)),
            Err(id) => Submission::Deferred(Deferred::new(self, id, labels.clone(), payload.clone())),
        })
    }

    /// Cancels every deferred send with exactly these labels; returns how many they were. Their futures fail with
    /// [`DeferredError::Cancelled`](crate::DeferredError::Cancelled), their callbacks are dropped without being called.
    pub fn cancel_deferred(&self, labels: &Labels) -> usize {
        let cancel = |inner: &mut Inner, now, session| inner.core.cancel_deferred(now, session, labels);
        // A conversation that has ended has none.
        let cancelled = self.call(cancel).unwrap_or(0);
        self.state().waits().drop_gone(labels, |id| {
            let found = self.peek(|inner, now, session| inner.core.check_deferral(now, session, id));
            found == Ok(Deferral::Gone)
        });
        cancelled
    }

    /// Says how long messages with exactly these labels may be without a network, from now on: `None`, the default, for
    /// ever; zero, to fail at once; or a time. It can be set anew between any two sends.
    ///
    /// A [`send`](Self::send) or [`begin`](Self::begin) with these labels then waits so long at most for a network that is up
    /// and may carry the message, and fails with [`SendError::NoNetwork`]: nothing was sent. A message that was accepted, and
    /// whose last such network goes away before the peer's library has all of it, has the same time: then its receipt says
    /// [`Dropped(NoNetwork)`](crate::DropReason::NoNetwork) if surely nothing of it is at the peer, else whatever the
    /// receiver says when it can be asked again ([`Receipt::concluded`] tells at once). Only time without a network counts; one that comes back in time saves the
    /// message. So a send that was accepted can still fail later, as with any socket; here the receipt tells.
    ///
    /// # Why this is a setting by label
    ///
    /// The notes on which this design is based (the failure notification notes of the Intentional Networking project)
    /// looked at three other ways to say it:
    ///
    /// - *Non-blocking mode* (`O_NONBLOCK`, `MSG_DONTWAIT`) for "fail at once" takes a common word for another meaning. A
    ///   program may want to hear at once that no network fits, and yet wait while one that fits is merely busy.
    /// - *A send timeout* (`SO_SNDTIMEO`) for "fail after a time" falls for the same reason: it says when a blocking call
    ///   falls back to non-blocking behaviour, and a program may want that and another patience for missing networks.
    ///   It also belongs to the socket, though an alarm and an upload on one socket differ just in this.
    /// - *A label* for "fail fast" (`CMM_LABEL_FAILFAST`) does say it by message, but it is not what labels are: they
    ///   describe the traffic, and this describes what the program wants to hear. A timeout of zero says the same.
    ///
    /// What is left is a function beside the labels, whose key is a label value.
    pub fn set_failure_timeout(
        &self,
        labels: &Labels,
        timeout: Option<Duration>,
    ) -> Result<(), SessionError> {
        self.peek(|inner, _, session| inner.core.set_failure_timeout(session, labels, timeout))
            .map_err(|error| self.explain(error))
    }

    /// What [`set_failure_timeout`](Self::set_failure_timeout) said last of exactly these labels; `None`, for ever, if
    /// nothing.
    pub fn failure_timeout(&self, labels: &Labels) -> Option<Duration> {
        self.peek(|inner, _, session| inner.core.failure_timeout(session, labels)).unwrap_or_default()
    }

    /// Says whether small foreground messages with exactly these labels go out on two paths at once, from now on. By default
    /// those that fit one packet do while a path that may carry them is suspect. What that costs is bounded by
    /// [`Config::redundancy_budget`](crate::Config::redundancy_budget) and counted in
    /// [`Stats::bytes_redundant`](crate::Stats::bytes_redundant); the receiver drops what comes twice.
    pub fn set_redundancy(&self, labels: &Labels, redundancy: Redundancy) -> Result<(), SessionError> {
        self.peek(|inner, _, session| inner.core.set_redundancy(session, labels, redundancy))
            .map_err(|error| self.explain(error))
    }

    /// What [`set_redundancy`](Self::set_redundancy) said last of exactly these labels.
    pub fn redundancy(&self, labels: &Labels) -> Redundancy {
        self.peek(|inner, _, session| inner.core.redundancy(session, labels)).unwrap_or_default()
    }

    /// Begins a streamed message: of any length, sent as it is written and read as it arrives. Waits while the send buffer
    /// is full, and for a network as [`send`](Self::send) does. Cancel safe: a future that is dropped before it returned has begun nothing.
    pub async fn begin(&self, labels: Labels) -> Result<MessageWriter, SendError> {
        self.begin_with(labels, SendOptions::default(), None).await
    }

    /// Begins a streamed message as [`begin`](Self::begin) does; says what it has to wait for at the receiver, how long it is
    /// worth delivering, and its length in bytes if that is known (writing more, or finishing with less, is then an error).
    pub async fn begin_with(
        &self,
        labels: Labels,
        options: impl Into<SendOptions>,
        length: Option<u64>,
    ) -> Result<MessageWriter, SendError> {
        let options = options.into();
        let begin = || self.try_begin(labels.clone(), options.clone(), length);
        self.when_a_network_fits(&labels, begin).await
    }

    /// Begins a streamed message if there is room in the send buffer now; [`SendError::Full`] otherwise. Does not wait for a
    /// network either.
    pub(crate) fn try_begin(
        &self,
        labels: Labels,
        options: SendOptions,
        length: Option<u64>,
    ) -> Result<MessageWriter, SendError> {
        let receipt = self.call(|inner, now, session| {
            let id = inner.core.begin(now, session, labels, options, length)?;
            Ok(self.state().sent(id))
        })?;
        Ok(MessageWriter::new(self.clone(), receipt))
    }

    /// Tries again until a network fits, for as long as the labels' failure timeout says.
    async fn when_a_network_fits<R>(
        &self,
        labels: &Labels,
        mut attempt: impl FnMut() -> Result<R, SendError>,
    ) -> Result<R, SendError> {
        let mut wait = None;
        loop {
            let result = self.when_there_is_room(&mut attempt).await;
            let Err(SendError::NoNetwork { timeout, .. }) = &result else { return result };
            if timeout.is_zero() {
                return result;
            }
            // One for all attempts: a network that comes and goes does not prolong it.
            let wait = match &mut wait {
                Some(wait) => wait,
                none => none.insert(Wait::begin(self, labels, Some(*timeout))?),
            };
            match wait.over().await {
                Ok(Deferral::Ready) => {}
                Ok(_) => return result,
                Err(_) => return Err(SendError::Ended),
            }
        }
    }

    pub(crate) async fn when_there_is_room<R>(
        &self,
        mut attempt: impl FnMut() -> Result<R, SendError>,
    ) -> Result<R, SendError> {
        self.shared().relief().await;
        // There is room nearly always, and then enlisting would be in vain.
        match attempt() {
            Err(SendError::Full(_)) => {}
            result => return result,
        }
        wait_until(&self.state().writable, || match attempt() {
            Err(SendError::Full(_)) => None,
            result => Some(result),
        })
        .await
    }

    /// Asks for a message to be dropped. Its receipt tells whether it was: the receiver has the last word.
    pub fn cancel(&self, id: MessageId) -> Result<(), SessionError> {
        self.call(|inner, now, session| inner.core.cancel(now, session, id))
            .map_err(|error| self.explain(error))
    }

    /// Changes the labels of a message that has no outcome yet. Its place in the order stays.
    ///
    /// What the new rule forbids is forbidden from this call on, also to bytes that are under way: their connection is
    /// reset.
    pub fn relabel(&self, id: MessageId, labels: Labels) -> Result<(), SendError> {
        self.call(|inner, now, session| inner.core.relabel(now, session, id, labels))
    }

    // ----- receiving -----------------------------------------------------------------------------------------------

    /// Takes the next message, foreground first. `None` once the peer has finished and everything was taken.
    ///
    /// Cancel safe: a future that is dropped before it returned has taken nothing.
    pub async fn recv(&self) -> Result<Option<Message>, SessionError> {
        self.next_message(false).await
    }

    /// Waits for the next message, which is `held` until it is acknowledged, if it is whole.
    pub(crate) async fn next_message(&self, held: bool) -> Result<Option<Message>, SessionError> {
        let (shared, state) = (self.shared(), self.state());
        loop {
            // What is delivered is to be stored, too.
            shared.relief().await;
            let arrived = {
                let mut readable = pin!(state.readable.notified());
                // Enlisted before looking: a message between the two is not missed.
                readable.as_mut().enable();
                match self.look_with(held)? {
                    Look::Message(message) => return Ok(Some(message)),
                    Look::Finished => return Ok(None),
                    Look::Nothing => {}
                }
                if let Some(guest) = Shared::visit(state) {
                    tokio::select! {
                        biased;
                        arrived = guest.readable() => if arrived {
                            Some(guest)
                        } else {
                            readable.await;
                            None
                        },
                        () = &mut readable => None,
                    }
                } else {
                    readable.await;
                    None
                }
            };
            // No longer enlisted, so that it does not wake itself.
            if let Some(guest) = arrived {
                shared.take_in_as_guest(&guest);
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Takes the next message if there is one; does not wait. `None` also once the peer has finished.
    pub fn try_recv(&self) -> Result<Option<Message>, SessionError> {
        match self.look()? {
            Look::Message(message) => Ok(Some(message)),
            Look::Nothing | Look::Finished => Ok(None),
        }
    }

    pub(crate) fn look(&self) -> Result<Look, SessionError> {
        self.look_with(false)
    }

    fn look_with(&self, held: bool) -> Result<Look, SessionError> {
        let taken =
            self.take(
                |inner, now, session| {
                    if held { inner.core.recv_held(now, session) } else { inner.core.recv(now, session) }
                },
            );
        match taken {
            Ok(Recv::Message(received)) => {
                self.state().set_took();
                Ok(Look::Message(Message::new(self, received)))
            }
            Ok(Recv::Pending) => Ok(Look::Nothing),
            Ok(Recv::Finished) => Ok(Look::Finished),
            Err(error) => match self.explain(error) {
                // Nothing was left to take when both sides agreed that it is over.
                SessionError::Ended { reason: EndReason::Closed, .. } => Ok(Look::Finished),
                other => Err(other),
            },
        }
    }

    // ----- ending --------------------------------------------------------------------------------------------------

    /// Sends no more, and goes on receiving (half-close). The peer's [`recv`](Self::recv) returns `None` after the last
    /// message.
    pub fn finish(&self) -> Result<(), SessionError> {
        self.call(|inner, now, session| inner.core.finish(now, session)).map_err(|error| self.explain(error))
    }

    /// Ends the conversation within 10 s; see [`close_within`](Self::close_within).
    pub async fn close(&self) -> Result<(), CloseError> {
        self.close_within(CLOSE_LIMIT).await
    }

    /// Ends the conversation: what was sent is still delivered, the peer's sends fail from now on, and what it has sent
    /// and we have not taken is refused.
    ///
    /// Returns when the peer's application has taken everything and both sides know that it is over; at the limit it
    /// gives the conversation up and fails. Cancelling leaves the rest to the background.
    pub async fn close_within(&self, limit: Duration) -> Result<(), CloseError> {
        let deadline = tokio::time::Instant::now() + limit;
        // An error means that it has ended already, which is looked at below.
        let _over = self.call(|inner, now, session| inner.core.close(now, session, limit));
        let state = self.state();
        let ended = wait_until(&state.changed, || state.ended()).await;
        match ended.reason {
            EndReason::Closed => Ok(()),
            EndReason::Aborted if tokio::time::Instant::now() >= deadline => Err(CloseError::Limit(limit)),
            _ => Err(CloseError::Session(ended.into())),
        }
    }

    /// Ends the conversation at once. Messages without an outcome become [`Outcome::Unknown`](crate::Outcome::Unknown).
    pub fn abort(&self) {
        let _over = self.call(|inner, now, session| inner.core.abort(now, session));
    }

    /// What an error of the core means here.
    pub(crate) fn explain(&self, error: CoreError) -> SessionError {
        self.state().explain(error)
    }
}

pub(crate) enum Look {
    Message(Message),
    Nothing,
    Finished,
}

impl fmt::Debug for MultiSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MultiSocket({} with {})", self.session_id(), self.peer())
    }
}
