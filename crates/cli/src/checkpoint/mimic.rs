//! Ending as another program did, so that whoever waits for this one learns the same.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use steadfast_checkpoint::Ended;

/// Does not return if a signal ended it. No signal may be held back any more.
pub(super) fn mimic(ended: Ended) -> ExitCode {
    let number = match ended {
        Ended::Code(code) => return ExitCode::from(code as u8),
        Ended::Signal(number) => number,
    };
    if number > Signal::SYS.as_raw() {
        // Real-time signals have no name here, and a shell needs none.
        let _failed = Command::new("/bin/sh").args(["-c", &format!("kill -{number} $$")]).exec();
    } else if let Some(signal) = Signal::from_named_raw(number) {
        // Whatever is to be seen in a core is in the program's own.
        let maximum = getrlimit(Resource::Core).maximum;
        let _unlimited = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
        if signal == Signal::PIPE {
            // This process ignores it, and what it becomes does not.
            let _failed = Command::new("/bin/sh").args(["-c", "kill -PIPE $$"]).exec();
        }
        // The first one of some is the run-time's, which then lets the next one through.
        for _ in 0..2 {
            let _sent = kill_process(getpid(), signal);
        }
    }
    // As shells tell it.
    ExitCode::from(128_u8.saturating_add(number as u8))
}
