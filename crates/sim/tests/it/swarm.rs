//! Faults from a seed. `STEADFAST_SEEDS` sets how many seeds run, `STEADFAST_SEED` runs one with a trace.

use std::panic;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn swarm() {
    if let Some(seed) = number("STEADFAST_SEED") {
        eprintln!("{:?}", steadfast_sim::swarm::run(seed, true));
        return;
    }
    let seeds = number("STEADFAST_SEEDS").unwrap_or(256);
    let first = number("STEADFAST_FIRST_SEED").unwrap_or(0);
    let (mut delivered, mut suspicions, mut rolled_back, mut failed) = (0, 0, 0, Vec::new());
    let (mut crashed, mut hung) = (0, 0);
    for seed in first..first + seeds {
        if let Ok(report) = panic::catch_unwind(|| steadfast_sim::swarm::run(seed, false)) {
            delivered += report.delivered;
            suspicions += report.suspicions;
            rolled_back += report.rolled_back;
            crashed += report.crashed;
            hung += report.hung;
        } else {
            eprintln!("seed {seed} failed; replay it with: cargo xtask replay {seed}");
            failed.push(seed);
        }
    }
    eprintln!(
        "{seeds} seeds: {delivered} messages delivered, {suspicions} suspicions, {rolled_back} rollbacks refused, \
         {crashed} processes crashed, {hung} hung"
    );
    assert!(failed.is_empty(), "failing seeds: {failed:?}");
    assert!(delivered > 0 && suspicions > 0, "the swarm exercised nothing");
    assert!(seeds < 100 || crashed > 0 && hung > 0, "no verdict but that all live");
}
