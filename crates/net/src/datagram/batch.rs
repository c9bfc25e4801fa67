//! Packets on their way out: neighbours for one peer at one level become one system call where their sizes allow it.

use super::Route;
use super::seal::{SealError, Sealer};
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// The most bytes in one packet: what UDP over IPv4 can carry.
pub const MAX_PACKET: usize = 65_507;
/// The most packets that the kernel splits one call into.
const MAX_SEGMENTS: usize = 64;

/// Packets to send, in order. Filled by [`push`](Self::push), emptied by [`Socket::try_send`](super::Socket::try_send); its
/// memory is used again.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    runs: VecDeque<Run>,
    /// Bytes of packets that are not in `bytes`.
    apart: usize,
}

/// Packets of one size, the last of which may be shorter, for one peer.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) route: Route,
    pub(super) tos: u8,
    pub(super) sealed: bool,
    /// Bytes of each packet but the last.
    pub(super) segment: usize,
    packets: usize,
    start: usize,
    end: usize,
    /// The rest of its only packet, where that is not copied.
    pub(super) rest: Bytes,
}

impl Run {
    pub(super) fn packets(&self) -> usize {
        self.packets
    }

    fn takes(&self, route: Route, tos: u8, sealed: bool, length: usize) -> bool {
        self.route == route
            && self.tos == tos
            && self.sealed == sealed
            && self.packets < MAX_SEGMENTS
            && self.rest.is_empty()
            // A shorter one ends a run.
            && self.end - self.start == self.packets * self.segment
            && (1..=self.segment).contains(&length)
            && self.end - self.start + length <= MAX_PACKET
    }
}

/// The family of a run's peer, and the interface if its address says so.
fn scope(run: &Run) -> Option<u32> {
    match run.route.remote {
        SocketAddr::V4(_) => None,
        SocketAddr::V6(remote) => Some(remote.scope_id()),
    }
}

impl Batch {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a packet, which `write` appends to the buffer that it is given, without touching what is there. One that is
    /// longer than [`MAX_PACKET`] is not added: the answer is false.
    pub fn push(&mut self, route: Route, tos: u8, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.add(route, tos, false, |out| {
            write(out);
            true
        })
    }

    /// The same for a packet whose end is `rest`, which is sent from where it lies. It is worth a call of its own where it is
    /// long.
    pub fn push_long(
        &mut self,
        route: Route,
        tos: u8,
        write: impl FnOnce(&mut Vec<u8>),
        rest: Bytes,
    ) -> bool {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let end = self.bytes.len();
        let segment = end - start + rest.len();
        if segment > MAX_PACKET {
            self.bytes.truncate(start);
            return false;
        }
        self.apart += rest.len();
        self.runs.push_back(Run { route, tos, sealed: false, segment, packets: 1, start, end, rest });
        true
    }

    /// The same, encrypted: [`Sealer::OVERHEAD`] bytes longer than what `write` appends. Packets of equal size stay so.
    pub fn push_sealed(
        &mut self,
        route: Route,
        tos: u8,
        sealer: &mut Sealer,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SealError> {
        let mut outcome = Ok(());
        let added = self.add(route, tos, true, |out| {
            outcome = sealer.seal(out, write);
            outcome.is_ok()
        });
        if added { Ok(()) } else { Err(outcome.err().unwrap_or(SealError::TooLong)) }
    }

    fn add(&mut self, route: Route, tos: u8, sealed: bool, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let start = self.bytes.len();
        let good = write(&mut self.bytes);
        let end = self.bytes.len();
        debug_assert!(end >= start, "a packet is appended");
        if !good || end - start > MAX_PACKET {
            self.bytes.truncate(start);
            return false;
        }
        match self.runs.back_mut() {
            Some(run) if run.takes(route, tos, sealed, end - start) => {
                run.packets += 1;
                run.end = end;
            }
            _ => {
                let (segment, rest) = (end - start, Bytes::new());
                self.runs.push_back(Run { route, tos, sealed, segment, packets: 1, start, end, rest });
            }
        }
        true
    }

    /// Whether nothing is left to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many packets are left to send.
    #[must_use]
    pub fn packets(&self) -> usize {
        self.runs.iter().map(|run| run.packets).sum()
    }

    /// How many bytes of packets are left to send.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.runs.front().map_or(0, |run| self.bytes.len() - run.start) + self.apart
    }

    /// Drops what is left.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.bytes.clear();
        self.apart = 0;
    }

    /// What goes out next, without what lies apart.
    pub(super) fn front(&self) -> Option<(&Run, &[u8])> {
        let run = self.runs.front()?;
        Some((run, &self.bytes[run.start..run.end]))
    }

    /// The runs at the front that are one packet each and differ in their peer and length only, at most `most`.
    pub(super) fn alike(&self, most: usize) -> Vec<(&Run, &[u8])> {
        let Some(front) = self.runs.front() else { return Vec::new() };
        let alike = |run: &&Run| {
            run.packets == 1
                && run.rest.is_empty()
                && (run.tos, run.sealed, run.route.local) == (front.tos, front.sealed, front.route.local)
                && scope(run) == scope(front)
        };
        let runs = self.runs.iter().take(most).take_while(alike);
        runs.map(|run| (run, &self.bytes[run.start..run.end])).collect()
    }

    /// Whether the first two runs are [`alike`](Self::alike).
    pub(super) fn has_alike(&self) -> bool {
        let alike = |run: &Run| run.packets == 1 && run.rest.is_empty();
        self.runs.len() > 1 && alike(&self.runs[0]) && alike(&self.runs[1])
    }

    /// The first `packets` of the front run are gone.
    pub(super) fn advance(&mut self, packets: usize) {
        let Some(run) = self.runs.front_mut() else { return };
        if packets < run.packets {
            run.packets -= packets;
            run.start += packets * run.segment;
            return;
        }
        self.apart -= run.rest.len();
        self.runs.pop_front();
        if self.runs.is_empty() {
            self.bytes.clear();
        }
    }

    /// Nothing of the front run is sent any more; how many packets that were.
    pub(super) fn skip(&mut self) -> usize {
        let packets = self.runs.front().map_or(0, |run| run.packets);
        self.advance(packets);
        packets
    }
}
