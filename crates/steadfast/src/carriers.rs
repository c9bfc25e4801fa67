//! The carriers of all paths: a task for each that reads, and whoever has something to say writes. Who waits for a message
//! reads, too ([`Guest`]), so that it goes from the kernel to the application without a detour.

use crate::lock;
use crate::shared::{Inner, Shared};
use crate::state::SessionState;
use bytes::BytesMut;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::{Duration, Instant as Wall};
use steadfast_net::Carrier;
use steadfast_net::carrier::{ReadState, TcpName, WriteState};
use steadfast_net::tls::TlsError;
use steadfast_session::{Examination, Loss};
use steadfast_wire::{Gather, Instant, PathNumber};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// What is read in one turn before other tasks get theirs, in bytes.
const READ_TURN: usize = 256 * 1024;
/// How often record size and unsent limit are brought up to date while there is traffic.
const TUNE_EVERY: Duration = Duration::from_millis(100);
/// Values of [`Link::soon`]. While its task reads, that task looks at it afterwards and need not be woken.
const NOTHING: u8 = 0;
const SOON: u8 = 1;
const READING: u8 = 2;
/// What is sent so soon after something was written waits for the path's task, and shares a record and a call of the kernel
/// with what else is sent until that has its turn ..
const FLURRY: Duration = Duration::from_micros(50);
/// .. so many messages at most, in case the sender gives nobody a turn.
pub(crate) const MAX_FLURRY: u32 = 16;
/// How long a carrier may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(2);

/// All paths that have, or will have, a carrier.
#[derive(Debug, Default)]
pub(crate) struct Carriers {
    slots: Mutex<BTreeMap<PathNumber, Slot>>,
    /// A slot was emptied.
    emptied: Notify,
}

#[derive(Debug)]
enum Slot {
    Connecting(Connecting),
    Open(Arc<Link>),
}

/// A carrier that is being made by a task.
#[derive(Debug)]
struct Connecting {
    task: AbortHandle,
    /// Its connection, once the other side's kernel took it.
    name: Option<TcpName>,
}

/// One carrier and where its writing stands.
#[derive(Debug)]
pub(crate) struct Link {
    path: PathNumber,
    socket: Arc<TcpStream>,
    name: Option<TcpName>,
    /// The other side, or its kernel, ended it.
    ended: AtomicBool,
    intake: Mutex<Intake>,
    output: Mutex<Output>,
    /// There is a [`Guest`].
    visited: AtomicBool,
    /// The task has to look at `output`, or at `soon`.
    kick: Notify,
    /// Whether something is to be said once others had time to add to it: [`NOTHING`], [`SOON`], or [`READING`].
    soon: AtomicU8,
    /// When something was written last, on the endpoint's clock in nanoseconds.
    written: AtomicU64,
    /// How many messages wait for the task since then.
    joined: AtomicU32,
}

/// What has arrived.
#[derive(Debug, Default)]
struct Intake {
    /// Not with the core yet: the beginning of a frame, or what a turn left.
    input: BytesMut,
    /// Nothing more comes.
    over: bool,
}

/// What a turn of reading brought.
struct Taken {
    /// Something arrived.
    any: bool,
    /// The core has not taken all of it.
    more: bool,
    /// The paths that have something to say to that.
    ready: Vec<PathNumber>,
}

/// Somebody who waits for a message, and meanwhile reads a carrier beside its task: the one by which the last message came.
///
/// The task goes on as if there were none, so that nothing depends on when, or whether, the waiting future is polled.
pub(crate) struct Guest {
    /// Weak: who only waits keeps no descriptor open.
    link: Weak<Link>,
}

#[derive(Debug)]
struct Output {
    /// `None` once the path is over.
    carrier: Option<Carrier>,
    /// The goodbye is being said, by another task.
    closing: bool,
    waits: Waits,
    tuned: Wall,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    Nothing,
    /// The socket takes nothing: the task waits until it does.
    Socket,
    /// A turn's worth was written: the task goes on after others had their turn.
    Turn,
}

