//! `steadfast tunnel`: TCP connections of unmodified programs over one conversation.

mod client;
mod report;
mod serve;
mod spec;

use clap::Args;
use steadfast::Fingerprint;
use steadfast_tunnel::{Event, Monitor};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::context::{self, Connecting, Context};
use crate::exit::Exit;
use crate::output::Output;
pub(crate) use spec::{Allowed, Spec};

#[derive(Debug, Args)]
#[command(after_help = "\
A forward is [ADDRESS:]PORT=TARGET: who connects to the port here is connected to TARGET, HOST:PORT as the other side \
sees it. Behind commas stands what holds for it:
  foreground      ahead of everything that is background; this is the default
  background      behind everything that is foreground, over all networks at once
  small           little at a time, as somebody types: the network that answers soonest
  only=NETWORK    these networks only
  prefer=NETWORK  these networks first
  avoid=NETWORK   these networks only where no other leads there
  never=NETWORK   not these networks, even if no other leads there
NETWORK is a class (ethernet, wifi, cellular, satellite, loopback, virtual, other), the name of a network on either \
side, or `metered`. Without an ADDRESS only this host can connect; PORT 0 is any that is free.

Connections live as long as both programs want, over the loss of every network. With --serve this side connects to what \
--allow names, for peers whose keys are trusted, and to nothing else; a target is compared as it is written. Peers \
whose keys are not trusted are asked about at a terminal, and refused without one.

HOST is the part KEY@ADDRESS,... of the line that the serving side prints, HOST[:PORT] of a peer whose key is trusted under \
that name, or a name from the configuration, which may name forwards and what is allowed, too.

Exit codes: 0 stopped by Ctrl-C; 1 failed; 2 usage; 3 refused; 4 not reached at the start.

Examples:
  steadfast tunnel --serve --allow localhost:22 --allow 'web.local:*'
  steadfast tunnel boat 2222=localhost:22,small 8080=localhost:80,background,never=metered
  ssh -p 2222 localhost")]
pub(crate) struct Arguments {
    /// Where the connections go.
    #[arg(required_unless_present = "serve", conflicts_with = "serve")]
    host: Option<String>,
    /// What is forwarded [default: what the configuration has for HOST].
    #[arg(value_name = "FORWARD", conflicts_with = "serve")]
    forwards: Vec<Spec>,
    /// Connect to targets for others.
    #[arg(long)]
    serve: bool,
    /// With --serve: connect to this target; `*` stands for every host or every port. May be given several times.
    #[arg(long, value_name = "TARGET", requires = "serve", conflicts_with = "host")]
    allow: Vec<Allowed>,
    /// With --serve: the port to listen on [default: the one of the configuration, 7463, or any other if that is taken].
    #[arg(long, requires = "serve", conflicts_with = "host", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// With --serve: let in this key, this time; may be given several times.
    #[arg(long, value_name = "KEY", requires = "serve", conflicts_with = "host")]
    trust: Vec<Fingerprint>,
    #[command(flatten)]
    connecting: Connecting,
    /// Print nothing but what others have to know and what failed.
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    context::run(async {
        match &arguments.host {
            Some(host) => client::run(host, arguments, context, output).await,
            None => serve::run(arguments, context, output).await,
        }
    })
}

/// A monitor, and what it tells.
fn watched() -> (Monitor, UnboundedReceiver<Event>) {
    let (sender, events) = unbounded_channel();
    let monitor = Monitor::new(move |event| {
        // Whoever watched is gone at the end.
        let _gone = sender.send(event);
    });
    (monitor, events)
}
