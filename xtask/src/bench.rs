//! The benchmarks: a workspace of their own, built in release and run.

use std::env;
use std::fmt::Write as _;

use anyhow::{Result, bail};

use crate::{criu, install, process};

/// The manifest of the benchmarks' workspace, from the root of the repository.
pub(crate) const MANIFEST: &str = "bench/Cargo.toml";

/// Those that measure what a user has, of which packages that is, and where they look for it.
const PROGRAMS_FOR: [(&str, &[&str]); 2] =
    [("events", &["steadfast-cli", "libftb"]), ("checkpoint", &["steadfast-cli"])];
const PROGRAMS: &str = "STEADFAST_BENCH_PROGRAMS";
/// Which CRIU is used.
const CRIU: &str = "STEADFAST_CRIU";

/// Each benchmark and what it measures.
const BENCHES: [(&str, &str); 16] = [
    ("foreground", "a request's wait while bulk fills the link: steadfast, noq, aggligator, TCP"),
    ("stripe", "one stream over two networks at once: steadfast, MPTCP, noq, aggligator, TCP"),
    ("mixed", "requests beside large messages over slow uplinks: steadfast, MPTCP, noq, aggligator, TCP"),
    ("failover", "the silence when a network dies: steadfast, MPTCP, noq, aggligator, TCP"),
    ("figure", "docs/latency.svg: a request's wait over time, on a full network that is then cut"),
    ("throughput", "one long stream on the loopback: steadfast, TLS over TCP"),
    ("latency", "a small message and its answer on the loopback: steadfast, TLS over TCP"),
    ("rpc-load", "requests between the hosts of a rack at a load, and beside floods: Homa, TCP"),
    ("rpc", "small calls on the loopback: homa, bare UDP, tonic"),
    ("rpc-stream", "what calls of 500 kB and 1 MB carry on the loopback: homa, TCP, quinn"),
    ("sim-homa", "slowdown and largest load in a simulated data centre: the Homa core, a plain queue"),
    ("verdicts", "how soon it is known that a peer was killed, stopped, cut off, restarted, or left"),
    ("events", "an event and its answer, and floods: steadfast, libftb, a bare Unix socket, NATS, JetStream"),
    ("sessions", "memory and processor time of idle conversations"),
    ("durable", "messages that are kept on a disk: steadfast with a store, without, a bare file"),
    (
        "checkpoint",
        "how long a process stands still that is saved, and its conversations: steadfast, CRIU alone",
    ),
];

/// One line for each benchmark.
pub(crate) fn list() -> String {
    BENCHES.iter().fold(String::new(), |mut list, (name, what)| {
        let _infallible = writeln!(list, "  {name:<10} {what}");
        list
    })
}

/// `cargo xtask bench NAME [--quick] [--json] [--only NAMES]`; the benchmark itself knows its options.
pub(crate) fn run(name: &str, options: &[&str]) -> Result<bool> {
    if !BENCHES.iter().any(|(known, _)| *known == name) {
        bail!("there is no benchmark `{name}`; these are known:\n{}", list());
    }
    let mut command =
        process::cargo(&["run", "--quiet", "--locked", "--release", "--manifest-path", MANIFEST]);
    command.args(["--", name]).args(options);
    if let Some((_, packages)) = PROGRAMS_FOR.iter().find(|(of, _)| *of == name) {
        let mut build = process::cargo(&["build", "--quiet", "--locked", "--release"]);
        build.args(packages.iter().flat_map(|package| ["--package", *package]));
        if !process::succeeds(&mut build)? {
            return Ok(false);
        }
        command.env(PROGRAMS, install::target()?.join("release"));
    }
    if name == "checkpoint"
        && env::var_os(CRIU).is_none()
        && let Some(fetched) = criu::fetched()
    {
        command.env(CRIU, fetched);
    }
    process::succeeds(&mut command)
}
