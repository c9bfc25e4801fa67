//! The simulator's tests: scenarios, the swarm, the fuzz targets.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod agents;
mod arbitration;
mod bounds;
mod closing;
mod credit;
mod crowd;
mod crowded;
mod foreground;
mod fuzz;
mod lattice;
mod meeting;
mod offers;
mod pair;
mod recovery;
mod redundancy;
mod restarts;
mod rules;
mod seed_000;
mod suspension;
mod swarm;
mod verdicts;
mod waiting;
