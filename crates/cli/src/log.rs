//! What the library tells of itself, on standard error, where `STEADFAST_LOG` asks for it.

use std::io::{self, IsTerminal};

use anyhow::Context;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::exit::Failure;

const VARIABLE: &str = "STEADFAST_LOG";

/// Starts to log, if that is wanted, or if there is something that is told without being asked. Starts no thread.
pub(crate) fn start(usual: Option<&str>) -> anyhow::Result<()> {
    let named = std::env::var_os(VARIABLE).filter(|wanted| !wanted.is_empty());
    let Some(wanted) = named.or_else(|| usual.map(Into::into)) else { return Ok(()) };
    let filter = wanted.to_str().and_then(read).ok_or_else(|| {
        let wanted = wanted.to_string_lossy();
        Failure::usage(format!(
            "cannot read {VARIABLE}={wanted}: write a level (error, warn, info, debug, trace), or levels of parts as in \
             steadfast=debug,steadfast_net=trace"
        ))
    })?;
    let color =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(color);
    tracing_subscriber::registry().with(filter).with(lines).try_init().context("cannot start to log")
}

/// A single word must be a level: taken for a part, a misspelt level would silently tell nothing.
fn read(text: &str) -> Option<Targets> {
    let all_clear =
        text.split(',').all(|part| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok());
    text.parse().ok().filter(|_| all_clear)
}
