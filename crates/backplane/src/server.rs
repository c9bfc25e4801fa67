//! The agent's side of its socket: connections, and the frames on them. Still without any I/O.

use crate::agent::{Agent, ClientId, Process, PublishError, Replay};
use crate::code::Code;
use crate::protocol::{self, Frame, Hello, Refused, Request, Welcome};
use crate::queue::Next;
use crate::ready::{Notice, Ready};
use crate::reason::Reason;
use crate::subscription::Subscription;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::BytesMut;
use core::cmp::Reverse;
use core::time::Duration;
use steadfast_wire::Instant;
use steadfast_wire::frame::DecodeError;

/// How long a connection may take to say HELLO.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of answers that may wait; beyond, no more is asked of the agent.
const MAX_ANSWERS: usize = 64 * 1024;
/// Answers that may wait for storage, likewise.
const MAX_HELD: usize = 4096;
/// How much is done in one turn of a connection, in frames.
const TURN: usize = 64;
/// What a search through the past costs of that.
const REPLAY_COST: usize = 16;
/// Connections that have not said HELLO, at most: one more ends the oldest of the user who has most of them.
const MAX_STRANGERS: usize = 64;

const NO_HELLO: &str = "a connection begins with HELLO; is this a client of Steadfast?";

/// A connection as the server numbers it; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// What to do after bytes were taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flow {
    /// Read on.
    More,
    /// There is more in the buffer: serve others, then hand it over again. One connection's turn is bounded.
    Again,
    /// Write first; then hand over what is left in the buffer, and read on. Who does not read answers is not asked more.
    Write,
    /// Write what the socket takes at once, then close: nothing more is taken in.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    ExpectHello {
        until: Instant,
    },
    Open(ClientId),
    /// Answers are still to be written.
    Ended,
}

#[derive(Debug)]
struct Connection {
    process: Process,
    state: State,
    /// What its client speaks.
    version: u64,
    answers: Vec<u8>,
    /// Answers that wait until an event is stored, and all behind them.
    held: VecDeque<Held>,
    /// Publications that were refused without anybody to tell.
    lost: u64,
    lost_code: Code,
    notice: Notice,
}

/// An answer that cannot be given yet.
#[derive(Debug)]
struct Held {
    /// What is to be stored before, if it is that for which it waits.
    place: Option<u64>,
    frame: Frame,
}

/// An [`Agent`] with the connections of its clients.
///
/// For each accepted socket call [`handle_connected`](Self::handle_connected) with what the kernel says of its process, then
/// [`handle_data`](Self::handle_data) with what is read (all of it, also what came before an end of the stream: a client may
/// publish and close at once), and [`handle_closed`](Self::handle_closed) when it is gone. After each of these and after every
/// call of the agent's: for each connection that [`poll_ready`](Self::poll_ready) names, [`poll_transmit`](Self::poll_transmit)
/// while the socket takes bytes; where it does not, again when it does. Then close those that
/// [`is_finished`](Self::is_finished) names, and whatever ended and does not read its last answers. With
/// [`Config::journal`](crate::Config::journal) store what [`Agent::poll_journal`] gives, and say so
/// ([`handle_stored`](Self::handle_stored)). Last, wait until [`poll_timeout`](Self::poll_timeout) at most.
#[derive(Debug)]
pub struct Server {
    agent: Agent,
    connections: BTreeMap<ConnectionId, Connection>,
    by_client: BTreeMap<ClientId, ConnectionId>,
    ready: Ready<ConnectionId>,
    /// Clients without a connection that have something to take.
    own: Vec<ClientId>,
    last: u64,
    violations: u64,
}

impl Server {
    /// A server without connections.
    #[must_use]
    pub const fn new(agent: Agent) -> Self {
        Self {
            agent,
            connections: BTreeMap::new(),
            by_client: BTreeMap::new(),
            ready: Ready::new(),
            own: Vec::new(),
            last: 0,
            violations: 0,
        }
    }

