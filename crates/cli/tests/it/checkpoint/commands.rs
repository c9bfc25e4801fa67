//! Options, what is told, exit codes, and hooks.

use super::conversations::{half, set_back};
use super::{Bench, Path, fs, program, state, steadfast, until};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use steadfast_checkpoint::{
    After, Class, Criu, ETIMEDOUT, Existing, GHOST_LIMIT, Observer, Progress, Publisher, Save, SaveError,
    Scope, Tcp,
};

use crate::common::Run;

/// Writes an executable script.
fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_is_not_there_is_named() {
    let Some(bench) = Bench::new("what_is_not_there") else { return };
    bench.run(&["save", "4194303"]).failed(2, &["no process 4194303"]);
    bench.run(&["save", "--group", "4194303"]).failed(2, &["no process group 4194303"]);
    // One that has ended and that nobody has waited for.
    let mut ended = Command::new("true").spawn().unwrap();
    until("a process that has ended", || (state(ended.id()) == Some('Z')).then_some(()));
    let id = ended.id().to_string();
    bench.run(&["save", "--dir", "saved", &id]).failed(2, &["no living process", &id]);
    assert!(!bench.path("saved.failed.log").exists());
    ended.wait().unwrap();
    let restored =
        bench.run(&["restore", "--json", "nothing"]).failed(2, &["nothing is no checkpoint", "list"]);
    assert_eq!(restored.object()["class"], "usage");
    bench.run(&["inspect", "nothing"]).failed(2, &["no checkpoint"]);
    bench.run(&["list", "nothing"]).failed(2, &["no directory nothing"]);
    let empty = bench.run(&["list"]).ended(0).out;
    assert!(empty.contains(&format!("no checkpoints in {}\n", bench.home.path().display())), "{empty}");
    bench.run(&["run", "no-such-program"]).failed(1, &["no-such-program", "executed"]);
    assert_eq!(
        bench.run(&["save", "--signal", "NOPE", "1"]).ended(2).err.matches("`NOPE` is no signal").count(),
        1
    );
    assert_eq!(bench.run(&["save", "--stop", "--kill", "1"]).code, Some(2));
    assert_eq!(bench.run(&["save", "0"]).code, Some(2));
}

#[test]
fn run_ends_as_the_program_does() {
    let home = crate::common::Home::new();
    let run = |words: &[&str]| home.command(&["checkpoint", "run"]).args(words).output().unwrap().status;
    assert_eq!(run(&["sh", "-c", "exit 7"]).code(), Some(7));
    for signal in [9, 15, 40, 64] {
        let status = run(&["--", "sh", "-c", &format!("kill -{signal} $$")]);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal), "{status:?}");
    }
    // What follows the program is the program's.
    assert_eq!(run(&["sh", "-c", "exit $#", "--clobber", "--backup", "--every"]).code(), Some(2));
}

#[test]
fn run_takes_only_what_it_heeds() {
    let home = crate::common::Home::new();
    for option in ["--clobber", "--no-clobber", "--backup", "--backup=old", "--bogus"] {
        let run = Run::of(home.command(&["checkpoint", "run"]).args([option, "--dir", "saved", "true"]));
        assert!(run.ended(2).err.contains("unexpected argument"), "{option}");
    }
}

/// Before the program runs, not every time that it is saved.
#[test]
fn run_tells_at_once_what_it_cannot_heed() {
    let Some(bench) = Bench::new("run_tells_at_once") else { return };
    let run = |words: &[&str]| bench.run(&[&["run"], words, &["touch", "ran"]].concat());
    for option in
        [&["--dir", "saved"][..], &["--timeout", "1s"], &["--tcp", "close"], &["--ghost-limit", "1"]]
    {
        run(option).failed(2, &[option[0], "--every TIME", "checkpoint save"]);
    }
    run(&["--every", "1h", "--dir", "/proc/none"]).failed(1, &["/proc/none"]);
    let target = bench.target("plain");
    bench.run(&["save", "--dir", "one", &target.id()]).ended(0);
    run(&["--every", "1h", "--dir", "one"]).failed(2, &["one is one checkpoint", "--every makes several"]);
    bench.run(&["save", "--every", "1h", "--dir", "one", &target.id()]).failed(2, &["is one checkpoint"]);
    assert!(!bench.path("ran").exists(), "nothing was started");
    run(&["--every", "1h", "--dir", "saved"]).ended(0);
    assert!(bench.path("ran").exists());
    assert_eq!(target.go_on().code(), Some(0));
}

