//! Which process this is, for peers on the same host.

use std::os::unix::fs::MetadataExt;
use steadfast_control::process::own_start;
use steadfast_wire::frame::Process;

/// Pid, start time and pid namespace; zero where `/proc` does not tell.
pub(crate) fn this_process() -> Process {
    let namespace = std::fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino());
    let (start, namespace) = (own_start().unwrap_or(0), namespace.unwrap_or(0));
    Process { pid: std::process::id(), start, namespace }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known() {
        let process = this_process();
        assert!(process.pid != 0 && process.start != 0 && process.namespace != 0, "{process:?}");
    }
}
