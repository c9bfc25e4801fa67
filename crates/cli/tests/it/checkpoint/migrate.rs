//! A process that counts with its peer moves to another host while it does. The other host is a network namespace with a PID
//! namespace in it, or the numbers of the old process would be in the way of the new one.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use steadfast::{Endpoint, Labels, MultiSocket, ScoutConfig, Target};
use steadfast_checkpoint::{Class, Criu, Errno, Moving, Refusal, Said};
use steadfast_testbed::{Link, isolated};
use steadfast_transfer::{Receiver, Store};

use super::conversations::{DONE, World};
use super::{Bench, state, until};
use crate::common::{Home, Run, Running};
use crate::daemon;
use crate::transfer::contact_of;

/// The world of a process that counts, with a network between the two hosts.
struct Hosts {
    world: World,
    /// Of the host where it is to go.
    there: Home,
    link: Link,
}

impl Hosts {
    fn new(path: &str) -> Self {
        let world = World::new(Bench::new(path).unwrap());
        let [a, b] = &world.hosts;
        // So slow that something can happen before all is there.
        let link = world.lab.link("between", a, b).rate_mbit(8.0).connect().unwrap();
        let there = Home::new();
        for home in [&world.bench.home, &there] {
            home.write("config.toml", "[networks.lo]\nignore = true\n");
        }
        let key = there.key().to_string();
        world.bench.home.run(&["trust", "add", &key, "there"]).ended(0);
        Self { world, there, link }
    }

    fn here(&self) -> String {
        self.world.bench.home.key().to_string()
    }

    fn pid(&self) -> String {
        self.world.pid.to_string()
    }

    /// `accept`, with somebody else as the first process of its PID namespace.
    fn accept(&self, more: &[&str]) -> (Running, String) {
        self.accept_with(&self.world.bench.criu, more)
    }

    fn accept_with(&self, criu: &Path, more: &[&str]) -> (Running, String) {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
        command.arg("\"$@\"; echo \"{\\\"exit\\\":$?}\"; exec sleep 1000").arg("sh");
        self.accept_in(command, criu, more)
    }

    fn accept_in(&self, mut command: Command, criu: &Path, more: &[&str]) -> (Running, String) {
        let program = self.there.command(&["checkpoint", "accept", "--json", "--dir"]);
        command.arg(program.get_program()).args(program.get_args()).arg(self.arrivals()).args(more);
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("STEADFAST_CRIU", criu).env("STEADFAST_AGENT", self.there.path().join("no-agent"));
        command.stdin(Stdio::null());
        let mut running = Running::start(&mut command, |command| self.world.hosts[1].spawn(command).unwrap());
        let contact = contact_of(&mut running);
        (running, contact)
    }

    fn arrivals(&self) -> PathBuf {
        self.there.path().join("arrivals")
    }

    /// Files that came and are still there.
    fn arrived(&self) -> Vec<PathBuf> {
        let below = |place: &Path| -> Vec<PathBuf> {
            fs::read_dir(place).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
        };
        below(&self.arrivals()).iter().flat_map(|place| below(place)).collect()
    }

    /// Where images lie of what goes away.
    fn leaving(&self) -> PathBuf {
        self.world.bench.path(".local/state/steadfast/migrating").join(self.pid())
    }

    fn migrate(&self, contact: &str, more: &[&str]) -> Running {
        let mut command = self.world.bench.command(&["migrate", "--json"]);
        command.args(more).args([&self.pid(), contact]).stderr(Stdio::null());
        Running::start(&mut command, |command| self.world.hosts[0].spawn(command).unwrap())
    }

    /// Waits until some of it is there, and not all.
    fn in_the_middle(migrating: &mut Running) {
        migrating.until("some of it", |object| {
            assert_ne!(object["stage"], "restoring", "too fast: {object}");
            object["stage"] == "copying" && object["bytes"].as_u64() > Some(0)
        });
    }

    /// It was not migrated, and goes on as if nothing had been.
    #[track_caller]
    fn goes_on_here(&mut self, migrating: Running, exit: i32, class: Option<&str>, words: &[&str]) {
        let (objects, code) = migrating.end();
        let last = objects.last().cloned().unwrap_or_default();
        assert_eq!((code, last["class"].as_str()), (Some(exit), class), "{last}");
        let error = last["error"].as_str().unwrap();
        let all = words.iter().chain(&["goes on here"]);
        assert!(all.into_iter().all(|word| error.contains(word)), "{words:?}: {error}");
        self.world.listener.goes_on();
        assert!(matches!(state(self.world.pid), Some('S' | 'R')));
        assert!(!self.leaving().exists());
    }

