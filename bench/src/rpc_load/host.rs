//! One host of the rack: what the conductor tells it and what it tells.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use anyhow::Context;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde::{Deserialize, Serialize};
use steadfast_testbed::run_in_real_time;
use tokio::io::unix::AsyncFd;

use super::list::{LONGEST, Offered, Planned};
use super::{homa, tcp};
use crate::child::{Console, tell};
use crate::usage::{Nanos, cpu_seconds, now, waited_seconds};

/// A response's bytes.
pub(crate) const ANSWER: [u8; 8] = *b"received";
/// After the last request, until what is not answered counts as it is.
const DRAIN: Duration = Duration::from_secs(3);
/// Lengths whose time in an empty network is measured, and how often.
const ALONE: [(u32, usize); 8] =
    [(1, 40), (100, 40), (500, 40), (1378, 40), (3000, 20), (10_000, 20), (30_000, 10), (100_000, 5)];
/// Between two of those.
const PAUSE: Duration = Duration::from_millis(3);

/// What carries the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Carrier {
    /// Sealed UDP.
    Homa,
    /// One connection from each host to each other, on which requests follow each other.
    TcpOne,
    /// Connections for one request at a time, up to 32 from each host to each other.
    TcpPool,
}

impl Carrier {
    pub(crate) const SETTINGS: &str = "homa: sealed UDP, a Port, the link's rate told, 10,000 bytes unasked, 80,000 \
        on their way and 10,000 at a time to the oldest message as the network holds 10,000 in a round trip, otherwise its defaults; tcp_one: one plain TCP connection from \
        each host to each other, requests one after the other, responses as they come; tcp_pool: up to 32 such \
        connections, a request at a time on each; tcp: the better of both in short_p99_us; TCP with cubic, TCP_NODELAY";
}

/// A host's part.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct RackHost {
    pub(crate) carrier: Carrier,
    /// Bits a second of its wire.
    pub(crate) rate: u64,
    pub(crate) index: usize,
    /// Of its process in real time, if that is allowed.
    pub(crate) level: Option<u8>,
}

/// Orders to a host.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Whom to trust.
    Trust(Vec<String>),
    /// Where the others are, this one left out.
    Meet(Vec<String>),
    /// Measure the empty network.
    Alone,
    /// Send requests from a moment on for so long.
    Offer { offered: Offered, start: Nanos, lasts: Duration },
}

/// What a host reports.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Key(String),
    Contact { contact: String, port: u16 },
    Ready,
    Found(Found),
}

/// A request with its response.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// When it was to be sent, in nanoseconds after the start.
    pub(crate) at: u64,
    pub(crate) length: u32,
    /// Nanoseconds; so far, if it was not answered.
    pub(crate) took: u64,
    /// How many of them passed before this process asked: what the machine alone does to a request.
    pub(crate) late: u64,
}

/// What a host found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) samples: Vec<Sample>,
    /// The median for each length that was measured in the empty network.
    pub(crate) alone: Vec<(u32, f64)>,
    /// Requests that ended without a response, by what was said of them.
    pub(crate) failed: BTreeMap<String, u64>,
    /// Requests that were not answered in the end; samples tell how long.
    pub(crate) open: u64,
    pub(crate) counters: Counters,
    pub(crate) cpu_seconds: f64,
    /// For how long it could have run and another process did.
    pub(crate) waited_seconds: f64,
}

impl Found {
    /// Of all hosts.
    pub(crate) fn add(&mut self, other: Self) {
        self.samples.extend(other.samples);
        self.alone.extend(other.alone);
        for (reason, count) in other.failed {
            *self.failed.entry(reason).or_default() += count;
        }
        self.open += other.open;
        self.counters.asked += other.counters.asked;
        self.counters.resent_bytes += other.counters.resent_bytes;
        self.counters.discarded_bytes += other.counters.discarded_bytes;
        self.cpu_seconds += other.cpu_seconds;
        self.waited_seconds += other.waited_seconds;
    }
}

/// What a carrier counted of its own repairs.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Packets that asked for missing bytes.
    pub(crate) asked: u64,
    /// Payload bytes that were sent again.
    pub(crate) resent_bytes: u64,
    /// Payload bytes that came and were here already.
    pub(crate) discarded_bytes: u64,
}

/// A request's number, and why it was not answered if it was not.
pub(crate) type Ended = (u64, Result<(), String>);

/// How requests are sent, whatever carries them.
pub(crate) trait Sender {
    /// Sends a request to one of the others; its number comes back from [`Sender::done`].
    fn send(&mut self, to: usize, length: u32, number: u64) -> anyhow::Result<()>;

    /// What it counted since it began, if it does.
    fn counters(&self) -> Counters {
        Counters::default()
    }

    /// Waits for requests that have ended. Cancel safe.
    async fn done(&mut self, ended: &mut Vec<Ended>) -> anyhow::Result<()>;
}

