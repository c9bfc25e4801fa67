//! What the application wants for messages of certain labels, beside what the labels themselves say. The peer never
//! learns it.

use crate::seldom::Blank;
use alloc::collections::BTreeMap;
use core::time::Duration;
use steadfast_wire::Labels;

/// Whether small foreground messages go out twice, over two paths at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Redundancy {
    /// Never: what is lost is said again once that is noticed.
    Never,
    /// What fits one packet (1,200 bytes with its labels and what it waits for) does while a path that may carry it is suspect.
    #[default]
    OnSuspicion,
    /// Every message that counts as small (to 16 KiB) does.
    Always,
}

/// By exact label value.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    timeouts: BTreeMap<Labels, Duration>,
    redundancy: BTreeMap<Labels, Redundancy>,
}

impl Blank for Policies {
    fn blank() -> &'static Self {
        static BLANK: Policies = Policies { timeouts: BTreeMap::new(), redundancy: BTreeMap::new() };
        &BLANK
    }
}

impl Policies {
    pub(crate) fn timeout(&self, labels: &Labels) -> Option<Duration> {
        // Most never set one.
        if self.timeouts.is_empty() { None } else { self.timeouts.get(labels).copied() }
    }

    pub(crate) fn set_timeout(&mut self, labels: &Labels, timeout: Option<Duration>) {
        match timeout {
            Some(timeout) => drop(self.timeouts.insert(labels.clone(), timeout)),
            None => drop(self.timeouts.remove(labels)),
        }
    }

    pub(crate) fn redundancy(&self, labels: &Labels) -> Redundancy {
        if self.redundancy.is_empty() {
            return Redundancy::default();
        }
        self.redundancy.get(labels).copied().unwrap_or_default()
    }

    pub(crate) fn set_redundancy(&mut self, labels: &Labels, redundancy: Redundancy) {
        if redundancy == Redundancy::default() {
            self.redundancy.remove(labels);
        } else {
            self.redundancy.insert(labels.clone(), redundancy);
        }
    }
}
