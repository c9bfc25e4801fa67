//! `steadfast receive`: files and directories from somebody who sends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use steadfast::{Endpoint, Fingerprint, MultiSocket};
use steadfast_transfer::{Event, Monitor, ReceiveFailure, Receiver, Store, discard_partial, printable_path};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::context::{self, Context};
use crate::exit::{self, Exit, Failure};
use crate::output::Output;
use crate::stranger::{Strangers, Wish};
use crate::transfer::{
    Direction, Job, Jobs, Meter, Report, Stop, Told, Typed, announce, same_command, watched,
};

/// How often the screen changes.
const LOOK: Duration = Duration::from_millis(250);

/// What strangers want here.
const WISH: Wish = Wish { wants: "send", grant: "Take files from it" };

/// Transfers that a screen shows at once.
const SHOWN: usize = 4;

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the line that the other side runs, and waits. A file gets its name when all of it is there and checked; until \
then it lies in DIR/.steadfast-partial, from where it goes on after whatever happened. What nobody has added to for 30 \
days is removed there. A file that is there with other content stays, and the new one fails, unless --overwrite is given.

A sender whose key is not trusted is asked about at a terminal, and refused without one; `steadfast trust add KEY` or \
--trust KEY lets it in.

Exit codes: 0 all is there; 1 some files failed; 2 usage; 5 stopped or cut off before a transfer was complete.

Examples:
  steadfast receive ~/incoming
  steadfast receive --keep --trust kx4v...2a /srv/uploads")]
pub(crate) struct Arguments {
    /// Where the files go; made if it is missing.
    #[arg(default_value = ".", value_name = "DIR")]
    directory: PathBuf,
    /// Go on for further transfers, several at once, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// The port to listen on [default: the one of the configuration, 7463, or any other if that is taken].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Replace files that are there with other content.
    #[arg(long)]
    overwrite: bool,
    /// Take files from this key, this time; may be given several times.
    #[arg(long, value_name = "KEY")]
    trust: Vec<Fingerprint>,
    /// Remove what was cut off and never completed in DIR, and end.
    #[arg(long, conflicts_with_all = ["keep", "port", "overwrite", "trust"])]
    discard_partial: bool,
    /// Print nothing but the line for the other side and what failed.
    #[arg(short, long)]
    quiet: bool,
    /// Where to remember this until it is done, for `steadfast resume` [default: transfers, in ~/.local/state/steadfast].
    #[arg(long, value_name = "DIR", conflicts_with = "discard_partial")]
    store: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    if arguments.discard_partial {
        return discard(&arguments.directory, output);
    }
    context::run(async {
        let stop = Stop::new()?;
        let config = context.config()?;
        let (directory, overwrite) = (arguments.directory.clone(), arguments.overwrite);
        let opened = tokio::task::spawn_blocking(move || Store::open(&directory, overwrite)).await?;
        let store = opened.map_err(|error| Failure::usage(error.to_string()))?;
        let endpoint = context.listen(&config, arguments.port, |builder| builder).await?;
        for key in &arguments.trust {
            endpoint.trust(*key);
        }
        // There the sender looks for it.
        let port = arguments.port.is_none().then(|| [String::from("--port"), endpoint.port().to_string()]);
        let typed = Typed::now(port.as_ref().map_or(&[][..], |words| &words[..]))?;
        let job = Jobs::new(arguments.store.as_deref(), context).begin(&typed, output)?;
        let shown = printable_path(store.path());
        let lead = format!("Receiving into {shown}. To send files here, run on the other machine:");
        let command = |host: &str| format!("steadfast send FILE... {host}");
        announce(&endpoint, command, &lead, &[("directory", shown.into())], output)?;
        let (sender, finished) = mpsc::unbounded_channel();
        let receiving = Receiving {
            arguments,
            strangers: Strangers::new(endpoint.clone(), WISH, context, output),
            endpoint,
            receiver: Arc::new(Receiver::new(store)),
            tasks: JoinSet::new(),
            active: BTreeMap::new(),
            next: 0,
            greeted: sender,
            worst: None,
            cut_off: BTreeSet::new(),
            output,
        };
        let exit = receiving.run(stop, finished).await?;
        if exit != Exit::Interrupted {
            job.into_iter().for_each(Job::done);
        }
        Ok(exit)
    })
}

