//! Steadfast and its peers, measured side by side: `cargo xtask bench NAME [--quick] [--json] [--only NAME,NAME..]`.
//!
//! | file | one idea |
//! |---|---|
//! | `foreground.rs` | how long a request waits while the link is full |
//! | `stripe.rs` | what one stream carries over two networks at once |
//! | `mixed.rs` | requests beside large messages over a slow uplink, and over two |
//! | `sim_homa.rs` | the Homa core in a simulated data centre |
//! | `rpc_load.rs` and below | requests between the hosts of a rack, at a load, and beside a flood |
//! | `figure.rs`, `figure/svg.rs` | latency over time, and its drawing for the README |
//! | `failover.rs` | how long a conversation is silent when its network dies |
//! | `throughput.rs`, `latency.rs` | one stream, and one message at a time, on the loopback |
//! | `rpc.rs`, `rpc_stream.rs` | small calls, and what long ones carry, on the loopback |
//! | `verdicts.rs` | how soon and how surely it is known why a peer does not answer |
//! | `events.rs` and below | events through the agent, and through its peers |
//! | `sessions.rs` | what idle conversations cost |
//! | `durable.rs` | what it costs to keep messages on a disk |
//! | `checkpoint.rs` and below | how long a process stands still that is saved, and its conversations with it |
//! | `load.rs` and below | small exchanges and bulk between two hosts, whatever the system |
//! | `stage.rs` | two hosts and the networks between them |
//! | `systems.rs` and below | the systems, and how client and server of each find together |
//! | `child.rs` | the processes that are measured, and what they and the conductor tell each other |
//! | `rounds.rs`, `only.rs` | the rounds of a benchmark between hosts; which of it is run |
//! | `outcome.rs`, `spread.rs`, `usage.rs` | what was found; medians; processor time and memory |
//!
//! Invariants: client and server, and each host of a rack, are a process each, of one thread, whatever the system; systems alternate within a run,
//! with fresh processes for each measurement; what cannot be measured here is recorded as skipped, with the reason.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a benchmark is for")]

mod checkpoint;
mod child;
mod durable;
mod events;
mod failover;
mod figure;
mod foreground;
mod latency;
mod load;
mod mixed;
mod only;
mod outcome;
mod rounds;
mod rpc;
mod rpc_load;
mod rpc_stream;
mod sessions;
mod sim_homa;
mod spread;
mod stage;
mod stripe;
mod systems;
mod throughput;
mod usage;
mod verdicts;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::child::Console;
use crate::events::Side;
use crate::load::Setup;
use crate::only::Only;
use crate::outcome::Outcome;
use crate::rpc_load::RackHost;
use crate::systems::System;
use crate::systems::calls::Callers;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Only to see that it works.
    quick: bool,
}

impl Effort {
    /// One of two counts.
    fn of<T>(self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// What one of the measured processes does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Part {
    LoadClient(Setup),
    LoadServer(Setup),
    StreamClient(System),
    StreamServer(System),
    PingClient(System),
    PingServer(System),
    CallClient(Callers),
    LongCallClient(Callers),
    CallServer(Callers),
    SessionsClient,
    AssociationsClient,
    SessionsServer,
    RackHost(RackHost),
    Hostile(RackHost),
    VerdictsWatcher,
    VerdictsPeer,
    DurableClient,
    DurableServer,
    CheckpointSaved,
    CheckpointPeer,
    EventsAsker(Side),
    EventsAnswerer(Side),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [child::WORD, part, core @ ..] => match perform(part, core) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                child::tell_failure(&error);
                ExitCode::FAILURE
            }
        },
        [name, options @ ..] => match conduct(name, options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bench {name}: {error:#}");
                ExitCode::FAILURE
            }
        },
        [] => {
            eprintln!("Usage: cargo xtask bench NAME [--quick] [--json] [--only NAME,NAME..]");
            ExitCode::FAILURE
        }
    }
}

