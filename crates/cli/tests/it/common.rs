//! Running the program.

use std::process::Command;

/// The program under test.
pub(crate) fn steadfast() -> Command {
    Command::new(env!("CARGO_BIN_EXE_steadfast"))
}

/// Says why a test shows nothing here; where `CI` is set, that is a failure.
#[expect(clippy::print_stderr, reason = "a test that was skipped must say so in the output of the run")]
pub(crate) fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "nothing may be skipped where CI is set: {test}: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
}
