//! `steadfast rpc bench`: calls of many lengths at their own times, as the module's `cp_node` makes them.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};
use steadfast::homa::{Homa, Port};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::lengths::Lengths;
use super::load::{Caller, Plan};
use super::serve::{Counters, echo};
use super::tally::{Tally, Times};
use super::way::{Way, opened};
use super::{Carrier, MAX_PORT, PORT, report};
use crate::context::{self, Connecting, Context};
use crate::duration;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table};
use crate::transfer::Stop;

/// Rows of times by length.
const BINS: usize = 10;

#[derive(Debug, Args)]
#[command(after_help = "\
Options are named as those of the module's `cp_node`. Without HOST a server in this process, with `plain`, is called; \
otherwise HOST is what `steadfast rpc call` takes, and `steadfast rpc serve`, or a server of `cp_node` with `raw`, runs there.

With --gbps or --load requests are sent when they are due, at random intervals (Poisson), whether or not others were \
answered (open loop), and their times count from when they were due. Without, each answer is followed by the next request \
(closed loop). Lengths of a workload are cut to 1,000,000 bytes, as there. The same seed gives the same requests.

Exit codes: 0 all answered; 1 some were not; 2 usage; 3 refused; 4 nobody answered.

Examples:
  steadfast rpc bench --workload W3 --gbps 0.5
  steadfast rpc bench kx4v...2a@10.0.0.7 --workload W4 --load 0.8 --link-mbps 10000 --seconds 30 --dump-times w4.times
  sudo steadfast rpc bench 10.0.0.7 --carrier raw --workload 100 --client-max 64 --one-way")]
pub(crate) struct Arguments {
    /// Whom to call.
    host: Option<String>,
    /// What carries the packets [default: udp, or plain without HOST].
    #[arg(long, value_enum)]
    carrier: Option<Carrier>,
    /// Lengths of requests: bytes, W1 to W5, or a file with a length and the part of all that is no longer on each line.
    #[arg(long, value_name = "WORKLOAD", default_value = "100")]
    workload: String,
    /// Payload of the requests of all clients together, in Gbit/s; 0 is as fast as answers come.
    #[arg(long, value_name = "GBPS", default_value = "0", value_parser = gbps)]
    gbps: f64,
    /// The same as a part of the link, 0.01 to 0.99.
    #[arg(long, conflicts_with = "gbps", value_parser = load)]
    load: Option<f64>,
    /// What the link carries, for --load.
    #[arg(long, value_name = "MBPS", default_value_t = 25_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    link_mbps: u32,
    /// Ports that requests are sent from, each at its own times.
    #[arg(long, visible_alias = "clients", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    ports: u16,
    /// Calls that are open at a time at each of them; a request that is due later waits, and its time runs.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=16_384))]
    client_max: u16,
    /// Homa's first port there.
    #[arg(long, visible_alias = "port", value_name = "PORT", default_value_t = PORT, value_parser = clap::value_parser!(u16).range(1..=MAX_PORT))]
    first_port: u16,
    /// So many ports there, from that one on, which are called by chance.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    server_ports: u16,
    /// Ask for answers of 100 bytes.
    #[arg(long)]
    one_way: bool,
    /// How long requests are sent.
    #[arg(long, value_name = "TIME", default_value = "5", value_parser = duration::parse)]
    seconds: Duration,
    /// Where random numbers begin.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write the length of each request and the time of its call into this file.
    #[arg(long, value_name = "FILE")]
    dump_times: Option<PathBuf>,
    #[command(flatten)]
    connecting: Connecting,
}

fn gbps(text: &str) -> Result<f64, String> {
    let gbps: Option<f64> = text.parse().ok().filter(|gbps| (0.0..=1000.0).contains(gbps));
    gbps.ok_or_else(|| "a rate is a number of Gbit/s from 0 to 1000".into())
}

fn load(text: &str) -> Result<f64, String> {
    let load: Option<f64> = text.parse().ok().filter(|load| (0.01..=0.99).contains(load));
    load.ok_or_else(|| "a load is a number from 0.01 to 0.99, such as 0.8".into())
}

pub(super) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let carrier = arguments.carrier()?;
    let lengths = Lengths::parse(&arguments.workload, carrier.longest())?;
    if let Some(file) = &arguments.dump_times {
        // Before time is spent in vain.
        fs::File::create(file).map_err(|error| cannot_write(file, &error))?;
    }
    let server = if arguments.host.is_none() { Some(OwnServer::start(arguments)?) } else { None };
    let found = context::run(arguments.measure(carrier, &lengths, server.as_ref(), context));
    drop(server);
    let (tally, took) = found?;
    if let Some(file) = &arguments.dump_times {
        fs::write(file, dump(&tally)).map_err(|error| cannot_write(file, &error))?;
    }
    arguments.print(carrier, &lengths, &tally, took, output)?;
    report::exit(&tally, arguments.host.as_deref().unwrap_or("this process"))
}

