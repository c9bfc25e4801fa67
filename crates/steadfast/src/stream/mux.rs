//! The streams of one conversation: the task that takes what comes, and what the streams have in common.
//!
//! Everything that comes is taken at once, so that a stream which nobody reads holds up no other; what it may hold is
//! bounded by credit of its own. Lock order: the streams of a conversation, then one of them; neither is held while
//! the core is called.

use super::StreamError;
use super::flow::{FIRST_WINDOW, Flow};
use super::message::{Control, Head, Key, Why};
use crate::error::{ReadError, SessionError};
use crate::lock;
use crate::message::Message;
use crate::receipt::{Receipt, wait_until};
use crate::socket::{Look, MultiSocket};
use bytes::{Bytes, BytesMut};
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use steadfast_session::{Patience, SendError, SendOptions};
use steadfast_wire::Labels;
use steadfast_wire::frame::EndReason;
use tokio::sync::Notify;

/// Streams that a peer may have open here.
pub(super) const MAX_STREAMS: usize = 512;
/// What all windows of a conversation may grow by, in bytes.
const MAX_GROWTH: u64 = 32 * 1024 * 1024;
/// Controls that wait for room; with so many streams there are no more unless a peer opens in vain.
const MAX_OWED: usize = 4 * MAX_STREAMS;
/// Streamed messages that have not yet said to which stream they belong. Each is asked whenever something comes; a head is
/// here with its message, or the network died between the two.
const MAX_HEADLESS: usize = 64;
/// Messages, and bytes of one stream, that are taken before others have their turn.
const TURN_MESSAGES: usize = 256;
const TURN_BYTES: usize = 256 * 1024;

pub(super) struct Mux {
    pub(super) socket: MultiSocket,
    state: Mutex<State>,
    /// Something was dropped, or is owed.
    work: Notify,
    incoming: Notify,
}

#[derive(Default)]
struct State {
    flows: HashMap<Key, Arc<Flow>>,
    /// Of them, those that the peer opened.
    theirs: usize,
    waiting: VecDeque<Incoming>,
    owed: VecDeque<(Labels, Owed)>,
    grown: u64,
    /// Nobody here accepts streams any more.
    deserted: bool,
    /// Nobody opens a stream any more.
    over: Option<Result<(), SessionError>>,
}

/// A stream that the peer opened.
pub(super) struct Incoming {
    pub(super) key: Key,
    pub(super) labels: Labels,
    pub(super) flow: Arc<Flow>,
}

enum Owed {
    /// As much as there is to grant when it is said.
    Credit(Key, Arc<Flow>),
    Reset(Key, Why),
}

/// A direction that is being read.
struct Reader {
    message: Message,
    /// Before it is known to which stream it belongs: what came of its head.
    flow: Result<Arc<Flow>, BytesMut>,
}

/// What became of a look at a reader.
enum Step {
    Waits,
    Read(usize),
    Over,
}

impl Mux {
    pub(super) fn new(socket: MultiSocket) -> Self {
        Self { socket, state: Mutex::default(), work: Notify::new(), incoming: Notify::new() }
    }

    /// A stream that this side opened.
    pub(super) fn opened(&self, id: u64) -> (Key, Arc<Flow>) {
        let (key, flow) = (Key { ours: true, id }, Arc::new(Flow::new()));
        let over = {
            let mut state = lock(&self.state);
            state.flows.insert(key, Arc::clone(&flow));
            state.over.clone()
        };
        match over {
            None => {}
            Some(Ok(())) => flow.end(Err(StreamError::Reset)),
            Some(Err(error)) => {
                flow.end(Err(StreamError::Ended(error.clone())));
                flow.fail(StreamError::Ended(error));
            }
        }
        (key, flow)
    }

