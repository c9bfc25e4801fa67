//! The bytes of a request or a response: there, arriving, or being made.

use super::error::BodyError;
use super::say::{SayError, Upload};
use crate::message::Message;
use bytes::{Bytes, BytesMut};
use std::fmt::{self, Display};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// What [`Body::into_bytes`] holds at most, in bytes.
const INTO_BYTES_LIMIT: usize = 64 * 1024 * 1024;

type Producer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// The bytes of a request or a response, of any length.
///
/// Whoever makes one gives bytes, or makes them as they are wanted with [`streamed`](Self::streamed); whoever gets one
/// reads it as it arrives. Dropping what was received before its end tells the other side that the rest is not wanted.
/// One that was received may be given on as it is: it is passed on as it arrives.
pub struct Body {
    content: Content,
}

enum Content {
    Whole(Bytes),
    Arriving {
        first: Bytes,
        message: Message,
        /// What is still to be sent of the request that this answers.
        upload: Option<Upload>,
    },
    Made {
        chunks: mpsc::Receiver<Bytes>,
        producer: Option<Producer>,
    },
    Over,
}

impl Body {
    /// No bytes.
    pub const fn empty() -> Self {
        Self { content: Content::Whole(Bytes::new()) }
    }

    /// Bytes that are made while they are sent: `make` gets the writer to put them into and runs until it returns, at the
    /// pace at which the other side reads. It is dropped when the call is over first. If it fails, the other side
    /// learns that the body is not whole.
    ///
    /// ```
    /// use steadfast::rpc::{Body, BodyError};
    /// let body = Body::streamed(|mut writer| async move {
    ///     for piece in 0..1000_u32 {
    ///         writer.write(vec![piece as u8; 60_000]).await?;
    ///     }
    ///     Ok::<_, BodyError>(())
    /// });
    /// ```
    pub fn streamed<F, E>(make: impl FnOnce(BodyWriter) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        // One piece waits while the next is made.
        let (sender, chunks) = mpsc::channel(1);
        let made = make(BodyWriter { sender });
        let producer: Producer = Box::pin(async move { made.await.map_err(|error| error.to_string()) });
        Self { content: Content::Made { chunks, producer: Some(producer) } }
    }

    pub(super) fn arriving(first: Bytes, message: Message) -> Self {
        Self { content: Content::Arriving { first, message, upload: None } }
    }

    /// Sends the rest of a request while this, which answers it, is read. Whoever answers whole wants no more.
    pub(super) fn beside(&mut self, rest: Upload) {
        if let Content::Arriving { upload, .. } = &mut self.content {
            *upload = Some(rest);
        }
    }

    /// All bytes, if they are here; `None` for a body that is arriving or being made, and after it was read.
    pub fn whole(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Whole(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Takes all bytes out, if they are here.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.content {
            Content::Whole(bytes) => Some(std::mem::take(bytes)),
            Content::Over => Some(Bytes::new()),
            _ => None,
        }
    }

    /// The next bytes, in order; `None` after the last. Never empty.
    ///
    /// Cancel safe: a future that is dropped before it returned has taken nothing.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        let next = match &mut self.content {
            Content::Whole(bytes) => Ok(Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty())),
            Content::Arriving { first, .. } if !first.is_empty() => Ok(Some(std::mem::take(first))),
            Content::Arriving { message, upload, .. } => read_beside(message, upload).await,
            Content::Made { chunks, producer } => {
                poll_fn(|context| poll_made(chunks, producer, context)).await
            }
            Content::Over => Ok(None),
        };
        if !matches!(next, Ok(Some(_)) | Err(_)) {
            self.content = Content::Over;
        }
        next
    }

    /// All bytes, at most 64 MiB; see [`into_bytes_within`](Self::into_bytes_within).
    pub async fn into_bytes(self) -> Result<Bytes, BodyError> {
        self.into_bytes_within(INTO_BYTES_LIMIT).await
    }

    /// All bytes if they are at most `limit`; the rest of more is refused with [`BodyError::TooLong`].
    ///
    /// Not cancel safe: what was read is lost, and the rest refused.
    pub async fn into_bytes_within(mut self, limit: usize) -> Result<Bytes, BodyError> {
        let mut all = self.read_chunk().await?.unwrap_or_default();
        if all.len() > limit {
            return Err(BodyError::TooLong { limit });
        }
        let mut more = BytesMut::new();
        while let Some(chunk) = self.read_chunk().await? {
            if more.is_empty() {
                more.extend_from_slice(&std::mem::take(&mut all));
            }
            if more.len() + chunk.len() > limit {
                return Err(BodyError::TooLong { limit });
            }
            more.extend_from_slice(&chunk);
        }
        Ok(if more.is_empty() { all } else { more.freeze() })
    }
}

async fn read_beside(message: &mut Message, upload: &mut Option<Upload>) -> Result<Option<Bytes>, BodyError> {
    loop {
        let Some(rest) = upload else { return Ok(message.read_chunk().await?) };
        tokio::select! {
            biased;
            chunk = message.read_chunk() => return Ok(chunk?),
            sent = rest => {
                *upload = None;
                // If the other side does without the rest, what it answers says why.
                if let Err(SayError::Body(error)) = sent {
                    return Err(error);
                }
            }
        }
    }
}

fn poll_made(
    chunks: &mut mpsc::Receiver<Bytes>,
    producer: &mut Option<Producer>,
    context: &mut Context<'_>,
) -> Poll<Result<Option<Bytes>, BodyError>> {
    if let Some(running) = producer
        && let Poll::Ready(made) = running.as_mut().poll(context)
    {
        *producer = None;
        if let Err(words) = made {
            chunks.close();
            return Poll::Ready(Err(BodyError::Failed(words)));
        }
    }
    match chunks.poll_recv(context) {
        Poll::Ready(Some(chunk)) => Poll::Ready(Ok(Some(chunk))),
        // Its writer is gone: what is left to do adds nothing, but may still fail.
        Poll::Ready(None) if producer.is_none() => Poll::Ready(Ok(None)),
        _ => Poll::Pending,
    }
}

/// Puts bytes into a body that is being made; see [`Body::streamed`].
#[derive(Debug)]
pub struct BodyWriter {
    sender: mpsc::Sender<Bytes>,
}

impl BodyWriter {
    /// Appends bytes; waits while the other side is slow. Pieces of some 10 to 100 KiB keep it flowing.
    ///
    /// Cancel safe: a future that is dropped before it returned has appended nothing.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), BodyError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Ok(());
        }
        self.sender.send(bytes).await.map_err(|_| BodyError::Unwanted)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { content: Content::Whole(bytes) }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Whole(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Content::Arriving { .. } => f.write_str("Body(arriving)"),
            Content::Made { .. } => f.write_str("Body(being made)"),
            Content::Over => f.write_str("Body(read)"),
        }
    }
}
