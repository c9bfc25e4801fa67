//! `steadfast daemon`: the host's daemon in the foreground, as a service manager wants it.

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use steadfast::Identity;
use steadfast_daemon::{Daemon, Settings};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::context::{self, Context};
use crate::exit::Exit;
use crate::output::Output;

#[derive(Debug, Args)]
#[command(after_help = "\
One for each host, or for each user who has none. It is the fault backplane's agent: programs publish and subscribe through \
it, also C programs with libftb. It watches the networks, answers `steadfast status`, and serves figures for Prometheus if the \
configuration says where ([daemon] metrics).

It runs until SIGTERM or Ctrl-C. SIGHUP reads the configuration again: rules, limits and sinks count at once, all else with the \
next start. What was acknowledged is on the disk and outlasts it; its clients come back by themselves. What somebody has to \
mend it tells on standard error; STEADFAST_LOG=info tells more, =off nothing.

Examples:
  steadfast daemon
  sudo systemctl enable --now steadfast
  STEADFAST_LOG=info steadfast daemon")]
pub(crate) struct Arguments {}

pub(crate) fn run(Arguments {}: &Arguments, context: &Context, output: &mut Output) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let identity = Identity::load_or_create(&context.places.identity)?;
    steadfast_daemon::allow_descriptors();
    context::run(async {
        let mut interrupts = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
        let mut ends = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut hangups = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
        let daemon =
            Daemon::start(&settings(&config, context), config.scout(), &context.places, &identity).await?;
        let (socket, key) = (daemon.socket().display().to_string(), identity.fingerprint().to_string());
        output
            .object(&json!({ "type": "ready", "socket": socket, "key": key, "pid": std::process::id() }))?;
        output.line(format!("The agent of this host is at {socket}. Ctrl-C ends it."))?;
        steadfast_daemon::tell_manager(steadfast_daemon::Told::Ready);
        loop {
            let hangup = {
                let mut hangup = false;
                let end = async {
                    tokio::select! {
                        _ = interrupts.recv() => {}
                        _ = ends.recv() => {}
                        _ = hangups.recv() => hangup = true,
                    }
                };
                daemon.run(end).await;
                hangup
            };
            if !hangup {
                break;
            }
            match context.config().map(|config| settings(&config, context)) {
                Ok(settings) => {
                    steadfast_daemon::tell_manager(steadfast_daemon::Told::Reloading);
                    let later = daemon.reload(&settings);
                    output.object(&json!({ "type": "reloaded", "needs_restart": later }))?;
                    output.line("The configuration was read again.")?;
                    if !later.is_empty() {
                        output.line(format!(
                            "What changed in {} counts with the next start.",
                            later.join(", ")
                        ))?;
                    }
                    steadfast_daemon::tell_manager(steadfast_daemon::Told::Ready);
                }
                // It goes on with what it has.
                Err(error) => {
                    let (_, message) = crate::exit::tell(&error, output);
                    output.object(&json!({ "type": "not reloaded", "error": message }))?;
                }
            }
        }
        steadfast_daemon::tell_manager(steadfast_daemon::Told::Stopping);
        daemon.close().await;
        Ok(Exit::Done)
    })
}

/// What the configuration says of the daemon, with names of `[hosts]` replaced by what they stand for.
fn settings(config: &Config, context: &Context) -> Settings {
    let mut settings = config.daemon.clone();
    settings.name_hosts(|name| {
        let target = config.hosts.contains_key(name).then(|| context.target(config, name))?;
        // Without the trusted keys the daemon does not start, and says why.
        target.ok().map(|target| target.to_string())
    });
    settings
}
