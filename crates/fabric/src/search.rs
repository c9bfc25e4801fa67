//! The largest load at which what waits is bounded.
//!
//! A load counts as sustained if hosts with a backlog receive at least as much as is offered ([`Report::is_sustained`]): then
//! backlogs become smaller wherever there are any. In the paper's words: what is wasted stays below what is left over. Whether
//! grants are withheld or senders busy with others counts the same.

use crate::preset::Preset;
use crate::report::Report;
use crate::run::{Settings, carry};
use crate::workload::Workload;

/// Hundredths of the links between which is looked: five are tried.
const LEAST: u32 = 68;
const MOST: u32 = 100;

/// One load that was tried.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Hundredths of the links.
    pub percent: u32,
    /// What came of it; messages that were not complete at the end are missing among its samples.
    pub report: Report,
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The largest sustained load in hundredths of the links, 69 to 99; none if there is none among them.
    pub percent: Option<u32>,
    /// All loads that were tried, lowest first.
    pub probes: Vec<Probe>,
}

impl Settings {
    /// A load of a search. Backlogs of long messages need seconds until they are as deep as they become, so there are many
    /// more messages than slowdowns want, and not half of them count.
    #[must_use]
    pub fn for_search(preset: Preset, workload: Workload, load: f64, quick: bool) -> Self {
        // Packets for each host.
        let packets: f64 = match workload {
            Workload::W1 | Workload::W2 => 60_000.0,
            Workload::W3 => 400_000.0,
            Workload::W4 => 1_400_000.0,
            Workload::W5 => 10_000_000.0,
        };
        let messages = preset.count(workload, if quick { packets.min(3_000_000.0) / 10.0 } else { packets });
        Self { warm_up: 0.4, ..Self::new(preset, workload, load, messages) }
    }
}

/// Looks for the largest sustained load by bisection; `settings` says what to simulate at a load, 0 to 1.
///
/// Fails if the settings leave no room for the hosts.
pub fn largest_load(settings: impl Fn(f64) -> Settings) -> Result<Found, String> {
    let (mut low, mut high) = (LEAST, MOST);
    let mut probes = Vec::new();
    while high - low > 1 {
        let percent = u32::midpoint(low, high);
        let report = carry(&settings(f64::from(percent) / 100.0))?;
        *(if report.is_sustained() { &mut low } else { &mut high }) = percent;
        probes.push(Probe { percent, report });
    }
    probes.sort_unstable_by_key(|probe| probe.percent);
    Ok(Found { percent: (low > LEAST).then_some(low), probes })
}