impl Carriers {
    /// Enters a connection that is being made by a task, which `start` starts.
    pub(crate) fn connecting(&self, path: PathNumber, start: impl FnOnce() -> AbortHandle) {
        // Under the lock, so that the task cannot be done before it is entered.
        lock(&self.slots).insert(path, Slot::Connecting(Connecting { task: start(), name: None }));
    }

    /// Whether nothing is open and nothing being opened.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.slots).is_empty()
    }

    /// Waits until all carriers are gone. Cancel safe.
    pub(crate) async fn gone(&self) {
        crate::receipt::wait_until(&self.emptied, || self.is_empty().then_some(())).await;
    }

    fn open(&self, path: PathNumber) -> Option<Arc<Link>> {
        match lock(&self.slots).get(&path) {
            Some(Slot::Open(link)) => Some(Arc::clone(link)),
            _ => None,
        }
    }

    fn remove(&self, path: PathNumber) -> Option<Slot> {
        lock(&self.slots).remove(&path)
    }

    /// What is being connected is given up; what is open is returned.
    fn take_all(&self) -> Vec<Arc<Link>> {
        let slots = std::mem::take(&mut *lock(&self.slots));
        let mut open = Vec::new();
        for slot in slots.into_values() {
            match slot {
                Slot::Connecting(connecting) => connecting.task.abort(),
                Slot::Open(link) => open.push(link),
            }
        }
        self.emptied.notify_waiters();
        open
    }

    fn abort_connecting(&self) {
        lock(&self.slots).retain(|_, slot| {
            if let Slot::Connecting(connecting) = slot {
                connecting.task.abort();
            }
            matches!(slot, Slot::Open(_))
        });
    }
}

impl Link {
    fn take(&self) -> Option<Carrier> {
        let carrier = lock(&self.output).carrier.take()?;
        self.kick.notify_one();
        Some(carrier)
    }

    fn reset(&self) {
        if let Some(mut carrier) = self.take() {
            carrier.reset();
        }
    }
}

impl Shared {
    /// The connection of a path was made; `local` is the address that the core knows it by.
    pub(crate) fn connected(self: &Arc<Self>, path: PathNumber, carrier: Carrier, local: IpAddr) {
        let link = Arc::new(Link::new(path, carrier));
        {
            let mut slots = lock(&self.carriers.slots);
            // The core may have given it up meanwhile.
            let Some(slot @ Slot::Connecting(_)) = slots.get_mut(&path) else { return };
            *slot = Slot::Open(Arc::clone(&link));
        }
        self.spawn(Arc::clone(self).run_link(link));
        self.call(|inner, now| inner.core.handle_connected(now, path, local));
    }

    /// A carrier came in and the core gave it a number.
    pub(crate) fn accepted(self: &Arc<Self>, path: PathNumber, carrier: Carrier) {
        let link = Arc::new(Link::new(path, carrier));
        lock(&self.carriers.slots).insert(path, Slot::Open(Arc::clone(&link)));
        self.spawn(Arc::clone(self).run_link(link));
    }

    /// The carrier of a path ended, or could not be opened.
    pub(crate) fn lost(self: &Arc<Self>, path: PathNumber, loss: Loss) {
        if let Some(Slot::Open(link)) = self.carriers.remove(path) {
            drop(link.take());
        }
        self.carriers.emptied.notify_waiters();
        self.call(|inner, now| inner.core.handle_carrier_lost(now, path, loss));
    }

    /// The other side's kernel took the connection of a path.
    pub(crate) fn reached(self: &Arc<Self>, path: PathNumber, name: Option<TcpName>) {
        match lock(&self.carriers.slots).get_mut(&path) {
            Some(Slot::Connecting(connecting)) => connecting.name = name,
            _ => return,
        }
        self.call(|inner, now| inner.core.handle_reached(now, path));
    }

