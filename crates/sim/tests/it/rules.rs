//! Network rules are absolute: whatever fails, and whatever changes meanwhile, not one byte of a message goes where its
//! rule forbids it; and over a network that is never to be used goes nothing at all.

use crate::pair::{A, B, Pair, net, pattern};
use core::time::Duration;
use steadfast_session::{Config, DownReason, Endpoint, Event, OrderRequest, SessionConfig};
use steadfast_sim::world::Attachment;
use steadfast_wire::{Labels, MessageId, NetworkClass, Rule, Selector};

const SECOND: Duration = Duration::from_secs(1);
const LTE: &str = "net1";

/// A network for everything, and a better one that rules may forbid.
fn networks() -> [Attachment; 2] {
    let (mut wifi, mut lte) = (net(500_000, 60), net(2_000_000, 10));
    (wifi.class, lte.class) = (NetworkClass::Wifi, NetworkClass::Cellular);
    [wifi, lte]
}

fn open(seed: u64, networks: &[Attachment]) -> Pair {
    let mut config = Config::default();
    // Or there would be no path there that a byte could take.
    config.metered_standby = true;
    let mut pair = Pair::open(seed, &config, networks, SessionConfig::default());
    pair.world.said = Some(Vec::new());
    pair
}

fn name(name: &str) -> Selector {
    Selector::Name(name.into())
}

/// Rules that keep a message off the second network, by each property that it may be known by.
fn keeps_off() -> Vec<Rule> {
    vec![
        Rule::default().prohibit(name(LTE)),
        Rule::default().prohibit(Selector::Class(NetworkClass::Cellular)),
        Rule::default().prohibit(Selector::Metered),
        Rule::default().require(name("net0")),
        Rule::default().require(Selector::Class(NetworkClass::Wifi)),
        // Prohibition wins over preference.
        Rule::default().prohibit(Selector::Metered).prefer(name(LTE)),
    ]
}

/// Bytes of messages that A gave to a network since it was last asked.
fn said(pair: &mut Pair, network: usize, id: MessageId) -> usize {
    let all = pair.world.said.as_ref().unwrap().iter();
    all.filter(|said| said.id == id && (said.from == (A, network) || said.to.1 == network)).count()
}

/// What the paths say of it.
fn data_sent(pair: &Pair, network: &str) -> u64 {
    let down = pair.events[A].iter().filter_map(|(_, event)| match event {
        Event::PathDown(info, _) => Some(info.clone()),
        _ => None,
    });
    let all = down.chain(pair.world.nodes[A].core.paths());
    all.filter(|info| info.local_name == network).map(|info| info.data_sent).sum()
}

#[test]
fn no_failure_moves_a_message_to_a_forbidden_network() {
    // The forbidden network is known by what either side says of it.
    for (seed, rule) in keeps_off().into_iter().enumerate() {
        for side in [A, B] {
            let [wifi, lte] = networks();
            let mut pair = open(seed as u64, &[wifi, lte]);
            for host in [A, B] {
                let attachment = &mut pair.world.nodes[host].attachments[1];
                attachment.metered = host == side;
                attachment.class = if host == side { NetworkClass::Cellular } else { NetworkClass::Wifi };
                pair.world.networks_changed(host);
            }
            pair.run(SECOND);
            let mut ids = Vec::new();
            let mut say = |pair: &mut Pair| {
                for labels in [Labels::foreground(), Labels::background()] {
                    let labels = labels.rule(rule.clone());
                    ids.push(pair.send(A, labels, OrderRequest::Unordered, pattern(1, 200_000)));
                }
            };
            say(&mut pair);
            // Silent in either direction and in both, gone, moved, back.
            for (out, into) in [(true, true), (true, false), (false, true), (false, false)] {
                pair.run(SECOND / 10);
                pair.hole(A, 0, out, into);
                say(&mut pair);
                pair.run(5 * SECOND);
            }
            pair.set_up(A, 0, false);
            say(&mut pair);
            pair.run(5 * SECOND);
            pair.set_up(A, 0, true);
            pair.run(SECOND / 10);
            pair.readdress(A, 0);
            say(&mut pair);
            pair.set_up(B, 0, false);
            pair.run(5 * SECOND);
            pair.set_up(B, 0, true);
            pair.until_delivered(A, &ids);
            for id in ids {
                assert_eq!(said(&mut pair, 1, id), 0, "{rule} {id}");
            }
            assert_eq!(data_sent(&pair, LTE), 0, "{rule}");
            let control = pair.world.nodes[A].core.stats().bytes_control;
            assert!(control > 0, "there was control all the same");
        }
    }
}

