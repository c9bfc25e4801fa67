//! One path: a carrier between a local and a remote network, what is in flight on it, and whether it still answers.

use crate::config::Config;
use crate::estimate::{Estimate, bytes_in};
use crate::liveness::Examination;
use crate::rules::Rules;
use crate::session::{Ending, Item};
use crate::share::Allotment;
use crate::steering::Steering;
use alloc::collections::{BTreeSet, VecDeque};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use steadfast_wire::frame::Progress;
use steadfast_wire::{Instant, NetworkId, PathNumber, Rule, SessionId};

/// For how many times the limit a path may be silent whose peer is heard beside it.
const BESIDE: u32 = 10;
/// Reports of arrival wait at most this long for company, or for so many bytes: an eighth of what lately came in that
/// time, within bounds.
pub(crate) const REPORT_DELAY: Duration = Duration::from_millis(5);
/// The least time between two reports of little, or they would be as many as small urgent messages.
pub(crate) const REPORT_PAUSE: Duration = Duration::from_millis(1);
const REPORT_BYTES: [u64; 2] = [4096, 1024 * 1024];
/// How long a rate of arrival is measured at least, and how many of them are remembered.
const ARRIVAL_ROUND: Duration = Duration::from_millis(100);
const ARRIVAL_ROUNDS: usize = 8;
/// The most frames on their way on one path, some 100 bytes of memory each, and the most bytes of what they carried
/// that is kept with them.
const MAX_FLIGHTS: usize = 65_536;
const MAX_CARGO: u64 = 4 << 20;
const PACKET: u64 = 1500;
/// Rounds without a queue after which a path counts as having room.
const ROOMY_ROUNDS: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The driver opens the carrier.
    Connecting,
    /// The carrier is there; the peer's HELLO is awaited.
    ExpectHello,
    Up,
    /// The peer's HELLO came, but another path joins the same networks and stays. It says ours, by which the peer learns
    /// what process it has reached, and ends.
    Leaving,
}

/// What one counted frame carried.
#[derive(Debug)]
pub(crate) enum Cargo {
    Session(SessionId, Item),
    Networks,
    Offer(u64),
    End(Ending),
    /// Given up as lost and said again elsewhere; kept because it may still arrive.
    Moved(SessionId, Item),
    Nothing,
}

impl Cargo {
    fn weight(&self) -> u32 {
        let (Self::Session(_, Item::Ack(ack)) | Self::Moved(_, Item::Ack(ack))) = self else { return 0 };
        let ranges = ack.received.ranges() + ack.delivered.ranges() + ack.dropped.ranges();
        (ranges * size_of::<core::ops::Range<u64>>()) as u32
    }
}

/// How a frame counts on its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freight {
    /// Control, and what of foreground is small.
    Small,
    /// What of foreground is large.
    Large,
    Background,
}

impl Freight {
    /// Whether it counts against the window of bulk.
    pub(crate) fn is_bulk(self) -> bool {
        self != Self::Small
    }
}

/// What a path carried since somebody last asked.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Bytes that arrived: background, and all else.
    pub(crate) background: u64,
    pub(crate) foreground: u64,
    /// Background, and large messages of foreground, had to wait.
    pub(crate) background_waited: bool,
    pub(crate) foreground_waited: bool,
}

