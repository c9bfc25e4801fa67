//! Requests between the hosts of a rack, at a load of their links: Homa, and TCP carrying the same requests.
//!
//! Every host is a process of one thread that asks all others and answers them. Requests come when they come (open loop, a
//! Poisson process a host), of lengths from the papers; a response has a few bytes, as in the papers' one-way traffic. A request
//! counts from when it was to be sent to when its response was here.

mod flood;
mod homa;
mod host;
mod list;
mod rack;
mod tcp;

use std::collections::BTreeSet;
use std::time::Duration;

use steadfast_fabric::Workload;

pub(crate) use flood::{Flood, hostile};
pub(crate) use host::{RackHost, host};

use crate::Effort;
use crate::only::{Named, Only};
use crate::outcome::Outcome;
use crate::spread::Spread;
use crate::stage::allow;
use host::{Carrier, Found};
use list::{LONGEST, Traffic};
use rack::Rack;

/// What is offered, and what disturbs.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    traffic: Traffic,
    flood: Option<Flood>,
}

const fn of(workload: Workload, mbit: f64, load: f64) -> Scenario {
    Scenario { traffic: Traffic { workload, mbit, load, seed: 0 }, flood: None }
}

const fn flooded(flood: Flood) -> Scenario {
    Scenario { flood: Some(flood), ..of(Workload::W3, 20.0, 0.5) }
}

const SCENARIOS: [Named<Scenario>; 12] = [
    ("w2_50", of(Workload::W2, 20.0, 0.5)),
    ("w2_80", of(Workload::W2, 20.0, 0.8)),
    ("w3_50", of(Workload::W3, 20.0, 0.5)),
    ("w3_80", of(Workload::W3, 20.0, 0.8)),
    ("w4_50", of(Workload::W4, 50.0, 0.5)),
    ("w4_80", of(Workload::W4, 50.0, 0.8)),
    ("w5_50", of(Workload::W5, 50.0, 0.5)),
    ("w5_80", of(Workload::W5, 50.0, 0.8)),
    ("w3_50_random", flooded(Flood::Random)),
    ("w3_50_forged", flooded(Flood::Forged)),
    ("w3_50_replayed", flooded(Flood::Replayed)),
    ("w3_50_greedy", flooded(Flood::Greedy)),
];
/// What floods are compared with.
const UNDISTURBED: &str = "w3_50";
const CARRIERS: [Named<Carrier>; 3] =
    [("homa", Carrier::Homa), ("tcp_one", Carrier::TcpOne), ("tcp_pool", Carrier::TcpPool)];
/// Of the better of both.
const TCP: &str = "tcp";
/// Before what counts.
const WARM_UP: f64 = 0.2;

pub(crate) fn run(effort: Effort, only: &Only) -> anyhow::Result<Outcome> {
    allow()?;
    let rounds = 1;
    let mut outcome = Outcome::new("rpc-load");
    outcome.condition("network", rack::DESCRIPTION);
    outcome.condition("emulator", rack::precision()?);
    outcome.condition("hosts", format!("{}, and in w3_50_* a hostile one", rack::HOSTS));
    outcome.condition(
        "rate_mbit",
        "of each wire: 20 under W2 and W3, 50 under W4 and W5: little enough that hosts seldom wait for each other's \
            processors, nor the switch for its own, enough that the shortest tenth is many messages",
    );
    outcome.condition(
        "load",
        "of each wire, with headers of requests and responses as Homa has them; link_used is measured, with all else",
    );
    outcome.condition("lengths", format!("as in the papers, without those over {LONGEST} bytes"));
    outcome.condition("short", "the shortest tenth of all messages");
    outcome.condition("slowdown", "a request's time as a multiple of what it takes in the empty network");
    let seconds = if effort.quick { "5" } else { "8 under W2, 12 under W3, 30 under W4, 240 under W5" };
    outcome.condition("seconds", format!("{seconds}; the first {WARM_UP} of them do not count"));
    let level =
        rack::levels().map_or("as every other process", |_| "in real time, the switch before the hosts");
    outcome.condition("processors", format!("hosts and the switch get them {level}"));
    outcome.condition(
        "late",
        "how long after its time a request was asked, by the process's own clock: the machine's delay",
    );
    outcome.condition(
        "emulator_late",
        "late_in_emulator is the part of frames that it moved more than a millisecond late, latest_in_emulator_us the worst: \
         times of that size are the machine's, not a system's",
    );
    outcome.condition("rounds", rounds);
    outcome.condition("settings", Carrier::SETTINGS);
    let (scenarios, carriers) = only.select_named(&SCENARIOS, &CARRIERS)?;
    for (name, scenario) in &scenarios {
        let seconds = effort.of(5, lasts(scenario.traffic.workload));
        measure(&mut outcome, name, scenario, &carriers, Duration::from_secs(seconds), rounds)?;
    }
    for (name, scenario) in &scenarios {
        if scenario.flood.is_some() {
            compare(&mut outcome, name);
        } else {
            outcome.ratio(&format!("short_p99_{name}"), name, "short_p99_us", [TCP, "homa"]);
        }
    }
    Ok(outcome)
}

