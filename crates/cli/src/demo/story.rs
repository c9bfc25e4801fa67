//! The run in words for a person: what is going to happen, what happens, and what came of it.

use std::time::Duration;

use super::lab::NETWORKS;
use super::picture::{Axis, legend};
use super::protocol::{Nanos, PathChange, Report, now};
use super::report::{Figures, Run};
use crate::screen::{Screen, Style};

/// Without an answer for so long, the changing lines say so.
const SILENCE: Nanos = 400_000_000;

/// How long a suspicion that nothing explains may last before it is told; most are over much sooner.
const HESITATION: Nanos = 200_000_000;

/// A silence that is marked in the result.
const LONG_MS: f64 = 1000.0;

/// The characters of the bar that shows the progress of the file.
const BAR: usize = 24;

/// Tells a run on a screen, report by report.
pub(crate) struct Story {
    screen: Screen,
    urgent: Pulse,
    tcp: Pulse,
    /// Networks that are suspect, since when, and whether that was told.
    suspects: Vec<(String, Nanos, bool)>,
}

/// The last answer that was told, and its round trip.
#[derive(Debug, Default)]
struct Pulse(Option<(Nanos, Nanos)>);

impl Story {
    pub(crate) fn new(screen: Screen) -> Self {
        Self { screen, urgent: Pulse::default(), tcp: Pulse::default(), suspects: Vec::new() }
    }

    /// What this is.
    pub(crate) fn title(&mut self) {
        let title = self.screen.paint(Style::Bold, "Steadfast demo: a conversation that outlives a network");
        self.screen.line(title);
        self.screen.line("");
    }

    /// Tells what has just been told to `run`.
    pub(crate) fn tell(&mut self, run: &Run, report: &Report) {
        match report {
            Report::Began { at, .. } => self.begin(run, *at),
            Report::Forbidden(reason) => self.forbidden(reason),
            Report::RoundTrip(time) => self.urgent = Pulse(Some((now(), *time))),
            Report::TcpRoundTrip(time) => self.tcp = Pulse(Some((now(), *time))),
            Report::Path { at, network, change } => self.path(run, *at, network, *change),
            other => {
                if let Some((at, style, text)) = event(other) {
                    self.happened(run, at, style, &text);
                }
            }
        }
        self.tell_suspects(run);
        if run.began.is_some() && run.sent.is_none() {
            let lines = self.status(run);
            self.screen.status(&lines);
        }
    }

    fn forbidden(&mut self, reason: &str) {
        self.screen
            .paragraph(0, "This machine does not let the demo make two hosts with networks of their own:");
        self.screen.paragraph(2, reason);
        self.screen.paragraph(
            0,
            "So there is no network to cut and nothing to compare: two processes talk over this machine's loopback.",
        );
        self.screen.line("");
    }

    fn begin(&mut self, run: &Run, at: Nanos) {
        let size = run.file_bytes >> 20;
        if run.forbidden.is_none() {
            self.screen.line("Two processes on two emulated hosts, with two networks between them:");
            for plan in NETWORKS {
                let round_trip = plan.one_way.as_millis() * 2;
                let (name, rate) = (plan.name, plan.rate_mbit);
                self.screen.line(format!("  {name:5} {rate} Mbit/s, round trip {round_trip} ms"));
            }
            let text = format!(
                "Host a sends host b a file of {size} MiB in the background and, every 10 ms, an urgent message that b \
                 answers. Steadfast uses both networks. For comparison, a plain TCP connection over {} carries the same \
                 urgent messages.",
                NETWORKS[0].name
            );
            self.screen.paragraph(0, &text);
        } else {
            let text = format!(
                "One sends a file of {size} MiB and, every 10 ms, an urgent message that the other answers."
            );
            self.screen.line(text);
        }
        self.screen.line("");
        self.happened(run, at, None, "the file and the urgent messages start");
    }

    fn happened(&mut self, run: &Run, at: Nanos, style: Option<Style>, text: &str) {
        let seconds = run.since(at).as_secs_f64();
        let text = style.map_or_else(|| text.to_owned(), |style| self.screen.paint(style, text));
        self.screen.line(format!("{seconds:6.2} s  {text}"));
    }

    /// Tells what happened to a path. There is one for each network, or several that fare alike.
    fn path(&mut self, run: &Run, at: Nanos, network: &str, change: PathChange) {
        if run.began.is_none_or(|began| at < began) {
            return;
        }
        let known = self.suspects.iter().position(|(name, ..)| name == network);
        let after = |since: Nanos| at.saturating_sub(since) / 1_000_000;
        let text = match change {
            PathChange::Suspect => {
                if known.is_none() {
                    self.suspects.push((network.to_owned(), at, false));
                }
                return;
            }
            PathChange::Recovered | PathChange::Up => {
                let suspect = known.map(|known| self.suspects.remove(known));
                match (suspect, run.healed) {
                    (_, Some(healed)) if run.back == Some(at) => {
                        format!("{network} is used again, {} ms after it came back", after(healed))
                    }
                    (Some((_, since, false)), _) => {
                        format!(
                            "{network} answered {} ms late: a copy went over {}",
                            after(since),
                            others(network)
                        )
                    }
                    (Some(_), _) => format!("{network} is used again"),
                    (None, _) => return,
                }
            }
            PathChange::Silent => {
                let told = format!("{network} is given up until it answers; it is tried again and again");
                if known.is_none() {
                    return;
                }
                told
            }
            // Another path over the same network may take its place; the network is what is told about.
            PathChange::Down => return,
        };
        self.happened(run, at, Some(Style::Cyan), &text);
    }

