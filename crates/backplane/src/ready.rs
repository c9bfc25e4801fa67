//! Who has something to take: each named once until it has taken everything.

use alloc::collections::VecDeque;

/// What is known of one.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    /// Whether it has something, and that was said, or is about to be.
    told: bool,
    /// Whether it stands in the list.
    listed: bool,
}

/// Those that are to be named, in order. No longer than there are notices.
#[derive(Debug)]
pub(crate) struct Ready<Id>(VecDeque<Id>);

impl<Id: Copy + PartialEq> Ready<Id> {
    pub(crate) const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// There is something to take.
    pub(crate) fn raise(&mut self, id: Id, notice: &mut Notice) {
        if !notice.told {
            notice.told = true;
            if !core::mem::replace(&mut notice.listed, true) {
                self.0.push_back(id);
            }
        }
    }

    /// The next that may have something; [`Notice::name`] says whether it has.
    pub(crate) fn pop(&mut self) -> Option<Id> {
        self.0.pop_front()
    }

    /// It is gone.
    pub(crate) fn remove(&mut self, id: Id, notice: &Notice) {
        if notice.listed {
            self.0.retain(|listed| *listed != id);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Notice {
    /// It left the list; whether there is something still.
    pub(crate) const fn name(&mut self) -> bool {
        self.listed = false;
        self.told
    }

    /// It has taken everything.
    pub(crate) const fn clear(&mut self) {
        self.told = false;
    }

    pub(crate) const fn is_told(&self) -> bool {
        self.told
    }
}