    /// The agent, for what the daemon itself does.
    #[must_use]
    pub const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The agent, for what the daemon itself does. Clients that came over a connection are the server's.
    pub const fn agent_mut(&mut self) -> &mut Agent {
        &mut self.agent
    }

    /// Connections that broke the rules of the protocol.
    #[must_use]
    pub const fn violations(&self) -> u64 {
        self.violations
    }

    /// Connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// A socket was accepted; `process` is what the kernel says of its other end.
    pub fn handle_connected(&mut self, now: Instant, process: Process) -> ConnectionId {
        if let Some(oldest) = self.stranger_too_many(process.user) {
            self.refuse_stream(oldest, "too many connections wait to say who they are; try again".into());
        }
        self.last += 1;
        let id = ConnectionId(self.last);
        let connection = Connection {
            process,
            state: State::ExpectHello { until: now + HELLO_LIMIT },
            version: protocol::LOWEST,
            answers: Vec::new(),
            held: VecDeque::new(),
            lost: 0,
            lost_code: Code::General,
            notice: Notice::default(),
        };
        self.connections.insert(id, connection);
        id
    }

    /// Who gives way to one more stranger of a user, if it is one too many. Of users who have as many it is the oldest.
    fn stranger_too_many(&self, user: u32) -> Option<ConnectionId> {
        let mut of_user: BTreeMap<u32, (usize, ConnectionId)> = BTreeMap::new();
        let mut all = 0;
        for (id, connection) in &self.connections {
            if matches!(connection.state, State::ExpectHello { .. }) {
                all += 1;
                of_user.entry(connection.process.user).or_insert((0, *id)).0 += 1;
            }
        }
        if let Some((count, _)) = of_user.get_mut(&user) {
            *count += 1;
        }
        let most = of_user.into_values().max_by_key(|(count, oldest)| (*count, Reverse(*oldest)));
        most.filter(|_| all >= MAX_STRANGERS).map(|(_, oldest)| oldest)
    }

    /// Takes in what a connection sent, from the front of `input`, frame by frame; part of a frame stays there.
    pub fn handle_data(&mut self, now: Instant, id: ConnectionId, input: &mut BytesMut) -> Flow {
        let mut done = 0;
        let flow = loop {
            let Some(connection) = self.connections.get(&id) else { break Flow::Ended };
            if connection.state == State::Ended {
                break Flow::Ended;
            }
            if connection.is_held_up() {
                break Flow::Write;
            }
            if done >= TURN && !input.is_empty() {
                break Flow::Again;
            }
            // Noise is told at once, and is not waited for to become a frame.
            if matches!(connection.state, State::ExpectHello { .. })
                && input.first().is_some_and(|first| *first != protocol::HELLO)
            {
                self.refuse_stream(id, NO_HELLO.into());
                continue;
            }
            match Frame::decode(input) {
                Ok(Some(frame)) => {
                    let searches =
                        matches!(&frame, Frame::Subscribe { replay, .. } if *replay != Replay::Nothing);
                    done += if searches { REPLAY_COST } else { 1 };
                    self.handle_frame(now, id, frame);
                }
                Ok(None) => break Flow::More,
                Err(error) => self.refuse_stream(id, violation(error)),
            }
        };
        if flow == Flow::Ended {
            input.clear();
        }
        self.tell(id);
        flow
    }

    /// The socket is gone; everything that was read from it was handed over.
    pub fn handle_closed(&mut self, id: ConnectionId) {
        self.end(id);
        if let Some(connection) = self.connections.remove(&id) {
            self.ready.remove(id, &connection.notice);
        }
    }

    /// Nothing more comes from the socket, though its other end may still read: whatever is owed to it comes, and then
    /// the connection [is finished](Self::is_finished). Everything that was read was handed over.
    pub fn handle_end_of_input(&mut self, id: ConnectionId) {
        self.end(id);
    }

    /// Everything up to this [place](crate::Record::place) of the journal is stored: what waited for that is answered.
    pub fn handle_stored(&mut self, place: u64) {
        self.agent.set_storage_failed(false);
        self.release(|held| held <= place);
    }

