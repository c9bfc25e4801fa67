//! What two processes offer each other beside sessions, and processes kept in reach without one.

use crate::pair::{A, B, net};
use bytes::Bytes;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use steadfast_session::{AssociationId, Config, Event, ReachId, SessionConfig};
use steadfast_sim::world::{Step, World, identity};
use steadfast_wire::{Labels, Rule, Selector};

/// Two hosts on the same networks; A keeps B in reach.
struct Reached {
    world: World,
    reach: ReachId,
    seen: [Vec<Event>; 2],
}

impl Reached {
    fn begin(seed: u64, networks: usize) -> Self {
        let mut world = World::new(seed);
        for _ in [A, B] {
            world.add_host(Config::default(), vec![net(1_000_000, 10); networks]);
        }
        let (now, address) = (world.clock(A), world.address(B, 0));
        let reach = world.nodes[A].core.reach(now, identity(B), &[address]);
        world.pump(A);
        Self { world, reach, seen: Default::default() }
    }

    fn run(&mut self, milliseconds: u64) {
        let until = self.world.now + Duration::from_millis(milliseconds);
        while self.world.now < until && !matches!(self.world.step(until), Step::Over) {
            for (host, event) in std::mem::take(&mut self.world.events) {
                self.seen[host].push(event);
            }
        }
        self.world.nodes.iter().for_each(|node| node.core.check_invariants());
    }

    fn offer(&mut self, host: usize, association: AssociationId, offer: &'static [u8]) -> bool {
        let now = self.world.clock(host);
        let known = self.world.nodes[host].core.offer(now, association, Bytes::from_static(offer));
        self.world.pump(host);
        known
    }

    /// With which association a host was last told that something is in reach.
    fn reached(&self, host: usize) -> Option<AssociationId> {
        let of = |event: &Event| match event {
            Event::Reached { association, offers: true, .. } => Some(*association),
            _ => None,
        };
        self.seen[host].iter().rev().find_map(of)
    }

    /// What a host was offered last, and in which association.
    fn offered(&self, host: usize) -> Option<(AssociationId, Bytes)> {
        let of = |event: &Event| match event {
            Event::Offered { association, offer, .. } => Some((*association, offer.clone())),
            _ => None,
        };
        self.seen[host].iter().rev().find_map(of)
    }

    fn dissociated(&self, host: usize, which: AssociationId) -> bool {
        self.seen[host]
            .iter()
            .any(|event| matches!(event, Event::Dissociated { association } if *association == which))
    }
}

#[test]
fn both_sides_hear_the_latest_offer_and_answer_it() {
    let mut pair = Reached::begin(1, 1);
    pair.run(500);
    let at_a = pair.reached(A).expect("in reach");
    assert!(pair.offer(A, at_a, b"first"));
    assert!(pair.offer(A, at_a, b"second"));
    pair.run(500);
    let (at_b, offer) = pair.offered(B).expect("an offer");
    assert_eq!(offer, "second");
    assert!(pair.offer(B, at_b, b"answer"));
    pair.run(500);
    assert_eq!(pair.offered(A), Some((at_a, Bytes::from_static(b"answer"))));
    assert!(pair.world.nodes[A].core.route(pair.world.now, at_a, &Rule::default()).is_some());
}

#[test]
fn an_offer_on_a_path_that_dies_is_said_on_another() {
    let mut pair = Reached::begin(2, 2);
    pair.run(2000);
    let at_a = pair.reached(A).expect("in reach");
    assert_eq!(pair.world.nodes[A].core.paths().len(), 2);
    // What leaves A on the path that would carry it vanishes.
    let route = pair.world.nodes[A].core.route(pair.world.now, at_a, &Rule::default()).expect("a route");
    let which = route.network.0 as usize - 1;
    pair.world.nodes[A].attachments[which].hole_out = true;
    pair.offer(A, at_a, b"key");
    pair.run(2000);
    assert_eq!(pair.offered(B).map(|(_, offer)| offer), Some(Bytes::from_static(b"key")));
    let moved = pair.world.nodes[A].core.route(pair.world.now, at_a, &Rule::default()).expect("a route");
    assert_ne!(moved.network, route.network, "the route avoids the suspect path");
    assert!(pair.seen[A].iter().any(|event| matches!(event, Event::Rerouted { .. })));
}