/// Seconds of a round: the longer messages are, the fewer of them are short.
fn lasts(workload: Workload) -> u64 {
    match workload {
        Workload::W1 | Workload::W2 => 8,
        Workload::W3 => 12,
        Workload::W4 => 30,
        Workload::W5 => 240,
    }
}

/// How many times what it is without a flood.
fn compare(outcome: &mut Outcome, name: &str) {
    for key in ["short_p99_us", "slowdown_p99", "p99_us"] {
        let with = outcome.of(name, "homa", key);
        let without = outcome.of(UNDISTURBED, "homa", key);
        if let (Some(with), Some(without)) = (with, without.filter(|without| *without > 0.0)) {
            outcome.add_ratio(&format!("{key}_{name}"), with / without);
        }
    }
}

/// All rounds of one scenario: carriers take turns.
fn measure(
    outcome: &mut Outcome,
    name: &str,
    scenario: &Scenario,
    carriers: &[Named<Carrier>],
    lasts: Duration,
    rounds: u64,
) -> anyhow::Result<()> {
    let mut of_carriers: Vec<(&str, Vec<Run>)> = Vec::new();
    for round in 0..rounds {
        for (system, carrier) in carriers {
            // A flood is measured against Homa alone.
            if scenario.flood.is_some() && *carrier != Carrier::Homa {
                continue;
            }
            let traffic = Traffic { seed: round + 1, ..scenario.traffic };
            let run = Rack::run(*carrier, traffic, scenario.flood, lasts)?;
            eprintln!(
                "{name} {system}: {} requests, not answered {} and {:?}, link used {:.2}, {:.1} s of processor time, the emulator \
                 at most {:?} late",
                run.found.samples.len(),
                run.found.open,
                run.found.failed,
                run.link_used,
                run.found.cpu_seconds,
                run.late.most
            );
            match of_carriers.iter_mut().find(|(known, _)| known == system) {
                Some((_, runs)) => runs.push(run),
                None => of_carriers.push((system, vec![run])),
            }
        }
    }
    let alone = Alone::of(of_carriers.iter().flat_map(|(_, runs)| runs), scenario.traffic.mbit);
    for (system, runs) in &of_carriers {
        report(outcome, name, system, runs, &alone, lasts);
    }
    let better = of_carriers.iter().filter(|(system, _)| system.starts_with(TCP)).min_by(|a, b| {
        let p99 = |system: &str| outcome.of(name, system, "short_p99_us").unwrap_or(f64::MAX);
        p99(a.0).total_cmp(&p99(b.0))
    });
    if let Some((_, runs)) = better {
        report(outcome, name, TCP, runs, &alone, lasts);
    }
    Ok(())
}

/// What one run found.
pub(crate) struct Run {
    found: Found,
    /// The part of all wires to hosts that was used while requests came.
    link_used: f64,
    /// Frames that switches dropped, and the emulator for want of time.
    dropped: [u64; 2],
    late: Late,
}

/// Frames that the emulator moved more than a millisecond late, of how many, and how late at most: what the machine added, not
/// the network.
struct Late {
    frames: u64,
    of: u64,
    most: Duration,
}

/// What a request takes in the empty network, by its length.
struct Alone {
    points: Vec<(u32, f64)>,
    /// Nanoseconds of a byte.
    byte: f64,
}

