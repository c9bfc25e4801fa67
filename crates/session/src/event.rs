//! What the core tells: events for the application, actions for the driver, errors for each verb.

use crate::association::AssociationId;
use crate::liveness::Judgement;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use steadfast_wire::frame::{EndReason, Process};
use steadfast_wire::{
    Fingerprint, Incarnation, Labels, MessageId, NetworkId, PathNumber, SessionId, Urgency,
};

/// Why a message is surely not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The sender cancelled it.
    Cancelled,
    /// A message that it was declared to wait for was dropped.
    Dependency,
    /// The receiving application closed or refused it.
    Refused,
    /// It was being streamed when one of the two processes restarted.
    Restarted,
    /// Its lifetime passed ([`SendOptions::expires_in`](crate::SendOptions::expires_in)).
    Expired,
    /// No network that was up could carry it for as long as its labels' failure timeout says
    /// ([`Endpoint::set_failure_timeout`](crate::Endpoint::set_failure_timeout)).
    NoNetwork,
    /// The other side could not be reached, as another transport says.
    Unreachable,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "it was cancelled",
            Self::Dependency => "what it waited for was dropped",
            Self::Refused => "the other side did not take it",
            Self::Restarted => "one of the two processes restarted",
            Self::Expired => "its lifetime passed",
            Self::Unreachable => "the other side could not be reached",
            Self::NoNetwork => {
                "no network could carry it for as long as its labels' failure timeout allows: let it wait longer with \
                 `set_failure_timeout`, or allow it more networks"
            }
        })
    }
}

/// How a message ended. Each message has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The receiving application took it.
    Delivered,
    /// It is surely not delivered.
    Dropped(DropReason),
    /// The conversation ended before it was known.
    Unknown,
}

/// Why a path went down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DownReason {
    /// The carrier failed or was closed by the other side.
    Carrier,
    /// Nothing was heard on it for [`Config::down_after`](crate::Config::down_after).
    Silence,
    /// The local network or its address is gone.
    LocalNetwork,
    /// The peer says that its network is gone.
    RemoteNetwork,
    /// Another path took its place: for the same two networks, or for some that a message needs more.
    Replaced,
    /// The peer broke the protocol.
    Violation,
    /// The peer has closed it.
    Closed,
    /// What was under way on it may no longer use its networks, or nothing may.
    Prohibited,
    /// The association is over.
    Ended,
    /// One side is about to be frozen and said so.
    Suspended,
}

/// What happened, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer opened a session; it waits for [`Endpoint::accept`](crate::Endpoint::accept).
    Incoming {
        /// The session.
        session: SessionId,
        /// Who opened it.
        peer: Fingerprint,
    },
    /// The peer knows the session that we opened.
    Opened {
        /// The session.
        session: SessionId,
    },
    /// [`Endpoint::recv`](crate::Endpoint::recv) or [`Endpoint::read`](crate::Endpoint::read) has something, or the
    /// other direction has finished.
    Readable {
        /// The session.
        session: SessionId,
    },
    /// A send that was refused for want of room may be tried again.
    Writable {
        /// The session.
        session: SessionId,
    },
    /// A network may now carry a send that waits for one, or the time of one is over: look with
    /// [`Endpoint::check_deferral`](crate::Endpoint::check_deferral).
    Suitable {
        /// The session.
        session: SessionId,
    },
    /// A message of which something left has waited too long (it expired, or was without a network). The receiver is asked
    /// to drop it; its outcome follows when that can be.
    GivenUp {
        /// The session.
        session: SessionId,
        /// The message.
        id: MessageId,
        /// Why.
        reason: DropReason,
    },
    /// The peer's library has the message.
    Acked {
        /// The session.
        session: SessionId,
        /// The message.
        id: MessageId,
    },
    /// The message has its outcome.
    Outcome {
        /// The session.
        session: SessionId,
        /// The message.
        id: MessageId,
        /// What became of it.
        outcome: Outcome,
    },
    /// The other side finished sending (or closes: then our sends fail, too).
    PeerShut {
        /// The session.
        session: SessionId,
        /// Whether it closes both directions.
        closing: bool,
    },
    /// No path is left (told after [`SessionConfig::park_notice`](crate::SessionConfig::park_notice)).
    Parked {
        /// The session.
        session: SessionId,
    },
    /// The session goes on after it was parked.
    Resumed {
        /// The session.
        session: SessionId,
    },
    /// The session is over.
    Ended {
        /// The session.
        session: SessionId,
        /// Why.
        reason: EndReason,
        /// The last of our messages that the peer surely has with all before it, where the reason is a rollback.
        common: Option<MessageId>,
    },
    /// A path came up.
    PathUp(PathInfo),
    /// A path makes no progress; traffic moves away from it.
    PathSuspect(PathInfo),
    /// A suspect path answers again.
    PathRecovered(PathInfo),
    /// A path is gone.
    PathDown(PathInfo, DownReason),
    /// The answer to [`Endpoint::probe`](crate::Endpoint::probe).
    Probed {
        /// The path.
        path: PathNumber,
        /// Its round trip, between the two libraries.
        rtt: Duration,
    },
    /// A process that was to be in [reach](crate::Endpoint::reach) is.
    Reached {
        /// What was asked for.
        reach: ReachId,
        /// The process. If another one is reached later, this is told again.
        association: AssociationId,
        /// Whether it takes an [offer](crate::Endpoint::offer): a peer of an earlier version does not.
        offers: bool,
    },
    /// The peer left, or is no longer trusted: what was to be in reach is not, and not sought any more.
    Unreached {
        /// What was asked for.
        reach: ReachId,
    },
    /// A process offers something beside sessions; empty if it takes that back.
    Offered {
        /// The process.
        association: AssociationId,
        /// Of which peer.
        peer: Fingerprint,
        /// At most [`MAX_OFFER`](steadfast_wire::frame::MAX_OFFER) bytes.
        offer: Bytes,
    },
    /// The [`routes`](crate::Endpoint::routes) to a process that was reached, or that offered something, may be others.
    Rerouted {
        /// The process.
        association: AssociationId,
    },
    /// A process that was reached, or that offered something, is gone or has forgotten us: all that was offered is void, on
    /// both sides. If it lives and is to be in reach, [`Reached`](Self::Reached) follows, perhaps with the same association.
    Dissociated {
        /// The process.
        association: AssociationId,
    },
    /// What is known of a process of a peer changed: why it does not answer, or that it does.
    Verdict {
        /// The process, as this endpoint numbers it; 0 as long as none of this peer was ever met.
        association: AssociationId,
        /// Whose it is.
        peer: Fingerprint,
        /// Which run of the peer's program it is, once known.
        incarnation: Option<Incarnation>,
        /// The verdict, its evidence, and since when.
        judgement: Judgement,
        /// The sessions that it concerns.
        sessions: Vec<SessionId>,
        /// What the application wants to be in reach, and is that process.
        reaches: Vec<ReachId>,
    },
    /// The peer left (BYE) and says why.
    PeerLeft {
        /// Who.
        peer: Fingerprint,
        /// The peer's words, at most 256 bytes.
        reason: String,
    },
}

