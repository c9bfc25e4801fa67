//! One direction of a link: queue, wire and flight, as a state machine that is told the time.
//!
//! Drain it after every call: [`Pipe::arrive`] until `None`, then sleep until [`Pipe::poll_timeout`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use crate::Settings;
use crate::bands::{Bands, band_of};
use crate::loss::LossState;

/// Bytes that one direction may hold in all, whatever its settings: a long delay without a rate must not eat the memory.
const MOST_HELD: usize = 256 << 20;

/// What became of the frames that one host sent towards the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectionCounters {
    /// Frames handed to the receiving host.
    pub frames: u64,
    /// Their bytes, with the 14-byte Ethernet header of each.
    pub bytes: u64,
    /// Frames that found the queue full.
    pub dropped_queue: u64,
    /// Frames lost at random, as asked for.
    pub dropped_loss: u64,
    /// Frames that were sent on twice, as asked for.
    pub duplicated: u64,
    /// Frames that a blackhole took.
    pub dropped_blackhole: u64,
    /// Frames that the receiving host's interface did not take, as when it is down.
    pub dropped_interface: u64,
    /// Frames that the relay was too slow to pick up: above zero, this machine could not emulate the load.
    pub dropped_relay: u64,
    /// Frames that the relay handed to the receiving host more than a millisecond after their time: if they are many, this machine
    /// was too slow to emulate the load, and what was measured over the link is in part its own delay.
    pub late: u64,
    /// How late it was with one of them, at most.
    pub latest: Duration,
}

/// From here on a frame counts as late.
const LATE: Duration = Duration::from_millis(1);

