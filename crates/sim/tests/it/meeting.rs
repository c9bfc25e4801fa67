//! Processes that call each other at once: whichever way their connections cross, end and are opened again, both go by
//! what the other offers last, and nothing is taken up twice.

use crate::agents::Agents;
use crate::pair::{A, B, net};
use core::time::Duration;
use std::panic::{self, AssertUnwindSafe};
use steadfast_session::Config;
use steadfast_sim::rng::Rng;
use steadfast_sim::world::Attachment;

/// How long after both were called, or after what went wrong was mended, they have to agree at the latest.
const SETTLES: u64 = 5000;
const SETTLES_AFTER_TROUBLE: u64 = 15_000;
/// The delays of the networks that join the two, one way, in milliseconds.
const DELAYS: [&[u64]; 5] = [&[10], &[10, 3], &[3, 10], &[10, 10], &[10, 40, 3]];

/// How two begin: the one calls the `first` so many milliseconds after that called it.
#[derive(Debug, Clone, Copy)]
struct Start {
    delays: &'static [u64],
    first: usize,
    gap: u64,
    lag: u64,
    resets_travel: bool,
}

impl Start {
    fn begin(self, config: &Config) -> Agents {
        let networks: Vec<_> = self.delays.iter().map(|delay| net(1_000_000, *delay)).collect();
        let mut agents = Agents::new(self.gap, config, &[networks.clone(), networks]);
        agents.lag = self.lag;
        agents.world.resets_travel = self.resets_travel;
        agents.seek(self.first, 1 - self.first);
        agents.run(self.gap);
        agents.seek(1 - self.first, self.first);
        agents
    }
}

/// Cases and what went wrong in some.
#[derive(Default)]
struct Tally {
    cases: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn note(&mut self, agents: &Agents, one: usize, other: usize, what: &dyn Fn() -> String) {
        self.cases += 1;
        if let Err(wrong) = agents.agreed(one, other) {
            self.wrong.push(format!("{}: {wrong}", what()));
        }
    }

    fn assert_none(&self) {
        let first: Vec<_> = self.wrong.iter().take(5).collect();
        assert!(first.is_empty(), "{} of {} disagree: {first:#?}", self.wrong.len(), self.cases);
    }
}

#[test]
fn two_that_call_each_other_at_once_agree() {
    let (mut tally, mut met_twice) = (Tally::default(), 0);
    for delays in DELAYS {
        for first in [A, B] {
            for gap in 0..=60 {
                for (lag, resets_travel) in [(0, false), (0, true), (20, false), (20, true)] {
                    let start = Start { delays, first, gap, lag, resets_travel };
                    let mut agents = start.begin(&Config::default());
                    agents.run(SETTLES);
                    met_twice += usize::from(agents.dissociated(A) + agents.dissociated(B) > 0);
                    tally.note(&agents, A, B, &|| format!("{start:?}"));
                }
            }
        }
    }
    tally.assert_none();
    assert!(met_twice > 10, "hardly any connection was let go while the other was under way: {met_twice}");
}

/// The order of events that once kept two apart. B's connection comes in at A, and A says the number of its association in
/// answer to B's. A's own connection, which it began before, comes in at B: B lets go of the other one, since A's key is
/// less. So A forgets the association before it heard an offer there, and the one that dialled, although it was created
/// before, is the later one that meets B.
#[test]
fn who_was_met_and_let_go_before_it_was_heard_is_the_earlier_one() {
    let start = Start { delays: &[10], first: B, gap: 35, lag: 0, resets_travel: false };
    let mut agents = start.begin(&Config::default());
    agents.run(SETTLES);
    agents.assert_agreed(A, B, "begun anew");
    assert_eq!([A, B].map(|host| agents.dissociated(host)), [0, 1], "B heard of both, A of one");
}

/// Whoever began to call before the other's connection came in has to learn that it is the same process, although its own
/// connection is not needed.
#[test]
fn who_calls_hears_that_it_has_reached_however_busy_the_connection_is() {
    let mut tally = Tally::default();
    for first in [A, B] {
        for gap in 0..60 {
            let start = Start { delays: &[10], first, gap, lag: 0, resets_travel: gap % 2 == 0 };
            let mut agents = start.begin(&Config::default());
            for _ in 0..100 {
                agents.run(15);
                (0..2).for_each(|host| agents.renew(host));
            }
            agents.run(50);
            tally.note(&agents, A, B, &|| format!("{start:?}"));
        }
    }
    tally.assert_none();
}