/// What the application wants to be in reach, as this endpoint numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReachId(pub(crate) u64);

/// How another protocol may reach a peer: as a path that is up does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Our number for the path.
    pub path: PathNumber,
    /// Our network.
    pub network: NetworkId,
    /// The address on our side, where it is known.
    pub local: Option<IpAddr>,
    /// The other end's address.
    pub remote: IpAddr,
    /// Whether the path is suspect.
    pub suspect: bool,
}

/// A path as events name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// Our number for it.
    pub path: PathNumber,
    /// The other end.
    pub peer: Fingerprint,
    /// Our network.
    pub local: NetworkId,
    /// Our network's name.
    pub local_name: String,
    /// The peer's network, as it calls it; empty where the peer has not said.
    pub remote_name: String,
    /// The other end's address.
    pub remote: SocketAddr,
    /// Smoothed round trip, once measured.
    pub rtt: Option<Duration>,
    /// Measured delivery rate in bytes a second, once measured.
    pub rate: Option<u64>,
    /// The highest rate at which bytes lately came in on it, in bytes a second: the path is at least that fast in that
    /// direction. `None` before a tenth of a second's worth came.
    pub arrival_rate: Option<u64>,
    /// Whether it is suspect.
    pub suspect: bool,
    /// Bytes of frames given to it so far, before encryption.
    pub sent: u64,
    /// Of these, bytes of messages: everything else is control, which network rules do not bind.
    pub data_sent: u64,
    /// Bytes of frames that came in on it so far.
    pub received: u64,
}

/// How long a message would take until its last byte is at the peer's library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forecast {
    /// At the paths' measured rates and round trips.
    pub likely: Duration,
    /// At the best that was lately measured.
    pub earliest: Duration,
    /// At the worst that was lately measured, and with four variances of the round trip more.
    pub latest: Duration,
    /// Whether all that it rests on was measured, or learned of an earlier path between the same networks.
    pub measured: bool,
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Open a carrier; answer with [`Endpoint::handle_connected`](crate::Endpoint::handle_connected) or
    /// [`Endpoint::handle_carrier_lost`](crate::Endpoint::handle_carrier_lost), and say with
    /// [`Endpoint::handle_reached`](crate::Endpoint::handle_reached) when the other side's kernel takes the connection, before
    /// anything is said on it. The core has its own time limit.
    Connect {
        /// The path it is for.
        path: PathNumber,
        /// The local network to use.
        local: NetworkId,
        /// Where to.
        remote: SocketAddr,
        /// Whose key must be there.
        peer: Fingerprint,
    },
    /// Close the carrier after sending what was taken from [`Endpoint::poll_transmit`](crate::Endpoint::poll_transmit).
    Close {
        /// The path.
        path: PathNumber,
    },
    /// Close the carrier and throw away what is in its socket.
    Reset {
        /// The path.
        path: PathNumber,
    },
    /// Say what the kernel knows of a carrier, with [`Endpoint::handle_examined`](crate::Endpoint::handle_examined): at
    /// once, and `None` if it does not tell.
    Examine {
        /// The path.
        path: PathNumber,
    },
    /// Watch a process of this host, and tell with [`Endpoint::handle_exited`](crate::Endpoint::handle_exited) when it ends. What
    /// the peer says of itself is not to be trusted: a process that started at another time is another one.
    Watch {
        /// Who wants to know.
        association: AssociationId,
        /// The process, in our pid namespace.
        process: Process,
    },
    /// Nobody wants to know that any more.
    Unwatch {
        /// Who wanted to know.
        association: AssociationId,
    },
}

