//! The client's side of the socket: what it says to its agent, what it waits for, and what it says again when the agent was
//! restarted. Still without any I/O.

use crate::agent::{Publication, Replay, Replayed};
use crate::code::Code;
use crate::event::{Client, EventId, SchemaInfo};
use crate::handle::EventHandle;
use crate::name::EventSpace;
use crate::protocol::{self, Frame, Hello, Refused, Request, Welcome};
use crate::queue::{Delivery, Provenance, SubscriptionId};
use crate::schema::{Declaration, MAX_DECLARED};
use crate::subscription::{MAX_SUBSCRIPTION, Matching};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::BytesMut;
use steadfast_wire::frame::DecodeError;

#[cfg(test)]
mod tests;

/// Requests that may wait for their answers.
const MAX_PENDING: usize = 1024;
/// Bytes that may wait to be written; beyond, nothing is asked or published any more.
const MAX_OUTGOING: usize = 1 << 20;
/// Events that are remembered, so that none is told again after a resumption. 48 bytes each.
const REMEMBERED: usize = 1024;

/// What a client hears.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// The agent has let it in.
    Welcome {
        /// What the agent says of itself.
        welcome: Box<Welcome>,
        /// Whether another agent spoke before, or another run of this one. What that one had not delivered is lost.
        restarted: bool,
    },
    /// Events are declared, or a subscription has ended.
    Done(Request),
    /// The event was handed to everybody on this host who wants it.
    Published {
        /// What was asked.
        request: Request,
        /// Which event it became.
        handle: Box<EventHandle>,
    },
    /// The subscription stands.
    Subscribed {
        /// What was asked.
        request: Request,
        /// What comes first.
        replayed: Replayed,
    },
    /// It is not done.
    Refused(Refused),
    /// The connection ended before the answer came: the event was published, or it was not. It is not published again.
    Unknown(Request),
    /// An event that a subscription wants; for an [`Inbox`](crate::Inbox).
    Event(Delivery),
    /// So many events gave way at the agent.
    Dropped(u64),
    /// So many publications that were not to be answered were refused.
    Lost {
        /// How many.
        count: u64,
        /// The last one's reason.
        code: Code,
    },
    /// After a restart the agent refuses this subscription, which has ended.
    Lapsed {
        /// Which.
        id: SubscriptionId,
        /// Why.
        refused: Refused,
    },
    /// After a restart the agent refuses declared events, which are declared no more.
    Undeclared {
        /// Why.
        refused: Refused,
    },
    /// The agent ends the connection, with its reason if it did not answer to [`Session::leave`].
    Ended(Option<Refused>),
}

/// Why nothing is said to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// There is no connection.
    #[error("there is no connection to the agent of this host; connect first")]
    NotConnected,
    /// The agent does not answer, or its answers were not taken in.
    #[error(
        "{MAX_PENDING} requests or 1 MiB wait for this host's agent already; is `steadfast daemon` hung?"
    )]
    Busy,
    /// The number is taken.
    #[error("this client has a subscription of this number already; use another")]
    Taken,
    /// There is no such subscription, or no more.
    #[error("there is no such subscription; it may have been ended already")]
    Unknown,
    /// It cannot be said in one frame.
    #[error(
        "a client declares {MAX_DECLARED} events and a subscription has {MAX_SUBSCRIPTION} bytes at most; split it"
    )]
    TooLong,
}

impl SessionError {
    /// FTB's code for it.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::NotConnected | Self::Busy => Code::NetworkGeneral,
            Self::Taken => Code::DuplicateCall,
            Self::Unknown => Code::InvalidHandle,
            Self::TooLong => Code::General,
        }
    }
}

/// What the other end says cannot be an agent's words. Close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// It cannot be understood.
    #[error("what the agent says cannot be understood ({0}); update the older of agent and client")]
    Format(DecodeError),
    /// It is no answer to what was asked.
    #[error("the agent answers what was not asked; update the older of agent and client")]
    Order,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No connection, or one that ended.
    Closed,
    Connected,
    /// BYE was said.
    Leaving,
}

/// A request that has no answer yet.
#[derive(Debug, Clone)]
struct Pending {
    request: Request,
    asked: Asked,
    /// Nobody waits for the answer: it is said again after a restart, or was given up.
    quiet: bool,
}