    /// Events cannot be stored. Those that were to be acknowledged are refused, and so are others until
    /// [`handle_stored`](Self::handle_stored).
    pub fn handle_store_failed(&mut self) {
        self.agent.set_storage_failed(true);
        for connection in self.connections.values_mut() {
            for held in &mut connection.held {
                if held.place.take().is_some()
                    && let Frame::Published { request, .. } = held.frame
                {
                    let error = PublishError::NotStored;
                    let refused = Refusal::of(error.code(), error.reason(), &error).refused(request);
                    held.frame = Frame::Refused(refused.for_version(connection.version));
                }
            }
        }
        self.release(|_| true);
    }

    fn release(&mut self, stored: impl Fn(u64) -> bool) {
        for (id, connection) in &mut self.connections {
            let before = connection.answers.len();
            while connection.held.front().is_some_and(|held| held.place.is_none_or(&stored))
                && let Some(held) = connection.held.pop_front()
            {
                held.frame.encode(&mut connection.answers);
            }
            if connection.answers.len() > before {
                self.ready.raise(*id, &mut connection.notice);
            }
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |connection: &Connection| matches!(connection.state, State::ExpectHello { until } if until <= now);
        let silent: Vec<_> = self.connections.iter().filter(|(_, one)| due(one)).map(|(id, _)| *id).collect();
        for id in silent {
            self.refuse_stream(id, "nothing said who is connecting; is this a client of Steadfast?".into());
            self.tell(id);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let until = |connection: &Connection| match connection.state {
            State::ExpectHello { until } => Some(until),
            State::Open(_) | State::Ended => None,
        };
        self.connections.values().filter_map(until).min()
    }

    /// A connection that has something to write since [`poll_transmit`](Self::poll_transmit) last wrote nothing for it; each
    /// is named once.
    pub fn poll_ready(&mut self) -> Option<ConnectionId> {
        while let Some(client) = self.agent.poll_ready() {
            let Some(id) = self.by_client.get(&client) else {
                self.own.push(client);
                continue;
            };
            if let Some(connection) = self.connections.get_mut(id) {
                self.ready.raise(*id, &mut connection.notice);
            }
        }
        while let Some(id) = self.ready.pop() {
            if self.connections.get_mut(&id).is_some_and(|connection| connection.notice.name()) {
                return Some(id);
            }
        }
        None
    }

    /// A client of the daemon itself that [`poll_ready`](Self::poll_ready) found to have something to take; to be asked
    /// after it, until `None`. Each is named once until [`Agent::poll`] said `None` to it.
    pub fn poll_own(&mut self) -> Option<ClientId> {
        self.own.pop()
    }

    /// Appends what a connection is to be told, until `out` has `max` bytes or a frame more. Returns whether there was
    /// anything; only after it said no, with room in `out`, is the connection named as ready again.
    pub fn poll_transmit(&mut self, id: ConnectionId, out: &mut Vec<u8>, max: usize) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let before = out.len();
        out.append(&mut connection.answers);
        let lost = core::mem::take(&mut connection.lost);
        if lost > 0 {
            Frame::Lost { count: lost, code: connection.lost_code }.encode(out);
        }
        if let State::Open(client) = connection.state {
            while out.len() < max
                && let Some(next) = self.agent.poll(client)
            {
                let frame = match next {
                    Next::Dropped(count) => Frame::Dropped(count),
                    Next::Event(delivery) => Frame::Event(delivery),
                };
                frame.encode(out);
            }
        }
        let any = out.len() > before;
        // Who comes with a full buffer has not asked.
        if !any && before < max {
            connection.notice.clear();
        }
        any
    }

    /// Whether the connection has said all, and is to be closed.
    #[must_use]
    pub fn is_finished(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_none_or(|connection| {
            connection.state == State::Ended && connection.answers.is_empty() && connection.held.is_empty()
        })
    }

    /// Whether nothing is taken in from the connection any more; it may have last answers to write.
    #[must_use]
    pub fn has_ended(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_none_or(|connection| connection.state == State::Ended)
    }

    /// Whether an answer to the connection waits for storage.
    #[must_use]
    pub fn is_owed(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|connection| !connection.held.is_empty())
    }

