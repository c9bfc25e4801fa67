//! `steadfast simulate homa`: what a data centre's hosts would see of the Homa core that ships, and of a plain queue.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use steadfast_fabric::plot::{self, Series};
use steadfast_fabric::report::PORTS;
use steadfast_fabric::{Preset, Report, Settings, Transport, Workload, largest_load, simulate};

use crate::exit::{Exit, Failure};
use crate::output::{Output, Table};

/// The part of all messages that come before those that count: the network fills.
const WARM_UP: f64 = 0.3;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Homa, in the network of its paper: how much longer messages take than in an empty network.
    Homa(Arguments),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Slowdown is a message's time as a multiple of what it takes in an empty network. The load counts headers and grants, as in \
the paper (SIGCOMM'18). The same seed gives the same run.

Examples:
  steadfast simulate homa --quick
  steadfast simulate homa --workload W4 --plot w4.svg
  steadfast simulate homa --preset rack --load 0.9 --transport homa --max-load")]
pub(crate) struct Arguments {
    /// The network: 144 hosts in 9 racks under 4 spines; 16 hosts in a rack; 8 hosts in 2 racks; 5 hosts at a switch
    /// of 100 Mbit/s, whose queues have an end.
    #[arg(long, default_value = "paper")]
    preset: Network,
    /// The lengths of messages, as the paper names them.
    #[arg(long, default_value = "W3", ignore_case = true)]
    workload: Lengths,
    /// The part of the hosts' links that is used, 0.01 to 0.99.
    #[arg(long, default_value = "0.8", value_parser = load)]
    load: f64,
    /// What hosts run: Homa under the paper's settings; Homa as it ships, with responses; a plain queue. May be repeated;
    /// without it `homa` and `fifo` are compared.
    #[arg(long)]
    transport: Vec<System>,
    /// How many messages; without it as many as the workload needs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=20_000_000))]
    messages: Option<u32>,
    /// Where random numbers begin.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// A tenth of the messages: less exact, and sooner.
    #[arg(long, conflicts_with = "messages")]
    quick: bool,
    /// Find the largest load that is sustained, too: five more simulations, which for long messages take minutes each. Where
    /// the spines carry all, as here, a rack has the same one.
    #[arg(long)]
    max_load: bool,
    /// Draw slowdown by length of message.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Network {
    Paper,
    Rack,
    Small,
    Slow,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Lengths {
    /// Facebook's memcached servers, 189 bytes in the mean.
    #[value(name = "W1")]
    W1,
    /// Google's search application, 442 bytes.
    #[value(name = "W2")]
    W2,
    /// All requests in a Google data centre, 2.9 KB.
    #[value(name = "W3")]
    W3,
    /// Facebook's Hadoop cluster, 128 KB.
    #[value(name = "W4")]
    W4,
    /// Web search, 2.6 MB.
    #[value(name = "W5")]
    W5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum System {
    Homa,
    Shipped,
    Fifo,
}

impl System {
    const fn name(self) -> &'static str {
        match self {
            Self::Homa => "homa",
            Self::Shipped => "shipped",
            Self::Fifo => "fifo",
        }
    }

    /// In drawings.
    const fn title(self) -> &'static str {
        match self {
            Self::Homa => "Homa",
            Self::Shipped => "shipped",
            Self::Fifo => "FIFO",
        }
    }

    fn settings(self, settings: Settings) -> Settings {
        match self {
            Self::Homa => settings,
            Self::Shipped => settings.shipped(),
            Self::Fifo => Settings { transport: Transport::Queue, ..settings },
        }
    }
}

fn load(text: &str) -> Result<f64, String> {
    let load: Option<f64> = text.parse().ok().filter(|load| (0.01..=0.99).contains(load));
    load.ok_or_else(|| "a load is a number from 0.01 to 0.99, such as 0.8".into())
}

/// What is simulated.
struct Plan {
    preset: Preset,
    workload: Workload,
    messages: u32,
    systems: Vec<System>,
}