/// The process of a host.
pub(crate) async fn host(part: RackHost, console: &mut Console) -> anyhow::Result<()> {
    part.level.map_or(Ok(()), run_in_real_time)?;
    match part.carrier {
        Carrier::Homa => {
            let sender = homa::meet(part.rate, console).await?;
            Asking::new(sender, part.index).obey(console).await
        }
        Carrier::TcpOne | Carrier::TcpPool => {
            let sender = tcp::meet(part.carrier == Carrier::TcpPool, console).await?;
            Asking::new(sender, part.index).obey(console).await
        }
    }
}

struct Asking<S> {
    sender: S,
    index: usize,
    /// By number: when and how long, and how late it was asked; none once it ended.
    open: Vec<Option<(Planned, u64)>>,
    found: Found,
}

impl<S: Sender> Asking<S> {
    fn new(sender: S, index: usize) -> Self {
        Self { sender, index, open: Vec::new(), found: Found::default() }
    }

    async fn obey(mut self, console: &mut Console) -> anyhow::Result<()> {
        tell(&Report::Ready);
        loop {
            // Others ask this host meanwhile.
            let mut ended = Vec::new();
            let order = tokio::select! {
                order = console.hear() => order?,
                done = self.sender.done(&mut ended) => {
                    done?;
                    continue;
                }
            };
            match order {
                Order::Alone => {
                    self.alone().await?;
                    tell(&Report::Ready);
                }
                Order::Offer { offered, start, lasts } => {
                    self.offer(offered, start, lasts).await?;
                    tell(&Report::Found(std::mem::take(&mut self.found)));
                }
                Order::Trust(_) | Order::Meet(_) => anyhow::bail!("the hosts have met"),
            }
        }
    }

    async fn alone(&mut self) -> anyhow::Result<()> {
        for (length, times) in ALONE {
            let mut took = Vec::new();
            for _ in 0..times {
                tokio::time::sleep(PAUSE).await;
                let (sent, mut ended) = (now(), Vec::new());
                self.sender.send(0, length, 0)?;
                while ended.is_empty() {
                    self.sender.done(&mut ended).await?;
                }
                anyhow::ensure!(ended[0].1.is_ok(), "a request failed in the empty network");
                took.push(now() - sent);
            }
            took.sort_unstable();
            self.found.alone.push((length, took[took.len() / 2] as f64));
        }
        Ok(())
    }

    async fn offer(&mut self, offered: Offered, start: Nanos, lasts: Duration) -> anyhow::Result<()> {
        let (cpu, waited) = (cpu_seconds(), waited_seconds()?);
        let others = super::rack::HOSTS - 1;
        let lasts = lasts.as_nanos() as u64;
        let mut planned = offered.requests(self.index, others).take_while(|next| next.at < lasts).peekable();
        let timer = Timer::new()?;
        let mut ended = Vec::new();
        let end = start + lasts + DRAIN.as_nanos() as u64;
        while now() < end && (planned.peek().is_some() || self.open.iter().any(Option::is_some)) {
            while let Some(next) = planned.next_if(|next| start + next.at <= now()) {
                let number = self.open.len() as u64;
                self.open.push(Some((next, now() - start - next.at)));
                self.sender.send(next.to, next.length, number)?;
            }
            timer.set(planned.peek().map_or(end, |next| start + next.at))?;
            tokio::select! {
                late = timer.late() => late?,
                done = self.sender.done(&mut ended) => done?,
            }
            let now = now();
            for (number, answered) in ended.drain(..) {
                let open = self.open.get_mut(number as usize).and_then(Option::take);
                let open = open.context("a request ended twice")?;
                match answered {
                    Ok(()) => self.found.samples.push(sample(open, now - start)),
                    Err(reason) => *self.found.failed.entry(reason).or_default() += 1,
                }
            }
        }
        let now = now();
        for open in self.open.drain(..).flatten() {
            self.found.samples.push(sample(open, now - start));
            self.found.open += 1;
        }
        self.found.counters = self.sender.counters();
        self.found.cpu_seconds = cpu_seconds() - cpu;
        self.found.waited_seconds = waited_seconds()? - waited;
        Ok(())
    }
}

fn sample((planned, late): (Planned, u64), now: Nanos) -> Sample {
    Sample { at: planned.at, length: planned.length, took: now.saturating_sub(planned.at), late }
}

/// Bytes to send, of which each request takes its length.
pub(crate) fn material() -> Vec<u8> {
    vec![0x5a; LONGEST as usize]
}

/// The kernel's timer, since the runtime's has milliseconds.
struct Timer(AsyncFd<Raw>);

struct Raw(TimerFd);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Timer {
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe; the descriptor is open for as long as what holds it"
    )]
    fn new() -> anyhow::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self(AsyncFd::new(Raw(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))?))
    }

    fn set(&self, at: Nanos) -> anyhow::Result<()> {
        let at = TimeSpec::from_duration(Duration::from_nanos(at));
        Ok(self.0.get_ref().0.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
    }

    /// Waits until it goes off. Cancel safe.
    async fn late(&self) -> anyhow::Result<()> {
        let mut ready = self.0.readable().await?;
        // Setting it anew takes back what it said; so what was ready may not be.
        let _set_anew = self.0.get_ref().0.wait();
        ready.clear_ready();
        Ok(())
    }
}
