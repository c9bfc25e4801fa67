//! Everything that has to hold before a change is taken.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::bench;
use crate::process::{self, answer, cargo, succeeds};
use crate::test;
use crate::tidy;

/// `deny.toml` is written for this version; its settings change between them.
const CARGO_DENY: &str = "0.20.2";

/// A name and what runs under it; false if it found something wrong.
type Step = (&'static str, fn() -> Result<bool>);

const STEPS: [Step; 6] = [
    ("lock file", lock),
    ("fmt", fmt),
    ("clippy", clippy),
    ("doc", doc),
    ("deny", deny),
    ("tidy", tidy::run),
];

/// `cargo xtask ci`: runs every step even if one fails, so that one run tells all.
pub(crate) fn run() -> Result<bool> {
    let mut results = Vec::new();
    for (name, step) in STEPS {
        results.push(timed(name, || match step() {
            Ok(success) => success,
            Err(error) => {
                println!("{error:#}");
                false
            }
        }));
    }
    let mut verdict = None;
    results.push(timed("test", || match test::all(&[]) {
        Ok(tests) => verdict.insert(tests).success,
        Err(error) => {
            println!("{error:#}");
            false
        }
    }));
    println!("\n== CI");
    for (name, success, took) in &results {
        println!("{name:<10} {:>7.1} s  {}", took.as_secs_f64(), if *success { "ok" } else { "FAILED" });
    }
    let Some(verdict) = verdict else { bail!("the tests could not be started; the reason stands above") };
    println!("{}", verdict.summary);
    Ok(results.iter().all(|(_, success, _)| *success))
}

fn timed(name: &'static str, step: impl FnOnce() -> bool) -> (&'static str, bool, Duration) {
    println!("\n== {name}");
    let started = Instant::now();
    let success = step();
    let took = started.elapsed();
    println!("== {name}: {} in {:.1} s", if success { "ok" } else { "FAILED" }, took.as_secs_f64());
    (name, success, took)
}

/// Fails if a `Cargo.lock` no longer fits its manifests, and fetches what all later steps use, for all systems.
fn lock() -> Result<bool> {
    let main = succeeds(&mut cargo(&["fetch", "--locked"]))?;
    Ok(succeeds(&mut cargo(&["fetch", "--locked", "--manifest-path", bench::MANIFEST]))? && main)
}

fn fmt() -> Result<bool> {
    let main = succeeds(&mut cargo(&["fmt", "--all", "--check"]))?;
    Ok(succeeds(&mut cargo(&["fmt", "--check", "--manifest-path", bench::MANIFEST]))? && main)
}

fn clippy() -> Result<bool> {
    let lint = |what: &[&str]| {
        let mut command = cargo(&["clippy", "--all-targets"]);
        succeeds(command.args(what).args(["--", "--deny", "warnings"]))
    };
    let main = lint(&["--workspace"])?;
    Ok(lint(&["--manifest-path", bench::MANIFEST])? && main)
}

fn doc() -> Result<bool> {
    succeeds(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

fn deny() -> Result<bool> {
    let program = cargo_deny()?;
    let mut command = Command::new(program);
    // Advisories are left out: what is published about a dependency overnight is no fault of the change at hand.
    command.args(["--offline", "--locked", "check", "bans", "licenses", "sources"]);
    succeeds(command.current_dir(process::root()))
}

/// A cargo-deny of the right version, installed below `target/` if there is none.
fn cargo_deny() -> Result<PathBuf> {
    let tools = process::root().join("target/tools");
    let own = tools.join("bin/cargo-deny");
    let wanted = format!("cargo-deny {CARGO_DENY}");
    let fits = |program: &PathBuf| {
        answer(Command::new(program).arg("--version")).is_some_and(|version| version.trim() == wanted)
    };
    if let Some(program) = process::find("cargo-deny").into_iter().chain([own.clone()]).find(fits) {
        return Ok(program);
    }
    println!("There is no cargo-deny {CARGO_DENY}; building it once, below {}", tools.display());
    let mut install = cargo(&["install", "cargo-deny", "--locked", "--version", CARGO_DENY, "--root"]);
    if !succeeds(install.arg(&tools))? {
        bail!("cannot install cargo-deny {CARGO_DENY}; the reason stands above. Is there a network?");
    }
    Ok(own)
}
