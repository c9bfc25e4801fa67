//! `steadfast rpc`: requests and responses over Homa, to try it, to measure it, and to try it against the Linux module.

mod bench;
mod call;
mod lengths;
mod load;
mod message;
mod report;
mod serve;
mod tally;
mod way;

use clap::{Subcommand, ValueEnum};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::Output;

/// The port where others look first: that of the module's own tools.
const PORT: u16 = 4000;
/// The highest port that a server can have.
const MAX_PORT: i64 = 32_767;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send every request back to whom it came from.
    Serve(serve::Arguments),
    /// Make calls of one length and tell how long they took and what became of them.
    Call(call::Arguments),
    /// Make calls of many lengths, at their own times, and tell how long they took by length.
    Bench(bench::Arguments),
}

/// What carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Carrier {
    /// UDP, encrypted, between peers that trust each other's keys.
    Udp,
    /// UDP in the clear, within this host.
    Plain,
    /// IP protocol 146 in the clear, as the Linux module speaks it. Needs `CAP_NET_RAW`.
    Raw,
}

impl Carrier {
    const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Plain => "plain",
            Self::Raw => "raw",
        }
    }

    /// What it is called in the results of benchmarks.
    const fn system(self) -> &'static str {
        match self {
            Self::Udp => "homa",
            Self::Plain => "homa_plain",
            Self::Raw => "homa_raw",
        }
    }

    /// Bytes of the longest message.
    const fn longest(self) -> u32 {
        match self {
            Self::Udp | Self::Plain => 16 << 20,
            Self::Raw => lengths::LONGEST,
        }
    }
}

pub(crate) fn run(command: &Command, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    match command {
        Command::Serve(arguments) => serve::run(arguments, context, output),
        Command::Call(arguments) => call::run(arguments, context, output),
        Command::Bench(arguments) => bench::run(arguments, context, output),
    }
}