impl DirectionCounters {
    /// A frame that was to arrive at a moment is handed over.
    pub(crate) fn hand_over(&mut self, due: Instant, now: Instant, bytes: usize) {
        let late = now.saturating_duration_since(due);
        self.late += u64::from(late >= LATE);
        self.latest = self.latest.max(late);
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

struct InFlight {
    arrives: Instant,
    sequence: u64,
    frame: Box<[u8]>,
}

impl InFlight {
    fn key(&self) -> (Instant, u64) {
        (self.arrives, self.sequence)
    }
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for InFlight {}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// The frame on the wire leaves at `departs`; those in `waiting` follow one by one.
struct Wire {
    departs: Instant,
    frame: Box<[u8]>,
}

pub(crate) struct Pipe {
    settings: Settings,
    waiting: Bands,
    wire: Option<Wire>,
    flying: BinaryHeap<Reverse<InFlight>>,
    flying_bytes: usize,
    last_arrival: Option<Instant>,
    sequence: u64,
    loss: LossState,
    seed: u64,
    drawn: u64,
    pub(crate) counters: DirectionCounters,
}

impl Pipe {
    pub(crate) fn new(mut settings: Settings, seed: u64) -> Self {
        settings.normalise();
        Self {
            settings,
            waiting: Bands::default(),
            wire: None,
            flying: BinaryHeap::new(),
            flying_bytes: 0,
            last_arrival: None,
            sequence: 0,
            loss: LossState::default(),
            seed,
            drawn: 0,
            counters: DirectionCounters::default(),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A frame comes from the sending host.
    pub(crate) fn enter(&mut self, now: Instant, frame: &[u8]) {
        self.advance(now);
        if self.settings.blackhole {
            self.counters.dropped_blackhole += 1;
        } else if self.waiting.bytes() + self.flying_bytes + frame.len() > MOST_HELD {
            self.counters.dropped_queue += 1;
        } else if self.settings.rate.is_none() {
            self.depart(now, frame.into());
        } else if self.wire.is_none() {
            let departs = now + self.settings.serialisation(frame.len());
            self.wire = Some(Wire { departs, frame: frame.into() });
        } else {
            let band = if self.settings.priorities { band_of(frame) } else { 0 };
            if !self.waiting.push(band, frame, self.settings.queue_bytes()) {
                self.counters.dropped_queue += 1;
            }
        }
    }

    /// When the next frame arrived at the receiving host, if one has by now.
    pub(crate) fn arrived(&mut self, now: Instant) -> Option<Instant> {
        self.advance(now);
        self.flying.peek().map(|next| next.0.arrives).filter(|arrives| *arrives <= now)
    }

    /// The next frame that has arrived at the receiving host by now, with its time. The caller counts it once the host has taken
    /// it.
    pub(crate) fn arrive(&mut self, now: Instant) -> Option<(Instant, Box<[u8]>)> {
        self.arrived(now)?;
        let Reverse(next) = self.flying.pop()?;
        self.flying_bytes -= next.frame.len();
        Some((next.arrives, next.frame))
    }

    /// When [`Pipe::arrive`] may have something; `None` while nothing is under way.
    ///
    /// A departure needs no turn of its own: its frame cannot arrive before the delay is over.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let arrival = self.flying.peek().map(|next| next.0.arrives);
        let departure = self.wire.as_ref().map(|wire| wire.departs + self.settings.delay);
        arrival.into_iter().chain(departure).min()
    }

    /// Changes the settings; frames that wait follow the new rate, frames in flight keep their arrival.
    pub(crate) fn set(&mut self, now: Instant, change: impl FnOnce(&mut Settings)) {
        self.advance(now);
        change(&mut self.settings);
        self.settings.normalise();
        if self.settings.blackhole {
            self.swallow();
        } else if self.settings.rate.is_none() {
            self.release(now);
        } else if let Some(wire) = &mut self.wire {
            // A frame that a slow wire would have held for long must not outlive the slowness.
            wire.departs = wire.departs.min(now + self.settings.serialisation(wire.frame.len()));
        }
    }

    fn swallow(&mut self) {
        let under_way = self.waiting.frames() + self.flying.len() + usize::from(self.wire.is_some());
        self.counters.dropped_blackhole += under_way as u64;
        self.waiting.clear();
        self.flying.clear();
        self.wire = None;
        self.last_arrival = None;
        self.flying_bytes = 0;
    }

    fn release(&mut self, now: Instant) {
        if let Some(wire) = self.wire.take() {
            self.depart(now, wire.frame);
        }
        while let Some(frame) = self.waiting.pop() {
            self.depart(now, frame);
        }
    }

    /// Moves every frame whose last bit is on the wire by now from the queue into flight.
    fn advance(&mut self, now: Instant) {
        while let Some(wire) = self.wire.take_if(|wire| wire.departs <= now) {
            self.depart(wire.departs, wire.frame);
            self.wire = self.waiting.pop().map(|frame| Wire {
                departs: wire.departs + self.settings.serialisation(frame.len()),
                frame,
            });
        }
    }

    fn depart(&mut self, at: Instant, frame: Box<[u8]>) {
        let Self { loss, seed, drawn, .. } = self;
        if loss.takes(self.settings.loss, || draw(*seed, drawn)) {
            self.counters.dropped_loss += 1;
            return;
        }
        if self.settings.duplication > 0.0 && draw(*seed, drawn) < self.settings.duplication {
            self.counters.duplicated += 1;
            self.fly(at, frame.clone());
        }
        self.fly(at, frame);
    }

    fn fly(&mut self, at: Instant, frame: Box<[u8]>) {
        let mut arrives = at + self.settings.delay;
        if self.settings.jitter > Duration::ZERO {
            arrives += self.settings.jitter.mul_f64(draw(self.seed, &mut self.drawn));
        }
        if !self.settings.reorder {
            arrives = self.last_arrival.map_or(arrives, |last| arrives.max(last));
        }
        self.last_arrival = Some(arrives);
        self.sequence += 1;
        self.flying_bytes += frame.len();
        self.flying.push(Reverse(InFlight { arrives, sequence: self.sequence, frame }));
    }
}

/// The next number in `0.0..1.0`: the same seed gives the same series.
fn draw(seed: u64, drawn: &mut u64) -> f64 {
    *drawn += 1;
    let mut hasher = DefaultHasher::new();
    (seed, *drawn).hash(&mut hasher);
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests;
