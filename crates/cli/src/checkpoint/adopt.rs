//! The parent of a program that has moved here: a process of its own, in a session of its own, so that the program goes on when
//! `accept` ends. It says on what was its standard input what came of it, and ends as the program does.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use steadfast_checkpoint::{
    Class, Errno, Error, Owner, Refusal, Restore, Restored, Said, Tcp, Woken, restore,
};

use super::hooks::Hooks;
use super::{Tools, mask, mimic, tell};
use crate::context::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The checkpoint.
    dir: PathBuf,
    /// It stays.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    hooks: Hooks,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let masked = mask()?;
    // It is no leader of a group, unless somebody calls it by hand.
    let _led_already = rustix::process::setsid();
    let told = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).context("cannot tell anybody")?;
    let nothing = File::open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&nothing).context("cannot close the standard input")?;
    let mut told = File::from(told);
    let place = &arguments.dir;
    let owner = Owner::of(place);
    // Connections over TCP are this address's no more, and the other end knows nothing of a new one.
    let how = Restore { place: place.clone(), detach: false, tcp: Tcp::Close, signal: None };
    let restored = match context.config() {
        Ok(config) => Tools::new(&config)
            .and_then(|mut tools| restore(&tools.criu, &how, Some(&masked), &mut tools.publisher)),
        Err(error) => {
            let refusal = Refusal::new(Class::Environment, Errno::EINVAL, error.to_string());
            Err(Error::Elsewhere { host: "this host".to_owned(), refusal })
        }
    };
    match restored {
        Ok(restored) => {
            if !arguments.keep {
                let _gone = fs::remove_dir_all(place);
            }
            say(&mut told, &Said::Runs { pid: restored.pid, faults: restored.faults.clone() });
            drop((told, owner));
            runs(arguments, &restored, masked)
        }
        Err(error) => {
            drop(masked);
            let error = with_log_kept(place, error);
            let _gone = fs::remove_dir_all(place);
            say(&mut told, &Said::Failed(Refusal::from(&error)));
            drop(told);
            let hook = arguments.hooks.failed(place, &error);
            Ok(hook.map_or(ExitCode::FAILURE, ExitCode::from))
        }
    }
}

fn runs(
    arguments: &Arguments,
    restored: &Restored,
    masked: steadfast_checkpoint::Masked,
) -> anyhow::Result<ExitCode> {
    let hook = arguments.hooks.succeeded(&restored.place, restored.pid, &masked);
    loop {
        if let Woken::Ended(ended) = masked.wait(restored.pid, None).context("cannot wait for the program")? {
            drop(masked);
            return Ok(hook.map_or_else(|| mimic::mimic(ended), ExitCode::from));
        }
    }
}

/// Whoever listened may be gone, and the program runs all the same.
fn say(told: &mut File, said: &Said) {
    if let Err(error) = told.write_all(&said.encode()) {
        tell(&format!("nobody hears any more what came of a program that moved here: {error}"));
    }
}

/// The same error, with CRIU's log where it stays.
fn with_log_kept(place: &Path, error: Error) -> Error {
    let Error::Criu { doing, diagnosis, log } = error else { return error };
    let mut kept = place.as_os_str().to_owned();
    kept.push(".failed.log");
    let kept = PathBuf::from(kept);
    let log = if fs::rename(&log, &kept).is_ok() { kept } else { log };
    Error::Criu { doing, diagnosis, log }
}
