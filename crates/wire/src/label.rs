//! What the application says of a message: how urgent it is, how large, which networks it may use, what it waits for.

use crate::frame::DecodeError;
use crate::id::MessageId;
use crate::network::{Network, NetworkClass, decode_name};
use crate::varint::{self, Reader};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::BufMut;
use core::fmt;

/// How urgent a message is. Foreground is never kept waiting behind background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Urgency {
    /// Someone waits for it: the network with the earliest predicted completion carries it at once.
    #[default]
    Foreground,
    /// Nobody waits: it takes what foreground leaves, on all allowed networks at once.
    Background,
}

impl Urgency {
    /// Both, foreground first.
    pub const ALL: [Self; 2] = [Self::Foreground, Self::Background];

    /// 0 for foreground, 1 for background.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    pub(crate) const fn from_bit(bit: bool) -> Self {
        if bit { Self::Background } else { Self::Foreground }
    }
}

/// Whether a message is small (the round trip decides its time) or large (the bandwidth does).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum SizeClass {
    /// From the message's length.
    #[default]
    Auto,
    /// Treated as small, whatever its length.
    Small,
    /// Treated as large, whatever its length: a streamed message of unknown length, for example.
    Large,
}

/// One property of a network that a [`Rule`] may name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Selector {
    /// Networks of a class.
    Class(NetworkClass),
    /// Networks whose interface or configured name is this (at most [`crate::network::MAX_NAME`] bytes).
    Name(String),
    /// Networks that cost by volume.
    Metered,
}

impl Selector {
    /// Whether `network` has the property.
    #[must_use]
    pub fn matches(&self, network: &Network) -> bool {
        match self {
            Self::Class(class) => network.class == *class,
            Self::Name(name) => network.name == *name,
            Self::Metered => network.metered,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => f.write_str(class.name()),
            Self::Name(name) => write!(f, "{name:?}"),
            Self::Metered => f.write_str("metered"),
        }
    }
}

/// Which networks a message may or should use (RFC 9622: require, prohibit, prefer, avoid).
///
/// A path has two ends, and the rule holds for both: it is prohibited if either end is, and it satisfies `require`
/// if each end matches one of the required properties. Prohibition wins.
///
/// ```
/// use steadfast_wire::{NetworkClass, Rule, Selector};
/// let rule = Rule::default().prohibit(Selector::Metered).prefer(Selector::Class(NetworkClass::Wifi));
/// assert!(!rule.is_empty());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rule(
    /// Nothing if all are empty: nearly every rule is, and every message has several copies of its own.
    Option<Arc<Selectors>>,
);

/// What a [`Rule`] lists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Selectors {
    /// If not empty, each end of the path must match at least one of these.
    pub require: Vec<Selector>,
    /// No end of the path may match any of these.
    pub prohibit: Vec<Selector>,
    /// Paths with an end that matches are taken before others.
    pub prefer: Vec<Selector>,
    /// Paths with an end that matches are taken only when no other is there.
    pub avoid: Vec<Selector>,
}

/// The most selectors in one list of a [`Rule`].
pub const MAX_SELECTORS: usize = 8;

static NONE: Selectors =
    Selectors { require: Vec::new(), prohibit: Vec::new(), prefer: Vec::new(), avoid: Vec::new() };

impl From<Selectors> for Rule {
    fn from(selectors: Selectors) -> Self {
        Self(selectors.lists().iter().any(|list| !list.is_empty()).then(|| Arc::new(selectors)))
    }
}

impl Rule {
    /// Whether it says nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What it lists.
    #[must_use]
    pub fn selectors(&self) -> &Selectors {
        self.0.as_deref().unwrap_or(&NONE)
    }

    fn change(&mut self) -> &mut Selectors {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    /// Memory of what it lists, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.selectors()
            .lists()
            .into_iter()
            .flatten()
            .map(|selector| {
                let name = if let Selector::Name(name) = selector { name.len() } else { 0 };
                size_of::<Selector>() + name
            })
            .sum()
    }

    /// Adds to the networks of which each end must match one.
    #[must_use]
    pub fn require(mut self, selector: Selector) -> Self {
        self.change().require.push(selector);
        self
    }

    /// Adds to the networks that are never used.
    #[must_use]
    pub fn prohibit(mut self, selector: Selector) -> Self {
        self.change().prohibit.push(selector);
        self
    }

    /// Adds to the networks that are used first.
    #[must_use]
    pub fn prefer(mut self, selector: Selector) -> Self {
        self.change().prefer.push(selector);
        self
    }

    /// Adds to the networks that are used last.
    #[must_use]
    pub fn avoid(mut self, selector: Selector) -> Self {
        self.change().avoid.push(selector);
        self
    }