/// A message that the application takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its id in the peer's direction.
    pub id: MessageId,
    /// The sender's labels.
    pub labels: Labels,
    /// The whole message, or `None` for a streamed one, which is read with [`Endpoint::read`](crate::Endpoint::read).
    pub payload: Option<Bytes>,
    /// The whole length in bytes, where the sender said it.
    pub length: Option<u64>,
}

/// What [`Endpoint::recv`](crate::Endpoint::recv) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recv {
    /// A message.
    Message(Received),
    /// Nothing yet.
    Pending,
    /// The other side has finished, and everything was taken.
    Finished,
}

/// What [`Endpoint::read`](crate::Endpoint::read) found in a streamed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The next bytes.
    Chunk(Bytes),
    /// Nothing yet.
    Pending,
    /// The message is complete and was taken whole.
    End,
    /// The sender gave the message up.
    Dropped,
}

/// A session that does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// No session of this id is here: it has ended.
    #[error("the conversation has ended")]
    Ended,
    /// No message of this id is open: it has its outcome already.
    #[error("the message {0} is not open: it has its outcome already, or was never sent")]
    NoMessage(MessageId),
}

/// Why a send was refused. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The conversation has ended.
    #[error("the conversation has ended: open a new one")]
    Ended,
    /// We shut our direction.
    #[error("sending was shut down on this side")]
    Shut,
    /// The peer closes the conversation.
    #[error("the peer is closing the conversation")]
    PeerShut,
    /// Larger than the peer takes as one whole message.
    #[error(
        "a whole message of {size} bytes is larger than the peer's limit of {limit}: stream it with `begin`"
    )]
    TooLarge {
        /// Bytes of the message.
        size: u64,
        /// Bytes that the peer accepts.
        limit: u64,
    },
    /// The send buffer is full; [`Event::Writable`] tells when to try again.
    #[error("the {} send buffer is full: wait until the peer has taken some of it", urgency_name(*.0))]
    Full(Urgency),
    /// A declared dependency was dropped, so this message could never be delivered.
    #[error("message {0}, which this one waits for, was dropped")]
    Undeliverable(MessageId),
    /// A declared dependency is not an earlier message of this session, or there are too many.
    #[error("a message may wait for at most 64 earlier messages of its own session")]
    BadDependency,
    /// A network rule with too many or too long parts.
    #[error("a network rule may have 8 entries a list, each name at most 64 bytes")]
    BadRule,
    /// No network that is up may carry it, and its labels have a failure timeout.
    #[error(
        "cannot send a {} message: no network that is up may carry it (rule: {}; waited for at most {timeout:?}): defer it with \
         `send_or_defer`, let it wait longer with `set_failure_timeout`, or allow it more networks",
        urgency_name(labels.urgency),
        labels.rule
    )]
    NoNetwork {
        /// The labels it was to be sent with.
        labels: Box<Labels>,
        /// Their failure timeout.
        timeout: Duration,
    },
    /// Too many sends of this conversation wait for a network.
    #[error(
        "8192 sends of this conversation wait for a network already: cancel some with `cancel_deferred`, or send less while \
         there is none"
    )]
    TooManyDeferred,
    /// The streamed message was finished, cancelled, or dropped by the receiver.
    #[error("message {0} is not open for writing")]
    NotOpen(MessageId),
}

const fn urgency_name(urgency: Urgency) -> &'static str {
    match urgency {
        Urgency::Foreground => "foreground",
        Urgency::Background => "background",
    }
}

/// Why bytes or a carrier were refused: the path is closed and counted; the peer is told nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Violation {
    /// A frame that cannot be read.
    Decode,
    /// HELLO missing, repeated, or of no version that we speak.
    Hello,
    /// More bytes than the window, or than a message's own length.
    FlowControl,
    /// Fields that contradict each other or what was said before.
    Contradiction,
    /// A report of frames that were never sent.
    Progress,
    /// More open ids, holes or items than allowed.
    Limit,
}
