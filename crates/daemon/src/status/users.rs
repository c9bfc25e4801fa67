//! Who asks. Each user has room of his own, and where that of all is used up, whoever has most of it gives way: so nobody keeps
//! out others. What root has counts for nobody else, and what others have does not keep out root.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

const ROOT: u32 = 0;
/// Between two answers to one user that cost the agent some time.
const GAP: Duration = Duration::from_millis(5);

/// How many there may be, of all users but root and of each.
#[derive(Debug, Clone, Copy)]
struct Room {
    all: usize,
    each: usize,
    /// Whether one gives way only to a user who has fewer.
    lasting: bool,
}

/// Connections, whatever they do.
const CONNECTIONS: Room = Room { all: 2048, each: 512, lasting: false };
/// Of these, the ones that are being answered: an answer takes memory until it is read.
const ANSWERS: Room = Room { all: 64, each: 32, lasting: false };
/// And the ones that are told of changes.
const FOLLOWERS: Room = Room { all: 256, each: 128, lasting: true };

pub(super) const USER_FOLLOWERS: usize = FOLLOWERS.each;
/// Why a connection gives way.
pub(super) const CROWDED: &str =
    "too many connections of this user, or of all, are open; this one was silent for longest";

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It asks nothing.
    Idle,
    /// It waits until others of its user have their answers.
    Waiting,
    Answering,
    Following,
    /// It is an attached process, of which there is another bound.
    Attached,
    /// It gave way, and will notice.
    Ended,
}

#[derive(Debug)]
struct Connection {
    state: State,
    /// When it began with that, counted in changes of anybody's.
    since: u64,
    ended: Arc<Notify>,
}

/// What the connections of one user share.
#[derive(Debug)]
struct User {
    answers: Semaphore,
    /// When the next answer may be made.
    turn: Turn<Instant>,
}

#[derive(Debug, Default)]
struct Present {
    changes: u64,
    users: BTreeMap<u32, (Arc<User>, BTreeMap<u64, Connection>)>,
}

/// Everybody who asks.
#[derive(Debug, Default)]
pub(super) struct Users(Mutex<Present>);

/// One connection of a user.
#[derive(Debug)]
pub(super) struct Asker {
    users: Arc<Users>,
    number: u32,
    id: u64,
    user: Arc<User>,
    ended: Arc<Notify>,
}

/// While it is there its connection is being answered.
#[derive(Debug)]
pub(super) struct Answering<'a> {
    asker: &'a Asker,
    /// What it goes back to.
    after: State,
    _place: SemaphorePermit<'a>,
}

impl Present {
    /// Returns what it was.
    fn set(&mut self, number: u32, id: u64, state: State) -> State {
        self.changes += 1;
        let connection = self.users.get_mut(&number).and_then(|(_, all)| all.get_mut(&id));
        let Some(connection) = connection.filter(|one| one.state != State::Ended) else {
            return State::Ended;
        };
        connection.since = self.changes;
        std::mem::replace(&mut connection.state, state)
    }

    /// Makes room for one more of these: of the same user if he has all that one may have, or else of who has most. False
    /// if none of them `may_end`.
    fn make_room(
        &mut self,
        number: u32,
        room: Room,
        these: impl Fn(State) -> bool,
        may_end: impl Fn(State) -> bool,
    ) -> bool {
        let count = |all: &BTreeMap<u64, Connection>| all.values().filter(|one| these(one.state)).count();
        let own = self.users.get(&number).map_or(0, |(_, all)| count(all));
        if own >= room.each {
            return !room.lasting && self.end_oldest(number, &may_end);
        }
        if number == ROOT {
            return true;
        }
        let others = self.users.iter().filter(|(number, _)| **number != ROOT);
        let mut counts: Vec<_> = others.map(|(number, (_, all))| (count(all), *number)).collect();
        if counts.iter().map(|(count, _)| count).sum::<usize>() < room.all {
            return true;
        }
        counts.sort_unstable_by_key(|(count, number)| (Reverse(*count), *number));
        // Both would have as many, or the next would take it back.
        let least = own + if room.lasting { 2 } else { 0 };
        counts.retain(|(count, _)| *count >= least);
        counts.into_iter().any(|(_, number)| self.end_oldest(number, &may_end))
    }

