//! Applications that do with offers what the library's transport does: one that reaches another offers, one that is offered
//! something answers, one whose offer is void offers again. No two offers are alike.

use bytes::Bytes;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use steadfast_session::{AssociationId, Config, Event, ReachId};
use steadfast_sim::world::{Attachment, Step, World, identity};

#[derive(Default)]
struct Agent {
    /// Whom it keeps in reach, and by which association that is.
    reaches: BTreeMap<usize, (ReachId, Option<AssociationId>)>,
    /// What it offers in which association, and what it goes by there: an answer to what it was offered last.
    agreed: BTreeMap<AssociationId, (Bytes, Option<Bytes>)>,
    /// All that was ever taken up, which is never to be taken up again.
    used: BTreeSet<Bytes>,
    dissociated: usize,
    /// It hears and offers nothing.
    closed: bool,
}

/// Hosts with one agent each.
pub(crate) struct Agents {
    pub(crate) world: World,
    /// How often an agent hears what there is, in milliseconds; at once if that is 0.
    pub(crate) lag: u64,
    each: Vec<Agent>,
    made: u64,
}

fn round_of(offer: &Bytes) -> u64 {
    u64::from_be_bytes(*offer.first_chunk().expect("a round"))
}

impl Agents {
    /// As many hosts as there are lists of networks.
    pub(crate) fn new(seed: u64, config: &Config, hosts: &[Vec<Attachment>]) -> Self {
        let mut world = World::new(seed);
        for networks in hosts {
            world.add_host(config.clone(), networks.clone());
        }
        let each = hosts.iter().map(|_| Agent::default()).collect();
        Self { world, lag: 0, each, made: 0 }
    }

    pub(crate) fn seek(&mut self, host: usize, peer: usize) {
        self.open(host);
        if self.each[host].reaches.contains_key(&peer) {
            return;
        }
        let now = self.world.clock(host);
        let networks = self.world.nodes[peer].attachments.len();
        let addresses: Vec<_> = (0..networks).map(|at| self.world.address(peer, at)).collect();
        let reach = self.world.nodes[host].core.reach(now, identity(peer), &addresses);
        self.each[host].reaches.insert(peer, (reach, None));
        self.world.pump(host);
    }

    /// Each keeps each other one in reach.
    pub(crate) fn seek_all(&mut self) {
        for host in 0..self.each.len() {
            for peer in (0..self.each.len()).filter(|peer| *peer != host) {
                self.seek(host, peer);
            }
        }
    }

    pub(crate) fn leave_off(&mut self, host: usize, peer: usize) {
        if let Some((reach, _)) = self.each[host].reaches.remove(&peer) {
            let now = self.world.clock(host);
            self.world.nodes[host].core.unreach(now, reach);
            self.world.pump(host);
        }
    }

    /// A new process takes the place of the host's, and seeks nobody yet.
    pub(crate) fn restart(&mut self, host: usize, config: &Config) {
        self.hear_all();
        self.world.restart(host, config.clone(), 0);
        let former = std::mem::take(&mut self.each[host]);
        self.each[host] = Agent { used: former.used, dissociated: former.dissociated, ..Agent::default() };
    }

    /// The process says farewell.
    pub(crate) fn leave(&mut self, host: usize) {
        let now = self.world.clock(host);
        self.world.nodes[host].core.leave(now, "enough");
        self.world.pump(host);
    }

    /// The agent ends, but not its process.
    pub(crate) fn close(&mut self, host: usize) {
        for peer in 0..self.each.len() {
            self.leave_off(host, peer);
        }
        self.each[host].closed = true;
        self.each[host].agreed.clear();
        self.withdraw(host);
    }

    fn withdraw(&mut self, host: usize) {
        let now = self.world.clock(host);
        self.world.nodes[host].core.withdraw(now);
        self.world.pump(host);
    }

    /// There is an agent again. What its process was offered before may have been taken up by the former one.
    pub(crate) fn open(&mut self, host: usize) {
        if std::mem::take(&mut self.each[host].closed) {
            self.withdraw(host);
            for (association, _, offer) in self.world.nodes[host].core.offers() {
                self.offer(host, association, round_of(&offer) + 1);
            }
        }
    }

    pub(crate) fn set_up(&mut self, host: usize, network: usize, up: bool) {
        self.world.nodes[host].attachments[network].up = up;
        self.world.networks_changed(host);
    }

    /// Offers something new in all associations.
    pub(crate) fn renew(&mut self, host: usize) {
        let rounds = self.each[host].agreed.iter().map(|(id, (own, _))| (*id, round_of(own) + 1));
        for (id, round) in rounds.collect::<Vec<_>>() {
            self.offer(host, id, round);
        }
    }

