//! `steadfast ping`: round trips over every path to a peer, and through a conversation.

mod lines;
mod tally;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use steadfast::{Bytes, Endpoint, Events, Labels, MultiSocket, Outcome, PathInfo, PathNumber, SessionError};
use steadfast_transfer::message::PING;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::context::{self, Connecting, Context};
use crate::duration;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use lines::Lines;
use tally::{Route, Tally};

/// How long the last answers are waited for: longer than a path may be silent before it is down, which settles its probe.
const LINGER: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(after_help = "\
Each round asks every path for its round trip, and sends a small urgent message, which takes the path that is best just \
then. The times are between the two programs, not between the two kernels. Ctrl-C ends with the summary.

HOST is HOST[:PORT] of a peer whose key is trusted under that name, a name from the configuration, or the line \
KEY@ADDRESS,... that the other side prints. Exit code 0: something answered; 4: nothing did; 3: refused.

Examples:
  steadfast ping boat
  steadfast ping -c 3 -i 200ms kx4v...2a@10.0.0.7,10.1.0.7
  steadfast ping --json -c 1 boat | tail -n 1 | jq .message.avg_ms")]
pub(crate) struct Arguments {
    /// Whom to ask.
    host: String,
    /// Rounds; without it until Ctrl-C.
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// From one round to the next.
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    interval: Duration,
    #[command(flatten)]
    connecting: Connecting,
}

pub(crate) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    context::run(async {
        let (endpoint, socket) = context.connect(&arguments.host, &arguments.connecting).await?;
        let mut lines = Lines::new(output);
        lines.begin(&arguments.host, socket.peer())?;
        let events = socket.events();
        let (sender, answers) = mpsc::unbounded_channel();
        let mut ping = Ping {
            endpoint,
            socket,
            lines,
            tally: Tally::default(),
            sender,
            asked: HashSet::new(),
            message: None,
        };
        let result = ping.rounds(arguments, events, answers).await;
        let answered = ping.tally.answered();
        ping.lines.summary(&ping.tally, ping.socket.peer())?;
        ping.endpoint.close("the ping is over").await;
        result?;
        if answered {
            return Ok(Exit::Done);
        }
        let help = "check that both sides can reach each other over some network";
        let message = format!("cannot ping {}: nothing was answered; {help}", arguments.host);
        Err(Failure::new(Exit::Unreachable, message).into())
    })
}

/// What came of one question.
struct Answer {
    round: u64,
    of: Asked,
    time: Option<Duration>,
}

enum Asked {
    Path(PathInfo),
    Message(Result<(), Outcome>),
}

/// The message that is under way.
struct UnderWay {
    /// Bytes given to each path when last looked at.
    bytes: BTreeMap<PathNumber, u64>,
    /// The paths that carried it, each once.
    by: Vec<Route>,
}

struct Ping<'a> {
    endpoint: Endpoint,
    socket: MultiSocket,
    lines: Lines<'a>,
    tally: Tally,
    sender: UnboundedSender<Answer>,
    /// Paths whose answer is waited for: a second question would only get the same.
    asked: HashSet<PathNumber>,
    message: Option<UnderWay>,
}

