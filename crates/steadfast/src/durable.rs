//! Conversations that are kept on a disk: what comes back, messages that the application acknowledges, stopping without an end.

use crate::driver::Command;
use crate::endpoint::Endpoint;
use crate::error::SessionError;
use crate::lock;
use crate::message::Message;
use crate::receipt::Receipt;
use crate::socket::MultiSocket;
use crate::store::{Journal, StoreWritten, StoredError};
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use steadfast_wire::{Labels, MessageId};
use tokio::sync::oneshot;

impl Endpoint {
    /// The conversations that the [store](crate::Builder::store) brought back, in no order, those among them that a peer opened
    /// and nobody accepted; each is given once, and again when all its handles were dropped. They go on as
    /// soon as either side reaches the other, whether or not they were taken here; whom to trust the builder has to be told
    /// again, unless it is in a trust file.
    ///
    /// Of what was said before the last process ended, messages without an outcome go on, [`MultiSocket::unsettled`] has their
    /// receipts; streamed ones do not survive their sender. Limits, failure timeouts and the like are to be set again.
    pub fn restored(&self) -> Vec<MultiSocket> {
        let states = std::mem::take(&mut *lock(&self.shared().restored));
        let go_on = states.into_iter().filter(|state| state.ended().is_none());
        go_on.map(|state| MultiSocket::new(self.handle(), state)).collect()
    }

    /// Why the store takes nothing at the moment: its disk is full, and is tried again four times a second, or it failed,
    /// and the endpoint has stopped. Meanwhile nothing is sent or acknowledged that a restart would have to know of.
    pub fn store_fault(&self) -> Option<String> {
        self.shared().journal.as_ref().and_then(|journal| journal.fault())
    }

    /// What was written to the store by this endpoint; `None` without one.
    pub fn store_written(&self) -> Option<StoreWritten> {
        self.shared().journal.as_ref().map(|journal| journal.written())
    }

    /// Stops, and ends no conversation: peers are told of a silence of `limit` at most, the store has all that was sent and
    /// acknowledged until here, and everything is closed. An endpoint that opens the store later goes on.
    ///
    /// Without a store it is the same as [`close`](Self::close), for nothing could go on. Cancelling leaves the rest to the
    /// background.
    pub async fn detach(&self, limit: Duration) {
        if self.shared().journal.is_none() {
            return self.close("").await;
        }
        let (done, detached) = oneshot::channel();
        if self.command(Command::Detach(limit, done)) {
            let _closed_already = detached.await;
        }
    }
}

impl MultiSocket {
    /// The receipts of all messages of this side that have no outcome, oldest first: after a restart, of what is still to
    /// come.
    pub fn unsettled(&self) -> Vec<Receipt> {
        let receipts = self.state().open_receipts();
        receipts.into_iter().map(|receipt| receipt.kept(self.shared().journal.as_ref())).collect()
    }

    /// The last message that this side sent in this conversation, by this process or one before it; they are counted from 1.
    /// An application that counts its own messages knows by this, after a restart, which of them the store had.
    pub fn last_sent(&self) -> Option<MessageId> {
        self.peek(|inner, _, session| inner.core.last_sent(session))
    }

    /// Other addresses at which the peer may be: for a conversation that a store brought back, whose peer has moved.
    pub fn add_addresses(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        for address in addresses {
            self.call(|inner, now, _| inner.core.add_address(now, self.peer(), address));
        }
    }

    /// Takes the next message as [`recv`](Self::recv) does, but it counts as delivered only when the application
    /// acknowledges it: until then it is the peer's to keep, and an endpoint that is opened with this side's
    /// [store](crate::Builder::store) after a crash is given it again, under the same id and in the same order.
    ///
    /// An application sees each message once if it keeps the last id beside what it makes of the message, and passes over what
    /// it has. Several may be held at once, within the window (from 2 MiB); what was declared to
    /// wait for a message waits for its acknowledgement. A streamed message cannot be held: it counts as delivered when its end was read.
    ///
    /// Cancel safe: a future that is dropped before it returned has taken nothing.
    pub async fn recv_held(&self) -> Result<Option<Delivery>, SessionError> {
        let message = self.next_message(true).await?;
        Ok(message.map(|message| Delivery { socket: self.clone(), settled: message.is_streamed(), message }))
    }
}

/// A message that waits for the application's acknowledgement. Dropped without one it is given back: the next
/// [`recv_held`](MultiSocket::recv_held) has it again, before what came after it and was not taken.
#[must_use = "a delivery that is dropped is given again"]
pub struct Delivery {
    socket: MultiSocket,
    message: Message,
    settled: bool,
}

impl Delivery {
    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The same, to read a streamed one.
    pub fn message_mut(&mut self) -> &mut Message {
        &mut self.message
    }

    /// Its id in the peer's direction: the same each time that it is given.
    pub fn id(&self) -> MessageId {
        self.message.id
    }

    /// The sender's labels.
    pub fn labels(&self) -> &Labels {
        &self.message.labels
    }

    /// The whole payload; `None` for a streamed message.
    pub fn payload(&self) -> Option<&Bytes> {
        self.message.payload()
    }

    /// The application has done with the message. It is not given again once that is [stored](Acknowledgement::stored), and
    /// only then the peer hears of it.
    pub fn acknowledge(mut self) -> Acknowledgement {
        let (id, streamed) = (self.message.id, self.settled);
        self.settled = true;
        let taken = streamed
            || self.socket.take(|inner, now, session| inner.core.acknowledge(now, session, id)).is_ok();
        let journal = self.socket.shared().journal.clone();
        let number = match &journal {
            // The endpoint stopped before: this is never stored. A conversation that has ended needs nothing stored.
            Some(_) if !taken && self.socket.shared().is_stopped() => u64::MAX,
            Some(journal) => journal.queued(),
            None => 0,
        };
        Acknowledgement { journal, number }
    }

    /// The application does not want the message: its sender learns that it was dropped.
    pub fn refuse(mut self) {
        let id = self.message.id;
        if !std::mem::replace(&mut self.settled, true) {
            let _over = self.socket.call(|inner, now, session| inner.core.refuse(now, session, id));
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let id = self.message.id;
        if !self.settled {
            let _over = self.socket.call(|inner, now, session| inner.core.give_back(now, session, id));
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Delivery").field(&self.message).finish()
    }
}

/// An acknowledgement on its way to the store. Dropping it changes nothing.
#[derive(Debug)]
pub struct Acknowledgement {
    journal: Option<Arc<Journal>>,
    number: u64,
}

impl Acknowledgement {
    /// Waits until the store has it: the message is surely not given again. At once where there is no store. Cancel safe.
    pub async fn stored(&self) -> Result<(), StoredError> {
        match &self.journal {
            Some(journal) => journal.stored(self.number).await,
            None => Ok(()),
        }
    }
}
