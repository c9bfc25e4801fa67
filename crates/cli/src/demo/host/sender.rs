//! Host a: sends the file in the background and an urgent message every 10 ms, and measures.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use steadfast::{
    Bytes, DownReason, Endpoint, Event, Events, Identity, Labels, MultiSocket, OrderRequest, Outcome,
    PathInfo, Receipt, Target,
};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::{Beat, URGENT_BYTES, endpoint, instant, next};
use crate::demo::protocol::{Nanos, Order, PathChange, Report, Sample, Sent, now, tell};
use crate::demo::tcp;

/// How long the paths over all networks may take before the run.
const PATHS_LIMIT: Duration = Duration::from_secs(10);

/// How long answers and receipts are waited for after the last message.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How often the round trip is told.
const PROGRESS: Duration = Duration::from_millis(100);

/// How much of the file is made and given to the library at once.
const PIECE: usize = 64 * 1024;

/// The state of an urgent message and all before it.
type Samples = Arc<Mutex<Vec<Sample>>>;

pub(super) async fn run(orders: &mpsc::Receiver<Order>) -> anyhow::Result<()> {
    let identity = Identity::generate()?;
    tell(&Report::Key(identity.fingerprint().to_string()));
    let Order::Connect { contact, loopback, networks, tcp } = next(orders)? else {
        bail!("expected to be told to connect")
    };
    let receiver: Target = contact.parse()?;
    let key = receiver.fingerprint.context("the receiver did not tell its key")?;
    let endpoint = endpoint(identity, loopback).trust(key).bind().await?;
    let events = endpoint.events();
    tokio::spawn(tell_paths(events));
    let socket = endpoint.connect(receiver).await?;
    await_paths(&endpoint, &networks).await?;
    let tcp = match tcp {
        Some(address) => {
            Some(tcp::connect(address).await.with_context(|| format!("cannot connect to {address}"))?)
        }
        None => None,
    };
    tell(&Report::Connected);
    let Order::Begin { at, until, file_bytes } = next(orders)? else { bail!("expected to be told to begin") };

    sleep_until(instant(at)).await;
    let file_done = Arc::new(AtomicBool::new(false));
    let beat = || Beat::new(at, until, Arc::clone(&file_done));
    let tcp = tcp.map(|stream| tokio::spawn(tcp::exchange(stream, beat())));
    let file = tokio::spawn(send_file(socket.clone(), file_bytes, at, Arc::clone(&file_done)));
    let mut sent = exchange(&socket, beat()).await?;
    let (sha256, file_outcome) = file.await??;
    sent.note(file_outcome);
    sent.sha256 = sha256;
    if let Some(tcp) = tcp {
        sent.tcp = tcp.await?;
    }
    sent.bytes_resent = endpoint.stats().bytes_resent;
    tell(&Report::Sent(sent));
    socket.finish()?;
    let _limit_passed = timeout(ANSWER_LIMIT, socket.close()).await;
    endpoint.close("the demo is over").await;
    Ok(())
}

impl Sent {
    fn note(&mut self, outcome: Option<Outcome>) {
        if outcome == Some(Outcome::Delivered) {
            self.receipts_delivered += 1;
        } else {
            self.receipts_other += 1;
        }
    }
}

