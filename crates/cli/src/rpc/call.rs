//! `steadfast rpc call`: calls of one length, and what became of them.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::lengths::Lengths;
use super::load::{Caller, Plan};
use super::tally::Tally;
use super::way::Way;
use super::{Carrier, MAX_PORT, PORT, report};
use crate::context::{self, Connecting, Context};
use crate::duration;
use crate::exit::Exit;
use crate::output::{Output, Table};
use crate::transfer::Stop;

#[derive(Debug, Args)]
#[command(after_help = "\
HOST is, with `udp`, the line KEY@ADDRESS,... that `steadfast rpc serve` prints, HOST[:PORT] of a peer whose key is trusted \
under that name, or a name from the configuration; with `plain` 127.0.0.1:PORT; with `raw` an address or a name of a \
machine, which may run the Linux module: requests begin as those of its own tools do, and its server answers them.

Times are from before a request is sent until its response is here whole. Every answer is compared with what was sent. A call \
that fails is not repeated: `dropped` was surely not executed, `unknown` once or not at all. After five failures without any \
answer no more calls are made. Ctrl-C ends with the result.

Exit codes: 0 all answered; 1 some were not; 2 usage; 3 refused; 4 nobody answered.

Examples:
  steadfast rpc call kx4v...2a@10.0.0.7 --size 100 --count 10000
  steadfast rpc call 127.0.0.1:4000 --carrier plain --outstanding 64
  sudo steadfast rpc call 10.0.0.7 --carrier raw --size 500000 --json | jq .p99_us")]
pub(crate) struct Arguments {
    /// Whom to call.
    host: String,
    /// What carries the packets.
    #[arg(long, value_enum, default_value = "udp")]
    carrier: Carrier,
    /// Homa's port there.
    #[arg(long, default_value_t = PORT, value_parser = clap::value_parser!(u16).range(1..=MAX_PORT))]
    port: u16,
    /// Bytes of each request, to 16,777,216; with `raw` to 1,000,000.
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    size: u32,
    /// How many calls.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Calls that are open at a time.
    #[arg(long, visible_alias = "client-max", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=16_384))]
    outstanding: u16,
    /// How long a call may last [default: as long as the server says that it works].
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    deadline: Option<Duration>,
    #[command(flatten)]
    connecting: Connecting,
}

pub(super) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let Arguments { carrier, port, size, .. } = *arguments;
    let lengths = Lengths::parse(&size.to_string(), carrier.longest())?;
    context::run(async {
        let mut stop = Stop::new()?;
        let way = tokio::select! {
            way = Way::open(carrier, &arguments.host, &arguments.connecting, context) => way?,
            () = stop.wait() => return Ok(Exit::Failed),
        };
        let plan = Plan {
            lengths,
            port,
            ports: 1,
            one_way: false,
            deadline: arguments.deadline,
            open: usize::from(arguments.outstanding),
            count: Some(arguments.count),
            time: None,
            interval: None,
            seed: 1,
        };
        let caller = Caller::new(plan, way.peer.clone(), way.homa.open(None)?);
        let began = Instant::now();
        tokio::select! {
            () = caller.run() => {}
            () = stop.wait() => caller.stop(),
        }
        let took = began.elapsed();
        let (tally, failure) = caller.finish();
        arguments.print(&tally, took, output)?;
        way.close().await;
        if let Some(error) = failure {
            return Err(error.into());
        }
        report::exit(&tally, &arguments.host)
    })
}

impl Arguments {
    fn print(&self, tally: &Tally, took: Duration, output: &mut Output) -> anyhow::Result<()> {
        let rate = tally.delivered as f64 / took.as_secs_f64().max(1e-9);
        let times = tally.times();
        output.object(&json!({
            "type": "summary",
            "host": self.host,
            "carrier": self.carrier.name(),
            "port": self.port,
            "size": self.size,
            "outstanding": self.outstanding,
            "calls": tally.calls(),
            "delivered": tally.delivered,
            "dropped": tally.dropped,
            "unknown": tally.unknown,
            "changed": tally.changed,
            "p50_us": times.map(|times| times.p50),
            "p99_us": times.map(|times| times.p99),
            "p999_us": times.map(|times| times.p999),
            "max_us": times.map(|times| times.most),
            "calls_per_second": rate,
            "reasons": tally.reasons,
        }))?;
        let mut table =
            Table::new(["BYTES", "ANSWERED", "P50 us", "P99 us", "P99.9 us", "MOST us", "CALLS/s"])
                .right_from(0);
        if let Some(times) = times {
            let figures = [times.p50, times.p99, times.p999, times.most].map(|time| format!("{time:.1}"));
            let [p50, p99, p999, most] = &figures;
            table.row([
                &self.size.to_string(),
                &tally.delivered.to_string(),
                p50,
                p99,
                p999,
                most,
                &format!("{rate:.0}"),
            ]);
            output.table(&table)?;
        }
        report::outcomes(tally, output)
    }
}
