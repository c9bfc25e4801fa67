//! `steadfast send`: files and directories to somebody who receives.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use steadfast::{Endpoint, Labels, Rule, Selectors, Target};
use steadfast_transfer::{Event, Monitor, Plan, SendFailure, Sender};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval};

use crate::context::{self, Context};
use crate::duration;
use crate::exit::{self, Exit, Failure};
use crate::output::{Output, clean};
use crate::rule;
use crate::screen::Style;
use crate::transfer::{Direction, Job, Jobs, Meter, Report, Stop, Told, Typed, same_command, watched};

/// How long the receiver may take to answer.
const REACH: Duration = Duration::from_secs(30);

/// How long a person there may take to accept our key.
const ACCEPT: Duration = Duration::from_secs(300);

/// How often the screen changes.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
#[command(after_help = "\
Directories are sent with all that is in them; symbolic links in them, devices and the like are passed over. What \
is there with the same content is not sent again, and what was cut off goes on: run the same command again after \
whatever happened, or `steadfast resume`, which does that for all of them.

HOST is the line that `steadfast receive` prints there, HOST[:PORT] of a peer whose key is trusted under that name, \
or a name from the configuration. NETWORK is a class (ethernet, wifi, cellular, satellite, loopback, virtual, other), \
the name of an interface on either side, or `metered`; what is said of networks holds for every byte.

Exit codes: 0 all is there; 1 some files failed; 2 usage; 3 the other side does not trust this one; 4 not reached in \
time; 5 stopped, and the same command goes on.

Examples:
  steadfast send photos kx4v...2a@192.168.1.7:7463
  steadfast send --never metered *.bag boat
  steadfast send --only wifi --only ethernet --wait 1h log.txt boat")]
pub(crate) struct Arguments {
    /// What to send.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// To whom.
    host: String,
    /// Ahead of everything else that these programs send.
    #[arg(long, conflicts_with = "background")]
    foreground: bool,
    /// Behind everything that is urgent; this is the default.
    #[arg(long)]
    background: bool,
    /// Use these networks only.
    #[arg(long, value_name = "NETWORK")]
    only: Vec<String>,
    /// Use these networks only where no other leads there.
    #[arg(long, value_name = "NETWORK")]
    avoid: Vec<String>,
    /// Use these networks for nothing of it, even if no other leads there.
    #[arg(long, value_name = "NETWORK")]
    never: Vec<String>,
    /// How long to wait for the other side: to answer [30s], to accept this side's key [5m at a terminal, else not at
    /// all], and to come back when no network leads there any more [for ever].
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    wait: Option<Duration>,
    /// Print nothing but what failed.
    #[arg(short, long)]
    quiet: bool,
    /// Where to remember this transfer until it is done, for `steadfast resume` [default: transfers, in
    /// ~/.local/state/steadfast].
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let labels = labels(arguments)?;
    let plan = Plan::new(&arguments.files).map_err(|error| Failure::usage(error.to_string()))?;
    context::run(async {
        let mut stop = Stop::new()?;
        let config = context.config()?;
        let target = context.target(&config, &arguments.host)?;
        let reach = arguments.wait.unwrap_or(REACH);
        let endpoint = context.builder(&config).connect_limit(reach).bind().await?;
        let job = Jobs::new(arguments.store.as_deref(), context).begin(&Typed::now(&[])?, output)?;
        let at_terminal = std::io::stdout().is_terminal() && !output.is_json();
        let accept = arguments.wait.unwrap_or(if at_terminal { ACCEPT } else { Duration::ZERO });
        let sender =
            Sender::new(plan, labels).reach_limit(reach).trust_limit(accept).parked_limit(arguments.wait);
        let named = arguments.only.iter().chain(&arguments.avoid).chain(&arguments.never);
        rule::warn_of_unknown(named.map(|name| rule::selector(name)), &endpoint, output)?;
        let (monitor, events) = watched();
        let meter = Meter::new(&endpoint, target.fingerprint, Direction::Sent);
        let peer = target.fingerprint.map_or_else(|| clean(&arguments.host), |key| key.to_string());
        let report = Report::new(Told::Sending, peer, arguments.quiet);
        let mut sending = Sending { arguments, endpoint, monitor, meter, report, output };
        let exit = sending.run(&sender, &target, &mut stop, events).await?;
        // What was never there needs nobody to go on with it.
        let begun = sending.monitor.progress().done > 0 || job.as_ref().is_some_and(Job::goes_on);
        match (exit, job) {
            (Exit::Unreachable, Some(job)) if !begun => job.done(),
            (Exit::Unreachable | Exit::Interrupted, _) => {}
            (_, job) => job.into_iter().for_each(Job::done),
        }
        Ok(exit)
    })
}