    /// It runs there.
    fn came(&mut self, migrating: Running, accepting: &mut Running) -> Value {
        let (objects, code) = migrating.end();
        let last = objects.last().cloned().unwrap_or_default();
        assert_eq!((code, &last["event"]), (Some(0), &"result".into()), "{last}");
        assert_eq!(
            (&last["pid"], &last["there"]),
            (&self.world.pid.into(), &self.world.pid.into()),
            "{last}"
        );
        let runs = accepting.until("that it runs", |object| object["event"] == "runs");
        assert_eq!(
            (&runs["pid"], &runs["faults"]),
            (&self.world.pid.into(), &serde_json::json!([])),
            "{runs}"
        );
        // What it was here has ended; its number may be anybody's.
        let _status = self.world.parent.wait().unwrap();
        assert!(!self.leaving().exists());
        self.world.pid = 0;
        self.world.listener.goes_on();
        last
    }

    /// Both sides of the conversation end as they should, the one that moved on the other host.
    fn ends(&mut self, accepting: &mut Running) {
        writeln!(self.world.listener.child.stdin.as_mut().unwrap(), "enough").unwrap();
        assert_eq!(self.world.listener.child.wait().unwrap().code(), Some(DONE));
        let ended = accepting.until("its end", |object| object["event"] == "ended");
        assert_eq!(ended["code"], DONE, "{ended}");
    }

    /// What the peer saw of so many suspensions, and nothing else.
    #[track_caller]
    fn was_suspended(&mut self, times: usize) {
        // What it prints of that may come after numbers that came later.
        let verdicts = until("all verdicts", || {
            let seen = self.world.listener.seen();
            (seen.len() >= 2 * times).then(|| seen.to_vec())
        });
        let expected = ["Suspended", "Alive"].iter().cycle();
        let good = verdicts.iter().zip(expected).all(|(verdict, expected)| verdict.starts_with(expected));
        assert!(verdicts.len() == 2 * times && good, "{verdicts:#?}");
    }
}

fn with(path: &str, body: impl FnOnce(Hosts)) {
    let Some(_bench) = Bench::new(path) else { return };
    isolated(path, || body(Hosts::new(path)));
}

#[test]
fn numbers_go_on_on_the_other_host() {
    with("checkpoint::migrate::numbers_go_on_on_the_other_host", |mut hosts| {
        // Each host has an agent.
        let agents = [daemon::home(), daemon::home()];
        let daemons = agents.each_ref().map(|home| daemon::daemon(home).0);
        for (agent, home) in agents.iter().zip([&hosts.world.bench.home, &hosts.there]) {
            symlink(agent.path().join("agent.sock"), home.path().join("no-agent")).unwrap();
        }
        let (mut accepting, contact) = hosts.accept(&["--from", &hosts.here(), "--once"]);
        let migrating = hosts.migrate(&contact, &[]);
        let result = hosts.came(migrating, &mut accepting);
        assert!(result["bytes"].as_u64() > Some(100_000), "{result}");
        assert_eq!(hosts.arrived(), Vec::<PathBuf>::new(), "images have secrets");
        hosts.ends(&mut accepting);
        let exit = accepting.until("its exit code", |object| !object["exit"].is_null());
        assert_eq!(exit["exit"], DONE, "it ends as the program does");
        hosts.was_suspended(1);
        let [here, there] = agents.each_ref().map(published);
        assert_eq!(here, ["CHKPT_BEGIN", "CHKPT_END"]);
        assert_eq!(there, ["RSTRT_BEGIN", "RSTRT_END"]);
        for daemon in daemons {
            assert_eq!(daemon.interrupt().1, Some(0));
        }
    });
}

/// The names of what the agent of a host was told.
fn published(home: &Home) -> Vec<String> {
    let words = ["events", "tail", "--json", "-n", "100", "event_space=FTB.checkpoint_sw.blcr"];
    let all = Run::of(&mut daemon::command(home, &words)).ended(0).objects();
    let name = |event: &Value| event["type"].as_str()?.rsplit('.').next().map(str::to_owned);
    all.iter().filter_map(name).collect()
}

