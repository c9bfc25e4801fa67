//! `steadfast watch`: whether a peer lives, and if not, why it does not answer.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use steadfast::{Endpoint, Fingerprint, Standing, Verdict};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::context::{self, Connecting, Context};
use crate::exit::{Exit, Failure};
use crate::output::{Output, clean};
use crate::screen::Style;

/// How often the peer is asked, and how long for.
const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(after_help = "\
Says what is known of the peer's process, and every change of it: alive, left (it said farewell), crashed (gone without \
one), restarted (another process answers in its place), hung (its host answers, it does not), unreachable (nothing answers), \
no local network, suspended (it said that it falls silent for a while). Ends with Ctrl-C, or when the conversation does: with the process that it was with.

HOST is as for `steadfast ping`. Exit code 0: Ctrl-C, or the peer left; 1: it crashed or was restarted; 3: refused; \
4: it was not reached.

Examples:
  steadfast watch boat
  steadfast watch --json boat | jq -r .verdict")]
pub(crate) struct Arguments {
    /// Whom to watch.
    host: String,
    #[command(flatten)]
    connecting: Connecting,
}

pub(crate) fn run(arguments: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    context::run(async {
        // From here on, not only when it is first waited for.
        let mut interrupts = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
        let (endpoint, socket) = context.connect(&arguments.host, &arguments.connecting).await?;
        let mut changes = socket.verdicts();
        let mut asking = JoinSet::new();
        asking.spawn(ask(endpoint.clone(), socket.peer()));
        let mut last = socket.verdict();
        say(output, &last)?;
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(change) => {
                        say(output, &change)?;
                        last = change;
                    }
                    None => break,
                },
                _ = interrupts.recv() => {
                    endpoint.close("nobody watches any more").await;
                    return Ok(Exit::Done);
                }
            }
        }
        endpoint.close("the watch is over").await;
        if last.verdict == Verdict::Left {
            return Ok(Exit::Done);
        }
        let help = "watch it again to meet the process that is there now";
        let message =
            format!("cannot watch {} any longer: {}; {help}", arguments.host, clean(&last.to_string()));
        Err(Failure::new(Exit::Failed, message).into())
    })
}

/// Asks the peer once a second on every path. On one host nothing is said on an idle path, and who is owed no answer cannot
/// tell that a process hangs.
async fn ask(endpoint: Endpoint, peer: Fingerprint) {
    loop {
        let mut asked = JoinSet::new();
        for path in endpoint.paths().into_iter().filter(|path| path.peer == peer) {
            let endpoint = endpoint.clone();
            asked.spawn(async move { endpoint.probe(path.path).await });
        }
        // Others are asked meanwhile: a path may come up beside one that does not answer.
        let all = async { while asked.join_next().await.is_some() {} };
        let _late = tokio::time::timeout(PATIENCE, all).await;
        tokio::time::sleep(EVERY).await;
    }
}

fn say(output: &mut Output, standing: &Standing) -> anyhow::Result<()> {
    let (verdict, evidence) = (standing.verdict, standing.evidence.to_string());
    let age = standing.age.as_secs_f64();
    output
        .object(&json!({ "type": "peer", "verdict": verdict.name(), "evidence": evidence, "age_s": age }))?;
    let style = if verdict == Verdict::Alive { Style::Green } else { Style::Red };
    let word = output.screen().paint(style, verdict.name());
    Ok(output.line(format!("{word}: {}", clean(&evidence)))?)
}