impl Alone {
    /// The least that any system took.
    fn of<'r>(runs: impl Iterator<Item = &'r Run>, mbit: f64) -> Self {
        let mut points: Vec<(u32, f64)> = runs.flat_map(|run| run.found.alone.iter().copied()).collect();
        points.sort_by(|a, b| (a.0, a.1).partial_cmp(&(b.0, b.1)).unwrap_or(std::cmp::Ordering::Equal));
        points.dedup_by_key(|(length, _)| *length);
        Self { points, byte: list::wire_bytes(1_000_000) / 1e6 * 8e3 / mbit }
    }

    /// Between what was measured it is on a line, beyond it each byte takes its time on the wire.
    fn nanos(&self, length: u32) -> f64 {
        let index = self.points.partition_point(|(known, _)| *known < length);
        match (index.checked_sub(1).map(|at| self.points[at]), self.points.get(index)) {
            (Some((low, from)), Some((high, to))) => {
                from + (to - from) * f64::from(length - low) / f64::from(high - low)
            }
            (Some((longest, nanos)), None) => nanos + f64::from(length - longest) * self.byte,
            (None, Some((_, nanos))) => *nanos,
            (None, None) => f64::from(length).max(1.0) * self.byte,
        }
    }
}

fn report(outcome: &mut Outcome, name: &str, system: &str, runs: &[Run], alone: &Alone, lasts: Duration) {
    let warm = (lasts.as_nanos() as f64 * WARM_UP) as u64;
    let (mut all, mut of_rounds) = (Vec::new(), Vec::new());
    for run in runs {
        let mut samples: Vec<_> =
            run.found.samples.iter().filter(|sample| sample.at >= warm).copied().collect();
        samples.sort_unstable_by_key(|sample| (sample.length, sample.took));
        let short = Spread::of(samples[..samples.len().div_ceil(10)].iter().map(|s| s.took as f64 / 1e3));
        of_rounds.extend(short.map(|short| short.percentile(99)));
        all.extend(samples);
    }
    all.sort_unstable_by_key(|sample| (sample.length, sample.took));
    let mut figure = |key: &str, value| outcome.figure(name, system, key, value);
    let micros = |samples: &[host::Sample]| Spread::of(samples.iter().map(|s| s.took as f64 / 1e3));
    let slow = |samples: &[host::Sample]| {
        Spread::of(samples.iter().map(|s| (s.took as f64 / alone.nanos(s.length)).max(1.0)))
    };
    let short = &all[..all.len().div_ceil(10)];
    if let (Some(times), Some(slows), Some(rounds)) = (micros(short), slow(short), Spread::of(of_rounds)) {
        figure("short_p50_us", times.median());
        figure("short_p99_us", times.percentile(99));
        figure("short_p99_us_least", rounds.min());
        figure("short_p99_us_most", rounds.max());
        let late = Spread::of(all.iter().map(|sample| sample.late as f64 / 1e3));
        if let Some(late) = late {
            figure("late_p50_us", late.median());
            figure("late_p99_us", late.percentile(99));
        }
        figure("short_slowdown_p99", slows.percentile(99));
        figure("short_empty_us", alone.nanos(short[short.len() / 2].length) / 1e3);
    }
    if let (Some(times), Some(slows)) = (micros(&all), slow(&all)) {
        figure("p99_us", times.percentile(99));
        figure("slowdown_p50", slows.median());
        figure("slowdown_p99", slows.percentile(99));
    }
    let sum = |of: fn(&Run) -> f64| runs.iter().map(of).sum::<f64>();
    figure("requests", all.len() as f64);
    figure("failed", sum(|run| run.found.failed.values().sum::<u64>() as f64));
    for reason in runs.iter().flat_map(|run| run.found.failed.keys()).collect::<BTreeSet<_>>() {
        let of_runs = runs.iter().filter_map(|run| run.found.failed.get(reason));
        figure(&format!("failed_{reason}"), of_runs.sum::<u64>() as f64);
    }
    figure("unfinished", sum(|run| run.found.open as f64));
    figure("link_used", sum(|run| run.link_used) / runs.len() as f64);
    figure("dropped_in_queues", sum(|run| run.dropped[0] as f64));
    figure("dropped_by_emulator", sum(|run| run.dropped[1] as f64));
    let frames = sum(|run| run.late.of as f64);
    figure("late_in_emulator", sum(|run| run.late.frames as f64) / frames.max(1.0));
    let most = runs.iter().map(|run| run.late.most).max().unwrap_or_default();
    figure("latest_in_emulator_us", most.as_secs_f64() * 1e6);
    figure("asked_again", sum(|run| run.found.counters.asked as f64));
    figure("resent_bytes", sum(|run| run.found.counters.resent_bytes as f64));
    figure("received_twice_bytes", sum(|run| run.found.counters.discarded_bytes as f64));
    figure("cpu_seconds", sum(|run| run.found.cpu_seconds));
    figure("waited_seconds", sum(|run| run.found.waited_seconds));
}
