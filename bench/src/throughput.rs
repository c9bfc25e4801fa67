//! One long stream over one connection on the loopback.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use steadfast::{Bytes, Labels, MultiSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::child::{Child, Console, Place, tell};
use crate::outcome::Outcome;
use crate::spread::Spread;
use crate::systems::{CONGESTION, Conversation, Ground, System, introduce};
use crate::usage::{Nanos, cpu_seconds, now};
use crate::{Effort, Part, systems};

const SYSTEMS: [System; 2] = [System::Steadfast, System::TcpTls];
/// What the application writes at once.
const PIECE: usize = 64 * 1024;
/// What the application of the other system reads at most at once; Steadfast gives what it has.
const READ: usize = 256 * 1024;
/// What is left out at the beginning: windows open, and record sizes find their place.
const WARM_UP: Nanos = 300_000_000;
/// How much longer than planned a stream may take.
const GUARD: Duration = Duration::from_secs(30);

/// To the client: stream for so long.
#[derive(Debug, Serialize, Deserialize)]
struct Stream {
    seconds: f64,
}

/// What a process did.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Moved {
    bytes: u64,
    /// From the beginning to the end.
    cpu_seconds: f64,
    /// Bits a second after the warm-up; of a server.
    gbps: f64,
}

pub(crate) fn run(effort: Effort) -> anyhow::Result<Outcome> {
    let (rounds, seconds) = effort.of((5, 0.7), (15, 1.2));
    let mut outcome = Outcome::new("throughput");
    outcome.condition("rounds", rounds);
    outcome.condition("seconds", seconds);
    outcome.condition("runtime", "tokio, current thread");
    outcome.condition("processes", "client and server, one thread and, where there are two, one core each");
    outcome.condition("outstanding", "one stream, written in pieces of 64 KiB as fast as they are taken");
    outcome.condition("encryption", "TLS 1.3, rustls with ring, AES-128-GCM, both systems");
    outcome.condition("congestion_control", CONGESTION);
    let mut found: Vec<(System, f64, f64)> = Vec::new();
    for round in 1..=rounds {
        for system in SYSTEMS {
            let (gbps, cost) = measure(system, seconds)?;
            eprintln!("round {round} of {rounds}: {:10} {gbps:6.2} Gbit/s", system.name());
            found.push((system, gbps, cost));
        }
    }
    for system in SYSTEMS {
        let of = found.iter().filter(|(of, ..)| *of == system);
        let speeds = Spread::of(of.clone().map(|(_, gbps, _)| *gbps)).context("no round")?;
        let costs = Spread::of(of.map(|(.., cost)| *cost)).context("no round")?;
        outcome.figure("loopback", system.name(), "gbps", speeds.median());
        outcome.figure("loopback", system.name(), "gbps_min", speeds.min());
        outcome.figure("loopback", system.name(), "gbps_max", speeds.max());
        outcome.figure("loopback", system.name(), "cpu_seconds_per_gb", costs.median());
    }
    let names = SYSTEMS.map(System::name);
    outcome.ratio("throughput", "loopback", "gbps", names);
    outcome.ratio("cpu_seconds_per_gb", "loopback", "cpu_seconds_per_gb", names);
    Ok(outcome)
}

/// Gigabits a second, and processor seconds of both processes for 10^9 bytes.
fn measure(system: System, seconds: f64) -> anyhow::Result<(f64, f64)> {
    let [here, there] = Place::two_cores();
    let mut server = Child::start("server", Part::StreamServer(system), there)?;
    let mut client = Child::start("client", Part::StreamClient(system), here)?;
    introduce(&mut client, &mut server, Ground::LOOPBACK)?;
    client.order(&Stream { seconds })?;
    let limit = GUARD + Duration::from_secs_f64(seconds);
    let received: Moved = server.expect("the stream", limit)?;
    let sent: Moved = client.expect("the stream", limit)?;
    if received.bytes != sent.bytes {
        bail!("{} bytes were sent and {} received", sent.bytes, received.bytes);
    }
    Ok((received.gbps, (received.cpu_seconds + sent.cpu_seconds) / (received.bytes as f64 / 1e9)))
}

pub(crate) async fn client(system: System, console: &mut Console) -> anyhow::Result<()> {
    let conversation = systems::client(system, console).await?;
    let Stream { seconds } = console.hear().await?;
    let used = cpu_seconds();
    let until = now() + (seconds * 1e9) as Nanos + WARM_UP;
    let piece = Bytes::from(vec![0xa5; PIECE]);
    let mut bytes = 0;
    match conversation {
        Conversation::Steadfast(_endpoint, socket) => {
            let mut writer = socket.begin(Labels::background()).await?;
            while now() < until {
                writer.write(piece.clone()).await?;
                bytes += piece.len() as u64;
            }
            writer.finish().await?.outcome().await;
            tell(&Moved { bytes, cpu_seconds: cpu_seconds() - used, gbps: 0.0 });
            console.hear::<()>().await
        }
        Conversation::Tls(mut stream) => {
            while now() < until {
                stream.write_all(&piece).await?;
                bytes += piece.len() as u64;
            }
            stream.shutdown().await?;
            tell(&Moved { bytes, cpu_seconds: cpu_seconds() - used, gbps: 0.0 });
            console.hear::<()>().await
        }
        Conversation::Lanes(_) => bail!("not measured here"),
    }
}

pub(crate) async fn server(system: System, console: &mut Console) -> anyhow::Result<()> {
    let conversation = systems::server(system, console).await?;
    let mut meter = Meter::default();
    match &conversation {
        Conversation::Steadfast(_, socket) => drain_messages(socket, &mut meter).await?,
        Conversation::Tls(_) => {}
        Conversation::Lanes(_) => bail!("not measured here"),
    }
    if let Conversation::Tls(stream) = conversation {
        drain_bytes(*stream, &mut meter).await?;
    }
    tell(&meter.moved());
    console.hear::<()>().await
}

async fn drain_messages(socket: &MultiSocket, meter: &mut Meter) -> anyhow::Result<()> {
    let mut message = socket.recv().await?.context("nothing came")?;
    while let Some(chunk) = message.read_chunk().await? {
        meter.note(chunk.len());
    }
    Ok(())
}

async fn drain_bytes(mut stream: TlsStream<TcpStream>, meter: &mut Meter) -> anyhow::Result<()> {
    let mut buffer = vec![0; READ];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => meter.note(length),
        }
    }
}

/// Counts what comes, after the warm-up.
#[derive(Debug, Default)]
struct Meter {
    began: Option<(Nanos, f64)>,
    bytes: u64,
    warm: Option<(Nanos, u64)>,
    last: Nanos,
}

impl Meter {
    fn note(&mut self, length: usize) {
        self.last = now();
        self.bytes += length as u64;
        let time = self.last;
        let (began, _) = *self.began.get_or_insert_with(|| (time, cpu_seconds()));
        if self.last - began >= WARM_UP {
            self.warm.get_or_insert((self.last, self.bytes));
        }
    }

    fn moved(&self) -> Moved {
        let used = self.began.map_or(0.0, |(_, used)| cpu_seconds() - used);
        let gbps = self.warm.map_or(0.0, |(since, before)| {
            (self.bytes - before) as f64 * 8.0 / (self.last - since).max(1) as f64
        });
        Moved { bytes: self.bytes, cpu_seconds: used, gbps }
    }
}
