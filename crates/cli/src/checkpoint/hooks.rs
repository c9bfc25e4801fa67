//! Commands that a user has run when a restore succeeded or failed.

use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use clap::Args;
use steadfast_checkpoint::{Class, Error, Masked};

use super::tell;

#[derive(Debug, Args)]
#[command(
    next_help_heading = "Hooks: commands for `sh -c`; one that fails gives its exit code to this command"
)]
pub(super) struct Hooks {
    /// It runs again. The hook ends before anything else is done here, while the restored program runs.
    #[arg(long = "on-success", value_name = "COMMAND")]
    success: Option<String>,
    /// It was not restored, for a reason that has no hook of its own.
    #[arg(long = "on-failure", value_name = "COMMAND")]
    failure: Option<String>,
    /// It may work later: a process number is in use, memory is short.
    #[arg(long = "on-temporary", value_name = "COMMAND")]
    temporary: Option<String>,
    /// Something around is missing: rights, files, CRIU.
    #[arg(long = "on-environment", value_name = "COMMAND")]
    environment: Option<String>,
    /// It will never work: the checkpoint is damaged, or cannot be restored at all.
    #[arg(long = "on-permanent", value_name = "COMMAND")]
    permanent: Option<String>,
    /// There is no such checkpoint.
    #[arg(long = "on-usage", value_name = "COMMAND")]
    usage: Option<String>,
}

impl Hooks {
    /// The same as words, for another process of this program.
    pub(super) fn words(&self) -> Vec<String> {
        let all = [
            ("success", &self.success),
            ("failure", &self.failure),
            ("temporary", &self.temporary),
            ("environment", &self.environment),
            ("permanent", &self.permanent),
            ("usage", &self.usage),
        ];
        all.into_iter().filter_map(|(name, hook)| Some(format!("--on-{name}={}", hook.as_ref()?))).collect()
    }

    /// The hook's exit code, if that is not 0.
    pub(super) fn succeeded(&self, place: &Path, pid: u32, masked: &Masked) -> Option<u8> {
        let command = self.success.as_deref()?;
        let variables =
            [("STEADFAST_PID", pid.to_string()), ("STEADFAST_CHECKPOINT", place.display().to_string())];
        // Signals wait for its end: they are for the program.
        run(command, &variables, |shell| masked.run(shell))
    }

    /// The same for a failure of this class.
    pub(super) fn failed(&self, place: &Path, error: &Error) -> Option<u8> {
        let own = match error.class() {
            Class::Temporary => &self.temporary,
            Class::Environment => &self.environment,
            Class::Permanent => &self.permanent,
            Class::Usage => &self.usage,
            Class::Unknown => &None,
        };
        let command = own.as_deref().or(self.failure.as_deref())?;
        let log = error.log().map(|log| log.display().to_string()).unwrap_or_default();
        run(
            command,
            &[
                ("STEADFAST_ERROR", error.to_string()),
                ("STEADFAST_ERRNO", error.errno().to_string()),
                ("STEADFAST_CRIU_LOG", log),
                ("STEADFAST_CHECKPOINT", place.display().to_string()),
            ],
            Command::status,
        )
    }
}

fn run(
    command: &str,
    variables: &[(&str, String)],
    start: impl FnOnce(&mut Command) -> io::Result<ExitStatus>,
) -> Option<u8> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null());
    shell.envs(variables.iter().map(|(name, value)| (name, value.replace('\0', " "))));
    match start(&mut shell) {
        Ok(status) if status.success() => None,
        // A signal is told as shells do it.
        Ok(status) => Some(status.code().map_or(128, |code| code as u8)),
        Err(error) => {
            tell(&format!("cannot start the hook `{command}`: {error}"));
            Some(1)
        }
    }
}
