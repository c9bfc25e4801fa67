//! Long calls on the loopback: what they carry.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use steadfast::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use crate::child::{Child, Console, Place, tell};
use crate::only::Only;
use crate::outcome::Outcome;
use crate::spread::Spread;
use crate::systems::calls::{Caller, Callers, Client, SHORT};
use crate::systems::{Ground, calls, introduce};
use crate::usage::{Nanos, cpu_seconds, now};
use crate::{Effort, Part};

const SYSTEMS: [Callers; 5] =
    [Callers::Homa, Callers::HomaPlain, Callers::Tcp, Callers::Quinn, Callers::QuinnLong];
/// Scenarios, how many calls are open at a time, and bytes of a request.
const SCENARIOS: [(&str, (u32, u32)); 4] = [
    ("one_500kb", (1, 500_000)),
    ("one_1mb", (1, 1_000_000)),
    ("eight_500kb", (8, 500_000)),
    ("eight_1mb", (8, 1_000_000)),
];
/// What is left out at the beginning.
const WARM_UP: Nanos = 200_000_000;
/// How much longer than planned it may take.
const GUARD: Duration = Duration::from_secs(30);

/// To the client: call for so long.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Make {
    seconds: f64,
    open: u32,
    length: u32,
}

/// What was carried.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Carried {
    gbps: f64,
    /// Of the client, for 10^9 bytes.
    cpu: f64,
}

pub(crate) fn run(effort: Effort, only: &Only) -> anyhow::Result<Outcome> {
    let (scenarios, systems) =
        only.select_named(&SCENARIOS, &SYSTEMS.map(|system| (system.name(), system)))?;
    let (rounds, seconds) = effort.of((3, 0.4), (5, 0.8));
    let mut outcome = Outcome::new("rpc-stream");
    outcome.condition("rounds", rounds);
    outcome.condition("seconds", seconds);
    outcome.condition("message_bytes", "500,000 or 1,000,000, answered with 100 when all of it is there");
    outcome.condition("outstanding", "one: 1, eight: 8");
    outcome.condition("runtime", "tokio, current thread");
    outcome.condition(
        "processes",
        "client and server, one thread and, where there are two, one core each; loopback",
    );
    outcome.condition(
        "encryption",
        "homa: sealed packets, keys agreed on over TLS 1.3; quinn, quinn_long: TLS 1.3, rustls with ring, AES-128-GCM; homa_plain, tcp: none",
    );
    outcome.condition(
        "settings",
        "homa, homa_plain: `Rpc` and a handler, defaults; tcp: one connection, a length before each message; quinn 0.11: one \
         connection, a stream for each call, windows that are never full, socket buffers of 8 MiB, cubic, packets of its own 1,452 bytes with \
         segmentation by the kernel; quinn_long: packets of 65,000 bytes, as homa has them on the loopback",
    );
    outcome.condition("congestion_control", crate::systems::CONGESTION);
    let mut found: Vec<(&str, Callers, Carried)> = Vec::new();
    for round in 1..=rounds {
        for (scenario, (open, length)) in &scenarios {
            for (name, system) in &systems {
                let make = Make { seconds, open: *open, length: *length };
                let carried = measure(*system, make).with_context(|| format!("{scenario}: {name}"))?;
                eprintln!("round {round} of {rounds}: {scenario:12} {name:11} {:6.2} Gbit/s", carried.gbps);
                found.push((scenario, *system, carried));
            }
        }
    }
    for (scenario, _) in &scenarios {
        for (name, system) in &systems {
            let of = |figure: fn(&Carried) -> f64| {
                let all = found.iter().filter(|(place, of, _)| place == scenario && of == system);
                Spread::of(all.map(|(.., carried)| figure(carried))).context("no round")
            };
            let gbps = of(|carried| carried.gbps)?;
            outcome.figure(scenario, name, "gbps", gbps.median());
            outcome.figure(scenario, name, "gbps_min", gbps.min());
            outcome.figure(scenario, name, "gbps_max", gbps.max());
            outcome.figure(scenario, name, "client_cpu_seconds_per_gb", of(|carried| carried.cpu)?.median());
        }
        outcome.ratio(&format!("quinn_{scenario}"), scenario, "gbps", ["homa", "quinn"]);
        outcome.ratio(&format!("quinn_long_{scenario}"), scenario, "gbps", ["homa", "quinn_long"]);
        outcome.ratio(&format!("tcp_{scenario}"), scenario, "gbps", ["homa_plain", "tcp"]);
    }
    Ok(outcome)
}

