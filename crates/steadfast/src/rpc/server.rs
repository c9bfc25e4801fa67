//! Serving calls: what users touch of it.

mod board;
mod serving;

use super::error::ServeError;
use super::handler::Handler;
use crate::socket::MultiSocket;
use board::Board;
use serving::Serving;
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How a conversation is served.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ServeConfig {
    /// Calls of each urgency that the peer may have open, waiting or running: 1,024, at least 64, at most 8,192. Each holds up
    /// to 64 KiB of its request; the rest of longer bodies waits in the windows of the conversation. Beyond it the peer's own
    /// `call` waits.
    pub max_open: usize,
    /// Handlers that run at once, with the sending of what they answer: 128. Background has at most three quarters of
    /// them, so that foreground finds room.
    pub concurrency: usize,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self { max_open: 1024, concurrency: 128 }
    }
}

impl ServeConfig {
    /// The same with another [`max_open`](Self::max_open).
    #[must_use]
    pub const fn max_open(mut self, calls: usize) -> Self {
        self.max_open = calls;
        self
    }

    /// The same with another [`concurrency`](Self::concurrency).
    #[must_use]
    pub const fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers;
        self
    }
}

/// What a server has done on one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServerStats {
    /// Requests that were taken.
    pub taken: u64,
    /// Handlers that were begun.
    pub begun: u64,
    /// Calls that were answered with a response (or the beginning of one).
    pub answered: u64,
    /// Calls that were answered with a fault.
    pub faults: u64,
    /// Calls that were cancelled by the peer while they waited or ran.
    pub cancelled: u64,
    /// Messages that belong to no call which is open here, and were ignored.
    pub unmatched: u64,
}

/// Serves the calls that come over a conversation, with the default settings; see [`serve_with`].
pub fn serve(socket: MultiSocket, handler: impl Handler) -> Server {
    serve_with(socket, handler, ServeConfig::default())
}

/// Serves the calls that come over a conversation, in tasks of the current tokio runtime (it panics outside of one).
///
/// The conversation is used for calls alone, and nobody else may receive from it. Every request is executed at most once.
/// It is not important which side opened the conversation; two that serve each other use two.
pub fn serve_with(socket: MultiSocket, handler: impl Handler, config: ServeConfig) -> Server {
    let (stop, stopped) = oneshot::channel();
    let board = Arc::new(Board::default());
    let serving = Serving::new(socket, handler, config, Arc::clone(&board));
    let task = tokio::spawn(serving.run(stopped));
    Server { task, stop: Some(stop), over: None, board }
}

/// A conversation that is being served. Dropping it stops at once: handlers are dropped and the conversation closed.
#[must_use = "dropping it stops serving: keep it, or await `done`"]
pub struct Server {
    task: JoinHandle<Result<(), ServeError>>,
    stop: Option<oneshot::Sender<Duration>>,
    over: Option<Result<(), ServeError>>,
    board: Arc<Board>,
}

impl Server {
    /// Waits until the peer has finished and all its calls are answered, or the conversation has ended. Cancel safe; says
    /// the same again when it is asked again.
    pub async fn done(&mut self) -> Result<(), ServeError> {
        if self.over.is_none() {
            self.over = match (&mut self.task).await {
                Ok(result) => Some(result),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime ends.
                Err(_) => pending().await,
            };
        }
        self.over.clone().unwrap_or(Ok(()))
    }

    /// Shuts down: what has not begun is refused, running handlers may finish within `limit`, then they are dropped and
    /// their callers told; then the conversation is closed. Every caller learns what became of its request.
    ///
    /// Fails if the answers were not all taken within the limit and 2 s more. Cancelling stops at once.
    pub async fn shutdown(mut self, limit: Duration) -> Result<(), ServeError> {
        if let Some(stop) = self.stop.take() {
            let _over = stop.send(limit);
        }
        self.done().await
    }

    /// What was done so far.
    pub fn stats(&self) -> ServerStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.board.counters;
        ServerStats {
            taken: read(&counters.taken),
            begun: read(&counters.begun),
            answered: read(&counters.answered),
            faults: read(&counters.faults),
            cancelled: read(&counters.cancelled),
            unmatched: read(&counters.unmatched),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({:?})", self.stats())
    }
}