    /// Whether a path between these two networks may carry the message.
    #[must_use]
    pub fn allows(&self, local: &Network, remote: &Network) -> bool {
        let Some(listed) = &self.0 else { return true };
        let hit = |list: &[Selector], network: &Network| list.iter().any(|s| s.matches(network));
        let required = |network: &Network| listed.require.is_empty() || hit(&listed.require, network);
        let prohibited = |network: &Network| hit(&listed.prohibit, network);
        required(local) && required(remote) && !prohibited(local) && !prohibited(remote)
    }

    /// 0 for a preferred path, 1 for one the rule says nothing about, 2 for one to avoid.
    #[must_use]
    pub fn rank(&self, local: &Network, remote: &Network) -> u8 {
        let hit = |list: &[Selector]| list.iter().any(|s| s.matches(local) || s.matches(remote));
        let Selectors { avoid, prefer, .. } = self.selectors();
        if hit(avoid) { 2 } else { u8::from(!hit(prefer)) }
    }

    /// Whether every list and name is within the bounds of the wire format.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.selectors().lists().iter().all(|list| {
            list.len() <= MAX_SELECTORS
                && list
                    .iter()
                    .all(|s| !matches!(s, Selector::Name(name) if name.len() > crate::network::MAX_NAME))
        })
    }

    fn encode(&self, out: &mut impl BufMut) {
        for list in self.selectors().lists() {
            varint::put(out, list.len().min(MAX_SELECTORS) as u64);
            for selector in list.iter().take(MAX_SELECTORS) {
                match selector {
                    Selector::Class(class) => {
                        out.put_u8(0);
                        out.put_u8(*class as u8);
                    }
                    Selector::Name(name) => {
                        out.put_u8(1);
                        varint::put_bytes(out, name.as_bytes());
                    }
                    Selector::Metered => out.put_u8(2),
                }
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut lists: [Vec<Selector>; 4] = Default::default();
        for list in &mut lists {
            for _ in 0..reader.bounded(MAX_SELECTORS as u64)? {
                list.push(match reader.byte()? {
                    0 => Selector::Class(NetworkClass::from_byte(reader.byte()?)),
                    1 => Selector::Name(decode_name(reader)?),
                    2 => Selector::Metered,
                    // A rule that is not understood might be a prohibition: it may not be ignored.
                    _ => return Err(DecodeError::Malformed("unknown selector in a network rule")),
                });
            }
        }
        let [require, prohibit, prefer, avoid] = lists;
        Ok(Selectors { require, prohibit, prefer, avoid }.into())
    }
}

impl Selectors {
    const fn lists(&self) -> [&Vec<Selector>; 4] {
        [&self.require, &self.prohibit, &self.prefer, &self.avoid]
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({self})")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        for (word, list) in
            ["require", "prohibit", "prefer", "avoid"].into_iter().zip(self.selectors().lists())
        {
            for (place, selector) in list.iter().enumerate() {
                match place {
                    0 => write!(f, "{before}{word} {selector}")?,
                    _ => write!(f, " or {selector}")?,
                }
                before = ", ";
            }
        }
        if before.is_empty() { f.write_str("any network") } else { Ok(()) }
    }
}

/// What the application says of a message.
///
/// ```
/// use steadfast_wire::{Labels, Urgency};
/// assert_eq!(Labels::background().urgency, Urgency::Background);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub struct Labels {
    /// Foreground (the default) or background.
    pub urgency: Urgency,
    /// Small, large, or from the length (the default).
    pub size: SizeClass,
    /// The networks it may use; all by default.
    pub rule: Rule,
}

impl Labels {
    /// Urgent: someone waits for it.
    #[must_use]
    pub fn foreground() -> Self {
        Self::default()
    }

    /// Not urgent: it takes what foreground leaves.
    #[must_use]
    pub fn background() -> Self {
        Self { urgency: Urgency::Background, ..Self::default() }
    }

    /// Says that the message counts as small.
    #[must_use]
    pub const fn small(mut self) -> Self {
        self.size = SizeClass::Small;
        self
    }

    /// Says that the message counts as large.
    #[must_use]
    pub const fn large(mut self) -> Self {
        self.size = SizeClass::Large;
        self
    }

    /// Says which networks it may use.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rule = rule;
        self
    }

    /// Appends the labels.
    pub fn encode(&self, out: &mut impl BufMut) {
        let size = match self.size {
            SizeClass::Auto => 0,
            SizeClass::Small => 1,
            SizeClass::Large => 2,
        };
        out.put_u8(self.urgency as u8 | size << 1 | u8::from(!self.rule.is_empty()) << 3);
        if !self.rule.is_empty() {
            self.rule.encode(out);
        }
    }

    /// Reads labels.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let byte = reader.byte()?;
        let size = match byte >> 1 & 3 {
            0 => SizeClass::Auto,
            1 => SizeClass::Small,
            2 => SizeClass::Large,
            _ => return Err(DecodeError::Malformed("unknown size class")),
        };
        if byte & 0xf0 != 0 {
            return Err(DecodeError::Malformed("unknown label bits"));
        }
        let rule = if byte & 8 != 0 { Rule::decode(reader)? } else { Rule::default() };
        Ok(Self { urgency: Urgency::from_bit(byte & 1 != 0), size, rule })
    }
}

