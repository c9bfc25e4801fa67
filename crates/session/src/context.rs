//! What all machines of one endpoint share: settings, random numbers, and the queues that lead outside.

use crate::config::Config;
use crate::event::{Action, Event};
use crate::journal::{Effect, JournalEntry, Record};
use crate::learned::Learned;
use crate::stats::Stats;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;
use steadfast_wire::rng::Rng;
use steadfast_wire::{Fingerprint, Incarnation, Network, NetworkId, PathNumber, SessionId};

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) identity: Fingerprint,
    pub(crate) incarnation: Incarnation,
    pub(crate) rng: Rng,
    pub(crate) networks: Vec<Network>,
    /// Those of before the last change, so that what it took away has a name.
    pub(crate) former_networks: Vec<Network>,
    pub(crate) networks_epoch: u64,
    /// This process is about to be frozen, or is: for how long at most. Nothing is opened and nobody judged.
    pub(crate) suspended: Option<Duration>,
    /// How often it was.
    pub(crate) suspensions: u64,
    pub(crate) learned: Learned,
    pub(crate) events: VecDeque<Event>,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) stats: Stats,
    pub(crate) journal: VecDeque<JournalEntry>,
    journal_next: u64,
    waiting: VecDeque<(u64, SessionId, Effect)>,
    next_path: u32,
}

impl Context {
    pub(crate) fn new(config: Config, identity: Fingerprint, seed: [u8; 32]) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            config: config.consistent(),
            identity,
            incarnation: Incarnation(rng.bits()),
            rng,
            networks: Vec::new(),
            former_networks: Vec::new(),
            networks_epoch: 1,
            suspended: None,
            suspensions: 0,
            learned: Learned::default(),
            events: VecDeque::new(),
            actions: VecDeque::new(),
            stats: Stats::default(),
            journal: VecDeque::new(),
            journal_next: 1,
            waiting: VecDeque::new(),
            next_path: 1,
        }
    }

    pub(crate) fn next_path(&mut self) -> PathNumber {
        let number = PathNumber(self.next_path);
        self.next_path = self.next_path.wrapping_add(1).max(1);
        number
    }

    pub(crate) fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.iter().find(|network| network.id == id)
    }

    /// Whether an address is one of this host's, in this network namespace.
    pub(crate) fn is_ours(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.networks.iter().any(|network| network.addresses.iter().any(|a| a.ip == ip))
    }

    /// Our networks as peers are told of them: they are not to knock where nothing may go.
    pub(crate) fn announced_networks(&self) -> Vec<Network> {
        let port = |network: &Network| if self.config.forbids(network) { 0 } else { network.port };
        self.networks.iter().map(|network| Network { port: port(network), ..network.clone() }).collect()
    }

    /// The name of a network that is here, or was until the last change.
    pub(crate) fn network_name(&self, id: NetworkId) -> String {
        let all = self.networks.iter().chain(&self.former_networks);
        all.filter(|network| network.id == id).map(|network| network.name.clone()).next().unwrap_or_default()
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Notes a fact about a session. Returns the effect if it may be applied now, because there is no store to wait
    /// for; otherwise it comes back from [`Context::confirmed`].
    #[must_use]
    pub(crate) fn record(&mut self, session: SessionId, record: Record, effect: Effect) -> Option<Effect> {
        if !self.config.durable {
            return Some(effect);
        }
        let number = self.journal_next;
        self.journal_next += 1;
        self.journal.push_back(JournalEntry { number, session, record });
        self.waiting.push_back((number, session, effect));
        None
    }

    /// Notes a fact that nothing waits for.
    pub(crate) fn remember(&mut self, session: SessionId, record: Record) {
        let _nothing = self.record(session, record, Effect::None);
    }

    /// The store has every record up to `number`: the next effect that may be applied.
    pub(crate) fn confirmed(&mut self, number: u64) -> Option<(SessionId, Effect)> {
        match self.waiting.front() {
            Some((first, ..)) if *first <= number => {
                self.waiting.pop_front().map(|(_, session, effect)| (session, effect))
            }
            _ => None,
        }
    }
}
