//! Directories of checkpoints: replaced, kept, damaged, killed half-way, following each other.

use super::{Bench, Path, PathBuf, Signal, Stdio, Working, fs, program, state, steadfast, until};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::{Pid, kill_process};
use serde_json::Value;

use crate::common::Running;

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// When the checkpoint of a directory was made, which no two have in common.
fn seal(place: &Path) -> Value {
    let text = fs::read_to_string(place.join("steadfast.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["seal"].clone()
}

#[test]
fn one_that_is_there_is_refused_replaced_or_kept() {
    let Some(bench) = Bench::new("clobber") else { return };
    let target = bench.target("plain");
    let id = target.id();
    let save = |more: &[&str]| bench.run(&[&["save", "--json", &id][..], more].concat());
    // Without a place it is named after the process, and lies in this directory.
    let place = bench.path(&format!("checkpoint.{id}"));
    assert_eq!(save(&[]).ended(0).object()["checkpoint"], place.display().to_string());
    let first = seal(&place);
    for more in [&[][..], &["--no-clobber"], &["--clobber", "--no-clobber"]] {
        save(more).failed(2, &["already", "--clobber", "--backup"]);
        assert_eq!(seal(&place), first);
    }
    assert_eq!(save(&["--clobber"]).ended(0).object()["backup"], Value::Null);
    let second = seal(&place);
    assert_ne!(second, first);
    let kept = save(&["--backup"]).ended(0).object()["backup"].as_str().map(PathBuf::from).unwrap();
    assert_eq!(kept, bench.path(&format!("checkpoint.{id}.~1~")));
    let third = seal(&place);
    assert_eq!((seal(&kept), third == second), (second, false));
    let kept = save(&["--backup"]).ended(0).object()["backup"].clone();
    assert_eq!(kept, bench.text(&format!("checkpoint.{id}.~2~")));
    let kept = save(&["--backup=before"]).ended(0).object()["backup"].clone();
    assert_eq!(kept, bench.text("before"));
    // A name that is taken by an older one goes to the younger.
    let now = seal(&place);
    save(&["--backup=before"]).ended(0);
    assert_eq!(seal(&bench.path("before")), now);

    let text = bench.run(&["list", &place.display().to_string()]).ended(0).out;
    assert_eq!(text.matches("whole").count(), 3, "{text}");
    let all = bench.run(&["list", "--json"]).ended(0).objects();
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all.iter().all(|one| one["whole"] == true && one["root"] == target.pid), "{all:?}");

    // No checkpoint can be its own backup.
    let now = seal(&place);
    let own = format!("--backup=checkpoint.{id}");
    save(&[&own]).failed(2, &["where the new one goes", "--backup"]);
    assert_eq!(seal(&place), now);
    // What is no checkpoint is left alone.
    fs::create_dir(bench.path("other")).unwrap();
    save(&["--dir", "other"]).ended(0);
    fs::remove_file(bench.path("other/steadfast.json")).unwrap();
    save(&["--dir", "other", "--clobber"]).failed(2, &["no checkpoint", "left alone"]);
    assert_eq!(target.go_on().code(), Some(0));
    bench.good();
    let left = names(bench.home.path());
    assert!(left.iter().all(|name| !name.contains(".new-")), "{left:?}");
    // Memory of others is nobody's to read.
    assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn damage_is_found_and_named() {
    let Some(bench) = Bench::new("damage") else { return };
    let target = bench.target("plain");
    bench.save_and_kill(target);
    let place = bench.path("saved");
    let manifest = fs::read_to_string(place.join("steadfast.json")).unwrap();
    let all: Value = serde_json::from_str(&manifest).unwrap();
    let files: Vec<String> = all["files"].as_object().unwrap().keys().cloned().collect();
    assert!(files.len() > 8 && files.iter().any(|name| name == "inventory.img"), "{files:?}");
    let damaged = |what: &str, parts: &[&str]| {
        bench.run(&["restore", "saved"]).failed(1, &[&["damaged"], parts].concat());
        let list = bench.run(&["list", "--json", "saved"]);
        assert!(list.objects().iter().all(|one| one["whole"] == false), "{what}: {list:?}");
        assert_eq!(list.code, Some(1), "{what}");
    };
    for name in &files {
        let path = place.join(name);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        damaged("missing", &[name, "missing"]);
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        damaged("short", &[name, "bytes"]);
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0x10;
        fs::write(&path, &flipped).unwrap();
        damaged("flipped", &[name, "not what was written"]);
        fs::write(&path, &whole).unwrap();
    }
    let write = |text: &str| fs::write(place.join("steadfast.json"), text).unwrap();
    write(&manifest[..manifest.len() / 2]);
    damaged("half a manifest", &["steadfast.json"]);
    write(&manifest.replacen("\"root\": ", "\"root\": 1", 1));
    damaged("another manifest", &["steadfast.json", "not what was written"]);
    write(&manifest.replacen("\"format\": 1", "\"format\": 7", 1));
    bench.run(&["restore", "saved"]).failed(1, &["another version", "format 7"]);
    let list = bench.run(&["list", "saved"]).ended(1);
    assert!(list.out.contains("other version") && !list.out.contains("damaged"), "{list:?}");
    write(&manifest);
    bench.run(&["inspect", "saved"]).ended(0);
    assert_eq!(bench.restore(&[]).code(), Some(0));
    bench.good();
}

#[test]
fn what_somebody_else_may_change_is_not_restored() {
    let Some(bench) = Bench::new("foreign") else { return };
    let target = bench.target("plain");
    bench.save_and_kill(target);
    let place = bench.path("saved");
    std::os::unix::fs::chown(&place, Some(65_534), None).unwrap();
    let told = bench.run(&["restore", "--json", "saved"]).failed(1, &["belongs to user 65534", "chown"]);
    assert_eq!(told.object()["class"], "environment");
    std::os::unix::fs::chown(&place, Some(0), None).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
    bench.run(&["restore", "saved"]).failed(1, &["others may write", "chmod"]);
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    // A log goes nowhere else.
    fs::write(bench.path("precious"), "precious").unwrap();
    for name in ["restore.log", "criu.out"] {
        std::os::unix::fs::symlink(bench.path("precious"), place.join(name)).unwrap();
    }
    assert_eq!(bench.restore(&[]).code(), Some(0));
    bench.good();
    assert_eq!(fs::read_to_string(bench.path("precious")).unwrap(), "precious");
    assert!(fs::symlink_metadata(place.join("restore.log")).unwrap().is_file());
}

#[test]
fn a_link_to_the_newest_that_cannot_be_is_no_failed_save() {
    let Some(bench) = Bench::new("no_link") else { return };
    let mut target = bench.target("plain");
    // Something else has the name.
    fs::create_dir_all(bench.path("saved/latest/other")).unwrap();
    let every = ["save", "--json", "--every", "50ms", "--keep", "2", "--dir", "saved", &target.id()];
    let mut command = bench.command(&every);
    let mut saving =
        Running::start(command.stderr(fs::File::create(bench.path("err")).unwrap()), |command| {
            command.spawn().unwrap()
        });
    for number in 1..=2 {
        let told = saving.object().unwrap();
        assert_eq!(told["checkpoint"], bench.text(&format!("saved/{number:06}")));
    }
    assert_eq!(saving.interrupt().1, Some(0));
    let told = fs::read_to_string(bench.path("err")).unwrap();
    assert!(told.contains("it was saved") && told.contains("newest"), "{told}");
    target.signal(Signal::KILL);
    target.child.wait().unwrap();
}

#[test]
fn inspect_shows_what_is_inside() {
    let Some(bench) = Bench::new("inspect") else { return };
    let target = bench.target("tcp");
    bench.run(&["save", "--dir", "saved", &target.id()]).ended(0);
    let seen = bench.run(&["inspect", "--json", "saved"]).ended(0).object();
    let targets: Vec<_> =
        seen["open"][0].as_array().unwrap().iter().map(|open| open["target"].as_str().unwrap()).collect();
    assert!(targets.iter().any(|open| open.starts_with("/dev/null")), "{targets:?}");
    assert!(
        targets.iter().any(|open| open.starts_with("tcp 127.0.0.1:") && open.ends_with("listening")),
        "{targets:?}"
    );
    assert_eq!(targets.iter().filter(|open| open.contains(" to 127.0.0.1:")).count(), 2, "{targets:?}");
    assert!(seen["frozen_ms"].as_f64().unwrap() > 0.0 && seen["whole"] == true, "{seen}");
    let text = bench.run(&["inspect", "saved"]).ended(0).out;
    for part in [
        &format!("process {} (target", target.pid)[..],
        "running",
        "command",
        "CRIU",
        "1 thread",
        "tcp 127.0.0.1:",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(target.go_on().code(), Some(0));
}

/// Whoever kills the command in the middle finds the last good one, and the process as it was.
#[test]
fn killed_half_way_the_last_good_one_stays() {
    let Some(bench) = Bench::new("killed_half_way") else { return };
    let target = bench.target("large");
    let id = target.id();
    bench.run(&["save", "--dir", "saved", &id]).ended(0);
    let good = seal(&bench.path("saved"));
    let pid = |name: &str| fs::read_to_string(bench.path(name)).ok()?.trim().parse::<u32>().ok();
    let signal = |pid: u32, signal| kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
    // CRIU writes about 64 MiB; the command dies before CRIU begins, as it begins, and while it writes.
    for point in ["begin", "inventory.img", "pages-1.img"] {
        let slow = bench.path("slow");
        let text = format!(
            "#!/bin/sh\nif [ -e {0} ]; then rm {0}; echo $$ >{1}.new; mv {1}.new {1}; kill -STOP $$; fi\nexec {2} \"$@\"\n",
            bench.text("slowly"),
            bench.text("criu-pid"),
            bench.criu.display()
        );
        fs::write(&slow, text).unwrap();
        fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
        let _before = fs::remove_file(bench.path("child"));
        let _before = fs::remove_file(bench.path("criu-pid"));
        if point == "begin" {
            fs::write(bench.path("slowly"), "").unwrap();
        }
        let mut reaper = Command::new(program());
        reaper.arg("reap").arg(bench.home.path()).arg(steadfast().get_program());
        reaper
            .args(["checkpoint", "save", "--clobber", "--dir", "saved", &id])
            .current_dir(bench.home.path());
        reaper
            .env("STEADFAST_CRIU", &slow)
            .env("STEADFAST_AGENT", bench.path("none"))
            .env("HOME", bench.home.path());
        let mut reaper = reaper.stdout(Stdio::null()).spawn().unwrap();
        let command = until("the command", || pid("child"));
        if point == "begin" {
            let criu = until("CRIU", || pid("criu-pid").filter(|pid| state(*pid) == Some('T')));
            signal(command, Signal::KILL);
            signal(criu, Signal::CONT);
        } else {
            until(point, || {
                let drafts =
                    names(bench.home.path()).into_iter().filter(|name| name.starts_with(".saved.new-"));
                let there = drafts.into_iter().any(|draft| bench.path(&draft).join(point).exists());
                (there || state(command).is_none()).then_some(())
            });
            // Where it was faster than this, it has ended, and there is a new one.
            let _ended = kill_process(Pid::from_raw(command.cast_signed()).unwrap(), Signal::KILL);
        }
        let killed = reaper.wait().unwrap().code() == Some(137);
        assert!(killed || point == "pages-1.img" || point == "inventory.img", "{point}");
        if killed && point == "begin" {
            assert_eq!(seal(&bench.path("saved")), good, "{point}");
        }
        let list = bench.run(&["list", "--json", "saved"]).ended(0).objects();
        assert_eq!(list.len(), 1, "{list:?}");
        assert!(state(target.pid).is_some_and(|state| state != 'T'), "{point}");
    }
    // The next one takes away what was left.
    bench.run(&["save", "--clobber", "--dir", "saved", &id]).ended(0);
    let left = names(bench.home.path());
    assert!(left.iter().all(|name| !name.contains(".new-")), "{left:?}");
    assert_eq!(target.go_on().code(), Some(0));
    bench.good();
    assert_eq!(bench.restore(&[]).code(), Some(0));
    bench.good();
}

/// The names of those that `--every` made.
fn numbers(base: &Path) -> Vec<String> {
    names(base).into_iter().filter(|name| name.parse::<u32>().is_ok()).collect()
}

#[test]
fn again_and_again_the_newest_stay() {
    let Some(bench) = Bench::new("every") else { return };
    let mut target = bench.target("plain");
    let every = ["save", "--json", "--every", "50ms", "--keep", "2", "--dir", "saved", &target.id()];
    let mut saving = Running::start(&mut bench.command(&every), |command| command.spawn().unwrap());
    for number in 1..=4 {
        let told = saving.object().unwrap();
        assert_eq!(told["checkpoint"], bench.text(&format!("saved/{number:06}")));
    }
    let (rest, code) = saving.interrupt();
    assert_eq!(code, Some(0));
    let last = 4 + rest.len();
    let base = bench.path("saved");
    assert_eq!(numbers(&base), [format!("{:06}", last - 1), format!("{last:06}")]);
    assert_eq!(fs::read_link(base.join("latest")).unwrap(), Path::new(&format!("{last:06}")));
    assert_eq!(bench.run(&["list", "--json", "saved"]).ended(0).objects().len(), 2);
    bench.run(&["save", "--dir", "saved", "--clobber", &target.id()]).failed(2, &["no checkpoint"]);

    // It goes on counting, and ends when the process does.
    let mut saving = Running::start(&mut bench.command(&every), |command| command.spawn().unwrap());
    assert_eq!(saving.object().unwrap()["checkpoint"], bench.text(&format!("saved/{:06}", last + 1)));
    target.signal(Signal::KILL);
    target.child.wait().unwrap();
    assert_eq!(saving.end().1, Some(0));
    // The newest is what is restored.
    assert_eq!(bench.restore(&[]).code(), Some(0));
    bench.good();
}

#[test]
fn a_program_that_is_run_is_saved_meanwhile() {
    let Some(bench) = Bench::new("run_every") else { return };
    let out = fs::File::create(bench.path("out")).unwrap();
    let run = bench.start(&["run", "--every", "50ms", "--keep", "2", "--dir", "saved", "--"], |run| {
        run.arg(program()).arg("clocks").arg(bench.home.path()).stdout(out.try_clone().unwrap()).stderr(out);
    });
    let pid = bench.ready();
    // One that was begun after it was ready.
    let ready = fs::metadata(bench.path("ready")).unwrap().modified().unwrap();
    let latest = bench.path("saved/latest/steadfast.json");
    let newer = || fs::metadata(&latest).and_then(|file| file.modified()).is_ok_and(|made| made > ready);
    until("a checkpoint", || newer().then_some(()));
    let first = fs::read_link(bench.path("saved/latest")).unwrap();
    until("two more", || {
        let number = |path: &Path| path.to_str().unwrap().parse::<u32>().unwrap();
        let now = fs::read_link(bench.path("saved/latest")).ok()?;
        (number(&now) >= number(&first) + 2).then_some(())
    });
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::USR1).unwrap();
    assert_eq!(run.wait().code(), Some(0));
    bench.good();
    assert!(numbers(&bench.path("saved")).len() <= 2);
    assert_eq!(bench.restore(&[]).code(), Some(0));
    bench.good();
}

/// A session that was begun outside of the PID namespace cannot be saved; a program that is run there begins its own.
#[test]
fn a_program_that_is_run_in_a_container_is_saved_meanwhile() {
    let Some(bench) = Bench::new("run_contained") else { return };
    // What is open in it has to be opened inside as well.
    let inside = r#"
        for open in /proc/$$/fd/*; do open=${open##*/}; if [ "$open" -gt 2 ]; then eval "exec $open>&-"; fi; done
        exec </dev/null >out 2>&1; "$@"; echo "ended with $?"
    "#;
    let words = bench.command(&["run", "--every", "50ms", "--dir", "saved", "--"]);
    // The session outside has no terminal either, wherever the tests run.
    let mut run = Command::new("setsid");
    run.args(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", inside, "bash"]);
    run.arg(words.get_program()).args(words.get_args()).arg(program()).arg("plain").arg(bench.home.path());
    run.envs(words.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let run = Working(run.current_dir(bench.home.path()).spawn().unwrap());
    until("a checkpoint", || bench.path("saved/latest/steadfast.json").exists().then_some(()));
    // Its number is that of the inside.
    let pid = bench.ready().to_string();
    let told = fs::read_to_string(bench.path("out")).unwrap();
    assert_eq!(told, "", "process {pid}");
    drop(run);
}
