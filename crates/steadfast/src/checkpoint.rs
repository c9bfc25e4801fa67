//! Checkpoints of this process: `steadfast checkpoint` freezes it, writes an image of it, and starts it again from there.
//!
//! No image can hold a connection to another host, so this library takes part: before the freeze, endpoints tell their
//! peers of a silence and close what the kernel has of them, and [`Backplane`](crate::backplane::Backplane) clients leave their
//! agent; after it they are there again, and conversations go on with every message once and in order. All that happens by
//! itself ([`Builder::checkpoints`](crate::Builder::checkpoints)).
//!
//! A program that has something of that kind itself registers what is to be done before and after, may say that it is
//! a bad moment, and guards what must not be interrupted:
//!
//! ```no_run
//! use steadfast::checkpoint::{self, Outcome, Veto};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let _registration = checkpoint::register(
//!     async |checkpoint| {
//!         println!("process {} asks for a checkpoint", checkpoint.requester.pid);
//!         if is_landing() { Err(Veto::Temporary("the boat is landing".into())) } else { Ok(()) }
//!     },
//!     async |outcome| {
//!         if let Outcome::Restored { .. } = outcome {
//!             println!("somebody has started us again");
//!         }
//!         Ok(())
//!     },
//! )?;
//! let section = checkpoint::enter().await;
//! // Nobody freezes us here.
//! section.left().await;
//! # Ok(())
//! # }
//! # fn is_landing() -> bool { false }
//! ```

use crate::backplane;
use crate::driver::Command;
use crate::error::BindError;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
pub use steadfast_control::{
    CONTROL, Checkpoint, Outcome, Phase, Registration, Requester, Section, Veto, entering as enter, phase,
    try_enter,
};
use steadfast_control::{Participant, Stage};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// How long taking up again may take until the requester is told that it lasts.
const TAKE_UP: Duration = Duration::from_secs(10);

/// Registers what is to be done before each checkpoint of this process and after it, until the registration is dropped.
///
/// `before` can veto; it has until [`Checkpoint::deadline`], and what was registered last is asked first. Conversations still
/// work in it, and again in `after`, which may return a text that whoever asked for the checkpoint is told. Both run on a
/// thread of their own while the rest of the program goes on; they may use the runtime that this was called in.
///
/// While a checkpoint is being taken it counts from the next. Fails if this process can have no control socket ([`CONTROL`] names
/// another directory, or is `off`).
pub fn register<B, BF, A, AF>(before: B, after: A) -> io::Result<Registration>
where
    B: FnMut(Checkpoint) -> BF + Send + 'static,
    BF: Future<Output = Result<(), Veto>>,
    A: FnMut(Outcome) -> AF + Send + 'static,
    AF: Future<Output = Result<(), String>>,
{
    let runtime = Handle::try_current().ok();
    steadfast_control::register(Stage::Application, Callbacks { before, after, runtime })
}

struct Callbacks<B, A> {
    before: B,
    after: A,
    runtime: Option<Handle>,
}

impl<B, BF, A, AF> Participant for Callbacks<B, A>
where
    B: FnMut(Checkpoint) -> BF + Send,
    BF: Future<Output = Result<(), Veto>>,
    A: FnMut(Outcome) -> AF + Send,
    AF: Future<Output = Result<(), String>>,
{
    fn prepare(&mut self, checkpoint: &Checkpoint) -> Result<(), Veto> {
        let _runtime = self.runtime.as_ref().map(Handle::enter);
        wait(checkpoint.deadline, (self.before)(checkpoint.clone())).unwrap_or_else(|| Err(late()))
    }

    fn go_on(&mut self, outcome: &Outcome) -> Result<(), String> {
        let _runtime = self.runtime.as_ref().map(Handle::enter);
        let done = wait(Instant::now() + TAKE_UP, (self.after)(outcome.clone()));
        done.unwrap_or_else(|| {
            Err("what the program does after a checkpoint takes long, and was given up".into())
        })
    }
}

fn late() -> Veto {
    Veto::Temporary("the program was not ready in time".into())
}

/// An endpoint before and after a checkpoint.
pub(crate) struct Quieted {
    pub(crate) commands: mpsc::WeakUnboundedSender<Command>,
    pub(crate) who: String,
    /// Whether it was this that made it quiet.
    pub(crate) quiet: bool,
}

impl Quieted {
    fn command<R>(
        &self,
        command: impl FnOnce(oneshot::Sender<R>) -> Command,
    ) -> Option<oneshot::Receiver<R>> {
        let (done, answer) = oneshot::channel();
        self.commands.upgrade()?.send(command(done)).ok()?;
        Some(answer)
    }
}

impl Participant for Quieted {
    fn prepare(&mut self, checkpoint: &Checkpoint) -> Result<(), Veto> {
        let Some(answer) = self.command(|done| Command::Quiesce(checkpoint.silence, done)) else {
            return Err(Veto::Temporary(format!("endpoint {} is about to end", self.who)));
        };
        match wait(checkpoint.deadline, answer) {
            Some(Ok(was_open)) => self.quiet = was_open,
            // It has ended: nothing of it is left.
            Some(Err(_)) => {}
            None => {
                let _later = self.command(Command::GoOn);
                return Err(late());
            }
        }
        Ok(())
    }

    fn go_on(&mut self, _: &Outcome) -> Result<(), String> {
        if !std::mem::take(&mut self.quiet) {
            return Ok(());
        }
        let Some(answer) = self.command(Command::GoOn) else { return Ok(()) };
        match wait(Instant::now() + TAKE_UP, answer) {
            Some(Ok(Err(error))) if !matches!(error, BindError::Closed) => {
                Err(format!("endpoint {}: {error}", self.who))
            }
            Some(_) => Ok(()),
            None => Err(format!("endpoint {} is not there again yet; is its runtime busy?", self.who)),
        }
    }
}

/// A client of the agent before and after a checkpoint.
impl Participant for backplane::Pause {
    fn prepare(&mut self, checkpoint: &Checkpoint) -> Result<(), Veto> {
        wait(checkpoint.deadline, self.begin()).ok_or_else(|| {
            self.end();
            late()
        })
    }

    fn go_on(&mut self, _: &Outcome) -> Result<(), String> {
        self.end();
        Ok(())
    }
}

/// Registers a part of this library. Without a control socket there is nobody to be asked.
pub(crate) fn register_own(participant: impl Participant + 'static) -> Option<Registration> {
    let told = |error: &io::Error| {
        // What somebody wished is no news.
        if error.kind() != io::ErrorKind::Unsupported {
            tracing::info!(%error, "no checkpoint of this process can be prepared");
        }
    };
    steadfast_control::register(Stage::Library, participant).inspect_err(told).ok()
}

/// Waits for a future on this thread, whatever becomes of any runtime.
fn wait<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut context, mut future) = (Context::from_waker(&waker), pin!(future));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}