    /// Tells the core what the kernel knows of a path's connection.
    pub(crate) fn examine(self: &Arc<Self>, path: PathNumber) {
        let name = match lock(&self.carriers.slots).get(&path) {
            Some(Slot::Connecting(connecting)) => connecting.name,
            Some(Slot::Open(link)) => link.name,
            None => None,
        };
        let info = name.and_then(|name| {
            name.info().inspect_err(|error| tracing::debug!(%path, %error, "the kernel does not tell")).ok()
        });
        let examination = info.map(|info| Examination {
            unacknowledged: info.unacknowledged_segments > 0,
            // The first one may just be on its way.
            stuck: info.unanswered_probes > 1,
            last_ack: info.last_ack_received,
            last_data: info.last_data_received,
        });
        tracing::trace!(%path, ?examination, "examined");
        self.call(|inner, now| inner.core.handle_examined(now, path, examination));
    }

    /// Throws a carrier away with what is in its socket.
    pub(crate) fn reset_path(self: &Arc<Self>, path: PathNumber) {
        match self.carriers.remove(path) {
            Some(Slot::Connecting(connecting)) => connecting.task.abort(),
            Some(Slot::Open(link)) => link.reset(),
            None => {}
        }
        self.carriers.emptied.notify_waiters();
    }

    /// Throws all carriers away.
    pub(crate) fn reset_all(&self) {
        for link in self.carriers.take_all() {
            link.reset();
        }
    }

    /// Gives up every connection that is being made.
    pub(crate) fn abort_connecting(&self) {
        self.carriers.abort_connecting();
        self.carriers.emptied.notify_waiters();
    }

    /// Closes a carrier after what was said on it; the slot stays until that is done.
    pub(crate) fn close_path(self: &Arc<Self>, path: PathNumber) {
        let Some(link) = self.carriers.open(path) else { return self.reset_path(path) };
        let shared = Arc::clone(self);
        lock(&link.output).closing = true;
        let Some(carrier) = link.take() else { return self.reset_path(path) };
        self.spawn(async move {
            if let Err(error) = carrier.close(FAREWELL).await {
                tracing::debug!(%path, %error, "a carrier ended without a goodbye");
            }
            shared.carriers.remove(path);
            shared.carriers.emptied.notify_waiters();
        });
    }

    /// Writes what a path has to say, if its socket takes it now.
    pub(crate) fn flush_path(self: &Arc<Self>, path: PathNumber) {
        if let Some(link) = self.carriers.open(path) {
            self.flush(&link);
        }
    }

    /// Lets a path's task write what it has to say, after whoever is running now.
    pub(crate) fn flush_path_soon(&self, path: PathNumber) {
        if let Some(link) = self.carriers.open(path)
            && link.soon.swap(SOON, Ordering::AcqRel) == NOTHING
        {
            link.kick.notify_one();
        }
    }

    /// Whether a message that was just sent waits for the path's task.
    pub(crate) fn joins_a_flurry(&self, path: PathNumber) -> bool {
        let Some(link) = self.carriers.open(path) else { return false };
        let written = Instant(link.written.load(Ordering::Relaxed));
        let joins = self.clock.now().since(written) < FLURRY
            && link.joined.fetch_add(1, Ordering::Relaxed) < MAX_FLURRY;
        if joins {
            self.flush_path_soon(path);
        }
        joins
    }

    fn flush(self: &Arc<Self>, link: &Link) {
        let mut output = lock(&link.output);
        let Output { carrier: Some(carrier), waits, .. } = &mut *output else { return };
        if *waits != Waits::Nothing {
            return;
        }
        let says = |inner: &Inner, now| inner.core.has_output(now, link.path);
        if !carrier.wants_write() && !self.peek(|inner, now| says(inner, now)) {
            return;
        }
        let mut fill = |out: &mut Gather, max| {
            self.peek(|inner, now| {
                inner.core.poll_transmit(now, link.path, max, out);
                says(inner, now)
            })
        };
        link.joined.store(0, Ordering::Relaxed);
        let state = carrier.try_write(&mut fill);
        link.written.store(self.clock.now().0, Ordering::Relaxed);
        match state {
            Ok(WriteState::Idle) => {}
            Ok(WriteState::Blocked) => {
                *waits = Waits::Socket;
                self.peek(|inner, now| inner.core.handle_blocked(now, link.path));
                link.kick.notify_one();
            }
            Ok(WriteState::More) => {
                *waits = Waits::Turn;
                link.kick.notify_one();
            }
            Err(error) => {
                tracing::debug!(path = %link.path, %error, "a carrier failed");
                let ends = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
                link.ended.fetch_or(ends.contains(&error.kind()), Ordering::AcqRel);
                // The task tells the core: this may be called from within a call into it.
                output.carrier = None;
                link.kick.notify_one();
            }
        }
    }

