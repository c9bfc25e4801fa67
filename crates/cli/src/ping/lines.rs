//! A ping in lines for people and in objects for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use steadfast::{DownReason, Event, Fingerprint, Judgement, PathInfo, PathNumber, Verdict};

use super::tally::{Route, Tally, Times, milliseconds};
use crate::output::{Output, Table, clean};
use crate::screen::Style;

/// What a message's row is called among those of the paths.
const MESSAGE: &str = "message";

pub(super) struct Lines<'a> {
    output: &'a mut Output,
    /// Of the widest name and address so far.
    widths: [usize; 2],
    /// How paths were called while they were up: the event of its end may come when the network's name is gone.
    known: BTreeMap<PathNumber, Route>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(output: &'a mut Output) -> Self {
        Self { output, widths: [MESSAGE.len(), 0], known: BTreeMap::new() }
    }

    pub(super) fn begin(&mut self, host: &str, peer: Fingerprint) -> anyhow::Result<()> {
        // A host that is given by its key does not need it twice.
        let host = if host.contains('@') { String::new() } else { format!("{}, ", clean(host)) };
        Ok(self.output.line(format!("Ping {host}{peer}"))?)
    }

    pub(super) fn probe(&mut self, round: u64, route: &Route, time: Option<Duration>) -> anyhow::Result<()> {
        let object =
            json!({ "type": "probe", "round": round, "path": route, "time_ms": time.map(milliseconds) });
        self.output.object(&object)?;
        let result = time.map_or_else(|| "no answer before the path was down".into(), show);
        self.row(round, &name(route), &route.address.to_string(), &result)
    }

    pub(super) fn message(&mut self, round: u64, by: &[Route], time: Option<Duration>) -> anyhow::Result<()> {
        let object =
            json!({ "type": "message", "round": round, "by": by, "time_ms": time.map(milliseconds) });
        self.output.object(&object)?;
        let names: Vec<_> = by.iter().map(|route| clean(&route.local)).collect();
        let by = if names.is_empty() { String::new() } else { format!("over {}", names.join(", ")) };
        let result = time.map_or_else(|| "it was dropped there".into(), show);
        self.row(round, MESSAGE, &by, &result)
    }

    /// Makes room for what will be said of this path, so that columns stand still.
    pub(super) fn fit(&mut self, path: &PathInfo) {
        let route = Route::of(path);
        for (width, text) in self.widths.iter_mut().zip([name(&route), route.address.to_string()]) {
            *width = (*width).max(text.chars().count());
        }
        self.known.insert(path.path, route);
    }

    fn row(&mut self, round: u64, first: &str, second: &str, result: &str) -> anyhow::Result<()> {
        let [a, b] = self.widths;
        Ok(self.output.line(format!("{round:>4}  {first:a$}  {second:b$}  {result:>10}"))?)
    }

    /// Tells of what happened to a path or to the conversation.
    pub(super) fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        let (path, state, reason, style) = match event {
            Event::PathUp(path) => (path, "up", None, Style::Green),
            Event::PathSuspect(path) => (path, "suspect", Some("it makes no progress"), Style::Red),
            Event::PathRecovered(path) => (path, "recovered", None, Style::Green),
            Event::PathDown(path, reason) => (path, "down", Some(describe(*reason)), Style::Red),
            Event::Parked { .. } => return self.conversation("parked", "no path is left, messages wait"),
            Event::Resumed { .. } => return self.conversation("resumed", "there is a path again"),
            Event::Verdict { judgement, .. } => return self.verdict(judgement),
            _ => return Ok(()),
        };
        let route = self.known.get(&path.path).cloned().unwrap_or_else(|| Route::of(path));
        self.output.object(&json!({ "type": "path", "path": route, "state": state, "reason": reason }))?;
        let reason = reason.map(|reason| format!(", {reason}")).unwrap_or_default();
        self.aside(style, &format!("path {}: {state}{reason}", name(&route)))
    }

    fn conversation(&mut self, state: &str, words: &str) -> anyhow::Result<()> {
        self.output.object(&json!({ "type": "conversation", "state": state }))?;
        self.aside(Style::Cyan, &format!("conversation {state}: {words}"))
    }

    /// What is known of the peer now.
    fn verdict(&mut self, Judgement { verdict, evidence, .. }: &Judgement) -> anyhow::Result<()> {
        let evidence = evidence.to_string();
        self.output.object(&json!({ "type": "peer", "verdict": verdict.name(), "evidence": evidence }))?;
        let style = if *verdict == Verdict::Alive { Style::Green } else { Style::Red };
        self.aside(style, &format!("peer {verdict}: {}", clean(&evidence)))
    }

    pub(super) fn ended(&mut self, why: &str) -> anyhow::Result<()> {
        self.output.object(&json!({ "type": "conversation", "state": "ended", "reason": why }))?;
        self.aside(Style::Red, &clean(why))
    }

    fn aside(&mut self, style: Style, text: &str) -> anyhow::Result<()> {
        let text = self.output.screen().paint(style, text);
        Ok(self.output.line(format!("      {text}"))?)
    }

    pub(super) fn summary(&mut self, tally: &Tally, peer: Fingerprint) -> anyhow::Result<()> {
        let paths: Vec<_> = tally
            .routes
            .iter()
            .map(|(route, times)| {
                let mut object = figures(times);
                object["path"] = json!(route);
                object["carried"] = json!(times.carried);
                object
            })
            .collect();
        let peer = peer.to_string();
        let object =
            json!({ "type": "summary", "peer": peer, "paths": paths, "message": figures(&tally.message) });
        self.output.object(&object)?;
        let heading = ["", "", "ASKED", "LOST", "MIN", "AVG", "MAX", "MDEV", "CARRIED"];
        let mut table = Table::new(heading).right_from(2);
        let mut row = |names: [&str; 2], times: &Times, carried: &str| {
            let [a, b] = names;
            let lost = format!("{:.0}%", times.loss());
            let [min, avg, max, mdev] = cells(times);
            table.row([a, b, &times.asked.to_string(), &lost, &min, &avg, &max, &mdev, carried]);
        };
        for (route, times) in &tally.routes {
            row([&name(route), &route.address.to_string()], times, &times.carried.to_string());
        }
        row([MESSAGE, ""], &tally.message, "");
        self.output.line("")?;
        Ok(self.output.table(&table)?)
    }
}