#[test]
fn a_network_that_is_gone_for_a_while_ends_nothing() {
    with("checkpoint::migrate::a_network_that_is_gone_for_a_while_ends_nothing", |mut hosts| {
        let hooked = hosts.there.path().join("hooked");
        let hook = format!("echo $STEADFAST_PID > {}", hooked.display());
        let pid = hosts.pid();
        // An older one, of the same number.
        let older = hosts.arrivals().join(format!("{}.{pid}", &hosts.here()[..8]));
        fs::create_dir_all(&older).unwrap();
        fs::set_permissions(hosts.arrivals(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(older.join("steadfast.json"), "older").unwrap();
        let (mut accepting, contact) =
            hosts.accept(&["--from", &hosts.here(), "--keep", "--on-success", &hook]);
        let mut migrating = hosts.migrate(&contact, &[]);
        Hosts::in_the_middle(&mut migrating);
        hosts.link.carrier_down(&hosts.world.hosts[0]).unwrap();
        // The path is down, and the bytes stand still.
        let before = std::cell::Cell::new(0);
        migrating.until("a standstill", |object| {
            let now = object["bytes"].as_u64().unwrap_or(0);
            before.replace(now) == now && object["rate"] == 0
        });
        assert!(!hosts.arrived().is_empty());
        hosts.link.carrier_up(&hosts.world.hosts[0]).unwrap();
        hosts.came(migrating, &mut accepting);
        let told = until("the hook", || fs::read_to_string(&hooked).ok().filter(|told| !told.is_empty()));
        assert_eq!(told.trim(), pid);
        let kept = hosts.arrived();
        assert!(
            kept.iter().any(|path| path.parent() == Some(&older) && path.ends_with("steadfast.json")),
            "{kept:?}"
        );
        let before = older.with_file_name(format!("{}.~1~", older.file_name().unwrap().to_str().unwrap()));
        assert_eq!(fs::read_to_string(before.join("steadfast.json")).unwrap(), "older");
        hosts.ends(&mut accepting);
        hosts.was_suspended(1);
        // It would take another one.
        terminate(&accepting);
        let exit = accepting.until("its exit code", |object| object["event"].is_null());
        assert_eq!(exit["exit"], 0);
    });
}

/// Ends what runs as the second process of a PID namespace, as a system does.
fn terminate(accepting: &Running) {
    kill_process(inside(accepting), Signal::TERM).unwrap();
}

/// The number of `accept`, below `unshare` and the first process of the namespace.
fn inside(accepting: &Running) -> Pid {
    let child = |of: u32| {
        until("a child", || {
            let all = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
            all.split_whitespace().next()?.parse().ok()
        })
    };
    Pid::from_raw(child(child(accepting.pid())).cast_signed()).unwrap()
}

#[test]
fn whoever_is_not_named_migrates_nothing() {
    with("checkpoint::migrate::whoever_is_not_named_migrates_nothing", |mut hosts| {
        let somebody = Home::new();
        // Trusted, for conversations and files.
        hosts.there.run(&["trust", "add", &hosts.here(), "here"]).ended(0);
        let from = somebody.key().to_string();
        let (mut accepting, contact) = hosts.accept(&["--from", &from]);
        let words = ["not let this host", "--from"];
        hosts.goes_on_here(hosts.migrate(&contact, &[]), 3, Some("environment"), &words);
        let refused = accepting.until("that it was refused", |object| object["event"] == "refused");
        assert_eq!(refused["key"], hosts.here());
        drop(accepting);
        // Somebody who is not trusted at all does not come so far.
        hosts.there.run(&["trust", "remove", "here"]).ended(0);
        let (mut accepting, contact) = hosts.accept(&["--from", &from]);
        hosts.goes_on_here(hosts.migrate(&contact, &[]), 3, None, &["trust"]);
        accepting.until("that it was refused", |object| object["event"] == "refused");
        assert_eq!(hosts.arrived(), Vec::<PathBuf>::new());
        assert_eq!(hosts.world.listener.seen(), Vec::<String>::new(), "it was never frozen");
        // Nor is anybody known by that name.
        let mut accept = hosts.there.command(&["checkpoint", "accept", "--from", "nobody"]);
        accept.env("STEADFAST_CRIU", &hosts.world.bench.criu);
        Run::of(&mut accept).failed(2, &["`nobody`", "steadfast trust add"]);
    });
}

#[test]
fn what_would_not_fit_is_told_before_anything_is_frozen() {
    with("checkpoint::migrate::what_would_not_fit_is_told_before_anything_is_frozen", |mut hosts| {
        let from = hosts.here();
        {
            // In this PID namespace the number is in use, by the process itself.
            let (_accepting, contact) =
                hosts.accept_in(Command::new("env"), &hosts.world.bench.criu, &["--from", &from]);
            let words = ["could not take it", "its number is in use"];
            hosts.goes_on_here(hosts.migrate(&contact, &[]), 1, Some("temporary"), &words);
        }
        let (_accepting, contact) = hosts.accept(&["--from", &from, "--max-size", "1000"]);
        hosts.goes_on_here(
            hosts.migrate(&contact, &[]),
            1,
            Some("temporary"),
            &["1.0 kB may come", "--max-size"],
        );
        assert_eq!(hosts.arrived(), Vec::<PathBuf>::new());
        assert_eq!(hosts.world.listener.seen(), Vec::<String>::new(), "it was never frozen");
        let nothing = hosts.world.bench.command(&["migrate", "4194303", &contact]).output().unwrap();
        assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
        fs::create_dir(hosts.world.bench.path("taken")).unwrap();
        let pid = hosts.pid();
        let taken = ["migrate", "--dir", "taken", &pid, &contact];
        hosts.world.bench.run(&taken).failed(2, &["there is a taken already"]);
    });
}

#[test]
fn a_host_that_dies_in_the_middle() {
    with("checkpoint::migrate::a_host_that_dies_in_the_middle", |mut hosts| {
        let from = hosts.here();
        let (accepting, contact) = hosts.accept(&["--from", &from]);
        let mut migrating = hosts.migrate(&contact, &[]);
        Hosts::in_the_middle(&mut migrating);
        kill_process(inside(&accepting), Signal::KILL).unwrap();
        hosts.goes_on_here(migrating, 4, Some("temporary"), &["was lost before", "crashed"]);
        drop(accepting);
        assert!(!hosts.arrived().is_empty(), "nobody could remove them");
        let (mut accepting, contact) = hosts.accept(&["--from", &from]);
        assert_eq!(hosts.arrived(), Vec::<PathBuf>::new(), "the next one does");
        let migrating = hosts.migrate(&contact, &[]);
        hosts.came(migrating, &mut accepting);
        hosts.ends(&mut accepting);
        hosts.was_suspended(2);
    });
}

#[test]
fn interrupted_in_the_middle() {
    with("checkpoint::migrate::interrupted_in_the_middle", |mut hosts| {
        let (mut accepting, contact) = hosts.accept(&["--from", &hosts.here()]);
        let mut migrating = hosts.migrate(&contact, &[]);
        Hosts::in_the_middle(&mut migrating);
        kill_process(Pid::from_raw(migrating.pid().cast_signed()).unwrap(), Signal::INT).unwrap();
        hosts.goes_on_here(migrating, 5, None, &["interrupted"]);
        accepting.until("that nothing came of it", |object| object["event"] == "failed");
        until("nothing that is left", || hosts.arrived().is_empty().then_some(()));
        // The one that accepts is stopped in the middle.
        let mut migrating = hosts.migrate(&contact, &[]);
        Hosts::in_the_middle(&mut migrating);
        terminate(&accepting);
        hosts.goes_on_here(migrating, 4, Some("temporary"), &["was lost before"]);
        until("nothing that is left", || hosts.arrived().is_empty().then_some(()));
        hosts.was_suspended(2);
        // Not in time.
        let (accepting, contact) = hosts.accept(&["--from", &hosts.here()]);
        hosts.link.set(|settings| settings.rate = Some(100_000));
        let migrating = hosts.migrate(&contact, &["--timeout", "4s"]);
        hosts.goes_on_here(migrating, 4, Some("temporary"), &["--timeout"]);
        drop(accepting);
    });
}

/// Whoever lets it go on makes its images old.
#[test]
fn continued_in_the_middle() {
    with("checkpoint::migrate::continued_in_the_middle", |mut hosts| {
        let (_accepting, contact) = hosts.accept(&["--from", &hosts.here()]);
        let mut migrating = hosts.migrate(&contact, &[]);
        Hosts::in_the_middle(&mut migrating);
        kill_process(Pid::from_raw(hosts.world.pid.cast_signed()).unwrap(), Signal::CONT).unwrap();
        hosts.goes_on_here(migrating, 1, Some("temporary"), &["was continued while"]);
        until("nothing that is left", || hosts.arrived().is_empty().then_some(()));
    });
}

/// Images hold secrets: what was killed leaves them to the next one.
#[test]
fn what_was_killed_in_the_middle_leaves_nothing_for_good() {
    with("checkpoint::migrate::what_was_killed_in_the_middle_leaves_nothing_for_good", |mut hosts| {
        let (mut accepting, contact) = hosts.accept(&["--from", &hosts.here()]);
        let mut migrating = hosts.migrate(&contact, &[]);
        Hosts::in_the_middle(&mut migrating);
        kill_process(Pid::from_raw(migrating.pid().cast_signed()).unwrap(), Signal::KILL).unwrap();
        let (_objects, code) = migrating.end();
        assert_eq!(code, None);
        until("nothing that is left there", || hosts.arrived().is_empty().then_some(()));
        assert_eq!(state(hosts.world.pid), Some('T'));
        let images = hosts.leaving().join("images");
        assert!(images.join("steadfast.json").exists(), "nobody could remove them");
        // Of another one that is gone, too.
        let other = hosts.leaving().with_file_name("4194303");
        fs::create_dir_all(other.join("images")).unwrap();
        kill_process(Pid::from_raw(hosts.world.pid.cast_signed()).unwrap(), Signal::CONT).unwrap();
        hosts.world.listener.goes_on();
        let migrating = hosts.migrate(&contact, &[]);
        hosts.came(migrating, &mut accepting);
        assert!(!other.exists());
    });
}

/// As a migration of another host would, up to where that saves.
fn somebody_comes(
    hosts: &Hosts,
    home: &Home,
    contact: &str,
) -> (tokio::sync::oneshot::Sender<()>, JoinHandle<()>) {
    let (identity, contact) = (home.file("identity"), contact.to_owned());
    let (done, until_done) = tokio::sync::oneshot::channel::<()>();
    let (told, welcome) = std::sync::mpsc::channel();
    let criu = Criu::at(hosts.world.bench.criu.clone());
    let mut ask = Moving::look(&criu, hosts.world.pid).unwrap().ask;
    ask.numbers.clear();
    let thread = hosts.world.hosts[0].thread("somebody", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
            let builder = Endpoint::builder().identity_file(identity).scout(scout);
            let endpoint = builder.daemon(None).bind().await.unwrap();
            let socket = endpoint.connect(contact.parse::<Target>().unwrap()).await.unwrap();
            let _receipt = socket.send(Said::Ask(ask).encode(), Labels::foreground()).await.unwrap();
            let answer = Said::decode(socket.recv().await.unwrap().unwrap().payload().unwrap()).unwrap();
            told.send(answer).unwrap();
            let _either = until_done.await;
        });
    });
    assert!(matches!(welcome.recv().unwrap(), Said::Welcome { .. }));
    (done, thread)
}

