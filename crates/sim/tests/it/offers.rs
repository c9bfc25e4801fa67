//! What two processes offer each other beside sessions, and processes kept in reach without one.

use crate::agents::Agents;
use crate::pair::{A, B, net};
use bytes::Bytes;
use core::time::Duration;
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
fn a_path_whose_peer_is_heard_beside_it_is_not_given_up_for_a_while() {
    let down = |pair: &Reached| pair.seen[A].iter().any(|event| matches!(event, Event::PathDown(..)));
    for heard in [false, true] {
        let mut pair = Reached::begin(6, 1);
        pair.run(2000);
        let at_a = pair.reached(A).expect("in reach");
        let from = pair.world.address(B, 0).ip();
        // Nothing of the path's own comes through any more, as behind a crowd of packets that go first.
        for host in [A, B] {
            pair.world.nodes[host].attachments[0].hole_out = true;
        }
        let begun = pair.world.now;
        let until_down = |pair: &mut Reached, limit: u64| {
            while !down(pair) && pair.world.now < begun + Duration::from_secs(limit) {
                if heard {
                    let now = pair.world.clock(A);
                    pair.world.nodes[A].core.handle_heard(at_a, from, now);
                }
                pair.run(500);
            }
            down(pair)
        };
        assert_eq!(until_down(&mut pair, 10), !heard);
        assert!(until_down(&mut pair, 60), "not for ever");
    }
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

fn seek(agents: &mut Agents, seekers: [bool; 2]) {
    for host in [A, B].into_iter().filter(|host| seekers[*host]) {
        agents.seek(host, 1 - host);
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
                    let networks = vec![net(1_000_000, 10)];
                    let mut agents = Agents::new(seed, &Config::default(), &[networks.clone(), networks]);
                    agents.lag = 20;
                    let what =
                        format!("{gone} is gone, {seekers:?} seek, {outage} ms, {leaves:?} leaves off");
                    seek(&mut agents, seekers);
                    agents.run(2000);
                    agents.assert_agreed(A, B, &what);
                    // What was said last need not be acknowledged.
                    if seed % 2 == 0 {
                        agents.world.nodes[1 - gone].attachments[0].hole_in = true;
                        agents.renew(1 - gone);
                        agents.run(100);
                    }
                    agents.set_up(gone, 0, false);
                    agents.world.nodes[1 - gone].attachments[0].hole_in = false;
                    if let Some(host) = leaves {
                        agents.leave_off(host, 1 - host);
                    }
                    agents.run(outage);
                    seek(&mut agents, seekers);
                    agents.set_up(gone, 0, true);
                    agents.run(25_000);
                    agents.assert_agreed(A, B, &what);
                    (0..2).for_each(|host| forgotten[host] += agents.dissociated(host));
                }
            }
        }
    }
    assert!(forgotten.iter().all(|count| *count > 10), "hardly anything was forgotten: {forgotten:?}");
}
