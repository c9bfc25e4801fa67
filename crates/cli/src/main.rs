//! The program `steadfast`.
//!
//! | file | one idea |
//! |---|---|
//! | `main.rs` | the commands and their arguments |
//! | `context.rs`, `config.rs` | from options and files to an endpoint and a peer |
//! | `exit.rs` | exit codes, and how a failure is told |
//! | `output.rs`, `screen.rs` | what is printed, for people or as JSON |
//! | `log.rs`, `duration.rs`, `rule.rs`, `stranger.rs`, `transfer.rs` | what else several commands need |
//! | one for each command | that command |
//!
//! Invariants: no thread starts before a command runs, since the demo's lab enters a user namespace; nothing that a peer
//! or a file says reaches the terminal uncleaned. Deliberately absent: any protocol logic.

mod checkpoint;
mod config;
mod context;
mod daemon;
mod demo;
mod duration;
mod events;
mod exit;
mod keys;
mod log;
mod manual;
mod networks;
mod output;
mod ping;
mod receive;
mod resume;
mod rpc;
mod rule;
mod screen;
mod send;
mod simulate;
mod status;
mod stranger;
mod transfer;
mod trust;
mod tunnel;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use context::{Context, Globals};
use demo::lab::Place;
use demo::protocol::Role;
use exit::Exit;
use output::Output;

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 the arguments or the configuration cannot be used, 3 refused for want of trust, \
4 nobody answered in time, 5 interrupted and the same command goes on from there, 6 not known, somebody has to look.

STEADFAST_CONFIG and STEADFAST_IDENTITY stand for --config and --identity. STEADFAST_LOG=debug tells on standard error \
what happens inside.";

/// Messages between machines over every network they have.
#[derive(Debug, Parser)]
#[command(name = "steadfast", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Arguments {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this side's key.
    Keygen {
        /// Replace the key that is there.
        #[arg(long)]
        force: bool,
    },
    /// Print this side's public key, for others to trust.
    Id,
    /// Say whom this side trusts.
    #[command(subcommand)]
    Trust(trust::Command),
    /// Show this host's networks as Steadfast sees them.
    Networks(networks::Arguments),
    /// Measure round trips to a peer, over every path and through a conversation.
    Ping(ping::Arguments),
    /// Tell whether a peer lives, and if it does not answer, why.
    Watch(watch::Arguments),
    /// Send files and directories to a machine where `steadfast receive` runs; the same command goes on after anything.
    Send(send::Arguments),
    /// Receive files and directories, and print the line with which the other side sends them.
    Receive(receive::Arguments),
    /// Go on with what was being sent and received when this machine, or the program, went down.
    Resume(resume::Arguments),
    /// Carry TCP connections of programs such as ssh and curl to a machine where `steadfast tunnel --serve` runs.
    Tunnel(tunnel::Arguments),
    /// Make calls over Homa, answer them, and measure them.
    #[command(subcommand)]
    Rpc(rpc::Command),
    /// Run the daemon of this host: the fault backplane's agent, and what `steadfast status` tells.
    Daemon(daemon::Arguments),
    /// Show what the daemon of this host knows.
    Status(status::Arguments),
    /// Publish events of the fault backplane, and follow them.
    #[command(subcommand)]
    Events(events::Command),
    /// Save processes, restore them, and look at what was saved.
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
    /// Simulate a data centre in which hosts use a transport, packet by packet.
    #[command(subcommand)]
    Simulate(simulate::Command),
    /// Show, in half a minute and without root, a conversation that outlives the loss of a network.
    Demo,
    /// Print what makes a shell complete the program's arguments.
    Completions(manual::Completions),
    /// Print the manual page, or write one for each command.
    Man(manual::Manual),
    /// The demo's process that makes the hosts and the networks between them.
    #[command(hide = true)]
    DemoLab {
        /// Where the conversation takes place.
        place: Place,
    },
    /// The parent of a program that has moved here.
    #[command(hide = true)]
    CheckpointAdopt(checkpoint::Adopt),
    /// One of the demo's two hosts.
    #[command(hide = true)]
    DemoHost {
        /// Which one.
        role: Role,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::usage(&error),
    };
    let mut output = Output::new(arguments.globals.json);
    // Nobody looks at a daemon until it is too late: what an operator has to mend it tells without being asked.
    let logs = log::start(matches!(arguments.command, Command::Daemon(_)).then_some("steadfast=warn"));
    if let (Ok(()), Command::Checkpoint(command)) = (&logs, &arguments.command) {
        return checkpoint::run(command, &arguments.globals, &mut output);
    }
    if let (Ok(()), Command::CheckpointAdopt(adopt)) = (&logs, &arguments.command) {
        return checkpoint::adopt(adopt, &arguments.globals, &mut output);
    }
    let result = logs.and_then(|()| match arguments.command {
        Command::DemoLab { place } => Ok(demo::lab::run(place)),
        Command::DemoHost { role } => Ok(demo::host::run(role)),
        command => run(command, &arguments.globals, &mut output),
    });
    exit::end(result, &mut output)
}

/// Runs a command for people and scripts.
fn run(command: Command, globals: &Globals, output: &mut Output) -> anyhow::Result<Exit> {
    // A demo needs no files, and so no home.
    let context = || Context::new(globals);
    match command {
        Command::Keygen { force } => keys::generate(force, &context()?, output),
        Command::Id => keys::show(&context()?, output),
        Command::Trust(command) => trust::run(command, &context()?, output),
        Command::Networks(arguments) => networks::run(&arguments, &context()?, output),
        Command::Ping(arguments) => ping::run(&arguments, &context()?, output),
        Command::Watch(arguments) => watch::run(&arguments, &context()?, output),
        Command::Send(arguments) => send::run(&arguments, &context()?, output),
        Command::Resume(arguments) => resume::run(&arguments, &context()?, output),
        Command::Receive(arguments) => receive::run(&arguments, &context()?, output),
        Command::Tunnel(arguments) => tunnel::run(&arguments, &context()?, output),
        Command::Rpc(command) => rpc::run(&command, &context()?, output),
        Command::Daemon(arguments) => daemon::run(&arguments, &context()?, output),
        Command::Status(arguments) => status::run(&arguments, &context()?, output),
        Command::Events(command) => events::run(&command, &context()?, output),
        Command::Completions(arguments) => manual::completions(&arguments, output),
        Command::Man(arguments) => manual::manual(&arguments, output),
        Command::Simulate(command) => simulate::run(&command, output),
        Command::Demo => demo::run(output),
        Command::Checkpoint(_)
        | Command::CheckpointAdopt(_)
        | Command::DemoLab { .. }
        | Command::DemoHost { .. } => unreachable!("they are run by themselves"),
    }
}
