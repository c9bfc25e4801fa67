//! How long a conversation is silent when its network dies: silently, or with the sender's own link.
//!
//! Each run has hosts, networks and processes of its own. The client sends a small message every 10 ms, whether or not
//! earlier ones were answered, and the server answers each. The network that carries most of that is cut; once answers
//! are back for a while, or after [`HEAL`], it is healed, and messages go on for a while. The figure of the run is the
//! longest time between two answers. In a further run nothing is cut: what is suspected and sent again there is for nothing.

use std::thread;
use std::time::Duration;

use anyhow::Context;

use crate::Effort;
use crate::load::{Bulk, Found, Pace, Pair, Setup, rest};
use crate::only::Only;
use crate::outcome::Outcome;
use crate::rounds::{self, Bench, Figure};
use crate::stage::{Fault, Plan, Stage, allow};
use crate::systems::{CONGESTION, System};
use crate::usage::{Nanos, now};

const NEAR: Plan = Plan::new("near");
const FAR: Plan = Plan::new("far");
const SCENARIOS: [(&str, [Plan; 2]); 3] = [
    ("clean", [NEAR.one_way(10), FAR.one_way(30)]),
    ("near", [NEAR, FAR]),
    ("lossy", [NEAR.one_way(10).lossy(2.0, 10), FAR.one_way(30).lossy(2.0, 10)]),
];
const SYSTEMS: [System; 5] = [System::Steadfast, System::Mptcp, System::Noq, System::Aggligator, System::Tcp];
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
/// For so long after a network was healed, it may still be suspected with good reason.
const REASON: Duration = Duration::from_secs(1);

struct Failover {
    /// How long a run takes in which nothing is cut, in seconds.
    uncut: f64,
}

pub(crate) fn run(effort: Effort, only: &Only) -> anyhow::Result<Outcome> {
    allow()?;
    let mut outcome = Outcome::new("failover");
    let mut bench = Failover { uncut: effort.of(3.0, 10.0) };
    conditions(&mut outcome, bench.uncut);
    rounds::run(&mut bench, &SCENARIOS, &SYSTEMS, (effort.of(2, 10), only), &mut outcome)?;
    for (scenario, _) in SCENARIOS {
        for fault in FAULTS.map(Fault::name) {
            // The first scenario is older than the others, and so are its ratios.
            let name = if scenario == "clean" { fault.into() } else { format!("{scenario}_{fault}") };
            outcome.ratio(&name, scenario, &format!("{fault}_ms_p50"), ["steadfast", "mptcp"]);
        }
    }
    Ok(outcome)
}

fn conditions(outcome: &mut Outcome, uncut: f64) {
    outcome.condition("seeds", "of loss and jitter: the number of the round");
    for (name, plans) in SCENARIOS {
        outcome.condition(name, plans.map(|plan| format!("{}: {}", plan.name, plan.describe())).join("; "));
    }
    outcome.condition("networks", "emulated in user space, two hosts; no limit of rate");
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
    outcome.condition("uncut", format!("a run of {uncut} s in which nothing is cut"));
    outcome.condition(
        "false_alarms",
        "times that steadfast suspected a path over a network that was not cut, at either end, in all runs of all rounds",
    );
    outcome.condition(
        "extra_bytes",
        "payload that steadfast sent again, of what it sent first, in the uncut run",
    );
    outcome.condition("wire_bytes_per_message", "all frames on both networks, both ways, in the uncut run");
    outcome.condition("runtime", "tokio, current thread");
    outcome.condition("processes", "client and server, one thread each");
    outcome.condition("outstanding", "as many messages as are due every 10 ms");
    outcome.condition("encryption", System::ENCRYPTION);
    outcome.condition("congestion_control", CONGESTION);
    outcome.condition("settings", System::SETTINGS);
    outcome.condition("cpu_seconds", "the client's, all runs of all rounds together");
}

