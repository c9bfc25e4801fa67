//! Which of the messages that arrive over a link may go on: a few at a time, shortest remaining first, and no peer a second
//! one before every peer has its first.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use steadfast_wire::Instant;

/// The order of messages: bytes not yet received, then age. The RPC makes it unique.
pub(crate) type Key = (u32, Instant, u32);

/// A message that is granted.
#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    peer: u32,
    /// Something arrived, or there was no room: it may be time for a grant.
    due: bool,
}

/// A peer's messages that wait to be granted.
#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeSet<Key>,
    /// How many of its messages are granted.
    active: u32,
}

/// What is granted are the best `limit` messages by (place in the peer's own order, order of messages).
#[derive(Debug)]
pub(crate) struct Grants {
    slots: Vec<Slot>,
    limit: usize,
    /// By peer.
    queues: Vec<Queue>,
    /// For each peer with waiting messages its first one, behind those that it has active.
    heads: BTreeSet<(u32, Key, u32)>,
    /// All messages that are not granted whole, oldest first.
    ages: BTreeSet<(Instant, u32)>,
}

impl Grants {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), limit, queues: Vec::new(), heads: BTreeSet::new(), ages: BTreeSet::new() }
    }

    /// How many messages are granted at present.
    pub(crate) fn active(&self) -> usize {
        self.slots.len()
    }

    /// How many are here, granted or waiting.
    pub(crate) fn len(&self) -> usize {
        self.ages.len()
    }

    /// Oldest first.
    pub(crate) fn by_age(&self) -> impl Iterator<Item = u32> + '_ {
        self.ages.iter().map(|(_, rpc)| *rpc)
    }

    /// How many active messages are better: the rank of an active one.
    pub(crate) fn rank(&self, key: Key) -> usize {
        self.slots.iter().filter(|slot| slot.key < key).count()
    }

    /// A message that needs grants.
    pub(crate) fn insert(&mut self, peer: u32, key: Key) {
        self.ages.insert((key.1, key.2));
        if self.queues.len() <= peer as usize {
            self.queues.resize_with(peer as usize + 1, Queue::default);
        }
        self.enqueue(peer, key);
        self.settle(peer);
    }

    /// Something of a message arrived. Returns whether it moved up to be granted.
    pub(crate) fn update(&mut self, peer: u32, old: Key, new: Key) -> bool {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.key.2 == new.2) {
            slot.key = new;
            slot.due = true;
            return false;
        }
        self.dequeue(peer, old);
        self.enqueue(peer, new);
        self.settle(peer);
        self.slots.iter().any(|slot| slot.key.2 == new.2)
    }

    /// A message that needs no more grants.
    pub(crate) fn remove(&mut self, peer: u32, key: Key) {
        self.ages.remove(&(key.1, key.2));
        match self.slots.iter().position(|slot| slot.key.2 == key.2) {
            Some(index) => {
                self.vacate(index);
                self.settle(peer);
            }
            None => self.dequeue(peer, key),
        }
    }

    /// The best message that may be due for a grant, of those behind `after`.
    pub(crate) fn due(&self, after: Option<Key>) -> Option<Key> {
        let due = self.slots.iter().filter(|slot| slot.due && after.is_none_or(|after| slot.key > after));
        due.map(|slot| slot.key).min()
    }

    /// A message is granted as far as it may be for now.
    pub(crate) fn served(&mut self, rpc: u32) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.key.2 == rpc) {
            slot.due = false;
        }
    }

    fn set_head(&mut self, peer: u32, present: bool) {
        let queue = &self.queues[peer as usize];
        if let Some(first) = queue.waiting.first() {
            let head = (queue.active, *first, peer);
            if present {
                self.heads.insert(head);
            } else {
                self.heads.remove(&head);
            }
        }
    }

    fn enqueue(&mut self, peer: u32, key: Key) {
        self.set_head(peer, false);
        self.queues[peer as usize].waiting.insert(key);
        self.set_head(peer, true);
    }

    fn dequeue(&mut self, peer: u32, key: Key) {
        self.set_head(peer, false);
        self.queues[peer as usize].waiting.remove(&key);
        self.set_head(peer, true);
    }

    /// Takes a message out of its slot without putting it anywhere.
    fn vacate(&mut self, index: usize) -> Slot {
        let slot = self.slots.swap_remove(index);
        self.set_head(slot.peer, false);
        self.queues[slot.peer as usize].active -= 1;
        self.set_head(slot.peer, true);
        slot
    }

    fn demote(&mut self, index: usize) {
        let slot = self.vacate(index);
        self.enqueue(slot.peer, slot.key);
    }

    fn promote(&mut self, peer: u32, key: Key) {
        self.dequeue(peer, key);
        self.set_head(peer, false);
        self.queues[peer as usize].active += 1;
        self.set_head(peer, true);
        self.slots.push(Slot { key, peer, due: true });
    }

    /// Makes the slots hold the best again after `peer` changed.
    fn settle(&mut self, peer: u32) {
        // Within the peer its best ones are active.
        while let Some(first) = self.queues[peer as usize].waiting.first().copied() {
            let own = (0..self.slots.len()).filter(|index| self.slots[*index].peer == peer);
            let Some(worst) = own.max_by_key(|index| self.slots[*index].key) else { break };
            if self.slots[worst].key < first {
                break;
            }
            self.demote(worst);
            self.promote(peer, first);
        }
        while let Some((active, key, from)) = self.heads.first().copied() {
            if self.slots.len() >= self.limit {
                let place = |index: &usize| {
                    let slot = &self.slots[*index];
                    (self.queues[slot.peer as usize].active - 1, slot.key)
                };
                // Of a peer's active messages only the worst has this place, and it is the largest of them.
                let Some(worst) = (0..self.slots.len()).max_by_key(place) else { return };
                if place(&worst) < (active, key) {
                    return;
                }
                self.demote(worst);
            }
            self.promote(from, key);
        }
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.slots.len() <= self.limit, "overcommitment is bounded");
        let waiting: usize = self.queues.iter().map(|queue| queue.waiting.len()).sum();
        assert_eq!(waiting + self.slots.len(), self.ages.len(), "each message is in one place");
        for (peer, queue) in (0..).zip(&self.queues) {
            let active = self.slots.iter().filter(|slot| slot.peer == peer).count();
            assert_eq!(queue.active as usize, active, "a peer's active messages are counted");
            let head = queue.waiting.first().map(|key| (queue.active, *key, peer));
            assert!(head.is_none_or(|head| self.heads.contains(&head)), "each first one is known");
        }
        let heads = self.queues.iter().filter(|queue| !queue.waiting.is_empty()).count();
        assert_eq!(self.heads.len(), heads, "and no other");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use steadfast_wire::rng::Rng;

    /// The best by (place in the peer's own order, order of messages), computed from all.
    fn best(all: &BTreeMap<u32, (u32, Key)>, limit: usize) -> Vec<u32> {
        let mut keys: Vec<(u32, Key)> = all.values().copied().collect();
        keys.sort_by_key(|(_, key)| *key);
        let mut places: BTreeMap<u32, u32> = BTreeMap::new();
        let mut placed: Vec<(u32, Key)> = keys
            .into_iter()
            .map(|(peer, key)| {
                let place = places.entry(peer).or_default();
                *place += 1;
                (*place, key)
            })
            .collect();
        placed.sort_unstable();
        let mut best: Vec<u32> = placed.into_iter().take(limit).map(|(_, key)| key.2).collect();
        best.sort_unstable();
        best
    }

    #[test]
    fn the_slots_hold_the_best_after_every_change() {
        let mut rng = Rng::new([3; 32]);
        for limit in [1, 2, 5, 8] {
            let mut grants = Grants::new(limit);
            let mut all: BTreeMap<u32, (u32, Key)> = BTreeMap::new();
            for step in 0..4000_u32 {
                let some = all.keys().nth(rng.bits() as usize % all.len().max(1)).copied();
                match (rng.bits() % 5, some) {
                    (0 | 1, _) if all.len() < 40 => {
                        let peer = (rng.bits() % 4) as u32;
                        let key = ((rng.bits() % 50) as u32 + 50, Instant(u64::from(step)), step);
                        grants.insert(peer, key);
                        all.insert(step, (peer, key));
                    }
                    (2, Some(rpc)) => {
                        let (peer, key) = all[&rpc];
                        grants.remove(peer, key);
                        all.remove(&rpc);
                    }
                    (_, Some(rpc)) => {
                        let (peer, old) = all[&rpc];
                        let new = (old.0.saturating_sub((rng.bits() % 30) as u32), old.1, rpc);
                        grants.update(peer, old, new);
                        all.insert(rpc, (peer, new));
                    }
                    _ => {}
                }
                grants.check_invariants();
                let mut active: Vec<u32> = grants.slots.iter().map(|slot| slot.key.2).collect();
                active.sort_unstable();
                assert_eq!(active, best(&all, limit), "limit {limit}, step {step}");
                assert_eq!(grants.by_age().next(), all.keys().next().copied());
            }
        }
    }

    #[test]
    fn every_peer_gets_one_slot_before_any_gets_a_second() {
        let mut grants = Grants::new(2);
        for (rpc, left) in [(1, 10), (2, 20), (3, 30)] {
            grants.insert(0, (left, Instant(0), rpc));
        }
        grants.insert(1, (1_000_000, Instant(0), 9));
        let mut active: Vec<u32> = grants.slots.iter().map(|slot| slot.key.2).collect();
        active.sort_unstable();
        assert_eq!(active, [1, 9]);
    }

    #[test]
    fn fewer_unreceived_bytes_outrank_and_age_decides_a_tie() {
        let mut grants = Grants::new(1);
        grants.insert(0, (100, Instant(5), 1));
        grants.insert(1, (100, Instant(4), 2));
        assert_eq!(grants.due(None).map(|key| key.2), Some(2));
        assert!(grants.update(0, (100, Instant(5), 1), (99, Instant(5), 1)));
        assert_eq!(grants.due(None).map(|key| key.2), Some(1));
        grants.served(1);
        assert_eq!(grants.due(None), None);
    }
}
