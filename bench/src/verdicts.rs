//! How soon, and how surely, it is known why a peer does not answer.
//!
//! Each run has hosts, networks and processes of its own. A watcher converses with a peer on another host; then something
//! happens to that one, or to the networks, and what the watcher is told is compared with what is so. A verdict that is not
//! so, or is not told, or is told twice, is wrong.

use std::path::PathBuf;
use std::{env, fs, process};

use anyhow::{Context, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use steadfast::{Identity, Labels, Outcome as Sent, Verdict};

use crate::child::{Child, Console, Place, tell};
use crate::load::rest;
use crate::only::Only;
use crate::outcome::Outcome;
use crate::rounds::{self, Bench, Figure};
use crate::stage::{Fault, Plan, Stage, allow};
use crate::systems::{System, endpoint};
use crate::usage::{Nanos, now};
use crate::{Effort, Part};

const PLANS: [Plan; 2] = [Plan::new("near").one_way(10), Plan::new("far").one_way(30)];
/// How long a verdict is waited for.
const LIMIT: Nanos = 20_000_000_000;
/// How long it has to hold, in seconds: what is told by then is taken into account, too.
const HOLDS: f64 = 2.0;
const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

/// What happens, and what is to be known of it.
#[derive(Debug, Clone, Copy)]
struct Step {
    happens: &'static [Happening],
    /// What may be told first, and need not be.
    perhaps: Option<Verdict>,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    Kill,
    Stop,
    Continue,
    Leave,
    Cut,
    Heal,
    /// A new process takes the place of the one that was killed. It counts from when that listens.
    Start,
}

const fn step(happens: &'static [Happening], verdict: Verdict) -> Step {
    Step { happens, perhaps: None, verdict }
}

const KILLED: &[Step] = &[step(&[Happening::Kill], Verdict::Crashed)];
const STOPPED: &[Step] =
    &[step(&[Happening::Stop], Verdict::Hung), step(&[Happening::Continue], Verdict::Alive)];
const CUT: &[Step] =
    &[step(&[Happening::Cut], Verdict::Unreachable), step(&[Happening::Heal], Verdict::Alive)];
const CUT_KILLED: &[Step] = &[
    step(&[Happening::Cut, Happening::Kill], Verdict::Unreachable),
    step(&[Happening::Heal], Verdict::Crashed),
];
const RESTARTED: &[Step] = &[Step {
    happens: &[Happening::Kill, Happening::Start],
    perhaps: Some(Verdict::Crashed),
    verdict: Verdict::Restarted,
}];
const LEFT: &[Step] = &[step(&[Happening::Leave], Verdict::Left)];

const SCENARIOS: [(&str, &[Step]); 6] = [
    ("killed", KILLED),
    ("stopped", STOPPED),
    ("cut", CUT),
    ("cut_killed", CUT_KILLED),
    ("restarted", RESTARTED),
    ("left", LEFT),
];

/// Orders to either process.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Listen { identity: PathBuf, trusts: String, port: u16 },
    Connect(String),
    Leave,
}

#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Key(String),
    Listening { contact: String, port: u16 },
    Ready,
    Told(Told),
}

/// What the watcher was told.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Told {
    verdict: String,
    evidence: String,
    at: Nanos,
}

pub(crate) fn run(effort: Effort, only: &Only) -> anyhow::Result<Outcome> {
    allow()?;
    let mut outcome = Outcome::new("verdicts");
    conditions(&mut outcome);
    rounds::run(&mut Verdicts, &SCENARIOS, &[System::Steadfast], (effort.of(2, 20), only), &mut outcome)?;
    Ok(outcome)
}

