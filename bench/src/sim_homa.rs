//! The Homa core in the simulated data centre of its paper: slowdown of messages at 80 % load, and the largest load.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, anyhow};
use steadfast_fabric::{Preset, Report, Settings, Transport, Workload, largest_load, simulate};

use crate::Effort;
use crate::only::{Named, Only};
use crate::outcome::Outcome;

const WORKLOADS: [Named<Workload>; 5] = [
    ("w1", Workload::W1),
    ("w2", Workload::W2),
    ("w3", Workload::W3),
    ("w4", Workload::W4),
    ("w5", Workload::W5),
];
const LOAD: f64 = 0.8;
const SEED: u64 = 1;
/// The part of all messages that come before those that count.
const WARM_UP: f64 = 0.3;
const HOMA: &str = "homa";
const FIFO: &str = "fifo";

/// What is simulated by itself, whatever else is.
#[derive(Debug, Clone, Copy)]
struct Task {
    named: Named<Workload>,
    system: &'static str,
    /// The largest load is looked for, instead of slowdowns at one.
    search: bool,
}

/// What came of it.
struct Found {
    task: Task,
    figures: Vec<(String, f64)>,
}

pub(crate) fn run(effort: Effort, only: &Only) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::new("sim-homa");
    let hosts = Preset::Paper.topology().hosts();
    outcome.condition(
        "network",
        format!("simulated: {hosts} hosts at 10 Gbit/s, 9 racks, 4 spines at 40 Gbit/s"),
    );
    outcome.condition(
        "settings",
        "homa: the core that ships under the paper's settings; fifo: first in, first out",
    );
    outcome.condition("load", LOAD);
    outcome.condition("load_means", "of the links, headers and grants included, as in the paper");
    outcome.condition("seed", SEED);
    outcome.condition("warm_up", WARM_UP);
    outcome.condition("short", "the shortest tenth of all messages");
    outcome.condition("slowdown", "a message's time as a multiple of what it takes in an empty network");
    let searched = Preset::Rack.topology().hosts();
    outcome.condition(
        "max_load",
        format!(
            "the largest at which hosts with a backlog receive no less than is offered, for homa; {searched} hosts in \
             one rack, for longer"
        ),
    );
    let (workloads, systems) = only.select_named(&WORKLOADS, &[(HOMA, ()), (FIFO, ())])?;
    for (name, workload) in &workloads {
        outcome.condition(&format!("messages_{name}"), Preset::Paper.messages(*workload, effort.quick));
    }
    // Long ones first, or the last of them would have a core to itself.
    let tasks: Vec<Task> = [(HOMA, true), (HOMA, false), (FIFO, false)]
        .into_iter()
        .filter(|(system, _)| systems.iter().any(|(asked, ())| asked == system))
        .flat_map(|(system, search)| {
            workloads.iter().rev().map(move |named| Task { named: *named, system, search })
        })
        .collect();
    let mut found = perform(&tasks, effort)?;
    found.sort_by_key(|found| (found.task.named.0, found.task.system != HOMA, found.task.search));
    for Found { task, figures } in found {
        for (key, value) in figures {
            outcome.figure(task.named.0, task.system, &key, value);
        }
    }
    for (name, _) in workloads {
        outcome.ratio(&format!("short_slowdown_p99_{name}"), name, "short_slowdown_p99", [HOMA, FIFO]);
    }
    Ok(outcome)
}

/// All tasks, one at a time for each core.
fn perform(tasks: &[Task], effort: Effort) -> anyhow::Result<Vec<Found>> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let work = || -> anyhow::Result<()> {
        while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let figures = task.perform(effort)?;
            found.lock().unwrap_or_else(PoisonError::into_inner).push(Found { task: *task, figures });
        }
        Ok(())
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a simulation ended early"))?)
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl Task {
    fn perform(&self, effort: Effort) -> anyhow::Result<Vec<(String, f64)>> {
        let started = Instant::now();
        let Self { named: (name, workload), system, search } = *self;
        let fails = |error| anyhow!("cannot simulate {system} under {name}: {error}");
        let mut figures;
        let what;
        if search {
            let at = |load| Settings::for_search(Preset::Rack, workload, load, effort.quick);
            let found = largest_load(at).map_err(fails)?;
            let load = f64::from(found.percent.unwrap_or(0)) / 100.0;
            what = format!("largest load {load}");
            figures = vec![("max_load".to_owned(), load)];
        } else {
            let messages = Preset::Paper.messages(workload, effort.quick);
            let mut settings =
                Settings { seed: SEED, warm_up: WARM_UP, ..Settings::paper(workload, LOAD, messages) };
            if system == FIFO {
                settings.transport = Transport::Queue;
            }
            let report: Report = simulate(&settings).map_err(fails)?;
            let short = report.short().context("no message was measured")?;
            what = format!("short messages' slowdown p50 {:.2}, p99 {:.2}", short.p50, short.p99);
            figures = report.figures();
        }
        let seconds = started.elapsed().as_secs_f64();
        figures.push((if search { "search_seconds" } else { "seconds" }.to_owned(), seconds));
        eprintln!("{name} {system}: {what} ({seconds:.1} s)");
        Ok(figures)
    }
}
