//! A process that counts with its peer moves to another host while it does. The other host is a network namespace with a PID
//! namespace in it, or the numbers of the old process would be in the way of the new one.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use steadfast_testbed::{Link, isolated};

use super::conversations::{DONE, World};
use super::{Bench, state, until};
use crate::common::{Home, Running};
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

    fn migrate(&self, contact: &str, more: &[&str]) -> Running {
        let mut command = self.world.bench.command(&["migrate", "--json"]);
        command.args(more).args([&self.pid(), contact]).stderr(Stdio::null());
        Running::start(&mut command, |command| self.world.hosts[0].spawn(command).unwrap())
    }

    /// Waits until some of it is there, and not all.
    fn in_the_middle(&self, migrating: &mut Running) {
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
        assert!(!self.world.bench.path(&format!("migrate.{}", self.pid())).exists());
    }

    /// It runs there.
    fn came(&mut self, migrating: Running, accepting: &mut Running) -> Value {
        let (objects, code) = migrating.end();
        let last = objects.last().cloned().unwrap_or_default();
        assert_eq!((code, &last["event"]), (Some(0), &"result".into()), "{last}");
        assert_eq!((&last["pid"], &last["there"]), (&self.world.pid.into(), &self.world.pid.into()), "{last}");
        let runs = accepting.until("that it runs", |object| object["event"] == "runs");
        assert_eq!((&runs["pid"], &runs["faults"]), (&self.world.pid.into(), &serde_json::json!([])), "{runs}");
        // What it was here has ended; its number may be anybody's.
        let _status = self.world.parent.wait().unwrap();
        assert!(!self.world.bench.path(&format!("migrate.{}", self.pid())).exists());
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
    fn was_suspended(&self, times: usize) {
        let verdicts = &self.world.listener.verdicts;
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
        let (mut accepting, contact) = hosts.accept(&["--from", &hosts.here(), "--once"]);
        let migrating = hosts.migrate(&contact, &[]);
        let result = hosts.came(migrating, &mut accepting);
        assert!(result["bytes"].as_u64() > Some(100_000), "{result}");
        assert_eq!(hosts.arrived(), Vec::<PathBuf>::new(), "images have secrets");
        hosts.ends(&mut accepting);
        let exit = accepting.until("its exit code", |object| !object["exit"].is_null());
        assert_eq!(exit["exit"], DONE, "it ends as the program does");
        hosts.was_suspended(1);
    });
}