    /// Whether the connection has not been read from because it does not read; its answers are to be written first.
    #[must_use]
    pub fn is_held_up(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(Connection::is_held_up)
    }

    fn handle_frame(&mut self, now: Instant, id: ConnectionId, frame: Frame) {
        let Some(connection) = self.connections.get(&id) else { return };
        match (connection.state, frame) {
            (State::ExpectHello { .. }, Frame::Hello(hello)) => self.handle_hello(now, id, &hello),
            (State::Open(client), frame) => self.handle_request(now, id, client, frame),
            _ => self
                .refuse_stream(id, "a connection begins with HELLO; is this a client of Steadfast?".into()),
        }
    }

    fn handle_hello(&mut self, now: Instant, id: ConnectionId, hello: &Hello) {
        let Some(version) = protocol::version(hello.lowest, hello.highest) else {
            let Hello { lowest, highest, .. } = hello;
            let words = format!(
                "the client speaks versions {lowest} to {highest} of the agent's protocol, this agent versions {} to {}; update the older",
                protocol::LOWEST,
                protocol::VERSION
            );
            return self.refuse_stream(id, words);
        };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.version = version;
        let process = connection.process;
        match self.agent.attach(now, process, hello.space, hello.client) {
            Ok(client) => {
                connection.state = State::Open(client);
                self.by_client.insert(client, id);
                let host = self.agent.host();
                let welcome = Welcome {
                    version,
                    origin: host.origin,
                    incarnation: host.incarnation,
                    location: crate::event::Location {
                        host: host.name,
                        address: host.address,
                        pid: process.pid,
                        start: process.start,
                    },
                    user: process.user,
                };
                self.answer(id, Frame::Welcome(welcome));
            }
            Err(error) => self.end_with(id, Refusal::of(error.code(), error.reason(), &error)),
        }
    }

    fn handle_request(&mut self, now: Instant, id: ConnectionId, client: ClientId, frame: Frame) {
        let (request, result) = match frame {
            Frame::Publish { request: Request::NONE, publication } => {
                if let Err(error) = self.agent.take(now, client, publication, false) {
                    self.lose(id, error.code());
                }
                return;
            }
            Frame::Publish { request, publication } => {
                let published = self.agent.publish(now, client, publication, true).map_err(|error| {
                    let retry_after = match error {
                        PublishError::TooFast { retry_after } => Some(retry_after),
                        _ => None,
                    };
                    Refusal { retry_after, ..Refusal::of(error.code(), error.reason(), &error) }
                });
                (request, published.map(|handle| Frame::Published { request, handle: handle.into() }))
            }
            Frame::Declare { request, info, events } => {
                let declared = self.agent.declare(client, &events, info);
                let refused = |error: crate::DeclareError| Refusal::of(error.code(), error.reason(), &error);
                (request, declared.map(|()| Frame::Done(request)).map_err(refused))
            }
            Frame::Subscribe { request, id: number, matching, replay, text } => {
                let subscribed = match Subscription::new(&text) {
                    Ok(wanted) => self
                        .agent
                        .subscribe(now, client, number, wanted, matching, replay)
                        .map_err(|error| Refusal::of(error.code(), error.reason(), &error)),
                    Err(error) => Err(Refusal::of(error.code(), Reason::Other, &error)),
                };
                let newest = self.agent.newest();
                (request, subscribed.map(|replayed| Frame::Subscribed { request, replayed, newest }))
            }
            Frame::Unsubscribe { request, id: number } => {
                let ended = self.agent.unsubscribe(client, number);
                let refused =
                    |error: crate::UnsubscribeError| Refusal::of(error.code(), Reason::Other, &error);
                (request, ended.map(|()| Frame::Done(request)).map_err(refused))
            }
            Frame::Bye => {
                self.answer(id, Frame::Bye);
                return self.end(id);
            }
            _ => {
                self.violations += 1;
                let words = "a client said what only an agent says; update the older of both";
                return self.end_with(id, Refusal::of(Code::General, Reason::Other, &words));
            }
        };
        let frame = result.unwrap_or_else(|refusal: Refusal| Frame::Refused(refusal.refused(request)));
        self.answer(id, frame);
    }

