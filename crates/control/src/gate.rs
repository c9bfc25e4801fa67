//! Parts of a program during which no checkpoint is taken.

use crate::lock;
use std::cell::Cell;
use std::future::poll_fn;
use std::sync::{Condvar, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

/// What is going on with checkpoints of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    Idle,
    /// Somebody waits for the end of all [sections](Section).
    Pending,
    /// The process prepares, is ready, or is going on again.
    Active,
}

/// Lets either sections or one checkpoint through.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    sections: u64,
    /// Counts checkpoints that ended, so that who waits for one is not kept by the next.
    ended: u64,
    wakers: Vec<Waker>,
}

thread_local! {
    /// Participants are being told on this thread: what they guard is safe already.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// While one is held no checkpoint begins.
///
/// Dropping it does not wait; [`leave`](Self::leave) and [`left`](Self::left) do, for a checkpoint that was held up by it.
#[derive(Debug)]
#[must_use = "it ends as soon as it is dropped"]
pub struct Section {
    /// `None` for a participant that is being told something: then there is nothing to hold up.
    gate: Option<&'static Gate>,
}

impl Gate {
    pub(crate) const fn new() -> Self {
        let state = State { phase: Phase::Idle, sections: 0, ended: 0, wakers: Vec::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(crate) fn phase(&self) -> Phase {
        lock(&self.state).phase
    }

    /// Waits until no checkpoint is wanted or taken.
    pub(crate) fn enter(&'static self) -> Section {
        if INSIDE.get() {
            return Section { gate: None };
        }
        let mut state = lock(&self.state);
        while state.phase != Phase::Idle {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.sections += 1;
        Section { gate: Some(self) }
    }

    /// The same for tasks.
    pub(crate) async fn entering(&'static self) -> Section {
        poll_fn(|cx| {
            if INSIDE.get() {
                return Poll::Ready(Section { gate: None });
            }
            let mut state = lock(&self.state);
            if state.phase != Phase::Idle {
                state.wait(cx.waker());
                return Poll::Pending;
            }
            state.sections += 1;
            Poll::Ready(Section { gate: Some(self) })
        })
        .await
    }

    /// `None` while a checkpoint is wanted or taken.
    pub(crate) fn try_enter(&'static self) -> Option<Section> {
        if INSIDE.get() {
            return Some(Section { gate: None });
        }
        let mut state = lock(&self.state);
        (state.phase == Phase::Idle).then(|| {
            state.sections += 1;
            Section { gate: Some(self) }
        })
    }

    /// A checkpoint is wanted: nobody enters any more, and those who are inside are waited for. `false` if they are not out by
    /// `deadline`, and then it is as if nothing had been wanted.
    pub(crate) fn begin(&self, deadline: Instant) -> bool {
        let mut state = lock(&self.state);
        state.phase = Phase::Pending;
        while state.sections > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                self.end();
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.phase = Phase::Active;
        true
    }

    /// The checkpoint is over.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        state.phase = Phase::Idle;
        state.ended += 1;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Runs what participants do: for them sections are always open.
    pub(crate) fn inside<R>(f: impl FnOnce() -> R) -> R {
        INSIDE.set(true);
        let result = f();
        INSIDE.set(false);
        result
    }

    /// One section less. The number of the checkpoint that was held up by it alone.
    fn count_down(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        state.sections -= 1;
        let last = state.sections == 0 && state.phase == Phase::Pending;
        if last {
            self.changed.notify_all();
        }
        last.then_some(state.ended)
    }
}

impl State {
    fn wait(&mut self, waker: &Waker) {
        if !self.wakers.iter().any(|other| other.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
    }
}

impl Section {
    /// Another one inside this one: it does not wait, even if a checkpoint is wanted already.
    pub fn again(&self) -> Self {
        if let Some(gate) = self.gate {
            lock(&gate.state).sections += 1;
        }
        Self { gate: self.gate }
    }

    /// Ends it. If a checkpoint waited for its end, returns when that is over: in the process as it goes on, or in the one
    /// that was restored.
    pub fn leave(mut self) {
        let Some(gate) = self.gate.take() else { return };
        let Some(held_up) = gate.count_down() else { return };
        let mut state = lock(&gate.state);
        while state.ended == held_up {
            state = gate.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The same for tasks. Cancelled, it has ended.
    pub async fn left(mut self) {
        let Some(gate) = self.gate.take() else { return };
        let Some(held_up) = gate.count_down() else { return };
        poll_fn(|cx| {
            let mut state = lock(&gate.state);
            if state.ended != held_up {
                return Poll::Ready(());
            }
            state.wait(cx.waker());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            let _held_up = gate.count_down();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn gate() -> &'static Gate {
        Box::leak(Box::new(Gate::new()))
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_section_holds_a_checkpoint_up_and_its_end_lets_it_through() {
        let gate = gate();
        let section = gate.enter();
        let nested = section.again();
        let checkpoint = std::thread::spawn(move || gate.begin(far()));
        while gate.phase() == Phase::Idle {
            std::thread::yield_now();
        }
        assert!(gate.try_enter().is_none(), "whoever comes now waits");
        let inner = nested.again();
        drop((inner, section));
        assert!(!checkpoint.is_finished());
        let leaver = std::thread::spawn(move || nested.leave());
        assert!(checkpoint.join().unwrap());
        assert_eq!(gate.phase(), Phase::Active);
        assert!(!leaver.is_finished(), "it returns when the checkpoint is over");
        let late = std::thread::spawn(move || drop(gate.enter()));
        gate.end();
        leaver.join().unwrap();
        late.join().unwrap();
        assert!(gate.try_enter().is_some());
    }

    #[test]
    fn whoever_stays_too_long_is_not_frozen() {
        let gate = gate();
        let section = gate.enter();
        assert!(!gate.begin(Instant::now()));
        assert_eq!(gate.phase(), Phase::Idle);
        section.leave();
        assert!(gate.begin(Instant::now()));
        Gate::inside(|| {
            drop(gate.try_enter().unwrap().again());
            gate.enter().leave();
        });
        assert!(gate.try_enter().is_none());
    }
}
