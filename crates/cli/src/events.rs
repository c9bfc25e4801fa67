//! `steadfast events`: publish, subscribe and look at the fault backplane from a shell.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use steadfast::backplane::{
    Backplane, BackplaneError, Declaration, Delivery, EventHandle, Kind, Level, Matching, Notice, Provenance,
    Publication, Reason, Replay, Subscribing,
};
use steadfast_daemon::socket_path;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::context::{self, Context};
use crate::duration;
use crate::exit::{Exit, Failure};
use crate::output::{Output, clean};
use crate::screen::Style;

/// What can be done with events.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish an event, and wait until every subscriber of this host has it in its queue and it is stored.
    Publish(Publish),
    /// Print events as they come, until Ctrl-C.
    Subscribe(Subscribe),
    /// Print the last events, and with --follow what comes.
    Tail(Tail),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the event's id, by which others can answer it (--answers). Exit code 4: no agent answers; 3: a rule refuses it.

Examples:
  steadfast events publish FTB.apps.backup DONE 'took 3 minutes'
  steadfast events publish FTB.apps.backup FAILED --severity error --file log.txt
  dmesg | tail -3 | steadfast events publish site.hosts.kernel OOPS --severity fatal --file -
  steadfast events publish site.ops.pager SEEN --answers \"$STEADFAST_EVENT_ID\"")]
