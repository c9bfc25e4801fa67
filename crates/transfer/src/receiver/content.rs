//! The content of one file, from the conversation to the disk.
//!
//! The task takes what comes and counts it; a thread writes and hashes. Between them wait a few chunks.

use crate::digest::{Digest, Work};
use crate::message::take_data_head;
use crate::progress::Monitor;
use crate::store::{Fault, Found, Goal, Store, Verified};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use steadfast::{Message, ReadError, SessionError};
use tokio::sync::mpsc;

/// Chunks that wait between the conversation and the disk; each is at most 256 KiB.
const WAITING: usize = 16;

/// A head is at most this long.
const MAX_HEAD: usize = 17;

/// A message with content of which the head is known.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) entry: u64,
    pub(crate) offset: u64,
    message: Message,
    /// What came with the head.
    rest: Bytes,
    /// Bytes of content and checksum that the sender announced.
    announced: Option<u64>,
}

/// What came of a content.
#[derive(Debug)]
pub(crate) enum Taken {
    /// All of it, and right.
    Verified(Verified),
    /// All of it, and something else than what was sent.
    Mismatch,
    /// The sender gave it up.
    Dropped,
    /// It cannot be kept.
    Fault(Fault),
    /// The conversation ended.
    Lost(SessionError),
    /// More or less came than was offered.
    Lie,
}

impl Incoming {
    /// Reads the head; `None` if the sender gave the message up, or if it is none.
    pub(crate) async fn read(mut message: Message) -> Result<Option<Self>, ReadError> {
        let (length, mut start) = (message.len_hint(), BytesMut::new());
        let length = length.or(message.payload().map(|bytes| bytes.len() as u64));
        loop {
            let chunk = match message.read_chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) | Err(ReadError::Dropped) => return Ok(None),
                Err(error) => return Err(error),
            };
            start.extend_from_slice(&chunk);
            let whole = start.len() as u64;
            if let Some((entry, offset)) = take_data_head(&mut start) {
                let announced = length.map(|length| length.saturating_sub(whole - start.len() as u64));
                return Ok(Some(Self { entry, offset, message, rest: start.freeze(), announced }));
            }
            if start.len() >= MAX_HEAD {
                return Ok(None);
            }
        }
    }

    /// Whether the sender announced just what this file still needs.
    pub(crate) fn fits(&self, goal: &Goal) -> bool {
        let wanted = goal.size.checked_sub(self.offset).map(|bytes| bytes + Digest::LENGTH as u64);
        wanted.is_some() && self.announced == wanted
    }

    /// Takes all that comes. Cancelling it refuses the rest; what came stays.
    pub(crate) async fn take(
        self,
        store: Arc<Store>,
        goal: Goal,
        found: Found,
        monitor: &Monitor,
        taken: &Work,
    ) -> Taken {
        let Self { mut message, mut rest, offset, .. } = self;
        let mut left = goal.size - offset;
        let (chunks, waiting) = mpsc::channel(WAITING);
        let writing = tokio::task::spawn_blocking(move || write(&store, goal, found, waiting));
        let mut digest = BytesMut::with_capacity(Digest::LENGTH);
        let read = loop {
            let content = rest.split_to(rest.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            left -= content.len() as u64;
            if !content.is_empty() {
                let count = content.len();
                if chunks.send(Chunk::Content(content)).await.is_err() {
                    // The thread says why.
                    break Taken::Dropped;
                }
                monitor.moved(count as u64);
                taken.note(count);
            }
            digest.extend_from_slice(&rest);
            if digest.len() > Digest::LENGTH {
                break Taken::Lie;
            }
            rest = match message.read_chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => match <[u8; Digest::LENGTH]>::try_from(&digest[..]) {
                    Ok(all) if left == 0 => {
                        let _failed = chunks.send(Chunk::End(Digest(all))).await;
                        break Taken::Mismatch;
                    }
                    _ => break Taken::Lie,
                },
                Err(ReadError::Session(error)) => break Taken::Lost(error),
                Err(_) => break Taken::Dropped,
            };
        };
        drop(chunks);
        match (writing.await, read) {
            (Ok(Err(fault)), _) => Taken::Fault(fault),
            (Ok(Ok(Some(verified))), Taken::Mismatch) => Taken::Verified(verified),
            (_, read) => read,
        }
    }
}

enum Chunk {
    Content(Bytes),
    End(Digest),
}

/// The thread; `None` if it did not come to its end, or to another one.
fn write(
    store: &Store,
    goal: Goal,
    found: Found,
    mut chunks: mpsc::Receiver<Chunk>,
) -> Result<Option<Verified>, Fault> {
    let mut partial = store.append(&goal, found)?;
    while let Some(chunk) = chunks.blocking_recv() {
        match chunk {
            Chunk::Content(bytes) => partial.write(&bytes)?,
            Chunk::End(digest) => return Ok(partial.verify(goal, digest)),
        }
    }
    Ok(None)
}
