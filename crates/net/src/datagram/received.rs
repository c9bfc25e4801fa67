//! What one call of the kernel gave. Packets of one peer that arrived together lie behind each other and are opened in
//! place.

use super::Route;

/// Bytes of one slot: the most that the kernel hands over at once.
const SLOT: usize = 65_536;

/// Room for what arrives: 1 MiB, of which only what is used takes memory. Use it again for every call.
#[derive(Debug)]
pub struct Received {
    slots: Vec<Vec<u8>>,
    /// How many of them were used since they were cleared.
    used: usize,
    /// The slots, in order, that hold something.
    heads: Vec<(usize, Head)>,
}

/// Where in its slot an arrival lies, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) route: Route,
    pub(super) tos: u8,
    pub(super) segment: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Packets from one peer at one level.
#[derive(Debug)]
pub struct Arrival<'r> {
    /// From whom, and to which of our addresses.
    pub route: Route,
    /// The type of service that they arrived with.
    pub tos: u8,
    /// Bytes of each packet but the last.
    pub segment: usize,
    /// All of them behind each other.
    pub bytes: &'r mut [u8],
}

impl Arrival<'_> {
    /// Each packet, to be changed in place. Never more than [`segment`](Self::segment) bytes; an empty packet is none.
    pub fn packets(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_mut(self.segment.max(1))
    }
}

impl Default for Received {
    fn default() -> Self {
        Self {
            slots: (0..Self::SLOTS).map(|_| vec![0; SLOT]).collect(),
            used: 0,
            heads: Vec::with_capacity(Self::SLOTS),
        }
    }
}

impl Received {
    /// How much is taken before the caller gets its turn.
    pub(super) const SLOTS: usize = 16;

    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// What arrived, oldest first.
    pub fn arrivals(&mut self) -> impl Iterator<Item = Arrival<'_>> {
        let mut heads = self.heads.iter().peekable();
        self.slots.iter_mut().enumerate().filter_map(move |(index, slot)| {
            let (_, head) = heads.next_if(|(filled, _)| *filled == index)?;
            let bytes = &mut slot[head.start..head.end];
            Some(Arrival { route: head.route, tos: head.tos, segment: head.segment, bytes })
        })
    }

    /// How many bytes have arrived.
    pub(super) fn bytes(&self) -> usize {
        self.heads.iter().map(|(_, head)| head.end - head.start).sum()
    }

    pub(super) fn clear(&mut self) {
        self.heads.clear();
        self.used = 0;
    }

    /// The slots that are left.
    pub(super) fn free(&mut self) -> &mut [Vec<u8>] {
        &mut self.slots[self.used..]
    }

    /// The next slot was filled.
    pub(super) fn filled(&mut self, head: Head) {
        debug_assert!(head.start <= head.end && head.end <= SLOT);
        self.heads.push((self.used, head));
        self.used += 1;
    }

    /// The next slot was filled with what is to be dropped.
    pub(super) fn passed(&mut self) {
        self.used += 1;
    }
}
