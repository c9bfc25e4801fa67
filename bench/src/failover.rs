//! How long a conversation is silent when its network dies: silently, or with the sender's own link.
//!
//! Each round has hosts, networks and processes of its own. The client sends a small message every 10 ms, whether or not
//! earlier ones were answered, and the server answers each. The network that carries most of that is cut; once answers
//! are back for a while, or after [`HEAL`], it is healed, and messages go on for a while. The figure of the round is the
//! longest time between two answers.

use std::thread;
use std::time::Duration;

use anyhow::Context;

use crate::Effort;
use crate::load::{Bulk, Pace, Pair, Setup};
use crate::only::{Only, able};
use crate::outcome::Outcome;
use crate::spread::Spread;
use crate::stage::{Fault, Plan, Stage, allow};
use crate::systems::{CONGESTION, System};
use crate::usage::{Nanos, now};

const NETWORKS: [Plan; 2] = [Plan::new("near").one_way(10), Plan::new("far").one_way(30)];
const SCENARIO: &str = "clean";
const SYSTEMS: [System; 3] = [System::Steadfast, System::Mptcp, System::Tcp];
const FAULTS: [Fault; 2] = [Fault::Silent, Fault::Down];
/// The size of a message and of its answer.
const MESSAGE: usize = 100;
/// The time from one message to the next.
const PERIOD: Duration = Duration::from_millis(10);
/// From the first message to the cut.
const BEFORE: Duration = Duration::from_secs(1);
/// Answers come again for so long before the network is healed, and go on for so long afterwards.
const AFTER: Duration = Duration::from_millis(500);
/// The network is healed at the latest after this.
const HEAL: Duration = Duration::from_secs(3);
/// How long after that answers are waited for.
const CAP: Duration = Duration::from_secs(10);
/// What a round found.
#[derive(Debug, Clone, Copy)]
struct Round {
    longest_gap: Nanos,
    /// From a message to its answer.
    longest_wait: Nanos,
    sent: u64,
    lost: u64,
    duplicated: u64,
    cpu_seconds: f64,
}

pub(crate) fn run(effort: Effort, only: Only) -> anyhow::Result<Outcome> {
    let rounds = effort.of(2, 10);
    allow()?;
    let mut outcome = Outcome::new("failover");
    conditions(&mut outcome, rounds);
    let (_, systems) = only.select(&[(SCENARIO, ())], &SYSTEMS)?;
    let systems = able(systems, &[SCENARIO], &mut outcome);
    let mut found: Vec<(System, Fault, Round)> = Vec::new();
    for round in 1..=rounds {
        for fault in FAULTS {
            for system in &systems {
                let result = measure(*system, fault)
                    .with_context(|| format!("{} in round {round}, {}", system.name(), fault.name()))?;
                let gap = millis(result.longest_gap);
                let Round { lost, duplicated, .. } = result;
                eprintln!(
                    "round {round} of {rounds}: {:10} {:6} {gap:7.1} ms, {lost} lost, {duplicated} duplicated",
                    system.name(),
                    fault.name(),
                );
                found.push((*system, fault, result));
            }
        }
    }
    for system in systems {
        let name = system.name();
        for fault in FAULTS {
            let of = found.iter().filter(|(one, of, _)| *one == system && *of == fault);
            let gaps =
                Spread::of(of.clone().map(|(.., round)| millis(round.longest_gap))).context("no round")?;
            let fault = fault.name();
            outcome.figure(SCENARIO, name, &format!("{fault}_ms_p50"), gaps.median());
            outcome.figure(SCENARIO, name, &format!("{fault}_ms_min"), gaps.min());
            outcome.figure(SCENARIO, name, &format!("{fault}_ms_max"), gaps.max());
            let waits = Spread::of(of.map(|(.., round)| millis(round.longest_wait))).context("no round")?;
            outcome.figure(SCENARIO, name, &format!("{fault}_wait_ms_p50"), waits.median());
        }
        let sum = |figure: fn(&Round) -> f64| -> f64 {
            found.iter().filter(|(of, ..)| *of == system).map(|(.., round)| figure(round)).sum()
        };
        outcome.figure(SCENARIO, name, "sent", sum(|round| round.sent as f64));
        outcome.figure(SCENARIO, name, "lost", sum(|round| round.lost as f64));
        outcome.figure(SCENARIO, name, "duplicated", sum(|round| round.duplicated as f64));
        outcome.figure(SCENARIO, name, "cpu_seconds", sum(|round| round.cpu_seconds));
    }
    for (name, key) in [("silent", "silent_ms_p50"), ("down", "down_ms_p50")] {
        outcome.ratio(name, SCENARIO, key, ["steadfast", "mptcp"]);
    }
    Ok(outcome)
}

