//! All clients of a process, and what a fork leaves of them.
//!
//! A forked child gets its parent's clients, but not its connections, of which it lets go at once, and not its threads:
//! its first call makes a list of its own, in which each client connects for itself. What another thread of the parent
//! held locked at the moment of the fork is lost to the child: such a client is an invalid handle there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use steadfast_backplane::{Client as Name, ClientName, Code, EventSpace, JobId, NameError, Style};

use crate::abi::{self, ClientHandle, ClientIdentity, ClientInfo, SubscribeHandle, field};
use crate::calls;
use crate::client::Client;
use crate::convert;

/// What tells clients of one process apart: category, component, name, extension, without case; as in FTB not the region.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    category: String,
    component: String,
    name: Vec<u8>,
    extension: u8,
}

/// A client, or the place of one that is about to connect.
struct Entry {
    identity: Identity,
    serial: u64,
    client: Option<Arc<Client>>,
}

/// The clients of one process of a line of forks.
struct Generation {
    pid: u32,
    entries: Mutex<Vec<Entry>>,
    next: OnceLock<Box<Self>>,
}

static FIRST: OnceLock<Generation> = OnceLock::new();

impl Generation {
    fn new(entries: Vec<Entry>) -> Self {
        Self { pid: std::process::id(), entries: Mutex::new(entries), next: OnceLock::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this process takes over of its parent's.
    fn inherit(&self) -> Self {
        let Ok(mut entries) = self.entries.try_lock() else { return Self::new(Vec::new()) };
        let adopted = |entry: &Entry| entry.client.as_ref().is_some_and(Client::adopt);
        Self::new(entries.drain(..).filter(adopted).collect())
    }
}

/// The clients of this process.
fn current() -> &'static Generation {
    let mut generation = FIRST.get_or_init(|| Generation::new(Vec::new()));
    while generation.pid != std::process::id() {
        generation = generation.next.get_or_init(|| Box::new(generation.inherit()));
    }
    generation
}

impl Identity {
    fn new(category: &str, component: &str, name: &[u8], extension: u8) -> Self {
        Self {
            category: category.to_ascii_lowercase(),
            component: component.to_ascii_lowercase(),
            name: name.to_ascii_lowercase(),
            extension,
        }
    }

    fn of(handle: &ClientHandle) -> Option<Self> {
        let id = &handle.client_id;
        let name = abi::bytes(&id.client_name)?;
        let texts = abi::text(&id.comp_cat).zip(abi::text(&id.comp))?;
        (handle.valid == 1).then(|| Self::new(texts.0, texts.1, name, id.ext))
    }
}

/// Connects a client.
pub(crate) fn connect(info: &ClientInfo) -> Result<ClientHandle, Code> {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    let style = abi::text(&info.style).ok_or(Code::SubscriptionStyle)?;
    let style: Style = style.parse().map_err(|_| Code::SubscriptionStyle)?;
    let space = abi::text(&info.event_space).ok_or(Code::EventSpaceFormat)?;
    let space = EventSpace::new(space).map_err(NameError::code)?;
    let name = ClientName::from_c(&info.client_name).map_err(NameError::code)?;
    let job = JobId::from_c(&info.client_jobid).map_err(NameError::code)?;
    let name = Name { name, job, extension: 0 };
    let identity = Identity::new(space.category(), space.component(), name.name.as_str().as_bytes(), 0);
    let handle = ClientHandle {
        valid: 1,
        client_id: ClientIdentity {
            region: field(space.region()),
            comp_cat: field(space.category()),
            comp: field(space.component()),
            client_name: field(name.name.as_str()),
            ext: 0,
        },
    };
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    calls::watch_forks();
    {
        let mut entries = current().lock();
        if entries.iter().any(|entry| entry.identity == identity) {
            return Err(Code::DuplicateCall);
        }
        entries.push(Entry { identity, serial, client: None });
    }
    // Others of this process go on meanwhile.
    let queue = usize::try_from(info.polling_queue_len).unwrap_or(0);
    let connected = Client::connect(handle, serial, space, name, style, queue);
    let mut entries = current().lock();
    match connected {
        Ok(client) => {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.serial == serial) {
                entry.client = Some(Arc::new(client));
            }
            Ok(handle)
        }
        Err(code) => {
            entries.retain(|entry| entry.serial != serial);
            Err(code)
        }
    }
}

/// The client that a handle means.
pub(crate) fn find(handle: &ClientHandle) -> Result<Arc<Client>, Code> {
    let identity = Identity::of(handle).ok_or(Code::InvalidHandle)?;
    let entries = current().lock();
    let found = entries.iter().find(|entry| entry.identity == identity);
    found.and_then(|entry| entry.client.clone()).ok_or(Code::InvalidHandle)
}

/// The client that a subscription belongs to.
pub(crate) fn find_subscriber(handle: &SubscribeHandle) -> Result<Arc<Client>, Code> {
    let (serial, _) = convert::numbers(handle).ok_or(Code::InvalidHandle)?;
    let entries = current().lock();
    let found = entries.iter().find(|entry| entry.serial == serial);
    found.and_then(|entry| entry.client.clone()).ok_or(Code::InvalidHandle)
}

/// Ends a client.
pub(crate) fn disconnect(handle: &ClientHandle) -> Result<(), Code> {
    let identity = Identity::of(handle).ok_or(Code::InvalidHandle)?;
    let client = {
        let mut entries = current().lock();
        let known = |entry: &Entry| entry.identity == identity && entry.client.is_some();
        let at = entries.iter().position(known).ok_or(Code::InvalidHandle)?;
        entries.remove(at).client
    };
    if let Some(client) = client {
        client.disconnect();
    }
    Ok(())
}
