//! Requests now and then beside a few large messages at a time, over a slow uplink and over a slow and a faster one.
//!
//! The workload that the original multi-socket was measured with: requests with a pause of a second after each answer for
//! 20 s, messages of 256 KiB, four unfinished at a time, begun for 25 s and then waited for.

use std::time::Duration;

use anyhow::Context;

use crate::Effort;
use crate::load::{Bulk, Pace, Pair, Setup};
use crate::only::Only;
use crate::outcome::Outcome;
use crate::rounds::{self, Bench, Figure};
use crate::stage::{Plan, Stage, allow};
use crate::systems::{CONGESTION, System};
use crate::usage::{Nanos, now};

/// What may wait for the uplink, in milliseconds.
const QUEUE: u64 = 400;
const NARROW: Plan = Plan::new("narrow").rate(1.0, QUEUE).one_sided();
const WIDE: Plan = Plan::new("wide").rate(8.0, QUEUE).one_sided();
/// The better network comes first: whoever uses but one is to have that.
const SCENARIOS: [(&str, &[Plan]); 2] = [("one_link", &[NARROW]), ("two_links", &[WIDE, NARROW])];
const SYSTEMS: [System; 6] =
    [System::Steadfast, System::Mptcp, System::Noq, System::Aggligator, System::Tcp, System::TcpOne];
const MESSAGE: usize = 128;
const BULK: usize = 256 * 1024;
const OUTSTANDING: usize = 4;
const PAUSE: Duration = Duration::from_secs(1);
const REQUESTS: Duration = Duration::from_secs(20);
const MESSAGES: Duration = Duration::from_secs(25);
/// How long all may take.
const LIMIT: Duration = Duration::from_secs(90);
/// What a request counts as that was not answered at all.
const UNANSWERED: Duration = LIMIT;

struct Mixed;

pub(crate) fn run(effort: Effort, only: &Only) -> anyhow::Result<Outcome> {
    allow()?;
    let mut outcome = Outcome::new("mixed");
    for (name, plans) in SCENARIOS {
        outcome.condition(name, plans.iter().map(Plan::describe).collect::<Vec<_>>().join("; "));
    }
    outcome
        .condition("foreground", "128 B and as much in answer, a pause of 1 s after each answer, for 20 s");
    outcome.condition(
        "background",
        "messages of 256 KiB, 4 unfinished at most, begun for 25 s and then waited for",
    );
    outcome.condition(
        "background_done",
        "messages that the other application took: steadfast says so by itself, to others that application answers with          a byte",
    );
    outcome.condition("background_seconds", "until the last of them");
    outcome.condition("runtime", "tokio, current thread");
    outcome.condition("processes", "client and server, one thread each, on hosts of their own");
    outcome.condition("encryption", System::ENCRYPTION);
    outcome.condition("congestion_control", CONGESTION);
    outcome.condition("settings", System::SETTINGS);
    rounds::run(&mut Mixed, &SCENARIOS, &SYSTEMS, (effort.of(1, 3), only), &mut outcome)?;
    for (scenario, _) in SCENARIOS {
        for key in ["foreground_mean_ms", "background_done"] {
            outcome.ratio(&format!("{scenario}_{key}"), scenario, key, ["steadfast", "tcp"]);
        }
    }
    Ok(outcome)
}

impl Bench for Mixed {
    type Scenario = &'static [Plan];

    fn measure(&mut self, system: System, plans: &'static [Plan], round: u32) -> anyhow::Result<Vec<Figure>> {
        let stage = Stage::new(plans, u64::from(round))?;
        let setup = Setup { system, message: MESSAGE, bulk: Bulk::Messages(BULK) };
        let mut pair = Pair::start(&stage, setup)?;
        pair.exchange(Pace::After { pause: PAUSE, lasts: REQUESTS })?;
        let began = now();
        if !pair.bulk_messages(OUTSTANDING, MESSAGES, LIMIT)? {
            eprintln!("{}: not all bulk was acknowledged within {LIMIT:?}", system.name());
        }
        let seconds = (now() - began) as f64 / 1e9;
        let [ours, theirs] = pair.finish()?;
        let waits = ours.millis(0, Nanos::MAX, UNANSWERED).context("no request was sent")?;
        Ok(vec![
            Figure::median("foreground_mean_ms", waits.mean()),
            Figure::median("foreground_max_ms", waits.max()),
            Figure::median("foreground_done", (ours.exchanges.len() - ours.lost()) as f64),
            Figure::median("background_done", ours.bulk_done as f64),
            Figure::median("background_seconds", seconds),
            Figure::median("cpu_seconds", ours.cpu_seconds + theirs.cpu_seconds),
        ])
    }
}
