//! What is published of checkpoints, as a C program hears it; and an agent that does not answer.

use super::Bench;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Signal, kill_process};

use crate::common::Run;
use crate::daemon::{daemon, home};
use crate::libftb::compile;

#[test]
fn a_c_program_hears_of_every_request() {
    let Some(mut bench) = Bench::new("events") else { return };
    bench.home = home();
    let (running, pid) = daemon(&bench.home);
    let agent = bench.path("agent.sock");
    let mut program = compile(bench.home.path(), "checkpoints");
    let mut consumer =
        program.env("STEADFAST_AGENT", &agent).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(consumer.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "ready");
    let with = |arguments: &[&str]| {
        let mut command = bench.command(arguments);
        command.env("STEADFAST_AGENT", &agent);
        command
    };
    let mut next = |expected: &str| {
        let line = lines.next().unwrap();
        assert_eq!(line.strip_prefix("FTB.checkpoint_sw.blcr ").unwrap(), expected);
    };

    let mut target = bench.target("plain");
    let id = target.id();
    // Name, severity, type, which one it answers, and the error's number.
    Run::of(&mut with(&["save", "--dir", "saved", &id])).ended(0);
    next("CHKPT_BEGIN INFO 1 0 0");
    next("CHKPT_END INFO 2 1 0");
    Run::of(&mut with(&["save", "--dir", "saved", &id])).ended(2);
    next("CHKPT_BEGIN INFO 1 0 0");
    next("CHKPT_ERROR ERROR 2 3 17");
    // EBUSY: its number is in use.
    Run::of(&mut with(&["restore", "saved"])).ended(1);
    next("RSTRT_BEGIN INFO 1 0 0");
    next("RSTRT_ERROR ERROR 2 5 16");
    Run::of(&mut with(&["save", "--kill", "--clobber", "--dir", "saved", &id])).ended(0);
    target.child.wait().unwrap();
    next("CHKPT_BEGIN INFO 1 0 0");
    next("CHKPT_END INFO 2 7 0");
    Run::of(&mut with(&["restore", "saved", "--on-success", "kill -USR1 $STEADFAST_PID"])).ended(0);
    next("RSTRT_BEGIN INFO 1 0 0");
    next("RSTRT_END INFO 2 9 0");
    bench.good();

    // An agent that stands still delays nothing for long, and nothing is published later.
    kill_process(pid, Signal::STOP).unwrap();
    let target = bench.target("plain");
    let run =
        Run::of(&mut with(&["save", "--verbose", "--clobber", "--dir", "saved", &target.id()])).ended(0);
    assert!(run.err.contains("no events of this are published") && run.err.contains("agent.sock"), "{run:?}");
    let silent = Run::of(&mut with(&["save", "--clobber", "--dir", "saved", &target.id()])).ended(0);
    assert_eq!(silent.err, "");
    kill_process(pid, Signal::CONT).unwrap();
    Run::of(&mut with(&["save", "--clobber", "--dir", "saved", &target.id()])).ended(0);
    assert_eq!(target.go_on().code(), Some(0));
    next("CHKPT_BEGIN INFO 1 0 0");
    next("CHKPT_END INFO 2 11 0");
    drop(consumer.stdin.take());
    assert_eq!((lines.next(), consumer.wait().unwrap().code()), (None, Some(0)));
    assert_eq!(running.interrupt().1, Some(0));
}

/// Without an agent it is a note, and only where that is asked for.
#[test]
fn without_an_agent_it_is_a_note() {
    let Some(bench) = Bench::new("no_agent") else { return };
    let target = bench.target("plain");
    let silent = bench.run(&["save", "--dir", "saved", &target.id()]).ended(0);
    assert_eq!(silent.err, "");
    let told = bench.run(&["save", "-v", "--clobber", "--dir", "saved", &target.id()]).ended(0);
    assert_eq!(told.err.matches("no events of this are published").count(), 1, "{told:?}");
    assert_eq!(target.go_on().code(), Some(0));
    bench.good();
}
