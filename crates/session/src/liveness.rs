//! What is known of a peer's process: the verdict, the evidence it rests on, and since when.
//!
//! Only what is received is a sign of life; that something could be sent is none. What the kernel alone knows (whose
//! connection was refused, what was acknowledged, which process ended) the driver tells. The rules that lead from
//! evidence to a verdict are in `association/verdict.rs`.

use alloc::collections::VecDeque;
use alloc::string::String;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use steadfast_wire::{Incarnation, Instant};

/// The most addresses that are remembered as having been this very process's.
const MAX_PROVEN: usize = 16;

/// Why a peer's process does not answer, or that it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing is known yet: it was not reached, and is being sought.
    #[default]
    Unknown,
    /// It answers.
    Alive,
    /// It said farewell. Final.
    Left,
    /// It is gone without a farewell. Only a new process of the peer follows.
    Crashed,
    /// Another process of the same peer answers in its place. Final for this one.
    Restarted,
    /// Its host answers, it does not, although it owes an answer. Revoked by the first thing that is received.
    Hung,
    /// Nothing comes from its host, on any path. Revoked by a new path, or by an answer to what was asked since.
    Unreachable,
    /// This host has no network that could lead to it. Revoked when there is one.
    NoLocalNetwork,
    /// It said that it is about to be frozen, for a checkpoint perhaps, and for how long at most: no crash. Revoked when it
    /// answers again; after its limit silence is judged as any other.
    Suspended,
}

impl Verdict {
    /// Whether nothing can revoke it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Left | Self::Restarted)
    }

    /// One word or two, for people and for output that programs read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Alive => "alive",
            Self::Left => "left",
            Self::Crashed => "crashed",
            Self::Restarted => "restarted",
            Self::Hung => "hung",
            Self::Unreachable => "unreachable",
            Self::NoLocalNetwork => "no local network",
            Self::Suspended => "suspended",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a process ended, where the kernel gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It ended by itself with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The kernel does not tell us: it is not our child.
    Untold,
}

/// What a verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// Nothing was heard yet.
    Nothing,
    /// Something was received from it.
    Heard,
    /// It said farewell, with these words (at most 256 bytes).
    Farewell(String),
    /// Its host refuses connections where it listened.
    Refused(SocketAddr),
    /// The kernel of this host says that the process ended.
    Exited(Exit),
    /// Another process answers where it was.
    NewProcess(Incarnation),
    /// Its kernel acknowledges what is sent; the process answers nothing of it.
    Unanswered,
    /// Its kernel accepts connections; the process does nothing with them.
    Mute(SocketAddr),
    /// Nothing comes on any path, and nothing that is sent is acknowledged.
    Silence,
    /// Its connections ended without a farewell, and nothing has answered since.
    Ended,
    /// A host refuses connections there. That the process was ever at that address is not known.
    NobodyListens(SocketAddr),
    /// No network of this host is up, or none may be used.
    NoNetwork,
    /// A network of this host is up again; the peer was not heard since.
    NetworkBack,
    /// It said that it falls silent, for at most this long.
    Suspended(Duration),
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing was heard of it yet"),
            Self::Heard => f.write_str("it answers"),
            Self::Farewell(words) if words.is_empty() => f.write_str("it said farewell"),
            Self::Farewell(words) => write!(f, "it said farewell: {words:?}"),
            Self::Refused(address) => {
                write!(f, "its host answers, and nothing listens at {address} any more")
            }
            Self::Exited(Exit::Code(code)) => write!(f, "its process ended without a farewell, with code {code}"),
            Self::Exited(Exit::Signal(signal)) => write!(f, "signal {signal} ended its process"),
            Self::Exited(Exit::Untold) => f.write_str("its process ended without a farewell"),
            Self::NewProcess(_) => f.write_str("another process of the same peer answers in its place"),
            Self::Unanswered => {
                f.write_str("its host acknowledges what is sent, the process answers nothing: it is stopped or overloaded")
            }
            Self::Mute(address) => {
                write!(f, "its host accepts connections at {address}, the process does not: it is stopped or overloaded")
            }
            Self::Silence => {
                f.write_str("nothing comes back on any network: the network in between or its host is down")
            }
            Self::Ended => f.write_str("its connections ended without a farewell, and nothing has answered since"),
            Self::NobodyListens(address) => {
                write!(f, "a host answers at {address}, and nothing listens there: check address and port")
            }
            Self::NoNetwork => f.write_str("this host has no network that could lead to it: check cables and radios here"),
            Self::NetworkBack => f.write_str("this host has a network again; nothing was heard yet"),
            Self::Suspended(limit) => write!(f, "it said that it falls silent, for at most {limit:?}"),
        }
    }
}

