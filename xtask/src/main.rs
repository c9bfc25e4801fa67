//! The chores of this repository: `cargo xtask test`, `soak`, `replay`, `bench`, `tidy`, `ci` and `install`.
//!
//! | file | one chore or idea |
//! |---|---|
//! | `test.rs`, `tally.rs` | every test, and what its output amounts to |
//! | `setup.rs` | the programs that tests call, installed where that is possible |
//! | `criu.rs` | CRIU for the tests, from a newer Debian where this one's does not work |
//! | `soak.rs` | the long counts, and one seed again |
//! | `bench.rs` | the benchmarks, in a workspace of their own |
//! | `tidy.rs` and below | rules about the text of the repository that no compiler checks |
//! | `install.rs` | the program and the C library under a prefix |
//! | `ci.rs` | everything that has to hold before a change is taken |
//! | `process.rs` | starting cargo and other programs |
//!
//! Invariants: what a person runs by hand is what CI runs; a run that skipped something says so; the line with the
//! tests' counts is the last one printed.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a program of chores is for")]

mod bench;
mod ci;
mod criu;
mod install;
mod process;
mod setup;
mod soak;
mod tally;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  test [-- ARGS]   install what the tests call where that is possible, then run every test
                   (ARGS go to `cargo test`, as in: cargo xtask test -- -p steadfast-wire -- frame)
  soak [NAME]      run the long counts, all of them or one
  replay SEED      run the simulator's swarm for this seed alone, with its trace
  bench [NAME]     list the benchmarks, or run one (--quick to see that it works, --json for programs)
  tidy             check the rules that no compiler checks
  install --prefix DIR [--library]
                   build and install the program, the C libraries and their headers (or the libraries alone)
  ci               run what CI runs: fmt, clippy, doc, deny, tidy, test
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one chore; false if it ran and found something wrong, which it has then already said.
fn dispatch(arguments: &[String]) -> Result<bool> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}\nSoaks:\n{}\nBenchmarks:\n{}", soak::list(), bench::list());
            Ok(true)
        }
        ["test"] => test::run(&[]),
        ["test", "--", rest @ ..] => test::run(rest),
        ["test", ..] => {
            bail!("cannot run the tests: what is meant for `cargo test` stands after `--`\n\n{USAGE}")
        }
        ["soak"] => soak::run(None),
        ["soak", name] => soak::run(Some(name)),
        ["replay", seed] => soak::replay(seed),
        ["bench"] => {
            print!(
                "Usage: cargo xtask bench NAME [--quick] [--json] [--only SCENARIO,SYSTEM..]\n\n{}",
                bench::list()
            );
            Ok(true)
        }
        ["bench", name, options @ ..] => bench::run(name, options),
        ["tidy"] => tidy::run(),
        ["install", words @ ..] => install::run(words),
        ["ci"] => ci::run(),
        _ => bail!("cannot make sense of `{}`\n\n{USAGE}", words.join(" ")),
    }
}
