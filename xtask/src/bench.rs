//! The benchmarks: a workspace of their own, built in release and run.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use crate::{install, process};

/// The manifest of the benchmarks' workspace, from the root of the repository.
pub(crate) const MANIFEST: &str = "bench/Cargo.toml";

/// The one that measures the program and the C library as a user has them, and where it looks for them.
const PROGRAMS_FOR: &str = "events";
const PROGRAMS: &str = "STEADFAST_BENCH_PROGRAMS";

/// Each benchmark and what it measures.
const BENCHES: [(&str, &str); 15] = [
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
    if name == PROGRAMS_FOR {
        let mut build = process::cargo(&["build", "--quiet", "--locked", "--release"]);
        build.args(["--package", "steadfast-cli", "--package", "libftb"]);
        if !process::succeeds(&mut build)? {
            return Ok(false);
        }
        command.env(PROGRAMS, install::target()?.join("release"));
    }
    process::succeeds(&mut command)
}
