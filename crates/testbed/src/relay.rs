//! The thread in the middle of a link or a switch: it moves frames from packet sockets through pipes to others.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket2::Socket;

use crate::DirectionCounters;
use crate::pipe::Pipe;
use crate::sys::run_in_real_time;

/// Frames read, and frames written, between two looks at the other direction and the clock.
pub(crate) const BATCH: usize = 32;

/// Batches read before a change of settings, many times what a host can send between two turns of the relay.
const MOST_BATCHES_BEFORE_CHANGE: u32 = 1000;

/// The largest frame an interface can send: an MTU of 65,535 bytes and the Ethernet header.
const LARGEST_FRAME: usize = 65_535 + 14;

/// What became of the frames of both directions since the link was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// From the host named first when the link was made to the second.
    pub a_to_b: DirectionCounters,
    /// From the second to the first.
    pub b_to_a: DirectionCounters,
}

/// The pipes between some sockets, and what leads where.
pub(crate) trait Wiring: Send + 'static {
    /// The pipe that takes what comes in at a socket.
    fn entry(&mut self, socket: usize) -> &mut Pipe;

    /// Moves what has arrived, a bounded number of frames at a time.
    fn deliver(&mut self, sockets: &[Socket]);

    /// When there is more to move.
    fn poll_timeout(&self) -> Option<Instant>;
}

/// `pipes[0]` carries frames from `sockets[0]` to `sockets[1]`, `pipes[1]` the other way.
impl Wiring for [Pipe; 2] {
    fn entry(&mut self, socket: usize) -> &mut Pipe {
        &mut self[socket]
    }

    fn deliver(&mut self, sockets: &[Socket]) {
        for (pipe, socket) in self.iter_mut().zip(sockets.iter().rev()) {
            deliver(socket, pipe);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.iter().filter_map(Pipe::poll_timeout).min()
    }
}

struct Shared<W> {
    wiring: Mutex<W>,
    sockets: Vec<Socket>,
    stop: AtomicBool,
    wake: EventFd,
}

impl<W> Shared<W> {
    fn wiring(&self) -> MutexGuard<'_, W> {
        self.wiring.lock().expect("the relay thread panicked, so what it carried is dead")
    }
}

pub(crate) struct Relay<W: Wiring> {
    shared: Arc<Shared<W>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<W: Wiring> Relay<W> {
    /// Starts the thread, in real time at a level if one is given.
    pub(crate) fn start(name: &str, sockets: Vec<Socket>, wiring: W, level: Option<u8>) -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let stop = AtomicBool::new(false);
        let shared = Arc::new(Shared { wiring: Mutex::new(wiring), sockets, stop, wake });
        let running = Arc::clone(&shared);
        let (tell, told) = mpsc::channel();
        let thread = thread::Builder::new().name(format!("tb-{name}")).spawn(move || {
            let ready = level.map_or(Ok(()), run_in_real_time);
            let begins = ready.is_ok();
            let _starter_is_gone = tell.send(ready);
            if begins {
                relay(&running, &timer);
            }
        })?;
        told.recv().map_err(io::Error::other)??;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Changes pipes at one moment: frames sent before it enter the pipes first, those sent later find them changed.
    pub(crate) fn with_pipes<T>(&self, change: impl FnOnce(&mut W) -> T) -> T {
        let mut wiring = self.shared.wiring();
        let mut buffer = vec![0; LARGEST_FRAME];
        for (number, socket) in self.shared.sockets.iter().enumerate() {
            // Bounded, since a host that sends without pause may keep it from ever being empty.
            let mut batches = MOST_BATCHES_BEFORE_CHANGE;
            while receive(socket, wiring.entry(number), &mut buffer) && batches > 0 {
                batches -= 1;
            }
        }
        let result = change(&mut wiring);
        drop(wiring);
        self.wake();
        result
    }

    /// What the pipes have counted, once it is known what the sockets lost.
    pub(crate) fn counted<T>(&self, read: impl FnOnce(&W) -> T) -> T {
        let mut wiring = self.shared.wiring();
        for (number, socket) in self.shared.sockets.iter().enumerate() {
            wiring.entry(number).counters.dropped_relay += crate::sys::overruns(socket).unwrap_or(0);
        }
        read(&wiring)
    }

    /// Ends the thread and waits for it; frames under way are lost.
    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread has been reported on stderr, and every later use of its pipes panics.
            let _ = thread.join();
        }
    }

    fn wake(&self) {
        // It fails only when 2^64 wake-ups are pending, and then the thread wakes anyway.
        let _ = self.shared.wake.write(1);
    }
}

