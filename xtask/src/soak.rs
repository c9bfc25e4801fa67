//! The long counts that do not fit the ten minutes of `cargo xtask test`, and one seed again.

use std::env;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::tally::Tally;
use crate::test;

/// Most say nothing until their end.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// One test that takes its counts from environment variables.
struct Soak {
    name: &'static str,
    what: &'static str,
    package: &'static str,
    /// What the names of the tests to run contain.
    filter: &'static str,
    profile: &'static str,
    counts: &'static [(&'static str, &'static str)],
}

const SOAKS: [Soak; 8] = [
    Soak {
        name: "swarm",
        what: "10,000 seeds of faults in the simulator against the reference model",
        package: "steadfast-sim",
        filter: "swarm",
        profile: "soak",
        counts: &[("STEADFAST_SEEDS", "10000")],
    },
    Soak {
        name: "meeting",
        what: "50,000 seeds of processes that call each other while they come, go and are cut off",
        package: "steadfast-sim",
        filter: "meeting",
        profile: "soak",
        counts: &[("STEADFAST_MEETINGS", "50000")],
    },
    Soak {
        name: "fuzz",
        what: "1,000,000 mutated inputs for each fuzz target",
        package: "steadfast-sim",
        filter: "fuzz",
        profile: "soak",
        counts: &[("STEADFAST_FUZZ_ROUNDS", "1000000")],
    },
    Soak {
        name: "homa",
        what: "5,000 seeds each of four networks that lose and repeat packets, against the model of requests",
        package: "steadfast-homa",
        filter: "swarm",
        profile: "soak",
        counts: &[("STEADFAST_SEEDS", "5000")],
    },
    Soak {
        name: "faults",
        what: "20 rounds of faults with real sockets in the testbed",
        package: "steadfast",
        filter: "faults",
        profile: "dev",
        counts: &[("STEADFAST_ROUNDS", "20")],
    },
    Soak {
        name: "durable",
        what: "500 kills of real processes with a store, at random points: nothing lost, doubled or out of order",
        package: "steadfast",
        filter: "whoever_is_killed",
        profile: "dev",
        counts: &[("STEADFAST_ROUNDS", "500")],
    },
    Soak {
        name: "verdicts",
        what: "10 minutes of full links, a slow reader and busy processors, with real processes: nobody is taken for dead",
        package: "steadfast",
        filter: "load_gives_no_verdict",
        profile: "dev",
        counts: &[("STEADFAST_LOAD_SECONDS", "600")],
    },
    Soak {
        name: "verdicts-sim",
        what: "the same in the simulator, four times an hour of it, with processes that are late by up to a second",
        package: "steadfast-sim",
        filter: "load_gives_no_verdict",
        profile: "soak",
        counts: &[("STEADFAST_LOAD_SECONDS", "3600")],
    },
];

/// One line for each soak.
pub(crate) fn list() -> String {
    SOAKS.iter().fold(String::new(), |mut list, soak| {
        let _infallible = writeln!(list, "  {:<12} {}", soak.name, soak.what);
        list
    })
}

/// `cargo xtask soak [NAME]`.
pub(crate) fn run(name: Option<&str>) -> Result<bool> {
    let chosen: Vec<&Soak> = SOAKS.iter().filter(|soak| name.is_none_or(|name| name == soak.name)).collect();
    if let (Some(name), true) = (name, chosen.is_empty()) {
        bail!("there is no soak `{name}`; these are known:\n{}", list());
    }
    let mut results = String::new();
    let mut success = true;
    for soak in chosen {
        println!("== soak {}: {}", soak.name, soak.what);
        let started = Instant::now();
        let mut command =
            process::cargo_apart(&["test", "--package", soak.package, "--profile", soak.profile]);
        command.args([soak.filter, "--", "--nocapture"]);
        for (variable, count) in soak.counts {
            let count = env::var(variable).unwrap_or_else(|_| (*count).to_owned());
            println!("{variable}={count}");
            command.env(variable, count);
        }
        let verdict = test::verdict(&mut command, Tally::new(false), PATIENCE)?;
        let nothing_ran = if verdict.ran == 0 { " (no test ran)" } else { "" };
        success &= verdict.success && verdict.ran > 0;
        let seconds = started.elapsed().as_secs_f64();
        writeln!(results, "{:<12} {seconds:>8.1} s  {}{nothing_ran}", soak.name, verdict.summary)?;
    }
    print!("\n{results}");
    Ok(success)
}

/// `cargo xtask replay SEED`.
pub(crate) fn replay(seed: &str) -> Result<bool> {
    let seed = parse_seed(seed)?;
    let mut command =
        process::cargo_apart(&["test", "--package", "steadfast-sim", "swarm", "--", "--nocapture"]);
    command.env("STEADFAST_SEED", seed.to_string());
    if env::var_os("STEADFAST_LOG").is_none() {
        command.env("STEADFAST_LOG", "trace");
    }
    let verdict = test::verdict(&mut command, Tally::new(false), PATIENCE)?;
    if verdict.ran == 0 {
        bail!("cannot replay seed {seed}: steadfast-sim ran no test with `swarm` in its name");
    }
    println!("seed {seed}: {}", verdict.summary);
    Ok(verdict.success)
}

/// A seed as the swarm prints it, in decimal or, with `0x`, in hexadecimal.
fn parse_seed(seed: &str) -> Result<u64> {
    let parsed = match seed.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => seed.parse(),
    };
    parsed.with_context(|| {
        format!("cannot replay `{seed}`: give the number that the swarm printed, as in 42 or 0x2a")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_in_both_bases() {
        assert_eq!(parse_seed("42").unwrap(), 42);
        assert_eq!(parse_seed("0x2a").unwrap(), 42);
        assert!(parse_seed("2a").unwrap_err().to_string().contains("`2a`"));
    }

    #[test]
    fn names_of_soaks_are_distinct() {
        for (at, soak) in SOAKS.iter().enumerate() {
            assert!(SOAKS[..at].iter().all(|other| other.name != soak.name), "{}", soak.name);
        }
    }
}
