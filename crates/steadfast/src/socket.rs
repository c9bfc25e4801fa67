//! One conversation over all networks of both sides.

use crate::endpoint::Handle;
use crate::error::{CloseError, SessionError};
use crate::events::Events;
use crate::message::Message;
use crate::receipt::{Receipt, wait_until};
use crate::shared::{Inner, Shared};
use crate::state::SessionState;
use crate::writer::MessageWriter;
use bytes::Bytes;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use steadfast_session::{Forecast, OrderRequest, Recv, SendError, SessionError as CoreError};
use steadfast_wire::frame::EndReason;
use steadfast_wire::{Fingerprint, Instant, Labels, MessageId, SessionId};

/// How long a conversation may take to end unless told otherwise.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// A conversation with one peer over every network that both have: messages in both directions.
///
/// It outlives every network: while none works it is parked, and what is sent waits. A cheap handle: clones mean the
/// same conversation. Dropping the last one (unread [`Message`]s and unfinished [`MessageWriter`]s count) closes it in the
/// background as [`close`](Self::close) does.
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
        let scope = Some((self.session_id(), self.peer()));
        self.shared().hub.subscribe(scope, self.state().ended().is_some())
    }

    // ----- sending -------------------------------------------------------------------------------------------------

    /// Sends a whole message, of at most [`Config::max_message`](crate::Config::max_message) of the peer (1 MiB).
    ///
    /// Returns once the message is in the send buffer, and waits only while that is full: this is the back-pressure.
    /// Then it goes out over whatever networks its labels allow, now or when there is one; the [`Receipt`] tells.
    ///
    /// Cancel safe: a future that is dropped before it returned has sent nothing.
    pub async fn send(&self, payload: impl Into<Bytes>, labels: Labels) -> Result<Receipt, SendError> {
        self.send_with(payload, labels, OrderRequest::Default).await
    }

    /// Sends as [`send`](Self::send) does, and says what the message has to wait for at the receiver. Cancel safe.
    pub async fn send_with(
        &self,
        payload: impl Into<Bytes>,
        labels: Labels,
        order: OrderRequest,
    ) -> Result<Receipt, SendError> {
        let payload = payload.into();
        self.when_there_is_room(|| self.try_send_with(payload.clone(), labels.clone(), order.clone())).await
    }

    /// Sends if there is room in the send buffer now; [`SendError::Full`] otherwise.
    pub fn try_send(&self, payload: impl Into<Bytes>, labels: Labels) -> Result<Receipt, SendError> {
        self.try_send_with(payload.into(), labels, OrderRequest::Default)
    }

    fn try_send_with(
        &self,
        payload: Bytes,
        labels: Labels,
        order: OrderRequest,
    ) -> Result<Receipt, SendError> {
        self.call(|inner, now, session| {
            let id = inner.core.send(now, session, labels, order, payload)?;
            Ok(self.state().sent(id))
        })
    }

    /// Begins a streamed message: of any length, sent as it is written and read as it arrives. Waits while the send buffer
    /// is full. Cancel safe: a future that is dropped before it returned has begun nothing.
    pub async fn begin(&self, labels: Labels) -> Result<MessageWriter, SendError> {
        self.begin_with(labels, OrderRequest::Default, None).await
    }

    /// Begins a streamed message as [`begin`](Self::begin) does; says what it has to wait for at the receiver, and its
    /// length in bytes if that is known (writing more, or finishing with less, is then an error).
    pub async fn begin_with(
        &self,
        labels: Labels,
        order: OrderRequest,
        length: Option<u64>,
    ) -> Result<MessageWriter, SendError> {
        let begin = || {
            self.call(|inner, now, session| {
                let id = inner.core.begin(now, session, labels.clone(), order.clone(), length)?;
                Ok(self.state().sent(id))
            })
        };
        let receipt = self.when_there_is_room(begin).await?;
        Ok(MessageWriter::new(self.clone(), receipt))
    }

    pub(crate) async fn when_there_is_room<R>(
        &self,
        mut attempt: impl FnMut() -> Result<R, SendError>,
    ) -> Result<R, SendError> {
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
    pub fn relabel(&self, id: MessageId, labels: Labels) -> Result<(), SendError> {
        self.call(|inner, now, session| inner.core.relabel(now, session, id, labels))
    }

    // ----- receiving -----------------------------------------------------------------------------------------------

    /// Takes the next message, foreground first. `None` once the peer has finished and everything was taken.
    ///
    /// Cancel safe: a future that is dropped before it returned has taken nothing.
    pub async fn recv(&self) -> Result<Option<Message>, SessionError> {
        let (shared, state) = (self.shared(), self.state());
        loop {
            let arrived = {
                let mut readable = pin!(state.readable.notified());
                // Enlisted before looking: a message between the two is not missed.
                readable.as_mut().enable();
                match self.look()? {
                    Look::Message(message) => return Ok(Some(message)),
                    Look::Finished => return Ok(None),
                    Look::Nothing => {}
                }
                match shared.visit(state) {
                    Some(guest) => tokio::select! {
                        biased;
                        // It fails when the runtime ends.
                        arrived = guest.readable() => arrived.is_ok().then_some(guest),
                        () = &mut readable => None,
                    },
                    None => {
                        readable.await;
                        None
                    }
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

    fn look(&self) -> Result<Look, SessionError> {
        match self.take(|inner, now, session| inner.core.recv(now, session)) {
            Ok(Recv::Message(received)) => Ok(Look::Message(Message::new(self, received))),
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
        match error {
            CoreError::NoMessage(id) => SessionError::NoMessage(id),
            CoreError::Ended => match self.state().ended() {
                Some(ended) => ended.into(),
                None => SessionError::Ended { reason: EndReason::Unknown, words: None, common: None },
            },
        }
    }
}

enum Look {
    Message(Message),
    Nothing,
    Finished,
}

impl fmt::Debug for MultiSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MultiSocket({} with {})", self.session_id(), self.peer())
    }
}
