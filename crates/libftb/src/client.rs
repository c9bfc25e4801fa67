//! One client: its lock, its callbacks, the thread that calls them.
//!
//! The thread takes what comes for callbacks, under the lock, and calls without it: so a callback may publish, unsubscribe
//! and disconnect. It also connects again when the agent comes back. Clients without callbacks have none: they do all that in
//! their calls.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use steadfast_agent_client::{Attention, Client as AgentClient, Counters, Error, Settings};
use steadfast_backplane::{
    Client as Name, Code, Declaration, EventHandle, EventName, EventSpace, FTB_HANDLE, Kind, MAX_SCHEMA,
    Matching, NameError, Payload, Publication, Reason, Receive, Replay, Schema, SchemaError, SchemaInfo,
    Style, Subscription, SubscriptionError, SubscriptionId,
};

use crate::abi::{self, ClientHandle, EventInfo, EventProperties, ReceiveEvent, SubscribeHandle};
use crate::calls::Callback;
use crate::{convert, log};

/// How long a client that ends waits for a callback that runs.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the thread waits before it looks for an agent that is gone, at first and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Whatever it is, FTB's quirk is on.
const QUIRK: &str = "STEADFAST_FTB_QUIRK";

/// A connected client of this process.
pub(crate) struct Client {
    handle: ClientHandle,
    serial: u64,
    space: EventSpace,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// `None` when it has ended.
    client: Option<AgentClient>,
    callbacks: BTreeMap<SubscriptionId, Callback>,
    /// Whose callback runs.
    running: Option<SubscriptionId>,
    receiver: Option<Receiver>,
    /// What was lost when it was told last.
    told: Counters,
}

/// The thread that calls.
struct Receiver {
    thread: ThreadId,
    /// Written to when it has something to see.
    wake: Arc<OwnedFd>,
}

/// What the thread does next.
enum Step {
    Call(Callback, Box<ReceiveEvent>),
    Wait(Attention),
    /// Look again.
    Again,
    Over,
}

