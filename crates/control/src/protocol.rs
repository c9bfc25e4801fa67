//! What a requester and a process say to each other: a line of JSON each, on a connection of its own.

use crate::participant::Veto;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The version of what is said.
pub(crate) const VERSION: u32 = 1;
/// The most bytes of a line.
const MAX_LINE: usize = 64 * 1024;
/// The shortest wait that the kernel knows.
const TICK: Duration = Duration::from_millis(1);

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

/// Reads one line, all of it until `deadline`, however it comes.
pub(crate) fn hear<T: DeserializeOwned>(stream: &UnixStream, deadline: Instant) -> io::Result<T> {
    let (mut line, mut chunk) = (Vec::new(), [0; 4096]);
    while line.last() != Some(&b'\n') {
        if line.len() > MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match read(stream, &mut chunk, deadline)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => line.extend_from_slice(&chunk[..count]),
        }
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Reads what comes until `deadline`; 0 is the end.
pub(crate) fn read(mut stream: &UnixStream, chunk: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left.max(TICK)))?;
        match stream.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