fn measure(system: Callers, make: Make) -> anyhow::Result<Carried> {
    let [here, there] = Place::two_cores();
    let mut server = Child::start("server", Part::CallServer(system), there)?;
    let mut client = Child::start("client", Part::LongCallClient(system), here)?;
    introduce(&mut client, &mut server, Ground::LOOPBACK)?;
    client.order(&make)?;
    client.expect("the calls", GUARD)
}

pub(crate) async fn client(system: Callers, console: &mut Console) -> anyhow::Result<()> {
    let mut client = calls::client(system, console).await?;
    let make: Make = console.hear().await?;
    let meter = Rc::new(Meter::new(make));
    match (client.caller(), &mut client) {
        (Some(caller), _) => over_calls(&caller, make, &meter).await?,
        (None, Client::Tcp(stream)) => over_tcp(stream, make, &meter).await?,
        _ => bail!("not measured here"),
    }
    tell(&meter.carried().context("nothing was carried")?);
    console.hear::<()>().await
}

/// From as many tasks as calls may be open.
async fn over_calls(caller: &Caller, make: Make, meter: &Rc<Meter>) -> anyhow::Result<()> {
    let body = Bytes::from(vec![0xa5; make.length as usize]);
    let tasks = LocalSet::new();
    let all: Vec<_> = (0..make.open)
        .map(|_| {
            let (mut caller, meter, body) = (caller.clone(), Rc::clone(meter), body.clone());
            tasks.spawn_local(async move {
                while !meter.is_over() {
                    caller.call(body.clone()).await?;
                    meter.note(body.len());
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
            Ok(())
        })
        .await
}

/// Messages behind each other; as many as may be open without an answer.
async fn over_tcp(stream: &mut TcpStream, make: Make, meter: &Meter) -> anyhow::Result<()> {
    let mut message = vec![0xa5; make.length as usize];
    message[..4].copy_from_slice(&make.length.to_be_bytes());
    let room = Semaphore::new(make.open as usize);
    let (mut input, mut output) = stream.split();
    let writing = async {
        loop {
            room.acquire().await?.forget();
            output.write_all(&message).await?;
        }
    };
    let reading = async {
        let mut answer = [0; SHORT];
        while !meter.is_over() {
            input.read_exact(&mut answer).await?;
            meter.note(message.len());
            room.add_permits(1);
        }
        Ok(())
    };
    tokio::select! {
        written = writing => written,
        read = reading => read,
    }
}

/// Counts what was answered, after the warm-up.
struct Meter {
    until: Nanos,
    bytes: Cell<u64>,
    /// When it was warm, how many bytes there were then, and what the processor had done.
    warm: Cell<Option<(Nanos, u64, f64)>>,
    warm_at: Nanos,
    last: Cell<(Nanos, f64)>,
}

impl Meter {
    fn new(make: Make) -> Self {
        let warm_at = now() + WARM_UP;
        let until = warm_at + (make.seconds * 1e9) as Nanos;
        Self { until, bytes: Cell::new(0), warm: Cell::new(None), warm_at, last: Cell::new((0, 0.0)) }
    }

    fn is_over(&self) -> bool {
        self.last.get().0 >= self.until
    }

    fn note(&self, length: usize) {
        let at = now();
        self.bytes.set(self.bytes.get() + length as u64);
        self.last.set((at, self.last.get().1));
        if at >= self.until {
            self.last.set((at, cpu_seconds()));
        } else if at >= self.warm_at && self.warm.get().is_none() {
            self.warm.set(Some((at, self.bytes.get(), cpu_seconds())));
        }
    }

    fn carried(&self) -> Option<Carried> {
        let (since, before, used) = self.warm.get()?;
        let (at, cpu) = self.last.get();
        let bytes = (self.bytes.get() - before) as f64;
        Some(Carried { gbps: bytes * 8.0 / (at - since).max(1) as f64, cpu: (cpu - used) / (bytes / 1e9) })
    }
}
