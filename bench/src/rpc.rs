//! Small calls on the loopback: one at a time, and many.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use steadfast::Bytes;
use tokio::net::UdpSocket;
use tokio::task::LocalSet;

use crate::child::{Child, Console, Place, tell};
use crate::only::Only;
use crate::outcome::Outcome;
use crate::spread::Spread;
use crate::systems::calls::{Caller, Callers, Client};
use crate::systems::{Ground, calls, introduce};
use crate::usage::{Nanos, cpu_seconds, now};
use crate::{Effort, Part};

const SYSTEMS: [Callers; 5] =
    [Callers::Homa, Callers::HomaPlain, Callers::Udp, Callers::Tonic, Callers::TonicPlain];
const MESSAGE: usize = 100;
/// Scenarios, and how many calls are open at a time.
const SCENARIOS: [(&str, u32); 3] = [("one", 1), ("many_64", 64), ("many_256", 256)];
/// A part of the calls comes before those that count.
const WARM_UP: u32 = 10;
const GUARD: Duration = Duration::from_secs(120);

/// To the client: so many calls.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Make {
    count: u32,
    open: u32,
}

/// What calls took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Took {
    p50: f64,
    p99: f64,
    rate: f64,
    /// Of the client, for one call, in microseconds.
    cpu: f64,
}

pub(crate) fn run(effort: Effort, only: &Only) -> anyhow::Result<Outcome> {
    let (scenarios, systems) =
        only.select_named(&SCENARIOS, &SYSTEMS.map(|system| (system.name(), system)))?;
    let (rounds, one, many) = effort.of((3, 10_000, 50_000), (5, 20_000, 200_000));
    let mut outcome = Outcome::new("rpc");
    outcome.condition("rounds", rounds);
    outcome.condition("calls", format!("one: {one}, many: {many}; a tenth more before them does not count"));
    outcome.condition("message_bytes", MESSAGE);
    outcome.condition("outstanding", "one: 1, many_64: 64, many_256: 256, each from a task of its own");
    outcome.condition("runtime", "tokio, current thread");
    outcome.condition(
        "processes",
        "client and server, one thread and, where there are two, one core each; loopback",
    );
    outcome.condition(
        "encryption",
        "homa: sealed packets, keys agreed on over TLS 1.3; tonic: TLS 1.3, rustls with ring, AES-128-GCM; homa_plain, udp, \
         tonic_plain: none",
    );
    outcome.condition(
        "settings",
        "homa, homa_plain: `Rpc` and a handler, defaults; udp: `UdpSocket` of tokio, no resending; tonic 0.14: one connection \
         of HTTP/2, no delay, bytes without protobuf",
    );
    outcome.condition("congestion_control", crate::systems::CONGESTION);
    let mut found: Vec<(&str, Callers, Took)> = Vec::new();
    for round in 1..=rounds {
        for (scenario, open) in &scenarios {
            for (name, system) in &systems {
                let make = Make { count: if *open == 1 { one } else { many }, open: *open };
                let took = measure(*system, make).with_context(|| format!("{scenario}: {name}"))?;
                let Took { p50, p99, rate, .. } = took;
                eprintln!(
                    "round {round} of {rounds}: {scenario:8} {name:11} p50 {p50:6.1} us, p99 {p99:6.1} us, {rate:7.0} calls/s"
                );
                found.push((scenario, *system, took));
            }
        }
    }
    for (scenario, _) in &scenarios {
        for (name, system) in &systems {
            let of = |figure: fn(&Took) -> f64| {
                let all = found.iter().filter(|(place, of, _)| place == scenario && of == system);
                Spread::of(all.map(|(.., took)| figure(took))).context("no round")
            };
            let rate = of(|took| took.rate)?;
            outcome.figure(scenario, name, "p50_us", of(|took| took.p50)?.median());
            outcome.figure(scenario, name, "p99_us", of(|took| took.p99)?.median());
            outcome.figure(scenario, name, "rpcs_per_second", rate.median());
            outcome.figure(scenario, name, "rpcs_per_second_min", rate.min());
            outcome.figure(scenario, name, "rpcs_per_second_max", rate.max());
            outcome.figure(scenario, name, "client_cpu_us", of(|took| took.cpu)?.median());
        }
    }
    ratios(&mut outcome);
    Ok(outcome)
}