pub(crate) struct Publish {
    /// The event space, `region.category.component`.
    space: String,
    /// The event's name: letters, digits and underscores.
    name: String,
    /// What else there is to say, at most 64 KiB.
    #[arg(default_value = "")]
    payload: String,
    /// info, warning, error or fatal.
    #[arg(long, short, default_value = "info")]
    severity: String,
    /// Take the payload from a file, or from standard input (`-`).
    #[arg(long, short, conflicts_with = "payload")]
    file: Option<PathBuf>,
    /// What the publisher calls itself, at most 15 bytes.
    #[arg(long, default_value = "steadfast")]
    client: String,
    /// The job that it belongs to, at most 15 bytes.
    #[arg(long, default_value = "")]
    job: String,
    /// The event that this one answers: its id, as `publish` and --json print it and commands of sinks have it.
    #[arg(long, value_name = "ID")]
    answers: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
WHAT is FTB's language: pairs attribute=value with commas between, all of which must fit. Attributes: severity, event_space, \
jobid, host_name, event_name, client_name. Without it every event comes. With --json each line is a CloudEvent \
1.0, with the attribute `provenance`: `local`, `signed` by another host, or `unsigned`, which anybody could have made.

Examples:
  steadfast events subscribe
  steadfast events subscribe severity=fatal,event_space=ftb.all.all
  steadfast events subscribe --json | jq -r '.type + \" \" + .data'
  steadfast events subscribe --count 1 event_name=DONE && echo done")]
pub(crate) struct Subscribe {
    #[command(flatten)]
    selection: Selection,
    /// First what came in this time.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    since: Option<Duration>,
    /// End after so many events.
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    selection: Selection,
    /// So many events at most.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    count: u32,
    /// Go on with what comes.
    #[arg(long, short)]
    follow: bool,
}

#[derive(Debug, Args)]
struct Selection {
    /// Which events, in FTB's language.
    #[arg(default_value = "", value_name = "WHAT")]
    what: String,
    /// Join attributes as FTB 0.6.2 did: where `event_name` is given, severity, category and component are ignored.
    #[arg(long)]
    ftb_quirk: bool,
}

/// Where the agent is: as the environment says, or where the same user's daemon is, or the host's.
pub(crate) fn socket(config: &Config) -> PathBuf {
    match std::env::var_os(steadfast::backplane::AGENT) {
        Some(path) if !path.is_empty() => path.into(),
        _ => {
            let named = config.daemon.socket.is_some();
            let own = socket_path(&config.daemon).ok().filter(|path| named || path.exists());
            own.unwrap_or_else(steadfast::backplane::agent)
        }
    }
}

pub(crate) fn run(command: &Command, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let socket = socket(&context.config()?);
    context::run(async {
        match command {
            Command::Publish(arguments) => publish(arguments, socket, output).await,
            Command::Subscribe(arguments) => subscribe(arguments, socket, output).await,
            Command::Tail(arguments) => tail(arguments, socket, output).await,
        }
    })
    .map_err(with_exit)
}

/// Says with its exit code why the backplane does not do something.
fn with_exit(error: anyhow::Error) -> anyhow::Error {
    let exit = match error.downcast_ref::<BackplaneError>() {
        Some(BackplaneError::NoAgent { .. } | BackplaneError::Late { .. }) => Exit::Unreachable,
        Some(BackplaneError::Name(_) | BackplaneError::Subscription(_) | BackplaneError::Payload(_)) => {
            Exit::Usage
        }
        Some(BackplaneError::Refused { reason: Reason::Denied, .. }) => Exit::Refused,
        _ => return error,
    };
    Failure::new(exit, error.to_string()).into()
}

async fn publish(arguments: &Publish, socket: PathBuf, output: &mut Output) -> anyhow::Result<Exit> {
    let payload = match &arguments.file {
        None => arguments.payload.clone().into_bytes(),
        Some(path) if path.as_os_str() == "-" => {
            let mut payload = Vec::new();
            std::io::stdin()
                .lock()
                .take(1 << 20)
                .read_to_end(&mut payload)
                .context("cannot read standard input")?;
            payload
        }
        Some(path) => {
            let mut payload = Vec::new();
            // Some files have no end.
            let read = File::open(path).and_then(|file| file.take(1 << 20).read_to_end(&mut payload));
            read.with_context(|| format!("cannot read the payload from {}", path.display()))?;
            payload
        }
    };
    let mut publication = Publication::new(&arguments.name, payload)?;
    let declaration = Declaration::new(&arguments.name, &arguments.severity).map_err(BackplaneError::from)?;
    let builder = Backplane::builder(Some(&arguments.space))?.socket(socket);
    let backplane = builder.name(&arguments.client)?.job(&arguments.job)?.connect().await?;
    if let Some(wanted) = &arguments.answers {
        publication = publication.in_answer_to(find(&backplane, wanted).await?);
    }
    backplane.declare([declaration]).await?;
    let handle = backplane.publish(publication).await?;
    let id = handle.id.to_string();
    output.object(&json!({ "id": id, "name": arguments.name, "severity": arguments.severity }))?;
    output.line(id)?;
    backplane.close().await?;
    Ok(Exit::Done)
}

/// Looks for an event among those that the agent can still replay.
async fn find(backplane: &Backplane, wanted: &str) -> anyhow::Result<EventHandle> {
    let past = Replay::Recent { events: u32::MAX, within: Duration::MAX };
    let mut events = backplane.subscribe("", Subscribing::default().replay(past).queue(16_384)).await?;
    let mut left = events.replayed().events;
    while left > 0 {
        left = match events.next().await {
            Some(Notice::Event(delivery)) if delivery.event.id.to_string() == wanted => {
                return Ok(delivery.event.handle());
            }
            Some(Notice::Event(_)) => left - 1,
            Some(Notice::Dropped(count)) => left.saturating_sub(count),
            _ => 0,
        };
    }
    Err(Failure::usage(format!(
        "cannot answer `{}`: the agent of this host has no such event, or not any more; take an id from \
         `steadfast events tail --json`",
        clean(wanted)
    ))
    .into())
}

fn how(selection: &Selection, replay: Replay) -> Subscribing {
    let matching = if selection.ftb_quirk { Matching::Ftb } else { Matching::Every };
    Subscribing::default().matching(matching).replay(replay).queue(16_384)
}

async fn subscribe(arguments: &Subscribe, socket: PathBuf, output: &mut Output) -> anyhow::Result<Exit> {
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    let backplane = Backplane::builder(None)?.socket(socket).connect().await?;
    let replay =
        arguments.since.map_or(Replay::Nothing, |within| Replay::Recent { events: u32::MAX, within });
    let mut events =
        backplane.subscribe(&arguments.selection.what, how(&arguments.selection, replay)).await?;
    let mut left = arguments.count;
    while left != Some(0) {
        let notice = tokio::select! {
            notice = events.next() => notice,
            _ = interrupts.recv() => return Ok(Exit::Done),
        };
        let Some(notice) = notice else {
            return Err(
                Failure::new(Exit::Failed, "the agent ended this subscription; subscribe again").into()
            );
        };
        if tell(&notice, output)? {
            left = left.map(|left| left - 1);
        }
    }
    Ok(Exit::Done)
}

async fn tail(arguments: &Tail, socket: PathBuf, output: &mut Output) -> anyhow::Result<Exit> {
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    let backplane = Backplane::builder(None)?.socket(socket).connect().await?;
    let replay = Replay::Recent { events: arguments.count, within: Duration::MAX };
    let mut events =
        backplane.subscribe(&arguments.selection.what, how(&arguments.selection, replay)).await?;
    let mut left = events.replayed().events;
    while left > 0 || arguments.follow {
        let notice = tokio::select! {
            notice = events.next() => notice,
            _ = interrupts.recv() => return Ok(Exit::Done),
        };
        let Some(notice) = notice else { break };
        tell(&notice, output)?;
        left = match notice {
            Notice::Event(_) => left.saturating_sub(1),
            Notice::Dropped(count) => left.saturating_sub(count),
            // The new agent counts anew.
            _ => 0,
        };
    }
    Ok(Exit::Done)
}

/// Prints what came; whether it was an event.
fn tell(notice: &Notice, output: &mut Output) -> anyhow::Result<bool> {
    match notice {
        Notice::Event(delivery) => {
            output.object(&event_json(delivery)?)?;
            let line = line(delivery, output);
            output.line(line)?;
            Ok(true)
        }
        Notice::Dropped(count) => {
            output.object(&json!({ "dropped": count }))?;
            output.line(format!("({count} events gave way: they came faster than they were read)"))?;
            Ok(false)
        }
        _ => {
            output.object(&json!({ "restarted": true }))?;
            output.line("(the agent was restarted)")?;
            Ok(false)
        }
    }
}

fn event_json(delivery: &Delivery) -> anyhow::Result<serde_json::Value> {
    let mut event: serde_json::Value = serde_json::from_str(&delivery.event.to_cloud_event())?;
    // As in sinks: who vouches for it is part of what it says.
    event["provenance"] = delivery.provenance.name().into();
    Ok(event)
}

fn line(delivery: &Delivery, output: &mut Output) -> String {
    let event = &delivery.event;
    let style = match event.severity.level() {
        Level::Info => Style::Green,
        Level::Warning | Level::Error | Level::Fatal => Style::Red,
    };
    let severity = output.screen().paint(style, format!("{:7}", event.severity.to_string().to_lowercase()));
    let payload = String::from_utf8_lossy(event.payload.bytes());
    let whence = match delivery.provenance {
        Provenance::Local => "",
        Provenance::Signed => " (signed)",
        Provenance::Unsigned => " (unsigned)",
    };
    let answers = match &event.kind {
        Kind::Answer(handle) => format!(" in answer to {} {}", handle.space, handle.name),
        Kind::Plain => String::new(),
    };
    let shown: String = payload.chars().take(200).collect();
    let rest = if payload.chars().count() > 200 { " .." } else { "" };
    format!(
        "{} {severity} {} {}{answers} [{}{whence} {}/{}] {}{rest}",
        event.time,
        event.space,
        event.name,
        clean(&event.location.host.to_string()),
        clean(&event.client.name.to_string()),
        event.location.pid,
        clean(&shown),
    )
}
