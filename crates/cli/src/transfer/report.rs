//! A transfer in words, in changing lines, and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use steadfast_transfer::{Event, FileOutcome, Progress, Stage, printable};
use tokio::time::Instant;

use super::amount::{bytes, percent, time};
use super::meter::{Meter, Rates};
use crate::output::{Output, clean};
use crate::screen::Style;

/// How wide a bar is.
const BAR: usize = 24;

/// How often a line tells the progress where lines cannot change.
const LINE: Duration = Duration::from_secs(5);

/// How often an object tells the progress.
const OBJECT: Duration = Duration::from_secs(1);

/// Which way it goes: the words differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Sending,
    Receiving,
}

/// One transfer, told as it goes.
pub(crate) struct Report {
    told: Told,
    peer: String,
    /// When something first moved.
    began: Option<Instant>,
    quiet: bool,
    next: Instant,
}

impl Report {
    pub(crate) fn new(told: Told, peer: String, quiet: bool) -> Self {
        Self { told, peer, began: None, quiet, next: Instant::now() + OBJECT }
    }

    /// Something happened.
    pub(crate) fn event(&self, event: &Event, output: &mut Output) -> anyhow::Result<()> {
        if output.is_json() {
            if let Some(object) = self.object_of(event) {
                output.object(&object)?;
            }
            return Ok(());
        }
        let (line, style) = match event {
            Event::File { path, outcome: FileOutcome::Failed(words) } => {
                (format!("Failed: {}: {}", printable(path), clean(words)), Style::Red)
            }
            Event::File { path, outcome: FileOutcome::Skipped(words) } if !self.quiet => {
                (format!("Skipped: {}: {words}", printable(path)), Style::Dim)
            }
            Event::Counted { files, bytes: all } if !self.quiet => {
                let verb = if self.told == Told::Sending { "Sending" } else { "Receiving" };
                (format!("{verb} {}, {}.", counted(*files, "file", "files"), bytes(*all)), Style::Bold)
            }
            Event::Resumed { path, have, size } if !self.quiet => {
                let at = percent(*have, *size);
                (format!("Resumed at {at} %: {}", printable(path)), Style::Dim)
            }
            Event::Lost { words } if !self.quiet => {
                (format!("Connecting again: {}", clean(words)), Style::Dim)
            }
            _ => return Ok(()),
        };
        let line = output.screen().paint(style, line);
        Ok(output.line(line)?)
    }

    fn object_of(&self, event: &Event) -> Option<Value> {
        Some(match event {
            Event::Counted { files, bytes } => {
                json!({ "event": "offer", "peer": self.peer, "files": files, "bytes": bytes })
            }
            Event::Resumed { path, have, size } => {
                json!({ "event": "resumed", "path": text(path), "have": have, "bytes": size })
            }
            Event::File { path, outcome } => {
                let (name, bytes, reason) = match outcome {
                    FileOutcome::Stored(bytes) => ("done", Some(bytes), None),
                    FileOutcome::Kept(bytes) => ("kept", Some(bytes), None),
                    FileOutcome::Skipped(words) => ("skipped", None, Some(words)),
                    FileOutcome::Failed(words) => ("failed", None, Some(words)),
                    _ => return None,
                };
                let mut object =
                    json!({ "event": "file", "path": text(path), "outcome": name, "peer": self.peer });
                if let Some(bytes) = bytes {
                    object["bytes"] = json!(bytes);
                }
                if let Some(reason) = reason {
                    object["reason"] = json!(reason);
                }
                object
            }
            Event::Lost { words } => json!({ "event": "lost", "reason": words }),
            Event::Untrusted => json!({ "event": "untrusted" }),
            _ => return None,
        })
    }

    /// Tells how far it is, where that is due: what changes on a screen is returned.
    pub(crate) fn progress(
        &mut self,
        progress: &Progress,
        meter: &Meter,
        output: &mut Output,
    ) -> anyhow::Result<Vec<String>> {
        let now = Instant::now();
        if progress.stage != Stage::Connecting {
            self.began.get_or_insert(now);
        }
        let rates = meter.rates();
        if output.is_json() {
            if now >= self.next && !self.quiet {
                self.next = now + OBJECT;
                output.object(&self.progress_object(progress, &rates))?;
            }
            return Ok(Vec::new());
        }
        if self.quiet {
            return Ok(Vec::new());
        }
        if output.screen().is_live() {
            return Ok(Self::lines(progress, &rates));
        }
        if now >= self.next {
            self.next = now + LINE;
            output.line(plain(progress, &rates))?;
        }
        Ok(Vec::new())
    }

    fn progress_object(&self, progress: &Progress, rates: &Rates) -> Value {
        let networks: BTreeMap<_, _> =
            rates.networks.iter().map(|(name, rate)| (name, rate.round() as u64)).collect();
        let stage = match progress.stage {
            Stage::Connecting => "connecting",
            Stage::Parked => "waiting",
            _ => "moving",
        };
        json!({
            "event": "progress",
            "peer": self.peer,
            "stage": stage,
            "files": progress.stored + progress.kept,
            "bytes": progress.bytes,
            "done": progress.done,
            "total": progress.total.map(|(_, bytes)| bytes),
            "rate": rates.content.round() as u64,
            "networks": networks,
            "path": progress.current.as_ref().map(|current| text(&current.path)),
        })
    }