    fn lose(&mut self, id: ConnectionId, code: Code) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.lost += 1;
            connection.lost_code = code;
        }
    }

    /// Answers are given in the order in which was asked, so all wait behind one that waits.
    fn answer(&mut self, id: ConnectionId, frame: Frame) {
        let waits = self.agent.waits_for_storage() && matches!(frame, Frame::Published { .. });
        let place = waits.then(|| self.agent.journal_place());
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let frame = match frame {
            Frame::Refused(refused) => Frame::Refused(refused.for_version(connection.version)),
            frame => frame,
        };
        if waits || !connection.held.is_empty() {
            connection.held.push_back(Held { place, frame });
        } else {
            frame.encode(&mut connection.answers);
        }
    }

    /// Names a connection among those that are ready if it has something to write.
    fn tell(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && (!connection.answers.is_empty() || connection.lost > 0)
        {
            self.ready.raise(id, &mut connection.notice);
        }
    }

    /// The stream is at fault: it ends.
    fn refuse_stream(&mut self, id: ConnectionId, words: String) {
        self.violations += 1;
        self.end_with(id, Refusal::of(Code::General, Reason::Other, &words));
        self.tell(id);
    }

    fn end_with(&mut self, id: ConnectionId, refusal: Refusal) {
        self.answer(id, Frame::Refused(refusal.refused(Request::NONE)));
        self.end(id);
    }

    fn end(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let State::Open(client) = connection.state {
            self.by_client.remove(&client);
            self.agent.detach(client);
        }
        connection.state = State::Ended;
    }

    /// Checks what must hold after every call; panics where it does not. For tests.
    pub fn check_invariants(&self) {
        self.agent.check_invariants();
        let open = self.connections.values().filter(|connection| matches!(connection.state, State::Open(_)));
        assert_eq!(open.count(), self.by_client.len());
        for (client, id) in &self.by_client {
            assert_eq!(self.connections.get(id).map(|one| one.state), Some(State::Open(*client)));
        }
        let largest = 1024;
        for connection in self.connections.values() {
            assert!(connection.answers.len() <= MAX_ANSWERS + 2 * largest, "answers are bounded");
            assert!(connection.held.len() <= MAX_HELD + 1, "what is held is bounded");
            assert!(connection.notice.is_told() || (connection.answers.is_empty() && connection.lost == 0));
        }
        assert!(self.ready.len() <= self.connections.len());
        let strangers = |one: &&Connection| matches!(one.state, State::ExpectHello { .. });
        assert!(self.connections.values().filter(strangers).count() <= MAX_STRANGERS);
    }
}

/// A [`Refused`] before it is said in answer to what.
struct Refusal {
    code: Code,
    reason: Reason,
    retry_after: Option<Duration>,
    words: String,
}

impl Refusal {
    fn of(code: Code, reason: Reason, words: &impl ToString) -> Self {
        Self { code, reason, retry_after: None, words: words.to_string() }
    }

    fn refused(self, request: Request) -> Refused {
        let Self { code, reason, retry_after, words } = self;
        Refused { request, code, retry_after, words, reason }
    }
}

impl Refused {
    /// Without what this version has no place for.
    fn for_version(self, version: u64) -> Self {
        let reason = if version < 2 { Reason::Other } else { self.reason };
        Self { reason, ..self }
    }
}

impl Connection {
    fn is_held_up(&self) -> bool {
        self.answers.len() >= MAX_ANSWERS || self.held.len() >= MAX_HELD
    }
}

fn violation(error: DecodeError) -> String {
    format!(
        "what the client said cannot be understood ({error}); is it a client of this version of Steadfast?"
    )
}

#[cfg(test)]
mod tests;
