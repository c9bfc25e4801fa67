//! Processes of this host whose end the kernel tells: a pidfd for each, in a task of its own.

use crate::lock;
use crate::shared::Shared;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use steadfast_control::process::start_of;
use steadfast_session::{AssociationId, Exit};
use steadfast_wire::frame::Process;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

/// Whom the core wants to be watched.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    all: Mutex<BTreeMap<AssociationId, (Process, AbortHandle)>>,
}

impl Watches {
    pub(crate) fn remove(&self, association: AssociationId) {
        if let Some((_, task)) = lock(&self.all).remove(&association) {
            task.abort();
        }
    }
}

impl Shared {
    /// Tells the core when a process ends.
    pub(crate) fn watch(self: &Arc<Self>, association: AssociationId, process: Process) {
        let shared = Arc::clone(self);
        let mut all = lock(&self.watches.all);
        let task = self.spawn(async move {
            match ended(process).await {
                Ok(exit) => {
                    tracing::debug!(pid = process.pid, ?exit, "a process that was watched ended");
                    shared.call(|inner, now| inner.core.handle_exited(now, association, exit));
                }
                Err(error) => tracing::debug!(pid = process.pid, %error, "a process cannot be watched"),
            }
        });
        if let Some((_, before)) = all.insert(association, (process, task)) {
            before.abort();
        }
    }

    /// Watches again whom it watched before it was quiesced.
    pub(crate) fn watch_again(self: &Arc<Self>) {
        let all: Vec<_> = lock(&self.watches.all).iter().map(|(id, (process, _))| (*id, *process)).collect();
        for (association, process) in all {
            self.watch(association, process);
        }
    }
}

/// Waits until a process has ended.
async fn ended(process: Process) -> io::Result<Exit> {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    let descriptor = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::SRCH) => return Ok(Exit::Untold),
        Err(error) => return Err(error.into()),
    };
    // The descriptor stays with its process; who has that number now may be another one.
    match start_of(process.pid) {
        Some(start) if start == process.start => {}
        Some(_) => return Ok(Exit::Untold),
        None => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "/proc does not tell when it started"));
        }
    }
    let descriptor = watched(descriptor)?;
    let _ready = descriptor.readable().await?;
    Ok(exit(descriptor.get_ref()))
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of descriptors that somebody else may close; this one is owned"
)]
fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

/// How a process ended. The kernel tells its parent alone, for whom it stays to be waited for.
fn exit(descriptor: &OwnedFd) -> Exit {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let Ok(Some(status)) = waitid(WaitId::PidFd(descriptor.as_fd()), options) else { return Exit::Untold };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Untold,
    }
}