#[test]
fn who_takes_one_takes_no_second_meanwhile() {
    with("checkpoint::migrate::who_takes_one_takes_no_second_meanwhile", |mut hosts| {
        let somebody = Home::new();
        let other = somebody.key().to_string();
        let (mut accepting, contact) = hosts.accept(&["--from", &hosts.here(), "--from", &other, "--once"]);
        let (done, thread) = somebody_comes(&hosts, &somebody, &contact);
        let words = ["takes one program", "try again"];
        hosts.goes_on_here(hosts.migrate(&contact, &[]), 1, Some("temporary"), &words);
        drop(done);
        thread.join().unwrap();
        accepting.until("that nothing came", |object| object["event"] == "failed");
        let migrating = hosts.migrate(&contact, &[]);
        hosts.came(migrating, &mut accepting);
        hosts.ends(&mut accepting);
    });
}

/// The first process of a PID namespace stays for the program; and nobody has to read what is said.
#[test]
fn what_came_outlives_who_accepted_it() {
    with("checkpoint::migrate::what_came_outlives_who_accepted_it", |mut hosts| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        let from = hosts.here();
        let (mut accepting, contact) = hosts.accept_in(command, &hosts.world.bench.criu, &["--from", &from]);
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = hosts.world.bench.command(&["migrate", &hosts.pid(), &contact]);
        let migrating = hosts.world.hosts[0].spawn(command.stdout(full).stderr(Stdio::null())).unwrap();
        assert_eq!({ migrating }.wait().unwrap().code(), Some(0), "it runs there");
        accepting.until("that it runs", |object| object["event"] == "runs");
        let _status = hosts.world.parent.wait().unwrap();
        hosts.world.pid = 0;
        kill_process(inside(&accepting), Signal::INT).unwrap();
        accepting.until("its end", |object| object["event"] == "stopped");
        hosts.world.listener.goes_on();
        writeln!(hosts.world.listener.child.stdin.as_mut().unwrap(), "enough").unwrap();
        assert_eq!(hosts.world.listener.child.wait().unwrap().code(), Some(DONE));
        assert_eq!(accepting.end().1, Some(0));
    });
}