fn labels(arguments: &Arguments) -> anyhow::Result<Labels> {
    let labels = if arguments.foreground { Labels::foreground() } else { Labels::background() };
    let all = |names: &[String]| names.iter().map(|name| rule::selector(name)).collect::<Vec<_>>();
    let rule = Rule::from(Selectors {
        require: all(&arguments.only),
        avoid: all(&arguments.avoid),
        prohibit: all(&arguments.never),
        ..Selectors::default()
    });
    if !rule.fits() {
        let message = "cannot send under this rule: each of --only, --avoid and --never may be given 8 times, and a name \
                       has at most 64 bytes";
        return Err(Failure::usage(message).into());
    }
    Ok(labels.rule(rule))
}

struct Sending<'a> {
    arguments: &'a Arguments,
    endpoint: Endpoint,
    monitor: Arc<Monitor>,
    meter: Meter,
    report: Report,
    output: &'a mut Output,
}

impl Sending<'_> {
    async fn run(
        &mut self,
        sender: &Sender,
        target: &Target,
        stop: &mut Stop,
        mut events: UnboundedReceiver<Event>,
    ) -> anyhow::Result<Exit> {
        let (endpoint, monitor) = (self.endpoint.clone(), Arc::clone(&self.monitor));
        let result = {
            let mut delivery = pin!(sender.deliver(&endpoint, target, &monitor));
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    result = &mut delivery => break Some(result),
                    Some(event) = events.recv() => self.event(&event)?,
                    _ = looks.tick() => self.look()?,
                    () = stop.wait() => break None,
                }
            }
        };
        while let Ok(event) = events.try_recv() {
            self.event(&event)?;
        }
        self.look()?;
        self.output.end_status();
        let closing = self.endpoint.close(if result.is_some() { "" } else { "the sender was stopped" });
        // A second signal does not wait for farewells.
        tokio::select! {
            () = closing => {}
            () = stop.wait() => {}
        }
        self.end(result)
    }

    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        if *event == Event::Untrusted && !self.output.is_json() {
            let key = self.endpoint.fingerprint().to_string();
            let key = self.output.screen().paint(Style::Bold, key);
            self.output.line("The other side does not know this side's key yet. Accept it there; it is")?;
            self.output.line(format!("  {key}"))?;
            self.output
                .line("or run there: steadfast trust add KEY. Asking again until then; Ctrl-C stops.")?;
        }
        self.report.event(event, self.output)
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let progress = self.monitor.progress();
        self.meter.sample(progress.bytes);
        let lines = self.report.progress(&progress, &self.meter, self.output)?;
        self.output.screen().status(&lines);
        Ok(())
    }

    /// Says what came of it; `None` if it was stopped.
    fn end(&mut self, result: Option<Result<(), SendFailure>>) -> anyhow::Result<Exit> {
        let progress = self.monitor.progress();
        let (exit, error) = match result {
            None => {
                let again = same_command();
                self.output.line("Stopped. To go on from there:")?;
                self.output.line(format!("  {again}"))?;
                (Exit::Interrupted, Some(format!("stopped; to go on from there: {again}")))
            }
            Some(Ok(())) => {
                self.report.end(&progress, &self.meter, self.output)?;
                (if progress.failed > 0 { Exit::Failed } else { Exit::Done }, None)
            }
            Some(Err(failure)) => {
                let (exit, words) = exit::tell(&self.explain(failure), self.output);
                (exit, Some(words))
            }
        };
        let result = self.report.result(&progress, &self.meter, exit as u8, error.as_deref());
        self.output.object(&result)?;
        Ok(exit)
    }

    fn explain(&self, failure: SendFailure) -> anyhow::Error {
        let host = clean(&self.arguments.host);
        let what = format!("cannot send to {host}");
        match failure {
            SendFailure::Connect(error) => anyhow::Error::from(error).context(what),
            SendFailure::Parked(_) => Failure::new(Exit::Unreachable, format!("{what}: {failure}")).into(),
            SendFailure::Lost(_) => Failure::new(Exit::Unreachable, format!("{what}: {failure}")).into(),
            other => anyhow::Error::from(other).context(what),
        }
    }
}
