//! `steadfast networks`: what the scout sees, now or as it changes.

mod seen;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use steadfast_net::Scout;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::context::{self, Context};
use crate::exit::Exit;
use crate::output::{Output, Table};
use seen::{Change, Seen};

#[derive(Debug, Args)]
#[command(after_help = "\
A network is an interface that is up, has a carrier and a usable address. The configuration says what Steadfast \
cannot see for itself. --watch goes on until Ctrl-C, which is a success.

Examples:
  steadfast networks
  steadfast networks --watch
  steadfast networks --json | jq -r '.networks[].name'")]
pub(crate) struct Arguments {
    /// Go on, and show every change.
    #[arg(long, short)]
    watch: bool,
    /// Also show interfaces that cannot be used now, or are left out by the configuration.
    #[arg(long, short, conflicts_with = "watch")]
    all: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let config = context.config()?;
    context::run(async {
        let mut scout = Scout::start(config.scout()).await?;
        if !arguments.watch {
            return print(&Seen::now(&scout, arguments.all)?, &config, output);
        }
        // Before the first line is out, for whoever waits for that.
        let mut interrupts = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
        tokio::select! {
            result = watch(&mut scout, output) => return result,
            _ = interrupts.recv() => {}
        }
        if is_redrawn(output) {
            // What stays is the table, without the hint and the terminal's `^C`.
            output.end_status();
            output.table(&table(&Seen::now(&scout, false)?))?;
        }
        Ok(Exit::Done)
    })
}

fn print(seen: &[Seen], config: &Config, output: &mut Output) -> anyhow::Result<Exit> {
    output.object(&json!({ "networks": seen, "port": config.port }))?;
    if seen.is_empty() {
        let help = "bring an interface up, or see why with --all and `ip address`";
        output.line(format!("No network can be used: {help}."))?;
        return Ok(Exit::Done);
    }
    output.table(&table(seen))?;
    Ok(Exit::Done)
}

fn table(seen: &[Seen]) -> Table {
    let mut table = Table::new(["NAME", "STATE", "CLASS", "METERED", "COST", "ADDRESSES"]);
    for network in seen {
        let mut addresses = network.addresses.iter().map(String::as_str);
        let [metered, cost] = network.price();
        table.row([
            &network.title(),
            network.state.name(),
            network.class.unwrap_or("-"),
            &metered,
            &cost,
            addresses.next().unwrap_or("-"),
        ]);
        for address in addresses {
            table.row(["", "", "", "", "", address]);
        }
    }
    table
}

/// Whether a person watches lines that change.
fn is_redrawn(output: &mut Output) -> bool {
    !output.is_json() && output.screen().is_live()
}

/// Shows the networks again whenever they change: in place at a terminal, a line for each change elsewhere.
async fn watch(scout: &mut Scout, output: &mut Output) -> anyhow::Result<Exit> {
    let start = Instant::now();
    let mut before: Vec<Seen> = Vec::new();
    loop {
        let now = Seen::now(scout, false)?;
        if is_redrawn(output) {
            let mut lines = table(&now).lines();
            lines.push(String::new());
            lines.push("Ctrl-C ends.".into());
            output.screen().status(&lines);
            output.screen().check()?;
        } else {
            for change in seen::changes(&before, &now) {
                tell(&change, start, output)?;
            }
        }
        before = now;
        scout.changed().await?;
    }
}

fn tell(change: &Change<'_>, start: Instant, output: &mut Output) -> anyhow::Result<()> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    output.object(&json!({ "change": change.name(), "time": time, "network": change.network() }))?;
    let seconds = start.elapsed().as_secs_f64();
    output.line(format!("{seconds:8.3} s  {:7}  {}", change.name(), change.network().describe()))?;
    Ok(())
}
