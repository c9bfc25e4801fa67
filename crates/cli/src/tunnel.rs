//! `steadfast tunnel`: TCP connections of unmodified programs over one conversation.

mod client;
mod report;
mod serve;
mod spec;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use steadfast::Fingerprint;
use steadfast_tunnel::{Event, Monitor};
use tokio::sync::mpsc::{Receiver, Sender, channel};

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

Connections live as long as both programs want, over the loss of every network; the serving side gives up those of a \
peer that it does not reach for an hour. With --serve this side connects to what \
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

/// Events that wait to be written, at most: a peer makes them as fast as it likes, and a terminal may be stopped.
const EVENTS: usize = 4096;

/// What a monitor tells.
struct Watched {
    events: Receiver<Event>,
    /// How many events were left out.
    left_out: Arc<AtomicU64>,
}

/// A monitor, and what it tells.
fn watched() -> (Monitor, Watched) {
    let (sender, events) = channel(EVENTS);
    let left_out = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&left_out);
    (Monitor::new(move |event| keep(&sender, &count, event)), Watched { events, left_out })
}

fn keep(sender: &Sender<Event>, left_out: &AtomicU64, event: Event) {
    // Whoever watched may also be gone, at the end.
    if sender.try_send(event).is_err() {
        left_out.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_nobody_takes_are_counted_and_not_kept() {
        let ((sender, mut events), left_out) = (channel(2), AtomicU64::new(0));
        let tell = || keep(&sender, &left_out, Event::Waiting { words: "for nothing".into() });
        (0..9).for_each(|_| tell());
        assert_eq!(left_out.load(Ordering::Relaxed), 7);
        assert!(events.try_recv().is_ok());
        tell();
        assert_eq!((left_out.load(Ordering::Relaxed), events.len()), (7, 2));
    }
}
