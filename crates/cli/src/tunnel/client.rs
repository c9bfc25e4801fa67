//! The side that programs connect to.

use std::pin::pin;

use serde_json::json;
use steadfast::Endpoint;
use steadfast_tunnel::{Client, ClientFailure, Counters, Forward, config};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

use super::report::{LOOK, Report};
use super::{Arguments, Spec, watched};
use crate::config::Config;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Output, clean};
use crate::rule;
use crate::transfer::Stop;

pub(super) async fn run(
    host: &str,
    arguments: &Arguments,
    context: &Context,
    output: &mut Output,
) -> anyhow::Result<Exit> {
    let mut stop = Stop::new()?;
    let settings = context.config()?;
    let target = context.target(&settings, host)?;
    let specs = specs(host, arguments, &settings)?;
    let mut forwards = Vec::new();
    for spec in specs {
        forwards.push(listen(spec).await?);
    }
    let limit = arguments.connecting.connect_limit;
    let endpoint = context.builder(&settings).config(config()).connect_limit(limit).bind().await?;
    rule::warn_of_unknown(specs.iter().flat_map(Spec::selectors), &endpoint, output)?;
    announce(&forwards, output)?;
    let (monitor, mut watched) = watched();
    let mut report = Report::new(&endpoint, target.fingerprint, arguments.quiet, &watched);
    let rows: Vec<(String, &Counters)> = forwards
        .iter()
        .map(|forward| {
            let address = forward.address().map(|address| address.to_string()).unwrap_or_default();
            let words = Spec::words(forward.labels());
            (clean(&format!("{address} > {}  {words}", forward.target())), forward.counters())
        })
        .collect();
    let client = Client::new(endpoint.clone(), target, forwards.clone(), monitor);
    let failure = {
        let mut running = pin!(client.run());
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                result = &mut running => break result.err(),
                Some(event) = watched.events.recv() => report.event(&event, output)?,
                _ = looks.tick() => report.look(&rows, output)?,
                () = stop.wait() => break None,
            }
        }
    };
    while let Ok(event) = watched.events.try_recv() {
        report.event(&event, output)?;
    }
    output.end_status();
    close(&endpoint, &mut stop).await;
    match failure {
        None => report.end(&rows, output),
        Some(ClientFailure::Connect(error)) => {
            Err(anyhow::Error::from(error).context(format!("cannot tunnel to {}", clean(host))))
        }
        Some(other) => Err(other.into()),
    }
}

/// Says farewell; a second signal does not wait for that.
pub(super) async fn close(endpoint: &Endpoint, stop: &mut Stop) {
    tokio::select! {
        () = endpoint.close("the tunnel was stopped") => {}
        () = stop.wait() => {}
    }
}

/// What is to be forwarded, by the arguments or else the configuration.
fn specs<'a>(host: &str, arguments: &'a Arguments, settings: &'a Config) -> anyhow::Result<&'a [Spec]> {
    let specs = match settings.tunnel.forwards.get(host.trim()) {
        Some(specs) if arguments.forwards.is_empty() => specs,
        _ => &arguments.forwards,
    };
    if specs.is_empty() {
        let host = clean(host);
        let message = format!(
            "nothing is to be forwarded to {host}: say what, as in `steadfast tunnel {host} 2222=localhost:22`, or write it into \
             the configuration under [tunnel.forwards]"
        );
        return Err(Failure::usage(message).into());
    }
    Ok(specs)
}

async fn listen(spec: &Spec) -> anyhow::Result<Forward> {
    let listener = TcpListener::bind(spec.listen).await.map_err(|error| {
        let message = format!(
            "cannot listen on {}: {error}; choose another port, or 0 for any that is free",
            spec.listen
        );
        Failure::new(Exit::Failed, message)
    })?;
    Ok(Forward::new(listener, spec.target.clone(), spec.labels.clone()))
}

/// Says where programs connect.
fn announce(forwards: &[Forward], output: &mut Output) -> anyhow::Result<()> {
    let mut objects = Vec::new();
    for forward in forwards {
        let (address, words) = (forward.address()?, Spec::words(forward.labels()));
        let target = forward.target().to_string();
        output.line(format!("Forwarding {address} to {target}, {}.", clean(&words)))?;
        objects.push(json!({ "listen": address.to_string(), "target": target, "labels": words }));
    }
    Ok(output.object(&json!({ "event": "listening", "forwards": objects }))?)
}
