//! What the demo's processes tell each other: one JSON value a line, over their standard input and output.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::thread;

use clap::ValueEnum;
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Nanoseconds of the kernel's monotonic clock, which all processes of one machine share.
pub(crate) type Nanos = u64;

/// The time now.
pub(crate) fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Which host of the two a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Host a: sends the file and the urgent messages.
    Sender,
    /// Host b: writes the file and answers.
    Receiver,
}

/// What a host is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// To the receiver: whom to trust, and where to listen.
    Listen {
        /// The sender's key.
        trust: String,
        /// Whether to use the loopback only.
        loopback: bool,
        /// The address for the comparison over plain TCP.
        tcp: Option<SocketAddr>,
    },
    /// To the sender: whom to reach.
    Connect {
        /// What the receiver's endpoint says of itself.
        contact: String,
        /// Whether to use the loopback only.
        loopback: bool,
        /// The networks to wait for before the run.
        networks: Vec<String>,
        /// The address for the comparison over plain TCP.
        tcp: Option<SocketAddr>,
    },
    /// To the sender: the run.
    Begin {
        /// When.
        at: Nanos,
        /// How long urgent messages go at least.
        until: Nanos,
        /// The length of the file in bytes.
        file_bytes: u64,
    },
}

/// What a process tells the one that started it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// A host has a key.
    Key(String),
    /// The receiver listens.
    Listening {
        /// What the sender needs to connect.
        contact: String,
        /// Where the comparison over plain TCP listens.
        tcp: Option<SocketAddr>,
    },
    /// The sender has its conversation, over all networks.
    Connected,
    /// This machine does not let the lab be made.
    Forbidden(String),
    /// The run begins at this time.
    Began {
        /// When.
        at: Nanos,
        /// When urgent messages end at the earliest.
        until: Nanos,
        /// The length of the file in bytes.
        file_bytes: u64,
    },
    /// A network was cut: nothing passes, and nobody is told.
    Cut(Nanos),
    /// The network carries again.
    Healed(Nanos),
    /// The state of a path changed, as the sender sees it.
    Path {
        /// When.
        at: Nanos,
        /// Its network.
        network: String,
        /// What happened to it.
        change: PathChange,
    },
    /// The bytes that the networks carried to the receiver so far, in the order of the networks.
    Carried(Vec<u64>),
    /// Bytes of the file that the receiver has.
    FileBytes(u64),
    /// The file is complete at the receiver.
    FileDone(Nanos),
    /// The last round trip of an urgent message, in nanoseconds.
    RoundTrip(Nanos),
    /// The same over plain TCP.
    TcpRoundTrip(Nanos),
    /// Plain TCP answers again.
    TcpAnswers {
        /// When.
        at: Nanos,
        /// After so long without any answer, in nanoseconds.
        after: Nanos,
    },
    /// What the sender measured.
    Sent(Sent),
    /// What the receiver counted.
    Arrived(Arrived),
    /// A process cannot go on.
    Failed(String),
}

/// What may happen to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PathChange {
    /// It works.
    Up,
    /// It makes no progress.
    Suspect,
    /// It answers again.
    Recovered,
    /// It is given up after silence.
    Silent,
    /// It is given up for another reason.
    Down,
}

/// One message and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// When the message was sent.
    pub(crate) sent: Nanos,
    /// When the answer was there; `None` if none came.
    pub(crate) answered: Option<Nanos>,
}

/// What the sender measured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// The urgent messages over Steadfast.
    pub(crate) urgent: Vec<Sample>,
    /// The same over plain TCP; empty without the comparison.
    pub(crate) tcp: Vec<Sample>,
    /// Answers that came twice.
    pub(crate) answers_twice: u64,
    /// Messages, the file among them, whose receipt says that they were delivered.
    pub(crate) receipts_delivered: u64,
    /// Messages whose receipt says anything else, or nothing.
    pub(crate) receipts_other: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub(crate) sha256: String,
    /// Bytes that had to be sent again.
    pub(crate) bytes_resent: u64,
}

/// What the receiver counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Arrived {
    /// Urgent messages that the application got twice.
    pub(crate) urgent_twice: u64,
    /// Bytes of the file.
    pub(crate) file_bytes: u64,
    /// SHA-256 of the file as it was written, in hexadecimal.
    pub(crate) sha256: String,
}

/// Writes one line to standard output.
///
/// An error means that whoever started this process is gone, and then so is this process, through [`obey`].
pub(crate) fn tell(report: &Report) {
    let _parent_gone = write_line(&mut io::stdout().lock(), report);
}

/// Writes one value as one line.
pub(crate) fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

/// Reads values line by line, and gives each to `take`, until the other side ends or says nonsense.
pub(crate) fn read_lines<T: DeserializeOwned>(input: impl io::Read, mut take: impl FnMut(T)) {
    for line in io::BufReader::new(input).lines() {
        let Some(value) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { return };
        take(value);
    }
}

/// Starts a thread that passes on what comes on standard input, and ends this process when that ends: however the
/// process that started this one dies, this one does not stay behind.
pub(crate) fn obey(take: Sender<Order>) {
    thread::spawn(move || {
        read_lines(io::stdin(), |order| {
            let _nobody_waits = take.send(order);
        });
        std::process::exit(1);
    });
}