#[test]
fn damaged_images_are_not_restored() {
    with("checkpoint::migrate::damaged_images_are_not_restored", |mut hosts| {
        let hooked = hosts.there.path().join("hooked");
        let hook = format!("touch {}", hooked.display());
        let (mut accepting, contact) = hosts.accept(&["--from", &hosts.here(), "--on-permanent", &hook]);
        let migrating = hosts.migrate(&contact, &[]);
        // One that is there with its name is not looked at again until all are.
        let core = until("a core", || {
            let is_core = |path: &PathBuf| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core-"))
            };
            hosts.arrived().into_iter().find(is_core)
        });
        let mut content = fs::read(&core).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(&core, content).unwrap();
        hosts.goes_on_here(migrating, 1, Some("permanent"), &["could not take it", "damaged", "core-"]);
        let failed = accepting.until("that it failed", |object| object["event"] == "failed");
        assert!(failed["error"].as_str().unwrap().contains("damaged"), "{failed}");
        until("the hook", || hooked.exists().then_some(()));
        until("nothing that is left", || hosts.arrived().is_empty().then_some(()));
    });
}

/// Between the order to restore and the answer nobody knows, and so it runs nowhere until somebody has looked.
#[test]
fn where_the_answer_is_never_known_it_stays_stopped() {
    with("checkpoint::migrate::where_the_answer_is_never_known_it_stays_stopped", |mut hosts| {
        let slow = hosts.world.bench.path("slow-criu");
        let begun = hosts.world.bench.path("begun");
        let script = format!(
            "#!/bin/sh\nif grep -q adopt /proc/$PPID/cmdline; then touch {}; exec sleep 1000; fi\nexec {} \"$@\"\n",
            begun.display(),
            hosts.world.bench.criu.display()
        );
        fs::write(&slow, script).unwrap();
        fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
        let (accepting, contact) = hosts.accept_with(&slow, &["--from", &hosts.here()]);
        let migrating = hosts.migrate(&contact, &[]);
        until("a restore that begins", || begun.exists().then_some(()));
        // Whoever says so now does not make it run twice.
        kill_process(Pid::from_raw(hosts.world.pid.cast_signed()).unwrap(), Signal::CONT).unwrap();
        assert_eq!(state(hosts.world.pid), Some('t'));
        kill_process(inside(&accepting), Signal::KILL).unwrap();
        let (objects, code) = migrating.end();
        let last = objects.last().unwrap();
        assert_eq!((code, last["class"].as_str()), (Some(6), Some("unknown")), "{last}");
        let (words, pid) = (last["error"].as_str().unwrap(), hosts.pid());
        for part in ["not known", "crashed", &format!("kill -KILL {pid}"), &format!("kill -CONT {pid}")] {
            assert!(words.contains(part), "{part}: {words}");
        }
        until("a process that is stopped", || (state(hosts.world.pid) == Some('T')).then_some(()));
        let images = hosts.leaving().join("images");
        assert!(images.join("steadfast.json").exists(), "the last of it, if this host goes down, too");
        assert_eq!(hosts.world.listener.seen().len(), 1, "it was never let go on");
        // The next one does not remove that, and says so.
        assert!(!hosts.arrived().is_empty(), "who restores it needs that");
        drop(accepting);
        let (_accepting, contact) = hosts.accept(&["--from", &hosts.here()]);
        assert_eq!(hosts.arrived(), Vec::<PathBuf>::new(), "nobody does any more");
        let again = hosts.world.bench.run(&["migrate", &pid, &contact]).ended(2);
        let place = hosts.leaving().display().to_string();
        assert!(
            again.err.contains("never known whether it runs there") && again.err.contains(&place),
            "{again:?}"
        );
        assert!(images.join("steadfast.json").exists());
        // Somebody looks, and says where it goes on.
        kill_process(Pid::from_raw(hosts.world.pid.cast_signed()).unwrap(), Signal::CONT).unwrap();
        hosts.world.listener.goes_on();
    });
}

