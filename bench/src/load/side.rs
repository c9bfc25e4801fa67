//! The processes at both ends.

use std::future::pending;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::{AbortHandle, JoinError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::log::Log;
use super::port::{BulkOutput, Input, Kept, Output, Ports, Tasks};
use super::{Bulk, Order, Pace, Report, Setup};
use crate::child::{Console, tell};
use crate::systems::{self, System, mptcp};
use crate::usage::cpu_seconds;

/// How long unanswered messages are waited for at the end.
const DRAIN: Duration = Duration::from_secs(5);
/// A second answer to one of the last messages would come within this.
const LATE: Duration = Duration::from_millis(150);

pub(crate) async fn client(setup: Setup, console: &mut Console) -> anyhow::Result<()> {
    let conversation = systems::client(setup.system, console).await?;
    let (log, mut tasks) = (Log::default(), Tasks::new());
    let Ports { mut output, mut input, bulk, kept } =
        Ports::open(conversation, setup, false, &log, &mut tasks)?;
    let Order::Prepare(networks) = console.hear().await? else { bail!("expected to be told to prepare") };
    kept.await_paths(&networks).await?;
    // A connection is fully there, for both sides, once something was said and answered.
    output.send(&numbered(u64::MAX, setup.message)).await?;
    input.next(setup.message).await?;
    if setup.system == System::Mptcp {
        mptcp::await_joined((networks.len() - 1) * usize::from(setup.lanes())).await?;
    }
    tell(&Report::Ready);
    Side { setup, log, tasks, kept, small: Some((output, input)), bulk: Some(bulk), sending: Vec::new() }
        .run(console)
        .await
}

pub(crate) async fn server(setup: Setup, console: &mut Console) -> anyhow::Result<()> {
    let conversation = systems::server(setup.system, console).await?;
    let (log, mut tasks) = (Log::default(), Tasks::new());
    let Ports { output, input, bulk, kept } = Ports::open(conversation, setup, true, &log, &mut tasks)?;
    tasks.spawn(answer(input, output, setup.message));
    Side { setup, log, tasks, kept, small: None, bulk: Some(bulk), sending: Vec::new() }.run(console).await
}

/// A process that follows orders.
struct Side {
    setup: Setup,
    log: Log,
    tasks: Tasks,
    kept: Kept,
    /// Until they are used.
    small: Option<(Output, Input)>,
    bulk: Option<BulkOutput>,
    /// What ends when it is told to stop.
    sending: Vec<AbortHandle>,
}

impl Side {
    async fn run(mut self, console: &mut Console) -> anyhow::Result<()> {
        let used = cpu_seconds();
        loop {
            tokio::select! {
                Some(ended) = self.tasks.join_next() => outcome(ended)?,
                order = console.hear() => match order? {
                    Order::Stop => break,
                    order => self.follow(order)?,
                },
            }
        }
        for task in &self.sending {
            task.abort();
        }
        // What does not come is missing in what is found.
        let _late = timeout(DRAIN, self.all_answered()).await;
        let mut found = self.log.found();
        found.payload = self.kept.payload();
        found.cpu_seconds = cpu_seconds() - used;
        tell(&Report::Found(found));
        // The other side may still need answers.
        console.hear::<()>().await
    }

    fn follow(&mut self, order: Order) -> anyhow::Result<()> {
        let log = self.log.clone();
        let task = match order {
            Order::Exchange(pace) => {
                let (output, input) = self.small.take().context("small messages are under way already")?;
                let length = self.setup.message;
                match pace {
                    Pace::Every(period) => {
                        self.tasks.spawn(receive(input, length, log.clone()));
                        self.tasks.spawn(beat(output, length, period, log))
                    }
                    Pace::After { pause, lasts } => {
                        self.tasks.spawn(take_turns(output, input, length, [pause, lasts], log))
                    }
                }
            }
            Order::Bulk => {
                let bulk = self.take_bulk()?;
                self.tasks.spawn(bulk.flood())
            }
            Order::BulkMessages { outstanding, lasts } => {
                let Bulk::Messages(bytes) = self.setup.bulk else { bail!("there are no bulk messages here") };
                let bulk = self.take_bulk()?;
                self.tasks.spawn(async move {
                    let _open = bulk.send_messages(bytes, outstanding, Instant::now() + lasts, log).await?;
                    tell(&Report::BulkDone);
                    pending().await
                })
            }
            Order::Prepare(_) | Order::Stop => bail!("an order at the wrong time"),
        };
        self.sending.push(task);
        Ok(())
    }

    fn take_bulk(&mut self) -> anyhow::Result<BulkOutput> {
        self.bulk.take().context("bulk is under way already")
    }

    async fn all_answered(&mut self) {
        while !self.log.all_answered() {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(LATE).await;
    }
}

/// One that was aborted has ended well.
fn outcome(ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    match ended {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A message that says which it is.
fn numbered(number: u64, length: usize) -> Vec<u8> {
    let mut message = vec![0; length];
    message[..8].copy_from_slice(&number.to_be_bytes());
    message
}

fn number_of(message: &[u8]) -> u64 {
    message.first_chunk().map_or(u64::MAX, |number| u64::from_be_bytes(*number))
}

/// Sends at each beat.
async fn beat(mut output: Output, length: usize, period: Duration, log: Log) -> anyhow::Result<()> {
    let mut beat = interval(period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        beat.tick().await;
        output.send(&numbered(log.sent(), length)).await?;
    }
}

async fn receive(mut input: Input, length: usize, log: Log) -> anyhow::Result<()> {
    loop {
        log.answered(number_of(&input.next(length).await?));
    }
}

/// Sends once the answer before is there, after a pause.
async fn take_turns(
    mut output: Output,
    mut input: Input,
    length: usize,
    [pause, lasts]: [Duration; 2],
    log: Log,
) -> anyhow::Result<()> {
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        output.send(&numbered(log.sent(), length)).await?;
        log.answered(number_of(&input.next(length).await?));
        sleep(pause).await;
    }
    // What is dropped is closed, and the other side would take that for the end of everything.
    pending().await
}

/// Answers everything with itself.
async fn answer(mut input: Input, mut output: Output, length: usize) -> anyhow::Result<()> {
    loop {
        output.send(&input.next(length).await?).await?;
    }
}