impl Ping<'_> {
    /// Asks until it is enough, and waits for the last answers.
    async fn rounds(
        &mut self,
        arguments: &Arguments,
        mut events: Events,
        mut answers: UnboundedReceiver<Answer>,
    ) -> anyhow::Result<()> {
        let mut ticks = interval(arguments.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // From here on, not only when it is first waited for.
        let mut interrupts = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
        let (mut round, mut deadline) = (0, None);
        while deadline.is_none() || self.is_waiting() {
            tokio::select! {
                _ = ticks.tick(), if deadline.is_none() => {
                    round += 1;
                    self.ask(round);
                    if arguments.count == Some(round) {
                        deadline = Some(Instant::now() + LINGER);
                    }
                }
                Some(answer) = answers.recv() => self.answered(answer)?,
                event = events.next() => {
                    self.follow();
                    match event {
                        Some(event) => self.lines.event(&event)?,
                        // It has ended; why is known to whoever wants to receive.
                        None => return self.ended(),
                    }
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => return Ok(()),
                _ = interrupts.recv() => return Ok(()),
            }
        }
        Ok(())
    }

    fn is_waiting(&self) -> bool {
        !self.asked.is_empty() || self.message.is_some()
    }

    /// The paths to this peer.
    fn paths(&self) -> Vec<PathInfo> {
        let peer = self.socket.peer();
        self.endpoint.paths().into_iter().filter(|path| path.peer == peer).collect()
    }

    fn ask(&mut self, round: u64) {
        // The message first: what it adds to the bytes of a path shall not be mixed with questions.
        self.follow();
        if self.message.is_none() {
            let bytes = self.paths().iter().map(|path| (path.path, path.sent)).collect();
            self.message = Some(UnderWay { bytes, by: Vec::new() });
            self.send(round);
            self.follow();
        }
        for path in self.paths() {
            self.lines.fit(&path);
            if !self.asked.insert(path.path) {
                continue;
            }
            self.tally.asked(&Route::of(&path));
            let (endpoint, sender) = (self.endpoint.clone(), self.sender.clone());
            tokio::spawn(async move {
                let time = endpoint.probe(path.path).await;
                let _over = sender.send(Answer { round, of: Asked::Path(path), time });
            });
        }
    }

    fn send(&mut self, round: u64) {
        let start = Instant::now();
        let Ok(receipt) = self.socket.try_send(Bytes::from_static(PING), Labels::foreground()) else {
            // The conversation is ending: its event tells, and the paths can be asked until then.
            self.message = None;
            return;
        };
        self.tally.message.asked += 1;
        let (socket, sender) = (self.socket.clone(), self.sender.clone());
        tokio::spawn(async move {
            let acked = receipt.acked().await;
            let time = acked.is_ok().then(|| start.elapsed());
            // The first one tells the peer's program what this is. Nobody needs to read the others.
            if round > 1 {
                let _read = socket.cancel(receipt.id());
            }
            let _over = sender.send(Answer { round, of: Asked::Message(acked), time });
        });
    }

    /// Sees which paths carry the message that is under way: those that were given as many bytes.
    fn follow(&mut self) {
        let paths = self.paths();
        let Some(message) = &mut self.message else { return };
        for path in paths {
            let before = message.bytes.insert(path.path, path.sent).unwrap_or(0);
            let route = Route::of(&path);
            if path.sent - before >= PING.len() as u64 && !message.by.iter().any(|known| known.is(&route)) {
                message.by.push(route);
            }
        }
    }

    fn answered(&mut self, answer: Answer) -> anyhow::Result<()> {
        match answer.of {
            Asked::Path(path) => {
                self.asked.remove(&path.path);
                // As it is called now.
                let fresh = self.paths().into_iter().find(|one| one.path == path.path);
                let route = Route::of(fresh.as_ref().unwrap_or(&path));
                self.tally.answer(&route, answer.time);
                self.lines.probe(answer.round, &route, answer.time)?;
            }
            Asked::Message(result) => {
                self.follow();
                let by = self.message.take().map(|message| message.by).unwrap_or_default();
                if let Err(Outcome::Unknown) = result {
                    // The conversation ended, and the event of it says more.
                    return Ok(());
                }
                self.tally.message_answer(&by, answer.time);
                self.lines.message(answer.round, &by, answer.time)?;
            }
        }
        Ok(())
    }

    fn ended(&mut self) -> anyhow::Result<()> {
        let why = match self.socket.try_recv() {
            Err(error @ SessionError::Ended { .. }) => error.to_string(),
            _ => "the conversation has ended".into(),
        };
        self.lines.ended(&why)?;
        Ok(())
    }
}
