//! How long a process stands still while it is saved, and how soon its conversations go on: the program, and CRIU alone.
//!
//! | file | one idea |
//! |---|---|
//! | `checkpoint.rs` | the two in turns, and what they are compared by |
//! | `checkpoint/sides.rs` | the process that is saved, and the peer that it talks to |

mod sides;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, process};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use steadfast::Identity;
use steadfast_checkpoint::Criu;

use crate::Effort;
use crate::outcome::Outcome;
use crate::spread::Spread;
use sides::{Look, Pair};

pub(crate) use sides::{peer, saved};

const SCENARIO: &str = "run";
/// What the process has in memory.
const MEMORY: usize = 200 << 20;
const CONVERSATIONS: usize = 4;
/// How often each of the two sends a message in each of them.
const PACE: Duration = Duration::from_millis(1);
const GUARD: Duration = Duration::from_secs(120);
/// How often something that will come about is looked for.
const LOOK: Duration = Duration::from_millis(5);
/// Where `cargo xtask bench` has built the program.
const PROGRAMS: &str = "STEADFAST_BENCH_PROGRAMS";

/// Who saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    /// `steadfast checkpoint save --run`; the library quiesces the conversations.
    Steadfast,
    /// `criu dump --leave-running`, when the process itself has made its conversations quiet.
    Criu,
}

impl System {
    const ALL: [Self; 2] = [Self::Steadfast, Self::Criu];

    const fn name(self) -> &'static str {
        match self {
            Self::Steadfast => "steadfast",
            Self::Criu => "criu",
        }
    }
}

/// One measurement, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Took {
    freeze: f64,
    flow: Option<Flow>,
}

/// What became of messages.
#[derive(Debug, Clone, Copy)]
struct Flow {
    /// How long the process found that it did not run.
    still: f64,
    stall: f64,
    resume: f64,
}

/// What both of a round need.
struct Ground {
    directory: PathBuf,
    program: PathBuf,
    criu: PathBuf,
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.directory);
    }
}

pub(crate) fn run(effort: Effort) -> anyhow::Result<Outcome> {
    let rounds: u32 = effort.of(3, 11);
    let ground = Ground::new()?;
    let mut outcome = Outcome::new("checkpoint");
    conditions(&mut outcome, rounds, &ground)?;
    let mut found: Vec<(System, Took)> = Vec::new();
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        // Neither is always the one who comes after the other.
        let mut order = System::ALL;
        if round % 2 == 0 {
            order.reverse();
        }
        let mut freezes = [0.0; 2];
        for system in order {
            let took = measure(system, &ground)
                .with_context(|| format!("round {round} of {rounds}, {}", system.name()))?;
            let flow = took.flow.map_or_else(String::new, |Flow { still, stall, resume }| {
                format!(", process {still:.1} ms, peer {stall:.1} ms, flows again after {resume:.1} ms")
            });
            eprintln!("round {round} of {rounds}: {:9} still for {:.1} ms{flow}", system.name(), took.freeze);
            freezes[system as usize] = took.freeze;
            found.push((system, took));
        }
        ratios.push(freezes[System::Steadfast as usize] / freezes[System::Criu as usize]);
    }
    for system in System::ALL {
        let of = || found.iter().filter(|(of, _)| *of == system).map(|(_, took)| *took);
        report(&mut outcome, system, "freeze_ms", of().map(|took| took.freeze))?;
        if system == System::Steadfast {
            let flows = || of().filter_map(|took| took.flow);
            report(&mut outcome, system, "still_ms", flows().map(|flow| flow.still))?;
            report(&mut outcome, system, "stall_ms", flows().map(|flow| flow.stall))?;
            report(&mut outcome, system, "resume_ms", flows().map(|flow| flow.resume))?;
        }
    }
    // Of pairs that follow each other: a machine has its moods.
    outcome.add_ratio("freeze", Spread::of(ratios).context("no round")?.median());
    Ok(outcome)
}

fn report(
    outcome: &mut Outcome,
    system: System,
    key: &str,
    samples: impl Iterator<Item = f64>,
) -> anyhow::Result<()> {
    let spread = Spread::of(samples).context("no round")?;
    outcome.figure(SCENARIO, system.name(), key, spread.median());
    outcome.figure(SCENARIO, system.name(), &format!("{key}_min"), spread.min());
    outcome.figure(SCENARIO, system.name(), &format!("{key}_max"), spread.max());
    Ok(())
}

fn conditions(outcome: &mut Outcome, rounds: u32, ground: &Ground) -> anyhow::Result<()> {
    outcome.condition("rounds", rounds);
    outcome.condition("criu_version", Criu::find(Some(&ground.criu))?.version()?.to_string());
    outcome.condition(
        "process",
        format!(
            "{} MiB of memory that was written, {CONVERSATIONS} conversations with one peer on the loopback; in each, both sides \
             send a message of {} bytes each {} ms; fresh for each measurement",
            MEMORY >> 20,
            sides::MESSAGE,
            PACE.as_millis()
        ),
    );
    outcome
        .condition("runtime", "tokio, current thread, and a thread that looks at the clock each millisecond");
    outcome.condition("encryption", "TLS 1.3");
    outcome.condition(
        "steadfast",
        "`steadfast checkpoint save --run`, release build: asks the process, drives CRIU, has it go on, checks the images \
         and forces them to the disk",
    );
    outcome.condition(
        "criu",
        "`criu dump --leave-running` for the same process, which has made its conversations quiet by itself before; images \
         are not forced to the disk",
    );
    outcome.condition(
        "keys",
        "freeze_ms: CRIU's own `frozen_time`; still_ms: the longest time between two looks at the clock in the process, with \
         all that CRIU does to it; stall_ms: the longest silence in any conversation, as the peer sees it; resume_ms: from the \
         first look at the clock after it until each conversation had a message",
    );
    outcome.condition("directory", "bench/target");
    Ok(())
}