/// What one system did.
struct Found {
    system: System,
    report: Report,
    seconds: f64,
    /// The largest sustained load in hundredths, if it was looked for; 0 if it is below 69.
    max_load: Option<u32>,
}

pub(crate) fn run(command: &Command, output: &mut Output) -> anyhow::Result<Exit> {
    let Command::Homa(arguments) = command;
    let plan = arguments.plan();
    if let Some(file) = &arguments.plot {
        // Before minutes are spent in vain; what is there stays until there is something better.
        let opened = fs::OpenOptions::new().create(true).append(true).open(file);
        opened.map_err(|error| cannot_write(file, &error))?;
    }
    let hosts = plan.preset.topology().hosts();
    let (name, percent) = (plan.workload.name(), arguments.load * 100.0);
    output
        .line(format!("{} messages of {name} between {hosts} hosts, at {percent} % load.", plan.messages))?;
    let found = arguments.simulate(&plan)?;
    for found in &found {
        print(found, output)?;
    }
    if let Some(file) = &arguments.plot {
        let drawing = arguments.draw(&plan, &found);
        let drawing = drawing.with_context(|| {
            format!("cannot draw {}: no message was measured; ask for more --messages", file.display())
        })?;
        fs::write(file, &drawing).map_err(|error| cannot_write(file, &error))?;
        output.line(format!("\nDrawn: {}", file.display()))?;
    }
    output.object(&arguments.json(&plan, &found))?;
    Ok(Exit::Done)
}

fn cannot_write(file: &Path, error: &io::Error) -> anyhow::Error {
    let message = format!(
        "cannot write the drawing into {}: {error}; name a file in a directory that can be written to",
        file.display()
    );
    Failure::new(Exit::Failed, message).into()
}

impl Arguments {
    fn plan(&self) -> Plan {
        let preset = match self.preset {
            Network::Paper => Preset::Paper,
            Network::Rack => Preset::Rack,
            Network::Small => Preset::Small,
            Network::Slow => Preset::Slow,
        };
        let workload = Workload::ALL[self.workload as usize];
        let messages = self.messages.unwrap_or_else(|| preset.messages(workload, self.quick));
        let mut systems = self.transport.clone();
        if systems.is_empty() {
            systems = vec![System::Homa, System::Fifo];
        }
        let mut seen = Vec::new();
        systems.retain(|system| {
            !seen.contains(system) && {
                seen.push(*system);
                true
            }
        });
        Plan { preset, workload, messages, systems }
    }