/// Runs a benchmark and prints what it found.
fn conduct(name: &str, options: &[&str]) -> anyhow::Result<()> {
    let (mut effort, mut json, mut only) = (Effort { quick: false }, false, Only::default());
    let mut svg = None;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "--quick" => effort.quick = true,
            "--json" => json = true,
            "--only" => only = Only::of(options.next().context("--only wants NAME,NAME..")?),
            "--svg" if name == "figure" => svg = Some(*options.next().context("--svg wants a file")?),
            other => bail!(
                "cannot make sense of `{other}`; there are --quick, --json and --only NAMES, and --svg FILE for `figure`"
            ),
        }
    }
    let first = usage::go_first();
    let mut outcome = match name {
        "figure" => figure::run(&only, Path::new(svg.unwrap_or(figure::FILE)))?,
        "foreground" => foreground::run(effort, &only)?,
        "stripe" => stripe::run(effort, &only)?,
        "mixed" => mixed::run(effort, &only)?,
        "failover" => failover::run(effort, &only)?,
        "rpc-load" => rpc_load::run(effort, &only)?,
        "rpc" => rpc::run(effort, &only)?,
        "rpc-stream" => rpc_stream::run(effort, &only)?,
        "verdicts" => verdicts::run(effort, &only)?,
        "events" => events::run(effort, &only)?,
        "sim-homa" => sim_homa::run(effort, &only)?,
        _ if !only.is_empty() => bail!("--only means nothing to this benchmark"),
        "throughput" => throughput::run(effort)?,
        "latency" => latency::run(effort)?,
        "sessions" => sessions::run(effort)?,
        "durable" => durable::run(effort)?,
        "checkpoint" => checkpoint::run(effort)?,
        _ => bail!("there is no such benchmark; `cargo xtask bench` lists them"),
    };
    outcome.condition(
        "priority",
        if first { "before other processes (nice -20)" } else { "as other processes" },
    );
    outcome.condition("quick", effort.quick);
    report(&outcome, json);
    if outcome.has_failed() {
        bail!("steadfast failed; the line that begins with FAILED says where");
    }
    Ok(())
}

fn report(outcome: &Outcome, json: bool) {
    if !json {
        println!("{}", outcome.table());
    }
    println!("{}", outcome.json());
}

/// Runs one part, in a process of its own.
fn perform(part: &str, core: &[&str]) -> anyhow::Result<()> {
    if let [core] = core {
        usage::stay_on(core.parse()?)?;
    }
    let part: Part = serde_json::from_str(part).context("no such part")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Part::CheckpointSaved = part {
        // Nobody gives it orders: no image can hold half of a pipe.
        return runtime.block_on(checkpoint::saved());
    }
    let mut console = Console::open();
    let console = &mut console;
    runtime.block_on(async {
        match part {
            Part::LoadClient(setup) => load::client(setup, console).await,
            Part::LoadServer(setup) => load::server(setup, console).await,
            Part::StreamClient(system) => throughput::client(system, console).await,
            Part::StreamServer(system) => throughput::server(system, console).await,
            Part::PingClient(system) => latency::client(system, console).await,
            Part::PingServer(system) => latency::server(system, console).await,
            Part::CallClient(system) => rpc::client(system, console).await,
            Part::LongCallClient(system) => rpc_stream::client(system, console).await,
            Part::CallServer(system) => systems::calls::serve(system, console).await,
            Part::SessionsClient => sessions::client(console).await,
            Part::AssociationsClient => sessions::many_clients(console).await,
            Part::SessionsServer => sessions::server(console).await,
            Part::RackHost(part) => rpc_load::host(part, console).await,
            Part::VerdictsWatcher => verdicts::watcher(console).await,
            Part::VerdictsPeer => verdicts::peer(console).await,
            Part::DurableClient => durable::client(console).await,
            Part::DurableServer => durable::server(console).await,
            Part::CheckpointSaved => bail!("this part has no console"),
            Part::CheckpointPeer => checkpoint::peer(console).await,
            Part::EventsAsker(side) => events::asker(side, console).await,
            Part::EventsAnswerer(side) => events::answerer(side, console).await,
            Part::Hostile(part) => rpc_load::hostile(part, console).await,
        }
    })
}
