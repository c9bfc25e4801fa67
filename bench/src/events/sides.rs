//! The two processes: one publishes, and is answered; the other answers, or counts.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, bail};
use tokio::task::LocalSet;

use super::ground::{Meeting, Ready};
use super::hands::{Came, Ear, Mouth, Names, connect};
use super::{Asked, Carrier, Counted, Load, OPEN, PAYLOAD, Side};
use crate::child::{Console, tell};
use crate::spread::Spread;
use crate::usage::{Nanos, now};

const READY: Ready = Ready { ready: true };

/// The process that publishes.
pub(crate) async fn asker(side: Side, console: &mut Console) -> anyhow::Result<()> {
    let meeting = console.hear().await?;
    if let (Carrier::Unix, Meeting::Socket(socket)) = (side.carrier, &meeting) {
        return ask_bare(socket, console).await;
    }
    let acknowledged = side.carrier.acknowledges(side.load);
    let stores = side.carrier == Carrier::Jetstream;
    let (mouth, mut ear) = connect(&meeting, &Names::ASKER, stores).await?;
    tell(&READY);
    loop {
        let count: u32 = console.hear().await?;
        match side.load {
            Load::RoundTrip | Load::RoundTripSpread => {
                let own = mouth.clone();
                // In a task, as in a program that does other things, too.
                let trips = tokio::spawn(async move {
                    let asked = trips(&own, &mut ear, count, acknowledged).await;
                    (ear, asked)
                });
                let asked;
                (ear, asked) = trips.await?;
                tell(&asked?);
            }
            Load::Flood | Load::FloodAcknowledged if count == 0 => mouth.mark().await?,
            Load::Flood => tell(&flood(&mouth, count).await?),
            Load::FloodAcknowledged => tell(&flood_acknowledged(&mouth, count).await?),
        }
    }
}

/// The process that subscribes.
pub(crate) async fn answerer(side: Side, console: &mut Console) -> anyhow::Result<()> {
    let meeting = console.hear().await?;
    if let (Carrier::Unix, Meeting::Socket(socket)) = (side.carrier, &meeting) {
        return answer_bare(socket);
    }
    let acknowledged = side.carrier.acknowledges(side.load);
    let stores = side.carrier == Carrier::Jetstream;
    let (mouth, ear) = connect(&meeting, &Names::ANSWERER, stores).await?;
    tell(&READY);
    tokio::spawn(answer(mouth, ear, side.load, acknowledged)).await?
}

async fn answer(mouth: Mouth, mut ear: Ear, load: Load, acknowledged: bool) -> anyhow::Result<()> {
    let (mut came, mut last) = (0, 0);
    loop {
        match (ear.next().await?, load) {
            (_, Load::RoundTrip | Load::RoundTripSpread) => mouth.event(acknowledged).await?,
            (Came::Event, _) => {
                came += 1;
                last = now();
            }
            // Said again because the first one was late.
            (Came::Mark, _) if came == 0 => {}
            (Came::Mark, _) => {
                tell(&Counted { came, last });
                came = 0;
            }
        }
    }
}

fn asked((began, ended): (Nanos, Nanos), times: Vec<f64>) -> anyhow::Result<Asked> {
    let times = Spread::of(times).context("no round trip")?;
    Ok(Asked { began, ended, p50: times.median(), p99: times.percentile(99) })
}

async fn trips(mouth: &Mouth, ear: &mut Ear, count: u32, acknowledged: bool) -> anyhow::Result<Asked> {
    let mut times = Vec::with_capacity(count as usize);
    let began = now();
    for _ in 0..count {
        let sent = now();
        if acknowledged {
            let (published, came) = tokio::join!(mouth.event(true), ear.next());
            published?;
            came?;
        } else {
            mouth.event(false).await?;
            ear.next().await?;
        }
        times.push((now() - sent) as f64 / 1e3);
    }
    asked((began, now()), times)
}

async fn flood(mouth: &Mouth, count: u32) -> anyhow::Result<Asked> {
    let began = now();
    for _ in 0..count {
        mouth.event(false).await?;
    }
    asked((began, now()), vec![0.0])
}

async fn flood_acknowledged(mouth: &Mouth, count: u32) -> anyhow::Result<Asked> {
    let left = Rc::new(Cell::new(count));
    let tasks = LocalSet::new();
    let began = now();
    let all: Vec<_> = (0..OPEN)
        .map(|_| {
            let (mouth, left) = (mouth.clone(), Rc::clone(&left));
            tasks.spawn_local(async move {
                while let Some(rest) = left.get().checked_sub(1) {
                    left.set(rest);
                    mouth.event(true).await?;
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
    asked((began, now()), vec![0.0])
}

/// Nothing between: the least that two processes need.
async fn ask_bare(socket: &Path, console: &mut Console) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    tell(&READY);
    let mut bytes = [7; PAYLOAD];
    loop {
        let count: u32 = console.hear().await?;
        let mut times = Vec::with_capacity(count as usize);
        let began = now();
        for _ in 0..count {
            let sent = now();
            stream.write_all(&bytes)?;
            stream.read_exact(&mut bytes)?;
            times.push((now() - sent) as f64 / 1e3);
        }
        tell(&asked((began, now()), times)?);
    }
}

fn answer_bare(socket: &Path) -> anyhow::Result<()> {
    let listener = UnixListener::bind(socket)?;
    tell(&READY);
    let (mut stream, _) = listener.accept()?;
    let mut bytes = [0; PAYLOAD];
    loop {
        stream.read_exact(&mut bytes)?;
        if bytes != [7; PAYLOAD] {
            bail!("what came is not what was sent");
        }
        stream.write_all(&bytes)?;
    }
}