    /// All systems at once: each is a thread of its own, and none knows of the others.
    fn simulate(&self, plan: &Plan) -> anyhow::Result<Vec<Found>> {
        thread::scope(|scope| {
            let threads = plan.systems.iter().map(|system| scope.spawn(|| self.measure(plan, *system)));
            let threads: Vec<_> = threads.collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| Err(anyhow!("a simulation ended early: this is a defect")))
            };
            threads.into_iter().map(join).collect()
        })
    }

    fn measure(&self, plan: &Plan, system: System) -> anyhow::Result<Found> {
        let started = Instant::now();
        let at = |load| {
            let settings = Settings::new(plan.preset, plan.workload, load, plan.messages);
            system.settings(Settings { seed: self.seed, warm_up: WARM_UP, ..settings })
        };
        let fails = |error| anyhow!("cannot simulate {}: {error}", system.name());
        let report = simulate(&at(self.load)).map_err(fails)?;
        let max_load = if self.max_load {
            let at = |load| {
                let settings = Settings::for_search(plan.preset, plan.workload, load, self.quick);
                system.settings(Settings { seed: self.seed, ..settings })
            };
            Some(largest_load(at).map_err(fails)?.percent.unwrap_or(0))
        } else {
            None
        };
        Ok(Found { system, report, seconds: started.elapsed().as_secs_f64(), max_load })
    }

    fn draw(&self, plan: &Plan, found: &[Found]) -> Option<String> {
        let series: Vec<_> =
            found.iter().map(|found| Series { name: found.system.title(), report: &found.report }).collect();
        let workload = plan.workload.name();
        let title = format!("Slowdown of messages under {workload} at {} % load", self.load * 100.0);
        let caption = [
            "A message's time as a multiple of what it takes in an empty network: half of the messages (p50), and 99 in a \
             hundred (p99), take no longer."
                .to_owned(),
            format!(
                "{} hosts at {} Gbit/s, {} messages of {workload}, seed {}: steadfast simulate homa.",
                plan.preset.topology().hosts(),
                plan.preset.topology().host_rate as f64 / 1e9,
                plan.messages,
                self.seed
            ),
        ];
        plot::slowdown(&title, &caption, &series)
    }

    /// In the shape of the benchmarks.
    fn json(&self, plan: &Plan, found: &[Found]) -> Value {
        let mut systems = Map::new();
        for found in found {
            let mut figures: Map<String, Value> =
                found.report.figures().into_iter().map(|(name, value)| (name, value.into())).collect();
            if let Some(max_load) = found.max_load {
                figures.insert("max_load".into(), (f64::from(max_load) / 100.0).into());
            }
            figures.insert("seconds".into(), found.seconds.into());
            systems.insert(found.system.name().into(), figures.into());
        }
        let short = |system: System| {
            let found = found.iter().find(|found| found.system == system)?;
            found.report.short().map(|short| short.p99)
        };
        let mut ratios = Map::new();
        if let (Some(homa), Some(fifo)) = (short(System::Homa), short(System::Fifo)) {
            ratios.insert("short_slowdown_p99".into(), (homa / fifo).into());
        }
        json!({
            "bench": "simulate-homa",
            "conditions": {
                "preset": plan.preset.name(),
                "hosts": plan.preset.topology().hosts(),
                "load": self.load,
                "messages": plan.messages,
                "seed": self.seed,
            },
            "scenarios": { plan.workload.name().to_lowercase(): systems },
            "ratios": ratios,
        })
    }
}

fn print(found: &Found, output: &mut Output) -> anyhow::Result<()> {
    let Found { system, report, seconds, max_load } = found;
    output.line(format!("\n{} ({} packets, {seconds:.1} s)", system.name(), report.packets))?;
    let mut table = Table::new(["BYTES", "MESSAGES", "SLOWDOWN P50", "P99"]).right_from(1);
    for bin in report.bins(10) {
        table.row([
            &format!("to {}", bin.length),
            &bin.count.to_string(),
            &format!("{:.2}", bin.p50),
            &format!("{:.2}", bin.p99),
        ]);
    }
    output.table(&table)?;
    for (name, queues) in PORTS.into_iter().zip(report.queues) {
        let (mean, most) = (queues.mean() / 1e3, queues.most as f64 / 1e3);
        let name = name.replace('_', " ");
        output.line(format!("queue {name}: {mean:.1} KB in the mean, {most:.1} KB at most"))?;
    }
    output.line(format!(
        "payload: {:.3} of the links carried, {:.3} offered, {:.3} where there is a backlog; wasted: {:.3}",
        report.goodput(),
        report.offered(),
        report.capacity(),
        report.wasted()
    ))?;
    if report.questions > 0 || report.dropped > 0 {
        output.line(format!(
            "dropped in queues: {} packets; missing bytes asked for {} times; received twice: {:.4} of all bytes",
            report.dropped,
            report.questions,
            report.in_vain()
        ))?;
    }
    if report.failed > 0 {
        output.line(format!("failed: {} messages", report.failed))?;
    }
    match max_load {
        Some(0) => output.line("largest sustained load: below 69 %")?,
        Some(percent) => output.line(format!("largest sustained load: {percent} %"))?,
        None => {}
    }
    Ok(())
}