    /// Ends what is idle for longest, or else what does anything else for longest.
    fn end_oldest(&mut self, number: u32, may_end: impl Fn(State) -> bool) -> bool {
        let Some((_, all)) = self.users.get_mut(&number) else { return false };
        let of_state = all.values_mut().filter(|one| may_end(one.state));
        let Some(oldest) = of_state.min_by_key(|one| (one.state != State::Idle, one.since)) else {
            return false;
        };
        oldest.state = State::Ended;
        oldest.ended.notify_one();
        true
    }
}

impl Users {
    fn lock(&self) -> MutexGuard<'_, Present> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more connection of a user, perhaps instead of another; none if there are too many that cannot give way.
    pub(super) fn enter(self: &Arc<Self>, number: u32) -> Option<Asker> {
        let mut present = self.lock();
        // An attached process and who is told of changes have bounds of their own.
        let gives_way = |state| matches!(state, State::Idle | State::Waiting | State::Answering);
        if !present.make_room(number, CONNECTIONS, |state| state != State::Ended, gives_way) {
            return None;
        }
        present.changes += 1;
        let (id, ended) = (present.changes, Arc::new(Notify::new()));
        let fresh = || {
            let user = User { answers: Semaphore::new(ANSWERS.each), turn: Turn::new(Instant::now()) };
            (Arc::new(user), BTreeMap::new())
        };
        let (user, all) = present.users.entry(number).or_insert_with(fresh);
        all.insert(id, Connection { state: State::Idle, since: id, ended: Arc::clone(&ended) });
        let user = Arc::clone(user);
        drop(present);
        Some(Asker { users: Arc::clone(self), number, id, user, ended })
    }
}

impl Asker {
    /// Comes when this connection is to end, once. Cancel safe.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Makes an answer, after others of the same user, who wait for each other and for nobody else. Until it is let go of,
    /// its reader is one of those of whom the slowest gives way. `costs` says that it takes the agent some time: there are not
    /// too many such answers a second.
    pub(super) async fn answer<T>(
        &self,
        costs: bool,
        make: impl FnOnce() -> T,
    ) -> Option<(T, Answering<'_>)> {
        let after = self.set(State::Waiting);
        let place = self.user.answers.acquire().await.ok()?;
        let answer = if costs {
            let mut turn = self.user.turn.lock().await;
            sleep_until(*turn).await;
            let answer = make();
            *turn = Instant::now() + GAP;
            answer
        } else {
            make()
        };
        let answering = |state| state == State::Answering;
        let mut present = self.users.lock();
        // Whoever has most has one that gives way.
        let _made = present.make_room(self.number, ANSWERS, answering, answering);
        present.set(self.number, self.id, State::Answering);
        drop(present);
        Some((answer, Answering { asker: self, after, _place: place }))
    }

    /// Becomes one that is told of changes, if there is room.
    pub(super) fn follow(&self) -> bool {
        let following = |state| state == State::Following;
        let mut present = self.users.lock();
        let may = present.make_room(self.number, FOLLOWERS, following, following);
        if may {
            present.set(self.number, self.id, State::Following);
        }
        may
    }

    /// Becomes an attached process.
    pub(super) fn attach(&self) {
        self.set(State::Attached);
    }

    fn set(&self, state: State) -> State {
        self.users.lock().set(self.number, self.id, state)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.asker.set(self.after);
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let mut present = self.users.lock();
        if let Some((_, all)) = present.users.get_mut(&self.number) {
            all.remove(&self.id);
            if all.is_empty() {
                present.users.remove(&self.number);
            }
        }
    }
}

#[cfg(test)]
mod tests;
