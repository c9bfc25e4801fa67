//! What it costs to keep messages on a disk: each forced to it alone, or those that wait together.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use steadfast::{Bytes, Identity, Labels, StoreSync};

use crate::child::{Child, Console, Place, tell};
use crate::outcome::Outcome;
use crate::spread::Spread;
use crate::systems::{Connect, Connected, Ground, Keys, Listen, Listening, endpoint, introduce};
use crate::{Effort, Part};

const MESSAGE: usize = 1024;
/// Messages without an outcome.
const OPEN: usize = 256;
const GUARD: Duration = Duration::from_secs(300);
const SCENARIOS: [(&str, StoreSync); 2] = [("each", StoreSync::Each), ("grouped", StoreSync::Grouped)];
const SYSTEMS: [&str; 3] = ["steadfast", "memory", "append"];

/// To the client: so many messages, with a store in this directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    count: u32,
    each: bool,
    store: Option<PathBuf>,
}

/// What the client did: how long it took, and how often how many bytes were forced to the disk meanwhile.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Done {
    seconds: f64,
    batches: u64,
    bytes: u64,
}

pub(crate) fn run(effort: Effort) -> anyhow::Result<Outcome> {
    let (rounds, [each, grouped]) = effort.of((3, [300, 5_000]), (7, [2_000, 50_000]));
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/durable-{}", std::process::id()));
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let _place = Gone(&directory);
    let mut outcome = Outcome::new("durable");
    outcome.condition("rounds", rounds);
    outcome.condition("messages", format!("{each} (each), {grouped} (grouped)"));
    outcome.condition("message_bytes", MESSAGE);
    outcome.condition("outstanding", OPEN);
    outcome.condition(
        "runtime",
        "tokio, current thread; sender and receiver are a process each, on the loopback",
    );
    outcome.condition("encryption", "TLS 1.3");
    outcome.condition("receiver", "without a store, so that one process alone uses the disk");
    outcome.condition(
        "counts",
        "steadfast, memory: messages with the outcome `delivered`; append: the same bytes in as many parts as steadfast's \
         store wrote in the same round, each appended to a new file and forced to the disk with fdatasync",
    );
    outcome.condition("directory", "bench/target");
    let mut found: Vec<(&str, &str, f64)> = Vec::new();
    for round in 1..=rounds {
        for (scenario, sync) in SCENARIOS {
            let each_alone = sync == StoreSync::Each;
            let count = if each_alone { each } else { grouped };
            let store = directory.join(format!("{scenario}-{round}"));
            let kept = measure(Setup { count, each: each_alone, store: Some(store.clone()) })?;
            let memory = measure(Setup { count, each: each_alone, store: None })?;
            let bare = append(&directory.join("bare"), kept)?;
            fs::remove_dir_all(&store)?;
            for (system, seconds) in SYSTEMS.into_iter().zip([kept.seconds, memory.seconds, bare]) {
                let rate = f64::from(count) / seconds;
                eprintln!(
                    "round {round} of {rounds}: {scenario} {system:10} {rate:8.0} messages/s; {} parts of {} bytes",
                    kept.batches,
                    kept.bytes / kept.batches.max(1)
                );
                found.push((scenario, system, rate));
            }
            let part = f64::from(count) / kept.batches.max(1) as f64;
            found.push((scenario, "messages_a_part", part));
        }
    }
    for (scenario, _) in SCENARIOS {
        let of = |system: &str| {
            let all = found.iter().filter(|(place, of, _)| *place == scenario && *of == system);
            Spread::of(all.map(|(.., rate)| *rate)).context("no round")
        };
        for system in SYSTEMS {
            let rates = of(system)?;
            outcome.figure(scenario, system, "messages_per_second", rates.median());
            outcome.figure(scenario, system, "messages_per_second_min", rates.min());
            outcome.figure(scenario, system, "messages_per_second_max", rates.max());
        }
        outcome.figure(scenario, "steadfast", "messages_a_part", of("messages_a_part")?.median());
        // Of pairs that follow each other: a disk has its moods.
        let rates = |system: &str| -> Vec<f64> {
            let all = found.iter().filter(|(place, of, _)| *place == scenario && *of == system);
            all.map(|(.., rate)| *rate).collect()
        };
        let ratios = rates("steadfast").into_iter().zip(rates("append")).map(|(kept, bare)| kept / bare);
        let ratio = Spread::of(ratios).context("no round")?.median();
        outcome.add_ratio(if scenario == "each" { "append_each" } else { "append" }, ratio);
    }
    Ok(outcome)
}

/// A directory that goes with the benchmark.
struct Gone<'a>(&'a Path);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(self.0);
    }
}

/// Seconds for the same bytes in as many parts.
fn append(path: &Path, like: Done) -> anyhow::Result<f64> {
    let part = vec![7; (like.bytes / like.batches.max(1)) as usize];
    let mut file = OpenOptions::new().create_new(true).append(true).open(path)?;
    let begun = Instant::now();
    for _ in 0..like.batches {
        file.write_all(&part)?;
        file.sync_data()?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(seconds)
}

fn measure(setup: Setup) -> anyhow::Result<Done> {
    let [here, there] = Place::two_cores();
    let mut server = Child::start("server", Part::DurableServer, there)?;
    let mut client = Child::start("client", Part::DurableClient, here)?;
    client.order(&setup)?;
    introduce(&mut client, &mut server, Ground::LOOPBACK)?;
    client.expect("the messages", GUARD)
}

pub(crate) async fn client(console: &mut Console) -> anyhow::Result<()> {
    let Setup { count, each, store } = console.hear().await?;
    let identity = Identity::generate()?;
    tell(&Keys { keys: vec![identity.fingerprint().to_string()] });
    let Connect { contact, .. } = console.hear().await?;
    let mut builder = endpoint::builder(identity, true);
    if let Some(store) = store {
        builder = builder.store(store).store_sync(if each { StoreSync::Each } else { StoreSync::Grouped });
    }
    let endpoint = builder.bind().await?;
    let socket = endpoint.connect(contact).await?;
    tell(&Connected);
    let payload = Bytes::from(vec![7; MESSAGE]);
    let before = endpoint.store_written().unwrap_or_default();
    let begun = Instant::now();
    let mut open = VecDeque::with_capacity(OPEN);
    for _ in 0..count {
        if open.len() == OPEN {
            settle(open.pop_front()).await?;
        }
        open.push_back(socket.send(payload.clone(), Labels::foreground()).await?);
    }
    while !open.is_empty() {
        settle(open.pop_front()).await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let after = endpoint.store_written().unwrap_or_default();
    tell(&Done { seconds, batches: after.batches - before.batches, bytes: after.bytes - before.bytes });
    console.hear::<()>().await
}

async fn settle(receipt: Option<steadfast::Receipt>) -> anyhow::Result<()> {
    let outcome = receipt.context("nothing is open")?.outcome().await;
    anyhow::ensure!(outcome == steadfast::Outcome::Delivered, "a message was {outcome:?}");
    Ok(())
}

pub(crate) async fn server(console: &mut Console) -> anyhow::Result<()> {
    let Listen { keys, .. } = console.hear().await?;
    let endpoint = endpoint::server(&keys, true).await?;
    tell(&Listening { contact: endpoint.contact(), certificate: Vec::new() });
    let socket = endpoint.accept().await.context("closed")?;
    while socket.recv().await?.is_some() {}
    Ok(())
}