    /// Tells of suspicions: at once where the cut explains them, of others if they last.
    fn tell_suspects(&mut self, run: &Run) {
        let mut due = Vec::new();
        for (network, at, told) in &mut self.suspects {
            let cut = run.cut.filter(|cut| network == NETWORKS[0].name && cut <= at && run.healed.is_none());
            if *told || (cut.is_none() && now() < *at + HESITATION) {
                continue;
            }
            *told = true;
            let why = match cut {
                Some(cut) => format!("{} ms after the cut", (*at - cut) / 1_000_000),
                None => "since an answer is late".to_owned(),
            };
            due.push((*at, format!("{network} is suspect, {why}: everything goes over {}", others(network))));
        }
        for (at, text) in due {
            self.happened(run, at, Some(Style::Cyan), &text);
        }
    }

    fn status(&self, run: &Run) -> [String; 3] {
        let time = now();
        let part = run.file_arrived as f64 / run.file_bytes.max(1) as f64;
        let full = (part * BAR as f64) as usize;
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR.saturating_sub(full)));
        let seconds = run.since(time).as_secs_f64();
        let tcp = if run.forbidden.is_none() {
            format!("     plain TCP {}", self.tcp.words(time))
        } else {
            String::new()
        };
        let steadfast = self.urgent.words(time);
        let urgent = format!("          urgent  Steadfast {steadfast:>12}{tcp}");
        [
            String::new(),
            format!("{seconds:6.1} s  file    {bar} {:3.0} %   {}", part * 100.0, shares(run)),
            urgent,
        ]
    }

    /// Leaves the screen as it is.
    pub(crate) fn stop(&mut self) {
        self.screen.end_status();
    }

    /// What came of it.
    pub(crate) fn end(&mut self, run: &Run, figures: &Figures) {
        self.screen.end_status();
        self.screen.line("");
        self.picture(run);
        self.table(figures);
        self.verdict(figures);
    }

    fn picture(&mut self, run: &Run) {
        let (Some(began), Some(sent), Some((cut, healed))) = (run.began, &run.sent, run.cut.zip(run.healed))
        else {
            return;
        };
        let end = sent.urgent.last().map_or(began, |sample| sample.sent);
        let axis = Axis::new(began, end);
        let head = format!(
            "The longest round trip among the urgent messages sent in each {} ms",
            axis.column().as_millis()
        );
        let head = self.screen.paint(Style::Bold, head);
        self.screen.line(head);
        let steadfast = self.screen.paint(Style::Green, axis.row(&sent.urgent));
        let tcp = self.screen.paint(Style::Red, axis.row(&sent.tcp));
        self.screen.line(format!("  Steadfast  {steadfast}"));
        self.screen.line(format!("  plain TCP  {tcp}"));
        let mark = axis.mark(cut, healed, &format!("{} is cut", NETWORKS[0].name));
        self.screen.line(format!("             {mark}"));
        self.screen.line(format!("             {}", axis.seconds()));
        let legend = self.screen.paint(Style::Dim, legend());
        self.screen.line(format!("             {legend}"));
        self.screen.line("");
    }

    fn table(&mut self, figures: &Figures) {
        let Some((tcp, tcp_gap)) = figures.tcp.as_ref().zip(figures.tcp_longest_gap_ms) else { return };
        let head = self
            .screen
            .paint(Style::Bold, format!("{:46}{:>14}{:>16}", "Urgent messages", "Steadfast", "plain TCP"));
        self.screen.line(head);
        let own = &figures.foreground;
        let mut row = |name: &str, values: [f64; 2]| {
            let [own, tcp] = values.map(words);
            let paint = |width: usize, text: &str, value: f64| {
                let padded = format!("{text:>width$}");
                if value > LONG_MS { self.screen.paint(Style::Red, padded) } else { padded }
            };
            let line = format!("  {name:44}{}{}", paint(14, &own, values[0]), paint(16, &tcp, values[1]));
            self.screen.line(line);
        };
        let name = NETWORKS[0].name;
        row("longest time without any answer", [figures.longest_gap_ms, tcp_gap]);
        row("longest round trip", [own.worst_ms, tcp.worst_ms]);
        row(&format!("round trip while {name} works: half are within"), [own.p50_ms, tcp.p50_ms]);
        row(&format!("{:width$}99 of 100 within", "", width = 19 + name.len()), [own.p99_ms, tcp.p99_ms]);
        let answered = [own, tcp].map(|trips| format!("{} of {}", trips.answered, trips.count));
        self.screen.line(format!("  {:44}{:>14}{:>16}", "messages answered", answered[0], answered[1]));
        self.screen.line("");
    }

    fn verdict(&mut self, figures: &Figures) {
        let size = figures.file_bytes >> 20;
        let prefix = figures.sha256.get(..12).unwrap_or("none");
        let file = if figures.sha256_match {
            format!("{size} MiB arrived whole, SHA-256 {prefix}… on both sides")
        } else {
            "did NOT arrive whole: the two sides have different SHA-256 sums".to_owned()
        };
        let carried: u64 = figures.networks.iter().map(|network| network.bytes_carried).sum();
        let shares = figures.networks.iter().map(|network| {
            format!(
                "{:.0} % over {}",
                100.0 * network.bytes_carried as f64 / carried.max(1) as f64,
                network.name
            )
        });
        let good = figures.is_good();
        let mut row = |name: &str, text: &str| {
            let name = self.screen.paint(Style::Bold, format!("{name:12}"));
            self.screen.line(format!("{name}{text}"));
        };
        row("The file", &file);
        if carried > 0 {
            row("", &format!("of all bytes, {}", shares.collect::<Vec<_>>().join(", ")));
        }
        if !figures.emulated {
            let trips = &figures.foreground;
            let half = words(trips.p50_ms);
            row("Urgent", &format!("{} of {} answered, half within {half}", trips.answered, trips.count));
        }
        row("Lost", &count(figures.lost));
        row("Duplicated", &count(figures.duplicated));
        if figures.receipts.other > 0 {
            row("Unconfirmed", &figures.receipts.other.to_string());
        }
        let gap = words(figures.longest_gap_ms);
        let (style, text) = match (good, figures.tcp_longest_gap_ms, figures.gone_ms()) {
            (true, Some(tcp), Some(gone)) => {
                let (tcp, name) = (words(tcp), NETWORKS[0].name);
                let gone = words(gone);
                let text =
                    format!("{name} was gone {gone}: Steadfast was silent for {gap}, plain TCP for {tcp}.");
                (Style::Green, text)
            }
            (true, ..) => {
                let text =
                    "Everything arrived. To see a network vanish, run the demo where hosts can be made.";
                (Style::Green, text.to_owned())
            }
            (false, ..) => {
                let text = "Something did not arrive, or arrived twice. That is a defect: please report it.";
                (Style::Red, text.to_owned())
            }
        };
        let text = self.screen.paint(style, text);
        self.screen.line("");
        self.screen.line(text);
    }
}

