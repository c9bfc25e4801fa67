//! C programs with parts that must not be interrupted, saved while an agent is told of it: what once failed because publishing
//! left descriptors behind.

use std::env;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Bench, Target, fs};
use crate::common::Run;
use crate::daemon::{daemon, home};

/// Compiles the program where the library is, too.
fn compile(place: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = env::current_exe().unwrap().with_file_name("libsteadfastcheckpoint.so");
    assert!(built.exists(), "{} is built with these tests", built.display());
    for name in ["libsteadfastcheckpoint.so", "libsteadfastcheckpoint.so.0"] {
        symlink(&built, place.join(name)).unwrap();
    }
    let binary = place.join("guarded");
    let mut compiler = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
    compiler.args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-pthread", "-I"]);
    compiler
        .arg(root.join("../libcheckpoint/include"))
        .arg(root.join("tests/c/guarded.c"))
        .arg("-o")
        .arg(&binary);
    let output = compiler.arg("-L").arg(place).arg("-lsteadfastcheckpoint").output();
    let output = output.expect("a C compiler, which cargo itself needs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    binary
}

fn is_saved_again_and_again(case: &str) {
    let Some(mut bench) = Bench::new(case) else { return };
    bench.home = home();
    let (running, _) = daemon(&bench.home);
    let binary = compile(bench.home.path());
    let agent = bench.path("agent.sock");
    let with = |arguments: &[&str]| {
        let mut command = bench.command(arguments);
        command.env("STEADFAST_AGENT", &agent);
        command
    };
    let mut target: Target = bench.target_of(&binary, case, |command| {
        let control = bench.path("run/control");
        fs::create_dir(bench.path("run")).unwrap();
        command.env("LD_LIBRARY_PATH", bench.home.path()).env("STEADFAST_CONTROL", control);
    });
    for _ in 0..5 {
        Run::of(&mut with(&["save", "--clobber", "--dir", "saved", &target.id()])).ended(0);
        assert_eq!(fs::read_to_string(bench.path("result")).unwrap_or_default(), "");
    }
    Run::of(&mut with(&["save", "--kill", "--clobber", "--dir", "saved", &target.id()])).ended(0);
    target.child.wait().unwrap();
    // As after a reboot.
    fs::remove_dir_all(bench.path("run")).unwrap();
    assert_eq!(bench.restore(&[]).code(), Some(0), "{:?}", fs::read_to_string(bench.path("result")));
    bench.good();
    let made = fs::symlink_metadata(bench.path("run/control")).unwrap();
    assert_eq!((made.mode() & 0o7777, made.uid()), (0o700, rustix::process::geteuid().as_raw()));
    assert_eq!(running.interrupt().1, Some(0));
}

#[test]
fn parts_that_begin_and_end_all_the_time() {
    is_saved_again_and_again("enter_leave");
}

#[test]
fn parts_within_parts_in_two_threads() {
    is_saved_again_and_again("nested");
}

#[test]
fn parts_that_do_not_wait() {
    is_saved_again_and_again("try_enter");
}

#[test]
fn duplicates_of_descriptors_beside_published_events() {
    is_saved_again_and_again("duplicates");
}

#[test]
fn the_directory_of_the_socket_is_again_its_users() {
    let Some(bench) = Bench::new("sockets_user") else { return };
    let binary = compile(bench.home.path());
    let (user, group) = (65_534, 65_533);
    let mut target: Target = bench.target_of(&binary, "enter_leave", |command| {
        let agent = bench.path("none");
        command.env("LD_LIBRARY_PATH", bench.home.path()).env("STEADFAST_AGENT", agent);
        command.env("STEADFAST_CONTROL", bench.path("control"));
    });
    // Not every root may save processes of others, and the socket says whose it is.
    chown(bench.path(&format!("control/{}.sock", target.pid)), Some(user), Some(group)).unwrap();
    Run::of(&mut bench.command(&["save", "--kill", "--dir", "saved", &target.id()])).ended(0);
    target.child.wait().unwrap();
    fs::remove_dir_all(bench.path("control")).unwrap();
    // Whoever may write there does not lead root elsewhere.
    fs::create_dir(bench.path("elsewhere")).unwrap();
    symlink(bench.path("elsewhere"), bench.path("control")).unwrap();
    bench.run(&["restore", "saved"]).failed(1, &["control", "symbolic link"]);
    fs::remove_file(bench.path("control")).unwrap();
    assert_eq!(bench.restore(&[]).code(), Some(0), "{:?}", fs::read_to_string(bench.path("result")));
    bench.good();
    let made = fs::symlink_metadata(bench.path("control")).unwrap();
    assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o700, user, group));
}
