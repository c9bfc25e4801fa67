//! `steadfast checkpoint`: processes saved and restored through CRIU.
//!
//! | file | one idea |
//! |---|---|
//! | `save.rs` | `save`, and what `run --every` does meanwhile |
//! | `run.rs` | `run` |
//! | `restore.rs`, `hooks.rs` | `restore`, and the commands that follow it |
//! | `list.rs` | `list` and `inspect` |
//! | `migrate.rs`, `progress.rs` | `migrate`, and how far it is |
//! | `accept.rs`, `guest.rs`, `adopt.rs` | `accept`, one migration of it, and the parent of a program that came |
//! | `talk.rs` | what those two sides say, until one of them is gone |
//! | `mimic.rs` | ending as another program did |

mod accept;
mod adopt;
mod guest;
mod hooks;
mod list;
mod migrate;
mod mimic;
mod progress;
mod restore;
mod run;
mod save;
mod talk;

pub(crate) use adopt::Arguments as Adopt;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Deserialize;
use steadfast_checkpoint::{Criu, Error, Masked, Publisher, left};

use crate::config::Config;
use crate::context::{Context, Globals};
use crate::exit;
use crate::output::{Output, clean_lines};

/// What can be done with processes.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program so that it can be saved well, and end as it does.
    Run(run::Arguments),
    /// Save a process, with its children, so that it can be restored; it goes on unless told otherwise.
    Save(save::Arguments),
    /// Restore what was saved, wait for it, and end as it does.
    Restore(restore::Arguments),
    /// Move a process, with its children, to a host where `steadfast checkpoint accept` runs.
    Migrate(migrate::Arguments),
    /// Let processes of other hosts move to this one.
    Accept(accept::Arguments),
    /// List the checkpoints of a directory.
    List(list::Arguments),
    /// Show what is in a checkpoint: processes, open files, connections, and what CRIU had to say.
    Inspect(list::Inspect),
}

/// `[checkpoint]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The program CRIU.
    criu: Option<PathBuf>,
}

/// What all of them take.
#[derive(Debug, Args)]
struct Talk {
    /// Tell on standard error what is done, and what is left out.
    #[arg(long, short)]
    verbose: bool,
}

impl Talk {
    /// A line on standard error, where that is wanted.
    fn note(&self, text: &str) {
        if self.verbose {
            tell(text);
        }
    }

    fn notes(&self, publisher: &mut Publisher) {
        publisher.notes().iter().for_each(|note| self.note(note));
    }
}

/// A line on standard error: standard output is the program's.
#[expect(clippy::print_stderr, reason = "standard output belongs to the program that is run or restored")]
fn tell(text: &str) {
    eprintln!("steadfast: {}", clean_lines(text));
}

/// Where images lie while processes migrate.
fn migrating(context: &Context) -> PathBuf {
    context.places.state.join("migrating")
}

/// Where those lie that come.
fn migrated(context: &Context) -> PathBuf {
    context.places.state.join("migrated")
}

/// Removes what migrations left that were killed, and tells what somebody has to look at before.
fn tell_left(context: &Context) {
    for left in left(&migrating(context)) {
        let place = left.directory.display();
        let pid = left.directory.file_name().unwrap_or_default().display();
        tell(&format!(
            "{place} has images of process {pid} ({}), of which it was never known whether it runs there; they hold its memory. Look \
             there, then remove them: `rm -r {place}`",
            left.what
        ));
    }
}

/// What a command works with.
struct Tools {
    criu: Criu,
    publisher: Publisher,
}

impl Tools {
    fn new(config: &Config) -> Result<Self, Error> {
        let criu = Criu::find(config.checkpoint.criu.as_deref())?;
        Ok(Self { criu, publisher: Publisher::new(crate::events::socket(config)) })
    }
}

/// Holds signals back from here on.
fn mask() -> anyhow::Result<Masked> {
    Masked::new().map_err(|error| anyhow::anyhow!("cannot hold signals back: {error}"))
}

/// Becomes the parent of a program that moves here.
pub(crate) fn adopt(arguments: &Adopt, globals: &Globals, output: &mut Output) -> ExitCode {
    let result = Context::new(globals).and_then(|context| adopt::run(arguments, &context));
    result.unwrap_or_else(|error| exit::end(Err(error), output))
}

/// Runs the command, which ends as the program does that it waits for.
pub(crate) fn run(command: &Command, globals: &Globals, output: &mut Output) -> ExitCode {
    let context = match Context::new(globals) {
        Ok(context) => context,
        Err(error) => return exit::end(Err(error), output),
    };
    let result = match command {
        Command::Run(arguments) => run::run(arguments, &context),
        Command::Save(arguments) => return exit::end(save::run(arguments, &context, output), output),
        Command::Restore(arguments) => restore::run(arguments, &context, output),
        Command::Migrate(arguments) => return exit::end(migrate::run(arguments, &context, output), output),
        Command::Accept(arguments) => accept::run(arguments, &context, output),
        Command::List(arguments) => return exit::end(list::run(arguments, output), output),
        Command::Inspect(arguments) => return exit::end(list::inspect(arguments, output), output),
    };
    result.unwrap_or_else(|error| exit::end(Err(error), output))
}
