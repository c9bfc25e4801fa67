//! The processes that are measured: how they are started and what the two sides tell each other.
//!
//! Each is this program once more, with one argument: the JSON of its [`Part`]. Orders come on standard input, reports
//! go to standard output, one JSON value a line.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child as Process, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use steadfast_testbed::Host;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::Part;
use crate::usage::cores;

/// The word before a part among the arguments.
pub(crate) const WORD: &str = "part";

/// What a process says that cannot go on.
#[derive(Debug, Serialize, Deserialize)]
struct Failed {
    failed: String,
}

/// Where a process runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// Wherever the kernel puts it.
    Here,
    /// On this core and no other.
    Core(usize),
    Host(&'a Host),
}

impl Place<'_> {
    /// Places for a client and a server: a core for each, or wherever the kernel puts them if there is but one.
    pub(crate) fn two_cores() -> [Self; 2] {
        match cores().as_slice() {
            [first, second, ..] => [Self::Core(*first), Self::Core(*second)],
            _ => [Self::Here; 2],
        }
    }

    /// One core for both.
    pub(crate) fn one_core() -> [Self; 2] {
        cores().first().map_or([Self::Here; 2], |core| [Self::Core(*core); 2])
    }
}

/// A process that is measured, seen from the conductor; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: Process,
    orders: ChildStdin,
    reports: Receiver<Value>,
}

impl Child {
    /// Starts a part, here or on a host of a lab, or here and on one core.
    pub(crate) fn start(name: &str, part: Part, place: Place<'_>) -> anyhow::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(WORD).arg(serde_json::to_string(&part)?).stdin(Stdio::piped()).stdout(Stdio::piped());
        let process = match place {
            Place::Here => command.spawn(),
            Place::Core(core) => command.arg(core.to_string()).spawn(),
            Place::Host(host) => host.spawn(&mut command),
        };
        Self::listen(name, process)
    }

    /// Starts another program, which speaks lines of JSON as parts do.
    pub(crate) fn run(name: &str, mut command: Command) -> anyhow::Result<Self> {
        Self::listen(name, command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn())
    }

    fn listen(name: &str, process: io::Result<Process>) -> anyhow::Result<Self> {
        let mut process = process.with_context(|| format!("cannot start the process of the {name}"))?;
        let orders = process.stdin.take().context("a process was started without its input")?;
        let output = process.stdout.take().context("a process was started without its output")?;
        let (sender, reports) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else { return };
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name: name.into(), process, orders, reports })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Gives an order.
    pub(crate) fn order(&mut self, order: &impl Serialize) -> anyhow::Result<()> {
        write_line(&mut self.orders, order)
            .with_context(|| format!("the process of the {} is gone", self.name))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.process), signal)
            .with_context(|| format!("the process of the {} is gone", self.name))
    }

    /// Ends it, if it has not ended, and waits until it is gone.
    pub(crate) fn end(&mut self) {
        // One that has ended cannot be killed, which is just as well.
        let _ended = self.process.kill();
        let _ended = self.process.wait();
    }

    /// The next report if one comes within `limit`.
    pub(crate) fn poll<T: DeserializeOwned>(&self, limit: Duration) -> anyhow::Result<Option<T>> {
        let value = match self.reports.recv_timeout(limit) {
            Ok(value) => value,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the process of the {} ended early", self.name),
        };
        if let Ok(Failed { failed }) = serde_json::from_value(value.clone()) {
            bail!("{}: {failed}", self.name);
        }
        Ok(Some(serde_json::from_value(value).with_context(|| format!("the {} makes no sense", self.name))?))
    }

    /// The next report, which has to come within `limit`.
    pub(crate) fn expect<T: DeserializeOwned>(&self, what: &str, limit: Duration) -> anyhow::Result<T> {
        self.poll(limit)?.with_context(|| format!("{}: {what} took longer than {limit:?}", self.name))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

/// A process that is measured, seen from inside.
#[derive(Debug)]
pub(crate) struct Console {
    orders: UnboundedReceiver<Value>,
}

impl Console {
    /// Listens to the conductor. When that is gone, however it ended, so is this process.
    pub(crate) fn open() -> Self {
        let (sender, orders) = unbounded_channel();
        thread::spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else { break };
                let _nobody_waits = sender.send(value);
            }
            std::process::exit(1);
        });
        Self { orders }
    }

    /// The next order. Cancel safe.
    pub(crate) async fn hear<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let value = self.orders.recv().await.context("the conductor is gone")?;
        serde_json::from_value(value).context("an order makes no sense")
    }
}

/// Reports to the conductor.
pub(crate) fn tell(report: &impl Serialize) {
    // An error means that the conductor is gone, and then so is this process.
    let _conductor_gone = write_line(&mut io::stdout().lock(), report);
}

/// Reports that this process cannot go on.
pub(crate) fn tell_failure(error: &anyhow::Error) {
    tell(&Failed { failed: format!("{error:#}") });
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}
