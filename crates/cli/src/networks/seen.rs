//! The host's networks as they are shown, and what is different between two looks.

use std::fs;
use std::io;

use anyhow::Context as _;
use serde::{Serialize, Serializer};
use steadfast_net::Scout;

use crate::output::clean;

/// An interface, and the network that it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Seen {
    name: String,
    interface: String,
    pub(super) state: State,
    /// This and the next two are not known of an interface that cannot be used.
    pub(super) class: Option<&'static str>,
    metered: Option<bool>,
    cost: Option<u8>,
    /// With the lengths of their prefixes.
    pub(super) addresses: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Up,
    /// Down, without a carrier or an address, or left out by the configuration.
    Unusable,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unusable => "unusable",
        }
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Seen {
    /// What the scout sees now; with `all` the other interfaces, too.
    pub(super) fn now(scout: &Scout, all: bool) -> anyhow::Result<Vec<Self>> {
        let mut seen: Vec<_> = scout
            .networks()
            .iter()
            .map(|network| Self {
                name: network.name.clone(),
                interface: scout.device_of(network.id).unwrap_or_else(|| network.name.clone()),
                state: State::Up,
                class: Some(network.class.name()),
                metered: Some(network.metered),
                cost: Some(network.cost),
                addresses: network.addresses.iter().map(|a| format!("{}/{}", a.ip, a.prefix)).collect(),
            })
            .collect();
        if all {
            let others = interfaces().context("cannot list this host's interfaces from /proc/net/dev")?;
            let others = others.into_iter().filter(|name| seen.iter().all(|one| one.interface != *name));
            let others: Vec<_> = others.map(Self::unusable).collect();
            seen.extend(others);
        }
        Ok(seen)
    }

    fn unusable(interface: String) -> Self {
        let (class, metered, cost, addresses) = (None, None, None, Vec::new());
        Self { name: interface.clone(), interface, state: State::Unusable, class, metered, cost, addresses }
    }

    /// What people call it.
    pub(super) fn title(&self) -> String {
        if self.name == self.interface {
            self.name.clone()
        } else {
            format!("{} ({})", self.name, self.interface)
        }
    }

    /// Whether it is metered and what it costs, in words.
    pub(super) fn price(&self) -> [String; 2] {
        let metered = self.metered.map_or("-", |metered| if metered { "yes" } else { "no" });
        [metered.into(), self.cost.map_or("-".into(), |cost| cost.to_string())]
    }

    /// All in one line.
    pub(super) fn describe(&self) -> String {
        let metered = if self.metered == Some(true) { ", metered" } else { "" };
        let cost =
            self.cost.filter(|cost| *cost > 0).map(|cost| format!(", cost {cost}")).unwrap_or_default();
        let class = self.class.unwrap_or_default();
        let addresses = self.addresses.join(" ");
        clean(&format!("{}  {class}{metered}{cost}  {addresses}", self.title()))
    }
}

/// The names of all interfaces of this network namespace.
fn interfaces() -> io::Result<Vec<String>> {
    let text = fs::read_to_string("/proc/net/dev")?;
    // Two lines of headings; a name may not have a colon.
    Ok(text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect())
}

/// What became of one network.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    Up(&'a Seen),
    Changed(&'a Seen),
    Down(&'a Seen),
}

impl Change<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Up(_) => "up",
            Self::Changed(_) => "changed",
            Self::Down(_) => "down",
        }
    }

    /// The network now or, where it is gone, as it was.
    pub(super) fn network(&self) -> &Seen {
        let (Self::Up(network) | Self::Changed(network) | Self::Down(network)) = self;
        network
    }
}

/// What is different, first what went.
pub(super) fn changes<'a>(before: &'a [Seen], now: &'a [Seen]) -> Vec<Change<'a>> {
    let find = |list: &'a [Seen], one: &Seen| list.iter().find(|other| other.interface == one.interface);
    let gone = before.iter().filter(|one| find(now, one).is_none()).map(Change::Down);
    let here = now.iter().filter_map(|one| match find(before, one) {
        None => Some(Change::Up(one)),
        Some(old) if old != one => Some(Change::Changed(one)),
        Some(_) => None,
    });
    gone.chain(here).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_different() {
        let seen = |name: &str, address: &str| Seen {
            addresses: vec![address.into()],
            state: State::Up,
            ..Seen::unusable(name.into())
        };
        let before = [seen("a", "1"), seen("b", "1"), seen("c", "1")];
        let now = [seen("b", "2"), seen("c", "1"), seen("d", "1")];
        let found = changes(&before, &now);
        assert_eq!(found, [Change::Down(&before[0]), Change::Changed(&now[0]), Change::Up(&now[2])]);
        assert!(changes(&now, &now).is_empty());
    }
}
