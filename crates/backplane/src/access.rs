//! Who may publish and subscribe in which event space.

use crate::name::EventSpace;
use crate::subscription::covers;
use alloc::vec;
use alloc::vec::Vec;

/// The event space in which Steadfast publishes its own faults.
pub const OWN_SPACE: &str = "FTB.network.steadfast";

/// Whom a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Who {
    /// Everybody, on this host and others.
    Anyone,
    /// A user of this host, by number.
    User(u32),
    /// Another host whose event is signed by its trusted identity.
    SignedHost,
    /// What comes from elsewhere without such a signature.
    UnsignedHost,
}

/// What somebody may do in some event spaces. `None` leaves it to the next rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The event spaces; each part may be `all`.
    pub spaces: EventSpace,
    /// Whom it is about.
    pub who: Who,
    /// Whether they may publish.
    pub publish: Option<bool>,
    /// Whether they may subscribe; means nothing for hosts.
    pub subscribe: Option<bool>,
}

/// Rules in order: the first that speaks of space, user and action decides. Where none does, it is allowed.
///
/// The default is one: in `FTB.network.steadfast` root and trusted hosts publish (and the agent itself, to which no rule applies).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules(pub Vec<Rule>);

impl Default for Rules {
    fn default() -> Self {
        let Ok(spaces) = EventSpace::new(OWN_SPACE) else { return Self(Vec::new()) };
        let rule = |who, publish| Rule { spaces, who, publish: Some(publish), subscribe: None };
        Self(vec![rule(Who::User(0), true), rule(Who::SignedHost, true), rule(Who::Anyone, false)])
    }
}

impl Rules {
    /// Whether somebody may publish in an event space.
    #[must_use]
    pub fn may_publish(&self, space: &EventSpace, who: Who) -> bool {
        self.decide(space, who, |rule| rule.publish)
    }

    /// Whether somebody may receive what is published in an event space.
    #[must_use]
    pub fn may_subscribe(&self, space: &EventSpace, who: Who) -> bool {
        self.decide(space, who, |rule| rule.subscribe)
    }

    fn decide(&self, space: &EventSpace, who: Who, action: fn(&Rule) -> Option<bool>) -> bool {
        let about =
            |rule: &&Rule| (rule.who == Who::Anyone || rule.who == who) && covers(&rule.spaces, space);
        self.0.iter().filter(about).find_map(action).unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_speaks_decides() {
        let space = |text| EventSpace::new(text).unwrap();
        let rule = |spaces, who, publish, subscribe| Rule { spaces: space(spaces), who, publish, subscribe };
        let rules = Rules(vec![
            rule("a.b.all", Who::User(7), None, Some(true)),
            rule("a.b.all", Who::Anyone, None, Some(false)),
            rule("a.all.all", Who::UnsignedHost, Some(false), None),
            rule("a.b.c", Who::User(7), Some(false), None),
        ]);
        for (at, who, publish, subscribe) in [
            ("A.B.c", Who::User(7), false, true),
            ("a.b.d", Who::User(7), true, true),
            ("a.b.c", Who::User(8), true, false),
            ("a.c.c", Who::User(8), true, true),
            ("a.c.c", Who::UnsignedHost, false, true),
            ("x.b.c", Who::UnsignedHost, true, true),
        ] {
            assert_eq!(rules.may_publish(&space(at), who), publish, "{at} {who:?}");
            assert_eq!(rules.may_subscribe(&space(at), who), subscribe, "{at} {who:?}");
        }
    }

    #[test]
    fn the_default_protects_our_own_words() {
        let rules = Rules::default();
        let own = EventSpace::new("ftb.NETWORK.steadfast").unwrap();
        let may = [Who::User(0), Who::SignedHost, Who::User(1000), Who::UnsignedHost]
            .map(|who| (rules.may_publish(&own, who), rules.may_subscribe(&own, who)));
        assert_eq!(may, [(true, true), (true, true), (false, true), (false, true)]);
        assert!(rules.may_publish(&EventSpace::new("FTB.checkpoint_sw.blcr").unwrap(), Who::User(1000)));
    }
}
