//! Which process this is, for peers on the same host.

use std::os::unix::fs::MetadataExt;
use steadfast_wire::frame::Process;

/// Field 22 of `/proc/PID/stat` (proc(5)), counted behind the command's closing bracket, where field 3 follows.
const START_TIME: usize = 22 - 3;

/// Pid, start time and pid namespace; zero where `/proc` does not tell.
pub(crate) fn this_process() -> Process {
    let start = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| start_time(&stat));
    let namespace = std::fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino());
    Process { pid: std::process::id(), start: start.unwrap_or(0), namespace: namespace.unwrap_or(0) }
}

/// When a process of this pid namespace started; `None` if there is none, or `/proc` does not tell.
pub(crate) fn start_of(pid: u32) -> Option<u64> {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| start_time(&stat))
}

/// A command may hold brackets and blanks; what follows the last bracket is numbers.
fn start_time(stat: &str) -> Option<u64> {
    let (_, numbers) = stat.rsplit_once(')')?;
    numbers.split_whitespace().nth(START_TIME)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_does_not_confuse() {
        let stat = "7 (a) (b c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
        assert_eq!(start_time(stat), Some(4242));
        assert_eq!(start_time("nonsense"), None);
    }

    #[test]
    fn this_process_is_known() {
        let process = this_process();
        assert_ne!((process.pid, process.start, process.namespace), (0, 0, 0));
    }
}
