//! Writing a streamed message.

use crate::receipt::Receipt;
use crate::socket::MultiSocket;
use bytes::Bytes;
use std::fmt;
use steadfast_session::{DropReason, Outcome, SendError};
use steadfast_wire::MessageId;

/// A streamed message that is being written. Dropping it unfinished cancels the message.
pub struct MessageWriter {
    socket: MultiSocket,
    receipt: Receipt,
    finished: bool,
}

impl MessageWriter {
    pub(crate) fn new(socket: MultiSocket, receipt: Receipt) -> Self {
        Self { socket, receipt, finished: false }
    }

    /// The message's id in this direction of its conversation.
    pub fn id(&self) -> MessageId {
        self.receipt.id()
    }

    /// Whether it was given up because there was no network for too long.
    pub(crate) fn found_no_network(&self) -> bool {
        let no_network = DropReason::NoNetwork;
        matches!(self.receipt.try_concluded(), Some(Err(why) | Ok(Outcome::Dropped(why))) if why == no_network)
    }

    pub(crate) fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// Appends bytes, all of them or none; waits while the send buffer is full, as it is for as long as the reader is
    /// slow. Pieces of up to some 100 KiB keep it flowing.
    ///
    /// Cancel safe: a future that is dropped before it returned has appended nothing.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), SendError> {
        let bytes = bytes.into();
        self.socket.when_there_is_room(|| self.try_write(bytes.clone())).await
    }

    /// Appends bytes if there is room in the send buffer now; [`SendError::Full`] otherwise.
    pub(crate) fn try_write(&self, bytes: Bytes) -> Result<(), SendError> {
        let id = self.id();
        self.socket.call(|inner, now, session| inner.core.write(now, session, id, bytes))
    }

    /// Ends the message: the receiver sees that it is whole. Does not wait.
    #[expect(clippy::unused_async, reason = "a store may have to be waited for in durable conversations")]
    pub async fn finish(mut self) -> Result<Receipt, SendError> {
        self.end()?;
        Ok(self.receipt.clone())
    }

    /// Ends the message now.
    pub(crate) fn end(&mut self) -> Result<(), SendError> {
        let id = self.id();
        self.socket.call(|inner, now, session| inner.core.finish_message(now, session, id))?;
        self.finished = true;
        Ok(())
    }

    /// Gives the message up; the returned receipt tells that it was dropped.
    pub fn cancel(self) -> Receipt {
        self.receipt.clone()
    }
}

impl Drop for MessageWriter {
    fn drop(&mut self) {
        if !self.finished {
            // An error means that it has its outcome already.
            let _over = self.socket.cancel(self.id());
        }
    }
}

impl fmt::Debug for MessageWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageWriter({} of {:?})", self.id(), self.socket)
    }
}