/// A verdict with its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What it is.
    pub verdict: Verdict,
    /// What it rests on.
    pub evidence: Evidence,
    /// When it came to that.
    pub since: Instant,
}

/// Why there is no carrier (any more), as the driver's kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Loss {
    /// The host answered that nothing listens there.
    Refused,
    /// A connection that was open ended, or was reset, from the other side.
    Ended,
    /// Anything else: nothing came back, or a reason of this side, of the network, or not known.
    Other,
}

/// What the kernel knows of an open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Examination {
    /// Something was sent that the other side's kernel has not acknowledged.
    pub unacknowledged: bool,
    /// The other side's kernel has closed its window, and does not answer when asked about that.
    pub stuck: bool,
    /// How long ago it last acknowledged anything.
    pub last_ack: Duration,
    /// How long ago bytes last came from it.
    pub last_data: Duration,
}

/// The evidence about one process, and what it comes to.
#[derive(Debug)]
pub(crate) struct Liveness {
    pub(super) judged: Judgement,
    /// Without a path since then; `None` beside one, and before the clock was first told.
    pub(super) apart: Option<Instant>,
    /// How long it took to answer when it last did.
    pub(super) patience: Duration,
    /// The last path was ended from the other side.
    pub(super) ended: bool,
    /// When its host last took or refused a connection, since it is apart.
    pub(super) host_answered: Option<Instant>,
    /// Where connections are taken and nothing is said.
    pub(super) mute: Option<SocketAddr>,
    /// Where nothing listens any more, although this process did.
    pub(super) refused: Option<(Instant, SocketAddr)>,
    /// Where nothing listens, and perhaps never did.
    pub(super) denied: Option<SocketAddr>,
    /// The kernel says that it ended.
    pub(super) exited: Option<(Instant, Exit)>,
    /// The kernel was asked about every path, in this round of questions.
    pub(super) round: Option<Round>,
    /// Where this very process was reached: that nobody listens there now means something.
    proven: VecDeque<SocketAddr>,
    pub(super) watched: bool,
    /// It said that it falls silent, and was not heard since.
    pub(super) suspended: Option<Suspension>,
    /// How often it was suspended, as it counts.
    pub(super) suspensions: u64,
}

/// A silence that was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspension {
    /// When it was heard of.
    pub(super) at: Instant,
    pub(super) until: Instant,
}

/// A span of silence at whose beginning the peer was asked, and at whose end the kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round {
    /// When it was last heard, or first asked.
    pub(super) silent_from: Instant,
    pub(super) began: Instant,
    pub(super) asks_at: Instant,
    /// The kernel was asked then.
    pub(super) asked: Option<Instant>,
    /// In so many rounds before this one, without a break, the other side's kernel answered.
    pub(super) answered: u32,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            judged: Judgement { verdict: Verdict::Unknown, evidence: Evidence::Nothing, since: Instant(0) },
            apart: None,
            patience: Duration::ZERO,
            ended: false,
            host_answered: None,
            mute: None,
            refused: None,
            denied: None,
            exited: None,
            round: None,
            proven: VecDeque::new(),
            watched: false,
            suspended: None,
            suspensions: 0,
        }
    }
}

impl Liveness {
    pub(crate) const fn judged(&self) -> &Judgement {
        &self.judged
    }

    /// Whether hearing of it would change the verdict.
    pub(crate) fn is_doubted(&self) -> bool {
        self.judged.verdict != Verdict::Alive && self.can_live()
    }

    /// Whether what is received now can be of a process that lives.
    pub(super) fn can_live(&self) -> bool {
        !self.judged.verdict.is_final() && self.exited.is_none()
    }

    /// This process was reached at an address.
    pub(super) fn prove(&mut self, address: SocketAddr) {
        if !self.proven.contains(&address) {
            if self.proven.len() == MAX_PROVEN {
                self.proven.pop_front();
            }
            self.proven.push_back(address);
        }
    }

    pub(super) fn is_proven(&self, address: SocketAddr) -> bool {
        self.proven.contains(&address)
    }

    /// It is awake again. What its kernel said meanwhile was of the image that was stopped.
    pub(super) fn awoke(&mut self) {
        if self.suspended.take().is_some() {
            self.exited = None;
            self.watched = false;
        }
    }

    /// There is a path: what spoke against it is void.
    pub(super) fn joined(&mut self) {
        self.apart = None;
        self.ended = false;
        self.host_answered = None;
        self.mute = None;
        self.refused = None;
        self.denied = None;
        self.round = None;
    }
}
