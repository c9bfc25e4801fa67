//! `steadfast checkpoint list` and `steadfast checkpoint inspect`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use steadfast_checkpoint::{
    Descriptor, Error, Found, Manifest, descriptors, frozen, list, resolve, warnings,
};

use super::save::counted;
use crate::exit::Exit;
use crate::output::{Output, Table, clean};
use crate::transfer::amount;

#[derive(Debug, Args)]
#[command(after_help = "\
The directory's own checkpoint with its backups if it is one, else all that lie in it. Every file is read, to tell whether it is \
whole; exit code 1 if one is damaged.

Example:
  steadfast checkpoint list --json /var/lib/job/saved | jq -r 'select(.whole) | .checkpoint'")]
pub(crate) struct Arguments {
    /// Where to look.
    #[arg(default_value = ".", value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The checkpoint, or a directory of --every, of which the newest is taken.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Of CRIU's log so many lines are shown.
const WARNINGS: usize = 10;

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let mut table = Table::new(["CHECKPOINT", "TIME", "PROGRAM", "PIDS", "STATE", "SIZE"]).right_from(5);
    let mut exit = Exit::Done;
    for found in list(&arguments.dir)? {
        let state = verified(&found);
        if state.is_err() {
            exit = Exit::Failed;
        }
        output.object(&object(&found, &state))?;
        let path = found.path.display().to_string();
        let word = match &found.manifest {
            Err(Error::Format { .. }) => "other version",
            _ if state.is_ok() => "whole",
            _ => "damaged",
        };
        match &found.manifest {
            Ok(manifest) => table.row([
                &path,
                &manifest.when(),
                &manifest.name(),
                &pids(manifest),
                word,
                &amount::bytes(manifest.bytes()),
            ]),
            Err(_) => table.row([&path, "", "", "", word, ""]),
        }
        if let Err(error) = state {
            output.screen().line(clean(&format!("{path}: {error}")));
        }
    }
    if table.is_empty() {
        let place = std::path::absolute(&arguments.dir).unwrap_or_else(|_| arguments.dir.clone());
        output.line(format!("There are no checkpoints in {}", clean(&place.display().to_string())))?;
    } else {
        output.table(&table)?;
    }
    Ok(exit)
}

fn verified(found: &Found) -> Result<(), String> {
    let manifest = found.manifest.as_ref().map_err(ToString::to_string)?;
    manifest.verify(&found.path).map_err(|error| error.to_string())
}

/// The first few process numbers.
fn pids(manifest: &Manifest) -> String {
    let pids: Vec<_> = manifest.processes.iter().take(4).map(|process| process.pid.to_string()).collect();
    let rest = manifest.processes.len() - pids.len();
    if rest > 0 { format!("{} and {rest} more", pids.join(" ")) } else { pids.join(" ") }
}

fn object(found: &Found, state: &Result<(), String>) -> Value {
    let mut object = json!({ "checkpoint": found.path, "whole": state.is_ok() });
    if let Err(error) = state {
        object["error"] = json!(error);
    }
    if let Ok(manifest) = &found.manifest {
        object["time"] = json!(manifest.when());
        object["program"] = json!(manifest.name());
        object["command"] = json!(manifest.command);
        object["root"] = json!(manifest.root);
        object["pids"] = json!(manifest.processes.iter().map(|process| process.pid).collect::<Vec<_>>());
        object["bytes"] = json!(manifest.bytes());
    }
    object
}

pub(super) fn inspect(arguments: &Inspect, output: &mut Output) -> anyhow::Result<Exit> {
    let place = resolve(&arguments.dir);
    let manifest = Manifest::read(&place)?;
    let state = manifest.verify(&place).map_err(|error| error.to_string());
    let mut open = Vec::new();
    for process in &manifest.processes {
        open.push(descriptors(&place, process.pid));
    }
    let found = Found { path: place, manifest: Ok(manifest) };
    let Ok(manifest) = &found.manifest else { unreachable!("it was put there just now") };
    if output.is_json() {
        let mut object = object(&found, &state);
        object["manifest"] = json!(manifest);
        object["frozen_ms"] = json!(frozen(&found.path).map(|micros| micros as f64 / 1000.0));
        object["warnings"] = json!(warnings(&found.path, WARNINGS));
        object["open"] =
            Value::Array(open.iter().map(|open| json!(open.as_deref().unwrap_or_default())).collect());
        output.object(&object)?;
    } else {
        print(&found.path, manifest, &open, output)?;
    }
    if let Err(error) = state {
        return Err(anyhow::anyhow!(error));
    }
    Ok(Exit::Done)
}

fn print(
    place: &Path,
    manifest: &Manifest,
    open: &[Result<Vec<Descriptor>, Error>],
    output: &mut Output,
) -> anyhow::Result<()> {
    let shown = |text: &str| clean(text);
    output.line(format!("{}: {}", shown(&place.display().to_string()), shown(&manifest.describe())))?;
    output.line(format!("  command   {}", shown(&manifest.command.join(" "))))?;
    output.line(format!("  saved     {} on {}", manifest.when(), shown(&manifest.host)))?;
    output.line(format!(
        "  by        Steadfast {}, CRIU {}, Linux {} ({})",
        shown(&manifest.version),
        manifest.criu,
        shown(&manifest.kernel),
        shown(&manifest.machine)
    ))?;
    output.line(format!(
        "  size      {} in {}",
        amount::bytes(manifest.bytes()),
        counted(manifest.files.len(), "file", "files")
    ))?;
    if let Some(micros) = frozen(place) {
        output.line(format!("  still     {:.1} ms", micros as f64 / 1000.0))?;
    }
    let after = if manifest.ended { "the processes ended with it" } else { "the processes went on" };
    output.line(format!("  then      {after}"))?;
    let clock = if manifest.own_time {
        "their own"
    } else {
        "that machine's; they go on where they were if root restores it"
    };
    output.line(format!("  clocks    {clock}"))?;
    for (process, open) in manifest.processes.iter().zip(open) {
        output.line(String::new())?;
        output.line(format!(
            "process {} ({}), {}, parent {}, group {}, session {}, {}",
            process.pid,
            shown(&process.name),
            process.state,
            process.parent,
            process.group,
            process.session,
            counted(process.threads.len(), "thread", "threads")
        ))?;
        match open {
            Ok(open) => {
                for descriptor in open {
                    let (number, kind) = (descriptor.number, descriptor.kind);
                    output.line(format!("  {number:>4} {kind:9} {}", shown(&descriptor.target)))?;
                }
            }
            Err(error) => output.line(shown(&error.to_string()))?,
        }
    }
    let warnings = warnings(place, WARNINGS);
    if !warnings.is_empty() {
        output.line(String::new())?;
        output.line("CRIU's last warnings:")?;
        warnings.iter().try_for_each(|warning| output.line(format!("  {}", shown(warning))))?;
    }
    Ok(())
}
