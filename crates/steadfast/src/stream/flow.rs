//! One stream as its two halves and the pump see it: what has come, what may go, and how either ended.

use super::StreamError;
use crate::lock;
use crate::receipt::wait_until;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use steadfast_session::{DropReason, Outcome};
use tokio::io::ReadBuf;
use tokio::sync::Notify;

/// What a direction may hold unread when it begins, in bytes.
pub(super) const FIRST_WINDOW: u64 = 64 * 1024;
/// What a window may become.
pub(super) const MAX_WINDOW: u64 = 4 * 1024 * 1024;

/// Chunks that are shorter are copied and joined to blocks of this size: they may be slices of a read buffer of 256 KiB,
/// which would live as long as they, and each chunk costs some bytes of its own.
const BLOCK: usize = 32 * 1024;

#[derive(Debug)]
pub(super) struct Flow {
    inbox: Mutex<Inbox>,
    outbox: Mutex<Outbox>,
    /// A direction has its end.
    over: Notify,
}

#[derive(Debug)]
struct Inbox {
    chunks: VecDeque<Bytes>,
    /// After the chunks: what is joined.
    tail: BytesMut,
    /// After all of that: the end of the stream, or why there is none.
    end: Option<Result<(), StreamError>>,
    waker: Option<Waker>,
    /// A message brings what comes.
    attached: bool,
    /// Nobody reads any more.
    closed: bool,
    window: u64,
    /// Bytes that came, that the reader took, and that the peer may send in all.
    received: u64,
    taken: u64,
    granted: u64,
    /// Bytes taken since the window last grew.
    consumed: u64,
}

#[derive(Debug)]
struct Outbox {
    /// What may be written, and was, from the beginning.
    limit: u64,
    written: u64,
    failed: Option<StreamError>,
    waker: Option<Waker>,
    /// Half of the stream that was dropped first.
    half_gone: bool,
}

/// What is to be done after something was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Taken {
    /// The peer is to be told that it may send more.
    pub(super) grant: bool,
    /// The window might grow by so much.
    pub(super) growth: u64,
}

impl Flow {
    pub(super) fn new() -> Self {
        let inbox = Inbox {
            chunks: VecDeque::new(),
            tail: BytesMut::new(),
            end: None,
            waker: None,
            attached: false,
            closed: false,
            window: FIRST_WINDOW,
            received: 0,
            taken: 0,
            granted: FIRST_WINDOW,
            consumed: 0,
        };
        let outbox = Outbox { limit: FIRST_WINDOW, written: 0, failed: None, waker: None, half_gone: false };
        Self { inbox: Mutex::new(inbox), outbox: Mutex::new(outbox), over: Notify::new() }
    }

    // ----- what comes ----------------------------------------------------------------------------------------------

    /// Puts in what has come; false if nobody wants it, or the peer may not send it.
    pub(super) fn push(&self, bytes: Bytes) -> bool {
        let mut inbox = lock(&self.inbox);
        if inbox.closed || inbox.end.is_some() {
            return false;
        }
        inbox.received = inbox.received.saturating_add(bytes.len() as u64);
        if inbox.received > inbox.granted {
            inbox.end = Some(Err(StreamError::Violation));
        } else if bytes.is_empty() {
            return true;
        } else {
            inbox.keep(bytes);
        }
        let fits = inbox.end.is_none();
        let waker = inbox.waker.take();
        drop(inbox);
        wake(waker);
        if !fits {
            self.over.notify_waiters();
        }
        fits
    }

    /// Nothing more comes. The first end stays.
    pub(super) fn end(&self, end: Result<(), StreamError>) {
        let mut inbox = lock(&self.inbox);
        inbox.end.get_or_insert(end);
        let waker = inbox.waker.take();
        drop(inbox);
        wake(waker);
        self.over.notify_waiters();
    }

    /// Waits until what comes broke, whatever is unread.
    pub(super) async fn reading_broke(&self) -> StreamError {
        wait_until(&self.over, || lock(&self.inbox).end.clone().and_then(Result::err)).await
    }

