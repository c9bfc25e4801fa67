//! What `/proc` says of a process.

use std::sync::LazyLock;

use steadfast_backplane::Timestamp;

const NANOS: u64 = 1_000_000_000;

/// When the system started, in seconds of the wall clock.
static BOOT: LazyLock<u64> = LazyLock::new(|| {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "));
    boot.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or_default()
});

/// When a process started; zero if it is gone or not to be seen.
pub(crate) fn start_of(pid: u32) -> Timestamp {
    let Some(ticks) = steadfast_control::process::start_of(pid) else { return Timestamp(0) };
    let second = rustix::param::clock_ticks_per_second().max(1);
    Timestamp(*BOOT * NANOS + ticks * (NANOS / second))
}

/// Lets this process have as many descriptors as it may: each client takes one, and the usual 1,024 are fewer than clients.
pub fn allow_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the daemon goes on with the descriptors that it has");
    }
}

/// What a process calls itself; empty if it is gone.
pub(crate) fn name_of(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    #[test]
    fn this_process_started_lately() {
        let start = Duration::from_nanos(start_of(std::process::id()).0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(
            start <= now + Duration::from_secs(2) && now < start + Duration::from_secs(3600),
            "{start:?}"
        );
        assert!(!name_of(std::process::id()).is_empty());
        assert_eq!(start_of(u32::MAX), Timestamp(0));
    }
}
