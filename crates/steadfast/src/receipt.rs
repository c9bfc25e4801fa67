//! What became of a message that was sent.

use crate::lock;
use crate::store::{Journal, StoredError};
use std::fmt;
use std::future::Future;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use steadfast_session::{DropReason, Outcome};
use steadfast_wire::MessageId;
use tokio::sync::Notify;

/// The sender's proof of what became of one message.
///
/// Dropping it costs nothing and changes nothing: the message goes its way all the same.
#[derive(Clone)]
pub struct Receipt {
    id: MessageId,
    cell: Arc<Cell>,
    /// The store, and the record that the message has there, or a later one.
    journal: Option<(Arc<Journal>, u64)>,
}

#[derive(Debug, Default)]
pub(crate) struct Cell {
    progress: Mutex<Progress>,
    changed: Notify,
}

#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    acked: bool,
    /// This side waits no longer; what the receiver says comes when it can be asked.
    given_up: Option<DropReason>,
    outcome: Option<Outcome>,
}

impl Progress {
    fn concluded(self) -> Option<Result<Outcome, DropReason>> {
        self.outcome.map(Ok).or(self.given_up.map(Err))
    }
}

impl Cell {
    pub(crate) fn set_acked(&self) {
        lock(&self.progress).acked = true;
    }

    pub(crate) fn set_given_up(&self, reason: DropReason) {
        lock(&self.progress).given_up = Some(reason);
    }

    /// The first outcome stays.
    pub(crate) fn set_outcome(&self, outcome: Outcome) {
        lock(&self.progress).outcome.get_or_insert(outcome);
    }

    pub(crate) fn wake(&self) {
        self.changed.notify_waiters();
    }

    async fn wait<R>(&self, mut look: impl FnMut(Progress) -> Option<R>) -> R {
        wait_until(&self.changed, || look(*lock(&self.progress))).await
    }
}

/// Waits until `look` finds something; `changed` is notified after every change.
pub(crate) async fn wait_until<R>(changed: &Notify, mut look: impl FnMut() -> Option<R>) -> R {
    let mut notified = pin!(changed.notified());
    loop {
        // Enlisted before looking: a change between the two is not missed.
        notified.as_mut().enable();
        if let Some(found) = look() {
            return found;
        }
        poll_fn(|context| notified.as_mut().poll(context)).await;
        notified.set(changed.notified());
    }
}

impl Receipt {
    pub(crate) fn new(id: MessageId, cell: Arc<Cell>) -> Self {
        Self { id, cell, journal: None }
    }

    /// Says where the message is stored, once its record is in the queue.
    #[must_use]
    pub(crate) fn kept(mut self, journal: Option<&Arc<Journal>>) -> Self {
        self.journal = journal.map(|journal| (Arc::clone(journal), journal.queued()));
        self
    }

    /// Waits until this side's [store](crate::Builder::store) has the message on its disk. From then on it arrives, once, even if this
    /// process is killed or the power goes, and nobody sends it again: the endpoint that opens the store next does.
    ///
    /// Fails with [`StoredError::NoStore`] where there is none. Cancel safe.
    pub async fn stored(&self) -> Result<(), StoredError> {
        let (journal, number) = self.journal.as_ref().ok_or(StoredError::NoStore)?;
        journal.stored(*number).await
    }

    /// The message's id in this direction of its conversation: for [`cancel`](crate::MultiSocket::cancel),
    /// [`relabel`](crate::MultiSocket::relabel) and [`OrderRequest::After`](crate::OrderRequest::After).
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Waits until the peer's library has the whole message. From then on it survives the loss of every network.
    ///
    /// Fails with the message's outcome if that is known first and is not [`Outcome::Delivered`]. Cancel safe.
    pub async fn acked(&self) -> Result<(), Outcome> {
        self.cell
            .wait(|progress| match progress.outcome {
                Some(Outcome::Delivered) => Some(Ok(())),
                Some(other) => Some(Err(other)),
                None => progress.acked.then_some(Ok(())),
            })
            .await
    }

    /// Waits for the outcome: the peer's application took the message, it was surely dropped, or, only if the
    /// conversation ended first, it is unknown. Each message has exactly one. Cancel safe.
    pub async fn outcome(&self) -> Outcome {
        self.cell.wait(|progress| progress.outcome).await
    }

    /// Waits until this side is done with the message: for its outcome, or, as `Err`, until it was given up (its time was over,
    /// or there was no network for as long as its labels' failure timeout says) while part of it may be at the peer.
    ///
    /// In that case nobody can say yet whether it was delivered, and [`outcome`](Self::outcome) goes on waiting until the
    /// peer can be asked. Whoever has to act by then acts on this. Cancel safe.
    pub async fn concluded(&self) -> Result<Outcome, DropReason> {
        self.cell.wait(Progress::concluded).await
    }

    /// What [`concluded`](Self::concluded) waits for, if it is known by now.
    pub fn try_concluded(&self) -> Option<Result<Outcome, DropReason>> {
        lock(&self.cell.progress).concluded()
    }

    /// The outcome, if it is known by now.
    pub fn try_outcome(&self) -> Option<Outcome> {
        lock(&self.cell.progress).outcome
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receipt({}, {:?})", self.id, *lock(&self.cell.progress))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_given_up_is_told_before_its_outcome() {
        let cell = Arc::new(Cell::default());
        let receipt = Receipt::new(MessageId(1), Arc::clone(&cell));
        let waits = tokio::spawn({
            let receipt = receipt.clone();
            async move { receipt.concluded().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(receipt.try_concluded(), None);
        cell.set_given_up(DropReason::NoNetwork);
        cell.wake();
        assert_eq!(waits.await.unwrap(), Err(DropReason::NoNetwork));
        assert_eq!(receipt.try_outcome(), None, "only the peer knows");
        // It had arrived.
        cell.set_outcome(Outcome::Delivered);
        assert_eq!(receipt.concluded().await, Ok(Outcome::Delivered));
    }
}
