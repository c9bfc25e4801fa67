//! What a program calls; one connection after the other.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::fd::OwnedFd;
use steadfast_backplane::protocol::{Refused, Request, Welcome};
use steadfast_backplane::{
    Client as Name, Declaration, Delivery, EventHandle, EventSpace, Heard, Inbox, Matching, Place,
    Publication, Receive, Replay, Replayed, SchemaInfo, Session, Style, Subscription, SubscriptionId,
};

use crate::error::Error;
use crate::forks::Noted;
use crate::place::agent;
use crate::socket::{Read, Socket, pause};

/// Events that wait for callbacks, at most.
const MAX_CALLBACKS: usize = 4096;
/// Bytes of their payloads, at most.
const MAX_CALLBACK_BYTES: usize = 16 << 20;
/// Bytes that wait for room in the socket, beside those that wait in the session.
const MAX_OUT: usize = 64 * 1024;
/// How long polling waits before it connects again to an agent that ended the connection.
const RETRY: Duration = Duration::from_millis(50);
/// Reads of one call that does not wait.
const TURN: usize = 64;

/// How a client connects and receives.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The agent's socket. As [`agent`](crate::agent) says.
    pub path: PathBuf,
    /// How long [`Client::connect`] and all that is asked of the agent may last. 2 s.
    pub limit: Duration,
    /// How it receives. [`Style::Both`].
    pub style: Style,
    /// The length of the polling queue, in events; 0 for 64.
    pub queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { path: agent(), limit: Duration::from_secs(2), style: Style::Both, queue: 0 }
    }
}

/// What was lost on the way, counted since the client was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Events that gave way in a full queue: at the agent, of polling, or of callbacks.
    pub dropped: u64,
    /// Publications without acknowledgement that the agent refused.
    pub refused: u64,
    /// Connections made.
    pub connections: u64,
    /// Subscriptions and declarations that the agent did not take again after a restart.
    pub lapsed: u64,
}

/// What another thread may wait for, without holding the client.
#[derive(Debug, Clone)]
pub struct Attention(Option<Arc<Noted>>);

impl Attention {
    /// The descriptor: when it can be read, [`Client::receive`] has something to do. None without a connection.
    #[must_use]
    pub fn descriptor(&self) -> Option<&OwnedFd> {
        self.0.as_deref().map(Noted::owned)
    }
}

/// What came of reading once.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    Nothing,
    /// Not what is waited for, and there was no more: who has nothing else to do waits.
    Rest,
    /// Not what is waited for.
    Something,
    Answer(Heard),
}

/// A client of the agent of its host.
///
/// Where the agent was restarted, the next call connects again: what was declared and subscribed stands, and what came since
/// comes. A call that is not answered within its limit fails, and the client stays usable.
///
/// ```no_run
/// use std::time::Duration;
/// use steadfast_agent_client::{Client, Settings};
/// use steadfast_backplane::{Client as Name, Declaration, JobId, Kind, Matching, Payload, Publication, Receive, Replay};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let name = Name { name: "example".parse()?, job: JobId::NONE, extension: 0 };
/// let mut client = Client::connect(Settings::default(), Some("FTB.apps.example".parse()?), name)?;
/// client.declare(None, vec![Declaration::new("DONE", "info")?])?;
/// let (faults, _) = client.subscribe("severity=fatal", Matching::Every, Replay::Nothing, Receive::Polling)?;
/// client.publish(Publication { name: "DONE".parse()?, kind: Kind::Plain, payload: Payload::EMPTY })?;
/// while let Some(delivery) = client.poll(faults, Duration::from_secs(10))? {
///     println!("{}", delivery.event.name);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    /// Who made the connection.
    process: u32,
    session: Session,
    inbox: Inbox,
    socket: Option<Socket>,
    input: BytesMut,
    out: Vec<u8>,
    last: u32,
    callbacks: VecDeque<(SubscriptionId, Delivery)>,
    callback_bytes: usize,
    counters: Counters,
    /// Why the agent ended the last connection.
    ended: Option<Refused>,
}

