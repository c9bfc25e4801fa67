//! `steadfast trust`: whom this side trusts.

use clap::Subcommand;
use serde_json::json;
use steadfast::{Fingerprint, Identity, Target};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table, clean};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Trust a key, and give it a name.
    #[command(after_help = "\
Of a whole line KEY@ADDRESS,... the key counts; the configuration remembers addresses.

Examples:
  steadfast trust add kx4v...2a boat
  steadfast trust add kx4v...2a@10.0.0.7,10.1.0.7")]
    Add {
        /// The key that `steadfast id` prints on the other side, or the line KEY@ADDRESS,... from there.
        #[arg(value_name = "KEY|KEY@ADDRESS")]
        key: String,
        /// What to call it, one word; where that is also its host name, it can be used as HOST.
        name: Option<String>,
    },
    /// List the trusted keys with their names.
    List,
    /// Trust a key no more; conversations with that peer end at once.
    Remove {
        /// The key, or its name.
        #[arg(value_name = "KEY|NAME")]
        peer: String,
    },
}

pub(crate) fn run(command: Command, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    match command {
        Command::Add { key, name } => add(&key, name.as_deref(), context, output),
        Command::List => list(context, output),
        Command::Remove { peer } => remove(&peer, context, output),
    }
}

fn add(text: &str, name: Option<&str>, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let key = key_of(text)?;
    // Whoever pastes the wrong one of two lines would otherwise look for the fault for long.
    if Identity::load(&context.places.identity).is_ok_and(|own| own.fingerprint() == key) {
        let message =
            format!("cannot trust {key}: that is the key of this side itself; add the other side's");
        return Err(Failure::usage(message).into());
    }
    let mut trusted = context.trusted()?;
    let changed = trusted.add(key, name)?;
    let name = trusted.name_of(&key);
    output.object(&json!({ "key": key.to_string(), "name": name, "changed": changed }))?;
    let called = name.map(|name| format!(" as {}", clean(name))).unwrap_or_default();
    output.line(format!("{} {key}{called}.", if changed { "Trusts" } else { "Trusted already:" }))?;
    Ok(Exit::Done)
}

/// The key in `KEY` or `KEY@ADDRESS,...`.
fn key_of(text: &str) -> anyhow::Result<Fingerprint> {
    let fault = |error: &dyn std::fmt::Display| {
        Failure::usage(format!(
            "cannot read `{text}` as a key: {error}; `steadfast id` prints it on the other side"
        ))
    };
    if text.contains('@') {
        let target: Target = text.parse().map_err(|error| fault(&error))?;
        if let Some(key) = target.fingerprint {
            return Ok(key);
        }
    }
    Ok(text.trim().parse().map_err(|error| fault(&error))?)
}

fn list(context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let trusted = context.trusted()?;
    let peers: Vec<_> =
        trusted.peers().map(|(key, name)| json!({ "key": key.to_string(), "name": name })).collect();
    output.object(&json!({ "trusted": peers, "file": trusted.path() }))?;
    if peers.is_empty() {
        output.line(format!(
            "{} names nobody; `steadfast trust add KEY NAME` does.",
            trusted.path().display()
        ))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["KEY", "NAME"]);
    for (key, name) in trusted.peers() {
        table.row([&key.to_string(), name.unwrap_or("-")]);
    }
    output.table(&table)?;
    Ok(Exit::Done)
}

fn remove(peer: &str, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let mut trusted = context.trusted()?;
    let key = peer.parse().ok().or_else(|| trusted.find_by_name(peer));
    let known = key.filter(|key| trusted.contains(key));
    let Some(key) = known else {
        let file = trusted.path().display();
        let message = format!(
            "cannot remove `{peer}`: {file} has no such key or name; `steadfast trust list` shows all"
        );
        return Err(Failure::new(Exit::Failed, message).into());
    };
    let name = trusted.name_of(&key).map(String::from);
    trusted.remove(&key)?;
    output.object(&json!({ "key": key.to_string(), "name": name }))?;
    let called = name.map(|name| format!(" ({})", clean(&name))).unwrap_or_default();
    output.line(format!("Trusts {key}{called} no more."))?;
    Ok(Exit::Done)
}