    /// Reads a carrier until it ends, and writes when its socket takes bytes again.
    async fn run_link(self: Arc<Self>, link: Arc<Link>) {
        while let Some(waits) = link.waits() {
            if waits == Waits::Turn {
                tokio::task::yield_now().await;
                self.resume(&link);
            }
            tokio::select! {
                readable = link.socket.readable() => {
                    if readable.is_err() {
                        break;
                    }
                    if !self.attend(&link).await {
                        break;
                    }
                }
                writable = link.socket.writable(), if waits == Waits::Socket => {
                    if writable.is_err() {
                        break;
                    }
                    self.resume(&link);
                }
                () = link.kick.notified() => {
                    if !self.attend(&link).await {
                        break;
                    }
                }
            }
        }
        // Whoever took the carrier out of its slot has told the core, or been told by it.
        let ours = self.carriers.open(link.path).is_some_and(|open| Arc::ptr_eq(&open, &link));
        if ours && !link.is_closing() {
            let ended = link.ended.load(Ordering::Acquire);
            self.lost(link.path, if ended { Loss::Ended } else { Loss::Other });
        }
    }

    /// Takes in what has arrived and says what there is to say about it, or was left to this task: whether the carrier
    /// goes on.
    async fn attend(self: &Arc<Self>, link: &Arc<Link>) -> bool {
        self.flood().await;
        // Whoever left something to the task did so before the read, and is not to be forgotten over it.
        let due = link.soon.swap(READING, Ordering::AcqRel) == SOON;
        let mut taken = self.take_in(link);
        if taken.more {
            link.kick.notify_one();
        }
        if taken.any || (due && self.peek(|inner, now| inner.core.has_output(now, link.path))) {
            // An application that answers at once takes our acknowledgements along. Only the runtime's own yielding
            // lets the future of `block_on` run too.
            tokio::task::yield_now().await;
        }
        let soon = link.soon.swap(NOTHING, Ordering::AcqRel) == SOON;
        if (soon || due) && !taken.ready.contains(&link.path) {
            taken.ready.push(link.path);
        }
        self.flush_paths(taken.ready);
        // What arrived before the end is the core's first.
        taken.more || !lock(&link.intake).over
    }

    /// Waits for something to arrive for a conversation, together with the carrier's task, and takes it in. `None` if
    /// somebody else does so already, or it is not known where to wait.
    pub(crate) fn visit(state: &SessionState) -> Option<Guest> {
        let link = state.usual()?;
        if lock(&link.intake).over || link.visited.swap(true, Ordering::AcqRel) {
            return None;
        }
        Some(Guest { link: Arc::downgrade(&link) })
    }

    /// As the carrier's task does, which is left to say what follows from it: the guest often answers at once.
    pub(crate) fn take_in_as_guest(self: &Arc<Self>, guest: &Guest) {
        let Some(link) = guest.link.upgrade() else { return };
        let taken = self.take_in(&link);
        if taken.more || lock(&link.intake).over {
            link.kick.notify_one();
        }
        for path in taken.ready {
            self.flush_path_soon(path);
        }
    }

    /// The socket takes bytes again.
    fn resume(self: &Arc<Self>, link: &Link) {
        let blocked = {
            let mut output = lock(&link.output);
            std::mem::replace(&mut output.waits, Waits::Nothing) == Waits::Socket
        };
        if blocked {
            self.peek(|inner, now| inner.core.handle_writable(now, link.path));
        }
        self.flush(link);
        self.call(|_, _| ());
    }

