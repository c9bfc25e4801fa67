//! What most messages never need: limits of time, a second copy, a word to the peer about what became of them.

use crate::seldom::Blank;
use alloc::collections::{BTreeMap, BTreeSet};
use steadfast_wire::{Instant, PathNumber};

#[derive(Debug, Default)]
pub(crate) struct Special {
    /// When the wait of a message is over.
    pub(super) deadlines: BTreeSet<(Instant, u64)>,
    /// Messages that may be without a network for so long only, until the peer's library has them.
    pub(super) impatient: BTreeSet<u64>,
    /// Messages that are to go out once more, and on which path.
    pub(crate) copies: BTreeMap<u64, PathNumber>,
    /// Messages of which a RESET is due.
    pub(crate) resets: BTreeSet<u64>,
    /// Messages of which a RELABEL is due.
    pub(crate) relabels: BTreeSet<u64>,
}

impl Blank for Special {
    fn blank() -> &'static Self {
        static BLANK: Special = Special {
            deadlines: BTreeSet::new(),
            impatient: BTreeSet::new(),
            copies: BTreeMap::new(),
            resets: BTreeSet::new(),
            relabels: BTreeSet::new(),
        };
        &BLANK
    }
}

impl Special {
    /// The message is not waited for any more, nor is a copy of any use.
    pub(super) fn release(&mut self, id: u64) {
        self.impatient.remove(&id);
        self.copies.remove(&id);
    }

    /// The peer knows what became of the message.
    pub(super) fn told(&mut self, id: u64) {
        self.resets.remove(&id);
        self.relabels.remove(&id);
    }
}
