//! Every test, and the one line that says how it went.

use std::env;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::Result;

use crate::process::{self, Streamed};
use crate::setup;
use crate::tally::Tally;

/// No test and no crate's build is silent for longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What a run came to. The caller prints `summary` last.
pub(crate) struct Verdict {
    pub(crate) success: bool,
    pub(crate) summary: String,
    /// How many tests ran and were not skipped.
    pub(crate) ran: usize,
}

/// `cargo xtask test`.
pub(crate) fn run(arguments: &[&str]) -> Result<bool> {
    let verdict = all(arguments)?;
    println!("{}", verdict.summary);
    Ok(verdict.success)
}

/// Runs all tests, or those that `arguments` choose, and prints everything but the summary.
pub(crate) fn all(arguments: &[&str]) -> Result<Verdict> {
    setup::run();
    // Without a choice of targets this is the libraries, programs, integration tests and doctests; examples are built,
    // benches are left alone.
    let mut command = process::cargo_apart(&["test", "--no-fail-fast"]);
    let (for_cargo, for_tests) = split(arguments);
    if !for_cargo.iter().any(|argument| is_package_choice(argument)) {
        command.arg("--workspace");
    }
    command.args(for_cargo).arg("--");
    let shows_output = for_tests.iter().any(|argument| ["--nocapture", "--show-output"].contains(argument));
    if !shows_output {
        // Otherwise the words of a test that passed, and so the reason of a skip, are thrown away.
        command.arg("--show-output");
    }
    command.args(for_tests);
    verdict(&mut command, Tally::new(!shows_output), PATIENCE)
}

/// Runs a prepared `cargo test` and judges its output. It may be silent for so long.
pub(crate) fn verdict(command: &mut Command, mut tally: Tally, patience: Duration) -> Result<Verdict> {
    let Streamed { status, killed } = process::stream(command, patience, |line| tally.line(line))?;
    tally.end();
    println!();
    for reason in tally.reasons() {
        println!("{reason}");
    }
    let mut verdict = judge(&tally, status, env::var_os("CI").is_some());
    verdict.success &= !killed;
    Ok(verdict)
}

/// `is_ci` turns a skip into a failure.
fn judge(tally: &Tally, status: ExitStatus, is_ci: bool) -> Verdict {
    let (passed, mut failed, skipped) = tally.counts();
    if !status.success() && failed == 0 {
        // A test binary that did not build, or died, leaves no counts.
        failed = 1;
        println!(
            "`cargo test` ended with {status} outside of any test that it counted; the reason stands above"
        );
    }
    let forbidden_skip = is_ci && tally.has_skipped_lines();
    if forbidden_skip {
        println!("Where CI is set nothing may be skipped: give this machine what the lines above ask for");
    }
    Verdict {
        success: status.success() && failed == 0 && !forbidden_skip,
        summary: format!("{passed} passed, {failed} failed, {skipped} skipped"),
        ran: passed + failed,
    }
}

/// Splits at the second `--`: what cargo understands, and what the test binaries do.
fn split<'a>(arguments: &'a [&'a str]) -> (&'a [&'a str], &'a [&'a str]) {
    match arguments.iter().position(|argument| *argument == "--") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (arguments, &[]),
    }
}

/// With `--workspace`, cargo would ignore a choice of packages.
fn is_package_choice(argument: &str) -> bool {
    argument.starts_with("-p") || argument == "--package" || argument.starts_with("--package=")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn judged(output: &str, code: i32, is_ci: bool) -> (bool, String) {
        let mut tally = Tally::new(true);
        for line in output.lines() {
            tally.line(line);
        }
        tally.end();
        let verdict = judge(&tally, ExitStatus::from_raw(code << 8), is_ci);
        (verdict.success, verdict.summary)
    }

    #[test]
    fn a_skip_fails_only_where_ci_is_set() {
        let output = "     Running a (b)\nsuccesses:\n---- x stdout ----\nSKIPPED x: no kernel\n\
                      test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s";
        let summary = "1 passed, 0 failed, 1 skipped".to_owned();
        assert_eq!(judged(output, 0, false), (true, summary.clone()));
        assert_eq!(judged(output, 0, true), (false, summary));
    }

    #[test]
    fn what_did_not_build_has_failed() {
        assert_eq!(judged("error: no", 101, false), (false, "0 passed, 1 failed, 0 skipped".to_owned()));
    }

    #[test]
    fn arguments_are_split_at_the_inner_dashes() {
        let (empty, all): ([&str; 0], _) = ([], ["-p", "wire"]);
        assert_eq!(split(&["-p", "wire", "--", "frame"]), (&all[..], &["frame"][..]));
        assert_eq!(split(&all), (&all[..], &empty[..]));
    }

    #[test]
    fn a_choice_of_packages_is_seen_in_every_spelling() {
        for choice in ["-p", "-psteadfast", "--package", "--package=steadfast"] {
            assert!(is_package_choice(choice), "{choice}");
        }
        assert!(!is_package_choice("--lib"));
    }
}