impl Client {
    /// Connects, and waits until the agent has let the client in. One without an event space only subscribes.
    pub fn connect(settings: Settings, space: Option<EventSpace>, name: Name) -> Result<Self, Error> {
        let deadline = Instant::now() + settings.limit;
        let inbox = Inbox::new(settings.style, settings.queue);
        let mut client = Self {
            settings,
            process: process::id(),
            session: Session::new(space, name),
            inbox,
            socket: None,
            input: BytesMut::new(),
            out: Vec::new(),
            last: 0,
            callbacks: VecDeque::new(),
            callback_bytes: 0,
            counters: Counters::default(),
            ended: None,
        };
        client.ensure(deadline)?;
        while client.session.welcome().is_none() {
            client.flush();
            if client.take_in(Request::NONE)? == Taken::Nothing && client.session.welcome().is_none() {
                client.wait(deadline)?;
            }
        }
        Ok(client)
    }

    /// What the agent said of itself and of this process.
    #[must_use]
    pub fn welcome(&self) -> Option<&Welcome> {
        self.session.welcome()
    }

    /// What was lost so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Declares events that this client will publish. A name that is declared already stays as it was
    /// (code -10), and the others are declared.
    pub fn declare(&mut self, info: Option<SchemaInfo>, events: Vec<Declaration>) -> Result<(), Error> {
        let deadline = self.begin()?;
        let request = self.session.declare(info, events)?;
        self.answer(request, deadline).map(drop)
    }

    /// Publishes and waits until everybody on this host who wants the event has it in his queue.
    pub fn publish(&mut self, publication: Publication) -> Result<EventHandle, Error> {
        let deadline = self.begin()?;
        let request = self.session.publish(publication, true)?;
        match self.answer(request, deadline)? {
            Heard::Published { handle, .. } => Ok(*handle),
            _ => Err(Error::Unknown),
        }
    }

    /// Publishes without an answer: it may be refused ([`Counters::refused`]), and is lost if the agent dies before it reads
    /// it. Returns when the socket has it.
    pub fn publish_unanswered(&mut self, publication: Publication) -> Result<(), Error> {
        let deadline = self.begin()?;
        self.session.publish(publication, false)?;
        self.flush();
        while !self.out.is_empty() {
            self.wait(deadline)?;
            self.take_in(Request::NONE)?;
            self.flush();
        }
        if self.socket.is_some() { Ok(()) } else { Err(Error::Unknown) }
    }

    /// Subscribes, behind the other subscriptions: an event goes to the first callback that wants it, else into the polling
    /// queue.
    pub fn subscribe(
        &mut self,
        text: &str,
        matching: Matching,
        replay: Replay,
        receive: Receive,
    ) -> Result<(SubscriptionId, Replayed), Error> {
        let subscription = Subscription::new(text)?;
        let id = SubscriptionId(self.last + 1);
        self.inbox.subscribe(id, subscription, matching, receive)?;
        self.last += 1;
        let result = self.ask_subscription(id, text, matching, replay);
        if result.is_err() {
            let _known = self.inbox.unsubscribe(id);
            self.forget(id);
        }
        result.map(|replayed| (id, replayed))
    }

    fn ask_subscription(
        &mut self,
        id: SubscriptionId,
        text: &str,
        matching: Matching,
        replay: Replay,
    ) -> Result<Replayed, Error> {
        let deadline = self.begin()?;
        let request = self.session.subscribe(id, matching, replay, text)?;
        match self.answer(request, deadline)? {
            Heard::Subscribed { replayed, .. } => Ok(replayed),
            _ => Err(Error::Unknown),
        }
    }

    /// Ends a subscription at once; the agent is told and not waited for. Nothing comes to its callback any more; what it
    /// caught goes to the others that want it.
    pub fn unsubscribe(&mut self, id: SubscriptionId) -> Result<(), Error> {
        self.inbox.unsubscribe(id)?;
        self.forget(id);
        self.own();
        if let Ok(request) = self.session.unsubscribe(id) {
            self.session.give_up(request);
            self.flush();
        }
        Ok(())
    }

    /// The oldest event in the polling queue that a subscription wants; `None` if none comes within `limit`, which may be
    /// zero.
    pub fn poll(&mut self, id: SubscriptionId, limit: Duration) -> Result<Option<Delivery>, Error> {
        let deadline = Instant::now() + limit;
        loop {
            let received = self.receive();
            self.counters.dropped += self.inbox.dropped();
            if let Some(delivery) = self.inbox.poll(id)? {
                return Ok(Some(delivery));
            }
            received?;
            let Some(socket) = &self.socket else {
                if Instant::now() >= deadline {
                    return Ok(None);
                }
                pause(RETRY, deadline);
                continue;
            };
            if !socket.wait(!self.out.is_empty(), deadline) {
                return Ok(None);
            }
        }
    }

