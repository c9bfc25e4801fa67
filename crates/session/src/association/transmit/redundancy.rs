//! Small foreground messages that go out on two paths at once, because one of them may be dead and not known to be.
//!
//! Recovery says again what is late; this is for what is new. The second copy is not in the books of the message: if
//! its path dies nothing is said again for it, and the receiver drops what it has already.

use super::Sheet;
use crate::association::Association;
use crate::context::Context;
use crate::path::{Cargo, Freight};
use crate::policy::Redundancy;
use crate::session::Item;
use alloc::vec::Vec;
use steadfast_wire::frame::{DATA_OVERHEAD, Data};
use steadfast_wire::{Instant, PathNumber, Rule, SessionId};

/// What fits one packet beside TLS and TCP, in bytes of the frame.
const ONE_PACKET: u64 = 1200;

/// How many bytes may still go out twice: the budget of a second at most.
#[derive(Debug, Default)]
pub(in crate::association) struct Budget {
    spent: u64,
    at: Instant,
}

impl Budget {
    /// Whether `bytes` may go out twice, of `rate` bytes a second.
    fn take(&mut self, now: Instant, rate: u64, bytes: u64) -> bool {
        let earned = u128::from(rate) * now.since(self.at).as_nanos() / 1_000_000_000;
        // What is less than a byte is earned next time.
        if earned > 0 {
            self.spent = self.spent.saturating_sub(u64::try_from(earned).unwrap_or(u64::MAX));
            self.at = now;
        }
        let fits = self.spent.saturating_add(bytes) <= rate;
        if fits {
            self.spent += bytes;
        }
        fits
    }
}

impl Association {
    /// A message has left, the last of it on the path `first`. Whether it is to go out on another one, too.
    pub(super) fn consider_copy(
        &mut self,
        cx: &mut Context,
        now: Instant,
        first: PathNumber,
        id: SessionId,
        message: u64,
    ) {
        // Mostly there is one path, or nothing is the matter.
        if self.paths.len() < 2 {
            return;
        }
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(labels) = session.out.labels(message) else { return };
        let redundancy = session.policies.redundancy(labels);
        let suspicious = redundancy == Redundancy::OnSuspicion && self.has_suspect(cx, &labels.rule);
        if redundancy != Redundancy::Always && !suspicious {
            return;
        }
        let Some(second) = self.second_path(cx, now, &labels.rule, first) else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some((_, data)) = session.out.copy_data(now, message) else { return };
        // Rules and dependencies may be longer than what they are said of.
        let bytes = encoded(&data).len() as u64;
        if suspicious && bytes > ONE_PACKET {
            return;
        }
        if self.redundancy.take(now, cx.config.redundancy_budget, bytes) {
            session.out.special.make().copies.insert(message, second);
        } else {
            cx.stats.refused_redundancy += 1;
        }
    }

    fn has_suspect(&self, cx: &Context, rule: &Rule) -> bool {
        self.paths
            .values()
            .any(|path| path.is_up() && path.suspect.is_some() && self.judge(cx, rule, path).is_some())
    }

    /// The path that would have a small message at the peer first if `first` was not there. What is to be avoided is not
    /// used for a copy, unless the first one is to be, too.
    fn second_path(&self, cx: &Context, now: Instant, rule: &Rule, first: PathNumber) -> Option<PathNumber> {
        let rank_of =
            |number: PathNumber| self.paths.get(&number).and_then(|path| self.judge(cx, rule, path));
        let worst = rank_of(first).map_or(1, |(rank, _)| rank.max(1));
        let others = self.paths.values().filter(|path| path.is_up() && path.number != first);
        others
            .filter_map(|path| {
                let (rank, cost) = self.judge(cx, rule, path).filter(|(rank, _)| *rank <= worst)?;
                let trouble = (path.suspect.is_some(), self.is_doubtful(path), path.blocked.is_some());
                let time = Self::predict(path, now, ONE_PACKET);
                Some((trouble, rank, time, cost, path.number))
            })
            .min()
            .map(|(.., number)| number)
    }

    /// Says the copies that are for this path.
    pub(super) fn fill_copies(
        &mut self,
        cx: &mut Context,
        now: Instant,
        number: PathNumber,
        sheet: &mut Sheet<'_>,
    ) {
        let due = |id: &SessionId| self.sessions.get(id).is_some_and(|s| s.may_send() && s.out.has_copies());
        for id in self.work.iter().copied().filter(due).collect::<Vec<_>>() {
            let Some(session) = self.sessions.get(&id) else { continue };
            let here = session.out.special.copies.iter().filter(|(_, path)| **path == number);
            for message in here.map(|(message, _)| *message).collect::<Vec<_>>() {
                if sheet.data_room() == 0 {
                    break;
                }
                self.say_copy(cx, now, number, id, message, sheet);
            }
            self.touch(id);
        }
    }

    fn say_copy(
        &mut self,
        cx: &mut Context,
        now: Instant,
        number: PathNumber,
        id: SessionId,
        message: u64,
        sheet: &mut Sheet<'_>,
    ) {
        let allowed = |association: &Self| {
            let rule = &association.sessions.get(&id)?.out.labels(message)?.rule;
            let path = association.paths.get(&number)?;
            association.may_carry(cx, rule, path).then(|| rule.clone())
        };
        let rule = allowed(self);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let copy = rule.and_then(|rule| Some((rule, session.out.copy_data(now, message)?)));
        let frame = copy.as_ref().map(|(_, (_, data))| encoded(data)).unwrap_or_default();
        // A sheet that has something already may be too full for it; the next one is not.
        if sheet.used() > 0 && frame.len() > sheet.room() {
            return;
        }
        if let Some(special) = session.out.special.existing() {
            special.copies.remove(&message);
        }
        let Some((rule, (units, data))) = copy else { return };
        self.introduce(now, number, id, sheet);
        sheet.out.put_bytes(&frame);
        let bytes = frame.len();
        cx.stats.bytes_redundant += bytes as u64;
        if let Some(path) = self.paths.get_mut(&number) {
            path.fly(now, Cargo::Moved(id, Item::Data(data.id, units)), bytes, Freight::Small);
            path.carries(&rule);
            // Background has its share beside copies, too.
            path.foreground_run += bytes as u64;
        }
    }
}

fn encoded(data: &Data) -> Vec<u8> {
    let mut frame = Vec::with_capacity(data.payload.len() + DATA_OVERHEAD);
    data.encode(&mut frame);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn the_budget_is_a_second_s_worth() {
        let mut budget = Budget::default();
        let start = Instant(5_000_000_000);
        assert!(budget.take(start, 1000, 600) && budget.take(start, 1000, 400));
        assert!(!budget.take(start, 1000, 1), "it is spent");
        let later = start + Duration::from_millis(100);
        assert!(budget.take(later, 1000, 100) && !budget.take(later, 1000, 1), "what was earned meanwhile");
        let much_later = start + Duration::from_secs(3600);
        assert!(!budget.take(much_later, 1000, 1001), "no more than a second is saved up");
        assert!(budget.take(much_later, 1000, 1000));
        assert!(!budget.take(much_later, 0, 1), "none at all");
    }
}
