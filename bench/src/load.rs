//! What runs between two hosts: small exchanges, each a message and its answer, and bulk beside them.
//!
//! Everything is noted with the time that all processes of one machine share, so the conductor alone decides what counts.

mod log;
mod port;
mod side;

use std::thread;
use std::time::Duration;

use anyhow::bail;
use serde::{Deserialize, Serialize};

pub(crate) use log::Found;
pub(crate) use side::{client, server};

use crate::Part;
use crate::child::{Child, Place};
use crate::stage::{Plan, Stage};
use crate::systems::{Ground, System, introduce};
use crate::usage::{Nanos, now};

const GUARD: Duration = Duration::from_secs(30);

/// How a pair of processes converses.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) system: System,
    /// The size of a small message and of its answer.
    pub(crate) message: usize,
    pub(crate) bulk: Bulk,
}

/// What there is beside the exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bulk {
    None,
    /// From each side one stream without an end, once that is ordered.
    Endless,
    /// From the client messages of so many bytes.
    Messages(usize),
}

impl Setup {
    fn lanes(self) -> u8 {
        if self.bulk == Bulk::None { 1 } else { 2 }
    }
}

/// When the client sends small messages.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// At each beat, whether or not earlier ones were answered.
    Every(Duration),
    /// So long after an answer, until so much time is over.
    After { pause: Duration, lasts: Duration },
}

/// Orders to either side.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// To the client: wait until each of these networks is in use.
    Prepare(Vec<String>),
    /// To the client: send small messages.
    Exchange(Pace),
    /// Send bulk without an end.
    Bulk,
    /// To the client: begin bulk messages for so long, with so many unfinished at most, and tell when all are done.
    BulkMessages { outstanding: usize, lasts: Duration },
    /// Stop, wait a moment for answers, and tell what was found.
    Stop,
}

/// What a side reports.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Ready,
    /// When the newest of the messages that were answered was sent.
    Answered(Nanos),
    /// All bulk messages are acknowledged.
    BulkDone,
    Found(Found),
}

/// Two processes on the hosts of a stage.
pub(crate) struct Pair {
    client: Child,
    server: Child,
}

impl Pair {
    /// Starts both, lets them find together, and waits until they use every network.
    pub(crate) fn start(stage: &Stage, setup: Setup) -> anyhow::Result<Self> {
        stage.prepare(setup.system)?;
        let mut server = Child::start("server", Part::LoadServer(setup), Place::Host(&stage.server))?;
        let mut client = Child::start("client", Part::LoadClient(setup), Place::Host(&stage.client))?;
        let ground = Ground { addresses: stage.server_addresses(), lanes: setup.lanes() };
        introduce(&mut client, &mut server, ground)?;
        client.order(&Order::Prepare(stage.networks()))?;
        match client.expect("using every network", GUARD)? {
            Report::Ready => Ok(Self { client, server }),
            other => bail!("expected the client to be ready, not {other:?}"),
        }
    }

    /// Lets the client send small messages.
    pub(crate) fn exchange(&mut self, pace: Pace) -> anyhow::Result<()> {
        self.client.order(&Order::Exchange(pace))
    }

    /// Lets the client send bulk.
    pub(crate) fn bulk_up(&mut self) -> anyhow::Result<()> {
        self.client.order(&Order::Bulk)
    }

    /// Lets the server send bulk.
    pub(crate) fn bulk_down(&mut self) -> anyhow::Result<()> {
        self.server.order(&Order::Bulk)
    }

    /// Lets the client send bulk messages and waits until all are acknowledged; `false` if that takes over `limit`.
    pub(crate) fn bulk_messages(
        &mut self,
        outstanding: usize,
        lasts: Duration,
        limit: Duration,
    ) -> anyhow::Result<bool> {
        self.client.order(&Order::BulkMessages { outstanding, lasts })?;
        let deadline = now() + limit.as_nanos() as Nanos;
        while now() < deadline {
            if let Some(Report::BulkDone) = self.client.poll(Duration::from_millis(100))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// When the newest message was sent of which an answer is reported within a few milliseconds.
    pub(crate) fn answered(&self) -> anyhow::Result<Option<Nanos>> {
        match self.client.poll(Duration::from_millis(5))? {
            Some(Report::Answered(sent)) => Ok(Some(sent)),
            _ => Ok(None),
        }
    }

    /// Stops both: what the client and the server found.
    pub(crate) fn finish(mut self) -> anyhow::Result<[Found; 2]> {
        // The server's bulk would be in the way of the last answers.
        self.server.order(&Order::Stop)?;
        let theirs = found(&self.server)?;
        self.client.order(&Order::Stop)?;
        Ok([found(&self.client)?, theirs])
    }
}

fn found(child: &Child) -> anyhow::Result<Found> {
    let deadline = now() + GUARD.as_nanos() as Nanos;
    while now() < deadline {
        if let Some(Report::Found(found)) = child.poll(GUARD)? {
            return Ok(found);
        }
    }
    bail!("a process did not stop within {GUARD:?}");
}

/// Megabits a second of one endless stream over all these networks, in so many seconds after others to settle.
pub(crate) fn goodput(
    system: System,
    plans: &[Plan],
    [settle, seconds]: [f64; 2],
    round: u32,
) -> anyhow::Result<f64> {
    let stage = Stage::new(plans, u64::from(round))?;
    let mut pair = Pair::start(&stage, Setup { system, message: 64, bulk: Bulk::Endless })?;
    pair.bulk_up()?;
    rest(settle);
    let from = now();
    rest(seconds);
    let until = now();
    let [_, theirs] = pair.finish()?;
    stage.complain();
    Ok(theirs.mbit(from, until))
}

/// Waits so many seconds.
pub(crate) fn rest(seconds: f64) {
    thread::sleep(Duration::from_secs_f64(seconds));
}