    /// Takes in what is there, without waiting; connects again if that is needed and possible at once.
    pub fn receive(&mut self) -> Result<(), Error> {
        self.ensure(Instant::now())?;
        self.flush();
        for _ in 0..TURN {
            if matches!(self.take_in(Request::NONE)?, Taken::Nothing | Taken::Rest) {
                break;
            }
        }
        Ok(())
    }

    /// The next event for a callback, of those that were taken in.
    pub fn next_callback(&mut self) -> Option<(SubscriptionId, Delivery)> {
        let next = self.callbacks.pop_front()?;
        self.callback_bytes -= next.1.event.payload.bytes().len();
        Some(next)
    }

    /// Whether an event waits for a callback.
    #[must_use]
    pub fn has_callbacks(&self) -> bool {
        !self.callbacks.is_empty()
    }

    /// What another thread may wait for.
    #[must_use]
    pub fn attention(&self) -> Attention {
        Attention(self.socket.as_ref().map(Socket::descriptor))
    }

    /// Says farewell and closes; waits within `limit` until the agent has taken in everything. Dropping a client closes
    /// without waiting.
    pub fn disconnect(mut self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        self.own();
        if self.socket.is_none() || self.session.leave().is_err() {
            return Ok(());
        }
        self.flush();
        while self.socket.is_some() {
            if self.take_in(Request::NONE)? == Taken::Nothing && self.socket.is_some() {
                self.wait(deadline)?;
                self.flush();
            }
        }
        Ok(())
    }

    /// In a forked process: lets go of the parent's connection, which stays the parent's. Every call does that first.
    pub fn own(&mut self) {
        let process = process::id();
        if process != self.process {
            self.process = process;
            self.close();
            // What the parent waits for and what came to it is the parent's.
            while let Ok(Some(_)) = self.session.poll(&mut self.input) {}
            while self.inbox.poll_any().is_some() {}
            self.callbacks.clear();
            self.callback_bytes = 0;
        }
    }

    /// A call begins: there is a connection, and its end, if it came, was noticed.
    fn begin(&mut self) -> Result<Instant, Error> {
        let deadline = Instant::now() + self.settings.limit;
        self.own();
        self.take_in(Request::NONE)?;
        self.ensure(deadline)?;
        Ok(deadline)
    }

    fn ensure(&mut self, deadline: Instant) -> Result<(), Error> {
        self.own();
        if self.socket.is_some() {
            return Ok(());
        }
        let path = &self.settings.path;
        let socket =
            Socket::connect(path, deadline).map_err(|error| Error::NoAgent { path: path.clone(), error })?;
        self.socket = Some(socket);
        self.counters.connections += 1;
        self.session.handle_connected();
        Ok(())
    }

    /// Waits for the answer to a request.
    fn answer(&mut self, request: Request, deadline: Instant) -> Result<Heard, Error> {
        let connections = self.counters.connections;
        self.flush();
        loop {
            match self.take_in(request) {
                Ok(Taken::Answer(Heard::Refused(refused))) => return Err(Error::Refused(refused)),
                Ok(Taken::Answer(Heard::Unknown(_))) => return Err(Error::Unknown),
                Ok(Taken::Answer(heard)) => return Ok(heard),
                Ok(Taken::Rest | Taken::Something) if Instant::now() < deadline => {}
                Ok(Taken::Rest | Taken::Something) => return Err(self.give_up(request)),
                Ok(Taken::Nothing) => {
                    if self.socket.is_none() {
                        // What is to be asked again needs a connection; one more is tried.
                        if self.counters.connections > connections {
                            self.session.give_up(request);
                            return Err(self.ended_error());
                        }
                        if let Err(error) = self.ensure(deadline) {
                            self.session.give_up(request);
                            return Err(error);
                        }
                    }
                    self.flush();
                    if let Err(error) = self.wait(deadline) {
                        self.session.give_up(request);
                        return Err(error);
                    }
                }
                Err(error) => {
                    self.session.give_up(request);
                    return Err(error);
                }
            }
        }
    }

