//! What this process has used: processor time and memory; and the kernel's clock.

use std::fs;

use anyhow::Context;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// Nanoseconds of the monotonic clock, which all processes of one machine share.
pub(crate) type Nanos = u64;

/// The time now.
pub(crate) fn now() -> Nanos {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has a monotonic clock");
    time.num_nanoseconds().cast_unsigned()
}

/// Seconds of processor time that this process has used, in user space and in the kernel on its behalf.
pub(crate) fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage");
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

/// The same of another process with all its threads (`stat`, proc(5)), to a hundredth of a second.
pub(crate) fn cpu_seconds_of(process: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("a measured process is gone")?;
    // Behind the name, which may have anything in it.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.sum::<Result<f64, _>>().context("/proc/PID/stat is not as proc(5) says")?;
    let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(ticks / second as f64)
}

/// Seconds in which this process, of one thread, could have run and did not get a core (`schedstat`, its second number).
pub(crate) fn waited_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/schedstat").context("cannot read /proc/self/schedstat")?;
    let waited = stat.split_whitespace().nth(1).and_then(|field| field.parse::<f64>().ok());
    Ok(waited.context("/proc/self/schedstat does not say how long this process waited")? / 1e9)
}

/// Resident memory of this process in bytes (`statm`, proc(5)).
pub(crate) fn resident_bytes() -> anyhow::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm").context("cannot read /proc/self/statm")?;
    let pages = statm.split(' ').nth(1).and_then(|field| field.parse::<u64>().ok());
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
    Ok(pages.context("/proc/self/statm is not as proc(5) says")? * page.cast_unsigned())
}

/// The cores that this process may use.
pub(crate) fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).collect()
}

/// Keeps this process, of one thread, on a core.
pub(crate) fn stay_on(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot stay on core {core}"))
}

/// Keeps this thread, and the processes that it starts, on the first core, until it is dropped.
pub(crate) struct Confined(CpuSet);

/// On which they are from now on.
pub(crate) fn confine() -> anyhow::Result<Confined> {
    let before = sched_getaffinity(Pid::from_raw(0))?;
    stay_on(*cores().first().context("this process may use no core")?)?;
    Ok(Confined(before))
}

impl Drop for Confined {
    fn drop(&mut self) {
        // It was allowed before.
        let _restored = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}

/// Puts this process, and those that it starts, before all others of the machine, so that those do not show in what is
/// measured: whether it may.
pub(crate) fn go_first() -> bool {
    rustix::process::setpriority_process(None, -20).is_ok()
}

/// Allows this process as many descriptors as the system lets it have.
pub(crate) fn raise_descriptor_limit() -> anyhow::Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}
