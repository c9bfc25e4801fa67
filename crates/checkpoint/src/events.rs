//! The events of seed 002: what is saved and restored, said on the fault backplane by whoever asked for it.
//!
//! For each request a connection of its own, as FTB's clients of this kind do it: made, used for BEGIN and for END or ERROR, and
//! closed. Without an agent, or with one that does not answer, it is left out; nothing waits longer than [`LIMIT`] for it.

use std::path::PathBuf;
use std::time::Duration;

use steadfast_agent_client::{Client, Settings};
use steadfast_backplane::{
    Client as Name, ClientName, Declaration, EventHandle, JobId, Kind, Payload, Publication, Style,
};

/// The event space.
pub const SPACE: &str = "FTB.checkpoint_sw.blcr";
/// The most that an event may delay.
const LIMIT: Duration = Duration::from_millis(500);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Checkpoint,
    Restart,
}

/// Publishes, or notes why it cannot.
#[derive(Debug)]
pub struct Publisher {
    socket: PathBuf,
    notes: Vec<String>,
}

/// A BEGIN that was published.
pub(crate) struct Begun {
    verb: Verb,
    client: Client,
    handle: EventHandle,
}

const EVENTS: [(&str, &str); 6] = [
    ("CHKPT_BEGIN", "INFO"),
    ("CHKPT_END", "INFO"),
    ("CHKPT_ERROR", "ERROR"),
    ("RSTRT_BEGIN", "INFO"),
    ("RSTRT_END", "INFO"),
    ("RSTRT_ERROR", "ERROR"),
];

impl Publisher {
    /// To the agent that listens here.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, notes: Vec::new() }
    }

    /// What was not published, and why; each is told once.
    pub fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Without BEGIN there is no END either.
    pub(crate) fn begin(&mut self, verb: Verb) -> Option<Begun> {
        match self.try_begin(verb) {
            Ok(begun) => Some(begun),
            Err(error) => {
                self.notes.push(format!("no events of this are published: {error}"));
                None
            }
        }
    }

    fn try_begin(&self, verb: Verb) -> Result<Begun, Box<dyn std::error::Error>> {
        let settings =
            Settings { path: self.socket.clone(), limit: LIMIT, style: Style::None, ..Settings::default() };
        let name = Name { name: ClientName::NONE, job: JobId::NONE, extension: 0 };
        let mut client = Client::connect(settings, Some(SPACE.parse()?), name)?;
        let events = EVENTS.iter().map(|(name, severity)| Declaration::new(name, severity));
        client.declare(None, events.collect::<Result<_, _>>()?)?;
        let name = if verb == Verb::Checkpoint { "CHKPT_BEGIN" } else { "RSTRT_BEGIN" };
        let handle = client.publish(Publication {
            name: name.parse()?,
            kind: Kind::Plain,
            payload: Payload::EMPTY,
        })?;
        Ok(Begun { verb, client, handle })
    }

    /// Says how it ended: with nothing, or with this error number. Never more than once for a BEGIN.
    pub(crate) fn end(&mut self, begun: Option<Begun>, errno: Option<i32>) {
        let Some(begun) = begun else { return };
        if let Err(error) = Self::try_end(begun, errno) {
            self.notes.push(format!("the end of this was not published: {error}"));
        }
    }

    fn try_end(mut begun: Begun, errno: Option<i32>) -> Result<(), Box<dyn std::error::Error>> {
        let name = match (begun.verb, errno) {
            (Verb::Checkpoint, None) => "CHKPT_END",
            (Verb::Checkpoint, Some(_)) => "CHKPT_ERROR",
            (Verb::Restart, None) => "RSTRT_END",
            (Verb::Restart, Some(_)) => "RSTRT_ERROR",
        };
        // The handle comes first in what a C program reads; after it the number as C has it in memory.
        let payload =
            errno.map_or(Ok(Payload::EMPTY), |errno| Payload::new(errno.to_ne_bytes().to_vec().into()))?;
        let kind = Kind::Answer(Box::new(begun.handle));
        begun.client.publish(Publication { name: name.parse()?, kind, payload })?;
        begun.client.disconnect(LIMIT)?;
        Ok(())
    }
}