/// As in a container, which leaves some of root's rights out.
#[test]
fn root_without_a_right_is_told_which() {
    let Some(bench) = Bench::new("root_without_a_right") else { return };
    let target = bench.target_with("plain", |command| {
        command.uid(65_534).gid(65_534);
        fs::set_permissions(bench.home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    });
    let save = bench.command(&["save", "--dir", "saved", &target.id()]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_resource,-kill"]).arg(save.get_program()).args(save.get_args());
    command
        .envs(save.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(bench.home.path());
    let run =
        Run::of(command.stdin(Stdio::null())).failed(1, &["CAP_KILL", "CAP_SYS_RESOURCE here", "container"]);
    assert!(!run.err.contains("run it as root"), "{run:?}");
    assert_eq!(target.go_on().code(), Some(0));
    bench.good();
}

#[test]
fn nobody_saves_what_it_descends_from() {
    let Some(bench) = Bench::new("descends") else { return };
    for id in ["1".to_owned(), std::process::id().to_string()] {
        let words = ["cannot save process", "this command is among its descendants"];
        bench.run(&["save", "--dir", "saved", &id]).failed(2, &words);
        assert!(!bench.path("saved.failed.log").exists(), "CRIU was not asked");
    }
}

#[test]
fn without_criu_it_is_said_how_to_get_one() {
    let Some(bench) = Bench::new("without_criu") else { return };
    let target = bench.target("plain");
    let with = |criu: &str| {
        Run::of(bench.command(&["save", "--dir", "saved", &target.id()]).env("STEADFAST_CRIU", criu))
    };
    with(&bench.text("none"))
        .failed(1, &["no CRIU at", "apt-get install criu", "STEADFAST_CRIU", "[checkpoint]"]);
    with("/bin/true").failed(1, &["cannot use CRIU, /bin/true", "ended"]);
    // The configuration names one, too.
    bench.home.configure("[checkpoint]\ncriu = \"/nowhere/criu\"\n");
    let run = Run::of(bench.command(&["save", &target.id()]).env_remove("STEADFAST_CRIU"));
    run.failed(1, &["no CRIU at /nowhere/criu"]);
    bench.home.configure(&format!("[checkpoint]\ncriu = \"{}\"\n", bench.criu.display()));
    Run::of(bench.command(&["save", "--dir", "saved", &target.id()]).env_remove("STEADFAST_CRIU")).ended(0);
    assert_eq!(target.go_on().code(), Some(0));
}

#[test]
fn nobody_is_told_to_be_root() {
    let Some(bench) = Bench::new("nobody") else { return };
    let target = bench.target_with("plain", |command| {
        command.uid(65_534).gid(65_534);
        fs::set_permissions(bench.home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    });
    // Where others may execute it.
    let own = bench.path("steadfast");
    fs::copy(steadfast().get_program(), &own).unwrap();
    let criu = bench.path("criu");
    let parent = bench.criu.parent().unwrap();
    if parent.join("root").exists() {
        let copied =
            Command::new("cp").arg("-r").arg(parent.join("root")).arg(bench.path("root")).status().unwrap();
        assert!(copied.success());
    }
    fs::copy(&bench.criu, &criu).unwrap();
    let mut command = Command::new(&own);
    command.args(["checkpoint", "save", "--json", "--dir"]).arg(bench.path("saved")).arg(target.id());
    command
        .env("HOME", bench.home.path())
        .env("STEADFAST_CRIU", &criu)
        .env("STEADFAST_AGENT", bench.path("none"));
    let run = Run::of(command.uid(65_534).gid(65_534).stdin(Stdio::null()).current_dir("/"));
    let run = run.failed(1, &["cannot save process", "root", "CRIU's own words are in"]);
    assert_eq!(run.object()["class"], "environment");

    // Who may not make a time namespace does not set the clock of a process back.
    assert_eq!(target.go_on().code(), Some(0));
    bench.save_and_kill(bench.target("plain"));
    let place = bench.path("saved");
    let give = |user: u32| {
        for entry in fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).chain([place.clone()]) {
            std::os::unix::fs::chown(entry, Some(user), Some(user)).unwrap();
        }
    };
    give(65_534);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&own);
    command.args(["checkpoint", "restore", "--json"]).arg(&place).env("STEADFAST_CRIU", &criu);
    command.env("HOME", bench.home.path()).env("STEADFAST_AGENT", bench.path("none")).current_dir("/");
    let run = Run::of(set_back(&command, half()).stdin(Stdio::null()));
    let run = run.failed(1, &["cannot restore process", "s behind", "restore as root"]);
    assert_eq!(run.object()["class"], "environment");
    give(0);
    assert_eq!(bench.restore(&[]).code(), Some(0));
    bench.good();
}

#[test]
fn a_descriptor_that_cannot_be_saved_is_named() {
    let Some(bench) = Bench::new("descriptor") else { return };
    // What is known is told before anything stands still.
    let target = bench.target("uring");
    let run = bench.run(&["save", "--json", "--dir", "saved", &target.id()]);
    let parts = [&format!("process {}", target.pid)[..], "io_uring", "descriptor 3", "close it"];
    assert_eq!(run.failed(1, &parts).object()["class"], "permanent");
    assert_eq!(target.go_on().code(), Some(0));
    bench.good();
    // What CRIU says of others is made readable.
    let target = bench.target("userfault");
    let run = bench.run(&["save", "--json", "--dir", "saved", &target.id()]);
    let parts = ["userfaultfd", "file 3", &format!("process {}", target.pid), "close it"];
    let told = run.failed(1, &parts).object();
    assert_eq!(told["class"], "permanent");
    // The log is where it says, nothing else is left, and the process goes on.
    let log = fs::read_to_string(told["log"].as_str().unwrap()).unwrap();
    assert!(log.contains("userfaultfd"), "{log}");
    assert!(!bench.path("saved").exists());
    let left: Vec<_> =
        fs::read_dir(bench.home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains(".new-")), "{left:?}");
    assert_eq!(target.go_on().code(), Some(0));
    bench.good();
}

#[test]
fn scopes_have_to_be_a_tree() {
    let Some(bench) = Bench::new("scopes") else { return };
    // A group of two: a shell, and a target that is its child, which leads a session of its own when it is ready.
    let target = bench.target_with("child", |command| {
        command.process_group(0);
    });
    let id = target.id();
    bench.run(&["save", "--pid", "--dir", "saved", &id]).failed(2, &["alone", "has a child", "--tree"]);
    bench.run(&["save", "--group", "--dir", "saved", &id]).ended(0);
    let seen = bench.run(&["inspect", "--json", "saved"]).ended(0).object();
    assert_eq!(seen["manifest"]["scope"], "group");
    assert_eq!(seen["pids"].as_array().unwrap().len(), 3, "{seen}");
    // The session has this test in it.
    let session = rustix::process::getsid(None).unwrap().as_raw_nonzero().to_string();
    let whole = bench.run(&["save", "--session", "--dir", "other", &session]);
    assert_ne!(whole.code, Some(0), "{whole:?}");
    assert_eq!(target.go_on().code(), Some(0));
    bench.good();

    let target = bench.target("identity");
    bench.run(&["save", "--session", "--clobber", "--dir", "saved", &target.id()]).ended(0);
    bench.run(&["save", "--pid", "--clobber", "--dir", "saved", &target.id()]).ended(0);
    assert_eq!(target.go_on().code(), Some(0));
}

#[test]
fn numbers_in_use_are_told_before_anything_is_tried() {
    let Some(bench) = Bench::new("pid_in_use") else { return };
    let target = bench.target("threads");
    bench.run(&["save", "--dir", "saved", &target.id()]).ended(0);
    let parts = [&format!("process {}", target.pid)[..], "in use by target"];
    let run = bench.run(&["restore", "--json", "saved"]).failed(1, &parts);
    assert_eq!(run.object()["class"], "temporary");
    assert!(!bench.path("saved/restore.log").exists());
    // A script may wait for it.
    bench.run(&["restore", "saved", "--on-temporary", "exit 75"]).ended(75);
    assert_eq!(target.go_on().code(), Some(0));
    assert_eq!(bench.restore(&["--on-temporary", "exit 75"]).code(), Some(0));
    bench.good();
}

/// Who has ended has its number until its parent notices: that parent is told, not the one who cannot be ended any more.
#[test]
fn a_number_that_a_parent_keeps_is_told_with_the_parent() {
    let Some(bench) = Bench::new("pid_kept") else { return };
    let mut target = bench.target("plain");
    bench.run(&["save", "--kill", "--dir", "saved", &target.id()]).ended(0);
    until("a target that has ended", || (state(target.pid) == Some('Z')).then_some(()));
    let own = std::process::id();
    let name = fs::read_to_string(format!("/proc/{own}/comm")).unwrap();
    let keeper = format!("process {own} ({})", name.trim_end());
    let parts = [
        &format!("process {}", target.pid)[..],
        "has ended",
        &keeper,
        "not noticed",
        "wait for its children",
    ];
    let told = bench.run(&["restore", "--json", "saved"]).failed(1, &parts);
    assert_eq!(told.object()["class"], "temporary");
    assert!(!told.err.contains("in use by"), "{told:?}");
    assert!(!bench.path("saved/restore.log").exists());
    target.child.wait().unwrap();
    assert_eq!(bench.restore(&[]).code(), Some(0));
    bench.good();
}

#[test]
fn hooks_follow_the_class_of_the_failure() {
    let Some(bench) = Bench::new("hooks") else { return };
    let all = [
        "--on-failure",
        "exit 9",
        "--on-temporary",
        "exit 10",
        "--on-environment",
        "exit 11",
        "--on-permanent",
        "exit 12",
        "--on-usage",
        "exit 13",
    ];
    let with = |place: &str, more: &[&str]| bench.run(&[&["restore", place][..], more].concat());
    let target = bench.target("fds");
    bench.run(&["save", "--kill", "--dir", "saved", &target.id()]).ended(0);
    drop(target);

    with("nothing", &all).failed(13, &["no checkpoint"]);
    with("nothing", &["--on-failure", "exit 9"]).failed(9, &["no checkpoint"]);
    // A hook that succeeds changes nothing, and knows what happened.
    let words = format!("echo \"$STEADFAST_ERRNO $STEADFAST_ERROR\" >{}", bench.text("words"));
    with("nothing", &["--on-usage", &words]).failed(2, &["no checkpoint"]);
    let words = fs::read_to_string(bench.path("words")).unwrap();
    assert!(words.starts_with("2 ") && words.contains("nothing is no checkpoint"), "{words}");

    // A file that the process has open is gone.
    fs::rename(bench.path("plain"), bench.path("elsewhere")).unwrap();
    let run = with("saved", &all).failed(11, &["plain", "put", "restore.log"]);
    assert!(run.err.contains("No such file"), "{run:?}");
    fs::rename(bench.path("elsewhere"), bench.path("plain")).unwrap();

    // What is on the disk is not what was written.
    let pages = bench.path("saved/pages-1.img");
    let whole = fs::read(&pages).unwrap();
    let mut broken = whole.clone();
    broken[100] ^= 1;
    fs::write(&pages, &broken).unwrap();
    with("saved", &all).failed(12, &["damaged", "pages-1.img", "older"]);
    fs::write(&pages, &whole).unwrap();

    // Success: the program's end is waited for, and the hook's code counts.
    assert_eq!(bench.restore(&all).code(), Some(0));
    bench.good();
    let failing = with("saved", &["--on-success", "kill -USR1 $STEADFAST_PID; exit 14"]);
    failing.ended(14);
    bench.good();
}

#[test]
fn a_detached_process_is_nobodys_child() {
    let Some(bench) = Bench::new("detach") else { return };
    let target = bench.target("plain");
    bench.save_and_kill(target);
    // Somebody has to wait for it.
    let mut reaper = Command::new(program());
    reaper.arg("reap").arg(bench.home.path()).arg(steadfast().get_program());
    reaper.args(["checkpoint", "restore", "--detach", "--json", "saved"]).current_dir(bench.home.path());
    reaper.env("STEADFAST_CRIU", &bench.criu).env("STEADFAST_AGENT", bench.path("none"));
    reaper.env("HOME", bench.home.path());
    let mut reaper = reaper.stdout(Stdio::piped()).spawn().unwrap();
    let child: u32 =
        until("a reaper's child", || fs::read_to_string(bench.path("child")).ok()).trim().parse().unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(reaper.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    let pid = told["pid"].as_u64().unwrap() as u32;
    until("the command's end", || state(child).is_none().then_some(()));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains(&format!("PPid:\t{}\n", reaper.id())), "{status}");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
        rustix::process::Signal::USR1,
    )
    .unwrap();
    assert_eq!(reaper.wait().unwrap().code(), Some(0));
    bench.good();
}

