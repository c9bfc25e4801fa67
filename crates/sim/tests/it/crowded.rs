//! More networks than there may be paths: what waits for one of them gets it, the paths come to rest, and if not even
//! all that is needed has room, it takes turns.

use crate::pair::{A, B, Pair, net, pattern};
use bytes::Bytes;
use core::time::Duration;
use steadfast_session::{Config, DownReason, Event, OrderRequest, SessionConfig};
use steadfast_sim::world::Attachment;
use steadfast_wire::{Labels, MessageId, Rule, Selector};

const SECOND: Duration = Duration::from_secs(1);

/// Hosts with so many networks that are joined one by one, of which at most `max_paths` may have a path.
fn open(seed: u64, networks: usize, max_paths: usize) -> Pair {
    let networks: Vec<Attachment> = (0..networks as u64).map(|at| net(1_000_000, 20 + at)).collect();
    begin(seed, &networks, max_paths)
}

fn begin(seed: u64, networks: &[Attachment], max_paths: usize) -> Pair {
    let mut config = Config::default();
    config.max_paths = max_paths;
    let mut pair = Pair::begin(seed, &config, networks, SessionConfig::default());
    pair.until("it is open", |pair| pair.knows(B) && pair.saw(A, |e| matches!(e, Event::Opened { .. })));
    pair.run(5 * SECOND);
    pair
}

fn on(network: usize) -> Labels {
    Labels::foreground().rule(Rule::default().require(Selector::Name(format!("net{network}"))))
}

fn say(pair: &mut Pair, host: usize, network: usize) -> MessageId {
    pair.send(host, on(network), OrderRequest::Unordered, Bytes::from_static(b"only there"))
}

/// A message that is not finished, so that it goes on needing its network.
fn dwell(pair: &mut Pair, host: usize, network: usize) -> MessageId {
    let id = pair.begin_stream(host, on(network), OrderRequest::Unordered);
    pair.write(host, id, &pattern(id.0, 1000));
    id
}

fn networks(pair: &Pair, host: usize) -> Vec<String> {
    let mut names: Vec<String> =
        pair.world.nodes[host].core.paths().into_iter().map(|info| info.local_name).collect();
    names.sort();
    names
}

fn has(pair: &Pair, network: usize) -> bool {
    let name = format!("net{network}");
    [A, B].iter().all(|host| networks(pair, *host).contains(&name))
}

/// How many paths went down, on both sides.
fn downs(pair: &Pair) -> usize {
    [A, B].iter().map(|host| pair.count(*host, |e| matches!(e, Event::PathDown(..)))).sum()
}

/// For a minute no path comes or goes, once the other side has heard of the last.
fn rests(pair: &mut Pair) {
    pair.run(SECOND);
    let before = ([A, B].map(|host| networks(pair, host)), downs(pair));
    pair.run(60 * SECOND);
    assert_eq!(([A, B].map(|host| networks(pair, host)), downs(pair)), before);
    assert_eq!(before.0[A].len(), before.0[B].len(), "both sides agree");
}

#[test]
fn what_needs_a_network_beyond_the_limit_gets_a_path_there() {
    for host in [A, B] {
        let mut pair = open(1, 9, 8);
        rests(&mut pair);
        assert!(!has(&pair, 8), "this is the ninth");
        let id = say(&mut pair, host, 8);
        pair.until_delivered(host, &[id]);
        let replaced = |e: &Event| matches!(e, Event::PathDown(_, DownReason::Replaced));
        assert_eq!(pair.count(host, replaced), 1, "one path gave way to it");
        // When it is not needed any more, the more promising one comes back.
        pair.until("the regular one is back", |pair| has(pair, 7) && !has(pair, 8));
        rests(&mut pair);
    }
}

#[test]
fn a_network_that_is_needed_keeps_its_path() {
    for host in [A, B] {
        let mut pair = open(2, 4, 2);
        let id = dwell(&mut pair, host, 3);
        pair.until("it has a path", |pair| has(pair, 3));
        assert!(has(&pair, 0), "the least promising one gave way");
        rests(&mut pair);
        pair.finish_stream(host, id);
        pair.until_delivered(host, &[id]);
    }
}

