//! How long a request and its answer take while bulk fills the link, and what share of the link bulk then has.
//!
//! Each run has hosts, a network and processes of its own. Requests go out alone at first; then bulk begins, and after a
//! while to settle everything counts: requests by the time from message to answer, bulk by what arrives at the
//! application. The share is that of plain TCP, which sends bulk alone over the same link in the same round.

use std::time::Duration;

use anyhow::Context;

use crate::Effort;
use crate::load::{Bulk, Found, Pace, Pair, Setup};
use crate::only::{Only, able};
use crate::outcome::Outcome;
use crate::spread::Spread;
use crate::stage::{Plan, Stage, allow};
use crate::systems::{CONGESTION, System};
use crate::usage::now;

/// A link, and which way bulk goes.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    plan: Plan,
    down: bool,
}

const LINK: Plan = Plan::new("link").one_way(20);
const SCENARIOS: [(&str, Scenario); 4] = [
    ("one", Scenario { plan: LINK.rate(20.0, 1000), down: false }),
    ("both", Scenario { plan: LINK.rate(20.0, 1000), down: true }),
    ("slow", Scenario { plan: LINK.rate(1.0, 1000), down: false }),
    ("lossy", Scenario { plan: LINK.rate(20.0, 1000).lossy(2.0, 10), down: false }),
];
const SYSTEMS: [System; 3] = [System::Steadfast, System::Tcp, System::TcpOne];
const MESSAGE: usize = 128;
const PERIOD: Duration = Duration::from_millis(100);
/// What a request counts as that was not answered at all.
const UNANSWERED: Duration = Duration::from_secs(10);

/// How long each part of a run takes, in seconds.
#[derive(Debug, Clone, Copy)]
struct Times {
    unloaded: f64,
    settle: f64,
    loaded: f64,
    alone: f64,
}

/// What a run found.
#[derive(Debug)]
struct Run {
    unloaded: Spread,
    /// From when bulk begins until it counts.
    begin: Spread,
    loaded: Spread,
    mbit: f64,
    share: f64,
    lost: f64,
    false_alarms: f64,
    cpu_seconds: f64,
}

pub(crate) fn run(effort: Effort, only: Only) -> anyhow::Result<Outcome> {
    allow()?;
    let times = effort.of(
        Times { unloaded: 3.0, settle: 2.0, loaded: 8.0, alone: 4.0 },
        Times { unloaded: 5.0, settle: 3.0, loaded: 20.0, alone: 10.0 },
    );
    let rounds = effort.of(1, 3);
    let mut outcome = Outcome::new("foreground");
    conditions(&mut outcome, rounds, times);
    let (scenarios, systems) = only.select(&SCENARIOS, &SYSTEMS)?;
    let names: Vec<_> = scenarios.iter().map(|(name, _)| *name).collect();
    let systems = able(systems, &names, &mut outcome);
    for (name, scenario) in scenarios {
        let mut found: Vec<(System, Run)> = Vec::new();
        let mut alone = Vec::new();
        for round in 1..=rounds {
            let mbit = bulk_alone(scenario.plan, times, round)?;
            eprintln!("round {round} of {rounds}: {name:6} plain TCP alone {mbit:6.3} Mbit/s");
            alone.push(mbit);
            for system in &systems {
                let run = measure(*system, scenario, times, mbit, round)
                    .with_context(|| format!("{} in round {round} of {name}", system.name()))?;
                eprintln!(
                    "round {round} of {rounds}: {name:6} {:10} p50 {:6.1} p99 {:6.1} mean {:6.1} max {:6.1} ms (unloaded \
                     {:.1}, {:.1}; at the beginning at most {:.1}), share {:.3}",
                    system.name(),
                    run.loaded.median(),
                    run.loaded.percentile(99),
                    run.loaded.mean(),
                    run.loaded.max(),
                    run.unloaded.median(),
                    run.unloaded.percentile(99),
                    run.begin.max(),
                    run.share,
                );
                found.push((*system, run));
            }
        }
        let alone = Spread::of(alone).context("no round")?;
        outcome.figure(name, "tcp_alone", "background_mbps", alone.median());
        for system in &systems {
            report(&mut outcome, name, *system, &found)?;
        }
        for (peer, ratio) in [("tcp", "p99"), ("tcp_one", "p99_one_connection")] {
            outcome.ratio(&format!("{name}_{ratio}"), name, "loaded_p99_ms", ["steadfast", peer]);
        }
    }
    Ok(outcome)
}