/// How a side that accepts behaves otherwise than `accept`.
#[derive(Clone, Copy, PartialEq)]
enum Play {
    /// It says that the process runs, before it has anything of it.
    Lies,
    /// It has everything, and does not take the order to restore.
    Waits,
    /// It takes the order, and cannot restore.
    Fails,
}

impl Hosts {
    /// Plays the other side until `done`; where it listens.
    fn pretend(&self, play: Play, done: tokio::sync::oneshot::Receiver<()>) -> (JoinHandle<()>, String) {
        let (identity, key) = (self.there.file("identity"), self.world.bench.home.key());
        let place = self.there.path().join("pretended");
        let (told, contact) = std::sync::mpsc::channel();
        let thread = self.world.hosts[1].thread("pretender", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let scout = ScoutConfig { nmcli: None, ..ScoutConfig::default() };
                let builder = Endpoint::builder().identity_file(identity).trust(key).scout(scout);
                let endpoint = builder.daemon(None).bind().await.unwrap();
                told.send(endpoint.contact()).unwrap();
                // It ends the conversation when that is dropped.
                let socket = endpoint.accept().await.unwrap();
                act(play, &endpoint, &socket, &place).await;
                let _either = done.await;
            });
        });
        (thread, contact.recv().unwrap())
    }
}

