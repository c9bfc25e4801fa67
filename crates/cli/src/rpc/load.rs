//! Calls from one port: as many at a time as may be, or each when it is due.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use steadfast::Bytes;
use steadfast::homa::{Incoming, Outcome, Peer, Port, RequestOptions, SendError};
use steadfast_fabric::workload::Rng;

use super::lengths::Lengths;
use super::message;
use super::tally::Tally;

/// Outcomes that are taken together.
const TOGETHER: usize = 64;
/// So many calls fail one after the other before any was answered, and no more are made.
const HOPELESS: u64 = 5;
/// What is waited for calls that are open at the end.
const LINGER: Duration = Duration::from_secs(5);
/// The longest sleep of a sender: it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// What a port is to do.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) lengths: Lengths,
    /// The server's ports: the first, and how many.
    pub(super) port: u16,
    pub(super) ports: u16,
    /// Short answers.
    pub(super) one_way: bool,
    /// How long a call may last.
    pub(super) deadline: Option<Duration>,
    /// Calls that are open at a time, at most.
    pub(super) open: usize,
    /// Calls in all.
    pub(super) count: Option<u64>,
    /// No call is begun later than so much after the first.
    pub(super) time: Option<Duration>,
    /// From one request to the next in the mean; none as soon as another one has ended.
    pub(super) interval: Option<Duration>,
    pub(super) seed: u64,
}

/// A call that is open.
#[derive(Debug, Clone, Copy)]
struct Call {
    length: u32,
    due: Instant,
}

/// A port that makes calls.
pub(super) struct Caller {
    plan: Plan,
    peer: Peer,
    port: Port,
    /// The longest request, of which others are the beginning, but for the length in it.
    longest: Vec<u8>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    rng: Rng,
    open: HashMap<u64, Call>,
    begun: u64,
    /// No more calls are begun.
    over: bool,
    failure: Option<SendError>,
    tally: Tally,
}

impl Caller {
    pub(super) fn new(plan: Plan, peer: Peer, port: Port) -> Self {
        let state = State {
            rng: Rng::new(plan.seed),
            open: HashMap::new(),
            begun: 0,
            over: false,
            failure: None,
            tally: Tally::new(),
        };
        let longest = message::request(plan.lengths.most(), plan.one_way);
        Self { plan, peer, port, longest, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins no more calls; those that are open are still waited for.
    pub(super) fn stop(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }

    /// What was seen until now.
    pub(super) fn finish(&self) -> (Tally, Option<SendError>) {
        let mut state = self.state();
        (std::mem::replace(&mut state.tally, Tally::new()), state.failure.take())
    }

    /// Makes the calls. With an interval, [`send_when_due`](Self::send_when_due) begins them on a thread of its own.
    pub(super) async fn run(&self) {
        let began = Instant::now();
        let mut batch = Vec::with_capacity(TOGETHER);
        let mut over_since = None;
        loop {
            if self.plan.interval.is_none() {
                self.fill(began);
            }
            if let Some(over) = self.is_over() {
                let since: Instant = *over_since.get_or_insert_with(Instant::now);
                if over || since.elapsed() > LINGER {
                    return;
                }
            }
            // Whoever stops it says so to nobody: that is looked at now and then.
            let took = self.port.recv_batch(&mut batch, TOGETHER);
            if let Ok(0) = tokio::time::timeout(LOOK, took).await {
                return self.stop();
            }
            self.take(&mut batch);
        }
    }

    /// Whether no more calls are begun, and then whether none is open.
    fn is_over(&self) -> Option<bool> {
        let state = self.state();
        state.over.then(|| state.open.is_empty())
    }

    /// Begins as many calls as may be open.
    fn fill(&self, began: Instant) {
        loop {
            let mut state = self.state();
            state.over |= self.plan.time.is_some_and(|time| began.elapsed() >= time);
            if state.over || state.open.len() >= self.plan.open {
                return;
            }
            let length = self.plan.lengths.sample(&mut state.rng);
            drop(state);
            if !self.begin(Call { length, due: Instant::now() }) {
                return;
            }
        }
    }

    /// Begins calls when they are due, until they are over: for a thread of its own, which may sleep.
    pub(super) fn send_when_due(&self, interval: Duration) {
        let began = Instant::now();
        let mut due = began;
        loop {
            let mut state = self.state();
            due += Duration::from_secs_f64(state.rng.exponential(interval.as_secs_f64()));
            let length = self.plan.lengths.sample(&mut state.rng);
            drop(state);
            if self.plan.time.is_some_and(|time| due - began >= time) {
                return self.stop();
            }
            while let Some(early) =
                due.checked_duration_since(Instant::now()).filter(|early| !early.is_zero())
            {
                if self.state().over {
                    return;
                }
                thread::sleep(early.min(LOOK));
            }
            // Again where the transport had no room: the call stays due since then.
            loop {
                let mut state = self.state();
                while !state.over && state.open.len() >= self.plan.open {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.over {
                    return;
                }
                drop(state);
                if self.begin(Call { length, due }) {
                    break;
                }
                let state = self.state();
                if !state.over {
                    drop(self.changed.wait_timeout(state, LOOK));
                }
            }
        }
    }

    /// Sends a request; false if the transport takes none now.
    fn begin(&self, call: Call) -> bool {
        let (cookie, to) = {
            let mut state = self.state();
            let to = self.plan.port + state.rng.below(u64::from(self.plan.ports)) as u16;
            let cookie = state.begun;
            state.begun += 1;
            state.over |= self.plan.count.is_some_and(|count| state.begun >= count);
            // Known before its outcome can come.
            state.open.insert(cookie, call);
            let late = call.due.elapsed();
            state.tally.lag = state.tally.lag.max(late);
            (cookie, to)
        };
        let mut options = RequestOptions::default();
        options.deadline = self.plan.deadline;
        let Err(error) = self.port.send(&self.peer, to, self.request(call.length), cookie, options) else {
            return true;
        };
        let mut state = self.state();
        state.open.remove(&cookie);
        state.begun -= 1;
        let full = matches!(error, SendError::TooMany { .. } | SendError::Full { .. });
        if full && !state.open.is_empty() {
            state.over &= self.plan.count.is_none_or(|count| state.begun >= count);
        } else {
            state.over = true;
            state.failure = Some(error);
        }
        false
    }

    fn request(&self, length: u32) -> Bytes {
        let mut bytes = self.longest[..length as usize].to_vec();
        message::set_length(&mut bytes);
        bytes.into()
    }

    /// Counts what came.
    fn take(&self, batch: &mut Vec<Incoming>) {
        let now = Instant::now();
        let mut state = self.state();
        for incoming in batch.drain(..) {
            let Incoming::Done { cookie, outcome, body } = incoming else { continue };
            let Some(Call { length, due }) = state.open.remove(&cookie) else { continue };
            if outcome == Outcome::Delivered {
                let request = &self.longest[..length as usize];
                if !message::is_answer(request, body.as_slice(), self.plan.one_way) {
                    state.tally.changed += 1;
                }
                state.tally.answered(length, body.length(), now.saturating_duration_since(due));
            } else {
                state.tally.failed(outcome);
                state.over |= state.tally.is_hopeless(HOPELESS);
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}
