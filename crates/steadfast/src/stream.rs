//! Byte streams over a conversation, for code that wants to read and write as with TCP.
//!
//! A conversation that is given to [`Streams`] carries streams and nothing else: each has labels of its own, and ends,
//! fails and waits by itself.

mod flow;
mod message;
mod mux;

use crate::error::SessionError;
use crate::socket::MultiSocket;
use crate::writer::MessageWriter;
use bytes::Bytes;
use flow::Flow;
use message::{Head, Key};
use mux::{Incoming, Mux};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use steadfast_session::{DropReason, OrderRequest, Patience, SendError, SendOptions};
use steadfast_wire::Labels;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

/// Bytes that one write takes at most.
const PIECE: usize = 64 * 1024;

/// A conversation that carries byte streams, opened by either side.
///
/// Both sides wrap their [`MultiSocket`] in one of these, and then use it for nothing else: it takes all that comes, and
/// what is no stream is passed over. A cheap handle; the conversation closes in the background, as it does without
/// streams, when the last handle and the last [`Stream`] are dropped.
///
/// The streams of a conversation do not wait for each other: foreground goes ahead of background, those of one urgency
/// take turns, and one that nobody reads stops at its own window. A direction may hold 64 KiB unread at first and up to
/// 4 MiB as it is read, all together 32 MiB more than at first. A peer may have 512 streams open here. So an unread
/// conversation takes 64 MiB at most, besides the session's own windows
/// ([`Config::max_sessions`](crate::Config::max_sessions) bounds how many a peer has). Streams whose rules leave them
/// without a network hold what was written to them in the conversation's send buffer
/// ([`Config::send_buffers`](crate::Config::send_buffers)).
///
/// ```
/// use steadfast::{Endpoint, Identity, Labels, Streams};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (ann, bob) = (Identity::generate()?, Identity::generate()?);
/// # let (ann_key, bob_key) = (ann.fingerprint(), bob.fingerprint());
/// # let ann = Endpoint::builder().identity(ann).trust(bob_key).bind().await?;
/// # let bob = Endpoint::builder().identity(bob).trust(ann_key).bind().await?;
/// let to_bob = Streams::new(ann.connect(bob.contact()).await?);
/// let from_ann = Streams::new(bob.accept().await.ok_or("closed")?);
///
/// let mut question = to_bob.open(Labels::foreground()).await?;
/// question.write_all(b"how deep is it?").await?;
/// question.shutdown().await?;
///
/// let mut asked = from_ann.accept().await?.ok_or("finished")?;
/// let mut text = String::new();
/// asked.read_to_string(&mut text).await?;
/// asked.write_all(b"12 m").await?;
/// asked.shutdown().await?;
///
/// let mut answer = String::new();
/// question.read_to_string(&mut answer).await?;
/// assert_eq!((text.as_str(), answer.as_str()), ("how deep is it?", "12 m"));
/// # Ok(())
/// # }
/// ```
///
/// Once the last handle is dropped nobody can accept: what the peer opens then, or has opened in vain, is given up.
#[derive(Clone)]
pub struct Streams {
    accepting: Arc<Accepting>,
    shared: Arc<Shared>,
}

/// Gives up the peer's streams with the last handle.
struct Accepting {
    mux: Arc<Mux>,
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.mux.desert();
    }
}