fn conditions(outcome: &mut Outcome) {
    outcome.condition("networks", PLANS.map(|plan| format!("{}: {}", plan.name, plan.describe())).join("; "));
    outcome.condition("emulation", "in user space, two hosts; no limit of rate, nothing is lost");
    outcome.condition("killed", "SIGKILL: crashed");
    outcome.condition("stopped", "SIGSTOP: hung; SIGCONT: alive");
    outcome.condition("cut", "both networks swallow everything: unreachable; healed: alive");
    outcome.condition("cut_killed", "both at once: unreachable; healed: crashed");
    outcome.condition(
        "restarted",
        "SIGKILL, and another process of the same key on the same port: restarted, perhaps crashed before",
    );
    outcome.condition("left", "the peer closes its endpoint: left");
    outcome.condition(
        "right",
        format!("rounds in which exactly these verdicts were told in this order, and nothing else {HOLDS} s long after each"),
    );
    outcome.condition(
        "wrong",
        "verdicts that were told and are not so, and those that were not told within 20 s",
    );
    outcome.condition(
        "p50_ms",
        "median time from the fault to the first verdict; in restarted from when the new process listens to `restarted`",
    );
    outcome.condition("again_ms_p50", "the same of the second verdict, from the end of the fault");
    outcome.condition(
        "traffic",
        "none but heartbeats, one a second and network; the phase changes from round to round",
    );
    outcome.condition("settings", "defaults: a verdict within 3 s");
    outcome.condition("runtime", "tokio, current thread");
    outcome.condition("processes", "watcher and peer, one thread each");
    outcome.condition("encryption", System::ENCRYPTION);
}

struct Verdicts;

impl Bench for Verdicts {
    type Scenario = &'static [Step];

    fn measure(
        &mut self,
        _system: System,
        steps: &'static [Step],
        round: u32,
    ) -> anyhow::Result<Vec<Figure>> {
        let mut run = Run::begin(round)?;
        // The fault is to find the heartbeats anywhere between two.
        rest(1.2 + f64::from(round * 137 % 1000) / 1000.0);
        let mut figures = Vec::new();
        let mut wrong = run.surplus()?;
        for (number, step) in steps.iter().enumerate() {
            let (took, mistakes) = run.perform(step)?;
            wrong += mistakes;
            let names = if number == 0 { ["p50_ms", "max_ms"] } else { ["again_ms_p50", "again_ms_max"] };
            if let Some(took) = took {
                figures.push(Figure::median(names[0], took));
                figures.push(Figure::most(names[1], took));
            }
            if mistakes > 0 {
                break;
            }
        }
        figures.push(Figure::sum("right", if wrong == 0 { 1.0 } else { 0.0 }));
        figures.push(Figure::sum("wrong", wrong as f64));
        Ok(figures)
    }
}

/// One run: hosts, networks, both processes.
struct Run {
    watcher: Child,
    peer: Child,
    stage: Stage,
    directory: Directory,
    key: String,
    port: u16,
}

/// Where the peer's key lies: its successor is to have the same.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.0);
    }
}

impl Run {
    fn begin(round: u32) -> anyhow::Result<Self> {
        let stage = Stage::new(&PLANS, u64::from(round))?;
        let directory =
            Directory(env::temp_dir().join(format!("steadfast-bench-verdicts-{}", process::id())));
        // A round that failed may have left its own.
        let _none = fs::remove_dir_all(&directory.0);
        fs::create_dir_all(&directory.0).context("cannot make a directory for the peer's key")?;
        let mut watcher = Child::start("watcher", Part::VerdictsWatcher, Place::Host(&stage.client))?;
        let Report::Key(key) = watcher.expect("its key", 10 * SECOND)? else {
            bail!("the watcher has no key")
        };
        let (peer, contact, port) = start(&stage, &directory, &key, 0)?;
        watcher.order(&Order::Connect(contact))?;
        let Report::Ready = watcher.expect("connecting", 20 * SECOND)? else {
            bail!("the watcher is not ready")
        };
        Ok(Self { watcher, peer, stage, directory, key, port })
    }

    fn happen(&mut self, what: Happening) -> anyhow::Result<()> {
        match what {
            Happening::Kill => self.peer.signal(Signal::KILL)?,
            Happening::Stop => self.peer.signal(Signal::STOP)?,
            Happening::Continue => self.peer.signal(Signal::CONT)?,
            Happening::Leave => self.peer.order(&Order::Leave)?,
            Happening::Cut => (0..PLANS.len()).try_for_each(|link| self.stage.cut(link, Fault::Silent))?,
            Happening::Heal => (0..PLANS.len()).try_for_each(|link| self.stage.heal(link, Fault::Silent))?,
            Happening::Start => {
                self.peer.end();
                let (peer, _, _) = start(&self.stage, &self.directory, &self.key, self.port)?;
                self.peer = peer;
            }
        }
        Ok(())
    }