    /// Offers something in a round, unless it did so in this one or a later one.
    fn offer(&mut self, host: usize, association: AssociationId, round: u64) {
        if self.each[host].agreed.get(&association).is_some_and(|(own, _)| round_of(own) >= round) {
            return;
        }
        self.made += 1;
        let offer = Bytes::from([round.to_be_bytes(), self.made.to_be_bytes()].concat());
        let now = self.world.clock(host);
        if self.world.nodes[host].core.offer(now, association, offer.clone()) {
            self.each[host].agreed.insert(association, (offer, None));
        }
        self.world.pump(host);
    }

    fn hear_all(&mut self) {
        loop {
            let events = std::mem::take(&mut self.world.events);
            if events.is_empty() {
                return;
            }
            for (host, event) in events {
                self.hear(host, event);
            }
        }
    }

    fn hear(&mut self, host: usize, event: Event) {
        let agent = &mut self.each[host];
        agent.dissociated += usize::from(matches!(event, Event::Dissociated { .. }));
        if agent.closed {
            return;
        }
        match event {
            Event::Reached { reach, association, .. } => {
                if let Some(reached) = agent.reaches.values_mut().find(|reached| reached.0 == reach) {
                    reached.1 = Some(association);
                    self.offer(host, association, 1);
                }
            }
            Event::Unreached { reach } => agent.reaches.retain(|_, reached| reached.0 != reach),
            Event::Offered { association, offer, .. } if offer.is_empty() => {
                agent.agreed.remove(&association);
                if agent.reaches.values().any(|reached| reached.1 == Some(association)) {
                    self.offer(host, association, 1);
                } else {
                    let now = self.world.clock(host);
                    self.world.nodes[host].core.offer(now, association, offer);
                    self.world.pump(host);
                }
            }
            Event::Offered { association, offer, .. } => {
                assert!(agent.used.insert(offer.clone()), "{host} takes up an offer a second time");
                self.take_up(host, association, offer);
            }
            Event::Dissociated { association } => {
                agent.agreed.remove(&association);
                for reached in agent.reaches.values_mut().filter(|reached| reached.1 == Some(association)) {
                    reached.1 = None;
                }
            }
            _ => {}
        }
    }

    fn take_up(&mut self, host: usize, association: AssociationId, offer: Bytes) {
        let round = round_of(&offer);
        self.offer(host, association, round);
        let Some((own, theirs)) = self.each[host].agreed.get_mut(&association) else { return };
        let own = round_of(own);
        if own == round {
            *theirs = Some(offer);
        } else if theirs.is_some() {
            // It had come as far and has begun anew.
            self.offer(host, association, own + 1);
        }
    }

    pub(crate) fn run(&mut self, milliseconds: u64) {
        let until = self.world.now + Duration::from_millis(milliseconds);
        while self.world.now < until {
            let turn = match self.lag {
                0 => until,
                lag => until.min(self.world.now + Duration::from_millis(lag)),
            };
            loop {
                let over = matches!(self.world.step(turn), Step::Over);
                if over {
                    self.world.now = turn;
                }
                if over || self.lag == 0 {
                    break;
                }
            }
            self.hear_all();
        }
    }

    /// How often a host heard that all was void.
    pub(crate) fn dissociated(&self, host: usize) -> usize {
        self.each[host].dissociated
    }

    /// Whether a host was told that it has reached whom it seeks.
    pub(crate) fn has_reached(&self, host: usize, peer: usize) -> bool {
        self.each[host].reaches.get(&peer).is_some_and(|reached| reached.1.is_some())
    }

    /// What a host offers to a peer, and what it goes by, in each association that is up.
    fn goes_by(&self, host: usize, peer: usize) -> Vec<(Option<Bytes>, Option<Bytes>)> {
        let core = &self.world.nodes[host].core;
        let with =
            |id: &AssociationId| core.associate(*id) == Some(identity(peer)) && !core.routes(*id).is_empty();
        let agreed = self.each[host].agreed.iter().filter(|(id, _)| with(id));
        agreed.map(|(_, (own, theirs))| (Some(own.clone()), theirs.clone())).collect()
    }

    /// Whether both go by what the other offers now; if not, what they go by.
    pub(crate) fn agreed(&self, one: usize, other: usize) -> Result<(), String> {
        let (here, there) = (self.goes_by(one, other), self.goes_by(other, one));
        let crossed: Vec<_> = there.iter().map(|(own, theirs)| (theirs.clone(), own.clone())).collect();
        for (host, peer) in [(one, other), (other, one)] {
            if self.each[host].reaches.contains_key(&peer) && !self.has_reached(host, peer) {
                return Err(format!("{host} does not know that it has reached {peer}"));
            }
        }
        if here.len() == 1 && here == crossed {
            return Ok(());
        }
        Err(format!("{one} has {here:?} with {other}, and that {there:?}"))
    }

    pub(crate) fn assert_agreed(&self, one: usize, other: usize, what: &str) {
        self.agreed(one, other).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
    }
}