    /// A message is to bring what comes; false if another does.
    pub(super) fn attach(&self) -> bool {
        !std::mem::replace(&mut lock(&self.inbox).attached, true)
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.inbox).closed
    }

    pub(super) fn close(&self) {
        let mut inbox = lock(&self.inbox);
        inbox.closed = true;
        inbox.chunks = VecDeque::new();
        inbox.tail = BytesMut::new();
    }

    pub(super) fn poll_read(
        &self,
        cx: &Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<Taken, StreamError>> {
        let mut inbox = lock(&self.inbox);
        let mut read = 0;
        while buffer.remaining() > 0
            && let Some(chunk) = inbox.chunks.front_mut()
        {
            read += fill(buffer, chunk);
            if chunk.is_empty() {
                inbox.chunks.pop_front();
            }
        }
        if !inbox.tail.is_empty() {
            read += fill(buffer, &mut inbox.tail);
            if inbox.tail.is_empty() {
                // An idle stream holds nothing.
                inbox.tail = BytesMut::new();
            }
        }
        if read == 0 && buffer.remaining() > 0 {
            if let Some(end) = &inbox.end {
                return Poll::Ready(end.clone().map(|()| Taken::default()));
            }
            inbox.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        inbox.taken += read;
        inbox.consumed += read;
        if inbox.end.is_some() {
            // There is no more to send.
            return Poll::Ready(Ok(Taken::default()));
        }
        let grows = inbox.consumed >= inbox.window;
        let growth = if grows { inbox.window.min(MAX_WINDOW - inbox.window) } else { 0 };
        let grant = inbox.taken + inbox.window - inbox.granted >= inbox.window / 2;
        Poll::Ready(Ok(Taken { grant, growth }))
    }

    /// Lets the window grow.
    pub(super) fn grow(&self, growth: u64) {
        let mut inbox = lock(&self.inbox);
        inbox.window += growth;
        inbox.consumed = 0;
    }

    /// By how much the window grew.
    pub(super) fn grown(&self) -> u64 {
        lock(&self.inbox).window - FIRST_WINDOW
    }

    /// Grants what the window allows; what the peer may send from the beginning.
    pub(super) fn grant(&self) -> u64 {
        let mut inbox = lock(&self.inbox);
        inbox.granted = inbox.taken + inbox.window;
        inbox.granted
    }

    // ----- what goes -----------------------------------------------------------------------------------------------

    /// Bytes that may still be written where so many were; waits for some.
    pub(super) fn poll_room(&self, cx: &Context<'_>, written: u64) -> Poll<Result<u64, StreamError>> {
        let mut outbox = lock(&self.outbox);
        if let Some(error) = &outbox.failed {
            return Poll::Ready(Err(error.clone()));
        }
        // Also for the case that the send buffer turns out to be full.
        outbox.waker = Some(cx.waker().clone());
        match outbox.limit.saturating_sub(written) {
            0 => Poll::Pending,
            room => Poll::Ready(Ok(room)),
        }
    }

    /// So many bytes were written from the beginning.
    pub(super) fn wrote(&self, written: u64) {
        lock(&self.outbox).written = written;
    }

    /// The peer takes so many bytes from the beginning, of which more than a window ahead count for nothing.
    pub(super) fn credit(&self, limit: u64) {
        let mut outbox = lock(&self.outbox);
        let limit = limit.min(outbox.written.saturating_add(MAX_WINDOW));
        if limit > outbox.limit {
            outbox.limit = limit;
            let waker = outbox.waker.take();
            drop(outbox);
            wake(waker);
        }
    }

    /// Whoever waits to write is to try again.
    pub(super) fn wake_writer(&self) {
        let waker = lock(&self.outbox).waker.take();
        wake(waker);
    }

    /// Nothing more can be written. The first reason stays.
    pub(super) fn fail(&self, error: StreamError) {
        lock(&self.outbox).failed.get_or_insert(error);
        self.wake_writer();
        self.over.notify_waiters();
    }

    /// Waits until nothing more can be written.
    pub(super) async fn writing_broke(&self) -> StreamError {
        wait_until(&self.over, || lock(&self.outbox).failed.clone()).await
    }

    /// What became of the message that is written.
    pub(super) fn settle(&self, concluded: Result<Outcome, DropReason>) {
        match concluded {
            Ok(Outcome::Dropped(DropReason::Refused)) => self.fail(StreamError::Refused),
            Ok(Outcome::Dropped(DropReason::NoNetwork)) | Err(_) => {
                let error = StreamError::Dropped(DropReason::NoNetwork);
                self.fail(error.clone());
                // The peer may never have heard of the stream, so nothing may ever come of it.
                self.end(Err(error));
            }
            Ok(Outcome::Dropped(reason)) => self.fail(StreamError::Dropped(reason)),
            // That the conversation ended is told by the pump.
            _ => {}
        }
    }

    /// A half is dropped; whether it was the last.
    pub(super) fn drop_half(&self) -> bool {
        std::mem::replace(&mut lock(&self.outbox).half_gone, true)
    }
}

impl Inbox {
    fn keep(&mut self, bytes: Bytes) {
        if !self.tail.is_empty() && self.tail.len() + bytes.len() > BLOCK {
            let block = std::mem::take(&mut self.tail).freeze();
            self.chunks.push_back(block);
        }
        if bytes.len() < BLOCK {
            self.tail.extend_from_slice(&bytes);
        } else {
            self.chunks.push_back(bytes);
        }
    }
}

/// Moves what fits; how many bytes that is.
fn fill(buffer: &mut ReadBuf<'_>, from: &mut impl Buf) -> u64 {
    let before = from.remaining();
    while from.has_remaining() && buffer.remaining() > 0 {
        let some = from.chunk().len().min(buffer.remaining());
        buffer.put_slice(&from.chunk()[..some]);
        from.advance(some);
    }
    (before - from.remaining()) as u64
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flow: &Flow, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = flow.poll_read(&Context::from_waker(Waker::noop()), &mut buffer);
        assert!(!matches!(read, Poll::Ready(Err(_))), "{read:?}");
        buffer.filled().to_vec()
    }

    #[test]
    fn short_chunks_are_joined_and_keep_no_read_buffer() {
        let flow = Flow::new();
        let mut sent = Vec::new();
        let whole = Bytes::from(vec![9; BLOCK]);
        for at in 0..FIRST_WINDOW as usize - BLOCK {
            let pattern = Bytes::copy_from_slice(&[at as u8]);
            sent.extend_from_slice(&pattern);
            assert!(flow.push(pattern.clone()));
            assert!(pattern.is_unique(), "it keeps what was pushed");
            if at == 1000 {
                sent.extend_from_slice(&whole);
                assert!(flow.push(whole.clone()));
            }
        }
        assert!(lock(&flow.inbox).chunks.len() <= 4);
        let mut all = Vec::new();
        for length in [1, 999, 2, BLOCK, 70_000] {
            all.extend(read(&flow, length));
        }
        assert!(all == sent, "{} bytes", all.len());
        assert!(read(&flow, 1).is_empty());
        assert_eq!(lock(&flow.inbox).tail.capacity(), 0);
    }

    #[test]
    fn credit_has_a_bound() {
        let flow = Flow::new();
        let room = |written| flow.poll_room(&Context::from_waker(Waker::noop()), written);
        assert_eq!(room(0), Poll::Ready(Ok(FIRST_WINDOW)));
        flow.wrote(1000);
        flow.credit(u64::MAX);
        assert_eq!(room(1000), Poll::Ready(Ok(MAX_WINDOW)));
        // Less is never taken back.
        flow.credit(10);
        assert_eq!(room(1000), Poll::Ready(Ok(MAX_WINDOW)));
    }
}
