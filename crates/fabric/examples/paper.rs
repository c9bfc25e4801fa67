//! The paper's simulation (SIGCOMM'18, figure 12): slowdown by length under Homa with the paper's settings, under Homa as
//! it ships, and under a plain queue.
//!
//! `cargo run --release -p steadfast-fabric --example paper -- W3 0.8 200000`

#![expect(clippy::print_stdout, reason = "a program that prints")]

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use std::time::Instant;
use steadfast_fabric::{Report, Settings, Transport, Workload, simulate};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("W3", String::as_str);
    let workload = Workload::ALL.into_iter().find(|workload| workload.name().eq_ignore_ascii_case(name));
    let workload = workload.with_context(|| format!("`{name}` is no workload; there are W1 to W5"))?;
    let load: f64 = arguments.get(1).map_or("0.8", String::as_str).parse().context("the load is a number")?;
    let messages: u32 =
        arguments.get(2).map_or("100000", String::as_str).parse().context("messages are a number")?;
    let homa = Settings::paper(workload, load, messages);
    let queue = Settings { transport: Transport::Queue, ..homa.clone() };
    let shipped = Settings::shipped(workload, load, messages);
    let mut systems = serde_json::Map::new();
    for (system, settings) in [("homa", homa), ("shipped", shipped), ("queue", queue)] {
        let started = Instant::now();
        let report = simulate(&settings).map_err(|error| anyhow!(error))?;
        println!(
            "{} {load} {system}: {} packets in {:.1} s, {:.3} of the links is payload",
            workload.name(),
            report.packets,
            started.elapsed().as_secs_f64(),
            report.goodput()
        );
        systems.insert(system.to_owned(), print(&report));
    }
    let ratio = |key: &str| {
        let value =
            |system: &str| systems.get(system).and_then(|values| values.get(key)).and_then(Value::as_f64);
        Some(value("queue")? / value("homa")?)
    };
    let ratios = json!({ "queue_to_homa_p99_short": ratio("p99_short") });
    let conditions = json!({ "workload": workload.name(), "load": load, "messages": messages, "hosts": 144 });
    println!(
        "{}",
        json!({ "bench": "fabric", "conditions": conditions, "scenarios": { "paper": systems }, "ratios": ratios })
    );
    Ok(())
}

/// A table, and the same as JSON.
fn print(report: &Report) -> Value {
    let mut values = serde_json::Map::new();
    println!("{:>10} {:>8} {:>8} {:>8}", "up to", "count", "p50", "p99");
    for (index, bin) in report.bins(10).into_iter().enumerate() {
        println!("{:>10} {:>8} {:>8.2} {:>8.2}", bin.length, bin.count, bin.p50, bin.p99);
        values.insert(format!("p99_decile_{}", index + 1), bin.p99.into());
        if index == 0 {
            values.insert("p99_short".to_owned(), bin.p99.into());
        }
    }
    for (name, queues) in ["rack_to_spine", "spine_to_rack", "rack_to_host"].into_iter().zip(report.queues) {
        println!(
            "{name:>14}: {:.1} KB in the mean, {:.1} KB at most",
            queues.mean() / 1e3,
            queues.most as f64 / 1e3
        );
        values.insert(format!("queue_max_{name}"), queues.most.into());
    }
    values.insert("goodput".to_owned(), report.goodput().into());
    values.insert("failed".to_owned(), report.failed.into());
    values.into()
}
