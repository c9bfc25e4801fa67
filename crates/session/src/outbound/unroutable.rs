//! Messages that no path may carry, and the rules that keep them waiting.

use alloc::collections::{BTreeMap, BTreeSet};
use steadfast_wire::Rule;

#[derive(Debug, Default)]
pub(super) struct Unroutable {
    /// By urgency; each with the rule under which it was set aside.
    messages: [BTreeMap<u64, Rule>; 2],
    /// How many of them there are under each rule.
    rules: BTreeMap<Rule, usize>,
}

impl Unroutable {
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn insert(&mut self, urgency: usize, id: u64, rule: &Rule) {
        self.remove(id);
        *self.rules.entry(rule.clone()).or_default() += 1;
        self.messages[urgency].insert(id, rule.clone());
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(rule) = self.messages.iter_mut().find_map(|messages| messages.remove(&id)) else { return };
        let Some(left) = self.rules.get_mut(&rule) else { return };
        *left -= 1;
        if *left == 0 {
            self.rules.remove(&rule);
        }
    }

    /// Background below `id` is foreground from now on.
    pub(super) fn raise_below(&mut self, id: u64) {
        let kept = self.messages[1].split_off(&id);
        let mut raised = core::mem::replace(&mut self.messages[1], kept);
        self.messages[0].append(&mut raised);
    }

    /// Empties it: the messages by urgency.
    pub(super) fn take(&mut self) -> [BTreeSet<u64>; 2] {
        self.rules.clear();
        core::mem::take(&mut self.messages).map(|messages| messages.into_keys().collect())
    }

    /// The rules of all that wait, each once.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.keys()
    }

    pub(super) fn count(&self, id: u64) -> usize {
        self.messages.iter().filter(|messages| messages.contains_key(&id)).count()
    }

    pub(super) fn check_invariants(&self) {
        let messages: usize = self.messages.iter().map(BTreeMap::len).sum();
        assert_eq!(self.rules.values().sum::<usize>(), messages, "unroutable messages by their rules");
    }
}
