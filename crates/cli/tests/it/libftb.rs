//! A C program with `libftb` and the daemon as they are installed: two processes of their own.

use std::path::Path;
use std::process::Command;

use crate::common::Run;
use crate::daemon::{command, daemon, home};

/// More than it takes, in seconds.
const GUARD: &str = "60";

/// Compiles a program of the library's tests in `place`, where the library is, too.
pub(crate) fn compile(place: &Path, name: &str) -> Command {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../libftb");
    let built = std::env::current_exe().unwrap().with_file_name("libftb.so");
    assert!(built.exists(), "{} is built with these tests", built.display());
    for name in ["libftb.so", "libftb.so.0"] {
        std::os::unix::fs::symlink(&built, place.join(name)).unwrap();
    }
    let binary = place.join(name);
    let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    compiler
        .args(["-std=c11", "-D_GNU_SOURCE", "-pthread", "-I"])
        .arg(source.join("include"))
        .arg("-o")
        .arg(&binary);
    compiler.arg(source.join("tests/c").join(name).with_extension("c")).arg("-L").arg(place).arg("-lftb");
    let output = compiler.output().expect("a C compiler, which cargo itself needs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut command = Command::new("timeout");
    command.arg(GUARD).arg(binary).env("LD_LIBRARY_PATH", place);
    command
}

#[test]
fn a_c_program_and_a_real_daemon() {
    let home = home();
    let (running, _) = daemon(&home);
    // It publishes, hears that by a callback, and its child does the same.
    let mut program = compile(home.path(), "forks_callbacks");
    let output = program.env("STEADFAST_AGENT", home.path().join("agent.sock")).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout == b"done\n", "{} {errors}", output.status);

    // A command of the same host sees both.
    let tail = ["events", "tail", "--json", "-n", "10", "event_space=FTB.x.forks"];
    let events = Run::of(&mut command(&home, &tail)).ended(0).objects();
    let names: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(names, ["FTB.x.forks.A"; 2]);
    assert_ne!(events[0]["source"], events[1]["source"], "two processes");
    assert_eq!(running.interrupt().1, Some(0));
}