impl Meter {
    pub(crate) const fn waits(&mut self, background: bool) {
        if background {
            self.background_waited = true;
        } else {
            self.foreground_waited = true;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) cargo: Cargo,
    pub(crate) bytes: u32,
    pub(crate) at: Instant,
    freight: Freight,
    /// Memory of the cargo beside the flight itself, in bytes.
    weight: u32,
}

#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) number: PathNumber,
    /// The peer's number for it.
    pub(crate) remote_number: PathNumber,
    pub(crate) state: State,
    /// We opened it.
    pub(crate) opener: bool,
    pub(crate) local: NetworkId,
    pub(crate) local_ip: Option<IpAddr>,
    /// Known from HELLO.
    pub(crate) remote: Option<NetworkId>,
    /// The network of the peer that we meant to reach, where we opened it and knew.
    pub(crate) meant: Option<NetworkId>,
    /// Something waited for it when it was opened.
    pub(crate) demanded: bool,
    pub(crate) address: SocketAddr,
    /// The address is one of ours: the kernel tells when the peer dies, and nothing lies between that could be cut.
    pub(crate) same_host: bool,
    /// When an opening must have come to an end.
    pub(crate) deadline: Instant,
    /// When the other side's kernel took the connection.
    pub(crate) reached: Option<Instant>,
    /// What our kernel knows of it, since it was last asked; an error if it does not tell.
    pub(crate) examined: Option<Result<Examination, ()>>,
    /// When our kernel first said that the other side's has what we said, and nothing comes.
    pub(crate) found_mute: Option<Instant>,
    pub(crate) hello_due: bool,
    /// This process is about to be frozen, and the peer is to hear it.
    pub(crate) suspend_due: bool,
    /// Our networks are said once on every path: the peer may know us only by it.
    pub(crate) networks_due: bool,
    pub(crate) suspect: Option<Instant>,
    /// When the next of what is in flight on a suspect path is late, too.
    pub(crate) rescue_at: Option<Instant>,
    /// The socket takes nothing since then.
    pub(crate) blocked: Option<Instant>,
    pub(crate) flights: VecDeque<Flight>,
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) in_flight: u64,
    /// Of it, what counts against the window of bulk, and of that background.
    pub(crate) bulk_in_flight: u64,
    background_in_flight: u64,
    cargo_weight: u64,
    pub(crate) last_progress: Instant,
    pub(crate) received: u64,
    pub(crate) unreported: u64,
    arrivals: Arrivals,
    pub(crate) report_at: Option<Instant>,
    pub(crate) report_due: bool,
    /// When there was the last one.
    pub(crate) reported_at: Instant,
    pub(crate) last_counted: Instant,
    pub(crate) last_heard: Instant,
    /// When something came from the peer by the same networks, but not on the path.
    pub(crate) heard_beside: Instant,
    /// When the peer's HELLO came.
    pub(crate) up_since: Instant,
    /// It came when there were as many paths as there may be, and is to have its turn until then.
    pub(crate) stays_until: Instant,
    pub(crate) last_sent: Instant,
    pub(crate) ping: Option<(u64, Instant)>,
    /// When it was first asked since it was last heard.
    asked: Instant,
    pub(crate) ping_due: bool,
    /// The application wants to know how long the answer takes.
    pub(crate) probed: bool,
    pub(crate) pong_due: Option<u64>,
    pub(crate) estimate: Estimate,
    steering: Steering,
    /// What an arbiter allows its background.
    limit: Option<Allotment>,
    pub(crate) meter: Meter,
    /// Background waited in the time that was last asked about.
    pub(crate) waited: bool,
    /// Foreground since background last had its share, in bytes.
    pub(crate) foreground_run: u64,
    /// Bulk waits for its pace until then.
    pub(crate) paced: Option<Instant>,
    /// Bytes of frames, sent and received.
    pub(crate) bytes: [u64; 2],
    /// The rules of what was given to it since nothing was under way: some of it may lie in its socket, whatever became
    /// of the messages and their conversations.
    pub(crate) carried: Rules,
    /// Bytes of DATA frames sent.
    pub(crate) data_bytes: u64,
    /// Sessions that were opened on this path.
    pub(crate) introduced: BTreeSet<SessionId>,
}

/// How fast bytes come in, and so how many of them a report is worth.
#[derive(Debug)]
struct Arrivals {
    since: Instant,
    bytes: u64,
    report_bytes: u64,
    /// Bytes of the time since, and the rates of the last such times.
    long: (Instant, u64),
    rates: [u64; ARRIVAL_ROUNDS],
}

impl Arrivals {
    fn note(&mut self, now: Instant, bytes: u64) {
        self.bytes += bytes;
        let elapsed = now.since(self.since);
        if elapsed >= REPORT_DELAY {
            let rate = u128::from(self.bytes) * 1_000_000_000 / elapsed.as_nanos();
            let lately = bytes_in(u64::try_from(rate).unwrap_or(u64::MAX), REPORT_DELAY);
            self.report_bytes = (lately / 8).clamp(REPORT_BYTES[0], REPORT_BYTES[1]);
            (self.since, self.bytes) = (now, 0);
        }
        self.long.1 += bytes;
        let elapsed = now.since(self.long.0);
        if elapsed >= ARRIVAL_ROUND {
            self.rates.rotate_right(1);
            self.rates[0] = (u128::from(self.long.1) * 1_000_000_000 / elapsed.as_nanos()) as u64;
            self.long = (now, 0);
        }
    }
}

