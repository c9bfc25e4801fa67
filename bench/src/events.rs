//! Events through the agent and through its peers: how long one and its answer are under way, and how many there can be.
//!
//! Publisher, subscriber and what is between them (`steadfast daemon`, `nats-server`) are processes of their own, fresh
//! for each measurement.
//!
//! | file | one idea |
//! |---|---|
//! | `events.rs` | the systems in turns, and what they are compared by |
//! | `events/ground.rs` | the daemon or the server, and where it keeps what it stores |
//! | `events/sides.rs` | who publishes and who subscribes |
//! | `events/hands.rs` | the same two verbs for each system |
//! | `events/ftb.c` | both sides as a program in C, against our header and library |

mod ground;
mod hands;
mod sides;

use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::child::Child;
use crate::only::Only;
use crate::outcome::Outcome;
use crate::spread::Spread;
use crate::usage::{Nanos, confine, cpu_seconds_of};
use crate::{Effort, Part};
use ground::Ground;

pub(crate) use sides::{answerer, asker};

const PAYLOAD: usize = 64;
/// Events that wait for their acknowledgement, where more than one may.
const OPEN: u32 = 256;
/// A part of them comes before those that count.
const WARM_UP: u32 = 10;
const GUARD: Duration = Duration::from_secs(120);
/// How long a subscriber that has fallen behind is waited for before it is asked again.
const BEHIND: Duration = Duration::from_millis(200);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Load {
    /// All on one core.
    RoundTrip,
    /// Where the kernel puts them.
    RoundTripSpread,
    Flood,
    FloodAcknowledged,
}

const SCENARIOS: [(&str, Load); 4] = [
    ("round_trip", Load::RoundTrip),
    ("round_trip_spread", Load::RoundTripSpread),
    ("flood", Load::Flood),
    ("flood_acknowledged", Load::FloodAcknowledged),
];

/// What events go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Carrier {
    Steadfast,
    /// The same, and every event is acknowledged.
    SteadfastAcknowledged,
    Libftb,
    /// A socket between the two, and nothing else.
    Unix,
    Nats,
    Jetstream,
}

impl Load {
    const fn is_trip(self) -> bool {
        matches!(self, Self::RoundTrip | Self::RoundTripSpread)
    }
}

impl Carrier {
    const ALL: [Self; 6] =
        [Self::Steadfast, Self::SteadfastAcknowledged, Self::Libftb, Self::Unix, Self::Nats, Self::Jetstream];

    const fn name(self) -> &'static str {
        match self {
            Self::Steadfast => "steadfast",
            Self::SteadfastAcknowledged => "steadfast_acknowledged",
            Self::Libftb => "libftb",
            Self::Unix => "unix",
            Self::Nats => "nats",
            Self::Jetstream => "jetstream",
        }
    }

    /// Whether this load means something to it: FTB and `JetStream` acknowledge always, NATS without it never.
    const fn bears(self, load: Load) -> bool {
        match load {
            Load::RoundTrip | Load::RoundTripSpread => true,
            Load::Flood => matches!(self, Self::Steadfast | Self::Nats),
            Load::FloodAcknowledged => matches!(self, Self::Steadfast | Self::Libftb | Self::Jetstream),
        }
    }

    /// Whether its sides wait for acknowledgements.
    const fn acknowledges(self, load: Load) -> bool {
        match self {
            Self::Steadfast => matches!(load, Load::FloodAcknowledged),
            Self::SteadfastAcknowledged | Self::Libftb | Self::Jetstream => true,
            Self::Unix | Self::Nats => false,
        }
    }

    const fn is_ours(self) -> bool {
        matches!(self, Self::Steadfast | Self::SteadfastAcknowledged | Self::Libftb)
    }
}

/// A side's part.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Side {
    carrier: Carrier,
    load: Load,
}

/// What one who publishes reports after each order, which is a number of events.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Asked {
    began: Nanos,
    ended: Nanos,
    /// Of round trips, in microseconds.
    p50: f64,
    p99: f64,
}

/// What one who subscribes reports after the last of a flood.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Counted {
    came: u64,
    /// When the last one came.
    last: Nanos,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Took {
    p50: f64,
    p99: f64,
    rate: f64,
    /// Of a hundred events those that did not come.
    lost: f64,
    /// Of both sides and what is between, for one event, in microseconds.
    cpu: f64,
}

