//! `steadfast checkpoint save`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::json;
use steadfast_checkpoint::{
    After, Class, Existing, GHOST_LIMIT, Masked, Observer, PATIENCE, Progress, Same, Save, SaveError, Saved,
    Scope, Series, Signal, Tcp, save,
};

use super::{Talk, Tools, mask, tell};
use crate::context::Context;
use crate::duration;
use crate::exit::{Exit, Failure};
use crate::output::{Output, clean};
use crate::transfer::amount;

#[derive(Debug, Args)]
#[command(after_help = "\
A process is saved with all that it started; files stay where they are and have to be there when it is restored. An older \
checkpoint is replaced only when the new one is whole, checked and on the disk.

Exit codes: 0 saved; 1 not saved, and the reason names what would help; 2 there is no such process, or a checkpoint is there \
already; 3 an application said no; 4 not in time; 5 interrupted, and the processes go on.

Examples:
  steadfast checkpoint save 4711
  steadfast checkpoint save --kill --dir /var/lib/job/saved --clobber 4711
  steadfast checkpoint save --every 10m --keep 3 --dir /var/lib/job/saved 4711
  steadfast checkpoint save --group 4700 --signal TERM")]
pub(crate) struct Arguments {
    /// The process, or what --group or --session name by its number.
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
    id: u32,
    #[command(flatten)]
    scope: ScopeArguments,
    #[command(flatten)]
    after: AfterArguments,
    #[command(flatten)]
    existing: ExistingArguments,
    #[command(flatten)]
    how: How,
    /// Save again and again, so long apart, into numbered directories below --dir, until it ends or Ctrl-C.
    #[arg(long, value_name = "TIME", value_parser = duration::parse, conflicts_with_all = ["stop", "kill", "signal", "clobber", "backup"])]
    every: Option<Duration>,
    #[command(flatten)]
    keep: Keep,
    #[command(flatten)]
    talk: Talk,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct ScopeArguments {
    /// A process with all its descendants (the default).
    #[arg(long, short = 'T')]
    tree: bool,
    /// A process that has no children.
    #[arg(long, short = 'p')]
    pid: bool,
    /// A process group, if it is exactly one process with its descendants.
    #[arg(long, short = 'g')]
    group: bool,
    /// A session, if it is exactly one process with its descendants.
    #[arg(long, short = 's')]
    session: bool,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct AfterArguments {
    /// The processes go on (the default).
    #[arg(long)]
    run: bool,
    /// They are stopped; `kill -CONT` lets them go on.
    #[arg(long)]
    stop: bool,
    /// They end, once the checkpoint is in place.
    #[arg(long)]
    kill: bool,
    /// They get this signal before anything else, once the checkpoint is in place.
    #[arg(long, value_name = "NAME", value_parser = signal)]
    signal: Option<Signal>,
}

/// Where to and how, for `save` and `run`.
#[derive(Debug, Args)]
pub(super) struct How {
    /// Where the checkpoint goes; without it ./checkpoint.ID.
    #[arg(long, short, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Give up after this time, and let the processes go on.
    #[arg(long, short, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Connections over TCP: part of the checkpoint, or closed when it is restored.
    #[arg(long, value_name = "HOW", default_value = "keep")]
    tcp: TcpArgument,
    /// The most bytes of one open file that has been removed, which becomes part of the checkpoint.
    #[arg(long, value_name = "BYTES", default_value_t = GHOST_LIMIT)]
    ghost_limit: u32,
}

/// What becomes of a checkpoint that is there.
#[derive(Debug, Args)]
struct ExistingArguments {
    /// A checkpoint that is there is replaced.
    #[arg(long, overrides_with = "no_clobber")]
    clobber: bool,
    /// A checkpoint that is there is left alone, and nothing is saved (the default).
    #[arg(long)]
    no_clobber: bool,
    /// A checkpoint that is there is kept beside the new one, as DIR.~1~ and so on, or under this name.
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, conflicts_with = "clobber")]
    #[expect(clippy::option_option, reason = "not given, given, and given with a name are three things")]
    backup: Option<Option<PathBuf>>,
}

impl ExistingArguments {
    fn existing(&self) -> Existing {
        match &self.backup {
            Some(name) => Existing::Keep(name.clone()),
            None if self.clobber => Existing::Replace,
            None => Existing::Refuse,
        }
    }
}

/// How many there are at most.
#[derive(Debug, Args)]
pub(super) struct Keep {
    /// With --every: so many stay, the newest.
    #[arg(long, value_name = "N", default_value = "3", requires = "every", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) keep: u32,
}

/// What becomes of connections.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum TcpArgument {
    Keep,
    Close,
}

impl From<TcpArgument> for Tcp {
    fn from(argument: TcpArgument) -> Self {
        match argument {
            TcpArgument::Keep => Self::Keep,
            TcpArgument::Close => Self::Close,
        }
    }
}

/// `TERM`, `SIGTERM`, `15`.
pub(super) fn signal(text: &str) -> Result<Signal, String> {
    let unknown = || {
        format!("`{text}` is no signal; write its name or number, as in TERM or 15 (`kill -l` lists them)")
    };
    let name = text.to_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    name.parse().ok().or_else(|| Signal::try_from(text.parse::<i32>().ok()?).ok()).ok_or_else(unknown)
}

