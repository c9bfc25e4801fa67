//! Which paths stay when more pairs of networks want one than there may be paths.
//!
//! Each side knows which networks its own messages wait for, and neither tells the other. So:
//!
//! - One path more than there may be, and only one at a time, is opened for what waits, or in place of a less promising
//!   path that the same side opened. Nothing gives way to it before it is up, so the last path that works never does.
//! - Then the side that opened it closes the path that it needs least: none that some message of its own has to use,
//!   unless that path had its turn. The other side waits for that, and sees that the new path was worth another one.
//! - A path that came in this way has a turn, in which neither side closes it for another one. A side that misses the path
//!   that was closed opens it again in the same way, and something else gives way. So what both sides need has its paths
//!   after at most as many steps as there may be paths; and if that is too much for them all, they take turns.

use super::Association;
use super::dial::Pair;
use crate::context::Context;
use crate::event::DownReason;
use crate::path::Path;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;
use steadfast_wire::{Instant, PathNumber, Rule};

/// How long a path stays that another one had to give way to.
const TURN: Duration = Duration::from_secs(5);

/// For whom a path is to give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// For what waits here: any path that nothing here has to use, or that had its turn.
    Ours,
    /// For what waits at the peer, as far as one can tell: any path that nothing here has to use.
    Theirs,
    /// For a regular pair: a path of ours that nothing has to use, and that joins no regular pair.
    Regular,
}

impl Association {
    fn up(&self) -> usize {
        self.paths.values().filter(|path| path.is_up()).count()
    }

    /// Whether one more path may be opened, as far as their number tells.
    pub(super) fn may_exceed(&self, cx: &Context, pairs: &[Pair], demanded: bool) -> bool {
        let (paths, max) = (self.paths.len(), cx.config.max_paths);
        let spare = |path: &Path| path.is_up() && path.opener && !is_regular(pairs, path);
        // One more may have stayed: of two that came at once, both sides closed the same one for them. What waits here
        // is not to wait for that to change.
        let surplus = demanded && paths == max + 1 && self.up() == paths;
        paths < max
            || surplus
            || paths == max && (demanded || self.up() == max && self.paths.values().any(spare))
    }

    /// When to look again for a path that gives way to one between a pair; `None` if that may be opened now.
    pub(super) fn waits_for_room(
        &self,
        cx: &Context,
        now: Instant,
        pairs: &[Pair],
        pair: &Pair,
    ) -> Option<Instant> {
        // Paths that are being opened may fail.
        if self.paths.len() < cx.config.max_paths || self.up() < cx.config.max_paths {
            return None;
        }
        if pair.demanded && self.dials.full_until > now {
            return Some(self.dials.full_until);
        }
        let claim = if pair.demanded { Claim::Ours } else { Claim::Regular };
        if self.least_needed(cx, now, pairs, claim, None).is_some() {
            return None;
        }
        let turns = self.paths.values().map(|path| path.stays_until.max(path.up_since + TURN));
        Some(turns.filter(|at| *at > now).min().unwrap_or(now + TURN))
    }

    /// A path came up: if there are too many now, one is closed. Whether the new one stays.
    pub(super) fn make_room(&mut self, cx: &mut Context, now: Instant, number: PathNumber) -> bool {
        let (up, max) = (self.up(), cx.config.max_paths);
        let Some(path) = self.paths.get_mut(&number).filter(|_| up > max) else { return true };
        let opener = path.opener;
        path.stays_until = now + TURN;
        if !opener && up == max + 1 {
            // The side that opened it knows best which one is to go.
            return true;
        }
        loop {
            let (pairs, path) = (self.pairs(cx), &self.paths[&number]);
            let claim = match opener {
                false => Some(Claim::Theirs),
                true if path.demanded || self.needed(cx, &pairs).contains(&number) => Some(Claim::Ours),
                true => is_regular(&pairs, path).then_some(Claim::Regular),
            };
            let gives_way = claim.and_then(|claim| self.least_needed(cx, now, &pairs, claim, Some(number)));
            let loser = gives_way.unwrap_or(number);
            self.path_down(cx, now, loser, DownReason::Replaced);
            if loser == number || !opener || self.up() <= max {
                return loser != number;
            }
        }
    }

    /// The path that may best give way, beside the new one.
    fn least_needed(
        &self,
        cx: &Context,
        now: Instant,
        pairs: &[Pair],
        claim: Claim,
        new: Option<PathNumber>,
    ) -> Option<PathNumber> {
        let needed = self.needed(cx, pairs);
        let is_needed = |path: &Path| needed.contains(&path.number);
        let may_go = |path: &&Path| {
            path.is_up()
                && Some(path.number) != new
                && path.stays_until <= now
                && match claim {
                    Claim::Ours => !is_needed(path) || path.up_since + TURN <= now,
                    Claim::Theirs => !is_needed(path),
                    Claim::Regular => path.opener && !is_needed(path) && !is_regular(pairs, path),
                }
        };
        // Of those that are needed the one that had the longest turn; of the others the least promising.
        let key = |path: &&Path| {
            if is_needed(path) {
                (true, path.up_since, Reverse(0))
            } else {
                (false, Instant(0), Reverse(place(pairs, path)))
            }
        };
        self.paths.values().filter(may_go).min_by_key(key).map(|path| path.number)
    }

    /// The paths that something here has to use: for each rule the best path that it allows.
    fn needed(&self, cx: &Context, pairs: &[Pair]) -> BTreeSet<PathNumber> {
        let mut rules: BTreeSet<&Rule> = BTreeSet::new();
        for session in self.sessions.values() {
            rules.extend(session.out.rules_in_use());
            rules.extend(session.deferrals.rules().chain(session.deferrals.wished().iter()));
        }
        let mut paths: Vec<&Path> = self.paths.values().filter(|path| path.is_up()).collect();
        paths.sort_by_key(|path| (path.suspect.is_some(), place(pairs, path)));
        // Any path will do for what may go anywhere.
        let ruled = rules.into_iter().filter(|rule| !rule.is_empty());
        let best = |rule: &Rule| paths.iter().find(|path| self.may_carry(cx, rule, path));
        ruled.filter_map(best).map(|path| path.number).collect()
    }
}

/// How promising the pair of a path is: less is more.
fn place(pairs: &[Pair], path: &Path) -> usize {
    pairs.iter().position(|pair| pair.joins(path)).unwrap_or(usize::MAX)
}

fn is_regular(pairs: &[Pair], path: &Path) -> bool {
    pairs.iter().any(|pair| pair.regular && pair.joins(path))
}
