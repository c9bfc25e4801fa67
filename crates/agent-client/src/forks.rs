//! Which descriptors the connections of this process have, so that a forked child can let go of its parent's, where it
//! may take no lock and the threads that hold them are not there.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

/// As many as are kept in mind; an agent takes fewer of one user.
const MOST: usize = 1024;
const NONE: RawFd = -1;

static OPEN: [AtomicI32; MOST] = [const { AtomicI32::new(NONE) }; MOST];

/// Forks that have begun, and connections that are being opened or closed. Of both only one kind goes on at a time: a
/// descriptor that a fork met before it was known here would stay in the child.
static FORKS: AtomicU32 = AtomicU32::new(0);
static CHANGES: AtomicU32 = AtomicU32::new(0);

/// How long one of a kind waits before it looks again, and how often a fork does: a program that forks in a signal
/// handler, in the middle of a change, would wait for itself.
const LOOK: Duration = Duration::from_micros(50);
const LOOKS: u32 = 10_000;

/// To be called before a fork, and [`after_fork`] after it, in the parent.
pub fn before_fork() {
    FORKS.fetch_add(1, Ordering::SeqCst);
    let mut looks = 0;
    while CHANGES.load(Ordering::SeqCst) > 0 && looks < LOOKS {
        std::thread::sleep(LOOK);
        looks += 1;
    }
}

/// See [`before_fork`].
pub fn after_fork() {
    FORKS.fetch_sub(1, Ordering::SeqCst);
}

/// A connection is being opened or closed, for the moment of two system calls.
#[derive(Debug)]
struct Change;

impl Change {
    fn begin() -> Self {
        loop {
            CHANGES.fetch_add(1, Ordering::SeqCst);
            if FORKS.load(Ordering::SeqCst) == 0 {
                return Self;
            }
            CHANGES.fetch_sub(1, Ordering::SeqCst);
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        CHANGES.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A descriptor that is known here for as long as it is open.
#[derive(Debug)]
pub(crate) struct Noted {
    descriptor: OwnedFd,
    /// While it is being closed. Dropped after it.
    change: Option<Change>,
}

impl Noted {
    pub(crate) fn open<E>(open: impl FnOnce() -> Result<OwnedFd, E>) -> Result<Self, E> {
        let _change = Change::begin();
        let descriptor = open()?;
        let number = descriptor.as_raw_fd();
        // Beyond the most, a child lets go of it when it makes its first call.
        let put = |slot: &AtomicI32| {
            slot.compare_exchange(NONE, number, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let _found = OPEN.iter().any(put);
        Ok(Self { descriptor, change: None })
    }

    pub(crate) const fn owned(&self) -> &OwnedFd {
        &self.descriptor
    }
}

impl AsFd for Noted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.change = Some(Change::begin());
        // Before it is closed, or its number might be another's already.
        let number = self.descriptor.as_raw_fd();
        let take = |slot: &AtomicI32| {
            slot.compare_exchange(number, NONE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let _known = OPEN.iter().any(take);
    }
}

/// In a forked child, before it does anything else: the descriptors of its parent's connections, each once. They stay
/// owned, so the child may put something else in their place and may not close them. Takes no lock and no memory.
pub fn inherited() -> impl Iterator<Item = RawFd> {
    // Other threads are not here, and neither are their forks and changes.
    FORKS.store(0, Ordering::SeqCst);
    CHANGES.store(0, Ordering::SeqCst);
    OPEN.iter().map(|slot| slot.swap(NONE, Ordering::AcqRel)).filter(|number| *number != NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    /// Alone: what it takes is everybody's.
    #[test]
    fn open_ones_are_known() {
        let open = || Noted::open(|| eventfd(0, EventfdFlags::CLOEXEC)).unwrap();
        let (one, two, three) = (open(), open(), open());
        let numbers = [one.descriptor.as_raw_fd(), three.descriptor.as_raw_fd()];
        drop(two);
        let mut found: Vec<_> = inherited().collect();
        found.sort_unstable();
        assert_eq!(found, numbers);
        assert_eq!(inherited().count(), 0);
        drop((one, three));

        // A fork waits for what is being opened, and what is to be opened for the fork.
        let change = Change::begin();
        let fork = std::thread::spawn(before_fork);
        while FORKS.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        assert!(!fork.is_finished());
        drop(change);
        fork.join().unwrap();
        let opens = std::thread::spawn(move || drop(open()));
        for _ in 0..1000 {
            assert_eq!(OPEN.iter().filter(|slot| slot.load(Ordering::SeqCst) != NONE).count(), 0);
        }
        after_fork();
        opens.join().unwrap();
        assert_eq!((FORKS.load(Ordering::SeqCst), CHANGES.load(Ordering::SeqCst)), (0, 0));
    }
}