#[test]
fn what_is_avoided_is_used_only_without_another_and_what_is_preferred_first() {
    for (rule, first) in [
        (Rule::default().avoid(name(LTE)), 0),
        (Rule::default().avoid(Selector::Class(NetworkClass::Cellular)), 0),
        (Rule::default().prefer(Selector::Class(NetworkClass::Wifi)), 0),
        (Rule::default().prefer(name(LTE)), 1),
    ] {
        let mut pair = open(1, &networks());
        let labels = Labels::foreground().rule(rule.clone());
        let id = pair.send(A, labels.clone(), OrderRequest::Default, pattern(1, 200_000));
        pair.until_delivered(A, &[id]);
        assert_eq!(said(&mut pair, 1 - first, id), 0, "{rule}");
        pair.set_up(A, first, false);
        let id = pair.send(A, labels, OrderRequest::Default, pattern(1, 200_000));
        pair.until_delivered(A, &[id]);
        assert!(said(&mut pair, 1 - first, id) > 0, "{rule}");
    }
}

/// Something of a network changes while a message is under way on it and more of it waits.
fn flips(change: impl Fn(&mut Pair)) {
    for urgency in [Labels::foreground(), Labels::background()] {
        let mut pair = open(2, &networks());
        let rule = Rule::default().prohibit(Selector::Metered).prefer(name(LTE));
        let id = pair.send(A, urgency.rule(rule), OrderRequest::Default, pattern(1, 900_000));
        pair.run(SECOND / 20);
        assert!(said(&mut pair, 1, id) > 0, "it was under way there");
        let reset = |pair: &Pair| {
            pair.count(
                A,
                |e| matches!(e, Event::PathDown(info, DownReason::Prohibited) if info.local_name == LTE),
            )
        };
        assert_eq!(reset(&pair), 0);
        change(&mut pair);
        pair.until("the sender knows", |pair| reset(pair) == 1);
        pair.world.said = Some(Vec::new());
        pair.until_delivered(A, &[id]);
        assert_eq!(said(&mut pair, 1, id), 0, "what was not given to the kernel moved");
        assert_eq!(pair.world.nodes[A].core.stats().rules_enforced, 1);
        // The network is still good for others.
        let other = pair.send(A, Labels::foreground(), OrderRequest::Default, pattern(2, 1000));
        pair.until_delivered(A, &[other]);
    }
}

#[test]
fn a_network_becomes_metered_while_bytes_are_under_way() {
    flips(|pair| {
        pair.world.nodes[A].attachments[1].metered = true;
        pair.world.networks_changed(A);
    });
}

#[test]
fn the_peer_s_network_becomes_metered_while_bytes_are_under_way() {
    flips(|pair| {
        pair.world.nodes[B].attachments[1].metered = true;
        pair.world.networks_changed(B);
    });
}

#[test]
fn new_labels_forbid_a_network_while_bytes_are_under_way() {
    let mut pair = open(3, &networks());
    let prefers = Labels::background().rule(Rule::default().prefer(name(LTE)));
    let id = pair.send(A, prefers, OrderRequest::Default, pattern(1, 900_000));
    pair.run(SECOND / 20);
    assert!(said(&mut pair, 1, id) > 0, "it was under way there");
    pair.world.said = Some(Vec::new());
    let strict = Labels::background().rule(Rule::default().prohibit(name(LTE)));
    pair.on(A, |core, now, s| core.relabel(now, s, id, strict)).unwrap();
    pair.until_delivered(A, &[id]);
    assert_eq!(said(&mut pair, 1, id), 0);
    assert_eq!(pair.world.nodes[A].core.stats().rules_enforced, 1);
}

#[test]
fn over_a_network_that_is_never_to_be_used_goes_nothing() {
    for selector in [name(LTE), Selector::Class(NetworkClass::Cellular), Selector::Metered] {
        for side in [A, B] {
            let mut nets = networks();
            nets[1].metered = true;
            let mut config = Config::default();
            config.metered_standby = true;
            let mut strict = config.clone();
            strict.never_connect = vec![selector.clone()];
            let mut pair = Pair::begin(4, &config, &nets, SessionConfig::default());
            // One side alone says so.
            pair.world.restart(side, strict, 0);
            if side == A {
                let address = pair.world.address(B, 1);
                let now = pair.world.clock(A);
                let peer = steadfast_sim::world::identity(B);
                // Though the application knows no other address.
                let addresses = [address, pair.world.address(B, 0)];
                pair.session =
                    pair.world.nodes[A].core.connect(now, peer, &addresses, SessionConfig::default());
                pair.world.pump(A);
            }
            pair.until("it is open", |pair| pair.knows(B));
            let ids = [pair.say(A, "one"), pair.say(A, "two")];
            pair.until_delivered(A, &ids);
            pair.run(30 * SECOND);
            pair.set_up(A, 0, false);
            pair.run(30 * SECOND);
            let id = pair.say(A, "waits");
            pair.run(30 * SECOND);
            assert_eq!(pair.outcome(A, id), None, "{selector}: rather nothing");
            pair.set_up(A, 0, true);
            pair.until_delivered(A, &[id]);
            for host in [A, B] {
                let up = |e: &Event| matches!(e, Event::PathUp(info) if info.local_name == LTE);
                assert_eq!(pair.count(host, up), 0, "{selector} said by {side}: a path at {host}");
            }
        }
    }
}