fn discard(directory: &Path, output: &mut Output) -> anyhow::Result<Exit> {
    let shown = printable_path(directory);
    let freed = discard_partial(directory).with_context(|| format!("cannot clean up {shown}"))?;
    output.object(&json!({ "event": "discarded", "bytes": freed }))?;
    output.line(format!("Removed {} of unfinished files in {shown}.", crate::transfer::bytes(freed)))?;
    Ok(Exit::Done)
}

/// One transfer that is on the screen.
struct Active {
    conversation: MultiSocket,
    monitor: Arc<Monitor>,
    events: UnboundedReceiver<Event>,
    meter: Meter,
    report: Report,
}

/// Someone who said that it wants to send.
struct Greeted {
    request: steadfast_transfer::Request,
}

/// A transfer that is over.
struct Finished {
    number: u64,
    result: Result<u64, ReceiveFailure>,
}

struct Receiving<'a> {
    arguments: &'a Arguments,
    endpoint: Endpoint,
    receiver: Arc<Receiver>,
    strangers: Strangers,
    tasks: JoinSet<Option<Finished>>,
    active: BTreeMap<u64, Active>,
    next: u64,
    greeted: UnboundedSender<Greeted>,
    /// How the transfers ended that did.
    worst: Option<Exit>,
    /// Who was cut off and did not come back.
    cut_off: BTreeSet<Fingerprint>,
    output: &'a mut Output,
}