    /// Reads and gives what was read to the core, a turn's worth of both.
    fn take_in(self: &Arc<Self>, link: &Arc<Link>) -> Taken {
        let mut intake = lock(&link.intake);
        let Intake { input, over } = &mut *intake;
        let before = input.len();
        if before < READ_TURN && !*over {
            *over = !self.read(link, input);
        }
        let any = input.len() > before;
        if input.is_empty() {
            return Taken { any, more: false, ready: Vec::new() };
        }
        let (more, ready) =
            self.call_and_hold(Some(link), |inner, now| inner.core.handle_data(now, link.path, input));
        if input.is_empty() {
            // An idle carrier holds nothing, and what was read belongs to those who read it.
            *input = BytesMut::new();
        }
        Taken { any, more, ready }
    }

    /// One turn of reading: whether the carrier goes on.
    fn read(self: &Arc<Self>, link: &Link, input: &mut BytesMut) -> bool {
        let (state, tune) = {
            let mut output = lock(&link.output);
            let Some(carrier) = &mut output.carrier else { return false };
            let state = carrier.try_read(input, READ_TURN);
            let tune = output.tuned.elapsed() > TUNE_EVERY;
            (state, tune)
        };
        if tune {
            self.tune(link);
        }
        match state {
            Ok(ReadState::Blocked | ReadState::More) => true,
            Ok(end) => {
                tracing::debug!(path = %link.path, ?end, "a carrier ended");
                link.ended.store(true, Ordering::Release);
                false
            }
            Err(error) => {
                tracing::debug!(path = %link.path, %error, "a carrier failed");
                if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
                    let peer = lock(&link.output).carrier.as_ref().map(Carrier::peer);
                    if let Some(peer) = peer {
                        self.note_refusal(peer, error);
                    }
                }
                false
            }
        }
    }

    /// Brings record size and unsent limit to what the path's rate asks for.
    fn tune(&self, link: &Link) {
        let (size, unsent) = self.peek(|inner, _| {
            let core = &inner.core;
            (core.record_size(link.path), core.unsent_limit(link.path))
        });
        let mut output = lock(&link.output);
        output.tuned = Wall::now();
        let Some(carrier) = &mut output.carrier else { return };
        if size.abs_diff(carrier.record_size()) > carrier.record_size() / 4 {
            carrier.set_record_size(size);
        }
        if unsent.abs_diff(carrier.unsent_limit()) > carrier.unsent_limit() / 4 {
            // A failure leaves the limit as it was, and a dead connection is noticed elsewhere.
            let _unchanged = carrier.set_unsent_limit(unsent as u32);
        }
    }
}

impl Link {
    fn new(path: PathNumber, carrier: Carrier) -> Self {
        Self {
            path,
            socket: carrier.socket(),
            name: TcpName::of(&carrier.socket()).ok(),
            ended: AtomicBool::new(false),
            output: Mutex::new(Output {
                carrier: Some(carrier),
                closing: false,
                waits: Waits::Nothing,
                tuned: Wall::now(),
            }),
            intake: Mutex::default(),
            visited: AtomicBool::new(false),
            kick: Notify::new(),
            soon: AtomicU8::new(NOTHING),
            written: AtomicU64::new(0),
            joined: AtomicU32::new(0),
        }
    }

    /// What the task waits for; `None` if the carrier is gone.
    fn waits(&self) -> Option<Waits> {
        let output = lock(&self.output);
        output.carrier.as_ref().map(|_| output.waits)
    }

    fn is_closing(&self) -> bool {
        lock(&self.output).closing
    }
}

impl Guest {
    /// Waits until there is something to read, or nothing more will come. `false` if the carrier is gone.
    pub(crate) async fn readable(&self) -> bool {
        poll_fn(|context| match self.link.upgrade() {
            Some(link) => link.socket.poll_read_ready(context).map(|ready| ready.is_ok()),
            None => Poll::Ready(false),
        })
        .await
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(link) = self.link.upgrade() {
            link.visited.store(false, Ordering::Release);
        }
    }
}
