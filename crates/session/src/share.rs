//! What a process tells the arbiter of its host about each network, and what the arbiter answers ([`Arbiter`](crate::Arbiter)).
//!
//! Both go over a socket of the host as lists of their fields, under the names that they have here. Rates are whole bytes a
//! second, amounts whole bytes, numbers of networks plain numbers.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use steadfast_wire::{Instant, NetworkId};

/// The longest that a share is obeyed without another one, whatever it says of itself.
const LONGEST: Duration = Duration::from_secs(5);

/// What a process does on the networks of its host; those on which it has no path are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// One entry for each network, in the order of their numbers.
    pub networks: Vec<NetworkUse>,
}

/// What a process did on one network since it was asked before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkUse {
    /// The network, as the system numbers it.
    pub network: NetworkId,
    /// Its name, for people.
    pub name: String,
    /// Paths there that are up.
    pub paths: u32,
    /// The highest rate that the paths which carry background there lately had, in all; in bytes a second, 0 if it was not
    /// measured.
    pub rate: u64,
    /// Foreground, and what is needed beside messages, that arrived: bytes a second.
    pub foreground: u64,
    /// Background that arrived: bytes a second.
    pub background: u64,
    /// Large messages of foreground waited for the network.
    pub foreground_waits: bool,
    /// Background waited for the network, or for its share of it.
    pub background_waits: bool,
    /// What the network can carry is still being found out, without a share: `rate` and `background` say less than that.
    pub starting: bool,
    /// Nothing has queued for some round trips on the paths there that carry background: more may go.
    pub room: bool,
}

/// What part of one network the background of a process may have. It is obeyed until `valid` has passed; without a share
/// a process does as it does alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The network, as the system numbers it.
    pub network: NetworkId,
    /// How much background may go there, in bytes a second; `None` for as much as there is room for. However little it says,
    /// a packet a second goes.
    pub rate: Option<u64>,
    /// How much background may queue in the network beyond what it holds anyway, in bytes; for a process with several
    /// paths there it is what all of them may.
    pub queue: u64,
    /// Another process has foreground there now. Rate and queue take that into account already.
    pub foreground: bool,
    /// When this number is another one than before, the process lets its part of the queue run empty for a round trip. All
    /// processes do so at once, and see what the delay is without them.
    pub drain: u64,
    /// How long this is obeyed unless it is said again, at most 5 s. Over a socket it is `valid_ms`, in whole milliseconds.
    pub valid: Duration,
}

/// What a share allows one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allotment {
    /// Bytes a second.
    pub(crate) rate: u64,
    /// What may queue, in bytes.
    pub(crate) queue: u64,
    pub(crate) until: Instant,
}

/// A share that is obeyed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) share: Share,
    pub(crate) until: Instant,
}

impl Kept {
    pub(crate) fn new(now: Instant, share: Share) -> Self {
        Self { share, until: now + share.valid.min(LONGEST) }
    }
}