#[test]
fn a_route_keeps_the_rule() {
    let mut pair = Reached::begin(3, 2);
    pair.run(2000);
    let at_a = pair.reached(A).expect("in reach");
    let core = &pair.world.nodes[A].core;
    assert_eq!(core.routes(at_a).len(), 2);
    for network in 0..2 {
        let rule = Rule::default().prohibit(Selector::Name(format!("net{network}")));
        let route = core.route(pair.world.now, at_a, &rule).expect("the other one");
        assert_eq!(route.network.0 as usize - 1, 1 - network);
    }
    let none = Rule::default().require(Selector::Name("net7".into()));
    assert_eq!(core.route(pair.world.now, at_a, &none), None);
}

#[test]
fn another_process_is_another_association() {
    let mut pair = Reached::begin(4, 1);
    pair.run(500);
    let before = pair.reached(A).expect("in reach");
    pair.offer(A, before, b"key");
    pair.run(500);
    pair.world.restart(B, Config::default(), 0);
    pair.run(2000);
    let after = pair.reached(A).expect("in reach again");
    assert_ne!(after, before);
    assert!(pair.dissociated(A, before), "what the former process offered is void");
    assert!(!pair.offer(A, before, b"late"));
    assert!(pair.offer(A, after, b"new"));
    pair.run(500);
    assert_eq!(pair.offered(B).map(|(_, offer)| offer), Some(Bytes::from_static(b"new")));
}

#[test]
fn it_is_kept_while_it_is_wanted_and_not_longer() {
    let mut pair = Reached::begin(5, 1);
    pair.run(500);
    let at_a = pair.reached(A).expect("in reach");
    pair.offer(A, at_a, b"key");
    pair.run(500);
    let (at_b, _) = pair.offered(B).expect("an offer");
    let idle = Config::default().idle_limit.as_millis() as u64;
    pair.run(3 * idle);
    assert_eq!(pair.world.nodes[B].core.paths().len(), 1, "kept without a session");
    pair.offer(A, at_a, b"");
    let (now, reach) = (pair.world.clock(A), pair.reach);
    pair.world.nodes[A].core.unreach(now, reach);
    pair.world.pump(A);
    pair.run(idle + 5000);
    assert_eq!(pair.world.nodes[A].core.paths().len(), 0);
    assert!(pair.dissociated(A, at_a) && pair.dissociated(B, at_b));
}

#[test]
fn a_peer_without_a_path_is_kept_for_a_while() {
    let mut pair = Reached::begin(6, 1);
    pair.run(500);
    let at_a = pair.reached(A).expect("in reach");
    pair.offer(A, at_a, b"key");
    pair.run(500);
    let (at_b, _) = pair.offered(B).expect("an offer");
    pair.world.nodes[A].attachments[0].up = false;
    pair.world.networks_changed(A);
    pair.run(5000);
    assert_eq!(pair.world.nodes[B].core.paths().len(), 0);
    assert!(!pair.dissociated(B, at_b));
    pair.world.nodes[A].attachments[0].up = true;
    pair.world.networks_changed(A);
    pair.run(7000);
    assert_eq!(pair.world.nodes[B].core.routes(at_b).len(), 1, "the same association goes on");
    pair.world.nodes[A].attachments[0].up = false;
    pair.world.networks_changed(A);
    pair.run(Config::default().idle_limit.as_millis() as u64 + 5000);
    assert!(pair.dissociated(B, at_b), "but not for ever");
}

#[test]
fn a_farewell_ends_it() {
    let mut pair = Reached::begin(7, 1);
    pair.run(500);
    let at_a = pair.reached(A).expect("in reach");
    let now = pair.world.clock(B);
    pair.world.nodes[B].core.leave(now, "enough");
    pair.world.pump(B);
    pair.run(2000);
    let reach = pair.reach;
    assert!(pair.seen[A].contains(&Event::Unreached { reach }));
    assert!(pair.dissociated(A, at_a));
}

#[test]
fn a_session_shares_the_association() {
    let mut pair = Reached::begin(8, 1);
    pair.run(500);
    let (now, address) = (pair.world.clock(A), pair.world.address(B, 0));
    let core = &mut pair.world.nodes[A].core;
    let session = core.connect(now, identity(B), &[address], SessionConfig::default());
    core.send(now, session, Labels::foreground(), steadfast_session::OrderRequest::Default, "hello".into())
        .expect("sent");
    pair.world.pump(A);
    pair.run(500);
    assert_eq!(pair.world.nodes[A].core.paths().len(), 1);
    assert!(pair.seen[B].iter().any(|event| matches!(event, Event::Incoming { .. })));
}

