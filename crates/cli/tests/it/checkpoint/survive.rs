//! What a process has when it is saved it has when it goes on, and when it is restored.

use super::conversations::{half, set_back};
use super::{Bench, ExitStatusExt, GUARD, fs, program, state, until};
use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use rustix::process::Signal;

/// Saved while it runs, it goes on undisturbed; and the image holds all of it, too.
fn survives(case: &str) {
    let Some(bench) = Bench::new(case) else { return };
    let target = bench.target(case);
    bench.run(&["save", "--dir", "saved", &target.id()]).ended(0);
    assert_eq!(target.go_on().code(), Some(0), "{:?}", fs::read_to_string(bench.path("result")));
    bench.good();
    assert_eq!(bench.restore(&[]).code(), Some(0), "{:?}", fs::read_to_string(bench.path("result")));
    bench.good();
}

macro_rules! survive {
    ($($name:ident: $case:literal),* $(,)?) => {
        $(#[test]
        fn $name() {
            survives($case);
        })*
    };
}

survive! {
    a_plain_process: "plain",
    its_directory: "cwd",
    duplicates_of_descriptors: "dup",
    descriptors_and_their_flags: "fds",
    a_pipe_with_bytes_in_it: "pipe",
    a_named_fifo: "fifo",
    a_file_that_was_removed: "removed",
    maps_of_memory: "mmaps",
    files_that_grow: "growing",
    a_directory_half_read: "readdir",
    devices: "dev_null",
    signals_that_wait: "sigpending",
    the_stack_of_signals: "sigaltstack",
    children_and_one_that_ended: "child",
    an_orphan: "orphan",
    numbers_session_and_name: "identity",
    threads: "threads",
    timers: "timers",
    locks_of_files: "locks",
    large_memory: "large",
}

/// A connection cannot be twice: the process ends with the checkpoint.
#[test]
fn connections_over_tcp() {
    let Some(bench) = Bench::new("tcp") else { return };
    let target = bench.target("tcp");
    bench.save_and_kill(target);
    assert_eq!(bench.restore(&[]).code(), Some(0), "{:?}", fs::read_to_string(bench.path("result")));
    bench.good();
}

/// A socket that leads to somebody who is not saved with it.
#[test]
fn what_it_tells_a_log_arrives() {
    let Some(bench) = Bench::new("logger") else { return };
    let log = UnixDatagram::bind(bench.path("log-socket")).unwrap();
    log.set_read_timeout(Some(GUARD)).unwrap();
    let hears = |expected: &str| {
        let mut bytes = [0; 64];
        let length = log.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], expected.as_bytes());
    };
    let target = bench.target("logger");
    hears("before");
    bench.run(&["save", "--dir", "saved", &target.id()]).ended(0);
    assert_eq!(target.go_on().code(), Some(0));
    bench.good();
    hears("after");
    assert_eq!(bench.restore(&[]).code(), Some(0));
    bench.good();
    hears("after");
}

/// As much of it as was said.
#[test]
fn a_large_file_that_was_removed() {
    survives("removed_large");
    let Some(bench) = Bench::new("removed_large") else { return };
    let target = bench.target("removed_large");
    let little = ["save", "--ghost-limit", "2000000", "--dir", "saved", &target.id()];
    bench.run(&little).failed(1, &["ghost", "--ghost-limit"]);
    assert_eq!(target.go_on().code(), Some(0));
    bench.good();
}

/// CRIU gives it a name for as long as nobody runs.
#[test]
fn a_file_that_has_another_name() {
    let Some(bench) = Bench::new("renamed") else { return };
    let target = bench.target("renamed");
    bench.run(&["save", "--dir", "saved", &target.id()]).failed(1, &["link remap", "--kill"]);
    bench.save_and_kill(target);
    assert_eq!(bench.restore(&[]).code(), Some(0), "{:?}", fs::read_to_string(bench.path("result")));
    bench.good();
}

/// Where the process goes on beside its image, or where this is wanted, the restored one finds them closed.
#[test]
fn connections_that_are_closed() {
    let Some(bench) = Bench::new("closed") else { return };
    let mut target = bench.target("closed");
    bench.run(&["save", "--dir", "saved", &target.id()]).ended(0);
    target.signal(Signal::KILL);
    target.child.wait().unwrap();
    assert_eq!(
        bench.restore(&["--tcp", "close"]).code(),
        Some(0),
        "{:?}",
        fs::read_to_string(bench.path("result"))
    );
    bench.good();

    let mut target = bench.target("closed");
    let save = ["save", "--kill", "--tcp", "close", "--clobber", "--dir", "saved", &target.id()];
    bench.run(&save).ended(0);
    target.child.wait().unwrap();
    assert_eq!(
        bench.restore(&["--tcp", "close"]).code(),
        Some(0),
        "{:?}",
        fs::read_to_string(bench.path("result"))
    );
    bench.good();
}

