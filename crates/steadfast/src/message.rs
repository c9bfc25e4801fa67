//! A message that was received, whole or still arriving.

use crate::error::ReadError;
use crate::receipt::wait_until;
use crate::socket::MultiSocket;
use bytes::{Bytes, BytesMut};
use std::fmt;
use steadfast_session::{Read, Received};
use steadfast_wire::{Labels, MessageId};

/// What [`Message::into_bytes`] holds at most, in bytes.
const INTO_BYTES_LIMIT: usize = 64 * 1024 * 1024;

/// A message from the peer. A streamed one is read as it arrives; dropping it unread refuses its rest.
#[non_exhaustive]
pub struct Message {
    /// Its id in the peer's direction.
    pub id: MessageId,
    /// The sender's labels.
    pub labels: Labels,
    length: Option<u64>,
    body: Body,
}

enum Body {
    Whole(Bytes),
    Streamed(Reader),
    Taken,
}

/// Refuses the rest when it is dropped before the end.
struct Reader {
    socket: MultiSocket,
    id: MessageId,
    over: bool,
}

impl Message {
    pub(crate) fn new(socket: &MultiSocket, received: Received) -> Self {
        let Received { id, labels, payload, length } = received;
        let body = match payload {
            Some(bytes) => Body::Whole(bytes),
            None => Body::Streamed(Reader { socket: socket.clone(), id, over: false }),
        };
        Self { id, labels, length, body }
    }

    /// The whole payload; `None` for a streamed message, and after it was taken.
    pub fn payload(&self) -> Option<&Bytes> {
        match &self.body {
            Body::Whole(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Whether it is read as it arrives.
    pub fn is_streamed(&self) -> bool {
        matches!(self.body, Body::Streamed(_))
    }

    /// The whole length in bytes, if the sender said it.
    pub fn len_hint(&self) -> Option<u64> {
        self.length
    }

    /// All bytes, of a whole or a streamed message, at most 64 MiB; see [`into_bytes_within`](Self::into_bytes_within).
    pub async fn into_bytes(self) -> Result<Bytes, ReadError> {
        self.into_bytes_within(INTO_BYTES_LIMIT).await
    }

    /// All bytes if they are at most `limit`; more of a streamed message is refused with [`ReadError::TooLong`].
    ///
    /// Not cancel safe: what was read of a streamed message is lost, and its rest refused.
    pub async fn into_bytes_within(mut self, limit: usize) -> Result<Bytes, ReadError> {
        if self.length.is_some_and(|length| length > limit as u64) {
            return Err(ReadError::TooLong { limit });
        }
        let mut all = BytesMut::new();
        while let Some(chunk) = self.read_chunk().await? {
            if all.is_empty() && !self.is_streamed() {
                return Ok(chunk);
            }
            if all.len() + chunk.len() > limit {
                return Err(ReadError::TooLong { limit });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// The next bytes, in order; `None` after the last: then the message is complete, and delivered. A whole message is
    /// one chunk.
    ///
    /// Cancel safe: a future that is dropped before it returned has taken nothing.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        match &mut self.body {
            Body::Streamed(reader) => reader.read().await,
            body @ Body::Whole(_) => match std::mem::replace(body, Body::Taken) {
                Body::Whole(bytes) => Ok(Some(bytes)),
                _ => Ok(None),
            },
            Body::Taken => Ok(None),
        }
    }

    /// What [`read_chunk`](Self::read_chunk) of a streamed message would return at once; `None` if it would wait.
    pub(crate) fn try_read_chunk(&mut self) -> Option<Result<Option<Bytes>, ReadError>> {
        match &mut self.body {
            Body::Streamed(reader) => reader.try_read(),
            _ => Some(Ok(None)),
        }
    }
}

impl Reader {
    async fn read(&mut self) -> Result<Option<Bytes>, ReadError> {
        let socket = self.socket.clone();
        wait_until(&socket.state().readable, || self.try_read()).await
    }

    /// `None` while there is nothing.
    fn try_read(&mut self) -> Option<Result<Option<Bytes>, ReadError>> {
        if self.over {
            return Some(Ok(None));
        }
        let (socket, id) = (&self.socket, self.id);
        Some(match socket.take(|inner, now, session| inner.core.read(now, session, id)) {
            Ok(Read::Pending) => return None,
            Ok(Read::Chunk(bytes)) => Ok(Some(bytes)),
            Ok(Read::End) => {
                self.over = true;
                Ok(None)
            }
            Ok(_) => Err(ReadError::Dropped),
            Err(error) => Err(ReadError::Session(socket.explain(error))),
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.over {
            let id = self.id;
            // An error means that the conversation has ended.
            let _over = self.socket.call(|inner, now, session| inner.core.refuse(now, session, id));
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("Message");
        all.field("id", &self.id).field("labels", &self.labels);
        match &self.body {
            Body::Whole(bytes) => all.field("bytes", &bytes.len()),
            Body::Streamed(_) => all.field("streamed", &self.length),
            Body::Taken => all.field("taken", &true),
        };
        all.finish()
    }
}