fn conditions(outcome: &mut Outcome, rounds: u32) {
    let trips: Vec<_> = NETWORKS.iter().map(|plan| plan.one_way.as_millis() as u64 * 2).collect();
    outcome.condition("rounds", rounds);
    outcome.condition("round_trips_ms", trips);
    outcome.condition("networks", "emulated in user space, two hosts; no loss, no limit of rate");
    outcome.condition("message_bytes", MESSAGE);
    outcome.condition("period_ms", PERIOD.as_millis() as u64);
    outcome.condition("figure", "longest time between two answers at the client, over the whole round");
    outcome.condition("wait", "longest time from a message to its answer");
    outcome.condition("faults", "silent: both directions vanish; down: the client's own link is set down");
    outcome.condition(
        "healed",
        "500 ms after answers came back, or 3 s after the cut: plain TCP, with one path, answers only then, when it \
         next sends again; answers are waited for 10 s more at most",
    );
    outcome.condition("runtime", "tokio, current thread");
    outcome.condition("processes", "client and server, one thread each");
    outcome.condition("outstanding", "as many messages as are due every 10 ms");
    outcome.condition("encryption", "steadfast: TLS 1.3 on every path; mptcp, tcp: none");
    outcome.condition("congestion_control", CONGESTION);
    outcome.condition("mptcp", "kernel path manager, default scheduler, one subflow over each network");
    outcome.condition("cpu_seconds", "the client's, all rounds together");
}

fn millis(time: Nanos) -> f64 {
    time as f64 / 1e6
}

fn measure(system: System, fault: Fault) -> anyhow::Result<Round> {
    let stage = Stage::new(&NETWORKS, 1)?;
    let mut pair = Pair::start(&stage, Setup { system, message: MESSAGE, bulk: Bulk::None })?;
    let idle = stage.counters();
    pair.exchange(Pace::Every(PERIOD))?;
    thread::sleep(BEFORE);
    let busy = stage.busiest(&idle);
    let cut_at = now();
    stage.cut(busy, fault)?;
    await_answer(&pair, cut_at, HEAL)?;
    stage.heal(busy, fault)?;
    let healed_at = now();
    if !await_answer(&pair, healed_at, CAP)? {
        eprintln!("{}: no answer within {CAP:?} after the network was healed", system.name());
    }
    let [ours, _] = pair.finish()?;
    Ok(Round {
        longest_gap: ours.longest_gap(),
        longest_wait: ours.longest_wait(),
        sent: ours.exchanges.len() as u64,
        lost: ours.lost() as u64,
        duplicated: ours.duplicated(),
        cpu_seconds: ours.cpu_seconds,
    })
}

/// Waits until messages sent after `since` are answered, and then for a while; `false` if that takes over `limit`.
fn await_answer(pair: &Pair, since: Nanos, limit: Duration) -> anyhow::Result<bool> {
    let deadline = since + limit.as_nanos() as Nanos;
    let mut back_at = None;
    loop {
        let time = now();
        match back_at {
            Some(back) if time >= back + AFTER.as_nanos() as Nanos => return Ok(true),
            None if time >= deadline => return Ok(false),
            _ => {}
        }
        if pair.answered()?.is_some_and(|sent| sent > since) {
            back_at.get_or_insert(time);
        }
    }
}