#[test]
fn a_network_that_becomes_forbidden_loses_its_path_at_once() {
    let mut config = Config::default();
    config.never_connect = vec![Selector::Metered];
    for side in [A, B] {
        let mut pair = Pair::open(5, &config, &networks(), SessionConfig::default());
        assert_eq!(pair.world.nodes[A].core.paths().len(), 2);
        pair.world.nodes[side].attachments[1].metered = true;
        pair.world.networks_changed(side);
        assert_eq!(pair.world.nodes[side].core.paths().len(), 1);
        pair.run(30 * SECOND);
        for host in [A, B] {
            let left: Vec<String> =
                pair.world.nodes[host].core.paths().into_iter().map(|info| info.local_name).collect();
            assert_eq!(left, ["net0"]);
        }
        pair.world.nodes[side].attachments[1].metered = false;
        pair.world.networks_changed(side);
        pair.until("it is used again", |pair| pair.world.nodes[A].core.paths().len() == 2);
    }
}

/// How often a rule closed a path of A over the second network.
fn resets(pair: &Pair) -> usize {
    let of_rule =
        |e: &Event| matches!(e, Event::PathDown(info, DownReason::Prohibited) if info.local_name == LTE);
    pair.count(A, of_rule)
}

#[test]
fn bytes_in_a_socket_keep_their_rule_though_their_message_or_conversation_is_gone() {
    let free = Rule::default().prohibit(Selector::Metered).prefer(name(LTE));
    // The last one is for a network that the rule goes on to allow.
    let likes = Rule::default().prefer(name(LTE));
    for (ends, rule, reset) in [(true, &free, 1), (false, &free, 1), (true, &likes, 0), (false, &likes, 0)] {
        let mut pair = open(6, &networks());
        pair.hole(A, 1, true, true);
        let labels = Labels::foreground().rule(rule.clone());
        let id = pair.send(A, labels, OrderRequest::Default, pattern(1, 1000));
        assert!(said(&mut pair, 1, id) > 0, "it is under way there");
        if ends {
            pair.on(A, Endpoint::abort).unwrap();
        } else {
            // It comes by the other network, and nobody knows its rule any more.
            pair.until_delivered(A, &[id]);
        }
        pair.world.nodes[A].attachments[1].metered = true;
        pair.world.networks_changed(A);
        pair.run(Duration::ZERO);
        assert_eq!(resets(&pair), reset, "{rule}, ends {ends}");
    }
}

#[test]
fn a_path_on_which_nothing_is_under_way_survives_a_change_of_its_networks() {
    let mut pair = open(7, &networks());
    let free = Rule::default().prohibit(Selector::Metered).prefer(name(LTE));
    let id = pair.send(A, Labels::foreground().rule(free), OrderRequest::Default, pattern(1, 1000));
    pair.until_delivered(A, &[id]);
    assert!(said(&mut pair, 1, id) > 0, "it went there");
    pair.run(SECOND);
    pair.world.nodes[A].attachments[1].metered = true;
    pair.world.networks_changed(A);
    pair.run(SECOND);
    assert_eq!(resets(&pair), 0);
}

#[test]
fn a_network_that_becomes_forbidden_while_a_carrier_greets_gets_no_path() {
    let config = Config::default();
    let mut strict = config.clone();
    strict.never_connect = vec![Selector::Metered];
    // The greeting takes some time, so one of these moments is in it.
    for moment in 0..40 {
        let mut pair = Pair::begin(8, &config, &networks(), SessionConfig::default());
        pair.world.restart(B, strict.clone(), 0);
        pair.until("there is a path", |pair| !pair.world.nodes[B].core.paths().is_empty());
        pair.run(Duration::from_millis(5 * moment));
        pair.world.nodes[B].attachments[1].metered = true;
        pair.world.networks_changed(B);
        let up = |pair: &Pair| pair.count(B, |e| matches!(e, Event::PathUp(info) if info.local_name == LTE));
        let before = up(&pair);
        pair.run(10 * SECOND);
        assert_eq!(up(&pair), before, "a path came up after {} ms", 5 * moment);
        assert!(pair.world.nodes[B].core.paths().iter().all(|info| info.local_name != LTE));
    }
}
