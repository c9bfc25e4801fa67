//! Many seeds: faults while requests are made, then a healed network in which every request has an outcome, it is true,
//! and nothing was executed twice. `STEADFAST_SEEDS` sets how many.

use crate::hand::config;
use crate::network::{Faults, Rng, World};
use core::time::Duration;
use steadfast_homa::packet::Dialect;
use steadfast_homa::{Config, Outcome};

fn seeds() -> u64 {
    std::env::var("STEADFAST_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

fn settings(rng: &mut Rng) -> Config {
    config!(
        unscheduled: rng.range(500, 40_000) as u32,
        max_incoming: rng.range(5000, 400_000) as u32,
        overcommit: rng.range(1, 9) as usize,
        max_gaps: rng.range(2, 64) as usize,
        max_control: rng.range(16, 200) as usize,
        max_message: 500_000,
        max_held: rng.range(1_000_000, 8_000_000),
        max_peer_held: rng.range(500_000, 8_000_000),
        max_kept: rng.range(500_000, 4_000_000),
        max_peer_kept: rng.range(200_000, 4_000_000),
        max_server_rpcs: rng.range(4, 400) as usize,
        max_peer_rpcs: rng.range(4, 200) as usize,
        cutoff_messages: rng.range(5, 100),
        cutoff_interval: Duration::from_millis(rng.range(1, 20)),
    )
}

fn length(rng: &mut Rng) -> usize {
    match rng.range(0, 10) {
        0..=5 => rng.range(8, 1000) as usize,
        6..=8 => rng.range(8, 60_000) as usize,
        _ => rng.range(8, 400_000) as usize,
    }
}

/// One seed. With `restarts`, processes die while requests are under way.
fn play(seed: u64, dialect: Dialect, restarts: bool) {
    let mut rng = Rng(seed.wrapping_mul(77) + 1);
    let hosts = rng.range(2, 5) as usize;
    let config = settings(&mut rng);
    let mut world = World::new(seed, hosts, dialect, config);
    let (lost, repeated) = (rng.range(0, 12), rng.range(0, 15));
    world.faults = Faults { lost, repeated, late: rng.range(0, 4), jitter: rng.range(0, 400) };
    for _ in 0..rng.range(5, 40) {
        let client = rng.range(0, hosts as u64) as usize;
        let server = (client + rng.range(1, hosts as u64) as usize) % hosts;
        let (request, response) = (length(&mut rng), length(&mut rng));
        let call = world.call(client, server, request, response);
        let end = world.now + Duration::from_micros(rng.range(0, 20_000));
        world.run(end);
        if rng.chance(8) {
            world.cancel(call);
        }
        if restarts && rng.chance(8) {
            world.restart(rng.range(0, hosts as u64) as usize);
        }
        if rng.chance(3) {
            // Nothing gets through for a while.
            let faults = world.faults;
            world.faults.lost = 100;
            let end = world.now + Duration::from_millis(rng.range(1, 300));
            world.run(end);
            world.faults = faults;
        }
    }
    world.faults = Faults::default();
    // Late duplicates come until 2 s later; a response to a client that is gone is given up after 300 ms, or after 10 s
    // where it waits for grants in the module's dialect.
    let end = world.now + Duration::from_secs(13);
    world.run(end);
    world.judge();
    // In a healed network every request is answered, unless somebody gave up.
    let healed = world.calls.len();
    for _ in 0..10 {
        let client = rng.range(0, hosts as u64) as usize;
        let call = (client + 1) % hosts;
        let (request, response) = (length(&mut rng), length(&mut rng));
        world.call(client, call, request, response);
        let end = world.now + Duration::from_millis(400);
        world.run(end);
    }
    let end = world.now + Duration::from_secs(2);
    world.run(end);
    world.judge();
    let delivered =
        world.calls[healed..].iter().filter(|call| call.outcome == Some(Outcome::Delivered)).count();
    assert!(delivered >= 5, "seed {seed}: only {delivered} of 10 in a healed network");
}

#[test]
fn a_response_that_shorter_ones_overtake_for_long_arrives() {
    for dialect in [Dialect::Linux, Dialect::Steadfast] {
        let config = config!(
            overcommit: 1,
            max_incoming: 60_000,
            unscheduled: 10_000,
            grant_fifo_share: 0,
            pacer_fifo_share: 0,
            timeout: Duration::from_millis(20),
            retain: Duration::from_millis(40),
            patience: Duration::from_secs(5),
        );
        let mut world = World::at(1_000_000_000, 3, 7, dialect, config);
        let long = world.call(0, 1, 100, 900_000);
        let end = world.now + Duration::from_millis(1);
        world.run(end);
        // One is granted at a time: 200,000 bytes take longer than a millisecond.
        for number in 0..200 {
            world.call(0, 2 + number % 5, 100, 200_000);
            let end = world.now + Duration::from_millis(1);
            world.run(end);
        }
        assert_eq!(world.calls[long].outcome, None, "{dialect:?}: it waits for its turn");
        let end = world.now + Duration::from_secs(2);
        world.run(end);
        world.judge();
        assert_eq!(world.calls[long].outcome, Some(Outcome::Delivered), "{dialect:?}");
    }
}

fn swarm(dialect: Dialect, restarts: bool, salt: u64) {
    for seed in 0..seeds() {
        let seed = seed * 8 + salt;
        let result = std::panic::catch_unwind(|| play(seed, dialect, restarts));
        assert!(result.is_ok(), "the reason stands above; again with play({seed}, {dialect:?}, {restarts})");
    }
}

#[test]
fn swarm_linux() {
    swarm(Dialect::Linux, false, 0);
}

#[test]
fn swarm_steadfast() {
    swarm(Dialect::Steadfast, false, 1);
}

#[test]
fn swarm_linux_with_restarts() {
    swarm(Dialect::Linux, true, 2);
}

#[test]
fn swarm_steadfast_with_restarts() {
    swarm(Dialect::Steadfast, true, 3);
}