fn report(
    outcome: &mut Outcome,
    scenario: &str,
    system: System,
    found: &[(System, Run)],
) -> anyhow::Result<()> {
    let mut figure = |key: &str, of: &dyn Fn(&Run) -> f64| {
        let runs = found.iter().filter(|(one, _)| *one == system);
        let spread = Spread::of(runs.map(|(_, run)| of(run))).context("no round")?;
        outcome.figure(scenario, system.name(), key, spread.median());
        anyhow::Ok(spread)
    };
    figure("unloaded_p50_ms", &|run| run.unloaded.median())?;
    figure("unloaded_p99_ms", &|run| run.unloaded.percentile(99))?;
    figure("loaded_p50_ms", &|run| run.loaded.median())?;
    let p99 = figure("loaded_p99_ms", &|run| run.loaded.percentile(99))?;
    figure("loaded_mean_ms", &|run| run.loaded.mean())?;
    figure("begin_max_ms", &|run| run.begin.max())?;
    figure("background_mbps", &|run| run.mbit)?;
    figure("background_share", &|run| run.share)?;
    figure("lost", &|run| run.lost)?;
    figure("false_alarms", &|run| run.false_alarms)?;
    figure("cpu_seconds", &|run| run.cpu_seconds)?;
    outcome.figure(scenario, system.name(), "loaded_p99_ms_min", p99.min());
    outcome.figure(scenario, system.name(), "loaded_p99_ms_max", p99.max());
    Ok(())
}

fn conditions(outcome: &mut Outcome, rounds: u32, times: Times) {
    let Times { unloaded, settle, loaded, alone } = times;
    outcome.condition("rounds", rounds);
    outcome.condition("seeds", "of loss and jitter: the number of the round");
    for (name, Scenario { plan, down }) in SCENARIOS {
        let bulk = if down { "background both ways" } else { "background from the client" };
        outcome.condition(name, format!("{}; {bulk}", plan.describe()));
    }
    outcome.condition("message_bytes", MESSAGE);
    outcome.condition("period_ms", PERIOD.as_millis() as u64);
    outcome.condition(
        "seconds",
        format!("{unloaded} unloaded, {settle} from the beginning of background, {loaded} loaded"),
    );
    outcome.condition(
        "latency",
        "from a request to its answer, both processes included; requests go out whether or not earlier ones were answered; \
         one without an answer counts as 10 s",
    );
    outcome.condition(
        "unloaded",
        "before background begins: what the link, the emulator and both processes take",
    );
    outcome.condition("begin_max_ms", "the worst in the seconds from the beginning of background");
    outcome.condition(
        "background_share",
        format!(
            "what arrives at the application, of what plain TCP alone carries one way over the same link in {alone} s after \
             {settle} s; of both ways the mean"
        ),
    );
    outcome.condition(
        "connections",
        "steadfast: one conversation; tcp: requests and background on a connection each; tcp_one: both on one, requests \
         ahead of background that the application has not written",
    );
    outcome
        .condition("false_alarms", "times that steadfast suspected a path, at either end; nothing was cut");
    outcome.condition("runtime", "tokio, current thread");
    outcome.condition("processes", "client and server, one thread each, on hosts of their own");
    outcome.condition("encryption", "steadfast: TLS 1.3 on every path; tcp: none");
    outcome.condition("congestion_control", CONGESTION);
    outcome.condition("cpu_seconds", "of both processes, median of the rounds");
}

/// What plain TCP carries from the client with nothing beside it, in megabits a second.
fn bulk_alone(plan: Plan, times: Times, round: u32) -> anyhow::Result<f64> {
    let stage = Stage::new(&[plan], u64::from(round))?;
    let mut pair = Pair::start(&stage, setup(System::Tcp))?;
    pair.bulk_up()?;
    rest(times.settle);
    let from = now();
    rest(times.alone);
    let until = now();
    let [_, theirs] = pair.finish()?;
    Ok(theirs.mbit(from, until))
}

fn measure(system: System, scenario: Scenario, times: Times, alone: f64, round: u32) -> anyhow::Result<Run> {
    let stage = Stage::new(&[scenario.plan], u64::from(round))?;
    let mut pair = Pair::start(&stage, setup(system))?;
    let began = now();
    pair.exchange(Pace::Every(PERIOD))?;
    rest(times.unloaded);
    let bulk = now();
    pair.bulk_up()?;
    if scenario.down {
        pair.bulk_down()?;
    }
    rest(times.settle);
    let from = now();
    rest(times.loaded);
    let until = now();
    let [ours, theirs] = pair.finish()?;
    if stage.overrun() > 0 {
        eprintln!("the emulator lost {} frames because this machine was too slow", stage.overrun());
    }
    let spread = |from, until| ours.millis(from, until, UNANSWERED).context("no request was sent");
    let mut mbit = theirs.mbit(from, until);
    if scenario.down {
        mbit = f64::midpoint(mbit, ours.mbit(from, until));
    }
    Ok(Run {
        unloaded: spread(began, bulk)?,
        begin: spread(bulk, from)?,
        loaded: spread(from, until)?,
        mbit,
        share: mbit / alone,
        lost: ours.lost() as f64,
        false_alarms: [&ours, &theirs].map(|found: &Found| found.suspicions.len() as f64).iter().sum(),
        cpu_seconds: ours.cpu_seconds + theirs.cpu_seconds,
    })
}

fn setup(system: System) -> Setup {
    Setup { system, message: MESSAGE, bulk: Bulk::Endless }
}

fn rest(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}