impl Path {
    pub(crate) fn new(
        number: PathNumber,
        opener: bool,
        local: NetworkId,
        address: SocketAddr,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        Self {
            number,
            remote_number: PathNumber(0),
            state: if opener { State::Connecting } else { State::ExpectHello },
            opener,
            local,
            local_ip: None,
            remote: None,
            meant: None,
            demanded: false,
            address,
            same_host: false,
            deadline,
            reached: None,
            examined: None,
            found_mute: None,
            hello_due: true,
            suspend_due: false,
            networks_due: true,
            suspect: None,
            rescue_at: None,
            blocked: None,
            flights: VecDeque::new(),
            sent: 0,
            acked: 0,
            in_flight: 0,
            bulk_in_flight: 0,
            background_in_flight: 0,
            cargo_weight: 0,
            last_progress: now,
            received: 0,
            unreported: 0,
            arrivals: Arrivals {
                since: now,
                bytes: 0,
                report_bytes: REPORT_BYTES[0],
                long: (now, 0),
                rates: [0; ARRIVAL_ROUNDS],
            },
            report_at: None,
            report_due: false,
            reported_at: Instant(0),
            last_counted: now,
            last_heard: now,
            heard_beside: now,
            up_since: now,
            stays_until: Instant(0),
            last_sent: now,
            ping: None,
            asked: Instant(0),
            ping_due: false,
            probed: false,
            pong_due: None,
            estimate: Estimate::default(),
            steering: Steering::default(),
            limit: None,
            meter: Meter::default(),
            waited: false,
            foreground_run: 0,
            paced: None,
            bytes: [0; 2],
            carried: Rules::default(),
            data_bytes: 0,
            introduced: BTreeSet::new(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Up, and nothing speaks against it.
    pub(crate) fn is_good(&self) -> bool {
        self.is_up() && self.suspect.is_none()
    }

    /// The peer takes frames and reports none of them: nothing more that is to be reported goes out.
    pub(crate) fn is_full(&self) -> bool {
        self.flights.len() >= MAX_FLIGHTS || self.cargo_weight >= MAX_CARGO
    }

    /// A counted frame goes out.
    pub(crate) fn fly(&mut self, now: Instant, cargo: Cargo, bytes: usize, freight: Freight) {
        if self.flights.is_empty() {
            self.last_progress = now;
            self.estimate.idle();
        }
        self.sent += 1;
        self.in_flight += bytes as u64;
        if freight.is_bulk() {
            self.bulk_in_flight += bytes as u64;
            let background = freight == Freight::Background;
            self.background_in_flight += if background { bytes as u64 } else { 0 };
            let limit = self.limit(now, background);
            self.steering.sent(now, &self.estimate, bytes as u64, limit);
        }
        self.last_sent = now;
        let weight = cargo.weight();
        self.cargo_weight += u64::from(weight);
        self.flights.push_back(Flight { cargo, bytes: bytes as u32, at: now, freight, weight });
    }

    /// DATA under a rule goes out.
    pub(crate) fn carries(&mut self, rule: &Rule) {
        if !rule.is_empty() {
            self.carried.insert(rule);
        }
    }

    /// The next flight that a report of `count` frames covers.
    pub(crate) fn land(&mut self, count: u64) -> Option<Flight> {
        if self.acked >= count {
            return None;
        }
        let flight = self.flights.pop_front()?;
        self.acked += 1;
        self.in_flight -= u64::from(flight.bytes);
        self.cargo_weight -= u64::from(flight.weight);
        if flight.freight.is_bulk() {
            self.bulk_in_flight -= u64::from(flight.bytes);
        }
        if flight.freight == Freight::Background {
            self.background_in_flight -= u64::from(flight.bytes);
            self.meter.background += u64::from(flight.bytes);
        } else {
            self.meter.foreground += u64::from(flight.bytes);
        }
        if self.flights.is_empty() {
            self.carried.clear();
        }
        Some(flight)
    }

    /// A report about this path came in on it: `bytes` landed since the last one, the newest of them sent at `sent`.
    /// `queue` is the time that bulk may wait in the network.
    pub(crate) fn reported(
        &mut self,
        now: Instant,
        progress: &Progress,
        bytes: u64,
        sent: Instant,
        queue: Duration,
    ) {
        let wait = Duration::from_micros(progress.delay);
        let rtt = now.since(sent).saturating_sub(wait).max(Duration::from_micros(1));
        self.estimate.round_trip(now, rtt);
        self.steering.sample(now, sent, progress.clock, rtt, bytes);
        if self.estimate.delivered(bytes, progress.clock) {
            self.steering.end_round(now, &mut self.estimate, queue);
        }
    }

    /// Highest recent rate of arrival in bytes a second.
    pub(crate) fn arrival_rate(&self) -> Option<u64> {
        self.arrivals.rates.iter().copied().max().filter(|rate| *rate > 0)
    }

    /// How many more bytes of bulk may be given to this path.
    pub(crate) fn bulk_room(&self, now: Instant, queue: Duration, background: bool) -> u64 {
        let window = self.steering.window(now, &self.estimate, queue);
        let room = window.saturating_sub(self.bulk_in_flight);
        self.limit(now, background).map_or(room, |limit| {
            let allotted = self.steering.allotted(now, &self.estimate, limit);
            let left = allotted.saturating_sub(self.background_in_flight);
            // A packet of each of many processes would be a queue by itself: only whole ones fit, but one always does.
            let left = match self.background_in_flight {
                0 => left.max(PACKET),
                _ if left < PACKET => 0,
                _ => left,
            };
            room.min(left)
        })
    }

    /// How many bytes of bulk may leave now, by window and pace. If only the pace speaks against it, the path is
    /// asked again when it does no longer.
    pub(crate) fn bulk_allowance(&mut self, now: Instant, queue: Duration, background: bool) -> u64 {
        let room = self.bulk_room(now, queue, background);
        let allowance = self.steering.allowance(now, &self.estimate, self.limit(now, background));
        if room > 0 && allowance == 0 {
            self.paced = Some(self.steering.due());
        }
        room.min(allowance)
    }

    /// What an arbiter allows now.
    fn limit(&self, now: Instant, background: bool) -> Option<Allotment> {
        self.limit.filter(|limit| background && now < limit.until)
    }

    /// An arbiter allows this much from now on.
    pub(crate) fn allot(&mut self, allotment: Option<Allotment>) {
        self.limit = allotment;
        let (Some(limit), Some(rate)) = (allotment, self.estimate.rate()) else { return };
        // The window keeps it from going over that, so it may take big steps there.
        let waits = self.waited || self.meter.background_waited;
        if waits && rate < limit.rate / 5 * 4 && self.steering.empty_rounds() > 0 {
            self.estimate.restart();
        }
    }

    /// Whether background lately went out on it, or waits to.
    pub(crate) const fn has_background(&self) -> bool {
        self.background_in_flight > 0
            || self.meter.background > 0
            || self.meter.background_waited
            || self.waited
    }

    /// Whether the rate still grows, and nobody has said how far it may.
    pub(crate) fn is_starting(&self, now: Instant) -> bool {
        self.estimate.is_starting() && self.limit(now, true).is_none()
    }

    /// Whether nothing has queued for so long that it is not because the queue was let run empty.
    pub(crate) const fn has_room(&self) -> bool {
        self.steering.empty_rounds() >= ROOMY_ROUNDS
    }

    /// Its queue is let run empty for a round trip.
    pub(crate) fn drain(&mut self, now: Instant) {
        self.steering.drain(now, self.estimate.rtt_or_guess());
    }

    /// A counted frame came in.
    pub(crate) fn counted(&mut self, now: Instant, bytes: u64, urgent: bool) {
        self.received += 1;
        self.unreported += bytes.max(1);
        self.last_counted = now;
        self.arrivals.note(now, bytes);
        if self.unreported >= self.arrivals.report_bytes || urgent && self.may_report(now) {
            self.report_due = true;
            self.report_at = None;
        } else if !self.report_due {
            let at = if urgent { self.reported_at + REPORT_PAUSE } else { now + REPORT_DELAY };
            self.report_at = Some(self.report_at.map_or(at, |before| before.min(at)));
        }
    }

    /// Whether a report of little may go out: it waits a moment if there was one just now.
    pub(crate) fn may_report(&self, now: Instant) -> bool {
        self.reported_at + REPORT_PAUSE <= now
    }

    /// How long an answer may take.
    pub(crate) fn patience(&self, config: &Config) -> Duration {
        self.estimate.patience(config.suspicion_margin) + REPORT_DELAY
    }

    /// Since when the other side's kernel has taken the connection of a path that we open.
    pub(crate) fn mute_since(&self) -> Option<Instant> {
        self.reached.filter(|_| self.opener && self.state == State::Connecting)
    }

    /// A PING goes out; an earlier one may be unanswered.
    pub(crate) fn pinged(&mut self, now: Instant, nonce: u64) {
        self.ping = Some((nonce, now));
        if self.asked <= self.last_heard {
            self.asked = now;
        }
    }

    /// Since when the peer owes an answer.
    pub(crate) fn owed_since(&self) -> Option<Instant> {
        let data = self.flights.front().map(|flight| flight.at.max(self.last_progress));
        data.into_iter().chain(self.ping.map(|_| self.asked)).min()
    }

    /// Since when it is silent although it is to answer; `or` if nothing is owed.
    pub(crate) fn silent_from(&self, or: Instant) -> Instant {
        self.last_heard.max(self.owed_since().unwrap_or(or))
    }

    /// When the silence becomes suspicious.
    pub(crate) fn suspicion_at(&self, config: &Config) -> Option<Instant> {
        if self.suspect.is_some() || !self.is_up() {
            return None;
        }
        let patience = self.patience(config);
        let data = self.flights.front().map(|flight| flight.at.max(self.last_progress) + patience);
        let ping = self.ping.map(|(_, at)| at.max(self.last_heard) + patience);
        data.into_iter().chain(ping).min()
    }

    /// When the path is given up.
    pub(crate) fn down_at(&self, config: &Config) -> Option<Instant> {
        match self.state {
            State::Up => self.suspect.map(|since| {
                // Where no heart beats a long silence says nothing: it counts from when an answer was owed.
                let from = if self.same_host { self.silent_from(since) } else { self.last_heard };
                // Where a crowd of packets keeps the path's own waiting, the path is not gone; but not for ever.
                let beside = self.heard_beside.min(since + config.down_after * BESIDE);
                from.max(since - config.down_after).max(beside) + config.down_after
            }),
            _ => Some(self.deadline),
        }
    }

    /// When the next probe is due.
    pub(crate) fn ping_at(&self, config: &Config) -> Option<Instant> {
        let quiet = self.is_up() && self.ping.is_none() && !self.ping_due;
        // Semantics 9: no heartbeat on one host.
        (quiet && (!self.same_host || self.suspect.is_some())).then(|| {
            // What only comes in measures nothing, and the estimate of a path that others use would go stale.
            let measured = self.estimate.measured().unwrap_or(self.up_since) + config.heartbeat * 5;
            let heard = (self.last_heard + config.heartbeat).min(measured);
            // A suspect path is probed more often: its recovery is worth knowing.
            if self.suspect.is_some() { heard.min(self.last_sent + config.heartbeat / 5) } else { heard }
        })
    }

    pub(crate) fn timeout(&self, config: &Config) -> Option<Instant> {
        let times = [
            self.suspicion_at(config),
            self.down_at(config),
            self.ping_at(config),
            self.report_at,
            self.paced,
            self.rescue_at,
        ];
        times.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    #[test]
    fn reports_of_single_messages_keep_a_distance_and_none_is_late() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let mut path = Path::new(PathNumber(1), true, NetworkId(1), address, Instant(0), Instant::FAR_FUTURE);
        let start = Instant(0) + Duration::from_secs(1);
        path.counted(start, 100, true);
        assert!(path.report_due, "there was none for long");
        (path.report_due, path.reported_at) = (false, start);
        path.counted(start, 100, false);
        assert_eq!(path.report_at, Some(start + REPORT_DELAY));
        path.counted(start + REPORT_PAUSE / 2, 100, true);
        assert_eq!((path.report_due, path.report_at), (false, Some(start + REPORT_PAUSE)), "it is moved up");
        path.counted(start + REPORT_PAUSE, 100, true);
        assert_eq!((path.report_due, path.report_at), (true, None));
        (path.report_due, path.reported_at) = (false, start);
        path.counted(start, REPORT_BYTES[0], false);
        assert!(path.report_due, "much is reported at once");
    }

    #[test]
    fn only_towards_another_host_does_an_idle_path_beat() {
        let config = Config::default();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let mut path = Path::new(PathNumber(1), true, NetworkId(1), address, Instant(0), Instant::FAR_FUTURE);
        path.state = State::Up;
        assert_eq!(path.ping_at(&config), Some(Instant(0) + config.heartbeat));
        path.same_host = true;
        assert_eq!(path.ping_at(&config), None);
        // What is in doubt is asked, wherever it is.
        path.suspect = Some(Instant(0));
        assert!(path.ping_at(&config).is_some());
    }
}
