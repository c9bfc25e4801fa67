//! Which descriptors the connections of this process have, so that a forked child can let go of its parent's, where it
//! may take no lock and the threads that hold them are not there.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// As many as are kept in mind; an agent takes fewer of one user.
const MOST: usize = 1024;
const NONE: RawFd = -1;

static OPEN: [AtomicI32; MOST] = [const { AtomicI32::new(NONE) }; MOST];

/// A descriptor that is known here for as long as it is open.
#[derive(Debug)]
pub(crate) struct Noted(OwnedFd);

impl Noted {
    pub(crate) fn new(descriptor: OwnedFd) -> Self {
        let number = descriptor.as_raw_fd();
        // Beyond the most, a child lets go of it when it makes its first call.
        let put = |slot: &AtomicI32| {
            slot.compare_exchange(NONE, number, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let _found = OPEN.iter().any(put);
        Self(descriptor)
    }

    pub(crate) const fn owned(&self) -> &OwnedFd {
        &self.0
    }
}

impl AsFd for Noted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        // Before it is closed, or its number might be another's already.
        let number = self.0.as_raw_fd();
        let take = |slot: &AtomicI32| {
            slot.compare_exchange(number, NONE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let _known = OPEN.iter().any(take);
    }
}

/// In a forked child, before it does anything else: the descriptors of its parent's connections, each once. They stay
/// owned, so the child may put something else in their place and may not close them. Takes no lock and no memory.
pub fn inherited() -> impl Iterator<Item = RawFd> {
    OPEN.iter().map(|slot| slot.swap(NONE, Ordering::AcqRel)).filter(|number| *number != NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    /// Alone: what it takes is everybody's.
    #[test]
    fn open_ones_are_known() {
        let open = || Noted::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let (one, two, three) = (open(), open(), open());
        let numbers = [one.0.as_raw_fd(), three.0.as_raw_fd()];
        drop(two);
        let mut found: Vec<_> = inherited().collect();
        found.sort_unstable();
        assert_eq!(found, numbers);
        assert_eq!(inherited().count(), 0);
        drop((one, three));
    }
}