impl Ground {
    fn new() -> anyhow::Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "processes are saved by root alone; run `cargo xtask bench checkpoint` as root"
        );
        let criu = Criu::find(None).and_then(|criu| criu.check().map(|()| criu)).context(
            "there is no CRIU that works here; install one, 4.2 or newer for Linux 6.16 and later, or name it with \
             STEADFAST_CRIU (`cargo xtask test` as root fetches one for the tests, which is then taken here, too)",
        )?;
        let programs = env::var_os(PROGRAMS).context(
            "cannot find `steadfast`; run `cargo xtask bench checkpoint`, which builds it and says where \
             (STEADFAST_BENCH_PROGRAMS)",
        )?;
        let directory =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/checkpoint-{}", process::id()));
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let program = Path::new(&programs).join("steadfast");
        // Relative to another directory it would be another one.
        let criu = criu.program().canonicalize().context("cannot tell where CRIU stands")?;
        Ok(Self { directory, program, criu })
    }
}

fn measure(system: System, ground: &Ground) -> anyhow::Result<Took> {
    let place = ground.directory.join("round");
    let _before = fs::remove_dir_all(&place);
    fs::create_dir(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let key = Identity::load_or_create(&place.join(sides::IDENTITY))?.fingerprint();
    let mut pair = Pair::start(&place, &key.to_string())?;
    let images = place.join("images");
    let took = match system {
        System::Steadfast => {
            pair.begin()?;
            let freeze = save(ground, &place, &images, pair.saved.id())?;
            Took { freeze, flow: Some(flow(&mut pair, freeze)?) }
        }
        System::Criu => {
            pair.quiet(&place)?;
            Took { freeze: dump(ground, &images, pair.saved.id())?, flow: None }
        }
    };
    pair.end();
    fs::remove_dir_all(&place)?;
    Ok(took)
}

/// The program's save; how long the process stood still, in CRIU's words.
fn save(ground: &Ground, place: &Path, images: &Path, pid: u32) -> anyhow::Result<f64> {
    let mut command = Command::new(&ground.program);
    command.args(["--json", "checkpoint", "save", "--run", "--dir"]).arg(images).arg(pid.to_string());
    command.env("STEADFAST_CRIU", &ground.criu).env("STEADFAST_AGENT", place.join("no-agent"));
    command.env("HOME", place).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
    let output = command.stdin(Stdio::null()).output().context("cannot start `steadfast`")?;
    let said = succeeded("steadfast checkpoint save", &output)?;
    let saved: Value = serde_json::from_str(said.lines().last().unwrap_or_default())
        .with_context(|| format!("`steadfast checkpoint save --json` says {said:?}"))?;
    let nothing = saved["faults"].as_array().is_some_and(Vec::is_empty);
    ensure!(nothing, "the process did not go on as it was: {}", saved["faults"]);
    saved["frozen_ms"]
        .as_f64()
        .context("`steadfast checkpoint save --json` does not say how long it stood still")
}

/// CRIU's own command; the same.
fn dump(ground: &Ground, images: &Path, pid: u32) -> anyhow::Result<f64> {
    fs::create_dir(images)?;
    let mut command = Command::new(&ground.criu);
    command.args(["dump", "--leave-running", "--shell-job", "--ext-unix-sk", "--tree"]).arg(pid.to_string());
    command.arg("--images-dir").arg(images).args(["--log-file", "dump.log"]);
    let output = command.stdin(Stdio::null()).output().context("cannot start CRIU")?;
    succeeded("criu dump", &output).with_context(|| {
        let log = fs::read_to_string(images.join("dump.log")).unwrap_or_default();
        log.lines().rev().take(3).collect::<Vec<_>>().join("; ")
    })?;
    let micros = steadfast_checkpoint::frozen(images).context("CRIU has left no stats-dump")?;
    Ok(micros as f64 / 1000.0)
}

fn succeeded(what: &str, output: &Output) -> anyhow::Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{what}` failed ({}): {}", output.status, errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the peer saw, once all conversations go on.
fn flow(pair: &mut Pair, freeze: f64) -> anyhow::Result<Flow> {
    let deadline = Instant::now() + GUARD;
    let millis = |nanos: u64| nanos as f64 / 1e6;
    let mut last = None;
    while Instant::now() < deadline {
        let look = pair.look()?;
        last = Some(look);
        if let Look { stood: Some(stood), again: Some(again), longest, .. } = look
            && millis(stood.to - stood.from) >= freeze * 0.9
        {
            let still = millis(stood.to - stood.from);
            return Ok(Flow {
                still,
                stall: millis(longest),
                resume: millis(again.saturating_sub(stood.to)),
            });
        }
        sleep(LOOK);
    }
    bail!(
        "not all conversations went on within {GUARD:?}: {last:?}, and the process stood still for {freeze} ms"
    )
}
