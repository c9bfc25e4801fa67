//! A tunnel in lines, in changing lines, and as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use steadfast::{Endpoint, Fingerprint};
use steadfast_tunnel::{Counters, Event};
use tokio::time::Instant;

use super::Watched;
use crate::exit::Exit;
use crate::output::{Output, clean};
use crate::screen::Style;
use crate::transfer::{Direction, Meter, bytes};

/// How often the screen changes.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// How often an object tells how far it is.
const OBJECT: Duration = Duration::from_secs(1);

pub(super) struct Report {
    quiet: bool,
    sent: Meter,
    received: Meter,
    next: Instant,
    /// Events that were left out, and how many of them were told.
    left_out: Arc<AtomicU64>,
    told: u64,
}

impl Report {
    pub(super) fn new(
        endpoint: &Endpoint,
        peer: Option<Fingerprint>,
        quiet: bool,
        watched: &Watched,
    ) -> Self {
        let meter = |direction| Meter::new(endpoint, peer, direction);
        Self {
            quiet,
            sent: meter(Direction::Sent),
            received: meter(Direction::Received),
            next: Instant::now() + OBJECT,
            left_out: Arc::clone(&watched.left_out),
            told: 0,
        }
    }

    fn line(&self, style: Style, text: &str, output: &mut Output) -> anyhow::Result<()> {
        if self.quiet {
            return Ok(());
        }
        let text = output.screen().paint(style, text);
        Ok(output.line(text)?)
    }

    /// Something happened to a connection or its conversation.
    pub(super) fn event(&mut self, event: &Event, output: &mut Output) -> anyhow::Result<()> {
        match event {
            Event::Connected { peer } => {
                output.object(&json!({ "event": "connected", "peer": peer.to_string() }))?;
                self.line(Style::Green, &format!("Connected with {peer}."), output)
            }
            Event::Lost { peer, words } => {
                output.object(&json!({ "event": "lost", "peer": peer.to_string(), "reason": words }))?;
                let words = clean(words);
                self.line(Style::Dim, &format!("The conversation with {peer} is over: {words}"), output)
            }
            Event::Parked { peer } => {
                let words = format!("No network leads to {peer} now: its connections wait.");
                self.network("parked", *peer, &words, output)
            }
            Event::Resumed { peer } => {
                let words = format!("A network leads to {peer} again: its connections go on.");
                self.network("resumed", *peer, &words, output)
            }
            Event::Waiting { words } => {
                output.object(&json!({ "event": "waiting", "reason": words }))?;
                self.line(Style::Dim, &format!("Trying again: {}", clean(words)), output)
            }
            Event::Opened { connection, peer, target, from } => {
                output.object(&json!({
                    "event": "opened",
                    "connection": connection,
                    "peer": peer.to_string(),
                    "target": target,
                    "from": from.map(|from| from.to_string()),
                }))?;
                Ok(())
            }
            Event::Closed { connection, target, to_target, from_target, reason } => {
                output.object(&json!({
                    "event": "closed",
                    "connection": connection,
                    "target": target,
                    "to_target": to_target,
                    "from_target": from_target,
                    "reason": reason,
                }))?;
                let Some(reason) = reason else { return Ok(()) };
                let target = target.as_deref().map_or_else(|| "what nobody understands".into(), clean);
                let text = format!("A connection to {target} broke: {}", clean(reason));
                let text = output.screen().paint(Style::Red, text);
                Ok(output.line(text)?)
            }
            _ => Ok(()),
        }
    }

    /// Something happened to the networks under a conversation.
    fn network(&self, name: &str, peer: Fingerprint, words: &str, output: &mut Output) -> anyhow::Result<()> {
        output.object(&json!({ "event": name, "peer": peer.to_string() }))?;
        self.line(Style::Cyan, words, output)
    }

    /// Tells that not everything was told.
    fn tell_left_out(&mut self, output: &mut Output) -> anyhow::Result<()> {
        let left_out = self.left_out.load(Ordering::Relaxed);
        let more = left_out - self.told;
        if more == 0 {
            return Ok(());
        }
        self.told = left_out;
        output.object(&json!({ "event": "left-out", "events": more }))?;
        let words = format!("{more} events were left out: they came faster than they could be written.");
        self.line(Style::Dim, &words, output)
    }

    /// Tells how far it is, where that is due; each row is what it is called and its counters.
    pub(super) fn look(&mut self, rows: &[(String, &Counters)], output: &mut Output) -> anyhow::Result<()> {
        let sum = |of: fn(&Counters) -> u64| rows.iter().map(|(_, counters)| of(counters)).sum::<u64>();
        let (open, to_target, from_target) =
            (sum(Counters::open), sum(Counters::to_target), sum(Counters::from_target));
        self.tell_left_out(output)?;
        self.sent.sample(to_target);
        self.received.sample(from_target);
        let (sent, received) = (self.sent.rates(), self.received.rates());
        if output.is_json() {
            let now = Instant::now();
            if now >= self.next && !self.quiet {
                self.next = now + OBJECT;
                output.object(&json!({
                    "event": "progress",
                    "open": open,
                    "to_target": to_target,
                    "from_target": from_target,
                    "networks": { "sent": self.sent.networks(), "received": self.received.networks() },
                }))?;
            }
            return Ok(());
        }
        if self.quiet {
            return Ok(());
        }
        let mut lines: Vec<_> = rows.iter().map(|(name, counters)| row(name, counters)).collect();
        let mut networks: BTreeMap<&str, f64> = BTreeMap::new();
        for (name, rate) in sent.networks.iter().chain(&received.networks) {
            *networks.entry(name).or_default() += rate;
        }
        if !networks.is_empty() {
            let rates =
                networks.iter().map(|(name, rate)| format!("{} {}/s", clean(name), bytes(*rate as u64)));
            lines.push(format!("  networks: {}", rates.collect::<Vec<_>>().join(", ")));
        }
        output.screen().status(&lines);
        Ok(())
    }

    /// The last words.
    pub(super) fn end(&mut self, rows: &[(String, &Counters)], output: &mut Output) -> anyhow::Result<Exit> {
        let sum = |of: fn(&Counters) -> u64| rows.iter().map(|(_, counters)| of(counters)).sum::<u64>();
        self.tell_left_out(output)?;
        output.object(&json!({
            "event": "stopped",
            "connections": sum(Counters::all),
            "to_target": sum(Counters::to_target),
            "from_target": sum(Counters::from_target),
            "networks": { "sent": self.sent.networks(), "received": self.received.networks() },
            "exit": Exit::Done as u8,
        }))?;
        if !self.quiet {
            let (to, from) = (bytes(sum(Counters::to_target)), bytes(sum(Counters::from_target)));
            output
                .line(format!("Stopped. {} connections, {to} there and {from} back.", sum(Counters::all)))?;
        }
        Ok(Exit::Done)
    }
}

fn row(name: &str, counters: &Counters) -> String {
    let (to, from) = (bytes(counters.to_target()), bytes(counters.from_target()));
    format!("  {name}  {} open  {to} there  {from} back", counters.open())
}
