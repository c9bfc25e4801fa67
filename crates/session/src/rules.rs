//! A few network rules, remembered together.

use alloc::vec::Vec;
use steadfast_wire::Rule;

/// The most that are told apart: an application has a handful.
const MAX_RULES: usize = 32;

/// A set of rules. Beyond [`MAX_RULES`] it holds any rule, as far as one can tell.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    known: Vec<Rule>,
    others: bool,
}

impl Rules {
    pub(crate) const fn new() -> Self {
        Self { known: Vec::new(), others: false }
    }

    pub(crate) fn insert(&mut self, rule: &Rule) {
        if self.others || self.known.contains(rule) {
            return;
        }
        if self.known.len() < MAX_RULES {
            self.known.push(rule.clone());
        } else {
            self.others = true;
        }
    }

    pub(crate) fn clear(&mut self) {
        // Mostly there are none, and then nothing is to be given back.
        if !self.known.is_empty() {
            *self = Self::default();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Those that are known one by one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.known.iter()
    }

    /// Whether one of them may be such a rule.
    pub(crate) fn any(&self, is_such: impl FnMut(&Rule) -> bool) -> bool {
        self.others || self.known.iter().any(is_such)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_wire::Selector;

    #[test]
    fn beyond_the_bound_it_may_be_any_rule() {
        let rule = |number: usize| Rule::default().require(Selector::Name(alloc::format!("net{number}")));
        let mut rules = Rules::default();
        assert!(!rules.any(|_| true), "there is none");
        for number in 0..MAX_RULES {
            rules.insert(&rule(number));
            rules.insert(&rule(number));
        }
        assert!(rules.any(|known| *known == rule(7)) && !rules.any(|known| *known == rule(MAX_RULES)));
        rules.insert(&rule(MAX_RULES));
        assert!(rules.any(|known| *known == rule(MAX_RULES)));
        rules.clear();
        assert!(!rules.any(|_| true));
    }
}
