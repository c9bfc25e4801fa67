//! Noticing that the list of trusted peers changed.

use super::TrustError;
use crate::private_file;
use futures_core::Stream;
use inotify::{EventMask, EventStream, Inotify, WatchMask};
use std::ffi::OsString;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;

/// Room for a handful of events; the kernel queues the rest.
const BUFFER: usize = 4096;

/// Resolves when a file changes on disk: edited in place, replaced, created or removed.
///
/// The directory is watched, not the file, since editors and [`super::TrustFile`] replace it. There is no polling.
/// Dropping the watcher closes its descriptor.
#[derive(Debug)]
pub struct TrustWatcher {
    path: PathBuf,
    name: OsString,
    events: EventStream<[u8; BUFFER]>,
}

impl TrustWatcher {
    /// Starts watching; what changes from now on is noticed. Must be called within a tokio runtime.
    ///
    /// A missing directory is made (mode 0700). Read the file after this call, not before, or a change between the
    /// two goes unseen.
    pub fn new(path: &Path) -> Result<Self, TrustError> {
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let failed = |source| TrustError::Io { what: "watch", path: path.clone(), source };
        let directory = private_file::parent(&path);
        private_file::create_directories(directory).map_err(failed)?;
        let inotify = Inotify::init().map_err(failed)?;
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        inotify.watches().add(directory, mask).map_err(failed)?;
        let events = inotify.into_event_stream([0; BUFFER]).map_err(failed)?;
        Ok(Self { name: path.file_name().unwrap_or_default().into(), path, events })
    }

    /// Waits for the next change.
    ///
    /// One edit may resolve this more than once. Cancel safe: a change that was not returned is returned by the
    /// next call. Fails once the directory itself is gone or moved; a new watcher is needed then.
    pub async fn changed(&mut self) -> Result<(), TrustError> {
        loop {
            let event = poll_fn(|context| Pin::new(&mut self.events).poll_next(context)).await;
            let event = event.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
            let event =
                event.map_err(|source| TrustError::Io { what: "watch", path: self.path.clone(), source })?;
            let gone =
                EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED | EventMask::UNMOUNT;
            if event.mask.intersects(gone) {
                let source = io::Error::new(io::ErrorKind::NotFound, "its directory was moved or removed");
                return Err(TrustError::Io { what: "watch", path: self.path.clone(), source });
            }
            // After an overflow nobody knows what was lost: better one reload too many.
            if event.mask.contains(EventMask::Q_OVERFLOW) || event.name.as_ref() == Some(&self.name) {
                return Ok(());
            }
        }
    }
}
