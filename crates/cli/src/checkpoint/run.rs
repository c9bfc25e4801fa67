//! `steadfast checkpoint run`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use steadfast_checkpoint::{After, Masked, Observer, Progress, Scope, Series, Woken, run as start};

use super::save::{How, Keep, SAVED_BUT, with_exit};
use super::{Talk, Tools, mask, mimic, tell};
use crate::context::Context;
use crate::duration;
use crate::exit::Failure;

#[derive(Debug, Args)]
#[command(after_help = "\
The program runs in a time namespace of its own, so that its clocks go on where they were after a restore, on another machine \
too. Signals are passed on to it, and this command ends as it does, with its exit code or by its signal.

With --every it is saved again and again; DIR/latest is the newest, and `steadfast checkpoint restore DIR` goes on from it. \
When saving fails, that is told on standard error and the program goes on.

Examples:
  steadfast checkpoint run simulation input.dat
  steadfast checkpoint run --every 10m --dir saved -- simulation --steps 1000 input.dat")]
pub(crate) struct Arguments {
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<String>,
    /// Save it again and again, so long apart, into numbered directories below --dir.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    every: Option<Duration>,
    #[command(flatten)]
    keep: Keep,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    talk: Talk,
}

/// The program's output is its own, and signals are for it.
struct Quiet;

impl Observer for Quiet {
    fn progress(&mut self, _: Progress) {}

    fn interrupted(&mut self) -> bool {
        false
    }
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    // What is wrong with the configuration or CRIU is told before the program runs.
    let mut tools = match arguments.every {
        Some(_) => Some(Tools::new(&context.config()?)?),
        None => None,
    };
    heeded(arguments)?;
    if let Some(dir) = arguments.every.and(arguments.how.dir.as_deref()) {
        Series::new(dir, arguments.keep.keep as usize)?;
    }
    let (program, words) = arguments.program.split_first().context("there is no program to run")?;
    let masked = mask()?;
    let started = start(program, words, &masked)?;
    if let Some(reason) = &started.shared_clock {
        tell(&format!(
            "{program} shares this machine's clocks ({reason}): after a restore they go on where they were only if root restores it"
        ));
    }
    let pid = started.child.id();
    arguments.talk.note(&format!("{program} is process {pid}"));
    let mut next = arguments.every.map(|every| Instant::now() + every);
    loop {
        match masked.wait(pid, next).context("cannot wait for the program")? {
            Woken::Ended(ended) => {
                drop(masked);
                return Ok(mimic::mimic(ended));
            }
            Woken::Time => {
                next = arguments.every.map(|every| Instant::now() + every);
                if let Some(tools) = &mut tools {
                    save(arguments, pid, tools, &masked);
                }
            }
        }
    }
}

/// What says how to save is for nothing where nothing is saved.
fn heeded(arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.how.first_given() {
        Some(option) if arguments.every.is_none() => Err(Failure::usage(format!(
            "{option} says how --every saves, and without that nothing is saved; add --every TIME, or leave {option} out and save it with \
             `steadfast checkpoint save`"
        ))
        .into()),
        _ => Ok(()),
    }
}

/// A failure is told, and the program goes on.
fn save(arguments: &Arguments, pid: u32, tools: &mut Tools, masked: &Masked) {
    let how = arguments.how.save(Scope::Tree, pid, After::Run);
    let series = Series::new(&how.place, arguments.keep.keep as usize);
    let saved = series.map_err(anyhow::Error::from).and_then(|series| {
        series.save(&tools.criu, &how, Some(masked), &mut tools.publisher, &mut Quiet).map_err(with_exit)
    });
    arguments.talk.notes(&mut tools.publisher);
    match saved {
        Ok((saved, fault)) => {
            arguments.talk.note(&format!("saved into {}", saved.place.display()));
            if let Some(fault) = fault {
                tell(&format!("{SAVED_BUT}: {fault}"));
            }
        }
        Err(error) => tell(&format!("this time nothing was saved: {error}")),
    }
}