#[test]
fn the_exit_code_is_mimicked() {
    let Some(bench) = Bench::new("code") else { return };
    let target = bench.target("code");
    bench.save_and_kill(target);
    assert_eq!(bench.restore(&[]).code(), Some(37));
    bench.good();
}

#[test]
fn the_signal_is_mimicked() {
    let Some(bench) = Bench::new("killed") else { return };
    let target = bench.target("killed");
    bench.save_and_kill(target);
    assert_eq!(bench.restore(&[]).signal(), Some(Signal::TERM.as_raw()));
    bench.good();
    // `run` does the same, for signals of several kinds.
    for (number, name) in [(15, "TERM"), (13, "PIPE"), (11, "SEGV"), (6, "ABRT"), (9, "KILL")] {
        let shell = format!("kill -{name} $$");
        let status = bench.command(&["run", "sh", "-c", &shell]).status().unwrap();
        assert_eq!(status.signal(), Some(number), "{status:?}");
    }
    assert_eq!(bench.run(&["run", "--", "sh", "-c", "exit 5"]).code, Some(5));
}

#[test]
fn signals_are_passed_on() {
    let Some(bench) = Bench::new("forward") else { return };
    let target = bench.target("forward");
    bench.save_and_kill(target);
    for (signal, code) in [(Signal::USR2, 21), (Signal::TERM, 22)] {
        let hook = format!("kill -USR1 $STEADFAST_PID; echo >{}", bench.text("restored"));
        let restorer = bench.start(&["restore", "saved", "--on-success", &hook], |_| {});
        until("a hook that ran", || bench.path("restored").exists().then_some(()));
        until("a target that went on", || bench.path("result").exists().then_some(()));
        rustix::process::kill_process(restorer.id(), signal).unwrap();
        assert_eq!(restorer.wait().code(), Some(code));
        fs::remove_file(bench.path("restored")).unwrap();
        bench.good();
    }
    // A program that is run gets them, too, and none is held back from it.
    let _before = fs::remove_file(bench.path("ready"));
    let run = bench.start(&["run"], |run| {
        run.arg(program()).arg("forward").arg(bench.home.path());
    });
    bench.ready();
    let runner = run.id();
    // Not before it holds them back: that is a moment after the program has begun.
    until("signals that are held back", || {
        let status = fs::read_to_string(format!("/proc/{runner}/status")).ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?.trim().to_owned();
        let wanted = 1 << (Signal::USR1.as_raw() - 1) | 1 << (Signal::USR2.as_raw() - 1);
        (u64::from_str_radix(&mask, 16).ok()? & wanted == wanted).then_some(())
    });
    rustix::process::kill_process(runner, Signal::USR1).unwrap();
    rustix::process::kill_process(runner, Signal::USR2).unwrap();
    assert_eq!(run.wait().code(), Some(21));
    let free = bench.run(&["run", "grep", "SigBlk", "/proc/self/status"]).ended(0);
    assert!(free.out.trim().ends_with("0000000000000000"), "{free:?}");
}

#[test]
fn a_stopped_process_stays_stopped() {
    let Some(bench) = Bench::new("stopped") else { return };
    let mut target = bench.target("plain");
    target.signal(Signal::STOP);
    until("a stopped target", || (state(target.pid) == Some('T')).then_some(()));
    let id = target.id();
    bench.run(&["save", "--dir", "saved", &id]).ended(0);
    assert_eq!(state(target.pid), Some('T'));
    target.signal(Signal::KILL);
    target.child.wait().unwrap();
    let seen = bench.run(&["inspect", "--json", "saved"]).ended(0).object();
    assert_eq!(seen["manifest"]["processes"][0]["state"], "stopped");

    // Restored it is stopped, until somebody says otherwise.
    let hook = format!("echo >{}", bench.text("restored"));
    let restorer = bench.start(&["restore", "saved", "--on-success", &hook], |_| {});
    until("a hook that ran", || bench.path("restored").exists().then_some(()));
    until("a stopped target", || (state(target.pid) == Some('T')).then_some(()));
    target.signal(Signal::USR1);
    target.signal(Signal::CONT);
    assert_eq!(restorer.wait().code(), Some(0));
    bench.good();

    assert_eq!(bench.restore(&["--signal", "CONT"]).code(), Some(0));
    bench.good();
}

