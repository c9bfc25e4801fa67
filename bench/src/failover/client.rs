//! The client of a round: sends at each beat, takes the answers, and measures.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use steadfast::{Bytes, Endpoint, Labels, MultiSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::lab::NETWORKS;
use super::{DRAIN, MESSAGE, Order, PERIOD, Report, Round, mptcp};
use crate::child::{Console, tell};
use crate::systems::{self, Conversation, System};
use crate::usage::{Nanos, cpu_seconds, now};

/// How long the paths over all networks may take.
const PATHS: Duration = Duration::from_secs(10);
/// How often the newest answer is reported.
const PROGRESS: Nanos = 20_000_000;

pub(crate) async fn client(system: System, console: &mut Console) -> anyhow::Result<()> {
    let conversation = systems::client(system, console).await?;
    let Order::Begin = console.hear().await? else { bail!("expected to be told to begin") };
    let (endpoint, mut output, mut input) = match conversation {
        Conversation::Steadfast(endpoint, socket) => {
            await_paths(&endpoint).await?;
            (Some(endpoint), Output::Steadfast(socket.clone()), Input::Steadfast(socket))
        }
        Conversation::Plain(stream, _) => {
            let (input, output) = stream.into_split();
            (None, Output::Plain(output), Input::Plain(input, Vec::new()))
        }
        Conversation::Tls(_) => bail!("not measured here"),
    };
    // A connection is fully there, for both sides, once something was said and answered.
    output.send(&[0; MESSAGE]).await?;
    input.next().await?;
    if system == System::Mptcp {
        mptcp::await_second_subflow().await?;
    }
    let used = cpu_seconds();
    let log = Rc::new(RefCell::new(Log::default()));
    tell(&Report::Began);
    let stopped = tokio::select! {
        result = send(&mut output, &log) => result.map(|()| false),
        result = receive(&mut input, &log) => result.map(|()| false),
        order = console.hear() => order.map(|order| matches!(order, Order::Stop)),
    };
    if !stopped? {
        bail!("the conversation ended early");
    }
    let _late = timeout(DRAIN, async {
        tokio::select! {
            result = receive(&mut input, &log) => result,
            () = all_answered(&log) => Ok(()),
        }
    })
    .await;
    tell(&Report::Done(log.borrow().round(cpu_seconds() - used)));
    drop(endpoint);
    console.hear::<()>().await
}

/// The sending half of a conversation.
enum Output {
    Steadfast(MultiSocket),
    Plain(OwnedWriteHalf),
}

impl Output {
    async fn send(&mut self, message: &[u8; MESSAGE]) -> anyhow::Result<()> {
        match self {
            Self::Steadfast(socket) => {
                socket.send(Bytes::copy_from_slice(message), Labels::foreground()).await?;
            }
            Self::Plain(stream) => stream.write_all(message).await?,
        }
        Ok(())
    }
}

/// The receiving half.
enum Input {
    Steadfast(MultiSocket),
    /// With what has arrived of the next answer, so that waiting for it can be cancelled.
    Plain(OwnedReadHalf, Vec<u8>),
}

impl Input {
    /// The next answer. Cancel safe.
    async fn next(&mut self) -> anyhow::Result<[u8; MESSAGE]> {
        let mut answer = [0; MESSAGE];
        match self {
            Self::Steadfast(socket) => {
                let message = socket.recv().await?.context("the server has finished")?;
                let payload = message.payload().filter(|payload| payload.len() == MESSAGE);
                answer.copy_from_slice(payload.context("an answer of another length")?);
            }
            Self::Plain(stream, arrived) => {
                while arrived.len() < MESSAGE {
                    if stream.read_buf(arrived).await? == 0 {
                        bail!("the server has finished");
                    }
                }
                answer.copy_from_slice(&arrived[..MESSAGE]);
                arrived.drain(..MESSAGE);
            }
        }
        Ok(answer)
    }
}

/// What was sent and answered.
#[derive(Debug, Default)]
struct Log {
    /// When each message was sent.
    sent: Vec<Nanos>,
    /// How often each was answered.
    answers: Vec<u32>,
    last: Option<Nanos>,
    longest_gap: Nanos,
    longest_wait: Nanos,
    told: Nanos,
}

impl Log {
    fn answered(&mut self, number: usize) {
        let time = now();
        let (Some(sent), Some(answers)) = (self.sent.get(number).copied(), self.answers.get_mut(number))
        else {
            return;
        };
        *answers += 1;
        if *answers > 1 {
            return;
        }
        self.longest_wait = self.longest_wait.max(time - sent);
        if let Some(last) = self.last.replace(time) {
            self.longest_gap = self.longest_gap.max(time - last);
        }
        if time - self.told > PROGRESS {
            self.told = time;
            tell(&Report::Answered(sent));
        }
    }

    fn round(&self, cpu_seconds: f64) -> Round {
        Round {
            longest_gap: self.longest_gap,
            longest_wait: self.longest_wait,
            sent: self.sent.len() as u64,
            lost: self.answers.iter().filter(|answers| **answers == 0).count() as u64,
            duplicated: self.answers.iter().map(|answers| u64::from(answers.saturating_sub(1))).sum(),
            cpu_seconds,
        }
    }
}

async fn send(output: &mut Output, log: &RefCell<Log>) -> anyhow::Result<()> {
    let mut beat = interval(PERIOD);
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        beat.tick().await;
        let mut message = [0; MESSAGE];
        let number = {
            let mut log = log.borrow_mut();
            log.sent.push(now());
            log.answers.push(0);
            log.sent.len() as u64 - 1
        };
        message[..8].copy_from_slice(&number.to_be_bytes());
        output.send(&message).await?;
    }
}

async fn receive(input: &mut Input, log: &RefCell<Log>) -> anyhow::Result<()> {
    loop {
        let answer = input.next().await?;
        let number = answer.first_chunk().map_or(u64::MAX, |number| u64::from_be_bytes(*number));
        log.borrow_mut().answered(usize::try_from(number)?);
    }
}

async fn all_answered(log: &RefCell<Log>) {
    while log.borrow().answers.contains(&0) {
        sleep(Duration::from_millis(5)).await;
    }
    // A second answer to one of the last messages would come about now.
    sleep(Duration::from_millis(150)).await;
}

/// Waits until there is a path over each of the networks.
async fn await_paths(endpoint: &Endpoint) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATHS;
    let has = |name: &str| endpoint.paths().iter().any(|path| path.local_name == name);
    while !NETWORKS.iter().all(|plan| has(plan.name)) {
        if Instant::now() > deadline {
            bail!("no path over each network within {PATHS:?}");
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
