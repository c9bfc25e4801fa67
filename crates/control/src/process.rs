//! What `/proc` says of when a process started, by which a process is told from a later one of the same number.

/// Field 22 of `/proc/PID/stat` (proc(5)), counted behind the command's closing bracket, where field 3 follows.
const START_TIME: usize = 22 - 3;

/// When a process of this pid namespace started, in the kernel's ticks since the system did; `None` if there is none,
/// or `/proc` does not tell. Whoever asks in another time namespace may find one tick more or less: see [`is_same_start`].
#[must_use]
pub fn start_of(pid: u32) -> Option<u64> {
    read(&pid.to_string())
}

/// The same of this process, whatever its number is where `/proc` was mounted.
#[must_use]
pub fn own_start() -> Option<u64> {
    read("self")
}

/// Whether two times at which a process of one number started are the same.
#[must_use]
pub const fn is_same_start(one: u64, other: u64) -> bool {
    one.abs_diff(other) <= 1
}

fn read(who: &str) -> Option<u64> {
    let seen = start_time(&std::fs::read_to_string(format!("/proc/{who}/stat")).ok()?)?;
    // The kernel tells it in the time namespace of who asks (time_namespaces(7)).
    let offset = std::fs::read_to_string("/proc/self/timens_offsets").ok().and_then(|text| boot_offset(&text));
    let tick = 1_000_000_000 / i128::from(rustix::param::clock_ticks_per_second().max(1));
    let start = (i128::from(seen) * tick - offset.unwrap_or(0)).div_euclid(tick);
    Some(u64::try_from(start).unwrap_or(0))
}

/// By how much the time since the system started is shifted in this time namespace, in nanoseconds.
fn boot_offset(offsets: &str) -> Option<i128> {
    let fields = |line: &str| {
        let mut fields = line.split_whitespace();
        let clock = fields.next()?;
        let (seconds, nanos): (i128, i128) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        ["boottime", "7"].contains(&clock).then_some(seconds * 1_000_000_000 + nanos)
    };
    offsets.lines().find_map(fields)
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
    fn offsets_of_a_time_namespace() {
        let text = "monotonic          -5   4888572\nboottime           -5   4660529\n";
        assert_eq!(boot_offset(text), Some(-4_995_339_471));
        assert_eq!(boot_offset("7 86400 5"), Some(86_400_000_000_005));
        assert_eq!(boot_offset(""), None);
        assert!(is_same_start(7, 8) && is_same_start(8, 7) && !is_same_start(7, 9));
    }

    #[test]
    fn this_process_is_known() {
        assert!(own_start().is_some_and(|start| start > 0));
        assert_eq!(start_of(std::process::id()), own_start());
        assert_eq!(start_of(u32::MAX), None);
    }
}