/// The networks of both sides; the peer may not have said how it calls its own.
fn name(route: &Route) -> String {
    let remote = if route.remote.is_empty() { "?" } else { &route.remote };
    clean(&format!("{} > {remote}", route.local))
}

fn show(time: Duration) -> String {
    format!("{} ms", digits(milliseconds(time)))
}

/// Three significant digits are what a round trip is good for.
fn digits(milliseconds: f64) -> String {
    let places = if milliseconds < 10.0 { 2 } else { usize::from(milliseconds < 100.0) };
    format!("{milliseconds:.places$}")
}

fn cells(times: &Times) -> [String; 4] {
    let Some(summary) = times.summary() else { return ["-"; 4].map(String::from) };
    [summary.min, summary.avg, summary.max, summary.mdev].map(digits)
}

fn figures(times: &Times) -> Value {
    let summary = times.summary();
    json!({
        "asked": times.asked,
        "answered": times.answered,
        "loss_percent": times.loss(),
        "min_ms": summary.map(|summary| summary.min),
        "avg_ms": summary.map(|summary| summary.avg),
        "max_ms": summary.map(|summary| summary.max),
        "mdev_ms": summary.map(|summary| summary.mdev),
    })
}

/// Why a path is down, in words.
fn describe(reason: DownReason) -> &'static str {
    match reason {
        DownReason::Carrier => "its connection failed",
        DownReason::Silence => "nothing was heard on it for too long",
        DownReason::LocalNetwork => "the network here is gone",
        DownReason::RemoteNetwork => "the network there is gone",
        DownReason::Replaced => "another path took its place",
        DownReason::Violation => "the peer broke the protocol",
        DownReason::Closed => "the peer closed it",
        DownReason::Suspended => "the peer falls silent for a while, as it said",
        _ => "it is not needed any more",
    }
}
