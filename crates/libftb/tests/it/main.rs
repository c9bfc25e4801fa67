//! C programs of the shapes that FTB's users have, compiled against the headers and the built library, against the real core
//! of an agent.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers too")]

#[path = "../../../agent-client/tests/it/agent.rs"]
mod agent;

use std::env;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use agent::{Directory, TestAgent};
use steadfast_agent_client::{Client, Settings};
use steadfast_backplane::{Client as Name, Declaration, Kind, Payload, Publication};

/// More than anything here takes.
const GUARD: Duration = Duration::from_secs(60);

/// A directory with the library under the names by which it is looked for.
struct Bench {
    directory: Directory,
}

impl Bench {
    fn new() -> Self {
        let directory = Directory::new();
        let built = env::current_exe().unwrap().with_file_name("libftb.so");
        assert!(built.exists(), "{} is not there", built.display());
        for name in ["libftb.so", "libftb.so.0"] {
            std::os::unix::fs::symlink(&built, directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    fn agent(&self) -> TestAgent {
        TestAgent::start(&self.socket())
    }

    /// The command that runs a program of `tests/c`.
    fn program(&self, name: &str) -> Command {
        let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let binary = self.directory.path().join(name);
        if !binary.exists() {
            let mut compiler = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
            compiler.args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-pthread"]);
            compiler.arg("-I").arg(crate_root.join("include")).arg("-o").arg(&binary);
            compiler.arg(crate_root.join("tests/c").join(name).with_extension("c"));
            compiler.arg("-L").arg(self.directory.path()).arg("-lftb");
            let output = compiler.output().expect("a C compiler, which cargo itself needs");
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let mut command = Command::new("timeout");
        command.arg(GUARD.as_secs().to_string()).arg(&binary);
        command.env("LD_LIBRARY_PATH", self.directory.path()).env("STEADFAST_AGENT", self.socket());
        command.env("STEADFAST_LOG", "1");
        command
    }

    /// Runs to the end; what it wrote.
    fn run(&self, name: &str, arguments: &[&str]) -> String {
        let output = self.program(name).args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} {arguments:?}: {} {errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    fn start(&self, name: &str, arguments: &[&str]) -> Running {
        let mut command = self.program(name);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines }
    }

    fn publisher(&self) -> Client {
        let settings = Settings { path: self.socket(), limit: GUARD, ..Settings::default() };
        let name = Name { name: "tester".parse().unwrap(), job: "7".parse().unwrap(), extension: 0 };
        let mut client = Client::connect(settings, "FTB.x.tester".parse().ok(), name).unwrap();
        let events = [("A", "info"), ("B", "fatal"), ("C", "info")];
        let events = events.map(|(name, severity)| Declaration::new(name, severity).unwrap());
        client.declare(None, events.to_vec()).unwrap();
        client
    }
}

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn line(&mut self) -> Option<String> {
        self.lines.next().map(Result::unwrap)
    }

    fn expect(&mut self, line: &str) {
        assert_eq!(self.line().as_deref(), Some(line));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // `timeout` hands the signal on.
        let pid = self.child.id().to_string();
        let _gone = Command::new("kill").arg(pid).status();
        let _ended = self.child.wait();
    }
}

fn publication(name: &str, payload: Vec<u8>) -> Publication {
    let payload = Payload::new(payload.into()).unwrap();
    Publication { name: name.parse().unwrap(), kind: Kind::Plain, payload }
}

#[test]
fn sizes_and_offsets_are_ftbs() {
    assert_eq!(Bench::new().run("abi", &[]), "0.6.2\n");
}

#[test]
fn return_codes_are_ftbs() {
    let bench = Bench::new();
    let _agent = bench.agent();
    assert_eq!(bench.run("codes", &[]), "done\n");
}

#[test]
fn events_are_answered_by_their_handles() {
    let bench = Bench::new();
    let _agent = bench.agent();
    let mut server = bench.start("answer", &["server"]);
    server.expect("ready");
    assert_eq!(bench.run("answer", &["client"]), "done\n");
}

#[test]
fn callbacks_publish() {
    let bench = Bench::new();
    let _agent = bench.agent();
    let mut server = bench.start("pingpong", &["server"]);
    server.expect("ready");
    assert_eq!(bench.run("pingpong", &["client"]), "done\n");
}

#[test]
fn a_schema_file_declares() {
    let bench = Bench::new();
    let _agent = bench.agent();
    // A shell would run this.
    let schema = bench.directory.path().join("$(touch x);schema");
    let text = "# what the watchdog tells\n\nstart\nftb.ftb_examples.WATCHDOG\nWATCH_DOG_EVENT error\nend\n";
    std::fs::write(&schema, text).unwrap();
    assert_eq!(bench.run("watchdog", &[schema.to_str().unwrap()]), "done\n");
}

#[test]
fn callbacks_end_themselves_and_their_clients() {
    let bench = Bench::new();
    let _agent = bench.agent();
    assert_eq!(bench.run("callbacks", &[]), "done\n");
}

#[test]
fn nothing_is_left_of_a_publisher() {
    let bench = Bench::new();
    assert_eq!(bench.run("blcr", &["nobody"]), "nobody\n");
    let agent = bench.agent();
    assert_eq!(bench.run("blcr", &[]), "done\n");
    let begun = Instant::now();
    while agent.metrics().published != 40 {
        assert!(begun.elapsed() < GUARD, "two in each of twenty rounds: {:?}", agent.metrics());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_newest_stay_in_a_short_queue() {
    let bench = Bench::new();
    let _agent = bench.agent();
    assert_eq!(bench.run("queue", &[]), "done\n");
}

#[test]
fn names_and_fields_as_mpich_has_them() {
    let bench = Bench::new();
    let _agent = bench.agent();
    assert_eq!(bench.run("mpich", &[]), "done\n");
}

#[test]
fn a_child_has_a_connection_of_its_own() {
    let bench = Bench::new();
    let _agent = bench.agent();
    assert_eq!(bench.run("forks", &[]), "done\n");
}

#[test]
fn a_child_holds_nothing_of_its_parents_callbacks() {
    let bench = Bench::new();
    let _agent = bench.agent();
    assert_eq!(bench.run("forks_callbacks", &[]), "done\n");
}

#[test]
fn a_child_holds_nothing_of_what_other_threads_open() {
    let bench = Bench::new();
    let _agent = bench.agent();
    assert_eq!(bench.run("forks_connecting", &[]), "done\n");
}

/// A payload beyond FTB's room comes with its beginning.
#[test]
fn everything_is_logged_as_far_as_it_fits() {
    let bench = Bench::new();
    let _agent = bench.agent();
    let mut client = bench.publisher();
    let mut logger = bench.start("logger", &["0", "", "3"]);
    logger.expect("ready");
    for (name, length) in [("A", 0), ("b", 368), ("C", 60_000)] {
        client.publish(publication(name, vec![1; length])).unwrap();
    }
    logger.expect("FTB.x.tester A info tester 1 0");
    logger.expect("FTB.x.tester B fatal tester 2 368");
    logger.expect("FTB.x.tester C info tester 3 368");
    assert_eq!(logger.line(), None);
}

/// FTB 0.6.2 ignores the severity beside the name.
#[test]
fn the_quirk_is_a_switch() {
    let bench = Bench::new();
    let _agent = bench.agent();
    let mut client = bench.publisher();
    let wanted = ["0", "event_name=b,severity=info", "1"];
    let mut strict = bench.start("logger", &wanted);
    let mut quirk = bench.program("logger");
    quirk.args(wanted).env("STEADFAST_FTB_QUIRK", "1").stdout(Stdio::piped());
    strict.expect("ready");
    let mut child = quirk.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    client.publish(publication("B", Vec::new())).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "FTB.x.tester B fatal tester 1 0");
    assert!(child.wait().unwrap().success());
    // The other one heard nothing, and would hear this.
    let mut other = bench.start("logger", &["0", "event_name=b", "1"]);
    other.expect("ready");
    client.publish(publication("B", Vec::new())).unwrap();
    other.expect("FTB.x.tester B fatal tester 2 0");
    assert!(strict.child.try_wait().unwrap().is_none());
}

#[test]
fn callbacks_hear_again_when_the_agent_is_back() {
    let bench = Bench::new();
    let mut agent = bench.agent();
    let mut listener = bench.start("listener", &[]);
    listener.expect("ready");
    for name in ["A", "B", "C"] {
        bench.publisher().publish(publication(name, Vec::new())).unwrap();
        listener.expect(name);
        drop(agent);
        agent = bench.agent();
        // Before the listener has come back, perhaps: it hears it all the same.
        bench.publisher().publish(publication(name, Vec::new())).unwrap();
        listener.expect(name);
    }
    drop(listener.child.stdin.take());
    listener.expect("done");
}

/// Within some seconds, whatever the agent does; and without it the program goes on.
#[test]
fn a_stopped_agent_stops_nobody() {
    let bench = Bench::new();
    let agent = bench.agent();
    let mut listener = bench.start("listener", &[]);
    listener.expect("ready");
    agent.pause(true);
    drop(listener.child.stdin.take());
    listener.expect("done");
    let begun = Instant::now();
    let output = bench.program("queue").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("gives -20"));
    assert!(begun.elapsed() < GUARD);
}
