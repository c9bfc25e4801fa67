//! How the program ends: one table of exit codes, and one way to say why something was not done.

use std::fmt;
use std::io;
use std::process::ExitCode;

use serde_json::json;
use steadfast::{BindError, ConnectError};
use steadfast_checkpoint::{Class, ETIMEDOUT, Error};
use steadfast_daemon::{DaemonError, ExchangeError};

use crate::output::{Output, clean_lines};

/// The exit codes, for scripts. They never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// What was asked for was done.
    Done = 0,
    /// It was not, for a reason that no other code names.
    Failed = 1,
    /// The arguments or the configuration cannot be understood, or name something that is not there.
    Usage = 2,
    /// One side does not trust the other, or a person said no.
    Refused = 3,
    /// Nobody answered in time.
    Unreachable = 4,
    /// Stopped half-way; the same command again goes on from there.
    Interrupted = 5,
    /// What came of it is known to nobody here, and somebody has to look.
    Unknown = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure of the program's own, with the code that it ends with. Those of the library have theirs in [`Exit::of`].
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// The message says what was attempted, on what, and what would help.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// Something that was typed cannot be understood.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Exit {
    /// What another process of this program ended with.
    pub(crate) fn of_code(code: Option<i32>) -> Self {
        let all =
            [Self::Done, Self::Usage, Self::Refused, Self::Unreachable, Self::Interrupted, Self::Unknown];
        all.into_iter().find(|exit| Some(i32::from(*exit as u8)) == code).unwrap_or(Self::Failed)
    }

    /// The code of an error: of its first cause that has one.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(Self::of_cause).unwrap_or(Self::Failed)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(failure.exit);
        }
        if let Some(error) = cause.downcast_ref::<ConnectError>() {
            return Some(match error {
                ConnectError::Address(_) | ConnectError::Itself(_) => Self::Usage,
                ConnectError::UnknownPeer { .. } | ConnectError::Refused { .. } => Self::Refused,
                ConnectError::Resolve(_) | ConnectError::Unreachable { .. } => Self::Unreachable,
                _ => Self::Failed,
            });
        }
        if let Some(error) = cause.downcast_ref::<Error>() {
            return Some(match (error, error.class()) {
                (Error::Late { .. } | Error::Unready { .. } | Error::WentOn(_) | Error::Astray { .. }, _) => {
                    Self::Unreachable
                }
                (Error::Refused { .. }, _) => Self::Refused,
                (Error::Elsewhere { refusal, .. }, _) if refusal.trust => Self::Refused,
                (_, Class::Unknown) => Self::Unknown,
                (error, _) if error.errno() == ETIMEDOUT => Self::Unreachable,
                (_, Class::Usage) => Self::Usage,
                _ => Self::Failed,
            });
        }
        if let Some(DaemonError::Exchange(error)) = cause.downcast_ref::<DaemonError>() {
            // All else is about what the configuration names.
            return (!matches!(error, ExchangeError::Bind(_))).then_some(Self::Usage);
        }
        // What an endpoint is made from is what the user wrote down.
        matches!(cause.downcast_ref::<BindError>(), Some(BindError::Places(_))).then_some(Self::Usage)
    }
}

/// Says why a command failed, once, and turns its result into the exit code.
pub(crate) fn end(result: anyhow::Result<Exit>, output: &mut Output) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) => end_with(&error, output),
    }
}

/// The same for a failure.
pub(crate) fn end_with(error: &anyhow::Error, output: &mut Output) -> ExitCode {
    // Who closed our output, as `head` does, knows why.
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return Exit::Failed.into();
    }
    let (exit, message) = tell(error, output);
    let mut object = json!({ "error": message, "exit": exit as u8 });
    if let Some(error) = error.downcast_ref::<Error>() {
        object["class"] = json!(error.class());
        object["log"] = json!(error.log());
    }
    // Where this cannot be written either, standard error has said it.
    let _closed = output.object(&object);
    exit.into()
}

/// Says on standard error why a command failed; its exit code, and what was said.
#[expect(clippy::print_stderr, reason = "the one place where a failure is told")]
pub(crate) fn tell(error: &anyhow::Error, output: &mut Output) -> (Exit, String) {
    let message = clean_lines(&describe(error));
    output.end_status();
    eprintln!("steadfast: {message}");
    (Exit::of(error), message)
}

/// The error and its causes, each once: many name their cause in their own words.
fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Ends with what is wrong with the arguments, or with the help that they ask for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // It chooses the stream; where that is closed nobody reads.
    let _closed = error.print();
    if !error.use_stderr() {
        return Exit::Done.into();
    }
    // What was understood is not known, so the option is looked for.
    if std::env::args_os().any(|argument| argument == "--json") {
        let text = error.render().to_string();
        // What is wrong; behind the first empty line comes how it should be. Arguments that miss are on lines of their own.
        let wrong: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let message = wrong.join(" ");
        let message = message.trim_start_matches("error: ");
        let object = json!({ "error": message, "exit": Exit::Usage as u8 });
        let _closed = Output::new(true).object(&object);
    }
    Exit::Usage.into()
}