    /// What happens in a step: after how many milliseconds the right thing was known of it, and what was wrong.
    fn perform(&mut self, step: &Step) -> anyhow::Result<(Option<f64>, usize)> {
        let mut since = now();
        for what in step.happens {
            self.happen(*what)?;
            if matches!(what, Happening::Start) {
                since = now();
            }
        }
        let deadline = now() + LIMIT;
        let (mut took, mut perhaps) = (None, step.perhaps);
        let mut wrong = 0;
        while took.is_none() && now() < deadline {
            let Some(told) = self.told(SECOND / 10)? else { continue };
            if told.verdict == step.verdict.name() {
                took = Some(told.at.saturating_sub(since) as f64 / 1e6);
            } else if perhaps.take_if(|verdict| verdict.name() == told.verdict).is_none() {
                eprintln!("WRONG {} where {} is so: {}", told.verdict, step.verdict, told.evidence);
                wrong += 1;
            }
        }
        if took.is_none() {
            eprintln!("WRONG: {} was not told within 20 s", step.verdict);
            wrong += 1;
        }
        rest(HOLDS);
        Ok((took, wrong + self.surplus()?))
    }

    /// What was told without a reason.
    fn surplus(&mut self) -> anyhow::Result<usize> {
        let mut wrong = 0;
        while let Some(told) = self.told(SECOND / 100)? {
            eprintln!("WRONG {} although nothing happened: {}", told.verdict, told.evidence);
            wrong += 1;
        }
        Ok(wrong)
    }

    fn told(&self, limit: std::time::Duration) -> anyhow::Result<Option<Told>> {
        match self.watcher.poll(limit)? {
            Some(Report::Told(told)) => Ok(Some(told)),
            Some(other) => bail!("the watcher reports what it was not asked for: {other:?}"),
            None => Ok(None),
        }
    }
}

/// Starts a peer; returns it with where it can be reached.
fn start(stage: &Stage, directory: &Directory, key: &str, port: u16) -> anyhow::Result<(Child, String, u16)> {
    let mut peer = Child::start("peer", Part::VerdictsPeer, Place::Host(&stage.server))?;
    let identity = directory.0.join("identity");
    peer.order(&Order::Listen { identity, trusts: key.into(), port })?;
    match peer.expect("listening", 10 * SECOND)? {
        Report::Listening { contact, port } => Ok((peer, contact, port)),
        other => bail!("the peer does not listen: {other:?}"),
    }
}

/// The process that is told of the other.
pub(crate) async fn watcher(console: &mut Console) -> anyhow::Result<()> {
    let here = endpoint::builder(Identity::generate()?, false).bind().await?;
    tell(&Report::Key(here.fingerprint().to_string()));
    let Order::Connect(contact) = console.hear().await? else { bail!("no one to connect to") };
    let socket = here.connect(contact).await?;
    let receipt = socket.send("are you there?", Labels::foreground()).await?;
    if receipt.outcome().await != Sent::Delivered {
        bail!("the peer does not take a message");
    }
    let mut events = here.events();
    while here.paths().len() < PLANS.len() {
        events.next().await.context("the endpoint was closed")?;
    }
    let mut verdicts = socket.verdicts();
    if socket.verdict().verdict != Verdict::Alive {
        bail!("the peer answers and is {}", socket.verdict());
    }
    tell(&Report::Ready);
    while let Some(standing) = verdicts.next().await {
        let at = now();
        let (verdict, evidence) = (standing.verdict.to_string(), standing.evidence.to_string());
        tell(&Report::Told(Told { verdict, evidence, at }));
    }
    // Until the conductor has no further use for it.
    console.hear::<Order>().await.map(drop)
}

/// The process to which something happens.
pub(crate) async fn peer(console: &mut Console) -> anyhow::Result<()> {
    let Order::Listen { identity, trusts, port } = console.hear().await? else { bail!("nowhere to listen") };
    let identity = Identity::load_or_create(&identity)?;
    let here = endpoint::builder(identity, false).trust(trusts.parse()?).port(port).bind().await?;
    tell(&Report::Listening { contact: here.contact(), port: here.port() });
    let answer = async {
        while let Some(socket) = here.accept().await {
            tokio::spawn(async move { while let Ok(Some(_taken)) = socket.recv().await {} });
        }
    };
    tokio::select! {
        () = answer => {}
        order = console.hear::<Order>() => {
            order?;
            here.close("good night").await;
        }
    }
    Ok(())
}