    fn give_up(&mut self, request: Request) -> Error {
        self.session.give_up(request);
        self.timed_out()
    }

    fn timed_out(&self) -> Error {
        Error::TimedOut { path: self.settings.path.clone(), limit: self.settings.limit }
    }

    /// Why there is no connection any more.
    fn ended_error(&mut self) -> Error {
        let path = self.settings.path.clone();
        self.ended.take().map_or(Error::Ended { path }, Error::Refused)
    }

    /// Writes what the socket takes. An end is noticed when reading.
    fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        // What is not moved stays where it has a bound.
        while self.out.len() < MAX_OUT && self.session.poll_transmit(&mut self.out) {
            // What the agent said last is read before its end counts.
            if !socket.write(&mut self.out) {
                break;
            }
        }
        socket.write(&mut self.out);
    }

    /// Waits for more from the agent.
    fn wait(&mut self, deadline: Instant) -> Result<(), Error> {
        let Some(socket) = &self.socket else { return Err(self.ended_error()) };
        if socket.wait(!self.out.is_empty(), deadline) {
            self.flush();
            return Ok(());
        }
        Err(self.timed_out())
    }

    /// Reads once, and takes in what that brings.
    fn take_in(&mut self, request: Request) -> Result<Taken, Error> {
        let read = match &self.socket {
            Some(socket) => socket.read(&mut self.input),
            None => Read::Nothing,
        };
        let mut answer = None;
        let mut any = matches!(read, Read::Full | Read::Rest);
        loop {
            let heard = match self.session.poll(&mut self.input) {
                Ok(Some(heard)) => heard,
                Ok(None) if read == Read::Ended && self.socket.is_some() => {
                    self.close();
                    continue;
                }
                Ok(None) => break,
                Err(violation) => {
                    self.close();
                    return Err(violation.into());
                }
            };
            any = true;
            match heard {
                Heard::Done(done) if done == request => answer = Some(heard),
                Heard::Published { request: done, .. }
                | Heard::Subscribed { request: done, .. }
                | Heard::Unknown(done)
                    if done == request =>
                {
                    answer = Some(heard);
                }
                Heard::Refused(ref refused) if refused.request == request => answer = Some(heard),
                other => self.handle(other),
            }
        }
        Ok(match answer {
            Some(answer) => Taken::Answer(answer),
            None if read == Read::Rest => Taken::Rest,
            None if any => Taken::Something,
            None => Taken::Nothing,
        })
    }

    fn handle(&mut self, heard: Heard) {
        match heard {
            Heard::Event(delivery) => self.place(delivery),
            Heard::Dropped(count) => self.counters.dropped += count,
            Heard::Lost { count, .. } => self.counters.refused += count,
            Heard::Lapsed { id, .. } => {
                self.counters.lapsed += 1;
                let _known = self.inbox.unsubscribe(id);
                self.forget(id);
            }
            Heard::Undeclared { .. } => self.counters.lapsed += 1,
            Heard::Ended(refused) => {
                self.ended = refused;
                self.close();
            }
            // Answers that nobody waits for any more.
            _ => {}
        }
    }

    fn place(&mut self, delivery: Delivery) {
        let Place::Callback(id, delivery) = self.inbox.handle_delivery(delivery) else { return };
        self.callback_bytes += delivery.event.payload.bytes().len();
        self.callbacks.push_back((id, delivery));
        while (self.callbacks.len() > MAX_CALLBACKS || self.callback_bytes > MAX_CALLBACK_BYTES)
            && self.next_callback().is_some()
        {
            self.counters.dropped += 1;
        }
    }

    /// What waits for the callback of a subscription that ended goes to the next that wants it.
    fn forget(&mut self, id: SubscriptionId) {
        for (one, delivery) in std::mem::take(&mut self.callbacks) {
            if one == id {
                self.callback_bytes -= delivery.event.payload.bytes().len();
                self.place(delivery);
            } else {
                self.callbacks.push_back((one, delivery));
            }
        }
    }

    fn close(&mut self) {
        self.socket = None;
        self.input.clear();
        self.out.clear();
        self.session.handle_closed();
    }
}