fn millis(time: Nanos) -> f64 {
    time as f64 / 1e6
}

/// What a run found at both ends, and what was a false alarm.
struct Run {
    ours: Found,
    theirs: Found,
    false_alarms: usize,
}

impl Run {
    fn new([ours, theirs]: [Found; 2], alarming: impl Fn(&(Nanos, String)) -> bool) -> Self {
        let suspicions = ours.suspicions.iter().chain(&theirs.suspicions);
        let false_alarms = suspicions.filter(|suspicion| !alarming(suspicion)).count();
        Self { ours, theirs, false_alarms }
    }
}

impl Bench for Failover {
    type Scenario = [Plan; 2];

    fn measure(&mut self, system: System, plans: [Plan; 2], round: u32) -> anyhow::Result<Vec<Figure>> {
        let mut figures = Vec::new();
        for fault in FAULTS {
            let run = cut(system, plans, fault, round).with_context(|| fault.name())?;
            let (gap, name) = (millis(run.ours.longest_gap()), fault.name());
            figures.push(Figure::median(format!("{name}_ms_p50"), gap));
            figures.push(Figure::least(format!("{name}_ms_min"), gap));
            figures.push(Figure::most(format!("{name}_ms_max"), gap));
            figures.push(Figure::median(format!("{name}_wait_ms_p50"), millis(run.ours.longest_wait())));
            figures.extend(sums(&run));
        }
        let (run, wire_bytes) = self.uncut(system, plans, round).context("uncut")?;
        figures.push(Figure::median("uncut_ms_p50", millis(run.ours.longest_gap())));
        figures.push(Figure::most("uncut_ms_max", millis(run.ours.longest_gap())));
        let messages = run.ours.exchanges.len().max(1) as f64;
        figures.push(Figure::median("wire_bytes_per_message", wire_bytes as f64 / messages));
        if system == System::Steadfast {
            let [first, again] = [0, 1].map(|which| run.ours.payload[which] + run.theirs.payload[which]);
            figures.push(Figure::median("extra_bytes", again as f64 / first.max(1) as f64));
        }
        figures.extend(sums(&run));
        Ok(figures)
    }
}

impl Failover {
    /// A run in which nothing happens, and the bytes that it took.
    fn uncut(&self, system: System, plans: [Plan; 2], round: u32) -> anyhow::Result<(Run, u64)> {
        let (stage, mut pair) = stage(system, plans, round)?;
        let before = stage.bytes();
        pair.exchange(Pace::Every(PERIOD))?;
        rest(self.uncut);
        let bytes = stage.bytes() - before;
        Ok((Run::new(pair.finish()?, |_| false), bytes))
    }
}

/// What all runs of all rounds add up to.
fn sums(run: &Run) -> Vec<Figure> {
    let mut sums = vec![
        Figure::sum("sent", run.ours.exchanges.len() as f64),
        Figure::sum("lost", run.ours.lost() as f64),
        Figure::sum("duplicated", run.ours.duplicated() as f64),
        Figure::sum("cpu_seconds", run.ours.cpu_seconds),
    ];
    sums.push(Figure::sum("false_alarms", run.false_alarms as f64));
    sums
}

fn stage(system: System, plans: [Plan; 2], round: u32) -> anyhow::Result<(Stage, Pair)> {
    let stage = Stage::new(&plans, u64::from(round))?;
    let pair = Pair::start(&stage, Setup { system, message: MESSAGE, bulk: Bulk::None })?;
    Ok((stage, pair))
}

/// A run in which the network that carries most is cut and healed.
fn cut(system: System, plans: [Plan; 2], fault: Fault, round: u32) -> anyhow::Result<Run> {
    let (stage, mut pair) = stage(system, plans, round)?;
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
    let reason = cut_at..healed_at + REASON.as_nanos() as Nanos;
    Ok(Run::new(pair.finish()?, |(time, network)| *network == plans[busy].name && reason.contains(time)))
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
