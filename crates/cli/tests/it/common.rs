//! Running the program, in a home of its own and with somebody to talk to.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use steadfast::{Endpoint, Fingerprint, Identity, Override, ScoutConfig};
use tokio::runtime::Runtime;

/// Nothing that works is silent for so long, on however slow a machine.
const GUARD: Duration = Duration::from_secs(20);

/// The program under test.
pub(crate) fn steadfast() -> Command {
    Command::new(env!("CARGO_BIN_EXE_steadfast"))
}

/// Says why a test shows nothing here; where `CI` is set, that is a failure.
#[expect(clippy::print_stderr, reason = "a test that was skipped must say so in the output of the run")]
pub(crate) fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "nothing may be skipped where CI is set: {test}: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
}

/// A home directory of a test's own, removed at its end.
pub(crate) struct Home(PathBuf);

impl Home {
    /// Without any file.
    pub(crate) fn empty() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // In another PID namespace somebody may have the same number.
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("steadfast-cli-it-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}"),
            }
        }
    }

    /// With a key, and with a configuration that leaves the loopback only.
    pub(crate) fn new() -> Self {
        let home = Self::empty();
        home.configure("");
        Identity::load_or_create(&home.file("identity")).unwrap();
        home
    }

    /// Adds to a configuration that leaves the loopback only.
    pub(crate) fn configure(&self, more: &str) {
        let text = format!("{more}\n[networks.'*']\nignore = true\n[networks.'l?']\nignore = false\n");
        self.write("config.toml", &text);
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(".config/steadfast").join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.file("")).unwrap();
        fs::write(self.file(name), text).unwrap();
    }

    /// The key of its user.
    pub(crate) fn key(&self) -> Fingerprint {
        Identity::load(&self.file("identity")).unwrap().fingerprint()
    }

    /// The program, with nothing from the environment that matters to it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = steadfast();
        command.args(arguments).env("HOME", &self.0).stdin(Stdio::null());
        for variable in
            ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "STEADFAST_CONFIG", "STEADFAST_IDENTITY", "STEADFAST_LOG"]
        {
            command.env_remove(variable);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.output().unwrap())
    }

    /// It must have ended so; returns it for more.
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// It must have failed so, and said once what would help.
    pub(crate) fn failed(self, code: i32, parts: &[&str]) -> Self {
        let run = self.ended(code);
        assert!(parts.iter().all(|part| run.err.contains(part)), "{parts:?}: {run:?}");
        assert_eq!(run.err.matches("steadfast: ").count(), 1, "{run:?}");
        run
    }

    /// The objects on standard output, one a line.
    pub(crate) fn objects(&self) -> Vec<Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {self:?}")))
            .collect()
    }

    /// The last object.
    pub(crate) fn object(&self) -> Value {
        self.objects().pop().unwrap_or_else(|| panic!("no object: {self:?}"))
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A command that runs until it is told to stop, and is stopped if the test forgets.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    pub(crate) fn start(command: &mut Command, spawn: impl FnOnce(&mut Command) -> Child) -> Self {
        let mut child = spawn(command.stdout(Stdio::piped()));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// The next line that it prints, once there is one. Empty at the end.
    pub(crate) fn line(&mut self) -> String {
        match self.lines.recv_timeout(GUARD) {
            Ok(line) => line + "\n",
            Err(RecvTimeoutError::Disconnected) => String::new(),
            Err(RecvTimeoutError::Timeout) => panic!("it printed nothing for {GUARD:?}"),
        }
    }

    /// The next object that it prints, once there is one.
    pub(crate) fn object(&mut self) -> Option<Value> {
        let line = self.line();
        (!line.is_empty())
            .then(|| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// Reads on until there is such an object.
    pub(crate) fn until(&mut self, what: &str, found: impl Fn(&Value) -> bool) -> Value {
        let guard = Instant::now() + GUARD;
        let mut seen = Vec::new();
        while let Some(object) = self.object() {
            if found(&object) {
                return object;
            }
            seen.push(object);
            assert!(Instant::now() < guard, "no {what} for {GUARD:?}: {seen:?}");
        }
        panic!("it ended without {what}: {seen:?}");
    }

    /// Its errors, if whoever started it wanted them.
    pub(crate) fn stderr(&mut self) -> std::process::ChildStderr {
        self.child.stderr.take().unwrap()
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Presses Ctrl-C; returns what it prints then and its exit code.
    pub(crate) fn interrupt(self) -> (Vec<Value>, Option<i32>) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        self.end()
    }

    /// Waits for its end; returns what it prints until then and its exit code.
    pub(crate) fn end(mut self) -> (Vec<Value>, Option<i32>) {
        let mut rest = Vec::new();
        while let Some(object) = self.object() {
            rest.push(object);
        }
        (rest, self.child.wait().unwrap().code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Somebody to talk to, on the loopback, who accepts every conversation and says nothing.
pub(crate) struct Peer {
    pub(crate) contact: String,
    pub(crate) key: Fingerprint,
    endpoint: Endpoint,
    runtime: Runtime,
}

impl Peer {
    /// Trusts one; its loopback is called so.
    pub(crate) fn new(trusts: Fingerprint, network: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let of = |interface: &str| Override { interface: interface.into(), ..Override::default() };
        let overrides = vec![
            Override { ignore: Some(true), ..of("*") },
            Override { ignore: Some(false), name: Some(network.into()), ..of("lo") },
        ];
        let scout = ScoutConfig { nmcli: None, overrides, ..ScoutConfig::default() };
        let builder = Endpoint::builder().identity(Identity::generate().unwrap()).trust(trusts).scout(scout);
        let endpoint = runtime.block_on(builder.addresses([IpAddr::V4(Ipv4Addr::LOCALHOST)]).bind()).unwrap();
        runtime.spawn(accept_all(endpoint.clone()));
        Self { contact: endpoint.contact(), key: endpoint.fingerprint(), endpoint, runtime }
    }
}

impl Peer {
    /// Says farewell.
    pub(crate) fn leave(&self, words: &str) {
        self.runtime.block_on(self.endpoint.close(words));
    }
}

/// Keeps every conversation.
pub(crate) async fn accept_all(endpoint: Endpoint) {
    let mut kept = Vec::new();
    while let Some(socket) = endpoint.accept().await {
        kept.push(socket);
    }
}
