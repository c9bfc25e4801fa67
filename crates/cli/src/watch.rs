//! `steadfast watch`: whether a peer lives, and if not, why it does not answer.

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use steadfast::{Standing, Verdict};
use tokio::signal::unix::{SignalKind, signal};

use crate::context::{self, Connecting, Context};
use crate::exit::{Exit, Failure};
use crate::output::{Output, clean};
use crate::screen::Style;

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

fn say(output: &mut Output, standing: &Standing) -> anyhow::Result<()> {
    let (verdict, evidence) = (standing.verdict, standing.evidence.to_string());
    let age = standing.age.as_secs_f64();
    output
        .object(&json!({ "type": "peer", "verdict": verdict.name(), "evidence": evidence, "age_s": age }))?;
    let style = if verdict == Verdict::Alive { Style::Green } else { Style::Red };
    let word = output.screen().paint(style, verdict.name());
    Ok(output.line(format!("{word}: {}", clean(&evidence)))?)
}
