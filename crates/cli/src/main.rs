//! The program `steadfast`.

mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use demo::lab::Place;
use demo::protocol::Role;

/// Messages between machines over every network they have.
#[derive(Debug, Parser)]
#[command(name = "steadfast", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show, in half a minute and without root, a conversation that outlives the loss of a network.
    Demo {
        /// Print the result as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// The demo's process that makes the hosts and the networks between them.
    #[command(hide = true)]
    DemoLab {
        /// Where the conversation takes place.
        place: Place,
    },
    /// One of the demo's two hosts.
    #[command(hide = true)]
    DemoHost {
        /// Which one.
        role: Role,
    },
}

fn main() -> ExitCode {
    // No thread may start before this: the lab's process enters a user namespace.
    match Arguments::parse().command {
        Command::Demo { json } => demo::run(json),
        Command::DemoLab { place } => demo::lab::run(place),
        Command::DemoHost { role } => demo::host::run(role),
    }
}
