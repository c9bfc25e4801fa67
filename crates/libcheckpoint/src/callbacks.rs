//! Functions of the program as a participant.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::errno::Errno;
use steadfast_control::{
    Checkpoint, Outcome, Participant, Registration, Stage, Veto, register as participate,
};

use crate::calls::{Functions, Words};

type Shared = Arc<Mutex<Functions>>;

struct Registered {
    functions: Shared,
    _registration: Registration,
}

/// No id is given twice.
static LAST_ID: AtomicU64 = AtomicU64::new(0);
/// Everything that is registered, by its id.
static REGISTERED: Mutex<BTreeMap<u64, Registered>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::InvalidFilename => Errno::ENAMETOOLONG,
        io::ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        _ => error.raw_os_error().map_or(Errno::EACCES, Errno::from_raw),
    }
}

pub(crate) fn register(functions: Functions) -> Result<u64, Errno> {
    let functions = Arc::new(Mutex::new(functions));
    let registration = participate(Stage::Application, Callback(Arc::clone(&functions)));
    let registration = registration.map_err(|error| errno(&error))?;
    let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
    lock(&REGISTERED).insert(id, Registered { functions, _registration: registration });
    Ok(id)
}

pub(crate) fn replace(id: u64, functions: Functions) -> Result<(), Errno> {
    let found = lock(&REGISTERED).get(&id).map(|registered| Arc::clone(&registered.functions));
    let found = found.ok_or(Errno::ENOENT)?;
    *lock(&found) = functions;
    Ok(())
}

pub(crate) fn unregister(id: u64) -> Result<(), Errno> {
    let removed = lock(&REGISTERED).remove(&id);
    // Its end may wait for a thread: not under the lock.
    removed.map(drop).ok_or(Errno::ENOENT)
}

struct Callback(Shared);

fn text(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

impl Participant for Callback {
    fn prepare(&mut self, checkpoint: &Checkpoint) -> Result<(), Veto> {
        let functions = *lock(&self.0);
        let ready = checkpoint.deadline.saturating_duration_since(Instant::now());
        let words = Words {
            requester: checkpoint.requester,
            silence_ms: u64::try_from(checkpoint.silence.as_millis()).unwrap_or(u64::MAX),
            ready_ms: u64::try_from(ready.as_millis()).unwrap_or(u64::MAX),
            images: checkpoint.images.as_deref().and_then(text),
            goes_on: checkpoint.goes_on,
        };
        match functions.before(&words) {
            0 => Ok(()),
            1 => Err(Veto::Temporary("the program says that it is a bad moment".into())),
            _ => Err(Veto::Permanent("the program says that it cannot be saved".into())),
        }
    }

    fn go_on(&mut self, outcome: &Outcome) -> Result<(), String> {
        let functions = *lock(&self.0);
        let (number, text) = match outcome {
            Outcome::Continued => (0, None),
            Outcome::Restored { images } => (1, images.as_deref().and_then(text)),
            Outcome::Abandoned(reason) => (2, CString::new(reason.as_str()).ok()),
            // What is new is taken for the most that can be said: that it goes on.
            _ => (0, None),
        };
        match functions.after(number, text.as_deref()) {
            0 => Ok(()),
            code => Err(format!("a function of the program returned {code} after the checkpoint")),
        }
    }
}
