//! Peers whose key is not trusted: asked about at a terminal, refused with the words that help without one.

use std::collections::HashSet;
use std::future::pending;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use serde_json::json;
use steadfast::{Endpoint, Fingerprint, Stranger, TrustFile};
use tokio::sync::oneshot;

use crate::context::Context;
use crate::output::{Output, clean};
use crate::screen::Style;

/// What they come for, in words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// As in "somebody wants to send".
    pub(crate) wants: &'static str,
    /// As in "take files from it?".
    pub(crate) grant: &'static str,
}

/// Who is let in.
pub(crate) struct Strangers {
    endpoint: Endpoint,
    wish: Wish,
    trusted: PathBuf,
    asks: bool,
    /// Told or answered already.
    known: HashSet<Fingerprint>,
    asked: Option<(Fingerprint, oneshot::Receiver<Answer>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Always,
    Once,
    No,
    /// Nobody is there any more.
    Nobody,
}

impl Strangers {
    pub(crate) fn new(endpoint: Endpoint, wish: Wish, context: &Context, output: &Output) -> Self {
        let asks = io::stdin().is_terminal() && io::stdout().is_terminal() && !output.is_json();
        let trusted = context.places.trusted.clone();
        Self { endpoint, wish, trusted, asks, known: HashSet::new(), asked: None }
    }

    /// Whether nobody is being asked.
    pub(crate) fn is_free(&self) -> bool {
        self.asked.is_none()
    }

    /// The name of a trusted peer, or its key.
    pub(crate) fn name_of(&self, key: &Fingerprint) -> String {
        let file = TrustFile::open(&self.trusted).ok();
        file.and_then(|file| file.name_of(key).map(clean)).unwrap_or_else(|| key.to_string())
    }

    /// Someone was refused.
    pub(crate) fn came(&mut self, stranger: Stranger, output: &mut Output) -> anyhow::Result<()> {
        let Stranger { key, address, .. } = stranger;
        let Wish { wants, grant } = self.wish;
        if !self.known.insert(key) {
            return Ok(());
        }
        output
            .object(&json!({ "event": "refused", "key": key.to_string(), "address": address.to_string() }))?;
        if !self.asks {
            output.line(format!("Refused {key} at {address}: `steadfast trust add {key}` lets it in."))?;
            return Ok(());
        }
        let shown = output.screen().paint(Style::Bold, key.to_string());
        output.line(format!("Somebody at {address} wants to {wants}, whose key is not known here:"))?;
        output.line(format!("  {shown}"))?;
        output.line(format!("{grant}, if its screen, or `steadfast id` there, shows the same key?"))?;
        output.screen().line_start("[yes, always / once / no] ");
        let (answer, asked) = oneshot::channel();
        // A thread of its own: nothing ends a read from a terminal, and nobody waits for it at the end.
        std::thread::spawn(move || {
            let _gone = answer.send(read());
        });
        self.asked = Some((key, asked));
        Ok(())
    }

    /// Waits for the answer to the question, if there is one. Cancel safe.
    pub(crate) async fn answer(&mut self) -> Answer {
        match &mut self.asked {
            Some((_, asked)) => asked.await.unwrap_or(Answer::Nobody),
            None => pending().await,
        }
    }

    /// Somebody answered.
    pub(crate) fn answered(&mut self, answer: Answer, output: &mut Output) -> anyhow::Result<()> {
        let Some((key, _)) = self.asked.take() else { return Ok(()) };
        match answer {
            Answer::Always => {
                TrustFile::open(&self.trusted)?.add(key, None)?;
                self.endpoint.trust(key);
                output.line("Trusted from now on; waiting for it to try again.")?;
            }
            Answer::Once => {
                self.endpoint.trust(key);
                output.line("Trusted this time; waiting for it to try again.")?;
            }
            Answer::No => output.line("Refused.")?,
            Answer::Nobody => self.asks = false,
        }
        Ok(())
    }
}

/// What somebody types; what cannot be understood is asked again.
fn read() -> Answer {
    loop {
        let mut line = String::new();
        match io::stdin().lock().read_line(&mut line) {
            Ok(0) | Err(_) => return Answer::Nobody,
            Ok(_) => {}
        }
        match line.trim().to_lowercase().as_str() {
            "y" | "yes" | "always" => return Answer::Always,
            "o" | "once" => return Answer::Once,
            "n" | "no" => return Answer::No,
            _ => {
                let mut out = io::stdout().lock();
                // Where this cannot be written, nobody can answer either.
                let _closed = write!(out, "Please type yes, once or no: ").and_then(|()| out.flush());
            }
        }
    }
}