/// What a message waits for at the receiver (DESIGN, Semantics 2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// Waits for every earlier message of the session, delivered or skipped.
    Total,
    /// Waits for every earlier message of its urgency. `sequence` counts the messages of that urgency from 0.
    PerUrgency {
        /// How many messages of this urgency came before.
        sequence: u64,
    },
    /// Waits for nothing. In a session ordered by urgency it still has its place in the count.
    Unordered {
        /// How many messages of this urgency came before.
        sequence: u64,
    },
    /// Waits for exactly these, and cannot be delivered once one of them is dropped.
    After {
        /// How many messages of this urgency came before.
        sequence: u64,
        /// At most [`MAX_DEPENDENCIES`] earlier messages.
        dependencies: Vec<MessageId>,
    },
}

/// The most dependencies that one message may declare.
pub const MAX_DEPENDENCIES: usize = 64;

impl Order {
    /// The message's place among those of its urgency; meaningless (0) for [`Order::Total`].
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        match self {
            Self::Total => 0,
            Self::PerUrgency { sequence } | Self::Unordered { sequence } | Self::After { sequence, .. } => {
                *sequence
            }
        }
    }

    /// The declared dependencies.
    #[must_use]
    pub fn dependencies(&self) -> &[MessageId] {
        match self {
            Self::After { dependencies, .. } => dependencies,
            _ => &[],
        }
    }

    /// Appends the order of message `id`.
    pub fn encode(&self, out: &mut impl BufMut, id: MessageId) {
        match self {
            Self::Total => out.put_u8(0),
            Self::PerUrgency { sequence } => {
                out.put_u8(1);
                varint::put(out, *sequence);
            }
            Self::Unordered { sequence } => {
                out.put_u8(2);
                varint::put(out, *sequence);
            }
            Self::After { sequence, dependencies } => {
                out.put_u8(3);
                varint::put(out, *sequence);
                varint::put(out, dependencies.len() as u64);
                for dependency in dependencies {
                    varint::put(out, id.0.saturating_sub(dependency.0));
                }
            }
        }
    }

    /// Reads the order of message `id`.
    pub fn decode(reader: &mut Reader, id: MessageId) -> Result<Self, DecodeError> {
        Ok(match reader.byte()? {
            0 => Self::Total,
            1 => Self::PerUrgency { sequence: reader.varint()? },
            2 => Self::Unordered { sequence: reader.varint()? },
            3 => {
                let sequence = reader.varint()?;
                let mut dependencies = Vec::new();
                for _ in 0..reader.bounded(MAX_DEPENDENCIES as u64)? {
                    let back = reader.varint()?;
                    // A message may wait only for earlier ones, so there are no cycles.
                    if back == 0 || back >= id.0 {
                        return Err(DecodeError::Malformed("a dependency is not an earlier message"));
                    }
                    dependencies.push(MessageId(id.0 - back));
                }
                Self::After { sequence, dependencies }
            }
            _ => return Err(DecodeError::Malformed("unknown order")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NetworkId;

    fn network(class: NetworkClass, metered: bool) -> Network {
        Network {
            id: NetworkId(1),
            name: "x0".into(),
            class,
            metered,
            cost: 0,
            port: 1,
            addresses: Vec::new(),
        }
    }

    #[test]
    fn a_rule_holds_for_both_ends() {
        let wifi = network(NetworkClass::Wifi, false);
        let cellular = network(NetworkClass::Cellular, true);
        let only_wifi = Rule::default().require(Selector::Class(NetworkClass::Wifi));
        for (rule, local, remote, allowed) in [
            (&only_wifi, &wifi, &wifi, true),
            (&only_wifi, &wifi, &cellular, false),
            (&only_wifi, &cellular, &wifi, false),
            (&Rule::default(), &cellular, &wifi, true),
            (&Rule::default().prohibit(Selector::Metered), &wifi, &cellular, false),
            (
                &Rule::default().prohibit(Selector::Metered).require(Selector::Metered),
                &cellular,
                &cellular,
                false,
            ),
            (&Rule::default().prohibit(Selector::Name("x0".into())), &wifi, &wifi, false),
        ] {
            assert_eq!(rule.allows(local, remote), allowed, "{rule:?}");
        }
        assert_eq!(Rule::default().prefer(Selector::Metered).rank(&wifi, &cellular), 0);
        assert_eq!(Rule::default().avoid(Selector::Metered).rank(&wifi, &cellular), 2);
        assert_eq!(Rule::default().rank(&wifi, &cellular), 1);
    }
}
