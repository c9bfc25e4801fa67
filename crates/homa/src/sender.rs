//! What leaves over a link, in which order and when: control packets at once, then messages with the fewest bytes left, as
//! fast as the link takes them.

use crate::config::Config;
use crate::id::PeerId;
use crate::packet::Packet;
use alloc::collections::{BTreeSet, VecDeque};
use steadfast_wire::{Instant, time};

/// How often in a thousand the oldest message goes first; spread evenly.
const THOUSAND: u32 = 1000;

#[derive(Debug)]
pub(crate) struct Sender {
    /// Bits a second; 0 if nothing is paced.
    pub(crate) rate: u64,
    /// By bytes left, age, RPC.
    ready: BTreeSet<(u32, Instant, u32)>,
    ages: BTreeSet<(Instant, u32)>,
    pub(crate) control: VecDeque<(PeerId, Packet)>,
    /// When the link will have sent all that it was given.
    idle_at: Instant,
    /// Thousandths of a pick that the oldest message is owed.
    owed: u32,
}

impl Sender {
    pub(crate) const fn new(rate: u64) -> Self {
        Self {
            rate,
            ready: BTreeSet::new(),
            ages: BTreeSet::new(),
            control: VecDeque::new(),
            idle_at: Instant(0),
            owed: 0,
        }
    }

    /// A message moves in the order; `None` is not in it.
    pub(crate) fn place(&mut self, old: Option<(u32, Instant, u32)>, new: Option<(u32, Instant, u32)>) {
        if let Some(key) = old {
            self.ready.remove(&key);
        }
        match (old, new) {
            (Some((_, birth, rpc)), None) => _ = self.ages.remove(&(birth, rpc)),
            (None, Some((_, birth, rpc))) => _ = self.ages.insert((birth, rpc)),
            _ => {}
        }
        if let Some(key) = new {
            self.ready.insert(key);
        }
    }

    /// The message to send from now, if the link has room. Each answer counts as a pick.
    pub(crate) fn next(&mut self, now: Instant, config: &Config) -> Option<u32> {
        let (left, _, shortest) = *self.ready.first()?;
        if !self.has_room(now, config) {
            return (left < config.defer_min).then_some(shortest);
        }
        self.owed += config.pacer_fifo_share;
        if self.owed < THOUSAND {
            return Some(shortest);
        }
        self.owed -= THOUSAND;
        self.ages.first().map(|(_, rpc)| *rpc)
    }

    /// Whether the link takes a packet of the message at this place now, before those of others.
    pub(crate) fn is_next(&self, now: Instant, place: (u32, Instant, u32), config: &Config) -> bool {
        self.ready.first() == Some(&place) && (self.has_room(now, config) || place.0 < config.defer_min)
    }

    fn has_room(&self, now: Instant, config: &Config) -> bool {
        self.rate == 0 || self.idle_at <= now + config.max_backlog
    }

    /// Bytes that the link takes before it has enough for now.
    pub(crate) fn room(&self, now: Instant, config: &Config) -> u64 {
        if self.rate == 0 {
            return u64::MAX;
        }
        let left = (now + config.max_backlog).since(self.idle_at.max(now));
        u64::try_from(left.as_nanos() * self.usable(config) / 8_000_000_000).unwrap_or(u64::MAX)
    }

    /// Bits a second.
    fn usable(&self, config: &Config) -> u128 {
        u128::from(self.rate) * u128::from(config.link_usage) / 100
    }

    /// Bytes go out, headers included.
    pub(crate) fn charge(&mut self, now: Instant, bytes: u64, config: &Config) {
        let bits = u128::from(bytes) * 8 * 1_000_000_000;
        if let Some(nanos) = bits.checked_div(self.usable(config)) {
            self.idle_at = Instant(self.idle_at.max(now).0.saturating_add(nanos as u64));
        }
    }

    /// When something can be sent that cannot be now.
    pub(crate) fn wakes_at(&self, config: &Config) -> Option<Instant> {
        let (left, ..) = self.ready.first()?;
        if self.rate == 0 || *left < config.defer_min {
            return Some(Instant(0));
        }
        Some(Instant(self.idle_at.0.saturating_sub(time::nanos(config.max_backlog))))
    }

    pub(crate) fn len(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn check_invariants(&self, config: &Config) {
        assert_eq!(self.ready.len(), self.ages.len(), "each message in both orders");
        assert!(self.control.len() <= config.max_control, "control packets are bounded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    fn key(left: u32, rpc: u32) -> (u32, Instant, u32) {
        (left, Instant(u64::from(rpc)), rpc)
    }

    #[test]
    fn the_fewest_bytes_left_go_first() {
        let config = Config { pacer_fifo_share: 0, ..Config::default() };
        let mut sender = Sender::new(0);
        sender.place(None, Some(key(5000, 1)));
        sender.place(None, Some(key(2000, 2)));
        assert_eq!(sender.next(Instant(0), &config), Some(2));
        sender.place(Some(key(5000, 1)), Some(key(1500, 1)));
        assert_eq!(sender.next(Instant(0), &config), Some(1));
        sender.place(Some(key(1500, 1)), None);
        sender.place(Some(key(2000, 2)), None);
        assert_eq!(sender.next(Instant(0), &config), None);
        sender.check_invariants(&config);
    }

    #[test]
    fn the_oldest_gets_its_share_of_picks() {
        let config = Config { pacer_fifo_share: 50, ..Config::default() };
        let mut sender = Sender::new(0);
        sender.place(None, Some(key(1_000_000, 1)));
        sender.place(None, Some(key(2000, 2)));
        let picks = (0..1000).filter(|_| sender.next(Instant(0), &config) == Some(1)).count();
        assert_eq!(picks, 50);
    }

    #[test]
    fn a_link_gets_no_more_than_it_can_send_and_short_messages_do_not_wait() {
        let config = Config { max_backlog: Duration::from_micros(5), ..Config::default() };
        let mut sender = Sender::new(1_000_000_000);
        sender.place(None, Some(key(100_000, 1)));
        let now = Instant(1_000_000);
        assert_eq!(sender.next(now, &config), Some(1));
        sender.charge(now, 1500, &config);
        // 12 µs at 1 Gbit/s, and a hundredth more.
        assert_eq!(sender.next(now, &config), None);
        let ready = sender.wakes_at(&config);
        assert_eq!(ready, Some(Instant(1_000_000 + 12_121 - 5000)));
        assert_eq!(sender.next(ready.unwrap_or_default(), &config), Some(1));
        sender.place(None, Some(key(999, 2)));
        assert_eq!(sender.next(now, &config), Some(2));
    }
}
