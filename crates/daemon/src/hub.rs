//! The agent and its connections behind one lock, and who is woken when something is to be written.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Instant as Wall, SystemTime, UNIX_EPOCH};

use steadfast_backplane::{Agent, ClientId, ConnectionId, Instant, Process, Server, Timestamp};
use steadfast_net::LocalStream;
use tokio::sync::{Notify, watch};

use crate::store::Word;
use crate::ways::WayState;

/// Bytes that are taken from the agent for one connection at a time.
const TAKEN: usize = 64 * 1024;

/// What everything in the daemon shares of the backplane.
#[derive(Debug)]
pub(crate) struct Hub {
    server: Mutex<Server>,
    started: Wall,
    connections: Mutex<BTreeMap<ConnectionId, Weak<Connection>>>,
    /// To the thread that stores events; whether it looks soon, and whether it was told to look at once.
    store: Sender<Word>,
    told: AtomicBool,
    pressed: AtomicBool,
    /// Why the journal cannot be written.
    storage_fault: Mutex<Option<String>>,
    /// Connections end.
    ended: AtomicBool,
    /// The place in the journal up to which everything is stored.
    stored: watch::Sender<u64>,
    /// Where events go to and come from, other than this host.
    ways: Mutex<Vec<Arc<WayState>>>,
    /// The daemon's own clients, and who is told when something came for one.
    feeds: Mutex<HashMap<ClientId, Arc<Notify>>>,
    /// Told when events may be there to go out.
    pub(crate) sinks: Notify,
    /// Told when what is next due may be earlier.
    pub(crate) timer: Notify,
}

/// One client's socket.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) stream: LocalStream,
    /// What was taken from the agent and is not written.
    out: Mutex<Out>,
    /// The task of the connection is to look again.
    pub(crate) wake: Notify,
    /// It reads nothing until it was told something.
    pub(crate) held_up: AtomicBool,
}

#[derive(Debug, Default)]
struct Out {
    bytes: Vec<u8>,
    written: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(crate) fn new(agent: Agent, store: Sender<Word>) -> Self {
        let hub = Self {
            server: Mutex::new(Server::new(agent)),
            started: Wall::now(),
            connections: Mutex::default(),
            store,
            told: AtomicBool::new(false),
            pressed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            storage_fault: Mutex::default(),
            stored: watch::Sender::new(0),
            ways: Mutex::default(),
            feeds: Mutex::default(),
            sinks: Notify::new(),
            timer: Notify::new(),
        };
        hub.tell_wall_time();
        hub
    }