impl Receiving<'_> {
    async fn run(mut self, mut stop: Stop, mut greeted: UnboundedReceiver<Greeted>) -> anyhow::Result<Exit> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let endpoint = self.endpoint.clone();
        let stopped = loop {
            if let Some(exit) = self.worst
                && !self.arguments.keep
                && self.active.values().all(|active| active.conversation.is_parked())
            {
                break Some(exit);
            }
            tokio::select! {
                socket = endpoint.accept() => {
                    let Some(socket) = socket else { break Some(Exit::Failed) };
                    let (receiver, greeted) = (Arc::clone(&self.receiver), self.greeted.clone());
                    self.tasks.spawn(async move {
                        if let Some(request) = receiver.greet(socket).await {
                            let _gone = greeted.send(Greeted { request });
                        }
                        None
                    });
                }
                Some(Greeted { request }) = greeted.recv() => self.begin(request)?,
                Some(task) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Some(finished) = task? {
                        self.finished(finished)?;
                    }
                }
                stranger = endpoint.next_stranger(), if self.strangers.is_free() => {
                    let Some(stranger) = stranger else { break Some(Exit::Failed) };
                    self.strangers.came(stranger, self.output)?;
                }
                answer = self.strangers.answer() => self.strangers.answered(answer, self.output)?,
                _ = looks.tick() => self.look()?,
                () = stop.wait() => break None,
            }
        };
        self.output.end_status();
        let reason = if stopped.is_some() { "" } else { "the receiver was stopped" };
        // A second signal does not wait for farewells.
        tokio::select! {
            () = self.endpoint.close(reason) => {}
            () = stop.wait() => {}
        }
        match stopped {
            Some(exit) => self.ended(exit),
            None => self.stopped(),
        }
    }

    fn begin(&mut self, request: steadfast_transfer::Request) -> anyhow::Result<()> {
        let (monitor, events) = watched();
        let peer = request.peer();
        self.next += 1;
        let number = self.next;
        let active = Active {
            conversation: request.conversation(),
            monitor: Arc::clone(&monitor),
            events,
            meter: Meter::new(&self.endpoint, Some(peer), Direction::Received),
            report: Report::new(Told::Receiving, peer.to_string(), self.arguments.quiet),
        };
        if !self.arguments.quiet {
            let name = self.strangers.name_of(&peer);
            self.output.line(format!("{name} sends."))?;
        }
        self.active.insert(number, active);
        let receiver = Arc::clone(&self.receiver);
        self.tasks.spawn(async move {
            Some(Finished { number, result: receiver.receive(request, monitor).await })
        });
        Ok(())
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        for active in self.active.values_mut() {
            while let Ok(event) = active.events.try_recv() {
                active.report.event(&event, self.output)?;
            }
            let progress = active.monitor.progress();
            active.meter.sample(progress.bytes);
            let some = active.report.progress(&progress, &active.meter, self.output)?;
            if lines.len() < SHOWN {
                lines.extend(some);
            }
        }
        // A question stands where the lines would be.
        if self.strangers.is_free() {
            self.output.screen().status(&lines);
        }
        Ok(())
    }

    fn finished(&mut self, finished: Finished) -> anyhow::Result<()> {
        // So that what was told last is told before the end.
        self.look()?;
        let Some(active) = self.active.remove(&finished.number) else { return Ok(()) };
        let Active { conversation, monitor, meter, report, .. } = active;
        let progress = monitor.progress();
        let (exit, error) = match finished.result {
            Ok(unread) => {
                self.cut_off.remove(&conversation.peer());
                report.end(&progress, &meter, self.output)?;
                if unread > 0 {
                    self.output.line(format!("The sender could not send {unread} of its files."))?;
                }
                (if progress.failed + unread > 0 { Exit::Failed } else { Exit::Done }, None)
            }
            // The same sender is here again, under another number.
            Err(ReceiveFailure::Superseded) => return Ok(()),
            Err(failure) if failure.may_go_on() => {
                let words = format!(
                    "The transfer was cut off: {failure}. What has come is kept; waiting for the sender."
                );
                self.cut_off.insert(conversation.peer());
                self.output.object(&json!({ "event": "cut_off", "reason": failure.to_string() }))?;
                self.output.line(words)?;
                return Ok(());
            }
            Err(failure) => {
                let (exit, words) =
                    exit::tell(&anyhow::Error::from(failure).context("cannot receive"), self.output);
                (exit, Some(words))
            }
        };
        let result = report.result(&progress, &meter, exit as u8, error.as_deref());
        self.output.object(&result)?;
        let before = self.worst.unwrap_or(Exit::Done);
        self.worst = Some(if before == Exit::Done { exit } else { before });
        Ok(())
    }

    /// What was waited for is over: the exit code, and whose files are not all there.
    fn ended(&mut self, exit: Exit) -> anyhow::Result<Exit> {
        self.cut_off.extend(self.active.values().map(|active| active.conversation.peer()));
        if self.cut_off.is_empty() {
            return Ok(exit);
        }
        let exit = if exit == Exit::Done { Exit::Interrupted } else { exit };
        for peer in &self.cut_off {
            let name = self.strangers.name_of(peer);
            let line = format!(
                "What {name} sends was cut off and is not complete; what has come is kept, and goes on when both sides run \
                 again."
            );
            self.output.line(line)?;
            self.output
                .object(&json!({ "event": "incomplete", "peer": peer.to_string(), "exit": exit as u8 }))?;
        }
        Ok(exit)
    }

    /// Somebody stopped it: the exit code, and how to go on.
    fn stopped(&mut self) -> anyhow::Result<Exit> {
        if self.arguments.keep && self.active.is_empty() {
            self.output.object(&json!({ "event": "stopped", "exit": Exit::Done as u8 }))?;
            return Ok(Exit::Done);
        }
        let again = match self.arguments.port {
            Some(_) => same_command(),
            // There the sender looks for it.
            None => format!("{} --port {}", same_command(), self.endpoint.port()),
        };
        self.output.line("Stopped. What has come is kept; to go on from there:")?;
        self.output.line(format!("  {again}"))?;
        let error = format!("stopped; to go on from there: {again}");
        self.output
            .object(&json!({ "event": "stopped", "error": error, "exit": Exit::Interrupted as u8 }))?;
        Ok(Exit::Interrupted)
    }
}
