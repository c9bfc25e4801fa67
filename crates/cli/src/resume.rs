//! `steadfast resume`: what a reboot or a crash cut off goes on.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::Output;
use crate::transfer::{Jobs, quoted};

#[derive(Debug, Args)]
#[command(after_help = "\
Runs every `steadfast send` and `steadfast receive` of this user that did not come to its end, in the directory in which it \
was typed, all at once, and ends when they have. To have it run after every reboot, put this into your crontab:

  @reboot steadfast resume

Exit codes: those of `send` and `receive`, the highest of them; 0 if there is nothing to do.

Examples:
  steadfast resume --list
  steadfast resume")]
pub(crate) struct Arguments {
    /// Where they are remembered [default: transfers, in ~/.local/state/steadfast].
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Only print what would be run.
    #[arg(long)]
    list: bool,
    /// Run nothing of it, now or later; what has come of it stays where it is.
    #[arg(long, conflicts_with = "list")]
    forget: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let jobs = Jobs::new(arguments.store.as_deref(), context);
    let shown = jobs.directory().display().to_string();
    let (waiting, strange) = jobs.waiting().with_context(|| format!("cannot read {shown}"))?;
    for path in strange {
        output.line(format!("{} is no transfer that this version knows; it stays.", path.display()))?;
    }
    if waiting.is_empty() {
        output.line("Nothing was cut off.")?;
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut running = Vec::new();
    for (path, typed) in waiting {
        let words = typed.words.iter().map(|word| quoted(word.as_encoded_bytes()));
        let words = words.collect::<Vec<_>>().join(" ");
        let directory = typed.directory.display().to_string();
        output.object(&json!({ "event": "waiting", "command": words, "directory": directory }))?;
        output.line(format!("steadfast {words}    (in {directory})"))?;
        if arguments.forget {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        } else if !arguments.list {
            let mut command = Command::new(&program);
            command.args(&typed.words).current_dir(&typed.directory).envs(typed.variables);
            // Nobody is there who could be asked.
            command.stdin(Stdio::null());
            let child =
                command.spawn().with_context(|| format!("cannot run `steadfast {words}` in {directory}"));
            running.push((words, child));
        }
    }
    let mut worst = Exit::Done;
    for (words, child) in running {
        let ended = child.and_then(|mut child| Ok(child.wait()?));
        let exit = match ended {
            Ok(status) => Exit::of_code(status.code()),
            Err(error) => crate::exit::tell(&error, output).0,
        };
        output.object(&json!({ "event": "ended", "command": words, "exit": exit as u8 }))?;
        if exit as u8 > worst as u8 {
            worst = exit;
        }
    }
    Ok(worst)
}