    pub(super) async fn accept(&self) -> Result<Option<Incoming>, SessionError> {
        wait_until(&self.incoming, || {
            let mut state = lock(&self.state);
            let incoming = state.waiting.pop_front().map(|incoming| Ok(Some(incoming)));
            incoming.or_else(|| state.over.clone().map(|over| over.map(|()| None)))
        })
        .await
    }

    /// Follows the message that one direction is written in.
    pub(super) fn watch(&self, flow: &Arc<Flow>, receipt: Receipt) {
        let flow = Arc::clone(flow);
        let _ends_with_its_message =
            self.socket.shared().spawn_freely(async move { flow.settle(receipt.concluded().await) });
    }

    /// Something was read: the window grows where there is room, and the peer is told what it may send.
    pub(super) fn taken(&self, key: Key, flow: &Arc<Flow>, labels: &Labels, taken: super::flow::Taken) {
        if taken.growth > 0 {
            let mut state = lock(&self.state);
            if state.grown + taken.growth <= MAX_GROWTH {
                state.grown += taken.growth;
                drop(state);
                flow.grow(taken.growth);
            }
        }
        if taken.grant {
            self.say(labels, Owed::Credit(key, Arc::clone(flow)));
        }
    }

    /// The direction of an accepted stream was given up.
    pub(super) fn reset(&self, key: Key, labels: &Labels) {
        self.say(labels, Owed::Reset(key, Why::GivenUp));
    }

    /// A half was dropped.
    pub(super) fn dropped(&self, key: Key, flow: &Flow) {
        if flow.drop_half() {
            let mut state = lock(&self.state);
            if state.flows.remove(&key).is_some() {
                state.theirs -= usize::from(!key.ours);
                state.grown -= flow.grown();
            }
        }
        self.work.notify_one();
    }

    /// Nobody accepts streams any more: those that wait for it are given up, as are those that still come.
    pub(super) fn desert(&self) {
        let waiting = {
            let mut state = lock(&self.state);
            state.deserted = true;
            let waiting = std::mem::take(&mut state.waiting);
            for incoming in &waiting {
                if state.flows.remove(&incoming.key).is_some() {
                    state.theirs -= 1;
                }
            }
            waiting
        };
        for Incoming { key, labels, flow } in waiting {
            flow.close();
            self.reset(key, &labels);
        }
        self.work.notify_one();
    }

    /// Says it now or, where the send buffer is full, once it is not.
    fn say(&self, labels: &Labels, owed: Owed) {
        if let Some(owed) = self.try_say(labels, owed) {
            let mut state = lock(&self.state);
            if state.owed.len() < MAX_OWED {
                state.owed.push_back((labels.clone(), owed));
                drop(state);
                // There may be room since it was tried.
                self.work.notify_one();
                return;
            }
            drop(state);
            // Only a peer that opens streams faster than it takes their refusal comes here.
            self.socket.abort();
        }
    }

    /// Returns what could not be said yet.
    fn try_say(&self, labels: &Labels, owed: Owed) -> Option<Owed> {
        let control = match &owed {
            Owed::Credit(key, flow) => Control::Credit(*key, flow.grant()),
            Owed::Reset(key, why) => Control::Reset(*key, *why),
        };
        // Urgent whatever the stream is, under the same rule for networks.
        let labels = Labels::foreground().rule(labels.rule.clone());
        // The peer counts on it, whatever the failure timeout of such labels is.
        let options = SendOptions::new().unordered().patience(Patience::Endless);
        let sent = self.socket.try_send_with(control.encode(), labels, options);
        matches!(sent, Err(SendError::Full(_))).then_some(owed)
    }

    fn say_owed(&self) {
        loop {
            let Some((labels, owed)) = lock(&self.state).owed.pop_front() else { return };
            if let Some(owed) = self.try_say(&labels, owed) {
                lock(&self.state).owed.push_front((labels, owed));
                return;
            }
        }
    }

    /// There is room in the send buffer.
    fn wake_writers(&self) {
        let flows: Vec<_> = lock(&self.state).flows.values().cloned().collect();
        for flow in flows {
            flow.wake_writer();
        }
    }