#[test]
fn a_network_on_demand_gets_a_path_beyond_the_limit() {
    // Three by three networks join each other, and the fourth is metered, at one end or at both.
    for (metered, host) in [([true, false], A), ([true, false], B), ([true, true], A)] {
        let networks = [net(1_000_000, 20), net(1_000_000, 21), net(1_000_000, 22), net(1_000_000, 23)];
        let mut config = Config::default();
        config.max_paths = 8;
        let mut pair = Pair::begin(3, &config, &networks, SessionConfig::default());
        pair.world.routed = true;
        for side in [A, B] {
            pair.world.nodes[side].attachments[3].metered = metered[side];
            pair.world.networks_changed(side);
        }
        pair.until("there are as many paths as there may be", |pair| {
            [A, B].iter().all(|host| pair.world.nodes[*host].core.paths().len() == 8)
        });
        pair.run(5 * SECOND);
        rests(&mut pair);
        assert!(!has(&pair, 3), "metered {metered:?}: either end counts");
        let id = dwell(&mut pair, host, 3);
        pair.until("it has a path", |pair| has(pair, 3));
        rests(&mut pair);
        pair.finish_stream(host, id);
        pair.until_delivered(host, &[id]);
        pair.until("it is given back", |pair| !has(pair, 3) && pair.world.nodes[B].core.paths().len() == 8);
        rests(&mut pair);
    }
}

#[test]
fn what_each_side_needs_has_its_path_beside_what_the_other_needs() {
    for seed in 0..20 {
        // Neither knows what the other needs, and together it is all that there is room for.
        let mut pair = open(seed, 8, 4);
        let first = dwell(&mut pair, A, 7);
        let ids = [
            (A, first),
            (B, dwell(&mut pair, B, 6)),
            (B, dwell(&mut pair, B, 0)),
            (A, dwell(&mut pair, A, 5)),
        ];
        let all = |pair: &Pair| [0, 5, 6, 7].iter().all(|network| has(pair, *network));
        pair.until("all four have a path", all);
        pair.run(10 * SECOND);
        assert!(all(&pair));
        rests(&mut pair);
        for (host, id) in ids {
            pair.finish_stream(host, id);
        }
        pair.until_delivered(A, &[ids[0].1, ids[3].1]);
        pair.until_delivered(B, &[ids[1].1, ids[2].1]);
    }
}

#[test]
fn more_needs_than_paths_take_turns() {
    // One path or two, and four networks of which each is needed for longer than anybody's turn.
    for (max, seed) in [(1, 4), (2, 5), (1, 6), (2, 7)] {
        let mut pair = open(seed, 4, max);
        let start = (pair.world.now, downs(&pair));
        let mut ids = [Vec::new(), Vec::new()];
        for (host, network) in [(A, 0), (A, 1), (B, 2), (B, 3)] {
            for salt in 0..12 {
                let bytes = pattern(salt, 600_000);
                let labels = on(network);
                let urgent = Labels::background().rule(labels.rule);
                ids[host].push(pair.send(host, urgent, OrderRequest::Unordered, bytes));
            }
        }
        for host in [A, B] {
            pair.until_delivered(host, &ids[host]);
        }
        let seconds = pair.world.now.since(start.0).as_secs() as usize;
        let gone = downs(&pair) - start.1;
        assert!(gone > 4, "they took turns: {gone}");
        // A path that goes is seen by both.
        assert!(gone <= 2 * max * (seconds / 2 + 2), "{gone} paths went in {seconds} s");
    }
}

#[test]
fn nothing_that_reaches_the_peer_is_left_untried() {
    // The networks that come first are silent, and there is room for no more than those.
    let networks: Vec<Attachment> = (0..6).map(|at| net(1_000_000, 20 + at)).collect();
    let mut config = Config::default();
    config.max_paths = 2;
    let mut pair = Pair::begin(8, &config, &networks, SessionConfig::default());
    pair.until("it is open", |pair| pair.knows(B) && pair.saw(A, |e| matches!(e, Event::Opened { .. })));
    pair.run(5 * SECOND);
    for network in 0..5 {
        pair.hole(A, network, true, true);
    }
    let id = pair.say(A, "the last one works");
    pair.until_delivered(A, &[id]);
    // The same for a message that may use several, of which the last one works.
    for network in 0..6 {
        pair.hole(A, network, (1..5).contains(&network), (1..5).contains(&network));
    }
    let rule =
        Rule::default().prohibit(Selector::Name("net0".into())).prohibit(Selector::Name("net1".into()));
    pair.until("the first one is back", |pair| has(pair, 0));
    let id = pair.send(A, Labels::foreground().rule(rule), OrderRequest::Default, Bytes::new());
    pair.until_delivered(A, &[id]);
}

