//! The two hosts of the demo, each a process: one sends a file and urgent messages, the other writes and answers.

mod receiver;
mod sender;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use steadfast::{Builder, Endpoint, Identity, NetworkClass, Override, ScoutConfig};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::protocol::{Nanos, Order, Report, Role, now, obey, tell};
use crate::exit::Exit;

/// The size of an urgent message and of its answer.
pub(crate) const URGENT_BYTES: usize = 128;

/// The time from one urgent message to the next.
pub(crate) const PERIOD: Duration = Duration::from_millis(10);

/// How much longer than planned messages go on at most when the file is not whole.
const OVERTIME: Nanos = 45_000_000_000;

/// Runs one of the hosts until it is done or whoever started it is gone.
pub(crate) fn run(role: Role) -> Exit {
    let (sender, orders) = mpsc::channel();
    obey(sender);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.context("cannot start the demo's runtime").and_then(|runtime| {
        runtime.block_on(async {
            match role {
                Role::Sender => sender::run(&orders).await,
                Role::Receiver => receiver::run(&orders).await,
            }
        })
    });
    match result {
        Ok(()) => Exit::Done,
        Err(error) => {
            tell(&Report::Failed(format!("host {}: {error:#}", role.host())));
            Exit::Failed
        }
    }
}

impl Role {
    /// The name of its host.
    pub(crate) fn host(self) -> &'static str {
        match self {
            Self::Sender => "a",
            Self::Receiver => "b",
        }
    }
}

/// The next order; blocks, which is right while nothing else is to be done.
fn next(orders: &mpsc::Receiver<Order>) -> anyhow::Result<Order> {
    tokio::task::block_in_place(|| orders.recv()).context("the lab sent no order")
}

/// An endpoint with a key of its own, away from the user's files.
fn endpoint(identity: Identity, loopback: bool) -> Builder {
    let named = |interface: &str, class| Override {
        interface: interface.into(),
        class: Some(class),
        ..Override::default()
    };
    let ignore = |interface: &str, ignore| Override {
        interface: interface.into(),
        ignore: Some(ignore),
        ..Override::default()
    };
    let overrides = if loopback {
        vec![ignore("*", true), ignore("lo", false)]
    } else {
        vec![named("wifi", NetworkClass::Wifi), named("lte", NetworkClass::Cellular)]
    };
    let scout = ScoutConfig { nmcli: None, overrides, ..ScoutConfig::default() };
    let builder = Endpoint::builder().identity(identity).scout(scout);
    if loopback { builder.addresses([IpAddr::V4(Ipv4Addr::LOCALHOST)]) } else { builder }
}

/// When urgent messages are sent: each [`PERIOD`] from the beginning, until the time is over and the file is there.
pub(crate) struct Beat {
    ticks: Interval,
    begin: Instant,
    at: Nanos,
    until: Nanos,
    file_done: Arc<AtomicBool>,
}

impl Beat {
    fn new(at: Nanos, until: Nanos, file_done: Arc<AtomicBool>) -> Self {
        let begin = instant(at);
        let mut ticks = interval_at(begin, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        Self { ticks, begin, at, until, file_done }
    }

    /// Waits for the next message; `None` when there is none any more.
    ///
    /// Returns the time from which its round trip counts: now, but when the message before could not be sent in time, the
    /// time at which this one was due, since that is when whoever sends it began to wait.
    pub(crate) async fn next(&mut self) -> Option<Nanos> {
        let due = self.ticks.tick().await;
        let (due, time) = (self.at + due.duration_since(self.begin).as_nanos() as Nanos, now());
        let whole = self.file_done.load(Ordering::Acquire);
        let goes_on = due < self.until || (!whole && due < self.until + OVERTIME);
        goes_on.then_some(if time > due + PERIOD.as_nanos() as Nanos { due } else { time })
    }
}

/// The moment of the runtime's clock that is `at` of the kernel's.
fn instant(at: Nanos) -> Instant {
    Instant::now() + Duration::from_nanos(at.saturating_sub(now()))
}