/// Waits until there is a path over each of the networks.
async fn await_paths(endpoint: &Endpoint, networks: &[String]) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATHS_LIMIT;
    loop {
        let paths = endpoint.paths();
        let missing: Vec<_> =
            networks.iter().filter(|name| !paths.iter().any(|path| path.local_name == **name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("no path over {missing:?} within {PATHS_LIMIT:?}");
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Tells what happens to the paths from now on.
async fn tell_paths(mut events: Events) {
    while let Some(event) = events.next().await {
        let (PathInfo { local_name, .. }, change) = match event {
            Event::PathUp(path) => (path, PathChange::Up),
            Event::PathSuspect(path) => (path, PathChange::Suspect),
            Event::PathRecovered(path) => (path, PathChange::Recovered),
            Event::PathDown(path, DownReason::Silence) => (path, PathChange::Silent),
            Event::PathDown(path, _) => (path, PathChange::Down),
            _ => continue,
        };
        tell(&Report::Path { at: now(), network: local_name, change });
    }
}

/// Streams a file of pseudo-random bytes; returns its SHA-256 and its outcome, `None` if there was none in time.
async fn send_file(
    socket: MultiSocket,
    length: u64,
    seed: u64,
    done: Arc<AtomicBool>,
) -> anyhow::Result<(String, Option<Outcome>)> {
    let mut message = socket.begin_with(Labels::background(), OrderRequest::Default, Some(length)).await?;
    let (mut digest, mut random, mut left) = (Sha256::new(), seed | 1, length);
    while left > 0 {
        let mut piece = vec![0; PIECE.min(left as usize)];
        for word in piece.chunks_mut(8) {
            // Xorshift; it only has to look like a file that cannot be guessed.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            word.copy_from_slice(&random.to_le_bytes()[..word.len()]);
        }
        left -= piece.len() as u64;
        digest.update(&piece);
        message.write(piece).await?;
    }
    let receipt = message.finish().await?;
    let outcome = timeout(Duration::from_secs(60), receipt.outcome()).await.ok();
    done.store(true, Ordering::Release);
    Ok((HEXLOWER.encode(&digest.finalize()), outcome))
}

/// Sends an urgent message at each beat and takes the answers; returns when all are answered or the limit has passed.
async fn exchange(socket: &MultiSocket, mut beat: Beat) -> anyhow::Result<Sent> {
    let samples: Samples = Arc::default();
    let twice = Arc::new(AtomicU64::new(0));
    let answers = tokio::spawn(take_answers(socket.clone(), Arc::clone(&samples), Arc::clone(&twice)));
    let mut receipts: Vec<Receipt> = Vec::new();
    while let Some(sent) = beat.next().await {
        let mut message = vec![0; URGENT_BYTES];
        message[..8].copy_from_slice(&(receipts.len() as u64).to_be_bytes());
        message[8..16].copy_from_slice(&sent.to_be_bytes());
        lock(&samples).push(Sample { sent, answered: None });
        receipts.push(socket.send(Bytes::from(message), Labels::foreground()).await?);
    }
    let deadline = Instant::now() + ANSWER_LIMIT;
    while Instant::now() < deadline && lock(&samples).iter().any(|sample| sample.answered.is_none()) {
        sleep(Duration::from_millis(5)).await;
    }
    let mut sent = Sent::default();
    for receipt in receipts {
        sent.note(timeout_at(deadline, receipt.outcome()).await.ok());
    }
    answers.abort();
    sent.urgent.clone_from(&lock(&samples));
    sent.answers_twice = twice.load(Ordering::Relaxed);
    Ok(sent)
}

/// Notes each answer's time.
async fn take_answers(socket: MultiSocket, samples: Samples, twice: Arc<AtomicU64>) {
    let (mut seen, mut told) = (HashSet::new(), 0);
    while let Ok(Some(message)) = socket.recv().await {
        let time: Nanos = now();
        let Some(number) = message.payload().and_then(|bytes| bytes.first_chunk()) else { continue };
        let number = u64::from_be_bytes(*number);
        if !seen.insert(number) {
            twice.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let Some(sent) = lock(&samples).get_mut(number as usize).map(|sample| {
            sample.answered = Some(time);
            sample.sent
        }) else {
            continue;
        };
        if time > told + PROGRESS.as_nanos() as u64 {
            told = time;
            tell(&Report::RoundTrip(time - sent));
        }
    }
}

fn lock(samples: &Samples) -> std::sync::MutexGuard<'_, Vec<Sample>> {
    samples.lock().unwrap_or_else(PoisonError::into_inner)
}
