//! `steadfast checkpoint`, with real processes and CRIU. `tests/c/target.c` is what is saved.
//!
//! | file | one idea |
//! |---|---|
//! | `checkpoint.rs` | a target, and the commands around it |
//! | `checkpoint/survive.rs` | what a process has, it has again |
//! | `checkpoint/commands.rs` | options, messages, exit codes |
//! | `checkpoint/conversations.rs` | what two processes say to each other goes on |
//! | `checkpoint/migrate.rs` | to another host, or not |
//! | `checkpoint/places.rs` | directories: replaced, kept, damaged, following each other |
//! | `checkpoint/events.rs` | what is published |
//! | `checkpoint/guarded.rs` | C programs that say when |

mod commands;
mod conversations;
mod events;
mod guarded;
mod migrate;
mod places;
mod survive;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Home, Run, skip, steadfast};

/// More than anything here takes.
const GUARD: Duration = Duration::from_secs(120);

/// What saves here, or why nothing can.
fn criu() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            if !rustix::process::geteuid().is_root() {
                return Err("processes are saved by root alone".to_owned());
            }
            // Where the set-up puts one.
            let built = std::env::current_exe().unwrap();
            let fetched =
                built.ancestors().map(|place| place.join("tools/criu/criu")).find(|place| place.is_file());
            let criu = steadfast_checkpoint::Criu::find(fetched.as_deref())
                .or_else(|_| steadfast_checkpoint::Criu::find(None));
            let criu = criu.map_err(|error| error.to_string())?;
            criu.check().map_err(|error| error.to_string())?;
            Ok(criu.program().to_owned())
        })
        .clone()
}

/// The targets' program, compiled once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/target.c");
        let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("target-{}", std::process::id()));
        let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
        compiler.args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-pthread", "-o"]);
        let output =
            compiler.arg(&binary).arg(source).output().expect("a C compiler, which cargo itself needs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Of earlier runs nothing is needed.
        let running = |name: &str| {
            name.strip_prefix("target-").is_some_and(|pid| Path::new("/proc").join(pid).exists())
        };
        for entry in fs::read_dir(env!("CARGO_TARGET_TMPDIR")).unwrap().filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("target-") && !running(&name) {
                let _gone = fs::remove_file(entry.path());
            }
        }
        binary
    })
}

/// Waits until it is so.
#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let guard = Instant::now() + GUARD;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < guard, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A directory with everything of one test.
struct Bench {
    home: Home,
    criu: PathBuf,
}

impl Bench {
    /// None where nothing can be saved, which is then said.
    fn new(test: &str) -> Option<Self> {
        match criu() {
            Ok(criu) => Some(Self { home: Home::new(), criu }),
            Err(reason) => {
                skip(test, &reason);
                None
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `steadfast checkpoint`, with nobody to publish to.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.command(&["checkpoint"]);
        command
            .args(arguments)
            .env("STEADFAST_CRIU", &self.criu)
            .env("STEADFAST_AGENT", self.path("no-agent"));
        command.current_dir(self.home.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments))
    }

    /// Lets one work meanwhile.
    fn start(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Working {
        let mut command = self.command(arguments);
        change(&mut command);
        Working(command.spawn().unwrap())
    }

    /// Starts a target and waits until it is ready.
    fn target(&self, case: &str) -> Target {
        self.target_with(case, |_| {})
    }

    fn target_with(&self, case: &str, change: impl FnOnce(&mut Command)) -> Target {
        self.target_of(program(), case, change)
    }

    /// The same of another program.
    fn target_of(&self, program: &Path, case: &str, change: impl FnOnce(&mut Command)) -> Target {
        let _before = fs::remove_file(self.path("ready"));
        let mut command = Command::new(program);
        command.arg(case).arg(self.home.path()).stdin(Stdio::null());
        let out = || fs::OpenOptions::new().append(true).create(true).open(self.path("out")).unwrap();
        command.stdout(out()).stderr(out());
        change(&mut command);
        let child = command.spawn().unwrap();
        let pid = self.ready();
        Target { child, pid }
    }

    /// The number of the target that says that it is ready.
    fn ready(&self) -> u32 {
        let pid = until("a target that is ready", || fs::read_to_string(self.path("ready")).ok());
        pid.trim().parse().unwrap()
    }

    /// What the target found, which has to be nothing bad.
    #[track_caller]
    fn good(&self) {
        assert_eq!(fs::read_to_string(self.path("result")).unwrap_or_default(), "ok\n");
        fs::remove_file(self.path("result")).unwrap();
    }

    /// Saves into `saved`, and the target ends.
    fn save_and_kill(&self, mut target: Target) {
        self.run(&["save", "--kill", "--dir", "saved", &target.pid.to_string()]).ended(0);
        target.child.wait().unwrap();
    }

    /// Restores, and tells the target to go on; how the command ended.
    fn restore(&self, more: &[&str]) -> ExitStatus {
        let mut arguments = vec!["restore", "saved", "--on-success", "kill -USR1 $STEADFAST_PID"];
        arguments.extend(more);
        let guard = Instant::now() + GUARD;
        loop {
            let run = self.command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
            let run = run.wait_with_output().unwrap();
            let errors = String::from_utf8_lossy(&run.stderr);
            // Somebody else of this machine may have got the number meanwhile.
            if !errors.contains("in use") || Instant::now() > guard {
                assert!(errors.is_empty(), "{errors}");
                return run.status;
            }
        }
    }
}

/// A command that ends with the test at the latest.
struct Working(Child);

impl Working {
    fn id(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn wait(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A process that is saved; ended if the test forgets.
struct Target {
    child: Child,
    /// Of the process that is ready.
    pid: u32,
}

impl Target {
    fn id(&self) -> String {
        self.pid.to_string()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid.cast_signed()).unwrap(), signal).unwrap();
    }

    /// Tells it to go on, and waits for its end.
    fn go_on(mut self) -> ExitStatus {
        self.signal(Signal::USR1);
        self.child.wait().unwrap()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// The letter that the kernel has for what a process does.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
