//! What one endless stream carries over two networks at once, against the sum of what plain TCP carries over each alone.

use crate::Effort;
use crate::load::goodput;
use crate::only::Only;
use crate::outcome::Outcome;
use crate::rounds::{self, Bench, Figure};
use crate::stage::{Plan, allow};
use crate::systems::{CONGESTION, System};

const FIRST: Plan = Plan::new("first");
const SECOND: Plan = Plan::new("second");
/// The better network comes first: whoever uses but one is to have that.
const SCENARIOS: [(&str, [Plan; 2]); 2] = [
    ("even", [FIRST.one_way(10).rate(100.0, 100), SECOND.one_way(10).rate(100.0, 100)]),
    ("uneven", [FIRST.one_way(10).rate(80.0, 100), SECOND.one_way(30).rate(20.0, 100)]),
];
const SYSTEMS: [System; 5] = [System::Steadfast, System::Mptcp, System::Noq, System::Aggligator, System::Tcp];

struct Stripe {
    /// To settle, and that count, in seconds.
    times: [f64; 2],
    /// What plain TCP carried in this round over each network alone, added, in megabits a second.
    sum: f64,
}

pub(crate) fn run(effort: Effort, only: &Only) -> anyhow::Result<Outcome> {
    allow()?;
    let times = effort.of([2.0, 4.0], [3.0, 10.0]);
    let mut outcome = Outcome::new("stripe");
    outcome.condition("seconds", format!("{} counted, after {} to settle", times[1], times[0]));
    for (name, plans) in SCENARIOS {
        outcome.condition(name, plans.map(|plan| plan.describe()).join("; "));
    }
    outcome.condition("goodput", "what arrives at the application of one stream without an end");
    outcome.condition("sum_mbps", "plain TCP over each network alone, in the same round, added");
    outcome.condition("of_sum", "goodput_mbps of sum_mbps of its round");
    outcome.condition("runtime", "tokio, current thread");
    outcome.condition("processes", "client and server, one thread each, on hosts of their own");
    outcome.condition("encryption", System::ENCRYPTION);
    outcome.condition("congestion_control", CONGESTION);
    outcome.condition("settings", System::SETTINGS);
    let mut bench = Stripe { times, sum: 0.0 };
    rounds::run(&mut bench, &SCENARIOS, &SYSTEMS, (effort.of(1, 5), only), &mut outcome)?;
    for (scenario, _) in SCENARIOS {
        for system in SYSTEMS.map(System::name) {
            if let Some(share) = outcome.of(scenario, system, "of_sum") {
                let name =
                    if system == "steadfast" { scenario.into() } else { format!("{scenario}_{system}") };
                outcome.add_ratio(&name, share);
            }
        }
        outcome.ratio(&format!("{scenario}_against_mptcp"), scenario, "goodput_mbps", ["steadfast", "mptcp"]);
    }
    Ok(outcome)
}

impl Bench for Stripe {
    type Scenario = [Plan; 2];

    fn baseline(
        &mut self,
        plans: [Plan; 2],
        round: u32,
    ) -> anyhow::Result<Option<(&'static str, Vec<Figure>)>> {
        let mut figures = Vec::new();
        self.sum = 0.0;
        for plan in plans {
            let mbit = goodput(System::Tcp, &[plan], self.times, round)?;
            figures.push(Figure::median(format!("{}_mbps", plan.name), mbit));
            self.sum += mbit;
        }
        figures.push(Figure::median("sum_mbps", self.sum));
        Ok(Some(("tcp_alone", figures)))
    }

    fn measure(&mut self, system: System, plans: [Plan; 2], round: u32) -> anyhow::Result<Vec<Figure>> {
        let mbit = goodput(system, &plans, self.times, round)?;
        Ok(vec![
            Figure::median("goodput_mbps", mbit),
            Figure::least("goodput_mbps_min", mbit),
            Figure::most("goodput_mbps_max", mbit),
            Figure::median("of_sum", mbit / self.sum),
        ])
    }
}
