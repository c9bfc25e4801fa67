//! How long a request and its answer take while bulk fills the link, and what share of the link bulk then has.
//!
//! Each run has hosts, a network and processes of its own. Requests go out alone at first; then bulk begins, and after a
//! while to settle everything counts: requests by the time from message to answer, bulk by what arrives at the
//! application. The share is that of plain TCP, which sends bulk alone over the same link in the same round.

use std::time::Duration;

use anyhow::Context;

use crate::Effort;
use crate::load::{Bulk, Pace, Pair, Setup, goodput, rest};
use crate::only::Only;
use crate::outcome::Outcome;
use crate::rounds::{self, Bench, Figure};
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
const SYSTEMS: [System; 5] =
    [System::Steadfast, System::Noq, System::Aggligator, System::Tcp, System::TcpOne];
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

struct Foreground {
    times: Times,
    /// What plain TCP alone carried in this round, in megabits a second.
    alone: f64,
}

pub(crate) fn run(effort: Effort, only: &Only) -> anyhow::Result<Outcome> {
    allow()?;
    let times = effort.of(
        Times { unloaded: 3.0, settle: 2.0, loaded: 8.0, alone: 4.0 },
        Times { unloaded: 5.0, settle: 3.0, loaded: 20.0, alone: 10.0 },
    );
    let mut outcome = Outcome::new("foreground");
    conditions(&mut outcome, times);
    let mut bench = Foreground { times, alone: 0.0 };
    rounds::run(&mut bench, &SCENARIOS, &SYSTEMS, (effort.of(1, 3), only), &mut outcome)?;
    for (scenario, _) in SCENARIOS {
        for (peer, name) in [("tcp", "p99"), ("noq", "p99_noq"), ("aggligator", "p99_aggligator")] {
            let name = format!("{scenario}_{name}");
            outcome.ratio(&name, scenario, "loaded_p99_ms", ["steadfast", peer]);
        }
    }
    Ok(outcome)
}

fn conditions(outcome: &mut Outcome, times: Times) {
    let Times { unloaded, settle, loaded, alone } = times;
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
    outcome.condition("settings", System::SETTINGS);
    outcome
        .condition("false_alarms", "times that steadfast suspected a path, at either end; nothing was cut");
    outcome.condition("runtime", "tokio, current thread");
    outcome.condition("processes", "client and server, one thread each, on hosts of their own");
    outcome.condition("encryption", System::ENCRYPTION);
    outcome.condition("congestion_control", CONGESTION);
    outcome.condition("cpu_seconds", "of both processes, median of the rounds");
}

impl Bench for Foreground {
    type Scenario = Scenario;

    fn baseline(
        &mut self,
        scenario: Scenario,
        round: u32,
    ) -> anyhow::Result<Option<(&'static str, Vec<Figure>)>> {
        let Times { settle, alone, .. } = self.times;
        self.alone = goodput(System::Tcp, &[scenario.plan], [settle, alone], round)?;
        Ok(Some(("tcp_alone", vec![Figure::median("background_mbps", self.alone)])))
    }

    fn measure(&mut self, system: System, scenario: Scenario, round: u32) -> anyhow::Result<Vec<Figure>> {
        let stage = Stage::new(&[scenario.plan], u64::from(round))?;
        let setup = Setup { system, message: MESSAGE, bulk: Bulk::Endless };
        let mut pair = Pair::start(&stage, setup)?;
        let began = now();
        pair.exchange(Pace::Every(PERIOD))?;
        rest(self.times.unloaded);
        let bulk = now();
        pair.bulk_up()?;
        if scenario.down {
            pair.bulk_down()?;
        }
        rest(self.times.settle);
        let from = now();
        rest(self.times.loaded);
        let until = now();
        let [ours, theirs] = pair.finish()?;
        stage.complain();
        let mut mbit = theirs.mbit(from, until);
        if scenario.down {
            mbit = f64::midpoint(mbit, ours.mbit(from, until));
        }
        let spread = |from, until| ours.millis(from, until, UNANSWERED).context("no request was sent");
        let (unloaded, begin, loaded) = (spread(began, bulk)?, spread(bulk, from)?, spread(from, until)?);
        let suspicions = ours.suspicions.len() + theirs.suspicions.len();
        Ok(vec![
            Figure::median("unloaded_p50_ms", unloaded.median()),
            Figure::median("unloaded_p99_ms", unloaded.percentile(99)),
            Figure::median("loaded_p50_ms", loaded.median()),
            Figure::median("loaded_p99_ms", loaded.percentile(99)),
            Figure::least("loaded_p99_ms_min", loaded.percentile(99)),
            Figure::most("loaded_p99_ms_max", loaded.percentile(99)),
            Figure::median("loaded_mean_ms", loaded.mean()),
            Figure::median("begin_max_ms", begin.max()),
            Figure::median("background_mbps", mbit),
            Figure::median("background_share", mbit / self.alone),
            Figure::sum("lost", ours.lost() as f64),
            Figure::sum("false_alarms", suspicions as f64),
            Figure::median("cpu_seconds", ours.cpu_seconds + theirs.cpu_seconds),
        ])
    }
}
