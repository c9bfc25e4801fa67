//! Which directories are open, and when all that lies in one is settled, so that it gets its mode and its time.

use crate::manifest::Time;
use std::collections::HashMap;

/// A directory's number here; 0 is the receiver's own.
pub(crate) type DirectoryId = u64;

/// A directory of which everything is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) path: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) modified: Time,
    /// Something in it failed, and is to find room when it is sent again.
    pub(crate) failed: bool,
}

/// Bounded by what is open: the chain of directories, and those that hold something that is not settled.
#[derive(Debug)]
pub(crate) struct Directories {
    chain: Vec<DirectoryId>,
    pending: HashMap<DirectoryId, Pending>,
    next: DirectoryId,
}

#[derive(Debug)]
struct Pending {
    parent: DirectoryId,
    /// Entries in it that are not settled, directories of which not everything is, and one more while it is in the chain.
    count: usize,
    settled: Settled,
}

impl Default for Directories {
    fn default() -> Self {
        Self { chain: vec![0], pending: HashMap::new(), next: 1 }
    }
}

impl Directories {
    /// An entry lies so deep in the chain: the directory that holds it, and those that were left and are settled.
    pub(crate) fn enter(&mut self, depth: usize) -> (DirectoryId, Vec<Settled>) {
        let mut settled = Vec::new();
        while self.chain.len() > depth + 1 {
            let left = self.chain.pop().unwrap_or_default();
            self.release(left, &mut settled);
        }
        let holder = self.chain.last().copied().unwrap_or_default();
        if let Some(pending) = self.pending.get_mut(&holder) {
            pending.count += 1;
        }
        (holder, settled)
    }

    /// The entry that was entered last is a directory: it is in the chain now.
    pub(crate) fn push(&mut self, parent: DirectoryId, settled: Settled) {
        if let Some(above) = self.pending.get_mut(&parent) {
            above.count += 1;
        }
        self.pending.insert(self.next, Pending { parent, count: 1, settled });
        self.chain.push(self.next);
        self.next += 1;
    }

    /// Something in `directory` failed.
    pub(crate) fn failed(&mut self, directory: DirectoryId) {
        if let Some(pending) = self.pending.get_mut(&directory) {
            pending.settled.failed = true;
        }
    }

    /// Something in `directory` is settled.
    pub(crate) fn release(&mut self, mut directory: DirectoryId, settled: &mut Vec<Settled>) {
        while let Some(pending) = self.pending.get_mut(&directory) {
            pending.count -= 1;
            if pending.count > 0 {
                return;
            }
            let Some(pending) = self.pending.remove(&directory) else { return };
            settled.push(pending.settled);
            directory = pending.parent;
        }
    }

    /// Nothing more comes: those that are settled now.
    pub(crate) fn end(&mut self) -> Vec<Settled> {
        let mut settled = Vec::new();
        while self.chain.len() > 1 {
            let left = self.chain.pop().unwrap_or_default();
            self.release(left, &mut settled);
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str) -> Settled {
        Settled { path: path.into(), mode: 0, modified: Time::default(), failed: false }
    }

    #[test]
    fn a_directory_is_settled_after_all_in_it() {
        let mut directories = Directories::default();
        let (top, _) = directories.enter(0);
        directories.push(top, named("a"));
        let (a, none) = directories.enter(1);
        directories.push(a, named("a/b"));
        assert_eq!((a, none.len()), (1, 0));
        let (b, _) = directories.enter(2);
        // Both directories were made, which settles their entries.
        let mut settled = Vec::new();
        directories.release(top, &mut settled);
        directories.release(a, &mut settled);
        assert_eq!(settled, []);
        // A file in `a`, after `a/b` was left; the one in `a/b` is not settled.
        assert_eq!(directories.enter(1), (a, vec![]));
        directories.release(b, &mut settled);
        assert_eq!(settled, [named("a/b")]);
        assert_eq!(directories.end(), []);
        settled.clear();
        directories.release(a, &mut settled);
        assert_eq!(settled, [named("a")]);
        assert!(directories.pending.is_empty());
    }
}
