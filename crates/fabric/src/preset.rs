//! Simulations that are ready to run: networks of three sizes, each with the paper's settings.

use crate::run::{Faults, Settings, Transport};
use crate::topology::Topology;
use crate::workload::Workload;
use std::time::Duration;
use steadfast_homa::packet::PRIORITIES;
use steadfast_homa::{ANY_LENGTH, Config};

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// That of the paper: 144 hosts in 9 racks under 4 spines.
    Paper,
    /// One rack of it: 16 hosts at one switch.
    Rack,
    /// 8 hosts in 2 racks under 2 spines.
    Small,
    /// 5 hosts at one switch of 100 Mbit/s, whose queues have an end.
    Slow,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Paper, Self::Rack, Self::Small, Self::Slow];

    /// As it is asked for.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Rack => "rack",
            Self::Small => "small",
            Self::Slow => "slow",
        }
    }

    /// Links are as fast as in the paper but for the slow one, and spines carry all that hosts can send.
    #[must_use]
    pub const fn topology(self) -> Topology {
        let paper = Topology::paper();
        match self {
            Self::Paper => paper,
            Self::Rack => Topology { racks: 1, spines: 0, ..paper },
            Self::Small => {
                Topology { racks: 2, hosts_per_rack: 4, spines: 2, spine_rate: 2 * paper.host_rate, ..paper }
            }
            Self::Slow => Topology::slow(),
        }
    }

    /// So many messages that the shortest tenth of them has a 99th percentile and the network the time to fill: under a minute
    /// for the 144 hosts. With `quick` it is a tenth.
    #[must_use]
    pub fn messages(self, workload: Workload, quick: bool) -> u32 {
        // Packets for each host. The longer messages are, the longer it takes until their number is what it will be.
        let packets = match workload {
            Workload::W1 | Workload::W2 => 14_000.0,
            Workload::W3 => 60_000.0,
            Workload::W4 => 120_000.0,
            Workload::W5 => 200_000.0,
        };
        // Fewer hosts can be simulated for longer.
        let longer = if matches!(self, Self::Paper) { 1.0 } else { 4.0 };
        self.count(workload, packets * longer * if quick { 0.1 } else { 1.0 })
    }

    /// How many messages are so many full packets for each host.
    pub(crate) fn count(self, workload: Workload, packets: f64) -> u32 {
        let topology = self.topology();
        let each = (workload.mean() / f64::from(topology.segment)).max(1.0);
        (packets * topology.hosts() as f64 / each) as u32
    }
}

impl Settings {
    /// The paper's simulations (SIGCOMM'18) in a network of that size, at a load where headers and grants count, too: 0.8 is
    /// 80 % of the links.
    #[must_use]
    pub fn new(preset: Preset, workload: Workload, load: f64, messages: u32) -> Self {
        Self {
            topology: preset.topology(),
            workload,
            load: load * payload(workload),
            messages,
            warm_up: 0.1,
            transport: Transport::Homa(Box::new(paper_config(workload))),
            faults: Faults::default(),
            seed: 1,
        }
    }

    /// The same as the paper has it, on 144 hosts.
    #[must_use]
    pub fn paper(workload: Workload, load: f64, messages: u32) -> Self {
        Self::new(Preset::Paper, workload, load, messages)
    }

    /// The same under the settings that ship, on slow links with what is to be said of them; only W5 has longer messages than they
    /// allow.
    #[must_use]
    pub fn shipped(self) -> Self {
        let mut config = Config::default();
        if self.topology.host_rate <= SLOW {
            config.unscheduled = 10_000;
            config.max_incoming = 80_000;
            config.grant_fifo_increment = 10_000;
            config.timeout = Duration::from_millis(500);
        }
        config.max_message = config.max_message.max(1 << 25);
        // Messages come whether or not there is room, and applications here do not wait for it.
        config.max_kept = u64::MAX / 2;
        config.max_held = u64::MAX / 2;
        config.max_peer_kept = u64::MAX / 2;
        config.max_peer_held = u64::MAX / 2;
        Self { transport: Transport::Exchange(Box::new(config)), ..self }
    }
}

/// Bits a second up to which a link holds a fraction of what the settings that ship take it for.
const SLOW: u64 = 1_000_000_000;

/// What of a load is payload and not headers and grants, as the paper's simulator has it.
const fn payload(workload: Workload) -> f64 {
    match workload {
        Workload::W1 => 0.657,
        Workload::W2 => 0.796,
        Workload::W3 => 0.887,
        Workload::W4 | Workload::W5 => 0.898,
    }
}

/// The paper's settings: as many levels for granted bytes as messages are granted at a time, the others for
/// unscheduled bytes in equal shares.
#[must_use]
pub fn paper_config(workload: Workload) -> Config {
    const UNSCHEDULED: u32 = 9328;
    let scheduled = match workload {
        Workload::W1 => 1,
        Workload::W2 => 3,
        Workload::W3 => 4,
        Workload::W4 | Workload::W5 => 7,
    };
    let mut config = Config::default();
    config.unscheduled = UNSCHEDULED;
    config.window = 10_000;
    config.max_incoming = u32::MAX / 2;
    config.overcommit = scheduled;
    config.grant_fifo_share = 0;
    config.pacer_fifo_share = 0;
    config.adapt_cutoffs = false;
    let mut cutoffs = [0; PRIORITIES];
    let shares = workload.equal_shares(UNSCHEDULED, PRIORITIES - scheduled);
    for (level, cutoff) in (scheduled..PRIORITIES).rev().zip(shares.into_iter().chain([ANY_LENGTH])) {
        cutoffs[level] = cutoff;
    }
    config.cutoffs = cutoffs;
    // Nothing is lost, and a long message may wait for long.
    config.resend_after = Duration::from_secs(100);
    config.resend_interval = Duration::from_secs(100);
    config.timeout = Duration::from_secs(1000);
    config.max_message = 1 << 26;
    config.max_held = u64::MAX / 2;
    config.max_kept = u64::MAX / 2;
    config.max_peer_held = u64::MAX / 2;
    config.max_peer_kept = u64::MAX / 2;
    config.max_client_rpcs = usize::MAX;
    config.max_peer_calls = usize::MAX;
    config.max_server_rpcs = usize::MAX;
    config.max_peer_rpcs = usize::MAX;
    config
}