impl Client {
    /// Connects to the agent, in bounded time.
    pub(crate) fn connect(
        handle: ClientHandle,
        serial: u64,
        space: EventSpace,
        name: Name,
        style: Style,
        queue: usize,
    ) -> Result<Self, Code> {
        let settings = Settings { style, queue, ..Settings::default() };
        let client = AgentClient::connect(settings, Some(space), name).map_err(|error| code_of(&error))?;
        let state = State {
            client: Some(client),
            callbacks: BTreeMap::new(),
            running: None,
            receiver: None,
            told: Counters::default(),
        };
        Ok(Self { handle, serial, space, state: Mutex::new(state), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks something of the agent's client, and tells the thread what came in meanwhile.
    fn ask<T>(&self, ask: impl FnOnce(&mut AgentClient) -> Result<T, Error>) -> Result<T, Code> {
        let mut state = self.lock();
        let client = state.client.as_mut().ok_or(Code::InvalidHandle)?;
        let before = client.counters().connections;
        let result = ask(client);
        let wanted = client.has_callbacks() || client.counters().connections != before;
        state.tell();
        if wanted {
            state.wake();
        }
        result.map_err(|error| code_of(&error))
    }

    pub(crate) fn declare(&self, events: &[EventInfo]) -> Result<(), Code> {
        let declaration = |info: &EventInfo| {
            let texts = abi::text(&info.event_name).zip(abi::text(&info.severity));
            let (name, severity) = texts.ok_or(Code::InvalidField)?;
            Declaration::new(name, severity).map_err(NameError::code)
        };
        let events = events.iter().map(declaration).collect::<Result<Vec<_>, _>>()?;
        self.declare_all(None, events)
    }

    pub(crate) fn declare_file(&self, path: &Path) -> Result<(), Code> {
        let text = read_schema(path).ok_or(Code::InvalidSchemaFile)?;
        let schema = Schema::new(&text, &self.space).map_err(SchemaError::code)?;
        self.declare_all(schema.info, schema.events)?;
        if schema.duplicates { Err(Code::DuplicateEvent) } else { Ok(()) }
    }

    fn declare_all(&self, info: Option<SchemaInfo>, events: Vec<Declaration>) -> Result<(), Code> {
        self.ask(|client| client.declare(info, events))
    }

    pub(crate) fn publish(
        &self,
        name: &[u8],
        properties: Option<&EventProperties>,
    ) -> Result<EventHandle, Code> {
        let name = std::str::from_utf8(name).ok().and_then(|name| EventName::new(name).ok());
        let name = name.ok_or(Code::InvalidEventName)?;
        let (kind, payload) = match properties {
            None => (Kind::Plain, &[][..]),
            Some(EventProperties { event_type: 1, event_payload }) => (Kind::Plain, &event_payload[..]),
            Some(EventProperties { event_type: 2, event_payload }) => {
                let (handle, rest) = event_payload.split_first_chunk::<FTB_HANDLE>().ok_or(Code::General)?;
                let handle = EventHandle::from_ftb(handle).map_err(|_| Code::InvalidEventType)?;
                (Kind::Answer(Box::new(handle)), rest)
            }
            Some(_) => return Err(Code::InvalidEventType),
        };
        // FTB has no length: what is zero to the end is not sent, and is zero again where it comes to a C program.
        let length = payload.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let payload = Payload::new(payload[..length].to_vec().into()).map_err(|_| Code::General)?;
        self.ask(|client| client.publish(Publication { name, kind, payload }))
    }

    pub(crate) fn subscribe(
        self: &Arc<Self>,
        text: &str,
        callback: Option<Callback>,
    ) -> Result<SubscribeHandle, Code> {
        let subscription = Subscription::new(text).map_err(SubscriptionError::code)?;
        let matching = if std::env::var_os(QUIRK).is_some() { Matching::Ftb } else { Matching::Every };
        let receive = if callback.is_some() { Receive::Callback } else { Receive::Polling };
        let mut state = self.lock();
        let client = state.client.as_mut().ok_or(Code::InvalidHandle)?;
        let subscribed = client.subscribe(text, matching, Replay::Nothing, receive);
        let (id, _) = subscribed.map_err(|error| code_of(&error))?;
        if let Some(callback) = callback {
            state.callbacks.insert(id, callback);
            if !self.start(&mut state) {
                state.callbacks.remove(&id);
                let _known = state.client.as_mut().map(|client| client.unsubscribe(id));
                return Err(Code::General);
            }
            state.wake();
        }
        let calls = callback.is_some();
        Ok(convert::subscribed(self.handle, self.serial, id, &subscription, calls))
    }

    pub(crate) fn unsubscribe(&self, handle: &SubscribeHandle) -> Result<(), Code> {
        let (_, id) = convert::numbers(handle).ok_or(Code::InvalidHandle)?;
        let mut state = self.lock();
        let client = state.client.as_mut().ok_or(Code::InvalidHandle)?;
        client.unsubscribe(id).map_err(|error| error.code())?;
        state.callbacks.remove(&id);
        self.wait(state, |state| state.running == Some(id));
        Ok(())
    }

    pub(crate) fn poll(&self, handle: &SubscribeHandle) -> Result<ReceiveEvent, Code> {
        let (_, id) = convert::numbers(handle).ok_or(Code::InvalidHandle)?;
        let mut gone = false;
        let polled = self.ask(|client| match client.poll(id, Duration::ZERO) {
            // The agent may be on its way back, and polling goes on.
            Err(error) if error.is_connection() => {
                gone = true;
                Ok(None)
            }
            polled => polled,
        })?;
        if gone {
            log::tell(
                log::Kind::AgentGone,
                "the agent of this host is gone; polling finds nothing meanwhile",
            );
        }
        polled.map(|delivery| convert::received(&delivery.event)).ok_or(Code::NoEvent)
    }

    /// Ends it. A callback that runs is waited for, unless this is called within it.
    pub(crate) fn disconnect(&self) {
        let mut state = self.lock();
        state.callbacks.clear();
        if let Some(client) = state.client.take() {
            // All that was published is acknowledged: there is nothing to wait for.
            let _closed = client.disconnect(Duration::ZERO);
        }
        state.wake();
        self.wait(state, |state| state.receiver.is_some());
    }

    /// Waits while something is so, for a bounded time, and not within a callback.
    fn wait(&self, state: MutexGuard<'_, State>, is_so: impl Fn(&State) -> bool) {
        let own = thread::current().id();
        if state.receiver.as_ref().is_none_or(|receiver| receiver.thread == own) {
            return;
        }
        let waited = self.changed.wait_timeout_while(state, FAREWELL, |state| is_so(state));
        if waited.is_ok_and(|(_, result)| result.timed_out()) {
            log::tell(log::Kind::StillRunning, "a callback has not returned, and is not waited for any more");
        }
    }

    /// Takes a client over from the process that was forked. False if it was locked then.
    pub(crate) fn adopt(self: &Arc<Self>) -> bool {
        let Ok(mut state) = self.state.try_lock() else { return false };
        let Some(client) = state.client.as_mut() else { return false };
        client.own();
        // The thread stayed with the parent.
        (state.receiver, state.running) = (None, None);
        state.callbacks.is_empty() || self.start(&mut state)
    }

    /// Starts the thread if there is none. False if the system does not let us.
    fn start(self: &Arc<Self>, state: &mut State) -> bool {
        if state.receiver.is_some() {
            return true;
        }
        let Ok(wake) = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) else { return false };
        let wake = Arc::new(wake);
        let (client, own) = (Arc::clone(self), Arc::clone(&wake));
        // Signals are the program's own threads'.
        let Ok(before) = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK) else { return false };
        let spawned = thread::Builder::new().name("ftb-events".into()).spawn(move || client.run(own));
        let _restored = before.thread_set_mask();
        let Ok(spawned) = spawned else { return false };
        state.receiver = Some(Receiver { thread: spawned.thread().id(), wake });
        true
    }

    /// The thread.
    fn run(&self, wake: Arc<OwnedFd>) {
        let mut patience = PATIENCE.0;
        loop {
            match self.step() {
                Step::Call(callback, mut event) => {
                    patience = PATIENCE.0;
                    callback.call(&mut event);
                    self.lock().running = None;
                    self.changed.notify_all();
                }
                Step::Wait(attention) => {
                    if attention.descriptor().is_some() {
                        patience = PATIENCE.0;
                        pause(&wake, &attention, None);
                    } else {
                        pause(&wake, &attention, Some(patience));
                        patience = (patience * 2).min(PATIENCE.1);
                    }
                }
                Step::Again => {}
                Step::Over => break,
            }
        }
        // Before anybody hears that it is over, so that no descriptor is left then.
        drop(wake);
        self.lock().receiver = None;
        self.changed.notify_all();
    }

    fn step(&self) -> Step {
        let mut state = self.lock();
        let Some(client) = state.client.as_mut() else { return Step::Over };
        if let Err(error) = client.receive() {
            log::tell(log::Kind::AgentGone, &error.to_string());
        }
        let attention = client.attention();
        let next = client.next_callback();
        state.tell();
        let Some((id, delivery)) = next else { return Step::Wait(attention) };
        // What was subscribed is known until it ends, and then nothing comes for it.
        let Some(callback) = state.callbacks.get(&id).copied() else { return Step::Again };
        state.running = Some(id);
        Step::Call(callback, Box::new(convert::received(&delivery.event)))
    }
}

impl State {
    fn wake(&self) {
        if let Some(receiver) = &self.receiver {
            // A counter that is full wakes as well.
            let _full = rustix::io::write(&receiver.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Tells what was lost since the last time.
    fn tell(&mut self) {
        let Some(client) = &self.client else { return };
        let now = client.counters();
        let before = std::mem::replace(&mut self.told, now);
        if now.dropped > before.dropped {
            let count = now.dropped - before.dropped;
            log::tell(
                log::Kind::Dropped,
                &format!("{count} events gave way to newer ones: they were not taken"),
            );
        }
        if now.lapsed > before.lapsed {
            log::tell(
                log::Kind::Lapsed,
                "the agent was restarted and refuses what it took before; see the daemon's rules and limits",
            );
        }
    }
}

/// FTB's code for it. Where that tells a program no more than that it did not work, the log tells an operator why.
fn code_of(error: &Error) -> Code {
    if error.reason() != Reason::Other {
        log::tell(log::Kind::Refused, &error.to_string());
    }
    error.code()
}

/// Waits until there is something to do: in the program, from the agent, or because it is time.
fn pause(wake: &OwnedFd, attention: &Attention, limit: Option<Duration>) {
    let mut descriptors = vec![PollFd::new(wake, PollFlags::IN)];
    descriptors.extend(attention.descriptor().map(|descriptor| PollFd::new(descriptor, PollFlags::IN)));
    let until = limit.map(|limit| Instant::now() + limit);
    let left = until.map(|until| {
        let left = until.saturating_duration_since(Instant::now());
        Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
    });
    // Signals are blocked; whatever else goes wrong is seen when the client is asked.
    let _any = poll(&mut descriptors, left.as_ref());
    if !descriptors[0].revents().is_empty() {
        let mut count = [0; 8];
        let _empty = rustix::io::read(wake, &mut count);
    }
}

/// A file, never something that blocks, and no more of it than a schema has.
fn read_schema(path: &Path) -> Option<String> {
    let mut options = File::options();
    let file = options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(MAX_SCHEMA as u64 + 1).read_to_string(&mut text).ok()?;
    Some(text)
}