#[test]
fn whoever_is_called_again_is_the_process_that_is_there() {
    let config = Config::default();
    let start = Start { delays: &[10], first: A, gap: 0, lag: 0, resets_travel: true };
    let mut agents = start.begin(&config);
    agents.run(500);
    agents.leave_off(A, B);
    agents.restart(B, &config);
    agents.seek(B, A);
    agents.run(500);
    // What the former process offered is not forgotten yet. The new one is here, and need not be called.
    agents.seek(A, B);
    agents.run(1);
    assert!(agents.has_reached(A, B), "A has a connection to B and calls it nevertheless");
}

/// What goes wrong meanwhile, with one of the two.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// Its process is replaced by a new one, which calls at once.
    Restarts,
    /// It says farewell; a new process calls a moment later.
    Leaves,
    /// Its process dies; a new one calls a moment later.
    Dies,
    /// Its process stands still for a while.
    Stops,
    /// It seeks nobody for a while.
    LeavesOff,
    /// Its agent is closed and opened again.
    Closes,
    /// Its first network is gone for a while.
    IsCut,
    /// What leaves it over the first network vanishes for a while.
    IsMute,
    /// What comes to it over the first network vanishes for a while.
    IsDeaf,
}

impl Trouble {
    const ALL: [Self; 9] = [
        Self::Restarts,
        Self::Leaves,
        Self::Dies,
        Self::Stops,
        Self::LeavesOff,
        Self::Closes,
        Self::IsCut,
        Self::IsMute,
        Self::IsDeaf,
    ];

    fn begin(self, agents: &mut Agents, host: usize, config: &Config) {
        match self {
            Self::Restarts => agents.restart(host, config),
            Self::Leaves => agents.leave(host),
            Self::Dies => agents.world.kill(host),
            Self::Stops => agents.world.stop(host),
            Self::LeavesOff => (0..agents.world.nodes.len()).for_each(|peer| agents.leave_off(host, peer)),
            Self::Closes => agents.close(host),
            Self::IsCut => agents.set_up(host, 0, false),
            Self::IsMute => agents.world.nodes[host].attachments[0].hole_out = true,
            Self::IsDeaf => agents.world.nodes[host].attachments[0].hole_in = true,
        }
    }

    fn end(self, agents: &mut Agents, host: usize, config: &Config) {
        match self {
            Self::Leaves | Self::Dies => agents.restart(host, config),
            Self::Stops => agents.world.resume(host),
            Self::IsCut => agents.set_up(host, 0, true),
            Self::IsMute => agents.world.nodes[host].attachments[0].hole_out = false,
            Self::IsDeaf => agents.world.nodes[host].attachments[0].hole_in = false,
            Self::Restarts | Self::LeavesOff | Self::Closes => {}
        }
    }
}

#[test]
fn two_that_call_each_other_agree_whatever_happens_meanwhile() {
    let mut tally = Tally::default();
    let config = Config::default();
    for trouble in Trouble::ALL {
        for host in [A, B] {
            for (index, delays) in DELAYS.into_iter().enumerate() {
                for gap in [0, 15, 35] {
                    for at in (1..140).step_by(17) {
                        let (first, resets_travel) = ([A, B][(at / 17 + gap) as usize % 2], index % 2 == 1);
                        let start = Start { delays, first, gap, lag: 0, resets_travel };
                        let mut agents = start.begin(&config);
                        agents.run(at);
                        trouble.begin(&mut agents, host, &config);
                        agents.run(if index == 0 { 25 } else { 7 });
                        trouble.end(&mut agents, host, &config);
                        agents.seek_all();
                        agents.run(SETTLES_AFTER_TROUBLE);
                        // Whoever was told farewell does not call again by itself.
                        agents.seek_all();
                        agents.run(SETTLES);
                        tally.note(&agents, A, B, &|| format!("{host} {trouble:?} after {at} ms, {start:?}"));
                    }
                }
            }
        }
    }
    tally.assert_none();
}

