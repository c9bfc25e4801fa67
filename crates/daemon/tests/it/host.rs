//! A daemon in a process of its own, which can be stopped and killed.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use steadfast::Fingerprint;
use steadfast_daemon::status::{Answer, Question, Status, Subject, VERSION};
use steadfast_daemon::{Daemon, Settings, WayStatus};
use steadfast_net::scout::Override;
use steadfast_net::{Identity, Places, ScoutConfig, TrustFile};

use crate::client::Client;

/// Nothing that works takes this long, on however slow a machine.
pub(crate) const GUARD: Duration = Duration::from_secs(60);
const WHERE: &str = "STEADFAST_TEST_DAEMON";

/// A directory of this test's own.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Somebody who was killed, or is in another PID namespace, may have had the same number.
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("steadfast-daemon-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}"),
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits for something that must come.
pub(crate) fn until<R>(what: &str, mut look: impl FnMut() -> Option<R>) -> R {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < GUARD, "{what}: did not happen within {GUARD:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A host: its places, and its daemon if that runs.
pub(crate) struct Host {
    directory: Directory,
    pub(crate) identity: Identity,
    daemon: Option<Child>,
}

/// The status that a daemon tells, if it answers.
pub(crate) fn ask(socket: &Path) -> Option<Status> {
    let stream = UnixStream::connect(socket).ok()?;
    let question = Question { version: VERSION, ask: Some(Subject::Status), ..Question::default() };
    let mut question = serde_json::to_vec(&question).unwrap();
    question.push(b'\n');
    (&stream).write_all(&question).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str::<Answer>(&line).ok()?.status
}

fn places(at: &Path) -> Places {
    Places {
        identity: at.join("identity"),
        trusted: at.join("trusted"),
        config: at.join("config.toml"),
        state: at.join("state"),
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        let directory = Directory::new();
        let identity = Identity::generate().unwrap();
        identity.save(&directory.0.join("identity")).unwrap();
        Self { directory, identity, daemon: None }
    }

    /// What the daemon is to call the loopback.
    pub(crate) fn name_loopback(&self, name: &str) {
        std::fs::write(self.directory.0.join("loopback"), name).unwrap();
    }

    /// The socket to which processes attach.
    pub(crate) fn daemon_socket(&self) -> PathBuf {
        self.directory.0.join("daemon.sock")
    }

    pub(crate) fn key(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    /// Where the daemon keeps what it has to keep.
    pub(crate) fn state(&self) -> PathBuf {
        self.places().state
    }

    fn places(&self) -> Places {
        places(&self.directory.0)
    }

    pub(crate) fn trust(&self, other: Fingerprint) {
        TrustFile::open(&self.places().trusted).unwrap().add(other, None).unwrap();
    }

    pub(crate) fn distrust(&self, other: Fingerprint) {
        assert!(TrustFile::open(&self.places().trusted).unwrap().remove(&other).unwrap());
    }

    /// Starts the daemon with these settings, and waits until it answers.
    pub(crate) fn start(&mut self, settings: &str) {
        let at = &self.directory.0;
        let text = format!("socket = '{0}/agent.sock'\nstate = '{0}/state'\n{settings}", at.display());
        std::fs::write(at.join("config.toml"), text).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "host::daemon_of_a_test", "--nocapture"]).env(WHERE, at);
        self.daemon = Some(command.stdout(Stdio::null()).spawn().unwrap());
        until("the daemon answers", || self.ask());
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.daemon.as_ref().unwrap())
    }

    /// Lets the daemon end as an operator does.
    pub(crate) fn stop(&mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        assert!(self.daemon.take().unwrap().wait().unwrap().success());
    }

    /// Stops the daemon where it is.
    pub(crate) fn pause(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
        // All its threads stand when that is told.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.pid()), stopped).unwrap();
    }

    pub(crate) fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    fn ask(&self) -> Option<Status> {
        ask(&self.daemon_socket())
    }

    pub(crate) fn status(&self) -> Status {
        self.ask().expect("the daemon answers")
    }

    pub(crate) fn way(&self, name: &str) -> WayStatus {
        let ways = self.status().ways;
        ways.into_iter().find(|way| way.name == name).expect("the way is open")
    }

    pub(crate) fn wait_connected(&self, name: &str) {
        until("connected", || self.way(name).connected.then_some(()));
    }

    /// Waits until all ways out have confirmed everything.
    pub(crate) fn wait_sent(&self) {
        until("everything is confirmed", || (self.counter("outbox_events_now") == 0).then_some(()));
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.status().agent.counters[name]
    }

    /// A client that may publish in this event space.
    pub(crate) fn client(&self, space: &str) -> Client {
        Client::new(&self.directory.0.join("agent.sock"), space)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _gone = daemon.kill();
            let _ended = daemon.wait();
        }
    }
}

/// No test by itself: the process in which another one's daemon runs.
#[test]
fn daemon_of_a_test() {
    // Among the others it has nothing to do.
    let Some(at) = std::env::var_os(WHERE).map(PathBuf::from) else { return };
    let filter = tracing_subscriber::EnvFilter::from_env("STEADFAST_LOG");
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _set_already = log.try_init();
    // Whoever started it may be killed itself.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let places = places(&at);
    let settings: Settings = toml::from_str(&std::fs::read_to_string(&places.config).unwrap()).unwrap();
    let identity = Identity::load(&places.identity).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        // The name of the loopback, if it is to have one.
        let name = std::fs::read_to_string(at.join("loopback")).ok();
        let loopback = Override { interface: "lo".into(), name, cost: Some(7), ..Override::default() };
        let scout = ScoutConfig { nmcli: None, overrides: vec![loopback], ..ScoutConfig::default() };
        let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        let daemon = Daemon::start(&settings, scout, &places, &identity).await.unwrap();
        daemon.run(async { _ = end.recv().await }).await;
        daemon.close().await;
    });
}