fn cannot_write(file: &Path, error: &std::io::Error) -> Failure {
    let message = format!("cannot write {}: {error}; name a file that can be written", file.display());
    Failure::new(Exit::Failed, message)
}

impl Arguments {
    fn carrier(&self) -> anyhow::Result<Carrier> {
        let refuse = |message: &str| Err(Failure::usage(message).into());
        if i64::from(self.first_port) + i64::from(self.server_ports) - 1 > MAX_PORT {
            return refuse(
                "a server's ports are 1 to 32,767: choose a lower --first-port, or fewer --server-ports",
            );
        }
        match (self.carrier, &self.host) {
            (None, Some(_)) => Ok(Carrier::Udp),
            (None | Some(Carrier::Plain), None) => Ok(Carrier::Plain),
            (Some(_), None) => {
                refuse("only `plain` can call a server in this process: name a HOST, or leave out --carrier")
            }
            (Some(carrier), Some(_)) => Ok(carrier),
        }
    }

    /// Gbit/s of all ports; zero for as fast as answers come.
    fn rate(&self) -> f64 {
        self.load.map_or(self.gbps, |load| load * f64::from(self.link_mbps) / 1e3)
    }

    fn plan(&self, lengths: &Lengths, number: u16) -> Plan {
        let rate = self.rate();
        let interval = (rate > 0.0).then(|| {
            // Bits by Gbit/s are nanoseconds.
            Duration::from_secs_f64(lengths.mean() * 8.0 * f64::from(self.ports) / rate / 1e9)
        });
        Plan {
            lengths: lengths.clone(),
            port: self.first_port,
            ports: self.server_ports,
            one_way: self.one_way,
            deadline: None,
            open: usize::from(self.client_max),
            count: None,
            time: Some(self.seconds),
            interval,
            seed: self.seed.wrapping_mul(1000).wrapping_add(u64::from(number)),
        }
    }

    async fn measure(
        &self,
        carrier: Carrier,
        lengths: &Lengths,
        server: Option<&OwnServer>,
        context: &Context,
    ) -> anyhow::Result<(Tally, Duration)> {
        let mut stop = Stop::new()?;
        let opening = async {
            match (&self.host, server) {
                (None, Some(server)) => Way::plain(server.address),
                (host, _) => {
                    let host = host.as_deref().unwrap_or_default();
                    Way::open(carrier, host, &self.connecting, context).await
                }
            }
        };
        let way = tokio::select! {
            way = opening => way?,
            () = stop.wait() => anyhow::bail!("stopped before anything was measured"),
        };
        let way = Arc::new(way);
        let began = Instant::now();
        let (mut tasks, mut stops) = (JoinSet::new(), Vec::new());
        for number in 0..self.ports {
            let (sender, stopped) = oneshot::channel();
            stops.push(sender);
            tasks.spawn(drive(self.plan(lengths, number), Arc::clone(&way), way.homa.open(None)?, stopped));
        }
        let (mut all, mut failure) = (Tally::new(), None);
        while !tasks.is_empty() {
            tokio::select! {
                () = stop.wait() => stops.clear(),
                Some(ended) = tasks.join_next() => {
                    let (tally, failed) = ended?;
                    all.merge(tally);
                    failure = failure.or(failed);
                }
            }
        }
        let took = began.elapsed().min(self.seconds.max(Duration::from_millis(1)));
        if let Some(way) = Arc::into_inner(way) {
            way.close().await;
        }
        match failure {
            Some(error) => Err(error.into()),
            None => Ok((all, took)),
        }
    }
}

/// What one port does, until it is over or somebody drops the other end of `stopped`.
async fn drive(
    plan: Plan,
    way: Arc<Way>,
    port: Port,
    mut stopped: oneshot::Receiver<()>,
) -> (Tally, Option<steadfast::homa::SendError>) {
    let interval = plan.interval;
    let caller = Arc::new(Caller::new(plan, way.peer.clone(), port));
    let sender = interval.map(|interval| {
        let caller = Arc::clone(&caller);
        // A thread of its own: a runtime's timers are not exact enough.
        tokio::task::spawn_blocking(move || caller.send_when_due(interval))
    });
    let mut run = std::pin::pin!(caller.run());
    tokio::select! {
        () = &mut run => {}
        _ = &mut stopped => {
            caller.stop();
            // What is open is still waited for.
            run.await;
        }
    }
    if let Some(sender) = sender {
        let _ended = sender.await;
    }
    caller.finish()
}

