//! The demo: starts the processes, listens to them, and tells a person or a program what they did.

pub(crate) mod host;
pub(crate) mod lab;
mod picture;
pub(crate) mod protocol;
mod report;
mod story;
mod tcp;

use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;

use anyhow::{Context, bail};
use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};

use lab::Place;
use protocol::{Report, read_lines};
use report::{Figures, Run};
use story::Story;

use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::screen::Screen;

/// What the conductor waits for.
enum Heard {
    Report(Report),
    /// The lab's process has nothing more to say.
    End,
    /// Someone wants the demo to stop.
    Interrupted,
}

/// Runs the demo; the result says whether everything arrived.
pub(crate) fn run(output: &mut Output) -> anyhow::Result<Exit> {
    let screen = if output.is_json() { Screen::aside() } else { Screen::stdout() };
    let mut story = Story::new(screen);
    match perform(&mut story) {
        Ok(Some((run, figures))) => {
            if output.is_json() {
                output.object(&figures)?;
            } else {
                story.end(&run, &figures);
            }
            if figures.is_good() {
                return Ok(Exit::Done);
            }
            Err(Failure::new(Exit::Failed, "the demo lost or changed something on its way: this is a defect")
                .into())
        }
        Ok(None) => Err(Failure::new(Exit::Failed, "the demo was stopped before its end").into()),
        Err(error) => {
            story.stop();
            Err(error.context("the demo cannot go on"))
        }
    }
}

/// Runs it in the lab, or over the loopback where there can be no lab; `None` if it was interrupted.
fn perform(story: &mut Story) -> anyhow::Result<Option<(Run, Figures)>> {
    let (sender, heard) = mpsc::channel();
    watch_signals(sender.clone()).context("cannot watch for signals")?;
    story.title();
    let mut run = Run::default();
    for place in [Place::Emulated, Place::Loopback] {
        let _lab = LabProcess::start(place, sender.clone())?;
        loop {
            let report = match heard.recv().context("nobody is left to hear from")? {
                Heard::Report(Report::Failed(message)) => bail!(message),
                Heard::Report(report) => report,
                Heard::End => break,
                Heard::Interrupted => {
                    story.stop();
                    return Ok(None);
                }
            };
            run.note(&report);
            story.tell(&run, &report);
        }
        if run.forbidden.is_none() || run.began.is_some() {
            break;
        }
    }
    let figures = Figures::of(&run).context("one of its processes ended early")?;
    Ok(Some((run, figures)))
}

/// The lab's process; dropping it ends it, and the end of its input ends those that it started.
struct LabProcess(Child);

impl LabProcess {
    fn start(place: Place, heard: Sender<Heard>) -> anyhow::Result<Self> {
        let place = place.to_possible_value().context("every place has a name")?;
        let mut command = lab::this_program();
        command.arg("demo-lab").arg(place.get_name());
        // In a group of its own: Ctrl-C at the terminal is for the conductor, which ends the others.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start a second process of this program")?;
        let output = child.stdout.take().context("a process was started without its output")?;
        thread::spawn(move || {
            read_lines(output, |report| {
                let _over = heard.send(Heard::Report(report));
            });
            let _over = heard.send(Heard::End);
        });
        Ok(Self(child))
    }
}

impl Drop for LabProcess {
    fn drop(&mut self) {
        // Closed first, so that its hosts end whatever becomes of it; one that has ended cannot be killed.
        drop(self.0.stdin.take());
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Tells of the signals that people and systems stop a program with.
fn watch_signals(heard: Sender<Heard>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = runtime.block_on(async {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>()
    })?;
    thread::spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate, hangup] = &mut signals[..] else { return };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        let _over = heard.send(Heard::Interrupted);
    });
    Ok(())
}