impl How {
    /// One of these options that was given.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        let given = [
            (self.dir.is_some(), "--dir"),
            (self.timeout.is_some(), "--timeout"),
            (matches!(self.tcp, TcpArgument::Close), "--tcp"),
            (self.ghost_limit != GHOST_LIMIT, "--ghost-limit"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, option)| option)
    }

    /// What is asked for, where nothing is there yet.
    pub(super) fn save(&self, scope: Scope, id: u32, after: After) -> Save {
        Save {
            scope,
            id,
            place: self.dir.clone().unwrap_or_else(|| format!("checkpoint.{id}").into()),
            existing: Existing::Refuse,
            after,
            timeout: self.timeout,
            patience: PATIENCE,
            tcp: self.tcp.into(),
            ghost_limit: self.ghost_limit,
        }
    }
}

impl Arguments {
    fn save(&self) -> Save {
        let scope = match &self.scope {
            ScopeArguments { pid: true, .. } => Scope::Pid,
            ScopeArguments { group: true, .. } => Scope::Group,
            ScopeArguments { session: true, .. } => Scope::Session,
            _ => Scope::Tree,
        };
        let after = match &self.after {
            AfterArguments { stop: true, .. } => After::Stop,
            AfterArguments { kill: true, .. } => After::Kill,
            AfterArguments { signal: Some(signal), .. } => After::Signal(*signal),
            _ => After::Run,
        };
        Save { existing: self.existing.existing(), ..self.how.save(scope, self.id, after) }
    }
}

/// Shows how far it is, and hears Ctrl-C.
struct Watcher<'a> {
    output: &'a mut Output,
    masked: &'a Masked,
}

impl Observer for Watcher<'_> {
    fn progress(&mut self, progress: Progress) {
        let line = match progress {
            Progress::Asking => "Asking the processes ..".to_owned(),
            Progress::Writing(bytes, of) => {
                format!("Writing: {} of about {}", amount::bytes(bytes), amount::bytes(of))
            }
            Progress::Checking => "Checking what was written ..".to_owned(),
        };
        self.output.screen().status(&[line]);
    }

    fn interrupted(&mut self) -> bool {
        self.masked.interrupted()
    }
}

pub(super) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let mut tools = Tools::new(&context.config()?)?;
    let masked = mask()?;
    let how = arguments.save();
    if let Some(every) = arguments.every {
        return repeat(arguments, &how, every, &mut tools, &masked, output);
    }
    let mut watcher = Watcher { output, masked: &masked };
    let saved = save(&tools.criu, &how, Some(&masked), &mut tools.publisher, &mut watcher);
    arguments.talk.notes(&mut tools.publisher);
    told(&saved.map_err(with_exit)?, output)?;
    Ok(Exit::Done)
}

fn repeat(
    arguments: &Arguments,
    how: &Save,
    every: Duration,
    tools: &mut Tools,
    masked: &Masked,
    output: &mut Output,
) -> anyhow::Result<Exit> {
    let series = Series::new(&how.place, arguments.keep.keep as usize)?;
    let mut same = Same::of(how.scope, how.id);
    let mut saved = 0_u32;
    loop {
        let next = Instant::now() + every;
        let mut watcher = Watcher { output, masked };
        let result = series.save(&tools.criu, how, Some(masked), &mut tools.publisher, &mut watcher);
        arguments.talk.notes(&mut tools.publisher);
        match result {
            Ok((result, fault)) => {
                saved += 1;
                told(&result, output)?;
                if let Some(fault) = fault {
                    tell(&format!("{SAVED_BUT}: {fault}"));
                }
            }
            // It has ended, or somebody wants this to end.
            Err(SaveError::Failed(_)) if saved > 0 && !same.is_there() => break,
            Err(SaveError::Interrupted) if saved > 0 => break,
            Err(SaveError::Failed(error)) if saved > 0 && error.class() == Class::Temporary => {
                let error = with_exit(SaveError::Failed(error)).context("this time nothing was saved");
                let _told = crate::exit::tell(&error, output);
            }
            Err(error) => return Err(with_exit(error)),
        }
        // Whoever has got its number meanwhile is not what was asked for.
        if masked.pause(next).context("cannot wait for the next time")? || !same.is_there() {
            break;
        }
    }
    output.line(format!("Ended after {saved} checkpoints."))?;
    Ok(Exit::Done)
}

fn told(saved: &Saved, output: &mut Output) -> anyhow::Result<()> {
    let manifest = &saved.manifest;
    output.end_status();
    output.object(&json!({
        "checkpoint": saved.place,
        "backup": saved.backup,
        "root": manifest.root,
        "pids": manifest.processes.iter().map(|process| process.pid).collect::<Vec<_>>(),
        "bytes": manifest.bytes(),
        "faults": saved.faults,
        "frozen_ms": saved.frozen.map(|frozen| frozen.as_micros() as f64 / 1000.0),
        "time": manifest.when(),
    }))?;
    let frozen = saved.frozen.map(|frozen| format!(", still for {:.0} ms", frozen.as_secs_f64() * 1000.0));
    output.line(format!(
        "Saved {} into {}: {}, {}{}.",
        manifest.describe(),
        clean(&saved.place.display().to_string()),
        counted(manifest.processes.len(), "process", "processes"),
        amount::bytes(manifest.bytes()),
        frozen.unwrap_or_default()
    ))?;
    saved.faults.iter().for_each(|fault| tell(&format!("it was saved, and goes on without this: {fault}")));
    if let Some(backup) = &saved.backup {
        output.line(format!("The one before is {} now.", clean(&backup.display().to_string())))?;
    }
    Ok(())
}

/// What comes before the reason why `latest` is not what was saved last.
pub(super) const SAVED_BUT: &str = "it was saved, and older ones are as they were";

pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Errors of saving with their exit codes.
pub(super) fn with_exit(error: SaveError) -> anyhow::Error {
    match error {
        SaveError::Failed(error) => error.into(),
        interrupted => Failure::new(Exit::Interrupted, interrupted.to_string()).into(),
    }
}
