//! What `/proc` says of when a process started, by which a process is told from a later one of the same number.

/// Field 22 of `/proc/PID/stat` (proc(5)), counted behind the command's closing bracket, where field 3 follows.
const START_TIME: usize = 22 - 3;

/// When a process of this pid namespace started, in the kernel's ticks since the system did; `None` if there is none,
/// or `/proc` does not tell.
#[must_use]
pub fn start_of(pid: u32) -> Option<u64> {
    read(&pid.to_string())
}

/// The same of this process, whatever its number is where `/proc` was mounted.
#[must_use]
pub fn own_start() -> Option<u64> {
    read("self")
}

fn read(who: &str) -> Option<u64> {
    start_time(&std::fs::read_to_string(format!("/proc/{who}/stat")).ok()?)
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
        assert!(own_start().is_some_and(|start| start > 0));
        assert_eq!(start_of(std::process::id()), own_start());
        assert_eq!(start_of(u32::MAX), None);
    }
}
