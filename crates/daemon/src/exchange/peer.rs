//! Another host, and the conversations with it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use steadfast::{Endpoint, Fingerprint, MultiSocket, Standing, Target, Verdict};
use steadfast_backplane::{EventSpace, Incarnation};
use tokio::sync::{Notify, Semaphore};

use super::conversation::{Fault, converse, greet};
use crate::seal::Seal;
use crate::ways::{Backoff, Way};

/// Both sides may open one at the same time, and one of each may be about to end.
const MAX_CONVERSATIONS: usize = 4;
/// Conversations with one host that are greeting, ending or standing.
pub(super) const ROOM: usize = 16;
/// How long one takes to end that did not come about.
const FAREWELL: Duration = Duration::from_secs(1);

type Filter = Box<dyn Fn(&EventSpace) -> bool + Send + Sync>;

/// A host with which events are exchanged.
pub(super) struct Peer {
    pub(super) key: Fingerprint,
    pub(super) target: Target,
    pub(super) way: Way,
    /// Held by the conversation that sends.
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(super) goes_out: Filter,
    pub(super) comes_in: Filter,
    pub(super) conversations: Mutex<Vec<(Incarnation, MultiSocket)>>,
    pub(super) room: Semaphore,
    /// Told when one begins or ends.
    pub(super) changed: Notify,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.target)
    }
}

impl Peer {
    fn list(&self) -> MutexGuard<'_, Vec<(Incarnation, MultiSocket)>> {
        self.conversations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a conversation whenever there is none.
    pub(super) async fn keep(self: Arc<Self>, endpoint: Endpoint, seal: Arc<Seal>, run: Incarnation) {
        let mut backoff = Backoff::new();
        loop {
            self.while_conversing().await;
            match endpoint.connect(self.target.clone()).await {
                Ok(socket) => {
                    let since = Instant::now();
                    self.serve(&seal, run, socket, true).await;
                    backoff.held(since.elapsed());
                }
                Err(error) => self.fault(error.to_string()),
            }
            tokio::select! {
                () = backoff.wait() => {}
                // It called meanwhile.
                () = self.changed.notified() => {}
            }
        }
    }

    async fn while_conversing(&self) {
        loop {
            let changed = self.changed.notified();
            if self.list().is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Exchanges events in one conversation until its end.
    pub(super) async fn serve(&self, seal: &Seal, run: Incarnation, socket: MultiSocket, opened: bool) {
        let Ok(_place) = self.room.try_acquire() else {
            socket.abort();
            return;
        };
        let fault = match greet(&socket, run, opened).await {
            Ok(theirs) => {
                if !self.begin(theirs, &socket) {
                    socket.abort();
                    return;
                }
                let ends = End { peer: self, socket: &socket };
                let fault = converse(self, seal, &socket).await;
                drop(ends);
                fault
            }
            Err(fault) => {
                // What we said of ourselves may tell the other side why.
                let _either_way = socket.close_within(FAREWELL).await;
                fault
            }
        };
        // Nothing that is under way counts before the other side has said that it took it.
        socket.abort();
        self.fault(fault);
    }

    /// Whether there is room for one more. Those with an earlier run of the other daemon are over, whether they know it or not.
    fn begin(&self, run: Incarnation, socket: &MultiSocket) -> bool {
        let mut list = self.list();
        list.iter().filter(|(other, _)| *other != run).for_each(|(_, old)| old.abort());
        list.retain(|(other, _)| *other == run);
        if list.len() >= MAX_CONVERSATIONS {
            return false;
        }
        list.push((run, socket.clone()));
        drop(list);
        self.way.state.set_connected();
        self.changed.notify_waiters();
        true
    }

    /// Tells whether the other side answers, as long as this conversation is one of those that stand: it outlives whatever
    /// happens to the other daemon and to networks, and its end would be waited for in vain.
    pub(super) async fn follow(&self, socket: &MultiSocket) {
        let mut changes = socket.verdicts();
        let mut next = Some(socket.verdict());
        while let Some(standing) = next {
            self.stands(socket, &standing);
            next = changes.next().await;
        }
    }

    fn stands(&self, socket: &MultiSocket, standing: &Standing) {
        let list = self.list();
        // What an earlier run of the other daemon had may hear of that later than the next run has called.
        if list.iter().any(|(_, one)| one.session_id() == socket.session_id()) {
            match standing.verdict {
                Verdict::Alive => self.way.state.set_connected(),
                _ => self.way.state.set_fault(standing.to_string()),
            }
        }
    }

    fn fault(&self, fault: Fault) {
        if self.list().is_empty() {
            self.way.state.set_fault(fault);
        }
    }
}

/// Takes a conversation from the list, however it ends.
struct End<'a> {
    peer: &'a Peer,
    socket: &'a MultiSocket,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let id = self.socket.session_id();
        self.peer.list().retain(|(_, socket)| socket.session_id() != id);
        self.peer.changed.notify_waiters();
    }
}
