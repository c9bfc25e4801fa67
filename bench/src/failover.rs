//! How long a conversation is silent when its network dies: silently, or with the sender's own link.
//!
//! Each round has hosts, networks and processes of its own. The client sends a small message every 10 ms, whether or not
//! earlier ones were answered, and the server answers each. The network that carries most of that is cut; once answers
//! are back for a while, or after [`HEAL`], it is healed, and messages go on for a while. The figure of the round is the
//! longest time between two answers.

mod client;
mod lab;
mod mptcp;

use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use steadfast::Labels;
use steadfast_testbed::{Lab, enter_user_namespace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) use client::client;

use crate::child::{Child, Console, Place};
use crate::failover::lab::{Fault, NETWORKS, Stage};
use crate::outcome::Outcome;
use crate::spread::Spread;
use crate::systems::{CONGESTION, Conversation, System, introduce};
use crate::usage::{Nanos, now};
use crate::{Effort, Part, systems};

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
/// How long unanswered messages are waited for at the end of a round.
const DRAIN: Duration = Duration::from_secs(5);
const GUARD: Duration = Duration::from_secs(30);

/// Orders to the client.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Wait until every network is in use, then send.
    Begin,
    Stop,
}

/// What the client reports.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// The first message goes out.
    Began,
    /// When the newest of the messages that were answered was sent.
    Answered(Nanos),
    Done(Round),
}

/// What a round found.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Round {
    longest_gap: Nanos,
    /// From a message to its answer.
    longest_wait: Nanos,
    sent: u64,
    lost: u64,
    duplicated: u64,
    cpu_seconds: f64,
}

pub(crate) fn run(effort: Effort) -> anyhow::Result<Outcome> {
    let rounds = effort.of(2, 10);
    if Lab::available().is_err() {
        await_single_thread();
        enter_user_namespace()?;
    }
    let mut outcome = Outcome::new("failover");
    conditions(&mut outcome, rounds);
    let mut systems = Vec::new();
    for system in SYSTEMS {
        match obstacle(system) {
            Some(reason) => {
                eprintln!("SKIPPED {}: {reason}", system.name());
                outcome.skipped(SCENARIO, system.name(), &reason);
            }
            None => systems.push(system),
        }
    }
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

/// What keeps a system from being measured here.
fn obstacle(system: System) -> Option<String> {
    (system == System::Mptcp).then(mptcp::obstacle).flatten()
}

fn measure(system: System, fault: Fault) -> anyhow::Result<Round> {
    let stage = Stage::new()?;
    if system == System::Mptcp {
        mptcp::prepare(&stage)?;
    }
    let mut server = Child::start("server", Part::FailoverServer(system), Place::Host(&stage.server))?;
    let mut client = Child::start("client", Part::FailoverClient(system), Place::Host(&stage.client))?;
    introduce(&mut client, &mut server, Some(stage.server_address()))?;
    client.order(&Order::Begin)?;
    let Report::Began = client.expect("beginning", GUARD)? else { bail!("the client did not begin") };
    let idle = stage.carried();
    thread::sleep(BEFORE);
    let busy = stage.busiest(&idle);
    let cut_at = now();
    stage.cut(busy, fault)?;
    await_answer(&client, cut_at, HEAL)?;
    stage.heal(busy, fault)?;
    let healed_at = now();
    if !await_answer(&client, healed_at, CAP)? {
        eprintln!("{}: no answer within {CAP:?} after the network was healed", system.name());
    }
    client.order(&Order::Stop)?;
    let deadline = now() + GUARD.as_nanos() as Nanos;
    while now() < deadline {
        if let Some(Report::Done(round)) = client.poll(GUARD)? {
            return Ok(round);
        }
    }
    bail!("the client did not stop");
}

/// Waits until messages sent after `since` are answered, and then for a while; `false` if that takes over `limit`.
fn await_answer(client: &Child, since: Nanos, limit: Duration) -> anyhow::Result<bool> {
    let deadline = since + limit.as_nanos() as Nanos;
    let mut back_at = None;
    loop {
        let time = now();
        match back_at {
            Some(back) if time >= back + AFTER.as_nanos() as Nanos => return Ok(true),
            None if time >= deadline => return Ok(false),
            _ => {}
        }
        if let Some(Report::Answered(sent)) = client.poll(Duration::from_millis(5))?
            && sent > since
        {
            back_at.get_or_insert(time);
        }
    }
}

/// Answers everything.
pub(crate) async fn server(system: System, console: &mut Console) -> anyhow::Result<()> {
    match systems::server(system, console).await? {
        Conversation::Steadfast(_endpoint, socket) => {
            while let Some(message) = socket.recv().await? {
                let payload = message.into_bytes().await?;
                socket.send(payload, Labels::foreground()).await?;
            }
            Ok(())
        }
        Conversation::Plain(mut stream, _listener) => {
            let mut message = [0; MESSAGE];
            while stream.read_exact(&mut message).await.is_ok() {
                stream.write_all(&message).await?;
            }
            Ok(())
        }
        Conversation::Tls(_) => bail!("not measured here"),
    }
}

/// A thread that was joined may still be in the kernel's list for a moment, and then no user namespace can be entered.
fn await_single_thread() {
    for _ in 0..1000 {
        if std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count) <= 1 {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
