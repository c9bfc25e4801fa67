//! How a side sends and takes small messages and bulk, whatever the system.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use steadfast::{Bytes, Endpoint, Event, Labels, Message, MultiSocket, Outcome, Urgency};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::log::Log;
use super::{Bulk, Setup};
use crate::systems::{Conversation, lanes};

/// What the application hands over at once of an endless stream.
const PIECE: usize = 64 * 1024;
/// What it reads at once.
const READ: usize = 64 * 1024;
/// How long the paths over all networks may take.
const PATHS: Duration = Duration::from_secs(10);

/// What runs on a side; the first that ends with an error ends the process.
pub(super) type Tasks = JoinSet<anyhow::Result<()>>;

/// One side's ends of a conversation.
pub(super) struct Ports {
    pub(super) output: Output,
    pub(super) input: Input,
    pub(super) bulk: BulkOutput,
    pub(super) kept: Kept,
}

/// What lives as long as the conversation.
pub(super) enum Kept {
    Steadfast(Endpoint),
    Lanes { _parts: Box<dyn Any + Send> },
}

/// Where small messages go out.
pub(super) enum Output {
    Steadfast(MultiSocket),
    Lane(lanes::Output),
}

/// Where small messages come in.
pub(super) enum Input {
    Steadfast(UnboundedReceiver<Bytes>),
    /// With what has arrived of the next one, so that waiting for it can be cancelled.
    Lane(lanes::Input, Vec<u8>),
}

/// Where bulk goes out.
pub(super) enum BulkOutput {
    Steadfast(MultiSocket),
    Lane(lanes::Output, Acknowledged),
    /// Nowhere, or there already.
    None,
}

/// Permits come back as the other side acknowledges bulk messages.
pub(super) type Acknowledged = Arc<Semaphore>;

impl Ports {
    /// Takes a conversation apart; what comes in is noted from now on.
    pub(super) fn open(
        conversation: Conversation,
        setup: Setup,
        answers: bool,
        log: &Log,
        tasks: &mut Tasks,
    ) -> anyhow::Result<Self> {
        match conversation {
            Conversation::Steadfast(endpoint, socket) => {
                let (sender, messages) = unbounded_channel();
                tasks.spawn(sort(socket.clone(), sender, log.clone()));
                tasks.spawn(watch(endpoint.clone(), log.clone()));
                Ok(Self {
                    output: Output::Steadfast(socket.clone()),
                    input: Input::Steadfast(messages),
                    bulk: BulkOutput::Steadfast(socket),
                    kept: Kept::Steadfast(endpoint),
                })
            }
            Conversation::Lanes(all) => {
                let (all, parts) = all.into_parts();
                let mut all = all.into_iter();
                let lane = all.next().context("a conversation without a lane")?;
                let bulk = all.next().map(|lane| take_bulk(lane, setup.bulk, answers, log, tasks));
                Ok(Self {
                    output: Output::Lane(lane.output),
                    input: Input::Lane(lane.input, Vec::new()),
                    bulk: bulk.unwrap_or(BulkOutput::None),
                    kept: Kept::Lanes { _parts: parts },
                })
            }
            Conversation::Tls(_) => bail!("not measured here"),
        }
    }
}

impl Kept {
    /// Waits until there is a path over each of these networks.
    pub(super) async fn await_paths(&self, networks: &[String]) -> anyhow::Result<()> {
        let Self::Steadfast(endpoint) = self else { return Ok(()) };
        let deadline = Instant::now() + PATHS;
        let has = |name: &String| endpoint.paths().iter().any(|path| path.local_name == *name);
        while !networks.iter().all(has) {
            if Instant::now() > deadline {
                bail!("no path over each network within {PATHS:?}");
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Payload bytes sent for the first time, and again.
    pub(super) fn payload(&self) -> [u64; 2] {
        match self {
            Self::Steadfast(endpoint) => {
                let stats = endpoint.stats();
                [stats.bytes_sent, stats.bytes_resent]
            }
            Self::Lanes { .. } => [0; 2],
        }
    }
}

impl Output {
    pub(super) async fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Steadfast(socket) => {
                socket.send(Bytes::copy_from_slice(message), Labels::foreground()).await?;
            }
            Self::Lane(stream) => {
                stream.write_all(message).await?;
                stream.flush().await?;
            }
        }
        Ok(())
    }
}

impl Input {
    /// The next message, of so many bytes. Cancel safe.
    pub(super) async fn next(&mut self, length: usize) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Steadfast(messages) => {
                let message = messages.recv().await.context("the other side has finished")?;
                if message.len() != length {
                    bail!("a message of {} bytes instead of {length}", message.len());
                }
                Ok(message.into())
            }
            Self::Lane(stream, arrived) => {
                while arrived.len() < length {
                    if stream.read_buf(arrived).await? == 0 {
                        bail!("the other side has finished");
                    }
                }
                Ok(arrived.drain(..length).collect())
            }
        }
    }
}