#[derive(Debug, Clone)]
enum Asked {
    Declare(Declared),
    Publish,
    Subscribe(SubscriptionId),
    Unsubscribe,
}

/// Events that were declared together.
#[derive(Debug, Clone)]
struct Declared {
    info: Option<SchemaInfo>,
    events: Vec<Declaration>,
}

/// A subscription and how far it came.
#[derive(Debug)]
struct Held {
    id: SubscriptionId,
    matching: Matching,
    text: String,
    /// What to ask for if it has to be asked again.
    replay: Replay,
    /// Events of its replay that have not come.
    missing: u64,
    /// The newest event from before which nothing is to come; `None` until the agent has answered.
    after: Option<EventId>,
}

/// A client's conversation with the agent of its host, over one connection after the other.
///
/// The driver calls [`handle_connected`](Self::handle_connected) for each new connection, writes what
/// [`poll_transmit`](Self::poll_transmit) gives after each call of a verb, hands what it reads to [`poll`](Self::poll) until that
/// says `None`, and calls [`handle_closed`](Self::handle_closed) when the connection is gone, after everything that was read.
/// Then `poll` tells which requests have no outcome.
///
/// What was declared and subscribed is said again on the next connection, also what was asked and not answered. Each
/// subscription then asks for what came after the last event that it knows of; so nothing is missed that the agent still has.
/// Publications are never said again.
#[derive(Debug)]
pub struct Session {
    space: Option<EventSpace>,
    client: Client,
    state: State,
    welcome: Option<Box<Welcome>>,
    /// Whether the agent said so on this connection.
    welcomed: bool,
    /// Whether this connection is not the first one.
    resumed: bool,
    declared: Vec<Declared>,
    held: Vec<Held>,
    pending: VecDeque<Pending>,
    last: u64,
    outgoing: Vec<u8>,
    /// What `poll` tells first.
    told: VecDeque<Heard>,
    recent: VecDeque<EventId>,
}

impl Session {
    /// A client without a connection; one without an event space only subscribes.
    #[must_use]
    pub const fn new(space: Option<EventSpace>, client: Client) -> Self {
        Self {
            space,
            client,
            state: State::Closed,
            welcome: None,
            welcomed: false,
            resumed: false,
            declared: Vec::new(),
            held: Vec::new(),
            pending: VecDeque::new(),
            last: 0,
            outgoing: Vec::new(),
            told: VecDeque::new(),
            recent: VecDeque::new(),
        }
    }