impl<W: Wiring> Drop for Relay<W> {
    fn drop(&mut self) {
        self.stop();
    }
}

fn relay<W: Wiring>(shared: &Shared<W>, timer: &TimerFd) {
    let mut buffer = vec![0; LARGEST_FRAME];
    let mut armed = None;
    let mut readable = vec![true; shared.sockets.len()];
    while !shared.stop.load(Ordering::Acquire) {
        let next = turn(shared, &mut buffer, &readable);
        let now = Instant::now();
        if next.is_some_and(|next| next <= now) {
            // There is more to move already: what came meanwhile is not waited for.
            wait(shared, timer, PollTimeout::ZERO, &mut readable);
            continue;
        }
        if next != armed {
            arm(timer, next, now);
            armed = next;
        }
        if wait(shared, timer, PollTimeout::NONE, &mut readable) {
            // What went off stays readable until it is set anew, and there may be nothing to set it to.
            arm(timer, None, now);
            armed = None;
        }
    }
}

/// Moves what there is, up to a bound, and says when there is more to do. Only sockets that have something are read: to ask the
/// others costs more than all else if they are many.
fn turn<W: Wiring>(shared: &Shared<W>, buffer: &mut [u8], readable: &[bool]) -> Option<Instant> {
    let mut wiring = shared.wiring();
    for (number, socket) in shared.sockets.iter().enumerate().filter(|(number, _)| readable[*number]) {
        receive(socket, wiring.entry(number), buffer);
    }
    wiring.deliver(&shared.sockets);
    wiring.poll_timeout()
}

/// Reads one batch; says whether there may be more.
fn receive(mut socket: &Socket, pipe: &mut Pipe, buffer: &mut [u8]) -> bool {
    for _ in 0..BATCH {
        // Besides having nothing, a socket reports once that its interface went down; what matters comes after that.
        let Ok(length) = socket.read(buffer) else { return false };
        pipe.enter(Instant::now(), &buffer[..length]);
    }
    true
}

/// Hands over one batch of what has come out of a pipe.
pub(crate) fn deliver(socket: &Socket, pipe: &mut Pipe) {
    for _ in 0..BATCH {
        let now = Instant::now();
        let Some((due, frame)) = pipe.arrive(now) else { return };
        if socket.send(&frame).is_ok() {
            pipe.counters.hand_over(due, now, frame.len());
        } else {
            pipe.counters.dropped_interface += 1;
        }
    }
}

fn arm(timer: &TimerFd, next: Option<Instant>, now: Instant) {
    // Poll's own timeout would do, but the kernel stretches it by a thousandth.
    let result = match next {
        Some(next) => {
            let left = TimeSpec::from_duration(next.saturating_duration_since(now));
            timer.set(Expiration::OneShot(left), TimerSetTimeFlags::empty())
        }
        None => timer.unset(),
    };
    result.expect("an open timer can be set to any time");
}

/// Sleeps until there is something to do, `limit` at most; says whether the timer went off, and which sockets have something.
fn wait<W>(shared: &Shared<W>, timer: &TimerFd, limit: PollTimeout, readable: &mut [bool]) -> bool {
    let watched = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut fds = vec![watched(timer.as_fd()), watched(shared.wake.as_fd())];
    fds.extend(shared.sockets.iter().map(|socket| watched(socket.as_fd())));
    // Interrupted, the caller looks at everything again.
    let all = poll(&mut fds, limit).is_err();
    for (readable, fd) in readable.iter_mut().zip(&fds[2..]) {
        *readable = all || fd.any().unwrap_or(true);
    }
    let [timed_out, woken] = [&fds[0], &fds[1]].map(|fd| fd.any().unwrap_or(false));
    if woken {
        let _ = shared.wake.read();
    }
    timed_out
}
