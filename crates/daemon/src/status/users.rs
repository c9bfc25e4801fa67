//! Who asks: each user has places of his own, so that none takes away those of others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// How many are answered at a time, and of one user.
const AT_ONCE: usize = 64;
const USER_AT_ONCE: usize = 32;
/// How many are told of changes at a time, and of one user; they take no place of those who ask.
const FOLLOWERS: usize = 256;
pub(super) const USER_FOLLOWERS: usize = 128;
/// Connections, those included that wait for a place, and of one user.
const CONNECTIONS: usize = 2048;
pub(super) const USER_CONNECTIONS: usize = 512;
/// Between two answers to one user that cost the agent some time.
const GAP: Duration = Duration::from_millis(5);

/// Everybody who asks.
#[derive(Debug)]
pub(super) struct Users {
    places: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    /// Who has connections, and how many.
    present: Mutex<HashMap<u32, (Arc<User>, usize)>>,
}

#[derive(Debug)]
struct User {
    places: Arc<Semaphore>,
    followers: Arc<Semaphore>,
    /// When the next answer may be made.
    turn: Turn<Instant>,
}

/// One connection of a user.
#[derive(Debug)]
pub(super) struct Asker {
    users: Arc<Users>,
    number: u32,
    user: Arc<User>,
}

/// A place among all, and among those of the same user.
#[derive(Debug)]
pub(super) struct Place {
    _both: [OwnedSemaphorePermit; 2],
}

impl Users {
    pub(super) fn new() -> Arc<Self> {
        let places = |count| Arc::new(Semaphore::new(count));
        Arc::new(Self { places: places(AT_ONCE), followers: places(FOLLOWERS), present: Mutex::default() })
    }

    /// One more connection of a user; none if there are too many.
    pub(super) fn enter(self: &Arc<Self>, number: u32) -> Option<Asker> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = present.values().map(|(_, count)| count).sum();
        let fresh = || {
            let places = Arc::new(Semaphore::new(USER_AT_ONCE));
            let followers = Arc::new(Semaphore::new(USER_FOLLOWERS));
            (Arc::new(User { places, followers, turn: Turn::new(Instant::now()) }), 0)
        };
        let (user, count) = present.entry(number).or_insert_with(fresh);
        if *count >= USER_CONNECTIONS || all >= CONNECTIONS {
            if *count == 0 {
                present.remove(&number);
            }
            return None;
        }
        *count += 1;
        Some(Asker { users: Arc::clone(self), number, user: Arc::clone(user) })
    }
}

impl Asker {
    /// Waits for a place among those who ask; first among those of the same user, who wait for each other and for
    /// nobody else.
    pub(super) async fn place(&self) -> Option<Place> {
        let of_user = Arc::clone(&self.user.places).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.users.places).acquire_owned().await.ok()?;
        Some(Place { _both: [of_user, of_all] })
    }

    /// A place among those who are told of changes, if there is one.
    pub(super) fn follow(&self) -> Option<Place> {
        let of_user = Arc::clone(&self.user.followers).try_acquire_owned().ok()?;
        let of_all = Arc::clone(&self.users.followers).try_acquire_owned().ok()?;
        Some(Place { _both: [of_user, of_all] })
    }

    /// Makes an answer that costs some time: one after the other, and not too many a second.
    pub(super) async fn make<T>(&self, answer: impl FnOnce() -> T) -> T {
        let mut turn = self.user.turn.lock().await;
        sleep_until(*turn).await;
        let answer = answer();
        *turn = Instant::now() + GAP;
        answer
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let mut present = self.users.present.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = present.get_mut(&self.number) {
            *count -= 1;
            if *count == 0 {
                present.remove(&self.number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[tokio::test]
    async fn one_user_leaves_room_for_others() {
        let users = Users::new();
        let many: Vec<_> = std::iter::from_fn(|| users.enter(1)).collect();
        assert_eq!(many.len(), USER_CONNECTIONS);
        let mut places = Vec::new();
        for asker in &many[..USER_AT_ONCE] {
            places.push(asker.place().await.unwrap());
        }
        let other = users.enter(2).unwrap();
        {
            let mut waits = pin!(many[USER_AT_ONCE].place());
            let mut context = Context::from_waker(Waker::noop());
            assert!(waits.as_mut().poll(&mut context).is_pending(), "one more of the same user waits");
            let place = pin!(other.place()).poll(&mut context);
            assert!(matches!(place, Poll::Ready(Some(_))), "and nobody else");
            places.pop();
            assert!(matches!(waits.as_mut().poll(&mut context), Poll::Ready(Some(_))));
        }

        let following: Vec<_> = std::iter::from_fn(|| many[0].follow()).collect();
        assert_eq!(following.len(), USER_FOLLOWERS);
        assert!(other.follow().is_some());
        drop((many, other));
        assert!(users.present.lock().unwrap().is_empty());
    }
}
