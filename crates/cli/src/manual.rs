//! `steadfast completions` and `steadfast man`: what shells and `man` know of the program, made from its arguments.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory, ValueEnum};
use serde_json::json;

use crate::exit::Exit;
use crate::output::Output;

#[derive(Debug, Args)]
#[command(after_help = "\
Write it to a file that the shell reads:
  bash  ~/.local/share/bash-completion/completions/steadfast
  zsh   ~/.zfunc/_steadfast, with fpath+=~/.zfunc before compinit in ~/.zshrc
  fish  ~/.config/fish/completions/steadfast.fish

Example:
  steadfast completions fish > ~/.config/fish/completions/steadfast.fish")]
pub(crate) struct Completions {
    /// For which shell.
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  steadfast man | man -l -
  steadfast man --dir ~/.local/share/man/man1
  man steadfast-ping")]
pub(crate) struct Manual {
    /// Write a page for each command into this directory, which is made if it is missing.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn completions(arguments: &Completions, output: &mut Output) -> anyhow::Result<Exit> {
    let shell = match arguments.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut public(), "steadfast", &mut script);
    print(&script, |script| json!({ "shell": shell.to_string(), "script": script }), output)
}

pub(crate) fn manual(arguments: &Manual, output: &mut Output) -> anyhow::Result<Exit> {
    let Some(directory) = &arguments.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(public()).render(&mut page)?;
        return print(&page, |page| json!({ "page": page }), output);
    };
    let pages = write(directory).with_context(|| {
        format!(
            "cannot write the manual pages into {}; name a directory that can be written to",
            directory.display()
        )
    })?;
    output.object(&json!({ "pages": pages }))?;
    for page in pages {
        output.line(page.display().to_string())?;
    }
    Ok(Exit::Done)
}

/// The program's arguments without the commands that are for itself alone.
fn public() -> clap::Command {
    let all = crate::Arguments::command();
    let commands: Vec<_> = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let about = all.get_about().cloned().unwrap_or_default();
    let after = all.get_after_help().cloned().unwrap_or_default();
    clap::Command::new("steadfast")
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .after_help(after)
        .args(all.get_arguments().cloned())
        .subcommands(commands)
        .subcommand_required(true)
        .disable_help_subcommand(true)
}

fn write(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(public(), directory)?;
    let mut pages: Vec<_> = fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("steadfast")))
        .collect();
    pages.sort();
    Ok(pages)
}

/// Prints a text that is meant for a program, unchanged.
fn print(
    text: &[u8],
    object: impl FnOnce(&str) -> serde_json::Value,
    output: &mut Output,
) -> anyhow::Result<Exit> {
    if output.is_json() {
        output.object(&object(&String::from_utf8_lossy(text)))?;
    } else {
        let mut out = io::stdout().lock();
        out.write_all(text)?;
        out.flush()?;
    }
    Ok(Exit::Done)
}