async fn act(play: Play, endpoint: &Endpoint, socket: &MultiSocket, place: &Path) {
    let hear = async || Said::decode(socket.recv().await.unwrap().unwrap().payload().unwrap()).unwrap();
    let say = async |said: Said| drop(socket.send(said.encode(), Labels::foreground()).await.unwrap());
    assert!(matches!(hear().await, Said::Ask(_)));
    say(Said::Welcome { host: "there".to_owned() }).await;
    assert!(matches!(hear().await, Said::Images { .. }));
    if play == Play::Lies {
        return say(Said::Runs { pid: 1, faults: Vec::new() }).await;
    }
    say(Said::Send).await;
    let receiver = Receiver::new(Store::open(place, true).unwrap());
    let request = receiver.greet(endpoint.accept().await.unwrap()).await.unwrap();
    receiver.receive(request, Arc::default()).await.unwrap();
    if play == Play::Fails {
        assert_eq!(hear().await, Said::Go);
        let refusal = Refusal::new(Class::Permanent, Errno::EIO, "it does not please");
        say(Said::Failed(refusal)).await;
    }
}

#[test]
fn only_an_answer_to_the_order_ends_the_old_one() {
    with("checkpoint::migrate::only_an_answer_to_the_order_ends_the_old_one", |mut hosts| {
        hosts.link.set(|settings| settings.rate = None);
        let lies = (Play::Lies, 4, Some("temporary"), "broke the protocol");
        let fails = (Play::Fails, 1, Some("permanent"), "does not please");
        for (play, exit, class, words) in [lies, (Play::Waits, 5, None, "interrupted"), fails] {
            let (done, until_done) = tokio::sync::oneshot::channel();
            let (thread, contact) = hosts.pretend(play, until_done);
            let mut migrating = hosts.migrate(&contact, &[]);
            if play == Play::Waits {
                migrating.until("the order", |object| object["stage"] == "restoring");
                // What was not taken can be taken back.
                kill_process(Pid::from_raw(migrating.pid().cast_signed()).unwrap(), Signal::INT).unwrap();
            }
            hosts.goes_on_here(migrating, exit, class, &[words]);
            drop(done);
            thread.join().unwrap();
        }
        hosts.was_suspended(3);
    });
}