#[test]
fn who_was_forgotten_offers_again_when_it_is_back() {
    let mut pair = Reached::begin(9, 1);
    pair.run(500);
    let at_a = pair.reached(A).expect("in reach");
    pair.offer(A, at_a, b"key");
    pair.run(500);
    let (at_b, _) = pair.offered(B).expect("an offer");
    pair.offer(B, at_b, b"answer");
    pair.run(500);
    pair.world.nodes[A].attachments[0].up = false;
    pair.world.networks_changed(A);
    pair.run(Config::default().idle_limit.as_millis() as u64 + 10_000);
    assert!(pair.dissociated(B, at_b));
    pair.world.nodes[A].attachments[0].up = true;
    pair.world.networks_changed(A);
    pair.run(20_000);
    assert_eq!(pair.world.nodes[A].core.routes(at_a).len(), 1, "the path is back");
    // What A has of B is void there, so that A has to hear of that, or to be told of another association.
    let told = pair.dissociated(A, at_a)
        || pair.reached(A) != Some(at_a)
        || pair.offered(A).is_some_and(|(_, offer)| offer.is_empty())
        || pair.offered(B).is_some_and(|(association, _)| association != at_b);
    assert!(told, "A goes on to use what B has forgotten");
}

fn round_of(offer: &Bytes) -> u64 {
    u64::from_be_bytes(*offer.first_chunk().expect("a round"))
}

/// Applications that do with offers what the library's transport does: one that reaches the other offers, one that is
/// offered something answers, one whose offer is void offers again. No two offers are alike.
struct Agents {
    pair: Reached,
    reaches: [Option<ReachId>; 2],
    /// How many of the events were heard.
    heard: [usize; 2],
    /// What each host offers in which association, and what it goes by there: an answer to what it was offered last.
    agreed: [BTreeMap<AssociationId, (Bytes, Option<Bytes>)>; 2],
    /// All that was ever taken up, which is never to be taken up again.
    used: [BTreeSet<Bytes>; 2],
    made: u64,
}

impl Agents {
    fn begin(seed: u64, networks: usize) -> Self {
        let mut pair = Reached::begin(seed, networks);
        let (now, reach) = (pair.world.clock(A), pair.reach);
        pair.world.nodes[A].core.unreach(now, reach);
        let agreed = Default::default();
        Self { pair, reaches: [None; 2], heard: [0; 2], agreed, used: Default::default(), made: 0 }
    }

    fn seek(&mut self, host: usize, seeks: bool) {
        let now = self.pair.world.clock(host);
        let networks = self.pair.world.nodes[1 - host].attachments.len();
        let addresses: Vec<_> = (0..networks).map(|at| self.pair.world.address(1 - host, at)).collect();
        let core = &mut self.pair.world.nodes[host].core;
        match (self.reaches[host].take(), seeks) {
            (None, true) => self.reaches[host] = Some(core.reach(now, identity(1 - host), &addresses)),
            (Some(reach), false) => core.unreach(now, reach),
            (same, _) => self.reaches[host] = same,
        }
        self.pair.world.pump(host);
    }

    /// Offers something in a round, unless it did so in this one or a later one.
    fn offer(&mut self, host: usize, association: AssociationId, round: u64) {
        if self.agreed[host].get(&association).is_some_and(|(own, _)| round_of(own) >= round) {
            return;
        }
        self.made += 1;
        let offer = Bytes::from([round.to_be_bytes(), self.made.to_be_bytes()].concat());
        let now = self.pair.world.clock(host);
        if self.pair.world.nodes[host].core.offer(now, association, offer.clone()) {
            self.agreed[host].insert(association, (offer, None));
        }
        self.pair.world.pump(host);
    }