#[test]
fn who_calls_while_an_idle_association_ends_agrees() {
    let mut config = Config::default();
    config.idle_limit = Duration::from_secs(1);
    let (mut tally, mut ended) = (Tally::default(), [0; 3]);
    for delays in DELAYS {
        for closes in [A, B] {
            for at in (950..1100).step_by(3) {
                for callers in [[A, B], [B, A], [A, A], [B, B]] {
                    let start = Start { delays, first: A, gap: 0, lag: 0, resets_travel: at % 2 == 0 };
                    let mut agents = start.begin(&config);
                    agents.run(500);
                    agents.close(closes);
                    agents.run(15);
                    agents.close(1 - closes);
                    agents.run(at);
                    ended[[A, B].into_iter().filter(|host| agents.dissociated(*host) > 0).count()] += 1;
                    agents.seek(callers[0], 1 - callers[0]);
                    agents.run(5);
                    // Whoever does not call has an agent all the same.
                    (0..2).for_each(|host| agents.open(host));
                    agents.seek(callers[1], 1 - callers[1]);
                    agents.run(SETTLES);
                    tally.note(&agents, A, B, &|| {
                        format!("{closes} first, {callers:?} at {at} ms, {start:?}")
                    });
                }
            }
        }
    }
    tally.assert_none();
    assert!(ended[0] > 100 && ended[2] > 100, "not around the end: of so many sides it had ended {ended:?}");
}

/// A network that is as good or bad as chance has it.
fn any_network(rng: &mut Rng) -> Attachment {
    let mut network = net(1_000_000, 0);
    network.delay =
        Duration::from_micros(if rng.chance(50) { rng.range(20, 2000) } else { rng.range(2000, 40_000) });
    network.jitter = Duration::from_micros(if rng.chance(50) { rng.range(0, 5000) } else { 0 });
    network.loss = if rng.chance(25) { rng.range(0, 100) } else { 0 };
    network
}

fn swarm(seed: u64, tally: &mut Tally) {
    let mut rng = Rng::new(seed);
    let mut config = Config::default();
    config.idle_limit = Duration::from_millis(rng.range(300, 3000));
    let networks = rng.range(1, 4);
    let hosts: Vec<Vec<_>> =
        (0..rng.range(2, 5)).map(|_| (0..networks).map(|_| any_network(&mut rng)).collect()).collect();
    let mut agents = Agents::new(seed, &config, &hosts);
    agents.lag = [0, 0, 1, 20][rng.range(0, 4) as usize];
    agents.world.resets_travel = rng.chance(50);
    let hosts = hosts.len();
    let pairs: Vec<_> = (0..hosts).flat_map(|one| (0..hosts).map(move |other| (one, other))).collect();
    let pairs: Vec<_> = pairs.into_iter().filter(|(one, other)| one != other).collect();
    for _ in 0..rng.range(0, 8) {
        for (host, peer) in &pairs {
            if rng.chance(70) {
                agents.seek(*host, *peer);
                agents.run(rng.range(0, 30));
            }
        }
        let (host, trouble) = (
            rng.range(0, hosts as u64) as usize,
            Trouble::ALL[rng.range(0, Trouble::ALL.len() as u64) as usize],
        );
        trouble.begin(&mut agents, host, &config);
        let pause = if rng.chance(70) { 100 } else { 5000 };
        agents.run(rng.range(0, pause));
        trouble.end(&mut agents, host, &config);
        agents.run(rng.range(0, pause));
    }
    for attachment in agents.world.nodes.iter_mut().flat_map(|node| &mut node.attachments) {
        attachment.loss = 0;
    }
    for settles in [SETTLES_AFTER_TROUBLE, SETTLES] {
        agents.seek_all();
        agents.run(settles);
    }
    for (one, other) in pairs.into_iter().filter(|(one, other)| one < other) {
        tally.note(&agents, one, other, &|| format!("seed {seed}"));
    }
}

/// `STEADFAST_MEETINGS` sets how many seeds run, `STEADFAST_FIRST_SEED` with which they begin.
#[test]
fn many_that_call_each_other_agree_after_anything() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("STEADFAST_FIRST_SEED").unwrap_or(0);
    let mut tally = Tally::default();
    for seed in first..first + number("STEADFAST_MEETINGS").unwrap_or(300) {
        let before = tally.wrong.len();
        if panic::catch_unwind(AssertUnwindSafe(|| swarm(seed, &mut tally))).is_err() {
            tally.wrong.insert(before, format!("seed {seed} panicked"));
        }
    }
    tally.assert_none();
}