/// A number of things of which there should be none.
fn count(number: u64) -> String {
    if number == 0 { "nothing".into() } else { number.to_string() }
}

impl Pulse {
    fn words(&self, time: Nanos) -> String {
        match self.0 {
            None => "-".into(),
            Some((at, _)) if time > at + SILENCE => {
                format!("no answer for {:.1} s", (time - at) as f64 / 1e9)
            }
            Some((_, round_trip)) => words(round_trip as f64 / 1e6),
        }
    }
}

/// What happened, when, and how it looks; `None` for what is no event to a person.
fn event(report: &Report) -> Option<(Nanos, Option<Style>, String)> {
    let cut_name = NETWORKS[0].name;
    let (at, style, text) = match report {
        Report::Cut(at) => {
            let text = format!("{cut_name} is cut, silently: no packet passes, no error is reported");
            (*at, Some(Style::Red), text)
        }
        Report::Healed(at) => {
            (*at, Some(Style::Green), format!("{cut_name} lets packets pass again, as silently"))
        }
        Report::FileDone(at) => (*at, Some(Style::Bold), "the file has arrived".into()),
        Report::TcpAnswers { at, after } => {
            let after = Duration::from_nanos(*after).as_secs_f64();
            (*at, None, format!("plain TCP has its first answer after {after:.1} s"))
        }
        _ => return None,
    };
    Some((at, style, text))
}

/// The names of the networks but one.
fn others(network: &str) -> String {
    let others: Vec<_> = NETWORKS.iter().map(|plan| plan.name).filter(|name| *name != network).collect();
    others.join(", ")
}

/// The share of each network in what was carried so far.
fn shares(run: &Run) -> String {
    let total: u64 = run.carried.iter().sum();
    let share = |bytes: &u64| 100.0 * *bytes as f64 / total.max(1) as f64;
    let each =
        NETWORKS.iter().zip(&run.carried).map(|(plan, bytes)| format!("{} {:.0} %", plan.name, share(bytes)));
    each.collect::<Vec<_>>().join("  ")
}

/// A time for people.
fn words(milliseconds: f64) -> String {
    match milliseconds {
        ..10.0 => format!("{milliseconds:.1} ms"),
        ..LONG_MS => format!("{milliseconds:.0} ms"),
        _ => format!("{:.2} s", milliseconds / 1e3),
    }
}