/// Ends the pump, and so the conversation, with the last handle.
struct Shared {
    mux: Arc<Mux>,
    pump: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Streams {
    /// Carries streams over a conversation from now on.
    pub fn new(socket: MultiSocket) -> Self {
        let mux = Arc::new(Mux::new(socket));
        let pump = mux.socket.shared().spawn_freely(mux::run(Arc::clone(&mux)));
        let accepting = Arc::new(Accepting { mux: Arc::clone(&mux) });
        Self { accepting, shared: Arc::new(Shared { mux, pump }) }
    }

    /// The conversation: for its events, and to close it. Nothing else is to be sent or received on it.
    pub fn socket(&self) -> &MultiSocket {
        &self.shared.mux.socket
    }

    /// Opens a stream. Both of its directions have these labels: its bytes, their resends and what steers them go over no
    /// network that the rule prohibits.
    ///
    /// Does not wait for the peer, which may refuse: that is told by the first read or write. Waits while the send buffer
    /// is full. Cancel safe: a future that is dropped before it returned has opened nothing.
    pub async fn open(&self, labels: Labels) -> Result<Stream, SendError> {
        let mux = &self.shared.mux;
        let writer = mux.socket.begin_with(labels.clone(), OrderRequest::Unordered, None).await?;
        let (key, flow) = mux.opened(writer.id().0);
        mux.watch(&flow, writer.receipt().clone());
        let stream = Stream::new(&self.shared, key, flow, labels, Writing::Open(writer));
        // Whoever accepts sees nothing of the stream before its head.
        if let Writing::Open(writer) = &stream.write.writing {
            mux.socket.when_there_is_room(|| writer.try_write(Head::Open.encode())).await?;
        }
        Ok(stream)
    }

    /// Waits for the next stream that the peer opens; `None` once it opens no more. Cancel safe: no stream is lost.
    pub async fn accept(&self) -> Result<Option<Stream>, SessionError> {
        let Some(Incoming { key, labels, flow }) = self.accepting.mux.accept().await? else {
            return Ok(None);
        };
        Ok(Some(Stream::new(&self.shared, key, flow, labels, Writing::Answer)))
    }
}

/// One byte stream within a conversation, in both directions.
///
/// Reading and writing are those of [`AsyncRead`] and [`AsyncWrite`], and cancel safe in the same way. What was written
/// is on its way: flushing does nothing, and the loss of a network is not noticed. `shutdown` ends the direction that is
/// written; the other goes on (half-close). Dropping a half before its end is a reset: the peer reads an error instead
/// of an end, or fails to write.
///
/// Errors carry a [`StreamError`] that says why: `ConnectionReset` if the peer gave the stream up, `BrokenPipe` if it
/// reads no more, `ConnectionAborted` if the conversation ended, `ConnectionRefused` if the peer has too many streams,
/// `TimedOut` if one of its directions was without a network for longer than the failure timeout of its labels allows on
/// this side ([`MultiSocket::set_failure_timeout`]): then neither goes on.
#[derive(Debug)]
pub struct Stream {
    read: StreamReader,
    write: StreamWriter,
}

/// The half of a [`Stream`] that is read.
pub struct StreamReader {
    shared: Arc<Shared>,
    key: Key,
    flow: Arc<Flow>,
    labels: Labels,
}

/// The half of a [`Stream`] that is written.
pub struct StreamWriter {
    shared: Arc<Shared>,
    key: Key,
    flow: Arc<Flow>,
    labels: Labels,
    writing: Writing,
    written: u64,
}

/// The message that a direction is written in.
enum Writing {
    /// Accepted, and nothing was written.
    Answer,
    /// Begun, and its head waits for room.
    Head(MessageWriter),
    Open(MessageWriter),
    Over,
}

/// Why a stream does not go on: the source of the [`io::Error`] that reading or writing gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer gave the stream up, or died.
    #[error("the other side gave the stream up before its end: what was read is not the whole")]
    Reset,
    /// The peer reads no more.
    #[error("the other side reads no more of the stream")]
    Refused,
    /// What was written is surely not delivered.
    #[error("the stream was dropped, open a new one: {0}")]
    Dropped(DropReason),
    /// The peer has as many streams open as it takes.
    #[error("the other side takes no more streams: close some, or try later")]
    TooMany,
    /// The conversation ended.
    #[error(transparent)]
    Ended(#[from] SessionError),
    /// Nothing can be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// It was shut down on this side.
    #[error("the stream was shut down on this side: nothing can be written after that")]
    Shut,
    /// The peer sent more than it may.
    #[error("the other side sent more than it was allowed to; check that both sides have the same version")]
    Violation,
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Dropped(DropReason::NoNetwork) | StreamError::Send(SendError::NoNetwork { .. }) => {
                io::ErrorKind::TimedOut
            }
            StreamError::Reset | StreamError::Dropped(_) => io::ErrorKind::ConnectionReset,
            StreamError::Refused | StreamError::Shut => io::ErrorKind::BrokenPipe,
            StreamError::TooMany => io::ErrorKind::ConnectionRefused,
            StreamError::Ended(_) | StreamError::Send(_) => io::ErrorKind::ConnectionAborted,
            StreamError::Violation => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

impl Stream {
    fn new(shared: &Arc<Shared>, key: Key, flow: Arc<Flow>, labels: Labels, writing: Writing) -> Self {
        let read =
            StreamReader { shared: Arc::clone(shared), key, flow: Arc::clone(&flow), labels: labels.clone() };
        let write = StreamWriter { shared: Arc::clone(shared), key, flow, labels, writing, written: 0 };
        Self { read, write }
    }

    /// The labels that it was opened with.
    pub fn labels(&self) -> &Labels {
        &self.read.labels
    }

    /// Its halves, for two tasks. Dropping one of them does not end the other.
    pub fn into_split(self) -> (StreamReader, StreamWriter) {
        (self.read, self.write)
    }
}

impl StreamReader {
    /// The labels that the stream was opened with.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Waits until it is known that no end will be read: the peer gave this direction up, or the conversation ended first.
    ///
    /// It tells who is busy with what was read before, and may come while bytes are unread. A direction that ends in order
    /// keeps it waiting for ever, as dropping this half does. Cancel safe.
    pub fn broken(&self) -> impl Future<Output = StreamError> + Send + use<> {
        let flow = Arc::clone(&self.flow);
        async move { flow.reading_broke().await }
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let taken = ready!(self.flow.poll_read(cx, buffer))?;
        self.shared.mux.taken(self.key, &self.flow, &self.labels, taken);
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.flow.close();
        self.shared.mux.dropped(self.key, &self.flow);
    }
}

impl StreamWriter {
    /// The labels that the stream was opened with.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Waits until it is known that nothing more can be written: the peer reads no more, or the conversation ended.
    ///
    /// It tells who has nothing to write now. A direction whose end the peer takes keeps it waiting for ever, as dropping
    /// this half does. Cancel safe.
    pub fn broken(&self) -> impl Future<Output = StreamError> + Send + use<> {
        let flow = Arc::clone(&self.flow);
        async move { flow.writing_broke().await }
    }

    /// Begins the answering direction if that was not done. `Full` where it has to wait.
    fn begin(&mut self) -> Result<&mut MessageWriter, SendError> {
        if matches!(self.writing, Writing::Answer) {
            let mux = &self.shared.mux;
            // Writing cannot wait for a network: if there is none for too long, that is told later.
            let options = SendOptions::new().unordered().patience(Patience::Accepted);
            let writer = mux.socket.try_begin(self.labels.clone(), options, None)?;
            mux.watch(&self.flow, writer.receipt().clone());
            self.writing = Writing::Head(writer);
        }
        if let Writing::Head(writer) = &self.writing {
            writer.try_write(Head::Answer(self.key.id).encode())?;
        }
        match std::mem::replace(&mut self.writing, Writing::Over) {
            Writing::Head(writer) | Writing::Open(writer) => self.writing = Writing::Open(writer),
            other => self.writing = other,
        }
        match &mut self.writing {
            Writing::Open(writer) => Ok(writer),
            _ => Err(SendError::Shut),
        }
    }

    /// What a refused call means for the stream; `None` if it has to wait.
    fn explain(&self, error: SendError) -> Option<StreamError> {
        match error {
            SendError::Full(_) => None,
            SendError::NotOpen(_) => Some(match &self.writing {
                Writing::Head(writer) | Writing::Open(writer) if writer.found_no_network() => {
                    StreamError::Dropped(DropReason::NoNetwork)
                }
                // Why is told by the outcome, which may come a moment later.
                _ => StreamError::Refused,
            }),
            SendError::Ended => {
                let ended = self.shared.mux.socket.state().ended();
                Some(ended.map_or(StreamError::Send(error), |ended| StreamError::Ended(ended.into())))
            }
            other => Some(StreamError::Send(other)),
        }
    }

    fn poll_call<R>(
        &mut self,
        call: impl FnOnce(&mut MessageWriter) -> Result<R, SendError>,
    ) -> Poll<io::Result<R>> {
        match self.begin().and_then(call) {
            Ok(result) => Poll::Ready(Ok(result)),
            Err(error) => match self.explain(error) {
                Some(error) => Poll::Ready(Err(error.into())),
                None => Poll::Pending,
            },
        }
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if matches!(this.writing, Writing::Over) {
            return Poll::Ready(Err(StreamError::Shut.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(this.flow.poll_room(cx, this.written))?;
        let length = bytes.len().min(PIECE).min(room as usize);
        ready!(this.poll_call(|writer| writer.try_write(Bytes::copy_from_slice(&bytes[..length]))))?;
        this.written += length as u64;
        this.flow.wrote(this.written);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.writing, Writing::Over) {
            return Poll::Ready(Ok(()));
        }
        // An end needs no credit, but a head may have to wait for room.
        if let Poll::Ready(Err(error)) = this.flow.poll_room(cx, this.written) {
            return Poll::Ready(Err(error.into()));
        }
        ready!(this.poll_call(MessageWriter::end))?;
        this.writing = Writing::Over;
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        let over = matches!(std::mem::replace(&mut self.writing, Writing::Over), Writing::Over);
        let mux = &self.shared.mux;
        // Cancelling what the peer has not heard of would tell it nothing, and it waits for an answer.
        if !over && !self.key.ours {
            mux.reset(self.key, &self.labels);
        }
        mux.dropped(self.key, &self.flow);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().read).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().write).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().write).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().write).poll_shutdown(cx)
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Streams({:?})", self.socket())
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamReader({} of {:?})", self.key.id, self.shared.mux.socket)
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamWriter({} of {:?})", self.key.id, self.shared.mux.socket)
    }
}
