//! How far a migration is: lines on standard error, and objects.

use std::time::{Duration, Instant};

use serde_json::json;
use steadfast_checkpoint::Progress;

use super::tell;
use crate::output::Output;
use crate::screen::Screen;
use crate::transfer::{Meter, amount};

/// How often a line tells it where lines cannot change, and an object.
const LINE: Duration = Duration::from_secs(5);
const OBJECT: Duration = Duration::from_secs(1);

/// Which part it is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    Saving,
    Copying,
    Restoring,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Saving => "saving",
            Self::Copying => "copying",
            Self::Restoring => "restoring",
        }
    }
}

pub(super) struct View {
    screen: Screen,
    stage: Stage,
    next: Instant,
}

impl View {
    pub(super) fn new() -> Self {
        Self { screen: Screen::stderr(), stage: Stage::Connecting, next: Instant::now() + LINE }
    }

    /// Bytes so far and altogether, and over which networks they go.
    pub(super) fn show(
        &mut self,
        stage: Stage,
        (bytes, of): (u64, u64),
        meter: Option<&Meter>,
        output: &mut Output,
    ) {
        let rates = meter.map(Meter::rates).unwrap_or_default();
        let mut line = match stage {
            Stage::Connecting => "Connecting ..".to_owned(),
            Stage::Restoring => "It is there, and is restored ..".to_owned(),
            Stage::Saving => {
                format!("Saving: {} of about {}", amount::bytes(bytes), amount::bytes(of.max(bytes)))
            }
            Stage::Copying => format!(
                "Copying: {:>3} %  {} of {}",
                amount::percent(bytes, of),
                amount::bytes(bytes),
                amount::bytes(of)
            ),
        };
        if rates.content >= 1.0 {
            line = format!("{line}  {}/s", amount::bytes(rates.content as u64));
        }
        let now = Instant::now();
        let due = std::mem::replace(&mut self.stage, stage) != stage || now >= self.next;
        if output.is_json() {
            if due {
                self.next = now + OBJECT;
                let networks: serde_json::Map<_, _> = rates
                    .networks
                    .iter()
                    .map(|(name, rate)| (name.clone(), json!(rate.round() as u64)))
                    .collect();
                // Where that cannot be written the end says so.
                let _closed = output.object(&json!({
                    "event": "progress",
                    "stage": stage.name(),
                    "bytes": bytes,
                    "total": of,
                    "rate": rates.content.round() as u64,
                    "networks": networks,
                }));
            }
        } else if self.screen.is_live() {
            self.screen.status(&[line]);
        } else if due {
            self.next = now + LINE;
            tell(&line);
        }
    }

    /// What saving tells.
    pub(super) fn saving(&mut self, progress: Progress, output: &mut Output) {
        let amount = match progress {
            Progress::Asking => (0, 0),
            Progress::Writing(bytes, of) => (bytes, of),
            Progress::Checking => return,
        };
        self.show(Stage::Saving, amount, None, output);
    }

    pub(super) fn line(&mut self, text: &str) {
        self.screen.end_status();
        tell(text);
    }

    pub(super) fn end(&mut self) {
        self.screen.end_status();
    }
}