    /// What the agent said of itself last.
    #[must_use]
    pub fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_deref()
    }

    /// Whether the agent has let the client in, and the connection has not ended since.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Connected && self.welcomed
    }

    /// Whether there is no connection as far as the session knows.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether nothing is left that a connection would have to bring or say again.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.held.is_empty() && self.pending.is_empty()
    }

    /// There is a new connection. Everything that stood is said again at once.
    pub fn handle_connected(&mut self) {
        debug_assert!(self.state == State::Closed);
        self.state = State::Connected;
        self.welcomed = false;
        let (lowest, highest) = (protocol::LOWEST, protocol::VERSION);
        let hello = Hello { lowest, highest, space: self.space, client: self.client };
        Frame::Hello(hello).encode(&mut self.outgoing);
        let waiting = core::mem::take(&mut self.pending);
        for declared in core::mem::take(&mut self.declared) {
            let request = self.number();
            self.ask(request, Asked::Declare(declared), true);
        }
        let standing: Vec<_> =
            self.held.iter().filter(|held| held.after.is_some()).map(|held| held.id).collect();
        for id in standing {
            let request = self.number();
            self.ask(request, Asked::Subscribe(id), true);
        }
        for Pending { request, asked, quiet } in waiting {
            self.ask(request, asked, quiet);
        }
    }

    /// The connection is gone, or is to be given up.
    pub fn handle_closed(&mut self) {
        self.state = State::Closed;
        self.outgoing.clear();
        self.resumed = self.welcome.is_some();
        for Pending { request, asked, quiet } in core::mem::take(&mut self.pending) {
            match asked {
                Asked::Publish if !quiet => self.told.push_back(Heard::Unknown(request)),
                Asked::Unsubscribe if !quiet => self.told.push_back(Heard::Done(request)),
                Asked::Publish | Asked::Unsubscribe => {}
                Asked::Declare(declared) if quiet => self.keep(declared),
                // It stands among those that are held, and is asked again with them.
                Asked::Subscribe(id) if self.stands(id) => {}
                Asked::Declare(_) | Asked::Subscribe(_) => {
                    self.pending.push_back(Pending { request, asked, quiet });
                }
            }
        }
    }

    /// Declares events. Answered with [`Heard::Done`] or [`Heard::Refused`].
    pub fn declare(
        &mut self,
        info: Option<SchemaInfo>,
        events: Vec<Declaration>,
    ) -> Result<Request, SessionError> {
        if events.len() > MAX_DECLARED {
            return Err(SessionError::TooLong);
        }
        self.admit()?;
        let request = self.number();
        self.ask(request, Asked::Declare(Declared { info, events }), false);
        Ok(request)
    }

    /// Publishes an event. If it is to be acknowledged it is answered with [`Heard::Published`], [`Heard::Refused`] or
    /// [`Heard::Unknown`]; otherwise the request is [`Request::NONE`], and nothing is said unless it is refused
    /// ([`Heard::Lost`]).
    pub fn publish(&mut self, publication: Publication, acknowledged: bool) -> Result<Request, SessionError> {
        self.admit()?;
        let request = if acknowledged { self.number() } else { Request::NONE };
        Frame::Publish { request, publication }.encode(&mut self.outgoing);
        if acknowledged {
            self.pending.push_back(Pending { request, asked: Asked::Publish, quiet: false });
        }
        Ok(request)
    }

    /// Subscribes, behind the others. Answered with [`Heard::Subscribed`] or [`Heard::Refused`], before the first event.
    pub fn subscribe(
        &mut self,
        id: SubscriptionId,
        matching: Matching,
        replay: Replay,
        text: &str,
    ) -> Result<Request, SessionError> {
        if text.len() > MAX_SUBSCRIPTION {
            return Err(SessionError::TooLong);
        }
        if self.held.iter().any(|held| held.id == id) {
            return Err(SessionError::Taken);
        }
        self.admit()?;
        self.held.push(Held { id, matching, text: text.into(), replay, missing: 0, after: None });
        let request = self.number();
        self.ask(request, Asked::Subscribe(id), false);
        Ok(request)
    }

    /// Ends a subscription. Answered with [`Heard::Done`], also where the connection has ended meanwhile. What it caught
    /// already may still come.
    pub fn unsubscribe(&mut self, id: SubscriptionId) -> Result<Request, SessionError> {
        let at = self.held.iter().position(|held| held.id == id).ok_or(SessionError::Unknown)?;
        self.held.remove(at);
        let request = self.number();
        if self.state == State::Connected {
            Frame::Unsubscribe { request, id }.encode(&mut self.outgoing);
            self.pending.push_back(Pending { request, asked: Asked::Unsubscribe, quiet: false });
        } else {
            self.pending.retain(|one| !matches!(one.asked, Asked::Subscribe(asked) if asked == id));
            self.told.push_back(Heard::Done(request));
        }
        Ok(request)
    }

    /// Nobody waits for an answer any more: it is swallowed. A subscription that was asked for ends; events may be declared
    /// or not; a publication has no known outcome.
    pub fn give_up(&mut self, request: Request) {
        let Some(pending) = self.pending.iter_mut().find(|pending| pending.request == request) else {
            return;
        };
        pending.quiet = true;
        if let Asked::Subscribe(id) = pending.asked
            && let Ok(end) = self.unsubscribe(id)
        {
            self.give_up(end);
            self.told.retain(|heard| *heard != Heard::Done(end));
        }
    }

    /// Says that this is the end. When everything said before was taken in, [`Heard::Ended`] tells.
    pub fn leave(&mut self) -> Result<(), SessionError> {
        if self.state != State::Connected {
            return Err(SessionError::NotConnected);
        }
        self.state = State::Leaving;
        Frame::Bye.encode(&mut self.outgoing);
        Ok(())
    }

    /// Appends what is to be written. Returns whether there was anything.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool {
        let any = !self.outgoing.is_empty();
        out.append(&mut self.outgoing);
        any
    }

    /// What is heard next, from the front of `input`, where part of a frame stays; `None` if more bytes are needed. After a
    /// violation the connection is useless.
    pub fn poll(&mut self, input: &mut BytesMut) -> Result<Option<Heard>, Violation> {
        loop {
            if let Some(heard) = self.told.pop_front() {
                return Ok(Some(heard));
            }
            if self.state == State::Closed {
                input.clear();
                return Ok(None);
            }
            // Noise is told at once, and is not waited for to become a frame.
            if !self.welcomed && input.first().is_some_and(|first| !protocol::is_first(*first)) {
                return Err(Violation::Order);
            }
            let Some(frame) = Frame::decode(input).map_err(Violation::Format)? else { return Ok(None) };
            if let Some(heard) = self.handle_frame(frame)? {
                return Ok(Some(heard));
            }
        }
    }

    fn number(&mut self) -> Request {
        self.last += 1;
        Request(self.last)
    }

    fn admit(&self) -> Result<(), SessionError> {
        if self.state != State::Connected {
            return Err(SessionError::NotConnected);
        }
        if self.pending.len() >= MAX_PENDING || self.outgoing.len() >= MAX_OUTGOING {
            return Err(SessionError::Busy);
        }
        Ok(())
    }

    fn stands(&self, id: SubscriptionId) -> bool {
        self.held.iter().any(|held| held.id == id && held.after.is_some())
    }

    /// Says a request, the first time or again.
    fn ask(&mut self, request: Request, asked: Asked, quiet: bool) {
        match &asked {
            Asked::Declare(Declared { info, events }) => {
                Frame::Declare { request, info: info.clone(), events: events.clone() }
                    .encode(&mut self.outgoing);
            }
            Asked::Subscribe(id) => {
                let Some(held) = self.held.iter_mut().find(|held| held.id == *id) else { return };
                held.replay = held.replay();
                let Held { id, matching, replay, .. } = *held;
                let text = held.text.clone();
                Frame::Subscribe { request, id, matching, replay, text }.encode(&mut self.outgoing);
            }
            Asked::Publish | Asked::Unsubscribe => return,
        }
        self.pending.push_back(Pending { request, asked, quiet });
    }

    fn handle_frame(&mut self, frame: Frame) -> Result<Option<Heard>, Violation> {
        match frame {
            Frame::Refused(refused) if refused.request == Request::NONE => {
                self.handle_closed();
                self.told.push_back(Heard::Ended(Some(refused)));
                Ok(None)
            }
            Frame::Welcome(welcome)
                if !self.welcomed && (protocol::LOWEST..=protocol::VERSION).contains(&welcome.version) =>
            {
                self.welcomed = true;
                let run = |welcome: &Welcome| (welcome.origin, welcome.incarnation);
                let restarted = self.welcome.as_deref().is_some_and(|before| run(before) != run(&welcome));
                let welcome = Box::new(welcome);
                self.welcome = Some(welcome.clone());
                Ok(Some(Heard::Welcome { welcome, restarted }))
            }
            _ if !self.welcomed => Err(Violation::Order),
            Frame::Bye if self.state == State::Leaving => {
                self.handle_closed();
                self.told.push_back(Heard::Ended(None));
                Ok(None)
            }
            Frame::Event(delivery) => Ok(self.handle_event(delivery)),
            Frame::Dropped(count) => {
                for held in &mut self.held {
                    // Those of a replay stand in front, and give way first.
                    held.missing = held.missing.saturating_sub(count);
                }
                Ok(Some(Heard::Dropped(count)))
            }
            Frame::Lost { count, code } => Ok(Some(Heard::Lost { count, code })),
            Frame::Done(request) => {
                let fits = |asked: &Asked| matches!(asked, Asked::Declare(_) | Asked::Unsubscribe);
                let Pending { asked, quiet, .. } = self.answered(request, fits)?;
                if let Asked::Declare(declared) = asked {
                    self.keep(declared);
                }
                Ok((!quiet).then_some(Heard::Done(request)))
            }
            Frame::Published { request, handle } => {
                let pending = self.answered(request, |asked| matches!(asked, Asked::Publish))?;
                Ok((!pending.quiet).then_some(Heard::Published { request, handle }))
            }
            Frame::Subscribed { request, replayed, newest } => {
                let Pending { asked, quiet, .. } =
                    self.answered(request, |asked| matches!(asked, Asked::Subscribe(_)))?;
                for held in &mut self.held {
                    if matches!(asked, Asked::Subscribe(id) if id == held.id) {
                        (held.missing, held.after) = (replayed.events, Some(newest));
                    }
                }
                Ok((!quiet).then_some(Heard::Subscribed { request, replayed }))
            }
            Frame::Refused(refused) => {
                let pending = self.answered(refused.request, |_| true)?;
                Ok(self.refused(pending, refused))
            }
            _ => Err(Violation::Order),
        }
    }

    /// The oldest request, if this answers it.
    fn answered(
        &mut self,
        request: Request,
        fits: impl FnOnce(&Asked) -> bool,
    ) -> Result<Pending, Violation> {
        let oldest =
            self.pending.front().filter(|pending| pending.request == request && fits(&pending.asked));
        oldest.ok_or(Violation::Order)?;
        self.pending.pop_front().ok_or(Violation::Order)
    }

    fn refused(&mut self, pending: Pending, refused: Refused) -> Option<Heard> {
        let Pending { asked, quiet, .. } = pending;
        match asked {
            Asked::Declare(declared) => {
                let others = refused.code == Code::DuplicateEvent;
                if others {
                    self.keep(declared);
                }
                if quiet {
                    return (!others).then_some(Heard::Undeclared { refused });
                }
            }
            Asked::Subscribe(id) => {
                let before = self.held.len();
                self.held.retain(|held| held.id != id);
                if quiet {
                    // One that was given up is held no more.
                    return (self.held.len() < before).then_some(Heard::Lapsed { id, refused });
                }
            }
            Asked::Publish | Asked::Unsubscribe => {}
        }
        (!quiet).then_some(Heard::Refused(refused))
    }

    /// Remembers what was declared, each name once.
    fn keep(&mut self, mut declared: Declared) {
        let before = &self.declared;
        let known = |event: &Declaration| {
            before.iter().flat_map(|one| &one.events).any(|one| one.name.same(&event.name))
        };
        declared.events.retain(|event| !known(event));
        if !declared.events.is_empty() {
            self.declared.push(declared);
        }
    }

    fn handle_event(&mut self, delivery: Delivery) -> Option<Heard> {
        let id = delivery.event.id;
        let again = self.resumed && (delivery.replay.is_some() || delivery.provenance != Provenance::Local);
        let known = again && self.recent.contains(&id);
        if !known {
            if self.recent.len() == REMEMBERED {
                self.recent.pop_front();
            }
            self.recent.push_back(id);
        }
        for held in &mut self.held {
            held.note(id, delivery.replay);
        }
        (!known).then_some(Heard::Event(delivery))
    }

    /// Checks what must hold after every call; panics where it does not. For tests.
    pub fn check_invariants(&self) {
        assert!(self.recent.len() <= REMEMBERED);
        for held in &self.held {
            let asked = |one: &Pending| matches!(one.asked, Asked::Subscribe(id) if id == held.id);
            assert!(
                held.after.is_some() || self.pending.iter().any(asked),
                "{held:?} is neither asked nor answered"
            );
        }
        assert!(self.state != State::Closed || self.outgoing.is_empty());
    }
}

impl Held {
    /// What it asks for when it is asked on another connection.
    fn replay(&self) -> Replay {
        match self.after {
            Some(after) if self.missing == 0 => Replay::After(after),
            _ => self.replay,
        }
    }

    /// An event came.
    fn note(&mut self, id: EventId, replay: Option<SubscriptionId>) {
        if replay == Some(self.id) {
            self.missing = self.missing.saturating_sub(1);
            // The rest of the replay comes after it.
            self.replay = Replay::After(id);
        } else if replay.is_none()
            && let Some(after) = &mut self.after
        {
            // What waited when this one subscribed may come after the answer.
            let run = |id: &EventId| (id.origin, id.incarnation);
            if run(after) != run(&id) || after.sequence < id.sequence {
                *after = id;
            }
        }
    }
}
