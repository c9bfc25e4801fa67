//! One small message at a time, there and back, on the loopback.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use steadfast::{Bytes, Labels};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::child::{Child, Console, Place, tell};
use crate::outcome::Outcome;
use crate::spread::Spread;
use crate::systems::{CONGESTION, Conversation, Ground, System, introduce};
use crate::usage::{cpu_seconds, now};
use crate::{Effort, Part, systems};

const SYSTEMS: [System; 2] = [System::Steadfast, System::TcpTls];
const MESSAGE: usize = 100;
/// Exchanges before those that count.
const WARM_UP: u32 = 1000;
const GUARD: Duration = Duration::from_secs(60);

/// To the client: so many exchanges.
#[derive(Debug, Serialize, Deserialize)]
struct Exchange {
    count: u32,
}

/// Round trips in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct RoundTrips {
    p50: f64,
    p99: f64,
    /// Of the client, for one exchange, in microseconds.
    cpu: f64,
}

pub(crate) fn run(effort: Effort) -> anyhow::Result<Outcome> {
    let (rounds, count) = effort.of((3, 10_000), (9, 20_000));
    let mut outcome = Outcome::new("latency");
    outcome.condition("rounds", rounds);
    outcome.condition("exchanges", count);
    outcome.condition("message_bytes", MESSAGE);
    outcome.condition("runtime", "tokio, current thread");
    outcome.condition("processes", "client and server, one thread each; loopback: on a core each (where there are two), which sleeps and is woken; \
         one_core: on the same one, which stays awake");
    outcome.condition("outstanding", 1);
    outcome.condition("encryption", "TLS 1.3, rustls with ring, AES-128-GCM, both systems");
    outcome.condition("congestion_control", CONGESTION);
    let mut found: Vec<(&str, System, RoundTrips)> = Vec::new();
    let scenarios = [("loopback", Place::two_cores()), ("one_core", Place::one_core())];
    for round in 1..=rounds {
        for (scenario, places) in scenarios {
            for system in SYSTEMS {
                let trips = measure(system, places, count)?;
                let (name, RoundTrips { p50, p99, .. }) = (system.name(), trips);
                eprintln!(
                    "round {round} of {rounds}: {scenario} {name:10} p50 {p50:5.1} us, p99 {p99:5.1} us"
                );
                found.push((scenario, system, trips));
            }
        }
    }
    for (scenario, _) in scenarios {
        for system in SYSTEMS {
            let of = |figure: fn(&RoundTrips) -> f64| {
                let all = found.iter().filter(|(place, of, _)| *place == scenario && *of == system);
                Spread::of(all.map(|(.., trips)| figure(trips))).context("no round")
            };
            let (p50, name) = (of(|trips| trips.p50)?, system.name());
            outcome.figure(scenario, name, "p50_us", p50.median());
            outcome.figure(scenario, name, "p50_us_min", p50.min());
            outcome.figure(scenario, name, "p50_us_max", p50.max());
            outcome.figure(scenario, name, "p99_us", of(|trips| trips.p99)?.median());
            outcome.figure(scenario, name, "client_cpu_us", of(|trips| trips.cpu)?.median());
        }
    }
    let names = SYSTEMS.map(System::name);
    outcome.ratio("p50", "loopback", "p50_us", names);
    outcome.ratio("p99", "loopback", "p99_us", names);
    outcome.ratio("p50_one_core", "one_core", "p50_us", names);
    outcome.ratio("p99_one_core", "one_core", "p99_us", names);
    Ok(outcome)
}

fn measure(system: System, [here, there]: [Place<'_>; 2], count: u32) -> anyhow::Result<RoundTrips> {
    let mut server = Child::start("server", Part::PingServer(system), there)?;
    let mut client = Child::start("client", Part::PingClient(system), here)?;
    introduce(&mut client, &mut server, Ground::LOOPBACK)?;
    client.order(&Exchange { count })?;
    client.expect("the exchanges", GUARD)
}

pub(crate) async fn client(system: System, console: &mut Console) -> anyhow::Result<()> {
    let mut conversation = systems::client(system, console).await?;
    let Exchange { count } = console.hear().await?;
    for _ in 0..WARM_UP {
        ask(&mut conversation).await?;
    }
    let mut trips = Vec::with_capacity(count as usize);
    let used = cpu_seconds();
    for _ in 0..count {
        let sent = now();
        ask(&mut conversation).await?;
        trips.push((now() - sent) as f64 / 1e3);
    }
    let cpu = (cpu_seconds() - used) * 1e6 / f64::from(count);
    let trips = Spread::of(trips).context("no exchange")?;
    tell(&RoundTrips { p50: trips.median(), p99: trips.percentile(99), cpu });
    console.hear::<()>().await
}

/// Sends a message and waits for its answer.
async fn ask(conversation: &mut Conversation) -> anyhow::Result<()> {
    match conversation {
        Conversation::Steadfast(_, socket) => {
            socket.send(Bytes::from(vec![7; MESSAGE]), Labels::foreground()).await?;
            let answer = socket.recv().await?.context("no answer")?;
            check(answer.payload().map_or(0, Bytes::len))
        }
        Conversation::Tls(stream) => {
            let mut message = [7; MESSAGE];
            stream.write_all(&message).await?;
            stream.flush().await?;
            check(stream.read_exact(&mut message).await?)
        }
        Conversation::Lanes(_) => bail!("not measured here"),
    }
}

fn check(length: usize) -> anyhow::Result<()> {
    if length == MESSAGE { Ok(()) } else { bail!("an answer of {length} bytes") }
}

pub(crate) async fn server(system: System, console: &mut Console) -> anyhow::Result<()> {
    match systems::server(system, console).await? {
        Conversation::Steadfast(_endpoint, socket) => {
            while let Some(message) = socket.recv().await? {
                let payload = message.into_bytes().await?;
                socket.send(payload, Labels::foreground()).await?;
            }
            Ok(())
        }
        Conversation::Tls(mut stream) => {
            let mut message = [0; MESSAGE];
            loop {
                stream.read_exact(&mut message).await?;
                stream.write_all(&message).await?;
                stream.flush().await?;
            }
        }
        Conversation::Lanes(_) => bail!("not measured here"),
    }
}