    fn hear(&mut self, host: usize, event: Event) {
        match event {
            Event::Reached { association, .. } => self.offer(host, association, 1),
            Event::Offered { association, offer, .. } if offer.is_empty() => {
                self.agreed[host].remove(&association);
                if self.reaches[host].is_some() {
                    self.offer(host, association, 1);
                }
            }
            Event::Offered { association, offer, .. } => {
                assert!(self.used[host].insert(offer.clone()), "{host} takes up an offer a second time");
                self.offer(host, association, round_of(&offer));
                if let Some((own, theirs)) = self.agreed[host].get_mut(&association)
                    && round_of(own) == round_of(&offer)
                {
                    *theirs = Some(offer);
                }
            }
            Event::Dissociated { association } => drop(self.agreed[host].remove(&association)),
            _ => {}
        }
    }

    fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(20) {
            self.pair.run(20);
            for host in [A, B] {
                let events = self.pair.seen[host].split_off(self.heard[host]);
                self.pair.seen[host].extend(events.iter().cloned());
                self.heard[host] += events.len();
                for event in events {
                    self.hear(host, event);
                }
            }
        }
    }

    fn set_up(&mut self, host: usize, up: bool) {
        self.pair.world.nodes[host].attachments[0].up = up;
        self.pair.world.networks_changed(host);
    }

    /// Both go by what the other offers now.
    fn assert_agreed(&self, what: &str) {
        let path = |host: usize| {
            let core = &self.pair.world.nodes[host].core;
            let of = |(id, (own, theirs)): (&AssociationId, &(Bytes, Option<Bytes>))| {
                (!core.routes(*id).is_empty()).then(|| (Some(own.clone()), theirs.clone()))
            };
            self.agreed[host].iter().find_map(of).unwrap_or_else(|| panic!("{what}: nothing at {host}"))
        };
        let ((a_own, a_theirs), (b_own, b_theirs)) = (path(A), path(B));
        assert_eq!((a_own, a_theirs), (b_theirs, b_own), "{what}");
    }
}

#[test]
fn whoever_forgot_both_agree_anew_and_take_up_nothing_twice() {
    let idle = Config::default().idle_limit.as_millis() as u64;
    let mut forgotten = [0; 2];
    let mut seed = 0;
    for gone in [A, B] {
        for seekers in [[true, false], [false, true], [true, true]] {
            // Around the time at which both may forget, and long after it.
            for outage in [1000, idle - 200, idle, idle + 200, idle + 3000, idle + 3200, idle + 20_000] {
                for leaves in [None, Some(A), Some(B)] {
                    seed += 1;
                    let mut agents = Agents::begin(seed, 1);
                    let what =
                        format!("{gone} is gone, {seekers:?} seek, {outage} ms, {leaves:?} leaves off");
                    (0..2).for_each(|host| agents.seek(host, seekers[host]));
                    agents.run(2000);
                    agents.assert_agreed(&what);
                    // What was said last need not be acknowledged.
                    if seed % 2 == 0 {
                        agents.pair.world.nodes[1 - gone].attachments[0].hole_in = true;
                        let ids: Vec<_> = agents.agreed[1 - gone].keys().copied().collect();
                        for id in ids {
                            agents.offer(1 - gone, id, 2);
                        }
                        agents.run(100);
                    }
                    agents.set_up(gone, false);
                    agents.pair.world.nodes[1 - gone].attachments[0].hole_in = false;
                    if let Some(host) = leaves {
                        agents.seek(host, false);
                    }
                    agents.run(outage);
                    (0..2).for_each(|host| agents.seek(host, seekers[host]));
                    agents.set_up(gone, true);
                    agents.run(25_000);
                    agents.assert_agreed(&what);
                    for host in [A, B] {
                        let ends = |event: &&Event| matches!(event, Event::Dissociated { .. });
                        forgotten[host] += agents.pair.seen[host].iter().filter(ends).count();
                    }
                }
            }
        }
    }
    assert!(forgotten.iter().all(|count| *count > 10), "hardly anything was forgotten: {forgotten:?}");
}

#[test]
fn two_that_seek_each_other_at_once_agree() {
    for networks in 1..=3 {
        for gap in 0..120 {
            for seed in 0..4 {
                let (first, gap) = (if gap % 2 == 0 { A } else { B }, gap / 2);
                let mut agents = Agents::begin(seed, networks);
                agents.pair.run(seed * 7);
                agents.seek(first, true);
                agents.pair.run(gap);
                agents.seek(1 - first, true);
                agents.run(5000);
                agents.assert_agreed(&format!("{networks} networks, {first} first, {gap} ms, seed {seed}"));
            }
        }
    }
}
