//! What a requester and a process say to each other: a line of JSON each, on a connection of its own.

use crate::participant::Veto;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// The version of what is said.
pub(crate) const VERSION: u32 = 1;
/// The most bytes of a line.
const MAX_LINE: u64 = 64 * 1024;

/// What a requester says: one of these.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Question {
    pub(crate) version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prepare: Option<Prepare>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) go_on: Option<GoOn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Empty>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Empty {}

/// The process is to be frozen.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Prepare {
    /// By which it is recognised later.
    pub(crate) token: String,
    /// How long everybody may take to be ready.
    pub(crate) ready_ms: u64,
    /// How long the process may be silent after that.
    pub(crate) silence_ms: u64,
    pub(crate) images: Option<PathBuf>,
    pub(crate) goes_on: bool,
}

/// It runs again.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GoOn {
    pub(crate) token: String,
    pub(crate) outcome: Option<Told>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    Continued,
    Restored { images: Option<PathBuf> },
    Abandoned { reason: String },
}

/// What the process answers: one of these.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    pub(crate) version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ready: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Refused>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) going: Option<Going>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<StatusNow>,
}

/// It does not do what was asked.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Refused {
    /// Whether it is worth trying again later.
    pub(crate) temporary: bool,
    pub(crate) reason: String,
}

/// It goes on.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Going {
    /// What could not be taken up again.
    pub(crate) faults: Vec<String>,
}

/// How it stands.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StatusNow {
    pub(crate) participants: usize,
    pub(crate) prepared: bool,
}

impl Answer {
    pub(crate) fn refused(veto: &Veto) -> Self {
        let temporary = matches!(veto, Veto::Temporary(_));
        Self { refused: Some(Refused { temporary, reason: veto.to_string() }), ..Self::default() }
    }

    pub(crate) fn going(faults: Vec<String>) -> Self {
        Self { going: Some(Going { faults }), ..Self::default() }
    }
}

/// Writes one line.
pub(crate) fn say(mut stream: &UnixStream, words: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(words)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads one line.
pub(crate) fn hear<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(stream.take(MAX_LINE)).read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}