#[test]
fn what_takes_too_long_is_given_up() {
    let Some(bench) = Bench::new("timeout") else { return };
    let target = bench.target_with("stuck", |_| {});
    // The target that is ready is the child of the one that cannot be stopped.
    let root = target.child.id().to_string();
    let run = bench.run(&["save", "--timeout", "1s", "--dir", "saved", &root]).failed(4, &["--timeout"]);
    assert!(!bench.path("saved").exists(), "{run:?}");
    // Without a limit that of CRIU counts, which a signal tells it of.
    bench.run(&["save", "--dir", "saved", &root]).failed(1, &["Unseizable", &root]);
    assert_eq!(target.go_on().code(), Some(0));
    bench.good();
}

/// Whoever looks on, and stops nothing.
struct Bystander;

impl Observer for Bystander {
    fn progress(&mut self, _: Progress) {}

    fn interrupted(&mut self) -> bool {
        false
    }
}

/// Without a limit of anybody, either.
#[test]
fn a_criu_that_does_nothing_is_given_up() {
    let Some(bench) = Bench::new("standstill") else { return };
    let target = bench.target("plain");
    // It opens what looks like a part of it, and nobody writes there.
    fs::create_dir(bench.path("plugins")).unwrap();
    let made = Command::new("mkfifo").arg(bench.path("plugins/hangs.so")).status().unwrap();
    assert!(made.success());
    let hanging = bench.path("hanging");
    let (plugins, criu) = (bench.text("plugins"), bench.criu.display());
    script(&hanging, &format!("export CRIU_LIBS_DIR={plugins}\nexec {criu} \"$@\""));
    let save = Save {
        scope: Scope::Tree,
        id: target.pid,
        place: bench.path("saved"),
        existing: Existing::Refuse,
        after: After::Run,
        timeout: None,
        patience: Duration::from_secs(1),
        tcp: Tcp::Keep,
        ghost_limit: GHOST_LIMIT,
    };
    let criu = Criu::at(hanging);
    let mut publisher = Publisher::new(bench.path("no-agent"));
    let error = steadfast_checkpoint::save(&criu, &save, None, &mut publisher, &mut Bystander).unwrap_err();
    let SaveError::Failed(error) = error else { panic!("{error}") };
    let text = error.to_string();
    for part in
        [&format!("process {} (target", target.pid)[..], "wrote nothing for 1 s", "last words", "--timeout"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!((error.class(), error.errno()), (Class::Temporary, ETIMEDOUT));
    assert!(error.log().is_some_and(Path::is_file) && !bench.path("saved").exists(), "{text}");
    assert_eq!(target.go_on().code(), Some(0));
    bench.good();
}

#[test]
fn interrupted_the_process_goes_on() {
    let Some(bench) = Bench::new("interrupted") else { return };
    let target = bench.target("plain");
    // CRIU that takes a while to begin.
    let slow = bench.path("slow");
    script(
        &slow,
        &format!("echo $$ >{}\nkill -STOP $$\nexec {} \"$@\"", bench.text("criu-pid"), bench.criu.display()),
    );
    let mut command = bench.command(&["save", "--dir", "saved", &target.id()]);
    let child = command.env("STEADFAST_CRIU", &slow).stderr(Stdio::piped()).spawn().unwrap();
    let pid = until("CRIU's number", || {
        let text = fs::read_to_string(bench.path("criu-pid")).ok()?;
        text.trim().parse::<u32>().ok().filter(|pid| state(*pid) == Some('T'))
    });
    let kill = |pid: u32, signal| {
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(), signal)
            .unwrap();
    };
    // It is held back until CRIU has begun, and counts then.
    kill(child.id(), rustix::process::Signal::INT);
    kill(pid, rustix::process::Signal::CONT);
    let run = Run::from(child.wait_with_output().unwrap());
    run.failed(5, &["interrupted", "go on"]);
    assert!(!bench.path("saved").exists());
    assert_eq!(target.go_on().code(), Some(0));
    bench.good();
}