    /// Nothing more comes of any stream.
    fn fail(&self, error: &SessionError) {
        let flows: Vec<_> = {
            let mut state = lock(&self.state);
            state.over = Some(Err(error.clone()));
            state.owed.clear();
            state.flows.values().cloned().collect()
        };
        for flow in flows {
            flow.end(Err(StreamError::Ended(error.clone())));
            flow.fail(StreamError::Ended(error.clone()));
        }
        self.incoming.notify_waiters();
    }

    /// The peer sends no more: what has no end by now never gets one.
    fn finish(&self) {
        let flows: Vec<_> = {
            let mut state = lock(&self.state);
            state.over.get_or_insert(Ok(()));
            state.flows.values().cloned().collect()
        };
        for flow in flows {
            flow.end(Err(StreamError::Reset));
        }
        self.incoming.notify_waiters();
    }

    fn control(&self, control: Control) {
        let (Control::Credit(key, _) | Control::Reset(key, _)) = control;
        let Some(flow) = lock(&self.state).flows.get(&key).cloned() else { return };
        match control {
            Control::Credit(_, limit) => flow.credit(limit),
            // Only who accepted says so.
            Control::Reset(key, Why::GivenUp) if key.ours => flow.end(Err(StreamError::Reset)),
            Control::Reset(key, Why::TooMany) if key.ours => {
                flow.end(Err(StreamError::TooMany));
                flow.fail(StreamError::TooMany);
            }
            Control::Reset(..) => {}
        }
    }

    /// The stream that a message belongs to by its head; `None` if it is to be refused.
    fn place(&self, id: u64, labels: &Labels, head: Head) -> Option<Arc<Flow>> {
        match head {
            Head::Answer(opened) => {
                let flow = lock(&self.state).flows.get(&Key { ours: true, id: opened }).cloned();
                flow.filter(|flow| flow.attach())
            }
            Head::Open => {
                let key = Key { ours: false, id };
                let mut state = lock(&self.state);
                let refused = if state.deserted {
                    Some(Why::GivenUp)
                } else {
                    (state.theirs >= MAX_STREAMS).then_some(Why::TooMany)
                };
                if let Some(why) = refused {
                    drop(state);
                    self.say(labels, Owed::Reset(key, why));
                    return None;
                }
                let flow = Arc::new(Flow::new());
                state.theirs += 1;
                state.flows.insert(key, Arc::clone(&flow));
                state.waiting.push_back(Incoming { key, labels: labels.clone(), flow: Arc::clone(&flow) });
                drop(state);
                self.incoming.notify_waiters();
                Some(flow)
            }
        }
    }
}

impl Reader {
    /// Takes one piece, if there is one.
    fn step(&mut self, mux: &Mux) -> Step {
        if self.flow.as_ref().is_ok_and(|flow| flow.is_closed()) {
            return Step::Over;
        }
        let Some(read) = self.message.try_read_chunk() else { return Step::Waits };
        let bytes = match read {
            Ok(Some(bytes)) => bytes,
            other => {
                if let Ok(flow) = &self.flow {
                    flow.end(match other {
                        Ok(_) => Ok(()),
                        Err(ReadError::Session(error)) => Err(StreamError::Ended(error)),
                        Err(_) => Err(StreamError::Reset),
                    });
                }
                return Step::Over;
            }
        };
        let length = bytes.len();
        if self.take(mux, bytes) { Step::Read(length) } else { Step::Over }
    }

    /// Takes in bytes; false if nobody wants them.
    fn take(&mut self, mux: &Mux, bytes: Bytes) -> bool {
        let partial = match &mut self.flow {
            Ok(flow) => return flow.push(bytes),
            Err(partial) => partial,
        };
        let mut bytes = if partial.is_empty() {
            bytes
        } else {
            partial.extend_from_slice(&bytes);
            partial.split().freeze()
        };
        match Head::take(&mut bytes) {
            Ok(Some(head)) => {
                let flow = mux.place(self.message.id.0, &self.message.labels, head);
                let Some(flow) = flow else { return false };
                let wanted = flow.push(bytes);
                self.flow = Ok(flow);
                wanted
            }
            Ok(None) => {
                partial.extend_from_slice(&bytes);
                true
            }
            Err(()) => false,
        }
    }
}

