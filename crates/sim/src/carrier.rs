//! A stream carrier: bytes in order, or not at all. Loss is delay, a cut is silence, a reset ends it.

use crate::rng::Rng;
use bytes::{Buf, Bytes, BytesMut};
use core::time::Duration;
use std::collections::VecDeque;
use steadfast_wire::{Instant, PathNumber};

/// The most bytes in one simulated packet.
const SEGMENT: usize = 1448;
/// What the send buffer takes before the sender counts as blocked.
const SEND_BUFFER: usize = 32 * 1024;
/// What is in flight at most.
const WINDOW: usize = 4 * 1024 * 1024;
/// First and longest retransmission timeout.
const RTO: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];

/// One end of a carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) host: usize,
    pub(crate) network: usize,
    /// Which process of the host: a restart makes old carriers worthless.
    pub(crate) run: u32,
    pub(crate) path: Option<PathNumber>,
}

/// What one direction holds.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    buffer: BytesMut,
    flight: VecDeque<(Instant, Bytes)>,
    in_flight: usize,
    pub(crate) last_arrival: Instant,
    /// Nothing is sent before then: a retransmission timer runs.
    stalled: Option<Instant>,
    rto: Duration,
    /// When the world looks at this direction next.
    pub(crate) planned: Option<Instant>,
    /// The sender waits for room.
    pub(crate) starving: bool,
    /// When something last arrived, and when its sender last heard that.
    pub(crate) arrived_at: Instant,
    pub(crate) acked_at: Instant,
    /// What arrived last was not acknowledged: there is no way back.
    pub(crate) ack_lost: bool,
}

/// What a link does to a packet that leaves now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crossing {
    pub(crate) arrival: Instant,
    pub(crate) lost: bool,
}

impl Pipe {
    pub(crate) fn room(&self) -> usize {
        SEND_BUFFER.saturating_sub(self.buffer.len())
    }

    /// Whether everything that was written has arrived.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.flight.is_empty()
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Sends what window and timer allow; `cross` says what becomes of each packet. Returns when to look again.
    pub(crate) fn pump(
        &mut self,
        now: Instant,
        cross: &mut dyn FnMut(usize) -> Option<Crossing>,
    ) -> Option<Instant> {
        if let Some(until) = self.stalled {
            if until > now {
                return Some(until);
            }
            self.stalled = None;
        }
        while !self.buffer.is_empty() && self.in_flight < WINDOW {
            let size = self.buffer.len().min(SEGMENT);
            let Some(crossing) = cross(size) else {
                // The packet vanished: TCP will try again, ever more rarely.
                return Some(self.stall(now));
            };
            let penalty = if crossing.lost { RTO[0] } else { Duration::ZERO };
            let arrival = (crossing.arrival + penalty).max(self.last_arrival);
            self.last_arrival = arrival;
            self.in_flight += size;
            self.flight.push_back((arrival, self.buffer.split_to(size).freeze()));
        }
        self.flight.front().map(|(arrival, _)| *arrival)
    }

    fn stall(&mut self, now: Instant) -> Instant {
        self.rto = (self.rto * 2).clamp(RTO[0], RTO[1]);
        let until = now + self.rto;
        self.stalled = Some(until);
        until
    }

    /// What has arrived by now; nothing if the link has been cut meanwhile, and then it is all sent again.
    pub(crate) fn arrivals(&mut self, now: Instant, open: bool, out: &mut BytesMut) {
        while let Some((_, bytes)) = self.flight.front().filter(|(arrival, _)| *arrival <= now) {
            if !open {
                let mut again = BytesMut::new();
                for (_, bytes) in self.flight.drain(..) {
                    again.extend_from_slice(&bytes);
                }
                again.extend_from_slice(&self.buffer);
                self.buffer = again;
                self.in_flight = 0;
                self.last_arrival = now;
                self.stall(now);
                return;
            }
            self.rto = Duration::ZERO;
            self.in_flight -= bytes.remaining();
            out.extend_from_slice(bytes);
            self.flight.pop_front();
        }
    }
}

/// Delay of a link with its jitter.
pub(crate) fn jittered(rng: &mut Rng, delay: Duration, jitter: Duration) -> Duration {
    delay + Duration::from_nanos(rng.range(0, steadfast_wire::time::nanos(jitter) + 1))
}

#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) ends: [End; 2],
    pub(crate) pipes: [Pipe; 2],
    pub(crate) open: bool,
    /// The side that closed it; the other one hears of that after everything that was written before.
    pub(crate) closing: Option<usize>,
}