    /// The time that the agent is told.
    pub(crate) fn now(&self) -> Instant {
        // Not zero, so that the recent past has room before it.
        const AGE: u64 = 1 << 62;
        Instant(AGE + u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX / 4))
    }

    /// To be called once a second: the wall clock may have been set.
    pub(crate) fn tell_wall_time(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        let now = self.now();
        lock(&self.server).agent_mut().handle_wall_time(now, time);
    }

    /// Tells whoever stores and sends events that there are some, and whether somebody waits until they are stored.
    pub(crate) fn tell_published(&self, waits: bool) {
        self.tell_arrived(waits);
        self.sinks.notify_waiters();
    }

    /// Tells whoever stores events that there are some. For those that nobody waits for it is not woken each time.
    pub(crate) fn tell_arrived(&self, waits: bool) {
        let flag = if waits { &self.pressed } else { &self.told };
        if !flag.swap(true, Ordering::AcqRel) {
            self.tell_store(Word::Look);
        }
    }

    /// Everything up to this place in the journal is stored.
    pub(crate) fn tell_stored(&self, place: u64) {
        self.stored.send_replace(place);
    }

    /// Follows up to which place in the journal everything is stored.
    pub(crate) fn stored(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    pub(crate) fn add_way(&self, way: Arc<WayState>) {
        lock(&self.ways).push(way);
    }

    /// Where events go to and come from, other than this host.
    pub(crate) fn ways(&self) -> Vec<Arc<WayState>> {
        lock(&self.ways).clone()
    }

    /// A client of the daemon's own is to be told when something comes for it.
    pub(crate) fn add_feed(&self, client: ClientId, came: Arc<Notify>) {
        lock(&self.feeds).insert(client, came);
    }

    pub(crate) fn remove_feed(&self, client: ClientId) {
        lock(&self.feeds).remove(&client);
    }

    /// Whoever stores events looks now, and again soon.
    pub(crate) fn looks(&self) {
        self.told.store(true, Ordering::Release);
        self.pressed.store(false, Ordering::Release);
    }

    /// Whoever stores events looks once more, and then not before it is told.
    pub(crate) fn rests(&self) {
        self.told.store(false, Ordering::Release);
    }

    pub(crate) fn tell_store(&self, word: Word) {
        // It has ended: so does the daemon.
        let _ended = self.store.send(word);
    }

    pub(crate) fn set_storage_fault(&self, fault: Option<String>) {
        *lock(&self.storage_fault) = fault;
    }

    /// Why the journal cannot be written; none if it can.
    pub(crate) fn storage_fault(&self) -> Option<String> {
        lock(&self.storage_fault).clone()
    }

    /// Does something with the server, then writes what others are to be told, as far as their sockets take it at once.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Server, Instant) -> R) -> R {
        let (mut ready, mut own) = (Vec::new(), Vec::new());
        let now = self.now();
        let result = {
            let mut server = lock(&self.server);
            let result = act(&mut server, now);
            while let Some(id) = server.poll_ready() {
                ready.push(id);
            }
            while let Some(client) = server.poll_own() {
                own.push(client);
            }
            result
        };
        for client in own {
            if let Some(came) = lock(&self.feeds).get(&client) {
                came.notify_one();
            }
        }
        self.write_to(&ready);
        result
    }

    /// Does what nobody is told of.
    pub(crate) fn quietly<R>(&self, act: impl FnOnce(&mut Server) -> R) -> R {
        act(&mut lock(&self.server))
    }

    /// Only looks.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&Server) -> R) -> R {
        look(&lock(&self.server))
    }

    fn write_to(&self, ready: &[ConnectionId]) {
        for id in ready {
            let found = lock(&self.connections).get(id).and_then(Weak::upgrade);
            let Some(connection) = found else { continue };
            let all = matches!(self.write(&connection), Ok(true));
            // Who was ended by others than its own task reads nothing that would wake it.
            let ended = self.peek(|server| server.has_ended(*id));
            if !all || ended || connection.held_up.load(Ordering::Acquire) {
                connection.wake.notify_one();
            }
        }
    }

    /// Writes what there is to be told to a client; whether that was all.
    pub(crate) fn write(&self, connection: &Connection) -> io::Result<bool> {
        let mut out = lock(&connection.out);
        loop {
            if out.written == out.bytes.len() {
                out.bytes.clear();
                out.written = 0;
                if !lock(&self.server).poll_transmit(connection.id, &mut out.bytes, TAKEN) {
                    return Ok(true);
                }
            }
            match connection.stream.try_write(&out.bytes[out.written..]) {
                Ok(count) => out.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// A socket was accepted.
    pub(crate) fn connect(&self, stream: LocalStream, process: Process) -> Arc<Connection> {
        let id = self.with(|server, now| server.handle_connected(now, process));
        let connection = Connection {
            id,
            stream,
            out: Mutex::default(),
            wake: Notify::new(),
            held_up: AtomicBool::new(false),
        };
        let connection = Arc::new(connection);
        lock(&self.connections).insert(id, Arc::downgrade(&connection));
        self.timer.notify_one();
        connection
    }

    /// Ends all connections.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let all: Vec<_> = lock(&self.connections).values().filter_map(Weak::upgrade).collect();
        for connection in &all {
            connection.wake.notify_one();
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// A socket is gone.
    pub(crate) fn disconnect(&self, connection: &Connection) {
        lock(&self.connections).remove(&connection.id);
        self.with(|server, _| server.handle_closed(connection.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use steadfast_backplane::{Config, Fingerprint, Host, Incarnation, Rules};

    #[test]
    fn the_journal_is_woken_seldom_and_at_once_for_who_waits() {
        let host = Host {
            origin: Fingerprint([7; 32]),
            incarnation: Incarnation(9),
            name: "node7".parse().unwrap(),
            address: None,
        };
        let (sender, words) = mpsc::channel();
        let hub = Hub::new(Agent::new(Config::default(), Rules::default(), host), sender);
        let woken = |expected: usize, when: &str| assert_eq!(words.try_iter().count(), expected, "{when}");
        hub.tell_arrived(false);
        hub.tell_arrived(false);
        woken(1, "the first that nobody waits for");
        hub.looks();
        hub.tell_arrived(false);
        woken(0, "it looks again soon by itself");
        hub.tell_arrived(true);
        hub.tell_arrived(true);
        woken(1, "somebody waits");
        hub.looks();
        hub.tell_arrived(true);
        woken(1, "somebody waits again");
        hub.looks();
        hub.rests();
        hub.tell_arrived(false);
        woken(1, "it sleeps");
    }
}
