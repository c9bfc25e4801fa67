//! `steadfast checkpoint restore`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use steadfast_checkpoint::{Error, Restore, Restored, Signal, Woken, restore};

use super::hooks::Hooks;
use super::save::{TcpArgument, signal};
use super::{Talk, Tools, mask, mimic, tell};
use crate::context::Context;
use crate::exit;
use crate::output::Output;

#[derive(Debug, Args)]
#[command(after_help = "\
The processes get the numbers that they had, so these have to be free. This command becomes the parent of the first one, passes \
signals on to it, and ends as it does, with its exit code or by its signal. Where its standard input or output was a pipe, it \
gets those of this command.

Exit codes where nothing was restored: 1, and the reason names what would help; 2 there is no such checkpoint; that of a hook \
which failed.

Examples:
  steadfast checkpoint restore checkpoint.4711
  steadfast checkpoint restore --detach /var/lib/job/saved
  steadfast checkpoint restore saved --on-temporary 'sleep 60; exit 75' --on-failure 'mail -s \"job lost\" ops'")]
pub(crate) struct Arguments {
    /// The checkpoint, or a directory of --every, of which the newest is taken.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print the number of the first process and leave it to itself.
    #[arg(long)]
    detach: bool,
    /// The processes get this signal before anything else; CONT lets one go on that was stopped when it was saved.
    #[arg(long, value_name = "NAME", value_parser = signal)]
    signal: Option<Signal>,
    /// Connections over TCP: as they were, or closed.
    #[arg(long, value_name = "HOW", default_value = "keep")]
    tcp: TcpArgument,
    #[command(flatten)]
    hooks: Hooks,
    #[command(flatten)]
    talk: Talk,
}

pub(super) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<ExitCode> {
    let config = context.config()?;
    let how = Restore {
        place: arguments.dir.clone(),
        detach: arguments.detach,
        tcp: arguments.tcp.into(),
        signal: arguments.signal,
    };
    let masked = mask()?;
    let restored = Tools::new(&config).and_then(|mut tools| {
        let restored = restore(&tools.criu, &how, Some(&masked), &mut tools.publisher);
        arguments.talk.notes(&mut tools.publisher);
        restored
    });
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) => {
            // The hook gets signals as other programs do.
            drop(masked);
            return Ok(failed(arguments, error, output));
        }
    };
    restored.faults.iter().for_each(|fault| tell(&format!("it runs again, without this: {fault}")));
    let hook = arguments.hooks.succeeded(&restored.place, restored.pid, &masked);
    if arguments.detach {
        told(&restored, output)?;
        return Ok(hook.map_or(ExitCode::SUCCESS, ExitCode::from));
    }
    arguments.talk.note(&format!("process {} runs again", restored.pid));
    loop {
        if let Woken::Ended(ended) = masked.wait(restored.pid, None).context("cannot wait for the program")? {
            drop(masked);
            return Ok(hook.map_or_else(|| mimic::mimic(ended), ExitCode::from));
        }
    }
}

fn failed(arguments: &Arguments, error: Error, output: &mut Output) -> ExitCode {
    let hook = |error: &Error| arguments.hooks.failed(&arguments.dir, error);
    let error = anyhow::Error::from(error);
    let own = exit::end_with(&error, output);
    error.downcast_ref().and_then(hook).map_or(own, ExitCode::from)
}

fn told(restored: &Restored, output: &mut Output) -> anyhow::Result<()> {
    output.object(&json!({ "pid": restored.pid, "checkpoint": restored.place }))?;
    output.line(format!("Restored {}, as process {}.", restored.manifest.describe(), restored.pid))?;
    Ok(())
}
