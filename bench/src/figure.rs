//! A figure for the README: how long requests take over time, while bulk fills two networks and then one of them dies.

mod svg;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::figure::svg::{Figure as Drawing, Mark, Series};
use crate::load::{Bulk, Found, Pace, Pair, Setup, rest};
use crate::only::Only;
use crate::outcome::Outcome;
use crate::rounds::{self, Bench, Figure};
use crate::stage::{Fault, Plan, Stage, allow};
use crate::systems::{CONGESTION, System};
use crate::usage::{Nanos, now};

/// Where it goes unless something else is said.
pub(crate) const FILE: &str = "docs/latency.svg";

/// The better network comes first, and is cut: whoever uses but one has that.
const PLANS: [Plan; 2] =
    [Plan::new("first").one_way(20).rate(20.0, 1000), Plan::new("second").one_way(30).rate(10.0, 1000)];
const SCENARIO: &str = "cut";
const SYSTEMS: [System; 5] = [System::Steadfast, System::Noq, System::Mptcp, System::Aggligator, System::Tcp];
const MESSAGE: usize = 128;
const PERIOD: Duration = Duration::from_millis(100);
/// When bulk begins, when the network is cut and when the run ends, in seconds.
const BULK: f64 = 5.0;
const CUT: f64 = 20.0;
const END: f64 = 30.0;
/// What a request counts as that was not answered at all.
const UNANSWERED: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Timeline {
    series: Vec<Series>,
}

pub(crate) fn run(only: &Only, file: &Path) -> anyhow::Result<Outcome> {
    allow()?;
    let mut outcome = Outcome::new("figure");
    let networks = PLANS.map(|plan| plan.describe()).join("; ");
    outcome.condition("networks", networks);
    outcome
        .condition("seconds", format!("background from {BULK} on, the first network cut silently at {CUT}"));
    outcome.condition("message_bytes", MESSAGE);
    outcome.condition("period_ms", PERIOD.as_millis() as u64);
    outcome.condition("latency", "from a request to its answer; one without an answer counts as 10 s");
    outcome.condition("runtime", "tokio, current thread");
    outcome.condition("processes", "client and server, one thread each, on hosts of their own");
    outcome.condition("encryption", System::ENCRYPTION);
    outcome.condition("congestion_control", CONGESTION);
    outcome.condition("settings", System::SETTINGS);
    let mut timeline = Timeline::default();
    rounds::run(&mut timeline, &[(SCENARIO, ())], &SYSTEMS, (1, only), &mut outcome)?;
    let drawing = Drawing {
        title: "Request latency while the network is full, and when it dies",
        seconds: END,
        marks: &[Mark { at: BULK, text: "background begins" }, Mark { at: CUT, text: "network cut" }],
        series: &timeline.series,
        caption: &caption(),
    };
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(file, drawing.draw()).with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("written: {}", file.display());
    outcome.ratio("loaded_p99", SCENARIO, "loaded_p99_ms", ["steadfast", "tcp"]);
    outcome.ratio("cut_max", SCENARIO, "cut_max_ms", ["steadfast", "mptcp"]);
    Ok(outcome)
}

/// The conditions, in a few lines.
fn caption() -> Vec<String> {
    let [first, second] = PLANS.map(|plan| {
        let [rate, _] = plan.rate_mbit;
        format!("{} Mbit/s each way with {} ms", rate.unwrap_or_default(), plan.one_way.as_millis() * 2)
    });
    let seconds = PLANS[0].queue.as_secs();
    vec![
        format!("Two networks: {first}, and {second}; up to {seconds} s of queue in each (emulated)."),
        format!(
            "A request and its answer of {MESSAGE} bytes every {} ms, beside an upload without an end. One run each. At the \
             top: no answer.",
            PERIOD.as_millis()
        ),
        "At 20 s the first network falls silent. Congestion control: cubic. Each one's settings: cargo xtask bench figure."
            .into(),
    ]
}

impl Bench for Timeline {
    type Scenario = ();

    fn measure(&mut self, system: System, (): (), round: u32) -> anyhow::Result<Vec<Figure>> {
        let stage = Stage::new(&PLANS, u64::from(round))?;
        let setup = Setup { system, message: MESSAGE, bulk: Bulk::Endless };
        let mut pair = Pair::start(&stage, setup)?;
        let began = now();
        pair.exchange(Pace::Every(PERIOD))?;
        rest(BULK);
        pair.bulk_up()?;
        rest(CUT - BULK);
        stage.cut(0, Fault::Silent)?;
        rest(END - CUT);
        let [ours, theirs] = pair.finish()?;
        stage.complain();
        self.series.push(Series { system, points: points(&ours, began) });
        let at = |seconds: f64| began + (seconds * 1e9) as Nanos;
        let spread =
            |from, until| ours.millis(at(from), at(until), UNANSWERED).context("no request was sent");
        // What is sent later may still wait in the queue when the network is cut.
        let queue = PLANS[0].queue.as_secs_f64();
        let loaded = spread(BULK, CUT - 2.0 * queue)?;
        let cut = spread(CUT - 2.0 * queue, END)?;
        Ok(vec![
            Figure::median("unloaded_p50_ms", spread(0.0, BULK)?.median()),
            Figure::median("loaded_p50_ms", loaded.median()),
            Figure::median("loaded_p99_ms", loaded.percentile(99)),
            Figure::median("cut_p50_ms", cut.median()),
            Figure::median("cut_max_ms", cut.max()),
            Figure::median("background_mbps", theirs.mbit(at(BULK), at(CUT))),
            Figure::median("background_after_cut_mbps", theirs.mbit(at(CUT), at(END))),
            Figure::sum("lost", ours.lost() as f64),
        ])
    }
}

/// Seconds from the beginning and milliseconds of each request; those without an answer have none.
fn points(found: &Found, began: Nanos) -> Vec<(f64, Option<f64>)> {
    let exchanges = found.exchanges.iter();
    exchanges
        .map(|exchange| (exchange.sent.saturating_sub(began) as f64 / 1e9, exchange.millis()))
        .filter(|(at, _)| *at <= END)
        .collect()
}