    /// Lines for a screen: the current file if there are several, the whole, and the networks.
    fn lines(progress: &Progress, rates: &Rates) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(current) = &progress.current
            && progress.total.is_none_or(|(files, _)| files > 1)
        {
            let share = percent(current.done, current.size);
            let path = printable(&current.path);
            lines.push(format!("  {} {share:>3} %  {path}", bar(current.done, current.size)));
        }
        let line = match progress.total {
            Some((_, total)) => format!("{} {}", bar(progress.done, total), plain(progress, rates)),
            None => plain(progress, rates),
        };
        lines.push(format!("  {line}"));
        lines
    }

    /// The last words: what came of it.
    pub(crate) fn end(&self, progress: &Progress, meter: &Meter, output: &mut Output) -> anyhow::Result<()> {
        if self.quiet {
            return Ok(());
        }
        let took = self.took();
        let rate = progress.bytes as f64 / took.as_secs_f64().max(0.001);
        let verb = if self.told == Told::Sending { "Sent" } else { "Received" };
        let files = counted(progress.stored, "file", "files");
        let mut parts = vec![format!("{verb} {files}, {}", bytes(progress.bytes))];
        if progress.bytes > 0 {
            parts.push(format!(" in {}", time(took)));
            if took >= Duration::from_secs(1) {
                parts.push(format!(", {}/s", bytes(rate as u64)));
            }
            let over: Vec<_> = meter
                .networks()
                .iter()
                .filter(|(_, carried)| **carried > progress.bytes / 1000)
                .map(|(name, carried)| (clean(name), *carried))
                .collect();
            match &over[..] {
                [] => {}
                [(name, _)] => parts.push(format!(", over {name}")),
                several => {
                    let shares = several.iter().map(|(name, carried)| format!("{name} {}", bytes(*carried)));
                    parts.push(format!(": {}", shares.collect::<Vec<_>>().join(", ")));
                }
            }
        }
        let line = format!("{}.", parts.concat());
        output.line(line)?;
        if progress.resumed > 0 {
            output.line(format!("{} were there from an earlier attempt.", bytes(progress.resumed)))?;
        }
        if progress.kept > 0 {
            let verb = if progress.kept == 1 { "was" } else { "were" };
            output.line(format!(
                "{} {verb} there already, with the same content.",
                counted(progress.kept, "file", "files")
            ))?;
        }
        if progress.failed > 0 {
            let line = format!("{} failed, see above.", counted(progress.failed, "file", "files"));
            let line = output.screen().paint(Style::Red, line);
            output.line(line)?;
        }
        Ok(())
    }

    /// How long it has gone on.
    fn took(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// The result for programs.
    pub(crate) fn result(&self, progress: &Progress, meter: &Meter, exit: u8, error: Option<&str>) -> Value {
        let failed: Vec<_> = progress
            .failures
            .iter()
            .map(|(path, reason)| json!({ "path": text(path), "reason": reason }))
            .collect();
        let mut result = json!({
            "event": "result",
            "peer": self.peer,
            "files": progress.stored,
            "bytes": progress.bytes,
            "resumed_bytes": progress.resumed,
            "kept": progress.kept,
            "skipped": progress.skipped,
            "failed": failed,
            "failed_files": progress.failed,
            "seconds": (self.took().as_secs_f64() * 1000.0).round() / 1000.0,
            "networks": meter.networks(),
            "exit": exit,
        });
        if let Some(error) = error {
            result["error"] = json!(error);
        }
        result
    }
}

/// A path in JSON: as it is where it is text, otherwise as it is printed.
fn text(path: &[u8]) -> String {
    std::str::from_utf8(path).map_or_else(|_| printable(path), String::from)
}

fn counted(count: u64, one: &str, several: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {several}") }
}

fn bar(done: u64, total: u64) -> String {
    let full = (percent(done, total) as usize * BAR / 100).min(BAR);
    format!("[{}{}]", "#".repeat(full), "-".repeat(BAR - full))
}

/// How far it is, on one line.
fn plain(progress: &Progress, rates: &Rates) -> String {
    if progress.stage == Stage::Connecting && progress.total.is_none() {
        return "connecting".into();
    }
    let mut parts = Vec::new();
    match progress.total {
        Some((_, total)) => {
            parts.push(format!("{:>3} %", percent(progress.done, total)));
            parts.push(format!("{} of {}", bytes(progress.done.min(total)), bytes(total)));
        }
        None => parts.push(bytes(progress.done)),
    }
    match progress.stage {
        Stage::Connecting => parts.push("connecting".into()),
        Stage::Parked => parts.push("not reached now, waiting".into()),
        _ if progress.total.is_some_and(|(_, total)| progress.done >= total) => {
            parts.push("finishing".into());
        }
        _ if rates.content < 1.0 => {}
        _ => {
            parts.push(format!("{}/s", bytes(rates.content as u64)));
            if let Some((_, total)) = progress.total {
                let left = total.saturating_sub(progress.done) as f64 / rates.content;
                parts.push(format!("{} left", time(Duration::from_secs_f64(left.min(1e9)))));
            }
            let sum: f64 = rates.networks.values().sum();
            match rates.networks.len() {
                0 => {}
                1 => parts.extend(rates.networks.keys().map(|name| clean(name))),
                _ => {
                    let shares = rates.networks.iter();
                    let shares =
                        shares.map(|(name, rate)| format!("{} {:.0} %", clean(name), rate / sum * 100.0));
                    parts.push(shares.collect::<Vec<_>>().join(", "));
                }
            }
        }
    }
    parts.join("  ")
}