fn ratios(outcome: &mut Outcome) {
    outcome.ratio("udp_p50", "one", "p50_us", ["homa_plain", "udp"]);
    outcome.ratio("udp_p50_encrypted", "one", "p50_us", ["homa", "udp"]);
    // With 64 open; those with 256 have a name of their own.
    for (scenario, suffix) in [("many_64", ""), ("many_256", "_256")] {
        outcome.ratio(
            &format!("tonic_rps{suffix}"),
            scenario,
            "rpcs_per_second",
            ["homa_plain", "tonic_plain"],
        );
        outcome.ratio(
            &format!("tonic_rps_encrypted{suffix}"),
            scenario,
            "rpcs_per_second",
            ["homa", "tonic"],
        );
        outcome.ratio(&format!("udp_rps{suffix}"), scenario, "rpcs_per_second", ["homa_plain", "udp"]);
    }
}

fn measure(system: Callers, make: Make) -> anyhow::Result<Took> {
    let [here, there] = Place::two_cores();
    let mut server = Child::start("server", Part::CallServer(system), there)?;
    let mut client = Child::start("client", Part::CallClient(system), here)?;
    introduce(&mut client, &mut server, Ground::LOOPBACK)?;
    client.order(&make)?;
    client.expect("the calls", GUARD)
}

pub(crate) async fn client(system: Callers, console: &mut Console) -> anyhow::Result<()> {
    let client = calls::client(system, console).await?;
    let Make { count, open } = console.hear().await?;
    let calls = async |count: u32| match (&client, client.caller()) {
        (_, Some(mut caller)) if open == 1 => in_turn(&mut caller, count).await,
        (_, Some(caller)) => at_once(&caller, count, open).await,
        (Client::Udp(socket), None) => datagrams(socket, count, open).await,
        _ => bail!("not measured here"),
    };
    calls(count / WARM_UP).await?;
    let (began, used) = (now(), cpu_seconds());
    let times = calls(count).await?;
    let (seconds, cpu) = ((now() - began) as f64 / 1e9, cpu_seconds() - used);
    let times = Spread::of(times.into_iter().map(|time| time as f64 / 1e3)).context("no call")?;
    tell(&Took {
        p50: times.median(),
        p99: times.percentile(99),
        rate: f64::from(count) / seconds,
        cpu: cpu * 1e6 / f64::from(count),
    });
    console.hear::<()>().await
}

/// One call after the other.
async fn in_turn(caller: &mut Caller, count: u32) -> anyhow::Result<Vec<Nanos>> {
    let mut times = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let sent = now();
        caller.call(Bytes::from(vec![7; MESSAGE])).await?;
        times.push(now() - sent);
    }
    Ok(times)
}

/// From as many tasks as calls may be open.
async fn at_once(caller: &Caller, count: u32, open: u32) -> anyhow::Result<Vec<Nanos>> {
    let times = Rc::new(RefCell::new(Vec::with_capacity(count as usize)));
    let left = Rc::new(Cell::new(count));
    let tasks = LocalSet::new();
    let all: Vec<_> = (0..open)
        .map(|_| {
            let (mut caller, times, left) = (caller.clone(), Rc::clone(&times), Rc::clone(&left));
            tasks.spawn_local(async move {
                while let Some(rest) = left.get().checked_sub(1) {
                    left.set(rest);
                    let sent = now();
                    caller.call(Bytes::from(vec![7; MESSAGE])).await?;
                    times.borrow_mut().push(now() - sent);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    tasks
        .run_until(async {
            for task in all {
                task.await??;
            }
            anyhow::Ok(())
        })
        .await?;
    Ok(times.take())
}

/// Datagrams with a number each.
async fn datagrams(socket: &UdpSocket, count: u32, open: u32) -> anyhow::Result<Vec<Nanos>> {
    let mut times = Vec::with_capacity(count as usize);
    let mut sent = vec![0; open as usize];
    let mut datagram = [7; MESSAGE];
    for number in 0..open.min(count) {
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        sent[number as usize] = now();
        socket.send(&datagram).await?;
    }
    for answered in 1..=count {
        let length = socket.recv(&mut datagram).await?;
        anyhow::ensure!(length == MESSAGE, "an answer of {length} bytes");
        let number = u32::from_be_bytes([datagram[0], datagram[1], datagram[2], datagram[3]]) as usize;
        let sent = sent.get_mut(number).context("an answer to nothing")?;
        times.push(now() - *sent);
        if answered + open <= count {
            *sent = now();
            socket.send(&datagram).await?;
        }
    }
    Ok(times)
}
