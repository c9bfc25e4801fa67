//! `steadfast demo`: as root, as an ordinary user, where namespaces are forbidden, and stopped half-way.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{skip, steadfast};

/// Nothing that works takes this long, on however slow a machine.
const GUARD: Duration = Duration::from_secs(20);

/// The user that owns nothing.
const NOBODY: &str = "65534";

/// One demo at a time: two would compete for the processor.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn result_of(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    let result = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"));
    assert!(output.status.success(), "{} {text}{errors}", output.status);
    result
}

/// What must be true of every run in which there was a network to cut.
fn check(test: &str, result: &Value) {
    if result["emulated"] == false {
        return skip(test, result["reason"].as_str().expect("the fallback says why"));
    }
    let number = |key: &str| result[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {result}"));
    assert_eq!(result["sha256_match"], true, "{result}");
    assert_eq!((number("lost"), number("duplicated")), (0.0, 0.0), "{result}");
    assert!(result["foreground"]["count"].as_u64().unwrap() > 0, "{result}");
    assert_eq!(result["foreground"]["count"], result["foreground"]["answered"], "{result}");
    assert!(number("longest_gap_ms") < number("tcp_longest_gap_ms"), "{result}");
    assert!(number("cut_at_ms") < number("healed_at_ms"), "{result}");
    assert!(number("file_bytes") > 0.0 && number("suspect_after_ms") >= 0.0, "{result}");
    let names: Vec<_> =
        result["networks"].as_array().unwrap().iter().map(|network| &network["name"]).collect();
    assert_eq!(names, ["wifi", "lte"]);
}

#[test]
fn a_cut_network_loses_nothing() {
    let _alone = alone();
    let output = steadfast().args(["demo", "--json"]).output().unwrap();
    check("demo::a_cut_network_loses_nothing", &result_of(&output));
}

#[test]
fn an_ordinary_user_sees_the_same() {
    let _alone = alone();
    let test = "demo::an_ordinary_user_sees_the_same";
    if !rustix::process::geteuid().is_root() {
        return skip(
            test,
            "only root can become another user; a_cut_network_loses_nothing ran as an ordinary one",
        );
    }
    let program = Public::new();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]);
    let output = command.arg(program.path()).args(["demo", "--json"]).env_remove("HOME").output();
    match output {
        Ok(output) => check(test, &result_of(&output)),
        Err(error) => skip(test, &format!("`setpriv` of util-linux cannot be started: {error}")),
    }
}

#[test]
fn where_namespaces_are_forbidden_it_says_so_and_goes_on() {
    let _alone = alone();
    let test = "demo::where_namespaces_are_forbidden_it_says_so_and_goes_on";
    // A user namespace of its own, in which no further one is allowed, and then no privilege in it.
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec setpriv --bounding-set=-all --inh-caps=-all -- \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--", "sh", "-c", forbid]);
    let run = |arguments: &[&str]| {
        let mut command = clone(&command);
        command.arg(env!("CARGO_BIN_EXE_steadfast")).args(arguments).output()
    };
    match run(&["--version"]) {
        Ok(output) if output.status.success() => {}
        Ok(output) => return skip(test, String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => return skip(test, &format!("`unshare` of util-linux cannot be started: {error}")),
    }
    let result = result_of(&run(&["demo", "--json"]).unwrap());
    assert_eq!(result["emulated"], false, "{result}");
    let reason = result["reason"].as_str().unwrap();
    assert!(reason.contains("user.max_user_namespaces is 0"), "{reason}");
    assert_eq!(result["sha256_match"], true, "{result}");
    assert_eq!((&result["lost"], &result["duplicated"]), (&0.into(), &0.into()), "{result}");
    for key in ["cut_at_ms", "healed_at_ms", "suspect_after_ms", "tcp_longest_gap_ms"] {
        assert!(result[key].is_null(), "{key}: {result}");
    }

    let output = run(&["demo"]).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("sysctl user.max_user_namespaces"), "{text}");
}

#[test]
fn no_process_outlives_an_interrupt() {
    stopped_by(Signal::INT, Some(1));
}

#[test]
fn no_process_outlives_a_killed_conductor() {
    stopped_by(Signal::KILL, None);
}

fn stopped_by(signal: Signal, code: Option<i32>) {
    let _alone = alone();
    let mut demo = steadfast().arg("demo").stdout(Stdio::null()).spawn().unwrap();
    let guard = Instant::now() + GUARD;
    // The lab and the two hosts.
    let mut others = Vec::new();
    while others.len() < 3 {
        assert!(Instant::now() < guard, "the processes did not start: {others:?}");
        sleep(Duration::from_millis(5));
        others = descendants(demo.id());
    }
    kill_process(Pid::from_child(&demo), signal).unwrap();
    assert_eq!(demo.wait().unwrap().code(), code);
    while others.iter().any(|process| is_running(*process)) {
        assert!(Instant::now() < guard, "some of {others:?} stayed behind");
        sleep(Duration::from_millis(5));
    }
}

/// The parent and the state of a process; `None` if there is none of this number.
fn status(process: u32) -> Option<(u32, String)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name stands in parentheses and may have any characters.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.to_owned();
    Some((fields.next()?.parse().ok()?, state))
}

/// Whether it runs; one that nobody waits for is as good as gone.
fn is_running(process: u32) -> bool {
    status(process).is_some_and(|(_, state)| state != "Z")
}

fn descendants(of: u32) -> Vec<u32> {
    let names =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = names.filter_map(|id| Some((id, status(id)?.0))).collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(id, _)| *id));
        next += 1;
    }
    found.split_off(1)
}

/// The program at a place that every user can read.
struct Public(PathBuf);

impl Public {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let directory = std::env::temp_dir().join(format!("steadfast-cli-it-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let public = Self(directory);
        fs::copy(env!("CARGO_BIN_EXE_steadfast"), public.path()).unwrap();
        public
    }

    fn path(&self) -> PathBuf {
        self.0.join("steadfast")
    }
}

impl Drop for Public {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}

/// The same program with the same arguments.
fn clone(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    copy
}