pub(crate) fn run(effort: Effort, only: &Only) -> anyhow::Result<Outcome> {
    let (scenarios, systems) =
        only.select_named(&SCENARIOS, &Carrier::ALL.map(|carrier| (carrier.name(), carrier)))?;
    let (rounds, trips, flood) = effort.of((2, 2_000, 20_000), (7, 20_000, 200_000));
    let mut outcome = Outcome::new("events");
    conditions(&mut outcome, rounds, (trips, flood));
    for (scenario, load) in &scenarios {
        let mut found: Vec<(Carrier, Took)> = Vec::new();
        let carriers: Vec<Carrier> =
            systems.iter().map(|(_, carrier)| *carrier).filter(|carrier| carrier.bears(*load)).collect();
        let carriers = able(&carriers, scenario, &mut outcome);
        for round in 1..=rounds {
            for carrier in &carriers {
                let name = carrier.name();
                let count = match (load, carrier) {
                    (load, _) if load.is_trip() => trips,
                    // One after the other, as FTB's calls are.
                    (_, Carrier::Libftb) => flood / 10,
                    _ => flood,
                };
                match measure(*carrier, *load, count) {
                    Ok(took) => {
                        let Took { p50, rate, lost, .. } = took;
                        eprintln!(
                            "round {round} of {rounds}: {scenario:19} {name:22} p50 {p50:6.1} us, {rate:7.0} events/s, \
                             {lost:.1} % lost"
                        );
                        found.push((*carrier, took));
                    }
                    Err(error) => {
                        // That it failed is a result, too, and the others are still worth measuring.
                        eprintln!("FAILED round {round} of {rounds}, {scenario}: {name}: {error:#}");
                        outcome.figure(scenario, name, "failed", 1.0);
                        if carrier.is_ours() {
                            outcome.fail();
                        }
                    }
                }
            }
        }
        for carrier in carriers {
            let took: Vec<Took> =
                found.iter().filter(|(of, _)| *of == carrier).map(|(_, took)| *took).collect();
            if !took.is_empty() {
                report(&mut outcome, scenario, (*load, carrier), &took)?;
            }
        }
    }
    ratios(&mut outcome);
    Ok(outcome)
}

fn conditions(outcome: &mut Outcome, rounds: u32, (trips, flood): (u32, u32)) {
    outcome.condition("rounds", rounds);
    outcome.condition(
        "events",
        format!(
            "round_trip: {trips}, flood: {flood} (libftb {}); a tenth more before them does not count",
            flood / 10
        ),
    );
    outcome.condition("payload_bytes", PAYLOAD);
    outcome.condition(
        "round_trip",
        "one event at a time: published, delivered, answered with another, delivered; steadfast and nats: published \
         without acknowledgement; steadfast_acknowledged, libftb, jetstream: event and answer are acknowledged, and both sides \
         wait for it",
    );
    outcome.condition(
        "flood",
        "as fast as one process publishes, one subscriber of all of them; events that came, by the time from the first \
         publishing to the last coming; lost_percent did not come",
    );
    outcome.condition(
        "flood_acknowledged",
        format!(
            "{OPEN} events wait for their acknowledgement, a task for each (libftb: 1, as FTB's calls are); events that \
             were acknowledged; one subscriber of all of them"
        ),
    );
    outcome.condition(
        "processes",
        "publisher, subscriber, and daemon or server, fresh for each measurement; round_trip: all on one core, which stays \
         awake; otherwise where the kernel puts them",
    );
    outcome.condition(
        "runtime",
        "publisher and subscriber: tokio, current thread; unix: blocking; libftb: C, callbacks",
    );
    outcome.condition(
        "steadfast",
        "`steadfast daemon`, release build, journal on, sync = \"second\"; rates of clients raised beyond what \
         is measured",
    );
    outcome.condition("unix", "blocking writes and reads of 64 bytes, two processes, one stream socket");
    outcome.condition(
        "nats",
        format!("{}, defaults, TCP on the loopback, async-nats with its defaults", ground::nats_version()),
    );
    outcome.condition(
        "jetstream",
        "the same with one stream on the same disk, file storage, server's default sync (2 minutes); the \
         subscriber is one of NATS without JetStream, which costs the server less",
    );
    outcome.condition("encryption", "none");
    outcome.condition("congestion_control", "nats, jetstream: the system's");
    outcome.condition("cpu_us", "processor time of all three processes for one event, or one round trip");
}

/// Those that can be measured here; the others are said to be left out, with the reason.
fn able(carriers: &[Carrier], scenario: &str, outcome: &mut Outcome) -> Vec<Carrier> {
    let mut carriers = carriers.to_vec();
    carriers.retain(|carrier| match ground::obstacle(*carrier) {
        Some(reason) => {
            eprintln!("SKIPPED {} in {scenario}: {reason}", carrier.name());
            outcome.skipped(scenario, carrier.name(), &reason);
            false
        }
        None => true,
    });
    carriers
}