#[test]
fn stop_and_signals_come_with_the_checkpoint() {
    let Some(bench) = Bench::new("stop") else { return };
    let target = bench.target("plain");
    let id = target.id();
    bench.run(&["save", "--stop", "--dir", "saved", &id]).ended(0);
    until("a stopped target", || (state(target.pid) == Some('T')).then_some(()));
    target.signal(Signal::CONT);
    assert_eq!(target.go_on().code(), Some(0));
    bench.good();
    // What was saved was not stopped.
    assert_eq!(bench.restore(&[]).code(), Some(0));
    bench.good();

    let mut target = bench.target("plain");
    bench.run(&["save", "--signal", "hup", "--clobber", "--dir", "saved", &target.id()]).ended(0);
    assert_eq!(target.child.wait().unwrap().signal(), Some(Signal::HUP.as_raw()));
    assert_eq!(bench.restore(&[]).code(), Some(0));
    bench.good();
}

/// Standard input and output that were pipes are those of whoever restores.
#[test]
fn outward_pipes_are_connected_again() {
    let Some(bench) = Bench::new("filter") else { return };
    let mut target = bench.target_with("filter", |command| {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
    });
    let ends = (target.child.stdin.take(), target.child.stdout.take());
    bench.save_and_kill(target);
    drop(ends);
    let go_on = ["restore", "saved", "--on-success", "kill -USR1 $STEADFAST_PID"];
    let mut restorer = bench.start(&go_on, |restore| {
        restore.stdin(Stdio::piped()).stdout(Stdio::piped());
    });
    let mut input = restorer.0.stdin.take().unwrap();
    input.write_all(b"hello\nagain\n").unwrap();
    drop(input);
    let mut out = String::new();
    restorer.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!((restorer.wait().code(), out.as_str()), (Some(0), "hello\nagain\n"));
    bench.good();
}

/// Clocks of their own: the restored process continues its time, and the command's own clocks are the machine's.
#[test]
fn run_gives_a_time_namespace() {
    let Some(bench) = Bench::new("clocks") else { return };
    let _before = fs::remove_file(bench.path("ready"));
    let out = fs::File::create(bench.path("out")).unwrap();
    let run = bench.start(&["run"], |run| {
        run.arg(program()).arg("clocks").arg(bench.home.path()).stdout(out.try_clone().unwrap()).stderr(out);
    });
    let pid = bench.ready();
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/time")).unwrap();
    assert_ne!(of(&pid.to_string()), of("self"));
    assert_eq!(of(&run.id().to_string()), of("self"));
    let saved = bench.run(&["save", "--kill", "--dir", "saved", &pid.to_string()]).ended(0);
    assert!(saved.out.contains(&format!("process {pid} (target")), "{saved:?}");
    assert_eq!(run.wait().signal(), Some(9));
    let seen = bench.run(&["inspect", "--json", "saved"]).ended(0).object();
    assert_eq!((&seen["manifest"]["own_time"], &seen["manifest"]["ended"]), (&true.into(), &true.into()));
    assert_eq!(bench.restore(&[]).code(), Some(0), "{GUARD:?}");
    bench.good();
}

/// A machine whose clock is behind, as after a reboot, does not set that of the process back; nor need this be started in any way.
#[test]
fn the_clock_goes_on_where_that_of_the_machine_is_behind() {
    let Some(bench) = Bench::new("clock_behind") else { return };
    let target = bench.target("clocks");
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/time")).unwrap();
    assert_eq!(of(&target.id()), of("self"));
    bench.save_and_kill(target);
    let seen = bench.run(&["inspect", "saved"]).ended(0).out;
    assert!(seen.contains("go on where they were if root restores it"), "{seen}");
    for again in 0..2 {
        let restore = bench.command(&["restore", "saved", "--on-success", "kill -USR1 $STEADFAST_PID"]);
        let status = set_back(&restore, half()).status().unwrap();
        assert_eq!(status.code(), Some(0), "{again}: {:?}", fs::read_to_string(bench.path("result")));
        bench.good();
    }
}