/// Says that it is over when the pump ends, however it does.
struct Pump {
    mux: Arc<Mux>,
    readers: Vec<Reader>,
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.mux.fail(&ended(&self.mux.socket));
    }
}

fn ended(socket: &MultiSocket) -> SessionError {
    let unknown = || SessionError::Ended { reason: EndReason::Aborted, words: None, common: None };
    socket.state().ended().map_or_else(unknown, SessionError::from)
}

/// Takes what comes until the conversation ends.
pub(super) async fn run(mux: Arc<Mux>) {
    let mut pump = Pump { mux: Arc::clone(&mux), readers: Vec::new() };
    let state = Arc::clone(mux.socket.state());
    let mut readable = pin!(state.readable.notified());
    let mut writable = pin!(state.writable.notified());
    loop {
        readable.as_mut().enable();
        writable.as_mut().enable();
        let more = pump.turn();
        if state.ended().is_some() {
            return;
        }
        if more {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            () = &mut readable => readable.set(state.readable.notified()),
            () = &mut writable => {
                writable.set(state.writable.notified());
                mux.say_owed();
                mux.wake_writers();
            }
            () = mux.work.notified() => mux.say_owed(),
        }
    }
}

impl Pump {
    /// Takes what there is; whether there may be more.
    fn turn(&mut self) -> bool {
        let more = self.take_messages();
        self.read() || more
    }

    fn take_messages(&mut self) -> bool {
        for _ in 0..TURN_MESSAGES {
            match self.mux.socket.look() {
                Ok(Look::Nothing) => return false,
                Ok(Look::Finished) => {
                    self.mux.finish();
                    return false;
                }
                // The end is told when the pump ends.
                Err(_) => return false,
                Ok(Look::Message(message)) => match message.payload() {
                    Some(bytes) => match Control::decode(bytes) {
                        Some(control) => self.mux.control(control),
                        None => {
                            tracing::debug!(id = %message.id, "a message that is no stream's is passed over");
                        }
                    },
                    None => self.take_streamed(message),
                },
            }
        }
        true
    }

    /// Reads the head of a message, which nearly always is here by now.
    fn take_streamed(&mut self, message: Message) {
        let mut reader = Reader { message, flow: Err(BytesMut::new()) };
        while reader.flow.is_err() {
            match reader.step(&self.mux) {
                Step::Read(_) => {}
                Step::Over => return,
                Step::Waits => {
                    if self.readers.iter().filter(|one| one.flow.is_err()).count() >= MAX_HEADLESS {
                        // Dropping the message refuses it; if it was to open a stream, its opener waits for an answer, too.
                        let Message { id, labels, .. } = &reader.message;
                        self.mux.say(labels, Owed::Reset(Key { ours: false, id: id.0 }, Why::TooMany));
                        return;
                    }
                    break;
                }
            }
        }
        self.readers.push(reader);
    }

    fn read(&mut self) -> bool {
        let Self { mux, readers } = self;
        let mut more = false;
        readers.retain_mut(|reader| {
            let mut read = 0;
            while read < TURN_BYTES {
                match reader.step(mux) {
                    Step::Waits => return true,
                    // It may have been the last before the peer's end.
                    Step::Over => {
                        more = true;
                        return false;
                    }
                    Step::Read(bytes) => read += bytes.max(1),
                }
            }
            more = true;
            true
        });
        more
    }
}

const _: () = assert!(FIRST_WINDOW * (MAX_STREAMS as u64) <= MAX_GROWTH, "what a peer may fill at first");