/// A server in this process, on a thread of its own.
struct OwnServer {
    address: SocketAddr,
    /// Dropped first, which ends it.
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl OwnServer {
    fn start(arguments: &Arguments) -> anyhow::Result<Self> {
        let (first, count) = (arguments.first_port, arguments.server_ports);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start a server")?;
        let (homa, ports) = {
            let _entered = runtime.enter();
            let homa = opened(Homa::plain(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)))?;
            let ports: Result<Vec<Port>, _> =
                (first..first + count).map(|port| homa.open(Some(port))).collect();
            (homa, ports?)
        };
        let address = homa.local_addr();
        let (end, ended) = oneshot::channel::<()>();
        let serve = move || {
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                for port in ports {
                    tasks.spawn(echo(port, Arc::new(Counters::default())));
                }
                let _dropped = ended.await;
            });
            drop(homa);
        };
        let thread =
            thread::Builder::new().name("server".into()).spawn(serve).context("cannot start a server")?;
        Ok(Self { address, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// As `cp_node` writes times.
fn dump(tally: &Tally) -> String {
    let mut text = String::from("# Length   RTT (usec)\n");
    for sample in tally.samples() {
        let _infallible = writeln!(text, "{:8} {:12.2}", sample.length, sample.microseconds);
    }
    text
}

impl Arguments {
    fn print(
        &self,
        carrier: Carrier,
        lengths: &Lengths,
        tally: &Tally,
        took: Duration,
        output: &mut Output,
    ) -> anyhow::Result<()> {
        let seconds = took.as_secs_f64().max(1e-9);
        let rate = tally.delivered as f64 / seconds;
        let [out, back] = [tally.sent, tally.received].map(|bytes| bytes as f64 * 8.0 / 1e9 / seconds);
        let bins = tally.by_length(BINS);
        output.object(&self.json(carrier, lengths, tally, &bins, [rate, out, back]))?;
        let mut table =
            Table::new(["BYTES", "CALLS", "P50 us", "P99 us", "P99.9 us", "MOST us"]).right_from(1);
        let all = tally.times().map(|times| ("all".to_owned(), times));
        for (name, times) in bins.iter().map(|(to, times)| (format!("to {to}"), *times)).chain(all) {
            let [p50, p99, p999, most] = figures(&times).map(|(_, time)| format!("{time:.1}"));
            table.row([&name, &times.count.to_string(), &p50, &p99, &p999, &most]);
        }
        output.line(format!("{} over {}, {}.", lengths.name(), carrier.name(), self.pace()))?;
        output.table(&table)?;
        output.line("")?;
        output
            .line(format!("{rate:.0} calls/s, {out:.3} Gbit/s of requests, {back:.3} Gbit/s of responses"))?;
        if self.rate() > 0.0 {
            let late = tally.lag.as_secs_f64() * 1e3;
            output.line(format!("no request was sent later than {late:.1} ms after it was due"))?;
        }
        report::outcomes(tally, output)
    }

    fn pace(&self) -> String {
        match self.rate() {
            rate if rate > 0.0 => format!("{rate} Gbit/s of requests offered"),
            _ => format!("{} at a time", u32::from(self.client_max) * u32::from(self.ports)),
        }
    }

    /// In the shape of the benchmarks.
    fn json(
        &self,
        carrier: Carrier,
        lengths: &Lengths,
        tally: &Tally,
        bins: &[(u32, Times)],
        [rate, out, back]: [f64; 3],
    ) -> Value {
        let mut found: Map<String, Value> = Map::new();
        for (key, value) in tally.times().iter().flat_map(figures) {
            found.insert(key.into(), value.into());
        }
        for (to, times) in bins {
            for (key, value) in figures(times) {
                found.insert(format!("to_{to}_{key}"), value.into());
            }
        }
        let counts = [
            ("delivered", tally.delivered),
            ("dropped", tally.dropped),
            ("unknown", tally.unknown),
            ("changed", tally.changed),
        ];
        found.extend(counts.map(|(key, count)| (key.into(), count.into())));
        let rates = [
            ("rpcs_per_second", rate),
            ("gbps_out", out),
            ("gbps_in", back),
            ("lag_ms", tally.lag.as_secs_f64() * 1e3),
        ];
        found.extend(rates.map(|(key, rate)| (key.into(), rate.into())));
        json!({
            "bench": "rpc-bench",
            "conditions": {
                "carrier": carrier.name(),
                "workload": self.workload,
                "mean_bytes": lengths.mean(),
                "offered_gbps": self.rate(),
                "loop": if self.rate() > 0.0 { "open, Poisson" } else { "closed" },
                "ports": self.ports,
                "server_ports": self.server_ports,
                "client_max": self.client_max,
                "one_way": self.one_way,
                "seconds": self.seconds.as_secs_f64(),
                "seed": self.seed,
                "server": if self.host.is_some() { "another process" } else { "a thread of the same process" },
            },
            "scenarios": { lengths.scenario(): { carrier.system(): found } },
            "ratios": {},
        })
    }
}

fn figures(times: &Times) -> [(&'static str, f32); 4] {
    [("p50_us", times.p50), ("p99_us", times.p99), ("p999_us", times.p999), ("max_us", times.most)]
}
