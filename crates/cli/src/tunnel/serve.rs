//! The side that connects to targets.

use serde_json::json;
use steadfast_tunnel::{AllowList, Counters, Server, config, session_config};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::client::close;
use super::report::{LOOK, Report};
use super::{Allowed, Arguments, watched};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Output, clean};
use crate::stranger::{Strangers, Wish};
use crate::transfer::{Stop, announce};

/// What strangers want here.
const WISH: Wish = Wish { wants: "connect to what is allowed here", grant: "Let it" };

pub(super) async fn run(
    arguments: &Arguments,
    context: &Context,
    output: &mut Output,
) -> anyhow::Result<Exit> {
    let mut stop = Stop::new()?;
    let settings = context.config()?;
    let targets: Vec<&str> =
        arguments.allow.iter().chain(&settings.tunnel.allow).map(|Allowed(text)| text.as_str()).collect();
    let mut allowed = AllowList::default();
    for target in &targets {
        allowed.allow(target)?;
    }
    if allowed.is_empty() {
        let message = "nobody could connect to anything: name the targets that others may connect to through this host, as in \
                       `steadfast tunnel --serve --allow localhost:22`";
        return Err(Failure::usage(message).into());
    }
    let endpoint = context.listen(&settings, arguments.port, |builder| {
        builder.config(config()).session_config(session_config())
    });
    let endpoint = endpoint.await?;
    for key in &arguments.trust {
        endpoint.trust(*key);
    }
    let lead = format!("Connecting to {} for others. On the other machine run:", clean(&targets.join(", ")));
    let command = |host: &str| format!("steadfast tunnel {host} PORT=TARGET...");
    announce(&endpoint, command, &lead, &[("allowed", json!(targets))], output)?;
    let (monitor, mut watched) = watched();
    let mut report = Report::new(&endpoint, None, arguments.quiet, &watched);
    let mut strangers = Strangers::new(endpoint.clone(), WISH, context, output);
    let server = Server::new(allowed, monitor);
    let rows: [(String, &Counters); 1] = [("all connections".into(), server.counters())];
    let mut conversations = JoinSet::new();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            socket = endpoint.accept() => {
                let Some(socket) = socket else { break };
                let server = server.clone();
                conversations.spawn(async move { server.serve(socket).await });
            }
            Some(_) = conversations.join_next(), if !conversations.is_empty() => {}
            stranger = endpoint.next_stranger(), if strangers.is_free() => {
                let Some(stranger) = stranger else { break };
                strangers.came(stranger, output)?;
            }
            answer = strangers.answer() => strangers.answered(answer, output)?,
            Some(event) = watched.events.recv() => report.event(&event, output)?,
            // A question stands where the lines would be.
            _ = looks.tick(), if strangers.is_free() => report.look(&rows, output)?,
            () = stop.wait() => break,
        }
    }
    output.end_status();
    close(&endpoint, &mut stop).await;
    report.end(&rows, output)
}