impl BulkOutput {
    /// Sends without an end.
    pub(super) async fn flood(self) -> anyhow::Result<()> {
        let piece = Bytes::from(vec![0xa5; PIECE]);
        match self {
            Self::Steadfast(socket) => {
                let mut writer = socket.begin(Labels::background()).await?;
                loop {
                    writer.write(piece.clone()).await?;
                }
            }
            Self::Lane(mut stream, _) => loop {
                stream.write_all(&piece).await?;
            },
            Self::None => bail!("there is no lane for bulk"),
        }
    }

    /// Begins messages of so many bytes until a moment, each once one of so many before it is acknowledged, and waits
    /// until all are. What is dropped is closed: so it gives itself back.
    pub(super) async fn send_messages(
        mut self,
        bytes: usize,
        outstanding: usize,
        until: Instant,
        log: Log,
    ) -> anyhow::Result<Self> {
        let message = Bytes::from(vec![0xa5; bytes]);
        let free = match &self {
            Self::Lane(_, acknowledged) => Arc::clone(acknowledged),
            _ => Arc::new(Semaphore::new(0)),
        };
        free.add_permits(outstanding);
        while Instant::now() < until {
            let permit = Arc::clone(&free).acquire_owned().await?;
            match &mut self {
                Self::Steadfast(socket) => {
                    let receipt = socket.send(message.clone(), Labels::background()).await?;
                    let log = log.clone();
                    tokio::spawn(async move {
                        if receipt.outcome().await == Outcome::Delivered {
                            log.bulk_done();
                        }
                        drop(permit);
                    });
                }
                Self::Lane(stream, _) => {
                    permit.forget();
                    stream.write_all(&message).await?;
                    stream.flush().await?;
                }
                Self::None => bail!("there is no lane for bulk"),
            }
        }
        let _all = free.acquire_many(outstanding as u32).await?;
        Ok(self)
    }
}

/// Small messages to whoever waits for them, bulk into the log.
async fn sort(socket: MultiSocket, messages: UnboundedSender<Bytes>, log: Log) -> anyhow::Result<()> {
    while let Some(message) = socket.recv().await? {
        match message.labels.urgency {
            Urgency::Foreground => {
                let payload = message.payload().context("a small message comes in pieces")?;
                let _nobody_waits = messages.send(payload.clone());
            }
            Urgency::Background => {
                let log = log.clone();
                tokio::spawn(read_bulk(message, log));
            }
        }
    }
    bail!("the other side has finished");
}

/// Its end is that of the conversation, which shows elsewhere.
async fn read_bulk(mut message: Message, log: Log) {
    while let Ok(Some(chunk)) = message.read_chunk().await {
        log.arrived(chunk.len());
    }
}

/// Notes suspicions.
async fn watch(endpoint: Endpoint, log: Log) -> anyhow::Result<()> {
    let mut events = endpoint.events();
    while let Some(event) = events.next().await {
        if let Event::PathSuspect(path) = event {
            log.suspected(path.local_name);
        }
    }
    bail!("the endpoint was closed");
}

/// Reads a lane's bulk. Where that is messages, one side answers each with a byte, and the other counts these.
fn take_bulk(lane: lanes::Lane, bulk: Bulk, answers: bool, log: &Log, tasks: &mut Tasks) -> BulkOutput {
    let lanes::Lane { mut input, mut output } = lane;
    let log = log.clone();
    let acknowledged = Acknowledged::new(Semaphore::new(0));
    let permits = Arc::clone(&acknowledged);
    let mut buffer = vec![0; READ];
    match bulk {
        Bulk::Messages(bytes) if answers => {
            tasks.spawn(async move {
                let mut open = 0;
                loop {
                    let length = input.read(&mut buffer).await?;
                    if length == 0 {
                        bail!("the other side has finished");
                    }
                    log.arrived(length);
                    open += length;
                    while open >= bytes {
                        open -= bytes;
                        output.write_u8(1).await?;
                        output.flush().await?;
                    }
                }
            });
            return BulkOutput::None;
        }
        Bulk::Messages(_) => tasks.spawn(async move {
            loop {
                input.read_u8().await?;
                log.bulk_done();
                permits.add_permits(1);
            }
        }),
        Bulk::Endless | Bulk::None => tasks.spawn(async move {
            loop {
                match input.read(&mut buffer).await? {
                    0 => return Ok(()),
                    length => log.arrived(length),
                }
            }
        }),
    };
    BulkOutput::Lane(output, acknowledged)
}