fn report(
    outcome: &mut Outcome,
    scenario: &str,
    (load, carrier): (Load, Carrier),
    took: &[Took],
) -> anyhow::Result<()> {
    let of = |figure: fn(&Took) -> f64| Spread::of(took.iter().map(figure)).context("no round");
    let name = carrier.name();
    if load.is_trip() {
        let p50 = of(|took| took.p50)?;
        outcome.figure(scenario, name, "round_trip_p50_us", p50.median());
        outcome.figure(scenario, name, "round_trip_p50_us_min", p50.min());
        outcome.figure(scenario, name, "round_trip_p50_us_max", p50.max());
        outcome.figure(scenario, name, "round_trip_p99_us", of(|took| took.p99)?.median());
    } else {
        let rate = of(|took| took.rate)?;
        outcome.figure(scenario, name, "events_per_second", rate.median());
        outcome.figure(scenario, name, "events_per_second_min", rate.min());
        outcome.figure(scenario, name, "events_per_second_max", rate.max());
        outcome.figure(scenario, name, "lost_percent", of(|took| took.lost)?.median());
    }
    outcome.figure(scenario, name, "cpu_us", of(|took| took.cpu)?.median());
    Ok(())
}

fn ratios(outcome: &mut Outcome) {
    let pairs = [
        ("unix", ["steadfast", "unix"]),
        ("unix_acknowledged", ["steadfast_acknowledged", "unix"]),
        ("unix_libftb", ["libftb", "unix"]),
        ("nats", ["steadfast", "nats"]),
        ("jetstream", ["steadfast_acknowledged", "jetstream"]),
    ];
    for (name, pair) in pairs {
        outcome.ratio(name, "round_trip", "round_trip_p50_us", pair);
        outcome.ratio(&format!("{name}_spread"), "round_trip_spread", "round_trip_p50_us", pair);
    }
    outcome.ratio("nats_flood", "flood", "events_per_second", ["steadfast", "nats"]);
    outcome.ratio("jetstream_flood", "flood_acknowledged", "events_per_second", ["steadfast", "jetstream"]);
}

fn measure(carrier: Carrier, load: Load, count: u32) -> anyhow::Result<Took> {
    // What wakes a process on another core takes more time than all else, and differs from run to run.
    let _confined = (load == Load::RoundTrip).then(confine).transpose()?;
    let ground = Ground::new(carrier)?;
    let side = Side { carrier, load };
    let mut answerer = ground.side("subscriber", Part::EventsAnswerer(side), side)?;
    let mut asker = ground.side("publisher", Part::EventsAsker(side), side)?;
    turn(&mut asker, &mut answerer, load, (count / WARM_UP).max(1))?;
    let processes = [Some(asker.id()), Some(answerer.id()), ground.between()];
    let used = || processes.iter().flatten().map(|id| cpu_seconds_of(*id)).sum::<anyhow::Result<f64>>();
    let before = used()?;
    let (asked, counted) = turn(&mut asker, &mut answerer, load, count)?;
    let cpu = (used()? - before) * 1e6 / f64::from(count);
    let Asked { began, ended, p50, p99 } = asked;
    let came = counted.map_or(count.into(), |counted| counted.came) as f64;
    let (done, last) = match (load, counted) {
        (Load::Flood, Some(Counted { last, .. })) => (came, last),
        _ => (f64::from(count), ended),
    };
    let rate = done / (last.saturating_sub(began) as f64 / 1e9);
    Ok(Took { p50, p99, rate, lost: 100.0 * (1.0 - came / f64::from(count)), cpu })
}

/// So many events; for a flood also what came of it at the other end.
fn turn(
    asker: &mut Child,
    answerer: &mut Child,
    load: Load,
    count: u32,
) -> anyhow::Result<(Asked, Option<Counted>)> {
    asker.order(&count)?;
    let asked: Asked = asker.expect("publishing", GUARD)?;
    if load.is_trip() {
        return Ok((asked, None));
    }
    for _ in 0..GUARD.as_millis() / BEHIND.as_millis() {
        // The mark that ends the flood may itself be lost.
        asker.order(&0)?;
        if let Some(counted) = answerer.poll(BEHIND)? {
            return Ok((asked, Some(counted)));
        }
    }
    bail!("the subscriber does not see the end of the flood")
}