/// A has three paths at most, and B wants all there are.
fn beside_a_greedy_peer(seed: u64, networks: &[Attachment]) -> Pair {
    let mut pair = begin(seed, networks, 3);
    let mut greedy = Config::default();
    greedy.max_paths = 64;
    pair.world.restart(B, greedy, 0);
    let now = pair.world.clock(A);
    let peer = steadfast_sim::world::identity(B);
    let address = pair.world.address(B, 0);
    pair.session = pair.world.nodes[A].core.connect(now, peer, &[address], SessionConfig::default());
    pair.world.pump(A);
    pair.until("it is open", |pair| pair.knows(B));
    pair
}

#[test]
fn a_path_too_many_keeps_nothing_that_waits_from_its_own() {
    let mut networks: Vec<Attachment> = (0..6).map(|at| net(1_000_000, 20 + at)).collect();
    networks[5].metered = true;
    let mut pair = beside_a_greedy_peer(11, &networks);
    pair.until("the peer has opened one more", |pair| self::networks(pair, A).len() == 4);
    let id = say(&mut pair, A, 5);
    pair.until_delivered(A, &[id]);
}

#[test]
fn a_peer_that_wants_more_paths_leaves_us_those_that_we_need() {
    let networks: Vec<Attachment> = (0..12).map(|at| net(1_000_000, 20 + at)).collect();
    let mut pair = beside_a_greedy_peer(9, &networks);
    let id = dwell(&mut pair, A, 11);
    pair.until("it has a path", |pair| has(pair, 11));
    let name = "net11".to_string();
    for _ in 0..600 {
        pair.run(SECOND / 10);
        let up = self::networks(&pair, A);
        assert!(up.contains(&name) && up.len() <= 4, "{up:?}");
    }
    let before = downs(&pair);
    pair.run(60 * SECOND);
    assert!(downs(&pair) - before < 1000, "what is refused is not tried at every moment");
    pair.finish_stream(A, id);
    pair.until_delivered(A, &[id]);
}

#[test]
fn a_cancelled_message_wants_no_metered_network_any_more() {
    let mut metered = net(500_000, 60);
    metered.metered = true;
    let mut pair = begin(10, &[net(1_000_000, 20), metered], 8);
    // It cannot be opened yet.
    pair.hole(A, 1, true, true);
    let absent = say(&mut pair, A, 7);
    let wants = say(&mut pair, A, 1);
    pair.run(SECOND);
    pair.cancel(A, wants);
    // What was begun fails in the meantime.
    pair.run(10 * SECOND);
    pair.hole(A, 1, false, false);
    pair.run(60 * SECOND);
    assert_eq!(networks(&pair, A), ["net0"], "the other one that waits may not use it");
    assert_eq!(pair.outcome(A, absent), None);
}

#[test]
fn what_a_side_tries_in_vain_keeps_nobody_out() {
    for seed in 0..5 {
        let mut pair = open(seed, 4, 1);
        for network in 0..4 {
            pair.hole(A, network, true, true);
        }
        // Nine pairs of networks would do.
        let rule = Rule::default().prohibit(Selector::Name("net0".into()));
        for host in [A, B] {
            let labels = Labels::foreground().rule(rule.clone());
            pair.on(host, |core, now, session| core.defer(now, session, labels, None)).expect("it waits");
        }
        // Both try all that they know, one or two at a time, and nearly all of it never answers.
        pair.run(60 * SECOND);
        assert_eq!([networks(&pair, A).len(), networks(&pair, B).len()], [0, 0]);
        pair.hole(A, 3, false, false);
        pair.until("there is a path", |pair| has(pair, 3));
    }
}
